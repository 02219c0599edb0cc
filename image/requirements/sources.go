package requirements

import (
	"bytes"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/layer/pep440"
	"github.com/imgwrap/imgwrap/layer/pep508"
)

// python finds the lowest minor that the project has to run on: what the project
// file says, else the files with which one version is chosen, else those that
// are about something else too.
func (r *reader) python(main string) error {
	var sources []func() (string, error)
	switch editorFor(main).(type) {
	case pyproject:
		sources = append(sources, func() (string, error) { return r.pyprojectPython(main) }, r.lockPython(main))
	case pipfile:
		sources = append(sources, func() (string, error) { return r.pipfilePython(main) }, r.lockPython(main))
	case conda:
		sources = append(sources, func() (string, error) { return r.condaPython(main) })
	}
	sources = append(sources, r.chosenPython)
	if _, isText := editorFor(main).(text); isText {
		sources = append(sources, func() (string, error) { return r.compiledPython(main) })
	}
	sources = append(sources, func() (string, error) { return r.pyprojectPython("pyproject.toml") }, r.setupPython, r.lockPython(""))
	for _, source := range sources {
		version, err := source()
		if err != nil {
			return err
		}
		if version != "" {
			r.p.Python = version
			return nil
		}
	}
	return nil
}

// chosenPython reads the files of pyenv and uv, of asdf and mise, and of Heroku.
func (r *reader) chosenPython() (string, error) {
	for _, name := range []string{".python-version", ".tool-versions", "runtime.txt"} {
		src, err := r.file(name)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(src)) {
			line, _, _ = strings.Cut(line, "#")
			line = strings.TrimSpace(line)
			if name == ".tool-versions" {
				var ok bool
				if line, ok = strings.CutPrefix(line, "python "); !ok {
					continue
				}
			}
			if version := minorOf(line); version != "" {
				return version, nil
			}
		}
	}
	return "", nil
}

var compiledFor = regexp.MustCompile(`(?m)^#.*(?:by pip-compile with Python |--python-version[ =])(3\.[0-9]+)`)

// compiledPython reads the head of a compiled file.
func (r *reader) compiledPython(main string) (string, error) {
	for _, name := range r.p.pair(main) {
		src, err := r.file(name)
		if err != nil {
			return "", err
		}
		if m := compiledFor.FindSubmatch(src); m != nil {
			return string(m[1]), nil
		}
	}
	return "", nil
}

func (r *reader) toml(name string) (*tomlFile, error) {
	src, err := r.file(name)
	if err != nil || src == nil {
		return nil, err
	}
	f, err := parseTOML(src)
	return f, in(name, err)
}

func (r *reader) pyprojectPython(name string) (string, error) {
	f, err := r.toml(name)
	if err != nil || f == nil {
		return "", err
	}
	if within, _ := f.get("project", "requires-python").(string); within != "" {
		if _, err := pep440.ParseSpecifiers(within); err != nil {
			return "", in(name, f.problem([]string{"project", "requires-python"}, "%v", err))
		}
		return lowestMinor(within), nil
	}
	if within, _ := f.get("tool", "poetry", "dependencies", "python").(string); within != "" {
		return lowestOf(poetryRanges(within)), nil
	}
	return "", nil
}

func (r *reader) pipfilePython(name string) (string, error) {
	f, err := r.toml(name)
	if err != nil || f == nil {
		return "", err
	}
	for _, key := range []string{"python_version", "python_full_version"} {
		if version, _ := f.get("requires", key).(string); minorOf(version) != "" {
			return minorOf(version), nil
		}
	}
	return "", nil
}

func (r *reader) condaPython(name string) (string, error) {
	src, err := r.file(name)
	if err != nil {
		return "", err
	}
	f, err := parseConda(src)
	if err != nil {
		return "", in(name, err)
	}
	return lowestMinor(f.python), nil
}

// lockPython reads what a lock is for, where the project file does not say.
func (r *reader) lockPython(main string) func() (string, error) {
	return func() (string, error) {
		l, _, err := r.lock(main)
		if err != nil || l == nil {
			return "", err
		}
		return lowestMinor(l.python), nil
	}
}

// mainTOML reads Pipfile and pyproject.toml.
func (r *reader) mainTOML(main string) error {
	src, err := r.file(main)
	if err != nil {
		return err
	}
	clean, err := editorFor(main).remove(src)
	if err != nil {
		return in(main, err)
	}
	f, err := parseTOML(src)
	if err != nil {
		return in(main, err)
	}
	with, withDevelopment, err := f.declared()
	if err != nil {
		return in(main, err)
	}
	if f, err = parseTOML(clean); err != nil {
		return in(main, err)
	}
	required, development, err := f.declared()
	if err != nil {
		return in(main, err)
	}
	r.own(slices.Concat(with, withDevelopment), slices.Concat(required, development))
	for _, req := range required {
		r.require(req)
	}
	// uv, Poetry, PDM and Pipenv look for versions that suit all groups.
	for _, req := range development {
		if req.Applies(r.env) {
			name := r.constrain(req)
			r.p.development[name] = true
		}
	}
	return nil
}

// declared lists what Pipfile or pyproject.toml requires, and what it requires for
// development only.
func (f *tomlFile) declared() (required, development []pep508.Requirement, err error) {
	type source struct {
		path        []string
		development bool
	}
	arrays := []source{{path: []string{"project", "dependencies"}}}
	tables := []source{{path: []string{"tool", "poetry", "dependencies"}}, {path: []string{"packages"}}}
	groups := func(at ...string) []string {
		table, _ := f.get(at...).(map[string]any)
		return slices.Sorted(maps.Keys(table))
	}
	for _, at := range [][]string{{"project", "optional-dependencies"}, {"dependency-groups"}} {
		for _, name := range groups(at...) {
			arrays = append(arrays, source{append(slices.Clone(at), name), developmentName(name)})
		}
	}
	for _, name := range groups("tool", "poetry", "group") {
		tables = append(tables, source{[]string{"tool", "poetry", "group", name, "dependencies"}, developmentName(name)})
	}
	for _, name := range groups("tool", "pdm", "dev-dependencies") {
		arrays = append(arrays, source{[]string{"tool", "pdm", "dev-dependencies", name}, true})
	}
	arrays = append(arrays, source{[]string{"tool", "uv", "dev-dependencies"}, true})
	tables = append(tables, source{[]string{"tool", "poetry", "dev-dependencies"}, true}, source{[]string{"dev-packages"}, true})
	note := func(req pep508.Requirement, from source) {
		if from.development {
			development = append(development, req)
		} else {
			required = append(required, req)
		}
	}
	for _, from := range arrays {
		elements, _ := f.get(from.path...).([]any)
		for _, e := range elements {
			s, ok := e.(string)
			if !ok {
				continue // a group that includes another
			}
			req, err := pep508.Parse(s)
			if err != nil {
				problem := f.problem(from.path, "%v", err)
				if i := bytes.Index(f.src, []byte(s)); i >= 0 && s != "" {
					problem = &SyntaxError{Line: lineOf(f.src, i), Problem: err.Error()}
				}
				return nil, nil, problem
			}
			note(req, from)
		}
	}
	for _, from := range tables {
		table, _ := f.get(from.path...).(map[string]any)
		for name, value := range table {
			if name != "python" || from.path[0] == "packages" {
				note(tableRequirement(name, value), from)
			}
		}
	}
	return required, development, nil
}

// tableRequirement reads a key of a table of requirements, as Poetry and Pipenv
// have them. Of several with different markers nothing is known but the name.
func tableRequirement(name string, value any) pep508.Requirement {
	req := pep508.Requirement{Name: name}
	marker := ""
	if table, ok := value.(map[string]any); ok {
		value = table["version"]
		marker, _ = table["markers"].(string)
	}
	constraint, _ := value.(string)
	text := name
	if ranges := poetryRanges(constraint); len(ranges) == 1 {
		text += ranges[0]
	}
	if marker != "" {
		text += " ; " + marker
	}
	if parsed, err := pep508.Parse(text); err == nil {
		return parsed
	}
	return req
}

// ownMetadata reads what the project requires that a requirements file installs
// with -e . or the like.
func (r *reader) ownMetadata() error {
	f, err := r.toml("pyproject.toml")
	if err != nil {
		return err
	}
	if f == nil || f.get("project", "dependencies") == nil {
		return r.setupConfig()
	}
	required, _, err := f.declared()
	for _, req := range required {
		r.require(req)
	}
	return in("pyproject.toml", err)
}

// setup reads the section [options] of setup.cfg, as far as it is simple; see
// https://setuptools.pypa.io/en/latest/userguide/declarative_config.html.
func (r *reader) setup() (options map[string]string, lines map[string]int, err error) {
	src, err := r.file("setup.cfg")
	if err != nil || src == nil {
		return nil, nil, err
	}
	options, lines = map[string]string{}, map[string]int{}
	section, key, number := "", "", 0
	for line := range strings.Lines(string(src)) {
		number++
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';':
		case trimmed[0] == '[' && line[0] == '[':
			section, key = strings.Trim(trimmed, "[]"), ""
		case section != "options":
		case line[0] == ' ' || line[0] == '\t':
			options[key] += "\n" + trimmed
		default:
			i := strings.IndexAny(trimmed, "=:")
			if i < 0 {
				return nil, nil, &SyntaxError{"setup.cfg", number, "neither a section nor a key with a value"}
			}
			key = strings.TrimSpace(trimmed[:i])
			options[key], lines[key] = strings.TrimSpace(trimmed[i+1:]), number
		}
	}
	return options, lines, nil
}

func (r *reader) setupPython() (string, error) {
	options, _, err := r.setup()
	return lowestMinor(options["python_requires"]), err
}

// setupConfig reads what setup.cfg requires.
func (r *reader) setupConfig() error {
	options, lines, err := r.setup()
	if err != nil {
		return err
	}
	for i, line := range strings.Split(options["install_requires"], "\n") {
		if line, _, _ = strings.Cut(line, " #"); strings.TrimSpace(line) == "" || strings.HasPrefix(line, "file:") {
			continue
		}
		req, err := pep508.Parse(line)
		if err != nil {
			return &SyntaxError{"setup.cfg", lines["install_requires"] + i, err.Error()}
		}
		r.require(req)
	}
	return nil
}

// lock reads the lock file of a project file, or if that is "", any there is. It
// is nil if there is none.
func (r *reader) lock(main string) (*lock, projectLock, error) {
	for _, file := range lockFiles {
		if main != "" && file.of != path.Base(main) {
			continue
		}
		name := path.Join(path.Dir(main), file.name)
		src, err := r.file(name)
		if err != nil {
			return nil, projectLock{}, err
		}
		if src == nil {
			continue
		}
		l, err := file.parse(src)
		return l, projectLock{name, src, file.lockFormat}, in(name, err)
	}
	if path.Base(main) == "pyproject.toml" {
		return r.workspaceLock(path.Dir(main))
	}
	return nil, projectLock{}, nil
}

// workspaceLock reads the uv.lock of a workspace that a folder is a member of.
func (r *reader) workspaceLock(dir string) (*lock, projectLock, error) {
	absolute, err := filepath.Abs(filepath.Join(r.p.Dir, filepath.FromSlash(dir)))
	if err != nil {
		return nil, projectLock{}, err
	}
	for up := path.Join(dir, ".."); ; up = path.Join(up, "..") {
		name := path.Join(up, lockFiles[0].name)
		src, err := r.file(name)
		if err != nil {
			return nil, projectLock{}, err
		}
		root, err := filepath.Abs(filepath.Join(r.p.Dir, filepath.FromSlash(up)))
		if err != nil || src == nil && root == filepath.Dir(root) {
			return nil, projectLock{}, err
		}
		if src == nil {
			continue
		}
		l, err := lockFiles[0].parse(src)
		if err != nil {
			return nil, projectLock{}, in(name, err)
		}
		member, err := filepath.Rel(root, absolute)
		l.roots = slices.DeleteFunc(l.roots, func(d dependency) bool { return d.member != filepath.ToSlash(member) })
		if err != nil || len(l.roots) == 0 {
			return nil, projectLock{}, nil // the folder is no member
		}
		return l, projectLock{name, src, lockFiles[0].lockFormat}, nil
	}
}
