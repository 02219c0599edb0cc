package image

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgwrap/imgwrap/image/python"
	"github.com/imgwrap/imgwrap/image/rewrite"
)

func TestPrebuiltLayers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		edit  func(*source)
		opts  Options
		kinds string
		brief string // in a note, or in what a layer brings
	}{
		{name: "neither", kinds: "bundle launch"},
		{
			name: "both", opts: Options{Native: true, Bytecode: true}, kinds: "bundle native bytecode launch",
			brief: "native code of protobuf 4.25.8 for glibc and amd64",
		},
		{name: "bytecode", opts: Options{Bytecode: true}, kinds: "bundle bytecode launch", brief: "bytecode for Python 3.11"},
		{
			name: "musl", opts: Options{Native: true}, kinds: "bundle launch",
			edit: func(s *source) { s.environment.Interpreter.Libc = "musl" }, brief: "built for glibc, and /usr/local/bin/python3.11 for musl",
		},
		{
			name: "unknown libc", opts: Options{Native: true}, kinds: "bundle launch",
			edit: func(s *source) { s.environment.Interpreter.Libc = "" }, brief: "is not known",
		},
		{
			name: "another architecture", opts: Options{Native: true}, kinds: "bundle launch",
			edit: func(s *source) { s.parsed.Architecture = "s390x" }, brief: "there is none for s390x with OpenTelemetry 1.27.0/0.48b0",
		},
		{
			name: "an unproven Python", opts: Options{Native: true}, kinds: "bundle launch",
			edit: func(s *source) { s.environment.Interpreter.Version = "3.14.1" }, brief: "protobuf 4.25.8 is not proven with Python 3.14",
		},
		{
			name: "free-threaded", opts: Options{Native: true}, kinds: "bundle launch",
			edit: func(s *source) { s.environment.Interpreter.FreeThreaded = true }, brief: "free-threaded",
		},
		{
			name: "the app's protobuf", opts: Options{Native: true}, kinds: "bundle launch",
			edit: func(s *source) {
				s.environment.Distributions = append(s.environment.Distributions, python.Distribution{Name: "Protobuf", Version: "4.25.5"})
			},
			brief: "the app's own protobuf 4.25.5 is used",
		},
		{
			name: "no libstdc++", opts: Options{Native: true}, kinds: "bundle launch",
			edit: func(s *source) { s.files = appFiles(t) }, brief: "libstdc++.so.6",
		},
		{
			name: "a full image", opts: Options{Native: true, Bytecode: true}, kinds: "bundle bytecode launch",
			edit: func(s *source) { grow(t, s, rewrite.MaxLayers-3) }, brief: "more than 125 layers",
		},
		{
			name: "an almost full image", opts: Options{Native: true}, kinds: "bundle native launch",
			edit: func(s *source) { grow(t, s, rewrite.MaxLayers-3) },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := app(t, appFiles(t, "usr/lib/x86_64-linux-gnu/libstdc++.so.6"))
			src.environment.Interpreter.Libc = "glibc"
			src.environment.Distributions = slices.DeleteFunc(src.environment.Distributions, func(d python.Distribution) bool { return d.Name == "protobuf" })
			if tt.edit != nil {
				tt.edit(&src)
			}
			p := mustPlan(t, src, tt.opts)
			var kinds []string
			said := strings.Join(p.Notes, "\n")
			for _, l := range p.Layers {
				kinds = append(kinds, l.Kind)
				said += "\n" + l.Brings
			}
			if got := strings.Join(kinds, " "); got != tt.kinds {
				t.Errorf("layers %s, want %s", got, tt.kinds)
			}
			if !strings.Contains(said, tt.brief) {
				t.Errorf("said\n%s\nwant %q", said, tt.brief)
			}
			if got, want := strings.Contains(said, "no native layer"), tt.opts.Native && !strings.Contains(tt.kinds, "native"); got != want {
				t.Errorf("said why there is no native layer: %t, want %t", got, want)
			}
		})
	}
}

// grow gives an image n layers.
func grow(t *testing.T, s *source, n int) {
	t.Helper()
	var config v1.ConfigFile
	var manifest v1.Manifest
	if err := errors.Join(json.Unmarshal(s.image.Config, &config), json.Unmarshal(s.image.Manifest, &manifest)); err != nil {
		t.Fatal(err)
	}
	config.RootFS.DiffIDs = slices.Repeat(config.RootFS.DiffIDs, n)
	manifest.Layers = slices.Repeat(manifest.Layers, n)
	var err1, err2 error
	s.image.Config, err1 = json.Marshal(config)
	s.image.Manifest, err2 = json.Marshal(manifest)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	s.parsed = &config
}

func TestMissingBytecode(t *testing.T) {
	src := app(t, appFiles(t))
	src.environment.Interpreter.Version = "3.9.2"
	_, err := planFound(src, Options{Bytecode: true}, planned, layers)
	var missing *MissingBytecodeError
	if !errors.As(err, &missing) || missing.Hint() != "imgwrap layer build --bytecode python3.9 1.27.0" {
		t.Errorf("got %v, want a hint how to build the bytecode", err)
	}
}
