"""What a running application can tell about the environment it runs in.

The tests ask an image and its wrapped copy, and compare.
"""
import importlib.metadata
import os
import re
import sys


def info():
    distributions = {}
    for d in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower()
        # The first one on sys.path is what importlib.metadata and pip see.
        distributions.setdefault(name, {"version": d.version, "path": str(d._path)})
    return {
        "argv": sys.argv,
        "distributions": distributions,
        "executable": sys.executable,
        "modules": {n: m.__file__ for n, m in list(sys.modules.items()) if getattr(m, "__file__", None)},
        "path": sys.path,
        "pid": os.getpid(),
        "version": sys.version,
    }
