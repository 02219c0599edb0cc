package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/imgwrap/imgwrap/image/python"
	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/scan"
	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// Wrapper holds what the use cases work with. They may run at the same time.
type Wrapper struct {
	Registry *registry.Client
	Catalog  *catalog.Catalog
	Bundles  *bundle.Builder
	Indexes  *scan.Cache // of layers that were read before; may be nil
	Jobs     int         // layers read at the same time, for all images together; at least 1
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
	SourceMoved  bool            `json:"source_moved"` // Source stands for another image by now
	Push         registry.Report `json:"push"`
	Plan         *Plan           `json:"plan"`
}

// Name is the wrapped image by digest, repository@digest.
func (r *Report) Name() string { return byDigest(r.Plan.destination, r.Digest) }

// byDigest names an image by its digest, where it has such a name.
func byDigest(r registry.Reference, digest string) string {
	switch r.Transport {
	case registry.DockerArchive:
		return r.Name()
	case registry.DockerDaemon:
		return string(r.Transport) + ":" + digest
	}
	return r.Repository() + "@" + digest
}

// Plan looks into an image and decides what wrapping it would change. It
// writes nothing. With an NoReleaseError there is a plan too: it
// says what was found, and has no Digest.
func (w *Wrapper) Plan(ctx context.Context, ref string, opts Options) (*Plan, error) {
	t, p, err := w.plan(ctx, ref, opts, func(registry.Reference) error { return nil })
	if t != nil {
		defer t.source.Close()
	}
	if err == nil {
		p.detached(t)
	}
	return p, err
}

// Wrap plans and carries the plan out: blobs, configs and manifests first, the
// tag last. Before it reads any layer it asks whether it may push.
func (w *Wrapper) Wrap(ctx context.Context, ref string, opts Options) (*Report, error) {
	r, _, err := w.wrap(ctx, ref, opts)
	return r, err
}

// wrap says also what the reference stood for, if it found that out.
func (w *Wrapper) wrap(ctx context.Context, ref string, opts Options) (_ *Report, found v1.Hash, _ error) {
	undo := func() {}
	defer func() { undo() }()
	t, p, err := w.plan(ctx, ref, opts, func(destination registry.Reference) (err error) {
		undo, err = w.Registry.CheckPush(ctx, destination)
		return err
	})
	if t != nil {
		defer t.source.Close()
		found = t.source.Root.Digest
	}
	if err != nil {
		return nil, found, err
	}
	pinned := t.reference.Digest() != ""
	inPlace := p.destination.Name() == t.reference.Name()
	if inPlace && t.source.Moved(ctx) {
		if pinned {
			return nil, found, &RefusedError{
				Problem: fmt.Sprintf("%s stands for another image by now than %s", p.destination, t.source.Root.Digest),
				Remedy:  "name the image by its tag alone, or give --tag",
			}
		}
		return nil, found, fmt.Errorf("%s was moved by somebody else while it was wrapped; nothing was pushed, run it again", t.reference)
	}
	var moved bool
	var wg sync.WaitGroup
	if !inPlace && !pinned {
		wg.Go(func() { moved = t.source.Moved(ctx) })
	}
	pushed, err := w.Registry.Write(ctx, p.destination, t.source, p.tree)
	wg.Wait()
	if err != nil {
		return nil, found, err
	}
	p.detached(t)
	return &Report{
		SourceMoved:  moved,
		Version:      PlanVersion,
		Source:       p.Source,
		SourceDigest: p.SourceDigest,
		Image:        p.Image,
		Tag:          p.Tag,
		Digest:       pushed.Digest.String(),
		Push:         pushed,
		Plan:         p,
	}, found, nil
}

// plan calls check with the destination before it reads layers, if it has to.
func (w *Wrapper) plan(ctx context.Context, ref string, opts Options, check func(registry.Reference) error) (*target, *Plan, error) {
	if release := opts.Instrument.Release; release != "" {
		if _, err := w.Catalog.Find(release); err != nil {
			return nil, nil, err
		}
	}
	t, err := w.open(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	p, err := w.planTarget(ctx, t, opts, check)
	return t, p, about(ref, err)
}

// named says whether an error says which image it is about.
func named(err error) bool {
	return errors.As(err, new(*registry.Error)) || errors.As(err, new(*registry.UnsupportedError)) || errors.As(err, new(*UsageError))
}

// about says which image an error is about, if it does not itself.
func about(ref string, err error) error {
	if err == nil || named(err) {
		return err
	}
	return fmt.Errorf("%s: %w", ref, err)
}

func (w *Wrapper) planTarget(ctx context.Context, t *target, opts Options, check func(registry.Reference) error) (*Plan, error) {
	destination, err := opts.Destination.resolve(w.Registry, t.reference, t.root.descriptor.Digest.String(), t.wrapped)
	if err != nil {
		return nil, err
	}
	var layers registry.Reference
	if opts.Layers != "" {
		if layers, err = layersRepository(w.Registry, opts.Layers, destination); err != nil {
			return nil, err
		}
	}
	if err := w.prepare(ctx, t, destination); err != nil {
		return nil, err
	}
	if err := t.root.choose(opts.Platforms); err != nil {
		return nil, err
	}
	t.findReferrers(ctx)
	if err := w.read(ctx, t.source, t.root.images(), func() error { return check(destination) }); err != nil {
		return nil, err
	}
	p, err := plan(t, destination, opts, w.Catalog, prebuilt{
		bundle: func(r *catalog.Release) (*layer.Layer, error) { return w.Bundles.Deferred(ctx, r) },
		native: func(r *catalog.Release, architecture string) (*layer.Layer, error) {
			return w.Bundles.Native(ctx, r, architecture)
		},
		bytecode: w.Bundles.Bytecode,
	})
	if err == nil && opts.Layers != "" {
		err = p.share(w.Registry, layers)
	}
	return p, err
}

// inspect finds out which Python the image starts.
func (s *source) inspect(interpreter string) (*python.Environment, error) {
	return python.Inspect(s.pythonConfig(), s.files, python.Options{Python: interpreter})
}

func (s *source) pythonConfig() python.Config {
	c := s.parsed.Config
	return python.Config{Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, WorkingDir: c.WorkingDir, User: c.User}
}

// read streams the layers of the images that it does not know, several at a
// time and each once, be it for this image or for another one that is wrapped at
// the same time, and merges what each image holds. If it has to read any, it
// calls before first.
func (w *Wrapper) read(ctx context.Context, s *registry.Source, images []*node, before func() error) error {
	layers := map[v1.Hash]*scan.Layer{}
	var unread []v1.Descriptor
	for _, n := range images {
		if have, want := len(n.opened.Manifest.Layers), len(n.source.parsed.RootFS.DiffIDs); want > have {
			return &RefusedError{
				Problem: fmt.Sprintf("the config names %d layers, the manifest %d", want, have),
				Remedy:  "build the image again",
			}
		}
		for _, d := range n.layers() {
			if _, ok := layers[d.Digest]; ok {
				continue
			}
			if layers[d.Digest], _ = w.Indexes.Get(d.Digest); layers[d.Digest] != nil {
				continue
			}
			unread = append(unread, d)
		}
	}
	if len(unread) > 0 {
		if err := before(); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(w.Jobs, 1))
	// The largest first: what takes longest does not begin last.
	slices.SortStableFunc(unread, func(a, b v1.Descriptor) int { return cmp.Compare(b.Size, a.Size) })
	var mu sync.Mutex
	for _, d := range unread {
		g.Go(func() error {
			l, err := w.Indexes.Read(gctx, d.Digest, w.Jobs, func() (*scan.Layer, error) { return w.readLayer(gctx, s, d) })
			mu.Lock()
			defer mu.Unlock()
			layers[d.Digest] = l
			return err
		})
	}
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil && !named(err) {
			return errors.New("interrupted; no tag was written")
		}
		return err
	}
	for _, n := range images {
		var own []*scan.Layer
		for _, d := range n.layers() {
			own = append(own, layers[d.Digest])
		}
		n.source.files = scan.Merge(own...)
	}
	return nil
}

func (w *Wrapper) readLayer(ctx context.Context, s *registry.Source, d v1.Descriptor) (*scan.Layer, error) {
	r, err := s.Blob(ctx, d)
	if err != nil && ctx.Err() == nil && !d.MediaType.IsDistributable() {
		return nil, &RefusedError{
			Problem: fmt.Sprintf("layer %s is kept elsewhere by its publisher, and wrapping has to look into it: %v", d.Digest, err),
			Remedy:  "push the image with all of its layers",
		}
	}
	if err != nil {
		return nil, err
	}
	if w.Progress != nil {
		r = w.Progress.Layer(d.Digest.String(), d.Size, r)
	}
	defer r.Close()
	l, err := scan.Read(ctx, r)
	if err != nil {
		if !named(err) {
			err = fmt.Errorf("layer %s: %w", d.Digest, err)
		}
		return nil, err
	}
	// The reader has verified the digest. A cache that can't be written costs
	// the time of reading the layer again.
	_ = w.Indexes.Put(d.Digest, l)
	return l, nil
}
