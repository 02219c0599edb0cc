// Package python tells which Python an image starts, from its configuration
// and its merged layers, without running anything: the interpreter that the
// entry command leads to, the site directories that interpreter would have,
// and the distributions in them.
//
// What is executed is followed as the kernel and the shell would: ENTRYPOINT
// and CMD, launchers such as tini or env, PATH, symbolic links, first lines of
// scripts, and the commands of shell scripts as far as they are fixed; tools
// that choose an environment, such as pyenv or poetry; the processes of Cloud
// Native Buildpacks and of process managers. Where that ends, the image is
// searched for interpreters; the result then says that it is not sure, or is
// an error that lists the choices.
package python

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/image/scan"
)

// Config is what Inspect needs of an image's configuration, with the meaning
// of the OCI image-spec's config.md.
type Config struct {
	Entrypoint, Cmd, Env []string
	WorkingDir, User     string
}

// Options change how Inspect decides.
type Options struct {
	// Python is the path of the interpreter to take whatever the command
	// leads to, or a name to be found on PATH.
	Python string
}

// Files is the file system of an image, as *scan.Index has it.
type Files interface {
	Lstat(name string) (scan.File, error)
	Stat(name string) (scan.File, error)
	Resolve(name string) (string, error)
	ReadDir(name string) ([]string, error)
	ReadFile(name string) ([]byte, error)
	Find(match func(name []byte) bool) []string
}

// Environment is the Python environment of an image's command.
type Environment struct {
	Interpreter Interpreter
	Command     Command

	// Sites are the directories of sys.path that are not the standard
	// library's, in order: PYTHONPATH, site directories, what their path files
	// add. The directory of the script, or the working directory, comes first
	// if it holds distributions.
	Sites []string

	// ProgramDir is the first of Sites if it is the directory of the script, or
	// the working directory: Python puts it there only once it has started, so
	// what is imported by sitecustomize is not searched there.
	ProgramDir string

	// Distributions are those that an import system would find, in the order
	// of Sites, one for each normalised name; Shadowed are the others, hidden
	// by one of the same name that comes before.
	Distributions []Distribution
	Shadowed      []Distribution

	// Customize are the sitecustomize modules on sys.path: an image has at
	// most one that is loaded, the first.
	Customize []string

	Django Django

	// Forms are the forms in which the app is packed or started that decide
	// what can be loaded into it; none for ordinary files.
	Forms []Form

	// Warnings are sentences about what may not be as it seems.
	Warnings []string
}

// Interpreter is a Python interpreter in an image.
type Interpreter struct {
	Path           string // as the command runs it, symbolic links not resolved: a venv's python is the venv's
	Version        string // "3.11", or "3.11.2" where the image tells the patch release
	Implementation string // "cpython" or "pypy"
	FreeThreaded   bool   // a build without the global interpreter lock (3.13t)
	Libc           string // "glibc", "musl" or "" (static, or not known)
	Architecture   string // as uname -m and PEP 508's platform_machine: "x86_64", "aarch64"; "" if not known
	Prefix         string // sys.prefix
	BasePrefix     string // sys.base_prefix: differs from Prefix in a venv
	Scripts        string // directory in which this interpreter's pip puts scripts
	NoCtypes       bool   // the standard library has extension modules, but not _ctypes
	How            string // how it was found, a sentence
}

// Minor returns the version's first two numbers: "3.11".
func (i Interpreter) Minor() string {
	parts := strings.SplitN(i.Version, ".", 3)
	return strings.Join(parts[:min(len(parts), 2)], ".")
}

// Command is what the image starts in the end.
type Command struct {
	// Args is the command after all launchers and scripts have been followed,
	// the interpreter first. Where that was not possible it is the last
	// command that was.
	Args []string
	// Steps tells, one sentence each, how ENTRYPOINT and CMD lead to Args.
	Steps []string
	// Sure is set if the interpreter follows from the command alone.
	Sure bool

	Flags       []string // options of the interpreter, from the command and from a script's first line: "-u", "-I"
	Program     string   // what runs: name of the script or module ("gunicorn", "manage.py"); "-c", "-" or "" for none
	Script      string   // path of the script, "" for a module
	Module      bool     // Program was given by -m
	ProgramArgs []string
	Dir         string // working directory when it starts

	// Agent is the first launcher in the command that instruments Python
	// itself, such as "opentelemetry-instrument" or "ddtrace-run".
	Agent string
	// EnvCleared is set if a launcher drops the image's environment
	// variables: env -i, su -.
	EnvCleared bool
	// PythonPathDropped is set if PYTHONPATH is set anew on the way, or
	// removed: what stands in the image's or is put there when the container
	// starts does not reach the interpreter.
	PythonPathDropped bool

	env environ
}

// Getenv returns a variable of the command's environment, as far as it follows
// from the image: what launchers and scripts on the way set is in it.
func (c Command) Getenv(name string) string { return c.env.get(name) }

// Option returns the value that the program is given by the last option of one
// of these names: "-k v", "-kv", "--name v" or "--name=v". It is "" if there is
// none.
func (c Command) Option(names ...string) string {
	value := ""
	for i, a := range c.ProgramArgs {
		for _, name := range names {
			rest, ok := strings.CutPrefix(a, name)
			switch long := strings.HasPrefix(name, "--"); {
			case !ok:
			case rest == "" && i+1 < len(c.ProgramArgs):
				value = c.ProgramArgs[i+1]
			case rest != "" && !long:
				value = rest
			case strings.HasPrefix(rest, "="):
				value = rest[1:]
			}
		}
	}
	return value
}

// Isolated reports whether the interpreter ignores PYTHONPATH (-E or -I), so
// that nothing can be loaded through it.
func (c Command) Isolated() bool { return c.hasFlag('E') || c.hasFlag('I') }

// NoSite reports whether the interpreter does not import the site module (-S).
func (c Command) NoSite() bool { return c.hasFlag('S') }

func (c Command) hasFlag(letter rune) bool {
	return slices.ContainsFunc(c.Flags, func(f string) bool {
		return len(f) == 2 && f[0] == '-' && rune(f[1]) == letter
	})
}

// Distribution is an installed distribution package.
type Distribution struct {
	Name    string // as its metadata has it
	Version string // as its metadata has it; may be empty
	Path    string // of its .dist-info or .egg-info
	Site    string // the entry of sys.path in which it was found
}

// NoPythonError says that an image has no Python that could be what it runs.
type NoPythonError struct {
	Command []string // ENTRYPOINT and CMD
	Reason  string   // why the command leads to none
	Looked  []string // what was looked for
	Form    Form     // of the program, if it has an interpreter inside that can't be reached
}

func (e *NoPythonError) Error() string {
	if e.Form.frozen() {
		return "no Python that can be instrumented: " + e.Reason
	}
	return fmt.Sprintf("no Python found: %s; looked for %s", e.Reason, strings.Join(e.Looked, ", "))
}

// Hint says what to do.
func (e *NoPythonError) Hint() string {
	if e.Form.frozen() {
		return "run the program with an interpreter that is in the image, or add OpenTelemetry to it before it is packed"
	}
	return "only images that run Python can be wrapped; if this one does, name its interpreter with --python PATH"
}

// AmbiguousError says that the command does not tell which of several
// interpreters it starts.
type AmbiguousError struct {
	Reason     string // why the command does not tell
	Candidates []Candidate
}

// Candidate is an interpreter that might be the one.
type Candidate struct {
	Path          string
	Distributions int    // in its site directories, installers not counted
	Why           string // what speaks for it; may be empty
}

func (e *AmbiguousError) Error() string {
	var list []string
	for _, c := range e.Candidates {
		list = append(list, fmt.Sprintf("%s (%s)", c.Path, c.describe()))
	}
	return fmt.Sprintf("several Pythons may be the one that runs: %s; candidates are %s", e.Reason, strings.Join(list, ", "))
}

// Hint says what to do.
func (e *AmbiguousError) Hint() string {
	return "name the one that runs the app with --python PATH"
}

func (c Candidate) describe() string {
	s := fmt.Sprintf("%d distributions", c.Distributions)
	if c.Distributions == 1 {
		s = "1 distribution"
	}
	if c.Why != "" {
		s += ", " + c.Why
	}
	return s
}

// Inspect finds out which Python the image starts and what it has. It returns
// a *NoPythonError if there is none, an *AmbiguousError if several are equally
// likely, and another error if options.Python is not in the image.
func Inspect(config Config, files Files, options Options) (*Environment, error) {
	im := image{files}
	env := newEnviron(config.Env)
	dir := path.Clean("/" + config.WorkingDir)
	resolver := &resolver{image: im, budget: maxSteps}
	argv := slices.Concat(config.Entrypoint, config.Cmd)
	env = env.with("PYTHONPATH", joinNonEmpty(added, ":", env.get("PYTHONPATH")))
	out := resolver.run(process{args: argv, env: env, dir: dir, sure: true})
	kept := out.dropAdded()
	e := &Environment{Forms: out.forms}
	e.Command = out.command()
	e.Command.PythonPathDropped = out.python != "" && !kept
	e.Command.Steps = append([]string{describeConfig(config)}, e.Command.Steps...)

	var err error
	switch {
	case options.Python != "":
		e.Interpreter, err = forced(im, options.Python, out.env, dir)
		if err != nil {
			return nil, err
		}
		e.Command.Sure = true
		if out.python != "" && out.python != e.Interpreter.Path {
			e.Warnings = append(e.Warnings, fmt.Sprintf("the image's command starts %s, not %s", out.python, e.Interpreter.Path))
		}
		if slices.ContainsFunc(out.forms, Form.frozen) {
			e.Warnings = append(e.Warnings, out.opaque)
		}
	case out.python != "":
		e.Interpreter = im.interpreter(out.python, out.env)
		e.Interpreter.How = out.how()
		if !out.sure {
			e.Warnings = append(e.Warnings, out.doubt)
		}
	case slices.ContainsFunc(out.forms, Form.frozen):
		return nil, &NoPythonError{Command: argv, Reason: out.opaque, Form: out.forms[slices.IndexFunc(out.forms, Form.frozen)]}
	case len(out.choices) > 0:
		return nil, &AmbiguousError{Reason: out.opaque, Candidates: out.choices}
	default:
		c, err := im.choose(out, dir)
		if np := (*NoPythonError)(nil); errors.As(err, &np) {
			np.Command = argv
		}
		if err != nil {
			return nil, err
		}
		e.Interpreter = im.interpreter(c.Path, out.env)
		e.Interpreter.How = "the only likely one in the image: " + c.describe()
		e.Command.Sure = false
		e.Warnings = append(e.Warnings, fmt.Sprintf("%s; %s was taken because it is the only likely interpreter in the image (%s)", out.opaque, c.Path, c.describe()))
	}
	if e.Interpreter.Version == "" {
		e.Warnings = append(e.Warnings, fmt.Sprintf("the version of %s is not known: no lib/python3.X belongs to it", e.Interpreter.Path))
	}
	if e.Interpreter.NoCtypes {
		e.Warnings = append(e.Warnings, fmt.Sprintf("%s has no _ctypes module, which OpenTelemetry's SDK needs", e.Interpreter.Path))
	}
	p := pathBuilder{image: im, interpreter: e.Interpreter, command: e.Command, env: out.env, dir: out.dir, user: config.User}
	front, sites := p.sites()
	e.Sites = slices.Concat(front, sites)
	if d := p.programDir(); d != "" && slices.Index(e.Sites, d) == 0 {
		e.ProgramDir = d
	}
	e.Distributions, e.Shadowed = im.distributions(e.Sites, &e.Warnings)
	e.Customize = im.modules("sitecustomize", slices.Concat(front, im.stdlib(e.Interpreter), sites))
	e.Django = im.django(e, out.env)
	return e, nil
}

// Starts returns the commands that start a Python when argv is executed in a
// container of the image: all those that the scripts, shells and process
// managers on the way may start, in the order in which they are met.
func Starts(config Config, files Files, argv []string) []Command {
	r := &resolver{image: image{files}, budget: maxSteps}
	r.run(process{args: argv, env: newEnviron(config.Env), dir: path.Clean("/" + config.WorkingDir), sure: true})
	return r.starts
}

// added stands for the directory that wrapping puts first on PYTHONPATH: what
// the command does to the variable decides whether it is found.
const added = "/opt/imgwrap/init"

// dropAdded takes the added directory off PYTHONPATH again and reports whether
// it was there.
func (o *outcome) dropAdded() bool {
	var rest []string
	dirs := strings.Split(o.env.get("PYTHONPATH"), ":")
	for _, d := range dirs {
		if d != added {
			rest = append(rest, d)
		}
	}
	o.env = o.env.with("PYTHONPATH", strings.Join(rest, ":"))
	return len(rest) < len(dirs)
}

func forced(im image, python string, env environ, dir string) (Interpreter, error) {
	p := python
	if !strings.Contains(p, "/") {
		p = im.lookPath(python, env.get("PATH"), dir)
		if p == "" {
			return Interpreter{}, fmt.Errorf("finding Python %s: not on the image's PATH: %w", python, fs.ErrNotExist)
		}
	}
	p = absolute(dir, p)
	f, err := im.Stat(p)
	if err != nil {
		return Interpreter{}, fmt.Errorf("finding Python %s: %w", python, err)
	}
	if !f.Mode.IsRegular() {
		return Interpreter{}, fmt.Errorf("finding Python %s: not a file", python)
	}
	if !pythonName.MatchString(path.Base(p)) && !pythonName.MatchString(path.Base(f.Path)) {
		return Interpreter{}, fmt.Errorf("finding Python %s: the name is not a Python interpreter's", python)
	}
	i := im.interpreter(p, env)
	i.How = "given by the user"
	return i, nil
}

func describeConfig(c Config) string {
	switch {
	case len(c.Entrypoint) > 0 && len(c.Cmd) > 0:
		return "ENTRYPOINT and CMD are " + quote(slices.Concat(c.Entrypoint, c.Cmd))
	case len(c.Entrypoint) > 0:
		return "ENTRYPOINT is " + quote(c.Entrypoint)
	case len(c.Cmd) > 0:
		return "CMD is " + quote(c.Cmd)
	}
	return "there is neither ENTRYPOINT nor CMD"
}

// quote writes a command for people: words that need it in quotes, long ones
// cut.
func quote(args []string) string {
	var words []string
	for _, a := range args {
		if len(a) > 200 {
			a = a[:200] + "…"
		}
		if a == "" || strings.ContainsAny(a, " \t\n\"'$\\") || strings.ToValidUTF8(a, "") != a {
			a = fmt.Sprintf("%q", a)
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}
