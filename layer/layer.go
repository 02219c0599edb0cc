// Package layer makes image layers whose bytes depend on nothing but their
// content, and keeps them, like any other blob, in a local content-addressed
// cache.
//
// A [Layer] knows its digest, diff ID and size before anybody reads it, so an
// image that contains it can be described without opening it.
package layer

import (
	"bytes"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
)

// Info identifies and measures a layer.
type Info struct {
	// Digest and Size are those of the compressed blob.
	Digest v1.Hash
	Size   int64
	// DiffID is the digest of the tar archive inside (OCI image-spec,
	// config.md, "Layer DiffID").
	DiffID v1.Hash
	// Unpacked is the sum of the sizes of the files in bytes, without tar's
	// headers and padding. Files is their number, without directories and
	// links.
	Unpacked int64
	Files    int
}

// Layer is a gzip-compressed tar layer: in memory, in a file, or yet to be made.
// It is a [v1.Layer]; its readers can be opened any number of times, concurrently.
type Layer struct {
	info      Info
	mediaType types.MediaType
	open      func() (io.ReadCloser, error)
}

var _ v1.Layer = (*Layer)(nil)

func fromBytes(info Info, blob []byte) *Layer {
	return &Layer{info, types.OCILayer, func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(blob)), nil
	}}
}

// Deferred returns a layer that is known but need not exist yet: make is called
// whenever the layer is read.
func Deferred(info Info, make func() (*Layer, error)) *Layer {
	return &Layer{info, types.OCILayer, func() (io.ReadCloser, error) {
		l, err := make()
		if err != nil {
			return nil, err
		}
		return l.Compressed()
	}}
}

// WithMediaType returns the same layer under another media type: the manifest
// it goes into decides between [types.OCILayer], the default, and
// [types.DockerLayer].
func (l *Layer) WithMediaType(mt types.MediaType) *Layer {
	m := *l
	m.mediaType = mt
	return &m
}

// Info returns everything that is known about the layer without opening it.
func (l *Layer) Info() Info { return l.info }

// Digest implements [v1.Layer].
func (l *Layer) Digest() (v1.Hash, error) { return l.info.Digest, nil }

// DiffID implements [v1.Layer].
func (l *Layer) DiffID() (v1.Hash, error) { return l.info.DiffID, nil }

// Size implements [v1.Layer]: the number of bytes of the compressed blob.
func (l *Layer) Size() (int64, error) { return l.info.Size, nil }

// MediaType implements [v1.Layer].
func (l *Layer) MediaType() (types.MediaType, error) { return l.mediaType, nil }

// Compressed implements [v1.Layer].
func (l *Layer) Compressed() (io.ReadCloser, error) { return l.open() }

// Uncompressed implements [v1.Layer].
func (l *Layer) Uncompressed() (io.ReadCloser, error) {
	blob, err := l.open()
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(blob)
	if err != nil {
		blob.Close()
		return nil, fmt.Errorf("reading layer %s: %w", l.info.Digest, err)
	}
	return &unzipped{z, blob}, nil
}

type unzipped struct {
	*gzip.Reader
	blob io.Closer
}

func (u *unzipped) Close() error { return u.blob.Close() }
