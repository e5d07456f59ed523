"""The section `job`: keys that contradict each other, and jobs that cannot end. Faults as `checks` lists them."""

from llmsim.catalogue.failures import fleet
from llmsim.scenario.checks.subject import Found, Subject

_NODES = ("gpu", "node", "nic", "link", "switch", "sdc")  # classes whose failures take a node
_CLASSES = (*_NODES, "software")
DOWN = ("gpu_down", "node_down")


def failing_classes(s: Subject) -> set[str]:
    """Classes of parts that fail: by the preset, or by a mean time of their own."""
    failures = s.scenario.job.failures
    found = set(fleet(failures.preset).mtbf) if failures.preset else set()
    return found | {name for name in (*_CLASSES, "planned", "job") if getattr(failures, f"{name}_mtbf") is not None}


def check_job_failures(s: Subject) -> Found:
    failures, classes = s.scenario.job.failures, failing_classes(s)
    others = sorted(classes - {"job", "planned"})
    if failures.job_mtbf is not None and (others or failures.preset):
        told = f"preset {failures.preset}" if failures.preset else f"{others[0]}_mtbf"
        yield (
            "job.failures.job_mtbf",
            f"is of all failures of the job, and {told} counts them again; expected one of both",
        )
    if failures.gaps is not None and (failures.job_mtbf is not None or others):
        yield "job.failures.gaps", "are all failures of the job; expected no mean times and no preset beside them"
    if isinstance(failures.gaps, tuple) and min(failures.gaps) <= 0:
        yield "job.failures.gaps", "hold a time of 0 s; expected times between failures, such as [3 h, 20 min]"
    if failures.shape != 1.0 and not classes - {"planned"}:
        yield (
            "job.failures.shape",
            f"{failures.shape:g} shapes no failures; expected a preset or a mean time, or shape 1",
        )
    if failures.burn_in and (failures.shape == 1.0 or not classes - {"planned"}):
        yield (
            "job.failures.burn_in",
            "ages parts that fail alike at any age; expected job.failures.shape other than 1, or 0",
        )
    for name in ("slow_gpu", "flap"):
        section = getattr(failures, name)
        if section.mtbf is None and section != type(section)():
            yield (
                f"job.failures.{name}.mtbf",
                f"missing; the other keys of {name} say what follows; expected such as 30 d",
            )
    if failures.sdc_found != "auto" and "sdc" not in classes:
        yield "job.failures.sdc_found", "finds what never happens; expected job.failures.sdc_mtbf, or auto"


def check_repeat(s: Subject) -> Found:
    repeat = s.scenario.job.failures.repeat
    classes = failing_classes(s) & set(_NODES)
    if repeat.share and not classes:
        yield (
            "job.failures.repeat.share",
            f"{repeat.share:g} of the nodes fail by no part of theirs; expected a gpu_mtbf, or 0",
        )
    if repeat.exclude_after is not None and not repeat.share:
        yield (
            "job.failures.repeat.exclude_after",
            "excludes nobody with a share of 0; expected job.failures.repeat.share",
        )


def check_checkpoint(s: Subject) -> Found:
    checkpoint = s.scenario.job.checkpoint
    if checkpoint.storage_every != 1 and checkpoint.mode != "memory":
        yield (
            "job.checkpoint.storage_every",
            f"{checkpoint.storage_every} goes with mode memory only; mode {checkpoint.mode} writes every checkpoint to "
            "storage; expected mode memory, or 1",
        )
    if checkpoint.network == "separate" and checkpoint.mode == "sync":
        yield (
            "job.checkpoint.network",
            "'separate' changes nothing in mode sync, in which nothing is sent beside a save; expected shared, or mode "
            "async",
        )
    if checkpoint.keep is not None and "sdc" not in failing_classes(s):
        yield (
            "job.checkpoint.keep",
            f"{checkpoint.keep} matters for silent corruption only; expected job.failures.sdc_mtbf, or null",
        )


def check_nodes_return(s: Subject) -> Found:
    """A job that can never end is said so at once."""
    job = s.scenario.job
    takes = failing_classes(s) & set(_NODES)
    if s.scenario.job.failures.slow_gpu.mtbf is not None:
        takes.add("slow_gpu")
    takes |= {fault.kind for fault in s.scenario.faults if fault.kind in DOWN and fault.until is None}
    if "job" in failing_classes(s) or job.failures.gaps is not None:
        takes.add("node")  # who says that nothing is repaired means that something breaks
    stuck = not job.spares.nodes and not job.elastic.enabled
    if job.spares.repair is None and stuck and takes - {"switch"}:
        first = min(takes - {"switch"}).partition("_")[0]
        yield (
            "job.spares.nodes",
            f"0 with repair never: the first failure of a {first} ends the job for good; expected spares, a "
            "job.spares.repair such as 24 h, or job.elastic true",
        )
    if job.spares.switch_repair is None and stuck and "switch" in takes:
        yield (
            "job.spares.switch_repair",
            "never, without spares: the first failed switch ends the job; expected such as 4 h",
        )


def check_elastic(s: Subject) -> Found:
    elastic, dp = s.scenario.job.elastic, s.dp
    if not elastic.enabled:
        if elastic != type(elastic)():
            yield "job.elastic.enabled", "false, while other keys say how; expected true, or no other key"
        return
    if dp == 1:
        yield (
            "job.elastic",
            "there is one data-parallel replica, and none to go on without; expected false, or dp of 2 or more",
        )
    elif elastic.fewest is not None and elastic.fewest > dp:
        yield "job.elastic.fewest", f"{elastic.fewest} is more than the {dp} replicas that there are"
    if s.model_parallel % s.gpus_per_node and s.gpus_per_node % s.model_parallel:
        yield (
            "job.elastic",
            f"a replica has {s.model_parallel} GPUs, which fill no whole nodes of {s.gpus_per_node}; expected false, "
            "or another tp, pp or cp",
        )


JOB_CHECKS = (check_job_failures, check_repeat, check_checkpoint, check_nodes_return, check_elastic)
