"""From the seconds of a training run to GPU-hours, dollars, kilowatt-hours and kilograms of carbon dioxide.

Power of a GPU: idle + (TDP - idle) × utilisation, utilisation being the share of time in which it computes. GPUs that
wait inside a communication kernel draw somewhat more than idle, so energy of jobs bound by communication is a lower
estimate. To the GPUs comes the host's share of the node (`catalogue/power.yaml`), and to all of it the site's PUE.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmsim.catalogue.gpus import Gpu
from llmsim.catalogue.prices import carbon, gpu_price, host_power

if TYPE_CHECKING:
    from llmsim.cluster.topology import Topology
    from llmsim.scenario import Scenario

_JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Rates:
    """What an hour and a kWh cost. usd_gpu_hour is None where nobody gave a price; `price_source` says whose it is."""

    usd_gpu_hour: float | None
    price_source: str
    kwh_usd: float
    kg_co2_per_kwh: float
    pue: float


@dataclass(frozen=True, slots=True)
class Bill:
    """Of a whole run. `energy_kwh` and what follows from it include the site (PUE); `power_w` does too."""

    gpu_hours: float
    cost_usd: float | None
    price_usd_gpu_hour: float | None
    price_source: str
    power_w: float
    energy_kwh: float
    energy_usd: float
    co2_kg: float

    def as_metrics(self) -> dict[str, Any]:
        """Plain data, without what is not known."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


def rates_of(scenario: "Scenario") -> Rates:
    """The user's prices, and the catalogue's where they gave none."""
    section = scenario.economics
    return rates(
        scenario.resolve().topology.gpu.name,
        usd_gpu_hour=section.gpu_hour_usd,
        kwh_usd=section.kwh_usd,
        kg_co2_per_kwh=section.kg_co2_per_kwh,
        pue=section.pue,
    )


def rates(
    gpu_name: str,
    *,
    usd_gpu_hour: float | None = None,
    kwh_usd: float = 0.10,
    kg_co2_per_kwh: float | None = None,
    pue: float = 1.2,
) -> Rates:
    """Rates for one kind of GPU; None stands for the catalogue's figure."""
    source = "economics.gpu_hour_usd"
    if usd_gpu_hour is None:
        price = gpu_price(gpu_name)
        usd_gpu_hour = price.usd if price else None
        source = f"catalogue, {price.date}: {price.source}" if price else "no price known; give economics.gpu_hour_usd"
    kg = carbon().kg_per_kwh if kg_co2_per_kwh is None else kg_co2_per_kwh
    return Rates(usd_gpu_hour, source, kwh_usd, kg, pue)


def gpu_power(gpu: Gpu, utilisation: float) -> float:
    """Watts of one GPU that computes for the share `utilisation` (0..1) of the time."""
    return gpu.idle_w + (gpu.tdp_w - gpu.idle_w) * min(max(utilisation, 0.0), 1.0)


def host_share(gpu: Gpu, topology: "Topology | None" = None) -> float:
    """Watts of CPUs, fans, NICs and losses of the node that come to one GPU while training."""
    known = host_power()
    if topology is not None and topology.node.power is not None:
        gpus = topology.node.gpus
        return max(topology.node.power - gpus * gpu.tdp_w, 0.0) / gpus * known.load
    return (known.node_over_gpus - 1.0) * gpu.tdp_w * known.load


def bill(
    seconds: float, gpus: int, gpu: Gpu, utilisation: float, rates: Rates, topology: "Topology | None" = None
) -> Bill:
    """The bill of `seconds` on `gpus` GPUs, all rented and powered throughout."""
    hours = seconds / 3600 * gpus
    power = gpus * (gpu_power(gpu, utilisation) + host_share(gpu, topology)) * rates.pue
    energy = power * seconds / _JOULES_PER_KWH
    cost = None if rates.usd_gpu_hour is None else hours * rates.usd_gpu_hour
    return Bill(
        gpu_hours=hours,
        cost_usd=cost,
        price_usd_gpu_hour=rates.usd_gpu_hour,
        price_source=rates.price_source,
        power_w=power,
        energy_kwh=energy,
        energy_usd=energy * rates.kwh_usd,
        co2_kg=energy * rates.kg_co2_per_kwh,
    )


def training_bill(scenario: "Scenario", seconds: float, breakdown: dict[str, float]) -> dict[str, Any]:
    """The metrics of a run that takes `seconds`, its time spent as `breakdown` (s of one iteration) says."""
    resolved, total = scenario.resolve(), sum(breakdown.values())
    utilisation = (breakdown["compute"] + breakdown["optimizer"]) / total if total else 0.0
    gpu = resolved.topology.gpu
    made = bill(seconds, resolved.gpus, gpu, utilisation, rates_of(scenario), resolved.topology)
    return made.as_metrics()
