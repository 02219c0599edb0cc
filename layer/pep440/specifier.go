package pep440

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Specifiers is a set of version specifiers such as ">=1.0,<2", all of which a
// version must satisfy. The zero value admits every version.
type Specifiers struct {
	all []specifier
}

type specifier struct {
	op       string
	text     string  // the version as written
	version  Version // unset for ===
	wildcard bool    // text ends in .*
}

// operators, so that none comes after a prefix of itself.
var operators = []string{"===", "~=", "==", "!=", "<=", ">=", "<", ">"}

// ParseSpecifiers reads comma-separated specifiers. The empty string admits
// every version. The error names the specifier that is not valid.
func ParseSpecifiers(s string) (Specifiers, error) {
	var all []specifier
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		one, err := parseSpecifier(part)
		if err != nil {
			return Specifiers{}, fmt.Errorf("parsing specifier %q: %w", part, err)
		}
		all = append(all, one)
	}
	return Specifiers{all}, nil
}

func parseSpecifier(s string) (specifier, error) {
	i := slices.IndexFunc(operators, func(op string) bool { return strings.HasPrefix(s, op) })
	if i < 0 {
		return specifier{}, errors.New("no operator such as == or >= in front of the version")
	}
	sp := specifier{op: operators[i]}
	sp.text = strings.TrimSpace(s[len(sp.op):])
	if sp.op == "===" {
		if strings.ContainsAny(sp.text, " \t\r\n;)") {
			return specifier{}, errors.New("=== takes one word")
		}
		return sp, nil
	}

	equality := sp.op == "==" || sp.op == "!="
	text, wildcard := strings.CutSuffix(sp.text, ".*")
	v, err := Parse(text)
	switch {
	case err != nil:
		return specifier{}, err
	case wildcard && !equality:
		return specifier{}, errors.New(".* goes with == and != only")
	case wildcard && (v.IsPrerelease() || v.post != "" || v.local != nil || text != strings.TrimSpace(text)):
		return specifier{}, errors.New(".* goes after a plain release only")
	case v.local != nil && !equality:
		return specifier{}, errors.New("a local version goes with == and != only")
	case sp.op == "~=" && len(v.release) < 2:
		return specifier{}, errors.New("~= takes a release of two numbers or more")
	}
	sp.version, sp.wildcard = v, wildcard
	return sp, nil
}

// String returns the specifiers in the order written, without white space.
func (s Specifiers) String() string {
	parts := make([]string, len(s.all))
	for i, sp := range s.all {
		parts[i] = sp.op + sp.text
	}
	return strings.Join(parts, ",")
}

// Contains reports whether v satisfies every specifier. Pre-releases are
// admitted like any other version, as by packaging's
// SpecifierSet.contains(v, prereleases=True): the question is whether a version
// that is there will do, not which one to choose. The operator === compares
// with the normalised spelling of v.
func (s Specifiers) Contains(v Version) bool {
	return !slices.ContainsFunc(s.all, func(sp specifier) bool { return !sp.admits(v) })
}

func (sp specifier) admits(v Version) bool {
	switch sp.op {
	case "===":
		return v.String() == strings.ToLower(sp.text)
	case "==":
		return sp.equal(v)
	case "!=":
		return !sp.equal(v)
	}

	// The rest knows no local versions: 1.7+cu118 is as good as 1.7.
	v = v.public()
	order := v.Compare(sp.version)
	switch sp.op {
	case "~=":
		n := len(sp.version.release) - 1
		return order >= 0 && hasPrefix(v, sp.version.epoch, sp.version.release[:n])
	case "<=":
		return order <= 0
	case ">=":
		return order >= 0
	case "<":
		// Below 2.0 there is no 2.0rc1, unless the bound is one itself.
		bound := sp.version
		if !bound.IsPrerelease() {
			bound.dev = zero
		}
		return v.Compare(bound) < 0
	default: // ">"
		// Above 1.7 there is no 1.7.post1, unless the bound is one itself.
		return order > 0 && (sp.version.post != "" || sp.version.dev != "" || !sameStage(v, sp.version))
	}
}

// equal is the operator ==, whose local part counts only if there is one.
func (sp specifier) equal(v Version) bool {
	if sp.wildcard {
		return hasPrefix(v, sp.version.epoch, sp.version.release)
	}
	if sp.version.local == nil {
		v = v.public()
	}
	return v.Compare(sp.version) == 0
}

// hasPrefix reports whether v's release begins with the given numbers.
func hasPrefix(v Version, epoch number, release []number) bool {
	if v.epoch != epoch {
		return false
	}
	for i, n := range release {
		if at(v.release, i) != n {
			return false
		}
	}
	return true
}

// sameStage reports whether two versions differ at most in what comes after the
// release and its pre-release number.
func sameStage(v, w Version) bool {
	return v.epoch == w.epoch && compareReleases(v.release, w.release) == 0 && v.phase == w.phase && v.pre == w.pre
}
