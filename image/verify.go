package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/scan"
)

// VerifyOptions are what the user decides about a verification.
type VerifyOptions struct {
	Platforms []string // of an index, those to verify, such as linux/arm64; empty for all
	Version   string   // imgwrap's own: what an image of the same version has is compared byte for byte
}

// Verification is what verifying a wrapped image found.
type Verification struct {
	Version int     `json:"version"` // PlanVersion
	Image   string  `json:"image"`   // reference as given
	Digest  string  `json:"digest"`
	Checks  []Check `json:"checks"` // in the order they were made
	Kept    []Kept  `json:"kept"`   // of an index, what is not wrapped or was not looked at
}

// Check is one thing that has to hold of a wrapped image.
type Check struct {
	Platform string `json:"platform,omitempty"` // which image of an index it is about
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Detail   string `json:"detail"` // what was found, or if it does not hold the first difference
}

// String is the check in a line.
func (c Check) String() string {
	s := c.Name + ": " + c.Detail
	if c.Platform != "" {
		s = c.Platform + " " + s
	}
	return s
}

// CheckError says that an image is not what it should be.
type CheckError struct {
	Image string
	Check Check // the first that does not hold
}

func (e *CheckError) Error() string { return e.Image + ": " + e.Check.String() }

// Err is a *CheckError if a check does not hold, else nil.
func (v *Verification) Err() error {
	for _, c := range v.Checks {
		if !c.OK {
			return &CheckError{v.Image, c}
		}
	}
	return nil
}

// Verify checks that a wrapped image, or those of an index, are what imgwrap
// makes of their sources, and reads all of them for that. Whatever was changed
// since is in the result. It is an error if nothing was wrapped, or if something
// could not be read.
func (w *Wrapper) Verify(ctx context.Context, ref string, opts VerifyOptions) (*Verification, error) {
	s, err := w.Registry.Find(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	v := &Verification{
		Version: PlanVersion,
		Image:   s.Reference.Name(),
		Digest:  s.Root.Digest.String(),
		Checks:  []Check{},
		Kept:    []Kept{},
	}
	err = v.verify(ctx, w, s, opts)
	if errors.As(err, new(*registry.MismatchError)) {
		v.Checks = append(v.Checks, Check{Name: "documents", Detail: err.Error()})
		err = nil
	}
	if err != nil {
		return nil, about(ref, err)
	}
	return v, nil
}

func (v *Verification) verify(ctx context.Context, w *Wrapper, s *registry.Source, opts VerifyOptions) error {
	t := &target{reference: s.Reference, source: s, root: rootOf(s)}
	if err := w.grow(ctx, s, t.root); err != nil {
		return err
	}
	images := map[*node]*imageVerifier{}
	for _, n := range t.root.images() {
		if im := newImageVerifier(w, n, opts.Version); im != nil {
			images[n] = im
		}
	}
	if len(images) == 0 {
		return t.notWrapped()
	}
	index := t.verifyIndex()
	if err := t.root.choose(opts.Platforms); err != nil {
		return err
	}
	var chosen []*imageVerifier
	for _, n := range t.root.images() {
		if images[n] == nil {
			n.kept = "imgwrap did not wrap it"
			continue
		}
		chosen = append(chosen, images[n])
	}
	if len(chosen) == 0 {
		return &RefusedError{"imgwrap did not wrap any of these platforms", "name another --platform"}
	}
	layers, err := w.readAll(ctx, s, chosen)
	if err != nil {
		return err
	}
	for _, im := range chosen {
		if err := im.verify(ctx, s, layers); err != nil {
			return err
		}
		for _, c := range im.checks {
			if t.root.children != nil {
				c.Platform = im.node.platform().String()
			}
			v.Checks = append(v.Checks, c)
		}
	}
	if index != nil {
		v.Checks = append(v.Checks, *index)
	}
	t.root.each(func(n *node) {
		if n.kept != "" {
			v.Kept = append(v.Kept, Kept{n.name(), n.kept})
		}
	})
	return nil
}

// verifyIndex compares the index with what wrapping makes of the source's. It is
// nil if imgwrap did not make the index.
func (t *target) verifyIndex() *Check {
	if t.root.children == nil {
		return nil
	}
	for _, n := range t.root.images() {
		if n.source.wrapped == nil || n.source.index == nil {
			continue
		}
		var documents []registry.Document
		for _, raw := range n.source.index {
			documents = append(documents, registry.NewDocument(mediaType(raw), raw))
		}
		_, want, err := t.rebuild(documents)
		if err == nil && want.Digest != t.source.Root.Digest {
			if want.Raw == nil {
				err = fmt.Errorf("it is not made of %s, which the images in it say they are from", want.Digest)
			} else {
				err = compare("", want.Raw, t.source.Root.Raw)
			}
		}
		c := newCheck("index", "order, annotations and all that is not wrapped are as in the source", err)
		return &c
	}
	return nil
}

func newCheck(name, detail string, err error) Check {
	if err != nil {
		return Check{Name: name, Detail: err.Error()}
	}
	return Check{Name: name, OK: true, Detail: detail}
}

// A readLayer is what all of a layer's blob says.
type readLayer struct {
	files   *scan.Layer
	diffID  v1.Hash
	problem error // why it could not be read, if what is there is to blame
}

// readAll reads each layer of the images once, whatever the cache knows of it.
func (w *Wrapper) readAll(ctx context.Context, s *registry.Source, images []*imageVerifier) (map[v1.Hash]readLayer, error) {
	layers := map[v1.Hash]readLayer{}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(w.Jobs, 1))
	started := map[v1.Hash]bool{}
	for _, im := range images {
		for _, d := range im.node.opened.Manifest.Layers {
			if started[d.Digest] {
				continue
			}
			started[d.Digest] = true
			g.Go(func() error {
				l, err := w.readWhole(gctx, s, d)
				if err != nil {
					if gctx.Err() != nil || failed(err) {
						return err
					}
					l.problem = err
				}
				mu.Lock()
				defer mu.Unlock()
				layers[d.Digest] = l
				return nil
			})
		}
	}
	return layers, g.Wait()
}

// failed says whether reading an image failed, rather than finding something
// wrong with it.
func failed(err error) bool {
	return errors.As(err, new(*registry.Error)) && !errors.As(err, new(*registry.MismatchError))
}

func (w *Wrapper) readWhole(ctx context.Context, s *registry.Source, d v1.Descriptor) (readLayer, error) {
	r, err := s.Blob(ctx, d)
	if err != nil {
		return readLayer{}, err
	}
	if w.Progress != nil {
		r = w.Progress.Layer(d.Digest.String(), d.Size, r)
	}
	defer r.Close()
	archive, err := scan.Decompress(ctx, r)
	if err != nil {
		return readLayer{}, err
	}
	defer archive.Close()
	sum := sha256.New()
	files, err := scan.Read(ctx, io.TeeReader(archive, sum))
	if err == nil {
		_, err = io.Copy(io.Discard, r) // its end is where the digest is verified
	}
	return readLayer{files: files, diffID: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}}, err
}
