package scan

import (
	"io/fs"
	"math"
)

// Layer is the index of one layer: what its archive says, in the archive's
// order. It does not change after [Read] or [Cache.Get] and may be merged into
// any number of images, at the same time.
type Layer struct {
	entries  list[entry] // entry 0 is the root
	text     text        // names and link targets
	metas    []meta
	contents []content
	times    map[uint32]int64 // of directories, what does not fit an entry
}

// entry is one archive member, or a directory that is only named as a part of
// another member's name. Parents come before their children.
type entry struct {
	parent uint32 // entry number of the directory
	name   uint32 // text: last element of the name; for a whiteout, what it hides
	meta   uint32 // number in metas

	// aux is
	//   - of a symlink or a hardlink, the text of its target,
	//   - of a regular file, its content's number + 1, or 0 if nothing is kept,
	//   - of a directory, when it was modified, in seconds since 1970;
	//     math.MaxUint32: see times.
	aux uint32
}

// meta is shared by all the entries that have it.
type meta struct {
	kind     kind
	mode     fs.FileMode
	uid, gid int
}

type kind uint8

const (
	implicit kind = iota // a directory that has no member of its own
	directory
	regular
	empty // a regular file of no bytes
	symlink
	hardlink
	special // device, named pipe
	whiteout
	opaque
)

func (k kind) isDir() bool { return k == implicit || k == directory }

type content struct {
	data     []byte
	complete bool
	inside   []string
}

func (l *Layer) meta(e uint32) *meta { return &l.metas[l.entries.at(e).meta] }

func (l *Layer) name(e uint32) []byte { return l.text.at(l.entries.at(e).name) }

func (l *Layer) target(e uint32) string { return string(l.text.at(l.entries.at(e).aux)) }

// path returns the names from the root down to entry e, separated by slashes.
func (l *Layer) path(e uint32) string {
	if e == 0 {
		return ""
	}
	return l.path(l.entries.at(e).parent) + "/" + string(l.name(e))
}

// modTime returns the modification time of a directory in seconds since 1970.
func (l *Layer) modTime(e uint32) int64 {
	if t := l.entries.at(e).aux; t != math.MaxUint32 {
		return int64(t)
	}
	return l.times[e]
}

// setModTime reports whether the time fits the entry.
func (l *Layer) setModTime(e uint32, seconds int64) bool {
	if 0 <= seconds && seconds < math.MaxUint32 {
		l.entries.at(e).aux = uint32(seconds)
		return true
	}
	if l.times == nil {
		l.times = map[uint32]int64{}
	}
	l.times[e] = seconds
	l.entries.at(e).aux = math.MaxUint32
	return false
}
