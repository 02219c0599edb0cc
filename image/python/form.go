package python

import (
	"fmt"
	"path"
	"slices"

	"github.com/imgwrap/imgwrap/image/scan"
)

// Kind names a form in which an app is packed or started.
type Kind string

const (
	Pex         Kind = "pex"         // a zip archive that isolates itself
	Shiv        Kind = "shiv"        // a zip archive that unpacks its packages when it starts
	Zipapp      Kind = "zipapp"      // any other zip archive that Python runs (PEP 441)
	PyInstaller Kind = "pyinstaller" // an executable with an interpreter inside
	Nuitka      Kind = "nuitka"      // the same, compiled
	Lambda      Kind = "lambda"      // AWS Lambda's runtime starts the app
	Buildpack   Kind = "buildpack"   // the launcher of Cloud Native Buildpacks starts the app
)

// Form is how an app is packed or started, where that decides what can be
// loaded into it. Ordinary files that an interpreter runs have none.
type Form struct {
	Kind   Kind
	Path   string // the file that has this form, or the program that starts the app
	Reason string // what follows from it, a sentence
}

func newForm(kind Kind, file string) Form {
	reasons := map[Kind]string{
		Pex:         "%s is a pex: it takes everything off sys.path that it did not bring, so nothing that is loaded from outside stays",
		Shiv:        "%s is a shiv application: its packages are inside of it and unpacked when it starts",
		Zipapp:      "%s is a zip application: its packages are inside of it",
		PyInstaller: "%s is an executable made by PyInstaller: the interpreter inside of it reads neither PYTHONPATH nor site directories",
		Nuitka:      "%s is an executable made by Nuitka: the interpreter inside of it reads neither PYTHONPATH nor site directories",
		Lambda:      "%s belongs to the runtime of AWS Lambda, which freezes the process between two calls",
		Buildpack:   "%s, the launcher of Cloud Native Buildpacks, sets the app's environment when the container starts: what runs before it has neither the PATH nor the LD_LIBRARY_PATH of the app's layers",
	}
	return Form{kind, file, fmt.Sprintf(reasons[kind], file)}
}

// frozen reports whether the form has its own interpreter, which can't be
// reached.
func (f Form) frozen() bool { return f.Kind == PyInstaller || f.Kind == Nuitka }

// Form returns the form of the given kind, if the app has it.
func (e *Environment) Form(kind Kind) (Form, bool) {
	i := slices.IndexFunc(e.Forms, func(f Form) bool { return f.Kind == kind })
	if i < 0 {
		return Form{}, false
	}
	return e.Forms[i], true
}

// packed returns the form of an app in one file, none for other files.
func packed(f scan.File) (Form, bool) {
	has := func(name string) bool { return slices.Contains(f.Inside, name) }
	switch {
	case len(f.Inside) == 0:
		return Form{}, false
	case has(scan.PyInstaller):
		return newForm(PyInstaller, f.Path), true
	case has(scan.Nuitka):
		return newForm(Nuitka, f.Path), true
	case has("PEX-INFO"):
		return newForm(Pex, f.Path), true
	case has("environment.json"):
		return newForm(Shiv, f.Path), true
	}
	return newForm(Zipapp, f.Path), true
}

// programForm returns the form of the program that an interpreter runs.
func (im image) programForm(c Command) (Form, bool) {
	if c.Module && c.Program == "awslambdaric" {
		return newForm(Lambda, c.Program), true
	}
	if c.Script == "" {
		return Form{}, false
	}
	f, err := im.Stat(c.Script)
	if err != nil {
		return Form{}, false
	}
	dir := f.Path // a directory with a __main__.py
	if !f.Mode.IsDir() {
		dir = path.Dir(f.Path)
	}
	if im.isFile(path.Join(dir, "PEX-INFO")) && !im.isVenv(dir) {
		return newForm(Pex, dir), true
	}
	return packed(f)
}

func (p *process) form(f Form) {
	if !slices.Contains(p.forms, f) {
		p.forms = append(slices.Clip(p.forms), f)
	}
}
