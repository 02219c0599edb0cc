package catalog

import (
	"os"
	"reflect"
	"testing"
)

func TestPacked(t *testing.T) {
	c, err := Read(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	if string(Pack(c)) != packed {
		t.Fatal("catalog.bin is not what the JSON files pack to: run go generate ./layer/catalog")
	}
	loaded := mustLoad(t)
	for i, want := range c.Releases {
		if got := loaded.Releases[i]; !reflect.DeepEqual(got, want) {
			t.Errorf("packed and unpacked, %s is\n%+v, want\n%+v", want, got, want)
		}
	}
}

// What the program grows by stays small.
func TestPackedSize(t *testing.T) {
	if limit := 1 << 20; len(packed) >= limit {
		t.Errorf("the embedded catalog has %d bytes, want less than %d", len(packed), limit)
	}
}

func TestUnpackDamaged(t *testing.T) {
	small := string(Pack(&Catalog{Releases: []*Release{{
		Version:          "1.0.0",
		Distributions:    []Distribution{{Name: "a", Size: 1 << 40, Requires: []string{"b", "c"}}},
		Instrumentations: []Instrumentation{{Name: "d", Always: true}},
	}}}))
	if _, err := unpack(small); err != nil {
		t.Fatal(err)
	}
	for n := range small {
		if c, err := unpack(small[:n]); err == nil {
			t.Errorf("unpack of the first %d bytes = %+v, want an error", n, c)
		}
	}
	if c, err := unpack(small + "\x00"); err == nil {
		t.Errorf("unpack with a byte more = %+v, want an error", c)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(Pack(&Catalog{}))
	f.Add(Pack(&Catalog{Releases: []*Release{{Version: "1.0.0", Propagators: []string{"b3"}}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := unpack(string(data))
		if err != nil {
			return
		}
		// Numbers can be written in more than one way, so the bytes may differ.
		again, err := unpack(string(Pack(c)))
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("packed again: %+v, %v, want %+v", again, err, c)
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		if _, err := Load(); err != nil {
			b.Fatal(err)
		}
	}
}
