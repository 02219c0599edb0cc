package registry

import (
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

// An Image is an opened image of one platform: its documents, checked against
// their digests, and its layers, to be read on demand.
type Image struct {
	// Name is what messages call the image: the reference it was opened by.
	Name string
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

	source *Source
}

// Image opens an image of the source by its manifest. It reads the config.
//
// The error is an *UnsupportedError if the document is not the manifest of a
// container image, else an *Error.
func (s *Source) Image(ctx context.Context, manifest Document) (*Image, error) {
	im := &Image{
		Name:        s.Reference.String(),
		Digest:      manifest.Digest,
		MediaType:   manifest.MediaType,
		RawManifest: manifest.Raw,
		source:      s,
	}
	if err := im.read(about(ctx, "opening "+im.Name)); err != nil {
		if unsupported, ok := errors.AsType[*UnsupportedError](err); ok {
			return nil, unsupported
		}
		return nil, s.explain("opening", err)
	}
	return im, nil
}

func (im *Image) read(ctx context.Context) (err error) {
	if im.Manifest, err = im.parseManifest(); err != nil {
		return err
	}
	desc := im.Manifest.Config
	if desc.Size > configLimit {
		return fmt.Errorf("config has %d bytes, more than the %d MiB that are read", desc.Size, configLimit>>20)
	}
	if im.RawConfig, err = im.source.config(ctx, desc); err != nil {
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

// config reads a config, if it is not kept from an earlier time.
func (s *Source) config(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	var kept Configs
	if r, ok := s.store.(*repository); ok {
		kept = r.client.configs
	}
	if kept != nil {
		if raw, ok := kept.Config(d.Digest); ok {
			return raw, nil
		}
	}
	blob, err := s.store.blob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	raw, err := io.ReadAll(blob)
	if err == nil && kept != nil {
		kept.PutConfig(d.Digest, raw)
	}
	return raw, err
}

// Layer opens the layer of that number in the manifest, counted from 0. See
// Source.Blob.
func (im *Image) Layer(ctx context.Context, i int) (io.ReadCloser, error) {
	return im.source.Blob(ctx, im.Manifest.Layers[i])
}

// getManifest returns the manifest that ref names and the media type the
// registry gives it.
func (c *Client) getManifest(ctx context.Context, client *http.Client, ref name.Reference) (raw []byte, mediaType types.MediaType, err error) {
	err = c.again(ctx, func() error {
		raw, mediaType, err = getManifest(ctx, client, ref)
		return err
	})
	return raw, mediaType, err
}

// again repeats what fails because reading an answer broke off. Until there is an
// answer, the retrier tries again.
func (c *Client) again(ctx context.Context, request func() error) error {
	for attempt := 0; ; attempt++ {
		err := request()
		broken, ok := errors.AsType[*brokenError](err)
		delay, again := backoff(attempt)
		if !ok || !again || permanent(err) || ctx.Err() != nil || ctx.Value(onceKey{}) != nil {
			return err
		}
		if err := c.wait(ctx, delay, broken); err != nil {
			return err
		}
	}
}

// A brokenError is one of reading an answer.
type brokenError struct {
	what string
	err  error
}

func (e *brokenError) Error() string { return "reading " + e.what + ": " + e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

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
		return nil, "", &brokenError{"manifest", err}
	}
	if len(raw) > manifestLimit {
		return nil, "", errTooLarge
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

var errTooLarge = fmt.Errorf("manifest is larger than %d MiB, the most that registries accept", manifestLimit>>20)

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

// A MismatchError says that content is not what its descriptor says. It may be
// the cause of an *Error.
type MismatchError struct{ problem string }

func (e *MismatchError) Error() string { return e.problem }

func mismatch(format string, args ...any) error {
	return &MismatchError{fmt.Sprintf(format, args...)}
}

func checkDigest(want v1.Hash, sum []byte) error {
	if got := fmt.Sprintf("%x", sum); got != want.Hex {
		return mismatch("content has digest %s:%s instead of %s", want.Algorithm, got, want)
	}
	return nil
}

// parseManifest checks that the manifest is an image's and returns what it says.
func (im *Image) parseManifest() (*v1.Manifest, error) {
	doc := Document{im.MediaType, im.Digest, im.RawManifest}
	contents, err := parseDocument(&doc)
	if err != nil {
		return nil, err
	}
	im.MediaType = doc.MediaType
	unsupported := func(what, hint string) error {
		return &UnsupportedError{Image: im.Name, MediaType: im.MediaType, what: what, hint: hint}
	}
	switch mt := im.MediaType; {
	case mt.IsIndex():
		return nil, unsupported("an index of images for several platforms", childrenHint(im.source.Reference, contents.Manifests))
	case mt.IsSchema1() || contents.FSLayers != nil:
		return nil, unsupported("an image in Docker's format of before 2016 (schema 1)",
			fmt.Sprintf("pull and push it with a current tool, e.g. skopeo copy --format v2s2 docker://%s docker://%[1]s", im.Name))
	case !mt.IsImage():
		return nil, unsupported(fmt.Sprintf("no image but %q", mt), "")
	case contents.Config == nil:
		return nil, errors.New("manifest is not valid: it has a descriptor without digest or size")
	}
	switch mt := contents.Config.MediaType; mt {
	case types.OCIConfigJSON, types.DockerConfigJSON,
		"", "application/octet-stream": // of early Docker versions (moby#28872)
	default:
		return nil, unsupported(fmt.Sprintf("no container image: its config is %q", mt), "")
	}
	m := new(v1.Manifest)
	if err := json.Unmarshal(im.RawManifest, m); err != nil {
		return nil, fmt.Errorf("manifest is not valid: %w", err)
	}
	return m, nil
}

// childrenHint tells how to name one image of an index.
func childrenHint(ref Reference, children []v1.Descriptor) string {
	var platforms []string
	for _, child := range children {
		if p := child.Platform; p != nil && p.OS != "unknown" && child.MediaType.IsImage() {
			platforms = append(platforms, fmt.Sprintf("%s is %s@%s", p, ref.Repository(), child.Digest))
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
