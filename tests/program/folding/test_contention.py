"""Contention on fabrics: folded equals unfolded, others' traffic, hashed routes, rank placement."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llmsim
from llmsim.errors import ScenarioError
from llmsim.program.build import build_program
from llmsim.program.physics import physics_of

TINY = {"layers": 8, "hidden": 1024, "heads": 16, "ffn_hidden": 4096, "vocab": 32000}
EXPERTS = {**TINY, "moe": {"experts": 8, "top_k": 2, "expert_ffn_hidden": 1024}}


def scenario(**parts):
    base = {
        "name": "small-fabric",
        "model": TINY,
        "cluster": {"topology": "dgx-a100", "nodes": 4, "gpus_per_node": 4},
        "parallelism": {},
        "training": {"seq_len": 1024, "global_batch": 16},
    }
    for key, value in parts.items():
        base[key] = {**base[key], **value} if key in base and isinstance(base[key], dict) else value
    return llmsim.Scenario(**base)


def run(**parts):
    return llmsim.simulate(scenario(**parts)).metrics


@st.composite
def fabrics(draw):
    """A small cluster with narrow places, and what goes wrong on it."""
    overrides = {
        "network.kind": draw(st.sampled_from(["fat-tree", "leaf-spine"])),
        "network.leaf_nodes": draw(st.sampled_from([1, 2])),
        "network.oversubscription": draw(st.sampled_from([1, 2, 8])),
        "network.rail_optimised": draw(st.booleans()),
    }
    cluster = {"overrides": overrides, "routing": draw(st.sampled_from(["ideal", "ecmp-hash"]))}
    if draw(st.booleans()):
        cluster["rank_map"] = draw(st.sampled_from(["round-robin", tuple(draw(st.permutations(range(16))))]))
    found = []
    for _ in range(draw(st.integers(0, 2))):
        node, number = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        if draw(st.booleans()):
            found.append({"kind": "slow_gpu", "gpu": f"node{node}.gpu{number}", "factor": draw(st.floats(0.3, 0.9))})
        else:
            found.append({"kind": "slow_link", "link": f"node{node}.nic{number}", "factor": draw(st.floats(0.2, 0.9)),
                          "from": draw(st.sampled_from([0.0, 0.002]))})  # fmt: skip
    others = draw(st.lists(st.sampled_from(["node1", "node2.gpu1", "node3"]), max_size=2, unique=True))
    background = [{"from": "node0", "to": place, "rate": draw(st.floats(5e9, 2e11))} for place in others]
    return {"cluster": cluster, "faults": found, "background": background}


LAYOUTS = [
    {"tp": 2, "pp": 2},
    {"tp": 4, "pp": 4},
    {"tp": 1, "pp": 1, "zero": 3},
    {"tp": 2, "cp": 2, "pp": 2, "zero": 1},
    {"tp": 1, "pp": 2, "order": ["tp", "cp", "ep", "pp", "dp"]},
]


@pytest.mark.slow
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(LAYOUTS), fabrics(), st.booleans(), st.sampled_from(["kernel", "block"]))
def test_folded_equals_unfolded_on_contended_fabrics(layout, parts, experts, detail):
    model = {"model": EXPERTS} if experts and layout.get("zero") != 3 else {}
    layout = {**layout, "ep": 2} if model and layout["pp"] < 4 else layout
    ways = [{"fold": fold, "detail": detail} for fold in ("auto", "off")]
    folded, whole = (run(parallelism=layout, simulation=way, **parts, **model) for way in ways)
    assert folded["iteration_time_s"] == pytest.approx(whole["iteration_time_s"], rel=1e-9)
    assert folded["time_breakdown"] == pytest.approx(whole["time_breakdown"], rel=1e-7, abs=1e-10)
    assert folded["simulation"]["classes"] <= 16


@pytest.mark.parametrize(
    ("layout", "fabric", "parts"),
    [
        # a class of three ranks fills a link with its own flows, another class of one rank does not
        ({"tp": 4, "ep": 2, "order": ["tp", "cp", "dp", "ep", "pp"]}, {"network.leaf_nodes": 1},
         {"faults": [{"kind": "slow_link", "link": "node0.nic0", "factor": 0.7}]}),
        # exchanges of ranks that never meet share the leaves' uplinks
        ({"tp": 1, "ep": 2, "cp": 2, "order": ["tp", "cp", "dp", "pp", "ep"]}, {"network.kind": "leaf-spine"}, {}),
        # others' traffic is on some of the links that the exchanges cross
        ({"tp": 4, "ep": 2, "order": ["tp", "cp", "dp", "ep", "pp"]}, {"network.oversubscription": 2},
         {"background": [{"from": "node0", "to": to, "rate": 1.2e11} for to in ("node2.gpu1", "node1")]}),
    ],
)  # fmt: skip
def test_blocks_of_experts_on_narrow_fabrics_fold_exactly(layout, fabric, parts):
    overrides = {"network.leaf_nodes": 2, "network.oversubscription": 8, "network.rail_optimised": False, **fabric}
    cluster = {"overrides": overrides, "routing": "ecmp-hash" if "cp" in layout else "ideal"}
    times = [
        run(model=EXPERTS, parallelism=layout, cluster=cluster, simulation={"fold": fold, "detail": "block"}, **parts)
        for fold in ("auto", "off")
    ]
    assert times[0]["iteration_time_s"] == pytest.approx(times[1]["iteration_time_s"], rel=1e-9)
    assert times[0]["time_breakdown"] == pytest.approx(times[1]["time_breakdown"], rel=1e-7, abs=1e-10)


NARROW = {"network.leaf_nodes": 1, "network.oversubscription": 8, "network.rail_optimised": False}


def test_two_jobs_on_one_fabric_slow_each_other():
    layout = {"tp": 4, "pp": 1}
    alone = run(parallelism=layout)
    shared = run(parallelism=layout, background=[{"from": "node0", "to": "node1", "rate": "100 GB/s"}])
    elsewhere = run(
        parallelism={"tp": 4, "pp": 2}, background=[{"from": "node2.gpu0", "to": "node0.gpu0", "rate": "1 kB/s"}]
    )
    assert shared["time_breakdown"]["exposed_dp"] > 1.3 * alone["time_breakdown"]["exposed_dp"]
    assert elsewhere["iteration_time_s"] == pytest.approx(run(parallelism={"tp": 4, "pp": 2})["iteration_time_s"])


def test_oversubscription_costs_what_crosses_it():
    wide, narrow = (run(parallelism={"tp": 4}, cluster={"overrides": o}) for o in ({"network.leaf_nodes": 1}, NARROW))
    assert narrow["time_breakdown"]["exposed_dp"] > 3 * wide["time_breakdown"]["exposed_dp"]
    assert narrow["time_breakdown"]["compute"] == pytest.approx(wide["time_breakdown"]["compute"], rel=0.02)


def test_the_seed_of_the_hash_decides_the_collisions():
    fabric = {"overrides": {**NARROW, "network.oversubscription": 1}, "routing": "ecmp-hash"}
    seeds = [{"seed": seed} for seed in (*range(6), 0)]
    times = {run(parallelism={"tp": 4}, cluster=fabric, simulation=seed)["iteration_time_s"] for seed in seeds}
    spread = run(parallelism={"tp": 4}, cluster={**fabric, "routing": "ideal"})["iteration_time_s"]
    assert 1 < len(times) <= 6 and min(times) >= spread * (1 - 1e-9)


def test_tensor_parallel_ranks_on_different_nodes_are_slow():
    layout = {"tp": 4, "pp": 1}
    packed, spread = (run(parallelism=layout, cluster={"rank_map": m}) for m in (None, "round-robin"))
    assert spread["time_breakdown"]["exposed_tp"] > 3 * packed["time_breakdown"]["exposed_tp"]
    same = run(parallelism=layout, cluster={"rank_map": list(range(16))})
    assert same["iteration_time_s"] == packed["iteration_time_s"]


@pytest.mark.parametrize(
    "parts,key,said",
    [
        ({"cluster": {"rank_map": [0, 1]}}, "cluster.rank_map", "16 ranks"),
        ({"cluster": {"rank_map": [*range(15), 99]}}, "cluster.rank_map", "GPU 99 is no GPU"),
        ({"cluster": {"rank_map": [*range(15), 3]}}, "cluster.rank_map", "GPU 3 holds several"),
        ({"cluster": {"rank_map": "diagonal"}}, "cluster.rank_map", "round-robin"),
        ({"cluster": {"routing": "ecmp"}}, "cluster.routing", "ecmp-hash"),
        ({"background": [{"from": "node0", "to": "node9", "rate": 1e9}]}, "background[0].to", "node9"),
        ({"background": [{"from": "node0", "to": "node0.gpu1", "rate": 1e9}]}, "background[0].to", "on the node"),
        ({"background": [{"from": "node0", "to": "node1"}]}, "background[0].rate", "missing"),
    ],
)
def test_mistakes_name_their_key(parts, key, said):
    with pytest.raises(ScenarioError) as error:
        scenario(**parts)
    assert key in str(error.value) and said in str(error.value)


def test_members_of_a_tensor_group_agree_on_what_is_played_kernel_by_kernel():
    """Only some of them reduce over the link that their passes cross; all of them play alike, or none could go on."""
    places = [*range(11), 12, 11, 13, 14, 15]
    overrides = {"network.kind": "fat-tree", "network.leaf_nodes": 1, "network.rail_optimised": False}
    cluster = {"overrides": overrides, "rank_map": places}
    times = [
        run(cluster=cluster, parallelism={"tp": 2, "pp": 2}, simulation={"detail": detail, "fold": fold})
        for detail in ("block", "kernel")
        for fold in ("auto", "off")
    ]
    seconds = [each["iteration_time_s"] for each in times]
    assert seconds[0] == pytest.approx(seconds[1], rel=1e-9)
    assert seconds[2] == pytest.approx(seconds[3], rel=1e-9)
    assert seconds[0] == pytest.approx(seconds[2], rel=0.05)


def program_of(found):
    return build_program(found, physics_of(found))


@pytest.mark.parametrize("layout", [{"tp": 2, "pp": 2}, {"tp": 4, "pp": 2}])
def test_links_behind_a_narrower_one_need_not_be_played(monkeypatch, layout):
    """Fewer links in the program, the same times, slow links included."""
    slow = [{"kind": "slow_link", "link": "node1.nic0", "factor": 0.4},
            {"kind": "slow_link", "link": "node2.nic1", "factor": 0.5, "from": 0.002}]  # fmt: skip
    parts = {"parallelism": layout, "faults": slow, "background": [{"from": "node0", "to": "node3", "rate": 3e10}]}
    program, time = program_of(scenario(**parts)), run(**parts)["iteration_time_s"]
    monkeypatch.setattr("llmsim.program.setup.without_wider", lambda traffic, *rest: traffic)
    whole = program_of(scenario(**parts))
    assert _demands(program) < _demands(whole)
    assert time == pytest.approx(run(**parts)["iteration_time_s"], rel=1e-9)


def _demands(program):
    return sum(len(part.demands) for lane in program.plan.lanes for item in lane.items
               for op in item.fragment.ops for part in op.parts)  # fmt: skip
