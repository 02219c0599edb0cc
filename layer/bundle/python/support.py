"""What both test modules use. Valid from Python 2.7 on, like what they test."""
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest

SOURCES = os.path.dirname(os.path.abspath(__file__))


class Result(object):
    def __init__(self, status, out, err):
        self.status = status
        self.out = out
        self.err = err


class TemporaryRoot(unittest.TestCase):
    """A test with a temporary directory and a bare environment."""

    def setUp(self):
        self.root = os.path.realpath(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.cwd = os.path.join(self.root, "cwd")
        os.mkdir(self.cwd)

    def path(self, *names):
        return os.path.join(self.root, *names)

    def write(self, name, text, mode=0o644):
        path = self.path(*name.split("/"))
        if not os.path.isdir(os.path.dirname(path)):
            os.makedirs(os.path.dirname(path))
        with open(path, "w") as file:
            file.write(textwrap.dedent(text))
        os.chmod(path, mode)
        return path

    def run_command(self, argv, env, **options):
        process = subprocess.Popen(
            argv,
            env=env,
            cwd=options.pop("cwd", self.cwd),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            **options
        )
        out, err = process.communicate()
        self.pid = process.pid
        return Result(process.returncode, out, err)


def read(name):
    with open(os.path.join(SOURCES, name)) as file:
        return file.read()


def environment(**variables):
    """The environment of a container, more or less, and the given variables."""
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    if "PYTHONHOME" in os.environ:
        env["PYTHONHOME"] = os.environ["PYTHONHOME"]
    # The interpreter under test must not write into its source tree.
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    env.update(variables)
    return {name: value for name, value in env.items() if value is not None}


PYTHON = os.path.realpath(sys.executable)
