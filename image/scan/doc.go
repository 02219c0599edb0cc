// Package scan looks at image layers without unpacking them.
//
// [Read] makes an index of one layer in a single streaming pass: every name
// with its metadata, and the content of the few small files that say which
// Python an image has and what it starts. [Merge] stacks layer indexes into
// the file system that a container would see, following the OCI image-spec's
// layer.md: whiteouts, opaque directories, replaced directories, hard links
// across layers. The result answers questions as a file system does, with
// symbolic links resolved inside the image's root and never outside of it.
//
// [Cache] keeps the index of a layer by the digest of its blob, so that no layer
// is read twice.
//
// Names are bytes, as in the archive: nothing here requires UTF-8.
package scan
