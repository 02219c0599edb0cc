package rewrite

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/klauspost/compress/zstd"
)

const (
	packVersion = "1:"
	// packLimit bounds what a label, which may come from a stranger, unpacks
	// to: registries take manifests up to 4 MB, and no config comes near it.
	packLimit = 16 << 20
)

// Pack packs documents into a string for a label, from which Unpack restores
// them byte for byte. The same documents give the same string.
//
// It is a version, a colon, and in base64 (RFC 4648, section 4, not padded) the
// zstd frame of each document's length as a varint and the document.
func Pack(documents ...[]byte) string {
	var b []byte
	for _, d := range documents {
		b = binary.AppendUvarint(b, uint64(len(d)))
		b = append(b, d...)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression),
		zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20)) // megabytes less than by default
	if err != nil {
		panic(err) // not reached: the options are valid
	}
	defer enc.Close()
	return packVersion + base64.RawStdEncoding.EncodeToString(enc.EncodeAll(b, nil))
}

// Unpack unpacks a string made by Pack.
func Unpack(s string) ([][]byte, error) {
	packed, ok := strings.CutPrefix(s, packVersion)
	if !ok {
		return nil, errors.New("it is of an unknown version")
	}
	frame, err := base64.RawStdEncoding.Strict().DecodeString(packed)
	if err != nil {
		return nil, fmt.Errorf("decoding: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(packLimit))
	if err != nil {
		panic(err) // not reached: the options are valid
	}
	defer dec.Close()
	b, err := dec.DecodeAll(frame, nil)
	if err != nil {
		return nil, fmt.Errorf("decompressing: %w", err)
	}
	var documents [][]byte
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return nil, errors.New("it is truncated")
		}
		b = b[n:]
		documents = append(documents, b[:size:size])
		b = b[size:]
	}
	if len(documents) == 0 {
		return nil, errors.New("it is empty")
	}
	return documents, nil
}
