package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func digestOf(blob []byte) v1.Hash {
	h := sha256.New()
	h.Write(blob)
	return hashOf(h)
}

// files lists what is in the cache, temporary files included.
func files(t *testing.T, c *Cache) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(c.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestCachePut(t *testing.T) {
	blob := []byte("some bytes")
	digest, size := digestOf(blob), int64(len(blob))
	broken := errors.New("connection reset")
	for name, tt := range map[string]struct {
		r    io.Reader
		size int64
		want string
		is   error
	}{
		"good":      {bytes.NewReader(blob), size, "", nil},
		"other":     {strings.NewReader("other byte"), size, "expected " + digest.String() + ", got sha256:", nil},
		"short":     {strings.NewReader("some"), size, "expected 10 bytes, got 4", nil},
		"long":      {strings.NewReader("some bytes and some"), size, "expected 10 bytes, got more", nil},
		"wrong len": {bytes.NewReader(blob), 9, "expected 9 bytes, got more", nil},
		"broken":    {io.MultiReader(strings.NewReader("some"), iotest.ErrReader(broken)), size, "connection reset", broken},
	} {
		t.Run(name, func(t *testing.T) {
			c := &Cache{Dir: filepath.Join(t.TempDir(), "new", "dir")}
			err := c.Put(t.Context(), digest, tt.size, tt.r)
			got, _ := os.ReadFile(c.Path(digest))
			if tt.want == "" {
				if err != nil || !bytes.Equal(got, blob) {
					t.Errorf("error %v, content %q", err, got)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if left := files(t, c); left != nil {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestCachePutCanceled(t *testing.T) {
	blob := bytes.Repeat([]byte("x"), 1<<20)
	c := &Cache{Dir: t.TempDir()}
	ctx, cancel := context.WithCancel(t.Context())
	r := &readFunc{bytes.NewReader(blob), cancel}
	if err := c.Put(ctx, digestOf(blob), int64(len(blob)), r); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	if left := files(t, c); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// readFunc calls f before each read.
type readFunc struct {
	r io.Reader
	f func()
}

func (r *readFunc) Read(p []byte) (int, error) { r.f(); return r.r.Read(p) }

func TestCachePutNoDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := &Cache{Dir: file}
	if err := c.Put(t.Context(), digestOf(nil), 0, strings.NewReader("")); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("error %v, want one that names %s", err, file)
	}
}

func TestCacheVerify(t *testing.T) {
	blob := []byte("some bytes")
	digest, size := digestOf(blob), int64(len(blob))
	for name, tt := range map[string]struct {
		content string
		ok      bool
	}{
		"good":      {"some bytes", true},
		"truncated": {"some", false},
		"flipped":   {"some bytEs", false},
		"empty":     {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			c := &Cache{Dir: t.TempDir()}
			if err := c.Put(t.Context(), digest, size, bytes.NewReader(blob)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(c.Path(digest), []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			path, err := c.Verify(digest, size)
			if tt.ok {
				if err != nil || path != c.Path(digest) {
					t.Errorf("Verify = %q, %v", path, err)
				}
				return
			}
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("error %v, want %v", err, fs.ErrNotExist)
			}
			if left := files(t, c); left != nil {
				t.Errorf("damaged blob left behind: %v", left)
			}
		})
	}
	c := &Cache{Dir: t.TempDir()}
	if _, err := c.Verify(digest, size); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want %v", err, fs.ErrNotExist)
	}
	if _, err := c.Stat(digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want %v", err, fs.ErrNotExist)
	}
}

func TestCacheConcurrent(t *testing.T) {
	blob := bytes.Repeat([]byte("some bytes"), 10000)
	digest, size := digestOf(blob), int64(len(blob))
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c := &Cache{Dir: dir}
			if err := c.Put(t.Context(), digest, size, bytes.NewReader(blob)); err != nil {
				t.Error(err)
			}
			if _, err := c.Verify(digest, size); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c := &Cache{Dir: dir}
	if got, err := c.Stat(digest); got != size || err != nil {
		t.Errorf("Stat = %d, %v; want %d", got, err, size)
	}
	if left := files(t, c); len(left) != 1 {
		t.Errorf("files %v, want one", left)
	}
}
