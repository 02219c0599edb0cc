package scan

import (
	"context"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// reading is what is being read for a cache.
type reading struct {
	mu     sync.Mutex
	slots  chan struct{}
	layers map[v1.Hash]*underWay
}

// An underWay is a layer that is being read. It is forgotten when it was.
type underWay struct {
	done  chan struct{} // closed when it was read or could not be
	layer *Layer        // nil if it could not be
}

// Read returns the index of the layer whose blob has this digest: the one that
// the cache has, or that read returns, which puts it there. A layer that is asked
// for several times at once is read once: if that fails or is given up, one of
// those that wait reads it instead. No more than so many layers are read at the
// same time. A nil Cache has each read for itself.
func (c *Cache) Read(ctx context.Context, digest v1.Hash, atOnce int, read func() (*Layer, error)) (*Layer, error) {
	if c == nil {
		return read()
	}
	r := &c.reading
	for {
		r.mu.Lock()
		other := r.layers[digest]
		if other == nil {
			break
		}
		r.mu.Unlock()
		select {
		case <-other.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if other.layer != nil {
			return other.layer, nil
		}
	}
	if r.layers == nil {
		r.layers = make(map[v1.Hash]*underWay)
		r.slots = make(chan struct{}, max(atOnce, 1))
	}
	own := &underWay{done: make(chan struct{})}
	r.layers[digest] = own
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.layers, digest)
		close(own.done)
	}()

	// It may have been read since the caller looked.
	if l, ok := c.Get(digest); ok {
		own.layer = l
		return l, nil
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l, err := read()
	own.layer = l
	return l, err
}
