package bundle

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPython runs the tests of the launcher and the loader under the newest
// Python of this machine, the oldest Python 3 and the oldest from 2.7 on; with
// IMGWRAP_TEST_PYTHONS=all, as in make test, under those between as well. Each
// starts some hundred interpreters.
func TestPython(t *testing.T) {
	interpreters := pythons(t)
	if len(interpreters) == 0 {
		t.Fatal("no Python found: neither on PATH nor in pyenv's directory")
	}
	if os.Getenv("IMGWRAP_TEST_PYTHONS") != "all" {
		three := slices.DeleteFunc(slices.Clone(interpreters), func(p python) bool { return p.hex < "03" })
		ends := interpreters[:1]
		if len(three) > 1 {
			ends = append(slices.Clip(ends), three[len(three)-1])
		}
		if oldest := interpreters[len(interpreters)-1]; oldest.hex < "03" && len(interpreters) > 1 {
			ends = append(slices.Clip(ends), oldest)
		}
		interpreters = ends
	}
	for _, p := range interpreters {
		t.Run(p.version, func(t *testing.T) {
			t.Parallel()
			t.Log(p.path)
			cmd := exec.CommandContext(t.Context(), p.path, "-B", "-m", "unittest", "test_launcher", "test_loader")
			cmd.Dir = "python"
			cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", p.path, err, out)
			}
			if !strings.Contains(string(out), "\nOK") {
				t.Fatalf("%s: no test ran:\n%s", p.path, out)
			}
		})
	}
}

// TestStrip compares the files that are in images with their sources: without
// docstrings both are the same program.
func TestStrip(t *testing.T) {
	interpreters := pythons(t)
	if len(interpreters) == 0 {
		t.Fatal("no Python found: neither on PATH nor in pyenv's directory")
	}
	const program = `
import ast, sys
trees = []
for name in sys.argv[1:]:
    tree = ast.parse(open(name).read())
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            continue
        if ast.get_docstring(node, False) is not None:
            del node.body[0]
            node.body[:0] = [] if isinstance(node, ast.Module) else [ast.Pass()]
    trees.append(ast.dump(tree))
sys.exit(trees[0] != trees[1])
`
	for name, source := range map[string]string{"launcher": launcherSource, "loader": loaderSource} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "source.py"), source)
		stripped := strip(source)
		write(t, filepath.Join(dir, "stripped.py"), stripped)
		if out, err := exec.CommandContext(t.Context(), interpreters[0].path, "-c", program, filepath.Join(dir, "source.py"), filepath.Join(dir, "stripped.py")).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if strings.Contains(stripped, "PEP 538") || len(stripped) > len(source)*4/5 {
			t.Errorf("%s: %d of %d bytes are left", name, len(stripped), len(source))
		}
	}
}

type python struct {
	hex     string // sys.hexversion, which sorts as the version does
	version string
	path    string
}

// pythons finds one interpreter of each version, newest first: those on PATH
// and those that pyenv has installed.
func pythons(t *testing.T) []python {
	var names []string
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		// Not python2.6 and the like, nor python3-config.
		for _, pattern := range []string{"python3", "python2.7", "python3.[0-9]", "python3.[0-9][0-9]"} {
			found, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, found...)
		}
	}
	root := os.Getenv("PYENV_ROOT")
	if home, err := os.UserHomeDir(); root == "" && err == nil {
		root = filepath.Join(home, ".pyenv")
	}
	found, err := filepath.Glob(filepath.Join(root, "versions", "*", "bin", "python"))
	if err != nil {
		t.Fatal(err)
	}
	names = append(names, found...)

	const question = "import os, sys; print('%08x %d.%d.%d' % ((sys.hexversion,) + sys.version_info[:3])); print(os.path.realpath(sys.executable))"
	var all []python
	for _, name := range names {
		// A shim of pyenv fails for a version that is not active.
		out, err := exec.CommandContext(t.Context(), name, "-c", question).Output()
		if err != nil {
			continue
		}
		answer := strings.Fields(string(out))
		if len(answer) != 3 {
			t.Fatalf("%s said %q", name, out)
		}
		all = append(all, python{answer[0], answer[1], answer[2]})
	}
	slices.SortStableFunc(all, func(a, b python) int { return strings.Compare(b.hex, a.hex) })
	return slices.CompactFunc(all, func(a, b python) bool { return a.hex == b.hex })
}
