// Command bench measures what imgwrap costs, on real images, and prints the
// results as tables in Markdown. The figures of one run compare with each
// other only: what is compared takes turns, and each figure is a median.
//
// It runs at the top of the repository and needs root:
//
//	go run ./cmd/bench images [flags]    what wrapping costs
//	go run ./cmd/bench runtime [flags]   what telemetry costs the application
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

const recipes = "testdata/images"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	subjects := map[string]func(context.Context, []string, io.Writer, io.Writer) error{"images": measureImages, "runtime": measureRuntime}
	if len(args) == 0 || subjects[args[0]] == nil {
		return errors.New("what to measure is missing: go run ./cmd/bench images, or runtime")
	}
	return subjects[args[0]](ctx, args[1:], stdout, stderr)
}

// choose returns the names in a flag's list of parts.
func choose(list string, parts map[string]func(context.Context) error) ([]string, error) {
	names := strings.Split(list, ",")
	for _, name := range names {
		if parts[name] == nil {
			return nil, fmt.Errorf("-parts %s: unknown part %q", list, name)
		}
	}
	return names, nil
}

// measure runs parts, one after the other.
func measure(ctx context.Context, stdout io.Writer, names []string, parts map[string]func(context.Context) error) error {
	fmt.Fprintf(stdout, "Measured on %s, %s, OpenTelemetry %s.\n", machine(), time.Now().Format(time.DateOnly), release)
	for _, name := range names {
		if err := parts[name](ctx); err != nil {
			return fmt.Errorf("measuring %s: %w", name, err)
		}
	}
	return nil
}

// machine describes what the figures were measured on.
func machine() string {
	model := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d × %s", runtime.NumCPU(), model)
}

// median returns the middle value, or the lower one of two.
func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)-1)/2]
}

// table is a table in Markdown. All columns but the first hold figures.
type table struct {
	header []string
	rows   [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer, title string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n\n| %s |\n|---|%s\n", title, strings.Join(t.header, " | "), strings.Repeat("---:|", len(t.header)-1))
	for _, row := range t.rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
