package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/imgwrap/imgwrap/cmd/internal/wire"
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

func TestData(t *testing.T) {
	const size = 2_000_000
	write := func(seed uint64) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if err := errors.Join(writeData(z, seed, size), z.Close()); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	one := write(1)
	if n := len(one); n < size*9/10 || n > size*11/10 {
		t.Errorf("%d bytes, want about %d", n, size)
	}
	if write(1) != one {
		t.Error("not the same again")
	}
	if write(2) == one {
		t.Error("the same layer twice")
	}
}

func TestGoals(t *testing.T) {
	costs := map[string]cost{
		first: {Wall: 2, CPU: 4, Memory: 30}, known: {Wall: 1, CPU: 3, Memory: 20}, again: {Wall: 0.1, CPU: 0.1}, other: {Wall: 0.2, CPU: 0.1},
		changed: {Wall: 0.4, CPU: 0.2}, exported: {Wall: 4, CPU: 6}, installed: {Wall: 50, CPU: 40, Memory: 70},
	}
	traffic := map[string]wire.Traffic{other: {Rounds: 5, Kinds: map[string]wire.Count{"PUT layer": {Requests: 1, Sent: 1500}}}}
	var b strings.Builder
	if err := writeGoals(&b, costs, traffic); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"| image seen before, to `crane append`, `crane mutate` | ≤ 1.00 | 0.50 | 0.50 |",
		"| image never seen, to `crane export`, `tar -t` | ≤ 0.30 | 0.25 | 0.50 |",
		"| pip, to image seen before | ≥ 100 | 250.00 | 400.00 |",
		"| peak memory of imgwrap, MiB | ≤ 64 | 30 |",
		"| image seen before: sent, kB | ≤ 20 | 1.5 |",
		"| image seen before: layers read | 0 | 0 |",
	} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("no line\n%s in\n%s", line, b.String())
		}
	}
}

func TestBulkTables(t *testing.T) {
	b := &imagesBench{imgwrap: "imgwrap", cache: "/cache", workers: 4}
	costs := map[string][]cost{}
	for _, w := range b.bulkWays() {
		costs[w.name] = []cost{{Wall: 10, CPU: 20, Memory: 40}}
	}
	costs[eachEmpty] = []cost{{Wall: 100, CPU: 80, Memory: 30}}
	traffic := map[string]wire.Traffic{bulkFirst: {
		Kinds:  map[string]wire.Count{"GET layer": {Requests: 3, Received: 6_500_000}, "PUT layer": {Requests: 1, Sent: 1500}},
		Layers: map[string]wire.Count{"a": {Requests: 1, Received: 6_000_000}, "b": {Requests: 2, Received: 500_000}},
	}}
	var out strings.Builder
	facts := bulkFacts{images: 200, bases: 5, layers: 1000, bytes: 9e9, distinct: 220, distinctBytes: 3e8, first: 1e8, workers: 4}
	if err := writeBulk(&out, facts, 3, b.bulkWays(), costs, traffic); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"200 images on 5 bases, 1000 layers of 9000 MB in all, of which 220 of 300 MB differ; the first image has 100 MB; 4 workers: median of 3 rounds",
		"| `imgwrap bulk`, never seen | 10.00 | 20.00 | 40 | 50 | 1.00 | 1.00 |",
		"| `imgwrap` for each, an empty cache each time | 100.00 | 80.00 | 30 | 500 | 10.00 | 4.00 |",
		"| `imgwrap`, one image, never seen | 10.00 | 20.00 | 40 | 10000 | 1.00 | 1.00 |",
		"| `imgwrap bulk`, never seen | 4 | 3 | 1 | 6.5 | 1.5 |",
	} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("no line\n%s in\n%s", line, out.String())
		}
	}
}
