package dockerfile

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
)

// resolver has the config of a base image for BuildKit. Others are empty.
type resolver struct {
	image  string
	config Config
}

func (r resolver) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	c := Config{}
	if named, err := reference.ParseNormalizedNamed(r.image); err == nil && reference.TagNameOnly(named).String() == ref {
		c = r.config
	}
	im := dockerspec.DockerOCIImage{}
	im.OS, im.Architecture = "linux", "amd64"
	im.Config.Entrypoint, im.Config.Cmd, im.Config.Env = c.Entrypoint, c.Cmd, slices.Clone(c.Env)
	im.Config.User, im.Config.WorkingDir, im.Config.Shell, im.Config.OnBuild = c.User, c.WorkingDir, c.Shell, c.OnBuild
	raw, err := json.Marshal(im)
	return ref, digest.FromBytes(raw), raw, err
}

// TestAsBuildKit compares what this package says about stages with the images
// that BuildKit would make of them, with and without a block.
func TestAsBuildKit(t *testing.T) {
	bases := []Config{
		{},
		{Env: []string{"PATH=/usr/local/bin:/bin", "A=base"}, Cmd: []string{"python3"}},
		{
			Env: []string{"PATH=/bin", "PYTHONPATH=/base"}, Entrypoint: []string{"/entry", "--"}, Cmd: []string{"serve"}, Shell: []string{"/bin/ash", "-xc"},
			User: "5:6", WorkingDir: "/srv", OnBuild: []string{"RUN true", "ENV ON=$A", "CMD on $ON", "WORKDIR sub"},
		},
		{OnBuild: []string{`ENTRYPOINT ["on"]`}, Cmd: []string{"x"}},
	}
	files := corpus(t)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasPrefix(name, "54-") {
			continue // BuildKit does not know what is in it either
		}
		t.Run(strings.ReplaceAll(name, "/", "-"), func(t *testing.T) {
			f, err := Parse(files[name])
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range f.Stages {
				if s.Name == "" && s.Index+1 < len(f.Stages) {
					continue // it is no target
				}
				for n, base := range bases {
					if n > 1 && strings.HasPrefix(name, "55-") {
						continue // BuildKit warns of the base image's ONBUILD, which is an error in this file
					}
					options := Options{BuildArgs: map[string]string{"BASE": "python:3.11-slim"}, Platform: "linux/amd64"}
					b, err := f.Base(s, options)
					if err != nil {
						t.Fatal(err)
					}
					var config *Config
					if b.Image != "" {
						config = &base
					}
					st, err := f.State(b, config, options)
					if err != nil {
						t.Fatal(err)
					}
					var warnings map[string]int
					is := func(what string, src []byte, want Config) {
						t.Helper()
						got, warned := built(t, src, s.Name, options, b.Image, base)
						if warnings == nil {
							warnings = warned
						} else if !maps.Equal(warned, warnings) {
							t.Errorf("%s, base %d, stage %s: BuildKit warns of %v, without the block of %v", what, n, s, warned, warnings)
						}
						if !slices.Equal(got.Entrypoint, want.Entrypoint) || !slices.Equal(got.Cmd, want.Cmd) || got.User != want.User || !slices.Equal(got.Env, want.Env) ||
							strings.TrimSuffix(got.WorkingDir, "/") != strings.TrimSuffix(want.WorkingDir, "/") {
							t.Errorf("%s, base %d, stage %s: BuildKit makes\n%+v, not\n%+v", what, n, s, got, want)
						}
					}
					is("as it is", files[name], st.Config)

					block := Block{
						Copies:     []Copy{{"registry.example.com/otel:1", "/opt/imgwrap"}},
						Env:        []Variable{{Name: "NEW", Value: "it's $A \"`\\"}, {Name: "DEF", Value: "d'}$x", Default: true}, {Name: "PYTHONPATH", Value: "/init", Before: true}},
						Labels:     []Variable{{Name: "l", Value: "v"}},
						Entrypoint: append([]string{"launcher"}, st.Entrypoint...),
						Again:      st.EntrypointOwn,
					}
					if !st.CmdOwn && len(st.Cmd) > 0 {
						block.Cmd = st.Cmd
					}
					out, err := f.Write(s, block)
					if err != nil {
						t.Fatal(err)
					}
					want := st.Config
					want.Entrypoint = block.Entrypoint
					path := "/init"
					if before := st.Environ()["PYTHONPATH"]; before != "" {
						path += ":" + before
					}
					with := &state{State: State{Config: Config{Env: slices.Clone(st.Env)}}, env: map[string]string{}}
					with.setEnv("NEW", "it's $A \"`\\")
					with.setEnv("DEF", "d'}$x")
					with.setEnv("PYTHONPATH", path)
					want.Env = with.Env
					is("with the block", out, want)
				}
			}
		})
	}
}

// built is the config of the image that BuildKit makes of a stage, and how often
// it warns of what.
func built(t *testing.T, src []byte, target string, o Options, image string, base Config) (Config, map[string]int) {
	t.Helper()
	warnings := map[string]int{}
	result, err := dockerfile2llb.Dockerfile2LLB(t.Context(), bytes.Clone(src), dockerfile2llb.ConvertOpt{
		Config:       dockerui.Config{BuildArgs: maps.Clone(o.BuildArgs), Target: target},
		MetaResolver: resolver{image, base},
		Warn:         func(rule, _, _, _ string, _ []parser.Range) { warnings[rule]++ },
	})
	if err != nil {
		t.Fatalf("%v:\n%s", err, src)
	}
	c := result.Image.Config
	return Config{Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, User: c.User, WorkingDir: c.WorkingDir}, warnings
}
