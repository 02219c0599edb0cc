package registry

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/imgwrap/imgwrap/image/registry/registrytest"
)

// pushShared is push with the added layers shared.
func pushShared(t *testing.T, s *server, c *Client, dst string, src *Image, made madeImage) (Report, error) {
	t.Helper()
	kept, err := c.ParseReference(s.host() + "/otel:1.45.1")
	if err != nil {
		t.Fatal(err)
	}
	to, err := c.ParseReference(s.host() + "/" + dst)
	if err != nil {
		t.Fatal(err)
	}
	return c.Write(t.Context(), to, src.source, Tree{
		Root:    NewDocument(made.MediaType, made.Manifest),
		Configs: [][]byte{made.Config},
		Layers:  made.Added,
		Shared:  []Shared{{Layer: made.Added[0], Kept: kept, Architecture: "amd64"}},
	})
}

func TestShared(t *testing.T) {
	s := newServer(t)
	made := wrapped(t, s.putImage(t, "app:1"))
	c := s.client(Options{})
	src := s.open(t, c, "app:1")
	sharedCounts := func(r Report) string { return fmt.Sprintf("%s; %d to share", counts(r), r.Shared.Blobs) }

	report, err := pushShared(t, s, c, "app:1-otel", src, made)
	if want := "1 uploaded, 1 mounted, 6 existing, 0 refused; 2 to share"; err != nil || sharedCounts(report) != want {
		t.Errorf("%s, %v; want %s", sharedCounts(report), err, want)
	}
	if report.Mounted.Bytes != added {
		t.Errorf("%d bytes mounted, want %d", report.Mounted.Bytes, added)
	}
	// An image that anybody can pull, of bytes that do not depend on the run.
	kept, err := remote.Image(s.ref(t, "otel:1.45.1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(kept, validate.Fast); err != nil {
		t.Error(err)
	}
	digest, err := kept.Digest()
	if want := "sha256:e9f458c2b41eaf22558c10521a3dc2bf748e0fd593015afc197515d0b86214f8"; err != nil || digest.String() != want {
		t.Errorf("kept by %s, %v; want %s", digest, err, want)
	}
	s.forget()

	// Where it is, it need not be in the cache.
	unread := made
	unread.Added = []v1.Layer{brokenLayer{made.Added[0]}}
	report, err = pushShared(t, s, c, "other/app:1", s.open(t, c, "app:1"), unread)
	if want := "0 uploaded, 8 mounted, 0 existing, 0 refused; 0 to share"; err != nil || sharedCounts(report) != want {
		t.Errorf("%s, %v; want %s", sharedCounts(report), err, want)
	}
	// What the destination has is not asked for elsewhere.
	s.forget()
	report, err = pushShared(t, s, c, "other/app:2", src, unread)
	if want := "0 uploaded, 0 mounted, 8 existing, 0 refused; 0 to share"; err != nil || sharedCounts(report) != want {
		t.Errorf("%s, %v; want %s", sharedCounts(report), err, want)
	}
	wantRequests(t, s, map[string]int{"HEAD manifests": 1, "HEAD blobs": 8, "PUT manifests": 1})

	t.Run("first of all at the same time", func(t *testing.T) {
		s := newServer(t)
		made := wrapped(t, s.putImage(t, "app:1"))
		c := s.client(Options{})
		src := s.open(t, c, "app:1")
		sent := make([]int, 4)
		var g sync.WaitGroup
		for i := range sent {
			g.Go(func() {
				report, err := pushShared(t, s, c, fmt.Sprintf("app%d:1", i), src, made)
				if err != nil {
					t.Error(err)
				}
				sent[i] = report.Shared.Blobs
			})
		}
		g.Wait()
		if slices.Sort(sent); !slices.Equal(sent, []int{0, 0, 0, 2}) {
			t.Errorf("sent to share: %v", sent)
		}
	})
	t.Run("into where it is kept", func(t *testing.T) {
		s := newServer(t)
		made := wrapped(t, s.putImage(t, "otel:1"))
		c := s.client(Options{})
		report, err := pushShared(t, s, c, "otel:1-otel", s.open(t, c, "otel:1"), made)
		if want := "2 uploaded, 0 mounted, 6 existing, 0 refused; 0 to share"; err != nil || sharedCounts(report) != want {
			t.Errorf("%s, %v; want %s", sharedCounts(report), err, want)
		}
	})
	t.Run("cannot be made", func(t *testing.T) {
		s := newServer(t)
		made := wrapped(t, s.putImage(t, "app:1"))
		made.Added = []v1.Layer{brokenLayer{made.Added[0]}}
		c := s.client(Options{})
		_, err := pushShared(t, s, c, "other:1", s.open(t, c, "app:1"), made)
		if err == nil || !strings.HasPrefix(err.Error(), "pushing "+s.host()+"/other:1: preparing layer sha256:") {
			t.Errorf("got %v", err)
		}
		if n := s.forget(); n["POST uploads"]+n["POST mount"] > 0 || s.tagged("other:1") || s.tagged("otel:1.45.1") {
			t.Errorf("something was sent: %v", n)
		}
	})
}

func TestSharedRefused(t *testing.T) {
	answer := func(kind, repository string, status int) func(http.ResponseWriter, *http.Request, string) bool {
		return func(w http.ResponseWriter, r *http.Request, k string) bool {
			broken := k == kind && registrytest.Repository(r) == repository
			if broken {
				w.WriteHeader(status)
			}
			return broken
		}
	}
	for _, tt := range []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request, string) bool
		want  string
		kept  bool
	}{
		{"mount 401", answer("POST mount", "app", 401), "2 uploaded, 0 mounted, 6 existing, 1 refused", true},
		{"mount 403", answer("POST mount", "app", 403), "2 uploaded, 0 mounted, 6 existing, 1 refused", true},
		{"mount 404", answer("POST mount", "app", 404), "2 uploaded, 0 mounted, 6 existing, 1 refused", true},
		{"mount 202", answer("POST mount", "app", 202), "2 uploaded, 0 mounted, 6 existing, 1 refused", true},
		{"mount 500", answer("POST mount", "app", 500), "2 uploaded, 0 mounted, 6 existing, 1 refused", true},
		{"push 403", answer("POST uploads", "otel", 403), "2 uploaded, 0 mounted, 6 existing, 1 refused", false},
		{"push 404", answer("POST uploads", "otel", 404), "2 uploaded, 0 mounted, 6 existing, 1 refused", false},
		{"push 500", answer("POST uploads", "otel", 500), "2 uploaded, 0 mounted, 6 existing, 1 refused", false},
		{"pull 401", answer("HEAD manifests", "otel", 401), "2 uploaded, 0 mounted, 6 existing, 1 refused", false},
		{"tag 400", answer("PUT manifests", "otel", 400), "1 uploaded, 1 mounted, 6 existing, 0 refused", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			made := wrapped(t, s.putImage(t, "app:1"))
			c := s.client(Options{})
			src := s.open(t, c, "app:1")
			s.mu.Lock()
			s.fault = tt.fault
			s.mu.Unlock()
			report, err := pushShared(t, s, c, "app:2", src, made)
			if err != nil || counts(report) != tt.want {
				t.Errorf("%s, %v; want %s", counts(report), err, tt.want)
			}
			if s.tagged("otel:1.45.1") != tt.kept {
				t.Errorf("kept: %t", !tt.kept)
			}
			if pushed, err := remote.Image(s.ref(t, "app:2")); err != nil {
				t.Error(err)
			} else if err := validate.Image(pushed, validate.Fast); err != nil {
				t.Error(err)
			}
		})
	}

	t.Run("pull only", func(t *testing.T) {
		s, k := newTokenServer(t, 1000)
		made := wrapped(t, s.putImage(t, "app:1"))
		s.fault = s.serve
		c := s.client(Options{Keychain: k})
		if _, err := pushShared(t, s.server, c, "app:2", s.open(t, c, "app:1"), made); err != nil {
			t.Fatal(err)
		}
		s.denied = "repository:otel:push,pull"
		c = s.client(Options{Keychain: authn.NewMultiKeychain(k)})
		made.Added = []v1.Layer{brokenLayer{made.Added[0]}}
		report, err := pushShared(t, s.server, c, "other:2", s.open(t, c, "app:1"), made)
		if want := "0 uploaded, 8 mounted, 0 existing, 0 refused"; err != nil || counts(report) != want {
			t.Errorf("%s, %v; want %s", counts(report), err, want)
		}
	})
}
