"""How long an iteration takes in each state of the cluster: a scenario and a state go in, seconds come out.

Each state is simulated once by the iteration simulator: the scenario with a slow GPU, a slow link, fewer replicas.
"""

from dataclasses import dataclass, field
from math import ceil
from typing import Any

from llmsim.catalogue.failures import job_constants
from llmsim.errors import ScenarioError, UserError
from llmsim.job.policy import HEALTHY, State
from llmsim.scenario import Scenario
from llmsim.scenario.checks.job import DOWN
from llmsim.simulation import simulate


def _faults(scenario: Scenario) -> list[dict[str, Any]]:
    """Those that an iteration lives with."""
    return [fault.model_dump(by_alias=True, exclude_none=True) for fault in scenario.faults if fault.kind not in DOWN]


@dataclass
class Paces:
    """Iteration times of one scenario by state, and the metrics of the healthy one. What was simulated is kept."""

    scenario: Scenario
    known: dict[State, float] = field(default_factory=dict)
    _metrics: dict[str, Any] | None = None

    @property
    def metrics(self) -> dict[str, Any]:
        """Of the healthy cluster, as `llmsim run --json` has them."""
        if self._metrics is None:
            self._metrics = simulate(self._scenario({"faults": _faults(self.scenario)})).metrics
            self.known[HEALTHY] = self._metrics["iteration_time_s"]
        return self._metrics

    def of(self, state: State) -> float:
        """Seconds in which the cluster makes as much progress as one iteration of the whole cluster does."""
        if state == HEALTHY:
            return float(self.metrics["iteration_time_s"])
        if state not in self.known:
            self.known[state] = self._simulated(state)
        return self.known[state]

    def beside_copies(self, nic_share: float) -> float:
        """Time of an iteration while this share of the NICs' bandwidth carries a checkpoint, over one without."""
        nic = self.scenario.resolve().topology.node.nic.bandwidth
        overrides = dict(self.scenario.cluster.overrides) | {"node.nic.bandwidth": nic * (1.0 - nic_share)}
        slower = simulate(self._scenario({"cluster.overrides": overrides, "faults": _faults(self.scenario)}))
        return max(1.0, slower.metrics["iteration_time_s"] / self.of(HEALTHY))

    def _scenario(self, values: dict[str, Any]) -> Scenario:
        """An iteration knows nothing of its job. In block detail, where jitter allows it."""
        detail = {} if self.scenario.simulation.jitter else {"simulation.detail": "block"}
        return self.scenario.with_values({"job": None} | detail | values)

    def _simulated(self, state: State) -> float:
        failures, constants = self.scenario.job.failures, job_constants()
        faults = _faults(self.scenario)
        if state.slow:
            factor = failures.slow_gpu.factor
            factor = constants.slow_gpu_factor if factor == "auto" else factor
            faults.append({"kind": "slow_gpu", "gpu": "node0.gpu0", "factor": factor})
        if state.flapping:
            factor = failures.flap.factor
            factor = constants.flap_factor if factor == "auto" else factor
            faults.append({"kind": "slow_link", "link": "node0.nic0", "factor": factor})
        values, share = self._fewer(state.missing) if state.missing else ({}, 1.0)
        try:
            time = simulate(self._scenario({"faults": faults} | values)).metrics["iteration_time_s"]
        except UserError as error:
            if not state.missing:
                raise
            left = self.scenario.resolve().layout.dp - state.missing
            reason = str(error).splitlines()[0]
            raise ScenarioError(
                f"job.elastic: the layout cannot go on with {left} replicas ({reason}); expected false, or a layout "
                "that can"
            ) from None
        return float(time / share)

    def _fewer(self, missing: int) -> tuple[dict[str, Any], float]:
        """Keys of the cluster without so many replicas, and how much of an iteration's batch it then does in one."""
        resolved, training = self.scenario.resolve(), self.scenario.training
        dp, left = resolved.layout.dp, resolved.layout.dp - missing
        nodes = ceil(left * (resolved.gpus // dp) / resolved.gpus_per_node)
        sequences = training.micro_batch * left
        many = resolved.layout.micro_batches
        if self.scenario.job.elastic.batch == "keep":
            many = ceil(training.global_batch / sequences)
        values = {"cluster.nodes": nodes, "parallelism.dp": None, "training.global_batch": sequences * many}
        return values, sequences * many / training.global_batch
