"""Load OpenTelemetry's auto-instrumentation into this process, if that is safe.

Python imports this module at start, from PYTHONPATH, before any code of the
application. It reads ../wrap.json, appends the bundle of OpenTelemetry
packages to the end of sys.path, so that the application's own packages win,
runs the release's own initialisation, and hands over to the sitecustomize
that Python would have imported without this one.

It never keeps the application from starting, and raises nothing but what that
next sitecustomize raises, and an interrupt from the keyboard. If telemetry
cannot be had (a wrong Python, an unreadable bundle, a package that fails on
import, a setting that OpenTelemetry refuses), sys.path, sys.meta_path and
os.environ are put back, the bundle's modules leave sys.modules, and stderr
gets one line, "imgwrap: telemetry is off: REASON". With IMGWRAP_STRICT set the
process ends with a traceback and status 1 instead.

If another agent is active, telemetry is off too, with one line. It is off
without a word if OTEL_SDK_DISABLED=true or IMGWRAP_DISABLE is set, and in what
is not the application: package managers, other launchers, multiprocessing's
resource tracker, tools of the standard library run with -m, and command lines
that wrap.json lists as "skip". Where every process has this module ("everywhere"
in wrap.json), code on the command line or from standard input is not it either,
unless the launcher is an ancestor of the process.

An instrumentation loads when the first of its "modules" of wrap.json has been
imported, or at start if it has none there or one is imported already. So a
library that the application does not use costs nothing. Django's loads when a
request handler is about to load its middleware: its settings are known then,
while upstream's launcher reads them first, and where DJANGO_SETTINGS_MODULE is
not set configures empty ones, with which the application cannot answer.

Those that wrap.json lists as "without" do not load, and those listed as
"unchecked" do even if metadata does not tell that their library is there. This
check, which is upstream's, is made when an instrumentation is to be loaded.

If wrap.json says "generic", it was made for any image: all instrumentations of
the release are there to wait for libraries that may never come. What does not
fit is nothing to tell then, and libraries that only the bundle has, for its
exporter, are not instrumented.

At the end of the process, what is left is sent for at most as long as the
exporter's timeout is, 10 seconds if OTEL_EXPORTER_OTLP_TIMEOUT is not set.

One instrumentation that fails is one line on stderr, and the others load, under
every release; up to 0.48b0 upstream gives up all of them. Where the SDK logs an
exception with its traceback, as it does up to 1.39 for every batch that cannot be
sent, it is one line as well.

What has not been sent yet is also sent where a process ends without its exit
handlers: when a server raises the signal again that has stopped it, and in the
processes that multiprocessing and Celery fork.

What stays in the process:

- sys.path: this directory, where PYTHONPATH put it, and the bundle at the end.
  "path" of wrap.json is in front only while OpenTelemetry loads.
- sys.meta_path: an ImportWatch at the front, if there is an instrumentation
  that waits for a module.
- sys.modules: "_imgwrap_loader" (this module; tells that it has run), what the
  release's initialisation imports, and "sitecustomize": the next one on
  sys.path, as if this one were not there, or this one if there is no other.
- the objects that are there then, in the garbage collector's permanent
  generation (gc.freeze), if telemetry is on.
- os.environ: what OpenTelemetry's distro sets, OTEL_EXPORTER_OTLP_PROTOCOL
  (http/protobuf, the only one in the bundle) unless set, and "environment" of
  wrap.json, which is for commands that clear theirs. PYTHONPATH is as it
  was, so that children load this module too; while the instrumentations load
  it lacks this directory, lest a process they start does the same again.

Valid from Python 2.7 on, for it may meet any interpreter of an image.
"""
import os
import sys

NAME = "sitecustomize"
MARKER = "_imgwrap_loader"
HERE = os.path.dirname(os.path.abspath(__file__))

# Programs, or modules run with -m, that are not the application, without a
# version at the end of the name. Launchers are here as they only start it.
NOT_APPLICATIONS = frozenset(
    """
    pip pipx pip-compile pip-sync ensurepip easy_install venv virtualenv
    poetry uv uvx pipenv pdm hatch rye flit twine conda conda-env mamba micromamba
    dnf yum add-apt-repository apt-add-repository apt-listchanges
    unattended-upgrade lsb_release py3compile py3clean pycompile pyclean
    compileall py_compile
    opentelemetry-instrument opentelemetry-bootstrap
    ddtrace-run newrelic-admin elasticapm-run
    """.split()
)

# Modules of the standard library that are tools when they are run with -m.
# Servers, test runners, and what runs a program (cProfile, pdb, trace) are not.
STANDARD_TOOLS = frozenset(
    """
    ast asyncio base64 calendar code dis difflib encodings.rot_13 fileinput gzip
    idlelib idlelib.idle inspect json json.tool lib2to3 mimetypes pickle
    pickletools platform pstats pyclbr pydoc quopri random site sqlite3 symtable
    sysconfig tabnanny tarfile this antigravity timeit tokenize turtledemo uuid
    webbrowser zipapp zipfile
    """.split()
)

# Agents: name, part of a PYTHONPATH entry, variable. As in the launcher.
AGENTS = (
    ("ddtrace", "ddtrace/bootstrap", None),
    ("ddtrace", "/datadog-lib", None),
    ("ddtrace", "datadog-apm-library-python", None),
    ("newrelic", "newrelic/bootstrap", "NEW_RELIC_ADMIN_COMMAND"),
    ("elasticapm", "elasticapm/instrumentation/wrapper", None),
    ("instana", None, "AUTOWRAPT_BOOTSTRAP"),
    (
        "another OpenTelemetry launcher",
        "opentelemetry/instrumentation/auto_instrumentation",
        None,
    ),
)


class Off(Exception):
    """Telemetry cannot be had; the text says why."""


def load():
    """Start telemetry, or see to it that the process is as if never tried."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    if is_set("IMGWRAP_DISABLE"):
        return
    program = Program(command_line())
    if program.is_tool():
        return

    before = None
    touched = []
    watch = ImportWatch()
    try:
        wrap = read_wrap()
        if program.is_left_alone(wrap):
            return
        agent = active_agent()
        if agent:
            say("telemetry is off: %s is active" % agent)
            return
        check_python(wrap)
        bundle = check_bundle(wrap)
        patch_by_gevent()
        before = Snapshot()
        for name, value in (wrap.get("environment") or {}).items():
            os.environ.setdefault(str(name), str(value))
        with Permanent():
            initialize(wrap, bundle, first_on_path(wrap, program), touched, watch)
    except BaseException as error:
        if touched:
            # Patches of the application's packages import from the bundle, so
            # it has to stay.
            before.restore_pythonpath()
            problem = "telemetry is incomplete: " + describe(error)
        else:
            watch.stop()
            if before is not None:
                before.restore(bundle)
            problem = "telemetry is off: " + describe(error)
        if isinstance(error, KeyboardInterrupt):
            raise
        if is_set("IMGWRAP_STRICT"):
            abort(problem)
        say(problem)
    else:
        before.restore_pythonpath()
        flush_at_abrupt_ends(watch)


def is_set(name):
    value = os.environ.get(name, "").strip().lower()
    return value not in ("", "0", "false", "no", "off")


def say(message):
    try:
        sys.stderr.write("imgwrap: %s\n" % message)
        sys.stderr.flush()
    except Exception:  # None, closed, or of an encoding that has no such text
        pass


def abort(problem):
    try:
        import traceback

        traceback.print_exc()
    except Exception:
        pass
    say(problem)
    os._exit(1)


def describe(error):
    if isinstance(error, Off):
        return str(error)
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    name = type(error).__name__
    return "%s: %s" % (name, text[:500]) if text else name


def command_line():
    """The interpreter's own argv, flags included; empty if it is not known."""
    argv = getattr(sys, "orig_argv", None)
    if argv:
        return list(argv)
    try:
        with open("/proc/self/cmdline", "rb") as file:
            argv = file.read().split(b"\0")[:-1]
        return [arg if isinstance(arg, str) else os.fsdecode(arg) for arg in argv]
    except Exception:
        # Up to 3.7 sys.argv is set after this module has run.
        argv = getattr(sys, "argv", None)
        return ["python"] + list(argv) if argv else []


class Program(object):
    """What the interpreter runs.

    option is "m" or "c" for a module or code on the command line, "-" for code
    from standard input, a terminal perhaps, and None for a file. value is the
    argument of the option, or the file.
    """

    def __init__(self, argv):
        self.option, self.value, self.arguments = None, "", []
        if not argv:
            return
        if not os.path.basename(argv[0]).startswith(("python", "pypy")):
            self.value = argv[0]  # embedded, for instance in uwsgi
            return
        rest = list(argv[1:])
        while rest:
            arg = rest.pop(0)
            if not arg.startswith("-"):
                self.value, self.arguments = arg, rest
                return
            if arg == "-":
                break
            if arg == "--check-hash-based-pycs":
                del rest[:1]
            letters = "" if arg.startswith("--") else arg[1:]
            for index, letter in enumerate(letters):
                if letter not in "cmQWX":
                    continue
                value = letters[index + 1 :] or "".join(rest[:1])
                if not letters[index + 1 :]:
                    del rest[:1]
                if letter in "cm":
                    self.option, self.value, self.arguments = letter, value, rest
                    return
                break
        self.option, self.arguments = "-", rest

    def name(self):
        """As NOT_APPLICATIONS spells it."""
        if self.option == "m":
            name = self.value.split(".")[0]
        elif self.option is None:
            name = os.path.basename(self.value)
            if name == "__main__.py":
                name = os.path.basename(os.path.dirname(self.value))
            if name.endswith(".py"):
                name = name[:-3]
        else:
            return ""
        return name.rstrip("0123456789.-")

    def is_tool(self):
        if self.option == "c":
            # The process that multiprocessing, or joblib's loky, starts to
            # clean up behind the others.
            return "_tracker import main" in self.value
        if self.option == "m" and self.value in STANDARD_TOOLS:
            return True
        return self.name() in NOT_APPLICATIONS

    def directory(self):
        """What Python will put in front of sys.path, if it is known."""
        if getattr(sys.flags, "safe_path", False):
            return None
        try:
            if self.option is not None:
                return os.getcwd()
            return os.path.dirname(os.path.realpath(self.value)) if self.value else None
        except OSError:
            return None

    def is_left_alone(self, wrap):
        value = self.value if self.option else os.path.basename(self.value)
        if [value] + self.arguments in (wrap.get("skip") or ()):
            return True
        if not wrap.get("everywhere") or "IMGWRAP_LAUNCHED" in os.environ:
            return False
        if self.option == "c":
            # Workers of multiprocessing and what is made with it.
            return not (
                "import spawn_main" in self.value
                or "forkserver import main" in self.value
            )
        return self.option == "-"


def active_agent():
    path = os.environ.get("PYTHONPATH", "")
    for name, part, variable in AGENTS:
        if (part and part in path) or (variable and variable in os.environ):
            return name
    return None


def read_wrap():
    path = os.path.join(os.path.dirname(HERE), "wrap.json")
    try:
        import json

        with open(path) as file:
            wrap = json.load(file)
        if not isinstance(wrap, dict):
            raise ValueError("not an object")
        return wrap
    except Exception as error:
        raise Off("%s: %s" % (path, getattr(error, "strerror", None) or error))


def check_python(wrap):
    lowest = (wrap.get("python") or {}).get("min") or "3.0"
    if sys.version_info[:2] < tuple(int(part) for part in lowest.split(".")[:2]):
        raise Off(
            "Python %d.%d is older than %s, the oldest that OpenTelemetry %s serves"
            % (sys.version_info[0], sys.version_info[1], lowest, wrap.get("release"))
        )


def check_bundle(wrap):
    bundle = wrap.get("bundle")
    if not bundle:
        raise Off("wrap.json names no bundle")
    if not (os.path.isdir(bundle) and os.access(bundle, os.R_OK | os.X_OK)):
        raise Off("%s is missing or unreadable" % bundle)
    return str(bundle)


def patch_by_gevent():
    """Have gevent patch the standard library before anything imports it.

    Upstream does it from 0.58b0 on. What is imported before, by the SDK's threads
    above all, makes trouble when a worker ends.
    """
    name = "OTEL_PYTHON_AUTO_INSTRUMENTATION_EXPERIMENTAL_GEVENT_PATCH"
    if os.environ.get(name) != "patch_all":
        return
    try:
        from gevent import monkey
    except ImportError:  # upstream says so, if it knows the variable
        return
    monkey.patch_all()
    # gevent imports it late, and then too late where the first span of a worker
    # is sent at its end.
    __import__("concurrent.futures.thread")


def first_on_path(wrap, program):
    """Directories with packages of the application that sys.path gets only later."""
    if not wrap.get("generic"):
        return [str(path) for path in wrap.get("path") or ()]
    directory = program.directory()
    try:
        names = os.listdir(directory) if directory else []
    except OSError:
        return []
    is_site = any(name.endswith((".dist-info", ".egg-info")) for name in names)
    return [directory] if is_site else []


class Snapshot(object):
    """What is put back if telemetry cannot be had."""

    def __init__(self):
        self.path = list(sys.path)
        self.environ = dict(os.environ)
        self.modules = set(sys.modules)
        # importlib_metadata's backport takes this method away from the standard
        # finder and puts its own finder into sys.meta_path.
        self.finders = [
            (finder, vars(finder)["find_distributions"])
            for finder in sys.meta_path
            if isinstance(finder, type) and "find_distributions" in vars(finder)
        ]

    def restore_pythonpath(self):
        path = self.environ.get("PYTHONPATH")
        if path is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = path

    def restore(self, bundle):
        sys.path[:] = self.path
        for name in list(os.environ):
            if name not in self.environ:
                del os.environ[name]
        os.environ.update(self.environ)
        # A module of the bundle that stayed would shadow one that the
        # application finds later, say beside its script. What still holds such
        # a module (a registered exit handler) can go on using it; finders of
        # the interpreter could not, as they import lazily.
        dropped = [
            name
            for name, module in list(sys.modules.items())
            if name not in self.modules
            and (is_under(module, bundle) or name.split(".")[0] == "pkg_resources")
        ]
        for name in dropped:
            module = sys.modules.pop(name)
            parent, _, child = name.rpartition(".")
            attributes = getattr(sys.modules.get(parent), "__dict__", {})
            if attributes.get(child) is module:
                delattr(sys.modules[parent], child)
        for finder in list(sys.meta_path):
            kind = finder if isinstance(finder, type) else type(finder)
            if kind.__module__ in dropped:
                sys.meta_path.remove(finder)
        for finder, method in self.finders:
            if "find_distributions" not in vars(finder):
                setattr(finder, "find_distributions", method)


def is_under(module, directory):
    """Whether a module, or all of a namespace package, lies in the directory."""
    attributes = getattr(module, "__dict__", {})
    paths = [attributes.get("__file__")]
    if paths == [None]:
        paths = list(attributes.get("__path__") or ())
    return bool(paths) and all(
        isinstance(path, str) and (path + os.sep).startswith(directory + os.sep)
        for path in paths
    )


class Permanent(object):
    """What is made meanwhile stays: no garbage collection looks at it, ever.

    Imports leave 70,000 objects and more that live as long as the process does.
    Going through them, at the end of the process above all, took a sixth of the
    CPU time of one that does nothing.
    """

    def __enter__(self):
        import gc

        self.enabled = gc.isenabled()
        gc.disable()

    def __exit__(self, kind, *_):
        import gc

        if kind is None and hasattr(gc, "freeze"):  # since 3.7
            gc.freeze()
        if self.enabled:
            gc.enable()


def initialize(wrap, bundle, first, touched, watch):
    """Run the release's own initialisation; raise what made it fail.

    first is in front of sys.path meanwhile. touched gets the name of each
    instrumentation that was about to load, watch those that wait for a module.
    """
    rest = [path for path in sys.path if path != bundle]
    sys.path[:] = first + rest + [bundle]
    # Up to 0.48b0 the initialisation wants PYTHONPATH to be there.
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        entry for entry in path if os.path.abspath(entry or os.curdir) != HERE
    )
    os.environ.setdefault("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")

    if "pkg_resources" in sys.modules:  # by a .pth file: it has read sys.path
        sys.modules["pkg_resources"].working_set.add_entry(bundle)
    import logging
    import warnings

    with warnings.catch_warnings():
        # Up to 0.48b0 these import pkg_resources, which warns of its end.
        warnings.simplefilter("ignore")
        from opentelemetry.instrumentation import dependencies, distro

    package = "opentelemetry.instrumentation.auto_instrumentation"
    loggers = [
        logging.getLogger(package + module)
        for module in ("", "._load", ".sitecustomize")
    ] + [logging.getLogger(PROPAGATE)]
    find_conflicts = "get_dist_dependency_conflicts"
    instrumentations = Instrumentations(wrap, bundle, touched, watch, loggers[1])
    instrumentations.conflict = getattr(dependencies, "DependencyConflictError", ())
    instrumentations.find_conflicts = getattr(dependencies, find_conflicts, None)
    configure = distro.BaseDistro.configure

    def tolerant_configure(self, **kwargs):
        configure(self, **kwargs)
        instrumentations.load_instrumentor = self.load_instrumentor
        self.load_instrumentor = instrumentations

    patches = [(distro.BaseDistro, "configure", tolerant_configure)]
    if instrumentations.find_conflicts is not None:
        patches.append((dependencies, find_conflicts, instrumentations.announce))
    if "pkg_resources" in sys.modules:
        # It would enforce the bounds of every requirement once more, and refuse
        # what was accepted when the image was wrapped.
        entry_point = sys.modules["pkg_resources"].EntryPoint
        patches.append((entry_point, "require", lambda *_, **__: None))

    for name in SENDING:
        logging.getLogger(name).addFilter(without_traceback)
    failures = Failures()
    with Patched(patches):
        for logger in loggers:
            logger.addFilter(failures)
        try:
            if "OTEL_PYTHON_CONTEXT" in os.environ:
                # One that is not there is noticed when it is used first: once
                # the logging instrumentation uses it as well, in a deadlock.
                from opentelemetry.context import get_current

                get_current()
            from opentelemetry.instrumentation import auto_instrumentation

            if hasattr(auto_instrumentation, "initialize"):
                auto_instrumentation.initialize()
            else:  # up to 0.51b0 it runs on import
                __import__(package + ".sitecustomize")
        except Exception:
            if failures.error is None:  # which says more, otherwise
                raise
        finally:
            for logger in loggers:
                logger.removeFilter(failures)
            # setuptools puts its vendored packages there. What was first goes
            # by identity: an equal entry may have been there before.
            sys.path[:] = [
                entry
                for entry in sys.path
                if not entry.startswith(bundle + os.sep)
                and not any(entry is path for path in first)
            ]
            import atexit

            # After the SDK's own handlers, so it is called before them.
            atexit.register(limit_exit)
    if failures.error is not None:
        raise failures.error


def limit_exit():
    """Bound what the SDK's exit handlers may take, all of them together.

    They wait for threads that send what is left. Up to 1.35 that has no limit: a
    collector that answers 503 is asked for a minute, up to 1.34, with each batch
    of 512 spans; later it is 30 seconds for each signal. When the time is up,
    the threads, which are daemons, end with the process.
    """
    from threading import enumerate as threads
    from time import time

    end = time() + exit_timeout()
    for thread in threads():
        if thread.name.startswith(("OtelBatch", "OtelPeriodic")):
            thread.join = limited(thread.join, end, time)


def limited(join, end, time):
    def limited_join(timeout=None):
        left = max(0, end - time())
        join(left if timeout is None else min(left, timeout))

    return limited_join


def exit_timeout():
    """The longest timeout of the exporters in seconds, by default 10."""
    found = []
    for signal in ("TRACES_", "METRICS_", "LOGS_", ""):
        try:
            value = float(os.environ["OTEL_EXPORTER_OTLP_%sTIMEOUT" % signal])
        except (KeyError, ValueError):
            continue
        if 0 < value < 1e9:
            # The specification has milliseconds; the exporters read seconds.
            found.append(value / 1000 if value >= 1000 else value)
    return max(found or [10])


def flush_at_abrupt_ends(watch):
    """Send what is left where a process ends without its exit handlers."""
    import signal

    raise_signal = getattr(signal, "raise_signal", None)  # since 3.8

    def flushing_raise_signal(number):
        # uvicorn stops in good order, and then raises what it was stopped by.
        deadly = (signal.SIGTERM, signal.SIGINT)
        if number in deadly and signal.getsignal(number) == signal.SIG_DFL:
            flush()
        raise_signal(number)

    if raise_signal is not None:
        signal.raise_signal = flushing_raise_signal

    for module, function in (
        ("multiprocessing.util", flush_in_children),
        ("celery.signals", flush_in_workers),
    ):
        if module in sys.modules:
            function()
        else:
            watch.add(module, [module], function)


def flush_in_children():
    util = sys.modules["multiprocessing.util"]

    def after_fork(_):
        # After all other finalizers, which may make spans.
        util.Finalize(None, flush, exitpriority=-100)

    util.register_after_fork(flush, after_fork)


def flush_in_workers():
    signals = sys.modules["celery.signals"]
    signals.worker_process_shutdown.connect(flush, weak=False)


def flush(*_, **__):
    """Send what has not been sent, for at most as long as at the end."""
    from threading import Thread

    timeout = exit_timeout()

    def send():
        for module, getter in (
            ("trace", "get_tracer_provider"),
            ("metrics", "get_meter_provider"),
            ("_logs", "get_logger_provider"),
        ):
            api = sys.modules.get("opentelemetry." + module)
            try:
                getattr(api, getter)().force_flush(int(timeout * 1000))
            except Exception:  # there is none, or it is that of the API alone
                pass

    # Since 1.34 force_flush takes as long as it takes.
    thread = Thread(target=send)
    thread.daemon = True
    try:
        thread.start()
    except RuntimeError:  # the system has no more threads
        return
    thread.join(timeout)


class Patched(object):
    """Attributes replaced for a while."""

    def __init__(self, patches):
        self.patches = patches
        self.originals = []

    def __enter__(self):
        for owner, name, value in self.patches:
            self.originals.append((owner, name, vars(owner)[name]))
            setattr(owner, name, value)

    def __exit__(self, *_):
        for owner, name, value in self.originals:
            setattr(owner, name, value)


class Failures(object):
    """Logging filter that takes what upstream logs where it gives up.

    No release tells its caller in another way.
    """

    MESSAGES = ("Failed to auto initialize", "Configuration of ", "Distribution ")
    error = None

    def filter(self, record):
        if not record.exc_info:
            return True
        if record.name == PROPAGATE:  # says what is wrong, its exception does not
            self.error = Off(record.getMessage())
        elif not str(record.msg).startswith(self.MESSAGES):
            return True
        elif self.error is None:
            self.error = record.exc_info[1]
        return False


# The logger of what reads OTEL_PROPAGATORS.
PROPAGATE = "opentelemetry.propagate"

# Loggers of what sends in the background, in all releases.
SENDING = (
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.trace.export",
    "opentelemetry.sdk._logs.export",
    "opentelemetry.sdk._logs._internal.export",
    "opentelemetry.sdk.metrics._internal.export",
)


def without_traceback(record):
    """A logging filter that puts an exception into its message."""
    if record.exc_info:
        record.msg = "%s: %s" % (record.getMessage(), describe(record.exc_info[1]))
        record.args = record.exc_info = record.exc_text = None
    return True


class Instrumentations(object):
    """A distro's load_instrumentor that waits, and leaves out what fails.

    Upstream's caller gives up the remaining instrumentations on an exception,
    up to 0.48b0 even on an ImportError.
    """

    load_instrumentor = None  # the distro's own
    conflict = ()  # what it raises where the library does not fit
    find_conflicts = None  # looks for that in metadata, in releases that do
    dist = None

    def __init__(self, wrap, bundle, touched, watch, logger):
        self.modules = wrap.get("modules") or {}
        self.without = wrap.get("without") or ()
        self.unchecked = wrap.get("unchecked") or ()
        self.generic = wrap.get("generic")
        self.bundle = bundle
        self.touched = touched
        self.watch = watch
        self.logger = logger

    def announce(self, dist):
        """Stand in for find_conflicts, which is called before load_instrumentor.

        Reading metadata takes time: it is done when the instrumentation loads.
        """
        self.dist = dist

    def __call__(self, entry_point, **kwargs):
        name = entry_point.name
        if name in self.without:
            return
        dist = self.dist
        if name in self.unchecked:
            dist, kwargs = None, {"skip_dep_check": True}
        if hasattr(entry_point, "require"):
            # One of pkg_resources: see initialize.
            entry_point.require = lambda *_, **__: None
        modules = self.modules.get(name) or ()

        def load():
            self.load(entry_point, kwargs, dist, modules)

        if name == "django":
            modules = ["django.core.handlers.base"]
            load = before_load_middleware(load)
        if modules and not any(module in sys.modules for module in modules):
            self.watch.add(name, modules, load)
        else:
            load()

    def load(self, entry_point, kwargs, dist, modules):
        missing = self.bundle not in sys.path  # the application has set it anew
        if missing:
            sys.path.append(self.bundle)
        name = entry_point.name
        try:
            if self.generic and self.is_own(modules):
                return
            conflict = self.find_conflict(dist)
            if conflict:
                self.skip(name, conflict)
                return
            self.touched.append(name)
            self.load_instrumentor(entry_point, **kwargs)
        except self.conflict as error:
            self.skip(name, getattr(error, "conflict", error))
        except ModuleNotFoundError as error:
            self.logger.debug("Skipping instrumentation %s: %s", name, error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            say("%s is not instrumented: %s" % (name, describe(error)))
        finally:
            if missing and self.bundle in sys.path:
                sys.path.remove(self.bundle)

    def is_own(self, modules):
        """Whether a library is there because the bundle's exporter needs it."""
        found = [sys.modules[name] for name in modules if name in sys.modules]
        return bool(found) and all(is_under(module, self.bundle) for module in found)

    def find_conflict(self, dist):
        try:
            return dist is not None and self.find_conflicts(dist)
        except Exception:  # unreadable metadata: loading will tell
            return None

    def skip(self, name, conflict):
        if hasattr(conflict, "_log") and not self.generic:  # since 0.66b0
            conflict._log(self.logger, name)
        else:
            self.logger.debug("Skipping instrumentation %s: %s", name, conflict)


def before_load_middleware(load):
    """Return a function that has Django call load before it reads MIDDLEWARE.

    The instrumentation adds its middleware to the settings, which have been
    read by then. Every request handler of every version loads its middleware
    with this method, mostly when it is made.
    """

    def replace_load_middleware():
        from threading import RLock

        from django.conf import settings
        from django.core.handlers.base import BaseHandler

        original = BaseHandler.load_middleware
        lock = RLock()
        loads = [load]

        def load_middleware(self, *args, **kwargs):
            with lock:
                if loads:
                    if not settings.configured:
                        # It raises what original would. The instrumentation
                        # would configure empty settings instead.
                        getattr(settings, "MIDDLEWARE", None)
                    loads.pop()()
                    if vars(BaseHandler).get("load_middleware") is load_middleware:
                        BaseHandler.load_middleware = original
            return original(self, *args, **kwargs)

        BaseHandler.load_middleware = load_middleware

    return replace_load_middleware


class ImportWatch(object):
    """A finder in sys.meta_path that calls functions after imports.

    A function is called once, when one of its modules has been imported, by the
    thread that imports it, before the import statement returns. Until no import
    of any watched module is under way in that thread it waits, lest it sees a
    library that has been imported by half: importing flask imports click, whose
    instrumentation imports flask.cli.

    Once nothing waits, it stays where it is, idle: taking it out of the list
    would have another thread that is going through it miss the next finder.
    """

    def __init__(self):
        self.waiting = {}  # key: function
        self.keys = {}  # module: keys
        self.local = None

    def add(self, key, modules, function):
        if self.local is None:
            from threading import local

            self.local = local()
            sys.meta_path.insert(0, self)
        self.waiting[key] = function
        for module in modules:
            self.keys.setdefault(module, []).append(key)

    def stop(self):
        self.waiting.clear()
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]

    def find_spec(self, name, path=None, target=None):
        if not self.waiting:
            return None
        if name not in self.keys:
            self.look_around()
            return None
        if name in sys.modules:  # it is reloaded
            return None
        for finder in list(sys.meta_path):
            if finder is self:
                continue
            spec = find_spec(finder, name, path, target)
            if spec is None:
                continue
            if spec.loader is not None:  # not a namespace package
                kind = Loader if hasattr(spec.loader, "exec_module") else LegacyLoader
                spec.loader = kind(self, spec)
            return spec
        return None

    def look_around(self):
        """Look for modules that a finder before this one has imported."""
        if self.keys.keys().isdisjoint(sys.modules.keys()):
            return
        for name in list(self.keys):
            try:  # in a way that does not wake a module of importlib.util.LazyLoader
                attributes = object.__getattribute__(sys.modules[name], "__dict__")
            except (KeyError, AttributeError):
                continue
            spec = attributes.get("__spec__")
            if (
                spec is not None
                and not getattr(spec, "_initializing", False)
                and not issubclass(type(spec.loader), LegacyLoader)
            ):
                self.enter()
                self.imported(name)
                self.leave()

    def enter(self):
        self.local.depth = getattr(self.local, "depth", 0) + 1

    def imported(self, name):
        parent, _, child = name.rpartition(".")
        if parent in sys.modules and name in sys.modules:
            # The import does it afterwards.
            setattr(sys.modules[parent], child, sys.modules[name])
        ready = self.local.__dict__.setdefault("ready", [])
        for key in self.keys.pop(name, ()):
            function = self.waiting.pop(key, None)
            if function is not None:
                ready.append((key, function))

    def leave(self):
        ready = self.local.__dict__.get("ready")
        try:
            while ready and self.local.depth == 1:
                # In a known order: that of upstream is the directory's.
                ready.sort()
                _, function = ready.pop(0)
                function()
        finally:
            self.local.depth -= 1


def find_spec(finder, name, path, target):
    """What the interpreter does with a finder."""
    if hasattr(finder, "find_spec"):
        return finder.find_spec(name, path, target)
    if hasattr(finder, "find_module") and sys.version_info < (3, 12):
        from importlib.util import spec_from_loader

        loader = finder.find_module(name, path)
        if loader is not None:
            return spec_from_loader(name, loader)
    return None


class LegacyLoader(object):
    """Stands in for the loader of a watched module while it is imported.

    It takes itself out of the way before the module is executed.
    """

    def __init__(self, watch, spec):
        self._watch = watch
        self._spec = spec
        self._loader = spec.loader

    __class__ = property(lambda self: type(self._loader))

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def load_module(self, name):
        return self._load(name, None, self._loader.load_module, name)

    def _load(self, name, module, function, argument):
        if self._spec.loader is self:
            self._spec.loader = self._loader
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._loader
        self._watch.enter()
        try:
            result = function(argument)
            self._watch.imported(name)
            return result
        finally:
            self._watch.leave()


class Loader(LegacyLoader):
    def create_module(self, spec):
        create = getattr(self._loader, "create_module", None)
        return None if create is None else create(spec)

    def exec_module(self, module):
        self._load(self._spec.name, module, self._loader.exec_module, module)


def hand_over():
    """Import the sitecustomize that comes after this one on sys.path.

    What it raises is for the caller, which is Python's site: it reports it as
    it would without this module. While it runs, this directory is off sys.path:
    other agents search for their next one in the same way, and would find this.
    """
    found = [p for p in sys.path if isinstance(p, str) and os.path.abspath(p) == HERE]
    index = sys.path.index(found[0]) if found else -1
    if sys.version_info >= (3, 5):
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(NAME, sys.path[index + 1 :])
        if spec is None or spec.loader is None:
            return
    else:
        import imp

        try:
            spec = imp.find_module(NAME, sys.path[index + 1 :])
        except ImportError:
            return

    if found:
        del sys.path[index]
    this = sys.modules.pop(NAME, None)
    try:
        if sys.version_info >= (3, 5):
            from importlib.util import module_from_spec

            module = sys.modules[NAME] = module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            imp.load_module(NAME, *spec)
        this = None
    finally:
        if this is not None:
            sys.modules.pop(NAME, None)
        if found and found[0] not in sys.path:
            sys.path.insert(index, found[0])


if MARKER not in sys.modules:
    sys.modules[MARKER] = sys.modules.get(__name__)
    try:
        load()
    except Exception as error:
        say("telemetry is off: " + describe(error))
hand_over()
