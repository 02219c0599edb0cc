package python

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/pattern"
	"mvdan.cc/sh/v3/syntax"
)

var shells = map[string]bool{"sh": true, "bash": true, "dash": true, "ash": true, "ksh": true, "zsh": true, "rbash": true}

// maxProgram is the length of a shell program, in bytes, beyond which it is not
// followed: the parser's stack grows with what is nested.
const maxProgram = 64 << 10

// shell follows sh [options] -c string [name [args]] and sh [options] script
// [args].
func (r *resolver) shell(p process) outcome {
	name := path.Base(p.args[0])
	args := p.args[1:]
	command, login := false, false
	for len(args) > 0 && len(args[0]) > 1 && (args[0][0] == '-' || args[0][0] == '+') {
		a := args[0]
		args = args[1:]
		switch {
		case a == "--":
		case a == "--login":
			login = true
		case a == "--init-file" || a == "--rcfile":
			args = args[min(1, len(args)):]
			continue
		case strings.HasPrefix(a, "--"):
		default:
			command = command || strings.Contains(a[1:], "c")
			login = login || strings.Contains(a[1:], "l")
			if strings.HasSuffix(a, "o") || strings.HasSuffix(a, "O") {
				args = args[min(1, len(args)):] // the option's name: pipefail
			}
			continue
		}
		if a == "--" {
			break
		}
	}
	if login {
		if r.isFile("/etc/profile") {
			p.doubts("%s is a login shell, whose profile may change PATH", name)
		}
	}
	if len(args) == 0 {
		return p.opaque("%s starts without a command", name)
	}
	if command {
		zero := name
		if len(args) > 1 {
			zero = args[1]
		}
		p.step("%s runs %s", name, quote(args[:1]))
		return r.evaluate(p, name, args[0], zero, args[min(2, len(args)):], "the command of "+name)
	}
	file := absolute(p.dir, args[0])
	if !r.isFile(file) {
		if f := r.lookPath(args[0], p.env.get("PATH"), p.dir); f != "" {
			file = f
		}
	}
	f, err := r.Stat(file)
	if err != nil {
		return p.opaque("the script %s is not in the image", file)
	}
	return r.script(p, slices.Concat([]string{name, file}, args[1:]), f.Content, f.Complete)
}

// script follows a shell script; args are the shell, its options, the script's
// path and its arguments.
func (r *resolver) script(p process, args []string, content []byte, complete bool) outcome {
	i := 1
	for i < len(args)-1 && strings.HasPrefix(args[i], "-") {
		i++
	}
	file := args[i]
	if content == nil || !complete && len(content) < 1<<10 {
		return p.opaque("the script %s was not read", file)
	}
	p.step("%s is a script for %s", file, args[0])
	return r.evaluate(p, path.Base(args[0]), string(content), file, args[i+1:], file)
}

// evaluate follows the statements of a program for a shell of the given name.
// zero and params are its $0 and "$@"; what is how messages name it.
func (r *resolver) evaluate(p process, name, program, zero string, params []string, what string) outcome {
	p.depth++
	s := &shell{
		resolver: r, p: p, zero: zero, params: params, what: what,
		vars: map[string]string{}, functions: map[string]*syntax.Stmt{},
	}
	if file := p.env.get("BASH_ENV"); name == "bash" && file != "" {
		s.source([]string{file})
	}
	if s.failed = s.program(program); s.exhausted {
		s.failed = errors.New("it does too much")
	}
	return s.outcome()
}

// shell is the state of a shell program that is followed statement by
// statement. Variables that are not known are not set.
type shell struct {
	*resolver
	p         process
	zero      string
	params    []string
	what      string
	vars      map[string]string // not exported
	functions map[string]*syntax.Stmt
	calls     int // nested function calls

	conditional int  // depth of branches of which it is not known whether they run
	background  bool // the current statement ends with &
	ended       bool // by exec or exit
	replaced    bool // by another program than a Python
	failed      error
	exhausted   bool // the budget

	returned bool // from the current function or sourced script

	found []step   // commands that start a Python, in order
	other *outcome // the last command that does not
}

// step is a command of a shell program.
type step struct {
	outcome
	conditional bool // it is not known whether it runs
	exec        bool // nothing comes after it
	final       bool // exec, and known to run
	background  bool
}

// outcome decides what the program runs: the command that replaces the shell,
// else the last one that starts a Python.
func (s *shell) outcome() outcome {
	if len(s.found) == 0 {
		switch {
		case s.failed != nil:
			return s.p.opaque("%s is not understood: %v", s.what, s.failed)
		case s.other != nil:
			return *s.other
		}
		return s.p.opaque("no command of %s is known to start a Python", s.what)
	}
	best := s.found[len(s.found)-1]
	if !best.final {
		// What runs for certain is likelier than what a branch might run.
		for _, f := range slices.Backward(s.found) {
			if !f.conditional {
				best = f
				break
			}
		}
	}
	out := best.outcome
	for _, f := range s.found {
		// What ran before and ended does not matter, what may run instead does.
		if instead := f.conditional && (f.exec || !best.final); (instead || f.background) && !s.same(f.python, out.python) {
			out.doubts("%s may start another Python, %s", s.what, f.python)
		}
	}
	if s.failed != nil && !best.final {
		out.doubts("%s is not understood to its end: %v", s.what, s.failed)
	}
	if s.replaced {
		out.doubts("%s ends with another command: %s", s.what, s.other.opaque)
	}
	return out
}

// same reports whether two paths lead to the same Python environment.
func (r *resolver) same(a, b string) bool {
	venvA, _ := r.pyvenv(a)
	venvB, _ := r.pyvenv(b)
	if venvA != "" || venvB != "" {
		return venvA == venvB
	}
	realA, errA := r.Resolve(a)
	realB, errB := r.Resolve(b)
	return errA == nil && errB == nil && realA == realB
}

func (s *shell) stmts(list []*syntax.Stmt) {
	for _, stmt := range list {
		if s.stmt(stmt); s.ended || s.returned {
			return
		}
	}
}

// branch evaluates statements of which it is not known whether they run.
func (s *shell) branch(list []*syntax.Stmt) {
	s.conditional++
	s.stmts(list)
	s.conditional--
	s.ended = s.ended && s.conditional == 0
}

func (s *shell) stmt(stmt *syntax.Stmt) {
	if !s.spend(1) {
		s.ended, s.exhausted = true, true
		return
	}
	background := s.background
	s.background = background || stmt.Background
	defer func() { s.background = background }()
	switch c := stmt.Cmd.(type) {
	case *syntax.CallExpr:
		s.call(c)
	case *syntax.DeclClause:
		for _, a := range c.Args {
			s.assign(a, c.Variant.Value == "export")
		}
	case *syntax.BinaryCmd:
		s.binary(c)
	case *syntax.Block:
		s.stmts(c.Stmts)
	case *syntax.Subshell:
		saved := *s
		s.stmts(c.Stmts)
		s.p, s.params, s.ended = saved.p, saved.params, s.ended && s.conditional == 0 && len(s.found) > len(saved.found)
	case *syntax.IfClause:
		s.ifClause(c)
	case *syntax.CaseClause:
		s.caseClause(c)
	case *syntax.WhileClause:
		s.branch(c.Cond)
		s.branch(c.Do)
	case *syntax.ForClause:
		s.branch(c.Do)
	case *syntax.TimeClause:
		if c.Stmt != nil {
			s.stmt(c.Stmt)
		}
	case *syntax.FuncDecl:
		if c.Name != nil {
			s.functions[c.Name.Value] = c.Body
		}
	}
}

func (s *shell) binary(c *syntax.BinaryCmd) {
	switch c.Op {
	case syntax.AndStmt, syntax.OrStmt:
		holds, known := s.test(c.X)
		if !known {
			s.stmt(c.X)
			// a && b: a command that fails ends the container, so b is as good
			// as certain. a || b: b is what happens if a fails.
			if _, isTest := testArgs(c.X); c.Op == syntax.OrStmt || isTest {
				if !s.ended {
					s.branch([]*syntax.Stmt{c.Y})
				}
				return
			}
			if !s.ended {
				s.stmt(c.Y)
			}
			return
		}
		if holds == (c.Op == syntax.AndStmt) {
			s.stmt(c.Y)
		}
	default: // a pipe: both run
		s.stmt(c.X)
		ended := s.ended
		s.ended = false
		s.stmt(c.Y)
		s.ended = s.ended || ended
	}
}

func (s *shell) ifClause(c *syntax.IfClause) {
	for ; c != nil; c = c.Else {
		if len(c.Cond) == 0 { // else
			s.stmts(c.Then)
			return
		}
		holds, known := false, false
		if len(c.Cond) == 1 {
			holds, known = s.test(c.Cond[0])
		}
		switch {
		case known && holds:
			s.stmts(c.Then)
			return
		case !known:
			s.branch(c.Cond)
			s.branch(c.Then)
			for e := c.Else; e != nil; e = e.Else {
				s.branch(e.Cond)
				s.branch(e.Then)
			}
			return
		}
	}
}

func (s *shell) caseClause(c *syntax.CaseClause) {
	word, ok := s.literal(c.Word)
	for _, item := range c.Items {
		match, known := false, ok
		for _, w := range item.Patterns {
			pat, ok := s.literal(w)
			re, err := pattern.Regexp(pat, pattern.EntireString)
			if !ok || err != nil {
				known = false
				continue
			}
			if m, err := regexp.Compile(re); err == nil && m.MatchString(word) {
				match = true
			}
		}
		switch {
		case ok && match:
			s.stmts(item.Stmts)
			return
		case !known:
			s.branch(item.Stmts)
		}
	}
}

// testArgs returns the arguments of [ … ] or test … .
func testArgs(stmt *syntax.Stmt) ([]*syntax.Word, bool) {
	c, ok := stmt.Cmd.(*syntax.CallExpr)
	if !ok || len(c.Args) == 0 {
		_, ok := stmt.Cmd.(*syntax.TestClause)
		return nil, ok
	}
	switch n := len(c.Args); c.Args[0].Lit() {
	case "[":
		return c.Args[1:max(1, n-1)], true
	case "test":
		return c.Args[1:], true
	}
	return nil, false
}

// test evaluates a condition if it can be known: comparisons of strings and
// the presence of files in the image.
func (s *shell) test(stmt *syntax.Stmt) (holds, known bool) {
	switch c := stmt.Cmd.(type) {
	case *syntax.TestClause:
		holds, known = s.testExpr(c.X)
	case *syntax.CallExpr:
		args, ok := testArgs(stmt)
		if !ok {
			switch len(c.Args) {
			case 1:
				if lit := c.Args[0].Lit(); lit == "true" || lit == ":" || lit == "false" {
					return (lit != "false") != stmt.Negated, true
				}
			}
			return false, false
		}
		holds, known = s.testWords(args)
	}
	return holds != stmt.Negated, known
}

func (s *shell) testWords(args []*syntax.Word) (holds, known bool) {
	if len(args) > 0 && args[0].Lit() == "!" {
		holds, known = s.testWords(args[1:])
		return !holds, known
	}
	switch len(args) {
	case 1:
		v, ok := s.literal(args[0])
		return v != "", ok
	case 2:
		return s.unary(args[0].Lit(), args[1])
	case 3:
		return s.compare(args[1].Lit(), args[0], args[2])
	}
	return false, false
}

func (s *shell) testExpr(x syntax.TestExpr) (holds, known bool) {
	switch x := x.(type) {
	case *syntax.ParenTest:
		return s.testExpr(x.X)
	case *syntax.Word:
		v, ok := s.literal(x)
		return v != "", ok
	case *syntax.UnaryTest:
		if x.Op == syntax.TsNot {
			holds, known = s.testExpr(x.X)
			return !holds, known
		}
		if w, ok := x.X.(*syntax.Word); ok {
			return s.unary(x.Op.String(), w)
		}
	case *syntax.BinaryTest:
		a, okA := x.X.(*syntax.Word)
		b, okB := x.Y.(*syntax.Word)
		if okA && okB {
			return s.compare(x.Op.String(), a, b)
		}
		a1, k1 := s.testExpr(x.X)
		a2, k2 := s.testExpr(x.Y)
		switch x.Op {
		case syntax.AndTest:
			return a1 && a2, k1 && k2 || k1 && !a1 || k2 && !a2
		case syntax.OrTest:
			return a1 || a2, k1 && k2 || k1 && a1 || k2 && a2
		}
	}
	return false, false
}

func (s *shell) unary(op string, w *syntax.Word) (holds, known bool) {
	v, ok := s.literal(w)
	if !ok {
		return false, false
	}
	switch op {
	case "-n":
		return v != "", true
	case "-z":
		return v == "", true
	case "-e", "-f", "-d", "-x", "-r", "-s":
		f, err := s.Stat(absolute(s.p.dir, v))
		switch {
		case err != nil:
			return false, false // it may be made at run time, or mounted
		case op == "-f":
			return f.Mode.IsRegular(), true
		case op == "-d":
			return f.Mode.IsDir(), true
		case op == "-x":
			return f.Mode&0o111 != 0, true
		case op == "-s":
			return !f.Empty, true
		}
		return true, true
	}
	return false, false
}

func (s *shell) compare(op string, a, b *syntax.Word) (holds, known bool) {
	x, ok1 := s.literal(a)
	y, ok2 := s.literal(b)
	if !ok1 || !ok2 {
		return false, false
	}
	switch op {
	case "=", "==":
		if re, err := pattern.Regexp(y, pattern.EntireString); err == nil && pattern.HasMeta(y, 0) {
			m, err := regexp.Compile(re)
			return err == nil && m.MatchString(x), err == nil
		}
		return x == y, true
	case "!=":
		holds, known = s.compare("=", a, b)
		return !holds, known
	}
	return false, false
}

// call follows a simple command.
func (s *shell) call(c *syntax.CallExpr) {
	if len(c.Args) == 0 {
		for _, a := range c.Assigns {
			s.assign(a, false)
		}
		return
	}
	args, ok := s.fields(c.Args)
	if len(args) == 0 {
		if !ok {
			s.unknown("it starts a command that is only known at run time")
		}
		return
	}
	p := s.p
	for _, a := range c.Assigns {
		if v, ok := s.value(a); ok && a.Name != nil {
			p.env = p.env.with(a.Name.Value, v)
		}
	}
	final := false
	if args[0] == "exec" {
		_, args = splitOptions(args[1:], "-a")
		if len(args) == 0 {
			if len(c.Args) > 1 && ok {
				s.ended = s.conditional == 0 // exec "$@" without arguments goes on, and nothing follows
			}
			return
		}
		final = true
	}
	if body := s.functions[args[0]]; body != nil {
		if s.calls < 20 {
			params := s.params
			s.params = args[1:]
			s.calls++
			s.stmt(body)
			s.calls--
			s.params, s.returned = params, false
		}
		return
	}
	if !final && s.builtin(args, ok) {
		return
	}
	p.args = args
	out := s.run(p)
	if final && s.conditional == 0 {
		s.ended = true
	}
	if out.python == "" {
		s.other = &out
		s.replaced = s.ended
		return
	}
	s.found = append(s.found, step{out, s.conditional > 0, final, s.ended, s.background})
}

func (s *shell) unknown(reason string) {
	out := s.p.opaque("%s: %s", s.what, reason)
	s.other = &out
}

// builtin executes the shell's own commands that matter here.
func (s *shell) builtin(args []string, known bool) bool {
	switch args[0] {
	case "cd", "pushd":
		_, rest := splitOptions(args[1:], "")
		switch {
		case len(rest) == 1 && known:
			s.p.dir = absolute(s.p.dir, rest[0])
		case len(rest) == 0:
			if home := s.p.env.get("HOME"); home != "" {
				s.p.dir = home
			}
		}
	case ".", "source":
		if len(args) > 1 {
			s.source(args[1:])
		}
	case "conda", "mamba", "micromamba":
		if len(args) < 2 || args[1] != "activate" {
			return false
		}
		s.condaActivate(args, args[2:])
	case "set":
		if i := slices.Index(args, "--"); i > 0 && known {
			s.params = args[i+1:]
		}
	case "shift":
		s.params = s.params[min(1, len(s.params)):]
	case "unset":
		for _, name := range args[1:] {
			s.p.env = s.p.env.without(name)
			delete(s.vars, name)
		}
	case "exit":
		s.ended = s.conditional == 0
	case "return":
		s.returned = s.conditional == 0
	case "eval":
		if known && s.p.depth < 20 {
			s.include(strings.Join(args[1:], " "))
		}
	case "test", "[", "echo", "printf", "true", "false", ":", "trap", "umask", "ulimit", "wait", "read", "alias", "shopt", "hash", "type",
		"sleep", "mkdir", "chown", "chmod", "cat", "ls", "rm", "cp", "mv", "ln", "touch", "grep", "sed", "id", "date", "kill":
	default:
		return false
	}
	return true
}

// source follows a sourced script in the same shell. The activate scripts of
// virtual environments and of conda are known.
func (s *shell) source(args []string) {
	file := absolute(s.p.dir, args[0])
	if !strings.Contains(args[0], "/") {
		for _, d := range strings.Split(s.p.env.get("PATH"), ":") {
			if f := path.Join(absolute(s.p.dir, d), args[0]); s.isFile(f) { // executable or not
				file = f
				break
			}
		}
	}
	if path.Base(file) == "activate" {
		if venv := path.Dir(path.Dir(file)); s.isVenv(venv) {
			s.p.step("%s activates %s", s.what, venv)
			s.p.env = activate(s.p.env, venv)
		} else {
			s.condaActivate(args, args[1:])
		}
		return
	}
	if b, err := s.ReadFile(file); err == nil && s.p.depth < 20 {
		s.include(string(b))
	}
}

// condaActivate follows conda activate NAME, and the older source activate
// NAME.
func (s *shell) condaActivate(args, names []string) {
	p := s.p
	p.args = args
	name := ""
	if len(names) > 0 {
		name = names[0]
	}
	prefix := s.condaPrefix(p, name)
	if strings.Contains(name, "/") {
		prefix = absolute(s.p.dir, name)
	}
	if prefix == "" {
		s.p.doubts("%s activates an environment of conda that can't be told", s.what)
		return
	}
	s.p.step("%s activates %s", s.what, prefix)
	s.p.env = activateConda(s.p.env, prefix)
}

func (s *shell) include(program string) {
	s.p.depth++
	_ = s.program(program) // the shell goes on behind what it could not read
	s.returned = false
	s.p.depth--
}

// program follows a program's statements up to the first that can't be parsed,
// as a shell does: what stands behind an exec need not be shell at all.
func (s *shell) program(text string) error {
	if len(text) > maxProgram {
		return fmt.Errorf("it is longer than %d KiB", maxProgram>>10)
	}
	var failed error
	parser := syntax.NewParser(syntax.Variant(syntax.LangBash))
	for stmt, err := range parser.StmtsSeq(strings.NewReader(text)) {
		// No break: the iterator yields a later error even after one.
		if s.ended || s.returned || failed != nil {
			continue
		}
		if failed = err; err == nil {
			s.stmt(stmt)
		}
	}
	return failed
}

func (s *shell) assign(a *syntax.Assign, export bool) {
	if a.Name == nil {
		return
	}
	name := a.Name.Value
	if a.Naked {
		if v, ok := s.vars[name]; ok && export {
			s.p.env = s.p.env.with(name, v)
		}
		return
	}
	v, ok := s.value(a)
	if a.Append && ok {
		old, _ := s.get(name)
		v = old + v
	}
	_, exported := s.p.env[name]
	switch {
	case (!ok || len(v) > maxValue) && name == "PATH":
		s.p.doubts("%s changes PATH in a way that is only known at run time", s.what)
	case !ok && name == "PYTHONPATH" && mentions(a.Value, name):
		// What is known of it stays.
	case !ok || len(v) > maxValue:
		s.p.env = s.p.env.without(name)
		delete(s.vars, name)
	case exported || export:
		s.p.env = s.p.env.with(name, v)
	default:
		s.vars[name] = v
	}
}

// mentions reports whether a word expands a parameter.
func mentions(w *syntax.Word, name string) (found bool) {
	if w != nil {
		syntax.Walk(w, func(n syntax.Node) bool {
			if p, ok := n.(*syntax.ParamExp); ok && p.Param != nil && p.Param.Value == name {
				found = true
			}
			return !found
		})
	}
	return found
}

func (s *shell) value(a *syntax.Assign) (string, bool) {
	if a.Array != nil || a.Index != nil {
		return "", false
	}
	if a.Value == nil {
		return "", true
	}
	return s.literal(a.Value)
}
