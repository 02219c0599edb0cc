package layer

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWriteFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	path := filepath.Join(dir, "file")
	for _, content := range []string{"some", "other bytes"} {
		if err := WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("content %q, %v", got, err)
		}
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", fi, err)
	}
	if err := WriteFile(dir, nil, 0o644); err == nil { // a directory that is not empty
		t.Error("no error")
	}
	if err := WriteFile(filepath.Join(path, "file"), nil, 0o644); err == nil {
		t.Error("no error")
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if left, err := os.ReadDir(d); err != nil || len(left) != 1 {
			t.Errorf("in %s: %v, %v", d, left, err)
		}
	}
}

func TestCachePrune(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	c := &Cache{Dir: filepath.Join(dir, "link")}
	if removed, err := c.Prune(t.Context()); err != nil || removed != (Removed{}) {
		t.Errorf("without a cache: %+v, %v", removed, err)
	}
	if err := errors.Join(os.Mkdir(target, 0o755), os.Symlink(target, c.Dir)); err != nil {
		t.Fatal(err)
	}
	write := func(path, content string, age time.Duration) string {
		written := time.Now().Add(-age)
		if err := errors.Join(WriteFile(path, []byte(content), 0o644), os.Chtimes(path, written, written)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, bad := []byte("good"), digestOf([]byte("bad"))
	if err := c.Put(t.Context(), digestOf(good), 4, bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	stays := []string{
		c.Path(digestOf(good)),
		write(filepath.Join(c.Dir, "record.json"), "no blob", 0),
		write(filepath.Join(c.Dir, "sha256", ".tmp-1"), "being written", abandonedAfter-time.Minute),
	}
	gone := []string{
		write(c.Path(bad), "12345", 0),
		write(filepath.Join(c.Dir, "sha256", ".tmp-2"), "left behind", abandonedAfter+time.Minute),
	}
	removed, err := c.Prune(t.Context())
	if err != nil || removed != (Removed{2, 5 + 11}) {
		t.Errorf("removed %+v, %v", removed, err)
	}
	for _, p := range stays {
		if _, err := os.Stat(p); err != nil {
			t.Error(err)
		}
	}
	for _, p := range gone {
		if _, err := os.Stat(p); err == nil {
			t.Errorf("%s is there", p)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Prune(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
