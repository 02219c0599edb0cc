package scan

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// Tree is a file system that answers from afar, such as what a builder has built.
// Names are relative to its root, "." for itself, and lead through directories
// only. Its methods are called from several goroutines.
type Tree interface {
	// ReadDir lists a directory.
	ReadDir(ctx context.Context, name string) ([]TreeEntry, error)
	// ReadAt returns up to length bytes of a regular file, fewer only at its end.
	ReadAt(ctx context.Context, name string, offset int64, length int) ([]byte, error)
}

// TreeEntry is a file of a [Tree].
type TreeEntry struct {
	Name     string // in its directory
	Mode     fs.FileMode
	UID, GID int
	Size     int64
	ModTime  time.Time
	Linkname string // of a symbolic link
}

const (
	walkAhead = 64 // answers that are waited for in one directory
	maxChunk  = 1 << 20
)

// Walk makes the index of a whole file system, which [Merge] takes as its only
// layer. It is as if the files had come in one archive: the same content is kept,
// within the limits of one layer. What no image runs Python by is not looked into
// (see skipped). Up to jobs questions are asked at a time.
func Walk(ctx context.Context, t Tree, jobs int) (*Layer, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &walker{ctx: ctx, tree: t, builder: newBuilder(), slots: make(chan struct{}, max(jobs, 1))}
	defer w.running.Wait()
	defer cancel()
	if err := w.directory(".", w.list(".")); err != nil {
		return nil, err
	}
	return w.builder.layer, nil
}

type walker struct {
	ctx     context.Context
	tree    Tree
	builder *builder
	slots   chan struct{}
	running sync.WaitGroup
}

// An answer waits for what was asked for.
type answer[T any] func() (T, error)

// ask asks as soon as a slot is free.
func ask[T any](w *walker, question func() (T, error)) answer[T] {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	w.running.Go(func() {
		w.slots <- struct{}{}
		defer func() { <-w.slots }()
		var r result
		if r.err = w.ctx.Err(); r.err == nil {
			r.value, r.err = question()
		}
		done <- r
	})
	return func() (T, error) {
		r := <-done
		return r.value, r.err
	}
}

// inOrder asks about each item some time before it is its turn.
func inOrder[E, T any](items []E, ask func(E) answer[T], each func(E, answer[T]) error) error {
	var pending []answer[T]
	for i, item := range items {
		for len(pending) < walkAhead && i+len(pending) < len(items) {
			pending = append(pending, ask(items[i+len(pending)]))
		}
		if err := each(item, pending[0]); err != nil {
			return err
		}
		pending = pending[1:]
	}
	return nil
}

func (w *walker) list(name string) answer[[]TreeEntry] {
	return ask(w, func() ([]TreeEntry, error) {
		entries, err := w.tree.ReadDir(w.ctx, name)
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", path.Join("/", name), err)
		}
		return entries, nil
	})
}

// directory adds what is in a directory, and below it.
func (w *walker) directory(name string, listed answer[[]TreeEntry]) error {
	entries, err := listed()
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b TreeEntry) int { return strings.Compare(a.Name, b.Name) })
	head := func(e TreeEntry) answer[[]byte] {
		file := path.Join(name, e.Name)
		length := headLength(interest(file, e.Mode, e.Size), e.Size)
		if !e.Mode.IsRegular() || length == 0 {
			return nil
		}
		return ask(w, func() ([]byte, error) { return w.tree.ReadAt(w.ctx, file, 0, length) })
	}
	err = inOrder(entries, head, func(e TreeEntry, first answer[[]byte]) error {
		file := path.Join(name, e.Name)
		body := &remoteFile{walker: w, name: file, size: e.Size}
		if first != nil {
			chunk, err := first()
			if err != nil {
				return fmt.Errorf("reading %s: %w", path.Join("/", file), err)
			}
			body.take(chunk)
		}
		header, ok := e.header(file)
		if !ok {
			return nil
		}
		if err := w.builder.add(header, body); err != nil {
			return fmt.Errorf("reading %s: %w", path.Join("/", file), noEOF(err))
		}
		return nil
	})
	if err != nil {
		return err
	}
	directories := slices.DeleteFunc(entries, func(e TreeEntry) bool {
		return !e.Mode.IsDir() || skipped(path.Join(name, e.Name))
	})
	return inOrder(directories,
		func(e TreeEntry) answer[[]TreeEntry] { return w.list(path.Join(name, e.Name)) },
		func(e TreeEntry, listed answer[[]TreeEntry]) error {
			return w.directory(path.Join(name, e.Name), listed)
		})
}

// headLength is how much of a file is asked for at first.
func headLength(r rule, size int64) int {
	length := int64(maxELF)
	switch r {
	case nothing:
		return 0
	case headers:
		length = 16 << 10
	case whole, settings:
		if size > maxText {
			return 0
		}
		length = maxText
	}
	return int(min(size, length))
}

// skipped reports whether nothing in a directory tells which Python an image has
// and what it starts. Some of them have very many files.
func skipped(name string) bool {
	switch path.Base(name) {
	case "__pycache__", "node_modules", ".git":
		return true
	}
	switch name {
	case "proc", "sys", "dev", "usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man", "usr/share/zoneinfo":
		return true
	}
	return false
}

// header is the file as a member of an archive, if it can be one.
func (e TreeEntry) header(name string) (h *tar.Header, ok bool) {
	h = &tar.Header{Name: name, Mode: int64(e.Mode.Perm()), Uid: e.UID, Gid: e.GID, Size: e.Size, ModTime: e.ModTime, Linkname: e.Linkname}
	for bit, tarBit := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if e.Mode&bit != 0 {
			h.Mode |= tarBit
		}
	}
	switch e.Mode.Type() {
	case 0:
		h.Typeflag = tar.TypeReg
	case fs.ModeDir:
		h.Typeflag = tar.TypeDir
	case fs.ModeSymlink:
		h.Typeflag = tar.TypeSymlink
	case fs.ModeDevice | fs.ModeCharDevice:
		h.Typeflag = tar.TypeChar
	case fs.ModeDevice:
		h.Typeflag = tar.TypeBlock
	case fs.ModeNamedPipe:
		h.Typeflag = tar.TypeFifo
	default:
		return nil, false
	}
	return h, true
}

// remoteFile reads a file in pieces that grow: most are not read to the end.
type remoteFile struct {
	*walker
	name   string
	size   int64
	offset int64 // of what follows the chunk
	chunk  []byte
	length int // of the next chunk
}

func (f *remoteFile) Read(p []byte) (int, error) {
	if len(f.chunk) == 0 {
		if f.offset >= f.size {
			return 0, io.EOF
		}
		f.length = min(max(2*f.length, maxText), maxChunk)
		chunk, err := f.tree.ReadAt(f.ctx, f.name, f.offset, int(min(int64(f.length), f.size-f.offset)))
		if err == nil && len(chunk) == 0 {
			err = io.EOF
		}
		if err != nil {
			return 0, err
		}
		f.take(chunk)
	}
	n := copy(p, f.chunk)
	f.chunk = f.chunk[n:]
	return n, nil
}

func (f *remoteFile) take(chunk []byte) {
	f.chunk = chunk
	f.offset += int64(len(chunk))
}
