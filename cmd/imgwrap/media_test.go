package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/imgwrap/imgwrap/layer/catalog"
)

// mediaRegistry is a registry to which documents are pushed as they were
// written, and what wraps its images.
type mediaRegistry struct {
	*testing.T
	address string
	cache   string
	catalog *catalog.Catalog
	index   string // of packages
}

func newMediaRegistry(t *testing.T) *mediaRegistry {
	t.Helper()
	reg := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true)))
	t.Cleanup(reg.Close)
	releases, wheels := testReleases(t)
	pypi := httptest.NewServer(wheels)
	t.Cleanup(pypi.Close)
	return &mediaRegistry{t, strings.TrimPrefix(reg.URL, "http://"), t.TempDir(), catalog.New(releases...), pypi.URL + "/simple"}
}

// run runs imgwrap and returns its exit code and what it wrote.
func (m *mediaRegistry) run(args ...string) (code int, stdout, stderr string) {
	m.Helper()
	var out, errs bytes.Buffer
	code = run(m.Context(), append([]string{"--cache-dir", m.cache}, args...), streams{&out, &errs, func(name string) string {
		return map[string]string{"PIP_INDEX_URL": m.index}[name]
	}}, func() (*catalog.Catalog, error) { return m.catalog, nil })
	return code, out.String(), errs.String()
}

func (m *mediaRegistry) reference(ref string) name.Reference {
	m.Helper()
	r, err := name.ParseReference(m.address + "/" + ref)
	if err != nil {
		m.Fatal(err)
	}
	return r
}

// put pushes a document.
func (m *mediaRegistry) put(ref, raw string, mediaType types.MediaType) {
	m.Helper()
	if err := remote.Put(m.reference(ref), rawManifest{[]byte(raw), mediaType}); err != nil {
		m.Fatal(err)
	}
}

// blob pushes a blob, and returns the start of its descriptor.
func (m *mediaRegistry) blob(repository string, content []byte, mediaType types.MediaType) string {
	m.Helper()
	if err := remote.WriteLayer(m.reference(repository).Context(), static.NewLayer(content, mediaType)); err != nil {
		m.Fatal(err)
	}
	return describe(content, mediaType)
}

func describe(content []byte, mediaType types.MediaType) string {
	return fmt.Sprintf(`"mediaType":%q,"digest":"sha256:%s","size":%d`, mediaType, sha256Hex(content), len(content))
}

func sha256Hex(content []byte) string {
	digest, _, _ := v1.SHA256(bytes.NewReader(content))
	return digest.Hex
}

// get is a document as the registry has it.
func (m *mediaRegistry) get(ref string) []byte {
	m.Helper()
	d, err := remote.Get(m.reference(ref))
	if err != nil {
		m.Fatal(err)
	}
	return d.Manifest
}

func (m *mediaRegistry) config(ref string) []byte {
	m.Helper()
	im, err := remote.Image(m.reference(ref))
	if err != nil {
		m.Fatal(err)
	}
	raw, err := im.RawConfigFile()
	if err != nil {
		m.Fatal(err)
	}
	return raw
}

// wrap wraps repository:1, and checks what has to hold whatever the image: what
// was planned was pushed, another time changes nothing, and unwrapping gives the
// source back. It returns the manifest.
func (m *mediaRegistry) wrap(repository string, args ...string) []byte {
	m.Helper()
	source := m.address + "/" + repository + ":1"
	must := func(args ...string) string {
		m.Helper()
		code, out, errs := m.run(args...)
		if code != exitOK {
			m.Fatalf("imgwrap %s: exit code %d\n%s", strings.Join(args, " "), code, errs)
		}
		return out
	}
	var plan struct{ Digest string }
	if err := json.Unmarshal([]byte(must(append([]string{"plan", "-o", "json", source}, args...)...)), &plan); err != nil {
		m.Fatal(err)
	}
	line := must(append([]string{source}, args...)...)
	if !strings.HasSuffix(line, "@"+plan.Digest+"\n") {
		m.Errorf("pushed %q, planned %s", line, plan.Digest)
	}
	for _, ref := range []string{source, source + "-otel"} {
		if again := must(append([]string{ref}, args...)...); again != line {
			m.Errorf("wrapping %s then gives %q, first %q", ref, again, line)
		}
	}
	if again := must(append([]string{"plan", "-o", "json", source + "-otel"}, args...)...); !strings.Contains(again, plan.Digest) {
		m.Errorf("wrapping the wrapped image is planned to give\n%s\nnot %s", again, plan.Digest)
	}
	must("unwrap", source+"-otel", "-t", "undone")
	if got, want := string(m.get(repository+":undone")), string(m.get(repository+":1")); got != want {
		m.Errorf("unwrapped to\n%s\nwant\n%s", got, want)
	}
	return m.get(repository + ":1-otel")
}

// member is a file of a layer.
type member struct{ name, content string }

// pythonFiles are enough of a Python to be found.
var pythonFiles = []member{
	{"usr/local/bin/python3.11", elfHead()},
	{"usr/local/lib/python3.11/os.py", "# the standard library\n"},
	{"usr/local/lib/python3.11/site-packages/flask-3.0.3.dist-info/METADATA", "Name: Flask\nVersion: 3.0.3\n"},
}

// pack returns an archive in parts, one a file and the end.
func pack(t *testing.T, files ...member) [][]byte {
	t.Helper()
	var b bytes.Buffer
	var parts [][]byte
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o755, Size: int64(len(f.content))}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, bytes.Clone(b.Bytes()))
		b.Reset()
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return append(parts, b.Bytes())
}

func gzipped(part []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(part) // into memory
	_ = w.Close()
	return b.Bytes()
}

func zstandard(part []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	defer w.Close()
	return w.EncodeAll(part, nil)
}

// encodings compress an archive's parts.
var encodings = map[string]func(parts [][]byte) []byte{
	"none": func(parts [][]byte) []byte { return bytes.Join(parts, nil) },
	"gzip": func(parts [][]byte) []byte { return gzipped(bytes.Join(parts, nil)) },
	"zstd": func(parts [][]byte) []byte { return zstandard(bytes.Join(parts, nil)) },
	// A gzip member for each file, and an empty one that tells where the table
	// of contents is (stargz-snapshotter, docs/estargz.md).
	"eStargz": func(parts [][]byte) []byte {
		var blob []byte
		for _, p := range parts {
			blob = append(blob, gzipped(p)...)
		}
		var footer bytes.Buffer
		w, _ := gzip.NewWriterLevel(&footer, gzip.NoCompression)
		w.Extra = fmt.Appendf([]byte("SG\x16\x00"), "%016xSTARGZ", len(blob)/2)
		_ = w.Close()
		return append(blob, footer.Bytes()...)
	},
	// A frame for each file, and a skippable one with the table of contents
	// (containers/storage, docs/containers-storage-zstd-chunked.md).
	"zstd:chunked": func(parts [][]byte) []byte {
		var blob []byte
		for _, p := range parts {
			blob = append(blob, zstandard(p)...)
		}
		contents := zstandard([]byte(`{"version":1,"entries":[]}`))
		blob = binary.LittleEndian.AppendUint32(append(blob, 0x50, 0x2a, 0x4d, 0x18), uint32(len(contents)))
		return append(blob, contents...)
	},
}

// layered is an image of one layer, config and manifest.
func layered(diffID, fields string) string {
	return fmt.Sprintf(`{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/usr/local/bin/python3.11","-m","app"]},`+
		`"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}%s}`, diffID, fields)
}

// Layers of every compression are read and kept, and those that are added are of
// the manifest's family, whatever the others are.
func TestMedia(t *testing.T) {
	m := newMediaRegistry(t)
	parts := pack(t, pythonFiles...)
	for _, tc := range []struct {
		encoding    string
		layer       types.MediaType
		annotations string
	}{
		{"gzip", types.DockerLayer, ""},
		{"none", types.DockerUncompressedLayer, ""},
		{"gzip", types.OCILayer, ""},
		{"none", types.OCIUncompressedLayer, ""},
		{"zstd", types.OCILayerZStd, ""},
		{"eStargz", types.OCILayer, `,"annotations":{"containerd.io/snapshot/stargz/toc.digest":"sha256:00","io.containers.estargz.uncompressed-size":"1"}`},
		{"eStargz", types.DockerLayer, ""},
		{"zstd:chunked", types.OCILayerZStd, `,"annotations":{"io.github.containers.zstd-chunked.manifest-position":"1:2:3:1"}`},
		{"gzip", types.OCIRestrictedLayer, `,"urls":["https://example.com/layer"]`},
		{"gzip", types.DockerForeignLayer, `,"urls":["https://example.com/layer"]`},
	} {
		t.Run(tc.encoding+" "+string(tc.layer), func(t *testing.T) {
			m := *m
			m.T = t
			repository := "media/" + strings.ToLower(strings.ReplaceAll(fmt.Sprintf("%s-%x", tc.encoding, string(tc.layer)), ":", "-"))
			manifestType, configType, added := types.OCIManifestSchema1, types.OCIConfigJSON, types.OCILayer
			if strings.Contains(string(tc.layer), "docker") {
				manifestType, configType, added = types.DockerManifestSchema2, types.DockerConfigJSON, types.DockerLayer
			}
			config := m.blob(repository, []byte(layered(sha256Hex(bytes.Join(parts, nil)), "")), configType)
			content := encodings[tc.encoding](parts)
			m.blob(repository, content, tc.layer)
			layer := "{" + describe(content, tc.layer) + tc.annotations + "}"
			m.put(repository+":1", fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{%s},"layers":[%s]}`, manifestType, config, layer), manifestType)

			var manifest struct {
				MediaType types.MediaType
				Config    v1.Descriptor
				Layers    []json.RawMessage
			}
			if err := json.Unmarshal(m.wrap(repository), &manifest); err != nil {
				t.Fatal(err)
			}
			if manifest.MediaType != manifestType || manifest.Config.MediaType != configType {
				t.Errorf("the manifest is %s, its config %s", manifest.MediaType, manifest.Config.MediaType)
			}
			if len(manifest.Layers) != 3 || string(manifest.Layers[0]) != layer {
				t.Fatalf("layers %s, want %s first", manifest.Layers, layer)
			}
			for _, raw := range manifest.Layers[1:] {
				var d v1.Descriptor
				if err := json.Unmarshal(raw, &d); err != nil || d.MediaType != added {
					t.Errorf("layer %s was added, want the type %s", raw, added)
				}
			}
			// Into another repository too: a layer that its publisher keeps stays there.
			code, _, errs := m.run(m.address+"/"+repository+":1", "-t", m.address+"/elsewhere/"+repository+":1")
			if code != exitOK {
				t.Fatal(errs)
			}
		})
	}
}

// unknownConfig has ten fields that the OCI image-spec does not know, spellings
// that encoders change, and what it knows besides.
const unknownConfig = `{
  "architecture": "arm64", "variant": "v8", "os": "linux", "os.version": "6.1", "os.features": ["a"],
  "created": "2026-01-02T03:04:05.678Z",
  "author": "<someone@example.com>",
  "vendor.first": {"nested": [1.0, 2e3, "é"], "again": null},
  "moby.buildkit.cache.v0": "AAAA", "moby.buildkit.buildinfo.v1": {"frontend": "dockerfile.v0"},
  "container": "deadbeef", "container_config": {"Cmd": ["#(nop)"], "Hostname": ""},
  "docker_version": "20.10", "throwaway": true,
  "config": {
    "Entrypoint": ["/usr/local/bin/python3.11", "-m", "app"], "Cmd": ["--port", "80"],
    "Env": ["PATH=/usr/local/bin:/usr/bin", "LANG=C.UTF-8"],
    "Healthcheck": {"Test": ["CMD", "true"], "StartInterval": 5000000000, "Vendor": 1},
    "StopTimeout": 12345678901234567890, "ArgsEscaped": false, "OnBuild": null, "Domainname": "",
    "Labels": {"kept": "\u003cyes\u003e"}
  },
  "rootfs": {"type": "layers", "diff_ids": ["sha256:DIFFID"], "vendor": {}},
  "history": [{"created_by": "COPY", "vendor": 7}, {"created_by": "CMD", "empty_layer": true}]
}
`

const unknownManifest = `{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "artifactType": "application/vnd.example.app",
  "config": {CONFIG, "annotations": {"a": "b"}, "vendor": "c"},
  "layers": [ {LAYER, "annotations": {"d": "<e>"}, "data": null} ],
  "subject": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:SUBJECT", "size": 2},
  "annotations": {"org.opencontainers.image.title": "<app>"},
  "vendor": [1.0]
}
`

// What the plan lists differs between an image and what it becomes, and nothing
// else.
func TestMediaDifference(t *testing.T) {
	m := newMediaRegistry(t)
	parts := pack(t, pythonFiles...)
	layer := m.blob("app", gzipped(bytes.Join(parts, nil)), types.OCILayer)
	config := strings.Replace(unknownConfig, "DIFFID", sha256Hex(bytes.Join(parts, nil)), 1)
	manifest := strings.NewReplacer(
		"CONFIG", m.blob("app", []byte(config), types.OCIConfigJSON),
		"LAYER", layer, "SUBJECT", sha256Hex([]byte("{}")),
	).Replace(unknownManifest)
	m.put("app:1", manifest, types.OCIManifestSchema1)
	flags := []string{"--endpoint", "http://collector:4318"}
	wrapped := m.wrap("app", flags...)

	code, out, _ := m.run(append([]string{"plan", "-o", "json", m.address + "/app:1"}, flags...)...)
	var plan struct {
		Digest       string
		SourceDigest string `json:"source_digest"`
		Dropped      []string
		Entrypoint   []string
		Release      struct{ Version, Contrib string }
		Env          []struct{ Name, Value, Origin string }
		Layers       []struct {
			Digest, Brings string
			DiffID         string `json:"diff_id"`
			Size           int
		}
	}
	if err := json.Unmarshal([]byte(out), &plan); code != exitOK || err != nil {
		t.Fatal(code, err)
	}
	const subject = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	if len(plan.Dropped) != 1 || !strings.HasPrefix(plan.Dropped[0], "subject "+subject+" of ") {
		t.Errorf("dropped %q, want the subject", plan.Dropped)
	}

	// The config, by what the plan says.
	newConfig := m.config("app:1-otel")
	const created = `"2026-01-02T03:04:06.678Z"`
	want := map[string]string{".created": created}
	notes := []string{}
	env := 2
	for _, v := range plan.Env {
		if v.Origin == "image" {
			continue
		}
		want[fmt.Sprintf(".config.Env[%d]", env)] = jsonText(v.Name + "=" + v.Value)
		notes = append(notes, "ENV "+v.Name+"="+v.Value)
		env++
	}
	for i, arg := range plan.Entrypoint {
		want[fmt.Sprintf(".config.Entrypoint[%d]", i)] = jsonText(arg)
	}
	entrypoint, _ := json.Marshal(plan.Entrypoint)
	labels := []string{"io.imgwrap.origin", "io.imgwrap.release", "io.imgwrap.source", "io.imgwrap.version", "io.imgwrap.seal"}
	notes = append(notes, "ENTRYPOINT "+string(entrypoint), "LABEL "+strings.Join(labels, " "))
	got := flatten(t, newConfig)
	for _, l := range labels {
		want[".config.Labels."+l] = got[".config.Labels."+l] // origin and seal are digests of everything
	}
	want[".config.Labels.io.imgwrap.release"] = jsonText(plan.Release.Version + "/" + plan.Release.Contrib)
	want[".config.Labels.io.imgwrap.source"] = jsonText(m.address + "/app@" + plan.SourceDigest)
	want[".config.Labels.io.imgwrap.version"] = jsonText(imgwrapVersion())
	history := 2
	entry := func(by string, empty bool) {
		at := fmt.Sprintf(".history[%d]", history)
		want[at+".created"], want[at+".created_by"] = created, jsonText(by)
		if empty {
			want[at+".empty_layer"] = "true"
		}
		history++
	}
	for i, l := range plan.Layers {
		want[fmt.Sprintf(".rootfs.diff_ids[%d]", i+1)] = jsonText(l.DiffID)
		entry("imgwrap: "+l.Brings, false)
	}
	for _, n := range notes {
		entry(n, true)
	}
	checkDifference(t, "config", []byte(config), newConfig, want)

	// The manifest.
	want = map[string]string{
		".config.digest": jsonText("sha256:" + sha256Hex(newConfig)),
		".config.size":   fmt.Sprint(len(newConfig)),
		".annotations.org.opencontainers.image.base.name":   jsonText(m.address + "/app:1"),
		".annotations.org.opencontainers.image.base.digest": jsonText(plan.SourceDigest),
		".subject.mediaType":                                "", ".subject.digest": "", ".subject.size": "",
	}
	for i, l := range plan.Layers {
		at := fmt.Sprintf(".layers[%d]", i+1)
		want[at+".mediaType"], want[at+".digest"], want[at+".size"] = jsonText(string(types.OCILayer)), jsonText(l.Digest), fmt.Sprint(l.Size)
	}
	checkDifference(t, "manifest", []byte(manifest), wrapped, want)
}

func jsonText(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// flatten is a document as what its leaves are, spelled as they are.
func flatten(t *testing.T, raw []byte) map[string]string {
	t.Helper()
	leaves := map[string]string{}
	var walk func(path string, raw json.RawMessage)
	walk = func(path string, raw json.RawMessage) {
		var object map[string]json.RawMessage
		var array []json.RawMessage
		switch {
		case raw[0] == '{' && json.Unmarshal(raw, &object) == nil && len(object) > 0:
			for k, v := range object {
				walk(path+"."+k, v)
			}
		case raw[0] == '[' && json.Unmarshal(raw, &array) == nil && len(array) > 0:
			for i, v := range array {
				walk(fmt.Sprintf("%s[%d]", path, i), v)
			}
		default:
			leaves[path] = string(raw)
		}
	}
	walk("", bytes.TrimSpace(raw))
	return leaves
}

// checkDifference prints how two documents differ, and checks that it is as
// wanted: what the leaves are now, "" for those that are gone.
func checkDifference(t *testing.T, what string, before, after []byte, want map[string]string) {
	t.Helper()
	old, now := flatten(t, before), flatten(t, after)
	differences := map[string]string{}
	var lines []string
	same := 0
	for path, value := range old {
		if now[path] == value {
			same++
		} else {
			differences[path] = now[path]
			lines = append(lines, fmt.Sprintf("%s - %s", path, value))
		}
	}
	for path, value := range now {
		if old[path] != value {
			differences[path] = value
			lines = append(lines, fmt.Sprintf("%s + %.100s", path, value))
		}
	}
	slices.Sort(lines)
	t.Logf("%s, %d fields the same, different:\n%s", what, same, strings.Join(lines, "\n"))
	for path, value := range differences {
		if w, ok := want[path]; !ok || w != value {
			t.Errorf("%s: %s is now %s, want %s", what, path, value, w)
		}
	}
	for path, value := range want {
		if differences[path] != value {
			t.Errorf("%s: %s is not %s", what, path, value)
		}
	}
}

// Images without history, with a history of empty layers, and with nearly as
// many layers as can be.
func TestMediaLayers(t *testing.T) {
	m := newMediaRegistry(t)
	python := bytes.Join(pack(t, pythonFiles...), nil)
	push := func(layers int, history string) {
		t.Helper()
		descriptors, diffIDs := []string{"{" + m.blob("app", gzipped(python), types.OCILayer) + "}"}, []string{`"sha256:` + sha256Hex(python) + `"`}
		for i := 1; i < layers; i++ {
			content := bytes.Join(pack(t, member{fmt.Sprintf("layer/%d", i), ""}), nil)
			if i%2 == 0 {
				content = bytes.Join(pack(t), nil) // the empty layer, many times
			}
			descriptors = append(descriptors, "{"+m.blob("app", gzipped(content), types.OCILayer)+"}")
			diffIDs = append(diffIDs, `"sha256:`+sha256Hex(content)+`"`)
		}
		config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/usr/local/bin/python3.11","-m","app"]},"rootfs":{"type":"layers","diff_ids":[%s]}%s}`,
			strings.Join(diffIDs, ","), history)
		m.put("app:1", fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{%s},"layers":[%s]}`, types.OCIManifestSchema1,
			m.blob("app", []byte(config), types.OCIConfigJSON), strings.Join(descriptors, ",")), types.OCIManifestSchema1)
	}
	for _, tc := range []struct {
		name, history string
		entries       int // that the wrapped image has
	}{
		{"no history", "", 0},
		{"null", `,"history":null`, 0},
		{"of fewer layers", `,"history":[{}]`, 1},
		{"of each layer", `,"history":[{},{"empty_layer":true},{},{},{"empty_layer":true}]`, 5 + 2 + 7}, // two layers, and seven notes of what else changed,
	} {
		t.Run(tc.name, func(t *testing.T) {
			m.T = t
			push(3, tc.history)
			m.wrap("app")
			var config struct{ History []json.RawMessage }
			if err := json.Unmarshal(m.config("app:1-otel"), &config); err != nil || len(config.History) != tc.entries {
				t.Errorf("%d entries, %v, want %d:\n%s", len(config.History), err, tc.entries, config.History)
			}
		})
	}
	for layers, fits := range map[int]bool{123: true, 124: false, 125: false, 126: false, 127: false} {
		t.Run(fmt.Sprintf("%d layers", layers), func(t *testing.T) {
			m.T = t
			push(layers, "")
			if fits {
				m.wrap("app")
				return
			}
			code, _, errs := m.run(m.address + "/app:1")
			want := fmt.Sprintf("the image has %d layers and would have %d, more than the 125 that every container engine can run\nimgwrap: hint: merge layers", layers, layers+2)
			if code != exitRefused || !strings.Contains(errs, want) {
				t.Errorf("exit code %d: %s", code, errs)
			}
		})
	}
}

// Of an index, only the descriptors of images that are wrapped change, and what
// was about the images as they were is gone, and listed.
func TestMediaIndex(t *testing.T) {
	m := newMediaRegistry(t)
	python := bytes.Join(pack(t, pythonFiles...), nil)
	layer := m.blob("app", gzipped(python), types.OCILayer)
	// image pushes an image, and returns its descriptor's start and its digest.
	image := func(platform, fields string) (string, string) {
		os, architecture, _ := strings.Cut(platform, "/")
		config := strings.NewReplacer(`"os":"linux"`, fmt.Sprintf(`"os":%q`, os), `"architecture":"amd64"`, fmt.Sprintf(`"architecture":%q`, architecture)).
			Replace(layered(sha256Hex(python), ""))
		raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{%s},"layers":[{%s}]%s}`,
			types.OCIManifestSchema1, m.blob("app", []byte(config), types.OCIConfigJSON), layer, fields)
		m.put("app@sha256:"+sha256Hex([]byte(raw)), raw, types.OCIManifestSchema1)
		return describe([]byte(raw), types.OCIManifestSchema1), sha256Hex([]byte(raw))
	}
	attestation := func(about string) (string, string) {
		raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/vnd.docker.attestation.manifest.v1+json","config":{%s,"data":"e30="},"layers":[],"subject":{"mediaType":%[1]q,"digest":"sha256:%[3]s","size":1}}`,
			types.OCIManifestSchema1, m.blob("app", []byte("{}"), "application/vnd.oci.empty.v1+json"), about)
		m.put("app@sha256:"+sha256Hex([]byte(raw)), raw, types.OCIManifestSchema1)
		return fmt.Sprintf(`{%s,"annotations":{"vnd.docker.reference.digest":"sha256:%s","vnd.docker.reference.type":"attestation-manifest"},"platform":{"architecture":"unknown","os":"unknown"}}`,
			describe([]byte(raw), types.OCIManifestSchema1), about), sha256Hex([]byte(raw))
	}
	amd64, amd64Digest := image("linux/amd64", "")
	armv7, _ := image("linux/arm", `,"subject":{"mediaType":"m","digest":"sha256:`+strings.Repeat("a", 64)+`","size":7}`)
	windows, windowsDigest := image("windows/amd64", "")
	other, _ := image("linux/riscv64", "")
	stale, staleDigest := attestation(amd64Digest)
	fresh, _ := attestation(windowsDigest)
	nested := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[ {%s,"platform":{"os":"linux","architecture":"riscv64"}} ],"subject":{"mediaType":"m","digest":"sha256:%s","size":7},"x":1.0}`,
		types.OCIImageIndex, other, strings.Repeat("b", 64))
	m.put("app@sha256:"+sha256Hex([]byte(nested)), nested, types.OCIImageIndex)
	artifact := m.blob("app", []byte("{}"), "application/vnd.oci.empty.v1+json")
	sbom := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"text/spdx","config":{%s},"layers":[]}`, types.OCIManifestSchema1, artifact)
	m.put("app@sha256:"+sha256Hex([]byte(sbom)), sbom, types.OCIManifestSchema1)

	children := []string{
		`{ "platform": {"os": "linux", "architecture": "amd64", "os.features": ["x"], "vendor": 1}, ` + amd64 + `, "annotations": {"a": "<b>"}, "vendor": 1.0 }`,
		stale,
		`{` + windows + `,"platform":{"os":"windows","architecture":"amd64","os.version":"10.0.20348.2402"}}`,
		fresh,
		`{` + armv7 + `,"platform":{"os":"linux","architecture":"arm","variant":"v7"}}`,
		`{` + describe([]byte(sbom), types.OCIManifestSchema1) + `,"artifactType":"text/spdx"}`,
		`{` + describe([]byte(nested), types.OCIImageIndex) + `,"urls":["https://example.com"]}`,
		`{` + other + `,"platform":{"os":"unknown","architecture":"unknown"}}`,
		`{"platform":{"os":"linux","architecture":"amd64","variant":"v2"},` + amd64 + `}`, // the first one again
	}
	m.put("app:1", fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"x/y","manifests":[%s],"subject":{"mediaType":"m","digest":"sha256:%s","size":7},"vendor":[1.0]}`,
		types.OCIImageIndex, strings.Join(children, ", "), strings.Repeat("c", 64)), types.OCIImageIndex)

	var index struct{ Manifests []json.RawMessage }
	raw := m.wrap("app")
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	changed := map[int]bool{0: true, 4: true, 6: true, 8: true}
	want := slices.Delete(slices.Clone(children), 1, 2)
	if len(index.Manifests) != len(want) {
		t.Fatalf("%d children, want %d:\n%s", len(index.Manifests), len(want), raw)
	}
	i := 0
	for n, child := range children {
		if n == 1 {
			continue // the attestation
		}
		now := string(index.Manifests[i])
		if changed[n] {
			before, after := flatten(t, []byte(child)), flatten(t, index.Manifests[i])
			for _, field := range []string{".digest", ".size"} {
				if before[field] == after[field] {
					t.Errorf("%s of %s is as it was", field, child)
				}
				now = strings.Replace(now, after[field], before[field], 1)
			}
		}
		if now != child {
			t.Errorf("%s became %s", child, now)
		}
		i++
	}
	for _, kept := range []string{`"artifactType":"x/y"`, `,"vendor":[1.0]}`} {
		if !bytes.Contains(raw, []byte(kept)) {
			t.Errorf("the index has no %s", kept)
		}
	}
	if bytes.Contains(raw, []byte("subject")) {
		t.Error("the index has a subject")
	}

	// Tools that know less of an index drop what they do not know.
	copied := strings.NewReplacer(`"artifactType":"x/y",`, "", `,"vendor":[1.0]`, "").Replace(string(raw))
	m.put("app:copied", copied, types.OCIImageIndex)
	if code, out, errs := m.run("unwrap", m.address+"/app:copied"); code != exitOK || !strings.HasSuffix(out, "@sha256:"+sha256Hex(m.get("app:1"))+"\n") {
		t.Errorf("unwrapping a copy: exit code %d, %s%s", code, out, errs)
	}
	m.put("app:copied", strings.Replace(copied, `"<b>"`, `"c"`, 1), types.OCIImageIndex)
	if code, _, errs := m.run("unwrap", m.address+"/app:copied"); code != exitRefused || !strings.Contains(errs, "its index is not the one that imgwrap wrote") {
		t.Errorf("unwrapping what was changed: exit code %d, %s", code, errs)
	}
	m.put("app:copied", strings.Replace(copied, string(types.OCIImageIndex), string(types.DockerManifestList), 1), types.DockerManifestList)
	if code, _, errs := m.run("unwrap", m.address+"/app:copied"); code != exitRefused || !strings.Contains(errs, `its index is "application/vnd.docker.distribution.manifest.list.v2+json" instead of "application/vnd.oci.image.index.v1+json"`) {
		t.Errorf("unwrapping what was converted: exit code %d, %s", code, errs)
	}

	_, out, _ := m.run("plan", "-o", "json", m.address+"/app:1")
	var plan struct{ Dropped []string }
	if err := json.Unmarshal([]byte(out), &plan); err != nil {
		t.Fatal(err)
	}
	slices.Sort(plan.Dropped)
	dropped := []string{"attestation sha256:" + staleDigest + " of", "subject sha256:" + strings.Repeat("a", 64), "subject sha256:" + strings.Repeat("b", 64), "subject sha256:" + strings.Repeat("c", 64)}
	if !slices.EqualFunc(plan.Dropped, dropped, strings.HasPrefix) {
		t.Errorf("dropped\n%s\nwant\n%s", strings.Join(plan.Dropped, "\n"), strings.Join(dropped, "\n"))
	}
}

// From an image that was made one of the other family there is a way back, and
// it is said that it leads to the source's family.
func TestMediaConverted(t *testing.T) {
	m := newMediaRegistry(t)
	python := bytes.Join(pack(t, pythonFiles...), nil)
	oci := []string{string(types.OCIManifestSchema1), string(types.OCIConfigJSON), string(types.OCILayer)}
	docker := []string{string(types.DockerManifestSchema2), string(types.DockerConfigJSON), string(types.DockerLayer)}
	for _, tc := range []struct{ from, to []string }{{oci, docker}, {docker, oci}} {
		config := m.blob("app", []byte(layered(sha256Hex(python), "")), types.MediaType(tc.from[1]))
		source := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{%s},"layers":[{%s}]}`, tc.from[0], config, m.blob("app", gzipped(python), types.MediaType(tc.from[2])))
		m.put("app:1", source, types.MediaType(tc.from[0]))
		wrapped := string(m.wrap("app"))
		for i, was := range tc.from {
			wrapped = strings.ReplaceAll(wrapped, was, tc.to[i])
		}
		m.put("app:converted", wrapped, types.MediaType(tc.to[0]))
		said := fmt.Sprintf("it was converted to %s since it was wrapped; its source is %s", tc.to[0], tc.from[0])
		code, out, errs := m.run("unwrap", m.address+"/app:converted")
		if code != exitOK || !strings.HasSuffix(out, "@sha256:"+sha256Hex([]byte(source))+"\n") || !strings.Contains(errs, said) {
			t.Errorf("unwrap: exit code %d, %s%s", code, out, errs)
		}
		code, _, errs = m.run(m.address+"/app:converted", "-t", "again")
		if code != exitOK || !strings.Contains(errs, said+", and so is what it becomes") || !bytes.Equal(m.get("app:again"), m.get("app:1-otel")) {
			t.Errorf("wrap: exit code %d, %s", code, errs)
		}
	}
}

// What is no image that can be wrapped is said so in a line.
func TestMediaRefused(t *testing.T) {
	m := newMediaRegistry(t)
	python := bytes.Join(pack(t, pythonFiles...), nil)
	config := layered(sha256Hex(python), "")
	present := m.blob("app", gzipped(python), types.OCILayer)
	absent := `"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip","digest":"sha256:` + strings.Repeat("0", 64) + `","size":7,"urls":["https://example.com/layer"]`
	manifest := func(config, layers string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{%s},"layers":[%s]}`, types.OCIManifestSchema1, config, layers)
	}
	image := m.blob("app", []byte(config), types.OCIConfigJSON)
	for name, tc := range map[string]struct {
		raw       string
		mediaType types.MediaType
		want      string
	}{
		"schema 1": {
			`{"schemaVersion":1,"name":"app","tag":"1","architecture":"amd64","fsLayers":[],"history":[],"signatures":[]}`,
			types.DockerManifestSchema1Signed,
			"an image in Docker's format of before 2016 (schema 1)\nimgwrap: hint: pull and push it with a current tool",
		},
		"foreign layer": {
			manifest(image, "{"+absent+"}"), types.OCIManifestSchema1,
			"layer sha256:" + strings.Repeat("0", 64) + " is kept elsewhere by its publisher",
		},
		"artifact": {
			manifest(m.blob("app", []byte("{}"), "application/vnd.oci.empty.v1+json"), "{"+present+"}"), types.OCIManifestSchema1,
			`its config is "application/vnd.oci.empty.v1+json"`,
		},
		"windows": {
			manifest(m.blob("app", []byte(strings.Replace(config, `"os":"linux"`, `"os":"windows"`, 1)), types.OCIConfigJSON), "{"+present+"}"), types.OCIManifestSchema1,
			"it is an image for windows\nimgwrap: hint: imgwrap wraps images for Linux",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m.T = t
			m.put("app:1", tc.raw, tc.mediaType)
			code, out, errs := m.run(m.address + "/app:1")
			if code != exitRefused || out != "" || !strings.Contains(errs, tc.want) || strings.Count(errs, "\n") > 2 {
				t.Errorf("exit code %d, want %q: %s", code, tc.want, errs)
			}
		})
	}
}
