package registry

import (
	"archive/tar"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// files are those of a directory or archive. Names are relative, slash-separated
// and clean. What is missing is an fs.ErrNotExist.
type files interface {
	open(name string) (content io.ReadCloser, size int64, err error)
	io.Closer
}

// A directory's files, and no other: links that lead out of it are refused.
type directory struct{ *os.Root }

func openDirectory(dir string) (directory, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return directory{}, fileError(dir, err)
	}
	return directory{root}, nil
}

func (d directory) open(name string) (io.ReadCloser, int64, error) {
	info, err := d.Stat(name) // first: opening a named pipe would wait
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, 0, fileError(name, err)
	}
	f, err := d.Open(name)
	if err != nil {
		return nil, 0, fileError(name, err)
	}
	return f, info.Size(), nil
}

// fileError names a file in an error of the os package as we call it, and says
// what the error is.
func fileError(name string, err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		err = p.Err
	case errors.As(err, &l):
		err = l.Err
	}
	if strings.Contains(err.Error(), "escapes") { // os.Root has no exported error
		return &hintError{fmt.Errorf("%s is a link that leads out of the directory", name), "copy the directory with its links resolved: cp -rL"}
	}
	return fmt.Errorf("%s: %w", name, err)
}

func exists(f files, name string) bool {
	r, _, err := f.open(name)
	if err == nil {
		r.Close()
	}
	return err == nil
}

// readFile reads a file of at most limit bytes.
func readFile(f files, name string, limit int64) ([]byte, error) {
	r, size, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than the %d MiB that are read", name, size, limit>>20)
	}
	content := make([]byte, size)
	if _, err := io.ReadFull(r, content); err != nil {
		return nil, fileError(name, err)
	}
	return content, nil
}

// An archive is a tar file whose files can be read in any order.
type archive struct {
	file    *os.File
	entries map[string]archived

	temporary bool // goes when it is closed
}

type archived struct {
	offset, size int64
	link         string // what to read instead
}

// maxEntries bounds the memory that an archive's list of files takes.
const maxEntries = 1 << 17

// openArchive opens a tar file, perhaps compressed.
func openArchive(ctx context.Context, file string) (*archive, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fileError(file, err)
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is not a regular file", file)
	}
	r, err := decompress(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	if r == nil {
		return newArchive(f, false)
	}
	defer f.Close()
	defer r.Close()
	content, err := spool(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("decompressing: %w", err)
	}
	return newArchive(content, true)
}

// newArchive lists the files of a tar file, and takes it over.
func newArchive(f *os.File, temporary bool) (_ *archive, err error) {
	a := &archive{file: f, entries: make(map[string]archived), temporary: temporary}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	for r := tar.NewReader(f); ; {
		header, err := r.Next()
		switch {
		case err == io.EOF:
			return a, nil
		case err != nil && len(a.entries) == 0:
			return nil, errors.New("it is not a tar archive")
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, errors.New("the archive is cut off")
		case err != nil:
			return nil, fmt.Errorf("the archive is damaged: %w", err)
		}
		if err := a.add(header); err != nil {
			return nil, err
		}
	}
}

func (a *archive) add(header *tar.Header) (err error) {
	name := path.Clean(header.Name)
	if !fs.ValidPath(name) {
		return fmt.Errorf("the archive has a file outside of itself, %q", header.Name)
	}
	if len(a.entries) == maxEntries {
		return fmt.Errorf("the archive has more than %d files", maxEntries)
	}
	var e archived
	switch header.Typeflag {
	case tar.TypeReg:
		for record := range header.PAXRecords {
			if strings.HasPrefix(record, "GNU.sparse.") {
				return fmt.Errorf("the archive has a sparse file, %q", header.Name)
			}
		}
		e.size = header.Size
		e.offset, err = a.file.Seek(0, io.SeekCurrent) // the reader reads no further than it has to
	case tar.TypeGNUSparse:
		return fmt.Errorf("the archive has a sparse file, %q", header.Name)
	case tar.TypeSymlink: // docker save of before 25 for layers it has already
		e.link = path.Join(path.Dir(name), header.Linkname) //nolint:gosec // open looks where it leads
		if path.IsAbs(header.Linkname) {
			e.link = header.Linkname
		}
	case tar.TypeLink:
		e.link = path.Clean(header.Linkname)
	default:
		return nil
	}
	a.entries[name] = e // the last one of a name counts, as for who unpacks
	return err
}

func (a *archive) open(name string) (io.ReadCloser, int64, error) {
	at := name
	for range 8 {
		e, ok := a.entries[at]
		switch {
		case !ok:
			return nil, 0, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		case e.link == "":
			return io.NopCloser(io.NewSectionReader(a.file, e.offset, e.size)), e.size, nil
		case !fs.ValidPath(e.link):
			return nil, 0, fmt.Errorf("%s is a link that leads out of the archive", name)
		}
		at = e.link
	}
	return nil, 0, fmt.Errorf("%s is a link that leads nowhere", name)
}

func (a *archive) Close() error {
	if a.temporary {
		removeTemporary(a.file)
		return nil
	}
	return a.file.Close()
}

// decompress returns a reader of the content of a file, nil if that is not
// compressed. It leaves the file at its start.
func decompress(f io.ReadSeeker) (io.ReadCloser, error) {
	format, err := sniff(f)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, err
	}
	return format.reader(f)
}

// A compression is a format of compressed data, by what it begins with.
type compression string

const (
	uncompressed compression = ""
	gzipped      compression = "\x1f\x8b"
	zstandard    compression = "\x28\xb5\x2f\xfd"
	bzipped      compression = "BZh"
	xzipped      compression = "\xfd7zXZ"
)

func sniff(r io.Reader) (compression, error) {
	start := make([]byte, 6)
	n, err := io.ReadFull(r, start)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return "", err
	}
	for _, c := range []compression{gzipped, zstandard, bzipped, xzipped} {
		if strings.HasPrefix(string(start[:n]), string(c)) {
			return c, nil
		}
	}
	return uncompressed, nil
}

// reader returns a reader of what r's compressed data holds, nil for uncompressed.
func (c compression) reader(r io.Reader) (io.ReadCloser, error) {
	switch c {
	case uncompressed:
		return nil, nil
	case gzipped:
		return gzip.NewReader(r)
	case zstandard:
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(32<<20))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case bzipped:
		return io.NopCloser(bzip2.NewReader(r)), nil
	}
	return nil, &hintError{errors.New("it is compressed in a way that is not supported"), "decompress it first, e.g. with unxz"}
}

// createTemporary creates a temporary file. Where the system allows that, it has
// no name any more: it goes with this process, however that ends.
func createTemporary() (*os.File, error) {
	f, err := os.CreateTemp("", "imgwrap-*")
	if err == nil {
		os.Remove(f.Name())
	}
	return f, err
}

// removeTemporary closes and removes a temporary file.
func removeTemporary(f *os.File) {
	f.Close()
	os.Remove(f.Name())
}

// spool writes what r gives to a temporary file.
func spool(ctx context.Context, r io.Reader) (_ *os.File, err error) {
	f, err := createTemporary()
	if err != nil {
		return nil, err
	}
	if _, err = io.Copy(f, &contextReader{ctx, r}); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		removeTemporary(f)
		return nil, err
	}
	return f, nil
}

// A contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// A tarFile is one to be written to an archive.
type tarFile struct {
	name string
	size int64
	open func(context.Context) (io.ReadCloser, error)
}

func bytesFile(name string, content []byte) tarFile {
	return tarFile{name, int64(len(content)), func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}}
}

// writeTar writes an archive: the same bytes for the same files. Content that does
// not have its size is an error.
func writeTar(ctx context.Context, w io.Writer, list []tarFile) error {
	t := tar.NewWriter(w)
	for _, f := range list {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: f.size, Mode: 0o644}); err != nil {
			return err
		}
		if err := f.writeTo(ctx, t); err != nil {
			return err
		}
	}
	return t.Close()
}

func (f tarFile) writeTo(ctx context.Context, w io.Writer) error {
	r, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, &contextReader{ctx, r})
	return err
}

// replaceFile puts a new file in the place of another, once it is complete.
func replaceFile(file string, write func(io.Writer) error) (err error) {
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", file)
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return fileError(filepath.Dir(file), err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	// CreateTemp makes the file readable by its owner alone.
	if err := errors.Join(f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return fileError(file, err)
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return fileError(file, err)
	}
	return nil
}
