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
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
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
	return documents, nil
}

// Origin packs manifest and config of an image; see Pack.
func Origin(manifest, config []byte) string { return Pack(manifest, config) }

// FromOrigin unpacks a string made by Origin.
func FromOrigin(s string) (manifest, config []byte, err error) {
	documents, err := Unpack(s)
	if err != nil {
		return nil, nil, err
	}
	if len(documents) != 2 {
		return nil, nil, fmt.Errorf("it holds %d documents instead of manifest and config", len(documents))
	}
	return documents[0], documents[1], nil
}
