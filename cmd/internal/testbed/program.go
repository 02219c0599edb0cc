package testbed

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Program writes a script that runs a program of an image in a container, with
// the script's arguments, standard input and output, and returns the script's
// path.
func (b *Bed) Program(image, program string) (string, error) {
	dir, err := os.MkdirTemp(b.dir, "program-")
	if err != nil {
		return "", err
	}
	script := filepath.Join(dir, filepath.Base(program))
	var env strings.Builder
	for _, e := range b.containersEnv() {
		name, value, _ := strings.Cut(e, "=")
		fmt.Fprintf(&env, "export %s='%s'\n", name, value)
	}
	args := RunOptions{Image: image, Entrypoint: program}.args()
	text := fmt.Sprintf(`#!/bin/sh
%[1]sexec unshare --mount sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; exec podman "$@"' podman %[2]s --interactive %[3]s "$@"
`, env.String(), args[0], strings.Join(args[1:], " "))
	return script, os.WriteFile(script, []byte(text), 0o755)
}
