"""Pictures: what they show, in what colours, how fast, and that the HTML timeline runs in a real browser."""

import subprocess
import sys

import pytest
from pipeline_traces import block_trace, interleaved, kernel_trace, one_f_one_b, play, zb_h1

from llmsim.errors import UserError
from llmsim.plots import plot_timeline, save_figure


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
    return found + ([figure.get_suptitle()] if figure.get_suptitle() else [])


def test_importing_plots_imports_no_heavy_library():
    code = (
        "import sys, llmsim.plots; print([m for m in ('matplotlib', 'pandas', 'simpy') if m in sys.modules])"
    )
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
    assert [words.count(str(i)) >= 8 for i in range(8)] == [
        True
    ] * 8  # F and BW of each micro-batch on each stage


def test_timeline_saves_in_all_formats_and_refuses_others(tmp_path):
    figure = plot_timeline(block_trace(play(interleaved(2, 4, 2), 2)), arrows=True, title="Two chunks")
    for suffix in ("png", "svg", "pdf"):
        assert save_figure(figure, tmp_path / f"x.{suffix}").stat().st_size > 2000
    assert "Two chunks" in (tmp_path / "x.svg").read_text()
    with pytest.raises(UserError, match=r"must end in \.png, \.svg or \.pdf"):
        save_figure(figure, tmp_path / "x.gif")
    with pytest.raises(UserError, match="folder"):
        save_figure(figure, tmp_path / "nowhere" / "x.png")


def test_timeline_options_and_mistakes():
    trace = block_trace(play(zb_h1(4, 4)), ranks=8)
    assert "weight gradient" in texts(plot_timeline(trace, numbers=False))
    assert len(plot_timeline(trace, ranks=[0, 8]).axes[0].get_yticks()) == 2
    assert len(plot_timeline(trace, ranks="all").axes[0].get_yticks()) == 4
    with pytest.raises(
        UserError, match="rank 3 has no row in the trace; its representative ranks are 0, 8, 16, 24"
    ):
        plot_timeline(trace, ranks=[3])
    with pytest.raises(UserError, match="time range 3 to 2 s is empty"):
        plot_timeline(trace, time_range=(3, 2))
    zoomed = plot_timeline(trace, time_range=(2.0, 5.0))
    assert zoomed.axes[0].get_xlim() == (2.0, 5.0)
    assert "the trace is empty" in texts(plot_timeline(trace.iloc[:0]))


def test_timeline_of_kernels_shows_recomputation_and_transfers():
    words = texts(plot_timeline(kernel_trace(play(one_f_one_b(2, 2)), 4, recompute=True)))
    assert "recompute (its share)" in words and "communication" in words
