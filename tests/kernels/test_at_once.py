"""Steps made in one call of C: made or refused as the longer way does, in every bit and word."""

from __future__ import annotations

import itertools
import os
import sys
import types
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastadam
from fastadam import AdamRule, Parameter, adam_step
from fastadam.kernels import step as steps
from fastadam.kernels.cpu._single import lie_apart
from fastadam.optimizers import adam_rule

Array = np.ndarray[Any, Any]
PACKAGE = os.path.dirname(fastadam.__file__)

DTYPES = [*["f4", "f8"] * 4, "f2", "f2", ">f4", "i4", "longdouble"]
SHAPES = [(5,), (6,), (3, 4), (2, 1, 3), (), (0,), (1,)]


def never(*arguments: Any) -> bool:
    """Make no step at once."""
    return False


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note for every step whether it was made at once."""
    noted: list[bool] = []
    real = steps.at_once

    def noting(*arguments: Any) -> bool:
        noted.append(real(*arguments))
        return noted[-1]

    monkeypatch.setattr(steps, "at_once", noting)
    monkeypatch.setattr(adam_rule, "at_once", noting)
    return noted


@st.composite
def arrays(draw: Any) -> list[Any]:
    """p, g, m, v and vhat, mostly as they should be."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.sampled_from(SHAPES))
    order = draw(st.sampled_from("CCF"))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    state = "f8" if dtype in ("f8", "i4", "longdouble") else "f4"
    wanted = [dtype, draw(st.sampled_from([dtype, dtype, "f4", "f8", "f2"])), state, state, state]
    found: list[Any] = [
        np.array(np.abs(random.standard_normal(shape)), kind, order=order) for kind in wanted
    ]
    i = draw(st.integers(0, 4))
    k = draw(st.integers(0, 4))
    match draw(st.integers(0, 40)):
        case 0:
            found[i] = found[k]
        case 1:
            found[i] = None
        case 2:
            found[i].flags.writeable = False
        case 3:
            found[i] = np.ma.array(found[i])
        case 4:
            found[i] = np.zeros((*shape, 2), wanted[i])[..., 0]
        case 5:
            found[i] = np.asfortranarray(np.ones((4, 3), wanted[i]))
        case 6:
            found[i] = found[i][..., ::-1] if shape else found[i]
        case 7:
            found[i] = found[i].tolist()
        case 8:
            found[i] = found[i].view(type("Own", (np.ndarray,), {}))
        case 9:
            found[i] = np.zeros(found[i].nbytes + 1, "u1")[1:].view(wanted[i]).reshape(shape)
        case 10 if len(shape) == 1:
            block = np.ones(2 * shape[0] + 1, wanted[i])
            found[i] = block[: shape[0]]
            start = draw(st.integers(0, shape[0] + 1))
            found[k] = block[start : start + shape[0]]
        case 11:
            found[i] = np.broadcast_to(np.ones((), wanted[i]), shape)
    if draw(st.booleans()):
        found[4] = None
    return found


NUMBERS = st.one_of(
    st.floats(0, 1),
    st.sampled_from([0.9, 0.5, 0, 1, True, 1e-320, 1e-40, 1e38, 1e300, np.inf, np.nan, -0.5, -0.0]),
    st.sampled_from(
        [np.float64(0.25), np.float32(0.5), np.array(0.5), Fraction(1, 3), "0.5", None]
    ),
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("alpha", "beta1", "beta2", "eps", "eta"), NUMBERS),
        **dict.fromkeys(("weight_decay_rate", "final_lr", "gamma", "initial_alpha"), NUMBERS),
        "adabound": st.sampled_from([False, True, 1, 0, "yes", np.True_]),
        "eps_mode": st.sampled_from(["hat", "paper", "other", None]),
        "decay_mode": st.sampled_from(["eta", "alpha", 3]),
    },
)
# what an update may well be given
PART = st.floats(0.01, 0.99)
PLAIN = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("alpha", "beta1", "beta2", "eps", "eta", "final_lr", "gamma"), PART),
        "weight_decay_rate": PART,
        "initial_alpha": PART,
        "adabound": st.booleans(),
        "eps_mode": st.sampled_from(["hat", "paper"]),
        "decay_mode": st.sampled_from(["eta", "alpha"]),
    },
)
COUNTS = st.one_of(
    st.integers(1, 1000),
    st.integers(1, 5),
    st.sampled_from([0, -1, 1.0, 1.5, True, np.int64(3), 2**63, 2**62, "1", None, 10**9]),
)


def outcome(call: Callable[[], object]) -> tuple[type[Exception], str] | None:
    """Return the type and the words of an error, None if there is none."""
    try:
        call()
    except Exception as error:
        return type(error), str(error)
    return None


def copied(given: list[Any]) -> list[Any]:
    """Copy arrays together, so that what shares memory goes on to do so."""
    memo: dict[int, Any] = {}

    def copy(array: Any) -> Any:
        if not isinstance(array, np.ndarray):
            return array
        base = array
        while isinstance(base.base, np.ndarray):
            base = base.base
        new = memo.setdefault(id(base), base.copy(order="K"))
        offset = array.ctypes.data - base.ctypes.data
        view: Any = np.ndarray(array.shape, array.dtype, new.data, offset, array.strides)
        view = view.view(type(array)) if type(array) is not np.ma.MaskedArray else np.ma.array(view)
        view.flags.writeable = array.flags.writeable
        return view

    return [copy(each) for each in given]


def contents(given: list[Any]) -> list[Any]:
    return [each.tobytes() if isinstance(each, np.ndarray) else each for each in given]


@settings(max_examples=1500, deadline=None)
@given(arrays(), st.one_of(PLAIN, PLAIN, OPTIONS), COUNTS)
def test_as_the_longer_way(given_arrays: list[Any], options: Any, t: Any) -> None:
    one, other = copied(given_arrays), copied(given_arrays)
    real = steps.at_once
    steps.at_once = never  # type: ignore[assignment]
    try:
        with np.errstate(all="ignore"):
            expected = outcome(lambda: adam_step(*other, t=t, **options))
    finally:
        steps.at_once = real
    with np.errstate(all="ignore"):
        found = outcome(lambda: adam_step(*one, t=t, **options))
    assert found == expected
    assert contents(one) == contents(other)


def four(n: int = 3, dtype: Any = "f4") -> list[Array]:
    state = "f8" if dtype == "f8" else "f4"
    return [np.ones(n, dtype), np.full(n, 0.5, dtype), np.zeros(n, state), np.zeros(n, state)]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_plain_steps_are_made_at_once(dtype: str, at_once: list[bool]) -> None:
    adam_step(*four(10, dtype), t=1)
    adam_step(*four(10, dtype), np.zeros(10, "f8" if dtype == "f8" else "f4"), t=2, alpha=1)
    adam_step(*four(10, dtype), t=3, adabound=True, initial_alpha=0.5, eps_mode="paper")
    p, g, m, v = (np.asfortranarray(np.ones((3, 4), each.dtype)) for each in four(1, dtype))
    adam_step(p.T, g.T, m.T, v.T, t=4, beta1=np.float64(0.5), eps=Fraction(1, 8))
    # as far as one thread goes
    adam_step(*four(32767, dtype), t=5)
    p, g, m, v = four(10, dtype)
    adam_step(p, g.astype("f8"), m, v, t=6)
    assert at_once == [True] * 6


def test_a_step_of_another_number_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of numbers is everybody's: another thread may make its step meanwhile."""
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="needs ml_dtypes, which has bfloat16")
    dtype = ml_dtypes.bfloat16

    def stepped(t: int) -> bytes:
        p, m, v = np.ones(10, dtype), np.zeros(10, "f4"), np.zeros(10, "f4")
        adam_step(p, (np.arange(1, 11) / 7).astype(dtype), m, v, t=t)
        return p.tobytes()

    class Between(types.ModuleType):
        """Makes another step when it is asked for its type."""

        asked = False

        @property
        def bfloat16(self) -> Any:
            if not self.asked:
                self.asked = True
                stepped(1000)
            return dtype

    expected = stepped(1)
    stepped(1)
    monkeypatch.setitem(sys.modules, "ml_dtypes", Between("ml_dtypes"))
    assert stepped(1) == expected


def test_what_is_unusual_is_not(at_once: list[bool]) -> None:
    p, g, m, v = four(8)
    adam_step(*four(32768), t=1)
    adam_step(*four(0), t=1)
    adam_step(p, p, m, v, t=1)
    adam_step(p[::2], g[::2], m[::2], v[::2], t=1)
    adam_step(p, g, m, v, t=np.int64(1))
    adam_step(p, g[::-1], m, v, t=1)
    adam_step(p, g.astype("g"), m, v, t=1)
    assert at_once == [False] * 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eps": 1e-40}, "eps = 1e-40 is too small for float32"),
        ({"alpha": 1e40}, "alpha is too large for float32"),
        ({"eta": -1e39}, "eta is too large for float32"),
        ({"t": True}, "t is the number of this step"),
        ({"beta1": 1.0}, "beta1 must be at least 0 and below 1"),
    ],
)
def test_numbers_that_no_step_has(options: Any, words: str, at_once: list[bool]) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        adam_step(*four(), **{"t": 1, **options})
    assert at_once == [False]


def test_arrays_that_share_memory_are_refused_whatever_their_sizes() -> None:
    block = np.zeros(8, np.float32)
    v = np.zeros(4, np.float32)
    for dtype in ("f2", "f4"):
        with pytest.raises(ValueError, match="its array and its m share memory"):
            adam_step(block[:4], np.ones(4, dtype), block[3:7], v, t=1)
        with pytest.raises(ValueError, match="its m and its v share memory"):
            adam_step(v, np.ones(4, dtype), block[3:7], block[:4], t=1)


def test_bfloat16(at_once: list[bool]) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    adam_step(*four(5, bfloat16), t=1)
    adam_step(np.ones(5, "f4"), np.ones(5, bfloat16), np.zeros(5, "f4"), np.zeros(5, "f4"), t=1)
    assert at_once == [True, True]


def stepped(**options: Any) -> list[bytes]:
    """Make a step the longer way."""
    real = steps.at_once
    steps.at_once = never  # type: ignore[assignment]
    try:
        fresh = four()
        adam_step(*fresh, **options)
    finally:
        steps.at_once = real
    return contents(fresh)


def test_what_is_remembered_is_what_was_given(at_once: list[bool]) -> None:
    """Sets that come and go, beside others, with counts that go on and back."""
    sets: list[dict[str, Any]] = [
        {},
        {"alpha": 0.5},
        {"alpha": 0.5, "adabound": True},
        # the bounds are close
        {"alpha": 0.5, "adabound": True, "gamma": 1.0, "initial_alpha": 0.25},
        {"alpha": 0.5, "adabound": True, "gamma": 1.0, "initial_alpha": 0.125},
        {"decay_mode": "alpha", "weight_decay_rate": 0.5},
        {"eps_mode": "paper", "eps": 0.5},
    ]
    random = np.random.default_rng(1)
    for _ in range(200):
        options = {**sets[random.integers(len(sets))], "t": int(random.integers(1, 4))}
        now = four()
        adam_step(*now, **options)
        assert contents(now) == stepped(**options)
    assert all(at_once)


def test_numbers_that_change_where_they_are_are_read_anew() -> None:
    alpha = np.array(0.5)
    for value in (0.5, 0.25, 0.125):
        alpha[...] = value
        now = four()
        adam_step(*now, t=1, alpha=alpha)  # type: ignore[arg-type]
        assert contents(now) == stepped(t=1, alpha=value)

    class Growing:
        value = 0.0

        def __float__(self) -> float:
            return self.value

    growing: Any = Growing()
    for value in (0.5, 0.25):
        growing.value = value
        now = four()
        adam_step(*now, t=1, alpha=growing)
        assert contents(now) == stepped(t=1, alpha=value)


def test_numbers_that_have_gone_are_not_taken_for_others() -> None:
    """A new float may have the address of one that nobody holds."""
    for i in range(1, 300):
        now = four()
        adam_step(*now, t=1, alpha=1 / i)
        assert contents(now) == stepped(t=1, alpha=1 / i)


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        (slice(0, 4), slice(4, 8), True),
        (slice(0, 5), slice(4, 8), False),
        (slice(4, 8), slice(0, 5), False),
        (slice(5, 8), slice(0, 5), True),
        (slice(0, 8, 2), slice(1, 8, 2), False),
        (slice(0, 8), slice(2, 3), False),
    ],
)
def test_arrays_that_lie_apart(one: slice, other: slice, apart: bool) -> None:
    block = np.zeros(8)
    assert lie_apart(block[one], [np.zeros(3), block[other]]) is apart
    assert lie_apart(block[one], []) is (one.step is None)
    assert not lie_apart([1.0], [block])
    assert not lie_apart(np.zeros(2), [block, None])


def ruled(dtype: str, **options: Any) -> tuple[AdamRule, Parameter]:
    rule, param = AdamRule(**options), Parameter(np.linspace(1, 2, 6).astype(dtype))
    param.update_rule = rule
    param.grad = np.linspace(-1, 1, 6).astype(dtype)
    return rule, param


def test_rules_make_the_same_steps(at_once: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [{}, {"amsgrad": True}, {"adabound": True, "alpha": 0.5}, {"eps_mode": "paper"}]
    for dtype, options in itertools.product(["f2", "f4", "f8"], flags):
        (one, a), (two, b) = ruled(dtype, **options), ruled(dtype, **options)
        for _ in range(4):
            one.update(a)
            with monkeypatch.context() as patch:
                patch.setattr(adam_rule, "at_once", never)
                two.update(b)
            if options.get("adabound"):
                one.hyperparam.alpha = two.hyperparam.alpha = 0.125
        assert a.array.tobytes() == b.array.tobytes()
        assert one.state is not None
        assert two.state is not None
        assert {k: v.tobytes() for k, v in one.state.items()} == {
            k: v.tobytes() for k, v in two.state.items()
        }
        assert (one.t, one._stepped_at) == (two.t, two._stepped_at) == (4, 4)
    assert at_once == [True] * 48


def test_flags_that_are_switched_off_and_on(at_once: list[bool]) -> None:
    rule, param = ruled("f4", amsgrad=True)
    rule.update(param)
    assert rule.state is not None
    held = {key: array.copy() for key, array in rule.state.items()}
    rule.hyperparam.amsgrad = False
    rule.update(param)
    late = [key for key in held if np.array_equal(held[key], rule.state[key])]
    assert late == list(fastadam.algorithms.adam.ADAM.late)
    assert at_once == [True, True]
    # what is missing is made, the longer way
    rule, param = ruled("f4")
    rule.update(param)
    rule.hyperparam.amsgrad = True
    rule.update(param)
    rule.update(param)
    assert at_once[2:] == [True, False, True]


def test_a_gradient_that_is_a_master_is_not_divided_where_it_is() -> None:
    found = []
    for copies in (False, True):
        rule, param = ruled("f2")
        rule.use_fp32_update()
        rule.update(param)
        master = rule._fp32_param.array
        param.grad = master.copy() if copies else master
        param._loss_scale = 2.0
        rule.update(param)
        found.append((param.array.tobytes(), rule._fp32_param.array.tobytes()))
    assert found[0] == found[1]


def test_what_a_class_has_of_its_own_is_asked(at_once: list[bool]) -> None:
    class Slow(AdamRule):
        @property
        def alpha_t(self) -> float:
            return 0.25

    class Bound(AdamRule):
        @property
        def bounds(self) -> tuple[float, float]:
            return 0.0, 0.0

    for kind in (Slow, Bound):
        rule, param = kind(adabound=True), Parameter(np.ones(3))
        param.grad = np.ones(3)
        rule.update(param)
    np.testing.assert_array_equal(param.array, np.ones(3))
    assert at_once == []

    class Bag(fastadam.Hyperparameter):
        alpha = 0.5

    bag = Bag()
    bag.beta1, bag.beta2, bag.eps, bag.eta, bag.weight_decay_rate = 0.5, 0.5, 0.1, 1.0, 0.0
    bag.amsgrad = bag.adabound = False
    rule, param = AdamRule(bag), Parameter(np.ones(3))
    param.grad = np.ones(3)
    with pytest.raises(ValueError, match="no hyperparameter 'alpha'"):
        rule.update(param)
    assert at_once == []


def test_a_rule_with_a_hook_calls_little() -> None:
    rule, param = ruled("f4")
    rule.add_hook(lambda rule, param: None, "nothing")
    rule.update(param)
    found = 0

    def note(frame: types.FrameType, event: str, argument: object) -> None:
        nonlocal found
        found += event == "call" and frame.f_code.co_filename.startswith(PACKAGE)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        rule.update(param)
    finally:
        sys.setprofile(before)
    if "cupy" not in sys.modules:
        assert found <= 20
