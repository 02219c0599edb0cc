//go:build e2e

package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/imgwrap/imgwrap/cmd/internal/otlp"
	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
	"github.com/imgwrap/imgwrap/layer"
)

// TestE2EExamples builds and runs docs/examples as they are, by docker buildx and
// docker compose.
func TestE2EExamples(t *testing.T) {
	b := sharedBuilders(t)
	t.Parallel()
	bed, w := b.bed, b.imgwrap
	buildx, err := bed.Buildx(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := buildx.Use(t.Context(), b.buildkit, b.engine); err != nil {
		t.Fatal(err)
	}
	pushProgram(t, bed, "imgwrap-frontend", "imgwrap:latest")
	var releases []struct{ Release string }
	if err := json.Unmarshal([]byte(w.run(t, "layer", "list", "-o", "json")), &releases); err != nil {
		t.Fatalf("reading the releases: %v", err)
	}
	w.run(t, "layer", "push", "registry.example.com/otel", releases[0].Release)

	t.Run("bake", func(t *testing.T) {
		dir := copyExample(t, "bake")
		if err := buildx.Bake(t.Context(), dir, "--push", "--set=*.args.HTTPS_PROXY="+b.internet.Proxy(), "default", "plain"); err != nil {
			t.Fatal(err)
		}
		// It is what wrapping does to what is built without.
		w.run(t, "registry.example.com/shop:1.0-plain", "--layers=registry.example.com/otel", "--tag=wrapped",
			"--endpoint=http://collector:4318", "--service-name=shop")
		built, wrapped := diffIDs(t, bed.Registry()+"/shop:1.0"), diffIDs(t, bed.Registry()+"/shop:wrapped")
		if !slices.Equal(built, wrapped) {
			t.Errorf("layers %s, want %s", built, wrapped)
		}
		b.run(t, "registry.example.com/shop:1.0", dockerfileCase{bare: true}, func(spans []otlp.Span) { checkService(t, spans, "shop") })
	})

	t.Run("compose", func(t *testing.T) {
		dir := copyExample(t, "compose")
		w.run(t, "dockerfile", "--write", "--layers=registry.example.com/otel", "--service-name=cart", filepath.Join(dir, "cart"))
		receiver := new(otlp.Receiver)
		collector := b.serve(t, receiver)
		defer collector.Close()
		// What is not this machine's: ports, the collector.
		override := filepath.Join(t.TempDir(), "override.yaml")
		service := fmt.Sprintf(`
    ports: !reset []
    security_opt: [seccomp=unconfined]
    environment: {OTEL_EXPORTER_OTLP_ENDPOINT: %q, OTEL_BSP_SCHEDULE_DELAY: "100"}
`, collector.URL)
		text := "services:\n  shop:" + service + "  cart:" + service + "networks: {default: {name: " + b.network + ", external: true}}\n"
		if err := os.WriteFile(override, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		compose := func(ctx context.Context, args ...string) string {
			t.Helper()
			out, err := buildx.Compose(ctx, dir, append([]string{"--file=compose.yaml", "--file=" + override}, args...)...)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		compose(t.Context(), "build", "--build-arg=HTTPS_PROXY="+b.internet.Proxy(), "shop", "cart")
		defer compose(context.WithoutCancel(t.Context()), "down", "--timeout=5")
		compose(t.Context(), "up", "--detach", "--no-build", "shop", "cart")
		for _, name := range []string{"shop", "cart"} {
			id := compose(t.Context(), "ps", "--quiet", name)
			ip := b.docker(t, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", id)
			address := net.JoinHostPort(ip, "8000")
			for ctx := wait(t); ; {
				if conn, err := new(net.Dialer).DialContext(ctx, "tcp", address); err == nil {
					conn.Close()
					break
				}
				if ctx.Err() != nil || b.docker(t, "inspect", "--format", "{{.State.Running}}", id) != "true" {
					t.Fatalf("%s does not listen:\n%s", name, compose(t.Context(), "logs", name))
				}
				time.Sleep(20 * time.Millisecond)
			}
			getPage(t, "http://"+address)
			mine := func(s otlp.Span) bool { return isServer(s) && s.Service() == name }
			if _, err := receiver.Wait(wait(t), 1, mine); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, compose(t.Context(), "logs", name))
			}
		}
	})
}

// copyExample copies a directory of docs/examples.
func copyExample(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("../../docs/examples", name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// pushProgram pushes an image with one of this module's commands.
func pushProgram(t *testing.T, bed *testbed.Bed, command, ref string) {
	t.Helper()
	file, err := bed.GoBuild(t.Context(), "github.com/imgwrap/imgwrap/cmd/"+command)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	l, err := layer.Build(t.Context(), []layer.Entry{{Path: command, Mode: 0o755, Data: program}})
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH,
		Config: v1.Config{
			Entrypoint: []string{"/" + command},
			Labels: map[string]string{ // as in the Dockerfile
				"moby.buildkit.frontend.network.none": "true",
				"moby.buildkit.frontend.caps":         "moby.buildkit.frontend.inputs,moby.buildkit.frontend.contexts,moby.buildkit.frontend.subrequests",
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if img, err = mutate.AppendLayers(img, l); err != nil {
		t.Fatal(err)
	}
	if _, err := bed.PushImage(t.Context(), img, ref); err != nil {
		t.Fatal(err)
	}
}

// diffIDs are those of an image's layers.
func diffIDs(t *testing.T, ref string) []v1.Hash {
	t.Helper()
	config, err := image(t, ref).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config.RootFS.DiffIDs
}

func checkService(t *testing.T, spans []otlp.Span, name string) {
	t.Helper()
	for _, s := range spans {
		if s.Service() != name || !strings.HasSuffix(s.Scope, ".flask") {
			t.Errorf("a span of %s by %s, want one of %s by Flask's instrumentation", s.Service(), s.Scope, name)
		}
	}
}
