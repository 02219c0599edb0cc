// Package pep440 reads Python versions and version specifiers as PEP 440
// defines them, and decides which versions a specifier admits.
//
// The PEP leaves room in places (what the exclusive operators exclude, how a
// local version compares). There this package does what Python's packaging
// library does, since that is what pip and importlib-based checks run: a golden
// test holds it to that library's answers. See
// https://packaging.python.org/en/latest/specifications/version-specifiers/.
package pep440

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Version is a version of a distribution, normalised. Versions that Compare
// equal may still have different spellings: "1.0" and "1.0.0".
type Version struct {
	epoch     number
	release   []number
	phase     string // "a", "b", "rc"; "" when not a pre-release
	pre       number // the number that goes with phase
	post, dev number // "" when absent
	local     []string
}

// number is a decimal number without leading zeros. PEP 440 sets no limit on
// numbers, and dates with a time of day in them do exceed 64 bits.
type number string

const zero number = "0"

// pattern is the regular expression of PEP 440's appendix B, for lower case.
// The groups are epoch, release, phase, pre, the two spellings of post (their
// keyword and numbers), dev (keyword and number), local.
var pattern = regexp.MustCompile(`^v?(?:([0-9]+)!)?([0-9]+(?:\.[0-9]+)*)` +
	`(?:[-_.]?(alpha|a|beta|b|preview|pre|c|rc)[-_.]?([0-9]*))?` +
	`(?:-([0-9]+)|[-_.]?(post|rev|r)[-_.]?([0-9]*))?` +
	`(?:[-_.]?(dev)[-_.]?([0-9]*))?` +
	`(?:\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?$`)

// Parse reads a version in any spelling PEP 440 accepts: "v1.0", "1.0-beta.2",
// "1.0-1" for a post-release, in either case, with white space around it.
func Parse(s string) (Version, error) {
	trimmed := strings.TrimSpace(s)
	// Lower case must not turn a letter outside ASCII into one inside it.
	ascii := !strings.ContainsFunc(trimmed, func(r rune) bool { return r > unicode.MaxASCII })
	m := pattern.FindStringSubmatch(strings.ToLower(trimmed))
	if m == nil || !ascii {
		return Version{}, fmt.Errorf("parsing version %q: not a PEP 440 version", s)
	}
	v := Version{epoch: newNumber(m[1])}
	for part := range strings.SplitSeq(m[2], ".") {
		v.release = append(v.release, newNumber(part))
	}
	switch m[3] {
	case "":
	case "a", "alpha":
		v.phase = "a"
	case "b", "beta":
		v.phase = "b"
	default:
		v.phase = "rc"
	}
	if v.phase != "" {
		v.pre = newNumber(m[4])
	}
	if m[5] != "" || m[6] != "" {
		v.post = newNumber(m[5] + m[7])
	}
	if m[8] != "" {
		v.dev = newNumber(m[9])
	}
	if m[10] != "" {
		v.local = strings.FieldsFunc(m[10], func(r rune) bool { return strings.ContainsRune("-_.", r) })
		for i, part := range v.local {
			if isNumber(part) {
				v.local[i] = string(newNumber(part))
			}
		}
	}
	return v, nil
}

// String returns the normalised spelling; parsing it gives v again.
func (v Version) String() string {
	var b strings.Builder
	if v.epoch != zero {
		b.WriteString(string(v.epoch) + "!")
	}
	for i, n := range v.release {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(string(n))
	}
	b.WriteString(v.phase + string(v.pre))
	if v.post != "" {
		b.WriteString(".post" + string(v.post))
	}
	if v.dev != "" {
		b.WriteString(".dev" + string(v.dev))
	}
	if v.local != nil {
		b.WriteString("+" + strings.Join(v.local, "."))
	}
	return b.String()
}

// IsPrerelease reports whether v is a pre-release or a development release.
func (v Version) IsPrerelease() bool {
	return v.phase != "" || v.dev != ""
}

// Compare orders versions: it is negative if v comes before w, positive if it
// comes after, zero if they are the same version.
func (v Version) Compare(w Version) int {
	return cmp.Or(
		v.epoch.compare(w.epoch),
		compareReleases(v.release, w.release),
		cmp.Compare(v.rank(), w.rank()),
		v.pre.compare(w.pre),
		v.post.compare(w.post),
		compareDevs(v.dev, w.dev),
		slices.CompareFunc(v.local, w.local, compareLocals),
	)
}

// rank orders the stages of one release: a development release comes before its
// first alpha, the final release after its last candidate.
func (v Version) rank() string {
	switch {
	case v.phase != "":
		return v.phase
	case v.post == "" && v.dev != "":
		return ""
	default:
		return "z"
	}
}

// public returns v without its local part.
func (v Version) public() Version {
	v.local = nil
	return v
}

func newNumber(digits string) number {
	if n := strings.TrimLeft(digits, "0"); n != "" {
		return number(n)
	}
	return zero
}

// compare orders numbers; an absent one comes before every other.
func (n number) compare(m number) int {
	return cmp.Or(cmp.Compare(len(n), len(m)), strings.Compare(string(n), string(m)))
}

func compareReleases(a, b []number) int {
	for i := range max(len(a), len(b)) {
		if c := at(a, i).compare(at(b, i)); c != 0 {
			return c
		}
	}
	return 0
}

// at returns the i-th number of a release, which goes on with zeros for ever.
func at(release []number, i int) number {
	if i < len(release) {
		return release[i]
	}
	return zero
}

// compareDevs orders development releases; the finished release comes last.
func compareDevs(a, b number) int {
	if a == "" || b == "" {
		return cmp.Compare(len(b), len(a))
	}
	return a.compare(b)
}

// compareLocals orders parts of local versions; numbers come after words.
func compareLocals(a, b string) int {
	switch x, y := isNumber(a), isNumber(b); {
	case x && y:
		return number(a).compare(number(b))
	case x:
		return 1
	case y:
		return -1
	default:
		return strings.Compare(a, b)
	}
}

func isNumber(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}
