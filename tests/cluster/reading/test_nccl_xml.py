"""NCCL and RCCL topology files: which GPU, which links, which NICs. Dumps of our own making in the format of xml.cc."""

import time

import pytest
from click.testing import CliRunner

from llmsim.catalogue.gpus import gpu
from llmsim.catalogue.pci_ids import pci_device, pci_names
from llmsim.cli.topology import topology as command
from llmsim.cluster.cluster_of import cluster_of
from llmsim.cluster.reading.load import load_topology
from llmsim.errors import TopologyError

SWITCH = '<nvlink target="0000:c0:00.0" count="{}" tclass="0x068000"/>'


def nic(i, ports=(400_000,), bus="f{}", function=0, attributes=""):
    """A card of one PCI function: ports with a name and a number each, as NCCL prints them."""
    nets = "".join(
        f'<net name="mlx5_{i}_{function}{p}" dev="{8 * i + function + p}" speed="{speed}" port="{p + 1}" guid="0x{i}" '
        f"{attributes}/>"
        for p, speed in enumerate(ports)
    )
    bus = f"0000:{bus.format(i)}:00.{function}"
    return f'<pci busid="{bus}" class="0x020700" vendor="0x15b3" device="0x1021"><nic>{nets}</nic></pci>'


def system(
    gpus=4, vendor="0x10de", device="0x2330", links=lambda i: SWITCH.format(18), nics=nic, root="", sm="90",
    pci_class="0x030200", ids=True,
):  # fmt: skip
    """Two CPUs with a PCIe switch for each GPU and its NIC; root: more devices at the first CPU's root ports."""
    switches = []
    for i in range(gpus):
        named = f'vendor="{vendor}" device="{device}"' if ids else ""
        switches.append(
            f'<pci busid="0000:b{i}:00.0" class="0x060400" link_speed="32.0 GT/s PCIe" link_width="16">'
            f'<pci busid="0000:a{i}:00.0" class="{pci_class}" {named} link_speed="32.0 GT/s PCIe" link_width="16">'
            f'<gpu dev="{i}" sm="{sm}" rank="{i}" gdr="1">{links(i)}</gpu></pci>{nics(i)}</pci>'
        )
    half = gpus // 2
    first, second = "".join(switches[:half]) + root, "".join(switches[half:])
    return f'<system version="1"><cpu numaid="0">{first}</cpu><cpu numaid="1">{second}</cpu></system>'


@pytest.fixture
def load(tmp_path):
    def read(text, **overrides):
        path = tmp_path / "system.xml"
        path.write_text(text)
        return load_topology(path, {key.replace("__", "."): value for key, value in overrides.items()})

    return read


def test_a_node_of_nvswitches(load):
    topology = load(system())
    assert (topology.node.gpus, topology.node.nics, topology.node.scale_up) == (4, 4, "nvswitch")
    assert topology.scale_up_bandwidth == 450e9 and topology.scale_out_bandwidth == 50e9
    assert topology.node.pcie.switches == 4 and topology.node.pcie.bandwidth == pytest.approx(63e9, rel=1e-3)
    assert topology.node.cpu.sockets == 2
    assert cluster_of(topology, 4).routes(0, [1, 4]).bandwidth.tolist() == [450e9, 50e9]


def test_links_are_added_over_switches_and_the_least_counts(load):
    parts = "".join(SWITCH.format(n).replace("c0", f"c{n}") for n in (5, 4, 6, 3))
    assert load(system(links=lambda i: parts)).scale_up_bandwidth == 450e9
    assert load(system(links=lambda i: SWITCH.format(18 - (i == 2)))).scale_up_bandwidth == 17 * 25e9
    assert load(system(links=lambda i: SWITCH.format(8), device="0x2324")).scale_up_bandwidth == 200e9
    untold = '<nvlink target="fffffff:ffff:ff" count="18"/>'  # a switch that a virtual machine does not see
    assert load(system(links=lambda i: untold)).node.scale_up == "nvswitch"
    with pytest.raises(TopologyError, match=r"GPU 0000:a1:00\.0 has no link to a switch and others do"):
        load(system(links=lambda i: SWITCH.format(18) if i != 1 else ""))


def test_direct_links_make_a_mesh(load):
    def links(i):
        return f'<nvlink target="0000:A{i ^ 1}:00.0" count="6" tclass="0x030200"/>'

    pairs = load(system(links=links, device="0x1db5"))
    assert pairs.node.scale_up == "cube-mesh" and pairs.node.mesh[0] == (0, 6, 0, 0)
    assert cluster_of(pairs, 1).routes(0, [1, 2]).hops.tolist() == [1, 5]  # over PCIe and both CPUs
    to_cpu = '<nvlink target="0004:00:00.0" count="3" tclass="0x068001"/>'  # POWER9
    assert load(system(links=lambda i: to_cpu, device="0x1db5")).node.scale_up == "pcie"


@pytest.mark.parametrize(("gpus", "each", "device"), [(8, 1, "0x74a1"), (4, 2, "0x74a1"), (8, 1, "0x74a5")])
def test_infinity_fabric(load, gpus, each, device):
    def links(i):
        return "".join(
            f'<xgmi target="0000:a{j}:00.0" count="{each}" tclass="0x120000"/>' for j in range(gpus) if j != i
        )

    amd = {"vendor": "0x1002", "device": device, "pci_class": "0x120000", "sm": "304"}
    topology = load(system(gpus, links=links, **amd))
    assert topology.gpu.name == {"0x74a1": "mi300x", "0x74a5": "mi325x"}[device]
    assert topology.scale_up_bandwidth == (gpus - 1) * each * 64e9
    assert cluster_of(topology, 2).routes(0, [1, gpus]).bandwidth.tolist() == [each * 64e9, 50e9]


DEVICES = [
    ("0x10de", "0x1db1", "v100-16"), ("0x10de", "0x1db5", "v100-32"), ("0x10de", "0x20b0", "a100-40"),
    ("0x10de", "0x20b2", "a100-80"), ("0x10de", "0x20F1", "a100-pcie-40"), ("0x10de", "0x20b5", "a100-pcie-80"),
    ("0x10de", "0x20f3", "a800-80"), ("0x10de", "0x2324", "h800"), ("0x10de", "0x2329", "h20"),
    ("10de", "2330", "h100-sxm"), ("0x10DE", "0x2331", "h100-pcie"), ("0x10de", "0x2335", "h200"),
    ("0x10de", "0x2901", "b200"), ("0x10de", "0x2941", "gb200"), ("0x10de", "0x3182", "b300"),
]  # fmt: skip


@pytest.mark.parametrize(("vendor", "device", "name"), DEVICES)
def test_the_gpu_is_told_by_its_device_id(load, vendor, device, name):
    assert load(system(vendor=vendor, device=device, sm="1")).gpu.name == name


def test_every_device_of_the_table_is_in_the_catalogue_or_says_so():
    assert len(pci_names()) > 50 and all(device.name for device in pci_names())
    for device in pci_names():
        assert device.gpu is None or gpu(device.gpu).name == device.gpu
    assert pci_device(0x10DE, 0x1234) is None and pci_device(0, 0) is None


@pytest.mark.parametrize(("options", "why"), [
    ({"device": "0x2321"}, "the GPUs are H100L 94GB, which the catalogue does not have"),
    ({"vendor": "0x1002", "device": "0x7408"}, "the GPUs are one die of an Instinct MI250X, which"),
    ({"device": "0xffff"}, "the GPUs cannot be told from vendor 0x10de and device 0xffff"),
    ({"device": "2330x"}, "the GPUs cannot be told from vendor 0x10de and device 2330x"),
    ({"ids": False}, "the GPUs cannot be told from sm 90 without vendor and device"),
])  # fmt: skip
def test_other_gpus_need_the_override(load, options, why):
    with pytest.raises(TopologyError, match=f"{why}.*; set the override node.gpu to a name from `llmsim gpus`"):
        load(system(**options))
    assert load(system(**options), node__gpu="h100-sxm").scale_up_bandwidth == 450e9


def test_gpus_of_two_models(load):
    mixed = system().replace("0x2330", "0x2331", 1)
    with pytest.raises(TopologyError, match=r"of several models \(.*0x2330, .*0x2331\); set the override node.gpu"):
        load(mixed)


def test_ports_of_a_card_add_up_once(load):
    assert load(system(nics=lambda i: nic(i, (200_000, 200_000)))).scale_out_bandwidth == 50e9
    both = load(system(nics=lambda i: nic(i, (100_000,)) + nic(i, (100_000,), function=1)))  # two functions of a card
    assert both.node.nics == 4 and both.scale_out_bandwidth == 25e9
    twice = load(system(nics=lambda i: nic(i) + nic(i)))  # the same port again
    assert twice.node.nics == 4 and twice.scale_out_bandwidth == 50e9
    two_cards = load(system(nics=lambda i: nic(i) + nic(i, bus="e{}")))
    assert two_cards.node.nics == 8 and two_cards.scale_out_bandwidth == pytest.approx(100e9)


@pytest.mark.parametrize("storage", [
    nic(8, (200_000,), "d{}") + nic(9, (100_000,), "d{}"),  # at the root
    '<pci busid="0000:d0:00.0" class="0x060400">' + nic(8, (400_000,), "d{}") + "</pci>",  # below a switch of its own
    '<nic><net name="eth0" dev="70" speed="10000" port="0"/></nic>',  # a NIC of a virtual machine, without PCI device
])  # fmt: skip
def test_nics_away_from_gpus_are_for_storage(load, storage):
    topology = load(system(nics=lambda i: nic(i, (200_000,)), root=storage))
    assert topology.node.nics == 4 and topology.scale_out_bandwidth == 25e9


def test_without_a_switch_the_fastest_nics_of_the_cpu_count(load):
    root = nic(8, (200_000,), "d{}") + nic(9, (200_000,), "d{}") + nic(7, (25_000,), "d{}")
    topology = load(system(nics=lambda i: "", root=root))
    assert topology.node.nics == 2 and topology.scale_out_bandwidth == 12.5e9
    alone = load(system(nics=lambda i: "", root='<nic><net name="eth0" dev="0" speed="100000" port="0"/></nic>'))
    assert alone.node.nics == 1 and alone.node.nic.bandwidth == 12.5e9


def test_ports_that_nccl_does_not_use(load):
    unused = nic(5, bus="d{}").replace('dev="40" ', "")
    no_net = [nic(i, (800_000,), "e{}", attributes='net="0"') for i in range(4)]
    topology = load(system(nics=lambda i: nic(i, (100_000,)) + unused + no_net[i]))
    assert topology.node.nics == 4 and topology.scale_out_bandwidth == 12.5e9


@pytest.mark.parametrize("speed", ["", "-1", "0"])
def test_nics_of_unknown_speed(load, speed):
    with pytest.raises(TopologyError, match=r"says no speed of NICs; set the override node\.nic\.bandwidth"):
        load(system(nics=lambda i: nic(i, (speed,))))
    assert load(system(nics=lambda i: nic(i, (speed,))), node__nic__bandwidth="200 Gbps").scale_out_bandwidth == 25e9


def test_files_written_by_hand(load):
    """As clouds ship them: classes, but neither <gpu> nor <net>."""
    card = '<pci busid="0000:b{0}:00.0" class="0x060400"><pci busid="0000:a{0}:00.0" class="0x030200"/>{1}</pci>'
    nics = '<pci busid="0000:f{0}:00.0" class="0x020700"/>'
    text = "".join(card.format(i, nics.format(i)) for i in range(4))
    overrides = {"node__gpu": "a100-80", "node__nic__bandwidth": "200 Gbps", "node__scale_up": "nvswitch"}
    topology = load(f"<system version='1'><cpu numaid='0'>{text}</cpu></system>", **overrides)
    assert (topology.node.gpus, topology.node.nics, topology.scale_up_bandwidth) == (4, 4, 300e9)


def test_a_machine_without_nic(load):
    alone = load(system(nics=lambda i: ""))
    assert cluster_of(alone, 1).gpus == 4
    with pytest.raises(TopologyError, match=r"system\.xml has no NIC, .* set the overrides node\.nics and node\.nic"):
        cluster_of(alone, 2)
    with pytest.raises(TopologyError, match=r"set the override node\.nic\.bandwidth"):
        load(system(nics=lambda i: ""), node__nics=4)
    given = load(system(nics=lambda i: ""), node__nics=4, node__nic__bandwidth="400 Gbps")
    assert cluster_of(given, 2).routes(0, 4).bandwidth.tolist() == [50e9]


LAUGHS = '<!DOCTYPE s [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi")
) + "]><system><cpu>&i;</cpu></system>"  # fmt: skip
ODD = {
    "count is empty": (system(links=lambda i: SWITCH.format("")), "<nvlink> count: '' is not accepted; expected"),
    "count is negative": (system(links=lambda i: SWITCH.format(-3)), "<nvlink> count: '-3' is not .* from 1 to 1024"),
    "count is huge": (system(links=lambda i: SWITCH.format("1" * 400)), "<nvlink> count: '1111"),
    "count is half": (system(links=lambda i: SWITCH.format("1.5")), "<nvlink> count: '1.5' is not"),
    "count is no number": (system(links=lambda i: SWITCH.format("nan")), "<nvlink> count: 'nan' is not"),
    "xgmi": (system(links=lambda i: '<xgmi target="0000:a1:00.0" count="x"/>'), "<xgmi> count: 'x' is not accepted"),
    "speed": (system(nics=lambda i: nic(i, ("fast",))), "<net> speed: 'fast' is not .* from 0 to 1e\\+08 Mb/s"),
    "speed without end": (system(nics=lambda i: nic(i, ("inf",))), "<net> speed: 'inf' is not accepted"),
    "entities": (LAUGHS, "a document type is not accepted"),
    "deep": ("<system>" + "<pci>" * 200_000 + "</pci>" * 200_000 + "</system>", "elements nest deeper than 100"),
    "no GPU": ("<system><cpu/></system>", "there is no GPU in this NCCL topology"),
    "another file": ("<graphs/>", "expected <system> at the top, found <graphs>"),
    "no XML": ("not xml", "not readable XML"),
    "encoding": ('<?xml version="1.0" encoding="klingon"?><system/>', "not readable XML"),
    "many": (system(1100, links=lambda i: ""), "1100 GPUs are no node; expected at most 1024"),
}  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_odd_files_end_in_one_sentence(load, odd):
    text, message = ODD[odd]
    start = time.monotonic()
    with pytest.raises(TopologyError, match=message) as caught:
        load(text)
    assert "\n" not in str(caught.value) and str(caught.value).count("system.xml: ") == 1
    assert time.monotonic() - start < 5


def test_odd_slots_take_the_rate_of_the_gpu(load):
    for slot in ('link_speed="" link_width=""', 'link_speed="Unknown speed" link_width="²"', 'link_speed="9e9 GT/s"'):
        text = system().replace('link_speed="32.0 GT/s PCIe" link_width="16"', slot)
        assert load(text).node.pcie.bandwidth == gpu("h100-sxm").pcie_bandwidth
    older = load(system().replace('"32.0 GT/s PCIe" link_width="16"', '"5 GT/s" link_width="8"'))
    assert older.node.pcie.bandwidth == 4e9


def test_the_command(tmp_path):
    path = tmp_path / "no-nic.xml"
    path.write_text(system(nics=lambda i: ""))
    sets = ["--set", "node.nics=4", "--set", "node.nic.bandwidth=400 Gbps"]
    assert CliRunner().invoke(command, [str(path), "--nodes", "2", *sets]).exit_code == 0
    refused = CliRunner().invoke(command, [str(path), "--nodes", "2"])
    assert isinstance(refused.exception, TopologyError)
