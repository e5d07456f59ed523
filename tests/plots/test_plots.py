"""Pictures: what they show, in what colours, how fast, and that the HTML timeline runs in a real browser."""

import json
import re
import shutil
import subprocess
import sys
import time
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from pipeline_traces import (
    block_trace,
    gpipe,
    interleaved,
    kernel_trace,
    memory_table,
    one_f_one_b,
    play,
    zb_h1,
)

from llmsim.errors import UserError
from llmsim.plots import (
    plot_breakdown,
    plot_bubble_curves,
    plot_collective,
    plot_memory,
    plot_scaling,
    plot_schedule_comparison,
    plot_timeline,
    plot_utilization,
    save_figure,
    timeline_html,
)
from llmsim.plots.boxes import lay_out
from llmsim.plots.breakdown import _PARTS
from llmsim.plots.ink import task_links
from llmsim.plots.style import COLOURS

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
GIB = 2.0**30


def texts(figure):
    figure.draw_without_rendering()
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    for axes in figure.axes:
        found += [label.get_text() for label in axes.get_xticklabels() + axes.get_yticklabels()]
        found += [axes.get_xlabel(), axes.get_ylabel(), axes.get_title(), axes.get_title("left")]
        legend = axes.get_legend()
        found += [text.get_text() for text in legend.get_texts()] if legend else []
        for child in axes.child_axes:
            found += [label.get_text() for label in child.get_yticklabels()]
    for legend in figure.legends:
        found += [text.get_text() for text in legend.get_texts()]
    return found + ([figure.get_suptitle()] if figure.get_suptitle() else [])


def test_importing_plots_imports_no_heavy_library():
    code = "import sys, llmsim.plots; print([m for m in ('matplotlib', 'pandas', 'simpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_timeline_names_what_it_shows():
    trace = block_trace(play(one_f_one_b(4, 8)), tail=2.0, update=0.5, sends=0.1)
    words = texts(plot_timeline(trace))
    for word in (
        "forward",
        "backward",
        "optimizer step",
        "communication",
        "waiting",
        "time (s)",
        "pipeline stage",
    ):
        assert word in words
    assert words.count("27.3%") == 4  # (p-1)/(m+p-1) = 3/11 on each row
    assert [words.count(str(i)) >= 8 for i in range(8)] == [True] * 8  # F and BW of each micro-batch on each stage


def test_timeline_saves_in_all_formats_and_refuses_others(tmp_path):
    figure = plot_timeline(block_trace(play(interleaved(2, 4, 2), 2)), arrows=True, title="Two chunks")
    for suffix in ("png", "svg", "pdf"):
        assert save_figure(figure, tmp_path / f"x.{suffix}").stat().st_size > 2000
    assert "Two chunks" in (tmp_path / "x.svg").read_text()
    with pytest.raises(UserError, match=r"must end in \.png or \.svg or \.pdf"):
        save_figure(figure, tmp_path / "x.gif")
    with pytest.raises(UserError, match="folder"):
        save_figure(figure, tmp_path / "nowhere" / "x.png")


def test_timeline_options_and_mistakes():
    trace = block_trace(play(zb_h1(4, 4)), ranks=8)
    assert "weight gradient" in texts(plot_timeline(trace, numbers=False))
    assert len(plot_timeline(trace, ranks=[0, 8]).axes[0].get_yticks()) == 2
    assert len(plot_timeline(trace, ranks="all").axes[0].get_yticks()) == 4
    with pytest.raises(UserError, match="rank 3 has no row in the trace; its representative ranks are 0, 8, 16, 24"):
        plot_timeline(trace, ranks=[3])
    with pytest.raises(UserError, match="time range 3 to 2 s is empty"):
        plot_timeline(trace, time_range=(3, 2))
    zoomed = plot_timeline(trace, time_range=(2.0, 5.0))
    assert zoomed.axes[0].get_xlim() == (2.0, 5.0)
    assert "the trace is empty" in texts(plot_timeline(trace.iloc[:0]))


def test_timeline_of_kernels_shows_recomputation_and_transfers():
    words = texts(plot_timeline(kernel_trace(play(one_f_one_b(2, 2)), 4, recompute=True)))
    assert "recompute (its share)" in words and "communication" in words


def test_timeline_of_64_stages_and_256_micro_batches_is_fast_and_marks_some_micro_batches():
    trace = block_trace(play(one_f_one_b(64, 256)), tail=2.0, update=0.5)
    started = time.process_time()
    figure = plot_timeline(trace)
    figure.canvas.draw()
    assert time.process_time() - started < 6.0  # 1 s on an idle core; the margin is for busy machines
    assert "micro-batches 0, 32, 64, …" in texts(figure)


def test_forward_and_backward_that_run_together_share_the_row():
    rows = [
        (0, "F", 0, 0, 0.0, 1.0),
        (0, "F", 0, 1, 1.0, 4.0),
        (0, "BW", 0, 0, 1.0, 4.0),
        (0, "BW", 0, 1, 4.0, 6.0),
    ]
    tasks = lay_out(block_trace(rows)).tasks.set_index(["kind", "micro_batch"])["half"]
    assert tasks.to_dict() == {("F", 0): 0, ("F", 1): 1, ("BW", 0): 2, ("BW", 1): 0}


def test_arrows_follow_each_micro_batch_through_the_stages():
    p, m, v = 4, 4, 2
    assert len(task_links(lay_out(block_trace(play(one_f_one_b(p, m)))))) == 2 * m * (p - 1)
    links = task_links(lay_out(block_trace(play(interleaved(p, m, v), v))))
    assert len(links) == 2 * m * (p * v - 1)
    assert (links[:, 3] >= links[:, 1]).all(), "nobody receives before it was sent"


def lab(colour):
    """CIE L*a*b* (D65) of linear RGB."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ colour
    f = np.cbrt(np.maximum(xyz / [0.9505, 1.0, 1.089], 1e-4))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize(
    "simulation",
    [
        np.eye(3),
        # Machado, Oliveira & Fernandes 2009, severity 1: protanopia, deuteranopia, tritanopia (on linear RGB).
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
    ],
    ids=["normal", "protanopia", "deuteranopia", "tritanopia"],
)
def test_colours_differ_for_colour_blind_readers(simulation):
    """Distances in L*a*b*: 2.3 is just noticeable; the closest pair stays six times above it."""
    for palette in (COLOURS, {name: colour for name, (_, colour) in _PARTS.items()}):
        check_palette(palette, simulation)


def check_palette(palette, simulation):
    seen = {}
    for name, colour in palette.items():
        srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        seen[name] = lab(np.clip(simulation @ linear, 0, 1))
    distance = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in combinations(seen, 2)}
    assert min(distance.values()) > 15, min(distance, key=distance.get)


def test_schedules_are_compared_on_one_axis():
    traces = {"1f1b": block_trace(play(one_f_one_b(4, 8))), "zb-h1": block_trace(play(zb_h1(4, 8)))}
    figure = plot_schedule_comparison(traces)
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    words = texts(figure)
    assert "33 s (+22.2%), bubble 27.3%" in words and "27 s (shortest), bubble 11.1%" in words
    with pytest.raises(UserError, match="no schedules to compare"):
        plot_schedule_comparison({})


BREAKDOWN = {"compute": 8.0, "exposed_tp": 1.0, "exposed_pp": 0.0, "bubble": 0.9, "optimizer": 0.1}


def test_breakdown_of_one_and_of_several_results():
    one = texts(plot_breakdown({"name": "a", "time_breakdown": BREAKDOWN}))
    assert "compute: 8 s (80.0%)" in one and "pipeline bubble: 900 ms (9.0%)" in one and "10 s" in one
    assert not any("pipeline comm" in word for word in one), "what takes no time is left out"
    slow = {**BREAKDOWN, "exposed_dp": 10.0}
    figure = plot_breakdown({"fast": {"time_breakdown": BREAKDOWN}, "slow": {"time_breakdown": slow}})
    assert {"fast", "slow", "10 s", "20 s", "50%", "data-parallel comm."} <= set(texts(figure))
    ends = {}
    for bar in figure.axes[0].patches:
        ends[round(bar.get_y(), 3)] = max(ends.get(round(bar.get_y(), 3), 0), bar.get_x() + bar.get_width())
    assert sorted(ends.values()) == pytest.approx([10.0, 20.0])
    assert "share of the iteration (%)" in texts(plot_breakdown([{"time_breakdown": BREAKDOWN}], relative=True))
    with pytest.raises(UserError, match="metrics of 'x' have no time_breakdown"):
        plot_breakdown([{"name": "x"}])
    with pytest.raises(UserError, match="no metrics"):
        plot_breakdown([])


def test_utilization_names_its_shares():
    words = texts(plot_utilization(block_trace(play(gpipe(4, 4)))))
    assert "computing (57.1%)" in words and "idle (42.9%)" in words  # m / (m + p - 1) = 4/7
    assert "the trace is empty" in texts(plot_utilization(block_trace(play(gpipe(1, 1))).iloc[:0]))


def test_memory_shows_peak_capacity_and_what_does_not_fit():
    rows = play(one_f_one_b(4, 8))
    words = texts(plot_memory(memory_table(rows, 4), 46 * GIB))
    assert {"rank 0: peak 48.0 GiB, does not fit", "rank 3: peak 39.0 GiB", "capacity (46.0 GiB)"} <= set(words)
    assert {"parameters", "optimizer", "activations", "allocated (GiB)"} <= set(words)
    many = memory_table(play(one_f_one_b(16, 16)), 16)
    assert "Memory over time (6 of 16 ranks)" in texts(plot_memory(many))
    under = texts(plot_timeline(block_trace(rows), memory=memory_table(rows, 4)))
    assert "stage 3" in under and "allocated (GiB)" in under
    assert "the memory table is empty" in texts(plot_memory(many.iloc[:0]))


def test_bubble_curves_find_their_columns():
    rows = [(s, m, 7 / v / (m + 7 / v)) for s, v in (("1f1b", 1), ("interleaved", 2)) for m in (8, 16, 64)]
    table = pd.DataFrame(rows, columns=["schedule", "micro_batches", "bubble_fraction"])
    words = texts(plot_bubble_curves(table))
    assert {
        "1f1b",
        "interleaved",
        "micro-batches",
        "8",
        "16",
        "64",
        "bubble (% of the pipeline's span)",
    } <= set(words)
    with pytest.raises(UserError, match="no column 'microbatches'; did you mean 'micro_batches'"):
        plot_bubble_curves(table, x="microbatches")
    with pytest.raises(UserError, match="no column to plot the bubble against"):
        plot_bubble_curves(table[["schedule", "bubble_fraction"]])


def test_scaling_shows_the_share_of_the_ideal():
    table = pd.DataFrame({"gpus": [8, 16, 64], "tokens_per_s": [1e4, 1.9e4, 6e4], "mfu": [0.5, 0.48, 0.4]})
    words = texts(plot_scaling(table))
    assert {"95%", "75%", "GPUs", "MFU", "throughput (tokens/s)"} <= set(words)
    with pytest.raises(UserError, match="no column 'tokens_per_s'"):
        plot_scaling(table[["gpus"]])


def test_collective_bandwidth_by_size():
    rows = [{"size": 2**k, "busbw": 1e9 * k, "algorithm": a} for k in range(10, 31) for a in ("ring", "tree")]
    words = texts(plot_collective(rows, peak=3e10))
    assert {"ring", "tree", "limit 30 GB/s", "1 KiB", "1 GiB", "bus bandwidth (GB/s)"} <= set(words)


def page_data(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def test_html_is_self_contained_and_says_what_it_holds():
    trace = kernel_trace(play(one_f_one_b(2, 3)), 2)
    trace["name"] = trace["name"].replace({"gemm": "</script><b>gemm"})
    page = timeline_html(trace, title="1 < 2 & {{data}}")
    assert page.count("</script>") == 2 and "<title>1 &lt; 2 &amp; {{data}}</title>" in page
    assert not re.search(r"""(src|href)\s*=|https?:|@import|url\(""", page)
    data = page_data(page)
    assert len(data["boxes"]["row"]) == 2 * 2 * 3 and data["rows"][1]["stage"] == 1
    assert "</script><b>gemm" in data["names"] and len(data["kernels"]["row"]) == 12 * 2 * 2
    assert data["rows"][0]["bubble"] == pytest.approx(1 / 4)
    for layer in ("boxes", "transfers", "kernels"):
        order = list(zip(data[layer]["row"], data[layer]["start"]))
        assert order == sorted(order), "the script searches by bisection"


def test_html_tells_the_true_span_of_a_backward_with_recomputation():
    boxes = page_data(timeline_html(kernel_trace(play(one_f_one_b(1, 2)), 3, recompute=True)))["boxes"]
    spans = {boxes["start"][int(index)]: span for index, span in boxes["whole"].items()}
    assert len(spans) == 4 and spans[1.0] == pytest.approx([1.0, 3.0, 2 / 3])


def test_html_of_very_many_transfers_merges_them(monkeypatch):
    monkeypatch.setattr("llmsim.plots.html._MOST_ROWS", 10)
    data = page_data(timeline_html(kernel_trace(play(one_f_one_b(2, 3)), 2)))
    assert data["kernels"]["row"] == [] and all(0 < share <= 1 for share in data["transfers"]["share"])


def browse(page, tmp_path, script):
    """The page's DOM after `script` has run in a headless browser."""
    file = tmp_path / "page.html"
    file.write_text(page.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1200,700",
        "--virtual-time-budget=4000",
    ]
    ran = subprocess.run([BROWSER, *flags, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


POINT = """
const canvas = document.getElementById("canvas"), box = canvas.getBoundingClientRect();
const fire = (type, kind, x, y, more) => canvas.dispatchEvent(
  new kind(type, {clientX: box.left + x, clientY: box.top + y, bubbles: true, cancelable: true, ...more}));
const note = (name, text) => {
  const p = document.createElement("p"); p.id = name; p.textContent = text; document.body.append(p); };
const status = () => {  // a resize draws at once; frames come when a headless browser likes
  window.dispatchEvent(new Event("resize"));
  return document.getElementById("status").textContent; };
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed to open the HTML timeline in")
def test_html_draws_zooms_and_explains_in_a_browser(tmp_path):
    trace = block_trace(play(one_f_one_b(4, 8)), ranks=16, tail=2.0, update=0.5)
    script = (
        POINT
        + """
    fire("pointermove", PointerEvent, 90, 20);
    note("first", document.getElementById("tip").innerText);
    const pixel = canvas.getContext("2d").getImageData(90 * devicePixelRatio, 20 * devicePixelRatio, 1, 1).data;
    note("pixel", [...pixel].join());
    for (let i = 0; i < 4; i++) fire("wheel", WheelEvent, 500, 20, {deltaY: -400});
    note("zoomed", status());
    fire("dblclick", MouseEvent, 500, 20);
    note("whole", status());
    """
    )
    page = browse(timeline_html(trace), tmp_path, script)

    def said(name):
        return re.search(rf'<p id="{name}">(.*?)</p>', page, re.S)[1]

    for fact in ("forward", "stage       0 (rank 0, one of 16 alike)", "micro-batch 0", "duration    1 s"):
        assert fact in said("first")
    assert said("pixel") == "0,114,178,255", "forward is drawn in its colour"
    shown, boxes = (int(n) for n in re.match(r"(\d+) of (\d+) boxes", said("zoomed")).groups())
    assert boxes == 4 * 8 * 2 + 4 + 4 and 0 < shown < boxes / 2
    assert said("whole").startswith(f"{boxes} of {boxes} boxes, 0 s to 35.5 s")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed to open the HTML timeline in")
def test_html_of_a_hundred_thousand_boxes_stays_quick(tmp_path):
    one = block_trace(play(one_f_one_b(64, 256)))
    trace = pd.concat(
        [one.assign(iteration=i, start_s=one["start_s"] + 1000 * i, end_s=one["end_s"] + 1000 * i) for i in range(4)],
        ignore_index=True,
    )
    script = (
        POINT
        + """
    const began = performance.now();
    note("said", status());
    note("took", performance.now() - began);
    """
    )
    page = browse(timeline_html(trace), tmp_path, script)
    assert "131,072 of 131,072 boxes" in page
    assert float(re.search(r'<p id="took">(.*?)</p>', page)[1]) < 1500  # ms, without a GPU
