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
	"regexp"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/tools/txtar"

	"github.com/imgwrap/imgwrap/image/dockerfile"
	"github.com/imgwrap/imgwrap/image/instrument"
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
	text = regexp.MustCompile(`LABEL io.imgwrap.version=1.0 .\n    io.imgwrap.release=1.45.1/0.66b1\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`ENV OTEL_TRACES_EXPORTER=otlp .\n    OTEL_METRICS_EXPORTER=none .\n    OTEL_LOGS_EXPORTER=none .\n    OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`).ReplaceAllString(text, "ENV …")
	text = strings.Replace(text, "COPY --from=registry.example.com/otel@sha256:"+digestOf(DockerfileTag("1.45.1", false))+" /opt/imgwrap /opt/imgwrap\n", "COPY …\n", 1)
	text = strings.Replace(text, "COPY --from=registry.example.com/otel@sha256:"+digestOf(DockerfileTag("1.45.1", true))+" /opt/imgwrap /opt/imgwrap\n", "COPY … (native)\n", 1)
	return b.String() + text
}

// digestOf stands for the digest of what has a tag.
func digestOf(tag string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(tag))) }

// TestDockerfileDecisions looks at single decisions.
func TestDockerfileDecisions(t *testing.T) {
	bases := known(t)
	slim := bases["python:3.11-slim"]
	variant := func(edit func(*source)) *source {
		s := *slim
		config := *slim.parsed
		s.parsed = &config
		edit(&s)
		return &s
	}
	const gunicorn = "FROM python:3.11-slim\nCMD [\"gunicorn\", \"app:app\"]\n"
	locked := func(lines ...string) *requirements.Project {
		p := &requirements.Project{LockedBy: []string{"requirements.txt"}}
		for _, line := range lines {
			name, version, _ := strings.Cut(line, "==")
			p.Locked = append(p.Locked, instrument.Distribution{Name: name, Version: version})
		}
		return p
	}
	flask := locked("flask==3.0.3")
	for _, tt := range []struct {
		name    string
		src     string
		opts    DockerfileOptions
		edit    func(*buildFacts)
		want    func(*DockerfilePlan) []string // what is looked at
		is      []string
		note    string // in a note or warning
		refused string
	}{
		{
			name: "native", src: gunicorn, opts: DockerfileOptions{Native: true}, edit: func(f *buildFacts) { f.project = flask },
			want: func(p *DockerfilePlan) []string {
				return []string{p.Native.Value, p.Python.Value, p.Distributions.Reason}
			}, is: []string{"true", "3.11", "requirements.txt"},
		},
		{
			name: "native is not wanted", src: gunicorn, edit: func(f *buildFacts) { f.project = flask },
			want: func(p *DockerfilePlan) []string { return []string{p.Native.Value, p.Native.Reason} }, is: []string{"false", "it is not wanted"},
		},
		{
			name: "native beside the app's protobuf", src: gunicorn, opts: DockerfileOptions{Native: true}, edit: func(f *buildFacts) { f.project = locked("protobuf==6.1") },
			want: func(p *DockerfilePlan) []string { return []string{p.Native.Value, p.Native.Reason} }, is: []string{"false", "the app's own protobuf 6.1 is used"},
		},
		{
			name: "native and nothing is locked", src: gunicorn, opts: DockerfileOptions{Native: true},
			want: func(p *DockerfilePlan) []string { return []string{p.Native.Value, p.Native.Reason} }, is: []string{"false", "whether the app has its own protobuf is not known"},
		},
		{
			name: "native without libstdc++", src: gunicorn, opts: DockerfileOptions{Native: true}, edit: func(f *buildFacts) {
				f.project = flask
				f.files = variant(func(s *source) {
					s.files = tree(t, "usr/local/bin/python3.11", "usr/local/bin/python3 -> python3.11", "usr/local/lib/python3.11/os.py")
				})
			},
			want: func(p *DockerfilePlan) []string { return []string{p.Native.Value, p.Native.Reason} }, is: []string{"false", "it needs libstdc++.so.6, which the image does not have"},
		},
		{
			name: "an older protobuf", src: gunicorn, edit: func(f *buildFacts) { f.project = locked("protobuf==4.25.0") },
			want: func(p *DockerfilePlan) []string { return []string{p.Release.Version} }, is: []string{"1.27.0"},
		},
		{
			name: "an older protobuf in the base image", src: gunicorn, edit: func(f *buildFacts) {
				f.files = variant(func(s *source) {
					s.files = tree(t, "usr/local/bin/python3.11", "usr/local/bin/python3 -> python3.11", "usr/local/lib/python3.11/os.py",
						"usr/local/lib/python3.11/site-packages/protobuf-4.1.dist-info/METADATA")
				})
			},
			want: func(p *DockerfilePlan) []string { return []string{p.Release.Version, p.Distributions.Reason} }, is: []string{"1.27.0", "the base image"},
		},
		{
			name: "what is locked is newer than in the base image", src: gunicorn, edit: func(f *buildFacts) {
				f.project = locked("protobuf==6.0")
				f.files = variant(func(s *source) {
					s.files = tree(t, "usr/local/bin/python3.11", "usr/local/bin/python3 -> python3.11", "usr/local/lib/python3.11/os.py",
						"usr/local/lib/python3.11/site-packages/protobuf-4.1.dist-info/METADATA")
				})
			},
			want: func(p *DockerfilePlan) []string { return []string{p.Release.Version} }, is: []string{"1.45.1"},
		},
		{
			name: "nothing is locked", src: gunicorn, edit: func(f *buildFacts) {
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "requirements.txt"), []byte("flask>=2\nprotobuf<5\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				var err error
				if f.project, err = requirements.Read(dir); err != nil {
					t.Fatal(err)
				}
			},
			want: func(p *DockerfilePlan) []string { return []string{p.Release.Version, p.Distributions.Reason} }, is: []string{"1.27.0", "requirements.txt"},
			note: "nothing is locked",
		},
		{
			name: "a shell", src: "FROM python:3.11-slim\nCMD python app.py\n",
			want: func(p *DockerfilePlan) []string { return []string{p.Launcher.Value} }, is: []string{"python"}, note: "CMD (line 2) is in shell form",
		},
		{
			name: "an interpreter that a shell finds", src: "FROM x\nENV VENV=/opt/v\nENTRYPOINT exec ${VENV}/bin/python app.py\n",
			want: func(p *DockerfilePlan) []string { return []string{fmt.Sprint(p.Activate), p.Launcher.Value} }, is: []string{"[environment]", ""},
			note: "no interpreter is known to be in the finished image",
		},
		{
			name: "an interpreter at home", src: "FROM x\nENTRYPOINT ~/v/bin/python3.8 app.py\n",
			want: func(p *DockerfilePlan) []string { return []string{fmt.Sprint(p.Activate), p.Python.Value} }, is: []string{"[environment]", "3.8"},
			note: "no interpreter is known to be in the finished image",
		},
		{
			name: "the service's name in the block", src: gunicorn + "# imgwrap:begin\nENV A=1 OTEL_SERVICE_NAME=\"it's \\$5\"\n# imgwrap:end\n",
			want: func(p *DockerfilePlan) []string { return []string{p.Env[4].Value, p.Env[4].Origin, p.State} }, is: []string{"it's $5", "the block that is there", "stale"},
		},
		{
			name: "another name of the service", src: gunicorn + "# imgwrap:begin\nENV OTEL_SERVICE_NAME=a\n# imgwrap:end\n", opts: DockerfileOptions{Settings: Settings{ServiceName: "b"}},
			want: func(p *DockerfilePlan) []string { return []string{p.Env[4].Value, p.Env[4].Origin} }, is: []string{"b", "--service-name"},
		},
		{
			name: "no release fits", src: gunicorn, edit: func(f *buildFacts) { f.project = locked("protobuf==3.0") },
			refused: "none of 2 OpenTelemetry releases fits",
		},
		{
			name: "a conflict that is allowed", src: gunicorn, opts: DockerfileOptions{Instrument: instrument.Options{AllowConflict: []string{"protobuf"}}},
			edit: func(f *buildFacts) { f.project = locked("protobuf==3.0") },
			want: func(p *DockerfilePlan) []string { return []string{p.Release.Version} }, is: []string{"1.45.1"}, note: "allowed conflict: ",
		},
		{
			name: "the finished build decides", src: "FROM x\nCMD [\"serve\"]\n", opts: DockerfileOptions{Image: "app:1"}, edit: func(f *buildFacts) {
				f.project = flask
				f.image = variant(func(s *source) {
					s.parsed.Config.Env, s.parsed.Config.Cmd, s.parsed.Config.User = []string{usrLocal, "OTEL_SERVICE_NAME=x"}, []string{"serve"}, "5"
					s.files = tree(t, "usr/local/bin/python3.11", "usr/local/bin/python3 -> python3.11", "usr/local/lib/python3.11/os.py",
						"usr/local/lib/python3.11/site-packages/protobuf-4.1.dist-info/METADATA")
				})
			},
			want: func(p *DockerfilePlan) []string {
				return []string{p.Release.Version, p.Distributions.Reason, p.Launcher.Value, p.User, fmt.Sprint(p.Entrypoint.Known), p.Block[len(p.Block)-2]}
			},
			is: []string{"1.27.0", "the finished build app:1", "/usr/local/bin/python3.11", "5", "true", `ENTRYPOINT ["/usr/local/bin/python3.11", "-S", "/opt/imgwrap/bin/opentelemetry-instrument"]`},
		},
		{
			name: "the finished build has the block of another time", src: "FROM x\nCMD [\"serve\"]\n", opts: DockerfileOptions{Image: "app:1"}, edit: func(f *buildFacts) {
				f.image = variant(func(s *source) {
					s.parsed.Config.Labels = map[string]string{LabelRelease: "1.27.0/0.48b0"}
					s.parsed.Config.Entrypoint = []string{"python3", "-S", launcherFile, "/entry"}
					s.parsed.Config.Env = []string{usrLocal, "OTEL_SERVICE_NAME=x"}
				})
			},
			want: func(p *DockerfilePlan) []string { return append(p.Entrypoint.Args, p.Env[4].Value) }, is: []string{"/entry", "shop"},
		},
		{
			name: "the finished build has no Python", src: gunicorn, opts: DockerfileOptions{Image: "app:1"}, edit: func(f *buildFacts) {
				f.image = variant(func(s *source) { s.files = tree(t, "bin/sh") })
			},
			refused: "app:1: no Python found",
		},
		{
			name: "platforms that start something else", src: "FROM python:3.11-slim\n", edit: func(f *buildFacts) {
				f.configs = append(f.configs, platformConfig{"linux/arm64", dockerfile.Config{Cmd: []string{"other"}}, nil})
			},
			want: func(p *DockerfilePlan) []string {
				return append(strings.Fields(fmt.Sprint(p.Activate)), p.Launcher.Value)
			}, is: []string{"[environment]", ""},
			note: "CMD of the base image is not the same for linux/amd64 and linux/arm64",
		},
		{
			name: "platforms that differ in what is not inherited", src: gunicorn, edit: func(f *buildFacts) {
				f.configs = append(f.configs, platformConfig{"linux/arm64", dockerfile.Config{Cmd: []string{"other"}}, nil})
			},
			want: func(p *DockerfilePlan) []string { return append(p.Base.Platforms, fmt.Sprint(p.Activate)) }, is: []string{"linux/amd64", "linux/arm64", "[entrypoint]"},
			note: "were looked at, and taken to be alike",
		},
		{
			name: "the base image has OpenTelemetry", src: gunicorn, edit: func(f *buildFacts) {
				f.configs[0].labels = map[string]string{LabelRelease: "1.27.0/0.48b0", LabelSource: "r.io/a@sha256:1"}
			},
			refused: "the base image python:3.11-slim has OpenTelemetry 1.27.0/0.48b0 from imgwrap already",
		},
		{
			name: "a stage before has a block", src: "FROM python:3.11-slim AS a\n# imgwrap:begin\nENTRYPOINT [\"x\"]\n# imgwrap:end\nFROM a\n",
			want: func(p *DockerfilePlan) []string { return []string{p.Block[len(p.Block)-2], p.Block[len(p.Block)-3]} },
			is:   []string{`CMD ["python3"]`, `ENTRYPOINT ["python3", "-S", "/opt/imgwrap/bin/opentelemetry-instrument"]`}, note: "stage a, which it is built on, has a block too",
		},
		{
			name: "health check", src: gunicorn + "HEALTHCHECK CMD python check.py\n", opts: DockerfileOptions{Activate: []Activation{ByEnvironment}},
			want: func(p *DockerfilePlan) []string { return []string{p.Launcher.Reason} }, is: []string{"not needed"}, note: "the health check runs Python",
		},
		{
			name: "instrumentations that are not wanted", src: gunicorn + "ENV OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=redis\n",
			opts: DockerfileOptions{Instrument: instrument.Options{Without: []string{"flask"}}}, edit: func(f *buildFacts) { f.project = flask },
			want: func(p *DockerfilePlan) []string { return []string{p.Env[len(p.Env)-1].Value, p.LeftOut[0].Name} }, is: []string{"redis,flask", "flask"},
		},
		{
			name: "Python's own prefix", src: "FROM nobody/knows:1\nENTRYPOINT [\"python3.8\", \"x.py\"]\n",
			want: func(p *DockerfilePlan) []string { return []string{p.Python.Value, p.Python.Reason, p.Release.Version} }, is: []string{"3.8", "the command names it", "1.27.0"},
		},
		{
			name: "the name of the base image", src: "FROM docker.io/library/python:3.9-slim-bookworm\n",
			want: func(p *DockerfilePlan) []string { return []string{p.Python.Value, p.Python.Reason} }, is: []string{"3.9", "the name of the base image says so"},
		},
		{
			name: "a name that says the system's alone", src: "FROM python:3-bookworm\n",
			want: func(p *DockerfilePlan) []string { return []string{p.Python.Value} }, is: []string{"3.14"}, note: "nothing tells which Python the app runs on",
		},
		{
			name: "the system's Python", src: "FROM debian:bullseye-slim\nCMD [\"python3\", \"x\"]\n",
			want: func(p *DockerfilePlan) []string { return []string{p.Python.Value, p.Python.Reason} }, is: []string{"3.9", "it is the one of bullseye"},
		},
		{
			name: "an interpreter without PYTHONPATH", src: "FROM python:3.11-slim\nCMD exec python -X utf8 -WI -E app.py\n",
			refused: "Python runs with -I or -E",
		},
		{name: "an interpreter without site", src: "FROM python:3.11-slim\nENTRYPOINT [\"tini\", \"-s\", \"--\", \"python\", \"-S\", \"x\"]\n", refused: "Python runs with -S"},
		{
			name: "options of the program are none of Python's", src: "FROM python:3.11-slim\nCMD [\"python\", \"-m\", \"x\", \"-E\", \"-S\"]\n",
			want: func(p *DockerfilePlan) []string { return []string{p.Launcher.Value} }, is: []string{"python"},
		},
		{name: "another interpreter", src: gunicorn, edit: func(f *buildFacts) {
			f.files = variant(func(s *source) {
				s.files = tree(t, "usr/local/bin/pypy3.11", "usr/local/bin/python3 -> pypy3.11", "usr/local/lib/pypy3.11/os.py")
			})
		}, refused: "/usr/local/bin/pypy3.11 is pypy"},
		{name: "pip and the user", src: gunicorn + "USER app\n", opts: DockerfileOptions{Pip: true}, edit: func(f *buildFacts) { f.project = flask },
			want: func(p *DockerfilePlan) []string { return []string{p.Block[1], p.Block[8], p.Packages[2].Name} }, is: []string{"USER root", "USER app", "opentelemetry-instrumentation-flask"}},
		{name: "pip and root", src: gunicorn + "USER 0:0\n", opts: DockerfileOptions{Pip: true}, edit: func(f *buildFacts) { f.project = flask },
			want: func(p *DockerfilePlan) []string { return []string{p.Block[1][:4], p.Block[6], p.Block[7][:4]} }, is: []string{"RUN ", "    && rm /tmp/imgwrap-installed.txt", "ENV "}},
		{name: "pip and an unknown user", src: "FROM x\nENTRYPOINT [\"serve\"]\n", opts: DockerfileOptions{Pip: true},
			want: func(p *DockerfilePlan) []string { return []string{p.Block[1][:4]} }, is: []string{"RUN "}, note: "the user of the base image is not known"},
		{name: "pip of a virtual environment", src: "FROM x\nENTRYPOINT [\"/opt/v/bin/python\", \"a.py\"]\n", opts: DockerfileOptions{Pip: true},
			want: func(p *DockerfilePlan) []string {
				return []string{strings.Fields(p.Block[1])[1], p.Block[len(p.Block)-2]}
			},
			is: []string{"/opt/v/bin/python", `ENTRYPOINT ["/opt/v/bin/opentelemetry-instrument", "/opt/v/bin/python", "a.py"]`}},
		{name: "pip of an interpreter that is named", src: gunicorn, opts: DockerfileOptions{Pip: true, Python: "./v/python"},
			want: func(p *DockerfilePlan) []string {
				return []string{strings.Fields(p.Block[1])[1], p.Block[len(p.Block)-2]}
			},
			is: []string{"./v/python", `ENTRYPOINT ["./v/opentelemetry-instrument"]`}},
		{name: "pip of a path with a space", src: gunicorn, opts: DockerfileOptions{Pip: true, Python: "/opt/my venv/bin/python"},
			want: func(p *DockerfilePlan) []string {
				return []string{p.Block[1][:len("RUN '/opt/my venv/bin/python' -m pip ")], p.Block[len(p.Block)-2]}
			},
			is: []string{"RUN '/opt/my venv/bin/python' -m pip ", `ENTRYPOINT ["/opt/my venv/bin/opentelemetry-instrument"]`}},
		{name: "pip of the system", src: gunicorn, opts: DockerfileOptions{Pip: true, Python: "/usr/bin/python3"},
			want: func(p *DockerfilePlan) []string {
				return []string{strings.Fields(p.Block[1])[1], p.Block[len(p.Block)-2]}
			},
			is: []string{"/usr/bin/python3", `ENTRYPOINT ["opentelemetry-instrument"]`}},
		{name: "pip and a launcher that is there", src: "FROM x\nENTRYPOINT [\"opentelemetry-instrument\", \"python\", \"a.py\"]\n", opts: DockerfileOptions{Pip: true},
			want: func(p *DockerfilePlan) []string {
				return []string{fmt.Sprint(p.Activate), p.Launcher.Reason, fmt.Sprint(strings.Contains(strings.Join(p.Block, "\n"), "ENTRYPOINT"))}
			},
			is: []string{"[entrypoint]", "the command starts it", "false"}, note: "starts opentelemetry-instrument itself: ENTRYPOINT stays as it is"},
		{name: "pip and a user that a variable names", src: "FROM x\nUSER ${NAME}\nENTRYPOINT [\"serve\"]\n", opts: DockerfileOptions{Pip: true},
			want: func(p *DockerfilePlan) []string { return []string{p.Block[1][:4], p.User} }, is: []string{"RUN ", "${NAME}"}, note: "line 2: USER ${NAME} has a variable that is not known"},
		{name: "pip and nothing to put it in front of", src: "FROM x\n", opts: DockerfileOptions{Pip: true}, refused: "opentelemetry-instrument cannot be put in front of ENTRYPOINT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts := tt.opts
			opts.Source, opts.Service, opts.Version = []byte(tt.src), "shop", "1.0"
			opts.Layers = "registry.example.com/otel"
			facts, err := dockerfileFacts(t, bases, opts)
			if err != nil {
				t.Fatal(err)
			}
			if tt.edit != nil {
				tt.edit(&facts)
			}
			p, err := planDockerfile(facts, opts, buildable, nil)
			if tt.refused != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tt.refused) {
					t.Fatalf("error %v, want %s", err, tt.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := tt.want(p); !slices.Equal(got, tt.is) {
				t.Errorf("got %q, want %q", got, tt.is)
			}
			if said := strings.Join(slices.Concat(p.Notes, p.Warnings), "\n"); !strings.Contains(said, tt.note) {
				t.Errorf("said is\n%s\nwithout %s", said, tt.note)
			}
		})
	}
}
