"""Kernel costs: closed forms, physical bounds, published times, and what a user's mistake says."""

import pickle
from dataclasses import replace
from math import inf
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.catalogue.gpus import gpu, gpus
from llmsim.catalogue.kernel_constants import kernel_constants
from llmsim.cost.gemm import gemm_time
from llmsim.cost.kernel_time import soft_maximum
from llmsim.cost.kernels import KernelCosts, KernelTraits, scaled
from llmsim.errors import CatalogueError
from llmsim.evidence.measured.kernel_fit import fit_kernels
from llmsim.evidence.measured.kernels import measured_kernels
from llmsim.model.work import Attention, Gemm, MemoryBound

A100, H100 = gpu("a100-80"), gpu("h100-sxm")
FAST_MEMORY = replace(A100, memory_bandwidth=1e18)


def tflops(costs, work):
    return work.flops / costs.time(work).seconds / 1e12


def core(batch=1, heads=16, length=4096, width=128, **options):
    return Attention(batch, heads, options.pop("kv_heads", heads), length, length, width, width, **options)


def only_tiles(constants, tile):
    """No ramp, power limit or split-K, one tile: what is left is the quantisation."""
    gemm = replace(constants.gemm, tiles=(tile,), splits=(1,), ramp_bytes=0.0, power={})
    return replace(constants, gemm=gemm, blend=64)


@pytest.mark.parametrize("name", gpus())
def test_every_gpu_of_the_catalogue_runs_every_precision_it_has(name):
    device = gpu(name)
    costs = KernelCosts(device)
    for precision in device.peak_flops:
        time = costs.time(Gemm(4096, 4096, 4096, precision=precision))
        assert 0.25 < time.flops / time.seconds / device.peak(precision) < 1.0
    half = "bf16" if "bf16" in device.peak_flops else "fp16"
    for version in (1, 2, 3):
        forward = costs.time(core(precision=half, version=version))
        backward = costs.time(core(precision=half, version=version, backward=True))
        assert 0 < forward.seconds < backward.seconds < 8 * forward.seconds


def test_a_gemm_takes_whole_waves_of_tiles():
    constants = only_tiles(kernel_constants("ampere"), (128, 128))
    one = gemm_time(Gemm(128 * 108, 128, 8192), FAST_MEMORY, constants)
    two = gemm_time(Gemm(128 * 109, 128, 8192), FAST_MEMORY, constants)
    assert two.seconds == pytest.approx(2 * one.seconds, rel=1e-6)
    assert one.sm == 1.0
    half = gemm_time(Gemm(128 * 54, 128, 8192), FAST_MEMORY, constants)
    assert half.seconds == pytest.approx(one.seconds, rel=1e-6)
    assert half.sm == 0.5
    padded = gemm_time(Gemm(128 * 107 + 1, 128, 8192), FAST_MEMORY, constants)
    assert padded.seconds == pytest.approx(one.seconds, rel=1e-6)


def test_a_batched_gemm_fills_the_waves_of_its_batch():
    constants = only_tiles(kernel_constants("ampere"), (128, 128))
    flat = gemm_time(Gemm(128 * 108, 128, 8192), FAST_MEMORY, constants)
    batched = gemm_time(Gemm(128, 128, 8192, batch=108), FAST_MEMORY, constants)
    assert batched.seconds == pytest.approx(flat.seconds, rel=1e-3)
    assert batched.flops == flat.flops


def test_large_products_reach_what_megatron_reaches_on_a100():
    costs = KernelCosts(A100)
    for shape in ((8192, 12288, 12288), (2048, 6144, 49152), (4096, 10240, 10240)):
        assert 235 < tflops(costs, Gemm(*shape)) < 272


def test_one_layer_of_korthikanti_2022():
    """Table 4: the 22B layer on 8 A100s, batch 4: forward 7.7 ms of which about 1.5 ms is two all-reduces."""
    tokens, hidden, tp, heads, length = 8192, 6144, 8, 32, 2048
    squares = heads * length * length
    works = [
        Gemm(tokens, 3 * hidden // tp, hidden),
        Gemm(tokens, hidden, hidden // tp),
        Gemm(tokens, 4 * hidden // tp, hidden),
        Gemm(tokens, hidden, 4 * hidden // tp),
        Gemm(length, length, 96, batch=heads),
        MemoryBound(squares * 4.0),
        MemoryBound(squares * 5.0),
        Gemm(length, 96, length, batch=heads),
        MemoryBound(tokens * hidden * 4.0),
        MemoryBound(tokens * hidden * 4.0),
        MemoryBound(tokens * hidden * 7.0),
        MemoryBound(tokens * hidden * 7.0),
        MemoryBound(tokens * 4 * hidden / tp * 4.0),
    ]
    costs = KernelCosts(A100)
    compute = sum(costs.time(w).seconds + costs.time(w).launch for w in works)
    assert compute == pytest.approx(7.7e-3 - 1.5e-3, rel=0.12)


def test_published_times():
    """The targets of the project: median |error| of GEMM at most 7 %, of attention at most 12 %."""
    errors = {"gemm": [], "attention": []}
    groups = {}
    for row in measured_kernels():
        error = abs(row.predicted() / row.seconds - 1)
        kind = row.kind.split("_")[0]
        if row.kind != "gemm_peak":
            errors[kind].append(error)
        groups.setdefault((row.kind, row.gpu.name, row.precision, row.framework), []).append(error)
    assert len(errors["gemm"]) > 500 and len(errors["attention"]) > 300
    assert median(errors["gemm"]) < 0.07
    assert median(errors["attention"]) < 0.06
    for key, values in groups.items():
        if len(values) >= 30 and key[3] != "vllm":
            assert median(values) < 0.10, key


def test_unaligned_heads_cost_what_bigscience_found():
    """Head sizes 108 and 150 ran at about 11 TFLOP/s in unfused attention, 96 and 144 at tensor-core rates."""
    costs = KernelCosts(A100)
    for width in (108, 150):
        pair = [Gemm(2048, 2048, width, batch=64), Gemm(2048, width, 2048, batch=64)]
        rate = sum(w.flops for w in pair) / sum(costs.time(w).seconds for w in pair) / 1e12
        assert 9 < rate < 13
    assert tflops(costs, Gemm(2048, 2048, 144, batch=64)) > 100


def test_an_unaligned_vocabulary_is_slower_than_a_padded_one():
    costs = KernelCosts(A100)
    assert costs.time(Gemm(8192, 50257, 768)).seconds > 1.5 * costs.time(Gemm(8192, 50304, 768)).seconds


def test_the_power_limit_binds_large_products_only():
    full, half = KernelCosts(H100), KernelCosts(replace(H100, tdp_w=350.0))
    large, small = Gemm(16384, 16384, 8192), Gemm(512, 512, 512)
    assert half.time(large).seconds == pytest.approx(2.0 * full.time(large).seconds, rel=0.08)
    assert half.time(small).seconds == pytest.approx(full.time(small).seconds, rel=1e-2)
    assert tflops(KernelCosts(gpu("h20")), large) > 0.9 * 148


def test_split_k_uses_the_sms_that_few_tiles_leave_idle():
    constants = kernel_constants("hopper")
    whole = replace(constants, gemm=replace(constants.gemm, splits=(1,)))
    work = Gemm(512, 512, 32768)
    assert gemm_time(work, H100, constants).seconds < 0.7 * gemm_time(work, H100, whole).seconds


def test_accumulation_in_fp32_moves_more_bytes():
    plain, added = Gemm(4096, 4096, 64), Gemm(4096, 4096, 64, accumulate=True)
    costs = KernelCosts(A100)
    assert costs.time(added).bytes - costs.time(plain).bytes == 4096 * 4096 * 6
    assert costs.time(added).seconds > costs.time(plain).seconds


dimensions = st.integers(1, 20000)


@settings(max_examples=60, deadline=None)
@given(m=dimensions, n=dimensions, k=dimensions, batch=st.integers(1, 64), fp8=st.booleans())
def test_a_gemm_stays_within_the_roofline(m, n, k, batch, fp8):
    work = Gemm(m, n, k, batch, "fp8" if fp8 else "bf16")
    time = KernelCosts(H100).time(work)
    assert time.seconds >= work.flops / H100.peak(work.precision) * 0.999
    assert time.seconds >= batch * (m + n) * k * (1 if fp8 else 2) / H100.memory_bandwidth
    assert 0 < time.sm <= 1 and time.hbm <= H100.memory_bandwidth
    assert time.bytes > 0 and time.launch > 0


works = st.one_of(
    st.builds(Gemm, dimensions, dimensions, dimensions, st.integers(1, 8)),
    st.builds(
        core,
        st.integers(1, 8),
        st.sampled_from([1, 8, 24]),
        st.integers(1, 9000),
        st.sampled_from([64, 80, 128]),
        backward=st.booleans(),
        causal=st.booleans(),
        version=st.sampled_from([1, 2, 3]),
    ),
    st.builds(MemoryBound, st.floats(0, 1e10), st.integers(1, 5)),
)


@settings(max_examples=80, deadline=None)
@given(work=works, math=st.floats(1, 4), memory=st.floats(1, 4))
def test_more_flops_or_bandwidth_is_never_slower(work, math, memory):
    base = KernelCosts(H100).time(work)
    peaks = {p: v * math for p, v in H100.peak_flops.items()}
    better = replace(H100, peak_flops=peaks, memory_bandwidth=H100.memory_bandwidth * memory)
    assert KernelCosts(better).time(work).seconds <= base.seconds * (1 + 1e-12)
    traits = KernelTraits(math=math, memory=memory)
    assert KernelCosts(H100, traits).time(work).seconds <= base.seconds * (1 + 1e-12)


def test_causal_attention_approaches_half_of_the_square():
    costs = KernelCosts(H100)
    long = [costs.time(core(length=65536, causal=c)).seconds for c in (True, False)]
    short = [costs.time(core(batch=64, length=512, causal=c)).seconds for c in (True, False)]
    assert long[0] / long[1] == pytest.approx(0.5, rel=0.03)
    assert short[0] / short[1] > 0.6


def test_attention_generations_get_faster():
    costs = KernelCosts(H100)
    rates = [tflops(costs, core(batch=2, length=8192, version=v)) for v in (1, 2, 3)]
    assert rates == sorted(rates)
    assert 270 < rates[1] < 380 and 550 < rates[2] < 690
    assert costs.time(core(version=3)) != costs.time(core(version=2))
    ampere = KernelCosts(A100)
    assert ampere.time(core(version=3)) == ampere.time(core(version=2))


def test_head_sizes_are_padded():
    costs = KernelCosts(A100)
    odd, even = costs.time(core(width=108, batch=4)), costs.time(core(width=128, batch=4))
    assert odd.seconds == pytest.approx(even.seconds, rel=0.01)
    assert costs.time(core(width=64, batch=4)).seconds < 0.65 * even.seconds


def test_few_heads_leave_sms_idle():
    costs = KernelCosts(A100)
    one, eight = costs.time(core(heads=1, length=1024)), costs.time(core(heads=8, length=1024))
    assert one.sm == pytest.approx(8 / 108)
    assert eight.seconds < 2 * one.seconds


def test_a_sliding_window_makes_attention_linear():
    costs = KernelCosts(H100)
    a, b = (costs.time(core(length=n, window=1024)).seconds for n in (16384, 32768))
    assert b / a == pytest.approx(2, rel=0.1)
    assert a < 0.4 * costs.time(core(length=16384)).seconds


def test_grouped_queries_save_traffic_not_math():
    costs = KernelCosts(H100)
    many, few = costs.time(core(heads=32)), costs.time(core(heads=32, kv_heads=4))
    assert few.flops == many.flops and few.bytes < many.bytes
    assert few.seconds == pytest.approx(many.seconds, rel=0.01)


def test_memory_bound_kernels_take_their_traffic():
    costs = KernelCosts(A100)
    time = costs.time(MemoryBound(16e9))
    rate = kernel_constants("ampere").memory.elementwise * 2039e9
    assert time.seconds == pytest.approx(16e9 / rate)
    assert time.hbm == pytest.approx(rate) and time.sm == 1.0
    chain = costs.time(MemoryBound(16e9, kernels=4))
    assert chain.seconds == pytest.approx(time.seconds) and chain.launch == pytest.approx(4 * time.launch)
    nothing = costs.time(MemoryBound(0.0))
    assert nothing.seconds == 0 and nothing.hbm == 0 and nothing.launch > 0


@settings(max_examples=50, deadline=None)
@given(size=st.floats(1, 1e9), more=st.floats(1.001, 10))
def test_more_traffic_is_never_faster(size, more):
    costs = KernelCosts(A100)
    assert costs.time(MemoryBound(size * more)).seconds > costs.time(MemoryBound(size)).seconds


def test_data_still_in_l2_is_read_faster():
    costs = KernelCosts(A100)
    small, large = costs.time(MemoryBound(4e6)), costs.time(MemoryBound(4e9))
    assert small.seconds < large.seconds / 1000 / 1.4


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=4), st.floats(1, 20))
def test_the_soft_maximum_lies_between_maximum_and_sum(times, exponent):
    value = soft_maximum(tuple(times), exponent)
    assert max(times) * (1 - 1e-9) <= value <= sum(times) * (1 + 1e-9)
    assert soft_maximum((3.0, 4.0), 2.0) == pytest.approx(5.0)


def test_each_work_is_computed_once():
    costs = KernelCosts(H100)
    assert costs.time(Gemm(512, 512, 512)) is costs.time(Gemm(512, 512, 512))
    assert costs.time(core()) is costs.time(core())


def test_traits_scale_what_they_name():
    base = KernelCosts(H100)
    work = Gemm(16384, 16384, 16384)
    slow = KernelCosts(H100, KernelTraits(math=0.5, launch=1e-5))
    assert slow.time(work).seconds == pytest.approx(2 * base.time(work).seconds, rel=0.01)
    assert slow.time(work).launch == 1e-5
    one = MemoryBound(4e9)
    assert KernelCosts(H100, KernelTraits(memory=0.5)).time(one).seconds == pytest.approx(2 * base.time(one).seconds)
    older = KernelCosts(H100, KernelTraits(attention="flash1"))
    assert older.time(core()).seconds > base.time(core()).seconds


def test_costs_travel_between_processes():
    costs = KernelCosts(A100)
    first = costs.time(Gemm(512, 512, 512))
    again = pickle.loads(pickle.dumps(costs))
    assert again.time(Gemm(512, 512, 512)) == first


def test_missing_arithmetic_and_architectures_are_named():
    with pytest.raises(CatalogueError, match=r"A100.* has no fp8 arithmetic; it has fp32, tf32, fp16, bf16"):
        KernelCosts(A100).time(Gemm(512, 512, 512, precision="fp8"))
    with pytest.raises(CatalogueError, match="did you mean 'hopper'"):
        KernelCosts(replace(A100, kernels="hoper"))


def test_calibration_recovers_a_changed_gpu():
    rows = [r for r in measured_kernels() if r.kind == "gemm" and r.gpu.name == "a100-80"][::4]
    truth = scaled(kernel_constants("ampere"), {"power": 0.8, "issue": 0.85})
    made = [replace(r, seconds=r.predicted(truth)) for r in rows]
    _, fitted = fit_kernels(made, "ampere", ("issue", "power"))
    found = {f.name: f for f in fitted}
    assert found["power"].factor == pytest.approx(0.8, rel=0.06)
    assert found["issue"].factor == pytest.approx(0.85, rel=0.06)
    assert found["power"].spread < 0.4


def test_power_is_no_limit_where_the_catalogue_names_none():
    from llmsim.catalogue.kernel_constants import sustained

    gemm = kernel_constants("volta").gemm
    assert sustained(gemm, "fp32", 300.0) == inf
    assert sustained(gemm, "fp16", 75.0) == pytest.approx(50e12)


def test_accumulating_products_pay_for_their_epilogue():
    """SimuMax's products on A100-PCIe: 5 % slower at k = 4096, nothing left of it at k = 33024."""
    costs = KernelCosts(gpu("a100-pcie-80"))

    def slowdown(k):
        plain, adding = (costs.time(Gemm(7168, 4096, k, accumulate=adds)).seconds for adds in (False, True))
        return adding / plain - 1

    assert 0.03 < slowdown(4096) < 0.08
    assert slowdown(33024) < 0.012


def test_grouped_products_pay_for_the_weights_of_each_expert():
    """SimuMax's grouped products on B200, TFLOP/s of a forward by tokens an expert."""
    costs = KernelCosts(gpu("b200"), KernelTraits(sustained=True))
    for experts, rows, measured in ((128, 256, 0.274), (64, 512, 0.367), (32, 1024, 0.457), (40, 2460, 0.487)):
        work = Gemm(rows, 4096, 7168, experts, grouped=True)
        assert work.flops / costs.time(work).seconds == pytest.approx(measured * 2250e12, rel=0.16)
