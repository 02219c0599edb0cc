package python

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/imgwrap/imgwrap/image/scan"
)

// files makes an image's file system of lines: "path: content" is an
// executable file, "path -> target" a link, "path/" a directory, "path" an
// empty file. Contents may use \n, and the words ELF and MUSL for executables,
// PEX, SHPEX, SHIV, ZIPAPP, PYINSTALLER and NUITKA for apps in one file.
func files(t testing.TB, lines ...string) Files {
	t.Helper()
	return scan.Merge(layer(t, lines...))
}

// merged makes the file system of several layers.
func merged(t testing.TB, layers ...[]string) Files {
	t.Helper()
	var list []*scan.Layer
	for _, l := range layers {
		list = append(list, layer(t, l...))
	}
	return scan.Merge(list...)
}

func layer(t testing.TB, lines ...string) *scan.Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, line := range lines {
		h := &tar.Header{Typeflag: tar.TypeReg, Mode: 0o755}
		var body string
		if name, content, ok := strings.Cut(line, ": "); ok {
			body = strings.ReplaceAll(content, `\n`, "\n")
			switch content {
			case "ELF":
				body = executable(elf.EM_X86_64, "/lib64/ld-linux-x86-64.so.2")
			case "PEX":
				body = zipOf(t, "#!/usr/bin/env python3\n", "PEX-INFO", "__main__.py", ".deps/flask-3.0-py3-none-any.whl/flask-3.0.dist-info/METADATA")
			case "SHPEX":
				body = zipOf(t, "#!/bin/sh\nexec python3 $0\n", "PEX-INFO", "__main__.py")
			case "SHIV":
				body = zipOf(t, "#!/usr/bin/env python3\n", "site-packages/flask-3.0.dist-info/METADATA", "environment.json", "__main__.py")
			case "ZIPAPP":
				body = zipOf(t, "#!/usr/bin/env python3\n", "flask-3.0.dist-info/METADATA", "__main__.py")
			case "PYINSTALLER":
				body = executable(elf.EM_X86_64, "/lib64/ld-linux-x86-64.so.2") + "MEI\x0c\x0b\x0a\x0b\x0e"
			case "NUITKA":
				body = executable(elf.EM_X86_64, "/lib64/ld-linux-x86-64.so.2") + "NUITKA_ONEFILE_PARENT"
			case "MUSL":
				body = executable(elf.EM_AARCH64, "/lib/ld-musl-aarch64.so.1")
			}
			h.Name, h.Size = name, int64(len(body))
		} else if name, target, ok := strings.Cut(line, " -> "); ok {
			h.Typeflag, h.Name, h.Linkname = tar.TypeSymlink, name, target
		} else if h.Name = line; strings.HasSuffix(line, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(body))
	}
	w.Close()
	l, err := scan.Read(context.Background(), &buf)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// zipOf makes a zip archive of empty files behind a first line.
func zipOf(t testing.TB, shebang string, names ...string) string {
	t.Helper()
	buf := bytes.NewBufferString(shebang)
	w := zip.NewWriter(buf)
	for _, n := range names {
		if _, err := w.Create(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

// executable makes the head of an ELF executable.
func executable(machine elf.Machine, interpreter string) string {
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_DYN), Machine: uint16(machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 2}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	binary.Write(&b, binary.LittleEndian, h)
	binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_PHDR), Off: 64, Filesz: 112})
	binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_INTERP), Off: 176, Filesz: uint64(len(interpreter) + 1)})
	b.WriteString(interpreter + "\x00")
	b.Write(make([]byte, 5000))
	return b.String()
}

// Parts of images.
var (
	dockerPython = []string{
		"usr/local/bin/python3.11: ELF", "usr/local/bin/python3 -> python3.11", "usr/local/bin/python -> python3",
		"usr/local/lib/python3.11/os.py", "usr/local/lib/python3.11/lib-dynload/_ctypes.cpython-311-x86_64-linux-gnu.so",
		"usr/local/lib/python3.11/site-packages/pip-24.0.dist-info/METADATA: Name: pip\\nVersion: 24.0\\n",
		"usr/bin/env: ELF", "bin -> usr/bin", "usr/bin/sh: ELF",
	}
	debianPython = []string{
		"usr/bin/python3.11: ELF", "usr/bin/python3 -> python3.11", "usr/lib/python3.11/os.py",
		"usr/lib/python3.11/sitecustomize.py -> /etc/python3.11/sitecustomize.py", "etc/python3.11/sitecustomize.py: # empty",
		"usr/lib/python3/dist-packages/Flask-2.2.2.egg-info/PKG-INFO: Metadata-Version: 2.1\\nName: Flask\\nVersion: 2.2.2\\n",
		"usr/lib/python3/dist-packages/blinker-1.5.egg-info: Name: blinker\\nVersion: 1.5\\n",
		"usr/bin/flask: #!/usr/bin/python3\\n", "usr/bin/env: ELF", "bin -> usr/bin", "usr/bin/dash: ELF", "usr/bin/sh -> dash",
	}
	venv = []string{
		"opt/venv/pyvenv.cfg: home = /usr/local/bin\\ninclude-system-site-packages = false\\nversion = 3.11.7\\n",
		"opt/venv/bin/python -> /usr/local/bin/python3.11", "opt/venv/bin/python3 -> python",
		"opt/venv/bin/activate: # activate",
		"opt/venv/bin/gunicorn: #!/opt/venv/bin/python\\nimport sys\\n", "opt/venv/bin/flask: #!/opt/venv/bin/python3 -I\\n",
		"opt/venv/lib/python3.11/site-packages/flask-3.0.0.dist-info/METADATA: Name: Flask\\nVersion: 3.0.0\\n",
	}
)

const venvPath = "PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin"

// argv splits a command; parts in <> are one argument each.
func argv(s string) []string {
	var args []string
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		if s[0] == '<' {
			i := strings.LastIndexByte(s, '>')
			args, s = append(args, s[1:i]), s[i+1:]
			continue
		}
		a, rest, _ := strings.Cut(s, " ")
		args, s = append(args, a), rest
	}
	return args
}

// inspection is an image and what is to be found out about it.
type inspection struct {
	name    string
	files   []string
	env     string // separated by blanks
	dir     string
	entry   string
	cmd     string
	python  string // or "error: " and the error's beginning
	program string
	more    string // facts, separated by blanks: see facts
}

func (tt inspection) run(t *testing.T) {
	config := Config{Entrypoint: argv(tt.entry), Cmd: argv(tt.cmd), Env: strings.Fields(tt.env), WorkingDir: tt.dir}
	e, err := Inspect(config, files(t, tt.files...), Options{})
	if want, ok := strings.CutPrefix(tt.python, "error: "); ok {
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Fatalf("error %v, want %s", err, want)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if e.Interpreter.Path != tt.python || e.Command.Program != tt.program {
		t.Errorf("got %s running %q, want %s running %q", e.Interpreter.Path, e.Command.Program, tt.python, tt.program)
	}
	got := facts(e)
	for _, f := range strings.Fields(tt.more) {
		if !slices.ContainsFunc(got, func(g string) bool { return g == f || strings.HasPrefix(f, "warning=") && strings.Contains(g, f[8:]) }) {
			t.Errorf("%s does not hold: %q", f, got)
		}
	}
	if t.Failed() {
		t.Logf("steps %q\nwarnings %q", e.Command.Steps, e.Warnings)
	}
}

func TestInspect(t *testing.T) {
	docker, debian := dockerPython, debianPython
	dockerVenv := slices.Concat(docker, venv)
	for _, tt := range []inspection{
		{name: "docker-library", files: docker, cmd: "python3", python: "/usr/local/bin/python3", more: "sure version=3.11 libc=glibc arch=x86_64 prefix=/usr/local scripts=/usr/local/bin sites=/usr/local/lib/python3.11/site-packages"},
		{name: "docker-library, patch release", files: docker, env: "PYTHON_VERSION=3.11.9", cmd: "python app.py", dir: "/app", python: "/usr/local/bin/python", program: "app.py", more: "sure version=3.11.9 script=/app/app.py dir=/app"},
		{name: "docker-library, other version set", files: docker, env: "PYTHON_VERSION=3.12.1", cmd: "python", python: "/usr/local/bin/python", more: "version=3.11"},
		{name: "Alpine", files: []string{"usr/local/bin/python3.12: MUSL", "usr/local/bin/python3 -> python3.12", "usr/local/lib/python3.12/os.py"}, cmd: "python3 -m http.server", python: "/usr/local/bin/python3", program: "http.server", more: "module libc=musl arch=aarch64 version=3.12"},
		{name: "Debian", files: debian, cmd: "python3 app.py", python: "/usr/bin/python3", program: "app.py", more: "sure prefix=/usr scripts=/usr/local/bin sites=/usr/lib/python3/dist-packages dists=Flask:2.2.2,blinker:1.5 customize=/usr/lib/python3.11/sitecustomize.py"},
		{name: "Debian with local packages", files: slices.Concat(debian, []string{"usr/local/lib/python3.11/dist-packages/flask-3.0.dist-info/METADATA: Name: flask\\nVersion: 3.0\\n"}), cmd: "flask run", python: "/usr/bin/python3", program: "flask", more: "sites=/usr/local/lib/python3.11/dist-packages,/usr/lib/python3/dist-packages dists=flask:3.0,blinker:1.5 shadowed=Flask:2.2.2"},
		{name: "Debian console script", files: debian, cmd: "/usr/bin/flask --app x run", python: "/usr/bin/python3", program: "flask", more: "script=/usr/bin/flask"},
		{name: "distroless", files: []string{"usr/bin/python3.11: ELF", "usr/bin/python -> /usr/bin/python3.11", "usr/lib/python3.11/os.py", "etc/os-release: ID=debian\\n"}, entry: "/usr/bin/python3.11", cmd: "app.py", python: "/usr/bin/python3.11", program: "app.py", more: "scripts=/usr/local/bin sites="},
		{name: "venv by PATH", files: dockerVenv, env: venvPath, cmd: "python app.py", python: "/opt/venv/bin/python", program: "app.py", more: "sure version=3.11.7 libc=glibc prefix=/opt/venv base=/usr/local scripts=/opt/venv/bin sites=/opt/venv/lib/python3.11/site-packages dists=Flask:3.0.0"},
		{name: "venv by absolute path", files: dockerVenv, cmd: "/opt/venv/bin/python3 app.py", python: "/opt/venv/bin/python3", program: "app.py", more: "prefix=/opt/venv"},
		{name: "venv by relative path", files: dockerVenv, dir: "/opt", cmd: "venv/bin/python -u app.py", python: "/opt/venv/bin/python", program: "app.py", more: "flags=-u"},
		{name: "link to a venv's python is not the venv's", files: append(slices.Clone(dockerVenv), "usr/local/bin/py -> /opt/venv/bin/python", "usr/local/bin/python3x"), cmd: "py x.py", python: "/usr/local/bin/py", program: "x.py", more: "prefix=/usr/local"},
		{name: "venv with system packages", files: append(slices.Clone(debian), "v/pyvenv.cfg: home = /usr/bin\\ninclude-system-site-packages = True\\nversion = 3.11.2", "v/bin/python3 -> /usr/bin/python3", "v/lib/python3.11/site-packages/"), cmd: "/v/bin/python3 -", python: "/v/bin/python3", program: "-", more: "version=3.11.2 sites=/v/lib/python3.11/site-packages,/usr/lib/python3/dist-packages base=/usr prefix=/v scripts=/v/bin"},
		{name: "console script", files: dockerVenv, env: venvPath, cmd: "gunicorn -w 2 app:app", python: "/opt/venv/bin/python", program: "gunicorn", more: "sure script=/opt/venv/bin/gunicorn"},
		{name: "console script with flags", files: dockerVenv, cmd: "/opt/venv/bin/flask run", python: "/opt/venv/bin/python3", program: "flask", more: "flags=-I isolated"},
		{name: "console script without PATH", files: dockerVenv, cmd: "gunicorn app:app", python: "/opt/venv/bin/python", more: "unsure"},
		{name: "env shebang", files: append(slices.Clone(dockerVenv), "app/run.py: #!/usr/bin/env python3\\n"), env: venvPath, dir: "/app", cmd: "./run.py", python: "/opt/venv/bin/python3", program: "run.py", more: "script=/app/run.py"},
		{name: "env -S shebang", files: append(slices.Clone(dockerVenv), "app/run: #!/usr/bin/env -S python3 -u -X dev\\n"), env: venvPath, dir: "/app", entry: "/app/run", python: "/opt/venv/bin/python3", program: "run", more: "flags=-u,-X_dev"},
		{name: "trampoline of pip", files: append(slices.Clone(dockerVenv), `long/bin/gunicorn: #!/bin/sh\n'''exec' "/opt/venv/bin/python" "$0" "$@"\n' '''\nimport re\nif __name__ == '__main__':\n`), entry: "/long/bin/gunicorn app:app", python: "/opt/venv/bin/python", program: "gunicorn", more: "sure script=/long/bin/gunicorn"},
		{name: "trampoline of uv", files: append(slices.Clone(dockerVenv), `opt/venv/bin/uvicorn: #!/bin/sh\n'''exec' "$(dirname -- "$(realpath -- "$0")")"/'python' "$0" "$@"\n' '''\nimport re\n`), env: venvPath, entry: "uvicorn app:app", python: "/opt/venv/bin/python", program: "uvicorn", more: "sure"},
		{name: "tini", files: dockerVenv, env: venvPath, entry: "/usr/bin/tini -g -e 143 --", cmd: "gunicorn app:app", python: "/opt/venv/bin/python", program: "gunicorn", more: "sure"},
		{name: "dumb-init", files: dockerVenv, env: venvPath, entry: "dumb-init --rewrite 15:2 python app.py", python: "/opt/venv/bin/python", program: "app.py"},
		{name: "many launchers", files: dockerVenv, env: venvPath, entry: "catatonit -- gosu app nice -n 5 timeout -k 5 60 setpriv --reuid 1000 --clear-groups stdbuf -oL env A=b -u X python -O -c <print(1)>", python: "/opt/venv/bin/python", program: "-c", more: "flags=-O sure"},
		{name: "env -i", files: dockerVenv, env: venvPath, entry: "env -i PATH=/opt/venv/bin python app.py", python: "/opt/venv/bin/python", program: "app.py", more: "cleared"},
		{name: "agent", files: dockerVenv, env: venvPath, entry: "opentelemetry-instrument --service_name x gunicorn app:app", python: "/opt/venv/bin/python", program: "gunicorn", more: "agent=opentelemetry-instrument"},
		{name: "agent with subcommand", files: dockerVenv, env: venvPath, entry: "newrelic-admin run-program gunicorn app:app", python: "/opt/venv/bin/python", program: "gunicorn", more: "agent=newrelic-admin"},
		{name: "shell form", files: dockerVenv, env: venvPath, entry: "/bin/sh -c <gunicorn app:app>", python: "/opt/venv/bin/python", program: "gunicorn", more: "sure"},
		{name: "shell form with variables", files: dockerVenv, env: venvPath, entry: "/bin/bash -e -o pipefail -c <cd /srv && exec gunicorn -b 0.0.0.0:${PORT:-8000} app:app>", python: "/opt/venv/bin/python", program: "gunicorn", more: "dir=/srv args=-b_0.0.0.0:8000_app:app"},
		{name: "shell form with migration", files: dockerVenv, env: venvPath, entry: "sh -c <python manage.py migrate && A=b python manage.py runserver 0:80>", python: "/opt/venv/bin/python", program: "manage.py", more: "args=runserver_0:80 sure"},
		{name: "shell form with semicolons", files: dockerVenv, env: venvPath, entry: "sh -c <python init.py; nginx & flask run>", python: "/opt/venv/bin/python3", program: "flask"},
		{name: "shell form with activation", files: dockerVenv, entry: "bash -c <source /opt/venv/bin/activate && gunicorn app>", python: "/opt/venv/bin/python", program: "gunicorn", more: "sure"},
		{name: "shell form with unknown command", files: dockerVenv, entry: "sh -c <$(cat /cmd) x>", python: "/opt/venv/bin/python", more: "unsure"},
		{name: "shell syntax error", files: dockerVenv, entry: "sh -c <if gunicorn>", python: "/opt/venv/bin/python", more: "unsure"},
		{name: "entrypoint script with exec", files: append(slices.Clone(dockerVenv), `entrypoint.sh: #!/bin/sh\nset -e\nif [ "${1#-}" != "$1" ]; then\n set -- python "$@"\nfi\npython manage.py migrate\nexec "$@"\n`), env: venvPath, entry: "/entrypoint.sh", cmd: "gunicorn app:app", python: "/opt/venv/bin/python", program: "gunicorn", more: "sure args=app:app"},
		{name: "entrypoint script with option", files: append(slices.Clone(dockerVenv), `entrypoint.sh: #!/bin/sh\nif [ "${1#-}" != "$1" ]; then\n set -- python "$@"\nfi\nexec "$@"\n`), env: venvPath, entry: "/entrypoint.sh", cmd: "-m x", python: "/opt/venv/bin/python", program: "x", more: "module"},
		{name: "entrypoint script by shell", files: append(slices.Clone(dockerVenv), `app/run.sh: export PATH=/opt/venv/bin:$PATH\nexec gunicorn app:app\n`), dir: "/app", entry: "sh run.sh", python: "/opt/venv/bin/python", program: "gunicorn"},
		{name: "entrypoint script that starts python", files: append(slices.Clone(dockerVenv), `run.sh: #!/usr/bin/env bash\nset -euo pipefail\ncd "$(dirname "$0")"\nwhile ! nc -z db 5432; do sleep 1; done\n/opt/venv/bin/gunicorn app:app\n`), entry: "/run.sh", python: "/opt/venv/bin/python", program: "gunicorn", more: "dir=/"},
		{name: "entrypoint script with case", files: append(slices.Clone(dockerVenv), `run.sh: #!/bin/bash\ncase "$1" in\nweb) exec gunicorn app:app ;;\nworker) exec celery worker ;;\n*) exec "$@" ;;\nesac\n`), env: venvPath, entry: "/run.sh", cmd: "web", python: "/opt/venv/bin/python", program: "gunicorn", more: "sure"},
		{name: "entrypoint script with functions", files: append(slices.Clone(dockerVenv), `run.sh: #!/bin/bash\nserve() { exec gunicorn "$@"; }\nmain() { serve app:app; }\nmain "$@"\n`), env: venvPath, entry: "/run.sh", python: "/opt/venv/bin/python", program: "gunicorn"},
		{name: "entrypoint script that sources", files: append(slices.Clone(dockerVenv), `run.sh: #!/bin/bash\n. /env.sh\nexec gunicorn\n`, `env.sh: #!/bin/sh\nexport PATH="/opt/venv/bin:$PATH"\n`), entry: "/run.sh", python: "/opt/venv/bin/python", program: "gunicorn"},
		{name: "entrypoint script with unknown branches", files: append(slices.Clone(dockerVenv), `run.sh: #!/bin/bash\nif curl -s x; then exec gunicorn app; else exec /usr/local/bin/python3 x.py; fi\n`), env: venvPath, entry: "/run.sh", python: "/usr/local/bin/python3", program: "x.py", more: "unsure"},
		{name: "entrypoint script with branches that agree", files: append(slices.Clone(dockerVenv), `run.sh: #!/bin/bash\nif curl -s x; then exec gunicorn app; else exec flask run; fi\n`), env: venvPath, entry: "/run.sh", python: "/opt/venv/bin/python3", program: "flask", more: "sure"},
		{name: "entrypoint script with another Python before", files: append(slices.Clone(dockerVenv), `run.sh: #!/bin/bash\n/usr/local/bin/python3 render.py\nexec "$@"\n`), env: venvPath, entry: "/run.sh", cmd: "gunicorn app", python: "/opt/venv/bin/python", program: "gunicorn", more: "sure"},
		{name: "entrypoint script with another Python in the background", files: append(slices.Clone(dockerVenv), `run.sh: #!/bin/bash\n/usr/local/bin/python3 watch.py &\ngunicorn app\n`), env: venvPath, entry: "/run.sh", python: "/opt/venv/bin/python", program: "gunicorn", more: "unsure"},
		{name: "entrypoint script with a server before", files: append(slices.Clone(dockerVenv), `usr/sbin/nginx: ELF`, `run.sh: #!/bin/bash\ngunicorn app &\nexec nginx -g "daemon off;"\n`), env: venvPath, entry: "/run.sh", python: "/opt/venv/bin/python", program: "gunicorn", more: "unsure"},
		{name: "entrypoint script with unknown words", files: append(slices.Clone(dockerVenv), `run.sh: #!/bin/bash\nexport PATH="$(make path):$PATH"\nexec gosu "$(cat /user)" gunicorn $(cat /args) app\n`), env: venvPath, entry: "/run.sh", python: "/opt/venv/bin/python", program: "gunicorn", more: "unsure args=app"},
		{name: "entrypoint script without end", files: append(slices.Clone(dockerVenv), `run.sh: #!/bin/sh\nexec /run.sh "$@"\n`), entry: "/run.sh x", python: "/opt/venv/bin/python", more: "unsure"},
		{name: "endless function", files: append(slices.Clone(dockerVenv), `run.sh: #!/bin/sh\nf() { f; f; }\nf\n`), entry: "/run.sh x", python: "/opt/venv/bin/python", more: "unsure"},
		{name: "uv run", files: slices.Concat(docker, []string{"app/.venv/pyvenv.cfg: home = /usr/local/bin\\nuv = 0.5\\nversion_info = 3.11.7\\n", "app/.venv/bin/python -> /usr/local/bin/python3.11", "usr/local/bin/uv: ELF"}), dir: "/app/src", cmd: "uv run --no-sync --env-file x main.py", python: "/app/.venv/bin/python", program: "main.py", more: "sure version=3.11.7"},
		{name: "uv managed Python", files: []string{"root/.local/share/uv/python/cpython-3.12.5-linux-x86_64-gnu/bin/python3.12: ELF", "root/.local/share/uv/python/cpython-3.12.5-linux-x86_64-gnu/lib/python3.12/os.py", "v/pyvenv.cfg: home = /root/.local/share/uv/python/cpython-3.12.5-linux-x86_64-gnu/bin\\n", "v/bin/python -> /root/.local/share/uv/python/cpython-3.12.5-linux-x86_64-gnu/bin/python3.12"}, cmd: "/v/bin/python", python: "/v/bin/python", more: "version=3.12.5 prefix=/v"},
		{name: "poetry run, cache", files: slices.Concat(docker, []string{"root/.cache/pypoetry/virtualenvs/app-x-py3.11/pyvenv.cfg: home = /usr/local/bin\\n", "root/.cache/pypoetry/virtualenvs/app-x-py3.11/bin/python -> /usr/local/bin/python"}), entry: "poetry run python -m app", python: "/root/.cache/pypoetry/virtualenvs/app-x-py3.11/bin/python", program: "app"},
		{name: "conda run", files: []string{"opt/conda/bin/conda: #!/opt/conda/bin/python\\n", "opt/conda/bin/python3.10: ELF", "opt/conda/bin/python -> python3.10", "opt/conda/lib/python3.10/os.py", "opt/conda/envs/e/bin/python3.9: ELF", "opt/conda/envs/e/bin/python -> python3.9", "opt/conda/envs/e/lib/python3.9/site-packages/"}, env: "PATH=/opt/conda/bin", entry: "conda run --no-capture-output -n e python app.py", python: "/opt/conda/envs/e/bin/python", program: "app.py", more: "version=3.9 prefix=/opt/conda/envs/e scripts=/opt/conda/envs/e/bin"},
		{name: "conda activate", files: []string{"opt/conda/bin/conda: #!/opt/conda/bin/python\\n", "opt/conda/bin/python: ELF", "opt/conda/envs/e/bin/python3.9: ELF", "opt/conda/envs/e/bin/python -> python3.9", "opt/conda/envs/e/lib/python3.9/site-packages/", `run.sh: #!/bin/bash\neval "$(conda shell.bash hook)"\nconda activate e\nexec python app.py\n`}, env: "PATH=/opt/conda/bin", entry: "/run.sh", python: "/opt/conda/envs/e/bin/python", program: "app.py", more: "sure"},
		{name: "Fedora", files: []string{"usr/bin/python3.12: ELF", "usr/lib64/python3.12/os.py", "usr/lib64/python3.12/site-packages/", "usr/lib/python3.12/site-packages/", "usr/local/lib/python3.12/site-packages/"}, cmd: "python3.12", python: "/usr/bin/python3.12", more: "sites=/usr/local/lib/python3.12/site-packages,/usr/lib64/python3.12/site-packages,/usr/lib/python3.12/site-packages scripts=/usr/bin"},
		{name: "s2i", files: []string{"usr/bin/python3.9: ELF", "usr/lib64/python3.9/os.py", "opt/app-root/pyvenv.cfg: home = /usr/bin\\n", "opt/app-root/bin/python3 -> /usr/bin/python3.9", "opt/app-root/lib/python3.9/site-packages/", "opt/app-root/lib64 -> lib", `usr/bin/container-entrypoint: #!/bin/bash\nset -eu\nexec "$@"\n`}, env: "PATH=/opt/app-root/bin:/usr/bin", entry: "container-entrypoint", cmd: "python3 app.py", python: "/opt/app-root/bin/python3", program: "app.py", more: "sure sites=/opt/app-root/lib64/python3.9/site-packages version=3.9"},
		{name: "PyPy", files: []string{"opt/pypy/bin/pypy3.10: ELF", "opt/pypy/bin/pypy3 -> pypy3.10", "opt/pypy/lib/pypy3.10/os.py", "opt/pypy/lib/pypy3.10/site-packages/"}, entry: "/opt/pypy/bin/pypy3 app.py", python: "/opt/pypy/bin/pypy3", program: "app.py", more: "impl=pypy version=3.10 sites=/opt/pypy/lib/pypy3.10/site-packages"},
		{name: "free-threaded", files: []string{"usr/local/bin/python3.13t: ELF", "usr/local/lib/python3.13t/os.py", "usr/local/lib/python3.13t/site-packages/"}, cmd: "python3.13t", python: "/usr/local/bin/python3.13t", more: "threads version=3.13 sites=/usr/local/lib/python3.13t/site-packages"},
		{name: "uwsgi", files: append(slices.Clone(dockerVenv), "opt/venv/bin/uwsgi: ELF"), env: venvPath, cmd: "uwsgi --http :80", python: "/opt/venv/bin/python", program: "uwsgi"},
		{name: "supervisord", files: append(slices.Clone(dockerVenv), "usr/local/bin/supervisord: #!/usr/local/bin/python3\\n"), env: venvPath, cmd: "supervisord -n", python: "/opt/venv/bin/python", more: "unsure"},
		{name: "PYTHONPATH", files: append(slices.Clone(docker), "deps/x-1.dist-info/METADATA: Name: x\\nVersion: 1\\n", "app/lib/"), dir: "/app", env: "PYTHONPATH=/deps:lib:/nothing", cmd: "python -m x", python: "/usr/local/bin/python", program: "x", more: "sites=/deps,/app/lib,/usr/local/lib/python3.11/site-packages dists=x:1,pip:24.0"},
		{name: "PYTHONPATH is ignored", files: append(slices.Clone(docker), "deps/"), env: "PYTHONPATH=/deps", cmd: "python -Es x.py", python: "/usr/local/bin/python", program: "x.py", more: "flags=-E,-s isolated sites=/usr/local/lib/python3.11/site-packages"},
		{name: "packages beside the script", files: append(slices.Clone(docker), "app/x-1.dist-info/METADATA: Name: x\\nVersion: 1\\n"), dir: "/app", cmd: "python app.py", python: "/usr/local/bin/python", program: "app.py", more: "sites=/app,/usr/local/lib/python3.11/site-packages"},
		{name: "path files", files: append(slices.Clone(docker), "usr/local/lib/python3.11/site-packages/a.pth: # comment\\n/srv/a\\nimport x\\n../../nothing\\n", "usr/local/lib/python3.11/site-packages/b.pth: b\\n/srv/a\\n", "srv/a/foo.egg-info/PKG-INFO: Name: foo\\nVersion: 0.1\\n", "usr/local/lib/python3.11/site-packages/b/"), cmd: "python", python: "/usr/local/bin/python", more: "sites=/usr/local/lib/python3.11/site-packages,/srv/a,/usr/local/lib/python3.11/site-packages/b dists=pip:24.0,foo:0.1"},
		{name: "user site", files: append(slices.Clone(docker), "home/u/.local/lib/python3.11/site-packages/", "etc/passwd: root:x:0:0::/root:/bin/sh\\nu:x:1000:1000::/home/u:/bin/sh\\n"), env: "USER=u HOME=/home/u", cmd: "python", python: "/usr/local/bin/python", more: "sites=/home/u/.local/lib/python3.11/site-packages,/usr/local/lib/python3.11/site-packages"},
		{name: "no command", files: docker, python: "/usr/local/bin/python3.11", more: "unsure"},
		{name: "not Python, one venv", files: append(slices.Clone(dockerVenv), "usr/sbin/nginx: ELF"), cmd: "nginx", python: "/opt/venv/bin/python", more: "unsure"},
		{name: "not Python, two venvs", files: slices.Concat(dockerVenv, []string{"usr/sbin/nginx: ELF", "srv/v/pyvenv.cfg: home = /usr/local/bin\\n", "srv/v/bin/python -> /usr/local/bin/python", "srv/v/lib/python3.11/site-packages/x-1.dist-info/METADATA: Name: x\\nVersion: 1\\n"}), cmd: "nginx", python: "error: several Pythons may be the one that runs: /usr/sbin/nginx is not a Python program; candidates are /opt/venv/bin/python (1 distribution), /srv/v/bin/python (1 distribution)"},
		{name: "not Python, two venvs, one in the working directory", files: slices.Concat(dockerVenv, []string{"usr/sbin/nginx: ELF", "srv/v/pyvenv.cfg: home = /usr/local/bin\\n", "srv/v/bin/python -> /usr/local/bin/python", "srv/v/lib/python3.11/site-packages/x-1.dist-info/METADATA: Name: x\\nVersion: 1\\n"}), cmd: "nginx", dir: "/srv", python: "/srv/v/bin/python", more: "unsure"},
		{name: "no Python", files: []string{"usr/bin/sh: ELF", "usr/bin/app: ELF"}, cmd: "app", python: "error: no Python found: /usr/bin/app is not a Python program; looked for"},
		{name: "empty image", python: "error: no Python found: the image has no command"},
		{name: "Python without library", files: []string{"usr/bin/python3: ELF"}, cmd: "python3", python: "/usr/bin/python3", more: "warning=version_of_/usr/bin/python3_is_not_known"},
		{name: "no _ctypes", files: []string{"usr/bin/python3.11: ELF", "usr/lib/python3.11/lib-dynload/_json.cpython-311-x86_64-linux-gnu.so"}, cmd: "python3.11", python: "/usr/bin/python3.11", more: "warning=has_no__ctypes"},
		{name: "empty PATH", files: docker, env: "PATH=", dir: "/usr/local/bin", cmd: "python3", python: "/usr/local/bin/python3"},
		{name: "link loop", files: append(slices.Clone(docker), "usr/local/bin/gunicorn -> g2", "usr/local/bin/g2 -> gunicorn"), cmd: "gunicorn", python: "/usr/local/bin/python3.11", more: "unsure"},
		{name: "long shebang", files: append(slices.Clone(docker), "usr/local/bin/x: #!/"+strings.Repeat("d", 4096)+"/python\\n"), cmd: "x", python: "/usr/local/bin/python3.11", more: "unsure"},
		{name: "shebang loop", files: append(slices.Clone(docker), "x: #!/y\\n", "y: #!/x\\n"), cmd: "/x", python: "/usr/local/bin/python3.11", more: "unsure"},
		{name: "shebang of nothing", files: append(slices.Clone(docker), "x: #!\\n"), cmd: "/x", python: "/usr/local/bin/python3.11", more: "unsure"},
		{name: "not UTF-8", files: append(slices.Clone(docker), "srv/\xff/run: #!/usr/local/bin/python3\\n", "usr/local/lib/python3.11/site-packages/\xfe.pth: \xff\\n", "usr/local/lib/python3.11/site-packages/\xfe-1.dist-info/"), cmd: "/srv/\xff/run", python: "/usr/local/bin/python3", program: "run"},
		{name: "broken metadata", files: append(slices.Clone(docker), "usr/local/lib/python3.11/site-packages/Foo_Bar-1.2.dist-info/METADATA: \x00\x01", "usr/local/lib/python3.11/site-packages/~ip-1.dist-info/", "usr/local/lib/python3.11/site-packages/x-2.dist-info/RECORD: x"), cmd: "python", python: "/usr/local/bin/python", more: "dists=Foo_Bar:1.2,pip:24.0,x:2 warning=taken_from_the_file_name"},
		{name: "two versions in a directory", files: append(slices.Clone(docker), "usr/local/lib/python3.11/site-packages/pip-23.0.dist-info/METADATA: Name: pip\\nVersion: 23.0\\n"), cmd: "python", python: "/usr/local/bin/python", more: "dists=pip:23.0 shadowed=pip:24.0 warning=two_versions_of_pip"},
	} {
		t.Run(tt.name, tt.run)
	}
}

// facts writes an environment as words that the table above names.
func facts(e *Environment) []string {
	names := func(list []Distribution) string {
		var s []string
		for _, d := range list {
			s = append(s, d.Name+":"+d.Version)
		}
		return strings.Join(s, ",")
	}
	i, c := e.Interpreter, e.Command
	f := []string{
		"version=" + i.Version, "libc=" + i.Libc, "arch=" + i.Architecture, "prefix=" + i.Prefix, "base=" + i.BasePrefix,
		"scripts=" + i.Scripts, "impl=" + i.Implementation, "sites=" + strings.Join(e.Sites, ","), "dists=" + names(e.Distributions),
		"shadowed=" + names(e.Shadowed), "flags=" + strings.Join(c.Flags, ","), "script=" + c.Script, "dir=" + c.Dir,
		"args=" + strings.Join(c.ProgramArgs, "_"), "agent=" + c.Agent, "customize=" + strings.Join(e.Customize, ","),
	}
	for name, holds := range map[string]bool{"sure": c.Sure, "unsure": !c.Sure && len(e.Warnings) > 0, "module": c.Module, "isolated": c.Isolated(), "cleared": c.EnvCleared, "threads": i.FreeThreaded, "dropped": c.PythonPathDropped, "reached": !c.PythonPathDropped} {
		if holds {
			f = append(f, name)
		}
	}
	for _, form := range e.Forms {
		f = append(f, "form="+string(form.Kind))
	}
	for _, w := range e.Warnings {
		f = append(f, w)
	}
	for i := range f {
		f[i] = strings.ReplaceAll(f[i], " ", "_")
	}
	return f
}

func TestForcedPython(t *testing.T) {
	im := files(t, slices.Concat(dockerPython, venv, []string{"usr/sbin/nginx: ELF"})...)
	for _, tt := range []struct{ python, want, err string }{
		{"/opt/venv/bin/python", "/opt/venv/bin/python", ""},
		{"python3", "/usr/local/bin/python3", ""},
		{"opt/venv/bin/python", "/opt/venv/bin/python", ""},
		{"/opt/venv/bin/python3.12", "", "finding Python /opt/venv/bin/python3.12: "},
		{"python3.12", "", "finding Python python3.12: not on the image's PATH"},
		{"/usr/sbin/nginx", "", "finding Python /usr/sbin/nginx: the name is not a Python interpreter's"},
		{"/opt/venv", "", "finding Python /opt/venv: not a file"},
	} {
		e, err := Inspect(Config{Cmd: []string{"nginx"}}, im, Options{Python: tt.python})
		switch {
		case tt.err != "":
			if err == nil || !strings.HasPrefix(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %s", tt.python, err, tt.err)
			}
		case err != nil || e.Interpreter.Path != tt.want || !e.Command.Sure:
			t.Errorf("%s: got %+v, %v", tt.python, e, err)
		}
	}
	_, err := Inspect(Config{}, im, Options{Python: "/nothing"})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v does not match fs.ErrNotExist", err)
	}
}

func TestErrors(t *testing.T) {
	_, err := Inspect(Config{Cmd: []string{"app"}}, files(t), Options{})
	var none *NoPythonError
	if !errors.As(err, &none) || !slices.Equal(none.Command, []string{"app"}) || len(none.Looked) == 0 {
		t.Errorf("got %#v", err)
	}
	var two []string
	for i := range 2 {
		two = append(two, fmt.Sprintf("v%d/pyvenv.cfg: x", i), fmt.Sprintf("v%d/bin/python: ELF", i), fmt.Sprintf("v%d/lib/python3.11/site-packages/", i))
	}
	_, err = Inspect(Config{Cmd: []string{"app"}}, files(t, two...), Options{})
	var several *AmbiguousError
	if !errors.As(err, &several) || len(several.Candidates) != 2 {
		t.Errorf("got %#v", err)
	}
}

func TestDjango(t *testing.T) {
	manage := `os.environ.setdefault(\n    "DJANGO_SETTINGS_MODULE",\n    "mysite.settings",\n)\n`
	servers := []string{"gunicorn", "uvicorn", "celery"}
	for i, name := range servers {
		servers[i] = "usr/local/bin/" + name + `: #!/usr/local/bin/python3\n`
	}
	project := []string{"app/manage.py: " + manage, "app/mysite/settings.py", "app/mysite/wsgi.py: " + manage}
	for _, tt := range []struct {
		name  string
		files []string
		env   []string
		cmd   string
		want  Django
	}{
		{"none", nil, nil, "gunicorn app:app", Django{}},
		{"manage.py", project, nil, "python manage.py runserver", Django{Settings: "mysite.settings", Source: "/app/manage.py", File: "/app/mysite/settings.py"}},
		{"server", project, nil, "gunicorn -w 2 mysite.wsgi:application", Django{Settings: "mysite.settings", Source: "/app/mysite/wsgi.py", File: "/app/mysite/settings.py"}},
		{"environment", project, []string{"DJANGO_SETTINGS_MODULE=mysite.prod"}, "python manage.py", Django{Settings: "mysite.prod", FromEnv: true}},
		{"environment, package", append(slices.Clone(project), "app/mysite/prod/__init__.py"), []string{"DJANGO_SETTINGS_MODULE=mysite.prod"}, "python manage.py", Django{Settings: "mysite.prod", FromEnv: true, File: "/app/mysite/prod/__init__.py"}},
		{"environment of a launcher", project, nil, "env DJANGO_SETTINGS_MODULE=mysite.settings python manage.py", Django{Settings: "mysite.settings", FromEnv: true, File: "/app/mysite/settings.py"}},
		{"in PYTHONPATH", []string{"app/manage.py: " + manage, "src/mysite/settings.py"}, []string{"PYTHONPATH=/src"}, "python manage.py", Django{Settings: "mysite.settings", Source: "/app/manage.py", File: "/src/mysite/settings.py"}},
		{"beside the script", []string{"app/src/manage.py: " + manage, "app/src/mysite/settings.py"}, nil, "python src/manage.py runserver", Django{Settings: "mysite.settings", Source: "/app/src/manage.py", File: "/app/src/mysite/settings.py"}},
		{"outside the working directory", []string{"srv/site/mysite/wsgi.py: " + manage, "srv/site/mysite/settings.py"}, nil, "gunicorn --chdir /srv/site mysite.wsgi", Django{Settings: "mysite.settings", Source: "/srv/site/mysite/wsgi.py", File: "/srv/site/mysite/settings.py"}},
		{"outside, in asgi.py", []string{"srv/site/mysite/asgi.py: " + manage}, nil, "uvicorn --app-dir=../srv/site mysite.asgi:app", Django{Settings: "mysite.settings", Source: "/srv/site/mysite/asgi.py"}},
		{"outside, in celery.py", []string{"srv/site/mysite/celery.py: " + manage}, nil, "celery --workdir /srv/site -A mysite worker", Django{Settings: "mysite.settings", Source: "/srv/site/mysite/celery.py"}},
		{"an option", project, []string{"DJANGO_SETTINGS_MODULE=mysite.prod"}, "python manage.py runserver --settings=mysite.settings", Django{Settings: "mysite.settings", Source: "--settings", File: "/app/mysite/settings.py"}},
		{"not importable", []string{"app/src/mysite/wsgi.py: " + manage, "app/src/mysite/settings.py"}, nil, "gunicorn src.mysite.wsgi", Django{Settings: "mysite.settings", Source: "/app/src/mysite/wsgi.py"}},
		{"several", append(slices.Clone(project), `app/other/asgi.py: os.environ['DJANGO_SETTINGS_MODULE'] = 'other.settings'\n`), nil, "gunicorn -c conf.py", Django{Others: []string{"mysite.settings", "other.settings"}}},
		{"several, one started", append(slices.Clone(project), `app/other/asgi.py: os.environ['DJANGO_SETTINGS_MODULE'] = 'other.settings'\n`), nil, "uvicorn other.asgi:app", Django{Settings: "other.settings", Source: "/app/other/asgi.py", Others: []string{"mysite.settings"}}},
		{"several, a module", append(slices.Clone(project), `app/other/asgi.py: os.environ['DJANGO_SETTINGS_MODULE'] = 'other.settings'\n`), nil, "gunicorn -w 2 other.asgi", Django{Settings: "other.settings", Source: "/app/other/asgi.py", Others: []string{"mysite.settings"}}},
		{"several, Celery", append(slices.Clone(project), `app/other/celery.py: os.environ['DJANGO_SETTINGS_MODULE'] = 'other.settings'\n`), nil, "celery -A other worker", Django{Settings: "other.settings", Source: "/app/other/celery.py", Others: []string{"mysite.settings"}}},
	} {
		e, err := Inspect(Config{Cmd: strings.Fields(tt.cmd), Env: tt.env, WorkingDir: "/app"}, files(t, slices.Concat(dockerPython, servers, tt.files)...), Options{})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got, want := fmt.Sprintf("%+v", e.Django), fmt.Sprintf("%+v", tt.want); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, got, want)
		}
	}
}

func TestOption(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"-k gevent app:app", "gevent"},
		{"-kgevent", "gevent"},
		{"--worker-class=gevent --reload", "gevent"},
		{"--worker-class sync -k gevent", "gevent"},
		{"--worker-class-of gevent", ""},
		{"app:app -k", ""},
		{"", ""},
	} {
		if got := (Command{ProgramArgs: strings.Fields(tt.args)}).Option("-k", "--worker-class"); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.args, got, tt.want)
		}
	}
}

func TestStarts(t *testing.T) {
	image := append(slices.Clone(dockerPython),
		`app/health.sh: #!/bin/sh\ncurl -f localhost || exec python3 /app/check.py --port "$PORT"\n`,
		"usr/local/bin/check: #!/usr/local/bin/python3\n", "usr/bin/curl: ELF")
	for _, tt := range []struct {
		argv []string
		want string
	}{
		{[]string{"python3", "-u", "check.py", "--fast"}, "check.py --fast"},
		{[]string{"/bin/sh", "-c", "check 8000 && python -m app.health || exit 1"}, "check 8000, app.health"},
		{[]string{"/app/health.sh"}, "check.py --port 8000"},
		{[]string{"curl", "-f", "http://localhost/"}, ""},
		{[]string{"python3", "-c", "pass"}, "-c"},
		{nil, ""},
	} {
		var got []string
		for _, c := range Starts(Config{WorkingDir: "/app", Env: []string{"PORT=8000"}}, files(t, image...), tt.argv) {
			got = append(got, strings.Join(append([]string{c.Program}, c.ProgramArgs...), " "))
		}
		if list := strings.Join(got, ", "); list != tt.want {
			t.Errorf("%q starts %q, want %q", tt.argv, list, tt.want)
		}
	}
}
