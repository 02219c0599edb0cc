package scan

import (
	"bytes"
	"io/fs"
	"path"
	"strings"
)

// Sizes of what is kept, in bytes.
const (
	maxHeaders = 256 << 10 // metadata of one distribution, up to its first blank line
	maxText    = 64 << 10  // a script or a small text file
	maxHead    = 1 << 10   // scripts that are not for a shell
	maxELF     = 4 << 10   // program headers and the interpreter's name of a Python
	maxOther   = 64        // enough to tell what an executable is
)

// rule says how much of a file is kept.
type rule uint8

const (
	nothing  rule = iota
	headers       // name and version of a distribution
	whole         // all, if it is at most maxText
	settings      // all, if it is at most maxText and names Django's settings
	script        // a shell script, whatever its first line
	sniff         // decided by the first bytes
	zipped        // what a zip archive's directory tells
)

var djangoSettings = []byte("DJANGO_SETTINGS_MODULE")

// interest returns the rule for a regular file by its name (cleaned, without
// a leading slash), mode and size.
func interest(name string, mode fs.FileMode, size int64) rule {
	if size == 0 {
		return nothing
	}
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	switch base {
	case "METADATA":
		if strings.HasSuffix(dir, ".dist-info") {
			return headers
		}
	case "PKG-INFO":
		if strings.HasSuffix(dir, ".egg-info") || strings.HasSuffix(dir, "EGG-INFO") {
			return headers
		}
	case "pyvenv.cfg":
		return whole
	case "os-release", "passwd":
		if dir == "etc" || dir == "usr/lib" {
			return whole
		}
	case "manage.py", "wsgi.py", "asgi.py", "celery.py":
		return settings
	case "Procfile", ".python-version", ".pdm-python", ".venv":
		return whole
	case "version":
		if strings.Contains(path.Base(dir), "pyenv") {
			return whole
		}
	}
	if ofBuildpack(dir, base) || ofSupervisor(dir, base) || ofGunicorn(dir, base) {
		return whole
	}
	switch path.Ext(base) {
	case ".egg-info":
		return headers
	case ".pth":
		return whole
	case ".so":
		return nothing
	case ".sh":
		return script
	}
	if zipName(base) && !ofDistribution(dir) {
		return zipped
	}
	if mode&0o111 != 0 || !ofDistribution(dir) && !ofData(base) {
		return sniff
	}
	return nothing
}

// ofData reports whether a file is, by its name, something that is run neither by
// the kernel nor by a shell. There can be very many of them.
func ofData(base string) bool {
	switch strings.ToLower(path.Ext(base)) {
	case ".py", ".pyc", ".pyi", ".pyx", ".js", ".mjs", ".ts", ".map", ".css", ".scss", ".html", ".htm", ".xml",
		".json", ".jsonl", ".csv", ".tsv", ".parquet", ".npy", ".txt", ".md", ".rst", ".pdf", ".mo", ".po",
		".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".ico", ".woff", ".woff2", ".ttf", ".otf", ".mp3", ".mp4":
		return true
	}
	return false
}

// ofBuildpack reports whether a file holds what a Cloud Native Buildpacks
// launcher reads: the processes, or a variable that a layer sets (Buildpack
// Interface Specification, "Layer Types").
func ofBuildpack(dir, base string) bool {
	layer, ok := strings.CutPrefix(dir, "layers/")
	if !ok {
		return false
	}
	if layer == "config" {
		return base == "metadata.toml"
	}
	parts := strings.Split(layer, "/")
	return len(parts) == 3 && parts[2] == "env" || (len(parts) == 3 || len(parts) == 4) && parts[2] == "env.launch"
}

// ofSupervisor reports whether a file may list the programs of a process
// manager: supervisord or circusd.
func ofSupervisor(dir, base string) bool {
	if ext := path.Ext(base); ext != ".conf" && ext != ".ini" {
		return false
	}
	return strings.Contains(base, "supervisor") || strings.Contains(dir, "supervisor") || strings.HasPrefix(base, "circus")
}

// ofGunicorn reports whether a file is a configuration of gunicorn's:
// gunicorn.conf.py is read unless another one is named.
func ofGunicorn(dir, base string) bool {
	return strings.HasPrefix(base, "gunicorn") && path.Ext(base) == ".py" && !ofDistribution(dir)
}

// ofDistribution reports whether dir belongs to the operating system's
// packages or holds installed Python packages: nobody keeps an entrypoint
// without the executable bit there.
func ofDistribution(dir string) bool {
	if strings.Contains(dir, "site-packages") || strings.Contains(dir, "dist-packages") {
		return true
	}
	for _, d := range []string{"usr/lib", "usr/lib64", "usr/share", "usr/include", "lib", "lib64", "var/lib", "usr/src"} {
		if dir == d || strings.HasPrefix(dir, d+"/") {
			return true
		}
	}
	return false
}

// sniffed returns how many bytes to keep of an executable or a script, given
// its first bytes.
func sniffed(name string, first []byte) int {
	base := path.Base(name)
	switch {
	case bytes.HasPrefix(first, []byte("\x7fELF")):
		if strings.Contains(base, ".so.") {
			return 0
		}
		if strings.Contains(base, "python") || strings.Contains(base, "pypy") {
			return maxELF
		}
		return maxOther
	case bytes.HasPrefix(first, []byte("#!")):
		line, _, _ := bytes.Cut(first, []byte("\n"))
		if !bytes.Contains(line, []byte("sh")) {
			return maxHead
		}
		if ofSystem(name) {
			return maxELF
		}
		return maxText
	}
	return 0
}

// ofSystem reports whether a name is of the operating system's own tools.
func ofSystem(name string) bool {
	dir, _ := path.Split(name)
	switch dir {
	case "bin/", "sbin/", "usr/bin/", "usr/sbin/":
		return true
	}
	return false
}
