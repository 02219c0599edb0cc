package requirements

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/imgwrap/imgwrap/layer/pep440"
	"github.com/imgwrap/imgwrap/layer/pep508"
)

// lockFormat is a kind of lock file.
type lockFormat struct {
	parse func(src []byte) (*lock, error)
	// relock is the command that makes the lock follow the project file and
	// changes as little of it as can be.
	relock func(src []byte) string
}

func command(line string) func([]byte) string {
	return func([]byte) string { return line }
}

// lock is what a lock file fixes.
type lock struct {
	python   string // the versions of Python it is for, as specifiers
	packages []lockedPackage
	// roots are the packages that the graph of dependencies begins with. If there
	// are none, the packages are those to install as far as their markers hold.
	roots []dependency
}

type lockedPackage struct {
	name, version string
	marker        string // "" if it always holds
	python        string // the versions of Python it is for; "" for all
	development   bool   // only for it
	dependencies  []dependency
}

// dependency is an edge of the graph.
type dependency struct {
	name, version string // no version if there is only one
	marker        string
	extras        []string
	extra         string // of the package it starts from that it belongs to
	development   bool
	member        string // of a root, the folder of the project that it is of, relative to the lock
}

// holds tells whether a marker does. One that is not understood, such as the
// selection of groups in pylock.toml, is taken to.
func holds(marker string, env pep508.Environment) bool {
	if marker == "" {
		return true
	}
	req, err := pep508.Parse("x ; " + marker)
	return err != nil || req.Applies(env)
}

// installed returns what the lock installs in an environment, and which of it is
// only for development. Of several versions it is those whose markers hold, the
// highest if that leaves more than one.
func (l *lock) installed(env pep508.Environment) (versions map[string]string, development map[string]bool) {
	versions, development = map[string]string{}, map[string]bool{}
	take := func(p lockedPackage, dev bool) {
		if p.version == "" {
			return
		}
		had, ok := versions[p.name]
		development[p.name] = dev && (!ok || development[p.name])
		if !ok || newer(p.version, had) {
			versions[p.name] = p.version
		}
	}
	if l.roots == nil {
		full, err := pep440.Parse(env.PythonFullVersion)
		for _, p := range l.packages {
			within, bad := pep440.ParseSpecifiers(p.python)
			if holds(p.marker, env) && (err != nil || bad != nil || within.Contains(full)) {
				take(p, p.development)
			}
		}
		return versions, development
	}
	byName := map[string][]int{}
	for i, p := range l.packages {
		byName[p.name] = append(byName[p.name], i)
	}
	type state struct {
		index int
		extra string
	}
	for _, dev := range []bool{false, true} {
		seen := map[state]bool{}
		var visit func(d dependency)
		visit = func(d dependency) {
			if !holds(d.marker, env) {
				return
			}
			for _, i := range byName[d.name] {
				p := l.packages[i]
				if d.version != "" && d.version != p.version || !holds(p.marker, env) {
					continue
				}
				for _, extra := range append([]string{""}, d.extras...) {
					if seen[state{i, extra}] {
						continue
					}
					seen[state{i, extra}] = true
					take(p, dev)
					for _, next := range p.dependencies {
						if next.extra == extra {
							visit(next)
						}
					}
				}
			}
		}
		for _, d := range l.roots {
			if d.development == dev {
				visit(d)
			}
		}
	}
	return versions, development
}

// newer compares versions as far as they are of PEP 440.
func newer(a, b string) bool {
	x, err := pep440.Parse(a)
	y, bad := pep440.Parse(b)
	return err == nil && (bad != nil || x.Compare(y) > 0)
}

// decodeTOML reads a lock file that is TOML.
func decodeTOML(src []byte, into any) error {
	if err := toml.Unmarshal(src, into); err != nil {
		return tomlProblem(err)
	}
	return nil
}

func tomlProblem(err error) error {
	problem, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "toml: "), "\n")
	e := &SyntaxError{Problem: problem}
	var at *toml.DecodeError
	if errors.As(err, &at) {
		e.Line, _ = at.Position()
	}
	return e
}

// uvDependency is an edge in uv.lock.
type uvDependency struct {
	Name    string   `toml:"name"`
	Version string   `toml:"version"`
	Marker  string   `toml:"marker"`
	Extra   []string `toml:"extra"`
}

func (d uvDependency) edge() dependency {
	e := dependency{name: pep508.Normalize(d.Name), version: d.Version, marker: d.Marker}
	for _, extra := range d.Extra {
		e.extras = append(e.extras, pep508.Normalize(extra))
	}
	return e
}

// parseUV reads uv.lock, which is for all platforms at once: markers are on the
// edges, and on packages of which there are several versions.
func parseUV(src []byte) (*lock, error) {
	var file struct {
		RequiresPython string `toml:"requires-python"`
		Package        []struct {
			Name    string `toml:"name"`
			Version string `toml:"version"`
			Source  struct {
				Virtual, Editable string
			} `toml:"source"`
			ResolutionMarkers    []string                  `toml:"resolution-markers"`
			Dependencies         []uvDependency            `toml:"dependencies"`
			OptionalDependencies map[string][]uvDependency `toml:"optional-dependencies"`
			DevDependencies      map[string][]uvDependency `toml:"dev-dependencies"`
		} `toml:"package"`
	}
	if err := decodeTOML(src, &file); err != nil {
		return nil, err
	}
	l := &lock{python: file.RequiresPython, roots: []dependency{}}
	for _, p := range file.Package {
		folder := p.Source.Virtual + p.Source.Editable // of a member of the workspace
		root := func(e dependency) {
			if e.member = folder; folder != "" {
				l.roots = append(l.roots, e)
			}
		}
		q := lockedPackage{name: pep508.Normalize(p.Name), version: p.Version}
		if len(p.ResolutionMarkers) > 0 {
			q.marker = "(" + strings.Join(p.ResolutionMarkers, ") or (") + ")"
		}
		for _, d := range p.Dependencies {
			q.dependencies = append(q.dependencies, d.edge())
			root(d.edge())
		}
		if folder != "" {
			q.version = "" // no distribution that is locked
		}
		for extra, dependencies := range p.OptionalDependencies {
			for _, d := range dependencies {
				e := d.edge()
				e.extra = pep508.Normalize(extra)
				q.dependencies = append(q.dependencies, e)
				e.development = developmentName(extra)
				root(e)
			}
		}
		for group, dependencies := range p.DevDependencies {
			for _, d := range dependencies {
				e := d.edge()
				e.development = developmentName(group)
				root(e)
			}
		}
		l.packages = append(l.packages, q)
	}
	return l, nil
}

// parsePoetry reads poetry.lock of any version.
func parsePoetry(src []byte) (*lock, error) {
	var file struct {
		Package []struct {
			Name           string   `toml:"name"`
			Version        string   `toml:"version"`
			Category       string   `toml:"category"` // until 1.4
			Groups         []string `toml:"groups"`   // from 2.0 on
			Markers        any      `toml:"markers"`  // the same in all groups, or by group
			PythonVersions string   `toml:"python-versions"`
		} `toml:"package"`
		Metadata struct {
			PythonVersions string `toml:"python-versions"`
		} `toml:"metadata"`
	}
	if err := decodeTOML(src, &file); err != nil {
		return nil, err
	}
	l := &lock{}
	if ranges := poetryRanges(file.Metadata.PythonVersions); len(ranges) == 1 {
		l.python = ranges[0]
	}
	for _, p := range file.Package {
		q := lockedPackage{name: pep508.Normalize(p.Name), version: p.Version}
		q.development = p.Category == "dev" || len(p.Groups) > 0 && !slices.Contains(p.Groups, "main")
		switch markers := p.Markers.(type) {
		case string:
			q.marker = markers
		case map[string]any:
			q.marker, _ = markers["main"].(string)
		}
		if ranges := poetryRanges(p.PythonVersions); len(ranges) == 1 {
			q.python = ranges[0]
		}
		l.packages = append(l.packages, q)
	}
	return l, nil
}

var poetryVersion = regexp.MustCompile(`(?m)^# .* generated by Poetry ([0-9]+)\.`)

// relockPoetry is for the version of Poetry that made the lock: from 2 on locking
// keeps what is locked.
func relockPoetry(src []byte) string {
	if m := poetryVersion.FindSubmatch(src); m != nil && string(m[1]) == "1" || m == nil && !bytes.Contains(src, []byte("\ngroups = [")) {
		return "poetry lock --no-update"
	}
	return "poetry lock"
}

// parsePDM reads pdm.lock.
func parsePDM(src []byte) (*lock, error) {
	var file struct {
		Metadata struct {
			Targets []struct {
				RequiresPython string `toml:"requires_python"`
			} `toml:"targets"`
		} `toml:"metadata"`
		Package []struct {
			Name           string   `toml:"name"`
			Version        string   `toml:"version"`
			RequiresPython string   `toml:"requires_python"`
			Groups         []string `toml:"groups"`
			Marker         string   `toml:"marker"`
		} `toml:"package"`
	}
	if err := decodeTOML(src, &file); err != nil {
		return nil, err
	}
	l := &lock{}
	if len(file.Metadata.Targets) == 1 {
		l.python = file.Metadata.Targets[0].RequiresPython
	}
	for _, p := range file.Package {
		l.packages = append(l.packages, lockedPackage{
			name: pep508.Normalize(p.Name), version: p.Version, marker: p.Marker, python: p.RequiresPython,
			development: len(p.Groups) > 0 && !slices.ContainsFunc(p.Groups, func(g string) bool { return !developmentName(g) }),
		})
	}
	return l, nil
}

// parsePylock reads pylock.toml (PEP 751).
func parsePylock(src []byte) (*lock, error) {
	var file struct {
		LockVersion    string `toml:"lock-version"`
		RequiresPython string `toml:"requires-python"`
		Packages       []struct {
			Name           string `toml:"name"`
			Version        string `toml:"version"`
			Marker         string `toml:"marker"`
			RequiresPython string `toml:"requires-python"`
		} `toml:"packages"`
	}
	if err := decodeTOML(src, &file); err != nil {
		return nil, err
	}
	if file.LockVersion == "" {
		return nil, &SyntaxError{Line: 1, Problem: "it has no lock-version (PEP 751)"}
	}
	l := &lock{python: file.RequiresPython}
	for _, p := range file.Packages {
		l.packages = append(l.packages, lockedPackage{name: pep508.Normalize(p.Name), version: p.Version, marker: p.Marker, python: p.RequiresPython})
	}
	return l, nil
}

// parsePipfileLock reads Pipfile.lock.
func parsePipfileLock(src []byte) (*lock, error) {
	type packages map[string]struct {
		Version string `json:"version"` // "==1.2"
		Markers string `json:"markers"`
	}
	var file struct {
		Meta struct {
			Requires struct {
				Version string `json:"python_version"`
				Full    string `json:"python_full_version"`
			} `json:"requires"`
		} `json:"_meta"`
		Default packages `json:"default"`
		Develop packages `json:"develop"`
	}
	if err := json.Unmarshal(src, &file); err != nil {
		return nil, jsonProblem(src, err)
	}
	l := &lock{}
	if v := minorOf(file.Meta.Requires.Version + file.Meta.Requires.Full); v != "" {
		l.python = "==" + v + ".*"
	}
	for i, section := range []packages{file.Default, file.Develop} {
		for name, p := range section {
			l.packages = append(l.packages, lockedPackage{
				name: pep508.Normalize(name), version: strings.TrimLeft(p.Version, "="), marker: p.Markers, development: i == 1,
			})
		}
	}
	return l, nil
}

// jsonProblem says where JSON cannot be understood.
func jsonProblem(src []byte, err error) error {
	e := &SyntaxError{Problem: err.Error()}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		e.Line = lineOf(src, min(int(syntax.Offset), len(src)))
	case errors.As(err, &kind):
		e.Line = lineOf(src, min(int(kind.Offset), len(src)))
		e.Problem = fmt.Sprintf("%s is a %s", kind.Field, kind.Value)
	}
	return e
}

var developmentWord = regexp.MustCompile(`(?i)^(dev|develop|development|tests?|testing|docs?|documentation|lint|linting|typing|types|mypy|ci|qa|style|format|bench|benchmarks?)$`)

// developmentName tells whether something is by its name not for production: a
// group, an extra or a file.
func developmentName(name string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune("-_./ ", r) }), developmentWord.MatchString)
}
