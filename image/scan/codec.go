package scan

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"math"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// schema is the version of what [Read] keeps of a layer and of the form below.
// It changes with either: an index of another schema is made again.
const schema = 2

// A layer is encoded as a zstd stream of
//
//	metas     their number, and of each kind, mode, uid and gid
//	blocks    of entries, each as its columns; an empty one is the last
//	contents  in the order of the entries that have them
//
// where numbers are varints. Zstd finds little in single names and numbers, but
// much in columns of them: directories come one after the other, their files
// are sorted, most files have the same owner and mode, and compiled files
// repeat the names of their sources up to the suffix. So a column each holds
//
//   - the parent: 0 for that of the entry before, else the distance to it,
//   - the meta's number,
//   - how many bytes the stem, which is the name up to its first dot (but not a
//     leading one), shares with that of the entry before, and how many follow,
//   - those bytes,
//   - the suffix's number; the lowest one not yet in use brings a new suffix,
//   - its length, and the length of a link's target,
//   - both's bytes,
//   - of regular files, whether they have content; of directories, the
//     difference in time to the one before.
const (
	parentColumn = iota
	metaColumn
	sharedColumn
	stemLengthColumn
	stemColumn
	suffixColumn
	lengthColumn
	stringColumn
	auxColumn
	columns
)

const (
	blockEntries = 1 << 13
	blockStrings = 1 << 18              // a block ends behind the entry that exceeds it
	maxColumn    = blockStrings + 1<<13 // bytes; one name and target more
	codecWindow  = 1 << 20
)

// stem splits a name where its suffix begins.
func stem(name []byte) int {
	if len(name) > 1 {
		if i := bytes.IndexByte(name[1:], '.'); i >= 0 {
			return i + 1
		}
	}
	return len(name)
}

// encode writes a layer to w.
func encode(w io.Writer, l *Layer) error {
	z, err := zstd.NewWriter(w,
		zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(codecWindow), zstd.WithEncoderCRC(false))
	if err != nil {
		return err
	}
	e := encoder{w: z, layer: l, suffixes: map[string]uint64{}}
	if err := errors.Join(e.metas(), e.entries(), e.contents()); err != nil {
		z.Close() //nolint:errcheck // the first error says why
		return err
	}
	return z.Close()
}

type encoder struct {
	w        io.Writer
	layer    *Layer
	scratch  []byte
	columns  [columns][]byte
	suffixes map[string]uint64
}

func (e *encoder) metas() error {
	b := binary.AppendUvarint(e.scratch[:0], uint64(len(e.layer.metas)))
	for _, m := range e.layer.metas {
		b = append(b, byte(m.kind))
		b = binary.AppendUvarint(b, uint64(m.mode))
		b = binary.AppendVarint(b, int64(m.uid))
		b = binary.AppendVarint(b, int64(m.gid))
	}
	_, err := e.w.Write(b)
	e.scratch = b
	return err
}

func (e *encoder) put(column int, v uint64) {
	e.columns[column] = binary.AppendUvarint(e.columns[column], v)
}

func (e *encoder) entries() error {
	l := e.layer
	var last entry
	var lastStem []byte
	var lastTime int64
	inBlock := 0
	for i := range l.entries.n {
		entry := *l.entries.at(i)
		if entry.parent == last.parent {
			e.put(parentColumn, 0)
		} else {
			e.put(parentColumn, uint64(i-entry.parent))
		}
		e.put(metaColumn, uint64(entry.meta))

		name := l.name(i)
		end := stem(name)
		shared := 0
		for shared < min(end, len(lastStem)) && name[shared] == lastStem[shared] {
			shared++
		}
		e.put(sharedColumn, uint64(shared))
		e.put(stemLengthColumn, uint64(end-shared))
		e.columns[stemColumn] = append(e.columns[stemColumn], name[shared:end]...)
		lastStem = name[:end]
		suffix, ok := e.suffixes[string(name[end:])]
		if !ok {
			suffix = uint64(len(e.suffixes))
			e.suffixes[string(name[end:])] = suffix
		}
		e.put(suffixColumn, suffix)
		if !ok {
			e.string(name[end:])
		}

		switch l.meta(i).kind {
		case symlink, hardlink:
			e.string(l.text.at(entry.aux))
		case regular:
			e.put(auxColumn, uint64(min(entry.aux, 1)))
		case directory:
			t := l.modTime(i)
			e.columns[auxColumn] = binary.AppendVarint(e.columns[auxColumn], t-lastTime)
			lastTime = t
		}
		last = entry
		if inBlock++; inBlock == blockEntries || len(e.columns[stemColumn]) > blockStrings || len(e.columns[stringColumn]) > blockStrings {
			if err := e.flush(inBlock); err != nil {
				return err
			}
			inBlock = 0
		}
	}
	if inBlock > 0 {
		if err := e.flush(inBlock); err != nil {
			return err
		}
	}
	_, err := e.w.Write([]byte{0})
	return err
}

func (e *encoder) string(s []byte) {
	e.put(lengthColumn, uint64(len(s)))
	e.columns[stringColumn] = append(e.columns[stringColumn], s...)
}

// flush ends a block of n entries.
func (e *encoder) flush(n int) error {
	b := binary.AppendUvarint(e.scratch[:0], uint64(n))
	for _, c := range e.columns {
		b = binary.AppendUvarint(b, uint64(len(c)))
	}
	e.scratch = b
	if _, err := e.w.Write(b); err != nil {
		return err
	}
	for i, c := range e.columns {
		if _, err := e.w.Write(c); err != nil {
			return err
		}
		e.columns[i] = c[:0]
	}
	return nil
}

func (e *encoder) contents() error {
	for _, c := range e.layer.contents {
		b := binary.AppendUvarint(e.scratch[:0], uint64(len(c.inside)))
		for _, name := range c.inside {
			b = binary.AppendUvarint(b, uint64(len(name)))
			b = append(b, name...)
		}
		complete := uint64(0)
		if c.complete {
			complete = 1
		}
		b = binary.AppendUvarint(b, uint64(len(c.data))<<1|complete)
		e.scratch = append(b, c.data...)
		if _, err := e.w.Write(e.scratch); err != nil {
			return err
		}
	}
	return nil
}

var errCorrupt = errors.New("not the index of a layer")

// decode reads what encode wrote. Whatever r gives, it needs no more memory
// than [Read] does of a layer.
func decode(r io.Reader) (*Layer, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(codecWindow))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	d := decoder{
		r:       bufio.NewReaderSize(z, 32<<10),
		builder: builder{layer: &Layer{}, recent: recent{seed: maphash.MakeSeed()}},
	}
	d.metas()
	for d.block() {
	}
	if d.layer.entries.n == 0 { // not even the root
		d.fail(nil)
	}
	d.readContents()
	if _, err := d.r.ReadByte(); d.err == nil && err != io.EOF {
		d.fail(err)
	}
	if d.err != nil {
		return nil, d.err
	}
	return d.layer, nil
}

// decoder keeps its first error. What it reads behind that is zero.
type decoder struct {
	builder
	r        *bufio.Reader
	err      error
	buffers  [columns][]byte
	columns  [columns][]byte // what is left of them
	suffixes [][]byte
	name     []byte   // of the last entry
	stem     int      // length of its stem
	parent   uint32   // of the last entry
	time     int64    // of the last directory
	paths    []uint16 // length of each entry's path
}

func (d *decoder) fail(err error) {
	switch {
	case d.err != nil:
	case err == nil || err == io.EOF || err == io.ErrUnexpectedEOF:
		d.err = errCorrupt
	default:
		d.err = fmt.Errorf("%w: %w", errCorrupt, err)
	}
}

// number reads a number that may be limit at most.
func (d *decoder) number(limit uint64) uint64 {
	v, err := binary.ReadUvarint(d.r)
	if err != nil || v > limit {
		d.fail(err)
		return 0
	}
	return v
}

// bytes reads n bytes into buf.
func (d *decoder) bytes(buf []byte, n uint64) []byte {
	buf = slices.Grow(buf[:0], int(n))[:n]
	if _, err := io.ReadFull(d.r, buf); err != nil {
		d.fail(err)
	}
	return buf
}

// charge counts bytes that are held.
func (d *decoder) charge(held *int, n, limit int) {
	if *held += n; *held > limit {
		d.fail(nil)
	}
}

func (d *decoder) metas() {
	for range d.number(maxIndex / metaCost) {
		m := meta{kind: kind(d.number(uint64(opaque))), mode: fs.FileMode(d.number(math.MaxUint32))}
		m.uid, m.gid = int(unzigzag(d.number(math.MaxUint64))), int(unzigzag(d.number(math.MaxUint64)))
		d.layer.metas = append(d.layer.metas, m)
		d.charge(&d.index, metaCost, maxIndex)
		if d.err != nil {
			return
		}
	}
}

// block reads a block and reports whether another one follows.
func (d *decoder) block() bool {
	n := d.number(blockEntries)
	if n == 0 {
		return false
	}
	var sizes [columns]uint64
	for i := range sizes {
		sizes[i] = d.number(maxColumn)
	}
	for i, size := range sizes {
		d.buffers[i] = d.bytes(d.buffers[i], size)
		d.columns[i] = d.buffers[i]
	}
	for range n {
		if d.entry(); d.err != nil {
			return false
		}
	}
	for _, c := range d.columns {
		if len(c) > 0 {
			d.fail(nil)
		}
	}
	return d.err == nil
}

// next takes a number from a column.
func (d *decoder) next(column int) uint64 {
	v, n := binary.Uvarint(d.columns[column])
	if n <= 0 {
		d.fail(nil)
		return 0
	}
	d.columns[column] = d.columns[column][n:]
	return v
}

// take takes n bytes from a column.
func (d *decoder) take(column int, n uint64) []byte {
	c := d.columns[column]
	if n > uint64(len(c)) {
		d.fail(nil)
		return nil
	}
	d.columns[column] = c[n:]
	return c[:n]
}

func (d *decoder) string() []byte { return d.take(stringColumn, d.next(lengthColumn)) }

func (d *decoder) entry() {
	l, i := d.layer, d.layer.entries.n
	e := entry{parent: d.parent}
	if distance := d.next(parentColumn); distance > uint64(i) {
		d.fail(nil)
	} else if distance > 0 {
		e.parent = i - uint32(distance)
	}
	d.parent = e.parent
	number := d.next(metaColumn)
	if number >= uint64(len(l.metas)) {
		d.fail(nil)
		return
	}
	e.meta = uint32(number)
	kind := l.metas[number].kind
	length := d.readName()
	switch {
	case i == 0 && kind.isDir():
	case i > 0 && l.meta(e.parent).kind.isDir():
		length += 1 + int(d.paths[e.parent])
	default: // a root or a parent that is no directory
		d.fail(nil)
	}
	if length > 1+maxPath {
		d.fail(nil)
	}
	d.paths = append(d.paths, uint16(length))

	var modTime int64
	switch kind {
	case symlink, hardlink:
		target := d.string()
		if len(target) > maxPath {
			d.fail(nil)
			return
		}
		e.aux = l.text.add(target)
		d.charge(&d.index, len(target)+2, maxIndex)
	case regular:
		if d.next(auxColumn) > 0 {
			l.contents = append(l.contents, content{})
			e.aux = uint32(len(l.contents))
			d.charge(&d.content, contentCost, maxContent+maxScripts)
		}
	case directory:
		d.time += unzigzag(d.next(auxColumn))
		modTime = d.time
	}
	if d.err != nil {
		return
	}
	id := d.push(e, d.name)
	if kind == directory && !l.setModTime(id, modTime) {
		d.charge(&d.index, metaCost, maxIndex)
	}
	d.charge(&d.index, 0, maxIndex)
}

// readName reads the name of an entry into d.name and returns its length.
func (d *decoder) readName() int {
	shared := d.next(sharedColumn)
	if shared > uint64(d.stem) {
		d.fail(nil)
		return 0
	}
	d.name = append(d.name[:shared], d.take(stemColumn, d.next(stemLengthColumn))...)
	d.stem = len(d.name)
	suffix := d.next(suffixColumn)
	if suffix == uint64(len(d.suffixes)) {
		d.suffixes = append(d.suffixes, bytes.Clone(d.string()))
	}
	if suffix >= uint64(len(d.suffixes)) {
		d.fail(nil)
		return 0
	}
	d.name = append(d.name, d.suffixes[suffix]...)
	if len(d.name) > maxName {
		d.fail(nil)
	}
	return len(d.name)
}

func (d *decoder) readContents() {
	for i := range d.layer.contents {
		c := &d.layer.contents[i]
		for range d.number(maxContent / contentCost) {
			name := d.bytes(nil, d.number(maxPath))
			c.inside = append(c.inside, string(name))
			d.charge(&d.content, len(name)+contentCost, maxContent+maxScripts)
			if d.err != nil {
				return
			}
		}
		n := d.number(maxHeaders<<1 | 1)
		c.complete = n&1 == 1
		c.data = d.bytes(nil, n>>1)
		d.charge(&d.content, len(c.data), maxContent+maxScripts)
		if d.err != nil {
			return
		}
	}
}

// unzigzag is what binary.Varint does with the number that it reads.
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }
