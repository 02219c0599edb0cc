package scan

import (
	"bufio"
	"context"
	"io"
)

// Decompress returns the archive in a layer's blob, whose compression is told as
// by [Read]. It has been read to its end when r has.
func Decompress(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	stream, closeStream, err := decompress(bufio.NewReaderSize(&contextReader{ctx, r}, 64<<10))
	if err != nil {
		return nil, err
	}
	return decompressed{stream, closeStream}, nil
}

type decompressed struct {
	io.Reader
	close func()
}

func (d decompressed) Close() error {
	d.close()
	return nil
}
