"""What docs/departures.rst says of both libraries, checked in each of them."""

from __future__ import annotations

import contextlib
import importlib
import io
import types
import warnings
from typing import Any

import numpy as np
import pytest


def ones(n: int = 2, dtype: str = "float32") -> np.ndarray:
    return np.ones(n, dtype)


# Numbers


def test_subnormal_float32_is_flushed(library: Any) -> None:
    link = library.link(W=ones())
    opt = library.optimizers.Adam().setup(link)
    library.fill_gradients(link, 1e-20)
    opt.update()
    assert bool(np.all(link.W.update_rule.state["v"] == 0)) == library.is_ours


@pytest.mark.parametrize(
    ("eps", "theirs"), [(1e-50, AttributeError), (1e-40, None)], ids=["zero", "subnormal"]
)
def test_eps_that_acts_as_zero(library: Any, eps: float, theirs: Any) -> None:
    link = library.link(W=ones())
    opt = library.optimizers.Adam(eps=eps).setup(link)
    library.fill_gradients(link)
    error = library.says(ours=ValueError, theirs=theirs)
    with pytest.raises(error) if error else contextlib.nullcontext():
        opt.update()


def test_byte_swapped_parameter_is_refused(library: Any) -> None:
    link = library.link(W=np.ones(2, ">f4"))
    with pytest.raises(TypeError, match="'W'") if library.is_ours else contextlib.nullcontext():
        library.optimizers.Adam().setup(link)
    if not library.is_ours:
        library.fill_gradients(link)
        link.W.update_rule.update(link.W)


def test_array_that_overlaps_itself_is_refused(library: Any) -> None:
    link = library.link(W=np.lib.stride_tricks.as_strided(ones(1), (3,), (0,)))
    with pytest.raises(ValueError, match="'W'") if library.is_ours else contextlib.nullcontext():
        library.optimizers.Adam().setup(link)
    if not library.is_ours:
        library.fill_gradients(link)
        link.W.update_rule.update(link.W)


def test_parameters_that_are_refused_at_setup(library: Any) -> None:
    read_only = ones()
    read_only.flags.writeable = False
    for bad in (np.arange(2), read_only):
        link = library.link(W=ones(), X=bad)
        refused = pytest.raises((TypeError, ValueError), match="'X'")
        with refused if library.is_ours else contextlib.nullcontext():
            library.optimizers.Adam().setup(link)
    masked = np.ma.array(ones(), mask=[True, False])
    with pytest.raises(TypeError) if library.is_ours else contextlib.nullcontext():
        link = library.link(W=masked)
        opt = library.optimizers.Adam().setup(link)
        library.fill_gradients(link)
        opt.update()
        assert (link.W.array.data != 1).tolist() == [False, True]


def test_states_that_share_memory(library: Any) -> None:
    link, opt = library.trained()
    state = link.W.update_rule.state
    state["v"] = state["m"]
    library.fill_gradients(link)
    with pytest.raises(ValueError, match="memory") if library.is_ours else contextlib.nullcontext():
        opt.update()


def test_nan_is_where_chainer_has_it(library: Any) -> None:
    for bad in (np.nan, -np.nan, np.inf, -np.inf):
        for kind in ("Adam", "AMSGrad", "AdaBound"):
            link = library.link(W=ones(4), V=ones(4, "float64"))
            opt = library.setup(link, kind, alpha=0.5)
            for param in link.params():
                param.grad = np.array([1, bad, 1, 0], param.dtype)
            with np.errstate(all="ignore"):
                opt.update()
            for param in link.params():
                state = param.update_rule.state
                for array in (param.array, state["m"], state["v"]):
                    bad_ones = ~np.isfinite(array)
                    assert bad_ones.tolist() == [False, True, False, False]
                assert np.isnan(param.array[1]) or np.isinf(bad)


# An update


def test_update_returns_the_loss(library: Any) -> None:
    link = library.link(W=ones())
    loss = types.SimpleNamespace(backward=lambda loss_scale: library.fill_gradients(link))
    result = library.optimizers.Adam().setup(link).update(lambda: loss)
    assert result is library.says(ours=loss, theirs=None)


def test_classes_are_those_of_the_library(library: Any) -> None:
    chainer = pytest.importorskip("chainer", exc_type=(ImportError, AttributeError))
    link = library.link(W=ones())
    opt = library.setup(link)
    theirs = not library.is_ours
    for thing, base in (
        (opt, chainer.optimizers.Adam),
        (opt, chainer.GradientMethod),
        (link.W.update_rule, chainer.UpdateRule),
        (opt.hyperparam, chainer.optimizer.Hyperparameter),
        (type(opt).alpha, chainer.optimizer.HyperparameterProxy),
        (link.W, chainer.Parameter),
        (link, chainer.Link),
    ):
        # Chainer's proxies are functions that make properties
        if isinstance(base, type):
            assert isinstance(thing, base) == theirs
    if library.is_ours:
        made = importlib.import_module("fastadam.chainer").Adam().setup(link)
        assert isinstance(made, chainer.optimizers.Adam)
        assert not isinstance(link.W.update_rule, chainer.UpdateRule)


def test_loss_without_gradients(library: Any) -> None:
    opt = library.optimizers.Adam().setup(library.link(W=ones()))
    with pytest.raises(library.says(ours=TypeError, theirs=AttributeError)):
        opt.update(lambda: 3.0)


@pytest.mark.parametrize("call", ["update", "serialize"])
def test_before_setup(library: Any, call: str) -> None:
    opt = library.optimizers.Adam()
    arguments = [library.serializers.DictionarySerializer()] if call == "serialize" else []
    with pytest.raises(library.says(ours=RuntimeError, theirs=AttributeError)):
        getattr(opt, call)(*arguments)


def test_shared_parameter_is_updated_once(library: Any) -> None:
    shared = library.Parameter(ones())
    links = library.Link(), library.Link()
    for link in links:
        with link.init_scope():
            link.W = shared
    chain = library.Chain(a=links[0], b=links[1])
    opt = library.optimizers.Adam().setup(chain)
    calls = []

    def hook(rule: Any, param: Any) -> None:
        calls.append(param)

    hook.call_for_each_param = True  # type: ignore[attr-defined]
    opt.add_hook(hook, timing="pre")
    library.fill_gradients(chain)
    opt.update()
    times = library.says(ours=1, theirs=2)
    assert (shared.update_rule.t, len(calls)) == (times, times)
    np.testing.assert_allclose(shared.array, 1 - 0.001 * times, rtol=1e-6)
    # both write the state under both paths, so that files fit either library
    written = library.serializers.DictionarySerializer()
    written.save(opt)
    assert {"a/W/m", "b/W/m"} < set(written.target)


def test_uninitialised_parameter_counts_no_steps(library: Any) -> None:
    link = library.link(W=ones(), lazy=None)
    opt = library.optimizers.Adam().setup(link)
    link.cleargrads()
    opt.update()
    opt.update()
    assert (opt.t, link.lazy.update_rule.t) == (2, library.says(ours=0, theirs=2))


def test_uninitialised_parameter_that_was_not_cleared(library: Any) -> None:
    link = library.link(W=ones(), lazy=None)
    opt = library.optimizers.Adam().setup(link)
    link.W.grad = ones()
    with contextlib.nullcontext() if library.is_ours else pytest.raises(RuntimeError):
        opt.update()


def test_late_parameter_gets_a_rule(library: Any) -> None:
    link, opt = library.trained()
    with link.init_scope():
        link.late = library.Parameter(ones())
    library.fill_gradients(link)
    opt.update()
    assert (link.late.update_rule is not None) == library.is_ours
    assert bool(np.all(link.late.array != 1)) == library.is_ours


def test_update_that_raises_is_not_counted(library: Any) -> None:
    class Failing(library.UpdateRule):  # type: ignore[misc]
        def update_core(self, param: Any) -> None:
            raise OSError("the disk is on fire")

    link = library.link(W=ones())
    opt = library.optimizers.Adam().setup(link)
    link.W.update_rule = Failing()
    library.fill_gradients(link)
    with pytest.raises(OSError, match="disk"):
        opt.update()
    counts = library.says(ours=(0, 0), theirs=(1, 1))
    assert (opt.t, link.W.update_rule.t) == counts


def test_refused_update_changes_nothing(library: Any) -> None:
    link, opt = library.trained()
    link.W.array.flags.writeable = False
    before = {key: array.copy() for key, array in link.W.update_rule.state.items()}
    with pytest.raises(ValueError, match="read-only"):
        opt.update()
    t = library.says(ours=1, theirs=2)
    assert (opt.t, link.W.update_rule.t) == (t, t)
    for key, array in link.W.update_rule.state.items():
        assert bool(np.all(array == before[key])) == library.is_ours


def test_rules_with_hooks_come_after_the_batch(library: Any) -> None:
    link = library.link(a=ones(), b=ones())
    opt = library.optimizers.Adam().setup(link)
    seen = []
    link.a.update_rule.add_hook(lambda rule, param: seen.append(link.b.update_rule.t), "look")
    library.fill_gradients(link)
    opt.update()
    assert seen == [library.says(ours=1, theirs=0)]


def test_unknown_timing_of_a_rules_hook(library: Any) -> None:
    link = library.link(W=ones())
    opt = library.optimizers.Adam().setup(link)
    seen = []

    def hook(rule: Any, param: Any) -> None:
        seen.append(float(param.array[0]))

    hook.timing = "sometime"  # type: ignore[attr-defined]
    warns = pytest.warns(UserWarning, match="timing")
    with warns if library.is_ours else contextlib.nullcontext():
        link.W.update_rule.add_hook(hook)
    library.fill_gradients(link)
    opt.update()
    assert (seen == [1.0]) == library.is_ours  # before the update, or after it


def test_scaled_gradient_is_divided_once(library: Any) -> None:
    link = library.link(W=np.ones(2, np.float32))
    opt = library.optimizers.Adam(alpha=0.25, eps=0.5).setup(link)
    seen = []
    opt.add_hook(lambda opt: seen.append(float(opt.target.W.grad[0])), "look")
    link.W.grad = np.full(2, 8, np.float32)
    link.W._loss_scale = 8
    for _ in range(2):
        opt.update()
        seen.append(float(link.W.grad[0]))
    assert seen == library.says(ours=[1, 1, 1, 1], theirs=[8, 1, 1, 0.125])
    assert link.W._loss_scale == library.says(ours=None, theirs=8)


def test_gradient_of_a_zero_dim_parameter_may_be_a_scalar(library: Any) -> None:
    param = library.Parameter(np.array(1.0))
    with contextlib.nullcontext() if library.is_ours else pytest.raises(TypeError):
        param.grad = np.float64(2)


def test_parameter_of_another_dtype_than_its_state(library: Any) -> None:
    link, opt = library.trained()
    link.W.array = ones(dtype="float64")
    link.W.grad = ones(dtype="float64")
    with pytest.raises(TypeError, match="state") if library.is_ours else contextlib.nullcontext():
        opt.update()
    assert link.W.update_rule.state["m"].dtype == np.float32


# Loss scaling and half precision


def half(library: Any, **arguments: Any) -> tuple[Any, Any]:
    """Return a link with a float16 parameter and an optimizer with float32 masters."""
    link = library.link(W=ones(dtype="float16"))
    opt = library.setup(link, **arguments)
    opt.use_fp32_update()
    library.fill_gradients(link)
    return link, opt


def test_masters_are_rounded_into_the_array(library: Any) -> None:
    link, opt = half(library)
    array = link.W.array
    opt.update()
    assert (link.W.array is array) == library.is_ours
    assert bool(np.all(link.W.array < 1))


def test_true_gradient_of_a_half_parameter(library: Any) -> None:
    link, opt = half(library)
    link.W.grad = np.full(2, 2.0**-24, np.float16)  # the smallest of all
    link.W._loss_scale = 1024
    opt.update()
    seen = link.W.grad.dtype.name, float(link.W.grad[0])
    assert seen == library.says(ours=("float32", 2.0**-34), theirs=("float16", 2.0**-24))


def test_float32_gradient_of_a_half_parameter(library: Any) -> None:
    param = library.Parameter(ones(dtype="float16"))
    with contextlib.nullcontext() if library.is_ours else pytest.raises(TypeError):
        param.grad = ones()


def test_clearing_a_gradient_clears_its_scale(library: Any) -> None:
    param = library.Parameter(ones())
    param.grad, param._loss_scale = ones(), 8
    param.cleargrad()
    assert param._loss_scale == library.says(ours=None, theirs=8)


@pytest.mark.parametrize("scale", [np.inf, np.nan])
def test_loss_scale_that_is_not_finite(library: Any, scale: float) -> None:
    opt = library.optimizers.Adam()
    error = pytest.raises(ValueError, match="finite")
    with error if library.is_ours else contextlib.nullcontext():
        opt.set_loss_scale(scale)


def test_bases_with_a_loss_scale(library: Any) -> None:
    names = {"loss_scaling", "set_loss_scale", "check_nan_in_grads", "update_loss_scale"}
    assert names <= set(dir(library.GradientMethod))
    assert (names & set(dir(library.Optimizer)) == set()) == library.is_ours


def test_entries_that_chainer_has_not(library: Any) -> None:
    _, opt = half(library, adabound=True)
    opt.loss_scaling(scale=8)
    opt.update()
    opt.alpha = 0.5
    written = library.serializers.DictionarySerializer()
    written.save(opt)
    scaling = {"loss_scale", "loss_scale_dynamic", "loss_scale_multiplier"}
    more = {f"fastadam/{name}" for name in (*scaling, "loss_scale_nonfinite_ever")}
    more |= {"W/fp32_param", "W/initial_alpha"}
    common = {"t", "epoch", "W/t", "W/m", "W/v"}
    assert set(written.target) == common | library.says(ours=more, theirs=set())


# Hyperparameters


def test_amsgrad_switched_on_later(library: Any) -> None:
    link, opt = library.trained()
    opt.amsgrad = True
    with contextlib.nullcontext() if library.is_ours else pytest.raises(KeyError):
        opt.update()
    if library.is_ours:
        state = link.W.update_rule.state
        np.testing.assert_array_equal(state["vhat"], state["v"])


def test_adabound_switched_on_later(library: Any) -> None:
    link, opt = library.trained()
    opt.adabound = True
    with contextlib.nullcontext() if library.is_ours else pytest.raises(AttributeError):
        opt.update()
    if library.is_ours:
        assert link.W.update_rule.initial_alpha == opt.alpha


@pytest.mark.parametrize(
    ("argument", "moves"), [("alpha", False), ("gamma", True)], ids=["alpha", "gamma"]
)
def test_adabound_from_zero(library: Any, argument: str, moves: bool) -> None:
    with contextlib.nullcontext() if library.is_ours else pytest.raises(ZeroDivisionError):
        link, opt = library.trained("AdaBound", **{argument: 0})
    if library.is_ours:
        assert bool(np.all(link.W.array != 1)) == moves
        opt.alpha = 0.01
        opt.update()
        assert bool(np.all(link.W.array < 1))


def test_misspelt_attribute(library: Any) -> None:
    opt = library.optimizers.Adam()
    error = pytest.raises(AttributeError, match="'alpha' is meant")
    with error if library.is_ours else contextlib.nullcontext():
        opt.aplha = 1
    opt.alpha0 = opt.alpha_start = 0.5  # what programs keep on the optimizer
    assert (opt.alpha0, opt.alpha) == (0.5, 0.001)


def test_hyperparameter_that_no_rule_has(library: Any) -> None:
    link = library.link(W=ones())
    opt = library.setup(link)
    for bag in (opt.hyperparam, link.W.update_rule.hyperparam):
        error = pytest.raises(AttributeError, match="learning rate is called alpha")
        with error if library.is_ours else contextlib.nullcontext():
            bag.lr = 8e-5
        bag.alpha = 0.25
    assert opt.alpha == 0.25


def test_hyperparameter_out_of_range(library: Any) -> None:
    for name, bad in (("beta1", 1.5), ("beta2", -0.5), ("eps", -1.0), ("gamma", float("nan"))):
        error = pytest.raises(ValueError, match=f"{name} must be")
        with error if library.is_ours else contextlib.nullcontext():
            library.optimizers.Adam(**{name: bad})
        opt = library.optimizers.Adam()
        error = pytest.raises(ValueError, match=f"{name} must be")
        with error if library.is_ours else contextlib.nullcontext():
            setattr(opt, name, bad)
    link = library.link(W=ones())
    opt = library.setup(link, alpha=-0.5)
    library.fill_gradients(link)
    opt.update()
    assert bool(np.all(link.W.array > 1))


def test_text_is_no_truth_value(library: Any) -> None:
    opt = library.optimizers.Adam()
    rule = opt.create_update_rule()
    for door in (
        opt.use_fp32_update,
        rule.use_fp32_update,
        lambda bad: setattr(rule, "enabled", bad),
    ):
        error = pytest.raises(TypeError, match="True or False")
        with error if library.is_ours else contextlib.nullcontext():
            door("no")
        for flag in (1, 0, None, np.True_, True):
            door(flag)
    assert rule.enabled


def test_hyperparameter_that_is_no_number(library: Any) -> None:
    error = pytest.raises(TypeError, match="setup")
    with error if library.is_ours else contextlib.nullcontext():
        library.optimizers.Adam([ones()])


def test_two_hyperparameters_more(library: Any) -> None:
    opt = library.optimizers.Adam()
    assert len(opt.hyperparam.get_dict()) == 10
    assert getattr(opt, "eps_mode", None) == ("hat" if library.is_ours else None)
    assert getattr(opt, "decay_mode", None) == ("eta" if library.is_ours else None)
    if library.is_ours:
        modes = {"eps_mode": "paper", "decay_mode": "alpha"}
        assert modes.items() < library.optimizers.Adam(**modes).hyperparam.get_dict().items()


# Files


def test_file_saved_before_the_first_update(library: Any) -> None:
    file = library.save(library.optimizers.Adam().setup(library.link(W=ones())))
    link = library.link(W=ones())
    opt = library.optimizers.Adam().setup(link)
    with contextlib.nullcontext() if library.is_ours else pytest.raises(KeyError):
        library.load(file, opt)
    assert (link.W.update_rule.state is None) == library.is_ours


def test_failed_load_changes_nothing(library: Any) -> None:
    file = library.save(library.trained()[1])
    opt = library.optimizers.AMSGrad().setup(library.link(W=ones()))
    with pytest.raises(KeyError, match="W/vhat"):
        library.load(file, opt)
    assert opt.t == library.says(ours=0, theirs=1)


def test_state_of_another_shape(library: Any) -> None:
    file = library.save(library.trained(n=2)[1])
    opt = library.optimizers.Adam().setup(library.link(W=ones(4)))
    with pytest.raises(ValueError, match="shape") if library.is_ours else contextlib.nullcontext():
        library.load(file, opt)
    assert opt.t == library.says(ours=0, theirs=1)


def test_one_element_is_not_spread_over_many(library: Any) -> None:
    file = library.save(library.trained(n=1)[1])
    _, opt = library.trained(n=4)
    with pytest.raises(ValueError, match="shape") if library.is_ours else contextlib.nullcontext():
        library.load(file, opt)


def test_loaded_state_has_the_parameters_dtype(library: Any) -> None:
    link = library.link(W=ones(dtype="float64"))
    opt = library.optimizers.Adam().setup(link)
    library.fill_gradients(link)
    opt.update()
    other = library.link(W=ones(dtype="float32"))
    library.load(library.save(opt), library.optimizers.Adam().setup(other))
    dtype = library.says(ours="float32", theirs="float64")
    assert other.W.update_rule.state["m"].dtype == dtype


def test_init_state_at_a_load(library: Any) -> None:
    shapes: list[Any] = []

    class Rule(library.UpdateRule):  # type: ignore[misc, name-defined]
        def init_state(self, param: Any) -> None:
            shapes.append(param.array.shape)
            self.state["u"] = np.zeros_like(param.array)

        def update_core(self, param: Any) -> None:
            self.state["u"] += param.grad

    class Method(library.GradientMethod):  # type: ignore[misc, name-defined]
        def create_update_rule(self) -> Any:
            return Rule(self.hyperparam)

    link = library.link(W=ones(3))
    opt = Method().setup(link)
    library.fill_gradients(link)
    opt.update()
    file = library.save(opt)
    del shapes[:]
    other = Method().setup(library.link(W=ones(3)))
    library.load(file, other)
    assert shapes == [library.says(ours=(3,), theirs=(1,))]


def test_a_file_of_adam_into_amsgrad(library: Any) -> None:
    _, opt = library.trained("Adam", alpha=0.5)
    link = library.link(W=ones())
    other = library.setup(link, "AMSGrad", alpha=0.5)
    with np.load(library.save(opt)) as file:
        library.serializers.NpzDeserializer(file, strict=False).load(other)
    rule = link.W.update_rule
    assert rule.t == 1
    if not library.is_ours:
        assert rule.state is None
        return
    before = opt.target.W.update_rule.state
    for name in ("m", "v"):
        assert rule.state[name].tobytes() == before[name].tobytes()
    assert not rule.state["vhat"].any()
    library.fill_gradients(link)
    other.update()
    assert rule.state["vhat"].tobytes() == rule.state["v"].tobytes()


class Trap:
    """Unpickling it is noticed."""

    sprung = False

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return _spring, ()


def _spring() -> None:
    """Be what a malicious file makes run."""
    Trap.sprung = True


def test_nothing_is_unpickled(library: Any) -> None:
    file = io.BytesIO()
    np.savez(file, W=np.array([Trap(), None], object))
    file.seek(0)
    Trap.sprung = False
    with pytest.raises((TypeError, ValueError)):
        library.load(file, library.link(W=ones()))
    assert Trap.sprung != library.is_ours


def test_objects_are_not_saved(library: Any) -> None:
    values = {"a": np.array([None, 1], object)}
    error = pytest.raises(TypeError, match="pickle")
    with error if library.is_ours else contextlib.nullcontext():
        library.serializers.save_npz(io.BytesIO(), values)


# Links and parameters


def test_chain_list_copies_its_own_parameters(library: Any) -> None:
    chain = library.ChainList()
    with chain.init_scope():
        chain.W = library.Parameter(ones())
    chain.copy("copy").W.array[...] = 9
    assert float(chain.W.array[0]) == library.says(ours=1.0, theirs=9.0)


def test_copydata_spreads_nothing(library: Any) -> None:
    target, source = library.Parameter(ones(3)), library.Parameter(ones(1))
    with pytest.raises(ValueError, match="shape") if library.is_ours else contextlib.nullcontext():
        target.copydata(source)


def test_integer_parameter_has_no_nan_gradient(library: Any) -> None:
    class Zeros:
        dtype = np.dtype(np.int32)

        def __call__(self, array: np.ndarray) -> None:
            array[...] = 0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        param = library.Parameter(Zeros(), (2,))
    assert (param.grad is None) == library.is_ours


def test_parameters_are_compared_by_identity(library: Any) -> None:
    param = library.Parameter(ones())
    if library.is_ours:
        assert len({param, library.Parameter(ones())}) == 2
        assert param == param
        return
    with pytest.raises(TypeError, match="unhashable"):
        hash(param)
    with pytest.raises(TypeError, match="=="):
        assert param == param


def test_parameters_do_not_calculate(library: Any) -> None:
    param = library.Parameter(ones())
    with pytest.raises(TypeError, match=r"\+") if library.is_ours else contextlib.nullcontext():
        param + 1


def test_dtype_of_an_initializer_without_one(library: Any) -> None:
    def fill(array: np.ndarray) -> None:
        array[...] = 1

    if library.is_ours:
        configuration = contextlib.nullcontext()
    else:
        configuration = importlib.import_module("chainer").using_config("dtype", np.float16)
    with configuration:
        dtype = library.Parameter(fill, (2,)).dtype
    assert dtype == library.says(ours="float32", theirs="float16")


def test_addgrad_spreads_nothing(library: Any) -> None:
    target, source = library.Parameter(np.ones((2, 3))), library.Parameter(np.ones(3))
    target.grad, source.grad = np.ones((2, 3)), np.ones(3)
    with pytest.raises(ValueError, match="shape") if library.is_ours else contextlib.nullcontext():
        target.addgrad(source)
