package image

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgwrap/imgwrap/image/instrument"
	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/rewrite"
	"github.com/imgwrap/imgwrap/layer"
)

// Labels of a wrapped image.
const (
	LabelVersion = "io.imgwrap.version" // imgwrap's own version
	LabelSource  = "io.imgwrap.source"  // the source, repository@digest
	LabelRelease = "io.imgwrap.release" // the OpenTelemetry release, stable/contrib
	LabelOrigin  = "io.imgwrap.origin"  // the source's manifest and config, see rewrite.Origin
	LabelIndex   = "io.imgwrap.index"   // the index that the source is in, and the indexes in that, see rewrite.Pack
	LabelSeal    = "io.imgwrap.seal"    // digest of the config without this label
)

// Annotations of a wrapped OCI manifest (OCI image-spec, annotations.md,
// "Pre-Defined Annotation Keys").
const (
	AnnotationBaseName   = "org.opencontainers.image.base.name"
	AnnotationBaseDigest = "org.opencontainers.image.base.digest"
)

// created is the time of the wrapped image: newest-build strategies of image
// updaters then see it as newer than its source, and it is the same on every
// machine.
func created(wanted, source time.Time) time.Time {
	if !wanted.IsZero() {
		return wanted.UTC()
	}
	if source.IsZero() {
		return layer.Epoch
	}
	return source.Add(time.Second).UTC()
}

// baseName is what an image that is published may say of where its source was.
func baseName(r registry.Reference) string {
	switch {
	case r.Transport == registry.InRegistry:
		return r.Name()
	case r.Tag() == "":
		return r.Public()
	}
	return r.Public() + ":" + r.Tag()
}

// write makes the bytes of the new config and manifest.
func (p *ImagePlan) write(src source, choice *instrument.Choice, opts Options) error {
	for _, l := range p.added {
		info := l.layer.Info()
		p.Layers = append(p.Layers, Layer{l.kind, info.Digest.String(), info.DiffID.String(), info.Size, l.brings})
	}
	edit, err := p.edit(src)
	if err != nil {
		return err
	}
	edit.Labels = map[string]string{
		LabelVersion: opts.Version,
		LabelRelease: choice.Release.String(),
	}
	if src.built != nil {
		return p.writeBuilt(src, edit)
	}
	from, base := src.reference.Public()+"@"+src.image.Digest().String(), baseName(src.reference)
	if src.wrapped != nil {
		from, base = src.wrapped.source, cmp.Or(src.wrapped.baseName, base)
	}
	edit.Labels[LabelSource] = from
	edit.Labels[LabelOrigin] = rewrite.Pack(src.image.Manifest, src.image.Config)
	if len(src.index) > 0 {
		edit.Labels[LabelIndex] = rewrite.Pack(src.index...)
	}
	edit.Annotations = map[string]string{
		AnnotationBaseName:   base,
		AnnotationBaseDigest: src.image.Digest().String(),
	}
	edit.Created = created(opts.Created, src.parsed.Created.Time)
	edit.Notes = append(edit.Notes, labelNote(edit.Labels, LabelSeal))
	unsealed, err := rewrite.Config(src.image.Config, edit)
	if err != nil {
		return fmt.Errorf("editing %s: %w", src.reference, err)
	}
	if edit.Labels[LabelSeal], err = seal(unsealed); err != nil {
		return err
	}
	wrapped, subject, err := rewrite.Apply(src.image, edit)
	if err != nil {
		return fmt.Errorf("editing %s: %w", src.reference, err)
	}
	p.wrapped, p.subject = wrapped, subject
	return nil
}

// edit is what the plan changes in an image, whatever that was made of.
func (p *ImagePlan) edit(src source) (rewrite.Edit, error) {
	var edit rewrite.Edit
	for _, v := range p.Env {
		if v.Origin != OriginImage {
			edit.Env = append(edit.Env, rewrite.EnvVar{Name: v.Name, Value: v.Value})
			edit.Notes = append(edit.Notes, "ENV "+v.Name+"="+v.Value)
		}
	}
	if !slices.Equal(p.Entrypoint, src.parsed.Config.Entrypoint) {
		entrypoint, err := json.Marshal(p.Entrypoint)
		if err != nil {
			return rewrite.Edit{}, fmt.Errorf("writing the entry point: %w", err)
		}
		edit.Entrypoint = p.Entrypoint
		edit.Notes = append(edit.Notes, "ENTRYPOINT "+string(entrypoint))
	}
	for _, l := range p.added {
		info := l.layer.Info()
		edit.Layers = append(edit.Layers, rewrite.Layer{
			Digest: info.Digest, Size: info.Size, DiffID: info.DiffID,
			CreatedBy: "imgwrap: " + l.brings,
		})
	}
	return edit, nil
}

// labelNote is the note of a history for labels that are set.
func labelNote(labels map[string]string, more ...string) string {
	return "LABEL " + strings.Join(append(slices.Sorted(maps.Keys(labels)), more...), " ")
}

// seal is a digest of a config without the label that holds it: whether an
// image is still as imgwrap left it. It does not depend on the spelling of the
// JSON, which copying between registries may change.
func seal(config []byte) (string, error) {
	var document map[string]any
	d := json.NewDecoder(bytes.NewReader(config))
	d.UseNumber()
	if err := d.Decode(&document); err != nil {
		return "", fmt.Errorf("reading the config: %w", err)
	}
	if run, ok := document["config"].(map[string]any); ok {
		if labels, ok := run["Labels"].(map[string]any); ok {
			delete(labels, LabelSeal)
		}
	}
	canonical, err := json.Marshal(document)
	if err != nil {
		return "", fmt.Errorf("sealing the config: %w", err)
	}
	sum, _, err := v1.SHA256(bytes.NewReader(canonical))
	return sum.String(), err
}
