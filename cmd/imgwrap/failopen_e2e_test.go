//go:build e2e

package main_test

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/imgwrap/imgwrap/cmd/internal/otlp"
	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// TestE2EFailOpen breaks telemetry in each way that it can break in a
// container: the application answers as the unwrapped one, and stderr has at
// most one line more.
func TestE2EFailOpen(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	m := newMatrix(t, bed)
	original := map[failOpenSource]failOpenUse{}
	for _, tc := range failOpenCases {
		source := tc.source()
		if _, ok := original[source]; ok {
			continue
		}
		o := testbed.RunOptions{Image: m.image(t, "apps").source, Args: tc.options.Args, Writable: tc.options.Writable}
		if tc.onto != "" {
			o = testbed.RunOptions{Image: bed.Registry() + "/failopen/" + tc.onto + ":1.0"}
			if _, err := bed.Push(t.Context(), tc.onto, "failopen/"+tc.onto+":1.0"); err != nil {
				t.Fatal(err)
			}
		}
		original[source] = useFailOpen(t, bed, o, true)
	}
	results := map[string]*[2]failOpenUse{}
	t.Run("cases", func(t *testing.T) {
		for _, tc := range failOpenCases {
			results[tc.name] = new([2]failOpenUse)
			for i, release := range matrixReleases {
				result := &results[tc.name][i]
				t.Run(tc.name+"/"+release, func(t *testing.T) {
					t.Parallel()
					*result = tc.run(t, m, i, original[tc.source()])
				})
			}
		}
	})
	var rows []string
	for _, tc := range failOpenCases {
		rows = append(rows, tc.row(results[tc.name]))
	}
	checkTable(t, "TestE2EFailOpen", "| what is wrong | release | on stderr in addition | spans of a request |\n|---|---|---|---|\n", rows)
}

// failOpenCase is a wrapped image and what is wrong with it or around it. In
// the options $BUNDLE stands for the bundle's directory.
type failOpenCase struct {
	name    string
	what    string // is wrong, as the table says it
	options testbed.RunOptions
	broken  string    // a file of the bundle that raises an exception when it is imported
	onto    string    // recipe of another image that the wrapped one's layers are put onto
	away    bool      // nothing listens where spans go
	said    [2]string // what stderr has in addition, a regular expression; of each release
	traces  [2]string // what a request leaves
}

var failOpenCases = []failOpenCase{
	{
		name:   "nothing",
		what:   "nothing",
		traces: both(flaskTrace),
	},
	{
		name:    "root-writable",
		what:    "the root is writable (it is read-only in all other cases)",
		options: testbed.RunOptions{Writable: true},
		traces:  both(flaskTrace),
	},
	{
		name:    "no-home",
		what:    "`HOME` is not set",
		options: testbed.RunOptions{Unset: []string{"HOME"}},
		traces:  both(flaskTrace),
	},
	{
		name:    "arbitrary-uid",
		what:    "user 1000660000, which has no name",
		options: testbed.RunOptions{User: "1000660000:0"},
		traces:  both(flaskTrace),
	},
	{
		name:    "sdk-disabled",
		what:    "`OTEL_SDK_DISABLED=true`",
		options: testbed.RunOptions{Env: []string{"OTEL_SDK_DISABLED=true"}},
	},
	{
		name:    "imgwrap-disabled",
		what:    "`IMGWRAP_DISABLE=1`",
		options: testbed.RunOptions{Env: []string{"IMGWRAP_DISABLE=1"}},
	},
	{
		name:    "isolated",
		what:    "the command is `python -I gunicorn`, given when the container is started",
		options: testbed.RunOptions{Args: []string{"python", "-I", "/opt/venv/bin/gunicorn", "--threads=4", "flask_app:app"}},
	},
	{
		name:    "bundle-unreadable",
		what:    "the bundle's directory cannot be read",
		options: testbed.RunOptions{Volumes: []string{"$UNREADABLE:$BUNDLE:ro"}},
		said:    both(`imgwrap: telemetry is off: /opt/imgwrap/otel-[0-9.]+ is missing or unreadable`),
	},
	{
		name:    "bundle-empty",
		what:    "the bundle's directory is empty",
		options: testbed.RunOptions{Volumes: []string{"$EMPTY:$BUNDLE:ro"}},
		said:    both(`imgwrap: telemetry is off: ModuleNotFoundError: No module named 'opentelemetry'`),
	},
	{
		name:    "wrap.json-unreadable",
		what:    "`wrap.json` is empty",
		options: testbed.RunOptions{Volumes: []string{"/dev/null:/opt/imgwrap/wrap.json:ro"}},
		said:    both(`imgwrap: telemetry is off: /opt/imgwrap/wrap.json: .+`),
	},
	{
		name:   "sdk-raises",
		what:   "a module of the SDK raises an exception",
		broken: "opentelemetry/sdk/trace/__init__.py",
		said:   both(`imgwrap: telemetry is off: RuntimeError: broken`),
	},
	{
		name:   "exporter-raises",
		what:   "the exporter raises an exception on import",
		broken: "opentelemetry/exporter/otlp/proto/http/trace_exporter/__init__.py",
		said:   both(`imgwrap: telemetry is off: RuntimeError: broken`),
	},
	{
		name:   "instrumentation-raises",
		what:   "Flask's instrumentation raises an exception on import",
		broken: "opentelemetry/instrumentation/flask/__init__.py",
		said:   both(`imgwrap: flask is not instrumented: RuntimeError: broken`),
	},
	{
		// 1.17.0 serves it, 1.45.1 does not.
		name: "python-3.9",
		what: "the base image changed: Python 3.9", onto: "bullseye-venv",
		options: testbed.RunOptions{Args: []string{"gunicorn", "app:app"}},
		said:    [2]string{"", `imgwrap: telemetry is off: Python [0-9.]+ is older than [0-9.]+, the oldest that OpenTelemetry [0-9.]+ serves`},
		traces:  [2]string{"flask server → (sqlite3 client, requests client → flask server)", ""},
	},
	{
		// 1.17.0 does not instrument the Flask that is there.
		name: "python-3.13",
		what: "the base image changed: Python 3.13, with Flask 3.1", onto: "trixie-venv",
		options: testbed.RunOptions{Args: []string{"gunicorn", "app:app"}},
		traces:  [2]string{"", "flask server → (sqlite3 client, requests client → flask server)"},
	},
	{
		name:    "traces-exporter",
		what:    "`OTEL_TRACES_EXPORTER=nonsense`",
		options: testbed.RunOptions{Env: []string{"OTEL_TRACES_EXPORTER=nonsense"}},
		said:    both(`imgwrap: telemetry is off: RuntimeError: Requested component 'nonsense' not found.*`),
	},
	{
		name:    "protocol",
		what:    "`OTEL_EXPORTER_OTLP_PROTOCOL=grpc`",
		options: testbed.RunOptions{Env: []string{"OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}},
		said:    both(`imgwrap: telemetry is off: RuntimeError: Requested component 'otlp_proto_grpc' not found.*`),
	},
	{
		name:    "propagator",
		what:    "`OTEL_PROPAGATORS=nonsense`",
		options: testbed.RunOptions{Env: []string{"OTEL_PROPAGATORS=nonsense"}},
		said:    both(`imgwrap: telemetry is off: .*nonsense.*`),
	},
	{
		name:    "sampler",
		what:    "`OTEL_TRACES_SAMPLER=nonsense`",
		options: testbed.RunOptions{Env: []string{"OTEL_TRACES_SAMPLER=nonsense"}},
		said:    both("Couldn't recognize sampler nonsense.\n.+ Requested component 'nonsense' not found .+"),
		traces:  both(flaskTrace),
	},
	{
		name:    "schedule-delay",
		what:    "`OTEL_BSP_SCHEDULE_DELAY=soon`",
		options: testbed.RunOptions{Env: []string{"OTEL_BSP_SCHEDULE_DELAY=soon"}},
		said:    [2]string{`imgwrap: telemetry is off: ValueError: .+ 'soon'`, `Unable to parse value for OTEL_BSP_SCHEDULE_DELAY as integer. Defaulting to [0-9]+.*`},
		traces:  [2]string{"", flaskTrace},
	},
	{
		name:    "timeout",
		what:    "`OTEL_EXPORTER_OTLP_TIMEOUT=soon`",
		options: testbed.RunOptions{Env: []string{"OTEL_EXPORTER_OTLP_TIMEOUT=soon"}},
		said:    [2]string{`imgwrap: telemetry is off: ValueError: .+ 'soon'`, `Invalid timeout value 'soon', .+`},
		traces:  [2]string{"", flaskTrace},
	},
	{
		name:    "headers",
		what:    "`OTEL_EXPORTER_OTLP_HEADERS=nonsense`",
		options: testbed.RunOptions{Env: []string{"OTEL_EXPORTER_OTLP_HEADERS=nonsense"}},
		said:    both(`Header format invalid! .+`),
		traces:  both(flaskTrace),
	},
	{
		name:    "resource-attributes",
		what:    "`OTEL_RESOURCE_ATTRIBUTES=nonsense`",
		options: testbed.RunOptions{Env: []string{"OTEL_RESOURCE_ATTRIBUTES=nonsense"}},
		said:    both(`(Invalid key value resource attribute pair nonsense.+\n?)+`),
		traces:  both(flaskTrace),
	},
	{
		name:    "endpoint",
		what:    "`OTEL_EXPORTER_OTLP_ENDPOINT=nonsense`",
		options: testbed.RunOptions{Env: []string{"OTEL_EXPORTER_OTLP_ENDPOINT=nonsense"}},
		said:    [2]string{`(Exception while exporting Span batch.*\n?)+`, ""},
	},
	{
		name: "collector-away",
		what: "nothing listens at the endpoint",
		away: true,
		said: [2]string{`(Exception while exporting Span batch.*\n?)+`, ""},
	},
}

// failOpenSource tells apart what the cases have to be compared with.
type failOpenSource struct {
	onto, args string
	writable   bool
}

func (tc failOpenCase) source() failOpenSource {
	return failOpenSource{tc.onto, strings.Join(tc.options.Args, " "), tc.options.Writable}
}

// failOpenUse is what a container shows.
type failOpenUse struct {
	answer string
	code   int
	stderr []string // in the end, what the unwrapped image's has not
	traces string
	tree   string // all spans
}

func (tc failOpenCase) run(t *testing.T, m *matrix, release int, original failOpenUse) failOpenUse {
	image := m.image(t, "apps").wrapped[release]
	if tc.onto != "" {
		image = put(t, m.bed, image, m.image(t, "apps").source, tc.onto)
	}
	version, _, _ := strings.Cut(matrixReleases[release], "/")
	bundle := "/opt/imgwrap/otel-" + version
	dir := t.TempDir()
	unreadable, empty, raises := filepath.Join(dir, "unreadable"), filepath.Join(dir, "empty"), filepath.Join(dir, "raises.py")
	if err := errors.Join(
		os.Mkdir(unreadable, 0),
		os.Mkdir(empty, 0o755),
		os.WriteFile(raises, []byte("raise RuntimeError('broken')\n"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	o := tc.options
	o.Image = image
	if tc.broken != "" {
		o.Volumes = []string{raises + ":$BUNDLE/" + tc.broken + ":ro"}
	}
	o.Volumes = slices.Clone(o.Volumes)
	for i, v := range o.Volumes {
		o.Volumes[i] = strings.NewReplacer("$BUNDLE", bundle, "$UNREADABLE", unreadable, "$EMPTY", empty).Replace(v)
	}

	u := useFailOpen(t, m.bed, o, tc.away)
	if u.answer != original.answer {
		t.Errorf("it answers\n%s\ninstead of\n%s", u.answer, original.answer)
	}
	if u.code != original.code {
		t.Errorf("it ended with exit code %d instead of %d", u.code, original.code)
	}
	for _, line := range original.stderr {
		i := slices.IndexFunc(u.stderr, func(l string) bool { return sameLine(l, line) })
		if i < 0 {
			t.Errorf("stderr lacks %q", line)
			continue
		}
		u.stderr = slices.Delete(u.stderr, i, i+1)
	}
	if got := strings.Join(u.stderr, "\n"); !regexp.MustCompile("^" + tc.said[release] + "$").MatchString(got) {
		t.Errorf("stderr has in addition\n%s\nwant %s", got, cmp.Or(tc.said[release], "nothing"))
	}
	if u.traces != tc.traces[release] {
		t.Errorf("a request leaves %q, want %q; all that arrived:\n%s", u.traces, tc.traces[release], u.tree)
	}
	return u
}

// sameLine compares lines but for the numbers in them: times, ports, processes.
func sameLine(a, b string) bool {
	return digits.ReplaceAllString(a, "N") == digits.ReplaceAllString(b, "N")
}

// changing is what is another one in each run, of what stderr has.
var changing = regexp.MustCompile(`port=[0-9]+|0x[0-9a-f]+`)

// row is the case's part of the table.
func (tc failOpenCase) row(u *[2]failOpenUse) string {
	if u[0].answer == "" || u[1].answer == "" {
		return "" // it did not run
	}
	var cells [2]string
	for i, u := range u {
		var said []string
		for _, line := range u.stderr {
			said = append(said, "`"+changing.ReplaceAllString(line, "…")+"`")
		}
		cells[i] = fmt.Sprintf("%s | %s", cmp.Or(strings.Join(slices.Compact(said), "<br>"), "–"), cmp.Or(u.traces, "–"))
	}
	version, _, _ := strings.Cut(matrixReleases[0], "/")
	newest, _, _ := strings.Cut(matrixReleases[1], "/")
	if strings.ReplaceAll(cells[0], "otel-"+version, "otel-"+newest) == cells[1] {
		return fmt.Sprintf("| %s | both | %s |\n", tc.what, cells[1])
	}
	return fmt.Sprintf("| %s | %s | %s |\n| %s | %s | %s |\n", tc.what, matrixReleases[0], cells[0], tc.what, matrixReleases[1], cells[1])
}

// useFailOpen starts a web application, asks it, and ends it.
func useFailOpen(t *testing.T, bed *testbed.Bed, o testbed.RunOptions, away bool) failOpenUse {
	t.Helper()
	receiver := new(otlp.Receiver)
	collector := httptest.NewServer(receiver)
	defer collector.Close()
	if away {
		collector.Close()
	}
	o.Env = append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + collector.URL}, o.Env...)
	app, err := bed.Start(wait(t), o)
	if err != nil {
		t.Fatal(err)
	}
	trace, answer := ask(t, app, "/")
	var u failOpenUse
	u.answer, _ = normalize(answer, app.URL())
	if u.code, err = app.Stop(wait(t), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	u.stderr = lines(app.Stderr())
	spans := receiver.Spans()
	u.traces, u.tree = arrived(spans, []asked{{trace, true}}).traces, tree(t, spans)
	return u
}

// put puts what wrapping added to an image onto that of another recipe, as if
// the base image had changed below it.
func put(t *testing.T, bed *testbed.Bed, wrapped, source, recipe string) string {
	t.Helper()
	pull := func(ref string) (v1.Image, []v1.Layer) {
		r, err := name.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		img, err := remote.Image(r, remote.WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		layers, err := img.Layers()
		if err != nil {
			t.Fatal(err)
		}
		return img, layers
	}
	above, layers := pull(wrapped)
	_, own := pull(source)
	base, err := bed.Image(t.Context(), recipe)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := base.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers[len(own):] {
		if base, err = mutate.Append(base, mutate.Addendum{Layer: l, MediaType: manifest.Layers[0].MediaType}); err != nil {
			t.Fatal(err)
		}
	}
	config, err := above.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if base, err = mutate.Config(base, config.Config); err != nil {
		t.Fatal(err)
	}
	ref := "failopen/" + recipe + ":" + strings.ToLower(rand.Text())
	if _, err := bed.PushImage(t.Context(), base, ref); err != nil {
		t.Fatal(err)
	}
	return bed.Registry() + "/" + ref
}
