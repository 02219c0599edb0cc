package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
)

// SelectImages returns the images that Argo CD Image Updater, Flux and Kargo take
// by the policies in files. The registry that the files name is the one at addr.
// A policy is named by its kind, its object and what the object calls the image
// if it has several; an image by the files' registry, its tag and digest. The
// program behind it is built from the module beside Options.Recipes if the cache
// does not have it.
func (b *Bed) SelectImages(ctx context.Context, addr string, files ...string) (map[string]string, error) {
	dir, err := b.module(ctx, "updaters", ".")
	if err != nil {
		return nil, fmt.Errorf("building updaters: %w", err)
	}
	var stdout, stderr bytes.Buffer
	cmd := command(ctx, nil, append([]string{filepath.Join(dir, "updaters"), "-registry=" + addr}, files...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("selecting images: %w\n%s", err, tail(stderr.String()))
	}
	var selected map[string]string
	return selected, json.Unmarshal(stdout.Bytes(), &selected)
}
