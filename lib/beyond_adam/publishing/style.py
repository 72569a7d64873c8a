"""One look for every figure: colour-blind-safe, readable on a light and on a dark page."""

from typing import Any, Final

import matplotlib.pyplot as plt
import seaborn as sns
from cycler import cycler

#: Okabe and Ito's palette without yellow, which is too faint on white: safe for all common forms
#: of colour blindness. Lines also differ in dash pattern, so that colour never stands alone.
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES: Final = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))

#: Opaque white behind every figure, so that axes stay readable whatever the page's theme.
_SETTINGS: Final[Any] = {
    "figure.figsize": (6.4, 4.0),
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 300,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.titlesize": "medium",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.family": "DejaVu Sans",  # comes with Matplotlib: the same letters on every machine
    "image.cmap": "viridis",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "pdf.fonttype": 42,
}


def use() -> None:
    """Set the style for all figures drawn from now on."""
    sns.set_theme(context="notebook", style="ticks", font_scale=0.9)
    plt.rcParams.update(_SETTINGS)
