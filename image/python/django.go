package python

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// Django is what an image says about the settings of a Django project. It is
// empty for an image that has none.
type Django struct {
	// Settings is the name of the settings module: DJANGO_SETTINGS_MODULE, or
	// the one that the project's own files set as its default.
	Settings string
	// FromEnv is set if Settings is in the environment of the command.
	FromEnv bool
	// Source is what names Settings if the environment does not: a file, or
	// the option "--settings" of the command.
	Source string
	// File is the settings module's file, if the module can be imported from
	// the project's directory, PYTHONPATH or a site directory; else "".
	File string
	// Others are settings modules that other files of the project name.
	Others []string
}

// settingsDefault is how a project's files name their settings.
var settingsDefault = regexp.MustCompile(`DJANGO_SETTINGS_MODULE['"]\s*(?:,|\]\s*=)\s*['"]([A-Za-z_][\w.]*)['"]`)

var djangoFiles = []string{"manage.py", "wsgi.py", "asgi.py", "celery.py"}

// django looks for the settings module of the project that the command runs.
func (im image) django(e *Environment, env environ) Django {
	d := Django{}
	dirs := e.Command.projectDirs()
	given := e.Command.Option("--settings")
	switch s := env.get("DJANGO_SETTINGS_MODULE"); {
	case given != "" && (e.Command.Program == "manage.py" || e.Command.Program == "django" || e.Command.Program == "django-admin"):
		d.Settings, d.Source = given, "--settings"
	case s != "" && !e.Command.EnvCleared:
		d.Settings, d.FromEnv = s, true
	default:
		im.declaredSettings(&d, e.Command, dirs)
	}
	if d.Settings != "" {
		if files := im.modules(d.Settings, slices.Concat(dirs, e.Sites)); len(files) > 0 {
			d.File = files[0]
		}
	}
	return d
}

// projectDirs are the directories in which the program's own modules are looked
// for first: the one that it is told to change to, or its script is in, then the
// working directory.
func (c Command) projectDirs() []string {
	var dirs []string
	switch {
	case c.Program == "gunicorn" || c.Program == "uwsgi":
		dirs = append(dirs, c.Option("--chdir"), c.Option("--pythonpath"))
	case c.Program == "uvicorn":
		dirs = append(dirs, c.Option("--app-dir"))
	case c.Program == "celery":
		dirs = append(dirs, c.Option("--workdir"))
	case strings.HasSuffix(c.Script, ".py"):
		dirs = append(dirs, path.Dir(c.Script))
	}
	var list []string
	for _, d := range append(dirs, ".") {
		if d = absolute(c.Dir, d); !slices.Contains(list, d) {
			list = append(list, d)
		}
	}
	return list
}

// declaredSettings reads the settings' name from the file that the command
// starts with, or else from the files of the project in dirs if they agree.
func (im image) declaredSettings(d *Django, c Command, dirs []string) {
	files := im.Find(func(name []byte) bool { return slices.Contains(djangoFiles, string(name)) })
	files = slices.DeleteFunc(files, func(f string) bool {
		if strings.Contains(f, "/site-packages/") || strings.Contains(f, "/dist-packages/") {
			return true // of a venv in the project
		}
		return !slices.ContainsFunc(dirs, func(dir string) bool {
			below, ok := strings.CutPrefix(f, strings.TrimSuffix(dir, "/")+"/")
			return ok && strings.Count(below, "/") < 4
		})
	})
	named := map[string]string{} // settings by file
	for _, f := range files {
		if b, err := im.ReadFile(f); err == nil {
			if m := settingsDefault.FindSubmatch(b); m != nil {
				named[f] = string(m[1])
			}
		}
	}
	if start := im.startFile(c, dirs, named); start != "" {
		d.Settings, d.Source = named[start], start
	}
	for _, f := range files {
		if s := named[f]; s != "" && s != d.Settings && !slices.Contains(d.Others, s) {
			d.Others = append(d.Others, s)
			if d.Source == "" && len(d.Others) == 1 {
				d.Source = f
			}
		}
	}
	switch {
	case d.Settings != "":
	case len(d.Others) == 1: // all files agree
		d.Settings, d.Others = d.Others[0], nil
	default:
		d.Source = "" // nothing says which one is meant
	}
}

// startFile returns the first file that a command imports or runs and that
// names settings, if it can be told: manage.py, or one of the module that a
// server or Celery is given.
func (im image) startFile(c Command, dirs []string, named map[string]string) string {
	var files []string
	if c.Program == "manage.py" && !c.Module {
		files = append(files, c.Script)
	}
	for _, a := range c.Args {
		if module, _, _ := strings.Cut(a, ":"); !strings.ContainsAny(module, "/-= ") {
			files = slices.Concat(files, im.modules(module, dirs), im.modules(module+".celery", dirs))
		}
	}
	for _, f := range files {
		if p, err := im.Resolve(f); err == nil && named[p] != "" {
			return p
		}
	}
	return ""
}
