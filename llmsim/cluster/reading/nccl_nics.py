"""Which NICs of an NCCL topology a job uses, as NCCL picks them: those nearest to its GPUs, the fastest of these.

A card for storage sits at the root of a CPU while the others share a PCIe switch with GPUs, or is slower than they are.
The functions of one PCI device are ports of one card. `ncclTopoGetLocal`, `ncclTopoAddNic` in src/graph of NVIDIA/nccl.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from llmsim.cluster.reading.nccl_numbers import number

NIC_CLASS = "0x02"
_UNKNOWN = 10_000.0  # Mb/s that NCCL takes for a NIC that says none
_MOST = 1e8  # Mb/s; more is no NIC
_SAME_CPU, _OTHER_CPU = 1000, 2000  # distances beyond any number of PCIe bridges

Parents = Mapping[Element, Element]


@dataclass(frozen=True, slots=True)
class Card:
    """speed: Mb/s of all ports together, 0 where the file does not say. place: the element that it hangs on."""

    place: Element
    speed: float


def cards_of_job(gpus: Sequence[Element], root: Element, parents: Parents, path: Path) -> list[Card]:
    """The cards that NCCL would send through for these GPUs; `TopologyError` for a speed that is none."""
    cards = _cards(root, parents, path)
    chosen: dict[int, Card] = {}
    for gpu in gpus:
        near = [(_distance(gpu, card.place, parents), -(card.speed or _UNKNOWN)) for card in cards]
        chosen |= {i: cards[i] for i, key in enumerate(near) if key == min(near)}
    return [card for _, card in sorted(chosen.items())]


def _cards(root: Element, parents: Parents, path: Path) -> list[Card]:
    """All cards. Files written by hand have PCI devices of a NIC's class and say nothing of their ports."""
    nets = [net for net in root.iter("net") if net.get("net") != "0"]
    nets = [net for net in nets if net.get("dev")] or nets  # a dump lists ports that NCCL does not use without dev
    if not nets:
        return [Card(pci, 0.0) for pci in root.iter("pci") if pci.get("class", "").startswith(NIC_CLASS)]
    places: dict[object, Element] = {}
    ports: dict[object, dict[object, float]] = {}
    for i, net in enumerate(nets):
        place = parents[net]
        while place.tag not in ("pci", "cpu", "system"):
            place = parents[place]
        port = (net.get("name", i), net.get("port"))
        card = (_cpu(place, parents), place.get("busid", "").rpartition(".")[0]) if place.tag == "pci" else port
        places.setdefault(card, place)
        ports.setdefault(card, {})[port] = _speed(net, path)
    return [Card(places[card], sum(ports[card].values())) for card in places]


def _speed(net: Element, path: Path) -> float:
    """Mb/s; 0 where the driver does not tell (`-1`, or nothing)."""
    if net.get("speed") in (None, "", "-1"):
        return 0.0
    return number(net, "speed", 0, _MOST, path, "Mb/s")


def _cpu(place: Element, parents: Parents) -> Element:
    while place.tag == "pci" and place in parents:
        place = parents[place]
    return place


def _distance(gpu: Element, place: Element, parents: Parents) -> int:
    """Bridges up from the GPU to what it shares with the NIC; far more through a CPU, most from one CPU to another."""
    above = {place}
    while place in parents:
        place = parents[place]
        above.add(place)
    bridges = 0
    while gpu not in above:
        gpu, bridges = parents[gpu], bridges + 1
    return bridges if gpu.tag == "pci" else _SAME_CPU if gpu.tag == "cpu" else _OTHER_CPU
