package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	containers "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgwrap/imgwrap/image"
	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/registry/registrytest"
	"github.com/imgwrap/imgwrap/image/scan"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// A fleet is a registry that counts what is read and uploaded, and what wraps the
// images in it.
type fleet struct {
	host    string
	wrapper func() *image.Wrapper // with empty caches

	mu             sync.Mutex
	read, uploaded map[string]int // by digest
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{read: map[string]int{}, uploaded: map[string]int{}}
	inner := registrytest.New(containers.New(containers.Logger(log.New(io.Discard, "", 0)), containers.WithReferrersSupport(true)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		switch registrytest.Kind(r) {
		case "GET blobs":
			f.read[path.Base(r.URL.Path)]++
		case "PUT uploads":
			f.uploaded[r.URL.Query().Get("digest")]++
		}
		f.mu.Unlock()
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	f.host = strings.TrimPrefix(server.URL, "http://")
	releases, bundles := testBundles(t)
	f.wrapper = func() *image.Wrapper {
		indexes := &scan.Cache{Dir: t.TempDir(), MaxBytes: defaultCacheSize}
		return &image.Wrapper{
			Registry: registry.New(registry.Options{Keychain: authn.NewMultiKeychain(), Configs: indexes}),
			Catalog:  catalog.New(releases...),
			Bundles:  bundles,
			Indexes:  indexes,
			Jobs:     3,
		}
	}
	return f
}

// put pushes an image on one of two bases, and returns the digests of its layers.
func (f *fleet) put(t *testing.T, ref string, number int) (layers []string) {
	t.Helper()
	app := flaskApp()
	app["app/app.py"] = fmt.Sprint(number)
	im := pushLayered(t, http.DefaultTransport, f.host+"/"+ref, "amd64", pythonBase(fmt.Sprint("base ", number%2)), app)
	list, err := im.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		digest, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, digest.String())
	}
	return layers
}

// TestFleet has one Wrapper wrap many images at the same time: what comes of
// it is what single runs make, no layer is read twice, and none uploaded twice.
func TestFleet(t *testing.T) {
	f := newFleet(t)
	const images = 20
	ref := func(i int) string { return fmt.Sprintf("%s/team%d/app:1.0", f.host, i) }
	layers := map[string]bool{}
	for i := range images {
		for _, digest := range f.put(t, strings.TrimPrefix(ref(i), f.host+"/"), i) {
			layers[digest] = true
		}
	}
	options := image.Options{Native: true, Version: "test"}
	clear(f.uploaded)

	w := f.wrapper()
	reports, plans := make([]*image.Report, images), make([]*image.Plan, images)
	var wg sync.WaitGroup
	for i := range images {
		wg.Go(func() {
			var err error
			if reports[i], err = w.Wrap(t.Context(), ref(i), options); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			var err error
			if plans[i], err = w.Plan(t.Context(), ref(i), options); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}

	added := map[string]bool{}
	for _, l := range reports[0].Plan.Images()[0].Layers {
		added[l.Digest] = true
	}
	for digest, n := range f.uploaded {
		if n > 1 {
			t.Errorf("%s was uploaded %d times", digest, n)
		}
		delete(added, digest)
	}
	for digest := range added {
		t.Errorf("layer %s was not uploaded", digest)
	}
	for digest := range layers {
		if n := f.read[digest]; n != 1 {
			t.Errorf("layer %s was read %d times", digest, n)
		}
	}
	for i := range images {
		if plans[i].Digest != reports[i].Digest {
			t.Errorf("%s: planned %s, pushed %s", ref(i), plans[i].Digest, reports[i].Digest)
		}
		single, err := f.wrapper().Plan(t.Context(), ref(i), options)
		if err != nil || single.Digest != reports[i].Digest {
			t.Errorf("%s is %s, a single run makes %s, %v", ref(i), reports[i].Digest, single.Digest, err)
		}
	}
}

// TestPinned wraps what manifests name by tag and digest.
func TestPinned(t *testing.T) {
	f := newFleet(t)
	f.put(t, "shop/app:1.0", 0)
	w := f.wrapper()
	options := image.Options{Version: "test"}
	source := f.host + "/shop/app:1.0"
	byTag, err := w.Plan(t.Context(), source, options)
	if err != nil {
		t.Fatal(err)
	}
	pinned := source + "@" + byTag.SourceDigest
	f.put(t, "shop/app:1.0", 1) // the tag moves on

	report, err := w.Wrap(t.Context(), pinned, options)
	if err != nil {
		t.Fatal(err)
	}
	if report.Digest != byTag.Digest || report.Image != source+"-otel" || report.Tag != "1.0-otel" || report.SourceDigest != byTag.SourceDigest || report.SourceMoved {
		t.Errorf("got %+v, planned by tag: %s", report, byTag.Digest)
	}
	// Again, by what it became.
	again, err := w.Wrap(t.Context(), source+"-otel@"+report.Digest, options)
	if err != nil || again.Digest != report.Digest || again.Image != report.Image || !again.Push.UpToDate {
		t.Errorf("got %+v, %v", again, err)
	}
	// A tag that stands for something else by now is left alone.
	if _, err := w.Wrap(t.Context(), source, options); err != nil {
		t.Fatal(err)
	}
	_, err = w.Wrap(t.Context(), source+"-otel@"+report.Digest, options)
	if want := source + "-otel stands for another image by now than " + report.Digest; err == nil || !strings.HasSuffix(err.Error(), want) || !image.IsRefused(err) {
		t.Errorf("got %v, want %s", err, want)
	}
	options.Destination.InPlace = true
	if _, err = w.Wrap(t.Context(), pinned, options); err == nil || !strings.Contains(err.Error(), "its tag may stand for another image") {
		t.Errorf("in place: got %v", err)
	}
	ref, err := w.Registry.ParseReference(source + "-otel")
	if err != nil {
		t.Fatal(err)
	}
	if digest, err := w.Registry.Digest(t.Context(), ref); err != nil || digest.String() == report.Digest || digest == (v1.Hash{}) {
		t.Errorf("%s is %s, %v", ref, digest, err)
	}
}
