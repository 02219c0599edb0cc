#!/usr/bin/env python3
"""Write what Python's packaging library answers about requirements and markers.

    pip install packaging==26.3
    python generate.py [REPORT...]

markers.txt and requirements.txt are read and written again: what follows the
last tab of each line is the question, the rest is the answer.

    markers.txt       one digit for each of MINORS x MACHINES x extras, 1 if the
                      marker holds in that environment, and the marker. The
                      extras are none and the one the marker compares "extra"
                      with ("test" if it does not).
    requirements.txt  name, extras, specifiers, URL, "marker" if it has one, and
                      the requirement. Lists are sorted and joined by commas.

The first column is "invalid" if packaging refuses to parse or evaluate.

To ask something else, add a line with only the last column. REPORT is what `pip
install --dry-run --ignore-installed --report REPORT ...` writes: the
requirements in it that differ in more than names and numbers from those before
are added.
"""

import json
import pathlib
import re
import sys

import packaging
from packaging.markers import Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement

MINORS = range(7, 15)
MACHINES = ["x86_64", "aarch64"]

HERE = pathlib.Path(__file__).parent


def environments(extra):
    for minor in MINORS:
        for machine in MACHINES:
            for e in ("", extra):
                yield {
                    "python_version": f"3.{minor}",
                    "python_full_version": f"3.{minor}.2",
                    "implementation_version": f"3.{minor}.2",
                    "implementation_name": "cpython",
                    "platform_python_implementation": "CPython",
                    "os_name": "posix",
                    "sys_platform": "linux",
                    "platform_system": "Linux",
                    "platform_machine": machine,
                    "platform_release": "",
                    "platform_version": "",
                    "extra": e,
                }


def answer_marker(text):
    extra = re.search(r"""extra\s*==\s*['"]([^'"]+)""", text)
    try:
        marker = Requirement("x; " + text).marker
        answers = [marker.evaluate(env)
                   for env in environments(extra[1] if extra else "test")]
    except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName):
        return f"invalid\t{text}"
    return "".join(str(int(a)) for a in answers) + "\t" + text


def answer_requirement(text):
    try:
        r = Requirement(text)
    except InvalidRequirement:
        return f"invalid\t\t\t\t\t{text}"
    return "\t".join([r.name, ",".join(sorted(r.extras)),
                      ",".join(sorted(str(s) for s in r.specifier)),
                      r.url or "", "marker" if r.marker else "", text])


def questions(name):
    lines = (HERE / name).read_text().splitlines()
    return {l.split("\t")[-1] for l in lines if not l.startswith("#")}


def write(name, lines):
    made_by = f"# made by generate.py with packaging {packaging.__version__}"
    (HERE / name).write_text("\n".join([made_by, *lines]) + "\n")


def reported(paths):
    for path in paths:
        for item in json.loads(pathlib.Path(path).read_text())["install"]:
            yield from item["metadata"].get("requires_dist", [])


def main():
    markers, requirements = questions("markers.txt"), questions("requirements.txt")
    seen = set()

    def new(shape):
        return shape not in seen and not seen.add(shape)

    for r in reported(sys.argv[1:]):
        marker = r.partition(";")[2].strip()
        shape = re.sub(r"""(extra\s*==\s*)(['"])[^'"]+""", r"\1\2", marker)
        if marker and new(shape):
            markers.add(marker)
        shape = re.sub(r"""(['"]).*?\1""", r"\1\1", r)
        shape = re.sub(r"[\w.*+!]+", "w", shape)
        if new(shape):
            requirements.add(r)

    write("markers.txt", map(answer_marker, sorted(markers)))
    write("requirements.txt", map(answer_requirement, sorted(requirements)))


main()
