package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/wheel/wheeltest"
)

// constants is a module with all that a code object may hold.
const constants = `"""A module: naïve ☃."""
import sys as _sys

NUMBERS = (0, 1, -1, 2**31, 2**70, -2**70, 0.0, -0.0, 1e300, 1e300 * 1e300, 2j, -2.5j, True, False, None, ...)
TEXTS = ("", "a", "a name", "a_name", "é", "☃", "\x7f", "\ud800", "x" * 200, "x1" * 200, "x y" * 200)
BYTES = (b"", b"a", b"\x00\xff", b"x" * 300)
MANY = (%s)

def function(first, second="two", *rest, third=3, **others):
    """A docstring."""
    def inner():
        return first, second
    if first in {"alpha", "beta", "gamma", "delta", "epsilon", 1, (2, "b"), b"c", None}:
        return [lambda: first, lambda: first]
    return rest[1:2], rest[::-1], (1, ("nested", (b"tuple", 1.5))), inner

class Class:
    attribute: int = 0
    def __init__(self):
        super().__init__()
        self.attribute = 1
        self.other = 2

async def coroutine():
    async with function() as it:
        yield [i async for i in it]
`

// bytecodeRelease is a release for every Python, whose bundle has modules of all
// sorts.
func bytecodeRelease(t *testing.T) (*Builder, *catalog.Release) {
	t.Helper()
	many := ""
	for i := range 300 {
		many += fmt.Sprintf("%q, ", fmt.Sprint("item", i%290))
	}
	const file = "demo-1.0-py3-none-any.whl"
	index := map[string][]byte{file: wheeltest.Make("demo", "1.0",
		wheeltest.Entry{Name: "demo/__init__.py"},
		wheeltest.Entry{Name: "demo/constants.py", Content: fmt.Sprintf(constants, many)},
		wheeltest.Entry{Name: "demo/latin.py", Content: "# coding: latin-1\nTEXT = '\xe9'\n"},
		wheeltest.Entry{Name: "demo/old.py", Content: "print 'for Python 2'\n"},
		wheeltest.Entry{Name: "demo/data.txt", Content: "not = 'a module'\n"},
		wheeltest.Entry{Name: "top.py", Content: "VALUE = 'in the bundle'\n"},
	)}
	r := release(index)
	r.Python = catalog.Python{Min: "3.0", Max: "3.14"}
	r.Instrumentations = nil
	b := builder(t, index)
	l, err := b.Build(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	record(r, l)
	return b, r
}

// checkBytecode is run by the interpreter with a directory that has what the
// image has. It compares bytecode files with what it compiles itself.
const checkBytecode = `
import importlib.util, marshal, os, struct, sys
root = sys.argv[1]
found = 0
for folder, _, names in os.walk(root):
    for name in names:
        if not name.endswith(".pyc"):
            continue
        path = os.path.join(folder, name)
        source = importlib.util.source_from_cache(path)
        with open(path, "rb") as file:
            magic, flags, hash = struct.unpack("<4sI8s", file.read(16))
            data = file.read()
        with open(source, "rb") as file:
            text = file.read()
        place = source[len(root):]
        code = compile(text, place, "exec", dont_inherit=True, optimize=0)
        loaded = marshal.loads(data)
        assert magic == importlib.util.MAGIC_NUMBER, magic
        assert flags == (3 if "/init/" in path else 1), (path, flags)
        assert hash == importlib.util.source_hash(text), path
        def same(a, b):
            assert type(a) is type(b) and a == b, path
            if hasattr(a, "co_code"):
                for attribute in dir(a):
                    if attribute.startswith("co_") and not callable(getattr(a, attribute)):
                        same(getattr(a, attribute), getattr(b, attribute))
            elif isinstance(a, tuple):
                for x, y in zip(a, b):
                    same(x, y)
            elif not isinstance(a, frozenset):
                assert repr(a) == repr(b), path
        same(loaded, code)
        assert loaded.co_filename == place, loaded.co_filename
        found += 1
print(found)
`

// pythons3 are the interpreters that can have bytecode layers: the newest and
// the oldest, or all (see TestPython).
func pythons3(t *testing.T) []python {
	t.Helper()
	found := slices.DeleteFunc(pythons(t), func(p python) bool { return p.hex < "0307" || p.hex >= "030f" })
	if len(found) == 0 {
		t.Fatal("no Python from 3.7 to 3.14 found: neither on PATH nor in pyenv's directory")
	}
	if os.Getenv("IMGWRAP_TEST_PYTHONS") != "all" && len(found) > 2 {
		found = []python{found[0], found[len(found)-1]}
	}
	return found
}

func minorOf(p python) string {
	parts := strings.Split(p.version, ".")
	return parts[0] + "." + parts[1]
}

func TestBytecode(t *testing.T) {
	b, r := bytecodeRelease(t)
	for _, p := range pythons3(t) {
		t.Run(p.version, func(t *testing.T) {
			minor := minorOf(p)
			got, l, err := b.BuildBytecode(t.Context(), r, p.path)
			if err != nil {
				t.Fatal(err)
			}
			if got != minor {
				t.Errorf("Python %s, want %s", got, minor)
			}
			tag := ".cpython-" + strings.ReplaceAll(minor, ".", "") + ".pyc"
			wantLines(t, contents(t, l), []string{
				"755 0:0 opt/imgwrap/",
				"755 0:0 opt/imgwrap/init/",
				"755 0:0 opt/imgwrap/init/__pycache__/",
				"644 0:0 opt/imgwrap/init/__pycache__/sitecustomize" + tag,
				"755 0:0 opt/imgwrap/otel-1.2.0/",
				"755 0:0 opt/imgwrap/otel-1.2.0/__pycache__/",
				"644 0:0 opt/imgwrap/otel-1.2.0/__pycache__/top" + tag,
				"755 0:0 opt/imgwrap/otel-1.2.0/demo/",
				"755 0:0 opt/imgwrap/otel-1.2.0/demo/__pycache__/",
				"644 0:0 opt/imgwrap/otel-1.2.0/demo/__pycache__/__init__" + tag,
				"644 0:0 opt/imgwrap/otel-1.2.0/demo/__pycache__/constants" + tag,
				"644 0:0 opt/imgwrap/otel-1.2.0/demo/__pycache__/latin" + tag,
			})

			root := t.TempDir()
			bundle, err := b.Bundle(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			unpack(t, bundle, root)
			unpack(t, l, root)
			write(t, filepath.Join(root, InitDir, "sitecustomize.py"), string(loader))
			if out := pythonOutput(t, p, checkBytecode, root); out != "5\n" {
				t.Errorf("checked %q files, want 5", out)
			}

			// Another process, whose hashes of strings differ.
			if _, again, err := b.BuildBytecode(t.Context(), r, p.path); err != nil || again.Info() != l.Info() {
				t.Errorf("a second time: %v, %v; want %v", again.Info(), err, l.Info())
			}

			// Bytecode of the bundle is taken as it is, that of the loader only if
			// the loader is the same.
			write(t, filepath.Join(root, Dir(r), "top.py"), "VALUE = 'changed'\n")
			write(t, filepath.Join(root, InitDir, "sitecustomize.py"), "VALUE = 'changed'\n")
			const show = "import sys; sys.path[:0] = sys.argv[1:]; import top, sitecustomize; print(top.VALUE, sitecustomize.VALUE)"
			if out := pythonOutput(t, p, show, filepath.Join(root, Dir(r)), filepath.Join(root, InitDir)); out != "in the bundle changed\n" {
				t.Errorf("%q", out)
			}
		})
	}
}

func pythonOutput(t *testing.T, p python, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.path, append([]string{"-E", "-S", "-B", "-c", program}, args...)...)
	stderr := &strings.Builder{}
	cmd.Stderr = stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", p.path, err, stderr)
	}
	return string(out)
}

// unpack writes a layer's files below a directory.
func unpack(t *testing.T, l *layer.Layer, root string) {
	t.Helper()
	for _, line := range contents(t, l) {
		name := line[strings.LastIndex(line, " ")+1:]
		if !strings.HasSuffix(name, "/") {
			write(t, filepath.Join(root, name), read(t, l, name))
		}
	}
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestBytecodeCache(t *testing.T) {
	b, r := bytecodeRelease(t)
	minor, built, err := b.BuildBytecode(t.Context(), r, "python3")
	if err != nil {
		t.Fatal(err)
	}
	cached, err := b.Bytecode(r, minor)
	if err != nil || cached.Info() != built.Info() {
		t.Fatalf("%v, %v; want %v", cached.Info(), err, built.Info())
	}
	missing := func(b *Builder, r *catalog.Release, python string) {
		t.Helper()
		if _, err := b.Bytecode(r, python); !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), b.Cache.Dir) {
			t.Errorf("error %v, want one that says it isn't there", err)
		}
	}
	missing(&Builder{Cache: &layer.Cache{Dir: t.TempDir()}}, r, minor)
	missing(b, r, "3.0")
	other := *r
	other.Layer.DiffID = r.Layer.Digest
	missing(b, &other, minor)

	write(t, b.bytecodeFile(r, minor), "{")
	missing(b, r, minor)
	if _, built, err = b.BuildBytecode(t.Context(), r, "python3"); err != nil {
		t.Fatal(err)
	}
	write(t, b.Cache.Path(built.Info().Digest), "damaged")
	missing(b, r, minor)
}

// answer makes a program that writes a line and then runs a shell's command.
func answer(t *testing.T, head, then string) string {
	file := filepath.Join(t.TempDir(), "python")
	write(t, file, "#!/bin/sh\nprintf '%s\\n' '"+head+"'\n"+then+"\n")
	return file
}

func TestBytecodeRefuses(t *testing.T) {
	b, r := bytecodeRelease(t)
	const final = `imgwrap {"implementation": "cpython", "version": "3.11.2", "minor": "3.11", "level": "final", "magic": "pw0NCg=="}`
	edited := func(old, new string) string { return strings.Replace(final, old, new, 1) }
	for name, tt := range map[string]struct {
		program, want string
	}{
		"not found":        {"imgwrap-no-such-python", "bytecode can't be made with imgwrap-no-such-python: executable file not found in $PATH"},
		"no such path":     {"/nowhere/python3", "bytecode can't be made with /nowhere/python3: no such file or directory"},
		"a directory":      {t.TempDir(), "permission denied"},
		"says nothing":     {answer(t, "", "exec cat >/dev/null"), "it doesn't run Python"},
		"says no":          {answer(t, "usage: python", "echo 'bad option -E' >&2; exit 2"), "it doesn't run Python: bad option -E"},
		"says too much":    {answer(t, strings.Repeat("a", 10_000), ""), "it doesn't run Python"},
		"pre-release":      {answer(t, edited("final", "candidate"), ""), "Python 3.11.2 is a pre-release (candidate)"},
		"other":            {answer(t, edited("cpython", "pypy"), ""), "it is pypy, not CPython"},
		"too new":          {answer(t, edited(`"3.11"`, `"3.15"`), ""), "1.2.0/0.3b0 serves Python 3.0 to 3.14, and "},
		"Python 2":         {answer(t, edited(`"3.11"`, `"2.7"`), ""), "is Python 2.7"},
		"too old":          {answer(t, edited(`"3.11"`, `"3.6"`), "printf '8\\n01234567'"), "the bytecode of Python 3.6 is not known"},
		"ends":             {answer(t, final, "echo 0; echo killed >&2; exit 137"), "compiling /opt/imgwrap/otel-1.2.0/demo/constants.py: it ended early: killed"},
		"ends within":      {answer(t, final, "printf '100\\n0'"), "it ended early"},
		"no number":        {answer(t, final, "echo many"), "unexpected answer"},
		"negative":         {answer(t, final, "echo -1"), "unexpected answer"},
		"huge":             {answer(t, final, "echo 1000000000000"), "unexpected answer"},
		"malformed code":   {answer(t, final, "printf '9\\n01234567x'"), "compiling /opt/imgwrap/otel-1.2.0/demo/__init__.py with "},
		"never ends":       {answer(t, final, "exec yes 0"), "signal: broken pipe"},
		"fails at the end": {answer(t, final, "printf '0\\n0\\n0\\n0\\n0\\n0\\n'; exit 3"), "exit status 3"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := b.BuildBytecode(t.Context(), r, tt.program)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	files, err := filepath.Glob(filepath.Join(b.Cache.Dir, "bytecode", "*"))
	if err != nil || len(files) > 0 {
		t.Errorf("%v, %v; want nothing to be kept", files, err)
	}
}

func TestBytecodeCanceled(t *testing.T) {
	b, r := bytecodeRelease(t)
	if _, err := b.Bundle(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// The program has started when it opens the pipe.
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "python")
	write(t, program, "#!/bin/sh\n: >"+pipe+"\nexec cat >/dev/null\n")
	go func() {
		defer cancel()
		if _, err := os.ReadFile(pipe); err != nil {
			t.Error(err)
		}
	}()
	if _, _, err := b.BuildBytecode(ctx, r, program); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func FuzzCanonical(f *testing.F) {
	f.Add([]byte("\xe3"+strings.Repeat("\x00", 20)+"\xf3\x00\x00\x00\x00\xa9\x00r\x01\x00\x00\x00r\x01\x00\x00\x00r\x00\x00\x00\x00\xfa\x01a\xda\x01br\x02\x00\x00\x00\x01\x00\x00\x00r\x00\x00\x00\x00r\x00\x00\x00\x00"), "3.11")
	f.Add([]byte(">\x02\x00\x00\x00z\x01ai\x01\x00\x00\x00"), "3.14")
	f.Add([]byte("l\xff\xff\xff\xff\x01\x00"), "3.7")
	f.Fuzz(func(t *testing.T, data []byte, python string) {
		once, err := canonical(data, python)
		if err != nil {
			return
		}
		twice, err := canonical(once, python)
		if err != nil || string(twice) != string(once) {
			t.Errorf("%q, %v; want %q", twice, err, once)
		}
	})
}
