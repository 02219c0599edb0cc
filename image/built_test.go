package image

import (
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgwrap/imgwrap/image/rewrite"
	"github.com/imgwrap/imgwrap/image/scan"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// builtCatalog has the bundle of one release recorded.
func builtCatalog(t *testing.T) *catalog.Catalog {
	t.Helper()
	r, err := planned.Find("1.27.0")
	if err != nil {
		t.Fatal(err)
	}
	recorded := *r
	recorded.Layer = catalog.Layer{Digest: bundleInfo.Digest.String(), DiffID: bundleInfo.DiffID.String(), Size: bundleInfo.Size}
	return catalog.New(&recorded)
}

func builtImage(t *testing.T, architecture string, files *scan.Index, labels map[string]string) Built {
	t.Helper()
	raw, err := json.Marshal(v1.ConfigFile{
		Architecture: architecture, OS: "linux",
		RootFS:  v1.RootFS{Type: "layers"},
		History: []v1.History{{CreatedBy: "base"}, {CreatedBy: "CMD", EmptyLayer: true}},
		Config:  v1.Config{Cmd: []string{"python3.11", "-m", "app"}, Labels: labels},
	})
	if err != nil {
		t.Fatal(err)
	}
	return Built{Platform: v1.Platform{OS: "linux", Architecture: architecture}, Config: raw, Files: files, Name: "shop"}
}

// TestPlanBuilt plans an image as it was built and as it was exported: of both
// come the same layers, and the same config but for what only an exported image
// has.
func TestPlanBuilt(t *testing.T) {
	files, c := appFiles(t), builtCatalog(t)
	im := builtImage(t, "amd64", files, nil)
	plans, warnings, err := PlanBuilt(t.Context(), []Built{im}, Options{Version: "v1"}, c)
	if err != nil || len(plans) != 1 || len(warnings) != 0 {
		t.Fatalf("%d plans, warnings %q, %v", len(plans), warnings, err)
	}
	got := plans[0]
	want := mustPlan(t, app(t, files), Options{Version: "v1", Settings: Settings{ServiceName: "shop"}})
	if !slices.Equal(got.Layers, want.Layers) || len(got.Added) != len(got.Layers) {
		t.Errorf("the layers are %+v, want %+v", got.Layers, want.Layers)
	}
	if tags := []string{got.Added[0].Tag, got.Added[1].Tag}; !slices.Equal(tags, []string{"1.27.0", ""}) {
		t.Errorf("the layers' tags are %q", tags)
	}
	archive, err := got.Added[1].Archive()
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	if _, err := io.Copy(io.Discard, archive); err != nil {
		t.Error(err)
	}
	if _, err := got.Added[0].Archive(); err == nil {
		t.Error("the bundle was not built, and has an archive")
	}
	if names := distributionNames(got.Distributions); slices.Contains(names, "protobuf") || !slices.Contains(names, "opentelemetry-instrumentation-flask") {
		t.Errorf("what takes effect is %q; protobuf is the app's own", names)
	}

	var built, wrapped v1.ConfigFile
	if err := errors.Join(json.Unmarshal(got.Config, &built), json.Unmarshal(want.wrapped.Config, &wrapped)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(built.Config.Entrypoint, wrapped.Config.Entrypoint) || !slices.Equal(built.Config.Env, wrapped.Config.Env) {
		t.Errorf("%q %q, want %q %q", built.Config.Entrypoint, built.Config.Env, wrapped.Config.Entrypoint, wrapped.Config.Env)
	}
	if labels := built.Config.Labels; len(labels) != 2 || labels[LabelRelease] != "1.27.0/0.48b0" || labels[LabelVersion] != "v1" {
		t.Errorf("the labels are %v", labels)
	}
	if len(built.RootFS.DiffIDs) != 0 || !built.Created.IsZero() {
		t.Errorf("diff IDs %v, created %v: both are the exporter's", built.RootFS.DiffIDs, built.Created)
	}
	if n := len(built.History); n < 6 || built.History[2].CreatedBy != "imgwrap: OpenTelemetry 1.27.0/0.48b0" || built.History[3].EmptyLayer || built.History[n-1].CreatedBy != "LABEL io.imgwrap.release io.imgwrap.version" {
		t.Errorf("the history is %+v", built.History)
	}
}

func distributionNames(list []catalog.Distribution) (names []string) {
	for _, d := range list {
		names = append(names, d.Name)
	}
	return names
}

func TestPlanBuiltPlatforms(t *testing.T) {
	c := builtCatalog(t)
	python, none := appFiles(t), scan.Merge()
	images := []Built{builtImage(t, "amd64", python, nil), builtImage(t, "arm64", none, nil)}
	_, _, err := PlanBuilt(t.Context(), images, Options{}, c)
	if !IsRefused(err) || !strings.HasPrefix(err.Error(), "linux/arm64: no Python") {
		t.Errorf("one without Python: %v", err)
	}
	for _, opts := range []Options{{SkipUnsupported: true}, {Platforms: []string{"linux/amd64"}}} {
		plans, _, err := PlanBuilt(t.Context(), images, opts, c)
		if err != nil || plans[0].ImagePlan == nil || plans[1].ImagePlan != nil || plans[1].Kept == "" {
			t.Errorf("%+v: %+v, %v", opts, plans, err)
		}
	}
	var usage *UsageError
	if _, _, err := PlanBuilt(t.Context(), images, Options{Platforms: []string{"linux/s390x"}}, c); !errors.As(err, &usage) {
		t.Errorf("a platform that was not built: %v", err)
	}
	var unknown *catalog.UnknownReleaseError
	opts := Options{}
	opts.Instrument.Release = "9"
	if _, _, err := PlanBuilt(t.Context(), images[:1], opts, c); !errors.As(err, &unknown) {
		t.Errorf("an unknown release: %v", err)
	}
	var bytecode *MissingBytecodeError
	if _, _, err := PlanBuilt(t.Context(), images[:1], Options{Bytecode: true}, c); !errors.As(err, &bytecode) {
		t.Errorf("bytecode: %v", err)
	}
}

func TestPlanBuiltOneLayer(t *testing.T) {
	im := builtImage(t, "amd64", appFiles(t), nil)
	im.Name, im.OneLayer = "", true
	plans, _, err := PlanBuilt(t.Context(), []Built{im}, Options{}, builtCatalog(t))
	if err != nil {
		t.Fatal(err)
	}
	var config v1.ConfigFile
	if err := json.Unmarshal(plans[0].Config, &config); err != nil {
		t.Fatal(err)
	}
	layers := slices.DeleteFunc(config.History, func(h v1.History) bool { return h.EmptyLayer })
	if len(layers) != 2 || layers[1].CreatedBy != "imgwrap: OpenTelemetry 1.27.0/0.48b0; launcher, loader and plan" {
		t.Errorf("the history has %+v", layers)
	}
	if !slices.ContainsFunc(plans[0].Warnings, func(w string) bool { return strings.Contains(w, "unknown_service") }) {
		t.Errorf("nothing warns of a missing name: %q", plans[0].Warnings)
	}
}

func TestBuiltOnInstrumented(t *testing.T) {
	im := builtImage(t, "amd64", appFiles(t), map[string]string{LabelRelease: "1.27.0/0.48b0", LabelSource: "app@sha256:1"})
	_, _, err := PlanBuilt(t.Context(), []Built{im}, Options{}, builtCatalog(t))
	var refused *RefusedError
	if !errors.As(err, &refused) || !strings.Contains(refused.Problem, "OpenTelemetry 1.27.0/0.48b0 from imgwrap already") || !strings.Contains(refused.Remedy, "app@sha256:1") {
		t.Errorf("got %v", err)
	}
}

func TestInstrumentedInBuild(t *testing.T) {
	src := app(t, appFiles(t))
	src.parsed.Config.Labels = map[string]string{LabelRelease: "1.27.0/0.48b0"}
	n := &node{source: &src}
	for name, err := range map[string]error{"plan": second(n.decide(Options{}, planned, layers)), "unwrap": (&target{root: n}).notWrapped()} {
		if !IsRefused(err) || !strings.Contains(err.Error(), "instrumented when it was built, with OpenTelemetry 1.27.0/0.48b0") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	src.parsed.Config.Labels = nil
	if err := (&target{root: n}).notWrapped(); !strings.Contains(err.Error(), "imgwrap did not wrap it") {
		t.Errorf("got %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestBuiltLayerLimit counts the layers of what was built by its history.
func TestBuiltLayerLimit(t *testing.T) {
	im := builtImage(t, "amd64", appFiles(t), nil)
	var config v1.ConfigFile
	if err := json.Unmarshal(im.Config, &config); err != nil {
		t.Fatal(err)
	}
	config.History = make([]v1.History, rewrite.MaxLayers-1)
	var err error
	if im.Config, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	_, _, err = PlanBuilt(t.Context(), []Built{im}, Options{}, builtCatalog(t))
	var limit *rewrite.LayerLimitError
	if !errors.As(err, &limit) || limit.Layers != rewrite.MaxLayers-1 || limit.Added != 2 {
		t.Errorf("got %v", err)
	}
}
