"""What a batch keeps between updates: every change is noticed, and nothing is gathered in vain."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastadam import AdaBound, Adam, AdamW, AMSBound, Chain, Link, Parameter
from fastadam.optimizers.adam_rule import AdamRule

NUMBERS = {"alpha": 0.05, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "eta": 0.7}
SHAPES: dict[str, tuple[int, ...]] = {"a": (3, 4), "b": (5,), "c": (), "d": (2, 0), "e": (7, 2)}


def values(seed: int, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


class Pair:
    """One optimizer that may keep what it finds, and one that forgets it before every update."""

    def __init__(self, make: Callable[[], Any], target: Callable[[], Any]) -> None:
        self.targets = target(), target()
        self.opts = [make().setup(each) for each in self.targets]
        self.step = 0
        # all that the first has made
        self.plans: list[Any] = []

    def each(self, change: Callable[[Any, Any], Any]) -> None:
        """Do the same to both."""
        for opt, target in zip(self.opts, self.targets, strict=True):
            change(opt, target)

    def update(self) -> None:
        """Make the same update with both, and compare every bit."""
        self.step += 1
        self.opts[1]._plan = None
        for opt in self.opts:
            grads = {
                path: values(self.step, param.array.shape, param.array.dtype)
                for path, param in opt.parameters.items()
            }
            if isinstance(opt.target, Link):
                for path, param in opt.parameters.items():
                    param.grad = grads[path]
                opt.update()
            else:
                opt.apply_gradients(grads)
        assert self.bits(0) == self.bits(1)
        if not self.plans or self.opts[0]._plan is not self.plans[-1]:
            self.plans.append(self.opts[0]._plan)

    def bits(self, i: int) -> dict[str, Any]:
        """Everything that an update changes."""
        opt = self.opts[i]
        found: dict[str, Any] = {"t": opt.t, "report": opt.last_update}
        for path, param in opt.parameters.items():
            rule = param.update_rule
            found[path] = param.array.tobytes()
            if rule is not None:
                state = {} if rule.state is None else rule.state
                found[f"{path}:t"] = rule.t
                found |= {f"{path}:{key}": array.tobytes() for key, array in state.items()}
        return found


def arrays() -> dict[str, np.ndarray]:
    return {key: values(i, shape) for i, (key, shape) in enumerate(SHAPES.items())}


def chain() -> Chain:
    model = Chain(l1=Link(), l2=Link())
    for name, link in (("W", model.l1), ("b", model.l2)):
        with link.init_scope():
            setattr(link, name, Parameter(values(ord(name), (4, 3))))
    return model


def make(**more: Any) -> Callable[[], Any]:
    return lambda: AdamW(**NUMBERS, weight_decay_rate=0.01, **more)


@pytest.mark.parametrize("target", [arrays, chain])
def test_nothing_is_gathered_twice(target: Callable[[], Any]) -> None:
    pair = Pair(make(), target)
    for _ in range(20):
        pair.update()
    assert len(pair.plans) == 1


def test_schedules_gather_nothing() -> None:
    pair = Pair(make(), arrays)
    for step in range(10):
        pair.each(lambda opt, _, step=step: setattr(opt, "alpha", 0.1 / (step + 1)))
        pair.update()
    assert len(pair.plans) == 1


def set_array(opt: Any, target: Any) -> None:
    target["a"] = values(50, (3, 4))


def set_array_of_the_parameter(opt: Any, target: Any) -> None:
    opt.parameters["a"].array = values(50, (3, 4))


def reshape_everything(opt: Any, target: Any) -> None:
    state = opt.parameters["e"].update_rule.state
    for array in (target["e"], *state.values()):
        array.resize((2, 7), refcheck=False)  # of the same size: in its place


def replace_state(opt: Any, target: Any) -> None:
    state = opt.parameters["b"].update_rule.state
    state["m"] = state["m"] + 1


def forget_state(opt: Any, target: Any) -> None:
    opt.parameters["b"].update_rule._state = None


def count_by_hand(opt: Any, target: Any) -> None:
    opt.parameters["b"].update_rule.t = 90


def count_of_the_optimizer(opt: Any, target: Any) -> None:
    opt.t = 17


def disable(opt: Any, target: Any) -> None:
    opt.parameters["a"].update_rule.enabled = False


def no_rule(opt: Any, target: Any) -> None:
    opt.parameters["a"].update_rule = None


def another_rule(opt: Any, target: Any) -> None:
    opt.parameters["a"].update_rule = AdamRule(opt.hyperparam, alpha=0.5)


def override(opt: Any, target: Any) -> None:
    opt.set_hyperparam("a", alpha=0.3)


def one_alpha_of_a_rule(opt: Any, target: Any) -> None:
    opt.parameters["b"].update_rule.hyperparam.alpha = 0.2


def amsgrad(opt: Any, target: Any) -> None:
    opt.amsgrad = True


def adabound(opt: Any, target: Any) -> None:
    opt.adabound = True


def amsgrad_of_one(opt: Any, target: Any) -> None:
    opt.set_hyperparam("e", amsgrad=True, adabound=True)


def eps_mode(opt: Any, target: Any) -> None:
    opt.eps_mode = "paper"


def new_key(opt: Any, target: Any) -> None:
    target["new"] = values(51, (4,))


def removed_key(opt: Any, target: Any) -> None:
    del target["b"]


def other_order(opt: Any, target: Any) -> None:
    target["a"] = target.pop("a")


def optimizer_hook(opt: Any, target: Any) -> None:
    opt.add_hook(double, "double")


def rule_hook(opt: Any, target: Any) -> None:
    opt.parameters["b"].update_rule.add_hook(double_one, "double")


def monitor(opt: Any, target: Any) -> None:
    opt.monitor = True


def nonfinite(opt: Any, target: Any) -> None:
    opt.on_nonfinite = "skip"


def dynamic(opt: Any, target: Any) -> None:
    opt.loss_scaling(interval=4)


def own_method_of_a_rule(opt: Any, target: Any) -> None:
    opt.parameters["b"].update_rule.update_core = lambda param: None


def own_method_of_the_optimizer(opt: Any, target: Any) -> None:
    opt.call_hooks = lambda timing: None


def set_up_again(opt: Any, target: Any) -> None:
    opt.setup(target)


def strided(opt: Any, target: Any) -> None:
    target["e"] = values(52, (14, 2))[::2]


def double(opt: Any) -> None:
    for param in opt.parameters.values():
        param.grad *= 2


def double_one(rule: Any, param: Any) -> None:
    param.grad *= 2


CHANGES = [
    set_array,
    set_array_of_the_parameter,
    reshape_everything,
    replace_state,
    forget_state,
    count_by_hand,
    count_of_the_optimizer,
    disable,
    no_rule,
    another_rule,
    override,
    one_alpha_of_a_rule,
    amsgrad,
    adabound,
    amsgrad_of_one,
    eps_mode,
    new_key,
    removed_key,
    other_order,
    optimizer_hook,
    rule_hook,
    monitor,
    nonfinite,
    dynamic,
    own_method_of_a_rule,
    own_method_of_the_optimizer,
    set_up_again,
    strided,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_change_is_noticed(change: Callable[[Any, Any], None]) -> None:
    pair = Pair(make(), arrays)
    for _ in range(3):
        pair.update()
    pair.each(change)
    for _ in range(4):
        pair.update()


@pytest.mark.parametrize("seed", range(30))
def test_random_changes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kind = [Adam, AMSBound][seed % 2]
    pair = Pair(lambda: kind(**NUMBERS), arrays)
    harmless = [c for c in CHANGES if c not in (removed_key, own_method_of_a_rule)]
    done: set[Any] = set()
    for _ in range(25):
        if rng.random() < 0.4:
            change = harmless[rng.integers(len(harmless))]
            if change not in done:
                done.add(change)
                try:
                    pair.each(change)
                except (AttributeError, KeyError, TypeError, ValueError):
                    # it makes no sense after the others; it was refused by both
                    continue
        pair.update()


def test_in_a_link() -> None:
    pair = Pair(make(), chain)
    for _ in range(3):
        pair.update()

    def add(opt: Any, target: Any) -> None:
        with target.init_scope():
            target.late = Link(W=(2,))
        target.late.W.array[...] = 1

    def replace(opt: Any, target: Any) -> None:
        with target.l1.init_scope():
            target.l1.W = Parameter(values(77, (4, 3)))

    def rebind(opt: Any, target: Any) -> None:
        target.l2.b.array = values(78, (4, 3))

    def remove(opt: Any, target: Any) -> None:
        del target.late

    def disable_one(opt: Any, target: Any) -> None:
        target.l1.disable_update()

    def copy_in(opt: Any, target: Any) -> None:
        target.l2.b.copydata(Parameter(values(79, (4, 3))))

    for change in (add, replace, rebind, disable_one, copy_in, remove):
        pair.each(change)
        for _ in range(3):
            pair.update()


def test_gradients_of_other_kinds_between() -> None:
    """A gradient of another dtype, layout or library takes the longer way, and is right."""
    pair = Pair(make(), arrays)
    pair.update()
    kinds: list[Callable[[np.ndarray], Any]] = [
        lambda g: g,
        lambda g: g.astype(np.float64),
        lambda g: g.copy(order="F"),
        lambda g: np.broadcast_to(np.float32(0.5), g.shape),
        lambda g: None,
        lambda g: g.astype(">f4"),
        lambda g: g.tolist() if g.ndim == 0 else g,
    ]
    for round_ in range(3):
        for kind in kinds:
            pair.opts[1]._plan = None
            for opt in pair.opts:
                grads = {key: kind(values(round_, shape)) for key, shape in SHAPES.items()}
                opt.apply_gradients(grads)
            assert pair.bits(0) == pair.bits(1)


def test_a_gradient_that_is_a_parameter_is_read_as_it_was() -> None:
    pair = Pair(make(), lambda: {"a": values(1, (6,)), "b": values(2, (6,))})
    pair.update()
    for _ in range(3):
        pair.opts[1]._plan = None
        for opt, target in zip(pair.opts, pair.targets, strict=True):
            opt.apply_gradients({"a": target["b"], "b": target["a"]})
        assert pair.bits(0) == pair.bits(1)


def test_a_refused_array_is_refused_again() -> None:
    pair = Pair(make(), arrays)
    pair.update()
    pair.targets[0]["a"].flags.writeable = False
    before = pair.bits(0)
    grads = {key: values(9, shape) for key, shape in SHAPES.items()}
    for _ in range(2):
        with pytest.raises(ValueError, match=r"'a'.*read-only"):
            pair.opts[0].apply_gradients(grads)
        assert pair.bits(0) == before
    pair.targets[0]["a"].flags.writeable = True
    pair.update()


def test_a_hyperparameter_that_changes_in_place() -> None:
    alpha = np.array(0.1)
    opts = [Adam(alpha=alpha).setup(np.ones(3)) for _ in range(2)]
    for step in range(4):
        alpha[...] = 0.1 / (step + 1)
        opts[1]._plan = None
        for opt in opts:
            opt.apply_gradients(np.ones(3))
        np.testing.assert_array_equal(opts[0].target, opts[1].target)


def test_a_first_alpha_that_changes_in_place() -> None:
    start = np.array(0.1)
    opts = [AdaBound(alpha=0.1, final_lr=0.001).setup(np.ones(3)) for _ in range(2)]
    rules = [opt.parameters["param"].update_rule for opt in opts]
    rules[0].initial_alpha = start
    for step in range(4):
        start[...] = 0.1 * (step + 1)
        rules[1].initial_alpha = float(start)
        for opt in opts:
            opt.apply_gradients(np.array([1.0, 1e-6, 0.0]))
        np.testing.assert_array_equal(opts[0].target, opts[1].target)


@pytest.mark.parametrize("kind", [Adam, AdaBound])
def test_alphas_of_their_own(kind: type[Adam]) -> None:
    # each rule its own, under a schedule of the optimizer's other numbers
    opts = [kind(eta=0.5).setup({k: np.ones(3) for k in "abc"}) for _ in range(2)]
    for opt in opts:
        for i, path in enumerate("abc"):
            opt.set_hyperparam(path, alpha=0.01 * (i + 1))
    for step in range(6):
        opts[1]._plan = None
        for opt in opts:
            opt.beta1 = 0.9 - 0.1 * (step > 2)
            if step == 4:
                opt.parameters["b"].update_rule.hyperparam.alpha = 0.5
            opt.apply_gradients({k: np.array([1.0, 0.1, -1.0]) for k in "abc"})
        for key in "abc":
            np.testing.assert_array_equal(opts[0].target[key], opts[1].target[key])
    assert len({array[0] for array in opts[0].target.values()}) == 3


def test_gradients_are_not_kept_alive() -> None:
    w = np.ones(3)
    opt = Adam().setup(w)

    class Traced(np.ndarray):
        pass

    for _ in range(3):
        grad = np.ones(3).view(Traced)
        alive = weakref.ref(grad)
        opt.apply_gradients(grad)
        del grad
        gc.collect()
        assert alive() is None


def test_a_copy_finds_its_own_arrays() -> None:
    import copy
    import pickle

    opt = Adam(**NUMBERS).setup(arrays())
    grads = {key: values(3, shape) for key, shape in SHAPES.items()}
    for _ in range(3):
        opt.apply_gradients(grads)
    for other in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        before = {key: array.copy() for key, array in opt.target.items()}
        for _ in range(3):
            other.apply_gradients(grads)
        for key, array in opt.target.items():
            np.testing.assert_array_equal(array, before[key])
        assert other.t == 6


@pytest.mark.parametrize("eps_mode", ["hat", "paper"])
def test_an_eps_that_becomes_too_small_is_refused(eps_mode: str) -> None:
    params = {"single": np.ones(3, np.float32), "double": np.ones(3)}
    opt = Adam(eps_mode=eps_mode).setup(params)
    grads = {"single": np.ones(3, np.float32), "double": np.ones(3)}
    for _ in range(3):
        opt.apply_gradients(grads)
    before = [array.tobytes() for array in params.values()]
    opt.eps = 1e-44
    with pytest.raises(ValueError, match=r"'single': eps = .* is too small for float32"):
        opt.apply_gradients(grads)
    assert before == [array.tobytes() for array in params.values()]
    assert opt.t == 3
    opt.eps = 0.0
    opt.apply_gradients(grads)
    assert opt.t == 4
