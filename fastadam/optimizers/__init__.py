"""The Adam family: Adam, AdamW, AMSGrad, AdaBound, AMSBound."""

from typing import NoReturn as _NoReturn

from fastadam.optimizers.adam import Adam
from fastadam.optimizers.adam_rule import AdamRule
from fastadam.optimizers.suggestions import no_optimizer as _no_optimizer
from fastadam.optimizers.variants import AdaBound, AdamW, AMSBound, AMSGrad

__all__ = ["AMSBound", "AMSGrad", "AdaBound", "Adam", "AdamRule", "AdamW"]


def __getattr__(name: str) -> _NoReturn:
    """Answer for optimizers that people look for here."""
    raise AttributeError(_no_optimizer(__name__, name, __all__))
