package python

import (
	"path"
	"slices"
	"strings"
)

// pathBuilder puts together sys.path as the interpreter and its site module
// do, without the standard library.
type pathBuilder struct {
	image
	interpreter Interpreter
	command     Command
	env         environ
	dir         string
	user        string // of the image's configuration

	dirs []string
	seen map[string]bool // by path without symbolic links: lib64 often leads to lib
}

// sites returns the directories before the standard library and those after
// it.
func (b *pathBuilder) sites() (front, rest []string) {
	b.seen = map[string]bool{}
	isolated := b.command.Isolated()
	if d := b.programDir(); d != "" && b.hasDistributions(d) {
		b.add(d)
	}
	if d := b.env.get("LAMBDA_TASK_ROOT"); d != "" { // AWS Lambda's runtime puts it first
		b.add(d)
	}
	if !isolated {
		if list := b.env.get("PYTHONPATH"); list != "" {
			for _, d := range strings.Split(list, ":") {
				b.add(absolute(b.dir, d))
			}
		}
	}
	front, b.dirs = b.dirs, nil
	if b.command.NoSite() {
		return front, nil
	}
	i := b.interpreter
	system := true
	if i.Prefix != i.BasePrefix {
		_, cfg := b.pyvenv(i.Path)
		system = strings.EqualFold(cfg["include-system-site-packages"], "true")
		b.addSites(i.Prefix, true)
	}
	if system {
		if d := b.userSite(); d != "" {
			b.addSite(d)
		}
		if i.BasePrefix == "/usr" && b.hasLib64(i) {
			b.addSites("/usr/local", false) // Fedora's packages do that
		}
		b.addSites(i.BasePrefix, false)
	}
	return front, b.dirs
}

// programDir is the first entry of sys.path, "" if there is none.
func (b *pathBuilder) programDir() string {
	c := b.command
	if c.hasFlag('I') || c.hasFlag('P') || b.env.get("PYTHONSAFEPATH") != "" && !c.Isolated() {
		return ""
	}
	if c.Script == "" || addsWorkingDir[c.Program] {
		return b.dir
	}
	if f, err := b.Stat(c.Script); err == nil {
		if f.Mode.IsDir() || len(f.Inside) > 0 { // with a __main__.py inside
			return c.Script
		}
		return path.Dir(f.Path)
	}
	return path.Dir(c.Script)
}

// addsWorkingDir are programs that put the working directory on sys.path.
var addsWorkingDir = map[string]bool{"gunicorn": true, "uvicorn": true, "hypercorn": true, "flask": true, "celery": true, "daphne": true, "granian": true, "uwsgi": true}

func (b *pathBuilder) hasDistributions(dir string) bool {
	f, err := b.Stat(dir)
	return err == nil && len(f.Inside) > 0 || slices.ContainsFunc(b.list(dir), isMetadata)
}

// addSites adds the site directories of a prefix (site.getsitepackages, with
// the changes that distributions make to it).
func (b *pathBuilder) addSites(prefix string, venv bool) {
	i := b.interpreter
	lib := i.libraryName()
	if !venv && b.isDebian(i) {
		b.addSite(path.Join(prefix, "local/lib", lib, "dist-packages"))
		b.addSite(path.Join(prefix, "lib/python3/dist-packages"))
		b.addSite(path.Join(prefix, "lib", lib, "dist-packages"))
		return
	}
	if b.hasLib64(i) {
		b.addSite(path.Join(prefix, "lib64", lib, "site-packages"))
	}
	b.addSite(path.Join(prefix, "lib", lib, "site-packages"))
	if i.Implementation == "pypy" {
		b.addSite(path.Join(prefix, "site-packages"))
	}
}

func (b *pathBuilder) add(dir string) bool {
	p, err := b.Resolve(dir)
	if err != nil || b.seen[p] {
		return false
	}
	if f, err := b.Stat(p); err != nil || !f.Mode.IsDir() && len(f.Inside) == 0 {
		return false
	}
	b.seen[p] = true
	b.dirs = append(b.dirs, dir)
	return true
}

// addSite adds a site directory and what the path files in it say
// (site.addsitedir).
func (b *pathBuilder) addSite(dir string) {
	if !b.add(dir) {
		return
	}
	for _, name := range b.list(dir) {
		if path.Ext(name) != ".pth" || strings.HasPrefix(name, ".") {
			continue
		}
		text, err := b.ReadFile(path.Join(dir, name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimRight(line, " \t\r\n")
			if line == "" || line[0] == '#' || strings.HasPrefix(line, "import ") || strings.HasPrefix(line, "import\t") || strings.ContainsRune(line, 0) {
				continue
			}
			b.add(absolute(dir, line))
		}
	}
}

// userSite returns the user's site directory if it is certain that it is used.
func (b *pathBuilder) userSite() string {
	c := b.command
	if c.hasFlag('s') || c.hasFlag('I') || !c.hasFlag('E') && b.env.get("PYTHONNOUSERSITE") != "" {
		return ""
	}
	base := ""
	if !c.hasFlag('E') {
		base = b.env.get("PYTHONUSERBASE")
	}
	if base == "" {
		home := b.home()
		if home == "" {
			return ""
		}
		base = path.Join(home, ".local")
	}
	return path.Join(base, "lib", b.interpreter.libraryName(), "site-packages")
}

// home returns the home directory of the image's user.
func (b *pathBuilder) home() string {
	if h := b.env.get("HOME"); h != "" {
		return h
	}
	user, _, _ := strings.Cut(b.user, ":")
	if user == "" {
		user = "0"
	}
	text, _ := b.ReadFile("/etc/passwd")
	for line := range strings.Lines(string(text)) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) == 7 && (f[0] == user || f[2] == user) {
			return f[5]
		}
	}
	if user == "0" || user == "root" {
		return "/root"
	}
	return ""
}

// modules returns the files of a module or package in each of dirs that has
// it.
func (im image) modules(name string, dirs []string) []string {
	var files []string
	name = strings.ReplaceAll(name, ".", "/")
	for _, d := range dirs {
		for _, f := range []string{name + "/__init__.py", name + ".py"} {
			if p := path.Join(d, f); im.isFile(p) {
				files = append(files, p)
				break
			}
		}
	}
	return files
}
