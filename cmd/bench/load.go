package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// turns is how often each image is loaded.
const turns = 3

// wrkScript makes wrk print what it measured as JSON, times in microseconds.
const wrkScript = `
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\n{"requests": %d, "duration": %d, "errors": %d, "p50": %d, "p90": %d, "p99": %d}\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
`

// loaded is what wrk measured.
type loaded struct {
	Requests int `json:"requests"`
	Duration int `json:"duration"` // microseconds, as the percentiles
	Errors   int `json:"errors"`
	P50      int `json:"p50"`
	P90      int `json:"p90"`
	P99      int `json:"p99"`
}

// wrk loads an application.
func (b *runtimeBench) wrk(ctx context.Context, app *application, d time.Duration) (loaded, error) {
	script := filepath.Join(b.bed.Dir(), "wrk.lua")
	if err := os.WriteFile(script, []byte(wrkScript), 0o644); err != nil {
		return loaded{}, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "wrk", "--threads=1", "--connections="+strconv.Itoa(b.connections),
		"--duration="+strconv.Itoa(int(d.Seconds()))+"s", "--timeout=10s", "--script="+script, app.URL())
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return loaded{}, fmt.Errorf("running wrk: %w\n%s", err, stderr.String())
	}
	lines := bytes.Split(bytes.TrimSpace(stdout.Bytes()), []byte("\n"))
	var l loaded
	if err := json.Unmarshal(lines[len(lines)-1], &l); err != nil {
		return loaded{}, fmt.Errorf("reading what wrk printed: %w\n%s", err, stdout.String())
	}
	if l.Errors > 0 || l.Requests == 0 {
		return loaded{}, fmt.Errorf("running wrk: %d of %d requests failed\n%s", l.Errors, l.Requests, app.Output())
	}
	return l, nil
}

// application is a target that runs.
type application struct {
	*testbed.Container
	target target
	port   string
}

// launch starts the application in each of the images.
func (b *runtimeBench) launch(ctx context.Context) ([]*application, error) {
	var apps []*application
	for _, t := range []target{b.source, b.installed, b.wrapped} {
		c, err := b.bed.Start(ctx, t.with("gunicorn", "--workers=2", "app:app"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
		u, err := url.Parse(c.URL())
		if err != nil {
			return nil, err
		}
		apps = append(apps, &application{c, t, u.Port()})
	}
	return apps, nil
}

// stop ends the applications.
func stop(ctx context.Context, apps []*application) error {
	var errs []error
	for _, app := range apps {
		_, err := app.Stop(ctx, syscall.SIGTERM)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// load measures the application while it answers as many requests as it can.
func (b *runtimeBench) load(ctx context.Context) error {
	apps, err := b.launch(ctx)
	if err != nil {
		return err
	}
	type figures struct {
		p50, p90, p99, rate, cpu []float64 // milliseconds; requests a second; milliseconds a request
		requests                 int
	}
	measured := make([]figures, len(apps))
	before := make([]int, len(apps)) // spans
	for i, app := range apps {
		before[i] = b.sink.received(app.target.path)
	}
	for range turns {
		for i, app := range apps {
			warm, err := b.wrk(ctx, app, time.Second) // again
			if err != nil {
				return fmt.Errorf("%s: %w", app.target.name, err)
			}
			start, err := app.usage()
			if err != nil {
				return err
			}
			l, err := b.wrk(ctx, app, b.duration/turns)
			if err != nil {
				return fmt.Errorf("%s: %w", app.target.name, err)
			}
			after, err := app.usage()
			if err != nil {
				return err
			}
			f, n := &measured[i], float64(l.Requests)
			f.p50, f.p90, f.p99 = append(f.p50, float64(l.P50)/1e3), append(f.p90, float64(l.P90)/1e3), append(f.p99, float64(l.P99)/1e3)
			f.rate = append(f.rate, n/float64(l.Duration)*1e6)
			f.cpu = append(f.cpu, float64((after.cpu-start.cpu).Microseconds())/1e3/n)
			f.requests += warm.Requests + l.Requests
		}
	}
	if err := stop(ctx, apps); err != nil {
		return err
	}
	t := table{header: []string{"image", "requests/s", "p50, ms", "p90, ms", "p99, ms", "CPU a request, ms", "spans a request"}}
	for i, app := range apps {
		f, row := measured[i], []string{app.target.name, fmt.Sprintf("%.0f", median(measured[i].rate))}
		for _, values := range [][]float64{f.p50, f.p90, f.p99, f.cpu} {
			row = append(row, fmt.Sprintf("%.2f", median(values)))
		}
		// What was not sent yet was when the application ended.
		spans := b.sink.received(app.target.path) - before[i]
		t.add(append(row, fmt.Sprintf("%.2f", float64(spans)/float64(f.requests)))...)
	}
	return t.write(b.stdout, fmt.Sprintf("Load on gunicorn with two workers by wrk with %d connections, %s each: median of %d turns", b.connections, b.duration, turns))
}

// marks is at how many points memory is read.
const marks = 5

// memory measures what the application's processes hold after more and more
// requests.
func (b *runtimeBench) memory(ctx context.Context) error {
	apps, err := b.launch(ctx)
	if err != nil {
		return err
	}
	t := table{header: []string{"image", "first request"}}
	for mark := range marks {
		t.header = append(t.header, strconv.Itoa(b.requests*(mark+1)/marks))
	}
	for _, app := range apps {
		if _, err := app.Get(ctx, "/"); err != nil {
			return err
		}
		row := []string{app.target.name}
		for mark, requests := 0, 0; ; {
			if requests >= b.requests*mark/marks {
				now, err := app.usage()
				if err != nil {
					return err
				}
				row = append(row, fmt.Sprintf("%.1f", float64(now.rss)/(1<<20)))
				if mark++; mark > marks {
					break
				}
				continue
			}
			l, err := b.wrk(ctx, app, 2*time.Second)
			if err != nil {
				return fmt.Errorf("%s: %w", app.target.name, err)
			}
			requests += l.Requests
		}
		t.add(row...)
	}
	if err := stop(ctx, apps); err != nil {
		return err
	}
	return t.write(b.stdout, "Resident memory of gunicorn and its two workers after so many requests, MiB")
}
