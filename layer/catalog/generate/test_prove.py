"""Tests of prove.py, all but the runs themselves."""

import contextlib
import io
import json
import struct
import unittest

from packaging.version import Version

import prove
from index import Wheel


def wheel(version, python=""):
    return Wheel("a", Version(version), f"a-{version}-py3-none-any.whl", "", "", 0, python, "2026-01-01")


def field(number, value):
    """One field of a protobuf message; none of the lengths here needs two bytes."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    if isinstance(value, float):
        return bytes([number << 3 | 1]) + struct.pack("<d", value)
    return bytes([number << 3 | 2, len(value)]) + value


class Versions(unittest.TestCase):
    def test_ends(self):
        wheels = [wheel(v) for v in ("1.0", "1.0.1", "1.0.2", "1.1.1", "2.0.0", "2.0.9")]
        self.assertEqual([str(w.version) for w in prove.ends(wheels)], ["1.0", "1.0.2", "1.1.1", "2.0.0", "2.0.9"])

    def test_order(self):
        pythons = ["3.8", "3.9", "3.10", "3.13"]
        self.assertEqual(prove.order(wheel("1.0"), pythons), ["3.8", "3.13", "3.10", "3.9"])
        self.assertEqual(prove.order(wheel("1.0", ">=3.9"), pythons), ["3.9", "3.13", "3.10"])
        self.assertEqual(prove.order(wheel("1.0", ">=3.14"), pythons), [])

    def test_core_bounds(self):
        requires = dict.fromkeys([*prove.locking.CORE, *prove.locking.PROPAGATORS], ())
        requires["opentelemetry-distro"] = ["opentelemetry-sdk", "b<3", 'gone; python_version < "3.7"', 'c; extra == "x"']
        requires["opentelemetry-sdk"] = ["b>=1"]
        requires["opentelemetry-instrumentation-a"] = ["b>=2"]
        requires["b"] = ['d<1; python_version >= "3.14"']
        requires["d"] = ()
        release = {
            "python": {"min": "3.8", "max": "3.14"},
            "distributions": [{"name": name, "requires": lines} for name, lines in requires.items()],
        }
        self.assertEqual({n: str(s) for n, s in prove.core_bounds(release).items()}, {"b": "<3,>=1", "d": "<1"})

    def test_walk(self):
        """Two failures in a row end it; the highest Python that works is found."""
        wheels = [wheel(v) for v in ("4.0", "3.0", "2.0", "1.0", "0.1")]
        faults = {("3.0", "3.13"): "f", ("2.0", "3.8"): "f", ("1.0", "3.8"): "f"}

        class Bench:
            def run(self, release, python, app):
                return faults.get((app["a"], python))

        with contextlib.redirect_stdout(io.StringIO()):
            outcomes = prove.walk(Bench(), {"version": "1.45.1"}, ["3.8", "3.12", "3.13"], wheels)
        self.assertEqual(
            [(o.version, o.python, o.fault) for o in outcomes],
            [
                ("4.0", "3.8", None),
                ("4.0", "3.13", None),
                ("3.0", "3.8", None),
                ("3.0", "3.13", "f"),
                ("3.0", "3.12", None),
                ("2.0", "3.8", "f"),
                ("1.0", "3.8", "f"),
            ],
        )

    def test_proven_json_is_what_it_renders(self):
        text = prove.PROVEN.read_text()
        self.assertEqual(prove.render(json.loads(text)), text)

    def test_read_release(self):
        for version in ("1.28.1", "1.45.1"):
            self.assertEqual(prove.read_release(version)["version"], version)


class Received(unittest.TestCase):
    def test_decode(self):
        message = field(1, 5) + field(2, b"ab") + field(2, b"") + field(3, 0.5)
        self.assertEqual(prove.decode(message), {1: [5], 2: [b"ab", b""], 3: [struct.pack("<d", 0.5)]})
        self.assertEqual(prove.decode(b"\x08\x96\x01"), {1: [150]})
        for broken in (b"\x08", b"\x12\x02a", b"\x0b"):
            with self.assertRaises((IndexError, ValueError, KeyError)):
                prove.decode(broken)

    def test_any_value(self):
        self.assertEqual(prove.any_value(field(1, "ï".encode())), "ï")
        self.assertIs(prove.any_value(field(2, 1)), True)
        self.assertEqual(prove.any_value(b"\x18" + b"\xff" * 9 + b"\x01"), -1)
        self.assertEqual(prove.any_value(field(4, 0.5)), 0.5)
        self.assertEqual(prove.any_value(field(5, field(1, field(1, b"a")))), ["a"])

    def test_nothing_is_a_fault(self):
        with prove.Receiver() as receiver:
            self.assertEqual(receiver.fault(set()), "0 and 0 of 256 spans arrived")
            receiver.bodies["/v1/traces"] = [b"\x0a\x05no"]
            self.assertRegex(receiver.fault(set()), "is not OTLP")


if __name__ == "__main__":
    unittest.main()
