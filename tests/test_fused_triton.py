"""The kernel behind ``fused=True`` on GPUs, on machines without one."""

import os
import re
import subprocess
import sys
import warnings
from itertools import groupby
from pathlib import Path

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from beyond_adam.optim import PAdam, _fused, _fused_triton
from test_fused_step import draw, train


def test_it_computes_what_the_for_loop_does():
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    tests = Path(__file__).with_name("on_gpu.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tests)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 100


def compiled(stored, computed, *, amsgrad=False, at_power=False, decay=0, machine=90):
    constants = {
        "S": getattr(_fused_triton.tl, stored),
        "T": getattr(_fused_triton.tl, computed),
        "AMSGRAD": amsgrad,
        "EPS_AT_POWER": at_power,
        "DECAY": decay,
        "ALIGNED": True,
        "TENSORS": 64,
        "BLOCK": _fused_triton.BLOCK,
    }
    types = {"numbers": "*fp64", "table": "*i64", "count": "i32"}
    source = ASTSource(
        fn=_fused_triton.step_block,
        signature=types | dict.fromkeys(constants, "constexpr"),
        constexprs={(i,): value for i, value in enumerate(constants.values(), len(types))},
        attrs={(0,): [["tt.divisibility", 16]], (1,): [["tt.divisibility", 16]]},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on options that a launch sets
        return triton.compile(source, target=GPUTarget("cuda", machine, 32))


@pytest.mark.parametrize(
    ("stored", "computed", "options"),
    [
        ("float32", "float32", {"decay": 1}),
        ("float32", "float32", {"decay": 1, "machine": 80}),
        ("bfloat16", "float32", {"decay": 2, "amsgrad": True}),
        ("float16", "float32", {"decay": 3}),
        ("float64", "float64", {"decay": 3, "at_power": True, "amsgrad": True}),
    ],
)
def test_it_compiles_for_gpus_and_reads_four_words_at_once_before_it_writes(
    stored, computed, options
):
    code = compiled(stored, computed, **options).asm
    assert code["cubin"]
    words = re.findall(r"(ld|st)\.global[.\w]*\.v(\d)\.b(\d+)", code["ptx"])
    assert {direction for direction, *_ in words} == {"ld", "st"}
    assert {int(count) * int(bits) for _, count, bits in words} == {128}
    order = [way for way, _ in groupby(re.findall(r"\b(ld|st)\.global", code["ptx"]))]
    assert order == ["ld", "st"] * 2, "in whole blocks and in those at the end of a tensor"
    if stored != computed:
        rounded = {"bfloat16": "cvt.rn.bf16x2.f32", "float16": "cvt.rn.f16x2.f32"}[stored]
        assert rounded in code["ptx"] or rounded.replace("x2", "") in code["ptx"]


def test_where_triton_does_not_work_one_warning_says_so(monkeypatch):
    def fail():
        raise RuntimeError("I am ill.")

    monkeypatch.setattr(_fused_triton, "try_out", fail)
    monkeypatch.setitem(_fused.KERNELS, "cpu", _fused.KERNELS["cuda"])
    _fused.gpu_kernel.cache_clear()
    runs = []
    for fused in (True, False):
        w = draw(9)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(PAdam, [w], [[draw(9, seed=1)], [draw(9, seed=2)]], fused=fused)
        runs.append((w, [str(warning.message) for warning in caught]))
    assert torch.equal(runs[0][0], runs[1][0])
    message = "fused=True has no effect, for want of Triton that works: I am ill."
    assert [messages for _, messages in runs] == [[message], []]
    _fused.gpu_kernel.cache_clear()


def test_of_what_it_is_compiled_for_nothing_is_a_number_that_moves():
    constants = {p.name for p in _fused_triton.step_block.params if p.is_constexpr}
    kinds = {"S", "T", "AMSGRAD", "EPS_AT_POWER", "DECAY", "ALIGNED"}
    assert constants == kinds | {"TENSORS", "BLOCK"}
    assert all(p.do_not_specialize for p in _fused_triton.step_block.params if p.name == "count")
