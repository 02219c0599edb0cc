package image

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	containers "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/imgwrap/imgwrap/image/registry/registrytest"
	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/wheel"
)

// published is a registry, the kinds of requests that it got, and what puts the
// layers of two releases there: those of 1.45.1 with native code for amd64.
type published struct {
	*Wrapper
	proxy *registrytest.Proxy
	host  string
	cache string

	mu    sync.Mutex
	kinds []string
}

func newPublished(t *testing.T) *published {
	t.Helper()
	p := &published{cache: t.TempDir()}
	p.proxy = &registrytest.Proxy{Registry: registrytest.New(containers.New(containers.Logger(log.New(io.Discard, "", 0))))}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.kinds = append(p.kinds, registrytest.Kind(r))
		p.mu.Unlock()
		p.proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	p.host = strings.TrimPrefix(s.URL, "http://")
	cache := &layer.Cache{Dir: p.cache}
	cached := func(path string) catalog.Layer {
		l, err := layer.Build(t.Context(), []layer.Entry{file(path)})
		if err == nil {
			_, err = cache.PutLayer(t.Context(), l)
		}
		if err != nil {
			t.Fatal(err)
		}
		info := l.Info()
		return catalog.Layer{Digest: info.Digest.String(), DiffID: info.DiffID.String(), Size: info.Size, Unpacked: info.Unpacked, Files: info.Files}
	}
	flask := []catalog.Instrumentation{{Name: "flask", Modules: []string{"flask"}}}
	p.Wrapper = &Wrapper{
		Registry: client,
		Jobs:     2,
		Bundles:  &bundle.Builder{Cache: cache, Wheels: &wheel.Fetcher{CacheDir: t.TempDir(), Offline: true}},
		Catalog: catalog.New(
			&catalog.Release{
				Version: "1.45.1", Contrib: "0.66b1", Instrumentations: flask,
				Layer:   cached("opt/imgwrap/otel-1.45.1/new.py"),
				Natives: map[string]catalog.Native{"amd64": {Layer: cached("opt/imgwrap/otel-1.45.1/google/native.so")}, "arm64": {}},
			},
			&catalog.Release{Version: "1.27.0", Contrib: "0.48b0", Instrumentations: flask, Layer: cached("opt/imgwrap/otel-1.27.0/old.py")},
		),
	}
	return p
}

func (p *published) push(t *testing.T, repository string, releases ...string) []PushedLayer {
	t.Helper()
	list, err := p.PushLayers(t.Context(), p.host+"/"+repository, releases)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// writes are the requests since it was called last that change something.
func (p *published) writes() (kinds []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, kind := range p.kinds {
		if !strings.HasPrefix(kind, "HEAD ") && !strings.HasPrefix(kind, "GET ") {
			kinds = append(kinds, kind)
		}
	}
	p.kinds = nil
	return kinds
}

// tags are those of a repository, sorted.
func (p *published) tags(t *testing.T, repository string) []string {
	t.Helper()
	repo, err := name.NewRepository(p.host + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	list, err := remote.List(repo)
	if err != nil {
		return nil
	}
	// That registry keeps what is put by its digest as a tag, too.
	list = slices.DeleteFunc(list, func(tag string) bool { return strings.HasPrefix(tag, "sha256:") })
	slices.Sort(list)
	return list
}

func (p *published) reference(t *testing.T, ref string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(p.host + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPushLayers(t *testing.T) {
	p := newPublished(t)
	list := p.push(t, "team/otel")
	var images []string
	for _, l := range list {
		images = append(images, strings.TrimPrefix(l.Image, p.host+"/"))
		if l.Release != "1.45.1/0.66b1" && l.Release != "1.27.0/0.48b0" || !strings.HasSuffix(l.Image, ":"+l.Tag) {
			t.Errorf("%+v", l)
		}
		d, err := remote.Head(p.reference(t, "team/otel:"+l.Tag))
		if err != nil || d.Digest.String() != l.Digest {
			t.Errorf("%s stands for %v, %v; want %s", l.Tag, d, err, l.Digest)
		}
	}
	want := []string{
		"team/otel:1.45.1", "team/otel:1.45.1-native-amd64", "team/otel:1.45.1-dockerfile", "team/otel:1.45.1-dockerfile-native",
		"team/otel:1.27.0", "team/otel:1.27.0-dockerfile", "team/otel:1.27.0-dockerfile-native",
	}
	if !slices.Equal(images, want) {
		t.Errorf("pushed %q, want %q", images, want)
	}
	if got := p.tags(t, "team/otel"); len(got) != len(want) {
		t.Errorf("the tags are %q", got)
	}
	// With no native code, both are one.
	if list[5].Digest != list[6].Digest || list[2].Digest == list[3].Digest {
		t.Errorf("digests %v", list)
	}

	for tag, layers := range map[string]int{"1.45.1-dockerfile": 2, "1.45.1-dockerfile-native": 3} {
		index, err := remote.Index(p.reference(t, "team/otel:"+tag))
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(index); err != nil {
			t.Error(err)
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		var platforms []string
		for _, d := range manifest.Manifests {
			platforms = append(platforms, d.Platform.String())
			im, err := index.Image(d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			config, err := im.ConfigFile()
			if err != nil || !config.Platform().Equals(*d.Platform) {
				t.Errorf("%s, %s: config for %s, %v", tag, d.Platform, config.Platform(), err)
			}
			want := layers
			if d.Platform.Architecture != "amd64" {
				want = 2
			}
			if got := len(config.RootFS.DiffIDs); got != want {
				t.Errorf("%s, %s: %d layers, want %d", tag, d.Platform, got, want)
			}
		}
		want := []string{"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/arm/v6", "linux/386", "linux/ppc64le", "linux/s390x", "linux/riscv64"}
		if !slices.Equal(platforms, want) {
			t.Errorf("%s is for %q, want %q", tag, platforms, want)
		}
		if title := manifest.Annotations["org.opencontainers.image.title"]; title != "OpenTelemetry 1.45.1/0.66b1 for Python" {
			t.Errorf("the title is %q", title)
		}
	}
}

// TestPushLayersAgain says that nothing is sent that is there, nor made.
func TestPushLayersAgain(t *testing.T) {
	p := newPublished(t)
	first := p.push(t, "otel", "0.66b1", "1.45.1")
	if got := p.tags(t, "otel"); !slices.Equal(got, []string{"1.45.1", "1.45.1-dockerfile", "1.45.1-dockerfile-native", "1.45.1-native-amd64"}) {
		t.Errorf("the tags are %q", got)
	}
	// Each with its configs; those of the last are the third's, but for amd64.
	for i, want := range []int{2, 2, 9, 1} {
		if got := first[i].Push.Uploaded.Blobs; got != want {
			t.Errorf("%s: %d blobs uploaded, want %d", first[i].Tag, got, want)
		}
	}
	p.writes()
	if err := os.RemoveAll(p.cache); err != nil {
		t.Fatal(err)
	}
	for _, l := range p.push(t, "otel", "1.45.1") {
		if !l.Push.UpToDate || l.Push.Uploaded.Blobs != 0 {
			t.Errorf("%+v", l)
		}
	}
	// To begin an upload is how it asks whether it may push.
	if got := slices.DeleteFunc(p.writes(), func(kind string) bool { return kind == "POST uploads" || kind == "DELETE uploads" }); len(got) > 0 {
		t.Errorf("the second time it sends %q", got)
	}
	// The same anywhere.
	other := newPublished(t)
	for i, l := range other.push(t, "a/b/c", "1.45.1") {
		if l.Digest != first[i].Digest {
			t.Errorf("%s has the digest %s elsewhere, not %s", l.Tag, l.Digest, first[i].Digest)
		}
	}
}

// TestPushLayersTagsLast breaks each of the requests of a push in turn: there is
// no tag before all is there, and what was broken can be done again.
func TestPushLayersTagsLast(t *testing.T) {
	p := newPublished(t)
	p.push(t, "all")
	whole := p.tags(t, "all")
	var kinds []string
	for _, kind := range p.writes() {
		if !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	if want := "PUT manifests"; !slices.Contains(kinds, want) {
		t.Fatalf("a push has no %s: %q", want, kinds)
	}
	tried, broken := 0, 0
	for _, kind := range kinds {
		for nth := range 5 {
			repository := fmt.Sprintf("otel-%d", tried)
			tried++
			seen := 0
			p.proxy.Break(registrytest.Answer(http.StatusForbidden, "DENIED"), 1, func(r *http.Request) bool {
				if registrytest.Kind(r) == kind && !slices.Contains(whole, r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]) {
					seen++
				}
				return seen > nth
			})
			_, err := p.PushLayers(t.Context(), p.host+"/"+repository, nil)
			if p.proxy.Broken() == 0 {
				continue
			}
			broken++
			if tags := p.tags(t, repository); err == nil || len(tags) > 0 {
				t.Errorf("%s %d: %v, and the tags %q", kind, nth, err, tags)
			}
			p.push(t, repository)
			if tags := p.tags(t, repository); !slices.Equal(tags, whole) {
				t.Errorf("%s %d: afterwards the tags are %q", kind, nth, tags)
			}
		}
	}
	if broken < 10 {
		t.Errorf("%d requests were broken", broken)
	}
	// What cannot be made.
	if err := os.RemoveAll(p.cache); err != nil {
		t.Fatal(err)
	}
	if _, err := p.PushLayers(t.Context(), p.host+"/unmade", nil); err == nil || len(p.tags(t, "unmade")) > 0 {
		t.Errorf("%v, and the tags %q", err, p.tags(t, "unmade"))
	}
}

func TestPushLayersUsage(t *testing.T) {
	p := newPublished(t)
	for _, repository := range []string{"", "otel:1", p.host + "/otel:1.45.1", p.host + "/otel@sha256:" + strings.Repeat("0", 64), "oci:dir", "docker-daemon:otel", "Otel"} {
		_, err := p.PushLayers(t.Context(), repository, nil)
		if usage := (*UsageError)(nil); !errors.As(err, &usage) || !strings.Contains(err.Error(), "is not a repository") || usage.Hint() == "" {
			t.Errorf("%q: %v", repository, err)
		}
	}
	_, err := p.PushLayers(t.Context(), p.host+"/otel", []string{"1.45.1", "9.9.9"})
	if unknown := (*catalog.UnknownReleaseError)(nil); !errors.As(err, &unknown) {
		t.Errorf("an unknown release: %v", err)
	}
	if writes := p.writes(); writes != nil {
		t.Errorf("it sends %q", writes)
	}
}
