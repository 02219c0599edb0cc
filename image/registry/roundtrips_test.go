package registry

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// kept keeps configs.
type kept map[v1.Hash][]byte

func (k kept) Config(digest v1.Hash) ([]byte, bool) {
	raw, ok := k[digest]
	return raw, ok
}

func (k kept) PutConfig(digest v1.Hash, raw []byte) { k[digest] = raw }

func TestConfigIsReadOnce(t *testing.T) {
	s := newServer(t)
	s.putImage(t, "app:1")
	configs := kept{}
	first := s.open(t, s.client(Options{Configs: configs}), "app:1")
	wantRequests(t, s, map[string]int{"GET ping": 1, "GET manifests": 1, "GET blobs": 1})
	second := s.open(t, s.client(Options{Configs: configs}), "app:1")
	wantRequests(t, s, map[string]int{"GET ping": 1, "GET manifests": 1})
	if string(first.RawConfig) != string(second.RawConfig) || second.Config == nil {
		t.Errorf("%s at first, then %s", first.RawConfig, second.RawConfig)
	}
}

// Where nobody has to log in, the manifest is not asked for last.
func TestAskAhead(t *testing.T) {
	s := newServer(t)
	s.putImage(t, "app:1")
	var manifest sync.Once
	asked := make(chan struct{})
	s.fault = func(_ http.ResponseWriter, r *http.Request, kind string) bool {
		switch kind {
		case "GET manifests":
			manifest.Do(func() { close(asked) })
		case "GET ping":
			select {
			case <-asked:
			case <-r.Context().Done():
			}
		}
		return false
	}
	s.open(t, s.client(Options{}), "app:1")
	wantRequests(t, s, map[string]int{"GET ping": 1, "GET manifests": 1, "GET blobs": 1})
}

// Where everybody has to, it is asked for in vain only once.
func TestAskAheadInVain(t *testing.T) {
	s := newServer(t)
	s.putImage(t, "app:1")
	s.putImage(t, "other:1")
	s.fault = func(w http.ResponseWriter, r *http.Request, kind string) bool {
		if kind == "GET token" {
			fmt.Fprint(w, `{"token":"anybody"}`)
			return true
		}
		if r.Header.Get("Authorization") == "Bearer anybody" {
			return false
		}
		if kind == "GET manifests" && strings.Contains(r.URL.Path, "/other/") {
			t.Error("the registry was known to ask for authentication")
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test"`, s.URL))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	c := s.client(Options{})
	s.open(t, c, "app:1")
	s.open(t, c, "other:1")
	if len(s.waits) > 0 {
		t.Errorf("waited %v", s.waits)
	}
}

// How to authenticate is asked once, by however many at the same time.
func TestRegistryIsAskedOnce(t *testing.T) {
	s := newServer(t)
	var refs []Reference
	c := s.client(Options{})
	for i := range 10 {
		ref := fmt.Sprintf("app%d:1", i)
		s.putImage(t, ref)
		refs = append(refs, s.parse(t, c, ref))
	}
	var wg sync.WaitGroup
	for _, ref := range refs {
		wg.Go(func() {
			if _, err := c.Digest(t.Context(), ref); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantRequests(t, s, map[string]int{"GET ping": 1, "HEAD manifests": 10})
}
