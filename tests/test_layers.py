"""The architecture as a rule: imports point down, only the engine knows simpy, files stay readable."""

import ast

import pytest
from folders import ROOT

PACKAGE = ROOT / "llmsim"

# From the bottom up. A module imports from its own layer and from those before it.
LAYERS = [
    {"errors", "units", "trace", "files", "documents"},
    {"catalogue", "model"},  # an entry of the catalogue is a model's architecture
    {"cluster", "parallel"},
    {"cost", "collectives"},
    {"engine"},
    {"scenario"},
    {"program", "memory", "analysis"},
    {"economics"},
    {"simulation", "schedule", "collective", "fitting"},
    {"sweeping", "searching", "explaining", "calibration", "importing", "export", "plots", "goodput", "report"},
    {"validation", "compare"},
    {"cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
PUBLIC = {"__init__"}  # the package's front: names from everywhere, imported when they are first used


def imported(path):
    """(line, module of llmsim) of each import that is there at run time."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "llmsim":
            parts = node.module.split(".")
            yield from (
                (node.lineno, part) for part in ([parts[1]] if len(parts) > 1 else [a.name for a in node.names])
            )
        elif isinstance(node, ast.Import):
            yield from (
                (node.lineno, alias.name.split(".")[1]) for alias in node.names if alias.name.startswith("llmsim.")
            )


MODULES = sorted(PACKAGE.rglob("*.py"))


def package(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_package_has_its_layer():
    assert {package(path) for path in MODULES} - PUBLIC - set(LEVEL) == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_down(path):
    own = package(path)
    if own in PUBLIC:
        return
    wrong = [f"line {line} imports {name}" for line, name in imported(path) if LEVEL.get(name, 0) > LEVEL[own]]
    assert not wrong


def test_only_the_engine_imports_simpy():
    users = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        and "simpy" in [*(alias.name for alias in node.names), getattr(node, "module", None)]
    }
    assert users == {"engine/player.py", "engine/lane_player.py"}
