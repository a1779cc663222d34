"""The hooks beside Chainer's own: on chains, in either library's optimizers, bit for bit."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

chainer = pytest.importorskip("chainer", reason="needs Chainer 7.8.1 on NumPy 1.26")

import chainer.functions as F  # noqa: E402, N812
import chainer.links as L  # noqa: E402, N812

import fastadam  # noqa: E402

OURS, THEIRS = fastadam.optimizer_hooks, chainer.optimizer_hooks

Make = Callable[[Any], Any]

# Without sums over elements there is one way to compute each.
EXACT: dict[str, Make] = {
    "WeightDecay": lambda hooks: hooks.WeightDecay(0.03),
    "WeightDecay below 0": lambda hooks: hooks.WeightDecay(-0.3),
    "Lasso": lambda hooks: hooks.Lasso(0.007),
    "GradientHardClipping": lambda hooks: hooks.GradientHardClipping(-0.05, 0.3),
    "GradientNoise": lambda hooks: hooks.GradientNoise(0.3),
    "own noise": lambda hooks: hooks.GradientNoise(0.3, own_noise),
}
# Chainer's norms are sums in the gradient's dtype, in an order of BLAS's.
NORMS: dict[str, Make] = {
    "GradientClipping": lambda hooks: hooks.GradientClipping(0.7),
    "GradientClipping of nothing": lambda hooks: hooks.GradientClipping(1e4),
    "GradientLARS": lambda hooks: hooks.GradientLARS(0.5, 0.02, 0.125),
    "GradientLARS without decay": lambda hooks: hooks.GradientLARS(),
}
EVERY = EXACT | NORMS
TOLERANCE = {"float32": 2e-6, "float64": 4e-15}
DTYPES = ("float32", "float64")
SHAPES = {"W": (13, 7), "b": (1000,), "one": (1,), "empty": (0, 3)}


def own_noise(xp: Any, shape: Any, dtype: Any, hook: Any, rule: Any) -> Any:
    """Noise that depends on everything a noise function is given."""
    return (hook.eta * (1 + rule.t) * xp.random.uniform(-1, 1, shape)).astype(dtype)


def link_of(dtype: str, seed: int = 0, library: Any = chainer) -> Any:
    """A link whose parameters have gradients."""
    rng = np.random.default_rng(seed)
    link = library.Link()
    with link.init_scope():
        for name, shape in SHAPES.items():
            param = library.Parameter(rng.standard_normal(shape).astype(dtype))
            param.grad = rng.standard_normal(shape).astype(dtype)
            setattr(link, name, param)
    return link


def compare(ours: Any, theirs: Any, exact: bool, what: Callable[[Any], Any]) -> None:
    """Compare every parameter of two links."""
    pairs = zip(sorted(ours.namedparams()), sorted(theirs.namedparams()), strict=True)
    for (path, one), (other_path, other) in pairs:
        assert path == other_path
        actual, expected = what(one), what(other)
        assert actual.dtype == expected.dtype
        if exact:
            np.testing.assert_array_equal(actual, expected, path)
        else:
            rtol = TOLERANCE[actual.dtype.name]
            np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol, err_msg=path)


def array_of(param: Any) -> Any:
    return param.array


def grad_of(param: Any) -> Any:
    return param.grad


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """Chainer's norm of an array of nothing, and its aliases of NumPy's names, warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


WHERE = [
    (name, where)
    for name in EVERY
    for where in ("optimizer", "rule")
    if where == "optimizer" or not name.startswith("GradientClipping")
]


@pytest.mark.parametrize("dtype", DTYPES)
class TestOneGradient:
    @pytest.mark.parametrize(("name", "where"), WHERE)
    @pytest.mark.parametrize("library", [chainer, fastadam], ids=["chainer", "fastadam"])
    def test_beside_chainer(self, name: str, dtype: str, where: str, library: Any) -> None:
        """Our hook in our optimizer, on either library's link; theirs in theirs on theirs."""
        links = []
        for kind, optimizers, hooks in (
            (library, fastadam.optimizers, OURS),
            (chainer, chainer.optimizers, THEIRS),
        ):
            link = link_of(dtype, library=kind)
            opt = optimizers.Adam(alpha=0.02, eps=0.1).setup(link)
            params = sorted(link.namedparams())
            owners = [opt] if where == "optimizer" else [p.update_rule for _, p in params]
            for owner in owners:
                owner.add_hook(EVERY[name](hooks))
            np.random.seed(5)
            for _ in range(3):
                opt.update()
            links.append(link)
        exact = name in EXACT
        compare(*links, exact, grad_of)
        compare(*links, exact, array_of)

    @pytest.mark.parametrize("name", EVERY)
    def test_our_hook_in_chainers_optimizer(self, name: str, dtype: str) -> None:
        links = []
        for hooks in (OURS, THEIRS):
            link = link_of(dtype)
            opt = chainer.optimizers.SGD(lr=0.1).setup(link)
            opt.add_hook(EVERY[name](hooks))
            np.random.seed(5)
            for _ in range(3):
                opt.update()
            links.append(link)
        compare(*links, name in EXACT, grad_of)
        compare(*links, name in EXACT, array_of)

    @pytest.mark.parametrize("name", EVERY)
    def test_chainers_hook_in_our_optimizer(self, name: str, dtype: str) -> None:
        links = []
        for hooks in (OURS, THEIRS):
            link = link_of(dtype)
            opt = fastadam.Adam(alpha=0.02, eps=0.1).setup(link)
            opt.add_hook(EVERY[name](hooks))
            np.random.seed(5)
            for _ in range(3):
                opt.update()
            links.append(link)
        compare(*links, name in EXACT, grad_of)
        compare(*links, name in EXACT, array_of)


def model() -> Any:
    """A chain with a child of unknown size, as Chainer's users write it."""
    chain = chainer.Chain()
    with chain.init_scope():
        chain.l1 = L.Linear(None, 8)
        chain.l2 = L.Linear(8, 3)
    return chain


def trained(optimizers: Any, hooks: Any, names: list[str]) -> Any:
    """Train a chain with some hooks."""
    np.random.seed(0)
    chain = model()
    rng = np.random.default_rng(4)
    x = rng.standard_normal((20, 5)).astype(np.float32)
    y = rng.integers(0, 3, 20).astype(np.int32)
    opt = optimizers.Adam(alpha=0.02, eps=1e-3).setup(chain)
    for name in names:
        opt.add_hook(EVERY[name](hooks))
    for _ in range(10):
        opt.update(lambda: F.softmax_cross_entropy(chain.l2(F.relu(chain.l1(x))), y))
    return chain


@pytest.mark.parametrize(
    "names",
    [["WeightDecay"], ["Lasso", "GradientHardClipping"], ["WeightDecay", "GradientNoise"]],
    ids="+".join,
)
def test_training_a_chain(names: list[str]) -> None:
    ours = trained(fastadam.optimizers, OURS, names)
    compare(ours, trained(chainer.optimizers, THEIRS, names), True, array_of)


@pytest.mark.parametrize("name", ["GradientClipping", "GradientLARS"])
def test_training_a_chain_by_norms(name: str) -> None:
    ours = trained(fastadam.optimizers, OURS, [name])
    theirs = trained(chainer.optimizers, THEIRS, [name])
    for one, other in zip(ours.params(), theirs.params(), strict=True):
        np.testing.assert_allclose(one.array, other.array, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("t", [0, 9])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_draws_are_chainers(seed: int, t: int, dtype: str) -> None:
    draws = []
    for hooks, rule in ((OURS, fastadam.AdamRule()), (THEIRS, chainer.UpdateRule())):
        rule.t = t
        np.random.seed(seed)
        gradient_noise = importlib.import_module(f"{hooks.__name__}.gradient_noise")
        noise = gradient_noise.exponential_decay_noise(
            np, (50, 3), np.dtype(dtype), hooks.GradientNoise(0.3), rule
        )
        draws.append(noise)
    assert draws[0].dtype == draws[1].dtype == dtype
    np.testing.assert_array_equal(*draws)


@pytest.mark.parametrize("name", [n for n in EXACT if "oise" not in n])
def test_float16_is_chainers_rounded_once(name: str) -> None:
    """Chainer rounds after every operation: at most one number away, where the gradient is."""
    links = []
    for hooks, kind in ((OURS, fastadam), (THEIRS, chainer)):
        link = link_of("float16", library=kind)
        opt = kind.optimizers.Adam(alpha=0).setup(link)
        opt.add_hook(EVERY[name](hooks))
        opt.call_hooks()
        links.append(link)
    start = link_of("float16")
    for path, param in start.namedparams():
        ours, theirs = (dict(link.namedparams())[path].grad for link in links)
        size = np.abs(param.grad.astype(np.float64)) + np.abs(param.array.astype(np.float64))
        assert np.all(np.abs(ours.astype(np.float64) - theirs) <= size * 2.0**-10)


class TestWhatChainerGetsWrong:
    """Both sides of what docs/hooks.rst and docs/departures.rst say."""

    @staticmethod
    def both(hook: Make, grads: list[Any], **options: Any) -> list[list[list[float]]]:
        """Return the gradients after a hook, in our library and in Chainer."""
        found = []
        for kind, hooks in ((fastadam, OURS), (chainer, THEIRS)):
            link = kind.Link()
            with link.init_scope():
                for i, grad in enumerate(grads):
                    param = kind.Parameter(np.ones_like(grad))
                    param.grad = grad.copy()
                    setattr(link, f"p{i}", param)
            opt = kind.optimizers.Adam(alpha=0).setup(link)
            for i in range(len(grads)):
                if i in options.get("disabled", ()):
                    getattr(link, f"p{i}").update_rule.enabled = False
                if "scale" in options:
                    getattr(link, f"p{i}")._loss_scale = options["scale"]
            opt.add_hook(hook(hooks))
            opt.update()
            found.append([getattr(link, f"p{i}").grad.tolist() for i in range(len(grads))])
        return found

    def test_float16_norm(self) -> None:
        grads = [np.full(3, 300, np.float16)]
        ours, theirs = self.both(lambda hooks: hooks.GradientClipping(1), grads)
        assert theirs == [[0, 0, 0]]
        np.testing.assert_allclose(ours, 3**-0.5, rtol=1e-3)

    def test_zero_norm(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            link = link_of("float32")
            opt = fastadam.Adam().setup(link)
            opt.add_hook(OURS.GradientClipping(1))
            link.cleargrads()
            opt.update()
            theirs = chainer.optimizers.Adam().setup(link_of("float32"))
            theirs.add_hook(THEIRS.GradientClipping(1))
            theirs.target.cleargrads()
            with pytest.raises(RuntimeWarning, match="divide"):
                theirs.update()

    def test_nan(self) -> None:
        grads = [np.array([3.0, np.nan]), np.array([4.0])]
        ours, theirs = self.both(lambda hooks: hooks.GradientClipping(1), grads)
        np.testing.assert_array_equal(ours[0], [3, np.nan])
        assert ours[1] == [4]
        assert np.isnan(theirs[1]).all()

    def test_disabled_parameters(self) -> None:
        grads = [np.array([3.0]), np.array([400.0])]
        clipping: Make = lambda hooks: hooks.GradientClipping(1.5)  # noqa: E731
        ours, theirs = self.both(clipping, grads, disabled=[1])
        assert ours == [[1.5], [400]]
        assert theirs[0][0] < 0.02
        assert theirs[1][0] < 1.5
        ours, theirs = self.both(lambda hooks: hooks.WeightDecay(1), grads, disabled=[1])
        assert (ours, theirs) == ([[4], [400]], [[4], [401]])

    @pytest.mark.parametrize(
        ("make", "true", "chainers"),
        [
            (lambda hooks: hooks.GradientClipping(1), 3**-0.5, 3**-0.5 / 1024),
            (lambda hooks: hooks.Lasso(1), 3, 2 + 1 / 1024),
            (lambda hooks: hooks.GradientHardClipping(-1, 1), 1, 1 / 1024),
            (lambda hooks: hooks.WeightDecay(1), 3, 3),
        ],
        ids=["GradientClipping", "Lasso", "GradientHardClipping", "WeightDecay"],
    )
    def test_scaled_gradients(self, make: Make, true: float, chainers: float) -> None:
        ours, theirs = self.both(make, [np.full(3, 2048, np.float32)], scale=1024)
        np.testing.assert_allclose(ours, np.full((1, 3), true), rtol=1e-6)
        np.testing.assert_allclose(theirs, np.full((1, 3), chainers), rtol=1e-6)

    def test_weight_decay_of_a_rule_with_a_loss_scale(self) -> None:
        grads = []
        for kind, hooks in ((fastadam, OURS), (chainer, THEIRS)):
            param = kind.Parameter(np.ones(1, np.float32))
            param.grad = np.full(1, 2048, np.float32)
            param._loss_scale = 1024
            param.update_rule = kind.optimizers.adam.AdamRule(alpha=0.0)
            param.update_rule.add_hook(hooks.WeightDecay(1))
            param.update()
            grads.append(param.grad.tolist())
        assert grads == [[3], [1026]]

    def test_arguments_that_chainer_takes(self) -> None:
        """Chainer's constructors take anything."""
        for name, bad in (
            ("WeightDecay", (None,)),
            ("Lasso", ("0.1",)),
            ("GradientClipping", (-1,)),
            ("GradientHardClipping", (1, -1)),
            ("GradientNoise", (-1,)),
            ("GradientLARS", (float("nan"),)),
        ):
            getattr(THEIRS, name)(*bad)
            with pytest.raises((TypeError, ValueError), match=name):
                getattr(OURS, name)(*bad)

    def test_lars_without_any_size(self) -> None:
        grads = [np.zeros(2)]
        make: Make = lambda hooks: hooks.GradientLARS(eps=0)  # noqa: E731
        ours, theirs = self.both(make, grads)
        assert ours == [[0, 0]]
        assert np.isnan(theirs).all()

    def test_gradients_that_must_not_be_written(self) -> None:
        for kind, hooks in ((fastadam, OURS), (chainer, THEIRS)):
            link = kind.Link()
            with link.init_scope():
                link.W = kind.Parameter(np.ones(2, np.float32))
            link.W.grad = link.W.array
            hook = hooks.WeightDecay(1)
            hook(None, link.W)
            assert link.W.grad.tolist() == [2, 2]
            assert link.W.array.tolist() == ([1, 1] if kind is fastadam else [2, 2])
            link.W.grad = np.broadcast_to(np.float32(3), 2)
            if kind is fastadam:
                hook(None, link.W)
                assert link.W.grad.tolist() == [4, 4]
            else:
                with pytest.raises(ValueError, match="read-only"):
                    hook(None, link.W)

    def test_a_late_parameter(self) -> None:
        for kind, hooks in ((fastadam, OURS), (chainer, THEIRS)):
            link = link_of("float32", library=kind)
            opt = kind.optimizers.Adam().setup(link)
            opt.add_hook(hooks.GradientNoise(0.1))
            with link.init_scope():
                link.late = kind.Parameter(np.ones(2, np.float32))
            link.late.grad = np.ones(2, np.float32)
            if kind is fastadam:
                opt.update()
                assert link.late.update_rule.t == 1
            else:
                with pytest.raises(AttributeError, match="'t'"):
                    opt.update()


def test_deprecated_names_are_chainers() -> None:
    for name in ("WeightDecay", "Lasso", "GradientClipping", "GradientHardClipping"):
        arguments = (-1, 2) if name == "GradientHardClipping" else (0.5,)
        hooks = []
        for library in (fastadam, chainer):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                hooks.append(getattr(library.optimizer, name)(*arguments))
            assert [w.category for w in caught] == [DeprecationWarning]
        assert vars(hooks[0]) == vars(hooks[1])
        assert hooks[0].name == hooks[1].name
