"""What a layer does on a rank: FLOPs, collectives and wiring against closed forms."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.errors import ModelError
from llmsim.model.activations import layer_activation_bytes
from llmsim.model.architecture import Architecture
from llmsim.model.flops import flop_ledger, score_flops
from llmsim.model.layer import (
    ALL_FUSIONS,
    NO_FUSIONS,
    Shard,
    communication_bytes,
    embedding_steps,
    head_steps,
    layer_flops,
    layer_steps,
    mtp_steps,
    step_flops,
    vocab_on_rank,
)
from llmsim.model.sublayers import Mla, Moe
from llmsim.model.work import Attention, Communication, Gemm, MemoryBound

GPT3 = Architecture("gpt3", 96, 12288, 96, 51200)
LLAMA = Architecture("llama", 80, 8192, 64, 131072, kv_heads=8, ffn_hidden=28672, gated_mlp=True, bias=False,
                     position="rope", norm="rmsnorm", tied_embeddings=False)  # fmt: skip
MIXTRAL = replace(LLAMA, name="mixtral", layers=32, hidden=4096, heads=32, head_dim=128, ffn_hidden=14336,
                  moe=Moe(8, 2, 14336, shared_experts=1))  # fmt: skip
DEEPSEEK = Architecture("ds", 4, 7168, 128, 131072, gated_mlp=True, bias=False, position="rope", norm="rmsnorm",
                        ffn_hidden=18432, moe=Moe(256, 8, 2048, shared_experts=1, first_dense=1),
                        mla=Mla(512, 128, 64, 128, 1536))  # fmt: skip
PARALLEL = replace(LLAMA, name="palm", parallel_block=True, norms_per_layer=1)
NEOX = Architecture("neox", 44, 6144, 64, 51200, position="rope", parallel_block=True)
PASSES = ("forward", "backward", "backward_input", "backward_weight")


def both(steps):
    return step_flops(steps.forward) + step_flops(steps.backward)


def test_gpt_equals_the_closed_form():
    """72·B·s·l·h²·(1 + s/6h + V/12lh) (Narayanan et al. 2021, eq. 3), over all tensor-parallel ranks."""
    s, b, layers, h, v = 2048, 2, 96, 12288, 51200
    for tp in (1, 8):
        for options in ({}, {"recompute": "full"}, {"recompute": "selective"}):
            shard = Shard(b, s, tp=tp, attention="unfused", sequence_parallel=tp > 1, **options)
            total = tp * (layers * both(layer_steps(GPT3, shard)) + both(head_steps(GPT3, shard)))
            passes = {"full": 96 * (1 + s / (6 * h) + v / (16 * layers * h)),
                      "selective": 72 * (1 + s / (6 * h) * (4 / 3) + v / (12 * layers * h))}  # fmt: skip
            factor = passes.get(options.get("recompute"), 72 * (1 + s / (6 * h) + v / (12 * layers * h)))
            assert total == pytest.approx(factor * b * s * layers * h * h, rel=1e-12)
    assert step_flops(embedding_steps(GPT3, Shard(b, s)).forward) == 0


@pytest.mark.parametrize("arch", [LLAMA, MIXTRAL, DEEPSEEK, PARALLEL, NEOX], ids=lambda a: a.name)
@pytest.mark.parametrize("tp", [1, 4])
def test_forward_equals_the_ledger(arch, tp):
    """Layer sums equal the published FLOP definitions; the router, which those leave out, is on top."""
    s = 4096
    shard = Shard(1, s, tp=tp, sequence_parallel=tp > 1)
    total = 0.0
    for kind in arch.layer_kinds():
        total += tp * step_flops(layer_steps(arch, shard, kind).forward)
        if kind == "moe":
            total -= 2.0 * s * arch.hidden * arch.moe.experts
    assert total == pytest.approx(s * flop_ledger(arch, s).layers, rel=1e-12)
    head = tp * step_flops(head_steps(arch, shard).forward)
    assert head == pytest.approx(s * flop_ledger(arch, s).logits, rel=1e-12)


@pytest.mark.parametrize("kind", ["ring", "all_gather", "ulysses"])
@pytest.mark.parametrize("cp", [2, 4, 8])
def test_context_parallel_shares_the_work_evenly(kind, cp):
    whole = layer_flops(LLAMA, Shard(1, 32768))
    part = layer_flops(LLAMA, Shard(1, 32768, cp=cp, cp_kind=kind))
    for name, flops in whole.items():
        assert cp * part[name] == pytest.approx(flops, rel=1e-12)


def test_communication_closed_forms():
    s, h, e = 2048, 12288, 2
    full = s * h * e
    plain = layer_steps(GPT3, Shard(1, s, tp=8))
    assert communication_bytes(plain.forward) == {("tp", "all_reduce"): 2 * full}
    assert communication_bytes(plain.backward) == {("tp", "all_reduce"): 2 * full}
    split = layer_steps(GPT3, Shard(1, s, tp=8, sequence_parallel=True))
    assert communication_bytes(split.forward) == {("tp", "all_gather"): 2 * full, ("tp", "reduce_scatter"): 2 * full}
    # Two gathers of gradients, two of saved inputs for the weight gradients.
    assert communication_bytes(split.backward) == {("tp", "all_gather"): 4 * full, ("tp", "reduce_scatter"): 2 * full}
    again = layer_steps(GPT3, Shard(1, s, tp=8, recompute="full"))
    assert communication_bytes(again.backward) == {("tp", "all_reduce"): 4 * full}
    fp8 = layer_steps(GPT3, Shard(1, s, tp=8, sequence_parallel=True, precision="fp8"))
    assert communication_bytes(fp8.forward)["tp", "all_gather"] == full
    assert communication_bytes(layer_steps(GPT3, Shard(1, s)).backward) == {}
    head = communication_bytes(head_steps(GPT3, Shard(1, s, tp=8)).forward)
    assert head == {("tp", "all_reduce"): 3 * 4 * s}
    overlapped = layer_steps(GPT3, Shard(1, s, tp=8, sequence_parallel=True, tp_overlap=True))
    assert communication_bytes(overlapped.forward) == communication_bytes(split.forward)
    parallel = communication_bytes(layer_steps(PARALLEL, Shard(1, s, tp=8, sequence_parallel=True)).forward)
    assert parallel == {("tp", "all_gather"): s * 8192 * e, ("tp", "reduce_scatter"): s * 8192 * e}


def test_context_and_expert_communication_closed_forms():
    s, cp, e = 32768, 4, 2
    kv = s // cp * 2 * 1024 * e
    ring = layer_steps(LLAMA, Shard(1, s, cp=cp))
    assert communication_bytes(ring.forward) == {("cp", "all_gather"): kv * cp}
    assert communication_bytes(ring.backward) == {("cp", "all_gather"): 2 * kv * cp}
    gathered = layer_steps(LLAMA, Shard(1, s, cp=cp, cp_kind="all_gather"))
    assert communication_bytes(gathered.forward) == {("cp", "all_gather"): kv * cp}
    assert communication_bytes(gathered.backward) == {("cp", "all_gather"): kv * cp, ("cp", "reduce_scatter"): kv * cp}
    ulysses = layer_steps(LLAMA, Shard(1, s, cp=cp, cp_kind="ulysses"))
    assert communication_bytes(ulysses.forward) == {("cp", "all_to_all"): s // cp * (2 * 8192 + 2 * 1024) * e}
    tokens = 4096
    for shard, routed in (
        (Shard(1, tokens, ep=8), tokens * 2),
        (Shard(1, tokens, ep=8, tp=4, sequence_parallel=True), tokens * 2 / 4),
    ):
        moe = communication_bytes(layer_steps(MIXTRAL, shard, "moe").forward)
        assert moe["ep", "all_to_all"] == 2 * routed * 4096 * e
    capped = replace(MIXTRAL, moe=replace(MIXTRAL.moe, capacity_factor=1.25))
    moe = communication_bytes(layer_steps(capped, Shard(1, tokens, ep=8), "moe").forward)
    assert moe["ep", "all_to_all"] == 2 * 1.25 * tokens * 2 * 4096 * e


def test_experts_follow_expert_parallelism_and_imbalance():
    def experts(shard):
        steps = layer_steps(MIXTRAL, shard, "moe").forward
        return next(step.work for step in steps if step.name == "experts_fc1")

    assert experts(Shard(1, 4096)) == Gemm(1024, 2 * 14336, 4096, 8, grouped=True)
    assert experts(Shard(1, 4096, ep=8)) == Gemm(8192, 2 * 14336, 4096, 1, grouped=True)
    assert experts(Shard(1, 4096, ep=8, imbalance=1.5)).m == 12288
    assert experts(Shard(1, 4096, ep=2, tp=4)) == Gemm(2048, 2 * 3584, 4096, 4, grouped=True)
    assert experts(Shard(1, 4096, ep=2, tp=4, sequence_parallel=True)) == Gemm(512, 2 * 14336, 4096, 4, grouped=True)
    both_split = Shard(1, 4096, ep=2, tp=4, sequence_parallel=True, expert_tp=4)
    assert experts(both_split) == Gemm(2048, 2 * 3584, 4096, 4, grouped=True)


def test_order_and_overlap_of_a_megatron_layer():
    shard = Shard(1, 2048, tp=8, sequence_parallel=True)
    names = [step.name for step in layer_steps(GPT3, shard).forward]
    assert names == ["norm1", "qkv_all_gather", "qkv", "attention", "proj", "proj_reduce_scatter", "residual1+norm2",
                     "fc1_all_gather", "fc1", "activation", "fc2", "fc2_reduce_scatter", "residual2"]  # fmt: skip
    back = layer_steps(GPT3, shard).backward
    at = {step.name: index for index, step in enumerate(back)}
    # The saved input is gathered beside the input-gradient GEMM, whose output is scattered beside the weight's.
    assert back[at["fc1_dgrad"]].after == (at["activation_grad"],)
    assert back[at["fc1_wgrad"]].after == (at["fc1_regather"], at["fc1_dgrad"])
    assert back[at["fc1_wgrad"] + 1].after == (at["fc1_dgrad_reduce_scatter"], at["fc1_wgrad"])
    serial = layer_steps(GPT3, replace(shard, async_tp_grad=False)).backward
    assert all(step.after is None for step in serial)
    plain = layer_steps(GPT3, Shard(1, 2048, tp=8)).backward
    at = {step.name: index for index, step in enumerate(plain)}
    assert plain[at["fc1_wgrad"]].after == (at["fc1_dgrad"],)
    assert at["fc1_dgrad_all_reduce"] == at["fc1_dgrad"] + 1


def test_kernels_and_traffic_of_fusion():
    def kernels(steps):
        return sum(step.work.kernels if isinstance(step.work, MemoryBound) else 1 for step in steps)

    def traffic(steps):
        return sum(step.work.bytes for step in steps if isinstance(step.work, MemoryBound))

    fused = layer_steps(LLAMA, Shard(1, 4096))
    # norm, qkv, rope, attention, proj, add, norm, fc1, swiglu, fc2, add
    assert kernels(fused.forward) == 11
    assert kernels(layer_steps(GPT3, Shard(1, 2048, attention="unfused", dropout=True)).forward) == 14
    for name in sorted(ALL_FUSIONS - {"optimizer", "cross_entropy", "moe_permute", "flat_gradients", "loss_in_place"}):
        for arch in (GPT3, LLAMA):
            shard = Shard(1, 2048, attention="unfused", dropout=True)
            less = layer_steps(arch, replace(shard, fusions=ALL_FUSIONS - {name}))
            whole = layer_steps(arch, shard)
            only = {"rope": LLAMA, "swiglu": LLAMA, "bias_activation": GPT3, "qkv_layout": None}  # the last: flash
            applies = only.get(name, arch) is arch
            more = traffic(less.forward + less.backward) - traffic(whole.forward + whole.backward)
            assert (more > 0) == applies, (name, arch.name)
    nothing = layer_steps(LLAMA, Shard(1, 4096, fusions=NO_FUSIONS))
    assert kernels(nothing.forward) > 2 * kernels(fused.forward)
    copied = layer_steps(LLAMA, Shard(1, 4096, fusions=ALL_FUSIONS - {"qkv_layout"}))
    values = 4096 * (LLAMA.heads + 6 * LLAMA.kv_heads) * LLAMA.head_dim  # q once; k and v, thrice
    assert traffic(copied.forward) - traffic(fused.forward) == 2 * 2 * values
    head, eager = (head_steps(LLAMA, Shard(1, 4096, fusions=f)) for f in (ALL_FUSIONS, NO_FUSIONS))
    assert traffic(eager.forward + eager.backward) > 5 * traffic(head.forward + head.backward)


def test_gradient_accumulation():
    def wgrads(shard):
        steps = layer_steps(GPT3, shard).backward
        return {step.work.accumulate for step in steps if step.name.endswith("wgrad")}, steps[-1]

    assert wgrads(Shard(1, 2048))[0] == {True}
    accumulate, last = wgrads(Shard(1, 2048, fusions=ALL_FUSIONS - {"grad_accumulation"}))
    assert accumulate == {False}
    assert last.work == MemoryBound(12.0 * 12288**2 * (2 + 4 + 4), kernels=4)
    accumulate, last = wgrads(Shard(1, 2048, fusions=ALL_FUSIONS - {"grad_accumulation"}, accumulate=False))
    assert last.name != "accumulate_gradients"


def test_vocabulary_is_padded_to_the_split():
    gpt2 = replace(GPT3, vocab=50257)
    assert vocab_on_rank(gpt2, Shard(1, 1024)) == 50304
    assert vocab_on_rank(gpt2, Shard(1, 1024, tp=8)) * 8 == 51200
    assert vocab_on_rank(GPT3, Shard(1, 1024, tp=8)) * 8 == 51200


def test_precisions():
    steps = layer_steps(DEEPSEEK, Shard(1, 4096, ep=8, precision="fp8"), "moe")
    gemms = {step.name: step.work.precision for step in steps.forward if isinstance(step.work, Gemm)}
    assert gemms["router"] == "bf16"
    assert gemms["experts_fc1"] == gemms["q_up"] == "fp8"
    core = next(step.work for step in steps.forward if isinstance(step.work, Attention))
    assert core.precision == "bf16" and (core.head_dim, core.v_head_dim) == (192, 128)
    assert {s.work.precision for s in head_steps(LLAMA, Shard(1, 64, precision="fp8")).forward
            if isinstance(s.work, Gemm)} == {"bf16"}  # fmt: skip


@pytest.mark.parametrize(
    "options, message",
    [
        ({"attention": "falsh"}, "attention: 'falsh' is not known; expected one of flash, unfused"),
        ({"recompute": "half"}, "recompute: 'half' is not known"),
        ({"tp": 0}, "tp: 0 is too small"),
        ({"fusions": frozenset({"nrom"})}, "did you mean 'norm'?"),
        ({"attention": "unfused", "cp": 2}, "no ring form"),
    ],
)
def test_mistakes_are_one_sentence(options, message):
    with pytest.raises(ModelError) as error:
        Shard(1, 1024, **options)
    assert message in str(error.value) and "\n" not in str(error.value)


@settings(deadline=None, max_examples=150)
@given(
    arch=st.sampled_from([GPT3, LLAMA, MIXTRAL, DEEPSEEK, PARALLEL, NEOX]),
    tp=st.sampled_from([1, 2, 8]),
    cp=st.sampled_from([1, 2, 4]),
    ep=st.sampled_from([1, 4]),
    cp_kind=st.sampled_from(["ring", "all_gather", "ulysses"]),
    parallel=st.booleans(),
    attention=st.sampled_from(["flash", "unfused"]),
    fusions=st.sampled_from([ALL_FUSIONS, NO_FUSIONS]),
    recompute=st.sampled_from(["none", "selective", "full"]),
    overlap=st.booleans(),
    precision=st.sampled_from(["bf16", "fp8"]),
    window=st.sampled_from([0, 512]),
)
def test_every_pass_is_well_formed(
    arch, tp, cp, ep, cp_kind, parallel, attention, fusions, recompute, overlap, precision, window
):
    if attention == "unfused" and cp_kind == "ring":
        cp_kind = "ulysses"
    shard = Shard(2, 4096, tp=tp, cp=cp, ep=ep, cp_kind=cp_kind, sequence_parallel=parallel, attention=attention,
                  fusions=fusions, recompute=recompute, tp_overlap=overlap, async_tp_grad=not overlap,
                  precision=precision, dropout=fusions is NO_FUSIONS)  # fmt: skip
    for steps in (
        *(layer_steps(arch, shard, kind, window) for kind in sorted(set(arch.layer_kinds()))),
        embedding_steps(arch, shard),
        mtp_steps(arch, shard),
        head_steps(arch, shard),
    ):
        for name in PASSES:
            for index, step in enumerate(getattr(steps, name)):
                assert step.after is None or (step.after and all(0 <= i < index for i in step.after))
                assert not isinstance(step.work, Communication) or step.stream == step.work.group
                assert isinstance(step.work, Communication) or step.stream == "compute"
                assert not isinstance(step.work, MemoryBound) or (step.work.bytes > 0 and step.work.kernels >= 1)
                assert not isinstance(step.work, Gemm) or min(step.work.m, step.work.n, step.work.k) >= 1
        # Splitting the backward moves work, it does not change it.
        halves = step_flops(steps.backward_input) + step_flops(steps.backward_weight)
        assert halves == pytest.approx(step_flops(steps.backward))
        halves = communication_bytes(steps.backward_input + steps.backward_weight)
        assert halves == pytest.approx(communication_bytes(steps.backward))
        assert {step.phase for step in steps.forward} <= {"forward"}
        assert {step.phase for step in steps.backward_weight} <= {"weight"}
        # The backward of every forward product is two products.
        linear = sum(s.work.flops for s in steps.forward if isinstance(s.work, Gemm))
        back = sum(s.work.flops for s in steps.backward if isinstance(s.work, Gemm) and s.phase != "recompute")
        assert back == pytest.approx(2 * linear)


def test_sliding_window_limits_the_core():
    full, part = (step_flops(layer_steps(LLAMA, Shard(1, 8192), window=w).forward) for w in (0, 1024))
    expected = 8192 * (score_flops(LLAMA, 8192) - score_flops(LLAMA, 8192, 1024))
    assert full - part == pytest.approx(expected)


@pytest.mark.parametrize("tp", [1, 4])
def test_multi_token_prediction_equals_the_ledger(tp):
    arch, s = replace(DEEPSEEK, mtp_layers=1), 4096
    shard = Shard(1, s, tp=tp)
    parts = (mtp_steps(arch, shard), layer_steps(arch, shard, "moe"))
    total = tp * sum(step_flops(part.forward) for part in parts)
    # Outside the definition: the router, and (with tp) the low-rank products that every rank repeats.
    extra = tp * 2.0 * s * 7168 * 256 + (tp - 1) * 2.0 * s * 7168 * (1536 + 512 + 64)
    assert total - extra == pytest.approx(s * flop_ledger(arch, s).mtp, rel=1e-12)


def test_narrow_operands_take_conversions_and_less_memory():
    """fp8 keeps one byte of a linear layer's input, NVFP4 four bits and a scale for 16 values; attention stays bf16."""
    wide, fp8, nvfp4 = (Shard(1, 4096, precision=p) for p in ("bf16", "fp8", "nvfp4"))
    assert [shard.operand for shard in (wide, fp8, nvfp4)] == [2, 1, 0.5625]
    kept = [sum(layer_activation_bytes(GPT3, shard).values()) for shard in (wide, fp8, nvfp4)]
    assert kept[0] > kept[1] > kept[2]
    casts = [
        sum(step.work.bytes for step in layer_steps(GPT3, shard).forward if "cast" in step.name)
        for shard in (wide, fp8, nvfp4)
    ]
    assert casts[0] == 0 < casts[1] < casts[2]  # NVFP4 looks for the largest value first
    cores = [step.work.precision for step in layer_steps(GPT3, nvfp4).forward if isinstance(step.work, Attention)]
    assert cores == ["bf16"]


DEEP = Architecture("d", 4, 1024, 16, 32000, moe=Moe(8, 2, 512, shared_experts=1), gated_mlp=True, norm="rmsnorm",
                    bias=False, mla=Mla(64, 32, 16, 32, 96))  # fmt: skip


@pytest.mark.parametrize(
    "modules, kind, again",
    [
        (("layernorm",), "dense", {"norm1", "norm2"}),
        (("mla_up_proj",), "dense", {"q_norm", "q_up", "kv_norm", "kv_up", "rope", "expand_k"}),
        (("mlp",), "dense", {"fc1", "activation", "fc2"}),
        (("mlp",), "moe", set()),
        (("moe_act",), "moe", {"experts_activation"}),
        (("shared_experts",), "moe", {"shared_fc1", "shared_activation", "shared_fc2"}),
        (("core_attn",), "dense", set()),  # flash does so itself
        (("layernorm", "mlp"), "dense", {"norm1", "norm2", "fc1", "activation", "fc2"}),
    ],
)
def test_kernels_that_a_module_runs_again(modules, kind, again):
    plain = layer_steps(DEEP, Shard(1, 512), kind)
    steps = layer_steps(DEEP, Shard(1, 512, recompute="selective", modules=frozenset(modules)), kind)
    for part in ("backward", "backward_input"):
        remade = [step for step in getattr(steps, part) if step.phase == "recompute"]
        assert {name for step in remade for name in step.name.split("+")} == again
        rest = step_flops(getattr(steps, part)) - step_flops(remade)
        assert rest == pytest.approx(step_flops(getattr(plain, part)))
    assert steps.forward == plain.forward and steps.backward_weight == plain.backward_weight


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_a_recomputed_expert_layer_runs_its_forward_once_more(precision):
    """Modules within it are not run twice; what is dispatched is dispatched again."""
    plain = layer_steps(DEEP, Shard(1, 512, ep=4, precision=precision), "moe")
    modules = frozenset({"moe", "moe_act", "shared_experts", "layernorm"})
    steps = layer_steps(DEEP, Shard(1, 512, ep=4, precision=precision, recompute="selective", modules=modules), "moe")
    remade = [step for step in steps.backward if step.phase == "recompute"]
    names = [name for step in remade for name in step.name.split("+")]
    forward = [name for step in plain.forward for name in step.name.split("+")]
    begin = forward.index("router")
    mlp = [name for name in forward[begin:] if name != "residual2"]
    assert sorted(names) == sorted(["norm1", "norm2", *mlp] + ["q_down_cast", "kv_down_cast"] * (precision == "fp8"))


@pytest.mark.parametrize("tp", [1, 4])
def test_chunks_are_sequences_of_their_own(tp):
    """Chunked attention of s tokens in chunks of c has (s/c)·c²/2 pairs (Llama 4); a sliding window has s·c − c²/2."""
    s, c = 8192, 1024
    chunked = replace(LLAMA, sliding_window=c, window_chunks=True)
    assert score_flops(chunked, s, c) * s == 2.0 * 64 * 2 * 128 * s * c / 2
    (core,) = (
        step.work for step in layer_steps(chunked, Shard(1, s, tp=tp)).forward if isinstance(step.work, Attention)
    )
    assert tp * core.flops == pytest.approx(s * score_flops(chunked, s, c))
    alone = layer_steps(chunked, Shard(8, c, tp=tp)).forward
    assert core in [step.work for step in alone]  # as 8 sequences of 1,024 tokens
    assert score_flops(chunked, c, c) == score_flops(LLAMA, c)
    gathered = layer_steps(chunked, Shard(1, s, cp=2, cp_kind="all_gather")).forward
    (half,) = (step.work for step in gathered if isinstance(step.work, Attention))
    assert 2 * half.flops == pytest.approx(s * score_flops(chunked, s, c))
