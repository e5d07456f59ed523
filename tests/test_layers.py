"""The architecture as a rule: imports point down, there are no circles, and only the engine knows simpy.

The floors are in pyproject.toml ([tool.importlinter]); `lint-imports` says the same on the command line.
"""

import tomllib

from folders import ROOT
from importlinter.cli import lint_imports

CONFIGURATION = ROOT / "pyproject.toml"
CONTRACTS = tomllib.loads(CONFIGURATION.read_text("utf-8"))["tool"]["importlinter"]["contracts"]


def test_every_import_keeps_to_the_floors(capsys):
    assert lint_imports(config_filename=str(CONFIGURATION), no_cache=True) == 0, capsys.readouterr().out


def test_the_rule_about_simpy_is_for_all_but_the_engine():
    (rule,) = (contract for contract in CONTRACTS if contract.get("forbidden_modules") == ["simpy"])
    package = ROOT / "llmsim"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")} | {path.stem for path in package.glob("*.py")}
    named = {name.removeprefix("llmsim.") for name in rule["source_modules"]}
    assert named == rooms - {"__init__", "engine"}
