package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func build(t *testing.T, entries ...Entry) *Layer {
	t.Helper()
	l, err := Build(t.Context(), entries)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func headers(t *testing.T, l *Layer) []tar.Header {
	t.Helper()
	r, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var hs []tar.Header
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return hs
		}
		if err != nil {
			t.Fatal(err)
		}
		hs = append(hs, *h)
	}
}

func opener(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

func TestBuildHeaders(t *testing.T) {
	long := strings.Repeat("d", 120) + "/" + strings.Repeat("f", 130)
	modTime := time.Date(2024, 5, 6, 7, 8, 9, 987654321, time.FixedZone("", 3600))
	l := build(t,
		Entry{Path: "b/file", Data: []byte("abc")},
		Entry{Path: "b", Mode: fs.ModeDir},
		Entry{Path: "b/run", Mode: 0o755, Open: opener("12345"), Size: 5},
		Entry{Path: "b/link", Mode: fs.ModeSymlink, Linkname: "../x"},
		Entry{Path: "a/.wh.gone"},
		Entry{Path: long, Data: []byte("x")},
		Entry{Path: "tmp", Mode: fs.ModeDir | fs.ModeSticky | fs.ModeSetgid | 0o777, UID: 65532, GID: 3000000, ModTime: modTime},
	)
	type header struct {
		name, link string
		typ        byte
		mode       int64
		uid, gid   int
		size       int64
		time       time.Time
	}
	want := []header{
		{"a/.wh.gone", "", tar.TypeReg, 0o644, 0, 0, 0, Epoch},
		{"b/", "", tar.TypeDir, 0o755, 0, 0, 0, Epoch},
		{"b/file", "", tar.TypeReg, 0o644, 0, 0, 3, Epoch},
		{"b/link", "../x", tar.TypeSymlink, 0o777, 0, 0, 0, Epoch},
		{"b/run", "", tar.TypeReg, 0o755, 0, 0, 5, Epoch},
		{long, "", tar.TypeReg, 0o644, 0, 0, 1, Epoch},
		{"tmp/", "", tar.TypeDir, 0o3777, 65532, 3000000, 0, modTime.Truncate(time.Second).UTC()},
	}
	var got []header
	for _, h := range headers(t, l) {
		got = append(got, header{h.Name, h.Linkname, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.ModTime.UTC()})
		for key := range h.PAXRecords {
			if key != "path" && key != "gid" {
				t.Errorf("%s has a PAX record %s", h.Name, key)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if info := l.Info(); info.Files != 4 || info.Unpacked != 9 {
		t.Errorf("Files = %d, Unpacked = %d; want 4 and 9", info.Files, info.Unpacked)
	}
}

// corpus is text with repetitions near and far, so that another way to find
// matches gives another blob.
func corpus() []Entry {
	rnd := rand.New(rand.NewPCG(1, 2))
	entries := []Entry{{Path: "corpus", Mode: fs.ModeDir}}
	for i := range 40 {
		var b bytes.Buffer
		for b.Len() < 20000 {
			fmt.Fprintf(&b, "def f%d(self, x=%d):\n    return self.g%d(x)\n", rnd.IntN(50), rnd.IntN(9), rnd.IntN(300))
		}
		entries = append(entries, Entry{Path: fmt.Sprintf("corpus/%d.py", i), Data: b.Bytes()})
	}
	return entries
}

// A digest that changes here means that every digest that users have pushed
// and mirrored changes with the next release: the library that compresses or
// the fields of the headers differ.
func TestBuildGolden(t *testing.T) {
	const (
		wantDigest = "sha256:f377f6a7897db7c92947abc225e9a4a1bf8051b152ebe32658db86a2f143de56"
		wantDiffID = "sha256:5bce4624f03e7e79e6ef37383c7809e6cee63bb67d3eb52ec57cd7b175346473"
	)
	entries := corpus()
	for procs := range 3 {
		old := runtime.GOMAXPROCS(procs + 1)
		slices.Reverse(entries)
		l := build(t, entries...)
		runtime.GOMAXPROCS(old)
		if got := l.Info().Digest.String(); got != wantDigest {
			t.Errorf("GOMAXPROCS %d: digest %s, want %s", procs+1, got, wantDigest)
		}
		if got := l.Info().DiffID.String(); got != wantDiffID {
			t.Errorf("GOMAXPROCS %d: diffID %s, want %s", procs+1, got, wantDiffID)
		}
	}
	blob, _ := build(t, entries...).Compressed()
	var header [10]byte
	if _, err := io.ReadFull(blob, header[:]); err != nil {
		t.Fatal(err)
	}
	if want := [10]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255}; header != want {
		t.Errorf("gzip header % x, want % x", header, want)
	}
}

func TestBuildRefuses(t *testing.T) {
	file := func(path string) Entry { return Entry{Path: path} }
	for name, tt := range map[string]struct {
		entries []Entry
		want    string
	}{
		"absolute":      {[]Entry{file("/etc/passwd")}, `invalid path "/etc/passwd"`},
		"parent":        {[]Entry{file("a/../b")}, `invalid path "a/../b"`},
		"root":          {[]Entry{{Path: ".", Mode: fs.ModeDir}}, `invalid path "."`},
		"empty":         {[]Entry{file("")}, `invalid path ""`},
		"NUL":           {[]Entry{file("a\x00b")}, `invalid path "a\x00b"`},
		"duplicate":     {[]Entry{file("a"), file("b"), file("a")}, `duplicate path "a"`},
		"file as dir":   {[]Entry{file("a/b/c"), file("a"), file("a-b")}, `"a/b/c" is inside of "a", which is no directory`},
		"link as dir":   {[]Entry{file("a/b"), {Path: "a", Mode: fs.ModeSymlink}}, `"a/b" is inside of "a", which is no directory`},
		"device":        {[]Entry{{Path: "null", Mode: fs.ModeDevice}}, "unsupported file type"},
		"short content": {[]Entry{{Path: "a", Open: opener("12"), Size: 3}}, "adding a: content has 2 bytes, expected 3"},
		"long content":  {[]Entry{{Path: "a", Open: opener("1234"), Size: 3}}, "adding a: archive/tar: write too long"},
		"no content": {[]Entry{{Path: "a", Open: func() (io.ReadCloser, error) {
			return nil, errors.New("no content")
		}}}, "adding a: no content"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Build(t.Context(), tt.entries)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestBuildCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, corpus()); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func TestLayer(t *testing.T) {
	inMemory := build(t, corpus()...)
	cache := &Cache{Dir: t.TempDir()}
	inFile, err := cache.PutLayer(t.Context(), inMemory)
	if err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]*Layer{"memory": inMemory, "file": inFile} {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				if err := validate.Layer(l); err != nil {
					t.Error(err)
				}
			}
			docker := l.WithMediaType(types.DockerLayer)
			if mt, _ := docker.MediaType(); mt != types.DockerLayer {
				t.Errorf("media type %s after WithMediaType", mt)
			}
			if mt, _ := l.MediaType(); mt != types.OCILayer {
				t.Errorf("media type %s, want the original's to be kept", mt)
			}
			if d, _ := docker.Digest(); d != l.Info().Digest || d == (v1.Hash{}) {
				t.Errorf("digest %s, want %s", d, l.Info().Digest)
			}
		})
	}
}
