"""Tests of sitecustomize.py in interpreters that start with it.

The bundles are small imitations of releases: OLD has the shape of 0.38b0
(pkg_resources, initialisation on import), MIDDLE that of 0.54b1 (no check of
conflicts before loading), NEW that of 0.66b1. Each instrumentation appends its
name to sys.loaded, and what happened is read from a script run in the
interpreter under test.
"""
import json
import os
import shutil
import sys
import unittest

from support import PYTHON, TemporaryRoot, environment, read

INSTRUMENTATION = "opentelemetry/instrumentation/"
AUTO = INSTRUMENTATION + "auto_instrumentation/"

COMMON = {
    INSTRUMENTATION
    + "distro.py": """
        {imports}

        class BaseDistro:
            def configure(self, **kwargs):
                self._configure(**kwargs)

            def load_instrumentor(self, entry_point, **kwargs):
                entry_point.load()().instrument(**kwargs)

        class DefaultDistro(BaseDistro):
            def _configure(self, **kwargs):
                pass
        """,
    "fake/__init__.py": "",
    "fake/lazy.py": "",
    "fake/distro.py": """
        import os
        from opentelemetry.instrumentation.distro import BaseDistro

        class Distro(BaseDistro):
            def _configure(self, **kwargs):
                os.environ["OTEL_TRACES_EXPORTER"] = "set by the distro"
        """,
    "fake/configurator.py": """
        import sys

        class Configurator:
            def configure(self, **kwargs):
                sys.protocol = __import__("os").environ["OTEL_EXPORTER_OTLP_PROTOCOL"]
        """,
    "fake/first.py": """
        import os, sys
        import dependency, shared
        sys.seen = (os.environ.get("PYTHONPATH"), list(sys.path))

        class Instrumentor:
            def instrument(self, **kwargs):
                sys.loaded = ["first"]
        """,
    "fake/last.py": """
        import sys

        class Instrumentor:
            def instrument(self, **kwargs):
                sys.loaded.append("last")
        """,
    "dependency.py": "",
    "shared.py": "",
}

# The parts that all releases have in common, in {entry_points}(group).
STEPS = """
    import os, sys
    from logging import getLogger
    from opentelemetry.instrumentation.distro import BaseDistro, DefaultDistro
    from opentelemetry.instrumentation import dependencies

    _logger = getLogger(__name__)

    def _load_distro():
        for entry_point in iterate("opentelemetry_distro"):
            try:
                return entry_point.load()()
            except Exception as exc:
                _logger.exception(
                    "Distribution %s configuration failed", entry_point.name
                )
                raise exc
        return DefaultDistro()

    def _load_configurators():
        for entry_point in iterate("opentelemetry_configurator"):
            try:
                entry_point.load()().configure(auto_instrumentation_version="0")
            except Exception as exc:
                _logger.exception("Configuration of %s failed", entry_point.name)
                raise exc

    def _hooks(group):
        for entry_point in iterate(group):
            entry_point.load()()
    """

OLD = {
    "pkg_resources.py": """
        import warnings
        warnings.warn("pkg_resources is deprecated as an API", UserWarning, 2)

        class Distribution(str):
            def get_entry_map(self, group):
                return {str(self): None} if group == "opentelemetry_instrumentor" else {}

        class EntryPoint:
            def __init__(self, name, value):
                self.name, self.value, self.dist = name, value, Distribution(name)

            def require(self):
                raise RuntimeError("ContextualVersionConflict")

            def load(self):
                self.require()
                module, _, attribute = self.value.partition(":")
                return getattr(__import__(module, fromlist=["x"]), attribute)

        def iter_entry_points(group):
            from entry_points import TABLE
            return [EntryPoint(*pair) for pair in TABLE.get(group, ())]
        """,
    INSTRUMENTATION
    + "dependencies.py": """
        def get_dist_dependency_conflicts(dist):
            if dist == "unreadable":
                raise ValueError(dist)
            return "conflict" if dist == "conflicting" else None
        """,
    AUTO + "__init__.py": "",
    AUTO
    + "sitecustomize.py": """
        from pkg_resources import iter_entry_points as iterate
        from opentelemetry.instrumentation.dependencies import (
            get_dist_dependency_conflicts,
        )
        {steps}

        def _load_instrumentors(distro):
            _hooks("opentelemetry_pre_instrument")
            for entry_point in iterate("opentelemetry_instrumentor"):
                try:
                    if get_dist_dependency_conflicts(entry_point.dist):
                        continue
                    distro.load_instrumentor(entry_point, skip_dep_check=True)
                except Exception as exc:
                    _logger.exception("Instrumenting of %s failed", entry_point.name)
                    raise exc
            _hooks("opentelemetry_post_instrument")

        def initialize():
            os.environ["PYTHONPATH"] = os.environ["PYTHONPATH"].replace("x", "x")
            try:
                distro = _load_distro()
                distro.configure()
                _load_configurators()
                _load_instrumentors(distro)
            except Exception:
                _logger.exception("Failed to auto initialize opentelemetry")

        initialize()
        """,
}

NEW = {
    "opentelemetry/util/entry_points.py": """
        import sys

        class Distribution(str):
            group = "opentelemetry_instrumentor"
            name = property(str)
            entry_points = property(lambda self: [self])

        class EntryPoint:
            def __init__(self, name, value):
                self.name, self.value, self.dist = name, value, Distribution(name)

            def load(self):
                module, _, attribute = self.value.partition(":")
                return getattr(__import__(module, fromlist=["x"]), attribute)

        def entry_points(group):
            from entry_points import TABLE
            return [EntryPoint(*pair) for pair in TABLE.get(group, ())]
        """,
    INSTRUMENTATION
    + "dependencies.py": """
        class DependencyConflictError(Exception):
            pass

        def get_dist_dependency_conflicts(dist):
            if dist == "unreadable":
                raise ValueError(dist)
            return "conflict" if dist == "conflicting" else None
        """,
    AUTO
    + "_load.py": """
        from opentelemetry.util.entry_points import entry_points as iterate
        from opentelemetry.instrumentation.dependencies import (
            DependencyConflictError,
            get_dist_dependency_conflicts,
        )
        {steps}

        def _load_instrumentors(distro):
            _hooks("opentelemetry_pre_instrument")
            for entry_point in iterate("opentelemetry_instrumentor"):
                try:
                    if get_dist_dependency_conflicts(entry_point.dist):
                        continue
                    distro.load_instrumentor(entry_point, skip_dep_check=True)
                except DependencyConflictError as exc:
                    sys.exit("not reached")
                except ImportError:
                    sys.exit("not reached")
                except Exception as exc:
                    _logger.exception("Instrumenting of %s failed", entry_point.name)
                    raise exc
            _hooks("opentelemetry_post_instrument")
        """,
    AUTO
    + "__init__.py": """
        import os
        from logging import getLogger
        from opentelemetry.instrumentation.auto_instrumentation._load import (
            _load_configurators,
            _load_distro,
            _load_instrumentors,
        )
        _logger = getLogger(__name__)

        def initialize(swallow_exceptions=True):
            if "PYTHONPATH" in os.environ:
                os.environ["PYTHONPATH"] = "changed:" + os.environ["PYTHONPATH"]
            try:
                distro = _load_distro()
                distro.configure()
                _load_configurators()
                _load_instrumentors(distro)
            except Exception as exc:
                _logger.exception("Failed to auto initialize OpenTelemetry")
                if not swallow_exceptions:
                    raise exc
        """,
}

MIDDLE = dict(NEW)
MIDDLE[INSTRUMENTATION + "dependencies.py"] = """
    class DependencyConflictError(Exception):
        pass
    """
MIDDLE[AUTO + "_load.py"] = (
    NEW[AUTO + "_load.py"]
    .replace("            get_dist_dependency_conflicts,\n", "")
    .replace("if get_dist_dependency_conflicts(entry_point.dist)", "if False")
)

RELEASES = {"0.38b0": OLD, "0.54b1": MIDDLE, "0.66b1": NEW}

REPORT = """
import json, os, sys
site = sys.modules.get("sitecustomize")
print(json.dumps({
    "path": sys.path,
    "environ": dict(os.environ),
    "modules": sorted(sys.modules),
    "loaded": getattr(sys, "loaded", None),
    "sitecustomize": site and os.path.abspath(site.__file__),
}))
"""

THREE = sys.version_info >= (3, 6)


class LoaderTest(TemporaryRoot):
    def setUp(self):
        super(LoaderTest, self).setUp()
        self.interpreter = self.make_environment() if THREE else PYTHON
        self.bare_reports = {}
        self.init = self.path("imgwrap", "init")
        self.bundle = self.path("imgwrap", "otel-1.0")
        self.loader = self.write("imgwrap/init/sitecustomize.py", read("sitecustomize.py"))
        self.write_wrap()
        self.write("app/shared.py", "")

    def make_environment(self):
        """A virtual environment without packages, made faster than by venv.

        What is installed beside the interpreter under test would be found
        before the bundle.
        """
        self.write(
            "venv/pyvenv.cfg",
            "home = %s\ninclude-system-site-packages = false\n"
            % os.path.dirname(PYTHON),
        )
        self.write("venv/lib/python%d.%d/site-packages/x" % sys.version_info[:2], "")
        os.mkdir(self.path("venv", "bin"))
        os.symlink(PYTHON, self.path("venv", "bin", "python"))
        return self.path("venv", "bin", "python")

    def write_wrap(self, **changes):
        wrap = {
            "version": 1,
            "release": "1.0",
            "bundle": self.bundle,
            "python": {"min": "3.6", "max": "3.14"},
        }
        wrap.update(changes)
        self.write("imgwrap/wrap.json", json.dumps(wrap))

    def write_bundle(self, release, instrumentations=(), **groups):
        """Write a bundle with instrumentations between the first and the last.

        Each is a pair of its name and the code of its module.
        """
        imports = "import pkg_resources" if release == "0.38b0" else ""
        for files in (COMMON, RELEASES[release]):
            for name, text in files.items():
                text = text.replace("\n        {steps}", indent(STEPS, 4))
                self.write_module(name, text.replace("{imports}", imports))
        table = {
            "opentelemetry_distro": [("distro", "fake.distro:Distro")],
            "opentelemetry_configurator": [
                ("configurator", "fake.configurator:Configurator")
            ],
            "opentelemetry_instrumentor": [("first", "fake.first:Instrumentor")]
            + [(name, "fake.%s:Instrumentor" % name) for name, _ in instrumentations]
            + [("last", "fake.last:Instrumentor")],
        }
        table.update(groups)
        self.write_module("entry_points.py", "TABLE = %r" % table)
        for name, text in instrumentations:
            if text is not None:
                self.write_module("fake/%s.py" % name, text)

    def write_module(self, name, text):
        self.write("imgwrap/otel-1.0/" + name, text)

    def python(self, *args, **variables):
        options = variables.pop("options", {})
        flags = variables.pop("flags", [])
        variables.setdefault("PYTHONPATH", self.init)
        env = environment(**variables)
        return self.run_command([self.interpreter] + flags + list(args), env, **options)

    def report(self, **variables):
        """What REPORT says in an interpreter with the loader, and its stderr."""
        result = self.python("-c", REPORT, **variables)
        self.assertEqual(result.status, 0, result.err)
        return json.loads(result.out), result.err

    def bare(self, **variables):
        """What REPORT says where there is no loader, but the same variables."""
        key = repr(sorted(variables.items()))
        if key not in self.bare_reports:
            path = variables.get("PYTHONPATH", self.init)
            variables["PYTHONPATH"] = path.replace(self.init, self.path("nowhere"))
            report, _ = self.report(**variables)
            text = json.dumps(report).replace(self.path("nowhere"), self.init)
            self.bare_reports[key] = json.loads(text)
        return self.bare_reports[key]

    def assert_off(self, reason, **variables):
        """Telemetry is off: one line says why, and nothing else is different."""
        expected = self.bare(**variables)
        report, err = self.report(**variables)
        self.assertIn(reason, err)
        self.assertEqual(err.count("\n"), 1, err)
        self.assertTrue(err.startswith("imgwrap: telemetry is off: "), err)
        self.assert_untouched(report, expected)

    def assert_silent(self, **variables):
        expected = self.bare(**variables)
        report, err = self.report(**variables)
        self.assertEqual(err, "")
        self.assert_untouched(report, expected)

    def assert_untouched(self, report, expected):
        self.assertEqual(report["path"], expected["path"])
        self.assertEqual(report["environ"], expected["environ"])
        ours = ("opentelemetry", "fake", "pkg_resources", "entry_points", "dependency")
        self.assertEqual(
            [name for name in report["modules"] if name.split(".")[0] in ours], []
        )
        self.assertIsNone(report["loaded"])


def indent(text, spaces):
    return text.replace("\n", "\n" + " " * spaces)


def each_release(test):
    def run(self):
        for release in sorted(RELEASES):
            self.release = release
            try:
                test(self, release)
            except BaseException:
                sys.stderr.write("with the imitation of %s:\n" % release)
                raise

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


@unittest.skipUnless(THREE, "no release serves Python 2")
class LoadTest(LoaderTest):
    @each_release
    def test_environment_of_wrap_json(self, release):
        self.write_bundle(release)
        self.write_wrap(environment={"OTEL_SERVICE_NAME": "shop", "OTEL_LOGS_EXPORTER": "none"})
        report, err = self.report(OTEL_LOGS_EXPORTER="console")
        self.assertEqual(err, "")
        self.assertEqual(report["environ"]["OTEL_SERVICE_NAME"], "shop")
        self.assertEqual(report["environ"]["OTEL_LOGS_EXPORTER"], "console")

    @each_release
    def test_packages_beside_the_script_win(self, release):
        self.write_bundle(release)
        self.write("app/dependency.py", "mine = True")
        self.write_wrap(path=[self.path("app")])
        expected = self.bare()
        report, err = self.report()
        self.assertEqual(err, "")
        self.assertEqual(report["path"], expected["path"] + [self.bundle])
        script = "import dependency; print(dependency.__file__)"
        result = self.python("-c", script)
        self.assertEqual(result.out.strip(), self.path("app", "dependency.py"))

    @each_release
    def test_packages_beside_the_script_win_in_any_image(self, release):
        self.write_bundle(release)
        self.write("app/dependency.py", "mine = True")
        self.write_wrap(generic=True)
        script = self.write(
            "app/main.py",
            """
            import dependency, os, sys
            path = [os.path.abspath(entry) for entry in sys.path]
            print(dependency.__file__, path.count(%r))
            """
            % self.path("app"),
        )
        os.symlink(script, self.path("cwd", release))
        for argv, cwd in (
            ([script], self.cwd),
            ([release], self.cwd),
            (["-m", "main"], self.path("app")),
        ):
            result = self.python(*argv, options={"cwd": cwd})
            self.assertTrue(result.out.startswith(self.bundle), result.out)
            self.write("app/dependency-1.0.dist-info/METADATA", "")
            result = self.python(*argv, options={"cwd": cwd})
            self.assertEqual(result.out, self.path("app", "dependency.py") + " 1\n", argv)
            self.assertEqual(result.err, "")
            shutil.rmtree(self.path("app", "dependency-1.0.dist-info"))

    @each_release
    def test_by_path_file_in_an_isolated_interpreter(self, release):
        self.write_bundle(release)
        site = "venv/lib/python%d.%d/site-packages/" % sys.version_info[:2]
        self.write(
            site + "imgwrap.pth",
            'import sys; "%s" in sys.path or sys.path.insert(0, "%s")\n'
            % (self.init, self.init),
        )
        report, err = self.report(PYTHONPATH=None, flags=["-I"])
        self.assertEqual(err, "")
        self.assertEqual(report["loaded"], ["first", "last"])
        self.assertEqual(report["path"][-1], self.bundle)

    @each_release
    def test_loads(self, release):
        self.write_bundle(release)
        path = os.pathsep.join([self.init, self.path("app"), self.path("app2")])
        expected = self.bare(PYTHONPATH=path)
        report, err = self.report(PYTHONPATH=path)
        self.assertEqual(err, "")
        self.assertEqual(report["loaded"], ["first", "last"])
        self.assertEqual(report["path"], expected["path"] + [self.bundle])
        self.assertIn("_imgwrap_loader", report["modules"])
        changes = {
            name: value
            for name, value in report["environ"].items()
            if value != expected["environ"].get(name)
        }
        self.assertEqual(
            changes,
            {
                "OTEL_TRACES_EXPORTER": "set by the distro",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            },
        )

    @each_release
    def test_exit_is_limited(self, release):
        self.write_bundle(release)
        self.write_module(
            "fake/configurator.py",
            """
            import atexit, threading

            class Configurator:
                def configure(self, **kwargs):
                    atexit.register(self.shutdown)
                    wait = threading.Event().wait
                    self.threads = [
                        threading.Thread(name=name, target=wait, args=(60,), daemon=True)
                        for name in ("OtelBatchSpanProcessor", "OtelPeriodicExportingMetricReader")
                    ]
                    [thread.start() for thread in self.threads]

                def shutdown(self):
                    self.threads[0].join()
                    self.threads[1].join(timeout=60)
                    print([thread.is_alive() for thread in self.threads])
            """,
        )
        result = self.python("-c", "print('end')", OTEL_EXPORTER_OTLP_TIMEOUT="0.01")
        self.assertEqual((result.out, result.err), ("end\n[True, True]\n", ""))

    FLUSHED = """
        class Provider:
            def force_flush(self, timeout_millis):
                print("flushed within", timeout_millis, flush=True)

        def get_tracer_provider():
            return Provider()
        """

    @each_release
    def test_flushed_where_no_exit_handler_runs(self, release):
        self.write_bundle(release)
        self.write_module("opentelemetry/trace.py", self.FLUSHED)
        self.write_module("fake/configurator.py", "import opentelemetry.trace\nclass Configurator:\n    def configure(self, **_): pass")
        fork = (
            "from multiprocessing import get_context, util\n"
            "process = get_context('fork').Process(target=print, args=('child',), kwargs={'flush': True})\n"
            "process.start(); process.join(); print('end', process.exitcode)"
        )
        result = self.python("-c", fork, OTEL_EXPORTER_OTLP_TIMEOUT="2")
        self.assertEqual((result.out, result.err), ("child\nflushed within 2000\nend 0\n", ""))
        self.write("app/celery/__init__.py", "")
        self.write(
            "app/celery/signals.py",
            """
            class worker_process_shutdown:
                @staticmethod
                def connect(function, weak): function(sender=None, weak=weak)
            """,
        )
        path = os.pathsep.join([self.init, self.path("app")])
        result = self.python("-c", "import celery.signals; print('end')", PYTHONPATH=path)
        self.assertEqual((result.out, result.err), ("flushed within 10000\nend\n", ""))
        if sys.version_info < (3, 8):
            return
        result = self.python("-c", "import signal; signal.raise_signal(signal.SIGTERM)")
        self.assertEqual((result.status, result.out, result.err), (-15, "flushed within 10000\n", ""))
        # One that is handled, or not meant to end the process.
        for handled in ("SIGTERM, print", "SIGTERM, signal.SIG_IGN"):
            code = "import signal; signal.signal(signal.%s); signal.raise_signal(signal.SIGTERM)"
            result = self.python("-c", code % handled)
            self.assertEqual((result.status, result.err), (0, ""))
            self.assertNotIn("flushed", result.out)

    @each_release
    def test_patched_by_gevent(self, release):
        self.write_bundle(release)
        self.write("app/gevent/__init__.py", "")
        self.write("app/gevent/monkey.py", "import sys\ndef patch_all(): print('opentelemetry' in sys.modules)")
        path = os.pathsep.join([self.init, self.path("app")])
        variable = "OTEL_PYTHON_AUTO_INSTRUMENTATION_EXPERIMENTAL_GEVENT_PATCH"
        for value, out in (("patch_all", "False\nend\n"), ("something", "end\n"), ("", "end\n")):
            result = self.python("-c", "print('end')", PYTHONPATH=path, **{variable: value})
            self.assertEqual((result.out, result.err), (out, ""))
        result = self.python("-c", "import sys; print(sys.loaded)", **{variable: "patch_all"})
        self.assertEqual((result.out, result.err), ("['first', 'last']\n", ""))

    @each_release
    def test_failures_of_sending_are_lines(self, release):
        self.write_bundle(release)
        code = (
            "import logging\n"
            "try: 1 / 0\n"
            "except Exception: logging.getLogger('opentelemetry.sdk.trace.export').exception('not %s', 'sent')"
        )
        result = self.python("-c", code)
        self.assertEqual(result.err, "not sent: ZeroDivisionError: division by zero\n")

    @each_release
    def test_unknown_propagator(self, release):
        self.write_bundle(release)
        self.write_module(
            "fake/configurator.py",
            """
            import logging
            try:
                next(iter(()))
            except StopIteration:
                logging.getLogger("opentelemetry.propagate").exception("no propagator %s", "x")
                raise
            """,
        )
        self.assert_off("telemetry is off: no propagator x\n")

    @each_release
    def test_garbage_collector(self, release):
        self.write_bundle(release)
        # Some versions have permanent objects of their own.
        code = "import gc; print(gc.isenabled(), getattr(gc, 'get_freeze_count', int)() > 999)"
        result = self.python("-c", code)
        self.assertEqual(result.out, "True %s\n" % (sys.version_info >= (3, 7)))
        self.write_module("fake/distro.py", "raise ValueError")
        result = self.python("-c", code)
        self.assertEqual(result.out, "True False\n")

    @each_release
    def test_packages_of_the_application_win(self, release):
        self.write_bundle(release)
        code = "import dependency, shared; print(dependency.__file__, shared.__file__)"
        path = os.pathsep.join([self.init, self.path("app")])
        result = self.python("-c", code, PYTHONPATH=path)
        self.assertEqual(
            result.out.split(),
            [self.path("imgwrap", "otel-1.0", "dependency.py"), self.path("app", "shared.py")],
        )

    @each_release
    def test_while_instrumentations_load(self, release):
        self.write_bundle(release)
        path = os.pathsep.join([self.init, self.path("app"), "", "/x"])
        code = "import json, sys; print(json.dumps([sys.seen, sys.protocol]))"
        result = self.python(
            "-c", code, PYTHONPATH=path, OTEL_EXPORTER_OTLP_PROTOCOL="grpc"
        )
        (pythonpath, sys_path), protocol = json.loads(result.out)
        self.assertEqual(pythonpath.replace("changed:", ""), self.path("app") + "::/x")
        self.assertEqual(sys_path[-1], self.bundle)
        self.assertEqual(protocol, "grpc")

    @each_release
    def test_bundle_on_the_path_of_a_parent(self, release):
        self.write_bundle(release)
        path = os.pathsep.join([self.init, self.bundle, self.path("app")])
        report, _ = self.report(PYTHONPATH=path)
        self.assertEqual(report["path"].count(self.bundle), 1)
        self.assertEqual(report["path"][-1], self.bundle)

    @each_release
    def test_one_instrumentation_fails(self, release):
        for code, reason in (
            ("raise ImportError('reason')", "ImportError: reason"),
            ("import nowhere_to_be_found", ""),
            ("raise ValueError('reason')", "ValueError: reason"),
            ("raise SystemExit(3)", "SystemExit: 3"),
            ("class Instrumentor: pass", "AttributeError: "),
            ("syntax error", "SyntaxError: "),
        ):
            self.write_bundle(release, [("broken", code)])
            report, err = self.report()
            self.assertEqual(report["loaded"], ["first", "last"], code)
            if reason:
                self.assertTrue(
                    err.startswith("imgwrap: broken is not instrumented: " + reason), err
                )
                self.assertEqual(err.count("\n"), 1, err)
            else:
                self.assertEqual(err, "")

    @each_release
    def test_conflicts(self, release):
        conflict = (
            "from opentelemetry.instrumentation import dependencies\n"
            "raise getattr(dependencies, 'DependencyConflictError', ImportError)"
        )
        self.write_bundle(release, [("own", conflict)])
        report, err = self.report()
        self.assertEqual(report["loaded"], ["first", "last"])
        if release != "0.38b0":
            self.assertEqual(err, "")
        if release != "0.54b1":
            self.write_bundle(
                release,
                [
                    ("conflicting", "raise ValueError"),
                    ("unreadable", COMMON["fake/last.py"].replace("last", "odd")),
                ],
            )
            report, err = self.report()
            self.assertEqual(err, "")
            self.assertEqual(report["loaded"], ["first", "odd", "last"])

    @each_release
    def test_chosen_by_hand(self, release):
        self.write_wrap(unchecked=["conflicting"], without=["first", "unwanted"])
        self.write_bundle(
            release,
            [
                (
                    "conflicting",
                    """
import sys
class Instrumentor:
    def instrument(self, skip_dep_check=False):
        sys.loaded = ["conflicting", skip_dep_check]
""",
                ),
                ("unwanted", "raise ValueError"),
            ],
        )
        report, err = self.report()
        self.assertEqual(err, "")
        self.assertEqual(report["loaded"], ["conflicting", True, "last"])

    @each_release
    def test_initialization_fails(self, release):
        self.write_bundle(release)
        for module in (
            "fake/distro.py",
            "fake/configurator.py",
            INSTRUMENTATION + "distro.py",
            AUTO + "__init__.py",
        ):
            with open(os.path.join(self.bundle, module)) as file:
                text = file.read()
            for code, reason in (
                ("raise SystemExit('a\\nreason')", "SystemExit: a reason"),
                ("raise MemoryError", "MemoryError"),
                ("def f(): f()\nf()", "RecursionError: "),
                ("import no_reason", "no_reason"),
            ):
                self.write_module(module, code)
                self.assert_off(reason)
            self.write_module(module, text)

    @each_release
    def test_setting_refused(self, release):
        self.write_bundle(release)
        self.write_module(
            "fake/configurator.py",
            """
            import os
            class Configurator:
                def configure(self, **kwargs):
                    os.environ.update({"ADDED": "1", "KEPT": "changed"})
                    del os.environ["LANG"]
                    raise RuntimeError("Requested component 'x' not found")
            """,
        )
        self.assert_off("RuntimeError: Requested component 'x' not found", KEPT="1")

    @each_release
    def test_hooks(self, release):
        hook = "import sys\ndef run():\n    sys.hooks = getattr(sys, 'hooks', 0) + 1\n"
        hooks = {
            "opentelemetry_pre_instrument": [("pre", "fake.hook:run")],
            "opentelemetry_post_instrument": [("post", "fake.hook:run")],
        }
        self.write_bundle(release, **hooks)
        self.write_module("fake/hook.py", hook)
        result = self.python("-c", "import sys; print(sys.hooks, sys.loaded)")
        self.assertEqual(result.out, "2 ['first', 'last']\n")

        self.write_module("fake/hook.py", "def run():\n    raise ValueError('reason')\n")
        self.assert_off("reason")

        # Once packages are patched, the bundle stays.
        del hooks["opentelemetry_pre_instrument"]
        self.write_bundle(release, **hooks)
        report, err = self.report()
        self.assertEqual(err, "imgwrap: telemetry is incomplete: ValueError: reason\n")
        self.assertEqual(report["path"][-1], self.bundle)
        self.assertEqual(report["environ"]["PYTHONPATH"], self.init)
        self.assertEqual(report["loaded"], ["first", "last"])

    @each_release
    def test_failure_leaves_no_module_behind(self, release):
        self.write_bundle(release)
        self.write_module("dependency.py", "where = 'bundle'")
        self.write_module("space/inner.py", "where = 'bundle'")
        self.write_module("space2/inner.py", "where = 'bundle'")
        self.write_module(
            "finder.py",
            """
            import importlib.machinery, sys

            class Finder:
                @classmethod
                def find_spec(cls, name, path=None, target=None):
                    pass

            class Instance(Finder):
                pass

            sys.meta_path += [Finder, Instance()]
            if hasattr(importlib.machinery.PathFinder, "find_distributions"):
                del importlib.machinery.PathFinder.find_distributions
            """,
        )
        self.write_module(
            "fake/configurator.py",
            "import dependency, finder, shared, space.inner, space2.inner, app_finder\n"
            "raise ValueError('reason')\n",
        )
        self.write("app/space/other.py", "")
        self.write(
            "app/app_finder.py",
            "import sys\n"
            "class Finder:\n"
            "    find_spec = classmethod(lambda *_: None)\n"
            "sys.meta_path.append(Finder)\n",
        )
        self.write("script/dependency.py", "where = 'script'")
        script = self.write(
            "script/main.py",
            """
            import sys
            finders = [str(f) for f in sys.meta_path]
            assert "app_finder" in finders[-1], finders
            assert "PathFinder" in finders[-2], finders
            assert "shared" in sys.modules
            import dependency
            assert dependency.where == "script", dependency
            import space.other
            assert not hasattr(space, "inner"), space.inner
            for name in ("space.inner", "space2", "finder", "fake"):
                try:
                    __import__(name)
                except ImportError:
                    continue
                sys.exit(name)
            if sys.version_info >= (3, 8):
                import importlib.metadata
                list(importlib.metadata.distributions())
                assert hasattr(importlib.machinery.PathFinder, "find_distributions")
            print("done")
            """,
        )
        path = os.pathsep.join([self.init, self.path("app")])
        result = self.python(script, PYTHONPATH=path)
        self.assertEqual(result.out, "done\n", result.err)
        self.assertEqual(result.err, "imgwrap: telemetry is off: ValueError: reason\n")

    def test_pkg_resources_of_the_application(self):
        """It is imported by a .pth file, before the bundle is on sys.path."""
        self.write_bundle("0.38b0")
        site = "venv/lib/python%d.%d/site-packages/" % sys.version_info[:2]
        self.write(site + "early.pth", "import pkg_resources\n")
        self.write(
            site + "pkg_resources.py",
            OLD["pkg_resources.py"].replace("warnings.warn", "(lambda *_: 0)")
            + """
        class working_set:
            entries = []
            add_entry = entries.append
        """,
        )
        code = (
            "import sys; print('pkg_resources' in sys.modules)\n"
            "import pkg_resources; print(pkg_resources.working_set.entries)\n"
            "print(getattr(sys, 'loaded', None))"
        )
        result = self.python("-c", code)
        self.assertEqual(
            result.out, "True\n%r\n['first', 'last']\n" % [self.bundle], result.err
        )
        self.write_module("fake/configurator.py", "raise ValueError('reason')")
        result = self.python("-c", code)
        lines = result.out.splitlines()
        self.assertEqual((lines[0], lines[-1]), ("True", "None"))

    @each_release
    def test_interrupt_ends_the_process(self, release):
        self.write_bundle(release, [("broken", "raise KeyboardInterrupt")])
        result = self.python("-c", "print('ran')")
        self.assertNotEqual(result.status, 0)
        self.assertEqual(result.out, "")

    @each_release
    def test_strict(self, release):
        self.write_bundle(release)
        result = self.python("-c", "print('ran')", IMGWRAP_STRICT="1")
        self.assertEqual((result.status, result.out, result.err), (0, "ran\n", ""))
        self.write_module("fake/distro.py", "raise ImportError('reason')")
        result = self.python("-c", "print('ran')", IMGWRAP_STRICT="1")
        self.assertEqual((result.status, result.out), (1, ""))
        lines = result.err.splitlines()
        self.assertTrue(lines[0].startswith("Traceback"), lines)
        self.assertEqual(lines[-1], "imgwrap: telemetry is off: ImportError: reason")
        for variables in ({"IMGWRAP_STRICT": "0"}, {"IMGWRAP_DISABLE": "1"}):
            result = self.python("-c", "print('ran')", **variables)
            self.assertEqual((result.status, result.out), (0, "ran\n"))

    @each_release
    def test_warnings_are_not_shown(self, release):
        self.write_bundle(release)
        for action in ("default", "error"):
            report, err = self.report(PYTHONWARNINGS=action)
            self.assertEqual(report["loaded"], ["first", "last"])
            self.assertNotIn("pkg_resources", err)

    @each_release
    def test_working_directory_is_off_the_path(self, release):
        self.write_bundle(release)
        for name in ("dependency", "json", "logging", "warnings", "fake"):
            self.write("cwd/%s.py" % name, "raise SystemExit('shadow')")
        code = "import sys; print(sys.loaded)"
        result = self.python("-c", code)
        self.assertEqual((result.out, result.err), ("['first', 'last']\n", ""))

    def test_removed_working_directory(self):
        self.write_bundle("0.66b1")
        code = 'mkdir gone && cd gone && rmdir ../gone && exec "$0" -c "print(1)"'
        env = environment(PYTHONPATH=self.init)
        result = self.run_command(["/bin/sh", "-c", code, self.interpreter], env)
        self.assertEqual((result.status, result.out), (0, "1\n"))

    @each_release
    def test_children(self, release):
        self.write_bundle(release)
        script = self.write(
            "cwd/main.py",
            """
            import multiprocessing, os, subprocess, sys

            def show(name):
                sys.stdout.write("%s %s\\n" % (name, getattr(sys, "loaded", None)))
                sys.stdout.flush()

            if __name__ == "__main__":
                child = [sys.executable, "-c", "import main; main.show('{}')"]
                subprocess.check_call([a.format("subprocess") for a in child])
                subprocess.check_call([a.format("empty") for a in child], env={})
                for method in ("spawn", "fork", "forkserver"):
                    context = multiprocessing.get_context(method)
                    process = context.Process(target=show, args=(method,))
                    process.start()
                    process.join()
                pid = os.fork()
                if not pid:
                    show("os.fork")
                    os._exit(0)
                os.waitpid(pid, 0)
            """,
        )
        result = self.python(script)
        self.assertEqual(
            result.out.splitlines(),
            [
                "subprocess ['first', 'last']",
                "empty None",
                "spawn ['first', 'last']",
                "fork ['first', 'last']",
                "forkserver ['first', 'last']",
                "os.fork ['first', 'last']",
            ],
        )
        self.assertNotIn("imgwrap", result.err)

    def test_loads_once(self):
        self.write_bundle("0.66b1")
        code = (
            "import importlib, sys; first = sys.loaded; del sys.loaded\n"
            "sys.modules.pop('sitecustomize'); import sitecustomize\n"
            "importlib.reload(sitecustomize)\n"
            "exec(open(%r).read(), {'__file__': %r, '__name__': 'other'})\n"
            "print(first, hasattr(sys, 'loaded'))" % (self.loader, self.loader)
        )
        result = self.python("-c", code)
        self.assertEqual((result.out, result.err), ("['first', 'last'] False\n", ""))

    def test_flags_that_keep_the_loader_out(self):
        self.write_bundle("0.66b1")
        for flags in (["-I"], ["-E"], ["-S"]):
            report, err = self.report(flags=flags)
            self.assertEqual((report["loaded"], err), (None, ""))
        for flags in (["-s"], ["-B"], ["-u"], ["-O"], ["-X", "utf8"], ["-bb"]):
            report, err = self.report(flags=flags)
            self.assertEqual((report["loaded"], err), (["first", "last"], ""))


@unittest.skipUnless(THREE, "no release serves Python 2")
class WatchTest(LoaderTest):
    """Instrumentations that wait for a module."""

    generic = False

    def write_waiting(self, release, modules, **code):
        """A bundle with instrumentations that append their names to sys.loaded.

        modules are those that each waits for; code runs before.
        """
        self.write_wrap(modules=modules, generic=self.generic)
        self.write_bundle(
            release,
            [
                (
                    name,
                    "import sys\n"
                    + code.get(name, "")
                    + "\nclass Instrumentor:\n"
                    + "    def instrument(self, **kwargs):\n"
                    + "        sys.loaded.append(%r)\n" % name,
                )
                for name in sorted(modules)
            ],
        )

    def script(self, text, **variables):
        """What a script prints, with its directory holding the libraries."""
        result = self.python(self.write("app/main.py", text), **variables)
        self.assertEqual(result.status, 0, result.err)
        self.assertEqual(result.err, "")
        return result.out

    @each_release
    def test_waits(self, release):
        self.write_waiting(release, {"web": ["web"], "db": ["db.driver"]}, db="import db.driver; db.driver.connect")
        self.write("app/web/__init__.py", "from web import inner; App = 1")
        self.write("app/web/inner.py", "")
        self.write("app/db/__init__.py", "")
        self.write("app/db/driver.py", "import sys; connect = 1; sys.at_import = list(sys.loaded)")
        out = self.script(
            """
            import importlib.util, sys
            print(sys.loaded)
            spec = importlib.util.find_spec("web")
            assert isinstance(spec.loader, importlib.machinery.SourceFileLoader)
            assert spec.loader.path == spec.origin, spec.loader.path
            assert sys.loaded == ["first", "last"]
            from web import App
            print(sys.loaded)
            import web
            for loader in web.__loader__, web.__spec__.loader:
                assert type(loader) is importlib.machinery.SourceFileLoader, loader
            import db
            print(sys.loaded)
            import db.driver
            print(sys.loaded, sys.at_import)
            importlib.reload(web)
            importlib.reload(db.driver)
            print(sys.loaded)
            """
        )
        self.assertEqual(
            out.splitlines(),
            [
                "['first', 'last']",
                "['first', 'last', 'web']",
                "['first', 'last', 'web']",
                "['first', 'last', 'web', 'db'] ['first', 'last', 'web']",
                "['first', 'last', 'web', 'db']",
            ],
        )

    @each_release
    def test_imported_already(self, release):
        self.write_waiting(release, {"early": ["dependency"], "os": ["none", "os"]})
        report, err = self.report()
        self.assertEqual((report["loaded"], err), (["first", "early", "os", "last"], ""))

    def test_imported_by_half(self):
        """An instrumentation sees whole libraries, those that import its own too."""
        self.write_waiting(
            "0.66b1",
            {"cli": ["cli", "web"], "web": ["web"], "base": ["base"]},
            cli="from web.commands import Command",
            base="import base.late",
        )
        self.write("app/cli.py", "")
        self.write("app/base/__init__.py", "")
        self.write("app/base/late.py", "")
        self.write("app/web/__init__.py", "import sys, cli, base; before = list(sys.loaded)\nApp = 1")
        self.write("app/web/commands.py", "from web import App\nCommand = 1")
        out = self.script("import sys, web; print(web.before, sys.loaded)")
        self.assertEqual(out, "['first', 'last'] ['first', 'last', 'base', 'cli', 'web']\n")
        # The other way round: what loads imports the others.
        out = self.script("import sys, cli; print(sys.loaded)")
        self.assertEqual(out, "['first', 'last', 'cli', 'base', 'web']\n")

    @each_release
    def test_import_fails(self, release):
        self.write_waiting(release, {"web": ["web"], "cli": ["cli"]})
        self.write("app/cli.py", "")
        self.write(
            "app/web.py",
            """
            import sys, cli
            if not hasattr(sys, "again"):
                sys.again = True
                raise ValueError("reason")
            """,
        )
        out = self.script(
            """
            import sys
            try:
                import web
            except ValueError as error:
                print(error, sys.loaded, "web" in sys.modules)
            try:
                import absent
            except ImportError as error:
                print(error)
            import web
            print(sys.loaded)
            """
        )
        self.assertEqual(
            out.splitlines(),
            [
                "reason ['first', 'last', 'cli'] False",
                "No module named 'absent'",
                "['first', 'last', 'cli', 'web']",
            ],
        )

    @each_release
    def test_instrumentation_fails(self, release):
        conflict = (
            "from opentelemetry.instrumentation import dependencies\n"
            "raise getattr(dependencies, 'DependencyConflictError', ImportError)"
        )
        for code, log in (
            ("import nowhere_to_be_found", ""),
            ("raise ImportError('reason')", "ImportError: reason"),
            ("raise SystemExit(3)", "SystemExit: 3"),
            (conflict, "" if release != "0.38b0" else "ImportError"),
        ):
            self.write_waiting(release, {"web": ["web"]}, web=code)
            self.write("app/web.py", "name = 'web'")
            script = self.write("app/main.py", "import sys, web; print(web.name, sys.loaded)")
            result = self.python(script)
            self.assertEqual(result.out, "web ['first', 'last']\n", result.err)
            if log:
                log = "imgwrap: web is not instrumented: %s\n" % log
            self.assertEqual(result.err, log)

    def test_conflict_is_reported(self):
        self.write_waiting(
            "0.66b1",
            {"web": ["web"]},
            web="""
from opentelemetry.instrumentation.dependencies import DependencyConflictError
class Conflict:
    def _log(self, logger, name):
        logger.error("%s only instruments others", name)
error = DependencyConflictError()
error.conflict = Conflict()
raise error
""",
        )
        self.write("app/web.py", "")
        script = self.write("app/main.py", "import web")
        result = self.python(script)
        self.assertIn("web only instruments others", result.err)
        self.write_wrap(modules={"web": ["web"]}, generic=True)
        self.assertEqual(self.python(script).err, "")

    @each_release
    def test_metadata_is_read_when_the_library_comes(self, release):
        if release == "0.54b1":
            return  # looks at it when it instruments
        for self.generic in (False, True):
            self.write_waiting(release, {"conflicting": ["web"], "unreadable": ["web"]})
            module = INSTRUMENTATION + "dependencies.py"
            self.write_module(
                module,
                COMMON.get(module, RELEASES[release][module]).replace(
                    "if dist", "print('checked', dist)\n            if dist", 1
                ),
            )
            self.write("app/web.py", "")
            out = self.script("import sys; print(sys.loaded); import web; print(sys.loaded)")
            self.assertEqual(
                out.splitlines(),
                [
                    "checked first",
                    "checked last",
                    "['first', 'last']",
                    "checked conflicting",
                    "checked unreadable",
                    "['first', 'last', 'unreadable']",
                ],
            )

    @each_release
    def test_library_of_the_bundle(self, release):
        modules = {"own": ["dependency"], "both": ["absent", "shared"], "late": ["lazy"]}
        self.write("app/main.py", "import sys, lazy; print(sys.loaded)")
        self.write("site/shared.py", "")
        path = os.pathsep.join([self.init, self.path("site")])
        for self.generic, expected in (
            (False, ["first", "both", "own", "last", "late"]),
            (True, ["first", "both", "last"]),
        ):
            self.write_waiting(release, modules)
            self.write_module("lazy.py", "")
            result = self.python(self.path("app", "main.py"), PYTHONPATH=path)
            self.assertEqual((result.out, result.err), ("%s\n" % expected, ""))

    def test_loaders(self):
        """Modules that come from other places than files, and replaced ones."""
        self.write_waiting(
            "0.66b1",
            {n: [n] for n in ("zipped", "legacy", "lazy", "replaced", "namespace", "_ctypes_test", "marshal")},
        )
        self.write("app/replaced.py", "import sys; sys.modules[__name__] = type(sys)('other')")
        self.write("app/lazy.py", "import sys; sys.lazy = True")
        self.write("app/later.py", "")
        self.write("app/namespace/inner.py", "")
        self.write(
            "app/make.py",
            """
            import sys, zipfile
            with zipfile.ZipFile("libraries.zip", "w") as archive:
                archive.writestr("zipped.py", "name = 1")
            sys.path.append("libraries.zip")

            class Legacy:
                def load_module(self, name):
                    sys.modules[name] = module = type(sys)(name)
                    return module

                def find_module(self, name, path=None):
                    return self if name == "legacy" else None

            class Modern(Legacy):
                def find_spec(self, name, path=None, target=None):
                    from importlib.util import spec_from_loader
                    if name == "legacy":
                        return spec_from_loader(name, self)

            sys.meta_path.append(Legacy() if sys.version_info < (3, 12) else Modern())
            """,
        )
        script = self.write(
            "app/main.py",
            """
            import sys, warnings
            warnings.simplefilter("ignore")
            import make, zipped, legacy, replaced, namespace.inner
            assert zipped.name and replaced.__name__ == "other"
            assert type(zipped.__loader__).__name__ == "zipimporter", zipped.__loader__
            assert legacy.__spec__ is None or legacy.__spec__.loader.__class__ in (make.Legacy, make.Modern)
            assert type(legacy.__spec__.loader) in (make.Legacy, make.Modern), legacy.__spec__
            print(sys.loaded)
            import importlib.util
            spec = importlib.util.find_spec("lazy")
            spec.loader = importlib.util.LazyLoader(spec.loader)
            lazy = importlib.util.module_from_spec(spec)
            sys.modules["lazy"] = lazy
            spec.loader.exec_module(lazy)
            import later
            print("lazy" in sys.loaded, hasattr(sys, "lazy"))
            lazy.sys
            print("lazy" in sys.loaded, hasattr(sys, "lazy"))
            """,
        )
        result = self.python(script)
        self.assertEqual(
            result.out.splitlines(),
            [
                "['first', 'marshal', 'last', 'zipped', 'legacy', 'replaced', 'namespace']",
                "False False",
                "True True",
            ],
            result.err,
        )

    def test_other_finders(self):
        """One in front that finds the module itself, or asks the others."""
        self.write_waiting("0.66b1", {"web": ["web"], "db": ["db"]})
        self.write("app/web.py", "import inner")
        self.write("app/inner.py", "import sys; inner = list(sys.loaded)")
        self.write("app/db.py", "")
        self.write("app/later.py", "")
        out = self.script(
            """
            import importlib.machinery, importlib.util, sys

            class First:
                asked = False
                def find_spec(self, name, path=None, target=None):
                    if name == "web":
                        return importlib.machinery.PathFinder.find_spec(name, path, target)
                    if name == "db" and not self.asked:
                        self.asked = True
                        return importlib.util.find_spec(name)

            sys.meta_path.insert(0, First())
            import db
            print(sys.loaded)
            import web
            print(sys.modules["inner"].inner)
            import later
            print(sys.loaded)
            """
        )
        self.assertEqual(
            out.splitlines(),
            [
                "['first', 'last', 'db']",
                "['first', 'last', 'db']",
                "['first', 'last', 'db', 'web']",
            ],
        )

    def test_threads(self):
        names = ["web%d" % number for number in range(8)]
        self.write_waiting("0.66b1", {name: [name] for name in names})
        for name in names:
            self.write("app/%s.py" % name, "import time; time.sleep(0.01); name = %r" % name)
        out = self.script(
            """
            import sys, threading
            names = ["web%d" % number for number in range(8)]
            seen = []

            def load():
                for name in names:
                    module = __import__(name)
                    seen.append(name in sys.loaded and module.name == name)

            threads = [threading.Thread(target=load) for _ in range(4)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            print(all(seen), sorted(sys.loaded[2:]) == names)
            """
        )
        self.assertEqual(out, "True True\n")

    def test_after_fork(self):
        self.write_waiting("0.66b1", {"web": ["web"]})
        self.write("app/web.py", "")
        out = self.script(
            """
            import os, sys
            if not os.fork():
                import web
                print(sys.loaded)
                sys.stdout.flush()
                os._exit(0)
            os.wait()
            print(sys.loaded)
            """
        )
        self.assertEqual(out, "['first', 'last', 'web']\n['first', 'last']\n")

    def test_path_of_the_application_is_set_anew(self):
        self.write_waiting("0.66b1", {"web": ["web"]}, web="import late")
        self.write_module("late.py", "")
        self.write("app/web.py", "")
        out = self.script(
            """
            import sys
            sys.path[:] = [p for p in sys.path if "otel-1.0" not in p]
            before = list(sys.path)
            import web
            print(sys.loaded, sys.path == before)
            """
        )
        self.assertEqual(out, "['first', 'last', 'web'] True\n")

    @each_release
    def test_initialization_fails(self, release):
        """What waits is forgotten."""
        self.write_wrap(modules={"web": ["web"]})
        self.write("app/web.py", "")
        hook = "def run():\n    raise ValueError('reason')\n"
        self.write_bundle(
            release,
            [("web", "import sys\nclass Instrumentor:\n    def instrument(self, **_): sys.loaded.append('web')")],
            opentelemetry_instrumentor=[("web", "fake.web:Instrumentor")],
            opentelemetry_post_instrument=[("post", "fake.hook:run")],
        )
        self.write_module("fake/hook.py", hook)
        script = self.write(
            "app/main.py",
            "import sys, web\n"
            "print(hasattr(sys, 'loaded'), [f for f in sys.meta_path if 'Watch' in repr(f)])",
        )
        result = self.python(script)
        self.assertEqual(result.err, "imgwrap: telemetry is off: ValueError: reason\n")
        self.assertEqual(result.out, "False []\n")

    DJANGO = {
        "app/django/__init__.py": "",
        "app/django/conf.py": """
            import os

            class Settings:
                configured = False

                def __getattr__(self, name):
                    module = os.environ.get("DJANGO_SETTINGS_MODULE")
                    if not module:
                        raise RuntimeError("not configured: " + name)
                    self.MIDDLEWARE = __import__(module).MIDDLEWARE
                    self.configured = True
                    return getattr(self, name)

            settings = Settings()
            """,
        "app/django/core/__init__.py": "",
        "app/django/core/handlers/__init__.py": "",
        "app/django/core/handlers/base.py": """
            from django.conf import settings

            class BaseHandler:
                def load_middleware(self, is_async=False):
                    self.middleware = list(settings.MIDDLEWARE)
                    return is_async
            """,
        "app/project.py": "import sys; print('settings', sys.loaded); MIDDLEWARE = ['own']",
        "app/broken.py": "print('broken'); import no_such_module",
    }

    @each_release
    def test_django(self, release):
        self.write_bundle(
            release,
            [
                (
                    "django",
                    """
                    import sys
                    from django.conf import settings

                    class Instrumentor:
                        def instrument(self, **kwargs):
                            assert settings.configured
                            settings.MIDDLEWARE.insert(0, "traced")
                    """,
                )
            ],
        )
        for name, text in self.DJANGO.items():
            self.write(name, text)
        path = os.pathsep.join([self.init, self.path("app")])
        out = self.script(
            """
            import os, sys
            from django.core.handlers.base import BaseHandler

            def show():
                handler = BaseHandler()
                try:
                    print(handler.load_middleware(is_async=True), handler.middleware)
                except Exception as error:
                    print(error)

            show()
            os.environ["DJANGO_SETTINGS_MODULE"] = "broken"
            show()
            os.environ["DJANGO_SETTINGS_MODULE"] = "project"
            # Another product patches the method too.
            first = BaseHandler.load_middleware
            BaseHandler.load_middleware = lambda self, **kwargs: first(self, **kwargs)
            show()
            BaseHandler.load_middleware = first
            show()
            """,
            PYTHONPATH=path,
        )
        self.assertEqual(
            out.splitlines(),
            [
                "not configured: MIDDLEWARE",
                "broken",
                "No module named 'no_such_module'",
                "settings ['first', 'last']",
                "True ['traced', 'own']",
                "True ['traced', 'own']",
            ],
        )
        # The method is put back.
        out = self.script(
            """
            from django.core.handlers.base import BaseHandler
            print(BaseHandler.load_middleware.__module__)
            BaseHandler().load_middleware()
            print(BaseHandler.load_middleware.__module__)
            """,
            PYTHONPATH=path,
            DJANGO_SETTINGS_MODULE="project",
        )
        lines = out.splitlines()
        self.assertNotEqual(lines[0], "django.core.handlers.base")
        self.assertEqual(lines[-1], "django.core.handlers.base")


class OffTest(LoaderTest):
    def test_python_too_old(self):
        if THREE:
            self.write_bundle("0.66b1")
        self.write_wrap(python={"min": "99.1"})
        self.assert_off(
            "Python %d.%d is older than 99.1, the oldest that OpenTelemetry 1.0 serves"
            % sys.version_info[:2]
        )

    def test_wrap_json(self):
        for text, reason in (
            (None, "No such file or directory"),
            ("", ""),
            ("{", ""),
            ("[]", "not an object"),
            ("null", "not an object"),
            ('{"python": {"min": "x"}}', ""),
            ('{"python": 1}', ""),
        ):
            os.remove(self.path("imgwrap", "wrap.json"))
            if text is not None:
                self.write("imgwrap/wrap.json", text)
            self.assert_off(reason)
            self.write("imgwrap/wrap.json", "{}")
        self.assert_off("wrap.json names no bundle" if THREE else "")

    @unittest.skipUnless(THREE, "no release serves Python 2")
    def test_bundle_missing_or_empty(self):
        self.assert_off("otel-1.0 is missing or unreadable")
        self.write("imgwrap/otel-1.0", "not a directory")
        self.assert_off("otel-1.0 is missing or unreadable")
        os.remove(self.bundle)
        os.mkdir(self.bundle)
        self.assert_off("No module named 'opentelemetry'")

    @unittest.skipUnless(THREE, "no release serves Python 2")
    def test_bundle_unreadable(self):
        self.write_bundle("0.66b1")
        for name, reason in (
            ("", "otel-1.0 is missing or unreadable"),
            ("opentelemetry", "opentelemetry"),
            ("fake/distro.py", "distro"),
        ):
            path = os.path.join(self.bundle, name)
            mode = os.stat(path).st_mode
            os.chmod(path, 0)
            self.addCleanup(os.chmod, path, mode)
            try:
                self.assert_off(reason, options={"preexec_fn": obey_modes})
            finally:
                os.chmod(path, mode)

    def test_switches(self):
        for variables in (
            {"OTEL_SDK_DISABLED": "true"},
            {"OTEL_SDK_DISABLED": "TRUE"},
            {"IMGWRAP_DISABLE": "1"},
            {"IMGWRAP_DISABLE": "true"},
        ):
            self.assert_silent(IMGWRAP_STRICT="1", **variables)
        os.remove(self.path("imgwrap", "wrap.json"))
        for variables in (
            {"OTEL_SDK_DISABLED": "false"},
            {"IMGWRAP_DISABLE": "0"},
        ):
            self.assert_off("wrap.json", **variables)

    def test_programs_that_are_not_the_application(self):
        os.remove(self.path("imgwrap", "wrap.json"))
        for name in ("pip", "poetry", "opentelemetry-instrument", "pip3.11"):
            script = self.write("bin/" + name, "print('ran')")
            result = self.python(script, "install")
            self.assertEqual((result.out, result.err), ("ran\n", ""))
        self.write("app/ensurepip/__init__.py", "")
        self.write("app/ensurepip/__main__.py", "print('ran')")
        path = os.pathsep.join([self.init, self.path("app")])
        for flags in (["-m", "ensurepip"], ["-Bum", "ensurepip"], ["-Bmensurepip"]):
            result = self.python(PYTHONPATH=path, flags=flags)
            self.assertEqual((result.out, result.err), ("ran\n", ""))
        result = self.python(self.path("app", "ensurepip", "__main__.py"))
        self.assertEqual((result.out, result.err), ("ran\n", ""))
        for name in ("pipeline", "app.py"):
            script = self.write("bin/" + name, "print('ran')")
            result = self.python(script)
            self.assertEqual(result.out, "ran\n")
            self.assertIn("telemetry is off", result.err)

    @unittest.skipUnless(THREE, "no release serves Python 2")
    def test_programs_that_wrap_json_names(self):
        self.write_wrap(skip=[["healthcheck.py", "--fast"]])
        script = self.write("bin/healthcheck.py", "print('ran')")
        result = self.python(script, "--fast")
        self.assertEqual((result.out, result.err), ("ran\n", ""))
        result = self.python(script)
        self.assertEqual(result.out, "ran\n")
        self.assertIn("telemetry is off", result.err)

    @unittest.skipUnless(THREE, "no release serves Python 2")
    def test_everywhere(self):
        self.write_wrap(everywhere=True)
        for code in ("-c", "-"):
            with open(self.write("input", "print('ran')")) as file:
                result = self.python(
                    code, *(["print('ran')"] if code == "-c" else []), options={"stdin": file}
                )
            self.assertEqual((result.out, result.err), ("ran\n", ""))
        script = self.write(
            "app/main.py",
            """
            import multiprocessing, sys

            def show():
                print(getattr(sys, "loaded", None))

            if __name__ == "__main__":
                process = multiprocessing.get_context("spawn").Process(target=show)
                process.start()
                process.join()
            """,
        )
        self.write_bundle("0.66b1")
        result = self.python(script)
        self.assertEqual((result.out, result.err), ("['first', 'last']\n", ""))
        # What the launcher has started is the application, whatever it is.
        show = "import sys; print(getattr(sys, 'loaded', None))"
        for variables, expected in ({}, None), ({"IMGWRAP_LAUNCHED": "1"}, ["first", "last"]):
            result = self.python("-c", show, **variables)
            self.assertEqual((result.out, result.err), ("%s\n" % expected, ""))

    def test_another_agent(self):
        for agent, variables in (
            ("ddtrace", {"PYTHONPATH": self.init + ":/x/ddtrace/bootstrap"}),
            ("newrelic", {"NEW_RELIC_ADMIN_COMMAND": "[]"}),
        ):
            self.assert_off(agent + " is active", **variables)

    def test_closed_stderr(self):
        os.remove(self.path("imgwrap", "wrap.json"))
        result = self.run_command(
            ["/bin/sh", "-c", '"$0" -c "print(1)" 2>&-', self.interpreter],
            environment(PYTHONPATH=self.init),
        )
        self.assertEqual((result.status, result.out, result.err), (0, "1\n", ""))

    def test_stderr_without_that_text(self):
        self.write_wrap(bundle=u"/\xfcml\xe4ut")
        for encoding in ("ascii:strict", "utf-8"):
            result = self.python("-c", "print(1)", PYTHONIOENCODING=encoding)
            self.assertEqual((result.status, result.out), (0, "1\n"))


def obey_modes():
    """Take away from root what lets it read files whatever their modes."""
    if os.getuid() == 0:
        import ctypes

        prctl = ctypes.CDLL(None, use_errno=True).prctl
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            if prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
                raise OSError(ctypes.get_errno(), "prctl")


class HandOverTest(LoaderTest):
    """The sitecustomize that would have been imported is, in all its ways."""

    def compare(self, code="import sys; print(sys.modules['sitecustomize'].__file__)"):
        next_one = os.pathsep.join([self.init, self.path("next")])
        results = []
        for path in (self.path("next"), next_one):
            result = self.python(
                "-c", code, PYTHONPATH=path, IMGWRAP_DISABLE="1"
            )
            results.append((result.status, result.out, result.err))
        self.assertEqual(results[0], results[1])
        return result

    def test_next(self):
        self.write("next/sitecustomize.py", "import sys; print(__name__)")
        result = self.compare()
        self.assertEqual(
            result.out.replace(".pyc", ".py"),
            "sitecustomize\n%s\n" % self.path("next", "sitecustomize.py"),
        )

    def test_next_package(self):
        self.write("next/sitecustomize/__init__.py", "from . import inner")
        self.write("next/sitecustomize/inner.py", "print(__name__)")
        self.assertIn("sitecustomize.inner\n", self.compare().out)

    def test_next_fails(self):
        code = "import sys; print('sitecustomize' in sys.modules)"
        for text in (
            "raise RuntimeError('reason')",
            "import no_such_module",
            "raise ImportError('reason')",
            "syntax error",
            "raise SystemExit(3)",
        ):
            self.write("next/sitecustomize.py", text)
            result = self.compare(code) if "Exit" not in text else None
            if result is None:
                path = os.pathsep.join([self.init, self.path("next")])
                result = self.python(
                    "-c", code, PYTHONPATH=path, IMGWRAP_DISABLE="1"
                )
                self.assertNotEqual((result.status, result.out), (0, "False\n"))
            else:
                self.assertEqual((result.status, result.out), (0, "False\n"))

    def test_none(self):
        result = self.python("-c", "import sitecustomize as s; print(s.__file__)")
        alone = self.python(
            "-c", "import sitecustomize as s; print(s.__file__)", PYTHONPATH=None
        )
        expected = alone.out or self.loader + "\n"
        self.assertEqual(result.out.replace(".pyc", ".py"), expected)
        self.assertEqual(result.status, 0)

    def test_path_is_changed_by_next(self):
        for change in ("insert(0, '/x')", "append('/x')", "remove(sys.path[-1])"):
            self.write("next/sitecustomize.py", "import sys; sys.path." + change)
            code = "import json, sys; print(json.dumps(sys.path))"
            path = os.pathsep.join([self.init, self.path("next")])
            result = self.python("-c", code, PYTHONPATH=path, IMGWRAP_DISABLE="1")
            expected = self.python("-c", code, PYTHONPATH=self.path("next"))
            got = json.loads(result.out)
            self.assertEqual(got.count(self.init), 1)
            got.remove(self.init)
            self.assertEqual(got, json.loads(expected.out))

    def test_other_agents_that_hand_over(self):
        # One leaves sys.path and searches again, the other searches the rest.
        leaving = """
            import os, sys
            print("agent")
            here = os.path.dirname(os.path.abspath(__file__))
            path = list(sys.path)
            sys.path[:] = [p for p in path if p != here]
            this = sys.modules.pop("sitecustomize")
            try:
                import sitecustomize
            except ImportError:
                sys.modules["sitecustomize"] = this
            sys.path[:] = path
            """
        searching = """
            import os, sys
            print("agent")
            here = os.path.dirname(os.path.abspath(__file__))
            rest = [p for p in sys.path if p != here]
            try:
                import imp
                found = imp.find_module("sitecustomize", rest)
            except ImportError:
                try:
                    from importlib.machinery import PathFinder
                except ImportError:
                    found = None
                else:
                    found = PathFinder.find_spec("sitecustomize", rest)
                    if found:
                        from importlib.util import module_from_spec
                        found.loader.exec_module(module_from_spec(found))
            else:
                imp.load_module("sitecustomize", *found)
            """
        self.write("next/sitecustomize.py", "print('application')")
        for text in (leaving, searching):
            self.write("agent/sitecustomize.py", text)
            agent, application = self.path("agent"), self.path("next")
            for order in (
                [self.init, agent, application],
                [agent, self.init, application],
            ):
                result = self.python(
                    "-c",
                    "print('ran')",
                    PYTHONPATH=os.pathsep.join(order),
                    IMGWRAP_DISABLE="1",
                    PYTHONWARNINGS="ignore",
                )
                self.assertEqual(result.out, "agent\napplication\nran\n", result.err)
                self.assertEqual(result.err, "")

    def test_usercustomize(self):
        # The user's own, like site, comes after this one.
        self.write("next/usercustomize.py", "print('user')")
        self.assertIn(self.compare("print('ran')").out, ("user\nran\n", "ran\n"))

    @unittest.skipUnless(THREE, "no release serves Python 2")
    def test_after_telemetry(self):
        self.write_bundle("0.66b1")
        self.write("next/sitecustomize.py", "import sys; print(sys.loaded)")
        path = os.pathsep.join([self.init, self.path("next")])
        result = self.python("-c", "print('ran')", PYTHONPATH=path)
        self.assertEqual(result.out, "['first', 'last']\nran\n")


def functions():
    """The loader's functions, without what it does on import."""
    namespace = {"__file__": "/init/sitecustomize.py"}
    exec(read("sitecustomize.py").rpartition("\nif MARKER")[0], namespace)
    return namespace


class ExitTimeoutTest(unittest.TestCase):
    def test_exit_timeout(self):
        loader = functions()
        for expected, variables in (
            (10, {}),
            (10, {"OTEL_EXPORTER_OTLP_TIMEOUT": "10"}),
            (2.5, {"OTEL_EXPORTER_OTLP_TIMEOUT": "2.5"}),
            (30, {"OTEL_EXPORTER_OTLP_TIMEOUT": "5", "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT": "30"}),
            (3, {"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "3000"}),
            (10, {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}),
            (10, {"OTEL_EXPORTER_OTLP_TIMEOUT": "inf"}),
            (10, {"OTEL_EXPORTER_OTLP_TIMEOUT": "nan"}),
            (10, {"OTEL_EXPORTER_OTLP_TIMEOUT": "0"}),
            (10, {"OTEL_EXPORTER_OTLP_TIMEOUT": "-1"}),
        ):
            loader["os"] = type("os", (), {"environ": variables})
            self.assertEqual(loader["exit_timeout"](), expected, variables)


class ProgramTest(unittest.TestCase):
    def setUp(self):
        self.program = functions()["Program"]

    def test_name(self):
        for argv, expected in (
            ([], ""),
            (["python"], ""),
            (["/usr/bin/python3.11"], ""),
            (["python", "app.py", "-m", "pip"], "app"),
            (["python", "/usr/bin/pip3.11", "install"], "pip"),
            (["python", "/usr/bin/easy_install-3.9"], "easy_install"),
            (["python", "-m", "pip._internal", "x"], "pip"),
            (["python", "-mvenv"], "venv"),
            (["python", "-Im", "pip"], "pip"),
            (["python", "-W", "error", "-X", "dev", "-Wignore", "-m", "pip"], "pip"),
            (["python", "-Ximporttime", "-u", "pip"], "pip"),
            (["python", "--check-hash-based-pycs", "always", "pip"], "pip"),
            (["python", "--", "pip"], "pip"),
            (["python", "-"], ""),
            (["python", "-c", "import pip", "pip"], ""),
            (["python", "-m"], ""),
            (["python", "-W"], ""),
            (["python", "x/pip-23.0.whl/pip/__main__.py"], "pip"),
            (["python", "-c", "from multiprocessing.spawn import spawn_main; x"], ""),
            (["uwsgi", "--http", ":80"], "uwsgi"),
            (["/opt/app.pyz"], "app.pyz"),
        ):
            self.assertEqual(self.program(argv).name(), expected, argv)

    def test_is_tool(self):
        for line in (
            "-m json.tool",
            "-mzipfile -l x",
            "-um pydoc os",
            "-m venv x",
            "/usr/bin/pip3 install x",
            "-c from~multiprocessing.resource_tracker~import~main;x",
            "-c from~multiprocessing.semaphore_tracker~import~main;x",
        ):
            argv = ["python"] + [arg.replace("~", " ") for arg in line.split()]
            self.assertTrue(self.program(argv).is_tool(), line)
        for line in (
            "",
            "-",
            "-c import~json.tool",
            "json",
            "calendar.py",
            "-m json.server",
            "-m http.server",
            "-m unittest",
            "-m doctest x.py",
            "-m cProfile app.py",
            "-m flask run",
            "-m pytest",
        ):
            argv = ["python"] + [arg.replace("~", " ") for arg in line.split()]
            self.assertFalse(self.program(argv).is_tool(), line)

    def test_is_left_alone(self):
        skip = [["health.py", "--fast"], ["app.health"]]
        for line, always, everywhere in (
            ("/app/health.py --fast", True, True),
            ("-u health.py --fast", True, True),
            ("-m app.health", True, True),
            ("health.py", False, False),
            ("health.py --fast --more", False, False),
            ("-m app.health 1", False, False),
            ("app.health", True, True),  # a file without an ending
            ("app.py", False, False),
            ("-i app.py", False, False),
            ("-m flask run", False, False),
            ("-m joblib.externals.loky.backend.popen_loky_posix --pipe 3", False, False),
            ("-c from~multiprocessing.spawn~import~spawn_main;x --multiprocessing-fork", False, False),
            ("-c from~multiprocessing.forkserver~import~main;x", False, False),
            ("-c pass", False, True),
            ("", False, True),
            ("-i", False, True),
            ("- x", False, True),
            ("-W error", False, True),
        ):
            argv = ["python"] + [arg.replace("~", " ") for arg in line.split()]
            program = self.program(argv)
            self.assertEqual(program.is_left_alone({"skip": skip}), always, line)
            wrap = {"skip": skip, "everywhere": True}
            self.assertEqual(program.is_left_alone(wrap), everywhere, line)
        # Nobody knows what runs, or it is embedded.
        for argv in ([], ["uwsgi", "-c", "x"]):
            self.assertFalse(self.program(argv).is_left_alone({"everywhere": True}), argv)


if __name__ == "__main__":
    sys.exit(unittest.main())
