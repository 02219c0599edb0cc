// Package requirements reads what a Python project says it needs, and adds
// packages to the files in which it says so.
//
// Files are edited by position: what is not added or taken away stays as it is,
// byte for byte, and taking away what was added gives the file that was.
package requirements

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/image/instrument"
	"github.com/imgwrap/imgwrap/layer/pep508"
)

// Project is what a folder's project files and locks say. Names in it are
// normalised (PEP 503), paths are relative to Dir and slash separated.
type Project struct {
	Dir string

	// Files are the project files that can be edited. The first is the one that
	// is when none is named, the one that the rest of Project is about.
	Files []string

	// Locked are the distributions whose versions are fixed, by a lock file or by
	// pinned requirements, and LockedBy the files that fix them.
	Locked   []instrument.Distribution
	LockedBy []string

	// Declared are the names that are required, whether locked or not, sorted.
	// Those that were added by this package are not among them.
	Declared []string

	// Python is the lowest minor that the project has to run on, "3.9"; "" if
	// nothing tells.
	Python string

	// Notes are about what was not read and may matter.
	Notes []string

	ranges map[string]string // of what is required and not locked, as specifiers
	// bystanders are locked or bounded, but not known to be installed where the
	// app runs, with the reason.
	bystanders  map[string]string
	development map[string]bool   // what is required for development only
	added       map[string]string // name and version of what is in marked blocks
	hashes      bool              // pip checks hashes of everything
	locks       []projectLock     // of the first file
}

// projectLock is a lock file that a change of the project file leaves behind.
type projectLock struct {
	file    string
	content []byte
	format  lockFormat
}

// MissingFileError says that there is no project file of a name, or none at all.
type MissingFileError struct {
	Dir, File string // File is "" if none was named
	Files     []string
}

func (e *MissingFileError) Error() string {
	if e.File == "" {
		return "no project file that can be edited in " + e.Dir
	}
	return fmt.Sprintf("%s is no project file in %s", e.File, e.Dir)
}

// Hint says which files there are, or may be.
func (e *MissingFileError) Hint() string {
	if len(e.Files) > 0 {
		return "there is " + strings.Join(e.Files, ", ")
	}
	return "it has to be a requirements file, Pipfile, pyproject.toml with the dependencies in it, or environment.yml"
}

// Read reads the project in a folder. Files that are not there or not of a
// project are no error; a project file that cannot be understood is a
// *SyntaxError, with its name and line.
func Read(dir string) (*Project, error) { return ReadFor(dir, "", "") }

// ReadFor reads the project in a folder by one of its files, relative to the
// folder, and as it is installed on a version of Python; either may be empty. If
// there is no such file, the error is a *MissingFileError.
func ReadFor(dir, file, python string) (*Project, error) {
	r := &reader{p: &Project{Dir: dir}, target: python}
	if err := r.list(file); err != nil {
		return nil, err
	}
	return r.read()
}

// List finds the files of a project and does not read what they say: a project
// that cannot be understood can be given to [Project.Remove] all the same. The
// file is that of [ReadFor].
func List(dir, file string) (*Project, error) {
	r := &reader{p: &Project{Dir: dir}, unread: true}
	if err := r.list(file); err != nil {
		return nil, err
	}
	return r.p, nil
}

type reader struct {
	p           *Project
	target      string // the Python that it is installed on, "" for the lowest
	unread      bool   // only the names of files are asked for
	env         pep508.Environment
	locked      map[string]string
	constraints map[string]string // specifiers by name, of what nobody has required so far
	open        map[string]bool   // files that are being read
}

// file returns the content of a file of the project; it is nil if there is none.
func (r *reader) file(name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(r.p.Dir, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && b == nil {
		b = []byte{}
	}
	return b, err
}

// in names the file of a problem, if it is one of a file's content.
func in(file string, err error) error {
	var problem *SyntaxError
	if errors.As(err, &problem) && problem.File == "" {
		return &SyntaxError{File: file, Line: problem.Line, Problem: problem.Problem}
	}
	return err
}

// editorFor is nil if the file cannot be edited.
func editorFor(file string) editor {
	switch base := path.Base(file); base {
	case "Pipfile":
		return pipfile{}
	case "pyproject.toml":
		return pyproject{}
	}
	switch path.Ext(file) {
	case ".yml", ".yaml":
		return conda{}
	case ".txt", ".in", ".pip":
		return text{}
	}
	return nil
}

// projectName matches the project files that are found; others have to be named.
var projectName = regexp.MustCompile(`^(Pipfile|pyproject\.toml)$` +
	`|^(conda-)?environment([-_.][\w-]+)?\.ya?ml$` +
	`|(?i)^([\w./-]*[-_./])?(requirements|reqs)([-_.][\w.-]+)?\.(txt|in|pip)$` +
	`|(?i)^(requirements|reqs)/[\w.-]+\.(txt|in|pip)$`)

// list finds the project files. The one that is asked for becomes the first.
func (r *reader) list(asked string) error {
	if asked != "" {
		asked = path.Clean(filepath.ToSlash(asked))
	}
	entries, err := os.ReadDir(r.p.Dir)
	if err != nil {
		return fmt.Errorf("reading the project: %w", err)
	}
	var names []string
	for _, e := range entries {
		switch {
		case !e.IsDir():
			names = append(names, e.Name())
		case strings.EqualFold(e.Name(), "requirements") || strings.EqualFold(e.Name(), "reqs"):
			inside, err := os.ReadDir(filepath.Join(r.p.Dir, e.Name()))
			if err != nil {
				return fmt.Errorf("reading the project: %w", err)
			}
			for _, f := range inside {
				if !f.IsDir() {
					names = append(names, e.Name()+"/"+f.Name())
				}
			}
		}
	}
	rank := map[string]int{}
	for _, name := range names {
		if strings.Contains(strings.ToLower(name), "constraint") || !projectName.MatchString(name) {
			continue
		}
		rank[name] = fileRank(name)
		if name != "pyproject.toml" || r.unread {
			continue
		}
		managed, editable, err := r.pyproject(names)
		switch {
		case err != nil:
			return err
		case !editable:
			delete(rank, name)
		case managed:
			rank[name] = 0
		}
	}
	r.p.Files = slices.SortedFunc(maps.Keys(rank), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank[a], rank[b]), cmp.Compare(a, b))
	})
	if asked == "" {
		return nil
	}
	if !slices.Contains(r.p.Files, asked) {
		// One of another place, or with a name of its own.
		info, err := os.Stat(filepath.Join(r.p.Dir, filepath.FromSlash(asked)))
		if err != nil || info.IsDir() || editorFor(asked) == nil {
			return &MissingFileError{r.p.Dir, asked, r.p.Files}
		}
	}
	r.p.Files = append([]string{asked}, slices.DeleteFunc(r.p.Files, func(f string) bool { return f == asked })...)
	return nil
}

// fileRank orders project files, the one first that a deployment is most likely
// to install from.
func fileRank(name string) int {
	lower := strings.ToLower(name)
	base := strings.TrimSuffix(lower, path.Ext(lower))
	words := strings.FieldsFunc(base, func(r rune) bool { return strings.ContainsRune("-_./", r) })
	has := func(list ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(list, w) })
	}
	rank := 10
	switch editorFor(name).(type) {
	case pipfile:
		return 1
	case pyproject: // without a lock; see list for others
		return 40
	case conda:
		rank = 30
	}
	switch {
	case developmentName(base):
		rank += 50
	case base == "requirements", base == "environment":
	case base == "requirements/requirements":
		rank += 1
	case has("prod", "production", "deploy", "live"):
		rank += 2
	case has("base", "main", "common", "app"):
		rank += 3
	default:
		rank += 4
	}
	if path.Ext(lower) == ".in" {
		rank++ // what is made of it is installed
	}
	return rank
}

// pyproject tells whether pyproject.toml is what the project is installed from,
// rather than a file beside that, and whether its dependencies can be edited.
func (r *reader) pyproject(names []string) (managed, editable bool, err error) {
	src, err := r.file("pyproject.toml")
	if err != nil {
		return false, false, err
	}
	f, err := parseTOML(src)
	if err != nil {
		return false, false, in("pyproject.toml", err)
	}
	poetry := f.get("tool", "poetry") != nil && (f.get("tool", "poetry", "dependencies") != nil || f.get("project") == nil)
	if f.get("project") == nil && !poetry || isDynamic(f) && !poetry {
		return false, false, nil
	}
	locked := slices.ContainsFunc(lockFiles, func(l lockFile) bool {
		return l.of == "pyproject.toml" && slices.Contains(names, l.name)
	})
	return locked || poetry, true, nil
}

type lockFile struct {
	name, of string
	lockFormat
}

// lockFiles in the order in which they count, if there are several.
var lockFiles = []lockFile{
	{"uv.lock", "pyproject.toml", lockFormat{parseUV, command("uv lock")}},
	{"poetry.lock", "pyproject.toml", lockFormat{parsePoetry, relockPoetry}},
	{"pdm.lock", "pyproject.toml", lockFormat{parsePDM, command("pdm lock --update-reuse")}},
	{"pylock.toml", "pyproject.toml", lockFormat{parsePylock, nil}},
	{"Pipfile.lock", "Pipfile", lockFormat{parsePipfileLock, command("pipenv upgrade")}},
}

// assumedPython is what markers are evaluated with where nothing tells which
// Python the project runs on.
const assumedPython = "3.13"

// read reads the first file and what goes with it.
func (r *reader) read() (*Project, error) {
	p := r.p
	p.ranges, p.bystanders, p.added = map[string]string{}, map[string]string{}, map[string]string{}
	p.development = map[string]bool{}
	r.locked, r.constraints, r.open = map[string]string{}, map[string]string{}, map[string]bool{}
	main := ""
	if len(p.Files) > 0 {
		main = p.Files[0]
	}
	if err := r.python(main); err != nil {
		return nil, err
	}
	r.env = pep508.Linux(cmp.Or(r.target, p.Python, assumedPython), "x86_64")
	var err error
	switch editorFor(main).(type) {
	case text:
		err = r.mainText(main)
	case conda:
		err = r.mainConda(main)
	case pipfile, pyproject:
		err = r.mainTOML(main)
	default:
		err = r.setupConfig()
	}
	if _, isText := editorFor(main).(text); err == nil && !isText {
		err = r.readLock(main)
	}
	if err != nil {
		return nil, err
	}
	r.finish()
	return p, nil
}

// require notes a requirement.
func (r *reader) require(req pep508.Requirement) {
	if !req.Applies(r.env) {
		return
	}
	name := pep508.Normalize(req.Name)
	r.p.ranges[name] = both(r.p.ranges[name], req.Specifiers.String())
	if version, ok := pinned(req); ok {
		r.locked[name] = version
	}
}

// constrain notes what has to hold if something is installed, and returns its name.
func (r *reader) constrain(req pep508.Requirement) string {
	name := pep508.Normalize(req.Name)
	r.constraints[name] = both(r.constraints[name], req.Specifiers.String())
	return name
}

// both are two lists of specifiers as one.
func both(a, b string) string {
	if a == "" || b == "" || a == b {
		return cmp.Or(a, b)
	}
	return a + "," + b
}

// finish brings what was read in order.
func (r *reader) finish() {
	p := r.p
	for name, within := range r.constraints {
		if _, ok := p.ranges[name]; ok {
			p.ranges[name] = both(p.ranges[name], within)
			delete(p.development, name)
		} else if r.locked[name] == "" {
			p.ranges[name], p.bystanders[name] = within, "there is only a constraint for it"
			if p.development[name] {
				p.bystanders[name] = "it is there for development only"
			}
		}
		if req, err := pep508.Parse(name + within); err == nil && r.locked[name] == "" {
			if version, ok := pinned(req); ok {
				r.locked[name] = version
			}
		}
	}
	for name := range p.ranges {
		if _, only := p.bystanders[name]; !only {
			p.Declared = append(p.Declared, name)
		}
	}
	slices.Sort(p.Declared)
	for _, name := range slices.Sorted(maps.Keys(r.locked)) {
		p.Locked = append(p.Locked, instrument.Distribution{Name: name, Version: r.locked[name]})
		delete(p.ranges, name)
	}
	slices.Sort(p.LockedBy)
	p.LockedBy = slices.Compact(p.LockedBy)
}

// own notes what earlier additions put into a file, given what the file requires
// with and without them.
func (r *reader) own(with, without []pep508.Requirement) {
	had := map[string]bool{}
	for _, req := range without {
		had[pep508.Normalize(req.Name)] = true
	}
	for _, req := range with {
		name := pep508.Normalize(req.Name)
		if version, ok := pinned(req); ok && !had[name] {
			r.p.added[name] = version
		}
	}
}

// mainText reads a requirements file that may be edited. If there is a file that
// it is compiled from, that one says what is required, and the compiled one is
// its lock.
func (r *reader) mainText(main string) error {
	names := r.p.pair(main)
	for i, name := range names {
		src, err := r.file(name)
		if err != nil {
			return err
		}
		with, without, err := textWithout(src)
		if err != nil {
			return in(name, err)
		}
		r.own(with.requirements, without.requirements)
		if i == 0 {
			if err := r.text(name, without, false); err != nil {
				return err
			}
			continue
		}
		for _, req := range without.requirements {
			if version, ok := pinned(req); ok && req.Applies(r.env) {
				r.locked[pep508.Normalize(req.Name)] = version
			}
		}
		r.p.hashes = without.hashes
		r.p.LockedBy = append(r.p.LockedBy, name)
		r.p.locks = append(r.p.locks, projectLock{name, src, lockFormat{relock: compileCommand(names[0], name)}})
	}
	return nil
}

// textWithout parses a requirements file as it is and without what was added.
func textWithout(src []byte) (with, without *textFile, err error) {
	clean, err := text{}.remove(src)
	if err != nil {
		return nil, nil, err
	}
	if with, err = parseText(src); err != nil {
		return nil, nil, err
	}
	without, err = parseText(clean)
	return with, without, err
}

// pair returns the names of a compiled requirements file and of its source, the
// source first, if main is one of both. Else it is main alone.
func (p *Project) pair(main string) []string {
	stem := strings.TrimSuffix(main, path.Ext(main))
	both := []string{stem + ".in", stem + ".txt"}
	if slices.Contains(both, main) && slices.Contains(p.Files, both[0]) && slices.Contains(p.Files, both[1]) {
		return both
	}
	return []string{main}
}

var compiledWith = regexp.MustCompile(`(?m)^#\s+((?:pip-compile|uv pip compile)\b.*?)\s*$`)

// compileCommand is the command that a compiled file names in its head.
func compileCommand(source, compiled string) func([]byte) string {
	return func(src []byte) string {
		if m := compiledWith.FindSubmatch(src); m != nil {
			return string(m[1])
		}
		return fmt.Sprintf("pip-compile --output-file=%s %s", compiled, source)
	}
}

// text notes what a requirements file says, and the files it includes.
func (r *reader) text(name string, f *textFile, constraint bool) error {
	if r.open[name] {
		return nil
	}
	r.open[name] = true
	r.p.hashes = r.p.hashes || f.hashes
	if f.project && path.Dir(name) == "." {
		if err := r.ownMetadata(); err != nil {
			return err
		}
	}
	for _, req := range f.requirements {
		if !req.Applies(r.env) {
			continue
		}
		if _, ok := pinned(req); ok {
			r.p.LockedBy = append(r.p.LockedBy, name)
		}
		if constraint {
			r.constrain(req)
		} else {
			r.require(req)
		}
	}
	for _, include := range f.included {
		if strings.Contains(include.path, "://") {
			r.p.Notes = append(r.p.Notes, fmt.Sprintf("%s:%d: %s is not read: only files are", name, include.line, include.path))
			continue
		}
		included := path.Join(path.Dir(name), include.path)
		if path.IsAbs(include.path) {
			r.p.Notes = append(r.p.Notes, fmt.Sprintf("%s:%d: %s is not read: it is not in the project", name, include.line, include.path))
			continue
		}
		src, err := r.file(included)
		if err != nil {
			return err
		}
		if src == nil {
			return &SyntaxError{name, include.line, include.path + " does not exist"}
		}
		g, err := parseText(src)
		if err != nil {
			return in(included, err)
		}
		if err := r.text(included, g, constraint || include.constraint); err != nil {
			return err
		}
	}
	return nil
}

// mainConda reads environment.yml.
func (r *reader) mainConda(main string) error {
	src, err := r.file(main)
	if err != nil {
		return err
	}
	clean, err := conda{}.remove(src)
	if err != nil {
		return in(main, err)
	}
	with, err := parseConda(src)
	if err != nil {
		return in(main, err)
	}
	without, err := parseConda(clean)
	if err != nil {
		return in(main, err)
	}
	r.own(with.text.requirements, without.text.requirements)
	for _, req := range without.requirements {
		if _, ok := pinned(req); ok {
			r.p.LockedBy = append(r.p.LockedBy, main)
		}
		r.require(req)
	}
	return r.text(main, without.text, false)
}

// readLock reads the lock file of the project file, or if there is no project
// file, any there is.
func (r *reader) readLock(main string) error {
	l, from, err := r.lock(main)
	if err != nil || l == nil {
		return err
	}
	versions, development := l.installed(r.env)
	for name := range versions {
		if _, declared := r.p.ranges[name]; development[name] && !declared {
			r.p.bystanders[name] = "it is there for development only"
		}
	}
	maps.Copy(r.locked, versions)
	r.p.LockedBy = append(r.p.LockedBy, from.file)
	r.p.locks = append(r.p.locks, from)
	return nil
}
