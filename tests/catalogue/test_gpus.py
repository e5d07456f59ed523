import dataclasses

import pytest

from llmsim.catalogue.gpus import gpu, gpus
from llmsim.errors import CatalogueError

TENSOR_CORES = {  # (tensor cores per SM, FMA per core and clock in fp16): architecture papers
    "v100-32": (8, 64), "a100-40": (4, 256), "a100-80": (4, 256), "h100-sxm": (4, 512), "h200": (4, 512),
    "b200": (4, 1024), "gb200": (4, 1024),
}  # fmt: skip


@pytest.mark.parametrize("name", gpus())
def test_every_entry_is_complete_and_plausible(name):
    g = gpu(name)
    assert g.name == name and g.sources and g.label
    assert 10e9 < g.memory_bytes < 400e9 and 0.5e12 < g.memory_bandwidth < 10e12
    assert 0 < g.idle_w < 0.2 * g.tdp_w
    assert g.peak_flops["fp16"] > 2 * g.peak_flops["fp32"] and g.sms > 50
    if "fp8" in g.peak_flops:
        assert g.peak_flops["fp8"] == pytest.approx(2 * g.peak_flops["bf16"], rel=0.02)
    with pytest.raises(dataclasses.FrozenInstanceError):
        g.sms = 1


@pytest.mark.parametrize("name", TENSOR_CORES)
def test_the_dense_peak_follows_from_units_and_clock(name):
    cores, fma = TENSOR_CORES[name]
    g = gpu(name)
    assert g.peak_flops["fp16"] == pytest.approx(g.sms * cores * fma * 2 * g.clock_hz, rel=0.003)


def test_the_names_users_write():
    wanted = """v100-16 v100-32 a100-40 a100-80 a100-pcie-80 h100-sxm h100-pcie h200 h800 h20
                b200 b300 gb200 gb300 mi250x mi300x"""
    assert set(wanted.split()) <= set(gpus())
    assert gpu("a100-80gb") is not None and gpu("a100-80gb").name == "a100-80"
    assert gpu("H100").name == "h100-sxm" and gpu("A100_40GB").name == "a100-40"


def test_old_gpus_have_no_new_arithmetic():
    assert "bf16" not in gpu("v100-32").peak_flops and "fp8" not in gpu("a100-80").peak_flops
    with pytest.raises(CatalogueError, match="has no fp8 arithmetic; it has fp32, tf32, fp16, bf16"):
        gpu("a100-80").peak("fp8")


@pytest.mark.parametrize("wrong", ["a100-90", "h100-smx", "B20"])
def test_an_unknown_name_suggests_the_nearest(wrong):
    with pytest.raises(CatalogueError, match=rf"no GPU named '{wrong}' in the catalogue; did you mean '\w"):
        gpu(wrong)


def test_a_hopeless_name_lists_what_is_known():
    with pytest.raises(CatalogueError, match="known: v100-16, "):
        gpu("abacus")
