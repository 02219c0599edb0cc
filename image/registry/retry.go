package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	attempts = 5
	// longestPatience is how often a request is sent to a host that makes it wait,
	// but answers others meanwhile.
	longestPatience = 20
	// longestWait is how long a registry can make us wait before the next
	// attempt. Docker Hub's pull quota, for one, is a matter of hours.
	longestWait = time.Minute
)

// A waiter waits because of an error for a duration, or less if the context ends.
type waiter func(ctx context.Context, d time.Duration, cause error) error

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A subject is what a context's requests are made for.
type subject struct {
	what string // "opening app:1", "" if it is none in particular

	mu   sync.Mutex
	told map[string]bool // causes to wait
}

type subjectKey struct{}

func about(ctx context.Context, what string) context.Context {
	return context.WithValue(ctx, subjectKey{}, &subject{what: what})
}

// localPort is the part of a network error that differs from one connection to
// the next.
var localPort = regexp.MustCompile(`:\d+->`)

// news says in a line what went wrong with a context's subject, and whether this
// is the first time that it did.
func news(ctx context.Context, cause error) (text string, first bool) {
	text = localPort.ReplaceAllString(redact(cause), "->")
	s, ok := ctx.Value(subjectKey{}).(*subject)
	if !ok {
		return text, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	first = !s.told[text]
	if s.told == nil {
		s.told = make(map[string]bool)
	}
	s.told[text] = true
	if s.what == "" {
		return text, first
	}
	return s.what + ": " + text, first
}

// backoff is the time to wait after a failed attempt, counted from 0, and
// whether there is to be another: 0.5, 1, 2, 4 seconds, give or take a fifth.
func backoff(attempt int) (time.Duration, bool) {
	d := 500 * time.Millisecond << attempt
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64())), attempt+1 < attempts //nolint:gosec // jitter
}

// A retrier repeats requests that failed for a reason that may pass. Those of a
// once context it repeats only if their host wants them to wait.
type retrier struct {
	inner  http.RoundTripper
	wait   waiter
	notice func(text string) // may be nil

	gates sync.Map // *gate by host
}

type (
	onceKey      struct{}
	elsewhereKey struct{}
)

// once returns a context for requests that are to be sent a single time.
func once(ctx context.Context) context.Context {
	return context.WithValue(ctx, onceKey{}, true)
}

// elsewhere returns a once context for requests for what can be had at another
// host, too: they do not wait.
func elsewhere(ctx context.Context) context.Context {
	return context.WithValue(once(ctx), elsewhereKey{}, true)
}

func (t *retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	kept, _ := t.gates.LoadOrStore(req.URL.Host, new(gate))
	g := kept.(*gate)
	answered := 0
	for attempt, sent := 0, 1; ; attempt, sent = attempt+1, sent+1 {
		if err := g.pass(ctx, t.wait); err != nil {
			if req.Body != nil {
				req.Body.Close()
			}
			return nil, err
		}
		resp, err := t.send(req)
		if ctx.Err() != nil {
			return resp, err
		}
		wait, busy := time.Duration(0), false
		if err == nil {
			wait, busy = busyFor(resp)
			if text := g.pullsUsedUp(req.URL.Hostname(), resp.Header); text != "" && t.notice != nil {
				t.notice(text)
			}
		}
		if err == nil && !transient(resp.StatusCode) {
			g.answers(1)
			return resp, nil
		}
		if !busy && ctx.Value(onceKey{}) != nil || busy && ctx.Value(elsewhereKey{}) != nil {
			return resp, err
		}
		delay, again := backoff(attempt)
		switch {
		case busy:
			if now := g.answers(0); now != answered && sent < longestPatience {
				answered, again, attempt = now, true, 0 // others had more luck
			}
			if !again || wait > longestWait {
				return resp, nil
			}
			drain(resp)
			g.close(wait, answerOf(req, resp))
			continue
		case err != nil && permanent(err):
			return nil, err
		case !again:
			return resp, err
		}
		cause := err
		if err == nil {
			cause = answerOf(req, resp)
			drain(resp)
		}
		if err := t.wait(ctx, delay, cause); err != nil {
			return nil, err
		}
	}
}

func answerOf(req *http.Request, resp *http.Response) error {
	return fmt.Errorf("%s answered %s", req.URL.Hostname(), resp.Status)
}

// drain has the connection be used again.
func drain(resp *http.Response) {
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) //nolint:errcheck // it is of no other use
	resp.Body.Close()
}

// send sends a request, with a new body each time: go-containerregistry's bearer
// transport, too, sends a request again, after its token has expired, and does
// not mind that the body is used up.
func (t *retrier) send(req *http.Request) (*http.Response, error) {
	if req.GetBody != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		req = req.Clone(req.Context())
		req.Body = body
	}
	return t.inner.RoundTrip(req)
}

func transient(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
		499, 522: // nginx and Cloudflare: the connection to the server behind it was lost
		return true
	}
	return false
}

// permanent says of a failed request that it would fail again.
func permanent(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, http.ErrSchemeMismatch) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) {
		return true
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return !dns.IsTemporary && !dns.IsTimeout
	}
	// net/http's client makes http.ErrSchemeMismatch of this one.
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*privateError](err); ok {
		return true
	}
	_, alert := errors.AsType[tls.AlertError](err)
	return alert || certificateError(err) != nil
}

// certificateError is what err says is wrong with a certificate, nil if it does
// not.
func certificateError(err error) error {
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return e
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return e
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return e
	}
	return nil
}

// busyFor is the time that a response asks to wait, if it is that of a host that
// has too much to do.
func busyFor(resp *http.Response) (time.Duration, bool) {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return 0, false
	}
	return retryAfter(resp.Header)
}

// retryAfter is the time a response asks to wait (RFC 9110, section 10.2.3).
func retryAfter(h http.Header) (time.Duration, bool) {
	s := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, time.Until(t)), true
	}
	return 0, false
}
