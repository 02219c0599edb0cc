//go:build e2e

package main_test

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imgwrap/imgwrap/cmd/internal/otlp"
	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// indexes makes and wraps indexes of images for amd64 and arm64, which BuildKit
// attests the provenance of.
type indexes struct {
	*testing.T
	bed      *testbed.Bed
	buildkit *testbed.BuildKit
	imgwrap  imgwrap
	crane    string
}

// machines are what the images of each architecture say they run on.
var machines = map[string]struct {
	uname string
	elf   elf.Machine
}{
	"amd64": {"x86_64", elf.EM_X86_64},
	"arm64": {"aarch64", elf.EM_AARCH64},
}

const indexRecipe = "../../testdata/images/bookworm-index"

// document is a manifest or index with all of its fields.
type document map[string]json.RawMessage

func newIndexes(t *testing.T) indexes {
	t.Helper()
	bed := sharedBed(t)
	t.Parallel()
	crane, err := bed.GoBuild(t.Context(), "github.com/google/go-containerregistry/cmd/crane")
	if err != nil {
		t.Fatal(err)
	}
	buildkit, err := bed.BuildKit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return indexes{t, bed, buildkit, build(t, bed), crane}
}

func TestE2EIndex(t *testing.T) {
	x := newIndexes(t)
	dir := x.context()
	const provenance = "attest:provenance=mode=max"
	for _, form := range []struct {
		name    string
		options []string
		export  []string
	}{
		// BuildKit's form of today: the manifest of the attestation is an artifact
		// whose subject is the image.
		{"artifact", []string{provenance}, []string{"oci-artifact=true"}},
		// Before, only the index told what an attestation is about.
		{"annotated", []string{provenance}, []string{"oci-artifact=false"}},
		// Docker's manifest lists cannot have attestations.
		{"docker", nil, []string{"oci-mediatypes=false"}},
	} {
		t.Run(form.name, func(t *testing.T) {
			t.Parallel()
			x := x
			x.T = t
			x.build(dir, form.name+":1.0", form.options, form.export)
			wrapped := x.wrap(form.name, 2*len(form.options))
			if form.name == "artifact" {
				x.content(wrapped)
				x.pull(form.name)
				x.reproduce(form.name, x.bed.Registry()+"/artifact:1.0")
				x.reproduce(form.name, x.image(form.name))
				x.runAll(form.name, wrapped)
			}
			x.copies(form.name)
		})
	}
}

// context makes what BuildKit builds: the recipe, with the packages of each
// architecture, of which one has native code. The base images are in the
// registry then.
func (x indexes) context() string {
	x.Helper()
	dir := x.TempDir()
	if err := os.CopyFS(dir, os.DirFS(indexRecipe)); err != nil {
		x.Fatal(err)
	}
	for arch := range machines {
		x.pushRoot(arch)
		if err := x.bed.Install(x.Context(), filepath.Join(dir, "site", arch), "bookworm", arch, "-r", filepath.Join(dir, "requirements.txt")); err != nil {
			x.Fatal(err)
		}
	}
	return dir
}

// pushRoot puts the base image of an architecture into the registry.
func (x indexes) pushRoot(arch string) {
	x.Helper()
	root := x.bed.Root
	if arch != runtime.GOARCH {
		root = func(ctx context.Context, suite string) (v1.Image, error) { return x.bed.ForeignRoot(ctx, suite, arch) }
	}
	img, err := root(x.Context(), "bookworm")
	if err != nil {
		x.Fatal(err)
	}
	if _, err := x.bed.PushImage(x.Context(), img, "root/bookworm-"+arch+":latest"); err != nil {
		x.Fatal(err)
	}
}

func (x indexes) build(dir, ref string, options, export []string) {
	x.Helper()
	err := x.buildkit.Build(x.Context(), testbed.BuildKitOptions{
		Context:   dir,
		Args:      []string{"ROOT=" + x.bed.Registry() + "/root/bookworm"},
		Platforms: []string{"linux/amd64", "linux/arm64"},
		Options:   append([]string{"filename=Containerfile"}, options...),
		Export:    export,
		Ref:       ref,
	})
	if err != nil {
		x.Fatal(err)
	}
}

// raw is a document as the registry has it.
func (x indexes) raw(ref string) ([]byte, v1.Hash) {
	x.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		x.Fatal(err)
	}
	d, err := remote.Get(r, remote.WithContext(x.Context()))
	if err != nil {
		x.Fatal(err)
	}
	return d.Manifest, d.Digest
}

func (x indexes) parse(raw []byte) (fields document, list []document, descriptors []v1.Descriptor) {
	x.Helper()
	if err := json.Unmarshal(raw, &fields); err != nil {
		x.Fatal(err)
	}
	if err := errors.Join(json.Unmarshal(fields["manifests"], &list), json.Unmarshal(fields["manifests"], &descriptors)); err != nil {
		x.Fatal(err)
	}
	delete(fields, "manifests")
	return fields, list, descriptors
}

// wrap wraps a repository's index, which has so many attestations, and returns
// its images by architecture.
func (x indexes) wrap(repository string, attestations int) map[string]string {
	x.Helper()
	repository = x.bed.Registry() + "/" + repository
	source := repository + ":1.0"
	report := filepath.Join(x.TempDir(), "report.json")
	var p struct {
		Digest string
		Plan   struct{ Dropped []string }
	}
	if err := json.Unmarshal([]byte(x.imgwrap.run(x.T, "plan", "-o", "json", source)), &p); err != nil {
		x.Fatal(err)
	}
	line := x.imgwrap.run(x.T, source, "--report", report)
	if want := repository + "@" + p.Digest + "\n"; line != want {
		x.Errorf("imgwrap printed %q, planned %q", line, want)
	}
	for _, ref := range []string{source, source + "-otel"} {
		if again := x.imgwrap.run(x.T, ref); again != line {
			x.Errorf("wrapping %s again printed %q, before %q", ref, again, line)
		}
	}
	written, err := os.ReadFile(report)
	if err != nil {
		x.Fatal(err)
	}
	if err := json.Unmarshal(written, &p); err != nil {
		x.Fatal(err)
	}

	before, _ := x.raw(source)
	after, digest := x.raw(source + "-otel")
	if digest.String() != p.Digest {
		x.Errorf("tag 1.0-otel has digest %s, want %s", digest, p.Digest)
	}
	fields, children, descriptors := x.parse(before)
	newFields, newChildren, newDescriptors := x.parse(after)
	if got, want := fmt.Sprintf("%s", newFields), fmt.Sprintf("%s", fields); got != want {
		x.Errorf("the index has %s, want %s", got, want)
	}
	attested := map[string]bool{}
	wrapped := map[string]string{}
	for i, d := range descriptors {
		if about := d.Annotations["vnd.docker.reference.digest"]; about != "" {
			attested[about] = true
			want := fmt.Sprintf("attestation %s of %s", d.Digest, about)
			if !slices.ContainsFunc(p.Plan.Dropped, func(s string) bool { return strings.HasPrefix(s, want) }) {
				x.Errorf("%s is not among what was dropped: %q", want, p.Plan.Dropped)
			}
			continue
		}
		if len(newChildren) == 0 {
			x.Fatalf("the wrapped index lacks %s", d.Platform)
		}
		// The same descriptor, of another image, in the same place.
		for _, key := range []string{"digest", "size"} {
			if bytes.Equal(children[i][key], newChildren[0][key]) {
				x.Errorf("%s of %s is as it was", key, d.Platform)
			}
			children[i][key] = newChildren[0][key]
		}
		if got, want := fmt.Sprintf("%s", newChildren[0]), fmt.Sprintf("%s", children[i]); got != want {
			x.Errorf("the index has %s, want %s", got, want)
		}
		x.unchanged(repository, d, newDescriptors[0])
		wrapped[d.Platform.Architecture] = repository + "@" + newDescriptors[0].Digest.String()
		newChildren, newDescriptors = newChildren[1:], newDescriptors[1:]
	}
	if len(newChildren) != 0 || len(wrapped) != 2 || len(attested) != attestations {
		x.Errorf("%d images are wrapped, %d attested; besides there is %s", len(wrapped), len(attested), newChildren)
	}
	output(x.T, "skopeo", "inspect", "--tls-verify=false", "docker://"+source+"-otel")
	validateContent(x.T, x.crane, source+"-otel")
	x.imgwrap.run(x.T, "verify", source+"-otel")
	if undone := x.imgwrap.run(x.T, "unwrap", source+"-otel"); !strings.HasSuffix(undone, "@"+x.digest(source)+"\n") {
		x.Errorf("unwrapped to %s, want %s", undone, x.digest(source))
	}
	return wrapped
}

// unchanged holds that the source's layers are below the wrapped image's own.
func (x indexes) unchanged(repository string, before, after v1.Descriptor) {
	x.Helper()
	var old, now struct{ Layers []json.RawMessage }
	for d, m := range map[v1.Hash]any{before.Digest: &old, after.Digest: &now} {
		raw, _ := x.raw(repository + "@" + d.String())
		if err := json.Unmarshal(raw, m); err != nil {
			x.Fatal(err)
		}
	}
	if n := len(old.Layers); n < 2 || len(now.Layers) <= n || fmt.Sprintf("%s", now.Layers[:n]) != fmt.Sprintf("%s", old.Layers) {
		x.Errorf("layers of %s\n%s\nwere\n%s", before.Platform, now.Layers, old.Layers)
	}
}

func (x indexes) digest(ref string) string {
	x.Helper()
	_, digest := x.raw(ref)
	return digest.String()
}

// content checks that each platform got what fits it.
func (x indexes) content(wrapped map[string]string) {
	x.Helper()
	for arch, ref := range wrapped {
		files := x.files(ref)
		if launcher := string(files["usr/local/bin/opentelemetry-instrument"]); !strings.HasPrefix(launcher, "#!/usr/bin/python3") {
			x.Errorf("%s: the launcher starts with %.40q", arch, launcher)
		}
		var decided struct{ Instrumentations []string }
		if err := json.Unmarshal(files["opt/imgwrap/wrap.json"], &decided); err != nil || !slices.Contains(decided.Instrumentations, "flask") {
			x.Errorf("%s: decided %v, %v", arch, decided, err)
		}
		native := 0
		for path, content := range files {
			if !strings.HasPrefix(path, "opt/imgwrap/") || !strings.HasSuffix(path, ".so") {
				continue
			}
			native++
			f, err := elf.NewFile(bytes.NewReader(content))
			if err != nil || f.Machine != machines[arch].elf {
				x.Errorf("%s: %s is native code for another machine: %v", arch, path, err)
			}
		}
		if native == 0 {
			x.Errorf("%s has no native layer", arch)
		}
	}
}

// files are those of an image that imgwrap brought.
func (x indexes) files(ref string) map[string][]byte {
	x.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		x.Fatal(err)
	}
	img, err := remote.Image(r, remote.WithContext(x.Context()))
	if err != nil {
		x.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		x.Fatal(err)
	}
	files := map[string][]byte{}
	for _, l := range layers[max(0, len(layers)-3):] {
		content, err := l.Uncompressed()
		if err != nil {
			x.Fatal(err)
		}
		for archive := tar.NewReader(content); ; {
			h, err := archive.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				x.Fatal(err)
			}
			if files[h.Name], err = io.ReadAll(archive); err != nil {
				x.Fatal(err)
			}
		}
		content.Close()
	}
	return files
}

// pull has others take the wrapped index.
func (x indexes) pull(repository string) {
	x.Helper()
	ref := x.bed.Registry() + "/" + repository + ":1.0-otel"
	for arch := range machines {
		if _, err := x.bed.Podman(x.Context(), "pull", "--quiet", "--tls-verify=false", "--platform=linux/"+arch, ref); err != nil {
			x.Error(err)
			continue
		}
		if got, err := x.bed.Podman(x.Context(), "image", "inspect", "--format={{.Architecture}}", ref); err != nil || got != arch {
			x.Errorf("podman pulled %s, %v, want %s", got, err, arch)
		}
	}
	engine, err := x.bed.Engine(wait(x.T))
	if err != nil {
		x.Fatal(err)
	}
	for arch := range machines {
		if _, err := engine.Docker(x.Context(), "pull", "--quiet", "--platform=linux/"+arch, ref); err != nil {
			x.Error(err)
			continue
		}
		if got, err := engine.Docker(x.Context(), "image", "inspect", "--format={{.Architecture}}", ref); err != nil || got != arch {
			x.Errorf("docker pulled %s, %v, want %s", got, err, arch)
		}
	}
}

// image is the source of one platform.
func (x indexes) image(repository string) string {
	x.Helper()
	repository = x.bed.Registry() + "/" + repository
	raw, _ := x.raw(repository + ":1.0")
	_, _, descriptors := x.parse(raw)
	return repository + "@" + descriptors[0].Digest.String()
}

// reproduce wraps what it would on other machines: with nothing but wheels in the
// cache, another number of processors and of jobs.
func (x indexes) reproduce(repository, source string) {
	x.Helper()
	_, want, _ := strings.Cut(strings.TrimSpace(x.imgwrap.run(x.T, source, "-t", "here")), "@")
	for _, machine := range []struct{ processors, jobs string }{{"1", "1"}, {"2", "8"}} {
		cache := x.imgwrap.newCache(x.T, "wheels")
		// Nothing is there yet: every layer has to be made.
		to := fmt.Sprintf("%s/%s/machine-%s:1", x.bed.Registry(), repository, machine.processors)
		cmd := exec.CommandContext(x.Context(), x.imgwrap.program, "--cache-dir", cache, "--jobs", machine.jobs, source, "-t", to)
		cmd.Env = append(os.Environ(), "GOMAXPROCS="+machine.processors)
		if out, err := cmd.CombinedOutput(); err != nil {
			x.Fatalf("%v\n%s", err, out)
		}
		if got := x.digest(to); got != want {
			x.Errorf("with GOMAXPROCS=%s and --jobs %s it becomes %s, want %s", machine.processors, machine.jobs, got, want)
		}
		validateContent(x.T, x.crane, to)
	}
}

// runAll runs the images, emulated where that is needed and possible.
func (x indexes) runAll(service string, wrapped map[string]string) {
	x.Helper()
	for arch, ref := range wrapped {
		if arch != runtime.GOARCH {
			stop, err := testbed.Emulate(arch)
			if err != nil {
				// Not a failure: what is in the image was checked.
				x.Logf("%s was not run: %v", arch, err)
				continue
			}
			defer func() {
				if err := stop(); err != nil {
					x.Error(err)
				}
			}()
		}
		x.run(arch, ref, service)
		x.Logf("%s: the wrapped image ran, and its span arrived", arch)
	}
}

// run runs an image, which has to say what it runs on, and whose request has to
// leave one span.
func (x indexes) run(arch, ref, service string) {
	x.Helper()
	receiver := new(otlp.Receiver)
	collector := httptest.NewServer(receiver)
	defer collector.Close()
	app, err := x.bed.Start(wait(x.T), testbed.RunOptions{Image: ref, Env: []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + collector.URL,
		"OTEL_BSP_SCHEDULE_DELAY=100",
	}})
	if err != nil {
		x.Fatal(err)
	}
	machine, err := app.Get(wait(x.T), "/")
	if err != nil || string(machine) != machines[arch].uname {
		x.Errorf("%s runs on %q, %v", ref, machine, err)
	}
	if _, err := app.Stop(wait(x.T), syscall.SIGINT); err != nil {
		x.Error(err)
	}
	if spans := receiver.Spans(); len(spans) != 1 || spans[0].Kind != "SERVER" || spans[0].Service() != service {
		x.Errorf("%s sent %v\n%s", ref, spans, app.Output())
	}
}

// copies unwraps what others have copied into another registry.
func (x indexes) copies(repository string) {
	x.Helper()
	source := x.bed.Registry() + "/" + repository + ":1.0"
	want := x.digest(source)
	x.imgwrap.run(x.T, source, "-t", "kept", "--attestations", "keep")
	elsewhere := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(true)))
	defer elsewhere.Close()
	addr := strings.TrimPrefix(elsewhere.URL, "http://")
	copies := func(tag string) []string {
		from := x.bed.Registry() + "/" + repository + ":" + tag
		skopeo, crane := addr+"/"+tag+"/skopeo:1", addr+"/"+tag+"/crane:1"
		x.skopeoCopy(from, skopeo, "--all")
		output(x.T, x.crane, "copy", "--insecure", from, crane)
		return []string{skopeo, crane}
	}
	kept, dropped := copies("kept"), copies("1.0-otel")
	undo := func(ref string) {
		x.Helper()
		if got := x.imgwrap.run(x.T, "unwrap", ref); !strings.HasSuffix(got, "@"+want+"\n") {
			x.Errorf("%s was unwrapped to %s, want %s", ref, got, want)
		}
	}
	// What was dropped is where the source is.
	undo(dropped[0])
	if repository != "docker" { // which skopeo converts for layouts
		layout := "oci:" + x.TempDir() + "/layout:"
		output(x.T, "skopeo", "copy", "--quiet", "--all", "--src-tls-verify=false", "docker://"+kept[0], layout+"kept")
		if got := x.imgwrap.run(x.T, "unwrap", layout+"kept", "-t", "undone"); !strings.HasSuffix(got, "@"+want+"\n") {
			x.Errorf("in a layout it was unwrapped to %s, want %s", got, want)
		}
	}
	x.convert(source+"-otel", addr)

	// Without the source, only what was dropped is missed.
	x.forget(source)
	for _, ref := range kept {
		undo(ref)
	}
	raw, _ := x.raw(kept[0])
	if _, _, children := x.parse(raw); len(children) == 2 { // none has attestations
		undo(dropped[1])
		return
	}
	code, out := x.fails("unwrap", dropped[1])
	if code != 3 || !strings.Contains(out, "out of its index, and only the source still has it: ") || !strings.Contains(out, "hint: wrap with --attestations keep") {
		x.Errorf("without the source: exit code %d\n%s", code, out)
	}
}

func (x indexes) skopeoCopy(from, to string, options ...string) {
	x.Helper()
	output(x.T, "skopeo", slices.Concat([]string{"--override-os=linux", "--override-arch=amd64", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"},
		options, []string{"docker://" + from, "docker://" + to})...)
}

// fails runs imgwrap, which should fail, and returns its exit code and what it
// wrote.
func (x indexes) fails(args ...string) (int, string) {
	x.Helper()
	out, err := exec.CommandContext(x.Context(), x.imgwrap.program, append([]string{"--cache-dir", x.imgwrap.cache}, args...)...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		x.Errorf("imgwrap %s: %v\n%s", strings.Join(args, " "), err, out)
		return 0, string(out)
	}
	return exit.ExitCode(), string(out)
}

// convert has skopeo make the other family's manifests of a wrapped index. From
// its images there is a way back all the same; it is said what happened.
func (x indexes) convert(wrapped, addr string) {
	x.Helper()
	raw, _ := x.raw(wrapped)
	_, _, descriptors := x.parse(raw)
	format, family := "v2s2", "docker"
	if strings.Contains(string(descriptors[0].MediaType), "docker") {
		format, family = "oci", "oci"
	}
	child := strings.TrimSuffix(wrapped, ":1.0-otel") + "@" + descriptors[0].Digest.String()
	one, all := addr+"/converted/one:1", addr+"/converted/all:1"
	x.skopeoCopy(child, one, "--format="+format)
	source, _, _ := strings.Cut(x.imgwrap.run(x.T, "unwrap", child), "\n")
	undone := x.imgwrap.run(x.T, "unwrap", one)
	if _, digest, _ := strings.Cut(source, "@"); !strings.HasSuffix(undone, "@"+digest+"\n") {
		x.Errorf("converted to %s, it was unwrapped to %s, want %s", format, undone, digest)
	}
	if out, err := exec.CommandContext(x.Context(), x.imgwrap.program, "--cache-dir", x.imgwrap.cache, "plan", one).CombinedOutput(); err != nil ||
		!bytes.Contains(out, []byte("it was converted to application/vnd."+family)) {
		x.Errorf("the plan for an image that was converted to %s, %v:\n%s", format, err, out)
	}
	x.skopeoCopy(wrapped, all, "--all", "--format="+format)
	code, out := x.fails("unwrap", all)
	if code != 3 || !strings.Contains(out, "it was converted since imgwrap wrapped it: its index is \"application/vnd."+family) {
		x.Errorf("unwrapping an index that was converted to %s: exit code %d\n%s", format, code, out)
	}
}

// forget deletes what a reference stands for.
func (x indexes) forget(ref string) {
	x.Helper()
	r, err := name.NewDigest(strings.TrimSuffix(ref, ":1.0") + "@" + x.digest(ref))
	if err != nil {
		x.Fatal(err)
	}
	if err := remote.Delete(r, remote.WithContext(x.Context())); err != nil {
		x.Fatal(err)
	}
}

// minimal is an image of not much more than Python.
const minimal = `ARG ROOT
FROM ${ROOT}-` + runtime.GOARCH + ` AS root
FROM scratch
COPY --from=root /usr/bin/python3.11 /usr/bin/python3.11
COPY --from=root /usr/lib/python3.11/os.py /usr/lib/python3.11/os.py
COPY --from=root /usr/lib/python3.11/json /usr/lib/python3.11/json
CMD ["/usr/bin/python3.11", "/app.py"]
`

// Layers as those compress them who made up the ways. They are read and kept.
func TestE2EMedia(t *testing.T) {
	x := newIndexes(t)
	x.pushRoot(runtime.GOARCH)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(minimal), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		compression string
		mediaType   types.MediaType
		annotation  string // of the layers
	}{
		{"uncompressed", types.OCIUncompressedLayer, ""},
		{"gzip", types.OCILayer, ""},
		{"zstd", types.OCILayerZStd, ""},
		{"estargz", types.OCILayer, "containerd.io/snapshot/stargz/toc.digest"},
		{"zstd:chunked", types.OCILayerZStd, "io.containers.zstd-chunked.manifest-checksum"},
	} {
		t.Run(tc.compression, func(t *testing.T) {
			x := x
			x.T = t
			repository := strings.ReplaceAll(tc.compression, ":", "-")
			source := x.bed.Registry() + "/" + repository + ":1.0"
			if repository != tc.compression {
				// skopeo compresses nothing that it knows to be compressed in a registry.
				elsewhere := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
				defer elsewhere.Close()
				source = strings.TrimPrefix(elsewhere.URL, "http://") + "/" + repository + ":1.0"
				x.skopeoCopy(x.bed.Registry()+"/uncompressed:1.0", source, "--dest-compress-format="+tc.compression)
			} else if err := x.buildkit.Build(t.Context(), testbed.BuildKitOptions{
				Context:   dir,
				Args:      []string{"ROOT=" + x.bed.Registry() + "/root/bookworm"},
				Platforms: []string{"linux/" + runtime.GOARCH},
				Export:    []string{"oci-mediatypes=true", "force-compression=true", "compression=" + tc.compression},
				Ref:       repository + ":1.0",
			}); err != nil {
				t.Fatal(err)
			}
			x.imgwrap.run(t, source)
			var before, after struct{ Layers []v1.Descriptor }
			raw, digest := x.raw(source)
			wrapped, _ := x.raw(source + "-otel")
			if err := errors.Join(json.Unmarshal(raw, &before), json.Unmarshal(wrapped, &after)); err != nil {
				t.Fatal(err)
			}
			for i, d := range after.Layers {
				switch {
				case i >= len(before.Layers):
					if d.MediaType != types.OCILayer {
						t.Errorf("a layer is added as %s", d.MediaType)
					}
				case d.MediaType != tc.mediaType || tc.annotation != "" && d.Annotations[tc.annotation] == "" || !reflect.DeepEqual(d, before.Layers[i]):
					t.Errorf("layer %d is %+v, was %+v", i, d, before.Layers[i])
				}
			}
			x.imgwrap.run(t, "verify", source+"-otel")
			if tc.mediaType == types.OCILayer { // crane takes every layer for gzip
				validateContent(t, x.crane, source+"-otel")
			}
			if _, err := x.bed.Podman(t.Context(), "pull", "--quiet", "--tls-verify=false", source+"-otel"); err != nil {
				t.Error(err)
			}
			if undone := x.imgwrap.run(t, "unwrap", source+"-otel"); !strings.HasSuffix(undone, "@"+digest.String()+"\n") {
				t.Errorf("unwrapped to %s, want %s", undone, digest)
			}
		})
	}
}
