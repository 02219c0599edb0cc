package image

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// DockerfileTag is the tag under which a repository of published layers keeps
// those of a release that Dockerfiles copy: the bundle and a launcher that fits
// every image, and protobuf's native code if native.
func DockerfileTag(release string, native bool) string {
	if native {
		return release + "-dockerfile-native"
	}
	return release + "-dockerfile"
}

// bundleTag and nativeTag are the tags of the layers that wrapped images share.
func bundleTag(r *catalog.Release) string { return r.Version }

func nativeTag(r *catalog.Release, architecture string) string {
	return r.Version + "-native-" + architecture
}

// dockerfilePlatforms are those that Dockerfiles can be built for. A builder
// finds nothing to copy in an index without its own.
var dockerfilePlatforms = []v1.Platform{
	{OS: "linux", Architecture: "amd64"},
	{OS: "linux", Architecture: "arm64"},
	{OS: "linux", Architecture: "arm", Variant: "v7"},
	{OS: "linux", Architecture: "arm", Variant: "v6"},
	{OS: "linux", Architecture: "386"},
	{OS: "linux", Architecture: "ppc64le"},
	{OS: "linux", Architecture: "s390x"},
	{OS: "linux", Architecture: "riscv64"},
}

// PushedLayer is a tag of a repository of layers.
type PushedLayer struct {
	Release string          `json:"release"`
	Image   string          `json:"image"` // repository:tag
	Tag     string          `json:"tag"`
	Digest  string          `json:"digest"`
	Push    registry.Report `json:"push"`
}

// publication is an image or index that is to stand under a tag.
type publication struct {
	release *catalog.Release
	kept    registry.Reference
	tree    registry.Tree
	report  registry.Report
}

// PushLayers puts the layers of releases, by either version's name or if there
// are none of all, into a repository: those that Options.Layers has wrapped
// images mount, each as an image of its own, and those that Dockerfiles copy, as
// indexes of every platform. Their bytes depend on nothing but the release and
// the launcher. What is there is neither built nor sent again. No tag is written
// before all that the tags are to stand for is there.
func (w *Wrapper) PushLayers(ctx context.Context, repository string, releases []string) ([]PushedLayer, error) {
	if _, err := name.NewRepository(repository); err != nil {
		return nil, &UsageError{
			fmt.Sprintf("%q is not a repository", repository),
			"give a repository of a registry without tag or digest, such as registry.example.com/otel",
		}
	}
	reference, err := w.Registry.ParseReference(repository)
	if err != nil {
		return nil, err
	}
	chosen, err := w.chosen(releases)
	if err != nil {
		return nil, err
	}
	var byRelease [][]*publication
	for r, err := range chosen.Releases() {
		if err != nil {
			return nil, err
		}
		list, err := w.publications(ctx, r, reference)
		if err != nil {
			return nil, err
		}
		byRelease = append(byRelease, list)
	}
	undo, err := w.Registry.CheckPush(ctx, byRelease[0][0].kept)
	if err != nil {
		return nil, err
	}
	defer undo()
	for _, push := range []func(context.Context, *publication) error{w.pushUntagged, w.tag} {
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(max(w.Jobs, 1))
		for _, list := range byRelease {
			g.Go(func() error {
				for _, p := range list { // they have blobs in common
					if err := push(gctx, p); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
	}
	pushed := []PushedLayer{}
	for _, p := range slices.Concat(byRelease...) {
		pushed = append(pushed, PushedLayer{
			Release: p.release.String(),
			Image:   p.kept.Repository() + ":" + p.kept.Tag(),
			Tag:     p.kept.Tag(),
			Digest:  p.tree.Root.Digest.String(),
			Push:    p.report,
		})
	}
	return pushed, nil
}

// chosen are the named releases, each once, or all.
func (w *Wrapper) chosen(names []string) (*catalog.Catalog, error) {
	if len(names) == 0 {
		return w.Catalog, nil
	}
	var releases []*catalog.Release
	for _, name := range names {
		r, err := w.Catalog.Find(name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(releases, r) {
			releases = append(releases, r)
		}
	}
	return catalog.New(releases...), nil
}

// pushUntagged writes all that a tag is to stand for, by digest.
func (w *Wrapper) pushUntagged(ctx context.Context, p *publication) error {
	untagged, err := w.Registry.ParseReference(p.kept.Repository() + "@" + p.tree.Root.Digest.String())
	if err != nil {
		return err
	}
	p.report, err = w.Registry.Write(ctx, untagged, nil, p.tree)
	return err
}

// tag has the tag stand for what is there.
func (w *Wrapper) tag(ctx context.Context, p *publication) error {
	source, err := w.Registry.Find(ctx, p.kept.Repository()+"@"+p.tree.Root.Digest.String())
	if err != nil {
		return err
	}
	defer source.Close()
	_, err = w.Registry.Write(ctx, p.kept, source, registry.Tree{Root: source.Root})
	return err
}

// publications are the images and indexes of a release.
func (w *Wrapper) publications(ctx context.Context, r *catalog.Release, repository registry.Reference) ([]*publication, error) {
	var list []*publication
	add := func(tag string, tree registry.Tree, err error) error {
		if err != nil {
			return err
		}
		kept, err := w.Registry.WithTag(repository, tag)
		list = append(list, &publication{release: r, kept: kept, tree: tree})
		return err
	}
	shared := func(tag, architecture string, l *layer.Layer) error {
		tree, err := registry.Shared{Layer: l, Architecture: architecture}.Tree()
		return add(tag, tree, err)
	}
	opentelemetry, err := w.Bundles.Deferred(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := shared(bundleTag(r), "", opentelemetry); err != nil {
		return nil, err
	}
	natives := make(map[string]*layer.Layer)
	for _, architecture := range slices.Sorted(maps.Keys(r.Natives)) {
		if _, ok := r.Native(architecture); !ok {
			continue
		}
		if natives[architecture], err = w.Bundles.Native(ctx, r, architecture); err != nil {
			return nil, err
		}
		if err := shared(nativeTag(r, architecture), architecture, natives[architecture]); err != nil {
			return nil, err
		}
	}
	launch, err := bundle.LaunchLayer(bundle.GenericLaunch(r))
	if err != nil {
		return nil, err
	}
	tree, err := dockerfileTree(r, opentelemetry, nil, launch)
	if err := add(DockerfileTag(r.Version, false), tree, err); err != nil {
		return nil, err
	}
	tree, err = dockerfileTree(r, opentelemetry, natives, launch)
	return list, add(DockerfileTag(r.Version, true), tree, err)
}

// dockerfileTree is an index of images that hold what a Dockerfile copies. Those
// of an architecture that has native code have it.
func dockerfileTree(r *catalog.Release, opentelemetry *layer.Layer, natives map[string]*layer.Layer, launch *layer.Layer) (registry.Tree, error) {
	about := map[string]string{ // OCI image-spec, annotations.md, "Pre-Defined Annotation Keys"
		"org.opencontainers.image.title":       "OpenTelemetry " + r.String() + " for Python",
		"org.opencontainers.image.description": "Auto-instrumentation for images of Python applications, to be copied by their Dockerfiles: COPY --from=… " + bundle.Root + " " + bundle.Root,
		"org.opencontainers.image.version":     r.Version,
		"org.opencontainers.image.url":         "https://github.com/imgwrap/imgwrap",
	}
	tree := registry.Tree{Layers: []v1.Layer{opentelemetry}}
	for _, architecture := range slices.Sorted(maps.Keys(natives)) {
		tree.Layers = append(tree.Layers, natives[architecture])
	}
	tree.Layers = append(tree.Layers, launch)
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Annotations: about}
	for _, platform := range dockerfilePlatforms {
		layers := []*layer.Layer{opentelemetry}
		if native := natives[platform.Architecture]; native != nil {
			layers = append(layers, native)
		}
		config, manifest, err := dockerfileImage(platform, about, append(layers, launch))
		if err != nil {
			return registry.Tree{}, fmt.Errorf("writing the image for %s: %w", platform, err)
		}
		tree.Configs = append(tree.Configs, config)
		tree.Documents = append(tree.Documents, manifest)
		descriptor := manifest.Descriptor()
		descriptor.Platform = &platform
		index.Manifests = append(index.Manifests, descriptor)
	}
	raw, err := json.Marshal(index)
	if err != nil {
		return registry.Tree{}, err
	}
	tree.Root = registry.NewDocument(types.OCIImageIndex, raw)
	return tree, nil
}

// dockerfileImage is the image of one platform in that index.
func dockerfileImage(platform v1.Platform, about map[string]string, layers []*layer.Layer) (config []byte, manifest registry.Document, err error) {
	type run struct {
		Labels map[string]string `json:"Labels"`
	}
	c := struct {
		Architecture string    `json:"architecture"`
		Variant      string    `json:"variant,omitempty"`
		OS           string    `json:"os"`
		Config       run       `json:"config"`
		RootFS       v1.RootFS `json:"rootfs"`
	}{platform.Architecture, platform.Variant, platform.OS, run{about}, v1.RootFS{Type: "layers"}}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Annotations: about}
	for _, l := range layers {
		info := l.Info()
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, info.DiffID)
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: types.OCILayer, Digest: info.Digest, Size: info.Size})
	}
	if config, err = json.Marshal(c); err != nil {
		return nil, registry.Document{}, err
	}
	m.Config = registry.NewDocument(types.OCIConfigJSON, config).Descriptor()
	raw, err := json.Marshal(m)
	return config, registry.NewDocument(types.OCIManifestSchema1, raw), err
}
