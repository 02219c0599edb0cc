package scan

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// member is one tar member of a test layer, written as a short string:
// "dir/", "link -> target", "hard = target", "file: content" or "file".
// A leading "+x " sets the executable bits.
func archive(t testing.TB, members ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		h := &tar.Header{Typeflag: tar.TypeReg, Mode: 0o644, ModTime: time.Unix(1700000000, 0)}
		if rest, ok := strings.CutPrefix(m, "+x "); ok {
			m, h.Mode = rest, 0o755
		}
		var body string
		if name, content, ok := strings.Cut(m, ": "); ok {
			h.Name, body, h.Size = name, content, int64(len(content))
		} else if name, target, ok := strings.Cut(m, " -> "); ok {
			h.Typeflag, h.Name, h.Linkname = tar.TypeSymlink, name, target
		} else if name, target, ok := strings.Cut(m, " = "); ok {
			h.Typeflag, h.Name, h.Linkname = tar.TypeLink, name, target
		} else if h.Name = m; strings.HasSuffix(m, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func scanned(t testing.TB, members ...string) *Layer {
	t.Helper()
	l, err := Read(context.Background(), bytes.NewReader(archive(t, members...)))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func merge(t testing.TB, layers ...[]string) *Index {
	t.Helper()
	var ls []*Layer
	for _, l := range layers {
		ls = append(ls, scanned(t, l...))
	}
	return Merge(ls...)
}

// tree lists all files: "/dir/", "/link -> target", "/file@layer".
func tree(ix *Index) []string {
	var got []string
	for _, p := range ix.Find(func([]byte) bool { return true }) {
		f, err := ix.Lstat(p)
		switch {
		case err != nil:
			p = err.Error()
		case f.Mode.IsDir():
			p += "/"
		case f.Mode&fs.ModeSymlink != 0:
			p += " -> " + f.Linkname
		default:
			p = fmt.Sprintf("%s@%d", p, f.Layer)
		}
		got = append(got, p)
	}
	return got
}

func TestMerge(t *testing.T) {
	type layers = [][]string
	for _, tt := range []struct {
		name   string
		layers layers
		want   []string
	}{
		{"nothing", nil, nil},
		{"empty layer", layers{{}}, nil},
		{"names are cleaned", layers{{"./a/", "/b", "../../c", "a/../d", "a//e", "."}}, []string{"/a/", "/a/e@0", "/b@0", "/c@0", "/d@0"}},
		{"not UTF-8", layers{{"a\xff/b\xfe"}}, []string{"/a\xff/", "/a\xff/b\xfe@0"}},
		{"last of a name wins", layers{{"a: 1", "a -> b", "c/d", "c"}}, []string{"/a -> b", "/c@0"}},
		{"upper replaces", layers{{"a", "b"}, {"a"}}, []string{"/a@1", "/b@0"}},
		{"whiteout", layers{{"a/b", "a/c"}, {"a/.wh.b"}}, []string{"/a/", "/a/c@0"}},
		{"whiteout of a directory", layers{{"a/b/c", "d"}, {".wh.a"}}, []string{"/d@0"}},
		{"whiteout of nothing", layers{{"a"}, {"b/.wh.c", ".wh.d"}}, []string{"/a@0"}},
		{"whiteout spares its own layer", layers{{"a/b", "a/c"}, {"a/b", ".wh.a"}}, []string{"/a/", "/a/b@1"}},
		{"whiteout before its own layer", layers{{"a/b", "a/c"}, {".wh.a", "a/b"}}, []string{"/a/", "/a/b@1"}},
		{"removed and back", layers{{"a/b"}, {".wh.a"}, {"a/c"}}, []string{"/a/", "/a/c@2"}},
		{"opaque first", layers{{"a/b", "a/c/d", "e"}, {"a/", "a/.wh..wh..opq", "a/f", "a/c/g"}}, []string{"/a/", "/a/c/", "/a/c/g@1", "/a/f@1", "/e@0"}},
		{"opaque last", layers{{"a/b", "a/c/d", "e"}, {"a/", "a/f", "a/c/g", "a/.wh..wh..opq"}}, []string{"/a/", "/a/c/", "/a/c/g@1", "/a/f@1", "/e@0"}},
		{"opaque root", layers{{"a"}, {".wh..wh..opq", "b"}}, []string{"/b@1"}},
		{"opaque spares higher layers", layers{{"a/b"}, {"a/.wh..wh..opq"}, {"a/c"}}, []string{"/a/", "/a/c@2"}},
		{"aufs bookkeeping", layers{{"a"}, {".wh..wh.aufs", ".wh..wh.plnk/"}}, []string{"/a@0"}},
		{"whiteouts of no name", layers{{"a/b"}, {"a/.wh.", "a/.wh..", "a/.wh..."}}, []string{"/a/", "/a/b@0"}},
		{"file over directory", layers{{"a/b"}, {"a"}}, []string{"/a@1"}},
		{"directory over file", layers{{"a"}, {"a/", "a/b"}}, []string{"/a/", "/a/b@1"}},
		{"implicit directory over file", layers{{"a"}, {"a/b"}}, []string{"/a/", "/a/b@1"}},
		{"directory over link to directory", layers{{"d/x", "a -> d"}, {"a/", "a/b"}}, []string{"/a/", "/a/b@1", "/d/", "/d/x@0"}},
		{"through a link to a directory", layers{{"usr/bin/x", "bin -> usr/bin"}, {"bin/y"}}, []string{"/bin -> usr/bin", "/usr/", "/usr/bin/", "/usr/bin/x@0", "/usr/bin/y@1"}},
		{"whiteout through a link", layers{{"usr/bin/x", "bin -> usr/bin"}, {"bin/.wh.x"}}, []string{"/bin -> usr/bin", "/usr/", "/usr/bin/"}},
		{"through a dangling link", layers{{"a -> /b/c"}, {"a/d"}}, []string{"/a -> /b/c", "/b/", "/b/c/", "/b/c/d@1"}},
		{"through a link loop", layers{{"a -> b", "b -> a"}, {"a/c", "d"}}, []string{"/a -> b", "/b -> a", "/d@1"}},
		{"link over directory", layers{{"a/b", "c/d"}, {"a -> c"}, {"a/e"}}, []string{"/a -> c", "/c/", "/c/d@0", "/c/e@2"}},
		{"hard link", layers{{"a: x", "b = a", "c = ./b", "d = /nothing"}}, []string{"/a@0", "/b@0", "/c@0"}},
		{"hard link to a lower layer", layers{{"a: x"}, {"b = a"}, {"a: y"}}, []string{"/a@2", "/b@0"}},
		{"hard link whose target is removed", layers{{"a: x"}, {"b = a", ".wh.a"}}, []string{"/b@0"}},
		{"hard link to itself", layers{{"a", "a = a"}}, []string{"/a@0"}},
		{"hard link to a link", layers{{"a -> b", "c = a"}}, []string{"/a -> b", "/c -> b"}},
		{"whiteout spares a hard link of its layer", layers{{"a"}, {"b = a", ".wh.b"}}, []string{"/a@0", "/b@0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tree(merge(t, tt.layers...)); !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestDirectoryMetadata(t *testing.T) {
	write := func(mode int64, name string) *Layer {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, Uid: 7, Gid: 8, ModTime: time.Unix(mode, 0)}); err != nil {
			t.Fatal(err)
		}
		w.Close()
		l, err := Read(context.Background(), &buf)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	base, upper := write(0o1777, "tmp/"), scanned(t, "tmp/x", "etc/y")
	for _, tt := range []struct {
		name   string
		layers []*Layer
		path   string
		mode   fs.FileMode
		uid    int
		layer  int
	}{
		{"kept by a layer that only adds to it", []*Layer{base, upper}, "tmp", fs.ModeDir | fs.ModeSticky | 0o777, 7, 0},
		{"replaced by a later member", []*Layer{base, upper, write(0o700, "./tmp")}, "/tmp", fs.ModeDir | 0o700, 7, 2},
		{"gone with a whiteout", []*Layer{base, scanned(t, ".wh.tmp", "tmp/x")}, "/tmp", fs.ModeDir | 0o755, 0, 1},
		{"gone with a later whiteout", []*Layer{base, scanned(t, "tmp/x", ".wh.tmp")}, "/tmp", fs.ModeDir | 0o755, 0, 1},
		{"of a directory without member", []*Layer{base, upper}, "etc", fs.ModeDir | 0o755, 0, 1},
		{"of the root", []*Layer{base, write(0o711, "/")}, "/", fs.ModeDir | 0o711, 7, 1},
	} {
		f, err := Merge(tt.layers...).Stat(tt.path)
		if err != nil || f.Mode != tt.mode || f.UID != tt.uid || f.Layer != tt.layer {
			t.Errorf("%s: got %+v, %v", tt.name, f, err)
		}
	}
}

func TestResolve(t *testing.T) {
	long := []string{"c0"}
	for i := range 41 {
		long = append(long, fmt.Sprintf("c%d -> c%d", i+1, i))
	}
	ix := merge(t, append(long,
		"usr/bin/python3 -> python3.11", "+x usr/bin/python3.11: \x7fELF", "bin -> usr/bin",
		"abs -> /usr/bin/python3", "out -> ../../../usr/bin", "a/b/up -> ../../usr",
		"self -> self", "x -> y", "y -> x", "dangling -> nowhere", "file: x", "under -> file/x"))
	for _, tt := range []struct {
		path, want string
		err        error
	}{
		{"/", "/", nil},
		{"", "/", nil},
		{"/bin/python3", "/usr/bin/python3.11", nil},
		{"abs", "/usr/bin/python3.11", nil},
		{"/out/python3", "/usr/bin/python3.11", nil},
		{"/a/b/up/bin/../bin/./python3", "/usr/bin/python3.11", nil},
		{"/bin/../lib", "", fs.ErrNotExist}, // .. of /usr/bin
		{"/bin/../bin", "/usr/bin", nil},
		{"/../../file", "/file", nil},
		{"/c40", "/c0", nil},
		{"/c41", "", ErrLinkLoop},
		{"/self", "", ErrLinkLoop},
		{"/self/x", "", ErrLinkLoop},
		{"/x", "", ErrLinkLoop},
		{"/dangling", "", fs.ErrNotExist},
		{"/file/x", "", fs.ErrNotExist},
		{"/file/../file", "", fs.ErrNotExist},
		{"/under", "", fs.ErrNotExist},
		{"/nothing", "", fs.ErrNotExist},
	} {
		got, err := ix.Resolve(tt.path)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("Resolve(%q) = %q, %v; want %q, %v", tt.path, got, err, tt.want, tt.err)
		}
		if f, err := ix.Stat(tt.path); f.Path != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("Stat(%q) = %q, %v; want %q, %v", tt.path, f.Path, err, tt.want, tt.err)
		}
	}
	if f, err := ix.Lstat("/bin/python3"); err != nil || f.Linkname != "python3.11" || f.Mode.Type() != fs.ModeSymlink {
		t.Errorf("Lstat(link) = %+v, %v", f, err)
	}
	if names, err := ix.ReadDir("/bin"); err != nil || !slices.Equal(names, []string{"python3", "python3.11"}) {
		t.Errorf("ReadDir = %q, %v", names, err)
	}
	if _, err := ix.ReadDir("/file"); err == nil {
		t.Error("ReadDir of a file: no error")
	}
}

type contentTest struct {
	member   string
	want     string // "-": nothing
	complete bool
}

func contentTests() []contentTest {
	python := "\x7fELF" + strings.Repeat("p", 6000)
	script := "#!/bin/sh\n" + strings.Repeat("# comment\n", 3000)
	site := "usr/lib/python3/dist-packages/"
	return []contentTest{
		{site + "Flask-2.2.2.dist-info/METADATA: Name: Flask\nVersion: 2.2.2\n\nlong", "Name: Flask\nVersion: 2.2.2\n", true},
		{site + "a.dist-info/METADATA: Name: a\r\nVersion: 1\r\n\r\nlong", "Name: a\nVersion: 1\n", true},
		{site + "b.dist-info/METADATA: Summary: Name: x\nversion: 1\nName: b", "Name: b\nversion: 1\n", true},
		{site + "c.dist-info/METADATA: Name: c\n" + strings.Repeat("X: y\n", 100000) + "Version: 1\n", "Name: c\n", false},
		{site + "g.dist-info/METADATA: " + strings.Repeat("X: y\n", 10000) + "Name: g\nVersion: 1\n", "Name: g\nVersion: 1\n", true},
		{site + "h.dist-info/METADATA: Name: h\n \nVersion: 1\n", "Name: h\n", true},
		{site + "d.dist-info/METADATA: " + "Name: d\n" + strings.Repeat("x", 4087) + "\n\nVersion: 1", "Name: d\n", true},
		{site + "e.egg-info/PKG-INFO: Name: e\n\n", "Name: e\n", true},
		{site + "f-1.egg-info: Name: f\n\nlong", "Name: f\n", true},
		{site + "a.dist-info/RECORD: x,,\n", "-", false},
		{site + "METADATA: x", "-", false},
		{site + "x.py: #!/usr/bin/python3\n", "-", false},
		{site + "x.pth: /srv\n", "/srv\n", true},
		{"models/x.pth: " + strings.Repeat("m", maxText+1), "-", false},
		{"opt/venv/pyvenv.cfg: home = /usr/bin\n", "home = /usr/bin\n", true},
		{"app/manage.py: setdefault('DJANGO_SETTINGS_MODULE', 'x')", "setdefault('DJANGO_SETTINGS_MODULE', 'x')", true},
		{"app/wsgi.py: application = None", "-", false},
		{"app/app.py: print()", "-", false},
		{"app/.python-version: 3.11.2", "3.11.2", true},
		{"root/.pyenv/version: 3.11.2", "3.11.2", true},
		{"app/version: 3.11.2", "-", false},
		{"app/Procfile: web: gunicorn", "web: gunicorn", true},
		{"etc/supervisor/conf.d/web.conf: [program:web]", "[program:web]", true},
		{"etc/nginx/nginx.conf: http", "-", false},
		{"app/gunicorn.conf.py: workers = 2", "workers = 2", true},
		{site + "gunicorn.py: x", "-", false},
		{"layers/config/metadata.toml: [[processes]]", "[[processes]]", true},
		{"layers/paketo_pip/pip/env/PYTHONPATH.prepend: /x", "/x", true},
		{"layers/paketo_pip/pip/env.launch/web/A.default: b", "b", true},
		{"layers/paketo_pip/pip/env.build/A: b", "-", false},
		{"+x app/run.py: #!/usr/bin/env python3\nprint()", "#!/usr/bin/env python3\nprint()", true},
		{"entrypoint: " + script, script, true},
		{"run.sh: exec x\n", "exec x\n", true},
		{"+x usr/bin/ldd: " + script, script[:maxELF], false},
		{"+x usr/local/bin/tool: #!/usr/bin/perl\n" + strings.Repeat("1;\n", 1000), ("#!/usr/bin/perl\n" + strings.Repeat("1;\n", 1000))[:maxHead], false},
		{"+x usr/bin/python3.11: " + python, python[:maxELF], false},
		{"+x usr/sbin/nginx: " + python, python[:maxOther], false},
		{"+x usr/lib/x.cpython-311.so: " + python, "-", false},
		{"+x usr/lib/libx.so.1: " + python, "-", false},
		{"data.bin: " + strings.Repeat("\x00", 100), "-", false},
	}
}

func TestContent(t *testing.T) {
	for _, tt := range contentTests() {
		name, _, _ := strings.Cut(strings.TrimPrefix(tt.member, "+x "), ": ")
		ix := merge(t, []string{tt.member})
		got, err := ix.ReadFile(name)
		if tt.want == "-" {
			if !errors.Is(err, ErrNotKept) {
				t.Errorf("%s: got %.40q, %v; want ErrNotKept", name, got, err)
			}
			continue
		}
		f, _ := ix.Stat(name)
		if err != nil || string(got) != tt.want || f.Complete != tt.complete {
			t.Errorf("%s: got %d bytes %.60q, complete %v, %v; want %d bytes", name, len(got), got, f.Complete, err, len(tt.want))
		}
	}
	if b, err := merge(t, []string{"empty"}).ReadFile("empty"); len(b) != 0 || err != nil {
		t.Errorf("empty file: %q, %v", b, err)
	}
	if b, err := merge(t, []string{"a.pth: x"}, []string{"b = a.pth"}, []string{".wh.a.pth"}).ReadFile("b"); string(b) != "x" || err != nil {
		t.Errorf("hard link: %q, %v", b, err)
	}
}

// zipOf makes a zip archive that holds empty files, behind a shebang if that is
// not empty.
func zipOf(t testing.TB, shebang string, names ...string) string {
	t.Helper()
	buf := bytes.NewBufferString(shebang)
	w := zip.NewWriter(buf)
	for _, n := range names {
		f, err := w.Create(n)
		if err != nil {
			t.Fatal(err)
		}
		f.Write([]byte(n))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

func TestInside(t *testing.T) {
	const python = "#!/usr/bin/env python3\n"
	var many []string
	for i := range 3000 {
		many = append(many, fmt.Sprintf("site-packages/module_%d.py", i))
	}
	many = append(many, "site-packages/x-1.dist-info/METADATA", "__main__.py")
	elf := "\x7fELF" + strings.Repeat("\x00", 200_000)
	for _, tt := range []struct {
		member  string
		content string
		want    []string
	}{
		{"+x app/a.pex: " + zipOf(t, python, ".deps/x-1.whl/x-1.dist-info/METADATA", "PEX-INFO", "x/__main__.py", "__main__.py"), python, []string{".deps/x-1.whl/x-1.dist-info/METADATA", "PEX-INFO", "__main__.py"}},
		{"+x app/a: " + zipOf(t, "#!/bin/sh\nexec python3 $0\n", "__main__.py", "y.egg-info/PKG-INFO"), "#!/bin/sh\nexec python3 $0\n", []string{"__main__.py", "y.egg-info/PKG-INFO"}},
		{"app/a.pyz: " + zipOf(t, python, many...), python, many[3000:]},
		{"app/a.zip: " + zipOf(t, "", many...), "PK", many[3000:]},
		{"app/data.zip: " + zipOf(t, "", "x-1.dist-info/METADATA"), "PK", nil},
		{"app/x.whl: " + zipOf(t, "", "__main__.py"), "", nil},
		{"+x app/one: " + elf + "MEI\x0c\x0b\x0a\x0b\x0e" + elf, "\x7fELF", []string{PyInstaller}},
		{"+x app/two: " + elf + "NUITKA_ONEFILE_PARENT", "\x7fELF", []string{Nuitka}},
		{"+x app/two.bin: " + elf + "<nuitka_module_loader>", "\x7fELF", []string{Nuitka}},
		{"+x app/with-python: " + elf + "<nuitka_module_loader>" + elf + "NUITKA_PYTHONPATH", "\x7fELF", nil},
		{"+x app/three: " + elf, "\x7fELF", nil},
		{"+x usr/bin/three: " + elf + "NUITKA_ONEFILE_PARENT", "\x7fELF", nil},
	} {
		name, _, _ := strings.Cut(strings.TrimPrefix(tt.member, "+x "), ": ")
		f, err := merge(t, []string{tt.member}).Stat(name)
		if err != nil || !slices.Equal(f.Inside, tt.want) || !strings.HasPrefix(string(f.Content), tt.content) {
			t.Errorf("%s: inside %q, content %.40q, %v", name, f.Inside, f.Content, err)
		}
	}
	// Wherever a name is cut by the end of the buffer.
	b := newBuilder()
	for n := maxText - 200; n < maxText+10; n++ {
		body := strings.Repeat("x", n) + zipOf(t, "", "__main__.py", "a.dist-info/METADATA")
		got, err := b.zipMembers(strings.NewReader(body))
		if err != nil || !slices.Equal(got, []string{"__main__.py", "a.dist-info/METADATA"}) {
			t.Fatalf("behind %d bytes: %q, %v", n, got, err)
		}
	}
}

// TestManyLayers stacks 300 layers that add, replace and remove.
func TestManyLayers(t *testing.T) {
	var layers []*Layer
	for i := range 300 {
		layers = append(layers, scanned(t, fmt.Sprintf("d/%d.pth: %d", i, i), fmt.Sprintf("d/.wh.%d.pth", i-2), fmt.Sprintf("same.pth: %d", i)))
	}
	ix := Merge(layers...)
	if names, err := ix.ReadDir("/d"); err != nil || !slices.Equal(names, []string{"298.pth", "299.pth"}) {
		t.Errorf("ReadDir = %q, %v", names, err)
	}
	if f, err := ix.Stat("/same.pth"); err != nil || string(f.Content) != "299" || f.Layer != 299 {
		t.Errorf("Stat = %+v, %v", f, err)
	}
}

func TestReadLimits(t *testing.T) {
	many := func(n int, format, content string) []string {
		var m []string
		for i := range n {
			m = append(m, fmt.Sprintf(format, i)+": "+content)
		}
		return m
	}
	deep := strings.Repeat("d/", maxPath/2) + "x"
	for _, tt := range []struct {
		name    string
		members []string
		want    string // part of the error
	}{
		{"long path", []string{deep}, "4097 bytes"},
		{"long name", []string{strings.Repeat("n", 256)}, "256 bytes"},
		{"long link", []string{"a -> " + strings.Repeat("n", maxPath+1)}, "4097 bytes"},
		{"metadata", many(maxContent/maxHeaders+1, "%d.dist-info/METADATA", "Name: "+strings.Repeat("n", maxHeaders)), "32 MiB of package metadata"},
	} {
		_, err := Read(context.Background(), bytes.NewReader(archive(t, tt.members...)))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	l := scanned(t, many(maxScripts/maxText+1, "+x s%03d", "#!/bin/sh\n"+strings.Repeat("#", maxText))...)
	ix := Merge(l)
	if _, err := ix.ReadFile("s000"); err != nil {
		t.Error(err)
	}
	if _, err := ix.ReadFile(fmt.Sprintf("s%03d", maxScripts/maxText)); !errors.Is(err, ErrNotKept) {
		t.Errorf("script beyond the limit: %v", err)
	}
}

func TestReadCompressed(t *testing.T) {
	plain := archive(t, "a/", "a/b: hello", "c -> a")
	zip := func(b []byte) []byte {
		var buf bytes.Buffer
		w := gzip.NewWriter(&buf)
		w.Write(b)
		w.Close()
		return buf.Bytes()
	}
	zst := func(b []byte) []byte {
		w, _ := zstd.NewWriter(nil)
		return w.EncodeAll(b, nil)
	}
	skippable := []byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3}
	for _, tt := range []struct {
		name string
		data []byte
		ok   bool
	}{
		{"tar", plain, true},
		{"gzip", zip(plain), true},
		{"zstd", zst(plain), true},
		{"gzip members", slices.Concat(zip(plain[:700]), zip(nil), zip(plain[700:])), true},
		{"zstd frames", slices.Concat(skippable, zst(plain[:700]), skippable, zst(plain[700:]), skippable), true},
		{"bytes behind the archive", append(slices.Clone(plain), "more"...), true},
		{"gzip with bytes behind the archive", zip(append(slices.Clone(plain), make([]byte, 1<<20)...)), true},
		{"truncated tar", plain[:1027], false},
		{"truncated gzip", zip(plain)[:60], false},
		{"gzip without checksum", zip(plain)[:len(zip(plain))-8], false},
		{"gzip with a wrong checksum", append(zip(plain)[:len(zip(plain))-8], 1, 2, 3, 4, 5, 6, 7, 8), false},
		{"gzip magic only", []byte{0x1f, 0x8b}, false},
		{"truncated zstd", zst(plain)[:30], false},
		{"not a tar", []byte(strings.Repeat("<html>", 200)), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := bytes.NewReader(tt.data)
			l, err := Read(context.Background(), r)
			if !tt.ok {
				if err == nil || errors.Is(err, io.EOF) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if r.Len() != 0 {
				t.Errorf("%d bytes were not read", r.Len())
			}
			if got := tree(Merge(l)); !slices.Equal(got, []string{"/a/", "/a/b@0", "/c -> a"}) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestReadCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Read(ctx, bytes.NewReader(archive(t, "a"))); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestLargeValues(t *testing.T) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	old := time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := w.WriteHeader(&tar.Header{Name: "old", Typeflag: tar.TypeDir, ModTime: old, Format: tar.FormatPAX, Uid: 4294967294}); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("long/", 60) + "name"
	if err := w.WriteHeader(&tar.Header{Name: long, Typeflag: tar.TypeReg, Mode: 0o4755, ModTime: time.Unix(1, 5), Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	l, err := Read(context.Background(), &buf)
	if err != nil {
		t.Fatal(err)
	}
	ix := Merge(l)
	if f, err := ix.Stat("old"); err != nil || !f.ModTime.Equal(old) || f.UID != 4294967294 {
		t.Errorf("got %+v, %v", f, err)
	}
	if f, err := ix.Stat(long); err != nil || f.Mode != fs.ModeSetuid|0o755 || !f.ModTime.IsZero() || !f.Empty {
		t.Errorf("got %+v, %v", f, err)
	}
}

// TestMergeLikeExtraction compares Merge with extracting the layers, one
// after the other, into a real directory.
func TestMergeLikeExtraction(t *testing.T) {
	names := []string{"a", "b", "c"}
	const stacks = 600
	compared := 0
	for seed := range uint64(stacks) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		name := func() string {
			parts := make([]string, 1+rnd.IntN(3))
			for i := range parts {
				parts[i] = names[rnd.IntN(len(names))]
			}
			return strings.Join(parts, "/")
		}
		var layers [][]string
		for range 1 + rnd.IntN(4) {
			var members []string
			for range rnd.IntN(8) {
				n := name()
				dir, base := split(n)
				switch rnd.IntN(9) {
				case 0, 1:
					members = append(members, n+"/")
				case 2:
					members = append(members, n+" -> "+[]string{"", "/", "../"}[rnd.IntN(3)]+name())
				case 3:
					members = append(members, n+" = "+name())
				case 4:
					members = append(members, strings.TrimPrefix(dir+"/.wh."+base, "/"))
				case 5:
					members = append(members, n+"/.wh..wh..opq")
				default:
					members = append(members, n+": x")
				}
			}
			layers = append(layers, members)
		}
		want, ok := extract(t, layers)
		if !ok {
			continue
		}
		compared++
		got := tree(merge(t, layers...))
		for i := range got {
			got[i], _, _ = strings.Cut(got[i], "@")
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d\nlayers %q\ngot  %q\nwant %q", seed, layers, got, want)
		}
	}
	if compared < stacks/2 {
		t.Errorf("only %d of %d stacks could be extracted", compared, stacks)
	}
}

// extract applies layers to a directory and lists it as tree does. It reports
// false where extraction would fail.
func extract(t *testing.T, layers [][]string) ([]string, bool) {
	root := t.TempDir()
	inside := func(p string) string { return filepath.Join(root, p) }
	// follow resolves a directory's path inside the root.
	var follow func(p string, links int) (string, bool)
	follow = func(p string, links int) (string, bool) {
		at := "/"
		parts := strings.Split(p, "/")
		for i, part := range parts {
			at = filepath.Join(at, part)
			if target, err := os.Readlink(inside(at)); err == nil {
				if links == maxLinks {
					return "", false
				}
				if !strings.HasPrefix(target, "/") {
					// not filepath.Join: .. applies after links are followed
					target = filepath.Dir(at) + "/" + target
				}
				return follow(target+"/"+strings.Join(parts[i+1:], "/"), links+1)
			}
		}
		return at, true
	}
	for _, members := range layers {
		unpacked := map[string]bool{}
		touch := func(p string) {
			for ; p != "/"; p = filepath.Dir(p) {
				unpacked[p] = true
			}
		}
		// clear removes what this layer did not unpack.
		var clear func(p string)
		clear = func(p string) {
			if !unpacked[p] {
				os.RemoveAll(inside(p))
				return
			}
			if info, err := os.Lstat(inside(p)); err != nil || !info.IsDir() {
				return
			}
			entries, _ := os.ReadDir(inside(p))
			for _, e := range entries {
				clear(filepath.Join(p, e.Name()))
			}
		}
		for _, m := range members {
			name, link, isLink := strings.Cut(m, " -> ")
			name, hard, isHard := strings.Cut(name, " = ")
			name, _, _ = strings.Cut(name, ": ")
			dirName, base := filepath.Split(strings.TrimSuffix(name, "/"))
			dir, ok := follow(dirName, 0)
			if !ok {
				return nil, false
			}
			if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
				if hidden != ".wh..opq" {
					clear(filepath.Join(dir, hidden))
					continue
				}
				entries, _ := os.ReadDir(inside(dir))
				for _, e := range entries {
					clear(filepath.Join(dir, e.Name()))
				}
				continue
			}
			p := filepath.Join(dir, base)
			var target string
			if isHard {
				targetDir, targetBase := filepath.Split(hard)
				d, ok := follow(targetDir, 0)
				target = filepath.Join(d, targetBase)
				i, err := os.Lstat(inside(target))
				if !ok || err != nil || i.IsDir() {
					continue // left out
				}
				if strings.HasPrefix(target, p+"/") {
					return nil, false
				}
			}
			if os.MkdirAll(inside(dir), 0o755) != nil {
				return nil, false
			}
			info, err := os.Lstat(inside(p))
			exists := err == nil
			switch {
			case isHard && target != p:
				os.RemoveAll(inside(p))
				if os.Link(inside(target), inside(p)) != nil {
					return nil, false
				}
			case isHard:
			case isLink:
				os.RemoveAll(inside(p))
				os.Symlink(link, inside(p))
			case strings.HasSuffix(name, "/"):
				if exists && !info.IsDir() {
					os.RemoveAll(inside(p))
				}
				os.MkdirAll(inside(p), 0o755)
			default:
				os.RemoveAll(inside(p))
				os.WriteFile(inside(p), []byte("x"), 0o644)
			}
			touch(p)
		}
	}
	var list []string
	filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		p = strings.TrimPrefix(p, root)
		switch {
		case err != nil:
			t.Fatal(err)
		case p == "":
		case d.IsDir():
			list = append(list, p+"/")
		case d.Type() == fs.ModeSymlink:
			target, _ := os.Readlink(inside(p))
			list = append(list, p+" -> "+target)
		default:
			list = append(list, p)
		}
		return nil
	})
	slices.SortFunc(list, func(a, b string) int { return strings.Compare(bare(a), bare(b)) })
	return list, true
}

func bare(p string) string {
	p, _, _ = strings.Cut(p, " -> ")
	return strings.TrimSuffix(p, "/")
}

func FuzzRead(f *testing.F) {
	f.Add(archive(f, "a/", "a/b: x", "c -> a", "d = a/b", ".wh.e", "a/.wh..wh..opq", "f.pth: x", "+x g: #!/bin/sh\n"))
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(archive(f, "a.dist-info/METADATA: Name: a\n\n"))
	w.Close()
	f.Add(buf.Bytes())
	z, _ := zstd.NewWriter(nil)
	f.Add(z.EncodeAll(archive(f, "a"), nil))
	f.Add(archive(f, "+x a.pex: "+zipOf(f, "#!/usr/bin/python\n", "PEX-INFO", "__main__.py"), "b.zip: "+zipOf(f, "", "__main__.py")))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Read(context.Background(), bytes.NewReader(data))
		if err != nil {
			return
		}
		ix := Merge(l, l)
		for _, p := range ix.Find(func([]byte) bool { return true }) {
			if f, err := ix.Lstat(p); err != nil || f.Path != p {
				t.Errorf("Lstat(%q) = %q, %v", p, f.Path, err)
			}
			ix.ReadFile(p)
			ix.ReadDir(p)
		}
	})
}
