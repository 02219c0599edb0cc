package pep508

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/layer/pep440"
)

// Environment holds the values of the marker variables, named as in PEP 508.
type Environment struct {
	PythonVersion                string // "3.11"
	PythonFullVersion            string // "3.11.2"
	OSName                       string // "posix"
	SysPlatform                  string // "linux"
	PlatformMachine              string // "x86_64", "aarch64"
	PlatformSystem               string // "Linux"
	PlatformRelease              string // of the kernel
	PlatformVersion              string // of the kernel
	PlatformPythonImplementation string // "CPython"
	ImplementationName           string // "cpython"
	ImplementationVersion        string // "3.11.2"
}

// Linux returns the environment of a CPython on Linux. The version is "3.11" or
// more precise; what is missing counts as zero. The machine is named as uname
// names it: "x86_64", "aarch64". The kernel, known only where a container runs,
// is left empty.
func Linux(pythonVersion, machine string) Environment {
	parts := strings.Split(pythonVersion, ".")
	for len(parts) < 3 {
		parts = append(parts, "0")
	}
	full := strings.Join(parts, ".")
	return Environment{
		PythonVersion:                parts[0] + "." + parts[1],
		PythonFullVersion:            full,
		OSName:                       "posix",
		SysPlatform:                  "linux",
		PlatformMachine:              machine,
		PlatformSystem:               "Linux",
		PlatformPythonImplementation: "CPython",
		ImplementationName:           "cpython",
		ImplementationVersion:        full,
	}
}

// Marker is the condition under which a requirement counts. The zero value
// always holds.
type Marker struct {
	text string
	expr expression
}

// String returns the marker as written.
func (m Marker) String() string { return m.text }

// Evaluate reports whether the marker holds in an environment, with one extra
// asked for, or none ("").
func (m Marker) Evaluate(env Environment, extra string) bool {
	return m.expr == nil || m.expr.holds(env, extra)
}

type expression interface {
	holds(env Environment, extra string) bool
}

type anyOf []expression

func (e anyOf) holds(env Environment, extra string) bool {
	return slices.ContainsFunc(e, func(x expression) bool { return x.holds(env, extra) })
}

type allOf []expression

func (e allOf) holds(env Environment, extra string) bool {
	return !slices.ContainsFunc(e, func(x expression) bool { return !x.holds(env, extra) })
}

// comparison is one variable compared with one literal.
type comparison struct {
	variable, op, literal string
	reversed              bool // the literal stands on the left
}

func (c comparison) holds(env Environment, extra string) bool {
	value, version, _ := env.lookup(c.variable, extra)
	left, right := value, c.literal
	if c.reversed {
		left, right = right, left
	}
	if version {
		if specifier, err := parseSpecifier(c.op, right); err == nil {
			if c.op == "===" {
				return strings.EqualFold(left, right)
			}
			v, err := pep440.Parse(left)
			return err == nil && specifier.Contains(v)
		}
	}
	switch c.op {
	case "in":
		return strings.Contains(right, left)
	case "not in":
		return !strings.Contains(right, left)
	case "==", "<=", ">=": // strings are equal or not, but have no order
		return left == right
	case "!=":
		return left != right
	default: // <, >, and ~= with a value that is no version after all
		return false
	}
}

// parseSpecifier reads a specifier that is only one.
func parseSpecifier(op, version string) (pep440.Specifiers, error) {
	if strings.Contains(version, ",") {
		return pep440.Specifiers{}, errors.New("expected one version")
	}
	return pep440.ParseSpecifiers(op + version)
}

// lookup returns the value of a marker variable, and whether it is compared as
// a version, where the other side is one too.
func (env Environment) lookup(variable, extra string) (value string, version, ok bool) {
	// os.name, sys.platform and their like are older than PEP 508.
	switch strings.ReplaceAll(variable, ".", "_") {
	case "python_version":
		return env.PythonVersion, true, true
	case "python_full_version":
		value = env.PythonFullVersion
		if strings.HasSuffix(value, "+") {
			value += "local" // a Python built from a checkout calls itself "3.13.0+"
		}
		return value, true, true
	case "os_name":
		return env.OSName, false, true
	case "sys_platform":
		return env.SysPlatform, false, true
	case "platform_machine":
		return env.PlatformMachine, false, true
	case "platform_system":
		return env.PlatformSystem, false, true
	case "platform_release":
		return env.PlatformRelease, true, true
	case "platform_version":
		return env.PlatformVersion, false, true
	case "platform_python_implementation", "python_implementation":
		return env.PlatformPythonImplementation, false, true
	case "implementation_name":
		return env.ImplementationName, false, true
	case "implementation_version":
		return env.ImplementationVersion, true, true
	case "extra":
		return Normalize(extra), false, true
	default:
		return "", false, false
	}
}

// maxDepth bounds the nesting of parentheses, which costs stack.
const maxDepth = 100

func parseMarker(sc *scanner) (Marker, error) {
	text := strings.Trim(sc.rest, " \t")
	expr, err := parseOr(sc, 0)
	return Marker{text, expr}, err
}

func parseOr(sc *scanner, depth int) (expression, error) {
	var alternatives anyOf
	for {
		var terms allOf
		for {
			term, err := parseTerm(sc, depth)
			if err != nil {
				return nil, err
			}
			terms = append(terms, term)
			if !sc.keyword("and") {
				break
			}
		}
		alternatives = append(alternatives, terms)
		if !sc.keyword("or") {
			return alternatives, nil
		}
	}
}

func parseTerm(sc *scanner, depth int) (expression, error) {
	sc.space()
	if !sc.take("(") {
		return parseComparison(sc)
	}
	if depth == maxDepth {
		return nil, errors.New("too many parentheses")
	}
	expr, err := parseOr(sc, depth+1)
	if err != nil {
		return nil, err
	}
	if !sc.take(")") {
		return nil, sc.errorf("expected )")
	}
	sc.space()
	return expr, nil
}

func parseComparison(sc *scanner) (expression, error) {
	leftVariable, left, err := parseOperand(sc)
	if err != nil {
		return nil, err
	}
	op, err := parseOperator(sc)
	if err != nil {
		return nil, err
	}
	rightVariable, right, err := parseOperand(sc)
	if err != nil {
		return nil, err
	}
	if (leftVariable == "") == (rightVariable == "") {
		return nil, errors.New("expected a marker to compare a variable with a quoted string")
	}

	c := comparison{variable: leftVariable, op: op, literal: right}
	if leftVariable == "" {
		c = comparison{variable: rightVariable, op: op, literal: left, reversed: true}
	}
	if c.variable == "extra" {
		c.literal = Normalize(c.literal)
	}
	if op == "~=" || op == "===" {
		// These have a meaning for versions only.
		if _, version, _ := (Environment{}).lookup(c.variable, ""); !version {
			return nil, fmt.Errorf("comparing %s by %s: not a version", c.variable, op)
		}
		if _, err := parseSpecifier(op, c.literal); err != nil && !c.reversed {
			return nil, err
		}
	}
	return c, nil
}

// parseOperand reads a variable or a quoted string.
func parseOperand(sc *scanner) (variable, literal string, err error) {
	sc.space()
	defer sc.space()
	for _, quote := range []string{`"`, `'`} {
		if !sc.take(quote) {
			continue
		}
		literal = sc.until(quote + "\\\r\n\x00") // PEP 508 knows no escapes
		if !sc.take(quote) {
			return "", "", sc.errorf("expected %s after %s", quote, literal)
		}
		return "", literal, nil
	}
	start := sc.rest
	variable = sc.word("_.")
	if _, _, ok := (Environment{}).lookup(variable, ""); !ok {
		sc.rest = start
		return "", "", sc.errorf("expected a marker variable or a quoted string")
	}
	return variable, "", nil
}

func parseOperator(sc *scanner) (string, error) {
	for _, op := range []string{"===", "==", "~=", "!=", "<=", ">=", "<", ">"} {
		if sc.take(op) {
			return op, nil
		}
	}
	not := sc.keyword("not")
	if !sc.keyword("in") {
		return "", sc.errorf("expected an operator such as == or in")
	}
	if not {
		return "not in", nil
	}
	return "in", nil
}

// keyword takes a word and the space after it.
func (sc *scanner) keyword(word string) bool {
	start := sc.rest
	if sc.word("_") != word {
		sc.rest = start
		return false
	}
	sc.space()
	return true
}
