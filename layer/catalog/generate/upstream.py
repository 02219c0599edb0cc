"""What the wheels of a release say about themselves, read without running them."""

from __future__ import annotations

import ast
import dataclasses

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from index import Contents

# Rows of the bootstrap table that are left out: (instrumentation, library).
FALSE_ROWS = {
    # Tortoise ORM uses pydantic, but pydantic does not mean Tortoise ORM: the
    # instrumentation imports tortoise, and up to 0.48b0 the ImportError ends
    # the loading of every instrumentation after it. Later it is skipped, so it
    # does no harm, and no good either. Tortoise ORM has a row of its own.
    ("opentelemetry-instrumentation-tortoiseorm", "pydantic"),
}


@dataclasses.dataclass
class Table:
    """The bootstrap table: which libraries select which instrumentations."""

    libraries: dict[str, list[str]]  # by normalised distribution name
    always: set[str]  # normalised distribution names


def read_table(instrumentation: Contents, contrib: Version) -> Table:
    """Reads bootstrap_gen of opentelemetry-instrumentation.

    Rows that point outside the release (vertexai, openai-v2) are left out.
    """
    source = instrumentation.module("opentelemetry.instrumentation.bootstrap_gen")
    values = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            values[node.targets[0].id] = ast.literal_eval(node.value)
    rows = values["libraries"]
    if isinstance(rows, dict):  # until 0.41b0, keyed by the library's name
        rows = rows.values()
    libraries: dict[str, list[str]] = {}
    for row in rows:
        name = _pinned(row["instrumentation"], contrib)
        library = canonicalize_name(Requirement(row["library"]).name)
        if name is not None and (name, library) not in FALSE_ROWS:
            libraries.setdefault(name, []).append(row["library"])
    always = {_pinned(line, contrib) for line in values["default_instrumentations"]}
    return Table(libraries, always - {None})


def _pinned(line: str, contrib: Version) -> str | None:
    requirement = Requirement(line)
    if str(requirement.specifier) != f"=={contrib}":
        return None
    return canonicalize_name(requirement.name)


def instruments(contents: Contents, extra: str) -> list[str]:
    """The requirements of an extra, without the marker that names it."""
    found = []
    for requirement in contents.requirements:
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        if str(requirement.marker) != f'extra == "{extra}"':
            raise ValueError(f"{contents.path.name}: {requirement} depends on more than its extra")
        found.append(str(requirement).partition(";")[0].strip())
    return found


def environment(wheels: list[Contents]) -> list[str]:
    """The variables that opentelemetry-instrument takes as options.

    As upstream: over the modules of the entry point group, then dir() of each,
    which is sorted and holds imported names too. Upstream goes through the
    distributions as the directory lists them; here they are sorted.
    """
    found: dict[str, None] = {}
    for contents in wheels:
        for module in contents.entry_points.get("opentelemetry_environment_variables", {}).values():
            source = contents.module(module)
            if source is None:
                raise ValueError(f"{contents.path.name} has no module {module}")
            found.update(dict.fromkeys(sorted(n for n in _bound(ast.parse(source)) if n.startswith("OTEL_"))))
    return list(found)


def _bound(module: ast.Module) -> set[str]:
    """The names that the top level of a module binds."""
    names = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    if "*" in names:
        raise ValueError("a star import hides which variables there are")
    return names
