package main

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// bars shows a progress bar for each layer that is read, and one for images where
// there are many.
type bars struct{ progress *mpb.Progress }

func newBars(w io.Writer) *bars {
	return &bars{mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))}
}

// Layer implements image.Progress.
func (b *bars) Layer(digest string, size int64, r io.ReadCloser) io.ReadCloser {
	bar := b.progress.AddBar(size,
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name("reading "+short(digest)+" ")),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f")),
	)
	proxy, err := bar.ProxyReader(r)
	if err != nil { // the bars have ended already
		return r
	}
	return &barReader{proxy, bar}
}

// Write writes lines above the bars.
func (b *bars) Write(p []byte) (int, error) { return b.progress.Write(p) }

func (b *bars) wait() { b.progress.Wait() }

// barReader ends its bar when the layer is closed early, so that waiting for
// the bars ends too.
type barReader struct {
	io.ReadCloser
	bar *mpb.Bar
}

func (r *barReader) Close() error {
	r.bar.Abort(true)
	return r.ReadCloser.Close()
}

// imagesBar is the bar for images, above those for layers.
type imagesBar struct {
	bar      *mpb.Bar
	problems atomic.Int64
}

func (b *bars) images(n int) *imagesBar {
	i := &imagesBar{}
	i.bar = b.progress.AddBar(int64(n),
		mpb.BarPriority(-1),
		mpb.PrependDecorators(decor.Name("images ")),
		mpb.AppendDecorators(decor.CountersNoUnit("%d / %d"), decor.Any(func(decor.Statistics) string {
			if n := i.problems.Load(); n > 0 {
				return fmt.Sprintf(", %d with problems", n)
			}
			return ""
		})),
	)
	return i
}

// done counts an image.
func (i *imagesBar) done(problem bool) {
	if problem {
		i.problems.Add(1)
	}
	i.bar.Increment()
}

// end leaves the bar as it is.
func (i *imagesBar) end() { i.bar.Abort(false) }
