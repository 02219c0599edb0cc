//go:build e2e

package main_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
	"github.com/imgwrap/imgwrap/image/registry"
)

// transports copies images between the places that hold them.
type transports struct {
	*testing.T
	bed    *testbed.Bed
	engine *testbed.Engine
	client *registry.Client
}

// copy copies an image with imgwrap's own code and returns what is there now.
func (t transports) copy(from, to string) registry.Report {
	t.Helper()
	src := t.find(from)
	dst, err := t.client.ParseReference(to)
	if err != nil {
		t.Fatal(err)
	}
	if dst.Transport.KeepsManifests() {
		if err := src.Compress(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
	}
	report, err := t.client.Write(t.Context(), dst, src, registry.Tree{Root: src.Root})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func (t transports) find(ref string) *registry.Source {
	t.Helper()
	src, err := t.client.Find(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

// image is the config and digest of an image.
func (t transports) image(ref string) *registry.Image {
	t.Helper()
	src := t.find(ref)
	im, err := src.Image(t.Context(), src.Root)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

func (t transports) skopeo(args ...string) string {
	t.Helper()
	return output(t.T, "skopeo", append([]string{"--insecure-policy"}, args...)...)
}

func (t transports) skopeoCopy(from, to string) {
	t.Helper()
	t.skopeo("copy", "--quiet", "--all", "--src-tls-verify=false", "--dest-tls-verify=false",
		"--src-daemon-host="+t.engine.Host(), "--dest-daemon-host="+t.engine.Host(), from, to)
}

// wantDigest checks what skopeo finds.
func (t transports) wantDigest(ref string, want v1.Hash) {
	t.Helper()
	raw := t.skopeo("inspect", "--raw", "--tls-verify=false", ref)
	if got, _, _ := v1.SHA256(strings.NewReader(raw)); got != want {
		t.Errorf("skopeo finds %s at %s, want %s", got, ref, want)
	}
}

func TestE2ETransports(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	engine, err := bed.Engine(wait(t))
	if err != nil {
		t.Fatal(err)
	}
	// The client finds the engine by its own environment. Nobody else does.
	if err := os.Setenv("DOCKER_HOST", engine.Host()); err != nil {
		t.Fatal(err)
	}
	client := registry.New(registry.Options{})
	for recipe, mediaType := range map[string]types.MediaType{
		"bookworm-gunicorn": types.OCIManifestSchema1,
		"bullseye-venv":     types.DockerManifestSchema2,
	} {
		t.Run(recipe, func(t *testing.T) {
			digest, err := bed.Push(t.Context(), recipe, "transports/"+recipe+":1.0")
			if err != nil {
				t.Fatal(err)
			}
			tt := transports{t, bed, engine, client}
			source := bed.Registry() + "/transports/" + recipe + ":1.0"
			im := tt.image(source)
			if im.MediaType != mediaType || im.Digest != digest {
				t.Fatalf("%s is %s, %s", source, im.MediaType, im.Digest)
			}
			tt.layouts(source, im)
			tt.dockerArchive(source, im)
			tt.dockerEngine(source, im)
		})
	}
}

// layouts: what we write is what skopeo reads, and the other way round.
func (t transports) layouts(source string, im *registry.Image) {
	dir := t.TempDir()
	for _, kind := range []string{"oci", "oci-archive"} {
		ours, theirs := kind+":"+dir+"/our-"+kind, kind+":"+dir+"/their-"+kind
		if report := t.copy(source, ours); report.Digest != im.Digest {
			t.Errorf("%s has %s", ours, report.Digest)
		}
		t.wantDigest(ours, im.Digest)
		back := t.bed.Registry() + "/back/" + kind + ":1"
		t.skopeoCopy(ours, "docker://"+back)
		t.wantDigest("docker://"+back, im.Digest)
		if report := t.copy(ours, back); !report.UpToDate {
			t.Errorf("%s is not up to date: %+v", back, report)
		}

		// skopeo looks for a tag among OCI manifests only, and makes OCI manifests of
		// Docker's.
		if im.MediaType == types.OCIManifestSchema1 {
			t.copy(source, ours+"-tagged:1.0")
			t.wantDigest(ours+"-tagged:1.0", im.Digest)
			t.skopeoCopy("docker://"+source, theirs+":1.0")
			t.wantDigest(theirs+":1.0", t.image(theirs+":1.0").Digest)
		}
	}
}

func (t transports) dockerArchive(source string, im *registry.Image) {
	id := im.Manifest.Config.Digest
	dir := t.TempDir()
	ours := "docker-archive:" + dir + "/our.tar:team/app:1.0"
	if report := t.copy(source, ours); report.Digest != id {
		t.Errorf("%s has the image ID %s, want %s", ours, report.Digest, id)
	}
	if config := t.skopeo("inspect", "--config", "--raw", ours); config != string(im.RawConfig) {
		t.Error("skopeo finds another config")
	}
	t.skopeoCopy(ours, "docker://"+t.bed.Registry()+"/back/docker-archive:1")
	if got := t.image(t.bed.Registry() + "/back/docker-archive:1"); !bytes.Equal(got.RawConfig, im.RawConfig) {
		t.Error("skopeo copies another config")
	}

	loaded, err := t.bed.Podman(t.Context(), "load", "--quiet", "--input", dir+"/our.tar")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(loaded, "/team/app:1.0") {
		t.Errorf("podman loaded %q", loaded)
	}
	if got, err := t.bed.Podman(t.Context(), "image", "inspect", "--format", "{{.Id}}", "team/app:1.0"); err != nil || got != id.Hex {
		t.Errorf("podman has %s, %v, want %s", got, err, id)
	}
	if out, err := t.bed.Run(t.Context(), testbed.RunOptions{Image: id.Hex, Entrypoint: "python3", Args: []string{"-c", "print(6 * 7)"}}); err != nil || out != "42\n" {
		t.Errorf("podman runs %q, %v", out, err)
	}

	// Archives that others make: uncompressed, with links, as OCI layouts too.
	t.skopeoCopy("docker://"+source, "docker-archive:"+dir+"/skopeo.tar:team/app:1.0")
	for _, format := range []string{"docker-archive", "oci-archive"} {
		if _, err := t.bed.Podman(t.Context(), "save", "--quiet", "--format", format, "--output", dir+"/podman-"+format, id.Hex); err != nil {
			t.Fatal(err)
		}
	}
	for _, ref := range []string{"docker-archive:" + dir + "/skopeo.tar:team/app:1.0", "docker-archive:" + dir + "/podman-docker-archive", "oci-archive:" + dir + "/podman-oci-archive"} {
		t.copy(ref, t.bed.Registry()+"/back/read:1")
		got := t.image(t.bed.Registry() + "/back/read:1")
		if fmt.Sprint(got.Config.RootFS) != fmt.Sprint(im.Config.RootFS) || fmt.Sprint(got.Config.Config) != fmt.Sprint(im.Config.Config) {
			t.Errorf("%s is another image", ref)
		}
		t.wantDigest("docker://"+t.bed.Registry()+"/back/read:1", got.Digest)
	}
}

func (t transports) dockerEngine(source string, im *registry.Image) {
	id := im.Manifest.Config.Digest
	if report := t.copy(source, "docker-daemon:team/app:1.0"); report.Digest != id {
		t.Errorf("the engine has the image ID %s, want %s", report.Digest, id)
	}
	if got, err := t.engine.Docker(t.Context(), "image", "inspect", "--format", "{{.Id}}", "team/app:1.0"); err != nil || got != id.String() {
		t.Errorf("docker has %s, %v, want %s", got, err, id)
	}
	run := func(image string) {
		t.Helper()
		out, err := t.engine.Docker(t.Context(), "run", "--rm", "--network=host", "--security-opt=seccomp=unconfined", "--entrypoint=python3", image, "-c", "print(6 * 7)")
		if err != nil || out != "42" {
			t.Errorf("docker runs %q, %v", out, err)
		}
	}
	run("team/app:1.0")

	// Back, compressed, and pulled by docker: the same image.
	back := t.bed.Registry() + "/back/engine:1"
	t.copy("docker-daemon:team/app:1.0", back)
	if _, err := t.engine.Docker(t.Context(), "pull", "--quiet", back); err != nil {
		t.Error(err)
	}
	if got, err := t.engine.Docker(t.Context(), "image", "inspect", "--format", "{{.Id}}", back); err != nil || got != id.String() {
		t.Errorf("docker pulled %s, %v, want %s", got, err, id)
	}

	// A new image of an old one: only what is new is sent, and it runs.
	src := t.find("docker-daemon:team/app:1.0")
	changed := bytes.Replace(im.RawConfig, []byte("{"), []byte(`{"x":1,`), 1)
	var m v1.Manifest
	if err := json.Unmarshal(src.Root.Raw, &m); err != nil {
		t.Fatal(err)
	}
	m.Config.Digest, m.Config.Size, _ = v1.SHA256(bytes.NewReader(changed))
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	dst, err := t.client.ParseReference("docker-daemon:team/app:2.0")
	if err != nil {
		t.Fatal(err)
	}
	report, err := t.client.Write(t.Context(), dst, src, registry.Tree{Root: registry.NewDocument(src.Root.MediaType, raw), Configs: [][]byte{changed}})
	if err != nil || report.Uploaded.Blobs != 1 || report.Existing.Blobs != len(m.Layers) {
		t.Errorf("%+v, %v", report, err)
	}
	run("team/app:2.0")
	if _, err := t.engine.Docker(t.Context(), "image", "rm", "--force", "team/app:1.0", back); err != nil {
		t.Error(err)
	}
	run("team/app:2.0")

	saved := filepath.Join(t.TempDir(), "saved.tar")
	if _, err := t.engine.Docker(t.Context(), "save", "--output", saved, "team/app:2.0"); err != nil {
		t.Fatal(err)
	}
	if got := t.image("docker-archive:" + saved + ":team/app:2.0"); got.Manifest.Config.Digest != m.Config.Digest {
		t.Errorf("docker saved %s, want %s", got.Manifest.Config.Digest, m.Config.Digest)
	}
	if _, err := t.engine.Docker(t.Context(), "image", "rm", "--force", "team/app:2.0"); err != nil {
		t.Error(err)
	}
}

// An index goes through layouts and back, byte for byte, ours and skopeo's.
func TestE2ETransportsIndex(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	tt := transports{t, bed, &testbed.Engine{}, registry.New(registry.Options{})}
	var index v1.ImageIndex = empty.Index
	for _, arch := range []string{"amd64", "arm64"} {
		layer, err := random.Layer(10_000, types.OCILayer)
		if err != nil {
			t.Fatal(err)
		}
		img := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}, Annotations: map[string]string{"a": "b"}},
		})
	}
	source := bed.Registry() + "/index:1"
	ref, err := tt.client.ParseReference(source)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref.Named(), index); err != nil {
		t.Fatal(err)
	}
	// Debian's skopeo drops what it does not know from an index, such as the
	// artifactType that go-containerregistry writes.
	var known struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
		Manifests     []struct {
			MediaType   types.MediaType   `json:"mediaType"`
			Digest      v1.Hash           `json:"digest"`
			Size        int64             `json:"size"`
			Annotations map[string]string `json:"annotations"`
			Platform    *v1.Platform      `json:"platform"`
		} `json:"manifests"`
	}
	src := tt.find(source)
	if err := json.Unmarshal(src.Root.Raw, &known); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(known)
	if err != nil {
		t.Fatal(err)
	}
	report, err := tt.client.Write(t.Context(), ref, src, registry.Tree{Root: registry.NewDocument(known.MediaType, raw)})
	if err != nil {
		t.Fatal(err)
	}
	digest := report.Digest
	dir := t.TempDir()
	for _, kind := range []string{"oci", "oci-archive"} {
		ours, theirs := kind+":"+dir+"/our-"+kind+":1.0", kind+":"+dir+"/their-"+kind+":1.0"
		tt.copy(source, ours)
		tt.wantDigest(ours, digest)
		back := bed.Registry() + "/back/" + kind
		tt.skopeoCopy(ours, "docker://"+back+":theirs")
		tt.wantDigest("docker://"+back+":theirs", digest)
		tt.skopeoCopy("docker://"+source, theirs)
		if report := tt.copy(theirs, back+":ours"); report.Digest != digest {
			t.Errorf("%s has %s, want %s", back, report.Digest, digest)
		}
		tt.wantDigest("docker://"+back+":ours", digest)
	}
}

// The environment's proxy and certificate authority are used.
func TestE2ENetwork(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	server := httptest.NewUnstartedServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS() // its certificate is for example.com
	defer server.Close()
	addr := server.Listener.Addr().String()
	var tunnels atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != "example.com:443" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		tunnels.Add(1)
		there, err := net.Dial("tcp", addr)
		if err != nil {
			panic(err)
		}
		here, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		fmt.Fprint(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(there, here); there.Close() }()
		_, _ = io.Copy(here, there)
		here.Close()
	}))
	defer proxy.Close()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := registry.New(registry.Options{}).ParseReference(addr + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref.Named(), img, remote.WithTransport(server.Client().Transport)); err != nil {
		t.Fatal(err)
	}
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	inspect := func(env ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), w.program, "inspect", "example.com/app:1")
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, variable := range []string{"HTTPS_PROXY", "https_proxy"} {
		before := tunnels.Load()
		if out, err := inspect(variable+"="+proxy.URL, "SSL_CERT_FILE="+authority); err != nil || tunnels.Load() == before {
			t.Errorf("%s: %v, %d tunnels\n%s", variable, err, tunnels.Load()-before, out)
		}
	}
	out, err := inspect("HTTPS_PROXY=" + proxy.URL)
	if err == nil || !strings.Contains(out, "example.com has a certificate that cannot be trusted") || !strings.Contains(out, "SSL_CERT_FILE") {
		t.Errorf("without the authority: %v\n%s", err, out)
	}
}
