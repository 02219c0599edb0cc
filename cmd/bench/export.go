package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
)

// exportBatches is how many batches of 512 spans, what a span processor sends
// at once, one run of exportScript exports.
const exportBatches = 10

// exportScript makes spans of twelve attributes, as a request to a web server
// leaves them, and exports them.
const exportScript = `
import json, sys, time
from google.protobuf.internal import api_implementation
from opentelemetry import trace

provider = trace.get_tracer_provider()
tracer = provider.get_tracer("bench")
attributes = {
    "http.request.method": "GET", "url.scheme": "http", "url.path": "/articles/lamp", "url.query": "color=red",
    "http.route": "/articles/<name>", "http.response.status_code": 200, "server.address": "shop.example.com",
    "server.port": 8000, "client.address": "192.0.2.17", "network.protocol.version": "1.1",
    "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)", "network.peer.port": 40112,
}

def export():
    for _ in range(512):
        tracer.start_span("GET /articles/<name>", kind=trace.SpanKind.SERVER, attributes=attributes).end()
    provider.force_flush()

export()  # what it imports first
batches = int(sys.argv[1])
start = time.process_time()
for _ in range(batches):
    export()
cpu = time.process_time() - start
print(json.dumps({"spans": 512 * batches, "cpu": cpu, "protobuf": api_implementation.Type()}))
`

// export measures what a span costs the application from its start until it
// is sent.
func (b *runtimeBench) export(ctx context.Context) error {
	targets := []target{b.installed, b.pure, b.wrapped}
	perSpan := make([][]float64, len(targets)) // seconds of CPU
	protobuf := make([]string, len(targets))
	for range b.rounds {
		for i, t := range targets {
			before := b.sink.received(t.path)
			o := t.with("python", "-c", exportScript, strconv.Itoa(exportBatches))
			out, err := b.bed.Run(ctx, o)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			var result struct {
				Spans    int     `json:"spans"`
				CPU      float64 `json:"cpu"`
				Protobuf string  `json:"protobuf"`
			}
			if err := json.Unmarshal([]byte(out), &result); err != nil {
				return fmt.Errorf("%s: reading result: %w", t.name, err)
			}
			if arrived := b.sink.received(t.path) - before; arrived != result.Spans+512 {
				return fmt.Errorf("%s: %d spans arrived, want %d", t.name, arrived, result.Spans+512)
			}
			perSpan[i] = append(perSpan[i], result.CPU/float64(result.Spans))
			protobuf[i] = result.Protobuf
		}
	}
	t := table{header: []string{"image", "protobuf", "CPU of a span, µs", "spans a CPU second", "of pip-installed"}}
	installed := median(perSpan[0])
	for i, target := range targets {
		m := median(perSpan[i])
		t.add(target.name, protobuf[i], fmt.Sprintf("%.0f", m*1e6), fmt.Sprintf("%.0f", 1/m), ratio(installed, m))
	}
	return t.write(b.stdout, fmt.Sprintf("Making, encoding and sending spans of 12 attributes: median of %d runs of %d spans", b.rounds, 512*exportBatches))
}
