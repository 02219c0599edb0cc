package requirements

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/imgwrap/imgwrap/layer/pep508"
)

// pyproject edits pyproject.toml. Packages are added to the project's own
// dependencies or, if a group is named, to that group, wherever the file has
// them: in the tables of the packaging standards, which uv, PDM, Hatch and
// Poetry 2 use, or in those that Poetry and PDM have of their own.
//
// See https://packaging.python.org/en/latest/specifications/pyproject-toml/,
// https://packaging.python.org/en/latest/specifications/dependency-groups/ and
// https://python-poetry.org/docs/pyproject/.
type pyproject struct {
	group string // "" for the dependencies that are always installed

	// python is the lowest minor that the packages are to be installed on, "3.10".
	// uv, Poetry and PDM lock for all versions of Python that a project allows
	// (requires-python), and refuse a package that does not run on all of them
	// unless a marker leaves out the others. "" if the packages do.
	python string
}

func (e pyproject) add(src []byte, pkgs []Package) ([]byte, error) {
	return editTOML(src, pkgs, func(f *tomlFile) ([]splice, error) {
		at, err := e.place(f)
		if err != nil {
			return nil, err
		}
		if !at.table {
			return f.addToArray(at.path, func(quote string) []string {
				var elements []string
				for _, p := range pkgs {
					elements = append(elements, quote+p.Name+"=="+p.Version+e.marker(quote)+quote)
				}
				return elements
			})
		}
		s, err := f.addVersions(at.path, pkgs, func(p Package) string {
			if e.python == "" {
				return strconv.Quote(p.Version)
			}
			return fmt.Sprintf("{version = %q, python = %q}", p.Version, ">="+e.python)
		})
		return []splice{s}, err
	})
}

func (pyproject) remove(src []byte) ([]byte, error) { return restoreTOML(src) }

// marker is what follows a requirement, within quotation marks.
func (e pyproject) marker(quote string) string {
	if e.python == "" {
		return ""
	}
	inner := `'`
	if quote == inner {
		inner = `"`
	}
	return "; python_version >= " + inner + e.python + inner
}

// place is where packages are added.
type place struct {
	path  []string
	table bool // of names and versions, as Poetry has them; else an array of requirements (PEP 508)
}

func (e pyproject) place(f *tomlFile) (place, error) {
	if e.group != "" {
		return e.groupPlace(f)
	}
	standard := place{path: []string{"project", "dependencies"}}
	poetry := place{path: []string{"tool", "poetry", "dependencies"}, table: true}
	switch {
	case f.get(standard.path...) != nil:
		return standard, nil
	case hasPackages(f.get(poetry.path...)):
		// Poetry 2 takes them from there too if [project] has none.
		return poetry, nil
	case isDynamic(f):
		return place{}, dynamicDependencies(f)
	case f.get("project") != nil:
		return standard, nil
	case f.get("tool", "poetry") != nil:
		return poetry, nil
	}
	return place{}, &SyntaxError{Problem: "it has neither [project] nor [tool.poetry]: what the project requires is said elsewhere"}
}

// hasPackages tells whether Poetry's dependencies are more than the version of
// Python.
func hasPackages(dependencies any) bool {
	table, _ := dependencies.(map[string]any)
	_, python := table["python"]
	return len(table) > 1 || len(table) == 1 && !python
}

func isDynamic(f *tomlFile) bool {
	dynamic, _ := f.get("project", "dynamic").([]any)
	return slices.Contains(dynamic, any("dependencies"))
}

// dynamicDependencies says where the dependencies come from if the build backend
// finds them.
func dynamicDependencies(f *tomlFile) error {
	path := []string{"project", "dynamic"}
	if dependencies, ok := f.get("tool", "setuptools", "dynamic", "dependencies").(map[string]any); ok {
		return f.problem(path, "dependencies are dynamic: setuptools reads them from %s", texts(dependencies["file"]))
	}
	if files := f.get("tool", "hatch", "metadata", "hooks", "requirements_txt", "files"); files != nil {
		return f.problem(path, "dependencies are dynamic: Hatch reads them from %s", texts(files))
	}
	backend, _ := f.get("build-system", "build-backend").(string)
	if strings.HasPrefix(backend, "setuptools") || backend == "" {
		return f.problem(path, "dependencies are dynamic: they are in setup.py or setup.cfg")
	}
	return f.problem(path, "dependencies are dynamic: the build backend %s finds them", backend)
}

// texts are the strings that v is: one, or an array.
func texts(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	list, _ := v.([]any)
	var all []string
	for _, s := range list {
		all = append(all, fmt.Sprint(s))
	}
	return strings.Join(all, ", ")
}

// groupName is what dependency groups and extras can be called (PEP 735, PEP 685).
var groupName = regexp.MustCompile(`^(?i:[a-z0-9]|[a-z0-9][a-z0-9._-]*[a-z0-9])$`)

func (e pyproject) groupPlace(f *tomlFile) (place, error) {
	if !groupName.MatchString(e.group) {
		return place{}, fmt.Errorf("%q is not a name of a dependency group", e.group)
	}
	for _, at := range []place{
		{path: []string{"dependency-groups"}},
		{path: []string{"tool", "poetry", "group"}, table: true},
		{path: []string{"project", "optional-dependencies"}},
		{path: []string{"tool", "pdm", "dev-dependencies"}},
	} {
		groups, _ := f.get(at.path...).(map[string]any)
		for name := range groups {
			if pep508.Normalize(name) == pep508.Normalize(e.group) {
				at.path = append(at.path, name)
				if at.table {
					at.path = append(at.path, "dependencies")
				}
				return at, nil
			}
		}
	}
	if pep508.Normalize(e.group) == "dev" {
		// What came before groups.
		for _, at := range []place{
			{path: []string{"tool", "poetry", "dev-dependencies"}, table: true},
			{path: []string{"tool", "uv", "dev-dependencies"}},
		} {
			if f.get(at.path...) != nil {
				return at, nil
			}
		}
	}
	if f.get("project") == nil && f.get("tool", "poetry") != nil {
		return place{path: []string{"tool", "poetry", "group", e.group, "dependencies"}, table: true}, nil
	}
	return place{path: []string{"dependency-groups", e.group}}, nil
}
