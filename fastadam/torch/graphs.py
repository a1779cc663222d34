"""Steps of PyTorch's tensors captured in CUDA graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from fastadam.torch.clipping import GpuNorm, Norm
from fastadam.torch.gpu import is_on_gpu, refuse_capture
from fastadam.torch.tensors import Array

if TYPE_CHECKING:
    from fastadam.torch.gpu_plan import GpuPlan

__all__ = ["CapturedStep", "CapturesSteps", "refuse_captured_scaling"]


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


class CapturesSteps:
    """A base of optimizers whose steps may be part of CUDA graphs."""

    # the step that was captured last, and all that graphs have
    _replay: CapturedStep | None = None
    _graphs: tuple[CapturedStep, ...] = ()

    def note_capture(self, step: CapturedStep) -> None:
        """Note a step that was captured, and keep what its graph reads.

        Parameters
        ----------
        step : CapturedStep
            The step.
        """
        self.__dict__.update(_replay=step, _graphs=(*self._graphs, step))

    def captured_plan(self, tried: Any) -> GpuPlan | None:
        """Return the plan of the step that was captured last, if it is that of the next step, too.

        Other steps may have come between. All graphs of one plan read their scalars in one place.

        Parameters
        ----------
        tried : TensorPlan or None
            A plan that is not that of the next step.
        """
        plan = None if self._replay is None else self._replay.plan
        return plan if plan is not None and plan is not tried and plan.refresh(self) else None

    def prepare_replay(self) -> None:
        """Get ready for the next replay of a CUDA graph in which a step was captured.

        Counts the step, and writes its scalars, such as bias corrections and learning rates, to
        where the graph reads them: on PyTorch's current stream of the GPU, which must be the one
        that the graph is replayed on. A replay that was not prepared steps nothing.

        Raises
        ------
        RuntimeError
            If no step has been captured; if parameters, states, bounds of gradients or options of
            groups have changed since, but for numbers that only the step itself reads: ``lr``,
            ``betas``, ``eps``, and the weight decay of `AdamW`; if steps of different parameters
            were captured, of which the next one is not known; while a graph is captured. Nothing
            has changed then.
        TypeError, ValueError
            If a number of a group, or a bound of gradients, is none that a step can be made with.

        Notes
        -----
        A step is captured by calling ``step()`` within ``torch.cuda.graph``, after a step with
        gradients of the same parameters. It is not made then, nor counted. Of one optimizer there
        may be several graphs; each is replayed after one call of this. Until the replay has
        run, `last_update` has the number of the new step and the norm of the one before.

        Examples
        --------
        With tensors on a GPU, after steps on another stream, as PyTorch asks for::

            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                model(x).sum().backward()
                opt.step()
            for batch in batches:
                x.copy_(batch)
                opt.prepare_replay()
                graph.replay()
        """
        step = self._replay
        if step is None:
            raise RuntimeError(
                "there is no captured step to replay: call step() within torch.cuda.graph"
            )
        if any(
            each.plan is not step.plan and each.plan.may_follow(self, each) for each in self._graphs
        ):
            raise RuntimeError(
                "steps of different parameters were captured, and which of their graphs comes next "
                "is not known: give each set of parameters an optimizer of its own, or capture "
                "again after forget_graphs()"
            )
        if not step.plan.replay(self, step):
            raise RuntimeError(
                "parameters, states, groups or bounds of gradients have changed since the step "
                "was captured: make a step, and capture another one"
            )

    def forget_graphs(self) -> None:
        """Let go of the memory that captured steps read: their graphs are not launched any more.

        Examples
        --------
        >>> import torch
        >>> import fastadam.torch
        >>> opt = fastadam.torch.Adam([torch.nn.Parameter(torch.ones(2))])
        >>> opt.forget_graphs()
        """
        for step in self._graphs:
            step.plan.forget_graphs()
        self.__dict__.update(_replay=None, _graphs=())


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
