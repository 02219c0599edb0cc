package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// nobody runs the databases: PostgreSQL refuses root.
const nobody = 65534

// servers are the processes that run beside the containers until the bed is
// closed.
type servers struct {
	mu       sync.Mutex // held while one is started
	running  []*server
	buildkit *BuildKit
	engine   *Engine
	postgres string // host:port, empty until it is asked for
	redis    string
	redisDBs int // those that were given away
}

type server struct {
	cmd    *exec.Cmd
	output buffer
	exited chan struct{}
}

// startServer starts a server and waits until it listens at addr.
func (b *Bed) startServer(ctx context.Context, addr string, cmd *exec.Cmd) error {
	s := &server{cmd: cmd, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	name := filepath.Base(cmd.Path)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		_ = cmd.Wait() // it ends on a signal, or with the reason in its output
		close(s.exited)
	}()
	b.servers.running = append(b.servers.running, s)
	if err := waitListening(ctx, addr, s.exited); err != nil {
		return fmt.Errorf("starting %s: %w\n%s", name, err, tail(s.output.String()))
	}
	return nil
}

func (b *Bed) stopServers() {
	for _, s := range b.servers.running {
		_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	}
	for _, s := range b.servers.running {
		<-s.exited
	}
}

// asNobody is a command of the user nobody.
func asNobody(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd
}

// nobodysDir makes a directory of the user nobody in the bed's.
func (b *Bed) nobodysDir(name string) (string, error) {
	dir := filepath.Join(b.dir, name)
	return dir, errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, nobody, nobody))
}

// Database is an empty database of a PostgreSQL server. The user "nobody" may
// do anything in it, without a password.
type Database struct {
	Host, Port, Name string
}

// Database makes a database. The server starts with the first one.
func (b *Bed) Database(ctx context.Context, name string) (Database, error) {
	b.servers.mu.Lock()
	defer b.servers.mu.Unlock()
	bin, err := postgresBin()
	if err != nil {
		return Database{}, err
	}
	if b.servers.postgres == "" {
		if b.servers.postgres, err = b.startPostgres(ctx, bin); err != nil {
			return Database{}, err
		}
	}
	host, port, _ := net.SplitHostPort(b.servers.postgres)
	if err := run(ctx, nil, filepath.Join(bin, "createdb"), "--host="+host, "--port="+port, "--username=nobody", name); err != nil {
		return Database{}, err
	}
	return Database{host, port, name}, nil
}

func (b *Bed) startPostgres(ctx context.Context, bin string) (string, error) {
	dir, err := b.nobodysDir("postgres")
	if err != nil {
		return "", err
	}
	initdb := asNobody(filepath.Join(bin, "initdb"), "--pgdata="+dir, "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8")
	if out, err := initdb.CombinedOutput(); err != nil {
		return "", fmt.Errorf("running initdb: %w\n%s", err, tail(string(out)))
	}
	addr, err := FreeAddr()
	if err != nil {
		return "", err
	}
	host, port, _ := net.SplitHostPort(addr)
	if err := b.startServer(ctx, addr, asNobody(filepath.Join(bin, "postgres"), "-D", dir, "-h", host, "-p", port, "-k", "", "-F")); err != nil {
		return "", err
	}
	// It listens before it lets clients in.
	for {
		err := run(ctx, nil, filepath.Join(bin, "pg_isready"), "--quiet", "--host="+host, "--port="+port)
		if err == nil || ctx.Err() != nil {
			return addr, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// postgresBin is where Debian has PostgreSQL's programs: not on PATH, and the
// path has the version in it.
func postgresBin() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", errors.New("no PostgreSQL in /usr/lib/postgresql: apt-get install postgresql")
	}
	return filepath.Dir(found[len(found)-1]), nil
}

// Redis returns the URL of an empty database of a Redis server. The server
// starts with the first one.
func (b *Bed) Redis(ctx context.Context) (string, error) {
	b.servers.mu.Lock()
	defer b.servers.mu.Unlock()
	if b.servers.redis == "" {
		dir, err := b.nobodysDir("redis")
		if err != nil {
			return "", err
		}
		path, err := exec.LookPath("redis-server")
		if err != nil {
			return "", fmt.Errorf("%w: apt-get install redis-server", err)
		}
		addr, err := FreeAddr()
		if err != nil {
			return "", err
		}
		host, port, _ := net.SplitHostPort(addr)
		cmd := asNobody(path, "--bind", host, "--port", port, "--dir", dir, "--save", "", "--databases", "1000")
		if err := b.startServer(ctx, addr, cmd); err != nil {
			return "", err
		}
		b.servers.redis = addr
	}
	url := fmt.Sprintf("redis://%s/%d", b.servers.redis, b.servers.redisDBs)
	b.servers.redisDBs++
	return url, nil
}
