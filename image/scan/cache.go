package scan

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgwrap/imgwrap/layer"
)

// Cache is a directory that keeps the indexes of layers, by the digests of the
// layers' blobs, and the configs of images, by theirs. Any number of processes
// may use one at the same time: an entry appears whole or not at all. Nothing in
// it is believed: what is damaged, cut short or of something else is removed and
// counts as absent. A nil Cache keeps nothing.
type Cache struct {
	// Dir is created when the first index is put.
	Dir string
	// MaxBytes is how much the directory may hold: beyond that, the entries
	// whose last use is the longest ago are removed. Nothing is put if it is 0.
	MaxBytes int64

	mu   sync.Mutex
	held int64 // bytes, by the last count and what was put since; 0 before the first count

	reading reading
}

// An entry is a file of the magic string, a SHA-256 sum, and a layer as
// [encode] writes it. The sum is of the layer's digest, a newline and what
// follows the sum.
const (
	magic      = "imgwrap layer index 1\n"
	headerSize = len(magic) + sha256.Size
	// maxEntry is more than the index of any layer needs.
	maxEntry = maxIndex + maxContent + 2*maxScripts
)

// path returns the file for a layer. Versions of imgwrap that keep different
// things may share a directory.
func (c *Cache) path(digest v1.Hash) string {
	return filepath.Join(c.Dir, digest.Algorithm, fmt.Sprintf("%s.%d", digest.Hex, schema))
}

// Get returns the index of the layer whose blob has this digest, if the cache
// has it.
func (c *Cache) Get(digest v1.Hash) (*Layer, bool) {
	if c == nil {
		return nil, false
	}
	path := c.path(digest)
	l, err := readEntry(path, digest.String())
	if errors.Is(err, errCorrupt) {
		// If another process has replaced it by a good one just now, that one is
		// made again: a loss of time only.
		os.Remove(path) //nolint:errcheck // what can't be removed is never believed either
	}
	if err != nil {
		return nil, false
	}
	touch(path)
	return l, true
}

// readEntry reads the file of an entry. The error is errCorrupt if it isn't one
// of this layer.
func readEntry(path, digest string) (*Layer, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if fi.Size() < int64(headerSize) || fi.Size() > maxEntry {
		return nil, errCorrupt
	}
	entry, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(entry, []byte(magic)) || !bytes.Equal(entry[len(magic):headerSize], sum(digest, entry[headerSize:])) {
		return nil, errCorrupt
	}
	return decode(bytes.NewReader(entry[headerSize:]))
}

func sum(digest string, encoded []byte) []byte {
	h := sha256.New()
	io.WriteString(h, digest+"\n") //nolint:errcheck // a hash never fails
	h.Write(encoded)
	return h.Sum(nil)
}

// Put stores the index of the layer whose blob has this digest: all of the blob
// must have been read and verified. Then it makes room by what was not used for
// the longest time. An error means that the layer has to be read again the next
// time, and no more.
func (c *Cache) Put(digest v1.Hash, l *Layer) error {
	if c == nil || c.MaxBytes <= 0 {
		return nil
	}
	var entry bytes.Buffer
	entry.WriteString(magic)
	entry.Write(make([]byte, sha256.Size))
	if err := encode(&entry, l); err != nil {
		return err
	}
	copy(entry.Bytes()[len(magic):], sum(digest.String(), entry.Bytes()[headerSize:]))
	return c.put(c.path(digest), entry.Bytes(), 0o644)
}

// configsDir is the directory in the cache with the configs. The name of each file
// is its digest.
const configsDir = "configs"

// configPath returns the file for the config of an image.
func (c *Cache) configPath(digest v1.Hash) string {
	return filepath.Join(c.Dir, configsDir, digest.Algorithm+"-"+digest.Hex)
}

// Config returns the config of an image by its digest, if the cache has it.
func (c *Cache) Config(digest v1.Hash) ([]byte, bool) {
	if c == nil {
		return nil, false
	}
	path := c.configPath(digest)
	raw, err := readConfig(path)
	if errors.Is(err, errCorrupt) {
		os.Remove(path) //nolint:errcheck // as in Get
	}
	if err != nil {
		return nil, false
	}
	touch(path)
	return raw, true
}

// readConfig reads the file of a config. The error is errCorrupt if its content is
// not that of the digest in its name.
func readConfig(path string) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	digest, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil || filepath.Base(path) != digest.Algorithm+"-"+digest.Hex {
		return nil, errCorrupt
	}
	return raw, nil
}

// PutConfig stores the config of an image, for this user alone: there may be
// passwords in it. Where that fails it has to be read again the next time, and no
// more.
func (c *Cache) PutConfig(digest v1.Hash, config []byte) {
	if c != nil && c.MaxBytes > 0 {
		_ = c.put(c.configPath(digest), config, 0o600)
	}
}

// put writes a file and makes room for it.
func (c *Cache) put(path string, content []byte, perm fs.FileMode) error {
	if err := layer.WriteFile(path, content, perm); err != nil {
		return fmt.Errorf("writing to cache %s: %w", c.Dir, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	counted := c.held > 0
	c.held += int64(len(content))
	if counted && c.held <= c.MaxBytes {
		return nil
	}
	_, err := c.trim()
	return err
}

// touch says when a file was used last, for the order in which they are removed.
func touch(path string) {
	now := time.Now()
	os.Chtimes(path, now, now) //nolint:errcheck // a directory that can't be written needs no order of use
}

// Prune removes entries that are damaged, what killed processes left behind,
// and what is more than the cache may hold.
func (c *Cache) Prune(ctx context.Context) (layer.Removed, error) {
	var damaged []layer.File
	files, _, err := layer.Files(c.Dir)
	for _, f := range files {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return layer.Removed{}, err
		}
		if filepath.Dir(f.Path) == filepath.Join(c.Dir, configsDir) {
			if _, err := readConfig(f.Path); errors.Is(err, errCorrupt) {
				damaged = append(damaged, f)
			}
			continue
		}
		hex, version, _ := strings.Cut(filepath.Base(f.Path), ".")
		digest := filepath.Base(filepath.Dir(f.Path)) + ":" + hex
		if _, err := v1.NewHash(digest); err == nil && version != strconv.Itoa(schema) {
			continue // another version of imgwrap may use it
		}
		if _, err := readEntry(f.Path, digest); errors.Is(err, errCorrupt) {
			damaged = append(damaged, f)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trim(damaged...)
}

// trim removes the files given, what killed processes left behind, and then
// what was not used for the longest time until the rest is at most MaxBytes.
func (c *Cache) trim(damaged ...layer.File) (removed layer.Removed, err error) {
	if err := removed.Remove(damaged...); err != nil {
		return removed, err
	}
	files, abandoned, err := layer.Files(c.Dir)
	if err := errors.Join(err, removed.Remove(abandoned...)); err != nil {
		return removed, err
	}
	c.held = 0
	for _, f := range files {
		c.held += f.Size
	}
	slices.SortFunc(files, func(a, b layer.File) int { return a.Modified.Compare(b.Modified) })
	for _, f := range files {
		if c.held <= c.MaxBytes {
			break
		}
		if err := removed.Remove(f); err != nil {
			return removed, err
		}
		c.held -= f.Size
	}
	return removed, nil
}
