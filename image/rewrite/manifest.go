package rewrite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// MaxLayers is the number of layers an image can have to run everywhere: Docker
// with overlay2 mounts 127 and keeps two for itself (maxLayerDepth in moby).
const MaxLayers = 125

// A LayerLimitError refuses an image that would have more than MaxLayers layers.
type LayerLimitError struct {
	Layers, Added int // of the source, and to be added
}

func (e *LayerLimitError) Error() string {
	return fmt.Sprintf("the image has %d layers and would have %d, more than the %d that every container engine can run", e.Layers, e.Layers+e.Added, MaxLayers)
}

// Hint says what helps.
func (e *LayerLimitError) Hint() string {
	return "merge layers when building the image: join RUN instructions, use a multi-stage build, or --squash"
}

// An Image is an image's documents as a registry keeps them.
type Image struct {
	MediaType        types.MediaType // of the manifest
	Manifest, Config []byte
}

// Digest is the digest of the manifest: what the image is known by.
func (im Image) Digest() v1.Hash {
	return descriptor(im.Manifest).Digest
}

// Apply applies an edit to config and manifest. The manifest keeps its media
// type, and the layers get the one of its family: Docker's and the OCI's are
// never mixed, as podman, CRI-O and skopeo refuse such images.
//
// A manifest's subject says that it belongs to another one; that one was about
// other bytes, so it is dropped, and returned for the caller to report.
func Apply(im Image, e Edit) (_ Image, subject *v1.Descriptor, _ error) {
	config, err := Config(im.Config, e)
	if err != nil {
		return Image{}, nil, err
	}
	manifest, subject, err := Manifest(im.Manifest, im.MediaType, config, e)
	if err != nil {
		return Image{}, nil, err
	}
	return Image{MediaType: im.MediaType, Manifest: manifest, Config: config}, subject, nil
}

// Manifest applies an edit to an image manifest of the given media type: config
// becomes its config, the edit's layers are added, its annotations set. See
// Apply for the subject.
func Manifest(raw []byte, mediaType types.MediaType, config []byte, e Edit) (_ []byte, subject *v1.Descriptor, _ error) {
	doc, err := document(raw, "config", "layers", "annotations", "subject")
	if err != nil {
		return nil, nil, fmt.Errorf("manifest %w", err)
	}

	if doc.get("config") == "" {
		return nil, nil, errors.New("manifest has no config")
	}
	desc, err := object(doc.get("config"), "digest", "size", "data")
	if err != nil {
		return nil, nil, fmt.Errorf("manifest: config %w", err)
	}
	d := descriptor(config)
	desc.set("digest", encode(d.Digest.String()))
	desc.set("size", encode(d.Size))
	desc.remove("data") // the old config, embedded
	doc.set("config", desc.String())

	layers, err := array(doc.get("layers"))
	if err != nil {
		return nil, nil, fmt.Errorf("manifest: layers %w", err)
	}
	if n := len(layers.items); n+len(e.Layers) > MaxLayers {
		return nil, nil, &LayerLimitError{Layers: n, Added: len(e.Layers)}
	}
	layerType := types.OCILayer
	if mediaType == types.DockerManifestSchema2 {
		layerType = types.DockerLayer
	}
	for _, l := range e.Layers {
		layers.add(item{value: encode(struct {
			MediaType types.MediaType `json:"mediaType"`
			Size      int64           `json:"size"`
			Digest    string          `json:"digest"`
		}{layerType, l.Size, l.Digest.String()})})
	}
	doc.set("layers", layers.String())

	if len(e.Annotations) > 0 && mediaType != types.DockerManifestSchema2 {
		annotations, err := editMap(doc.get("annotations"), e.Annotations)
		if err != nil {
			return nil, nil, fmt.Errorf("manifest: annotations %w", err)
		}
		doc.set("annotations", annotations)
	}

	if text := doc.get("subject"); text != "" {
		if err := json.Unmarshal([]byte(text), &subject); err != nil {
			return nil, nil, fmt.Errorf("manifest: subject is not a descriptor: %w", err)
		}
		doc.remove("subject")
	}
	return []byte(doc.String()), subject, nil
}

func descriptor(content []byte) v1.Descriptor {
	digest, size, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		panic(err) // not reached: a bytes.Reader does not fail
	}
	return v1.Descriptor{Size: size, Digest: digest}
}
