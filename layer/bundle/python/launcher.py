#!python -S
"""opentelemetry-instrument: start a command with auto-instrumentation.

Command line and effect are those of the script of the same name in the
opentelemetry-instrumentation distribution: options first, one for each OTEL_*
variable of the release, then the command and its arguments, which are passed
on untouched. Unlike upstream's, this one imports no SDK. It puts the loader's
directory in front of PYTHONPATH and replaces itself by the command, so a
container's process 1 is the application.

The application is started without telemetry

- silently, if OTEL_SDK_DISABLED=true or IMGWRAP_DISABLE is set;
- with one line on stderr, if another agent or upstream's own launcher is
  active already.

PYTHONPATH is left alone if it names the loader's directory already.
IMGWRAP_LAUNCHED tells the loader that the process descends from this one, where
PYTHONPATH alone leads to it as well. Nothing else of the environment changes,
except by options: what Python itself did to it at start (the locale of PEP 538,
the ignored signals) is undone.

Exit status, if the command cannot be started, as of a shell: 127 not found,
126 found but not executable. A text file without "#!" is run by /bin/sh, as
execvp(3) does. 2 stands for a wrong command line, as upstream.

The interpreter runs this with -S, not -E or -I, for PYTHONHOME must count. So
neither this script's directory nor PYTHONPATH may be on sys.path when the
standard library is imported. Where the first line cannot say -S, as in
"#!/usr/bin/env python3", this starts itself again with it.
"""
import sys

if not getattr(sys.flags, "safe_path", False):
    del sys.path[0]

import errno  # noqa: E402
import os  # noqa: E402

PROG = "opentelemetry-instrument"
ROOT = "/opt/imgwrap"
INIT = ROOT + "/init"

# What a container runtime gives to an image without PATH.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Agents: name, part of a PYTHONPATH entry, variable, command.
# sitecustomize.py holds the same list without the commands.
AGENTS = (
    ("ddtrace", "ddtrace/bootstrap", None, "ddtrace-run"),
    ("ddtrace", "/datadog-lib", None, None),
    ("ddtrace", "datadog-apm-library-python", None, None),
    ("newrelic", "newrelic/bootstrap", "NEW_RELIC_ADMIN_COMMAND", "newrelic-admin"),
    ("elasticapm", "elasticapm/instrumentation/wrapper", None, "elasticapm-run"),
    ("instana", None, "AUTOWRAPT_BOOTSTRAP", None),
    (
        "another OpenTelemetry launcher",
        "opentelemetry/instrumentation/auto_instrumentation",
        None,
        None,
    ),
)


def main():
    if not sys.flags.no_site and sys.executable:
        restore_process_state()
        os.execv(sys.executable, [sys.executable, "-S"] + sys.argv)
    command, args = command_line(sys.argv[1:])
    while os.path.basename(command) == PROG:
        # The image started upstream's launcher itself; this one does its work.
        command, args = command_line(args)
    activate(command)
    restore_process_state()
    execute(command, args)


def say(message):
    try:
        sys.stderr.write("%s: %s\n" % (PROG, message))
        sys.stderr.flush()
    except Exception:  # closed stderr
        pass


def command_line(argv):
    """Put options into the environment; return the command and its arguments."""
    if argv and not argv[0].startswith("-"):
        return argv[0], argv[1:]

    # Only the options and the command reach argparse: up to Python 3.11 it
    # stumbles over arguments of the command that resemble its own options.
    index = 0
    while index < len(argv) and argv[index].startswith("-"):
        option = argv[index]
        index += 1
        if option == "--":
            break
        if "=" not in option and option not in ("-h", "--help", "--version"):
            index += 1
    head, args = argv[: index + 1], argv[index + 1 :]

    # PYTHONPATH may shadow json or argparse.
    path = os.environ.get("PYTHONPATH")
    if path:
        del sys.path[: len(path.split(os.pathsep))]
    wrap = {}
    try:
        import json

        with open(ROOT + "/wrap.json") as file:
            wrap = json.load(file)
        names = wrap["options"]
        version = wrap["contrib"]
    except Exception as error:
        if index < len(argv):
            say("options are ignored: %s/wrap.json: %s" % (ROOT, error))
            return argv[index], args
        names = []
        version = "unknown"
    return parse(head, names, version), args


def parse(argv, names, version):
    """What upstream's run() does with its command line."""
    from argparse import REMAINDER, ArgumentParser

    parser = ArgumentParser(
        prog=PROG,
        description="""
        opentelemetry-instrument automatically instruments a Python
        program and its dependencies and then runs the program.
        """,
        epilog="""
        Optional arguments (except for --help and --version) for opentelemetry-instrument
        directly correspond with OpenTelemetry environment variables. The
        corresponding optional argument is formed by removing the OTEL_ or
        OTEL_PYTHON_ prefix from the environment variable and lower casing the
        rest. For example, the optional argument --attribute_value_length_limit
        corresponds with the environment variable
        OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT.

        These optional arguments will override the current value of the
        corresponding environment variable during the execution of the command.
        """,
    )
    variables = {}
    for name in names:
        option = name.replace("OTEL_PYTHON_", "").replace("OTEL_", "").lower()
        if option not in variables:
            parser.add_argument("--" + option, required=False)
            variables[option] = name
    parser.add_argument(
        "--version",
        help="print version information",
        action="version",
        version="%(prog)s " + version,
    )
    parser.add_argument("command", help="Your Python application.")
    parser.add_argument(
        "command_args", help="Arguments for your application.", nargs=REMAINDER
    )
    parsed = parser.parse_args(argv)
    for option, name in variables.items():
        value = getattr(parsed, option)
        if value is not None:
            os.environ[name] = value
    return parsed.command


def activate(command):
    """Put the loader on PYTHONPATH, unless telemetry is off."""
    environ = os.environ
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or is_set(
        "IMGWRAP_DISABLE"
    ):
        return
    path = environ.get("PYTHONPATH", "")
    agent = active_agent(path, os.path.basename(command))
    if agent:
        say("%s is active, starting without imgwrap's telemetry" % agent)
        return
    environ["IMGWRAP_LAUNCHED"] = "1"
    if INIT not in path.split(os.pathsep):
        # An empty PYTHONPATH counts as none; joined, it would stand for the
        # working directory.
        environ["PYTHONPATH"] = INIT + os.pathsep + path if path else INIT


def is_set(name):
    value = os.environ.get(name, "").strip().lower()
    return value not in ("", "0", "false", "no", "off")


def active_agent(path, command):
    for name, part, variable, launcher in AGENTS:
        if (
            (part and part in path)
            or (variable and variable in os.environ)
            or (launcher and launcher == command)
        ):
            return name
    return None


def restore_process_state():
    """Undo what the start of this interpreter would hand on to the command."""
    # PEP 538: in the C locale Python sets LC_CTYPE for its children.
    if os.environ.get("LC_CTYPE") in ("C.UTF-8", "C.utf8", "UTF-8"):
        try:
            with open("/proc/self/environ", "rb") as file:
                if b"\0LC_CTYPE=" not in b"\0" + file.read():
                    del os.environ["LC_CTYPE"]
        except (IOError, OSError):
            pass
    try:
        import _signal as signal  # without the enums of signal
    except ImportError:
        import signal
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


def execute(command, args):
    """Replace this process by the command, found as execvp(3) does."""
    if os.sep in command:
        files = [command]
    else:
        path = os.environ.get("PATH", DEFAULT_PATH)
        files = [os.path.join(d or os.curdir, command) for d in path.split(os.pathsep)]
    status, reason = 127, "command not found"
    for file in files:
        try:
            os.execv(file, [file] + args)
        except OSError as error:
            if error.errno == errno.ENOEXEC and is_text(file):
                file, args = "/bin/sh", [file] + args
                try:
                    os.execv(file, [file] + args)
                except OSError:
                    pass
            elif error.errno in (errno.ENOENT, errno.ENOTDIR):
                if os.path.exists(file):
                    status, reason = 126, "bad interpreter: " + error.strerror
                continue
            elif error.errno == errno.EACCES:
                if os.sep in command or not os.path.isdir(file):
                    status, reason = 126, "permission denied"
                continue
            status, reason = 126, error.strerror
            break
    say("%s: %s" % (command, reason))
    sys.exit(status)


def is_text(file):
    try:
        with open(file, "rb") as opened:
            return b"\0" not in opened.read(128)
    except (IOError, OSError):
        return False


main()
