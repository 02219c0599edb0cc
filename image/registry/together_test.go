package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgwrap/imgwrap/image/registry/registrytest"
)

// Of one image that goes to several tags of a repository at the same time, each
// blob is brought there once: also the config, which is nobody else's.
func TestPushesTogether(t *testing.T) {
	s := newServer(t)
	img := s.putImage(t, "app:1")
	c := s.client(Options{})
	src := s.open(t, c, "app:1")
	made := wrapped(t, img)
	const pushes = 6
	uploads, asked := map[string]int{}, 0
	all := make(chan struct{})
	s.fault = func(_ http.ResponseWriter, r *http.Request, kind string) bool {
		s.mu.Lock()
		switch kind {
		case "PUT uploads":
			uploads[r.URL.Query().Get("digest")]++
		case "HEAD manifests":
			if asked++; asked == pushes {
				close(all)
			}
		}
		s.mu.Unlock()
		if kind == "HEAD manifests" {
			<-all // none has begun to bring anything before all have asked
		}
		return false
	}
	var wg sync.WaitGroup
	for i := range pushes {
		wg.Go(func() {
			if _, err := push(t.Context(), c, s.ref(t, fmt.Sprintf("app:made%d", i)), src, made); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(uploads) < 2 {
		t.Errorf("uploaded %v, want the added layer and the config", uploads)
	}
	for digest, n := range uploads {
		if n != 1 {
			t.Errorf("%s was uploaded %d times", digest, n)
		}
	}
	if len(c.together.m) != 0 {
		t.Errorf("%d repositories are remembered", len(c.together.m))
	}
}

// What one push could not bring, the next one that waits tries to.
func TestGatheringTakesOver(t *testing.T) {
	var g gatherings
	one, leave := g.join(newServer(t).ref(t, "app:1").Context())
	defer leave()
	digest := v1.Hash{Algorithm: "sha256", Hex: "00"}
	broken := errors.New("broken")
	if before, err := one.bring(t.Context(), digest, func() error { return broken }); before || !errors.Is(err, broken) {
		t.Errorf("got %t, %v", before, err)
	}
	begun, end := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := one.bring(t.Context(), digest, func() error { close(begun); <-end; return nil })
		done <- err
	}()
	<-begun
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := one.bring(ended, digest, func() error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("who waits without a context got %v", err)
	}
	close(end)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if before, err := one.bring(t.Context(), digest, func() error { return broken }); !before || err != nil {
		t.Errorf("got %t, %v", before, err)
	}
}

// A registry that does not find at once what it was given is asked again.
func TestPutAgain(t *testing.T) {
	s := newServer(t)
	img := s.putImage(t, "app:1")
	c := s.client(Options{})
	src := s.open(t, c, "app:1")
	refused := 0
	s.fault = func(w http.ResponseWriter, _ *http.Request, kind string) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if kind != "PUT manifests" || refused == 2 {
			return false
		}
		refused++
		registrytest.Deny(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN")
		return true
	}
	if _, err := push(t.Context(), c, s.ref(t, "app:2"), src, wrapped(t, img)); err != nil || refused != 2 {
		t.Errorf("after %d refusals: %v", refused, err)
	}
	if !s.tagged("app:2") {
		t.Error("the tag does not exist")
	}
}
