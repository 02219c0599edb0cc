// Package catalog holds the OpenTelemetry releases that imgwrap can add to an
// image: for each, the wheels to the byte, what they require, and what each
// instrumentation instruments.
//
// The releases are JSON files, one each, and what was found out by running them
// is in proven.json. Nothing in these is written by hand. In the root of the
// repository
//
//	layer/catalog/generate/generate.py   locks the releases from the package index
//	go run ./layer/bundle/record         adds the layers they build to
//	layer/catalog/generate/prove.py      runs them
//	go generate ./layer/catalog          writes catalog.bin, which the program embeds
package catalog

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/layer/pep440"
)

// Catalog is the releases there are.
type Catalog struct {
	Releases []*Release // newest first
}

// Release is one release of OpenTelemetry Python, locked.
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
}

// Load returns the catalog that is embedded in the program. Its lists are
// shared between releases: they are to be read only.
func Load() (*Catalog, error) {
	return unpack(packed)
}

// Read reads a catalog from its JSON files: those in the folder releases, and
// proven.json. Trials of other bytes than a release now has are left out.
func Read(fsys fs.FS) (*Catalog, error) {
	names, err := fs.Glob(fsys, "releases/*.json")
	if err != nil {
		return nil, err
	}
	catalog := &Catalog{}
	versions := make(map[*Release]pep440.Version)
	for _, name := range names {
		release, err := readRelease(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("reading %s of the catalog: %w", path.Base(name), err)
		}
		if versions[release], err = pep440.Parse(release.Version); err != nil {
			return nil, fmt.Errorf("reading %s of the catalog: %w", path.Base(name), err)
		}
		catalog.Releases = append(catalog.Releases, release)
	}
	slices.SortFunc(catalog.Releases, func(a, b *Release) int {
		return versions[b].Compare(versions[a])
	})
	proofs, err := readProofs(fsys)
	if err != nil {
		return nil, fmt.Errorf("reading %s of the catalog: %w", provenFile, err)
	}
	for _, r := range catalog.Releases {
		for _, p := range proofs {
			if p.Release == r.Version && p.DiffID == r.Layer.DiffID {
				r.Trials = p.Trials
			}
		}
	}
	return catalog, nil
}

const provenFile = "proven.json"

// proof is a release's entry in proven.json.
type proof struct {
	Release string  `json:"release"`
	DiffID  string  `json:"diff_id"` // of the bundle layer that was run
	Trials  []Trial `json:"trials"`
}

func readProofs(fsys fs.FS) ([]proof, error) {
	data, err := fs.ReadFile(fsys, provenFile)
	if err != nil {
		return nil, err
	}
	var proofs []proof
	err = json.Unmarshal(data, &proofs)
	return proofs, err
}

func readRelease(fsys fs.FS, name string) (*Release, error) {
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	release := &Release{}
	if err := json.Unmarshal(data, release); err != nil {
		return nil, err
	}
	return release, nil
}

// Find returns the release with a name: the version of either train, or both
// as in "1.27.0/0.48b0". If there is none, the error is an *UnknownReleaseError.
func (c *Catalog) Find(name string) (*Release, error) {
	for _, release := range c.Releases {
		if name == release.Version || name == release.Contrib || name == release.String() {
			return release, nil
		}
	}
	err := &UnknownReleaseError{Name: name}
	for _, release := range c.Releases {
		err.Known = append(err.Known, release.String())
	}
	return nil, err
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
