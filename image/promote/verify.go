package promote

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// verify compares a tree with what it became: nothing may differ but the edited
// nodes, also where aliases lead to them. known are the places of all uses.
func (b *batch) verify(t *tree, text []byte, known map[spot]bool) error {
	docs, err := decode(text)
	if err != nil || len(docs) != len(t.docs) {
		return t.different()
	}
	for i, d := range docs {
		if other := b.differs(t.docs[i], d.Content[0]); other != nil {
			return t.problem(other, "it would change, too, if the image was set", "set the image by hand")
		}
	}
	if !t.aliases {
		return nil
	}
	t.steps = 0
	for i := range t.docs {
		if err := b.reached(t.root(i), known); err != nil {
			return err
		}
	}
	return t.err
}

// different is the error if a text is not what it should be and no node tells why.
func (t *tree) different() error {
	return &Error{t.file, 0, "it would not be the same YAML any more if it was edited", "set the images by hand"}
}

// differs returns the first node that is not what it was or should become.
func (b *batch) differs(was, is *yaml.Node) *yaml.Node {
	if was.Kind != is.Kind || was.Anchor != is.Anchor {
		return was
	}
	e, edited := b.edits[was]
	content := is.Content
	switch {
	case was.Kind == yaml.ScalarNode || was.Kind == yaml.AliasNode:
		value, tag := was.Value, was.Tag
		if edited {
			value, tag = e.value, "!!str"
			if e.launcher != "" {
				value = e.launcher + strings.Repeat(" ", min(1, len(was.Value))) + was.Value
			}
		}
		if is.Value != value || is.Tag != tag || !edited && is.Style != was.Style {
			return was
		}
	case edited && was.Kind == yaml.SequenceNode:
		if len(content) == 0 || !isNew(content[0], e.launcher) {
			return was
		}
		content = content[1:]
	case edited:
		for i, n := range was.Content {
			if n == e.behind.key {
				rest, ok := e.takeAdded(content, i+2)
				if !ok {
					return was
				}
				content = rest
			}
		}
	}
	if len(content) != len(was.Content) || was.Kind != yaml.ScalarNode && (is.Style != was.Style || is.Tag != was.Tag) {
		return was
	}
	for i, n := range was.Content {
		if other := b.differs(n, content[i]); other != nil {
			return other
		}
	}
	return nil
}

func isNew(n *yaml.Node, value string) bool {
	return n.Kind == yaml.ScalarNode && n.Value == value && n.Tag == "!!str" && n.Anchor == ""
}

// takeAdded takes the keys that were added at i out of a mapping's content.
func (e edit) takeAdded(content []*yaml.Node, i int) ([]*yaml.Node, bool) {
	end := i + 2*len(e.added)
	if len(content) < end {
		return nil, false
	}
	for j, a := range e.added {
		if !isNew(content[i+2*j], a.key) || !isNew(content[i+2*j+1], a.value) {
			return nil, false
		}
	}
	return append(append([]*yaml.Node{}, content[:i]...), content[end:]...), true
}

// reached looks for edited nodes that aliases lead to from elsewhere than the
// uses that are to change.
func (b *batch) reached(p place, known map[spot]bool) error {
	if _, edited := b.edits[p.node]; edited && !b.spots[p.spot()] && (p.shared || known[p.spot()]) {
		return p.tree.problem(p.node, "it is also "+p.path+", through an alias", "write the value where it is used, or change both")
	}
	for _, c := range append(p.fields(), p.items()...) {
		if err := b.reached(c, known); err != nil {
			return err
		}
	}
	return nil
}
