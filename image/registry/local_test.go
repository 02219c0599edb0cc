package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

func find(t *testing.T, c *Client, ref string) *Source {
	t.Helper()
	s, err := c.Find(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func reference(t *testing.T, c *Client, ref string) Reference {
	t.Helper()
	r, err := c.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// write copies src to dst.
func write(t *testing.T, c *Client, src *Source, dst string) Report {
	t.Helper()
	report, err := c.Write(t.Context(), reference(t, c, dst), src, Tree{Root: src.Root})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func wantError(t *testing.T, err error, want, hint string) {
	t.Helper()
	e, ok := err.(interface {
		error
		Hint() string
	})
	if !ok || !strings.Contains(e.Error(), want) || !strings.Contains(e.Hint(), hint) || hint == "" && e.Hint() != "" || strings.Contains(e.Error(), "\n") {
		t.Errorf("got  %v\nwant %s (%s)", err, want, hint)
		if ok {
			t.Errorf("hint %s", e.Hint())
		}
	}
}

// wantWhole reads all of a source and returns the digests below its root.
func wantWhole(t *testing.T, s *Source) []string {
	t.Helper()
	parts, err := Tree{Root: s.Root}.list(t.Context(), s, false)
	if err != nil {
		t.Error(err)
		return nil
	}
	var digests []string
	for _, b := range parts.blobs {
		digests = append(digests, b.Digest.String())
		r, err := s.Blob(t.Context(), b.Descriptor)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			r.Close()
		}
		if err != nil {
			t.Error(err)
		}
	}
	for _, d := range parts.below {
		digests = append(digests, d.Digest.String())
	}
	slices.Sort(digests)
	return digests
}

// putIndex stores an index of two images, an index in it, an attestation and a
// blob, with annotations and fields that nobody knows.
func (s *server) putIndex(t *testing.T, ref string) Document {
	t.Helper()
	inner := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: s.putImage(t, "x:1")})
	attestation := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	attestation, err := mutate.AppendLayers(attestation, static.NewLayer([]byte(`{"_type":"x"}`), "application/vnd.in-toto+json"))
	if err != nil {
		t.Fatal(err)
	}
	platform := func(arch string) v1.Descriptor {
		return v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}, Annotations: map[string]string{"a": "b"}}
	}
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: s.putImage(t, "x:2"), Descriptor: platform("amd64")},
		mutate.IndexAddendum{Add: s.putImage(t, "x:3"), Descriptor: platform("arm64")},
		mutate.IndexAddendum{Add: inner},
		mutate.IndexAddendum{Add: attestation, Descriptor: platform("unknown")},
	)
	if err := remote.WriteIndex(s.ref(t, ref), index); err != nil {
		t.Fatal(err)
	}
	raw, err := index.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	raw = bytes.Replace(raw, []byte("{"), []byte(`{ "x-vendor" : 1.0,`), 1)
	doc := NewDocument(types.OCIImageIndex, raw)
	c := s.client(Options{})
	src := find(t, c, s.host()+"/"+ref)
	if _, err := c.Write(t.Context(), reference(t, c, s.host()+"/"+ref), src, Tree{Root: doc}); err != nil {
		t.Fatal(err)
	}
	return doc
}

// places are one reference of each transport.
func places(t *testing.T, s *server, kind string) []string {
	dir := t.TempDir()
	return []string{
		s.host() + "/" + kind + "/copy:1",
		"oci:" + dir + "/layout:1",
		"oci-archive:" + dir + "/oci.tar:1",
		"docker-archive:" + dir + "/docker.tar:team/app:1",
		"docker-daemon:" + kind + "/app:1",
	}
}

// Every transport takes what every other one gives.
func TestCopy(t *testing.T) {
	newEngine(t)
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	s := newServer(t)
	c := s.client(Options{})
	s.putImage(t, "app:1")
	sources := places(t, s, "from")
	original := find(t, c, s.host()+"/app:1")
	im, err := original.Image(t.Context(), original.Root)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range sources {
		write(t, c, original, ref)
	}
	for i, from := range sources {
		src := find(t, c, from)
		blobs := wantWhole(t, src)
		for j, to := range places(t, s, fmt.Sprint("to", i)) {
			t.Run(fmt.Sprintf("%d to %d", i, j), func(t *testing.T) {
				report := write(t, c, src, to)
				dst := find(t, c, to)
				got, err := dst.Image(t.Context(), dst.Root)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got.RawConfig, im.RawConfig) {
					t.Error("the config changed")
				}
				whole := wantWhole(t, dst)
				identity := dst.Root.Digest
				if dst.Reference.Transport.KeepsManifests() {
					if dst.Root.Digest != src.Root.Digest || dst.Root.MediaType != src.Root.MediaType || !slices.Equal(whole, blobs) {
						t.Errorf("%s has %s", to, dst.Root.Raw)
					}
				} else {
					identity = im.Manifest.Config.Digest
				}
				if report.Digest != identity || report.UpToDate {
					t.Errorf("%+v, want %s", report, identity)
				}
				if again := write(t, c, src, to); !again.UpToDate || again.Digest != identity {
					t.Errorf("again: %+v", again)
				}
			})
		}
	}
	if list, err := os.ReadDir(temporary); err != nil || len(list) > 0 {
		t.Errorf("temporary files stay: %v, %v", list, err)
	}
}

func TestCopyIndex(t *testing.T) {
	s := newServer(t)
	c := s.client(Options{})
	doc := s.putIndex(t, "index:1")
	src := find(t, c, s.host()+"/index:1")
	if src.Root.Digest != doc.Digest || !src.Root.MediaType.IsIndex() {
		t.Fatalf("%s is there, want %s", src.Root.Digest, doc.Digest)
	}
	all := wantWhole(t, src)
	if len(all) != 3*(sourceLayers+2)+2+2 { // three images, a nested index, an attestation of two blobs
		t.Errorf("%d parts", len(all))
	}
	to := places(t, s, "to")
	for _, ref := range to[:3] {
		write(t, c, src, ref)
		src = find(t, c, ref) // from one to the next
		if src.Root.Digest != doc.Digest || !bytes.Equal(src.Root.Raw, doc.Raw) || src.Root.MediaType != doc.MediaType {
			t.Errorf("%s has %s", ref, src.Root.Raw)
		}
		if got := wantWhole(t, src); !slices.Equal(got, all) {
			t.Errorf("%s has %d parts, want %d", ref, len(got), len(all))
		}
		if !write(t, c, src, ref).UpToDate {
			t.Errorf("%s is not up to date", ref)
		}
	}
	for _, ref := range to[3:] {
		_, err := c.Write(t.Context(), reference(t, c, ref), src, Tree{Root: src.Root})
		wantError(t, err, ref+" is where only the image of one platform can be written, and this is an index of several", "choose one platform")
	}

	// A child by its digest, which no index.json names.
	var index v1.IndexManifest
	if err := json.Unmarshal(doc.Raw, &index); err != nil {
		t.Fatal(err)
	}
	for _, d := range index.Manifests[:3] {
		child := find(t, c, strings.TrimSuffix(to[1], ":1")+"@"+d.Digest.String())
		if child.Root.Digest != d.Digest || child.Root.MediaType != d.MediaType {
			t.Errorf("got %+v, want %v", child.Root, d)
		}
	}
	_, err := src.Image(t.Context(), src.Root)
	wantError(t, err, "an index of images for several platforms", "linux/amd64 is "+strings.TrimSuffix(to[2], ":1")+"@"+index.Manifests[0].Digest.String())
}

// In one repository, the children that stay are neither read nor sent.
func TestIndexInSameRepository(t *testing.T) {
	s := newServer(t)
	c := s.client(Options{})
	doc := s.putIndex(t, "index:1")
	src := find(t, c, s.host()+"/index:1")
	s.forget()
	root := NewDocument(doc.MediaType, append([]byte(" "), doc.Raw...))
	if _, err := c.Write(t.Context(), reference(t, c, s.host()+"/index:2"), src, Tree{Root: root}); err != nil {
		t.Fatal(err)
	}
	wantRequests(t, s, map[string]int{"HEAD manifests": 1, "PUT manifests": 1})
	if got := find(t, c, s.host()+"/index:2"); got.Root.Digest != root.Digest {
		t.Error("another one is there")
	}
	unknown := bytes.Replace(doc.Raw, []byte(`"sha256:`), []byte(`"sha256:`+strings.Repeat("0", 8)), 1)
	i := bytes.Index(unknown, []byte(`"sha256:`))
	unknown = append(unknown[:i+72:i+72], unknown[i+80:]...)
	_, err := c.Write(t.Context(), reference(t, c, s.host()+"/index:3"), src, Tree{Root: NewDocument(doc.MediaType, unknown)})
	wantError(t, err, "is neither the source's nor added", "")
	if s.tagged("index:3") {
		t.Error("the tag exists")
	}
}

func TestArchivesAreDeterministic(t *testing.T) {
	s := newServer(t)
	c := s.client(Options{})
	s.putImage(t, "app:1")
	dir := t.TempDir()
	src := find(t, c, s.host()+"/app:1")
	write(t, c, src, "oci:"+dir+"/layout:1")
	for _, kind := range []string{"oci-archive", "docker-archive"} {
		var content [][]byte
		for i, from := range []*Source{src, src, find(t, c, "oci:"+dir+"/layout:1")} {
			file := fmt.Sprintf("%s/%s%d", dir, kind, i)
			write(t, c, from, kind+":"+file+":app:1")
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			content = append(content, b)
		}
		if !bytes.Equal(content[0], content[1]) || !bytes.Equal(content[0], content[2]) {
			t.Errorf("three %ss of one image differ", kind)
		}
	}
}

// Writing to a layout or archive leaves its other images alone.
func TestOtherImagesStay(t *testing.T) {
	s := newServer(t)
	c := s.client(Options{})
	for _, place := range places(t, s, "x")[1:4] {
		place = strings.TrimSuffix(place, "1")
		var digests [4]v1.Hash
		for i, tag := range []string{"1", "2", "1"} { // the last takes the tag of the first
			s.putImage(t, "app:1")
			src := find(t, c, s.host()+"/app:1")
			write(t, c, src, place+tag)
			digests[i] = src.Root.Digest
		}
		for i, tag := range map[int]string{1: "2", 2: "1"} {
			src := find(t, c, place+tag)
			wantWhole(t, src)
			// Docker's have layers as they were written, and so the same manifest.
			if src.Root.Digest != digests[i] && src.Reference.Transport.KeepsManifests() {
				t.Errorf("%s%s is %s, want %s", place, tag, src.Root.Digest, digests[i])
			}
		}
		_, err := c.Find(t.Context(), place+"3")
		wantError(t, err, "there is no image with the ", "name one of: ")
		r := reference(t, c, place+"1")
		_, err = c.Find(t.Context(), string(r.Transport)+":"+r.Path)
		wantError(t, err, "there are 2 images in it", "name one of: ")
	}

	// What has no name is replaced by what has none.
	dir := t.TempDir()
	for _, place := range []string{"oci:" + dir + "/layout", "oci-archive:" + dir + "/oci.tar", "docker-archive:" + dir + "/docker.tar"} {
		for range 2 {
			s.putImage(t, "app:1")
			write(t, c, find(t, c, s.host()+"/app:1"), place)
			wantWhole(t, find(t, c, place))
		}
	}
}

// Writes to one layout or archive at a time do not lose each other's images.
func TestWritesAtOnce(t *testing.T) {
	s := newServer(t)
	c := s.client(Options{})
	s.putImage(t, "app:1")
	src := find(t, c, s.host()+"/app:1")
	for _, place := range places(t, s, "x")[1:4] {
		place = strings.TrimSuffix(place, "1")
		var g errgroup.Group
		for i := range 8 {
			dst := reference(t, c, fmt.Sprint(place, i))
			g.Go(func() error {
				_, err := c.Write(t.Context(), dst, src, Tree{Root: src.Root})
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		for i := range 8 {
			wantWhole(t, find(t, c, fmt.Sprint(place, i)))
		}
	}
}

// A write that fails leaves what was there, and nothing else.
func TestWriteFails(t *testing.T) {
	s := newServer(t)
	c := s.client(Options{})
	img := s.putImage(t, "app:1")
	src := find(t, c, s.host()+"/app:1")
	content := wrapped(t, img)
	tree := func(l v1.Layer) Tree {
		return Tree{Root: NewDocument(content.MediaType, content.Manifest), Configs: [][]byte{content.Config}, Layers: []v1.Layer{l}}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, place := range places(t, s, "x")[1:4] {
		write(t, c, src, place)
		r := reference(t, c, place)
		before := snapshot(t, r.Path)
		dir := snapshot(t, filepath.Dir(r.Path))

		_, err := c.Write(t.Context(), r, src, tree(brokenLayer{content.Added[0]}))
		wantError(t, err, "writing "+place+": preparing layer sha256:", "check the index")
		_, err = c.Write(t.Context(), r, src, tree(breakingLayer{content.Added[0]}))
		wantError(t, err, "writing "+place+": ", "")
		_, err = c.Write(t.Context(), r, src, tree(lyingLayer{content.Added[0]}))
		wantError(t, err, "writing "+place+": content has digest sha256:", "")
		_, err = c.Write(canceled, r, src, tree(content.Added[0]))
		wantError(t, err, "writing "+place+": interrupted; no tag was written", "")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v is no context.Canceled", err)
		}
		wantWhole(t, find(t, c, place))
		if r.Transport == OCILayout {
			if after := snapshot(t, r.Path); after["index.json"] != before["index.json"] {
				t.Error("index.json changed")
			} else if name := slices.ContainsFunc(keys(after), func(s string) bool { return strings.HasPrefix(filepath.Base(s), ".") }); name {
				t.Errorf("temporary files stay: %v", keys(after))
			}
		} else if !reflect.DeepEqual(snapshot(t, filepath.Dir(r.Path)), dir) {
			t.Error("the directory changed")
		}
		if report, err := c.Write(t.Context(), r, src, tree(content.Added[0])); err != nil || report.UpToDate {
			t.Errorf("%+v, %v", report, err)
		}
	}
}

// lyingLayer has other content than its digest.
type lyingLayer struct{ v1.Layer }

func (l lyingLayer) Compressed() (io.ReadCloser, error) {
	size, err := l.Size()
	return io.NopCloser(bytes.NewReader(make([]byte, size))), err
}

func keys(m map[string]string) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	return list
}

// snapshot is all that is in a directory, or a file.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[name] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Docker's engine of before 23 does not read zstd.
func TestDockerArchiveWithoutZstd(t *testing.T) {
	s := newServer(t)
	c := s.client(Options{})
	layer := bytes.Repeat([]byte("tar"), 10_000)
	var compressed bytes.Buffer
	w, err := zstd.NewWriter(&compressed)
	if err == nil {
		_, err = w.Write(layer)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	diffID, _, _ := v1.SHA256(bytes.NewReader(layer))
	config := fmt.Appendf(nil, `{"rootfs":{"type":"layers","diff_ids":[%q]}}`, diffID)
	digest, size, _ := v1.SHA256(bytes.NewReader(config))
	zstdLayer := static.NewLayer(compressed.Bytes(), types.OCILayerZStd)
	zstdDigest, err := zstdLayer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		types.OCIManifestSchema1, types.OCIConfigJSON, digest, size, types.OCILayerZStd, zstdDigest, compressed.Len())
	file := t.TempDir() + "/a.tar"
	tree := Tree{Root: NewDocument(types.OCIManifestSchema1, raw), Configs: [][]byte{config}, Layers: []v1.Layer{zstdLayer}}
	if _, err := c.Write(t.Context(), reference(t, c, "docker-archive:"+file), nil, tree); err != nil {
		t.Fatal(err)
	}
	src := find(t, c, "docker-archive:"+file)
	if got := wantWhole(t, src); !slices.Contains(got, diffID.String()) {
		t.Errorf("got %v, want %s", got, diffID)
	}

	// One that has it, such as docker save's from containerd's store, can only be an
	// OCI image.
	writeArchive(t, file, map[string]string{
		"manifest.json": `[{"Config":"c","Layers":["l"]}]`, "c": string(config), "l": compressed.String(),
	})
	src = find(t, c, "docker-archive:"+file)
	if im, err := src.Image(t.Context(), src.Root); err != nil || im.MediaType != types.OCIManifestSchema1 || im.Manifest.Layers[0].Digest != zstdDigest {
		t.Errorf("%s, %v", src.Root.Raw, err)
	}
}

func TestDockerArchiveCannotHold(t *testing.T) {
	c := New(Options{})
	config := []byte("{}")
	digest, size, _ := v1.SHA256(bytes.NewReader(config))
	file := t.TempDir() + "/a.tar"
	for want, rest := range map[string]string{
		" is kept elsewhere by its publisher, and docker-archive has no way to say so": fmt.Sprintf(`"config":{"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":"sha256:%s","size":9}]`, digest, size, types.DockerForeignLayer, strings.Repeat("1", 64)),
		"manifest is not valid: it has no config":                                      `"layers":[]`,
	} {
		tree := Tree{Root: NewDocument(types.DockerManifestSchema2, []byte("{"+rest+"}")), Configs: [][]byte{config}}
		_, err := c.Write(t.Context(), reference(t, c, "docker-archive:"+file), nil, tree)
		wantError(t, err, want, "")
	}
	chart := Tree{Root: NewDocument("application/vnd.example+json", []byte("{}"))}
	_, err := c.Write(t.Context(), reference(t, c, "docker-archive:"+file), nil, chart)
	wantError(t, err, `and this is no image but "application/vnd.example+json"`, "choose one platform")
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is there: %v", err)
	}
}

func TestCompress(t *testing.T) {
	newEngine(t)
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	s := newServer(t)
	c := s.client(Options{})
	layer, err := random.Layer(100_000, types.DockerLayer)
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(s.putImage(t, "app:1"), layer, layer)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(s.ref(t, "app:1"), img); err != nil {
		t.Fatal(err)
	}
	original := find(t, c, s.host()+"/app:1")
	write(t, c, original, "docker-daemon:app:1")
	digest := original.Root.Digest
	if err := original.Compress(t.Context(), 2); err != nil || original.Root.Digest != digest {
		t.Errorf("%s changed, %v", original.Root.Digest, err)
	}

	var roots []Document
	for _, jobs := range []int{1, 8} {
		src, err := c.Find(t.Context(), "docker-daemon:app:1")
		if err != nil {
			t.Fatal(err)
		}
		if err := src.Compress(t.Context(), jobs); err != nil {
			t.Fatal(err)
		}
		roots = append(roots, src.Root)
		im, err := src.Image(t.Context(), src.Root)
		if err != nil {
			t.Fatal(err)
		}
		for i, d := range im.Manifest.Layers {
			r, err := im.Layer(t.Context(), i)
			if err != nil {
				t.Fatal(err)
			}
			z, err := gzip.NewReader(r)
			if err != nil {
				t.Fatal(err)
			}
			if diffID, _, err := v1.SHA256(z); err != nil || diffID != im.Config.RootFS.DiffIDs[i] || d.MediaType != types.DockerLayer {
				t.Errorf("layer %d is %v, %s, %v", i, d, diffID, err)
			}
			r.Close()
		}
		write(t, c, src, s.host()+fmt.Sprintf("/compressed:%d", jobs))
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}
	if !bytes.Equal(roots[0].Raw, roots[1].Raw) {
		t.Error("compressing twice gave different images")
	}

	src := find(t, c, "docker-daemon:app:1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantError(t, src.Compress(ctx, 2), "compressing docker-daemon:app:1: interrupted", "")
	if list, err := os.ReadDir(temporary); err != nil || len(list) > 0 {
		t.Errorf("temporary files stay: %v, %v", list, err)
	}
}

// writeArchive writes a tar file. Content that begins with "-> " is that of a
// symbolic link.
func writeArchive(t *testing.T, file string, files map[string]string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for name, content := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			h.Typeflag, h.Linkname, h.Size, content = tar.TypeSymlink, target, 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDockerArchiveErrors(t *testing.T) {
	layer := strings.Repeat("content of a layer ", 100)
	diffID, _, _ := v1.SHA256(strings.NewReader(layer))
	config := fmt.Sprintf(`{"rootfs":{"type":"layers","diff_ids":[%q]}}`, diffID)
	good := map[string]string{
		"manifest.json": `[{"Config":"c.json","RepoTags":["app:1"],"Layers":["l/layer.tar"]}]`,
		"c.json":        config,
		"l/layer.tar":   layer,
	}
	dir := t.TempDir()
	file := dir + "/a.tar"
	c := New(Options{})
	read := func(ref string) error {
		src, err := c.Find(t.Context(), ref)
		if err != nil {
			return err
		}
		defer src.Close()
		im, err := src.Image(t.Context(), src.Root)
		if err != nil {
			return err
		}
		for i := range im.Manifest.Layers {
			r, err := im.Layer(t.Context(), i)
			if err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				return err
			}
			r.Close()
		}
		return nil
	}
	for _, tt := range []struct {
		name  string
		tag   string            // after the file
		files map[string]string // in place of the good ones
		raw   func([]byte) []byte
		want  string // "" if it can be read
		hint  string
	}{
		{name: "good"},
		{name: "by name", tag: ":app:1"},
		{name: "by its full name", tag: ":docker.io/library/app:1"},
		{name: "compressed", raw: func(b []byte) []byte {
			var z bytes.Buffer
			w := gzip.NewWriter(&z)
			_, _ = w.Write(b)
			w.Close()
			return z.Bytes()
		}},
		{name: "a link for a layer", files: map[string]string{"l/layer.tar": "-> ../m/layer.tar", "m/layer.tar": layer}},
		{name: "names with dots", files: map[string]string{"manifest.json": strings.ReplaceAll(good["manifest.json"], "c.json", "./c.json"), "c.json": "", "./c.json": config}, want: "./c.json: file does not exist"},
		{name: "another name", tag: ":app:2", want: "there is no image with the name app:2", hint: "name one of: app:1"},
		{name: "two of a name", tag: ":app:1", files: map[string]string{"manifest.json": `[{"RepoTags":["app:1"]},{"RepoTags":["docker.io/library/app:1"]}]`}, want: "2 images have the name app:1"},
		{name: "several", files: map[string]string{"manifest.json": `[{"RepoTags":["app:1"]},{"RepoTags":["app:2"]}]`}, want: "there are 2 images in it", hint: "name one of: app:1, app:2"},
		{name: "none", files: map[string]string{"manifest.json": `[]`}, want: "there is no image in it"},
		{name: "no JSON", files: map[string]string{"manifest.json": `[{"Config"`}, want: "manifest.json is not valid: unexpected end of JSON input"},
		{name: "another JSON", files: map[string]string{"manifest.json": `[{"Config":1}]`}, want: "manifest.json is not valid: json: cannot unmarshal number"},
		{name: "null", files: map[string]string{"manifest.json": `[null]`}, want: "reading config: : file does not exist"},
		{name: "a huge manifest", files: map[string]string{"manifest.json": strings.Repeat(" ", manifestLimit+1)}, want: "manifest.json has 4194305 bytes, more than the 4 MiB that are read"},
		{name: "a huge config", files: map[string]string{"c.json": strings.Repeat(" ", configLimit+1)}, want: "reading config: c.json has 8388609 bytes, more than the 8 MiB that are read"},
		{name: "no config", files: map[string]string{"c.json": "-> nowhere"}, want: "reading config: c.json: file does not exist"},
		{name: "a config of nothing", files: map[string]string{"c.json": "x"}, want: "config c.json is not valid: invalid character 'x'"},
		{name: "another number of layers", files: map[string]string{"c.json": `{}`}, want: "manifest.json names 1 layers, but the config 0"},
		{name: "no layer", files: map[string]string{"l/layer.tar": "-> x"}, want: "reading layer 1: l/layer.tar: file does not exist"},
		{name: "a link out of the archive", files: map[string]string{"l/layer.tar": "-> ../../x"}, want: "reading layer 1: l/layer.tar is a link that leads out of the archive"},
		{name: "an absolute link", files: map[string]string{"l/layer.tar": "-> /etc/passwd"}, want: "l/layer.tar is a link that leads out of the archive"},
		{name: "a link to itself", files: map[string]string{"l/layer.tar": "-> layer.tar"}, want: "l/layer.tar is a link that leads nowhere"},
		{name: "a layer in xz", files: map[string]string{"l/layer.tar": "\xfd7zXZ\x00"}, want: "reading layer 1: it is compressed in a way that is not supported"},
		{name: "another layer", files: map[string]string{"l/layer.tar": strings.ToUpper(layer)}, want: "reading layer " + diffID.String() + " of docker-archive:" + file + ": content has digest sha256:"},
		{name: "a file outside", files: map[string]string{"../x": "x"}, want: `the archive has a file outside of itself, "../x"`},
		{name: "an absolute file", files: map[string]string{"/etc/x": "x"}, want: `the archive has a file outside of itself, "/etc/x"`},
		{name: "cut off", raw: func(b []byte) []byte { return b[:len(b)-3000] }, want: "the archive is cut off"},
		{name: "damaged", raw: func(b []byte) []byte { return append(b[:len(b)-1024:len(b)-1024], bytes.Repeat([]byte("x"), 512)...) }, want: "the archive is damaged: archive/tar: invalid tar header"},
		{name: "no archive", raw: func([]byte) []byte { return bytes.Repeat([]byte("x"), 5000) }, want: "it is not a tar archive"},
		{name: "empty", raw: func([]byte) []byte { return nil }, want: "it is no Docker archive: it has no manifest.json"},
		{name: "cut off in gzip", raw: func([]byte) []byte { return []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff") }, want: "decompressing: unexpected EOF"},
		{name: "xz", raw: func([]byte) []byte { return []byte("\xfd7zXZ\x00") }, want: "it is compressed in a way that is not supported", hint: "unxz"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			files := make(map[string]string)
			for _, m := range []map[string]string{good, tt.files} {
				for name, content := range m {
					files[name] = content
				}
			}
			writeArchive(t, file, files)
			if tt.raw != nil {
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, tt.raw(b), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			err := read("docker-archive:" + file + tt.tag)
			if tt.want != "" {
				wantError(t, err, tt.want, tt.hint)
			} else if err != nil {
				t.Error(err)
			}
			if list, err := os.ReadDir(os.TempDir()); err != nil || len(list) > 0 {
				t.Errorf("temporary files stay: %v, %v", list, err)
			}
		})
	}
	wantError(t, read("docker-archive:"+dir+"/none"), dir+"/none: no such file or directory", "")
	wantError(t, read("docker-archive:"+dir), dir+" is not a regular file", "")
}

func TestLayoutErrors(t *testing.T) {
	s := newServer(t)
	c := s.client(Options{})
	s.putImage(t, "app:1")
	src := find(t, c, s.host()+"/app:1")
	im, err := src.Image(t.Context(), src.Root)
	if err != nil {
		t.Fatal(err)
	}
	manifest, config, layer := src.Root.Digest, im.Manifest.Config.Digest, im.Manifest.Layers[3].Digest
	entry := func(digest v1.Hash, size int, tag string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"annotations":{%q:%q}}`, src.Root.MediaType, digest, size, refNameKey, tag)
	}
	index := func(entries ...string) string {
		return fmt.Sprintf(`{"manifests":[%s]}`, strings.Join(entries, ","))
	}
	for _, tt := range []struct {
		name  string
		tag   string
		files map[string]string // "" for none, "-> x" for a link to x
		want  string
		hint  string
	}{
		{name: "good", tag: ":1"},
		{name: "no tag"},
		{name: "digest", tag: "@" + manifest.String()},
		{name: "another tag", tag: ":2", want: "there is no image with the tag 2", hint: "name one of: 1"},
		{name: "another digest", tag: "@" + config.String(), want: "manifest is not valid: it has a descriptor without digest or size"},
		{name: "a digest that is not there", tag: "@sha256:" + strings.Repeat("0", 64), want: "manifest sha256:" + strings.Repeat("0", 64) + " is missing"},
		{name: "duplicate tags", tag: ":1", files: map[string]string{indexFile: index(entry(manifest, len(src.Root.Raw), "1"), entry(config, 1, "1"))}, want: "2 images have the tag 1", hint: "name one by its digest: oci"},
		{name: "the same twice", tag: ":1", files: map[string]string{indexFile: index(entry(manifest, len(src.Root.Raw), "1"), entry(manifest, len(src.Root.Raw), "1"))}},
		{name: "several", files: map[string]string{indexFile: index(entry(manifest, 1, "1"), entry(config, 1, "2"))}, want: "there are 2 images in it", hint: "name one of: 1, 2"},
		{name: "none", files: map[string]string{indexFile: "{}"}, want: "there is no image in it"},
		{name: "no layout file", files: map[string]string{layoutFile: ""}, want: "it is no OCI layout: it lacks oci-layout or index.json"},
		{name: "no index", files: map[string]string{indexFile: ""}, want: "it is no OCI layout: it lacks oci-layout or index.json"},
		{name: "a Docker archive", files: map[string]string{layoutFile: "", dockerManifest: "[]"}, want: "it is no OCI layout", hint: "it looks like a docker-archive:"},
		{name: "another version", files: map[string]string{layoutFile: `{"imageLayoutVersion":"2.0.0"}`}, want: `OCI layouts of version "2.0.0" are not supported`},
		{name: "no JSON", files: map[string]string{layoutFile: "x"}, want: "oci-layout is not valid: invalid character 'x'"},
		{name: "an index of nothing", files: map[string]string{indexFile: `{"manifests":[{}]}`}, want: "index.json is not valid: it has a descriptor without digest or size"},
		{name: "a digest that leads elsewhere", files: map[string]string{indexFile: `{"manifests":[{"digest":"sha256:../../../etc/passwd","size":1}]}`}, want: "index.json is not valid: found non-hex character in hash"},
		{name: "a huge index", files: map[string]string{indexFile: strings.Repeat(" ", indexLimit+1)}, want: "index.json has 16777217 bytes, more than the 16 MiB that are read"},
		{name: "no manifest", files: map[string]string{blobPath(manifest): ""}, want: "manifest " + manifest.String() + " is missing"},
		{name: "another size", files: map[string]string{indexFile: index(entry(manifest, 1, "1"))}, want: fmt.Sprintf("manifest has %d bytes instead of 1", len(src.Root.Raw))},
		{name: "another manifest", files: map[string]string{blobPath(manifest): strings.Repeat(" ", len(src.Root.Raw))}, want: "manifest: content has digest sha256:"},
		{name: "no config", files: map[string]string{blobPath(config): ""}, want: "reading config: it is missing"},
		{name: "no layer", files: map[string]string{blobPath(layer): ""}, want: "reading layer " + layer.String() + " of "},
		{name: "another layer", files: map[string]string{blobPath(layer): strings.Repeat(" ", int(im.Manifest.Layers[3].Size))}, want: ": content has digest sha256:"},
		{name: "a shorter layer", files: map[string]string{blobPath(layer): "x"}, want: fmt.Sprintf(": it has 1 bytes instead of %d", im.Manifest.Layers[3].Size)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir() + "/layout"
			write(t, c, src, "oci:"+dir+":1")
			for name, content := range tt.files {
				path := filepath.Join(dir, name)
				if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				if content != "" {
					if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			archive := dir + ".tar"
			writeArchive(t, archive, snapshot(t, dir))
			for _, ref := range []string{"oci:" + dir + tt.tag, "oci-archive:" + archive + tt.tag} {
				src, err := c.Find(t.Context(), ref)
				if err == nil {
					defer src.Close()
					var im *Image
					if im, err = src.Image(t.Context(), src.Root); err == nil {
						var r io.ReadCloser
						if r, err = im.Layer(t.Context(), 3); err == nil {
							_, err = io.Copy(io.Discard, r)
							r.Close()
						}
					}
				}
				if tt.want != "" {
					wantError(t, err, tt.want, tt.hint)
				} else if err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Neither reading nor writing follows links out of a layout.
func TestLayoutLinks(t *testing.T) {
	s := newServer(t)
	c := s.client(Options{})
	s.putImage(t, "app:1")
	src := find(t, c, s.host()+"/app:1")
	for _, name := range []string{indexFile, layoutFile, blobPath(src.Root.Digest), "blobs"} {
		t.Run(name, func(t *testing.T) {
			outside := t.TempDir()
			dir := t.TempDir() + "/layout"
			write(t, c, src, "oci:"+dir+":1")
			target := filepath.Join(outside, "x")
			if err := os.Rename(filepath.Join(dir, name), target); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, outside)
			_, err := c.Find(t.Context(), "oci:"+dir+":1")
			wantError(t, err, " is a link that leads out of the directory", "cp -rL")
			s.putImage(t, "app:2")
			other := find(t, c, s.host()+"/app:2")
			_, err = c.Write(t.Context(), reference(t, c, "oci:"+dir+":2"), other, Tree{Root: other.Root})
			if name != blobPath(src.Root.Digest) { // which it does not touch
				wantError(t, err, " is a link that leads out of the directory", "cp -rL")
			}
			if !reflect.DeepEqual(snapshot(t, outside), before) {
				t.Error("written outside of the layout")
			}
		})
	}

	dir := t.TempDir()
	if err := os.WriteFile(dir+"/precious", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := c.Write(t.Context(), reference(t, c, "oci:"+dir), src, Tree{Root: src.Root})
	wantError(t, err, "the directory is no OCI layout, and not empty: it has precious", "name a new or an empty one")
	for _, kind := range []string{"oci-archive", "docker-archive"} {
		_, err = c.Write(t.Context(), reference(t, c, kind+":"+dir+"/precious:1"), src, Tree{Root: src.Root})
		wantError(t, err, "the file is there, and is no ", "")
	}
}
