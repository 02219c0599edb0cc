// Package registrytest is a registry for tests, and ways to break it.
package registrytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A Registry is one in memory in which, unlike in go-containerregistry's, a
// repository has only the blobs that were uploaded or mounted to it, so that
// mounts are real. It takes no manifest that names others.
type Registry struct {
	inner http.Handler

	mu    sync.Mutex
	blobs map[string]map[string]bool // by repository and digest
}

// New returns a registry that keeps its content in inner, an empty one of
// go-containerregistry.
func New(inner http.Handler) *Registry {
	return &Registry{inner: inner, blobs: make(map[string]map[string]bool)}
}

func (s *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	repo, rest, _ := splitPath(r.URL.Path)
	switch Kind(r) {
	case "HEAD blobs", "GET blobs":
		if !s.Has(repo, strings.TrimPrefix(rest, "blobs/")) {
			Deny(w, 404, "BLOB_UNKNOWN")
			return
		}
	case "POST mount":
		if digest := r.URL.Query().Get("mount"); s.Has(r.URL.Query().Get("from"), digest) {
			s.Add(repo, digest)
			w.WriteHeader(http.StatusCreated)
			return
		}
		r.URL.RawQuery = ""
	case "PUT uploads":
		digest := r.URL.Query().Get("digest")
		rec := httptest.NewRecorder()
		s.inner.ServeHTTP(rec, r)
		if rec.Code == http.StatusCreated {
			s.Add(repo, digest)
		}
		maps.Copy(w.Header(), rec.Header())
		w.WriteHeader(rec.Code)
		io.Copy(w, rec.Body) //nolint:errcheck // the client is gone
		return
	case "DELETE uploads":
		w.WriteHeader(http.StatusNoContent)
		return
	case "PUT manifests":
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(raw))
		var m v1.Manifest
		_ = json.Unmarshal(raw, &m) // what is no manifest names no blobs
		for _, d := range append(m.Layers, m.Config) {
			if index := d.Digest == (v1.Hash{}); !index && !s.Has(repo, d.Digest.String()) {
				Deny(w, 400, "MANIFEST_BLOB_UNKNOWN")
				return
			}
		}
	}
	s.inner.ServeHTTP(w, r)
}

// Has says whether a repository has a blob.
func (s *Registry) Has(repo, digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blobs[repo][digest]
}

// Add has a repository have a blob.
func (s *Registry) Add(repo, digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs[repo] == nil {
		s.blobs[repo] = make(map[string]bool)
	}
	s.blobs[repo][digest] = true
}

// Tag is the digest that a tag, REPOSITORY:TAG, stands for, "" if there is none.
func (s *Registry) Tag(ref string) string {
	repo, tag, _ := strings.Cut(ref, ":")
	rec := httptest.NewRecorder()
	s.inner.ServeHTTP(rec, httptest.NewRequest("HEAD", "/v2/"+repo+"/manifests/"+tag, nil))
	if rec.Code != http.StatusOK {
		return ""
	}
	return rec.Header().Get("Docker-Content-Digest")
}

// Kind names a request: "GET manifests", "HEAD blobs", "POST uploads", "POST
// mount", "GET tags", "GET catalog", "GET ping", "GET token".
func Kind(r *http.Request) string {
	_, rest, ok := splitPath(r.URL.Path)
	switch {
	case r.URL.Path == "/v2/_catalog":
		return r.Method + " catalog"
	case !ok:
		return r.Method + " " + map[bool]string{true: "ping", false: "token"}[r.URL.Path == "/v2/"]
	case r.URL.Query().Has("mount"):
		return r.Method + " mount"
	case strings.HasPrefix(rest, "blobs/uploads/"):
		return r.Method + " uploads"
	}
	kind, _, _ := strings.Cut(rest, "/")
	return r.Method + " " + kind
}

// Repository is the one that a request is about, "" if it is about none.
func Repository(r *http.Request) string {
	repo, _, _ := splitPath(r.URL.Path)
	return repo
}

func splitPath(path string) (repo, rest string, ok bool) {
	path = strings.TrimPrefix(path, "/v2/")
	for _, kind := range []string{"/manifests/", "/blobs/", "/tags/", "/referrers/"} {
		if i := strings.Index(path, kind); i >= 0 {
			return path[:i], path[i+1:], true
		}
	}
	return "", "", false
}

// Deny answers as a registry does that does not want to.
func Deny(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"no"}]}`, code)
}
