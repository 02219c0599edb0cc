package python

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// cnbLauncher is where Cloud Native Buildpacks put the program that starts an
// app's processes; /cnb/process/TYPE are links to it.
const cnbLauncher = "/cnb/lifecycle/launcher"

// cnbMetadata is what the launcher reads of metadata.toml.
type cnbMetadata struct {
	Processes  []cnbProcess
	Buildpacks []struct{ ID, API string }
}

type cnbProcess struct {
	Type       string
	Command    any // a string, or a list since Platform API 0.10
	Args       []string
	Direct     bool // not by a shell
	Default    bool
	WorkingDir string `toml:"working-dir"`
}

func (c cnbProcess) command() []string {
	switch v := c.Command.(type) {
	case string:
		return []string{v}
	case []any:
		var list []string
		for _, a := range v {
			list = append(list, fmt.Sprint(a))
		}
		return list
	}
	return nil
}

// buildpack follows the launcher, called by the given name (Cloud Native
// Buildpacks' Platform Interface Specification, "Launch").
func (r *resolver) buildpack(p process, name string) outcome {
	p.form(newForm(Buildpack, cnbLauncher))
	layers, app := p.env.get("CNB_LAYERS_DIR"), p.env.get("CNB_APP_DIR")
	if layers == "" {
		layers = "/layers"
	}
	if app == "" {
		app = "/workspace"
	}
	file := path.Join(layers, "config/metadata.toml")
	b, err := r.ReadFile(file)
	if err != nil {
		return p.opaque("the launcher of Cloud Native Buildpacks starts a process of %s, which can't be read", file)
	}
	var m cnbMetadata
	if err := toml.Unmarshal(b, &m); err != nil {
		return p.opaque("the launcher of Cloud Native Buildpacks starts a process of %s, which is not understood: %v", file, err)
	}
	process, ok := m.process(name, p.args[1:], p.env)
	command := process.command()
	if !ok || len(command) == 0 || command[0] == "" {
		return p.opaque("the launcher of Cloud Native Buildpacks finds no process %s in %s", quote([]string{name}), file)
	}
	for _, bp := range m.Buildpacks {
		dir := path.Join(layers, strings.ReplaceAll(bp.ID, "/", "_"))
		var layerDirs []string
		for _, n := range r.list(dir) {
			if d := path.Join(dir, n); r.isDir(d) {
				layerDirs = append(layerDirs, d)
			}
		}
		for _, d := range layerDirs {
			for _, v := range [][2]string{{"bin", "PATH"}, {"lib", "LD_LIBRARY_PATH"}} {
				if sub := path.Join(d, v[0]); r.isDir(sub) {
					p.env = p.env.with(v[1], joinNonEmpty(sub, ":", p.env.get(v[1])))
				}
			}
		}
		// Before Buildpack API 0.5 a file without suffix came before the rest.
		old := slices.Contains([]string{"0.2", "0.3", "0.4"}, bp.API)
		for _, d := range layerDirs {
			for _, sub := range []string{"env", "env.launch", "env.launch/" + process.Type} {
				p.env = r.cnbEnv(p.env, path.Join(d, sub), old)
			}
		}
	}
	p.dir = app
	if process.WorkingDir != "" {
		p.dir = absolute(app, process.WorkingDir)
	}
	p.args = slices.Concat(command, process.Args)
	p.step("the launcher of Cloud Native Buildpacks starts %s", quote(p.args))
	if !process.Direct && len(p.args) == 1 {
		p.args = []string{"bash", "-c", p.args[0]}
	}
	return outcome{process: p}
}

// process chooses what the launcher starts: the process it is named after, the
// default one, or the arguments.
func (m cnbMetadata) process(name string, args []string, env environ) (cnbProcess, bool) {
	find := func(match func(cnbProcess) bool) (cnbProcess, bool) {
		i := slices.IndexFunc(m.Processes, match)
		if i < 0 {
			return cnbProcess{}, false
		}
		return m.Processes[i], true
	}
	named := func(name string) func(cnbProcess) bool {
		return func(c cnbProcess) bool { return c.Type == name }
	}
	if name != path.Base(cnbLauncher) {
		c, ok := find(named(name))
		if _, list := c.Command.([]any); list && len(args) > 0 {
			c.Args = args // in place of the default arguments
		} else {
			c.Args = slices.Concat(c.Args, args)
		}
		return c, ok
	}
	switch {
	case len(args) == 0 && env.get("CNB_PROCESS_TYPE") != "":
		return find(named(env.get("CNB_PROCESS_TYPE")))
	case len(args) == 0:
		if c, ok := find(func(c cnbProcess) bool { return c.Default }); ok {
			return c, true
		}
		return find(named("web"))
	case args[0] == "--" && len(args) > 1:
		return cnbProcess{Command: args[1], Args: args[2:], Direct: true}, true
	}
	if c, ok := find(named(args[0])); ok && len(args) == 1 {
		return c, true
	}
	return cnbProcess{Command: args[0], Args: args[1:]}, true
}

// cnbEnv applies the files of a directory to the environment: NAME.action,
// with NAME.delim between the parts (Buildpack Interface Specification,
// "Environment Variable Modification Rules").
func (r *resolver) cnbEnv(env environ, dir string, old bool) environ {
	for _, file := range r.list(dir) {
		b, err := r.ReadFile(path.Join(dir, file))
		if err != nil || len(b) > maxValue || !r.spend(1) {
			continue
		}
		name, action, _ := strings.Cut(file, ".")
		delimiter, err := r.ReadFile(path.Join(dir, name+".delim"))
		if action == "" && !old {
			action = "override"
		}
		if action == "" && err != nil {
			delimiter = []byte(":")
		}
		value, is := string(b), env.get(name)
		switch action {
		case "prepend", "":
			value = joinNonEmpty(value, string(delimiter), is)
		case "append":
			value = joinNonEmpty(is, string(delimiter), value)
		case "override":
		case "default":
			if is != "" {
				continue
			}
		default:
			continue
		}
		if len(value) <= maxWord {
			env = env.with(name, value)
		}
	}
	return env
}

func joinNonEmpty(a, between, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + between + b
}
