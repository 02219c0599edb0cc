// Command record builds the bundle layer of every release in the catalog and
// writes its digests and sizes into the release's JSON file, so that imgwrap
// knows them without building. Run it in the root of the repository after the
// generator of the catalog, or when a new version of the compression library
// gives other bytes:
//
//	go run ./layer/bundle/record
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"

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
		file := filepath.Join(catalogDir, "releases", r.Version+"_"+r.Contrib+".json")
		changed, err := record(file, l.Info())
		if err != nil {
			return err
		}
		fmt.Println(r, l.Info().Digest, l.Info().Size, "changed:", changed)
	}
	return nil
}

var field = regexp.MustCompile(`"layer": \{[^{}]*\}`)

// record replaces the field "layer" of a release's file, and nothing else.
func record(file string, info layer.Info) (changed bool, err error) {
	old, err := os.ReadFile(file)
	if err != nil {
		return false, err
	}
	if n := len(field.FindAll(old, 2)); n != 1 {
		return false, fmt.Errorf("%s: %d fields \"layer\", expected one", file, n)
	}
	text := fmt.Sprintf(`"layer": {"digest": %q, "diff_id": %q, "size": %d, "unpacked": %d, "files": %d}`,
		info.Digest, info.DiffID, info.Size, info.Unpacked, info.Files)
	edited := field.ReplaceAllLiteral(old, []byte(text))
	if bytes.Equal(old, edited) {
		return false, nil
	}
	return true, os.WriteFile(file, edited, 0o644)
}
