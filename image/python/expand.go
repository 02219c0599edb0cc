package python

import (
	"errors"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/pattern"
	"mvdan.cc/sh/v3/syntax"
)

// Expansion of shell words, as far as they are known without running
// anything. It is our own because the shell library's expander looks up the
// users of the machine it runs on and can be made to need any amount of
// memory.

const (
	maxValue = 4 << 10  // bytes of a variable
	maxWord  = 64 << 10 // bytes of a word
)

// get returns the value of a variable or parameter.
func (s *shell) get(name string) (string, bool) {
	switch name {
	case "0":
		return s.zero, true
	case "#":
		return strconv.Itoa(len(s.params)), true
	case "@", "*":
		return strings.Join(s.params, " "), len(s.params) > 0
	case "PWD":
		return s.p.dir, true
	}
	if n, err := strconv.Atoi(name); err == nil {
		if n >= 1 && n <= len(s.params) {
			return s.params[n-1], true
		}
		return "", false
	}
	if v, ok := s.vars[name]; ok {
		return v, true
	}
	v, ok := s.p.env[name]
	return v, ok
}

// fields expands the words of a command. A word that is not known is left out,
// or becomes an ellipsis if it is quoted and so is one argument, and the result
// is not ok; if the command's name is not known, there are no fields at all.
func (s *shell) fields(words []*syntax.Word) (fields []string, ok bool) {
	ok = true
	for i, w := range words {
		if f, all := s.allParams(w); all {
			fields = append(fields, f...)
			continue
		}
		v, known := s.literal(w)
		switch {
		case !known:
			ok = false
			if i == 0 {
				return nil, false
			}
			if !unquoted(w) {
				fields = append(fields, "…")
			}
		case unquoted(w):
			fields = append(fields, strings.Fields(v)...)
		default:
			fields = append(fields, v)
		}
	}
	return fields, ok
}

// allParams expands "$@" and $* standing alone.
func (s *shell) allParams(w *syntax.Word) ([]string, bool) {
	if len(w.Parts) != 1 {
		return nil, false
	}
	part := w.Parts[0]
	if q, ok := part.(*syntax.DblQuoted); ok && len(q.Parts) == 1 {
		part = q.Parts[0]
		if p, ok := part.(*syntax.ParamExp); ok && p.Param != nil && p.Param.Value == "*" {
			return nil, false
		}
	}
	p, ok := part.(*syntax.ParamExp)
	if !ok || p.Param == nil || p.Param.Value != "@" && p.Param.Value != "*" || p.Exp != nil || p.Repl != nil || p.Length || p.Excl {
		return nil, false
	}
	if p.Slice != nil { // "${@:2}"
		lit, ok := p.Slice.Offset.(*syntax.Word)
		if !ok || p.Slice.Length != nil {
			return nil, false
		}
		n, err := strconv.Atoi(lit.Lit())
		if err != nil || n < 1 {
			return nil, false
		}
		return s.params[min(n-1, len(s.params)):], true
	}
	return s.params, true
}

// unquoted reports whether the result of expanding a word is split: it is one
// parameter or command outside of quotes.
func unquoted(w *syntax.Word) bool {
	return slices.ContainsFunc(w.Parts, func(p syntax.WordPart) bool {
		switch p.(type) {
		case *syntax.ParamExp, *syntax.CmdSubst:
			return true
		}
		return false
	})
}

// literal expands a word to one string.
func (s *shell) literal(w *syntax.Word) (string, bool) {
	if w == nil {
		return "", true
	}
	var b strings.Builder
	if !s.parts(&b, w.Parts, false) || b.Len() > maxWord {
		return "", false
	}
	v := b.String()
	if len(w.Parts) > 0 {
		if lit, ok := w.Parts[0].(*syntax.Lit); ok && strings.HasPrefix(lit.Value, "~") {
			rest, found := strings.CutPrefix(v, "~")
			home := s.p.env.get("HOME")
			if !found || home == "" || rest != "" && rest[0] != '/' {
				return "", false
			}
			v = home + rest
		}
	}
	return v, true
}

func (s *shell) parts(b *strings.Builder, parts []syntax.WordPart, quoted bool) bool {
	for _, part := range parts {
		if b.Len() > maxWord {
			return false
		}
		switch p := part.(type) {
		case *syntax.Lit:
			b.WriteString(unescape(p.Value, quoted))
		case *syntax.SglQuoted:
			if p.Dollar {
				return false
			}
			b.WriteString(p.Value)
		case *syntax.DblQuoted:
			if p.Dollar || !s.parts(b, p.Parts, true) {
				return false
			}
		case *syntax.ParamExp:
			v, ok := s.param(p)
			if !ok {
				return false
			}
			b.WriteString(v)
		case *syntax.CmdSubst:
			v, ok := s.output(p.Stmts)
			if !ok {
				return false
			}
			b.WriteString(v)
		default:
			return false
		}
	}
	return true
}

// unescape removes the backslashes that quote: all of them outside of quotes,
// those before $ ` " \ inside.
func unescape(lit string, quoted bool) string {
	if !strings.Contains(lit, `\`) {
		return lit
	}
	var b strings.Builder
	for i := 0; i < len(lit); i++ {
		if lit[i] == '\\' && i+1 < len(lit) && (!quoted || strings.IndexByte("$`\"\\\n", lit[i+1]) >= 0) {
			if i++; lit[i] == '\n' {
				continue
			}
		}
		b.WriteByte(lit[i])
	}
	return b.String()
}

// param expands a parameter. One that is not set is empty, as it would be if
// the container is started as the image says.
func (s *shell) param(p *syntax.ParamExp) (string, bool) {
	if p.Param == nil || p.Excl || p.Width || p.Index != nil || p.Slice != nil || p.Repl != nil || p.Names != 0 {
		return "", false
	}
	switch p.Param.Value {
	case "$", "?", "!", "-", "_", "RANDOM", "SECONDS", "HOSTNAME", "LINENO", "BASH_SOURCE", "UID", "EUID":
		if p.Param.Value != "BASH_SOURCE" {
			return "", false
		}
		return s.zero, true
	}
	v, set := s.get(p.Param.Value)
	if p.Length {
		return strconv.Itoa(len(v)), true
	}
	if p.Exp == nil {
		return v, true
	}
	switch p.Exp.Op {
	case syntax.DefaultUnsetOrNull, syntax.AssignUnsetOrNull:
		set = set && v != ""
		fallthrough
	case syntax.DefaultUnset, syntax.AssignUnset:
		if set {
			return v, true
		}
		v, ok := s.literal(p.Exp.Word)
		if ok && (p.Exp.Op == syntax.AssignUnset || p.Exp.Op == syntax.AssignUnsetOrNull) && len(v) <= maxValue {
			s.vars[p.Param.Value] = v
		}
		return v, ok
	case syntax.AlternateUnsetOrNull:
		set = set && v != ""
		fallthrough
	case syntax.AlternateUnset:
		if !set {
			return "", true
		}
		return s.literal(p.Exp.Word)
	case syntax.ErrorUnset, syntax.ErrorUnsetOrNull:
		return v, v != ""
	case syntax.RemSmallPrefix, syntax.RemLargePrefix, syntax.RemSmallSuffix, syntax.RemLargeSuffix:
		pat, ok := s.literal(p.Exp.Word)
		if !ok || len(v) > maxValue {
			return "", false
		}
		return trim(v, pat, p.Exp.Op)
	}
	return "", false
}

// trim implements ${v#pat}, ${v##pat}, ${v%pat} and ${v%%pat}.
func trim(v, pat string, op syntax.ParExpOperator) (string, bool) {
	expr, err := pattern.Regexp(pat, pattern.EntireString)
	if err != nil {
		return "", false
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return "", false
	}
	for n := range len(v) + 1 {
		if op == syntax.RemLargePrefix || op == syntax.RemLargeSuffix {
			n = len(v) - n
		}
		if op == syntax.RemSmallPrefix || op == syntax.RemLargePrefix {
			if re.MatchString(v[:n]) {
				return v[n:], true
			}
		} else if re.MatchString(v[len(v)-n:]) {
			return v[:len(v)-n], true
		}
	}
	return v, true
}

// output returns what commands print, for the few that scripts use to find
// themselves.
func (s *shell) output(stmts []*syntax.Stmt) (string, bool) {
	sub := *s
	var out string
	for _, stmt := range stmts {
		v, ok := sub.print(stmt)
		if !ok {
			return "", false
		}
		out += v
	}
	return strings.TrimRight(out, "\n"), len(out) <= maxWord
}

func (s *shell) print(stmt *syntax.Stmt) (string, bool) {
	if !s.spend(1) {
		return "", false
	}
	switch c := stmt.Cmd.(type) {
	case *syntax.BinaryCmd:
		if c.Op != syntax.AndStmt {
			return "", false
		}
		a, ok := s.print(c.X)
		if !ok {
			return "", false
		}
		b, ok := s.print(c.Y)
		return a + b, ok
	case *syntax.CallExpr:
		args, ok := s.fields(c.Args)
		if !ok || len(args) == 0 || len(c.Assigns) > 0 {
			return "", false
		}
		name := args[0]
		if name == "command" && len(args) == 3 && args[1] == "-v" {
			name = "which"
		}
		_, rest := splitOptions(args[1:], "")
		if name == "pwd" {
			return s.p.dir, true
		}
		if name == "echo" {
			return strings.Join(rest, " "), true
		}
		if len(rest) == 0 || len(rest) > 1 && name != "basename" {
			return "", false
		}
		switch name {
		case "cd":
			s.p.dir = absolute(s.p.dir, rest[0])
			return "", true
		case "dirname":
			return path.Dir(rest[0]), true
		case "basename":
			base := path.Base(rest[0])
			if len(rest) > 1 {
				base = strings.TrimSuffix(base, rest[1])
			}
			return base, true
		case "realpath", "readlink":
			p, err := s.Resolve(absolute(s.p.dir, rest[0]))
			return p, err == nil
		case "which":
			p := s.lookPath(rest[0], s.p.env.get("PATH"), s.p.dir)
			return p, p != ""
		}
	}
	return "", false
}

// splitWords splits a string into words as a shell does, with variables
// expanded.
func splitWords(str string, env environ) ([]string, error) {
	var words []string
	s := &shell{resolver: &resolver{}, p: process{env: env}, vars: map[string]string{}}
	for w, err := range syntax.NewParser().WordsSeq(strings.NewReader(str)) {
		if err != nil {
			return nil, err
		}
		v, ok := s.literal(w)
		if !ok {
			return nil, errors.New("not a plain word")
		}
		words = append(words, v)
	}
	return words, nil
}
