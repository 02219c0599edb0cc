package python

import (
	"path"
	"regexp"
	"strings"
)

// libName is the name of a standard library's directory below lib, and of an
// interpreter that tells its version.
var libName = regexp.MustCompile(`^(python|pypy)([0-9]+\.[0-9]+)(t?)$`)

// managedName is the directory of a Python that uv or pyenv installed.
var managedName = regexp.MustCompile(`/(?:cpython-|versions/)([0-9]+\.[0-9]+\.[0-9]+)`)

// interpreter describes the interpreter at p, which is not to be resolved
// before: what decides whether it is a virtual environment's is what stands
// beside the name by which it is run (PEP 405).
func (im image) interpreter(p string, env environ) Interpreter {
	i := Interpreter{Path: p, Implementation: "cpython"}
	realPath, err := im.Resolve(p)
	if err != nil {
		realPath = p
	}
	if b, err := im.ReadFile(realPath); err == nil {
		var linker string
		i.Architecture, linker = parseELF(b)
		i.Libc = libc(linker)
	}

	minor, thread := "", ""
	for _, name := range []string{path.Base(realPath), path.Base(p)} {
		if m := libName.FindStringSubmatch(name); m != nil && minor == "" {
			minor, thread = m[2], m[3]
		}
	}
	base := path.Dir(realPath)
	venv, cfg := im.pyvenv(p)
	exact := ""
	if venv != "" {
		if cfg["home"] != "" {
			base = cfg["home"]
		}
		exact = plainVersion(cfg["version"])
		if exact == "" {
			exact = plainVersion(cfg["version_info"])
		}
		if minor == "" {
			if _, lib := im.lib(venv, ""); lib != "" {
				m := libName.FindStringSubmatch(lib)
				minor, thread = m[2], m[3]
			} else {
				minor = firstTwo(exact)
			}
		}
	}
	if home := env.get("PYTHONHOME"); home != "" && venv == "" {
		base, _, _ = strings.Cut(home, ":")
	}
	name := ""
	if minor != "" {
		name = minor + thread
	}
	var lib string
	i.BasePrefix, lib = im.prefix(base, name)
	if lib != "" {
		m := libName.FindStringSubmatch(lib)
		minor, thread = m[2], m[3]
		if m[1] == "pypy" {
			i.Implementation = "pypy"
		}
	}
	if strings.HasPrefix(path.Base(realPath), "pypy") {
		i.Implementation = "pypy"
	}
	if i.BasePrefix == "" {
		i.BasePrefix = path.Dir(path.Dir(realPath))
	}
	i.FreeThreaded = thread != ""
	i.Prefix = i.BasePrefix
	if venv != "" {
		i.Prefix = venv
	}

	// The patch release, from whatever names it and agrees with the minor.
	i.Version = minor
	candidates := []string{exact}
	if m := managedName.FindStringSubmatch(realPath); m != nil {
		candidates = append(candidates, m[1])
	}
	if i.BasePrefix == "/usr/local" { // the docker-library images set it
		candidates = append(candidates, plainVersion(env.get("PYTHON_VERSION")))
	}
	for _, v := range candidates {
		if v != "" && (minor == "" || firstTwo(v) == minor) {
			i.Version = v
			break
		}
	}

	switch {
	case venv != "":
		i.Scripts = path.Join(venv, "bin")
	case im.isDebian(i):
		i.Scripts = "/usr/local/bin" // Debian's posix_local scheme
	case im.isDir(path.Join(i.Prefix, "bin")):
		i.Scripts = path.Join(i.Prefix, "bin")
	default:
		i.Scripts = path.Dir(p)
	}
	i.NoCtypes = im.noCtypes(i)
	return i
}

// pyvenv finds the pyvenv.cfg that belongs to an interpreter and returns the
// environment's directory and the file's settings, "" if there is none.
func (im image) pyvenv(python string) (string, map[string]string) {
	for _, dir := range []string{path.Dir(python), path.Dir(path.Dir(python))} {
		b, err := im.ReadFile(path.Join(dir, "pyvenv.cfg"))
		if err != nil {
			continue
		}
		cfg := map[string]string{}
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, "="); ok {
				cfg[strings.ToLower(strings.TrimSpace(k))] = strings.TrimSpace(v)
			}
		}
		return dir, cfg
	}
	return "", nil
}

// prefix searches for the standard library from dir upwards, as getpath does.
// minor is "3.11" or "3.13t", "" if not known.
func (im image) prefix(dir, minor string) (prefix, lib string) {
	for d := path.Clean("/" + dir); ; d = path.Dir(d) {
		if _, lib := im.lib(d, minor); lib != "" {
			return d, lib
		}
		if d == "/" {
			return "", ""
		}
	}
}

// lib returns the directory below prefix, "lib" or "lib64", and the name in it
// of the only standard library there, or of that for minor.
func (im image) lib(prefix, minor string) (dir, name string) {
	for _, dir := range []string{"lib", "lib64"} {
		var names []string
		for _, n := range im.list(path.Join(prefix, dir)) {
			if m := libName.FindStringSubmatch(n); m != nil && (minor == "" || m[2]+m[3] == minor) && im.isDir(path.Join(prefix, dir, n)) {
				names = append(names, n)
			}
		}
		if len(names) == 1 {
			return dir, names[0]
		}
		// Leftovers of other versions have site packages but no library.
		var full []string
		for _, n := range names {
			if im.isFile(path.Join(prefix, dir, n, "os.py")) {
				full = append(full, n)
			}
		}
		if len(full) == 1 {
			return dir, full[0]
		}
	}
	return "", ""
}

// libraryName returns the name of the interpreter's directories below lib.
func (i Interpreter) libraryName() string {
	name := "python"
	if i.Implementation == "pypy" {
		name = "pypy"
	}
	name += i.Minor()
	if i.FreeThreaded {
		name += "t"
	}
	return name
}

// stdlib returns the directories of the standard library.
func (im image) stdlib(i Interpreter) []string {
	var dirs []string
	for _, lib := range []string{"lib", "lib64"} {
		if d := path.Join(i.BasePrefix, lib, i.libraryName()); im.isDir(d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// hasLib64 reports whether the interpreter was built with lib64 as its
// sys.platlibdir, as Fedora's is.
func (im image) hasLib64(i Interpreter) bool {
	return !im.isFile(path.Join(i.BasePrefix, "lib", i.libraryName(), "os.py")) && im.isDir(path.Join(i.BasePrefix, "lib64", i.libraryName()))
}

// noCtypes reports whether the standard library comes with extension modules
// of which none is _ctypes. A statically linked one can't be seen.
func (im image) noCtypes(i Interpreter) bool {
	modules := 0
	for _, d := range im.stdlib(i) {
		for _, n := range im.list(path.Join(d, "lib-dynload")) {
			if strings.HasPrefix(n, "_ctypes") {
				return false
			}
			if path.Ext(n) == ".so" {
				modules++
			}
		}
	}
	return modules > 0
}

// isDebian reports whether the interpreter is that of Debian's packages, or of
// a distribution made from them, which have directories of their own.
func (im image) isDebian(i Interpreter) bool {
	if i.BasePrefix != "/usr" {
		return false
	}
	if im.isDir("/usr/lib/python3/dist-packages") || im.isDir("/usr/lib/"+i.libraryName()+"/dist-packages") {
		return true
	}
	b, _ := im.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		if (k == "ID" || k == "ID_LIKE") && strings.Contains(v, "debian") {
			return true
		}
	}
	return false
}

var versionStart = regexp.MustCompile(`^[0-9]+\.[0-9]+(\.[0-9]+)?(rc[0-9]+|[ab][0-9]+)?`)

// plainVersion cuts "3.11.2.final.0" and the like down to the release.
func plainVersion(v string) string { return versionStart.FindString(v) }

func firstTwo(v string) string { return Interpreter{Version: plainVersion(v)}.Minor() }
