"""Tests of native.py, all but the runs themselves."""

import contextlib
import io
import json
import pathlib
import tempfile
import unittest
import unittest.mock
import zipfile

from packaging.version import Version

import native
from index import Wheel


class Index:
    """An index with one version of protobuf."""

    def __init__(self, folder: pathlib.Path, **native_files: str):
        self.folder = folder
        common = {"google/protobuf/a.py": "a = 1\n", "protobuf-5.0.dist-info/METADATA": "Name: protobuf\n"}
        self._add("any", common | {"protobuf-5.0.dist-info/WHEEL": "any"})
        for platform in ("manylinux2014_x86_64", "manylinux2014_aarch64"):
            self._add(platform, common | {native.MODULE: platform, "protobuf-5.0.dist-info/WHEEL": platform} | native_files)

    def _add(self, platform: str, files: dict[str, str]):
        with zipfile.ZipFile(self.folder / platform, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)

    def _wheel(self, platform: str) -> Wheel:
        return Wheel("protobuf", Version("5.0"), platform, "", "0", 1, "", "2026-01-01")

    def wheel(self, name, version):
        return self._wheel("any")

    def stable_abi_wheel(self, name, version, platform):
        return self._wheel(platform), "3.8"

    def download(self, wheel):
        return self.folder / wheel.filename


class Native(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.enterContext(contextlib.redirect_stdout(io.StringIO()))

    def test_lock(self):
        found = native.lock(Index(self.folder), Version("5.0"))
        self.assertEqual({arch: module for arch, (_, module) in found.items()}, {
            "amd64": b"manylinux2014_x86_64",
            "arm64": b"manylinux2014_aarch64",
        })

    def test_other_python_files_are_refused(self):
        for files in ({"google/protobuf/a.py": "a = 2\n"}, {"google/protobuf/b.py": ""}):
            self.assertEqual(native.lock(Index(self.folder, **files), Version("5.0")), {})

    def test_the_range_ends_at_the_first_failure(self):
        releases = [{"version": "1.0", "python": {"min": "3.7", "max": "3.13"}}]
        bench = unittest.mock.Mock(pythons=["3.7", "3.8", "3.9", "3.10", "3.11", "3.12"])
        for failed, want in (
            (set(), {"min": "3.8", "max": "3.12"}),
            ({"3.10"}, {"min": "3.8", "max": "3.9"}),
            ({"3.8"}, None),
        ):
            found = native.lock(Index(self.folder), Version("5.0"))
            with (
                unittest.mock.patch.object(native, "read_release"),
                unittest.mock.patch.object(native, "failures", return_value=failed),
            ):
                self.assertEqual(native.prove(bench, None, releases, found), want)

    def test_render(self):
        natives = {"5.0": {"amd64": {"wheel": "a.whl"}, "arm64": {"wheel": "b.whl"}}}
        text = native.render(natives)
        self.assertEqual(json.loads(text), natives)
        self.assertEqual(text.count("\n"), 6)


if __name__ == "__main__":
    unittest.main()
