//go:build e2e

package main_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// Why opentelemetry-bootstrap names a distribution that its table does not
// select for the image.
const (
	bundleOnly    = "only the bundle brings the library, for OpenTelemetry itself"
	boundsIgnored = "since 0.49b0 the tool ignores versions: what SpecifierSet.filter returns is always true"
)

// Why a plan does not have what the table selects.
const (
	noTortoise = "the table has a row pydantic → tortoiseorm, and pydantic is not Tortoise ORM; up to 0.48b0 the failing import ends all instrumenting"
	planned    = "" // the plan says why
)

// noEntryPoints are distributions of the table that have no entry point: only
// other instrumentations load them, or AWS Lambda.
var noEntryPoints = []string{"asgi", "aws-lambda", "dbapi", "wsgi"}

// TestE2EBootstrap compares plans with what the release's own tool says inside
// the image, and with the tool's table applied as PEP 440 has it. All
// differences are listed here; there is no other.
func TestE2EBootstrap(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	for _, tc := range []bootstrapCase{
		{
			recipe: "bookworm-libraries", release: "1.17.0",
			tool: map[string]string{"asgi": bundleOnly, "requests": bundleOnly},
			without: map[string]string{
				"system-metrics": planned, // psutil is too new for it
				"tortoiseorm":    noTortoise,
			},
		},
		{
			recipe: "bookworm-libraries", release: "1.27.0",
			tool: map[string]string{"asgi": bundleOnly, "requests": bundleOnly, "urllib3": bundleOnly},
			without: map[string]string{
				"cassandra":      planned, // wants both of its drivers
				"system-metrics": planned,
				"tortoiseorm":    noTortoise,
			},
		},
		{
			recipe: "bookworm-libraries", release: "1.45.1",
			tool: map[string]string{
				"asgi":         bundleOnly,
				"requests":     bundleOnly,
				"urllib3":      bundleOnly,
				"click":        boundsIgnored,
				"fastapi":      boundsIgnored,
				"kafka-python": boundsIgnored,
				"sqlalchemy":   boundsIgnored,
				"structlog":    boundsIgnored,
			},
			without: map[string]string{
				"tortoiseorm": noTortoise,
			},
		},
		{recipe: "bookworm-apt-django", release: "1.27.0"},
		{recipe: "bookworm-apt-django", release: "1.45.1"},
		{recipe: "trixie-venv", release: "1.27.0"},
		{recipe: "trixie-venv", release: "1.45.1"},
	} {
		t.Run(tc.recipe+"/"+tc.release, func(t *testing.T) {
			t.Parallel()
			tc.run(t, bed, w)
		})
	}
}

// bootstrapCase is an image and a release. Distributions are named without
// their prefix opentelemetry-instrumentation-.
type bootstrapCase struct {
	recipe  string
	release string
	tool    map[string]string // what the tool has and its table has not, and why
	without map[string]string // what the table has and the plan has not, and why
}

// bootstrapAnswer is what bootstrapScript prints.
type bootstrapAnswer struct {
	Tool        []string          `json:"tool"`         // distributions that the tool names
	Table       []string          `json:"table"`        // those that its table selects, by pip's PEP 440
	EntryPoints map[string]string `json:"entry_points"` // of instrumentations as the image has them, and their distributions
}

// bootstrapScript runs opentelemetry-bootstrap -a requirements. Its arguments
// are a directory with pip and the bundle.
const bootstrapScript = `
import contextlib, importlib.metadata, io, json, re, sys
pip, bundle = sys.argv[1:]
sys.path.insert(0, pip)
from pip._vendor.packaging.requirements import Requirement
sys.path.remove(pip)

def normal(name):
    return re.sub("[-_.]+", "-", name).lower()

def instrumentation(name):
    return normal(name).split("opentelemetry-instrumentation-")[1]

own = {}
for d in importlib.metadata.distributions():
    own.setdefault(normal(d.metadata["Name"]), d.version)

sys.path.append(bundle)
from opentelemetry.instrumentation import bootstrap, bootstrap_gen

rows = bootstrap_gen.libraries
if isinstance(rows, dict):  # up to 0.41b0
    rows = list(rows.values())
table = list(bootstrap_gen.default_instrumentations)
for row in rows:
    library = Requirement(row["library"])
    version = own.get(normal(library.name))
    if version is not None and library.specifier.contains(version, prereleases=True):
        table.append(row["instrumentation"])

tool = io.StringIO()
sys.argv = ["opentelemetry-bootstrap", "-a", "requirements"]
with contextlib.redirect_stdout(tool):
    bootstrap.run()

entry_points = {}
for d in importlib.metadata.distributions():
    for e in d.entry_points:
        if e.group == "opentelemetry_instrumentor":
            entry_points.setdefault(e.name, instrumentation(d.metadata["Name"]))

print(json.dumps({
    "tool": [instrumentation(Requirement(line).name) for line in tool.getvalue().split()],
    "table": [instrumentation(Requirement(line).name) for line in table],
    "entry_points": entry_points,
}))
`

func (tc bootstrapCase) run(t *testing.T, bed *testbed.Bed, w imgwrap) {
	ic := imageCase{name: "bootstrap/" + tc.recipe + "-" + tc.release, recipe: tc.recipe}
	ic.push(t, bed)
	source := bed.Registry() + "/" + ic.name + ":1.0"
	var p plan
	if err := json.Unmarshal([]byte(w.run(t, "plan", "-o", "json", "--release", tc.release, source)), &p); err != nil {
		t.Fatalf("reading plan: %v", err)
	}
	wrapped := strings.TrimSpace(w.run(t, "--release", tc.release, source))
	answer := bootstrap(t, bed, wrapped, p)

	var names, dists []string
	for _, i := range p.Instrumentations {
		names = append(names, i.Name)
		dists = append(dists, answer.EntryPoints[i.Name])
	}
	slices.Sort(names)
	if loaded := slices.Sorted(maps.Keys(answer.EntryPoints)); !slices.Equal(loaded, names) {
		t.Errorf("the image loads %v, planned are %v", loaded, names)
	}
	if len(answer.Table) < 10 {
		t.Errorf("the table selects only %v", answer.Table)
	}
	check := func(what string, got []string, want map[string]string) {
		t.Helper()
		if want := slices.Sorted(maps.Keys(want)); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	check("named by opentelemetry-bootstrap, not selected by its table", difference(answer.Tool, answer.Table), tc.tool)
	check("selected by the table, not named by opentelemetry-bootstrap", difference(answer.Table, answer.Tool), nil)
	check("planned, not selected by the table", difference(dists, answer.Table), nil)
	check("selected by the table, not planned", difference(answer.Table, slices.Concat(dists, noEntryPoints)), tc.without)
	for dist, why := range tc.without {
		if why == planned && !slices.ContainsFunc(p.LeftOut, func(l leftOut) bool {
			return strings.ReplaceAll(l.Name, "_", "-") == dist && l.Reason != ""
		}) {
			t.Errorf("the plan does not say why %s is left out: %v", dist, p.LeftOut)
		}
	}
}

// difference returns what a has and b has not, sorted.
func difference(a, b []string) []string {
	only := slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
	slices.Sort(only)
	return slices.Compact(only)
}

// bootstrap runs bootstrapScript in an image wrapped as planned.
func bootstrap(t *testing.T, bed *testbed.Bed, ref string, p plan) bootstrapAnswer {
	t.Helper()
	pip, err := bed.Pip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, err := bed.Run(wait(t), testbed.RunOptions{
		Image:      ref,
		Entrypoint: p.Interpreter.Path,
		Args:       []string{"-c", bootstrapScript, "/pip", "/opt/imgwrap/otel-" + p.Release.Version},
		Volumes:    []string{pip + ":/pip:ro"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var answer bootstrapAnswer
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("reading what opentelemetry-bootstrap said: %v\n%s", err, out)
	}
	return answer
}
