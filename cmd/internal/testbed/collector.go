package testbed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Collector is a running OpenTelemetry Collector, which keeps what it receives.
type Collector struct {
	addr   string
	file   string // what it received
	cmd    *exec.Cmd
	output buffer
	exited chan struct{}
	err    error // how it ended; valid after exited
}

// StartCollector starts a Collector that receives OTLP over HTTP. It is built
// from the module beside Options.Recipes if the cache does not have it. It
// runs until Stop or until ctx ends, which has to be before the bed's Close.
func (b *Bed) StartCollector(ctx context.Context) (*Collector, error) {
	c, err := b.startCollector(ctx)
	if err != nil {
		return nil, fmt.Errorf("starting a Collector: %w", err)
	}
	return c, nil
}

func (b *Bed) startCollector(ctx context.Context) (*Collector, error) {
	dir, err := b.module(ctx, "collector", ".")
	if err != nil {
		return nil, err
	}
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	program := filepath.Join(dir, "collector")
	dir, err = os.MkdirTemp(b.dir, "collector-")
	if err != nil {
		return nil, err
	}
	c := &Collector{addr: addr, file: filepath.Join(dir, "received.json"), exited: make(chan struct{})}
	conf := filepath.Join(dir, "collector.yaml")
	err = os.WriteFile(conf, fmt.Appendf(nil, `receivers:
  otlp: {protocols: {http: {endpoint: %q}}}
exporters:
  file: {path: %q}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [file]}
    metrics: {receivers: [otlp], exporters: [file]}
    logs: {receivers: [otlp], exporters: [file]}
`, c.addr, c.file), 0o644)
	if err != nil {
		return nil, err
	}
	c.cmd = command(ctx, nil, program, "--config", conf)
	c.cmd.Stdout, c.cmd.Stderr = &c.output, &c.output
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	b.running.Go(func() {
		c.err = c.cmd.Wait()
		close(c.exited)
	})
	if err := waitListening(ctx, c.addr, c.exited); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, tail(c.output.String()))
	}
	return c, nil
}

// URL is the endpoint, as OTEL_EXPORTER_OTLP_ENDPOINT has it.
func (c *Collector) URL() string { return "http://" + c.addr }

// Stop ends the Collector and returns all that it received: OTLP messages in
// JSON, one a line, each with either resourceSpans, resourceMetrics or
// resourceLogs.
func (c *Collector) Stop(ctx context.Context) ([]byte, error) {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return nil, fmt.Errorf("stopping the Collector: %w\n%s", err, tail(c.output.String()))
	}
	select {
	case <-c.exited:
	case <-ctx.Done():
		return nil, fmt.Errorf("stopping the Collector: %w", ctx.Err())
	}
	if c.err != nil {
		return nil, fmt.Errorf("stopping the Collector: %w\n%s", c.err, tail(c.output.String()))
	}
	return os.ReadFile(c.file)
}
