package bundle

import (
	"context"
	"errors"

	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// Native returns the layer with protobuf's native code for a release and an
// architecture, as in [catalog.Release.Native]. Like that of [Builder.Deferred]
// it is taken from the cache, or built, when it is first read.
func (b *Builder) Native(ctx context.Context, r *catalog.Release, arch string) (*layer.Layer, error) {
	return nil, errors.ErrUnsupported
}
