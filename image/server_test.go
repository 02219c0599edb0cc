package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"io"
	"strings"
	"testing"

	"github.com/imgwrap/imgwrap/image/python"
	"github.com/imgwrap/imgwrap/image/scan"
)

func TestServe(t *testing.T) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	const config = "bind = ':8000'\nworker_class = \"gevent\"\n"
	for _, name := range []string{"srv/conf/gunicorn.py", "app/gunicorn.conf.py"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(config))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, config); err != nil {
			t.Fatal(err)
		}
	}
	l, err := scan.Read(t.Context(), &layer)
	if err != nil {
		t.Fatal(err)
	}
	files := scan.Merge(l)
	const gevent = geventPatch + "=patch_all"

	for _, tt := range []struct {
		command string
		env     string // NAME=VALUE of the image
		dir     string // "" for /srv
		metrics string
		set     string
		note    string
		warning string
	}{
		{command: "gunicorn app:app"},
		{command: "gunicorn -w 4 -k gthread app:app"},
		{command: "gunicorn -k gevent app:app", set: gevent, note: gevent},
		{command: "gunicorn --worker-class=gevent_pywsgi app:app", set: gevent, note: gevent},
		{command: "gunicorn -k geventwebsocket.gunicorn.workers.GeventWebSocketWorker app:app", set: gevent, note: gevent},
		{command: "gunicorn app:app", env: "GUNICORN_CMD_ARGS=--worker-class gevent", set: gevent, note: gevent},
		{command: "gunicorn -k sync app:app", env: "GUNICORN_CMD_ARGS=-k gevent"},
		{command: "gunicorn -c conf/gunicorn.py app:app", set: gevent, note: gevent},
		{command: "gunicorn --config=file:/srv/conf/gunicorn.py app:app", set: gevent, note: gevent},
		{command: "gunicorn app:app", dir: "/app", set: gevent, note: gevent},
		{command: "gunicorn -k gthread app:app", dir: "/app"},
		{command: "gunicorn -c elsewhere.py app:app"},
		{command: "gunicorn -k gevent app:app", env: geventPatch + "=patch_all"},
		{command: "gunicorn -k eventlet app:app", warning: "eventlet is not tested"},
		{command: "gunicorn -k gunicorn.workers.geventlet.EventletWorker app:app", warning: "eventlet is not tested"},
		{command: "gunicorn --reload app:app", note: "child processes"},
		{command: "celery -A app worker"},
		{command: "celery -A app worker -P eventlet", warning: "Celery's pool is eventlet"},
		{command: "celery -A app worker --pool=gevent", warning: "Celery's pool is gevent"},
		{command: "uwsgi --ini app.ini", set: "UWSGI_ENABLE_THREADS=1", note: "UWSGI_ENABLE_THREADS=1"},
		{command: "uwsgi --ini app.ini", env: "UWSGI_ENABLE_THREADS=0"},
		{
			command: "uwsgi --ini app.ini", metrics: "otlp",
			set: "UWSGI_ENABLE_THREADS=1 UWSGI_PY_CALL_UWSGI_FORK_HOOKS=1", note: "no metrics",
		},
		{command: "uvicorn app:app"},
		{command: "uvicorn --workers 1 app:app"},
		{command: "uvicorn --workers 2 app:app", note: "uvicorn with 2 workers"},
		{command: "uvicorn app:app", env: "WEB_CONCURRENCY=3", note: "uvicorn with 3 workers"},
		{command: "uvicorn --reload app:app", note: "uvicorn's reloader"},
		{command: "fastapi dev app.py", note: "fastapi's reloader"},
		{command: "flask run"},
		{command: "flask --app app run --debug", note: "Flask's reloader"},
		{command: "flask run", env: "FLASK_DEBUG=1", note: "Flask's reloader"},
		{command: "flask run", env: "FLASK_DEBUG=0"},
		{command: "flask run", env: "FLASK_ENV=development", note: "Flask's reloader"},
		{command: "app.py", env: "FLASK_DEBUG=true", note: "Flask's reloader"},
		{command: "app.py runserver"},
		{command: "manage.py runserver 0.0.0.0:8000", note: "Django's reloader"},
		{command: "manage.py runserver --noreload"},
		{command: "manage.py migrate"},
	} {
		// The environment of a command comes from the image.
		words := strings.Fields(tt.command)
		var env []string
		if tt.env != "" {
			env = []string{tt.env}
		}
		c := started(t, cmp.Or(tt.dir, "/srv"), words, env)
		p := &ImagePlan{Env: []Variable{{"OTEL_METRICS_EXPORTER", cmp.Or(tt.metrics, "none"), "default"}}}
		p.serve(c, files, environ(env))

		var set []string
		for _, v := range p.Env[1:] {
			set = append(set, v.Name+"="+v.Value)
		}
		if got := strings.Join(set, " "); got != tt.set {
			t.Errorf("%s %s: set %q, want %q", tt.env, tt.command, got, tt.set)
		}
		for _, said := range []struct {
			what string
			got  []string
			want string
		}{{"notes", p.Notes, tt.note}, {"warnings", p.Warnings, tt.warning}} {
			if got := strings.Join(said.got, "\n"); !strings.Contains(got, said.want) || (got == "") != (said.want == "") {
				t.Errorf("%s %s: %s %q, want %q", tt.env, tt.command, said.what, got, said.want)
			}
		}
	}
}

// started is the command of an image that runs a script or module in dir.
func started(t *testing.T, dir string, words, env []string) python.Command {
	t.Helper()
	files := appFiles(t, "srv/app.py", "srv/manage.py")
	words = append([]string{"python3.11"}, words...)
	if !strings.HasSuffix(words[1], ".py") {
		words = append([]string{words[0], "-m"}, words[1:]...)
	}
	commands := python.Starts(python.Config{WorkingDir: dir, Env: env}, files, words)
	if len(commands) != 1 {
		t.Fatalf("%q starts %d commands", words, len(commands))
	}
	return commands[0]
}
