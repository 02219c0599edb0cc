package bulk

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// List is what is to be wrapped.
type List struct {
	Defaults Options // of all entries
	Entries  []Entry

	file  string
	lines map[string]int // of Defaults
}

// Options are values of imgwrap's flags by the flags' names.
type Options map[string][]string

// Entry is an image, or images of a repository or of several.
type Entry struct {
	Image string // a reference; "" if Repository is set
	// Repository is one with its registry, or a pattern of several, see
	// [Repositories].
	Repository string
	Tags       Filter // of Repository
	Options    Options
	Line       int // in the file, from 1 on

	// Digest is the one that Image is pinned to, "" if it is not.
	Digest string
	// Layers are those of what is to be wrapped in Image, nil if the list does not
	// have them. Lists that were resolved do.
	Layers []Layer

	lines map[string]int // of Options
}

// Layer is a layer as manifests describe it.
type Layer struct {
	Digest string
	Size   int64 // bytes, compressed
}

// Error is something in a list that makes no sense.
type Error struct {
	File    string
	Line    int // from 1 on, 0 if it is about the whole file
	Problem string
	Remedy  string
}

func (e *Error) Error() string {
	where := e.File
	if e.Line > 0 {
		where += ":" + strconv.Itoa(e.Line)
	}
	return where + ": " + e.Problem
}

// Hint says what to do about it.
func (e *Error) Hint() string { return e.Remedy }

// CheckOptions calls check for each option, in the order of the file: which there
// are is the caller's to know. The error of the first that does not pass becomes an
// *Error with its line; its method Hint() string, if it has one, is the remedy.
func (l *List) CheckOptions(check func(name string, values []string) error) error {
	if err := l.check(l.Defaults, l.lines, check); err != nil {
		return err
	}
	for _, e := range l.Entries {
		if err := l.check(e.Options, e.lines, check); err != nil {
			return err
		}
	}
	return nil
}

func (l *List) check(o Options, lines map[string]int, check func(string, []string) error) error {
	for _, name := range o.names(lines) {
		err := check(name, o[name])
		if err == nil {
			continue
		}
		e := &Error{File: l.file, Line: lines[name], Problem: err.Error()}
		if hint, ok := err.(interface{ Hint() string }); ok {
			e.Remedy = hint.Hint()
		}
		return e
	}
	return nil
}

// names are sorted by line, as far as lines are known, and by name.
func (o Options) names(lines map[string]int) []string {
	var names []string
	for name := range o {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(lines[a], lines[b]), cmp.Compare(a, b)) })
	return names
}

// Bytes is the list as YAML, which [Parse] reads. It is made entry by entry: lists
// may be long, and YAML's nodes are many times as large as their text.
func (l *List) Bytes() ([]byte, error) {
	var b bytes.Buffer
	part := func(n *yaml.Node) error {
		content, err := yaml.Marshal(n)
		if err != nil {
			return fmt.Errorf("writing a list: %w", err)
		}
		b.Write(content)
		return nil
	}
	if len(l.Defaults) > 0 {
		defaults, root := &yaml.Node{Kind: yaml.MappingNode}, &yaml.Node{Kind: yaml.MappingNode}
		l.Defaults.addTo(defaults, l.lines)
		add(root, keyDefaults, defaults)
		if err := part(root); err != nil {
			return nil, err
		}
	}
	if len(l.Entries) == 0 {
		b.WriteString(keyImages + ": []\n")
	} else {
		b.WriteString(keyImages + ":\n")
	}
	for _, e := range l.Entries {
		if err := part(&yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{e.node()}}); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

func (e *Entry) node() *yaml.Node {
	if e.Image != "" && len(e.Options) == 0 && e.Layers == nil {
		return text(e.Image)
	}
	n := &yaml.Node{Kind: yaml.MappingNode}
	if e.Image != "" {
		add(n, keyImage, text(e.Image))
	} else {
		add(n, keyRepository, text(e.Repository))
		if tags := e.Tags.node(); len(tags.Content) > 0 {
			add(n, keyTags, tags)
		}
	}
	e.Options.addTo(n, e.lines)
	if e.Layers != nil {
		var words []string
		for _, l := range e.Layers {
			words = append(words, l.Digest+"="+strconv.FormatInt(l.Size, 10))
		}
		add(n, keyLayers, text(strings.Join(words, " ")))
	}
	return n
}

func (f Filter) node() *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
	if f.Semver != nil {
		add(n, keySemver, text(f.Semver.String()))
	}
	if f.Newest > 0 {
		add(n, keyNewest, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.Itoa(f.Newest)})
	}
	if f.Match != nil {
		add(n, keyMatch, text(f.Match.String()))
	}
	if f.Except != nil {
		add(n, keyExcept, text(f.Except.String()))
	}
	return n
}

// key tells filters apart.
func (f Filter) key() string {
	var words []string
	for _, n := range f.node().Content {
		words = append(words, n.Value)
	}
	return strings.Join(words, " ")
}

func (o Options) addTo(mapping *yaml.Node, lines map[string]int) {
	for _, name := range o.names(lines) {
		if values := o[name]; len(values) == 1 {
			add(mapping, name, text(values[0]))
		} else {
			list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
			for _, v := range values {
				list.Content = append(list.Content, text(v))
			}
			add(mapping, name, list)
		}
	}
}

func add(mapping *yaml.Node, key string, value *yaml.Node) {
	mapping.Content = append(mapping.Content, text(key), value)
}

// text is a scalar that is quoted where it has to be.
func text(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}
