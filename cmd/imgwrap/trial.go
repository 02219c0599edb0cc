package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/imgwrap/imgwrap/cmd/internal/otlp"
	"github.com/imgwrap/imgwrap/image"
	"github.com/imgwrap/imgwrap/image/registry"
)

// A trial runs an image with a container engine of this machine and looks which
// spans it sends.
type trial struct {
	run      bool
	engine   string
	timeout  time.Duration
	urls     []string
	port     int
	env      []string
	platform string // "" for the machine's
	insecure bool
}

func (t *trial) register(flags *pflag.FlagSet) {
	flags.BoolVar(&t.run, "run", false, "start the image, and check that spans arrive")
	flags.StringVar(&t.engine, "engine", "", "with --run: podman, docker, or the path of one (default: the first of these that is there)")
	flags.DurationVar(&t.timeout, "timeout", 30*time.Second, "with --run: how long to wait for spans")
	flags.StringArrayVar(&t.urls, "url", nil, "with --run: path to request from the app, such as /health (repeatable)")
	flags.IntVar(&t.port, "port", 0, "with --run and --url: port that the app listens on (default: the one that the image exposes)")
	flags.StringArrayVar(&t.env, "env", nil, "with --run: NAME=VALUE for the container (repeatable)")
}

// check refuses flags that do not go together.
func (t *trial) check(flags *pflag.FlagSet) error {
	for _, name := range []string{"engine", "timeout", "url", "port", "env"} {
		if !t.run && flags.Changed(name) {
			return &usageError{"--" + name + " without --run", "add --run to start the image"}
		}
	}
	for _, u := range t.urls {
		if !strings.HasPrefix(u, "/") {
			return &usageError{"--url " + u + " is not a path", "write what follows host and port, such as /health"}
		}
	}
	if t.timeout <= 0 {
		return &usageError{fmt.Sprintf("--timeout %s", t.timeout), "give a time such as 30s or 2m"}
	}
	if t.port < 0 || t.port > 65535 {
		return &usageError{fmt.Sprintf("--port %d", t.port), "give a number from 1 to 65535"}
	}
	for _, e := range t.env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return &usageError{"--env " + e, "write NAME=VALUE"}
		}
	}
	return nil
}

// trialReport is what a trial saw.
type trialReport struct {
	Engine   string         `json:"engine"`
	Requests []trialRequest `json:"requests"`
	Spans    []trialSpans   `json:"spans"` // by library

	silence string // why there are none, as far as the container says
}

type trialRequest struct {
	URL    string `json:"url"`
	Status int    `json:"status"`
}

type trialSpans struct {
	Library string `json:"library"` // the instrumentation scope
	Spans   int    `json:"spans"`
}

// check is the trial's verdict.
func (r *trialReport) check() image.Check {
	c := image.Check{Name: "run", OK: len(r.Spans) > 0, Detail: r.silence}
	if c.OK {
		var seen []string
		for _, s := range r.Spans {
			seen = append(seen, fmt.Sprintf("%d of %s", s.Spans, s.Library))
		}
		c.Detail = fmt.Sprintf("with %s, spans arrived: %s", r.Engine, strings.Join(seen, ", "))
	}
	return c
}

// exportDelay is how long the app collects spans before it sends them.
const exportDelay = 200 * time.Millisecond

// start runs the image that a reference led to until spans have arrived.
func (t *trial) start(ctx context.Context, ref registry.Reference, digest string) (*trialReport, error) {
	program, err := t.find()
	if err != nil {
		return nil, err
	}
	e := engine{program: program, docker: strings.Contains(filepath.Base(program), "docker")}
	name, err := e.pull(ctx, ref, digest, t)
	if err != nil {
		return nil, err
	}
	port, err := t.choosePort(ctx, e, name)
	if err != nil {
		return nil, err
	}

	receiver := new(otlp.Receiver)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for spans: %w", err)
	}
	server := &http.Server{Handler: receiver, ReadHeaderTimeout: time.Minute}
	go server.Serve(listener) //nolint:errcheck // ends with Close
	defer server.Close()      //nolint:errcheck // nobody is to be told

	c, err := e.run(name, t.arguments(e, port, listener.Addr().(*net.TCPAddr).Port))
	if err != nil {
		return nil, err
	}
	defer c.stop()
	waiting, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	stopOnExit := context.AfterFunc(c.ended, cancel)
	defer stopOnExit()

	r := &trialReport{Engine: filepath.Base(program), Requests: []trialRequest{}, Spans: []trialSpans{}}
	for _, path := range t.urls {
		url := fmt.Sprintf("http://127.0.0.1:%d%s", port, path)
		status, err := request(waiting, url)
		if err != nil {
			break // nothing listens there: it has ended, or time is up
		}
		r.Requests = append(r.Requests, trialRequest{url, status})
	}
	settle(waiting, receiver)
	c.stop() // many apps send what they have then
	if ctx.Err() != nil {
		return nil, errors.New("interrupted")
	}
	counts := map[string]int{}
	for _, s := range receiver.Spans() {
		counts[s.Scope]++
	}
	for _, library := range slices.Sorted(maps.Keys(counts)) {
		r.Spans = append(r.Spans, trialSpans{library, counts[library]})
	}
	if len(r.Spans) == 0 {
		r.silence = c.silence(t, len(r.Requests), errors.Is(waiting.Err(), context.DeadlineExceeded))
	}
	return r, nil
}

// settle returns when spans have arrived and none has for a while.
func settle(ctx context.Context, receiver *otlp.Receiver) {
	all := func(otlp.Span) bool { return true }
	spans, err := receiver.Wait(ctx, 1, all)
	for err == nil {
		quiet, cancel := context.WithTimeout(ctx, 3*exportDelay)
		spans, err = receiver.Wait(quiet, len(spans)+1, all)
		cancel()
	}
}

// request gets an answer from the app, as soon as it is there.
func request(ctx context.Context, url string) (status int, err error) {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return 0, err
		}
		req.Close = true
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close() //nolint:errcheck // it was only read
		}
		if err == nil {
			return resp.StatusCode, nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return 0, err
		}
	}
}

// find returns the program of the engine.
func (t *trial) find() (string, error) {
	candidates := []string{"podman", "docker"}
	if t.engine != "" {
		candidates = []string{t.engine}
	}
	for _, name := range candidates {
		if program, err := exec.LookPath(name); err == nil {
			return program, nil
		}
	}
	return "", &usageError{"there is no " + strings.Join(candidates, " or ") + " on this machine", "install one, or name it with --engine"}
}

// choosePort is the port that requests go to, 0 if there are none.
func (t *trial) choosePort(ctx context.Context, e engine, name string) (int, error) {
	port := t.port
	if len(t.urls) == 0 {
		return 0, nil
	}
	if port == 0 {
		out, err := e.output(ctx, "image", "inspect", "--format", "{{json .Config.ExposedPorts}}", name)
		if err != nil {
			return 0, err
		}
		var exposed map[string]struct{} // "8000/tcp"
		_ = json.Unmarshal([]byte(out), &exposed)
		var ports []int
		for spec := range exposed {
			number, protocol, _ := strings.Cut(spec, "/")
			if n, err := strconv.Atoi(number); err == nil && cmp.Or(protocol, "tcp") == "tcp" {
				ports = append(ports, n)
			}
		}
		if len(ports) != 1 {
			return 0, &usageError{fmt.Sprintf("the image exposes %d ports", len(ports)), "name the one that the app listens on with --port"}
		}
		port = ports[0]
	}
	// What is there already would answer in the app's place.
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return 0, fmt.Errorf("the app needs port %d of this machine: %w", port, err)
	}
	return port, l.Close()
}

// arguments are those of the engine's run, before the image.
func (t *trial) arguments(e engine, port, receiver int) []string {
	args, host := e.network(runtime.GOOS, port)
	if t.platform != "" {
		args = append(args, "--platform="+t.platform)
	}
	endpoint := fmt.Sprintf("http://%s:%d", host, receiver)
	for _, v := range append([]string{
		"OTEL_TRACES_EXPORTER=otlp_proto_http", // which OpenTelemetry 1.12 does not know as otlp
		"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + endpoint,
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + endpoint + "/v1/traces", // in case the image has its own
		"OTEL_TRACES_SAMPLER=always_on",
		fmt.Sprintf("OTEL_BSP_SCHEDULE_DELAY=%d", exportDelay.Milliseconds()),
	}, t.env...) {
		args = append(args, "--env="+v)
	}
	return args
}

// An engine is podman or docker.
type engine struct {
	program string
	docker  bool
}

// network is how a container reaches this machine and is reached from it. Where
// containers are in a virtual machine, its host has a name.
func (e engine) network(goos string, port int) (args []string, host string) {
	if goos == "linux" {
		return []string{"--network=host"}, "127.0.0.1"
	}
	host = "host.containers.internal"
	if e.docker {
		host = "host.docker.internal"
		args = append(args, "--add-host="+host+":host-gateway")
	}
	if port != 0 {
		args = append(args, fmt.Sprintf("--publish=127.0.0.1:%d:%[1]d", port))
	}
	return args, host
}

// pull sees to it that the engine has the image, and returns how to name it.
func (e engine) pull(ctx context.Context, ref registry.Reference, digest string, t *trial) (string, error) {
	name := ref.String()
	switch {
	case ref.Transport == registry.InRegistry:
		name = ref.Repository() + "@" + digest
	case e.docker && ref.Transport == registry.DockerDaemon:
		return strings.TrimPrefix(name, string(registry.DockerDaemon)+":"), nil
	case e.docker:
		return "", &usageError{"docker cannot start " + name, "use --engine podman, or push it to a registry first"}
	}
	args := []string{"pull", "--quiet"}
	if t.platform != "" {
		args = append(args, "--platform="+t.platform)
	}
	if t.insecure && !e.docker {
		args = append(args, "--tls-verify=false")
	}
	out, err := e.output(ctx, append(args, name)...)
	if err != nil {
		return "", err
	}
	if e.docker {
		return name, nil
	}
	lines := strings.Fields(out)
	if len(lines) == 0 {
		return "", fmt.Errorf("%s pull: it does not say which image it has", e.program)
	}
	return lines[len(lines)-1], nil // the image's ID
}

// output runs a command of the engine.
func (e engine) output(ctx context.Context, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, e.program, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return "", fmt.Errorf("%s %s: %s", filepath.Base(e.program), args[0], cmp.Or(lines[len(lines)-1], err.Error()))
	}
	return stdout.String(), nil
}

// A container is one that runs. Its engine's command ends with it.
type container struct {
	engine engine
	name   string
	cmd    *exec.Cmd
	stderr tail
	ended  context.Context // is done then
}

// run starts a container.
func (e engine) run(image string, args []string) (*container, error) {
	c := &container{engine: e, name: "imgwrap-verify-" + strings.ToLower(rand.Text()[:12])}
	c.cmd = exec.Command(e.program, slices.Concat([]string{"run", "--rm", "--name=" + c.name}, args, []string{image})...)
	c.cmd.Stderr = &c.stderr
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", e.program, err)
	}
	ended, end := context.WithCancel(context.Background())
	c.ended = ended
	go func() {
		_ = c.cmd.Wait() // why it ended is on stderr
		end()
	}()
	return c, nil
}

// stop ends the container as the image wants it, or after a few seconds at once.
func (c *container) stop() {
	if c.ended.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, _ = c.engine.output(ctx, "stop", "-t", "5", c.name) // it may have ended meanwhile
	select {
	case <-c.ended.Done():
	case <-ctx.Done():
		_ = c.cmd.Process.Kill()
	}
}

// silence says why no span may have come.
func (c *container) silence(t *trial, requests int, late bool) string {
	why := "no span arrived before the container ended"
	if late {
		why = fmt.Sprintf("no span arrived in %s", t.timeout)
	}
	switch {
	case len(t.urls) == 0:
		why += "; --url has the app do something"
	case requests < len(t.urls):
		why += "; it did not answer at " + t.urls[requests]
	}
	if line := c.stderr.telling(); line != "" {
		why += "; it says: " + line
	}
	return why
}

// A tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailSize = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(len(t.text)-tailSize, 0):]
	return len(p), nil
}

// telling is the line of the launcher or the loader, else the last one.
func (t *tail) telling() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := ""
	for line := range strings.Lines(string(t.text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "imgwrap: ") || strings.HasPrefix(line, "opentelemetry-instrument: ") {
			return line
		}
		last = cmp.Or(line, last)
	}
	return last
}
