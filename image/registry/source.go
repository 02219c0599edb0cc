package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A Document is a manifest or an index, byte for byte.
type Document struct {
	MediaType types.MediaType
	Digest    v1.Hash
	Raw       []byte
}

// NewDocument is a document that was made, rather than read.
func NewDocument(mediaType types.MediaType, raw []byte) Document {
	digest, _, _ := v1.SHA256(bytes.NewReader(raw))
	return Document{mediaType, digest, raw}
}

// Descriptor describes the document, as an index does.
func (d Document) Descriptor() v1.Descriptor {
	return v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: int64(len(d.Raw))}
}

// A Source is what a reference led to when it was opened: a document, all below
// it, and where to read that. It is safe for concurrent use.
type Source struct {
	// Reference is the one it was opened by.
	Reference Reference
	// Root is what the reference stood for. All that is read from the source
	// belongs to it, even if the reference's tag moves meanwhile.
	Root Document

	store store
	mu    sync.Mutex
	named map[v1.Hash]bool // by Root and the other documents that were read
}

// A store is where the documents and blobs of a source are.
type store interface {
	// document returns a document and its media type, "" if the store knows none.
	// Its digest and size are not verified yet.
	document(context.Context, v1.Descriptor) ([]byte, types.MediaType, error)
	// blob returns a reader that verifies the blob: io.EOF means that all of it was
	// read and has the digest.
	blob(context.Context, v1.Descriptor) (io.ReadCloser, error)
	io.Closer
}

// Find opens what a reference stands for, be it the image of one platform, an
// index of several, or something else. It reads one document. The caller must
// close the source.
//
// The error is a *UsageError if ref is no reference, else an *Error.
func (c *Client) Find(ctx context.Context, ref string) (*Source, error) {
	r, err := c.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	s, err := c.find(about(ctx, "opening "+ref), r)
	if err != nil {
		return nil, explain("opening", ref, r.inRegistry(), false, err)
	}
	return s, nil
}

func (c *Client) find(ctx context.Context, r Reference) (*Source, error) {
	s := &Source{Reference: r, named: make(map[v1.Hash]bool)}
	var err error
	if r.Transport == InRegistry {
		s.store, s.Root, err = c.findInRegistries(ctx, r)
	} else {
		s.store, s.Root, err = c.findLocally(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	contents, err := parseDocument(&s.Root)
	if err != nil {
		s.Close()
		return nil, err
	}
	s.note(contents)
	return s, nil
}

// findLocally opens what is not in a registry.
func (c *Client) findLocally(ctx context.Context, r Reference) (_ store, _ Document, err error) {
	var f files
	var e *engine
	switch r.Transport {
	case OCILayout:
		f, err = openDirectory(r.Path)
	case OCIArchive, DockerArchive:
		f, err = openArchive(ctx, r.Path)
	case DockerDaemon:
		if e, err = c.dial(ctx); err == nil {
			f, err = e.save(ctx, r)
		}
	}
	if err != nil {
		return nil, Document{}, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if r.Transport.KeepsManifests() {
		doc, err := findInLayout(ctx, f, r)
		return layout{f}, doc, err
	}
	named := r.named
	if e != nil {
		named = nil // it saved what it has by this name, perhaps as localhost/NAME
	}
	a, doc, err := findInDocker(ctx, f, named)
	if err != nil {
		return nil, Document{}, err
	}
	a.engine = e
	return a, doc, nil
}

// Close closes the source and removes what was on disk because of it.
func (s *Source) Close() error { return s.store.Close() }

// note remembers what a document names.
func (s *Source) note(c *contents) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range append(c.blobs(), c.Manifests...) {
		s.named[d.Digest] = true
	}
}

// names says whether a document of the source that was read names a digest.
func (s *Source) names(digest v1.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.named[digest]
}

// Document reads a document that one of the source names, verified. The error is
// an *Error.
func (s *Source) Document(ctx context.Context, d v1.Descriptor) (Document, error) {
	doc, err := s.document(ctx, d)
	if err != nil {
		return Document{}, s.explain("reading manifest "+d.Digest.String()+" of", err)
	}
	return doc, nil
}

func (s *Source) document(ctx context.Context, d v1.Descriptor) (Document, error) {
	if d.Digest == s.Root.Digest {
		return s.Root, nil
	}
	if d.Size > manifestLimit {
		return Document{}, errTooLarge
	}
	raw, mediaType, err := s.store.document(ctx, d)
	if err != nil {
		return Document{}, err
	}
	if int64(len(raw)) != d.Size {
		return Document{}, mismatch("manifest has %d bytes instead of %d", len(raw), d.Size)
	}
	if _, err := digestAs(d.Digest.String(), raw); err != nil {
		return Document{}, fmt.Errorf("manifest: %w", err)
	}
	if mediaType == "" {
		mediaType = d.MediaType
	}
	doc := Document{mediaType, d.Digest, raw}
	contents, err := parseDocument(&doc)
	if err != nil {
		return Document{}, err
	}
	s.note(contents)
	return doc, nil
}

// Blob opens a blob that a document of the source names, as it is stored: layers
// are mostly compressed. Digest and size are verified at the end: only a reader
// that reached io.EOF has the blob. A connection that breaks is taken up again
// where it broke. Errors, the reader's too, are *Error and name blob and image.
// The caller must close the reader.
func (s *Source) Blob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	r := &sourceReader{source: s, doing: "reading layer " + d.Digest.String() + " of"}
	rc, err := s.store.blob(about(ctx, r.doing+" "+s.Reference.String()), d)
	if err != nil {
		return nil, s.explain(r.doing, err)
	}
	r.ReadCloser = rc
	return r, nil
}

// A sourceReader names blob and image in the errors of a reader.
type sourceReader struct {
	io.ReadCloser
	source *Source
	doing  string
}

func (r *sourceReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // only io.EOF itself is the end
		err = r.source.explain(r.doing, err)
	}
	return n, err
}

func (s *Source) explain(doing string, err error) error {
	var repo name.Repository
	if r, ok := s.store.(*repository); ok {
		repo = r.name // perhaps that of a mirror
	}
	return explain(doing, s.Reference.String(), repo, false, err)
}

// contents is what a document of any kind names.
type contents struct {
	MediaType types.MediaType `json:"mediaType"`
	Config    *v1.Descriptor  `json:"config"`
	Layers    []v1.Descriptor `json:"layers"`
	Manifests []v1.Descriptor `json:"manifests"`
	Blobs     []v1.Descriptor `json:"blobs"` // of an artifact manifest, in drafts of OCI 1.1
	FSLayers  json.RawMessage `json:"fsLayers"`
}

// blobs are the blobs among them, the config last.
func (c *contents) blobs() []v1.Descriptor {
	all := append(append([]v1.Descriptor{}, c.Layers...), c.Blobs...)
	if c.Config != nil {
		all = append(all, *c.Config)
	}
	for _, d := range c.Manifests {
		if !isDocument(d.MediaType) {
			all = append(all, d)
		}
	}
	return all
}

// isDocument says whether what an index names is a document rather than a blob:
// BuildKit's cache, for one, is an index of layers.
func isDocument(mt types.MediaType) bool {
	return mt.IsImage() || mt.IsIndex() || mt.IsSchema1() || strings.Contains(string(mt), ".manifest.")
}

// parseDocument reads what a document names, and completes its media type.
func parseDocument(d *Document) (*contents, error) {
	c := new(contents)
	if err := json.Unmarshal(d.Raw, c); err != nil {
		return nil, fmt.Errorf("manifest is not valid: %w", err)
	}
	// The OCI's documents may leave out their type, and registries have been seen
	// to send text/plain. Two known types that differ, and a document that can be
	// read as two things, are what CVE-2021-41190 was about.
	switch given := d.MediaType; {
	case c.MediaType == "" && given == "" && c.Manifests != nil:
		d.MediaType = types.OCIImageIndex
	case c.MediaType == "" && given == "":
		d.MediaType = types.OCIManifestSchema1
	case c.MediaType != "" && given != c.MediaType:
		if given.IsImage() || given.IsIndex() || given.IsSchema1() {
			return nil, fmt.Errorf("manifest says it is %q, but it is kept as %q", c.MediaType, given)
		}
		d.MediaType = c.MediaType
	}
	if c.Manifests != nil && c.Layers != nil {
		return nil, errors.New("manifest is ambiguous: it has both layers and manifests")
	}
	for _, d := range append(c.blobs(), c.Manifests...) {
		if d.Digest == (v1.Hash{}) || d.Size < 0 {
			return nil, errors.New("manifest is not valid: it has a descriptor without digest or size")
		}
	}
	return c, nil
}

// A repository is the store of what is in a registry.
type repository struct {
	client *Client
	name   name.Repository
	http   *http.Client
}

// findInRegistries opens an image in the first of its places that has it.
func (c *Client) findInRegistries(ctx context.Context, r Reference) (store, Document, error) {
	places, err := c.places(r.named)
	if err != nil {
		return nil, Document{}, err
	}
	last := len(places) - 1
	for _, mirror := range places[:last] {
		if found, doc, err := c.findInRegistry(elsewhere(ctx), mirror); err == nil {
			return found, doc, nil
		}
	}
	found, doc, err := c.findInRegistry(ctx, places[last])
	if err != nil {
		return nil, Document{}, explain("opening", r.String(), places[last].Context(), false, err)
	}
	return found, doc, nil
}

func (c *Client) findInRegistry(ctx context.Context, ref name.Reference) (*repository, Document, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ahead := c.askAhead(ctx, ref)
	client, err := c.session(ctx, ref.Context(), transport.PullScope)
	if err != nil {
		return nil, Document{}, err
	}
	// One request gives the document and, as the digest of what it gave, what the
	// tag stood for at that moment.
	raw, mediaType, err := ahead(client)
	if err != nil {
		return nil, Document{}, err
	}
	doc := NewDocument(mediaType, raw)
	if d, ok := ref.(name.Digest); ok {
		if doc.Digest, err = digestAs(d.DigestStr(), raw); err != nil {
			return nil, Document{}, fmt.Errorf("manifest: %w", err)
		}
	}
	return &repository{c, ref.Context(), client}, doc, nil
}

// askAhead requests a manifest while the registry is asked how to authenticate,
// unless we have credentials for it. The returned function waits for that manifest
// if the registry wants no authentication, which saves a round trip, and else
// requests it with the client.
func (c *Client) askAhead(ctx context.Context, ref name.Reference) func(*http.Client) ([]byte, types.MediaType, error) {
	registry := ref.Context().Registry
	auth, err := c.auth(ctx, ref.Context())
	if open, known := c.open(registry); err != nil || auth != authn.Anonymous || known && !open {
		return func(client *http.Client) ([]byte, types.MediaType, error) { return c.getManifest(ctx, client, ref) }
	}
	type answer struct {
		raw       []byte
		mediaType types.MediaType
		err       error
	}
	ahead := make(chan answer, 1)
	go func() {
		raw, mediaType, err := c.getManifest(ctx, &http.Client{Transport: c.transport, CheckRedirect: c.checkRedirect}, ref)
		ahead <- answer{raw, mediaType, err}
	}()
	return func(client *http.Client) ([]byte, types.MediaType, error) {
		if open, _ := c.open(registry); !open {
			return c.getManifest(ctx, client, ref)
		}
		a := <-ahead
		return a.raw, a.mediaType, a.err
	}
}

func (r *repository) document(ctx context.Context, d v1.Descriptor) ([]byte, types.MediaType, error) {
	return r.client.getManifest(ctx, r.http, r.name.Digest(d.Digest.String()))
}

func (r *repository) blob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	return newBlobReader(ctx, r.http, r.client.wait, r.name, d)
}

func (r *repository) Close() error { return nil }

// A verifier verifies what it reads: io.EOF means that all of it was read and has
// the digest.
type verifier struct {
	io.ReadCloser
	desc v1.Descriptor
	hash hash.Hash
	read int64
}

func verify(rc io.ReadCloser, d v1.Descriptor) (io.ReadCloser, error) {
	hasher, err := v1.Hasher(d.Digest.Algorithm)
	if err != nil {
		rc.Close()
		return nil, err
	}
	return &verifier{ReadCloser: rc, desc: d, hash: hasher}, nil
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	v.hash.Write(p[:n])
	v.read += int64(n)
	switch {
	case err == io.EOF && v.read < v.desc.Size:
		return n, mismatch("it has only %d of %d bytes", v.read, v.desc.Size)
	case v.read > v.desc.Size:
		return n, mismatch("it has more than the %d bytes it should have", v.desc.Size)
	case err == io.EOF:
		if err := checkDigest(v.desc.Digest, v.hash.Sum(nil)); err != nil {
			return n, err
		}
	}
	return n, err
}
