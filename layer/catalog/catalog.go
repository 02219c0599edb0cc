// Package catalog holds the OpenTelemetry releases that imgwrap can add to an
// image: for each, the wheels to the byte, what they require, and what each
// instrumentation instruments.
//
// The releases are JSON files, one each, what was found out by running them is
// in proven.json, what their instrumentations patch in modules.json, and native
// code for them in native.json. Nothing in these is written by hand. In the root
// of the repository
//
//	layer/catalog/generate/generate.py   locks the releases from the package index
//	layer/catalog/generate/native.py     adds native code, and runs it
//	go run ./layer/bundle/record         adds the layers they build to
//	layer/catalog/generate/prove.py      runs them
//	layer/catalog/generate/modules.py    reads what the instrumentations import
package catalog

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/imgwrap/imgwrap/layer/pep440"
)

// Catalog is the releases there are. What they are called is known at once;
// the rest of a release is read when it is first asked for, because most
// commands need few of them. It may be used by several goroutines.
type Catalog struct {
	entries []entry // newest first
}

type entry struct {
	version, contrib string
	read             func() (*Release, error) // the same each time
}

func (e entry) String() string {
	return e.version + "/" + e.contrib
}

// New returns a catalog of these releases, the newest first.
func New(releases ...*Release) *Catalog {
	c := &Catalog{}
	for _, r := range releases {
		c.entries = append(c.entries, entry{r.Version, r.Contrib, func() (*Release, error) { return r, nil }})
	}
	return c
}

// Release is one release of OpenTelemetry Python, locked. A catalog hands out
// the same one each time: it is to be read only.
//
// Upstream numbers two trains: the stable one of the API, SDK and exporters,
// and the beta one of the distro and the instrumentations. A release is a pair
// that was published together.
type Release struct {
	Version string `json:"version"` // of the stable train, e.g. "1.27.0"
	Contrib string `json:"contrib"` // of the beta train, e.g. "0.48b0"
	Python  Python `json:"python"`

	// Layer is the bundle layer that the distributions build to, on any
	// machine. It is zero until it has been recorded.
	Layer Layer `json:"layer"`

	// Natives is protobuf's native code by architecture; see [Release.Native].
	// In the release's file there are only the layers.
	Natives map[string]Native `json:"natives,omitempty"`

	// Distributions is the lock, sorted by name: one fixed set of universal
	// wheels, closed under their requirements on every Python served. psutil
	// alone is left out: it has no universal wheel, and what asks for it is
	// only of use to an app that ships it.
	Distributions []Distribution `json:"distributions"`

	Instrumentations []Instrumentation `json:"instrumentations"` // sorted by name

	// The names that OTEL_PROPAGATORS, OTEL_TRACES_EXPORTER,
	// OTEL_METRICS_EXPORTER and OTEL_LOGS_EXPORTER may take: entry points of
	// the distributions, sorted. The specification's own words "none", and
	// "otlp" for the exporter that OTEL_EXPORTER_OTLP_PROTOCOL chooses, are
	// understood by the SDK and not among them.
	Propagators      []string `json:"propagators"`
	TracesExporters  []string `json:"traces_exporters"`
	MetricsExporters []string `json:"metrics_exporters"`
	LogsExporters    []string `json:"logs_exporters"`

	// Environment is the OTEL_* variables for which upstream's
	// opentelemetry-instrument has an option, in the order of its help (which
	// groups them by distribution; here the API comes first).
	Environment []string `json:"environment"`

	// Trials is what was run of the release with packages that its bounds
	// refuse, sorted by distribution and Python; see [Release.Proven]. Only
	// releases since 1.28.0 have any: before, OpenTelemetry enforces its
	// bounds when it starts.
	Trials []Trial `json:"-"`
}

// Python is the range of Python minors that a release serves, both included.
type Python struct {
	Min string `json:"min"` // e.g. "3.8"
	Max string `json:"max"` // e.g. "3.14": the newest one tried; upstream sets no bound
}

// String returns the range in words, "3.8 to 3.14".
func (p Python) String() string { return p.Min + " to " + p.Max }

// Minors lists the minors in the range, all of Python 3.
func (p Python) Minors() []string {
	lowest, err := strconv.Atoi(strings.TrimPrefix(p.Min, "3."))
	if err != nil {
		return nil
	}
	highest, err := strconv.Atoi(strings.TrimPrefix(p.Max, "3."))
	if err != nil {
		return nil
	}
	var minors []string
	for minor := lowest; minor <= highest; minor++ {
		minors = append(minors, "3."+strconv.Itoa(minor))
	}
	return minors
}

// Contains says whether a version, "3.11" or "3.11.2", is of a minor in the range.
func (p Python) Contains(version string) bool {
	return slices.Contains(p.Minors(), minorOf(version))
}

// Layer identifies a layer and says how large it is.
type Layer struct {
	Digest   string `json:"digest"`   // sha256:… of the compressed blob
	DiffID   string `json:"diff_id"`  // sha256:… of the tar archive
	Size     int64  `json:"size"`     // bytes of the compressed blob
	Unpacked int64  `json:"unpacked"` // bytes of the files in it
	Files    int    `json:"files"`
}

// Distribution is one wheel of a lock.
type Distribution struct {
	Name           string   `json:"name"` // normalised (PEP 503)
	Version        string   `json:"version"`
	Wheel          string   `json:"wheel"`           // file name on the index
	SHA256         string   `json:"sha256"`          // of the wheel, in hex
	Size           int64    `json:"size"`            // of the wheel, in bytes
	RequiresPython string   `json:"requires_python"` // as in METADATA
	Requires       []string `json:"requires"`        // every Requires-Dist of METADATA, as written
}

// Instrumentation is an entry point of the group opentelemetry_instrumentor.
type Instrumentation struct {
	Name         string `json:"name"`         // as OTEL_PYTHON_DISABLED_INSTRUMENTATIONS takes it
	Distribution string `json:"distribution"` // of the release, which may bring several
	EntryPoint   string `json:"entry_point"`  // module:class

	// Libraries is the rows of upstream's bootstrap table that select the
	// distribution, any one of them: "flask >= 1.0, < 3.0". The row that has
	// pydantic select Tortoise ORM's instrumentation is left out as false.
	Libraries []string `json:"libraries"`

	// What the instrumentation itself checks when it starts: all of
	// Instruments (the extra "instruments" of the distribution), or one of
	// InstrumentsAny ("instruments-any").
	Instruments    []string `json:"instruments"`
	InstrumentsAny []string `json:"instruments_any"`

	// Always tells that upstream's bootstrap selects the distribution
	// whatever is installed.
	Always bool `json:"always"`

	// Modules are those that the instrumentation patches: nothing is lost if
	// it is loaded when the first of them has been imported. If there are none,
	// it has to be loaded at start. They are the same in all releases.
	Modules []string `json:"-"`
}

//go:embed releases/*.json proven.json modules.json native.json
var embedded embed.FS

// Load returns the catalog that is embedded in the program.
func Load() (*Catalog, error) {
	return Read(embedded)
}

// Read returns the catalog of a folder's JSON files: those in the folder
// releases, each named by both its versions, such as 1.27.0_0.48b0.json, and
// proven.json, modules.json and native.json. A file is read when its release is
// first asked for. Trials of other bytes than a release now has are left out.
func Read(fsys fs.FS) (*Catalog, error) {
	names, err := fs.Glob(fsys, "releases/*.json")
	if err != nil {
		return nil, err
	}
	type file struct {
		entry
		order pep440.Version
	}
	shared := common{
		proofs:  once[[]proof](fsys, provenFile),
		modules: once[map[string][]string](fsys, modulesFile),
		natives: once[map[string]map[string]Native](fsys, nativeFile),
	}
	var files []file
	for _, name := range names {
		version, contrib, _ := strings.Cut(strings.TrimSuffix(path.Base(name), ".json"), "_")
		f := file{entry: entry{version: version, contrib: contrib}}
		if f.order, err = pep440.Parse(version); err != nil {
			return nil, fmt.Errorf("reading the name of %s of the catalog: %w", path.Base(name), err)
		}
		f.read = sync.OnceValues(func() (*Release, error) {
			r, err := readRelease(fsys, name, shared)
			if err == nil && r.String() != f.String() {
				err = fmt.Errorf("it has the release %s", r)
			}
			if err != nil {
				return nil, fmt.Errorf("reading %s of the catalog: %w", path.Base(name), err)
			}
			return r, nil
		})
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b file) int { return b.order.Compare(a.order) })
	c := &Catalog{}
	for _, f := range files {
		c.entries = append(c.entries, f.entry)
	}
	return c, nil
}

const (
	provenFile  = "proven.json"
	modulesFile = "modules.json"
	nativeFile  = "native.json"
)

// proof is a release's entry in proven.json.
type proof struct {
	Release string  `json:"release"`
	DiffID  string  `json:"diff_id"` // of the bundle layer that was run
	Trials  []Trial `json:"trials"`
}

// common is the files with something about several releases, each read when the
// first release needs it.
type common struct {
	proofs  func() ([]proof, error)
	modules func() (map[string][]string, error)          // Instrumentation.Modules by its name
	natives func() (map[string]map[string]Native, error) // by version of protobuf and architecture; without layers
}

// once returns a function that reads a JSON file when it is first called.
func once[T any](fsys fs.FS, name string) func() (T, error) {
	return sync.OnceValues(func() (content T, err error) {
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return content, err
		}
		if err := json.Unmarshal(data, &content); err != nil {
			return content, fmt.Errorf("reading %s: %w", name, err)
		}
		return content, nil
	})
}

func readRelease(fsys fs.FS, name string, shared common) (*Release, error) {
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	r := &Release{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, err
	}
	proven, err := shared.proofs()
	if err != nil {
		return nil, err
	}
	for _, p := range proven {
		if p.Release == r.Version && p.DiffID == r.Layer.DiffID {
			r.Trials = p.Trials
		}
	}
	for i := range r.Instrumentations {
		known, err := shared.modules()
		if err != nil {
			return nil, err
		}
		in := &r.Instrumentations[i]
		found := false
		if in.Modules, found = known[in.Name]; !found {
			return nil, fmt.Errorf("%s does not have the instrumentation %s", modulesFile, in.Name)
		}
	}
	return r, r.addNatives(shared.natives)
}

// Releases goes through the releases, newest first, and reads each when it is
// its turn. An error, which names the file, is the last of it.
func (c *Catalog) Releases() iter.Seq2[*Release, error] {
	return func(yield func(*Release, error) bool) {
		for _, e := range c.entries {
			if r, err := e.read(); !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// Find returns the release with a name: the version of either train, or both
// as in "1.27.0/0.48b0". If there is none, the error is an *UnknownReleaseError.
func (c *Catalog) Find(name string) (*Release, error) {
	unknown := &UnknownReleaseError{Name: name}
	for _, e := range c.entries {
		if name == e.version || name == e.contrib || name == e.String() {
			return e.read()
		}
		unknown.Known = append(unknown.Known, e.String())
	}
	return nil, unknown
}

// String returns both versions, e.g. "1.27.0/0.48b0".
func (r *Release) String() string {
	return r.Version + "/" + r.Contrib
}

// UnknownReleaseError says that the catalog has no release of a name.
type UnknownReleaseError struct {
	Name  string
	Known []string // the releases there are, newest first
}

func (e *UnknownReleaseError) Error() string {
	return fmt.Sprintf("no release %q in the catalog, which has %s", e.Name, strings.Join(e.Known, ", "))
}
