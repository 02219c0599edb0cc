package image

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/imgwrap/imgwrap/image/promote"
	"github.com/imgwrap/imgwrap/image/registry"
)

const testDigest = "sha256:0123456789012345678901234567890123456789012345678901234567890123"

// testManifests are the files of an archive, below /repo. Those in outside are
// outside of what is promoted.
func testManifests(t *testing.T, archive string, outside ...string) *manifests {
	t.Helper()
	m := &manifests{byPath: map[string]*manifest{}}
	for _, file := range txtar.Parse([]byte(archive)).Files {
		f, err := promote.Parse(file.Name, file.Data, promote.Options{})
		if err != nil {
			t.Fatal(err)
		}
		m.add(&manifest{File: f, path: path.Join("/repo", file.Name), content: file.Data, outside: slices.Contains(outside, file.Name)})
	}
	m.relate()
	m.inherit()
	return m
}

// became wraps the images of the shop, but not those that other names say, to
// what the tests look for.
func (m *manifests) became(launcher string, env map[string]string) map[*promote.Use]*outcome {
	became := map[*promote.Use]*outcome{}
	for _, f := range m.files {
		for _, u := range f.Uses {
			r, known := f.image(u)
			if own, _ := own(u, m.ends(f, u)); !known || !own || f.outside {
				continue
			}
			became[u] = &outcome{}
			if strings.HasPrefix(r.Name, "shop/") {
				r.Tag += "-otel"
				r.Digest = testDigest
				became[u] = &outcome{r, launcher, env}
			}
		}
	}
	return became
}

const base = `
-- base/kustomization.yaml --
resources: [web.yaml]
-- base/web.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      containers:
        - name: web
          image: web:dev
          command: [gunicorn]
`

func overlay(name, image string) string {
	return "-- " + name + "/kustomization.yaml --\nresources: [../base]\nimages: [{name: web, newName: " + image + ", newTag: v1}]\n"
}

func deployment(container string) string {
	return "-- web.yaml --\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {spec: {containers: [" + container + "]}}}\n"
}

func TestDecide(t *testing.T) {
	for _, tt := range []struct {
		name     string
		files    string
		outside  []string
		launcher string // "none" for none
		env      map[string]string
		changes  []string // FILE IMAGE LAUNCHER
		warnings []string // what each begins with, or has in it behind an ellipsis
	}{
		{
			name:    "an image and its command",
			files:   deployment(`{name: web, image: shop/web:v1, command: [gunicorn]}, {name: proxy, image: envoy:v1, command: [envoy]}`),
			changes: []string{"web.yaml shop/web:v1-otel launcher"},
		},
		{
			name:     "activated without the entry point, commands stay",
			files:    deployment(`{name: web, image: shop/web:v1, command: [gunicorn]}`),
			launcher: "none",
			changes:  []string{"web.yaml shop/web:v1-otel "},
		},
		{
			name:    "a command that starts the launcher",
			files:   deployment(`{name: web, image: shop/web:v1, command: [/venv/bin/launcher, gunicorn]}`),
			changes: []string{"web.yaml shop/web:v1-otel "},
		},
		{
			name:     "an image that cannot be told",
			files:    deployment(`{name: web, image: "shop/web:$TAG", command: [gunicorn]}`),
			warnings: []string{`web.yaml:4: spec.template.spec.containers[0].image is left alone: "shop/web:$TAG" is filled in`},
		},
		{
			name:     "variables that contradict",
			files:    deployment(`{name: web, image: shop/web:v1, env: [{name: OTEL_SERVICE_NAME, value: shop}, {name: OTEL_TRACES_EXPORTER, value: otlp}, {name: OTEL_LOGS_EXPORTER, valueFrom: {}}]}`),
			env:      map[string]string{"OTEL_SERVICE_NAME": "web", "OTEL_TRACES_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "none"},
			changes:  []string{"web.yaml shop/web:v1-otel "},
			warnings: []string{`web.yaml:4: OTEL_SERVICE_NAME is "shop" here and "web" in the wrapped image: what is here counts`},
		},
		{
			name:    "a base that all overlays replace",
			files:   base + overlay("staging", "shop/web") + overlay("production", "shop/web"),
			changes: []string{"base/web.yaml  launcher", "staging/kustomization.yaml shop/web:v1-otel ", "production/kustomization.yaml shop/web:v1-otel "},
		},
		{
			name:     "a base that one overlay replaces by an image that is not wrapped",
			files:    base + overlay("staging", "shop/web") + overlay("production", "other/web"),
			changes:  []string{"staging/kustomization.yaml shop/web:v1-otel "},
			warnings: []string{"base/web.yaml:10: command of Deployment/web, web keeps the wrapped image from being instrumented, and not all that use it have that image"},
		},
		{
			name:     "a base outside",
			files:    base + overlay("staging", "shop/web"),
			outside:  []string{"base/kustomization.yaml", "base/web.yaml"},
			changes:  []string{"staging/kustomization.yaml shop/web:v1-otel "},
			warnings: []string{"base/web.yaml:10: command of Deployment/web, web keeps the wrapped image from being instrumented, and is outside of what is promoted"},
		},
		{
			name:     "an overlay that takes the base's image as it is",
			files:    strings.ReplaceAll(base, "web:dev", "shop/web:dev") + "-- staging/kustomization.yaml --\nresources: [../base]\nimages: [{name: shop/web, newTag: v1}]\n-- production/kustomization.yaml --\nresources: [../base]\n",
			changes:  []string{"staging/kustomization.yaml shop/web:v1-otel "},
			warnings: []string{"base/web.yaml:9: shop/web:dev is taken as it is by production/kustomization.yaml, while others replace it", "base/web.yaml:10: command of Deployment/web, web keeps"},
		},
		{
			name:     "an image of a base outside that nobody replaces",
			files:    strings.ReplaceAll(base, "web:dev", "shop/web:dev") + "-- staging/kustomization.yaml --\nresources: [../base]\n",
			outside:  []string{"base/kustomization.yaml", "base/web.yaml"},
			warnings: []string{"base/web.yaml:9: shop/web:dev is used by staging/kustomization.yaml and outside of what is promoted"},
		},
		{
			name:    "overlays of overlays, each with a name for the next",
			files:   base + "-- mid/kustomization.yaml --\nresources: [../base]\nimages: [{name: web, newName: middle}]\n-- top/kustomization.yaml --\nresources: [../mid]\nimages: [{name: middle, newName: shop/web, newTag: v2}]\n",
			changes: []string{"base/web.yaml  launcher", "top/kustomization.yaml shop/web:v2-otel "},
		},
		{
			name:    "an entry with a name, whose tag is the base's",
			files:   base + "-- staging/kustomization.yaml --\nresources: [../base]\nimages: [{name: web, newName: shop/web}]\n",
			changes: []string{"base/web.yaml  launcher", "staging/kustomization.yaml shop/web:dev-otel "},
		},
		{
			name:    "a command in the patch of an overlay",
			files:   strings.ReplaceAll(base, "          command: [gunicorn]\n", "") + overlay("staging", "shop/web") + "patches: [{path: patch.yaml}]\n" + overlay("production", "other/web") + "-- staging/patch.yaml --\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {spec: {containers: [{name: web, command: [celery]}]}}}\n",
			changes: []string{"staging/kustomization.yaml shop/web:v1-otel ", "staging/patch.yaml  launcher"},
		},
		{
			name:     "a command of a container that nothing names an image for",
			files:    "-- patch.yaml --\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {spec: {containers: [{name: web, command: [celery]}]}}}\n",
			warnings: []string{"patch.yaml:4: command of Deployment/web, web: no manifest says which image it runs in"},
		},
		{
			name:    "the command of a service in a file of its own",
			files:   "-- compose.yaml --\nservices: {web: {image: 'shop/web:v1'}}\n-- compose.override.yaml --\nservices: {web: {entrypoint: gunicorn}}\n-- other/compose.override.yaml --\nservices: {web: {entrypoint: [opentelemetry-instrument, gunicorn]}}\n",
			changes: []string{"compose.yaml shop/web:v1-otel ", "compose.override.yaml  launcher"},
		},
		{
			name:     "a script",
			files:    "-- workflow.yaml --\napiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: web}\nspec: {steps: [{name: web, image: 'shop/web:v1', script: python x.py}]}\n",
			changes:  []string{"workflow.yaml shop/web:v1-otel "},
			warnings: []string{"workflow.yaml:4: script of Task/web, web keeps the wrapped image from being instrumented: start its program with launcher in front"},
		},
		{
			name:    "kustomizations that take in each other",
			files:   "-- a/kustomization.yaml --\nresources: [../b]\nimages: [{name: x, newName: shop/web, newTag: v1}]\n-- b/kustomization.yaml --\nresources: [../a]\n",
			changes: []string{"a/kustomization.yaml shop/web:v1-otel "},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := testManifests(t, tt.files, tt.outside...)
			launcher := "launcher"
			if tt.launcher == "none" {
				launcher = ""
			}
			d := m.decide(m.became(launcher, tt.env))
			var changes []string
			for _, f := range m.files {
				for _, c := range d.changes[f] {
					changes = append(changes, fmt.Sprintf("%s %s %s", f.Name, strings.TrimSuffix(c.Image.String(), "@"+testDigest), c.Launcher))
				}
				if len(d.changes[f]) > 0 && f.outside {
					t.Errorf("%s is outside and would change", f.Name)
				}
				if _, err := f.Edit(d.changes[f]); err != nil {
					t.Error(err)
				}
			}
			if !slices.Equal(changes, tt.changes) {
				t.Errorf("changes are %q, want %q", changes, tt.changes)
			}
			if len(d.warnings) != len(tt.warnings) {
				t.Fatalf("warnings are %q, want %q", d.warnings, tt.warnings)
			}
			for i, w := range tt.warnings {
				if !strings.HasPrefix(d.warnings[i], w) {
					t.Errorf("warning is %q, want %q", d.warnings[i], w)
				}
			}
		})
	}
}

func testEntry(source, image string) promote.Locked {
	return promote.Locked{Source: source, SourceDigest: strings.ReplaceAll(testDigest, "0", "1"), Image: image, Digest: testDigest}
}

func TestSubject(t *testing.T) {
	lock := &lockFile{Lock: &promote.Lock{
		Images: []promote.Locked{
			testEntry("registry.example.com/shop/web:v1", "registry.example.com/shop/web:v1-otel"),
			testEntry("app:v1", "app:v1-otel"),
			testEntry("app:v2@"+testDigest, "app:v2-otel"),
			testEntry("shop/cart:v1", "shop/cart-otel:v1"),
			testEntry("shop/cart:again", "shop/cart-otel:again"), // the same image by another tag
		},
		Kept: []promote.KeptImage{{Source: "envoy:v1"}},
	}}
	other := strings.ReplaceAll(testDigest, "0", "2")
	for _, tt := range []struct{ ref, locked, conflict, kept string }{
		{ref: "registry.example.com/shop/web:v1", locked: "registry.example.com/shop/web:v1-otel"},
		{ref: "registry.example.com/shop/web:v1-otel@" + testDigest, locked: "registry.example.com/shop/web:v1-otel"},
		{ref: "registry.example.com/shop/web:v1-otel", locked: "registry.example.com/shop/web:v1-otel"},
		{ref: "registry.example.com/shop/web:v1-otel@" + other, locked: "registry.example.com/shop/web:v1-otel"},
		{ref: "registry.example.com/shop/web@" + testDigest, locked: "registry.example.com/shop/web:v1-otel"},
		{ref: "registry.example.com/shop/web:v1@" + testDigest, locked: "registry.example.com/shop/web:v1-otel"},
		{ref: "shop/cart-otel:again@" + testDigest, locked: "shop/cart-otel:again"},
		{ref: "registry.example.com/shop/web:v2@" + testDigest, conflict: "registry.example.com/shop/web:v1-otel"},
		{ref: "registry.example.com/shop/web:v2"},
		{ref: "registry.example.com/shop/web:v1@" + other},
		{ref: "mirror.example.com/shop/web:v1-otel@" + testDigest},
		{ref: "docker.io/library/app:v1", locked: "app:v1-otel"},
		{ref: "shop/cart-otel:v1@" + testDigest, locked: "shop/cart-otel:v1"},
		{ref: "shop/cart:v1", locked: "shop/cart-otel:v1"},
		{ref: "envoy:v1", kept: "envoy:v1"},
		{ref: "envoy:v2"},
	} {
		r, err := promote.ParseReference(tt.ref)
		if err != nil {
			t.Fatal(err)
		}
		s := lock.subject(r)
		var locked, conflict, kept string
		if s.locked != nil {
			locked = s.locked.Image
		}
		if s.conflict != nil {
			conflict = s.conflict.Image
		}
		if s.kept != nil {
			kept = s.kept.Source
		}
		if locked != tt.locked || conflict != tt.conflict || kept != tt.kept {
			t.Errorf("%s is %q, %q, %q, want %q, %q, %q", tt.ref, locked, conflict, kept, tt.locked, tt.conflict, tt.kept)
		}
	}
}

func TestCopy(t *testing.T) {
	lock := &lockFile{name: "staging/imgwrap.lock", Lock: &promote.Lock{
		Images: []promote.Locked{
			testEntry("registry.example.com/shop/web:v1", "registry.example.com/shop/web:v1-otel"),
			testEntry("registry.example.com/shop/cart:v1", "registry.example.com/shop/cart-otel:v1"),
		},
		Kept: []promote.KeptImage{{Source: "envoy:v1", Reason: "no Python"}},
	}}
	const (
		web  = "registry.example.com/shop/web:v1-otel@" + testDigest
		cart = "registry.example.com/shop/cart-otel:v1@" + testDigest
		pod  = "apiVersion: v1\nkind: Pod\nmetadata: {name: shop}\nspec: {containers: [%s]}\n"
	)
	kustomization := func(images string) string {
		return "-- kustomization.yaml --\nimages: [" + images + "]\n"
	}
	for _, tt := range []struct {
		name     string
		from, to string
		images   []string // that the uses of to get, "" for none
		err      string
		warning  string
	}{
		{
			name:   "the same place",
			from:   "-- web.yaml --\n" + fmt.Sprintf(pod, "{name: a, image: '"+web+"'}"),
			to:     "-- web.yaml --\n" + fmt.Sprintf(pod, "{name: b, image: 'registry.example.com/shop/web:v0'}"),
			images: []string{web},
		},
		{
			name:   "the same name elsewhere",
			from:   "-- a.yaml --\n" + fmt.Sprintf(pod, "{name: proxy, image: 'envoy:v1'}, {name: web, image: '"+web+"'}"),
			to:     "-- b.yaml --\n" + fmt.Sprintf(pod, "{name: web, image: 'registry.example.com/shop/web:v0'}, {name: proxy, image: 'envoy:v1'}"),
			images: []string{web, ""},
		},
		{
			name:   "the same repository",
			from:   "-- values.yaml --\nweb: {image: {repository: registry.example.com/shop/cart-otel, tag: 'v1@" + testDigest + "'}}\n",
			to:     "-- values-production.yaml --\nshop: {image: {repository: registry.example.com/shop/cart, tag: v0}}\n",
			images: []string{cart},
		},
		{
			name:   "another registry",
			from:   "-- a.yaml --\n" + fmt.Sprintf(pod, "{name: web, image: '"+web+"'}"),
			to:     "-- b.yaml --\n" + fmt.Sprintf(pod, "{name: app, image: 'production.example.com/web:v0'}"),
			images: []string{"production.example.com/web:v1-otel@" + testDigest},
		},
		{
			name:   "a name that kustomize replaces by one and not by the other",
			from:   kustomization("{name: web, newName: registry.example.com/shop/web, newTag: v1-otel, digest: '" + testDigest + "'}"),
			to:     kustomization("{name: web, newTag: v0}"),
			images: []string{web},
		},
		{
			name:   "a name without a tag",
			from:   kustomization("{name: web, newName: registry.example.com/shop/web, newTag: v1-otel, digest: '" + testDigest + "'}"),
			to:     kustomization("{name: web, newName: production.example.com/web}"),
			images: []string{"production.example.com/web:v1-otel@" + testDigest},
		},
		{
			name:    "nothing that corresponds",
			from:    "-- a.yaml --\n" + fmt.Sprintf(pod, "{name: web, image: '"+web+"'}"),
			to:      "-- a.yaml --\n" + fmt.Sprintf(pod, "{name: web, image: 'registry.example.com/shop/mail:v0'}"),
			images:  []string{""},
			warning: "a.yaml:4: registry.example.com/shop/mail:v0 stays: nothing in staging corresponds to it",
		},
		{
			name:    "an image that was not wrapped",
			from:    "-- a.yaml --\n" + fmt.Sprintf(pod, "{name: proxy, image: 'envoy:v1'}"),
			to:      "-- a.yaml --\n" + fmt.Sprintf(pod, "{name: proxy, image: 'envoy:v0'}"),
			images:  []string{""},
			warning: "a.yaml:4: envoy:v0 is envoy:v1 at a.yaml:4, and stays",
		},
		{
			name:   "an image that is not promoted",
			from:   "-- a.yaml --\n" + fmt.Sprintf(pod, "{name: web, image: 'registry.example.com/shop/web:v1'}"),
			to:     "-- a.yaml --\n" + fmt.Sprintf(pod, "{name: web, image: 'registry.example.com/shop/web:v0'}"),
			images: []string{""},
			err:    "a.yaml:4: registry.example.com/shop/web:v1 is not promoted: staging/imgwrap.lock does not have it",
		},
		{
			name:   "two that correspond and differ",
			from:   "-- a.yaml --\n" + fmt.Sprintf(pod, "{name: a, image: '"+web+"'}, {name: b, image: 'registry.example.com/shop/web:v2'}"),
			to:     "-- b.yaml --\n" + fmt.Sprintf(pod, "{name: c, image: 'registry.example.com/shop/web:v0'}"),
			images: []string{""},
			err:    "b.yaml:4: registry.example.com/shop/web is registry.example.com/shop/web:v1-otel@" + testDigest + " at a.yaml:4, and registry.example.com/shop/web:v2 at a.yaml:4",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from, to := testManifests(t, tt.from), testManifests(t, tt.to)
			c := &copying{
				from: "staging", lock: lock, promoted: from.promotable("/repo"), toPath: "/repo", byKey: map[string]*subject{},
				to: &promoter{manifests: to, lock: &lockFile{Lock: &promote.Lock{}}},
			}
			c.pairAll()
			got := map[*promote.Use]string{}
			var failed, warning string
			for _, s := range c.subjects {
				for _, u := range s.uses {
					got[u] = s.image.String()
				}
				if s.err != nil {
					failed = s.err.Error()
				}
				warning += strings.Join(s.warnings, "\n")
			}
			var images []string
			for _, u := range to.files[0].Uses {
				images = append(images, got[u])
			}
			if !slices.Equal(images, tt.images) {
				t.Errorf("images are %q, want %q", images, tt.images)
			}
			if failed != tt.err {
				t.Errorf("error is %q, want %q", failed, tt.err)
			}
			if !strings.HasPrefix(warning, tt.warning) || tt.warning == "" && warning != "" {
				t.Errorf("warning is %q, want %q", warning, tt.warning)
			}
		})
	}
}

func TestWriteAll(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) fileEdit {
		e := fileEdit{name: name, path: filepath.Join(dir, name), after: []byte("after " + name)}
		if content != "" {
			e.before = []byte(content)
			if err := os.WriteFile(e.path, e.before, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return e
	}
	check := func(e fileEdit, want string) {
		t.Helper()
		if got, err := os.ReadFile(e.path); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v, want %q", e.name, got, err, want)
		}
	}
	a, b, lock := file("a.yaml", "a"), file("b.yaml", "b"), file("lock", "")

	changed := b
	changed.before = []byte("other")
	if err := writeAll([]fileEdit{a, changed, lock}); err == nil || err.Error() != "b.yaml was changed meanwhile; no file was written, run it again" {
		t.Errorf("error is %v", err)
	}
	check(a, "a")
	created := b
	created.before = nil
	if err := writeAll([]fileEdit{a, created}); err == nil || err.Error() != "b.yaml was changed meanwhile; no file was written, run it again" {
		t.Errorf("error is %v", err)
	}
	check(a, "a")
	check(b, "b")

	beyond := lock
	beyond.path = filepath.Join(dir, "a.yaml", "lock")
	if err := writeAll([]fileEdit{a, b, beyond}); err == nil || !strings.HasSuffix(err.Error(), "; no file was changed") {
		t.Errorf("error is %v", err)
	}
	check(a, "a")
	check(b, "b")

	if err := writeAll([]fileEdit{a, b, lock}); err != nil {
		t.Fatal(err)
	}
	check(a, "after a.yaml")
	check(b, "after b.yaml")
	check(lock, "after lock")
	if info, err := os.Stat(a.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
}

func TestSpelled(t *testing.T) {
	for _, tt := range []struct{ image, source, want string }{
		{"registry.example.com/shop/web:v1-otel", "registry.example.com/shop/web", "registry.example.com/shop/web:v1-otel"},
		{"index.docker.io/library/app:v1-otel", "app", "app:v1-otel"},
		{"index.docker.io/shop/app:v1-otel", "shop/app", "shop/app:v1-otel"},
		{"index.docker.io/library/app:v1-otel", "docker.io/library/app", "docker.io/library/app:v1-otel"},
		{"index.docker.io/shop/app:v1-otel", "index.docker.io/shop/app", "docker.io/shop/app:v1-otel"},
	} {
		if got := spelled(tt.image, tt.source); got != tt.want {
			t.Errorf("%s for %s is %s, want %s", tt.image, tt.source, got, tt.want)
		}
	}
}

// What is interrupted before it writes has written nothing.
func TestPromoteInterrupted(t *testing.T) {
	dir := t.TempDir()
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: web, image: '127.0.0.1:1/web:v1'}]}\n"
	file := filepath.Join(dir, "web.yaml")
	if err := os.WriteFile(file, []byte(pod), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := &Wrapper{Registry: registry.New(registry.Options{})}
	p, err := w.Promote(ctx, []string{file}, PromoteOptions{
		Workers: 1,
		Options: func(map[string][]string) (Options, error) {
			cancel()
			return Options{}, nil
		},
	})
	if err == nil || err.Error() != "interrupted; no file was written" || p == nil || len(p.Files) > 0 {
		t.Errorf("promotion is %+v, error %v", p, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("there is %v, %v", entries, err)
	}
}

// What the lock knows costs two requests without a body, and reads no image.
func TestPromoteAsks(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	source := strings.ReplaceAll(testDigest, "0", "1")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path != "/v2/" {
			asked = append(asked, r.Method+" "+path.Base(r.URL.Path))
		}
		w.Header().Set("Docker-Content-Digest", testDigest)
		if path.Base(r.URL.Path) == "v1" {
			w.Header().Set("Docker-Content-Digest", source)
		}
	}))
	defer server.Close()
	repository := strings.TrimPrefix(server.URL, "http://") + "/web"
	lock := promote.Lock{Images: []promote.Locked{testEntry(repository+":v1", repository+":v1-otel")}}
	dir := t.TempDir()
	for name, content := range map[string]string{
		promote.LockName: string(lock.Bytes()),
		"a.yaml":         "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, image: '" + repository + ":v1-otel@" + testDigest + "'}]}\n",
		"b.yaml":         "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: b, image: '" + repository + ":v1-otel@" + testDigest + "'}]}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := &Wrapper{Registry: registry.New(registry.Options{})}
	p, err := w.Promote(t.Context(), []string{dir}, PromoteOptions{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Images) != 1 || p.Images[0].State != PromotedCurrent || len(p.Images[0].Uses) != 2 || len(p.Files) > 0 {
		t.Errorf("promotion is %+v", p)
	}
	slices.Sort(asked)
	if want := []string{"HEAD " + testDigest, "HEAD v1"}; !slices.Equal(asked, want) {
		t.Errorf("the registry was asked %q, want %q", asked, want)
	}
}
