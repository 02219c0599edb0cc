package bundle

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/wheel/wheeltest"
)

const nativeWheel = "protobuf-5.1-cp38-abi3-manylinux2014_x86_64.whl"

// nativeRelease is a release with native code, and the wheel that has it.
func nativeRelease(files ...wheeltest.Entry) (*catalog.Release, map[string][]byte) {
	content := wheeltest.Make("protobuf", "5.1", append(files,
		wheeltest.Entry{Name: "google/protobuf/__init__.py", Content: "# protobuf\n"},
		wheeltest.Entry{Name: "protobuf-5.1.dist-info/WHEEL", Content: "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp38-abi3-manylinux2014_x86_64\n"},
	)...)
	r := release(wheels())
	r.Natives = map[string]catalog.Native{"amd64": {Wheel: nativeWheel, SHA256: wheeltest.SHA256(content), Size: int64(len(content))}}
	return r, map[string][]byte{nativeWheel: content}
}

func TestNative(t *testing.T) {
	r, index := nativeRelease(wheeltest.Entry{Name: nativeCode, Content: "\x7fELF"})
	b := builder(t, index)
	if _, err := b.Native(t.Context(), r, "amd64"); err == nil || !strings.Contains(err.Error(), "no native layer for 1.2.0/0.3b0 on amd64") {
		t.Errorf("error %v, want one that says that none is recorded", err)
	}
	built, err := b.BuildNative(t.Context(), r, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, contents(t, built), []string{
		"755 0:0 opt/imgwrap/",
		"755 0:0 opt/imgwrap/otel-1.2.0/",
		"755 0:0 opt/imgwrap/otel-1.2.0/google/",
		"755 0:0 opt/imgwrap/otel-1.2.0/google/_upb/",
		"644 0:0 opt/imgwrap/otel-1.2.0/google/_upb/_message.abi3.so",
	})
	if got := read(t, built, "opt/imgwrap/otel-1.2.0/"+nativeCode); got != "\x7fELF" {
		t.Errorf("content %q", got)
	}

	info := built.Info()
	n := r.Natives["amd64"]
	n.Layer = catalog.Layer{Digest: info.Digest.String(), DiffID: info.DiffID.String(), Size: info.Size, Unpacked: info.Unpacked, Files: info.Files}
	r.Natives["amd64"] = n
	l, err := b.Native(t.Context(), r, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Cache.Stat(info.Digest); err == nil || l.Info() != info {
		t.Errorf("layer %v, %v in the cache; want %v, and nothing built before it is read", l.Info(), err, info)
	}
	if err := validate.Layer(l); err != nil {
		t.Error(err)
	}
	delete(index, nativeWheel)
	if _, err := l.Compressed(); err != nil {
		t.Errorf("error %v, want the layer from the cache", err)
	}
}

func TestNativeRefuses(t *testing.T) {
	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	recorded := catalog.Layer{Digest: digest, DiffID: digest, Size: 1}
	for name, tt := range map[string]struct {
		files []wheeltest.Entry
		arch  string
		edit  func(*catalog.Native)
		want  string
	}{
		"other architecture": {nil, "s390x", func(*catalog.Native) {}, "the catalog has no native layer for 1.2.0/0.3b0 on s390x"},
		"malformed digest":   {nil, "amd64", func(n *catalog.Native) { n.Layer.Digest = "sha256:beef" }, "native layer of 1.2.0/0.3b0 on amd64 in the catalog: digest: "},
		"no code in it":      {nil, "amd64", func(*catalog.Native) {}, "native layer of 1.2.0/0.3b0 on amd64: wheel " + nativeWheel + " has no " + nativeCode},
		"wheel not on the index": {nil, "amd64", func(n *catalog.Native) { n.Wheel = "protobuf-5.2-cp38-abi3-manylinux2014_x86_64.whl" },
			"fetching wheel protobuf-5.2-cp38-abi3-manylinux2014_x86_64.whl"},
		"other digest": {[]wheeltest.Entry{{Name: nativeCode, Content: "\x7fELF"}}, "amd64", func(*catalog.Native) {},
			"building native layer of 1.2.0/0.3b0 on amd64: got layer sha256:"},
	} {
		t.Run(name, func(t *testing.T) {
			r, index := nativeRelease(tt.files...)
			n := r.Natives["amd64"]
			n.Layer = recorded
			tt.edit(&n)
			r.Natives["amd64"] = n
			l, err := builder(t, index).Native(t.Context(), r, tt.arch)
			if err == nil {
				_, err = l.Compressed()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
