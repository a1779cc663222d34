"""The demo's picture: the loss of every variant by epoch."""

from __future__ import annotations

from pathlib import Path

from fastadam.cli.extras import load

__all__ = ["save_loss_curves"]

# Okabe and Ito's colours, which people with any kind of colour vision tell apart.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000")
_GREY = "#666666"


def save_loss_curves(path: Path, curves: dict[str, list[float]], title: str) -> None:
    """Draw loss curves into a PNG file.

    Parameters
    ----------
    path : pathlib.Path
        The file to write.
    curves : dict of list of float
        By label: the loss before the first epoch and after each. At most five.
    title : str
        What the picture shows.
    """
    # without pyplot: no display is looked for, and the user's backend is left alone
    figure = load("demo", "matplotlib.figure").Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for colour, (label, losses) in zip(_COLOURS, curves.items(), strict=False):
        axes.plot(losses, color=colour, linewidth=1.8, label=label)
    axes.set_yscale("log")
    axes.set_xlim(0, max(map(len, curves.values())) - 1)
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss (cross-entropy)")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(axis="y", color="#e0e0e0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
    axes.tick_params(which="both", colors=_GREY)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, format="png", dpi=120)
