package scan

import (
	"errors"
	"io/fs"
	"slices"
	"sort"
	"strings"
	"time"
)

// ErrLinkLoop is the error of a path with more symbolic links than the kernel
// follows.
var ErrLinkLoop = errors.New("too many levels of symbolic links")

// ErrNotKept is the error of [Index.ReadFile] for a file whose content was not
// kept when its layer was read.
var ErrNotKept = errors.New("content was not kept")

// maxLinks is the kernel's limit for one path (MAXSYMLINKS).
const maxLinks = 40

// File is what the index knows of one file.
type File struct {
	Path     string      // absolute; may be any bytes but NUL
	Mode     fs.FileMode // type and permissions
	UID, GID int
	Empty    bool      // a regular file of no bytes
	ModTime  time.Time // of a directory that a layer describes, in whole seconds; else zero
	Linkname string    // target of a symbolic link, as written
	Layer    int       // number of the layer, from the bottom, that the file's data came from
	Content  []byte    // what was kept, nil if nothing; not to be modified
	Complete bool      // Content is all there is of what is kept of such a file

	// Inside tells what an app in one file is made of: of a zip archive that
	// Python can run, the names of the members that describe it and its
	// distributions; of an executable that a tool made of a Python program,
	// the tool: PyInstaller or Nuitka.
	Inside []string
}

// Index is the file system of an image: layers merged. It is safe for
// concurrent use.
type Index struct {
	layers []*Layer
	first  []uint32 // number of each layer's first entry, when all entries are counted through
	nodes  list[node]
	names  names

	// extra is a layer of our own behind the others. It holds the directories
	// that come into being only by merging.
	extra       Layer
	extraLayers []int // for each entry of extra: the layer that needed it

	// of the layer being merged
	layer       int
	cachedEntry uint32
	cachedNode  uint32
}

// node is a name in the merged tree. Removed nodes stay in place, so that
// nothing else has to be renumbered, and come to life again with the name.
type node struct {
	parent, child, sibling uint32 // child and sibling: 0 is none, as the root is nobody's child
	name                   uint32 // entry that gives the name, of the last layer that touched the node
	data                   uint32 // entry that gives type, metadata and content; gone if removed
}

const gone = 1<<32 - 1

// Merge stacks layers, the bottom one first, as the OCI image-spec's layer.md
// says ("Applying Changesets").
//
// Where that leaves room: whiteouts and opaque markers hide what lower layers
// have, wherever they stand in their own layer. A member below a symbolic link
// to a directory is written through the link (as containerd does), unless the
// layer has a directory of that name. A hard link to something that is not
// there is left out.
func Merge(layers ...*Layer) *Index {
	ix := &Index{layers: layers}
	var n uint32
	for _, l := range layers {
		ix.first = append(ix.first, n)
		n += l.entries.n
	}
	ix.first = append(ix.first, n)
	ix.extra.metas = []meta{implicitMeta}
	ix.nodes.add(node{name: ix.addExtra(""), data: n})
	for i, l := range layers {
		ix.layer, ix.cachedEntry = i, 0
		if l.meta(0).kind == directory {
			ix.nodes.at(0).data = ix.first[i]
		}
		for e := uint32(1); e < l.entries.n; e++ {
			ix.apply(l, e)
		}
	}
	return ix
}

func (ix *Index) addExtra(name string) uint32 {
	e := ix.extra.entries.add(entry{name: ix.extra.text.add([]byte(name))})
	ix.extraLayers = append(ix.extraLayers, ix.layer)
	return ix.first[len(ix.layers)] + e
}

// entry finds an entry by its number in all layers.
func (ix *Index) entry(number uint32) (*Layer, uint32) {
	i := ix.position(number)
	if i == len(ix.layers) {
		return &ix.extra, number - ix.first[i]
	}
	return ix.layers[i], number - ix.first[i]
}

func (ix *Index) position(number uint32) int {
	return sort.Search(len(ix.first), func(i int) bool { return ix.first[i] > number }) - 1
}

// layerOf returns the layer that an entry belongs to.
func (ix *Index) layerOf(number uint32) int {
	i := ix.position(number)
	if i == len(ix.layers) {
		return ix.extraLayers[number-ix.first[i]]
	}
	return i
}

func (ix *Index) meta(number uint32) *meta {
	l, e := ix.entry(number)
	return l.meta(e)
}

func (ix *Index) key(n uint32) (uint32, []byte) {
	node := ix.nodes.at(n)
	l, e := ix.entry(node.name)
	return node.parent, l.name(e)
}

func (ix *Index) lives(n uint32) bool { return ix.nodes.at(n).data != gone }

func (ix *Index) isDir(n uint32) bool {
	return ix.lives(n) && ix.meta(ix.nodes.at(n).data).kind.isDir()
}

// apply puts entry e of the current layer into the tree.
func (ix *Index) apply(l *Layer, e uint32) {
	entry, number := l.entries.at(e), ix.first[ix.layer]+e
	switch l.meta(e).kind {
	case implicit: // comes into being with what is in it
	case whiteout:
		if dir, err := ix.walk(l.path(entry.parent), true); err == nil {
			if n, ok := ix.names.find(dir, l.name(e), ix.key); ok {
				ix.remove(n, true)
			}
		}
	case opaque:
		if dir, err := ix.walk(l.path(entry.parent), true); err == nil {
			for c := ix.nodes.at(dir).child; c != 0; c = ix.nodes.at(c).sibling {
				ix.remove(c, true)
			}
		}
	case directory:
		if n, ok := ix.place(l, e); ok {
			if !ix.isDir(n) {
				ix.remove(n, false)
			}
			ix.set(n, number, number)
		}
	case hardlink:
		// The target is what its name means now, before anything is replaced.
		target, err := ix.walk(l.target(e), false)
		if err != nil || ix.isDir(target) {
			return
		}
		data := ix.nodes.at(target).data
		if n, ok := ix.place(l, e); ok {
			ix.remove(n, false)
			ix.set(n, number, data)
		}
	default:
		if n, ok := ix.place(l, e); ok {
			ix.remove(n, false)
			ix.set(n, number, number)
		}
	}
}

func (ix *Index) set(n, name, data uint32) {
	node := ix.nodes.at(n)
	node.name, node.data = name, data
}

// place returns the node for entry e, a new or a removed one if the tree has
// none, after making its parents.
func (ix *Index) place(l *Layer, e uint32) (uint32, bool) {
	parent := l.entries.at(e).parent
	if parent == 0 || ix.cachedEntry != parent {
		dir, err := ix.makeDir(l.path(parent))
		if err != nil {
			return 0, false
		}
		ix.cachedEntry, ix.cachedNode = parent, dir
	}
	dir := ix.cachedNode
	if n, ok := ix.names.find(dir, l.name(e), ix.key); ok {
		return n, true
	}
	return ix.newNode(dir, ix.first[ix.layer]+e), true
}

func (ix *Index) newNode(parent, name uint32) uint32 {
	n := ix.nodes.add(node{parent: parent, sibling: ix.nodes.at(parent).child, name: name, data: gone})
	ix.nodes.at(parent).child = n
	ix.names.add(n, ix.key)
	return n
}

// remove removes a node and all below it; with lower, only what does not come
// from the current layer.
func (ix *Index) remove(n uint32, lower bool) {
	if !ix.lives(n) {
		return
	}
	if k := ix.meta(ix.nodes.at(n).data).kind; k.isDir() || k == symlink {
		ix.cachedEntry = 0 // the cached directory may be found through it
	}
	for stack := []uint32{n}; len(stack) > 0; {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if !ix.lives(n) {
			continue
		}
		for c := ix.nodes.at(n).child; c != 0; c = ix.nodes.at(c).sibling {
			stack = append(stack, c)
		}
		switch node := ix.nodes.at(n); {
		case !lower || ix.layerOf(node.name) != ix.layer:
			node.data = gone
		case ix.isDir(n) && ix.layerOf(node.data) != ix.layer:
			// The directory is the current layer's, its metadata were the lower one's.
			l, e := ix.entry(node.name)
			node.data = ix.addExtra(string(l.name(e)))
			node.name = node.data
		}
	}
}

// walk finds the node of a path, following symbolic links inside the root; the
// last element is followed if asked for.
func (ix *Index) walk(p string, follow bool) (uint32, error) {
	return ix.resolve(p, follow, false)
}

// makeDir finds a directory, making it and its parents if they are not there.
// What is in the way is replaced.
func (ix *Index) makeDir(p string) (uint32, error) {
	return ix.resolve(p, true, true)
}

func (ix *Index) resolve(p string, follow, create bool) (uint32, error) {
	var at uint32
	for links := 0; p != ""; {
		var name string
		name, p, _ = strings.Cut(p, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			at = ix.nodes.at(at).parent
			continue
		}
		n, ok := ix.names.find(at, []byte(name), ix.key)
		if !ok || !ix.lives(n) {
			if !create {
				return 0, fs.ErrNotExist
			}
			number := ix.addExtra(name)
			if !ok {
				n = ix.newNode(at, number)
			}
			ix.set(n, number, number)
		}
		data := ix.nodes.at(n).data
		switch k := ix.meta(data).kind; {
		case k == symlink && (follow || strings.Trim(p, "/") != ""):
			if links++; links > maxLinks {
				return 0, ErrLinkLoop
			}
			l, e := ix.entry(data)
			target := l.target(e)
			if strings.HasPrefix(target, "/") {
				at = 0
			}
			p = target + "/" + p
			continue
		case k.isDir():
			if create && ix.layerOf(ix.nodes.at(n).name) != ix.layer {
				ix.nodes.at(n).name = ix.addExtra(name)
			}
		case create:
			number := ix.addExtra(name)
			ix.set(n, number, number)
		case strings.Trim(p, "/") != "":
			return 0, fs.ErrNotExist // what is not a directory has nothing below it
		}
		at = n
	}
	return at, nil
}

func (ix *Index) path(n uint32) string {
	if n == 0 {
		return "/"
	}
	var parts []string
	for ; n != 0; n = ix.nodes.at(n).parent {
		_, name := ix.key(n)
		parts = append(parts, string(name))
	}
	parts = append(parts, "")
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

func (ix *Index) file(n uint32) File {
	number := ix.nodes.at(n).data
	l, e := ix.entry(number)
	m := l.meta(e)
	f := File{Path: ix.path(n), Mode: m.mode, UID: m.uid, GID: m.gid, Layer: ix.layerOf(number)}
	switch m.kind {
	case directory:
		f.ModTime = time.Unix(l.modTime(e), 0).UTC()
	case symlink:
		f.Linkname = l.target(e)
	case empty:
		f.Empty, f.Complete = true, true
	case regular:
		if aux := l.entries.at(e).aux; aux != 0 {
			c := l.contents[aux-1]
			f.Content, f.Complete, f.Inside = c.data, c.complete, c.inside
		}
	}
	return f
}

// Lstat describes a file without following a symbolic link in the last element
// of its path. Paths are taken from the root, with or without a leading slash.
// Errors are of type *fs.PathError and match fs.ErrNotExist or ErrLinkLoop.
func (ix *Index) Lstat(name string) (File, error) { return ix.stat("lstat", name, false) }

// Stat describes a file, following symbolic links: the File's Path is where
// they lead to.
func (ix *Index) Stat(name string) (File, error) { return ix.stat("stat", name, true) }

func (ix *Index) stat(op, name string, follow bool) (File, error) {
	n, err := ix.walk(name, follow)
	if err != nil {
		return File{}, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return ix.file(n), nil
}

// Resolve returns the path without symbolic links that name leads to.
func (ix *Index) Resolve(name string) (string, error) {
	n, err := ix.walk(name, true)
	if err != nil {
		return "", &fs.PathError{Op: "resolve", Path: name, Err: err}
	}
	return ix.path(n), nil
}

// ReadDir returns the names in a directory, sorted.
func (ix *Index) ReadDir(name string) ([]string, error) {
	n, err := ix.walk(name, true)
	if err == nil && !ix.isDir(n) {
		err = errors.New("not a directory")
	}
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	var names []string
	for c := ix.nodes.at(n).child; c != 0; c = ix.nodes.at(c).sibling {
		if ix.lives(c) {
			_, name := ix.key(c)
			names = append(names, string(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

// ReadFile returns what was kept of a file, following symbolic links. Kept are
//   - name and version in the headers of *.dist-info/METADATA and *.egg-info
//     (PKG-INFO) files,
//   - pyvenv.cfg, *.pth, os-release, /etc/passwd,
//   - what tools choose a Python by: .python-version and pyenv's version,
//     .pdm-python, a file called .venv,
//   - Procfile, configurations of supervisord, circusd and gunicorn, and what the
//     launcher of Cloud Native Buildpacks reads below /layers,
//   - manage.py, wsgi.py, asgi.py and celery.py that name Django's settings,
//   - shell scripts, and the head of other scripts and of executables.
//
// For any other file the error matches ErrNotKept. [File].Complete tells
// whether there is more.
func (ix *Index) ReadFile(name string) ([]byte, error) {
	f, err := ix.stat("read", name, true)
	if err != nil {
		return nil, err
	}
	if f.Content == nil && !f.Complete {
		return nil, &fs.PathError{Op: "read", Path: name, Err: ErrNotKept}
	}
	return f.Content, nil
}

// Find returns the paths of all files, of any type, whose last element
// matches, sorted. The bytes given to match are not to be kept or modified.
func (ix *Index) Find(match func(name []byte) bool) []string {
	var paths []string
	for n := uint32(1); n < ix.nodes.n; n++ {
		if !ix.lives(n) {
			continue
		}
		if _, name := ix.key(n); match(name) {
			paths = append(paths, ix.path(n))
		}
	}
	slices.Sort(paths)
	return paths
}
