package requirements

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/imgwrap/imgwrap/layer/catalog"
)

// layout writes the files of an archive in testdata/projects to a folder.
func layout(t *testing.T, name string) string {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", "projects", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	return unpack(t, a)
}

func unpack(t *testing.T, a *txtar.Archive) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range a.Files {
		p := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRead(t *testing.T) {
	for _, tt := range []struct {
		layout, file, target                      string
		files, python, locked, lockedBy, declared string
		ranges, bystanders, notes                 string
		hashes                                    bool
	}{
		{
			layout: "uv", files: "pyproject.toml requirements.txt", python: "3.10", lockedBy: "uv.lock",
			locked:     "asgiref==3.8.1 click==8.1.7 flask==3.0.3 iniconfig==2.0.0 numpy==2.2.6 pytest==8.3.4 redis==5.2.1 requests==2.32.3 typing-extensions==4.12.2 werkzeug==3.1.3",
			declared:   "flask numpy redis",
			bystanders: "iniconfig pytest requests",
		},
		{
			layout: "uv", target: "3.12", files: "pyproject.toml requirements.txt", python: "3.10", lockedBy: "uv.lock",
			locked:     "asgiref==3.8.1 click==8.1.7 flask==3.0.3 iniconfig==2.0.0 numpy==2.3.5 pytest==8.3.4 redis==5.2.1 requests==2.32.3 werkzeug==3.1.3",
			declared:   "flask numpy redis",
			bystanders: "iniconfig pytest requests",
		},
		{
			layout: "uv", file: "requirements.txt", files: "requirements.txt pyproject.toml", python: "3.12", lockedBy: "requirements.txt",
			locked: "flask==1.0", declared: "flask",
		},
		{
			layout: "poetry2", files: "pyproject.toml", python: "3.11", lockedBy: "poetry.lock",
			locked: "fastapi==0.115.6 httpx==0.28.1 requests==2.32.3", declared: "fastapi httpx", ranges: "pytest:>=8.0,<9", bystanders: "pytest requests",
		},
		{
			layout: "poetry1", files: "pyproject.toml", python: "3.8", lockedBy: "poetry.lock",
			locked:   "django==4.2.16 numpy==1.24.4 psycopg2-binary==2.9.9 requests==2.31.0",
			declared: "django importlib-metadata internal psycopg2-binary", bystanders: "requests",
			ranges: "importlib-metadata: internal:",
		},
		{
			layout: "pdm", files: "pyproject.toml", python: "3.9", lockedBy: "pdm.lock",
			locked: "celery==5.4.0 exceptiongroup==1.2.2 redis==5.2.1 sqlalchemy==2.0.36", declared: "celery sqlalchemy", ranges: "pytest:", bystanders: "exceptiongroup pytest",
		},
		{
			layout: "pylock", files: "pyproject.toml", python: "3.10", lockedBy: "pylock.toml",
			locked: "aiohttp==3.11.11 pytest==8.3.4 uvloop==0.21.0", declared: "aiohttp",
		},
		{
			layout: "pipenv", files: "Pipfile", python: "3.11", lockedBy: "Pipfile.lock",
			locked: "flask==3.1.0 redis==5.2.1 requests==2.32.3 ruamel-yaml==0.18.6", declared: "flask redis ruamel-yaml", bystanders: "requests",
		},
		{
			layout: "pinned", files: "requirements.txt requirements/base.txt requirements/dev.txt", python: "3.11",
			lockedBy: "constraints.txt requirements.txt requirements/base.txt",
			locked:   "flask==3.0.3 gunicorn==23.0.0 protobuf==4.25.5 requests==2.32.3", declared: "flask gunicorn redis requests",
			ranges: "kafka-python:<3 redis:>=4,<6", bystanders: "kafka-python protobuf",
		},
		{
			layout: "compiled", files: "requirements.txt requirements.in", python: "3.10", lockedBy: "requirements.txt",
			locked: "click==8.1.7 flask==3.0.3", declared: "flask", hashes: true,
		},
		{
			layout: "unpinned", files: "requirements.txt", python: "3.9",
			declared: "flask psycopg", ranges: "flask:>=2,<4 psycopg:",
		},
		{
			layout: "conda", files: "environment.yml", python: "3.10", lockedBy: "environment.yml extra.txt",
			locked: "flask==3.0.3 httpx==0.28.1 redis==5.2.1", declared: "flask httpx numpy redis", ranges: "numpy:==1.26.*",
		},
		{
			layout: "setupcfg", python: "3.8",
			locked: "redis==4.6.0", declared: "flask redis", ranges: "flask:>=2",
		},
		{
			layout: "editable", files: "requirements.txt pyproject.toml", python: "3.11", lockedBy: "requirements.txt",
			locked: "gunicorn==23.0.0", declared: "flask gunicorn", ranges: "flask:>=3",
		},
		{
			layout: "development", files: "pyproject.toml", python: "3.11",
			locked: "opentelemetry-distro==0.50b0", declared: "flask", ranges: "flask:", bystanders: "opentelemetry-distro",
		},
		{layout: "empty"},
		{layout: "pep621", files: "pyproject.toml requirements-dev.txt", python: "3.12", declared: "starlette", ranges: "starlette:"},
		{layout: "dynamic", files: "requirements.txt", python: "3.11", lockedBy: "requirements.txt", locked: "sanic==24.6.0", declared: "sanic"},
	} {
		t.Run(tt.layout+" "+tt.file+tt.target, func(t *testing.T) {
			p, err := ReadFor(layout(t, tt.layout), tt.file, tt.target)
			if err != nil {
				t.Fatal(err)
			}
			var locked []string
			for _, d := range p.Locked {
				locked = append(locked, d.Name+"=="+d.Version)
			}
			var ranges []string
			for _, name := range slices.Sorted(maps.Keys(p.ranges)) {
				ranges = append(ranges, name+":"+p.ranges[name])
			}
			for _, c := range []struct{ what, got, want string }{
				{"files", strings.Join(p.Files, " "), tt.files},
				{"Python", p.Python, tt.python},
				{"locked", strings.Join(locked, " "), tt.locked},
				{"locked by", strings.Join(p.LockedBy, " "), tt.lockedBy},
				{"declared", strings.Join(p.Declared, " "), tt.declared},
				{"ranges", strings.Join(ranges, " "), tt.ranges},
				{"bystanders", strings.Join(slices.Sorted(maps.Keys(p.bystanders)), " "), tt.bystanders},
				{"notes", strings.Join(p.Notes, "\n"), tt.notes},
			} {
				if c.got != c.want {
					t.Errorf("%s: %q, want %q", c.what, c.got, c.want)
				}
			}
			if p.hashes != tt.hashes {
				t.Errorf("hashes: %t", p.hashes)
			}
		})
	}
}

func TestReadProblems(t *testing.T) {
	for _, tt := range []struct{ files, problem string }{
		{"-- requirements.txt --\nflask\n-r gone.txt\n", "requirements.txt:2: gone.txt does not exist"},
		{"-- requirements.txt --\n-r a/b.txt\n-- a/b.txt --\nflask =2\n", `a/b.txt:1: `},
		{"-- requirements.txt --\nflask\n# imgwrap:begin\n", "requirements.txt:2: # imgwrap:begin without # imgwrap:end"},
		{"-- Pipfile --\n[packages]\nflask = \n", "Pipfile:2: "},
		{"-- Pipfile --\n[packages]\n-- Pipfile.lock --\n{\n\"default\": {\n}", "Pipfile.lock:4: unexpected end"},
		{"-- Pipfile --\n[packages]\n-- Pipfile.lock --\n{\"default\":\n []}\n", "Pipfile.lock:2: default is a array"},
		{"-- pyproject.toml --\n[project]\nname = \"x\"\ndependencies = [\n  \"flask\",\n  \"a b\",\n]\n", "pyproject.toml:5: "},
		{"-- pyproject.toml --\n[project\n", "pyproject.toml:1: "},
		{"-- pyproject.toml --\n[project]\nname = \"x\"\nrequires-python = \"3.x\"\n", "pyproject.toml:3: "},
		{"-- pyproject.toml --\n[project]\nname = \"x\"\n-- uv.lock --\nversion = 1\n\n[[package]\n", "uv.lock:3: "},
		{"-- pyproject.toml --\n[project]\nname = \"x\"\n-- poetry.lock --\nversion = 1\npackage = 3\n", "poetry.lock:2: "},
		{"-- pyproject.toml --\n[project]\nname = \"x\"\n-- pylock.toml --\npackages = []\n", "pylock.toml:1: "},
		{"-- environment.yml --\nname: x\ndependencies:\n  - a: [\n", "environment.yml:3: "},
		{"-- setup.cfg --\n[options]\ninstall_requires =\n  flask\n  a b\n", "setup.cfg:4: "},
		{"-- setup.cfg --\n[options]\nwhat\n", "setup.cfg:2: "},
	} {
		_, err := Read(unpack(t, txtar.Parse([]byte(tt.files))))
		var problem *SyntaxError
		if !errors.As(err, &problem) || !strings.HasPrefix(err.Error(), tt.problem) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %s", tt.files, err, tt.problem)
		}
	}
	var missing *MissingFileError
	if _, err := ReadFor(layout(t, "pipenv"), "setup.py", ""); !errors.As(err, &missing) || missing.Hint() != "there is Pipfile" {
		t.Errorf("setup.py: %v", err)
	}
	if _, err := Read(filepath.Join(t.TempDir(), "gone")); err == nil {
		t.Error("a folder that is not there was read")
	}
}

func TestPoetryRanges(t *testing.T) {
	for constraint, want := range map[string]string{
		"^1.2.3": ">=1.2.3,<2", "^0.2.3": ">=0.2.3,<0.3", "^0.0.3": ">=0.0.3,<0.0.4", "^0": ">=0,<1", "^1": ">=1,<2",
		"~1.2.3": ">=1.2.3,<1.3", "~1": ">=1,<2", "~=1.2": "~=1.2", "1.2": "==1.2", "1.2.*": "==1.2.*", "*": "", "": "",
		">=1,<2": ">=1,<2", ">= 1.0 <2": ">=1.0,<2", "==1.2": "==1.2", "=1.2": "==1.2", "!=1.3": "!=1.3",
		"^2.7 || ^3.6": ">=2.7,<3|>=3.6,<4", "odd": "", "^odd": "",
	} {
		if got := strings.Join(poetryRanges(constraint), "|"); got != want {
			t.Errorf("%q: %q, want %q", constraint, got, want)
		}
	}
}

func TestLowestMinor(t *testing.T) {
	for within, want := range map[string]string{
		">=3.9": "3.9", ">=3.9,<4": "3.9", ">3.9": "3.9", "~=3.10": "3.10", "==3.11.*": "3.11", "==3.12.4": "3.12", ">=3.9.2,!=3.9.*": "3.10",
		"<4": "", "": "", "!=3.1.*": "", "odd": "",
	} {
		if got := lowestMinor(within); got != want {
			t.Errorf("%q: %q, want %q", within, got, want)
		}
	}
}

func loadCatalog(t *testing.T) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestReadWorkspace is about a member of a workspace of uv, whose lock is further
// up and has other members, too.
func TestReadWorkspace(t *testing.T) {
	dir := unpack(t, txtar.Parse([]byte(`
-- uv.lock --
version = 1
requires-python = ">=3.11"

[manifest]
members = ["api", "jobs", "root"]

[[package]]
name = "api"
version = "1"
source = { editable = "services/api" }
dependencies = [{ name = "flask" }, { name = "jobs" }]

[[package]]
name = "flask"
version = "3.0.3"
source = { registry = "https://pypi.org/simple" }

[[package]]
name = "jobs"
version = "1"
source = { virtual = "services/jobs" }
dependencies = [{ name = "redis" }]

[[package]]
name = "redis"
version = "5.2.1"
source = { registry = "https://pypi.org/simple" }

[[package]]
name = "celery"
version = "5.4.0"
source = { registry = "https://pypi.org/simple" }

[[package]]
name = "root"
version = "1"
source = { virtual = "." }
dependencies = [{ name = "celery" }]
-- services/api/pyproject.toml --
[project]
name = "api"
version = "1"
dependencies = ["flask", "jobs"]
-- services/other/pyproject.toml --
[project]
name = "other"
version = "1"
dependencies = ["flask"]
`)))
	for _, tt := range []struct{ folder, python, lockedBy, locked string }{
		{"services/api", "3.11", "../../uv.lock", "[flask 3.0.3 redis 5.2.1]"},
		{"services/other", "", "", "[]"},
	} {
		p, err := Read(filepath.Join(dir, tt.folder))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(p.Locked); got != tt.locked || strings.Join(p.LockedBy, " ") != tt.lockedBy || p.Python != tt.python {
			t.Errorf("%s: Python %q, locked %s by %s", tt.folder, p.Python, got, p.LockedBy)
		}
	}
}

func TestReadOtherNames(t *testing.T) {
	dir := unpack(t, txtar.Parse([]byte("-- deps.txt --\nflask\n-- env.yaml --\ndependencies:\n  - redis\n-- notes.md --\n")))
	for file, want := range map[string]string{"deps.txt": "[flask]", "env.yaml": "[redis]", "./deps.txt": "[flask]"} {
		p, err := ReadFor(dir, file, "")
		if err != nil || fmt.Sprint(p.Declared) != want || len(p.Files) != 1 {
			t.Errorf("%s: %v, %+v", file, err, p)
		}
	}
	var missing *MissingFileError
	if _, err := ReadFor(dir, "notes.md", ""); !errors.As(err, &missing) {
		t.Errorf("notes.md: %v", err)
	}
}
