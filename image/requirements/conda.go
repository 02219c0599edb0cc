package requirements

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/imgwrap/imgwrap/layer/pep440"
	"github.com/imgwrap/imgwrap/layer/pep508"
)

// condaFile is an environment.yml; see
// https://docs.conda.io/projects/conda/en/stable/user-guide/tasks/manage-environments.html.
type condaFile struct {
	dependencies *yaml.Node // the list
	pip          *yaml.Node // the value of pip: in it, nil if there is none
	pipKey       *yaml.Node
	installsPip  bool // conda's own pip is in the list
	requirements []pep508.Requirement
	text         *textFile // what is in the list of pip
	python       string    // PEP 440 specifiers
}

func parseConda(src []byte) (*condaFile, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(src, &document); err != nil {
		return nil, yamlProblem(err)
	}
	// This finds keys that are there twice.
	if err := document.Decode(new(any)); err != nil {
		return nil, yamlProblem(err)
	}
	if len(document.Content) == 0 || document.Content[0].Kind != yaml.MappingNode {
		return nil, &SyntaxError{Line: 1, Problem: "it is no mapping with dependencies"}
	}
	f := &condaFile{text: &textFile{}}
	root := document.Content[0]
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == "dependencies" {
			f.dependencies = root.Content[i+1]
		}
	}
	switch {
	case f.dependencies == nil:
		return nil, &SyntaxError{Line: root.Line, Problem: "it has no dependencies"}
	case f.dependencies.Kind != yaml.SequenceNode:
		return nil, &SyntaxError{Line: f.dependencies.Line, Problem: "dependencies is no list"}
	}
	for _, d := range f.dependencies.Content {
		if d.Kind == yaml.MappingNode && len(d.Content) == 2 && d.Content[0].Value == "pip" {
			f.pipKey, f.pip = d.Content[0], d.Content[1]
			continue
		}
		if d.Kind != yaml.ScalarNode {
			return nil, &SyntaxError{Line: d.Line, Problem: "a dependency is a name with a version, or a list for pip"}
		}
		req, ok := condaRequirement(d.Value)
		if !ok {
			continue
		}
		switch pep508.Normalize(req.Name) {
		case "python":
			f.python = req.Specifiers.String()
		case "pip":
			f.installsPip = true
		default:
			f.requirements = append(f.requirements, req)
		}
	}
	if f.pip == nil || f.pip.Tag == "!!null" {
		return f, nil
	}
	if f.pip.Kind != yaml.SequenceNode {
		return nil, &SyntaxError{Line: f.pip.Line, Problem: "pip is no list"}
	}
	for _, d := range f.pip.Content {
		one, err := parseText([]byte(d.Value))
		if err != nil {
			return nil, atLine(err, d.Line)
		}
		f.text.requirements = append(f.text.requirements, one.requirements...)
		for _, in := range one.included {
			in.line = d.Line
			f.text.included = append(f.text.included, in)
		}
	}
	return f, nil
}

// atLine gives a problem of a text that is part of a file its line there.
func atLine(err error, line int) error {
	var problem *SyntaxError
	if errors.As(err, &problem) {
		return &SyntaxError{Line: line, Problem: problem.Problem}
	}
	return err
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// yamlProblem is what the parser says, in one line.
func yamlProblem(err error) error {
	problem := strings.TrimPrefix(err.Error(), "yaml: ")
	problem = strings.TrimSpace(strings.TrimPrefix(problem, "unmarshal errors:"))
	problem, _, _ = strings.Cut(problem, "\n")
	e := &SyntaxError{Problem: problem}
	if m := yamlLine.FindStringSubmatchIndex(problem); m != nil && m[0] == 0 {
		e.Line, _ = strconv.Atoi(problem[m[2]:m[3]])
		e.Problem = problem[m[1]:]
	}
	return e
}

var condaSpec = regexp.MustCompile(`^(?:[^\s:]+::)?([A-Za-z0-9_][A-Za-z0-9_.-]*)\s*(?:\[.*\])?\s*(.*)$`)

// condaRequirement reads a match specification of conda as far as PEP 440 can
// say it, else as one of any version.
func condaRequirement(spec string) (pep508.Requirement, bool) {
	m := condaSpec.FindStringSubmatch(strings.TrimSpace(spec))
	if m == nil {
		return pep508.Requirement{}, false
	}
	req := pep508.Requirement{Name: m[1]}
	version := strings.TrimSpace(m[2])
	switch {
	case version == "":
		return req, true
	case strings.HasPrefix(version, "=="):
		version, _, _ = strings.Cut(version[2:], "=")
		version = "==" + version
	case version[0] == '=':
		// =1.21 is any 1.21, =1.21.2=py39_0 is one build of one version.
		v, _, exact := strings.Cut(version[1:], "=")
		if v = strings.TrimSuffix(v, "*"); !exact {
			v = strings.TrimSuffix(v, ".") + ".*"
		}
		version = "==" + v
	case version[0] >= '0' && version[0] <= '9':
		v, _, _ := strings.Cut(version, " ")
		version = "==" + v
	}
	if specifiers, err := pep440.ParseSpecifiers(version); err == nil {
		req.Specifiers = specifiers
	}
	return req, true
}

// conda edits environment.yml: packages go to the list for pip, which is added if
// there is none, and pip with it.
type conda struct{}

func (conda) add(src []byte, pkgs []Package) ([]byte, error) {
	src, err := conda{}.remove(src)
	if err != nil {
		return nil, err
	}
	f, err := parseConda(src)
	if err != nil || len(pkgs) == 0 {
		return src, err
	}
	list, more := f.dependencies, []string{}
	switch {
	case f.pipKey == nil:
		if !f.installsPip {
			more = append(more, "- pip")
		}
		more = append(more, "- pip:")
	case f.pip.Kind == yaml.SequenceNode && len(f.pip.Content) > 0:
		list = f.pip
	}
	for _, list := range []*yaml.Node{f.dependencies, f.pip} {
		if list != nil && list.Style&yaml.FlowStyle != 0 {
			return nil, &SyntaxError{Line: list.Line, Problem: "packages cannot be added to a list in brackets: write it with one element in each line"}
		}
	}
	dash := leading(src, list.Content[0].Line)
	deeper := dash + "  "
	at := offset(src, lastLine(list)+1)
	switch {
	case list == f.pip:
		deeper = dash
	case f.pipKey != nil: // pip: without anything
		deeper = leading(src, f.pipKey.Line) + "    "
		at = offset(src, f.pipKey.Line+1)
	}
	lines := []string{dash + beginMark + written}
	for _, line := range more {
		lines = append(lines, dash+line)
	}
	for _, p := range pkgs {
		lines = append(lines, deeper+"- "+p.Name+"=="+p.Version)
	}
	lines = append(lines, dash+endMark)
	b := block{start: at, end: at}
	out := b.replace(src, lines, b.lineEnd(src))
	if err := condaAdded(src, out, f, pkgs); err != nil {
		return nil, &SyntaxError{Line: lastLine(list), Problem: "packages cannot be added behind this line: " + err.Error()}
	}
	return out, nil
}

func (conda) remove(src []byte) ([]byte, error) { return text{}.remove(src) }

// lastLine is where a node's last scalar begins.
func lastLine(n *yaml.Node) int {
	line := n.Line
	for _, c := range n.Content {
		line = max(line, lastLine(c))
	}
	return line
}

// offset is where a line begins, the first is 1.
func offset(src []byte, line int) int {
	at := 0
	for ; line > 1; line-- {
		at = nextLine(src, at)
	}
	return at
}

// leading are the blanks that a line begins with.
func leading(src []byte, line int) string {
	rest := src[offset(src, line):]
	return string(rest[:len(rest)-len(bytes.TrimLeft(rest, " "))])
}

// condaAdded checks that out is src with the packages, and nothing else.
func condaAdded(src, out []byte, f *condaFile, pkgs []Package) error {
	var want, got map[string]any
	if err := yaml.Unmarshal(src, &want); err != nil {
		return yamlProblem(err)
	}
	if err := yaml.Unmarshal(out, &got); err != nil {
		return yamlProblem(err)
	}
	list, _ := want["dependencies"].([]any)
	if f.pipKey == nil {
		if !f.installsPip {
			list = append(list, "pip")
		}
		list = append(list, map[string]any{"pip": []any(nil)})
	}
	for _, d := range slices.Backward(list) {
		if section, ok := d.(map[string]any); ok {
			pip, _ := section["pip"].([]any)
			for _, p := range pkgs {
				pip = append(pip, p.Name+"=="+p.Version)
			}
			section["pip"] = pip
			break
		}
	}
	want["dependencies"] = list
	if !reflect.DeepEqual(want, got) {
		return errors.New("it would change what is there")
	}
	if again, err := (conda{}).remove(out); err != nil || !bytes.Equal(again, src) {
		return fmt.Errorf("it could not be taken back")
	}
	return nil
}
