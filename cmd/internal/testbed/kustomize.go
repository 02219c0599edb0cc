package testbed

import (
	"context"
	"fmt"
	"path/filepath"
)

// Kustomize returns the path of kustomize. It is built from the module beside
// Options.Recipes if the cache does not have it.
func (b *Bed) Kustomize(ctx context.Context) (program string, err error) {
	dir, err := b.module(ctx, "kustomize", "tool")
	if err != nil {
		return "", fmt.Errorf("building kustomize: %w", err)
	}
	return filepath.Join(dir, "kustomize"), nil
}
