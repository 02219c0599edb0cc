package testbed

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// PythonTool returns the interpreter of a virtual environment that has a tool of
// Python developers, to be run with -m: the packages that a file of python-tools
// pins, which lies beside Options.Recipes. It is made if the cache does not have
// it.
func (b *Bed) PythonTool(ctx context.Context, name string) (string, error) {
	b.building.Lock()
	defer b.building.Unlock()
	file := filepath.Join(filepath.Dir(b.recipes), "python-tools", name+".txt")
	pins, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	version, err := exec.CommandContext(ctx, "python3", "-c", "import sys; print(sys.version, sys.prefix)").Output()
	if err != nil {
		return "", fmt.Errorf("asking Python for its version: %w", err)
	}
	key := sha256.New()
	key.Write(version)
	key.Write(pins)
	dir, err := b.cached(fmt.Sprintf("python-tool-%s-%x", name, key.Sum(nil)[:8]), func(dst string) error {
		fmt.Fprintf(b.log, "installing %s\n", name)
		if err := run(ctx, nil, "python3", "-m", "venv", "--without-pip", dst); err != nil {
			return err
		}
		return run(ctx, nil, "python3", "-m", "pip", "--python="+dst, "install", "--quiet", "--no-deps", "--requirement="+file)
	})
	if err != nil {
		return "", fmt.Errorf("installing %s: %w", name, err)
	}
	return filepath.Join(dir, "bin", "python3"), nil
}
