package registry

import (
	"context"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// gatherings are the pushes that go to the same repository at the same time, by
// repository. What several of them bring there, one does. Registries that keep
// their records in files (docker-registry) write the record of a blob anew when
// it is brought again, and for a moment do not find it.
type gatherings struct {
	mu sync.Mutex
	m  map[name.Repository]*gathering
}

// A gathering is that of one repository, as long as something is pushed there.
type gathering struct {
	pushes int

	mu   sync.Mutex
	news map[v1.Hash]chan bool // has whether it was brought, unless somebody is about to
}

// join returns the gathering of a repository. The caller calls leave at the end
// of its push.
func (g *gatherings) join(repo name.Repository) (joined *gathering, leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.m == nil {
		g.m = make(map[name.Repository]*gathering)
	}
	joined = g.m[repo]
	if joined == nil {
		joined = &gathering{news: make(map[v1.Hash]chan bool)}
		g.m[repo] = joined
	}
	joined.pushes++
	return joined, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if joined.pushes--; joined.pushes == 0 {
			delete(g.m, repo)
		}
	}
}

// bring calls do, unless another push has brought the same since this one began.
// While another one is about to, it waits.
func (g *gathering) bring(ctx context.Context, digest v1.Hash, do func() error) (before bool, err error) {
	g.mu.Lock()
	turn := g.news[digest]
	if turn == nil {
		turn = make(chan bool, 1)
		turn <- false
		g.news[digest] = turn
	}
	g.mu.Unlock()
	select {
	case before = <-turn:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if !before {
		err = do()
	}
	turn <- err == nil
	return before, err
}
