"""Published runs as data, as scenarios, and compared."""

import json
import math
import re

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from llmsim.catalogue.frameworks import frameworks
from llmsim.cli.validate import validate as validate_command
from llmsim.errors import CatalogueError, ScenarioError, UserError
from llmsim.evidence.validation.rows import (
    find_row,
    framework_of,
    published_rows,
    scenario_mapping,
    scenario_of,
    scenario_text,
)
from llmsim.evidence.validation.run import compare, select, validate
from llmsim.evidence.validation.summary import totals
from llmsim.evidence.validation.table import read_table
from llmsim.scenario import Scenario


def row(**changes: str) -> dict[str, str]:
    """A single-node run that no table holds."""
    return find_row("r0024") | {"id": "own"} | changes


def test_hundreds_of_runs_ship_with_sources_and_figures():
    rows = published_rows()
    assert len(rows) > 400
    assert len({r["id"] for r in rows}) == len(rows)
    for r in rows:
        assert r["reference"], r["id"]
        assert float(r["iteration_time_s"]) > 0
        tp, pp, cp, dp = (int(r[key]) for key in ("tp", "pp", "cp", "dp"))
        assert tp * pp * cp * dp == int(r["n_gpus"]), r["id"]
        assert int(r["global_batch_sequences"]) % (int(r["micro_batch"]) * dp) == 0, r["id"]


def test_every_run_has_a_framework_and_a_scenario():
    for r in published_rows():
        mapping = scenario_mapping(r)
        used = mapping["cluster"].get("gpus_per_node")
        assert used is None or used * mapping["cluster"]["nodes"] == int(r["n_gpus"])
        counts = mapping["parallelism"].get("stage_layers")
        assert counts is None or sum(counts) == int(r["layers"])
    assert {framework_of(r) for r in published_rows()} <= set(frameworks())
    assert all(entry["evidence"] for entry in frameworks().values())


def test_no_trait_depends_on_what_was_measured():
    for r in published_rows()[::9]:
        assert scenario_mapping(r) == scenario_mapping(r | {"iteration_time_s": "1", "memory_gib": "1"})


def test_clusters_come_from_the_network_column():
    assert scenario_mapping(find_row("r0509"))["cluster"] == {"topology": "jean-zay-a100", "nodes": 48}
    slow = row(n_gpus="16", dp="2", internode_network="IB 100Gb/s x4/node")
    assert scenario_mapping(slow)["cluster"] == {
        "topology": "dgx-a100",
        "nodes": 2,
        "overrides": {"node.nics": 4, "node.nic.bandwidth": "100 Gbps"},
    }
    assert "overrides" not in scenario_mapping(row(internode_network="IB 100Gb/s x4/node"))["cluster"]  # one node
    tray = {"gpus_per_node": "4"}  # of a rack's compute tray
    rack = scenario_mapping(row(gpu="GB200", n_gpus="256", dp="32", **tray, internode_network="NVL72 + 400Gb/s/GPU"))
    assert rack["cluster"] == {"topology": "gb200-nvl72", "nodes": 4, "gpus_per_node": 64}
    node = scenario_mapping(row(n_gpus="64", dp="8", internode_network="1600 Gb/s RoCE per node"))["cluster"]
    assert node == {"topology": "dgx-a100", "nodes": 8, "overrides": {"network.fabric": "roce"}}


def test_uneven_stages():
    assert scenario_mapping(find_row("r0509"))["parallelism"]["stage_layers"] == [5, *[6] * 10, 5]  # BLOOM
    ends = scenario_mapping(find_row("r0060"))["parallelism"]["stage_layers"]  # 126 layers, 8 stages of 4 chunks
    assert ends == [3, *[4] * 30, 3]
    # nanotron's head weighs four of the sixteen layers: the last stages are left without layers.
    small = find_row("us0004") | {"pp": "8", "dp": "1"}
    assert scenario_mapping(small)["parallelism"]["stage_layers"] == [3, 3, 2, 3, 2, 3, 0, 0]


def test_traits_of_frameworks():
    assert scenario_mapping(find_row("mpt078"))["parallelism"]["zero"] == 3
    assert scenario_mapping(find_row("mpt078"))["training"]["accumulate_locally"] is False
    assert scenario_mapping(find_row("r0001"))["training"]["overlap"]["grad_reduce"] is False
    bf16 = next(r for r in published_rows() if r["source"].startswith("BigScience") and r["precision"] == "bf16")
    assert scenario_mapping(bf16)["training"]["grad_dtype"] == "fp32"
    assert framework_of({"source": "my own"}) == "other"


def test_recipes_of_a_release():
    from llmsim.evidence.validation.rows import recipes

    columns = set(published_rows()[0])
    for recipe in recipes():
        assert recipe["evidence"] and set(recipe["match"]) <= columns
    by_release = [scenario_mapping(find_row(name)) for name in ("r0226", "r0138", "r0075")]  # 25.11, 26.04, 26.06
    assert [m["parallelism"].get("dispatch") for m in by_release] == [None, "deduplicated", "deduplicated"]
    assert [m["training"].get("expert_kernels") for m in by_release] == [None, None, "fused"]
    assert {m["training"]["host"] for m in by_release} == {"megatron"}
    deepseek = find_row("r0239") | {"model_name": "DeepSeek-V3", "n_experts": "256", "layers": "61"}
    mapping = scenario_mapping(deepseek)
    assert mapping["model"] == "deepseek-v3-mtp" and mapping["parallelism"]["stage_layers"] == "balanced"
    zoo = scenario_mapping(find_row("r0514"))["training"]["recompute"]
    assert zoo == {"mode": "selective", "modules": ["layernorm", "moe_act"]}
    assert compare(deepseek)["simulated"]


def test_known_reasons_are_of_runs_that_ship():
    from llmsim.evidence.validation.rows import known_reasons

    assert set(known_reasons()) <= {row["id"] for row in published_rows()}
    assert compare(find_row("us0730") | {"layers": "0"})["known_reason"].startswith("the sweep's runs on 512")


def test_a_row_becomes_a_scenario_file(tmp_path):
    from llmsim.scenario import load_scenario

    path = tmp_path / "row.yaml"
    path.write_text(scenario_text("r0026"), "utf-8")
    scenario = load_scenario(str(path), ["simulation.detail=block"])
    assert scenario.parallelism.pp == 8 and scenario.parallelism.vpp == 3
    assert "arXiv" in path.read_text("utf-8") and "measured: 18.13 s" in path.read_text("utf-8")
    assert scenario_of("r0026").training.global_batch == 64


def test_unknown_names_say_what_exists():
    with pytest.raises(CatalogueError, match="did you mean"):
        find_row("r024")
    with pytest.raises(CatalogueError, match=r"known: .*nanotron"):
        select(["nowhere"])
    with pytest.raises(CatalogueError, match="did you mean 'collectives'"):
        select(["colectives"])
    with pytest.raises(CatalogueError, match="did you mean 'H100'"):
        scenario_mapping(row(gpu="HH100"))


def test_compare_counts_what_it_cannot_simulate():
    done = compare(find_row("r0024"))
    assert done["error"] == done["simulated"] / done["measured"] - 1
    shares = [value for key, value in done.items() if key.startswith("share_")]
    assert math.isclose(sum(shares), 1.0, rel_tol=1e-6)
    failed = compare(row(precision="fp5"))
    assert failed["error"] is None and "fp5" in failed["reason"]


def test_validate_is_the_same_in_parallel():
    from pandas.testing import assert_frame_equal

    seen: list[float] = []
    chosen = ["r0024", "r0025", "mpt084", "mpt097"]
    alone = validate(chosen, workers=1, progress=seen.append)
    together = validate(chosen, workers=2)
    assert seen == [0.25, 0.5, 0.75, 1.0]
    assert_frame_equal(alone.drop(columns="wall_s"), together.drop(columns="wall_s"))


def test_within_reach_of_the_papers():
    """A broad guard against breakage; the page docs/accuracy.md has the real figures."""
    frame = validate(["r0024", "r0025", "r0027", "mpt084", "mpt097", "r0001", "r0004"], workers=1)
    assert frame["error"].abs().max() < 0.25


def test_summaries():
    import pandas as pd

    from llmsim.evidence.validation.cross import cross_validation
    from llmsim.evidence.validation.summary import figures, not_simulated, summary, worst

    errors = pd.Series([-0.1, 0.2, 0.3])
    assert figures(errors) == {"n": 3, "median": 0.2, "p90": pytest.approx(0.28), "worst": 0.3, "bias": 0.2}
    frame = pd.DataFrame(
        {
            "id": list("abcd"),
            "source": ["x", "x", "y", "y"],
            "framework": "f",
            "gpu": "A100-80GB",
            "error": [0.1, -0.3, 0.2, None],
            "reason": ["", "", "", "parallelism.ep: 8 does not divide dp"],
        }
    )
    table = summary(frame)
    assert table["n"].tolist() == [2, 1, 3] and table["not_simulated"].tolist() == [0, 1, 1]
    assert worst(frame, 2)["id"].tolist() == ["b", "c"]
    assert not_simulated(frame)["runs"].tolist() == [1]
    # All of x is computing, and 10 % too fast and 30 % too slow; y gets the speed that serves x best.
    frame = frame.assign(simulated=[0.9, 0.9, 1.1, None], measured=1.0, share_compute=1.0)
    frame["error"] = frame["simulated"] - 1.0
    sources = {entry["source"]: entry for entry in cross_validation(frame)["sources"]}
    assert sources["y"]["computing"] == pytest.approx(0.9, rel=0.01)
    assert sources["y"]["communication"] == pytest.approx(1.0)
    assert sources["y"]["unfitted_median"] == pytest.approx(0.1)
    assert sources["y"]["median"] == pytest.approx(1.1 / 0.9 - 1, rel=0.02)


def test_kernels_and_collectives_are_part_of_it():
    from llmsim.evidence.validation.groups import collective_errors, kernel_errors

    gemm = next(r for r in kernel_errors() if r["kind"] == "gemm" and r["gpu"] == "all")
    assert gemm["n"] > 100 and gemm["median"] < 0.15
    assert any(r["by"] == "size" for r in collective_errors())


def test_command_prints_rows_and_tables():
    from llmsim.cli.validate import validate as command

    run = CliRunner().invoke(command, ["--row", "r0024"])
    assert run.exit_code == 0 and yaml.safe_load(run.output)["name"] == "r0024"
    run = CliRunner().invoke(command, ["--set", "r0024", "--workers", "1"])
    assert run.exit_code == 0 and "Korthikanti2022_T5" in run.output
    run = CliRunner().invoke(command, ["--set", "r0024", "--workers", "1", "--json", "--cross"])
    document = yaml.safe_load(run.output)
    assert document["training"]["rows"][0]["id"] == "r0024" and "note" in document["cross_validation"]
    run = CliRunner().invoke(command, ["--set", "nowhere"])
    assert isinstance(run.exception, UserError)


def test_plot_and_page(tmp_path):
    from llmsim.evidence.validation.report import write_report

    frame = validate(["r0024", "r0025", "mpt084"], workers=1)
    page = write_report(tmp_path / "accuracy.md", frame)
    text = page.read_text("utf-8")
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000
    assert "accuracy.png" in text and "## Not modelled" in text and "| megatron-2022 | 2 |" in text


def test_plot_without_any_result():
    from llmsim.plots.validation import plot_validation

    frame = validate(["r0024"], workers=1).assign(error=float("nan"), simulated=float("nan"))
    assert plot_validation(frame).axes


def test_attempts_that_ran_out_of_memory_are_said_not_to_fit():
    from llmsim.evidence.validation.memory import memory_summary, out_of_memory_rows

    assert {r["id"] for r in out_of_memory_rows()}.isdisjoint(r["id"] for r in published_rows())
    frame = validate(rows=out_of_memory_rows(), workers=1)
    assert not frame["fits"].astype(bool).any()
    (source, everything) = memory_summary(frame)
    assert source["n"] == 0 and everything["right"] == 1.0 and everything["verdicts"] == 3


@pytest.mark.slow
def test_peak_memory_of_published_runs():
    """A part of them, each source's own definition; docs/memory.md has the whole table."""
    from llmsim.evidence.validation.memory import memory_rows, memory_summary

    rows = [r for number, r in enumerate(memory_rows()) if not r["memory_gib"] or number % 4 == 0]
    *_, everything = memory_summary(validate(rows=rows))
    assert everything["n"] > 50
    assert everything["median"] <= 0.10 and everything["p90"] <= 0.25
    assert everything["right"] >= 0.95


def written(tmp_path, *rows: dict[str, str]):
    import csv

    path = tmp_path / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


OWN = {
    "source": "our cluster", "model_name": "own", "layers": "8", "hidden": "1024", "heads": "16", "vocab": "32000",
    "gpu": "NVIDIA H100-SXM5", "n_gpus": "8", "tp": "2", "seq_len": "1024", "micro_batch": "1",
    "global_batch_sequences": "8", "precision": "bf16", "iteration_time_s": "0.05",
}  # fmt: skip


def test_a_table_of_ones_own_runs(tmp_path, capsys):
    untimed = OWN | {"iteration_time_s": ""}
    odd = OWN | {"source": "NeMo", "pp_schedule": "zb-2p", "heads": "7"}
    path = written(tmp_path, OWN | {"pp_schedule": ""}, untimed, odd)
    runs, skipped = read_table(path)
    assert (len(runs), skipped) == (2, 1)
    assert [(run["id"], run["dp"]) for run in runs] == [("line2", "4"), ("line4", "4")]
    assert [framework_of(run) for run in runs] == ["other", "nemo"]
    assert scenario_mapping(runs[0])["cluster"] == {"topology": "dgx-h100", "nodes": 1}
    assert scenario_mapping(runs[1])["parallelism"]["schedule"] == "zb-h2"
    validate_command(["--table", str(path), "--json", "--workers", "1"], standalone_mode=False)
    document = json.loads(capsys.readouterr().out)
    assert [row["error"] is None for row in document["training"]["rows"]] == [False, True]  # 7 heads, tp 2
    assert "kernels" not in document


LINE = OWN | {"id": "line2", "dp": "4"}  # as `read_table` gives it


@pytest.mark.parametrize(
    ("gpu", "cluster"),
    [
        ("NVIDIA H100 80GB HBM3", {"topology": "dgx-h100"}),
        ("H100-PCIe", {"topology": "h100-pcie-pairs"}),
        ("NVIDIA A100-SXM4-40GB", {"topology": "dgx-a100-40"}),
        ("NVIDIA A100-PCIE-40GB", {"topology": "pcie-a100-box", "overrides": {"node.gpu": "a100-pcie-40"}}),
        ("A100 80GB PCIe", {"topology": "pcie-a100-box"}),
        ("Tesla V100-SXM2-16GB", {"topology": "dgx-v100", "overrides": {"node.gpu": "v100-16"}}),
        ("NVIDIA GB200 NVL72", {"topology": "gb200-nvl72", "gpus_per_node": 8}),
    ],
)
def test_a_gpu_is_known_by_all_words_of_its_label(gpu, cluster):
    assert scenario_mapping(LINE | {"gpu": gpu})["cluster"] == cluster | {"nodes": 1}


def test_what_a_row_says_of_itself_wins_over_its_framework():
    for source, usual in (("our cluster", None), ("NeMo", 1), ("torchtitan", 3), ("nanotron", 0)):
        assert scenario_mapping(LINE | {"source": source})["parallelism"].get("zero") == usual
        for text, zero in (("0", 0), ("1", 1), ("2.0", 2), ("3", 3), ("fsdp", 3), ("zero-1/2", 2), ("fsdp(3)", 3)):
            assert scenario_mapping(LINE | {"source": source, "zero_stage": text})["parallelism"]["zero"] == zero


def test_gpus_used_in_each_node():
    own = LINE | {"gpus_per_node": "4"}
    assert scenario_mapping(own)["cluster"] == {"topology": "dgx-h100", "nodes": 2, "gpus_per_node": 4}
    rack = own | {"gpu": "GB200", "n_gpus": "144"}  # a tray of four GPUs is a part of a rack, which is one node here
    assert scenario_mapping(rack)["cluster"] == {"topology": "gb200-nvl72", "nodes": 2}
    thin = {"gpus_per_node": "2"}
    assert scenario_mapping(rack | thin)["cluster"] == {"topology": "gb200-nvl72", "nodes": 4, "gpus_per_node": 36}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": "many"}, "runs.csv:2: heads: 'many' is not a count above 0"),
        ({"tp": "0"}, "runs.csv:2: tp: '0' is not a count above 0"),
        ({"iteration_time_s": "soon"}, "runs.csv:2: iteration_time_s: 'soon' is not seconds above 0"),
        ({"gpu": ""}, "runs.csv:2: gpu is empty"),
        ({"gpu": "H100-NVL"}, "runs.csv:2: gpu: 'H100-NVL' has no known node; known: V100,"),
        ({"gpu": "NVIDIA A100-SXM4-64GB"}, "runs.csv:2: gpu: 'NVIDIA A100-SXM4-64GB' has no known node"),
        ({"gpus_per_node": "16"}, "runs.csv:2: gpus_per_node: 16 is more than the 8 GPUs of a dgx-h100 node"),
        ({"gpus_per_node": "1.5"}, "runs.csv:2: gpus_per_node: '1.5' is not a count above 0"),
        ({"zero_stage": "five"}, "runs.csv:2: zero_stage: 'five' names no ZeRO stage; expected 0, 1, 2, 3 or fsdp"),
        ({"dp": "8"}, "runs.csv:2: dp: '8' does not go with the 8 GPUs and the other degrees; expected 4, or nothing"),
    ],
)
def test_mistakes_in_a_table(tmp_path, change, message):
    with pytest.raises(CatalogueError, match=re.escape(message)):
        read_table(written(tmp_path, OWN | change))


def test_a_table_without_a_column_or_a_file(tmp_path):
    with pytest.raises(CatalogueError, match="the column 'heads' is missing; did you mean 'head'"):
        read_table(written(tmp_path, {("head" if key == "heads" else key): value for key, value in OWN.items()}))
    with pytest.raises(CatalogueError, match="there is no such file"):
        read_table(tmp_path / "none.csv")


def test_a_scenario_takes_over_the_habits_of_its_framework():
    bare = {"name": "x", "model": "llama3-8b", "cluster": {"topology": "dgx-h100", "nodes": 1}}
    training = {"global_batch": 64, "framework": "torchtitan"}
    scenario = Scenario(**bare, training=training, parallelism={"pp": 2})
    assert scenario.parallelism.zero == 3
    assert scenario.training.attention == "flash2"
    assert scenario.training.accumulate_locally  # torchtitan with a pipeline
    assert not Scenario(**bare, training=training).training.accumulate_locally
    own = Scenario(**bare, training=training | {"attention": "unfused"}, parallelism={"zero": 1, "regather": True})
    assert (own.training.attention, own.parallelism.zero) == ("unfused", 1)
    assert own.with_values({"training.framework": None}).training.fused is True
    with pytest.raises(ScenarioError, match=r"training.framework: 'torchtitann' is no known framework.*did you mean"):
        Scenario(**bare, training=training | {"framework": "torchtitann"})


def test_totals_keep_the_noisy_sweep_apart():
    frame = pd.DataFrame({"framework": ["nanotron", "nemo", "nemo"], "error": [0.5, 0.02, -0.04]})
    table = totals(frame).set_index("runs")
    assert table["n"].to_dict() == {"all but nanotron": 2, "nanotron": 1, "all": 3}
    assert table["median"]["all but nanotron"] == pytest.approx(0.03)
    assert list(totals(frame[1:])["runs"]) == ["all"]
