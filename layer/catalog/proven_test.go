package catalog

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestProven(t *testing.T) {
	r := &Release{Trials: []Trial{
		{Distribution: "protobuf", Python: "3.9", Worked: []string{"3.20.0", "3.20.3", "4.21.6", "4.25.9"}, Failed: []string{"3.19.6"}},
		{Distribution: "protobuf", Python: "3.10", Worked: []string{"7.34.0", "7.36.2"}},
		{Distribution: "protobuf", Python: "3.12", Worked: []string{"3.20.0"}},
		{Distribution: "protobuf", Python: "3.13", Worked: []string{"3.20.3", "4.21.6", "4.25.9", "7.34.0", "7.36.2"}, Failed: []string{"3.20.0"}},
		{Distribution: "wrapt", Python: "3.9", Worked: []string{"2.0.0", "2.1.0", "2.3.0"}, Failed: []string{"2.2.0"}},
		{Distribution: "wrapt", Python: "3.13", Worked: []string{"2.0.0", "2.1.0", "2.3.0"}},
	}}
	for _, tt := range []struct {
		why, name, version, python string
		want                       bool
	}{
		{"run", "protobuf", "4.21.6", "3.9", true},
		{"run, spelled differently", "protobuf", "v4.21.06", "3.9.18", true},
		{"between two that worked", "protobuf", "4.23.1", "3.11.2", true},
		{"a build of one between", "protobuf", "4.23.1+local", "3.11", true},
		{"a pre-release between", "protobuf", "4.22.0rc1", "3.11", false},
		{"between two majors", "protobuf", "3.21.0", "3.9", false},
		{"between two majors, of the upper one", "protobuf", "4.21.1", "3.9", false},
		{"failed", "protobuf", "3.19.6", "3.9", false},
		{"between one that failed and one that worked", "protobuf", "3.19.9", "3.9", false},
		{"older than all", "protobuf", "3.1.0", "3.9", false},
		{"newer than all", "protobuf", "7.36.3", "3.12", false},
		{"another distribution", "requests", "4.21.6", "3.9", false},
		{"between two Pythons", "protobuf", "3.20.3", "3.11", true},
		{"the highest Python", "protobuf", "3.20.3", "3.13.1", true},
		{"a newer Python than any", "protobuf", "3.20.3", "3.14", false},
		{"an older Python than any", "protobuf", "3.20.3", "3.8", false},
		{"an older Python than those of this version", "protobuf", "7.35.0", "3.9", false},
		{"a version that serves fewer Pythons", "protobuf", "7.35.0", "3.10", true},
		{"failed on the highest Python", "protobuf", "3.20.0", "3.13", false},
		{"worked below it", "protobuf", "3.20.0", "3.12", true},
		{"next to one that worked below it", "protobuf", "3.20.1", "3.9", true},
		{"next to a hole", "wrapt", "2.1.0", "3.9", true},
		{"below a hole", "wrapt", "2.0.5", "3.9", true},
		{"a hole, not run on this Python", "wrapt", "2.2.0", "3.13", false},
		{"in a hole", "wrapt", "2.1.1", "3.9", false},
		{"in a hole, on its other side", "wrapt", "2.2.1", "3.9", false},
		{"no Python", "protobuf", "4.21.6", "", false},
	} {
		t.Run(tt.why, func(t *testing.T) {
			if got := r.Proven(tt.name, mustVersion(t, tt.version), tt.python); got != tt.want {
				t.Errorf("Proven(%s %s, Python %s) = %v, want %v", tt.name, tt.version, tt.python, got, tt.want)
			}
		})
	}
}

// What was run has to be what the catalog has now, or it says nothing.
func TestTrials(t *testing.T) {
	c := mustLoad(t)
	data, err := os.ReadFile(provenFile)
	if err != nil {
		t.Fatal(err)
	}
	var proofs []proof
	if err := json.Unmarshal(data, &proofs); err != nil {
		t.Fatal(err)
	}
	for _, p := range proofs {
		r, err := c.Find(p.Release)
		if err != nil {
			t.Error(err)
			continue
		}
		if len(r.Trials) == 0 {
			t.Errorf("the trials of %s are of a bundle it no longer has: run generate/prove.py", r)
		}
		if mustVersion(t, r.Version).Compare(mustVersion(t, "1.28.0")) < 0 {
			t.Errorf("%s, which enforces its bounds, has trials", r)
		}
		if !slices.IsSortedFunc(r.Trials, func(a, b Trial) int {
			if c := strings.Compare(a.Distribution, b.Distribution); c != 0 {
				return c
			}
			return mustVersion(t, a.Python).Compare(mustVersion(t, b.Python))
		}) {
			t.Errorf("the trials of %s are not sorted", r)
		}
		for _, trial := range r.Trials {
			for _, versions := range [][]string{trial.Worked, trial.Failed} {
				if !slices.IsSortedFunc(versions, func(a, b string) int { return mustVersion(t, a).Compare(mustVersion(t, b)) }) {
					t.Errorf("%s: %s %v is not in order", r, trial.Distribution, versions)
				}
			}
		}
	}
	// The one that matters most: each Python has a release that is known to
	// work with protobuf 4.
	for python, release := range map[string]string{"3.8": "1.33.1", "3.9": "1.41.1", "3.10": "1.45.1", "3.13": "1.45.1"} {
		r, err := c.Find(release)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Proven("protobuf", mustVersion(t, "4.25.5"), python) {
			t.Errorf("%s is not proven with protobuf 4.25.5 on Python %s", r, python)
		}
	}
}
