package image

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/imgwrap/imgwrap/image/python"
	"github.com/imgwrap/imgwrap/image/registry"
)

// BulkState is what became of one image of a bulk.
type BulkState string

// States of images.
const (
	BulkWrapped    BulkState = "wrapped"
	BulkWouldWrap  BulkState = "would-wrap"  // if it were not only planned
	BulkCurrent    BulkState = "current"     // wrapped before, with the same result
	BulkSkipped    BulkState = "skipped"     // without Python, or where a registry lists it no image at all
	BulkRefused    BulkState = "refused"     // it cannot be wrapped as it is
	BulkFailed     BulkState = "failed"      // by the registry, the network or the disk
	BulkNotStarted BulkState = "not-started" // or interrupted
)

// BulkResult is what became of one image.
type BulkResult struct {
	Source       string         `json:"source"`        // as the list or the registry names it
	SourceDigest string         `json:"source_digest"` // that Source stood for, "" if that is not known
	State        BulkState      `json:"state"`
	Image        string         `json:"image"` // repository:tag of the wrapped image, "" if there is none
	Tag          string         `json:"tag"`
	Digest       string         `json:"digest"`
	Name         string         `json:"name"`     // repository@digest
	Release      string         `json:"release"`  // of OpenTelemetry, of an index those of its images
	Warnings     []string       `json:"warnings"` // about the wrapped image
	Reason       string         `json:"reason"`   // for a state that is not wrapped or current
	Hint         string         `json:"hint"`     // what to do about that, if it is known
	Read         registry.Count `json:"read"`     // layers, compressed; those that images share count for one of them
	Uploaded     registry.Count `json:"uploaded"` // blobs
	Seconds      float64        `json:"seconds"`
}

// Problem says whether the image should be wrapped, and could not be.
func (r *BulkResult) Problem() bool { return r.State == BulkRefused || r.State == BulkFailed }

// Wrapped says whether there is a wrapped image, made now or before.
func (r *BulkResult) Wrapped() bool { return r.State == BulkWrapped || r.State == BulkCurrent }

// BulkReport is what became of all images.
type BulkReport struct {
	Version int               `json:"version"` // PlanVersion
	Counts  map[BulkState]int `json:"counts"`
	Images  []BulkResult      `json:"images"` // in the order of the items
}

// BulkOptions are those that are not about one image.
type BulkOptions struct {
	Workers   int  // images at the same time, at least 1
	KeepGoing bool // begin further images after one has failed
	DryRun    bool // plan only
	// Known returns what became of an item in an earlier run, if it needs no more
	// than that. It is asked by several goroutines; nil knows nothing.
	Known func(*BulkItem) (BulkResult, bool)
	// Done is told of each item that has ended, one at a time. Its error ends the
	// bulk. It may be nil.
	Done func(*BulkItem, BulkResult) error
}

// Bulk wraps images, several at a time. An image that is known from before costs
// one request, as long as its source stands for what it stood for.
//
// There is always a report. If not all images could be wrapped, the error is a
// *PartError; those without Python do not count.
func (w *Wrapper) Bulk(ctx context.Context, items []BulkItem, o BulkOptions) (*BulkReport, error) {
	results := make([]BulkResult, len(items))
	var stopped atomic.Bool
	var mu sync.Mutex // held while the result of one is told
	var g errgroup.Group
	g.SetLimit(max(o.Workers, 1))
	for i := range items {
		item := &items[i]
		results[i] = BulkResult{Source: item.Source, State: BulkNotStarted, Reason: "the run ended before", Warnings: []string{}}
		if stopped.Load() || ctx.Err() != nil {
			continue
		}
		g.Go(func() error {
			if stopped.Load() || ctx.Err() != nil { // while it waited for a worker
				return nil
			}
			r := w.one(ctx, item, o)
			results[i] = r
			if r.Problem() && !o.KeepGoing {
				stopped.Store(true)
			}
			if o.Done == nil || r.State == BulkNotStarted {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			err := o.Done(item, r)
			if err != nil {
				stopped.Store(true)
			}
			return err
		})
	}
	err := g.Wait()
	report := &BulkReport{Version: PlanVersion, Counts: map[BulkState]int{}, Images: results}
	for _, r := range results {
		report.Counts[r.State]++
	}
	failed := report.Counts[BulkRefused] + report.Counts[BulkFailed]
	if left := report.Counts[BulkNotStarted]; err == nil && failed+left > 0 {
		err = &PartError{Failed: failed, Of: len(items), NotStarted: left}
	}
	return report, err
}

// one does what is to be done about one item.
func (w *Wrapper) one(ctx context.Context, item *BulkItem, o BulkOptions) BulkResult {
	begun := time.Now()
	r, known := w.known(ctx, item, o)
	if !known {
		r = BulkResult{Source: item.Source, Warnings: []string{}}
		own := *w
		read := &readCounter{inner: w.Progress}
		own.Progress = read
		err := item.Err
		switch {
		case err != nil:
		case o.DryRun:
			err = own.bulkPlan(ctx, item, &r)
		default:
			err = own.bulkWrap(ctx, item, &r)
		}
		if err != nil {
			r.fail(ctx, item, err)
		}
		r.Read = registry.Count{Blobs: int(read.layers.Load()), Bytes: read.bytes.Load()}
	}
	r.Seconds = time.Since(begun).Seconds()
	return r
}

// known is the result of an earlier run, if the source still stands for the same.
func (w *Wrapper) known(ctx context.Context, item *BulkItem, o BulkOptions) (BulkResult, bool) {
	if o.Known == nil || item.Err != nil {
		return BulkResult{}, false
	}
	r, ok := o.Known(item)
	if !ok {
		return BulkResult{}, false
	}
	ref, err := w.Registry.ParseReference(item.Source)
	if err != nil {
		return BulkResult{}, false
	}
	digest, err := w.Registry.Digest(ctx, ref)
	if err != nil {
		return BulkResult{}, false
	}
	inPlace := ref.Name() == r.Image && digest.String() == r.Digest
	if digest.String() != r.SourceDigest && !inPlace {
		return BulkResult{}, false
	}
	r.Source = item.Source
	if r.State == BulkWrapped {
		r.State = BulkCurrent
	}
	return r, true
}

func (w *Wrapper) bulkWrap(ctx context.Context, item *BulkItem, r *BulkResult) error {
	report, found, err := w.wrap(ctx, item.Source, *item.Options)
	if found.Hex != "" {
		r.SourceDigest = found.String()
	}
	if err != nil {
		return err
	}
	r.State = BulkWrapped
	if report.Push.UpToDate {
		r.State = BulkCurrent
	}
	r.Uploaded = report.Push.Uploaded
	r.describe(report.Plan, report.Digest)
	return nil
}

// bulkPlan also asks whether the wrapped image is there already.
func (w *Wrapper) bulkPlan(ctx context.Context, item *BulkItem, r *BulkResult) error {
	t, p, err := w.plan(ctx, item.Source, *item.Options, func(registry.Reference) error { return nil })
	if t != nil {
		defer t.source.Close()
		r.SourceDigest = t.source.Root.Digest.String()
	}
	if err != nil {
		return err
	}
	p.detached(t)
	r.State = BulkWouldWrap
	there, err := w.Registry.Digest(ctx, p.destination)
	switch {
	case err == nil && there.String() == p.Digest:
		r.State = BulkCurrent
	case err != nil && ctx.Err() != nil:
		return err
	}
	r.describe(p, p.Digest)
	return nil
}

// describe says what an image was wrapped to.
func (r *BulkResult) describe(p *Plan, digest string) {
	r.Image, r.Tag, r.Digest, r.Name = p.Image, p.Tag, digest, byDigest(p.destination, digest)
	var releases []string
	for _, im := range p.Images() {
		release := im.Release.Version + "/" + im.Release.Contrib
		if len(releases) == 0 || releases[len(releases)-1] != release {
			releases = append(releases, release)
		}
		for _, warning := range im.Warnings {
			if p.Index != nil {
				warning = im.Platform + ": " + warning
			}
			r.Warnings = append(r.Warnings, warning)
		}
	}
	r.Release = strings.Join(releases, ", ")
	if p.Index != nil {
		r.Warnings = append(r.Warnings, p.Index.Warnings...)
	}
	for _, d := range p.Dropped {
		r.Warnings = append(r.Warnings, "dropped: "+d)
	}
}

// fail says why an image was not wrapped.
func (r *BulkResult) fail(ctx context.Context, item *BulkItem, err error) {
	switch {
	case ctx.Err() != nil:
		r.State, r.Reason = BulkNotStarted, "interrupted"
		return
	case errors.As(err, new(*python.NoPythonError)),
		errors.As(err, new(*registry.UnsupportedError)) && item.listed():
		r.State = BulkSkipped
	case IsRefused(err):
		r.State = BulkRefused
	default:
		r.State = BulkFailed
	}
	r.Reason = strings.TrimPrefix(err.Error(), item.Source+": ")
	var hint interface{ Hint() string }
	if errors.As(err, &hint) {
		r.Hint = hint.Hint()
	}
}

// readCounter counts the layers that are read, and what is read of them.
type readCounter struct {
	inner  Progress // may be nil
	layers atomic.Int64
	bytes  atomic.Int64
}

// Layer implements Progress.
func (c *readCounter) Layer(digest string, size int64, r io.ReadCloser) io.ReadCloser {
	c.layers.Add(1)
	if c.inner != nil {
		r = c.inner.Layer(digest, size, r)
	}
	return &countedReader{r, c}
}

type countedReader struct {
	io.ReadCloser
	counter *readCounter
}

func (r *countedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.counter.bytes.Add(int64(n))
	return n, err
}
