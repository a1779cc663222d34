"""Noise on gradients as a hook."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.kernels.backend import beside, get_array_module, is_array
from fastadam.kernels.changing import ADD
from fastadam.kernels.dtypes import is_floating
from fastadam.optimizer_hooks._gradient import (
    Gradient,
    ShowsArguments,
    change,
    check_numbers,
    gradients_of,
)
from fastadam.serializers.prepared import PreparedLoad
from fastadam.serializers.protocol import is_deserializer

__all__ = ["GradientNoise", "exponential_decay_noise"]

Array = npt.NDArray[Any]


def exponential_decay_noise(
    xp: Any, shape: tuple[int, ...], dtype: Any, hook: GradientNoise, rule: Any
) -> Array:
    r"""Return normal noise whose variance falls with the rule's count.

    .. math:: \mathcal{N}\left(0, \frac{\eta}{(1 + t)^{0.55}}\right)

    Parameters
    ----------
    xp : module
        The array library, ``numpy`` or ``cupy``: its ``random.normal`` is drawn from, so that its
        seed decides.
    shape : tuple of int
        The gradient's shape.
    dtype : dtype
        The gradient's dtype, to which the noise is rounded.
    hook : GradientNoise
        The hook, whose ``eta`` is used.
    rule : UpdateRule
        The parameter's rule, whose ``t`` is used. For a hook on an optimizer it is the count
        before the update; for one on a rule, that of the update being made.

    Returns
    -------
    array
        The noise.

    References
    ----------
    Neelakantan et al., "Adding Gradient Noise Improves Learning for Very Deep Networks",
    arXiv:1511.06807.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam import AdamRule
    >>> from fastadam.optimizer_hooks import GradientNoise, exponential_decay_noise
    >>> exponential_decay_noise(np, (2, 3), np.float32, GradientNoise(0.01), AdamRule()).shape
    (2, 3)
    """
    std = np.sqrt(hook.eta / np.power(1 + rule.t, 0.55))
    noise: Array = xp.asarray(xp.random.normal(0, std, shape)).astype(dtype)
    return noise


class GradientNoise(ShowsArguments):
    r"""Hook that adds noise to the gradients.

    .. math:: g \leftarrow g + \text{noise\_func}(\dots)

    Parameters
    ----------
    eta : float
        The variance of the default noise at the first update; not below 0. The paper tries
        0.01, 0.3 and 1.
    noise_func : callable
        Called as ``noise_func(xp, shape, dtype, hook, rule)``; returns the noise, an array of that
        shape or a number. The default is `exponential_decay_noise`.

    Raises
    ------
    TypeError, ValueError
        If `eta` is no number, or below 0; if `noise_func` cannot be called.

    References
    ----------
    Neelakantan et al., "Adding Gradient Noise Improves Learning for Very Deep Networks",
    arXiv:1511.06807.

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> opt = fastadam.Adam().setup({'w': np.ones(2)})
    >>> opt.add_hook(fastadam.optimizer_hooks.GradientNoise(0.3))
    """

    name = "GradientNoise"
    call_for_each_param = True
    timing = "pre"

    def __init__(
        self, eta: float, noise_func: Callable[..., Any] = exponential_decay_noise
    ) -> None:
        check_numbers(self, 0, eta=eta)
        if not callable(noise_func):
            raise TypeError(
                f"GradientNoise: noise_func must be callable, and {noise_func!r} is not"
            )
        self.eta = eta
        self.noise_func = noise_func

    def serialize(self, serializer: Any) -> None:
        """Save or load NumPy's global generator, from which the default noise is drawn.

        :func:`fastadam.save` and :func:`fastadam.load` call it. With another `noise_func`, or
        another generator in NumPy's place, there is nothing that is known to be saved.

        Parameters
        ----------
        serializer : Serializer or Deserializer
            What saves or loads.

        Raises
        ------
        ValueError
            If what is stored is no state of the generator.
        """
        if is_deserializer(serializer):
            self.prepare_load(serializer).commit()
        elif self._draws_from_numpy():
            _through(serializer)

    def prepare_load(self, serializer: Any) -> PreparedLoad:
        """Read and check a state of NumPy's global generator; it is set later.

        Parameters
        ----------
        serializer : Deserializer
            Where to read.

        Returns
        -------
        PreparedLoad
            What its ``commit()`` is going to change.

        Raises
        ------
        ValueError
            If what is stored is no state of the generator.
        """
        prepared = PreparedLoad()
        if self._draws_from_numpy():
            state = _through(serializer)
            # another generator tells whether it is a state
            np.random.RandomState(np.random.MT19937()).set_state(state)
            prepared.call(
                partial(np.random.set_state, state),
                lambda: partial(np.random.set_state, np.random.get_state()),
            )
        return prepared

    def _draws_from_numpy(self) -> bool:
        """Tell whether the noise is drawn from NumPy's global generator, of the usual kind."""
        state: Any = np.random.get_state()
        return self.noise_func is exponential_decay_noise and state[0] == "MT19937"

    def __call__(self, rule: Any, param: Any) -> None:
        """Change the gradient of one parameter, in place.

        Parameters
        ----------
        rule : UpdateRule
            The parameter's rule, whose ``t`` the default noise falls with.
        param : Parameter
            Nothing happens if its array or its gradient is missing.

        Raises
        ------
        TypeError
            If the noise, the array or the gradient does not hold real numbers.
        ValueError
            If the noise has another shape than the gradient.
        """
        found = gradients_of([param])
        if not found:
            return
        g = found[0].g
        module: Any = get_array_module(g)
        with beside(g):
            noise = self.noise_func(module, g.shape, g.dtype, self, rule)
            noise = noise if is_array(noise) else module.asarray(noise)
        if noise.dtype.kind not in "iuf" and not is_floating(noise.dtype):
            raise TypeError(
                f"GradientNoise: noise_func returned {noise.dtype} for the gradient of "
                f"{param.name!r}; it must return an array of real numbers"
            )
        if noise.shape not in ((), g.shape):
            raise ValueError(
                f"GradientNoise: noise_func returned an array of shape {noise.shape} for the "
                f"gradient of {param.name!r}, whose shape is {g.shape}"
            )
        # g += noise
        T = found[0].computing  # noqa: N806
        with beside(g):
            noise = module.broadcast_to(noise.astype(T, copy=False), g.shape)
        change(ADD, [Gradient(noise, g)], [(1.0, 1.0)])


def _through(serializer: Any) -> Any:
    """Give the state of NumPy's global generator to a serializer; return what it gives back."""
    state: Any = np.random.get_state()
    kind, key, position, has_gauss, gauss = state
    return (
        kind,
        np.array(serializer("key", key.copy())),
        serializer("position", int(position)),
        serializer("has_gauss", int(has_gauss)),
        serializer("gauss", float(gauss)),
    )
