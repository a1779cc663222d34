"""What is the same for every hook: in place, on whom, when, with which gradients."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import optimizer_hooks
from fastadam.optimizer_hooks import (
    GradientClipping,
    GradientHardClipping,
    GradientLARS,
    GradientNoise,
    Lasso,
    WeightDecay,
)


def quarter_noise(xp: Any, shape: tuple[int, ...], dtype: Any, hook: Any, rule: Any) -> Any:
    """No noise at all, but easy to check."""
    return xp.full(shape, hook.eta, dtype)


# Each changes g = (3, 4) at p = (1, -1) into other numbers that every dtype holds exactly, but for
# the last two's, which are near.
MAKE: dict[str, Callable[[], Any]] = {
    "WeightDecay": lambda: WeightDecay(0.5),
    "Lasso": lambda: Lasso(0.25),
    "GradientHardClipping": lambda: GradientHardClipping(-1, 3.5),
    "GradientNoise": lambda: GradientNoise(0.25, quarter_noise),
    "GradientClipping": lambda: GradientClipping(2.5),
    "GradientLARS": lambda: GradientLARS(0.125, 0.5, 0.25),
}
RATE = math.sqrt(2) / (0.25 + 5 + 0.5 * math.sqrt(2))
AFTER = {
    "WeightDecay": (3.5, 3.5),
    "Lasso": (3.25, 3.75),
    "GradientHardClipping": (3, 3.5),
    "GradientNoise": (3.25, 4.25),
    "GradientClipping": (1.5, 2),
    "GradientLARS": (RATE * 3.5, RATE * 3.5),
}
every_hook = pytest.mark.parametrize("name", MAKE)
each_param = pytest.mark.parametrize("name", [name for name in MAKE if name != "GradientClipping"])


def given(dtype: Any = np.float64, scale: float | None = None) -> fastadam.Parameter:
    """The parameter that `AFTER` is about, its gradient multiplied by a loss scale."""
    param = fastadam.Parameter(np.array([1, -1], dtype), name="W")
    param.grad = np.array([3 * (scale or 1), 4 * (scale or 1)], dtype)
    param._loss_scale = scale
    return param


def is_after(name: str, grad: Any) -> bool:
    """Whether a gradient is what the hook makes of (3, 4)."""
    tolerance = {2: 1e-2, 4: 1e-6, 8: 1e-15}[grad.dtype.itemsize]
    if name not in ("GradientLARS", "GradientClipping"):
        return bool(np.array_equal(grad.astype(float), AFTER[name]))
    return bool(np.allclose(grad.astype(float), AFTER[name], rtol=tolerance, atol=0))


def call(hook: Any, param: fastadam.Parameter) -> None:
    """Call a hook by hand, as an optimizer would call it."""
    if getattr(hook, "call_for_each_param", False):
        hook(param.update_rule or fastadam.AdamRule(), param)
        return
    opt = fastadam.Adam().setup(fastadam.Link())
    with opt.target.init_scope():
        opt.target.W = param
    _ = opt.parameters  # the parameter is found
    opt.call_hook(hook)


def test_the_table_here_has_every_hook() -> None:
    classes = {name for name in optimizer_hooks.__all__ if name[0].isupper()}
    assert classes == set(MAKE) == set(AFTER)


SHOWN = {
    "WeightDecay": "WeightDecay(rate=0.5)",
    "Lasso": "Lasso(rate=0.25)",
    "GradientHardClipping": "GradientHardClipping(lower_bound=-1, upper_bound=3.5)",
    "GradientNoise": "GradientNoise(eta=0.25, noise_func=quarter_noise)",
    "GradientClipping": "GradientClipping(threshold=2.5)",
    "GradientLARS": "GradientLARS(threshold=0.125, weight_decay=0.5, eps=0.25)",
}


@every_hook
def test_a_hook_shows_its_arguments(name: str) -> None:
    hook = MAKE[name]()
    assert repr(hook) == SHOWN[name]
    assert repr(copy.deepcopy(hook)) == SHOWN[name]
    known = {**vars(optimizer_hooks), "quarter_noise": quarter_noise}
    again = eval(repr(hook), known)
    assert (type(again), vars(again)) == (type(hook), vars(hook))
    assert repr(type("Mine", (type(hook),), {"name": "mine"})(**vars(hook))).startswith("Mine(")


def test_a_hook_shows_what_was_changed_and_numbers_of_numpy_as_numbers() -> None:
    hook = WeightDecay(np.float32(0.5))
    assert repr(hook) == "WeightDecay(rate=0.5)"
    hook.rate = 2
    assert repr(hook) == "WeightDecay(rate=2)"
    with pytest.warns(DeprecationWarning, match="WeightDecay"):
        old = fastadam.optimizer.WeightDecay(0.5)
    assert repr(old) == "WeightDecay(rate=0.5)"


class TestAttributes:
    @every_hook
    def test_name_and_timing(self, name: str) -> None:
        hook = MAKE[name]()
        assert type(hook) is getattr(optimizer_hooks, name)
        assert (hook.name, hook.timing) == (name, "pre")
        assert getattr(hook, "call_for_each_param", False) is (name != "GradientClipping")

    @every_hook
    def test_added_under_its_name_before_the_update(self, name: str) -> None:
        opt = fastadam.Adam().setup({"W": np.ones(2)})
        hook = MAKE[name]()
        opt.add_hook(hook)
        assert list(opt._hooks) == [("pre", name, hook)]
        with pytest.raises(KeyError, match=name):
            opt.add_hook(MAKE[name]())
        opt.add_hook(MAKE[name](), name="second")
        opt.remove_hook(name)
        assert [other for _, other, _ in opt._hooks] == ["second"]

    @every_hook
    @pytest.mark.parametrize(
        "clone", [copy.copy, copy.deepcopy, lambda hook: pickle.loads(pickle.dumps(hook))]
    )
    def test_copies(self, name: str, clone: Callable[[Any], Any]) -> None:
        hook = MAKE[name]()
        other = clone(hook)
        assert type(other) is type(hook)
        assert vars(other) == vars(hook)
        param = given()
        call(other, param)
        assert is_after(name, param.grad)

    @pytest.mark.parametrize("clone", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
    def test_optimizers_are_copied_with_their_hooks(self, clone: Callable[[Any], Any]) -> None:
        opt = fastadam.Adam(alpha=0.5).setup({"W": np.array([1.0, -1.0])})
        for name in MAKE:
            opt.add_hook(MAKE[name]())
        other, bare = clone(opt), clone(opt)
        for name in MAKE:
            bare.remove_hook(name)
        for one in (opt, other, bare):
            for g in ([3.0, 4.0], [-1.0, 0.5]):
                one.apply_gradients({"W": np.array(g)})
        np.testing.assert_array_equal(other.target["W"], opt.target["W"])
        assert not np.array_equal(bare.target["W"], opt.target["W"])


class TestInPlace:
    @every_hook
    def test_the_array_of_the_gradient_is_written(self, name: str, dtype: np.dtype) -> None:
        param = given(dtype)
        array, grad = param.array, param.grad
        call(MAKE[name](), param)
        assert param.array is array
        assert param.grad is grad
        assert grad.dtype == dtype
        assert is_after(name, grad)
        assert array.astype(float).tolist() == [1, -1]

    @every_hook
    def test_layouts_and_dtypes(self, name: str, param: fastadam.Parameter) -> None:
        """All elements are as those of a plain array; the others in memory are untouched."""
        plain = fastadam.Parameter(param.array.copy(order="C"), name="W")
        plain.grad = param.grad.copy(order="C")
        grad, before = param.grad, param.array.copy()
        base = grad if grad.base is None else grad.base
        total = np.sum(base.astype(float)) - np.sum(grad.astype(float))
        call(MAKE[name](), plain)
        call(MAKE[name](), param)
        assert param.grad is grad
        np.testing.assert_array_equal(grad, plain.grad)
        np.testing.assert_array_equal(param.array, before)
        rest = np.sum(base.astype(float)) - np.sum(grad.astype(float))
        assert rest == pytest.approx(total, abs=1e-9)

    @every_hook
    @pytest.mark.parametrize("writable", [False, True])
    def test_a_callers_gradient_is_never_written(
        self, name: str, dtype: np.dtype, writable: bool
    ) -> None:
        mine = np.array([3, 4], dtype)
        mine.flags.writeable = writable
        opt = fastadam.Adam().setup({"W": np.array([1, -1], dtype)})
        opt.add_hook(MAKE[name]())
        seen = []
        opt.add_hook(lambda opt: seen.append(opt.parameters["W"].grad.copy()), "look")
        opt.apply_gradients({"W": mine})
        assert mine.astype(float).tolist() == [3, 4]
        assert is_after(name, seen[0])

    @every_hook
    def test_a_read_only_gradient_is_copied(self, name: str, dtype: np.dtype) -> None:
        """As Chainer's backward of a sum leaves it: all elements are one number."""
        param = given(dtype)
        shared = np.broadcast_to(np.array(3, dtype), 2)
        param.grad = shared
        call(MAKE[name](), param)
        assert shared.astype(float).tolist() == [3, 3]
        assert param.grad is not shared
        other = given(dtype)
        other.grad[:] = 3
        call(MAKE[name](), other)
        np.testing.assert_array_equal(param.grad, other.grad)

    @every_hook
    def test_a_gradient_that_is_the_parameter_is_copied(self, name: str) -> None:
        """The gradient of |p|**2 / 2 is p."""
        param = fastadam.Parameter(np.array([3.0, -4.0]), name="W")
        param.grad = param.array
        call(MAKE[name](), param)
        assert param.array.tolist() == [3, -4]
        assert param.grad is not param.array
        assert param.grad.tolist() != [3, -4]

    @every_hook
    def test_gradients_in_another_byte_order(self, name: str) -> None:
        param = given()
        param._grad = param.grad.astype(">f8")
        call(MAKE[name](), param)
        assert param.grad.dtype == np.dtype(">f8")
        assert is_after(name, param.grad.astype("f8"))


class TestOnWhom:
    @every_hook
    def test_without_a_gradient(self, name: str) -> None:
        param = given()
        param.grad = None
        if name == "GradientClipping":
            call(MAKE[name](), param)  # by an optimizer, which then gives zeros
            assert param.grad.tolist() == [0, 0]
            return
        MAKE[name]()(fastadam.AdamRule(), param)
        assert param.grad is None

    @every_hook
    @pytest.mark.parametrize("cleared", [False, True])
    def test_uninitialised(self, name: str, cleared: bool, link_of: Callable[..., Any]) -> None:
        lazy, param = fastadam.Parameter(0), given()
        if cleared:
            lazy.cleargrad()
        opt = fastadam.Adam().setup(link_of(lazy=lazy, W=param))
        opt.add_hook(MAKE[name]())
        opt.update()
        assert lazy.array is None
        assert is_after(name, param.grad)
        if name != "GradientClipping":
            MAKE[name]()(lazy.update_rule, lazy)
            assert lazy.array is None

    @every_hook
    @pytest.mark.parametrize("how", ["disabled", "frozen"])
    def test_who_is_not_updated(self, name: str, how: str, link_of: Callable[..., Any]) -> None:
        """It is not changed, and does not count."""
        still, param = given(), given()
        still.grad[:] = (300, 400)
        opt = fastadam.Adam().setup(link_of(a=still, W=param))
        opt.add_hook(MAKE[name]())
        if how == "disabled":
            still.update_rule.enabled = False
        else:
            still.update_rule = None
        opt.update()
        assert still.grad.tolist() == [300, 400]
        assert still.array.tolist() == [1, -1]
        assert is_after(name, param.grad)

    @every_hook
    def test_no_parameters(self, name: str) -> None:
        opt = fastadam.Adam().setup(fastadam.Link())
        opt.add_hook(MAKE[name]())
        opt.update()
        assert opt.t == 1

    @every_hook
    def test_shared_parameters_once(self, name: str) -> None:
        param = given()
        chain = fastadam.ChainList(fastadam.Link(), fastadam.Link())
        for link in chain:
            with link.init_scope():
                link.W = param
        opt = fastadam.Adam().setup(chain)
        opt.add_hook(MAKE[name]())
        opt.update()
        assert is_after(name, param.grad)

    @every_hook
    def test_late_parameters(self, name: str, link_of: Callable[..., Any]) -> None:
        link = link_of()
        opt = fastadam.Adam().setup(link)
        opt.add_hook(MAKE[name]())
        with link.init_scope():
            link.W = given()
        opt.update()
        assert is_after(name, link.W.grad)

    @every_hook
    @pytest.mark.parametrize("dtype", ["int64", "complex128"])
    def test_what_is_no_real_number(self, name: str, dtype: str) -> None:
        param = fastadam.Parameter(np.ones(2, dtype), name="count")
        param.grad = np.ones(2, dtype)
        with pytest.raises(TypeError, match=f"'(count|W)'.*{dtype}"):
            call(MAKE[name](), param)
        assert param.grad.tolist() == [1, 1]

    @every_hook
    def test_longer_floats_of_own_rules(self, name: str, link_of: Callable[..., Any]) -> None:
        class SGDRule(fastadam.UpdateRule):
            def update_core(self, param: Any) -> None:
                param.array -= param.grad

        class SGD(fastadam.GradientMethod):
            def create_update_rule(self) -> Any:
                return SGDRule(self.hyperparam)

        param = fastadam.Parameter(np.array([1, -1], np.longdouble))
        param.grad = np.array([3, 4], np.longdouble)
        opt = SGD().setup(link_of(W=param))
        opt.add_hook(MAKE[name]())
        opt.update()
        assert param.grad.dtype == np.longdouble
        assert is_after(name, param.grad.astype(float))
        np.testing.assert_array_equal(param.array, np.array([1, -1]) - param.grad)

    def test_longer_floats_keep_their_digits(self) -> None:
        g = 1 + np.finfo(np.longdouble).eps
        param = fastadam.Parameter(np.ones(1, np.longdouble))
        param.grad = np.full(1, g)
        WeightDecay(0)(None, param)
        assert param.grad[0] == g


class TestOnARule:
    @each_param
    def test_only_its_parameter(self, name: str, link_of: Callable[..., Any]) -> None:
        one, other = given(), given()
        opt = fastadam.Adam(alpha=0.125).setup(link_of(W=one, b=other))
        one.update_rule.add_hook(MAKE[name]())
        opt.update()
        assert is_after(name, one.grad)
        assert other.grad.tolist() == [3, 4]

    @each_param
    def test_the_step_is_made_with_it(self, name: str, link_of: Callable[..., Any]) -> None:
        arrays = []
        for where in ("optimizer", "rule", "gradient"):
            param = given()
            opt = fastadam.Adam(alpha=0.125, eps=2.0).setup(link_of(W=param))
            if where == "optimizer":
                opt.add_hook(MAKE[name]())
            elif where == "rule":
                param.update_rule.add_hook(MAKE[name]())
            else:
                param.grad = np.array(AFTER[name], float)
            opt.update()
            arrays.append(param.array)
        np.testing.assert_array_equal(arrays[0], arrays[1])
        np.testing.assert_allclose(arrays[0], arrays[2], rtol=1e-14)
        assert arrays[0].tolist() != [1, -1]

    @each_param
    @pytest.mark.parametrize("kind", ["float16", "bfloat16"])
    def test_the_master_is_seen(self, name: str, kind: str, link_of: Callable[..., Any]) -> None:
        if kind == "bfloat16":
            ml_dtypes = pytest.importorskip("ml_dtypes", reason="needs ml_dtypes for bfloat16")
            kind = ml_dtypes.bfloat16
        seen: list[Any] = []

        class Spy(type(MAKE[name]())):  # type: ignore[misc]
            def __call__(self, rule: Any, param: Any) -> None:
                assert (param.array.dtype, param.grad.dtype) == (np.float32, np.float32)
                grad = param.grad
                super().__call__(rule, param)
                assert param.grad is grad
                seen.append(grad.copy())

        param = given(kind)
        opt = fastadam.Adam().setup(link_of(W=param))
        opt.use_fp32_update()
        hook = Spy(**vars(MAKE[name]()))
        param.update_rule.add_hook(hook)
        opt.update()
        assert seen[0].dtype == np.float32
        assert is_after(name, seen[0])
        assert param.grad.astype(float).tolist() == [3, 4]

    def test_clipping_by_the_common_norm_is_for_optimizers(self) -> None:
        rule = fastadam.AdamRule()
        with pytest.raises(TypeError):
            rule.add_hook(GradientClipping(1))
        param = given()
        rule.update(param)
        assert (rule.t, param.grad.tolist()) == (1, [3, 4])


class TestLossScale:
    """A hook sees the true gradient, wherever it is; in Chainer all but one see it multiplied."""

    @every_hook
    @pytest.mark.parametrize("where", ["optimizer", "rule"])
    @pytest.mark.parametrize("fp32", [False, True])
    def test_in_an_update(
        self, name: str, where: str, fp32: bool, dtype: np.dtype, link_of: Callable[..., Any]
    ) -> None:
        if where == "rule" and name == "GradientClipping":
            where = "optimizer"
        param = given(dtype, scale=1024)
        opt = fastadam.Adam().setup(link_of(W=param))
        opt.use_fp32_update(fp32)
        opt.loss_scaling(scale=1024)
        seen: list[Any] = []
        owner = opt if where == "optimizer" else param.update_rule
        owner.add_hook(MAKE[name]())
        owner.add_hook(lambda *a: seen.append((a[1] if a[1:] else param).grad.copy()), "look")
        opt.update()
        assert is_after(name, seen[0])
        assert param._loss_scale is None

    @every_hook
    def test_with_gradients_of_a_caller(self, name: str, dtype: np.dtype) -> None:
        mine = np.array([3 * 64, 4 * 64], dtype)
        opt = fastadam.Adam().setup({"W": np.array([1, -1], dtype)})
        opt.add_hook(MAKE[name]())
        seen: list[Any] = []
        opt.add_hook(lambda opt: seen.append(opt.parameters["W"].grad.copy()), "look")
        opt.apply_gradients({"W": mine}, loss_scale=64)
        assert is_after(name, seen[0])
        assert mine.astype(float).tolist() == [3 * 64, 4 * 64]

    @every_hook
    def test_called_by_hand(self, name: str, dtype: np.dtype) -> None:
        param = given(dtype, scale=64)
        call(MAKE[name](), param)
        assert is_after(name, param.grad)
        assert param._loss_scale is None
        wide = np.float64 if dtype == np.float64 else np.float32
        assert param.grad.dtype == wide

    @every_hook
    def test_dynamic(self, name: str, link_of: Callable[..., Any]) -> None:
        param = given()
        opt = fastadam.Adam().setup(link_of(W=param))
        opt.loss_scaling()
        opt.add_hook(MAKE[name]())
        for scale in (1, 2, 4):
            param.grad = np.array([3.0, 4.0]) * scale
            param._loss_scale = opt.loss_scale
            assert opt.loss_scale == scale
            param.array[:] = (1, -1)
            opt.update()
            assert is_after(name, param.grad)

    @pytest.mark.parametrize("where", ["optimizer", "rule"])
    def test_the_numbers_that_chainer_gets_wrong(
        self, where: str, link_of: Callable[..., Any]
    ) -> None:
        """Scale 1024, true gradient 2 in three elements that are 1."""
        expected = {
            WeightDecay: (1, 3.0),
            Lasso: (1, 3.0),
            GradientClipping: (1, 1 / math.sqrt(3)),
        }
        for cls, (argument, value) in expected.items():
            if cls is GradientClipping and where == "rule":
                continue
            param = fastadam.Parameter(np.ones(3, np.float32))
            param.grad = np.full(3, 2048, np.float32)
            param._loss_scale = 1024
            opt = fastadam.Adam().setup(link_of(W=param))
            (opt if where == "optimizer" else param.update_rule).add_hook(cls(argument))
            opt.update()
            np.testing.assert_allclose(param.grad, np.full(3, value), rtol=2e-7)


class TestNonFinite:
    @every_hook
    @pytest.mark.parametrize("mode", ["propagate", "skip", "raise", "dynamic"])
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_modes(self, name: str, mode: str, bad: float, link_of: Callable[..., Any]) -> None:
        one, other = given(), given()
        one.grad[0] = bad
        opt = fastadam.Adam().setup(link_of(W=one, b=other))
        opt.add_hook(MAKE[name]())
        if mode == "dynamic":
            opt.loss_scaling()
        else:
            opt.on_nonfinite = mode
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "the gradient of", UserWarning)
            if mode == "raise":
                with pytest.raises(FloatingPointError, match="'W'"):
                    opt.update()
            else:
                opt.update()
        moved = one.array.tolist() != [1, -1] or other.array.tolist() != [1, -1]
        assert moved == (mode == "propagate")
        if name == "GradientClipping":
            # one bad gradient does not spoil the others
            assert other.grad.tolist() == [3, 4]
            np.testing.assert_array_equal(one.grad, [bad, 4])
        else:
            assert is_after(name, other.grad)
        bounded = name == "GradientHardClipping" and not math.isnan(bad)
        assert np.isfinite(one.grad[0]) == bounded


class TestCalledByHand:
    """Without the settings of an update around them."""

    @every_hook
    def test_numbers_that_are_too_large_are_infinite_without_a_word(
        self, name: str, link_of: Callable[..., Any]
    ) -> None:
        # in a layout that the loops leave to array operations
        p, g = np.ones((2, 4), np.float32)[:, ::2]
        param = fastadam.Parameter(p)
        param.grad = g
        g[:] = np.inf, 3e38
        hook = MAKE[name]()
        if name in ("WeightDecay", "Lasso"):
            hook.rate = 1e300
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if getattr(hook, "call_for_each_param", False):
                hook(None, param)
            else:
                hook(fastadam.Adam().setup(link_of(W=param)))
        assert not np.isfinite(param.grad).all() or name == "GradientHardClipping"


class TestOrder:
    def test_hooks_see_what_those_before_them_have_made(self, link_of: Callable[..., Any]) -> None:
        hooks = [WeightDecay(0.5), GradientHardClipping(0, 3.25)]
        for order, after in ((hooks, (3.25, 3.25)), (hooks[::-1], (3.5, 2.75))):
            param = given()
            opt = fastadam.Adam().setup(link_of(W=param))
            for hook in order:
                opt.add_hook(hook)
            opt.update()
            assert param.grad.tolist() == list(after)

    @every_hook
    def test_after_the_update_on_demand(self, name: str, link_of: Callable[..., Any]) -> None:
        steps = []
        for added in (False, True):
            param = given()
            opt = fastadam.Adam(alpha=0.125).setup(link_of(W=param))
            if added:
                opt.add_hook(MAKE[name](), timing="post")
            opt.update()
            steps.append(param.array)
        np.testing.assert_array_equal(*steps)
        assert param.grad.tolist() != [3, 4]

    @every_hook
    @pytest.mark.parametrize("timing", ["pre", "post"])
    def test_call_hooks(self, name: str, timing: str, link_of: Callable[..., Any]) -> None:
        param = given()
        opt = fastadam.Adam().setup(link_of(W=param))
        opt.add_hook(MAKE[name](), timing=timing)
        opt.call_hooks("post" if timing == "pre" else "pre")
        assert param.grad.tolist() == [3, 4]
        opt.call_hooks(timing)
        assert is_after(name, param.grad)
        assert opt.t == 0

    @every_hook
    @pytest.mark.parametrize("clear", ["cleargrad", "cleargrads"])
    def test_a_cleared_gradient_is_zeros_to_the_next_hook(
        self, name: str, clear: str, link_of: Callable[..., Any]
    ) -> None:
        def clearing(opt: Any) -> None:
            opt.target.cleargrads() if clear == "cleargrads" else opt.target.W.cleargrad()

        param, zeros = given(), given()
        opt = fastadam.Adam().setup(link_of(W=param))
        opt.add_hook(clearing)
        opt.add_hook(MAKE[name]())
        opt.update()
        zeros.grad[:] = 0
        call(MAKE[name](), zeros)
        np.testing.assert_array_equal(param.grad, zeros.grad)


@each_param
def test_a_subclass_is_called_with_each_parameter(name: str, link_of: Callable[..., Any]) -> None:
    """What its class can do for all parameters at once is not what the subclass does."""
    hook = MAKE[name]()

    class Own(type(hook)):  # type: ignore[misc]
        def __call__(self, rule: Any, param: Any) -> None:
            super().__call__(rule, param)
            param.grad += 1

    hook.__class__ = Own
    param = given()
    opt = fastadam.Adam().setup(link_of(W=param))
    opt.add_hook(hook)
    opt.update()
    assert is_after(name, param.grad - 1)


def test_sum_of_everything_in_one_program(link_of: Callable[..., Any]) -> None:
    """All hooks together, one after the other, against the formulas in float64."""
    param = given()
    opt = fastadam.Adam().setup(link_of(W=param))
    for make in MAKE.values():
        opt.add_hook(make())
    opt.update()
    p, g = np.array([1.0, -1.0]), np.array([3.0, 4.0])
    g = g + 0.5 * p
    g = g + 0.25 * np.sign(p)
    g = np.clip(g, -1, 3.5)
    g = g + 0.25
    g = g * 2.5 / np.linalg.norm(g)
    rate = np.linalg.norm(p) / (0.25 + np.linalg.norm(g) + 0.5 * np.linalg.norm(p))
    np.testing.assert_allclose(param.grad, rate * (g + 0.5 * p), rtol=1e-14)
