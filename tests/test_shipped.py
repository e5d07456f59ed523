"""What comes with llmsim is found by name from any folder; scenarios by path first; `-` is standard input."""

import io
import subprocess
import sys
from importlib.metadata import metadata
from types import SimpleNamespace

import pytest
from folders import ROOT

import llmsim
from llmsim.catalogue.shipped import shipped
from llmsim.cli import main
from llmsim.cluster.reading.load import load_topology, topologies
from llmsim.errors import LlmsimError
from llmsim.studies.sweep.file import load_sweep

QUICK = (ROOT / "scenarios" / "quickstart.yaml").read_text("utf-8")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty folder, in which nothing of the checkout is at hand."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", ["scenarios", "topologies"])
def test_all_files_at_the_top_of_the_repository_have_names(kind):
    assert list(shipped(kind)) == sorted(file.stem for file in (ROOT / kind).iterdir())


@pytest.mark.parametrize("name", [name for name in shipped("scenarios") if not name.startswith("sweep-")])
def test_scenarios_by_name(name):
    assert llmsim.load_scenario(name).resolve() == llmsim.load_scenario(ROOT / "scenarios" / f"{name}.yaml").resolve()


def test_topologies_by_name():
    assert topologies() == list(shipped("topologies"))
    for name in topologies():
        assert load_topology(name).name == name


def test_ones_own_topologies_come_first(elsewhere):
    (elsewhere / "topologies").mkdir()
    text = shipped("topologies")["dgx-h100"].read_text("utf-8")
    (elsewhere / "topologies" / "ours.yaml").write_text(text)
    (elsewhere / "topologies" / "dgx-a100.yaml").write_text(text)
    assert "ours" in topologies() and load_topology("ours").node.gpu == "h100-sxm"
    assert load_topology("dgx-a100").node.gpu == "h100-sxm"


def test_a_sweep_by_name_names_a_scenario_by_its_path_or_name(elsewhere):
    found = load_sweep("sweep-cluster-size")
    assert found.scenario.name == "quickstart" and len(found.points) > 1
    (elsewhere / "mine.yaml").write_text("scenario: slow-network\npoints: [{cluster.nodes: 2}]\n")
    assert load_sweep("mine.yaml").scenario.name == "slow-network"


def test_a_path_comes_before_a_name(elsewhere):
    (elsewhere / "quickstart").write_text(QUICK.replace("name: quickstart", "name: mine"))
    assert llmsim.load_scenario("quickstart").name == "mine"
    (elsewhere / "bubble-study").mkdir()  # a folder of results, say, is no scenario
    assert llmsim.load_scenario("bubble-study").name == "bubble-study"


def test_a_dash_is_standard_input(monkeypatch):
    def piped(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))

    piped(QUICK.replace("name: quickstart", "name: piped"))
    assert llmsim.load_scenario("-").name == "piped"
    piped("scenario: quickstart\ngrid: {cluster.nodes: [1, 2]}\n")
    assert len(load_sweep("-").points) == 2
    piped(QUICK + "more: 1\n")
    with pytest.raises(LlmsimError, match=rf"^standard input:{QUICK.count(chr(10)) + 1}: more: unknown key"):
        llmsim.load_scenario("-")


def test_a_sweep_is_no_scenario():
    words = r"sweep-cluster-size.yaml: this is a sweep, not a scenario; run it with `llmsim sweep sweep-cluster-size "
    with pytest.raises(LlmsimError, match=words):
        llmsim.load_scenario("sweep-cluster-size")


def test_the_list_of_scenarios_says_what_each_is(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["scenarios"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert "quickstart" in shown and "LLaMA 2 7B on one DGX H100" in shown and "sweep-" not in shown


def test_the_version_is_the_same_everywhere():
    assert metadata("llmsim")["Version"] == llmsim.__version__
    assert f"\nversion: {llmsim.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\n## [{llmsim.__version__}]\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    ran = subprocess.run([sys.executable, "-m", "llmsim", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"llmsim {llmsim.__version__}\n"
