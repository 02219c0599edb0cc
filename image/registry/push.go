package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// Content is an image to push, made from another one.
type Content struct {
	MediaType        types.MediaType // of the manifest
	Manifest, Config []byte
	// Added are the manifest's layers that the other image does not have.
	Added []v1.Layer
}

// A Report says what a push did.
type Report struct {
	// Digest of the manifest that the destination now stands for.
	Digest v1.Hash `json:"-"`
	// UpToDate: the destination stood for it already, and nothing was sent.
	UpToDate bool `json:"up_to_date"`
	// Uploaded, Mounted and Existing are the blobs, config included, that were
	// sent, that the registry took from another of its repositories, and that
	// were there.
	Uploaded Count `json:"uploaded"`
	Mounted  Count `json:"mounted"`
	Existing Count `json:"existing"`
	// Refused is how many of the source's layers the registry did not mount and
	// had to be uploaded. A registry may do so if the account cannot pull from
	// the repository they are in.
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

// Push pushes content, whose layers are src's or added, to dst. Blobs that are
// there are not sent again; layers in another repository of the same registry
// are mounted, or if the registry does not want to, uploaded like those of other
// registries. The manifest comes last, in the one request that also moves the
// tag: whatever happens before, the tag stands for what it stood for.
//
// If the tag already stands for this content, Push sends nothing. Added layers
// are opened only if the registry lacks them, and before anything is sent.
//
// Errors are *Error. Whatever they say, the tag is as it was, unless they say
// that it may have been written. A context that ends when the registry has
// already taken the manifest is no error.
func (c *Client) Push(ctx context.Context, dst name.Reference, src *Image, content Content) (Report, error) {
	report, err := c.push(about(ctx, "pushing "+dst.String()), dst, src, content)
	if err == nil {
		return report, nil
	}
	manifest, _ := errors.AsType[*manifestError](err)
	if manifest == nil && ctx.Err() != nil { // whatever was being done at the time
		manifest = &manifestError{ctx.Err(), noTag}
		err = manifest
	}
	e := explain("pushing", dst.String(), dst.Context(), true, err)
	if manifest != nil {
		e.reason += "; " + manifest.outcome
	}
	return Report{}, e
}

func (c *Client) push(ctx context.Context, dst name.Reference, src *Image, content Content) (Report, error) {
	report := Report{}
	report.Digest, _, _ = v1.SHA256(bytes.NewReader(content.Manifest))
	if d, ok := dst.(name.Digest); ok && d.DigestStr() != report.Digest.String() {
		return Report{}, fmt.Errorf("the image has digest %s", report.Digest)
	}
	blobs, err := listBlobs(src, content)
	if err != nil {
		return Report{}, err
	}
	p := &pusher{registry: c, ref: dst, repo: dst.Context(), from: src.Reference.Context()}
	same := p.from.Name() == p.repo.Name()
	actions := transport.PushScope
	if same {
		actions = transport.PullScope // known from opening: no need to wait for more
	}
	reader, err := c.session(ctx, p.repo, actions)
	if err != nil {
		return Report{}, err
	}

	// Questions first, all at once.
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(c.jobs)
	var denied error
	g.Go(func() error {
		p.client, denied = c.session(gctx, p.repo, transport.PushScope)
		return nil // it does not matter if there is nothing to push
	})
	g.Go(func() (err error) {
		report.UpToDate, err = p.tagged(gctx, reader, report.Digest)
		return err
	})
	for _, b := range blobs {
		if b.ofSource && same {
			b.exists = true // its manifest, which names it, is there
			continue
		}
		g.Go(func() (err error) {
			b.exists, err = p.exists(gctx, reader, b.Digest)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return Report{}, err
	}
	if report.UpToDate {
		return report, nil
	}
	if denied != nil {
		return Report{}, denied
	}

	defer func() {
		for _, b := range blobs {
			if b.ready != nil {
				b.ready.Close()
			}
		}
	}()
	// What cannot be made must leave nothing half done at the destination.
	for _, b := range blobs {
		if !b.exists && !b.ofSource {
			if err := b.prepare(ctx); err != nil {
				return Report{}, err
			}
		}
	}
	p.openMounts(ctx)
	g, gctx = errgroup.WithContext(ctx)
	g.SetLimit(c.jobs)
	for _, b := range blobs {
		if !b.exists {
			g.Go(func() (err error) {
				b.mounted, err = p.put(gctx, b)
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		return Report{}, err
	}
	if err := p.putManifest(ctx, content, report.Digest); err != nil {
		return Report{}, err
	}
	for _, b := range blobs {
		switch {
		case b.exists:
			report.Existing.add(b.Size)
		case b.mounted:
			report.Mounted.add(b.Size)
		default:
			report.Uploaded.add(b.Size)
			if b.ofSource && p.mountable() {
				report.Refused++
			}
		}
	}
	return report, nil
}

// A blob is one that the pushed image consists of.
type blob struct {
	v1.Descriptor
	open     func(context.Context) (io.ReadCloser, error)
	ofSource bool // rather than added
	exists   bool // at the destination
	mounted  bool // there, by us

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

// listBlobs lists the blobs that content's manifest names, each once.
func listBlobs(src *Image, content Content) ([]*blob, error) {
	var m v1.Manifest
	if err := json.Unmarshal(content.Manifest, &m); err != nil {
		return nil, fmt.Errorf("manifest is not valid: %w", err)
	}
	if _, err := digestAs(m.Config.Digest.String(), content.Config); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	known := make(map[v1.Hash]*blob)
	for _, d := range src.Manifest.Layers {
		known[d.Digest] = &blob{ofSource: true, open: func(ctx context.Context) (io.ReadCloser, error) {
			return src.blob(ctx, d)
		}}
	}
	for _, l := range content.Added {
		digest, err := l.Digest()
		if err != nil {
			return nil, fmt.Errorf("reading an added layer: %w", err)
		}
		if known[digest] == nil {
			known[digest] = &blob{open: func(context.Context) (io.ReadCloser, error) { return l.Compressed() }}
		}
	}
	config := &blob{Descriptor: m.Config, open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content.Config)), nil
	}}
	var blobs []*blob
	for _, d := range m.Layers {
		b := known[d.Digest]
		if b == nil {
			return nil, fmt.Errorf("layer %s is neither the source's nor added", d.Digest)
		}
		if !d.MediaType.IsDistributable() || b.Digest == d.Digest {
			continue // kept elsewhere by its publisher, or listed before
		}
		b.Descriptor = d
		blobs = append(blobs, b)
	}
	return append(blobs, config), nil
}

// A pusher pushes to one repository.
type pusher struct {
	registry *Client
	ref      name.Reference
	repo     name.Repository
	from     name.Repository // of the source
	client   *http.Client
	mounts   *http.Client // nil if nothing can be mounted
}

// mountable says whether mounts from the source's repository are to be tried.
func (p *pusher) mountable() bool {
	return p.from.RegistryStr() == p.repo.RegistryStr() && p.from.Name() != p.repo.Name()
}

// openMounts gets the permission to mount. It is asked for apart from the one to
// push, so that a registry that grants none for both still lets us push.
func (p *pusher) openMounts(ctx context.Context) {
	if p.mountable() {
		p.mounts, _ = p.registry.session(ctx, p.repo, transport.PushScope, p.from)
	}
}

// tagged says whether the destination already stands for the digest.
func (p *pusher) tagged(ctx context.Context, client *http.Client, digest v1.Hash) (bool, error) {
	resp, err := p.head(ctx, client, "manifests", p.ref.Identifier())
	if err != nil || resp.StatusCode != http.StatusOK {
		return false, err
	}
	return resp.Header.Get("Docker-Content-Digest") == digest.String(), nil
}

func (p *pusher) exists(ctx context.Context, client *http.Client, digest v1.Hash) (bool, error) {
	resp, err := p.head(ctx, client, "blobs", digest.String())
	return err == nil && resp.StatusCode == http.StatusOK, err
}

func (p *pusher) head(ctx context.Context, client *http.Client, kind, id string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, endpoint(p.repo, kind, id), nil)
	if err != nil {
		return nil, err
	}
	if kind == "manifests" {
		acceptManifests(req)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	// Artifactory answers 403 for what is not there (RTFACT-13797). If it means
	// it, the upload will be refused as well.
	return resp, transport.CheckError(resp, http.StatusOK, http.StatusNotFound, http.StatusForbidden)
}

// put brings a blob into the repository.
func (p *pusher) put(ctx context.Context, b *blob) (mounted bool, err error) {
	ctx = about(ctx, fmt.Sprintf("pushing %s: blob %s", p.ref, b.Digest))
	for attempt := 0; ; attempt++ {
		mounted, err := p.tryPut(ctx, b)
		if err == nil {
			return mounted, nil
		}
		delay, again := backoff(attempt)
		if ctx.Err() != nil || !again || !worthRetrying(err) {
			return false, err
		}
		if err := p.registry.wait(ctx, delay, err); err != nil {
			return false, err
		}
	}
}

// worthRetrying says of a failed upload whether another one, from its start, may
// succeed: almost anything can have interrupted it.
func worthRetrying(err error) bool {
	if _, ok := errors.AsType[*contentError](err); ok {
		return false
	}
	if answer, ok := errors.AsType[*transport.Error](err); ok {
		switch answer.StatusCode {
		case http.StatusNotFound, http.StatusRequestedRangeNotSatisfiable: // the upload was forgotten
			return answer.Request != nil && answer.Request.Method == http.MethodPut
		}
		return transient(answer.StatusCode)
	}
	return !permanent(err)
}

func (p *pusher) tryPut(ctx context.Context, b *blob) (mounted bool, err error) {
	location := ""
	if p.mounts != nil {
		if mounted, location = p.mount(ctx, b.Digest); mounted {
			return true, nil
		}
	}
	if err := b.prepare(ctx); err != nil {
		return false, err
	}
	if location == "" {
		if location, err = p.begin(ctx); err != nil {
			return false, err
		}
	}
	return false, p.upload(ctx, location, b)
}

// mount asks the registry to take a blob from the source's repository. If it
// does not, it may have begun an upload instead. No failure is an error: a mount
// only saves an upload.
func (p *pusher) mount(ctx context.Context, digest v1.Hash) (mounted bool, location string) {
	query := url.Values{"mount": {digest.String()}, "from": {p.from.RepositoryStr()}}
	resp, err := p.post(once(ctx), p.mounts, query)
	if err != nil {
		return false, ""
	}
	if resp.StatusCode == http.StatusCreated {
		return true, ""
	}
	location, _ = p.nextLocation(resp)
	return false, location
}

// begin begins an upload.
func (p *pusher) begin(ctx context.Context) (location string, err error) {
	resp, err := p.post(ctx, p.client, nil)
	if err != nil {
		return "", err
	}
	return p.nextLocation(resp)
}

func (p *pusher) post(ctx context.Context, client *http.Client, query url.Values) (*http.Response, error) {
	u := endpoint(p.repo, "blobs", "uploads/")
	if query != nil {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return resp, transport.CheckError(resp, http.StatusCreated, http.StatusAccepted)
}

// nextLocation is where an upload goes on.
func (p *pusher) nextLocation(resp *http.Response) (string, error) {
	location, err := resp.Location() // resolved against the request
	if err != nil {
		return "", fmt.Errorf("beginning an upload: %w", err)
	}
	if err := p.registry.checkHost(resp.Request.URL.Hostname(), location.Hostname()); err != nil {
		return "", err
	}
	return location.String(), nil
}

// upload sends a blob in one request: it is its end, too ("POST then PUT" of the
// distribution-spec).
func (p *pusher) upload(ctx context.Context, location string, b *blob) error {
	u, err := url.Parse(location)
	if err != nil {
		return err
	}
	query := u.Query()
	query.Set("digest", b.Digest.String())
	u.RawQuery = query.Encode()

	req, err := http.NewRequestWithContext(once(ctx), http.MethodPut, u.String(), http.NoBody)
	if err != nil {
		return err
	}
	var failure error // of reading the blob
	var body *uploadBody
	req.ContentLength = b.Size
	req.GetBody = func() (io.ReadCloser, error) {
		content, err := b.take(ctx)
		if err != nil {
			failure = err
			return nil, err
		}
		body = &uploadBody{ReadCloser: content}
		return body, nil
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := p.client.Do(req)
	if err != nil {
		if failure != nil {
			return failure
		}
		if body != nil && body.failure() != nil {
			return &contentError{"reading layer " + b.Digest.String(), body.failure()}
		}
		return err
	}
	defer resp.Body.Close()
	return transport.CheckError(resp, http.StatusCreated)
}

// A contentError is one of reading what was to be uploaded.
type contentError struct {
	doing string
	err   error
}

func (e *contentError) Error() string { return e.doing + ": " + e.err.Error() }
func (e *contentError) Unwrap() error { return e.err }

// An uploadBody keeps the error of reading it: the one that net/http returns
// does not tell it from those of the network.
type uploadBody struct {
	io.ReadCloser
	mu     sync.Mutex
	closed bool
	err    error
}

func (b *uploadBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	// net/http closes a body it does not need any more, perhaps in a read.
	if err != nil && err != io.EOF && !b.closed {
		b.err = err
	}
	return n, err
}

func (b *uploadBody) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	return b.ReadCloser.Close()
}

func (b *uploadBody) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// putManifest is the end of a push. If no answer says how it went, it asks.
func (p *pusher) putManifest(ctx context.Context, content Content, digest v1.Hash) error {
	err := p.tryPutManifest(ctx, content)
	if err == nil {
		return nil
	}
	if answer, ok := errors.AsType[*transport.Error](err); ok && answer.StatusCode < http.StatusInternalServerError {
		return err
	}
	// The context may have ended, and the tag may nevertheless be there.
	ctx, cancel := context.WithTimeout(once(context.WithoutCancel(ctx)), 5*time.Second)
	defer cancel()
	outcome := "the tag may have been written"
	if resp, err := p.head(ctx, p.client, "manifests", p.ref.Identifier()); err == nil {
		switch found := resp.Header.Get("Docker-Content-Digest"); {
		case found == digest.String():
			return nil
		case found != "" || resp.StatusCode == http.StatusNotFound:
			outcome = noTag
		}
	}
	return &manifestError{err, outcome}
}

// A manifestError is a failure of putting the manifest that says nothing of
// whether the registry took it.
type manifestError struct {
	err     error
	outcome string // what is known nevertheless
}

func (e *manifestError) Error() string { return e.err.Error() }
func (e *manifestError) Unwrap() error { return e.err }

const noTag = "no tag was written"

func (p *pusher) tryPutManifest(ctx context.Context, content Content) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, endpoint(p.repo, "manifests", p.ref.Identifier()), bytes.NewReader(content.Manifest))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", string(content.MediaType))
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return transport.CheckError(resp, http.StatusCreated, http.StatusOK, http.StatusAccepted)
}
