package python

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/layer/pep508"
)

// choose takes the interpreter that an image most likely starts when its
// command does not tell: the only one, or the only one for which most speaks.
func (im image) choose(out outcome, dir string) (Candidate, error) {
	candidates := im.candidates(out.env)
	if len(candidates) == 0 {
		return Candidate{}, &NoPythonError{
			Reason: out.opaque,
			Looked: []string{"python and python3 on PATH", "virtual environments (pyvenv.cfg)", "lib/python3.X directories with an interpreter in the bin directory beside them"},
		}
	}
	// A Python in which nothing is installed is there for another one's sake.
	if slices.ContainsFunc(candidates, func(c Candidate) bool { return c.Distributions > 0 }) {
		candidates = slices.DeleteFunc(candidates, func(c Candidate) bool { return c.Distributions == 0 })
	}
	score := map[string]int{}
	onPath := im.firstOnPath(out.env, dir)
	for i, c := range candidates {
		var why []string
		prefix := path.Dir(path.Dir(c.Path))
		if path.Dir(c.Path) == path.Dir(onPath) {
			why = append(why, "first on PATH")
		}
		if dir != "/" && strings.HasPrefix(c.Path, dir+"/") {
			why = append(why, "in the working directory")
		}
		if v := out.env.get("VIRTUAL_ENV"); v != "" && path.Clean(v) == prefix {
			why = append(why, "VIRTUAL_ENV")
		}
		candidates[i].Why = strings.Join(why, ", ")
		score[c.Path] = len(why)
	}
	slices.SortStableFunc(candidates, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(score[b.Path], score[a.Path]), cmp.Compare(a.Path, b.Path))
	})
	if len(candidates) > 1 && score[candidates[0].Path] == score[candidates[1].Path] {
		return Candidate{}, &AmbiguousError{Reason: out.opaque, Candidates: candidates}
	}
	return candidates[0], nil
}

func (im image) firstOnPath(env environ, dir string) string {
	for _, name := range []string{"python3", "python"} {
		if p := im.lookPath(name, env.get("PATH"), dir); p != "" {
			return p
		}
	}
	return ""
}

// candidates are the interpreters of an image with what speaks for them.
func (im image) candidates(env environ) []Candidate {
	var list []Candidate
	for _, i := range im.interpreters(env) {
		list = append(list, Candidate{Path: i.Path, Distributions: im.installed(i)})
	}
	return list
}

// pythonIn returns the interpreter in a bin directory: the one of the given
// name, or the one that a virtual environment has.
func (im image) pythonIn(bin, name string) string {
	names := []string{name}
	if name == "" {
		names = []string{"python", "python3", "pypy3"}
	}
	for _, n := range names {
		if p := path.Join(bin, n); im.executable(p) {
			return p
		}
	}
	if name != "" {
		// lib/python3.11 with bin/python or bin/python3 that are not links to python3.11.
		for _, n := range []string{"python3", "python"} {
			if p := path.Join(bin, n); im.executable(p) {
				if f, _ := im.Stat(p); !libName.MatchString(path.Base(f.Path)) {
					return p
				}
			}
		}
	}
	return ""
}

// installed counts an interpreter's distributions, those that only install
// others not included.
func (im image) installed(i Interpreter) int {
	b := pathBuilder{image: im, interpreter: i, env: environ{}, dir: "/", command: Command{Flags: []string{"-I"}}}
	_, sites := b.sites()
	if i.Prefix != i.BasePrefix {
		// What a venv sees of the system does not speak for the venv.
		sites = slices.DeleteFunc(sites, func(s string) bool { return !strings.HasPrefix(s, i.Prefix+"/") })
	}
	var ignored []string
	first, _ := im.distributions(sites, &ignored)
	n := 0
	for _, d := range first {
		switch pep508.Normalize(d.Name) {
		case "pip", "setuptools", "wheel", "distribute", "pkg-resources", "uv", "virtualenv":
		default:
			n++
		}
	}
	return n
}
