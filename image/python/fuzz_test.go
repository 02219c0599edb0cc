package python

import (
	"archive/tar"
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/imgwrap/imgwrap/image/scan"
)

// FuzzInspect runs any script, first line and path file: whatever they hold,
// there is an answer, in bounded time.
func FuzzInspect(f *testing.F) {
	f.Add("exec \"$@\"\n", "#!/bin/sh", "/srv\n", "gunicorn app:app")
	f.Add("case $1 in web) exec gunicorn;; *) . /run.sh;; esac\nf() { f; }\nf\n", "#!/usr/bin/env -S bash -e", "import x\n..\n", "")
	f.Add("cd \"$(dirname \"$0\")\" && A=${B:-x} ${1#-} ~/x {1..9} $((1+1)) <<E\nE\n", "#!/run.sh", "\x00", "-x")
	f.Add("a=x; a=$a$a$a$a; a=$a$a$a$a; eval \"$a\"; [[ $a == x* && -n $b ]] || python -c \"$a\"", "#!/bin/bash", "", "env -i A=b nice su -c x")
	f.Add("[[processes]]\ntype = \"web\"\ncommand = [\"x\"]\n[[buildpacks]]\nid = \"x\"\n", "", "3.11", "")
	f.Add("[program:x]\ncommand=supervisord\n[include]\nfiles=/*/*\n", "", "3.11", "supervisord")
	f.Add("foreground { x }\ncd /\npython x\n", "", "system", "/init")
	f.Fuzz(func(t *testing.T, script, first, paths, command string) {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, file := range [][2]string{
			{"run.sh", first + "\n" + script},
			{"usr/local/bin/python3.11", "\x7fELF" + script},
			{"usr/local/lib/python3.11/site-packages/x.pth", paths},
			{"usr/local/lib/python3.11/site-packages/y-1.dist-info/METADATA", paths},
			{"opt/v/pyvenv.cfg", paths},
			{"opt/v/bin/python", "\x7fELF" + paths},
			{"cnb/lifecycle/launcher", "\x7fELF"},
			{"layers/config/metadata.toml", script},
			{"layers/x/y/env/PYTHONPATH.prepend", paths},
			{"etc/supervisord.conf", script},
			{"Procfile", script},
			{".python-version", paths},
			{"etc/services.d/web/run", "#!/command/execlineb -P\n" + script},
		} {
			w.WriteHeader(&tar.Header{Name: file[0], Mode: 0o755, Size: int64(len(file[1]))})
			w.Write([]byte(file[1]))
		}
		w.Close()
		l, err := scan.Read(context.Background(), &buf)
		if err != nil {
			t.Fatal(err)
		}
		config := Config{Entrypoint: []string{"/run.sh"}, Cmd: strings.Fields(command), Env: []string{"HOME=/root"}}
		for _, entry := range [][]string{{"/run.sh"}, {"sh", "-c", script}, strings.Fields(command), {"supervisord"}, {"honcho", "start"}, {"/init"}, {"pyenv", "exec", "python"}, {"/cnb/lifecycle/launcher"}, {"poetry", "run", "x"}} {
			config.Entrypoint = slices.Clone(entry)
			e, err := Inspect(config, scan.Merge(l), Options{})
			if err == nil && e.Interpreter.Path == "" {
				t.Errorf("%q: neither interpreter nor error", entry)
			}
		}
	})
}
