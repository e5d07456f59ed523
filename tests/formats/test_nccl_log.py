"""Logs of nccl-tests and rccl-tests: tables written from known times in every layout that the tools have printed.

Layouts: `print_header` and `writeResultHeader` of NVIDIA/nccl-tests (2017 to 2.19.6) and ROCm's rccl-tests.
"""

import json

import pytest
from click.testing import CliRunner

from llmsim.cli.calibrate import calibrate as command
from llmsim.collectives import bus_factor
from llmsim.collectives.plan import plan_collective
from llmsim.errors import CollectiveError
from llmsim.evidence.calibration.collectives import calibrate_collectives
from llmsim.formats.nccl_log import parse_log
from llmsim.standalone.collective import communicator

SIZES = [float(2**power) for power in range(20, 31, 2)]
TIMES = [(size, 1e-5 + size / 100e9) for size in SIZES]  # seconds of some all-reduce


def printed(value: float) -> str:
    """As getFloatStr prints it into seven characters."""
    return next(text for digits in (2, 1, 0) if len(text := f"{value:.{digits}f}") <= 7)


def devices(ranks=16, on=8, pid=True, group=True, bus="0000:1b:00", gpu="NVIDIA H100 80GB HBM3"):
    return [
        f"#  Rank {r:2} {'Group  0 ' if group else ''}{f'Pid {4000 + r:6} ' if pid else ''}on {f'node{r // on}':>10} "
        f"device {r % on:2} [{bus}] {gpu}"
        for r in range(ranks)
    ]


def table(
    times=TIMES, factor=15 / 8, labels="redop root", blank=False, groups=2, time="time", error="#wrong",
    after=(), last="", cells="float sum -1", unit="us", units=True, first="size count",
):  # fmt: skip
    """Header and rows. labels: columns after type. blank: rows leave them out. after: columns of each group (-I).
    last: what ends the header, a pair of texts for header and rows."""
    scale = {"us": 1e6, "ms": 1e3}[unit]
    measured = f"{time} algbw busbw {error} {' '.join(after)}"
    head = ["#          out-of-place          in-place"[: 30 if groups == 1 else None]]
    head.append(f"#  {first} type {labels} {' '.join([measured] * groups)} {last[0] if last else ''}")
    told = f"({unit}) (GB/s) (GB/s) " + "(us) " * len([a for a in after if not a.endswith("%")])
    told += "(%)" * any(a.endswith("%") for a in after)
    if units:
        head.append(f"#  (B) (elements) {' '.join([told] * groups)}")
    rows = []
    for size, seconds in times:
        shown = printed(seconds * scale) if time == "time" else "5.55"
        if unit == "ms":
            shown = f"{seconds * scale:.3f}"
        rate = size / seconds / 1e9
        wrong = "0e+00" if error == "error" else "0"
        cell = f"{shown:>7}  {rate:6.2f}  {rate * factor:6.2f}  {wrong} {'7.5  ' * len(after)}"
        text = "float" if blank else cells
        rows.append(f"{size:12.0f}  {size // 4:12.0f}  {text}  {'  '.join([cell] * groups)} {last[1] if last else ''}")
    return [*head, *rows]


def log(body, ranks=16, on=8, name="all_reduce_perf", **options):
    starting = [f"# Collective test starting: {name}"] if name else []
    return "\n".join(
        [*starting, "# nThread 1 nGpus 1 minBytes 8 maxBytes 1 step: 2(factor) warmup iters: 5 iters: 20", "#",
         "# Using devices", *devices(ranks, on, **options), "#", *body, "# Out of bounds values : 0 OK", "#"]
    )  # fmt: skip


LAYOUTS = {
    "today": {},
    "time stamps (-S)": {"last": ("timestamp", "2025-03-01 10:10:00")},
    "an iteration's times (-I)": {"after": ("i_min", "i_max", "i_p99", "i_cv%")},
    "both": {"after": ("i_min", "i_max", "i_p99", "i_cv%"), "last": ("timestamp", "2025-03-01 10:10:00")},
    "CPU time (-C)": {"time": "cputime"},
    "2.13, without root": {"labels": "redop", "cells": "float sum", "error": "error"},
    "2.8, broadcast without redop": {"labels": "root", "cells": "float 0", "error": "error"},
    "2.4, all-gather without both": {"labels": "", "cells": "float", "error": "error"},
    "2.9, all-to-all that leaves redop blank": {"labels": "redop", "blank": True, "error": "error"},
    "both left blank": {"blank": True},
    "2017": {"first": "bytes N", "labels": "op", "cells": "float sum", "unit": "ms", "error": "res", "units": False},
    "2017, one group": {
        "first": "bytes N",
        "labels": "root",
        "cells": "float 0",
        "unit": "ms",
        "groups": 1,
        "units": False,
    },
    "rccl-tests, one group (-O)": {"groups": 1},
    "rccl-tests, algorithms": {"last": ("algo proto nchannels", "Ring  Simple  56")},
    "rccl-tests, both": {"last": ("algo proto nchannels timestamp", "2025-03-01 10:10:00 Ring Simple 56")},
    "fp8": {"cells": "fp8_e4m3 sum -1"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_times_come_back_from_every_layout(layout):
    (run,) = parse_log(log(table(**LAYOUTS[layout])))
    assert run.operation == "all_reduce" and run.nodes == 2 and len(run.hosts) == 16
    assert [row.size for row in run.rows] == SIZES and all(row.consistent for row in run.rows)
    rounding = 0.03 if "CPU" in layout or "2017" in layout else 5e-3
    assert [row.seconds for row in run.rows] == pytest.approx([t for _, t in TIMES], rel=rounding)
    assert run.factor == pytest.approx(15 / 8, rel=0.01) and run.guess == "all_reduce"


def test_rccl_event_times_stand_between_time_and_bandwidth():
    body = [
        "# size count type redop root time hipevt algbw busbw #wrong time hipevt algbw busbw #wrong",
        "# (B) (elements) (us) (us) (GB/s) (GB/s) (us) (us) (GB/s) (GB/s)",
        "1048576 262144 float sum -1 100.0 93.0 10.49 19.66 0 99.0 92.0 10.59 19.86 N/A",
    ]
    (run,) = parse_log(log(body))
    assert run.rows[0].seconds == pytest.approx(1e-4) and run.rows[0].consistent


def test_units_are_those_of_the_header():
    milliseconds = [line.replace("(us)", "(ms)").replace("100.0", "0.1000") for line in (
        "# size count type redop root time algbw busbw #wrong", "# (B) (elements) (us) (GB/s) (GB/s)",
        "1048576 262144 float sum -1 100.0 10.49 19.66 0")]  # fmt: skip
    (run,) = parse_log(log(milliseconds))
    assert run.rows[0].seconds == pytest.approx(1e-4) and run.rows[0].algbw[0] == 10.49e9
    with pytest.raises(CollectiveError, match=r"log:\d+: the unit \(days\) is unknown; expected one of s, ms, us"):
        parse_log(log([milliseconds[0], "# (B) (elements) (days) (GB/s) (GB/s)", milliseconds[2]]))


PREFIXES = {
    "Open MPI 4": lambda i: "[1,0]<stdout>:",
    "Open MPI 5": lambda i: "[prterun-node0-77@1,0]<stdout>: ",
    "srun --label": lambda i: " 0: ",
    "MPICH": lambda i: "[0] ",
    "kubectl --prefix": lambda i: "[pod/nccl-launcher-x7/main] ",
    "kubectl --timestamps": lambda i: f"2025-03-02T10:11:{i % 60:02}.12345678{i % 10}Z ",
    "ts": lambda i: f"Mar  2 10:1{i // 60}:{i % 60:02} ",
    "ts -s, seconds": lambda i: f"[{i}.5] ",
    "slurm, and a zone": lambda i: f"2025-03-02 10:11:{i % 60:02},123+01:00 node0 ",
    "seconds that count": lambda i: f"[{i // 4}] ",
    "grep -n": lambda i: f"{i + 1}:",
    "colours": lambda i: "\x1b[36mnccl-1  |\x1b[0m ",
}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_launchers(prefix):
    plain = log(table())
    text = "\n".join(PREFIXES[prefix](i) + line for i, line in enumerate(plain.splitlines()))
    (wanted,), (run,) = parse_log(plain), parse_log(text)
    assert (run.operation, run.hosts, run.device) == (wanted.operation, wanted.hosts, wanted.device)
    assert [(r.size, r.seconds) for r in run.rows] == [(r.size, r.seconds) for r in wanted.rows]


def test_other_lines_between_and_broken_rows_are_left_out():
    lines = log(table()).splitlines()
    lines.insert(2, "node0:77:99 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P")
    lines.append("     1048576        262144     float     sum      -1node0:77:99 [0] NCCL INFO comm")
    (run,) = parse_log("\n".join(lines))
    assert len(run.rows) == len(SIZES) and run.unread == 1


def test_devices_of_all_kinds():
    assert parse_log(log(table(), ranks=4, pid=False, group=False, bus="0x0a"))[0].hosts == ("node0",) * 4  # 2017
    rccl = parse_log(log(table(), group=False, bus="0000:0c:00.0", gpu=""))[0]
    assert rccl.nodes == 2 and rccl.device == ""
    assert parse_log(log(table(), name="/opt/all_reduce_perf_mpi"))[0].operation == "all_reduce"


def test_a_command_before_a_test_names_it():
    first, second = log(table(), name=None), log(table(factor=15 / 16), name=None)
    runs = parse_log(f"+ mpirun -np 16 ./all_reduce_perf -b 8\n{first}\n+ mpirun -np 16 ./alltoall_perf -b 8\n{second}")
    assert [run.operation for run in runs] == ["all_reduce", "all_to_all"]
    runs = parse_log(f"./all_reduce_perf\n./all_gather_perf\n{first}\n{second}")  # a script printed before it runs
    assert [run.operation for run in runs] == [None, None]
    assert [run.guess for run in runs] == ["all_reduce", "reduce_scatter"]


def simulated(operation, nodes, gpus=8):
    """Times on DGX H100 as the catalogue has them, as a table, ranks and GPUs a node."""
    group = communicator("dgx-h100", nodes, gpus).group
    times = [(size, plan_collective(operation, size, group).seconds) for size in SIZES]
    return table(times, bus_factor(operation, group.ranks), cells="float none -1"), group.ranks, gpus


ZERO = "0 0 float none -1 0.07 0.00 0.00 0"  # a size that 16 ranks cannot share


@pytest.fixture(scope="module")
def three():
    """all_reduce on one node and on two, all_gather on two, with a test that is not modelled and one that died."""
    parts = [
        log(*simulated("all_reduce", 1)), log(*simulated("all_reduce", 2)),
        log(*simulated("all_gather", 2), name="all_gather_perf"),
        log(table(factor=1.0), name="reduce_perf"), log(table([]), name="broadcast_perf"),
        log(["# size count type redop root time algbw busbw #wrong", ZERO], name="sendrecv_perf"),
    ]  # fmt: skip
    return "\n".join(parts)


def test_several_tests_and_jobs_of_one_file(three, tmp_path):
    path = tmp_path / "three.log"
    path.write_text(three)
    found = calibrate_collectives(path, "dgx-h100")
    assert len(found.after) == 3 * len(SIZES) and abs(found.before).max() < 0.01
    assert found.what == "times of all_reduce and all_gather on 8 GPUs of 1 node and 16 GPUs of 2 nodes"
    assert found.left_out == (
        "reduce (not modelled)", "broadcast (a header without rows)",
        "send_recv (1 row too small to have a size, time and bandwidth above 0)",
    )  # fmt: skip
    assert "; left out: reduce (not modelled), " in found.sentence
    assert len(calibrate_collectives(path, "dgx-h100", "all_reduce").after) == 2 * len(SIZES)
    with pytest.raises(CollectiveError, match=r"nothing in it can be fitted: .*; expected rows of all_to_all"):
        calibrate_collectives(path, "dgx-h100", "all_to_all")
    run = CliRunner().invoke(command, [str(path), "--topology", "dgx-h100", "--json"])
    assert json.loads(run.output)["left_out"] == list(found.left_out)


HEADER = table([])[1]
ONE_GPU = table([(size, size / 1e12) for size in SIZES], factor=0.0)
MISTAKES = {
    "no rows": (log(table([])), {}, r"nothing in it can be fitted: all_reduce \(a header without rows\); expected"),
    "too small": (log([HEADER, f"{ZERO} 0.07 0.00 0.00 0"]), {}, "1 row too small to have a size, time and"),
    "columns changed places": (log([HEADER, "1048576 262144 float sum -1 10.49 100.0 19.66 0 1 1 1 0"]), {},
                               "busbw is 0.1966 times algbw, and all_reduce on 16 GPUs has 1.875"),
    "time of another row": (log([HEADER, "1048576 262144 float sum -1 200.0 10.49 19.66 0 1 1 1 0"]), {},
                            r":\d+: 1048576 bytes in 0.0002 s are 5.243 GB/s, and the row says 10.49; expected algbw"),
    "no MPI": (log(ONE_GPU, 1) + "\n" + log(ONE_GPU, 1), {}, r":\d+: this table is of one GPU alone.*MPI=1"),
    "no MPI, interleaved": (log(table(), 1).replace("#  Rank", "# Rank  0 on b device 0 [0x1b] X\n#  Rank"), {},
                            "has a rank twice"),
    "groups": (log(table()).replace("Rank  3 Group  0", "Rank  3 Group  1"), {}, "2 groups ran side by side"),
    "a rank is missing": (log(table()).replace("#  Rank  3", "# "), {}, "lacks rank 3; give --nodes and --gpus-per"),
    "uneven": (log(table(), 12), {}, "node0 has 8 ranks and node1 has 4; expected as many on each host"),
    "asked for more": (log(table()), {"nodes": 3}, "lists 16 GPUs, which --nodes 3 does not make"),
    "asked otherwise": (log(table()), {"nodes": 2, "gpus_per_node": 4}, "--nodes 2 with --gpus-per-node 4 does not"),
    "another operation": (log(table(), name=None), {"operation": "all_gather"},
                          "busbw is 1.875 times algbw, and all_gather on 16 GPUs has 0.9375; check --operation"),
    "no name": (log(table(factor=15 / 16, cells="float none -1"), name=None), {}, "does not say which collective ran"),
    "no devices": ("\n".join(table()), {"operation": "all_reduce"}, "does not list its devices; give --nodes"),
    "no collective": (log(table()), {"operation": "all_reduc"}, "'all_reduc' is no .*did you mean 'all_reduce'"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence(mistake, tmp_path):
    text, options, message = MISTAKES[mistake]
    path = tmp_path / "nccl.log"
    path.write_text(text)
    with pytest.raises(CollectiveError, match=message) as caught:
        calibrate_collectives(path, "dgx-h100", **options)
    assert ("\n" not in str(caught.value) and str(path) in str(caught.value)) or "--operation" in str(caught.value)


def test_a_rack_needs_its_number_of_nodes(tmp_path):
    path = tmp_path / "rack.log"
    path.write_text(log(table(factor=2 * 71 / 72), 72, 4, name="all_reduce_perf").replace("H100 80GB HBM3", "GB200"))
    with pytest.raises(CollectiveError, match="a rack, and the log tells 18 hosts but no racks; give --nodes"):
        calibrate_collectives(path, "gb200-nvl72")
    assert calibrate_collectives(path, "gb200-nvl72", nodes=1).what == "times of all_reduce on 72 GPUs of 1 node"


def test_numbers_without_end_are_no_rows_and_no_ranks():
    endless = "9" * 9000
    text = log(table()) + f"\n#  Rank {endless} on node0 device 0 [0x1b] X\n{endless} 1 float sum -1 1 1 1 0 1 1 1 0"
    (run,) = parse_log(text)
    assert len(run.hosts) == 16 and len(run.rows) == len(SIZES)
    (run,) = parse_log(log(table()).replace("Rank 15", "Rank 99999999"))
    assert run.missing == 15


def test_rows_without_a_header_are_read_where_they_agree(tmp_path):
    path = tmp_path / "bare.log"
    path.write_text("\n".join(table()[3:]))
    assert len(calibrate_collectives(path, "dgx-h100", "all_reduce", 2, 8).after) == len(SIZES)
    with pytest.raises(CollectiveError, match="no table of nccl-tests"):
        parse_log("1048576 262144 float sum -1 10.16 19.05 103.2 0 10.26 19.24 102.2 0")
