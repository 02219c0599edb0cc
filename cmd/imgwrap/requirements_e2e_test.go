//go:build e2e

package main_test

import (
	"bytes"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/imgwrap/imgwrap/cmd/internal/otlp"
	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
	"github.com/imgwrap/imgwrap/layer/pep508"
)

// projectLayout is a folder of testdata/projects: an app, with the files that its
// packages are installed from.
type projectLayout struct {
	name    string
	lock    string // what the tool writes when it is run as imgwrap's note says; "" if there is no note
	install string // a shell command; $PIP_LIST is what environment.yml has for pip
	run     string // the app's command line
	env     string // NAME=value for the app
}

var projectLayouts = []projectLayout{
	{name: "pinned", install: "pip install -r requirements.txt", run: "python app.py"},
	{name: "includes", install: "pip install -r requirements.txt", run: "python app.py"},
	{name: "hashes", install: "pip install -r requirements.txt", run: "python app.py"},
	{name: "compiled", lock: "requirements.txt", install: "pip install -r requirements.txt", run: "python app.py"},
	{name: "conda", install: "pip install $PIP_LIST", run: "python app.py"},
	{name: "pipenv", lock: "Pipfile.lock", install: "pipenv sync", run: "python app.py"},
	{name: "uv", lock: "uv.lock", install: "uv sync --locked --no-dev", run: "python app.py"},
	{name: "poetry", lock: "poetry.lock", install: "poetry install --only=main", run: "python app.py"},
	{
		name: "poetry1", lock: "poetry.lock", install: "poetry install --only=main",
		run: "python manage.py runserver --noreload 127.0.0.1:$PORT", env: "DJANGO_SETTINGS_MODULE=settings",
	},
	{name: "pdm", lock: "pdm.lock", install: "pdm sync --prod", run: "python app.py"},
}

// TestE2ERequirements adds the packages to projects of all kinds, installs those
// with the tools that people use, and runs the apps.
func TestE2ERequirements(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	env := projectEnv(t, bed)
	for _, l := range projectLayouts {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			p := &project{layout: l, dir: t.TempDir(), env: env, imgwrap: w}
			if err := os.CopyFS(p.dir, os.DirFS(filepath.Join("../../testdata/projects", l.name))); err != nil {
				t.Fatal(err)
			}
			p.test(t)
		})
	}
}

// projectEnv is the environment in which projects are installed: with the tools,
// and with caches that are kept.
func projectEnv(t *testing.T, bed *testbed.Bed) []string {
	t.Helper()
	bin := t.TempDir()
	script := func(name, command string) {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\nexec "+command+" \"$@\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, module := range map[string]string{"uv": "uv", "poetry": "poetry", "pipenv": "pipenv", "pdm": "pdm", "pip-tools": "piptools compile"} {
		python, err := bed.PythonTool(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		script(strings.Replace(name, "pip-tools", "pip-compile", 1), python+" -m "+module)
	}
	python := strings.TrimSpace(output(t, "python3", "-c", "import sys; print(sys.executable)"))
	script("python3", python)
	script("pip", python+" -m pip --python=.venv")
	downloads := filepath.Join(bed.Cache(), "python-downloads")
	return append(os.Environ(),
		"PATH="+bin+":"+os.Getenv("PATH"),
		"PIP_CACHE_DIR="+filepath.Join(downloads, "pip"), "PIP_NO_COMPILE=1", "PIP_FIND_LINKS=",
		"UV_CACHE_DIR="+filepath.Join(downloads, "uv"), "UV_PYTHON_DOWNLOADS=never",
		"POETRY_CACHE_DIR="+filepath.Join(downloads, "poetry"), "POETRY_VIRTUALENVS_IN_PROJECT=true",
		"PIPENV_CACHE_DIR="+filepath.Join(downloads, "pipenv"), "PIPENV_VENV_IN_PROJECT=1", "PIPENV_IGNORE_VIRTUALENVS=1",
		"PDM_CACHE_DIR="+filepath.Join(downloads, "pdm"), "PDM_CHECK_UPDATE=false",
		"VIRTUAL_ENV=",
	)
}

// project is a copy of a layout.
type project struct {
	layout  projectLayout
	dir     string
	env     []string
	imgwrap imgwrap
}

func (p *project) test(t *testing.T) {
	original := p.files(t)

	changed, notes := p.requirements(t, "--write")
	if changed == "" {
		t.Fatal("nothing was changed")
	}
	p.requirements(t, "--check")
	if again, _ := p.requirements(t, "--write"); again != "" {
		t.Errorf("writing again changed %s", again)
	}
	written := p.files(t)
	p.requirements(t, "--undo", "--write")
	p.compare(t, "undone", original)
	p.requirements(t, "--write")
	p.compare(t, "written again", written)

	p.sh(t, "python3 -m venv --without-pip .venv")
	if p.layout.lock != "" {
		m := regexp.MustCompile(`does not follow by itself: (.+)`).FindStringSubmatch(notes)
		if m == nil {
			t.Fatalf("no note about the lock:\n%s", notes)
		}
		p.sh(t, m[1])
	}
	p.sh(t, p.layout.install)
	p.sh(t, "pip check")
	p.checkVersions(t, original)
	p.checkSpans(t)

	p.requirements(t, "--undo", "--write")
	p.compare(t, "undone at last", original, p.layout.lock)
}

// requirements runs the command and returns the files that it changed, and what it
// said.
func (p *project) requirements(t *testing.T, flags ...string) (changed, notes string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), p.imgwrap.program, append([]string{"requirements", p.dir}, flags...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("imgwrap requirements %v: %v\n%s%s", flags, err, stdout.String(), stderr.String())
	}
	return stdout.String(), stderr.String()
}

// files are the contents of the project's files.
func (p *project) files(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(os.DirFS(p.dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if path != "." && strings.HasPrefix(path, ".") {
				return fs.SkipDir
			}
			return err
		}
		b, err := os.ReadFile(filepath.Join(p.dir, path))
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (p *project) compare(t *testing.T, what string, want map[string]string, ignore ...string) {
	t.Helper()
	got := p.files(t)
	for name, content := range want {
		if got[name] != content && !slices.Contains(ignore, name) {
			t.Errorf("%s, %s is\n%s\nwant\n%s", what, name, got[name], content)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok && !strings.HasPrefix(name, ".") && name != "__pycache__" {
			t.Errorf("%s, there is %s", what, name)
		}
	}
}

// sh runs a shell command in the project.
func (p *project) sh(t *testing.T, command string) string {
	t.Helper()
	began := time.Now()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
	cmd.Dir = p.dir
	cmd.Env = append(slices.Clone(p.env), "PIP_LIST="+p.condaList(t))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	t.Logf("%s: %.1f s, CPU %.1f s", command, time.Since(began).Seconds(), (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds())
	return string(out)
}

// condaList is what environment.yml has for pip, if there is one.
func (p *project) condaList(t *testing.T) string {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(p.dir, "environment.yml"))
	if err != nil {
		return ""
	}
	var environment struct{ Dependencies []any }
	if err := yaml.Unmarshal(src, &environment); err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, d := range environment.Dependencies {
		if section, ok := d.(map[string]any); ok {
			for _, r := range section["pip"].([]any) {
				list = append(list, r.(string))
			}
		}
	}
	return strings.Join(list, " ")
}

// checkVersions looks for what is installed: the packages that were added, and all
// that was locked in the original files in the same versions.
func (p *project) checkVersions(t *testing.T, original map[string]string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(p.dir, ".venv/lib/python3.*/site-packages/*.dist-info"))
	if err != nil {
		t.Fatal(err)
	}
	installed := map[string]string{}
	instrumentations := 0
	for _, dir := range found {
		name, version, _ := strings.Cut(strings.TrimSuffix(filepath.Base(dir), ".dist-info"), "-")
		name = pep508.Normalize(name)
		installed[name] = version
		if strings.HasPrefix(name, "opentelemetry-instrumentation-") {
			instrumentations++
		}
	}
	same := 0
	for name, versions := range lockedVersions(original) {
		switch version, ok := installed[name]; {
		case !ok: // for development, or for another Python
		case slices.Contains(versions, version):
			same++
		default:
			t.Errorf("%s is %s, was locked as %s", name, version, versions)
		}
	}
	if same < 3 {
		t.Errorf("only %d packages are as they were locked, installed are %v", same, installed)
	}
	if instrumentations < 5 || installed["opentelemetry-distro"] == "" || installed["opentelemetry-exporter-otlp-proto-http"] == "" {
		t.Errorf("installed are %v", installed)
	}
}

var lockedVersion = regexp.MustCompile(`(?m)^name = "(.+)"\r?\nversion = "(.+)"|^[\s-]*([\w.-]+)==([^\s;]+)|^ +"([\w.-]+)": \{(?s:[^}]*)"version": "==(.+)"`)

// lockedVersions are the versions of packages that a project's files name, with
// lock files of uv, Poetry, PDM and Pipenv.
func lockedVersions(files map[string]string) map[string][]string {
	versions := map[string][]string{}
	for _, content := range files {
		for _, m := range lockedVersion.FindAllStringSubmatch(content, -1) {
			name := pep508.Normalize(m[1] + m[3] + m[5])
			versions[name] = append(versions[name], m[2]+m[4]+m[6])
		}
	}
	return versions
}

// checkSpans runs the app and asks it.
func (p *project) checkSpans(t *testing.T) {
	t.Helper()
	var receiver otlp.Receiver
	server := httptest.NewServer(&receiver)
	defer server.Close()
	addr, err := testbed.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(addr, ":")

	var output bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "exec opentelemetry-instrument "+p.layout.run)
	cmd.Dir = p.dir
	cmd.Env = append(slices.Clone(p.env),
		"PATH="+filepath.Join(p.dir, ".venv/bin")+":"+os.Getenv("PATH"), "PORT="+port,
		"OTEL_EXPORTER_OTLP_ENDPOINT="+server.URL, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
		"OTEL_TRACES_EXPORTER=otlp", "OTEL_METRICS_EXPORTER=none", "OTEL_LOGS_EXPORTER=none",
		"OTEL_BSP_SCHEDULE_DELAY=100", // milliseconds, 5000 by default
		p.layout.env,
	)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed, or its output says why it ended
		close(exited)
	}()
	stop := func() string {
		_ = cmd.Process.Kill() // it may have ended
		<-exited
		return output.String()
	}
	defer stop()

	ctx := wait(t)
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("asking the app: %s\n%s", resp.Status, stop())
			}
			break
		}
		select {
		case <-exited:
			t.Fatalf("the app ended\n%s", stop())
		case <-ctx.Done():
			t.Fatalf("asking the app: %v\n%s", err, stop())
		case <-time.After(50 * time.Millisecond):
		}
	}
	if _, err := receiver.Wait(ctx, 1, isServer); err != nil {
		t.Fatalf("%v\n%s", err, stop())
	}
}
