"""The result of a run on one screen, for people. What a result lacks is left out."""

from typing import TYPE_CHECKING, Any

from llmsim.economics.reading import training_tokens
from llmsim.units import format_rate, format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from llmsim.scenario import Scenario
    from llmsim.studies.remedies import Remedy

_BAR = 40  # characters of the longest bar
_PARTS = {
    "compute": "compute",
    "exposed_tp": "waiting for tensor parallel",
    "exposed_cp": "waiting for context parallel",
    "exposed_ep": "waiting for expert parallel",
    "exposed_pp": "waiting for pipeline transfers",
    "exposed_dp": "waiting for data parallel",
    "bubble": "pipeline bubble",
    "optimizer": "optimizer step",
    "offload": "waiting for offload",
    "data": "waiting for data",
    "other": "other",
}


def print_summary(scenario: "Scenario", metrics: dict[str, Any], remedies: "Sequence[Remedy] | None" = ()) -> None:
    """Headline, key figures, where the time goes, which traffic crosses what, memory, and what would make it fit."""
    from llmsim.cli.console import console
    from llmsim.cli.traffic import print_traffic

    out = console()
    for line in headline(scenario, metrics):
        out.print(line, markup=False)
    out.print()
    for label, text in figures(scenario, metrics):
        out.print(f"  {label:<16}{text}", markup=False, soft_wrap=True)
    _print_breakdown(out, metrics)
    print_traffic(out, metrics)
    _print_memory(out, metrics)
    _print_shortfall(out, metrics, remedies)
    if simulation := metrics.get("simulation"):
        out.print()
        out.print(_simulated(simulation), style="dim", markup=False)


def headline(scenario: "Scenario", metrics: dict[str, Any]) -> list[str]:
    resolved, training = scenario.resolve(), scenario.training
    layout = metrics["layout"]
    degrees = [f"{axis} {layout[axis]}" for axis in ("tp", "cp", "ep", "pp", "vpp", "dp") if layout.get(axis, 1) > 1]
    nodes = _many(resolved.nodes, "node")
    pipeline = f", {scenario.parallelism.schedule}" if layout["pp"] > 1 else ""
    return [
        f"{metrics['name']}: {resolved.architecture.name} ({counted(metrics['parameters'])} parameters) on "
        f"{metrics['gpus']} × {resolved.topology.gpu.label}, {nodes} of {resolved.topology.name}",
        f"{' · '.join(degrees) or 'one GPU'}{pipeline}; {training.global_batch} sequences of {training.seq_len} tokens "
        f"in {_many(layout['micro_batches'], 'micro-batch')} of {training.micro_batch}, {training.precision}",
    ]


def caption(metrics: dict[str, Any], schedule: str) -> str:
    """One line over a picture: what it shows, and how long an iteration takes."""
    layout = metrics["layout"]
    stages = [schedule, _many(layout["pp"], "stage")] if layout["pp"] > 1 else ["one stage"]
    parts = [*stages, _many(layout["micro_batches"], "micro-batch")]
    return f"{metrics['name']}: {', '.join(parts)}, {format_seconds(metrics['iteration_time_s'])} an iteration"


def figures(scenario: "Scenario", metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """(label, text) of each figure that the result holds."""
    from llmsim.memory.summary import TIGHT

    rows = [
        ("iteration", format_seconds(metrics["iteration_time_s"])),
        (
            "throughput",
            f"{metrics['tokens_per_s']:,.0f} tokens/s, {metrics['tokens_per_s_per_gpu']:,.0f} per GPU",
        ),
        (
            "model FLOP/s",
            f"{metrics['model_tflops_per_gpu']:.1f} TFLOP/s per GPU, MFU {metrics['mfu']:.1%}"
            f"   (executed: {metrics['hardware_tflops_per_gpu']:.1f}, HFU {metrics['hfu']:.1%})",
        ),
    ]
    if metrics["layout"]["pp"] > 1:
        ideal = metrics["bubble_over_ideal"]
        rows.append(("pipeline bubble", f"{metrics['bubble_fraction']:.1%} of the span, {ideal:.1%} of the ideal time"))
    if memory := metrics.get("memory"):
        own = memory["peak_gib"] <= memory["capacity_gib"]
        fits = "fits" if own else "DOES NOT FIT"
        if own and memory["peak_gib"] > TIGHT * memory["capacity_gib"]:
            fits = f"fits tightly: {memory['peak_allocated_gib']:.1f} GiB are tensors, the allocator's gaps shrink"
        rows.append(("memory", f"{memory['peak_gib']:.1f} of {memory['capacity_gib']:.1f} GiB, {fits}"))
        for place, label in (("cpu", "CPU memory"), ("nvme", "disks")):
            if store := memory.get(place):
                fits = "fits" if store["fits"] else "DOES NOT FIT"
                text = f"{store['peak_gib']:.1f} of {store['capacity_gib']:,.1f} GiB of a node, {fits}"
                rows.append((label, text))
    if metrics.get("time_to_train_s"):
        bill = [f"${metrics['cost_usd']:,.0f}"] if metrics.get("cost_usd") else []
        bill += [f"{metrics['energy_kwh'] / 1000:,.1f} MWh"] if metrics.get("energy_kwh") else []
        text = f"{format_seconds(metrics['time_to_train_s'])} for {counted(training_tokens(scenario))} tokens"
        rows.append(("time to train", ", ".join([text, *bill])))
    if metrics.get("bottleneck"):
        reason = metrics.get("bottleneck_reason")
        rows.append(("bottleneck", metrics["bottleneck"] + (f": {reason}" if reason else "")))
    return rows


def _print_breakdown(out: "Console", metrics: dict[str, Any]) -> None:
    parts = {key: value for key, value in metrics.get("time_breakdown", {}).items() if value > 0}
    if not parts:
        return
    total, longest = metrics["iteration_time_s"], max(parts.values())
    out.print("\nwhere the time goes, mean over GPUs", style="bold")
    for key, seconds in sorted(parts.items(), key=lambda part: -part[1]):
        bar = "█" * round(_BAR * seconds / longest) or "▏"
        out.print(
            f"  {_PARTS.get(key, key):<31}{format_seconds(seconds):>9} {seconds / total:>7.1%}  {bar}", markup=False
        )


def _print_memory(out: "Console", metrics: dict[str, Any]) -> None:
    from llmsim.cli.console import print_table

    stages = metrics.get("memory", {}).get("per_stage", [])
    if not stages:
        return
    names = ("parameters", "gradients", "optimizer", "activations", "temporary", "reserved", "peak")
    shown = [name for name in names if any(stage.get(f"{name}_gib") for stage in stages)]
    fullest = max(stages, key=lambda stage: stage["peak_gib"])
    some = [stage for stage in stages if len(stages) <= 4 or stage in (stages[0], fullest, stages[-1])]
    left_out = f", {len(some)} of {len(stages)} stages" if len(some) < len(stages) else ""
    out.print(f"\nmemory in GiB{left_out}", style="bold")
    rows = [[stage["stage"], *(f"{stage.get(f'{name}_gib', 0):.1f}" for name in shown)] for stage in some]
    print_table("", ("stage", *shown), rows)


def _print_shortfall(out: "Console", metrics: dict[str, Any], remedies: "Sequence[Remedy] | None") -> None:
    """remedies: None where none were looked for, empty where none were found."""
    from llmsim.memory.shortfall import shortfalls

    missing = shortfalls(metrics["memory"]) if metrics.get("memory") else []
    if not missing:
        return
    out.print("does not fit", style="bold")
    for each in missing:
        out.print(f"  {each}.", markup=False)
    if remedies is None:
        out.print("  With --advise, changes that would make it fit are simulated, which takes longer than this run.")
        return
    if not remedies:
        out.print("  No change that was tried makes it fit; it takes more GPUs, or GPUs with more memory.")
        return
    out.print("\nwhat would make it fit, cheapest first (simulated, with the same global batch)", style="bold")
    for number, each in enumerate(remedies, 1):
        out.print(
            f"  {number}. {format_seconds(each.iteration_time_s)} an iteration ({each.slowdown:+.1%}), GPU time "
            f"{each.gpu_time:+.1%}, {each.peak_gib:.1f} GiB at most",
            markup=False,
        )
        out.print(f"     {each.text}", markup=False, soft_wrap=True)


def _simulated(simulation: dict[str, Any]) -> str:
    events, classes, ranks = simulation.get("events", 0), simulation.get("classes"), simulation.get("ranks")
    return (
        f"simulated {_many(ranks, 'rank')} as {_many(classes, 'class')}: {events:,} events in "
        f"{format_seconds(simulation['wall_s'])}, detail {simulation['detail']}"
    )


def _many(number: int, noun: str) -> str:
    ending = "" if number == 1 else "es" if noun.endswith(("s", "ch")) else "s"
    return f"{number:,} {noun}{ending}"


def counted(number: float | None) -> str:
    """`6.74 B`, as people write parameters and tokens."""
    if number is None:
        return "–"
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}" if number < 1000 * scale else f"{number / scale:,.0f} {unit}"
    return format_rate(number, "")
