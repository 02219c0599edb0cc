package image

import (
	"context"
	"errors"
)

// PromoteFrom copies the images of promoted manifests to others.
func (w *Wrapper) PromoteFrom(ctx context.Context, from, to string, opts PromoteOptions) (*Promotion, error) {
	return nil, errors.New("not yet")
}
