package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strconv"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// started is how one start of a command went.
type started struct {
	CPU  float64 `json:"cpu"`  // seconds, user and system
	Wall float64 `json:"wall"` // seconds
}

// runScript starts a command several times, one after the other, in the
// container it runs in itself. The first start, which fills caches, is left
// out.
const runScript = `
import json, os, sys, time

times = []
for _ in range(int(sys.argv[1]) + 1):
    start = time.monotonic()
    pid = os.spawnvp(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
    _, status, usage = os.wait4(pid, 0)
    times.append({"wall": time.monotonic() - start, "cpu": usage.ru_utime + usage.ru_stime})
    if status != 0:
        sys.exit("status %d of %s" % (status, sys.argv[2:]))
print(json.dumps(times[1:]))
`

// serveScript is the same for a server at $PORT, until its first answer. It is
// alone with the server in the container, whose processes it can see.
const serveScript = `
import http.client, json, os, subprocess, sys, time

def cpu():
    ticks = 0
    for pid in os.listdir("/proc"):
        if pid.isdigit() and int(pid) != os.getpid():
            try:
                with open("/proc/%s/stat" % pid) as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")

def answers():
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["PORT"]), timeout=30)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except ConnectionError:
        return False
    finally:
        connection.close()

times = []
for _ in range(int(sys.argv[1]) + 1):
    start = time.monotonic()
    server = subprocess.Popen(sys.argv[2:], stderr=subprocess.DEVNULL)
    while not answers():
        if server.poll() is not None:
            sys.exit("status %d of %s" % (server.returncode, sys.argv[2:]))
        time.sleep(0.002)
    times.append({"wall": time.monotonic() - start, "cpu": cpu()})
    server.terminate()
    server.wait()
print(json.dumps(times[1:]))
`

// start measures the start of an empty command and of the application.
func (b *runtimeBench) start(ctx context.Context) error {
	empty := []string{"python", "-c", "pass"}
	instrumented := append([]string{"opentelemetry-instrument"}, empty...)
	err := b.compareStarts(ctx, "Start of `python -c pass`, below `opentelemetry-instrument` but in the source image", runScript, []start{
		{b.source, empty}, {b.installed, instrumented}, {b.wrapped, instrumented}, {b.wrappedWithPyc, instrumented},
	})
	if err != nil {
		return err
	}
	server := []string{"gunicorn", "app:app"}
	instrumented = append([]string{"opentelemetry-instrument"}, server...)
	return b.compareStarts(ctx, "Start of the application, gunicorn with one worker, until its first answer", serveScript, []start{
		{b.source, server}, {b.installed, instrumented}, {b.wrapped, instrumented}, {b.wrappedWithPyc, instrumented},
	})
}

// start is a command that is started in a target's image.
type start struct {
	target  target
	command []string
}

// compareStarts prints a table of starts. The second is what the others are
// compared with.
func (b *runtimeBench) compareStarts(ctx context.Context, title, script string, starts []start) error {
	samples := make([][]started, len(starts))
	for range b.rounds {
		for i, s := range starts {
			more, err := b.sampleStart(ctx, script, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.target.name, err)
			}
			samples[i] = append(samples[i], more...)
		}
	}
	var cpu, wall []float64
	for _, s := range samples {
		var cpus, walls []float64
		for _, started := range s {
			cpus, walls = append(cpus, started.CPU), append(walls, started.Wall)
		}
		cpu, wall = append(cpu, median(cpus)), append(wall, median(walls))
	}
	t := table{header: []string{"image", "CPU, ms", "of pip-installed", "wall, ms", "of pip-installed"}}
	for i, s := range starts {
		t.add(s.target.name, millis(cpu[i]), ratio(cpu[i], cpu[1]), millis(wall[i]), ratio(wall[i], wall[1]))
	}
	return t.write(b.stdout, fmt.Sprintf("%s: median of %d", title, b.rounds*b.samples))
}

// sampleStart runs a script in a container with a read-only root, as a user
// that owns nothing there: no bytecode can be written.
func (b *runtimeBench) sampleStart(ctx context.Context, script string, s start) ([]started, error) {
	addr, err := testbed.FreeAddr()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	o := s.target.with(append([]string{"-c", script, strconv.Itoa(b.samples)}, s.command...)...)
	o.Entrypoint = "python3" // which measures without telemetry
	o.Env = append([]string{"PORT=" + port}, o.Env...)
	out, err := b.bed.Run(ctx, o)
	if err != nil {
		return nil, err
	}
	var times []started
	if err := json.Unmarshal([]byte(out), &times); err != nil {
		return nil, fmt.Errorf("reading times: %w", err)
	}
	return times, nil
}

func millis(seconds float64) string { return fmt.Sprintf("%.0f", seconds*1000) }

func ratio(a, b float64) string { return fmt.Sprintf("%.2f", a/b) }
