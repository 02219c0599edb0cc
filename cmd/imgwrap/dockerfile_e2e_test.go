//go:build e2e

package main_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// TestE2EBundles builds bundles with one processor. A digest that isn't the
// recorded one would mean that users get, for the same release, other bytes
// than those they have pushed and mirrored. All releases are built, with every
// processor of this machine, in TestE2EDockerfile.
func TestE2EBundles(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	releases := []string{"1.12.0", "1.27.0", "1.45.1"}
	w.run(t, append([]string{"layer", "build"}, releases...)...) // so that the wheels are in the cache
	w.env = []string{"GOMAXPROCS=1"}
	w.cache = w.newCache(t, "wheels")
	// It fails if a bundle is not as recorded.
	built := w.run(t, append([]string{"layer", "build"}, releases...)...)
	if bundles := strings.Count(built, " bundle\n"); bundles != len(releases) {
		t.Errorf("%d bundles built, want %d:\n%s", bundles, len(releases), built)
	}
	// The oldest release is older than protobuf's native code.
	if natives := strings.Count(built, " native code for "); natives != 2*(len(releases)-1) {
		t.Errorf("%d layers of native code built:\n%s", natives, built)
	}
}

// TestE2EDockerfile builds imgwrap's own image on local base images, with the
// Go toolchain, module cache and wheels of this machine, and wraps an image
// from inside it. That image has the bundles of all releases, built in its
// making: that fails if one is not, byte for byte, as recorded.
func TestE2EDockerfile(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	w.run(t, "layer", "build") // so that the wheels are in the cache

	golang, err := golangImage(t, bed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bed.PushImage(t.Context(), baseImage(t), "base/static:nonroot"); err != nil {
		t.Fatal(err)
	}

	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	goenv := func(name string) string { return strings.TrimSpace(output(t, "go", "env", name)) }
	img, err := bed.Build(t.Context(), testbed.BuildOptions{
		Context: repository,
		File:    filepath.Join(repository, "Dockerfile"),
		Args: []string{
			"GO_IMAGE=" + golang,
			"BASE_IMAGE=" + bed.Registry() + "/base/static:nonroot",
		},
		Volumes: []string{
			goenv("GOROOT") + ":/usr/local/go:ro",
			goenv("GOMODCACHE") + ":/go/pkg/mod",
			goenv("GOCACHE") + ":/root/.cache/go-build",
			filepath.Join(w.cache, "wheels") + ":/out/cache/wheels",
			"/etc/ssl/certs:/etc/ssl/certs:ro",
		},
		Format: "oci",
		Ref:    "imgwrap:test",
	})
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" {
		t.Errorf("user %q, want 65532:65532", config.Config.User)
	}
	inside := func(args ...string) string {
		t.Helper()
		out, err := bed.Run(wait(t), testbed.RunOptions{Image: bed.Registry() + "/imgwrap:test", Args: args})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}

	var layers []struct {
		Release string `json:"release"`
		Cached  bool   `json:"cached"`
	}
	if err := json.Unmarshal([]byte(inside("layer", "list", "-o", "json")), &layers); err != nil {
		t.Fatal(err)
	}
	if len(layers) < 5 {
		t.Errorf("%d releases, want 5 or more", len(layers))
	}
	for _, l := range layers {
		if !l.Cached {
			t.Errorf("the image lacks the bundle of %s", l.Release)
		}
	}

	if _, err := bed.Push(t.Context(), "bookworm-gunicorn", "dockerfile/app:1.0"); err != nil {
		t.Fatal(err)
	}
	source := bed.Registry() + "/dockerfile/app:1.0"
	// The same bytes, whoever wraps and wherever.
	got := inside("--offline", source)
	if want := w.run(t, source); got != want {
		t.Errorf("imgwrap in its image printed %q, outside %q", got, want)
	}
	if !strings.HasPrefix(got, bed.Registry()+"/dockerfile/app@sha256:") {
		t.Errorf("imgwrap printed %q", got)
	}
}

// golangImage pushes an image in which Go runs that is mounted from this machine.
func golangImage(t *testing.T, bed *testbed.Bed) (string, error) {
	root, err := bed.Root(t.Context(), "bookworm")
	if err != nil {
		return "", err
	}
	golang, err := mutate.Config(root, v1.Config{Env: []string{
		"PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"GOPATH=/go", "GOTOOLCHAIN=local",
	}})
	if err != nil {
		return "", err
	}
	_, err = bed.PushImage(t.Context(), golang, "base/golang:1")
	return bed.Registry() + "/base/golang:1", err
}

// baseImage has what distroless's static image has as well: certificates and a
// directory for temporary files.
func baseImage(t *testing.T) v1.Image {
	t.Helper()
	certificates, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, f := range []struct {
		tar.Header
		content []byte
	}{
		{tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("nonroot:x:65532:65532::/home/nonroot:/sbin/nologin\n")},
		{tar.Header{Name: "etc/ssl/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "etc/ssl/certs/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "etc/ssl/certs/ca-certificates.crt", Mode: 0o644}, certificates},
		{tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil},
	} {
		f.Size = int64(len(f.content))
		if err := tw.WriteHeader(&f.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(slices.Clone(buf.Bytes()), types.DockerUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}
