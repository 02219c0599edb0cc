package testbed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// suite is a Debian release that base images are made of.
type suite struct {
	python   string   // version of its python3
	packages []string // what a base image has beside the essential packages
	format   string   // of the application images: oci or v2s2 (Docker's schema 2)
}

var suites = map[string]suite{
	"bullseye": {"3.9", []string{"ca-certificates", "python3", "python3-distutils"}, "v2s2"},
	"bookworm": {"3.11", []string{"ca-certificates", "python3", "python3-venv"}, "oci"},
	"trixie":   {"3.13", []string{"ca-certificates", "python3", "python3-flask", "python3-requests"}, "oci"},
}

// unwanted are options that leave out what slim images leave out too.
var unwanted = []string{
	"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
	"--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/man/*",
}

// pip is what installs packages in images without a pip of their own. This
// version runs on every Python of the suites.
const pip = "pip==24.3.1"

// Push puts the image of a recipe into the registry as ref, a repository and
// tag without the registry ("app:1.0"), and returns its digest. The image is
// built if the cache does not have it.
//
// See [Bed.Image] for what a recipe is.
func (b *Bed) Push(ctx context.Context, recipe, ref string) (v1.Hash, error) {
	img, err := b.Image(ctx, recipe)
	if err != nil {
		return v1.Hash{}, err
	}
	return b.PushImage(ctx, img, ref)
}

// PushImage puts an image into the registry as ref, a repository and tag
// without the registry, and returns its digest.
func (b *Bed) PushImage(ctx context.Context, img v1.Image, ref string) (v1.Hash, error) {
	tag, err := name.NewTag(b.registry + "/" + ref)
	if err != nil {
		return v1.Hash{}, err
	}
	layers, err := img.Layers()
	if err != nil {
		return v1.Hash{}, err
	}
	for _, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			return v1.Hash{}, err
		}
		there, ok := b.pushed.LoadOrStore(digest, tag)
		if !ok {
			continue
		}
		mounted := &remote.MountableLayer{Layer: l, Reference: there.(name.Tag)}
		if err := remote.WriteLayer(tag.Repository, mounted, remote.WithContext(ctx)); err != nil {
			return v1.Hash{}, fmt.Errorf("pushing %s: %w", tag, err)
		}
	}
	if err := remote.Write(tag, img, remote.WithContext(ctx)); err != nil {
		return v1.Hash{}, fmt.Errorf("pushing %s: %w", tag, err)
	}
	return img.Digest()
}

// Root returns the base image of a Debian suite. It is made if the cache does
// not have it.
func (b *Bed) Root(ctx context.Context, suite string) (v1.Image, error) {
	b.building.Lock()
	defer b.building.Unlock()
	return b.root(ctx, suite)
}

// Image returns the image of a recipe. It is built if the cache does not have
// it.
//
// A recipe is a directory of Options.Recipes named SUITE-WHAT, with a
// Containerfile and a requirements.txt that pins every package. The build
// context is Options.Recipes; the build argument ROOT is the base image of the
// Debian suite; /wheels has the wheels of requirements.txt and that of pip.
//
// A recipe named SUITE-WHAT/VARIANT has VARIANT.txt in the place of
// requirements.txt, and gets its name as the build argument REQUIREMENTS.
func (b *Bed) Image(ctx context.Context, recipe string) (v1.Image, error) {
	b.building.Lock()
	defer b.building.Unlock()
	img, err := b.image(ctx, recipe)
	if err != nil {
		return nil, fmt.Errorf("building image %s: %w", recipe, err)
	}
	return img, nil
}

func (b *Bed) image(ctx context.Context, recipe string) (v1.Image, error) {
	suiteName, _, _ := strings.Cut(recipe, "-")
	s, ok := suites[suiteName]
	if !ok {
		return nil, fmt.Errorf("%q is not a Debian suite with a known Python", suiteName)
	}
	dir, requirements := recipe, "requirements.txt"
	if d, variant, ok := strings.Cut(recipe, "/"); ok {
		dir, requirements = d, variant+".txt"
	}
	name := strings.ReplaceAll(recipe, "/", "-")
	root, err := b.root(ctx, suiteName)
	if err != nil {
		return nil, err
	}
	rootDigest, err := root.Digest()
	if err != nil {
		return nil, err
	}
	key := sha256.New()
	fmt.Fprintln(key, rootDigest, s.format, pip, requirements)
	for _, dir := range []string{"common", dir} {
		if err := hashFiles(key, filepath.Join(b.recipes, dir)); err != nil {
			return nil, err
		}
	}
	return b.cachedImage(fmt.Sprintf("image-%s-%x", name, key.Sum(nil)[:8]), func(dst string) error {
		fmt.Fprintf(b.log, "building image %s\n", recipe)
		rootRef := "build/" + suiteName
		if _, err := b.PushImage(ctx, root, rootRef); err != nil {
			return err
		}
		wheels := filepath.Join(b.dir, "wheels", name)
		if err := download(ctx, wheels, s.python, pip, "-r", filepath.Join(b.recipes, dir, requirements)); err != nil {
			return err
		}
		img, err := b.Build(ctx, BuildOptions{
			Context: b.recipes,
			File:    filepath.Join(b.recipes, dir, "Containerfile"),
			Args:    []string{"ROOT=" + b.registry + "/" + rootRef, "REQUIREMENTS=" + requirements},
			Volumes: []string{wheels + ":/wheels:ro"},
			Format:  s.format,
			Ref:     "build/" + name,
		})
		if err != nil {
			return err
		}
		return b.writeLayout(dst, img)
	})
}

func (b *Bed) root(ctx context.Context, suiteName string) (v1.Image, error) {
	s := suites[suiteName]
	args := []string{"mmdebstrap", "--quiet", "--variant=minbase", "--include=" + strings.Join(s.packages, ",")}
	args = append(args, unwanted...)
	key := sha256.Sum256([]byte(strings.Join(args, " ") + runtime.GOARCH))
	return b.cachedImage(fmt.Sprintf("root-%s-%x", suiteName, key[:8]), func(dst string) error {
		return b.makeRoot(ctx, dst, suiteName, runtime.GOARCH, args)
	})
}

// ForeignRoot is Root for an architecture that this machine may not run: no
// package is configured, so there is little but Python.
func (b *Bed) ForeignRoot(ctx context.Context, suiteName, architecture string) (v1.Image, error) {
	b.building.Lock()
	defer b.building.Unlock()
	args := append([]string{"mmdebstrap", "--quiet", "--variant=extract", "--architectures=" + architecture, "--include=libstdc++6,python3"}, unwanted...)
	key := sha256.Sum256([]byte(strings.Join(args, " ")))
	return b.cachedImage(fmt.Sprintf("root-%s-%s-%x", suiteName, architecture, key[:8]), func(dst string) error {
		return b.makeRoot(ctx, dst, suiteName, architecture, args)
	})
}

// makeRoot makes a base image with a command of mmdebstrap.
func (b *Bed) makeRoot(ctx context.Context, dst, suiteName, architecture string, args []string) error {
	fmt.Fprintf(b.log, "making a base image of Debian %s for %s\n", suiteName, architecture)
	tar := filepath.Join(b.dir, suiteName+".tar.gz")
	defer os.Remove(tar)
	// Where mmdebstrap unpacks: with the bed it goes away in any case.
	if err := run(ctx, []string{"TMPDIR=" + b.dir}, append(args, suiteName, tar)...); err != nil {
		return fmt.Errorf("making a base image of Debian %s: %w", suiteName, err)
	}
	layer, err := tarball.LayerFromFile(tar)
	if err != nil {
		return fmt.Errorf("reading %s: %w", tar, err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", architecture
	config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	config.Config.Cmd = []string{"python3"}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return err
	}
	return b.writeLayout(dst, img)
}

// BuildOptions say what buildah builds.
type BuildOptions struct {
	Context string   // directory
	File    string   // Dockerfile
	Target  string   // stage, the last one if empty
	Args    []string // build arguments, NAME=value
	Volumes []string // mounted while building, as podman's --volume
	Format  string   // oci or v2s2
	Ref     string   // where it goes: a repository and perhaps tag, without the registry
}

// Build builds an image from a Dockerfile and pushes it to the registry.
func (b *Bed) Build(ctx context.Context, o BuildOptions) (v1.Image, error) {
	tag, err := name.NewTag(b.registry + "/" + o.Ref)
	if err != nil {
		return nil, err
	}
	args := []string{"build", "--quiet", "--isolation=chroot", "--network=host", "--tls-verify=false", "--layers", "--tag=" + tag.Name(), "--file=" + o.File}
	for _, a := range o.Args {
		args = append(args, "--build-arg="+a)
	}
	for _, v := range o.Volumes {
		args = append(args, "--volume="+v)
	}
	if o.Target != "" {
		args = append(args, "--target="+o.Target)
	}
	if err := b.buildah(ctx, append(args, o.Context)...); err != nil {
		return nil, err
	}
	if err := b.buildah(ctx, "push", "--quiet", "--tls-verify=false", "--format="+o.Format, tag.Name(), "docker://"+tag.Name()); err != nil {
		return nil, err
	}
	return remote.Image(tag, remote.WithContext(ctx))
}

// buildah runs in a mount namespace of its own: even if it is killed, no mount
// stays behind.
func (b *Bed) buildah(ctx context.Context, args ...string) error {
	return run(ctx, b.containersEnv(), append([]string{"unshare", "--mount", "buildah"}, args...)...)
}

// Pip returns a directory that has pip, for sys.path. Python would take twice as
// long to import it from its wheel.
func (b *Bed) Pip(ctx context.Context) (string, error) {
	b.building.Lock()
	defer b.building.Unlock()
	dir, err := b.cached(strings.ReplaceAll(pip, "==", "-")+"-installed", func(dst string) error {
		return b.Install(ctx, dst, "bullseye", runtime.GOARCH, pip)
	})
	if err != nil {
		return "", fmt.Errorf("installing pip: %w", err)
	}
	return dir, nil
}

// download fetches wheels for the given Python version on this machine's
// architecture, exactly those that are named.
func download(ctx context.Context, dir, python string, requirements ...string) error {
	args := append(pipFor("download", python, runtime.GOARCH), "--dest="+dir)
	return run(ctx, nil, append(args, requirements...)...)
}

// Install puts packages into a directory, as pip install --target, for the
// Python of a suite on any architecture, exactly those that are named.
func (b *Bed) Install(ctx context.Context, dir, suiteName, architecture string, requirements ...string) error {
	args := append(pipFor("install", suites[suiteName].python, architecture), "--no-compile", "--target="+dir)
	return run(ctx, nil, append(args, requirements...)...)
}

// pipFor is a command of pip that is about another interpreter than its own.
func pipFor(command, python, architecture string) []string {
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[architecture]
	args := []string{"python3", "-m", "pip", command, "--quiet", "--no-deps", "--only-binary=:all:", "--python-version=" + python}
	for _, libc := range []string{"manylinux_2_28", "manylinux_2_17", "manylinux2014"} {
		args = append(args, "--platform="+libc+"_"+machine)
	}
	return args
}

// cached returns the directory of that name in the cache. If it is not there,
// build makes it, under another name until it is complete.
func (b *Bed) cached(name string, build func(dst string) error) (string, error) {
	dir := filepath.Join(b.cache, name)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	tmp, err := os.MkdirTemp(b.cache, ".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	if err := build(tmp); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err // one that exists now was made by another process
	}
	return dir, nil
}

// cachedImage is as cached, for a directory that is an OCI layout of one image.
func (b *Bed) cachedImage(name string, build func(dst string) error) (v1.Image, error) {
	dir, err := b.cached(name, build)
	if err != nil {
		return nil, err
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(manifest.Manifests) != 1 {
		return nil, fmt.Errorf("reading %s: %d images, want 1", dir, len(manifest.Manifests))
	}
	return index.Image(manifest.Manifests[0].Digest)
}

// writeLayout writes an OCI layout of one image. Layers that the cache has of
// another image are not written again.
func (b *Bed) writeLayout(dir string, img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	for _, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			return err
		}
		found, err := filepath.Glob(filepath.Join(b.cache, "*", "blobs", "sha256", digest.Hex))
		if err != nil {
			return err
		}
		if len(found) == 0 {
			continue
		}
		if err := os.Link(found[0], filepath.Join(blobs, digest.Hex)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return p.AppendImage(img)
}

// hashFiles writes the names and contents of a directory's files to w.
func hashFiles(w io.Writer, dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		_, err = fmt.Fprintf(w, "%s  %s\n", hex.EncodeToString(sum[:]), rel)
		return err
	})
}
