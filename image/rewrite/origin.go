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
	originVersion = "1:"
	// originLimit bounds what a label, which may come from a stranger, unpacks
	// to: registries take manifests up to 4 MB, and no config comes near it.
	originLimit = 16 << 20
)

// Origin packs manifest and config of an image into a string for a label, from
// which FromOrigin restores them byte for byte. The same documents give the same
// string.
//
// It is a version, a colon, and in base64 (RFC 4648, section 4, not padded) the
// zstd frame of the manifest's length as a varint, the manifest, the config.
func Origin(manifest, config []byte) string {
	var b []byte
	b = binary.AppendUvarint(b, uint64(len(manifest)))
	b = append(b, manifest...)
	b = append(b, config...)
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err) // not reached: the options are valid
	}
	defer enc.Close()
	return originVersion + base64.RawStdEncoding.EncodeToString(enc.EncodeAll(b, nil))
}

// FromOrigin unpacks a string made by Origin.
func FromOrigin(s string) (manifest, config []byte, err error) {
	packed, ok := strings.CutPrefix(s, originVersion)
	if !ok {
		return nil, nil, errors.New("origin is of an unknown version")
	}
	frame, err := base64.RawStdEncoding.Strict().DecodeString(packed)
	if err != nil {
		return nil, nil, fmt.Errorf("decoding origin: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(originLimit))
	if err != nil {
		panic(err) // not reached: the options are valid
	}
	defer dec.Close()
	b, err := dec.DecodeAll(frame, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("decompressing origin: %w", err)
	}
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, errors.New("origin is truncated")
	}
	b = b[n:]
	return b[:size:size], b[size:], nil
}
