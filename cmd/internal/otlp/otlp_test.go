package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

func str(k, v string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: k, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: v}}}
}

func num(k string, v int64) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: k, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: v}}}
}

// request is an export of three spans: a server span, a client span below it,
// and a span whose parent is not part of the request.
func request(t *testing.T) []byte {
	t.Helper()
	id := func(b byte) []byte { return bytes.Repeat([]byte{b}, 8) }
	trace := func(b byte) []byte { return bytes.Repeat([]byte{b}, 16) }
	b, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{str("service.name", "shop")}},
		ScopeSpans: []*tracepb.ScopeSpans{{
			Scope: &commonpb.InstrumentationScope{Name: "opentelemetry.instrumentation.requests"},
			Spans: []*tracepb.Span{{
				TraceId: trace(1), SpanId: id(2), ParentSpanId: id(1), Name: "GET", Kind: tracepb.Span_SPAN_KIND_CLIENT,
				StartTimeUnixNano: 2_000_000, EndTimeUnixNano: 3_500_000,
				Attributes: []*commonpb.KeyValue{str("http.url", "http://stock/"), num("http.status_code", 200)},
			}},
		}, {
			Scope: &commonpb.InstrumentationScope{Name: "opentelemetry.instrumentation.flask"},
			Spans: []*tracepb.Span{{
				TraceId: trace(1), SpanId: id(1), Name: "GET /", Kind: tracepb.Span_SPAN_KIND_SERVER,
				StartTimeUnixNano: 1_000_000, EndTimeUnixNano: 5_000_000,
				Attributes: []*commonpb.KeyValue{str("http.route", "/")},
			}, {
				TraceId: trace(2), SpanId: id(3), ParentSpanId: id(9), Name: "GET /late", Kind: tracepb.Span_SPAN_KIND_SERVER,
				StartTimeUnixNano: 1_500_000, EndTimeUnixNano: 1_600_000,
			}},
		}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func post(h http.Handler, path, encoding, contentType string, body []byte) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Content-Encoding", encoding)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	if _, err := zw.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestReceive(t *testing.T) {
	body := request(t)
	for _, tc := range []struct {
		name, path, encoding, contentType string
		body                              []byte
		status, spans                     int
	}{
		{"plain", "/v1/traces", "", "application/x-protobuf", body, 200, 3},
		{"gzip", "/v1/traces", "gzip", "application/x-protobuf", gzipped(t, body), 200, 3},
		{"empty", "/v1/traces", "", "application/x-protobuf", nil, 200, 0},
		{"json", "/v1/traces", "", "application/json", []byte("{}"), 415, 0},
		{"other signal", "/v1/metrics", "", "application/x-protobuf", nil, 404, 0},
		{"not gzip", "/v1/traces", "gzip", "application/x-protobuf", body, 400, 0},
		{"unknown encoding", "/v1/traces", "br", "application/x-protobuf", body, 400, 0},
		{"not protobuf", "/v1/traces", "", "application/x-protobuf", []byte("\xff\xff"), 400, 0},
		{"too large", "/v1/traces", "gzip", "application/x-protobuf", gzipped(t, make([]byte, maxBody+1)), 400, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var r Receiver
			w := post(&r, tc.path, tc.encoding, tc.contentType, tc.body)
			if w.Code != tc.status {
				t.Errorf("status = %d, want %d (%s)", w.Code, tc.status, w.Body)
			}
			if got := len(r.Spans()); got != tc.spans {
				t.Errorf("spans = %d, want %d", got, tc.spans)
			}
		})
	}
}

func TestGetIsRefused(t *testing.T) {
	w := httptest.NewRecorder()
	new(Receiver).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/traces", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("status = %d, want %d", w.Code, http.StatusMethodNotAllowed)
	}
}

func TestSpan(t *testing.T) {
	var r Receiver
	post(&r, "/v1/traces", "", "application/x-protobuf", request(t))
	s := r.Spans()[0]
	for _, tc := range []struct{ field, got, want string }{
		{"Service", s.Service(), "shop"},
		{"Scope", s.Scope, "opentelemetry.instrumentation.requests"},
		{"Name", s.Name, "GET"},
		{"Kind", s.Kind, "CLIENT"},
		{"TraceID", s.TraceID, strings.Repeat("01", 16)},
		{"ID", s.ID, strings.Repeat("02", 8)},
		{"ParentID", s.ParentID, strings.Repeat("01", 8)},
		{"Duration", s.Duration.String(), "1.5ms"},
		{"http.status_code", s.Attributes["http.status_code"], "200"},
	} {
		if tc.got != tc.want {
			t.Errorf("%s = %q, want %q", tc.field, tc.got, tc.want)
		}
	}
}

func TestWait(t *testing.T) {
	var r Receiver
	flask := func(s Span) bool { return strings.HasSuffix(s.Scope, ".flask") }
	body := request(t)
	done := make(chan error)
	go func() {
		spans, err := r.Wait(t.Context(), 4, flask)
		if err == nil && len(spans) != 4 {
			err = io.ErrShortBuffer
		}
		done <- err
	}()
	post(&r, "/v1/traces", "", "application/x-protobuf", body)
	post(&r, "/v1/traces", "", "application/x-protobuf", body)
	if err := <-done; err != nil {
		t.Error(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	spans, err := r.Wait(ctx, 5, flask)
	if err == nil || len(spans) != 4 {
		t.Fatalf("Wait(5) = %d spans, %v; want 4 and an error", len(spans), err)
	}
	if want := "got 4, and others from [opentelemetry.instrumentation.requests of shop]"; !strings.Contains(err.Error(), want) {
		t.Errorf("error %q does not say %q", err, want)
	}
}

func TestWriteTree(t *testing.T) {
	var r Receiver
	post(&r, "/v1/traces", "", "application/x-protobuf", request(t))
	var b strings.Builder
	if err := WriteTree(&b, r.Spans()); err != nil {
		t.Fatal(err)
	}
	want := `trace 01010101010101010101010101010101
  GET /  SERVER  shop  opentelemetry.instrumentation.flask  4.0ms  http.route=/
    GET  CLIENT  shop  opentelemetry.instrumentation.requests  1.5ms  http.url=http://stock/  http.status_code=200
trace 02020202020202020202020202020202
  GET /late  SERVER  shop  opentelemetry.instrumentation.flask  0.1ms
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}
