package requirements

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
)

// utf8Text returns a text file in UTF-8, and what turns its text back into the
// file's encoding: pip reads UTF-16 if a byte order mark says so, and that is how
// PowerShell saves the output of pip freeze.
func utf8Text(src []byte) (text []byte, encode func([]byte) []byte, err error) {
	var order interface {
		binary.ByteOrder
		binary.AppendByteOrder
	}
	switch {
	case bytes.HasPrefix(src, []byte{0xff, 0xfe}):
		order = binary.LittleEndian
	case bytes.HasPrefix(src, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	default:
		return src, func(text []byte) []byte { return text }, nil
	}
	var units []uint16
	for i := 0; i+1 < len(src); i += 2 {
		units = append(units, order.Uint16(src[i:]))
	}
	text = []byte(string(utf16.Decode(units)))
	encode = func(text []byte) []byte {
		var out []byte
		for _, unit := range utf16.Encode([]rune(string(text))) {
			out = order.AppendUint16(out, unit)
		}
		return out
	}
	if !bytes.Equal(encode(text), src) {
		return nil, nil, &SyntaxError{Line: 1, Problem: "it begins as UTF-16, and goes on as something else"}
	}
	return text, encode, nil
}
