package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// A handmade image is one that can be changed in ways that no tool offers.
type handmade struct {
	manifest, config map[string]any
	layers           [][]byte // blobs
}

// array is a list in a document.
func array(document map[string]any, names ...string) []any {
	for _, name := range names[:len(names)-1] {
		document = document[name].(map[string]any)
	}
	list, _ := document[names[len(names)-1]].([]any)
	return list
}

// A layout is an OCI layout with handmade images.
type ociLayout string

func (l ociLayout) blob(t *testing.T, content []byte) (digest string) {
	t.Helper()
	h, _, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(string(l), "blobs", "sha256", h.Hex), content)
	return h.String()
}

func write(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// put makes an image the only one of the layout.
func (l ociLayout) put(t *testing.T, im *handmade) {
	t.Helper()
	for _, content := range im.layers {
		l.blob(t, content)
	}
	config := encode(t, im.config)
	descriptor := im.manifest["config"].(map[string]any)
	descriptor["digest"], descriptor["size"] = l.blob(t, config), len(config)
	manifest := encode(t, im.manifest)
	write(t, filepath.Join(string(l), "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
	write(t, filepath.Join(string(l), "index.json"), encode(t, map[string]any{"schemaVersion": 2, "manifests": []any{map[string]any{
		"mediaType": im.manifest["mediaType"], "digest": l.blob(t, manifest), "size": len(manifest),
		"annotations": map[string]any{"org.opencontainers.image.ref.name": "app"},
	}}}))
}

// get reads the image with a tag.
func (l ociLayout) get(t *testing.T, tag string) *handmade {
	t.Helper()
	s, err := client.Find(t.Context(), "oci:"+string(l)+":"+tag)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := s.Image(t.Context(), s.Root)
	if err != nil {
		t.Fatal(err)
	}
	im := &handmade{}
	if err := errors.Join(json.Unmarshal(opened.RawManifest, &im.manifest), json.Unmarshal(opened.RawConfig, &im.config)); err != nil {
		t.Fatal(err)
	}
	for _, d := range opened.Manifest.Layers {
		content, err := os.ReadFile(filepath.Join(string(l), "blobs", "sha256", d.Digest.Hex))
		if err != nil {
			t.Fatal(err)
		}
		im.layers = append(im.layers, content)
	}
	return im
}

// setLayer replaces a layer, or with the number of layers adds one.
func (im *handmade) setLayer(t *testing.T, number int, files ...layer.Entry) {
	t.Helper()
	l, err := layer.Build(t.Context(), files)
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	blob, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	info := l.Info()
	im.replace(number, blob, info.Digest.String(), info.DiffID.String())
}

func (im *handmade) replace(number int, blob []byte, digest, diffID string) {
	descriptors, rootfs := array(im.manifest, "layers"), im.config["rootfs"].(map[string]any)
	diffIDs := array(rootfs, "diff_ids")
	if number == len(descriptors) {
		descriptors, diffIDs, im.layers = append(descriptors, nil), append(diffIDs, nil), append(im.layers, nil)
	}
	descriptors[number] = map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": len(blob)}
	diffIDs[number], im.layers[number] = diffID, blob
	im.manifest["layers"], rootfs["diff_ids"] = descriptors, diffIDs
}

// editLayer changes the entries of a layer.
func (im *handmade) editLayer(t *testing.T, number int, edit func([]archived) []archived) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(im.layers[number]))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := unarchive(z)
	if err != nil {
		t.Fatal(err)
	}
	var archive, blob bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, e := range edit(entries) {
		e.header.Size = int64(len(e.content))
		if err := w.WriteHeader(e.header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.content); err != nil {
			t.Fatal(err)
		}
	}
	err = w.Close()
	zw := gzip.NewWriter(&blob)
	_, writeErr := zw.Write(archive.Bytes())
	if err := errors.Join(err, writeErr, zw.Close()); err != nil {
		t.Fatal(err)
	}
	digest, _, _ := v1.SHA256(bytes.NewReader(blob.Bytes()))
	diffID, _, _ := v1.SHA256(bytes.NewReader(archive.Bytes()))
	im.replace(number, blob.Bytes(), digest.String(), diffID.String())
}

// editFile replaces a text in a file of a layer.
func (im *handmade) editFile(t *testing.T, number int, name, before, after string) {
	t.Helper()
	im.editLayer(t, number, func(entries []archived) []archived {
		i := slices.IndexFunc(entries, func(e archived) bool { return e.name == name })
		if i < 0 || !strings.Contains(string(entries[i].content), before) {
			t.Fatalf("no %s with %q", name, before)
		}
		entries[i].content = []byte(strings.ReplaceAll(string(entries[i].content), before, after))
		return entries
	})
}

// run is what the config says about running the image.
func (im *handmade) run() map[string]any { return im.config["config"].(map[string]any) }

func (im *handmade) labels() map[string]any { return im.run()["Labels"].(map[string]any) }

// reseal makes the seal fit again, as somebody would who knows it.
func (im *handmade) reseal(t *testing.T) {
	t.Helper()
	sum, err := seal(encode(t, im.config))
	if err != nil {
		t.Fatal(err)
	}
	im.labels()[LabelSeal] = sum
}

// file is an entry whose content is of no interest.
func file(name string) layer.Entry { return layer.Entry{Path: name, Mode: 0o755, Data: []byte("x")} }

// wrappedImage wraps an image into a layout, which has it as "app-otel" then.
func wrappedImage(t *testing.T, config map[string]any, opts Options) (*Wrapper, ociLayout) {
	t.Helper()
	dir := ociLayout(t.TempDir())
	release := &catalog.Release{
		Version: "1.27.0", Contrib: "0.48b0", Python: catalog.Python{Min: "3.8", Max: "3.14"},
		TracesExporters: []string{"otlp_proto_http"},
		Distributions: []catalog.Distribution{
			{Name: "opentelemetry-instrumentation-flask", Version: "0.48b0", Wheel: "opentelemetry_instrumentation_flask-0.48b0-py3-none-any.whl"},
			{Name: "opentelemetry-instrumentation-wsgi", Version: "0.48b0", Wheel: "opentelemetry_instrumentation_wsgi-0.48b0-py3-none-any.whl"},
		},
		Instrumentations: []catalog.Instrumentation{
			{Name: "flask", Distribution: "opentelemetry-instrumentation-flask", Libraries: []string{"flask >= 1.0"}},
			{Name: "wsgi", Distribution: "opentelemetry-instrumentation-wsgi", Libraries: []string{"wsgi >= 1.0"}},
		},
	}
	l, err := layer.Build(t.Context(), []layer.Entry{file("opt/imgwrap/otel-1.27.0/flask.py")})
	if err != nil {
		t.Fatal(err)
	}
	info := l.Info()
	release.Layer = catalog.Layer{Digest: info.Digest.String(), DiffID: info.DiffID.String(), Size: info.Size, Unpacked: info.Unpacked, Files: info.Files}
	cache := &layer.Cache{Dir: t.TempDir()}
	if _, err := cache.PutLayer(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	w := &Wrapper{Registry: client, Catalog: catalog.New(release), Bundles: &bundle.Builder{Cache: cache}, Jobs: 2}

	im := &handmade{
		manifest: map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
			"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json"},
		},
		config: map[string]any{
			"architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z", "x-vendor": []any{1},
			"rootfs":  map[string]any{"type": "layers"},
			"history": []any{map[string]any{"created_by": "base"}},
			"config":  config,
		},
	}
	im.setLayer(t, 0, file("usr/local/bin/python3.11"), file("usr/local/lib/python3.11/os.py"),
		layer.Entry{Path: "usr/local/lib/python3.11/site-packages/flask-3.0.3.dist-info/METADATA", Data: []byte("Name: flask\nVersion: 3.0.3\n")},
		file("usr/bin/opentelemetry-instrument"))
	dir.put(t, im)
	opts.Version = "1.0"
	if _, err := w.Wrap(t.Context(), "oci:"+string(dir)+":app", opts); err != nil {
		t.Fatal(err)
	}
	return w, dir
}

var appConfig = map[string]any{
	"Cmd": []any{"python3.11", "-m", "app"}, "Env": []any{"PATH=/usr/local/bin:/usr/bin", "OTEL_PROPAGATORS="},
	"Healthcheck": map[string]any{"StartInterval": 5},
}

func TestVerify(t *testing.T) {
	const loader, launcher = "opt/imgwrap/init/sitecustomize.py", "usr/local/bin/opentelemetry-instrument"
	hidden := bundle.DistInfo(catalog.Distribution{Wheel: "opentelemetry_instrumentation_wsgi-0.48b0-py3-none-any.whl"})
	add := func(t *testing.T, im *handmade, name string, mode int64) {
		im.editLayer(t, 2, func(entries []archived) []archived {
			return append(entries, archived{name, &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, ModTime: layer.Epoch}, []byte("x")})
		})
	}
	header := func(name string, edit func(*tar.Header)) func(*testing.T, *handmade) {
		return func(t *testing.T, im *handmade) {
			im.editLayer(t, 2, func(entries []archived) []archived {
				i := slices.IndexFunc(entries, func(e archived) bool { return e.name == name })
				edit(entries[i].header)
				return entries
			})
		}
	}
	set := func(name string, value any) func(*testing.T, *handmade) {
		return func(t *testing.T, im *handmade) { im.run()[name] = value }
	}
	for _, tt := range []struct {
		name   string
		change func(*testing.T, *handmade)
		check  string // the first that does not hold, "" if all do
		detail string
	}{
		{name: "as it was", change: func(*testing.T, *handmade) {}},
		{"no version", func(_ *testing.T, im *handmade) { delete(im.labels(), LabelVersion) }, "labels", "there is no io.imgwrap.version"},
		{"another source", func(_ *testing.T, im *handmade) { im.labels()[LabelSource] = "app@sha256:" + strings.Repeat("0", 64) }, "labels", "io.imgwrap.source names app@sha256:000"},
		{"an origin that is none", func(_ *testing.T, im *handmade) { im.labels()[LabelOrigin] = "1:abc" }, "labels", "reading the label io.imgwrap.origin"},
		{"another base", func(t *testing.T, im *handmade) { im.setLayer(t, 0, file("usr/local/bin/python3.11")) }, "source layers", "layer 1 unpacks to sha256:"},
		{"another blob of the same content", func(t *testing.T, im *handmade) {
			im.editLayer(t, 0, func(e []archived) []archived { return e })
		}, "source layers", "layer 1 is sha256:"},
		{"a layer is gone", func(_ *testing.T, im *handmade) {
			im.manifest["layers"] = []any{}
			im.config["rootfs"].(map[string]any)["diff_ids"] = []any{}
		}, "source layers", "there are 0 layers, and the source has 1"},
		{"a diff ID of something else", func(_ *testing.T, im *handmade) {
			array(im.config, "rootfs", "diff_ids")[2] = "sha256:" + strings.Repeat("1", 64)
		}, "content", "layer 3 unpacks to sha256:"},
		{"no layer on top", func(_ *testing.T, im *handmade) {
			im.manifest["layers"] = array(im.manifest, "layers")[:2]
			im.config["rootfs"].(map[string]any)["diff_ids"] = array(im.config, "rootfs", "diff_ids")[:2]
		}, "added layers", "there are 1 on top"},
		{"another bundle", func(t *testing.T, im *handmade) {
			im.setLayer(t, 1, file("opt/imgwrap/otel-1.27.0/flask.py"), file("evil"))
		}, "added layers", "and the bundle of OpenTelemetry 1.27.0/0.48b0 is"},
		{"another release", func(_ *testing.T, im *handmade) { im.labels()[LabelRelease] = "9.9.9/9.9b0" }, "added layers", "this imgwrap, 1.0, has no release 9.9.9/9.9b0: use imgwrap 1.0"},
		{"layers on top", func(t *testing.T, im *handmade) { im.setLayer(t, 3, file("srv/a")); im.setLayer(t, 4, file("srv/b")) }, "added layers", "layer 3, sha256:"},
		{"a layer on top", func(t *testing.T, im *handmade) { im.setLayer(t, 3, file("srv/a")) }, "bytecode", "/opt is not bytecode"},
		{"no decisions", func(t *testing.T, im *handmade) {
			im.editLayer(t, 2, func(entries []archived) []archived {
				return slices.DeleteFunc(entries, func(e archived) bool { return e.name == "opt/imgwrap/wrap.json" })
			})
		}, "decisions", "the last layer has no /opt/imgwrap/wrap.json"},
		{"decisions that cannot be read", func(t *testing.T, im *handmade) { im.editFile(t, 2, "opt/imgwrap/wrap.json", "{", "[") }, "decisions", "/opt/imgwrap/wrap.json: "},
		{"decisions for another bundle", func(t *testing.T, im *handmade) { im.editFile(t, 2, "opt/imgwrap/wrap.json", "/otel-1.27.0", "/evil") }, "decisions", "bundle is /opt/imgwrap/evil instead of"},
		{"an instrumentation that there is not", func(t *testing.T, im *handmade) { im.editFile(t, 2, "opt/imgwrap/wrap.json", `"flask"`, `"evil"`) }, "decisions", "has no instrumentation evil"},
		{"decisions that mean more", func(t *testing.T, im *handmade) {
			im.editFile(t, 2, "opt/imgwrap/wrap.json", `"version"`, `"new": 1, "version"`)
		}, "launch layer", "/opt/imgwrap/wrap.json is not what imgwrap wrote"},
		{"another launcher", func(t *testing.T, im *handmade) { im.editFile(t, 2, launcher, "main()", "evil()") }, "launch layer", "/" + launcher + " is not what imgwrap wrote"},
		{"another loader", func(t *testing.T, im *handmade) { im.editFile(t, 2, loader, "import sys", "import evil") }, "launch layer", "/" + loader + " is not what imgwrap wrote"},
		{"a file more", func(t *testing.T, im *handmade) { add(t, im, "srv/evil", 0o644) }, "launch layer", "/srv/evil does not belong there"},
		{"a file of the app", func(t *testing.T, im *handmade) { add(t, im, "usr/local/lib/python3.11/os.py", 0o644) }, "launch layer", "/usr/local/lib/python3.11/os.py replaces a file of the source"},
		{"a file of the app hidden", func(t *testing.T, im *handmade) { add(t, im, "usr/local/bin/.wh.python3.11", 0o644) }, "launch layer", "/usr/local/bin/.wh.python3.11 does not belong there"},
		{"code of the bundle hidden", func(t *testing.T, im *handmade) { add(t, im, "opt/imgwrap/otel-1.27.0/.wh.flask.py", 0o644) }, "launch layer", "hides what is no distribution"},
		{"a path file that does more", func(t *testing.T, im *handmade) {
			add(t, im, "usr/local/lib/python3.11/site-packages/imgwrap.pth", 0o644)
		}, "launch layer", "imgwrap.pth is not what imgwrap wrote"},
		{"a launcher for all to write", header(launcher, func(h *tar.Header) { h.Mode = 0o777 }), "launch layer", "has mode 0777 and owner 0:0 instead of 0755"},
		{"a launcher with capabilities", header(launcher, func(h *tar.Header) {
			h.Format = tar.FormatPAX
			h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "x"}
		}), "launch layer", "has other attributes"},
		{"a directory of the app for all to write", header("usr/local/bin", func(h *tar.Header) { h.Mode = 0o777 }), "launch layer", "/usr/local/bin has mode 0777"},
		{"what is not planned is not hidden", func(t *testing.T, im *handmade) {
			im.editLayer(t, 2, func(entries []archived) []archived {
				return slices.DeleteFunc(entries, func(e archived) bool { return strings.HasSuffix(e.name, ".wh."+hidden) })
			})
		}, "launch layer", "the metadata of opentelemetry-instrumentation-wsgi, which is not planned, are not hidden"},
		{"another interpreter", func(t *testing.T, im *handmade) {
			im.editLayer(t, 2, func(entries []archived) []archived {
				for i := range entries {
					entries[i].content = bytes.ReplaceAll(entries[i].content, []byte("/usr/local/bin/python3.11"), []byte("/usr/bin/python3.11"))
				}
				return entries
			})
		}, "interpreter", "/usr/bin/python3.11 is no program of the image"},
		{"without the launcher", func(_ *testing.T, im *handmade) { delete(im.run(), "Entrypoint") }, "command", "nothing leads to the loader"},
		{"another launcher first on PATH", set("Env", []any{"PATH=/usr/bin:/usr/local/bin"}), "command", "which is /usr/bin/opentelemetry-instrument and not /" + launcher},
		{"launcher not on PATH", set("Env", []any{"PATH=/srv"}), "command", "which is not there and not"},
		{"the bundle first", set("Env", []any{"PATH=/usr/local/bin", "PYTHONPATH=/opt/imgwrap/init/../otel-1.27.0"}), "sys.path", "/opt/imgwrap/init/../otel-1.27.0 comes before the app's packages"},
		{"another command", set("Cmd", []any{"sh"}), "config", `config.Cmd[0] is "sh" instead of "python3.11"`},
		{"a user", set("User", "0"), "config", `config.User should not be there, it is "0"`},
		{"a field that we do not know", func(_ *testing.T, im *handmade) { im.config["x-vendor"] = []any{2} }, "config", "x-vendor[0] is 2 instead of 1"},
		{"a field that we do not know is gone", func(_ *testing.T, im *handmade) { delete(im.run()["Healthcheck"].(map[string]any), "StartInterval") }, "config", "config.Healthcheck.StartInterval is not there, it should be 5"},
		{"a variable", func(_ *testing.T, im *handmade) {
			im.run()["Env"] = append(im.run()["Env"].([]any), "LD_PRELOAD=/evil.so")
		}, "config", `should not be there, it is "LD_PRELOAD=/evil.so"`},
		{"a label", func(_ *testing.T, im *handmade) { im.labels()["x.y"] = "z" }, "config", `config.Labels["x.y"] should not be there, it is "z"`},
		{"the history is gone", func(_ *testing.T, im *handmade) { im.config["history"] = im.config["history"].([]any)[:2] }, "config", `history[2] is not there`},
		{"another endpoint", func(_ *testing.T, im *handmade) {
			im.run()["Env"] = append(im.run()["Env"].([]any), "OTEL_EXPORTER_OTLP_ENDPOINT=http://evil")
		}, "seal", "has another value since"},
		{"an annotation", func(_ *testing.T, im *handmade) { im.manifest["annotations"].(map[string]any)["x"] = "y" }, "manifest", `annotations.x should not be there, it is "y"`},
		{"another base digest", func(_ *testing.T, im *handmade) {
			im.manifest["annotations"].(map[string]any)[AnnotationBaseDigest] = "sha256:0"
		}, "manifest", `annotations["org.opencontainers.image.base.digest"] is "sha256:0" instead of`},
		{"by another version", func(t *testing.T, im *handmade) {
			im.labels()[LabelVersion] = "0.9"
			im.editLayer(t, 2, func(entries []archived) []archived {
				for i := range entries {
					entries[i].content = bytes.ReplaceAll(entries[i].content, []byte(`"imgwrap": "1.0"`), []byte(`"imgwrap": "0.9"`))
					entries[i].content = bytes.ReplaceAll(entries[i].content, []byte("main()"), []byte("start()"))
				}
				return entries
			})
			im.reseal(t)
		}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, dir := wrappedImage(t, appConfig, Options{})
			im := dir.get(t, "app-otel")
			tt.change(t, im)
			dir.put(t, im)
			verified(t, w, dir, "app", tt.check, tt.detail)
		})
	}
}

// verified verifies an image of the layout. check is the first that may not hold,
// with a part of its detail, or "" if all have to.
func verified(t *testing.T, w *Wrapper, dir ociLayout, tag, check, detail string) []Check {
	t.Helper()
	v, err := w.Verify(t.Context(), "oci:"+string(dir)+":"+tag, VerifyOptions{Version: "1.0"})
	if err != nil {
		t.Fatal(err)
	}
	var first *CheckError
	switch err := v.Err(); {
	case check == "" && err != nil:
		t.Error(err)
	case check != "" && !errors.As(err, &first):
		t.Errorf("all checks hold: %v", v.Checks)
	case check != "" && (first.Check.Name != check || !strings.Contains(first.Check.Detail, detail)):
		t.Errorf("got %s, want %s: %s", first.Check, check, detail)
	}
	return v.Checks
}

// Whatever the image and however it is wrapped, what imgwrap made holds.
func TestVerifyWrapped(t *testing.T) {
	isolated := map[string]any{"Entrypoint": []any{"/usr/local/bin/python3.11", "-I"}, "Cmd": []any{"-m", "app"}}
	shell := map[string]any{"Cmd": []any{"/usr/bin/opentelemetry-instrument", "$APP"}}
	for _, tt := range []struct {
		name   string
		config map[string]any
		opts   Options
		check  string
		detail string // of the check
	}{
		{"by the entry point", appConfig, Options{}, "command", "ENTRYPOINT starts /usr/local/bin/opentelemetry-instrument"},
		{"by the environment", appConfig, Options{Activate: []Activation{ByEnvironment}}, "command", "PYTHONPATH has /opt/imgwrap/init"},
		{"both", appConfig, Options{Activate: []Activation{ByEnvironment, ByEntrypoint}}, "command", "; PYTHONPATH has"},
		{"by a path file", isolated, Options{}, "command", "/usr/local/bin/python3.11 reads /usr/local/lib/python3.11/site-packages/imgwrap.pth"},
		{"a Python that the command does not tell", shell, Options{Python: "/usr/local/bin/python3.11"}, "interpreter", "the command does not tell"},
		{"settings", appConfig, Options{Settings: Settings{Endpoint: "http://collector:4318", Propagators: "none"}}, "config", "it differs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, dir := wrappedImage(t, tt.config, tt.opts)
			checks := verified(t, w, dir, "app-otel", "", "")
			if len(checks) != 12 {
				t.Errorf("%d checks: %v", len(checks), checks)
			}
			if !slices.ContainsFunc(checks, func(c Check) bool { return c.Name == tt.check && strings.Contains(c.Detail, tt.detail) }) {
				t.Errorf("no check %s says %q: %v", tt.check, tt.detail, checks)
			}
		})
	}
}

func TestVerifyBytecode(t *testing.T) {
	const dir, module = "opt/imgwrap/otel-1.27.0/", "opt/imgwrap/otel-1.27.0/__pycache__/flask.cpython-311.pyc"
	directories := []layer.Entry{{Path: "opt/imgwrap", Mode: os.ModeDir}, {Path: "opt/imgwrap/otel-1.27.0", Mode: os.ModeDir}, {Path: dir + "__pycache__", Mode: os.ModeDir}}
	compiled := func(name string, flags byte) layer.Entry {
		return layer.Entry{Path: name, Data: append([]byte{1, 2, '\r', '\n', flags}, make([]byte, 20)...)}
	}
	for _, tt := range []struct {
		name   string
		files  []layer.Entry
		detail string
	}{
		{"as it should be", []layer.Entry{compiled(module, 1), compiled("opt/imgwrap/init/__pycache__/sitecustomize.cpython-311.pyc", 3)}, ""},
		{"of no source", []layer.Entry{compiled(dir+"__pycache__/evil.cpython-311.pyc", 1)}, "evil.cpython-311.pyc has no source"},
		{"by time", []layer.Entry{compiled(module, 0)}, "does not go by the hash"},
		{"cut off", []layer.Entry{{Path: module, Data: []byte{1, 2, '\r', '\n', 1}}}, "does not go by the hash"},
		{"of the app", []layer.Entry{compiled("usr/local/lib/python3.11/__pycache__/os.cpython-311.pyc", 1)}, "is not bytecode of the bundle"},
		{"source", []layer.Entry{{Path: dir + "flask.py"}}, "is not bytecode of the bundle"},
		{"for all to write", []layer.Entry{{Path: module, Mode: 0o666}}, "is not bytecode of the bundle"},
		{"of two versions", []layer.Entry{compiled(module, 1), compiled(dir+"__pycache__/flask.cpython-312.pyc", 1)}, "is for Python 3.12, and others are for 3.11"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, layout := wrappedImage(t, appConfig, Options{})
			im := layout.get(t, "app-otel")
			digest, diffID := array(im.manifest, "layers")[2].(map[string]any)["digest"].(string), array(im.config, "rootfs", "diff_ids")[2].(string)
			blob, history := im.layers[2], array(im.config, "history")
			im.setLayer(t, 2, append(tt.files, directories...)...)
			im.replace(3, blob, digest, diffID)
			im.config["history"] = slices.Insert(history, 2, history[1])
			im.reseal(t)
			layout.put(t, im)
			check := "bytecode"
			if tt.detail == "" {
				check = ""
			}
			verified(t, w, layout, "app", check, tt.detail)
		})
	}
}

// What is stored under a digest is what has it.
func TestVerifyBlobs(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func([]byte) []byte
		detail string
	}{
		{"another byte", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, "layer 2: "},
		{"cut off", func(b []byte) []byte { return b[:len(b)-10] }, "layer 2: "},
		{"more", func(b []byte) []byte { return append(b, 0) }, "layer 2: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, dir := wrappedImage(t, appConfig, Options{})
			digest := array(dir.get(t, "app-otel").manifest, "layers")[1].(map[string]any)["digest"].(string)
			name := filepath.Join(string(dir), "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			write(t, name, tt.change(content))
			verified(t, w, dir, "app-otel", "content", tt.detail)
			// What cannot be read is no verdict on the image.
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
			if v, err := w.Verify(t.Context(), "oci:"+string(dir)+":app-otel", VerifyOptions{Version: "1.0"}); err == nil {
				t.Errorf("verified without a layer: %v", v.Checks)
			}
		})
	}
}

func TestVerifyNotWrapped(t *testing.T) {
	w, dir := wrappedImage(t, appConfig, Options{})
	_, err := w.Verify(t.Context(), "oci:"+string(dir)+":app", VerifyOptions{Version: "1.0"})
	if !IsRefused(err) {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestCompare(t *testing.T) {
	for _, tt := range []struct{ want, got, difference string }{
		{`{"a": [1, "x"], "b": null}`, `{"b":null,"a":[1,"\u0078"]}`, ""},
		{`{"a": 1}`, `{"a": 1.0}`, "a is 1.0 instead of 1"},
		{`{"a": 1}`, `{"a": {"b": 1}}`, `a is {"b":1} instead of 1`},
		{`{"a": {"b": 1}}`, `{"a": [1]}`, `a is [1] instead of {"b":1}`},
		{`{"a": [1]}`, `{"a": [1, 2]}`, "a[1] should not be there, it is 2"},
		{`{"a": [1, 2]}`, `{"a": [1]}`, "a[1] is not there, it should be 2"},
		{`{"a": null}`, `{}`, "a is not there, it should be null"},
		{`{"a": {"b.c": "<"}}`, `{"a": {"b.c": ">"}}`, `a["b.c"] is ">" instead of "<"`},
		{`{"a": 1}`, `{"a": 2, "a": 1}`, "it has a key twice"},
		{`{"a": 1}`, `{"a": 1`, "it is not JSON: unexpected EOF"},
		{`{"a": 1}`, `{"a": "` + strings.Repeat("é", 200) + `"}`, `a is "` + strings.Repeat("é", 119) + "… instead of 1"},
	} {
		got := ""
		if err := compare("", []byte(tt.want), []byte(tt.got)); err != nil {
			got = err.Error()
		}
		if got != tt.difference {
			t.Errorf("%s and %s: got %q, want %q", tt.want, tt.got, got, tt.difference)
		}
	}
}
