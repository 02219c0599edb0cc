//go:build e2e

package bundle

import (
	"runtime"
	"testing"

	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/wheel"
)

// TestRecorded builds every release from the package index's wheels. A digest
// that isn't the recorded one means that users would get, for the same release,
// other bytes than those they have pushed and mirrored.
func TestRecorded(t *testing.T) {
	c, err := catalog.Load()
	if err != nil {
		t.Fatal(err)
	}
	b := &Builder{Wheels: &wheel.Fetcher{CacheDir: t.TempDir()}}
	for r, err := range c.Releases() {
		if err != nil {
			t.Fatal(err)
		}
		want, err := Recorded(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, procs := range []int{1, 2} {
			old := runtime.GOMAXPROCS(procs)
			l, err := b.Build(t.Context(), r)
			runtime.GOMAXPROCS(old)
			if err != nil {
				t.Fatal(err)
			}
			if got := l.Info(); got != want {
				t.Errorf("%s with GOMAXPROCS %d:\n%+v, recorded\n%+v", r, procs, got, want)
			}
		}
	}
}
