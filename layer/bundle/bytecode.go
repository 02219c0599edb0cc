package bundle

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// Bytecode returns the layer with a release's bytecode for a Python minor, such
// as "3.11", if [Builder.BuildBytecode] has put it into the cache. If not, the
// error is [fs.ErrNotExist].
func (b *Builder) Bytecode(r *catalog.Release, python string) (*layer.Layer, error) {
	return nil, fmt.Errorf("bytecode of %s for Python %s: %w", r, python, fs.ErrNotExist)
}

// BuildBytecode compiles a release's bundle with an interpreter, which is the
// name or path of a program, puts the layer into the cache, and returns the
// minor that it is for.
func (b *Builder) BuildBytecode(ctx context.Context, r *catalog.Release, interpreter string) (python string, l *layer.Layer, err error) {
	return "", nil, fmt.Errorf("compiling bundle of %s with %s: %w", r, interpreter, fs.ErrNotExist)
}
