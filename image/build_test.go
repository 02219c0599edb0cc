package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/tools/txtar"

	"github.com/imgwrap/imgwrap/image/dockerfile"
	"github.com/imgwrap/imgwrap/image/requirements"
	"github.com/imgwrap/imgwrap/image/scan"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

var update = flag.Bool("update", false, "write what the Dockerfiles of testdata become")

// buildable are two releases, of which the newer one wants a newer protobuf and
// Python.
var buildable = catalog.New(
	&catalog.Release{
		Version: "1.45.1", Contrib: "0.66b1", Python: catalog.Python{Min: "3.10", Max: "3.14"},
		TracesExporters: []string{"console", "otlp_proto_http"}, MetricsExporters: []string{"otlp_proto_http"}, Propagators: []string{"b3", "tracecontext"},
		Distributions: []catalog.Distribution{
			{Name: "opentelemetry-distro", Version: "0.66b1"},
			{Name: "opentelemetry-exporter-otlp-proto-http", Version: "1.45.1", Requires: []string{"protobuf<8,>=5"}},
			{Name: "opentelemetry-instrumentation-flask", Version: "0.66b1"},
			{Name: "protobuf", Version: "6.30.0"},
		},
		Instrumentations: []catalog.Instrumentation{
			{Name: "flask", Distribution: "opentelemetry-instrumentation-flask", Libraries: []string{"flask >= 1.0"}, Modules: []string{"flask"}},
		},
		Natives: map[string]catalog.Native{
			"amd64": {Libc: "glibc", Python: catalog.Python{Min: "3.10", Max: "3.14"}, Layer: catalog.Layer{Digest: "sha256:1"}},
		},
	},
	&catalog.Release{
		Version: "1.27.0", Contrib: "0.48b0", Python: catalog.Python{Min: "3.8", Max: "3.14"},
		TracesExporters: []string{"console", "otlp_proto_http"}, MetricsExporters: []string{"otlp_proto_http"}, Propagators: []string{"b3", "tracecontext"},
		Distributions: []catalog.Distribution{
			{Name: "opentelemetry-distro", Version: "0.48b0"},
			{Name: "opentelemetry-exporter-otlp-proto-http", Version: "1.27.0", Requires: []string{"protobuf<5,>=3.19"}},
			{Name: "protobuf", Version: "4.25.8"},
		},
	},
)

// linux starts as a program of glibc does.
func linux() string {
	const loader = "/lib64/ld-linux-x86-64.so.2\x00"
	head := make([]byte, 64+56)
	copy(head, "\x7fELF\x02\x01\x01")
	head[16], head[18], head[20] = 2, 62, 1
	head[32], head[52], head[54], head[56] = 64, 64, 56, 1
	ph := head[64:]
	ph[0], ph[8], ph[32], ph[40] = 3, 64+56, byte(len(loader)), byte(len(loader))
	return string(head) + loader
}

// tree is an image with files: "PATH", "PATH -> TARGET".
func tree(t *testing.T, files ...string) *scan.Index {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, file := range files {
		h := &tar.Header{Name: file, Typeflag: tar.TypeReg, Mode: 0o755}
		content := ""
		if link, target, ok := strings.Cut(file, " -> "); ok {
			h.Name, h.Typeflag, h.Linkname = link, tar.TypeSymlink, target
		} else if dir, ok := strings.CutSuffix(file, ".dist-info/METADATA"); ok {
			name, version, _ := strings.Cut(filepath.Base(dir), "-")
			content = "Name: " + name + "\nVersion: " + version + "\n"
		} else if strings.HasPrefix(filepath.Base(file), "python") {
			content = linux()
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
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

const usrLocal = "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"

// known are the base images of the Dockerfiles of testdata, as far as anything is
// known of them.
func known(t *testing.T) map[string]*source {
	image := func(config v1.Config, files ...string) *source {
		return &source{
			parsed: &v1.ConfigFile{Architecture: "amd64", OS: "linux", Config: config},
			files:  tree(t, files...),
		}
	}
	official := []string{
		"bin/sh", "usr/lib/x86_64-linux-gnu/libstdc++.so.6",
		"usr/local/bin/python3.11", "usr/local/bin/python3 -> python3.11", "usr/local/bin/python -> python3",
		"usr/local/lib/python3.11/os.py", "usr/local/lib/python3.11/site-packages/pip-24.0.dist-info/METADATA",
	}
	debian := []string{"usr/bin/python3.11", "usr/bin/python3 -> python3.11", "usr/bin/python -> python3", "usr/lib/python3.11/os.py"}
	slim := image(v1.Config{Env: []string{usrLocal, "LANG=C.UTF-8"}, Cmd: []string{"python3"}}, official...)
	distroless := image(v1.Config{Env: []string{"PATH=/usr/bin:/bin"}, Entrypoint: []string{"/usr/bin/python3.11"}, WorkingDir: "/"}, debian...)
	nonroot := *distroless
	config := *distroless.parsed
	config.Config.User = "65532"
	nonroot.parsed = &config
	return map[string]*source{
		"python:3.11-slim": slim,
		"python:3.11-slim@sha256:0000000000000000000000000000000000000000000000000000000000000000": slim,
		"ghcr.io/astral-sh/uv:python3.11-bookworm-slim":                                            slim,
		"gcr.io/distroless/python3-debian12":                                                       distroless,
		"gcr.io/distroless/python3-debian12:nonroot":                                               &nonroot,
		"debian:bookworm-slim":                                                                     image(v1.Config{Cmd: []string{"bash"}}, "bin/sh"),
		"registry.example.com/base/entry:1": image(v1.Config{
			Env: []string{usrLocal, "OTEL_SERVICE_NAME=from-base"}, Entrypoint: []string{"/entry.sh", "--"}, Cmd: []string{"python", "-m", "base"}, User: "1000:1000",
		}, official...),
		"registry.example.com/base/onbuild:1": image(v1.Config{
			Env: []string{usrLocal}, OnBuild: []string{"COPY . /app", `ENTRYPOINT ["python"]`, "CMD /app/main.py"},
		}, official...),
	}
}

// dockerfileFacts are what is found for a Dockerfile with these base images.
func dockerfileFacts(t *testing.T, bases map[string]*source, opts DockerfileOptions) (buildFacts, error) {
	t.Helper()
	f, err := dockerfile.Parse(opts.Source)
	if err != nil {
		return buildFacts{}, err
	}
	facts := buildFacts{file: f}
	if facts.stage, err = f.Target(opts.Target); err != nil {
		return buildFacts{}, err
	}
	if facts.base, err = f.Base(facts.stage, opts.build()); err != nil {
		return buildFacts{}, err
	}
	if opts.Context != "" {
		if facts.project, err = requirements.Read(opts.Context); err != nil {
			t.Fatal(err)
		}
	}
	src := bases[facts.base.Image]
	if src == nil {
		facts.unknown = "there is no such image"
		return facts, nil
	}
	c := src.parsed.Config
	facts.files = src
	facts.configs = []platformConfig{{"linux/amd64", dockerfileConfig(c), c.Labels}}
	return facts, nil
}

func dockerfilePlan(t *testing.T, bases map[string]*source, opts DockerfileOptions) (*DockerfilePlan, error) {
	t.Helper()
	facts, err := dockerfileFacts(t, bases, opts)
	if err != nil {
		return nil, err
	}
	return planDockerfile(facts, opts, buildable, func(tag string) (string, error) {
		return "sha256:" + digestOf(tag), nil
	})
}

// TestDockerfiles compares the blocks of the Dockerfiles of testdata with those
// in blocks.golden, and takes them out again.
func TestDockerfiles(t *testing.T) {
	const root = "../testdata/dockerfiles"
	golden := filepath.Join(root, "blocks.golden")
	bases := known(t)
	type variant struct {
		name string
		edit func(*DockerfileOptions)
	}
	variants := map[string][]variant{
		"14-inherited":            {{"--target debug", func(o *DockerfileOptions) { o.Target = "debug" }}, {"--install pip", func(o *DockerfileOptions) { o.Pip = true }}},
		"02-gunicorn":             {{"--install pip", func(o *DockerfileOptions) { o.Pip = true }}},
		"30-shell-bash":           {{"--install pip", func(o *DockerfileOptions) { o.Pip = true }}},
		"72-conda":                {{"--install pip", func(o *DockerfileOptions) { o.Pip = true }}},
		"08-distroless":           {{"--install pip", func(o *DockerfileOptions) { o.Pip = true }}},
		"41-arg-without-default":  {{"--build-arg BASE=python:3.11-slim", func(o *DockerfileOptions) { o.BuildArgs = map[string]string{"BASE": "python:3.11-slim"} }}},
		"46-target-in-the-middle": {{"--target WEB", func(o *DockerfileOptions) { o.Target = "WEB" }}},
		"79-unknown-base":         {{"--activate entrypoint", func(o *DockerfileOptions) { o.Activate = []Activation{ByEntrypoint} }}},
		"36-inherited-from-base":  {{"--activate environment", func(o *DockerfileOptions) { o.Activate = []Activation{ByEnvironment} }}},
		"09-shell-form":           {{"--python /opt/py/bin/python3.12", func(o *DockerfileOptions) { o.Python = "/opt/py/bin/python3.12" }}},
		"25-escape-backtick":      {{"--resource-attribute", func(o *DockerfileOptions) { o.Settings.ResourceAttributes = []string{"a=$b", "c=d e"} }}},
		"80-unknown-base-python": {{"--service-name, --without", func(o *DockerfileOptions) {
			o.Settings.ServiceName = "it's $5"
			o.Instrument.Without = []string{"flask"}
		}}},
		"22-bom":                      {{"--target none", func(o *DockerfileOptions) { o.Target = "none" }}},
		"48-four-stages":              {{"--target c", func(o *DockerfileOptions) { o.Target = "c" }}},
		"61-tini-apt":                 {{"--activate entrypoint,environment", func(o *DockerfileOptions) { o.Activate = []Activation{ByEntrypoint, ByEnvironment} }}},
		"07-pipenv":                   {{"--endpoint", func(o *DockerfileOptions) { o.Settings.Endpoint = "http://collector:4318" }}},
		"65-lambda":                   nil,
		"15-onbuild":                  {{"--target template", func(o *DockerfileOptions) { o.Target = "template" }}},
		"57-otel-set":                 {{"--build-arg COLLECTOR", func(o *DockerfileOptions) { o.BuildArgs = map[string]string{"COLLECTOR": "http://other:4318"} }}},
		"44-platform":                 {{"--platform linux/arm64", func(o *DockerfileOptions) { o.Platforms = []string{"linux/arm64"} }}},
		"05-uv":                       {{"--target builder", func(o *DockerfileOptions) { o.Target = "builder" }}},
		"66-scratch":                  nil,
		"47-stage-name-shadows-image": nil,
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	var got txtar.Archive
	done := map[string]bool{}
	for _, e := range entries {
		file := filepath.Join(root, e.Name())
		name, ok := strings.CutSuffix(e.Name(), ".Dockerfile")
		opts := DockerfileOptions{Service: "shop", Layers: "registry.example.com/otel", Native: true, Version: "1.0"}
		if e.IsDir() {
			opts.Context, file, ok = file, filepath.Join(file, "Dockerfile"), true
		}
		if !ok {
			continue
		}
		if opts.Source, err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
		done[name] = true
		for _, v := range append([]variant{{"", func(*DockerfileOptions) {}}}, variants[name]...) {
			opts := opts
			v.edit(&opts)
			t.Run(strings.TrimSpace(name+" "+v.name), func(t *testing.T) {
				text := rewritten(t, bases, opts)
				got.Files = append(got.Files, txtar.File{Name: strings.TrimSpace(name + " " + v.name), Data: []byte(text)})
			})
		}
	}
	for name := range variants {
		if !done[name] {
			t.Errorf("there is no Dockerfile %s", name)
		}
	}
	if len(got.Files) < 80 {
		t.Errorf("only %d cases", len(got.Files))
	}
	got.Comment = []byte("The blocks that TestDockerfiles writes; go test ./image -run TestDockerfiles -update writes them here.\n\n")
	if *update {
		if err := os.WriteFile(golden, txtar.Format(&got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := txtar.ParseFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, f := range want.Files {
		texts[f.Name] = string(f.Data)
	}
	for _, f := range got.Files {
		if texts[f.Name] != string(f.Data) {
			t.Errorf("%s:\n%s\nwant\n%s", f.Name, f.Data, texts[f.Name])
		}
		delete(texts, f.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		t.Errorf("%s is in %s and nowhere else", name, golden)
	}
}

// rewritten is the block of a Dockerfile, or why there is none.
func rewritten(t *testing.T, bases map[string]*source, opts DockerfileOptions) string {
	t.Helper()
	p, err := dockerfilePlan(t, bases, opts)
	if err != nil {
		var hint interface{ Hint() string }
		if !errors.As(err, &hint) || hint.Hint() == "" {
			t.Errorf("%v comes without a hint", err)
		}
		return "refused: " + err.Error() + "\n"
	}
	if p.State != BlockMissing {
		t.Errorf("the block is %s", p.State)
	}
	f, err := dockerfile.Parse(p.Rewritten)
	if err != nil {
		t.Fatal(err)
	}
	if back := f.Undo(nil); !bytes.Equal(back, opts.Source) {
		t.Errorf("undo gives %q, not %q", back, opts.Source)
	}
	again := opts
	again.Source = p.Rewritten
	q, err := dockerfilePlan(t, bases, again)
	if err != nil {
		t.Fatal(err)
	}
	if q.State != BlockCurrent || !bytes.Equal(q.Rewritten, p.Rewritten) {
		t.Errorf("written again it is %s:\n%s", q.State, q.Rewritten)
	}
	after := opts
	after.Source = slices.Concat(p.Rewritten, []byte("\nCMD [\"other\"]\n"))
	if q, err = dockerfilePlan(t, bases, after); err == nil && opts.Target == "" && q.State != BlockStale {
		t.Errorf("with another CMD behind it, the block is %s", q.State)
	}
	var b strings.Builder
	for _, w := range p.Warnings {
		fmt.Fprintln(&b, "warning:", strings.Split(w, ": OpenTelemetry")[0])
	}
	// What is the same in most of them is left out.
	text := strings.Join(p.Block[1:len(p.Block)-1], "\n") + "\n"
	text = strings.Replace(text, "LABEL io.imgwrap.version=1.0\nLABEL io.imgwrap.release=1.45.1/0.66b1\n", "", 1)
	text = strings.Replace(text, "ENV OTEL_TRACES_EXPORTER=otlp\nENV OTEL_METRICS_EXPORTER=none\nENV OTEL_LOGS_EXPORTER=none\nENV OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf\n", "ENV …\n", 1)
	text = strings.Replace(text, "COPY --from=registry.example.com/otel@sha256:"+digestOf(DockerfileTag("1.45.1", false))+" /opt/imgwrap /opt/imgwrap\n", "COPY …\n", 1)
	text = strings.Replace(text, "COPY --from=registry.example.com/otel@sha256:"+digestOf(DockerfileTag("1.45.1", true))+" /opt/imgwrap /opt/imgwrap\n", "COPY … (native)\n", 1)
	return b.String() + text
}

// digestOf stands for the digest of what has a tag.
func digestOf(tag string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(tag))) }
