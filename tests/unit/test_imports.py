"""Who imports whom: no circle among files, one direction among rooms.

All imports count, also those for types alone and those within functions: a circle that Python gets round is one still
for who reads the files.
"""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

import assetbatch

PACKAGE = Path(assetbatch.__file__).parent

# From the top: a room imports from rooms that stand on a line below its own, and never from its neighbours.
ROOMS = """
__main__
cli
report arrow
stream
jobs
deployment events pings sandbox
database
schedule
provider config
installed bars
bar_series
planner
market_hours
plans
markets
model
failures
processes threads
errors calendars
words
boottime version
"""


def name_of(path: Path) -> str:
    parts = ("assetbatch", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def imports() -> dict[str, set[str]]:
    """Return for each module those of ours that it imports; a name out of a package is the package's."""
    files = {name_of(path): path for path in PACKAGE.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        wanted = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}: a relative import"
                whole = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
                wanted |= {module if module in files else str(node.module) for module in whole.values()}
        found[name] = wanted & files.keys() - {name}
    return found


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the modules of each circle: those that reach one another."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        ahead = list(graph[start])
        while ahead:
            if (name := ahead.pop()) not in seen:
                seen.add(name)
                ahead += graph[name]
        reached[start] = seen
    found = {
        frozenset(other for other in reached[name] if name in reached[other]) for name in graph if name in reached[name]
    }
    return sorted(sorted(circle) for circle in found)


def room_of(module: str) -> str:
    return [*module.split("."), "version"][1]


def test_no_files_import_one_another() -> None:
    found = circles(imports())
    assert not found, "\n".join(" <-> ".join(circle) for circle in found)


def test_rooms_import_from_those_below_them() -> None:
    height = {room: place for place, line in enumerate(ROOMS.split("\n")) for room in line.split()}
    graph = imports()
    unknown = {room_of(module) for module in graph} - height.keys()
    assert not unknown, f"where do these stand? {unknown}"
    upwards = [
        f"{module} imports {other}"
        for module, others in sorted(graph.items())
        for other in sorted(others)
        if room_of(module) != room_of(other) and height[room_of(module)] >= height[room_of(other)]
    ]
    assert not upwards, "\n".join(upwards)


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert circles(graph) == [["a", "b", "c"], ["d", "e"]]
