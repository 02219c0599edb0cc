package python

import (
	"path"
	"strings"
)

// image adds to a file system what is asked again and again.
type image struct{ Files }

func (im image) isDir(name string) bool {
	f, err := im.Stat(name)
	return err == nil && f.Mode.IsDir()
}

func (im image) isFile(name string) bool {
	f, err := im.Stat(name)
	return err == nil && f.Mode.IsRegular()
}

// list returns the names in a directory, none if there is no such directory.
func (im image) list(dir string) []string {
	names, _ := im.ReadDir(dir)
	return names
}

// defaultPath is what container runtimes set if the image has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookPath finds an executable as execvp does: "" if there is none.
func (im image) lookPath(name, pathList, dir string) string {
	if strings.Contains(name, "/") {
		if p := absolute(dir, name); im.executable(p) {
			return p
		}
		return ""
	}
	for _, d := range strings.Split(pathList, ":") {
		if p := path.Join(absolute(dir, d), name); name != "" && im.executable(p) {
			return p
		}
	}
	return ""
}

func (im image) executable(name string) bool {
	f, err := im.Stat(name)
	return err == nil && f.Mode.IsRegular() && f.Mode&0o111 != 0
}

// absolute makes a path absolute, relative ones being relative to dir. Dots
// are cleaned away only as words: links are not resolved.
func absolute(dir, p string) string {
	if !path.IsAbs(p) {
		p = dir + "/" + p
	}
	return path.Clean(p)
}

// environ holds environment variables. It is copied before it is changed.
type environ map[string]string

func newEnviron(list []string) environ {
	e := environ{}
	for _, kv := range list {
		if k, v, ok := strings.Cut(kv, "="); ok {
			e[k] = v
		}
	}
	if _, ok := e["PATH"]; !ok {
		e["PATH"] = defaultPath
	}
	return e
}

func (e environ) get(name string) string { return e[name] }

func (e environ) with(name, value string) environ {
	c := make(environ, len(e)+1)
	for k, v := range e {
		c[k] = v
	}
	c[name] = value
	return c
}

func (e environ) without(name string) environ {
	c := e.with(name, "")
	delete(c, name)
	return c
}
