package promote

import (
	"fmt"
	"regexp"
	"strings"
)

// A Field leads to a field in Kubernetes objects that names an image, as a
// string or as a mapping with repository, tag and digest. Its zero value leads
// nowhere.
type Field struct {
	kind  string // "" for every kind
	steps []string
}

var fieldStep = regexp.MustCompile(`^(?:\.?([A-Za-z0-9_/$*-]+)|\[(\*|[0-9]+)\]|\["([^"]+)"\])`)

// ParseField parses [KIND:]PATH. A path is keys behind dots; [*] stands for every
// item of a list, * for every key of a mapping, ["a.b"] for a key with dots.
func ParseField(s string) (Field, error) {
	var f Field
	rest := s
	if kind, steps, ok := strings.Cut(s, ":"); ok && !strings.ContainsAny(kind, `.["`) {
		f.kind, rest = kind, steps
	}
	for first := true; rest != ""; first = false {
		m := fieldStep.FindStringSubmatch(rest)
		if m == nil || first == strings.HasPrefix(rest, ".") && m[1] != "" {
			return Field{}, fmt.Errorf("%q is no path of fields, such as spec.template.images[*].name", s)
		}
		switch {
		case m[2] != "":
			f.steps = append(f.steps, "["+m[2])
		default:
			f.steps = append(f.steps, m[1]+m[3])
		}
		rest = rest[len(m[0]):]
	}
	if len(f.steps) == 0 {
		return Field{}, fmt.Errorf("%q is no path of fields, such as spec.template.images[*].name", s)
	}
	return f, nil
}

// each calls found for every place that the steps lead to, with the mapping that
// it is in.
func (p place) each(steps []string, in place, found func(p, in place)) {
	if len(steps) == 0 {
		if p.exists() {
			found(p, in)
		}
		return
	}
	step, rest := steps[0], steps[1:]
	switch {
	case step == "[*":
		for _, item := range p.items() {
			item.each(rest, item, found)
		}
	case step[0] == '[':
		for i, item := range p.items() {
			if fmt.Sprint(i) == step[1:] {
				item.each(rest, item, found)
			}
		}
	case step == "*":
		for _, v := range p.fields() {
			v.each(rest, p, found)
		}
	default:
		p.get(step).each(rest, p, found)
	}
}
