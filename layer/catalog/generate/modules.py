#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["packaging>=24"]
# ///
"""Finds out which modules each instrumentation waits for: ../modules.json.

    modules.py            write it
    modules.py --check    say whether it would change, write nothing (exit 1)

An instrumentation need not be loaded before the library it patches has been
imported. Which library that is, is read from the imports in the wheels of all
locked releases, without running them: what is neither of the standard library
nor of what OpenTelemetry itself depends on. Where that leaves more than one
module, or none, CHOSEN says which count, and why.

The loader waits until no import of any listed module is under way, so an
instrumentation that imports a second library lists it too where that library
imports the first: it would find it half imported.
"""

from __future__ import annotations

import argparse
import ast
import json
import pathlib
import sys
import zipfile
from collections import defaultdict

from packaging.version import Version

from generate import AS_OF, RELEASES
from index import Index, default_cache, default_url

OUTPUT = RELEASES.parent / "modules.json"

# Modules of the dependencies that instrumentations import for their own use.
DEPENDENCIES = {"importlib_metadata", "opentelemetry", "packaging", "pkg_resources", "typing_extensions", "wrapt"}

PATCHES_AT_START = "patches what runs from the start"

# instrumentation → modules, reason
CHOSEN: dict[str, tuple[list[str], str]] = {
    "aio-pika": (["aio_pika"], "aiormq is below aio_pika, and only for types"),
    "aiobotocore": (["aiobotocore"], "botocore's is an instrumentation of its own"),
    "aiohttp-client": (["aiohttp"], "yarl is below aiohttp, and only for types"),
    "aiohttp-server": (["aiohttp"], "multidict is below aiohttp, and only for types"),
    "asyncio": (["asyncio"], "in the standard library"),
    "aws-lambda": ([], "patches the handler that a variable names, whatever it imports"),
    "boto3": (["boto3"], "patches clients made by boto3; botocore is below it"),
    "botocore": (["botocore"], "aiobotocore's is an instrumentation of its own"),
    "celery": (["celery"], "billiard is below celery, and only for types"),
    "click": (["click", "flask"], "imports flask.cli, if there, and flask imports click"),
    "django": (["django.core.handlers.base"], "adds its middleware before the first handler loads them"),
    "elasticsearch": (["elastic_transport", "elasticsearch"], "patches the one, elasticsearch 8 or later, or the other"),
    "exceptions": ([], PATCHES_AT_START),
    "fastapi": (
        ["fastapi", "starlette"],
        "must be there before Starlette's, whose patched class FastAPI would otherwise inherit: two spans",
    ),
    "httpx": (["httpx"], "httpx2's is an instrumentation of its own"),
    "httpx2": (["httpx2"], "httpx's is an instrumentation of its own"),
    "logging": (["logging"], "in the standard library"),
    "mysql": (["mysql.connector"], "other libraries may be in a package mysql"),
    "sqlite3": (["sqlite3"], "in the standard library"),
    "system_metrics": ([], "measures the process, whatever it imports"),
    "threading": (["threading"], "in the standard library; concurrent.futures imports it"),
    "urllib": (["urllib.request"], "in the standard library"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is there, write nothing")
    parser.add_argument("--index-url", default=default_url())
    parser.add_argument("--cache", type=pathlib.Path, default=default_cache())
    args = parser.parse_args()

    index = Index(args.index_url, args.cache, AS_OF)
    imports: dict[str, set[str]] = defaultdict(set)
    for path in sorted(RELEASES.glob("*.json")):
        release = json.loads(path.read_text())
        versions = {d["name"]: d["version"] for d in release["distributions"]}
        for instrumentation in release["instrumentations"]:
            name = instrumentation["distribution"]
            wheel = index.wheel(name, Version(versions[name]))
            if wheel is None:
                parser.error(f"the index has no {name} {versions[name]}")
            imports[instrumentation["name"]] |= imported(index.download(wheel))

    try:
        after = render(choose(imports))
    except ValueError as err:
        parser.error(str(err))
    before = OUTPUT.read_text() if OUTPUT.exists() else ""
    if after == before:
        print(f"{len(imports)} instrumentations, as before")
    elif args.check:
        print(f"{OUTPUT.name} differs")
        return 1
    else:
        OUTPUT.write_text(after)
        print(f"{len(imports)} instrumentations, written")
    return 0


def imported(wheel: pathlib.Path) -> set[str]:
    """What the modules of a wheel import, wherever in them, with all parents."""
    names = set()
    with zipfile.ZipFile(wheel) as archive:
        for path in archive.namelist():
            if not path.endswith(".py"):
                continue
            for node in ast.walk(ast.parse(archive.read(path))):
                if isinstance(node, ast.Import):
                    names.update(alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names.add(node.module)
                    names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {".".join(parts[: i + 1]) for parts in (name.split(".") for name in names) for i in range(len(parts))}


def choose(imports: dict[str, set[str]]) -> dict[str, list[str]]:
    """The modules of each instrumentation, given what it imports in any release."""
    if unknown := sorted(CHOSEN.keys() - imports.keys()):
        raise ValueError(f"no release has {', '.join(unknown)}")
    chosen = {}
    for name, modules in sorted(imports.items()):
        libraries = sorted(m for m in modules if "." not in m and m not in sys.stdlib_module_names | DEPENDENCIES)
        if name in CHOSEN:
            chosen[name], _ = CHOSEN[name]
        elif len(libraries) == 1:
            chosen[name] = libraries
        else:
            raise ValueError(f"{name} imports {', '.join(libraries) or 'no library'}: CHOSEN has to say which counts")
        if missing := [m for m in chosen[name] if m not in modules and name != "django"]:
            raise ValueError(f"{name} imports no {', '.join(missing)} in any release")
    return chosen


def render(modules: dict[str, list[str]]) -> str:
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(modules[name])}" for name in modules) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
