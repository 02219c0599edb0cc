package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imgwrap/imgwrap/image/registry/registrytest"
)

const zero = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

func TestOpenErrors(t *testing.T) {
	s := newServer(t)
	img := s.putImage(t, "app:1")
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	configDigest, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	manifest := func(config string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[]}`, config)
	}
	configDesc := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, types.OCIConfigJSON, configDigest, len(config))
	manifests := map[string]struct {
		mediaType types.MediaType
		manifest  string
	}{
		"index": {types.OCIImageIndex, fmt.Sprintf(`{"manifests":[
			{"mediaType":%[1]q,"size":1,"digest":%[2]q,"platform":{"os":"linux","architecture":"arm64","variant":"v8"}},
			{"mediaType":%[1]q,"size":1,"digest":%[2]q,"platform":{"os":"unknown","architecture":"unknown"}},
			{"mediaType":%[1]q,"size":1,"digest":%[2]q}]}`, types.OCIManifestSchema1, zero)},
		"nested":    {types.DockerManifestList, `{"manifests":[]}`},
		"schema1":   {types.DockerManifestSchema1Signed, `{"schemaVersion":1,"fsLayers":[]}`},
		"helm":      {types.OCIManifestSchema1, manifest(`{"mediaType":"application/vnd.cncf.helm.config.v1+json","size":1,"digest":"` + zero + `"}`)},
		"other":     {"application/json", `{}`},
		"text":      {types.OCIManifestSchema1, `hello`},
		"ambiguous": {types.OCIManifestSchema1, `{"layers":[],"manifests":[]}`},
		"lies":      {types.OCIManifestSchema1, `{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`},
		"empty":     {types.OCIManifestSchema1, `{}`},
		"digest":    {types.OCIManifestSchema1, manifest(`{"size":1,"digest":"sha256:12"}`)},
		"negative":  {types.OCIManifestSchema1, manifest(`{"size":-1,"digest":"` + zero + `"}`)},
		"bigconfig": {types.OCIManifestSchema1, manifest(`{"size":1000000000,"digest":"` + zero + `"}`)},
		"layers":    {types.OCIManifestSchema1, manifest(configDesc)},
	}
	answer := func(kind string, status int, code string) func(http.ResponseWriter, *http.Request, string) bool {
		return func(w http.ResponseWriter, _ *http.Request, k string) bool {
			if k == kind {
				registrytest.Deny(w, status, code)
			}
			return k == kind
		}
	}
	image := s.host() + "/app"
	for _, tt := range []struct {
		name  string
		ref   string // in repository app, ":1" if empty
		fault func(http.ResponseWriter, *http.Request, string) bool
		want  string
		hint  string
		typ   error
	}{
		{name: "no tag", ref: ":2", want: s.host() + " has no such image (404 MANIFEST_UNKNOWN)", hint: "check the name; some registries also say so to who has not logged in"},
		{name: "no repository", ref: "/x:1", want: s.host() + " has no repository app/x (404 NAME_UNKNOWN)", hint: "check the name; some registries also say so to who has not logged in"},
		{name: "malformed", ref: "::1", typ: &UsageError{}, want: fmt.Sprintf("%q is not an image reference", image+"::1"), hint: "a reference is [REGISTRY/]REPOSITORY[:TAG][@DIGEST]"},
		{name: "401", fault: answer("GET manifests", 401, "UNAUTHORIZED"), want: s.host() + " wants other credentials (401 UNAUTHORIZED)", hint: "log in with docker login " + s.host() + ", or check the name"},
		{name: "403", fault: answer("GET manifests", 403, "DENIED"), want: s.host() + " denied access (403 DENIED)", hint: "check that the account you logged in with may pull from " + image},
		{name: "429", fault: answer("GET manifests", 429, "TOOMANYREQUESTS"), want: s.host() + " received too many requests (429 TOOMANYREQUESTS)", hint: "try again later"},
		{name: "500", fault: answer("GET ping", 500, "UNKNOWN"), want: s.host() + " answered 500 UNKNOWN: no", hint: "try again later"},
		{name: "418", fault: answer("GET blobs", 418, "X"), want: s.host() + " answered 418 X: no"},
		{name: "an index", ref: ":index", typ: &UnsupportedError{}, want: "an index of images for several platforms",
			hint: "name the image of one platform by its digest: linux/arm64/v8 is " + image + "@" + zero},
		{name: "an empty list", ref: ":nested", typ: &UnsupportedError{}, want: "an index of images for several platforms", hint: "name the image of one platform by its digest"},
		{name: "schema 1", ref: ":schema1", typ: &UnsupportedError{}, want: "an image in Docker's format of before 2016 (schema 1)",
			hint: "pull and push it with a current tool, e.g. skopeo copy --format v2s2 docker://" + image + ":schema1 docker://" + image + ":schema1"},
		{name: "a chart", ref: ":helm", typ: &UnsupportedError{}, want: `no container image: its config is "application/vnd.cncf.helm.config.v1+json"`},
		{name: "another type", ref: ":other", typ: &UnsupportedError{}, want: `no image but "application/json"`},
		{name: "no JSON", ref: ":text", want: "manifest is not valid: invalid character 'h' looking for beginning of value"},
		{name: "ambiguous", ref: ":ambiguous", want: "manifest is ambiguous: it has both layers and manifests"},
		{name: "two types", ref: ":lies", want: `manifest says it is "application/vnd.oci.image.index.v1+json", but it is kept as "application/vnd.oci.image.manifest.v1+json"`},
		{name: "no config", ref: ":empty", want: "manifest is not valid: it has a descriptor without digest or size"},
		{name: "a digest of two digits", ref: ":digest", want: "manifest is not valid: wrong number of hex digits for sha256: 12"},
		{name: "a negative size", ref: ":negative", want: "manifest is not valid: it has a descriptor without digest or size"},
		{name: "a huge config", ref: ":bigconfig", want: "config has 1000000000 bytes, more than the 8 MiB that are read"},
		{name: "layers do not match", ref: ":layers", want: "manifest has 0 layers, but its config 6"},
		{name: "a huge manifest", want: "manifest is larger than 4 MiB, the most that registries accept",
			fault: func(w http.ResponseWriter, _ *http.Request, kind string) bool {
				if kind == "GET manifests" {
					w.Write(make([]byte, manifestLimit+1))
				}
				return kind == "GET manifests"
			}},
		{name: "a manifest of another digest", ref: "@" + zero, want: "manifest: content has digest sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a instead of " + zero,
			fault: func(w http.ResponseWriter, _ *http.Request, kind string) bool {
				if kind == "GET manifests" {
					w.Write([]byte("{}"))
				}
				return kind == "GET manifests"
			}},
		{name: "a manifest altered on the way", want: "manifest: content has digest sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a instead of " + zero,
			fault: func(w http.ResponseWriter, _ *http.Request, kind string) bool {
				if kind == "GET manifests" {
					w.Header().Set("Docker-Content-Digest", zero)
					w.Write([]byte("{}"))
				}
				return kind == "GET manifests"
			}},
		{name: "an altered config", want: "reading config: content has digest sha256:",
			fault: func(w http.ResponseWriter, _ *http.Request, kind string) bool {
				if kind == "GET blobs" {
					w.Write(make([]byte, len(config)))
				}
				return kind == "GET blobs"
			}},
		{name: "a redirect into the private network", want: "127.0.0.1 redirects to the private address 10.0.0.1", hint: "if that is intended, use --insecure",
			fault: func(w http.ResponseWriter, r *http.Request, kind string) bool {
				if kind == "GET blobs" {
					http.Redirect(w, r, "http://10.0.0.1/x?signature=secret", http.StatusFound)
				}
				return kind == "GET blobs"
			}},
		{name: "a redirect without end", want: "reading config: Get \"/x\": stopped after 10 redirects",
			fault: func(w http.ResponseWriter, r *http.Request, kind string) bool {
				if kind == "GET blobs" || kind == "GET token" {
					http.Redirect(w, r, "/x?signature=secret", http.StatusFound)
				}
				return kind == "GET blobs" || kind == "GET token"
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.fault = tt.fault
			if m, ok := manifests[strings.TrimPrefix(tt.ref, ":")]; ok {
				s.fault = func(w http.ResponseWriter, _ *http.Request, kind string) bool {
					if kind == "GET manifests" {
						w.Header().Set("Content-Type", string(m.mediaType))
						w.Write([]byte(m.manifest))
					}
					return kind == "GET manifests"
				}
			}
			if tt.ref == "" {
				tt.ref = ":1"
			}
			im, err := open(t.Context(), s.client(Options{}), image+tt.ref)
			if err == nil {
				t.Fatalf("opened %v", im)
			}
			var hint string
			switch err := err.(type) {
			case *UsageError:
				hint = err.Hint()
				if _, ok := tt.typ.(*UsageError); !ok {
					t.Errorf("a %T", err)
				}
			case *UnsupportedError:
				hint = err.Hint()
				tt.want = image + tt.ref + " is " + tt.want
				if _, ok := tt.typ.(*UnsupportedError); !ok {
					t.Errorf("a %T", err)
				}
			case *Error:
				hint = err.Hint()
				tt.want = "opening " + image + tt.ref + ": " + tt.want
				if tt.typ != nil || err.Image != image+tt.ref {
					t.Errorf("a %T of %s", err, err.Image)
				}
			}
			if got := err.Error(); !strings.HasPrefix(got, tt.want) || strings.Contains(got, "secret") || strings.Contains(got, "\n") {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if hint != tt.hint {
				t.Errorf("hint %s\nwant %s", hint, tt.hint)
			}
		})
	}
}

// TestNetworkErrors has errors as net/http gives them.
func TestNetworkErrors(t *testing.T) {
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	tls.Config.ErrorLog = newServer(t).Config.ErrorLog
	defer tls.Close()
	untrusted := strings.TrimPrefix(tls.URL, "https://")

	plain := newServer(t)
	gone := newServer(t)
	gone.Close()

	fail := func(err error) http.RoundTripper {
		return roundTripper(func(*http.Request) (*http.Response, error) { return nil, err })
	}
	for _, tt := range []struct {
		name, image string
		transport   http.RoundTripper
		want, hint  string
	}{
		{"untrusted", untrusted + "/app", nil, untrusted + " has a certificate that cannot be trusted: x509: certificate signed by unknown authority", "--insecure"},
		{"nothing listens", gone.host() + "/app", nil, gone.host() + " refused the connection", "check that a registry listens there"},
		{"plain", "registry.test/app", roundTripper(func(r *http.Request) (*http.Response, error) {
			r.URL.Host = plain.host()
			return http.DefaultTransport.RoundTrip(r)
		}), "registry.test speaks HTTP, not HTTPS", "--insecure"},
		{"no name", "registry.test/app", fail(&net.DNSError{Name: "registry.test", Err: "no such host", IsNotFound: true}), "there is no host registry.test", "check the registry's name"},
		{"no name server", "registry.test/app", fail(&net.DNSError{Name: "registry.test", Err: "server misbehaving", IsTemporary: true}), "looking up registry.test did not work: server misbehaving", "name servers"},
		{"no route", "registry.test/app", fail(&net.OpError{Op: "dial", Err: syscall.ENETUNREACH}), "registry.test cannot be reached", "check the network"},
		{"no answer", "registry.test/app", fail(&net.OpError{Op: "dial", Err: timeout{}}), "registry.test did not answer in time", "HTTPS_PROXY"},
		{"signed URL", "registry.test/app", fail(&url.Error{Op: "Get", URL: "https://me:secret@store.test/x?token=secret", Err: errors.New("broken\nsecret")}), `registry.test: Get "https://store.test/x": broken`, ""},
		{"reset", "registry.test/app@" + zero, fail(&net.OpError{Op: "read", Err: syscall.ECONNRESET}), "registry.test broke the connection", ""},
		{"digest", "registry.test/app@" + zero, roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path != "/v2/" {
				return nil, errors.New("not HTTP")
			}
			return httptest.NewRecorder().Result(), nil
		}), "registry.test: not HTTP", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			im, err := open(t.Context(), plain.client(Options{Transport: tt.transport}), tt.image)
			e, ok := err.(*Error)
			if !ok {
				t.Fatalf("got %v, %v", im, err)
			}
			if want := "opening " + tt.image + ": " + tt.want; e.Error() != want {
				t.Errorf("got  %s\nwant %s", e, want)
			}
			if !strings.Contains(e.Hint(), tt.hint) {
				t.Errorf("hint %q, want %q", e.Hint(), tt.hint)
			}
		})
	}

	t.Run("insecure", func(t *testing.T) {
		_, err := open(t.Context(), plain.client(Options{Insecure: true}), untrusted+"/app")
		if err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := open(ctx, plain.client(Options{}), plain.host()+"/app")
		if err == nil || !errors.Is(err, context.Canceled) || !strings.HasSuffix(err.Error(), "/app: interrupted") {
			t.Errorf("got %v", err)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type timeout struct{}

func (timeout) Error() string { return "i/o timeout" }
func (timeout) Timeout() bool { return true }

func TestRetry(t *testing.T) {
	s := newServer(t)
	s.putImage(t, "app:1")
	for _, tt := range []struct {
		name  string
		fault func(w http.ResponseWriter, n int) bool // of the n-th GET of the manifest
		waits []time.Duration                         // within a fifth
		fails bool
	}{{
		name: "unavailable, cut off, then there",
		fault: func(w http.ResponseWriter, n int) bool {
			switch n {
			case 1:
				w.WriteHeader(503)
			case 2:
				cut(w, "HTTP/1.1 2")
			}
			return n < 3
		},
		waits: []time.Duration{500 * time.Millisecond, time.Second},
	}, {
		name: "never",
		fault: func(w http.ResponseWriter, n int) bool {
			w.WriteHeader(502)
			return true
		},
		waits: []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second},
		fails: true,
	}, {
		name: "after seconds",
		fault: func(w http.ResponseWriter, n int) bool {
			w.Header().Set("Retry-After", "7")
			if n == 1 {
				w.WriteHeader(429)
			}
			return n == 1
		},
		waits: []time.Duration{7 * time.Second},
	}, {
		name: "after a date that is past",
		fault: func(w http.ResponseWriter, n int) bool {
			w.Header().Set("Retry-After", "Mon, 02 Jan 2006 15:04:05 GMT")
			if n == 1 {
				w.WriteHeader(503)
			}
			return n == 1
		},
		waits: []time.Duration{0},
	}, {
		name: "after hours",
		fault: func(w http.ResponseWriter, n int) bool {
			w.Header().Set("Retry-After", "21600")
			w.WriteHeader(429)
			return true
		},
		fails: true,
	}, {
		name: "never allowed",
		fault: func(w http.ResponseWriter, n int) bool {
			w.WriteHeader(403)
			return true
		},
		fails: true,
	}} {
		t.Run(tt.name, func(t *testing.T) {
			s.forget()
			n := 0
			s.fault = func(w http.ResponseWriter, _ *http.Request, kind string) bool {
				if kind != "GET manifests" {
					return false
				}
				n++
				return tt.fault(w, n)
			}
			_, err := open(t.Context(), s.client(Options{}), s.host()+"/app:1")
			if (err != nil) != tt.fails {
				t.Errorf("got %v", err)
			}
			if len(s.waits) != len(tt.waits) {
				t.Fatalf("waited %v, want %v", s.waits, tt.waits)
			}
			for i, d := range s.waits {
				if d < tt.waits[i]*8/10 || d > tt.waits[i]*12/10 {
					t.Errorf("waited %v, want %v", s.waits, tt.waits)
				}
			}
		})
	}
}

func TestWaiting(t *testing.T) {
	s := newServer(t)
	s.putImage(t, "app:1")
	s.fault = func(w http.ResponseWriter, _ *http.Request, kind string) bool {
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(503)
		return true
	}
	var told []string
	c := New(Options{Keychain: authn.NewMultiKeychain(), Waiting: func(cause string, d time.Duration) {
		told = append(told, fmt.Sprintf("%s: %v", cause, d))
	}})
	if _, err := open(t.Context(), c, s.host()+"/app:1"); err == nil {
		t.Error("opened")
	}
	if want := "127.0.0.1 answered 503 Service Unavailable: 0s"; !slices.Equal(told, []string{want}) {
		t.Errorf("told %q", told)
	}
}

// TestWaitingForLayer has connections that break after every few bytes.
func TestWaitingForLayer(t *testing.T) {
	s := newServer(t)
	s.putImage(t, "app:1")
	var told []string
	c := New(Options{Keychain: authn.NewMultiKeychain(), Waiting: func(cause string, _ time.Duration) {
		told = append(told, cause)
	}})
	tell := c.wait
	c.wait = func(ctx context.Context, d time.Duration, cause error) error {
		over, cancel := context.WithCancel(ctx)
		cancel()
		tell(over, d, cause) // does not wait
		return ctx.Err()
	}
	im := s.open(t, c, "app:1")
	size := im.Manifest.Layers[2].Size
	n := 0
	s.fault = func(w http.ResponseWriter, r *http.Request, kind string) bool {
		answer := fmt.Sprintf("200 OK\r\nContent-Length: %d", size)
		if r.Header.Get("Range") != "" {
			answer = fmt.Sprintf("206 Partial Content\r\nContent-Length: %d\r\nContent-Range: bytes %d-%d/%d", size-int64(n), n, size-1, size)
		}
		n++
		cut(w, "HTTP/1.1 "+answer+"\r\n\r\nx")
		return true
	}
	rc, err := im.Layer(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	_, err = io.ReadAll(rc)
	layer := "reading layer " + im.Manifest.Layers[2].Digest.String() + " of " + im.Name + ": "
	if want := fmt.Sprintf("%sregistry sent only %d of %d bytes", layer, attempts, size); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if n != attempts || !slices.Equal(told, []string{layer + "unexpected EOF"}) {
		t.Errorf("%d requests, told %q", n, told)
	}
}

func TestNews(t *testing.T) {
	first, second := about(t.Context(), "one"), about(t.Context(), "two")
	reset := func(port int) error {
		return &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET,
			Source: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: port}, Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 443}}
	}
	for _, tt := range []struct {
		ctx   context.Context
		cause error
		text  string
		first bool
	}{
		{first, reset(40001), "one: read tcp 10.0.0.1->10.0.0.2:443: connection reset by peer", true},
		{first, reset(40002), "one: read tcp 10.0.0.1->10.0.0.2:443: connection reset by peer", false},
		{second, reset(40003), "two: read tcp 10.0.0.1->10.0.0.2:443: connection reset by peer", true},
		{first, io.ErrUnexpectedEOF, "one: unexpected EOF", true},
		{t.Context(), io.ErrUnexpectedEOF, "unexpected EOF", true},
	} {
		if text, first := news(tt.ctx, tt.cause); text != tt.text || first != tt.first {
			t.Errorf("%q, %t; want %q, %t", text, first, tt.text, tt.first)
		}
	}
}

func TestSleep(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sleep(ctx, time.Hour); err != context.Canceled {
		t.Errorf("got %v", err)
	}
	if err := sleep(t.Context(), 0); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestDiagnosePush(t *testing.T) {
	for host, want := range map[string]string{
		"123.dkr.ecr.eu-west-1.amazonaws.com": "create it: aws ecr create-repository --repository-name team/app",
		"registry.test":                       "the registry may want the repository to be created before a push",
	} {
		c := New(Options{Keychain: authn.NewMultiKeychain(), Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			rec := httptest.NewRecorder()
			if r.URL.Path != "/v2/" {
				registrytest.Deny(rec, 404, "NAME_UNKNOWN")
			}
			resp := rec.Result()
			resp.Request = r
			return resp, nil
		})})
		dst, err := name.ParseReference(host + "/team/app:1")
		if err != nil {
			t.Fatal(err)
		}
		_, err = push(t.Context(), c, dst, &Image{}, madeImage{
			Manifest: []byte(`{"config":{"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}}`),
			Config:   []byte("{}"),
		})
		e, ok := err.(*Error)
		if !ok || e.Hint() != want || !strings.HasSuffix(e.Error(), host+" has no repository team/app (404 NAME_UNKNOWN)") {
			t.Errorf("%s: %v; %v", host, e, e.Hint())
		}
	}
}
