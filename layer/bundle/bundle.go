// Package bundle makes the layers that instrument an image.
//
// The bundle layer is one OpenTelemetry release with all its instrumentations.
// It is made of universal wheels, so it fits every image, and its bytes depend
// on nothing but the release. Two others go on top where they fit, and only
// save time: the native layer has protobuf's native code for an architecture,
// the bytecode layer what the bundle compiles to for a Python. The launch layer
// is small and belongs to one image: the command opentelemetry-instrument, the
// loader that Python runs at start, and what was decided about the image.
package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/wheel"
)

// Root is the directory of an image that holds all that is added, except for
// the command.
const Root = "/opt/imgwrap"

// Dir returns the directory that a release's packages are in.
func Dir(r *catalog.Release) string { return Root + "/otel-" + r.Version }

// DistInfo returns the name of a distribution's metadata directory in [Dir].
func DistInfo(d catalog.Distribution) string {
	// The file name of a wheel begins with the name and version as that
	// directory has them (PEP 427).
	name, rest, _ := strings.Cut(d.Wheel, "-")
	version, _, _ := strings.Cut(rest, "-")
	return name + "-" + version + ".dist-info"
}

// Recorded returns what the catalog says of a release's bundle layer. That it
// says nothing is an error: the release isn't complete yet.
func Recorded(r *catalog.Release) (layer.Info, error) {
	if r.Layer == (catalog.Layer{}) {
		return layer.Info{}, fmt.Errorf("the catalog has no bundle layer for %s", r)
	}
	info, err := parse(r.Layer)
	if err != nil {
		return layer.Info{}, fmt.Errorf("bundle layer of %s in the catalog: %w", r, err)
	}
	return info, nil
}

func parse(l catalog.Layer) (layer.Info, error) {
	digest, err := v1.NewHash(l.Digest)
	if err != nil {
		return layer.Info{}, fmt.Errorf("digest: %w", err)
	}
	diffID, err := v1.NewHash(l.DiffID)
	if err != nil {
		return layer.Info{}, fmt.Errorf("diff ID: %w", err)
	}
	return layer.Info{Digest: digest, Size: l.Size, DiffID: diffID, Unpacked: l.Unpacked, Files: l.Files}, nil
}

// Builder makes the layers that are the same for many images, and keeps them.
type Builder struct {
	Cache  *layer.Cache
	Wheels *wheel.Fetcher

	mu sync.Mutex // one build at a time
}

// Bundle returns the bundle layer of a release: from the cache, or else built
// and then cached. It is the layer that the catalog has recorded, or an error.
func (b *Builder) Bundle(ctx context.Context, r *catalog.Release) (*layer.Layer, error) {
	want, err := Recorded(r)
	if err != nil {
		return nil, err
	}
	return b.recorded(ctx, want, "bundle of "+r.String(), func() (*layer.Layer, error) { return b.Build(ctx, r) })
}

// recorded returns the layer that the catalog has recorded, from the cache or
// built.
func (b *Builder) recorded(ctx context.Context, want layer.Info, what string, build func() (*layer.Layer, error)) (*layer.Layer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, err := b.Cache.Layer(want)
	if !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	if l, err = build(); err != nil {
		return nil, err
	}
	if got := l.Info(); got != want {
		return nil, fmt.Errorf("building %s: got layer %s, but the catalog has %s", what, got.Digest, want.Digest)
	}
	return b.Cache.PutLayer(ctx, l)
}

// Deferred returns the bundle layer that the catalog has recorded for a
// release. It is taken from the cache, or built, when it is first read: never,
// where the registry has it.
func (b *Builder) Deferred(ctx context.Context, r *catalog.Release) (*layer.Layer, error) {
	info, err := Recorded(r)
	if err != nil {
		return nil, err
	}
	return layer.Deferred(info, func() (*layer.Layer, error) { return b.Bundle(ctx, r) }), nil
}

// Cached says whether the bundle layer of a release is in the cache.
func (b *Builder) Cached(r *catalog.Release) bool {
	info, err := Recorded(r)
	if err != nil {
		return false
	}
	_, err = b.Cache.Layer(info)
	return err == nil
}

// Build makes the bundle layer of a release from its wheels, whatever the
// cache or the catalog has, and returns it in memory.
func (b *Builder) Build(ctx context.Context, r *catalog.Release) (*layer.Layer, error) {
	l, err := b.build(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("building bundle of %s: %w", r, err)
	}
	return l, nil
}

func (b *Builder) build(ctx context.Context, r *catalog.Release) (*layer.Layer, error) {
	refs := make([]wheel.Ref, len(r.Distributions))
	for i, d := range r.Distributions {
		refs[i] = wheel.Ref{Name: d.Name, File: d.Wheel, SHA256: d.SHA256, Size: d.Size}
	}
	paths, err := b.Wheels.Fetch(ctx, refs)
	if err != nil {
		return nil, err
	}
	wheels := make([]*wheel.Wheel, len(refs))
	for i, d := range r.Distributions {
		w, err := wheel.Open(paths[d.SHA256], d.Wheel)
		if err != nil {
			return nil, err
		}
		defer w.Close()
		if err := checkLock(r, d, w); err != nil {
			return nil, fmt.Errorf("wheel %s is not what the catalog says: %w", d.Wheel, err)
		}
		wheels[i] = w
	}
	entries, err := merge(strings.TrimPrefix(Dir(r), "/"), wheels)
	if err != nil {
		return nil, err
	}
	return layer.Build(ctx, entries)
}

// checkLock compares a wheel with what decisions about an image rest on.
func checkLock(r *catalog.Release, d catalog.Distribution, w *wheel.Wheel) error {
	if w.DistInfo != DistInfo(d) {
		return fmt.Errorf("it has %s", w.DistInfo)
	}
	metadata, err := w.Metadata()
	if err != nil {
		return err
	}
	if requires := metadata["Requires-Dist"]; !slices.Equal(requires, d.Requires) {
		return fmt.Errorf("it requires %q", requires)
	}
	if python := metadata.Get("Requires-Python"); python != d.RequiresPython {
		return fmt.Errorf("it requires Python %q", python)
	}
	points, err := w.EntryPoints()
	if err != nil {
		return err
	}
	listed := make(map[string]string)
	for _, i := range r.Instrumentations {
		if i.Distribution == d.Name {
			listed[i.Name] = i.EntryPoint
		}
	}
	if got := points["opentelemetry_instrumentor"]; !maps.Equal(got, listed) {
		return fmt.Errorf("its instrumentations are %v", got)
	}
	return nil
}

// merge lays the wheels out side by side in dir.
func merge(dir string, wheels []*wheel.Wheel) ([]layer.Entry, error) {
	type owner struct{ wheel, sha256 string }
	owners := make(map[string]owner)
	var entries []layer.Entry
	for _, w := range wheels {
		for _, f := range w.Files {
			name := dir + "/" + f.Path
			if other, ok := owners[name]; ok {
				if other.sha256 != f.SHA256 {
					return nil, fmt.Errorf("%s of %s and %s differ", f.Path, other.wheel, w.Name)
				}
				continue
			}
			owners[name] = owner{w.Name, f.SHA256}
			entries = append(entries, layer.Entry{Path: name, Open: f.Open, Size: f.Size})
		}
	}
	return append(entries, parents(entries)...), nil
}

// parents returns the directories of files below the image's /opt, as a layer
// says of each what it is. /opt itself stays as the image has it.
func parents(files []layer.Entry) []layer.Entry {
	var entries []layer.Entry
	seen := map[string]bool{path.Dir(strings.TrimPrefix(Root, "/")): true}
	for _, f := range files {
		for d := path.Dir(f.Path); !seen[d]; d = path.Dir(d) {
			seen[d] = true
			entries = append(entries, layer.Entry{Path: d, Mode: fs.ModeDir})
		}
	}
	return entries
}
