"""Choosing the distributions of one release, and checking the choice.

The lock of a release is one fixed set of universal wheels that is right for
every Python the release serves: chosen at the lowest one, with each dependency
that a marker asks for on any of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import upstream
from index import Contents, Index, Wheel

OLDEST = Version("1.12.0")  # the catalog goes back to here

LOWEST_PYTHON = 7  # 3.7: below it the loader starts the app without telemetry
HIGHEST_PYTHON = 14  # 3.14: the newest one that releases are tried on

# Upstream sets no upper bound on Python, and does not take one back.
BROKEN_ON = {
    # The SDK sets an attribute of typing.Union, which 3.14 refuses.
    "3.14": SpecifierSet("<1.16"),
}

CORE = ("opentelemetry-distro", "opentelemetry-exporter-otlp-proto-http")
PROPAGATORS = (
    "opentelemetry-propagator-aws-xray",
    "opentelemetry-propagator-b3",
    "opentelemetry-propagator-jaeger",
    "opentelemetry-propagator-ot-trace",
)

# Never in a lock. psutil has no universal wheel, and only the instrumentation
# of system metrics asks for it: that one is for apps that ship psutil.
LEFT_TO_THE_APP = {"psutil"}

# Bounds that upstream forgot.
CONSTRAINTS = {
    # Up to 0.48b0 everything imports pkg_resources, gone since setuptools 81,
    # while the metadata asks for setuptools>=16.0.
    "setuptools": SpecifierSet("<81"),
}

# Versions below these ask for less only because they say less.
SOUND = {
    # Earlier ones set no upper bound on protobuf, and break with protobuf 4.
    "googleapis-common-protos": SpecifierSet(">=1.56.2"),
    # Earlier ones ask for chardet on some Pythons, or carry a urllib3 of their own.
    "requests": SpecifierSet(">=2.26"),
}

# An app's version of a dependency is taken to be one published since.
APPS_SINCE = "2020-01-01"

# What OpenTelemetry runs with although its bounds say otherwise: since 1.28
# (before, pkg_resources enforced them) it does not look at its own bounds.
# A dependency should not refuse these either.
RUNS_WITH = {"protobuf": SpecifierSet(">=3.20")}


class Incomplete(Exception):
    """A release that cannot be locked as a whole, and why."""


@dataclasses.dataclass(frozen=True)
class Release:
    version: Version  # the stable train: API, SDK, exporters
    contrib: Version  # the beta train: distro, instrumentations

    def __str__(self) -> str:
        return f"{self.version}/{self.contrib}"


@dataclasses.dataclass
class Lock:
    release: Release
    pythons: list[str]  # every minor served, lowest first
    wheels: dict[str, Wheel]  # by normalised name
    table: upstream.Table


def releases(index: Index) -> list[Release]:
    """Every release of the index since OLDEST, complete or not, newest first.

    The SDK's pin on the semantic conventions says which beta belongs to which
    stable version.
    """
    found = []
    for wheel in index.wheels("opentelemetry-sdk"):
        if wheel.version < OLDEST or wheel.version.is_prerelease:
            continue
        for requirement in index.contents(wheel).requirements:
            if requirement.name == "opentelemetry-semantic-conventions":
                (pin,) = requirement.specifier
                found.append(Release(wheel.version, Version(pin.version)))
    return found[::-1]


def lock(index: Index, release: Release) -> Lock:
    """The distributions of a release. Raises Incomplete."""
    names, table = _names(index, release)
    pinned = {name: _own(index, release, name) for name in names}
    if lacking := sorted(name for name, wheel in pinned.items() if wheel is None):
        raise Incomplete(f"lacks {', '.join(lacking)}")
    pythons = _pythons(release, [pinned[name] for name in CORE])
    wheels = _Resolver(index, release, pythons, pinned).resolve()
    result = Lock(release, pythons, wheels, table)
    if faults := check(index, result):
        raise Incomplete("; ".join(faults))
    return result


def check(index: Index, lock: Lock) -> list[str]:
    """What is wrong with a lock, in words; nothing is the rule."""
    faults = []
    for name, wheel in lock.wheels.items():
        if not wheel.filename.endswith("-none-any.whl"):
            faults.append(f"{wheel.filename} is not universal")
        for python in (lock.pythons[0], lock.pythons[-1]):
            if not wheel.serves(python):
                faults.append(f"{wheel.filename} does not serve Python {python}")
    extras = _extras(index, lock.wheels.values(), lock.pythons)
    for python in lock.pythons:
        for name, wheel in lock.wheels.items():
            for requirement in _applying(index.contents(wheel), python, extras.get(name, ())):
                wanted = canonicalize_name(requirement.name)
                if wanted in LEFT_TO_THE_APP:
                    continue
                if wanted not in lock.wheels:
                    faults.append(f"{name} asks for {requirement}, which is not there")
                elif not requirement.specifier.contains(lock.wheels[wanted].version, prereleases=True):
                    faults.append(f"{name} asks for {requirement}, there is {lock.wheels[wanted].version}")
    return sorted(set(faults))


def _names(index: Index, release: Release) -> tuple[set[str], upstream.Table]:
    """Every OpenTelemetry distribution that the release must have."""
    wheel = index.wheel("opentelemetry-instrumentation", release.contrib)
    if wheel is None:
        raise Incomplete("lacks opentelemetry-instrumentation")
    table = upstream.read_table(index.contents(wheel), release.contrib)
    return {*CORE, *PROPAGATORS, *table.libraries, *table.always}, table


def _own(index: Index, release: Release, name: str) -> Wheel | None:
    """The wheel of an OpenTelemetry distribution that belongs to a release."""
    for version in (release.contrib, release.version):
        if wheel := index.wheel(name, version):
            return wheel
    if name != "opentelemetry-propagator-aws-xray":
        return None
    # It has a numbering of its own: the newest when the release came out.
    distro = index.wheel("opentelemetry-distro", release.contrib)
    fitting = [
        wheel
        for wheel in index.wheels(name)
        if distro is not None and wheel.uploaded <= distro.uploaded and not wheel.version.is_prerelease
    ]
    return fitting[-1] if fitting else None


def _pythons(release: Release, core: list[Wheel]) -> list[str]:
    """The minors that a release serves."""
    pythons = [f"3.{minor}" for minor in range(LOWEST_PYTHON, HIGHEST_PYTHON + 1)]
    return [
        python
        for python in pythons
        if all(wheel.serves(python) for wheel in core)
        and not (python in BROKEN_ON and BROKEN_ON[python].contains(release.version))
    ]


def _applying(contents: Contents, python: str, extras: Collection[str]) -> list[Requirement]:
    """The requirements that hold on CPython for Linux."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "sys_platform": "linux",
    }
    return [
        requirement
        for requirement in contents.requirements
        if requirement.marker is None
        or any(requirement.marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras))
    ]


def _requirements(index: Index, wheel: Wheel, extras: Collection[str], pythons: list[str]) -> list[Requirement]:
    """The requirements that hold on any of the Pythons."""
    contents = index.contents(wheel)
    return list({str(r): r for python in pythons for r in _applying(contents, python, extras)}.values())


def _extras(index: Index, wheels: Iterable[Wheel], pythons: list[str]) -> dict[str, set[str]]:
    """The extras that the wheels ask for, by name."""
    extras: dict[str, set[str]] = {}
    for wheel in wheels:
        for requirement in _requirements(index, wheel, (), pythons):
            if requirement.extras:
                extras.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
    return extras


class _Resolver:
    """Finds a set that is closed on every Python served, by going to a fixed point.

    OpenTelemetry's distributions are given by the release; what is left to
    choose are a dozen others, which hardly depend on each other.
    """

    def __init__(self, index: Index, release: Release, pythons: list[str], pinned: dict[str, Wheel]):
        self.index = index
        self.release = release
        self.pythons = pythons
        self.roots = set(pinned)
        self.chosen = dict(pinned)

    def resolve(self) -> dict[str, Wheel]:
        for _ in range(20):
            asked = self._asked(self.chosen.values())
            bounds = self._asked(self.chosen[name] for name in self._core())
            chosen = {name: self._choose(name, asked.get(name), bounds) for name in {*asked, *self.roots}}
            if chosen == self.chosen:
                return dict(sorted(chosen.items()))
            self.chosen = chosen
        raise Incomplete("no fixed set of dependencies was found")

    def _asked(self, wheels: Iterable[Wheel]) -> dict[str, SpecifierSet]:
        """What the wheels ask for, on any Python, joined by name."""
        asked: dict[str, SpecifierSet] = {}
        extras = _extras(self.index, self.chosen.values(), self.pythons)
        for wheel in wheels:
            for requirement in _requirements(self.index, wheel, extras.get(wheel.name, ()), self.pythons):
                name = canonicalize_name(requirement.name)
                if name not in LEFT_TO_THE_APP:
                    asked[name] = asked.get(name, SpecifierSet()) & requirement.specifier
        return asked

    def _core(self) -> set[str]:
        """The distributions of OpenTelemetry that no image can do without."""
        core: set[str] = set()
        reached = {*CORE, *PROPAGATORS}
        while reached - core:
            core = set(reached)
            asked = self._asked(self.chosen[name] for name in core)
            reached.update(name for name in asked if _is_ours(name) and name in self.chosen)
        return core

    def _choose(self, name: str, asked: SpecifierSet | None, bounds: dict[str, SpecifierSet]) -> Wheel:
        if _is_ours(name):
            wheel = _own(self.index, self.release, name)
            if wheel is None:
                raise Incomplete(f"lacks {name}")
            return wheel
        specifiers = asked & CONSTRAINTS.get(name, SpecifierSet()) & SOUND.get(name, SpecifierSet())
        candidates = [
            wheel
            for wheel in self.index.wheels(name)
            if specifiers.contains(wheel.version, prereleases=False)
            and wheel.serves(self.pythons[0])
            and wheel.serves(self.pythons[-1])
        ]
        if not candidates:
            raise Incomplete(f"no universal wheel of {name} {specifiers} serves Python {self.pythons[0]}")
        return min(reversed(candidates), key=lambda wheel: self._demands(wheel, bounds))  # the newest of equals

    def _demands(self, wheel: Wheel, bounds: dict[str, SpecifierSet]) -> tuple[float, float]:
        """How much a wheel asks of what an app may ship already: the least is best.

        An app's own packages win over the bundle's, so each bound of a wheel
        in the bundle can rule the release out for an app. Counted is the share
        of versions refused: first of those that the release's core accepts,
        then of those it runs with.
        """
        accepted = running = 0.0
        for requirement in _requirements(self.index, wheel, (), self.pythons):
            name = canonicalize_name(requirement.name)
            accepted += self._refused(requirement, bounds.get(name, SpecifierSet()))
            if name in RUNS_WITH:
                running += self._refused(requirement, RUNS_WITH[name])
        return accepted, running

    def _refused(self, requirement: Requirement, among: SpecifierSet) -> float:
        """The share of an app's possible versions that a requirement refuses."""
        versions = [
            wheel.version
            for wheel in self.index.wheels(requirement.name)
            if wheel.uploaded >= APPS_SINCE and not wheel.version.is_prerelease and among.contains(wheel.version)
        ]
        return sum(not requirement.specifier.contains(version) for version in versions) / max(len(versions), 1)


def _is_ours(name: str) -> bool:
    return name.startswith("opentelemetry-")
