"""Tests of launcher.py, run as the script that images get."""
import json
import os
import sys
import unittest

from support import PYTHON, TemporaryRoot, environment, read

OPTIONS = [
    "OTEL_LOGS_EXPORTER",
    "OTEL_TRACES_EXPORTER",
    "OTEL_PYTHON_ID_GENERATOR",
    "OTEL_SDK_DISABLED",
]


class LauncherTest(TemporaryRoot):
    def setUp(self):
        super(LauncherTest, self).setUp()
        self.init = self.path("init")
        self.wrap = self.write(
            "wrap.json", json.dumps({"contrib": "0.48b0", "options": OPTIONS})
        )
        source = read("launcher.py").replace("/opt/imgwrap", self.root)
        # The interpreter is what wrapping replaces in the first line.
        self.assertTrue(source.startswith("#!python -S\n"))
        source = source.replace("#!python", "#!" + PYTHON, 1)
        self.launcher = self.write("bin/opentelemetry-instrument", source, 0o755)
        self.start = [self.launcher]

    def launch(self, *args, **variables):
        options = variables.pop("options", {})
        env = environment(**variables)
        return self.run_command(self.start + list(args), env, **options)

    def starts(self):
        """Go through the ways in which an interpreter is made to run it."""
        for start in ([], [PYTHON, "-S"], [PYTHON]):
            self.start = start + [self.launcher]
            yield start

    def environment_of(self, *args, **variables):
        result = self.launch(*(args + ("env",)), **variables)
        self.assertEqual((result.status, result.err), (0, ""))
        return dict(line.split("=", 1) for line in result.out.splitlines())

    def test_pythonpath(self):
        for before, after in (
            (None, "INIT"),
            ("", "INIT"),
            ("/a", "INIT:/a"),
            ("/a:/b", "INIT:/a:/b"),
            (":/a::/b:", "INIT::/a::/b:"),
            ("INIT", "INIT"),
            ("INIT:/a", "INIT:/a"),
            ("/a:INIT", "/a:INIT"),
        ):
            before = before and before.replace("INIT", self.init)
            env = self.environment_of(PYTHONPATH=before)
            self.assertEqual(env["PYTHONPATH"], after.replace("INIT", self.init))

    def test_rest_of_environment_is_untouched(self):
        # Without a locale Python sets one for its children.
        for variables in (
            {},
            {"LANG": None},
            {"LANG": None, "LC_CTYPE": "C.UTF-8"},
            {"LC_ALL": "C"},
            {"ODD": "a=b = \xe9"},
        ):
            for start in self.starts():
                env = self.environment_of(**variables)
                del env["PYTHONPATH"]
                self.assertEqual(env.pop("IMGWRAP_LAUNCHED"), "1")
                self.assertEqual(env, environment(**variables))

    def test_ignored_signals_are_restored(self):
        for start in self.starts():
            result = self.launch("grep", "^SigIgn", "/proc/self/status")
            ignored = int(result.out.split()[1], 16)
            for signal in (13, 25):  # SIGPIPE, SIGXFSZ
                self.assertFalse(ignored & 1 << signal - 1, result.out)

    def test_command_takes_the_place_of_the_launcher(self):
        for start in self.starts():
            result = self.launch("/bin/sh", "-c", "echo $$")
            self.assertEqual(result.out, "%d\n" % self.pid)

    def test_upstream_launcher_in_the_command_is_replaced(self):
        for words in (
            ["opentelemetry-instrument"],
            ["/usr/local/bin/opentelemetry-instrument", "--traces_exporter", "console"],
        ):
            env = self.environment_of(*words)
            self.assertEqual(env["PYTHONPATH"], self.init)
        self.assertEqual(env["OTEL_TRACES_EXPORTER"], "console")

    def test_arguments_are_untouched(self):
        command = self.write("tools/tool", "#!/bin/sh\nprintf '%s|' \"$@\"\n", 0o755)
        for args in (
            ["-u", "-m", "x"],
            ["--", "a", "--", "b"],
            ["--traces_exporter", "console", "--version", "-h", "--help"],
            ["--log", "--traces"],  # ambiguous, if they were options
            ["", " ", "\n", "*", "-"],
        ):
            for before in (
                [],
                ["--"],
                ["--traces_exporter", "console"],
                ["--traces_exporter=console", "--id_generator", "x", "--"],
            ):
                result = self.launch(*(before + [command] + args))
                self.assertEqual(result.err, "")
                self.assertEqual(result.out, "".join(arg + "|" for arg in args))

    def test_argv0_is_the_file_found(self):
        self.write("tools/tool", "#!/bin/sh\necho $0\n", 0o755)
        result = self.launch("tool", PATH=self.path("tools") + ":/bin")
        self.assertEqual(result.out, self.path("tools", "tool") + "\n")

    def test_options(self):
        for args, expected in (
            (["--traces_exporter", "console"], {"OTEL_TRACES_EXPORTER": "console"}),
            (["--traces_exporter=console"], {"OTEL_TRACES_EXPORTER": "console"}),
            (["--traces_exporter="], {"OTEL_TRACES_EXPORTER": ""}),
            (["--traces", "console"], {"OTEL_TRACES_EXPORTER": "console"}),
            (["--id_generator", "xray"], {"OTEL_PYTHON_ID_GENERATOR": "xray"}),
            (
                ["--traces_exporter", "a", "--logs_exporter", "b"],
                {"OTEL_TRACES_EXPORTER": "a", "OTEL_LOGS_EXPORTER": "b"},
            ),
            (["--logs_exporter", "--"], None),
            (["--traces_exporter"], None),
            (["--nonsense", "1"], None),
            (["-x"], None),
            (["-x", "1"], None),
        ):
            if expected is None:
                result = self.launch(*(args + ["env"]))
                self.assertEqual((result.status, result.out), (2, ""), args)
                self.assertIn("usage: opentelemetry-instrument", result.err)
                continue
            env = self.environment_of(*args, OTEL_TRACES_EXPORTER="before")
            for name, value in expected.items():
                self.assertEqual(env[name], value, args)

    def test_help(self):
        for args in (["--help"], ["-h"], ["--help", "command"]):
            result = self.launch(*args, COLUMNS="80")
            self.assertEqual((result.status, result.err), (0, ""))
            self.assertTrue(result.out.startswith("usage: opentelemetry-instrument"))
            text = " ".join(result.out.split())
            for part in (
                "opentelemetry-instrument automatically instruments a Python program",
                "command Your Python application.",
                "--version print version information",
                "the optional argument --attribute_value_length_limit corresponds",
                "--logs_exporter LOGS_EXPORTER --traces_exporter TRACES_EXPORTER "
                "--id_generator ID_GENERATOR",
            ):
                self.assertIn(part, text)

    def test_version(self):
        result = self.launch("--version")
        # argparse of Python 2 prints it on stderr.
        self.assertEqual(result.status, 0)
        self.assertEqual(result.out + result.err, "opentelemetry-instrument 0.48b0\n")

    def test_no_command(self):
        for args in ([], ["--"], ["--traces_exporter", "console"]):
            result = self.launch(*args)
            self.assertEqual((result.status, result.out), (2, ""))
            self.assertIn("usage: opentelemetry-instrument", result.err)

    def test_wrap_json_that_cannot_be_used(self):
        for text in (None, "{", "[]", "{}", '{"options": 1}'):
            os.remove(self.wrap)
            if text is not None:
                self.write("wrap.json", text)
            result = self.launch("echo", "ran")
            self.assertEqual((result.out, result.err), ("ran\n", ""))
            result = self.launch("--traces_exporter", "console", "echo", "ran")
            self.assertEqual(result.out, "ran\n")
            self.assertEqual(len(result.err.splitlines()), 1)
            self.assertIn("options are ignored: " + self.wrap, result.err)
            result = self.launch("--help")
            self.assertEqual((result.status, result.err), (0, ""))
            self.write("wrap.json", "")

    def test_command_not_found(self):
        self.write("tools/directory/file", "")
        for command, variables in (
            ("gunicorn-", {}),
            ("gunicorn-", {"PATH": ""}),
            ("gunicorn-", {"PATH": None}),
            ("./gunicorn-", {}),
            ("/nowhere/gunicorn-", {}),
            ("/bin/sh/gunicorn-", {}),
            ("directory", {"PATH": self.path("tools")}),
            ("", {}),
        ):
            result = self.launch(command, "-w", "2", **variables)
            self.assertEqual((result.status, result.out), (127, ""))
            self.assertEqual(
                result.err,
                "opentelemetry-instrument: %s: command not found\n" % command,
            )

    def test_command_cannot_be_executed(self):
        self.write("tools/plain", "#!/bin/sh\n", 0o644)
        self.write("tools/lost", "#!/nowhere/python\n", 0o755)
        self.write("tools/binary", "\0\1\2", 0o755)
        for command, reason in (
            ("plain", "permission denied"),
            ("lost", "bad interpreter: No such file or directory"),
            ("binary", "Exec format error"),
        ):
            for name in (command, self.path("tools", command)):
                result = self.launch(name, PATH="/nowhere:" + self.path("tools"))
                self.assertEqual((result.status, result.out), (126, ""))
                self.assertEqual(
                    result.err, "opentelemetry-instrument: %s: %s\n" % (name, reason)
                )
        result = self.launch(self.path("tools"))
        self.assertEqual(result.status, 126)
        self.assertIn("permission denied", result.err)

    def test_search_goes_on(self):
        self.write("a/tool", "", 0o644)
        self.write("b/tool/file", "")
        self.write("c/tool", "#!/nowhere/python\n", 0o755)
        self.write("d/tool", "#!/bin/sh\necho ran\n", 0o755)
        path = ":".join(self.path(name) for name in "abcd")
        self.assertEqual(self.launch("tool", PATH=path).out, "ran\n")
        # An empty component is the working directory.
        cwd = self.path("d")
        result = self.launch("tool", PATH="/nowhere:", options={"cwd": cwd})
        self.assertEqual(result.out, "ran\n")
        # Without PATH, that of a container.
        self.assertEqual(self.launch("echo", "ran", PATH=None).out, "ran\n")

    def test_script_without_interpreter(self):
        self.write("tools/entry", 'echo "$0 $@"\n', 0o755)
        result = self.launch("entry", "a", "b c", PATH=self.path("tools"))
        self.assertEqual(result.out, "%s a b c\n" % self.path("tools", "entry"))
        self.assertEqual(result.err, "")

    def test_off(self):
        for args, variables in (
            ([], {"OTEL_SDK_DISABLED": "true"}),
            ([], {"OTEL_SDK_DISABLED": "True"}),
            (["--sdk_disabled", "true"], {"OTEL_SDK_DISABLED": "false"}),
            ([], {"IMGWRAP_DISABLE": "1"}),
            ([], {"IMGWRAP_DISABLE": "yes"}),
        ):
            env = self.environment_of(*args, **variables)
            self.assertNotIn("PYTHONPATH", env)
            self.assertNotIn("IMGWRAP_LAUNCHED", env)
        for args, variables in (
            ([], {"OTEL_SDK_DISABLED": "false"}),
            ([], {"OTEL_SDK_DISABLED": "1"}),
            (["--sdk_disabled", "false"], {"OTEL_SDK_DISABLED": "true"}),
            ([], {"IMGWRAP_DISABLE": ""}),
            ([], {"IMGWRAP_DISABLE": "0"}),
            ([], {"IMGWRAP_DISABLE": "false"}),
        ):
            env = self.environment_of(*args, **variables)
            self.assertEqual(env["PYTHONPATH"], self.init)

    def test_another_agent(self):
        site = "/usr/lib/python3/site-packages"
        for agent, variables in (
            ("ddtrace", {"PYTHONPATH": site + "/ddtrace/bootstrap:/a"}),
            ("ddtrace", {"PYTHONPATH": "/datadog-lib/"}),
            ("newrelic", {"PYTHONPATH": site + "/newrelic/bootstrap"}),
            ("newrelic", {"NEW_RELIC_ADMIN_COMMAND": "['newrelic-admin']"}),
            ("elasticapm", {"PYTHONPATH": site + "/elasticapm/instrumentation/wrapper"}),
            ("instana", {"AUTOWRAPT_BOOTSTRAP": "instana"}),
            (
                "another OpenTelemetry launcher",
                {
                    "PYTHONPATH": "/otel/opentelemetry/instrumentation/"
                    "auto_instrumentation:/otel"
                },
            ),
        ):
            result = self.launch("env", **variables)
            self.assertEqual(result.status, 0)
            self.assertNotIn(self.init, result.out)
            self.assertEqual(
                result.err,
                "opentelemetry-instrument: %s is active, "
                "starting without imgwrap's telemetry\n" % agent,
            )
        for agent, command in (
            ("ddtrace", "ddtrace-run"),
            ("newrelic", "newrelic-admin"),
            ("elasticapm", "elasticapm-run"),
        ):
            self.write("tools/" + command, "#!/bin/sh\necho $PYTHONPATH\n", 0o755)
            for name in (command, self.path("tools", command)):
                result = self.launch(name, "app", PATH=self.path("tools"))
                self.assertEqual(result.out, "\n")
                self.assertIn(agent + " is active", result.err)

    def test_launched_twice(self):
        result = self.launch(self.launcher, "--id_generator", "x", "env")
        self.assertEqual(result.err, "")
        self.assertIn("PYTHONPATH=%s\n" % self.init, result.out)
        self.assertIn("OTEL_PYTHON_ID_GENERATOR=x\n", result.out)

    def test_standard_library_is_not_shadowed(self):
        for directory in ("bin", "lib", "cwd"):
            for name in ("os", "errno", "json", "argparse", "re"):
                if directory == "lib" and name in ("os", "re"):
                    continue  # the interpreter itself could not start
                self.write("%s/%s.py" % (directory, name), "raise SystemExit('shadow')")
        # site drops the second entry where it runs.
        path = os.pathsep.join([self.path("lib")] * 2)
        for start in self.starts():
            env = self.environment_of("--id_generator=x", PYTHONPATH=path)
            self.assertEqual(env["OTEL_PYTHON_ID_GENERATOR"], "x")

    def test_closed_stderr(self):
        result = self.run_command(
            ["/bin/sh", "-c", '"$0" nowhere- 2>&-', self.launcher], environment()
        )
        self.assertEqual((result.status, result.out, result.err), (127, "", ""))


if __name__ == "__main__":
    sys.exit(unittest.main())
