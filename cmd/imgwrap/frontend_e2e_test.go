//go:build e2e

package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// frontends build with imgwrap's frontend, and without it for comparison.
type frontends struct {
	indexes
	frontend string // its image
	layers   string // repository
}

const spdxDocument = "https://spdx.dev/Document"

func TestE2EFrontend(t *testing.T) {
	x := newIndexes(t)
	f := frontends{indexes: x, layers: x.bed.Registry() + "/frontend/otel"}
	f.frontend = f.pushFrontend()
	dir := x.context()
	repository := f.bed.Registry() + "/frontend/plain"
	f.plain(dir, "frontend/plain:1.0")
	f.imgwrap.run(t, repository+":1.0", "--layers", f.layers)

	build := f.gateway(
		"--opt=filename=Containerfile", "--opt=platform=linux/amd64,linux/arm64",
		"--opt=build-arg:ROOT="+f.bed.Registry()+"/root/bookworm",
		"--opt=build-arg:IMGWRAP_SERVICE_NAME=plain",
		"--opt=attest:provenance=mode=max", "--opt=attest:sbom=generator="+f.pushScanner(),
	)
	f.build(dir, "frontend/built:1.0", build...)
	built := f.images("frontend/built:1.0")
	f.compare(built, f.images("frontend/plain:1.0-otel"))
	f.attested("frontend/built:1.0")
	f.run(runtime.GOARCH, f.bed.Registry()+"/frontend/built@"+built[runtime.GOARCH].digest.String(), "plain")

	// Nothing is built again, and it is the same.
	p := f.build(dir, "frontend/built:again", build...)
	// Of what comes before the last steps, no more than its place in the cache is
	// asked for.
	for _, last := range []string{"] COPY", "generating sbom", "unpack launcher", "add OpenTelemetry", "list what was added"} {
		cached := 0
		for _, s := range p.Steps {
			if !strings.Contains(s.Name, last) {
				continue
			}
			if cached++; !s.Cached {
				t.Errorf("%q was not cached", s.Name)
			}
		}
		if cached < 2 {
			t.Errorf("%d steps are %q, want one for each platform", cached, last)
		}
	}
	for arch, im := range f.images("frontend/built:again") {
		if im.digest != built[arch].digest {
			t.Errorf("built again, the image for %s is %s, before it was %s", arch, im.digest, built[arch].digest)
		}
	}

	for _, command := range []string{"plan", "wrap", "unwrap", "verify"} {
		code, text := f.fails(command, f.bed.Registry()+"/frontend/built:1.0")
		if code != 3 || !strings.Contains(text, "it was instrumented when it was built") {
			t.Errorf("%s: exit code %d, %s", command, code, text)
		}
	}
}

func TestE2EFrontendOptions(t *testing.T) {
	x := newIndexes(t)
	f := frontends{indexes: x, layers: x.bed.Registry() + "/frontend/otel"}
	f.frontend = f.pushFrontend()
	x.pushRoot(runtime.GOARCH)
	root := f.bed.Registry() + "/root/bookworm-" + runtime.GOARCH
	site := filepath.Join(t.TempDir(), "site")
	requirements, err := filepath.Abs(indexRecipe + "/requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.bed.Install(t.Context(), site, "bookworm", runtime.GOARCH, "-r", requirements); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("open"), 0o600); err != nil {
		t.Fatal(err)
	}
	const dir = "../../testdata/frontend"
	common := []string{
		"--opt=build-arg:ROOT=" + root, "--opt=build-arg:IMGWRAP_SERVICE_NAME=shop",
		"--secret=id=token,src=" + token, "--local=site=" + site, "--opt=context:site=local:site",
	}
	target := func(name string, more ...string) []string {
		return f.gateway(append(append([]string{"--opt=target=" + name}, common...), more...)...)
	}
	f.imgwrap.run(t, "layer", "push", f.layers, "1.45.1")
	f.plainly(dir, "frontend/app:1.0", append([]string{"--opt=target=app"}, common...)...)

	p := f.build(dir, "frontend/options:1.0", target("app", "--opt=build-arg:IMGWRAP_RELEASE=1.45.1", "--opt=build-arg:IMGWRAP_ENDPOINT=http://collector:4318")...)
	want := testbed.Warning{Text: "imgwrap: OTEL_TRACES_EXPORTER=none in the image: no trace is sent until that is changed", Line: 14}
	if !slices.Contains(p.Warnings, want) {
		t.Errorf("the warnings are %+v, want %+v", p.Warnings, want)
	}
	im := f.images("frontend/options:1.0")[runtime.GOARCH]
	for _, line := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318", "OTEL_SERVICE_NAME=shop", "OTEL_TRACES_EXPORTER=none"} {
		if !slices.Contains(im.parsed.Config.Env, line) {
			t.Errorf("the environment is %q, without %s", im.parsed.Config.Env, line)
		}
	}

	for _, tt := range []struct {
		args []string
		want string
	}{
		{target("other"), "imgwrap: no Python found: "},
		{target("wrong"), "imgwrap: OTEL_PROPAGATORS=smoke,signals (image): no propagator named \"smoke\""},
		{target("app", "--opt=build-arg:IMGWRAP_ENDPIONT=http://x"), "imgwrap: no build argument IMGWRAP_ENDPIONT is known"},
		{target("app", "--opt=build-arg:IMGWRAP_RELEASE=9"), "imgwrap: "},
		{target("app", "--opt=build-arg:IMGWRAP_LAYERS="+f.layers+"/none"), "push it with `imgwrap layer push " + f.layers + "/none 1.45.1`"},
		{target("broken"), ">>> RUN exit 7"},
		{target("none"), "target stage"},
	} {
		_, _, err := f.buildctl(dir, "", tt.args...)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %s", tt.args, err, tt.want)
		}
	}
	// With its place in the Dockerfile.
	_, _, err = f.buildctl(dir, "", target("other")...)
	if err == nil || !strings.Contains(err.Error(), "Dockerfile:25") || !strings.Contains(err.Error(), `>>> ENTRYPOINT ["/app.py"]`) {
		t.Errorf("the error is %v", err)
	}

	for request, want := range map[string]string{
		"targets": "wrong",
		"outline": "token    true",
		"lint":    "InvalidDefaultArgInFrom",
	} {
		_, out, err := f.buildctl(dir, "", target("app", "--opt=requestid=frontend."+request, "--opt=frontend.caps=moby.buildkit.frontend.subrequests")...)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s", request, err, out)
		}
	}

	// As it was built: by the builder's own frontend, and by one that the user names.
	for _, args := range [][]string{nil, {"--opt=build-arg:IMGWRAP_SYNTAX=" + f.frontend}} {
		f.build(dir, "frontend/disabled:1.0", target("app", append(args, "--opt=build-arg:IMGWRAP_DISABLE=true")...)...)
		if got, want := f.images("frontend/disabled:1.0")[runtime.GOARCH].digest, f.images("frontend/app:1.0")[runtime.GOARCH].digest; got != want {
			t.Errorf("with IMGWRAP_DISABLE it is %s, want %s", got, want)
		}
	}
}

// TestE2EFrontendEngine builds with Docker's engine, whose BuildKit cannot merge
// layers.
func TestE2EFrontendEngine(t *testing.T) {
	x := newIndexes(t)
	f := frontends{indexes: x, layers: x.bed.Registry() + "/frontend/otel"}
	f.frontend = f.pushFrontend()
	dir := x.context()
	engine, err := f.bed.Engine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.plain(dir, "frontend/engine-plain:1.0")
	f.imgwrap.run(t, f.bed.Registry()+"/frontend/engine-plain:1.0", "--layers", f.layers)

	containerfile, err := os.ReadFile(filepath.Join(dir, "Containerfile"))
	if err != nil {
		t.Fatal(err)
	}
	// Without --link, which its Dockerfile frontend does not know.
	text := "# syntax=" + f.frontend + "\n" + strings.ReplaceAll(string(containerfile), "--link ", "")
	file := filepath.Join(dir, "Dockerfile")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	ref := f.bed.Registry() + "/frontend/engine:1.0"
	cmd := exec.CommandContext(t.Context(), "/usr/bin/docker", "build", "--tag="+ref, "--build-arg=ROOT="+f.bed.Registry()+"/root/bookworm",
		"--build-arg=IMGWRAP_LAYERS="+f.layers, "--build-arg=IMGWRAP_SERVICE_NAME=plain", dir)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+engine.Host(), "DOCKER_BUILDKIT=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("docker build: %v\n%s", err, out)
	}
	if _, err := engine.Docker(t.Context(), "push", ref); err != nil {
		t.Fatal(err)
	}
	got, want := f.images("frontend/engine:1.0")[runtime.GOARCH], f.images("frontend/engine-plain:1.0-otel")[runtime.GOARCH]
	if a, b := len(got.layers), len(want.layers)-2; a != b {
		t.Errorf("%d layers, want %d: one that is added instead of three", a, b)
	}
	if a, b := got.parsed.Config.Entrypoint, want.parsed.Config.Entrypoint; !slices.Equal(a, b) {
		t.Errorf("the entry point is %q, want %q", a, b)
	}
	// The files are the same; whiteouts have taken effect.
	if a, b := f.added("frontend/engine:1.0"), f.added("frontend/engine-plain:1.0-otel"); !slices.Equal(a, b) {
		t.Errorf("files differ: %q, want %q", a, b)
	}
	f.run(runtime.GOARCH, ref, "plain")
}

// buildctl builds a directory, and pushes it as ref if that is not empty.
func (f frontends) buildctl(dir, ref string, args ...string) (*testbed.Progress, string, error) {
	f.Helper()
	all := append([]string{"--local=context=" + dir, "--local=dockerfile=" + dir}, args...)
	if ref != "" {
		all = append(all, "--output=type=image,push=true,name="+f.bed.Registry()+"/"+ref)
	}
	return f.buildkit.Buildctl(f.Context(), all...)
}

func (f frontends) build(dir, ref string, args ...string) *testbed.Progress {
	f.Helper()
	p, _, err := f.buildctl(dir, ref, args...)
	if err != nil {
		f.Fatal(err)
	}
	return p
}

// gateway are the arguments of a build with the frontend.
func (f frontends) gateway(args ...string) []string {
	return append([]string{"--frontend=gateway.v0", "--opt=source=" + f.frontend, "--opt=build-arg:IMGWRAP_LAYERS=" + f.layers}, args...)
}

// plainly builds with the Dockerfile's own frontend.
func (f frontends) plainly(dir, ref string, args ...string) {
	f.Helper()
	f.build(dir, ref, append([]string{"--frontend=dockerfile.v0"}, args...)...)
}

// plain builds for both architectures.
func (f frontends) plain(dir, ref string) {
	f.Helper()
	f.plainly(dir, ref, "--opt=filename=Containerfile", "--opt=platform=linux/amd64,linux/arm64",
		"--opt=build-arg:ROOT="+f.bed.Registry()+"/root/bookworm")
}

// builtImage is an image of one platform.
type builtImage struct {
	digest v1.Hash
	layers []v1.Hash
	parsed *v1.ConfigFile
	config map[string]any
}

// images are those of an index, or one image, by architecture.
func (f frontends) images(ref string) map[string]builtImage {
	f.Helper()
	r, err := name.ParseReference(f.bed.Registry() + "/" + ref)
	if err != nil {
		f.Fatal(err)
	}
	d, err := remote.Get(r, remote.WithContext(f.Context()))
	if err != nil {
		f.Fatal(err)
	}
	var all []v1.Image
	if d.MediaType.IsIndex() {
		index, err := d.ImageIndex()
		if err != nil {
			f.Fatal(err)
		}
		_, _, descriptors := f.parse(d.Manifest)
		for _, c := range descriptors {
			if c.Platform.OS == "unknown" {
				continue
			}
			im, err := index.Image(c.Digest)
			if err != nil {
				f.Fatal(err)
			}
			all = append(all, im)
		}
	} else {
		im, err := d.Image()
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, im)
	}
	images := map[string]builtImage{}
	for _, im := range all {
		var b builtImage
		manifest, err := im.Manifest()
		if err != nil {
			f.Fatal(err)
		}
		raw, err := im.RawConfigFile()
		if err != nil {
			f.Fatal(err)
		}
		if err := json.Unmarshal(raw, &b.config); err != nil {
			f.Fatal(err)
		}
		if b.parsed, err = im.ConfigFile(); err != nil {
			f.Fatal(err)
		}
		if b.digest, err = im.Digest(); err != nil {
			f.Fatal(err)
		}
		for _, l := range manifest.Layers {
			b.layers = append(b.layers, l.Digest)
		}
		images[b.parsed.Architecture] = b
	}
	return images
}

// compare checks that a build made the images that wrapping makes of a build.
func (f frontends) compare(built, wrapped map[string]builtImage) {
	f.Helper()
	for arch := range machines {
		b, w := built[arch], wrapped[arch]
		if len(b.layers) != len(w.layers) || len(b.layers) < 6 {
			f.Fatalf("%s: %d layers, want %d", arch, len(b.layers), len(w.layers))
		}
		// The launch layer is compressed by another program.
		last := len(b.layers) - 1
		if got, want := b.layers[:last], w.layers[:last]; !slices.Equal(got, want) {
			f.Errorf("%s: the layers are %v, want %v", arch, got, want)
		}
		for _, c := range []map[string]any{b.config, w.config} {
			labels := c["config"].(map[string]any)["Labels"].(map[string]any)
			for _, label := range []string{"origin", "source", "seal", "index"} {
				delete(labels, "io.imgwrap."+label)
			}
			delete(c, "created")
			for _, h := range c["history"].([]any) {
				entry := h.(map[string]any)
				delete(entry, "created")
				if by, _ := entry["created_by"].(string); strings.HasPrefix(by, "LABEL io.imgwrap.") {
					delete(entry, "created_by")
				}
			}
		}
		if !reflect.DeepEqual(b.config, w.config) {
			got, _ := json.MarshalIndent(b.config, "", " ")
			want, _ := json.MarshalIndent(w.config, "", " ")
			f.Errorf("%s: the config is\n%s\nwant\n%s", arch, got, want)
		}
	}
}

// attested checks the attestations of an index.
func (f frontends) attested(ref string) {
	f.Helper()
	raw, _ := f.raw(f.bed.Registry() + "/" + ref)
	_, _, descriptors := f.parse(raw)
	repository, err := name.NewRepository(f.bed.Registry() + "/" + strings.TrimSuffix(ref, ":1.0"))
	if err != nil {
		f.Fatal(err)
	}
	found := 0
	for _, d := range descriptors {
		if d.Annotations["vnd.docker.reference.type"] == "" {
			continue
		}
		found++
		im, err := remote.Image(repository.Digest(d.Digest.String()), remote.WithContext(f.Context()))
		if err != nil {
			f.Fatal(err)
		}
		manifest, err := im.Manifest()
		if err != nil {
			f.Fatal(err)
		}
		var predicates []string
		listed := map[string]bool{} // names and places of packages
		for _, l := range manifest.Layers {
			predicates = append(predicates, l.Annotations["in-toto.io/predicate-type"])
			var statement struct {
				Subject []struct {
					Digest map[string]string
				}
				Predicate struct {
					SPDXID   string
					Packages []struct {
						Name         string
						ExternalRefs []struct{ ReferenceLocator string }
					}
				}
			}
			if err := json.Unmarshal(f.blob(repository, l.Digest), &statement); err != nil {
				f.Fatal(err)
			}
			if s := statement.Subject; len(s) == 0 || "sha256:"+s[0].Digest["sha256"] != d.Annotations["vnd.docker.reference.digest"] {
				f.Errorf("%s is about %v", predicates[len(predicates)-1], s)
			}
			for _, p := range statement.Predicate.Packages {
				listed[p.Name] = true
				for _, r := range p.ExternalRefs {
					listed[r.ReferenceLocator] = true
				}
			}
		}
		slices.Sort(predicates)
		if len(predicates) != 3 || predicates[1] != spdxDocument || predicates[2] != spdxDocument || !strings.Contains(predicates[0], "slsa.dev/provenance") {
			f.Errorf("the attestations are %q", predicates)
		}
		for _, want := range []string{"scanned", "opentelemetry-sdk", "pkg:pypi/opentelemetry-sdk@1.45.1"} {
			if !listed[want] {
				f.Errorf("the SBOMs do not list %s", want)
			}
		}
		if listed["pkg:pypi/opentelemetry-instrumentation-django@0.66b1"] {
			f.Error("the SBOM lists an instrumentation that is hidden")
		}
	}
	if found != len(machines) {
		f.Errorf("%d images are attested, want %d", found, len(machines))
	}
}

func (f frontends) blob(repository name.Repository, digest v1.Hash) []byte {
	f.Helper()
	l, err := remote.Layer(repository.Digest(digest.String()), remote.WithContext(f.Context()))
	if err != nil {
		f.Fatal(err)
	}
	r, err := l.Compressed()
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		f.Fatal(err)
	}
	return content
}

// added are the files below /opt/imgwrap in a container of an image.
func (f frontends) added(ref string) []string {
	f.Helper()
	out, err := f.bed.Run(wait(f.T), testbed.RunOptions{
		Image: f.bed.Registry() + "/" + ref, Entrypoint: "find",
		Args: []string{"/opt/imgwrap", "-not", "-name", "__pycache__", "-printf", "%M %U:%G %s %p\n"},
	})
	if err != nil {
		f.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "d") { // how large directories are depends on their file system
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	slices.Sort(lines)
	return lines
}

// pushFrontend builds the frontend's image as its users do.
func (f frontends) pushFrontend() string {
	f.Helper()
	golang, err := golangImage(f.T, f.bed)
	if err != nil {
		f.Fatal(err)
	}
	repository, err := filepath.Abs("../..")
	if err != nil {
		f.Fatal(err)
	}
	goenv := func(name string) string { return strings.TrimSpace(output(f.T, "go", "env", name)) }
	im, err := f.bed.Build(f.Context(), testbed.BuildOptions{
		Context: repository,
		File:    filepath.Join(repository, "Dockerfile"),
		Target:  "frontend",
		Args:    []string{"GO_IMAGE=" + golang},
		Volumes: []string{
			goenv("GOROOT") + ":/usr/local/go:ro",
			goenv("GOMODCACHE") + ":/go/pkg/mod",
			goenv("GOCACHE") + ":/root/.cache/go-build",
		},
		Format: "oci",
		Ref:    "imgwrap-frontend:1",
	})
	if err != nil {
		f.Fatal(err)
	}
	layers, err := im.Layers()
	if err != nil || len(layers) != 1 {
		f.Fatalf("the frontend's image has %d layers, %v", len(layers), err)
	}
	if size, err := layers[0].Size(); err != nil || size > 12<<20 {
		f.Errorf("the frontend's image has %d bytes, %v", size, err)
	}
	return f.bed.Registry() + "/imgwrap-frontend:1"
}

// pushScanner makes an image that BuildKit runs to list what is in another one
// (docs/attestations/sbom-protocol.md in moby/buildkit).
func (f frontends) pushScanner() string {
	f.Helper()
	root, err := f.bed.Root(f.Context(), "bookworm")
	if err != nil {
		f.Fatal(err)
	}
	var statement bytes.Buffer
	fmt.Fprintf(&statement, `{"_type":"https://in-toto.io/Statement/v0.1","predicateType":%q,"predicate":{"SPDXID":"SPDXRef-DOCUMENT","packages":[{"name":"scanned"}]}}`, spdxDocument)
	scanner, err := mutate.Config(root, v1.Config{
		Env:        []string{"PATH=/usr/bin:/bin"},
		Entrypoint: []string{"/bin/sh", "-c", "test ! -e $BUILDKIT_SCAN_SOURCE/opt/imgwrap && echo '" + statement.String() + "' > $BUILDKIT_SCAN_DESTINATION/scan.spdx.json"},
	})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := f.bed.PushImage(f.Context(), scanner, "scanner:1"); err != nil {
		f.Fatal(err)
	}
	return f.bed.Registry() + "/scanner:1"
}
