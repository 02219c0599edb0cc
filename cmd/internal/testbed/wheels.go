package testbed

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Wheels returns a directory with the wheels that a file of a recipe pins, which
// is named as a variant: see [Bed.Image]. They are downloaded if the cache does
// not have them.
func (b *Bed) Wheels(ctx context.Context, recipe string) (string, error) {
	b.building.Lock()
	defer b.building.Unlock()
	suiteName, _, _ := strings.Cut(recipe, "-")
	file := filepath.Join(b.recipes, recipe+".txt")
	pins, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("wheels-%s-%x", strings.ReplaceAll(recipe, "/", "-"), sha256.Sum256(pins))
	dir, err := b.cached(name[:len(name)-48], func(dst string) error {
		fmt.Fprintf(b.log, "downloading wheels for %s\n", recipe)
		return download(ctx, dst, suites[suiteName].python, "-r", file)
	})
	if err != nil {
		return "", fmt.Errorf("downloading wheels for %s: %w", recipe, err)
	}
	return dir, nil
}
