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

import fastadam


class Library:
    """The names that the two libraries share, and what is expected of this one."""

    def __init__(self, name: str) -> None:
        self.is_ours = name == "fastadam"
        module: Any = fastadam
        if not self.is_ours:
            try:
                module = importlib.import_module("chainer")
            except (ImportError, AttributeError):  # not there, or not on this NumPy
                pytest.skip("Chainer cannot be imported here")
        self.Parameter = module.Parameter
        self.Link, self.Chain, self.ChainList = module.Link, module.Chain, module.ChainList
        self.UpdateRule = module.UpdateRule
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


@pytest.fixture(params=["fastadam", "chainer"])
def library(request: pytest.FixtureRequest) -> Library:
    return Library(request.param)


def ones(n: int = 2, dtype: str = "float32") -> np.ndarray:
    return np.ones(n, dtype)


def fill_gradients(link: Any, value: float = 1.0) -> None:
    for param in link.params():
        if param.array is not None:
            param.grad = np.full_like(param.array, value)


def trained(library: Library, kind: str = "Adam", n: int = 2, **arguments: Any) -> tuple[Any, Any]:
    """Return a link with one parameter and an optimizer that has made one update."""
    link = library.link(W=ones(n))
    opt = getattr(library.optimizers, kind)(**arguments).setup(link)
    fill_gradients(link)
    opt.update()
    return link, opt


# Numbers


def test_subnormal_float32_is_flushed(library: Library) -> None:
    link = library.link(W=ones())
    opt = library.optimizers.Adam().setup(link)
    fill_gradients(link, 1e-20)
    opt.update()
    assert bool(np.all(link.W.update_rule.state["v"] == 0)) == library.is_ours


@pytest.mark.parametrize(
    ("eps", "theirs"), [(1e-50, AttributeError), (1e-40, None)], ids=["zero", "subnormal"]
)
def test_eps_that_acts_as_zero(library: Library, eps: float, theirs: Any) -> None:
    link = library.link(W=ones())
    opt = library.optimizers.Adam(eps=eps).setup(link)
    fill_gradients(link)
    error = library.says(ours=ValueError, theirs=theirs)
    with pytest.raises(error) if error else contextlib.nullcontext():
        opt.update()


def test_byte_swapped_parameter_is_refused(library: Library) -> None:
    link = library.link(W=np.ones(2, ">f4"))
    opt = library.optimizers.Adam().setup(link)
    fill_gradients(link)
    with pytest.raises(TypeError, match="'W'") if library.is_ours else contextlib.nullcontext():
        opt.update()


def test_array_that_overlaps_itself_is_refused(library: Library) -> None:
    link = library.link(W=np.lib.stride_tricks.as_strided(ones(1), (3,), (0,)))
    opt = library.optimizers.Adam().setup(link)
    fill_gradients(link)
    with pytest.raises(ValueError, match="'W'") if library.is_ours else contextlib.nullcontext():
        opt.update()


# An update


def test_update_returns_the_loss(library: Library) -> None:
    link = library.link(W=ones())
    loss = types.SimpleNamespace(backward=lambda loss_scale: fill_gradients(link))
    result = library.optimizers.Adam().setup(link).update(lambda: loss)
    assert result is library.says(ours=loss, theirs=None)


def test_loss_without_gradients(library: Library) -> None:
    opt = library.optimizers.Adam().setup(library.link(W=ones()))
    with pytest.raises(library.says(ours=TypeError, theirs=AttributeError)):
        opt.update(lambda: 3.0)


@pytest.mark.parametrize("call", ["update", "serialize"])
def test_before_setup(library: Library, call: str) -> None:
    opt = library.optimizers.Adam()
    arguments = [library.serializers.DictionarySerializer()] if call == "serialize" else []
    with pytest.raises(library.says(ours=RuntimeError, theirs=AttributeError)):
        getattr(opt, call)(*arguments)


def test_shared_parameter_is_updated_once(library: Library) -> None:
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
    fill_gradients(chain)
    opt.update()
    times = library.says(ours=1, theirs=2)
    assert (shared.update_rule.t, len(calls)) == (times, times)
    np.testing.assert_allclose(shared.array, 1 - 0.001 * times, rtol=1e-6)
    # both write the state under both paths, so that files fit either library
    written = library.serializers.DictionarySerializer()
    written.save(opt)
    assert {"a/W/m", "b/W/m"} < set(written.target)


def test_uninitialised_parameter_counts_no_steps(library: Library) -> None:
    link = library.link(W=ones(), lazy=None)
    opt = library.optimizers.Adam().setup(link)
    link.cleargrads()
    opt.update()
    opt.update()
    assert (opt.t, link.lazy.update_rule.t) == (2, library.says(ours=0, theirs=2))


def test_uninitialised_parameter_that_was_not_cleared(library: Library) -> None:
    link = library.link(W=ones(), lazy=None)
    opt = library.optimizers.Adam().setup(link)
    link.W.grad = ones()
    with contextlib.nullcontext() if library.is_ours else pytest.raises(RuntimeError):
        opt.update()


def test_late_parameter_gets_a_rule(library: Library) -> None:
    link, opt = trained(library)
    with link.init_scope():
        link.late = library.Parameter(ones())
    fill_gradients(link)
    opt.update()
    assert (link.late.update_rule is not None) == library.is_ours
    assert bool(np.all(link.late.array != 1)) == library.is_ours


def test_update_that_raises_is_not_counted(library: Library) -> None:
    class Failing(library.UpdateRule):  # type: ignore[name-defined, misc]
        def update_core(self, param: Any) -> None:
            raise OSError("the disk is on fire")

    link = library.link(W=ones())
    opt = library.optimizers.Adam().setup(link)
    link.W.update_rule = Failing()
    fill_gradients(link)
    with pytest.raises(OSError, match="disk"):
        opt.update()
    counts = library.says(ours=(0, 0), theirs=(1, 1))
    assert (opt.t, link.W.update_rule.t) == counts


def test_refused_update_changes_nothing(library: Library) -> None:
    link, opt = trained(library)
    link.W.array.flags.writeable = False
    before = {key: array.copy() for key, array in link.W.update_rule.state.items()}
    with pytest.raises(ValueError, match="read-only"):
        opt.update()
    t = library.says(ours=1, theirs=2)
    assert (opt.t, link.W.update_rule.t) == (t, t)
    for key, array in link.W.update_rule.state.items():
        assert bool(np.all(array == before[key])) == library.is_ours


def test_rules_with_hooks_come_after_the_batch(library: Library) -> None:
    link = library.link(a=ones(), b=ones())
    opt = library.optimizers.Adam().setup(link)
    seen = []
    link.a.update_rule.add_hook(lambda rule, param: seen.append(link.b.update_rule.t), "look")
    fill_gradients(link)
    opt.update()
    assert seen == [library.says(ours=1, theirs=0)]


def test_unknown_timing_of_a_rules_hook(library: Library) -> None:
    link = library.link(W=ones())
    opt = library.optimizers.Adam().setup(link)
    seen = []

    def hook(rule: Any, param: Any) -> None:
        seen.append(float(param.array[0]))

    hook.timing = "sometime"  # type: ignore[attr-defined]
    warns = pytest.warns(UserWarning, match="timing")
    with warns if library.is_ours else contextlib.nullcontext():
        link.W.update_rule.add_hook(hook)
    fill_gradients(link)
    opt.update()
    assert (seen == [1.0]) == library.is_ours  # before the update, or after it


def test_scaled_gradient_is_divided_once(library: Library) -> None:
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


def test_gradient_of_a_zero_dim_parameter_may_be_a_scalar(library: Library) -> None:
    param = library.Parameter(np.array(1.0))
    with contextlib.nullcontext() if library.is_ours else pytest.raises(TypeError):
        param.grad = np.float64(2)


# Hyperparameters


def test_amsgrad_switched_on_later(library: Library) -> None:
    link, opt = trained(library)
    opt.amsgrad = True
    with contextlib.nullcontext() if library.is_ours else pytest.raises(KeyError):
        opt.update()
    if library.is_ours:
        state = link.W.update_rule.state
        np.testing.assert_array_equal(state["vhat"], state["v"])


def test_adabound_switched_on_later(library: Library) -> None:
    link, opt = trained(library)
    opt.adabound = True
    with contextlib.nullcontext() if library.is_ours else pytest.raises(AttributeError):
        opt.update()
    if library.is_ours:
        assert link.W.update_rule.initial_alpha == opt.alpha


@pytest.mark.parametrize(
    ("argument", "moves"), [("alpha", False), ("gamma", True)], ids=["alpha", "gamma"]
)
def test_adabound_from_zero(library: Library, argument: str, moves: bool) -> None:
    with contextlib.nullcontext() if library.is_ours else pytest.raises(ZeroDivisionError):
        link, opt = trained(library, "AdaBound", **{argument: 0})
    if library.is_ours:
        assert bool(np.all(link.W.array != 1)) == moves
        opt.alpha = 0.01
        opt.update()
        assert bool(np.all(link.W.array < 1))


def test_misspelt_attribute(library: Library) -> None:
    opt = library.optimizers.Adam()
    error = pytest.raises(AttributeError, match="'alpha' is meant")
    with error if library.is_ours else contextlib.nullcontext():
        opt.aplha = 1


def test_hyperparameter_that_is_no_number(library: Library) -> None:
    error = pytest.raises(TypeError, match="setup")
    with error if library.is_ours else contextlib.nullcontext():
        library.optimizers.Adam([ones()])


def test_two_hyperparameters_more(library: Library) -> None:
    opt = library.optimizers.Adam()
    assert len(opt.hyperparam.get_dict()) == 10
    assert getattr(opt, "eps_mode", None) == ("hat" if library.is_ours else None)
    assert getattr(opt, "decay_mode", None) == ("eta" if library.is_ours else None)
    if library.is_ours:
        modes = {"eps_mode": "paper", "decay_mode": "alpha"}
        assert modes.items() < library.optimizers.Adam(**modes).hyperparam.get_dict().items()


# Files


def test_file_saved_before_the_first_update(library: Library) -> None:
    file = library.save(library.optimizers.Adam().setup(library.link(W=ones())))
    link = library.link(W=ones())
    opt = library.optimizers.Adam().setup(link)
    with contextlib.nullcontext() if library.is_ours else pytest.raises(KeyError):
        library.load(file, opt)
    assert (link.W.update_rule.state is None) == library.is_ours


def test_failed_load_changes_nothing(library: Library) -> None:
    file = library.save(trained(library)[1])
    opt = library.optimizers.AMSGrad().setup(library.link(W=ones()))
    with pytest.raises(KeyError, match="W/vhat"):
        library.load(file, opt)
    assert opt.t == library.says(ours=0, theirs=1)


def test_state_of_another_shape(library: Library) -> None:
    file = library.save(trained(library, n=2)[1])
    opt = library.optimizers.Adam().setup(library.link(W=ones(4)))
    with pytest.raises(ValueError, match="shape") if library.is_ours else contextlib.nullcontext():
        library.load(file, opt)
    assert opt.t == library.says(ours=0, theirs=1)


def test_one_element_is_not_spread_over_many(library: Library) -> None:
    file = library.save(trained(library, n=1)[1])
    _, opt = trained(library, n=4)
    with pytest.raises(ValueError, match="shape") if library.is_ours else contextlib.nullcontext():
        library.load(file, opt)


def test_loaded_state_has_the_parameters_dtype(library: Library) -> None:
    link = library.link(W=ones(dtype="float64"))
    opt = library.optimizers.Adam().setup(link)
    fill_gradients(link)
    opt.update()
    other = library.link(W=ones(dtype="float32"))
    library.load(library.save(opt), library.optimizers.Adam().setup(other))
    dtype = library.says(ours="float32", theirs="float64")
    assert other.W.update_rule.state["m"].dtype == dtype


class Trap:
    """Unpickling it is noticed."""

    sprung = False

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return _spring, ()


def _spring() -> None:
    """Be what a malicious file makes run."""
    Trap.sprung = True


def test_nothing_is_unpickled(library: Library) -> None:
    file = io.BytesIO()
    np.savez(file, W=np.array([Trap(), None], object))
    file.seek(0)
    Trap.sprung = False
    with pytest.raises((TypeError, ValueError)):
        library.load(file, library.link(W=ones()))
    assert Trap.sprung != library.is_ours


# Links and parameters


def test_chain_list_copies_its_own_parameters(library: Library) -> None:
    chain = library.ChainList()
    with chain.init_scope():
        chain.W = library.Parameter(ones())
    chain.copy("copy").W.array[...] = 9
    assert float(chain.W.array[0]) == library.says(ours=1.0, theirs=9.0)


def test_copydata_spreads_nothing(library: Library) -> None:
    target, source = library.Parameter(ones(3)), library.Parameter(ones(1))
    with pytest.raises(ValueError, match="shape") if library.is_ours else contextlib.nullcontext():
        target.copydata(source)


def test_integer_parameter_has_no_nan_gradient(library: Library) -> None:
    class Zeros:
        dtype = np.dtype(np.int32)

        def __call__(self, array: np.ndarray) -> None:
            array[...] = 0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        param = library.Parameter(Zeros(), (2,))
    assert (param.grad is None) == library.is_ours
