package bundle

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

//go:embed python/compile.py
var compiler string

// InterpreterError says that a program can't compile for bytecode layers.
type InterpreterError struct {
	Interpreter string // as it was given
	Problem     string
}

func (e *InterpreterError) Error() string {
	return fmt.Sprintf("bytecode can't be made with %s: %s", e.Interpreter, e.Problem)
}

// Hint says what to give instead.
func (e *InterpreterError) Hint() string {
	return "give a CPython by name or path, such as python3.11, or a program that passes everything on to one"
}

// NotServedError says that a release is not for an interpreter's Python.
type NotServedError struct {
	Release     *catalog.Release
	Interpreter string // as it was given
	Python      string // its minor
}

func (e *NotServedError) Error() string {
	return fmt.Sprintf("%s serves Python %s, and %s is Python %s", e.Release, e.Release.Python, e.Interpreter, e.Python)
}

// Bytecode returns the layer with a release's bytecode for a Python minor, such
// as "3.11", if [Builder.BuildBytecode] has put it into the cache. If not, the
// error is [fs.ErrNotExist].
func (b *Builder) Bytecode(r *catalog.Release, python string) (*layer.Layer, error) {
	l, err := b.bytecode(r, python)
	if errors.Is(err, fs.ErrNotExist) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("bytecode of %s for Python %s in the cache: %w", r, python, err)
	}
	return l, nil
}

func (b *Builder) bytecode(r *catalog.Release, python string) (*layer.Layer, error) {
	data, err := os.ReadFile(b.bytecodeFile(r, python))
	if err != nil {
		return nil, err
	}
	var info layer.Info
	if err := json.Unmarshal(data, &info); err != nil {
		return nil, fs.ErrNotExist // as with a damaged blob
	}
	return b.Cache.Layer(info)
}

// BuildBytecode compiles a release's bundle with an interpreter, puts the layer
// into the cache, and returns the minor that it is for.
//
// The interpreter is the name or path of a program: CPython, or one that passes
// arguments, stdin, stdout and exit status on to it, which may be in a container.
// A minor gives the same layer wherever it runs, as long as its patch level
// compiles alike. Errors about it are an [*InterpreterError], or a
// [*NotServedError] if the release is not for its version.
func (b *Builder) BuildBytecode(ctx context.Context, r *catalog.Release, interpreter string) (python string, l *layer.Layer, err error) {
	bundle, err := b.Bundle(ctx, r)
	if err != nil {
		return "", nil, err
	}
	modules, err := sources(bundle)
	if err != nil {
		return "", nil, fmt.Errorf("reading bundle of %s: %w", r, err)
	}
	modules = append(modules, source{path: InitDir + "/sitecustomize.py", text: loader, checked: true})
	python, entries, err := compile(ctx, r, interpreter, modules)
	if err != nil {
		return "", nil, err
	}
	if l, err = layer.Build(ctx, append(entries, parents(entries)...)); err != nil {
		return "", nil, err
	}
	if l, err = b.Cache.PutLayer(ctx, l); err != nil {
		return "", nil, err
	}
	data, err := json.Marshal(l.Info())
	if err == nil {
		err = layer.WriteFile(b.bytecodeFile(r, python), data, 0o644)
	}
	if err != nil {
		return "", nil, fmt.Errorf("storing bytecode of %s for Python %s: %w", r, python, err)
	}
	return python, l, nil
}

// bytecodeFile is where the cache keeps which layer is a release's bytecode for
// a Python: the bytecode of this bundle and this loader, compiled as it is now.
func (b *Builder) bytecodeFile(r *catalog.Release, python string) string {
	key := sha256.Sum256(fmt.Appendf(nil, "1 %s %s %s", r.Layer.DiffID, compiler, loader))
	return filepath.Join(b.Cache.Dir, "bytecode", fmt.Sprintf("%s-%s-%x.json", r.Version, python, key[:8]))
}

// source is a module's source.
type source struct {
	path string // absolute, in the image
	text []byte
	// checked tells that Python compares the source with its bytecode.
	checked bool
}

// sources returns the modules in a layer.
func sources(l *layer.Layer) ([]source, error) {
	content, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	var found []source
	for t := tar.NewReader(content); ; {
		h, err := t.Next()
		if err == io.EOF {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if path.Ext(h.Name) != ".py" {
			continue
		}
		text, err := io.ReadAll(t)
		if err != nil {
			return nil, err
		}
		found = append(found, source{path: "/" + h.Name, text: text})
	}
}

// identity is what compile.py tells of the interpreter.
type identity struct {
	Implementation string `json:"implementation"` // "cpython"
	Version        string `json:"version"`        // "3.11.2"
	Minor          string `json:"minor"`          // "3.11"
	Level          string `json:"level"`          // "final", or that of a pre-release
	Magic          []byte `json:"magic"`          // that its bytecode files begin with
}

// compile runs an interpreter and returns its minor and the modules' bytecode.
// Modules that don't compile on it are left out, as upstream's wheels have some
// that are for other versions.
func compile(ctx context.Context, r *catalog.Release, interpreter string, modules []source) (minor string, compiled []layer.Entry, err error) {
	running, stop := context.WithCancel(ctx)
	defer stop()
	// Neither the environment nor what is installed has a say.
	cmd := exec.CommandContext(running, interpreter, "-E", "-s", "-S", "-B", "-c", compiler)
	var in []io.Reader
	for _, m := range modules {
		in = append(in, strings.NewReader(fmt.Sprintf("%d %s\n", len(m.text), m.path)), bytes.NewReader(m.text))
	}
	cmd.Stdin = io.MultiReader(in...)
	stderr := &lastLine{}
	cmd.Stderr = stderr
	cmd.WaitDelay = time.Second // a wrapper's children may outlive it
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, cmp.Or(ctx.Err(), error(&InterpreterError{interpreter, reason(err)}))
	}
	minor, compiled, err = receive(r, interpreter, modules, bufio.NewReader(stdout))
	stdout.Close() // lest it writes for ever
	var broken answerError
	switch {
	case errors.As(err, &broken):
		time.AfterFunc(time.Second, stop) // it may be about to say why
	case err != nil:
		stop()
	}
	exit := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return "", nil, ctx.Err()
	case errors.As(err, &broken):
		return "", nil, &InterpreterError{interpreter, strings.TrimSuffix(err.Error()+": "+stderr.text, ": ")}
	case err == nil && exit != nil:
		return "", nil, &InterpreterError{interpreter, strings.TrimSuffix(exit.Error()+": "+stderr.text, ": ")}
	}
	return minor, compiled, err
}

// answerError says that what runs as the interpreter does not do what compile.py
// says.
type answerError string

func (e answerError) Error() string { return string(e) }

// receive reads what compile.py writes.
func receive(r *catalog.Release, interpreter string, modules []source, answer *bufio.Reader) (minor string, compiled []layer.Entry, err error) {
	line, err := answer.ReadSlice('\n')
	text, ok := bytes.CutPrefix(line, []byte("imgwrap "))
	var p identity
	if err != nil || !ok || json.Unmarshal(text, &p) != nil {
		return "", nil, answerError("it doesn't run Python")
	}
	switch {
	case p.Level != "final":
		return "", nil, &InterpreterError{interpreter, "Python " + p.Version + " is a pre-release (" + p.Level + ")"}
	case !r.Python.Contains(p.Minor):
		return "", nil, &NotServedError{r, interpreter, p.Minor}
	case p.Implementation != "cpython" || len(p.Magic) != 4:
		return "", nil, &InterpreterError{interpreter, "it is " + p.Implementation + ", not CPython"}
	}
	tag := ".cpython-" + strings.ReplaceAll(p.Minor, ".", "") + ".pyc"
	for _, m := range modules {
		code, err := receiveOne(answer)
		if err != nil {
			return "", nil, fmt.Errorf("compiling %s: %w", m.path, err)
		}
		if code == nil {
			continue
		}
		hash, code := code[:hashSize], code[hashSize:]
		if code, err = canonical(code, p.Minor); err != nil {
			return "", nil, fmt.Errorf("compiling %s with %s: %w", m.path, interpreter, err)
		}
		// PEP 552: a file with the hash of its source, which Python compares
		// with the source only if checkSource is set.
		const hashBased, checkSource = 1, 2
		flags := uint32(hashBased)
		if m.checked {
			flags |= checkSource
		}
		head := binary.LittleEndian.AppendUint32(slices.Clone(p.Magic), flags)
		dir, name := path.Split(strings.TrimPrefix(m.path, "/"))
		compiled = append(compiled, layer.Entry{
			Path: dir + "__pycache__/" + strings.TrimSuffix(name, ".py") + tag,
			Data: slices.Concat(head, hash, code),
		})
	}
	return p.Minor, compiled, nil
}

// hashSize is the number of bytes of a source's hash.
const hashSize = 8

// receiveOne reads the hash and the code of one module; nil if it has none.
func receiveOne(answer *bufio.Reader) ([]byte, error) {
	line, err := answer.ReadSlice('\n')
	if err != nil {
		return nil, answerError("it ended early")
	}
	size, err := strconv.Atoi(strings.TrimSpace(string(line)))
	const largest = 64 << 20
	if err != nil || size < 0 || size > largest || size > 0 && size < hashSize {
		return nil, answerError("unexpected answer")
	}
	if size == 0 {
		return nil, nil
	}
	code := make([]byte, size)
	if _, err := io.ReadFull(answer, code); err != nil {
		return nil, answerError("it ended early")
	}
	return code, nil
}

// reason drops what an error of starting a program repeats.
func reason(err error) string {
	var notFound *exec.Error
	var failed *fs.PathError
	switch {
	case errors.As(err, &notFound):
		return notFound.Err.Error()
	case errors.As(err, &failed):
		return failed.Err.Error()
	}
	return err.Error()
}

// lastLine keeps the last line of text that is written to it.
type lastLine struct{ text string }

// Write implements [io.Writer].
func (l *lastLine) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		if line = strings.TrimSpace(line); line != "" {
			l.text = line[:min(len(line), 500)]
		}
	}
	return len(p), nil
}
