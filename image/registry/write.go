package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A Tree is what is written under a reference: a document and all below it. What
// the source it was made from has need not be given: a Tree of no more than a
// source's Root is a copy of all of that source.
type Tree struct {
	Root Document
	// Documents, Configs and Layers are those below Root that the source does not
	// have.
	Documents []Document
	Configs   [][]byte
	Layers    []v1.Layer
	// Shared says which of Layers a registry is to mount from a repository that is
	// there for them. Elsewhere it means nothing.
	Shared []Shared
}

// A Report says what a write did.
type Report struct {
	// Digest is what the destination now stands for: the digest of Root, or where
	// the transport does not keep manifests, the digest of the image's config, the
	// image ID in Docker's words.
	Digest v1.Hash `json:"-"`
	// UpToDate: the destination stood for it already, and nothing was sent.
	UpToDate bool `json:"up_to_date"`
	// Uploaded, Mounted and Existing are the blobs, configs included, that were
	// sent, that the registry took from another of its repositories, and that
	// were there.
	Uploaded Count `json:"uploaded"`
	Mounted  Count `json:"mounted"`
	Existing Count `json:"existing"`
	// Shared are those that were sent to where shared layers are kept, so that they
	// could be mounted.
	Shared Count `json:"shared"`
	// Refused is how many of the source's layers, and of the shared ones, the
	// registry did not mount and had to be uploaded. A registry may do so if the
	// account cannot pull from the repository they are in.
	Refused int `json:"mounts_refused"`
}

// A Count is a number of blobs and of their bytes.
type Count struct {
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
}

func (c *Count) add(bytes int64) {
	c.Blobs++
	c.Bytes += bytes
}

// Write writes a tree, made from src, to dst. src may be nil if the tree has all
// of its parts.
//
// What is there is not sent again, and what the destination stands for changes at
// the end, in one step: whatever happens before, it stands for what it stood for.
// If it already stands for this tree, Write sends nothing. Added layers are opened
// only if the destination lacks them.
//
// In registries, layers in another repository of the same registry are mounted,
// or if the registry does not want to, uploaded like those of others; added
// layers are opened before anything is sent to the destination. On disk, the other images of a layout
// or archive stay. Docker's archives and engine take the image of one platform
// only: else the error is an *UnsupportedError.
//
// Other errors are *Error. Whatever they say, the tag is as it was, unless they
// say that it may have been written. A context that ends when the tag has been
// written is no error.
func (c *Client) Write(ctx context.Context, dst Reference, src *Source, t Tree) (Report, error) {
	doing := "writing"
	if dst.Transport == InRegistry {
		doing = "pushing"
	}
	report, err := c.write(about(ctx, doing+" "+dst.String()), dst, src, t)
	if err == nil {
		return report, nil
	}
	if unsupported, ok := errors.AsType[*UnsupportedError](err); ok {
		return Report{}, unsupported
	}
	written, _ := errors.AsType[*outcomeError](err)
	if written == nil && ctx.Err() != nil { // whatever was being done at the time
		written = &outcomeError{ctx.Err(), noTag}
		err = written
	}
	e := explain(doing, dst.String(), dst.inRegistry(), true, err)
	if written != nil {
		e.reason += "; " + written.outcome
	}
	return Report{}, e
}

func (c *Client) write(ctx context.Context, dst Reference, src *Source, t Tree) (Report, error) {
	if digest := dst.Digest(); digest != "" && digest != t.Root.Digest.String() {
		return Report{}, fmt.Errorf("the image has digest %s", t.Root.Digest)
	}
	if err := onePlatform(dst, t); err != nil {
		return Report{}, err
	}
	switch dst.Transport {
	case OCILayout:
		return c.writeLayout(ctx, dst, src, t)
	case OCIArchive:
		return c.writeOCIArchive(ctx, dst, src, t)
	case DockerArchive:
		return c.writeDockerArchive(ctx, dst, src, t)
	case DockerDaemon:
		return c.load(ctx, dst, src, t)
	}
	return c.push(ctx, dst.named, src, t)
}

// An outcomeError is a failure of the last step of writing, after which it is not
// sure whether the destination stands for the new content.
type outcomeError struct {
	err     error
	outcome string // what is known nevertheless
}

func (e *outcomeError) Error() string { return e.err.Error() }
func (e *outcomeError) Unwrap() error { return e.err }

const (
	noTag    = "no tag was written"
	maybeTag = "the tag may have been written"
)

// parts are what a tree consists of, each once.
type parts struct {
	root  Document
	below []Document // those that others name come first
	blobs []*blob
}

// A blob is one that the written tree consists of.
type blob struct {
	v1.Descriptor
	open      func(context.Context) (io.ReadCloser, error)
	layer     bool // rather than a config
	ofSource  bool // rather than added
	shared    *Shared
	kept      bool   // where it is shared from
	exists    bool   // at the destination
	from      *place // to mount it from; nil if there is none
	elsewhere bool   // from is where a push brought it
	mounted   bool   // at the destination, by us

	ready io.ReadCloser // what open returned, if it is not read yet
}

// prepare opens the blob, if it is not.
func (b *blob) prepare(ctx context.Context) (err error) {
	if b.ready == nil {
		if b.ready, err = b.open(ctx); err != nil {
			return &contentError{"preparing layer " + b.Digest.String(), err}
		}
	}
	return nil
}

// take returns the blob from its start.
func (b *blob) take(ctx context.Context) (io.ReadCloser, error) {
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	content := b.ready
	b.ready = nil
	return content, nil
}

// list lists the parts of a tree. It reads the documents that the source has, but
// if sourceIsThere, as the destination has them and all below.
func (t Tree) list(ctx context.Context, src *Source, sourceIsThere bool) (*parts, error) {
	added := make(map[v1.Hash]func(context.Context) (io.ReadCloser, error))
	for _, config := range t.Configs {
		digest, _, _ := v1.SHA256(bytes.NewReader(config))
		added[digest] = bytesFile("", config).open
	}
	for _, l := range t.Layers {
		digest, err := l.Digest()
		if err != nil {
			return nil, fmt.Errorf("reading an added layer: %w", err)
		}
		added[digest] = func(context.Context) (io.ReadCloser, error) { return l.Compressed() }
	}
	shared := make(map[v1.Hash]*Shared)
	for i, s := range t.Shared {
		digest, err := s.Layer.Digest()
		if err != nil {
			return nil, fmt.Errorf("reading an added layer: %w", err)
		}
		shared[digest] = &t.Shared[i]
	}
	documents := make(map[v1.Hash]Document)
	for _, d := range t.Documents {
		documents[d.Digest] = d
	}

	p := &parts{root: t.Root}
	seen := map[v1.Hash]bool{t.Root.Digest: true}
	var walk func(Document) error
	walk = func(parent Document) error {
		contents, err := parseDocument(&parent)
		if err != nil {
			return err
		}
		for _, d := range contents.blobs() {
			if seen[d.Digest] || !d.MediaType.IsDistributable() { // kept elsewhere by its publisher
				continue
			}
			seen[d.Digest] = true
			b := &blob{Descriptor: d, open: added[d.Digest], shared: shared[d.Digest]}
			b.layer = contents.Config == nil || d.Digest != contents.Config.Digest
			if src != nil && src.names(d.Digest) {
				b.ofSource = true
				b.open = func(ctx context.Context) (io.ReadCloser, error) { return src.Blob(ctx, d) }
			}
			if b.open == nil {
				return fmt.Errorf("blob %s is neither the source's nor added", d.Digest)
			}
			p.blobs = append(p.blobs, b)
		}
		for _, d := range contents.Manifests {
			if seen[d.Digest] || !isDocument(d.MediaType) {
				continue
			}
			seen[d.Digest] = true
			child, own := documents[d.Digest]
			switch {
			case own:
			case src == nil || !src.names(d.Digest) && d.Digest != src.Root.Digest:
				return fmt.Errorf("manifest %s is neither the source's nor added", d.Digest)
			case sourceIsThere:
				continue
			default:
				if child, err = src.Document(ctx, d); err != nil {
					return err
				}
			}
			if err := walk(child); err != nil {
				return err
			}
			p.below = append(p.below, child)
		}
		return nil
	}
	return p, walk(t.Root)
}
