//go:build e2e

package main_test

import (
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/imgwrap/imgwrap/cmd/internal/otlp"
	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// TestE2EActivate runs an image that is traced without its entry point, as
// Kubernetes runs one whose command is given: the application is traced once,
// and what else runs Python in its container is not.
func TestE2EActivate(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	img, err := bed.Image(t.Context(), "bookworm-matrix/apps")
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := config.Config
	c.Healthcheck = &v1.HealthConfig{Test: []string{"CMD", "python", "healthcheck.py", "--fast"}, Interval: time.Hour}
	if img, err = mutate.Config(img, c); err != nil {
		t.Fatal(err)
	}
	if _, err := bed.PushImage(t.Context(), img, "activate:1.0"); err != nil {
		t.Fatal(err)
	}
	source := bed.Registry() + "/activate:1.0"

	for _, release := range matrixReleases {
		tag := strings.ReplaceAll(release, "/", "-")
		environment := strings.TrimSpace(w.run(t, "--release="+release, "--activate=environment", "--tag=environment-"+tag, source))
		both := strings.TrimSpace(w.run(t, "--release="+release, "--activate=entrypoint,environment", "--tag=both-"+tag, source))
		command := []string{"--threads=4", "flask_app:app"}
		for _, tc := range []struct {
			name    string
			options testbed.RunOptions
			others  bool // are looked at, too
		}{
			{"command", testbed.RunOptions{Image: environment, Entrypoint: "gunicorn", Args: command}, false},
			{"image", testbed.RunOptions{Image: environment}, true},
			{"both", testbed.RunOptions{Image: both}, false},
			{"both-command", testbed.RunOptions{Image: both, Entrypoint: "gunicorn", Args: command}, false},
		} {
			t.Run(tc.name+"/"+release, func(t *testing.T) {
				t.Parallel()
				useActivated(t, bed, tc.options, tc.others)
			})
		}
	}
}

// useActivated asks an application in a container, and looks at what else may
// run in there if others is set.
func useActivated(t *testing.T, bed *testbed.Bed, o testbed.RunOptions, others bool) {
	t.Helper()
	receiver := new(otlp.Receiver)
	collector := httptest.NewServer(receiver)
	t.Cleanup(collector.Close)
	o.Env = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + collector.URL}
	app, err := bed.Start(wait(t), o)
	if err != nil {
		t.Fatal(err)
	}
	trace, answer := ask(t, app, "/")
	if want := `["/opt/venv/bin/python3","/opt/venv/bin/gunicorn",`; !strings.Contains(strings.Join(strings.Fields(answer), ""), want) {
		t.Errorf("process 1 is not %s: %s", want, answer)
	}
	if others {
		checkOthers(t, app)
	}
	if _, err := app.Stop(wait(t), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	spans := receiver.Spans()
	if a := arrived(spans, []asked{{trace, true}}); a.traces != flaskTrace {
		t.Errorf("a request leaves %q, want %q; all that arrived:\n%s", a.traces, flaskTrace, tree(t, spans))
	}
}

// checkOthers runs more programs in an application's container.
func checkOthers(t *testing.T, app *testbed.Container) {
	t.Helper()
	for _, tc := range []struct {
		command string
		traced  bool
	}{
		{"python process.py", true},
		{"python healthcheck.py --slow", true},
		{"python healthcheck.py --fast", false}, // the image's HEALTHCHECK
		{"python -c pass", false},
		{"python -m site", false},
		{"python -m pip --version", false},
		{"pip --version", false},
	} {
		_, stderr, err := app.Exec(wait(t), append([]string{"env", "PYTHONVERBOSE=1"}, strings.Fields(tc.command)...)...)
		if err != nil {
			t.Error(err)
		}
		if got := strings.Contains(stderr, "import 'opentelemetry"); got != tc.traced {
			t.Errorf("%s imports OpenTelemetry: %t, want %t", tc.command, got, tc.traced)
		}
	}
}
