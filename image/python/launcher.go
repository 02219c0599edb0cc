package python

import (
	"slices"
	"strings"
)

// launcher is a program that executes the command it is given, after options
// of its own.
type launcher struct {
	values     string // options that take a value as the next argument
	positional int    // own arguments before the command
	word       string // subcommand before the command: "run"
	dashes     bool   // the command is what follows "--"
	agent      bool   // it instruments Python
	project    bool   // it runs the command in the environment of a project
}

// allValues: every option without "=" takes a value.
const allValues = "*"

var launchers = map[string]launcher{
	"tini":            {values: "-p -e"},
	"tini-static":     {values: "-p -e"},
	"docker-init":     {values: "-p -e"},
	"dumb-init":       {values: "-r --rewrite"},
	"catatonit":       {},
	"gosu":            {positional: 1},
	"su-exec":         {positional: 1},
	"setuidgid":       {positional: 1},
	"s6-setuidgid":    {positional: 1},
	"envdir":          {positional: 1},
	"with-contenv":    {},
	"aws-lambda-rie":  {values: "--log-level --runtime-interface-emulator-address --runtime-api-address"},
	"setpriv":         {values: "--reuid --regid --groups --inh-caps --ambient-caps --bounding-set --securebits --pdeathsig --selinux-label --apparmor-profile"},
	"chpst":           {values: "-u -U -b -e -/ -n -l -L -m -d -o -p -f -c -r -t -k"},
	"nice":            {values: "-n --adjustment"},
	"ionice":          {values: "-c -n -p --class --classdata"},
	"chrt":            {values: "-T -P -D", positional: 1},
	"taskset":         {positional: 1},
	"timeout":         {values: "-k -s --kill-after --signal", positional: 1},
	"stdbuf":          {values: "-i -o -e --input --output --error"},
	"nohup":           {},
	"setsid":          {},
	"time":            {values: "-f -o --format --output"},
	"unbuffer":        {},
	"exec":            {values: "-a"},
	"command":         {},
	"runuser":         {values: "-u -g -G --user --group"},
	"sudo":            {values: "-u -g -h -p -C -r -t -T -U --user --group"},
	"xvfb-run":        {values: "-n -e -f -p -s -w --server-num --server-args --error-file --auth-file"},
	"dockerize":       {values: "-wait -timeout -template -stdout -stderr -env -wait-retry-interval -wait-http-header"},
	"wait-for-it":     {dashes: true},
	"wait-for-it.sh":  {dashes: true},
	"wait-for":        {dashes: true},
	"wait-for.sh":     {dashes: true},
	"doppler":         {dashes: true},
	"chamber":         {dashes: true},
	"infisical":       {dashes: true},
	"op":              {dashes: true},
	"poetry":          {word: "run", project: true},
	"pipenv":          {word: "run", project: true},
	"pdm":             {word: "run", project: true, values: "-p --project"},
	"uv":              {word: "run", project: true, values: "--with --with-editable --with-requirements --env-file -p --python --extra --no-extra --group --no-group --only-group --package --directory --project --index --index-url --default-index --config-file --cache-dir --color"},
	"rye":             {word: "run", project: true},
	"honcho":          {word: "run"},
	"ddtrace-run":     {agent: true},
	"elasticapm-run":  {agent: true},
	"newrelic-admin":  {agent: true, word: "run-program"},
	"splunk-py-trace": {agent: true, values: allValues},

	"opentelemetry-instrument": {agent: true, values: allValues},
}

// launcher takes a launcher off a command.
func (r *resolver) launcher(name string, p process) (outcome, bool) {
	switch name {
	case "env":
		return r.env(p), true
	case "su":
		return r.su(p), true
	case "conda", "mamba", "micromamba":
		if len(p.args) > 1 && p.args[1] == "run" {
			return r.conda(name, p), true
		}
		return outcome{}, false
	case "pyenv":
		return r.pyenv(p), true
	}
	l, ok := launchers[name]
	if !ok {
		return outcome{}, false
	}
	args := p.args[1:]
	var before []string // options that precede the subcommand
	if l.word != "" {
		i := slices.Index(args, l.word)
		if i < 0 {
			return outcome{}, false // another subcommand: it is the program itself that runs
		}
		before, args = args[:i], args[i+1:]
	}
	if l.dashes {
		i := slices.Index(args, "--")
		if i < 0 {
			return outcome{}, false
		}
		args = args[i:]
	}
	options, args := splitOptions(args, l.values)
	if l.positional > len(args) {
		return p.opaque("%s is not given a command", name), true
	}
	args = args[l.positional:]
	for (name == "sudo" || name == "runuser") && len(args) > 0 && isAssignment(args[0]) {
		k, v, _ := strings.Cut(args[0], "=")
		p.env, args = p.env.with(k, v), args[1:]
	}
	if name == "sudo" && !slices.Contains(options, "-E") {
		p.cleared = true
	}
	if l.agent && p.agent == "" {
		p.agent = name
	}
	if name == "uv" {
		if slices.Contains(options, "-m") || slices.Contains(options, "--module") {
			args = append([]string{"python", "-m"}, args...)
		} else if len(args) > 0 && strings.HasSuffix(args[0], ".py") {
			args = append([]string{"python"}, args...)
		}
	}
	if len(args) == 0 {
		return p.opaque("%s is not given a command", name), true
	}
	p.args = args
	p.step("%s starts %s", name, quote(args))
	if l.project {
		return r.project(name, slices.Concat(before, options), p), true
	}
	if name == "aws-lambda-rie" {
		p.form(newForm(Lambda, name))
	}
	return outcome{process: p}, true
}

// splitOptions separates leading options, with their values, from what
// follows.
func splitOptions(args []string, values string) (options, rest []string) {
	takes := strings.Fields(values)
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			return options, args[i+1:]
		}
		if len(a) < 2 || a[0] != '-' {
			return options, args[i:]
		}
		options = append(options, a)
		if slices.Contains(takes, a) || values == allValues && !strings.Contains(a, "=") {
			i++
			if i < len(args) {
				options = append(options, args[i])
			}
		}
	}
	return options, nil
}

// optionValue returns the value of the first option of one of these names, as
// splitOptions lists them: behind it or after "=".
func optionValue(options []string, names ...string) string {
	for i, o := range options {
		for _, n := range names {
			if o == n && i+1 < len(options) {
				return options[i+1]
			}
			if v, ok := strings.CutPrefix(o, n+"="); ok {
				return v
			}
		}
	}
	return ""
}

func isAssignment(s string) bool {
	k, _, ok := strings.Cut(s, "=")
	return ok && k != "" && !strings.Contains(k, "/")
}

// env follows coreutils' env.
func (r *resolver) env(p process) outcome {
	args := slices.Clone(p.args[1:])
options:
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		value := func() string {
			if len(args) == 0 {
				return ""
			}
			v := args[0]
			args = args[1:]
			return v
		}
		switch {
		case a == "--":
			break options
		case a == "-" || a == "-i" || a == "--ignore-environment":
			p.env, p.cleared = environ{"PATH": "/bin:/usr/bin"}, true
		case a == "-u" || a == "--unset":
			p.env = p.env.without(value())
		case strings.HasPrefix(a, "--unset="):
			p.env = p.env.without(strings.TrimPrefix(a, "--unset="))
		case a == "-C" || a == "--chdir":
			p.dir = absolute(p.dir, value())
		case strings.HasPrefix(a, "--chdir="):
			p.dir = absolute(p.dir, strings.TrimPrefix(a, "--chdir="))
		case a == "-S" || a == "--split-string":
			args = slices.Concat(splitString(value(), p.env), args)
		case strings.HasPrefix(a, "--split-string="):
			args = slices.Concat(splitString(strings.TrimPrefix(a, "--split-string="), p.env), args)
		case strings.HasPrefix(a, "-S"):
			args = slices.Concat(splitString(a[2:], p.env), args)
		case strings.HasPrefix(a, "-iS") || strings.HasPrefix(a, "-vS"):
			if a[1] == 'i' {
				p.env, p.cleared = environ{"PATH": "/bin:/usr/bin"}, true
			}
			args = slices.Concat(splitString(a[3:], p.env), args)
		case strings.HasPrefix(a, "-"):
		case isAssignment(a):
			k, v, _ := strings.Cut(a, "=")
			p.env = p.env.with(k, v)
		default:
			args = append([]string{a}, args...)
			break options
		}
	}
	for len(args) > 0 && isAssignment(args[0]) { // behind "--"
		k, v, _ := strings.Cut(args[0], "=")
		p.env, args = p.env.with(k, v), args[1:]
	}
	if len(args) == 0 {
		return p.opaque("env is not given a command")
	}
	p.args = args
	p.step("env starts %s", quote(args))
	return outcome{process: p}
}

// splitString splits the argument of env -S, quotes included.
func splitString(s string, env environ) []string {
	words, err := splitWords(s, env)
	if err != nil {
		return strings.Fields(s)
	}
	return words
}

// su follows su [-] [user] -c command.
func (r *resolver) su(p process) outcome {
	script, shell := "", "/bin/sh"
	for i := 1; i < len(p.args); i++ {
		a := p.args[i]
		switch {
		case a == "-" || a == "-l" || a == "--login":
			p.cleared = true
			p.env = p.env.with("PATH", defaultPath)
		case (a == "-c" || a == "--command") && i+1 < len(p.args):
			i++
			script = p.args[i]
		case strings.HasPrefix(a, "--command="):
			script = strings.TrimPrefix(a, "--command=")
		case (a == "-s" || a == "--shell" || a == "-g" || a == "-G") && i+1 < len(p.args):
			if i++; a == "-s" || a == "--shell" {
				shell = p.args[i]
			}
		}
	}
	if script == "" {
		return p.opaque("su starts a login shell")
	}
	p.args = []string{shell, "-c", script}
	p.step("su starts %s", quote(p.args))
	return outcome{process: p}
}
