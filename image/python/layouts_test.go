package python

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// with puts parts of images together.
func with(parts ...any) []string {
	var all []string
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			all = append(all, p)
		case []string:
			all = append(all, p...)
		}
	}
	return all
}

// dist is the metadata of a distribution in a directory.
func dist(dir, name, version string) string {
	return fmt.Sprintf(`%s/%s-%s.dist-info/METADATA: Metadata-Version: 2.1\nName: %s\nVersion: %s\n`, dir, name, version, name, version)
}

// venvAt is a virtual environment of the docker-library image's Python.
func venvAt(dir string) []string {
	return []string{
		dir + `/pyvenv.cfg: home = /usr/local/bin\n`, dir + "/bin/python -> /usr/local/bin/python3.11", dir + "/bin/python3 -> python",
		dir + "/bin/gunicorn: #!/" + dir + `/bin/python\n`, dist(dir+"/lib/python3.11/site-packages", "flask", "3.0"),
	}
}

const sitePackages = "usr/local/lib/python3.11/site-packages"

// TestEnvironmentTools holds tools that choose the environment of a command.
func TestEnvironmentTools(t *testing.T) {
	docker := dockerPython
	pyenv := with(
		`root/.pyenv/shims/python: #!/usr/bin/env bash\nset -e\n[ -n "$PYENV_DEBUG" ] && set -x\n\nprogram="${0##*/}"\n\nexport PYENV_ROOT="/root/.pyenv"\nexec "/root/.pyenv/libexec/pyenv" exec "$program" "$@"\n`,
		`root/.pyenv/shims/gunicorn: #!/usr/bin/env bash\nprogram="${0##*/}"\nexport PYENV_ROOT="/root/.pyenv"\nexec "/root/.pyenv/libexec/pyenv" exec "$program" "$@"\n`,
		"root/.pyenv/libexec/pyenv: #!/usr/bin/env bash\\n", "usr/bin/env: ELF", "usr/bin/bash: ELF",
		"root/.pyenv/versions/3.11.9/bin/python3.11: ELF", "root/.pyenv/versions/3.11.9/bin/python -> python3.11", "root/.pyenv/versions/3.11.9/lib/python3.11/os.py",
		"root/.pyenv/versions/3.11.10/bin/python3.11: ELF", "root/.pyenv/versions/3.11.10/bin/python -> python3.11", "root/.pyenv/versions/3.11.10/lib/python3.11/os.py",
		"root/.pyenv/versions/3.12.1/bin/python3.12: ELF", "root/.pyenv/versions/3.12.1/bin/python -> python3.12", "root/.pyenv/versions/3.12.1/lib/python3.12/os.py",
		"root/.pyenv/versions/3.12.1/bin/gunicorn: #!/root/.pyenv/versions/3.12.1/bin/python3.12\\n",
		"root/.pyenv/version: 3.12.1\\n", "app/.python-version: 3.11.9 # ours\\n", "usr/bin/python3.9: ELF", "usr/bin/python -> python3.9", "usr/lib/python3.9/os.py",
	)
	const shims = "PATH=/root/.pyenv/shims:/root/.pyenv/bin:/usr/bin HOME=/root"
	micromamba := []string{
		`usr/local/bin/_entrypoint.sh: #!/usr/bin/env bash\nset -ef -o pipefail\nsource _activate_current_env.sh\nexec "$@"\n`,
		`usr/local/bin/_activate_current_env.sh: # only sourced\nif [[ "${MAMBA_SKIP_ACTIVATE}" == "1" ]]; then\n  return\nfi\neval "$("${MAMBA_EXE}" shell hook --shell=bash)"\nconda activate "${ENV_NAME}" 2>/dev/null \\n  || mamba activate "${ENV_NAME}" 2>/dev/null \\n  || micromamba activate "${ENV_NAME}"\n`,
		"bin/micromamba: ELF", "usr/bin/env: ELF", "opt/conda/bin/python3.12: ELF", "opt/conda/bin/python -> python3.12", "opt/conda/lib/python3.12/os.py",
		"opt/conda/envs/web/bin/python3.10: ELF", "opt/conda/envs/web/bin/python -> python3.10", "opt/conda/envs/web/lib/python3.10/os.py",
	}
	const poetryHash, pipenvHash = "-9TtSrW0h", "-4PlAip0Q" // of /app and /app/Pipfile
	for _, tt := range []inspection{
		{name: "pyenv, global version", files: pyenv, env: shims, cmd: "gunicorn app", python: "/root/.pyenv/versions/3.12.1/bin/python3.12", program: "gunicorn", more: "sure version=3.12.1"},
		{name: "pyenv, project's version", files: pyenv, env: shims, dir: "/app/src", cmd: "python app.py", python: "/root/.pyenv/versions/3.11.9/bin/python", program: "app.py", more: "sure version=3.11.9 prefix=/root/.pyenv/versions/3.11.9"},
		{name: "pyenv, version of the environment", files: pyenv, env: shims + " PYENV_VERSION=2.7.1:3.11", dir: "/app", cmd: "python app.py", python: "/root/.pyenv/versions/3.11.10/bin/python", program: "app.py", more: "sure version=3.11.10"},
		{name: "pyenv, system", files: pyenv, env: shims + " PYENV_VERSION=system", cmd: "python app.py", python: "/usr/bin/python", program: "app.py", more: "version=3.9"},
		{name: "pyenv, no such version", files: pyenv, env: shims + " PYENV_VERSION=3.13.0", cmd: "python app.py", python: "error: several Pythons may be the one that runs: pyenv has no python in version 3.13.0, which PYENV_VERSION chooses"},

		{name: "micromamba, base", files: micromamba, env: "MAMBA_ROOT_PREFIX=/opt/conda MAMBA_EXE=/bin/micromamba ENV_NAME=base", entry: "/usr/local/bin/_entrypoint.sh", cmd: "python -m app", python: "/opt/conda/bin/python", program: "app", more: "sure version=3.12 prefix=/opt/conda"},
		{name: "micromamba, environment", files: micromamba, env: "MAMBA_ROOT_PREFIX=/opt/conda MAMBA_EXE=/bin/micromamba ENV_NAME=web", entry: "/usr/local/bin/_entrypoint.sh", cmd: "python app.py", python: "/opt/conda/envs/web/bin/python", program: "app.py", more: "sure version=3.10"},
		{name: "micromamba run", files: micromamba, env: "MAMBA_ROOT_PREFIX=/opt/conda", entry: "micromamba run -n web python app.py", python: "/opt/conda/envs/web/bin/python", program: "app.py", more: "sure"},
		{name: "conda, prefix", files: micromamba, entry: "conda run --prefix=/opt/conda/envs/web python app.py", python: "/opt/conda/envs/web/bin/python", program: "app.py", more: "sure"},

		{name: "poetry, in project", files: with(docker, venvAt("app/.venv"), "app/pyproject.toml: x"), dir: "/app", entry: "poetry run gunicorn app", python: "/app/.venv/bin/python", program: "gunicorn", more: "sure"},
		{name: "poetry, one of several in the cache", files: with(docker, venvAt("root/.cache/pypoetry/virtualenvs/web"+poetryHash+"-py3.11"), venvAt("root/.cache/pypoetry/virtualenvs/other-12345678-py3.11")), dir: "/app", entry: "poetry run gunicorn app", python: "/root/.cache/pypoetry/virtualenvs/web" + poetryHash + "-py3.11/bin/python", program: "gunicorn", more: "sure"},
		{name: "poetry, other directory", files: with(docker, venvAt("root/.cache/pypoetry/virtualenvs/web"+poetryHash+"-py3.11"), venvAt("root/.cache/pypoetry/virtualenvs/other-12345678-py3.11")), entry: "poetry -C /app run gunicorn app", python: "/root/.cache/pypoetry/virtualenvs/web" + poetryHash + "-py3.11/bin/python", program: "gunicorn", more: "sure dir=/app"},
		{name: "poetry, unknown one in the cache", files: with(docker, venvAt("v/virtualenvs/a-11111111-py3.11"), venvAt("v/virtualenvs/b-22222222-py3.11")), dir: "/app", entry: "poetry run gunicorn", python: "error: several Pythons may be the one that runs: poetry may run it in any of /v/virtualenvs/a-11111111-py3.11, /v/virtualenvs/b-22222222-py3.11"},
		{name: "poetry without environments", files: with(docker, "usr/local/bin/gunicorn: #!/usr/local/bin/python\\n"), dir: "/app", env: "POETRY_VIRTUALENVS_CREATE=false", entry: "poetry run gunicorn app", python: "/usr/local/bin/python", program: "gunicorn", more: "sure"},
		{name: "poetry, active environment", files: with(dockerPython, venv, venvAt("app/.venv")), dir: "/app", env: "VIRTUAL_ENV=/opt/venv", entry: "poetry run gunicorn", python: "/opt/venv/bin/python", program: "gunicorn"},
		{name: "pipenv", files: with(docker, venvAt("root/.local/share/virtualenvs/app"+pipenvHash), venvAt("root/.local/share/virtualenvs/other-12345678"), "app/Pipfile: x"), dir: "/app", entry: "pipenv run gunicorn app", python: "/root/.local/share/virtualenvs/app" + pipenvHash + "/bin/python", program: "gunicorn", more: "sure"},
		{name: "pipenv, WORKON_HOME and name", files: with(docker, venvAt("venvs/mine"), venvAt("venvs/other")), env: "WORKON_HOME=/venvs PIPENV_CUSTOM_VENV_NAME=mine", dir: "/app", entry: "pipenv run gunicorn app", python: "/venvs/mine/bin/python", program: "gunicorn"},
		{name: "pipenv, file that names the environment", files: with(docker, venvAt("srv/e"), "app/.venv: /srv/e\\n"), dir: "/app", entry: "pipenv run python app.py", python: "/srv/e/bin/python", program: "app.py"},
		{name: "pipenv, system", files: docker, dir: "/app", entry: "pipenv run python app.py", python: "/usr/local/bin/python", program: "app.py"},
		{name: "pdm, environment", files: with(docker, venvAt("srv/e"), "app/.pdm-python: /srv/e/bin/python"), dir: "/app", entry: "pdm run python app.py", python: "/srv/e/bin/python", program: "app.py", more: "sure"},
		{name: "pdm, __pypackages__", files: with(docker, "app/__pypackages__/3.11/bin/gunicorn: #!/usr/local/bin/python3.11\\n", dist("app/__pypackages__/3.11/lib", "flask", "3.0")), dir: "/app", entry: "pdm run gunicorn app", python: "/usr/local/bin/python3.11", program: "gunicorn", more: "unsure sites=/app/__pypackages__/3.11/lib,/usr/local/lib/python3.11/site-packages dists=flask:3.0,pip:24.0"},
		{name: "__pypackages__ by PYTHONPATH", files: with(docker, "app/__pypackages__/3.11/bin/gunicorn: #!/usr/local/bin/python3.11\\n", dist("app/__pypackages__/3.11/lib", "flask", "3.0")), dir: "/app", env: "PATH=/app/__pypackages__/3.11/bin:/usr/local/bin PYTHONPATH=/app/__pypackages__/3.11/lib", entry: "gunicorn app", python: "/usr/local/bin/python3.11", program: "gunicorn", more: "sure reached dists=flask:3.0,pip:24.0"},
		{name: "uv, project environment elsewhere", files: with(docker, venvAt("srv/e")), env: "UV_PROJECT_ENVIRONMENT=/srv/e", dir: "/app", entry: "uv run gunicorn app", python: "/srv/e/bin/python", program: "gunicorn", more: "sure"},
		{name: "uv, project environment of the system", files: with(docker, "usr/local/bin/gunicorn: #!/usr/local/bin/python\\n", "app/pyproject.toml: x"), env: "UV_PROJECT_ENVIRONMENT=/usr/local/", dir: "/app", entry: "uv run gunicorn app", python: "/usr/local/bin/python", program: "gunicorn", more: "sure"},
		{name: "uv, other project", files: with(docker, venvAt("app/.venv"), "app/pyproject.toml: x"), entry: "uv --directory /app run -m app", python: "/app/.venv/bin/python", program: "app", more: "module sure dir=/app"},
		{name: "uv, active environment", files: with(docker, venv, venvAt("app/.venv"), "app/pyproject.toml: x"), dir: "/app", env: "VIRTUAL_ENV=/opt/venv", entry: "uv run --active python x.py", python: "/opt/venv/bin/python", program: "x.py"},
		{name: "uv, project before active environment", files: with(docker, venv, venvAt("app/.venv"), "app/pyproject.toml: x"), dir: "/app", env: "VIRTUAL_ENV=/opt/venv", entry: "uv run python x.py", python: "/app/.venv/bin/python", program: "x.py"},
		{name: "uv, no environment", files: with(docker, "app/pyproject.toml: x"), dir: "/app", entry: "uv run python x.py", python: "/usr/local/bin/python", program: "x.py", more: "unsure"},
		{name: "virtualenv", files: with(docker, `v/pyvenv.cfg: home = /usr/local/bin\nimplementation = CPython\nversion_info = 3.11.4.final.0\nvirtualenv = 20.25.0\ninclude-system-site-packages = false\nbase-prefix = /usr/local\n`, "v/bin/python -> /usr/local/bin/python3.11", "v/lib/python3.11/site-packages/"), cmd: "/v/bin/python", python: "/v/bin/python", more: "version=3.11.4 prefix=/v base=/usr/local sites=/v/lib/python3.11/site-packages"},
		{name: "virtualenv without pyvenv.cfg", files: with(docker, "v/bin/python3.11: ELF", "v/bin/python -> python3.11", "v/lib/python3.11/os.py -> /usr/local/lib/python3.11/os.py", "v/lib/python3.11/site-packages/"), cmd: "/v/bin/python", python: "/v/bin/python", more: "prefix=/v sites=/v/lib/python3.11/site-packages"},
	} {
		t.Run(tt.name, tt.run)
	}
}

// TestBaseImages holds images that others are built on.
func TestBaseImages(t *testing.T) {
	lambda := with(
		`lambda-entrypoint.sh: #!/bin/sh\nif [ $# -ne 1 ]; then\n  echo "entrypoint requires the handler name" 1>&2\n  exit 142\nfi\nexport _HANDLER="$1"\nRUNTIME_ENTRYPOINT=/var/runtime/bootstrap\nif [ -z "${AWS_LAMBDA_RUNTIME_API}" ]; then\n  exec /usr/local/bin/aws-lambda-rie $RUNTIME_ENTRYPOINT\nelse\n  exec $RUNTIME_ENTRYPOINT\nfi\n`,
		`var/runtime/bootstrap: #!/bin/bash\nexport AWS_EXECUTION_ENV=AWS_Lambda_python3.12\nif [ -z "$AWS_LAMBDA_EXEC_WRAPPER" ]; then\n  exec /var/lang/bin/python3.12 /var/runtime/bootstrap.py\nelse\n  exec -- "$AWS_LAMBDA_EXEC_WRAPPER" /var/lang/bin/python3.12 /var/runtime/bootstrap.py\nfi\n`,
		"var/lang/bin/python3.12: ELF", "var/lang/lib/python3.12/os.py", dist("var/lang/lib/python3.12/site-packages", "boto3", "1.34"), dist("var/task", "requests", "2.31"),
		"var/runtime/bootstrap.py: x", "usr/local/bin/aws-lambda-rie: ELF", "bin/sh: ELF",
	)
	s2i := with(
		"usr/bin/python3.11: ELF", "usr/lib64/python3.11/os.py", `opt/app-root/pyvenv.cfg: home = /usr/bin\n`, "opt/app-root/bin/python -> /usr/bin/python3.11",
		"opt/app-root/bin/activate: x", `opt/app-root/bin/gunicorn: #!/opt/app-root/bin/python\n`, "opt/app-root/lib/python3.11/site-packages/", "opt/app-root/lib64 -> lib",
		`usr/bin/container-entrypoint: #!/bin/bash\nexec "$@"\n`,
		`usr/libexec/s2i/run: #!/bin/bash\nset -e\nfunction is_gunicorn_installed() {\n  hash gunicorn &>/dev/null\n}\nfunction maybe_run_in_init_wrapper() {\n  if [[ -z "$ENABLE_INIT_WRAPPER" ]]; then\n    exec "$@"\n  else\n    wrapper "$@"\n  fi\n}\nAPP_HOME=$(readlink -f "${APP_HOME:-.}")\nPYTHONPATH="$(pwd)${PYTHONPATH:+:$PYTHONPATH}"\ncd "$APP_HOME"\nif [ -z "$APP_SCRIPT" ] && [ -z "$APP_FILE" ] && [ -z "$APP_MODULE" ]; then\n  APP_SCRIPT="app.sh"\n  APP_SCRIPT_DEFAULT=1\n  APP_FILE="app.py"\n  APP_FILE_DEFAULT=1\nfi\nif [ ! -z "$APP_SCRIPT" ]; then\n  if [[ -f "$APP_SCRIPT" ]]; then\n    maybe_run_in_init_wrapper "./$APP_SCRIPT"\n  elif [[ -z "$APP_SCRIPT_DEFAULT" ]]; then\n    exit 1\n  fi\nfi\nif [ ! -z "$APP_FILE" ]; then\n  if [[ -f "$APP_FILE" ]]; then\n    maybe_run_in_init_wrapper python "$APP_FILE"\n  fi\nfi\nif is_gunicorn_installed; then\n  if [[ -z "$APP_MODULE" && -f "./wsgi.py" ]]; then\n    APP_MODULE=wsgi\n  fi\n  if [[ "$APP_MODULE" ]]; then\n    exec gunicorn "$APP_MODULE" --bind=0.0.0.0:8080\n  fi\nfi\n`,
		"opt/app-root/src/",
	)
	cnb := func(metadata string, more ...string) []string {
		return with(
			"cnb/lifecycle/launcher: ELF", "cnb/process/web -> /cnb/lifecycle/launcher", "layers/config/metadata.toml: "+metadata,
			"layers/paketo-buildpacks_cpython/cpython/bin/python3.11: ELF", "layers/paketo-buildpacks_cpython/cpython/bin/python -> python3.11", "layers/paketo-buildpacks_cpython/cpython/lib/python3.11/os.py",
			dist("layers/paketo-buildpacks_cpython/cpython/lib/python3.11/site-packages", "pip", "24.0"),
			dist("layers/paketo-buildpacks_pip-install/packages/lib/python3.11/site-packages", "flask", "3.0"),
			"layers/paketo-buildpacks_pip-install/packages/bin/gunicorn: #!/layers/paketo-buildpacks_cpython/cpython/bin/python3.11\\n",
			"layers/paketo-buildpacks_pip-install/packages/env/PYTHONPATH.prepend: /layers/paketo-buildpacks_pip-install/packages/lib/python3.11/site-packages",
			"layers/paketo-buildpacks_pip-install/packages/env/PYTHONPATH.delim: :", "usr/bin/bash: ELF", more,
		)
	}
	const buildpacks = `[[buildpacks]]\nid = "paketo-buildpacks/cpython"\napi = "0.8"\n[[buildpacks]]\nid = "paketo-buildpacks/pip-install"\napi = "0.8"\n`
	const packages = "/layers/paketo-buildpacks_pip-install/packages/lib/python3.11/site-packages"
	const library = "/layers/paketo-buildpacks_cpython/cpython/lib/python3.11/site-packages"
	const python = "/layers/paketo-buildpacks_cpython/cpython/bin/python3.11"
	web := `[[processes]]\ntype = "web"\ncommand = ["gunicorn", "app:app"]\ndirect = true\n` + buildpacks
	for _, tt := range []inspection{
		{name: "AWS Lambda", files: lambda, env: "LAMBDA_TASK_ROOT=/var/task", entry: "/lambda-entrypoint.sh", cmd: "app.handler", python: "/var/lang/bin/python3.12", program: "bootstrap.py", more: "form=lambda version=3.12 dists=requests:2.31,boto3:1.34 sites=/var/task,/var/lang/lib/python3.12/site-packages"},
		{name: "AWS Lambda, own image", files: dockerPython, entry: "/usr/local/bin/python -m awslambdaric", cmd: "app.handler", python: "/usr/local/bin/python", program: "awslambdaric", more: "form=lambda"},
		{name: "AWS Lambda, emulator", files: dockerPython, entry: "/aws-lambda/aws-lambda-rie --log-level debug python -m awslambdaric", cmd: "app.handler", python: "/usr/local/bin/python", program: "awslambdaric", more: "form=lambda"},

		{name: "s2i, app.py", files: with(s2i, "opt/app-root/src/app.py"), dir: "/opt/app-root/src", env: "PATH=/opt/app-root/bin:/usr/bin", entry: "container-entrypoint", cmd: "/usr/libexec/s2i/run", python: "/opt/app-root/bin/python", program: "app.py", more: "reached version=3.11 args="},
		{name: "s2i, module", files: s2i, dir: "/opt/app-root/src", env: "PATH=/opt/app-root/bin:/usr/bin APP_MODULE=app:app PYTHONPATH=/x", entry: "container-entrypoint", cmd: "/usr/libexec/s2i/run", python: "/opt/app-root/bin/python", program: "gunicorn", more: "reached args=app:app_--bind=0.0.0.0:8080"},
		{name: "s2i, activated by BASH_ENV", files: s2i, env: "PATH=/usr/bin BASH_ENV=/opt/app-root/bin/activate", entry: "container-entrypoint", cmd: "gunicorn app", python: "/opt/app-root/bin/python", program: "gunicorn", more: "sure"},
		{name: "UBI, alternatives", files: []string{"usr/bin/python3 -> /etc/alternatives/python3", "etc/alternatives/python3 -> /usr/bin/python3.9", "usr/bin/python3.9: ELF", "usr/libexec/platform-python3.6: ELF", "usr/lib64/python3.9/os.py", "usr/lib64/python3.6/os.py", dist("usr/lib/python3.9/site-packages", "flask", "2")}, cmd: "python3 app.py", python: "/usr/bin/python3", program: "app.py", more: "version=3.9 dists=flask:2 prefix=/usr"},
		{name: "Amazon Linux", files: []string{"usr/bin/python3.11: ELF", "usr/bin/python3.9: ELF", "usr/bin/python3 -> python3.9", "usr/lib64/python3.9/os.py", "usr/lib64/python3.11/os.py", "usr/lib/python3.11/site-packages/", "usr/local/lib/python3.11/site-packages/", "usr/local/lib64/python3.11/site-packages/"}, cmd: "python3.11 app.py", python: "/usr/bin/python3.11", program: "app.py", more: "version=3.11 sites=/usr/local/lib64/python3.11/site-packages,/usr/local/lib/python3.11/site-packages,/usr/lib/python3.11/site-packages"},
		{name: "Chainguard", files: with("usr/bin/python3.13: ELF", "usr/bin/python -> python3.13", "usr/lib/python3.13/os.py", dist("home/nonroot/.local/lib/python3.13/site-packages", "flask", "3"), "etc/passwd: nonroot:x:65532:65532::/home/nonroot:/bin/false\\n", "etc/os-release: ID=chainguard\\n"), env: "HOME=/home/nonroot", entry: "/usr/bin/python", cmd: "app.py", python: "/usr/bin/python", program: "app.py", more: "version=3.13 dists=flask:3 scripts=/usr/bin"},
		{name: "distroless with copied packages", files: with("usr/bin/python3.11: ELF", "usr/lib/python3.11/os.py", "etc/os-release: ID=debian\\n", dist("deps", "flask", "3")), env: "PYTHONPATH=/deps", dir: "/app", entry: "/usr/bin/python3.11", cmd: "app.py", python: "/usr/bin/python3.11", program: "app.py", more: "sites=/deps dists=flask:3"},
		{name: "Ubuntu", files: with(debianPython, "etc/os-release: ID=ubuntu\\nID_LIKE=debian\\n"), cmd: "/usr/bin/python3 -u app.py", python: "/usr/bin/python3", program: "app.py", more: "scripts=/usr/local/bin flags=-u"},

		{name: "buildpacks", files: cnb(web), env: "PATH=/cnb/process:/usr/bin", entry: "/cnb/process/web", python: python, program: "gunicorn", more: "sure reached form=buildpack dir=/workspace args=app:app dists=flask:3.0,pip:24.0 sites=" + packages + "," + library},
		{name: "buildpacks, by PATH", files: cnb(web), env: "PATH=/cnb/process:/usr/bin", entry: "web", python: python, program: "gunicorn", more: "sure"},
		{name: "buildpacks, other arguments", files: cnb(web), entry: "/cnb/process/web", cmd: "other:app", python: python, program: "gunicorn", more: "args=app:app_other:app"},
		{name: "buildpacks, default arguments", files: cnb(`[[processes]]\ntype = "web"\ncommand = ["python"]\nargs = ["a.py"]\ndirect = true\n` + buildpacks), entry: "/cnb/process/web", cmd: "b.py", python: "/layers/paketo-buildpacks_cpython/cpython/bin/python", program: "b.py"},
		{name: "buildpacks, old form", files: cnb(`[[processes]]\ntype = "web"\ncommand = "exec gunicorn -b :${PORT:-8000} app:app"\n` + buildpacks), entry: "/cnb/lifecycle/launcher", python: python, program: "gunicorn", more: "sure args=-b_:8000_app:app"},
		{name: "buildpacks, chosen process", files: cnb(`[[processes]]\ntype = "worker"\ncommand = ["python", "w.py"]\ndirect = true\nworking-dir = "/srv"\n` + web), env: "CNB_PROCESS_TYPE=worker", entry: "/cnb/lifecycle/launcher", python: "/layers/paketo-buildpacks_cpython/cpython/bin/python", program: "w.py", more: "dir=/srv"},
		{name: "buildpacks, default process", files: cnb(`[[processes]]\ntype = "job"\ncommand = ["python", "j.py"]\ndirect = true\ndefault = true\n` + web), entry: "/cnb/lifecycle/launcher", python: "/layers/paketo-buildpacks_cpython/cpython/bin/python", program: "j.py"},
		{name: "buildpacks, own command", files: cnb(web), entry: "/cnb/lifecycle/launcher", cmd: "-- python x.py", python: "/layers/paketo-buildpacks_cpython/cpython/bin/python", program: "x.py"},
		{name: "buildpacks, PYTHONPATH set anew", files: cnb(web, "layers/paketo-buildpacks_cpython/cpython/env/PYTHONPATH.override: /layers/paketo-buildpacks_cpython/cpython"), entry: "/cnb/process/web", python: python, program: "gunicorn", more: "dropped"},
		{name: "buildpacks, PYTHONPATH by default", files: cnb(web, "layers/paketo-buildpacks_cpython/cpython/env.launch/web/PYTHONPATH.default: /x"), entry: "/cnb/process/web", python: python, program: "gunicorn", more: "reached"},
		{name: "buildpacks, broken metadata", files: cnb("[[processes"), entry: "/cnb/process/web", python: python, more: "unsure form=buildpack warning=is_not_understood"},
		{name: "buildpacks, no such process", files: cnb(buildpacks), entry: "/cnb/process/web", python: python, more: "unsure warning=finds_no_process_web"},
	} {
		t.Run(tt.name, tt.run)
	}
}

// TestForms holds apps in one file.
func TestForms(t *testing.T) {
	for _, tt := range []inspection{
		{name: "pex", files: with(dockerPython, "app/a.pex: PEX"), cmd: "/app/a.pex", python: "/usr/local/bin/python3", program: "a.pex", more: "form=pex sure dists=flask:3.0,pip:24.0"},
		{name: "pex by interpreter", files: with(dockerPython, "app/a.pex: PEX"), dir: "/app", cmd: "python a.pex", python: "/usr/local/bin/python", program: "a.pex", more: "form=pex"},
		{name: "pex with a shell script", files: with(dockerPython, "app/a: SHPEX"), cmd: "/app/a", python: "/usr/local/bin/python3.11", more: "form=pex unsure"},
		{name: "pex directory", files: with(dockerPython, "app/PEX-INFO: {}", "app/__main__.py: x"), cmd: "python /app", python: "/usr/local/bin/python", program: "app", more: "form=pex"},
		{name: "pex virtual environment", files: with(dockerPython, venvAt("app"), "app/PEX-INFO: {}", "app/pex: #!/app/bin/python -sE\\n"), cmd: "/app/pex", python: "/app/bin/python", program: "pex", more: "flags=-s,-E isolated dists=flask:3.0"},
		{name: "shiv", files: with(dockerPython, "app/a.pyz: SHIV"), cmd: "/app/a.pyz", python: "/usr/local/bin/python3", program: "a.pyz", more: "form=shiv dists=flask:3.0,pip:24.0 sites=/app/a.pyz,/usr/local/lib/python3.11/site-packages"},
		{name: "zipapp", files: with(dockerPython, "app/a.pyz: ZIPAPP"), cmd: "python /app/a.pyz", python: "/usr/local/bin/python", program: "a.pyz", more: "form=zipapp dists=flask:3.0,pip:24.0"},
		{name: "directory with __main__.py", files: with(dockerPython, "app/__main__.py", dist("app", "flask", "3")), cmd: "python /app", python: "/usr/local/bin/python", program: "app", more: "dists=flask:3,pip:24.0"},
		{name: "PyInstaller", files: []string{"app/server: PYINSTALLER"}, cmd: "/app/server", python: "error: no Python that can be instrumented: /app/server is an executable made by PyInstaller"},
		{name: "PyInstaller beside a Python", files: with(dockerPython, "app/server: PYINSTALLER", "run.sh: #!/bin/sh\\nexec /app/server"), cmd: "/run.sh", python: "error: no Python that can be instrumented: /app/server is an executable made by PyInstaller"},
		{name: "Nuitka", files: []string{"app/server.bin: NUITKA"}, entry: "tini --", cmd: "/app/server.bin", python: "error: no Python that can be instrumented: /app/server.bin is an executable made by Nuitka"},
	} {
		t.Run(tt.name, tt.run)
	}
	im := files(t, with(dockerPython, "app/server: PYINSTALLER")...)
	_, err := Inspect(Config{Cmd: []string{"/app/server"}}, im, Options{})
	var none *NoPythonError
	if !errors.As(err, &none) || none.Form.Kind != PyInstaller || none.Form.Path != "/app/server" || !strings.Contains(none.Hint(), "packed") {
		t.Errorf("got %#v", err)
	}
	e, err := Inspect(Config{Cmd: []string{"/app/server"}}, im, Options{Python: "python3"})
	if err != nil || len(e.Warnings) == 0 {
		t.Errorf("with a given Python: %v, %v", e, err)
	}
	if f, ok := e.Form(PyInstaller); !ok || f.Path != "/app/server" {
		t.Errorf("form %v, %v", f, ok)
	}
	if f, ok := e.Form(Pex); ok {
		t.Errorf("form %v", f)
	}
}

// TestProcessManagers holds images that start several programs.
func TestProcessManagers(t *testing.T) {
	base := with(dockerPython, venv, "usr/bin/supervisord: #!/usr/bin/python3\\n", "usr/bin/python3.9: ELF", "usr/bin/python3 -> python3.9", "usr/lib/python3.9/os.py")
	const conf = `[supervisord]\nnodaemon=true\n\n[program:nginx]\ncommand=/usr/sbin/nginx -g "daemon off;"\n`
	const web = `[program:web]\ncommand=gunicorn -b :%(ENV_PORT)s app:app ; the app\ndirectory=/srv\nenvironment=A="b",PYTHONUNBUFFERED="1"\n`
	const two = `[program:web]\ncommand=/opt/venv/bin/gunicorn\n[program:worker]\ncommand=/usr/local/bin/python3 w.py\n[program:off]\ncommand=/usr/bin/python3 x\nautostart=false\n`
	for _, tt := range []inspection{
		{name: "supervisord", files: with(base, "etc/supervisord.conf: "+conf+web), env: venvPath + " PORT=80", cmd: "/usr/bin/supervisord -c /etc/supervisord.conf", python: "/opt/venv/bin/python", program: "gunicorn", more: "sure dir=/srv args=-b_:80_app:app"},
		{name: "supervisord, default file that includes", files: with(base, "etc/supervisor/supervisord.conf: "+conf+`[include]\nfiles = conf.d/*.conf\n`, "etc/supervisor/conf.d/web.conf: "+web), env: venvPath, cmd: "supervisord -n", python: "/opt/venv/bin/python", program: "gunicorn", more: "sure"},
		{name: "supervisord as a module", files: with(base, "etc/supervisord.conf: "+web), env: venvPath, cmd: "python -m supervisor.supervisord", python: "/opt/venv/bin/python", program: "gunicorn"},
		{name: "supervisord, several Pythons", files: with(base, "etc/supervisord.conf: "+two), cmd: "supervisord", python: "error: several Pythons may be the one that runs: supervisord starts the programs web worker of /etc/supervisord.conf, which run in several Pythons; candidates are /opt/venv/bin/python (1 distribution, runs the program web), /usr/local/bin/python3 (0 distributions, runs the program worker)"},
		{name: "supervisord, no Python", files: with(base, "etc/supervisord.conf: "+conf), cmd: "supervisord", python: "/opt/venv/bin/python", more: "unsure warning=none_of_which_is_known_to_start_a_Python"},
		{name: "supervisord that starts itself", files: with(base, `etc/supervisord.conf: [program:x]\ncommand=supervisord\n`), cmd: "supervisord", python: "/opt/venv/bin/python", more: "unsure"},
		{name: "honcho", files: with(base, `app/Procfile: # all\nweb: gunicorn app:app --bind 0.0.0.0:$PORT\nworker: python w.py\n`), env: venvPath + " PORT=80", dir: "/app", cmd: "honcho start worker", python: "/opt/venv/bin/python", program: "w.py", more: "sure"},
		{name: "foreman", files: with(base, `app/Procfile.prod: web: cd /srv && gunicorn app:app\n`, "app/Procfile: web: cd /srv && exec gunicorn app:app"), env: venvPath, dir: "/app", cmd: "foreman start", python: "/opt/venv/bin/python", program: "gunicorn", more: "dir=/srv"},
		{name: "honcho run", files: base, env: venvPath, cmd: "honcho run gunicorn app", python: "/opt/venv/bin/python", program: "gunicorn"},
		{name: "circus", files: with(base, `app/circus.ini: [watcher:web]\ncmd = gunicorn\nargs = app:app\nworking_dir = /srv\n[env:web]\nA = b\n`), env: venvPath, cmd: "circusd --log-level info /app/circus.ini", python: "/opt/venv/bin/python", program: "gunicorn", more: "dir=/srv args=app:app"},
		{name: "s6-overlay, command", files: with(base, "init: #!/bin/sh -e\\n", `etc/services.d/nginx/run: #!/command/execlineb -P\nnginx\n`), env: venvPath, entry: "/init", cmd: "gunicorn app", python: "/opt/venv/bin/python", program: "gunicorn", more: "sure"},
		{name: "s6-overlay, services", files: with(base, "init: #!/bin/sh -e\\n", `etc/s6-overlay/s6-rc.d/web/run: #!/command/with-contenv bash\ncd /srv\nexec s6-setuidgid app gunicorn app\n`, "etc/s6-overlay/s6-rc.d/web/type: longrun"), env: venvPath, entry: "/init", python: "/opt/venv/bin/python", program: "gunicorn", more: "sure dir=/srv"},
		{name: "s6-overlay, execline", files: with(base, "init: #!/bin/sh -e\\n", `etc/services.d/web/run: #!/command/execlineb -P\n# the app\nwith-contenv\nforeground { echo start }\ncd /srv\nfdmove -c 2 1\ns6-setuidgid app\nexport A b\ngunicorn app:app\n`), env: venvPath, entry: "/init", python: "/opt/venv/bin/python", program: "gunicorn", more: "sure dir=/srv args=app:app"},
		{name: "runit", files: with(base, `etc/service/web/run: #!/bin/sh\nexec chpst -u app gunicorn app 2>&1\n`), env: venvPath, cmd: "runsvdir -P /etc/service", python: "/opt/venv/bin/python", program: "gunicorn"},
		{name: "my_init", files: with(base, `etc/service/web/run: #!/bin/sh\nexec gunicorn app\n`), env: venvPath, cmd: "/sbin/my_init --quiet -- python w.py", python: "/opt/venv/bin/python", program: "gunicorn"},
		{name: "an init of one's own", files: with(base, `init: #!/bin/sh\nexec "$@"\n`), env: venvPath, entry: "/init", cmd: "gunicorn app", python: "/opt/venv/bin/python", program: "gunicorn", more: "sure"},
	} {
		t.Run(tt.name, tt.run)
	}
}

// TestPythonPath tells whether what wrapping puts on PYTHONPATH arrives.
func TestPythonPath(t *testing.T) {
	script := func(s string) []string { return with(dockerPython, venv, "run.sh: #!/bin/bash\\n"+s, "srv/lib/") }
	for _, tt := range []inspection{
		{name: "set anew", files: script(`export PYTHONPATH=/srv\nexec gunicorn app`), env: venvPath, cmd: "/run.sh", python: "/opt/venv/bin/python", program: "gunicorn", more: "dropped sites=/srv,/opt/venv/lib/python3.11/site-packages"},
		{name: "set for the command", files: script(`PYTHONPATH=/srv exec gunicorn app`), env: venvPath, cmd: "/run.sh", python: "/opt/venv/bin/python", program: "gunicorn", more: "dropped"},
		{name: "prepended", files: script(`export PYTHONPATH=/srv:$PYTHONPATH\nexec gunicorn app`), env: venvPath, cmd: "/run.sh", python: "/opt/venv/bin/python", program: "gunicorn", more: "reached sites=/srv,/opt/venv/lib/python3.11/site-packages"},
		{name: "appended where set", files: script(`export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}/srv"\nexec gunicorn app`), env: venvPath + " PYTHONPATH=/srv/lib", cmd: "/run.sh", python: "/opt/venv/bin/python", program: "gunicorn", more: "reached sites=/srv/lib,/srv,/opt/venv/lib/python3.11/site-packages"},
		{name: "default", files: script(`export PYTHONPATH=${PYTHONPATH:-/srv}\nexec gunicorn app`), env: venvPath, cmd: "/run.sh", python: "/opt/venv/bin/python", program: "gunicorn", more: "reached"},
		{name: "prepended, not known", files: script(`export PYTHONPATH="$(make path):$PYTHONPATH"\nexec gunicorn app`), env: venvPath, cmd: "/run.sh", python: "/opt/venv/bin/python", program: "gunicorn", more: "reached"},
		{name: "unset", files: script(`unset PYTHONPATH\nexec gunicorn app`), env: venvPath, cmd: "/run.sh", python: "/opt/venv/bin/python", program: "gunicorn", more: "dropped"},
		{name: "env -u", files: script(""), env: venvPath, cmd: "env -u PYTHONPATH gunicorn app", python: "/opt/venv/bin/python", program: "gunicorn", more: "dropped"},
		{name: "env -i", files: script(""), env: venvPath, cmd: "env -i PATH=/opt/venv/bin gunicorn app", python: "/opt/venv/bin/python", program: "gunicorn", more: "dropped cleared"},
		{name: "untouched", files: script(""), env: venvPath, cmd: "gunicorn app", python: "/opt/venv/bin/python", program: "gunicorn", more: "reached"},
		{name: "returning function and sourced script", files: with(script(`f() { return; export PYTHONPATH=x; }\nf\n. /e.sh\nexec gunicorn app`), `e.sh: return\nexport PYTHONPATH=x\n`), env: venvPath, cmd: "/run.sh", python: "/opt/venv/bin/python", program: "gunicorn", more: "reached sure"},
	} {
		t.Run(tt.name, tt.run)
	}
}

// TestMetadata holds forms of installed distributions.
func TestMetadata(t *testing.T) {
	const site = sitePackages
	metadata := func(version, name string) string {
		return fmt.Sprintf(`%s/%s.dist-info/METADATA: Metadata-Version: %s\nName: %s\nVersion: 1.0\nDynamic: License\nLicense-Expression: MIT\n\nName: not this\n`, site, name, version, name)
	}
	for _, tt := range []inspection{
		{name: "metadata 2.1 to 2.4", files: with(dockerPython[:5], metadata("2.1", "a"), metadata("2.2", "b"), metadata("2.3", "c"), metadata("2.4", "d")), more: "dists=a:1.0,b:1.0,c:1.0,d:1.0"},
		{name: "header case and folding", files: with(dockerPython[:5], site+`/X-1.dist-info/METADATA: metadata-version: 2.1\nNAME: X\nSummary: a\n        Version: 3\nversion:  1.5 \n`), more: "dists=X:1.5"},
		{name: "egg-info directory, file and old eggs", files: with(dockerPython[:5], site+`/Flask-2.egg-info/PKG-INFO: Name: Flask\nVersion: 2\n`, site+`/blinker-1.5.egg-info: Name: blinker\nVersion: 1.5\n`, site+`/easy-install.pth: ./zope-5-py3.11.egg\n./zipped-7-py3.11.egg\n`, site+`/zope-5-py3.11.egg/EGG-INFO/PKG-INFO: Name: zope\nVersion: 5\n`, site+"/zipped-7-py3.11.egg: PK", site+"/notone.egg/x"), more: "dists=Flask:2,blinker:1.5,zipped:7,zope:5"},
		{name: "Debian without RECORD", files: with(dockerPython[:5], site+`/requests-2.28.1.dist-info/METADATA: Name: requests\nVersion: 2.28.1\n`, site+"/requests-2.28.1.dist-info/INSTALLER: debian"), more: "dists=requests:2.28.1"},
		{name: "develop install", files: with(dockerPython[:5], site+`/my-app.egg-link: /src\n.`, site+`/easy-install.pth: /src\n`, `src/my_app.egg-info/PKG-INFO: Name: my-app\nVersion: 0.1\n`), more: "dists=my-app:0.1"},
		{name: "editable install, path", files: with(dockerPython[:5], site+`/__editable__.my_app-0.1.pth: /src\n`, dist(site, "my_app", "0.1"), `src/my_app.egg-info/PKG-INFO: Name: my-app\nVersion: 0.1\n`), more: "dists=my_app:0.1 shadowed=my-app:0.1 sites=/" + site + ",/src"},
		{name: "editable install, finder", files: with(dockerPython[:5], site+`/__editable__.my_app-0.1.pth: import __editable___my_app_0_1_finder; __editable___my_app_0_1_finder.install()\n`, dist(site, "my_app", "0.1")), more: "dists=my_app:0.1 sites=/" + site},
		{name: "one name in several sites and forms", files: with(dockerPython[:5], dist("a", "Foo.Bar", "3"), dist("b", "foo_bar", "2"), `b/foo-bar.egg-info/PKG-INFO: Name: foo-bar\nVersion: 1\n`, dist(site, "foo--bar", "0")), env: "PYTHONPATH=/a:/b", more: "dists=Foo.Bar:3 shadowed=foo-bar:1,foo_bar:2,foo--bar:0"},
	} {
		tt.cmd, tt.python = "python", "/usr/local/bin/python"
		t.Run(tt.name, tt.run)
	}
}

func TestRemovedByALaterLayer(t *testing.T) {
	im := merged(t,
		with(dockerPython, dist(sitePackages, "flask", "2.0"), dist(sitePackages, "click", "8")),
		[]string{sitePackages + "/.wh.flask-2.0.dist-info", dist(sitePackages, "flask", "3.0")},
		[]string{sitePackages + "/.wh.click-8.dist-info"},
	)
	e, err := Inspect(Config{Cmd: []string{"python"}}, im, Options{})
	if err != nil || !slices.Contains(facts(e), "dists=flask:3.0,pip:24.0") {
		t.Errorf("got %q, %v", facts(e), err)
	}
}

func TestInterpreters(t *testing.T) {
	im := files(t, with(debianPython, venv, dockerPython,
		"root/.local/share/uv/python/cpython-3.13.1-linux-x86_64-gnu/bin/python3.13: MUSL", "root/.local/share/uv/python/cpython-3.13.1-linux-x86_64-gnu/lib/python3.13/os.py",
		"opt/conda/pkgs/python-3.12/bin/python3.12: ELF", "opt/conda/pkgs/python-3.12/lib/python3.12/os.py",
		"nothing/pyvenv.cfg: x")...)
	var got []string
	for _, i := range Interpreters(Config{}, im) {
		got = append(got, fmt.Sprintf("%s %s %s %s %s %d (%s)", i.Path, i.Version, i.Libc, i.Prefix, strings.Join(i.Sites, ":"), i.Distributions, i.How))
	}
	want := []string{
		"/opt/venv/bin/python 3.11.7 glibc /opt/venv /opt/venv/lib/python3.11/site-packages 1 (virtual environment, by /opt/venv/pyvenv.cfg)",
		"/root/.local/share/uv/python/cpython-3.13.1-linux-x86_64-gnu/bin/python3.13 3.13.1 musl /root/.local/share/uv/python/cpython-3.13.1-linux-x86_64-gnu  0 (beside the library /root/.local/share/uv/python/cpython-3.13.1-linux-x86_64-gnu/lib/python3.13)",
		"/usr/bin/python3.11 3.11 glibc /usr /usr/lib/python3/dist-packages 2 (beside the library /usr/lib/python3.11)",
		"/usr/local/bin/python3.11 3.11 glibc /usr/local /usr/local/lib/python3.11/site-packages 1 (beside the library /usr/local/lib/python3.11)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if list := Interpreters(Config{}, files(t)); list != nil {
		t.Errorf("empty image: %v", list)
	}
}
