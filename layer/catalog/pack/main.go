// Command pack writes catalog.bin, the form of the catalog that is embedded in
// the program, from its JSON files. go generate runs it in layer/catalog.
package main

import (
	"fmt"
	"os"

	"github.com/imgwrap/imgwrap/layer/catalog"
)

func main() {
	c, err := catalog.Read(os.DirFS("."))
	if err == nil {
		err = os.WriteFile("catalog.bin", catalog.Pack(c), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}
