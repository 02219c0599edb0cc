// Command record builds the bundle layer and the native layers of every release
// in the catalog and writes their digests and sizes into the release's JSON
// file, so that imgwrap knows them without building. Run it in the root of the
// repository after the generators of the catalog, or when a new version of the
// compression library gives other bytes:
//
//	go run ./layer/bundle/record
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/wheel"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	cacheDir := flag.String("cache-dir", "", "keep the wheels in this `directory` (default: a temporary one)")
	dir := flag.String("catalog", "layer/catalog", "`directory` of the catalog's files")
	flag.Parse()
	if err := run(ctx, *cacheDir, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cacheDir, catalogDir string) error {
	if cacheDir == "" {
		dir, err := os.MkdirTemp("", "imgwrap-record-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		cacheDir = dir
	}
	c, err := catalog.Read(os.DirFS(catalogDir))
	if err != nil {
		return err
	}
	builder := &bundle.Builder{Wheels: &wheel.Fetcher{CacheDir: cacheDir}}
	for r, err := range c.Releases() {
		if err != nil {
			return err
		}
		l, err := builder.Build(ctx, r)
		if err != nil {
			return err
		}
		natives := make(map[string]layer.Info)
		for arch := range r.Natives {
			native, err := builder.BuildNative(ctx, r, arch)
			if err != nil {
				return err
			}
			natives[arch] = native.Info()
		}
		file := filepath.Join(catalogDir, "releases", r.Version+"_"+r.Contrib+".json")
		changed, err := record(file, l.Info(), natives)
		if err != nil {
			return err
		}
		fmt.Println(r, l.Info().Digest, l.Info().Size, "changed:", changed)
	}
	return nil
}

// record replaces the fields "layer" and "natives" of a release's file, each a
// line of it, and nothing else.
func record(file string, bundle layer.Info, natives map[string]layer.Info) (changed bool, err error) {
	old, err := os.ReadFile(file)
	if err != nil {
		return false, err
	}
	var members []string
	for _, arch := range slices.Sorted(maps.Keys(natives)) {
		members = append(members, fmt.Sprintf(`%q: {"layer": %s}`, arch, render(natives[arch])))
	}
	edited := old
	for name, value := range map[string]string{
		"layer":   render(bundle),
		"natives": "{" + strings.Join(members, ", ") + "}",
	} {
		line := regexp.MustCompile(`(?m)^  "` + name + `": \{.*\},$`)
		if n := len(line.FindAll(old, 2)); n != 1 {
			return false, fmt.Errorf("%s: %d lines with the field %q, expected one", file, n, name)
		}
		edited = line.ReplaceAllLiteral(edited, fmt.Appendf(nil, "  %q: %s,", name, value))
	}
	if bytes.Equal(old, edited) {
		return false, nil
	}
	return true, os.WriteFile(file, edited, 0o644)
}

func render(l layer.Info) string {
	return fmt.Sprintf(`{"digest": %q, "diff_id": %q, "size": %d, "unpacked": %d, "files": %d}`,
		l.Digest, l.DiffID, l.Size, l.Unpacked, l.Files)
}
