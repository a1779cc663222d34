"""The hyperparameters of the benchmark, in fastadam's words and in those of others."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastadam.optimizers import AdaBound, Adam, AdamW, AMSBound, AMSGrad

__all__ = ["ALPHA", "BETAS", "EPS", "VARIANTS", "WEIGHT_DECAY", "Variant", "optimizer"]

ALPHA = 1e-3
BETAS = (0.9, 0.999)
EPS = 1e-8

# As PyTorch and optax mean it: times alpha.
WEIGHT_DECAY = 0.01


class Variant(NamedTuple):
    """One of the Adam family: the class, here and in Chainer under its name, and what it does."""

    kind: type[Adam]
    decay: bool
    amsgrad: bool
    adabound: bool


VARIANTS = {
    "adam": Variant(Adam, decay=False, amsgrad=False, adabound=False),
    "adamw": Variant(AdamW, decay=True, amsgrad=False, adabound=False),
    "amsgrad": Variant(AMSGrad, decay=False, amsgrad=True, adabound=False),
    "adabound": Variant(AdaBound, decay=False, amsgrad=False, adabound=True),
    "amsbound": Variant(AMSBound, decay=False, amsgrad=True, adabound=True),
}


def optimizer(variant: Variant, modes: str = "chainer") -> Adam:
    """Make fastadam's optimizer of a variant, before its setup.

    Parameters
    ----------
    variant : Variant
        Which.
    modes : {'chainer', 'pytorch'}
        Where eps is added, and whether the weight decay is a product with alpha. What is computed
        for an element is the same operations either way; the decay is the same number.
    """
    given: dict[str, Any] = {"alpha": ALPHA, "beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS}
    if modes == "pytorch" and not variant.adabound:
        # what PyTorch has not is as its authors have it, also on its tensors
        given["eps_mode"] = "paper"
    if variant.decay and modes == "pytorch":
        given |= {"weight_decay_rate": WEIGHT_DECAY, "decay_mode": "alpha"}
    elif variant.decay:
        given["weight_decay_rate"] = ALPHA * WEIGHT_DECAY
    return variant.kind(**given)
