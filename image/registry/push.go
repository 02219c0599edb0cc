package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/errgroup"
)

// push is Write to a registry.
func (c *Client) push(ctx context.Context, dst name.Reference, src *Source, t Tree) (Report, error) {
	report := Report{Digest: t.Root.Digest}
	p := &pusher{registry: c, ref: dst, repo: dst.Context()}
	var leave func()
	p.together, leave = c.together.join(p.repo)
	defer leave()
	same := false
	if src != nil {
		if from, ok := src.store.(*repository); ok {
			p.from = from.name
			same = p.from.Name() == p.repo.Name()
		}
	}
	parts, err := t.list(ctx, src, same)
	if err != nil {
		return Report{}, err
	}
	for _, d := range append(parts.below, parts.root) {
		if len(d.Raw) > manifestLimit {
			return Report{}, errTooLarge // some registries would take it, and then not give it back
		}
	}
	blobs := parts.blobs
	actions := transport.PushScope
	if same || src == nil {
		// Known from opening: no need to wait for more. And who may only pull can use
		// shared layers.
		actions = transport.PullScope
	}
	reader, err := c.session(ctx, p.repo, actions)
	if err != nil {
		return Report{}, err
	}

	// Questions first, all at once: they are small, and what is waited for is the
	// time to the registry and back.
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(c.jobs, 16))
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
	if report.Shared, err = p.share(ctx, blobs); err != nil {
		return Report{}, err
	}
	p.openMounts(ctx, blobs)
	// What cannot be made must leave nothing half done at the destination. What is
	// shared was made before, or need not be.
	for _, b := range blobs {
		if !b.exists && !b.ofSource && !b.kept {
			if err := b.prepare(ctx); err != nil {
				return Report{}, err
			}
		}
	}
	g, gctx = errgroup.WithContext(ctx)
	g.SetLimit(c.jobs)
	for _, b := range blobs {
		if !b.exists {
			g.Go(func() (err error) {
				b.exists, err = p.together.bring(gctx, b.Digest, func() error { return p.bring(gctx, b) })
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		return Report{}, err
	}
	if err := p.putBelow(ctx, parts.below); err != nil {
		return Report{}, err
	}
	if err := p.putRoot(ctx, t.Root); err != nil {
		return Report{}, err
	}
	for _, b := range blobs {
		// Those of a source in the same registry are mounted from there, and are many.
		if b.layer && !(b.ofSource && p.here(p.from)) {
			c.layers.found(p.repo, b.Digest)
		}
		switch {
		case b.exists:
			report.Existing.add(b.Size)
		case b.mounted:
			report.Mounted.add(b.Size)
		default:
			report.Uploaded.add(b.Size)
			if b.elsewhere || p.sharable(b) || b.ofSource && p.mountable(p.from) {
				report.Refused++
			}
		}
	}
	return report, nil
}

// CheckPush says early whether Write to a reference can be expected to be allowed:
// if there is no such tag yet and its registry does not let us begin an upload,
// the error is the *Error that Write would give. If there is one, Write may have
// nothing to do, which who may only pull can do as well.
//
// The upload is left for Write. The caller calls undo in the end: if it was not
// needed, that cancels it.
//
// Of what is not in a registry it says nothing.
func (c *Client) CheckPush(ctx context.Context, dst Reference) (undo func(), err error) {
	undo = func() {}
	if dst.Transport != InRegistry {
		return undo, nil
	}
	ctx = about(ctx, "pushing "+dst.String())
	p := &pusher{registry: c, ref: dst.named, repo: dst.inRegistry()}
	location := ""
	if p.client, err = c.session(ctx, p.repo, transport.PushScope); err == nil {
		location, err = p.begin(ctx)
	}
	if err == nil {
		c.begun.put(p.repo, location)
		return func() {
			if location, unused := c.begun.take(p.repo); unused {
				p.cancel(ctx, location)
			}
		}, nil
	}
	if reader, denied := c.session(ctx, p.repo, transport.PullScope); denied == nil {
		if resp, err := p.head(once(ctx), reader, "manifests", p.ref.Identifier()); err == nil && resp.StatusCode == http.StatusOK {
			return undo, nil
		}
	}
	e := explain("pushing", dst.String(), p.repo, true, err)
	if ctx.Err() != nil {
		e.reason += "; " + noTag
	}
	return undo, e
}

// cancel cancels an upload. Where it cannot, the registry forgets it some day.
func (p *pusher) cancel(ctx context.Context, location string) {
	ctx, stop := context.WithTimeout(once(context.WithoutCancel(ctx)), 5*time.Second)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, location, nil)
	if err != nil {
		return
	}
	if resp, err := p.client.Do(req); err == nil {
		resp.Body.Close()
	}
}

// A pusher pushes to one repository.
type pusher struct {
	registry *Client
	ref      name.Reference
	repo     name.Repository
	from     name.Repository // of the source, the zero value if it is not in a registry
	client   *http.Client
	together *gathering
	places   cache[*place] // to mount from, by name
}

// here says whether a repository is in the registry that is pushed to.
func (p *pusher) here(repo name.Repository) bool {
	return repo != (name.Repository{}) && repo.RegistryStr() == p.repo.RegistryStr()
}

// mountable says whether mounts from a repository are to be tried.
func (p *pusher) mountable(from name.Repository) bool {
	return p.here(from) && from.Name() != p.repo.Name()
}

// openMounts gets the permissions to mount what is missing.
func (p *pusher) openMounts(ctx context.Context, blobs []*blob) {
	for _, b := range blobs {
		from := p.from
		if p.sharable(b) {
			from = b.shared.Kept.inRegistry()
		}
		if !b.exists && p.mountable(from) {
			b.from = p.place(ctx, from)
		}
	}
}

// place is a repository to mount from, nil if that is not allowed. The permission
// is asked for apart from the one to push, so that a registry that grants none for
// both still lets us push.
func (p *pusher) place(ctx context.Context, from name.Repository) *place {
	opened, _ := p.places.get(from.Name(), func() (*place, error) {
		client, err := p.registry.session(ctx, p.repo, transport.PushScope, from)
		if err != nil {
			return nil, nil //nolint:nilerr // a mount only saves an upload
		}
		return &place{from, client}, nil
	})
	return opened
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

// bring brings a blob into the repository. Of a layer that several pushes bring to
// a registry, one does, and the others mount it.
func (p *pusher) bring(ctx context.Context, b *blob) (err error) {
	if !b.layer || p.sharable(b) || b.ofSource && p.mountable(p.from) {
		b.mounted, err = p.put(ctx, b)
		return err
	}
	repo, brought, err := p.registry.layers.find(ctx, p.repo.Registry, b.Digest)
	if err != nil {
		return err
	}
	var there name.Repository
	defer func() { brought(there) }()
	if p.mountable(repo) {
		b.elsewhere = true
		b.from = p.place(ctx, repo)
	}
	if b.mounted, err = p.put(ctx, b); err == nil {
		there = p.repo
	}
	return err
}

// put puts a blob into the repository.
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
		// It may be that all arrived, and the answer got lost.
		if there, err := p.exists(once(ctx), p.client, b.Digest); err == nil && there {
			return false, nil
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
	if b.from != nil {
		if mounted, location = p.mount(ctx, b); mounted {
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

// mount asks the registry to take a blob from another of its repositories. If it
// does not, it may have begun an upload instead. No failure is an error: a mount
// only saves an upload.
func (p *pusher) mount(ctx context.Context, b *blob) (mounted bool, location string) {
	query := url.Values{"mount": {b.Digest.String()}, "from": {b.from.repo.RepositoryStr()}}
	resp, err := p.post(once(ctx), b.from.client, query)
	if err != nil {
		return false, ""
	}
	if resp.StatusCode == http.StatusCreated {
		return true, ""
	}
	location, _ = p.nextLocation(resp)
	return false, location
}

// begin begins an upload, if none was.
func (p *pusher) begin(ctx context.Context) (location string, err error) {
	if begun, ok := p.registry.begun.take(p.repo); ok {
		return begun, nil
	}
	resp, err := p.post(ctx, p.client, nil)
	if err != nil {
		return "", err
	}
	return p.nextLocation(resp)
}

// uploads are the locations of uploads that nothing was sent to, by repository.
type uploads struct {
	mu sync.Mutex
	m  map[name.Repository][]string
}

func (u *uploads) put(repo name.Repository, location string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.m == nil {
		u.m = make(map[name.Repository][]string)
	}
	u.m[repo] = append(u.m[repo], location)
}

func (u *uploads) take(repo name.Repository) (location string, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	locations := u.m[repo]
	if len(locations) == 0 {
		return "", false
	}
	last := len(locations) - 1
	if u.m[repo] = locations[:last]; last == 0 {
		delete(u.m, repo)
	}
	return locations[last], true
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

// putBelow puts the documents below the root by their digests, those first that
// others name.
func (p *pusher) putBelow(ctx context.Context, documents []Document) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(p.registry.jobs)
	for _, d := range documents {
		if !d.MediaType.IsIndex() {
			g.Go(func() error { return p.putChild(gctx, d) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, d := range documents {
		if d.MediaType.IsIndex() {
			if err := p.putChild(ctx, d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *pusher) putChild(ctx context.Context, d Document) error {
	_, err := p.together.bring(ctx, d.Digest, func() error { return p.putDocument(ctx, d, d.Digest.String()) })
	return err
}

// putRoot is the end of a push. If no answer says how it went, it asks.
func (p *pusher) putRoot(ctx context.Context, root Document) error {
	err := p.putDocument(ctx, root, p.ref.Identifier())
	if err == nil {
		return nil
	}
	if answer, ok := errors.AsType[*transport.Error](err); ok && answer.StatusCode < http.StatusInternalServerError {
		return err
	}
	// The context may have ended, and the tag may nevertheless be there.
	ctx, cancel := context.WithTimeout(once(context.WithoutCancel(ctx)), 5*time.Second)
	defer cancel()
	outcome := maybeTag
	if resp, err := p.head(ctx, p.client, "manifests", p.ref.Identifier()); err == nil {
		switch found := resp.Header.Get("Docker-Content-Digest"); {
		case found == root.Digest.String():
			return nil
		case found != "" || resp.StatusCode == http.StatusNotFound:
			outcome = noTag
		}
	}
	return &outcomeError{err, outcome}
}

// putDocument puts a document under a tag or its digest. Registries may take a
// while to find what was brought there just before, or what another process is
// bringing, too.
func (p *pusher) putDocument(ctx context.Context, d Document, identifier string) error {
	for attempt := 0; ; attempt++ {
		err := p.tryDocument(ctx, d, identifier)
		answer, ok := errors.AsType[*transport.Error](err)
		if !ok || !lacksPart(answer) {
			return err
		}
		delay, again := backoff(attempt)
		if !again {
			return err
		}
		if wait := p.registry.wait(ctx, delay, err); wait != nil {
			return wait
		}
	}
}

// lacksPart says whether a registry says that it lacks what a document names.
func lacksPart(answer *transport.Error) bool {
	return slices.ContainsFunc(answer.Errors, func(d transport.Diagnostic) bool {
		return d.Code == transport.ManifestBlobUnknownErrorCode
	})
}

func (p *pusher) tryDocument(ctx context.Context, d Document, identifier string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, endpoint(p.repo, "manifests", identifier), bytes.NewReader(d.Raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", string(d.MediaType))
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return transport.CheckError(resp, http.StatusCreated, http.StatusOK, http.StatusAccepted)
}
