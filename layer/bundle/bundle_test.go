package bundle

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/wheel"
	"github.com/imgwrap/imgwrap/layer/wheel/wheeltest"
)

// wheels are those of a small release.
func wheels() map[string][]byte {
	return map[string][]byte{
		"opentelemetry_api-1.2.0-py3-none-any.whl": wheeltest.Make("opentelemetry_api", "1.2.0",
			wheeltest.Entry{Name: "opentelemetry/trace/__init__.py", Content: "# traces\n"},
			wheeltest.Entry{Name: "opentelemetry/py.typed"},
			wheeltest.Entry{Name: "opentelemetry_api-1.2.0.dist-info/licenses/LICENSE", Content: "Apache-2.0\n"},
			wheeltest.Entry{Name: "opentelemetry_api-1.2.0.data/scripts/otel", Content: "#!python\n"},
		),
		"opentelemetry_instrumentation_flask-0.3b0-py3-none-any.whl": wheeltest.Make("opentelemetry_instrumentation_flask", "0.3b0",
			wheeltest.Entry{Name: "opentelemetry/instrumentation/flask.py", Content: "class FlaskInstrumentor: pass\n"},
			wheeltest.Entry{Name: "opentelemetry/py.typed"}, // also in the other, and equal
			wheeltest.Entry{
				Name:    "opentelemetry_instrumentation_flask-0.3b0.dist-info/entry_points.txt",
				Content: "[opentelemetry_instrumentor]\nflask = opentelemetry.instrumentation.flask:FlaskInstrumentor\n",
			},
			wheeltest.Entry{
				Name: "opentelemetry_instrumentation_flask-0.3b0.dist-info/METADATA",
				Content: wheeltest.Metadata("opentelemetry-instrumentation-flask", "0.3b0",
					"Requires-Python: >=3.8", "Requires-Dist: opentelemetry-api~=1.2"),
			},
		),
	}
}

// release locks the wheels, as the catalog does.
func release(wheels map[string][]byte) *catalog.Release {
	r := &catalog.Release{Version: "1.2.0", Contrib: "0.3b0", Python: catalog.Python{Min: "3.8", Max: "3.14"}}
	for file, content := range wheels {
		name, rest, _ := strings.Cut(file, "-")
		version, _, _ := strings.Cut(rest, "-")
		d := catalog.Distribution{
			Name:    strings.ReplaceAll(name, "_", "-"),
			Version: version,
			Wheel:   file,
			SHA256:  wheeltest.SHA256(content),
			Size:    int64(len(content)),
		}
		if d.Name == "opentelemetry-instrumentation-flask" {
			d.RequiresPython = ">=3.8"
			d.Requires = []string{"opentelemetry-api~=1.2"}
		}
		r.Distributions = append(r.Distributions, d)
	}
	slices.SortFunc(r.Distributions, func(a, b catalog.Distribution) int { return strings.Compare(a.Name, b.Name) })
	r.Instrumentations = []catalog.Instrumentation{{
		Name:         "flask",
		Distribution: "opentelemetry-instrumentation-flask",
		EntryPoint:   "opentelemetry.instrumentation.flask:FlaskInstrumentor",
	}}
	return r
}

// builder returns a Builder with an index that has the wheels.
func builder(t *testing.T, wheels map[string][]byte) *Builder {
	t.Helper()
	s := httptest.NewServer(&wheeltest.Index{Wheels: wheels})
	t.Cleanup(s.Close)
	return &Builder{
		Cache:  &layer.Cache{Dir: t.TempDir()},
		Wheels: &wheel.Fetcher{CacheDir: t.TempDir(), Index: s.URL + "/simple"},
	}
}

// contents renders a layer's entries, one a line.
func contents(t *testing.T, l *layer.Layer) []string {
	t.Helper()
	r, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var lines []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(layer.Epoch) {
			t.Errorf("%s has the time %s", h.Name, h.ModTime)
		}
		line := fmt.Sprintf("%o %d:%d %s", h.Mode, h.Uid, h.Gid, h.Name)
		if h.Typeflag == tar.TypeSymlink {
			line += " -> " + h.Linkname
		}
		lines = append(lines, line)
	}
}

// read returns the content of a file in a layer.
func read(t *testing.T, l *layer.Layer, name string) string {
	t.Helper()
	r, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if h.Name == name {
			content, err := io.ReadAll(tr)
			if err != nil {
				t.Fatal(err)
			}
			return string(content)
		}
	}
}

func wantLines(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func record(r *catalog.Release, l *layer.Layer) {
	info := l.Info()
	r.Layer = catalog.Layer{Digest: info.Digest.String(), DiffID: info.DiffID.String(), Size: info.Size, Unpacked: info.Unpacked, Files: info.Files}
}

// The wheels' own bytes don't count, only what is in them: this one's digest
// stays when a new Go compresses them otherwise.
const goldenDigest = "sha256:143e570ed64610e3de5058caf379cd4e5fca155bb7937f537bd9d0e6e38d9a46"

func TestBuild(t *testing.T) {
	r := release(wheels())
	b := builder(t, wheels())
	for _, procs := range []int{1, 2} {
		old := runtime.GOMAXPROCS(procs)
		l, err := b.Build(t.Context(), r)
		runtime.GOMAXPROCS(old)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Info().Digest.String(); got != goldenDigest {
			t.Errorf("GOMAXPROCS %d: digest %s, want %s", procs, got, goldenDigest)
		}
		wantLines(t, contents(t, l), []string{
			"755 0:0 opt/imgwrap/",
			"755 0:0 opt/imgwrap/otel-1.2.0/",
			"755 0:0 opt/imgwrap/otel-1.2.0/opentelemetry/",
			"755 0:0 opt/imgwrap/otel-1.2.0/opentelemetry/instrumentation/",
			"644 0:0 opt/imgwrap/otel-1.2.0/opentelemetry/instrumentation/flask.py",
			"644 0:0 opt/imgwrap/otel-1.2.0/opentelemetry/py.typed",
			"755 0:0 opt/imgwrap/otel-1.2.0/opentelemetry/trace/",
			"644 0:0 opt/imgwrap/otel-1.2.0/opentelemetry/trace/__init__.py",
			"755 0:0 opt/imgwrap/otel-1.2.0/opentelemetry_api-1.2.0.dist-info/",
			"644 0:0 opt/imgwrap/otel-1.2.0/opentelemetry_api-1.2.0.dist-info/METADATA",
			"644 0:0 opt/imgwrap/otel-1.2.0/opentelemetry_api-1.2.0.dist-info/RECORD",
			"644 0:0 opt/imgwrap/otel-1.2.0/opentelemetry_api-1.2.0.dist-info/WHEEL",
			"755 0:0 opt/imgwrap/otel-1.2.0/opentelemetry_api-1.2.0.dist-info/licenses/",
			"644 0:0 opt/imgwrap/otel-1.2.0/opentelemetry_api-1.2.0.dist-info/licenses/LICENSE",
			"755 0:0 opt/imgwrap/otel-1.2.0/opentelemetry_instrumentation_flask-0.3b0.dist-info/",
			"644 0:0 opt/imgwrap/otel-1.2.0/opentelemetry_instrumentation_flask-0.3b0.dist-info/METADATA",
			"644 0:0 opt/imgwrap/otel-1.2.0/opentelemetry_instrumentation_flask-0.3b0.dist-info/RECORD",
			"644 0:0 opt/imgwrap/otel-1.2.0/opentelemetry_instrumentation_flask-0.3b0.dist-info/WHEEL",
			"644 0:0 opt/imgwrap/otel-1.2.0/opentelemetry_instrumentation_flask-0.3b0.dist-info/entry_points.txt",
		})
		if got := read(t, l, "opt/imgwrap/otel-1.2.0/opentelemetry/trace/__init__.py"); got != "# traces\n" {
			t.Errorf("content %q", got)
		}
	}
}

func TestBundle(t *testing.T) {
	r := release(wheels())
	b := builder(t, wheels())
	if _, err := b.Bundle(t.Context(), r); err == nil || !strings.Contains(err.Error(), "the catalog has no bundle layer for 1.2.0/0.3b0") {
		t.Errorf("error %v, want one that says that none is recorded", err)
	}
	unrecorded, err := b.Build(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	record(r, unrecorded)
	if info, err := Recorded(r); info != unrecorded.Info() || err != nil {
		t.Errorf("Recorded = %v, %v; want %v", info, err, unrecorded.Info())
	}
	if _, err := b.Cache.Stat(unrecorded.Info().Digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v; want a layer that the catalog doesn't know not to be cached", err)
	}

	built, err := b.Bundle(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	// Nothing but the layer is needed from now on.
	b.Wheels = &wheel.Fetcher{CacheDir: t.TempDir(), Offline: true}
	again, err := b.Bundle(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if built.Info() != unrecorded.Info() || again.Info() != unrecorded.Info() {
		t.Errorf("layers %v, %v and %v differ", unrecorded.Info(), built.Info(), again.Info())
	}

	if err := os.WriteFile(b.Cache.Path(again.Info().Digest), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	var missing *wheel.MissingError
	if _, err := b.Bundle(t.Context(), r); !errors.As(err, &missing) || len(missing.Refs) != 2 {
		t.Errorf("error %v, want one of the wheels that a new build needs", err)
	}
}

func TestDeferred(t *testing.T) {
	r := release(wheels())
	b := builder(t, wheels())
	if _, err := b.Deferred(t.Context(), r); err == nil || b.Cached(r) {
		t.Errorf("error %v, cached %t; want a release without a recorded layer to have neither", err, b.Cached(r))
	}
	built, err := b.Build(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	record(r, built)
	if b.Cached(r) {
		t.Error("cached before anything was")
	}

	ctx, cancel := context.WithCancel(t.Context())
	deferred, err := b.Deferred(ctx, r)
	if err != nil || deferred.Info() != built.Info() {
		t.Fatalf("%v, %v; want %v", deferred.Info(), err, built.Info())
	}
	if b.Cached(r) {
		t.Error("cached before it was read")
	}
	if err := validate.Layer(deferred); err != nil {
		t.Error(err)
	}
	if !b.Cached(r) {
		t.Error("not cached after it was read")
	}
	if err := os.Remove(b.Cache.Path(built.Info().Digest)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := deferred.Compressed(); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func TestBundleRefuses(t *testing.T) {
	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	recorded := catalog.Layer{Digest: digest, DiffID: digest, Size: 1}
	for name, tt := range map[string]struct {
		edit func(*catalog.Release, map[string][]byte)
		want string
	}{
		"other digest": {func(*catalog.Release, map[string][]byte) {
		}, "got layer " + goldenDigest + ", but the catalog has " + digest},
		"malformed digest": {func(r *catalog.Release, _ map[string][]byte) {
			r.Layer.Digest = "sha256:beef"
		}, "bundle layer of 1.2.0/0.3b0 in the catalog: digest: "},
		"malformed diff ID": {func(r *catalog.Release, _ map[string][]byte) {
			r.Layer.DiffID = ""
		}, "bundle layer of 1.2.0/0.3b0 in the catalog: diff ID: "},
		"requirements": {func(r *catalog.Release, _ map[string][]byte) {
			r.Distributions[1].Requires = nil
		}, `it requires ["opentelemetry-api~=1.2"]`},
		"Python": {func(r *catalog.Release, _ map[string][]byte) {
			r.Distributions[0].RequiresPython = ">=3.7"
		}, `it requires Python ""`},
		"instrumentation": {func(r *catalog.Release, _ map[string][]byte) {
			r.Instrumentations = nil
		}, "its instrumentations are map[flask:opentelemetry.instrumentation.flask:FlaskInstrumentor]"},
		"wheel not on the index": {func(r *catalog.Release, _ map[string][]byte) {
			r.Distributions[0].Wheel = "opentelemetry_api-1.2.1-py3-none-any.whl"
		}, "fetching wheel opentelemetry_api-1.2.1-py3-none-any.whl"},
		"different files": {func(r *catalog.Release, w map[string][]byte) {
			file := "other-1.0-py3-none-any.whl"
			w[file] = wheeltest.Make("other", "1.0", wheeltest.Entry{Name: "opentelemetry/py.typed", Content: "partial\n"})
			r.Distributions = append(r.Distributions, release(map[string][]byte{file: w[file]}).Distributions...)
		}, "opentelemetry/py.typed of opentelemetry_api and other differ"},
		"file as directory": {func(r *catalog.Release, w map[string][]byte) {
			file := "other-1.0-py3-none-any.whl"
			w[file] = wheeltest.Make("other", "1.0", wheeltest.Entry{Name: "opentelemetry"})
			r.Distributions = append(r.Distributions, release(map[string][]byte{file: w[file]}).Distributions...)
		}, `duplicate path "opt/imgwrap/otel-1.2.0/opentelemetry"`},
		"bad wheel": {func(r *catalog.Release, w map[string][]byte) {
			file := "other-1.0-py3-none-any.whl"
			w[file] = wheeltest.Make("other", "1.0", wheeltest.Entry{Name: "../evil.py"})
			r.Distributions = append(r.Distributions, release(map[string][]byte{file: w[file]}).Distributions...)
		}, `reading wheel other-1.0-py3-none-any.whl: entry "../evil.py": unsafe path`},
	} {
		t.Run(name, func(t *testing.T) {
			files := wheels()
			r := release(files)
			r.Layer = recorded
			tt.edit(r, files)
			_, err := builder(t, files).Bundle(t.Context(), r)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if err != nil && !strings.Contains(err.Error(), r.String()) {
				t.Errorf("error %v doesn't name the release", err)
			}
		})
	}
}

func TestBundleCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := builder(t, wheels()).Build(ctx, release(wheels())); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

// Every release has been recorded, and hides can be named for all of it.
func TestCatalog(t *testing.T) {
	c, err := catalog.Load()
	if err != nil {
		t.Fatal(err)
	}
	for r, err := range c.Releases() {
		if err != nil {
			t.Fatal(err)
		}
		if info, err := Recorded(r); err != nil || info.Size == 0 || info.Files == 0 || info.Unpacked == 0 {
			t.Errorf("%s: recorded %v, %v", r, info, err)
		}
		for _, d := range r.Distributions {
			if got := DistInfo(d); !strings.HasSuffix(got, "-"+d.Version+".dist-info") {
				t.Errorf("%s: %s has the metadata directory %s", r, d.Wheel, got)
			}
		}
	}
}
