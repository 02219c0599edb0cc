package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// release is the one that testdata/images/bookworm-bench/opentelemetry.txt has.
const release = "1.45.1"

// runtimeFlags say how much is measured.
type runtimeFlags struct {
	parts       string
	rounds      int
	samples     int
	duration    time.Duration
	connections int
	requests    int
}

// target is a way to run the application: an image, and what has to be set.
type target struct {
	name string
	path string // below which its spans arrive
	run  testbed.RunOptions
}

// with returns how to run a command in the target's image.
func (t target) with(command ...string) testbed.RunOptions {
	o := t.run
	o.Args = command
	return o
}

// runtimeBench is what the parts work with.
type runtimeBench struct {
	runtimeFlags
	bed    *testbed.Bed
	sink   *sink
	stdout io.Writer
	stderr io.Writer

	source, installed             target // the application alone, and with packages that pip installed
	pure, wrapped, wrappedWithPyc target
}

func measureRuntime(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	b := &runtimeBench{stdout: stdout, stderr: stderr}
	flags := flag.NewFlagSet("bench runtime", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&b.parts, "parts", "start,export,load,memory", "what to measure")
	flags.IntVar(&b.rounds, "rounds", 5, "how often the images take turns")
	flags.IntVar(&b.samples, "samples", 5, "starts of a command in each round")
	flags.DurationVar(&b.duration, "duration", time.Minute, "load on each image, in three turns")
	flags.IntVar(&b.connections, "connections", 4, "connections of the load")
	flags.IntVar(&b.requests, "requests", 100_000, "requests until memory is read last")
	if err := flags.Parse(args); err != nil {
		return err
	}
	parts := map[string]func(context.Context) error{"start": b.start, "export": b.export, "load": b.load, "memory": b.memory}
	names, err := choose(b.parts, parts)
	if err != nil {
		return err
	}
	if b.rounds < 1 || b.samples < 1 || b.connections < 1 || b.requests < 1 || b.duration < 3*time.Second {
		return errors.New("-rounds, -samples, -connections and -requests must be positive, -duration at least 3s")
	}
	if _, err := exec.LookPath("wrk"); err != nil && (slices.Contains(names, "load") || slices.Contains(names, "memory")) {
		return errors.New("wrk missing: apt-get install wrk")
	}

	b.bed, err = testbed.New(ctx, testbed.Options{Recipes: recipes, Log: stderr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.bed.Close()) }()
	b.sink = new(sink)
	server := httptest.NewServer(b.sink)
	defer server.Close()
	if err := b.prepare(ctx, server.URL); err != nil {
		return err
	}
	return measure(ctx, stdout, names, parts)
}

// prepare makes the images.
func (b *runtimeBench) prepare(ctx context.Context, endpoint string) error {
	imgwrap, err := b.bed.GoBuild(ctx, "github.com/imgwrap/imgwrap/cmd/imgwrap")
	if err != nil {
		return err
	}
	for _, variant := range []string{"source", "opentelemetry"} {
		if _, err := b.bed.Push(ctx, "bookworm-bench/"+variant, "bench/"+variant+":1.0"); err != nil {
			return err
		}
	}
	source := b.bed.Registry() + "/bench/source:1.0"
	// The interpreter of the image, run in a container of it.
	python, err := b.bed.Program(source, "/opt/venv/bin/python3")
	if err != nil {
		return err
	}
	run := func(args ...string) (string, error) {
		var stdout strings.Builder
		cmd := exec.CommandContext(ctx, imgwrap, args...)
		cmd.Env = append(os.Environ(), "IMGWRAP_CACHE_DIR="+filepath.Join(b.bed.Cache(), "imgwrap"))
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.Stdout, cmd.Stderr = &stdout, b.stderr
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("running imgwrap %s: %w", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(stdout.String()), nil
	}
	if _, err := run("layer", "build", "--bytecode", python, release); err != nil {
		return err
	}

	env := func(path string) []string {
		return []string{"BACKEND=" + endpoint + "/stock", "OTEL_EXPORTER_OTLP_ENDPOINT=" + endpoint + path}
	}
	b.source = target{"source", "/source", testbed.RunOptions{Image: source, Env: env("/source")}}
	b.installed = target{"pip-installed", "/installed", testbed.RunOptions{
		Image:      b.bed.Registry() + "/bench/opentelemetry:1.0",
		Entrypoint: "opentelemetry-instrument",
		Env: append(env("/installed"), "OTEL_TRACES_EXPORTER=otlp", "OTEL_METRICS_EXPORTER=none", "OTEL_LOGS_EXPORTER=none",
			"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_SERVICE_NAME=source"),
	}}
	for _, v := range []struct {
		target *target
		name   string
		tag    string
		flags  []string
	}{
		{&b.pure, "wrapped, --native=false", "pure", []string{"--native=false"}},
		{&b.wrapped, "wrapped", "otel", nil},
		{&b.wrappedWithPyc, "wrapped, --bytecode", "bytecode", []string{"--bytecode"}},
	} {
		image, err := run(append([]string{source, "--release", release, "--tag", v.tag}, v.flags...)...)
		if err != nil {
			return err
		}
		*v.target = target{v.name, "/" + v.tag, testbed.RunOptions{Image: image, Env: env("/" + v.tag)}}
	}
	return nil
}
