package scan

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
)

// The stores below exist because a layer may hold half a million files: they
// hold no pointers (so the garbage collector does not walk them) and grow by
// adding chunks (so growing never needs old and new storage at once).

const (
	listChunk = 1 << 12
	textChunk = 1 << 16
	textBits  = 16
)

// list is a growing sequence of T.
type list[T any] struct {
	chunks [][]T
	n      uint32
}

func (l *list[T]) add(v T) uint32 {
	i := int(l.n / listChunk)
	if i == len(l.chunks) {
		var chunk []T
		if i > 0 { // small layers are common: only the first chunk grows by need
			chunk = make([]T, 0, listChunk)
		}
		l.chunks = append(l.chunks, chunk)
	}
	l.chunks[i] = append(l.chunks[i], v)
	l.n++
	return l.n - 1
}

func (l *list[T]) at(i uint32) *T { return &l.chunks[i/listChunk][i%listChunk] }

// text holds strings of at most maxPath bytes, each found again by its offset.
type text struct{ chunks [][]byte }

// recent remembers strings that a text has, so that __init__.py is stored a
// few times and not once for each package.
type recent struct {
	seed    maphash.Seed
	offsets [1 << 10]uint32 // offset + 1
}

func (r *recent) add(t *text, s []byte) (offset uint32, added bool) {
	slot := &r.offsets[maphash.Bytes(r.seed, s)%uint64(len(r.offsets))]
	if *slot != 0 && bytes.Equal(t.at(*slot-1), s) {
		return *slot - 1, false
	}
	*slot = t.add(s) + 1
	return *slot - 1, true
}

func (t *text) add(s []byte) uint32 {
	i := len(t.chunks) - 1
	if i < 0 || len(t.chunks[i])+len(s)+binary.MaxVarintLen32 > textChunk {
		var chunk []byte
		if i++; i > 0 {
			chunk = make([]byte, 0, textChunk)
		}
		t.chunks = append(t.chunks, chunk)
	}
	offset := uint32(i)<<textBits | uint32(len(t.chunks[i]))
	t.chunks[i] = binary.AppendUvarint(t.chunks[i], uint64(len(s)))
	t.chunks[i] = append(t.chunks[i], s...)
	return offset
}

func (t *text) at(offset uint32) []byte {
	b := t.chunks[offset>>textBits][offset&(textChunk-1):]
	n, w := binary.Uvarint(b)
	return b[w : w+int(n) : w+int(n)]
}

// names finds a child by its parent and name: an open-addressing hash table of
// numbers, whose keys stay where they are stored.
type names struct {
	seed  maphash.Seed
	slots []uint32 // number + 1; 0 is empty
	n     int
}

func (t *names) hash(parent uint32, name []byte) uint64 {
	h := maphash.Bytes(t.seed, name) ^ uint64(parent)*0x9e3779b97f4a7c15
	return h ^ h>>32
}

func (t *names) find(parent uint32, name []byte, key func(uint32) (uint32, []byte)) (uint32, bool) {
	if len(t.slots) == 0 {
		return 0, false
	}
	mask := uint64(len(t.slots) - 1)
	for i := t.hash(parent, name) & mask; t.slots[i] != 0; i = (i + 1) & mask {
		if p, s := key(t.slots[i] - 1); p == parent && bytes.Equal(s, name) {
			return t.slots[i] - 1, true
		}
	}
	return 0, false
}

// add puts in a number whose key is not there yet.
func (t *names) add(v uint32, key func(uint32) (uint32, []byte)) {
	if t.n*4 >= len(t.slots)*3 {
		old := t.slots
		if old == nil {
			t.seed = maphash.MakeSeed()
		}
		t.slots = make([]uint32, max(64, 2*len(old)))
		for _, s := range old {
			if s != 0 {
				t.put(s, key)
			}
		}
	}
	t.put(v+1, key)
	t.n++
}

func (t *names) put(slot uint32, key func(uint32) (uint32, []byte)) {
	parent, name := key(slot - 1)
	mask := uint64(len(t.slots) - 1)
	i := t.hash(parent, name) & mask
	for t.slots[i] != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = slot
}
