package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/rewrite"
)

// An origin is what a wrapped image was made from, by its own labels.
type origin struct {
	image  rewrite.Image       // of one platform, the source
	parsed *v1.ConfigFile      // its config
	index  []registry.Document // the index that the source was in and the indexes in that, if it was in one
	wrapping
}

// wrapping is what a wrapped image says of how it was made.
type wrapping struct {
	source   string // label: repository@digest
	baseName string // annotation of an OCI manifest, "" if there is none
	env      map[string]string
	// converted says that the image has another family's manifest by now. It is
	// "" if it has not.
	converted string
}

// repository is the one that the source was in.
func (w *wrapping) repository() string {
	repository, _, _ := strings.Cut(w.source, "@")
	return repository
}

// originOf reads the labels of an image of one platform. It is nil if imgwrap
// did not wrap the image. Of an image that was changed since there is no way
// back: the error says what is different.
//
// Where manifests are not kept, the image has one that was made up, and so will
// its source.
func originOf(im rewrite.Image, parsed *v1.ConfigFile, manifestsKept bool) (*origin, error) {
	o, err := readOrigin(im, parsed)
	if o == nil || err != nil {
		return nil, err
	}
	var before, now v1.Manifest
	if err := errors.Join(json.Unmarshal(o.image.Manifest, &before), json.Unmarshal(im.Manifest, &now)); err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	// An image that was built on the wrapped one has its labels too.
	changes := configChanges(o.parsed, parsed)
	if manifestsKept {
		changes = append(layerChanges(before.Layers, now.Layers), changes...)
	}
	if len(changes) > 0 {
		return nil, changedSince(o.source, changes...)
	}
	if !manifestsKept {
		// As many layers, by their diff IDs the same ones.
		doc, err := registry.MakeManifest(o.image.Config, now.Layers[:len(o.parsed.RootFS.DiffIDs)])
		if err != nil {
			return nil, err
		}
		o.image.MediaType, o.image.Manifest = doc.MediaType, doc.Raw
	}
	sealed, err := seal(im.Config)
	if err != nil {
		return nil, err
	}
	if sealed != parsed.Config.Labels[LabelSeal] {
		return nil, changedSince(o.source, "its config is not the one that imgwrap wrote")
	}
	return o, nil
}

// readOrigin is originOf for an image that may have been changed.
func readOrigin(im rewrite.Image, parsed *v1.ConfigFile) (*origin, error) {
	labels := parsed.Config.Labels
	label, ok := labels[LabelOrigin]
	if !ok {
		return nil, nil
	}
	o := &origin{parsed: new(v1.ConfigFile), wrapping: wrapping{source: labels[LabelSource], env: environ(parsed.Config.Env)}}
	manifest, config, err := unpackImage(label)
	if err == nil {
		o.image = rewrite.Image{MediaType: mediaType(manifest), Manifest: manifest, Config: config}
		err = errors.Join(json.Unmarshal(config, o.parsed), json.Unmarshal(manifest, new(v1.Manifest)))
	}
	if err != nil {
		return nil, fmt.Errorf("reading the label %s: %w", LabelOrigin, err)
	}
	var now v1.Manifest
	if err := json.Unmarshal(im.Manifest, &now); err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	o.baseName = now.Annotations[AnnotationBaseName]
	if packed, ok := labels[LabelIndex]; ok {
		documents, err := rewrite.Unpack(packed)
		if err != nil {
			return nil, fmt.Errorf("reading the label %s: %w", LabelIndex, err)
		}
		for _, raw := range documents {
			o.index = append(o.index, registry.NewDocument(mediaType(raw), raw))
		}
	}
	return o, nil
}

// unpackImage unpacks the label of an image of one platform.
func unpackImage(label string) (manifest, config []byte, err error) {
	documents, err := rewrite.Unpack(label)
	if err != nil {
		return nil, nil, err
	}
	if len(documents) != 2 {
		return nil, nil, fmt.Errorf("it holds %d documents instead of manifest and config", len(documents))
	}
	return documents[0], documents[1], nil
}

// changedSince refuses an image that was changed after it was wrapped.
func changedSince(source string, what ...string) error {
	return &RefusedError{
		Problem: "it was made of an image that imgwrap wrapped, and changed since: " + strings.Join(what, "; "),
		Remedy:  "build it on the image without OpenTelemetry, " + source + ", and wrap the result",
	}
}

// layerChanges says what is different from the source's layers with ours on top.
func layerChanges(before, now []v1.Descriptor) []string {
	for i, d := range before {
		if i >= len(now) {
			return []string{fmt.Sprintf("it has %d layers where its source has %d", len(now), len(before))}
		}
		if now[i].Digest != d.Digest {
			return []string{fmt.Sprintf("layer %d is %s instead of its source's %s", i+1, now[i].Digest, d.Digest)}
		}
	}
	return nil
}

// sameIndex says whether two indexes are the same to tools that know no more than
// the OCI image-spec 1.0, and drop the rest when they copy an index.
func sameIndex(a, b []byte) bool {
	known := func(raw []byte) []byte {
		var index struct {
			Manifests []struct {
				MediaType   types.MediaType   `json:"mediaType"`
				Digest      v1.Hash           `json:"digest"`
				Size        int64             `json:"size"`
				Annotations map[string]string `json:"annotations"`
				Platform    v1.Platform       `json:"platform"`
			} `json:"manifests"`
			Annotations map[string]string `json:"annotations"`
		}
		if err := json.Unmarshal(raw, &index); err != nil {
			return nil
		}
		text, err := json.Marshal(index)
		if err != nil {
			return nil
		}
		return text
	}
	text := known(a)
	return text != nil && bytes.Equal(text, known(b))
}

// configChanges names what differs between the configs although wrapping never
// changes it.
func configChanges(before, now *v1.ConfigFile) []string {
	var changes []string
	for _, field := range []struct {
		name        string
		before, now any
	}{
		{"Cmd", before.Config.Cmd, now.Config.Cmd},
		{"User", before.Config.User, now.Config.User},
		{"WorkingDir", before.Config.WorkingDir, now.Config.WorkingDir},
		{"ExposedPorts", before.Config.ExposedPorts, now.Config.ExposedPorts},
		{"Volumes", before.Config.Volumes, now.Config.Volumes},
		{"Healthcheck", before.Config.Healthcheck, now.Config.Healthcheck},
		{"Shell", before.Config.Shell, now.Config.Shell},
		{"StopSignal", before.Config.StopSignal, now.Config.StopSignal},
	} {
		b, errBefore := json.Marshal(field.before)
		n, errNow := json.Marshal(field.now)
		if errBefore != nil || errNow != nil || !bytes.Equal(b, n) {
			changes = append(changes, fmt.Sprintf("%s is %s instead of %s", field.name, n, b))
		}
	}
	if n, m := len(now.RootFS.DiffIDs), len(before.RootFS.DiffIDs); n < m || !slices.Equal(now.RootFS.DiffIDs[:m], before.RootFS.DiffIDs) {
		changes = append(changes, "its diff IDs do not begin with its source's")
	}
	return changes
}

// mediaType is what a manifest or index says it is, or what it has to be if it
// says nothing (OCI image-spec, manifest.md and image-index.md: the field is
// optional).
func mediaType(raw []byte) types.MediaType {
	var doc struct {
		MediaType types.MediaType `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
	}
	switch err := json.Unmarshal(raw, &doc); {
	case err == nil && doc.MediaType != "":
		return doc.MediaType
	case doc.Manifests != nil:
		return types.OCIImageIndex
	}
	return types.OCIManifestSchema1
}
