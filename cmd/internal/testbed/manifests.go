package testbed

import (
	"context"
	"fmt"
	"path/filepath"
)

// Manifests returns the path of the program that checks Kubernetes manifests. It
// is built from the module beside Options.Recipes if the cache does not have it.
func (b *Bed) Manifests(ctx context.Context) (program string, err error) {
	dir, err := b.module(ctx, "manifests", ".")
	if err != nil {
		return "", fmt.Errorf("building the checker of manifests: %w", err)
	}
	return filepath.Join(dir, "manifests"), nil
}
