//go:build e2e

package main

import (
	"os"
	"strings"
	"testing"
)

func TestE2EDemo(t *testing.T) {
	var stdout strings.Builder
	if err := demo(t.Context(), "../../"+recipes, &stdout, os.Stderr); err != nil {
		t.Fatal(err)
	}
	_, trace, found := strings.Cut(stdout.String(), "The trace that arrived:\n")
	if !found {
		t.Fatalf("no trace:\n%s", stdout.String())
	}
	for _, want := range []string{
		"  GET /  SERVER  shop  opentelemetry.instrumentation.flask",
		"  SERVER  shop  opentelemetry.instrumentation.flask",
		"  CLIENT  shop  opentelemetry.instrumentation.requests",
		"  CLIENT  shop  opentelemetry.instrumentation.sqlalchemy",
	} {
		if !strings.Contains(trace, want) {
			t.Errorf("the trace has no line with %q:\n%s", want, trace)
		}
	}
	if n := strings.Count(trace, "trace "); n != 1 {
		t.Errorf("%d traces, want 1:\n%s", n, trace)
	}
}
