package testbed

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/sync/errgroup"
)

// FleetImage is one of the images of a fleet.
type FleetImage struct {
	Reference string // REGISTRY/fleet/app-NNN:1.0
	Digest    v1.Hash
	Base      int
	// Layers are the base's, one of packages that a fifth of the base's images
	// have, and the app's own.
	Layers []v1.Descriptor
}

// The sizes of a fleet's layers, in bytes of data that nothing compresses. A
// base has Python beside it.
const (
	fleetBase     = 8 << 20 // and half as much again for each base after the first
	fleetPackages = 1 << 20
	fleetApp      = 64 << 10
)

// fleetPackageSets are what apps of a base have: projects and versions.
var fleetPackageSets = [][]string{
	{"Flask 3.0.3", "requests 2.32.3"},
	{"Flask 3.0.3", "SQLAlchemy 2.0.36", "psycopg2-binary 2.9.10"},
	{"fastapi 0.115.4", "httpx 0.27.2", "uvicorn 0.32.0"},
	{"celery 5.4.0", "redis 5.2.0"},
	{"aiohttp 3.11.2", "protobuf 4.25.5"},
}

// Fleet puts so many images of apps on so many bases into a registry, host:port
// or below a name there, each into a repository of its own, beside those of the
// bases, fleet/stem-N. The bases have the Python of a Debian suite as it is
// installed there. The images are the same at each call.
func (b *Bed) Fleet(ctx context.Context, registry string, bases, images int) ([]FleetImage, error) {
	f := fleet{registry: registry + "/fleet", sets: len(fleetPackageSets)}
	f.stems = make([]v1.Image, bases*f.sets)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range bases {
		g.Go(func() error { return b.fleetStems(gctx, i, f.stems[i*f.sets:][:f.sets]) })
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("making a fleet: %w", err)
	}
	if err := f.pushStems(ctx); err != nil {
		return nil, err
	}
	made := make([]FleetImage, images)
	g, gctx = errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range made {
		g.Go(func() (err error) {
			made[i], err = f.push(gctx, i, bases)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("making a fleet: %w", err)
	}
	return made, nil
}

// fleet is one that is being made.
type fleet struct {
	registry string // with the folder of its repositories
	sets     int    // of packages on each base
	stems    []v1.Image
}

// stem is the repository of a base with packages.
func (f *fleet) stem(i int) (name.Tag, error) {
	return name.NewTag(fmt.Sprintf("%s/stem-%d:1.0", f.registry, i))
}

// pushStems pushes all bases. Images mount their layers from there.
func (f *fleet) pushStems(ctx context.Context) error {
	for i, im := range f.stems {
		ref, err := f.stem(i)
		if err != nil {
			return err
		}
		if i%f.sets > 0 {
			from, err := f.stem(i - i%f.sets)
			if err != nil {
				return err
			}
			if err := mountLayers(ctx, ref, from, im, 1); err != nil {
				return err
			}
		}
		if err := remote.Write(ref, im, remote.WithContext(ctx)); err != nil {
			return fmt.Errorf("pushing %s: %w", ref, err)
		}
	}
	return nil
}

// mountLayers mounts the first layers of an image.
func mountLayers(ctx context.Context, to, from name.Tag, im v1.Image, n int) error {
	layers, err := im.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers[:n] {
		mounted := &remote.MountableLayer{Layer: l, Reference: from}
		if err := remote.WriteLayer(to.Repository, mounted, remote.WithContext(ctx)); err != nil {
			return fmt.Errorf("pushing %s: %w", to, err)
		}
	}
	return nil
}

// push makes and pushes one image.
func (f *fleet) push(ctx context.Context, i, bases int) (FleetImage, error) {
	made := FleetImage{Reference: fmt.Sprintf("%s/app-%03d:1.0", f.registry, i), Base: i % bases}
	stem := made.Base*f.sets + i/bases%f.sets
	from, err := f.stem(stem)
	if err != nil {
		return made, err
	}
	to, err := name.NewTag(made.Reference)
	if err != nil {
		return made, err
	}
	im := f.stems[stem]
	layers, err := im.Layers()
	if err != nil {
		return made, err
	}
	if err := mountLayers(ctx, to, from, im, len(layers)); err != nil {
		return made, err
	}
	// Others than those of the layers of packages.
	app, err := fleetLayer(uint64(len(f.stems)+i), fleetApp, "app/data", archived{"app/main.py", fmt.Appendf(nil, "print(%d)\n", i)})
	if err != nil {
		return made, err
	}
	if im, err = mutate.Append(im, mutate.Addendum{Layer: app}); err != nil {
		return made, err
	}
	if err := remote.Write(to, im, remote.WithContext(ctx)); err != nil {
		return made, fmt.Errorf("pushing %s: %w", to, err)
	}
	if made.Digest, err = im.Digest(); err != nil {
		return made, err
	}
	m, err := im.Manifest()
	if err != nil {
		return made, err
	}
	made.Layers = m.Layers
	return made, nil
}

// archived is a file of a layer.
type archived struct {
	name    string
	content []byte
}

// packageFiles are the files by which packages of Debian's Python are found.
func packageFiles(python string, set []string) []archived {
	var files []archived
	for _, project := range set {
		project, version, _ := strings.Cut(project, " ")
		site := "usr/local/lib/python" + python + "/dist-packages/"
		module := strings.ReplaceAll(project, "-", "_")
		files = append(files,
			archived{site + strings.ToLower(module) + "/__init__.py", nil},
			archived{site + module + "-" + version + ".dist-info/METADATA", fmt.Appendf(nil, "Metadata-Version: 2.1\nName: %s\nVersion: %s\n", project, version)},
		)
	}
	return files
}

// fleetStems makes a base with each set of packages.
func (b *Bed) fleetStems(ctx context.Context, i int, stems []v1.Image) error {
	names := []string{"bullseye", "bookworm", "trixie"}
	suite := names[i%len(names)]
	base, err := b.fleetBase(ctx, suite, i)
	if err != nil {
		return fmt.Errorf("making a base of Debian %s: %w", suite, err)
	}
	for k, set := range fleetPackageSets {
		packages, err := fleetLayer(uint64(i*len(stems)+k), fleetPackages, "opt/data/packages", packageFiles(suites[suite].python, set)...)
		if err != nil {
			return err
		}
		if stems[k], err = mutate.Append(base, mutate.Addendum{Layer: packages}); err != nil {
			return err
		}
	}
	return nil
}

// fleetBase is a base image: of the suite's own, what Python needs, and data.
func (b *Bed) fleetBase(ctx context.Context, suite string, i int) (v1.Image, error) {
	root, err := b.Root(ctx, suite)
	if err != nil {
		return nil, err
	}
	layers, err := root.Layers()
	if err != nil {
		return nil, err
	}
	r, err := layers[0].Compressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	size := fleetBase * (2 + i) / 2
	l, err := gzipped(func(w *tar.Writer) error {
		return errors.Join(copyPython(w, tar.NewReader(z)), writeRandom(w, path.Join("opt/data/base", fmt.Sprint(i)), uint64(i), size))
	})
	if err != nil {
		return nil, err
	}
	base, err := mutate.Append(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), mutate.Addendum{Layer: l})
	if err != nil {
		return nil, err
	}
	config, err := base.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Cmd:        []string{"python3", "main.py"},
		WorkingDir: "/app",
	}
	return mutate.ConfigFile(base, config)
}

// copyPython copies Python and its library, directories and links.
func copyPython(w *tar.Writer, r *tar.Reader) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		file := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			if !strings.HasPrefix(file, "usr/bin/python3") && !strings.HasPrefix(file, "usr/lib/python3") {
				continue
			}
		case tar.TypeDir, tar.TypeSymlink:
		default:
			continue
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
	}
}

// fleetLayer is a layer of files, and of data that follow from the seed.
func fleetLayer(seed uint64, size int, data string, files ...archived) (v1.Layer, error) {
	return gzipped(func(w *tar.Writer) error {
		for _, f := range files {
			if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.content))}); err != nil {
				return err
			}
			if _, err := w.Write(f.content); err != nil {
				return err
			}
		}
		return writeRandom(w, data, 1<<32+seed, size)
	})
}

func writeRandom(w *tar.Writer, file string, seed uint64, size int) error {
	if err := w.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(size)}); err != nil {
		return err
	}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	_, err := io.CopyN(w, rand.NewChaCha8(key), int64(size))
	return err
}

// gzipped is a compressed layer in memory.
func gzipped(write func(*tar.Writer) error) (v1.Layer, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(z)
	if err := errors.Join(write(w), w.Close(), z.Close()); err != nil {
		return nil, err
	}
	content := slices.Clip(b.Bytes())
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }, tarball.WithMediaType(types.OCILayer))
}
