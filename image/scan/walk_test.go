package scan

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// archiveTree is a tree of the files in an archive.
type archiveTree struct {
	directories map[string][]TreeEntry
	contents    map[string][]byte
	read        atomic.Int64 // bytes
}

func newArchiveTree(t *testing.T, raw []byte) *archiveTree {
	t.Helper()
	a := &archiveTree{directories: map[string][]TreeEntry{".": nil}, contents: map[string][]byte{}}
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return a
		}
		if err != nil {
			t.Fatal(err)
		}
		name := path.Clean(h.Name)
		info := h.FileInfo()
		a.directories[path.Dir(name)] = append(a.directories[path.Dir(name)], TreeEntry{
			Name: path.Base(name), Mode: info.Mode(), UID: h.Uid, GID: h.Gid, Size: h.Size, ModTime: h.ModTime, Linkname: h.Linkname,
		})
		if info.IsDir() {
			a.directories[name] = nil
		}
		if a.contents[name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func (a *archiveTree) ReadDir(_ context.Context, name string) ([]TreeEntry, error) {
	entries, ok := a.directories[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(entries), nil
}

func (a *archiveTree) ReadAt(_ context.Context, name string, offset int64, length int) ([]byte, error) {
	content := a.contents[name]
	content = content[min(offset, int64(len(content))):]
	content = content[:min(length, len(content))]
	a.read.Add(int64(len(content)))
	return content, nil
}

// walkMembers are files of every kind with the directories above them.
func walkMembers(t *testing.T) []string {
	t.Helper()
	elf := "\x7fELF" + strings.Repeat("\x00", 3<<20)
	members := []string{
		"link -> app/run.py", "usr/share/doc/python3/copyright.sh: exec x", "srv/", "usr/share/man/x.1",
		"app/__pycache__/run.pyc: x", "app/a.pyz: " + zipOf(t, "#!/usr/bin/env python3\n", "__main__.py", "x-1.dist-info/METADATA"),
		"+x app/frozen: " + elf + "MEI\x0c\x0b\x0a\x0b\x0e" + elf, "+x app/plain: " + elf,
	}
	for _, tt := range contentTests() {
		members = append(members, tt.member)
	}
	for i := range 3 * walkAhead {
		members = append(members, fmt.Sprintf("many/%d/run%d: #!/bin/sh\nexec python3 -m app%d", i, i, i))
	}
	var all []string
	seen := map[string]bool{".": true}
	for _, m := range members {
		name, _, _ := strings.Cut(strings.TrimPrefix(m, "+x "), ": ")
		name, _, _ = strings.Cut(name, " -> ")
		var above []string
		for dir := path.Dir(strings.TrimSuffix(name, "/")); !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
			above = append(above, dir+"/")
		}
		slices.Reverse(above)
		all = append(append(all, above...), m)
	}
	return all
}

func TestWalk(t *testing.T) {
	raw := archive(t, walkMembers(t)...)
	read, err := Read(t.Context(), bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	want := Merge(read)
	tree := newArchiveTree(t, raw)
	walked, err := Walk(t.Context(), tree, 16)
	if err != nil {
		t.Fatal(err)
	}
	got := Merge(walked)
	var left []string
	for _, p := range want.Find(func([]byte) bool { return true }) {
		w, _ := want.Lstat(p)
		g, err := got.Lstat(p)
		if errors.Is(err, fs.ErrNotExist) {
			left = append(left, p)
			continue
		}
		if err != nil || !reflect.DeepEqual(w, g) {
			t.Errorf("%s: %+v, %v; want %+v", p, g, err, w)
		}
	}
	if want := []string{"/app/__pycache__/run.pyc", "/usr/share/doc/python3", "/usr/share/doc/python3/copyright.sh", "/usr/share/man/x.1"}; !slices.Equal(left, want) {
		t.Errorf("left out were %q, want %q", left, want)
	}
	// Two files of 6 and 3 MiB have to be read to their ends.
	if n := tree.read.Load(); n > 10<<20 {
		t.Errorf("%d bytes were read", n)
	}
}

// failingTree fails for one name.
type failingTree struct {
	*archiveTree
	name string
}

var errTree = errors.New("broken")

func (f failingTree) ReadDir(ctx context.Context, name string) ([]TreeEntry, error) {
	if name == f.name {
		return nil, errTree
	}
	return f.archiveTree.ReadDir(ctx, name)
}

func (f failingTree) ReadAt(ctx context.Context, name string, offset int64, length int) ([]byte, error) {
	if name == f.name {
		return nil, errTree
	}
	return f.archiveTree.ReadAt(ctx, name, offset, length)
}

func TestWalkFails(t *testing.T) {
	tree := newArchiveTree(t, archive(t, walkMembers(t)...))
	for _, name := range []string{".", "many/17", "many/17/run17", "app/frozen"} {
		_, err := Walk(t.Context(), failingTree{tree, name}, 4)
		if !errors.Is(err, errTree) || !strings.Contains(err.Error(), path.Join("/", name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Walk(ctx, tree, 4); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}
