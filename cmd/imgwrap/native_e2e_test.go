//go:build e2e

package main_test

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/wheel"
)

// encode prints which implementation of protobuf encodes a span, and the span.
const encode = `
import warnings
warnings.simplefilter("ignore")
from google.protobuf.internal import api_implementation
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext
try:
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    encode = lambda spans: encode_spans(spans).SerializeToString()
except ImportError:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter.encoder import _ProtobufEncoder
    encode = _ProtobufEncoder.serialize
attributes = {"text": "naive", "number": 2**62, "ratio": 0.1, "yes": True, "words": ["a", "b"]}
span = ReadableSpan("a span", SpanContext(1, 2, False), None, Resource({}), attributes, start_time=1, end_time=2)
print(api_implementation.Type(), encode([span]).hex())
`

// Where protobuf's native code can't be loaded, the bundle's Python code encodes
// the same: with musl's loader, which has no glibc to offer, or without
// libstdc++.
func TestE2ENativeFallsBack(t *testing.T) {
	cache, err := testbed.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "imgwrap")
	builder := &bundle.Builder{
		Cache:  &layer.Cache{Dir: filepath.Join(cache, "layers")},
		Wheels: &wheel.Fetcher{CacheDir: filepath.Join(cache, "wheels")},
	}
	c, err := catalog.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"1.17.0", "1.27.0", "1.45.1"} {
		t.Run(version, func(t *testing.T) {
			r, err := c.Find(version)
			if err != nil {
				t.Fatal(err)
			}
			root := t.TempDir()
			base, err := builder.Bundle(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			extract(t, base, root)
			dir := filepath.Join(root, bundle.Dir(r))
			span, ok := strings.CutPrefix(encoded(t, dir), "python ")
			if !ok || len(span) < 100 {
				t.Fatalf("without native code: %q", span)
			}

			native, err := builder.Native(t.Context(), r, "amd64")
			if err != nil {
				t.Fatal(err)
			}
			extract(t, native, root)
			if got := encoded(t, dir); got != "upb "+span {
				t.Errorf("with native code: %q, want %q", got, span)
			}
			code := filepath.Join(dir, "google/_upb/_message.abi3.so")
			content, err := os.ReadFile(code)
			if err != nil {
				t.Fatal(err)
			}
			library := []byte("\x00libstdc++.so.6\x00")
			if !bytes.Contains(content, library) {
				t.Fatal("the native code doesn't need libstdc++")
			}
			for name, broken := range map[string][]byte{
				"no ELF file":     []byte("not a library\n"),
				"a short file":    content[:100],
				"missing library": bytes.ReplaceAll(content, library, []byte("\x00libabsent.so.6\x00")),
			} {
				if err := os.WriteFile(code, broken, 0o644); err != nil {
					t.Fatal(err)
				}
				if got := encoded(t, dir); got != "python "+span {
					t.Errorf("%s: %q, want %q", name, got, span)
				}
			}
		})
	}
}

func encoded(t *testing.T, dir string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "python3", "-B", "-c", encode)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	return string(out)
}

// extract writes a layer of plain files below a directory.
func extract(t *testing.T, l *layer.Layer, root string) {
	t.Helper()
	content, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	for r := tar.NewReader(content); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(root, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(file, 0o755)
		} else {
			var data []byte
			if data, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(file, data, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
