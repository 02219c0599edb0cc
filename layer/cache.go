package layer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Cache is a directory of blobs named by their digests. Any number of
// processes may use one at the same time: a blob appears whole or not at all.
// Nothing that is in it is believed: what doesn't have the digest it is named
// by is removed and counts as absent.
type Cache struct {
	// Dir is created when the first blob is put.
	Dir string
}

// Path returns the file that holds the blob with this digest, if the cache has
// it.
func (c *Cache) Path(digest v1.Hash) string {
	return filepath.Join(c.Dir, digest.Algorithm, digest.Hex)
}

// Stat returns the size of a blob in bytes, without verifying it. The error is
// [fs.ErrNotExist] if the cache doesn't have it.
func (c *Cache) Stat(digest v1.Hash) (int64, error) {
	fi, err := os.Stat(c.Path(digest))
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// Verify reads a blob and returns its file if it has the digest and the size
// in bytes that it should have. The error is [fs.ErrNotExist] if the cache
// doesn't have the blob, or had one that was damaged.
func (c *Cache) Verify(digest v1.Hash, size int64) (path string, err error) {
	path = c.Path(digest)
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	if fi.Size() == size {
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return "", fmt.Errorf("reading cache: %w", err)
		}
		if hashOf(h) == digest {
			return path, nil
		}
	}
	// Whether or not it can be removed, for the caller it isn't there. If
	// another process has replaced it by a good one just now, that one is
	// made again: a loss of time only.
	os.Remove(path)
	return "", fmt.Errorf("cached blob %s is damaged: %w", digest, fs.ErrNotExist)
}

// Put stores the blob that r gives until EOF. If its digest or size in bytes
// isn't the given one, if r fails, or if ctx is done before the end, nothing
// is stored and no temporary file stays behind. An error of r is returned as
// it is.
func (c *Cache) Put(ctx context.Context, digest v1.Hash, size int64, r io.Reader) (err error) {
	path := c.Path(digest)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("creating cache: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*")
	if err != nil {
		return fmt.Errorf("writing to cache %s: %w", c.Dir, cause(err))
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()

	h := sha256.New()
	// One byte more than expected is enough to know that it is too long.
	src := &source{ctx: ctx, r: io.LimitReader(r, size+1)}
	n, err := io.Copy(io.MultiWriter(f, h), src)
	switch {
	case src.err != nil:
		return src.err
	case err != nil:
		return fmt.Errorf("writing to cache %s: %w", c.Dir, cause(err))
	case n != size:
		return fmt.Errorf("expected %d bytes, got %s", size, atLeast(n, size))
	case hashOf(h) != digest:
		return fmt.Errorf("expected %s, got %s", digest, hashOf(h))
	}
	// CreateTemp makes the file readable by its owner alone, but a cache may
	// be filled by one user, as when an image is built, and read by another.
	if err = errors.Join(f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing to cache %s: %w", c.Dir, cause(err))
	}
	return nil
}

func atLeast(n, size int64) string {
	if n > size {
		return "more"
	}
	return fmt.Sprint(n)
}

// cause drops the name of a temporary file, which says nothing to the user.
func cause(err error) error {
	var pathErr *fs.PathError
	var linkErr *os.LinkError
	switch {
	case errors.As(err, &pathErr):
		return pathErr.Err
	case errors.As(err, &linkErr):
		return linkErr.Err
	}
	return err
}

// source tells errors of the reader from errors of the writer in [io.Copy].
type source struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if ctxErr := s.ctx.Err(); ctxErr != nil {
		err = ctxErr
	}
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Layer returns the cached layer that info describes. The error is
// [fs.ErrNotExist] if it isn't in the cache.
func (c *Cache) Layer(info Info) (*Layer, error) {
	path, err := c.Verify(info.Digest, info.Size)
	if err != nil {
		return nil, err
	}
	return &Layer{info, types.OCILayer, func() (io.ReadCloser, error) { return os.Open(path) }}, nil
}

// PutLayer stores a layer and returns it, now backed by the cache's file.
func (c *Cache) PutLayer(ctx context.Context, l *Layer) (*Layer, error) {
	blob, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	if err := c.Put(ctx, l.info.Digest, l.info.Size, blob); err != nil {
		return nil, fmt.Errorf("storing layer %s: %w", l.info.Digest, err)
	}
	return c.Layer(l.info)
}
