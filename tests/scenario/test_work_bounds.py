"""What would take hours is refused in one sentence, and what need not take long does not."""

import pytest

from llmsim.cluster.node import node_template
from llmsim.cluster.reading.load import load_topology
from llmsim.economics.budget import budget_flops
from llmsim.errors import ScheduleError, UserError
from llmsim.parallel.schedules import schedule


@pytest.mark.parametrize("name", ["1f1b", "zb-auto", "dualpipe"])
def test_a_schedule_of_too_many_passes_is_refused(name):
    with pytest.raises(ScheduleError, match=r"20,000,000,000 passes; expected at most 200,000"):
        schedule(name, 100_000, 100_000)


@pytest.mark.parametrize("days", [0, -1, 1e9, float("nan"), float("inf")])
def test_a_budget_of_no_days_or_of_millennia_is_refused(days):
    with pytest.raises(UserError, match="expected more than 0 and at most 36,500"):
        budget_flops(days, 8, 1e15)


def test_paths_of_a_full_mesh_are_the_direct_links():
    node = node_template(load_topology("dgx-h100", {"node.gpus": 256, "node.scale_up": "full-mesh"}))
    assert node.within.shape == (256, 256, 1)
    assert node.edges[node.within[3, 200, 0]].name == "gpu3->gpu200"
