package bundle

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/wheel"
)

// nativeCode is the place of protobuf's native code in its wheels: an extension
// module for every CPython from the one in the wheel's tag on (PEP 384).
const nativeCode = "google/_upb/_message.abi3.so"

// Native returns the layer with protobuf's native code for a release and an
// architecture, as in [catalog.Release.Native]. Like that of [Builder.Deferred]
// it is taken from the cache, or built, when it is first read.
func (b *Builder) Native(ctx context.Context, r *catalog.Release, arch string) (*layer.Layer, error) {
	n, ok := r.Native(arch)
	if !ok {
		return nil, fmt.Errorf("the catalog has no native layer for %s on %s", r, arch)
	}
	info, err := parse(n.Layer)
	if err != nil {
		return nil, fmt.Errorf("native layer of %s on %s in the catalog: %w", r, arch, err)
	}
	return layer.Deferred(info, func() (*layer.Layer, error) {
		return b.recorded(ctx, info, fmt.Sprintf("native layer of %s on %s", r, arch), func() (*layer.Layer, error) {
			return b.BuildNative(ctx, r, arch)
		})
	}), nil
}

// BuildNative makes the layer with protobuf's native code for a release and an
// architecture from the wheel that the catalog has for these, recorded or not,
// and returns it in memory.
func (b *Builder) BuildNative(ctx context.Context, r *catalog.Release, arch string) (*layer.Layer, error) {
	l, err := b.buildNative(ctx, r, arch)
	if err != nil {
		return nil, fmt.Errorf("building native layer of %s on %s: %w", r, arch, err)
	}
	return l, nil
}

func (b *Builder) buildNative(ctx context.Context, r *catalog.Release, arch string) (*layer.Layer, error) {
	n, ok := r.Natives[arch]
	if !ok {
		return nil, errors.New("the catalog has no wheel for it")
	}
	paths, err := b.Wheels.Fetch(ctx, []wheel.Ref{{Name: "protobuf", File: n.Wheel, SHA256: n.SHA256, Size: n.Size}})
	if err != nil {
		return nil, err
	}
	w, err := wheel.OpenNative(paths[n.SHA256], n.Wheel)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	for _, f := range w.Files {
		if f.Path != nativeCode {
			continue
		}
		entries := []layer.Entry{{Path: strings.TrimPrefix(Dir(r), "/") + "/" + f.Path, Open: f.Open, Size: f.Size}}
		return layer.Build(ctx, append(entries, parents(entries)...))
	}
	return nil, fmt.Errorf("wheel %s has no %s", n.Wheel, nativeCode)
}
