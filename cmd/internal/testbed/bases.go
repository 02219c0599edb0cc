package testbed

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// PushBases puts images into the registry under the names that Dockerfiles have
// for what is most like them. Those that install packages trust the internet.
// uv is a directory that has the wheel of uv.
func (b *Bed) PushBases(ctx context.Context, internet *Internet, uv string) error {
	python, err := b.Image(ctx, "bookworm-python")
	if err != nil {
		return err
	}
	const authority = "etc/ssl/internet.pem"
	python, err = withFiles(python, file{authority, 0o644, internet.Authority()})
	if err != nil {
		return err
	}
	config, err := python.ConfigFile()
	if err != nil {
		return err
	}
	c := *config.Config.DeepCopy()
	c.Env = append(c.Env, "SSL_CERT_FILE=/"+authority, "REQUESTS_CA_BUNDLE=/"+authority)
	if python, err = mutate.Config(python, c); err != nil {
		return err
	}
	program, err := wheelScript(uv, "uv")
	if err != nil {
		return fmt.Errorf("reading the wheel of uv: %w", err)
	}
	pythonUV, err := withFiles(python, file{"usr/local/bin/uv", 0o755, program})
	if err != nil {
		return err
	}
	distroless, err := b.Image(ctx, "bookworm-distroless")
	if err != nil {
		return err
	}
	if config, err = distroless.ConfigFile(); err != nil {
		return err
	}
	c = *config.Config.DeepCopy()
	c.User, c.WorkingDir = "65532", "/home/nonroot"
	nonroot, err := mutate.Config(distroless, c)
	if err != nil {
		return err
	}
	frontend, err := b.dockerfileFrontend(ctx)
	if err != nil {
		return err
	}
	for ref, img := range map[string]v1.Image{
		"library/python:3.11-slim":              python,
		"astral-sh/uv:python3.11-bookworm-slim": pythonUV,
		"distroless/python3-debian12:latest":    distroless,
		"distroless/python3-debian12:nonroot":   nonroot,
		"docker/dockerfile:1":                   frontend,
	} {
		if _, err := b.PushImage(ctx, img, ref); err != nil {
			return err
		}
	}
	return nil
}

// dockerfileFrontend is docker/dockerfile, as BuildKit's own Dockerfile makes it.
func (b *Bed) dockerfileFrontend(ctx context.Context) (v1.Image, error) {
	programs, err := b.module(ctx, "buildkit", "tool")
	if err != nil {
		return nil, fmt.Errorf("building BuildKit: %w", err)
	}
	program, err := os.ReadFile(filepath.Join(programs, "dockerfile-frontend"))
	if err != nil {
		return nil, err
	}
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH,
		Config: v1.Config{
			Entrypoint: []string{"/bin/dockerfile-frontend"},
			Labels: map[string]string{
				"moby.buildkit.frontend.network.none": "true",
				"moby.buildkit.frontend.caps":         "moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests,moby.buildkit.frontend.contexts",
			},
		},
	})
	if err != nil {
		return nil, err
	}
	return withFiles(img, file{"bin/dockerfile-frontend", 0o755, program})
}

type file struct {
	name    string
	mode    int64
	content []byte
}

// withFiles is an image with one more layer.
func withFiles(img v1.Image, files ...file) (v1.Image, error) {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, f := range files {
		err := tw.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content)), Typeflag: tar.TypeReg})
		if err != nil {
			return nil, err
		}
		if _, err := tw.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	mediaType := types.DockerUncompressedLayer
	if m, err := img.MediaType(); err != nil {
		return nil, err
	} else if m == types.OCIManifestSchema1 {
		mediaType = types.OCIUncompressedLayer
	}
	return mutate.AppendLayers(img, static.NewLayer(buf.Bytes(), mediaType))
}

// wheelScript returns the only program of that name in the wheels of a project.
func wheelScript(dir, name string) ([]byte, error) {
	wheels, err := filepath.Glob(filepath.Join(dir, name+"-*.whl"))
	if err != nil || len(wheels) != 1 {
		return nil, errors.Join(fmt.Errorf("%d wheels in %s, want 1", len(wheels), dir), err)
	}
	z, err := zip.OpenReader(wheels[0])
	if err != nil {
		return nil, err
	}
	defer z.Close()
	for _, f := range z.File {
		if ok, _ := path.Match("*.data/scripts/"+name, f.Name); ok {
			r, err := f.Open()
			if err != nil {
				return nil, err
			}
			defer r.Close()
			return io.ReadAll(r)
		}
	}
	return nil, fs.ErrNotExist
}
