"""Tests of the generator on a small made-up index: python3 -m unittest (needs packaging)."""

import datetime
import hashlib
import io
import json
import pathlib
import tempfile
import unittest
import urllib.error
import zipfile

from packaging.version import Version

import generate
import lock as locking
from index import Index

RELEASE = locking.Release(Version("1.20.0"), Version("0.41b0"))
TABLE = """
libraries = {
    "flask": {"library": "flask >= 1.0, < 3.0", "instrumentation": "opentelemetry-instrumentation-flask==0.41b0"},
    "tortoise-orm": {"library": "tortoise-orm >= 0.17.0", "instrumentation": "opentelemetry-instrumentation-tortoiseorm==0.41b0"},
    "pydantic": {"library": "pydantic >= 1.10.2", "instrumentation": "opentelemetry-instrumentation-tortoiseorm==0.41b0"},
    "vertexai": {"library": "vertexai", "instrumentation": "opentelemetry-instrumentation-vertexai>=2.0b0"},
}
default_instrumentations = ["opentelemetry-instrumentation-urllib==0.41b0"]
"""


class FakeIndex(Index):
    """An index in memory, with every distribution that RELEASE needs."""

    def __init__(self, cache: str):
        super().__init__("https://index.test/simple", pathlib.Path(cache), datetime.date(2024, 1, 1))
        self.files: dict[str, list[dict]] = {}
        self.blobs: dict[str, bytes] = {}
        for name in (
            "distro",
            "propagator-ot-trace",
            "instrumentation-flask",
            "instrumentation-tortoiseorm",
            "instrumentation-urllib",
        ):
            self.add(f"opentelemetry-{name}", "0.41b0", ["opentelemetry-instrumentation==0.41b0"])
        for name in ("propagator-b3", "propagator-jaeger"):
            self.add(f"opentelemetry-{name}", "1.20.0")
        self.add("opentelemetry-propagator-aws-xray", "1.0.1", uploaded="2022-05-05")
        self.add("opentelemetry-propagator-aws-xray", "1.0.2", uploaded="2023-11-11")
        self.add(
            "opentelemetry-exporter-otlp-proto-http",
            "1.20.0",
            ["opentelemetry-sdk~=1.20.0", "shared", "other>=1.0"],
            python=">=3.8",
        )
        self.add("opentelemetry-sdk", "1.20.0", ["opentelemetry-semantic-conventions==0.41b0"])
        self.add("opentelemetry-semantic-conventions", "0.41b0")
        self.add(
            "opentelemetry-instrumentation",
            "0.41b0",
            modules={
                "opentelemetry/instrumentation/bootstrap_gen.py": TABLE,
                "opentelemetry/instrumentation/environment_variables.py": "from x import OTEL_Z\nOTEL_A = 'OTEL_A'\nif OTEL_A:\n    OTEL_M: str = 'OTEL_M'\nN = 1",
            },
            entry_points="[opentelemetry_environment_variables]\ninstrumentation = opentelemetry.instrumentation.environment_variables\n",
        )
        self.add("shared", "1.0")
        self.add("other", "1.0")

    def add(
        self,
        name,
        version,
        requires=(),
        python=">=3.7",
        uploaded="2023-09-09",
        modules=None,
        entry_points="",
        platform="any",
        yanked=False,
    ):
        stem = f"{name.replace('-', '_')}-{version}"
        blob = io.BytesIO()
        with zipfile.ZipFile(blob, "w") as archive:
            lines = [f"Requires-Python: {python}", *(f"Requires-Dist: {line}" for line in requires)]
            archive.writestr(f"{stem}.dist-info/METADATA", "\n".join(lines) + "\n\nA description.\n")
            archive.writestr(f"{stem}.dist-info/entry_points.txt", entry_points)
            for path, source in (modules or {}).items():
                archive.writestr(path, source)
        data = blob.getvalue()
        filename = f"{stem}-py3-none-{platform}.whl"
        url = f"https://index.test/{filename}"
        self.blobs[url] = data
        self.files.setdefault(name, []).append(
            {
                "filename": filename,
                "url": url,
                "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
                "size": len(data),
                "requires-python": python,
                "upload-time": f"{uploaded}T00:00:00Z",
                "yanked": yanked,
            }
        )

    def _get(self, url, accept="*/*"):
        if url in self.blobs:
            return self.blobs[url]
        name = url.rstrip("/").rpartition("/")[2]
        if name not in self.files:
            raise urllib.error.HTTPError(url, 404, "Not Found", None, None)
        return json.dumps({"files": self.files[name]}).encode()


class Test(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.index = FakeIndex(folder.name)

    def versions(self):
        return {name: str(wheel.version) for name, wheel in locking.lock(self.index, RELEASE).wheels.items()}

    def test_releases_are_paired_by_the_sdk(self):
        self.assertEqual(locking.releases(self.index), [RELEASE])

    def test_release(self):
        lock = locking.lock(self.index, RELEASE)
        self.assertEqual((lock.pythons[0], lock.pythons[-1]), ("3.8", "3.14"))
        self.assertEqual(
            lock.table.libraries,
            {
                "opentelemetry-instrumentation-flask": ["flask >= 1.0, < 3.0"],
                "opentelemetry-instrumentation-tortoiseorm": ["tortoise-orm >= 0.17.0"],
            },
        )
        self.assertEqual(lock.table.always, {"opentelemetry-instrumentation-urllib"})
        self.assertEqual(str(lock.wheels["opentelemetry-propagator-aws-xray"].version), "1.0.1")

    def test_a_missing_distribution_makes_a_release_incomplete(self):
        del self.index.files["opentelemetry-instrumentation-flask"]
        with self.assertRaisesRegex(locking.Incomplete, "lacks opentelemetry-instrumentation-flask$"):
            locking.lock(self.index, RELEASE)

    def test_what_cannot_be_used_is_not_there(self):
        self.index.add("shared", "2.0", yanked=True)
        self.index.add("shared", "3.0", uploaded="2024-01-02")
        self.index.add("shared", "4.0", platform="linux_x86_64")
        self.index.add("shared", "5.0", python=">=3.9")
        self.index.add("shared", "6.0rc1")
        self.assertEqual(self.versions()["shared"], "1.0")

    def test_the_newest_of_those_that_ask_the_least(self):
        self.index.add("other", "2.0")
        self.index.add("shared", "1.1", ["other"])
        self.index.add("shared", "1.2", ["other>=1.0"])
        self.index.add("shared", "1.3", ["other>=2.0"])
        self.assertEqual(self.versions()["shared"], "1.2")

    def test_a_dependency_of_any_python_served(self):
        self.index.add("old", "1.0")
        self.index.add("new", "1.0")
        self.index.files["shared"].clear()
        self.index.add(
            "shared",
            "1.0",
            ['old; python_version < "3.9"', 'new; python_version >= "3.14"', 'gone; python_version < "3.8"'],
        )
        self.assertLessEqual({"old", "new"}, self.versions().keys())

    def test_extras(self):
        self.index.add("wanted", "1.0")
        self.index.files["other"].clear()
        self.index.add("other", "1.0", ["shared[fast]"])
        self.index.files["shared"].clear()
        self.index.add("shared", "1.0", ['wanted; extra == "fast"', 'gone; extra == "test"'])
        versions = self.versions()
        self.assertIn("wanted", versions)
        self.assertNotIn("gone", versions)

    def test_a_contradiction_is_reported(self):
        self.index.files["shared"].clear()
        self.index.add("shared", "1.0", ["other<1.0"])
        with self.assertRaisesRegex(locking.Incomplete, "no universal wheel of other"):
            locking.lock(self.index, RELEASE)

    def test_render(self):
        lock = locking.lock(self.index, RELEASE)
        text = generate.render(self.index, lock, {})
        self.assertEqual(text, generate.render(self.index, lock, json.loads(text)))
        release = json.loads(text)
        self.assertEqual(release["environment"], ["OTEL_A", "OTEL_M", "OTEL_Z"])
        self.assertEqual(release["layer"], {})

        release["layer"] = {"digest": "sha256:1"}
        release["natives"] = {"amd64": {"layer": {"digest": "sha256:2"}}}
        again = json.loads(generate.render(self.index, lock, release))
        self.assertEqual((again["layer"], again["natives"]), (release["layer"], release["natives"]))
        release["distributions"][0]["sha256"] = "0" * 64
        again = json.loads(generate.render(self.index, lock, release))
        self.assertEqual((again["layer"], again["natives"]), ({}, {}))


if __name__ == "__main__":
    unittest.main()
