"""Saving and loading optimizers: same bits afterwards, and all or nothing."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Adam, AMSBound, AMSGrad, GradientMethod, Link, Parameter, UpdateRule
from fastadam.serializers import (
    DictionarySerializer,
    NpzDeserializer,
    load_hdf5,
    load_npz,
    save_hdf5,
    save_npz,
    serialize,
)

ARGUMENTS: dict[str, Any] = {
    "alpha": 0.03,
    "beta1": 0.8,
    "beta2": 0.95,
    "eps": 1e-6,
    "eta": 0.7,
    "weight_decay_rate": 0.02,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "adam": {},
    "amsgrad": {"amsgrad": True},
    "adabound": {"adabound": True, "final_lr": 0.3, "gamma": 0.05},
    "amsbound": {"adabound": True, "amsgrad": True, "final_lr": 0.3, "gamma": 0.05},
    "modes": {"eps_mode": "paper", "decay_mode": "alpha"},
}
SHAPES: dict[str, tuple[tuple[int, ...], str]] = {
    "W": ((4, 3), "f4"),
    "b": ((5,), "f8"),
    "scale": ((), "f4"),
    "none": ((0, 2), "f8"),
}


def array(name: str, seed: int) -> np.ndarray:
    shape, dtype = SHAPES[name]
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def tree(seed: int = 0) -> dict[str, Any]:
    return {
        "W": array("W", seed),
        "l1": {"b": array("b", seed + 1), "scale": array("scale", seed)},
        "none": array("none", seed),
    }


def link(seed: int = 0, lazy: bool = False) -> Link:
    one = Link()
    with one.init_scope():
        for number, name in enumerate(SHAPES):
            setattr(one, name, Parameter(array(name, seed + number)))
        if lazy:
            one.lazy = Parameter(0)
    return one


def grads_like(target: Any, seed: int) -> Any:
    if isinstance(target, Link):
        return {
            path.strip("/"): None if p.array is None else grads_like(p.array, seed)
            for path, p in target.namedparams()
        }
    if isinstance(target, dict):
        return {key: grads_like(child, seed + i) for i, (key, child) in enumerate(target.items())}
    return np.asarray(np.random.default_rng(seed).standard_normal(target.shape), target.dtype)


def train(opt: Any, first: int, last: int) -> None:
    for step in range(first, last):
        opt.apply_gradients(grads_like(opt.target, 1000 + 10 * step))


def state_of(rule: Any) -> Any:
    return rule.state and {
        key: (a.dtype.str, a.shape, a.tobytes()) if isinstance(a, np.ndarray) else a
        for key, a in rule.state.items()
    }


def snapshot(opt: Any) -> Any:
    """Everything a load or an update may change."""
    rules = {
        path: None if p.update_rule is None else (p.update_rule.t, state_of(p.update_rule))
        for path, p in opt.parameters.items()
    }
    arrays = {
        path: None if p.array is None else p.array.tobytes() for path, p in opt.parameters.items()
    }
    return opt.t, opt.epoch, rules, arrays


def through_npz(compression: bool = True) -> Callable[[Any], Callable[[Any], None]]:
    def save(obj: Any) -> Callable[[Any], None]:
        file = io.BytesIO()
        save_npz(file, obj, compression=compression)

        def load(other: Any) -> None:
            file.seek(0)
            load_npz(file, other)

        return load

    return save


def hdf5_file(obj: Any) -> io.BytesIO:
    pytest.importorskip("h5py", reason="h5py is not installed")
    file = io.BytesIO()
    save_hdf5(file, obj)
    return file


def through_hdf5(obj: Any) -> Callable[[Any], None]:
    file = hdf5_file(obj)

    def load(other: Any) -> None:
        file.seek(0)
        load_hdf5(file, other)

    return load


def through_dictionary(obj: Any) -> Callable[[Any], None]:
    saved = {key: np.array(value, copy=True) for key, value in serialize(obj).items()}
    return lambda other: NpzDeserializer(saved).load(other)


def below_a_path(obj: Any) -> Callable[[Any], None]:
    target: dict[str, Any] = {}
    DictionarySerializer(target)["updater"]["optimizer:main"].save(obj)
    saved = {key: np.array(value, copy=True) for key, value in target.items()}
    assert all(key.startswith("updater/optimizer:main/") for key in saved)
    file = io.BytesIO()
    save_npz(file, saved)

    def load(other: Any) -> None:
        file.seek(0)
        load_npz(file, other, path="updater/optimizer:main/")

    return load


def below_an_hdf5_path(obj: Any) -> Callable[[Any], None]:
    target: dict[str, Any] = {}
    DictionarySerializer(target)["updater"]["optimizer:main"].save(obj)
    file = hdf5_file(target)

    def load(other: Any) -> None:
        file.seek(0)
        load_hdf5(file, other, path="updater/optimizer:main/")

    return load


WAYS = {
    "npz": through_npz(),
    "npz without compression": through_npz(False),
    "dictionary": through_dictionary,
    "below a path": below_a_path,
    "hdf5": through_hdf5,
    "below an HDF5 path": below_an_hdf5_path,
}


@pytest.fixture(params=["npz", "hdf5"])
def through(request: Any) -> Callable[[Any], Callable[[Any], None]]:
    return WAYS[request.param]


def copied(target: Any) -> Any:
    """The parameters as a person restores them: values only."""
    if isinstance(target, dict):
        return {key: copied(child) for key, child in target.items()}
    if isinstance(target, Link):
        twin = link(lazy=hasattr(target, "lazy"))
        for (_, mine), (_, theirs) in zip(twin.namedparams(), target.namedparams(), strict=True):
            mine.array = None if theirs.array is None else theirs.array.copy()
        return twin
    return target.copy()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["arrays", "link"])
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_goes_on_with_the_same_bits(way: str, variant: str, kind: str, used: bool) -> None:
    arguments = {**ARGUMENTS, **VARIANTS[variant]}
    opt = Adam(**arguments).setup(tree() if kind == "arrays" else link())
    opt.set_hyperparam("W", alpha=0.01, weight_decay_rate=0.1)
    train(opt, 0, 5)
    opt.new_epoch()
    load = WAYS[way](opt)
    other = Adam(**arguments).setup(tree(50) if kind == "arrays" else link(50))
    other.set_hyperparam("W", alpha=0.01, weight_decay_rate=0.1)
    if used:
        train(other, 20, 22)
    for path, param in other.parameters.items():
        param.array[...] = opt.parameters[path].array
    states = [dict(p.update_rule.state or {}) for p in other.parameters.values()]
    load(other)
    assert snapshot(other) == snapshot(opt)
    for state, param in zip(states, other.parameters.values(), strict=True):
        # state arrays that were there are the same objects
        assert all(param.update_rule.state[key] is a for key, a in state.items())
        assert bool(state) == used
    before = snapshot(opt)
    for one in (opt, other):
        train(one, 5, 9)
    assert snapshot(other) == snapshot(opt) != before
    assert other.alpha_t == opt.alpha_t


class TestKeys:
    def test_of_a_dict(self) -> None:
        opt = Adam(**ARGUMENTS).setup(tree())
        paths = ["W", "l1/b", "l1/scale", "none"]
        assert set(serialize(opt)) == {"t", "epoch", *(f"{path}/t" for path in paths)}
        train(opt, 0, 3)
        opt.new_epoch()
        saved = serialize(opt)
        rules = {f"{path}/{key}" for path in paths for key in ("t", "m", "v")}
        assert set(saved) == {"t", "epoch"} | rules
        for key, value in {"t": 3, "epoch": 1, "W/t": 3}.items():
            assert (saved[key].dtype, saved[key].shape, int(saved[key])) == ("i8", (), value)
        for path, param in opt.parameters.items():
            for key in ("m", "v"):
                assert saved[f"{path}/{key}"] is param.update_rule.state[key]

    @pytest.mark.parametrize(
        ("make", "keys"),
        [
            (AMSGrad, {"t", "m", "v", "vhat"}),
            (AMSBound, {"t", "m", "v", "vhat"}),
            (Adam, {"t", "m", "v"}),
        ],
    )
    def test_of_one_array(self, make: Any, keys: set[str]) -> None:
        opt = make(0.02).setup(np.ones(3))
        opt.apply_gradients(np.ones(3))
        assert set(serialize(opt)) == {"t", "epoch"} | {f"param/{key}" for key in keys}

    def test_of_links_and_lists(self) -> None:
        chain = fastadam.Chain(l1=fastadam.ChainList(Link(W=2)), s=Link(x=1), lazy=Link(W=None))
        opt = Adam().setup(chain)
        chain.cleargrads()
        opt.update()
        assert set(serialize(opt)) == {
            "t",
            "epoch",
            *(f"{path}/{key}" for path in ("l1/0/W", "s/x") for key in "tmv"),
            "lazy/W/t",
        }
        listed = Adam().setup([np.ones(1), [np.ones(1)]])
        assert set(serialize(listed)) == {"t", "epoch", "0/t", "1/0/t"}

    def test_disabled_rules_and_rules_of_none(self) -> None:
        opt = Adam().setup(tree())
        opt.parameters["W"].update_rule.enabled = False
        opt.parameters["l1/b"].update_rule = None
        train(opt, 0, 2)
        keys = {key for key in serialize(opt) if key.startswith(("W", "l1/b"))}
        assert keys == {"W/t"}
        assert int(serialize(opt)["W/t"]) == 0

    def test_shared_parameter_is_saved_under_both_paths(self) -> None:
        one, two = Link(), Link()
        with one.init_scope(), two.init_scope():
            one.W = two.W = Parameter(np.ones(2))
        chain = fastadam.Chain(one=one, two=two)
        opt = Adam(**ARGUMENTS).setup(chain)
        opt.apply_gradients({"one/W": np.array([1.0, 2.0])})
        saved = serialize(opt)
        assert len(saved) == 8
        for key in "tmv":
            np.testing.assert_array_equal(saved[f"one/W/{key}"], saved[f"two/W/{key}"])
        load = through_npz()(opt)
        before = snapshot(opt)
        opt.apply_gradients({"one/W": np.array([3.0, 4.0])})
        load(opt)
        assert snapshot(opt)[:3] == before[:3]

    def test_npz_needs_no_pickle(self) -> None:
        opt = Adam().setup(link(lazy=True))
        train(opt, 0, 2)
        file = io.BytesIO()
        save_npz(file, opt)
        file.seek(0)
        with np.load(file, allow_pickle=False) as npz:
            assert all(npz[key].dtype.kind in "if" for key in npz.files)


class TestLoadingWhatWasSavedEarly:
    @pytest.mark.parametrize("strict", [True, False])
    def test_before_the_first_update(self, strict: bool) -> None:
        target = tree()
        opt, other = Adam(**ARGUMENTS).setup(target), Adam(**ARGUMENTS).setup(copied(target))
        NpzDeserializer(serialize(opt), strict=strict).load(other)
        assert snapshot(other) == snapshot(opt)
        for one in (opt, other):
            train(one, 0, 3)
        assert snapshot(other) == snapshot(opt)

    def test_before_the_first_update_into_a_used_one(self, through: Any) -> None:
        """Back to the beginning: the old state is gone."""
        target = tree()
        opt, other = Adam(**ARGUMENTS).setup(target), Adam(**ARGUMENTS).setup(copied(target))
        load = through(opt)
        train(other, 20, 23)
        other.new_epoch()
        load(other)
        assert snapshot(other)[:3] == snapshot(opt)[:3]
        for path, param in other.parameters.items():
            param.array[...] = opt.parameters[path].array
        for one in (opt, other):
            train(one, 0, 3)
        assert snapshot(other) == snapshot(opt)

    def test_some_parameters_never_updated(self, through: Any) -> None:
        target = tree()
        opt, other = Adam(**ARGUMENTS).setup(target), Adam(**ARGUMENTS).setup(copied(target))
        for one in (opt, other):
            one.parameters["W"].update_rule.enabled = False
            one.parameters["l1/b"].update_rule = None
        train(opt, 0, 3)
        through(opt)(other)
        assert snapshot(other)[:3] == snapshot(opt)[:3]
        assert other.parameters["W"].update_rule.state is None
        for path, param in other.parameters.items():
            param.array[...] = opt.parameters[path].array
        for one in (opt, other):
            one.parameters["W"].update_rule.enabled = True
            train(one, 3, 6)
        assert snapshot(other) == snapshot(opt)
        assert opt.parameters["W"].update_rule.t == 3

    def test_disabled_later(self, through: Any) -> None:
        target = tree()
        opt, other = Adam(**ARGUMENTS).setup(target), Adam(**ARGUMENTS).setup(copied(target))
        train(opt, 0, 3)
        for one in (opt, other):
            one.parameters["W"].update_rule.enabled = False
        through(opt)(other)
        assert snapshot(other)[:3] == snapshot(opt)[:3]
        assert other.parameters["W"].update_rule.t == 3

    def test_uninitialised_when_saved(self, through: Any) -> None:
        opt = Adam(**ARGUMENTS).setup(link(lazy=True))
        other = Adam(**ARGUMENTS).setup(copied(opt.target))
        train(opt, 0, 3)
        through(opt)(other)
        for path, param in other.parameters.items():
            if param.array is not None:
                param.array[...] = opt.parameters[path].array
        assert snapshot(other) == snapshot(opt)
        for one in (opt, other):
            one.target.lazy.initialize((2, 2))
            train(one, 3, 6)
        assert snapshot(other) == snapshot(opt)
        assert opt.target.lazy.update_rule.t == 3

    def test_initialised_when_saved_but_not_when_loaded(self, through: Any) -> None:
        opt = Adam(**ARGUMENTS, amsgrad=True).setup(link(lazy=True))
        opt.target.lazy.initialize((2, 2))
        train(opt, 0, 3)
        other = Adam(**ARGUMENTS, amsgrad=True).setup(link(lazy=True))
        through(opt)(other)
        assert snapshot(other)[:3] == snapshot(opt)[:3]
        through(opt.target)(other.target)
        assert snapshot(other) == snapshot(opt)
        for one in (opt, other):
            train(one, 3, 6)
        assert snapshot(other) == snapshot(opt)

    @pytest.mark.parametrize("counted", [0, 4])
    def test_chainer_counts_the_updates_of_uninitialised_parameters(self, counted: int) -> None:
        """Such a file has a count, and no state."""
        opt = Adam(**ARGUMENTS).setup(link(lazy=True))
        train(opt, 0, 4)
        saved = {**serialize(opt), "lazy/t": np.array(counted)}
        other = Adam(**ARGUMENTS).setup(link(lazy=True))
        NpzDeserializer(saved).load(other)
        assert other.target.lazy.update_rule.state is None
        other.target.lazy.initialize(3)
        before = other.target.lazy.array.copy()
        train(other, 4, 5)
        assert not np.array_equal(other.target.lazy.array, before)


class TestAllOrNothing:
    """A load that raises has changed nothing, and training goes on."""

    def prepare(self, used: bool, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        source = Adam(**ARGUMENTS, **arguments).setup(tree(7))
        train(source, 0, 4)
        source.new_epoch()
        saved = {key: np.array(value) for key, value in serialize(source).items()}
        opt = Adam(**ARGUMENTS, **arguments).setup(tree())
        if used:
            train(opt, 10, 12)
        return opt, saved

    def refused(self, opt: Any, saved: Any, error: Any, words: str, **options: Any) -> None:
        before = snapshot(opt)
        states = [
            p.update_rule.state and dict(p.update_rule.state) for p in opt.parameters.values()
        ]
        file = io.BytesIO()
        save_npz(file, saved)
        loads: list[tuple[Any, Callable[[], None]]] = [
            (error, lambda: load_npz(io.BytesIO(file.getvalue()), opt, **options)),
            (error, lambda: NpzDeserializer(saved, **options).load(opt)),
        ]
        if importlib.util.find_spec("h5py") is not None:
            hdf5 = io.BytesIO(hdf5_file(saved).getvalue())
            # where a whole group is missing, HDF5's error is a ValueError, as Chainer's
            loads.append(((error, ValueError), lambda: load_hdf5(hdf5, opt, **options)))
        for errors, load in loads:
            with pytest.raises(errors, match=words):
                load()
            assert snapshot(opt) == before
        for state, param in zip(states, opt.parameters.values(), strict=True):
            assert (state is None) == (param.update_rule.state is None)
            assert all(param.update_rule.state[key] is a for key, a in (state or {}).items())
        twin = Adam(**ARGUMENTS).setup(tree())
        twin.amsgrad = opt.amsgrad
        if states[0]:
            train(twin, 10, 12)
        for one in (opt, twin):
            train(one, 12, 14)
        assert snapshot(opt) == snapshot(twin)

    @pytest.mark.parametrize("used", [False, True])
    @pytest.mark.parametrize("key", ["t", "epoch", "W/t", "l1/scale/m", "none/v", "none/t"])
    def test_missing_key(self, used: bool, key: str) -> None:
        opt, saved = self.prepare(used)
        del saved[key]
        self.refused(opt, saved, KeyError, key)

    @pytest.mark.parametrize("used", [False, True])
    @pytest.mark.parametrize("key", ["l1/b/m", "none/v", "l1/scale/m"])
    @pytest.mark.parametrize("strict", [True, False])
    def test_wrong_shape(self, used: bool, key: str, strict: bool) -> None:
        opt, saved = self.prepare(used)
        saved[key] = np.zeros((1,), "f4")
        self.refused(opt, saved, ValueError, f"'{key}'.*\\(1,\\)", strict=strict)

    @pytest.mark.parametrize("used", [False, True])
    @pytest.mark.parametrize("dtype", ["c16", "U3", "M8[s]"])
    def test_wrong_dtype(self, used: bool, dtype: str) -> None:
        opt, saved = self.prepare(used)
        saved["l1/scale/v"] = np.zeros((), dtype)
        self.refused(opt, saved, TypeError, "'l1/scale/v'")

    @pytest.mark.parametrize("used", [False, True])
    @pytest.mark.parametrize("key", ["t", "epoch", "none/t"])
    @pytest.mark.parametrize(
        ("bad", "error"),
        [(np.array(1.5), TypeError), (np.array([1, 2]), ValueError), (np.array("x"), TypeError)],
    )
    def test_bad_counter(self, used: bool, key: str, bad: np.ndarray, error: Any) -> None:
        opt, saved = self.prepare(used)
        saved[key] = bad
        self.refused(opt, saved, error, f"'{key}'")

    @pytest.mark.parametrize("used", [False, True])
    def test_adam_file_into_amsgrad(self, used: bool) -> None:
        opt, saved = self.prepare(used)
        opt = Adam(**ARGUMENTS, amsgrad=True).setup(tree())
        if used:
            train(opt, 10, 12)
        self.refused(opt, saved, KeyError, "vhat")

    def test_file_of_another_model(self) -> None:
        opt, _ = self.prepare(True)
        other = Adam().setup({"X": np.ones(3)})
        train(other, 0, 2)
        self.refused(opt, dict(serialize(other)), KeyError, "W/t")

    def test_whole_file_broken(self) -> None:
        opt, saved = self.prepare(True)
        file = io.BytesIO()
        save_npz(file, saved)
        before = snapshot(opt)
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever zipfile says
            load_npz(io.BytesIO(file.getvalue()[:-100]), opt)
        assert snapshot(opt) == before


class TestNotStrict:
    def test_missing_keys_are_left(self) -> None:
        source = Adam(**ARGUMENTS).setup(tree(7))
        train(source, 0, 4)
        saved = {k: np.array(v) for k, v in serialize(source).items() if not k.startswith("l1/b/")}
        del saved["epoch"]
        opt = Adam(**ARGUMENTS).setup(tree())
        train(opt, 10, 12)
        opt.new_epoch()
        before = snapshot(opt)
        NpzDeserializer(saved, strict=False).load(opt)
        after, expected = snapshot(opt), snapshot(source)
        assert after[:2] == (4, 1)
        assert after[2] == {**expected[2], "l1/b": before[2]["l1/b"]}
        assert after[3] == before[3]

    def test_ignored_names(self) -> None:
        source = Adam(**ARGUMENTS).setup(tree(7))
        train(source, 0, 4)
        saved = {k: np.array(v) for k, v in serialize(source).items()}
        saved["W/m"] = np.zeros(99)
        opt = Adam(**ARGUMENTS).setup(tree())
        train(opt, 10, 12)
        before = snapshot(opt)[2]["W"]
        NpzDeserializer(saved, ignore_names=["t", lambda key: key.startswith("W/")]).load(opt)
        assert opt.t == 2
        assert snapshot(opt)[2] == {**snapshot(source)[2], "W": before}

    @pytest.mark.parametrize("used", [False, True])
    def test_adam_file_into_amsgrad(self, used: bool) -> None:
        """The maximum begins anew, as when amsgrad is switched on."""
        source = Adam(**ARGUMENTS).setup(tree())
        train(source, 0, 4)
        opt = Adam(**ARGUMENTS, amsgrad=True).setup(copied(source.target))
        load = through_npz()(source)
        if used:
            opt = Adam(**ARGUMENTS).setup(copied(source.target))
            load(opt)
            opt.amsgrad = True
        else:
            NpzDeserializer(serialize(source), strict=False).load(opt)
        source.amsgrad = True
        for one in (source, opt):
            train(one, 4, 8)
        assert snapshot(opt) == snapshot(source)
        assert "vhat" in opt.parameters["W"].update_rule.state


def test_amsgrad_file_into_adam_leaves_vhat() -> None:
    source = AMSGrad(0.03, 0.8, 0.95).setup(tree())
    train(source, 0, 4)
    opt = Adam(0.03, 0.8, 0.95).setup(copied(source.target))
    through_npz()(source)(opt)
    for path, param in opt.parameters.items():
        expected = state_of(source.parameters[path].update_rule)
        del expected["vhat"]
        assert state_of(param.update_rule) == expected


@pytest.mark.parametrize("used", [False, True])
def test_amsgrad_switched_on_late_is_saved_and_loaded(used: bool) -> None:
    opt = Adam(**ARGUMENTS).setup(tree())
    train(opt, 0, 3)
    opt.amsgrad = True
    train(opt, 3, 6)
    other = Adam(**ARGUMENTS).setup(copied(opt.target))
    if used:
        train(other, 10, 12)
        for path, param in other.parameters.items():
            param.array[...] = opt.parameters[path].array
    other.amsgrad = True
    through_npz()(opt)(other)
    assert snapshot(other) == snapshot(opt)
    for one in (opt, other):
        train(one, 6, 9)
    assert snapshot(other) == snapshot(opt)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8", "i4"])
def test_state_is_converted_to_the_parameters_dtype(dtype: str) -> None:
    source = Adam(**ARGUMENTS).setup(np.ones(3))
    train(source, 0, 2)
    saved = {k: np.array(v) for k, v in serialize(source).items()}
    m = saved["param/m"] = np.array([1, 2, 3], dtype)
    for used in (False, True):
        opt = Adam(**ARGUMENTS).setup(np.ones(3, "f4"))
        if used:
            train(opt, 5, 6)
        NpzDeserializer(saved).load(opt)
        state = opt.parameters["param"].update_rule.state
        np.testing.assert_array_equal(state["m"], m.astype("f4"))
        assert {a.dtype.str for a in state.values()} == {np.dtype("f4").str}
        train(opt, 6, 7)
        assert opt.t == 3


@pytest.mark.parametrize("layout", ["F", "strided"])
def test_layout_of_the_state_does_not_matter(layout: str) -> None:
    base = np.random.default_rng(3).standard_normal((8, 6))
    p = np.asfortranarray(base) if layout == "F" else np.repeat(base, 2, 0)[::2]
    opt, other = Adam(**ARGUMENTS).setup({"p": p}), Adam(**ARGUMENTS).setup({"p": p.copy("K")})
    train(opt, 0, 3)
    other.target["p"][...] = p
    through_npz()(opt)(other)
    for one in (opt, other):
        train(one, 3, 6)
    assert snapshot(other) == snapshot(opt)


class MomentumRule(UpdateRule):
    """A user's rule whose state has an array and a number."""

    def init_state(self, param: Any) -> None:
        self.state["u"] = np.zeros_like(param.array)
        self.state["n"] = 0
        self.state["sum"] = 0.0

    def update_core(self, param: Any) -> None:
        self.state["u"] *= 0.5
        self.state["u"] += param.grad
        self.state["n"] += 2
        self.state["sum"] += float(param.grad.sum())
        param.array -= 0.25 * self.state["u"]


class Momentum(GradientMethod):
    def create_update_rule(self) -> UpdateRule:
        return MomentumRule(self.hyperparam)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("used", [False, True])
def test_users_rule_with_state(way: str, used: bool) -> None:
    opt = Momentum().setup(tree())
    train(opt, 0, 3)
    other = Momentum().setup(copied(opt.target))
    if used:
        train(other, 10, 12)
        for path, param in other.parameters.items():
            param.array[...] = opt.parameters[path].array
    WAYS[way](opt)(other)
    for one in (opt, other):
        train(one, 3, 6)
    assert snapshot(other) == snapshot(opt)
    state = other.parameters["W"].update_rule.state
    assert (type(state["n"]), state["n"], type(state["sum"])) == (int, 12, float)


def test_rule_with_its_own_serialize() -> None:
    class Rule(MomentumRule):
        extra = 1

        def serialize(self, serializer: Any) -> None:
            super().serialize(serializer)
            self.extra = serializer("extra", self.extra)

    class Mine(Momentum):
        def create_update_rule(self) -> UpdateRule:
            return Rule(self.hyperparam)

    opt, other = Mine().setup(tree()), Mine().setup(tree())
    train(opt, 0, 3)
    opt.parameters["W"].update_rule.extra = 5
    through_npz()(opt)(other)
    assert other.parameters["W"].update_rule.extra == 5
    assert snapshot(other)[:3] == snapshot(opt)[:3]


def test_one_rule_by_itself() -> None:
    rules = [fastadam.AdamRule(**ARGUMENTS, amsgrad=True) for _ in range(2)]
    params = [Parameter(np.linspace(-1, 1, 7)) for _ in range(2)]
    for step in range(3):
        params[0].grad = np.random.default_rng(step).standard_normal(7)
        rules[0].update(params[0])
    params[1].array[...] = params[0].array
    through_npz()(rules[0])(rules[1])
    assert (rules[1].t, state_of(rules[1])) == (3, state_of(rules[0]))
    for rule, param in zip(rules, params, strict=True):
        param.grad = np.ones(7)
        rule.update(param)
    np.testing.assert_array_equal(params[0].array, params[1].array)
    assert state_of(rules[0]) == state_of(rules[1])


def test_subclass_that_saves_more() -> None:
    class Mine(Adam):
        best = 0.0

        def serialize(self, serializer: Any) -> None:
            super().serialize(serializer)
            self.best = serializer("best", self.best)

    opt, other = Mine(**ARGUMENTS).setup(tree()), Mine(**ARGUMENTS).setup(tree())
    train(opt, 0, 2)
    opt.best = 0.75
    through_npz()(opt)(other)
    assert (other.best, other.t) == (0.75, 2)


def test_parameters_that_appeared_late_are_saved() -> None:
    target = {"a": np.ones(2)}
    opt = Adam(**ARGUMENTS).setup(target)
    train(opt, 0, 2)
    target["b"] = np.ones(3)
    train(opt, 2, 4)
    assert int(serialize(opt)["b/t"]) == 2
    other = Adam(**ARGUMENTS).setup(copied(target))
    through_npz()(opt)(other)
    for one in (opt, other):
        train(one, 4, 6)
    assert snapshot(other) == snapshot(opt)
