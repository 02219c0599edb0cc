package dockerfile

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// Block is what is put at the end of a stage. What is empty is left out.
type Block struct {
	// Copies are taken from other images.
	Copies []Copy
	// Run is a command for a shell, in the parts that are on a line each. It runs
	// as RunUser, and what follows it as User; empty ones leave the user as it is.
	Run           []string
	RunUser, User string
	Env, Labels   []Variable
	// Entrypoint and Cmd replace those of the stage, unless they are nil.
	Entrypoint, Cmd []string
	// Again says that the stage has an ENTRYPOINT of its own: BuildKit's check that
	// there is one only is left out.
	Again bool
}

// Copy is a directory of another image.
type Copy struct {
	From string // reference of the image
	Path string // there and here
}

// Variable is an environment variable or a label.
type Variable struct {
	Name, Value string
	// Before has the value that there is already, if any, follow this one behind
	// a colon.
	Before bool
	// Default leaves the value that there is already, if any.
	Default bool
}

// The lines that enclose a block.
const (
	beginMark = "# imgwrap:begin"
	endMark   = "# imgwrap:end"
	// cutMark is a line of a block with what had to be taken off the end of the
	// instruction before it.
	cutMark = "# imgwrap:continued "

	beginLine = beginMark + " (written by imgwrap dockerfile; --undo removes it)"
)

// lower says whether more of the instructions are written in lower case than in
// upper case, as BuildKit's check of that counts them: those of a block are like
// most.
func (f *File) lower() bool {
	n := 0
	for _, i := range f.rest() {
		switch name := i.node.Value; {
		case i.node.StartLine < f.Stages[0].Line:
		case name == strings.ToLower(name):
			n++
		case name == strings.ToUpper(name):
			n--
		}
	}
	return n > 0
}

// write is a block as it is put into the file: its lines, without line endings.
func (f *File) write(b Block, cut string) ([]string, error) {
	escape, lower := f.escape, f.lower()
	name := func(instruction string) string {
		if lower {
			instruction = strings.ToLower(instruction)
		}
		return instruction
	}
	lines := []string{beginLine}
	if cut != "" {
		lines = append(lines, cutMark+strconv.Quote(cut))
	}
	for _, c := range b.Copies {
		lines = append(lines, fmt.Sprintf("%s --from=%s %s %s", name("COPY"), c.From, c.Path, c.Path))
	}
	if len(b.Run) > 0 {
		if b.RunUser != "" {
			lines = append(lines, name(User)+" "+quote(b.RunUser, escape))
		}
		lines = append(lines, spread(name("RUN"), b.Run, escape)...)
		if b.User != "" {
			lines = append(lines, name(User)+" "+quote(b.User, escape))
		}
	}
	var env, labels []string
	for _, v := range b.Env {
		value := quote(v.Value, escape)
		switch {
		case v.Before:
			value = fmt.Sprintf(`"%s${%s:+:$%s}"`, escaped(v.Value, escape), v.Name, v.Name)
		case v.Default:
			value = fmt.Sprintf(`"${%s:-%s}"`, v.Name, escaped(v.Value, escape, '}', '\''))
		}
		env = append(env, v.Name+"="+value)
	}
	if slices.ContainsFunc(b.Env, func(v Variable) bool { return v.Before || v.Default }) {
		lines = append(lines, "# check=skip=UndefinedVar")
	}
	lines = append(lines, spread(name("ENV"), env, escape)...)
	for _, v := range b.Labels {
		labels = append(labels, v.Name+"="+quote(v.Value, escape))
	}
	lines = append(lines, spread(name("LABEL"), labels, escape)...)
	if b.Again && b.Entrypoint != nil {
		lines = append(lines, "# check=skip=MultipleInstructionsDisallowed")
	}
	for _, c := range []struct {
		name string
		args []string
	}{{Entrypoint, b.Entrypoint}, {Cmd, b.Cmd}} {
		if c.args == nil {
			continue
		}
		args, err := List(c.args)
		if err != nil {
			return nil, err
		}
		lines = append(lines, name(c.name)+" "+args)
	}
	for _, l := range slices.Concat(lines, b.Run, env, labels) {
		if strings.ContainsAny(l, "\r\n\x00") {
			return nil, &Error{Problem: fmt.Sprintf("%q cannot be written on one line", l)}
		}
	}
	return append(lines, endMark), nil
}

// spread writes an instruction with a line for each part of it.
func spread(name string, parts []string, escape rune) []string {
	if len(parts) == 0 {
		return nil
	}
	return strings.Split(name+" "+strings.Join(parts, " "+string(escape)+"\n    "), "\n")
}

// List writes the JSON form of a command. Variables are not replaced in it.
func List(args []string) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	quoted := make([]string, len(args))
	for i, a := range args {
		b.Reset()
		if err := e.Encode(a); err != nil {
			return "", err
		}
		quoted[i] = strings.TrimSuffix(b.String(), "\n")
	}
	return "[" + strings.Join(quoted, ", ") + "]", nil
}

// plain are the characters that stand for themselves in a value without quotes,
// letters and digits aside.
const plain = "-_./:,@%+="

// quote writes a value so that BuildKit reads it as it is.
func quote(value string, escape rune) string {
	other := func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && !strings.ContainsRune(plain, r)
	}
	if value != "" && !strings.ContainsFunc(value, other) {
		return value
	}
	return `"` + escaped(value, escape) + `"`
}

// escaped is a value as it has to be between double quotes. Some more characters
// are special where it stands for a variable without a value.
func escaped(value string, escape rune, more ...rune) string {
	var b strings.Builder
	for _, r := range value {
		if r == '"' || r == '$' || r == escape || slices.Contains(more, r) {
			b.WriteRune(escape)
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Written is a variable as a block of the stage sets it. It is not ok if none
// does.
func (f *File) Written(s *Stage, name string) (v Variable, ok bool) {
	for _, b := range f.of(s) {
		for _, i := range f.all {
			if !i.own || i.node.StartLine <= b.begin || i.node.StartLine > b.end {
				continue
			}
			parsed, _ := i.parse() // it has been parsed before
			env, isEnv := parsed.(*instructions.EnvCommand)
			if !isEnv {
				continue
			}
			for _, e := range env.Env {
				value, _, err := shell.NewLex(f.escape).ProcessWord(e.Value, variables{})
				if e.Key == name && err == nil {
					v, ok = Variable{Name: name, Value: value, Default: strings.Contains(e.Value, "${"+name+":-")}, true
				}
			}
		}
	}
	return v, ok
}

// Lines are those of a block as they are put into the file.
func (f *File) Lines(b Block) ([]string, error) { return f.write(b, "") }
