// Package rewrite edits the JSON of an image, config and manifest, and can take
// the edits back. It is pure: bytes in, bytes out, no clock and no I/O.
//
// The documents are edited as text, never decoded and encoded again: a registry
// identifies them by the digest of their bytes, and every encoder loses what its
// types do not know (Healthcheck.StartInterval, vendor keys, a manifest's
// artifactType), the order of keys, or how a number was spelled. What an edit
// does not name is therefore carried over byte for byte, white space included.
//
// The documents are those of the OCI image-spec (config.md, manifest.md) and of
// Docker's image manifest version 2, schema 2, which share these fields.
package rewrite
