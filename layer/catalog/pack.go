package catalog

import (
	_ "embed"
	"encoding/binary"
	"errors"
)

//go:generate go run ./pack

// packed is the catalog as [Pack] writes it.
//
// The releases repeat each other so much that, with each string and each list
// of strings kept once, they take a fifth of their JSON. All of them are read
// in little more than the time that one takes as JSON: the strings stay where
// they are embedded.
//
//go:embed catalog.bin
var packed string

// Pack returns the form of a catalog that is embedded in the program. Only the
// version of this package that wrote it can read it.
//
// It is, with numbers as Uvarint of encoding/binary: the count of strings, the
// length of each, and their text; the count of members of all lists, the count
// of lists, and for each its length and its strings by index; then the fields
// in the order of the methods named visit: numbers as such, strings and lists
// by index.
func Pack(c *Catalog) []byte {
	p := &packer{textIndex: make(map[string]int), listIndex: make(map[string]int)}
	p.catalog(c)
	var out []byte
	number := func(n int) { out = binary.AppendUvarint(out, uint64(n)) }
	number(len(p.texts))
	for _, s := range p.texts {
		number(len(s))
	}
	for _, s := range p.texts {
		out = append(out, s...)
	}
	number(p.members)
	number(len(p.listIndex))
	out = append(out, p.packedLists...)
	return append(out, p.fields...)
}

func unpack(data string) (*Catalog, error) {
	p := &packer{reading: true, data: data}
	p.readTexts()
	p.readLists()
	c := &Catalog{}
	p.catalog(c)
	if p.damaged || p.data != "" {
		return nil, errors.New("the embedded catalog is damaged")
	}
	return c, nil
}

// packer goes through the fields of a catalog, which is the same for both
// directions, and writes or sets them.
type packer struct {
	texts []string

	// To write:
	textIndex   map[string]int
	listIndex   map[string]int // by the packed list
	packedLists []byte
	members     int
	fields      []byte

	// To read:
	reading bool
	data    string // what is left
	damaged bool
	lists   [][]string
}

func (p *packer) catalog(c *Catalog) {
	slice(p, &c.Releases, func(r **Release) {
		if p.reading {
			*r = &Release{}
		}
		p.release(*r)
	})
}

func (p *packer) release(r *Release) {
	p.text(&r.Version, &r.Contrib, &r.Python.Min, &r.Python.Max, &r.Layer.Digest, &r.Layer.DiffID)
	number(p, &r.Layer.Size)
	number(p, &r.Layer.Unpacked)
	number(p, &r.Layer.Files)
	slice(p, &r.Distributions, func(d *Distribution) {
		p.text(&d.Name, &d.Version, &d.Wheel, &d.SHA256, &d.RequiresPython)
		number(p, &d.Size)
		p.list(&d.Requires)
	})
	slice(p, &r.Instrumentations, func(i *Instrumentation) {
		p.text(&i.Name, &i.Distribution, &i.EntryPoint)
		p.list(&i.Libraries, &i.Instruments, &i.InstrumentsAny)
		p.flag(&i.Always)
	})
	p.list(&r.Propagators, &r.TracesExporters, &r.MetricsExporters, &r.LogsExporters, &r.Environment)
	slice(p, &r.Trials, func(t *Trial) {
		p.text(&t.Distribution, &t.Python)
		p.list(&t.Worked, &t.Failed)
	})
}

func (p *packer) text(fields ...*string) {
	for _, s := range fields {
		if p.reading {
			*s = at(p, p.texts)
		} else {
			p.fields = p.appendText(p.fields, *s)
		}
	}
}

func (p *packer) appendText(b []byte, s string) []byte {
	i, ok := p.textIndex[s]
	if !ok {
		i = len(p.texts)
		p.textIndex[s] = i
		p.texts = append(p.texts, s)
	}
	return binary.AppendUvarint(b, uint64(i))
}

func (p *packer) list(fields ...*[]string) {
	for _, list := range fields {
		if p.reading {
			*list = at(p, p.lists)
			continue
		}
		b := binary.AppendUvarint(nil, uint64(len(*list)))
		for _, s := range *list {
			b = p.appendText(b, s)
		}
		i, ok := p.listIndex[string(b)]
		if !ok {
			i = len(p.listIndex)
			p.listIndex[string(b)] = i
			p.packedLists = append(p.packedLists, b...)
			p.members += len(*list)
		}
		p.fields = binary.AppendUvarint(p.fields, uint64(i))
	}
}

func (p *packer) flag(b *bool) {
	var n int
	if *b {
		n = 1
	}
	number(p, &n)
	*b = n == 1
}

func number[T int | int64](p *packer, n *T) {
	if p.reading {
		*n = T(p.uvarint())
	} else {
		p.fields = binary.AppendUvarint(p.fields, uint64(*n))
	}
}

func slice[T any](p *packer, s *[]T, element func(*T)) {
	if p.reading {
		if n := p.count(); n > 0 {
			*s = make([]T, n)
		}
	} else {
		p.fields = binary.AppendUvarint(p.fields, uint64(len(*s)))
	}
	for i := range *s {
		element(&(*s)[i])
	}
}

func (p *packer) readTexts() {
	p.texts = make([]string, p.count())
	lengths := make([]int, len(p.texts))
	for i := range lengths {
		lengths[i] = p.count()
	}
	for i, n := range lengths {
		if n > len(p.data) {
			p.fail()
			return
		}
		p.texts[i], p.data = p.data[:n], p.data[n:]
	}
}

func (p *packer) readLists() {
	members := make([]string, p.count())
	p.lists = make([][]string, p.count())
	for i := range p.lists {
		n := p.count()
		if n > len(members) {
			p.fail()
			return
		}
		p.lists[i], members = members[:n:n], members[n:]
		for j := range p.lists[i] {
			p.text(&p.lists[i][j])
		}
	}
}

func (p *packer) uvarint() uint64 {
	var n uint64
	for i := 0; i < len(p.data) && i < binary.MaxVarintLen64; i++ {
		b := p.data[i]
		n |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			p.data = p.data[i+1:]
			return n
		}
	}
	p.fail()
	return 0
}

// count reads how many there are of what takes a byte each at least.
func (p *packer) count() int {
	n := p.uvarint()
	if n > uint64(len(p.data)) {
		p.fail()
		return 0
	}
	return int(n)
}

// at reads the index of something in a table.
func at[T any](p *packer, table []T) T {
	i := p.uvarint()
	if i >= uint64(len(table)) {
		p.fail()
		var zero T
		return zero
	}
	return table[i]
}

func (p *packer) fail() {
	p.damaged = true
	p.data = ""
}
