package requirements

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/imgwrap/imgwrap/image/instrument"
	"github.com/imgwrap/imgwrap/layer/pep440"
)

// add plans for a folder and returns the contents of the files that it is about.
func add(t *testing.T, dir string, opts Options, group string) (p *Project, choice *Choice, edits []Edit, notes string) {
	t.Helper()
	p, err := ReadFor(dir, "", opts.Python)
	if err != nil {
		t.Fatal(err)
	}
	choice, err = p.Choose(loadCatalog(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	edits, list, err := p.Add(choice, group)
	if err != nil {
		t.Fatal(err)
	}
	return p, choice, edits, strings.Join(list, "\n")
}

func write(t *testing.T, dir string, edits []Edit) {
	t.Helper()
	for _, e := range edits {
		if err := os.WriteFile(filepath.Join(dir, e.File), e.After, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAddAndRemove goes through all layouts: what was added is found again and
// not counted as the project's own, and taken away without a trace.
func TestAddAndRemove(t *testing.T) {
	archives, err := filepath.Glob("testdata/projects/*.txtar")
	if err != nil || len(archives) < 10 {
		t.Fatalf("%d layouts, %v", len(archives), err)
	}
	for _, archive := range archives {
		name := strings.TrimSuffix(filepath.Base(archive), ".txtar")
		t.Run(name, func(t *testing.T) {
			dir := layout(t, name)
			before, err := Read(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(before.Files) == 0 {
				return
			}
			_, choice, edits, _ := add(t, dir, Options{}, "")
			for _, e := range edits {
				if !e.Changed() || e.Marked() || len(e.Packages) == 0 {
					t.Errorf("%s: changed %t, marked %t, %d packages", e.File, e.Changed(), e.Marked(), len(e.Packages))
				}
			}
			write(t, dir, edits)
			after, again, edits, _ := add(t, dir, Options{}, "")
			if got, want := strings.Join(after.Declared, " "), strings.Join(before.Declared, " "); got != want {
				t.Errorf("declared %s, before %s", got, want)
			}
			if got, want := versions(again.Packages, again.Release), versions(choice.Packages, choice.Release); got != want {
				t.Errorf("packages %s, before %s", got, want)
			}
			for _, e := range edits {
				if e.Changed() || !e.Marked() {
					t.Errorf("again, %s: changed %t, marked %t", e.File, e.Changed(), e.Marked())
				}
			}
			edits, _, err = after.Remove()
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, edits)
			original := layout(t, name)
			for _, file := range before.Files {
				got, _ := os.ReadFile(filepath.Join(dir, file))
				want, _ := os.ReadFile(filepath.Join(original, file))
				if string(got) != string(want) {
					t.Errorf("%s is\n%q, was\n%q", file, got, want)
				}
			}
		})
	}
}

func TestRelockNotes(t *testing.T) {
	for name, want := range map[string]string{
		"uv":       "uv.lock does not follow by itself: uv lock",
		"poetry1":  "poetry.lock does not follow by itself: poetry lock --no-update",
		"poetry2":  "poetry.lock does not follow by itself: poetry lock",
		"pdm":      "pdm.lock does not follow by itself: pdm lock --update-reuse",
		"pipenv":   "Pipfile.lock does not follow by itself: pipenv upgrade",
		"compiled": "requirements.txt does not follow by itself: pip-compile --generate-hashes requirements.in",
		"pylock":   "",
		"pinned":   "",
	} {
		if _, _, _, got := add(t, layout(t, name), Options{}, ""); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestCompiledAgain is about a compiled file that has got the packages from its
// source: nothing is to be added to it any more.
func TestCompiledAgain(t *testing.T) {
	dir := layout(t, "compiled")
	_, choice, edits, _ := add(t, dir, Options{}, "")
	if len(edits) != 2 || edits[0].File != "requirements.in" || strings.Contains(string(edits[0].After), "--hash") || !strings.Contains(string(edits[1].After), "opentelemetry-api==1.45.1 \\\n    --hash=sha256:") {
		t.Fatalf("%+v", edits)
	}
	write(t, dir, edits[:1])
	compiled := string(edits[1].Before)
	for _, p := range choice.Closure {
		compiled += p.Name + "==" + p.Version + " \\\n    --hash=" + p.Hashes[0] + "\n"
	}
	write(t, dir, []Edit{{File: "requirements.txt", After: []byte(compiled)}})
	_, again, edits, notes := add(t, dir, Options{}, "")
	if edits[0].Changed() || edits[1].Changed() || notes != "" {
		t.Errorf("changed %t and %t, notes %q", edits[0].Changed(), edits[1].Changed(), notes)
	}
	if got, want := versions(again.Packages, again.Release), versions(choice.Packages, choice.Release); got != want {
		t.Errorf("packages %s, before %s", got, want)
	}

	// Of another release there cannot be a second version beside.
	_, _, edits, notes = add(t, dir, Options{Instrument: instrument.Options{Release: "1.44.0"}}, "")
	if len(edits) != 1 || !strings.Contains(string(edits[0].After), "0.65b0") || !strings.Contains(notes, "pip-compile") {
		t.Errorf("%d edits, notes %q", len(edits), notes)
	}
}

// TestLockedAgain is about a lock that has what was added: it is not the
// project's own, and its release stays.
func TestLockedAgain(t *testing.T) {
	dir := layout(t, "pipenv")
	old := Options{Instrument: instrument.Options{Release: "1.40.0"}}
	_, choice, edits, _ := add(t, dir, old, "")
	write(t, dir, edits)
	entries := ""
	for _, p := range choice.Closure {
		entries += "\n        \"" + p.Name + "\": {\"version\": \"==" + p.Version + "\"},"
	}
	replaceIn(t, filepath.Join(dir, "Pipfile.lock"), `"default": {`, `"default": {`+entries)

	_, again, edits, notes := add(t, dir, Options{}, "")
	if edits[0].Changed() || notes != "" || again.Release.Version != "1.40.0" {
		t.Errorf("%s, changed to\n%s\n%s", again.Release, edits[0].After, notes)
	}
	_, other, edits, notes := add(t, dir, Options{Instrument: instrument.Options{Release: "1.45.1"}}, "")
	if !edits[0].Changed() || !strings.Contains(notes, "pipenv upgrade") || other.Release.Version != "1.45.1" || len(other.Packages) < len(again.Packages) {
		t.Errorf("%s, changed to\n%s\n%s", other.Release, edits[0].After, notes)
	}
	if strings.Contains(string(edits[0].After), "instrumentation-requests") {
		t.Errorf("requests is only there for OpenTelemetry:\n%s", edits[0].After)
	}
}

// TestOpenTelemetryOfOthers is about a library that brings parts of OpenTelemetry:
// they are the project's own, before and after the lock follows.
func TestOpenTelemetryOfOthers(t *testing.T) {
	dir := layout(t, "pipenv")
	replaceIn(t, filepath.Join(dir, "Pipfile.lock"), `"default": {`, `"default": {
        "opentelemetry-api": {"version": "==1.30.0"},
        "opentelemetry-sdk": {"version": "==1.30.0"},`)
	for range 2 {
		_, choice, edits, _ := add(t, dir, Options{}, "")
		if choice.Release.Version != "1.30.0" {
			t.Errorf("%s: %+v", choice.Release, choice.Refused)
		}
		write(t, dir, edits)
	}
}

func replaceIn(t *testing.T, file, old, text string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		t.Fatalf("%s has no %s", file, old)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), old, text, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestAddToGroup(t *testing.T) {
	_, _, edits, _ := add(t, layout(t, "uv"), Options{}, "telemetry")
	if got := string(edits[0].After); !strings.Contains(got, "telemetry = [") {
		t.Errorf("no group:\n%s", got)
	}
	p, err := Read(layout(t, "pipenv"))
	if err != nil {
		t.Fatal(err)
	}
	choice, err := p.Choose(loadCatalog(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Add(choice, "telemetry"); err == nil || !strings.Contains(err.Error(), "Pipfile has no groups") {
		t.Errorf("%v", err)
	}
}

// TestAddWithMarker is about a project that allows Pythons which the release does
// not run on.
func TestAddWithMarker(t *testing.T) {
	dir := unpack(t, txtar.Parse([]byte("-- pyproject.toml --\n[project]\nname = \"x\"\nrequires-python = \">=3.8\"\ndependencies = [\n    \"flask\",\n]\n")))
	_, _, edits, _ := add(t, dir, Options{Python: "3.12"}, "")
	if got := string(edits[0].After); !strings.Contains(got, `"opentelemetry-distro==0.66b1; python_version >= '3.10'"`) {
		t.Errorf("no marker:\n%s", got)
	}
}

// TestCorpus takes the locks of real applications as pinned requirements.
func TestCorpus(t *testing.T) {
	b, err := os.ReadFile("../../testdata/corpus/locks.json")
	if err != nil {
		t.Fatal(err)
	}
	var locks map[string]struct{ Python, Expected, Distributions string }
	if err := json.Unmarshal(b, &locks); err != nil {
		t.Fatal(err)
	}
	c := loadCatalog(t)
	for app, l := range locks {
		p, err := Read(unpack(t, txtar.Parse([]byte("-- requirements.txt --\n"+strings.ReplaceAll(l.Distributions, " ", "\n")+"\n-- .python-version --\n"+l.Python+"\n"))))
		if err != nil {
			t.Fatalf("%s: %v", app, err)
		}
		if got, want := len(p.Locked), len(strings.Fields(l.Distributions)); got != want {
			t.Errorf("%s: %d locked, want %d", app, got, want)
		}
		choice, err := p.Choose(c, Options{})
		if l.Expected == "" {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", app, err)
			continue
		}
		got, err := pep440.Parse(choice.Release.Version)
		if err != nil {
			t.Fatal(err)
		}
		want, err := pep440.Parse(l.Expected)
		if err != nil {
			t.Fatal(err)
		}
		if got.Compare(want) < 0 {
			t.Errorf("%s: %s, want %s", app, choice.Release, l.Expected)
		}
		for _, pkg := range choice.Closure {
			if strings.Contains(" "+l.Distributions, " "+pkg.Name+"==") {
				t.Errorf("%s: %s is the app's own", app, pkg.Name)
			}
		}
	}
}
