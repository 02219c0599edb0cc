package requirements

import (
	"errors"
	"strings"
	"testing"
)

func TestCondaEditing(t *testing.T) {
	begin := "# imgwrap:begin" + written
	for _, tt := range []struct{ name, src, want string }{
		{
			"a list for pip",
			"name: shop\ndependencies:\n  - python=3.11\n  - pip\n  - pip:\n    - flask==3.0  # web\n    # and\n    - redis\nprefix: /opt\n",
			"name: shop\ndependencies:\n  - python=3.11\n  - pip\n  - pip:\n    - flask==3.0  # web\n    # and\n    - redis\n    " + begin +
				"\n    - opentelemetry-distro==0.66b1\n    - opentelemetry-instrumentation-flask==0.66b1\n    # imgwrap:end\nprefix: /opt\n",
		},
		{
			"none, and no pip",
			"dependencies:\n- python=3.11\n- flask\n",
			"dependencies:\n- python=3.11\n- flask\n" + begin + "\n- pip\n- pip:\n  - opentelemetry-distro==0.66b1\n  - opentelemetry-instrumentation-flask==0.66b1\n# imgwrap:end\n",
		},
		{
			"none, with pip, no line end at the end",
			"dependencies:\n  - pip\n  - flask",
			"dependencies:\n  - pip\n  - flask\n  " + begin + "\n  - pip:\n    - opentelemetry-distro==0.66b1\n    - opentelemetry-instrumentation-flask==0.66b1\n  # imgwrap:end",
		},
		{
			"an empty one",
			"dependencies:\n  - pip:\n  - flask\n",
			"dependencies:\n  - pip:\n  " + begin + "\n      - opentelemetry-distro==0.66b1\n      - opentelemetry-instrumentation-flask==0.66b1\n  # imgwrap:end\n  - flask\n",
		},
		{
			"CRLF, and letters of more than one byte",
			"# Größe: schön\r\nname: \"häkelladen\"\r\ndependencies:\r\n    -   pip\r\n    -   pip:\r\n        -   flask   # ✓ läuft\r\n",
			"# Größe: schön\r\nname: \"häkelladen\"\r\ndependencies:\r\n    -   pip\r\n    -   pip:\r\n        -   flask   # ✓ läuft\r\n        " + begin +
				"\r\n        - opentelemetry-distro==0.66b1\r\n        - opentelemetry-instrumentation-flask==0.66b1\r\n        # imgwrap:end\r\n",
		},
		{
			"something behind it",
			"dependencies:\n  - pip:\n      - flask\n\n  # numbers\n  - numpy\nvariables:\n  A: b\n",
			"dependencies:\n  - pip:\n      - flask\n      " + begin + "\n      - opentelemetry-distro==0.66b1\n      - opentelemetry-instrumentation-flask==0.66b1\n      # imgwrap:end\n\n  # numbers\n  - numpy\nvariables:\n  A: b\n",
		},
		{
			"something behind it, no line end at the end",
			"dependencies:\n- pip:\n  - flask\nprefix: /x",
			"dependencies:\n- pip:\n  - flask\n  " + begin + "\n  - opentelemetry-distro==0.66b1\n  - opentelemetry-instrumentation-flask==0.66b1\n  # imgwrap:end\nprefix: /x",
		},
	} {
		t.Run(tt.name, func(t *testing.T) { checkEdits(t, conda{}, tt.src, tt.want) })
	}
}

func TestCondaProblems(t *testing.T) {
	for _, tt := range []struct {
		src, problem string
		line         int
	}{
		{"name: x\n", "no dependencies", 1},
		{"dependencies:\n  python: 3\n", "no list", 2},
		{"dependencies: [python, flask]\n", "one element in each line", 1},
		{"dependencies:\n  - pip: [flask]\n", "one element in each line", 2},
		{"dependencies:\n  - python\n  - flask\n  - pip: []\n", "in brackets", 4},
		{"dependencies: []\n", "in brackets", 1},
		{"dependencies:\n  - python\n  - flask: [\n", "did not find", 3},
		{"dependencies:\n  - python\n  - {flask: 1}\n", "a name with a version", 3},
		{"dependencies:\n  - pip:\n    - flask==1.x\n", "1.x", 3},
		{"dependencies:\n  - a\nname: x\nname: y\n", "already defined", 4},
		{"dependencies:\n  - pip:\n    - >-\n      flask\n", "cannot be added behind", 3},
	} {
		_, err := conda{}.add([]byte(tt.src), webPackages)
		var problem *SyntaxError
		if !errors.As(err, &problem) || problem.Line != tt.line || !strings.Contains(problem.Problem, tt.problem) {
			t.Errorf("%q: %v, want line %d: %s", tt.src, err, tt.line, tt.problem)
		}
	}
}

func TestCondaRequirement(t *testing.T) {
	for spec, want := range map[string]string{
		"flask":                       "flask",
		"flask=3.0":                   "flask==3.0.*",
		"flask=3.0.*":                 "flask==3.0.*",
		"flask==3.0.3":                "flask==3.0.3",
		"conda-forge::numpy>=1.2,<2":  "numpy>=1.2,<2",
		"numpy=1.21.2=py39h20f2e39_0": "numpy==1.21.2",
		"numpy 1.21.*":                "numpy==1.21.*",
		"numpy[version='>=1']":        "numpy",
		"numpy >=1.7|<2":              "numpy",
	} {
		req, ok := condaRequirement(spec)
		if got := req.Name + req.Specifiers.String(); !ok || got != want {
			t.Errorf("%s: %q, want %q", spec, got, want)
		}
	}
}

func FuzzConda(f *testing.F) {
	for _, seed := range []string{
		"dependencies:\n  - python=3.11\n  - pip\n  - pip:\n    - flask==3.0  # web\n",
		"dependencies:\n- a", "dependencies:\r\n- a\r\n- pip:\r\n", "a: &x [1]\ndependencies:\n  - pip:\n  - b\n---\nx\n",
		"dependencies:\n  - pip:\n    - é\u2028\n    - |\n      x\n", "dependencies:\n- - a\n", "dependencies:\n- pip: {}\n", "? dependencies\n:\n  - a\n",
		"dependencies:\n  - a\n  # imgwrap:begin\n  - pip\n  - pip:\n    - x==1\n  # imgwrap:end\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) { fuzzEditor(t, conda{}, src) })
}
