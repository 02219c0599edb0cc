package catalog

import (
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/layer/pep440"
)

// Trial is what came of running a release with versions of one distribution
// that the release's core does not accept by its metadata, as the app's own.
// The program generate/prove.py runs them, and tells what a run is.
type Trial struct {
	Distribution string `json:"distribution"` // normalised (PEP 503)
	Python       string `json:"python"`       // minor that it was run on, e.g. "3.10"

	// The versions that were run, in ascending order.
	Worked []string `json:"worked"`
	Failed []string `json:"failed"`
}

// Proven says whether the release is known to work with a version of a
// distribution, given by its normalised name, although the bounds in the
// metadata of the release's core refuse it. python is the interpreter's
// version, "3.11" or "3.11.2".
//
// Known to work is a version that was run, or a final one of the same major
// between two that were run and worked, if none between these failed on any
// Python. That has to hold on two Pythons, one not newer and one not older than
// the app's.
//
// What was run is the core and a few instrumentations, on CPython for Linux,
// with and without the distribution's native code. So an instrumentation that
// refuses the version by its own metadata is not covered. Each distribution
// was run for itself; of several at once, only the oldest that worked of each,
// and the newest of each, were run together.
func (r *Release) Proven(name string, version pep440.Version, python string) bool {
	minor, err := pep440.Parse(minorOf(python))
	if err != nil {
		return false
	}
	var failed []string
	for _, t := range r.Trials {
		if t.Distribution == name {
			failed = append(failed, t.Failed...)
		}
	}
	var older, newer bool
	for _, t := range r.Trials {
		if t.Distribution != name || !t.covers(version, failed) {
			continue
		}
		on, err := pep440.Parse(t.Python)
		if err != nil {
			continue
		}
		older = older || on.Compare(minor) <= 0
		newer = newer || on.Compare(minor) >= 0
	}
	return older && newer
}

func minorOf(python string) string {
	parts := strings.SplitN(python, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

// covers says whether a version worked, or is between two that did. failed are
// the versions that failed on any Python.
func (t Trial) covers(version pep440.Version, failed []string) bool {
	type run struct {
		name    string
		version pep440.Version
		worked  bool
	}
	var below, above run // the nearest; of equals, the one that worked
	for i, name := range slices.Concat(t.Worked, failed) {
		v, err := pep440.Parse(name)
		if err != nil {
			return false
		}
		r := run{name, v, i < len(t.Worked)}
		switch c := v.Compare(version); {
		case c == 0:
			return r.worked
		case c < 0 && (below.name == "" || v.Compare(below.version) > 0):
			below = r
		case c > 0 && (above.name == "" || v.Compare(above.version) < 0):
			above = r
		}
	}
	if !below.worked || !above.worked || version.IsPrerelease() {
		return false
	}
	major, _, _ := strings.Cut(below.name, ".")
	line, err := pep440.ParseSpecifiers("==" + major + ".*")
	return err == nil && line.Contains(version) && line.Contains(above.version)
}
