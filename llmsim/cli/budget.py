"""`llmsim budget`: which model with this cluster in so many days."""

import click

from llmsim.cli.options import AS_JSON, SETTINGS, open_scenario


@click.command()
@click.argument("scenario")
@click.option("--days", type=float, default=30.0, show_default=True, help="How long the cluster is yours.")
@click.option("--law", "only", help="A fit of the scaling law; all of them when left out.")
@SETTINGS
@AS_JSON
def budget(scenario: str, days: float, only: str | None, settings: tuple[str, ...], as_json: bool) -> None:
    """Which model SCENARIO's cluster is worth in some DAYS, at the speed that SCENARIO trains at.

    Compute-optimal sizes and over-trained ones by the Chinchilla fits, beside what SCENARIO's own model would become.
    """
    from dataclasses import asdict

    import llmsim
    from llmsim.cli.console import print_json, print_table, warn
    from llmsim.cli.summary import counted
    from llmsim.economics.bill import training_bill
    from llmsim.economics.budget import MOST_DAYS, budget_flops, choice, choices
    from llmsim.economics.chinchilla import law, laws
    from llmsim.errors import UserError

    if not 0 < days <= MOST_DAYS:  # before the simulation
        raise UserError(f"--days: {days:g} is out of range; expected more than 0 and at most {MOST_DAYS:,}")
    loaded = open_scenario(scenario, (*settings, "simulation.detail=block"))
    fits = [law(name) for name in ([only] if only else laws())]
    metrics = llmsim.simulate(loaded).metrics
    flops = budget_flops(days, metrics["gpus"], metrics["model_tflops_per_gpu"] * 1e12)
    bill = training_bill(loaded, days * 86400.0, metrics["time_breakdown"])
    # Of experts, those that a token passes through do the work and count for the law.
    own = {fit.name: choice(fit, flops, metrics["active_parameters"]) for fit in fits}
    if as_json:
        document = {
            "name": loaded.name, "days": days, "gpus": metrics["gpus"], "mfu": metrics["mfu"], "flops": flops,
            **bill, "laws": {
                fit.name: {
                    "source": fit.source, "warning": fit.warning, "own_model": asdict(own[fit.name]),
                    "choices": [asdict(each) for each in choices(fit, flops)],
                }
                for fit in fits
            },
        }  # fmt: skip
        print_json(document)
        return
    cost = f", ${bill['cost_usd']:,.0f}" if bill.get("cost_usd") else ""
    click.echo(
        f"{loaded.name}: {days:g} days of {metrics['gpus']:,} GPUs at {metrics['mfu']:.1%} MFU are {flops:.3g} FLOP"
        f"{cost}, {bill['energy_kwh'] / 1000:,.0f} MWh, {bill['co2_kg'] / 1000:,.0f} t CO2"
    )
    for fit in fits:
        named = [("optimal" if n == 0 else "over-trained", each) for n, each in enumerate(choices(fit, flops))]
        rows = [
            (name, counted(each.parameters), counted(each.tokens), f"{each.tokens_per_parameter:,.1f}",
             f"{each.loss:.3f}", f"+{each.excess_loss:.3f}")
            for name, each in [*named, ("the scenario's model", own[fit.name])]
        ]  # fmt: skip
        head = ("model", "parameters", "tokens", "tokens/parameter", "loss", "above least")
        print_table(f"by {fit.name}", head, rows)
        if fit.warning:
            warn([f"{fit.name}: {fit.warning}"])
