package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/imgwrap/imgwrap/image/python"
	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/rewrite"
	"github.com/imgwrap/imgwrap/image/scan"
	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// Wrapper holds what the use cases work with.
type Wrapper struct {
	Registry *registry.Client
	Catalog  *catalog.Catalog
	Bundles  *bundle.Builder
	Indexes  *scan.Cache // of layers that were read before; may be nil
	Jobs     int         // layers read at the same time, at least 1
	Progress Progress    // may be nil
}

// Progress is told how reading an image's layers goes on. Its methods are
// called from several goroutines.
type Progress interface {
	// Layer announces a layer of so many compressed bytes. The returned reader
	// passes r on and sees every read of it.
	Layer(digest string, size int64, r io.ReadCloser) io.ReadCloser
}

// Report is what a wrapping did.
type Report struct {
	Version      int             `json:"version"` // PlanVersion
	Source       string          `json:"source"`
	SourceDigest string          `json:"source_digest"`
	Image        string          `json:"image"` // repository:tag
	Tag          string          `json:"tag"`
	Digest       string          `json:"digest"`
	Push         registry.Report `json:"push"`
	Plan         *Plan           `json:"plan"`
}

// Name is the wrapped image by digest, repository@digest.
func (r *Report) Name() string { return r.Plan.destination.Context().Name() + "@" + r.Digest }

// Plan looks into an image and decides what wrapping it would change. It
// writes nothing. With an NoReleaseError there is a plan too: it
// says what was found, and has no Digest.
func (w *Wrapper) Plan(ctx context.Context, ref string, opts Options) (*Plan, error) {
	_, p, err := w.plan(ctx, ref, opts)
	return p, err
}

// Wrap plans and carries the plan out: blobs, config and manifest first, the
// tag last.
func (w *Wrapper) Wrap(ctx context.Context, ref string, opts Options) (*Report, error) {
	im, p, err := w.plan(ctx, ref, opts)
	if err != nil {
		return nil, err
	}
	// The client knows which registries it reaches without TLS.
	destination, err := w.Registry.Parse(p.Image)
	if err != nil {
		return nil, err
	}
	layers := make([]v1.Layer, len(p.added))
	for i, l := range p.added {
		layers[i] = l.layer
	}
	pushed, err := w.Registry.Push(ctx, destination, im, registry.Content{
		MediaType: p.wrapped.MediaType,
		Manifest:  p.wrapped.Manifest,
		Config:    p.wrapped.Config,
		Added:     layers,
	})
	if err != nil {
		return nil, err
	}
	return &Report{
		Version:      PlanVersion,
		Source:       p.Source,
		SourceDigest: p.SourceDigest,
		Image:        p.Image,
		Tag:          p.Tag,
		Digest:       p.Digest,
		Push:         pushed,
		Plan:         p,
	}, nil
}

func (w *Wrapper) plan(ctx context.Context, ref string, opts Options) (*registry.Image, *Plan, error) {
	if release := opts.Instrument.Release; release != "" {
		if _, err := w.Catalog.Find(release); err != nil {
			return nil, nil, err
		}
	}
	im, src, err := w.open(ctx, ref, func(src source) error {
		_, err := opts.Destination.resolve(src.reference, src.image.Digest().String(), src.wrapped != nil)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	src.environment, err = src.inspect(opts.Python)
	if errors.Is(err, fs.ErrNotExist) && opts.Python != "" {
		err = &UsageError{fmt.Sprintf("no Python at %s in the image", opts.Python), "imgwrap inspect shows what there is"}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", ref, err)
	}
	p, err := plan(src, opts, w.Catalog, prebuilt{
		bundle: func(r *catalog.Release) (*layer.Layer, error) { return w.Bundles.Deferred(ctx, r) },
		native: func(r *catalog.Release, architecture string) (*layer.Layer, error) {
			return w.Bundles.Native(ctx, r, architecture)
		},
		bytecode: w.Bundles.Bytecode,
	})
	if err != nil {
		return nil, p, fmt.Errorf("%s: %w", ref, err)
	}
	return im, p, nil
}

// open fetches an image's documents and, unless check has something against
// it, reads its layers.
func (w *Wrapper) open(ctx context.Context, ref string, check func(source) error) (*registry.Image, source, error) {
	im, err := w.Registry.Open(ctx, ref)
	if err != nil {
		return nil, source{}, err
	}
	src := source{
		reference: im.Reference,
		image:     rewrite.Image{MediaType: im.MediaType, Manifest: im.RawManifest, Config: im.RawConfig},
		parsed:    im.Config,
	}
	if err := src.unwrap(); err != nil {
		return nil, source{}, fmt.Errorf("%s: %w", ref, err)
	}
	if err := check(src); err != nil {
		return nil, source{}, err
	}
	src.files, err = w.read(ctx, im, len(src.parsed.RootFS.DiffIDs))
	if failed := (*registry.Error)(nil); errors.As(err, &failed) {
		return nil, source{}, failed // it names the image and the layer
	} else if ctx.Err() != nil {
		return nil, source{}, fmt.Errorf("looking into %s: interrupted; no tag was written", ref)
	} else if err != nil {
		return nil, source{}, fmt.Errorf("looking into %s: %w", ref, err)
	}
	return im, src, nil
}

// inspect finds out which Python the image starts.
func (s *source) inspect(interpreter string) (*python.Environment, error) {
	return python.Inspect(s.pythonConfig(), s.files, python.Options{Python: interpreter})
}

func (s *source) pythonConfig() python.Config {
	c := s.parsed.Config
	return python.Config{Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, WorkingDir: c.WorkingDir, User: c.User}
}

// unwrap goes back to the source of an image that is wrapped already: it is
// wrapped again with today's options, never on top.
func (s *source) unwrap() error {
	labels := s.parsed.Config.Labels
	origin, ok := labels[LabelOrigin]
	if !ok {
		return nil
	}
	manifest, config, err := rewrite.FromOrigin(origin)
	if err != nil {
		return fmt.Errorf("reading the label %s: %w", LabelOrigin, err)
	}
	var parsed v1.ConfigFile
	var before, now v1.Manifest
	if err := errors.Join(json.Unmarshal(config, &parsed), json.Unmarshal(manifest, &before), json.Unmarshal(s.image.Manifest, &now)); err != nil {
		return fmt.Errorf("reading the label %s: %w", LabelOrigin, err)
	}
	// An image that was built on the wrapped one has its labels too.
	sealed, err := seal(s.image.Config)
	if err != nil {
		return err
	}
	changed := sealed != labels[LabelSeal] || len(now.Layers) < len(before.Layers)
	for i := range before.Layers {
		changed = changed || before.Layers[i].Digest != now.Layers[i].Digest
	}
	if changed {
		return &RefusedError{
			Problem: "it was made of an image that imgwrap wrapped, and changed since",
			Remedy:  "build it on the image without OpenTelemetry, " + labels[LabelSource] + ", and wrap the result",
		}
	}
	s.wrapped = &wrapping{
		source:   labels[LabelSource],
		baseName: now.Annotations[AnnotationBaseName],
		env:      environ(s.parsed.Config.Env),
	}
	s.image.Manifest, s.image.Config, s.parsed = manifest, config, &parsed
	return nil
}

// read streams those of the first n layers of an image that it does not know,
// several at a time, and merges what they hold.
func (w *Wrapper) read(ctx context.Context, im *registry.Image, n int) (*scan.Index, error) {
	if n > len(im.Manifest.Layers) {
		return nil, &RefusedError{
			Problem: fmt.Sprintf("the config names %d layers, the manifest %d", n, len(im.Manifest.Layers)),
			Remedy:  "build the image again",
		}
	}
	layers := make([]*scan.Layer, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(w.Jobs, 1))
	for i := range layers {
		g.Go(func() error {
			desc := im.Manifest.Layers[i]
			if known, ok := w.Indexes.Get(desc.Digest); ok {
				layers[i] = known
				return nil
			}
			r, err := im.Layer(ctx, i)
			if err != nil {
				return err
			}
			if w.Progress != nil {
				r = w.Progress.Layer(desc.Digest.String(), desc.Size, r)
			}
			defer r.Close()
			layers[i], err = scan.Read(ctx, r)
			if err != nil && !errors.As(err, new(*registry.Error)) {
				err = fmt.Errorf("layer %s: %w", desc.Digest, err)
			}
			if err == nil {
				// The reader has verified the digest. A cache that can't be
				// written costs the time of reading the layer again.
				_ = w.Indexes.Put(desc.Digest, layers[i])
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return scan.Merge(layers...), nil
}
