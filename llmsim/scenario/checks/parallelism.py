"""How a batch, a sequence and a model divide over ranks: faults as `checks` lists them."""

from __future__ import annotations

from llmsim.errors import UserError
from llmsim.model.architecture import has_experts
from llmsim.parallel.schedules import check_schedule as check_registered
from llmsim.parallel.schedules import schedule as find_schedule
from llmsim.parallel.schedules.registry import is_table
from llmsim.scenario.checks.subject import Found, Subject, nearest_divisor

# -- data and batch ------------------------------------------------------------------------------------------------


def check_batch(s: Subject) -> Found:
    t = s.scenario.training
    unit = t.micro_batch * s.dp
    if t.global_batch % unit:
        low = t.global_batch // unit * unit
        near = f"{low} or {low + unit}" if low else f"{unit}"
        yield (
            "training.global_batch",
            f"{t.global_batch} is not a multiple of micro_batch {t.micro_batch} × dp {s.dp} = {unit}; "
            f"expected such as {near}",
        )


def check_sequence(s: Subject) -> Found:
    p, length = s.scenario.parallelism, s.scenario.training.seq_len
    if p.cp > 1 and length % (2 * p.cp):
        yield "training.seq_len", f"{length} is not a multiple of 2 × cp = {2 * p.cp}, as balanced context parts need"
    elif p.sequence_parallel and p.tp > 1 and length // p.cp % p.tp:
        unit = p.tp * p.cp
        yield (
            "training.seq_len",
            f"{length} is not a multiple of tp × cp = {unit}, as sequence_parallel needs; "
            f"expected such as {length // unit * unit or unit}, or sequence_parallel: false",
        )


def check_images(s: Subject) -> Found:
    t, arch = s.scenario.training, s.architecture
    if t.images and arch.encoder is None:
        yield "training.images", f"{t.images} needs a vision encoder; {s.model_name} has none; expected null"
    elif arch.image_tokens > t.seq_len:
        one = arch.image_tokens // arch.encoder_images
        most = t.seq_len // one
        near = f"at most {most}" if most else f"training.seq_len of at least {one}"
        yield (
            "training.images",
            f"{arch.encoder_images} of {one} tokens are more than the {t.seq_len} of a sequence; expected {near}",
        )


# -- the model over tensor ranks -----------------------------------------------------------------------------------


def check_heads(s: Subject) -> Found:
    tp, heads = s.scenario.parallelism.tp, s.architecture.heads
    if heads % tp:
        yield (
            "parallelism.tp",
            f"{tp} does not divide the {heads} attention heads of {s.model_name}; expected a divisor, "
            f"such as {nearest_divisor(heads, tp)}",
        )


def check_kv_heads(s: Subject) -> Found:
    tp, kv_heads = s.scenario.parallelism.tp, s.architecture.kv_heads
    if s.architecture.mla or s.architecture.heads % tp:
        return  # latent attention has no groups of heads; the heads themselves are reported already
    if max(kv_heads, tp) % min(kv_heads, tp):
        yield (
            "parallelism.tp",
            f"{tp} and the {kv_heads} key/value heads of {s.model_name} do not divide each other; expected a divisor "
            f"or a multiple of {kv_heads}",
        )


def check_linear_heads(s: Subject) -> Found:
    tp, linear = s.scenario.parallelism.tp, s.architecture.linear
    if linear and linear.key_heads % tp:
        near = nearest_divisor(linear.key_heads, tp)
        yield (
            "parallelism.tp",
            f"{tp} does not divide the {linear.key_heads} key heads of linear attention of {s.model_name}; "
            f"expected a divisor, such as {near}",
        )


def check_ffn(s: Subject) -> Found:
    tp, moe = s.scenario.parallelism.tp, s.architecture.moe
    dense = not all(has_experts(kind) for kind in s.architecture.layer_kinds())
    widths = {"ffn_hidden": (s.architecture.ffn_hidden, tp)} if dense else {}
    if moe:
        widths["expert_ffn_hidden"] = (moe.expert_ffn_hidden, s.etp)
    for name, (width, ranks) in widths.items():
        if width % ranks:
            yield (
                "parallelism.tp",
                f"{tp} does not divide {name} {width} of {s.model_name}; expected a divisor, "
                f"such as {nearest_divisor(width, ranks)}",
            )


def check_encoder(s: Subject) -> Found:
    tp, arch = s.scenario.parallelism.tp, s.architecture
    inner = arch.encoder
    if inner is None:
        return
    own = {"attention heads": inner.heads, "key/value heads": inner.kv_heads, "ffn_hidden": inner.ffn_hidden}
    widths = {f"{name} {width} of the vision encoder": width for name, width in own.items()}
    widths |= {f"projector width {width}": width for width in (*arch.projector.hidden, arch.hidden)}
    for what, width in widths.items():
        if width % tp:
            yield (
                "parallelism.tp",
                f"{tp} does not divide the {what} of {s.model_name}; expected a divisor, such as "
                f"{nearest_divisor(width, tp)}",
            )


# -- experts -------------------------------------------------------------------------------------------------------


def check_experts(s: Subject) -> Found:
    p, moe = s.scenario.parallelism, s.architecture.moe
    if p.ep == 1:
        return
    if moe is None:
        yield "parallelism.ep", f"{p.ep} needs a mixture of experts; {s.model_name} has none; expected 1"
    elif moe.experts % p.ep:
        near = nearest_divisor(moe.experts, p.ep)
        yield (
            "parallelism.ep",
            f"{p.ep} does not divide the {moe.experts} experts of {s.model_name}; expected such as {near}",
        )
    if p.tp % s.etp:
        near = nearest_divisor(p.tp, s.etp)
        yield "parallelism.etp", f"{s.etp} does not divide tp {p.tp}; expected a divisor, such as {near}"
        return
    places = p.tp * p.cp * s.dp // s.etp
    if places % p.ep:
        yield (
            "parallelism.ep",
            f"{p.ep} does not divide tp × cp × dp / etp = {p.tp} × {p.cp} × {s.dp} / {s.etp} = {places}; "
            f"expected a divisor, such as {nearest_divisor(places, p.ep)}",
        )


def check_dispatch(s: Subject) -> Found:
    p, overlap = s.scenario.parallelism, s.scenario.training.overlap
    if p.dispatch_dtype and p.dispatch == "all_to_all":
        yield "parallelism.dispatch_dtype", "'fp8' goes with dispatch deduplicated only; expected null"
    if overlap.ep and (p.schedule.removesuffix("-1f1b") not in ("1f1b", "interleaved") or (p.pp > 1 and p.vpp == 1)):
        yield (
            "training.overlap.ep",
            f"true pairs forwards and backwards of interleaved 1F1B; the schedule is {p.schedule} with pp {p.pp} and "
            f"vpp {p.vpp}; expected schedule interleaved with vpp 2 or more, or pp 1, or false",
        )


def check_expert_kernels(s: Subject) -> Found:
    """cuDNN's fused grouped products exist for narrow precisions on Blackwell."""
    training, gpu = s.scenario.training, s.topology.gpu
    if training.expert_kernels != "fused":
        return
    if training.precision not in ("fp8", "nvfp4"):
        yield (
            "training.expert_kernels",
            f"'fused' writes fp8 or NVFP4, and training.precision is {training.precision}; expected separate",
        )
    elif not gpu.kernels.startswith("blackwell"):
        yield "training.expert_kernels", f"'fused' exists on Blackwell, and {gpu.name} is none; expected separate"


# -- context -------------------------------------------------------------------------------------------------------


def check_context_kind(s: Subject) -> Found:
    p, arch = s.scenario.parallelism, s.architecture
    if p.cp == 1:
        return
    if p.cp_kind == "ring" and s.scenario.training.attention == "unfused":
        yield "parallelism.cp_kind", "'ring' needs flash attention, not unfused; expected all_gather or ulysses"
    heads = arch.heads // p.tp
    if p.cp_kind == "ulysses" and heads % p.cp:
        yield (
            "parallelism.cp",
            f"{p.cp} does not divide the {heads} attention heads of a tensor rank, which ulysses spreads; expected a "
            f"divisor, such as {nearest_divisor(heads, p.cp)}, or cp_kind ring",
        )


def check_special_attention(s: Subject) -> Found:
    """Sparse and linear attention as they are modelled: whole sequences on a rank, and a sparse core that is fused."""
    cp, arch = s.scenario.parallelism.cp, s.architecture
    kind = "sparse attention" if arch.indexer else "linear attention" if arch.linear else ""
    if kind and cp > 1:
        yield "parallelism.cp", f"{cp} is not modelled for {kind}, which {s.model_name} has; expected 1"
    if arch.indexer and s.scenario.training.attention == "unfused":
        yield "training.attention", f"'unfused' has no sparse form, which {s.model_name} needs; expected flash"


# -- pipeline ------------------------------------------------------------------------------------------------------


def check_schedule(s: Subject) -> Found:
    """The registry's own rules on the name, the chunks and the micro-batches; a table is read and checked."""
    p = s.scenario.parallelism
    if not s.micro_batches:
        return  # the batch is reported already
    try:
        if is_table(p.schedule):
            find_schedule(s.schedule, p.pp, s.micro_batches, p.vpp)
        else:
            check_registered(p.schedule, p.pp, s.micro_batches, p.vpp)
    except UserError as error:
        text = str(error)
        if text.startswith("chunks: "):
            yield "parallelism.vpp", text.removeprefix("chunks: ")
        else:
            yield "parallelism.schedule", text


def check_chunks(s: Subject) -> Found:
    p = s.scenario.parallelism
    if p.schedule.startswith("interleaved") and p.vpp == 1:
        yield "parallelism.vpp", "1 is no interleaving; the schedule interleaved needs at least 2 chunks per rank"
    elif p.schedule == "dualpipe" and p.vpp == 2:
        yield "parallelism.vpp", "2 does not fit the schedule dualpipe, whose directions share one cut; expected 1"
    elif p.vpp > 1 and p.pp == 1:
        yield "parallelism.vpp", f"{p.vpp} chunks per rank need a pipeline, but pp is 1; expected vpp 1 or pp above 1"


def check_stage_layers(s: Subject) -> Found:
    p, layers = s.scenario.parallelism, s.architecture.layers
    stages = p.pp * p.vpp
    if p.stage_layers is None:
        if layers % stages:
            divisors = [n for n in range(1, layers + 1) if layers % n == 0]
            near = min(divisors, key=lambda n: abs(n - stages))
            yield (
                "parallelism.pp",
                f"{p.pp} × vpp {p.vpp} = {stages} virtual stages do not share the {layers} layers of {s.model_name} "
                f"evenly; expected a divisor of {layers} such as {near}, or parallelism.stage_layers: balanced",
            )
        return
    given = p.stage_layers
    if given == "balanced":  # of more virtual stages than layers some have none, but no rank stands idle
        if layers < p.pp:
            told = f"'balanced' has {layers} layers of {s.model_name} for pp {p.pp} pipeline ranks"
            yield "parallelism.stage_layers", f"{told}; expected at least one each"
        return
    if len(given) != stages:
        yield (
            "parallelism.stage_layers",
            f"has {len(given)} entries; expected pp {p.pp} × vpp {p.vpp} = {stages}, one for each virtual stage",
        )
    if sum(given) != layers:
        yield (
            "parallelism.stage_layers",
            f"adds up to {sum(given)} layers; expected the {layers} layers of {s.model_name}",
        )
