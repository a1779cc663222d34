"""Unscaling, the search for what is not finite, clipping by the global norm, and the step."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any, ClassVar

from fastadam.bench import arrays, report
from fastadam.bench.arrays import Array
from fastadam.bench.cases import Case
from fastadam.bench.contender import Contender, NotComparable, check, imported
from fastadam.bench.libraries import TorchFused, tensor
from fastadam.bench.own import FastadamArrays
from fastadam.bench.peers import Roster
from fastadam.bench.ratios import described, fits, ratio, results, subject
from fastadam.bench.settings import VARIANTS, Variant
from fastadam.bench.timing import Plan, measure
from fastadam.optimizer_hooks import GradientClipping
from fastadam.optimizers import Adam

_LARGEST_NORM = 1.0


def prepare(optimizer: Adam) -> None:
    """Let an optimizer clip gradients, and skip a step with what is not finite."""
    optimizer.on_nonfinite = "skip"
    optimizer.add_hook(GradientClipping(_LARGEST_NORM))


class FastadamChain(FastadamArrays):
    """``apply_gradients(grads, loss_scale=...)`` with `GradientClipping`, skipping infinities."""

    name: ClassVar[str] = "fastadam-chain"

    # of gradients as they are, so that PyTorch's, which it unscales in place, stay what they are
    loss_scale: ClassVar[float] = 1.0

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        super().__init__(variant, params)
        prepare(self.optimizer)

    def step(self) -> None:
        """Step."""
        self.optimizer.apply_gradients(self.grads, loss_scale=self.loss_scale)


class FastadamScaledChain(FastadamChain):
    """The same with a loss scale that is not 1, as it is in use."""

    name: ClassVar[str] = "fastadam-chain-1024"
    loss_scale: ClassVar[float] = 1024.0


class TorchChain(TorchFused):
    """``GradScaler.unscale_``, ``clip_grad_norm_`` and the fused step that the scaler skips.

    The scale is 1: what is multiplied is the same, and kept gradients do not shrink.
    """

    name: ClassVar[str] = "torch-chain"

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        super().__init__(variant, params)
        torch = imported("torch")
        self._scaler = torch.amp.GradScaler("cpu", init_scale=1.0, growth_interval=1 << 30)
        self._scaler.scale(torch.ones(()))
        self._clip = torch.nn.utils.clip_grad_norm_

    def give(self, grads: list[Array]) -> None:
        """Copy the gradients, which the chain writes."""
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = tensor(grad).clone()

    def step(self) -> None:
        """Step."""
        self._scaler.unscale_(self.optimizer)
        self._clip(self.parameters, _LARGEST_NORM)
        self._scaler.step(self.optimizer)
        self._scaler.update()


# Whose plain step is whose.
_PLAIN = {
    FastadamChain.name: FastadamArrays.name,
    FastadamScaledChain.name: FastadamArrays.name,
    TorchChain.name: TorchFused.name,
}


def compare_chains(
    roster: Roster, case: Case, variant: str, dtype: str | None, n_threads: int, plan: Plan
) -> dict[str, Any] | None:
    """Measure the chain beside the plain step, fastadam's and, where it is, PyTorch's.

    Parameters and result as for ``ratios.compare``; ``beside_fastadam`` is beside the plain step,
    and ``chain_beside_plain`` has each library's chain beside its own plain step.
    """
    names = arrays.dtype_names(case, dtype)
    kinds: list[type[Contender]] = [FastadamArrays, FastadamChain, FastadamScaledChain]
    if TorchFused in roster.ready(variant, names, n_threads):
        try:
            for name in names:
                check(TorchChain, VARIANTS[variant], name, prepare)
            kinds += [TorchFused, TorchChain]
        except (NotComparable, RuntimeError) as reason:
            why = str(reason).partition("\n")[0]
            roster.leave_out(TorchChain.name, why, f"{variant} {dtype}")
    if not fits(roster, case, variant, dtype, len(kinds), f"the chain on {case.name}"):
        return None
    grads = arrays.gradients(case, dtype)
    subjects = [
        subject(kind(VARIANTS[variant], arrays.parameters(case, dtype)), grads, case.fresh)
        for kind in kinds
    ]
    times = measure(subjects, plan)
    subjects.clear()
    gc.collect()
    return {
        **described(case, variant, dtype, n_threads),
        "chain_beside_plain": {
            name: ratio(times[name], times[plain])._asdict()
            for name, plain in _PLAIN.items()
            if name in times
        },
        **results(times),
    }


def text(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lay out the tables, and the ratios of the two kinds of steps."""
    for row in rows:
        yield from report.compared(row)
        for name, related in row["chain_beside_plain"].items():
            yield f"  {name} beside its plain step: {report.spelled(related)}"
        yield ""
