package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/sync/errgroup"
)

// Compress compresses the layers of a source whose transport has them uncompressed
// (see Transport.KeepsManifests), for the way to one that keeps them as they are:
// an image would take up to three times the space and time. Root is another
// document afterwards. Other sources stay as they are.
//
// It takes time, jobs layers at once, and space for temporary files. Nothing else
// may use the source meanwhile. The result is the same on every machine, but
// perhaps not in another version of this package. The error is an *Error.
func (s *Source) Compress(ctx context.Context, jobs int) error {
	archive, ok := s.store.(*dockerArchive)
	if !ok {
		return nil
	}
	c := &compressed{dockerArchive: archive, layers: make(map[v1.Hash]*os.File)}
	root, err := c.compressAll(ctx, s.Root, jobs)
	if err != nil {
		c.removeLayers()
		return s.explain("compressing", err)
	}
	s.store, s.Root = c, root
	contents, err := parseDocument(&s.Root)
	if err != nil {
		return s.explain("compressing", err)
	}
	s.note(contents)
	return nil
}

// A compressed archive has compressed layers in temporary files.
type compressed struct {
	*dockerArchive
	layers map[v1.Hash]*os.File
}

func (c *compressed) compressAll(ctx context.Context, root Document, jobs int) (Document, error) {
	var m v1.Manifest
	if err := json.Unmarshal(root.Raw, &m); err != nil {
		return Document{}, err
	}
	type result struct {
		file *os.File
		desc v1.Descriptor
	}
	results := make(map[v1.Hash]*result) // an image may have a layer twice
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(jobs, 1))
	for _, d := range m.Layers {
		if results[d.Digest] != nil || d.MediaType != types.DockerUncompressedLayer && d.MediaType != types.OCIUncompressedLayer {
			continue
		}
		r := &result{desc: d}
		results[d.Digest] = r
		g.Go(func() (err error) {
			r.file, r.desc, err = c.compress(gctx, d)
			return err
		})
	}
	err := g.Wait()
	for _, r := range results {
		if r.file != nil {
			c.layers[r.desc.Digest] = r.file
		}
	}
	if err != nil {
		return Document{}, err
	}
	for i, d := range m.Layers {
		if r := results[d.Digest]; r != nil {
			m.Layers[i] = r.desc
		}
	}
	raw, err := json.Marshal(m)
	return NewDocument(root.MediaType, raw), err
}

// compress compresses a layer into a temporary file and describes it.
func (c *compressed) compress(ctx context.Context, d v1.Descriptor) (*os.File, v1.Descriptor, error) {
	r, err := c.dockerArchive.blob(ctx, d)
	if err != nil {
		return nil, d, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	defer r.Close()
	f, err := createTemporary()
	if err != nil {
		return nil, d, err
	}
	hash := sha256.New()
	w := gzip.NewWriter(io.MultiWriter(f, hash))
	_, err = io.Copy(w, &contextReader{ctx, r})
	if err = errors.Join(err, w.Close()); err == nil {
		d.Size, err = f.Seek(0, io.SeekCurrent)
	}
	if err != nil {
		removeTemporary(f)
		return nil, d, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	d.Digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(hash.Sum(nil))}
	d.MediaType = layerType(d.MediaType == types.OCIUncompressedLayer, gzipped)
	return f, d, nil
}

func (c *compressed) blob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	if f, ok := c.layers[d.Digest]; ok {
		return verify(io.NopCloser(io.NewSectionReader(f, 0, d.Size)), d)
	}
	return c.dockerArchive.blob(ctx, d)
}

func (c *compressed) removeLayers() {
	for _, f := range c.layers {
		removeTemporary(f)
	}
}

func (c *compressed) Close() error {
	c.removeLayers()
	return c.dockerArchive.Close()
}
