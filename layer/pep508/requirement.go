// Package pep508 reads the requirements of Python distributions, as found in
// the Requires-Dist lines of their metadata, and evaluates their environment
// markers. It follows PEP 508 and, where that leaves room, Python's packaging
// library. See
// https://packaging.python.org/en/latest/specifications/dependency-specifiers/.
package pep508

import (
	"errors"
	"fmt"
	"strings"

	"github.com/imgwrap/imgwrap/layer/pep440"
)

// Requirement is what one distribution asks of another.
type Requirement struct {
	Name       string   // as written; Normalize it to compare
	Extras     []string // as written
	Specifiers pep440.Specifiers
	URL        string // of a direct reference ("name @ url"), which has no Specifiers
	Marker     Marker
}

// Normalize returns the form of a distribution's or an extra's name in which
// names are compared (PEP 503, PEP 685): lower case, with runs of "-", "_" and
// "." as one "-".
func Normalize(name string) string {
	var b strings.Builder
	dash := false
	for _, r := range strings.ToLower(name) {
		if r == '-' || r == '_' || r == '.' {
			dash = true
			continue
		}
		if dash {
			b.WriteByte('-')
			dash = false
		}
		b.WriteRune(r)
	}
	if dash {
		b.WriteByte('-')
	}
	return b.String()
}

// Parse reads a requirement such as
//
//	requests[socks] (>=2.8.1,<3) ; python_version < "3.9"
//
// with or without the parentheses, which older metadata has.
func Parse(s string) (Requirement, error) {
	r, err := parse(s)
	if err != nil {
		return Requirement{}, fmt.Errorf("parsing requirement %q: %w", s, err)
	}
	return r, nil
}

func parse(s string) (Requirement, error) {
	var r Requirement
	sc := &scanner{rest: s}
	sc.space()
	if r.Name = sc.name(); r.Name == "" {
		return r, sc.errorf("expected a name")
	}
	sc.space()
	if sc.take("[") {
		extras, err := parseExtras(sc)
		if err != nil {
			return r, err
		}
		r.Extras = extras
		sc.space()
	}

	if sc.take("@") {
		sc.space()
		if r.URL = sc.until(" \t"); r.URL == "" {
			return r, errors.New("expected a URL after @")
		}
	} else {
		specifiers, err := parseSpecifiers(sc)
		if err != nil {
			return r, err
		}
		r.Specifiers = specifiers
	}

	sc.space()
	if sc.take(";") {
		marker, err := parseMarker(sc)
		if err != nil {
			return r, err
		}
		r.Marker = marker
	}
	if sc.rest != "" {
		return r, sc.errorf("expected the end")
	}
	return r, nil
}

// parseExtras reads what follows the opening bracket.
func parseExtras(sc *scanner) ([]string, error) {
	sc.space()
	if sc.take("]") {
		return nil, nil
	}
	var extras []string
	for {
		sc.space()
		name := sc.name()
		if name == "" {
			return nil, sc.errorf("expected the name of an extra")
		}
		extras = append(extras, name)
		sc.space()
		switch {
		case sc.take(","):
		case sc.take("]"):
			return extras, nil
		default:
			return nil, sc.errorf("expected ] after the extras")
		}
	}
}

func parseSpecifiers(sc *scanner) (pep440.Specifiers, error) {
	parenthesised := sc.take("(")
	text := sc.until(";)")
	if parenthesised && !sc.take(")") {
		return pep440.Specifiers{}, errors.New("expected ) after the specifiers")
	}
	// A comma may end the list but not stand alone.
	parts := strings.Split(text, ",")
	for _, part := range parts[:len(parts)-1] {
		if strings.TrimSpace(part) == "" {
			return pep440.Specifiers{}, errors.New("expected a specifier before the comma")
		}
	}
	return pep440.ParseSpecifiers(text)
}

// Applies reports whether the requirement counts in an environment: always if
// it has no marker. With extras, it counts if it does for one of them; without,
// the marker variable "extra" is empty.
func (r Requirement) Applies(env Environment, extras ...string) bool {
	if len(extras) == 0 {
		return r.Marker.Evaluate(env, "")
	}
	for _, extra := range extras {
		if r.Marker.Evaluate(env, extra) {
			return true
		}
	}
	return false
}
