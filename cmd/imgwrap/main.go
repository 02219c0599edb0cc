// Command imgwrap adds OpenTelemetry auto-instrumentation to existing Python
// container images.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/imgwrap/imgwrap/layer/catalog"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], streams{os.Stdout, os.Stderr, os.Getenv}, catalog.Load)
	stop()
	os.Exit(code)
}
