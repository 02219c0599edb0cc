package python

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/image/scan"
)

// maxSteps bounds the commands and statements that are followed, as scripts
// may call each other without end.
const maxSteps = 2000

// process is a command about to be executed.
type process struct {
	args []string
	env  environ
	dir  string

	steps   []string
	forms   []Form
	sure    bool
	doubt   string // why not, if it is not sure
	agent   string
	cleared bool
	depth   int // of scripts and shells around it
}

func (p *process) step(format string, args ...any) {
	p.steps = append(slices.Clip(p.steps), fmt.Sprintf(format, args...))
}

func (p *process) doubts(format string, args ...any) {
	if p.sure {
		p.sure, p.doubt = false, fmt.Sprintf(format, args...)
	}
}

// outcome is where a command leads to: an interpreter, or the reason why that
// is not known.
type outcome struct {
	process
	python   string      // path of the interpreter as it is run: args[0], unless embedded
	embedded bool        // args[0] is a program that has an interpreter built in
	opaque   string      // if there is none: a sentence
	choices  []Candidate // if there is none because there are several
}

func (p process) found(python string) outcome { return outcome{process: p, python: python} }

func (p process) opaque(format string, args ...any) outcome {
	p.sure = false
	return outcome{process: p, opaque: fmt.Sprintf(format, args...)}
}

func (o outcome) how() string {
	if len(o.steps) == 0 {
		return "it is the image's command"
	}
	return o.steps[len(o.steps)-1]
}

var pythonName = regexp.MustCompile(`^(python|pypy)([23](\.[0-9]+)?t?)?$`)

type resolver struct {
	image
	budget int
	venvs  []string  // the image's pyvenv.cfg files, once they were looked for
	starts []Command // every command met that starts a Python
}

// spend takes n steps off the budget and reports whether that much was left.
func (r *resolver) spend(n int) bool {
	r.budget -= n
	return r.budget >= 0
}

// run follows a command until an interpreter is started, or it is not known how
// to go on.
func (r *resolver) run(p process) outcome {
	for {
		if !r.spend(1) || p.depth > 20 {
			return p.opaque("the command leads through too many scripts")
		}
		if len(p.args) == 0 || p.args[0] == "" {
			return p.opaque("the image has no command")
		}
		name := path.Base(p.args[0])
		next, ok := r.launcher(name, p)
		if !ok {
			if shells[name] {
				return r.shell(p)
			}
			if name == "busybox" && len(p.args) > 1 && shells[p.args[1]] {
				p.args = p.args[1:]
				return r.shell(p)
			}
			if programs, source, ok := r.manager(p, name, p.args[1:]); ok {
				return r.programs(p, name, source, programs)
			}
			next = r.execute(p)
		}
		if next.python != "" || next.opaque != "" {
			return next
		}
		p = next.process
	}
}

// execute follows the file that a command names. The outcome is a command to
// follow further if it is neither an interpreter nor opaque.
func (r *resolver) execute(p process) outcome {
	file := r.lookPath(p.args[0], p.env.get("PATH"), p.dir)
	if file == "" {
		if strings.Contains(p.args[0], "/") {
			return p.opaque("%s is not an executable file in the image", absolute(p.dir, p.args[0]))
		}
		return p.opaque("%s is not on the image's PATH", p.args[0])
	}
	if !strings.Contains(p.args[0], "/") {
		p.step("%s is %s, by PATH", p.args[0], file)
	}
	f, err := r.Stat(file)
	if err != nil {
		return p.opaque("%s can't be read: %v", file, err)
	}
	form, isPacked := packed(f)
	switch name := path.Base(file); {
	case f.Path == cnbLauncher:
		return r.buildpack(p, name)
	case bytes.HasPrefix(f.Content, []byte("#!")):
		return r.executeScript(p, file, f)
	case pythonName.MatchString(name) || pythonName.MatchString(path.Base(f.Path)):
		p.args = slices.Concat([]string{file}, p.args[1:])
		return r.interpreted(p, file)
	case name == "uwsgi":
		// The pip-installed uWSGI embeds the Python beside it.
		python := r.lookPath("python", path.Dir(file), "/")
		if python == "" {
			return p.opaque("%s has a Python built in that can't be told", file)
		}
		p.step("%s embeds the Python of %s", file, python)
		out := p.found(python)
		out.embedded = true
		r.starts = append(r.starts, out.command())
		return out
	case isPacked:
		p.form(form)
		return p.opaque("%s", form.Reason)
	}
	return p.opaque("%s is not a Python program", file)
}

// executeScript follows a file that begins with "#!".
func (r *resolver) executeScript(p process, file string, f scan.File) outcome {
	line, ok := shebang(f.Content)
	if !ok {
		return p.opaque("%s has a first line that names no interpreter", file)
	}
	if path.Base(file) == "lambda-entrypoint.sh" {
		p.form(newForm(Lambda, file))
	}
	args := slices.Concat(line, []string{file}, p.args[1:])
	switch name := path.Base(line[0]); {
	case name == "execlineb":
		p.depth++
		return r.execline(p, file, string(f.Content))
	case shells[name]:
		if form, ok := packed(f); ok {
			p.form(form)
			return p.opaque("%s; it looks for an interpreter when it starts", form.Reason)
		}
		return r.script(p, args, f.Content, f.Complete)
	}
	p.step("%s has the first line #!%s", file, quote(line))
	p.args = args
	p.depth++
	return outcome{process: p}
}

// interpreted returns the outcome of starting an interpreter, unless the
// program it starts is a process manager.
func (r *resolver) interpreted(p process, file string) outcome {
	out := p.found(file)
	c := out.command()
	name := strings.TrimPrefix(c.Program, "supervisor.")
	if programs, source, ok := r.manager(p, name, c.ProgramArgs); ok {
		return r.programs(p, name, source, programs)
	}
	if form, ok := r.programForm(c); ok {
		out.form(form)
	}
	r.starts = append(r.starts, c)
	return out
}

// shebang splits a script's first line as Linux does: the interpreter and at
// most one argument. The kernel reads no more than 256 bytes.
func shebang(head []byte) ([]string, bool) {
	line, _, ended := bytes.Cut(head[2:], []byte("\n"))
	if len(line) > 253 {
		line, ended = line[:253], false
	}
	fields := strings.Trim(string(line), " \t\r")
	name, arg, _ := strings.Cut(strings.ReplaceAll(fields, "\t", " "), " ")
	if name == "" || !ended && arg == "" && len(line) == 253 {
		return nil, false
	}
	if arg = strings.TrimLeft(arg, " "); arg == "" {
		return []string{name}, true
	}
	return []string{name, arg}, true
}

// interpreterOptions take a value (python --help, and PyPy's).
const interpreterOptions = "cmWXQ"

// command takes the interpreter's options and the program apart.
func (o outcome) command() Command {
	c := Command{Args: o.args, Steps: o.steps, Sure: o.sure && o.python != "", Dir: o.dir, Agent: o.agent, EnvCleared: o.cleared, env: o.env}
	if o.python == "" || len(o.args) == 0 {
		return c
	}
	if o.embedded {
		return c.script(o.args)
	}
	for i := 1; i < len(o.args); i++ {
		arg := o.args[i]
		switch {
		case arg == "-":
			c.Program, c.ProgramArgs = "-", o.args[i+1:]
			return c
		case arg == "--check-hash-based-pycs":
			i++
		case strings.HasPrefix(arg, "--"):
			if arg == "--" && i+1 < len(o.args) {
				return c.script(o.args[i+1:])
			}
		case strings.HasPrefix(arg, "-"):
			for j := 1; j < len(arg); j++ {
				flag, value := arg[j], arg[j+1:]
				if !strings.ContainsRune(interpreterOptions, rune(flag)) {
					c.Flags = append(c.Flags, "-"+string(flag))
					continue
				}
				if value == "" && i+1 < len(o.args) {
					i++
					value = o.args[i]
				}
				switch flag {
				case 'c':
					c.Program, c.ProgramArgs = "-c", o.args[i+1:]
					return c
				case 'm':
					c.Program, c.Module, c.ProgramArgs = value, true, o.args[i+1:]
					return c
				}
				c.Flags = append(c.Flags, "-"+string(flag)+" "+value)
				break
			}
		default:
			return c.script(o.args[i:])
		}
	}
	return c
}

func (c Command) script(args []string) Command {
	c.Program, c.Script, c.ProgramArgs = path.Base(args[0]), absolute(c.Dir, args[0]), args[1:]
	return c
}
