package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A gate holds back all requests to a host that wants to be left alone for a
// while, instead of each finding that out by itself.
type gate struct {
	mu       sync.Mutex
	until    time.Time     // zero if the gate is open
	cause    error         // of being closed
	waiting  chan struct{} // closed when who waits for all has done so; nil if nobody does
	answered int           // how many requests the host did not refuse like that
	subject  subject       // what was said already
	usedUp   bool          // the limit on pulls, as was said
}

var errBusy = errors.New("its host wants to be left alone for a while")

// pass waits until the gate is open. One of those that wait does so for all, and
// if its context ends, another one for the rest of the time.
func (g *gate) pass(ctx context.Context, wait waiter) error {
	for {
		g.mu.Lock()
		if g.until.IsZero() {
			g.mu.Unlock()
			return nil
		}
		if ctx.Value(elsewhereKey{}) != nil {
			g.mu.Unlock()
			return errBusy
		}
		if others := g.waiting; others != nil {
			g.mu.Unlock()
			select {
			case <-others:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		done := make(chan struct{})
		g.waiting = done
		until, cause := g.until, g.cause
		g.mu.Unlock()

		err := wait(context.WithValue(ctx, subjectKey{}, &g.subject), max(0, time.Until(until)), cause)
		g.mu.Lock()
		if err == nil && g.until.Equal(until) { // or else it was closed for longer
			g.until = time.Time{}
		}
		g.waiting = nil
		close(done)
		g.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// close closes the gate for a duration.
func (g *gate) close(d time.Duration, cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if until := time.Now().Add(d); until.After(g.until) {
		g.until, g.cause = until, cause
	}
}

// answers is how many requests the host answered otherwise than by asking to
// wait, with more that it answered just now.
func (g *gate) answers(more int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answered += more
	return g.answered
}

// pullsUsedUp says in a line that the pulls that Docker Hub allows in some time are
// used up, if a response says so for the first time. Requests for manifests are
// what counts as pulls (docs.docker.com/docker-hub/usage/pulls).
func (g *gate) pullsUsedUp(host string, h http.Header) string {
	remaining, window := rateLimit(h.Get("RateLimit-Remaining"))
	if remaining != "0" {
		return ""
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.usedUp {
		return ""
	}
	g.usedUp = true
	pulls := "the pulls that it allows"
	if limit, _ := rateLimit(h.Get("RateLimit-Limit")); limit != "" {
		pulls = "the " + limit + " pulls that it allows"
	}
	if window > 0 {
		pulls += " in " + strings.NewReplacer("h0m0s", "h", "m0s", "m").Replace(window.String())
	}
	return fmt.Sprintf("%s: %s are used up, it will refuse further ones; log in, or as another account, for more", host, line(pulls))
}

// rateLimit reads "100;w=21600": a number in so many seconds.
func rateLimit(s string) (number string, window time.Duration) {
	number, parameter, _ := strings.Cut(s, ";")
	if seconds, err := strconv.ParseUint(strings.TrimPrefix(parameter, "w="), 10, 31); err == nil {
		window = time.Duration(seconds) * time.Second
	}
	return number, window
}
