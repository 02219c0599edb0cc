// Package otlp is a small OpenTelemetry collector for tests and the demo: it
// receives traces over OTLP/HTTP with protobuf bodies, keeps their spans, and
// prints them as trees.
//
// It follows the OTLP specification, section "OTLP/HTTP", for the traces
// signal only: https://opentelemetry.io/docs/specs/otlp/#otlphttp
package otlp

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// maxBody bounds a request's body after decompression, in bytes.
const maxBody = 64 << 20

// Span is a span with what its resource and scope say about it.
type Span struct {
	Resource   map[string]string // attributes of the resource, values as text
	Scope      string            // name of the instrumentation scope
	Name       string
	Kind       string // as in the protocol, without its prefix: SERVER, CLIENT, INTERNAL, …
	TraceID    string // 32 hexadecimal digits
	ID         string // 16 hexadecimal digits
	ParentID   string // empty for a root
	Start      time.Time
	Duration   time.Duration
	Attributes map[string]string // values as text
}

// Service is the resource's service.name.
func (s Span) Service() string { return s.Resource["service.name"] }

// Receiver is an [http.Handler] that accepts traces at /v1/traces and keeps
// their spans. The zero value is ready to use.
type Receiver struct {
	mu      sync.Mutex
	spans   []Span
	arrived chan struct{} // closed, and replaced, when spans arrive
}

// ServeHTTP takes one export request. Anything but a traces request in
// protobuf is answered with an error, as a collector without that signal or
// encoding does.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path != "/v1/traces" {
		http.NotFound(w, req)
		return
	}
	if req.Method != http.MethodPost {
		http.Error(w, "only POST is allowed", http.StatusMethodNotAllowed)
		return
	}
	if mt, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err != nil || mt != "application/x-protobuf" {
		http.Error(w, "only application/x-protobuf is accepted", http.StatusUnsupportedMediaType)
		return
	}
	traces, err := decode(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.add(traces)
	// An empty ExportTraceServiceResponse: everything was accepted.
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func decode(req *http.Request) (*tracepb.TracesData, error) {
	var body io.Reader = req.Body
	switch enc := req.Header.Get("Content-Encoding"); enc {
	case "", "identity":
	case "gzip":
		zr, err := gzip.NewReader(body)
		if err != nil {
			return nil, fmt.Errorf("decompressing body: %w", err)
		}
		body = zr
	default:
		return nil, fmt.Errorf("decompressing body: unknown encoding %q", enc)
	}
	b, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("reading body: %w", err)
	}
	if len(b) > maxBody {
		return nil, fmt.Errorf("reading body: more than %d bytes", maxBody)
	}
	// TracesData has the wire format of ExportTraceServiceRequest, whose
	// package would link gRPC.
	traces := new(tracepb.TracesData)
	if err := proto.Unmarshal(b, traces); err != nil {
		return nil, fmt.Errorf("decoding body: %w", err)
	}
	return traces, nil
}

func (r *Receiver) add(traces *tracepb.TracesData) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range traces.GetResourceSpans() {
		resource := attributes(rs.GetResource().GetAttributes())
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				start, end := s.GetStartTimeUnixNano(), s.GetEndTimeUnixNano()
				r.spans = append(r.spans, Span{
					Resource:   resource,
					Scope:      ss.GetScope().GetName(),
					Name:       s.GetName(),
					Kind:       strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_"),
					TraceID:    hex.EncodeToString(s.GetTraceId()),
					ID:         hex.EncodeToString(s.GetSpanId()),
					ParentID:   hex.EncodeToString(s.GetParentSpanId()),
					Start:      time.Unix(0, int64(start)),
					Duration:   time.Duration(end - start),
					Attributes: attributes(s.GetAttributes()),
				})
			}
		}
	}
	if r.arrived != nil {
		close(r.arrived)
		r.arrived = nil
	}
}

func attributes(kvs []*commonpb.KeyValue) map[string]string {
	m := make(map[string]string, len(kvs))
	for _, kv := range kvs {
		m[kv.GetKey()] = text(kv.GetValue())
	}
	return m
}

func text(v *commonpb.AnyValue) string {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_BoolValue:
		return fmt.Sprint(v.BoolValue)
	case *commonpb.AnyValue_IntValue:
		return fmt.Sprint(v.IntValue)
	case *commonpb.AnyValue_DoubleValue:
		return fmt.Sprint(v.DoubleValue)
	case *commonpb.AnyValue_BytesValue:
		return hex.EncodeToString(v.BytesValue)
	case *commonpb.AnyValue_ArrayValue:
		var parts []string
		for _, e := range v.ArrayValue.GetValues() {
			parts = append(parts, text(e))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case *commonpb.AnyValue_KvlistValue:
		return fmt.Sprint(attributes(v.KvlistValue.GetValues()))
	}
	return ""
}

// Spans returns all spans received so far, in the order of their arrival.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

// Wait returns the received spans that match as soon as there are n of them.
// If ctx ends before that, the error tells how many there are, and which
// scopes and services the spans came from that did not match.
func (r *Receiver) Wait(ctx context.Context, n int, match func(Span) bool) ([]Span, error) {
	for {
		r.mu.Lock()
		var found []Span
		var others []string
		for _, s := range r.spans {
			if match(s) {
				found = append(found, s)
			} else {
				others = append(others, fmt.Sprintf("%s of %s", s.Scope, s.Service()))
			}
		}
		if r.arrived == nil {
			r.arrived = make(chan struct{})
		}
		arrived := r.arrived
		r.mu.Unlock()
		if len(found) >= n {
			return found, nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			slices.Sort(others)
			return found, fmt.Errorf("waiting for %d spans: got %d, and others from [%s]: %w",
				n, len(found), strings.Join(slices.Compact(others), ", "), ctx.Err())
		}
	}
}

// shown lists the attributes that WriteTree prints, in the names of the old
// and the current semantic conventions.
var shown = []string{
	"http.request.method", "http.method",
	"url.full", "http.url", "url.path", "http.target", "http.route",
	"http.response.status_code", "http.status_code",
	"db.system.name", "db.system", "db.query.text", "db.statement",
	"peer.service", "error.type",
}

// WriteTree prints spans as one tree per trace, oldest first, each span on a
// line with its service, scope, kind, duration and most telling attributes. A
// span whose parent is not among spans is printed as a root.
func WriteTree(w io.Writer, spans []Span) error {
	spans = slices.Clone(spans)
	slices.SortStableFunc(spans, func(a, b Span) int { return a.Start.Compare(b.Start) })
	type key struct{ trace, span string }
	known := make(map[key]bool)
	for _, s := range spans {
		known[key{s.TraceID, s.ID}] = true
	}
	var roots []Span
	children := make(map[key][]Span)
	for _, s := range spans {
		parent := key{s.TraceID, s.ParentID}
		if s.ParentID != s.ID && known[parent] {
			children[parent] = append(children[parent], s)
		} else {
			roots = append(roots, s)
		}
	}
	// Roots of one trace stay together, in the order of the traces' starts.
	first := make(map[string]int)
	for i, s := range roots {
		if _, ok := first[s.TraceID]; !ok {
			first[s.TraceID] = i
		}
	}
	slices.SortStableFunc(roots, func(a, b Span) int { return cmp.Compare(first[a.TraceID], first[b.TraceID]) })

	var b strings.Builder
	var write func(s Span, indent string)
	write = func(s Span, indent string) {
		fmt.Fprintf(&b, "%s%s  %s  %s  %s  %.1fms", indent, s.Name, s.Kind, s.Service(), s.Scope, float64(s.Duration)/float64(time.Millisecond))
		for _, k := range shown {
			if v, ok := s.Attributes[k]; ok {
				fmt.Fprintf(&b, "  %s=%s", k, strings.Join(strings.Fields(v), " "))
			}
		}
		b.WriteByte('\n')
		for _, c := range children[key{s.TraceID, s.ID}] {
			write(c, indent+"  ")
		}
	}
	trace := ""
	for _, s := range roots {
		if s.TraceID != trace {
			trace = s.TraceID
			fmt.Fprintf(&b, "trace %s\n", trace)
		}
		write(s, "  ")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
