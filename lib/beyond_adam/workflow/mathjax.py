"""Sphinx extension: MathJax from an installed package, so that the book needs no network.

Only what the pages use is copied, 1.6 MB of the package's 24: the TeX-to-HTML component and its
fonts.
"""

import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

COMPONENT = "tex-mml-chtml.js"
FONTS = "output/chtml/fonts/woff-v2"


def _copy(app: Any, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    # The package's folder is spelt with hyphens, so it cannot be imported.
    package = metadata.distribution("sphinx-mathjax-offline")
    folder = Path(str(package.locate_file("sphinx-mathjax-offline/static/mathjax")))
    target = Path(app.outdir) / "_static" / "mathjax"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / COMPONENT, target)
    shutil.copytree(folder / FONTS, target / FONTS, dirs_exist_ok=True)


def _configure(_app: Any, config: Any) -> None:
    config.mathjax_path = f"mathjax/{COMPONENT}"


def setup(app: Any) -> dict[str, bool]:
    """Register the extension with Sphinx."""
    app.connect("config-inited", _configure)
    app.connect("build-finished", _copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
