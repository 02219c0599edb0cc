#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["packaging>=24"]
# ///
"""Locks OpenTelemetry releases for the catalog.

    generate.py 1.27.0 1.33.1    lock these, writing ../releases/<version>_<beta>.json
    generate.py                  lock again what the catalog has
    generate.py --check          say what would change, write nothing (exit 1)
    generate.py --list           list every release since 1.12.0, complete or not
    generate.py --all            lock every complete one

Needs only ``packaging``: run it with ``uv run``, or with a Python that has it.
The index is PIP_INDEX_URL, or PyPI, over the JSON form of the simple API. Pages
and wheels are kept in ``--cache``.

What was published after ``--as-of`` does not count, so the same releases give
the same bytes on any day. Move the date forward on purpose, and all locks with
it, when newer dependencies are wanted.

A release counts only if every distribution it needs exists at its version: the
newest one on the index often does not. A lock holds

* opentelemetry-distro, the OTLP/HTTP exporter, four propagators, and all
  instrumentations of that release's bootstrap table and defaults;
* what they depend on, on any Python served: only ``*-none-any`` wheels that
  serve the lowest Python, and of those the ones that ask the least of what an
  app may ship already (see lock.py).

The recorded layers of a release are kept for as long as its distributions stay
the same. After a change, record the new ones, in the root of the repository:

    go run ./layer/bundle/record
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import sys

import lock as locking
import upstream
from index import Contents, Index, Wheel, default_cache, default_url

AS_OF = datetime.date(2026, 11, 23)
RELEASES = pathlib.Path(__file__).resolve().parent.parent / "releases"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="*", metavar="VERSION", help="stable version, e.g. 1.27.0")
    parser.add_argument("--all", action="store_true", help="lock every complete release")
    parser.add_argument("--list", action="store_true", help="list the releases of the index")
    parser.add_argument("--check", action="store_true", help="compare with what is there, write nothing")
    parser.add_argument("--output", type=pathlib.Path, default=RELEASES, help="folder of the locks")
    parser.add_argument("--as-of", type=datetime.date.fromisoformat, default=AS_OF, metavar="DATE")
    parser.add_argument("--index-url", default=default_url())
    parser.add_argument("--cache", type=pathlib.Path, default=default_cache())
    args = parser.parse_args()

    index = Index(args.index_url, args.cache, args.as_of)
    known = {str(release.version): release for release in locking.releases(index)}
    wanted = args.releases or sorted(p.name.partition("_")[0] for p in args.output.glob("*.json"))
    if args.all or args.list:
        wanted = list(known)
    if unknown := [name for name in wanted if name not in known]:
        parser.error(f"the index has no release {', '.join(unknown)}")

    failed = False
    for name in wanted:
        try:
            lock = locking.lock(index, known[name])
        except locking.Incomplete as err:
            print(f"{known[name]}: incomplete: {err}")
            failed = failed or not (args.all or args.list)
            continue
        summary = f"{known[name]}: {len(lock.wheels)} distributions, Python {lock.pythons[0]} to {lock.pythons[-1]}"
        path = args.output / f"{lock.release.version}_{lock.release.contrib}.json"
        if args.list:
            print(summary)
            continue
        before = path.read_text() if path.exists() else ""
        after = render(index, lock, json.loads(before) if before else {})
        if after == before:
            print(f"{summary}, as before")
        elif args.check:
            print(f"{summary}, differs")
            failed = True
        else:
            path.write_text(after)
            print(f"{summary}, written")
    return 1 if failed else 0


def render(index: Index, lock: locking.Lock, before: dict) -> str:
    """The JSON of a release: a line or two for each thing that changes on its own."""
    distributions = [distribution(index, wheel) for wheel in lock.wheels.values()]
    contents = [index.contents(wheel) for wheel in lock.wheels.values()]
    same = before.get("distributions") == distributions
    fields = {
        "version": str(lock.release.version),
        "contrib": str(lock.release.contrib),
        "python": {"min": lock.pythons[0], "max": lock.pythons[-1]},
        "layer": before.get("layer", {}) if same else {},
        "natives": before.get("natives", {}) if same else {},
        "distributions": distributions,
        "instrumentations": instrumentations(index, lock),
        "propagators": _entry_points(contents, "opentelemetry_propagator"),
        "traces_exporters": _entry_points(contents, "opentelemetry_traces_exporter"),
        "metrics_exporters": _entry_points(contents, "opentelemetry_metrics_exporter"),
        "logs_exporters": _entry_points(contents, "opentelemetry_logs_exporter"),
        "environment": upstream.environment(contents),
    }
    return "{\n" + ",\n".join(f"  {_text(key)}: {_field(key, value)}" for key, value in fields.items()) + "\n}\n"


def distribution(index: Index, wheel: Wheel) -> dict:
    contents = index.contents(wheel)
    return {
        "name": wheel.name,
        "version": str(wheel.version),
        "wheel": wheel.filename,
        "sha256": wheel.sha256,
        "size": wheel.size,
        "requires_python": contents.requires_python,
        "requires": contents.requires,
    }


def instrumentations(index: Index, lock: locking.Lock) -> list[dict]:
    found = []
    for name, wheel in lock.wheels.items():
        contents = index.contents(wheel)
        for entry, target in contents.entry_points.get("opentelemetry_instrumentor", {}).items():
            found.append(
                {
                    "name": entry,
                    "distribution": name,
                    "entry_point": target,
                    "libraries": lock.table.libraries.get(name, []),
                    "instruments": upstream.instruments(contents, "instruments"),
                    "instruments_any": upstream.instruments(contents, "instruments-any"),
                    "always": name in lock.table.always,
                }
            )
    return sorted(found, key=lambda instrumentation: instrumentation["name"])


def _entry_points(contents: list[Contents], group: str) -> list[str]:
    return sorted({name for wheel in contents for name in wheel.entry_points.get(group, {})})


def _field(key: str, value: object) -> str:
    if key in ("distributions", "instrumentations"):
        return "[\n" + ",\n".join(f"    {{{_lines(row)}}}" for row in value) + "\n  ]"
    if key == "environment":
        return "[\n" + ",\n".join(f"    {_text(item)}" for item in value) + "\n  ]"
    return _text(value)


def _lines(row: dict) -> str:
    """Three keys to a line: a new version changes two lines, a new bound one."""
    pairs = [f"{_text(key)}: {_text(value)}" for key, value in row.items()]
    return ",\n     ".join(", ".join(pairs[i : i + 3]) for i in range(0, len(pairs), 3))


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
