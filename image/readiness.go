package image

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/image/python"
)

// Activation is a way for telemetry to get into the app's processes.
type Activation string

const (
	// ByEntrypoint puts the launcher in front of the image's entry point: what
	// it starts is instrumented, and what that starts in turn.
	ByEntrypoint Activation = "entrypoint"
	// ByEnvironment sets PYTHONPATH in the image: every Python of a container
	// is instrumented but for one-shot tools, whatever its command is.
	ByEnvironment Activation = "environment"
)

// activate says whether a way was asked for.
func (o Options) activate(a Activation) bool {
	return slices.Contains(o.Activate, a) || len(o.Activate) == 0 && a == ByEntrypoint
}

// readiness is what the image's command and interpreter mean for wrapping.
type readiness struct {
	refused  error
	warnings []string
	notes    []string
	// pathFile is the .pth file that has to lead to the loader, because the
	// interpreter will not look at PYTHONPATH; "" if it will.
	pathFile string
	// pythonPath is set if the image's PYTHONPATH has to lead to the loader.
	pythonPath bool
	// keepEntrypoint is set if nothing can run before the image's own entry
	// point, or nothing shall.
	keepEntrypoint bool
	// envCleared is set if the settings have to come from the loader, as the
	// command clears its environment.
	envCleared bool
}

// everywhere says whether the loader is in every Python of a container, not only
// in those below the launcher.
func (r readiness) everywhere() bool { return r.pythonPath || r.pathFile != "" }

// foreignAgents are launchers of other agents: two at once patch the same
// functions.
var foreignAgents = []string{"ddtrace-run", "newrelic-admin", "elasticapm-run"}

// assess judges whether and how telemetry can be loaded into what the image
// starts.
func assess(env *python.Environment, opts Options) readiness {
	var r readiness
	i, c := env.Interpreter, env.Command
	warn := func(format string, args ...any) { r.warnings = append(r.warnings, fmt.Sprintf(format, args...)) }
	refuse := func(remedy, format string, args ...any) {
		if r.refused == nil {
			r.refused = &RefusedError{Problem: fmt.Sprintf(format, args...), Remedy: remedy}
		}
	}

	if f, ok := env.Form(python.Lambda); ok {
		refuse("for Lambda use AWS's OpenTelemetry layer and AWS_LAMBDA_EXEC_WRAPPER: its functions are frozen between calls, and spans with them", "%s", f.Reason)
	}
	if f, ok := env.Form(python.Pex); ok {
		refuse("build the app into a virtual environment instead (pex-tools venv, or pip), then wrap the image", "%s", f.Reason)
	}
	for _, f := range env.Forms {
		if f.Kind != python.Lambda && f.Kind != python.Pex && f.Kind != python.Buildpack {
			warn("%s", f.Reason)
		}
	}
	if slices.Contains(foreignAgents, c.Agent) {
		refuse("take it out of the command, then wrap the image", "the command starts another agent, %s", c.Agent)
	}
	if i.Implementation != "" && i.Implementation != "cpython" {
		refuse("only CPython is supported", "%s is %s", i.Path, i.Implementation)
	}
	if i.NoCtypes {
		refuse("install libffi before Python is built, or take an image with the ctypes module",
			"%s has no _ctypes module, without which OpenTelemetry's SDK cannot be imported", i.Path)
	}
	if c.NoSite() {
		refuse("take -S out of the command or of the script's first line", "%s runs with -S, so nothing can be loaded into it at start", i.Path)
	}
	if i.FreeThreaded {
		warn("%s is a free-threaded build, with which OpenTelemetry is not tested", i.Path)
	}
	switch {
	case c.Agent != "opentelemetry-instrument":
	case !opts.activate(ByEntrypoint):
		warn("the command starts opentelemetry-instrument itself: what it starts is left to it")
	default:
		warn("the command starts opentelemetry-instrument itself; imgwrap's takes its place, so nothing is instrumented twice")
	}

	buildpack, built := env.Form(python.Buildpack)
	r.keepEntrypoint = built || !opts.activate(ByEntrypoint)
	why := isolation(c)
	if built {
		why = buildpack.Reason
	}
	switch {
	case why == "" || r.refused != nil:
	case siteDirectory(env) == "":
		refuse("let the interpreter read its environment", "%s, and no site directory of %s was found", why, i.Path)
	default:
		r.pathFile = path.Join(siteDirectory(env), "imgwrap.pth")
		r.envCleared = c.EnvCleared
		warn("%s: %s loads OpenTelemetry instead, into every program that %s runs", why, r.pathFile, i.Path)
	}

	// A path file reaches more than PYTHONPATH does.
	r.pythonPath = opts.activate(ByEnvironment) && r.pathFile == ""
	if r.pythonPath {
		r.notes = append(r.notes, "PYTHONPATH leads every Python of a container to the loader, whatever its command is; python -c, interactive interpreters, package managers and tools of the standard library are left alone")
	}
	return r
}

// isolation says why the loader is not reached by PYTHONPATH, if so.
func isolation(c python.Command) string {
	switch {
	case c.EnvCleared:
		return "the command clears its environment"
	case c.PythonPathDropped:
		return "the command sets PYTHONPATH anew"
	case c.Isolated():
		return fmt.Sprintf("Python runs with %s and ignores PYTHONPATH", strings.Join(c.Flags, " "))
	}
	return ""
}

// siteDirectory is the last directory in which the interpreter looks for .pth
// files, "" if none is known.
func siteDirectory(env *python.Environment) string {
	for _, site := range slices.Backward(env.Sites) {
		base := path.Base(site)
		if (base == "site-packages" || base == "dist-packages") && strings.HasPrefix(site, env.Interpreter.Prefix+"/") {
			return site
		}
	}
	return ""
}
