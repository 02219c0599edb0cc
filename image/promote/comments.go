package promote

import (
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// comment matches what says what a value is for.
var comment = regexp.MustCompile(`(?:^|\s)#\s*imgwrap:([a-z]+)(?:\s+(\S+))?\s*$`)

// annotation is the role in the comment behind a key, and the name behind that.
func annotation(p place) (role, name string) {
	if p.key == nil || p.parent.Style&yaml.FlowStyle != 0 { // whose of the keys in the line?
		return "", ""
	}
	m := comment.FindStringSubmatch(p.tree.lineText(p.key))
	if m == nil {
		return "", ""
	}
	return m[1], m[2]
}

func ignored(p place) bool {
	role, _ := annotation(p)
	return role == "ignore"
}

// A group is what the values of one image have in common: the mapping that they
// are in, or a name.
type group struct {
	mapping *yaml.Node
	name    string
}

// comments finds the images whose parts are named by comments.
func (f *finder) comments(p place) {
	if !strings.Contains(string(p.tree.text), "imgwrap:") {
		return
	}
	uses := map[group]*Use{}
	var order []*Use
	f.commented(p, func(v place, role, name string) {
		g := group{v.parent, name}
		if name != "" && !strings.Contains(name, "/") {
			g.mapping = nil
		}
		u := uses[g]
		if u == nil {
			u = &Use{}
			uses[g] = u
			order = append(order, u)
		}
		if strings.Contains(name, "/") {
			u.parts.fixed = name
		}
		if !u.take(v, role) && v.tree.err == nil {
			v.tree.err = v.tree.problem(v.key, fmt.Sprintf("this value cannot be an %s", "imgwrap:"+role),
				"the roles are image, registry, repository, tag, digest, command and ignore")
		}
	})
	f.within(Commented, f.object, func() {
		for _, u := range order {
			f.add(u)
		}
	})
	for _, u := range order {
		for _, at := range u.parts.all() {
			f.annotated[at.node] = true
		}
	}
}

// commented calls found for the values with comments that are written below p.
func (f *finder) commented(p place, found func(v place, role, name string)) {
	for _, item := range p.items() {
		if !item.shared {
			f.commented(item, found)
		}
	}
	for _, v := range p.fields() {
		if v.shared || v.parent != p.node {
			continue
		}
		if role, name := annotation(v); role != "" && role != "ignore" {
			found(v, role, name)
		}
		f.commented(v, found)
	}
}

// take puts a value where its role says.
func (u *Use) take(v place, role string) bool {
	switch role {
	case "command":
		u.command = v
		return isCommand(v)
	case "image":
		if v.isMapping() {
			var ok bool
			u.parts, ok = inMapping(v, place{}, imageKeys)
			return ok
		}
		u.parts.whole = v
	case "registry":
		u.parts.registry = v
	case "repository":
		u.parts.name = v
	case "tag":
		u.parts.tag = v
	case "digest":
		u.parts.digest = v
	default:
		return false
	}
	return v.isScalar()
}
