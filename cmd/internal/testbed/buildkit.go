package testbed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// BuildKit is a buildkitd of the bed's own.
type BuildKit struct {
	bed    *Bed
	client string // buildctl
	socket string
}

// BuildKit returns a buildkitd, which starts when it is asked for first and runs
// until the bed is closed. It is built from the module beside Options.Recipes if
// the cache does not have it.
func (b *Bed) BuildKit(ctx context.Context) (*BuildKit, error) {
	programs, err := b.module(ctx, "buildkit", "tool")
	if err != nil {
		return nil, fmt.Errorf("building BuildKit: %w", err)
	}
	b.servers.mu.Lock()
	defer b.servers.mu.Unlock()
	if b.servers.buildkit == nil {
		k, err := b.startBuildKit(ctx, programs)
		if err != nil {
			return nil, err
		}
		b.servers.buildkit = k
	}
	return b.servers.buildkit, nil
}

func (b *Bed) startBuildKit(ctx context.Context, programs string) (*BuildKit, error) {
	dir := filepath.Join(b.dir, "buildkit")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	k := &BuildKit{b, filepath.Join(programs, "buildctl"), filepath.Join(dir, "sock")}
	conf := filepath.Join(dir, "buildkitd.toml")
	err := os.WriteFile(conf, fmt.Appendf(nil, `root = %q
[grpc]
  address = [%q]
[worker.containerd]
  enabled = false
[worker.oci]
  networkMode = "host"
[registry.%q]
  http = true
`, filepath.Join(dir, "root"), k.addr(), b.registry), 0o644)
	if err != nil {
		return nil, err
	}
	// No mount outlives it. Not bound to ctx: it runs until Close.
	cmd := exec.Command("unshare", "--mount", filepath.Join(programs, "buildkitd"), "--config", conf)
	cmd.Env = append(os.Environ(), b.internetEnv...)
	return k, b.startServer(ctx, k.socket, cmd)
}

func (k *BuildKit) addr() string { return "unix://" + k.socket }

// BuildKitOptions say what BuildKit builds.
type BuildKitOptions struct {
	Context   string   // directory with a Dockerfile
	Args      []string // build arguments, NAME=value
	Platforms []string // such as linux/arm64
	Options   []string // of the frontend, NAME=value, such as attest:provenance=mode=max
	Export    []string // options of the image exporter, NAME=value
	Ref       string   // where it goes: a repository and tag, without the registry
}

// Build builds an image or index and pushes it to the bed's registry.
func (k *BuildKit) Build(ctx context.Context, o BuildKitOptions) error {
	args := []string{k.client, "--addr=" + k.addr(), "build", "--progress=plain", "--frontend=dockerfile.v0",
		"--local=context=" + o.Context, "--local=dockerfile=" + o.Context,
		"--opt=platform=" + strings.Join(o.Platforms, ",")}
	for _, a := range o.Args {
		args = append(args, "--opt=build-arg:"+a)
	}
	for _, opt := range o.Options {
		args = append(args, "--opt="+opt)
	}
	export := append([]string{"type=image", "push=true", "name=" + k.bed.registry + "/" + o.Ref}, o.Export...)
	return run(ctx, nil, append(args, "--output="+strings.Join(export, ","))...)
}
