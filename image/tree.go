package image

import (
	"encoding/json"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/rewrite"
)

// A node is one of the documents that a reference stands for: an index, or what
// an index lists.
type node struct {
	descriptor v1.Descriptor     // as the index above has it; of the root its own
	document   registry.Document // of an index or an image that may be wrapped, else empty
	children   []*node           // of an index, in its order
	kept       string            // why it stays as it is; "" of an index, and of an image that may be wrapped
	describes  string            // digest of the image that it attests something about
	missing    bool              // nobody has it any more: an earlier wrapping dropped it
	opened     *registry.Image   // of an image that may be wrapped, as it was found
	source     *source           // of it: where it was wrapped before, what it was wrapped from
	plan       *ImagePlan        // of one that is
}

// Annotations that BuildKit gives to the attestations in an index
// (docs/attestations/attestation-storage.md in moby/buildkit).
const (
	annotationReferenceType   = "vnd.docker.reference.type"
	annotationReferenceDigest = "vnd.docker.reference.digest"
)

// newNode says what a descriptor of an index is, as far as the descriptor tells.
func newNode(d v1.Descriptor) *node {
	n := &node{descriptor: d}
	switch p := d.Platform; {
	case d.Annotations[annotationReferenceType] != "":
		n.describes = d.Annotations[annotationReferenceDigest]
		n.kept = "an attestation of another image"
	case d.MediaType.IsIndex():
	case !d.MediaType.IsImage() || d.ArtifactType != "" && !types.MediaType(d.ArtifactType).IsConfig(): // crane gives images the type of their configs
		n.kept = "no image"
	case p == nil:
	case p.OS == "unknown" || p.Architecture == "unknown":
		n.kept = "of an unknown platform"
	case p.OS != "" && p.OS != "linux":
		n.kept = "for " + p.OS
	}
	return n
}

// descriptors are those that an index lists.
func descriptors(index []byte) ([]v1.Descriptor, error) {
	var doc struct {
		Manifests []v1.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(index, &doc); err != nil {
		return nil, fmt.Errorf("reading an index: %w", err)
	}
	return doc.Manifests, nil
}

// images are the images at and below the node that may be wrapped.
func (n *node) images() []*node {
	if n.source != nil && n.kept == "" {
		return []*node{n}
	}
	var found []*node
	for _, c := range n.children {
		found = append(found, c.images()...)
	}
	return found
}

// platform is that of an image.
func (n *node) platform() v1.Platform {
	if p := n.descriptor.Platform; p != nil && p.Architecture != "" {
		return *p
	}
	if n.source != nil {
		return platform(n.source.parsed)
	}
	return v1.Platform{}
}

// platform is that of a config, which may say nothing of it.
func platform(c *v1.ConfigFile) v1.Platform {
	if p := c.Platform(); p != nil {
		return *p
	}
	return v1.Platform{}
}

// name is what messages call the node.
func (n *node) name() string {
	platform := n.platform()
	if platform.OS == "" || platform.OS == "unknown" {
		return n.descriptor.Digest.String()
	}
	return platform.String() + " " + n.descriptor.Digest.String()
}

// indexes are the documents of the indexes at and below the node, the topmost
// first.
func (n *node) indexes() [][]byte {
	if n.children == nil {
		return nil
	}
	all := [][]byte{n.document.Raw}
	for _, c := range n.children {
		all = append(all, c.indexes()...)
	}
	return all
}

// wrapped is what becomes of the tree below a node.
type wrapped struct {
	tree    registry.Tree
	kept    []Kept
	dropped []string
}

// An AttestationPolicy says what becomes of attestations about images that are
// wrapped: about other bytes, then.
type AttestationPolicy string

// The policies.
const (
	DropAttestations AttestationPolicy = "drop" // take them out of the index, and say so
	KeepAttestations AttestationPolicy = "keep" // leave them in the index
	FailAttestations AttestationPolicy = "fail" // refuse to wrap
)

// wrap puts the images' new documents into the indexes above them.
func (n *node) wrap(policy AttestationPolicy) (*wrapped, error) {
	w := &wrapped{}
	changed := map[string]bool{} // digests of the images as they were
	n.each(func(im *node) {
		if im.plan != nil {
			changed[im.descriptor.Digest.String()] = true
		}
	})
	root, err := n.rewrite(w, policy, changed)
	if err != nil {
		return nil, err
	}
	w.tree.Root = root
	// The root is no document below itself.
	w.tree.Documents = slices.DeleteFunc(w.tree.Documents, func(d registry.Document) bool { return d.Digest == root.Digest })
	return w, nil
}

func (n *node) rewrite(w *wrapped, policy AttestationPolicy, changed map[string]bool) (registry.Document, error) {
	if n.plan != nil {
		im := n.plan.wrapped
		doc := registry.NewDocument(im.MediaType, im.Manifest)
		w.tree.Documents = append(w.tree.Documents, doc)
		w.tree.Configs = append(w.tree.Configs, im.Config)
		for _, l := range n.plan.added {
			w.tree.Layers = append(w.tree.Layers, l.layer)
		}
		if subject := n.plan.subject; subject != nil {
			w.dropped = append(w.dropped, fmt.Sprintf("subject %s of %s: the source was attached to it, the wrapped image is another one", subject.Digest, n.name()))
		}
		return doc, nil
	}
	edits := map[int]rewrite.Child{}
	for i, c := range n.children {
		stale := changed[c.describes]
		switch {
		case c.missing:
			edits[i] = rewrite.Child{Drop: true}
			w.dropped = append(w.dropped, fmt.Sprintf("%s: an earlier wrapping took it out of the index, and the source is gone", c.name()))
			continue
		case stale && policy == FailAttestations:
			return registry.Document{}, &RefusedError{
				Problem: fmt.Sprintf("%s attests something about %s, which wrapping changes", c.name(), c.describes),
				Remedy:  "--attestations drop takes it out of the index, --attestations keep leaves it there",
			}
		case stale && policy != KeepAttestations:
			edits[i] = rewrite.Child{Drop: true}
			w.dropped = append(w.dropped, fmt.Sprintf("attestation %s of %s: it is about the image as it was", c.descriptor.Digest, c.describes))
			continue
		case c.kept != "":
			w.kept = append(w.kept, Kept{c.name(), c.kept})
			continue
		}
		doc, err := c.rewrite(w, policy, changed)
		if err != nil {
			return registry.Document{}, err
		}
		if doc.Digest != c.descriptor.Digest {
			edits[i] = rewrite.Child{Content: doc.Raw}
		}
	}
	raw, subject, err := rewrite.Index(n.document.Raw, edits)
	if err != nil {
		return registry.Document{}, err
	}
	if subject != nil {
		w.dropped = append(w.dropped, fmt.Sprintf("subject %s of the index: the source was attached to it, the wrapped image is another one", subject.Digest))
	}
	doc := registry.NewDocument(n.document.MediaType, raw)
	if doc.Digest != n.descriptor.Digest {
		w.tree.Documents = append(w.tree.Documents, doc)
	}
	return doc, nil
}
