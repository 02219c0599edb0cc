package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imgwrap/imgwrap/image/instrument"
	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/rewrite"
	"github.com/imgwrap/imgwrap/image/scan"
	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// planned are two distributions to choose from: Flask's instrumentation, and
// Django's.
var planned = catalog.New(&catalog.Release{
	Version: "1.27.0", Contrib: "0.48b0", Python: catalog.Python{Min: "3.8", Max: "3.14"},
	TracesExporters: []string{"console", "otlp_proto_http"},
	Distributions: []catalog.Distribution{
		{Name: "opentelemetry-distro", Version: "0.48b0", Wheel: "opentelemetry_distro-0.48b0-py3-none-any.whl"},
		{Name: "opentelemetry-exporter-otlp-proto-http", Version: "1.27.0", Wheel: "opentelemetry_exporter_otlp_proto_http-1.27.0-py3-none-any.whl", Requires: []string{"protobuf>=3.19"}},
		{Name: "opentelemetry-instrumentation-django", Version: "0.48b0", Wheel: "opentelemetry_instrumentation_django-0.48b0-py3-none-any.whl"},
		{Name: "opentelemetry-instrumentation-flask", Version: "0.48b0", Wheel: "opentelemetry_instrumentation_flask-0.48b0-py3-none-any.whl"},
		{Name: "protobuf", Version: "4.25.8", Wheel: "protobuf-4.25.8-py3-none-any.whl"},
	},
	Instrumentations: []catalog.Instrumentation{
		{Name: "django", Distribution: "opentelemetry-instrumentation-django", Libraries: []string{"django >= 1.10"}, Modules: []string{"django"}},
		{Name: "flask", Distribution: "opentelemetry-instrumentation-flask", Libraries: []string{"flask >= 1.0"}, Modules: []string{"flask"}},
	},
	Natives: map[string]catalog.Native{
		"amd64": {Libc: "glibc", Python: catalog.Python{Min: "3.8", Max: "3.12"}, Layer: catalog.Layer{Digest: nativeInfo.Digest.String()}},
	},
})

// info is that of a layer whose digests are a hexadecimal digit repeated.
func info(digit string) layer.Info {
	hash := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat(digit, 64)}
	return layer.Info{Digest: hash, DiffID: hash, Size: 1000}
}

var bundleInfo, nativeInfo, bytecodeInfo = info("b"), info("a"), info("c")

// described makes a layer that can be described but not read.
func described(info layer.Info) *layer.Layer {
	return layer.Deferred(info, func() (*layer.Layer, error) { return nil, errors.New("planning builds no layer") })
}

// layers are the prebuilt ones: there is bytecode for Python 3.11 alone.
var layers = prebuilt{
	bundle: func(*catalog.Release) (*layer.Layer, error) { return described(bundleInfo), nil },
	native: func(*catalog.Release, string) (*layer.Layer, error) { return described(nativeInfo), nil },
	bytecode: func(_ *catalog.Release, minor string) (*layer.Layer, error) {
		if minor != "3.11" {
			return nil, fs.ErrNotExist
		}
		return described(bytecodeInfo), nil
	},
}

var owned = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

// appFiles is an image with a Python 3.11 in /usr/local, Flask and protobuf.
// Further lines add to it: "PATH", "PATH -> TARGET" or "PATH/".
func appFiles(t *testing.T, lines ...string) *scan.Index {
	t.Helper()
	lines = append([]string{
		"usr/local/lib/python3.11/os.py",
		"usr/local/lib/python3.11/site-packages/Flask-3.0.3.dist-info/METADATA",
		"usr/local/lib/python3.11/site-packages/protobuf-4.25.5.dist-info/METADATA",
		"usr/local/lib/python3.11/site-packages/Django-5.0.dist-info/METADATA",
	}, lines...)
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasSuffix(l, "bin/python3.11") }) {
		lines = append([]string{"usr/local/bin/", "usr/local/bin/python3.11"}, lines...)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, line := range lines {
		h := &tar.Header{Name: line, Typeflag: tar.TypeReg, Mode: 0o755, Uid: 1000, Gid: 1001, ModTime: owned}
		content := ""
		if path, target, ok := strings.Cut(line, " -> "); ok {
			h.Name, h.Typeflag, h.Linkname = path, tar.TypeSymlink, target
		} else if strings.HasSuffix(line, "/") {
			h.Typeflag = tar.TypeDir
		} else if strings.HasSuffix(line, "METADATA") {
			parts := strings.Split(line, "/")
			name, version, _ := strings.Cut(strings.TrimSuffix(parts[len(parts)-2], ".dist-info"), "-")
			content = "Metadata-Version: 2.1\nName: " + name + "\nVersion: " + version + "\n"
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := scan.Read(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	return scan.Merge(l)
}

// app is an image with these files. It is sound JSON, but no image that could
// be pulled: plan looks at no layer.
func app(t *testing.T, files *scan.Index, env ...string) source {
	t.Helper()
	config := v1.ConfigFile{
		Architecture: "amd64", OS: "linux", Created: v1.Time{Time: owned},
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{bundleInfo.DiffID}},
		History: []v1.History{{CreatedBy: "base"}},
		Config:  v1.Config{Cmd: []string{"python3.11", "-m", "app"}, Env: env},
	}
	rawConfig, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	digest, size, err := v1.SHA256(bytes.NewReader(rawConfig))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: digest, Size: size},
		Layers: []v1.Descriptor{{MediaType: types.OCILayer, Digest: bundleInfo.Digest, Size: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return found(t, "reg.io/shop/app:1.0", rewrite.Image{MediaType: types.OCIManifestSchema1, Manifest: manifest, Config: rawConfig}, files)
}

// found is what opening and looking into an image gives.
func found(t *testing.T, reference string, im rewrite.Image, files *scan.Index) source {
	t.Helper()
	ref, err := client.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	src := source{reference: ref, image: im, parsed: &v1.ConfigFile{}, files: files}
	if err := json.Unmarshal(im.Config, src.parsed); err != nil {
		t.Fatal(err)
	}
	root := node{source: &src}
	if err := (&target{root: &root}).unwrap(); err != nil {
		t.Fatal(err)
	}
	if src.environment, err = src.inspect(""); err != nil {
		t.Fatal(err)
	}
	return src
}

var client = registry.New(registry.Options{})

// planFound plans an image as Wrapper does.
func planFound(src source, opts Options, c *catalog.Catalog, layers prebuilt) (*Plan, error) {
	root := &node{document: registry.NewDocument(src.image.MediaType, src.image.Manifest), source: &src}
	root.descriptor = root.document.Descriptor()
	destination, err := opts.Destination.resolve(client, src.reference, root.descriptor.Digest.String(), src.wrapped != nil)
	if err != nil {
		return nil, err
	}
	return plan(&target{reference: src.reference, root: root, wrapped: src.wrapped != nil}, destination, opts, c, layers)
}

// launched reads the launch layer of a plan: headers by name, with contents.
func launched(t *testing.T, p *Plan) (map[string]*tar.Header, map[string]string) {
	t.Helper()
	r, err := p.added[len(p.added)-1].layer.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	headers, contents := map[string]*tar.Header{}, map[string]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return headers, contents
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		headers[h.Name], contents[h.Name] = h, string(b)
	}
}

func mustPlan(t *testing.T, src source, opts Options) *Plan {
	t.Helper()
	p, err := planFound(src, opts, planned, layers)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLaunchLayer(t *testing.T) {
	p := mustPlan(t, app(t, appFiles(t, "opt/", "usr/", "usr/local/")), Options{})
	headers, contents := launched(t, p)
	for _, dir := range []string{"opt/", "usr/", "usr/local/", "usr/local/bin/"} {
		h := headers[dir]
		if h == nil || h.Uid != 1000 || h.Gid != 1001 || !h.ModTime.Equal(owned) || h.Mode != 0o755 {
			t.Errorf("%s is not as in the image: %+v", dir, h)
		}
	}
	if !strings.HasPrefix(contents["usr/local/bin/opentelemetry-instrument"], "#!/usr/local/bin/python3.11 ") {
		t.Errorf("no launcher beside the interpreter: %v", headers)
	}
	var hidden []string
	for name := range headers {
		if dir, file, ok := strings.Cut(name, "/.wh."); ok {
			hidden = append(hidden, file)
			if dir != "opt/imgwrap/otel-1.27.0" {
				t.Errorf("%s hides a file of the app", name)
			}
		}
	}
	slices.Sort(hidden)
	// The app has its own protobuf.
	if want := []string{"protobuf-4.25.8.dist-info"}; !slices.Equal(hidden, want) {
		t.Errorf("hidden %v, want %v", hidden, want)
	}
	if _, ok := headers["usr/local/lib/python3.11/site-packages/imgwrap.pth"]; ok {
		t.Error("a path file, although PYTHONPATH is read")
	}
}

// Packages beside the script are the app's own and come before the bundle's, but
// Python looks there only after OpenTelemetry has been loaded.
func TestPackagesBesideTheScript(t *testing.T) {
	src := app(t, appFiles(t, "app/main.py", "app/protobuf-5.28.0.dist-info/METADATA"))
	src.parsed.Config.Cmd = []string{"python3.11", "/app/main.py"}
	var err error
	if src.environment, err = src.inspect(""); err != nil {
		t.Fatal(err)
	}
	if wrap := decided(t, mustPlan(t, src, Options{})); !slices.Equal(wrap.Path, []string{"/app"}) {
		t.Errorf("searched first: %q, want /app", wrap.Path)
	}
}

// decided reads what the launch layer of a plan tells the loader.
func decided(t *testing.T, p *Plan) bundle.Wrap {
	t.Helper()
	_, contents := launched(t, p)
	var wrap bundle.Wrap
	if err := json.Unmarshal([]byte(contents["opt/imgwrap/wrap.json"]), &wrap); err != nil {
		t.Fatal(err)
	}
	return wrap
}

func TestModules(t *testing.T) {
	wrap := decided(t, mustPlan(t, app(t, appFiles(t)), Options{}))
	if want := map[string][]string{"django": {"django"}, "flask": {"flask"}}; !reflect.DeepEqual(wrap.Modules, want) {
		t.Errorf("modules %v, want %v", wrap.Modules, want)
	}
	wrap = decided(t, mustPlan(t, app(t, appFiles(t)), Options{Instrument: instrument.Options{Without: []string{"flask"}}}))
	if want := map[string][]string{"django": {"django"}}; !reflect.DeepEqual(wrap.Modules, want) || !slices.Equal(wrap.Instrumentations, []string{"django"}) {
		t.Errorf("without flask: modules %v of %v, want %v", wrap.Modules, wrap.Instrumentations, want)
	}
}

func TestActivate(t *testing.T) {
	const path = "/opt/imgwrap/init"
	for _, tt := range []struct {
		name       string
		activate   []Activation
		env        []string
		cmd        []string
		entrypoint bool
		pythonPath string // that the image has then
		everywhere bool
	}{
		{name: "default", entrypoint: true},
		{name: "entrypoint", activate: []Activation{ByEntrypoint}, env: []string{"PYTHONPATH=/srv"}, entrypoint: true, pythonPath: "/srv"},
		{name: "environment", activate: []Activation{ByEnvironment}, pythonPath: path, everywhere: true},
		{name: "in front", activate: []Activation{ByEnvironment}, env: []string{"PYTHONPATH=/srv:/lib"}, pythonPath: path + ":/srv:/lib", everywhere: true},
		{name: "empty counts as none", activate: []Activation{ByEnvironment}, env: []string{"PYTHONPATH="}, pythonPath: path, everywhere: true},
		{name: "both", activate: []Activation{ByEntrypoint, ByEnvironment}, entrypoint: true, pythonPath: path, everywhere: true},
		{name: "by a path file", cmd: []string{"python3.11", "-I", "-m", "app"}, activate: []Activation{ByEnvironment}, everywhere: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := app(t, appFiles(t), tt.env...)
			if tt.cmd != nil {
				src.parsed.Config.Cmd = tt.cmd
				var err error
				if src.environment, err = src.inspect(""); err != nil {
					t.Fatal(err)
				}
			}
			p := mustPlan(t, src, Options{Activate: tt.activate})
			var config v1.ConfigFile
			if err := json.Unmarshal(p.wrapped.Config, &config); err != nil {
				t.Fatal(err)
			}
			if got := len(config.Config.Entrypoint) > 0; got != tt.entrypoint {
				t.Errorf("entry point %q", config.Config.Entrypoint)
			}
			if got := environ(config.Config.Env)["PYTHONPATH"]; got != tt.pythonPath {
				t.Errorf("PYTHONPATH=%s, want %s", got, tt.pythonPath)
			}
			if strings.HasPrefix(tt.pythonPath, path) {
				if !slices.ContainsFunc(config.History, func(h v1.History) bool { return strings.HasSuffix(h.CreatedBy, "ENV PYTHONPATH="+tt.pythonPath) }) {
					t.Errorf("the history does not tell: %+v", config.History)
				}
			}
			if wrap := decided(t, p); wrap.Everywhere != tt.everywhere {
				t.Errorf("everywhere: %t", wrap.Everywhere)
			}
			headers, _ := launched(t, p)
			if headers["usr/local/bin/opentelemetry-instrument"] == nil {
				t.Error("no launcher in the layer")
			}
		})
	}
}

func TestHealthCheck(t *testing.T) {
	for _, tt := range []struct {
		name     string
		activate Activation
		test     []string
		want     [][]string
	}{
		{name: "none", activate: ByEnvironment},
		{name: "switched off", activate: ByEnvironment, test: []string{"NONE"}},
		{name: "inherited", activate: ByEnvironment, test: []string{}},
		{name: "command", activate: ByEnvironment, test: []string{"CMD", "python3.11", "/srv/check.py", "--fast"}, want: [][]string{{"check.py", "--fast"}}},
		{name: "shell", activate: ByEnvironment, test: []string{"CMD-SHELL", "python3.11 -m health 80 || exit 1"}, want: [][]string{{"health", "80"}}},
		{name: "no Python", activate: ByEnvironment, test: []string{"CMD-SHELL", "curl -f localhost"}},
		{name: "code of its own", activate: ByEnvironment, test: []string{"CMD", "python3.11", "-c", "import socket"}},
		{name: "the app's own command", activate: ByEnvironment, test: []string{"CMD", "python3.11", "-m", "app"}},
		{name: "below the launcher only", activate: ByEntrypoint, test: []string{"CMD", "python3.11", "/srv/check.py"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := app(t, appFiles(t, "srv/check.py"))
			if tt.test != nil {
				src.parsed.Config.Healthcheck = &v1.HealthConfig{Test: tt.test}
			}
			p := mustPlan(t, src, Options{Activate: []Activation{tt.activate}})
			if got := decided(t, p).Skip; !reflect.DeepEqual(got, tt.want) {
				t.Errorf("skips %q, want %q", got, tt.want)
			}
			said := slices.ContainsFunc(p.Notes, func(n string) bool { return strings.HasPrefix(n, "the health check ") })
			if said != (tt.want != nil) {
				t.Errorf("notes %q", p.Notes)
			}
		})
	}
}

func TestLauncherPlace(t *testing.T) {
	const own = "/opt/imgwrap/bin/opentelemetry-instrument"
	for _, tt := range []struct {
		name    string
		files   []string
		path    string
		file    string // of the launcher
		command string
		refused bool
	}{
		{name: "by name", file: "usr/local/bin/opentelemetry-instrument", command: "opentelemetry-instrument"},
		{name: "not on PATH", path: "/usr/bin", file: "usr/local/bin/opentelemetry-instrument", command: "/usr/local/bin/opentelemetry-instrument"},
		{
			name: "another one first on PATH", files: []string{"usr/bin/opentelemetry-instrument"}, path: "/usr/bin:/usr/local/bin",
			file: "usr/local/bin/opentelemetry-instrument", command: "/usr/local/bin/opentelemetry-instrument",
		},
		{
			name: "the app has one", files: []string{"usr/local/bin/opentelemetry-instrument"},
			file: "opt/imgwrap/bin/opentelemetry-instrument", command: own,
		},
		{
			name: "a directory behind a link", files: []string{"usr/bin/", "usr/bin/python3.11", "usr/local/bin -> ../bin"}, path: "/usr/local/bin",
			file: "usr/bin/opentelemetry-instrument", command: "opentelemetry-instrument",
		},
		{
			name: "a link to nowhere", files: []string{"usr/local/bin -> /nowhere", "usr/bin/python3.11"}, path: "/usr/bin:/usr/local/bin",
			file: "opt/imgwrap/bin/opentelemetry-instrument", command: own,
		},
		{name: "a link in place of /opt", files: []string{"opt -> /srv"}, refused: true},
		{name: "/opt/imgwrap is taken", files: []string{"opt/imgwrap/x"}, refused: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var env []string
			if tt.path != "" {
				env = append(env, "PATH="+tt.path)
			}
			files := appFiles(t, tt.files...)
			src := app(t, files, append(env, "PYTHONHOME=")...)
			src.environment.Interpreter.Scripts = "/usr/local/bin"
			p, err := planFound(src, Options{}, planned, layers)
			if tt.refused {
				var refused *RefusedError
				if !errors.As(err, &refused) || refused.Hint() == "" {
					t.Fatalf("got %v, want a refusal with a hint", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			headers, _ := launched(t, p)
			if headers[tt.file] == nil {
				t.Errorf("no %s in the layer", tt.file)
			}
			if p.Entrypoint[0] != tt.command {
				t.Errorf("entry point %q, want %q", p.Entrypoint[0], tt.command)
			}
			for name, h := range headers {
				f, err := files.Lstat("/" + name)
				if err == nil && (h.Typeflag == tar.TypeDir) != f.Mode.IsDir() {
					t.Errorf("%s replaces what the app has there", name)
				}
				if err == nil && h.Typeflag == tar.TypeReg {
					t.Errorf("%s replaces a file of the app", name)
				}
			}
		})
	}
}

func TestPlanConfig(t *testing.T) {
	src := app(t, appFiles(t), "FLAG=on", "OTEL_TRACES_EXPORTER=console", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=flask", "DJANGO_SETTINGS_MODULE=shop.settings")
	p := mustPlan(t, src, Options{Settings: Settings{ServiceName: "shop"}, Instrument: instrument.Options{Instrument: []string{"flask"}}})
	var config v1.ConfigFile
	if err := json.Unmarshal(p.wrapped.Config, &config); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"FLAG=on", "OTEL_TRACES_EXPORTER=console", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=flask", "DJANGO_SETTINGS_MODULE=shop.settings",
		"OTEL_METRICS_EXPORTER=none", "OTEL_LOGS_EXPORTER=none", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_SERVICE_NAME=shop",
	}
	if !slices.Equal(config.Config.Env, want) {
		t.Errorf("environment\n%s\nwant\n%s", strings.Join(config.Config.Env, "\n"), strings.Join(want, "\n"))
	}
	if !config.Created.Equal(owned.Add(time.Second)) {
		t.Errorf("created %s", config.Created)
	}
	if len(p.Instrumentations) != 1 || len(p.LeftOut) != 1 {
		t.Errorf("instrumentations %v, left out %v", p.Instrumentations, p.LeftOut)
	}
	if want := (Django{"shop.settings", "DJANGO_SETTINGS_MODULE", "", []string{}}); p.Django == nil || !reflect.DeepEqual(*p.Django, want) {
		t.Errorf("Django's settings %+v, want %+v", p.Django, want)
	}
	if !slices.ContainsFunc(p.Warnings, func(w string) bool { return strings.Contains(w, "flask is left out although it was asked for") }) {
		t.Errorf("warnings %q", p.Warnings)
	}
}

func TestRewrap(t *testing.T) {
	files := appFiles(t)
	src := app(t, files)
	first := mustPlan(t, src, Options{Settings: Settings{Endpoint: "http://collector:4318"}})

	again := mustPlan(t, found(t, "reg.io/shop/app:1.0-otel", first.wrapped, files), Options{Settings: Settings{Endpoint: "http://collector:4318"}})
	if again.Digest != first.Digest || again.Image != first.Image || !again.Wrapped {
		t.Errorf("wrapping the wrapped image gives %s as %s, want %s as %s", again.Digest, again.Image, first.Digest, first.Image)
	}
	if again.SourceDigest != first.SourceDigest {
		t.Errorf("source %s, want %s", again.SourceDigest, first.SourceDigest)
	}

	other := mustPlan(t, found(t, "reg.io/shop/app:1.0-otel", first.wrapped, files), Options{Settings: Settings{ServiceName: "shop"}})
	if fresh := mustPlan(t, src, Options{Settings: Settings{ServiceName: "shop"}}); other.Digest != fresh.Digest {
		t.Errorf("with other options %s, want %s", other.Digest, fresh.Digest)
	}
	if !slices.ContainsFunc(other.Warnings, func(w string) bool { return strings.Contains(w, "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318") }) {
		t.Errorf("nothing said about the endpoint: %q", other.Warnings)
	}

	// An image built on the wrapped one inherits its labels.
	child := first.wrapped
	child.Config = bytes.Replace(child.Config, []byte(`"Cmd":["python3.11"`), []byte(`"Cmd":["python3.11","-u"`), 1)
	parsed := &v1.ConfigFile{}
	if err := json.Unmarshal(child.Config, parsed); err != nil {
		t.Fatal(err)
	}
	var refused *RefusedError
	if _, err := originOf(child, parsed, true); !errors.As(err, &refused) || !strings.Contains(err.Error(), `Cmd is ["python3.11","-u","-m","app"] instead of ["python3.11","-m","app"]`) {
		t.Errorf("an image built on a wrapped one: %v, want a refusal", err)
	}
}
