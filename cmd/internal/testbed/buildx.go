package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Buildx is docker buildx and docker compose, which build with the bed's BuildKit
// and run containers in the bed's engine.
type Buildx struct {
	buildx, compose string   // programs
	config          string   // directory
	env             []string // that they run with
}

// Buildx returns the two. They are built from the modules beside Options.Recipes
// if the cache does not have them.
func (b *Bed) Buildx(ctx context.Context) (*Buildx, error) {
	// Compose asks for its version.
	buildx, err := b.module(ctx, "buildx", "tool", "github.com/docker/buildx/version.Version=v0.38.2")
	if err != nil {
		return nil, fmt.Errorf("building buildx: %w", err)
	}
	compose, err := b.module(ctx, "compose", "tool")
	if err != nil {
		return nil, fmt.Errorf("building compose: %w", err)
	}
	return &Buildx{
		buildx:  filepath.Join(buildx, "buildx"),
		compose: filepath.Join(compose, "cmd"), // the package that it is
		config:  filepath.Join(b.dir, "buildx"),
		env:     b.internetEnv,
	}, nil
}

// Use has them build with BuildKit, and run in an engine.
func (x *Buildx) Use(ctx context.Context, k *BuildKit, e *Engine) error {
	const builder = "imgwrap"
	x.env = append(slices.Clone(x.env), "DOCKER_CONFIG="+x.config, "BUILDX_BUILDER="+builder, "DOCKER_HOST="+e.host)
	plugins := filepath.Join(x.config, "cli-plugins") // where compose finds buildx
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		return err
	}
	if err := os.Symlink(x.buildx, filepath.Join(plugins, "docker-buildx")); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	_, err := x.run(ctx, x.config, x.buildx, "create", "--name="+builder, "--driver=remote", k.addr())
	return err
}

// Bake runs docker buildx bake in a directory.
func (x *Buildx) Bake(ctx context.Context, dir string, args ...string) error {
	_, err := x.run(ctx, dir, x.buildx, append([]string{"bake", "--progress=plain"}, args...)...)
	return err
}

// Compose runs docker compose in a directory and returns what it wrote to stdout,
// without white space around it.
func (x *Buildx) Compose(ctx context.Context, dir string, args ...string) (string, error) {
	return x.run(ctx, dir, x.compose, append([]string{"--progress=plain"}, args...)...)
}

func (x *Buildx) run(ctx context.Context, dir, program string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := command(ctx, x.env, append([]string{program}, args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("running %s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), err, tail(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}
