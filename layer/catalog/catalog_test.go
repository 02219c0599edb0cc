package catalog

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/imgwrap/imgwrap/layer/pep440"
	"github.com/imgwrap/imgwrap/layer/pep508"
)

// leftToTheApp is never in a lock: it has no universal wheel.
const leftToTheApp = "psutil"

func TestLoad(t *testing.T) {
	releases := loadAll(t)
	var got []string
	for _, r := range releases {
		got = append(got, r.String())
	}
	for _, want := range []string{"1.45.1/0.66b1", "1.41.1/0.62b1", "1.33.1/0.54b1", "1.27.0/0.48b0", "1.17.0/0.38b0"} {
		if !slices.Contains(got, want) {
			t.Errorf("Load() = %v, want it to have %s", got, want)
		}
	}
	for i := 1; i < len(releases); i++ {
		newer, older := mustVersion(t, releases[i-1].Version), mustVersion(t, releases[i].Version)
		if newer.Compare(older) <= 0 {
			t.Errorf("%s is before %s, want the newest first", releases[i-1], releases[i])
		}
	}
}

// Whether a Python is newer than any that was tried is asked of the newest
// release.
func TestNewestPython(t *testing.T) {
	releases := loadAll(t)
	newest := mustVersion(t, releases[0].Python.Max)
	for _, r := range releases {
		if mustVersion(t, r.Python.Max).Compare(newest) > 0 {
			t.Errorf("%s was tried with Python %s, the newest release only with %s", r, r.Python.Max, newest)
		}
	}
}

// What a download of the program grows by stays small.
func TestEmbeddedSize(t *testing.T) {
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	if err := fs.WalkDir(embedded, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := embedded.ReadFile(name)
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if size, limit := compressed.Len(), 1<<20; size >= limit {
		t.Errorf("compressed, the embedded files have %d bytes, want less than %d", size, limit)
	}
}

func TestRead(t *testing.T) {
	const file = "releases/1.9.0_0.30b0.json"
	for _, tt := range []struct{ name, file, content, proven, want string }{
		{"no JSON", file, "<html>", "[]", "1.9.0_0.30b0.json"},
		{"a string for size", file, `{"version": "1.9.0", "contrib": "0.30b0", "distributions": [{"size": "12"}]}`, "[]", "1.9.0_0.30b0.json"},
		{"no version", file, `{"contrib": "0.30b0"}`, "[]", "it has the release /0.30b0"},
		{"another release", file, `{"version": "1.9.0", "contrib": "0.30b1"}`, "[]", "it has the release 1.9.0/0.30b1"},
		{"a name without a version", "releases/new.json", "{}", "[]", "new.json"},
		{"an instrumentation nobody knows", file, `{"version": "1.9.0", "contrib": "0.30b0", "instrumentations": [{"name": "new"}]}`, "[]", "modules.json does not have the instrumentation new"},
		{"no JSON of what was run", file, `{"version": "1.9.0", "contrib": "0.30b0"}`, "", provenFile},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Read(fstest.MapFS{tt.file: {Data: []byte(tt.content)}, provenFile: {Data: []byte(tt.proven)}, modulesFile: {Data: []byte("{}")}})
			if err == nil {
				_, err = c.Find("1.9.0")
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

// A release is read once, and only when it is asked for.
func TestReadLazily(t *testing.T) {
	c, err := Read(fstest.MapFS{
		"releases/1.10.0_0.31b0.json": {Data: []byte(`{"version": "1.10.0", "contrib": "0.31b0", "layer": {"diff_id": "sha256:1"}}`)},
		"releases/1.9.0_0.30b0.json":  {Data: []byte("damaged")},
		"releases/1.8.0_0.29b0.json":  {Data: []byte(`{"version": "1.8.0", "contrib": "0.29b0", "layer": {"diff_id": "sha256:2"}}`)},
		provenFile: {Data: []byte(`[
			{"release": "1.10.0", "diff_id": "sha256:1", "trials": [{"distribution": "protobuf"}]},
			{"release": "1.8.0", "diff_id": "sha256:3", "trials": [{"distribution": "protobuf"}]}]`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	var failure error
	for r, err := range c.Releases() {
		if err != nil {
			failure = err
			continue
		}
		got = append(got, r.String())
	}
	if !slices.Equal(got, []string{"1.10.0/0.31b0"}) || failure == nil || !strings.Contains(failure.Error(), "1.9.0_0.30b0.json") {
		t.Errorf("releases %v, %v, want the one before the damaged file, and an error", got, failure)
	}
	found := make(chan *Release)
	for range 4 {
		go func() {
			r, _ := c.Find("0.31b0")
			found <- r
		}()
	}
	first := <-found
	if first == nil || len(first.Trials) != 1 {
		t.Errorf("release %+v, want its trials", first)
	}
	for range 3 {
		if r := <-found; r != first {
			t.Errorf("release %p, want the one read before, %p", r, first)
		}
	}
	if r, err := c.Find("1.8.0"); err != nil || r.Trials != nil {
		t.Errorf("Find(1.8.0) = %+v, %v, want no trials, which were of other bytes", r, err)
	}
	_, err = c.Find("1.0.0")
	var unknown *UnknownReleaseError
	if !errors.As(err, &unknown) || !slices.Equal(unknown.Known, []string{"1.10.0/0.31b0", "1.9.0/0.30b0", "1.8.0/0.29b0"}) {
		t.Errorf("Find(1.0.0) = %v, want all three names", err)
	}
}

func TestNew(t *testing.T) {
	newer, older := &Release{Version: "1.1.0", Contrib: "0.22b0"}, &Release{Version: "1.0.0", Contrib: "0.21b0"}
	c := New(newer, older)
	var got []*Release
	for r, err := range c.Releases() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r)
	}
	if !slices.Equal(got, []*Release{newer, older}) {
		t.Errorf("releases %v, want %v", got, []*Release{newer, older})
	}
	if r, err := c.Find("0.21b0"); err != nil || r != older {
		t.Errorf("Find(0.21b0) = %v, %v", r, err)
	}
}

// What the commands do that need one release, the newest.
func BenchmarkNewest(b *testing.B) {
	for b.Loop() {
		c, err := Load()
		if err != nil {
			b.Fatal(err)
		}
		for _, err := range c.Releases() {
			if err != nil {
				b.Fatal(err)
			}
			break
		}
	}
}

func TestFind(t *testing.T) {
	c := mustLoad(t)
	for _, name := range []string{"1.17.0", "0.38b0", "1.17.0/0.38b0"} {
		r, err := c.Find(name)
		if err != nil || r.String() != "1.17.0/0.38b0" {
			t.Errorf("Find(%q) = %v, %v", name, r, err)
		}
	}
	for _, name := range []string{"", "1.17", "0.38", "1.17.0/0.48b0", "1.45.2"} {
		_, err := c.Find(name)
		var unknown *UnknownReleaseError
		if !errors.As(err, &unknown) {
			t.Errorf("Find(%q) = %v, want an UnknownReleaseError", name, err)
			continue
		}
		if unknown.Name != name || !strings.Contains(err.Error(), "1.27.0/0.48b0") {
			t.Errorf("Find(%q) = %v, want it to list the releases", name, err)
		}
	}
}

func TestReleases(t *testing.T) {
	for _, r := range loadAll(t) {
		t.Run(r.Version, func(t *testing.T) {
			t.Run("trains", func(t *testing.T) { checkTrains(t, r) })
			t.Run("layer", func(t *testing.T) { checkLayer(t, r.Layer) })
			t.Run("distributions", func(t *testing.T) { checkDistributions(t, r) })
			t.Run("requirements", func(t *testing.T) { checkRequirements(t, r) })
			t.Run("instrumentations", func(t *testing.T) { checkInstrumentations(t, r) })
			t.Run("names", func(t *testing.T) { checkNames(t, r) })
		})
	}
}

// checkTrains holds that the two versions belong together, and that each of
// OpenTelemetry's distributions has one of them.
func checkTrains(t *testing.T, r *Release) {
	// Upstream's numbering since both trains began to be published together.
	var major, minor, patch, beta, betaPatch int
	if _, err := fmt.Sscanf(r.String(), "%d.%d.%d/0.%db%d", &major, &minor, &patch, &beta, &betaPatch); err != nil {
		t.Fatalf("%s: %v", r, err)
	}
	if beta != minor+21 || betaPatch != patch {
		t.Errorf("%s is not a pair of upstream's", r)
	}
	for _, d := range r.Distributions {
		if !strings.HasPrefix(d.Name, "opentelemetry-") || d.Name == "opentelemetry-propagator-aws-xray" {
			continue
		}
		if d.Version != r.Version && d.Version != r.Contrib {
			t.Errorf("%s is at %s", d.Name, d.Version)
		}
	}
}

func checkLayer(t *testing.T, l Layer) {
	if l == (Layer{}) {
		return
	}
	digest := regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	if !digest.MatchString(l.Digest) || !digest.MatchString(l.DiffID) {
		t.Errorf("the digests of %+v are not SHA-256", l)
	}
	if l.Size <= 0 || l.Unpacked < l.Size || l.Files <= 0 {
		t.Errorf("%+v is not a compressed layer", l)
	}
}

func checkDistributions(t *testing.T, r *Release) {
	if !slices.IsSortedFunc(r.Distributions, func(a, b Distribution) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("not sorted by name")
	}
	hash := regexp.MustCompile(`^[0-9a-f]{64}$`)
	seen := make(map[string]string)
	for _, d := range r.Distributions {
		if d.Name != pep508.Normalize(d.Name) {
			t.Errorf("%s is not a normalised name", d.Name)
		}
		if !hash.MatchString(d.SHA256) || d.Size <= 0 {
			t.Errorf("%s has SHA-256 %q and %d bytes", d.Name, d.SHA256, d.Size)
		}
		for _, key := range []string{d.Name, d.Wheel, d.SHA256} {
			if other, ok := seen[key]; ok {
				t.Errorf("%s and %s are both %s", other, d.Name, key)
			}
			seen[key] = d.Name
		}
		// {distribution}-{version}-{python}-none-any.whl (PEP 427), with no build tag.
		parts := strings.Split(d.Wheel, "-")
		if len(parts) != 5 || !slices.Contains(strings.Split(parts[2], "."), "py3") || parts[3] != "none" || parts[4] != "any.whl" {
			t.Errorf("%s is not a universal wheel", d.Wheel)
			continue
		}
		if pep508.Normalize(parts[0]) != d.Name || mustVersion(t, parts[1]).Compare(mustVersion(t, d.Version)) != 0 {
			t.Errorf("%s is not a wheel of %s %s", d.Wheel, d.Name, d.Version)
		}
		served, err := pep440.ParseSpecifiers(d.RequiresPython)
		if err != nil {
			t.Errorf("%s: %v", d.Name, err)
			continue
		}
		for _, python := range []string{r.Python.Min, r.Python.Max} {
			if !served.Contains(mustVersion(t, python+".99")) {
				t.Errorf("%s does not serve Python %s: it asks for %s", d.Name, python, d.RequiresPython)
			}
		}
	}
	if _, ok := seen[leftToTheApp]; ok {
		t.Errorf("%s is in the lock", leftToTheApp)
	}
}

// checkRequirements holds that every requirement is met by the lock itself, on
// the lowest and the highest Python, with the extras that are asked for.
func checkRequirements(t *testing.T, r *Release) {
	versions := make(map[string]pep440.Version)
	required := make(map[string][]pep508.Requirement)
	for _, d := range r.Distributions {
		versions[d.Name] = mustVersion(t, d.Version)
		for _, line := range d.Requires {
			required[d.Name] = append(required[d.Name], mustRequirement(t, line))
		}
	}
	for _, python := range []string{r.Python.Min, r.Python.Max} {
		for _, machine := range []string{"x86_64", "aarch64"} {
			env := pep508.Linux(python, machine)
			extras := make(map[string][]string)
			for _, requirements := range required {
				for _, q := range requirements {
					if q.Applies(env) {
						extras[pep508.Normalize(q.Name)] = append(extras[pep508.Normalize(q.Name)], q.Extras...)
					}
				}
			}
			for name, requirements := range required {
				for _, q := range requirements {
					wanted := pep508.Normalize(q.Name)
					if !q.Applies(env, extras[name]...) || wanted == leftToTheApp {
						continue
					}
					if version, ok := versions[wanted]; !ok {
						t.Errorf("%s on Python %s asks for %s, which is not in the lock", name, python, wanted)
					} else if !q.Specifiers.Contains(version) {
						t.Errorf("%s on Python %s asks for %s%s, the lock has %s", name, python, wanted, q.Specifiers, version)
					}
				}
			}
		}
	}
}

func checkInstrumentations(t *testing.T, r *Release) {
	if !slices.IsSortedFunc(r.Instrumentations, func(a, b Instrumentation) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("not sorted by name")
	}
	locked := make(map[string]bool)
	for _, d := range r.Distributions {
		locked[d.Name] = true
	}
	entryPoint := regexp.MustCompile(`^opentelemetry(\.\w+)+:\w+$`)
	module := regexp.MustCompile(`^\w+(\.\w+)*$`)
	seen := make(map[string]bool)
	for _, i := range r.Instrumentations {
		if seen[i.Name] {
			t.Errorf("%s is there twice", i.Name)
		}
		seen[i.Name] = true
		if !locked[i.Distribution] {
			t.Errorf("%s is of %q, which is not in the lock", i.Name, i.Distribution)
		}
		if !entryPoint.MatchString(i.EntryPoint) {
			t.Errorf("%s has the entry point %q", i.Name, i.EntryPoint)
		}
		if i.Modules == nil {
			t.Errorf("what %s patches is not known", i.Name)
		}
		for _, m := range i.Modules {
			if !module.MatchString(m) {
				t.Errorf("%s patches %q, which is no module", i.Name, m)
			}
		}
		if len(i.Libraries) == 0 && !i.Always {
			t.Errorf("nothing selects %s", i.Name)
		}
		for _, line := range slices.Concat(i.Libraries, i.Instruments, i.InstrumentsAny) {
			if q := mustRequirement(t, line); len(q.Extras) > 0 || q.Marker.String() != "" {
				t.Errorf("%s: %q is more than a name and versions", i.Name, line)
			}
			if i.Name == "tortoiseorm" && slices.Contains(i.Libraries, line) && mustRequirement(t, line).Name == "pydantic" {
				t.Error("pydantic selects tortoiseorm")
			}
		}
	}
	for _, name := range []string{"flask", "django", "requests", "sqlalchemy", "psycopg2", "system_metrics", "urllib", "logging"} {
		if !seen[name] {
			t.Errorf("there is no instrumentation %s", name)
		}
	}
}

func checkNames(t *testing.T, r *Release) {
	for _, list := range []struct {
		what      string
		got, want []string
	}{
		{"propagators", r.Propagators, []string{"b3", "b3multi", "baggage", "jaeger", "ottrace", "tracecontext", "xray"}},
		{"traces exporters", r.TracesExporters, []string{"console", "otlp_proto_http"}},
		{"metrics exporters", r.MetricsExporters, []string{"console"}},
		{"logs exporters", r.LogsExporters, []string{"console"}},
	} {
		if !slices.IsSorted(list.got) {
			t.Errorf("%s are not sorted: %v", list.what, list.got)
		}
		for _, name := range list.want {
			if !slices.Contains(list.got, name) {
				t.Errorf("%s = %v, want %s among them", list.what, list.got, name)
			}
		}
	}
	for _, name := range []string{"OTEL_PROPAGATORS", "OTEL_TRACES_EXPORTER", "OTEL_SERVICE_NAME", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"} {
		if !slices.Contains(r.Environment, name) {
			t.Errorf("the options lack %s", name)
		}
	}
	variable := regexp.MustCompile(`^OTEL_[A-Z0-9_]+$`)
	seen := make(map[string]bool)
	for _, name := range r.Environment {
		if !variable.MatchString(name) {
			t.Errorf("%q is not a variable", name)
		}
		// Upstream's option: argparse would refuse a second one of the name.
		option := strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(name, "OTEL_"), "PYTHON_"))
		if seen[option] {
			t.Errorf("--%s is there twice", option)
		}
		seen[option] = true
	}
}

func mustLoad(t *testing.T) *Catalog {
	t.Helper()
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func loadAll(t *testing.T) []*Release {
	t.Helper()
	var all []*Release
	for r, err := range mustLoad(t).Releases() {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func mustVersion(t *testing.T, s string) pep440.Version {
	t.Helper()
	v, err := pep440.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mustRequirement(t *testing.T, s string) pep508.Requirement {
	t.Helper()
	q, err := pep508.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return q
}
