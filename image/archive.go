package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/scan"
)

// archived is an entry of a layer that imgwrap made.
type archived struct {
	name    string // without a slash at either end
	header  *tar.Header
	content []byte
}

func (e archived) isDir() bool  { return e.header.Typeflag == tar.TypeDir }
func (e archived) isFile() bool { return e.header.Typeflag == tar.TypeReg }

// ordinary says whether an entry is root's and has only these permissions.
func (e archived) ordinary(mode int64) bool {
	return e.header.Mode == mode && e.header.Uid == 0 && e.header.Gid == 0
}

// maxArchive is what a layer that imgwrap made for one image may hold, in bytes.
// A bundle's bytecode has 15 MB.
const maxArchive = 128 << 20

// readArchive reads a layer with the contents of its files.
func readArchive(ctx context.Context, s *registry.Source, d v1.Descriptor) ([]archived, error) {
	r, err := s.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	archive, err := scan.Decompress(ctx, r)
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	return unarchive(archive)
}

func unarchive(r io.Reader) ([]archived, error) {
	limited := &io.LimitedReader{R: r, N: maxArchive}
	var entries []archived
	for t := tar.NewReader(limited); ; {
		h, err := t.Next()
		if limited.N == 0 {
			return nil, errors.New("it holds more than a layer of imgwrap's")
		}
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(t)
		if err != nil {
			return nil, err
		}
		entries = append(entries, archived{strings.Trim(h.Name, "/"), h, content})
	}
}

// compareArchives returns the first difference between two archives as an error.
// Without contents, only what is there is compared.
func compareArchives(want, got []archived, contents bool) error {
	left := map[string]archived{}
	for _, e := range want {
		left[e.name] = e
	}
	for _, g := range got {
		w, ok := left[g.name]
		if !ok {
			return fmt.Errorf("/%s does not belong there", g.name)
		}
		delete(left, g.name)
		a, b := w.header, g.header
		switch {
		case a.Typeflag != b.Typeflag || a.Linkname != b.Linkname:
			return fmt.Errorf("/%s is something else than it should be", g.name)
		case a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid:
			return fmt.Errorf("/%s has mode %04o and owner %d:%d instead of %04o and %d:%d", g.name, b.Mode, b.Uid, b.Gid, a.Mode, a.Uid, a.Gid)
		case !a.ModTime.Equal(b.ModTime) || !maps.Equal(a.PAXRecords, b.PAXRecords):
			return fmt.Errorf("/%s has other attributes than it should", g.name)
		case contents && !bytes.Equal(w.content, g.content):
			return fmt.Errorf("/%s is not what imgwrap wrote", g.name)
		}
	}
	for _, w := range want {
		if _, ok := left[w.name]; ok {
			return fmt.Errorf("/%s is missing", w.name)
		}
	}
	return nil
}
