package catalog

import (
	"regexp"
	"slices"
	"testing"
	"testing/fstest"
)

// wheelOf takes the name of a wheel of native.json apart: version, minor and
// architecture.
var wheelOf = regexp.MustCompile(`^protobuf-([0-9.]+)-cp3([0-9]+)-abi3-manylinux2014_(x86_64|aarch64)\.whl$`)

func TestNatives(t *testing.T) {
	architectures := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}
	layers := make(map[string]string)
	for _, r := range loadAll(t) {
		protobuf := ""
		for _, d := range r.Distributions {
			if d.Name == "protobuf" {
				protobuf = d.Version
			}
		}
		// Up to 3.20 protobuf has no native code of the stable ABI.
		if wanted := mustVersion(t, protobuf).Compare(mustVersion(t, "4")) > 0; wanted != (len(r.Natives) == len(architectures)) {
			t.Errorf("%s with protobuf %s has native code for %d architectures", r, protobuf, len(r.Natives))
		}
		if n, ok := r.Native("s390x"); ok {
			t.Errorf("%s has %v for an unknown architecture", r, n)
		}
		for arch := range r.Natives {
			n, ok := r.Native(arch)
			if !ok {
				t.Errorf("%s has no layer for %s: run layer/bundle/record", r, arch)
			}
			checkLayer(t, n.Layer)
			parts := wheelOf.FindStringSubmatch(n.Wheel)
			if parts == nil || parts[1] != protobuf || parts[3] != architectures[arch] {
				t.Errorf("%s with protobuf %s has %s for %s", r, protobuf, n.Wheel, arch)
				continue
			}
			if lowest := "3." + parts[2]; mustVersion(t, n.Python.Min).Compare(mustVersion(t, lowest)) < 0 {
				t.Errorf("%s is for Python %s and later, not from %s on", n.Wheel, lowest, n.Python.Min)
			}
			if mustVersion(t, protobuf).Compare(mustVersion(t, "5.29")) < 0 && n.Serves("glibc", "3.14") {
				t.Errorf("%s fails on Python 3.14, without going on in Python", n.Wheel)
			}
			if n.Serves("musl", n.Python.Max) || n.Serves("", n.Python.Max) || !n.Serves("glibc", n.Python.Max) {
				t.Errorf("%s is for glibc alone", n.Wheel)
			}
			if other, ok := layers[n.Layer.Digest]; ok {
				t.Errorf("%s and %s for %s have one layer", r, other, arch)
			}
			layers[n.Layer.Digest] = r.String()
		}
	}
}

func TestReadNatives(t *testing.T) {
	c, err := Read(fstest.MapFS{
		"releases/1.9.0_0.30b0.json": {Data: []byte(`{"version": "1.9.0", "contrib": "0.30b0",
			"natives": {"amd64": {"layer": {"digest": "sha256:1"}}, "riscv64": {"layer": {"digest": "sha256:2"}}},
			"distributions": [{"name": "protobuf", "version": "4.0"}]}`)},
		"releases/1.8.0_0.29b0.json": {Data: []byte(`{"version": "1.8.0", "contrib": "0.29b0",
			"natives": {"amd64": {"layer": {"digest": "sha256:1"}}},
			"distributions": [{"name": "protobuf", "version": "4.1"}]}`)},
		provenFile: {Data: []byte("[]")},
		nativeFile: {Data: []byte(`{"4.0": {
			"amd64": {"wheel": "a.whl", "python": {"min": "3.8", "max": "3.13"}, "libc": "glibc"},
			"arm64": {"wheel": "b.whl"}}}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	newer, err := c.Find("1.9.0")
	if err != nil {
		t.Fatal(err)
	}
	want := Native{Wheel: "a.whl", Libc: "glibc", Python: Python{"3.8", "3.13"}, Layer: Layer{Digest: "sha256:1"}}
	if n, ok := newer.Native("amd64"); !ok || n != want {
		t.Errorf("%+v, want %+v", n, want)
	}
	// Neither one that is yet to be recorded nor one that was never proven.
	for _, arch := range []string{"arm64", "riscv64"} {
		if n, ok := newer.Native(arch); ok {
			t.Errorf("%s: %+v, want none", arch, n)
		}
	}
	if newer.Natives["arm64"].Wheel != "b.whl" {
		t.Errorf("%+v, want the wheel that is yet to be recorded", newer.Natives)
	}
	older, err := c.Find("1.8.0")
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := older.Native("amd64"); ok {
		t.Errorf("another version of protobuf has %+v", n)
	}
}

func TestPythonRange(t *testing.T) {
	p := Python{"3.9", "3.13"}
	for version, want := range map[string]bool{
		"3.8": false, "3.8.20": false, "3.9": true, "3.9.0": true, "3.10.2": true, "3.13.9": true, "3.14": false,
		"2.7": false, "4.0": false, "": false, "three": false,
	} {
		if got := p.Contains(version); got != want {
			t.Errorf("%q: %t", version, got)
		}
	}
	if got := (Python{"3.9", "3.11"}).Minors(); !slices.Equal(got, []string{"3.9", "3.10", "3.11"}) {
		t.Errorf("minors %q", got)
	}
	for _, p := range []Python{{}, {"3.9", ""}, {"2.7", "3.9"}} {
		if got := p.Minors(); got != nil {
			t.Errorf("%+v: minors %q", p, got)
		}
	}
}
