// Command imgwrap adds OpenTelemetry auto-instrumentation to existing Python
// container images.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/imgwrap/imgwrap/layer/catalog"
)

func main() {
	// The index of a large image is the most that is in memory, and lives long:
	// collecting earlier keeps the peak below 70 MiB with 500,000 files.
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(48 << 20)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	code := run(ctx, os.Args[1:], streams{os.Stdout, os.Stderr, os.Getenv}, catalog.Load)
	stop()
	os.Exit(code)
}
