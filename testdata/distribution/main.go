// Command distribution is the registry of the CNCF in version 3, for the
// end-to-end tests: with storage in a directory, and authentication by password
// file or by token.
//
// It is a module of its own so that imgwrap requires none of it.
package main

import (
	"os"

	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

func main() {
	if err := registry.RootCmd.Execute(); err != nil {
		os.Exit(1)
	}
}
