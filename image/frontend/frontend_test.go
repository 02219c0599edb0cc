package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/gateway/client"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/solver/result"
	"github.com/moby/buildkit/util/apicaps"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	fstypes "github.com/tonistiigi/fsutil/types"
	"google.golang.org/protobuf/proto"

	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// fakeBuilder is a builder as a frontend sees it. Each Dockerfile makes the same
// image.
type fakeBuilder struct {
	client.Client // not implemented: NewContainer

	opts       map[string]string
	inputs     map[string]llb.State
	platforms  []string // more than one for an index
	dockerfile string
	files      map[string]string // of the image that is built
	config     string            // of it
	sbom       bool              // it has one
	noMerge    bool
	registry   map[string]string // configs by reference

	mu       sync.Mutex
	requests []client.SolveRequest
	solved   []*pb.Definition // other than sources
	warnings []fakeWarning
}

type fakeWarning struct {
	text string
	line int32
}

func (b *fakeBuilder) BuildOpts() client.BuildOpts {
	merge := slices.DeleteFunc(pb.Caps.All(), func(c *apicaps.PBCap) bool { return b.noMerge && c.ID == string(pb.CapMergeOp) })
	return client.BuildOpts{
		Opts:    b.opts,
		Caps:    gatewaypb.Caps.CapSet(gatewaypb.Caps.All()),
		LLBCaps: pb.Caps.CapSet(merge),
	}
}

func (b *fakeBuilder) Inputs(context.Context) (map[string]llb.State, error) { return b.inputs, nil }

func (b *fakeBuilder) Solve(ctx context.Context, req client.SolveRequest) (*client.Result, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	res := client.NewResult()
	if req.Frontend == "" {
		if ops := operations(req.Definition); strings.HasPrefix(ops[len(ops)-1], "local://") {
			res.SetRef(&fakeRef{files: map[string]string{"/Dockerfile": b.dockerfile}})
			return res, nil
		}
		b.solved = append(b.solved, req.Definition)
		res.SetRef(&fakeRef{def: req.Definition})
		return res, nil
	}
	b.requests = append(b.requests, req)
	if req.FrontendOpt["requestid"] != "" {
		res.AddMeta("result.txt", []byte("listed"))
		return res, nil
	}
	var exported exptypes.Platforms
	for _, id := range b.platforms {
		parts := strings.Split(id, "/")
		def, err := llb.Image("built", llb.Platform(ocispecs.Platform{OS: parts[0], Architecture: parts[1]})).Marshal(ctx)
		if err != nil {
			return nil, err
		}
		ref := &fakeRef{def: def.ToPB(), files: b.files}
		if len(b.platforms) == 1 {
			res.SetRef(ref)
			res.AddMeta(exptypes.ExporterImageConfigKey, []byte(b.config))
		} else {
			res.AddRef(id, ref)
			res.AddMeta(exptypes.ExporterImageConfigKey+"/"+id, []byte(b.config))
		}
		if b.sbom {
			res.AddAttestation(id, client.Attestation{InToto: result.InTotoAttestation{PredicateType: "https://spdx.dev/Document"}})
		}
		exported.Platforms = append(exported.Platforms, exptypes.Platform{ID: id, Platform: ocispecs.Platform{OS: parts[0], Architecture: parts[1]}})
	}
	list, err := json.Marshal(exported)
	res.AddMeta(exptypes.ExporterPlatformsKey, list)
	return res, err
}

func (b *fakeBuilder) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	config, ok := b.registry[ref]
	if !ok {
		return "", "", nil, errors.New(ref + ": not found")
	}
	return ref, digest.FromString(ref), []byte(config), nil
}

func (b *fakeBuilder) Warn(_ context.Context, _ digest.Digest, msg string, opts client.WarnOpts) error {
	w := fakeWarning{text: msg}
	if len(opts.Range) > 0 {
		w.line = opts.Range[0].Start.Line
	}
	b.warnings = append(b.warnings, w)
	return nil
}

// fakeRef has files by their absolute names.
type fakeRef struct {
	def   *pb.Definition
	files map[string]string
}

func (r *fakeRef) ToState() (llb.State, error) {
	op, err := llb.NewDefinitionOp(r.def)
	if err != nil {
		return llb.State{}, err
	}
	return llb.NewState(op), nil
}

func (r *fakeRef) Evaluate(context.Context) error { return nil }

func (r *fakeRef) ReadFile(_ context.Context, req client.ReadRequest) ([]byte, error) {
	content, ok := r.files[path.Join("/", req.Filename)]
	if !ok {
		return nil, fs.ErrNotExist
	}
	if req.Range != nil {
		content = content[min(req.Range.Offset, len(content)):]
		content = content[:min(req.Range.Length, len(content))]
	}
	return []byte(content), nil
}

func (r *fakeRef) StatFile(_ context.Context, req client.StatRequest) (*fstypes.Stat, error) {
	content, ok := r.files[path.Join("/", req.Path)]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return &fstypes.Stat{Path: path.Base(req.Path), Size: int64(len(content)), Mode: 0o644}, nil
}

func (r *fakeRef) ReadDir(_ context.Context, req client.ReadDirRequest) ([]*fstypes.Stat, error) {
	found := map[string]*fstypes.Stat{}
	for name, content := range r.files {
		rest, ok := strings.CutPrefix(name, strings.TrimSuffix(req.Path, "/")+"/")
		if !ok {
			continue
		}
		first, _, below := strings.Cut(rest, "/")
		found[first] = &fstypes.Stat{Path: first, Mode: uint32(fs.ModeDir | 0o755)}
		if !below {
			found[first] = &fstypes.Stat{Path: first, Mode: 0o755, Size: int64(len(content))}
		}
	}
	return slices.Collect(maps.Values(found)), nil
}

// operations says what a definition does, one line for each operation.
func operations(def *pb.Definition) []string {
	var lines []string
	for _, raw := range def.Def[:len(def.Def)-1] { // the last names the output
		var op pb.Op
		if err := proto.Unmarshal(raw, &op); err != nil {
			return []string{err.Error()}
		}
		switch o := op.Op.(type) {
		case *pb.Op_Source:
			lines = append(lines, o.Source.Identifier)
		case *pb.Op_Merge:
			lines = append(lines, fmt.Sprintf("merge %d", len(o.Merge.Inputs)))
		case *pb.Op_File:
			for _, a := range o.File.Actions {
				switch a := a.Action.(type) {
				case *pb.FileAction_Mkfile:
					lines = append(lines, "make "+a.Mkfile.Path)
				case *pb.FileAction_Rm:
					lines = append(lines, "remove "+a.Rm.Path)
				case *pb.FileAction_Copy:
					verb := "copy"
					if a.Copy.AttemptUnpackDockerCompatibility {
						verb = "unpack"
					}
					lines = append(lines, fmt.Sprintf("%s %s to %s", verb, a.Copy.Src, a.Copy.Dest))
				}
			}
		}
	}
	return lines
}

const (
	release    = "1.45.1"
	repository = "registry.example/otel"
)

var appDockerfile = `FROM python AS base
ENV OTEL_TRACES_EXPORTER=none
FROM base AS app
COPY . .
CMD ["python3.11", "-m", "app"]
`

// newBuilder makes one that builds an app with Flask.
func newBuilder(t *testing.T, args ...string) *fakeBuilder {
	t.Helper()
	c := mustLoad(t)
	r, err := c.Find(release)
	if err != nil {
		t.Fatal(err)
	}
	b := &fakeBuilder{
		opts: map[string]string{
			"source": "registry.example/imgwrap", "cmdline": "registry.example/imgwrap", "target": "app",
			argPrefix + "LAYERS": repository, argPrefix + "RELEASE": release, argPrefix + "SERVICE_NAME": "shop",
		},
		platforms:  []string{"linux/amd64"},
		dockerfile: appDockerfile,
		files: map[string]string{
			"/usr/local/bin/python3.11":                                              "",
			"/usr/local/lib/python3.11/os.py":                                        "",
			"/usr/local/lib/python3.11/site-packages/Flask-3.0.3.dist-info/METADATA": "Name: Flask\nVersion: 3.0.3\n\n",
		},
		config:   `{"os":"linux","architecture":"amd64","config":{"Cmd":["python3.11","-m","app"],"Env":["PATH=/usr/local/bin"]},"rootfs":{"type":"layers"},"history":[{"created_by":"base"}],"x":1.0}`,
		registry: map[string]string{repository + ":" + release: fmt.Sprintf(`{"rootfs":{"diff_ids":[%q]}}`, r.Layer.DiffID)},
	}
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		b.opts["build-arg:"+name] = value
	}
	return b
}

func mustLoad(t *testing.T) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (b *fakeBuilder) build(t *testing.T) (*client.Result, error) {
	t.Helper()
	f := &Frontend{Catalog: mustLoad(t), Version: "v1.2.3"}
	return f.Build(t.Context(), b)
}

func (b *fakeBuilder) mustBuild(t *testing.T) *client.Result {
	t.Helper()
	res, err := b.build(t)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// bundleImage is how the LLB names the bundle's image.
func bundleImage() string {
	ref := repository + ":" + release
	return "docker-image://" + ref + "@" + digest.FromString(ref).String()
}

func wantLines(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestBuild(t *testing.T) {
	b := newBuilder(t)
	b.inputs = map[string]llb.State{"base": llb.Image("other")}
	res := b.mustBuild(t)

	req := b.requests[0]
	if _, ok := req.FrontendOpt["source"]; ok || req.Frontend != "dockerfile.v0" || req.FrontendOpt["cmdline"] == "" || req.FrontendOpt["target"] != "app" {
		t.Errorf("it is built by %s with %v", req.Frontend, req.FrontendOpt)
	}
	if !req.Evaluate {
		t.Error("what fails to be built is found only by looking into it")
	}
	if got := operations(req.FrontendInputs["base"]); !slices.Equal(got, []string{"docker-image://docker.io/library/other:latest"}) {
		t.Errorf("the input is %q", got)
	}

	def := res.Ref.(*fakeRef).def
	got := operations(def)
	slices.Sort(got) // the order of what does not depend on each other is free
	wantLines(t, got, []string{
		"docker-image://docker.io/library/built:latest",
		bundleImage(),
		"make /launch.tar",
		"merge 3",
		"unpack /launch.tar to /",
	})
	var config struct {
		Config struct {
			Entrypoint, Env []string
			Labels          map[string]string
		}
		RootFS  struct{ DiffIDs []string }
		History []struct {
			CreatedBy  string `json:"created_by"`
			EmptyLayer bool   `json:"empty_layer"`
		}
	}
	raw := string(res.Metadata[exptypes.ExporterImageConfigKey])
	if err := json.Unmarshal([]byte(raw), &config); err != nil {
		t.Fatal(err)
	}
	if want := []string{"opentelemetry-instrument"}; !slices.Equal(config.Config.Entrypoint, want) {
		t.Errorf("the entry point is %q, want %q", config.Config.Entrypoint, want)
	}
	if want := (map[string]string{"io.imgwrap.version": "v1.2.3", "io.imgwrap.release": "1.45.1/0.66b1"}); !maps.Equal(config.Config.Labels, want) {
		t.Errorf("the labels are %v, want %v", config.Config.Labels, want)
	}
	if !strings.Contains(raw, `"x":1.0`) || len(config.RootFS.DiffIDs) != 0 {
		t.Errorf("the config is %s", raw)
	}
	var layers []string
	for _, h := range config.History {
		if !h.EmptyLayer {
			layers = append(layers, h.CreatedBy)
		}
	}
	wantLines(t, layers, []string{"base", "imgwrap: OpenTelemetry 1.45.1/0.66b1", "imgwrap: launcher, loader and plan"})

	// The builder's cache finds the same steps again.
	again := newBuilder(t)
	second := again.mustBuild(t).Ref.(*fakeRef).def
	if !slices.EqualFunc(def.Def, second.Def, func(a, b []byte) bool { return string(a) == string(b) }) {
		t.Errorf("the second time it does\n%s", strings.Join(operations(second), "\n"))
	}
}

func TestWithoutMerge(t *testing.T) {
	b := newBuilder(t)
	b.noMerge = true
	res := b.mustBuild(t)
	got := operations(res.Ref.(*fakeRef).def)
	hides := slices.ContainsFunc(got, func(l string) bool {
		return strings.HasPrefix(l, "remove "+bundle.Root+"/otel-"+release+"/opentelemetry_instrumentation_django-")
	})
	got = slices.DeleteFunc(got, func(l string) bool { return strings.HasPrefix(l, "remove ") })
	last := got[len(got)-2:]
	wantLines(t, last, []string{"copy /opt/imgwrap to /opt/imgwrap", "unpack /launch.tar to /"})
	if !hides {
		t.Error("Django's instrumentation is not hidden")
	}
	if config := string(res.Metadata[exptypes.ExporterImageConfigKey]); !strings.Contains(config, `{"created_by":"imgwrap: OpenTelemetry 1.45.1/0.66b1; launcher, loader and plan"}`) {
		t.Errorf("the config is %s", config)
	}
}

func TestPlatforms(t *testing.T) {
	b := newBuilder(t)
	b.platforms = []string{"linux/amd64", "linux/arm64"}
	b.sbom = true
	res := b.mustBuild(t)
	for _, id := range b.platforms {
		if got := operations(res.Refs[id].(*fakeRef).def); !slices.Contains(got, "merge 3") {
			t.Errorf("%s: %q", id, got)
		}
		if config := string(res.Metadata[exptypes.ExporterImageConfigKey+"/"+id]); !strings.Contains(config, "opentelemetry-instrument") {
			t.Errorf("%s: the config is %s", id, config)
		}
		list := res.Attestations[id]
		if len(list) != 2 {
			t.Fatalf("%s: %d attestations", id, len(list))
		}
		a := list[1]
		ref := a.Ref.(*fakeRef)
		if a.Kind != gatewaypb.AttestationKind_InToto || a.Path != sbomName || !slices.Equal(operations(ref.def), []string{"make " + sbomName}) {
			t.Errorf("%s: %+v", id, a)
		}
		document := string(ref.def.Def[0])
		for want, listed := range map[string]bool{
			`"referenceLocator":"pkg:pypi/opentelemetry-sdk@1.45.1"`:   true,
			`"name":"opentelemetry-instrumentation-flask"`:             true,
			`"name":"opentelemetry-instrumentation-django"`:            false,
			`"documentNamespace":"https://github.com/imgwrap/imgwrap/`: true,
		} {
			if strings.Contains(document, want) != listed {
				t.Errorf("%s: the SBOM has %s: %v", id, want, !listed)
			}
		}
	}
}

func TestSubrequest(t *testing.T) {
	b := newBuilder(t, "IMGWRAP_LAYERS=")
	b.opts["requestid"] = "frontend.targets"
	res := b.mustBuild(t)
	if got := string(res.Metadata["result.txt"]); got != "listed" || b.requests[0].FrontendOpt["requestid"] == "" {
		t.Errorf("the result is %q", got)
	}
}

func TestSyntax(t *testing.T) {
	b := newBuilder(t, "IMGWRAP_SYNTAX=docker/dockerfile:1 x", "IMGWRAP_DISABLE=1")
	b.mustBuild(t)
	req := b.requests[0]
	if req.Frontend != "gateway.v0" || req.FrontendOpt["source"] != "docker/dockerfile:1" || req.FrontendOpt["cmdline"] != "docker/dockerfile:1 x" {
		t.Errorf("it is built by %s with %v", req.Frontend, req.FrontendOpt)
	}
	if _, ok := req.FrontendOpt[argPrefix+"SYNTAX"]; ok {
		t.Error("that frontend is told to leave it to another one in turn")
	}
	if len(b.solved) != 0 {
		t.Errorf("something was added: %q", operations(b.solved[0]))
	}
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		change func(*fakeBuilder)
		want   string
		line   int32 // of the Dockerfile
	}{
		{args: []string{"IMGWRAP_NONE=1"}, want: "no build argument IMGWRAP_NONE is known; there are IMGWRAP_ACTIVATE, "},
		{args: []string{"IMGWRAP_native=1"}, want: "no build argument IMGWRAP_native is known"},
		{args: []string{"IMGWRAP_NATIVE=perhaps"}, want: "IMGWRAP_NATIVE=perhaps is not a bool"},
		{args: []string{"IMGWRAP_LOG_CORRELATION=perhaps"}, want: "IMGWRAP_LOG_CORRELATION=perhaps is not a bool"},
		{args: []string{"IMGWRAP_BOUNDS=x"}, want: "IMGWRAP_BOUNDS=x; use strict or proven"},
		{args: []string{"IMGWRAP_ACTIVATE=x"}, want: "IMGWRAP_ACTIVATE=x; use entrypoint"},
		{args: []string{"IMGWRAP_LAYERS="}, want: "no repository to take OpenTelemetry's layers from; push them with `imgwrap layer push REPOSITORY`"},
		{args: []string{"IMGWRAP_LAYERS=a:1"}, want: "IMGWRAP_LAYERS=a:1 is not a repository"},
		{args: []string{"IMGWRAP_LAYERS=registry.example/none"}, want: "push it with `imgwrap layer push registry.example/none 1.45.1`"},
		{args: []string{"IMGWRAP_RELEASE=0.1"}, want: "0.1"},
		{args: []string{"IMGWRAP_ENDPOINT=collector"}, want: "OTEL_EXPORTER_OTLP_ENDPOINT=collector (IMGWRAP_ENDPOINT): not an http or https URL"},
		{args: []string{"IMGWRAP_PLATFORM=linux/s390x"}, want: "IMGWRAP_PLATFORM linux/s390x: the image has none of it"},
		{
			change: func(b *fakeBuilder) { b.files = map[string]string{"/app": ""} },
			want:   "no Python found: ", line: 5,
		},
		{
			change: func(b *fakeBuilder) {
				b.config = strings.Replace(b.config, `"PATH=`, `"OTEL_TRACES_EXPORTER=smoke","PATH=`, 1)
			},
			want: "OTEL_TRACES_EXPORTER=smoke (image): no exporter named", line: 2,
		},
		{
			change: func(b *fakeBuilder) {
				b.config = strings.Replace(b.config, `"Env"`, `"Labels":{"io.imgwrap.release":"1.27.0/0.48b0","io.imgwrap.source":"app@sha256:1"},"Env"`, 1)
			},
			want: "it is built on an image that has OpenTelemetry 1.27.0/0.48b0 from imgwrap already; build on an image without it, app@sha256:1", line: 5,
		},
		{
			change: func(b *fakeBuilder) {
				b.registry[repository+":"+release] = `{"rootfs":{"diff_ids":["sha256:0"]}}`
			},
			want: repository + ":1.45.1 is not the layer with OpenTelemetry 1.45.1/0.66b1",
		},
		{change: func(b *fakeBuilder) { b.config = "{" }, want: "reading the config of the built image for linux/amd64"},
	} {
		b := newBuilder(t, tt.args...)
		if tt.change != nil {
			tt.change(b)
		}
		_, err := b.build(t)
		if err == nil || !strings.HasPrefix(err.Error(), "imgwrap: ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %s", tt.args, err, tt.want)
			continue
		}
		var line int32
		if sources := errdefs.Sources(err); len(sources) > 0 {
			line = sources[0].Ranges[0].Start.Line
		}
		if line != tt.line {
			t.Errorf("%v: at line %d, want %d", err, line, tt.line)
		}
	}
}

func TestWarnings(t *testing.T) {
	b := newBuilder(t, "IMGWRAP_SERVICE_NAME=")
	b.platforms = []string{"linux/amd64", "linux/arm64"}
	b.config = strings.Replace(b.config, `"PATH=`, `"OTEL_TRACES_EXPORTER=none","PATH=`, 1)
	b.mustBuild(t)
	want := []fakeWarning{
		{"imgwrap: nothing tells what the app is called: it is unknown_service unless IMGWRAP_SERVICE_NAME says it, or OTEL_SERVICE_NAME when it starts", 5},
		{"imgwrap: OTEL_TRACES_EXPORTER=none in the image: no trace is sent until that is changed", 5},
	}
	if !slices.Equal(b.warnings, want) {
		t.Errorf("the warnings are %+v, want %+v", b.warnings, want)
	}
}

func TestApplicationName(t *testing.T) {
	for _, tt := range []struct {
		opts   map[string]string
		config string
		want   string
	}{
		{nil, `{}`, ""},
		{nil, `{"config":{"Labels":{"org.opencontainers.image.title":"Shop"}}}`, "Shop"},
		{map[string]string{"vcs:source": "git@example.com:team/shop.git"}, `{}`, "shop"},
		{map[string]string{"context": "https://example.com/team/shop.git#main:dir"}, `{}`, "shop"},
		{map[string]string{"context": "https://example.com/team/shop?ref=x"}, `{}`, "shop"},
		{map[string]string{"context": "local"}, `{}`, ""},
	} {
		if got := applicationName(tt.opts, []byte(tt.config)); got != tt.want {
			t.Errorf("%v, %s: got %q, want %q", tt.opts, tt.config, got, tt.want)
		}
	}
}
