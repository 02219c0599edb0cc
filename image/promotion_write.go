package image

import (
	"bytes"
	"fmt"
	"os"

	"github.com/imgwrap/imgwrap/layer"
)

// writeAll writes files, in their order. If one is not what was read, or cannot
// be written, all are as they were.
func writeAll(edits []fileEdit) error {
	for _, e := range edits {
		now, err := os.ReadFile(e.path)
		switch {
		case e.before == nil && err != nil:
			continue // as it is to be, or writing says what is wrong
		case err != nil:
			return fmt.Errorf("writing %s: %w; no file was written", e.name, err)
		}
		if e.before == nil || !bytes.Equal(now, e.before) {
			return fmt.Errorf("%s was changed meanwhile; no file was written, run it again", e.name)
		}
	}
	for i, e := range edits {
		err := e.write(e.after)
		if err == nil {
			continue
		}
		for _, done := range edits[:i] {
			if undo := done.write(done.before); undo != nil {
				return fmt.Errorf("writing %s: %w; and %s stays changed: %w", e.name, err, done.name, undo)
			}
		}
		return fmt.Errorf("writing %s: %w; no file was changed", e.name, err)
	}
	return nil
}

// write gives the file another content; nil removes it.
func (e *fileEdit) write(content []byte) error {
	switch {
	case content == nil:
		return os.Remove(e.path)
	case e.before == nil:
		return layer.WriteFile(e.path, content, 0o644)
	}
	return layer.ReplaceFile(e.path, content)
}
