package scan

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"math"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Limits of one layer: what an image may make its reader hold. A layer of
// 500,000 files needs about 25 MB of index.
const (
	maxPath     = 4096     // PATH_MAX: a longer name can't be extracted
	maxName     = 255      // NAME_MAX
	maxIndex    = 64 << 20 // bytes of names and metadata
	maxContent  = 32 << 20 // bytes of package metadata; more is an error
	maxScripts  = 8 << 20  // bytes of scripts and executables' heads; what is beyond is left out
	maxWindow   = 128 << 20
	entrySize   = 16
	metaCost    = 128 // bytes that a new combination of owner and mode costs, roughly
	contentCost = 64
)

// Read makes the index of one layer from r: a tar archive, compressed with
// gzip or zstd or not at all. Compression is told by the first bytes, not by a
// media type. Concatenated gzip members and zstd frames (eStargz,
// zstd:chunked) are one stream, as for every container runtime.
//
// If there is no error, r has been read to its end, including what follows the
// archive's last member, so a verifying reader below r has seen every byte. A
// truncated or corrupt stream is an error. An archive that would need
// unreasonable memory is refused.
//
// Content is kept of the files that [Index.ReadFile] lists. Beyond 8 MiB of
// scripts and executables in one layer, the content of further ones is not
// kept; more than 32 MiB of package metadata is an error.
func Read(ctx context.Context, r io.Reader) (*Layer, error) {
	in := bufio.NewReaderSize(&contextReader{ctx, r}, 64<<10)
	stream, closeStream, err := decompress(in)
	if err != nil {
		return nil, err
	}
	defer closeStream()
	b := newBuilder()
	archive := tar.NewReader(stream)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading layer after %d entries: %w", b.members, noEOF(err))
		}
		if err := b.add(header, archive); err != nil {
			return nil, fmt.Errorf("reading layer: %q: %w", header.Name, noEOF(err))
		}
	}
	// Checksums stand at the end, and the bytes behind the archive count for
	// the layer's digest.
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return nil, fmt.Errorf("reading layer after its last entry: %w", noEOF(err))
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return nil, fmt.Errorf("reading layer after its last entry: %w", err)
	}
	return b.layer, nil
}

// noEOF turns the end of input in the middle of something into an error that
// says so: io.EOF reads as a normal end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func decompress(in *bufio.Reader) (io.Reader, func(), error) {
	magic, err := in.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, fmt.Errorf("reading layer: %w", err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, nil, fmt.Errorf("decompressing layer: %w", noEOF(err))
		}
		return z, func() { z.Close() }, nil
	case isZstd(magic):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, fmt.Errorf("decompressing layer: %w", err)
		}
		return z, z.Close, nil
	}
	return in, func() {}, nil
}

// isZstd reports whether b starts a zstd frame or a skippable frame (RFC 8878,
// section 3.1).
func isZstd(b []byte) bool {
	return bytes.Equal(b, []byte{0x28, 0xb5, 0x2f, 0xfd}) ||
		len(b) == 4 && b[0]&0xf0 == 0x50 && bytes.Equal(b[1:], []byte{0x2a, 0x4d, 0x18})
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// builder fills a layer.
type builder struct {
	layer   *Layer
	dirs    names // first entry of each directory
	metas   map[meta]uint32
	recent  recent
	members int

	lastDir   string // the directory of the last member, as most members follow a sibling
	lastEntry uint32

	index, content, scripts int // bytes held
	buffer                  []byte
}

func newBuilder() *builder {
	b := &builder{
		layer:  &Layer{},
		metas:  map[meta]uint32{},
		recent: recent{seed: maphash.MakeSeed()},
		buffer: make([]byte, maxText),
	}
	b.push(entry{meta: b.meta(implicitMeta)}, nil)
	return b
}

// implicitMeta is what runtimes give to a directory that no member describes.
var implicitMeta = meta{kind: implicit, mode: fs.ModeDir | 0o755}

var errIndexSize = fmt.Errorf("the layer's index would exceed %d MiB: too many files", maxIndex>>20)

func (b *builder) push(e entry, name []byte) uint32 {
	var added bool
	b.index += entrySize
	if e.name, added = b.recent.add(&b.layer.text, name); added {
		b.index += len(name) + 1
	}
	return b.layer.entries.add(e)
}

func (b *builder) meta(m meta) uint32 {
	id, ok := b.metas[m]
	if !ok {
		id = uint32(len(b.layer.metas))
		b.metas[m] = id
		b.layer.metas = append(b.layer.metas, m)
		b.index += metaCost
	}
	return id
}

func (b *builder) key(e uint32) (uint32, []byte) {
	return b.layer.entries.at(e).parent, b.layer.name(e)
}

// dir returns the first entry of a directory (cleaned, without a leading
// slash), adding entries for it and its parents where there are none.
func (b *builder) dir(name string) uint32 {
	if name == "" {
		return 0
	}
	if name == b.lastDir {
		return b.lastEntry
	}
	parent, base := split(name)
	p := b.dir(parent)
	e, ok := b.dirs.find(p, []byte(base), b.key)
	if !ok {
		e = b.push(entry{parent: p, meta: b.meta(implicitMeta)}, []byte(base))
		b.dirs.add(e, b.key)
		b.index += 8
	}
	b.lastDir, b.lastEntry = strings.Clone(name), e
	return e
}

func split(name string) (dir, base string) {
	i := strings.LastIndexByte(name, '/')
	return name[:max(i, 0)], name[i+1:]
}

// clean makes a member's name or a hard link's target relative to the root and
// keeps it inside.
func clean(name string) string { return path.Clean("/" + name)[1:] }

const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	aufsPrefix     = ".wh..wh." // bookkeeping of aufs, no whiteouts
)

// add puts a member into the layer, reading of its body what is to be kept.
func (b *builder) add(h *tar.Header, body io.Reader) error {
	b.members++
	m := meta{mode: fs.FileMode(h.Mode) & fs.ModePerm, uid: h.Uid, gid: h.Gid}
	if h.Mode&0o4000 != 0 {
		m.mode |= fs.ModeSetuid
	}
	if h.Mode&0o2000 != 0 {
		m.mode |= fs.ModeSetgid
	}
	if h.Mode&0o1000 != 0 {
		m.mode |= fs.ModeSticky
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		m.kind = regular
		if h.Size == 0 {
			m.kind = empty
		}
	case tar.TypeDir:
		m.kind, m.mode = directory, m.mode|fs.ModeDir
	case tar.TypeSymlink:
		m.kind, m.mode = symlink, m.mode|fs.ModeSymlink
	case tar.TypeLink:
		m.kind = hardlink
	case tar.TypeChar:
		m.kind, m.mode = special, m.mode|fs.ModeDevice|fs.ModeCharDevice
	case tar.TypeBlock:
		m.kind, m.mode = special, m.mode|fs.ModeDevice
	case tar.TypeFifo:
		m.kind, m.mode = special, m.mode|fs.ModeNamedPipe
	default: // global PAX headers and what no extractor knows
		return nil
	}

	name := clean(h.Name)
	if len(name) > maxPath {
		return fmt.Errorf("the name has %d bytes, more than %d", len(name), maxPath)
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > maxName {
			return fmt.Errorf("a part of the name has %d bytes, more than %d", len(part), maxName)
		}
	}
	if name == "" {
		if m.kind == directory {
			b.layer.entries.at(0).meta = b.meta(m)
			b.modTime(0, h)
		}
		return nil
	}
	parent, base := split(name)
	e := entry{}
	if strings.HasPrefix(base, whiteoutPrefix) {
		switch rest := base[len(whiteoutPrefix):]; {
		case base == opaqueName:
			m, base = meta{kind: opaque}, ""
		case strings.HasPrefix(base, aufsPrefix), rest == "", rest == ".", rest == "..":
			return nil
		default:
			m, base = meta{kind: whiteout}, rest
		}
	}
	e.parent = b.dir(parent)
	e.meta = b.meta(m)
	switch m.kind {
	case symlink, hardlink:
		target := h.Linkname
		if m.kind == hardlink {
			target = clean(target)
		}
		if len(target) > maxPath {
			return fmt.Errorf("the link's target has %d bytes, more than %d", len(target), maxPath)
		}
		e.aux = b.layer.text.add([]byte(target))
		b.index += len(target) + 2
	case regular:
		kept, err := b.keep(interest(name, m.mode, h.Size), name, h.Size, body)
		if err != nil {
			return err
		}
		if kept.data != nil {
			b.layer.contents = append(b.layer.contents, kept)
			e.aux = uint32(len(b.layer.contents))
		}
	}
	id := b.push(e, []byte(base))
	if m.kind == directory {
		if _, ok := b.dirs.find(e.parent, []byte(base), b.key); !ok {
			b.dirs.add(id, b.key)
			b.index += 8
		}
		b.modTime(id, h)
	}
	if b.index > maxIndex {
		return errIndexSize
	}
	return nil
}

// modTime records when a directory was modified.
func (b *builder) modTime(id uint32, h *tar.Header) {
	if !b.layer.setModTime(id, h.ModTime.Unix()) {
		b.index += metaCost
	}
}

// keep reads what is to be kept of a file's body.
func (b *builder) keep(r rule, name string, size int64, body io.Reader) (c content, err error) {
	switch r {
	case headers:
		return b.keepHeaders(body)
	case whole:
		if size > maxText { // no path file is; models of PyTorch have the same suffix
			return content{}, nil
		}
		c.data, err = b.read(body, 0, maxText)
		c.complete = true
		return c, b.charge(&b.content, len(c.data), maxContent, err)
	case settings:
		if size > maxText {
			return content{}, nil
		}
		c.data, err = b.read(body, 0, maxText)
		c.complete = true
		if !bytes.Contains(c.data, djangoSettings) {
			return content{}, err
		}
		return c, b.charge(&b.content, len(c.data), maxContent, err)
	case script, sniff, zipped:
		return b.keepProgram(r, name, size, body)
	}
	return content{}, nil
}

// keepProgram keeps the beginning of a script or an executable, and of those
// that are whole apps what their bodies tell.
func (b *builder) keepProgram(r rule, name string, size int64, body io.Reader) (c content, err error) {
	first, err := b.fill(body, 0, maxOther)
	isZip := r == zipped && bytes.HasPrefix(first, []byte(localHeader))
	limit := maxText
	switch {
	case isZip:
		limit = maxOther
	case r != script:
		limit = sniffed(name, first)
	}
	if err != nil || limit == 0 || b.scripts+int(min(size, int64(limit))) > maxScripts {
		return content{}, err
	}
	c.data, err = b.read(body, len(first), limit)
	if err := b.charge(&b.scripts, len(c.data), math.MaxInt, err); err != nil {
		return content{}, err
	}
	c.complete = int64(len(c.data)) == size
	all := io.MultiReader(bytes.NewReader(c.data), body)
	start := bytes.Index(c.data, []byte("\n"+localHeader))
	switch {
	case start >= 0 && bytes.HasPrefix(c.data, []byte("#!")):
		c.data, c.complete = c.data[:start+1], false
		c.inside, err = b.zipMembers(all)
	case isZip:
		c.inside, err = b.zipMembers(all)
	case limit == maxOther && !ofDistribution(name) && !ofSystem(name):
		c.inside, err = b.packer(all)
	}
	return c, err
}

func (b *builder) charge(held *int, n, limit int, err error) error {
	*held += n + contentCost
	if err == nil && *held > limit {
		err = fmt.Errorf("the layer holds more than %d MiB of package metadata", limit>>20)
	}
	return err
}

// fill reads into the buffer behind the n bytes it has, up to limit bytes.
func (b *builder) fill(body io.Reader, n, limit int) ([]byte, error) {
	m, err := io.ReadFull(body, b.buffer[n:max(n, limit)])
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil // a short file; a short stream shows at the next member
	}
	return b.buffer[:n+m], err
}

func (b *builder) read(body io.Reader, n, limit int) ([]byte, error) {
	data, err := b.fill(body, n, limit)
	return bytes.Clone(data), err
}

// keepHeaders keeps of a METADATA or PKG-INFO file what names the distribution.
func (b *builder) keepHeaders(body io.Reader) (c content, err error) {
	var block []byte
	for !c.complete && len(block) < maxHeaders {
		n, err := io.ReadFull(body, b.buffer[:4<<10])
		from := max(0, len(block)-3)
		block = append(block, b.buffer[:n]...)
		if end := blankLine(block[from:]); end >= 0 {
			block, c.complete = block[:from+end], true
		} else if err == io.EOF || err == io.ErrUnexpectedEOF {
			c.complete = true
		} else if err != nil {
			return content{}, err
		}
	}
	c.data = nameAndVersion(block)
	return c, b.charge(&b.content, len(c.data), maxContent, nil)
}

// nameAndVersion returns the first Name and the first Version line of a block
// of headers.
func nameAndVersion(block []byte) []byte {
	kept := []byte{}
	for _, key := range []string{"Name", "Version"} {
		for line := range bytes.Lines(block) {
			if len(bytes.TrimSpace(line)) == 0 {
				break
			}
			if k, _, ok := bytes.Cut(line, []byte(":")); ok && strings.EqualFold(string(k), key) {
				kept = append(append(kept, bytes.TrimSpace(line)...), '\n')
				break
			}
		}
	}
	return kept
}

// blankLine returns where the line before the first blank line ends, or -1.
func blankLine(b []byte) int {
	end := -1
	for _, blank := range []string{"\n\n", "\n\r\n"} {
		if i := bytes.Index(b, []byte(blank)); i >= 0 && (end < 0 || i+1 < end) {
			end = i + 1
		}
	}
	return end
}
