package requirements

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

var webPackages = []Package{
	{Name: "opentelemetry-distro", Version: "0.66b1"},
	{Name: "opentelemetry-instrumentation-flask", Version: "0.66b1"},
}

const webLines = "# imgwrap:begin (written by imgwrap requirements; --undo removes it)\n" +
	"opentelemetry-distro==0.66b1\nopentelemetry-instrumentation-flask==0.66b1\n# imgwrap:end"

func TestTextEditing(t *testing.T) {
	for _, tt := range []struct{ name, src, want string }{
		{"a few lines", "flask\nredis>=4  # cache\n", "flask\nredis>=4  # cache\n" + webLines + "\n"},
		{"no line end at the end", "flask\nredis", "flask\nredis\n" + webLines},
		{"CRLF", "flask\r\nredis\r\n", "flask\r\nredis\r\n" + strings.ReplaceAll(webLines, "\n", "\r\n") + "\r\n"},
		{"CRLF, none at the end", "flask\r\nredis", "flask\r\nredis\r\n" + strings.ReplaceAll(webLines, "\n", "\r\n")},
		{"empty", "", webLines + "\n"},
		{"only an empty line", "\n", "\n" + webLines + "\n"},
		{"a byte order mark", "\ufeffflask\n", "\ufeffflask\n" + webLines + "\n"},
		{"a lone carriage return at the end", "flask\r", "flask\r\n" + webLines},
		{"a line that goes on at the end", "flask \\\n", "flask \\\n" + webLines + "\n"},
		{"a comment at the end", "flask\n\n# the end", "flask\n\n# the end\n" + webLines},
	} {
		t.Run(tt.name, func(t *testing.T) { checkEdits(t, text{}, tt.src, tt.want) })
	}
}

// checkEdits checks what comes of adding two packages, and that adding them again
// changes nothing and taking them away gives the source.
func checkEdits(t *testing.T, ed editor, src, want string) {
	t.Helper()
	got, err := ed.add([]byte(src), webPackages)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
	if again, err := ed.add(got, webPackages); err != nil || string(again) != string(got) {
		t.Errorf("again: %v, got\n%q", err, again)
	}
	if back, err := ed.remove(got); err != nil || string(back) != src {
		t.Errorf("removed: %v, got\n%q, want\n%q", err, back, src)
	}
	if back, err := ed.add(got, nil); err != nil || string(back) != src {
		t.Errorf("added nothing: %v, got\n%q, want\n%q", err, back, src)
	}
}

func TestUTF16(t *testing.T) {
	for _, order := range []string{"\xff\xfe%s\x00", "\xfe\xff\x00%s"} {
		encode := func(text string) string {
			mark, letter := order[:2], order[2:]
			for _, c := range text {
				mark += strings.Replace(letter, "%s", string(c), 1)
			}
			return mark
		}
		checkEdits(t, text{}, encode("flask==3.0.3\r\n"), encode("flask==3.0.3\r\n"+strings.ReplaceAll(webLines, "\n", "\r\n")+"\r\n"))
		f, err := parseText([]byte(encode("flask==3.0.3\r\nredis\r\n")))
		if err != nil || len(f.requirements) != 2 || f.requirements[0].Name != "flask" {
			t.Errorf("%v: %+v", err, f)
		}
		if !marked([]byte(encode(webLines))) {
			t.Error("the mark was not seen")
		}
	}
	if _, err := (text{}).remove([]byte("\xff\xfeflask")); err == nil {
		t.Error("half a letter was accepted")
	}
}

// TestTextBlockStays is about a block that somebody has written behind.
func TestTextBlockStays(t *testing.T) {
	src := "flask\n# imgwrap:begin\nopentelemetry-distro==0.1\n# imgwrap:end\nredis\n"
	got, err := text{}.add([]byte(src), webPackages)
	if want := "flask\n" + webLines + "\nredis\n"; err != nil || string(got) != want {
		t.Errorf("%v, got\n%s, want\n%s", err, got, want)
	}
}

func TestTextHashes(t *testing.T) {
	got, err := text{}.add([]byte("a==1 --hash=sha256:00\r\n"), []Package{{Name: "b", Version: "2", Hashes: []string{"sha256:01", "sha256:02"}}})
	want := "a==1 --hash=sha256:00\r\n# imgwrap:begin" + written + "\r\nb==2 \\\r\n    --hash=sha256:01 \\\r\n    --hash=sha256:02\r\n# imgwrap:end\r\n"
	if err != nil || string(got) != want {
		t.Errorf("%v, got\n%q, want\n%q", err, got, want)
	}
	f, err := parseText(got)
	if err != nil || len(f.requirements) != 2 || !f.hashes {
		t.Errorf("%v, %+v", err, f)
	}
}

func TestMarksOutOfPlace(t *testing.T) {
	for _, tt := range []struct {
		src  string
		line int
	}{
		{"flask\n# imgwrap:begin\nredis\n", 2},
		{"flask\n\n# imgwrap:end\n", 3},
		{"# imgwrap:begin\n# imgwrap:begin\n# imgwrap:end\n", 2},
		{"# imgwrap:begin\n# imgwrap:end\n# imgwrap:end\n", 3},
	} {
		for _, ed := range []editor{text{}, conda{}} {
			var problem *SyntaxError
			if _, err := ed.add([]byte(tt.src), webPackages); !errors.As(err, &problem) || problem.Line != tt.line {
				t.Errorf("adding to %q: %v, want line %d", tt.src, err, tt.line)
			}
			if _, err := ed.remove([]byte(tt.src)); !errors.As(err, &problem) || problem.Line != tt.line {
				t.Errorf("removing from %q: %v, want line %d", tt.src, err, tt.line)
			}
		}
	}
}

func TestParseText(t *testing.T) {
	src := `
# Comments, and lines that go on.
Flask[async] == 3.0.3  # why
requests \
    >=2 , \
    <3 ; python_version \
    >= "3.8"
pinned==1.0 \
    --hash=sha256:00 \
    --hash=sha256:01
    # via flask
--index-url https://index.example/simple
-i https://index.example/simple
--find-links=./wheels
-r base.txt
--requirement=more.txt
-rclose.txt
-c constraints.txt
-e git+https://git.example/shop/lib.git@v1#egg=Our_Lib
./local
../other/thing.tar.gz
https://files.example/thing-1.2.3-py3-none-any.whl
git+ssh://git@git.example/a/b.git
named @ https://files.example/named.zip ; sys_platform == "win32"
wheels/foo_bar-2.0-cp311-cp311-linux_x86_64.whl
`
	f, err := parseText([]byte(strings.ReplaceAll(src, "\n", "\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range f.requirements {
		got = append(got, r.Name+r.Specifiers.String()+";"+r.Marker.String())
	}
	want := []string{
		"Flask==3.0.3;", `requests>=2,<3;python_version     >= "3.8"`, "pinned==1.0;", "Our_Lib;", "thing==1.2.3;",
		`named;sys_platform == "win32"`, "foo_bar==2.0;",
	}
	if !slices.Equal(got, want) {
		t.Errorf("requirements\n%q, want\n%q", got, want)
	}
	var files []string
	for _, i := range f.included {
		files = append(files, i.path)
	}
	if want := []string{"base.txt", "more.txt", "close.txt", "constraints.txt"}; !slices.Equal(files, want) || !f.included[3].constraint || f.included[2].constraint {
		t.Errorf("included %+v, want %v", f.included, want)
	}
	if !f.hashes {
		t.Error("hashes were not seen")
	}
}

func TestParseTextProblems(t *testing.T) {
	for _, tt := range []struct {
		src, problem string
		line         int
	}{
		{"flask\nrequests=2\n", `"requests=2"`, 2},
		{"opentelemetry-distro==0.38b0 opentelemetry-exporter-otlp-proto-http==1.17.0\n", "opentelemetry-distro==0.38b0 opentelemetry", 1},
		{"a\nb \\\n  >= \\\n  1.x\n", "1.x", 2},
		{"-r\n", "names no file", 1},
		{"<<<<<<< HEAD\nflask\n", "<<<<<<<", 1},
	} {
		_, err := parseText([]byte(tt.src))
		var problem *SyntaxError
		if !errors.As(err, &problem) || problem.Line != tt.line || !strings.Contains(problem.Problem, tt.problem) {
			t.Errorf("%q: %v, want line %d: %s", tt.src, err, tt.line, tt.problem)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, seed := range []string{
		"", "\n", "flask", "flask\n", "flask\r\nredis", "a\r", "a \\", "a \\\n", "a==1 --hash=sha256:00\n# end",
		"a\n" + webLines, "a\n" + webLines + "\nb\n", "# imgwrap:begin\r\n# imgwrap:end", "\ufeff\x0c\x85a\u2028", "# imgwrap:begin\n# imgwrap:end \r", "\xff\xfea\x00\n\x00", "\xfe\xff\x00a\xd8\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) { fuzzEditor(t, text{}, src) })
}

// fuzzEditor checks what has to hold of every editor, whatever it is given.
func fuzzEditor(t *testing.T, ed editor, src []byte) {
	clean, err := ed.remove(src)
	if err != nil {
		return
	}
	added, err := ed.add(src, webPackages)
	if err != nil {
		return
	}
	if again, err := ed.add(added, webPackages); err != nil || string(again) != string(added) {
		t.Errorf("adding again: %v\n%q, was\n%q", err, again, added)
	}
	if back, err := ed.remove(added); err != nil || string(back) != string(clean) {
		t.Errorf("removing: %v\n%q, was\n%q", err, back, clean)
	}
	if !marked(src) && string(clean) != string(src) {
		t.Errorf("removing nothing gave %q", clean)
	}
}
