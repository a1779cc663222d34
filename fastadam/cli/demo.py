"""Train a small network on real data with every variant, and time the steps beside plain NumPy.

The data are the 1797 handwritten digits that scikit-learn brings along, a fifth of them for the
test; the network has 64 inputs, 32 tanh units and 10 classes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from fastadam.cli import arguments, demo_network, demo_training, output
from fastadam.cli.extras import MissingExtra, load
from fastadam.kernels.cpu.threads import get_num_threads, set_num_threads

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY = "train a network on handwritten digits with every variant (some seconds)"

# Okabe and Ito's colours, which people with any kind of colour vision tell apart.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000")
_GREY = "#666666"

EXAMPLE = """\
import numpy as np, fastadam
from sklearn.datasets import load_digits
X, y = load_digits(return_X_y=True)
params = {"W": np.zeros((64, 10)), "b": np.zeros(10)}
opt = fastadam.Adam(alpha=0.01).setup(params)
for _ in range(300):
    p = np.exp(X / 16 @ params["W"] + params["b"])
    d = (p / p.sum(axis=1, keepdims=True) - np.eye(10)[y]) / len(X)
    opt.apply_gradients({"W": X.T / 16 @ d, "b": d.sum(axis=0)})
print("right:", np.mean(p.argmax(axis=1) == y))
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--epochs",
        type=arguments.at_least(1),
        default=40,
        metavar="N",
        help="how often to go through the training images (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=arguments.at_least(0),
        default=0,
        metavar="N",
        help="of the initial weights and the order of the images (default: %(default)s)",
    )
    parser.add_argument(
        "--gradients",
        choices=("hand", "autograd"),
        default="hand",
        help="derived by hand, or by HIPS autograd (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=arguments.new_file,
        default="fastadam-demo.png",
        metavar="PNG",
        help="where to write the picture of the loss curves (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=arguments.at_least(1),
        metavar="N",
        help="how many threads a step on large arrays may use (default: those of the process)",
    )


def run(args: argparse.Namespace) -> int:
    """Train, time, draw and print; return 0, or 1 if the extra is not installed."""
    try:
        with arguments.restored_threads():
            if args.threads is not None:
                set_num_threads(args.threads)
            result = _train_all(args)
    except MissingExtra as missing:
        return output.refuse(args, str(missing), install=missing.install)
    if args.json:
        output.print_json(result)
    else:
        _print_result(result)
    return 0


def _train_all(args: argparse.Namespace) -> dict[str, Any]:
    """Train with every variant, write the picture, and return all that there is to tell."""
    started = time.perf_counter()
    # all of the extra first: what is missing is said before anything else happens
    progress_bar, _ = load("demo", "tqdm").tqdm, load("demo", "matplotlib.figure")
    digits = demo_network.load_digits()
    by_hand = args.gradients == "hand"
    gradients = demo_network.hand_gradients if by_hand else demo_network.autograd_gradients()
    rows = []
    total = len(demo_training.VARIANTS) * args.epochs
    # None: no bar where nobody watches it, as in a log
    with progress_bar(total=total, unit="epoch", file=sys.stderr, disable=None) as bar:

        def after_epoch(loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update()

        how = (digits, gradients, args.epochs, args.seed, after_epoch)
        for kind, hyperparameters in demo_training.VARIANTS:
            bar.set_description(f"{kind.__name__:8}")
            rows.append(demo_training.train(kind, hyperparameters, *how))
    _save_loss_curves(args.out, rows)
    elements = sum(p.size for p in demo_network.initial_parameters(args.seed).values())
    return {
        "variants": rows,
        "elements": elements,
        "large_elements": demo_training.LARGE,
        "train_images": len(digits.x_train),
        "test_images": len(digits.x_test),
        "epochs": args.epochs,
        "seed": args.seed,
        "gradients": args.gradients,
        "threads": get_num_threads(),
        "picture": str(args.out),
        "example": EXAMPLE,
        "seconds": round(time.perf_counter() - started, 2),
    }


def _save_loss_curves(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw the loss of every variant by epoch into a PNG file."""
    # without pyplot: no display is looked for, and the user's backend is left alone
    figure = load("demo", "matplotlib.figure").Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for colour, row in zip(_COLOURS, rows, strict=True):
        axes.plot(row["losses"], color=colour, linewidth=1.8, label=_label(row))
    axes.set_yscale("log")
    axes.set_xlim(0, len(rows[0]["losses"]) - 1)
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss (cross-entropy)")
    axes.set_title("Handwritten digits, a network of 64-32-10 units", loc="left", fontsize=11)
    axes.grid(axis="y", color="#e0e0e0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
    axes.tick_params(which="both", colors=_GREY)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, format="png", dpi=120)


def _label(row: dict[str, Any]) -> str:
    """Spell the constructor call of a variant."""
    given = ", ".join(f"{name}={value}" for name, value in row["hyperparameters"].items())
    return f"{row['variant']}({given})"


def _print_result(result: dict[str, Any]) -> None:
    """Print the table, where the picture is, and the lines to copy."""
    print(
        f"{result['train_images']} digits to train on, {result['test_images']} to test; "
        f"{result['epochs']} epochs; gradients: {result['gradients']}\n"
    )
    small, large = f"{result['elements']:,}", f"{result['large_elements']:,}"
    rows: list[tuple[str, ...]] = [
        ("", "final", "test", small, "elements", large, "elements"),
        ("optimizer", "loss", "accuracy", "fastadam", "NumPy", "fastadam", "NumPy"),
    ]
    for row in result["variants"]:
        rows.append(
            (
                _label(row),
                f"{row['final_loss']:.4f}",
                f"{row['test_accuracy']:.1%}",
                *(f"{us:.1f} µs" for us in row["step_us"].values()),
                *(f"{us / 1000:.2f} ms" for us in row["large_step_us"].values()),
            )
        )
    print(*output.table(rows, "lrrrrrr"), sep="\n")
    print(
        f"\nMedian time of a step on the network's {small} parameters and on one array of {large}, "
        f"float32,\nin turns with the same step in plain NumPy. Threads: {result['threads']}, "
        "for large arrays only."
    )
    print(f"\nLoss curves: {result['picture']}\nDone in {result['seconds']} s.")
    print(f"\nTo copy, a classifier of these digits:\n\n{result['example']}", end="")
