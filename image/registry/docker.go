package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// dockerManifest is the file that says what is in a Docker archive (moby,
// image/spec/v1.2.md, "Combined Image JSON + Filesystem Changeset Format").
const dockerManifest = "manifest.json"

// A dockerImage is an entry of dockerManifest.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string

	fields map[string]json.RawMessage // all there are
}

// A dockerArchive is the store of an image in a Docker archive. Its manifest is
// made up.
type dockerArchive struct {
	files
	blobs map[v1.Hash]string // file by digest

	engine *engine // that saved it, nil if it is a file
}

func (a *dockerArchive) document(context.Context, v1.Descriptor) ([]byte, types.MediaType, error) {
	return nil, "", errors.New("it has no other manifest") // the root is known
}

func (a *dockerArchive) blob(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	file, ok := a.blobs[d.Digest]
	if !ok {
		return nil, errors.New("it is missing")
	}
	r, _, err := a.open(file)
	if err != nil {
		return nil, err
	}
	return verify(r, d)
}

// findInDocker opens the image of that name in a Docker archive, or without one
// the only image.
func findInDocker(ctx context.Context, f files, named name.Reference) (*dockerArchive, Document, error) {
	images, err := readDockerManifest(f)
	if errors.Is(err, fs.ErrNotExist) {
		hint := ""
		if exists(f, layoutFile) {
			hint = "it looks like an oci-archive:"
		}
		return nil, Document{}, &hintError{fmt.Errorf("it is no Docker archive: it has no %s", dockerManifest), hint}
	}
	if err != nil {
		return nil, Document{}, err
	}
	image, err := chooseImage(images, named)
	if err != nil {
		return nil, Document{}, err
	}
	a := &dockerArchive{files: f, blobs: make(map[v1.Hash]string)}
	doc, err := a.manifest(ctx, image)
	return a, doc, err
}

func readDockerManifest(f files) ([]dockerImage, error) {
	raw, err := readFile(f, dockerManifest, manifestLimit)
	if err != nil {
		return nil, err
	}
	var images []dockerImage
	var fields []map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(raw, &images), json.Unmarshal(raw, &fields)); err != nil {
		return nil, fmt.Errorf("%s is not valid: %w", dockerManifest, err)
	}
	for i := range images {
		images[i].fields = fields[i]
	}
	return images, nil
}

// chooseImage returns the image of that name, or if there is none the only one.
func chooseImage(images []dockerImage, named name.Reference) (dockerImage, error) {
	var found []dockerImage
	var tags []string
	for _, image := range images {
		tags = append(tags, image.RepoTags...)
		if named == nil || image.has(named) {
			found = append(found, image)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case named != nil && len(found) > 1:
		return dockerImage{}, fmt.Errorf("%d images have the name %s", len(found), familiar(named.Name()))
	case named != nil:
		return dockerImage{}, &hintError{fmt.Errorf("there is no image with the name %s", familiar(named.Name())), tagsHint(tags)}
	case len(found) == 0:
		return dockerImage{}, errors.New("there is no image in it")
	}
	return dockerImage{}, &hintError{fmt.Errorf("there are %d images in it", len(found)), tagsHint(tags)}
}

// has says whether the image has a name.
func (i dockerImage) has(named name.Reference) bool {
	return slices.ContainsFunc(i.RepoTags, func(tag string) bool {
		r, err := name.ParseReference(tag)
		return err == nil && r.Name() == named.Name()
	})
}

// manifest makes up the manifest of an image, with the layers as they are stored.
func (a *dockerArchive) manifest(ctx context.Context, image dockerImage) (Document, error) {
	config, err := readFile(a, image.Config, configLimit)
	if err != nil {
		return Document{}, fmt.Errorf("reading config: %w", err)
	}
	var parsed v1.ConfigFile
	if err := json.Unmarshal(config, &parsed); err != nil {
		return Document{}, fmt.Errorf("config %s is not valid: %w", line(image.Config), err)
	}
	diffIDs := parsed.RootFS.DiffIDs
	if n, m := len(image.Layers), len(diffIDs); n != m {
		return Document{}, fmt.Errorf("%s names %d layers, but the config %d", dockerManifest, n, m)
	}
	layers := make([]v1.Descriptor, len(diffIDs))
	compressions := make([]compression, len(diffIDs))
	oci := false
	for i, layer := range image.Layers {
		if layers[i], compressions[i], err = a.describe(ctx, layer, diffIDs[i]); err != nil {
			return Document{}, fmt.Errorf("reading layer %d: %w", i+1, err)
		}
		a.blobs[layers[i].Digest] = layer
		oci = oci || compressions[i] == zstandard // which Docker's manifests cannot have
	}
	for i, c := range compressions {
		layers[i].MediaType = layerType(oci, c)
	}
	digest, _, _ := v1.SHA256(bytes.NewReader(config))
	a.blobs[digest] = image.Config
	return MakeManifest(config, layers)
}

// MakeManifest makes up the manifest of an image for where none is kept (see
// Transport.KeepsManifests): the one that Find finds there for an image of this
// config and these layers.
func MakeManifest(config []byte, layers []v1.Descriptor) (Document, error) {
	m := v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.DockerManifestSchema2,
		Config:        v1.Descriptor{MediaType: types.DockerConfigJSON},
		Layers:        layers,
	}
	if slices.ContainsFunc(layers, isOCILayer) {
		m.MediaType, m.Config.MediaType = types.OCIManifestSchema1, types.OCIConfigJSON
	}
	var err error
	if m.Config.Digest, m.Config.Size, err = v1.SHA256(bytes.NewReader(config)); err != nil {
		return Document{}, err
	}
	raw, err := json.Marshal(m)
	return NewDocument(m.MediaType, raw), err
}

func isOCILayer(d v1.Descriptor) bool {
	return strings.Contains(string(d.MediaType), types.OCIVendorPrefix)
}

// describe returns digest and size of a layer's file, and how it is compressed.
func (a *dockerArchive) describe(ctx context.Context, file string, diffID v1.Hash) (v1.Descriptor, compression, error) {
	r, size, err := a.open(file)
	if err != nil {
		return v1.Descriptor{}, "", err
	}
	defer r.Close()
	start := new(bytes.Buffer)
	c, err := sniff(io.TeeReader(r, start))
	if err != nil {
		return v1.Descriptor{}, "", err
	}
	switch c {
	case uncompressed:
		return v1.Descriptor{Digest: diffID, Size: size}, c, nil // verified when it is read
	case gzipped, zstandard:
		digest, size, err := v1.SHA256(io.MultiReader(start, &contextReader{ctx, r}))
		return v1.Descriptor{Digest: digest, Size: size}, c, err
	}
	return v1.Descriptor{}, "", errors.New("it is compressed in a way that is not supported")
}

func layerType(oci bool, c compression) types.MediaType {
	switch {
	case c == zstandard:
		return types.OCILayerZStd
	case oci && c == gzipped:
		return types.OCILayer
	case oci:
		return types.OCIUncompressedLayer
	case c == gzipped:
		return types.DockerLayer
	}
	return types.DockerUncompressedLayer
}

// onePlatform refuses to write a tree that is not an image where only images can
// be written.
func onePlatform(dst Reference, t Tree) error {
	if dst.Transport.KeepsManifests() || t.Root.MediaType.IsImage() {
		return nil
	}
	what := fmt.Sprintf("no image but %q", t.Root.MediaType)
	if t.Root.MediaType.IsIndex() {
		what = "an index of several"
	}
	return &UnsupportedError{
		Image: dst.String(), MediaType: t.Root.MediaType,
		what: "where only the image of one platform can be written, and this is " + what,
		hint: "write it to a registry or an OCI layout, or choose one platform",
	}
}

// A dockerContent is an image as Docker's archives and engine take it.
type dockerContent struct {
	image     dockerImage
	config    v1.Hash
	files     map[string]tarFile // by name
	temporary []*os.File
}

// dockerize makes the content of a Docker archive. Layers stay compressed, unless
// it is with zstd, which Docker's engine before 23 does not read: the archive is
// smaller, and who reads it finds the digests it knows.
func dockerize(ctx context.Context, dst Reference, src *Source, t Tree) (_ *dockerContent, err error) {
	parts, err := t.list(ctx, src, false)
	if err != nil {
		return nil, err
	}
	var m v1.Manifest
	if err := json.Unmarshal(t.Root.Raw, &m); err != nil {
		return nil, fmt.Errorf("manifest is not valid: %w", err)
	}
	blobs := make(map[v1.Hash]*blob)
	for _, b := range parts.blobs {
		blobs[b.Digest] = b
	}
	config := blobs[m.Config.Digest]
	if config == nil {
		return nil, errors.New("manifest is not valid: it has no config")
	}
	d := &dockerContent{config: config.Digest, files: make(map[string]tarFile)}
	d.image.Config = d.add(config, ".json")
	if dst.named != nil {
		// Docker's short names are short names of localhost to podman.
		d.image.RepoTags = []string{strings.Replace(dst.named.Name(), name.DefaultRegistry, "docker.io", 1)}
	}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	for _, l := range m.Layers {
		b, extension := blobs[l.Digest], ".tar.gz"
		switch {
		case b == nil:
			return nil, fmt.Errorf("layer %s is kept elsewhere by its publisher, and %s has no way to say so", l.Digest, dst.Transport)
		case strings.HasSuffix(string(l.MediaType), "zstd"):
			f, desc, err := unzstd(ctx, b)
			if err != nil {
				return nil, err
			}
			d.temporary = append(d.temporary, f)
			b = &blob{Descriptor: desc, open: func(context.Context) (io.ReadCloser, error) {
				return io.NopCloser(io.NewSectionReader(f, 0, desc.Size)), nil
			}}
			extension = ".tar"
		case l.MediaType == types.DockerUncompressedLayer, l.MediaType == types.OCIUncompressedLayer:
			extension = ".tar"
		}
		d.image.Layers = append(d.image.Layers, d.add(b, extension))
	}
	return d, nil
}

// add adds a blob as a file, and returns its name.
func (d *dockerContent) add(b *blob, extension string) string {
	name := b.Digest.Hex + extension
	d.files[name] = tarFile{name, b.Size, b.verified}
	return name
}

func (d *dockerContent) close() {
	for _, f := range d.temporary {
		removeTemporary(f)
	}
}

// unzstd decompresses a blob into a temporary file and describes that.
func unzstd(ctx context.Context, b *blob) (*os.File, v1.Descriptor, error) {
	r, err := b.verified(ctx)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	defer r.Close()
	content, err := zstandard.reader(r)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	defer content.Close()
	f, err := spool(ctx, content)
	if err != nil {
		return nil, v1.Descriptor{}, fmt.Errorf("decompressing layer %s: %w", b.Digest, err)
	}
	digest, size, err := v1.SHA256(f)
	return f, v1.Descriptor{Digest: digest, Size: size}, err
}

func (c *Client) writeDockerArchive(ctx context.Context, dst Reference, src *Source, t Tree) (Report, error) {
	mu, err := c.lock(dst.Path)
	if err != nil {
		return Report{}, err
	}
	mu.Lock()
	defer mu.Unlock()
	var others []json.RawMessage
	kept := make(map[string]tarFile)
	old, err := openArchive(ctx, dst.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return Report{}, err
	default:
		defer old.Close()
		if isSame(ctx, old, dst, t) {
			return Report{Digest: t.config(), UpToDate: true}, nil
		}
		if others, err = otherImages(old, dst, kept); err != nil {
			return Report{}, fmt.Errorf("the file is there, and is no Docker archive: %w", err)
		}
	}
	d, err := dockerize(ctx, dst, src, t)
	if err != nil {
		return Report{}, err
	}
	defer d.close()
	entry, err := json.Marshal(d.image)
	if err != nil {
		return Report{}, err
	}
	manifest, err := json.Marshal(append(others, entry))
	if err != nil {
		return Report{}, err
	}
	report := Report{Digest: d.config}
	for name, f := range d.files {
		if _, there := kept[name]; there {
			report.Existing.add(f.size)
		} else {
			report.Uploaded.add(f.size)
		}
		kept[name] = f // verified, unlike what is there
	}
	list := []tarFile{bytesFile(dockerManifest, manifest)}
	return report, replaceFile(dst.Path, func(w io.Writer) error {
		return writeTar(ctx, w, append(list, sorted(kept)...))
	})
}

// config is the digest of the config that the root names.
func (t Tree) config() v1.Hash {
	var m v1.Manifest
	_ = json.Unmarshal(t.Root.Raw, &m) // of another document: none
	return m.Config.Digest
}

// isSame says whether an archive's image of that name has the tree's config, and
// with it the same layers.
func isSame(ctx context.Context, old *archive, dst Reference, t Tree) bool {
	a, doc, err := findInDocker(ctx, old, dst.named)
	if err != nil {
		return false
	}
	var m v1.Manifest
	if err := json.Unmarshal(doc.Raw, &m); err != nil {
		return false
	}
	_, there := a.blobs[t.config()]
	return there && m.Config.Digest == t.config()
}

// otherImages returns the entries of an archive's manifest that stay when an image
// is written to it, and adds the files they need to kept.
func otherImages(old *archive, dst Reference, kept map[string]tarFile) ([]json.RawMessage, error) {
	images, err := readDockerManifest(old)
	if err != nil {
		return nil, err
	}
	var others []json.RawMessage
	for _, image := range images {
		before := len(image.RepoTags)
		if dst.named != nil {
			image.RepoTags = slices.DeleteFunc(image.RepoTags, func(tag string) bool {
				return dockerImage{RepoTags: []string{tag}}.has(dst.named)
			})
		}
		// What had no other name is replaced.
		if len(image.RepoTags) == 0 && (before > 0 || dst.named == nil) {
			continue
		}
		if image.fields["RepoTags"], err = json.Marshal(image.RepoTags); err != nil {
			return nil, err
		}
		entry, err := json.Marshal(image.fields)
		if err != nil {
			return nil, err
		}
		others = append(others, entry)
		for _, name := range append(image.Layers, image.Config) {
			if kept[name], err = old.tarFile(name); err != nil {
				return nil, err
			}
		}
	}
	return others, nil
}
