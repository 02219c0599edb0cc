package main

import (
	"io"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// bars shows a progress bar for each layer that is read.
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
