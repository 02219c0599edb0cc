package main

import (
	"bytes"
	"net/http/httptest"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

func TestSinkCountsSpans(t *testing.T) {
	scope := func(n int) *tracepb.ScopeSpans {
		s := &tracepb.ScopeSpans{SchemaUrl: "https://example.com/"}
		for range n {
			s.Spans = append(s.Spans, &tracepb.Span{Name: "GET /", TraceId: []byte{1, 2}, Events: []*tracepb.Span_Event{{Name: "e"}, {}}})
		}
		return s
	}
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{
		{ScopeSpans: []*tracepb.ScopeSpans{scope(3), scope(0)}},
		{},
		{ScopeSpans: []*tracepb.ScopeSpans{scope(4)}, SchemaUrl: "https://example.com/"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		body   []byte
		status int
		spans  int
	}{
		{body, 200, 7},
		{nil, 200, 0},
		{body[:len(body)-1], 400, 0},
	} {
		s := new(sink)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("POST", "/shop/v1/traces", bytes.NewReader(tc.body)))
		if n := s.received("/shop"); w.Code != tc.status || n != tc.spans {
			t.Errorf("%d bytes: status %d, %d spans; want %d, %d", len(tc.body), w.Code, n, tc.status, tc.spans)
		}
	}
}

func TestTable(t *testing.T) {
	tab := table{header: []string{"image", "CPU, ms", "of source"}}
	tab.add("source", millis(median([]float64{0.3, 0.1, 0.2})), ratio(1, 1))
	tab.add("wrapped", millis(median([]float64{0.4, 0.3})), ratio(3, 2))
	var b strings.Builder
	if err := tab.write(&b, "Start"); err != nil {
		t.Fatal(err)
	}
	want := `
Start

| image | CPU, ms | of source |
|---|---:|---:|
| source | 200 | 1.00 |
| wrapped | 300 | 1.50 |
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}
