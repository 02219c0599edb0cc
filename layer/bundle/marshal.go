package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// canonical rewrites a code object that CPython has marshalled (Python/marshal.c,
// versions 4 and 5 of the format) into the one form that says the same.
//
// What CPython writes depends on more than the source. An object gets a number,
// for later references to it, if it has more than one owner: also if that is
// another module of the process, as with names. Up to 3.10 the order of a set
// of strings is that of this process's hashes. Here exactly what occurs again
// has a number, equal constants occur once, the elements of a set are in the
// order of their hashes here, and the strings that a code object interns anyway
// are marked so.
func canonical(data []byte, python string) ([]byte, error) {
	layout, ok := codeLayouts[python]
	if !ok {
		return nil, fmt.Errorf("the bytecode of Python %s is not known", python)
	}
	r := &unmarshaller{data: data, layout: layout, known: make(map[digest]*object)}
	root, err := r.object(0)
	if err == nil && len(r.data) > 0 {
		err = errMarshal
	}
	if err != nil {
		return nil, err
	}
	root.count()
	w := &marshaller{layout: layout, numbers: make(map[*object]int)}
	w.object(root)
	return w.Bytes(), nil
}

// codeLayouts are the fields of a code object: i an int of 32 bits, o an object.
var codeLayouts = map[string]string{
	"3.7":  "iiiiioooooooo" + "io",
	"3.8":  "iiiiiioooooooo" + "io", // with posonlyargcount
	"3.9":  "iiiiiioooooooo" + "io",
	"3.10": "iiiiiioooooooo" + "io",
	"3.11": "iiiiioooooooo" + "ioo", // without nlocals, with exceptiontable
	"3.12": "iiiiioooooooo" + "ioo",
	"3.13": "iiiiioooooooo" + "ioo",
	"3.14": "iiiiioooooooo" + "ioo",
}

// Type codes of the format. Here all strings are of typeUnicode, and all tuples
// of typeTuple.
const (
	typeNone          = 'N'
	typeFalse         = 'F'
	typeTrue          = 'T'
	typeEllipsis      = '.'
	typeInt           = 'i'
	typeLong          = 'l'
	typeFloat         = 'g'
	typeComplex       = 'y'
	typeBytes         = 's'
	typeUnicode       = 'u'
	typeInterned      = 't'
	typeASCII         = 'a'
	typeASCIIInterned = 'A'
	typeShort         = 'z' // ASCII, up to 255 bytes
	typeShortInterned = 'Z'
	typeTuple         = '('
	typeSmallTuple    = ')' // up to 255 elements
	typeFrozenset     = '>'
	typeSlice         = ':' // since 3.14
	typeCode          = 'c'
	typeRef           = 'r'

	flagRef = 0x80
)

// object is one value. Equal constants are the same object.
type object struct {
	kind  byte
	data  []byte    // for a code object, its ints
	items []*object // the elements, or a code object's objects

	sum  digest // of all that
	uses int
}

type digest [sha256.Size]byte

func (o *object) count() {
	if o.uses++; o.uses > 1 {
		return
	}
	for _, item := range o.items {
		item.count()
	}
}

var errMarshal = errors.New("malformed code object")

// maxDepth is marshal's own limit for nesting, MAX_MARSHAL_STACK_DEPTH.
const maxDepth = 2000

type unmarshaller struct {
	data   []byte
	layout string
	refs   []*object
	known  map[digest]*object
}

func (r *unmarshaller) take(n int) ([]byte, error) {
	if n < 0 || n > len(r.data) {
		return nil, errMarshal
	}
	taken := r.data[:n]
	r.data = r.data[n:]
	return taken, nil
}

// size reads a number of bytes or objects, for which at least as many bytes
// have to follow.
func (r *unmarshaller) size(width int) (int, error) {
	b, err := r.take(width)
	if err != nil {
		return 0, err
	}
	n := int(b[0])
	if width == 4 {
		n = int(int32(binary.LittleEndian.Uint32(b)))
	}
	if n < 0 || n > len(r.data) {
		return 0, errMarshal
	}
	return n, nil
}

func (r *unmarshaller) object(depth int) (*object, error) {
	head, err := r.take(1)
	if err != nil || depth > maxDepth {
		return nil, errMarshal
	}
	kind, flagged := head[0]&^flagRef, head[0]&flagRef != 0
	if kind == typeRef {
		b, err := r.take(4)
		if err != nil {
			return nil, err
		}
		n := binary.LittleEndian.Uint32(b)
		if uint64(n) >= uint64(len(r.refs)) || r.refs[n] == nil {
			return nil, errMarshal
		}
		return r.refs[n], nil
	}
	number := len(r.refs)
	if flagged {
		r.refs = append(r.refs, nil)
	}
	o, err := r.value(kind, depth)
	if err != nil {
		return nil, err
	}
	o = r.unique(o)
	if flagged {
		r.refs[number] = o
	}
	return o, nil
}

func (r *unmarshaller) value(kind byte, depth int) (o *object, err error) {
	o = &object{kind: kind}
	switch kind {
	case typeNone, typeFalse, typeTrue, typeEllipsis:
	case typeInt:
		o.data, err = r.take(4)
	case typeFloat:
		o.data, err = r.take(8)
	case typeComplex:
		o.data, err = r.take(16)
	case typeLong:
		// A count of 16-bit digits, negative for a negative number.
		if len(r.data) < 4 {
			return nil, errMarshal
		}
		digits := int64(int32(binary.LittleEndian.Uint32(r.data)))
		o.data, err = r.take(int(4 + 2*max(digits, -digits)))
	case typeBytes:
		o.data, err = r.bytes(4)
	case typeUnicode, typeInterned, typeASCII, typeASCIIInterned:
		o.kind = typeUnicode
		o.data, err = r.bytes(4)
	case typeShort, typeShortInterned:
		o.kind = typeUnicode
		o.data, err = r.bytes(1)
	case typeSmallTuple:
		o.kind = typeTuple
		err = r.items(o, 1, depth)
	case typeTuple, typeFrozenset:
		err = r.items(o, 4, depth)
	case typeSlice:
		err = r.fields(o, "ooo", depth)
	case typeCode:
		err = r.fields(o, r.layout, depth)
	default:
		err = fmt.Errorf("%w: type %q", errMarshal, kind)
	}
	return o, err
}

func (r *unmarshaller) bytes(width int) ([]byte, error) {
	n, err := r.size(width)
	if err != nil {
		return nil, err
	}
	return r.take(n)
}

func (r *unmarshaller) items(o *object, width, depth int) error {
	n, err := r.size(width)
	if err != nil {
		return err
	}
	return r.fields(o, strings.Repeat("o", n), depth)
}

func (r *unmarshaller) fields(o *object, layout string, depth int) error {
	for _, field := range layout {
		if field == 'i' {
			b, err := r.take(4)
			if err != nil {
				return err
			}
			o.data = append(o.data, b...)
			continue
		}
		item, err := r.object(depth + 1)
		if err != nil {
			return err
		}
		o.items = append(o.items, item)
	}
	return nil
}

// unique returns the object that is equal, if there has been one. Two code
// objects are never the same.
func (r *unmarshaller) unique(o *object) *object {
	if o.kind == typeFrozenset {
		slices.SortFunc(o.items, func(a, b *object) int { return bytes.Compare(a.sum[:], b.sum[:]) })
	}
	content := append([]byte{o.kind}, o.data...)
	for _, item := range o.items {
		content = append(content, item.sum[:]...)
	}
	o.sum = sha256.Sum256(content)
	known, ok := r.known[o.sum]
	if ok && o.kind != typeCode {
		return known
	}
	r.known[o.sum] = o
	return o
}

// marshaller writes objects. Those that were counted more than once get a number
// where they are written first, in this order.
type marshaller struct {
	bytes.Buffer
	layout  string
	numbers map[*object]int
}

func (w *marshaller) object(o *object) {
	if number, ok := w.numbers[o]; ok {
		w.WriteByte(typeRef)
		w.number(number, 4)
		return
	}
	kind, width := o.kind, 4
	switch {
	case o.kind == typeUnicode:
		kind, width = stringType(o.data)
	case o.kind == typeTuple && len(o.items) < 256:
		kind, width = typeSmallTuple, 1
	}
	// A reference has five bytes, as an int and a string of three have.
	if o.uses > 1 && (len(o.items) > 0 || len(o.data) > 3 && o.kind != typeInt) {
		kind |= flagRef
		w.numbers[o] = len(w.numbers)
	}
	w.WriteByte(kind)
	switch o.kind {
	case typeBytes, typeUnicode:
		w.number(len(o.data), width)
		w.Write(o.data)
	case typeTuple, typeFrozenset:
		w.number(len(o.items), width)
		w.fields(o, strings.Repeat("o", len(o.items)))
	case typeCode:
		w.fields(o, w.layout)
	case typeSlice:
		w.fields(o, "ooo")
	default:
		w.Write(o.data)
	}
}

func (w *marshaller) fields(o *object, layout string) {
	data, items := o.data, o.items
	for _, field := range layout {
		if field == 'i' {
			w.Write(data[:4])
			data = data[4:]
			continue
		}
		w.object(items[0])
		items = items[1:]
	}
}

func (w *marshaller) number(n, width int) {
	w.Write(binary.LittleEndian.AppendUint32(nil, uint32(n))[:width])
}

// stringType returns the type code of a string and the width of its length.
// Marked as interned are names and what could be one, as in all_name_chars of
// Objects/codeobject.c.
func stringType(s []byte) (kind byte, width int) {
	interned := !slices.ContainsFunc(s, func(c byte) bool {
		return c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z')
	})
	ascii := !slices.ContainsFunc(s, func(c byte) bool { return c >= utf8.RuneSelf })
	switch {
	case !ascii:
		return typeUnicode, 4
	case len(s) < 256 && interned:
		return typeShortInterned, 1
	case len(s) < 256:
		return typeShort, 1
	case interned:
		return typeASCIIInterned, 4
	}
	return typeASCII, 4
}
