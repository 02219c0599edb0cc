package registrytest

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"time"
)

// A Fault answers a request in place of the registry behind it, or lets that
// answer and spoils it.
type Fault func(w http.ResponseWriter, r *http.Request, registry http.Handler)

// A Proxy passes requests on to a registry and breaks some.
type Proxy struct {
	Registry http.Handler

	mu     sync.Mutex
	breaks func(*http.Request) bool
	fault  Fault
	times  int
	broken int
}

// Break breaks the next so many requests of which match holds, in place of any
// others that were to be broken: none, if times is 0.
func (p *Proxy) Break(fault Fault, times int, match func(*http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.times, p.breaks, p.broken = fault, times, match, 0
}

// Broken is how many requests were broken since Break was called last.
func (p *Proxy) Broken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken
}

// ServeHTTP implements [http.Handler].
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	fault := p.fault
	broken := fault != nil && p.times > p.broken && p.breaks(r)
	if broken {
		p.broken++
	}
	p.mu.Unlock()
	if broken {
		fault(w, r, p.Registry)
		return
	}
	p.Registry.ServeHTTP(w, r)
}

// Answer answers with a status, an error code if it is not "", and headers, name
// and value in turn.
func Answer(status int, code string, headers ...string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		if code == "" {
			w.WriteHeader(status)
			return
		}
		Deny(w, status, code)
	}
}

// CutRequest breaks the connection when so many bytes of a request's body have
// arrived.
func CutRequest(n int64) Fault {
	return func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		io.CopyN(io.Discard, r.Body, n) //nolint:errcheck // it may be shorter
		panic(http.ErrAbortHandler)
	}
}

// CutAnswer breaks the connection after so many bytes of the body of the
// registry's answer.
func CutAnswer(n int) Fault {
	return spoil(func(w http.ResponseWriter, _ *http.Request, body []byte) {
		w.Write(body[:min(n, len(body))]) //nolint:errcheck // the client is gone
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
}

// LoseAnswer has the registry do what it is asked for, and breaks the connection
// before it says so.
func LoseAnswer(w http.ResponseWriter, r *http.Request, registry http.Handler) {
	registry.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

// Alter changes the bytes of what the registry answers, but not their number.
var Alter = spoil(func(w http.ResponseWriter, _ *http.Request, body []byte) {
	w.Write(bytes.Repeat([]byte{' '}, len(body))) //nolint:errcheck // the client is gone
})

// Shorten answers with half of what the registry does, and says so.
var Shorten = spoil(func(w http.ResponseWriter, _ *http.Request, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)/2))
	w.Write(body[:len(body)/2]) //nolint:errcheck // the client is gone
})

// Lengthen answers with more than the registry does, of a length that it does not
// say before.
var Lengthen = spoil(func(w http.ResponseWriter, _ *http.Request, body []byte) {
	w.Header().Del("Content-Length")
	w.(http.Flusher).Flush()
	w.Write(append(body, "more"...)) //nolint:errcheck // the client is gone
})

// Drip answers as the registry does, a piece every minute.
var Drip = spoil(func(w http.ResponseWriter, r *http.Request, body []byte) {
	for size := max(len(body)/5, 1); len(body) > 0 && r.Context().Err() == nil; {
		n := min(size, len(body))
		w.Write(body[:n]) //nolint:errcheck // the client is gone
		w.(http.Flusher).Flush()
		body = body[n:]
		time.Sleep(time.Minute)
	}
})

// spoil is a fault of the answer that the registry gives.
func spoil(write func(w http.ResponseWriter, r *http.Request, body []byte)) Fault {
	return func(w http.ResponseWriter, r *http.Request, registry http.Handler) {
		rec := httptest.NewRecorder()
		registry.ServeHTTP(rec, r)
		for name, values := range rec.Header() {
			w.Header()[name] = values
		}
		if r.Method != http.MethodHead {
			w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
		}
		if rec.Code != http.StatusOK {
			w.WriteHeader(rec.Code)
		}
		write(w, r, rec.Body.Bytes())
	}
}
