package bundle

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unicode"

	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

var (
	//go:embed python/launcher.py
	launcherSource string
	//go:embed python/sitecustomize.py
	loaderSource string

	// What of them is in images.
	loader = []byte(strip(loaderSource))
)

// Command is the name of the launcher in its directory: that of OpenTelemetry's
// own, whose place it takes.
const Command = "opentelemetry-instrument"

// InitDir is the directory on PYTHONPATH in which Python finds the loader.
const InitDir = Root + "/init"

// AnyInterpreter, as [Launch.Interpreter], is the python3 that PATH leads to: for
// a launcher that mostly is started by an interpreter, and not by its own first
// line.
const AnyInterpreter = "/usr/bin/env python3"

const (
	// interpreterLink names an interpreter whose own path can't be in a shebang.
	interpreterLink = Root + "/python"
	// pathFile has the site module, which runs this line before it imports
	// sitecustomize, find the loader.
	pathFile = `import sys; "` + InitDir + `" in sys.path or sys.path.insert(0, "` + InitDir + `")` + "\n"
	// maxShebang is what Linux before 5.1 reads of a script's first line, with
	// the line break.
	maxShebang = 127
)

// Launch is what a launch layer is made of.
type Launch struct {
	// Interpreter is the absolute path of the Python that runs the launcher, or
	// AnyInterpreter.
	Interpreter string
	// Scripts is the absolute path, without symbolic links, of the directory
	// that the launcher goes into.
	Scripts string
	// PathFile is the absolute path of a .pth file in a site directory, for an
	// interpreter that does not look at PYTHONPATH; "" for none.
	PathFile string
	// Wrap becomes Root + "/wrap.json".
	Wrap Wrap
	// Parents are the image's entries of the directories above those that are
	// written to, as a layer's entry for a directory replaces its owner and
	// mode. One that isn't here is made root's, with mode 0755.
	Parents []layer.Entry
	// Excluded names the distributions of the bundle that are not to be seen in
	// this image, by [DistInfo]: what isn't planned has no entry points then,
	// and no requirements.
	Excluded []string
}

// Wrap says what was decided about an image, for the launcher and the loader
// in it and for whoever looks at it.
type Wrap struct {
	Version          int         `json:"version"` // of this format: 1
	Imgwrap          string      `json:"imgwrap"` // the program's version
	Release          string      `json:"release"` // of the stable train
	Contrib          string      `json:"contrib"` // of the beta train
	Bundle           string      `json:"bundle"`  // directory of the packages, [Dir]
	Python           PythonRange `json:"python"`
	Interpreter      string      `json:"interpreter"`
	Instrumentations []string    `json:"instrumentations"` // planned, by entry point name
	Options          []string    `json:"options"`          // OTEL_* names that the launcher has options for
	// Modules are, by instrumentation, those whose import the loader waits for
	// with it. One that isn't here is loaded at start.
	Modules map[string][]string `json:"modules,omitempty"`
	// Without are instrumentations that do not load although the image has their
	// distributions.
	Without []string `json:"without,omitempty"`
	// Unchecked are planned instrumentations whose library has no metadata in the
	// image: upstream's check, which looks for it, is left out.
	Unchecked []string `json:"unchecked,omitempty"`
	// Generic tells that nobody has looked into the image: the instrumentations
	// are all that the release has, for libraries that it may not have, or has in
	// versions that do not fit. That is nothing to tell then.
	Generic bool `json:"generic,omitempty"`
	// Everywhere tells that every Python process of a container may have the
	// loader, not only those below the launcher. Above it, the loader leaves alone
	// what runs code of the command line, an interactive interpreter and tools of
	// the standard library.
	Everywhere bool `json:"everywhere,omitempty"`
	// Skip are command lines that are not the application, such as the image's
	// health check: a file by the last component of its path, or a module, and the
	// arguments.
	Skip [][]string `json:"skip,omitempty"`
	// Path is searched first while OpenTelemetry loads: directories with
	// packages of the app that Python puts on sys.path only later.
	Path []string `json:"path,omitempty"`
	// Environment is set by the loader where it is missing: for a command that
	// clears the environment that the image's config gives it.
	Environment map[string]string `json:"environment,omitempty"`
}

// PythonRange is the range of Python minors that a release serves, both
// included.
type PythonRange struct {
	Min string `json:"min"`
	Max string `json:"max"`
}

// GenericLaunch returns the launch of a release that works in any image: with all
// instrumentations, each of which waits for its library.
func GenericLaunch(r *catalog.Release) Launch {
	wrap := Wrap{
		Version:    1,
		Release:    r.Version,
		Contrib:    r.Contrib,
		Bundle:     Dir(r),
		Python:     PythonRange(r.Python),
		Options:    r.Environment,
		Modules:    make(map[string][]string),
		Generic:    true,
		Everywhere: true,
	}
	for _, i := range r.Instrumentations {
		wrap.Instrumentations = append(wrap.Instrumentations, i.Name)
		if len(i.Modules) > 0 {
			wrap.Modules[i.Name] = i.Modules
		}
	}
	return Launch{Interpreter: AnyInterpreter, Scripts: Root + "/bin", Wrap: wrap}
}

// LaunchLayer makes the launch layer. Equal launches give equal layers.
func LaunchLayer(l Launch) (*layer.Layer, error) {
	entries, err := launchEntries(l)
	if err != nil {
		return nil, fmt.Errorf("making launch layer: %w", err)
	}
	return layer.Build(context.Background(), entries)
}

func launchEntries(l Launch) ([]layer.Entry, error) {
	for _, p := range []string{l.Interpreter, l.Scripts, l.Wrap.Bundle} {
		if !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
			return nil, fmt.Errorf("%q is not a clean absolute path", p)
		}
	}
	script, link := script(l.Interpreter)
	// [], never null
	l.Wrap.Instrumentations = append([]string{}, l.Wrap.Instrumentations...)
	l.Wrap.Options = append([]string{}, l.Wrap.Options...)
	var wrap bytes.Buffer
	enc := json.NewEncoder(&wrap)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(l.Wrap); err != nil {
		return nil, err
	}
	files := []layer.Entry{
		{Path: l.Scripts + "/" + Command, Mode: 0o755, Data: script},
		{Path: InitDir + "/sitecustomize.py", Data: loader},
		{Path: Root + "/wrap.json", Data: wrap.Bytes()},
	}
	if l.PathFile != "" {
		files = append(files, layer.Entry{Path: l.PathFile, Data: []byte(pathFile)})
	}
	if link {
		files = append(files, layer.Entry{Path: interpreterLink, Mode: fs.ModeSymlink, Linkname: l.Interpreter})
	}
	for _, name := range l.Excluded {
		if strings.Contains(name, "/") || !strings.HasSuffix(name, ".dist-info") {
			return nil, fmt.Errorf("%q is not the name of a metadata directory", name)
		}
		files = append(files, layer.Entry{Path: l.Wrap.Bundle + "/.wh." + name})
	}

	var entries []layer.Entry
	dirs := make(map[string]bool)
	for _, e := range l.Parents {
		if !e.Mode.IsDir() {
			return nil, fmt.Errorf("%s is not a directory in the image", e.Path)
		}
		dirs[e.Path] = true
		entries = append(entries, e)
	}
	for _, e := range files {
		e.Path = strings.TrimPrefix(e.Path, "/")
		entries = append(entries, e)
		for dir := path.Dir(e.Path); dir != "."; dir = path.Dir(dir) {
			if !dirs[dir] {
				dirs[dir] = true
				entries = append(entries, layer.Entry{Path: dir, Mode: fs.ModeDir})
			}
		}
	}
	return entries, nil
}

// script returns the launcher for an interpreter, and whether it names it by
// interpreterLink.
func script(interpreter string) (content []byte, link bool) {
	first, rest, _ := strings.Cut(launcherSource, "\n")
	if interpreter == AnyInterpreter {
		return []byte("#!" + AnyInterpreter + "\n" + strip(rest)), false
	}
	_, flags, _ := strings.Cut(first, " ")
	shebang := "#!" + interpreter + " " + flags + "\n"
	if len(shebang) > maxShebang || strings.ContainsFunc(interpreter, unicode.IsSpace) {
		shebang, link = "#!"+interpreterLink+" "+flags+"\n", true
	}
	return []byte(shebang + strip(rest)), link
}
