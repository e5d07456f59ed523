"""A cluster drawn: the inside of one node, and the fabric above the nodes."""

from typing import TYPE_CHECKING

from llmsim.cluster.cluster import Cluster
from llmsim.cluster.cluster_of import cluster_of
from llmsim.cluster.node import node_edges
from llmsim.cluster.topology import Topology
from llmsim.plots.devices import bare, box, gap, lines, note, shown
from llmsim.plots.style import new_figure
from llmsim.units import format_bytes, format_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_GPUS = 12  # columns of the node's picture


def plot_topology(topology: Topology, nodes: int, gpus_per_node: int | None = None) -> "Figure":
    """One node's inside, and above it (with more than one node) leaves, spines and cores.

    Bandwidths on the right are those of one link in one direction. Many alike devices are drawn as some and a gap.
    Raises `TopologyError` as `Cluster` does.
    """
    cluster = cluster_of(topology, nodes, gpus_per_node)
    if topology.graph:
        from llmsim.plots.fabric import draw_graph

        figure = new_figure(13, 8)
        draw_graph(figure.subplots(), topology)
        return figure
    figure = new_figure(13, 9.5 if nodes > 1 else 5.5)
    if nodes > 1:
        from llmsim.plots.fabric import draw_fabric

        above, inside = figure.subplots(2, 1, height_ratios=[1, 1.1])
        draw_fabric(above, cluster)
    else:
        inside = figure.subplots()
    _draw_node(inside, cluster)
    gpus = f"{cluster.gpus:,} GPU{'s' if cluster.gpus > 1 else ''}"
    title = f"{topology.name}: {nodes:,} node{'s' if nodes > 1 else ''}, {gpus}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12.5)
    return figure


def _draw_node(axes: "Axes", cluster: Cluster) -> None:
    topology, node = cluster.topology, cluster.topology.node
    drawn = shown(node.gpus, MOST_GPUS)
    columns = {local: x for x, local in enumerate(drawn) if local is not None}
    end = len(drawn) - 0.5
    place = _places(topology, columns)
    for (device, kind), (x, y, width) in place.items():
        if kind == "gpu" and int(device.removeprefix("gpu")) >= cluster.gpus_per_node:
            box(axes, x, y, f"{device}\nnot used", "unused", width, 0.5, 7)
        else:
            box(axes, x, y, _label(topology, device, kind), kind, width, 0.5)
    if None in drawn:
        gap(axes, drawn.index(None), 3.0, node.gpus - len(columns))
    where = {device: (x, y, width) for (device, _), (x, y, width) in place.items()}
    wide = where.pop("nvswitch", None)
    by_kind: dict[str, list] = {}
    for edge in node_edges(topology):
        if edge.tail in where and edge.head in where and edge.kind != "nvlink" and edge.tail < edge.head:
            by_kind.setdefault(edge.kind, []).append(_line(where[edge.tail], where[edge.head]))
    for kind, segments in by_kind.items():
        lines(axes, segments, kind)
    top, low = 4.6 if wide else 3.4, -0.4 if node.pcie.switches else 0.6
    if wide:
        lines(axes, [((x, 3.0), (x, 4.2)) for x in columns.values()], "nvlink", 2.0)
    elif topology.has_nvlink:
        top = _draw_mesh(axes, topology, columns)
    end = max(end, 7.5)
    _write_bandwidths(axes, topology, end + 0.3, bool(wide))
    bare(axes, f"Inside one node: {node.gpus} x {topology.gpu.label}", -1.0, end + 3.4, low, top)


def _line(a: tuple[float, float, float], b: tuple[float, float, float]) -> tuple:
    """Between two boxes: straight down where the upper one stands above the lower one, else from middle to middle."""
    (x, y, width), (other_x, other_y, other_width) = (a, b) if a[1] >= b[1] else (b, a)
    if y != other_y and abs(x - other_x) <= other_width / 2 - 0.05:
        other_x = x
    elif y != other_y and abs(x - other_x) <= width / 2 - 0.05:
        x = other_x
    return (x, y), (other_x, other_y)


def _places(topology: Topology, columns: dict[int, int]) -> dict[tuple[str, str], tuple[float, float, float]]:
    """(device, kind) -> x, y and width of its box.

    Rows from the top: NVSwitch, GPUs, PCIe switches, NICs, CPUs; where GPUs hang on the CPUs themselves, these take the
    place of the switches, so that no line crosses a NIC.
    """
    node = topology.node
    places = {(f"gpu{i}", "gpu"): (float(x), 3.0, 0.8) for i, x in columns.items()}
    if topology.has_nvlink and node.mesh is None:
        last = max(columns.values())
        places["nvswitch", "nvswitch"] = (last / 2, 4.2, last + 0.8)

    def row(kind: str, count: int, y: float, names: list[str], widest: float) -> None:
        """Devices spread evenly below the GPUs they belong to; those of GPUs that are not drawn are left out."""
        for k, name in enumerate(names):
            owners = [columns[i] for i in columns if i * count // node.gpus == k]
            if not owners and count > node.gpus // 2:
                continue
            if owners:
                spread = max(owners) - min(owners)
                places[name, kind] = ((min(owners) + max(owners)) / 2, y, min(widest, spread + 0.8))

    switches, sockets = node.pcie.switches, node.cpu.sockets
    row("pcie", switches, 2.0, [f"pcie{k}" for k in range(switches)], 3.6)
    ports = [edge for edge in node_edges(topology) if edge.kind == "slot" and edge.tail.startswith("nic")]
    row("nic", len(ports), 1.0, [edge.tail for edge in ports], 0.8)
    row("cpu", sockets, 0.0 if switches else 2.0, [f"cpu{k}" for k in range(sockets)], 8.0)
    return _apart(places) if switches else places


def _apart(places: dict) -> dict:
    """Moves a NIC that sits straight below its PCIe switch aside, where the line from the switch to the CPU runs."""
    lower = {x for (_, kind), (x, _, _) in places.items() if kind == "pcie"}
    return {
        (device, kind): (x - 0.5, y, width) if kind == "nic" and x in lower else (x, y, width)
        for (device, kind), (x, y, width) in places.items()
    }


def _label(topology: Topology, device: str, kind: str) -> str:
    node = topology.node
    if kind == "nvswitch":
        return f"NVSwitch ({node.nvswitches} chips)" if node.nvswitches > 1 else "NVSwitch"
    if kind == "gpu":
        return f"{device}\n{format_bytes(topology.gpu.memory_bytes)}"
    if kind == "cpu":
        return f"{device}\n{format_bytes(node.cpu.memory / node.cpu.sockets)}"
    return device.replace("..", "–").replace("pcie", "PCIe ")


def _draw_mesh(axes: "Axes", topology: Topology, columns: dict[int, int]) -> float:
    """Arcs above the GPUs, one for each two that are wired, as wide as their links; the highest point."""
    from matplotlib.patches import Arc

    mesh, high = topology.node.mesh, 3.4
    most = max(max(row) for row in mesh)
    for i in columns:
        for j in columns:
            if i < j and mesh[i][j]:
                a, b = columns[i], columns[j]
                rise = 0.35 + 0.32 * (b - a)
                colour = "#009E73" if mesh[i][j] == most else "#56B4E9"
                axes.add_patch(
                    Arc(((a + b) / 2, 3.25), b - a, 2 * rise, theta1=0, theta2=180, color=colour,
                        linewidth=3.2 if mesh[i][j] == most else 1.6, zorder=1)
                )  # fmt: skip
                high = max(high, 3.25 + rise)
    return high + 0.25


def _write_bandwidths(axes: "Axes", topology: Topology, x: float, switched: bool) -> None:
    """One line for each kind of link, at the height where it runs; one direction each."""
    node = topology.node
    if switched:
        note(axes, x, 3.6, f"NVLink {format_rate(node.scale_up_bandwidth)}\nfrom each GPU, each way")
    elif topology.has_nvlink:
        one = node.scale_up_bandwidth / max(sum(row) for row in node.mesh)
        kinds = sorted({n for row in node.mesh for n in row if n}, reverse=True)
        text = [f"{'thick' if n == kinds[0] and len(kinds) > 1 else 'thin' if len(kinds) > 1 else 'arcs'}: "
                f"{n} link{'s' if n > 1 else ''}, {format_rate(n * one)}" for n in kinds]  # fmt: skip
        note(axes, x, 3.8, "\n".join(["NVLink, each way", *text]))
    host = "NVLink-C2C" if topology.gpu.c2c_bandwidth else "PCIe"
    rate = topology.gpu.c2c_bandwidth or node.pcie.bandwidth
    peer = "" if node.pcie.p2p else "\nno peer-to-peer: via host memory"
    note(axes, x, 2.5, f"{host} {format_rate(rate)} each way{peer}")
    if topology.nic_ports:
        each = format_rate(node.nic.bandwidth * 8, "b/s")
        note(axes, x, 1.0, f"{node.nics} NIC{'s' if node.nics > 1 else ''} of {each}\n"
                           f"{format_rate(topology.scale_out_bandwidth)} for each GPU, each way")  # fmt: skip
    if node.cpu.sockets > 1:
        note(axes, x, 0.0 if node.pcie.switches else 2.0, f"CPU to CPU {format_rate(node.cpu.link_bandwidth)}\n"
                           f"host memory {format_rate(node.cpu.memory_bandwidth)} a CPU")  # fmt: skip
