"""Ring: every member passes blocks to its right-hand neighbour (Thakur, Rabenseifner & Gropp 2005, §4).

All-gather and reduce-scatter take n-1 steps of size/n, all-reduce both: 2(n-1)(α + S/(n·B)).
"""

from llmsim.collectives.phase import Phase


def ring_phases(
    steps: int,
    crossings: int,
    block: float,
    bandwidth: float,
    hop: float,
    crossing: float,
    inter_share: float,
    sms: int = 0,
) -> tuple[Phase, ...]:
    """`steps` equal steps of `block` bytes at `bandwidth` bytes/s, of which `crossings` have a network hop's latency.

    hop, crossing: latency in seconds of a step within a node and between nodes. `inter_share`: the share of the
    members' sends that leave the node (every member's average, since each channel crosses at another member).
    """
    seconds = block / bandwidth
    phase = [seconds, block * (1 - inter_share), block * inter_share, sms]
    inner = steps - crossings
    phases = []
    if inner:
        phases.append(Phase(inner, hop, *phase))
    if crossings:
        phases.append(Phase(crossings, crossing, *phase))
    return tuple(phases)
