// Package testbed runs real parts for end-to-end tests and the demo: Python
// base images made from Debian packages, application images built with
// buildah, a docker-registry that holds them, podman containers, and the
// PostgreSQL and Redis that applications in them use.
//
// Everything that runs or is written lives in one temporary directory and ends
// with [Bed.Close]. Only images are kept between runs, in a cache outside the
// checkout, because building them takes minutes.
//
// It needs Linux and root. Nothing is skipped when a tool is missing: New says
// what to install.
package testbed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// tools maps each command that is needed to the Debian package that has it.
var tools = []struct{ command, pkg string }{
	{"buildah", "buildah"},
	{"crun", "crun"},
	{"docker-registry", "docker-registry"},
	{"mmdebstrap", "mmdebstrap"},
	{"podman", "podman"},
	{"python3", "python3"},
	{"unshare", "util-linux"},
}

// Options say where a bed finds and keeps things.
type Options struct {
	Recipes string    // directory of recipes, testdata/images of this repository
	Cache   string    // directory for images; empty for CacheDir
	Log     io.Writer // gets a line before each step that takes long; nil for none
}

// Bed is a running registry with what is needed to fill it and to run its
// images. Its methods may be used by several goroutines.
type Bed struct {
	dir     string
	recipes string
	cache   string
	log     io.Writer

	registry    string   // host:port
	internetEnv []string // by which builds reach an internet, see Use

	building sync.Mutex     // held while an image is looked up or made
	pushed   sync.Map       // a tag by the digest of each layer that PushImage has pushed
	running  sync.WaitGroup // of the processes behind containers
	servers  servers
	programs programs
}

// CacheDir returns the directory that outlives a bed: the environment variable
// IMGWRAP_TEST_CACHE, or imgwrap-test in the user's cache directory.
func CacheDir() (string, error) {
	if dir := os.Getenv("IMGWRAP_TEST_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding a cache directory (set IMGWRAP_TEST_CACHE): %w", err)
	}
	return filepath.Join(dir, "imgwrap-test"), nil
}

// New checks that all tools are there and starts the registry.
func New(ctx context.Context, o Options) (*Bed, error) {
	if err := checkMachine(); err != nil {
		return nil, err
	}
	recipes, err := filepath.Abs(o.Recipes)
	if err != nil {
		return nil, err
	}
	cache := o.Cache
	if cache == "" {
		if cache, err = CacheDir(); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "imgwrap-bed-")
	if err != nil {
		return nil, err
	}
	b := &Bed{dir: dir, recipes: recipes, cache: cache, log: o.Log, programs: programs{built: map[string]bool{}}}
	if b.log == nil {
		b.log = io.Discard
	}
	if err := b.start(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func checkMachine() error {
	if os.Geteuid() != 0 {
		return errors.New("building and running container images needs root: run it as root, for example with sudo")
	}
	var commands, pkgs []string
	for _, t := range tools {
		if _, err := exec.LookPath(t.command); err != nil {
			commands = append(commands, t.command)
			pkgs = append(pkgs, t.pkg)
		}
	}
	if len(pkgs) > 0 {
		return fmt.Errorf("%s missing: apt-get install %s", strings.Join(commands, ", "), strings.Join(pkgs, " "))
	}
	return nil
}

func (b *Bed) start(ctx context.Context) error {
	// apt's unprivileged user enters the directories below.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(b.cache, 0o755); err != nil {
		return err
	}
	if err := b.writeContainersConf(); err != nil {
		return err
	}
	return b.startRegistry(ctx)
}

// Close ends every container and server and removes the bed's directory.
func (b *Bed) Close() error {
	rmErr := b.removeContainers()
	b.stopServers()
	return errors.Join(rmErr, os.RemoveAll(b.dir))
}

// Dir is the bed's directory. It is gone after Close.
func (b *Bed) Dir() string { return b.dir }

// Cache is the directory that outlives the bed.
func (b *Bed) Cache() string { return b.cache }

// Registry is the address of the registry, host:port. It talks plain HTTP.
func (b *Bed) Registry() string { return b.registry }

// programs are those that GoBuild has built.
type programs struct {
	mu    sync.Mutex // held while one is built
	built map[string]bool
}

// GoBuild builds a command of this module, or of one that it requires, and
// returns the path of the program. The flags are those of the Dockerfile, so
// that both make the same program. It is built once.
func (b *Bed) GoBuild(ctx context.Context, pkg string) (string, error) {
	b.programs.mu.Lock()
	defer b.programs.mu.Unlock()
	program := filepath.Join(b.dir, "bin", path.Base(pkg))
	if b.programs.built[pkg] {
		return program, nil
	}
	if err := run(ctx, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-buildvcs=false", "-o", program, pkg); err != nil {
		return "", err
	}
	b.programs.built[pkg] = true
	return program, nil
}

// module returns the directory of the programs of a module of tools, which lies
// beside Options.Recipes. They are built if the cache does not have them: pkg is
// what go build takes, "tool" for those that the module names as its tools, set
// what the linker sets, as PACKAGE.NAME=value.
func (b *Bed) module(ctx context.Context, name, pkg string, set ...string) (string, error) {
	b.building.Lock()
	defer b.building.Unlock()
	dir := filepath.Join(filepath.Dir(b.recipes), name)
	key := sha256.New()
	fmt.Fprintln(key, runtime.GOARCH)
	if err := hashFiles(key, dir); err != nil {
		return "", err
	}
	ldflags := "-s -w"
	for _, s := range set {
		fmt.Fprintln(key, s)
		ldflags += " -X " + s
	}
	return b.cached(fmt.Sprintf("%s-%x", name, key.Sum(nil)[:8]), func(dst string) error {
		fmt.Fprintf(b.log, "building %s\n", name)
		return run(ctx, []string{"CGO_ENABLED=0"}, "go", "-C", dir, "build", "-mod=readonly", "-trimpath", "-buildvcs=false",
			"-ldflags="+ldflags, "-o", dst+string(filepath.Separator), pkg)
	})
}

func (b *Bed) startRegistry(ctx context.Context) error {
	addr, err := FreeAddr()
	if err != nil {
		return err
	}
	conf := filepath.Join(b.dir, "registry.yml")
	err = os.WriteFile(conf, fmt.Appendf(nil, `version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}
http: {addr: %q}
`, filepath.Join(b.dir, "registry"), addr), 0o644)
	if err != nil {
		return err
	}
	b.registry = addr
	return b.startServer(ctx, addr, exec.Command("docker-registry", "serve", conf))
}

// The ports of FreeAddr: below those that Linux gives to connections, and to
// servers that ask for any.
const (
	firstPort = 10000
	ports     = 20000
)

// port is the number of ports that FreeAddr has looked at. It starts where other
// processes on this machine, which have beds of their own, do not.
var port = func() *atomic.Uint32 {
	var n atomic.Uint32
	n.Store(rand.Uint32N(ports))
	return &n
}()

// FreeAddr returns a loopback address, host:port, that nothing listens on and
// that is given to nobody else before long.
func FreeAddr() (string, error) {
	for range ports {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", firstPort+port.Add(1)%ports))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return "", err
		}
		return l.Addr().String(), l.Close()
	}
	return "", errors.New("no port is free")
}

// waitListening returns once something accepts connections at addr, host:port
// or the path of a socket. It gives up when ctx or the process behind the
// address ends.
func waitListening(ctx context.Context, addr string, exited <-chan struct{}) error {
	network := "tcp"
	if filepath.IsAbs(addr) {
		network = "unix"
	}
	for {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-exited:
			return fmt.Errorf("it ended before it listened at %s", addr)
		case <-ctx.Done():
			return fmt.Errorf("waiting for it to listen at %s: %w", addr, ctx.Err())
		}
	}
}

// run runs a command. An error has the end of what it wrote to stderr.
func run(ctx context.Context, env []string, args ...string) error {
	var stderr bytes.Buffer
	cmd := command(ctx, env, args...)
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running %s: %w\n%s", strings.Join(args, " "), err, tail(stderr.String()))
	}
	return nil
}

// command is a command that gets SIGTERM when ctx ends, and that does not
// outlive this process.
func command(ctx context.Context, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	dieWithParent(cmd)
	return cmd
}

func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}

// tail returns the last lines of a program's output, enough to see why it
// failed.
func tail(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}
