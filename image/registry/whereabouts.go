package registry

import (
	"context"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// whereabouts remember in which repository of a registry layers are, for other
// repositories to mount them from there: of many images that are pushed, the
// layers that they have in common are uploaded once.
type whereabouts struct {
	mu     sync.Mutex
	layers map[string]*whereabout // by registry and digest
}

// A whereabout is that of a layer, or of one that is being brought there.
type whereabout struct {
	repo name.Repository // the zero value if it is not there yet
	done chan struct{}   // closed when it is, or could not be brought there
}

func whereaboutKey(registry name.Registry, digest v1.Hash) string {
	return registry.RegistryStr() + " " + digest.String()
}

// found notes where a layer is.
func (w *whereabouts) found(repo name.Repository, digest v1.Hash) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.layers == nil {
		w.layers = make(map[string]*whereabout)
	}
	key := whereaboutKey(repo.Registry, digest)
	if w.layers[key] == nil {
		w.layers[key] = &whereabout{repo: repo}
	}
}

// find says where a layer is. If that is not known, the caller is the one that
// brings it there, and others that ask wait: it calls brought with where it is
// then, the zero value if that failed.
func (w *whereabouts) find(ctx context.Context, registry name.Registry, digest v1.Hash) (repo name.Repository, brought func(name.Repository), err error) {
	key := whereaboutKey(registry, digest)
	for {
		w.mu.Lock()
		if w.layers == nil {
			w.layers = make(map[string]*whereabout)
		}
		l := w.layers[key]
		switch {
		case l == nil:
			l = &whereabout{done: make(chan struct{})}
			w.layers[key] = l
			w.mu.Unlock()
			return name.Repository{}, func(repo name.Repository) {
				w.mu.Lock()
				defer w.mu.Unlock()
				if l.repo = repo; repo == (name.Repository{}) {
					delete(w.layers, key)
				}
				close(l.done)
			}, nil
		case l.repo != (name.Repository{}):
			w.mu.Unlock()
			return l.repo, func(name.Repository) {}, nil
		}
		w.mu.Unlock()
		select {
		case <-l.done:
		case <-ctx.Done():
			return name.Repository{}, nil, ctx.Err()
		}
	}
}
