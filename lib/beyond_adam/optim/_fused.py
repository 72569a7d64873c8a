"""The step of the Adam family in one pass over memory, by a C++ kernel compiled on first use.

`_fused.cpp` needs no header but those of the language, so that any C++ compiler makes a library of
it in a few seconds. That is kept in the user's cache and found there by later processes. Threads
are those of OpenMP, which torch's own kernels use too.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

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
DECAYS = {"previous": 1, "updated": 2, "dynamic": 3}
LAYOUTS = torch.contiguous_format, torch.channels_last, torch.channels_last_3d


class _Rule(ctypes.Structure):
    """What all tensors share, as in the source."""

    _fields_ = (
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
        ("decay", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
    )


class _Slot(ctypes.Structure):
    """One tensor, as in the source."""

    _fields_ = (
        ("w", ctypes.c_void_p),
        ("g", ctypes.c_void_p),
        ("m", ctypes.c_void_p),
        ("v", ctypes.c_void_p),
        ("peak", ctypes.c_void_p),
        ("inverse_s", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("step_size", ctypes.c_double),
        ("divisor", ctypes.c_double),
    )


Slot = tuple[Tensor, ...]
"""w, g, m, v, max v and 1/s of one parameter; v stands for those that the rule does not have."""


def takes(slot: Slot) -> bool:
    """Return whether the kernel can step a parameter; there must be a kernel."""
    w, g = slot[:2]
    if not w.is_cpu or w.dtype != g.dtype or w.dtype not in DTYPES:
        return False
    kernel = library()
    return w.dtype != torch.float16 or (kernel is not None and bool(kernel.has_float16()))


def take_step(
    slots: list[Slot],
    scalars: list[tuple[float, float, float]],
    rule: "Rule",
    grad_scale: float,
) -> None:
    """Take one step of `rule`, in place on w, m, v and what else there is.

    Parameters
    ----------
    slots
        Parameters of any shapes and layouts, of which `takes` is true.
    scalars
        For each of them η, η corrected for bias, and what divides √v.
    rule
        The rule, with a number for the learning rate.
    grad_scale
        What the gradients are to be divided by.
    """
    kernel = library()
    assert kernel is not None
    alike: dict[torch.dtype, list[_Slot]] = {}
    # Memory of temporaries must stay until the kernel has read it.
    copied: list[tuple[Slot, dict[Tensor, Tensor]]] = []
    for slot, (_, step_size, divisor) in zip(slots, scalars, strict=True):
        w = slot[0]
        addresses = [tensor.data_ptr() for tensor in slot]
        if slot[1].is_neg() or not _dense(slot):
            dense = {tensor: tensor.resolve_neg().contiguous() for tensor in slot}
            copied.append((slot, dense))
            addresses = [dense[tensor].data_ptr() for tensor in slot]
        alike.setdefault(w.dtype, []).append(_Slot(*addresses, w.numel(), step_size, divisor))
    for dtype, members in alike.items():
        kernel.take_step(
            ctypes.byref(_rule(rule, scalars[0][0], grad_scale, dtype)),
            (_Slot * len(members))(*members),
            ctypes.c_int64(len(members)),
            ctypes.c_int32(torch.get_num_threads()),
        )
    for slot, dense in copied:
        for tensor in (slot[0], *slot[2:]):
            tensor.copy_(dense[tensor])
    written = [tensor for slot in slots for tensor in (slot[0], *slot[2:])]
    torch.autograd.graph.increment_version(written)


def _rule(rule: "Rule", lr: float, grad_scale: float, dtype: torch.dtype) -> _Rule:
    strength, rest, decay = 0.0, 1.0, 0
    if rule.decay == "p-norm":
        strength, rest = rule.p * lr * rule.weight_decay, 1 + lr * rule.lambda_2
        decay = DECAYS["dynamic" if rule.beta_s is not None else rule.decay_at]
    p = rule.p
    if strength == 0 and rule.beta_s is None:  # then p has no part in it
        p, decay = 2.0, decay if rest != 1 else 0
    return _Rule(
        gradient=(-1 if rule.maximize else 1) / grad_scale,
        coupled=rule.weight_decay if rule.decay == "coupled" else 0.0,
        kept=1 - lr * rule.weight_decay if rule.decay == "decoupled" else 1.0,
        beta1=rule.beta1,
        beta2=rule.beta2,
        eps=rule.eps,
        power=2 * rule.exponent if rule.eps_at == "root" else rule.exponent,
        rest=rest,
        strength=strength,
        p=p,
        beta_s=rule.beta_s or 0.0,
        eps_at_power=rule.eps_at == "power",
        amsgrad=rule.amsgrad,
        decay=decay,
        dtype=DTYPES[dtype],
    )


def _dense(slot: Slot) -> bool:
    """Return whether the elements lie without gaps and in the same order in all tensors."""
    for layout in LAYOUTS:
        for tensor in slot:
            if not tensor.is_contiguous(memory_format=layout):
                break
        else:
            return True
    return False


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernel; without a compiler that works, warn and return None."""
    try:
        return ctypes.CDLL(str(_compiled()))
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        warnings.warn(
            f"fused=True has no effect, for want of a C++ compiler that works: {reason}",
            stacklevel=2,
        )
        return None


def _compiled() -> Path:
    """Return the path of the library, compiled for this machine unless it is in the cache."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if compiler is None:
        raise FileNotFoundError("none of c++, g++ and clang++ is installed, and CXX is not set")
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True).stdout
    parts = (SOURCE.read_bytes(), version, repr((FLAGS, THREADS, MACHINES)).encode(), _processor())
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    library = _cache_folder() / f"adam-family-{key}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder, library.name)
        for threads, machine in product(THREADS, MACHINES):
            command = [compiler, *FLAGS, *machine, *threads, str(SOURCE), "-o", str(made)]
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
    return Path(tempfile.mkdtemp(prefix="beyond_adam-"))
