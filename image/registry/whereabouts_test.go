package registry

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/imgwrap/imgwrap/image/registry/registrytest"
)

// countUploads counts the uploads of a blob.
func (s *server) countUploads(digest v1.Hash) *int {
	n := new(int)
	s.fault = func(_ http.ResponseWriter, r *http.Request, kind string) bool {
		if kind == "PUT uploads" && r.URL.Query().Get("digest") == digest.String() {
			s.mu.Lock()
			*n++
			s.mu.Unlock()
		}
		return false
	}
	return n
}

// Of images in many repositories, the layer that they share is uploaded once.
func TestAddedLayerIsUploadedOnce(t *testing.T) {
	s := newServer(t)
	made := wrapped(t, s.putImage(t, "app:1"))
	digest, err := made.Added[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	c := s.client(Options{})
	src := s.open(t, c, "app:1")
	n := s.countUploads(digest)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			// Two of each repository.
			dst := s.ref(t, fmt.Sprintf("team%d/app:%d", i/2, i))
			report, err := push(t.Context(), c, dst, src, made)
			if err != nil || report.Refused > 0 {
				t.Errorf("%s: %s, %v", dst, counts(report), err)
				return
			}
			if pushed, err := remote.Image(dst); err != nil {
				t.Error(err)
			} else if err := validate.Image(pushed, validate.Fast); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if *n != 1 {
		t.Errorf("uploaded %d times", *n)
	}
	// Where it is already, it is found as well.
	c = s.client(Options{})
	for _, tt := range []struct{ dst, want string }{
		{"team0/app:new", "0 uploaded, 0 mounted, 8 existing, 0 refused"},
		{"last/app:new", "1 uploaded, 7 mounted, 0 existing, 0 refused"},
	} {
		report, err := push(t.Context(), c, s.ref(t, tt.dst), src, made)
		if err != nil || counts(report) != tt.want {
			t.Errorf("%s: %s, %v; want %s", tt.dst, counts(report), err, tt.want)
		}
	}
	if *n != 1 {
		t.Errorf("uploaded %d times", *n)
	}
}

// So are the source's own where they were in another registry.
func TestSourceLayerIsUploadedOnce(t *testing.T) {
	from, to := newServer(t), newServer(t)
	img := from.putImage(t, "app:1")
	c := to.client(Options{})
	src := from.open(t, c, "app:1")
	for i, want := range []string{"8 uploaded, 0 mounted, 0 existing, 0 refused", "1 uploaded, 7 mounted, 0 existing, 0 refused"} {
		report, err := push(t.Context(), c, to.ref(t, fmt.Sprintf("app%d:1", i)), src, wrapped(t, img))
		if err != nil || counts(report) != want {
			t.Errorf("%s, %v; want %s", counts(report), err, want)
		}
	}
}

func TestKnownLayerIsNotMounted(t *testing.T) {
	for _, status := range []int{202, 401, 403, 404, 500} {
		s := newServer(t)
		made := wrapped(t, s.putImage(t, "app:1"))
		digest, err := made.Added[0].Digest()
		if err != nil {
			t.Fatal(err)
		}
		c := s.client(Options{})
		src := s.open(t, c, "app:1")
		if _, err := push(t.Context(), c, s.ref(t, "app:2"), src, made); err != nil {
			t.Fatal(err)
		}
		s.fault = func(w http.ResponseWriter, r *http.Request, kind string) bool {
			refused := kind == "POST mount" && r.URL.Query().Get("mount") == digest.String()
			if refused {
				w.WriteHeader(status)
			}
			return refused
		}
		report, err := push(t.Context(), c, s.ref(t, "other:1"), src, made)
		if want := "1 uploaded, 7 mounted, 0 existing, 1 refused"; err != nil || counts(report) != want {
			t.Errorf("%d: %s, %v; want %s", status, counts(report), err, want)
		}
	}
}

// If who brings a layer fails, another one does.
func TestBringingIsTakenOver(t *testing.T) {
	s := newServer(t)
	made := wrapped(t, s.putImage(t, "app:1"))
	digest, err := made.Added[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	c := s.client(Options{})
	src := s.open(t, c, "app:1")
	uploading, others := make(chan struct{}), make(chan struct{})
	s.fault = func(w http.ResponseWriter, r *http.Request, kind string) bool {
		if kind != "PUT uploads" || r.URL.Query().Get("digest") != digest.String() || registrytest.Repository(r) != "first" {
			return false
		}
		close(uploading)
		<-others
		registrytest.Deny(w, 403, "DENIED")
		return true
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := push(t.Context(), c, s.ref(t, "first:1"), src, made)
		if err == nil || !strings.Contains(err.Error(), "denied access") {
			t.Errorf("got %v", err)
		}
	})
	<-uploading
	limited, cancel := context.WithCancel(t.Context())
	wg.Go(func() {
		_, err := push(limited, c, s.ref(t, "second:1"), src, made)
		if err == nil || !strings.HasSuffix(err.Error(), ": interrupted; no tag was written") {
			t.Errorf("got %v", err)
		}
		close(others)
	})
	for i := range 3 {
		wg.Go(func() {
			if report, err := push(t.Context(), c, s.ref(t, fmt.Sprintf("app%d:1", i)), src, made); err != nil {
				t.Errorf("%s, %v", counts(report), err)
			}
		})
	}
	cancel()
	wg.Wait()
	repo, brought, err := c.layers.find(t.Context(), s.ref(t, "x").Context().Registry, digest)
	if err != nil || !strings.HasPrefix(repo.RepositoryStr(), "app") {
		t.Errorf("it is in %q, %v", repo, err)
	}
	brought(name.Repository{})
}
