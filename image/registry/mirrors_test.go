package registry

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
)

// setMirrors writes the environment's registries.conf.
func setMirrors(t *testing.T, conf string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "registries.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONTAINERS_REGISTRIES_CONF", file)
}

func TestPlaces(t *testing.T) {
	setMirrors(t, `
unqualified-search-registries = ["docker.io"]
[aliases]
"app" = "host.test/app"
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "hub.test/proxy"
[[registry.mirror]]
location = "digests.test"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "tags.test"
pull-from-mirror = "tag-only"
[[registry]]
location = "host.test/team"
[[registry.mirror]]
location = "mirror.test:5000/x"
[[registry]]
location = "host.test"
mirror-by-digest-only = true
[[registry.mirror]]
location = "other.test"
[[registry]]
prefix = "*.wild.test"
[[registry.mirror]]
location = "tame.test"
[[registry]]
prefix = "old.test/a"
location = "new.test/b"
`)
	c := New(Options{})
	digest := "@sha256:" + strings.Repeat("0", 64)
	for ref, want := range map[string][]string{
		"app":                        {"hub.test/proxy/library/app:latest", "tags.test/library/app:latest", "index.docker.io/library/app:latest"},
		"team/app" + digest:          {"hub.test/proxy/team/app" + digest, "digests.test/team/app" + digest, "index.docker.io/team/app" + digest},
		"host.test/team/app:1":       {"mirror.test:5000/x/app:1", "host.test/team/app:1"},
		"host.test/teams/app:1":      {"host.test/teams/app:1"},
		"host.test/teams/a" + digest: {"other.test/teams/a" + digest, "host.test/teams/a" + digest},
		"host.test:5000/team/app:1":  {"host.test:5000/team/app:1"},
		"a.b.wild.test/app:1":        {"tame.test/app:1", "a.b.wild.test/app:1"},
		"wild.test/app:1":            {"wild.test/app:1"},
		"old.test/a/app:1":           {"new.test/b/app:1"},
		"quay.test/app:1":            {"quay.test/app:1"},
	} {
		r, err := name.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		places, err := c.places(r)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range places {
			got = append(got, p.Name())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", ref, got, want)
		}
	}
}

func TestMirrorFiles(t *testing.T) {
	home := t.TempDir()
	t.Setenv("CONTAINERS_REGISTRIES_CONF", "")
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	dir := filepath.Join(home, ".config", "containers")
	if err := os.MkdirAll(filepath.Join(dir, "registries.conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for file, location := range map[string]string{"registries.conf": "a.test", "registries.conf.d/1.conf": "b.test"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte("[[registry]]\nlocation = \""+location+"\""), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found, err := readMirrors()
	var locations []string
	for _, m := range found {
		locations = append(locations, m.Location)
	}
	if err != nil || !slices.Contains(locations, "a.test") || !slices.Contains(locations, "b.test") {
		t.Errorf("%v, %v", locations, err)
	}
}

// What a mirror has is read there, all of it; what it has not, at the registry.
func TestMirror(t *testing.T) {
	origin, mirror := newServer(t), newServer(t)
	setMirrors(t, "[[registry]]\nlocation = \""+origin.host()+"\"\n[[registry.mirror]]\nlocation = \""+mirror.host()+"/proxy\"\n")
	mirror.putImage(t, "proxy/app:1")
	origin.putImage(t, "app:2")

	src := find(t, origin.client(Options{}), origin.host()+"/app:1")
	if wantWhole(t, src); src.Reference.Repository() != origin.host()+"/app" {
		t.Errorf("it is of %s", src.Reference.Repository())
	}
	wantRequests(t, origin, map[string]int{})
	mirror.forget()

	wantWhole(t, find(t, origin.client(Options{}), origin.host()+"/app:2"))
	wantRequests(t, mirror, map[string]int{"GET ping": 1, "GET manifests": 1})

	_, err := origin.client(Options{}).Find(t.Context(), origin.host()+"/app:3")
	wantError(t, err, "opening "+origin.host()+"/app:3: "+origin.host()+" has no such image", "check the name")

	// Pushing is to the registry, which has none of the layers yet.
	report, err := origin.client(Options{}).Write(t.Context(), reference(t, New(Options{}), origin.host()+"/app:4"), src, Tree{Root: src.Root})
	if err != nil || report.Uploaded.Blobs != sourceLayers+1 || !origin.tagged("app:4") {
		t.Errorf("%+v, %v", report, err)
	}

	mirror.Close()
	wantWhole(t, find(t, origin.client(Options{}), origin.host()+"/app:2"))

	setMirrors(t, "[[registry]]\nlocation = 1")
	_, err = origin.client(Options{}).Find(t.Context(), origin.host()+"/app:2")
	wantError(t, err, "registries.conf: toml: ", "")
}
