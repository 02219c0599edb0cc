package python

import (
	"crypto/sha256"
	"encoding/base64"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/layer/pep440"
)

// Tools that choose the environment a command runs in: those of projects,
// conda's, and pyenv.

// ancestors are a directory and those above it.
func ancestors(dir string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for d := dir; yield(d) && d != "/"; d = path.Dir(d) {
		}
	}
}

// project activates the environment in which a project's tool runs commands.
func (r *resolver) project(tool string, options []string, p process) outcome {
	dir := p.dir
	for _, name := range []string{"--directory", "-C", "--project", "-P", "-p"} {
		if d := optionValue(options, name); d != "" && (tool != "uv" || strings.HasPrefix(name, "--")) {
			dir = absolute(p.dir, d)
			if name == "--directory" || name == "-C" {
				p.dir = dir
			}
			break
		}
	}
	venvs := r.projectVenvs(tool, options, dir, p.env)
	switch {
	case len(venvs) == 1:
		p.step("%s runs it in %s", tool, venvs[0])
		p.env = activate(p.env, venvs[0])
	case len(venvs) > 1:
		return p.opaque("%s may run it in any of %s", tool, strings.Join(venvs, ", "))
	case tool == "pdm" && r.pypackages(&p, dir):
	case tool == "uv":
		p.doubts("uv finds no environment of the project: it makes one when the container starts")
	default:
		p.step("%s finds no virtual environment and runs it by PATH", tool)
	}
	return outcome{process: p}
}

// projectVenvs returns the virtual environments that may be the project's in
// dir: one if it is certain.
func (r *resolver) projectVenvs(tool string, options []string, dir string, env environ) []string {
	active := env.get("VIRTUAL_ENV")
	inProject := false
	for d := range ancestors(dir) {
		inProject = inProject || r.isFile(path.Join(d, "pyproject.toml"))
	}
	switch {
	case tool == "uv" && env.get("UV_PROJECT_ENVIRONMENT") != "":
		if prefix := absolute(dir, env.get("UV_PROJECT_ENVIRONMENT")); r.pythonIn(path.Join(prefix, "bin"), "") != "" {
			return []string{prefix} // which may be no virtual one, such as /usr/local
		}
	case (tool != "uv" || !inProject || slices.Contains(options, "--active")) && r.isVenv(active):
		return []string{active}
	}
	for d := range ancestors(dir) {
		venv := path.Join(d, ".venv")
		if r.isVenv(venv) {
			return []string{venv}
		}
		if b, err := r.ReadFile(venv); err == nil && tool == "pipenv" { // a file that names it
			if venv = strings.TrimSpace(string(b)); strings.Contains(venv, "/") {
				return []string{absolute(d, venv)}
			}
		}
		if b, err := r.ReadFile(path.Join(d, ".pdm-python")); err == nil && tool == "pdm" {
			if venv = path.Dir(path.Dir(strings.TrimSpace(string(b)))); r.isVenv(venv) {
				return []string{venv}
			}
		}
	}
	if tool == "uv" {
		return nil
	}
	return r.cachedVenvs(tool, dir, env)
}

// cachedVenvs returns the environments that poetry or pipenv keep outside of
// their projects, only the one of the project in dir if its name tells.
func (r *resolver) cachedVenvs(tool, dir string, env environ) []string {
	homes := []string{env.get("WORKON_HOME"), env.get("POETRY_VIRTUALENVS_PATH")}
	var all, own []string
	if r.venvs == nil {
		r.venvs = r.Find(isPyvenv)
	}
	for _, cfg := range r.venvs {
		venv := path.Dir(cfg)
		if home := path.Dir(venv); path.Base(home) == "virtualenvs" || slices.Contains(homes, home) {
			all = append(all, venv)
		}
	}
	if len(all) < 2 {
		return all
	}
	for d := range ancestors(dir) {
		key := d // of poetry
		if tool == "pipenv" {
			key = path.Join(d, "Pipfile")
		}
		sum := sha256.Sum256([]byte(key))
		hash := "-" + base64.URLEncoding.EncodeToString(sum[:])[:8]
		for _, venv := range all {
			name := path.Base(venv)
			if strings.HasSuffix(name, hash) || strings.Contains(name, hash+"-py") || name == env.get("PIPENV_CUSTOM_VENV_NAME") {
				own = append(own, venv)
			}
		}
		if own != nil {
			return own
		}
	}
	return all
}

// pypackages follows pdm into __pypackages__ (PEP 582): its packages come on
// sys.path by a sitecustomize module of pdm's.
func (r *resolver) pypackages(p *process, dir string) bool {
	for d := range ancestors(dir) {
		versions := r.list(path.Join(d, "__pypackages__"))
		if len(versions) != 1 {
			continue
		}
		packages := path.Join(d, "__pypackages__", versions[0])
		p.step("pdm runs it with %s", packages)
		p.doubts("pdm run puts %s behind what PYTHONPATH brings: start the app without pdm, with PYTHONPATH=%s/lib", packages, packages)
		p.env = p.env.with("PATH", path.Join(packages, "bin")+":"+p.env.get("PATH"))
		p.env = p.env.with("PYTHONPATH", strings.TrimSuffix(path.Join(packages, "lib")+":"+p.env.get("PYTHONPATH"), ":"))
		return true
	}
	return false
}

func activate(env environ, venv string) environ {
	return env.with("VIRTUAL_ENV", venv).with("PATH", path.Join(venv, "bin")+":"+env.get("PATH"))
}

func (im image) isVenv(dir string) bool {
	return dir != "" && im.isFile(path.Join(dir, "pyvenv.cfg"))
}

// conda follows conda run [-n NAME | -p PREFIX] command.
func (r *resolver) conda(name string, p process) outcome {
	options, args := splitOptions(p.args[2:], "-n --name -p --prefix --cwd -r --root-prefix -a --attach -e --env")
	if dir := optionValue(options, "--cwd"); dir != "" {
		p.dir = absolute(p.dir, dir)
	}
	prefix := optionValue(options, "-p", "--prefix")
	if prefix != "" {
		prefix = absolute(p.dir, prefix)
	} else {
		prefix = r.condaPrefix(p, optionValue(options, "-n", "--name"))
	}
	if len(args) == 0 || prefix == "" {
		return p.opaque("the environment in which %s runs commands can't be told", name)
	}
	p.args = args
	p.step("%s runs %s in %s", name, quote(args), prefix)
	p.env = activateConda(p.env, prefix)
	return outcome{process: p}
}

func activateConda(env environ, prefix string) environ {
	return env.with("CONDA_PREFIX", prefix).with("PATH", path.Join(prefix, "bin")+":"+env.get("PATH"))
}

func (r *resolver) condaPrefix(p process, environment string) string {
	roots := []string{p.env.get("MAMBA_ROOT_PREFIX"), p.env.get("CONDA_ROOT")}
	if exe := r.lookPath(p.args[0], p.env.get("PATH"), p.dir); exe != "" {
		roots = append(roots, path.Dir(path.Dir(exe)))
	}
	for _, root := range append(roots, "/opt/conda", "/opt/miniconda3") {
		if root == "" || !r.isDir(root) {
			continue
		}
		if environment == "" || environment == "base" {
			return root
		}
		if d := path.Join(root, "envs", environment); r.isDir(d) {
			return d
		}
	}
	return ""
}

// pyenv follows pyenv exec, which is what pyenv's shims start.
func (r *resolver) pyenv(p process) outcome {
	if len(p.args) < 3 || p.args[1] != "exec" {
		return p.opaque("pyenv is not given a command")
	}
	root := p.env.get("PYENV_ROOT")
	for _, suffix := range []string{"/libexec/pyenv", "/bin/pyenv"} {
		if d, ok := strings.CutSuffix(p.args[0], suffix); ok && root == "" {
			root = d
		}
	}
	if root == "" {
		root = path.Join(p.env.get("HOME"), ".pyenv")
	}
	versions, origin := r.pyenvVersions(p, root)
	name := p.args[2]
	for _, v := range versions {
		if v == "system" {
			var dirs []string
			for _, d := range strings.Split(p.env.get("PATH"), ":") {
				if absolute(p.dir, d) != path.Join(root, "shims") {
					dirs = append(dirs, d)
				}
			}
			env := p.env.with("PATH", strings.Join(dirs, ":"))
			if file := r.lookPath(name, env.get("PATH"), p.dir); file != "" {
				p.step("pyenv starts the system's %s, by %s", file, origin)
				p.args, p.env = append([]string{file}, p.args[3:]...), env
				return outcome{process: p}
			}
			continue
		}
		bin := path.Join(root, "versions", r.pyenvVersion(root, v), "bin")
		if file := path.Join(bin, name); r.executable(file) {
			p.step("pyenv starts %s, by %s", file, origin)
			p.args = append([]string{file}, p.args[3:]...)
			p.env = p.env.with("PATH", bin+":"+p.env.get("PATH"))
			return outcome{process: p}
		}
	}
	return p.opaque("pyenv has no %s in version %s, which %s chooses", name, strings.Join(versions, ", "), origin)
}

// pyenvVersions returns the versions that pyenv chooses from, and what names
// them.
func (r *resolver) pyenvVersions(p process, root string) (versions []string, origin string) {
	if v := p.env.get("PYENV_VERSION"); v != "" {
		return strings.Split(v, ":"), "PYENV_VERSION"
	}
	dir := p.dir
	if d := p.env.get("PYENV_DIR"); d != "" {
		dir = absolute(dir, d)
	}
	files := []string{}
	for d := range ancestors(dir) {
		files = append(files, path.Join(d, ".python-version"))
	}
	for _, file := range append(files, path.Join(root, "version")) {
		b, err := r.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			line, _, _ = strings.Cut(line, "#")
			versions = append(versions, strings.Fields(line)...)
		}
		if versions != nil {
			return versions, file
		}
	}
	return []string{"system"}, "default"
}

// pyenvVersion completes "3.11" to the latest installed 3.11.x.
func (r *resolver) pyenvVersion(root, version string) string {
	version = strings.TrimPrefix(version, "python-")
	installed := r.list(path.Join(root, "versions"))
	if slices.Contains(installed, version) {
		return version
	}
	best, latest := version, pep440.Version{}
	for _, name := range installed {
		v, err := pep440.Parse(name)
		if err == nil && strings.HasPrefix(name, version+".") && (best == version || v.Compare(latest) > 0) {
			best, latest = name, v
		}
	}
	return best
}
