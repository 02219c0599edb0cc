"""Tests of what instrumentations wait for: python3 -m unittest (needs packaging)."""

import pathlib
import tempfile
import unittest
import zipfile

import modules

IMPORTS = {name: set(listed) for name, (listed, _) in modules.CHOSEN.items()}


class ModulesTest(unittest.TestCase):
    def test_imported(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "x.whl"
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("x/__init__.py", "import a.b as c, d\nfrom . import e\nfrom .f import g\n")
                archive.writestr("x/y.py", "def h():\n    from urllib import request\n")
                archive.writestr("x/data.txt", "import z")
            self.assertEqual(modules.imported(path), {"a", "a.b", "d", "urllib", "urllib.request"})

    def test_choose(self):
        chosen = modules.choose(IMPORTS | {"flask": {"flask", "flask.cli", "os", "wrapt", "opentelemetry"}})
        self.assertEqual(chosen["flask"], ["flask"])
        self.assertEqual(chosen["click"], ["click", "flask"])
        self.assertEqual(chosen["exceptions"], [])

    def test_choose_refuses(self):
        for added, message in (
            ({"new": {"one", "two"}}, "new imports one, two"),
            ({"new": {"os"}}, "new imports no library"),
            ({"click": {"click"}}, "click imports no flask in any release"),
        ):
            with self.subTest(message), self.assertRaisesRegex(ValueError, message):
                modules.choose(IMPORTS | added)
        without = {name: listed for name, listed in IMPORTS.items() if name != "boto3"}
        with self.assertRaisesRegex(ValueError, "no release has boto3"):
            modules.choose(without)


if __name__ == "__main__":
    unittest.main()
