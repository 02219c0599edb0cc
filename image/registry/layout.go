package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// The files of an OCI layout (image-spec, image-layout.md).
const (
	layoutFile    = "oci-layout"
	layoutContent = `{"imageLayoutVersion":"1.0.0"}`
	indexFile     = "index.json"
	indexLimit    = 16 << 20
	refNameKey    = "org.opencontainers.image.ref.name"
)

// A layout is the store of an OCI layout, in a directory or an archive.
type layout struct{ files }

func blobPath(digest v1.Hash) string { return "blobs/" + digest.Algorithm + "/" + digest.Hex }

func (l layout) blob(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	r, size, err := l.open(blobPath(d.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("it is missing")
	}
	if err != nil {
		return nil, err
	}
	if size != d.Size {
		r.Close()
		return nil, mismatch("it has %d bytes instead of %d", size, d.Size)
	}
	return verify(r, d)
}

func (l layout) document(_ context.Context, d v1.Descriptor) ([]byte, types.MediaType, error) {
	raw, err := readFile(l, blobPath(d.Digest), manifestLimit)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("manifest %s is missing", d.Digest)
	}
	return raw, "", err
}

func findInLayout(ctx context.Context, f files, r Reference) (Document, error) {
	l := layout{f}
	index, err := readIndex(f)
	if errors.Is(err, fs.ErrNotExist) {
		hint := ""
		if exists(f, dockerManifest) {
			hint = "it looks like a docker-archive:"
		}
		return Document{}, &hintError{fmt.Errorf("it is no OCI layout: it lacks %s or %s", layoutFile, indexFile), hint}
	}
	if err != nil {
		return Document{}, err
	}
	d, err := index.choose(r)
	if err != nil {
		return Document{}, err
	}
	raw, _, err := l.document(ctx, d)
	if err != nil {
		return Document{}, err
	}
	if d.Size >= 0 && int64(len(raw)) != d.Size {
		return Document{}, fmt.Errorf("manifest has %d bytes instead of %d", len(raw), d.Size)
	}
	if _, err := digestAs(d.Digest.String(), raw); err != nil {
		return Document{}, fmt.Errorf("manifest: %w", err)
	}
	return Document{d.MediaType, d.Digest, raw}, nil
}

// A layoutIndex is a layout's index.json. What it has that we do not know is kept.
type layoutIndex struct {
	fields    map[string]json.RawMessage
	manifests []json.RawMessage
	parsed    []v1.Descriptor // of manifests
}

// readIndex reads the index of a layout. If the error is fs.ErrNotExist, there is
// none.
func readIndex(f files) (*layoutIndex, error) {
	raw, err := readFile(f, layoutFile, 1<<20)
	if err != nil {
		return nil, err
	}
	var version struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(raw, &version); err != nil {
		return nil, fmt.Errorf("%s is not valid: %w", layoutFile, err)
	}
	if !strings.HasPrefix(version.Version, "1.") {
		return nil, fmt.Errorf("OCI layouts of version %q are not supported", version.Version)
	}
	if raw, err = readFile(f, indexFile, indexLimit); err != nil {
		return nil, err
	}
	index := new(layoutIndex)
	err = json.Unmarshal(raw, &index.fields)
	if manifests := index.fields["manifests"]; err == nil && manifests != nil {
		err = errors.Join(json.Unmarshal(manifests, &index.manifests), json.Unmarshal(manifests, &index.parsed))
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not valid: %w", indexFile, err)
	}
	for _, d := range index.parsed {
		if d.Digest == (v1.Hash{}) || d.Size < 0 {
			return nil, fmt.Errorf("%s is not valid: it has a descriptor without digest or size", indexFile)
		}
	}
	return index, nil
}

// choose returns the entry that a reference names. A digest may be one that only
// an image index in the layout names: its size and type are not known.
func (x *layoutIndex) choose(r Reference) (v1.Descriptor, error) {
	var found []v1.Descriptor
	var tags []string
	for _, d := range x.parsed {
		tag := d.Annotations[refNameKey]
		if tag != "" {
			tags = append(tags, tag)
		}
		switch {
		case r.Digest() != "":
			if d.Digest != r.digest {
				continue
			}
		case r.tag != "" && tag != r.tag:
			continue
		}
		if !slices.ContainsFunc(found, func(f v1.Descriptor) bool { return f.Digest == d.Digest }) {
			found = append(found, d)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case r.Digest() != "":
		return v1.Descriptor{Digest: r.digest, Size: -1}, nil
	case r.tag != "" && len(found) > 1:
		return v1.Descriptor{}, &hintError{fmt.Errorf("%d images have the tag %s", len(found), r.tag), "name one by its digest: " + r.Repository() + "@" + found[0].Digest.String()}
	case r.tag != "":
		return v1.Descriptor{}, &hintError{fmt.Errorf("there is no image with the tag %s", r.tag), tagsHint(tags)}
	case len(found) == 0:
		return v1.Descriptor{}, errors.New("there is no image in it")
	}
	return v1.Descriptor{}, &hintError{fmt.Errorf("there are %d images in it", len(found)), tagsHint(tags)}
}

// tagsHint lists names of which one is to be chosen.
func tagsHint(tags []string) string {
	switch n := len(tags); {
	case n == 0:
		return "name one by its digest"
	case n > 10:
		tags = append(tags[:10:10], "…")
	}
	return "name one of: " + line(strings.Join(tags, ", "))
}

// set makes a tag stand for a document. What it stood for before is listed no
// more; without a tag, that is what is listed without a tag.
func (x *layoutIndex) set(tag string, d Document) ([]byte, error) {
	var manifests []json.RawMessage
	for i, m := range x.manifests {
		if x.parsed[i].Annotations[refNameKey] != tag {
			manifests = append(manifests, m)
		}
	}
	desc := d.Descriptor()
	if tag != "" {
		desc.Annotations = map[string]string{refNameKey: tag}
	}
	entry, err := json.Marshal(desc)
	if err != nil {
		return nil, err
	}
	if x.fields == nil {
		x.fields = map[string]json.RawMessage{
			"schemaVersion": json.RawMessage("2"),
			"mediaType":     json.RawMessage(`"` + types.OCIImageIndex + `"`),
		}
	}
	if x.fields["manifests"], err = json.Marshal(append(manifests, entry)); err != nil {
		return nil, err
	}
	return json.Marshal(x.fields)
}

// stands says whether a tag stands for a digest.
func (x *layoutIndex) stands(tag string, digest v1.Hash) bool {
	stands := false
	for _, d := range x.parsed {
		if d.Annotations[refNameKey] == tag {
			if d.Digest != digest {
				return false
			}
			stands = true
		}
	}
	return stands
}

// has says whether a layout has a blob, by its size.
func (l layout) has(d v1.Descriptor) bool {
	r, size, err := l.open(blobPath(d.Digest))
	if err != nil {
		return false
	}
	r.Close()
	return size == d.Size
}

// existing notes in the blobs which of them the layout has, and says whether it
// has all of the parts.
func (l layout) existing(p *parts, report *Report) bool {
	all := true
	for _, b := range p.blobs {
		if b.exists = l.has(b.Descriptor); b.exists {
			report.Existing.add(b.Size)
		} else {
			report.Uploaded.add(b.Size)
			all = false
		}
	}
	for _, d := range append(p.below, p.root) {
		all = all && l.has(d.Descriptor())
	}
	return all
}

// lock returns a lock for a file or directory, so that writes to it come one after
// the other.
func (c *Client) lock(file string) (*sync.Mutex, error) {
	absolute, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	return c.locks.get(absolute, func() (*sync.Mutex, error) { return new(sync.Mutex), nil })
}

func (c *Client) writeLayout(ctx context.Context, dst Reference, src *Source, t Tree) (Report, error) {
	parts, err := t.list(ctx, src, false)
	if err != nil {
		return Report{}, err
	}
	mu, err := c.lock(dst.Path)
	if err != nil {
		return Report{}, err
	}
	if err := os.MkdirAll(dst.Path, 0o755); err != nil {
		return Report{}, fileError(dst.Path, err)
	}
	dir, err := openDirectory(dst.Path)
	if err != nil {
		return Report{}, err
	}
	defer dir.Close()
	report := Report{Digest: t.Root.Digest}
	all := layout{dir}.existing(parts, &report)
	mu.Lock()
	index, err := readIndex(dir)
	if errors.Is(err, fs.ErrNotExist) {
		index, err = new(layoutIndex), dir.start()
	}
	mu.Unlock()
	if err != nil {
		return Report{}, err
	}
	if all && index.stands(dst.tag, t.Root.Digest) {
		return Report{Digest: report.Digest, UpToDate: true}, nil
	}

	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(c.jobs)
	for _, b := range parts.blobs {
		if !b.exists {
			g.Go(func() error {
				return dir.write(gctx, blobPath(b.Digest), b.verified)
			})
		}
	}
	if err := g.Wait(); err != nil {
		return Report{}, err
	}
	for _, d := range append(parts.below, parts.root) {
		if err := dir.write(ctx, blobPath(d.Digest), bytesFile("", d.Raw).open); err != nil {
			return Report{}, err
		}
	}
	mu.Lock()
	defer mu.Unlock()
	// Other processes may have written to the layout meanwhile.
	if index, err = readIndex(dir); errors.Is(err, fs.ErrNotExist) {
		index, err = new(layoutIndex), nil
	}
	if err != nil {
		return Report{}, err
	}
	raw, err := index.set(dst.tag, t.Root)
	if err != nil {
		return Report{}, err
	}
	return report, dir.write(ctx, indexFile, bytesFile("", raw).open)
}

// start makes a layout of the directory, which must be empty: or else what is in
// it has nothing to do with images.
func (d directory) start() error {
	list, err := fs.ReadDir(d.FS(), ".")
	if err != nil {
		return fileError(".", err)
	}
	for _, e := range list {
		if name := e.Name(); name != "blobs" && !strings.Contains(name, layoutFile) {
			return &hintError{fmt.Errorf("the directory is no OCI layout, and not empty: it has %s", line(name)), "name a new or an empty one"}
		}
	}
	if err := d.MkdirAll("blobs/sha256", 0o755); err != nil {
		return fileError("blobs", err)
	}
	return d.write(context.Background(), layoutFile, bytesFile("", []byte(layoutContent)).open)
}

// write puts a file into the directory, once it is complete.
func (d directory) write(ctx context.Context, name string, open func(context.Context) (io.ReadCloser, error)) (err error) {
	r, err := open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := d.MkdirAll(path.Dir(name), 0o755); err != nil {
		return fileError(name, err)
	}
	temporary := fmt.Sprintf("%s/.%s.%x", path.Dir(name), path.Base(name), rand.Uint64()) //nolint:gosec // a name
	f, err := d.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fileError(name, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			d.Remove(temporary) //nolint:errcheck // there is another error to report
		}
	}()
	if _, err := io.Copy(f, &contextReader{ctx, r}); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fileError(name, err)
	}
	if err := d.Rename(temporary, name); err != nil {
		return fileError(name, err)
	}
	return nil
}

func (c *Client) writeOCIArchive(ctx context.Context, dst Reference, src *Source, t Tree) (Report, error) {
	parts, err := t.list(ctx, src, false)
	if err != nil {
		return Report{}, err
	}
	mu, err := c.lock(dst.Path)
	if err != nil {
		return Report{}, err
	}
	mu.Lock()
	defer mu.Unlock()
	old, err := openArchive(ctx, dst.Path)
	index := new(layoutIndex)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		old = &archive{}
	case err != nil:
		return Report{}, err
	default:
		defer old.Close()
		if index, err = readIndex(old); err != nil {
			return Report{}, fmt.Errorf("the file is there, and is no OCI archive: %w", err)
		}
	}
	report := Report{Digest: t.Root.Digest}
	if all := (layout{old}).existing(parts, &report); all && index.stands(dst.tag, t.Root.Digest) {
		return Report{Digest: report.Digest, UpToDate: true}, nil
	}
	raw, err := index.set(dst.tag, t.Root)
	if err != nil {
		return Report{}, err
	}

	content := make(map[string]tarFile)
	for name := range old.entries {
		if strings.HasPrefix(name, "blobs/") {
			if content[name], err = old.tarFile(name); err != nil {
				return Report{}, err
			}
		}
	}
	for _, d := range append(parts.below, parts.root) {
		content[blobPath(d.Digest)] = bytesFile(blobPath(d.Digest), d.Raw)
	}
	for _, b := range parts.blobs {
		open := b.verified
		if b.exists {
			open = func(ctx context.Context) (io.ReadCloser, error) { return layout{old}.blob(ctx, b.Descriptor) }
		}
		content[blobPath(b.Digest)] = tarFile{blobPath(b.Digest), b.Size, open}
	}
	list := []tarFile{bytesFile(layoutFile, []byte(layoutContent)), bytesFile(indexFile, raw)}
	return report, replaceFile(dst.Path, func(w io.Writer) error {
		return writeTar(ctx, w, append(list, sorted(content)...))
	})
}

// tarFile is a file of the archive for another.
func (a *archive) tarFile(name string) (tarFile, error) {
	_, size, err := a.open(name)
	return tarFile{name, size, func(context.Context) (io.ReadCloser, error) {
		r, _, err := a.open(name)
		return r, err
	}}, err
}

func sorted(content map[string]tarFile) []tarFile {
	list := make([]tarFile, 0, len(content))
	for _, f := range content {
		list = append(list, f)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].name < list[j].name })
	return list
}

// verified is take, verified.
func (b *blob) verified(ctx context.Context) (io.ReadCloser, error) {
	r, err := b.take(ctx)
	if err != nil || b.ofSource {
		return r, err
	}
	return verify(r, b.Descriptor)
}
