package python

import (
	"path"
	"strings"
)

// Installation is a Python in an image, whether or not the image's command
// leads to it.
type Installation struct {
	Interpreter
	Sites         []string // as it would have them in the image's environment
	Distributions int      // in Sites, one for each name
}

// Interpreters lists the Pythons of an image: of virtual environments, beside
// standard libraries, and on PATH. It reads no more than names and metadata.
func Interpreters(config Config, files Files) []Installation {
	im := image{files}
	env := newEnviron(config.Env)
	var list []Installation
	for _, i := range im.interpreters(env) {
		b := pathBuilder{image: im, interpreter: i, env: env, dir: "/", user: config.User, command: Command{Flags: []string{"-P"}}}
		front, sites := b.sites()
		sites = append(front, sites...)
		var ignored []string
		first, _ := im.distributions(sites, &ignored)
		list = append(list, Installation{i, sites, len(first)})
	}
	return list
}

func isPyvenv(name []byte) bool { return string(name) == "pyvenv.cfg" }

// interpreters finds the interpreters of an image, one for each environment.
func (im image) interpreters(env environ) []Interpreter {
	var list []Interpreter
	seen := map[string]bool{}
	add := func(python, how string) {
		i := im.interpreter(python, env)
		i.How = how
		key := i.Prefix + " " + i.libraryName()
		if !seen[key] {
			seen[key] = true
			list = append(list, i)
		}
	}
	for _, cfg := range im.Find(isPyvenv) {
		if p := im.pythonIn(path.Join(path.Dir(cfg), "bin"), ""); p != "" {
			add(p, "virtual environment, by "+cfg)
		}
	}
	for _, lib := range im.Find(func(name []byte) bool { return libName.Match(name) }) {
		libDir := path.Dir(lib)
		if base := path.Base(libDir); base != "lib" && base != "lib64" || strings.Contains(lib, "/pkgs/") || !im.isDir(lib) {
			continue // /pkgs/ is conda's cache
		}
		if p := im.pythonIn(path.Join(path.Dir(libDir), "bin"), path.Base(lib)); p != "" {
			add(p, "beside the library "+lib)
		}
	}
	if p := im.firstOnPath(env, "/"); p != "" {
		if f, err := im.Stat(p); err == nil && !strings.HasPrefix(string(f.Content), "#!") {
			add(p, "by PATH")
		}
	}
	return list
}
