package bundle

import (
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

func launch() Launch {
	return Launch{
		Interpreter: "/opt/venv/bin/python",
		Scripts:     "/opt/venv/bin",
		Wrap: Wrap{
			Version:          1,
			Imgwrap:          "v0.1.0",
			Release:          "1.2.0",
			Contrib:          "0.3b0",
			Bundle:           "/opt/imgwrap/otel-1.2.0",
			Python:           PythonRange{"3.8", "3.14"},
			Interpreter:      "/opt/venv/bin/python",
			Instrumentations: []string{"flask", "requests"},
			Options:          []string{"OTEL_SERVICE_NAME"},
		},
		Excluded: []string{"other-1.0.dist-info"},
	}
}

func TestLaunchLayer(t *testing.T) {
	l := launch()
	l.Parents = []layer.Entry{
		{Path: "opt/venv", Mode: fs.ModeDir | 0o750, UID: 1000, GID: 1001, ModTime: layer.Epoch},
		{Path: "opt", Mode: fs.ModeDir | fs.ModeSticky | 0o777, ModTime: layer.Epoch},
	}
	got, err := LaunchLayer(l)
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, contents(t, got), []string{
		"1777 0:0 opt/",
		"755 0:0 opt/imgwrap/",
		"755 0:0 opt/imgwrap/init/",
		"644 0:0 opt/imgwrap/init/sitecustomize.py",
		"755 0:0 opt/imgwrap/otel-1.2.0/",
		"644 0:0 opt/imgwrap/otel-1.2.0/.wh.other-1.0.dist-info",
		"644 0:0 opt/imgwrap/wrap.json",
		"750 1000:1001 opt/venv/",
		"755 0:0 opt/venv/bin/",
		"755 0:0 opt/venv/bin/opentelemetry-instrument",
	})
	if got := read(t, got, "opt/imgwrap/init/sitecustomize.py"); got != string(loader) {
		t.Error("the loader isn't the one in the source")
	}
	if got := read(t, got, "opt/imgwrap/otel-1.2.0/.wh.other-1.0.dist-info"); got != "" {
		t.Errorf("a whiteout has the content %q", got)
	}
	want := `{
  "version": 1,
  "imgwrap": "v0.1.0",
  "release": "1.2.0",
  "contrib": "0.3b0",
  "bundle": "/opt/imgwrap/otel-1.2.0",
  "python": {
    "min": "3.8",
    "max": "3.14"
  },
  "interpreter": "/opt/venv/bin/python",
  "instrumentations": [
    "flask",
    "requests"
  ],
  "options": [
    "OTEL_SERVICE_NAME"
  ]
}
`
	if got := read(t, got, "opt/imgwrap/wrap.json"); got != want {
		t.Errorf("wrap.json is\n%s\nwant\n%s", got, want)
	}

	again, err := LaunchLayer(l)
	if err != nil || again.Info() != got.Info() {
		t.Errorf("the second time: %v, %v; want %v", again.Info(), err, got.Info())
	}
}

func TestGenericLaunch(t *testing.T) {
	r := &catalog.Release{
		Version:     "1.2.0",
		Contrib:     "0.3b0",
		Python:      catalog.Python{Min: "3.8", Max: "3.14"},
		Environment: []string{"OTEL_SERVICE_NAME"},
		Instrumentations: []catalog.Instrumentation{
			{Name: "flask", Modules: []string{"flask"}},
			{Name: "click", Modules: []string{"click", "flask"}},
			{Name: "system_metrics", Modules: []string{}},
		},
	}
	got, err := LaunchLayer(GenericLaunch(r))
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, contents(t, got), []string{
		"755 0:0 opt/",
		"755 0:0 opt/imgwrap/",
		"755 0:0 opt/imgwrap/bin/",
		"755 0:0 opt/imgwrap/bin/opentelemetry-instrument",
		"755 0:0 opt/imgwrap/init/",
		"644 0:0 opt/imgwrap/init/sitecustomize.py",
		"644 0:0 opt/imgwrap/wrap.json",
	})
	_, rest, _ := strings.Cut(launcherSource, "\n")
	if got, want := read(t, got, "opt/imgwrap/bin/opentelemetry-instrument"), "#!/usr/bin/env python3\n"+strip(rest); got != want {
		t.Errorf("the launcher begins with %.150q", got)
	}
	if got := read(t, got, "opt/imgwrap/init/sitecustomize.py"); got != string(loader) {
		t.Error("the loader isn't the one in the source")
	}
	want := `{
  "version": 1,
  "imgwrap": "",
  "release": "1.2.0",
  "contrib": "0.3b0",
  "bundle": "/opt/imgwrap/otel-1.2.0",
  "python": {
    "min": "3.8",
    "max": "3.14"
  },
  "interpreter": "",
  "instrumentations": [
    "flask",
    "click",
    "system_metrics"
  ],
  "options": [
    "OTEL_SERVICE_NAME"
  ],
  "modules": {
    "click": [
      "click",
      "flask"
    ],
    "flask": [
      "flask"
    ]
  },
  "generic": true,
  "everywhere": true
}
`
	if got := read(t, got, "opt/imgwrap/wrap.json"); got != want {
		t.Errorf("wrap.json is\n%s\nwant\n%s", got, want)
	}
}

func TestLaunchLayerEmpty(t *testing.T) {
	l := launch()
	l.Excluded = nil
	l.Wrap = Wrap{Bundle: l.Wrap.Bundle}
	got, err := LaunchLayer(l)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, got, "opt/imgwrap/wrap.json"); !strings.Contains(got, `"instrumentations": [],`) || strings.Contains(got, "null") {
		t.Errorf("wrap.json is\n%s", got)
	}
	for _, line := range contents(t, got) {
		if strings.Contains(line, "otel-1.2.0") {
			t.Errorf("%s in a layer that hides nothing", line)
		}
	}
}

func TestLaunchLayerShebang(t *testing.T) {
	first, rest, _ := strings.Cut(launcherSource, "\n")
	rest = strip(rest)
	flags, ok := strings.CutPrefix(first, "#!python ")
	if !ok || flags == "" {
		t.Fatalf("launcher.py begins with %q", first)
	}
	short := "/" + strings.Repeat("p", maxShebang-len("#! \n")-len(flags)-1)
	for interpreter, link := range map[string]bool{
		"/opt/venv/bin/python":   false,
		short:                    false,
		short + "p":              true,
		"/opt/my env/bin/python": true,
		"/opt/a\tb/bin/python":   true,
		"/opt/a\nb/bin/python":   true,
	} {
		l := launch()
		l.Interpreter = interpreter
		got, err := LaunchLayer(l)
		if err != nil {
			t.Fatal(err)
		}
		name := interpreter
		if link {
			name = "/opt/imgwrap/python"
		}
		script := read(t, got, "opt/venv/bin/opentelemetry-instrument")
		if want := "#!" + name + " " + flags + "\n" + rest; script != want {
			t.Errorf("%q: the launcher begins with %.150q", interpreter, script)
		}
		var linked bool
		for _, line := range contents(t, got) {
			if strings.Contains(line, "opt/imgwrap/python") {
				linked = true
				if want := "777 0:0 opt/imgwrap/python -> " + interpreter; line != want {
					t.Errorf("entry %q, want %q", line, want)
				}
			}
		}
		if linked != link {
			t.Errorf("%q: link %t, want %t", interpreter, linked, link)
		}
	}
}

func TestLaunchLayerRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		edit func(*Launch)
		want string
	}{
		"relative interpreter": {func(l *Launch) { l.Interpreter = "python" }, `"python" is not a clean absolute path`},
		"no interpreter":       {func(l *Launch) { l.Interpreter = "" }, `"" is not a clean absolute path`},
		"unclean scripts":      {func(l *Launch) { l.Scripts = "/opt/../bin" }, `"/opt/../bin" is not a clean absolute path`},
		"root":                 {func(l *Launch) { l.Scripts = "/" }, `"/" is not a clean absolute path`},
		"no bundle":            {func(l *Launch) { l.Wrap.Bundle = "" }, `"" is not a clean absolute path`},
		"whiteout elsewhere":   {func(l *Launch) { l.Excluded = []string{"../x.dist-info"} }, `"../x.dist-info" is not the name of a metadata directory`},
		"whiteout of a module": {func(l *Launch) { l.Excluded = []string{"requests"} }, `"requests" is not the name of a metadata directory`},
		"whiteout twice":       {func(l *Launch) { l.Excluded = append(l.Excluded, l.Excluded...) }, "duplicate path"},
		"parent is a link": {func(l *Launch) {
			l.Parents = []layer.Entry{{Path: "opt/venv", Mode: fs.ModeSymlink, ModTime: time.Now()}}
		}, "opt/venv is not a directory in the image"},
	} {
		t.Run(name, func(t *testing.T) {
			l := launch()
			tt.edit(&l)
			_, err := LaunchLayer(l)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestPathFile(t *testing.T) {
	const file = "/opt/venv/lib/python3.11/site-packages/imgwrap.pth"
	entries, err := launchEntries(Launch{
		Interpreter: "/opt/venv/bin/python", Scripts: "/opt/venv/bin", PathFile: file,
		Wrap: Wrap{Bundle: Root + "/otel-1.27.0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	content := ""
	for _, e := range entries {
		if "/"+e.Path == file {
			content = string(e.Data)
		}
	}
	// site.py runs a line of a .pth file only if it starts with import.
	if !strings.HasPrefix(content, "import ") || strings.Count(content, "\n") != 1 || !strings.Contains(content, InitDir) {
		t.Errorf("%s is %q", file, content)
	}
}
