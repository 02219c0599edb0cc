package image

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/image/instrument"
	"github.com/imgwrap/imgwrap/image/python"
	"github.com/imgwrap/imgwrap/image/scan"
	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/bundle"
)

// defaultPath is what container engines set where an image has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// place is where the launcher goes and how the entry point names it.
type place struct {
	directory string
	command   string
}

// launcherPlace puts the launcher beside the interpreter's other scripts,
// unless the app has a file of that name there: no file of the app changes. A
// bare name in the entry point has to lead there by PATH.
func launcherPlace(scripts, searchPath string, files *scan.Index) (place, error) {
	if f, err := files.Lstat(path.Dir(bundle.Root)); err == nil && !f.Mode.IsDir() {
		return place{}, &RefusedError{
			Problem: fmt.Sprintf("%s is no directory in the image, wrapping puts %s below it", path.Dir(bundle.Root), bundle.Root),
			Remedy:  "make it a directory of the image",
		}
	}
	if _, err := files.Lstat(bundle.Root); err == nil {
		return place{}, &RefusedError{
			Problem: "the image has a " + bundle.Root + " already, and not from a wrapping that can be taken back",
			Remedy:  "wrap the image it was made from",
		}
	}
	directory, ok := realDirectory(files, scripts)
	if !ok {
		directory = bundle.Root + "/bin"
	}
	if _, err := files.Lstat(path.Join(directory, bundle.Command)); err == nil {
		directory = bundle.Root + "/bin"
	}
	own := place{directory, path.Join(directory, bundle.Command)}
	if searchPath == "" {
		searchPath = defaultPath
	}
	for dir := range strings.SplitSeq(searchPath, ":") {
		if resolved, err := files.Resolve(dir); dir == directory || (err == nil && resolved == directory) {
			return place{directory, bundle.Command}, nil
		}
		if _, err := files.Stat(path.Join(dir, bundle.Command)); err == nil {
			break // another command of that name comes first
		}
	}
	return own, nil
}

// realDirectory is where a directory of the image is, or would be made, without
// symbolic links on the way: a layer's entry below a link would replace the
// link. It is not ok if something else than directories is in the way.
func realDirectory(files *scan.Index, dir string) (real string, ok bool) {
	if f, err := files.Stat(dir); err == nil {
		return f.Path, f.Mode.IsDir()
	}
	if _, err := files.Lstat(dir); err == nil {
		return "", false // a link to nowhere
	}
	parent, ok := realDirectory(files, path.Dir(dir))
	return path.Join(parent, path.Base(dir)), ok
}

// launchLayer makes the layer that belongs to this image alone.
func (p *ImagePlan) launchLayer(src source, choice *instrument.Choice, launcher place, ready readiness, version string) (*layer.Layer, error) {
	pathFile := ready.pathFile
	if pathFile != "" {
		directory, ok := realDirectory(src.files, path.Dir(pathFile))
		pathFile = path.Join(directory, path.Base(pathFile))
		if _, err := src.files.Lstat(pathFile); err == nil || !ok {
			return nil, &RefusedError{
				Problem: "imgwrap needs to add " + pathFile + ", and something is there already",
				Remedy:  "let the interpreter read PYTHONPATH, then no such file is needed",
			}
		}
	}
	r := choice.Release
	names, modules := []string{}, map[string][]string{}
	var unchecked []string
	for _, s := range choice.Selected {
		names = append(names, s.Name)
		if s.Unchecked {
			unchecked = append(unchecked, s.Name)
		}
		if len(s.Modules) > 0 {
			modules[s.Name] = s.Modules
		}
	}
	var settings map[string]string
	if ready.envCleared {
		settings = map[string]string{}
		for _, v := range p.Env {
			settings[v.Name] = v.Value
		}
	}
	var first []string
	if dir := src.environment.ProgramDir; dir != "" {
		first = []string{dir}
	}
	var skip [][]string
	if ready.everywhere() {
		skip = src.healthCheck()
	}
	for _, command := range skip {
		p.note("the health check %s is left alone", strings.Join(command, " "))
	}
	hidden := []string{}
	for _, d := range choice.Hidden {
		hidden = append(hidden, bundle.DistInfo(d))
	}
	return bundle.LaunchLayer(bundle.Launch{
		Interpreter: src.environment.Interpreter.Path,
		Scripts:     launcher.directory,
		PathFile:    pathFile,
		Parents:     parents(src.files, launcher.directory, bundle.Root, path.Dir(pathFile)),
		Excluded:    hidden,
		Wrap: bundle.Wrap{
			Version:          1,
			Imgwrap:          version,
			Release:          r.Version,
			Contrib:          r.Contrib,
			Bundle:           bundle.Dir(r),
			Python:           bundle.PythonRange(r.Python),
			Interpreter:      src.environment.Interpreter.Path,
			Instrumentations: names,
			Options:          r.Environment,
			Modules:          modules,
			Without:          choice.Without,
			Unchecked:        unchecked,
			Everywhere:       ready.everywhere(),
			Skip:             skip,
			Path:             first,
			Environment:      settings,
		},
	})
}

// healthCheck returns the Python programs that the image's health check runs,
// each with its arguments. One that cannot be told from the app by these is not
// among them.
func (s *source) healthCheck() [][]string {
	check := s.parsed.Config.Healthcheck
	if check == nil || len(check.Test) < 2 {
		return nil
	}
	var argv []string
	switch check.Test[0] { // Docker's image specification v1.2, "Healthcheck"
	case "CMD":
		argv = check.Test[1:]
	case "CMD-SHELL":
		argv = []string{"/bin/sh", "-c", check.Test[1]}
	}
	config := s.pythonConfig()
	programs := func(argv []string) (list [][]string) {
		for _, c := range python.Starts(config, s.files, argv) {
			if c.Program != "" && c.Program[0] != '-' { // neither code on the command line nor from standard input
				list = append(list, append([]string{c.Program}, c.ProgramArgs...))
			}
		}
		return list
	}
	own := programs(slices.Concat(config.Entrypoint, config.Cmd))
	return slices.DeleteFunc(programs(argv), func(command []string) bool {
		return slices.ContainsFunc(own, func(o []string) bool { return slices.Equal(o, command) })
	})
}

// parents returns the image's own directories above what the launch layer
// writes. Engines create directories that a layer leaves out, or take over
// those of the layer: with the image's metadata repeated neither changes
// anything for the app.
func parents(files *scan.Index, directories ...string) []layer.Entry {
	var entries []layer.Entry
	seen := map[string]bool{}
	for _, dir := range directories {
		for ; dir != "/" && dir != "."; dir = path.Dir(dir) {
			f, err := files.Lstat(dir)
			if seen[dir] || err != nil || !f.Mode.IsDir() {
				continue
			}
			seen[dir] = true
			entries = append(entries, layer.Entry{
				Path: strings.TrimPrefix(dir, "/"), Mode: f.Mode, UID: f.UID, GID: f.GID, ModTime: f.ModTime,
			})
		}
	}
	slices.SortFunc(entries, func(a, b layer.Entry) int { return strings.Compare(a.Path, b.Path) })
	return entries
}
