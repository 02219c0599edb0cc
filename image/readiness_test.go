package image

import (
	"strings"
	"testing"

	"github.com/imgwrap/imgwrap/image/python"
)

func TestAssess(t *testing.T) {
	environment := func(edit func(*python.Environment)) *python.Environment {
		env := &python.Environment{
			Interpreter: python.Interpreter{Path: "/opt/venv/bin/python", Implementation: "cpython", Prefix: "/opt/venv"},
			Sites:       []string{"/app", "/opt/venv/lib/python3.11/site-packages", "/src/editable"},
		}
		edit(env)
		return env
	}
	for _, tt := range []struct {
		name       string
		activate   []Activation
		edit       func(*python.Environment)
		refused    string
		warning    string
		pathFile   string
		pythonPath bool
		keep       bool
	}{
		{name: "nothing special", edit: func(*python.Environment) {}},
		{
			name: "Lambda", edit: func(e *python.Environment) {
				e.Forms = []python.Form{{Kind: python.Lambda, Reason: "it is an image for AWS Lambda"}}
			},
			refused: "AWS Lambda",
		},
		{
			name: "pex", edit: func(e *python.Environment) {
				e.Forms = []python.Form{{Kind: python.Pex, Reason: "/app.pex is a pex file"}}
			},
			refused: "/app.pex is a pex file",
		},
		{
			name: "shiv", edit: func(e *python.Environment) {
				e.Forms = []python.Form{{Kind: python.Shiv, Reason: "/app.pyz unpacks itself"}}
			},
			warning: "/app.pyz unpacks itself",
		},
		{
			name: "buildpack", edit: func(e *python.Environment) {
				e.Forms = []python.Form{{Kind: python.Buildpack, Reason: "/cnb/process/web sets the environment"}}
			},
			warning: "/cnb/process/web sets the environment", pathFile: "/opt/venv/lib/python3.11/site-packages/imgwrap.pth", keep: true,
		},
		{
			name: "PYTHONPATH set anew", edit: func(e *python.Environment) { e.Command.PythonPathDropped = true },
			warning: "sets PYTHONPATH anew", pathFile: "/opt/venv/lib/python3.11/site-packages/imgwrap.pth",
		},
		{name: "another agent", edit: func(e *python.Environment) { e.Command.Agent = "ddtrace-run" }, refused: "ddtrace-run"},
		{name: "its own launcher", edit: func(e *python.Environment) { e.Command.Agent = "opentelemetry-instrument" }, warning: "takes its place"},
		{name: "PyPy", edit: func(e *python.Environment) { e.Interpreter.Implementation = "pypy" }, refused: "is pypy"},
		{name: "no ctypes", edit: func(e *python.Environment) { e.Interpreter.NoCtypes = true }, refused: "_ctypes"},
		{name: "no site", edit: func(e *python.Environment) { e.Command.Flags = []string{"-S"} }, refused: "runs with -S"},
		{name: "free-threaded", edit: func(e *python.Environment) { e.Interpreter.FreeThreaded = true }, warning: "free-threaded"},
		{
			name: "isolated", edit: func(e *python.Environment) { e.Command.Flags = []string{"-I"} },
			warning: "ignores PYTHONPATH", pathFile: "/opt/venv/lib/python3.11/site-packages/imgwrap.pth",
		},
		{
			name: "without an environment", edit: func(e *python.Environment) { e.Command.EnvCleared = true },
			warning: "clears its environment", pathFile: "/opt/venv/lib/python3.11/site-packages/imgwrap.pth",
		},
		{
			name: "isolated and nowhere to go", edit: func(e *python.Environment) { e.Command.Flags, e.Sites = []string{"-E"}, nil },
			refused: "no site directory",
		},
		{name: "by environment", activate: []Activation{ByEnvironment}, edit: func(*python.Environment) {}, pythonPath: true, keep: true},
		{name: "by both", activate: []Activation{ByEntrypoint, ByEnvironment}, edit: func(*python.Environment) {}, pythonPath: true},
		{
			name: "by environment, isolated", activate: []Activation{ByEnvironment},
			edit:    func(e *python.Environment) { e.Command.Flags = []string{"-E"} },
			warning: "ignores PYTHONPATH", pathFile: "/opt/venv/lib/python3.11/site-packages/imgwrap.pth", keep: true,
		},
		{
			name: "by environment, its own launcher", activate: []Activation{ByEnvironment},
			edit:    func(e *python.Environment) { e.Command.Agent = "opentelemetry-instrument" },
			warning: "left to it", pythonPath: true, keep: true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := assess(environment(tt.edit), Options{Activate: tt.activate})
			switch {
			case (r.refused == nil) != (tt.refused == ""):
				t.Errorf("refused: %v, want %q", r.refused, tt.refused)
			case r.refused != nil && !strings.Contains(r.refused.Error(), tt.refused):
				t.Errorf("refused: %v, want %q", r.refused, tt.refused)
			}
			if got := strings.Join(r.warnings, "\n"); !strings.Contains(got, tt.warning) || (got == "") != (tt.warning == "") {
				t.Errorf("warnings %q, want %q", got, tt.warning)
			}
			if r.keepEntrypoint != tt.keep {
				t.Errorf("keeps the entry point: %t, want %t", r.keepEntrypoint, tt.keep)
			}
			if r.pathFile != tt.pathFile {
				t.Errorf("path file %q, want %q", r.pathFile, tt.pathFile)
			}
			if r.pythonPath != tt.pythonPath {
				t.Errorf("by PYTHONPATH: %t, want %t", r.pythonPath, tt.pythonPath)
			}
			if got, want := r.everywhere(), tt.pythonPath || tt.pathFile != ""; got != want {
				t.Errorf("everywhere: %t, want %t", got, want)
			}
		})
	}
}
