package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Engine is a Docker engine of the bed's own.
type Engine struct{ host string }

// Engine returns a Docker engine, which starts when it is asked for first and
// runs until the bed is closed. It reaches the bed's registry, and containers can
// have the host's network.
func (b *Bed) Engine(ctx context.Context) (*Engine, error) {
	b.servers.mu.Lock()
	defer b.servers.mu.Unlock()
	if b.servers.engine == nil {
		e, err := b.startEngine(ctx)
		if err != nil {
			return nil, err
		}
		b.servers.engine = e
	}
	return b.servers.engine, nil
}

func (b *Bed) startEngine(ctx context.Context) (*Engine, error) {
	if _, err := exec.LookPath("dockerd"); err != nil {
		return nil, errors.New("dockerd missing: apt-get install docker.io")
	}
	dir := filepath.Join(b.dir, "docker")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "sock")
	script := `umount /sys/fs/cgroup/unified 2>/dev/null; exec dockerd "$@"` // see podman
	// Not bound to ctx: it runs until Close.
	cmd := exec.Command("unshare", "--mount", "sh", "-c", script, "dockerd",
		"--host=unix://"+socket, "--data-root="+filepath.Join(dir, "data"), "--exec-root="+filepath.Join(dir, "exec"),
		"--pidfile="+filepath.Join(dir, "pid"), "--config-file=", "--bridge=none", "--iptables=false", "--ip6tables=false")
	cmd.Env = append(append(os.Environ(), b.internetEnv...), "TMPDIR="+dir)
	return &Engine{"unix://" + socket}, b.startServer(ctx, socket, cmd)
}

// Host is where the engine listens, as DOCKER_HOST has it.
func (e *Engine) Host() string { return e.host }

// Docker runs a docker command and returns what it wrote to stdout, without white
// space around it.
func (e *Engine) Docker(ctx context.Context, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	// The client that comes with dockerd: another one may want a newer engine.
	cmd := command(ctx, []string{"DOCKER_HOST=" + e.host}, append([]string{"/usr/bin/docker"}, args...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("running docker %s: %w\n%s", strings.Join(args, " "), err, tail(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// Podman runs a podman command with the bed's images and returns what it wrote to
// stdout, without white space around it.
func (b *Bed) Podman(ctx context.Context, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := b.podman(ctx, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("running podman %s: %w\n%s", strings.Join(args, " "), err, tail(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}
