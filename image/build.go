package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/imgwrap/imgwrap/image/dockerfile"
	"github.com/imgwrap/imgwrap/image/instrument"
	"github.com/imgwrap/imgwrap/image/python"
	"github.com/imgwrap/imgwrap/image/requirements"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// DockerfileOptions are everything that the user decides about the block in a
// Dockerfile.
type DockerfileOptions struct {
	Source    []byte // the Dockerfile
	Context   string // directory of the project that it builds, whose lock files are read; "" for none
	Service   string // what OTEL_SERVICE_NAME is where nothing else names it, "" for nothing
	Target    string // stage, "" for the last
	BuildArgs map[string]string
	Platforms []string // that it is built for, "linux/arm64"; empty for those that the base image has
	Image     string   // a finished build of it, whose packages are looked at; "" for none
	Layers    string   // repository of published layers
	Python    string   // interpreter that runs the launcher, or pip
	Activate  []Activation
	Native    bool // take protobuf's native code where it is known to work
	Pip       bool // have pip install OpenTelemetry, in place of published layers
	// Offline asks no registry for anything.
	Offline    bool
	Instrument instrument.Options
	Settings   Settings
	Version    string // imgwrap's own, for the label
}

// Dockerfile decides what the block in a Dockerfile is and writes it into
// [DockerfilePlan.Rewritten]. The base image, and a finished build if one is
// given, are looked into where they are; an unreadable base image is no error.
func (w *Wrapper) Dockerfile(ctx context.Context, opts DockerfileOptions) (*DockerfilePlan, error) {
	if release := opts.Instrument.Release; release != "" {
		if _, err := w.Catalog.Find(release); err != nil {
			return nil, err
		}
	}
	f, err := dockerfile.Parse(opts.Source)
	if err != nil {
		return nil, err
	}
	if _, err := parsePlatforms(opts.Platforms); err != nil {
		return nil, err
	}
	if _, version := requirements.PythonMinor(opts.Python); version {
		return nil, &UsageError{fmt.Sprintf("--python %s is no interpreter", opts.Python), "name the interpreter, such as python3.12 or /usr/bin/python3"}
	}
	facts := buildFacts{file: f}
	if facts.stage, err = f.Target(opts.Target); err != nil {
		return nil, err
	}
	if facts.base, err = f.Base(facts.stage, opts.build()); err != nil {
		return nil, err
	}
	if err := opts.checkLayers(); err != nil {
		return nil, err
	}
	if opts.Context != "" {
		if info, err := os.Stat(opts.Context); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
			return nil, &UsageError{opts.Context + " is no directory", "name that of the project with --context"}
		}
		if facts.project, err = requirements.Read(opts.Context); err != nil {
			return nil, err
		}
	}
	if err := w.lookAtBase(ctx, &facts, opts); err != nil {
		return nil, err
	}
	if opts.Image != "" {
		if facts.image, err = w.lookAtBuild(ctx, opts); err != nil {
			return nil, err
		}
	}
	var digest func(tag string) (string, error)
	if !opts.Offline {
		digest = func(tag string) (string, error) { return w.publishedLayers(ctx, opts.Layers, tag) }
	}
	return planDockerfile(facts, opts, w.Catalog, digest)
}

// build is what the build is given.
func (o DockerfileOptions) build() dockerfile.Options {
	build := dockerfile.Options{BuildArgs: o.BuildArgs}
	if len(o.Platforms) > 0 {
		build.Platform = o.Platforms[0]
	}
	return build
}

// buildFacts are what a plan for a Dockerfile depends on besides options and
// catalog.
type buildFacts struct {
	file    *dockerfile.File
	stage   *dockerfile.Stage
	base    dockerfile.Base
	project *requirements.Project // nil if there is none

	// configs are those of the base image by platform, the one whose files were
	// looked at first. There are none if it is not known, for the reason unknown.
	configs []platformConfig
	unknown string
	digest  string  // of what the base image's name stands for
	files   *source // of the first platform, nil if they could not be read

	image *source // a finished build, nil if none is given
}

type platformConfig struct {
	platform string
	config   dockerfile.Config
	labels   map[string]string
}

// lookAtBase reads the base image as far as that is possible.
func (w *Wrapper) lookAtBase(ctx context.Context, facts *buildFacts, opts DockerfileOptions) error {
	base := facts.base
	if base.Image == "" {
		return nil
	}
	if opts.Offline {
		facts.unknown = "no registry is asked (--offline)"
		return nil
	}
	unreadable := func(err error) error {
		if ctx.Err() != nil {
			return err
		}
		facts.unknown = err.Error()
		return nil
	}
	if _, err := name.ParseReference(base.Image); err != nil {
		return &dockerfile.Error{Line: base.Line, Problem: fmt.Sprintf("FROM %s is no image", base.Image), Remedy: "check the name, and the variables in it"}
	}
	s, err := w.Registry.Find(ctx, base.Image)
	if err != nil {
		return unreadable(err)
	}
	defer s.Close()
	// What is wrapped already is not taken back: it is what the build is on.
	root := rootOf(s)
	if err := w.grow(ctx, s, root); err != nil {
		return unreadable(err)
	}
	platforms := opts.Platforms
	if len(platforms) == 0 && base.Platform != "" {
		platforms = []string{base.Platform}
	}
	if err := root.choose(platforms); err != nil {
		return about(base.Image, err)
	}
	images := root.images()
	if len(platforms) > 0 {
		slices.SortStableFunc(images, func(a, b *node) int { return rank(a, platforms[0]) - rank(b, platforms[0]) })
	} else {
		slices.SortStableFunc(images, func(a, b *node) int { return rank(a, "linux/amd64") - rank(b, "linux/amd64") })
	}
	facts.digest = s.Root.Digest.String()
	for _, n := range images {
		c := n.source.parsed.Config
		facts.configs = append(facts.configs, platformConfig{n.platform().String(), dockerfileConfig(c), c.Labels})
	}
	// The others' files are taken to be like those of the first.
	first := images[0]
	if err := w.read(ctx, s, []*node{first}, func() error { return nil }); err != nil {
		if ctx.Err() != nil {
			return err
		}
		facts.unknown = err.Error()
		return nil
	}
	facts.files = first.source
	return nil
}

// dockerfileConfig is the part of a config that instructions inherit.
func dockerfileConfig(c v1.Config) dockerfile.Config {
	d := dockerfile.Config{
		Entrypoint: c.Entrypoint, Cmd: c.Cmd, Shell: c.Shell, Env: c.Env,
		User: c.User, WorkingDir: c.WorkingDir, OnBuild: c.OnBuild,
	}
	if c.Healthcheck != nil {
		d.Healthcheck = c.Healthcheck.Test
	}
	return d
}

// rank sorts the images of a platform first.
func rank(n *node, wanted string) int {
	p, err := v1.ParsePlatform(wanted)
	if err == nil && n.platform().Satisfies(*p) {
		return 0
	}
	return 1
}

// lookAtBuild reads the image that the Dockerfile was built to before.
func (w *Wrapper) lookAtBuild(ctx context.Context, opts DockerfileOptions) (*source, error) {
	t, err := w.open(ctx, opts.Image)
	if err != nil {
		return nil, err
	}
	defer t.source.Close()
	if err := t.root.choose(opts.Platforms); err != nil {
		return nil, about(opts.Image, err)
	}
	images := t.root.images()[:1]
	if err := w.read(ctx, t.source, images, func() error { return nil }); err != nil {
		return nil, about(opts.Image, err)
	}
	return images[0].source, nil
}

// MissingLayersError says that a repository does not have the layers of a
// release for Dockerfiles.
type MissingLayersError struct {
	Repository, Tag string
	Release         *catalog.Release
}

func (e *MissingLayersError) Error() string {
	return fmt.Sprintf("%s has no layers of OpenTelemetry %s for Dockerfiles (tag %s)", e.Repository, e.Release, e.Tag)
}

// Hint says how they get there.
func (e *MissingLayersError) Hint() string {
	return fmt.Sprintf("imgwrap layer push %s %s", e.Repository, e.Release.Version)
}

// publishedLayers is the digest of what a tag of the repository stands for. The
// error is a *[MissingLayersError] without a release if there is no such tag.
func (w *Wrapper) publishedLayers(ctx context.Context, repository, tag string) (string, error) {
	ref, err := w.Registry.ParseReference(repository)
	if err == nil {
		ref, err = w.Registry.WithTag(ref, tag)
	}
	if err != nil {
		return "", err
	}
	s, err := w.Registry.Find(ctx, ref.String())
	if answer, ok := errors.AsType[*transport.Error](err); ok && answer.StatusCode == http.StatusNotFound {
		return "", &MissingLayersError{Repository: repository, Tag: tag}
	}
	if err != nil {
		return "", err
	}
	defer s.Close()
	return s.Root.Digest.String(), nil
}

// checkLayers says whether a repository of layers can be copied from.
func (o DockerfileOptions) checkLayers() error {
	if o.Pip {
		return nil
	}
	const remedy = "give the repository that imgwrap layer push has filled, such as registry.example.com/otel, without tag or digest"
	if o.Layers == "" {
		return &UsageError{"no repository of published layers is given", "--layers REPOSITORY, filled by imgwrap layer push REPOSITORY"}
	}
	if _, err := name.NewRepository(o.Layers); err != nil {
		return &UsageError{fmt.Sprintf("--layers %q is not a repository", o.Layers), remedy}
	}
	return nil
}

// pythonOf finds out which Python an image starts with the command of a stage, or
// else would find on PATH.
func (s *source) pythonOf(state *dockerfile.State, named string) (*python.Environment, error) {
	config := s.pythonConfig()
	config.Entrypoint = withoutLauncher(config.Entrypoint)
	if !state.Unknown[dockerfile.Entrypoint] {
		config.Entrypoint = state.Entrypoint
	}
	if !state.Unknown[dockerfile.Cmd] {
		config.Cmd = state.Cmd
	}
	if !state.Unknown["ENV"] {
		config.Env = state.Env
	}
	if !state.Unknown[dockerfile.WorkingDir] {
		config.WorkingDir = state.WorkingDir
	}
	// What the build adds is not in a base image: neither the command, perhaps, nor
	// the interpreter that is named.
	var first error
	for _, interpreter := range slices.Compact([]string{named, "", "python3", "python"}) {
		env, err := python.Inspect(config, s.files, python.Options{Python: interpreter})
		if err == nil && env.Interpreter.Version != "" {
			return env, nil
		}
		if interpreter == "" {
			first = err
		}
	}
	return nil, first
}

// withoutLauncher takes off an entry point what a block has put in front of it.
func withoutLauncher(entrypoint []string) []string {
	if len(entrypoint) > 2 && entrypoint[2] == launcherFile {
		return entrypoint[3:]
	}
	return entrypoint
}
