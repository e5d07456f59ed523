import itertools

import pytest

from llmsim.cluster.reading.load import load_topology
from llmsim.plots.topology import plot_topology

CASES = [
    ("dgx-h100", 1), ("dgx-h100", 4), ("dgx-h100", 64), ("dgx-h100", 2048), ("dgx-v100", 2), ("gb200-nvl72", 8),
    ("hgx-h100-roce", 3072), ("pcie-a100-box", 1), ("aws-p5", 4), ("hgx-mi300x", 12), ("example-torus-2d", 16),
    ("example-torus-3d", 64), ("example-dragonfly", 64), ("example-rail-only", 40),
]  # fmt: skip


def texts(figure):
    renderer = figure.canvas.get_renderer()
    figure.draw_without_rendering()
    found = [text for axes in figure.axes for text in axes.texts]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in found]


@pytest.mark.parametrize(("name", "nodes"), CASES)
def test_no_text_overlaps_another_or_leaves_the_picture(name, nodes):
    figure = plot_topology(load_topology(name), nodes)
    drawn = texts(figure)
    for (a, box_a), (b, box_b) in itertools.combinations(drawn, 2):
        assert not box_a.overlaps(box_b), (a, b)
    for text, box in drawn:
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1, text


def test_the_picture_says_what_the_links_can_carry():
    said = " ".join(text for text, _ in texts(plot_topology(load_topology("dgx-h100"), 64)))
    for fact in ("450 GB/s", "400 Gb/s", "63 GB/s", "oversubscription 1:1", "8 spines", "16 leaves", "64 nodes"):
        assert fact in said
    mesh = " ".join(text for text, _ in texts(plot_topology(load_topology("dgx-v100"), 1)))
    assert "2 links, 50 GB/s" in mesh and "1 link, 25 GB/s" in mesh


def test_unused_gpus_are_marked_and_a_users_graph_is_drawn(tmp_path):
    said = [text for text, _ in texts(plot_topology(load_topology("dgx-h100"), 2, 4))]
    assert sum("not used" in text for text in said) == 4
    import networkx as nx

    from llmsim.cluster.as_graph import build_graph

    path = tmp_path / "mine.graphml"
    nx.write_graphml(build_graph(load_topology("dgx-a100"), 2), path)
    said = " ".join(text for text, _ in texts(plot_topology(load_topology(path), 2)))
    assert "16 gpu" in said and "300 GB/s" in said
