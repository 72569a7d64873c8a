"""Break every operator and constant of the optimizers' formulas, one at a time; tests must notice.

    .venv/bin/python tools/mutants.py [--jobs 2] [--start 1] [--stop N] [--only TEXT] [--list]

A mutant is a copy of `lib` with one change. It is dead when a test fails; the first tests are those
that kill most. Exit status 1 means that one has survived, and each survivor is printed.
"""

import argparse
import ast
import io
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
OPTIM = Path("lib/beyond_adam/optim")
FUNCTIONS = {
    OPTIM / "_adam_family.py": (
        "_step_one",
        "_step_many",
        "_scalars",
        "_is",
        "_shrinks",
        "_shrinkage",
        "_foreach_shrinkage",
        "_raise_",
    ),
    OPTIM / "_fused.py": ("_rule",),
    OPTIM / "_fused_triton.py": (
        "_scalars",
        "step_block",
        "_step",
        "_towards",
        "_raised",
        "_log2_of_power",
        "_root",
        "_quotient",
    ),
}
KERNEL = OPTIM / "_fused.cpp"
GPU_KERNEL = OPTIM / "_fused_triton.py"
FORMULAS = ["tests/test_adam_family.py", "-k", "formula or memory or schedule or autograd or bit"]
ACCURACY = ["tests/test_fused_step.py"]
ON_GPU = ["tests/on_gpu.py"]
ALL = ["tests/test_adam_family.py", "tests/test_blocks.py"]

OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.GtE: ast.Lt,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
}
METHODS = {
    "abs": "neg",
    "add": "sub",
    "add_": "sub_",
    "addcdiv_": "addcmul_",
    "addcmul_": "addcdiv_",
    "clamp_min_": "clamp_max_",
    "div_": "mul_",
    "exp2": "exp",
    "exp2_": "exp_",
    "expm1": "exp",
    "lerp_": "copy_",
    "log1p": "log",
    "log2": "log",
    "log2_": "log_",
    "maximum": "minimum",
    "maximum_": "minimum_",
    "mul_": "div_",
    "neg": "abs",
    "pow_": "mul_",
    "reciprocal_": "neg_",
    "sqrt": "abs",
    "sqrt_": "abs_",
    "sqrt_rn": "abs",
}
TOKENS = {"+": "-", "-": "+", "*": "/", "/": "*", "<=": ">", ">": "<=", "<": ">=", "==": "!="}
FUNCTIONS_CPP = {"std::sqrt": "std::abs", "std::log2": "std::abs", "std::floor": "std::ceil"}
FUNCTION = re.compile("|".join(FUNCTIONS_CPP))


class Mutant(NamedTuple):
    """One change of one file."""

    file: Path
    line: int
    before: str
    after: str
    text: str
    """The whole file, changed."""

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}: {self.before.strip()}  →  {self.after.strip()}"


def in_python(file: Path, functions: tuple[str, ...]) -> Iterator[Mutant]:
    """Yield the mutants of functions: operators, numbers, signs, methods and conditions."""
    source = (ROOT / file).read_text()
    lines = source.splitlines()
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef) or function.name not in functions:
            continue
        for node in ast.walk(function):
            for new in changes(node):
                start, end = node.lineno - 1, node.end_lineno
                old = "\n".join(lines[start:end])
                # Columns of the syntax tree count bytes.
                head = lines[start].encode()[: node.col_offset].decode()
                tail = lines[end - 1].encode()[node.end_col_offset :].decode()
                after = head + new + tail
                text = "\n".join([*lines[:start], after, *lines[end:], ""])
                yield Mutant(file, node.lineno, old, after, text)


def changes(node: ast.AST) -> Iterator[str]:
    """Yield the sources that take the place of a node."""
    match node:
        case ast.BinOp(left, op, right) if type(op) in OPERATORS:
            yield f"({ast.unparse(ast.BinOp(left, OPERATORS[type(op)](), right))})"
        case ast.BinOp(ast.Compare() as left, ast.BitOr(), ast.Compare() as right):  # of tensors
            yield f"({ast.unparse(ast.BinOp(left, ast.BitAnd(), right))})"
        case ast.BoolOp(op, values):
            yield f"({ast.unparse(ast.BoolOp(OPERATORS[type(op)](), values))})"
        case ast.Compare(left, ops, comparators):
            for i, op in enumerate(ops):
                other = [*ops[:i], OPERATORS[type(op)](), *ops[i + 1 :]]
                yield f"({ast.unparse(ast.Compare(left, other, comparators))})"
        case ast.UnaryOp(ast.USub(), operand):
            yield f"({ast.unparse(operand)})"
        case ast.Constant(value) if type(value) in (int, float):
            yield repr(value + 1)
        case ast.Attribute(value, name) if name.removeprefix("_foreach_") in METHODS:
            prefix = "_foreach_" if name.startswith("_foreach_") else ""
            yield f"{ast.unparse(value)}.{prefix}{METHODS[name.removeprefix('_foreach_')]}"


def in_kernel(file: Path) -> Iterator[Mutant]:
    """Yield the mutants of the formulas of the kernel, line by line."""
    source = (ROOT / file).read_text()
    lines = source.splitlines()
    scalars = lines.index("struct Scalars {")
    first, last = lines.index("// ---- powers ----"), lines.index("}  // namespace")
    for number, line in enumerate(lines):
        if not (first < number < last or scalars < number < scalars + 12):
            continue
        code, start = line.partition("//")[0], 0
        if code.startswith("#"):  # which may only make it faster
            continue
        if "for (" in code:  # what is counted is no formula, what is done may be
            start = code.index("++i)") + 4 if "++i)" in code else len(code)
        elif not re.search(r"[=?]|return|if \(", code) or re.search(r"__restrict|step\(", code):
            continue
        for at, new in token_changes(code, start):
            after = code[: at.start()] + new + code[at.end() :]
            text = "\n".join([*lines[:number], after, *lines[number + 1 :], ""])
            yield Mutant(file, number + 1, line, after, text)


def token_changes(code: str, start: int) -> Iterator[tuple[re.Match[str], str]]:
    """Yield tokens of a line and what takes their place."""
    for at in re.compile(r" (<=|==|[-+*/<>])(=?) (?!\*)|(?<![\w.])-(?=[\w.])").finditer(
        code, start
    ):
        operator = at[1]
        yield (at, f" {TOKENS[operator]}{at[2]} ") if operator else (at, "")
    for at in re.compile(r"(?<![\w.])(0x\w+|\d+\.?\d*(?:e-?\d+)?)(f?)(?![\w.])").finditer(
        code, start
    ):
        number = at[1]
        if number.startswith("0x"):
            yield at, f"{int(number, 16) // 2:#x}"
        elif "e" in number:
            yield at, f"{1 / float(number)!r}{at[2]}"
        else:
            yield at, f"{float(number) + 1 if '.' in number else int(number) + 1}{at[2]}"
    for at in FUNCTION.finditer(code, start):
        yield at, FUNCTIONS_CPP[at[0]]


def survives(mutant: Mutant) -> bool:
    """Return whether all tests pass with a mutant; the process is a fork with torch imported."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        shutil.copytree(ROOT / "lib", Path(folder, "lib"), ignore=shutil.ignore_patterns("*.pyc"))
        Path(folder, mutant.file).write_text(mutant.text)
        child = os.fork()
        if child == 0:
            if mutant.file == GPU_KERNEL:
                os.environ["TRITON_INTERPRET"] = "1"
                order = [ON_GPU]
            elif mutant.file == KERNEL:
                order = [ACCURACY, FORMULAS, ALL]
            else:
                order = [FORMULAS, ACCURACY, ALL]
            os._exit(tests(folder, order))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def tests(folder: str, parts: list[list[str]]) -> int:
    """Run parts of the tests on the package in a folder, and return the exit status."""
    import pytest

    os.chdir(ROOT)
    sys.path.insert(0, str(Path(folder, "lib")))
    options = ["-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "--no-header"]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        for files in parts:
            status = int(pytest.main([*options, *files]))
            if status:
                return status
    import beyond_adam

    assert str(beyond_adam.__file__).startswith(folder)
    return 0


def main() -> None:
    """Make all mutants, test them, and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time (1)")
    parser.add_argument("--start", type=int, default=1, help="the number of the first (1)")
    parser.add_argument("--stop", type=int, help="the number of the last (all)")
    parser.add_argument("--only", default="", help="text that the changed line must contain")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    options = parser.parse_args()
    mutants = [m for file, names in FUNCTIONS.items() for m in in_python(file, names)]
    mutants += in_kernel(KERNEL)
    mutants = [m for m in mutants if options.only in str(m)]
    if options.list:
        print(*mutants, sep="\n")
        return
    import torch  # once for all forks

    torch.set_num_threads(1)
    started = time.monotonic()
    survivors = []
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(options.jobs) as pool:
        os.environ["XDG_CACHE_HOME"] = cache  # for kernels, of which few should stay
        chosen = mutants[options.start - 1 : options.stop]
        results = zip(chosen, pool.map(survives, chosen), strict=True)
        for number, (mutant, alive) in enumerate(results, options.start):
            print(f"{number}/{len(mutants)} {'SURVIVES' if alive else 'dead'} {mutant}", flush=True)
            survivors += [mutant] * alive
    print(f"{len(chosen)} mutants in {time.monotonic() - started:.0f} s; survivors:")
    print(*survivors or ["none"], sep="\n")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
