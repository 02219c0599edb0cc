package scan

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// entries lists all that a layer says, in its order.
func entries(l *Layer) []string {
	var list []string
	for i := range l.entries.n {
		e, m := l.entries.at(i), l.meta(i)
		s := fmt.Sprintf("%d %q %d %s %d:%d", e.parent, l.name(i), m.kind, m.mode, m.uid, m.gid)
		switch m.kind {
		case directory:
			s += fmt.Sprint(" at ", l.modTime(i))
		case symlink, hardlink:
			s += fmt.Sprintf(" -> %q", l.target(i))
		case regular:
			if e.aux > 0 {
				c := l.contents[e.aux-1]
				s += fmt.Sprintf(" %q %v %q", c.data, c.complete, c.inside)
			}
		}
		list = append(list, s)
	}
	return list
}

func encoded(t testing.TB, l *Layer) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := encode(&b, l); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// fixture has all that an index can hold.
func fixture(t testing.TB) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	write := func(h tar.Header, body string) {
		h.Size = int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	write(tar.Header{Typeflag: tar.TypeDir, Name: "/", Mode: 0o711, ModTime: time.Unix(1600000000, 0)}, "")
	write(tar.Header{Typeflag: tar.TypeDir, Name: "old", Mode: 0o1777, ModTime: time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC), Format: tar.FormatPAX}, "")
	write(tar.Header{Typeflag: tar.TypeDir, Name: "late", Mode: 0o2755, ModTime: time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC), Format: tar.FormatPAX}, "")
	write(tar.Header{Typeflag: tar.TypeReg, Name: "bin/su", Mode: 0o4755, Uid: 4294967294, Gid: 7, Format: tar.FormatPAX}, "\x7fELF"+strings.Repeat("x", 100))
	write(tar.Header{Typeflag: tar.TypeChar, Name: "dev/null"}, "")
	write(tar.Header{Typeflag: tar.TypeBlock, Name: "dev/sda"}, "")
	write(tar.Header{Typeflag: tar.TypeFifo, Name: "dev/fifo"}, "")
	for _, m := range []string{
		"app/a", "app/a.py: x", "app/__pycache__/a.cpython-311.pyc: x", "app/.x", "app/..x.y", "app/\xff.\xfe: x",
		"app/" + strings.Repeat("n", maxName), "app/x -> ../" + strings.Repeat("t/", 2000), "app/y = app/a", "app/z -> ",
		"app/.wh.gone", "app/.wh..wh..opq", "app/", "app/a/b",
		"s/a.dist-info/METADATA: Name: a\nVersion: 1\n\n", "s/b.dist-info/METADATA: \nName: b", "s/x.pth: /srv", "etc/os-release: ID=debian",
		"s/c.egg-info: Name: c\n\n", "app/manage.py: DJANGO_SETTINGS_MODULE", "opt/venv/pyvenv.cfg: home = /usr/bin", "app/Procfile: web: x",
		"app/.python-version: 3.11", "etc/supervisord.conf: [supervisord]", "layers/config/metadata.toml: x", "layers/a/b/env/X: y",
		"+x usr/bin/python3.11: \x7fELF" + strings.Repeat("p", 6000), "+x usr/bin/ldd: #!/bin/sh\n" + strings.Repeat("#", 6000),
		"+x app/tool: #!/usr/bin/perl\n" + strings.Repeat("1;\n", 1000), "run.sh: exec x\n",
		"app/x.pyz: " + zipOf(t, "#!/usr/bin/python3\n", "__main__.py", "a.dist-info/METADATA"),
		"+x app/packed: \x7fELF" + strings.Repeat("\x00", 200) + "MEI\x0c\x0b\x0a\x0b\x0e",
	} {
		if _, err := io.Copy(&buf, bytes.NewReader(bytes.TrimSuffix(archive(t, m), make([]byte, 1024)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// random makes a layer of n members.
func random(t testing.TB, seed uint64, n int) *Layer {
	rnd := rand.New(rand.NewPCG(seed, 2))
	parts := []string{"usr", "lib", "a", "a.b", "a.b.c", "__pycache__", "x.cpython-311.pyc", "x.py", "\xff", strings.Repeat("l", maxName-8), "..."}
	var members []string
	for range n {
		var name []string
		for range 1 + rnd.IntN(5) {
			name = append(name, parts[rnd.IntN(len(parts))]+[]string{"", "", fmt.Sprint(rnd.IntN(1000))}[rnd.IntN(3)])
		}
		members = append(members, strings.Join(name, "/")+[]string{"/", "", ": x", " -> " + name[0], " = " + name[0], ".pth: y", "/.wh.z"}[rnd.IntN(7)])
	}
	return scanned(t, members...)
}

func TestEncoding(t *testing.T) {
	layers := []*Layer{{}, scanned(t)}
	layers[0].entries.add(entry{})
	layers[0].text.add(nil)
	layers[0].metas = []meta{implicitMeta}
	for seed := range uint64(200) {
		layers = append(layers, random(t, seed, int(seed)))
	}
	full, err := Read(context.Background(), bytes.NewReader(fixture(t)))
	if err != nil {
		t.Fatal(err)
	}
	many := manyFiles(3*blockEntries, gzip.NoCompression)
	defer many.Close()
	blocks, err := Read(context.Background(), many)
	if err != nil {
		t.Fatal(err)
	}
	targets := make([]string, 300)
	for i := range targets {
		targets[i] = fmt.Sprintf("%d -> %s", i, strings.Repeat("t", maxPath))
	}
	for i, l := range append(layers, full, blocks, scanned(t, targets...)) {
		got, err := decode(bytes.NewReader(encoded(t, l)))
		if err != nil {
			t.Errorf("layer %d: %v", i, err)
			continue
		}
		if got, want := entries(got), entries(l); !slices.Equal(got, want) {
			t.Errorf("layer %d:\ngot  %q\nwant %q", i, got, want)
		}
	}
}

// TestSchema fails when an index holds something else than it did: then schema
// must change too, or what older versions kept would be believed.
func TestSchema(t *testing.T) {
	const want = "2 ff8896668d838c2516ff34a0a7df445b2e60e4dd6a5134cc5c802404513a72d8"
	full, err := Read(context.Background(), bytes.NewReader(fixture(t)))
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, tt := range contentTests() {
		if tt.want != "-" {
			kept = append(kept, tt.member)
		}
	}
	h := sha256.New()
	for _, l := range []*Layer{full, scanned(t, kept...)} {
		h.Write(plain(t, l))
	}
	if got := fmt.Sprintf("%d %x", schema, h.Sum(nil)); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// plain is a layer's encoding without zstd, whose output differs by version.
func plain(t testing.TB, l *Layer) []byte {
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	b, err := z.DecodeAll(encoded(t, l), nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeCorrupt(t *testing.T) {
	stream := func(b ...byte) []byte {
		z, _ := zstd.NewWriter(nil)
		return z.EncodeAll(b, nil)
	}
	valid := encoded(t, scanned(t, "a/b.py: x", "c.pth: x"))
	for name, data := range map[string][]byte{
		"nothing":        nil,
		"no zstd":        []byte("text"),
		"empty":          stream(),
		"cut":            valid[:len(valid)-1],
		"more":           append(slices.Clone(valid), valid...),
		"window":         {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00},
		"metas":          stream(0xff, 0xff, 0xff, 0xff, 0x7f),
		"kind":           stream(1, 9, 0, 0, 0, 0),
		"block":          stream(append([]byte{1, 0, 0, 0, 0}, 0x81, 0x40)...),
		"column":         stream(append([]byte{1, 0, 0, 0, 0}, 1, 0xff, 0xff, 0xff, 0x7f)...),
		"endless number": stream(bytes.Repeat([]byte{0xff}, 20)...),
		"no root":        stream(1, 0, 0, 0, 0, 0),
		"no blocks":      stream(1, 0, 0, 0, 0),
	} {
		if _, err := decode(bytes.NewReader(data)); !errors.Is(err, errCorrupt) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func digestOf(n int) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%064x", n)}
}

func put(t *testing.T, c *Cache, n int, l *Layer) {
	t.Helper()
	if err := c.Put(digestOf(n), l); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestCache(t *testing.T) {
	c := &Cache{Dir: filepath.Join(t.TempDir(), "new", "dir"), MaxBytes: 1 << 20}
	l := scanned(t, "a/b: x", "c.pth: x")
	if _, ok := c.Get(digestOf(1)); ok {
		t.Error("something is in a new cache")
	}
	put(t, c, 1, l)
	got, ok := (&Cache{Dir: c.Dir}).Get(digestOf(1)) // another process, which may put nothing
	if !ok || !slices.Equal(entries(got), entries(l)) {
		t.Errorf("got %v", ok)
	}
	if _, ok := c.Get(digestOf(2)); ok {
		t.Error("another layer is there")
	}
	put(t, c, 1, l)
	if fi, err := os.Stat(c.path(digestOf(1))); err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", fi, err)
	}
	none := &Cache{Dir: filepath.Join(c.Dir, "none")}
	put(t, none, 1, l)
	if exists(none.Dir) {
		t.Error("written without a size")
	}
	if err := (&Cache{Dir: c.path(digestOf(1)), MaxBytes: 1}).Put(digestOf(1), l); err == nil || !strings.Contains(err.Error(), c.Dir) {
		t.Errorf("a file for a directory: %v", err)
	}
}

// TestCacheDamaged changes and cuts an entry at every byte.
func TestCacheDamaged(t *testing.T) {
	c := &Cache{Dir: t.TempDir(), MaxBytes: 1 << 20}
	put(t, c, 1, scanned(t, "a/b: x", "c.pth: x"))
	path := c.path(digestOf(1))
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, data []byte, digest v1.Hash) {
		t.Helper()
		if err := os.WriteFile(c.path(digest), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok := c.Get(digest); ok || exists(c.path(digest)) {
			t.Errorf("%s: believed or kept", what)
		}
	}
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1 << (i % 8)
		check(fmt.Sprint("byte ", i), bad, digestOf(1))
		check(fmt.Sprint("end at ", i), good[:i], digestOf(1))
	}
	check("longer", append(slices.Clone(good), 0), digestOf(1))
	check("of another layer", good, digestOf(2))
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Get(digestOf(1)); !ok {
		t.Error("the good one is not there")
	}
	if err := os.Truncate(path, maxEntry+1); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Get(digestOf(1)); ok || exists(path) {
		t.Error("huge: believed or kept")
	}
}

// TestCacheOrder uses entries in an order and sees the least recently used go.
func TestCacheOrder(t *testing.T) {
	c := &Cache{Dir: t.TempDir(), MaxBytes: 1 << 20}
	l := scanned(t, "a/b: x")
	for n := range 4 {
		put(t, c, n, l)
		used := time.Now().Add(time.Duration(n-10) * time.Hour)
		if err := os.Chtimes(c.path(digestOf(n)), used, used); err != nil {
			t.Fatal(err)
		}
	}
	fi, err := os.Stat(c.path(digestOf(0)))
	if err != nil {
		t.Fatal(err)
	}
	c.Get(digestOf(0))
	c.MaxBytes = 4 * fi.Size()
	left := func() (list []int) {
		for n := range 6 {
			if exists(c.path(digestOf(n))) {
				list = append(list, n)
			}
		}
		return list
	}
	put(t, c, 4, l)
	if got := left(); !slices.Equal(got, []int{0, 2, 3, 4}) {
		t.Errorf("after a fifth: %v", got)
	}
	c = &Cache{Dir: c.Dir, MaxBytes: 2*fi.Size() + 1}
	put(t, c, 5, l)
	if got := left(); len(got) != 2 || got[1] != 5 {
		t.Errorf("with less space: %v", got)
	}
}

func TestCachePrune(t *testing.T) {
	c := &Cache{Dir: t.TempDir(), MaxBytes: 1 << 20}
	removed, err := (&Cache{Dir: filepath.Join(c.Dir, "none")}).Prune(t.Context())
	if err != nil || removed.Files != 0 {
		t.Errorf("nothing: %v, %v", removed, err)
	}
	for n := range 3 {
		put(t, c, n, scanned(t, "a/b: x"))
	}
	dir := filepath.Dir(c.path(digestOf(0)))
	ago := time.Now().Add(-time.Hour)
	file := func(name, content string, used time.Time) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chtimes(path, used, used)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	gone := []string{
		file(filepath.Base(c.path(digestOf(1))), "damaged", time.Now()),
		file("foreign", "12345", time.Now()),
		file(".tmp-123", "left behind", ago),
	}
	stays := []string{
		file(".tmp-456", "being written", time.Now()),
		file(digestOf(7).Hex+".99999", "of another version", time.Now()),
		c.path(digestOf(0)), c.path(digestOf(2)),
	}
	removed, err = c.Prune(t.Context())
	if want := int64(len("damaged") + len("12345") + len("left behind")); err != nil || removed.Files != len(gone) || removed.Bytes != want {
		t.Errorf("removed %+v, %v", removed, err)
	}
	for _, p := range gone {
		if exists(p) {
			t.Errorf("%s is there", p)
		}
	}
	for _, p := range stays {
		if !exists(p) {
			t.Errorf("%s is gone", p)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Prune(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestCacheConcurrent has writers, readers and pruners that share nothing but
// the directory, as processes do.
func TestCacheConcurrent(t *testing.T) {
	dir := t.TempDir()
	var layers []*Layer
	for n := range 4 {
		layers = append(layers, random(t, uint64(n), 500))
	}
	size := int64(len(encoded(t, layers[0])))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c := &Cache{Dir: dir, MaxBytes: 3 * size}
			for i := range 50 {
				n := i % len(layers)
				if err := c.Put(digestOf(n), layers[n]); err != nil {
					t.Error(err)
				}
				if l, ok := c.Get(digestOf((n + 1) % len(layers))); ok && !slices.Equal(entries(l), entries(layers[(n+1)%len(layers)])) {
					t.Error("another layer")
				}
				if i%10 == 0 {
					if _, err := c.Prune(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	files, err := filepath.Glob(filepath.Join(dir, "*", ".*"))
	if err != nil || len(files) > 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

func FuzzDecode(f *testing.F) {
	l, err := Read(context.Background(), bytes.NewReader(fixture(f)))
	if err != nil {
		f.Fatal(err)
	}
	// What is mutated is the form below the compression.
	f.Add(plain(f, l))
	f.Add(plain(f, random(f, 1, 20)))
	f.Add(plain(f, scanned(f, "a/b.py: x", "c -> d", "e.pth: y")))
	f.Add([]byte{0, 0})
	z, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := decode(bytes.NewReader(data)); err == nil && len(data) > 0 && data[0] != 0x28 && data[0]&0xf0 != 0x50 {
			t.Error("not zstd, but decoded")
		}
		l, err := decode(bytes.NewReader(z.EncodeAll(data, nil)))
		if err != nil {
			if !errors.Is(err, errCorrupt) {
				t.Error(err)
			}
			return
		}
		again, err := decode(bytes.NewReader(encoded(t, l)))
		if err != nil || !slices.Equal(entries(again), entries(l)) {
			t.Errorf("got  %q, %v\nwant %q", entries(again), err, entries(l))
		}
		ix := Merge(l, l)
		for _, p := range ix.Find(func([]byte) bool { return true }) {
			ix.Stat(p)
			ix.ReadFile(p)
		}
	})
}

func TestConfig(t *testing.T) {
	c := &Cache{Dir: t.TempDir(), MaxBytes: 1000}
	config := []byte(`{"config":{"Env":["TOKEN=secret"]}}`)
	digest, _, err := v1.SHA256(bytes.NewReader(config))
	if err != nil {
		t.Fatal(err)
	}
	has := func(c *Cache, want bool) {
		t.Helper()
		if got, ok := c.Config(digest); ok != want || want && !bytes.Equal(got, config) {
			t.Errorf("got %q, %t", got, ok)
		}
	}
	has(c, false)
	c.PutConfig(digest, config)
	has(c, true)
	path := c.configPath(digest)
	if fi, err := os.Stat(path); err != nil || fi.Mode() != 0o600 {
		t.Errorf("mode %v, %v: others may read it", fi.Mode(), err)
	}
	if removed, err := c.Prune(t.Context()); err != nil || removed.Files != 0 {
		t.Errorf("pruned %+v, %v", removed, err)
	}

	// What is damaged is never returned, and goes.
	for _, prune := range []bool{false, true} {
		if err := os.WriteFile(path, config[1:], 0o600); err != nil {
			t.Fatal(err)
		}
		if prune {
			if removed, err := c.Prune(t.Context()); err != nil || removed.Files != 1 {
				t.Errorf("pruned %+v, %v", removed, err)
			}
		} else {
			has(c, false)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("the damaged file: %v", err)
		}
	}

	// They count like indexes.
	c.PutConfig(digest, config)
	c.MaxBytes = int64(len(config)) - 1
	if removed, err := c.Prune(t.Context()); err != nil || removed.Files != 1 {
		t.Errorf("pruned %+v, %v", removed, err)
	}
	has(c, false)
	for _, c := range []*Cache{nil, {Dir: t.TempDir()}} {
		c.PutConfig(digest, config)
		has(c, false)
	}
}
