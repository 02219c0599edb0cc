package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	containers "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imgwrap/imgwrap/cmd/internal/wire"
	"github.com/imgwrap/imgwrap/image"
	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/scan"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// roundTrip is how far away the registry is.
const roundTrip = time.Second

// distant is a registry in this process.
type distant struct{ handler http.Handler }

func (r distant) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "http" {
		return nil, http.ErrSchemeMismatch
	}
	time.Sleep(roundTrip)
	if req.Body == nil {
		req.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	resp := w.Result()
	resp.Request = req
	return resp, nil
}

// TestWire holds what wrapping asks and sends, to the request, so that one more
// does not go unnoticed. Time is that of a bubble: nothing but round trips takes
// any.
func TestWire(t *testing.T) {
	releases, wheels := testReleases(t)
	index := httptest.NewServer(wheels)
	defer index.Close()
	cache := t.TempDir()
	a := app{cacheDir: cache, jobs: 4, cacheSize: defaultCacheSize, streams: streams{getenv: func(string) string { return "" }}}
	builder, err := a.builder()
	if err != nil {
		t.Fatal(err)
	}
	builder.Wheels.Index = index.URL + "/simple"
	newest := releases[1] // that fits
	if _, err := builder.Build(t.Context(), newest); err != nil {
		t.Fatal(err)
	}
	if _, err := builder.BuildNative(t.Context(), newest, "amd64"); err != nil {
		t.Fatal(err)
	}

	// Who has to read layers first begins one of the uploads before, to see if that
	// is allowed. Of the manifests that are asked for, one is the destination's tag,
	// one that of the source, which may have moved, and two for each document are of
	// cosign.
	same := func(*image.Options) {}
	other := func(o *image.Options) {
		o.Destination.Tag = "other"
		o.Settings.Endpoint = "http://collector:4318"
		o.Activate = []image.Activation{image.ByEnvironment}
	}
	for _, tt := range []struct {
		name          string
		architectures []string // of the images, in an index if there are several
		steps         []step
	}{
		{"manifest", []string{"amd64"}, []step{
			{"first", same, `1 GET /v2/, 1 GET config, 2 GET layer, 1 GET manifest, 1 GET referrers, 1 HEAD config, 2 HEAD layer, 4 HEAD manifest,
				3 POST upload, 1 PUT config, 2 PUT layer, 1 PUT manifest`, 8, 23},
			{"second", same, `1 GET /v2/, 1 GET manifest, 1 GET referrers, 1 HEAD config, 2 HEAD layer, 4 HEAD manifest`, 2, 0},
			{"other options", other, `1 GET /v2/, 1 GET manifest, 1 GET referrers, 1 HEAD config, 2 HEAD layer, 4 HEAD manifest,
				2 POST upload, 1 PUT config, 1 PUT layer, 1 PUT manifest`, 5, 20},
		}},
		{"index", []string{"amd64", "arm64"}, []step{
			{"first", same, `1 GET /v2/, 2 GET config, 3 GET layer, 3 GET manifest, 3 GET referrers, 2 HEAD config, 2 HEAD layer, 8 HEAD manifest,
				4 POST upload, 2 PUT config, 2 PUT layer, 3 PUT manifest`, 10, 30},
			{"second", same, `1 GET /v2/, 3 GET manifest, 3 GET referrers, 2 HEAD config, 2 HEAD layer, 8 HEAD manifest`, 3, 0},
			{"other options", other, `1 GET /v2/, 3 GET manifest, 3 GET referrers, 2 HEAD config, 2 HEAD layer, 8 HEAD manifest,
				3 POST upload, 2 PUT config, 1 PUT layer, 3 PUT manifest`, 7, 25},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := distant{containers.New(containers.Logger(log.New(io.Discard, "", 0)), containers.WithReferrersSupport(true))}
				pushApps(t, r, tt.architectures)
				indexes := &scan.Cache{Dir: t.TempDir(), MaxBytes: defaultCacheSize}
				counter := &wire.Counter{Transport: r}
				for _, step := range tt.steps {
					w := &image.Wrapper{
						Registry: registry.New(registry.Options{Transport: counter, Configs: indexes}),
						Catalog:  catalog.New(releases...),
						Bundles:  builder,
						Indexes:  indexes,
						Jobs:     4,
					}
					o := image.Options{Native: true, Version: "test"}
					step.change(&o)
					start := time.Now()
					report, err := w.Wrap(t.Context(), shop+":1.0", o)
					if err != nil {
						t.Fatal(err)
					}
					step.check(t, report, counter.Take(), time.Since(start))
				}
			})
		})
	}
}

// step is a wrapping, and what it may send and receive.
type step struct {
	name      string
	change    func(*image.Options)
	kinds     string
	rounds    int
	kilobytes int64 // that may be sent
}

func (s step) check(t *testing.T, report *image.Report, traffic wire.Traffic, waited time.Duration) {
	t.Helper()
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(traffic.Kinds)) {
		kinds = append(kinds, fmt.Sprint(traffic.Kinds[kind].Requests, " ", kind))
	}
	if got, want := strings.Join(kinds, ", "), strings.Join(strings.Fields(s.kinds), " "); got != want {
		t.Errorf("%s: requests\n%s, want\n%s", s.name, got, want)
	}
	if traffic.Rounds != s.rounds || waited != time.Duration(s.rounds)*roundTrip {
		t.Errorf("%s: %d round trips, %s, want %d", s.name, traffic.Rounds, waited, s.rounds)
	}
	sent := traffic.Total().Sent
	if want := report.Push.Uploaded.Bytes + traffic.Kinds["PUT manifest"].Sent; sent != want {
		t.Errorf("%s: %d bytes sent, of which %d are needed", s.name, sent, want)
	}
	if limit := s.kilobytes * 1000; sent > limit {
		t.Errorf("%s: %d bytes sent, more than %d", s.name, sent, limit)
	}
}

// TestAllocations bounds what planning takes for an image that was looked into
// before: with the registry of this process, and with all releases there are.
func TestAllocations(t *testing.T) {
	a := app{cacheDir: t.TempDir(), streams: streams{getenv: func(string) string { return "" }}}
	builder, err := a.builder()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r := distant{containers.New(containers.Logger(log.New(io.Discard, "", 0)), containers.WithReferrersSupport(true))}
		pushApp(t, r, "1.0", "amd64", 20_000)
		indexes := &scan.Cache{Dir: t.TempDir(), MaxBytes: defaultCacheSize}
		plan := func() {
			c, err := catalog.Load()
			if err != nil {
				t.Fatal(err)
			}
			w := &image.Wrapper{
				Registry: registry.New(registry.Options{Transport: r, Configs: indexes}),
				Catalog:  c,
				Bundles:  builder,
				Indexes:  indexes,
			}
			if _, err := w.Plan(t.Context(), shop+":1.0", image.Options{Native: true}); err != nil {
				t.Fatal(err)
			}
		}
		plan() // which reads the layers
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		plan()
		runtime.ReadMemStats(&after)
		// Most of them are of the releases that are read until one fits: more than
		// one for each file would mean that an index is not used as it is kept.
		if n := after.Mallocs - before.Mallocs; n > 150_000 {
			t.Errorf("%d objects, more than 150,000", n)
		}
	})
}

// pushApps pushes an image, or an index of several.
func pushApps(t *testing.T, transport http.RoundTripper, architectures []string) {
	ref, err := name.NewTag(shop + ":1.0")
	if err != nil {
		t.Fatal(err)
	}
	if len(architectures) == 1 {
		pushApp(t, transport, "1.0", architectures[0], 0)
		return
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, a := range architectures {
		im := pushApp(t, transport, a, a, 0)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: im, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: a}}})
	}
	if err := remote.WriteIndex(ref, index, remote.WithTransport(transport)); err != nil {
		t.Fatal(err)
	}
}

const shop = "localhost:5000/shop/app"

// pushApp pushes an image of two layers: a Python of so many files, and Flask.
func pushApp(t *testing.T, transport http.RoundTripper, tag, architecture string, files int) v1.Image {
	t.Helper()
	base := pythonBase(architecture)
	for i := range files {
		base[fmt.Sprintf("%spackage%d/module%d.py", appLib, i/100, i)] = "pass\n"
	}
	return pushLayered(t, transport, shop+":"+tag, architecture, base, flaskApp())
}

const appLib = "usr/local/lib/python3.11/"

// pythonBase are a Python's, and something to tell it from others by.
func pythonBase(text string) map[string]string {
	return map[string]string{"usr/local/bin/python3.11": elfHead(), appLib + "os.py": text}
}

func flaskApp() map[string]string {
	app := map[string]string{}
	for _, d := range []string{"Flask-3.0.3", "protobuf-4.25.5"} {
		project, version, _ := strings.Cut(d, "-")
		app[appLib+"site-packages/"+d+".dist-info/METADATA"] = "Metadata-Version: 2.1\nName: " + project + "\nVersion: " + version + "\n"
	}
	return app
}

// pushLayered pushes an image of a layer for each map of files.
func pushLayered(t *testing.T, transport http.RoundTripper, reference, architecture string, layers ...map[string]string) v1.Image {
	t.Helper()
	im := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, content := range layers {
		blob := archive(t, content)
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blob)), nil }, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			t.Fatal(err)
		}
		if im, err = mutate.AppendLayers(im, l); err != nil {
			t.Fatal(err)
		}
	}
	config, err := im.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", architecture
	config.Config = v1.Config{Env: []string{"PATH=/usr/local/bin:/bin"}, Cmd: []string{"python3.11", "-m", "flask", "run"}}
	if im, err = mutate.ConfigFile(im, config); err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(reference)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, im, remote.WithTransport(transport)); err != nil {
		t.Fatal(err)
	}
	return im
}

func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(files[path]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[path]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
