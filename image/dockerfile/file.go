package dockerfile

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Error is something in a Dockerfile that keeps it from being understood or
// edited.
type Error struct {
	Line    int // from 1 on; 0 if it is about the file as a whole
	Problem string
	Remedy  string // may be empty
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Problem
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Problem)
}

// Hint says what to do about it.
func (e *Error) Hint() string { return e.Remedy }

// NoStageError is a target that the Dockerfile does not have.
type NoStageError struct {
	Target string
	Names  []string // of the stages that have one
}

func (e *NoStageError) Error() string {
	return fmt.Sprintf("the Dockerfile has no stage named %q", e.Target)
}

// Hint says which stages there are.
func (e *NoStageError) Hint() string {
	if len(e.Names) == 0 {
		return "none of its stages has a name; the last one is taken where no target is given"
	}
	return "there is " + strings.Join(e.Names, ", ")
}

// File is a Dockerfile.
type File struct {
	// Stages are the build stages, in order; there is at least one.
	Stages []*Stage
	// Notes are about instructions that this package's parser does not know:
	// those of a newer syntax.
	Notes []string

	src    []byte
	lines  [][]byte // with their line endings
	escape rune
	args   []*instruction // ARG before the first FROM
	all    []*instruction // in order
	blocks []block
}

// Stage is a build stage.
type Stage struct {
	Index    int
	Name     string // in lower case, "" if it has none
	From     string // as the file has it
	Platform string // of --platform, as the file has it
	Line     int    // of its FROM

	instructions []*instruction // FROM is not among them
	last         *instruction   // of all, with FROM and what is in blocks
}

// String names the stage for people.
func (s *Stage) String() string {
	if s.Name != "" {
		return s.Name
	}
	return fmt.Sprintf("%d (line %d)", s.Index, s.Line)
}

// instruction is one of the file.
type instruction struct {
	node  *parser.Node
	known bool // it can be parsed by this version of BuildKit
	own   bool // it is in a block
}

// parse returns a new copy: variables are expanded in place.
func (i *instruction) parse() (any, error) { return parseInstruction(i.node) }

// parseInstruction has a linter, which a comment "check=" before the instruction
// may configure; none would be a nil pointer there.
func parseInstruction(n *parser.Node) (any, error) {
	return instructions.ParseInstructionWithLinter(n, linter.New(&linter.Config{}))
}

func (i *instruction) is(name string) bool { return strings.EqualFold(i.node.Value, name) }

// decisive are the instructions that a stage's configuration follows from.
var decisive = []string{
	command.Arg, command.Cmd, command.Entrypoint, command.Env, command.From,
	command.Onbuild, command.Shell, command.User, command.Workdir,
}

// Parse reads a Dockerfile. Its errors are of type [*Error].
func Parse(src []byte) (*File, error) {
	f := &File{src: src}
	for line := range bytes.Lines(src) {
		f.lines = append(f.lines, line)
	}
	result, err := parser.Parse(bytes.NewReader(src))
	if err != nil {
		return nil, newError(err)
	}
	f.escape = result.EscapeToken
	for _, n := range result.AST.Children {
		f.all = append(f.all, &instruction{node: n})
	}
	if err := f.findBlocks(); err != nil {
		return nil, err
	}
	_, _, _, newer := parser.ParseDirective("syntax", src)
	for _, i := range f.all {
		if err := f.add(i, newer); err != nil {
			return nil, err
		}
	}
	if len(f.Stages) == 0 {
		return nil, &Error{Problem: "there is no FROM in it", Remedy: "name a Dockerfile"}
	}
	return f, nil
}

// add sorts an instruction into its stage. newer says that the file names its
// own syntax, which may have what BuildKit's parser does not know.
func (f *File) add(i *instruction, newer bool) error {
	parsed, err := i.parse()
	i.known = err == nil
	decides := slices.Contains(decisive, strings.ToLower(i.node.Value))
	if err != nil && (decides || !newer) {
		return at(i.node.StartLine, err)
	}
	if err != nil {
		f.Notes = append(f.Notes, fmt.Sprintf("line %d: %s is taken as it is: %s", i.node.StartLine, i.node.Value, firstLine(err)))
	}
	if from, ok := parsed.(*instructions.Stage); ok {
		f.Stages = append(f.Stages, &Stage{
			Index: len(f.Stages), Name: from.Name, From: from.BaseName, Platform: from.Platform,
			Line: i.node.StartLine, last: i,
		})
		return nil
	}
	if len(f.Stages) == 0 {
		if !i.is(command.Arg) {
			return &Error{i.node.StartLine, i.node.Value + " comes before the first FROM", "only ARG may"}
		}
		f.args = append(f.args, i)
		return nil
	}
	s := f.Stages[len(f.Stages)-1]
	s.last = i
	if !i.own {
		s.instructions = append(s.instructions, i)
	}
	return nil
}

// Target returns the stage of that name, in whatever case, or the last one if
// the name is empty.
func (f *File) Target(name string) (*Stage, error) {
	if name == "" {
		return f.Stages[len(f.Stages)-1], nil
	}
	var names []string
	for _, s := range slices.Backward(f.Stages) {
		if s.Name != "" && s.Name == strings.ToLower(name) {
			return s, nil
		}
		if s.Name != "" {
			names = append(names, s.Name)
		}
	}
	slices.Reverse(names)
	return nil, &NoStageError{name, names}
}

func firstLine(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}

func at(line int, err error) *Error { return &Error{Line: line, Problem: firstLine(err)} }

// newError takes the line from one of BuildKit's errors.
func newError(err error) *Error {
	var located *parser.LocationError
	if errors.As(err, &located) && len(located.Locations) > 0 && len(located.Locations[0]) > 0 {
		return at(max(located.Locations[0][0].Start.Line, 1), err)
	}
	return &Error{Problem: firstLine(err)}
}
