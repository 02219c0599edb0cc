//go:build e2e

package main_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// TestE2EPins wraps applications that pin what OpenTelemetry wants as well.
// Each gets the newest release whose bounds its pins are within, keeps them,
// and is traced.
func TestE2EPins(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	own := []string{"gunicorn", "own:app"}
	cases := []pinCase{
		{list: "protobuf-3.20", pins: "protobuf 3.20.3", release: "1.27.0"},
		{list: "protobuf-4.25", pins: "protobuf 4.25.8", release: "1.27.0"},
		{list: "protobuf-5.29", pins: "protobuf 5.29.6", release: "1.45.1"},
		{list: "protobuf-6.33", pins: "protobuf 6.33.6", release: "1.45.1"},
		{list: "wrapt-1.14", pins: "wrapt 1.14.1", release: "1.45.1"},
		{list: "importlib-metadata-4", pins: "importlib-metadata 4.13.0", release: "1.45.1"},
		{list: "importlib-metadata-8", pins: "importlib-metadata 8.7.1", release: "1.45.1"},
		{list: "typing-extensions-4.5", pins: "typing-extensions 4.5.0", release: "1.45.1"},
		{list: "requests-2.25", pins: "requests 2.25.1, urllib3 1.26.20", release: "1.45.1"},
		{list: "otel-api-1.24", pins: "opentelemetry-api 1.24.0", release: "1.24.0", cmd: own, own: "shop"},
		{
			// The application's own launcher would instrument it as well.
			list: "otel-sdk-1.30", pins: "opentelemetry-sdk 1.30.0, opentelemetry-distro 0.51b0", release: "1.30.0",
			cmd: append([]string{"opentelemetry-instrument"}, own...), plain: own, own: "shop",
			warning: "starts opentelemetry-instrument itself",
		},
	}
	var mu sync.Mutex
	rows := map[string]string{}
	t.Run("lists", func(t *testing.T) {
		for _, tc := range cases {
			t.Run(tc.list, func(t *testing.T) {
				t.Parallel()
				row := tc.run(t, bed, w)
				mu.Lock()
				defer mu.Unlock()
				rows[tc.list] = row
			})
		}
	})
	var table strings.Builder
	tw := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "PINS\tRELEASE\tINSTRUMENTATIONS\tPIP CHECK, BEFORE AND AFTER")
	for _, tc := range cases {
		fmt.Fprintln(tw, rows[tc.list])
	}
	if err := tw.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Logf("what was chosen:\n%s", table.String())
}

// pinCase is a list of the recipe bookworm-pins.
type pinCase struct {
	list    string
	pins    string // distributions and versions, as the application must keep them
	release string
	cmd     []string // instead of the recipe's
	plain   []string // cmd without telemetry, if cmd has any
	own     string   // the application's own scope
	warning string   // part of a warning of the plan
}

// run returns the case's row of the table.
func (tc pinCase) run(t *testing.T, bed *testbed.Bed, w imgwrap) string {
	ic := imageCase{
		name:    "pins/" + tc.list,
		recipe:  "bookworm-pins/" + tc.list,
		cmd:     tc.cmd,
		plain:   tc.plain,
		release: tc.release,
		scopes:  []string{"flask", "requests", "sqlalchemy"},
		own:     tc.own,
		warning: tc.warning,
		servers: 2,
		stopped: gunicornStopped,
	}
	sourceDigest := ic.push(t, bed)
	source := bed.Registry() + "/" + ic.name + ":1.0"
	var p plan
	if err := json.Unmarshal([]byte(w.run(t, "plan", "-o", "json", source)), &p); err != nil {
		t.Fatalf("reading plan: %v", err)
	}
	ic.checkPlan(t, p, sourceDigest)
	wrapped := strings.TrimSpace(w.run(t, source))

	original := ic.use(t, bed, testbed.RunOptions{Image: source, Args: tc.plain})
	traced, spans := ic.trace(t, bed, wrapped)
	checkInfo(t, original.info, traced.info, "/opt/imgwrap/otel-"+p.Release.Version)
	ic.checkSpans(t, spans)
	for pin := range strings.SplitSeq(tc.pins, ", ") {
		name, version, _ := strings.Cut(pin, " ")
		if d := traced.info.Distributions[name]; d.Version != version || !strings.HasPrefix(d.Path, "/opt/venv/") {
			t.Errorf("%s is %s in %s, want %s in /opt/venv", name, d.Version, d.Path, version)
		}
	}
	problems := checkPip(t, bed, source, wrapped, p)
	var names []string
	for _, i := range p.Instrumentations {
		names = append(names, i.Name)
	}
	slices.Sort(names)
	return fmt.Sprintf("%s\t%s/%s\t%s\t%s", tc.pins, p.Release.Version, p.Release.Contrib,
		strings.Join(names, " "), strings.Join(problems, "; "))
}
