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
	what string // "opening app:1"

	mu   sync.Mutex
	told map[string]bool // causes to wait
}

type subjectKey struct{}

func about(ctx context.Context, what string) context.Context {
	return context.WithValue(ctx, subjectKey{}, &subject{what: what, told: make(map[string]bool)})
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
	s.told[text] = true
	return s.what + ": " + text, first
}

// backoff is the time to wait after a failed attempt, counted from 0, and
// whether there is to be another: 0.5, 1, 2, 4 seconds, give or take a fifth.
func backoff(attempt int) (time.Duration, bool) {
	d := 500 * time.Millisecond << attempt
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64())), attempt+1 < attempts //nolint:gosec // jitter
}

// A retrier repeats requests that failed for a reason that may pass, but those
// of a once context.
type retrier struct {
	inner http.RoundTripper
	wait  waiter
}

type onceKey struct{}

// once returns a context for requests that are to be sent a single time.
func once(ctx context.Context) context.Context {
	return context.WithValue(ctx, onceKey{}, true)
}

func (t *retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	for attempt := 0; ; attempt++ {
		resp, err := t.send(req)
		if ctx.Err() != nil || ctx.Value(onceKey{}) != nil {
			return resp, err
		}
		delay, again := backoff(attempt)
		if !again {
			return resp, err
		}
		cause := err
		if err != nil {
			if permanent(err) {
				return nil, err
			}
		} else {
			if !transient(resp.StatusCode) {
				return resp, nil
			}
			cause = fmt.Errorf("%s answered %s", req.URL.Hostname(), resp.Status)
			if d, ok := retryAfter(resp.Header); ok {
				if delay = d; delay > longestWait {
					return resp, nil
				}
			}
			io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) //nolint:errcheck // for the connection to be used again
			resp.Body.Close()
		}
		if err := t.wait(ctx, delay, cause); err != nil {
			return nil, err
		}
	}
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
