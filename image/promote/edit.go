package promote

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"go.yaml.in/yaml/v3"
)

// A Change says what is to become of a use.
type Change struct {
	Use *Use
	// Image is what it is to name, with its digest. The zero value leaves it.
	Image Reference
	// Launcher is the program to put in front of the use's Command, if it has
	// one that does not start it itself. Empty leaves the command.
	Launcher string
}

// Edit returns the file with changes made to its uses. If they are what the file
// says already, that is the content as it was. Where a digest has a value of its
// own, it goes there, else behind the tag; in kustomizations it gets one. The
// error joins an *Error for every change that cannot be made; nothing is edited
// then.
func (f *File) Edit(changes []Change) ([]byte, error) {
	b := batches{}
	var errs []error
	for _, c := range changes {
		if !slices.Contains(f.Uses, c.Use) {
			return nil, fmt.Errorf("%s: a use of another file is to change", f.Name)
		}
		edits, err := c.edits()
		if err == nil {
			err = b.add(edits)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	known := map[spot]bool{}
	for _, u := range f.Uses {
		for _, p := range append(u.parts.all(), u.parts.mapping, u.command) {
			if p.exists() {
				known[p.spot()] = true
			}
		}
	}
	text := f.trees[len(f.trees)-1].text // unless it changes, which comes last
	for _, t := range f.trees {
		batch := b[t]
		if batch == nil {
			continue
		}
		splices, err := batch.splices()
		if err != nil {
			return nil, err
		}
		ok := false
		if text, ok = apply(t.text, splices); !ok {
			return nil, t.different()
		}
		if err := batch.verify(t, text, known); err != nil {
			return nil, err
		}
		if t.outer.exists() {
			if err := b.add([]edit{{at: t.outer, value: string(text), splices: t.outwardsAll(splices)}}); err != nil {
				return nil, err
			}
		}
	}
	return text, nil
}

// Diff is what changed in a file, in unified format with the names of git; empty
// if nothing did.
func Diff(name string, before, after []byte) []byte {
	return diff.Diff("a/"+name, before, "b/"+name, after)
}

var safe = regexp.MustCompile(`^[A-Za-z0-9_/][A-Za-z0-9_./-]*$`)

// edits are those that a change asks for.
func (c Change) edits() ([]edit, error) {
	u := c.Use
	var edits []edit
	if c.Image != (Reference{}) {
		r, err := ParseReference(c.Image.String())
		at := u.parts.first()
		switch {
		case err != nil || r != c.Image || r.Digest == "":
			return nil, fmt.Errorf("%s:%d: %q is no image with its digest", u.File, u.Line, c.Image)
		case !at.exists():
			return nil, fmt.Errorf("%s:%d: there is no image to set", u.File, u.Line)
		case u.Image.Name == "":
			return nil, at.tree.problem(at.node, u.Problem, "set the image where its parts are")
		}
		if edits, err = u.parts.set(u.Image, c.Image); err != nil {
			return nil, err
		}
	}
	if c.Launcher == "" || u.Command == nil || u.Command.Starts(c.Launcher) {
		return edits, nil
	}
	p := u.command
	name := path.Base(c.Launcher)
	switch {
	case !safe.MatchString(c.Launcher):
		return nil, fmt.Errorf("%s:%d: %q is no path of a launcher", u.File, u.Command.Line, c.Launcher)
	case u.Command.Field == "script":
		return nil, p.tree.problem(p.key, "the script takes the place of the image's entry point", "start its program with "+name+" in front")
	case p.isScalar() && u.Kind != Compose:
		return nil, p.tree.problem(p.key, u.Command.Field+" is a string, of which it is not known how it is run", "write it as a list")
	}
	return append(edits, edit{at: p, launcher: c.Launcher}), nil
}

// An edit is what happens to one node.
type edit struct {
	at       place
	value    string // that a scalar gets
	launcher string // in front of a command's list or string
	behind   place  // the key of a mapping that others are added behind
	added    []pair
	splices  []splice // set if they are known already
}

type pair struct{ key, value string }

// A spot is a place by its path.
type spot struct {
	tree *tree
	doc  int
	path string
}

func (p place) spot() spot { return spot{p.tree, p.doc, p.path} }

// A batch is what happens to a tree.
type batch struct {
	edits map[*yaml.Node]edit
	spots map[spot]bool // that edits were asked for
}

type batches map[*tree]*batch

func (b batches) add(edits []edit) error {
	for _, e := range edits {
		t := e.at.tree
		if t.fixed != nil {
			return t.fixed
		}
		if b[t] == nil {
			b[t] = &batch{map[*yaml.Node]edit{}, map[spot]bool{}}
		}
		was, ok := b[t].edits[e.at.node]
		if ok && (was.value != e.value || was.launcher != e.launcher || !slices.Equal(was.added, e.added)) {
			return t.problem(e.at.node, "two uses share it through an alias, and are to become different", "write the value where it is used")
		}
		b[t].edits[e.at.node] = e
		b[t].spots[e.at.spot()] = true
	}
	return nil
}

// A splice puts a text in the place of another.
type splice struct {
	start, end int
	text       string
}

func (b *batch) splices() ([]splice, error) {
	var all []splice
	var errs []error
	for _, e := range b.edits {
		splices, err := e.spliced()
		all = append(all, splices...)
		errs = append(errs, err)
	}
	slices.SortFunc(all, func(a, b splice) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end))
	})
	return all, errors.Join(errs...)
}

// apply makes splices in a text. It is not ok if they overlap.
func apply(text []byte, splices []splice) (out []byte, ok bool) {
	at := 0
	for _, s := range splices {
		if s.start < at {
			return nil, false
		}
		out = append(append(out, text[at:s.start]...), s.text...)
		at = s.end
	}
	return append(out, text[at:]...), true
}

// outwardsAll are the splices in the text around a literal block.
func (t *tree) outwardsAll(splices []splice) []splice {
	outer := make([]splice, len(splices))
	for i, s := range splices {
		start := t.outwards(s.start)
		newline := t.outer.tree.newline(start) + t.indent
		outer[i] = splice{start, start + s.end - s.start, strings.ReplaceAll(s.text, "\n", newline)}
	}
	return outer
}

func (e edit) spliced() ([]splice, error) {
	switch {
	case e.splices != nil:
		return e.splices, nil
	case e.added != nil:
		return e.addition()
	case e.launcher != "" && e.at.isScalar():
		return e.inFront()
	case e.launcher != "":
		return e.firstItem()
	}
	return e.replacement()
}

// isString says whether a plain scalar is read as a string.
func isString(value string) bool {
	n := yaml.Node{Kind: yaml.ScalarNode, Value: value}
	return n.ShortTag() == "!!str"
}

// quoted writes a value between quotes, or without if quote is 0 and it is read
// as a string then.
func quoted(value string, quote byte) string {
	switch {
	case quote != 0:
		return string(quote) + value + string(quote)
	case !isString(value):
		return `"` + value + `"`
	}
	return value
}

func (e edit) replacement() ([]splice, error) {
	p := e.at
	if !p.isScalar() || p.node.Style&yaml.TaggedStyle != 0 && p.node.Tag != "!!str" {
		return nil, p.tree.problem(p.node, "it is no string", "write the reference there")
	}
	start, end, quote, err := p.span()
	if err != nil {
		return nil, err
	}
	switch {
	case p.node.Value == "" && quote == 0:
		return e.fill()
	case quote == 0:
		return []splice{{start, end, quoted(e.value, 0)}}, nil
	}
	return []splice{{start, end, e.value}}, nil
}

// fill puts a value behind a key that has none.
func (e edit) fill() ([]splice, error) {
	p := e.at
	if p.key == nil || p.node.Anchor != "" || p.node.Style&yaml.TaggedStyle != 0 {
		return nil, p.lost()
	}
	_, end, quote, err := (place{tree: p.tree, node: p.key}).span()
	if err != nil {
		return nil, err
	}
	if quote != 0 {
		end++
	}
	if end >= len(p.tree.text) || p.tree.text[end] != ':' {
		return nil, p.lost()
	}
	return []splice{{end + 1, end + 1, " " + quoted(e.value, 0)}}, nil
}

// inFront puts the launcher in front of a command in a string.
func (e edit) inFront() ([]splice, error) {
	start, _, err := e.at.content()
	if err != nil {
		return nil, err
	}
	text := e.launcher
	if e.at.node.Value != "" {
		text += " "
	}
	return []splice{{start, start, text}}, nil
}

var itemStart = regexp.MustCompile(`^ *-[ \t]+$`)

// firstItem puts the launcher in front of a command in a list.
func (e edit) firstItem() ([]splice, error) {
	p, t := e.at, e.at.tree
	lost := t.problem(p.node, "where its first item starts cannot be located", "write a list of one line, or one with its items on lines of their own")
	if len(p.node.Content) == 0 {
		at, ok := t.offset(p.node)
		if at = t.behindProperties(at); !ok || at >= len(t.text) || t.text[at] != '[' {
			return nil, lost
		}
		return []splice{{at + 1, at + 1, e.launcher}}, nil
	}
	first := place{tree: t, node: p.node.Content[0]}
	at, ok := t.offset(first.node)
	if !ok {
		return nil, lost
	}
	var quote byte
	if first.isScalar() && first.node.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		var err error
		if _, quote, err = first.content(); err != nil {
			return nil, err
		}
	}
	text := quoted(e.launcher, quote)
	start := t.lineStart(at)
	before := string(t.text[start:at])
	switch {
	case p.node.Style&yaml.FlowStyle == 0 && itemStart.MatchString(before):
		return []splice{{start, start, before + text + t.newline(at)}}, nil
	case p.node.Style&yaml.FlowStyle == 0:
		return nil, lost
	case strings.Trim(before, " \t") == "" && start > t.lines[0]:
		return []splice{{at, at, text + "," + t.newline(at) + before}}, nil
	}
	return []splice{{at, at, text + ", "}}, nil
}

// addition adds keys to a mapping.
func (e edit) addition() ([]splice, error) {
	p, t := e.behind, e.at.tree
	if p.parent != e.at.node || p.shared {
		return nil, t.problem(e.at.node, fmt.Sprintf("%s cannot be added: a part of it is merged from elsewhere", e.added[0].key), "write it as a mapping of its own")
	}
	_, end, quote, err := p.span()
	if err != nil {
		return nil, err
	}
	if quote != 0 {
		end++
	}
	_, keyQuote, err := (place{tree: t, node: p.key}).content()
	if err != nil {
		return nil, err
	}
	text := ""
	flow := e.at.node.Style&yaml.FlowStyle != 0
	for _, a := range e.added {
		if flow {
			text += ", "
		} else {
			text += t.newline(end) + strings.Repeat(" ", p.key.Column-1)
		}
		text += quoted(a.key, keyQuote) + ": " + quoted(a.value, quote)
	}
	if !flow {
		end = t.lineEnd(end)
	}
	return []splice{{end, end, text}}, nil
}
