package testbed

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// writeContainersConf keeps podman's and buildah's whole state in the bed's
// directory, locks included, and uses neither cgroups nor networks, which an
// outer container may not offer.
func (b *Bed) writeContainersConf() error {
	conf := fmt.Sprintf(`[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
cgroups = "disabled"
netns = "host"
seccomp_profile = "unconfined"
[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
tmp_dir = %q
`, filepath.Join(b.dir, "libpod"))
	storage := fmt.Sprintf(`[storage]
driver = "overlay"
graphroot = %q
runroot = %q
`, filepath.Join(b.dir, "storage"), filepath.Join(b.dir, "run"))
	return errors.Join(
		os.WriteFile(filepath.Join(b.dir, "containers.conf"), []byte(conf), 0o644),
		os.WriteFile(filepath.Join(b.dir, "storage.conf"), []byte(storage), 0o644),
	)
}

func (b *Bed) containersEnv() []string {
	return []string{
		"CONTAINERS_CONF=" + filepath.Join(b.dir, "containers.conf"),
		"CONTAINERS_STORAGE_CONF=" + filepath.Join(b.dir, "storage.conf"),
		"TMPDIR=" + b.dir,
	}
}

// podman is a podman command in a mount namespace of its own, where no mount
// outlives it. crun refuses to start where the two versions of cgroups are
// mounted together, so there the second is unmounted.
func (b *Bed) podman(ctx context.Context, args ...string) *exec.Cmd {
	return command(ctx, b.containersEnv(), append([]string{"unshare", "--mount", "sh", "-c", podmanScript, "podman"}, args...)...)
}

const podmanScript = `umount /sys/fs/cgroup/unified 2>/dev/null; exec podman "$@"`

// RunOptions say what runs in a container, which has the host's network.
type RunOptions struct {
	Image      string   // name in any registry
	Entrypoint string   // instead of the image's, if not empty: one program
	Args       []string // instead of the image's Cmd, if any
	Env        []string // NAME=value
	Unset      []string // variables that the container engine shall not set
	Volumes    []string // as podman's --volume
	WorkDir    string   // instead of the image's, if not empty
	User       string   // uid, perhaps with :gid; 65532 if empty
	Writable   bool     // the root is read-only if not set
}

func (o RunOptions) args(flags ...string) []string {
	args := append([]string{"run", "--rm", "--quiet", "--tls-verify=false"}, flags...)
	args = append(args, "--user="+cmp.Or(o.User, "65532"), fmt.Sprintf("--read-only=%t", !o.Writable))
	for _, e := range o.Env {
		args = append(args, "--env="+e)
	}
	for _, name := range o.Unset {
		args = append(args, "--unsetenv="+name)
	}
	for _, v := range o.Volumes {
		args = append(args, "--volume="+v)
	}
	if o.WorkDir != "" {
		args = append(args, "--workdir="+o.WorkDir)
	}
	if o.Entrypoint != "" {
		args = append(args, "--entrypoint="+o.Entrypoint)
	}
	return append(append(args, o.Image), o.Args...)
}

// Run runs a container until it ends and returns what it wrote to stdout. It
// is an error if its exit code is not 0.
func (b *Bed) Run(ctx context.Context, o RunOptions) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := b.podman(ctx, o.args()...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("running a container of %s: %w\n%s", o.Image, err, tail(stderr.String()))
	}
	return stdout.String(), nil
}

// Container is a running container.
type Container struct {
	bed            *Bed
	addr           string
	cmd            *exec.Cmd
	output         buffer
	stdout, stderr buffer
	exited         chan struct{} // closed when podman has ended
	err            error         // how it ended; valid after exited
}

// Launch starts a container, which runs until it ends, Stop or the bed's
// Close. It gets a loopback port of its own in the environment variable PORT;
// "$PORT" in an argument becomes that port.
func (b *Bed) Launch(ctx context.Context, o RunOptions) (*Container, error) {
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	o.Env = append([]string{"PORT=" + port}, o.Env...)
	o.Args = slices.Clone(o.Args)
	for i, arg := range o.Args {
		o.Args[i] = strings.ReplaceAll(arg, "$PORT", port)
	}
	c := &Container{bed: b, addr: addr, exited: make(chan struct{})}
	c.cmd = b.podman(context.WithoutCancel(ctx), o.args("--name="+c.name())...)
	c.cmd.Stdout, c.cmd.Stderr = io.MultiWriter(&c.stdout, &c.output), io.MultiWriter(&c.stderr, &c.output)
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a container of %s: %w", o.Image, err)
	}
	b.running.Go(func() {
		c.err = c.cmd.Wait()
		close(c.exited)
	})
	return c, nil
}

// Start is Launch for a web application: it waits until the application
// listens on its port. ctx bounds the wait, not the container.
func (b *Bed) Start(ctx context.Context, o RunOptions) (*Container, error) {
	c, err := b.Launch(ctx, o)
	if err != nil {
		return nil, err
	}
	return c, c.Listening(ctx)
}

// Listening waits until the container listens on its port.
func (c *Container) Listening(ctx context.Context) error {
	if err := waitListening(ctx, c.addr, c.exited); err != nil {
		return fmt.Errorf("starting a container: %w\n%s", err, tail(c.Output()))
	}
	return nil
}

// name is the container's name: no other has its address.
func (c *Container) name() string { return strings.ReplaceAll("app-"+c.addr, ":", "-") }

// URL is the application's address.
func (c *Container) URL() string { return "http://" + c.addr + "/" }

// Get returns the body of the answer to a GET request. It is an error if the
// status is not 200.
func (c *Container) Get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.addr+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("reading answer of %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("getting %s: status %s\n%s", path, resp.Status, tail(c.Output()))
	}
	return body, nil
}

// Output is what the container has written to stdout and stderr so far.
func (c *Container) Output() string { return c.output.String() }

// Stdout is what the container has written to stdout so far.
func (c *Container) Stdout() string { return c.stdout.String() }

// Stderr is what the container has written to stderr so far.
func (c *Container) Stderr() string { return c.stderr.String() }

// Exec runs a command in the container, as its user and with its environment,
// and returns what it wrote to stdout and to stderr.
func (c *Container) Exec(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd := c.bed.podman(ctx, append([]string{"exec", c.name()}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), errs.String(), fmt.Errorf("running %s in a container: %w\n%s", strings.Join(args, " "), err, tail(errs.String()))
	}
	return out.String(), errs.String(), nil
}

// Stop sends the container's first process a signal, waits for its end, and
// returns its exit code.
func (c *Container) Stop(ctx context.Context, sig syscall.Signal) (int, error) {
	// podman hands on the signals that it gets.
	if err := c.cmd.Process.Signal(sig); err != nil {
		return 0, fmt.Errorf("sending the container %s: %w", sig, err)
	}
	return c.Wait(ctx)
}

// Wait waits for the container's end and returns its exit code.
func (c *Container) Wait(ctx context.Context) (int, error) {
	select {
	case <-c.exited:
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting for the container's end: %w\n%s", ctx.Err(), tail(c.Output()))
	}
	var exit *exec.ExitError
	if c.err != nil && !errors.As(c.err, &exit) {
		return 0, c.err
	}
	return c.cmd.ProcessState.ExitCode(), nil
}

// removeContainers kills and removes all containers and waits until those that
// Start has started have cleaned up after themselves.
func (b *Bed) removeContainers() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := b.podman(ctx, "rm", "--all", "--force", "--time=0").CombinedOutput(); err != nil {
		return fmt.Errorf("removing containers: %w\n%s", err, tail(string(out)))
	}
	b.running.Wait()
	return nil
}

// buffer is a [bytes.Buffer] for one writer and readers at the same time.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
