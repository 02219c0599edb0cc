package wheel

import (
	"archive/zip"
	"bytes"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgwrap/imgwrap/layer/wheel/wheeltest"
)

const (
	demoFile = "demo-1.0-py3-none-any.whl"
	demoInfo = "demo-1.0.dist-info/"
)

// entry is short for the tables below.
func entry(name, content string) wheeltest.Entry {
	return wheeltest.Entry{Name: name, Content: content}
}

func edited(name, content string, edit func(*zip.FileHeader)) wheeltest.Entry {
	return wheeltest.Entry{Name: name, Content: content, Edit: edit}
}

func readAll(t *testing.T, f File) string {
	t.Helper()
	r, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestOpen(t *testing.T) {
	blob := wheeltest.Make("Demo_Pkg", "1.0+local",
		entry("demo/", ""),
		entry("demo/__init__.py", "print('demo')\n"),
		entry("demo/__pycache__/__init__.cpython-311.pyc", "bytecode"),
		entry("demo/old.pyc", "bytecode"),
		entry("Demo_Pkg-1.0+local.data/purelib/demo/pure.py", "pure = 1\n"),
		entry("Demo_Pkg-1.0+local.data/platlib/plat.py", "plat = 1\n"),
		entry("Demo_Pkg-1.0+local.data/scripts/demo", "#!python\n"),
		entry("Demo_Pkg-1.0+local.data/headers/demo.h", ""),
		entry("Demo_Pkg-1.0+local.data/data/share/man", ""),
		entry("Demo_Pkg-1.0+local.dist-info/licenses/LICENSE", "free\n"),
		entry("Demo_Pkg-1.0+local.dist-info/METADATA", wheeltest.Metadata("demo.pkg", "1.0+local",
			"Requires-Dist: a<2", "Requires-Dist: b ; extra == 'x'", "License: first", "        second")),
		entry("Demo_Pkg-1.0+local.dist-info/entry_points.txt",
			"# comment\n[console_scripts]\ndemo = demo:main\n\n[opentelemetry_instrumentor]\n; comment\nb=demo.b:B [x]\r\na = demo:A\n[console_scripts]\ntwo = demo:two"),
	)
	file := filepath.Join(t.TempDir(), "cached")
	if err := os.WriteFile(file, blob, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := Open(file, "Demo_Pkg-1.0+local-2build-py2.py3-none-any.whl")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if w.Name != "Demo_Pkg" || w.Version != "1.0+local" || w.DistInfo != "Demo_Pkg-1.0+local.dist-info" {
		t.Errorf("Name %q, Version %q, DistInfo %q", w.Name, w.Version, w.DistInfo)
	}

	var paths []string
	for _, f := range w.Files {
		paths = append(paths, f.Path)
		content := readAll(t, f)
		if f.Size != int64(len(content)) || f.SHA256 != wheeltest.SHA256([]byte(content)) {
			t.Errorf("%s: Size %d, SHA256 %s are not those of %q", f.Path, f.Size, f.SHA256, content)
		}
	}
	info := w.DistInfo + "/"
	want := []string{
		info + "METADATA", info + "RECORD", info + "WHEEL", info + "entry_points.txt", info + "licenses/LICENSE",
		"demo/__init__.py", "demo/pure.py", "plat.py",
	}
	if !slices.Equal(paths, want) {
		t.Errorf("files %q\nwant  %q", paths, want)
	}

	metadata, err := w.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	if got := metadata["Requires-Dist"]; !slices.Equal(got, []string{"a<2", "b ; extra == 'x'"}) {
		t.Errorf("Requires-Dist %q", got)
	}
	points, err := w.EntryPoints()
	if err != nil {
		t.Fatal(err)
	}
	for group, want := range map[string]map[string]string{
		"console_scripts":            {"demo": "demo:main", "two": "demo:two"},
		"opentelemetry_instrumentor": {"a": "demo:A", "b": "demo.b:B [x]"},
	} {
		if !maps.Equal(points[group], want) {
			t.Errorf("entry points of %s: %v, want %v", group, points[group], want)
		}
	}
}

func TestEntryPoints(t *testing.T) {
	for content, want := range map[string]string{
		"a = b:c":       `unexpected line "a = b:c"`,
		"[group]\nname": `unexpected line "name"`,
	} {
		blob := wheeltest.Make("demo", "1.0", entry(demoInfo+"entry_points.txt", content))
		w, err := Read(bytes.NewReader(blob), int64(len(blob)), demoFile)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.EntryPoints(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	blob := wheeltest.Make("demo", "1.0")
	w, err := Read(bytes.NewReader(blob), int64(len(blob)), demoFile)
	if err != nil {
		t.Fatal(err)
	}
	if points, err := w.EntryPoints(); len(points) != 0 || err != nil {
		t.Errorf("EntryPoints = %v, %v; want none", points, err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestReadRefuses(t *testing.T) {
	demo := func(entries ...wheeltest.Entry) []byte { return wheeltest.Make("demo", "1.0", entries...) }
	record := func(lines string) wheeltest.Entry { return entry(demoInfo+"RECORD", lines) }
	basics := []wheeltest.Entry{
		entry(demoInfo+"METADATA", wheeltest.Metadata("demo", "1.0")),
		entry(demoInfo+"WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"),
	}
	withRecord := func(lines string, entries ...wheeltest.Entry) []byte {
		return demo(slices.Concat(basics, entries, []wheeltest.Entry{record(wheeltest.Record(basics) + lines)})...)
	}
	mode := func(m fs.FileMode) func(*zip.FileHeader) {
		return func(h *zip.FileHeader) { h.SetMode(m) }
	}
	many := make([]wheeltest.Entry, maxEntries+1)
	for i := range many {
		many[i] = entry("x"+strings.Repeat("/x", i%7), "")
	}
	large := strings.Repeat("0123456789abcdef", maxFile/16)
	store := func(h *zip.FileHeader) { h.Method = zip.Store }
	good := demo(edited("demo.py", "print()\n", store))
	line := wheeltest.Record([]wheeltest.Entry{entry("demo.py", "print()\n")})
	sizeless := withRecord(strings.TrimSuffix(line, "8\n")+"\n", entry("demo.py", "print()\n"))

	for name, tt := range map[string]struct {
		blob []byte
		want string
	}{
		"parent":             {demo(entry("../evil.py", "")), `entry "../evil.py": unsafe path`},
		"parent inside":      {demo(entry("demo/../../evil.py", "")), `entry "demo/../../evil.py": unsafe path`},
		"parent directory":   {demo(entry("../evil/", "")), `entry "../evil/": unsafe path`},
		"absolute":           {demo(entry("/etc/evil", "")), `entry "/etc/evil": unsafe path`},
		"backslash":          {demo(entry(`..\evil.py`, "")), `entry "..\\evil.py": unsafe path`},
		"drive":              {demo(entry("C:evil.py", "")), `entry "C:evil.py": unsafe path`},
		"double slash":       {demo(entry("demo//evil.py", "")), `entry "demo//evil.py": unsafe path`},
		"dot":                {demo(entry("./evil.py", "")), `entry "./evil.py": unsafe path`},
		"only slash":         {demo(entry("/", "")), `entry "/": unsafe path`},
		"empty name":         {demo(entry("", "")), `entry "": unsafe path`},
		"NUL":                {demo(entry("evil\x00.py", "")), `entry "evil\x00.py": unsafe path`},
		"line break":         {demo(entry("evil\n.py", "")), `entry "evil\n.py": unsafe path`},
		"not UTF-8":          {demo(entry("evil\xff.py", "")), `entry "evil\xff.py": unsafe path`},
		"other encoding":     {demo(edited("évil.py", "", func(h *zip.FileHeader) { h.NonUTF8 = true })), `entry "évil.py": name in an unknown encoding`},
		"long name":          {demo(entry(strings.Repeat("x", 256), "")), "name too long"},
		"whiteout":           {demo(entry("demo/.wh.__init__.py", "")), `entry "demo/.wh.__init__.py": reserved name`},
		"symlink":            {demo(edited("evil", "/etc/passwd", mode(fs.ModeSymlink|0o777))), `entry "evil": not a regular file`},
		"device":             {demo(edited("evil", "", mode(fs.ModeDevice|0o777))), `entry "evil": not a regular file`},
		"named pipe":         {demo(edited("evil", "", mode(fs.ModeNamedPipe|0o777))), `entry "evil": not a regular file`},
		"nameless directory": {demo(edited("evil", "", mode(fs.ModeDir|0o777))), `entry "evil": not a regular file`},
		"encrypted":          {demo(edited("evil.py", "", func(h *zip.FileHeader) { h.Flags |= 1 })), `entry "evil.py": encrypted`},
		"duplicate":          {demo(entry("evil.py", "a"), entry("evil.py", "b")), `"evil.py"`},
		"duplicate unlisted": {withRecord(wheeltest.Record([]wheeltest.Entry{entry("evil.py", "a")}), entry("evil.py", "b"), entry("evil.py", "a")), `entry "evil.py": duplicate name`},
		"duplicate mapped":   {demo(entry("evil.py", "a"), entry("demo-1.0.data/purelib/evil.py", "b")), `entry "evil.py": conflicts with "evil.py"`},
		"case":               {demo(entry("demo/evil.py", "a"), entry("demo/EVIL.py", "a")), `conflicts with "demo/`},
		"case of directory":  {demo(entry("demo/a.py", "a"), entry("Demo/b.py", "a")), `conflicts with "`},
		"case of dist-info":  {demo(entry("DEMO-1.0.dist-info/METADATA", "x")), `entry "DEMO-1.0.dist-info/METADATA": not in demo-1.0.dist-info`},
		"file as directory":  {demo(entry("evil", "a"), entry("evil/evil.py", "a")), `entry "evil": conflicts with "evil"`},

		"many entries":  {wheeltest.Zip(many...), "10001 entries, more than 10000"},
		"large file":    {demo(edited("big", large+"x", store)), `entry "big": more than 32 MiB`},
		"large total":   {demo(edited("a", large, store), edited("b", large, store), edited("c", large, store), edited("d", large, store)), "more than 128 MiB when unpacked"},
		"bomb":          {demo(entry("bomb", strings.Repeat("\x00", 8<<20))), `entry "bomb": compressed more than 200 times`},
		"smaller claim": {claim(sizeless, 7), `entry "demo.py": zip: not a valid zip file`},
		"larger claim":  {claim(sizeless, 9), `entry "demo.py": unexpected EOF`},

		"second dist-info":    {demo(entry("other-2.0.dist-info/METADATA", "")), `entry "other-2.0.dist-info/METADATA": not in demo-1.0.dist-info`},
		"egg-info":            {demo(entry("other.egg-info/PKG-INFO", "")), `entry "other.egg-info/PKG-INFO": not in demo-1.0.dist-info`},
		"hidden dist-info":    {demo(entry("demo-1.0.data/purelib/other-2.0.dist-info/METADATA", "")), `not in demo-1.0.dist-info`},
		"other data":          {demo(entry("other-1.0.data/purelib/a.py", "")), `entry "other-1.0.data/purelib/a.py": unexpected data directory`},
		"file in data":        {demo(entry("demo-1.0.data/a.py", "")), `entry "demo-1.0.data/a.py": unexpected data directory`},
		"unknown scheme":      {demo(entry("demo-1.0.data/stdlib/a.py", "")), `entry "demo-1.0.data/stdlib/a.py": unknown installation scheme "stdlib"`},
		"no dist-info":        {wheeltest.Zip(entry("demo.py", "")), "no demo-1.0.dist-info/RECORD"},
		"other name":          {wheeltest.Make("other", "1.0"), "no demo-1.0.dist-info/RECORD"},
		"other metadata name": {demo(entry(demoInfo+"METADATA", wheeltest.Metadata("other", "1.0"))), `METADATA has the name "other"`},
		"other version":       {demo(entry(demoInfo+"METADATA", wheeltest.Metadata("demo", "2.0"))), `METADATA has the version "2.0"`},
		"broken METADATA":     {demo(entry(demoInfo+"METADATA", "no header")), "reading METADATA: malformed MIME header"},
		"no METADATA":         {wheeltest.Zip(basics[1], record(wheeltest.Record(basics[1:]))), "METADATA: file does not exist"},
		"no WHEEL":            {wheeltest.Zip(basics[0], record(wheeltest.Record(basics[:1]))), "WHEEL: file does not exist"},
		"wheel version":       {demo(entry(demoInfo+"WHEEL", "Wheel-Version: 2.0\nRoot-Is-Purelib: true\n")), `unsupported wheel version "2.0"`},
		"not purelib":         {demo(entry(demoInfo+"WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n")), "not a pure Python wheel (Root-Is-Purelib: false)"},
		"platform tag":        {demo(entry(demoInfo+"WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\nTag: cp311-abi3-linux_x86_64\n")), "not a pure Python wheel (Tag: cp311-abi3-linux_x86_64)"},

		"not listed":         {withRecord("", entry("evil.py", "")), `entry "evil.py": not listed in RECORD`},
		"listed but missing": {withRecord("gone.py,sha256=x,1\n"), `entry "gone.py": listed in RECORD but missing`},
		"no hash":            {withRecord("evil.py,,0\n", entry("evil.py", "")), `entry "evil.py": no hash in RECORD`},
		"weak hash":          {withRecord("evil.py,md5=1B2M2Y8AsgTpgAmY7PhCfg,0\n", entry("evil.py", "")), `entry "evil.py": unsupported hash "md5" in RECORD`},
		"wrong hash":         {withRecord(strings.Replace(wheeltest.Record([]wheeltest.Entry{entry("evil.py", "good")}), "sha256=", "sha256=A", 1), entry("evil.py", "good")), `entry "evil.py": content differs from its hash in RECORD`},
		"other content":      {withRecord(wheeltest.Record([]wheeltest.Entry{entry("evil.py", "good")}), entry("evil.py", "evil")), `entry "evil.py": content differs from its hash in RECORD`},
		"wrong sha512":       {withRecord("evil.py,sha512=xxxx,\n", entry("evil.py", "evil")), `entry "evil.py": content differs from its hash in RECORD`},
		"wrong size":         {withRecord(wheeltest.Record([]wheeltest.Entry{entry("evil.py", "good")}), entry("evil.py", "evil!")), `entry "evil.py": has 5 bytes, but RECORD says 4`},
		"listed twice":       {withRecord("a,,\na,,\n"), `"a" is listed twice`},
		"broken RECORD":      {withRecord("a,b\n"), "wrong number of fields"},

		"empty":       {nil, "zip: not a valid zip file"},
		"no zip":      {[]byte("<html>not found</html>"), "zip: not a valid zip file"},
		"truncated":   {good[:len(good)-30], "zip: not a valid zip file"},
		"broken data": {bytes.Replace(good, []byte("print"), []byte("Print"), 1), `entry "demo.py": zip: checksum error`},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := Read(bytes.NewReader(tt.blob), int64(len(tt.blob)), demoFile)
			if err == nil {
				t.Fatalf("accepted: %v", w.Files)
			}
			if got := err.Error(); !strings.HasPrefix(got, "reading wheel "+demoFile+": ") || !strings.Contains(got, tt.want) {
				t.Errorf("error %q, want %q", got, tt.want)
			}
		})
	}
}

// claim changes the size of demo.py in the central directory, and leaves the
// content as it is.
func claim(blob []byte, size byte) []byte {
	blob = bytes.Clone(blob)
	name := bytes.LastIndex(blob, []byte("demo.py"))
	blob[name-46+24] = size
	return blob
}

func TestReadFileName(t *testing.T) {
	blob := wheeltest.Make("demo", "1.0")
	for name, want := range map[string]string{
		"demo-1.0.tar.gz":                          "not the file name of a wheel",
		"demo-1.0-py3-none.whl":                    "not the file name of a wheel",
		"demo--py3-none-any.whl":                   "not the file name of a wheel",
		"../demo-1.0-py3-none-any.whl":             "not the file name of a wheel",
		"a/demo-1.0-py3-none-any.whl":              "not the file name of a wheel",
		"demo-1.0-cp311-cp311-manylinux2014_x.whl": "not a pure Python wheel (none-any)",
		"demo-1.0-cp37-abi3-any.whl":               "not a pure Python wheel (none-any)",
		"demo-2.0-py3-none-any.whl":                "no demo-2.0.dist-info/RECORD",
		"demo-1.0-1-py3-none-any.whl":              "",
		"demo-1.0-extra-1-part-py3-none-any.whl":   "not the file name of a wheel",
		"demo-1.0-py2.py3-none-any.whl":            "",
		"demo-1.0-py3-none-any.whl\x00":            "not the file name of a wheel",
	} {
		_, err := Read(bytes.NewReader(blob), int64(len(blob)), name)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none"), demoFile); err == nil || !strings.Contains(err.Error(), demoFile) {
		t.Errorf("error %v, want one that names %s", err, demoFile)
	}
}

func TestOpenNative(t *testing.T) {
	const name = "demo-1.0-cp38-abi3-manylinux2014_x86_64.whl"
	blob := wheeltest.Make("demo", "1.0", entry("demo/native.abi3.so", "\x7fELF"),
		entry(demoInfo+"WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp38-abi3-manylinux2014_x86_64\n"))
	file := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(file, blob, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := OpenNative(file, name)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	checkFiles(t, w)
	if i := slices.IndexFunc(w.Files, func(f File) bool { return f.Path == "demo/native.abi3.so" }); i < 0 || readAll(t, w.Files[i]) != "\x7fELF" {
		t.Errorf("files %v", w.Files)
	}
	if _, err := Open(file, name); err == nil || !strings.Contains(err.Error(), "not a pure Python wheel") {
		t.Errorf("error %v, want Open to refuse it", err)
	}
	// What is refused otherwise is refused here too.
	if _, err := OpenNative(file, "demo-2.0-cp38-abi3-manylinux2014_x86_64.whl"); err == nil || !strings.Contains(err.Error(), "no demo-2.0.dist-info/RECORD") {
		t.Errorf("error %v, want one of the record", err)
	}
}

// checkFiles checks what holds for every wheel that is accepted.
func checkFiles(t *testing.T, w *Wheel) {
	t.Helper()
	var last string
	for _, file := range w.Files {
		if !fs.ValidPath(file.Path) || !filepath.IsLocal(file.Path) || file.Path <= last {
			t.Errorf("path %q after %q", file.Path, last)
		}
		last = file.Path
		if content := readAll(t, file); int64(len(content)) != file.Size || wheeltest.SHA256([]byte(content)) != file.SHA256 {
			t.Errorf("%s: content is not what was verified", file.Path)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(wheeltest.Make("demo", "1.0", entry("demo.py", "print()\n"), entry("demo-1.0.data/purelib/a.py", "")))
	f.Add(wheeltest.Make("demo", "1.0", entry("../evil.py", ""), entry(demoInfo+"entry_points.txt", "[a]\nb = c:d\n")))
	f.Add(wheeltest.Zip(edited("evil", "/etc", func(h *zip.FileHeader) { h.SetMode(fs.ModeSymlink) })))
	f.Add(claim(wheeltest.Make("demo", "1.0", entry("demo.py", "print()\n")), 200))
	f.Fuzz(func(t *testing.T, blob []byte) {
		if w, err := Read(bytes.NewReader(blob), int64(len(blob)), demoFile); err == nil {
			checkFiles(t, w)
		}
	})
}

// The archive is sound here, and only what is in it isn't: random bytes seldom
// get that far.
func FuzzReadEntry(f *testing.F) {
	f.Add("demo.py", "print()\n", uint32(0o100644))
	f.Add("../demo.py", "", uint32(0))
	f.Add("demo-1.0.data/purelib/../a.py", "", uint32(0o100644))
	f.Add(demoInfo+"METADATA", "Name: demo\nVersion: 1.0\n", uint32(0o100644))
	f.Add(demoInfo+"WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any", uint32(0o100644))
	f.Add(demoInfo+"RECORD", "demo-1.0.dist-info/RECORD,,\n", uint32(0o100644))
	f.Add(demoInfo+"entry_points.txt", "[a]\nb = c:d\n", uint32(0o100644))
	f.Fuzz(func(t *testing.T, name, content string, mode uint32) {
		if strings.HasSuffix(name, "/") {
			content = "" // all that the writer accepts
		}
		blob := wheeltest.Make("demo", "1.0", edited(name, content, func(h *zip.FileHeader) {
			h.CreatorVersion, h.ExternalAttrs = 3<<8, mode<<16
		}))
		w, err := Read(bytes.NewReader(blob), int64(len(blob)), demoFile)
		if err != nil {
			return
		}
		checkFiles(t, w)
		points, err := w.EntryPoints()
		if err != nil && points != nil {
			t.Errorf("EntryPoints = %v and %v", points, err)
		}
	})
}
