package image

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/imgwrap/imgwrap/image/python"
	"github.com/imgwrap/imgwrap/image/scan"
)

// geventPatch has the loader let gevent patch the standard library before
// OpenTelemetry imports it. It is upstream's variable, of 0.58b0 and newer.
const geventPatch = "OTEL_PYTHON_AUTO_INSTRUMENTATION_EXPERIMENTAL_GEVENT_PATCH"

// serve adds what the server or framework that runs the app needs in order to
// send anything, and says what it means for telemetry. image are the variables
// of the image's config.
func (p *ImagePlan) serve(c python.Command, files *scan.Index, image map[string]string) {
	set := func(name, value, origin, why string) {
		if image[name] == "" {
			p.Env = append(p.Env, Variable{name, value, origin})
			p.note("%s=%s is set: %s", name, value, why)
		}
	}
	warn := func(format string, args ...any) { p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...)) }
	children := func(what string) {
		p.note("%s starts the app in child processes: the loader is in each of them, the command stays as it is", what)
	}
	has := func(options ...string) bool {
		return slices.ContainsFunc(c.ProgramArgs, func(a string) bool { return slices.Contains(options, a) })
	}

	switch program := c.Program; program {
	case "gunicorn":
		switch class := workerClass(c, files); {
		case strings.Contains(class, "eventlet"): // gunicorn.workers.geventlet, too
			warn("gunicorn's workers are of the class %s, and eventlet is not tested: it patches the standard library only after OpenTelemetry has imported it", class)
		case !strings.Contains(class, "gevent"):
		default:
			set(geventPatch, "patch_all", "gevent", "gunicorn runs gevent workers, so gevent has to patch the standard library before OpenTelemetry imports it")
		}
		if has("--reload") {
			children("gunicorn --reload")
		}
	case "celery":
		if pool := c.Option("-P", "--pool"); pool == "eventlet" || pool == "gevent" {
			warn("Celery's pool is %s, which is not tested: it patches the standard library only after OpenTelemetry has imported it", pool)
		}
	case "uwsgi":
		set("UWSGI_ENABLE_THREADS", "1", "uWSGI", "uWSGI may run no threads unless told to, and spans are sent from one")
		if i := slices.IndexFunc(p.Env, func(v Variable) bool { return v.Name == "OTEL_METRICS_EXPORTER" }); i >= 0 && p.Env[i].Value != "none" {
			set("UWSGI_PY_CALL_UWSGI_FORK_HOOKS", "1", "uWSGI", "without it no metrics are sent from uWSGI's workers")
		}
	case "uvicorn", "fastapi":
		workers := c.Option("--workers")
		if workers == "" {
			workers = c.Getenv("WEB_CONCURRENCY")
		}
		n, _ := strconv.Atoi(workers)
		switch {
		case has("--reload") || program == "fastapi" && has("dev"):
			children(program + "'s reloader")
		case n > 1:
			children(fmt.Sprintf("%s with %d workers", program, n))
		}
	case "flask":
		if has("--debug", "--reload") || flaskDebug(c) {
			children("Flask's reloader")
		}
	case "manage.py", "django-admin", "django":
		if has("runserver") && !has("--noreload") {
			children("Django's reloader")
		}
	default:
		if strings.HasSuffix(program, ".py") && flaskDebug(c) {
			children("Flask's reloader")
		}
	}
}

// flaskDebug says whether the environment turns on Flask's debug mode, and its
// reloader with it.
func flaskDebug(c python.Command) bool {
	debug := strings.ToLower(c.Getenv("FLASK_DEBUG"))
	if debug == "" {
		return c.Getenv("FLASK_ENV") == "development" // up to Flask 2.2
	}
	return !slices.Contains([]string{"0", "false", "no"}, debug)
}

var workerClassSetting = regexp.MustCompile(`(?m)^worker_class\s*=\s*['"]([\w.]+)['"]`)

// workerClass is what gunicorn is told to run its workers with: by its command
// line, else GUNICORN_CMD_ARGS, else its configuration file. It is "" if nothing
// is said, or not as far as can be seen.
func workerClass(c python.Command, files *scan.Index) string {
	if class := c.Option("-k", "--worker-class"); class != "" {
		return class
	}
	more := python.Command{ProgramArgs: strings.Fields(c.Getenv("GUNICORN_CMD_ARGS"))}
	if class := more.Option("-k", "--worker-class"); class != "" {
		return class
	}
	file := "gunicorn.conf.py"
	for _, given := range []string{more.Option("-c", "--config"), c.Option("-c", "--config")} {
		if given != "" {
			file = strings.TrimPrefix(given, "file:")
		}
	}
	if !path.IsAbs(file) {
		file = path.Join(c.Dir, file)
	}
	content, err := files.ReadFile(file)
	if err != nil {
		return ""
	}
	if m := workerClassSetting.FindSubmatch(content); m != nil {
		return string(m[1])
	}
	return ""
}
