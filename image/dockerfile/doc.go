// Package dockerfile reads Dockerfiles and puts a block of instructions at the
// end of a stage.
//
// What an instruction means comes from BuildKit's own parser. Nothing is ever
// printed from what was parsed: bytes are inserted and removed by line, so that
// comments, blank lines, line endings, a byte order mark, continuations and
// here-documents stay what they are. Taking a block out gives the bytes there
// were before it was put in.
//
// The package is pure: what is known of a base image comes in as a [Config].
package dockerfile
