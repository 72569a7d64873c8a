"""Sphinx extension: pages that need no network.

MathJax comes from an installed package. Only what the pages use is copied, 1.6 MB of the package's
24: the TeX-to-HTML component and its fonts. The scripts of thebe, which would fetch a kernel from
the network and which Jupyter Book adds to every page whether it is used or not, are left out.
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


def _without_thebe(_app: Any, _page: str, _template: str, context: Any, _doctree: Any) -> None:
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in f"{script.filename} {script.attributes.get('body')}".lower()
    ]


def setup(app: Any) -> dict[str, bool]:
    """Register the extension with Sphinx."""
    app.connect("config-inited", _configure)
    app.connect("html-page-context", _without_thebe)
    app.connect("build-finished", _copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
