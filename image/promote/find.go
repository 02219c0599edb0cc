package promote

import (
	"bytes"
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Kind is a format that names images in its own way.
type Kind string

// The kinds of documents.
const (
	Kubernetes    Kind = "Kubernetes"
	Kustomization Kind = "kustomization"
	HelmValues    Kind = "Helm values"
	Compose       Kind = "compose"
	Commented     Kind = "comments" // of any format, with comments that say what is what
)

// Options say what to look for beyond what is known.
type Options struct {
	// Fields are further fields of Kubernetes objects that name images.
	Fields []Field
	// Values takes documents for Helm values that do not say what they are,
	// whatever the file's name.
	Values bool
}

// A File is YAML that was looked through.
type File struct {
	Name string
	Uses []*Use // by document and line
	// Resources are the files and directories of this machine that it takes in,
	// relative to its own directory, if it is a kustomization. Else it is nil.
	Resources []string

	trees []*tree // inner ones before those that they are in
}

// A Use is a place where a workload names an image, or a container's command
// where another file names the image (Image is zero then, and Problem is empty).
type Use struct {
	File      string
	Document  int    // in the file, from 1
	Line      int    // in the file, from 1
	Path      string // such as spec.template.spec.containers[0].image
	Kind      Kind
	Form      Form
	Object    string // of Kubernetes, such as Deployment/web
	Container string // its name in the object, or the service of a compose file
	// Image is what would be pulled. What the file does not say is empty.
	Image Reference
	// Replaces is the name, as it is spelled there, of the images in other
	// manifests that kustomize puts this one in the place of; "" elsewhere.
	Replaces string
	// Problem says why Image cannot be told or is not to be touched, "" if it can.
	Problem string
	Command *Command // in the place of the image's entry point; nil if there is none
	Env     []Variable

	parts   parts
	command place
}

// A Form is a way to write a reference.
type Form string

// The forms.
const (
	InString Form = "string" // all of it in one value
	InParts  Form = "parts"  // repository, tag and digest in values of their own
)

// Untagged says whether all that keeps Image from being told is its tag: a chart
// has its version for that, and kustomize the manifests.
func (u *Use) Untagged() bool {
	return u.Image.Name != "" && (u.Problem == tagMissing || u.Problem == tagElsewhere)
}

// A Command starts a container in the place of the image's entry point.
type Command struct {
	Field string // its key: command, entrypoint or script
	Path  string
	Line  int
	Args  []string // nil if it is written as a string
	Text  string   // as a string
}

// Starts says whether the command starts a program itself, which is meant by its
// base name, somewhere in it.
func (c *Command) Starts(program string) bool {
	for _, arg := range append(slices.Clone(c.Args), c.Text) {
		for _, word := range strings.FieldsFunc(arg, func(r rune) bool { return strings.ContainsRune(" \t\n\r;&|()'\"`", r) }) {
			if path.Base(word) == path.Base(program) {
				return true
			}
		}
	}
	return false
}

// A Variable of the environment.
type Variable struct {
	Name  string
	Value string
	// Literal says that the value is in the file, and holds no variable itself.
	Literal bool
	Line    int
}

// A NotYAMLError says that a file is none of YAML. In a directory with other
// files that is no reason to fail.
type NotYAMLError struct {
	File     string
	Template bool // it has the actions of a Go template in it, as Helm's templates do
	Reason   error
}

func (e *NotYAMLError) Error() string {
	if e.Template {
		return e.File + ": it is a template, not YAML: name the values file that it is rendered with"
	}
	return e.File + ": it is not YAML: " + strings.TrimPrefix(e.Reason.Error(), "yaml: ")
}

func (e *NotYAMLError) Unwrap() error { return e.Reason }

// IsYAML says whether a file's name is one of YAML, or of what kustomize reads.
func IsYAML(name string) bool {
	ext := path.Ext(name)
	return ext == ".yaml" || ext == ".yml" || path.Base(name) == "Kustomization"
}

// Parse finds the uses of images in a file. Its name tells kinds apart that do not
// tell themselves; it has slashes between directories. The error is a
// *NotYAMLError or an *Error.
func Parse(name string, content []byte, opts Options) (*File, error) {
	f := &finder{File: &File{Name: name}, opts: opts, found: map[spot]bool{}, annotated: map[*yaml.Node]bool{}}
	t, err := parse(name, content)
	if err != nil {
		return nil, &NotYAMLError{name, bytes.Contains(content, []byte("{{")), err}
	}
	f.tree(t)
	for _, t := range f.trees {
		if t.err != nil {
			return nil, t.err
		}
	}
	slices.SortStableFunc(f.Uses, func(a, b *Use) int {
		return cmp.Or(cmp.Compare(a.Document, b.Document), cmp.Compare(a.Line, b.Line))
	})
	return f.File, nil
}

type finder struct {
	*File
	opts      Options
	found     map[spot]bool       // a field of the options may be one that is known
	annotated map[*yaml.Node]bool // by comments
	// What is walked through.
	kind   Kind
	object string
	global place // imageRegistry of Helm values
}

func (f *finder) tree(t *tree) {
	for i := range t.docs {
		f.document(t.root(i))
	}
	f.trees = append(f.trees, t)
}

// inner goes through the YAML in a string, if it is some.
func (f *finder) inner(p place, walk func(place)) {
	if p.text() == "" {
		return
	}
	t, err := p.inner()
	if err != nil {
		f.within(Kubernetes, f.object, func() {
			f.add(&Use{parts: parts{whole: p}, Problem: "it holds a template, or no YAML"})
		})
		return
	}
	for i := range t.docs {
		root := t.root(i)
		root.path = p.path
		root.depth = p.depth
		f.comments(root)
		walk(root)
	}
	f.trees = append(f.trees, t)
}

var (
	composeFile       = regexp.MustCompile(`^(docker-)?compose\b.*\.ya?ml$`)
	kustomizationFile = regexp.MustCompile(`^kustomization\.ya?ml$|^Kustomization$`)
)

func (f *finder) document(p place) {
	if mac := p.get("sops", "mac"); mac.exists() {
		p.tree.fixed = p.tree.problem(mac.node, "the file is encrypted with sops, whose checksum covers it", "set the images with sops, or leave them alone with a comment, # imgwrap:ignore")
	}
	f.comments(p)
	file := path.Base(f.Name)
	switch {
	case p.get("apiVersion").text() != "" && p.get("kind").text() != "":
		f.kubernetes(p)
	case kustomizationFile.MatchString(file):
		f.kustomization(p)
	case composeFile.MatchString(file):
		f.compose(p)
	case f.opts.Values || strings.Contains(strings.ToLower(file), "values"):
		f.values(p)
	case isCompose(p):
		f.compose(p)
	case p.node.Kind == yaml.SequenceNode:
		f.patch(p)
	}
}

// within runs walk with what uses are of set.
func (f *finder) within(kind Kind, object string, walk func()) {
	k, o := f.kind, f.object
	f.kind, f.object = kind, object
	walk()
	f.kind, f.object = k, o
}

// add completes a use that parts of were found, and keeps it if there is
// something to it.
func (f *finder) add(u *Use) {
	if ignored(u.command) {
		u.command = place{}
	}
	at := u.parts.first()
	if !at.exists() {
		at = u.command
	}
	if !at.exists() || f.found[at.spot()] || slices.ContainsFunc(u.parts.all(), func(p place) bool { return f.annotated[p.node] }) {
		return
	}
	f.found[at.spot()] = true
	for _, p := range append(u.parts.all(), u.parts.mapping) {
		if ignored(p) {
			return
		}
	}
	u.File, u.Kind, u.Object = f.Name, f.kind, f.object
	u.Document, u.Path, u.Line = at.number(), at.path, at.line()
	if m := u.parts.mapping; m.exists() {
		u.Path, u.Line = m.path, m.line()
	}
	if u.parts.first().exists() {
		u.Form = u.parts.form()
		image, problem := u.parts.read()
		u.Image = image
		if u.Problem == "" {
			u.Problem = problem
		}
	}
	if u.command.exists() {
		c := u.command
		u.Command = &Command{Field: c.key.Value, Path: c.path, Line: c.line(), Text: c.text()}
		for _, item := range c.items() {
			u.Command.Args = append(u.Command.Args, item.node.Value)
		}
		if c.node.Kind == yaml.SequenceNode && u.Command.Args == nil {
			u.Command.Args = []string{}
		}
	}
	f.Uses = append(f.Uses, u)
}

// number is that of the document in the file, from 1.
func (p place) number() int {
	for p.tree.outer.tree != nil {
		p = p.tree.outer
	}
	return p.doc + 1
}

// templated says why a value is none to read: something else fills it in.
func templated(s string) string {
	if strings.Contains(s, "$") || strings.Contains(s, "{{") {
		return fmt.Sprintf("%q is filled in by a template or a variable", s)
	}
	return ""
}

// env reads an environment written as a list of name and value, a list of
// NAME=VALUE, or a mapping.
func env(p place) (variables []Variable) {
	add := func(name string, value place, text string, literal bool) {
		if name != "" {
			variables = append(variables, Variable{name, text, literal && templated(text) == "", value.line()})
		}
	}
	for _, item := range p.items() {
		if item.isMapping() {
			value := item.get("value")
			add(item.get("name").text(), item, value.text(), value.isScalar() || !item.get("valueFrom").exists())
		} else if name, value, ok := strings.Cut(item.text(), "="); name != "" {
			add(name, item, value, ok)
		}
	}
	for _, v := range p.fields() {
		add(v.key.Value, v, v.text(), v.isScalar() && v.node.Tag != "!!null")
	}
	return variables
}

// isCommand says whether a value can be a command: a list of strings, or a
// string.
func isCommand(p place) bool {
	if p.isScalar() {
		return p.text() != ""
	}
	items := p.items()
	return len(items) > 0 && !slices.ContainsFunc(items, func(i place) bool { return !i.isScalar() })
}

// Of names what the use is in, for people.
func (u *Use) Of() string {
	switch {
	case u.Object != "" && u.Container != "":
		return u.Object + ", " + u.Container
	case u.Object+u.Container != "":
		return u.Object + u.Container
	}
	return u.Path
}
