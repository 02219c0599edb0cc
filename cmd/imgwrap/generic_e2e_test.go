//go:build e2e

package main_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// importScript imports libraries, some of versions that the release does not
// instrument, and prints what is instrumented then.
const importScript = `
import importlib
for name in (
    "aiohttp", "asyncio", "celery", "click", "django.core.handlers.base", "fastapi",
    "flask", "jinja2", "redis", "requests", "sqlite3", "starlette", "urllib.request", "urllib3",
):
    importlib.import_module(name)
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

def below(kind):
    for child in kind.__subclasses__():
        yield child
        for grandchild in below(child):
            yield grandchild

for kind in sorted(set(below(BaseInstrumentor)), key=str):
    if kind._instance is not None and kind._instance._is_instrumented_by_opentelemetry:
        print(kind.__name__)
`

// TestE2EGenericLaunch compares the layers that Dockerfiles copy, which were made
// for any image, with wrapping: the same is instrumented, and no more is said.
func TestE2EGenericLaunch(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	ic := imageCase{name: "generic", recipe: "bookworm-matrix/apps"}
	ic.push(t, bed)
	source := bed.Registry() + "/" + ic.name + ":1.0"
	var p plan
	if err := json.Unmarshal([]byte(w.run(t, "plan", "-o", "json", source)), &p); err != nil {
		t.Fatalf("reading plan: %v", err)
	}
	python := p.Interpreter.Path
	releases := []string{"1.12.0", "1.17.0", "1.24.0", "1.27.0", "1.33.1", "1.40.0", "1.45.1"}
	layers := bed.Registry() + "/generic/otel"
	w.run(t, append([]string{"layer", "push", layers}, releases...)...)
	for _, release := range releases {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			index, err := name.NewTag(layers + ":" + release + "-dockerfile")
			if err != nil {
				t.Fatal(err)
			}
			published, err := remote.Image(index, remote.WithContext(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			add, err := published.Layers()
			if err != nil {
				t.Fatal(err)
			}
			copied, err := mutate.AppendLayers(image(t, source), add...)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := bed.PushImage(t.Context(), copied, "generic:copied-"+release); err != nil {
				t.Fatal(err)
			}
			wrapped := strings.TrimSpace(w.run(t, "--release", release, "--tag", "wrapped-"+release, source))
			want := imported(t, bed, wrapped, "opentelemetry-instrument", python)
			got := imported(t, bed, bed.Registry()+"/generic:copied-"+release, python, "-S", "/opt/imgwrap/bin/opentelemetry-instrument", python)
			if got != want {
				t.Errorf("with the copied layers:\n%s\nwrapped:\n%s", got, want)
			}
			if !strings.Contains(got, "FastAPIInstrumentor\n") || !strings.Contains(got, "SQLite3Instrumentor\n") {
				t.Errorf("it says\n%s", got)
			}
		})
	}
}

// imported is what importScript says in an image, on both outputs.
func imported(t *testing.T, bed *testbed.Bed, ref string, command ...string) string {
	t.Helper()
	out, err := bed.Run(wait(t), testbed.RunOptions{
		Image:      ref,
		Entrypoint: "sh",
		Args:       append([]string{"-c", `exec 2>&1 "$@"`, "sh"}, append(command, "-c", importScript)...),
		Env:        []string{"OTEL_TRACES_EXPORTER=none", "OTEL_METRICS_EXPORTER=none", "OTEL_LOGS_EXPORTER=none"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
