package dockerfile

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// Config is the part of an image's configuration that decides what a container
// of it starts, as the OCI image-spec's config.md and Docker's have it.
type Config struct {
	Entrypoint, Cmd, Shell []string
	Env                    []string // NAME=VALUE
	User, WorkingDir       string
	OnBuild                []string // instructions that run first in what is built on it
	Healthcheck            []string // test of the health check
}

// Fields of a Config that come from somewhere.
const (
	Entrypoint = "ENTRYPOINT"
	Cmd        = "CMD"
	Shell      = "SHELL"
	User       = "USER"
	WorkingDir = "WORKDIR"
)

// State is the configuration at the end of a stage, without what is in blocks.
type State struct {
	Config
	// Origins say what set ENTRYPOINT, CMD, SHELL, USER and WORKDIR: "line 4",
	// "line 4, ONBUILD", "the base image". There is none for what nothing sets.
	Origins map[string]string
	// Unknown are those of the fields that a base image decides of which nothing
	// is known, "ENV" among them. USER and WORKDIR are if the base image may have a
	// variable in them; they have an origin then.
	Unknown map[string]bool
	// CmdOwn and EntrypointOwn are set if the stage itself has one. ENTRYPOINT takes
	// away a CMD that is inherited.
	CmdOwn, EntrypointOwn bool
	// ShellForm says of ENTRYPOINT and CMD whether they are an instruction that a
	// shell runs.
	ShellForm map[string]bool
	// Warnings are about instructions that mean something else than they seem to.
	Warnings []string
}

const theBase = "the base image"

// State follows the instructions of a stage and of those that it is built on.
// base is the configuration of the image at their root, nil if it is not known.
func (f *File) State(b Base, base *Config, o Options) (*State, error) {
	args, err := f.globalArgs(o)
	if err != nil {
		return nil, err
	}
	s := &state{
		State: State{
			Origins: map[string]string{}, Unknown: map[string]bool{}, ShellForm: map[string]bool{},
		},
		options: o, global: args.values, env: map[string]string{}, partly: base == nil && b.Image != "",
	}
	s.start(base)
	triggers := s.OnBuild
	for i, stage := range b.Stages {
		s.OnBuild, s.CmdOwn, s.EntrypointOwn = nil, false, false
		for _, trigger := range triggers {
			if err := s.trigger(trigger, stage.Line); err != nil {
				return nil, err
			}
		}
		triggers = nil
		s.lex = shell.NewLex(f.escape)
		for _, in := range stage.instructions {
			if !in.known {
				continue
			}
			parsed, err := in.parse()
			if err != nil {
				return nil, at(in.node.StartLine, err)
			}
			if on, ok := parsed.(*instructions.OnbuildCommand); ok && i+1 < len(b.Stages) {
				triggers = append(triggers, on.Expression)
			}
			if err := s.apply(in.node, parsed, fmt.Sprintf("line %d", in.node.StartLine)); err != nil {
				return nil, at(in.node.StartLine, err)
			}
		}
	}
	return &s.State, nil
}

// state is a State on its way.
type state struct {
	State
	options Options
	global  map[string]string
	env     map[string]string // of ENV and ARG: what instructions may use
	partly  bool              // env lacks what the base image has
	lacking bool              // such a variable is in the instruction
	lex     *shell.Lex
}

// defaultPath is what a build gives to a base image without PATH.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (s *state) start(base *Config) {
	if s.partly {
		for _, name := range []string{Entrypoint, Cmd, Shell, User, WorkingDir, "ENV"} {
			s.Unknown[name] = true
		}
		return
	}
	if base != nil {
		s.Config = *base
		s.Env = slices.Clone(base.Env)
	}
	if !slices.ContainsFunc(s.Env, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
		s.Env = append(s.Env, defaultPath)
	}
	for _, e := range s.Env {
		name, value, _ := strings.Cut(e, "=")
		s.env[name] = value
	}
	for name, there := range map[string]bool{
		Entrypoint: len(s.Entrypoint) > 0, Cmd: len(s.Cmd) > 0, Shell: len(s.Shell) > 0,
		User: s.User != "", WorkingDir: s.WorkingDir != "",
	} {
		if there {
			s.Origins[name] = theBase
		}
	}
}

// trigger runs an instruction of ONBUILD in the stage whose FROM is at line.
func (s *state) trigger(text string, line int) error {
	result, err := parser.Parse(strings.NewReader(text))
	if err != nil || len(result.AST.Children) != 1 {
		return &Error{line, "what it is built on has an ONBUILD that is no instruction: " + strings.TrimSpace(text), ""}
	}
	node := result.AST.Children[0]
	node.StartLine, node.EndLine = line, line
	parsed, err := parseInstruction(node)
	if err != nil {
		if slices.Contains(decisive, strings.ToLower(node.Value)) {
			return at(line, err)
		}
		return nil
	}
	s.lex = shell.NewLex(result.EscapeToken)
	if err := s.apply(node, parsed, fmt.Sprintf("line %d, ONBUILD of what it is built on", line)); err != nil {
		return at(line, err)
	}
	return nil
}

// apply does what BuildKit does for an instruction (dockerfile2llb's dispatch).
func (s *state) apply(node *parser.Node, parsed any, origin string) error {
	if _, isArg := parsed.(*instructions.ArgCommand); !isArg && slices.Contains(decisive, strings.ToLower(node.Value)) {
		s.lacking = false
		if e, ok := parsed.(instructions.SupportsSingleWordExpansion); ok {
			if err := e.Expand(s.expand); err != nil {
				return err
			}
		}
	}
	set := func(field string) {
		s.Origins[field] = origin
		delete(s.Unknown, field)
	}
	switch c := parsed.(type) {
	case *instructions.ArgCommand:
		return s.arg(c)
	case *instructions.EnvCommand:
		for _, e := range c.Env {
			s.setEnv(e.Key, e.Value)
		}
	case *instructions.ShellCommand:
		s.Shell = c.Shell
		set(Shell)
	case *instructions.UserCommand:
		s.User = c.User
		set(User)
		if s.lacking {
			s.Unknown[User] = true
		}
	case *instructions.WorkdirCommand:
		if s.lacking {
			s.WorkingDir = ""
			set(WorkingDir)
			s.Unknown[WorkingDir] = true
		} else if path.IsAbs(c.Path) {
			s.WorkingDir = path.Clean(c.Path)
			set(WorkingDir)
		} else if !s.Unknown[WorkingDir] {
			s.WorkingDir = path.Join("/", s.WorkingDir, c.Path)
			set(WorkingDir)
		}
	case *instructions.HealthCheckCommand:
		s.Healthcheck = c.Health.Test
	case *instructions.CmdCommand:
		s.Cmd = s.command(command.Cmd, c.ShellDependantCmdLine, node, origin)
		s.CmdOwn = true
		set(Cmd)
	case *instructions.EntrypointCommand:
		s.Entrypoint = s.command(command.Entrypoint, c.ShellDependantCmdLine, node, origin)
		s.EntrypointOwn = true
		set(Entrypoint)
		if !s.CmdOwn {
			s.Cmd = nil
			delete(s.Origins, Cmd)
			delete(s.Unknown, Cmd)
			delete(s.ShellForm, Cmd)
		}
	}
	return nil
}

// command is what ENTRYPOINT or CMD stand for.
func (s *state) command(name string, c instructions.ShellDependantCmdLine, node *parser.Node, origin string) []string {
	name = strings.ToUpper(name)
	s.ShellForm[name] = c.PrependShell
	if !c.PrependShell {
		return slices.Clone(c.CmdLine)
	}
	text := strings.Join(c.CmdLine, " ")
	if strings.HasPrefix(text, "[") {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s: %s %s is no JSON, so a shell runs it as it stands", origin, strings.ToUpper(node.Value), text))
	}
	sh := s.Shell
	if len(sh) == 0 {
		sh = []string{"/bin/sh", "-c"}
		if s.Unknown[Shell] {
			s.Warnings = append(s.Warnings, fmt.Sprintf("%s: the shell that runs %s is taken to be /bin/sh, as the base image is not known", origin, name))
		}
	}
	return append(slices.Clone(sh), text)
}

func (s *state) arg(c *instructions.ArgCommand) error {
	for _, a := range c.Args {
		given, ok := s.options.BuildArgs[a.Key]
		inherited, global := s.global[a.Key]
		switch {
		case ok:
			s.env[a.Key] = given
		case a.Value != nil:
			value, err := s.expand(*a.Value)
			if err != nil {
				return err
			}
			s.env[a.Key] = value
		case global:
			s.env[a.Key] = inherited
		}
	}
	return nil
}

func (s *state) setEnv(name, value string) {
	s.env[name] = value
	line := name + "=" + value
	i := slices.IndexFunc(s.Env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
	if i < 0 {
		s.Env = append(s.Env, line)
	} else {
		s.Env[i] = line
	}
}

// expand replaces the variables of a word. What may come from a base image that
// is not known stays as it is.
func (s *state) expand(word string) (string, error) {
	s.lex.SkipUnsetEnv = s.partly
	result, err := s.lex.ProcessWordWithMatches(word, variables(s.env))
	s.lacking = s.lacking || s.partly && len(result.Unmatched) > 0
	return result.Result, err
}

// Environ is ENV as a map.
func (s *State) Environ() map[string]string {
	env := map[string]string{}
	for _, e := range s.Env {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	return env
}
