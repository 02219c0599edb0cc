package requirements

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/imgwrap/imgwrap/layer/pep440"
	"github.com/imgwrap/imgwrap/layer/pep508"
)

// tomlFile is a TOML document with the places of its tables and keys, so that
// text can be put between them.
type tomlFile struct {
	src    []byte
	values map[string]any
	items  []tomlItem // in the order of the file
}

// tomlItem is a line [table], or a key with its value.
type tomlItem struct {
	table  bool     // or [[table]]
	path   []string // from the root
	header int      // how much of path is from the [table] that a key is in
	start  int      // where it begins
	end    int      // where the next line begins
	value  int      // where a key's value begins
}

func parseTOML(src []byte) (*tomlFile, error) {
	f := &tomlFile{src: src}
	// This finds all mistakes; the parser below does not.
	if err := toml.Unmarshal(src, &f.values); err != nil {
		problem := &SyntaxError{Problem: strings.TrimPrefix(err.Error(), "toml: ")}
		var at *toml.DecodeError
		if errors.As(err, &at) {
			problem.Line, _ = at.Position()
		}
		return nil, problem
	}
	var p unstable.Parser
	p.Reset(src)
	var header []string
	for p.NextExpression() {
		node := p.Expression()
		item := tomlItem{table: node.Kind != unstable.KeyValue}
		if !item.table {
			item.path = slices.Clone(header)
			item.header = len(header)
		}
		var first, last unstable.Range
		for keys := node.Key(); keys.Next(); {
			last = keys.Node().Raw
			if first.Length == 0 {
				first = last
			}
			item.path = append(item.path, string(keys.Node().Data))
		}
		item.start = int(first.Offset)
		end := int(last.Offset + last.Length)
		if item.table {
			header = item.path
		} else {
			end = int(node.Raw.Offset + node.Raw.Length)
			item.value = int(last.Offset+last.Length) + bytes.IndexByte(src[last.Offset+last.Length:], '=') + 1
			for src[item.value] == ' ' || src[item.value] == '\t' {
				item.value++
			}
		}
		item.end = nextLine(src, end)
		f.items = append(f.items, item)
	}
	if err := p.Error(); err != nil {
		return nil, &SyntaxError{Problem: err.Error()}
	}
	return f, nil
}

// get returns the value at a path, nil if there is none.
func (f *tomlFile) get(path ...string) any {
	var v any = f.values
	for _, key := range path {
		table, _ := v.(map[string]any)
		v = table[key]
	}
	return v
}

// key returns the key at a path.
func (f *tomlFile) key(path []string) (tomlItem, bool) {
	for _, item := range f.items {
		if !item.table && slices.Equal(item.path, path) {
			return item, true
		}
	}
	return tomlItem{}, false
}

// problem is what is wrong with the first item at or below a path.
func (f *tomlFile) problem(path []string, format string, args ...any) error {
	e := &SyntaxError{Problem: fmt.Sprintf(format, args...)}
	for _, item := range f.items {
		n := min(len(item.path), len(path))
		if n > 0 && (!item.table || n == len(path)) && slices.Equal(item.path[:n], path[:n]) {
			e.Line = lineOf(f.src, item.start)
			break
		}
	}
	return e
}

// newline is what ends the lines of the file.
func (f *tomlFile) newline() string {
	if i := bytes.IndexByte(f.src, '\n'); i > 0 && f.src[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// splice is text that is put into a file.
type splice struct {
	at   int
	text string
}

// insert returns src with texts put in, which are in the order of the file.
func insert(src []byte, splices ...splice) []byte {
	var out []byte
	done := 0
	for _, s := range splices {
		out = append(append(out, src[done:s.at]...), s.text...)
		done = s.at
	}
	return append(out, src[done:]...)
}

// What the mark at the beginning says to readers, and to remove.
const (
	written       = " (written by imgwrap requirements; --undo removes it)"
	writtenBehind = " (written by imgwrap requirements; --undo removes it and the comma before it)"
)

// insertLines returns the splice that puts lines before the line at an offset,
// between marks.
func (f *tomlFile) insertLines(at int, indent string, lines []string) splice {
	nl := f.newline()
	lines = slices.Concat([]string{beginMark + written}, lines, []string{endMark})
	text := indent + strings.Join(lines, nl+indent)
	if at == len(f.src) && at > 0 && f.src[at-1] != '\n' {
		return splice{at, nl + text} // the file still does not end in a newline
	}
	return splice{at, text + nl}
}

// addVersions returns the splice that adds packages to a table of names and
// versions, with values as TOML.
func (f *tomlFile) addVersions(path []string, pkgs []Package, value func(Package) string) (splice, error) {
	there, _ := f.get(path...).(map[string]any)
	var keys [][]string
	for _, p := range pkgs {
		for name := range there {
			if pep508.Normalize(name) == p.Name {
				return splice{}, f.problem(append(slices.Clone(path), name), "%s is there already", name)
			}
		}
		keys = append(keys, []string{p.Name + " = " + value(p)})
	}
	return f.addToTable(path, keys...)
}

// addToTable returns the splice that adds keys to a table, each with its value
// and in one or several lines. A table that is not there is made.
func (f *tomlFile) addToTable(path []string, keys ...[]string) (splice, error) {
	for n := 1; n <= len(path); n++ {
		v := f.get(path[:n]...)
		if v == nil {
			break
		}
		if _, ok := v.(map[string]any); !ok {
			return splice{}, f.problem(path[:n], "%s is not a table", dotted(path[:n]))
		}
		if _, ok := f.key(path[:n]); ok {
			return splice{}, f.problem(path[:n], "%[1]s is an inline table, in which nothing can be marked: write it as [%[1]s]", dotted(path[:n]))
		}
	}
	var last *tomlItem // after which the keys go
	prefix := ""
	for _, item := range f.items {
		switch in := item.path[:min(len(item.path), len(path))]; {
		case item.table && slices.Equal(item.path, path), !item.table && item.header == len(path) && slices.Equal(in, path):
			last, prefix = &item, ""
		case !item.table && item.header < len(path) && slices.Equal(in, path):
			// The table is made of keys with dots: table.key = value.
			last, prefix = &item, dotted(path[item.header:])+"."
		}
	}
	var lines []string
	if last == nil {
		lines = append(lines, "["+dotted(path)+"]")
	}
	for _, key := range keys {
		lines = append(append(lines, prefix+key[0]), key[1:]...)
	}
	if last == nil {
		return f.insertLines(len(f.src), "", lines), nil
	}
	return f.insertLines(last.end, indentation(f.src, last.start), lines), nil
}

// tomlArray is where the parts of an array are.
type tomlArray struct {
	key        int  // the key whose value it is
	start, end int  // of the last element; start is 0 if there is none
	comma      bool // whether a comma follows it
	close      int
}

func (f *tomlFile) array(item tomlItem) tomlArray {
	a := tomlArray{key: item.start}
	depth := 0
	element := false
	for i := item.value + 1; ; {
		next := tokenEnd(f.src, i)
		switch c := f.src[i]; {
		case c == '#' || c == ' ' || c == '\t' || c == '\r' || c == '\n':
		case depth == 0 && c == ',':
			a.comma, element = true, false
		case depth == 0 && c == ']':
			a.close = i
			return a
		default:
			if !element {
				a.start, a.comma, element = i, false, true
			}
			switch c {
			case '[', '{':
				depth++
			case ']', '}':
				depth--
			}
			a.end = next
		}
		i = next
	}
}

// addToArray returns the splices that add strings to an array, each rendered
// with the quotation mark that it is given. An array that is not there is made.
func (f *tomlFile) addToArray(path []string, render func(quote string) []string) ([]splice, error) {
	item, ok := f.key(path)
	if !ok {
		if f.get(path...) != nil {
			return nil, f.problem(path, "%s is in an inline table, in which nothing can be marked", dotted(path))
		}
		lines := []string{dotted(path[len(path)-1:]) + " = ["}
		for _, s := range render(`"`) {
			lines = append(lines, "    "+s+",")
		}
		s, err := f.addToTable(path[:len(path)-1], append(lines, "]"))
		return []splice{s}, err
	}
	if f.src[item.value] != '[' {
		return nil, f.problem(path, "%s is not an array", dotted(path))
	}
	a := f.array(item)
	quote := `"`
	var splices []splice
	mark := beginMark + written
	if a.start > 0 {
		if f.src[a.start] == '\'' {
			quote = "'"
		}
		if !a.comma {
			splices = append(splices, splice{a.end, ","})
			mark = beginMark + writtenBehind
		}
	}
	alone := ownLine(f.src, a.close) // whether ] is the first on its line
	var indent string
	switch {
	case a.start > 0 && ownLine(f.src, a.start):
		indent = indentation(f.src, a.start)
	case alone:
		indent = indentation(f.src, a.close) + "    "
	default:
		indent = indentation(f.src, a.key) + "    "
	}
	nl := f.newline()
	text := mark + nl
	for _, s := range render(quote) {
		text += indent + s + "," + nl
	}
	text += indent + endMark + nl
	if alone {
		return append(splices, splice{lineStart(f.src, a.close), indent + text}), nil
	}
	return append(splices, splice{a.close, " " + text + indentation(f.src, a.key)}), nil
}

// removeMarked returns src, which is valid TOML, without what is between marks
// and without the marks; src itself if it has none.
func removeMarked(src []byte) ([]byte, error) {
	begin, end := -1, -1 // of the marks
	before := -1         // last byte before them that is no space or comment
	var after byte       // first such byte after them
	joined := false      // whether a comma before them is to go
	for i, next := 0, 0; i < len(src); i = next {
		next = tokenEnd(src, i)
		c, comment := src[i], string(src[i:next])
		switch {
		case c == '#' && isMark(comment, beginMark):
			if begin >= 0 {
				return nil, &SyntaxError{Line: lineOf(src, i), Problem: "a second " + beginMark}
			}
			begin = i
			joined = strings.HasSuffix(strings.TrimSpace(comment), writtenBehind)
		case c == '#' && isMark(comment, endMark):
			if begin < 0 || end >= 0 {
				return nil, &SyntaxError{Line: lineOf(src, i), Problem: endMark + " without " + beginMark}
			}
			end = next
		case strings.IndexByte("# \t\r\n", c) >= 0:
		case begin < 0:
			before = i
		case end >= 0 && after == 0:
			after = c
		}
	}
	if begin < 0 {
		return src, nil
	}
	if end < 0 {
		return nil, &SyntaxError{Line: lineOf(src, begin), Problem: beginMark + " without " + endMark}
	}
	end = nextLine(src, end)
	if ownLine(src, begin) {
		begin = lineStart(src, begin)
		if src[end-1] != '\n' { // the file does not end in a newline, nor did it
			begin = len(bytes.TrimSuffix(bytes.TrimSuffix(src[:begin], []byte("\n")), []byte("\r")))
		}
	} else {
		begin = len(bytes.TrimSuffix(src[:begin], []byte(" ")))
		end += len(src[end:]) - len(bytes.TrimLeft(src[end:], " \t"))
	}
	if joined && after == ']' && src[before] == ',' {
		return slices.Concat(src[:before], src[before+1:begin], src[end:]), nil
	}
	return slices.Concat(src[:begin], src[end:]), nil
}

func isMark(comment, mark string) bool {
	rest, ok := strings.CutPrefix(strings.TrimSpace(comment), mark)
	return ok && (rest == "" || rest[0] == ' ')
}

// tokenEnd returns where the comment, string or other character ends that begins
// at i, in valid TOML and outside of comments and strings.
func tokenEnd(src []byte, i int) int {
	switch src[i] {
	case '#':
		if n := bytes.IndexByte(src[i:], '\n'); n >= 0 {
			return i + n
		}
		return len(src)
	case '"', '\'':
		quote, lines := src[i:i+1], bytes.Repeat(src[i:i+1], 3)
		if bytes.HasPrefix(src[i:], lines) {
			quote = lines
		}
		for j := i + len(quote); j < len(src); j++ {
			switch {
			case src[j] == '\\' && quote[0] == '"':
				j++
			case bytes.HasPrefix(src[j:], quote):
				j += len(quote)
				for n := 0; len(quote) == 3 && n < 2 && j < len(src) && src[j] == quote[0]; n++ {
					j++ // a string of lines may end in quotation marks of its own
				}
				return j
			}
		}
		return len(src)
	}
	return i + 1
}

func lineOf(src []byte, i int) int { return bytes.Count(src[:i], []byte("\n")) + 1 }

func lineStart(src []byte, i int) int { return bytes.LastIndexByte(src[:i], '\n') + 1 }

func nextLine(src []byte, i int) int {
	if n := bytes.IndexByte(src[i:], '\n'); n >= 0 {
		return i + n + 1
	}
	return len(src)
}

// ownLine tells whether what begins at i is the first on its line.
func ownLine(src []byte, i int) bool {
	return len(indentation(src, i)) == i-lineStart(src, i)
}

// indentation is the white space that the line of i begins with.
func indentation(src []byte, i int) string {
	line := src[lineStart(src, i):i]
	return string(line[:len(line)-len(bytes.TrimLeft(line, " \t"))])
}

// dotted is the path of a key or table as TOML has it.
func dotted(path []string) string {
	keys := slices.Clone(path)
	for i, key := range keys {
		if key == "" || strings.Trim(key, bareKey) != "" {
			keys[i] = strconv.Quote(key)
		}
	}
	return strings.Join(keys, ".")
}

const bareKey = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

// pin is a requirement of exactly one version.
type pin struct{ name, version string }

// surplus returns the pins that the value more has beyond less. It is an error
// if anything else differs.
func surplus(less, more any) ([]pin, error) {
	switch more := more.(type) {
	case map[string]any:
		old, ok := less.(map[string]any)
		if !ok && less != nil {
			return nil, fmt.Errorf("%v is %v", less, more)
		}
		for key := range old {
			if _, ok := more[key]; !ok {
				return nil, fmt.Errorf("%s is gone", key)
			}
		}
		var pins []pin
		for _, key := range slices.Sorted(maps.Keys(more)) {
			if _, ok := old[key]; !ok {
				if p, ok := keyPin(key, more[key]); ok {
					pins = append(pins, p)
					continue
				}
			}
			found, err := surplus(old[key], more[key])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			pins = append(pins, found...)
		}
		return pins, nil
	case []any:
		old, ok := less.([]any)
		if !ok && less != nil {
			return nil, fmt.Errorf("%v is %v", less, more)
		}
		var pins []pin
		for _, v := range more {
			if len(old) > 0 {
				if found, err := surplus(old[0], v); err == nil && len(found) == 0 {
					old = old[1:]
					continue
				}
			}
			p, ok := requirementPin(v)
			if !ok {
				return nil, fmt.Errorf("%v", v)
			}
			pins = append(pins, p)
		}
		if len(old) > 0 {
			return nil, fmt.Errorf("%v is gone", old[0])
		}
		return pins, nil
	}
	nan := func(v any) bool { n, ok := v.(float64); return ok && math.IsNaN(n) }
	if !reflect.DeepEqual(less, more) && !(nan(less) && nan(more)) {
		return nil, fmt.Errorf("%v is %v", less, more)
	}
	return nil, nil
}

// requirementPin reads a requirement (PEP 508) as a pin.
func requirementPin(v any) (pin, bool) {
	s, _ := v.(string)
	requirement, _, _ := strings.Cut(s, ";")
	name, version, ok := strings.Cut(strings.TrimSpace(requirement), "==")
	return pin{name, version}, ok && isVersion(version)
}

// keyPin reads a key of a table of requirements as a pin, as Poetry and Pipenv
// have them.
func keyPin(name string, v any) (pin, bool) {
	if table, ok := v.(map[string]any); ok {
		v = table["version"]
	}
	s, _ := v.(string)
	version := strings.TrimPrefix(s, "==")
	return pin{name, version}, isVersion(version)
}

func isVersion(s string) bool {
	_, err := pep440.Parse(s)
	return err == nil
}

// editTOML is add of the formats that are TOML.
func editTOML(src []byte, pkgs []Package, place func(*tomlFile) ([]splice, error)) ([]byte, error) {
	src, err := restoreTOML(src)
	if err != nil || len(pkgs) == 0 {
		return src, err
	}
	f, err := parseTOML(src)
	if err != nil {
		return nil, err
	}
	splices, err := place(f)
	if err != nil {
		return nil, err
	}
	out := insert(src, splices...)
	edited, err := parseTOML(out)
	if err != nil {
		return nil, fmt.Errorf("adding packages: %v", err)
	}
	found, err := surplus(f.values, edited.values)
	if err != nil {
		return nil, fmt.Errorf("adding packages: %v", err)
	}
	var want []pin
	for _, p := range pkgs {
		want = append(want, pin{p.Name, p.Version})
	}
	byName := func(a, b pin) int { return strings.Compare(a.name, b.name) }
	slices.SortFunc(want, byName)
	slices.SortFunc(found, byName)
	if !slices.Equal(found, want) {
		return nil, fmt.Errorf("adding packages: the file has %v more than before", found)
	}
	return out, nil
}

// restoreTOML is remove of the formats that are TOML.
func restoreTOML(src []byte) ([]byte, error) {
	f, err := parseTOML(src)
	if err != nil {
		return nil, err
	}
	out, err := removeMarked(src)
	if err != nil {
		return nil, err
	}
	restored, err := parseTOML(out)
	if err == nil {
		_, err = surplus(restored.values, f.values)
	}
	if err != nil {
		// Someone has changed what is marked.
		line := lineOf(src, max(0, bytes.Index(src, []byte(beginMark))))
		return nil, &SyntaxError{Line: line, Problem: fmt.Sprintf("what is marked is not what was added here: %v", err)}
	}
	return out, nil
}
