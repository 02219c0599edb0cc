package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
)

// Epoch is the modification time of every entry that names none: the start of
// zip's calendar, so that no tool finds it out of range. It isn't the time of
// any build, as the same content has to give the same layer at any time.
var Epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// Entry is one file, directory or symbolic link of a layer. Its zero fields
// take fixed values: owner root, time [Epoch], and permissions 0644 for files,
// 0755 for directories and 0777 for links.
type Entry struct {
	// Path is slash-separated, without a leading slash (see [fs.ValidPath]).
	// A whiteout is an empty file with the name the OCI image-spec gives it
	// (layer.md, "Whiteouts").
	Path string
	// Mode holds the type (regular, [fs.ModeDir] or [fs.ModeSymlink]), the
	// permissions, and set-user-ID, set-group-ID and sticky bits.
	Mode fs.FileMode
	// Linkname is the target of a symbolic link.
	Linkname string
	UID, GID int
	// ModTime counts whole seconds; a fraction is dropped.
	ModTime time.Time
	// Data is the content of a file, unless Open is set: then Open gives it,
	// and Size is the number of bytes that Open's reader must have.
	Data []byte
	Open func() (io.ReadCloser, error)
	Size int64
}

// Build makes a layer of entries, in memory: it is meant for a few megabytes.
// The order of entries doesn't matter, as they are sorted by path. The layer
// holds these entries and no others: a directory that isn't among them is left
// to the layers below.
//
// The same entries give the same bytes whatever the Go version, architecture
// or number of CPUs.
func Build(ctx context.Context, entries []Entry) (*Layer, error) {
	sorted := slices.Clone(entries)
	slices.SortFunc(sorted, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	if err := check(sorted); err != nil {
		return nil, fmt.Errorf("building layer: %w", err)
	}

	var (
		info   Info
		blob   bytes.Buffer
		diffID = sha256.New()
	)
	// The standard library's gzip changes its bytes between Go releases.
	// This one changes only when go.mod says so.
	z, err := gzip.NewWriterLevel(&blob, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	// RFC 1952: no name, no time (0, which Go's zero time is not), unknown OS.
	z.Header = gzip.Header{ModTime: time.Unix(0, 0), OS: 255}
	w := tar.NewWriter(io.MultiWriter(z, diffID))
	for _, e := range sorted {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("building layer: %w", err)
		}
		n, err := write(w, e)
		if err != nil {
			return nil, fmt.Errorf("building layer: adding %s: %w", e.Path, err)
		}
		if e.Mode.IsRegular() {
			info.Files++
			info.Unpacked += n
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		return nil, fmt.Errorf("building layer: %w", err)
	}
	digest := sha256.Sum256(blob.Bytes())
	info.Digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(digest[:])}
	info.DiffID = hashOf(diffID)
	info.Size = int64(blob.Len())
	return fromBytes(info, blob.Bytes()), nil
}

func hashOf(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}

// check refuses what no file system can hold. Entries are sorted.
func check(entries []Entry) error {
	types := make(map[string]fs.FileMode, len(entries))
	for _, e := range entries {
		if !fs.ValidPath(e.Path) || e.Path == "." || strings.ContainsRune(e.Path, 0) {
			return fmt.Errorf("invalid path %q", e.Path)
		}
		if _, ok := types[e.Path]; ok {
			return fmt.Errorf("duplicate path %q", e.Path)
		}
		for dir := path.Dir(e.Path); dir != "."; dir = path.Dir(dir) {
			if t, ok := types[dir]; ok && t != fs.ModeDir {
				return fmt.Errorf("%q is inside of %q, which is no directory", e.Path, dir)
			}
		}
		types[e.Path] = e.Mode.Type()
	}
	return nil
}

// write adds one entry and returns the number of bytes of its content.
func write(w *tar.Writer, e Entry) (int64, error) {
	// No format is asked for, so the writer takes USTAR where that fits and
	// PAX, with nothing but the fields that don't, elsewhere.
	h := &tar.Header{
		Name:    e.Path,
		Mode:    int64(e.Mode.Perm()),
		Uid:     e.UID,
		Gid:     e.GID,
		ModTime: e.ModTime.Truncate(time.Second),
	}
	if e.ModTime.IsZero() {
		h.ModTime = Epoch
	}
	for bit, tarBit := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if e.Mode&bit != 0 {
			h.Mode |= tarBit
		}
	}
	perm := int64(0o644)
	switch e.Mode.Type() {
	case 0:
		h.Typeflag = tar.TypeReg
		h.Size = int64(len(e.Data))
		if e.Open != nil {
			h.Size = e.Size
		}
	case fs.ModeDir:
		h.Typeflag, perm = tar.TypeDir, 0o755
		h.Name += "/"
	case fs.ModeSymlink:
		h.Typeflag, perm = tar.TypeSymlink, 0o777
		h.Linkname = e.Linkname
	default:
		return 0, fmt.Errorf("unsupported file type %s", e.Mode.Type())
	}
	if e.Mode.Perm() == 0 {
		h.Mode |= perm
	}
	if err := w.WriteHeader(h); err != nil {
		return 0, err
	}
	if h.Typeflag != tar.TypeReg {
		return 0, nil
	}
	if e.Open == nil {
		_, err := w.Write(e.Data)
		return h.Size, err
	}
	r, err := e.Open()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	n, err := io.Copy(w, r)
	if err == nil && n != h.Size {
		err = fmt.Errorf("content has %d bytes, expected %d", n, h.Size)
	}
	return n, err
}
