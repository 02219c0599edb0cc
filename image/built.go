package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgwrap/imgwrap/image/rewrite"
	"github.com/imgwrap/imgwrap/image/scan"
	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// Built is the image of one platform that a build has made and not yet
// exported: it has neither a manifest nor a digest.
type Built struct {
	Platform v1.Platform
	// Config is what the build hands to its exporter, which completes it: diff
	// IDs are those of the exported layers.
	Config []byte
	Files  *scan.Index
	// Name is what the application is called, "" if nothing tells.
	Name string
	// OneLayer says that the builder puts all that is added into one layer.
	OneLayer bool
}

// BuiltPlan is what becomes of a [Built] image.
type BuiltPlan struct {
	*ImagePlan // nil if it stays as it is

	Kept   string // why it stays as it is
	Config []byte // for the exporter
	Added  []BuiltLayer
	// Distributions are those of the bundle that take effect.
	Distributions []catalog.Distribution
}

// BuiltLayer is a layer that goes on top of a built image's.
type BuiltLayer struct {
	Layer
	// Tag names it in a repository of layers that many images share, "" if it is
	// this image's own.
	Tag   string
	layer *layer.Layer
}

// Archive is the layer as a tar archive, if it is the image's own: others are
// where images share them.
func (l BuiltLayer) Archive() (io.ReadCloser, error) {
	if l.Tag != "" {
		return nil, fmt.Errorf("the layer %s is in a registry", l.Tag)
	}
	return l.layer.Uncompressed()
}

// PlanBuilt decides about the images that one build made for several platforms,
// as [Wrapper.Plan] does about those of an index. The plans are in the order of
// the images; warnings are about all of them together.
//
// Nothing is written into a registry, so Options' destination, layers,
// attestations and time are without effect.
func PlanBuilt(ctx context.Context, images []Built, opts Options, c *catalog.Catalog) (plans []*BuiltPlan, warnings []string, err error) {
	if release := opts.Instrument.Release; release != "" {
		if _, err := c.Find(release); err != nil {
			return nil, nil, err
		}
	}
	root := &node{children: []*node{}}
	for _, im := range images {
		n, err := im.node()
		if err != nil {
			return nil, nil, err
		}
		root.children = append(root.children, n)
	}
	nodes := root.children
	if len(nodes) == 1 {
		root = nodes[0]
	}
	if err := root.choose(opts.Platforms); err != nil {
		return nil, nil, err
	}
	// Only what the catalog has recorded of them is needed.
	recorded := &bundle.Builder{}
	layers := prebuilt{
		bundle: func(r *catalog.Release) (*layer.Layer, error) { return recorded.Deferred(ctx, r) },
		native: func(r *catalog.Release, architecture string) (*layer.Layer, error) {
			return recorded.Native(ctx, r, architecture)
		},
		bytecode: func(*catalog.Release, string) (*layer.Layer, error) { return nil, fs.ErrNotExist },
	}
	if len(nodes) == 1 {
		if root.plan, err = root.decide(opts, c, layers); err != nil {
			return nil, nil, err
		}
	} else {
		index := &IndexPlan{}
		if err := index.decide(root.images(), opts, c, layers); err != nil {
			return nil, nil, err
		}
		warnings = index.Warnings
	}
	for _, n := range nodes {
		plans = append(plans, n.built())
	}
	return plans, warnings, nil
}

func (b Built) node() (*node, error) {
	parsed, err := v1.ParseConfigFile(bytes.NewReader(b.Config))
	if err != nil {
		return nil, fmt.Errorf("reading the config of the built image for %s: %w", b.Platform.String(), err)
	}
	n := &node{descriptor: v1.Descriptor{Platform: &b.Platform}}
	if b.Platform.OS != "linux" {
		n.kept = "for " + b.Platform.OS
	}
	n.source = &source{image: rewrite.Image{Config: b.Config}, parsed: parsed, files: b.Files, built: &b}
	return n, nil
}

// built is what became of a node that is a built image.
func (n *node) built() *BuiltPlan {
	p := &BuiltPlan{ImagePlan: n.plan, Kept: n.kept}
	if n.plan == nil {
		return p
	}
	p.Config = n.plan.wrapped.Config
	p.Distributions = n.plan.effective
	for i, l := range n.plan.added {
		p.Added = append(p.Added, BuiltLayer{Layer: n.plan.Layers[i], Tag: l.tag, layer: l.layer})
	}
	return p
}

// checkBuilt refuses a built image whose base has OpenTelemetry from imgwrap
// already.
func (s *source) checkBuilt() error {
	labels := s.parsed.Config.Labels
	release, ok := labels[LabelRelease]
	if s.built == nil || !ok {
		return nil
	}
	remedy := "build on an image without it"
	if from := labels[LabelSource]; from != "" {
		remedy += ", " + from
	}
	return &RefusedError{fmt.Sprintf("it is built on an image that has OpenTelemetry %s from imgwrap already", release), remedy}
}

// writeBuilt makes the new config of a built image. It says what was added, and
// not what it was made from: that has no name, and there is no way back.
func (p *ImagePlan) writeBuilt(src source, edit rewrite.Edit) error {
	edit.Notes = append(edit.Notes, labelNote(edit.Labels))
	if src.built.OneLayer {
		var brings []string
		for _, l := range p.added {
			brings = append(brings, l.brings)
		}
		edit.Layers = []rewrite.Layer{{CreatedBy: "imgwrap: " + strings.Join(brings, "; ")}}
	}
	config, err := rewrite.BuiltConfig(src.image.Config, edit)
	if err != nil {
		return fmt.Errorf("editing the config of the built image: %w", err)
	}
	p.wrapped.Config = config
	return nil
}

// instrumentedInBuild says of an image with OpenTelemetry from imgwrap that no
// wrapping put it there, as there is no way back to an image without it.
func instrumentedInBuild(n *node) error {
	labels := n.source.parsed.Config.Labels
	if labels[LabelRelease] == "" || labels[LabelOrigin] != "" || n.source.wrapped != nil || n.source.built != nil {
		return nil
	}
	return &RefusedError{
		fmt.Sprintf("it was instrumented when it was built, with OpenTelemetry %s", labels[LabelRelease]),
		"use it as it is, or build it without imgwrap and wrap the result",
	}
}

// notWrapped says why there is nothing to take back or to verify.
func (t *target) notWrapped() error {
	for _, n := range t.root.images() {
		if err := instrumentedInBuild(n); err != nil {
			return err
		}
	}
	return &RefusedError{"imgwrap did not wrap it", "imgwrap inspect shows what is in it"}
}
