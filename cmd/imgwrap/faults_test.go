package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	containers "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/imgwrap/imgwrap/image"
	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/registry/registrytest"
	"github.com/imgwrap/imgwrap/image/scan"
	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// A faulty is a registry in a bubble, which wants tokens, behind a proxy that
// breaks requests. It is reached through pipes: connections break as they do in a
// network, and time is the bubble's.
type faulty struct {
	registry *registrytest.Registry
	proxy    *registrytest.Proxy
	tokens   *tokens

	mu       sync.Mutex
	requests []answered // in the order they were answered

	server    *http.Server
	transport *http.Transport
	releases  *catalog.Catalog
	bundles   *bundle.Builder
	indexes   *scan.Cache
	config    string // digest of the source's
}

// An answered request is one that the registry did not answer with an error.
type answered struct {
	kind, repository, name string
	status                 int
	digest                 string // that the answer gives
}

const (
	faultyApp    = "shop/app"
	faultyTarget = "team/app"
	faultyShared = "otel"
)

func newFaulty(t *testing.T, releases []*catalog.Release, bundles *bundle.Builder) *faulty {
	f := &faulty{
		registry: registrytest.New(containers.New(containers.Logger(log.New(io.Discard, "", 0)), containers.WithReferrersSupport(true))),
		releases: catalog.New(releases...),
		bundles:  bundles,
		indexes:  &scan.Cache{Dir: t.TempDir(), MaxBytes: defaultCacheSize},
	}
	f.tokens = &tokens{registry: http.HandlerFunc(f.serve), given: map[string]bool{}, ended: map[string]string{}}
	f.proxy = &registrytest.Proxy{Registry: f.tokens}
	l := pipes{make(chan net.Conn), make(chan struct{})}
	f.server = &http.Server{Handler: f.proxy, ErrorLog: log.New(io.Discard, "", 0)}
	go f.server.Serve(l) //nolint:errcheck // it ends with Close
	f.transport = &http.Transport{DialContext: l.dial, MaxIdleConnsPerHost: 32}
	im := pushApp(t, f, "1.0", "amd64", 0)
	config, err := im.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	f.config = config.String()
	return f
}

// serve has the registry answer, one request after the other, and notes which.
func (f *faulty) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	noted := answered{kind: registrytest.Kind(r), repository: registrytest.Repository(r), name: path.Base(r.URL.Path)}
	rec := httptest.NewRecorder()
	f.registry.ServeHTTP(rec, r)
	if rec.Code < 400 {
		noted.status, noted.digest = rec.Code, rec.Header().Get("Docker-Content-Digest")
		f.requests = append(f.requests, noted)
	}
	maps.Copy(w.Header(), rec.Header())
	w.WriteHeader(rec.Code)
	w.Write(rec.Body.Bytes()) //nolint:errcheck // the client is gone
}

// take returns the requests that were answered since it was called last.
func (f *faulty) take() []answered {
	f.mu.Lock()
	defer f.mu.Unlock()
	taken := f.requests
	f.requests = nil
	return taken
}

func (f *faulty) close() {
	f.server.Close()
	f.transport.CloseIdleConnections()
}

// RoundTrip implements [http.RoundTripper].
func (f *faulty) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "http" {
		return nil, http.ErrSchemeMismatch
	}
	return f.transport.RoundTrip(req)
}

// wrap wraps the app into another repository of the registry, as a run of its
// own does.
func (f *faulty) wrap(ctx context.Context, tag string) (*image.Report, error) {
	w, o := f.wrapper(tag)
	return w.Wrap(ctx, shop+":1.0", o)
}

func (f *faulty) wrapper(tag string) (*image.Wrapper, image.Options) {
	w := &image.Wrapper{
		Registry: registry.New(registry.Options{Transport: f, Keychain: authn.NewMultiKeychain(), Configs: f.indexes}),
		Catalog:  f.releases,
		Bundles:  f.bundles,
		Indexes:  f.indexes,
		Jobs:     4,
	}
	o := image.Options{Native: true, Version: "test", Layers: "localhost:5000/" + faultyShared}
	o.Destination.Tag = "localhost:5000/" + faultyTarget + ":" + tag
	return w, o
}

// check pulls what a tag stands for, all of it.
func (f *faulty) check(t *testing.T, tag, digest string) {
	t.Helper()
	if got := f.registry.Tag(faultyTarget + ":" + tag); got != digest {
		t.Errorf("%s is %q, want %s", tag, got, digest)
		return
	}
	ref, err := name.NewTag("localhost:5000/" + faultyTarget + ":" + tag)
	if err != nil {
		t.Fatal(err)
	}
	im, err := remote.Image(ref, remote.WithTransport(f))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(im); err != nil {
		t.Error(err)
	}
}

// pipes are a listener and its dialer.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error   { close(p.done); return nil }
func (p pipes) Addr() net.Addr { return &net.IPAddr{} }

// tokens is a registry that everybody gets a token for.
type tokens struct {
	registry http.Handler

	mu    sync.Mutex
	given map[string]bool
	ended map[string]string // tokens that a request came with when they expired, by its method and path
}

func (s *tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if registrytest.Kind(r) == "GET token" {
		token := fmt.Sprintf("token%d", len(s.given))
		s.given[token] = true
		s.mu.Unlock()
		json.NewEncoder(w).Encode(map[string]string{"token": token}) //nolint:errcheck // the client is gone
		return
	}
	valid := s.given[token(r)]
	s.mu.Unlock()
	if !valid {
		s.refuse(w)
		return
	}
	s.registry.ServeHTTP(w, r)
}

// expire has each request find that its token has expired, until it comes with
// another one.
func (s *tokens) expire(w http.ResponseWriter, r *http.Request, registry http.Handler) {
	request := r.Method + r.URL.Path
	s.mu.Lock()
	ended, again := s.ended[request]
	if !again {
		ended = token(r)
		s.ended[request] = ended
	}
	s.mu.Unlock()
	if token(r) == ended {
		s.refuse(w)
		return
	}
	registry.ServeHTTP(w, r)
}

func (s *tokens) refuse(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="http://localhost:5000/token",service="test"`)
	registrytest.Deny(w, 401, "UNAUTHORIZED")
}

func token(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// A broken is a kind of request and how it is broken.
type broken struct {
	what  string // as the documentation calls it
	fault func(*faulty) registrytest.Fault
	match func(*faulty, *http.Request) bool
}

func always(fault registrytest.Fault) func(*faulty) registrytest.Fault {
	return func(*faulty) registrytest.Fault { return fault }
}

// of matches requests of a kind to a repository.
func of(kind, repository string) func(*faulty, *http.Request) bool {
	return func(_ *faulty, r *http.Request) bool {
		return registrytest.Kind(r) == kind && registrytest.Repository(r) == repository
	}
}

// readsConfig and readsLayer match requests for the blobs of the source.
func readsConfig(f *faulty, r *http.Request) bool {
	return of("GET blobs", faultyApp)(f, r) && path.Base(r.URL.Path) == f.config
}

func readsLayer(f *faulty, r *http.Request) bool {
	return of("GET blobs", faultyApp)(f, r) && path.Base(r.URL.Path) != f.config
}

// mounts matches requests to mount a layer of the source.
func mounts(f *faulty, r *http.Request) bool {
	return of("POST mount", faultyTarget)(f, r) && f.registry.Has(faultyApp, r.URL.Query().Get("mount"))
}

// mountsShared matches requests to mount a shared layer.
func mountsShared(f *faulty, r *http.Request) bool {
	return of("POST mount", faultyTarget)(f, r) && r.URL.Query().Get("from") == faultyShared
}

// huge answers with more than what registries take as a manifest.
func huge(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	w.Write(make([]byte, 5<<20)) //nolint:errcheck // the client is gone
}

// TestFaults breaks requests in many ways: the first two of a kind, or all of
// them. Either the right image is there afterwards or no tag is, and the next run
// finishes. What comes of it is what docs/registries.md says.
func TestFaults(t *testing.T) {
	releases, bundles := testBundles(t)
	var (
		tooMany = always(registrytest.Answer(429, "TOOMANYREQUESTS", "Retry-After", "7"))
		down    = always(registrytest.Answer(503, ""))
		// Even of small bodies, these bytes are neither nothing nor all.
		cutDown = always(registrytest.CutAnswer(20))
		cutUp   = always(registrytest.CutRequest(20))
		lost    = always(registrytest.LoseAnswer)
		// As if the query had not been understood.
		instead = always(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			r.URL.RawQuery = ""
			next.ServeHTTP(w, r)
		})
		expired = func(f *faulty) registrytest.Fault { return f.tokens.expire }
	)
	answer := func(status int, code string) func(*faulty) registrytest.Fault {
		return always(registrytest.Answer(status, code))
	}
	documented := faultsTable(t)
	faults := []broken{
		{"asking how to authenticate: 503", down, of("GET ping", "")},
		{"asking for a token: 429 with `Retry-After: 7`", tooMany, of("GET token", "")},
		{"asking for a token: 503", down, of("GET token", "")},
		{"reading a manifest: 429 with `Retry-After: 7`", tooMany, of("GET manifests", faultyApp)},
		{"reading a manifest: 503", down, of("GET manifests", faultyApp)},
		{"reading a manifest: cut off", cutDown, of("GET manifests", faultyApp)},
		{"reading a manifest: other bytes", always(registrytest.Alter), of("GET manifests", faultyApp)},
		{"reading a manifest: more than 4 MiB", always(huge), of("GET manifests", faultyApp)},
		{"reading the config: 503", down, readsConfig},
		{"reading the config: cut off", cutDown, readsConfig},
		{"reading the config: other bytes", always(registrytest.Alter), readsConfig},
		{"reading a layer: 429 with `Retry-After: 7`", tooMany, readsLayer},
		{"reading a layer: 503", down, readsLayer},
		{"reading a layer: cut off in the middle", cutDown, readsLayer},
		{"reading a layer: a piece every minute", always(registrytest.Drip), readsLayer},
		{"reading a layer: other bytes", always(registrytest.Alter), readsLayer},
		{"reading a layer: fewer bytes", always(registrytest.Shorten), readsLayer},
		{"reading a layer: more bytes", always(registrytest.Lengthen), readsLayer},
		{"reading a layer: the token expires", expired, readsLayer},
		{"asking what is there: 503", down, of("HEAD blobs", faultyTarget)},
		{"asking what is there: the token expires", expired, of("HEAD blobs", faultyTarget)},
		{"mounting a layer of the source: 401", answer(401, "UNAUTHORIZED"), mounts},
		{"mounting a layer of the source: 403", answer(403, "DENIED"), mounts},
		{"mounting a layer of the source: 404", answer(404, "NAME_UNKNOWN"), mounts},
		{"mounting a layer of the source: 202, an upload instead", instead, mounts},
		{"mounting a layer of the source: 500", answer(500, ""), mounts},
		{"mounting a layer of the source: cut off", cutUp, mounts},
		{"mounting a shared layer: 401", answer(401, "UNAUTHORIZED"), mountsShared},
		{"mounting a shared layer: 403", answer(403, "DENIED"), mountsShared},
		{"mounting a shared layer: 202, an upload instead", instead, mountsShared},
		{"mounting a shared layer: 500", answer(500, ""), mountsShared},
		{"putting layers where they are shared: 403", answer(403, "DENIED"), of("POST uploads", faultyShared)},
		{"putting layers where they are shared: 503", down, of("PUT uploads", faultyShared)},
		{"beginning an upload: 403", answer(403, "DENIED"), of("POST uploads", faultyTarget)},
		{"beginning an upload: 429 with `Retry-After: 7`", tooMany, of("POST uploads", faultyTarget)},
		{"beginning an upload: 503", down, of("POST uploads", faultyTarget)},
		{"uploading: 503", down, of("PUT uploads", faultyTarget)},
		{"uploading: cut off in the middle", cutUp, of("PUT uploads", faultyTarget)},
		{"uploading: the answer is lost", lost, of("PUT uploads", faultyTarget)},
		{"uploading: the token expires after it began", expired, of("PUT uploads", faultyTarget)},
		{"uploading: the upload is forgotten", answer(404, "BLOB_UPLOAD_UNKNOWN"), of("PUT uploads", faultyTarget)},
		{"uploading: other bytes arrive", answer(400, "DIGEST_INVALID"), of("PUT uploads", faultyTarget)},
		{"writing the manifest: 429 with `Retry-After: 7`", tooMany, of("PUT manifests", faultyTarget)},
		{"writing the manifest: 503", down, of("PUT manifests", faultyTarget)},
		{"writing the manifest: cut off", cutUp, of("PUT manifests", faultyTarget)},
		{"writing the manifest: the answer is lost", lost, of("PUT manifests", faultyTarget)},
		{"writing the manifest: the token expires", expired, of("PUT manifests", faultyTarget)},
		{"writing the manifest: refused", answer(400, "MANIFEST_INVALID"), of("PUT manifests", faultyTarget)},
	}
	for i, tt := range faults {
		t.Run(tt.what, func(t *testing.T) {
			row := "| " + tt.what
			for _, times := range []int{2, 1 << 20} {
				synctest.Test(t, func(t *testing.T) {
					f := newFaulty(t, releases, bundles)
					defer f.close()
					row += " | " + f.suffer(t, tt, times)
				})
			}
			if row += " |"; i >= len(documented) || row != documented[i] {
				t.Errorf("row %d of the table in docs/registries.md is not\n%s", i+1, row)
			}
		})
	}
	if len(documented) != len(faults) {
		t.Errorf("the table in docs/registries.md has %d rows instead of %d", len(documented), len(faults))
	}
}

// suffer wraps with a fault, and again without, and says what came of the first.
func (f *faulty) suffer(t *testing.T, b broken, times int) string {
	f.proxy.Break(b.fault(f), times, func(r *http.Request) bool { return b.match(f, r) })
	start := time.Now()
	report, err := f.wrap(t.Context(), "1.0-otel")
	waited := time.Since(start)
	if f.proxy.Broken() == 0 {
		t.Error("nothing was broken")
	}
	tag := f.registry.Tag(faultyTarget + ":1.0-otel")
	f.proxy.Break(nil, 0, nil)
	if (err == nil) != (tag != "") {
		t.Errorf("the tag is %q after %v", tag, err)
	}
	if tag != "" {
		f.check(t, "1.0-otel", report.Digest)
	}
	again, retryErr := f.wrap(t.Context(), "1.0-otel")
	if retryErr != nil {
		t.Fatalf("again: %v", retryErr)
	}
	f.check(t, "1.0-otel", again.Digest)
	if again.Push.UpToDate != (err == nil) || report != nil && again.Digest != report.Digest {
		t.Errorf("again: up to date %t, %s", again.Push.UpToDate, again.Digest)
	}
	return outcome(report, waited, err)
}

var (
	digests = regexp.MustCompile(`sha256:[0-9a-f]{64}`)
	numbers = regexp.MustCompile(`\d+ (of \d+ )?bytes( instead of \d+)?`)
)

// outcome is what the documentation says came of a wrapping.
func outcome(report *image.Report, waited time.Duration, err error) string {
	if err != nil {
		var named *registry.Error
		text := err.Error()
		if errors.As(err, &named) {
			_, text, _ = strings.Cut(text, named.Image+": ")
		}
		text = strings.ReplaceAll(text, "localhost:5000", "the registry")
		return "fails: " + numbers.ReplaceAllString(digests.ReplaceAllString(text, "DIGEST"), "N bytes")
	}
	text := "done"
	if waited > 0 {
		text += " after waiting"
	}
	if waited%(7*time.Second) == 0 && waited > 0 {
		text += " as long as told"
	}
	if report.Push.Refused > 0 {
		text += ", uploading instead of mounting"
	}
	return text
}

// TestPermission is about pushing being denied: that is found out before any layer
// is read, unless there may be nothing to push.
func TestPermission(t *testing.T) {
	releases, bundles := testBundles(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty(t, releases, bundles)
		defer f.close()
		deny := func() {
			f.proxy.Break(registrytest.Answer(403, "DENIED"), 1<<20, func(r *http.Request) bool {
				return of("POST uploads", faultyTarget)(f, r) || of("POST mount", faultyTarget)(f, r)
			})
			f.take()
		}
		reads := func(r answered) bool {
			return r.kind == "GET blobs" && r.repository == faultyApp && r.name != f.config
		}

		deny()
		const want = "pushing localhost:5000/team/app:1.0-otel: localhost:5000 denied access (403 DENIED)"
		if _, err := f.wrap(t.Context(), "1.0-otel"); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		if requests := f.take(); slices.ContainsFunc(requests, reads) {
			t.Errorf("layers were read: %v", requests)
		}

		// Who plans need not be allowed to push.
		w, o := f.wrapper("1.0-otel")
		if _, err := w.Plan(t.Context(), shop+":1.0", o); err != nil {
			t.Error(err)
		}
		if requests := f.take(); !slices.ContainsFunc(requests, reads) {
			t.Errorf("no layers were read: %v", requests)
		}

		// Nor who finds it done.
		f.proxy.Break(nil, 0, nil)
		if _, err := f.wrap(t.Context(), "1.0-otel"); err != nil {
			t.Fatal(err)
		}
		deny()
		f.indexes = &scan.Cache{Dir: t.TempDir(), MaxBytes: defaultCacheSize}
		report, err := f.wrap(t.Context(), "1.0-otel")
		if err != nil || !report.Push.UpToDate {
			t.Errorf("%+v, %v", report, err)
		}
	})
}

// TestOrder holds that nothing is written before what it names, and the tag last.
func TestOrder(t *testing.T) {
	releases, bundles := testBundles(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty(t, releases, bundles)
		defer f.close()
		pushApps(t, f, []string{"amd64", "arm64"})
		f.take()
		report, err := f.wrap(t.Context(), "1.0-otel")
		if err != nil {
			t.Fatal(err)
		}
		var written []string
		for _, r := range f.take() {
			switch {
			case r.repository != faultyTarget || r.status != http.StatusCreated:
			case r.kind == "POST mount", r.kind == "PUT uploads":
				written = append(written, "blob")
			case r.kind == "PUT manifests" && r.name == "1.0-otel":
				written = append(written, "tag")
			case r.kind == "PUT manifests":
				written = append(written, "child")
			}
		}
		// Three layers of the source, bundle, launch layer and two configs.
		want := append(slices.Repeat([]string{"blob"}, 7), "child", "child", "tag")
		if !slices.Equal(written, want) {
			t.Errorf("written: %v, want %v", written, want)
		}
		if got := f.registry.Tag(faultyTarget + ":1.0-otel"); got != report.Digest {
			t.Errorf("the tag is %s, want %s", got, report.Digest)
		}
	})
}

// TestConcurrent wraps with different options under one tag at the same time: it
// stands for the last that was complete, and for all of that.
func TestConcurrent(t *testing.T) {
	releases, bundles := testBundles(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty(t, releases, bundles)
		defer f.close()
		digests := make([]string, 6)
		var wrapping sync.WaitGroup
		for i := range digests {
			wrapping.Go(func() {
				w, o := f.wrapper("1.0-otel")
				o.Settings.ServiceName = fmt.Sprintf("app%d", i)
				report, err := w.Wrap(t.Context(), shop+":1.0", o)
				if err != nil {
					t.Error(err)
					return
				}
				digests[i] = report.Digest
			})
		}
		wrapping.Wait()
		slices.Sort(digests)
		if n := len(slices.Compact(slices.Clone(digests))); n != 6 {
			t.Fatalf("%d different images", n)
		}
		last := ""
		for _, r := range f.take() {
			if r.kind == "PUT manifests" && r.name == "1.0-otel" {
				last = r.digest
			}
		}
		if !slices.Contains(digests, last) {
			t.Errorf("%q was written last", last)
		}
		f.check(t, "1.0-otel", last)
	})
}

// faultsTable are the rows of the table of faults in the documentation.
func faultsTable(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("../../docs/registries.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(page), "| what goes wrong | twice | always |\n|---|---|---|\n")
	if !ok {
		t.Fatal("docs/registries.md has no table of faults")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	return strings.Split(strings.TrimSpace(table), "\n")
}

// testBundles are the releases of testReleases, and a builder that has the layers
// of the one that fits.
func testBundles(t *testing.T) ([]*catalog.Release, *bundle.Builder) {
	t.Helper()
	releases, wheels := testReleases(t)
	index := httptest.NewServer(wheels)
	defer index.Close()
	a := app{cacheDir: t.TempDir(), jobs: 4, streams: streams{getenv: func(string) string { return "" }}}
	builder, err := a.builder()
	if err != nil {
		t.Fatal(err)
	}
	builder.Wheels.Index = index.URL + "/simple"
	if _, err := builder.Build(t.Context(), releases[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := builder.BuildNative(t.Context(), releases[1], "amd64"); err != nil {
		t.Fatal(err)
	}
	return releases, builder
}
