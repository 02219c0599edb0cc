"""Reading a package index (PEP 503/691) and the wheels on it.

Pages and wheels are kept in a cache folder outside the checkout, so that a
second run asks the network for nothing: a page is good for as long as it is
younger than the cut.
"""

from __future__ import annotations

import configparser
import dataclasses
import datetime
import email
import hashlib
import json
import os
import pathlib
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

SIMPLE = "application/vnd.pypi.simple.v1+json"


@dataclasses.dataclass(frozen=True)
class Wheel:
    """One wheel on the index."""

    name: str  # normalised distribution name
    version: Version
    filename: str
    url: str
    sha256: str
    size: int
    requires_python: str
    uploaded: str

    def serves(self, python: str) -> bool:
        """Whether the index says that the wheel installs on this Python, e.g. "3.8"."""
        # A floor such as ">=3.6.1" is about patch levels nobody runs any more:
        # a minor is served if some patch level of it is.
        return SpecifierSet(self.requires_python).contains(f"{python}.99")


class Index:
    def __init__(self, url: str, cache: pathlib.Path, as_of: datetime.date):
        self.url = url.rstrip("/")
        self.cache = cache
        self.as_of = as_of
        self._wheels: dict[str, list[Wheel]] = {}
        self._contents: dict[str, Contents] = {}

    def wheels(self, name: str) -> list[Wheel]:
        """The universal (``*-none-any``) wheels of a distribution, oldest version first.

        Yanked files and files uploaded after the cut are treated as if they
        were not there: the answer for a given cut stays the same.
        """
        name = canonicalize_name(name)
        if name not in self._wheels:
            found = {wheel.version: wheel for wheel, tags in self._read_page(name) if any(map(_universal, tags))}
            self._wheels[name] = [found[version] for version in sorted(found)]
        return self._wheels[name]

    def wheel(self, name: str, version: Version) -> Wheel | None:
        return next((w for w in self.wheels(name) if w.version == version), None)

    def stable_abi_wheel(self, name: str, version: Version, platform: str) -> tuple[Wheel, str] | None:
        """The wheel for a platform, and the lowest Python whose stable ABI it uses, e.g. "3.8"."""
        for wheel, tags in self._read_page(canonicalize_name(name)):
            for tag in tags:
                if wheel.version == version and tag.abi == "abi3" and tag.platform == platform:
                    return wheel, f"3.{tag.interpreter.removeprefix('cp3')}"
        return None

    def contents(self, wheel: Wheel) -> Contents:
        if wheel.sha256 not in self._contents:
            self._contents[wheel.sha256] = Contents(self.download(wheel))
        return self._contents[wheel.sha256]

    def download(self, wheel: Wheel) -> pathlib.Path:
        path = self.cache / "wheels" / wheel.sha256 / wheel.filename
        if not path.exists():
            data = self._get(wheel.url)
            if hashlib.sha256(data).hexdigest() != wheel.sha256 or len(data) != wheel.size:
                raise ValueError(f"{wheel.filename}: the index serves other bytes than it lists")
            _write(path, data)
        return path

    def _read_page(self, name: str) -> Iterator[tuple[Wheel, frozenset[Tag]]]:
        path = self.cache / "pages" / urllib.parse.quote(self.url, safe="") / f"{name}.json"
        if not path.exists() or _written(path) <= self.as_of:
            try:
                _write(path, self._get(f"{self.url}/{name}/", SIMPLE))
            except urllib.error.HTTPError as err:
                if err.code != 404:
                    raise
                _write(path, b'{"files": []}')
        for file in json.loads(path.read_bytes())["files"]:
            if file.get("yanked") or file["upload-time"][:10] > self.as_of.isoformat():
                continue
            try:
                _, version, build, tags = parse_wheel_filename(file["filename"])
            except (InvalidWheelFilename, ValueError):
                continue  # an sdist, or a name older than the wheel specification
            if build:
                continue
            try:
                SpecifierSet(file.get("requires-python") or "")
            except InvalidSpecifier:
                continue
            wheel = Wheel(
                name=name,
                version=version,
                filename=file["filename"],
                url=urllib.parse.urljoin(f"{self.url}/{name}/", file["url"]),
                sha256=file["hashes"]["sha256"],
                size=file["size"],
                requires_python=file.get("requires-python") or "",
                uploaded=file["upload-time"],
            )
            yield wheel, tags

    def _get(self, url: str, accept: str = "*/*") -> bytes:
        request = urllib.request.Request(url, headers={"Accept": accept, "User-Agent": "imgwrap-catalog"})
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.read()


class Contents:
    """What the generator reads out of a wheel: metadata, entry points, modules."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        with zipfile.ZipFile(path) as archive:
            info = next(n for n in archive.namelist() if n.count("/") == 1 and n.endswith(".dist-info/METADATA"))
            self.metadata = email.message_from_bytes(archive.read(info))
            self.entry_points = self._read_entry_points(archive, info.replace("METADATA", "entry_points.txt"))
        self.requires: list[str] = self.metadata.get_all("Requires-Dist") or []
        self.requirements = [Requirement(line) for line in self.requires]
        self.requires_python: str = self.metadata.get("Requires-Python") or ""

    @staticmethod
    def _read_entry_points(archive: zipfile.ZipFile, name: str) -> dict[str, dict[str, str]]:
        if name not in archive.namelist():
            return {}
        parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
        parser.optionxform = str  # entry point names are case sensitive
        parser.read_string(archive.read(name).decode())
        return {group: dict(parser[group]) for group in parser.sections()}

    def module(self, name: str) -> str | None:
        """The source of a module or package of this wheel."""
        base = name.replace(".", "/")
        with zipfile.ZipFile(self.path) as archive:
            for path in (f"{base}.py", f"{base}/__init__.py"):
                if path in archive.namelist():
                    return archive.read(path).decode()
        return None


def _universal(tag: Tag) -> bool:
    return tag.abi == "none" and tag.platform == "any" and tag.interpreter == "py3"


def default_url() -> str:
    return os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple"


def default_cache() -> pathlib.Path:
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "imgwrap-catalog"


def _written(path: pathlib.Path) -> datetime.date:
    return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).date()


def _write(path: pathlib.Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    os.replace(file.name, path)
