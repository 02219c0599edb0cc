package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/imgwrap/imgwrap/image/registry/registrytest"
)

// sizes of the images that putImage and wrapped make
const (
	sourceLayers = 6
	added        = 120_000
)

func counts(r Report) string {
	return fmt.Sprintf("%d uploaded, %d mounted, %d existing, %d refused", r.Uploaded.Blobs, r.Mounted.Blobs, r.Existing.Blobs, r.Refused)
}

func TestPushSameRepository(t *testing.T) {
	s := newServer(t)
	img := s.putImage(t, "app:1")
	content := wrapped(t, img)
	c := s.client(Options{})
	src := s.open(t, c, "app:1")
	dst := s.ref(t, "app:1-otel")
	s.forget()

	report, err := push(t.Context(), c, dst, src, content)
	if err != nil {
		t.Fatal(err)
	}
	// Only what is new is asked for and sent, each blob in two requests.
	wantRequests(t, s, map[string]int{"HEAD manifests": 1, "HEAD blobs": 2, "POST uploads": 2, "PUT uploads": 2, "PUT manifests": 1})
	if got := counts(report); got != "2 uploaded, 0 mounted, 6 existing, 0 refused" || report.UpToDate {
		t.Errorf("first push: %s", got)
	}
	if want := int64(added + len(content.Config)); report.Uploaded.Bytes != want {
		t.Errorf("%d bytes uploaded, want %d", report.Uploaded.Bytes, want)
	}
	pushed, err := remote.Image(dst)
	if err != nil {
		t.Fatal(err)
	}
	if digest, err := pushed.Digest(); err != nil || digest != report.Digest {
		t.Errorf("%s is there, %v; reported was %s", digest, err, report.Digest)
	}
	if err := validate.Image(pushed, validate.Fast); err != nil {
		t.Error(err)
	}
	s.forget()

	report, err = push(t.Context(), c, dst, src, content)
	if err != nil || !report.UpToDate || report.Digest.Hex == "" {
		t.Errorf("second push: %+v, %v", report, err)
	}
	wantRequests(t, s, map[string]int{"HEAD manifests": 1, "HEAD blobs": 2})

	report, err = push(t.Context(), c, s.ref(t, "app:2"), src, content)
	if err != nil || counts(report) != "0 uploaded, 0 mounted, 8 existing, 0 refused" {
		t.Errorf("push to another tag: %s, %v", counts(report), err)
	}
	wantRequests(t, s, map[string]int{"HEAD manifests": 1, "HEAD blobs": 2, "PUT manifests": 1})
}

func TestPushOtherRepository(t *testing.T) {
	refuse := func(status int) func(http.ResponseWriter, *http.Request, string) bool {
		return func(w http.ResponseWriter, r *http.Request, kind string) bool {
			if kind == "POST mount" {
				w.WriteHeader(status)
			}
			return kind == "POST mount"
		}
	}
	for _, tt := range []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request, string) bool
		want  string
	}{
		{"mounted", nil, "2 uploaded, 6 mounted, 0 existing, 0 refused"},
		{"ignored", func(_ http.ResponseWriter, r *http.Request, kind string) bool {
			if kind == "POST mount" {
				r.URL.RawQuery = "mount=&from="
			}
			return false
		}, "8 uploaded, 0 mounted, 0 existing, 6 refused"},
		{"401", refuse(401), "8 uploaded, 0 mounted, 0 existing, 6 refused"},
		{"403", refuse(403), "8 uploaded, 0 mounted, 0 existing, 6 refused"},
		{"500", refuse(500), "8 uploaded, 0 mounted, 0 existing, 6 refused"},
		{"accepted, but nowhere", refuse(202), "8 uploaded, 0 mounted, 0 existing, 6 refused"},
		{"cut", func(w http.ResponseWriter, r *http.Request, kind string) bool {
			if kind == "POST mount" {
				cut(w, "")
			}
			return kind == "POST mount"
		}, "8 uploaded, 0 mounted, 0 existing, 6 refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			img := s.putImage(t, "base/app:1")
			c := s.client(Options{})
			src := s.open(t, c, "base/app:1")
			s.mu.Lock()
			s.fault = tt.fault
			s.mu.Unlock()
			report, err := push(t.Context(), c, s.ref(t, "team/app:1"), src, wrapped(t, img))
			if err != nil || counts(report) != tt.want {
				t.Errorf("%s, %v; want %s", counts(report), err, tt.want)
			}
			if len(s.waits) > 0 {
				t.Errorf("waited %v", s.waits)
			}
			if pushed, err := remote.Image(s.ref(t, "team/app:1")); err != nil {
				t.Error(err)
			} else if err := validate.Image(pushed, validate.Fast); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPushOtherRegistry(t *testing.T) {
	from, to := newServer(t), newServer(t)
	img := from.putImage(t, "app:1")
	c := to.client(Options{Jobs: 3})
	src := from.open(t, c, "app:1")
	from.forget()
	report, err := push(t.Context(), c, to.ref(t, "app:1"), src, wrapped(t, img))
	if err != nil || counts(report) != "8 uploaded, 0 mounted, 0 existing, 0 refused" {
		t.Errorf("%s, %v", counts(report), err)
	}
	wantRequests(t, from, map[string]int{"GET blobs": sourceLayers})
	wantRequests(t, to, map[string]int{"GET ping": 1, "HEAD manifests": 1, "HEAD blobs": 8, "POST uploads": 8, "PUT uploads": 8, "PUT manifests": 1})

	t.Run("source gone", func(t *testing.T) {
		gone := newServer(t)
		img := gone.putImage(t, "app:1")
		src := gone.open(t, c, "app:1")
		gone.Close()
		to.forget()
		_, err := push(t.Context(), c, to.ref(t, "gone:1"), src, wrapped(t, img))
		if err == nil || !strings.HasPrefix(err.Error(), "reading layer sha256:") || !strings.HasSuffix(err.Error(), " of "+src.Name+": "+gone.host()+" refused the connection") {
			t.Errorf("got %v", err)
		}
	})

	t.Run("source altered", func(t *testing.T) {
		digest := src.Manifest.Layers[3].Digest
		from.fault = func(w http.ResponseWriter, r *http.Request, kind string) bool {
			if strings.HasSuffix(r.URL.Path, digest.String()) {
				w.Write(make([]byte, src.Manifest.Layers[3].Size))
				return true
			}
			return false
		}
		// Another client does not know where to mount it from.
		_, err := push(t.Context(), to.client(Options{}), to.ref(t, "other:1"), src, wrapped(t, img))
		want := fmt.Sprintf("reading layer %s of %s/app:1: content has digest sha256:", digest, from.host())
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		if to.tagged("other:1") {
			t.Error("the tag exists")
		}
	})
}

// TestPushFaults breaks each kind of request in each way. If the push fails
// there must be no tag, and pushing again must succeed.
func TestPushFaults(t *testing.T) {
	answer := func(status int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
	}
	faults := map[string]func(w http.ResponseWriter, r *http.Request){
		"500": answer(500),
		"503": answer(503),
		"429": answer(429),
		"cut": func(w http.ResponseWriter, r *http.Request) {
			io.CopyN(io.Discard, r.Body, 50_000) // of a big blob, this is in the middle
			cut(w, "")
		},
		"cut answer": func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			cut(w, "HTTP/1.1 20")
		},
	}
	for _, kind := range []string{"GET ping", "HEAD manifests", "HEAD blobs", "POST uploads", "PUT uploads", "PUT manifests"} {
		for name, fault := range faults {
			t.Run(kind+"/"+name, func(t *testing.T) {
				s := newServer(t)
				img := s.putImage(t, "app:1")
				content := wrapped(t, img)
				src := s.open(t, s.client(Options{}), "app:1")
				dst := s.ref(t, "app:1-otel")
				push := func(times int) error {
					var mu sync.Mutex
					s.mu.Lock()
					s.fault = func(w http.ResponseWriter, r *http.Request, k string) bool {
						mu.Lock()
						broken := k == kind && times > 0
						if broken {
							times--
						}
						mu.Unlock()
						if broken {
							fault(w, r)
						}
						return broken
					}
					s.mu.Unlock()
					_, err := push(t.Context(), s.client(Options{}), dst, src, content)
					return err
				}
				err := push(1000)
				if err == nil {
					t.Error("succeeded without " + kind)
				} else if e, ok := err.(*Error); !ok || e.Image != dst.String() || strings.Contains(err.Error(), "\n") {
					t.Errorf("got %v", err)
				}
				if s.tagged("app:1-otel") {
					t.Error("failed, but the tag exists")
				}
				if err := push(2); err != nil {
					t.Errorf("again: %v", err)
				}
				if !s.tagged("app:1-otel") {
					t.Error("succeeded, but the tag does not exist")
				}
			})
		}
	}
}

func TestPushRefused(t *testing.T) {
	for _, tt := range []struct {
		kind   string
		status int
		code   string
		n      int // requests of the kind
		want   string
	}{
		{"HEAD manifests", 401, "", 1, "HOST wants other credentials (401 Unauthorized)"},
		{"HEAD blobs", 401, "", 2, "HOST wants other credentials (401 Unauthorized)"},
		{"POST uploads", 403, "DENIED", 2, "HOST denied access (403 DENIED)"},
		{"POST uploads", 404, "NAME_UNKNOWN", 2, "HOST has no repository app (404 NAME_UNKNOWN)"},
		{"PUT uploads", 400, "DIGEST_INVALID", 2, "HOST answered 400 DIGEST_INVALID: no"},
		{"PUT uploads", 404, "BLOB_UPLOAD_UNKNOWN", 10, "HOST forgot an upload (404 BLOB_UPLOAD_UNKNOWN)"},
		{"PUT manifests", 400, "MANIFEST_INVALID", 1, "HOST answered 400 MANIFEST_INVALID: no"},
		{"PUT manifests", 400, "MANIFEST_BLOB_UNKNOWN", attempts, "HOST lacks a part of the image (400 MANIFEST_BLOB_UNKNOWN)"},
	} {
		t.Run(fmt.Sprint(tt.kind, tt.status, tt.code), func(t *testing.T) {
			s := newServer(t)
			img := s.putImage(t, "app:1")
			c := s.client(Options{})
			src := s.open(t, c, "app:1")
			s.forget()
			s.mu.Lock()
			s.fault = func(w http.ResponseWriter, r *http.Request, kind string) bool {
				if kind == tt.kind {
					registrytest.Deny(w, tt.status, tt.code)
				}
				return kind == tt.kind
			}
			s.mu.Unlock()
			_, err := push(t.Context(), c, s.ref(t, "app:2"), src, wrapped(t, img))
			want := "pushing " + s.host() + "/app:2: " + strings.ReplaceAll(tt.want, "HOST", s.host())
			if err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if n := s.forget()[tt.kind]; n > tt.n {
				t.Errorf("%d requests", n)
			}
			if s.tagged("app:2") {
				t.Error("the tag exists")
			}
		})
	}
	t.Run("existence is a secret", func(t *testing.T) {
		s := newServer(t)
		img := s.putImage(t, "app:1")
		c := s.client(Options{})
		src := s.open(t, c, "app:1")
		s.mu.Lock()
		s.fault = func(w http.ResponseWriter, r *http.Request, kind string) bool {
			if r.Method == "HEAD" {
				w.WriteHeader(403)
			}
			return r.Method == "HEAD"
		}
		s.mu.Unlock()
		if _, err := push(t.Context(), c, s.ref(t, "app:2"), src, wrapped(t, img)); err != nil {
			t.Error(err)
		}
	})
}

func TestPushCanceled(t *testing.T) {
	for _, tt := range []struct {
		name, kind string
		write      bool                                                     // the manifest
		after      func(w http.ResponseWriter, kind string) (answered bool) // of requests after it
		want       string                                                   // "" is success
	}{
		{name: "questions", kind: "HEAD blobs", want: "interrupted; no tag was written"},
		{name: "begin", kind: "POST uploads", want: "interrupted; no tag was written"},
		{name: "upload", kind: "PUT uploads", want: "interrupted; no tag was written"},
		{name: "manifest not written", kind: "PUT manifests", want: "interrupted; no tag was written"},
		{name: "manifest written", kind: "PUT manifests", write: true},
		{name: "another manifest", kind: "PUT manifests", after: func(w http.ResponseWriter, _ string) bool {
			w.Header().Set("Docker-Content-Digest", zero)
			return true
		}, want: "interrupted; no tag was written"},
		{name: "some manifest", kind: "PUT manifests", after: func(http.ResponseWriter, string) bool { return true },
			want: "interrupted; the tag may have been written"},
		{name: "secret", kind: "PUT manifests", write: true, after: func(w http.ResponseWriter, _ string) bool {
			w.WriteHeader(403)
			return true
		}, want: "interrupted; the tag may have been written"},
		{name: "unknown", kind: "PUT manifests", write: true, after: func(w http.ResponseWriter, _ string) bool {
			cut(w, "")
			return true
		}, want: "interrupted; the tag may have been written"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			img := s.putImage(t, "app:1")
			c := s.client(Options{})
			src := s.open(t, c, "app:1")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s.mu.Lock()
			s.fault = func(w http.ResponseWriter, r *http.Request, k string) bool {
				switch {
				case k == tt.kind:
					body, _ := io.ReadAll(r.Body)
					if tt.write {
						put := r.Clone(context.Background())
						put.Body = io.NopCloser(bytes.NewReader(body))
						s.inner.ServeHTTP(httptest.NewRecorder(), put)
					}
					cancel()
					<-r.Context().Done() // the client hangs up
					return true
				case ctx.Err() != nil && tt.after != nil:
					return tt.after(w, k)
				}
				return false
			}
			s.mu.Unlock()
			content := wrapped(t, img)
			report, err := push(ctx, c, s.ref(t, "app:2"), src, content)
			if tt.want != "" {
				if err == nil || err.Error() != "pushing "+s.host()+"/app:2: "+tt.want {
					t.Errorf("got %v", err)
				}
			} else if digest, _, _ := v1.SHA256(bytes.NewReader(content.Manifest)); err != nil || report.Digest != digest || report.Uploaded.Blobs != 2 {
				t.Errorf("got %+v, %v", report, err)
			}
			if s.tagged("app:2") != tt.write {
				t.Errorf("the tag exists: %t", !tt.write)
			}
			if len(s.waits) > 0 {
				t.Errorf("waited %v", s.waits)
			}
		})
	}
}

func TestPushContent(t *testing.T) {
	s := newServer(t)
	img := s.putImage(t, "app:1")
	c := s.client(Options{})
	src := s.open(t, c, "app:1")
	good := wrapped(t, img)
	pushTo := func(ref string, content madeImage) error {
		_, err := push(t.Context(), c, s.ref(t, ref), src, content)
		return err
	}
	digest, _, err := v1.SHA256(bytes.NewReader(good.Manifest))
	if err != nil {
		t.Fatal(err)
	}
	if err := pushTo("app@"+digest.String(), good); err != nil || !s.tagged("app:"+digest.String()) {
		t.Errorf("by digest: %v", err)
	}

	bad := func(change func(*madeImage)) madeImage {
		content := good
		change(&content)
		return content
	}
	other := "app@sha256:" + strings.Repeat("0", 64)
	for _, tt := range []struct {
		name, ref, want string
		content         madeImage
	}{
		{"digest", other, "the image has digest " + digest.String(), good},
		{"no JSON", "app:2", "manifest is not valid: unexpected end of JSON input", bad(func(c *madeImage) { c.Manifest = nil })},
		{"config", "app:2", "blob sha256:", bad(func(c *madeImage) { c.Config = []byte("{}") })},
		{"layer missing", "app:2", "blob sha256:", bad(func(c *madeImage) { c.Added = nil })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := pushTo(tt.ref, tt.content)
			want := "pushing " + s.ref(t, tt.ref).String() + ": " + tt.want
			if err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if s.tagged("app:2") {
				t.Error("the tag exists")
			}
		})
	}

	t.Run("layer unreadable", func(t *testing.T) {
		to := newServer(t)
		content := bad(func(c *madeImage) { c.Added = []v1.Layer{brokenLayer{c.Added[0]}} })
		_, err := push(t.Context(), to.client(Options{}), to.ref(t, "app:1"), src, content)
		digest, _ := content.Added[0].Digest()
		want := "pushing " + to.host() + "/app:1: preparing layer " + digest.String() + ": http://127.0.0.1:9/simple: connection refused"
		if e, ok := err.(*Error); !ok || e.Error() != want || e.Hint() != "check the index" || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		if len(to.waits) > 0 {
			t.Error("tried again")
		}
		wantRequests(t, to, map[string]int{"GET ping": 1, "HEAD manifests": 1, "HEAD blobs": 8})
	})

	t.Run("layer breaks", func(t *testing.T) {
		to := newServer(t)
		content := bad(func(c *madeImage) { c.Added = []v1.Layer{breakingLayer{c.Added[0]}} })
		_, err := push(t.Context(), to.client(Options{}), to.ref(t, "app:1"), src, content)
		digest, _ := content.Added[0].Digest()
		want := "pushing " + to.host() + "/app:1: reading layer " + digest.String() + ": http://127.0.0.1:9/simple: connection refused"
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		if to.tagged("app:1") || len(to.waits) > 0 {
			t.Error("the tag exists, or it was tried again")
		}
	})

	t.Run("layer not needed", func(t *testing.T) {
		content := bad(func(c *madeImage) { c.Added = []v1.Layer{brokenLayer{c.Added[0]}} })
		if err := pushTo("app:3", content); err != nil {
			t.Error(err)
		}
	})

	t.Run("a layer twice", func(t *testing.T) {
		layer := static.NewLayer([]byte("same"), types.DockerLayer)
		digest, _ := layer.Digest()
		desc := fmt.Sprintf(`{"mediaType":%q,"size":4,"digest":%q}`, types.DockerLayer, digest)
		foreign := fmt.Sprintf(`{"mediaType":%q,"size":9,"digest":"sha256:%s"}`, types.DockerForeignLayer, strings.Repeat("1", 64))
		config, _, _ := v1.SHA256(strings.NewReader("{}"))
		content := madeImage{
			MediaType: types.DockerManifestSchema2,
			Config:    []byte("{}"),
			Manifest:  fmt.Appendf(nil, `{"config":{"size":2,"digest":%q},"layers":[%s,%[2]s,%s]}`, config, desc, foreign),
			Added:     []v1.Layer{layer},
		}
		s.inner.Add("app", "sha256:"+strings.Repeat("1", 64)) // for the server to take the manifest
		report, err := push(t.Context(), c, s.ref(t, "app:twice"), src, content)
		if err != nil || counts(report) != "2 uploaded, 0 mounted, 0 existing, 0 refused" {
			t.Errorf("%s, %v", counts(report), err)
		}
	})
}

// A brokenLayer cannot be opened, a breakingLayer not be read.
type (
	brokenLayer   struct{ v1.Layer }
	breakingLayer struct{ v1.Layer }
)

func (brokenLayer) Compressed() (io.ReadCloser, error) { return nil, indexError{} }

func (breakingLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(strings.NewReader("some"), iotest.ErrReader(indexError{}))), nil
}

// An indexError is one of a network, but not the registry's.
type indexError struct{}

func (indexError) Error() string { return "http://me:secret@127.0.0.1:9/simple: connection refused" }
func (indexError) Hint() string  { return "check the index" }
func (indexError) Unwrap() error { return syscall.ECONNREFUSED }

// TestPrivateAddress has a registry that wants uploads to go to a private address.
func TestPrivateAddress(t *testing.T) {
	s := newServer(t)
	img := s.putImage(t, "app:1")
	s.fault = func(w http.ResponseWriter, r *http.Request, kind string) bool {
		if kind == "POST uploads" {
			w.Header().Set("Location", "http://10.0.0.1"+r.URL.Path+"x")
			w.WriteHeader(202)
		}
		return kind == "POST uploads"
	}
	store := roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.URL.Host == "10.0.0.1" {
			r = r.Clone(r.Context())
			r.URL.Host = s.host()
		}
		return http.DefaultTransport.RoundTrip(r)
	})
	push := func(o Options) error {
		o.Transport = store
		c := s.client(o)
		_, err := push(t.Context(), c, s.ref(t, "app:2"), s.open(t, c, "app:1"), wrapped(t, img))
		return err
	}
	err := push(Options{})
	e, ok := err.(*Error)
	if !ok || !strings.HasSuffix(e.Error(), ": 127.0.0.1 redirects to the private address 10.0.0.1") || !strings.Contains(e.Hint(), "--insecure") {
		t.Errorf("got %v", err)
	}
	if len(s.waits) > 0 {
		t.Error("tried again")
	}
	if err := push(Options{Insecure: true}); err != nil {
		t.Error(err)
	}
}

// A keychain has one account for everything and counts how often it is asked.
type keychain struct {
	authn.AuthConfig
	asked int
}

func (k *keychain) Resolve(authn.Resource) (authn.Authenticator, error) {
	k.asked++
	return authn.FromConfig(k.AuthConfig), nil
}

func TestBasicAuth(t *testing.T) {
	s := newServer(t)
	img := s.putImage(t, "app:1")
	s.fault = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if user, password, _ := r.BasicAuth(); user == "me" && password == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(401)
		return true
	}
	k := &keychain{AuthConfig: authn.AuthConfig{Username: "me", Password: "secret"}}
	c := s.client(Options{Keychain: k})
	src := s.open(t, c, "app:1")
	if _, err := push(t.Context(), c, s.ref(t, "app:2"), src, wrapped(t, img)); err != nil {
		t.Error(err)
	}
	if k.asked != 1 {
		t.Errorf("asked %d times for credentials", k.asked)
	}
	k = &keychain{AuthConfig: authn.AuthConfig{Username: "me", Password: "wrong"}}
	_, err := open(t.Context(), s.client(Options{Keychain: k}), s.host()+"/app:1")
	if err == nil || strings.Contains(err.Error(), "wrong") || !strings.Contains(err.Error(), "401 Unauthorized") {
		t.Errorf("got %v", err)
	}
}

// A tokenServer asks for bearer tokens that last for a number of requests.
type tokenServer struct {
	*server
	mu     sync.Mutex
	uses   int
	left   map[string]int
	scopes []string
	denied string // scope for which no token is given
}

func (s *tokenServer) serve(w http.ResponseWriter, r *http.Request, kind string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind == "GET token" {
		scopes := r.URL.Query()["scope"]
		s.scopes = append(s.scopes, strings.Join(scopes, " "))
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" || slices.Contains(scopes, s.denied) {
			registrytest.Deny(w, 403, "DENIED")
			return true
		}
		token := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%d", len(s.scopes)))
		s.left[token] = s.uses
		fmt.Fprintf(w, `{"token":%q}`, token)
		return true
	}
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if s.left[token]--; s.left[token] >= 0 {
		return false
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test"`, s.URL))
	w.WriteHeader(401)
	return true
}

func newTokenServer(t *testing.T, uses int) (*tokenServer, *keychain) {
	s := &tokenServer{server: newServer(t), uses: uses, left: make(map[string]int)}
	return s, &keychain{AuthConfig: authn.AuthConfig{Username: "me", Password: "secret"}}
}

func TestTokenAuth(t *testing.T) {
	s, k := newTokenServer(t, 1000)
	img := s.putImage(t, "base/app:1")
	s.fault = s.serve
	c := s.client(Options{Keychain: k})
	src := s.open(t, c, "base/app:1")
	report, err := push(t.Context(), c, s.ref(t, "app:2"), src, wrapped(t, img))
	if err != nil || counts(report) != "2 uploaded, 6 mounted, 0 existing, 0 refused" {
		t.Errorf("%s, %v", counts(report), err)
	}
	want := []string{"repository:base/app:pull", "repository:app:push,pull", "repository:app:push,pull repository:base/app:pull"}
	if !slices.Equal(s.scopes, want) {
		t.Errorf("asked for %q, want %q", s.scopes, want)
	}

	// The account may push, but not pull from the source, which is public.
	s.denied = "repository:base/app:pull"
	report, err = push(t.Context(), s.client(Options{Keychain: k}), s.ref(t, "team/app:2"), src, wrapped(t, img))
	if err != nil || counts(report) != "8 uploaded, 0 mounted, 0 existing, 6 refused" {
		t.Errorf("%s, %v", counts(report), err)
	}

	// The account may only pull: enough if there is nothing to do.
	if _, err := push(t.Context(), c, s.ref(t, "base/app:2"), src, wrapped(t, img)); err != nil {
		t.Error(err)
	}
	s.denied = "repository:base/app:push,pull"
	c = s.client(Options{Keychain: k})
	src = s.open(t, c, "base/app:1")
	if report, err := push(t.Context(), c, s.ref(t, "base/app:2"), src, wrapped(t, img)); err != nil || !report.UpToDate {
		t.Errorf("%+v, %v", report, err)
	}
	_, err = push(t.Context(), c, s.ref(t, "base/app:3"), src, wrapped(t, img))
	if err == nil || !strings.HasSuffix(err.Error(), s.host()+" denied access (403 DENIED)") || s.tagged("base/app:3") {
		t.Errorf("got %v", err)
	}
}

func TestTokenExpires(t *testing.T) {
	// Some of these expire between POST and PUT.
	for uses := 1; uses <= 4; uses++ {
		s, k := newTokenServer(t, uses)
		img := s.putImage(t, "app:1")
		s.fault = s.serve
		c := s.client(Options{Keychain: k, Jobs: 1})
		src := s.open(t, c, "app:1")
		if _, err := push(t.Context(), c, s.ref(t, "app:2"), src, wrapped(t, img)); err != nil {
			t.Errorf("a token for %d requests: %v", uses, err)
		}
		if len(s.waits) > 0 {
			t.Errorf("a token for %d requests: waited %v", uses, s.waits)
		}
	}
}

func TestCheckPush(t *testing.T) {
	check := func(t *testing.T, s *server, ref string) error {
		t.Helper()
		c := s.client(Options{})
		dst, err := c.ParseReference(s.host() + "/" + ref)
		if err != nil {
			t.Fatal(err)
		}
		undo, err := c.CheckPush(t.Context(), dst)
		undo()
		return err
	}
	t.Run("allowed", func(t *testing.T) {
		s := newServer(t)
		if err := check(t, s, "app:2"); err != nil {
			t.Error(err)
		}
		wantRequests(t, s, map[string]int{"GET ping": 1, "POST uploads": 1, "DELETE uploads": 1})
	})
	t.Run("needed", func(t *testing.T) {
		s := newServer(t)
		img := s.putImage(t, "app:1")
		c := s.client(Options{Jobs: 1})
		src := s.open(t, c, "app:1")
		dst := s.ref(t, "app:2")
		s.forget()
		undo, err := c.CheckPush(t.Context(), Reference{text: dst.String(), named: dst})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := push(t.Context(), c, dst, src, wrapped(t, img)); err != nil {
			t.Fatal(err)
		}
		undo()
		wantRequests(t, s, map[string]int{"HEAD manifests": 1, "HEAD blobs": 2, "POST uploads": 2, "PUT uploads": 2, "PUT manifests": 1})
	})
	t.Run("uploads cannot be canceled", func(t *testing.T) {
		s := newServer(t)
		s.fault = func(w http.ResponseWriter, _ *http.Request, kind string) bool {
			if kind == "DELETE uploads" {
				registrytest.Deny(w, 405, "UNSUPPORTED")
			}
			return kind == "DELETE uploads"
		}
		if err := check(t, s, "app:2"); err != nil {
			t.Error(err)
		}
	})
	for status, want := range map[int]string{
		401: " wants other credentials (401 DENIED)",
		403: " denied access (403 DENIED)",
		404: " has no repository app (404 DENIED)",
		500: " answered 500 DENIED: no",
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := newServer(t)
			s.putImage(t, "app:1")
			s.fault = func(w http.ResponseWriter, _ *http.Request, kind string) bool {
				if kind == "POST uploads" {
					registrytest.Deny(w, status, "DENIED")
				}
				return kind == "POST uploads"
			}
			err := check(t, s, "app:2")
			if want := "pushing " + s.host() + "/app:2: " + s.host() + want; err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			// There may be nothing to push.
			if err := check(t, s, "app:1"); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("not in a registry", func(t *testing.T) {
		undo, err := New(Options{}).CheckPush(t.Context(), Reference{Transport: OCILayout, Path: "nowhere"})
		if err != nil {
			t.Error(err)
		}
		undo()
	})
}

func TestPushTooLarge(t *testing.T) {
	s := newServer(t)
	made := wrapped(t, s.putImage(t, "app:1"))
	made.Manifest = append(made.Manifest, bytes.Repeat([]byte(" "), manifestLimit)...)
	c := s.client(Options{})
	src := s.open(t, c, "app:1")
	s.forget()
	_, err := push(t.Context(), c, s.ref(t, "app:2"), src, made)
	if want := "pushing " + s.host() + "/app:2: manifest is larger than 4 MiB, the most that registries accept"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	wantRequests(t, s, map[string]int{})
}
