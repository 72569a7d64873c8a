"""What a piece of code depends on inside this package, read off its import statements.

A chapter or an experiment is stale when a module it imports, directly or not, has changed. The
closure is found without running anything: every ``import`` in the syntax tree counts, wherever it
stands, so an import inside a function is not missed.
"""

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def digest(data: bytes | str) -> str:
    """Return the SHA-256 of `data` (text as UTF-8) in hexadecimal."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def module_file(name: str, package: Path = PACKAGE) -> Path | None:
    """Return the source file of module `name`, or None if `package` has no such module."""
    top, *rest = name.split(".")
    if top != package.name:
        return None
    stem = package.joinpath(*rest)
    for file in (stem / "__init__.py", stem.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def imported_modules(source: str, package: Path = PACKAGE, importer: str = "") -> set[str]:
    """Return the modules of `package` that `source` imports.

    Importing ``a.b.c`` runs ``a`` and ``a.b`` too, so they count as well, unless they do nothing
    but pass on names from other modules: then what counts is the module that has the name.

    Parameters
    ----------
    source
        Python source text.
    package
        Folder of the package whose modules are wanted.
    importer
        Name of the package that relative imports in `source` are relative to.
    """
    wanted: set[str] = set()
    for module, name in _imports(ast.parse(source), importer):
        wanted |= _behind(module, name, package)
    parents = {
        module.rsplit(".", cut)[0] for module in wanted for cut in range(1, module.count(".") + 1)
    }
    return wanted | {name for name in parents if _passed_on(name, package) is None}


def _imports(tree: ast.Module, importer: str) -> Iterator[tuple[str, str]]:
    """Yield what is imported: a module and a name of it, which is empty for the module itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = importer.split(".")[: -(node.level - 1) or None] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((module, alias.name) for alias in node.names)


def _behind(module: str, name: str, package: Path) -> set[str]:
    """Return the modules that the import of a name, or of a whole module, depends on."""
    if module_file(module, package) is None:
        return set()
    if name and module_file(f"{module}.{name}", package):
        return _behind(f"{module}.{name}", "", package)
    passed_on = _passed_on(module, package)
    if passed_on is None:
        return {module}
    origins = [passed_on[name]] if name in passed_on else [(m, n) for m, n in passed_on.values()]
    return set().union(*(_behind(m, n, package) for m, n in origins))


@functools.cache
def _passed_on(module: str, package: Path) -> dict[str, tuple[str, str]] | None:
    """Return where the names of a package come from that only collects them; None for others."""
    file = module_file(module, package)
    if file is None or file.name != "__init__.py":
        return None
    tree = ast.parse(file.read_text())
    for node in tree.body:
        listing = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        if not (listing or _is_docstring(node) or isinstance(node, ast.ImportFrom)):
            return None
    return {name: (origin, name) for origin, name in _imports(tree, module)}


def code_digest(source: str) -> str:
    """Return the SHA-256 of what a Python text does: comments, layout and docstrings do not count.

    It is the same on every version of Python that parses the text.
    """
    return digest(_written(ast.parse(source)))


def _written(node: object) -> str:
    """Write a syntax tree, without strings that stand alone and without fields that are empty."""
    if isinstance(node, list):
        kept = [item for item in node if not _is_docstring(item)]
        return f"[{','.join(map(_written, kept))}]"
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return f"{type(node).__name__}({','.join(f'{n}={_written(v)}' for n, v in fields)})"
    return repr(node)


def _is_docstring(node: object) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def closure(
    names: Iterable[str], package: Path = PACKAGE, *, docstrings: bool = False
) -> dict[str, str]:
    """Return every module reachable by import from `names`, each with a hash.

    Parameters
    ----------
    names
        Names of modules.
    package
        Folder of the package that they belong to.
    docstrings
        Whether the hash is the SHA-256 of the source, or `code_digest` of it. In either case the
        source of ``a.py`` includes that of an ``a.cpp`` beside it.

    Raises
    ------
    ValueError
        If a name is not that of a module of `package`.
    """
    found: dict[str, str] = {}
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        file = module_file(name, package)
        if file is None:
            raise ValueError(f"{name!r} is not a module of {package}")
        source = file.read_text()
        native = file.with_suffix(".cpp")  # which a module of the same name compiles
        own = digest(source) if docstrings else code_digest(source)
        found[name] = digest(own + native.read_text()) if native.is_file() else own
        importer = name if file.name == "__init__.py" else name.rpartition(".")[0]
        waiting |= imported_modules(source, package, importer) - found.keys()
    return dict(sorted(found.items()))


def changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Say in words how two sets of dependencies differ, one item for each difference."""
    return [
        f"{name} {'is new' if name not in before else 'is gone' if name not in now else 'changed'}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
