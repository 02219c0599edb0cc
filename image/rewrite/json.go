package rewrite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A node is a JSON object or array in the text it was read from. Its parts, put
// together again, are that text; an edit replaces parts and keeps the others.
//
// The libraries for editing JSON in place address values by a path in which dots
// and other characters of a key are special, take the first of two equal keys
// where every reader of an image takes the last, and do not check what they are
// given. Label names have dots, and the documents come from strangers.
type node struct {
	open  string // text up to and including the opening bracket
	items []item
	close string // text from the last item to the end
}

// An item is a member of an object or an element of an array.
type item struct {
	space string // what precedes it: white space and, from the second item on, a comma
	name  string // decoded key; "" in an array
	key   string // text from the key to the value: `"key": `; "" in an array
	value string // text of the value
}

// document parses the object that makes up a whole document; see object.
func document(text []byte, fields ...string) (*node, error) {
	if bytes.HasPrefix(text, []byte("\xef\xbb\xbf")) {
		return nil, errors.New("starts with a byte order mark, which JSON does not allow")
	}
	var v json.RawMessage
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, fmt.Errorf("is not JSON: %w", err)
	}
	if string(bytes.TrimSpace(text)) == "null" {
		return nil, errors.New("is null, not an object")
	}
	return object(string(text), fields...)
}

// object parses an object. No key may occur twice: readers differ in which one
// they take. They also match the names of fields without regard to case (Go's
// encoding/json does), so none of the fields may occur in two spellings.
func object(text string, fields ...string) (*node, error) {
	n, err := parse(text, '{')
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(n.items))
	for _, it := range n.items {
		name := it.name
		for _, field := range fields {
			if strings.EqualFold(name, field) {
				name = field
			}
		}
		if seen[name] {
			return nil, fmt.Errorf("has the key %q twice", name)
		}
		seen[name] = true
	}
	return n, nil
}

func array(text string) (*node, error) {
	return parse(text, '[')
}

// parse splits valid JSON text into the items of its object ('{') or array
// ('['). An absent value ("") and null are empty ones: this is how readers of
// images take them.
func parse(text string, kind json.Delim) (*node, error) {
	if text == "" || text == "null" {
		return &node{open: kind.String(), close: string(kind + 2)}, nil // '{'+2 == '}', '['+2 == ']'
	}
	dec := json.NewDecoder(strings.NewReader(text))
	if tok, err := dec.Token(); err != nil {
		return nil, err
	} else if tok != kind {
		return nil, fmt.Errorf("is %s, not %s", describe(tok), describe(kind))
	}
	pos := dec.InputOffset()
	n := &node{open: text[:pos]}
	for dec.More() {
		var it item
		start := pos
		if kind == '{' {
			tok, err := dec.Token()
			if err != nil {
				return nil, err
			}
			it.name = tok.(string) // the text is valid: a key is a string
			start += int64(strings.IndexByte(text[pos:], '"'))
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, err
		}
		end := dec.InputOffset()
		if kind == '[' {
			start = end - int64(len(raw))
		}
		it.space = text[pos:start]
		it.key = text[start : end-int64(len(raw))]
		it.value = string(raw)
		n.items = append(n.items, it)
		pos = end
	}
	n.close = text[pos:]
	return n, nil
}

func describe(tok json.Token) string {
	switch tok := tok.(type) {
	case json.Delim:
		if tok == '{' {
			return "an object"
		}
		return "an array"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	}
	return "a number"
}

// index finds a field: by its name, else by another spelling of it.
func (n *node) index(name string) int {
	i := slices.IndexFunc(n.items, func(it item) bool { return it.name == name })
	if i < 0 {
		i = slices.IndexFunc(n.items, func(it item) bool { return strings.EqualFold(it.name, name) })
	}
	return i
}

// get returns the text of a field's value, "" if there is none.
func (n *node) get(name string) string {
	if i := n.index(name); i >= 0 {
		return n.items[i].value
	}
	return ""
}

// set replaces a field's value, or adds the field after all others.
func (n *node) set(name, value string) {
	if i := n.index(name); i >= 0 {
		n.items[i].value = value
		return
	}
	n.add(item{name: name, key: encode(name) + ":", value: value})
}

// put is set for an object whose keys are data, such as labels.
func (n *node) put(name, value string) {
	for i := range n.items {
		if n.items[i].name == name {
			n.items[i].value = value
			return
		}
	}
	n.add(item{name: name, key: encode(name) + ":", value: value})
}

// add puts an item after all others.
func (n *node) add(it item) {
	if len(n.items) > 0 {
		it.space = ","
	}
	n.items = append(n.items, it)
}

// remove takes a field out, with its comma.
func (n *node) remove(name string) {
	i := n.index(name)
	if i < 0 {
		return
	}
	if i == 0 && len(n.items) > 1 {
		n.items[1].space = n.items[0].space
	}
	n.items = slices.Delete(n.items, i, i+1)
}

func (n *node) String() string {
	var b strings.Builder
	b.WriteString(n.open)
	for _, it := range n.items {
		b.WriteString(it.space)
		b.WriteString(it.key)
		b.WriteString(it.value)
	}
	b.WriteString(n.close)
	return b.String()
}

// encode is the JSON text of a value that has one, without the escapes that
// encoding/json adds for HTML.
func encode(v any) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // not reached: only strings and structs of strings and integers come here
	}
	return strings.TrimSuffix(b.String(), "\n")
}
