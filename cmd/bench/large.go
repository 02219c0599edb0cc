package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/stream"
)

// large measures with the application's image below layers of data. Their content
// is the same at each run.
func (b *imagesBench) large(ctx context.Context) error {
	base, err := b.bed.Image(ctx, "bookworm-data")
	if err != nil {
		return err
	}
	ref, err := name.NewTag(b.bed.Registry() + "/bench/large:1.0")
	if err != nil {
		return err
	}
	const layerMegabytes = 50
	var layers []v1.Layer
	for i := range (b.megabytes + layerMegabytes - 1) / layerMegabytes {
		r, w := io.Pipe()
		go func() {
			w.CloseWithError(writeData(w, uint64(i), min(layerMegabytes, b.megabytes-i*layerMegabytes)*1e6))
		}()
		layers = append(layers, stream.NewLayer(r, stream.WithCompressionLevel(gzip.BestSpeed)))
	}
	im, err := mutate.AppendLayers(base, layers...)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.stderr, "making an image of %d MB\n", b.megabytes)
	if err := remote.Write(ref, im, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("pushing %s: %w", ref, err)
	}
	return b.compare(ctx, "large", b.ways())
}

// compressed is how much gzip leaves of what writeData writes.
const compressed = 0.45

// writeData writes a layer of files of 1 to 128 KiB that has about so many bytes
// when it is compressed: hexadecimal digits by chance, and again and again the
// same.
func writeData(w io.Writer, seed uint64, size int64) error {
	random := rand.New(rand.NewPCG(seed, seed))
	digits := func(b []byte) {
		const hex = "0123456789abcdef"
		for i := range b {
			b[i] = hex[random.Uint32()&15]
		}
	}
	repeated := make([]byte, 4<<10)
	digits(repeated)
	t := tar.NewWriter(w)
	content := make([]byte, 128<<10)
	for file, left := 0, int64(float64(size)/compressed); left > 0; file++ {
		content := content[:1<<(10+random.IntN(8))]
		for rest := content; len(rest) > 0; {
			n := min(len(rest), 192)
			digits(rest[:n])
			rest = rest[n:]
			from := random.IntN(len(repeated) - 64)
			rest = rest[copy(rest, repeated[from:from+64]):]
		}
		err := t.WriteHeader(&tar.Header{Name: fmt.Sprintf("srv/data/%d/%d/%d.dat", seed, file/100, file), Mode: 0o644, Size: int64(len(content))})
		if err != nil {
			return err
		}
		if _, err := t.Write(content); err != nil {
			return err
		}
		left -= int64(len(content))
	}
	return t.Close()
}
