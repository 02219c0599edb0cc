package scan

import (
	"io/fs"
	"math"
	"time"
)

// Layer is the index of one layer: what its archive says, in the archive's
// order. It does not change after [Read] and may be merged into any number of
// images, at the same time.
type Layer struct {
	entries  list[entry] // entry 0 is the root
	text     text        // names and link targets
	metas    []meta
	contents []content
	large    map[uint32]large // what does not fit an entry
}

// entry is one archive member, or a directory that is only named as a part of
// another member's name. Parents come before their children.
type entry struct {
	parent uint32 // entry number of the directory
	name   uint32 // text: last element of the name; for a whiteout, what it hides
	aux    uint32 // symlink, hardlink: text of the target; file: content number + 1, 0 for none
	meta   uint32 // number in metas
	size   uint32 // math.MaxUint32: see large
	mtime  uint32 // seconds since 1970; math.MaxUint32: see large
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

type large struct{ size, mtime int64 }

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

func (l *Layer) size(e uint32) int64 {
	if s := l.entries.at(e).size; s != math.MaxUint32 {
		return int64(s)
	}
	return l.large[e].size
}

func (l *Layer) modTime(e uint32) time.Time {
	if l.meta(e).kind == implicit {
		return time.Time{}
	}
	t := l.entries.at(e).mtime
	if t != math.MaxUint32 {
		return time.Unix(int64(t), 0).UTC()
	}
	return time.Unix(l.large[e].mtime, 0).UTC()
}
