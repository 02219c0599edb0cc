// Package wheel fetches Python wheels from a package index and reads them.
// Neither the index nor a wheel is trusted: what is fetched must have the
// sha256 that the caller knows, and a wheel is refused unless everything in it
// is what its own record says and would stay inside of the directory that it
// is unpacked into.
package wheel

import (
	"archive/zip"
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/textproto"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/imgwrap/imgwrap/layer/pep508"
)

// What a wheel may hold. The largest one of OpenTelemetry and its dependencies
// has 554 entries and 4 MB, and the file that shrinks the most does so 20 times.
const (
	maxEntries = 10_000
	maxFile    = 32 << 20
	maxTotal   = 128 << 20
	// maxRatio is how much smaller than its content a compressed entry of
	// more than ratioFrom bytes may be.
	maxRatio  = 200
	ratioFrom = 1 << 20
)

// Wheel is a wheel, opened and verified (PEP 427, and "Binary distribution
// format" of the PyPA specifications).
type Wheel struct {
	// Name and Version are those of the file name, as written there.
	Name, Version string
	// DistInfo is the name of the .dist-info directory.
	DistInfo string
	// Files are what an installer would put into the site directory, sorted by
	// path: without scripts, headers, data files and bytecode.
	Files []File

	pure   bool // by its file name
	closer io.Closer
}

// File is one file of a wheel.
type File struct {
	// Path is relative to the site directory.
	Path string
	Size int64
	// SHA256 is the hexadecimal digest of the content.
	SHA256 string

	zip *zip.File
}

// Open returns the content.
func (f *File) Open() (io.ReadCloser, error) { return f.zip.Open() }

// Open opens and verifies the pure Python wheel in a file. As a cached file may
// have any name, fileName is the one that the wheel was published under.
func Open(path, fileName string) (*Wheel, error) { return open(path, fileName, true) }

// OpenNative is like [Open] for a wheel that may be built for a platform.
func OpenNative(path, fileName string) (*Wheel, error) { return open(path, fileName, false) }

func open(path, fileName string, pure bool) (*Wheel, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening wheel %s: %w", fileName, err)
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("opening wheel %s: %w", fileName, err)
	}
	w, err := read(f, fi.Size(), fileName, pure)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("reading wheel %s: %w", fileName, err)
	}
	w.closer = f
	return w, nil
}

// Close closes the file of a wheel that [Open] returned.
func (w *Wheel) Close() error {
	if w.closer == nil {
		return nil
	}
	return w.closer.Close()
}

// Read is like [Open] for a wheel of the given size in r.
func Read(r io.ReaderAt, size int64, fileName string) (*Wheel, error) {
	w, err := read(r, size, fileName, true)
	if err != nil {
		return nil, fmt.Errorf("reading wheel %s: %w", fileName, err)
	}
	return w, nil
}

func read(r io.ReaderAt, size int64, fileName string, pure bool) (*Wheel, error) {
	w := new(Wheel)
	if err := w.parseFileName(fileName); err != nil {
		return nil, err
	}
	if pure && !w.pure {
		return nil, errors.New("not a pure Python wheel (none-any)")
	}
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, err
	}
	entries, err := checkEntries(z.File)
	if err != nil {
		return nil, err
	}
	digests, err := w.verifyRecord(entries)
	if err != nil {
		return nil, err
	}
	for name, entry := range entries {
		target, ok, err := w.target(name)
		if err != nil {
			return nil, err
		}
		if ok {
			w.Files = append(w.Files, File{target, int64(entry.UncompressedSize64), digests[name], entry})
		}
	}
	slices.SortFunc(w.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	if err := checkTree(w.Files); err != nil {
		return nil, err
	}
	return w, w.checkMetadata()
}

// parseFileName takes "{name}-{version}(-{build})?-{python}-{abi}-{platform}.whl"
// apart.
func (w *Wheel) parseFileName(fileName string) error {
	stem, ok := strings.CutSuffix(fileName, ".whl")
	parts := strings.Split(stem, "-")
	if !ok || len(parts) < 5 || len(parts) > 6 || slices.Contains(parts, "") || !fs.ValidPath(fileName) || strings.Contains(fileName, "/") {
		return errors.New("not the file name of a wheel")
	}
	tags := parts[len(parts)-3:]
	w.pure = tags[1] == "none" && tags[2] == "any"
	w.Name, w.Version = parts[0], parts[1]
	w.DistInfo = w.Name + "-" + w.Version + ".dist-info"
	return nil
}

// checkEntries returns the files of the archive by name, unless one of them
// could end up outside of the directory that the archive is unpacked into, be
// no plain file, or be too large.
func checkEntries(list []*zip.File) (map[string]*zip.File, error) {
	if len(list) > maxEntries {
		return nil, fmt.Errorf("%d entries, more than %d", len(list), maxEntries)
	}
	var total uint64
	entries := make(map[string]*zip.File, len(list))
	for _, f := range list {
		if err := checkEntry(f); err != nil {
			return nil, fmt.Errorf("entry %q: %w", f.Name, err)
		}
		if f.Mode().IsDir() {
			continue
		}
		if _, ok := entries[f.Name]; ok {
			return nil, fmt.Errorf("entry %q: duplicate name", f.Name)
		}
		entries[f.Name] = f
		// Each is below maxFile and they are few: the sum can't overflow.
		if total += f.UncompressedSize64; total > maxTotal {
			return nil, fmt.Errorf("more than %d MiB when unpacked", maxTotal>>20)
		}
	}
	return entries, nil
}

func checkEntry(f *zip.File) error {
	name := f.Name
	if f.Mode().IsDir() {
		name = strings.TrimSuffix(name, "/")
	}
	if !fs.ValidPath(name) || name == "." || strings.ContainsFunc(name, func(r rune) bool { return r == '\\' || r == ':' || unicode.IsControl(r) }) {
		return errors.New("unsafe path")
	}
	if f.NonUTF8 && strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) {
		return errors.New("name in an unknown encoding")
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > 255 {
			return errors.New("name too long")
		}
		// In a layer, a file of this name would remove another one.
		if strings.HasPrefix(part, ".wh.") {
			return errors.New("reserved name")
		}
	}
	const encrypted = 1
	switch {
	case !f.Mode().IsRegular() && f.Mode().Type() != fs.ModeDir || f.Mode().IsDir() != strings.HasSuffix(f.Name, "/"):
		return errors.New("not a regular file")
	case f.Flags&encrypted != 0:
		return errors.New("encrypted")
	case f.UncompressedSize64 > maxFile:
		return fmt.Errorf("more than %d MiB", maxFile>>20)
	case f.UncompressedSize64 > ratioFrom && f.UncompressedSize64/maxRatio > f.CompressedSize64:
		return fmt.Errorf("compressed more than %d times", maxRatio)
	}
	return nil
}

// checkTree refuses files that a file system without regard to case would
// merge, and files that others need as a directory.
func checkTree(files []File) error {
	type node struct {
		path string
		dir  bool
	}
	seen := make(map[string]node)
	for _, f := range files {
		for n := (node{f.Path, false}); n.path != "."; n = (node{path.Dir(n.path), true}) {
			key := strings.ToLower(n.path)
			other, ok := seen[key]
			if ok && (other != n || !n.dir) {
				return fmt.Errorf("entry %q: conflicts with %q", n.path, other.path)
			}
			seen[key] = n
		}
	}
	return nil
}

// verifyRecord compares every entry with its line in RECORD and returns their
// sha256.
func (w *Wheel) verifyRecord(entries map[string]*zip.File) (map[string]string, error) {
	name := w.DistInfo + "/RECORD"
	entry, ok := entries[name]
	if !ok {
		return nil, fmt.Errorf("no %s", name)
	}
	content, err := readEntry(entry)
	if err != nil {
		return nil, fmt.Errorf("entry %q: %w", name, err)
	}
	lines, err := parseRecord(content)
	if err != nil {
		return nil, fmt.Errorf("entry %q: %w", name, err)
	}
	for listed := range lines {
		if _, ok := entries[listed]; !ok {
			return nil, fmt.Errorf("entry %q: listed in RECORD but missing", listed)
		}
	}
	digests := make(map[string]string, len(entries))
	for name, entry := range entries {
		line, ok := lines[name]
		// RECORD can't hold its own hash, nor that of its signatures.
		unsigned := slices.Contains([]string{"RECORD", "RECORD.jws", "RECORD.p7s"}, strings.TrimPrefix(name, w.DistInfo+"/"))
		if !ok && !unsigned {
			return nil, fmt.Errorf("entry %q: not listed in RECORD", name)
		}
		digest, err := line.verify(entry, unsigned)
		if err != nil {
			return nil, fmt.Errorf("entry %q: %w", name, err)
		}
		digests[name] = digest
	}
	return digests, nil
}

// recordLine is what RECORD says of one file: "sha256=<base64>" and a number
// of bytes, both possibly empty (PEP 376, "RECORD").
type recordLine struct{ hash, size string }

func parseRecord(content []byte) (map[string]recordLine, error) {
	r := csv.NewReader(bytes.NewReader(content))
	r.FieldsPerRecord = 3
	lines := make(map[string]recordLine)
	for {
		fields, err := r.Read()
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
		if _, ok := lines[fields[0]]; ok {
			return nil, fmt.Errorf("%q is listed twice", fields[0])
		}
		lines[fields[0]] = recordLine{fields[1], fields[2]}
	}
}

// verify reads the entry, compares it with the line and returns its sha256. An
// empty hash is enough if unsigned.
func (l recordLine) verify(entry *zip.File, unsigned bool) (string, error) {
	if size := strconv.FormatUint(entry.UncompressedSize64, 10); l.size != "" && l.size != size {
		return "", fmt.Errorf("has %s bytes, but RECORD says %s", size, l.size)
	}
	algorithm, want, _ := strings.Cut(l.hash, "=")
	sum := sha256.New()
	check := hash.Hash(sum)
	switch {
	case algorithm == "sha256", algorithm == "" && unsigned:
	case algorithm == "sha384":
		check = sha512.New384()
	case algorithm == "sha512":
		check = sha512.New()
	case algorithm == "":
		return "", errors.New("no hash in RECORD")
	default:
		return "", fmt.Errorf("unsupported hash %q in RECORD", algorithm)
	}
	content, err := entry.Open()
	if err != nil {
		return "", err
	}
	defer content.Close()
	// The reader fails if there is more or less than the entry's header says.
	var both io.Writer = sum
	if check != sum {
		both = io.MultiWriter(sum, check)
	}
	if _, err := io.Copy(both, content); err != nil {
		return "", err
	}
	if algorithm != "" && base64.RawURLEncoding.EncodeToString(check.Sum(nil)) != strings.TrimRight(want, "=") {
		return "", errors.New("content differs from its hash in RECORD")
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// target returns where in the site directory an entry is installed, or false
// if it goes elsewhere or nowhere.
func (w *Wheel) target(name string) (string, bool, error) {
	target := name
	if top, rest, _ := strings.Cut(name, "/"); strings.EqualFold(path.Ext(top), ".data") {
		scheme, rest, ok := strings.Cut(rest, "/")
		if top != strings.TrimSuffix(w.DistInfo, ".dist-info")+".data" || !ok {
			return "", false, fmt.Errorf("entry %q: unexpected data directory", name)
		}
		switch scheme {
		case "purelib", "platlib":
			target = rest
		case "scripts", "headers", "data":
			return "", false, nil
		default:
			return "", false, fmt.Errorf("entry %q: unknown installation scheme %q", name, scheme)
		}
	}
	// Another metadata directory would make up another distribution.
	top, _, _ := strings.Cut(target, "/")
	switch strings.ToLower(path.Ext(top)) {
	case ".dist-info", ".egg-info":
		if top != w.DistInfo {
			return "", false, fmt.Errorf("entry %q: not in %s", name, w.DistInfo)
		}
	}
	if path.Ext(target) == ".pyc" || strings.Contains("/"+target, "/__pycache__/") {
		return "", false, nil
	}
	return target, true, nil
}

// checkMetadata compares what the wheel says of itself with its file name.
func (w *Wheel) checkMetadata() error {
	info, err := w.header("WHEEL")
	if err != nil {
		return err
	}
	if v := info.Get("Wheel-Version"); !strings.HasPrefix(v, "1.") {
		return fmt.Errorf("unsupported wheel version %q", v)
	}
	if v := info.Get("Root-Is-Purelib"); w.pure && v != "true" {
		return fmt.Errorf("not a pure Python wheel (Root-Is-Purelib: %s)", v)
	}
	for _, tag := range info["Tag"] {
		if w.pure && !strings.HasSuffix(tag, "-none-any") {
			return fmt.Errorf("not a pure Python wheel (Tag: %s)", tag)
		}
	}
	metadata, err := w.Metadata()
	if err != nil {
		return err
	}
	if name := metadata.Get("Name"); pep508.Normalize(name) != pep508.Normalize(w.Name) {
		return fmt.Errorf("METADATA has the name %q", name)
	}
	if version := metadata.Get("Version"); version != w.Version {
		return fmt.Errorf("METADATA has the version %q", version)
	}
	return nil
}

// Metadata returns the header fields of METADATA ("Core metadata" of the PyPA
// specifications), without the description.
func (w *Wheel) Metadata() (textproto.MIMEHeader, error) { return w.header("METADATA") }

func (w *Wheel) header(name string) (textproto.MIMEHeader, error) {
	content, err := w.readDistInfo(name)
	if err != nil {
		return nil, err
	}
	h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(content))).ReadMIMEHeader()
	if err != nil && err != io.EOF { // no empty line after the last field
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return h, nil
}

// EntryPoints returns the object references of entry_points.txt by group and
// name ("Entry points" of the PyPA specifications). A wheel without that file
// has none.
func (w *Wheel) EntryPoints() (map[string]map[string]string, error) {
	content, err := w.readDistInfo("entry_points.txt")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	points := make(map[string]map[string]string)
	var group map[string]string
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' && line[len(line)-1] == ']' {
			name := strings.TrimSpace(line[1 : len(line)-1])
			if points[name] == nil {
				points[name] = make(map[string]string)
			}
			group = points[name]
			continue
		}
		name, reference, ok := strings.Cut(line, "=")
		if !ok || group == nil {
			return nil, fmt.Errorf("reading entry_points.txt: unexpected line %q", line)
		}
		group[strings.TrimSpace(name)] = strings.TrimSpace(reference)
	}
	return points, nil
}

func (w *Wheel) readDistInfo(name string) ([]byte, error) {
	name = w.DistInfo + "/" + name
	i, ok := slices.BinarySearchFunc(w.Files, name, func(f File, name string) int { return strings.Compare(f.Path, name) })
	if !ok {
		return nil, fmt.Errorf("reading %s: %w", name, fs.ErrNotExist)
	}
	content, err := readEntry(w.Files[i].zip)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return content, nil
}

// readEntry reads an entry whose size has been checked.
func readEntry(entry *zip.File) ([]byte, error) {
	r, err := entry.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
