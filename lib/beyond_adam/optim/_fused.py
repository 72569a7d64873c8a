"""The step of the Adam family in one pass over memory, by kernels compiled on first use.

On a CPU that is `_fused.cpp`. It needs no header but those of the language, so that any C++
compiler makes a library of it in a few seconds. That is kept in the user's cache and found there by
later processes. Threads are those of OpenMP, which torch's own kernels use too. On a GPU it is
`_fused_triton`.
"""

import atexit
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from array import array
from collections.abc import Callable
from functools import cache, partial
from itertools import chain, product
from operator import attrgetter
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from beyond_adam.optim._adam_family import Rule

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = ["-std=c++17", "-O3", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math"]
# Threading jumps would undo the branch-free form of the loops.
FLAGS += ["-fno-thread-jumps"]
THREADS: tuple[list[str], ...] = (["-fopenmp"], [])
MACHINES: tuple[list[str], ...] = (["-march=native"], ["-mcpu=native"], [])

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
CORRECTIONS = {"none": 0, "moments": 1, "step size": 2}
STEPS = torch.float32, torch.float64
DECAYS = {"none": 0, "previous": 1, "updated": 2, "dynamic": 3}
LEAST = torch.finfo(torch.float32).tiny
"""A decay pηλ below it is none: in float32 it might vanish, and leave 0 · ∞ at w = 0."""
_COMPILING = Lock()
LAYOUTS = torch.contiguous_format, torch.channels_last, torch.channels_last_3d


class _Rule(ctypes.Structure):
    """What all tensors share, as in the source."""

    _fields_ = (
        ("lr", ctypes.c_double),
        ("gradient", ctypes.c_double),
        ("coupled", ctypes.c_double),
        ("kept", ctypes.c_double),
        ("beta1", ctypes.c_double),
        ("beta2", ctypes.c_double),
        ("eps", ctypes.c_double),
        ("power", ctypes.c_double),
        ("rest", ctypes.c_double),
        ("strength", ctypes.c_double),
        ("p", ctypes.c_double),
        ("beta_s", ctypes.c_double),
        ("eps_at_power", ctypes.c_int32),
        ("amsgrad", ctypes.c_int32),
        ("correction", ctypes.c_int32),
        ("decay", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
        ("double_steps", ctypes.c_int32),
    )


class Slots(NamedTuple):
    """Tensors of one device without gaps, by the addresses of their first elements."""

    device: torch.device
    addresses: list[list[int]]
    """Lists of w, g, m, v, max v and 1/s; 0 for what is not there."""
    sizes: list[int]
    steps: list[Tensor]
    """The numbers of steps taken, on the CPU."""


# What tensors are asked, hundreds of times in a step of a small model, without a turn of the
# interpreter for each.
_dtype, _device, _is_cpu, _nbytes = map(attrgetter, ("dtype", "device", "is_cpu", "nbytes"))

Kernel = Callable[[_Rule, Slots], None]
"""Takes a step, and counts it."""


def take_step(
    columns: list[list[Tensor]], steps: list[Tensor], rule: "Rule", grad_scale: Tensor | None
) -> list[int]:
    """Take one step of `rule`, in place, for as many parameters as the kernels can.

    Parameters
    ----------
    columns
        Lists of w, g, m, v, max v and 1/s, of any shapes and layouts; empty for what the rule has
        no use for.
    steps
        The numbers of steps taken, on the CPU.
    rule
        The rule.
    grad_scale
        What the gradients are to be divided by, or None.

    Returns
    -------
    list of int
        The parameters they cannot step: those of other devices and dtypes, those whose state does
        not fit them, those whose steps are not counted on the CPU, or, after a warning, all of a
        device without a compiler.
    """
    dtypes = [map(_dtype, tensors) for tensors in (columns[0], columns[1], steps)]
    kinds = list(zip(map(_device, columns[0]), *dtypes, strict=True))
    left: list[int] = []
    for kind in dict.fromkeys(kinds):
        device, dtype, of_gradients, counter = kind
        some, counts, members = columns, steps, list(range(len(steps)))
        if kinds.count(kind) < len(kinds):
            members = [i for i in members if kinds[i] == kind]
            some = [[column[i] for i in members] if column else [] for column in columns]
            counts = [steps[i] for i in members]
        find = KERNELS.get(device.type)
        known = dtype == of_gradients and dtype in DTYPES and counter in STEPS
        # First of all the counts: they are elsewhere if a graph is being captured.
        kernel = find(dtype) if known and find and all(map(_is_cpu, counts)) else None
        if kernel is None:
            left += members
            continue
        if not _call(kernel, _rule(rule, grad_scale, dtype, counter), some, counts):
            left += members
    return sorted(left)


def _call(kernel: Kernel, rule: _Rule, columns: list[list[Tensor]], steps: list[Tensor]) -> bool:
    """Step parameters of one dtype, unless memory does not hold what the kernel takes it for."""
    states = [column for i, column in enumerate(columns) if i != 1 and column]  # 1: the gradients
    everything = [*chain(columns[1], *states)]
    device = columns[0][0].device
    if device.type == "cpu":
        there = all(map(_is_cpu, everything))
    else:
        there = all(each == device for each in map(_device, everything))
    if not there:
        return False
    dense = columns
    if not all(map(Tensor.is_contiguous, everything)):
        dense = [[] for _ in columns]
        for slot in zip(*[column for column in columns if column], strict=True):
            same = _dense(slot)
            copies = iter(slot if same else [tensor.contiguous() for tensor in slot])
            for column, copied in zip(columns, dense, strict=True):
                if column:
                    copied.append(next(copies))
    if any(map(Tensor.is_neg, dense[0])):  # their memory holds −w
        return False
    if any(map(Tensor.is_neg, dense[1])):
        dense = [dense[0], [grad.resolve_neg() for grad in dense[1]], *dense[2:]]
    sizes, size = list(map(Tensor.numel, dense[0])), dense[0][0].itemsize
    wanted = [size * n for n in sizes]
    of_state = wanted if size >= 4 else [4 * n for n in sizes]
    for i, tensors in enumerate(dense):
        if tensors and list(map(_nbytes, tensors)) != (wanted if i < 2 else of_state):
            return False
    addresses = [list(map(Tensor.data_ptr, column)) for column in dense]
    for found in addresses:
        # Tensors that are known to be 0, and those of some subclasses, have no memory.
        if 0 in found and any(n for n, address in zip(sizes, found, strict=True) if not address):
            return False
    absent = [0] * len(steps)
    kernel(rule, Slots(device, [found or absent for found in addresses], sizes, steps))
    if dense is not columns:
        for i, pairs in enumerate(zip(columns, dense, strict=True)):
            for tensor, copy in zip(*pairs, strict=True):
                if i != 1 and copy is not tensor:
                    tensor.copy_(copy)
    torch.autograd.graph.increment_version(list(chain(steps, *states)))
    return True


def _rule(
    rule: "Rule", grad_scale: Tensor | None, dtype: torch.dtype, counter: torch.dtype
) -> _Rule:
    lr, scale = float(rule.lr), 1.0 if grad_scale is None else grad_scale.item()
    strength = rule.p * lr * rule.weight_decay
    decay = (
        "none" if rule.decay != "p-norm" else rule.decay_at if rule.beta_s is None else "dynamic"
    )
    # Without strength the power of p = 2 does as well as any, and is finite at w = 0.
    strength = strength if strength >= LEAST else 0.0
    p = 2.0 if strength == 0 and rule.beta_s is None else rule.p
    return _Rule(
        lr=lr,
        gradient=(-1 if rule.maximize else 1) / scale,
        coupled=rule.weight_decay if rule.decay == "coupled" else 0.0,
        kept=1 - lr * rule.weight_decay if rule.decay == "decoupled" else 1.0,
        beta1=rule.beta1,
        beta2=rule.beta2,
        eps=rule.eps,
        power=2 * rule.exponent if rule.eps_at == "root" else rule.exponent,
        rest=1 + lr * rule.lambda_2,
        strength=strength,
        p=p,
        beta_s=rule.beta_s or 0.0,
        eps_at_power=rule.eps_at == "power",
        amsgrad=rule.amsgrad,
        correction=CORRECTIONS[rule.correction],
        decay=DECAYS[decay],
        dtype=DTYPES[dtype],
        double_steps=counter == torch.float64,
    )


def _dense(slot: tuple[Tensor, ...]) -> bool:
    """Return whether the elements lie without gaps and in the same order in all tensors."""
    for layout in LAYOUTS:
        for tensor in slot:
            if not tensor.is_contiguous(memory_format=layout):
                break
        else:
            return True
    # Slower, for any other order of the axes, as after a transposition.
    w = slot[0]
    order = sorted(range(w.dim()), key=w.stride, reverse=True)
    return all(tensor.permute(order).is_contiguous() for tensor in slot)


def _cpu_kernel(dtype: torch.dtype) -> Kernel | None:
    compiled = library()
    if compiled is None or (dtype == torch.float16 and not _knows_float16(compiled)):
        return None
    return partial(_step_on_cpu, compiled)


@cache
def _knows_float16(compiled: ctypes.CDLL) -> bool:
    """Return whether there is a kernel for float16; warn if there is none."""
    known = bool(compiled.has_float16())
    if not known:
        _warn("a C++ compiler that knows float16")
    return known


def _gpu_kernel(dtype: torch.dtype) -> Kernel | None:  # noqa: ARG001 - Triton knows all of them
    compiled = gpu_kernel()
    return compiled.take_step if compiled else None


KERNELS: Final[dict[str, Callable[[torch.dtype], Kernel | None]]] = {
    "cpu": _cpu_kernel,
    "cuda": _gpu_kernel,
}


def _step_on_cpu(compiled: ctypes.CDLL, rule: _Rule, slots: Slots) -> None:
    steps = [step.data_ptr() for step in slots.steps]
    rows = zip(*slots.addresses, steps, slots.sizes, strict=True)
    table = array("q", chain.from_iterable(rows))
    compiled.take_step(
        ctypes.byref(rule),
        ctypes.c_void_p(table.buffer_info()[0]),
        ctypes.c_int64(len(steps)),
        ctypes.c_int32(torch.get_num_threads()),
    )


@cache
def gpu_kernel() -> ModuleType | None:
    """Return the module of the kernel for GPUs; where Triton does not work, warn, return None."""
    try:
        from beyond_adam.optim import _fused_triton

        _fused_triton.try_out()
    except Exception as error:
        _warn(f"Triton that works: {error}")
        return None
    return _fused_triton


def _warn(wanted: str) -> None:
    warnings.warn(f"fused=True has no effect, for want of {wanted}", stacklevel=2)


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernel; without a compiler that works, warn and return None."""
    try:
        with _COMPILING:  # other threads find in the cache what the first has compiled
            return ctypes.CDLL(str(_compiled()))
    except (OSError, ValueError, subprocess.CalledProcessError) as error:  # of quotes in CXX, too
        reason = getattr(error, "stderr", None) or error
        _warn(f"a C++ compiler that works: {reason}")
        return None


def _compiled() -> Path:
    """Return the path of the library, compiled for this machine unless it is in the cache."""
    found = next(filter(shutil.which, ("c++", "g++", "clang++")), "")
    compiler = shlex.split(os.environ.get("CXX") or found)  # CXX may hold options, as for make
    if not compiler:
        raise FileNotFoundError("none of c++, g++ and clang++ is installed, and CXX is not set")
    done = subprocess.run([*compiler, "--version"], check=True, capture_output=True, text=True)
    settings = repr((compiler, done.stdout, FLAGS, THREADS, MACHINES)).encode()
    parts = (SOURCE.read_bytes(), settings, _processor())
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    library = _cache_folder() / f"adam-family-{key}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder, library.name)
        for threads, machine in product(THREADS, MACHINES):
            command = [*compiler, *FLAGS, *machine, *threads, str(SOURCE), "-o", str(made)]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode == 0:
                break
        done.check_returncode()
        made.replace(library)  # at once, since other processes may be doing the same
    return library


def _processor() -> bytes:
    """Return what tells processors with other instructions apart."""
    info = Path("/proc/cpuinfo")
    lines = info.read_bytes().splitlines() if info.is_file() else []
    names = [line for line in lines if line.startswith((b"model name", b"flags", b"Features"))]
    return b"\n".join([platform.machine().encode(), platform.processor().encode(), *names[:2]])


def _cache_folder() -> Path:
    """Return a folder that is kept between processes, or else a temporary one."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "beyond_adam")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    temporary = tempfile.TemporaryDirectory(prefix="beyond_adam-")
    atexit.register(temporary.cleanup)
    return Path(temporary.name)
