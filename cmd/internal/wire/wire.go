// Package wire counts what passes between a client and a registry.
package wire

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Counter is an [http.RoundTripper] that counts the requests to a registry
// which it hands on, as the transport of a client or of a proxy. It may be used
// by several goroutines.
type Counter struct {
	Transport http.RoundTripper

	mu        sync.Mutex
	exchanges []*exchange
	configs   map[string]bool // digests that manifests name as their configs
}

// Traffic is what a Counter has seen.
type Traffic struct {
	// Kinds are the requests by kind: "GET manifest", "GET config", "GET layer",
	// "HEAD layer", "POST upload", "POST mount", "PUT layer", "PUT manifest". An
	// index is a manifest too, and "GET /v2/" is the question how to authenticate.
	Kinds map[string]Count
	// Layers are the requests for layers, "GET layer", by digest.
	Layers map[string]Count
	// Rounds are the most exchanges of which each began when the one before it had
	// ended: how often a client waits for the registry.
	Rounds int
}

// Count is a number of requests and the bytes of their and their answers' bodies.
type Count struct {
	Requests       int
	Sent, Received int64
}

// Total is the count of all kinds.
func (t Traffic) Total() (total Count) {
	for _, c := range t.Kinds {
		total.Requests += c.Requests
		total.Sent += c.Sent
		total.Received += c.Received
	}
	return total
}

// Take returns what was counted since it was called last. No exchange may be
// under way.
func (c *Counter) Take() Traffic {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := Traffic{Kinds: map[string]Count{}, Layers: map[string]Count{}}
	slices.SortFunc(c.exchanges, func(a, b *exchange) int { return a.ended.Compare(b.ended) })
	var last time.Time
	for _, e := range c.exchanges {
		kind := e.kind
		if kind == blob {
			kind = "layer"
			if c.configs[e.digest] {
				kind = "config"
			}
		}
		e.addTo(t.Kinds, e.method+" "+kind)
		if e.method == http.MethodGet && kind == "layer" {
			e.addTo(t.Layers, e.digest)
		}
		if !e.began.Before(last) {
			t.Rounds++
			last = e.ended
		}
	}
	c.exchanges = nil
	return t
}

// RoundTrip implements [http.RoundTripper].
func (c *Counter) RoundTrip(req *http.Request) (*http.Response, error) {
	e := newExchange(req)
	if req.Body != nil && req.Body != http.NoBody {
		req = req.Clone(req.Context())
		req.Body = &body{ReadCloser: req.Body, counter: c, exchange: e, count: &e.sent}
	}
	resp, err := c.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e.ended = time.Now()
	c.exchanges = append(c.exchanges, e)
	if req.Method != http.MethodHead { // without an answer's body, a proxy need not read it
		resp.Body = &body{ReadCloser: resp.Body, counter: c, exchange: e, count: &e.received}
	}
	return resp, nil
}

// exchange is a request with its answer.
type exchange struct {
	method, kind   string
	digest         string // of a blob
	began, ended   time.Time
	sent, received int64
}

func (e *exchange) addTo(counts map[string]Count, key string) {
	c := counts[key]
	c.Requests++
	c.Sent += e.sent
	c.Received += e.received
	counts[key] = c
}

const (
	manifest = "manifest"
	blob     = "blob" // a config or a layer
)

func newExchange(req *http.Request) *exchange {
	e := &exchange{method: req.Method, kind: req.URL.Path, began: time.Now()}
	query := req.URL.Query()
	parts := strings.Split(req.URL.Path, "/")
	if len(parts) < 3 {
		return e
	}
	id := parts[len(parts)-1]
	switch kind := parts[len(parts)-2]; {
	case kind == "uploads" && query.Has("mount"):
		e.kind = "mount"
	case kind == "uploads" && query.Has("digest"):
		e.kind, e.digest = blob, query.Get("digest")
	case kind == "uploads":
		e.kind = "upload"
	case kind == "blobs":
		e.kind, e.digest = blob, id
	case kind == "manifests":
		e.kind = manifest
	case kind == "referrers":
		e.kind = "referrers"
	}
	return e
}

// body counts what is read of the body of a request or an answer.
type body struct {
	io.ReadCloser
	counter  *Counter
	exchange *exchange
	count    *int64
	document bytes.Buffer // a manifest
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.counter.mu.Lock()
	defer b.counter.mu.Unlock()
	*b.count += int64(n)
	b.exchange.ended = time.Now()
	if b.exchange.kind == manifest {
		b.document.Write(p[:n])
		if err == io.EOF {
			b.counter.noteConfig(b.document.Bytes())
		}
	}
	return n, err
}

// noteConfig remembers which blob is a config.
func (c *Counter) noteConfig(document []byte) {
	var m struct {
		Config struct{ Digest string }
	}
	if json.Unmarshal(document, &m) == nil && m.Config.Digest != "" {
		if c.configs == nil {
			c.configs = map[string]bool{}
		}
		c.configs[m.Config.Digest] = true
	}
}
