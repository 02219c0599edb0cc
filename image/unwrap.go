package image

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/image/registry"
)

// UnwrapReport is what undoing a wrapping did.
type UnwrapReport struct {
	Version int             `json:"version"` // PlanVersion
	Wrapped string          `json:"wrapped"` // reference as given
	Image   string          `json:"image"`   // repository, with the tag if one was moved
	Tag     string          `json:"tag,omitempty"`
	Digest  string          `json:"digest"` // of the source
	Notes   []string        `json:"notes"`  // what was different from what imgwrap wrote, and does not matter
	Push    registry.Report `json:"push"`

	destination registry.Reference
}

// Name is the source by digest, repository@digest.
func (r *UnwrapReport) Name() string { return byDigest(r.destination, r.Digest) }

// Unwrap gives back the image or index that a wrapped one was made from, byte
// for byte: from its labels, and where these do not have all of it from the
// registry. No tag is moved unless the destination says so.
func (w *Wrapper) Unwrap(ctx context.Context, ref string, to Destination) (*UnwrapReport, error) {
	t, err := w.open(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer t.source.Close()
	report, err := w.unwrap(ctx, t, to)
	return report, about(ref, err)
}

func (w *Wrapper) unwrap(ctx context.Context, t *target, to Destination) (*UnwrapReport, error) {
	if !t.wrapped {
		return nil, t.notWrapped()
	}
	destination, err := w.unwrapped(t, to)
	if err != nil {
		return nil, err
	}
	if err := w.prepare(ctx, t, destination); err != nil {
		return nil, err
	}
	source, tree, err := w.sourceTree(ctx, t)
	if err != nil {
		return nil, err
	}
	if source != t.source {
		defer source.Close()
	}
	pushed, err := w.Registry.Write(ctx, destination, source, tree)
	if err != nil {
		return nil, err
	}
	report := &UnwrapReport{
		Version:     PlanVersion,
		Wrapped:     t.reference.Name(),
		Image:       destination.Repository(),
		Tag:         destination.Tag(),
		Digest:      pushed.Digest.String(),
		Notes:       []string{},
		Push:        pushed,
		destination: destination,
	}
	for _, n := range t.root.images() {
		if n.source.wrapped != nil && n.source.wrapped.converted != "" {
			report.Notes = append(report.Notes, n.source.wrapped.converted)
		}
	}
	if report.Tag != "" {
		report.Image = destination.Name()
	}
	return report, nil
}

// unwrapped is where the source goes: by default into the wrapped image's
// repository, known by its digest alone.
func (w *Wrapper) unwrapped(t *target, to Destination) (registry.Reference, error) {
	digest := t.root.descriptor.Digest.String()
	if to != (Destination{}) {
		return to.resolve(w.Registry, t.reference, digest, false)
	}
	if t.reference.Transport != registry.InRegistry {
		return registry.Reference{}, &UsageError{"only a registry keeps an image without a tag", "give a --tag, or --in-place"}
	}
	return w.Registry.ParseReference(t.reference.Repository() + "@" + digest)
}

// sourceTree returns what the source consists of and where to read what the tree
// does not hold.
func (w *Wrapper) sourceTree(ctx context.Context, t *target) (*registry.Source, registry.Tree, error) {
	tree := registry.Tree{Root: t.root.document}
	var missing []string
	repository := ""
	t.root.each(func(n *node) {
		if n.missing {
			missing = append(missing, n.descriptor.Digest.String())
		}
		if n.document.Raw != nil && n != t.root {
			tree.Documents = append(tree.Documents, n.document)
		}
		if n.source != nil && n.source.wrapped != nil {
			tree.Configs = append(tree.Configs, n.source.image.Config)
			repository = n.source.wrapped.repository()
		}
	})
	if missing == nil {
		return t.source, tree, nil
	}
	// What wrapping took out of the index is where the source was, if anywhere.
	places := slices.Compact([]string{t.reference.Repository(), repository})
	var reasons []string
	for _, place := range places {
		s, err := w.Registry.Find(ctx, place+"@"+tree.Root.Digest.String())
		if err == nil {
			return s, registry.Tree{Root: s.Root}, nil
		}
		if ctx.Err() != nil {
			return nil, registry.Tree{}, err
		}
		reasons = append(reasons, err.Error())
	}
	return nil, registry.Tree{}, &RefusedError{
		Problem: fmt.Sprintf("wrapping took %s out of its index, and only the source still has it: %s", strings.Join(missing, ", "), strings.Join(reasons, "; ")),
		Remedy:  "wrap with --attestations keep what has to be unwrapped elsewhere",
	}
}
