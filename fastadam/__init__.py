"""fastadam: the Adam family of optimizers, fast on the CPU, with Chainer's interface and bits.

>>> import numpy as np
>>> import fastadam
>>> params = {'w': np.array([1.0, -2.0])}
>>> opt = fastadam.Adam(alpha=0.1).setup(params)
>>> for _ in range(300):
...     opt.apply_gradients({'w': 2 * params['w']})
>>> bool(np.all(np.abs(params['w']) < 1e-3))
True
"""

import importlib as _importlib
from typing import NoReturn as _NoReturn

from fastadam import chainer, link, optimizer, optimizer_hooks, optimizers, serializers
from fastadam._version import __version__
from fastadam.checkpoint import CheckpointError, LoadReport, load, save
from fastadam.comparison.compare import compare
from fastadam.configuration import get_config, show_config
from fastadam.kernels.cpu.threads import get_num_threads, set_num_threads
from fastadam.kernels.step import adam_step
from fastadam.link import Chain, ChainList, Link
from fastadam.model.parameter import Parameter
from fastadam.optimizer import GradientMethod, Optimizer
from fastadam.optimizers import AdaBound, Adam, AdamRule, AdamW, AMSBound, AMSGrad
from fastadam.optimizers.suggestions import no_optimizer as _no_optimizer
from fastadam.update.bridges import add_bridge as _add_bridge
from fastadam.update.hyperparameter import Hyperparameter, HyperparameterProxy
from fastadam.update.report import UpdateReport
from fastadam.update.rule import UpdateRule
from fastadam.update.snapshot import snapshot

__all__ = [
    "AMSBound",
    "AMSGrad",
    "AdaBound",
    "Adam",
    "AdamRule",
    "AdamW",
    "Chain",
    "ChainList",
    "CheckpointError",
    "GradientMethod",
    "Hyperparameter",
    "HyperparameterProxy",
    "Link",
    "LoadReport",
    "Optimizer",
    "Parameter",
    "UpdateReport",
    "UpdateRule",
    "__version__",
    "adam_step",
    "chainer",
    "compare",
    "get_config",
    "get_num_threads",
    "link",
    "load",
    "optimizer",
    "optimizer_hooks",
    "optimizers",
    "save",
    "serializers",
    "set_num_threads",
    "show_config",
    "snapshot",
]

# PyTorch's modules are targets; by name, so that no tool takes PyTorch for a part of every program
_add_bridge("torch", lambda: _importlib.import_module("fastadam.torch"))


def __getattr__(name: str) -> _NoReturn:
    """Answer for what people look for here."""
    raise AttributeError(_no_optimizer(__name__, name, __all__))
