#!/usr/bin/env python3
"""Write what Python's packaging library answers about versions and specifiers.

    pip install packaging==26.3
    python generate.py [REPORT...]

versions.txt and contains.txt are read and written again: the last column of
each line is the question, the others are the answer.

    versions.txt    rank in the order of versions (equal versions have the same),
                    normalised spelling, spelling; separated by tabs
    contains.txt    one digit per version of versions.txt, one per probe, and
                    the specifiers; separated by tabs. A digit is 1 if the
                    specifiers contain the version, - if there is no such
                    version. Both are "invalid" if packaging refuses them.

The probes are versions near the bounds: for each specifier, its version without
".*", with each of PROBES appended.

To ask about another version or other specifiers, add a line with only the last
column. REPORT is what `pip install --dry-run --ignore-installed --report REPORT
...` writes: the specifiers of all Requires-Dist and Requires-Python in it are
added.
"""

import json
import pathlib
import re
import sys

import packaging
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

PROBES = ["", ".dev1", "a1", "a1.post1", "rc1", ".post1", ".post1.dev1",
          "+local.1", ".0", ".0.1", ".1rc1"]

HERE = pathlib.Path(__file__).parent


def questions(name):
    lines = (HERE / name).read_text().splitlines()
    return [l.split("\t")[-1] for l in lines if not l.startswith("#")]


def write(name, lines):
    made_by = f"# made by generate.py with packaging {packaging.__version__}"
    (HERE / name).write_text("\n".join([made_by, *lines]) + "\n")


def reported(paths):
    for path in paths:
        for item in json.loads(pathlib.Path(path).read_text())["install"]:
            metadata = item["metadata"]
            yield metadata.get("requires_python", "")
            for line in metadata.get("requires_dist", []):
                requirement = re.sub(r"^\s*[\w.-]+\s*(\[.*?\])?", "", line.split(";")[0])
                if "@" not in requirement:
                    yield requirement.strip(" ()")


def contains(specifiers, text):
    try:
        return str(int(specifiers.contains(Version(text), prereleases=True)))
    except InvalidVersion:
        return "-"


def answer(text, versions):
    try:
        specifiers = SpecifierSet(text)
    except InvalidSpecifier:
        return f"invalid\tinvalid\t{text}"
    parts = [p.strip() for p in text.split(",") if p.strip()]
    bounds = [p.lstrip("=<>!~").strip().removesuffix(".*") for p in parts]
    probes = [bound + probe for bound in bounds for probe in PROBES]
    return "\t".join(["".join(contains(specifiers, v) for v in versions),
                      "".join(contains(specifiers, p) for p in probes), text])


def main():
    versions = sorted(set(questions("versions.txt")), key=lambda v: (Version(v), v))
    distinct = sorted({Version(v) for v in versions})
    write("versions.txt",
          [f"{distinct.index(Version(v))}\t{Version(v)}\t{v}" for v in versions])

    specifiers = set(questions("contains.txt")) | set(reported(sys.argv[1:]))
    write("contains.txt", [answer(s, versions) for s in sorted(specifiers)])


main()
