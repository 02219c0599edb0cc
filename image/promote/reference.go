package promote

import (
	"fmt"
	"regexp"
	"strings"
)

// A Reference names an image the way workloads do. The zero value names none.
type Reference struct {
	Name   string // repository with its registry, if one is given
	Tag    string // "" if there is none
	Digest string // algorithm and hex digits, "" if there is none
}

// The grammar of the distribution-spec, with the registry in front that
// container engines take.
var (
	grammar = regexp.MustCompile(`^((?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?` +
		`[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)` +
		`(?::([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@([a-z0-9]+:[0-9a-f]{32,}))?$`)
	hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// ParseReference parses [REGISTRY/]REPOSITORY[:TAG][@DIGEST].
func ParseReference(s string) (Reference, error) {
	m := grammar.FindStringSubmatch(s)
	if m == nil {
		return Reference{}, fmt.Errorf("%q names no image", s)
	}
	return Reference{m[1], m[2], m[3]}, nil
}

func (r Reference) String() string {
	s := r.Name
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// split cuts a name into its registry, "" if none is given, and the rest.
func split(name string) (registry, repository string) {
	first, rest, ok := strings.Cut(name, "/")
	if ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return first, rest
	}
	return "", name
}

// canonical is a name with the registry and the library that engines add.
func canonical(name string) string {
	registry, repository := split(name)
	switch registry {
	case "", "docker.io", "index.docker.io":
		if !strings.Contains(repository, "/") {
			repository = "library/" + repository
		}
		registry = "docker.io"
	}
	return registry + "/" + repository
}

// Canonical is the reference with all that engines add to it: two that stand for
// the same have the same.
func (r Reference) Canonical() string {
	r.Name = canonical(r.Name)
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r.String()
}

// same says whether two names stand for one repository.
func same(a, b string) bool { return a == b || canonical(a) == canonical(b) }
