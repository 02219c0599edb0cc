//go:build e2e

package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/imgwrap/imgwrap/cmd/internal/otlp"
	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// dockerfileCase is a directory of testdata/dockerfiles, with a Dockerfile and the
// application that it is for, which answers at port 8000.
type dockerfileCase struct {
	name   string
	flags  []string
	scope  string // last component of the scope of its server spans
	pip    bool   // whether pip installs OpenTelemetry
	legacy bool   // whether the engine's builder of old builds it too
	bare   bool   // whether the application is in the Dockerfile, so that it cannot be asked about itself
}

var dockerfileCases = []dockerfileCase{
	{name: "01-flask", scope: "flask"},
	{name: "02-gunicorn", scope: "flask", legacy: true},
	{name: "02-gunicorn", scope: "flask", flags: []string{"--install", "pip"}, pip: true},
	{name: "03-django", scope: "django"},
	{name: "04-fastapi", scope: "fastapi"},
	{name: "05-uv", scope: "fastapi"},
	{name: "06-poetry", scope: "flask"},
	{name: "07-pipenv", scope: "flask"},
	{name: "08-distroless", scope: "flask", legacy: true},
	{name: "09-shell-form", scope: "flask", flags: []string{"--activate", "environment"}},
	{name: "10-entrypoint-script", scope: "flask"},
	{name: "13-venv-stages", scope: "flask"},
	{name: "13-venv-stages", scope: "flask", flags: []string{"--install", "pip"}, pip: true},
	{name: "14-inherited", scope: "flask"},
	{name: "15-onbuild", scope: "flask"},
	{name: "16-healthcheck", scope: "flask"},
	{name: "17-tini", scope: "flask"},
	{name: "18-crlf", scope: "flask"},
	{name: "19-heredoc", scope: "flask", bare: true},
	{name: "81-arg-and-shell", scope: "flask"},
}

// builders are what Dockerfiles are built with and run on.
type builders struct {
	bed      *testbed.Bed
	imgwrap  imgwrap // that reaches the same internet
	internet *testbed.Internet
	engine   *testbed.Engine
	buildkit *testbed.BuildKit
	network  string // of the engine's
	gateway  string // this machine's address there
}

var theBuilders shared[*builders]

// sharedBuilders returns builders that other tests use at the same time.
func sharedBuilders(t *testing.T) *builders {
	t.Helper()
	return theBuilders.use(t, openBuilders, closeBuilders)
}

func openBuilders(t *testing.T) *builders {
	t.Helper()
	bed := openBed(t)
	apps, err := bed.Wheels(t.Context(), "bookworm-pypi/apps")
	if err != nil {
		t.Fatal(err)
	}
	b := &builders{bed: bed, network: "imgwrap"}
	opentelemetry, err := bed.Wheels(t.Context(), "bookworm-bench/opentelemetry")
	if err != nil {
		t.Fatal(err)
	}
	if b.internet, err = bed.Internet(apps, opentelemetry); err != nil {
		t.Fatal(err)
	}
	if err := bed.PushBases(t.Context(), b.internet, apps); err != nil {
		t.Fatal(err)
	}
	bed.Use(b.internet)
	b.imgwrap = build(t, bed)
	b.imgwrap.env = b.internet.Env()
	if b.engine, err = bed.Engine(wait(t)); err != nil {
		t.Fatal(err)
	}
	if b.buildkit, err = bed.BuildKit(wait(t)); err != nil {
		t.Fatal(err)
	}
	b.docker(t, "network", "create", b.network)
	b.gateway = b.docker(t, "network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", b.network)
	return b
}

func closeBuilders(t *testing.T, b *builders) {
	t.Helper()
	if _, err := b.engine.Docker(context.Background(), "network", "rm", b.network); err != nil {
		t.Error(err)
	}
	closeBed(t, b.bed)
	if err := b.internet.Close(); err != nil {
		t.Error(err)
	}
}

func (b *builders) docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.engine.Docker(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// build builds a directory with the engine, by BuildKit or by what was there
// before, and returns the image's name.
func (b *builders) build(t *testing.T, dir, tag string, buildkit bool) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/usr/bin/docker", "build", "--network=host",
		"--build-arg=HTTPS_PROXY="+b.internet.Proxy(), "--tag="+tag, dir)
	cmd.Env = append(append(os.Environ(), b.internet.Env()...), "DOCKER_HOST="+b.engine.Host(), "DOCKER_BUILDKIT=0")
	if buildkit {
		cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT=1")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("docker build: %v\n%s", err, out)
	}
	return tag
}

// buildKit builds a directory with BuildKit, and returns the image's name.
func (b *builders) buildKit(t *testing.T, dir, tag string) string {
	t.Helper()
	err := b.buildkit.Build(t.Context(), testbed.BuildKitOptions{
		Context:   dir,
		Args:      []string{"HTTPS_PROXY=" + b.internet.Proxy()},
		Platforms: []string{"linux/" + runtime.GOARCH},
		Ref:       tag,
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.bed.Registry() + "/" + tag
}

// serve serves a receiver where the containers of the network reach it.
func (b *builders) serve(t *testing.T, receiver *otlp.Receiver) *httptest.Server {
	t.Helper()
	collector := httptest.NewUnstartedServer(receiver)
	listener, err := net.Listen("tcp", net.JoinHostPort(b.gateway, "0"))
	if err != nil {
		t.Fatal(err)
	}
	collector.Listener.Close()
	collector.Listener = listener
	collector.Start()
	return collector
}

// run runs an image, asks its application, and returns what it says about itself.
// If it is to be traced, each request has to leave a server span.
func (b *builders) run(t *testing.T, image string, tc dockerfileCase, traced func([]otlp.Span)) info {
	t.Helper()
	receiver := new(otlp.Receiver)
	collector := b.serve(t, receiver)
	defer collector.Close()
	id := b.docker(t, "run", "--detach", "--network="+b.network, "--security-opt=seccomp=unconfined",
		"--env=OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL,
		"--env=OTEL_BSP_SCHEDULE_DELAY=100", // milliseconds, 5000 by default
		image)
	defer func() {
		if t.Failed() {
			out, err := exec.Command("/usr/bin/docker", "--host="+b.engine.Host(), "logs", id).CombinedOutput()
			t.Logf("%s says (%v):\n%s", image, err, out)
		}
		if _, err := b.engine.Docker(context.Background(), "rm", "--force", "--volumes", id); err != nil {
			t.Error(err)
		}
	}()
	address := b.docker(t, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", id) + ":8000"
	ctx, cancel := context.WithCancel(wait(t))
	defer cancel()
	go func() {
		_, _ = b.engine.Docker(ctx, "wait", id) // how it ended is in its output
		cancel()
	}()
	for {
		if conn, err := new(net.Dialer).DialContext(ctx, "tcp", address); err == nil {
			conn.Close()
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("%s does not listen", image)
		}
		time.Sleep(20 * time.Millisecond)
	}
	requests := 3
	for range requests {
		getPage(t, "http://"+address+"/")
	}
	var said info
	if !tc.bare {
		if err := json.Unmarshal(getPage(t, "http://"+address+"/info"), &said); err != nil {
			t.Fatal(err)
		}
		requests++
	}
	if traced != nil {
		spans, err := receiver.Wait(wait(t), requests, isServer)
		if err != nil {
			t.Fatalf("%s: %v", image, err)
		}
		traced(spans)
	}
	return said
}

func getPage(t *testing.T, url string) []byte {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s answers %s, %v\n%s", url, resp.Status, err, body)
	}
	return body
}

// appPages are lines of the applications, and what after them adds a page that
// says what testdata/images/common/info.py does.
var appPages = []struct{ file, after, add string }{
	{"app.py", "app = Flask(__name__)\n", "app.add_url_rule(\"/info\", view_func=info)\n"},
	{"main.py", "app = FastAPI()\n", "app.get(\"/info\")(info)\n"},
	{"app/main.py", "app = FastAPI()\n", "app.get(\"/info\")(info)\n"},
	{"shop/urls.py", "from django.urls import path\n", "from django.http import JsonResponse\n"},
	{"shop/urls.py", "urlpatterns = [", "path(\"info\", lambda request: JsonResponse(info())), "},
}

// copyContext copies the build context of a case, with that page in its
// application.
func (tc dockerfileCase) copyContext(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "shop")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("../../testdata/dockerfiles", tc.name))); err != nil {
		t.Fatal(err)
	}
	if tc.bare {
		return dir
	}
	page, err := os.ReadFile("../../testdata/images/common/info.py")
	if err != nil {
		t.Fatal(err)
	}
	edited := false
	for _, p := range appPages {
		file := filepath.Join(dir, p.file)
		source, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		before, after, ok := strings.Cut(string(source), p.after)
		if !ok {
			t.Fatalf("%s of %s lacks %q", p.file, tc.name, p.after)
		}
		text := before + p.after + p.add + after
		if !bytes.HasPrefix(source, page) {
			text = string(page) + "\n\n" + text
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		edited = true
	}
	if !edited {
		t.Fatalf("%s has no application", tc.name)
	}
	return dir
}

// TestE2EDockerfiles rewrites Dockerfiles, builds them as their users do, runs the
// images, and compares them with what the Dockerfiles built before.
func TestE2EDockerfiles(t *testing.T) {
	b := sharedBuilders(t)
	t.Parallel()
	layers := b.bed.Registry() + "/dockerfiles/otel"
	b.imgwrap.run(t, "layer", "push", layers, "1.45.1")
	for _, tc := range dockerfileCases {
		name := tc.name
		if tc.pip {
			name += "-pip"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.run(t, b, layers, name)
		})
	}
}

// dockerfilePlan is what the tests read of imgwrap dockerfile -o json.
type dockerfilePlan struct {
	Release struct {
		Version string `json:"version"`
	} `json:"release"`
	Packages []struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	} `json:"packages"`
}

func (tc dockerfileCase) run(t *testing.T, b *builders, layers, name string) {
	w := b.imgwrap
	dir := tc.copyContext(t)
	file := filepath.Join(dir, "Dockerfile")
	before := readFile(t, file)
	plain := b.run(t, b.buildKit(t, dir, name+":plain"), tc, nil)

	var p dockerfilePlan
	out := w.run(t, append([]string{"dockerfile", "--layers", layers, "--write", "-o", "json", dir}, tc.flags...)...)
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatal(err)
	}
	w.run(t, append([]string{"dockerfile", "--layers", layers, "--check", dir}, tc.flags...)...)
	images := []string{b.buildKit(t, dir, name+":buildkit")}
	images = append(images, b.build(t, dir, name+":engine", true))
	if tc.legacy {
		images = append(images, b.build(t, dir, name+":legacy", false))
	}
	for _, image := range images {
		traced := b.run(t, image, tc, func(spans []otlp.Span) {
			for _, s := range spans {
				if s.Service() != "shop" {
					t.Errorf("%s: span %s of %s has service.name %q", image, s.Name, s.Scope, s.Service())
				}
				if isServer(s) && s.Scope != "opentelemetry.instrumentation."+tc.scope {
					t.Errorf("%s: server span %s is of %s", image, s.Name, s.Scope)
				}
			}
		})
		switch {
		case tc.bare:
		case tc.pip:
			checkInstalled(t, plain, traced, p)
		default:
			checkInfo(t, plain, traced, "/opt/imgwrap/otel-"+p.Release.Version)
		}
	}
	w.run(t, "dockerfile", "--undo", "--write", dir)
	if after := readFile(t, file); !bytes.Equal(after, before) {
		t.Errorf("undo leaves\n%s\nof\n%s", after, before)
	}
}

// checkInstalled compares what applications see of their environment: what was
// there before is as it was, and what is new is what was planned.
func checkInstalled(t *testing.T, original, traced info, p dockerfilePlan) {
	t.Helper()
	for name, d := range original.Distributions {
		if traced.Distributions[name] != d {
			t.Errorf("%s is %v, want %v", name, traced.Distributions[name], d)
		}
	}
	for name, file := range original.Modules {
		if name != "sitecustomize" && traced.Modules[name] != file {
			t.Errorf("module %s is %q, want %q", name, traced.Modules[name], file)
		}
	}
	if len(p.Packages) == 0 {
		t.Error("no package is planned")
	}
	for _, pkg := range p.Packages {
		if got := traced.Distributions[pkg.Name].Version; got != pkg.Version {
			t.Errorf("%s has version %q, want %s", pkg.Name, got, pkg.Version)
		}
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
