package registry

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// A blobReader reads a blob and verifies it: io.EOF means that all of it was
// read and has the digest.
type blobReader struct {
	ctx    context.Context
	client *http.Client
	wait   waiter
	url    string
	desc   v1.Descriptor

	hash     hash.Hash
	offset   int64
	failures int   // with less than progress in between
	failedAt int64 // the offset at the last one
	err      error

	mu     sync.Mutex // Close may be called during Read, as net/http does
	body   io.ReadCloser
	closed bool
}

// progress is how many bytes have to arrive after a failure for the next one to
// count as the first: a connection that breaks after every few bytes is not worth
// going on with.
const progress = 1 << 20

func newBlobReader(ctx context.Context, client *http.Client, wait waiter, repo name.Repository, d v1.Descriptor) (*blobReader, error) {
	hasher, err := v1.Hasher(d.Digest.Algorithm)
	if err != nil {
		return nil, err
	}
	r := &blobReader{
		ctx:    ctx,
		client: client,
		wait:   wait,
		url:    endpoint(repo, "blobs", d.Digest.String()),
		desc:   d,
		hash:   hasher,
	}
	return r, r.connect()
}

// connect requests the blob from the offset on.
func (r *blobReader) connect() error {
	resp, err := r.request(r.offset)
	if err == nil && resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		resp.Body.Close()
		resp, err = r.request(0)
	}
	if err != nil {
		return err
	}
	err = transport.CheckError(resp, http.StatusOK, http.StatusPartialContent)
	switch {
	case err != nil:
	case resp.StatusCode == http.StatusPartialContent:
		if got, want := resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", r.offset); !strings.HasPrefix(got, want) {
			err = answerError(fmt.Sprintf("registry sent %q instead of %q", got, want))
		}
	case resp.ContentLength >= 0 && resp.ContentLength != r.desc.Size:
		err = answerError(fmt.Sprintf("registry has %d bytes instead of %d", resp.ContentLength, r.desc.Size))
	default:
		_, err = io.CopyN(io.Discard, resp.Body, r.offset) // a registry without ranges begins again
	}
	if err != nil {
		resp.Body.Close()
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		resp.Body.Close()
		return errClosed
	}
	r.body = resp.Body
	return nil
}

func (r *blobReader) request(offset int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(r.ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return nil, err
	}
	if offset > 0 {
		// Some registries want both ends.
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, r.desc.Size-1))
	}
	return r.client.Do(req)
}

const errClosed = answerError("reading after closing")

// An answerError is one that connecting again does not mend.
type answerError string

func (e answerError) Error() string { return string(e) }

func (r *blobReader) Read(p []byte) (int, error) {
	if r.err != nil || len(p) == 0 {
		return 0, r.err
	}
	n, err := r.read(p)
	r.err = err
	return n, err
}

func (r *blobReader) read(p []byte) (int, error) {
	for {
		r.mu.Lock()
		body, closed := r.body, r.closed
		r.mu.Unlock()
		if closed {
			return 0, errClosed
		}
		n, err := body.Read(p)
		if r.offset+int64(n) > r.desc.Size {
			return 0, mismatch("registry sent more than the %d bytes it should have", r.desc.Size)
		}
		r.hash.Write(p[:n])
		r.offset += int64(n)
		if err != nil && r.offset == r.desc.Size {
			if err := checkDigest(r.desc.Digest, r.hash.Sum(nil)); err != nil {
				return 0, err
			}
			return n, io.EOF
		}
		if n > 0 {
			return n, nil // an error will come again
		}
		if err != nil {
			if err := r.resume(err); err != nil {
				return 0, err
			}
		}
	}
}

// resume connects again after an error, until it fails for good.
func (r *blobReader) resume(cause error) error {
	if r.offset-r.failedAt >= progress {
		r.failures = 0
	}
	r.failedAt = r.offset
	for {
		if r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		delay, again := backoff(r.failures)
		if !again || permanent(cause) {
			if errors.Is(cause, io.EOF) || errors.Is(cause, io.ErrUnexpectedEOF) {
				return fmt.Errorf("registry sent only %d of %d bytes", r.offset, r.desc.Size)
			}
			return cause
		}
		r.failures++
		r.mu.Lock()
		r.body.Close()
		r.mu.Unlock()
		if err := r.wait(r.ctx, delay, cause); err != nil {
			return err
		}
		if cause = r.connect(); cause == nil {
			return nil
		}
		if _, ok := errors.AsType[answerError](cause); ok {
			return cause
		}
		if _, ok := errors.AsType[*transport.Error](cause); ok {
			return cause
		}
	}
}

func (r *blobReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	return r.body.Close()
}
