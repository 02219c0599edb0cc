package catalog

import "maps"

// Native is protobuf's native code (upb) for one architecture. Beside the
// protobuf of a release's bundle, which is the same version in pure Python, it
// makes the export of spans many times faster. Where it can't be loaded,
// protobuf goes on in Python.
type Native struct {
	// The wheel of protobuf that it is taken from.
	Wheel  string `json:"wheel"`  // file name on the index
	SHA256 string `json:"sha256"` // of the wheel, in hex
	Size   int64  `json:"size"`   // of the wheel, in bytes

	// Libc is the C library that it is built for: "glibc".
	Libc string `json:"libc"`
	// Python is the range of minors on which the two were run together and
	// worked, all of them on amd64, for either architecture. That is not all that
	// the wheel's tag promises: upb of protobuf 4 fails on Python 3.14, and
	// protobuf does not go on without it there.
	Python Python `json:"python"`

	// Layer is the layer with nothing but this code, at its place in the
	// bundle.
	Layer Layer `json:"layer"`
}

// Serves says whether the native code is known to work with an interpreter:
// CPython, built for a C library ("glibc" or "musl"), of a version "3.11" or
// "3.11.2".
func (n Native) Serves(libc, python string) bool {
	return libc != "" && libc == n.Libc && n.Python.Contains(python)
}

// Native returns the native code that fits the release's bundle on an
// architecture, "amd64" or "arm64" (OCI image-spec, "platform"), if the catalog
// has any. Whether an interpreter can use it is for [Native.Serves].
func (r *Release) Native(arch string) (Native, bool) {
	n := r.Natives[arch]
	return n, n.Layer != (Layer{})
}

// addNatives takes the native code for the release's protobuf, and leaves out
// layers of any other.
func (r *Release) addNatives(natives func() (map[string]map[string]Native, error)) error {
	recorded := r.Natives
	r.Natives = nil
	for _, d := range r.Distributions {
		if d.Name != "protobuf" {
			continue
		}
		all, err := natives()
		if err != nil {
			return err
		}
		r.Natives = maps.Clone(all[d.Version])
	}
	for arch, n := range r.Natives {
		n.Layer = recorded[arch].Layer
		r.Natives[arch] = n
	}
	return nil
}
