"""What is stepped: the tensors of the benchmark's cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

__all__ = [
    "CASES",
    "Case",
    "Tensor",
    "gpt2",
    "lora",
    "many",
    "mixed",
    "one",
    "resnet50",
    "stored_as",
]

Shape = tuple[int, ...]


class Tensor(NamedTuple):
    """One tensor of a case.

    Attributes
    ----------
    name : str
        In files and results.
    shape : tuple of int
        Its shape.
    dtype : str or None
        None where the run says it.
    gradient : str or None
        The dtype of its gradient, where that is another.
    """

    name: str
    shape: Shape
    dtype: str | None = None
    gradient: str | None = None

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)


class Case(NamedTuple):
    """Tensors that are stepped together; `fresh` gradients are new arrays at every step."""

    name: str
    tensors: tuple[Tensor, ...]
    fresh: bool = False

    @property
    def elements(self) -> int:
        """How many elements all tensors have together."""
        return sum(tensor.size for tensor in self.tensors)


def _case(name: str, shapes: list[Shape], fresh: bool = False) -> Case:
    """Make a case of numbered tensors."""
    tensors = tuple(Tensor(f"p{i}", shape) for i, shape in enumerate(shapes))
    return Case(name, tensors, fresh)


def many(fresh: bool = False, n: int = 1000, size: int = 1000) -> Case:
    """Return many small tensors, with gradients that are kept or freshly allocated."""
    return _case("many-fresh" if fresh else "many", [(size,)] * n, fresh)


def resnet50() -> Case:
    """Return the 161 tensors of ResNet-50 for 1000 classes, of 25,557,032 elements.

    Convolutions without biases, each with the scale and the shift of a batch normalization; the
    first block of every stage has a shortcut with a convolution of its own.

    Examples
    --------
    >>> len(resnet50().tensors), resnet50().elements
    (161, 25557032)
    """

    def convolution(outputs: int, inputs: int, width: int) -> list[Shape]:
        return [(outputs, inputs, width, width), (outputs,), (outputs,)]

    shapes = convolution(64, 3, 7)
    inputs = 64
    for planes, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += convolution(planes, inputs, 1)
            shapes += convolution(planes, planes, 3)
            shapes += convolution(4 * planes, planes, 1)
            if block == 0:
                shapes += convolution(4 * planes, inputs, 1)
            inputs = 4 * planes
    return _case("resnet50", [*shapes, (1000, inputs), (1000,)])


def gpt2() -> Case:
    """Return the 148 tensors of GPT-2 small, of 124,439,808 elements.

    The output layer is the embedding of the tokens, so it is not listed again.

    Examples
    --------
    >>> len(gpt2().tensors), gpt2().elements
    (148, 124439808)
    """
    width = 768
    shapes: list[Shape] = [(50257, width), (1024, width)]
    for _ in range(12):
        shapes += [(width,), (width,)]
        shapes += [(width, 3 * width), (3 * width,), (width, width), (width,)]
        shapes += [(width,), (width,)]
        shapes += [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return _case("gpt2", [*shapes, (width,), (width,)])


def lora() -> Case:
    """Return the 3000 factors of low-rank adaptations, of 1,488,000 elements.

    Examples
    --------
    >>> len(lora().tensors), lora().elements
    (3000, 1488000)
    """
    return _case("lora", [(8, 64), (60, 8)] * 1500)


def stored_as(case: Case, dtype: str) -> Case:
    """Return a case in a dtype, unless the run says another."""
    tensors = tuple(tensor._replace(dtype=dtype) for tensor in case.tensors)
    return case._replace(name=f"{case.name}-{dtype}", tensors=tensors)


def mixed(case: Case, gradient: str) -> Case:
    """Return a case of float32 parameters whose gradients are of another dtype."""
    tensors = tuple(tensor._replace(dtype="float32", gradient=gradient) for tensor in case.tensors)
    return case._replace(name=f"{case.name}-{gradient}-gradients", tensors=tensors)


def one(elements: int, name: str) -> Case:
    """Return one tensor of one axis."""
    return _case(name, [(elements,)])


# By the names of --cases, from the smallest to the largest. tiny is for trying the command out.
CASES: dict[str, Callable[[], Case]] = {
    "tiny": lambda: _case("tiny", [(40, 30), (30,)]),
    # a network of 64-100-100-10 units, as PyTorch has it
    "mlp-small": lambda: _case(
        "mlp-small", [(100, 64), (100,), (100, 100), (100,), (10, 100), (10,)]
    ),
    # one of 784-20-64-10 units
    "mlp": lambda: _case("mlp", [(784, 20), (20,), (20, 64), (64,), (64, 10), (10,)]),
    "1k": lambda: one(1000, "1k"),
    "many": many,
    "many-fresh": lambda: many(fresh=True),
    "lora": lora,
    # fits into the second-level cache of a GPU
    "2m": lambda: one(2_000_000, "2m"),
    "200x50k": lambda: _case("200x50k", [(50_000,)] * 200),
    "16m": lambda: one(16_000_000, "16m"),
    "20m": lambda: one(20_000_000, "20m"),
    "resnet50": resnet50,
    "resnet50-bfloat16": lambda: stored_as(resnet50(), "bfloat16"),
    "100m": lambda: one(100_000_000, "100m"),
    "gpt2": gpt2,
    "128m-float64": lambda: stored_as(one(128_000_000, "128m"), "float64"),
    "256m": lambda: one(256_000_000, "256m"),
    "256m-bfloat16": lambda: stored_as(one(256_000_000, "256m"), "bfloat16"),
    "256m-float16": lambda: stored_as(one(256_000_000, "256m"), "float16"),
    "256m-bfloat16-gradients": lambda: mixed(one(256_000_000, "256m"), "bfloat16"),
    "16x16m": lambda: _case("16x16m", [(16_000_000,)] * 16),
}
