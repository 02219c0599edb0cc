//go:build e2e

package main_test

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"golang.org/x/sync/errgroup"

	"github.com/imgwrap/imgwrap/cmd/internal/otlp"
	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// TestE2EMatrix runs applications under the servers that people use, each
// unwrapped and with the oldest and the newest release, and holds what arrived
// against docs/matrix.md. With IMGWRAP_UPDATE set it writes that file.
func TestE2EMatrix(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	m := newMatrix(t, bed)
	t.Run("cases", func(t *testing.T) {
		for _, tc := range matrixCases {
			t.Run(tc.name, func(t *testing.T) {
				t.Parallel()
				m.run(t, tc)
			})
		}
	})
	var rows []string
	for _, tc := range matrixCases {
		rows = append(rows, m.rows[tc.name])
	}
	checkTable(t, "TestE2EMatrix", "| application | command | release | spans of a request | other spans | workers | signal, exit code | flushed |\n|---|---|---|---|---|---|---|---|\n", rows)
}

// matrixReleases are the releases that every case runs with.
var matrixReleases = [2]string{"1.17.0/0.38b0", "1.45.1/0.66b1"}

// matrixImages are the images of the cases. The working directory and the
// command are what imgwrap sees when it wraps them.
var matrixImages = map[string]struct {
	recipe, workDir string
	cmd             []string
}{
	"apps":           {"bookworm-matrix/apps", "/app", []string{"gunicorn", "--threads=4", "flask_app:app"}},
	"gevent":         {"bookworm-matrix/apps", "/app", []string{"gunicorn", "--workers=2", "--worker-class=gevent", "flask_app:app"}},
	"django4":        {"bookworm-matrix/apps", "/srv/project", []string{"gunicorn", "shop.wsgi"}},
	"django4-chdir":  {"bookworm-matrix/apps", "/app", []string{"gunicorn", "--chdir=/srv/project", "shop.wsgi"}},
	"django4-celery": {"bookworm-matrix/apps", "/srv/project", []string{"celery", "--app=shop", "worker"}},
	"django5":        {"bookworm-matrix/django5", "/srv/project", []string{"gunicorn", "shop.wsgi"}},
	"django5-chdir":  {"bookworm-matrix/django5", "/app", []string{"gunicorn", "--chdir=/srv/project", "shop.wsgi"}},
}

// matrixCase is an application and what serves it.
type matrixCase struct {
	name    string
	app     string // as the table says it
	image   string // of matrixImages
	command []string
	env     []string
	path    string         // what is asked for; / if empty
	workers int            // processes that answer; 1 if zero
	stop    syscall.Signal // ends it; SIGTERM if zero
	// killed: the server ends the process that answers, with telemetry or
	// without, in a way that lets it do nothing more.
	killed   bool
	database bool // uses PostgreSQL
	redis    bool
	front    []string // the web application that is asked, for a worker that is not one
	script   bool     // ends by itself, and asks BACKEND

	// What arrives, for each of matrixReleases: the trace that a request leaves,
	// and the traces that did not begin with a request.
	traces [2]string
	others [2]string
}

func both(s string) [2]string { return [2]string{s, s} }

const (
	flaskTrace    = "flask server → requests client → flask server → sqlite3 client"
	djangoTrace   = "django server → requests client → django server → sqlite3 client"
	postgresTrace = "django server → requests client → django server → psycopg2 client"
	fastapiTrace  = "fastapi server → requests client → fastapi server → sqlite3 client"
	asgiTrace     = "asgi server → requests client → asgi server → sqlite3 client"
	// 0.38b0 instruments Starlette 0.13 only.
	starletteTrace = "starlette server → requests client → starlette server → sqlite3 client"
	clientSpans    = "requests client; sqlite3 client"
)

var matrixCases = slices.Concat([]matrixCase{
	{
		name: "flask-python", app: "Flask 2.3", image: "apps", command: []string{"python", "flask_app.py"},
		stop: syscall.SIGINT, traces: both(flaskTrace),
	},
	{
		name: "flask-python-debug", app: "Flask 2.3", image: "apps", command: []string{"python", "flask_app.py"}, env: []string{"FLASK_DEBUG=1"},
		killed: true, traces: both(flaskTrace),
	},
	{
		name: "flask-run", app: "Flask 2.3", image: "apps", command: []string{"flask", "--app=flask_app", "run", "--port=$PORT"},
		stop: syscall.SIGINT, traces: both(flaskTrace),
	},
	{
		name: "flask-run-debug", app: "Flask 2.3", image: "apps", command: []string{"flask", "--app=flask_app", "run", "--debug", "--port=$PORT"},
		killed: true, traces: both(flaskTrace),
	},
	{
		name: "flask-gunicorn-sync", app: "Flask 2.3", image: "apps", command: []string{"gunicorn", "--workers=2", "flask_app:app"},
		workers: 2, traces: both(flaskTrace),
	},
	{
		name: "flask-gunicorn-gthread", app: "Flask 2.3", image: "apps", command: []string{"gunicorn", "--workers=2", "--threads=4", "flask_app:app"},
		workers: 2, traces: both(flaskTrace),
	},
	{
		name: "flask-gunicorn-gevent", app: "Flask 2.3", image: "gevent", command: []string{"gunicorn", "--workers=2", "--worker-class=gevent", "flask_app:app"},
		workers: 2, traces: both(flaskTrace),
	},
	{
		name: "flask-gunicorn-preload", app: "Flask 2.3", image: "apps", command: []string{"gunicorn", "--workers=2", "--preload", "flask_app:app"},
		workers: 2, traces: both(flaskTrace),
	},
	{
		name: "flask-uwsgi", app: "Flask 2.3", image: "apps",
		command: []string{"uwsgi", "--http-socket=127.0.0.1:$PORT", "--master", "--die-on-term", "--processes=2", "--disable-logging", "--module=flask_app:app"},
		workers: 2, traces: both(flaskTrace),
	},
	{
		name: "fastapi-uvicorn", app: "FastAPI 0.115", image: "apps", command: []string{"uvicorn", "--port=$PORT", "fastapi_app:app"},
		traces: [2]string{asgiTrace, fastapiTrace},
	},
	{
		name: "fastapi-uvicorn-workers", app: "FastAPI 0.115", image: "apps", command: []string{"uvicorn", "--port=$PORT", "--workers=2", "fastapi_app:app"},
		workers: 2, traces: [2]string{asgiTrace, fastapiTrace},
	},
	{
		name: "fastapi-uvicorn-reload", app: "FastAPI 0.115", image: "apps", command: []string{"uvicorn", "--port=$PORT", "--reload", "fastapi_app:app"},
		traces: [2]string{asgiTrace, fastapiTrace},
	},
	{
		name: "fastapi-gunicorn", app: "FastAPI 0.115", image: "apps",
		command: []string{"gunicorn", "--workers=2", "--worker-class=uvicorn.workers.UvicornWorker", "fastapi_app:app"},
		workers: 2, traces: [2]string{asgiTrace, fastapiTrace},
	},
	{
		name: "starlette-uvicorn", app: "Starlette 0.46", image: "apps", command: []string{"uvicorn", "--port=$PORT", "starlette_app:app"},
		traces: [2]string{"", starletteTrace}, others: [2]string{clientSpans, ""},
	},
	{
		name: "starlette-uvicorn-workers", app: "Starlette 0.46", image: "apps", command: []string{"uvicorn", "--port=$PORT", "--workers=2", "starlette_app:app"},
		workers: 2, traces: [2]string{"", starletteTrace}, others: [2]string{clientSpans, ""},
	},
	{
		name: "starlette-gunicorn", app: "Starlette 0.46", image: "apps",
		command: []string{"gunicorn", "--workers=2", "--worker-class=uvicorn.workers.UvicornWorker", "starlette_app:app"},
		workers: 2, traces: [2]string{"", starletteTrace}, others: [2]string{clientSpans, ""},
	},
	{
		name: "aiohttp", app: "aiohttp 3.14", image: "apps", command: []string{"python", "aiohttp_app.py"},
		// Instrumentation of aiohttp's server came with 0.42b0.
		traces: [2]string{"", "aiohttp_server server → aiohttp_client client → aiohttp_server server → sqlite3 client"},
		others: [2]string{"aiohttp_client client; sqlite3 client", ""},
	},
	{
		name: "celery", app: "Celery 5.5, asked by Flask", image: "apps", command: []string{"celery", "--app=tasks", "worker", "--concurrency=2"},
		front: []string{"gunicorn", "--threads=4", "sender:app"}, redis: true, workers: 2,
		traces: both("flask server → (celery producer → (redis client, celery consumer → (sqlite3 client, redis client)), redis client)"),
		others: both("redis client"),
	},
	{
		name: "celery-django", app: "Celery 5.5 in Django 4.2, asked by it", image: "django4-celery", command: []string{"celery", "--app=shop", "worker", "--concurrency=2"},
		front: []string{"gunicorn", "shop.wsgi"}, redis: true, database: true, path: "/task",
		traces: both("django server → (celery producer → (redis client, celery consumer → (psycopg2 client, redis client)), redis client)"),
		others: both("redis client"),
	},
	{
		name: "script", app: "script", image: "apps", command: []string{"python", "script.py"}, script: true,
		others: both("requests client; sqlite3 client; urllib client; urllib3 client"),
	},
	{
		name: "script-spawn", app: "script that starts others", image: "apps", command: []string{"python", "spawn.py"}, script: true,
		workers: 2, others: both("requests client"),
	},
	{
		name: "django4-entrypoint", app: "Django 4.2", image: "django4",
		command:  []string{"./entrypoint.sh", "gunicorn", "--workers=2", "shop.wsgi"},
		database: true, workers: 2, traces: both(postgresTrace), others: both("psycopg2 client"),
	},
}, djangoCases("4.2", "django4"), djangoCases("5.2", "django5"))

func djangoCases(version, image string) []matrixCase {
	app := "Django " + version
	cases := []matrixCase{
		{name: "runserver", command: []string{"python", "manage.py", "runserver", "$PORT"}, killed: true},
		{name: "runserver-noreload", command: []string{"python", "manage.py", "runserver", "--noreload", "$PORT"}, stop: syscall.SIGINT},
		{name: "gunicorn", command: []string{"gunicorn", "--workers=2", "shop.wsgi"}, workers: 2},
		{name: "gunicorn-chdir", command: []string{"gunicorn", "--workers=2", "--chdir=/srv/project", "shop.wsgi"}, workers: 2},
		{name: "uvicorn", command: []string{"uvicorn", "--port=$PORT", "shop.asgi:application"}},
	}
	for i := range cases {
		tc := &cases[i]
		if strings.HasPrefix(tc.name, "runserver") {
			tc.others = both("sqlite3 client") // it looks for migrations
		}
		tc.image, tc.app, tc.traces = image, app, both(djangoTrace)
		if strings.HasSuffix(tc.name, "-chdir") {
			tc.image += "-chdir"
		}
		tc.name = image + "-" + tc.name
	}
	return cases
}

// matrix is a run of the cases.
type matrix struct {
	bed     *testbed.Bed
	imgwrap imgwrap
	images  map[string]*matrixImage

	mu   sync.Mutex
	rows map[string]string
}

func newMatrix(t *testing.T, bed *testbed.Bed) *matrix {
	t.Helper()
	m := &matrix{bed: bed, imgwrap: build(t, bed), images: map[string]*matrixImage{}, rows: map[string]string{}}
	for name := range matrixImages {
		m.images[name] = new(matrixImage)
	}
	return m
}

// matrixImage is one of matrixImages, wrapped with each release.
type matrixImage struct {
	mu      sync.Mutex
	source  string // empty until it is there
	wrapped [2]string
}

// image wraps an image when it is first asked for.
func (m *matrix) image(t *testing.T, name string) *matrixImage {
	t.Helper()
	mi := m.images[name]
	mi.mu.Lock()
	defer mi.mu.Unlock()
	if mi.source != "" {
		return mi
	}
	def := matrixImages[name]
	img, err := m.bed.Image(t.Context(), def.recipe)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := config.Config
	c.WorkingDir, c.Cmd = def.workDir, def.cmd
	if img, err = mutate.Config(img, c); err != nil {
		t.Fatal(err)
	}
	if _, err := m.bed.PushImage(t.Context(), img, "matrix/"+name+":1.0"); err != nil {
		t.Fatal(err)
	}
	source := m.bed.Registry() + "/matrix/" + name + ":1.0"
	for i, release := range matrixReleases {
		mi.wrapped[i] = strings.TrimSpace(m.imgwrap.run(t, "--release="+release, "--tag=otel-"+strings.ReplaceAll(release, "/", "-"), source))
	}
	mi.source = source
	return mi
}

// run runs a case unwrapped and with each release.
func (m *matrix) run(t *testing.T, tc matrixCase) {
	image := m.image(t, tc.image)
	original := m.use(t, tc, image.source, unwrapped)
	var results [2]matrixResult
	for i, release := range matrixReleases {
		t.Run(release, func(t *testing.T) {
			u := m.use(t, tc, image.wrapped[i], i)
			if u.answers != original.answers {
				t.Errorf("it answers\n%s\ninstead of\n%s", u.answers, original.answers)
			}
			if u.code != original.code || u.said != original.said {
				t.Errorf("it ended with exit code %d and said\n%s\ninstead of %d and\n%s", u.code, u.said, original.code, original.said)
			}
			if u.traces != tc.traces[i] {
				t.Errorf("a request leaves %q, want %q; all that arrived:\n%s", u.traces, tc.traces[i], u.tree)
			}
			if u.workTraced() != (tc.traces[i] != "") {
				t.Errorf("requests for /work leave %q; all that arrived:\n%s", u.work, u.tree)
			}
			if u.others != tc.others[i] {
				t.Errorf("beside the requests there are %q, want %q; all that arrived:\n%s", u.others, tc.others[i], u.tree)
			}
			if want := max(1, tc.workers); u.workers != want {
				t.Errorf("%d processes answered, want %d", u.workers, want)
			}
			results[i] = u.matrixResult
		})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rows[tc.name] = tc.row(results)
}

// matrixUse is what using an application shows.
type matrixUse struct {
	answers string // or standard output, if it is a script
	said    string // after the signal
	tree    string // all spans
	matrixResult
}

// matrixResult is what the table says about a run.
type matrixResult struct {
	arrival
	workers int
	code    int
}

// asked is a request that was answered.
type asked struct {
	trace string // its ID
	whole bool   // leaves the trace that the case is about
}

// unwrapped stands for an index of matrixReleases.
const unwrapped = -1

// use runs a case's application in an image: starts it, asks it, ends it.
func (m *matrix) use(t *testing.T, tc matrixCase, image string, release int) matrixUse {
	t.Helper()
	receiver := new(otlp.Receiver)
	collector := httptest.NewServer(receiver)
	defer collector.Close()
	options := m.options(t, tc, image)
	if release != unwrapped {
		options.Env = append(options.Env, tc.telemetry(collector.URL)...)
	}
	if tc.script {
		return m.useScript(t, options, receiver)
	}

	worker, err := m.bed.Launch(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	app := worker
	if tc.front != nil {
		options.Args = tc.front
		if app, err = m.bed.Launch(t.Context(), options); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Listening(wait(t)); err != nil {
		t.Fatal(err)
	}

	var u matrixUse
	var requests []asked
	for range 3 {
		trace, answer := ask(t, app, cmp.Or(tc.path, "/"))
		requests = append(requests, asked{trace, true})
		answer, _ = normalize(answer, app.URL())
		if u.answers != "" && answer != u.answers {
			t.Fatalf("it answers %s, then %s", u.answers, answer)
		}
		u.answers = answer
	}
	work, pids := reachWorkers(t, app, max(1, tc.workers))
	requests = append(requests, work...)
	u.workers = len(pids)
	if release != unwrapped && tc.killed {
		tc.waitSpans(t, receiver, requests, release)
	}
	before := len(worker.Output())
	if u.code, err = worker.Stop(wait(t), cmp.Or(tc.stop, syscall.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	u.said = lastWords(worker.Output()[before:])
	if app != worker {
		if _, err := app.Stop(wait(t), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	u.arrival, u.tree = arrived(receiver.Spans(), requests), tree(t, receiver.Spans())
	return u
}

// reachWorkers asks an application until n processes have answered, and returns
// the requests and the processes.
func reachWorkers(t *testing.T, app *testbed.Container, n int) ([]asked, map[string]bool) {
	t.Helper()
	var requests []asked
	pids := map[string]bool{}
	for range 100 {
		// What is asked for keeps a worker busy, and there are more requests at
		// the same time than workers.
		var mu sync.Mutex
		var round errgroup.Group
		for range 2 * n {
			round.Go(func() error {
				trace, answer := ask(t, app, "/work")
				_, answered := normalize(answer, app.URL())
				mu.Lock()
				defer mu.Unlock()
				requests = append(requests, asked{trace, false})
				for _, pid := range answered {
					pids[pid] = true
				}
				return nil
			})
		}
		_ = round.Wait()
		if len(pids) >= n || t.Failed() {
			break
		}
	}
	return requests, pids
}

// waitSpans waits until what the case is about has arrived. If it does not, the
// spans that are there tell what is missing.
func (tc matrixCase) waitSpans(t *testing.T, receiver *otlp.Receiver, requests []asked, release int) {
	t.Helper()
	ctx := wait(t)
	for {
		spans := receiver.Spans()
		a := arrived(spans, requests)
		if a.traces == tc.traces[release] && a.others == tc.others[release] && a.workTraced() == (a.traces != "") {
			return
		}
		if _, err := receiver.Wait(ctx, len(spans)+1, func(otlp.Span) bool { return true }); err != nil {
			return
		}
	}
}

// options are how a case's application is run.
func (m *matrix) options(t *testing.T, tc matrixCase, image string) testbed.RunOptions {
	t.Helper()
	o := testbed.RunOptions{Image: image, Args: tc.command, Env: slices.Clone(tc.env)}
	if tc.database {
		name := strings.ToLower(rand.Text())
		db, err := m.bed.Database(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		o.Env = append(o.Env, fmt.Sprintf("DATABASE=%s %s %s", db.Host, db.Port, db.Name))
	}
	if tc.redis {
		url, err := m.bed.Redis(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		o.Env = append(o.Env, "REDIS="+url)
	}
	return o
}

// telemetry are the variables that send spans to a collector.
func (tc matrixCase) telemetry(collector string) []string {
	// Spans arrive when the application ends, or else not at all.
	delay := "OTEL_BSP_SCHEDULE_DELAY=60000" // milliseconds
	if tc.killed {
		delay = "OTEL_BSP_SCHEDULE_DELAY=100"
	}
	return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + collector, delay}
}

// parentID is the span that all requests have as their parent.
const parentID = "00f067aa0ba902b7"

// fresh asks each time on a connection of its own, lest one worker gets all.
var fresh = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// ask makes a request as part of a new trace, whose ID it returns.
func ask(t *testing.T, app *testbed.Container, path string) (trace string, answer string) {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never returns an error
	trace = hex.EncodeToString(id)
	req, err := http.NewRequestWithContext(wait(t), http.MethodGet, strings.TrimSuffix(app.URL(), "/")+path, nil)
	if err != nil {
		t.Error(err)
		return trace, ""
	}
	req.Header.Set("Traceparent", "00-"+trace+"-"+parentID+"-01")
	resp, err := fresh.Do(req)
	if err != nil {
		t.Errorf("%v\n%s", err, app.Output())
		return trace, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("getting %s: status %s, %v\n%s", path, resp.Status, err, app.Output())
	}
	return trace, string(body)
}

var (
	pidField = regexp.MustCompile(`"pid": ?([0-9]+)`)
	digits   = regexp.MustCompile(`[0-9]+`)
)

// normalize takes from an answer what is another one each time, and returns
// the process IDs in it.
func normalize(answer, url string) (string, []string) {
	var pids []string
	for _, m := range pidField.FindAllStringSubmatch(answer, -1) {
		pids = append(pids, m[1])
	}
	answer = pidField.ReplaceAllString(strings.Join(strings.Fields(answer), ""), `"pid":0`)
	_, port, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/"), ":")
	answer = strings.ReplaceAll(answer, port, "PORT")
	// The launcher starts a program by its path.
	return strings.ReplaceAll(answer, `["/opt/venv/bin/python"`, `["python"`), pids
}

// lastWords are the lines that a server says at its end, without the numbers in
// them.
func lastWords(output string) string {
	return digits.ReplaceAllString(strings.Join(lines(output), "\n"), "N")
}

// lines are the lines of an output in an order that is the same each time,
// whatever that of several processes is. Those about requests are left out: a
// server may say them late.
func lines(output string) []string {
	lines := strings.Split(output, "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool { return line == "" || strings.Contains(line, "GET /") })
	slices.SortFunc(lines, func(a, b string) int {
		return cmp.Or(strings.Compare(digits.ReplaceAllString(a, "N"), digits.ReplaceAllString(b, "N")), strings.Compare(a, b))
	})
	return lines
}

// arrival says what arrived, each as the different shapes of traces.
type arrival struct {
	traces string // of requests for what the case is about
	work   string // of the other requests
	others string // of what did not begin with a request
}

// workTraced tells whether all the other requests left the same trace.
func (a arrival) workTraced() bool { return a.work != "" && !strings.Contains(a.work, ";") }

// arrived tells the traces apart.
func arrived(spans []otlp.Span, requests []asked) arrival {
	byID := map[string][]otlp.Span{}
	for _, s := range spans {
		byID[s.TraceID] = append(byID[s.TraceID], s)
	}
	traces, work, others := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, r := range requests {
		shape := shapeOf(byID[r.trace])
		delete(byID, r.trace)
		if r.whole {
			traces[shape] = true
		} else {
			work[shape] = true
		}
	}
	for _, spans := range byID {
		others[shapeOf(spans)] = true
	}
	return arrival{shapes(traces), shapes(work), shapes(others)}
}

func tree(t *testing.T, spans []otlp.Span) string {
	t.Helper()
	var b strings.Builder
	if err := otlp.WriteTree(&b, spans); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func shapes(set map[string]bool) string {
	return strings.Join(slices.Sorted(maps.Keys(set)), "; ")
}

// shapeOf tells what spans a trace has, each as its library and kind, and what
// is below what. Internal spans are left out, and of several alike that call
// nobody, as queries of a database are, all but one.
func shapeOf(spans []otlp.Span) string {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b otlp.Span) int { return a.Start.Compare(b.Start) })
	known := map[string]bool{}
	for _, s := range spans {
		known[s.ID] = true
	}
	var below func(parent string) []string
	node := func(s otlp.Span) []string {
		children := below(s.ID)
		if s.Kind == "INTERNAL" {
			return children
		}
		name := strings.TrimPrefix(s.Scope, "opentelemetry.instrumentation.") + " " + strings.ToLower(s.Kind)
		switch len(children) {
		case 0:
			return []string{name}
		case 1:
			return []string{name + " → " + children[0]}
		}
		return []string{name + " → (" + strings.Join(children, ", ") + ")"}
	}
	below = func(parent string) []string {
		var nodes []string
		for _, s := range spans {
			if s.ParentID == parent && s.ID != parent {
				for _, n := range node(s) {
					if strings.Contains(n, "→") || !slices.Contains(nodes, n) {
						nodes = append(nodes, n)
					}
				}
			}
		}
		return nodes
	}
	var roots []string
	for _, s := range spans {
		if !known[s.ParentID] {
			roots = append(roots, node(s)...)
		}
	}
	return strings.Join(roots, ", ")
}

// useScript runs a program that ends by itself.
func (m *matrix) useScript(t *testing.T, o testbed.RunOptions, receiver *otlp.Receiver) matrixUse {
	t.Helper()
	var mu sync.Mutex
	parents := map[string]string{} // of each path that was asked for
	pids := map[string]bool{}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		parents[r.URL.Path] = r.Header.Get("Traceparent")
		pids[r.URL.Query().Get("pid")] = true
		fmt.Fprintf(w, "you asked for %s", r.URL.Path)
	}))
	defer backend.Close()
	o.Env = append(o.Env, "BACKEND="+backend.URL)
	c, err := m.bed.Launch(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var u matrixUse
	if u.code, err = c.Wait(wait(t)); err != nil {
		t.Fatal(err)
	}
	u.answers, u.said, u.workers = c.Stdout(), c.Stderr(), len(pids)
	spans := receiver.Spans()
	u.arrival, u.tree = arrived(spans, nil), tree(t, spans)
	for path, parent := range parents {
		sent := slices.ContainsFunc(spans, func(s otlp.Span) bool {
			return s.Kind == "CLIENT" && strings.HasPrefix(parent, "00-"+s.TraceID+"-"+s.ID+"-")
		})
		if len(spans) > 0 && !sent {
			t.Errorf("%s was asked for with traceparent %q, which is no client span; all that arrived:\n%s", path, parent, u.tree)
		}
	}
	return u
}

// row is the case's part of the table: a row, or two if the releases differ.
func (tc matrixCase) row(results [2]matrixResult) string {
	end := map[syscall.Signal]string{0: "SIGTERM", syscall.SIGINT: "SIGINT"}[tc.stop]
	if tc.script {
		end = "none"
	}
	flushed := "yes"
	if tc.killed {
		flushed = "no"
	}
	line := func(release string, r matrixResult) string {
		return fmt.Sprintf("| %s | `%s` | %s | %s | %s | %d | %s, %d | %s |\n", tc.app, strings.Join(slices.Concat(tc.env, tc.command), " "), release,
			cmp.Or(r.traces, "–"), cmp.Or(r.others, "–"), r.workers, end, r.code, flushed)
	}
	if results[0] == results[1] {
		return line("both", results[0])
	}
	return line(matrixReleases[0], results[0]) + line(matrixReleases[1], results[1])
}

// checkTable holds rows against the table of docs/matrix.md that a test writes,
// or writes it if IMGWRAP_UPDATE is set. An empty row stands for a case that did
// not run: then the table is not written.
func checkTable(t *testing.T, test, head string, rows []string) {
	t.Helper()
	const file = "../../docs/matrix.md"
	update := os.Getenv("IMGWRAP_UPDATE") != ""
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+test+" writes this table: -->\n", "<!-- until here -->\n"
	before, rest, ok := strings.Cut(string(content), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table of %s", file, test)
	}
	for _, row := range rows {
		if !strings.Contains(old, row) && !update {
			t.Errorf("%s lacks (IMGWRAP_UPDATE=1 writes it):\n%s", file, row)
		}
	}
	table := head + strings.Join(rows, "")
	if slices.Contains(rows, "") || t.Failed() || table == old {
		return
	}
	if !update {
		t.Errorf("%s has rows of which there is no case (IMGWRAP_UPDATE=1 writes it)", file)
		return
	}
	if err := os.WriteFile(file, []byte(before+begin+table+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
