package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/imgwrap/imgwrap/image/registry/registrytest"
	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/wheel/wheeltest"
)

// releasesVariable names the file with the releases that imgwrap has in the
// scripts: made of a few small wheels, in place of the real ones.
const releasesVariable = "TEST_RELEASES"

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"imgwrap": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
			defer stop()
			os.Exit(run(ctx, os.Args[1:], streams{os.Stdout, os.Stderr, os.Getenv}, func() (*catalog.Catalog, error) {
				b, err := os.ReadFile(os.Getenv(releasesVariable))
				if err != nil {
					return nil, err
				}
				var releases []*catalog.Release
				if err := json.Unmarshal(b, &releases); err != nil {
					return nil, err
				}
				return catalog.New(releases...), nil
			}))
		},
		"engine": fakeEngine,
	})
}

// TestScripts runs the command lines of testdata/script against a registry and
// a package index in this process. A script has the commands
//
//	image REF DIR [docker]   builds an image and pushes it: DIR/config.json is
//	                         its config, the other entries of DIR its layers
//	manifest REF FILE        writes the manifest of an image to a file
//	config REF FILE          writes the config of an image to a file
//	content REF PATH         prints a file of the image, as the top layer has it
//	keeps REF WRAPPED        checks that WRAPPED has the layers of REF below its own
//	validate REF             pulls everything and checks all digests
//	put REF FILE TYPE        pushes a file as a manifest
//	forget REF               deletes the layers of an image from the registry
//	child REF CHILD          pushes an image that is REF with another command
//	index REF ENTRY...       pushes an index of PLATFORM=IMAGE, or of an attestation
//	                         about one as attest=IMAGE, all in one repository
//	children REF             prints platform, digest and annotations of an index's children
//	spoil FILE OLD NEW       replaces a text that is in a file
//	sub FILE REGEXP TEXT     replaces all that matches, by a text in the form of Go's
//	pin FILE TEXT REF        replaces a text by the digest of an image
//	copy REF OTHER           copies an image or index, whose referrers stay behind
//	digest FILE...           checks that plans, reports and printed lines name one digest
//	exits N COMMAND...       runs a command that must end with this exit code
//	moves REF OTHER          has REF become OTHER as soon as it is read once more
//	delete REF               takes a manifest and its tag away
//	attach REF TYPE          attaches an artifact of this type to an image
//	unreachable              takes the package index away
func TestScripts(t *testing.T) {
	releases, wheels := testReleases(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "../../testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			moves := &moves{Handler: registrytest.New(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true)))}
			reg := httptest.NewServer(moves)
			e.Values["moves"] = moves
			pypi := httptest.NewServer(wheels)
			e.Defer(reg.Close)
			e.Defer(pypi.Close)
			file := filepath.Join(e.WorkDir, ".releases.json")
			e.Setenv(releasesVariable, file)
			e.Setenv("REGISTRY", strings.TrimPrefix(reg.URL, "http://"))
			e.Setenv("PIP_INDEX_URL", pypi.URL+"/simple")
			e.Setenv("IMGWRAP_CACHE_DIR", filepath.Join(e.WorkDir, ".cache"))
			e.Values["index"] = pypi
			app, err := net.Listen("tcp", "127.0.0.1:0") // for a port that is free
			if err != nil {
				return err
			}
			e.Setenv("APP_PORT", strconv.Itoa(app.Addr().(*net.TCPAddr).Port))
			if err := app.Close(); err != nil {
				return err
			}
			b, err := json.Marshal(releases)
			if err != nil {
				return err
			}
			return os.WriteFile(file, b, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"image":    pushImage,
			"manifest": saveManifest,
			"config":   func(ts *testscript.TestScript, _ bool, args []string) { save(ts, args, v1.Image.RawConfigFile) },
			"content":  printContent,
			"keeps":    keepsLayers,
			"validate": validateImage,
			"put":      putManifest,
			"forget":   forgetLayers,
			"child":    pushChild,
			"index":    pushIndex,
			"children": printChildren,
			"copy":     copyImage,
			"moves": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Value("moves").(*moves).add(ts, args[0], args[1])
			},
			"sub":         substitute,
			"pin":         pin,
			"delete":      deleteManifest,
			"attach":      attach,
			"spoil":       spoil,
			"digest":      sameDigest,
			"exits":       exits,
			"unreachable": func(ts *testscript.TestScript, _ bool, _ []string) { ts.Value("index").(*httptest.Server).Close() },
		},
	})
}

// testReleases are three releases, the newest first, with upstream's names and
// a few of its requirements, and the index that has their wheels. 1.27.0 alone
// has native code, for amd64.
func testReleases(t *testing.T) ([]*catalog.Release, http.Handler) {
	var releases []*catalog.Release
	index := &wheeltest.Index{Wheels: map[string][]byte{}}
	for _, r := range []struct{ version, contrib, python, protobuf, flask string }{
		{"1.45.1", "0.66b1", "3.10", "protobuf<8.0,>=5.0", "flask >= 1.0"},
		{"1.27.0", "0.48b0", "3.8", "protobuf<5.0,>=3.19", "flask >= 1.0"},
		{"1.17.0", "0.38b0", "3.7", "protobuf<5.0,>=3.19", "flask >= 1.0, < 3.0"},
	} {
		release := &catalog.Release{
			Version: r.version, Contrib: r.contrib,
			Python:           catalog.Python{Min: r.python, Max: "3.14"},
			Propagators:      []string{"b3", "b3multi", "baggage", "tracecontext"},
			TracesExporters:  []string{"otlp_proto_http"},
			MetricsExporters: []string{"otlp_proto_http"},
			LogsExporters:    []string{"otlp_proto_http"},
			Environment:      []string{"OTEL_TRACES_EXPORTER"},
			Instrumentations: []catalog.Instrumentation{
				{Name: "flask", Distribution: "opentelemetry-instrumentation-flask", EntryPoint: "opentelemetry.instrumentation.flask:FlaskInstrumentor", Libraries: []string{r.flask}, Instruments: []string{r.flask}},
				{Name: "wsgi", Distribution: "opentelemetry-instrumentation-wsgi", EntryPoint: "opentelemetry.instrumentation.wsgi:Instrumentor", Always: true},
			},
		}
		for _, d := range []struct{ name, version, requires string }{
			{"opentelemetry-distro", r.contrib, "opentelemetry-sdk==" + r.version},
			{"opentelemetry-exporter-otlp-proto-http", r.version, r.protobuf},
			{"opentelemetry-instrumentation-flask", r.contrib, "opentelemetry-instrumentation-wsgi==" + r.contrib},
			{"opentelemetry-instrumentation-wsgi", r.contrib, ""},
			{"opentelemetry-sdk", r.version, ""},
			{"protobuf", strings.TrimPrefix(r.protobuf[strings.Index(r.protobuf, ">="):], ">="), ""},
		} {
			entry := catalog.Distribution{Name: d.name, Version: d.version}
			module := strings.ReplaceAll(d.name, "-", "_")
			info := module + "-" + d.version + ".dist-info/"
			files := []wheeltest.Entry{{Name: module + "/__init__.py", Content: "# " + d.version + "\n"}}
			if d.requires != "" {
				entry.Requires = []string{d.requires}
				files = append(files, wheeltest.Entry{Name: info + "METADATA", Content: wheeltest.Metadata(d.name, d.version, "Requires-Dist: "+d.requires)})
			}
			for _, i := range release.Instrumentations {
				if i.Distribution == d.name {
					files = append(files, wheeltest.Entry{Name: info + "entry_points.txt", Content: "[opentelemetry_instrumentor]\n" + i.Name + " = " + i.EntryPoint + "\n"})
				}
			}
			content := wheeltest.Make(module, d.version, files...)
			entry.Wheel = module + "-" + d.version + "-py3-none-any.whl"
			entry.SHA256, entry.Size = wheeltest.SHA256(content), int64(len(content))
			index.Wheels[entry.Wheel] = content
			release.Distributions = append(release.Distributions, entry)
		}
		if r.version == "1.27.0" {
			const file = "protobuf-3.19-cp37-abi3-manylinux2014_x86_64.whl"
			content := wheeltest.Make("protobuf", "3.19", wheeltest.Entry{Name: "google/_upb/_message.abi3.so", Content: "\x7fELF"})
			index.Wheels[file] = content
			release.Natives = map[string]catalog.Native{"amd64": {
				Wheel: file, SHA256: wheeltest.SHA256(content), Size: int64(len(content)),
				Libc: "glibc", Python: catalog.Python{Min: "3.8", Max: "3.13"},
			}}
		}
		releases = append(releases, release)
	}
	record(t, releases, index)
	return releases, index
}

// record fills in the layers that the releases build to.
func record(t *testing.T, releases []*catalog.Release, index http.Handler) {
	t.Helper()
	server := httptest.NewServer(index)
	defer server.Close()
	a := app{cacheDir: t.TempDir(), streams: streams{getenv: func(string) string { return "" }}}
	builder, err := a.builder()
	if err != nil {
		t.Fatal(err)
	}
	builder.Wheels.Index = server.URL + "/simple"
	for _, r := range releases {
		l, err := builder.Build(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		r.Layer = recorded(l)
		for arch, n := range r.Natives {
			if l, err = builder.BuildNative(t.Context(), r, arch); err != nil {
				t.Fatal(err)
			}
			n.Layer = recorded(l)
			r.Natives[arch] = n
		}
	}
}

func recorded(l *layer.Layer) catalog.Layer {
	info := l.Info()
	return catalog.Layer{Digest: info.Digest.String(), DiffID: info.DiffID.String(), Size: info.Size, Unpacked: info.Unpacked, Files: info.Files}
}

func pull(ts *testscript.TestScript, ref string) v1.Image {
	r, err := name.ParseReference(ref)
	ts.Check(err)
	im, err := remote.Image(r)
	ts.Check(err)
	return im
}

func save(ts *testscript.TestScript, args []string, document func(v1.Image) ([]byte, error)) {
	b, err := document(pull(ts, args[0]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
}

func saveManifest(ts *testscript.TestScript, _ bool, args []string) {
	r, err := name.ParseReference(args[0])
	ts.Check(err)
	d, err := remote.Get(r)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), d.Manifest, 0o600))
}

func validateImage(ts *testscript.TestScript, _ bool, args []string) {
	r, err := name.ParseReference(args[0])
	ts.Check(err)
	d, err := remote.Get(r)
	ts.Check(err)
	if d.MediaType.IsIndex() {
		index, err := d.ImageIndex()
		ts.Check(err)
		ts.Check(validate.Index(index))
		return
	}
	ts.Check(validate.Image(pull(ts, args[0])))
}

func putManifest(ts *testscript.TestScript, _ bool, args []string) {
	r, err := name.ParseReference(args[0])
	ts.Check(err)
	ts.Check(remote.Put(r, rawManifest{[]byte(ts.ReadFile(args[1])), types.MediaType(args[2])}))
}

type rawManifest struct {
	raw       []byte
	mediaType types.MediaType
}

func (m rawManifest) RawManifest() ([]byte, error)        { return m.raw, nil }
func (m rawManifest) MediaType() (types.MediaType, error) { return m.mediaType, nil }

func pushImage(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[1])
	im := v1.Image(empty.Image)
	layerType := types.DockerLayer
	if !slices.Contains(args[2:], "docker") {
		im = mutate.ConfigMediaType(mutate.MediaType(im, types.OCIManifestSchema1), types.OCIConfigJSON)
		layerType = types.OCILayer
	}
	entries, err := os.ReadDir(dir)
	ts.Check(err)
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		blob := tree(ts, filepath.Join(dir, e.Name()))
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blob)), nil }, tarball.WithMediaType(layerType))
		ts.Check(err)
		im, err = mutate.Append(im, mutate.Addendum{Layer: layer, History: v1.History{CreatedBy: e.Name()}})
		ts.Check(err)
	}
	config, err := im.ConfigFile()
	ts.Check(err)
	config = config.DeepCopy()
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(filepath.Join(dir, "config.json"))), config))
	im, err = mutate.ConfigFile(im, config)
	ts.Check(err)
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	ts.Check(remote.Write(ref, im))
}

// pushIndex writes the index by hand: with fields that nobody knows, and with
// white space.
func pushIndex(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	var children []string
	for _, arg := range args[1:] {
		platform, child, _ := strings.Cut(arg, "=")
		r, err := name.ParseReference(child)
		ts.Check(err)
		d, err := remote.Get(r)
		ts.Check(err)
		os, architecture, _ := strings.Cut(platform, "/")
		annotations := ""
		if platform == "attest" {
			statement := static.NewLayer([]byte(`{"about":"`+d.Digest.String()+`"}`), "application/vnd.in-toto+json")
			im, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), statement)
			ts.Check(err)
			annotations = fmt.Sprintf(`, "annotations": {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": "%s"}`, d.Digest)
			os, architecture = "unknown", "unknown"
			digest, err := im.Digest()
			ts.Check(err)
			r := ref.Context().Digest(digest.String())
			ts.Check(remote.Write(r, im))
			d, err = remote.Get(r)
			ts.Check(err)
		}
		architecture, variant, _ := strings.Cut(architecture, "/")
		if variant != "" {
			variant = fmt.Sprintf(`, "variant": %q`, variant)
		}
		children = append(children, fmt.Sprintf(`{ "mediaType": %q, "size": %d, "digest": %q, "platform": {"os": %q, "architecture": %q%s}%s }`,
			d.MediaType, d.Size, d.Digest, os, architecture, variant, annotations))
	}
	raw := fmt.Sprintf("{\n  \"schemaVersion\": 2,\n  \"mediaType\": %q,\n  \"x-vendor\": [1.0],\n  \"manifests\": [\n    %s\n  ],\n  \"annotations\": {\"kept\": \"<yes>\"}\n}\n",
		types.OCIImageIndex, strings.Join(children, ",\n    "))
	ts.Check(remote.Put(ref, rawManifest{[]byte(raw), types.OCIImageIndex}))
}

func printChildren(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	index, err := remote.Index(ref)
	ts.Check(err)
	m, err := index.IndexManifest()
	ts.Check(err)
	for _, d := range m.Manifests {
		fmt.Fprintln(ts.Stdout(), d.Platform, d.Digest, d.Annotations)
	}
}

// moves is a registry of whose tags some move when they are read.
type moves struct {
	http.Handler
	mu sync.Mutex
	to map[string]func() // by the path of the manifest
}

func (m *moves) add(ts *testscript.TestScript, from, to string) {
	tag, err := name.NewTag(from)
	ts.Check(err)
	other, err := name.ParseReference(to)
	ts.Check(err)
	d, err := remote.Get(other)
	ts.Check(err)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.to = map[string]func(){"/v2/" + tag.RepositoryStr() + "/manifests/" + tag.TagStr(): func() {
		if err := remote.Tag(tag, d); err != nil {
			panic(err)
		}
	}}
}

func (m *moves) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.Handler.ServeHTTP(w, r)
	if r.Method != http.MethodGet {
		return
	}
	m.mu.Lock()
	move := m.to[r.URL.Path]
	delete(m.to, r.URL.Path)
	m.mu.Unlock()
	if move != nil {
		move()
	}
}

func substitute(ts *testscript.TestScript, _ bool, args []string) {
	text, err := strconv.Unquote(`"` + args[2] + `"`)
	ts.Check(err)
	content := regexp.MustCompile(args[1]).ReplaceAllString(ts.ReadFile(args[0]), text)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(content), 0o600))
}

func pin(ts *testscript.TestScript, neg bool, args []string) {
	ref, err := name.ParseReference(args[2])
	ts.Check(err)
	d, err := remote.Head(ref)
	ts.Check(err)
	spoil(ts, neg, []string{args[0], args[1], d.Digest.String()})
}

func deleteManifest(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	d, err := remote.Head(ref)
	ts.Check(err)
	ts.Check(remote.Delete(ref))
	ts.Check(remote.Delete(ref.Context().Digest(d.Digest.String())))
}

func attach(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	d, err := remote.Head(ref)
	ts.Check(err)
	im := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.MediaType(args[1]))
	im = mutate.Subject(im, *d).(v1.Image)
	digest, err := im.Digest()
	ts.Check(err)
	ts.Check(remote.Write(ref.Context().Digest(digest.String()), im))
}

func spoil(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s does not contain %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(text, args[1], args[2])), 0o600))
}

func copyImage(ts *testscript.TestScript, _ bool, args []string) {
	from, err := name.ParseReference(args[0])
	ts.Check(err)
	to, err := name.ParseReference(args[1])
	ts.Check(err)
	d, err := remote.Get(from)
	ts.Check(err)
	if d.MediaType.IsIndex() {
		index, err := d.ImageIndex()
		ts.Check(err)
		ts.Check(remote.WriteIndex(to, index))
		return
	}
	im, err := d.Image()
	ts.Check(err)
	ts.Check(remote.Write(to, im))
}

func pushChild(ts *testscript.TestScript, _ bool, args []string) {
	im := pull(ts, args[0])
	config, err := im.ConfigFile()
	ts.Check(err)
	config = config.DeepCopy()
	config.Config.Cmd = []string{"python3", "-m", "other"}
	im, err = mutate.ConfigFile(im, config)
	ts.Check(err)
	ref, err := name.ParseReference(args[1])
	ts.Check(err)
	ts.Check(remote.Write(ref, im))
}

// elfHead is the start of an x86_64 executable that is loaded by glibc's
// loader, enough to be recognised.
func elfHead() string {
	const interp = "/lib64/ld-linux-x86-64.so.2\x00"
	head := make([]byte, 64+56)
	copy(head, "\x7fELF\x02\x01\x01")
	head[16], head[18], head[20] = 2, 62, 1 // ET_EXEC, EM_X86_64, EV_CURRENT
	head[32], head[52], head[54], head[56] = 64, 64, 56, 1
	ph := head[64:]
	ph[0], ph[8], ph[32], ph[40] = 3, 64+56, byte(len(interp)), byte(len(interp)) // PT_INTERP
	return string(head) + interp
}

// tree packs a directory as a layer. A file that holds "ELF" becomes an
// executable, one that starts with "#!" is executable, and one that holds
// "link: TARGET" is a symbolic link.
func tree(ts *testscript.TestScript, root string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	ts.Check(filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || file == root {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: rel, Mode: 0o644, Typeflag: tar.TypeReg}
		content := ""
		if d.IsDir() {
			h.Name, h.Typeflag, h.Mode = rel+"/", tar.TypeDir, 0o755
		} else {
			raw, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			content = string(raw)
			switch {
			case strings.TrimSpace(content) == "ELF":
				content, h.Mode = elfHead(), 0o755
			case strings.HasPrefix(content, "#!"):
				h.Mode = 0o755
			case strings.HasPrefix(content, "link: "):
				h.Typeflag, h.Linkname, content = tar.TypeSymlink, strings.TrimSpace(content[len("link: "):]), ""
			}
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err = io.WriteString(w, content)
		return err
	}))
	ts.Check(w.Close())
	return b.Bytes()
}

func printContent(ts *testscript.TestScript, _ bool, args []string) {
	layers, err := pull(ts, args[0]).Layers()
	ts.Check(err)
	for _, l := range slices.Backward(layers) {
		r, err := l.Uncompressed()
		ts.Check(err)
		t := tar.NewReader(r)
		for {
			h, err := t.Next()
			if err == io.EOF {
				break
			}
			ts.Check(err)
			if h.Name == strings.TrimPrefix(args[1], "/") {
				_, err := io.Copy(ts.Stdout(), t)
				ts.Check(err)
				ts.Check(r.Close())
				return
			}
		}
		ts.Check(r.Close())
	}
	ts.Fatalf("%s has no %s", args[0], args[1])
}

func keepsLayers(ts *testscript.TestScript, _ bool, args []string) {
	digests := func(ref string) (list []string) {
		m, err := pull(ts, ref).Manifest()
		ts.Check(err)
		for _, l := range m.Layers {
			list = append(list, fmt.Sprint(l.MediaType, l.Size, l.Digest))
		}
		return list
	}
	before, after := digests(args[0]), digests(args[1])
	if len(before) >= len(after) || !slices.Equal(before, after[:len(before)]) {
		ts.Fatalf("layers of %s are %v, those of %s are %v", args[0], before, args[1], after)
	}
}

func sameDigest(ts *testscript.TestScript, _ bool, files []string) {
	var digests []string
	for _, file := range files {
		content := ts.ReadFile(file)
		var document struct{ Digest string }
		if err := json.Unmarshal([]byte(content), &document); err != nil {
			_, document.Digest, _ = strings.Cut(strings.TrimSpace(content), "@")
		}
		if _, err := v1.NewHash(document.Digest); err != nil {
			ts.Fatalf("%s: %v", file, err)
		}
		digests = append(digests, document.Digest)
	}
	if len(slices.Compact(digests)) != 1 {
		ts.Fatalf("digests differ: %v", digests)
	}
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}
