package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/rewrite"
)

// target is what a reference stands for, down to the configs of its images.
type target struct {
	reference registry.Reference
	source    *registry.Source
	// root is what is to be wrapped: what the reference stands for, or of
	// something wrapped already, what that was made of.
	root    *node
	wrapped bool
	// referrers waits for what is attached to the documents that wrapping changes.
	referrers func() []referrer
}

// A referrer is attached to a document of the source, by its digest.
type referrer struct {
	registry.Referrer
	subject v1.Hash
}

// open reads the documents that a reference stands for. The caller closes the
// source, if there is no error.
func (w *Wrapper) open(ctx context.Context, ref string) (*target, error) {
	s, err := w.Registry.Find(ctx, ref)
	if err != nil {
		return nil, err
	}
	t := &target{reference: s.Reference, source: s}
	if err := w.look(ctx, t); err != nil {
		s.Close()
		return nil, about(ref, err)
	}
	return t, nil
}

// rootOf is the root of a source's tree, before anything below it is read.
func rootOf(s *registry.Source) *node {
	return &node{descriptor: s.Root.Descriptor(), document: s.Root}
}

// look reads the documents of a target's source.
func (w *Wrapper) look(ctx context.Context, t *target) error {
	t.root = rootOf(t.source)
	if err := w.grow(ctx, t.source, t.root); err != nil {
		return err
	}
	return t.unwrap()
}

// prepare readies a target for writing what is made of it to a destination:
// where layers are kept as they are, they should be compressed.
func (w *Wrapper) prepare(ctx context.Context, t *target, destination registry.Reference) error {
	if t.reference.Transport.KeepsManifests() || !destination.Transport.KeepsManifests() {
		return nil
	}
	if err := t.source.Compress(ctx, max(w.Jobs, 1)); err != nil {
		return err
	}
	return w.look(ctx, t)
}

// grow reads what is below a node, level by level.
func (w *Wrapper) grow(ctx context.Context, s *registry.Source, root *node) error {
	for level := []*node{root}; len(level) > 0; {
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(max(w.Jobs, 1))
		for _, n := range level {
			if n.kept == "" {
				g.Go(func() error { return n.fill(gctx, s, n == root) })
			}
		}
		if err := g.Wait(); err != nil {
			return err
		}
		var next []*node
		for _, n := range level {
			next = append(next, n.children...)
		}
		level = next
	}
	return nil
}

// fill reads a node's document, and what it names directly.
func (n *node) fill(ctx context.Context, s *registry.Source, root bool) (err error) {
	if n.document.Raw == nil {
		if n.document, err = s.Document(ctx, n.descriptor); err != nil {
			return err
		}
	}
	if n.document.MediaType.IsIndex() {
		list, err := descriptors(n.document.Raw)
		for _, d := range list {
			n.children = append(n.children, newNode(d))
		}
		return err
	}
	n.opened, err = s.Image(ctx, n.document)
	if unsupported := (*registry.UnsupportedError)(nil); errors.As(err, &unsupported) && !root {
		n.kept = "no container image"
		return nil
	}
	if err != nil {
		return err
	}
	if platform := n.opened.Config.OS; platform != "" && platform != "linux" && !root {
		n.kept = "for " + platform
		return nil
	}
	n.source = &source{
		reference: s.Reference,
		image:     rewrite.Image{MediaType: n.opened.MediaType, Manifest: n.opened.RawManifest, Config: n.opened.RawConfig},
		parsed:    n.opened.Config,
	}
	return nil
}

// unwrap goes back to the source of what is wrapped already: it is wrapped again
// with today's options, never on top.
func (t *target) unwrap() error {
	var index []registry.Document
	for _, n := range t.root.images() {
		origin, err := originOf(n.source.image, n.source.parsed, t.reference.Transport.KeepsManifests())
		if err != nil {
			return err
		}
		if origin == nil {
			continue
		}
		if was, is := origin.image.MediaType, n.source.image.MediaType; was != is {
			origin.converted = fmt.Sprintf("it was converted to %s since it was wrapped; its source is %s", is, was)
		}
		n.source.image, n.source.parsed, n.source.wrapped = origin.image, origin.parsed, &origin.wrapping
		t.wrapped = true
		index = origin.index
	}
	var err error
	switch {
	case !t.wrapped:
	case t.root.children == nil:
		t.root.document = registry.NewDocument(t.root.source.image.MediaType, t.root.source.image.Manifest)
		t.root.descriptor = t.root.document.Descriptor()
	case index != nil:
		err = t.restore(index)
	default:
		err = t.root.replace()
	}
	indexes := t.root.indexes()
	for _, n := range t.root.images() {
		n.source.index = indexes
	}
	return err
}

// replace puts the sources of images that were wrapped one by one into the
// indexes above them.
func (n *node) replace() error {
	if n.source != nil {
		n.document = registry.NewDocument(n.source.image.MediaType, n.source.image.Manifest)
	}
	edits := map[int]rewrite.Child{}
	for i, c := range n.children {
		if c.kept != "" {
			continue
		}
		was := c.descriptor.Digest
		if err := c.replace(); err != nil {
			return err
		}
		if c.document.Digest != was {
			edits[i] = rewrite.Child{Content: c.document.Raw}
		}
	}
	if len(edits) > 0 {
		raw, _, err := rewrite.Index(n.document.Raw, edits)
		if err != nil {
			return err
		}
		n.document = registry.NewDocument(n.document.MediaType, raw)
	}
	n.descriptor.Digest, n.descriptor.Size = n.document.Digest, int64(len(n.document.Raw))
	return nil
}

// restore takes the tree back to the index that was wrapped. documents are that
// index and those in it. What was found has to be what comes of it by putting
// the wrapped images in and by taking out what is gone.
func (t *target) restore(documents []registry.Document) error {
	var sibling *wrapping
	for _, n := range t.root.images() {
		if n.source.wrapped != nil {
			sibling = n.source.wrapped
		}
	}
	root, now, err := t.rebuild(documents)
	if err != nil {
		return err
	}
	found := t.source.Root
	repository := sibling.repository()
	switch {
	case now.MediaType != "" && now.MediaType != found.MediaType:
		return &RefusedError{
			Problem: fmt.Sprintf("it was converted since imgwrap wrapped it: its index is %q instead of %q", found.MediaType, now.MediaType),
			Remedy:  fmt.Sprintf("copy it without converting it, or take its source, %s@%s", repository, documents[0].Digest),
		}
	case now.Digest != found.Digest && !sameIndex(now.Raw, found.Raw):
		return changedSince(sibling.source, "its index is not the one that imgwrap wrote")
	}
	t.root = root
	// What that wrapping left as it was came from the same place.
	for _, n := range root.images() {
		if n.source.wrapped == nil {
			n.source.wrapped = &wrapping{
				source:   repository + "@" + n.descriptor.Digest.String(),
				baseName: sibling.baseName,
				env:      environ(n.source.parsed.Config.Env),
			}
		}
	}
	return nil
}

// rebuild makes the tree of the source from the documents of its indexes, and the
// index that wrapping makes of that with the images that are there.
func (t *target) rebuild(documents []registry.Document) (root *node, now registry.Document, err error) {
	r := restorer{}
	for _, d := range documents {
		r[d.Digest] = d
	}
	return r.restore(newNode(documents[0].Descriptor()), t.root)
}

// A restorer makes the tree of a source from that of the index wrapped from it.
// It has the indexes of the source.
type restorer map[v1.Hash]registry.Document

// restore returns the node of the source that became the one that is there, if
// it is what became of it, and what the wrapped index should have in its place.
func (r restorer) restore(n, there *node) (_ *node, now registry.Document, err error) {
	digest := n.descriptor.Digest
	doc, isIndex := r[digest]
	switch {
	case there.descriptor.Digest == digest:
		there.descriptor = n.descriptor
		return there, registry.Document{Digest: digest}, nil
	case isIndex && there.children != nil:
		now, err = r.restoreIndex(n, doc, there.children)
		return n, now, err
	case there.source != nil && there.source.wrapped != nil && there.source.image.Digest() == digest:
		n.opened, n.source = there.opened, there.source
		n.document = registry.NewDocument(n.source.image.MediaType, n.source.image.Manifest)
		return n, there.document, nil
	}
	return nil, registry.Document{}, nil
}

// restoreIndex goes through the children of an index in step with those that are
// there: wrapping keeps their order. What has no counterpart was taken out.
func (r restorer) restoreIndex(n *node, doc registry.Document, there []*node) (registry.Document, error) {
	n.document = doc
	list, err := descriptors(doc.Raw)
	if err != nil {
		return registry.Document{}, err
	}
	edits := map[int]rewrite.Child{}
	for i, d := range list {
		var child *node
		var now registry.Document
		if len(there) > 0 {
			if child, now, err = r.restore(newNode(d), there[0]); err != nil {
				return registry.Document{}, err
			}
		}
		switch {
		case child == nil:
			child = newNode(d)
			child.missing = true
			if child.describes != "" {
				edits[i] = rewrite.Child{Drop: true}
			}
		case now.Digest != d.Digest:
			edits[i] = rewrite.Child{Content: now.Raw}
		}
		if !child.missing {
			there = there[1:]
		}
		n.children = append(n.children, child)
	}
	raw, _, err := rewrite.Index(doc.Raw, edits)
	if err != nil {
		return registry.Document{}, err
	}
	return registry.NewDocument(doc.MediaType, raw), nil
}

// findReferrers asks for what is attached to the root and to the images in it,
// while other things go on. What the index lists itself is not among it.
func (t *target) findReferrers(ctx context.Context) {
	listed := map[string]bool{}
	t.root.each(func(n *node) { listed[n.descriptor.Digest.String()] = true })
	subjects := []v1.Hash{t.root.descriptor.Digest}
	for _, n := range t.root.images() {
		if n != t.root {
			subjects = append(subjects, n.descriptor.Digest)
		}
	}
	lists := make([][]registry.Referrer, len(subjects))
	var wg sync.WaitGroup
	for i, subject := range subjects {
		wg.Go(func() { lists[i] = t.source.Referrers(ctx, subject) })
	}
	t.referrers = func() (all []referrer) {
		wg.Wait()
		for i, list := range lists {
			for _, r := range list {
				if !listed[r.Name] {
					all = append(all, referrer{r, subjects[i]})
				}
			}
		}
		return all
	}
}

// each calls f for the node and all below it.
func (n *node) each(f func(*node)) {
	f(n)
	for _, c := range n.children {
		c.each(f)
	}
}

// layers are those of the source of a node's image.
func (n *node) layers() []v1.Descriptor {
	return n.opened.Manifest.Layers[:len(n.source.parsed.RootFS.DiffIDs)]
}

// parsePlatforms reads what --platform is given.
func parsePlatforms(platforms []string) ([]*v1.Platform, error) {
	specs := make([]*v1.Platform, len(platforms))
	for i, wanted := range platforms {
		spec, err := v1.ParsePlatform(wanted)
		if err != nil || spec.OS == "" || spec.Architecture == "" {
			return nil, &UsageError{"--platform " + wanted + " is no platform", "write OS/ARCHITECTURE, such as linux/arm64"}
		}
		specs[i] = spec
	}
	return specs, nil
}

// choose keeps as they are the images that are of none of the platforms, if
// there are any.
func (n *node) choose(platforms []string) error {
	images := n.images()
	if os := n.platform().OS; os != "" && os != "linux" && n.children == nil {
		return &RefusedError{"it is an image for " + os, "imgwrap wraps images for Linux"}
	}
	if len(images) == 0 {
		return &RefusedError{"the index lists no image for Linux", "name an image of Linux"}
	}
	if len(platforms) == 0 {
		return nil
	}
	specs, err := parsePlatforms(platforms)
	if err != nil {
		return err
	}
	chosen := map[*node]bool{}
	for i, wanted := range platforms {
		found := false
		there := map[string]bool{}
		for _, im := range images {
			own := im.platform()
			there[own.String()] = true
			if own.Satisfies(*specs[i]) {
				chosen[im], found = true, true
			}
		}
		if !found {
			return &UsageError{"--platform " + wanted + ": the image has none of it", "there is " + strings.Join(slices.Sorted(maps.Keys(there)), ", ")}
		}
	}
	for _, im := range images {
		if !chosen[im] {
			im.kept, im.source = "not of the platforms asked for", nil
		}
	}
	return nil
}
