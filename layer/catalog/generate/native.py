#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["packaging>=24"]
# ///
"""Locks the native code of the bundles' protobuf, and runs it.

    native.py                  for every protobuf of the catalog's releases, writing ../native.json
    native.py 6.33.6           for this one
    native.py --print 6.33.6   run, write nothing

Needs uv and, as ``python3.X`` on PATH, every Python that the releases serve:
what is known to work ends before the first one that is missing.

protobuf publishes each version twice: as a universal wheel, which is in the
bundle, and for each platform with the same Python files and one extension
module, of the stable ABI. That module alone can be put beside the bundle's
files. A wheel that has other Python files is refused.

For each version of protobuf, the oldest and the newest release with it run as in
prove.py, without anything of protobuf in the app, on every Python from the one
in the wheel's tag on. On each, protobuf has to use the module, and all that is
sent has to arrive. Then it must work without: with a module that is no ELF
file, one that is too short, one of another machine, and one that needs a library
which is not there, as libstdc++ is not in every image. Only the module for this
machine is run; of the other one, the Python files are compared.

Afterwards, record the layers, in the root of the repository:

    go run ./layer/bundle/record
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import pathlib
import platform
import sys
import tempfile
import zipfile

from packaging.version import Version

from generate import AS_OF, RELEASES
from index import Index, default_cache, default_url
from prove import APP, Bench, attempt, find_pythons, minors, read_release

NATIVE = RELEASES.parent / "native.json"
MODULE = "google/_upb/_message.abi3.so"

# Wheel platforms by architecture, as OCI and as this machine call it.
PLATFORMS = {
    "amd64": ("manylinux2014_x86_64", "x86_64"),
    "arm64": ("manylinux2014_aarch64", "aarch64"),
}

# On Python 3.12.1 their handler starts a thread at exit, and may not.
WITHOUT_LOGS = {"OTEL_LOGS_EXPORTER": "none", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "logging"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", type=Version, metavar="VERSION", help="of protobuf")
    parser.add_argument("--print", action="store_true", help="write nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--index-url", default=default_url())
    parser.add_argument("--cache", type=pathlib.Path, default=default_cache())
    args = parser.parse_args()

    index = Index(args.index_url, args.cache, AS_OF)
    before = json.loads(NATIVE.read_text()) if NATIVE.exists() else {}
    natives = {}
    with tempfile.TemporaryDirectory(prefix="imgwrap-native-") as folder:
        bench = Bench(index, pathlib.Path(folder), find_pythons())
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for version, releases in sorted(by_protobuf().items()):
                if args.versions and version not in args.versions:
                    if str(version) in before:
                        natives[str(version)] = before[str(version)]
                elif found := lock(index, version):
                    if python := prove(bench, pool, releases, found):
                        natives[str(version)] = {arch: entry | {"python": python} for arch, (entry, _) in found.items()}
    if not args.print:
        NATIVE.write_text(render(natives))
    return 0


def by_protobuf() -> dict[Version, list[dict]]:
    """The releases by the protobuf that they have, oldest first."""
    found: dict[Version, list[dict]] = {}
    releases = [json.loads(path.read_text()) for path in RELEASES.glob("*.json")]
    for release in sorted(releases, key=lambda release: Version(release["version"])):
        (version,) = (row["version"] for row in release["distributions"] if row["name"] == "protobuf")
        found.setdefault(Version(version), []).append(release)
    return found


def render(natives: dict) -> str:
    """The JSON, a line for each wheel."""
    blocks = []
    for version, entries in natives.items():
        lines = ",\n".join(f"    {json.dumps(arch)}: {json.dumps(entry)}" for arch, entry in entries.items())
        blocks.append(f"  {json.dumps(version)}: {{\n{lines}\n  }}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def lock(index: Index, version: Version) -> dict[str, tuple[dict, bytes]]:
    """The wheels of a version by architecture, with the module in each; nothing if there is no such wheel."""
    pure = index.wheel("protobuf", version)
    found = {}
    for arch, (tag, _) in PLATFORMS.items():
        wheel, lowest = index.stable_abi_wheel("protobuf", version, tag) or (None, "")
        if wheel is None:
            print(f"protobuf {version} has no wheel for {tag}", flush=True)
            return {}
        universal, native = (files(index.download(w)) for w in (pure, wheel))
        module = native.pop(MODULE)
        if differ := sorted(name for name in universal | native if universal.get(name) != native.get(name)):
            print(f"{wheel.filename} has other files than {pure.filename}: {', '.join(differ)}", flush=True)
            return {}
        entry = {
            "wheel": wheel.filename,
            "sha256": wheel.sha256,
            "size": wheel.size,
            "libc": "glibc",
            "lowest": lowest,
        }
        found[arch] = (entry, module)
    return found


def files(wheel: pathlib.Path) -> dict[str, bytes]:
    """What a wheel installs, but for what says which wheel it was."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: archive.read(name)
            for name in archive.namelist()
            if not name.endswith((".dist-info/WHEEL", ".dist-info/RECORD"))
        }


def prove(
    bench: Bench, pool: concurrent.futures.Executor, releases: list[dict], found: dict[str, tuple[dict, bytes]]
) -> dict[str, str] | None:
    """The Pythons that everything worked on, without a gap; None if there is none."""
    (lowest,) = {entry.pop("lowest") for entry, _ in found.values()}
    modules = {PLATFORMS[arch][1]: module for arch, (_, module) in found.items()}
    module = modules.pop(platform.machine())
    (other,) = modules.values()
    served = {python for release in releases for python in minors(release["python"])}
    failed = {python for python in served if python not in bench.pythons}
    for release in dict.fromkeys((releases[0]["version"], releases[-1]["version"])):
        failed |= failures(bench, pool, read_release(release), Version(lowest), module, other)
    worked: list[str] = []
    for python in sorted(served, key=Version):
        if Version(python) < Version(lowest):
            continue
        if python in failed:
            break
        worked.append(python)
    return {"min": worked[0], "max": worked[-1]} if worked else None


def failures(
    bench: Bench, pool: concurrent.futures.Executor, release: dict, lowest: Version, module: bytes, other: bytes
) -> set[str]:
    """The Pythons on which a release fails with the module, or without."""
    root = bench.root(release["version"])
    place = root / f"otel-{release['version']}" / MODULE
    place.parent.mkdir()
    pythons = [p for p in minors(release["python"]) if p in bench.pythons and Version(p) >= lowest]
    failed = set()
    for what, content in {
        "the module": module,
        "no ELF file": b"not a library\n",
        "too short a file": module[:100],
        "another machine's module": other,
        "a library missing": module.replace(b"\0libstdc++.so.6\0", b"\0libabsent.so.6\0"),
    }.items():
        place.write_bytes(content)
        switches = {"PROOF_PROTOBUF": "upb" if content == module else "python", **WITHOUT_LOGS}

        def run(python: str) -> str | None:
            return attempt(release, root, [str(bench.venv(python, ()) / "bin" / "python"), str(APP)], switches)

        for python, fault in zip(pythons, pool.map(run, pythons)):
            print(f"{release['version']}, {what}, Python {python}: {fault or 'worked'}", flush=True)
            if fault:
                failed.add(python)
    return failed


if __name__ == "__main__":
    sys.exit(main())
