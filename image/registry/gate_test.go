package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// A busy registry has every manifest that it is asked for, if refuse lets it
// answer: it says how many seconds to wait, -1 for not at all.
type busy struct {
	refuse func(host string) (seconds int)

	mu             sync.Mutex
	served, denied int
	waiting        []string // what was said
	limit          http.Header
}

func (b *busy) RoundTrip(req *http.Request) (*http.Response, error) {
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: req}
	if req.URL.Path == "/v2/" {
		return resp, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if seconds := b.refuse(req.URL.Host); seconds >= 0 {
		b.denied++
		resp.StatusCode, resp.Status = http.StatusTooManyRequests, "429 Too Many Requests"
		resp.Header.Set("Retry-After", fmt.Sprint(seconds))
		resp.Body = io.NopCloser(strings.NewReader(`{}`))
		return resp, nil
	}
	b.served++
	for key := range b.limit {
		resp.Header.Set(key, b.limit.Get(key))
	}
	resp.Header.Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
	return resp, nil
}

func (b *busy) client() *Client {
	say := func(format string, args ...any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.waiting = append(b.waiting, fmt.Sprintf(format, args...))
	}
	c := New(Options{
		Transport: b,
		Keychain:  authn.NewMultiKeychain(),
		Waiting:   func(cause string, d time.Duration) { say("%s; next try in %s", cause, d) },
		Notice:    func(text string) { say("%s", text) },
	})
	c.mirrors = func() ([]mirrored, error) { return nil, nil }
	return c
}

// ask asks for the n-th of many images.
func ask(ctx context.Context, c *Client, n int) error {
	r, err := c.ParseReference(fmt.Sprintf("registry.test/app%d:1", n))
	if err == nil {
		_, err = c.Digest(ctx, r)
	}
	return err
}

// askAll asks for n images at the same time.
func askAll(t *testing.T, c *Client, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := ask(t.Context(), c, i); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// openAfter refuses requests until a time after its start.
func openAfter(d time.Duration) func(string) int {
	start := time.Now()
	return func(string) int {
		if left := d - time.Since(start); left > 0 {
			return int(left.Seconds())
		}
		return -1
	}
}

func (b *busy) want(t *testing.T, served, denied int, waiting ...string) {
	t.Helper()
	if b.served != served || b.denied != denied || !slices.Equal(b.waiting, waiting) {
		t.Errorf("%d served, %d denied, said %q; want %d, %d, %q", b.served, b.denied, b.waiting, served, denied, waiting)
	}
}

// Who comes while the host wants to be left alone does not ask.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &busy{refuse: openAfter(10 * time.Second)}
		c := b.client()
		var wg sync.WaitGroup
		for n := range 20 {
			wg.Go(func() {
				if err := ask(t.Context(), c, n); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		b.want(t, 20, 1, "registry.test answered 429 Too Many Requests; next try in 10s")
	})
}

// Of what was under way, the one that has to wait the longest counts, and once is
// enough to say so.
func TestGateInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		open := openAfter(12 * time.Second)
		b := &busy{refuse: func(string) int {
			n++
			return min(open(""), 9+n%3)
		}}
		c := b.client()
		askAll(t, c, 20)
		if b.served != 20 || len(b.waiting) != 1 {
			t.Errorf("%d served, said %q", b.served, b.waiting)
		}
	})
}

// If who waits for all gives up, another one does for the rest of the time.
func TestGateHandedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &busy{refuse: openAfter(10 * time.Second)}
		c := b.client()
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := ask(first, c, 0); err == nil || !strings.HasSuffix(err.Error(), ": interrupted") {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		for n := range 5 {
			wg.Go(func() {
				if err := ask(t.Context(), c, n); err != nil {
					t.Error(err)
				}
			})
		}
		// One that only waits can give up, too.
		limited, stop := context.WithTimeout(t.Context(), 5*time.Second)
		defer stop()
		wg.Go(func() {
			if err := ask(limited, c, 9); err == nil {
				t.Error("it did not give up")
			}
		})
		time.Sleep(3 * time.Second)
		cancel()
		wg.Wait()
		b.want(t, 5, 1, "registry.test answered 429 Too Many Requests; next try in 10s")
	})
}

// As long as others are served, nobody fails.
func TestGateUnlucky(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &busy{}
		var begun time.Time
		n := 0
		b.refuse = func(string) int { // two every five seconds
			if time.Since(begun) >= 5*time.Second {
				begun, n = time.Now(), 0
			}
			if n++; n <= 2 {
				return -1
			}
			return 5
		}
		c := b.client()
		askAll(t, c, 30)
		if b.served != 30 || len(b.waiting) != 1 {
			t.Errorf("%d served, said %q", b.served, b.waiting)
		}
	})
}

func TestGateNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &busy{refuse: func(string) int { return 7 }}
		c := b.client()
		err := ask(t.Context(), c, 1)
		if err == nil || !strings.Contains(err.Error(), "received too many requests") {
			t.Errorf("got %v", err)
		}
		b.want(t, 0, attempts, "registry.test answered 429 Too Many Requests; next try in 7s")
	})
	t.Run("for hours", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := &busy{refuse: func(string) int { return 3600 }}
			c := b.client()
			for n := range 2 {
				if err := ask(t.Context(), c, n); err == nil {
					t.Error("it was served")
				}
			}
			b.want(t, 0, 2)
		})
	})
}

// A gate is that of one host, and is not waited for if another one will do.
func TestGateOfHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := openAfter(10 * time.Second)
		b := &busy{refuse: func(host string) int {
			if host == "registry.test" {
				return open(host)
			}
			return -1
		}}
		c := b.client()
		var served atomic.Bool
		go func() {
			if err := ask(t.Context(), c, 0); err != nil {
				t.Error(err)
			}
			served.Store(true)
		}()
		synctest.Wait()
		for _, ctx := range []context.Context{t.Context(), elsewhere(t.Context())} {
			other, err := name.ParseReference("other.test/app:1")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.digest(ctx, other); err != nil {
				t.Error(err)
			}
		}
		mirror, err := name.ParseReference("registry.test/mirrored/app:1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.digest(elsewhere(t.Context()), mirror); err == nil {
			t.Error("the mirror was asked")
		}
		if served.Load() {
			t.Error("it did not wait")
		}
		// What is sent a single time waits nevertheless.
		if _, err := c.digest(once(t.Context()), mirror); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if !served.Load() {
			t.Error("it was not served in the end")
		}
		b.want(t, 4, 1, "registry.test answered 429 Too Many Requests; next try in 10s")
	})
}

func TestPullsUsedUp(t *testing.T) {
	b := &busy{refuse: func(string) int { return -1 }}
	c := b.client()
	for n, remaining := range []string{"1;w=21600", "0;w=21600", "0;w=21600"} {
		b.limit = http.Header{"Ratelimit-Limit": {"100;w=21600"}, "Ratelimit-Remaining": {remaining}}
		if err := ask(t.Context(), c, n); err != nil {
			t.Error(err)
		}
		b.want(t, n+1, 0, []string{"registry.test: the 100 pulls that it allows in 6h are used up, it will refuse further ones; log in, or as another account, for more"}[:min(n, 1)]...)
	}
	for _, tt := range []struct{ limit, remaining, want string }{
		{"", "0", "host: the pulls that it allows are used up"},
		{"200;w=90", "0;w=90", "host: the 200 pulls that it allows in 1m30s are used up"},
		{"many", "0;x", "host: the many pulls that it allows are used up"},
		{"100;w=21600", "", ""},
		{"100;w=21600", "10", ""},
	} {
		got := new(gate).pullsUsedUp("host", http.Header{"Ratelimit-Limit": {tt.limit}, "Ratelimit-Remaining": {tt.remaining}})
		if !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%q of %q: %q, want %q", tt.remaining, tt.limit, got, tt.want)
		}
	}
}
