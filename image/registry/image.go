package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// manifestLimit is what registries accept (distribution-spec, "Pushing
	// Manifests").
	manifestLimit = 4 << 20
	configLimit   = 8 << 20
)

// An Image is an opened image: its documents, checked against their digests,
// and its layers, to be read on demand.
type Image struct {
	// Name is what messages call the image: the reference it was opened by.
	Name string
	// Reference is where it was found.
	Reference name.Reference
	// Digest of the manifest, as it was when the image was opened. All that is
	// read from the image afterwards belongs to this manifest, even if its tag
	// moves meanwhile.
	Digest v1.Hash
	// MediaType of the manifest: Docker's schema 2 or the OCI's.
	MediaType types.MediaType
	// RawManifest and RawConfig are the documents byte for byte, Manifest and
	// Config what they say.
	RawManifest, RawConfig []byte
	Manifest               *v1.Manifest
	Config                 *v1.ConfigFile

	open func(context.Context, v1.Descriptor) (io.ReadCloser, error)
}

// Open opens an image. It reads manifest and config, but no layer.
//
// The error is a *UsageError if ref is no reference, an *UnsupportedError if
// there is something other than the image of one platform, else an *Error.
func (c *Client) Open(ctx context.Context, ref string) (*Image, error) {
	r, err := c.Parse(ref)
	if err != nil {
		return nil, err
	}
	im := &Image{Name: ref, Reference: r}
	if err := c.read(about(ctx, "opening "+ref), im); err != nil {
		if unsupported, ok := errors.AsType[*UnsupportedError](err); ok {
			return nil, unsupported
		}
		return nil, explain("opening", ref, r.Context(), false, err)
	}
	return im, nil
}

func (c *Client) read(ctx context.Context, im *Image) error {
	repo := im.Reference.Context()
	client, err := c.session(ctx, repo, transport.PullScope)
	if err != nil {
		return err
	}
	// One request gives the manifest and, as the digest of what it gave, what
	// the tag stood for at that moment.
	im.RawManifest, im.MediaType, err = getManifest(ctx, client, im.Reference)
	if err != nil {
		return err
	}
	im.Digest, _, _ = v1.SHA256(bytes.NewReader(im.RawManifest))
	if d, ok := im.Reference.(name.Digest); ok {
		if im.Digest, err = digestAs(d.DigestStr(), im.RawManifest); err != nil {
			return fmt.Errorf("manifest: %w", err)
		}
	}
	if im.Manifest, im.MediaType, err = parseManifest(im); err != nil {
		return err
	}
	im.open = func(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
		return newBlobReader(ctx, client, c.wait, repo, d)
	}

	desc := im.Manifest.Config
	if desc.Size > configLimit {
		return fmt.Errorf("config has %d bytes, more than the %d MiB that are read", desc.Size, configLimit>>20)
	}
	blob, err := im.open(ctx, desc)
	if err != nil {
		return fmt.Errorf("reading config: %w", err)
	}
	defer blob.Close()
	if im.RawConfig, err = io.ReadAll(blob); err != nil {
		return fmt.Errorf("reading config: %w", err)
	}
	im.Config = new(v1.ConfigFile)
	if err := json.Unmarshal(im.RawConfig, im.Config); err != nil {
		return fmt.Errorf("config %s is not valid: %w", desc.Digest, err)
	}
	if n, m := len(im.Manifest.Layers), len(im.Config.RootFS.DiffIDs); n != m {
		return fmt.Errorf("manifest has %d layers, but its config %d", n, m)
	}
	return nil
}

// Layer opens the layer of that number in the manifest, counted from 0, as it is
// stored: mostly compressed. Digest and size are verified at the end: only a
// reader that reached io.EOF has the layer. A connection that breaks is taken up
// again where it broke. Errors, the reader's too, are *Error and name layer and
// image. The caller must close the reader.
func (im *Image) Layer(ctx context.Context, i int) (io.ReadCloser, error) {
	return im.blob(ctx, im.Manifest.Layers[i])
}

func (im *Image) blob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	r := &layerReader{image: im, doing: "reading layer " + d.Digest.String() + " of"}
	rc, err := im.open(about(ctx, r.doing+" "+im.Name), d)
	if err != nil {
		return nil, r.explain(err)
	}
	r.ReadCloser = rc
	return r, nil
}

// A layerReader names image and layer in the errors of a reader.
type layerReader struct {
	io.ReadCloser
	image *Image
	doing string
}

func (r *layerReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = r.explain(err)
	}
	return n, err
}

func (r *layerReader) explain(err error) error {
	return explain(r.doing, r.image.Name, r.image.Reference.Context(), false, err)
}

// getManifest returns the manifest that ref names and the media type the
// registry gives it.
func getManifest(ctx context.Context, client *http.Client, ref name.Reference) ([]byte, types.MediaType, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint(ref.Context(), "manifests", ref.Identifier()), nil)
	if err != nil {
		return nil, "", err
	}
	acceptManifests(req)
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return nil, "", err
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, manifestLimit+1))
	if err != nil {
		return nil, "", fmt.Errorf("reading manifest: %w", err)
	}
	if len(raw) > manifestLimit {
		return nil, "", fmt.Errorf("manifest is larger than %d MiB, the most that registries accept", manifestLimit>>20)
	}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	// The header is optional, and schema 1 is signed: its digest is not that of
	// all its bytes.
	if digest := resp.Header.Get("Docker-Content-Digest"); digest != "" && !types.MediaType(mediaType).IsSchema1() {
		if _, err := digestAs(digest, raw); err != nil {
			return nil, "", fmt.Errorf("manifest: %w", err)
		}
	}
	return raw, types.MediaType(mediaType), nil
}

// acceptManifests asks for what there is: to be told that it is an index is
// better than to be given a child of the registry's choice.
func acceptManifests(req *http.Request) {
	req.Header.Set("Accept", strings.Join([]string{
		string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
		string(types.OCIImageIndex), string(types.DockerManifestList),
		string(types.DockerManifestSchema1Signed), string(types.DockerManifestSchema1),
	}, ","))
}

// digestAs is content's digest, which must be the one given.
func digestAs(want string, content []byte) (v1.Hash, error) {
	h, err := v1.NewHash(want)
	if err != nil {
		return v1.Hash{}, err
	}
	hasher, err := v1.Hasher(h.Algorithm)
	if err != nil {
		return v1.Hash{}, err
	}
	hasher.Write(content)
	return h, checkDigest(h, hasher.Sum(nil))
}

func checkDigest(want v1.Hash, sum []byte) error {
	if got := fmt.Sprintf("%x", sum); got != want.Hex {
		return fmt.Errorf("content has digest %s:%s instead of %s", want.Algorithm, got, want)
	}
	return nil
}

// parseManifest checks that im's manifest is an image's and returns it with its
// media type.
func parseManifest(im *Image) (*v1.Manifest, types.MediaType, error) {
	var m struct {
		v1.Manifest
		Manifests []v1.Descriptor `json:"manifests"`
		FSLayers  json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(im.RawManifest, &m); err != nil {
		return nil, "", fmt.Errorf("manifest is not valid: %w", err)
	}
	// The OCI's manifest may leave out its type, and registries have been seen
	// to send text/plain. Two known types that differ, and a manifest that can
	// be read as two things, are what CVE-2021-41190 was about.
	mt := m.MediaType
	if header := im.MediaType; mt == "" {
		mt = header
	} else if header != mt && (header.IsImage() || header.IsIndex() || header.IsSchema1()) {
		return nil, "", fmt.Errorf("manifest says it is %q, but the registry %q", mt, header)
	}
	if m.Manifests != nil && m.Layers != nil {
		return nil, "", errors.New("manifest is ambiguous: it has both layers and manifests")
	}

	unsupported := func(what, hint string) (*v1.Manifest, types.MediaType, error) {
		return nil, "", &UnsupportedError{Image: im.Name, MediaType: mt, what: what, hint: hint}
	}
	switch {
	case mt.IsIndex():
		return unsupported("an index of images for several platforms", childrenHint(im.Reference, m.Manifests))
	case mt.IsSchema1() || m.FSLayers != nil:
		return unsupported("an image in Docker's format of before 2016 (schema 1)",
			fmt.Sprintf("pull and push it with a current tool, e.g. skopeo copy --format v2s2 docker://%s docker://%[1]s", im.Reference))
	case !mt.IsImage():
		return unsupported(fmt.Sprintf("no image but %q", mt), "")
	}
	switch m.Config.MediaType {
	case types.OCIConfigJSON, types.DockerConfigJSON,
		"", "application/octet-stream": // of early Docker versions (moby#28872)
	default:
		return unsupported(fmt.Sprintf("no container image: its config is %q", m.Config.MediaType), "")
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if d.Digest == (v1.Hash{}) || d.Size < 0 {
			return nil, "", errors.New("manifest is not valid: it has a descriptor without digest or size")
		}
	}
	return &m.Manifest, mt, nil
}

// childrenHint tells how to name one image of an index.
func childrenHint(ref name.Reference, children []v1.Descriptor) string {
	var platforms []string
	for _, child := range children {
		if p := child.Platform; p != nil && p.OS != "unknown" && child.MediaType.IsImage() {
			platforms = append(platforms, fmt.Sprintf("%s is %s", p, ref.Context().Digest(child.Digest.String())))
		}
	}
	hint := "name the image of one platform by its digest"
	if len(platforms) > 0 {
		hint += ": " + strings.Join(platforms, ", ")
	}
	return hint
}

// endpoint is the URL of something in a repository.
func endpoint(repo name.Repository, kind, id string) string {
	u := url.URL{Scheme: repo.Scheme(), Host: repo.RegistryStr(), Path: "/v2/" + repo.RepositoryStr() + "/" + kind + "/" + id}
	return u.String()
}
