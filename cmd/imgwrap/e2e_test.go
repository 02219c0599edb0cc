//go:build e2e

package main_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/klauspost/compress/gzip"

	"github.com/imgwrap/imgwrap/cmd/internal/otlp"
	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// plan is what the tests read of imgwrap plan -o json.
type plan struct {
	Version      int    `json:"version"`
	SourceDigest string `json:"source_digest"`
	Tag          string `json:"tag"`
	Digest       string `json:"digest"`
	Interpreter  struct {
		Path string `json:"path"`
	} `json:"interpreter"`
	Release struct {
		Version string `json:"version"`
		Contrib string `json:"contrib"`
	} `json:"release"`
	Instrumentations []struct {
		Name string `json:"name"`
	} `json:"instrumentations"`
	LeftOut  []leftOut `json:"left_out"`
	Warnings []string  `json:"warnings"`
	Layers   []struct {
		Digest string `json:"digest"`
	} `json:"layers"`
}

type leftOut struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

func (p plan) instruments(name string) bool {
	for _, i := range p.Instrumentations {
		if i.Name == name {
			return true
		}
	}
	return false
}

// info is what an application says about itself, see
// testdata/images/common/info.py.
type info struct {
	Argv          []string                `json:"argv"`
	Distributions map[string]distribution `json:"distributions"`
	Executable    string                  `json:"executable"`
	Modules       map[string]string       `json:"modules"`
	Path          []string                `json:"path"`
	PID           int                     `json:"pid"`
	Version       string                  `json:"version"`
}

type distribution struct {
	Version string `json:"version"`
	Path    string `json:"path"`
}

// imgwrap is the program as users run it.
type imgwrap struct {
	program string
	cache   string
	env     []string // NAME=value, beside those of the tests
}

// newBed returns a bed of a test's own.
func newBed(t *testing.T) *testbed.Bed {
	t.Helper()
	bed := openBed(t)
	t.Cleanup(func() { closeBed(t, bed) })
	return bed
}

func openBed(t *testing.T) *testbed.Bed {
	t.Helper()
	bed, err := testbed.New(t.Context(), testbed.Options{Recipes: "../../testdata/images", Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	return bed
}

// A shared value is one for tests that run side by side.
type shared[T any] struct {
	mu    sync.Mutex
	value T
	users int
}

// use returns the value, which the first test opens and the last one closes.
func (s *shared[T]) use(t *testing.T, open func(*testing.T) T, end func(*testing.T, T)) T {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == 0 {
		s.value = open(t)
	}
	s.users++
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.users--; s.users == 0 {
			end(t, s.value)
		}
	})
	return s.value
}

var theBed shared[*testbed.Bed]

// sharedBed returns a bed that other tests use at the same time. What a test has in
// it is named after the test.
func sharedBed(t *testing.T) *testbed.Bed {
	t.Helper()
	return theBed.use(t, openBed, closeBed)
}

func closeBed(t *testing.T, bed *testbed.Bed) {
	t.Helper()
	if err := bed.Close(); err != nil {
		t.Error(err)
	}
	for _, p := range processesOf(t, bed.Dir()) {
		t.Errorf("still running: %s", p)
	}
}

// processesOf returns the command lines that name a path below dir.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(files) == 0 {
		t.Fatalf("reading processes: %d, %v", len(files), err)
	}
	var found []string
	for _, f := range files {
		// A process may end meanwhile: then it has no command line.
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(dir+"/")) {
			found = append(found, string(bytes.ReplaceAll(b, []byte{0}, []byte{' '})))
		}
	}
	return found
}

func build(t *testing.T, bed *testbed.Bed) imgwrap {
	t.Helper()
	program, err := bed.GoBuild(t.Context(), "github.com/imgwrap/imgwrap/cmd/imgwrap")
	if err != nil {
		t.Fatal(err)
	}
	return imgwrap{program: program, cache: filepath.Join(bed.Cache(), "imgwrap")}
}

// newCache returns a cache directory that is empty but for parts of the one that
// all tests share.
func (w imgwrap) newCache(t *testing.T, parts ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, part := range parts {
		shared := filepath.Join(w.cache, part)
		if err := os.MkdirAll(shared, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(shared, filepath.Join(dir, part)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// run runs imgwrap and returns its standard output.
func (w imgwrap) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), w.program, append([]string{"--cache-dir", w.cache}, args...)...)
	cmd.Env = append(os.Environ(), w.env...)
	return outputOf(t, cmd)
}

func output(t *testing.T, program string, args ...string) string {
	t.Helper()
	return outputOf(t, exec.CommandContext(t.Context(), program, args...))
}

func outputOf(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", filepath.Base(cmd.Path), strings.Join(cmd.Args[1:], " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// wait bounds a step that waits for a container or for spans.
func wait(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestE2EImages(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	crane, err := bed.GoBuild(t.Context(), "github.com/google/go-containerregistry/cmd/crane")
	if err != nil {
		t.Fatal(err)
	}
	shop := []string{"flask", "requests", "sqlalchemy"}
	for _, tc := range []imageCase{
		{
			recipe:  "bookworm-gunicorn",
			release: "1.27.0",
			scopes:  shop,
			servers: 2,
			stopped: gunicornStopped,
		},
		{
			recipe:  "trixie-flask",
			release: "1.45.1",
			scopes:  shop,
			servers: 2,
			stop:    syscall.SIGINT,
		},
		{
			recipe:  "trixie-venv",
			release: "1.45.1",
			scopes:  shop,
			servers: 2,
			stopped: gunicornStopped,
		},
		{
			recipe:  "bullseye-flask",
			flags:   []string{"--release", "1.17.0/0.38b0", "--service-name", "shop"},
			release: "1.17.0",
			service: "shop",
			scopes:  shop,
			servers: 2,
			stop:    syscall.SIGINT,
		},
		{
			recipe:  "bullseye-venv", // the newest that serves Python 3.9
			release: "1.41.1",
			scopes:  shop,
			servers: 2,
			stopped: gunicornStopped,
		},
		{
			recipe:  "bookworm-django", // settings that only wsgi.py names
			release: "1.45.1",
			scopes:  []string{"django", "sqlite3"},
			servers: 1,
			stopped: gunicornStopped,
		},
		{
			recipe:  "bookworm-apt-django",
			release: "1.45.1",
			scopes:  []string{"django", "sqlite3"},
			servers: 1,
			stopped: gunicornStopped,
		},
		{
			recipe:  "bookworm-apt-flask",
			release: "1.33.1",
			scopes:  shop,
			servers: 2,
			stop:    syscall.SIGINT,
		},
		{
			recipe:  "bookworm-uv",
			release: "1.45.1",
			scopes:  shop,
			servers: 2,
			stopped: gunicornStopped,
		},
		{
			name:    "bookworm-uv-path",
			recipe:  "bookworm-uv",
			cmd:     []string{"/app/.venv/bin/gunicorn", "app:app"},
			release: "1.45.1",
			scopes:  shop,
			servers: 2,
			stopped: gunicornStopped,
		},
		{
			recipe:  "bookworm-pipenv",
			release: "1.45.1",
			scopes:  shop,
			servers: 2,
			stopped: gunicornStopped,
		},
		{
			recipe:  "bookworm-poetry",
			release: "1.45.1",
			scopes:  shop,
			servers: 2,
			stopped: gunicornStopped,
		},
		{
			recipe:  "bookworm-conda",
			release: "1.45.1",
			scopes:  shop,
			servers: 2,
			stopped: gunicornStopped,
		},
		{
			recipe:  "bookworm-entry",
			release: "1.45.1",
			scopes:  shop,
			servers: 2,
			stopped: gunicornStopped,
		},
		{
			name:       "bookworm-entry-shell",
			recipe:     "bookworm-entry",
			entrypoint: []string{"dumb-init", "--"},
			cmd:        []string{"/bin/sh", "-c", "cd /app && exec gunicorn --workers=${WORKERS:-1} app:app"},
			release:    "1.45.1",
			scopes:     shop,
			servers:    2,
			stopped:    gunicornStopped,
		},
		{
			name:       "bookworm-entry-isolated",
			recipe:     "bookworm-entry",
			entrypoint: []string{"isolated"},
			cmd:        []string{"app:app"},
			release:    "1.45.1",
			warning:    "/opt/venv/lib/python3.11/site-packages/imgwrap.pth loads OpenTelemetry",
			scopes:     shop,
			servers:    2,
			stopped:    gunicornStopped,
		},
	} {
		if tc.name == "" {
			tc.name = tc.recipe
		}
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.run(t, bed, w, crane)
		})
	}
}

// gunicornStopped is what gunicorn says last when it ends as it should.
const gunicornStopped = "Shutting down: Master"

// imageCase is an image that is wrapped and run.
type imageCase struct {
	name       string // of the repository
	recipe     string
	entrypoint []string // instead of the recipe's, with cmd
	cmd        []string // instead of the recipe's
	plain      []string // what the source runs instead to be compared with
	flags      []string
	release    string         // the one that imgwrap chooses
	service    string         // service.name; empty for the repository's last component
	warning    string         // part of a warning of the plan
	scopes     []string       // last components of scopes that spans of one request come from
	own        string         // the same, the application's own scope
	servers    int            // server spans in the trace of one request
	stop       syscall.Signal // ends the application; zero for SIGTERM
	stopped    string         // what it says then
}

// push puts the source image into the registry.
func (tc imageCase) push(t *testing.T, bed *testbed.Bed) v1.Hash {
	t.Helper()
	img, err := bed.Image(t.Context(), tc.recipe)
	if err != nil {
		t.Fatal(err)
	}
	if tc.cmd != nil {
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		c := config.Config
		if c.Cmd = tc.cmd; tc.entrypoint != nil {
			c.Entrypoint = tc.entrypoint
		}
		if img, err = mutate.Config(img, c); err != nil {
			t.Fatal(err)
		}
	}
	digest, err := bed.PushImage(t.Context(), img, tc.name+":1.0")
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func (tc imageCase) run(t *testing.T, bed *testbed.Bed, w imgwrap, crane string) {
	sourceDigest := tc.push(t, bed)
	repository := bed.Registry() + "/" + tc.name
	source := repository + ":1.0"

	var p plan
	if err := json.Unmarshal([]byte(w.run(t, append([]string{"plan", "-o", "json", source}, tc.flags...)...)), &p); err != nil {
		t.Fatalf("reading plan: %v", err)
	}
	tc.checkPlan(t, p, sourceDigest)
	if text := w.run(t, append([]string{"plan", source}, tc.flags...)...); !strings.Contains(text, p.Digest) || !strings.Contains(text, tc.release) {
		t.Errorf("the plan does not name digest %s and release %s:\n%s", p.Digest, tc.release, text)
	}

	line := w.run(t, append([]string{source}, tc.flags...)...)
	if want := regexp.MustCompile(`^` + regexp.QuoteMeta(repository) + `@sha256:[0-9a-f]{64}\n$`); !want.MatchString(line) {
		t.Fatalf("imgwrap printed %q, want a line that matches %s", line, want)
	}
	wrapped := strings.TrimSpace(line)
	if want := repository + "@" + p.Digest; wrapped != want {
		t.Errorf("pushed %s, planned %s", wrapped, want)
	}
	for _, ref := range []string{source, source + "-otel"} {
		if again := w.run(t, append([]string{ref}, tc.flags...)...); again != line {
			t.Errorf("wrapping %s then printed %q, the first run %q", ref, again, line)
		}
	}
	if undone, want := w.run(t, "unwrap", source+"-otel"), fmt.Sprintf("%s@%s\n", repository, sourceDigest); undone != want {
		t.Errorf("unwrap printed %q, want %q", undone, want)
	}

	before, after := image(t, source), image(t, source+"-otel")
	if d := digest(t, before); d != sourceDigest {
		t.Errorf("the source's tag moved to %s", d)
	}
	if d := digest(t, after); d.String() != p.Digest {
		t.Errorf("tag 1.0-otel has digest %s, want %s", d, p.Digest)
	}
	checkLayers(t, before, after, p)
	checkConfig(t, before, after)
	output(t, "skopeo", "inspect", "--tls-verify=false", "docker://"+wrapped)
	validateContent(t, crane, wrapped)

	original := tc.use(t, bed, testbed.RunOptions{Image: source, Args: tc.plain})
	traced, spans := tc.trace(t, bed, wrapped)
	if !bytes.Equal(traced.answer, original.answer) {
		t.Errorf("the wrapped application answers\n%s\ninstead of\n%s", traced.answer, original.answer)
	}
	bundle := "/opt/imgwrap/otel-" + p.Release.Version
	checkInfo(t, original.info, traced.info, bundle)
	if p.Interpreter.Path != traced.info.Executable {
		t.Errorf("interpreter %s is planned, %s runs", p.Interpreter.Path, traced.info.Executable)
	}
	tc.checkSpans(t, spans)
	checkPip(t, bed, source, wrapped, p)
}

func (tc imageCase) checkPlan(t *testing.T, p plan, source v1.Hash) {
	t.Helper()
	if p.Version != 1 || p.Tag != "1.0-otel" || p.SourceDigest != source.String() {
		t.Errorf("plan has version %d, tag %q, source digest %q; want 1, 1.0-otel, %s", p.Version, p.Tag, p.SourceDigest, source)
	}
	if p.Release.Version != tc.release {
		t.Errorf("release %s/%s chosen, want %s", p.Release.Version, p.Release.Contrib, tc.release)
	}
	for _, scope := range tc.scopes {
		if !p.instruments(scope) {
			t.Errorf("%s is not planned: %v", scope, p.Instrumentations)
		}
	}
	if tc.warning != "" && !slices.ContainsFunc(p.Warnings, func(w string) bool { return strings.Contains(w, tc.warning) }) {
		t.Errorf("no warning has %q: %q", tc.warning, p.Warnings)
	}
}

// validateContent has crane validate an image or index, but for what is in its
// layers: that is checked here, once for all images that have the layer.
func validateContent(t *testing.T, crane, ref string) {
	t.Helper()
	output(t, crane, "validate", "--insecure", "--fast", "--remote", ref)
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	d, err := remote.Get(r, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	var images []v1.Image
	if d.MediaType.IsIndex() {
		index, err := d.ImageIndex()
		if err != nil {
			t.Fatal(err)
		}
		if images, err = partial.FindImages(index, func(v1.Descriptor) bool { return true }); err != nil {
			t.Fatal(err)
		}
	} else {
		img, err := d.Image()
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, img)
	}
	for _, img := range images {
		layers, err := img.Layers()
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if len(config.RootFS.DiffIDs) != len(layers) {
			t.Errorf("%s has %d layers, its config %d", ref, len(layers), len(config.RootFS.DiffIDs))
		}
		for _, l := range layers {
			if err := validateLayer(l); err != nil {
				t.Errorf("validating layers of %s: %v", ref, err)
			}
		}
	}
}

// contents are those of the layers that were read: what has a digest is the same
// everywhere.
var contents sync.Map

// content is what a layer has.
type content struct {
	digest, diffID v1.Hash
	size           int64
}

// validateLayer checks what a manifest and a config say of a layer.
func validateLayer(l v1.Layer) error {
	var want content
	var err error
	if want.digest, err = l.Digest(); err != nil {
		return err
	}
	if want.diffID, err = l.DiffID(); err != nil {
		return err
	}
	if want.size, err = l.Size(); err != nil {
		return err
	}
	read, _ := contents.LoadOrStore(want.digest, sync.OnceValues(func() (content, error) { return readLayer(l) }))
	got, err := read.(func() (content, error))()
	if err != nil {
		return fmt.Errorf("reading %s: %w", want.digest, err)
	}
	if got != want {
		return fmt.Errorf("a layer is %v, want %v", got, want)
	}
	return nil
}

// readLayer reads a layer, in which no path may be twice.
func readLayer(l v1.Layer) (content, error) {
	compressed, err := l.Compressed()
	if err != nil {
		return content{}, err
	}
	defer compressed.Close()
	var size counter
	digest, diffID := sha256.New(), sha256.New()
	in := io.TeeReader(compressed, io.MultiWriter(digest, &size))
	uncompressed, err := gzip.NewReader(in)
	if err != nil {
		return content{}, err
	}
	out := io.TeeReader(uncompressed, diffID)
	seen := map[string]bool{}
	for archive := tar.NewReader(out); ; {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return content{}, err
		}
		if seen[h.Name] {
			return content{}, fmt.Errorf("%s is there twice", h.Name)
		}
		seen[h.Name] = true
	}
	for _, rest := range []io.Reader{out, in} {
		if _, err := io.Copy(io.Discard, rest); err != nil {
			return content{}, err
		}
	}
	sum := func(h hash.Hash) v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))} }
	return content{sum(digest), sum(diffID), int64(size)}, nil
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func image(t *testing.T, ref string) v1.Image {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(tag, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func digest(t *testing.T, img v1.Image) v1.Hash {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// checkLayers compares the manifests: the source's layers, then those planned.
func checkLayers(t *testing.T, before, after v1.Image, p plan) {
	t.Helper()
	old, err := before.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	now, err := after.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if now.MediaType != old.MediaType {
		t.Errorf("media type %s, want %s", now.MediaType, old.MediaType)
	}
	var want, got []string
	for _, l := range old.Layers {
		want = append(want, fmt.Sprintf("%s %s", l.Digest, l.MediaType))
	}
	for _, l := range p.Layers {
		want = append(want, fmt.Sprintf("%s %s", l.Digest, old.Layers[0].MediaType))
	}
	for _, l := range now.Layers {
		got = append(got, fmt.Sprintf("%s %s", l.Digest, l.MediaType))
	}
	if !slices.Equal(got, want) {
		t.Errorf("layers\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// checkConfig compares the configs: only what imgwrap is there to change may
// differ.
func checkConfig(t *testing.T, before, after v1.Image) {
	t.Helper()
	read := func(img v1.Image) (config, inner map[string]json.RawMessage) {
		raw, err := img.RawConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &config); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(config["config"], &inner); err != nil {
			t.Fatal(err)
		}
		return config, inner
	}
	oldConfig, oldInner := read(before)
	newConfig, newInner := read(after)
	for _, c := range []struct {
		old, now map[string]json.RawMessage
		changed  []string
	}{
		{oldConfig, newConfig, []string{"config", "created", "history", "rootfs"}},
		{oldInner, newInner, []string{"Entrypoint", "Env", "Labels"}},
	} {
		for _, key := range c.changed {
			delete(c.old, key)
			delete(c.now, key)
		}
		if !maps.EqualFunc(c.old, c.now, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Errorf("the config has %s, want %s", c.now, c.old)
		}
	}
}

// usage is what a run of an application shows.
type usage struct {
	answer []byte
	info   info
}

// trace uses a wrapped application and returns the spans that it sent.
func (tc imageCase) trace(t *testing.T, bed *testbed.Bed, wrapped string) (usage, []otlp.Span) {
	t.Helper()
	receiver := new(otlp.Receiver)
	collector := httptest.NewServer(receiver)
	defer collector.Close()
	u := tc.use(t, bed, testbed.RunOptions{Image: wrapped, Env: []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + collector.URL,
		"OTEL_BSP_SCHEDULE_DELAY=100", // milliseconds, 5000 by default
	}})
	// The application has ended, and flushed its spans before that.
	return u, receiver.Spans()
}

// use starts an application, asks it, and ends it.
func (tc imageCase) use(t *testing.T, bed *testbed.Bed, options testbed.RunOptions) usage {
	t.Helper()
	ref := options.Image
	app, err := bed.Start(wait(t), options)
	if err != nil {
		t.Fatal(err)
	}
	var u usage
	for range 5 {
		answer, err := app.Get(wait(t), "/")
		if err != nil {
			t.Fatalf("asking %s: %v", ref, err)
		}
		if u.answer != nil && !bytes.Equal(answer, u.answer) {
			t.Fatalf("%s answers %s, then %s", ref, u.answer, answer)
		}
		u.answer = answer
	}
	body, err := app.Get(wait(t), "/info")
	if err != nil {
		t.Fatalf("asking %s: %v", ref, err)
	}
	if err := json.Unmarshal(body, &u.info); err != nil {
		t.Fatalf("asking %s: %v", ref, err)
	}
	for i, arg := range u.info.Argv {
		if strings.HasSuffix(app.URL(), ":"+arg+"/") {
			u.info.Argv[i] = "PORT" // another one each time
		}
	}
	stop := tc.stop
	if stop == 0 {
		stop = syscall.SIGTERM
	}
	code, err := app.Stop(wait(t), stop)
	if err != nil {
		t.Fatalf("stopping %s: %v", ref, err)
	}
	if code != 0 || !strings.Contains(app.Output(), tc.stopped) {
		t.Errorf("%s ended with exit code %d and said\n%s", ref, code, app.Output())
	}
	return u
}

// checkInfo compares what an application sees of its environment.
func checkInfo(t *testing.T, original, traced info, bundle string) {
	t.Helper()
	if last := traced.Path[len(traced.Path)-1]; last != bundle {
		t.Errorf("sys.path ends with %s, want %s", last, bundle)
	}
	own := slices.DeleteFunc(slices.Clone(traced.Path), func(dir string) bool { return strings.HasPrefix(dir, "/opt/imgwrap/") })
	if !slices.Equal(own, original.Path) {
		t.Errorf("sys.path without imgwrap's directories is %q, want %q", own, original.Path)
	}
	if traced.Executable != original.Executable || traced.Version != original.Version || !slices.Equal(traced.Argv, original.Argv) {
		t.Errorf("%s %q, Python %s; want %s %q, Python %s", traced.Executable, traced.Argv, traced.Version,
			original.Executable, original.Argv, original.Version)
	}
	if len(original.Distributions) < 5 || len(traced.Distributions) <= len(original.Distributions) {
		t.Errorf("%d distributions, %d in the wrapped image", len(original.Distributions), len(traced.Distributions))
	}
	for name, d := range original.Distributions {
		if traced.Distributions[name] != d {
			t.Errorf("%s is %v, want %v", name, traced.Distributions[name], d)
		}
	}
	if len(original.Modules) < 100 {
		t.Errorf("only %d modules loaded", len(original.Modules))
	}
	for name, file := range original.Modules {
		// The loader is a sitecustomize, and hands over to the image's own.
		if name != "sitecustomize" && traced.Modules[name] != file {
			t.Errorf("module %s is %q, want %q", name, traced.Modules[name], file)
		}
	}
}

// checkSpans looks for a trace of each request that has all it must leave.
func (tc imageCase) checkSpans(t *testing.T, spans []otlp.Span) {
	t.Helper()
	service := tc.service
	if service == "" {
		service = path.Base(tc.name)
	}
	var want []string
	for _, scope := range tc.scopes {
		want = append(want, "opentelemetry.instrumentation."+scope)
	}
	if tc.own != "" {
		want = append(want, tc.own)
	}
	traces := map[string][]otlp.Span{}
	for _, s := range spans {
		if s.Service() != service {
			t.Errorf("span %s of %s has service.name %q, want %q", s.Name, s.Scope, s.Service(), service)
		}
		traces[s.TraceID] = append(traces[s.TraceID], s)
	}
	complete := 0
	for _, spans := range traces {
		scopes := map[string]bool{}
		servers := 0
		for _, s := range spans {
			scopes[s.Scope] = true
			if s.Kind == "SERVER" {
				servers++
			}
		}
		if servers == tc.servers && !slices.ContainsFunc(want, func(s string) bool { return !scopes[s] }) {
			complete++
		}
	}
	if complete != 5 {
		var tree strings.Builder
		if err := otlp.WriteTree(&tree, spans); err != nil {
			t.Fatal(err)
		}
		t.Errorf("%d traces have %d server spans and spans of %v, want 5 for 5 requests; all that arrived:\n%s",
			complete, tc.servers, want, tree.String())
	}
}

// checkPip holds that pip check finds nothing in the wrapped image that it does
// not find in the source. It returns what pip says of the source.
func checkPip(t *testing.T, bed *testbed.Bed, source, wrapped string, p plan) []string {
	t.Helper()
	problems := pipCheck(t, bed, source, p, "")
	for _, line := range pipCheck(t, bed, wrapped, p, "/opt/imgwrap/otel-"+p.Release.Version) {
		if !slices.Contains(problems, line) {
			t.Errorf("pip check of the wrapped image finds: %s", line)
		}
	}
	return problems
}

// pipCheck returns what pip check says inside an image, line by line, with the
// bundle where the loader puts it.
func pipCheck(t *testing.T, bed *testbed.Bed, ref string, p plan, bundle string) []string {
	t.Helper()
	pip, err := bed.Pip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`
import importlib.metadata, sys
sys.path.insert(0, "/pip")
if %[1]q:
    sys.path.append(%[1]q)
    print(importlib.metadata.version("opentelemetry-api"))
from pip._internal.cli.main import main
main(["check", "--disable-pip-version-check"])
`, bundle)
	out, err := bed.Run(wait(t), testbed.RunOptions{
		Image:      ref,
		Entrypoint: p.Interpreter.Path,
		Args:       []string{"-c", script},
		Volumes:    []string{pip + ":/pip:ro"},
	})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if bundle != "" {
		if lines[0] != p.Release.Version {
			t.Errorf("the bundle has opentelemetry-api %s, want %s", lines[0], p.Release.Version)
		}
		lines = lines[1:]
	}
	return lines
}
