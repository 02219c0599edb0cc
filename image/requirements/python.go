package requirements

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/imgwrap/imgwrap/layer/pep440"
)

// lowestMinor returns the lowest minor of Python in a range, "3.9" for
// ">=3.9,<4". It is empty if the range is open to below.
func lowestMinor(within string) string {
	specifiers, err := pep440.ParseSpecifiers(within)
	if err != nil {
		return ""
	}
	for minor := range 40 {
		version := fmt.Sprintf("3.%d", minor)
		one, err := pep440.ParseSpecifiers("==" + version + ".*")
		if err == nil && specifiers.Overlaps(one) {
			if minor == 0 {
				return ""
			}
			return version
		}
	}
	return ""
}

// lowestOf is lowestMinor of several ranges of which any holds.
func lowestOf(ranges []string) string {
	lowest := ""
	for _, r := range ranges {
		minor := lowestMinor(r)
		if minor == "" {
			return ""
		}
		if lowest == "" || minorNumber(minor) < minorNumber(lowest) {
			lowest = minor
		}
	}
	return lowest
}

// minorNumber is 9 of "3.9" and of "3.9.2", -1 of what is no Python 3.
func minorNumber(version string) int {
	rest, ok := strings.CutPrefix(version, "3.")
	if !ok {
		return -1
	}
	rest, _, _ = strings.Cut(rest, ".")
	n, err := strconv.Atoi(rest)
	if err != nil {
		return -1
	}
	return n
}

var versionText = regexp.MustCompile(`^(?:c?python-?)?(3\.[0-9]+)(?:\.[0-9]+)?`)

// PythonMinor returns the minor of a version of Python, "3.12" of "3.12.1". It is
// not ok if it is none of Python 3.
func PythonMinor(version string) (minor string, ok bool) {
	minor = minorOf(version)
	return minor, minor != "" && isVersion(version)
}

// minorOf finds the minor in what says one version of Python: "3.11.4",
// "python-3.11".
func minorOf(s string) string {
	m := versionText.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return ""
	}
	return m[1]
}

// poetryRanges reads a version constraint of Poetry as specifiers of PEP 440, of
// which any holds. It is one that holds for all if the constraint is not
// understood. See https://python-poetry.org/docs/dependency-specification/.
func poetryRanges(constraint string) []string {
	var ranges []string
	for part := range strings.SplitSeq(strings.ReplaceAll(constraint, "||", "|"), "|") {
		var all []string
		for one := range strings.SplitSeq(part, ",") {
			for _, one := range splitBlanks(one) {
				s, ok := poetrySpecifier(one)
				if !ok {
					return []string{""}
				}
				if s != "" {
					all = append(all, s)
				}
			}
		}
		ranges = append(ranges, strings.Join(all, ","))
	}
	return ranges
}

var blankBetween = regexp.MustCompile(`([0-9*A-Za-z])\s+([<>=!~^])`)

// splitBlanks splits ">=1.0 <2.0", but not ">= 1.0".
func splitBlanks(s string) []string {
	return strings.Split(blankBetween.ReplaceAllString(strings.TrimSpace(s), "$1,$2"), ",")
}

func poetrySpecifier(s string) (string, bool) {
	s = strings.ReplaceAll(s, " ", "")
	switch {
	case s == "" || s == "*":
		return "", true
	case s[0] == '^' || s[0] == '~' && !strings.HasPrefix(s, "~="):
		low := s[1:]
		if !isVersion(low) {
			return "", false
		}
		var numbers []int
		for text := range strings.SplitSeq(low, ".") {
			n, err := strconv.Atoi(text)
			if err != nil {
				break
			}
			numbers = append(numbers, n)
		}
		if len(numbers) == 0 {
			return "", false
		}
		// The number that may not grow: of ~ the second, of ^ the first that is
		// not zero.
		fixed := min(1, len(numbers)-1)
		if s[0] == '^' {
			for fixed = 0; fixed < len(numbers)-1 && numbers[fixed] == 0; fixed++ {
			}
		}
		high := ""
		for _, n := range numbers[:fixed] {
			high += strconv.Itoa(n) + "."
		}
		return ">=" + low + ",<" + high + strconv.Itoa(numbers[fixed]+1), true
	case s[0] >= '0' && s[0] <= '9':
		s = "==" + s
	case strings.HasPrefix(s, "=") && !strings.HasPrefix(s, "=="):
		s = "=" + s
	}
	_, err := pep440.ParseSpecifiers(s)
	return s, err == nil
}
