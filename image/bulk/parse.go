package bulk

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

	"github.com/Masterminds/semver/v3"
	"go.yaml.in/yaml/v3"
)

// The keys of lists. Others are names of flags.
const (
	keyDefaults   = "defaults"
	keyImages     = "images"
	keyImage      = "image"
	keyRepository = "repository"
	keyTags       = "tags"
	keySemver     = "semver"
	keyNewest     = "newest"
	keyMatch      = "match"
	keyExcept     = "except"
	keyLayers     = "layers"
)

// Parse reads a list. The error is an *Error; name is what it calls the file.
//
// A list is YAML:
//
//	defaults: {endpoint: http://collector:4318}
//	images:
//	  - registry.example.com/shop/cart:1.4
//	  - image: registry.example.com/shop/web:2.0
//	    service-name: web
//	  - repository: registry.example.com/team/*
//	    tags: {semver: ">=1.2 <2", newest: 3, match: '^v', except: '-rc'}
//
// or has one reference per line, with comments behind #. Lines that come again
// are read once: such lists are put together by programs. In YAML nothing may be
// there twice with the same options.
func Parse(name string, content []byte) (*List, error) {
	p := &parser{file: name}
	content = bytes.TrimPrefix(content, []byte("\ufeff"))
	if !utf8.Valid(content) {
		return nil, &Error{name, 0, "it is not UTF-8", "save it as UTF-8"}
	}
	var l *List
	var err error
	if isYAML(content) {
		l, err = p.yaml(content)
	} else {
		l, err = p.plain(content)
	}
	if err != nil {
		return nil, err
	}
	l.file = name
	return l, nil
}

// yamlLine is the first line of a list in YAML: it has a key, or begins with
// what no reference does.
var yamlLine = regexp.MustCompile(`^([^A-Za-z0-9]|[^\s#]*:(\s|$))`)

func isYAML(content []byte) bool {
	for line := range bytes.Lines(content) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return yamlLine.Match(line)
		}
	}
	return false
}

type parser struct {
	file    string
	digests map[string]string
}

func (p *parser) plain(content []byte) (*List, error) {
	l := &List{}
	seen := map[string]bool{}
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		words := strings.Fields(line)
		if i := slices.IndexFunc(words, func(w string) bool { return w[0] == '#' }); i >= 0 {
			words = words[:i]
		}
		if len(words) == 0 {
			continue
		}
		if len(words) > 1 {
			return nil, &Error{p.file, number, fmt.Sprintf("%q is not a reference", strings.Join(words, " ")), "write one reference per line, or, with options, a list in YAML: images: [{image: REFERENCE, …}]"}
		}
		e := Entry{Image: words[0], Line: number}
		if err := p.pin(&e); err != nil {
			return nil, err
		}
		if !seen[e.Image] {
			l.Entries = append(l.Entries, e)
		}
		seen[e.Image] = true
	}
	return l, nil
}

// pin checks the reference of an image as far as it need not be understood.
func (p *parser) pin(e *Entry) error {
	if strings.Contains(e.Image, "*") {
		return &Error{p.file, e.Line, fmt.Sprintf("%q is a pattern", e.Image), "write repository: PATTERN, in YAML, and perhaps tags:"}
	}
	if _, digest, ok := strings.Cut(e.Image, "@"); ok {
		if !isDigest(digest) {
			return &Error{p.file, e.Line, fmt.Sprintf("%q is not a digest", digest), "write sha256: and 64 hexadecimal digits behind @"}
		}
		e.Digest = digest
	}
	return nil
}

var digestForm = regexp.MustCompile(`^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)

func isDigest(s string) bool { return digestForm.MatchString(s) }

// yamlError is how the YAML parser says where something is wrong.
var yamlError = regexp.MustCompile(`^yaml: line (\d+): `)

func (p *parser) yaml(content []byte) (*List, error) {
	root, err := p.decode(content)
	if err != nil {
		return nil, err
	}
	const remedy = "a list has the keys defaults and images"
	if root == nil {
		return &List{}, nil
	}
	l := &List{}
	fields, err := p.fields(root, "the list", remedy)
	if err != nil {
		return nil, err
	}
	for _, f := range fields {
		switch f.name {
		case keyDefaults:
			if err := p.defaults(l, f.value, keyDefaults); err != nil {
				return nil, err
			}
		case keyImages:
			if l.Entries, err = p.entries(f.value); err != nil {
				return nil, err
			}
		default:
			return nil, &Error{p.file, f.line, fmt.Sprintf("unknown key %q", f.name), remedy}
		}
	}
	return l, nil
}

// ParseOptions reads a file that has nothing but options: a list of no images, with
// these as its defaults. The error is an *Error.
func ParseOptions(name string, content []byte) (*List, error) {
	l := &List{file: name}
	p := &parser{file: name}
	root, err := p.decode(content)
	if err != nil || root == nil {
		return l, err
	}
	return l, p.defaults(l, root, "the file")
}

// defaults reads the options of all entries, a mapping that errors call what.
func (p *parser) defaults(l *List, n *yaml.Node, what string) error {
	options, err := p.fields(n, what, "write names of flags and their values, such as endpoint: http://collector:4318")
	if err != nil {
		return err
	}
	l.Defaults, l.lines = Options{}, map[string]int{}
	for _, o := range options {
		if l.Defaults[o.name], err = p.values(o); err != nil {
			return err
		}
		l.lines[o.name] = o.line
	}
	return nil
}

// decode is decode with an error that says where.
func (p *parser) decode(content []byte) (*yaml.Node, error) {
	root, err := decode(content)
	if err == nil {
		return root, nil
	}
	e := &Error{p.file, 0, strings.TrimPrefix(err.Error(), "yaml: "), "check the file's YAML"}
	if m := yamlError.FindStringSubmatch(err.Error()); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
		e.Problem = strings.TrimPrefix(err.Error(), m[0])
	}
	return nil, e
}

// decode returns the only document, nil if there is none. The YAML parser panics
// where it finds itself in a state that should not be: that is an error like any
// other here.
func decode(content []byte) (root *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			root, err = nil, fmt.Errorf("yaml: %v", r)
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(content))
	var first, second yaml.Node
	if err := d.Decode(&first); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := d.Decode(&second); err == nil {
		return nil, fmt.Errorf("yaml: line %d: there is a second document", second.Line)
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return first.Content[0], nil
}

// field is a key of a mapping and its value, which is no alias.
type field struct {
	name  string
	value *yaml.Node
	line  int
}

// fields are those of a mapping. The remedy is for what is none.
func (p *parser) fields(n *yaml.Node, what, remedy string) ([]field, error) {
	if n.Kind != yaml.MappingNode {
		return nil, &Error{p.file, n.Line, fmt.Sprintf("%s is %s, not a mapping", what, kind(n)), remedy}
	}
	var fields []field
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := target(n.Content[i]), target(n.Content[i+1])
		switch before, twice := lines[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			return nil, &Error{p.file, key.Line, fmt.Sprintf("%s has a key that is %s", what, kind(key)), remedy}
		case twice:
			return nil, &Error{p.file, n.Content[i].Line, fmt.Sprintf("%q is there twice, before in line %d", key.Value, before), "leave one of them out"}
		}
		lines[key.Value] = n.Content[i].Line
		fields = append(fields, field{key.Value, value, n.Content[i].Line})
	}
	return fields, nil
}

// target is what an alias stands for.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func kind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "empty"
	}
	return fmt.Sprintf("%q", n.Value)
}

func isText(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!str" && n.Value != "" }

func isValue(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag != "!!null" }

// values are those of an option: a scalar as it is written, or several.
func (p *parser) values(f field) ([]string, error) {
	list := []*yaml.Node{f.value}
	if f.value.Kind == yaml.SequenceNode {
		list = f.value.Content
	}
	values := []string{}
	for _, n := range list {
		n = target(n)
		if !isValue(n) {
			return nil, &Error{p.file, f.line, fmt.Sprintf("a value of %s is %s", f.name, kind(n)), "write text, a number, true or false, or a list of these"}
		}
		values = append(values, n.Value)
	}
	return values, nil
}

func (p *parser) entries(n *yaml.Node) ([]Entry, error) {
	if n.Kind != yaml.SequenceNode {
		return nil, &Error{p.file, n.Line, fmt.Sprintf("images is %s, not a list", kind(n)), "write images: and below it one line per image, as in - registry.example.com/shop/cart:1.4"}
	}
	var entries []Entry
	seen := map[string]int{}
	for _, item := range n.Content {
		e, err := p.entry(item)
		if err != nil {
			return nil, err
		}
		key, what := e.Image, e.Image
		if e.Repository != "" {
			key, what = e.Repository+" "+e.Tags.key(), e.Repository
		}
		// With other options an image may go elsewhere, too.
		if len(e.Options) > 0 {
			key += fmt.Sprintf(" %q", e.Options)
		}
		if before, twice := seen[key]; twice {
			return nil, &Error{p.file, e.Line, fmt.Sprintf("%s is there twice, before in line %d", what, before), "leave one of them out"}
		}
		seen[key] = e.Line
		entries = append(entries, *e)
	}
	return entries, nil
}

func (p *parser) entry(item *yaml.Node) (*Entry, error) {
	e := &Entry{Line: item.Line}
	item = target(item)
	if isText(item) {
		e.Image = item.Value
		return e, p.pin(e)
	}
	const remedy = "write a reference, a mapping with image: REFERENCE, or one with repository: PATTERN"
	if item.Kind == yaml.ScalarNode {
		return nil, &Error{p.file, e.Line, fmt.Sprintf("an image is %s", kind(item)), remedy}
	}
	fields, err := p.fields(item, "an image", remedy)
	if err != nil {
		return nil, err
	}
	lines := map[string]int{}
	for _, f := range fields {
		lines[f.name] = f.line
		switch f.name {
		case keyImage, keyRepository:
			if !isText(f.value) {
				return nil, &Error{p.file, f.line, fmt.Sprintf("%s is %s", f.name, kind(f.value)), remedy}
			}
			if f.name == keyImage {
				e.Image = f.value.Value
			} else {
				e.Repository = f.value.Value
			}
		case keyTags:
			e.Tags, err = p.filter(f)
		case keyLayers:
			e.Layers, err = p.layers(f)
		default:
			if e.Options == nil {
				e.Options, e.lines = Options{}, map[string]int{}
			}
			e.lines[f.name] = f.line
			e.Options[f.name], err = p.values(f)
		}
		if err != nil {
			return nil, err
		}
	}
	problem := func(key, problem, remedy string) error { return &Error{p.file, lines[key], problem, remedy} }
	switch {
	case e.Image == "" && e.Repository == "":
		return nil, &Error{p.file, e.Line, "an image has neither image nor repository", remedy}
	case e.Image != "" && e.Repository != "":
		return nil, problem(keyRepository, "an image has both image and repository", "leave one of them out")
	case e.Repository != "":
		if lines[keyLayers] > 0 {
			return nil, problem(keyLayers, "a repository has layers", "leave them out, or write image:")
		}
		return e, p.repository(e.Repository, lines[keyRepository])
	case lines[keyTags] > 0:
		return nil, problem(keyTags, "tags are chosen of an image", "write repository: in the place of image:, without a tag")
	}
	if err := p.pin(e); err != nil {
		return nil, err
	}
	if lines[keyLayers] > 0 && e.Digest == "" {
		return nil, problem(keyLayers, "an image without a digest has layers", "leave them out, or write image: NAME:TAG@DIGEST")
	}
	return e, nil
}

// components are those of a repository's name (distribution-spec, "Pulling
// manifests"), or of a pattern of them.
var components = func() *regexp.Regexp {
	const component = `(\*\*?|(\*?[a-z0-9._-]+)+\*?)`
	return regexp.MustCompile(`^` + component + `(/` + component + `)*$`)
}()

func (p *parser) repository(repository string, line int) error {
	host, name := cut(repository)
	if strings.ContainsAny(name, "@:") {
		return &Error{p.file, line, fmt.Sprintf("repository %q has a tag or a digest", repository), "write image: in the place of repository:, or leave it out"}
	}
	if strings.Contains(host, "*") || !components.MatchString(name) {
		return &Error{p.file, line, fmt.Sprintf("%q is no repository and no pattern of them", repository), "write [HOST/]NAME in lower case; in NAME, * is any part of a component, ** any number of components"}
	}
	return nil
}

func (p *parser) filter(tags field) (Filter, error) {
	var filter Filter
	const remedy = `write tags: {semver: ">=1.2 <2", newest: 3, match: REGEXP, except: REGEXP}, or some of these`
	fields, err := p.fields(tags.value, keyTags, remedy)
	if err != nil {
		return filter, err
	}
	for _, f := range fields {
		if !isValue(f.value) {
			return filter, &Error{p.file, f.line, fmt.Sprintf("%s is %s", f.name, kind(f.value)), remedy}
		}
		value, remedy := f.value.Value, remedy
		switch f.name {
		case keySemver:
			remedy = `write bounds of versions, such as ">=1.2 <2", "~1.4" or "^1"; with pre-releases ">=1.2-0"`
			filter.Semver, err = constraints(value)
		case keyNewest:
			remedy = "write how many, from 1 on"
			filter.Newest, err = strconv.Atoi(value)
			if err == nil && filter.Newest < 1 {
				err = errors.New("it is not positive")
			}
			var number *strconv.NumError
			if errors.As(err, &number) {
				err = number.Err
			}
		case keyMatch:
			remedy = "write a regular expression as Go's package regexp has it"
			filter.Match, err = regexp.Compile(value)
		case keyExcept:
			remedy = "write a regular expression as Go's package regexp has it"
			filter.Except, err = regexp.Compile(value)
		default:
			return filter, &Error{p.file, f.line, fmt.Sprintf("unknown key %q of tags", f.name), remedy}
		}
		if err != nil {
			return filter, &Error{p.file, f.line, fmt.Sprintf("%s is %q: %v", f.name, value, err), remedy}
		}
	}
	return filter, nil
}

// constraints are those of versions.
func constraints(s string) (*semver.Constraints, error) {
	if strings.TrimSpace(s) == "" {
		return nil, errors.New("it is empty")
	}
	return semver.NewConstraint(s)
}

func (p *parser) layers(f field) ([]Layer, error) {
	const remedy = "leave it to imgwrap bulk --list: layers: sha256:…=123 sha256:…=456"
	if f.value.Kind != yaml.ScalarNode || f.value.Tag != "!!str" {
		return nil, &Error{p.file, f.line, fmt.Sprintf("layers is %s, not text", kind(f.value)), remedy}
	}
	layers := []Layer{}
	for word := range strings.FieldsSeq(f.value.Value) {
		digest, text, _ := strings.Cut(word, "=")
		size, err := strconv.ParseInt(text, 10, 64)
		if !isDigest(digest) || err != nil || size < 0 {
			return nil, &Error{p.file, f.line, fmt.Sprintf("%q is not a layer", word), remedy}
		}
		layers = append(layers, Layer{p.digest(digest), size})
	}
	return slices.Clip(layers), nil
}

// digest returns the one copy of a digest that is kept of many.
func (p *parser) digest(s string) string {
	same, ok := p.digests[s]
	if !ok {
		if p.digests == nil {
			p.digests = map[string]string{}
		}
		same = strings.Clone(s)
		p.digests[same] = same
	}
	return same
}
