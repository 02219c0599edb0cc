package pep508

import (
	"fmt"
	"strings"
)

// scanner takes tokens off the front of a requirement.
type scanner struct {
	rest string
}

func (sc *scanner) errorf(format string, args ...any) error {
	at := "at the end"
	if sc.rest != "" {
		at = fmt.Sprintf("at %q", sc.rest)
	}
	return fmt.Errorf(format+" "+at, args...)
}

func (sc *scanner) space() {
	sc.rest = strings.TrimLeft(sc.rest, " \t")
}

func (sc *scanner) take(token string) bool {
	rest, ok := strings.CutPrefix(sc.rest, token)
	sc.rest = rest
	return ok
}

// word takes the letters, digits and extra characters at the front.
func (sc *scanner) word(extra string) string {
	n := strings.IndexFunc(sc.rest, func(r rune) bool {
		return !isAlphanumeric(r) && !strings.ContainsRune(extra, r)
	})
	if n < 0 {
		n = len(sc.rest)
	}
	word := sc.rest[:n]
	sc.rest = sc.rest[n:]
	return word
}

// name takes the name of a distribution or an extra; it is empty if there is
// none or it does not begin with a letter or digit, or ends in "-" or ".".
func (sc *scanner) name() string {
	start := sc.rest
	name := sc.word("-_.")
	if name == "" || strings.HasPrefix(name, "_") || strings.Trim(name, "-.") != name {
		sc.rest = start
		return ""
	}
	return name
}

// until takes what comes before the first of the stop characters.
func (sc *scanner) until(stops string) string {
	n := strings.IndexAny(sc.rest, stops)
	if n < 0 {
		n = len(sc.rest)
	}
	text := sc.rest[:n]
	sc.rest = sc.rest[n:]
	return text
}

func isAlphanumeric(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}
