// Command demo shows what imgwrap does, on real parts: it builds a small Flask
// image, wraps it, runs it and prints the trace of one request.
//
// It runs at the top of the repository and needs root: see make demo.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/imgwrap/imgwrap/cmd/internal/otlp"
	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

const (
	recipe  = "bookworm-gunicorn"
	recipes = "testdata/images"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := demo(ctx, recipes, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "demo: error:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context, recipes string, stdout, stderr io.Writer) (err error) {
	bed, err := testbed.New(ctx, testbed.Options{Recipes: recipes, Log: stderr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bed.Close()) }()
	imgwrap, err := bed.GoBuild(ctx, "github.com/imgwrap/imgwrap/cmd/imgwrap")
	if err != nil {
		return err
	}
	if _, err := bed.Push(ctx, recipe, "shop:1.0"); err != nil {
		return err
	}
	receiver := new(otlp.Receiver)
	collector := httptest.NewServer(receiver)
	defer collector.Close()

	args := []string{bed.Registry() + "/shop:1.0", "--endpoint", collector.URL}
	fmt.Fprintf(stdout, "$ imgwrap %s\n", strings.Join(args, " "))
	var wrapped strings.Builder
	cmd := exec.CommandContext(ctx, imgwrap, args...)
	cmd.Env = append(os.Environ(), "IMGWRAP_CACHE_DIR="+filepath.Join(bed.Cache(), "imgwrap"))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&wrapped, stdout), stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running imgwrap: %w", err)
	}
	image := strings.TrimSpace(wrapped.String())

	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	fmt.Fprintf(stdout, "\n$ podman run --read-only --user 65532 %s\n", image)
	app, err := bed.Start(ctx, testbed.RunOptions{Image: image})
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, "\n$ curl", app.URL())
	answer, err := app.Get(ctx, "/")
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s\n", answer)
	first, err := receiver.Wait(ctx, 1, func(s otlp.Span) bool { return s.Kind == "SERVER" && s.ParentID == "" })
	if err != nil {
		return fmt.Errorf("%w\n%s", err, app.Output())
	}
	// The application also asks itself over HTTP (testdata/images/common/shop.py),
	// so two processes send parts of the trace, the last of them as they end.
	if _, err := app.Stop(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	// Beside it are the traces of what the application does while it starts.
	trace := slices.DeleteFunc(receiver.Spans(), func(s otlp.Span) bool { return s.TraceID != first[0].TraceID })
	fmt.Fprintln(stdout, "The trace that arrived:")
	return otlp.WriteTree(stdout, trace)
}
