package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

// sink is an [http.Handler] that takes traces over OTLP/HTTP below any path and
// counts their spans without decoding them, as it runs on the machine that is
// measured. It is also the service that the application asks.
type sink struct {
	mu    sync.Mutex
	spans map[string]int // by the path below which they arrived
}

// received returns how many spans have arrived below a path.
func (s *sink) received(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spans[path]
}

func (s *sink) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/stock" {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, `{"chair": 4, "lamp": 11}`)
		return
	}
	path, ok := strings.CutSuffix(req.URL.Path, "/v1/traces")
	if !ok {
		http.NotFound(w, req)
		return
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	// TracesData.resource_spans, ResourceSpans.scope_spans, ScopeSpans.spans
	n, err := count(body, 1, 2, 2)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spans == nil {
		s.spans = map[string]int{}
	}
	s.spans[path] += n
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// count returns how many fields of an encoded message are reached by a path of
// field numbers, all of them messages.
func count(message []byte, path ...protowire.Number) (int, error) {
	if len(path) == 0 {
		return 1, nil
	}
	total := 0
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		message = message[n:]
		n = protowire.ConsumeFieldValue(number, kind, message)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		if number == path[0] && kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(message)
			below, err := count(value, path[1:]...)
			if err != nil {
				return 0, err
			}
			total += below
		}
		message = message[n:]
	}
	return total, nil
}
