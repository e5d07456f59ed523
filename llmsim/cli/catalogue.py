"""`llmsim models | gpus | scenarios | topologies | schedules | frameworks`: what can be named."""

from collections.abc import Callable, Sequence
from typing import Any

import click

from llmsim.cli.options import AS_JSON
from llmsim.errors import UserError, nearest
from llmsim.units import format_bytes, format_rate

_SHAPE = ("layers", "hidden", "heads", "kv_heads", "ffn_hidden", "vocab")

Cell = Callable[[dict[str, Any]], object]


def _show(
    rows: list[dict[str, Any]],
    columns: dict[str, Cell],
    as_json: bool,
    left: int,
    note: str,
    spare: Sequence[str] = (),
) -> None:
    from llmsim.cli.console import print_json, print_table

    if as_json:
        print_json(rows)
        return
    print_table("", list(columns), [[cell(row) for cell in columns.values()] for row in rows], left, spare)
    click.echo(note)


@click.command()
@AS_JSON
@click.argument("words", nargs=-1)
def models(as_json: bool, words: Sequence[str]) -> None:
    """Models of the catalogue; WORDS keep those whose name or family holds one of them."""
    from llmsim.cli.summary import counted
    from llmsim.model.parameters import parameters
    from llmsim.model.published import model
    from llmsim.model.published import models as names

    rows = []
    for name in names():
        entry = model(name)
        if words and not any(word.lower() in f"{name} {entry.family}".lower() for word in words):
            continue
        shape = entry.architecture
        rows.append(
            {
                "name": name,
                "family": entry.family,
                "year": entry.year,
                "parameters": parameters(shape),
                "published_parameters": entry.published_parameters,
                **{key: getattr(shape, key) for key in _SHAPE},
                "experts": shape.moe.experts if shape.moe else 0,
                "training_tokens": entry.training_tokens,
                "dataset": entry.dataset,
                "source": entry.source,
            }
        )
    if not rows:
        raise UserError(f"no model's name or family holds {' or '.join(words)}{nearest(words[0], names())}")
    columns: dict[str, Cell] = {
        "model": lambda r: r["name"],
        "year": lambda r: r["year"],
        "parameters": lambda r: counted(r["parameters"]),
        "layers": lambda r: r["layers"],
        "hidden": lambda r: r["hidden"],
        "heads": lambda r: r["heads"],
        "kv": lambda r: r["kv_heads"],
        "ffn": lambda r: r["ffn_hidden"],
        "experts": lambda r: r["experts"] or None,
        "vocab": lambda r: r["vocab"],
        "tokens": lambda r: counted(r["training_tokens"]),
    }
    note = "A path to a Hugging Face config.json works too; sources: llmsim models --json"
    _show(rows, columns, as_json, 1, note, spare=("vocab", "kv", "ffn", "heads", "year"))


@click.command()
@AS_JSON
def gpus(as_json: bool) -> None:
    """GPUs of the catalogue: dense peaks, memory and links."""
    from dataclasses import asdict

    from llmsim.catalogue.gpus import gpu
    from llmsim.catalogue.gpus import gpus as names

    def peak(precision: str) -> Cell:
        return lambda r: f"{r['peak_flops'][precision] / 1e12:,.0f}" if precision in r["peak_flops"] else None

    columns: dict[str, Cell] = {
        "gpu": lambda r: r["name"],
        "memory": lambda r: format_bytes(r["memory_bytes"]),
        "HBM": lambda r: format_rate(r["memory_bandwidth"]),
        "fp16": peak("fp16"),
        "bf16": peak("bf16"),
        "fp8": peak("fp8"),
        "SMs": lambda r: r["sms"],
        "NVLink": lambda r: format_rate(r["nvlink_bandwidth"]) if r["nvlink_bandwidth"] else None,
        "PCIe": lambda r: format_rate(r["pcie_bandwidth"]),
        "TDP": lambda r: f"{r['tdp_w']:.0f} W",
    }
    note = "Peaks are dense TFLOP/s; link rates are of one direction, all links together."
    _show([asdict(gpu(name)) for name in names()], columns, as_json, 1, note, spare=("bf16", "PCIe", "SMs"))


@click.command()
@AS_JSON
def scenarios(as_json: bool) -> None:
    """Scenarios that come with llmsim: every command that takes a scenario takes such a name."""
    from llmsim.catalogue.shipped import shipped
    from llmsim.documents import read_document
    from llmsim.errors import ScenarioError
    from llmsim.scenario import load_scenario

    rows = []
    for name, file in shipped("scenarios").items():
        if "cluster" not in read_document(file, ScenarioError, "a scenario").data:
            continue  # a sweep, which names a scenario
        found = load_scenario(file)
        gpus, topology = found.resolve().gpus, found.cluster.topology
        rows.append({"name": name, "gpus": gpus, "topology": topology, "description": found.description})
    columns: dict[str, Cell] = {
        "scenario": lambda r: r["name"],
        "what it is": lambda r: r["description"],
        "GPUs": lambda r: f"{r['gpus']:,}",
    }
    _show(rows, columns, as_json, 2, "Run one by its name: llmsim run quickstart", spare=("GPUs",))


@click.command()
@AS_JSON
def topologies(as_json: bool) -> None:
    """Topologies that `cluster.topology` can name."""
    from llmsim.cluster.reading.load import load_topology
    from llmsim.cluster.reading.load import topologies as names

    rows = []
    for name in names():
        found = load_topology(name)
        rows.append(
            {
                "name": name,
                "gpu": found.node.gpu,
                "gpus": found.node.gpus,
                "scale_up": found.node.scale_up,
                "scale_up_bandwidth": found.scale_up_bandwidth,
                "nics": found.node.nics,
                "nic_bandwidth": found.node.nic.bandwidth,
                "network": found.network.kind,
                "fabric": found.network.fabric,
                "description": found.description,
            }
        )
    columns: dict[str, Cell] = {
        "topology": lambda r: r["name"],
        "node": lambda r: f"{r['gpus']} × {r['gpu']}",
        "inside": lambda r: f"{r['scale_up']} {format_rate(r['scale_up_bandwidth'])}",
        "outside": lambda r: f"{r['nics']} × {r['nic_bandwidth'] * 8e-9:g} Gb/s {r['fabric']}" if r["nics"] else None,
        "network": lambda r: r["network"],
    }
    note = "More on one: llmsim topology NAME; a path to a topology file works too."
    _show(rows, columns, as_json, 5, note, spare=("network",))


@click.command()
@AS_JSON
def schedules(as_json: bool) -> None:
    """Pipeline schedules that `parallelism.schedule` can name."""
    from llmsim.parallel.schedules import schedules as registered

    rows = [{"name": name, "description": about} for name, about in registered().items()]
    columns: dict[str, Cell] = {"schedule": lambda r: r["name"], "what it does": lambda r: r["description"]}
    _show(rows, columns, as_json, 2, "A path to a .csv table of ops works too.")


@click.command()
@AS_JSON
def frameworks(as_json: bool) -> None:
    """Training frameworks that `training.framework` can name, and what each sets."""
    from llmsim.catalogue.frameworks import frameworks as entries

    rows = [{"name": name} | {key: entry[key] for key in ("evidence", "scenario")} for name, entry in entries().items()]
    columns: dict[str, Cell] = {"framework": lambda r: r["name"], "what is known of it": lambda r: r["evidence"][0]}
    _show(rows, columns, as_json, 2, "A key that the scenario gives wins; all that is set: llmsim frameworks --json")
