"""PyTorch's optimizers by fastadam's kernels: change the import, and nothing else.

``fastadam.torch.AdamW`` takes the place of ``torch.optim.AdamW``, whose arguments, groups, hooks
and checkpoints it has. It needs PyTorch, which ``import fastadam`` alone does not.
"""

import importlib.util

if importlib.util.find_spec("torch") is None:
    raise ImportError("fastadam.torch needs PyTorch 2.4 or newer: pip install torch")

from torch.nn import Module as _Module

from fastadam.checkpoint.kinds import checkpointed
from fastadam.torch.backward import step_in_backward
from fastadam.torch.bounded import AdaBound, AMSBound
from fastadam.torch.checkpoint import TensorCheckpoint
from fastadam.torch.description import described
from fastadam.torch.module import ModuleTarget
from fastadam.torch.optimizers import Adam, AdamW
from fastadam.torch.stepping import KernelStep
from fastadam.update.snapshot import describe
from fastadam.update.target import as_target

__all__ = ["AMSBound", "AdaBound", "Adam", "AdamW", "step_in_backward"]

checkpointed.register(KernelStep, TensorCheckpoint)
describe.register(KernelStep, described)
as_target.register(_Module, ModuleTarget)
