package layer

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// tempPrefix begins the names of files that are being written.
const tempPrefix = ".tmp-"

// abandonedAfter is how long nothing was written to a temporary file whose
// writer is taken to be dead. The number of a process would tell less: those
// who share a cache may be in containers.
const abandonedAfter = 10 * time.Minute

// File is a file in a cache's directory.
type File struct {
	Path     string
	Size     int64
	Modified time.Time
}

// Files lists what is in a cache's directory and below. Files that are being
// written are left out; what killed writers left behind comes separately.
func Files(dir string) (files, abandoned []File, err error) {
	// With a separator at its end, dir itself may be a symbolic link.
	err = filepath.WalkDir(dir+string(filepath.Separator), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // there is no cache, or another process was faster
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // another process was faster
		}
		f := File{path, fi.Size(), fi.ModTime()}
		switch temporary := strings.HasPrefix(d.Name(), tempPrefix); {
		case !temporary:
			files = append(files, f)
		case time.Since(f.Modified) > abandonedAfter:
			abandoned = append(abandoned, f)
		}
		return nil
	})
	return files, abandoned, err
}

// WriteFile writes a file, and its directory if there is none. The
// file appears whole or not at all, with these permissions.
func WriteFile(path string, data []byte, perm fs.FileMode) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(perm), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// ReplaceFile replaces a file of the user's: at once, and leaving its permissions,
// and a symbolic link to it, as they are.
func ReplaceFile(path string, data []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return WriteFile(path, data, info.Mode().Perm())
}

// Removed counts the files that were removed from a cache.
type Removed struct {
	Files int
	Bytes int64
}

// Remove removes files and counts them. One that is gone already is no error.
func (r *Removed) Remove(files ...File) error {
	for _, f := range files {
		switch err := os.Remove(f.Path); {
		case err == nil:
			r.Files++
			r.Bytes += f.Size
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return nil
}

// Prune reads all blobs and removes those that are damaged, and what killed
// writers left behind.
func (c *Cache) Prune(ctx context.Context) (removed Removed, err error) {
	files, abandoned, err := Files(c.Dir)
	if err == nil {
		err = removed.Remove(abandoned...)
	}
	for _, f := range files {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return removed, err
		}
		digest, notBlob := v1.NewHash(filepath.Base(filepath.Dir(f.Path)) + ":" + filepath.Base(f.Path))
		if notBlob != nil {
			continue
		}
		if _, err = c.Verify(digest, f.Size); errors.Is(err, fs.ErrNotExist) {
			removed.Files++
			removed.Bytes += f.Size
			err = nil
		}
	}
	return removed, err
}
