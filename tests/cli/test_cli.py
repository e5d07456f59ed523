"""The command line: what it prints, where, and with which exit status."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

import llmsim
from llmsim.cli import COMMANDS, main

METRICS = {
    "name": "quickstart",
    "gpus": 8,
    "layout": {"tp": 2, "pp": 2, "vpp": 1, "cp": 1, "ep": 1, "dp": 2, "micro_batches": 8},
    "parameters": 6738415616,
    "active_parameters": 6738415616,
    "iteration_time_s": 2.0,
    "tokens_per_s": 65536.0,
    "tokens_per_s_per_gpu": 8192.0,
    "model_tflops_per_gpu": 400.0,
    "hardware_tflops_per_gpu": 410.5,
    "mfu": 0.404,
    "hfu": 0.415,
    "bubble_fraction": 0.11,
    "bubble_over_ideal": 0.125,
    "time_breakdown": {"compute": 1.5, "exposed_tp": 0.25, "bubble": 0.25, "exposed_dp": 0.0, "other": 0.0},
    "overlap": {"dp": float("nan")},
    "memory": {
        "capacity_gib": 79.6,
        "peak_gib": 91.25,
        "fits": False,
        "per_stage": [
            {"stage": 0, "parameters_gib": 3.1, "activations_gib": 60.0, "peak_gib": 91.25},
            {"stage": 1, "parameters_gib": 3.1, "activations_gib": 30.0, "peak_gib": 61.0},
        ],
    },
    "bottleneck": "compute",
    "bottleneck_reason": "arithmetic takes 75 % of the iteration",
    "time_to_train_s": 3.05e7,
    "cost_usd": 169444.4,
    "simulation": {"events": 1234, "classes": 4, "ranks": 8, "detail": "kernel", "wall_s": 0.2, "version": "0"},
}


@pytest.fixture
def simulated(monkeypatch):
    """`llmsim.simulate` replaced: these tests are about printing, and call with the scenario that was asked for."""
    calls = []

    def simulate(scenario, progress=None):
        import pandas as pd

        calls.append(scenario)
        progress(0.5)
        return SimpleNamespace(metrics=METRICS, trace=pd.DataFrame({"rank": [0], "start_s": [0.0]}), memory=None)

    monkeypatch.setattr(llmsim, "simulate", simulate, raising=False)
    return calls


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


def test_run_prints_a_screen_for_people(simulated, capsys):
    status, out, err = call(capsys, "run", "scenarios/quickstart.yaml")
    assert (status, err) == (0, "")
    for part in ("llama2-7b (6.74 B parameters) on 8 × H100", "tp 2 · pp 2 · dp 2", "65,536 tokens/s", "MFU 40.4%"):
        assert part in out
    assert "91.2 of 79.6 GiB, DOES NOT FIT" in out
    assert "compute: arithmetic takes 75 %" in out
    assert out.index("compute  ") < out.index("pipeline bubble  ")
    assert "exposed_dp" not in out
    assert "353 days for 2 T tokens, $169,444" in out
    assert len(out.splitlines()) < 40


def test_run_prints_one_json_document_and_nothing_else(simulated, capsys):
    status, out, err = call(capsys, "run", "scenarios/quickstart.yaml", "--json")
    document = json.loads(out)
    assert (status, err) == (0, "")
    assert document["iteration_time_s"] == 2.0
    assert document["overlap"]["dp"] is None  # JSON has no NaN


def test_settings_reach_the_scenario(simulated, capsys):
    call(capsys, "run", "scenarios/quickstart.yaml", "--set", "training.micro_batch=1", "--detail", "block")
    assert simulated[0].training.micro_batch == 1
    assert simulated[0].simulation.detail == "block"


def test_a_model_that_does_not_fit_is_an_answer_unless_a_yes_was_asked_for(simulated, capsys):
    assert call(capsys, "run", "scenarios/quickstart.yaml")[0] == 0
    assert call(capsys, "run", "scenarios/quickstart.yaml", "--require-fit")[0] == 1


def test_a_model_that_only_just_fits_says_so(simulated, capsys, monkeypatch):
    memory = {**METRICS["memory"], "capacity_gib": 79.6, "peak_gib": 79.6, "peak_allocated_gib": 71.25, "fits": True}
    monkeypatch.setitem(METRICS, "memory", memory)
    assert "79.6 of 79.6 GiB, fits tightly: 71.2 GiB are tensors" in call(capsys, "run", "scenarios/quickstart.yaml")[1]


def test_warnings_go_to_stderr(simulated, capsys):
    arguments = ("--json", "--set", "cluster.nodes=2", "--set", "parallelism={tp: 16}")
    status, out, err = call(capsys, "run", "scenarios/quickstart.yaml", *arguments)
    assert status == 0
    assert err.startswith("warning: --set parallelism.tp: 16 spans nodes")
    json.loads(out)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_trace_is_saved(simulated, capsys, tmp_path, suffix):
    import pandas as pd

    target = tmp_path / f"trace.{suffix}"
    assert call(capsys, "run", "scenarios/quickstart.yaml", "--trace", target)[0] == 0
    read = pd.read_csv if suffix == "csv" else pd.read_parquet
    assert list(read(target).columns) == ["rank", "start_s"]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["run"], "Missing argument 'SCENARIO'"),
        (["run", "nowhere.yaml"], "nowhere.yaml: there is no such scenario file"),
        (["run", "scenarios/quickstart.yaml", "--trace", "out.xlsx"], "must end in .parquet or .csv"),
        (["run", "scenarios/quickstart.yaml", "--plot", "no/such/folder/out.png"], "there is no folder"),
        (["run", "scenarios/quickstart.yaml", "--set", "x"], "expected key=value"),
        (["run", "scenarios/quickstart.yaml", "--detail", "fine"], "'fine' is not one of"),
        (["run", "scenarios/quickstart.yaml", "--jsn"], "No such option"),
        (["rnu"], "did you mean 'run'"),
        (["plot", "scenarios/quickstart.yaml"], "'-o'"),
        (["plot", "scenarios/quickstart.yaml", "-o", "out.txt"], "must end in .png"),
        (["plot", "no-trace.csv", "-o", "out.png"], "no such file; expected a trace"),
        (["plot", "trace.csv", "--kind", "memory", "-o", "out.png"], "needs a scenario"),
        (["models", "no-such"], "no model's name or family holds no-such"),
        (["collective", "all_reduce", "--topology", "dgx-h100", "--sizes", "1M-8G"], "'1M' in '1M-8G' is no size"),
        (["validate", "--row", "none"], "training_*.csv"),
        (["topology", "dgx-h10"], "did you mean 'dgx-h100'"),
        (["topology", "dgx-h100", "--nodes", "0"], "0 is not in the range"),
        (["topology", "dgx-h100", "--set", "node.gpu=h10"], "node.gpu"),
    ],
)
def test_mistakes_end_with_status_2_and_one_sentence(capsys, arguments, says):
    status, out, err = call(capsys, *arguments)
    assert (status, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1


def test_a_bug_is_called_a_bug(monkeypatch, capsys):
    def broken(scenario, progress=None):
        raise ZeroDivisionError("float division by zero")

    monkeypatch.setattr(llmsim, "simulate", broken, raising=False)
    status, out, err = call(capsys, "run", "scenarios/quickstart.yaml")
    assert (status, out) == (3, "")
    assert "internal error: ZeroDivisionError" in err
    assert "Traceback" not in err
    with pytest.raises(ZeroDivisionError):
        main(["run", "scenarios/quickstart.yaml", "--debug"])


def test_a_scenario_from_file_to_json_and_picture(capsys, tmp_path):
    """Nothing replaced: the whole path."""
    trace, picture = tmp_path / "trace.csv", tmp_path / "timeline.svg"
    status, out, err = call(
        capsys, "run", "scenarios/quickstart.yaml", "--detail", "block", "--json", "--trace", trace, "--plot", picture
    )
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert document["gpus"] == 8
    assert sum(document["time_breakdown"].values()) == pytest.approx(document["iteration_time_s"], rel=1e-9)
    assert picture.stat().st_size > 1000
    again = tmp_path / "again.png"
    assert call(capsys, "plot", trace, "--kind", "timeline", "-o", again)[0] == 0
    assert again.stat().st_size > 1000


@pytest.mark.parametrize(
    "command, first, key",
    [
        ("models", "gpt3-175b", "parameters"),
        ("gpus", "h100-sxm", "peak_flops"),
        ("topologies", "dgx-h100", "gpus"),
        ("schedules", "zb-h1", "description"),
    ],
)
def test_catalogue_commands(capsys, command, first, key):
    status, out, _ = call(capsys, command)
    assert status == 0
    assert first in out
    status, out, _ = call(capsys, command, "--json")
    entry = next(row for row in json.loads(out) if row["name"] == first)
    assert entry[key]


def test_models_can_be_narrowed(capsys):
    _, out, _ = call(capsys, "models", "llama3", "--json")
    names = [row["name"] for row in json.loads(out)]
    assert "llama3-405b" in names
    assert "gpt3-175b" not in names


def test_topology_says_what_the_graph_holds(capsys):
    status, out, _ = call(capsys, "topology", "dgx-h100", "--nodes", "64")
    assert status == 0
    assert "512 GPUs" in out
    assert "bisection bandwidth" in out
    facts = json.loads(call(capsys, "topology", "dgx-h100", "--nodes", "64", "--json")[1])
    assert facts["counts"]["gpu"] == 512
    halved = json.loads(
        call(capsys, "topology", "dgx-h100", "--nodes", "64", "--set", "node.nic.bandwidth=200 Gbps", "--json")[1]
    )
    assert halved["bisection_bandwidth"] == facts["bisection_bandwidth"] / 2


def test_every_command_has_help(capsys):
    for command in COMMANDS:
        status, out, _ = call(capsys, command, "--help")
        assert status == 0
        assert out.startswith(f"Usage: llmsim {command}")


def test_help_imports_nothing_heavy():
    heavy = ("numpy", "pandas", "matplotlib", "networkx", "simpy", "pydantic", "rich", "yaml")
    code = (
        "import sys\nfrom llmsim.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"
    assert all(command in shown.stdout for command in COMMANDS)


def test_version(capsys):
    status, out, _ = call(capsys, "--version")
    assert (status, out.split()[0]) == (0, "llmsim")


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_a_trace_opens_in_perfetto(capsys, tmp_path, name):
    """The events are the rows of the trace; threads and processes have names."""
    import gzip

    target = tmp_path / name
    quick = ("--set", "training.global_batch=8")
    assert call(capsys, "export", "scenarios/quickstart.yaml", "--format", "chrome", *quick, "-o", target)[0] == 0
    content = target.read_bytes()
    document = json.loads(gzip.decompress(content) if name.endswith(".gz") else content)
    loaded = llmsim.load_scenario("scenarios/quickstart.yaml", ["training.global_batch=8"])
    trace = llmsim.simulate(loaded).trace
    events = [event for event in document["traceEvents"] if event["ph"] == "X"]
    assert len(events) == len(trace)
    assert sum(event["dur"] for event in events) == pytest.approx((trace["end_s"] - trace["start_s"]).sum() * 1e6)
    named = {(e["pid"], e["tid"]) for e in document["traceEvents"] if e["name"] == "thread_name"}
    assert {(event["pid"], event["tid"]) for event in events} == named


def test_what_is_promised_and_not_built_says_so(capsys):
    arguments = ("export", "scenarios/quickstart.yaml", "--format", "chakra", "-o", "out.json")
    assert call(capsys, *arguments)[2] == "llmsim: --format chakra is not supported yet; expected chrome\n"
    unknown = tuple("vcd" if word == "chakra" else word for word in arguments)
    assert call(capsys, *unknown)[::2] == (2, "llmsim: --format vcd is not known; expected chrome\n")
    assert "chakra" not in call(capsys, "export", "--help")[1]
    assert "'report' is not supported yet" in call(capsys, "report", "scenarios/quickstart.yaml")[2]
