package python

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// Process managers start several programs. What they inherit, they all get;
// what is asked here is which Python they run in.

// program is one of those that a process manager starts.
type program struct {
	name string
	args []string
	dir  string // "" for the manager's
	env  map[string]string
}

// manager returns the programs that a process manager starts, and where they
// are listed. It is not ok if name is no process manager.
func (r *resolver) manager(p process, name string, args []string) (programs []program, source string, ok bool) {
	switch name {
	case "supervisord":
		programs, source = r.supervisord(p, args)
	case "circusd":
		for _, a := range args {
			if path.Ext(a) == ".ini" {
				source = absolute(p.dir, a)
				programs = r.circus(source)
			}
		}
	case "honcho", "foreman", "goreman", "forego", "overmind", "hivemind":
		if !slices.Contains(args, "start") && name != "hivemind" {
			return nil, "", false
		}
		programs, source = r.procfile(p, args)
	case "runsvdir", "s6-svscan":
		_, rest := splitOptions(args, "-t -c -d -C -X")
		source = "/etc/service"
		if len(rest) > 0 {
			source = absolute(p.dir, rest[0])
		}
		programs = r.services(source)
	case "runit", "runit-init", "my_init":
		source = "/etc/service"
		programs = append(r.services(source), given(args)...)
	case "init":
		for _, dir := range []string{"/etc/s6-overlay/s6-rc.d", "/etc/services.d"} {
			if services := r.services(dir); services != nil {
				programs, source = append(programs, services...), dir
			}
		}
		if source == "" && !r.isDir("/package/admin/s6-overlay") && !r.isDir("/etc/s6") {
			return nil, "", false
		}
		programs = append(programs, given(args)...)
	default:
		return nil, "", false
	}
	return programs, source, true
}

// given is the command that an init is to start besides its services.
func given(args []string) []program {
	if _, args = splitOptions(args, ""); len(args) == 0 {
		return nil
	}
	return []program{{name: path.Base(args[0]), args: args}}
}

// programs follows all programs of a process manager. If they agree on a
// Python, the outcome is that of the first.
func (r *resolver) programs(p process, manager, source string, programs []program) outcome {
	if len(programs) == 0 {
		return p.opaque("%s starts the programs of a configuration that was not found", manager)
	}
	if !r.spend(len(programs)) {
		return p.opaque("%s starts too many programs", manager)
	}
	var first *outcome
	var names []string
	var choices []Candidate
	for _, prog := range programs {
		q := p
		q.depth++
		q.args = prog.args
		if prog.dir != "" {
			q.dir = absolute(p.dir, prog.dir)
		}
		for k, v := range prog.env {
			q.env = q.env.with(k, v)
		}
		names = append(names, prog.name)
		q.step("%s starts the program %s: %s", manager, prog.name, quote(prog.args))
		out := r.run(q)
		if out.python == "" {
			continue
		}
		if first == nil {
			first = &out
		}
		if !slices.ContainsFunc(choices, func(c Candidate) bool { return r.same(c.Path, out.python) }) {
			choices = append(choices, Candidate{Path: out.python, Distributions: r.installed(r.interpreter(out.python, out.env)), Why: "runs the program " + prog.name})
		}
	}
	list := quote(names)
	switch len(choices) {
	case 0:
		return p.opaque("%s starts the programs %s of %s, none of which is known to start a Python", manager, list, source)
	case 1:
		return *first
	}
	out := p.opaque("%s starts the programs %s of %s, which run in several Pythons", manager, list, source)
	out.choices = choices
	return out
}

// supervisord reads the configuration that supervisord uses.
func (r *resolver) supervisord(p process, args []string) ([]program, string) {
	options, _ := splitOptions(args, "-c --configuration -d --directory -u --user -l --logfile -e --loglevel -j --pidfile -i --identifier")
	files := []string{"supervisord.conf", "etc/supervisord.conf", "/etc/supervisord.conf", "/etc/supervisor/supervisord.conf"}
	if f := optionValue(options, "-c", "--configuration"); f != "" {
		files = []string{f}
	}
	for _, f := range files {
		f = absolute(p.dir, f)
		b, err := r.ReadFile(f)
		if err != nil {
			continue
		}
		sections := parseINI(string(b))
		for _, pattern := range strings.Fields(sections["include"]["files"]) {
			for _, included := range r.glob(absolute(path.Dir(f), strings.ReplaceAll(pattern, "%(here)s", path.Dir(f)))) {
				b, err := r.ReadFile(included)
				if err != nil {
					continue
				}
				for name, s := range parseINI(string(b)) {
					sections[name] = s
				}
			}
		}
		var programs []program
		for _, section := range slices.Sorted(maps.Keys(sections)) {
			kind, name, _ := strings.Cut(section, ":")
			s := sections[section]
			if kind != "program" && kind != "fcgi-program" || s["autostart"] == "false" || s["command"] == "" {
				continue
			}
			expand := func(v string) string {
				replace := []string{"%(program_name)s", name, "%(here)s", path.Dir(f), "%(process_num)d", "0", "%%", "%"}
				for k, v := range p.env {
					replace = append(replace, "%(ENV_"+k+")s", v)
				}
				return strings.NewReplacer(replace...).Replace(v)
			}
			prog := program{name: name, args: splitString(expand(s["command"]), p.env), dir: expand(s["directory"]), env: map[string]string{}}
			for _, kv := range strings.Split(s["environment"], ",") {
				if k, v, ok := strings.Cut(kv, "="); ok {
					prog.env[strings.TrimSpace(k)] = expand(strings.Trim(strings.TrimSpace(v), `"'`))
				}
			}
			programs = append(programs, prog)
		}
		return programs, f
	}
	return nil, ""
}

// circus reads the watchers of a configuration of circusd.
func (r *resolver) circus(file string) []program {
	b, _ := r.ReadFile(file)
	sections := parseINI(string(b))
	var programs []program
	for _, section := range slices.Sorted(maps.Keys(sections)) {
		name, ok := strings.CutPrefix(section, "watcher:")
		if s := sections[section]; ok && s["cmd"] != "" {
			programs = append(programs, program{name: name, args: splitString(s["cmd"]+" "+s["args"], environ{}), dir: s["working_dir"], env: sections["env:"+name]})
		}
	}
	return programs
}

// procfile reads the programs of a Procfile, or those that are asked for.
func (r *resolver) procfile(p process, args []string) ([]program, string) {
	file, asked := "Procfile", []string{}
	for i, a := range args {
		switch {
		case (a == "-f" || a == "--procfile") && i+1 < len(args):
			file = args[i+1]
		case strings.HasPrefix(a, "--procfile="):
			file = strings.TrimPrefix(a, "--procfile=")
		case a == "start":
			_, asked = splitOptions(args[i+1:], "-f --procfile -c --concurrency -e --env -p --port")
		}
	}
	file = absolute(p.dir, file)
	b, _ := r.ReadFile(file)
	var programs []program
	for line := range strings.Lines(string(b)) {
		name, command, ok := strings.Cut(strings.TrimSpace(line), ":")
		if ok && !strings.HasPrefix(name, "#") && (len(asked) == 0 || slices.Contains(asked, name)) {
			programs = append(programs, program{name: name, args: []string{"/bin/sh", "-c", strings.TrimSpace(command)}})
		}
	}
	return programs, file
}

// services are the run scripts below a directory, as runit and s6 have them.
func (r *resolver) services(dir string) []program {
	var programs []program
	for _, name := range r.list(dir) {
		if run := path.Join(dir, name, "run"); r.isFile(run) {
			programs = append(programs, program{name: name, args: []string{run}})
		}
	}
	return programs
}

// execline follows a script of execlineb's: one command that begins with
// launchers, some of them execline's own.
func (r *resolver) execline(p process, file, text string) outcome {
	var words []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") { // nor the first one
			words = append(words, splitString(line, p.env)...)
		}
	}
	for len(words) > 0 {
		switch name := path.Base(words[0]); {
		case name == "foreground" || name == "background" || name == "if":
			depth, end := 0, len(words)
			for i, w := range words {
				if w == "{" {
					depth++
				} else if w == "}" {
					if depth--; depth == 0 {
						end = i + 1
						break
					}
				}
			}
			words = words[end:]
		case name == "cd" && len(words) > 1:
			p.dir, words = absolute(p.dir, words[1]), words[2:]
		case name == "export" && len(words) > 2:
			p.env, words = p.env.with(words[1], words[2]), words[3:]
		case name == "fdmove":
			_, rest := splitOptions(words[1:], "")
			words = rest[min(2, len(rest)):]
		default:
			p.args = words
			next, ok := r.launcher(name, p)
			if !ok {
				p.step("%s starts %s", file, quote(words))
				return outcome{process: p}
			}
			if next.opaque != "" {
				return next
			}
			p, words = next.process, next.args
		}
	}
	return p.opaque("%s starts no program", file)
}

// parseINI reads sections as Python's configparser does.
func parseINI(text string) map[string]map[string]string {
	sections := map[string]map[string]string{}
	var section map[string]string
	key := ""
	for line := range strings.Lines(text) {
		for _, comment := range []string{" ;", "\t;"} {
			line, _, _ = strings.Cut(line, comment)
		}
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';':
		case trimmed[0] == '[' && trimmed[len(trimmed)-1] == ']':
			name := trimmed[1 : len(trimmed)-1]
			if sections[name] == nil {
				sections[name] = map[string]string{}
			}
			section, key = sections[name], ""
		case section == nil:
		case (line[0] == ' ' || line[0] == '\t') && key != "":
			section[key] += " " + trimmed
		default:
			if i := strings.IndexAny(trimmed, "=:"); i > 0 {
				key = strings.ToLower(strings.TrimSpace(trimmed[:i]))
				section[key] = strings.TrimSpace(trimmed[i+1:])
			}
		}
	}
	return sections
}

// glob returns the files that match a pattern, sorted.
func (r *resolver) glob(pattern string) []string {
	found := []string{"/"}
	for part := range strings.SplitSeq(strings.Trim(pattern, "/"), "/") {
		var next []string
		for _, dir := range found {
			if !r.spend(1) {
				return nil
			}
			for _, name := range r.list(dir) {
				if ok, _ := path.Match(part, name); ok {
					next = append(next, path.Join(dir, name))
				}
			}
		}
		found = next
	}
	return found
}
