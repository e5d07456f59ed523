"""The host launches what a GPU does: a lane of its own, which computation follows and cannot overtake.

A pass begins when the host has come to it and ends no earlier than its last launch; meanwhile the host may be ahead
as far as it likes (CUDA queues a thousand launches). Where a framework's pipeline makes the host wait for what it
receives, the host begins a pass no earlier than the GPU could, and is never ahead.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from llmsim.catalogue.host_constants import HostCost
from llmsim.engine.plan import Fragment, Item, Op, Part, Plan
from llmsim.model.work import Attention, Communication, Gemm, MemoryBound, Step
from llmsim.program.passes.fragments import Template
from llmsim.program.passes.labels import Label, Numbered

_ATTENTION_BACKWARD = 3  # kernels: dO·O, the gradients, the conversion of dQ


def launch_seconds(steps: Iterable[Step], cost: HostCost) -> float:
    """Time that the host needs to launch these steps."""
    kernels = communications = 0
    for step in steps:
        work = step.work
        if isinstance(work, Communication):
            communications += 1
        elif isinstance(work, MemoryBound):
            kernels += max(1, work.kernels)
        elif isinstance(work, Attention) and work.backward:
            kernels += _ATTENTION_BACKWARD
        elif isinstance(work, Gemm) and work.grouped:
            kernels += work.batch  # Transformer Engine launches a product for each expert, over several streams
        else:
            kernels += 1
    return kernels * cost.kernel + communications * cost.communication


@dataclass(slots=True)
class Launching:
    """Lays out the `launch` lane of one class. `synchronous`: the host waits for what a pass waits for."""

    plan: Plan
    labels: Numbered
    cost: HostCost
    synchronous: bool
    reached: tuple[int, ...] = ()  # the signal that the host has launched all that came before
    held: tuple[int, ...] = ()  # signals that the host must wait for before it goes on

    def place(
        self, lanes: dict[str, list[Item]], template: Template, tag: int, waits: tuple[int, ...]
    ) -> tuple[tuple[int, ...], int]:
        """Append the launch of one pass; returns (signals that the pass begins after, the signal it ends after)."""
        done = self.plan.new_signal()
        label = self.labels.number(Label("launch kernels", "host", "launch", template.phase))
        op = Op(label, (Part(1, template.launch, 0.0),))
        waited = (*self.held, *(waits if self.synchronous else ()))
        lanes.setdefault("launch", []).append(Item(Fragment((op,)), tag, 0, waited, ((done, 0.0),)))
        begins = (*waits, *self.reached)
        self.reached, self.held = (done,), ()
        return begins, done
