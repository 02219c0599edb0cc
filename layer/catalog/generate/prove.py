#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["packaging>=24"]
# ///
"""Runs releases with packages of an app that are outside their bounds.

    prove.py 1.41.1 1.45.1     run these and write their lines of ../proven.json
    prove.py                   run again what is in there
    prove.py --print 1.12.0    run, write nothing

Needs uv and, as ``python3.X`` on PATH, Pythons that the release serves: what
works is known between the lowest and the highest of them.

Each run is a process that is started as in a wrapped image: the loader in
PYTHONPATH, the release's bundle (unpacked from the locked wheels) at the end of
sys.path, and before it a virtual environment with the app's own version of one
distribution. The app (proof_app.py) makes spans, metrics and logs with
instrumented libraries; it worked if it ended well, said nothing, imported its
own version, and if all that it sent over OTLP/HTTP arrived and is right, read
here without protobuf.

Distributions are those that the release's core puts bounds on, and the API. Of the versions
that the bounds refuse, the first and the last of each minor are run, going away
from the bounds until two in a row fail. Each is run on the lowest and on the
highest Python that there is here and that the release and the version serve; if
it fails on the highest, on the next lower ones until it works. Where a
distribution has native code, the run on the lowest Python is repeated without.
At last the oldest versions that worked of all distributions are run together,
and the newest; if that fails, nothing is written.

Releases before 1.28.0 enforce their bounds when they start, so for them only
the bundle alone is run, as for each release first of all.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import gzip
import http.server
import itertools
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterable, Iterator

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import lock as locking
from generate import AS_OF, RELEASES
from index import Index, Wheel, default_cache, default_url

PROVEN = RELEASES.parent / "proven.json"
LOADER = RELEASES.parent.parent / "bundle" / "python" / "sitecustomize.py"
APP = pathlib.Path(__file__).with_name("proof_app.py")

CHECKS_NO_BOUNDS = Version("1.28.0")  # since then

# There OTEL_EXPORTER_OTLP_PROTOCOL is not looked at.
OTLP_IS_GRPC = SpecifierSet("<1.13")

# Before, the SDK's log handler recurses without end on Python 3.12 and later,
# where LogRecord has a taskName, if log records are exported at all.
LOGS_WORK = SpecifierSet(">=1.22")

# Frameworks ship it without the rest, and in a patch release that need not be
# complete.
API = "opentelemetry-api"

# What the app has besides: a framework that every release instruments.
LIBRARIES = ("flask>=2,<3", "werkzeug<3")
INSTRUMENTED = {"flask", "jinja2", "click", "wsgi"}

# Switches native code off.
PURE = {
    "protobuf": {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
    "wrapt": {"WRAPT_DISABLE_EXTENSIONS": "1"},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="*", metavar="VERSION", help="stable version, e.g. 1.45.1")
    parser.add_argument("--print", action="store_true", help="write nothing")
    parser.add_argument("--only", metavar="NAME", help="this distribution; write nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--index-url", default=default_url())
    parser.add_argument("--cache", type=pathlib.Path, default=default_cache())
    args = parser.parse_args()

    known = json.loads(PROVEN.read_text()) if PROVEN.exists() else []
    before = {proof["release"]: proof for proof in known}
    wanted = args.releases or list(before)
    index = Index(args.index_url, args.cache, AS_OF)
    with tempfile.TemporaryDirectory(prefix="imgwrap-prove-") as folder:
        bench = Bench(index, pathlib.Path(folder), find_pythons())
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            proofs = [prove(bench, pool, read_release(version), args.only) for version in wanted]
    if not args.print and not args.only:
        after = before | {proof["release"]: proof for proof in proofs if proof["trials"]}
        PROVEN.write_text(render(sorted(after.values(), key=lambda proof: Version(proof["release"]), reverse=True)))
    return 0


def read_release(version: str) -> dict:
    (path,) = RELEASES.glob(f"{version}_*.json")
    return json.loads(path.read_text())


def find_pythons() -> dict[str, str]:
    """The interpreters on PATH by their minor version, lowest first."""
    found = {}
    for minor in range(locking.LOWEST_PYTHON, locking.HIGHEST_PYTHON + 1):
        python = shutil.which(f"python3.{minor}")
        # A name on PATH may be that of a version manager which has no such version.
        if python and not subprocess.run([python, "-c", ""], capture_output=True).returncode:
            found[f"3.{minor}"] = python
    return found


def render(proofs: list[dict]) -> str:
    """The JSON of all proofs, a line for each trial."""
    blocks = []
    for proof in proofs:
        trials = ",\n".join(f"    {json.dumps(trial)}" for trial in proof["trials"])
        blocks.append(
            f'  {{"release": {json.dumps(proof["release"])}, "diff_id": {json.dumps(proof["diff_id"])}, '
            f'"trials": [\n{trials}\n  ]}}'
        )
    return "[\n" + ",\n".join(blocks) + "\n]\n"


# Which versions to run.


@dataclasses.dataclass(frozen=True)
class Candidates:
    """Versions of a distribution outside of a release's bounds."""

    name: str
    below: list[Wheel]  # the nearest to the bounds first, as of above
    above: list[Wheel]


def candidates(index: Index, release: dict) -> Iterator[Candidates]:
    for name, bounds in sorted(core_bounds(release).items()):
        # Versions that are left out by name are known to be broken.
        holes = SpecifierSet(",".join(str(s) for s in bounds if s.operator == "!="))
        wheels = [
            wheel
            for wheel in index.wheels(name)
            if not wheel.version.is_prerelease and wheel.uploaded >= locking.APPS_SINCE and wheel.version in holes
        ]
        accepted = [wheel.version for wheel in wheels if wheel.version in bounds]
        if not accepted:
            continue
        below = ends([wheel for wheel in wheels if wheel.version < min(accepted)])
        above = ends([wheel for wheel in wheels if wheel.version > max(accepted)])
        if below or above:
            yield Candidates(name, below[::-1], above)


def core_bounds(release: dict) -> dict[str, SpecifierSet]:
    """What the release's core asks of what an app may ship without OpenTelemetry, joined by name."""
    locked = {row["name"]: row for row in release["distributions"]}
    bounds: dict[str, SpecifierSet] = {}
    reached: set[str] = set()
    queue = [*locking.CORE, *locking.PROPAGATORS]
    while queue:
        name = queue.pop()
        if name in reached:
            continue
        reached.add(name)
        for requirement in map(Requirement, locked[name]["requires"]):
            if not applies(requirement.marker, release["python"]):
                continue
            wanted = canonicalize_name(requirement.name)
            queue.append(wanted)
            if wanted == API or not wanted.startswith("opentelemetry-"):
                bounds[wanted] = bounds.get(wanted, SpecifierSet()) & requirement.specifier
    return bounds


def applies(marker: Marker | None, python: dict[str, str]) -> bool:
    return marker is None or any(
        marker.evaluate({"python_version": minor, "python_full_version": f"{minor}.0", "extra": ""})
        for minor in minors(python)
    )


def minors(python: dict[str, str]) -> list[str]:
    lowest, highest = (int(python[key].partition(".")[2]) for key in ("min", "max"))
    return [f"3.{minor}" for minor in range(lowest, highest + 1)]


def ends(wheels: list[Wheel]) -> list[Wheel]:
    """The first and the last of each minor."""
    first = {wheel.version.release[:2]: wheel for wheel in reversed(wheels)}
    last = {wheel.version.release[:2]: wheel for wheel in wheels}
    return [wheel for wheel in wheels if wheel in (*first.values(), *last.values())]


# Running them.


def prove(bench: Bench, pool: concurrent.futures.Executor, release: dict, only: str | None) -> dict:
    pythons = [python for python in minors(release["python"]) if python in bench.pythons]
    for python in dict.fromkeys((pythons[0], pythons[-1])):
        if fault := bench.run(release, python):
            raise SystemExit(f"{release['version']} alone on Python {python}: {fault}")
        print(f"{release['version']} alone on Python {python}: worked", flush=True)
    futures = []
    if Version(release["version"]) >= CHECKS_NO_BOUNDS:
        for found in candidates(bench.index, release):
            if only in (None, found.name):
                futures += [pool.submit(walk, bench, release, pythons, side) for side in (found.below, found.above)]
    trials: dict[tuple[str, str], dict] = {}
    for future in futures:
        for outcome in future.result():
            key = (outcome.name, outcome.python)
            trial = {"distribution": outcome.name, "python": outcome.python, "worked": [], "failed": []}
            trials.setdefault(key, trial)["failed" if outcome.fault else "worked"].append(outcome.version)
    for trial in trials.values():
        for key in ("worked", "failed"):
            trial[key].sort(key=Version)
    together(bench, release, list(trials.values()))
    return {
        "release": release["version"],
        "diff_id": release["layer"]["diff_id"],
        "trials": sorted(trials.values(), key=lambda t: (t["distribution"], Version(t["python"]))),
    }


def together(bench: Bench, release: dict, trials: list[dict]) -> None:
    for python in dict.fromkeys(trial["python"] for trial in trials):
        worked = {t["distribution"]: t["worked"] for t in trials if t["python"] == python and t["worked"]}
        for end in (0, -1):
            app = {name: versions[end] for name, versions in worked.items()}
            if len(app) > 1:
                fault = bench.run(release, python, app)
                words = ", ".join(f"{name} {version}" for name, version in app.items())
                print(f"{release['version']}, {words}, Python {python}: {fault or 'worked'}", flush=True)
                if fault:
                    raise SystemExit("what worked alone does not work together")


@dataclasses.dataclass(frozen=True)
class Outcome:
    name: str
    version: str
    python: str
    fault: str | None


def walk(bench: Bench, release: dict, pythons: list[str], wheels: list[Wheel]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    failures = 0
    for wheel in wheels:
        found = []
        for python in order(wheel, pythons):
            app = {wheel.name: str(wheel.version)}
            fault = bench.run(release, python, app)
            if fault is None and not found and wheel.name in PURE:
                fault = bench.run(release, python, app, PURE[wheel.name])
                fault = fault and f"without native code: {fault}"
            if fault == NOT_INSTALLABLE:
                continue
            found.append(Outcome(wheel.name, str(wheel.version), python, fault))
            print(f"{release['version']}, {wheel.name} {wheel.version}, Python {python}: {fault or 'worked'}", flush=True)
            if fault is None and len(found) > 1 or fault and len(found) == 1:
                break
        if found:
            failures = failures + 1 if found[0].fault else 0
        outcomes += found
        if failures == 2:
            break
    return outcomes


def order(wheel: Wheel, pythons: list[str]) -> list[str]:
    """The lowest Python that a wheel serves, then all others from the highest on."""
    served = [python for python in pythons if wheel.serves(python)]
    return served[:1] + served[:0:-1]


NOT_INSTALLABLE = "no wheel"


class Bench:
    """What the runs share: unpacked bundles, libraries, virtual environments."""

    def __init__(self, index: Index, folder: pathlib.Path, pythons: dict[str, str]):
        self.index = index
        self.folder = folder
        self.pythons = pythons
        self._lock = threading.Lock()
        self._environment = {
            **os.environ,
            "UV_DEFAULT_INDEX": index.url,
            "UV_EXCLUDE_NEWER": f"{index.as_of}T23:59:59Z",
            "UV_NO_CONFIG": "1",
        }

    def run(
        self, release: dict, python: str, app: dict[str, str] | None = None, switches: dict[str, str] | None = None
    ) -> str | None:
        """Runs the app, which has these distributions, and tells what was wrong, or None."""
        pins = tuple((app or {}).items())
        root = self.root(release["version"])
        venv = self.venv(python, pins)
        if venv is None:
            return NOT_INSTALLABLE
        argv = [str(venv / "bin" / "python"), str(APP), *itertools.chain(*pins)]
        return attempt(release, root, argv, switches or {})

    @functools.cache
    def root(self, version: str) -> pathlib.Path:
        """What an image has in /opt/imgwrap."""
        release = read_release(version)
        root = self.folder / version
        bundle = root / f"otel-{version}"
        hidden = {i["distribution"] for i in release["instrumentations"]} - {
            i["distribution"] for i in release["instrumentations"] if i["always"] or i["name"] in INSTRUMENTED
        }
        for row in release["distributions"]:
            wheel = self.index.wheel(row["name"], Version(row["version"]))
            if wheel is None or wheel.sha256 != row["sha256"]:
                raise SystemExit(f"the index does not have {row['wheel']} as it is locked")
            with zipfile.ZipFile(self.index.download(wheel)) as archive:
                for name in archive.namelist():
                    if ".data/" in name or (row["name"] in hidden and ".dist-info/" in name):
                        continue
                    archive.extract(name, bundle)
        (root / "init").mkdir()
        shutil.copy(LOADER, root / "init")
        wrap = {"release": version, "python": release["python"], "bundle": str(bundle)}
        (root / "wrap.json").write_text(json.dumps(wrap))
        return root

    @functools.cache
    def libraries(self, python: str) -> pathlib.Path:
        target = self.folder / f"libraries-{python}"
        self._uv("pip", "install", "--target", str(target), "--python", self.pythons[python], *LIBRARIES, check=True)
        return target

    @functools.cache
    def venv(self, python: str, app: tuple[tuple[str, str], ...]) -> pathlib.Path | None:
        """A virtual environment with the app's distributions, in front of the libraries."""
        venv = self.folder / "-".join(["venv", python, *itertools.chain(*app)])
        self._uv("venv", "--python", self.pythons[python], str(venv), check=True)
        if app:
            pins = [f"{name}=={version}" for name, version in app]
            done = self._uv("pip", "install", "--only-binary", ":all:", "--python", str(venv / "bin" / "python"), *pins)
            if done.returncode:
                return None
        (site,) = venv.glob("lib/python3.*/site-packages")
        with self._lock:
            (site / "libraries.pth").write_text(f"{self.libraries(python)}\n")
        return venv

    def _uv(self, *args: str, check: bool = False) -> subprocess.CompletedProcess:
        stderr = None if check else subprocess.DEVNULL
        return subprocess.run(["uv", "--quiet", *args], env=self._environment, check=check, stderr=stderr)


def attempt(release: dict, root: pathlib.Path, argv: list[str], switches: dict[str, str]) -> str | None:
    otlp = "otlp_proto_http" if OTLP_IS_GRPC.contains(release["version"]) else "otlp"
    exporters = {
        f"OTEL_{signal.upper()}_EXPORTER": otlp if "otlp_proto_http" in release[f"{signal}_exporters"] else "none"
        for signal in ("traces", "metrics", "logs")
    }
    if not LOGS_WORK.contains(release["version"]):
        exporters["OTEL_LOGS_EXPORTER"] = "none"
    exporters |= {name: value for name, value in switches.items() if name in exporters}
    with Receiver() as receiver:
        env = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(root / "init"),
            "PYTHONWARNINGS": "ignore",
            "IMGWRAP_STRICT": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            **exporters,
            "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": str(exporters["OTEL_LOGS_EXPORTER"] == otlp).lower(),
            "OTEL_PROPAGATORS": "tracecontext,baggage,b3,b3multi,jaeger,xray,ottrace",
            "OTEL_BSP_MAX_QUEUE_SIZE": "8192",
            **switches,
        }
        try:
            done = subprocess.run(argv, env=env, cwd=root, capture_output=True, text=True, timeout=120)
        except subprocess.TimeoutExpired:
            return "it does not end"
        if done.returncode or done.stderr:
            return f"exit {done.returncode}, {(done.stderr.strip().splitlines() or [''])[-1]}"
        return receiver.fault({name for name, value in exporters.items() if value == otlp})


# What arrives.


class Receiver:
    """An OTLP/HTTP endpoint that keeps what it is sent."""

    def __enter__(self) -> Receiver:
        self.bodies: dict[str, list[bytes]] = {}
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.bodies.setdefault(self.path, []).append(body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def fault(self, exported: set[str]) -> str | None:
        """What is wrong with what arrived, of what the app sends."""
        try:
            spans = list(self.spans())
            metrics = b"".join(self.fields("/v1/metrics", 1, 2, 2, 1))
            logs = list(self.fields("/v1/logs", 1, 2, 2, 5, 1))
        except (IndexError, KeyError, ValueError, struct.error, UnicodeDecodeError) as error:
            return f"what arrived is not OTLP: {error!r}"
        served = {span["id"] for span in spans if span["kind"] == 2}
        work = [span for span in spans if span["name"] == "work" and span["parent"] in served]
        numbers = sorted(span["attributes"].pop("number", None) for span in work)
        if len(served) != 256 or numbers != list(range(-128, 128)):
            return f"{len(served)} and {len(work)} of 256 spans arrived"
        expected = {"text": "naïve ☃", "large": 2**62, "ratio": 0.1, "yes": True, "words": ["a", "b"]}
        for span in work:
            if span["attributes"] != expected or span["events"] != ["an event"] or len(span["id"]) != 8:
                return f"a span arrived as {span}"
        if not any(span["name"] == "SELECT" for span in spans):
            return "no span of sqlite3 arrived"
        if "OTEL_METRICS_EXPORTER" in exported and b"a.counter" not in metrics:
            return "no metric arrived"
        if "OTEL_LOGS_EXPORTER" in exported and not any(b"a warning" in body for body in logs):
            return "no log record arrived"
        return None

    def fields(self, path: str, *numbers: int) -> Iterable[bytes]:
        messages: Iterable[bytes] = self.bodies.get(path, [])
        for number in numbers:
            messages = [value for message in messages for value in decode(message).get(number, [])]
        return messages

    def spans(self) -> Iterator[dict]:
        for message in self.fields("/v1/traces", 1, 2, 2):
            span = decode(message)
            yield {
                "id": span[2][0],
                "parent": span.get(4, [b""])[0],
                "name": span[5][0].decode(),
                "kind": span[6][0],
                "attributes": {decode(a)[1][0].decode(): any_value(decode(a)[2][0]) for a in span.get(9, [])},
                "events": [decode(event)[2][0].decode() for event in span.get(11, [])],
            }


def any_value(message: bytes) -> object:
    ((kind, (value,)),) = decode(message).items()
    match kind:
        case 1:
            return value.decode()
        case 2:
            return bool(value)
        case 3:
            return value - (1 << 64) if value >> 63 else value
        case 4:
            return struct.unpack("<d", value)[0]
        case 5:
            return [any_value(element) for element in decode(value).get(1, [])]
    raise ValueError(f"a value of kind {kind}")


def decode(message: bytes) -> dict[int, list]:
    """The fields of a protobuf message, not knowing its type."""
    fields: dict[int, list] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            value = varint()
        else:
            length = {1: 8, 5: 4}[key & 7] if key & 7 != 2 else varint()
            value = message[at : at + length]
            if len(value) != length:
                raise ValueError("a message that is cut off")
            at += length
        fields.setdefault(key >> 3, []).append(value)
    return fields


if __name__ == "__main__":
    sys.exit(main())
