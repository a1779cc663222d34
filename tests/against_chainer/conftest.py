"""Both libraries behind the same names, for tests that show what each of them does."""

from __future__ import annotations

import importlib
import io
import types
import warnings
from typing import Any

import numpy as np
import pytest

import fastadam


class Library:
    """The names that the two libraries share, and what is expected of this one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_ours = name == "fastadam"
        module: Any = fastadam
        if not self.is_ours:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Chainer's own
                    module = importlib.import_module("chainer")
            except (ImportError, AttributeError):  # not there, or not on this NumPy
                pytest.skip("Chainer cannot be imported here")
        self.Parameter = module.Parameter
        self.Link, self.Chain, self.ChainList = module.Link, module.Chain, module.ChainList
        self.UpdateRule = module.UpdateRule
        self.Optimizer, self.GradientMethod = module.Optimizer, module.GradientMethod
        self.hooks = importlib.import_module(f"{name}.optimizer_hooks")
        self.optimizers: types.ModuleType = module.optimizers
        self.serializers: types.ModuleType = module.serializers

    def says(self, *, ours: Any, theirs: Any) -> Any:
        """Return what is documented for this library."""
        return ours if self.is_ours else theirs

    def link(self, **arrays: Any) -> Any:
        """Make a link with parameters that hold these arrays; None for a lazy one."""
        link = self.Link()
        with link.init_scope():
            for name, array in arrays.items():
                setattr(link, name, self.Parameter(0 if array is None else array))
        return link

    def save(self, obj: Any) -> io.BytesIO:
        """Save an object as an npz file in memory."""
        file = io.BytesIO()
        self.serializers.save_npz(file, obj)
        file.seek(0)
        return file

    def load(self, file: io.BytesIO, obj: Any) -> None:
        """Load an object."""
        self.serializers.load_npz(file, obj)

    def setup(self, link: Any, kind: str = "Adam", **arguments: Any) -> Any:
        """Return an optimizer of a link."""
        return getattr(self.optimizers, kind)(**arguments).setup(link)

    def trained(self, kind: str = "Adam", n: int = 2, **arguments: Any) -> tuple[Any, Any]:
        """Return a link with one parameter and an optimizer that has made one update."""
        link = self.link(W=np.ones(n, np.float32))
        opt = self.setup(link, kind, **arguments)
        self.fill_gradients(link)
        opt.update()
        return link, opt

    @staticmethod
    def fill_gradients(link: Any, value: float = 1.0) -> None:
        """Give every parameter that has an array a gradient of this value."""
        for param in link.params():
            if param.array is not None:
                param.grad = np.full_like(param.array, value)


@pytest.fixture(params=["fastadam", "chainer"])
def library(request: pytest.FixtureRequest) -> Library:
    return Library(request.param)
