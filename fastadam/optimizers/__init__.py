"""The Adam family: Adam, AdamW, AMSGrad, AdaBound, AMSBound."""

from typing import NoReturn

from fastadam.optimizers.adam import Adam
from fastadam.optimizers.adam_rule import AdamRule
from fastadam.optimizers.variants import AdaBound, AdamW, AMSBound, AMSGrad

__all__ = ["AMSBound", "AMSGrad", "AdaBound", "Adam", "AdamRule", "AdamW"]

_OTHERS = (
    "AdaDelta",
    "AdaGrad",
    "CorrectedMomentumSGD",
    "MSVAG",
    "MomentumSGD",
    "NesterovAG",
    "RMSprop",
    "RMSpropGraves",
    "SGD",
    "SMORMS3",
)


def __getattr__(name: str) -> NoReturn:
    """Answer for optimizers that people look for here."""
    if name in _OTHERS:
        raise AttributeError(
            f"fastadam has the Adam family only ({', '.join(__all__)}), no {name}; the "
            "documentation of fastadam.GradientMethod shows SGD in ten lines"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
