package promote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Of what a document expands to, with its aliases followed.
const (
	maxDepth = 200
	maxSteps = 1 << 20
)

// A tree is a text and the YAML documents that it holds.
type tree struct {
	file  string
	text  []byte
	docs  []*yaml.Node
	lines []int // where each line starts, as the parser counts them
	ends  []int // where each ends, as editors count them

	// Of YAML within a literal block of another tree: the block's place, where
	// its lines stand in that tree's text, and what is in front of them there.
	outer     place
	positions []int
	indent    string
	fixed     error // set if it cannot be edited

	aliases bool
	steps   int
	err     error // what keeps a walk from its end
}

func parse(file string, text []byte) (*tree, error) {
	t := &tree{file: file, text: text, lines: lineStarts(text)}
	for _, m := range editorBreak.FindAllIndex(text, -1) {
		t.ends = append(t.ends, m[1])
	}
	if !utf8.Valid(text) {
		return nil, errors.New("it is not UTF-8")
	}
	docs, err := decode(text)
	if err != nil {
		return nil, err
	}
	for _, d := range docs {
		t.docs = append(t.docs, d.Content[0])
		t.aliases = t.aliases || hasAlias(d)
	}
	return t, nil
}

// decode parses the documents of a text. The parser panics where it finds itself
// in a state that should not be: that is an error like any other here.
func decode(text []byte) (docs []*yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			docs, err = nil, fmt.Errorf("yaml: %v", r)
		}
	}()
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var n yaml.Node
		if err := d.Decode(&n); errors.Is(err, io.EOF) {
			return docs, nil
		} else if err != nil {
			return nil, err
		}
		docs = append(docs, &n)
	}
}

func hasAlias(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || slices.ContainsFunc(n.Content, hasAlias)
}

const bom = "\ufeff"

// What is the end of a line to YAML 1.1 (section 5.4) and to the parser, and what
// is to editors.
var (
	yamlBreak   = regexp.MustCompile("\r\n|[\r\n\u0085\u2028\u2029]")
	editorBreak = regexp.MustCompile(`\r\n|[\r\n]`)
)

func lineStarts(text []byte) []int {
	first := 0
	if bytes.HasPrefix(text, []byte(bom)) {
		first = len(bom) // the parser counts columns from behind it
	}
	lines := []int{first}
	for _, m := range yamlBreak.FindAllIndex(text, -1) {
		lines = append(lines, m[1])
	}
	return lines
}

// offset is where a node starts: at its anchor or tag, if it has one. Columns of
// nodes count characters.
func (t *tree) offset(n *yaml.Node) (int, bool) {
	if n.Line < 1 || n.Line > len(t.lines) {
		return 0, false
	}
	at := t.lines[n.Line-1]
	for range n.Column - 1 {
		if at >= len(t.text) {
			return 0, false
		}
		_, size := utf8.DecodeRune(t.text[at:])
		at += size
	}
	return at, true
}

// line is the number of the line in the file that a node starts in, counted as
// editors do.
func (t *tree) line(n *yaml.Node) int {
	at, _ := t.offset(n)
	t, at = t.outermost(at)
	i, _ := slices.BinarySearch(t.ends, at+1)
	return i + 1
}

// lineText is the text of the line that a node starts in.
func (t *tree) lineText(n *yaml.Node) string {
	at, ok := t.offset(n)
	if !ok {
		return ""
	}
	return string(t.text[t.lineStart(at):t.lineEnd(at)])
}

func (t *tree) lineStart(at int) int {
	return max(t.lines[0], 1+bytes.LastIndexAny(t.text[:at], "\r\n"))
}

// lineEnd is where the line break of a line is, or the end of the text.
func (t *tree) lineEnd(at int) int {
	if i := bytes.IndexAny(t.text[at:], "\r\n"); i >= 0 {
		return at + i
	}
	return len(t.text)
}

// newline is the line break of a line, or that of the line before if it is the
// last one.
func (t *tree) newline(at int) string {
	end := t.lineEnd(at)
	if end == len(t.text) {
		end = max(0, t.lineStart(at)-1)
		if end > 0 && t.text[end-1] == '\r' {
			end--
		}
	}
	if b := editorBreak.Find(t.text[end:]); b != nil {
		return string(b)
	}
	return "\n"
}

// outermost is the offset in the text of the file of one in the text of t.
func (t *tree) outermost(at int) (*tree, int) {
	for t.outer.tree != nil {
		t, at = t.outer.tree, t.outwards(at)
	}
	return t, at
}

func (t *tree) outwards(at int) int {
	i, found := slices.BinarySearch(t.lines, at)
	if !found {
		i--
	}
	return t.positions[i] + at - t.lines[i]
}

// inner parses the YAML within a literal block scalar, whose lines stand behind
// an indentation. Of other scalars the tree can be read and not edited.
func (p place) inner() (*tree, error) {
	t, err := parse(p.tree.file, []byte(p.node.Value))
	if err != nil {
		return nil, err
	}
	t.outer = p
	if p.node.Style&yaml.LiteralStyle == 0 {
		t.fixed = p.tree.problem(p.node, "it holds YAML in a string that is no literal block", "write it as a block with |")
	} else if !t.locate() {
		t.fixed = p.tree.problem(p.node, "its lines cannot be located in the file's text", "indent them with spaces")
	}
	if t.fixed != nil {
		at, _ := p.tree.offset(p.node)
		t.positions = slices.Repeat([]int{at}, len(t.lines))
	}
	return t, nil
}

// locate finds the lines of a literal block in the text around it.
func (t *tree) locate() bool {
	outer := t.outer.tree
	at, ok := outer.offset(t.outer.node)
	if !ok {
		return false
	}
	for _, start := range t.lines {
		content := string(t.text[start:t.lineEnd(start)])
		at = outer.lineEnd(at)
		at += len(editorBreak.Find(outer.text[at:]))
		line := string(outer.text[at:outer.lineEnd(at)])
		if t.indent == "" && content != "" {
			t.indent = strings.TrimSuffix(line, content)
			if t.indent == "" || strings.Trim(t.indent, " ") != "" {
				return false
			}
		}
		if content != "" && line != t.indent+content {
			return false
		}
		t.positions = append(t.positions, min(at+len(t.indent), len(outer.text)))
	}
	return true
}

// An Error is about one place in a file, and says what to do about it.
type Error struct {
	File    string
	Line    int // 0 if it is about the whole file
	Problem string
	Remedy  string
}

func (e *Error) Error() string {
	where := e.File
	if e.Line > 0 {
		where += ":" + strconv.Itoa(e.Line)
	}
	return where + ": " + e.Problem + ": " + e.Remedy
}

func (t *tree) problem(n *yaml.Node, problem, remedy string) *Error {
	return &Error{t.file, t.line(n), problem, remedy}
}

// A place is a value as a path leads to it, through aliases and merge keys. The
// zero place is none.
type place struct {
	tree   *tree
	doc    int
	path   string
	node   *yaml.Node // not an alias
	key    *yaml.Node // nil if it is no value of a mapping
	parent *yaml.Node // that key stands in, or that the node is an item of
	shared bool       // reached through an alias
	depth  int
}

func (t *tree) root(doc int) place {
	return place{tree: t, doc: doc}.to(t.docs[doc], "", nil, nil)
}

func (p place) exists() bool { return p.node != nil }

// to is the place of a node below p, which may be an alias.
func (p place) to(n *yaml.Node, path string, key, parent *yaml.Node) place {
	c := place{p.tree, p.doc, path, n, key, parent, p.shared, p.depth + 1}
	if n.Kind == yaml.AliasNode {
		c.node, c.shared = n.Alias, true
	}
	p.tree.steps++
	if p.tree.err == nil && (p.tree.steps > maxSteps+16*len(p.tree.text) || c.depth > maxDepth) {
		p.tree.err = p.tree.problem(n, "it is nested too deeply, or expands to too much", "leave this file out")
	}
	return c
}

// line is where it stands: its key, if it has one.
func (p place) line() int {
	if p.key != nil && !p.shared {
		return p.tree.line(p.key)
	}
	return p.tree.line(p.node)
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_$/-]+$`)

func (p place) below(key string) string {
	switch {
	case !plainKey.MatchString(key):
		return p.path + "[" + strconv.Quote(key) + "]"
	case p.path == "":
		return key
	}
	return p.path + "." + key
}

// fields are the values of a mapping: its own, then those that it merges.
func (p place) fields() []place {
	if p.node == nil || p.node.Kind != yaml.MappingNode {
		return nil
	}
	var fields []place
	p.merge(p.node, map[string]bool{}, &fields)
	return fields
}

func (p place) merge(mapping *yaml.Node, seen map[string]bool, fields *[]place) {
	if p.tree.err != nil {
		return
	}
	own := map[string]bool{}
	var merged []place
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		switch {
		case key.Tag == "!!merge":
			m := p.to(value, p.path, nil, nil)
			merged = append(merged, m)
			if m.node.Kind == yaml.SequenceNode {
				for _, n := range m.node.Content {
					merged = append(merged, m.to(n, p.path, nil, nil))
				}
			}
		case key.Kind != yaml.ScalarNode || key.Tag == "!!null":
		case own[key.Value]:
			p.tree.err = p.tree.problem(key, fmt.Sprintf("the key %q is there twice", key.Value), "remove one of them")
		case !seen[key.Value]:
			own[key.Value] = true
			*fields = append(*fields, p.to(value, p.below(key.Value), key, mapping))
		}
	}
	for key := range own {
		seen[key] = true
	}
	for _, m := range merged {
		if m.isMapping() {
			m.merge(m.node, seen, fields)
		}
	}
}

// get is the value of a key.
func (p place) get(keys ...string) place {
	for _, key := range keys {
		fields := p.fields()
		i := slices.IndexFunc(fields, func(f place) bool { return f.key.Value == key })
		if i < 0 {
			return place{}
		}
		p = fields[i]
	}
	return p
}

// items are those of a sequence.
func (p place) items() []place {
	if p.node == nil || p.node.Kind != yaml.SequenceNode || p.tree.err != nil {
		return nil
	}
	items := make([]place, len(p.node.Content))
	for i, n := range p.node.Content {
		items[i] = p.to(n, p.path+"["+strconv.Itoa(i)+"]", nil, p.node)
	}
	return items
}

func (p place) isMapping() bool { return p.node != nil && p.node.Kind == yaml.MappingNode }

func (p place) isScalar() bool { return p.node != nil && p.node.Kind == yaml.ScalarNode }

// text is the value of a scalar, "" if it is null or no scalar. Numbers are as
// they are written: tags often are.
func (p place) text() string {
	if !p.isScalar() || p.node.Tag == "!!null" {
		return ""
	}
	return p.node.Value
}

// scalar is the value of a key, if it is a scalar.
func (p place) scalar(key string) place {
	if v := p.get(key); v.isScalar() {
		return v
	}
	return place{}
}

// content is where the content of a plain or quoted scalar starts, and its
// quote, 0 if it has none.
func (p place) content() (start int, quote byte, err error) {
	t := p.tree
	if p.node.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return 0, 0, t.problem(p.node, "it is written as a block scalar", "write it in one line")
	}
	at, ok := t.offset(p.node)
	if !ok {
		return 0, 0, p.lost()
	}
	at = t.behindProperties(at)
	switch {
	case p.node.Style&yaml.DoubleQuotedStyle != 0:
		quote = '"'
	case p.node.Style&yaml.SingleQuotedStyle != 0:
		quote = '\''
	default:
		return at, 0, nil
	}
	if at >= len(t.text) || t.text[at] != quote {
		return 0, 0, p.lost()
	}
	return at + 1, quote, nil
}

func (p place) lost() error {
	return p.tree.problem(p.node, "it cannot be located in the file's text", "write it in one line, without escapes")
}

// behindProperties skips the anchor and the tag of a node.
func (t *tree) behindProperties(at int) int {
	for at < len(t.text) && (t.text[at] == '&' || t.text[at] == '!') {
		for at < len(t.text) && !strings.ContainsRune(" \t\r\n", rune(t.text[at])) {
			at++
		}
		for at < len(t.text) && (t.text[at] == ' ' || t.text[at] == '\t') {
			at++
		}
	}
	return at
}

// span is where the content of a scalar stands, which has to be written in one
// line and without escapes.
func (p place) span() (start, end int, quote byte, err error) {
	start, quote, err = p.content()
	if err != nil {
		return 0, 0, 0, err
	}
	text, value := p.tree.text[start:], p.node.Value
	end = start + len(value)
	var next byte
	if len(text) > len(value) {
		next = text[len(value)]
	}
	switch {
	case !bytes.HasPrefix(text, []byte(value)), quote != 0 && next != quote,
		quote == 0 && next != 0 && !strings.ContainsRune(" \t\r\n,]}:", rune(next)):
		return 0, 0, 0, p.lost()
	}
	return start, end, quote, nil
}
