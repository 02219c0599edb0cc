package requirements

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

var twoPackages = []Package{
	{Name: "opentelemetry-distro", Version: "0.66b1"},
	{Name: "opentelemetry-exporter-otlp-proto-http", Version: "1.45.1"},
}

// edits are files before and after two packages are added to them. The rest of
// the mark's line is left out in them.
var edits = []struct {
	name          string
	editor        editor
	before, after string
}{
	{"array of lines", pyproject{}, `[project]
name = "shop"
dependencies = [
  "flask>=3", # the web
  "requests",
  # nothing more
]
requires-python = ">=3.9"
`, `[project]
name = "shop"
dependencies = [
  "flask>=3", # the web
  "requests",
  # nothing more
  # imgwrap:begin
  "opentelemetry-distro==0.66b1",
  "opentelemetry-exporter-otlp-proto-http==1.45.1",
  # imgwrap:end
]
requires-python = ">=3.9"
`},
	{"no comma at the end", pyproject{python: "3.10"}, `[project]
dependencies = [
	'flask>=3',
	'requests[socks] >= 2; python_version < "3.12"' # a comment, with a comma
	]
`, `[project]
dependencies = [
	'flask>=3',
	'requests[socks] >= 2; python_version < "3.12"', # a comment, with a comma
	# imgwrap:begin+
	'opentelemetry-distro==0.66b1; python_version >= "3.10"',
	'opentelemetry-exporter-otlp-proto-http==1.45.1; python_version >= "3.10"',
	# imgwrap:end
	]
`},
	{"one line", pyproject{python: "3.10"}, `[project]
dependencies = ["flask>=3", "requests"]
`, `[project]
dependencies = ["flask>=3", "requests", # imgwrap:begin+
    "opentelemetry-distro==0.66b1; python_version >= '3.10'",
    "opentelemetry-exporter-otlp-proto-http==1.45.1; python_version >= '3.10'",
    # imgwrap:end
]
`},
	{"one line with spaces", pyproject{}, `[project]
  dependencies = [ "flask>=3" , ] # a comment`, `[project]
  dependencies = [ "flask>=3" ,  # imgwrap:begin
      "opentelemetry-distro==0.66b1",
      "opentelemetry-exporter-otlp-proto-http==1.45.1",
      # imgwrap:end
  ] # a comment`},
	{"the last element's line", pyproject{}, `[project]
dependencies = [
    "flask>=3",
    "requests"]
`, `[project]
dependencies = [
    "flask>=3",
    "requests", # imgwrap:begin+
    "opentelemetry-distro==0.66b1",
    "opentelemetry-exporter-otlp-proto-http==1.45.1",
    # imgwrap:end
]
`},
	{"empty", pyproject{}, `[project]
dependencies = []
name = "shop"
`, `[project]
dependencies = [ # imgwrap:begin
    "opentelemetry-distro==0.66b1",
    "opentelemetry-exporter-otlp-proto-http==1.45.1",
    # imgwrap:end
]
name = "shop"
`},
	{"empty lines", pyproject{}, `project.dependencies = [
  # not yet
]
`, `project.dependencies = [
  # not yet
    # imgwrap:begin
    "opentelemetry-distro==0.66b1",
    "opentelemetry-exporter-otlp-proto-http==1.45.1",
    # imgwrap:end
]
`},
	{"no dependencies", pyproject{}, `[project]
name = "shop" # a name

# The tools.
[tool.ruff]
`, `[project]
name = "shop" # a name
# imgwrap:begin
dependencies = [
    "opentelemetry-distro==0.66b1",
    "opentelemetry-exporter-otlp-proto-http==1.45.1",
]
# imgwrap:end

# The tools.
[tool.ruff]
`},
	{"only Poetry's Python", pyproject{}, `project.name = "shop"
[tool.poetry.dependencies]
python = "^3.10"
`, `project.name = "shop"
# imgwrap:begin
project.dependencies = [
    "opentelemetry-distro==0.66b1",
    "opentelemetry-exporter-otlp-proto-http==1.45.1",
]
# imgwrap:end
[tool.poetry.dependencies]
python = "^3.10"
`},
	{"Poetry", pyproject{}, `[tool.poetry]
name = "shop"

[tool.poetry.dependencies]
python = "^3.10"
flask = {version = "^3.0", extras = ["async"]}

[tool.poetry.dependencies.uvicorn]
version = "*"

[build-system]
requires = ["poetry-core"]
`, `[tool.poetry]
name = "shop"

[tool.poetry.dependencies]
python = "^3.10"
flask = {version = "^3.0", extras = ["async"]}
# imgwrap:begin
opentelemetry-distro = "0.66b1"
opentelemetry-exporter-otlp-proto-http = "1.45.1"
# imgwrap:end

[tool.poetry.dependencies.uvicorn]
version = "*"

[build-system]
requires = ["poetry-core"]
`},
	{"Poetry with dots", pyproject{python: "3.10"}, `[tool]
poetry.dependencies.python = "^3.9"
poetry.dependencies.flask = "^3.0"
poetry.name = "shop"`, `[tool]
poetry.dependencies.python = "^3.9"
poetry.dependencies.flask = "^3.0"
# imgwrap:begin
poetry.dependencies.opentelemetry-distro = {version = "0.66b1", python = ">=3.10"}
poetry.dependencies.opentelemetry-exporter-otlp-proto-http = {version = "1.45.1", python = ">=3.10"}
# imgwrap:end
poetry.name = "shop"`},
	{"Poetry with a table for each", pyproject{}, `[tool.poetry.dependencies.flask]
version = "^3.0"`, `[tool.poetry.dependencies.flask]
version = "^3.0"
# imgwrap:begin
[tool.poetry.dependencies]
opentelemetry-distro = "0.66b1"
opentelemetry-exporter-otlp-proto-http = "1.45.1"
# imgwrap:end`},
	{"Poetry with [project]", pyproject{}, `[project]
name = "shop"
dynamic = ["dependencies"]
[tool.poetry.dependencies]
flask = "^3.0"`, `[project]
name = "shop"
dynamic = ["dependencies"]
[tool.poetry.dependencies]
flask = "^3.0"
# imgwrap:begin
opentelemetry-distro = "0.66b1"
opentelemetry-exporter-otlp-proto-http = "1.45.1"
# imgwrap:end`},
	{"group", pyproject{group: "Telemetry"}, `[dependency-groups]
"telemetry" = [{include-group = "x"}, "flask"]
x = [
  {include-group = "y"} # an inline table
]
`, `[dependency-groups]
"telemetry" = [{include-group = "x"}, "flask", # imgwrap:begin+
    "opentelemetry-distro==0.66b1",
    "opentelemetry-exporter-otlp-proto-http==1.45.1",
    # imgwrap:end
]
x = [
  {include-group = "y"} # an inline table
]
`},
	{"group that ends in a table", pyproject{group: "x"}, `[dependency-groups]
x = [
  {include-group = "y"} # an inline table
]
`, `[dependency-groups]
x = [
  {include-group = "y"}, # an inline table
  # imgwrap:begin+
  "opentelemetry-distro==0.66b1",
  "opentelemetry-exporter-otlp-proto-http==1.45.1",
  # imgwrap:end
]
`},
	{"new group", pyproject{group: "telemetry"}, `[project]
name = "shop"

[dependency-groups]
dev = ["pytest"]
`, `[project]
name = "shop"

[dependency-groups]
dev = ["pytest"]
# imgwrap:begin
telemetry = [
    "opentelemetry-distro==0.66b1",
    "opentelemetry-exporter-otlp-proto-http==1.45.1",
]
# imgwrap:end
`},
	{"first group", pyproject{group: "a.b"}, `[tool.black]
`, `[tool.black]
# imgwrap:begin
[dependency-groups]
"a.b" = [
    "opentelemetry-distro==0.66b1",
    "opentelemetry-exporter-otlp-proto-http==1.45.1",
]
# imgwrap:end
`},
	{"Poetry's group", pyproject{group: "telemetry"}, `[tool.poetry.group.telemetry]
optional = true
[tool.poetry.dependencies]
flask = "^3.0"
`, `[tool.poetry.group.telemetry]
optional = true
[tool.poetry.dependencies]
flask = "^3.0"
# imgwrap:begin
[tool.poetry.group.telemetry.dependencies]
opentelemetry-distro = "0.66b1"
opentelemetry-exporter-otlp-proto-http = "1.45.1"
# imgwrap:end
`},
	{"Poetry's new group", pyproject{group: "telemetry"}, `[tool.poetry.dependencies]
flask = "^3.0"
`, `[tool.poetry.dependencies]
flask = "^3.0"
# imgwrap:begin
[tool.poetry.group.telemetry.dependencies]
opentelemetry-distro = "0.66b1"
opentelemetry-exporter-otlp-proto-http = "1.45.1"
# imgwrap:end
`},
	{"Poetry's old group", pyproject{group: "dev"}, `[tool.poetry.dev-dependencies]
pytest = "*"
`, `[tool.poetry.dev-dependencies]
pytest = "*"
# imgwrap:begin
opentelemetry-distro = "0.66b1"
opentelemetry-exporter-otlp-proto-http = "1.45.1"
# imgwrap:end
`},
	{"extra", pyproject{group: "Open_Telemetry"}, `[project]
optional-dependencies.open-telemetry = []
`, `[project]
optional-dependencies.open-telemetry = [ # imgwrap:begin
    "opentelemetry-distro==0.66b1",
    "opentelemetry-exporter-otlp-proto-http==1.45.1",
    # imgwrap:end
]
`},
	{"PDM's group", pyproject{group: "dev"}, `[tool.pdm.dev-dependencies]
dev = ["pytest"]
`, `[tool.pdm.dev-dependencies]
dev = ["pytest", # imgwrap:begin+
    "opentelemetry-distro==0.66b1",
    "opentelemetry-exporter-otlp-proto-http==1.45.1",
    # imgwrap:end
]
`},
	{"marks that are none", pyproject{}, `# imgwrap:beginning
[project]
"# imgwrap:begin" = '# imgwrap:end'
readme = """
a "quoted" \""" # imgwrap:begin of
"""""
license = '''
# imgwrap:begin of'''''
dependencies = ['''flask''']
`, `# imgwrap:beginning
[project]
"# imgwrap:begin" = '# imgwrap:end'
readme = """
a "quoted" \""" # imgwrap:begin of
"""""
license = '''
# imgwrap:begin of'''''
dependencies = ['''flask''', # imgwrap:begin+
    'opentelemetry-distro==0.66b1',
    'opentelemetry-exporter-otlp-proto-http==1.45.1',
    # imgwrap:end
]
`},
	{"Pipfile", pipfile{}, `[[source]]
url = "https://pypi.org/simple"
verify_ssl = true
name = "pypi"

[packages]
flask = "*"  # the web
requests = {extras = ["socks"], version = ">=2"}

[dev-packages]

[requires]
python_version = "3.11"
`, `[[source]]
url = "https://pypi.org/simple"
verify_ssl = true
name = "pypi"

[packages]
flask = "*"  # the web
requests = {extras = ["socks"], version = ">=2"}
# imgwrap:begin
opentelemetry-distro = "==0.66b1"
opentelemetry-exporter-otlp-proto-http = "==1.45.1"
# imgwrap:end

[dev-packages]

[requires]
python_version = "3.11"
`},
	{"Pipfile without packages", pipfile{}, `[packages]`, `[packages]
# imgwrap:begin
opentelemetry-distro = "==0.66b1"
opentelemetry-exporter-otlp-proto-http = "==1.45.1"
# imgwrap:end`},
	{"empty Pipfile", pipfile{}, ``, `# imgwrap:begin
[packages]
opentelemetry-distro = "==0.66b1"
opentelemetry-exporter-otlp-proto-http = "==1.45.1"
# imgwrap:end
`},
}

func TestEditTOML(t *testing.T) {
	for _, tt := range edits {
		after := strings.NewReplacer(beginMark+"+\n", beginMark+writtenBehind+"\n", beginMark+"\n", beginMark+written+"\n").Replace(tt.after)
		crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
		t.Run(tt.name, func(t *testing.T) { testEdit(t, tt.editor, tt.before, after) })
		if strings.Contains(tt.before, "\n") {
			t.Run(tt.name+" CRLF", func(t *testing.T) { testEdit(t, tt.editor, crlf(tt.before), crlf(after)) })
		}
	}
}

func testEdit(t *testing.T, e editor, before, after string) {
	t.Helper()
	steps := []struct {
		name string
		do   func(src []byte) ([]byte, error)
		want string
	}{
		{"remove from what has nothing", e.remove, before},
		{"add", func(src []byte) ([]byte, error) { return e.add(src, twoPackages) }, after},
		{"add again", func(src []byte) ([]byte, error) { return e.add(src, twoPackages) }, after},
		{"add others", func(src []byte) ([]byte, error) { return e.add(src, twoPackages[:1]) }, ""},
		{"add those", func(src []byte) ([]byte, error) { return e.add(src, twoPackages) }, after},
		{"remove", e.remove, before},
	}
	src := []byte(before)
	for _, s := range steps {
		given := slices.Clone(src)
		out, err := s.do(src)
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if string(src) != string(given) {
			t.Fatalf("%s changed what it was given", s.name)
		}
		if s.want != "" && string(out) != s.want {
			t.Fatalf("%s:\n%s\nwant\n%s", s.name, out, s.want)
		}
		src = out
	}
}

// TestMovedMarks takes away packages from files that people and tools have
// changed in the meantime.
func TestMovedMarks(t *testing.T) {
	tests := []struct{ name, before, after string }{
		{"uv add", `[project]
dependencies = [
    "flask",
    # imgwrap:begin+
    "opentelemetry-distro==0.66b1",
    # imgwrap:end
    "requests>=2",
]
`, `[project]
dependencies = [
    "flask",
    "requests>=2",
]
`},
		{"a line made lines", `[project]
dependencies = [
    "flask", # imgwrap:begin+
    "opentelemetry-distro==0.66b1",
    # imgwrap:end
    "requests>=2"
]
`, `[project]
dependencies = [
    "flask","requests>=2"
]
`},
		{"a comma is gone", `[project]
dependencies = [ # imgwrap:begin+
    "opentelemetry-distro==0.66b1",
    # imgwrap:end
]
`, `[project]
dependencies = []
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := strings.ReplaceAll(tt.before, beginMark+"+", beginMark+writtenBehind)
			out, err := pyproject{}.remove([]byte(src))
			if err != nil {
				t.Fatal(err)
			}
			if string(out) != tt.after {
				t.Errorf("%s\nwant\n%s", out, tt.after)
			}
		})
	}
}

func TestEditTOMLErrors(t *testing.T) {
	tests := []struct {
		name   string
		editor editor
		src    string
		line   int
		want   string
	}{
		{"no TOML", pyproject{}, "[project]\nname = shop\n", 2, ""},
		{"twice the same", pipfile{}, "[packages]\na = 1\na = 2\n", 3, "a"},
		{"neither", pyproject{}, "[build-system]\nrequires = []\n", 0, "neither [project] nor [tool.poetry]"},
		{"setuptools", pyproject{}, "[project]\ndynamic = [\"version\", \"dependencies\"]\n[tool.setuptools.dynamic]\ndependencies = {file = [\"requirements.txt\", \"more.txt\"]}\n",
			2, "setuptools reads them from requirements.txt, more.txt"},
		{"setuptools and one file", pyproject{}, "[project]\ndynamic = [\"dependencies\"]\n[tool.setuptools.dynamic.dependencies]\nfile = \"requirements.in\"\n",
			2, "setuptools reads them from requirements.in"},
		{"Hatch", pyproject{}, "[project]\ndynamic = [\"dependencies\"]\n[tool.hatch.metadata.hooks.requirements_txt]\nfiles = [\"requirements.txt\"]\n",
			2, "Hatch reads them from requirements.txt"},
		{"setup.py", pyproject{}, "project.dynamic = [\"dependencies\"]\n", 1, "setup.py or setup.cfg"},
		{"backend", pyproject{}, "[project]\ndynamic = [\"dependencies\"]\n[build-system]\nbuild-backend = \"mesonpy\"\n", 2, "mesonpy"},
		{"inline", pyproject{}, "\n[tool.poetry]\ndependencies = {python = \"^3.9\", flask = \"*\"}\n", 3, "write it as [tool.poetry.dependencies]"},
		{"inline project", pyproject{}, "project = {name = \"shop\"}\n", 1, "project is an inline table"},
		{"inline array", pyproject{}, "project = {name = \"shop\", dependencies = []}\n", 1, "inline table"},
		{"no array", pyproject{}, "[project]\nname = \"shop\"\ndependencies = \"flask\"\n", 3, "project.dependencies is not an array"},
		{"no table", pipfile{}, "packages = 1\n", 1, "packages is not a table"},
		{"tables", pipfile{}, "[[packages]]\nflask = 1\n", 1, "packages is not a table"},
		{"there already", pipfile{}, "[packages]\nflask = \"*\"\nOpenTelemetry_Distro = \"*\"\n", 3, "OpenTelemetry_Distro is there already"},
		{"no group", pyproject{group: "a b"}, "[project]\n", 0, `"a b" is not a name of a dependency group`},
		{"begin twice", pyproject{}, "# imgwrap:begin\n# imgwrap:begin\n# imgwrap:end\n", 2, "a second # imgwrap:begin"},
		{"no end", pyproject{}, "\n# imgwrap:begin\n", 2, "without # imgwrap:end"},
		{"no begin", pyproject{}, "\n\n# imgwrap:end\n# imgwrap:begin", 3, "without # imgwrap:begin"},
		{"not ours", pyproject{}, "[project]\ndependencies = [\n# imgwrap:begin\n\"a==1\",\n\"requests>=2\",\n# imgwrap:end\n]\n", 3, "requests>=2"},
		{"not ours in a table", pipfile{}, "[packages]\n# imgwrap:begin\nflask = \"*\"\n# imgwrap:end\n", 2, "flask"},
		{"an end too far", pipfile{}, "[packages]\n# imgwrap:begin\nflask = \"==1\"\nrequests = \"*\" # imgwrap:end\n", 2, "requests"},
		{"broken by removing", pyproject{}, "[project]\ndependencies = [ # imgwrap:begin\n\"a==1\"] # imgwrap:end\n", 2, "not what was added here"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, err := tt.editor.add([]byte(tt.src), twoPackages)
			if err == nil {
				t.Fatalf("no error:\n%s", out)
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want %s", err, tt.want)
			}
			var at *SyntaxError
			if errors.As(err, &at) && at.Line != tt.line || !errors.As(err, &at) && tt.line > 0 {
				t.Errorf("%v, want line %d", err, tt.line)
			}
		})
	}
}

func FuzzPyproject(f *testing.F) {
	for _, tt := range edits {
		if e, ok := tt.editor.(pyproject); ok {
			f.Add([]byte(tt.before), e.group, e.python)
			f.Add([]byte(tt.after), e.group, e.python)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte, group, python string) {
		if python != "" {
			python = "3.10"
		}
		fuzzEdit(t, pyproject{group, python}, src)
	})
}

func FuzzPipfile(f *testing.F) {
	for _, tt := range edits {
		f.Add([]byte(tt.before))
		f.Add([]byte(tt.after))
	}
	f.Fuzz(func(t *testing.T, src []byte) { fuzzEdit(t, pipfile{}, src) })
}

func fuzzEdit(t *testing.T, e editor, src []byte) {
	without, err := e.remove(src)
	if err != nil {
		return
	}
	added, err := e.add(src, twoPackages)
	if err != nil {
		return
	}
	if again, err := e.add(added, twoPackages); err != nil || !bytes.Equal(again, added) {
		t.Errorf("added again: %q, %v; want %q", again, err, added)
	}
	if removed, err := e.remove(added); err != nil || !bytes.Equal(removed, without) {
		t.Errorf("removed: %q, %v; want %q", removed, err, without)
	}
	// Another parser reads the same of what was there.
	var before, after map[string]any
	if toml.Unmarshal(without, &before) != nil {
		return // it refuses more than the one that is used
	}
	if err := toml.Unmarshal(added, &after); err != nil {
		t.Fatalf("reading what was added to %q: %v\n%s", without, err, added)
	}
	rest := leaves("", after)
	for place, value := range leaves("", before) {
		if rest[place] != value {
			t.Errorf("%s is %s, was %s\n%s", place, rest[place], value, added)
		}
		delete(rest, place)
	}
	var names []string
	for place, value := range rest {
		if strings.Contains(place+value, "opentelemetry-distro") {
			names = append(names, place)
		} else if !strings.Contains(place+value, "opentelemetry-exporter-otlp-proto-http") {
			t.Errorf("%s is %s, was not there\n%s", place, value, added)
		}
	}
	if len(names) == 0 {
		t.Errorf("opentelemetry-distro is not there\n%s", added)
	}
}

// leaves are the values of a document by their places.
func leaves(place string, v any) map[string]string {
	all := map[string]string{}
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			maps.Copy(all, leaves(fmt.Sprintf("%s.%q", place, key), value))
		}
	case []any:
		for i, value := range v {
			maps.Copy(all, leaves(fmt.Sprintf("%s[%d]", place, i), value))
		}
	case []map[string]any:
		for i, value := range v {
			maps.Copy(all, leaves(fmt.Sprintf("%s[%d]", place, i), value))
		}
	default:
		all[place] = fmt.Sprintf("%v", v)
	}
	return all
}
