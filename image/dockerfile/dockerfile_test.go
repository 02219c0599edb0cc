package dockerfile

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// corpus are the Dockerfiles of testdata by their names there.
func corpus(t testing.TB) map[string][]byte {
	t.Helper()
	root := "../../testdata/dockerfiles"
	files := map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "Dockerfile") {
			return err
		}
		src, err := os.ReadFile(path)
		name, _ := filepath.Rel(root, path)
		files[name] = src
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 60 {
		t.Fatalf("only %d Dockerfiles in %s", len(files), root)
	}
	return files
}

// sample has every instruction that a block may have, and values that need
// quotes.
func sample(value string) Block {
	return Block{
		Copies:  []Copy{{"registry.example.com/otel@sha256:" + strings.Repeat("0", 64), "/opt/imgwrap"}},
		Run:     []string{"python3 -m pip install", "opentelemetry-distro", "&& true"},
		RunUser: "root", User: "app:app",
		Env: []Variable{
			{Name: "PLAIN", Value: value},
			{Name: "PYTHONPATH", Value: "/opt/imgwrap/init", Before: true},
			{Name: "DEFAULT", Value: value, Default: true},
		},
		Labels:     []Variable{{Name: "io.imgwrap.version", Value: value}, {Name: "io.imgwrap.release", Value: value}},
		Again:      true,
		Entrypoint: []string{"python3", "-S", value},
		Cmd:        []string{value, `["a"]`},
	}
}

// originals are the instructions of a Dockerfile outside of blocks, by BuildKit's
// parser alone.
func originals(t *testing.T, src []byte) (rest, own []*parser.Node) {
	t.Helper()
	result, err := parser.Parse(bytes.NewReader(src))
	if err != nil {
		t.Fatalf("%v:\n%s", err, src)
	}
	begin, end := 0, 0
	lines := bytes.Split(src, []byte("\n"))
	for n, line := range lines {
		if bytes.HasPrefix(line, []byte(beginLine)) {
			begin = n + 1
		}
		if begin > 0 && end == 0 && strings.TrimRight(string(line), "\r") == endMark {
			end = n + 1
		}
	}
	for _, n := range result.AST.Children {
		if n.StartLine > begin && n.StartLine < end {
			own = append(own, n)
		} else {
			rest = append(rest, n)
		}
	}
	return rest, own
}

// roundTrip writes blocks into a stage and takes them out again.
func roundTrip(t *testing.T, src []byte, target int, value string) {
	t.Helper()
	f, err := Parse(src)
	if err != nil || f.Blocks(nil) > 0 {
		return
	}
	s := f.Stages[target%len(f.Stages)]
	out, err := f.Write(s, sample(value))
	if err != nil {
		return
	}
	was, _ := originals(t, src)
	is, own := originals(t, out)
	if len(was) != len(is) {
		t.Fatalf("%d instructions became %d:\n%q", len(was), len(is), out)
	}
	for n := range was {
		if was[n].Original != is[n].Original || !slices.Equal(was[n].Heredocs, is[n].Heredocs) || !slices.Equal(was[n].Flags, is[n].Flags) {
			t.Fatalf("instruction %q became %q:\n%q", was[n].Original, is[n].Original, out)
		}
	}
	checkSample(t, own, f.escape, value)

	g, err := Parse(out)
	if err != nil {
		t.Fatalf("%v:\n%q", err, out)
	}
	if got := g.Undo(nil); !bytes.Equal(got, src) {
		t.Fatalf("undo gives\n%q, not\n%q; written was\n%q", got, src, out)
	}
	if got := g.Undo(g.Stages[s.Index]); !bytes.Equal(got, src) {
		t.Fatalf("undo of the stage gives\n%q, not\n%q", got, src)
	}
	again, err := g.Write(g.Stages[s.Index], sample(value))
	if err != nil || !bytes.Equal(again, out) {
		t.Fatalf("written again it is\n%q, not\n%q (%v)", again, out, err)
	}
	// Another block takes its place, and leaves nothing behind either.
	other, err := g.Write(g.Stages[s.Index], Block{Cmd: []string{"other"}})
	if err != nil {
		t.Fatal(err)
	}
	h, err := Parse(other)
	if err != nil {
		t.Fatal(err)
	}
	if got := h.Undo(nil); !bytes.Equal(got, src) {
		t.Fatalf("undo of the other block gives\n%q, not\n%q", got, src)
	}
}

// checkSample reads a sample block as BuildKit does.
func checkSample(t *testing.T, nodes []*parser.Node, escape rune, value string) {
	t.Helper()
	env := variables{}
	lex := shell.NewLex(escape)
	seen := 0
	for _, n := range nodes {
		parsed, err := parseInstruction(n)
		if err != nil {
			t.Fatalf("%s: %v", n.Original, err)
		}
		if e, ok := parsed.(instructions.SupportsSingleWordExpansion); ok {
			if err := e.Expand(func(word string) (string, error) {
				v, _, err := lex.ProcessWord(word, env)
				return v, err
			}); err != nil {
				t.Fatalf("%s: %v", n.Original, err)
			}
		}
		switch c := parsed.(type) {
		case *instructions.EnvCommand:
			for _, e := range c.Env {
				if want := map[string]string{"PLAIN": value, "DEFAULT": value, "PYTHONPATH": "/opt/imgwrap/init"}[e.Key]; e.Value != want {
					t.Fatalf("%s is read as %q, not %q", n.Original, e.Value, want)
				}
				seen++
			}
		case *instructions.LabelCommand:
			for _, l := range c.Labels {
				if l.Value != value {
					t.Fatalf("%s is read as %q, not %q", n.Original, l.Value, value)
				}
				seen++
			}
		case *instructions.EntrypointCommand:
			if !slices.Equal(c.CmdLine, []string{"python3", "-S", value}) || c.PrependShell {
				t.Fatalf("%s is read as %q", n.Original, c.CmdLine)
			}
			seen++
		case *instructions.CmdCommand:
			if !slices.Equal(c.CmdLine, []string{value, `["a"]`}) || c.PrependShell {
				t.Fatalf("%s is read as %q", n.Original, c.CmdLine)
			}
			seen++
		}
	}
	if seen != 7 || len(nodes) != 8 {
		t.Fatalf("%d of 7 values, %d of 8 instructions", seen, len(nodes))
	}
}

// values need quotes in one way or another.
var values = []string{
	"plain", "", "two words", `a "quote"`, "it's", "$HOME and ${HOME:-x}", `back\slash \\ \" \$`, "`tick` ``", "# no comment", "a}b{c", "<<EOF", "é ü  …", `end\`, "tab\tin", "a=b", ",;|&()*?[x]",
}

func TestCorpusComesBack(t *testing.T) {
	files := corpus(t)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		t.Run(strings.ReplaceAll(name, "/", "-"), func(t *testing.T) {
			f, err := Parse(files[name])
			if err != nil {
				t.Fatal(err)
			}
			for n := range f.Stages {
				if _, err := f.Write(f.Stages[n], sample("plain")); err != nil {
					t.Fatal(err)
				}
				for _, v := range values {
					roundTrip(t, files[name], n, v)
				}
			}
		})
	}
}

// FuzzWrite puts blocks into arbitrary Dockerfiles.
func FuzzWrite(f *testing.F) {
	for n, src := range slices.Collect(maps.Values(corpus(f))) {
		f.Add(src, n, values[n%len(values)])
	}
	for n, v := range values {
		f.Add([]byte("FROM a\nCMD b \\\n"), n, v)
		f.Add([]byte("# escape=`\r\nFROM a AS b\r\n\r\nFROM b\r\nRUN <<E\r\nE\r\nRUN x `"), n, v)
	}
	f.Fuzz(func(t *testing.T, src []byte, target int, value string) {
		if strings.ToValidUTF8(value, "") != value || strings.ContainsAny(value, "\r\n\x00\ufeff") || target < 0 {
			return
		}
		roundTrip(t, src, target, value)
	})
}
