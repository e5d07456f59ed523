"""README.md tells no figures that llmsim does not give."""

import re

import pytest
from folders import ROOT

import llmsim

PAGE = (ROOT / "README.md").read_text("utf-8")
ROWS = re.findall(r"^\| `([\w-]+)` \| .+ \| ([\d.,]+) ([\w/]+) \|$", PAGE, re.MULTILINE)
METRIC = {"TFLOP/s": "model_tflops_per_gpu", "s": "iteration_time_s", "tokens/s": "tokens_per_s_per_gpu"}


def test_scenarios_have_figures():
    assert len(ROWS) >= 9 and {unit for _, _, unit in ROWS} == set(METRIC)


@pytest.mark.slow
@pytest.mark.parametrize("name, figure, unit", ROWS, ids=[row[0] for row in ROWS])
def test_figures_are_what_comes_out(name, figure, unit):
    """Within 4 %: the table is not rewritten for every change of a constant."""
    scenario = llmsim.load_scenario(ROOT / "scenarios" / f"{name}.yaml", {"simulation.detail": "block"})
    metric = METRIC[unit]
    if name.startswith("gpt3"):
        metric = "hardware_tflops_per_gpu"  # as its paper counts
    assert llmsim.simulate(scenario).metrics[metric] == pytest.approx(float(figure.replace(",", "")), rel=0.04)
