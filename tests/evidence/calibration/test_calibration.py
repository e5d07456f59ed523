"""Calibration recovers constants from what a cluster that has them would measure, and says what it cannot tell."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import llmsim
from llmsim.catalogue.calibration import read_calibration
from llmsim.catalogue.collective_constants import Achieved
from llmsim.catalogue.gpus import gpu
from llmsim.catalogue.kernel_constants import kernel_constants
from llmsim.cli.calibrate import calibrate as command
from llmsim.collectives.plan import plan_collective
from llmsim.cost.gemm import gemm_time
from llmsim.cost.kernels import scaled
from llmsim.errors import CatalogueError, CollectiveError, ScenarioError, UserError
from llmsim.evidence.calibration.collectives import calibrate_collectives
from llmsim.evidence.calibration.estimate import estimate
from llmsim.evidence.calibration.iterations import calibrate_iterations
from llmsim.evidence.calibration.kernels import calibrate_kernels
from llmsim.formats.nccl_log import parse_log
from llmsim.model.work import Gemm
from llmsim.program.what_if import WhatIf
from llmsim.standalone.collective import communicator

RUN = {
    "name": "run",
    "model": {"layers": 4, "hidden": 4096, "heads": 32, "vocab": 32000},
    "cluster": {"topology": "dgx-h100", "nodes": 2, "overrides": {"node.nic.bandwidth": "50 Gbps"}},
    "parallelism": {"tp": 2},
    "training": {"seq_len": 2048, "global_batch": 32, "overlap": {"grad_reduce": False, "param_gather": False}},
}


def nccl_log(path: Path, values: dict, operation: str = "all_reduce", header: bool = True, root: bool = True) -> Path:
    """What nccl-tests would print on four DGX H100 whose constants are `values`."""
    group = communicator("dgx-h100", 4).group
    lines = ["# nThread 1 nGpus 1 minBytes 1024 maxBytes 8589934592 step: 2(factor) warmup iters: 5 iters: 20"]
    if header:
        lines += [
            f"#  Rank {rank:2} Group  0 Pid {rank} on node{rank // 8} device {rank % 8:2} [0x1b] NVIDIA H100 80GB HBM3"
            for rank in range(group.ranks)
        ]
    group = replace(group, achieved=Achieved.of(values))
    for size in (2**power for power in range(10, 34)):
        plan = plan_collective(operation, float(size), group)
        rates = f"{plan.seconds * 1e6:.2f} {plan.algbw / 1e9:.2f} {plan.busbw / 1e9:.2f} 0"
        reduction = "float sum" if operation != "all_gather" else "float none"
        lines.append(f"{size} {size // 4} {reduction} {'-1 ' if root else ''}{rates} {rates}")
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_estimates_find_factors_and_know_what_they_do_not():
    """Three times of a + b·x: the product of two factors that only act together stays undetermined."""
    x = np.array([1.0, 10.0, 100.0])

    def predict(factors):
        return factors["a"] * 5.0 + factors["b"] * factors["c"] * x

    found, before, after = estimate(predict, predict({"a": 1.2, "b": 0.8, "c": 1.0}), ["a", "b", "c"])
    by_name = {e.name: e for e in found}
    assert by_name["a"].factor == pytest.approx(1.2, rel=0.01) and by_name["a"].verdict == "well determined"
    assert by_name["b"].factor * by_name["c"].factor == pytest.approx(0.8, rel=0.01)
    assert by_name["b"].verdict == by_name["c"].verdict == "not determined"
    assert np.abs(after).max() < 0.01 < np.abs(before).max()


def test_a_single_measurement_says_nothing_about_its_noise():
    [found], _, after = estimate(lambda factors: [factors["a"]], [1.3], ["a"])
    assert found.verdict == "roughly determined" and abs(after[0]) < 0.05
    [found], _, _ = estimate(lambda factors: [factors["a"]] * 6, [1.3, 1.29, 1.31, 1.3, 1.3, 1.31], ["a"])
    assert found.verdict == "well determined"


def test_an_outlier_moves_little():
    x = np.linspace(1.0, 2.0, 20)
    measured = 0.9 * x
    measured[7] *= 5.0
    (only,), _, _ = estimate(lambda factors: factors["a"] * x, measured, ["a"])
    assert only.factor == pytest.approx(0.9, rel=0.02)


@pytest.mark.parametrize("root", [True, False])
def test_collective_constants_come_back(tmp_path, root):
    log = nccl_log(tmp_path / "nccl.log", {("network_efficiency", "ib"): 0.7}, root=root)
    found = calibrate_collectives(log, "dgx-h100")
    by_path = {c.path[1:]: c for c in found.constants}
    network = by_path["network_efficiency", "ib"]
    assert network.value == pytest.approx(0.7, rel=0.02) and network.verdict == "well determined"
    assert np.median(np.abs(found.after)) < 0.01 < np.median(np.abs(found.before))
    assert all(name[-1] not in ("ampere", "efa") for name in by_path)  # what another cluster has takes no part


def test_kernel_constants_come_back(tmp_path):
    device = gpu("h100-sxm")
    slower = scaled(kernel_constants("hopper"), {"power": 0.85})
    rows = ["M,N,K,dtype,time_us"]
    for m, n, k in ((8192, 8192, 8192), (4096, 8192, 8192), (16384, 4096, 4096), (512, 512, 512), (64, 4096, 4096)):
        time = gemm_time(Gemm(m, n, k), device, slower)
        rows.append(f"{m},{n},{k},torch.bfloat16,{(time.seconds + time.launch) * 1e6}")
    path = tmp_path / "gemm.csv"
    path.write_text("\n".join(rows), "utf-8")
    by_name = {c.path[-1]: c for c in calibrate_kernels(path, "h100-sxm").constants}
    assert by_name["power"].value == pytest.approx(0.85, rel=0.02) and by_name["power"].verdict == "well determined"
    assert by_name["launch"].value == pytest.approx(1.0, rel=0.05)


def test_speeds_come_back_from_iterations_and_are_applied(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(RUN), "utf-8")
    truth, runs = WhatIf(math=0.8, between=0.5), []
    batch, micro_batch = "training.global_batch", "training.micro_batch"
    for changes in ({batch: 16}, {batch: 32}, {batch: 64}, {batch: 128, micro_batch: 2}):
        scenario = llmsim.Scenario(**RUN).with_values(changes | {"simulation.detail": "block"})
        time = llmsim.simulate(scenario, what_if=truth).metrics["iteration_time_s"]
        runs.append({"scenario": "run.yaml", "set": changes, "time": f"{time} s"})
    (tmp_path / "runs.yaml").write_text(yaml.safe_dump(runs), "utf-8")
    found = calibrate_iterations(tmp_path / "runs.yaml")
    by_name = {c.path[-1]: c for c in found.constants}
    assert by_name["math"].value == pytest.approx(0.8, rel=0.03)
    assert by_name["between"].value == pytest.approx(0.5, rel=0.1)
    found.write(tmp_path / "cluster.yaml")
    plain = llmsim.load_scenario(str(tmp_path / "run.yaml"))
    calibrated = plain.with_values({"simulation.calibration": "cluster.yaml"})
    wanted = llmsim.simulate(plain, what_if=truth).metrics["iteration_time_s"]
    assert llmsim.simulate(calibrated).metrics["iteration_time_s"] == pytest.approx(wanted, rel=0.03)
    assert llmsim.simulate(plain).metrics["iteration_time_s"] < 0.97 * wanted


def test_calibrated_constants_reach_kernels_and_collectives(tmp_path):
    path = tmp_path / "cluster.yaml"

    def time(text: str) -> float:
        path.write_text(text, "utf-8")
        scenario = RUN | {"simulation": {"calibration": str(path)}}
        return llmsim.simulate(scenario).metrics["iteration_time_s"]

    plain = llmsim.simulate(RUN).metrics["iteration_time_s"]
    assert time("{}") == plain
    assert time("kernels: {hopper: {power: 0.5, issue: 0.5}}") > 1.2 * plain
    assert time("kernels: {ampere: {power: 0.5}}") == plain
    assert time("collectives: {network_efficiency.ib: 0.3}") > plain
    assert llmsim.simulate(RUN).metrics["iteration_time_s"] == plain  # and nothing of it stays


def test_mistakes_are_sentences(tmp_path):
    with pytest.raises(CollectiveError, match="no table of nccl-tests"):
        parse_log("hello\n# 1 2 3")
    gathered = nccl_log(tmp_path / "a.log", {}, "all_gather")
    with pytest.raises(CollectiveError, match="give --operation"):
        calibrate_collectives(gathered, "dgx-h100")
    bare = nccl_log(tmp_path / "b.log", {}, header=False)
    with pytest.raises(CollectiveError, match="give --nodes"):
        calibrate_collectives(bare, "dgx-h100", "all_reduce")
    with pytest.raises(CollectiveError, match="the log is of NVIDIA H100 80GB HBM3, and dgx-a100 has A100"):
        calibrate_collectives(nccl_log(tmp_path / "r.log", {}), "dgx-a100")
    table = tmp_path / "gemm.csv"
    for text, message in (
        ("m,n,time_us\n1,2,3", "column k is missing"),
        ("m,n,k\n1,2,3", "column time_s, time_ms, time_us or tflops"),
        ("m,n,k,time_us\n1,2,x,4", r"gemm.csv:2: k 'x' is not a number"),
        ("m,n,k,dtype,time_us\n1,2,3,int3,4", "dtype 'int3' is unknown"),
    ):
        table.write_text(text, "utf-8")
        with pytest.raises(CatalogueError, match=message):
            calibrate_kernels(table, "h100-sxm")
    runs = tmp_path / "runs.yaml"
    for text, message in (
        ("a: 1", "expected a list"),
        ("- {scenario: run.yaml}", "is no entry"),
        ("- {scenario: run.yaml, time: fast}", "time: 'fast'"),
        ("- {scenario: run.yaml, time: 1 s, sett: {}}", "did you mean 'set'"),
        ("- {scenario: none.yaml, time: 1 s}", "no such scenario file"),
    ):
        runs.write_text(text, "utf-8")
        with pytest.raises(ScenarioError, match=message):
            calibrate_iterations(runs)
    file = tmp_path / "c.yaml"
    for text, message in (
        ("speed: {}", "speed: this key is unknown"),
        ("speeds: {maths: 1}", "did you mean 'math'"),
        ("speeds: {math: 0}", "0 is out of range"),
        ("collectives: {network_efficiency.ibb: 1}", "did you mean 'network_efficiency.ib'"),
    ):
        file.write_text(text, "utf-8")
        with pytest.raises(CatalogueError, match=message):
            read_calibration(file)
    with pytest.raises(ScenarioError, match=r"simulation\.calibration: .*no such file; expected a calibration file"):
        llmsim.Scenario(**RUN | {"simulation": {"calibration": "nowhere.yaml"}})


def test_command(tmp_path):
    log = nccl_log(tmp_path / "nccl.log", {("network_efficiency", "ib"): 0.8})
    out = tmp_path / "cluster.yaml"
    run = CliRunner().invoke(command, [str(log), "--topology", "dgx-h100", "-o", str(out)])
    assert run.exit_code == 0 and "well determined" in run.output and "not determined by these" in run.output
    assert read_calibration(out).collectives["network_efficiency", "ib"] == pytest.approx(0.8, rel=0.03)
    run = CliRunner().invoke(command, [str(log), "--topology", "dgx-h100", "--json"])
    assert json.loads(run.output)["measurements"] == 24
    for arguments, message in (([str(log)], "--topology"), ([str(tmp_path / "no.log")], "no such file")):
        run = CliRunner().invoke(command, arguments)
        assert isinstance(run.exception, UserError) and message in str(run.exception)
