package testbed

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// PodmanProgram returns the path of a program that is podman as the bed runs it, for
// programs that start containers themselves. They have to end these.
func (b *Bed) PodmanProgram() (string, error) {
	var script strings.Builder
	script.WriteString("#!/bin/sh\n")
	for _, variable := range b.containersEnv() {
		fmt.Fprintf(&script, "export '%s'\n", variable)
	}
	fmt.Fprintf(&script, "exec unshare --mount sh -c '%s' podman \"$@\"\n", podmanScript)
	file := filepath.Join(b.dir, "bin", "podman")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", err
	}
	return file, os.WriteFile(file, []byte(script.String()), 0o755)
}
