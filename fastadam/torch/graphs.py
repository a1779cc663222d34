"""Steps of PyTorch's tensors captured in CUDA graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from fastadam.torch.clipping import GpuNorm, Norm
from fastadam.torch.gpu import is_on_gpu, refuse_capture
from fastadam.torch.tensors import Array

if TYPE_CHECKING:
    from fastadam.torch.gpu_plan import GpuPlan

__all__ = ["CapturedStep", "refuse_captured_scaling"]


class CapturedStep(NamedTuple):
    """A step that is part of a CUDA graph. As long as this is kept, so is what the graph reads.

    Attributes
    ----------
    plan : GpuPlan
        Of which step.
    gradients : list of torch.Tensor
        The gradients that the graph reads.
    replaced : dict
        Arrays of changed copies of them, by the places of their parameters.
    settings : tuple
        What of the optimizer's settings is part of the graph.
    norm : GpuNorm or None
        The norm of the gradients, which each launch makes anew, if it is bounded.
    """

    plan: GpuPlan
    gradients: list[torch.Tensor]
    replaced: dict[int, Array]
    settings: tuple[Any, ...]
    norm: Norm | GpuNorm | None

    def prepare(self, optimizer: Any) -> None:
        """Write the scalars of the next step to where the graph reads them, and count it.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            Whose step it is.

        Raises
        ------
        RuntimeError
            If what was captured is no longer the step to make: nothing has changed.
        """
        if not self.plan.replay(optimizer, self):
            raise RuntimeError(
                "parameters, states, groups or bounds of gradients have changed since the step "
                "was captured: make a step, and capture another one"
            )


def refuse_captured_scaling(*numbers: object) -> None:
    """Refuse to look at what GradScaler hands over while a graph is being captured.

    Parameters
    ----------
    *numbers : object
        Its tensors.

    Raises
    ------
    RuntimeError
        If a graph is being captured on the GPU of one of them.
    """
    refuse_capture(
        {
            number.device.index
            for number in numbers
            if isinstance(number, torch.Tensor) and is_on_gpu(number)
        },
        "with GradScaler the host decides by each step's gradients. Capture the forward and "
        "backward pass, and call its step() after each replay",
    )
