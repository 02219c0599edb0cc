// Command imgwrap-frontend is a BuildKit frontend: it builds a Dockerfile and adds
// OpenTelemetry auto-instrumentation to the Python image that it makes.
package main

import (
	"cmp"
	"fmt"
	"os"

	"github.com/moby/buildkit/frontend/gateway/grpcclient"
	"github.com/moby/buildkit/util/appcontext"
	_ "github.com/moby/buildkit/util/grpcutil/encoding/proto" // names that are no UTF-8 come through

	"github.com/imgwrap/imgwrap/image/frontend"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// Set by the linker: imgwrap's version, and the repository of layers that is
// taken unless a build names one.
var version, layers string

func main() {
	c, err := catalog.Load()
	if err == nil {
		f := &frontend.Frontend{Catalog: c, Version: cmp.Or(version, "devel"), Layers: layers}
		err = grpcclient.RunFromEnvironment(appcontext.Context(), f.Build)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "imgwrap-frontend:", err)
		os.Exit(1)
	}
}
