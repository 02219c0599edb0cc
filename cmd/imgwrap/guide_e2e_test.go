//go:build e2e

package main_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/imgwrap/imgwrap/cmd/internal/otlp"
	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// guideRelease is a release with what OpenTelemetry's users install by hand for
// it, see https://opentelemetry.io/docs/zero-code/python/.
type guideRelease struct {
	version, contrib string
	xray             string // version of its propagator, which has a numbering of its own
}

var guideReleases = []guideRelease{
	{"1.17.0", "0.38b0", "1.0.1"},
	{"1.45.1", "0.66b1", "1.0.2"},
}

// Sources of the cases: images that start the servers which come with Flask and
// Django.
var (
	flaskServer   = imageCase{name: "guide/flask", recipe: "bookworm-guide"}
	flaskDebug    = imageCase{name: "guide/flask-debug", recipe: "bookworm-guide", cmd: []string{"python3", "app.py", "--debug"}}
	djangoServer  = djangoSource("guide/django-noreload", "--noreload")
	djangoReloads = djangoSource("guide/django", "")
)

func djangoSource(name, flags string) imageCase {
	return imageCase{
		name:       name,
		recipe:     "bookworm-django",
		entrypoint: []string{"/bin/sh", "-c"},
		cmd:        []string{"exec /opt/venv/bin/python3 manage.py runserver " + flags + " 127.0.0.1:$PORT"},
	}
}

// TestE2EGuide does by flags what users do by hand to instrument an
// application: install packages, set variables, change the command, choose
// propagators. Each case is an image, wrapped and run.
func TestE2EGuide(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	for _, source := range []imageCase{flaskServer, flaskDebug, djangoServer, djangoReloads} {
		source.push(t, bed)
	}
	for _, r := range guideReleases {
		t.Run(r.version, func(t *testing.T) {
			t.Parallel()
			for _, tc := range guideCases {
				t.Run(tc.name, func(t *testing.T) {
					t.Parallel()
					tc.run(t, bed, w, r)
				})
			}
		})
	}
}

// guideCase is an image that is wrapped, run, and asked.
type guideCase struct {
	name      string
	source    imageCase
	flags     []string
	args      []string // the container's command instead of the image's
	env       []string // variables that the wrapped image must have; "NAME=" stands for none
	collector bool     // whether telemetry goes to a real Collector
	// check asks the application, which still runs.
	check func(t *testing.T, g *guideRun)
}

// guideRun is a running application that has been wrapped.
type guideRun struct {
	release guideRelease
	plan    plan
	app     *testbed.Container
	stopped bool

	// Where it sends to: one of them.
	receiver  *otlp.Receiver
	collector *testbed.Collector
}

// Incoming contexts, and what they say.
const (
	parentTrace = "5759e988bd862e3fe1be46a994272793"
	parentSpan  = "53995c3f42cd8ad8"
)

var guideCases = []guideCase{
	{
		name:      "traces",
		source:    flaskServer,
		collector: true,
		flags:     []string{"--service-name", "FinanceServiceCall", "--application", "finance"},
		args:      []string{"opentelemetry-instrument", "python3", "app.py"},
		env: []string{
			"OTEL_TRACES_EXPORTER=otlp",
			"OTEL_METRICS_EXPORTER=none",
			"OTEL_LOGS_EXPORTER=none",
			"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
			"OTEL_SERVICE_NAME=FinanceServiceCall",
			"OTEL_RESOURCE_ATTRIBUTES=application=finance",
			"OTEL_PROPAGATORS=",
			"OTEL_PYTHON_LOG_CORRELATION=",
		},
		check: func(t *testing.T, g *guideRun) {
			g.checkPackages(t)
			g.get(t, "/?article=lamp", nil)
			got := g.stopBoth(t)
			want := map[string]string{"service.name": "FinanceServiceCall", "application": "finance"}
			checkSignal(t, "span", got.spans, want, "opentelemetry.instrumentation.flask", "opentelemetry.instrumentation.sqlalchemy")
			if len(got.metrics) != 0 || len(got.logs) != 0 {
				t.Errorf("metrics %v and logs %v arrived", got.metrics, got.logs)
			}
		},
	},
	{
		name:      "signals",
		source:    flaskServer,
		collector: true,
		flags: []string{
			"--service-name", "FinanceServiceCall", "--application", "finance", "--resource-attribute", "deployment.environment=test",
			"--traces-exporter", "otlp", "--metrics-exporter", "otlp", "--logs-exporter", "otlp", "--protocol", "http/protobuf",
		},
		env: []string{
			"OTEL_TRACES_EXPORTER=otlp",
			"OTEL_METRICS_EXPORTER=otlp",
			"OTEL_LOGS_EXPORTER=otlp",
			"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
			"OTEL_RESOURCE_ATTRIBUTES=application=finance,deployment.environment=test",
		},
		check: func(t *testing.T, g *guideRun) {
			g.get(t, "/?article=lamp", nil)
			got := g.stopBoth(t)
			want := map[string]string{"service.name": "FinanceServiceCall", "application": "finance", "deployment.environment": "test"}
			checkSignal(t, "span", got.spans, want, "opentelemetry.instrumentation.flask")
			checkSignal(t, "metric", got.metrics, want, "http.server.duration")
			checkSignal(t, "log record", got.logs, want, "an order of lamp")
		},
	},
	{
		name:   "manual",
		source: flaskServer,
		flags:  []string{"--instrument", "requests", "--without", "flask"},
		check: func(t *testing.T, g *guideRun) {
			if g.plan.instruments("flask") || !g.plan.instruments("requests") {
				t.Errorf("planned are %v", g.plan.Instrumentations)
			}
			g.get(t, "/requests", nil)
			spans := g.wait(t, 1, func(s otlp.Span) bool { return s.Scope == "opentelemetry.instrumentation.requests" })
			if slices.ContainsFunc(spans, isServer) {
				t.Error("a server span arrived")
			}
		},
	},
	propagation("w3c", nil, "OTEL_PROPAGATORS=",
		map[string]string{"traceparent": "00-" + parentTrace + "-" + parentSpan + "-01"},
	),
	propagation("b3", []string{"--propagators", "b3"}, "OTEL_PROPAGATORS=b3,b3multi,tracecontext,baggage",
		map[string]string{"b3": parentTrace + "-" + parentSpan + "-1"},
		map[string]string{"x-b3-traceid": parentTrace, "x-b3-spanid": parentSpan, "x-b3-sampled": "1"},
	),
	propagation("jaeger", []string{"--propagators", "jaeger"}, "OTEL_PROPAGATORS=jaeger,tracecontext,baggage",
		map[string]string{"uber-trace-id": parentTrace + ":" + parentSpan + ":0:1"},
	),
	propagation("xray", []string{"--propagators", "xray"}, "OTEL_PROPAGATORS=xray,tracecontext,baggage",
		map[string]string{"x-amzn-trace-id": "Root=1-" + parentTrace[:8] + "-" + parentTrace[8:] + ";Parent=" + parentSpan + ";Sampled=1"},
	),
	propagation("ottrace", []string{"--propagators", "ottrace"}, "OTEL_PROPAGATORS=ottrace,tracecontext,baggage",
		map[string]string{"ot-tracer-traceid": parentTrace, "ot-tracer-spanid": parentSpan, "ot-tracer-sampled": "true"},
	),
	{
		name:   "log-correlation",
		source: flaskServer,
		flags:  []string{"--log-correlation"},
		env:    []string{"OTEL_PYTHON_LOG_CORRELATION=true"},
		check: func(t *testing.T, g *guideRun) {
			g.get(t, "/?article=lamp", nil)
			g.get(t, "/?article=chair", nil)
			spans := g.wait(t, 2, isServer)
			line := regexp.MustCompile(`trace_id=([0-9a-f]+) span_id=([0-9a-f]+) .*an order of (lamp|chair)`)
			var got, want []string
			for _, m := range line.FindAllStringSubmatch(g.app.Output(), -1) {
				got = append(got, m[1]+" "+m[2])
			}
			for _, s := range slices.DeleteFunc(spans, func(s otlp.Span) bool { return !isServer(s) }) {
				want = append(want, s.TraceID+" "+s.ID)
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("the log lines have %q, the server spans are %q\n%s", got, want, g.app.Output())
			}
		},
	},
	{
		name:   "flask-debug",
		source: flaskDebug,
		check:  func(t *testing.T, g *guideRun) { g.checkServer(t, "flask", "sqlalchemy") },
	},
	{
		name:   "django-reload",
		source: djangoReloads,
		check:  func(t *testing.T, g *guideRun) { g.checkServer(t, "django", "sqlite3") },
	},
	{
		name:   "django-noreload",
		source: djangoServer,
		check:  func(t *testing.T, g *guideRun) { g.checkServer(t, "django", "sqlite3") },
	},
}

func isServer(s otlp.Span) bool { return s.Kind == "SERVER" }

// propagation is a case of the image variable env: each of the incoming
// contexts is continued, and handed on in the same format.
func propagation(name string, flags []string, env string, contexts ...map[string]string) guideCase {
	return guideCase{
		name:   name,
		source: flaskServer,
		flags:  flags,
		env:    []string{env},
		check: func(t *testing.T, g *guideRun) {
			for _, headers := range contexts {
				var sent map[string]string
				if err := json.Unmarshal(g.get(t, "/call", headers), &sent); err != nil {
					t.Fatal(err)
				}
				for name, value := range headers {
					// X-Ray has hyphens in the ID; OpenTracing sends its second half.
					id := func(s string) string { return strings.ReplaceAll(s, "-", "") }
					if strings.Contains(id(value), parentTrace) && !strings.Contains(id(sent[name]), parentTrace[16:]) {
						t.Errorf("the application hands on %v, without the trace of %s: %s", sent, name, value)
					}
				}
			}
			spans := g.wait(t, 2*len(contexts), isServer)
			clients := map[string]bool{}
			for _, s := range spans {
				if s.TraceID != parentTrace {
					t.Errorf("span %s of %s is in trace %s, want %s", s.Name, s.Scope, s.TraceID, parentTrace)
				}
				if s.Kind == "CLIENT" {
					clients[s.ID] = true
				}
			}
			continued, called := 0, 0
			for _, s := range spans {
				switch {
				case isServer(s) && s.ParentID == parentSpan:
					continued++
				case isServer(s) && clients[s.ParentID]:
					called++
				}
			}
			if continued != len(contexts) || called != len(contexts) {
				t.Errorf("%d server spans have the parent %s, %d have one that the application made; want %d", continued, parentSpan, called, len(contexts))
			}
		},
	}
}

func (tc guideCase) run(t *testing.T, bed *testbed.Bed, w imgwrap, r guideRelease) {
	g := &guideRun{release: r}
	var endpoint string
	var err error
	if tc.collector {
		if g.collector, err = bed.StartCollector(t.Context()); err != nil {
			t.Fatal(err)
		}
		endpoint = g.collector.URL()
	} else {
		g.receiver = new(otlp.Receiver)
		server := httptest.NewServer(g.receiver)
		t.Cleanup(server.Close)
		endpoint = server.URL
	}

	repository := bed.Registry() + "/" + tc.source.name
	tag := tc.name + "-" + r.version
	flags := append([]string{repository + ":1.0", "--tag", tag, "--release", r.version, "--endpoint", endpoint}, tc.flags...)
	if err := json.Unmarshal([]byte(w.run(t, append([]string{"plan", "-o", "json"}, flags...)...)), &g.plan); err != nil {
		t.Fatalf("reading plan: %v", err)
	}
	wrapped := strings.TrimSpace(w.run(t, flags...))
	checkEnv(t, repository+":"+tag, append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + endpoint}, tc.env...))

	g.app, err = bed.Start(wait(t), testbed.RunOptions{
		Image: wrapped,
		Args:  tc.args,
		Env:   []string{"OTEL_BSP_SCHEDULE_DELAY=100"}, // milliseconds, 5000 by default
	})
	if err != nil {
		t.Fatal(err)
	}
	tc.check(t, g)
	if !g.stopped {
		g.stop(t)
	}
}

// checkEnv looks for variables in an image's config.
func checkEnv(t *testing.T, ref string, want []string) {
	t.Helper()
	config, err := image(t, ref).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range want {
		name, value, _ := strings.Cut(v, "=")
		if value == "" {
			if slices.ContainsFunc(config.Config.Env, func(s string) bool { return strings.HasPrefix(s, name+"=") }) {
				t.Errorf("the image sets %s: %q", name, config.Config.Env)
			}
		} else if !slices.Contains(config.Config.Env, v) {
			t.Errorf("the image does not set %s: %q", v, config.Config.Env)
		}
	}
}

// stop ends the application and returns its exit code.
func (g *guideRun) stop(t *testing.T) int {
	t.Helper()
	g.stopped = true
	code, err := g.app.Stop(wait(t), syscall.SIGINT)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// get asks the application.
func (g *guideRun) get(t *testing.T, path string, headers map[string]string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(wait(t), http.MethodGet, strings.TrimSuffix(g.app.URL(), "/")+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("asking for %s: %v\n%s", path, err, g.app.Output())
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("asking for %s: %s, %v\n%s", path, resp.Status, err, g.app.Output())
	}
	return body
}

// wait waits for n spans that match, and returns all spans that have arrived.
func (g *guideRun) wait(t *testing.T, n int, match func(otlp.Span) bool) []otlp.Span {
	t.Helper()
	if _, err := g.receiver.Wait(wait(t), n, match); err != nil {
		t.Fatalf("%v\n%s", err, g.app.Output())
	}
	return g.receiver.Spans()
}

// checkServer asks the application and wants one server span for each request,
// of the first of these libraries, and a child of the second.
func (g *guideRun) checkServer(t *testing.T, server, child string) {
	t.Helper()
	const requests = 3
	for range requests {
		g.get(t, "/", nil)
	}
	g.wait(t, requests, isServer)
	g.stop(t)
	const scope = "opentelemetry.instrumentation."
	servers := map[string]string{} // scopes of server spans by ID
	for _, s := range g.receiver.Spans() {
		if isServer(s) {
			servers[s.ID] = s.Scope
		}
	}
	asked := map[string]bool{} // server spans with a child
	for _, s := range g.receiver.Spans() {
		if s.Scope == scope+child && servers[s.ParentID] == scope+server {
			asked[s.ParentID] = true
		}
	}
	if len(servers) != requests || len(asked) != requests {
		t.Errorf("%d server spans, %d of them of %s with children of %s; want %d", len(servers), len(asked), server, child, requests)
	}
}

// checkPackages looks for the distributions that users install, inside the
// running application.
func (g *guideRun) checkPackages(t *testing.T) {
	t.Helper()
	var i info
	if err := json.Unmarshal(g.get(t, "/info", nil), &i); err != nil {
		t.Fatal(err)
	}
	for name, version := range map[string]string{
		"opentelemetry-distro":                     g.release.contrib,
		"opentelemetry-exporter-otlp-proto-http":   g.release.version,
		"opentelemetry-instrumentation-flask":      g.release.contrib,
		"opentelemetry-instrumentation-sqlalchemy": g.release.contrib,
		"opentelemetry-propagator-b3":              g.release.version,
		"opentelemetry-propagator-aws-xray":        g.release.xray,
		"opentelemetry-propagator-jaeger":          g.release.version,
		"opentelemetry-propagator-ot-trace":        g.release.contrib,
	} {
		if i.Distributions[name].Version != version {
			t.Errorf("%s is %q, want %s", name, i.Distributions[name].Version, version)
		}
	}
	// Of requests there is nothing to find: see the recipe.
	for name, want := range map[string]bool{"flask": true, "sqlalchemy": true, "requests": false} {
		if g.plan.instruments(name) != want {
			t.Errorf("%s is planned: %t, want %t", name, !want, want)
		}
	}
}

// received is what a Collector got of each signal: the attributes of resources
// by what tells that signal apart. A span is told by its scope, a metric by
// its name, a log record by its body.
type received struct {
	spans, metrics, logs map[string]map[string]string
}

// stopBoth ends the application, then the Collector, and returns what that got.
func (g *guideRun) stopBoth(t *testing.T) received {
	t.Helper()
	if code := g.stop(t); code != 0 {
		t.Fatalf("the application ended with exit code %d\n%s", code, g.app.Output())
	}
	output, err := g.collector.Stop(wait(t))
	if err != nil {
		t.Fatal(err)
	}
	r := received{map[string]map[string]string{}, map[string]map[string]string{}, map[string]map[string]string{}}
	for line := range strings.Lines(string(output)) {
		var m otlpMessage
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("reading what the Collector wrote: %v\n%s", err, line)
		}
		for _, rs := range m.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				r.spans[ss.Scope.Name] = rs.Resource.attributes()
			}
		}
		for _, rm := range m.ResourceMetrics {
			for _, sm := range rm.ScopeMetrics {
				for _, metric := range sm.Metrics {
					r.metrics[metric.Name] = rm.Resource.attributes()
				}
			}
		}
		for _, rl := range m.ResourceLogs {
			for _, sl := range rl.ScopeLogs {
				for _, record := range sl.LogRecords {
					r.logs[record.Body.StringValue] = rl.Resource.attributes()
				}
			}
		}
	}
	return r
}

// otlpMessage is what the tests read of OTLP's JSON encoding.
type otlpMessage struct {
	ResourceSpans []struct {
		Resource   otlpResource `json:"resource"`
		ScopeSpans []struct {
			Scope struct {
				Name string `json:"name"`
			} `json:"scope"`
		} `json:"scopeSpans"`
	} `json:"resourceSpans"`
	ResourceMetrics []struct {
		Resource     otlpResource `json:"resource"`
		ScopeMetrics []struct {
			Metrics []struct {
				Name string `json:"name"`
			} `json:"metrics"`
		} `json:"scopeMetrics"`
	} `json:"resourceMetrics"`
	ResourceLogs []struct {
		Resource  otlpResource `json:"resource"`
		ScopeLogs []struct {
			LogRecords []struct {
				Body otlpValue `json:"body"`
			} `json:"logRecords"`
		} `json:"scopeLogs"`
	} `json:"resourceLogs"`
}

type otlpValue struct {
	StringValue string `json:"stringValue"`
}

type otlpResource struct {
	Attributes []struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	} `json:"attributes"`
}

func (r otlpResource) attributes() map[string]string {
	m := map[string]string{}
	for _, a := range r.Attributes {
		m[a.Key] = a.Value.StringValue
	}
	return m
}

// checkSignal looks for resource attributes on everything that arrived of a
// signal, and for what must be among that.
func checkSignal(t *testing.T, what string, got map[string]map[string]string, attributes map[string]string, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, ok := got[name]; !ok {
			t.Errorf("no %s %q arrived, only %v", what, name, got)
		}
	}
	for name, resource := range got {
		for key, value := range attributes {
			if resource[key] != value {
				t.Errorf("%s %q has the resource attribute %s=%q, want %q", what, name, key, resource[key], value)
			}
		}
	}
}
