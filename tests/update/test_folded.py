"""Updates that are made again: with clipping, loss scales and looks on the way, in equal bits."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Adam, AdamW, Link, Parameter
from fastadam.kernels.cpu import engine, gradient_table
from fastadam.kernels.multi_tensor import MultiTensorStep
from fastadam.optimizer_hooks import GradientClipping, Lasso, WeightDecay

ml_dtypes = pytest.importorskip("ml_dtypes", reason="needs ml_dtypes, which has bfloat16")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(name) for name in ("f2", "f4", "f8")] + [BFLOAT16]
SHAPES = [(3, 5), (1031,), (), (2, 0), (2050,)]


def values(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape)).astype(dtype)


def link(dtypes: list[Any]) -> Link:
    rng = np.random.default_rng(3)
    model = Link()
    with model.init_scope():
        for i, shape in enumerate(SHAPES):
            setattr(model, f"p{i}", Parameter(values(rng, shape, dtypes[i % len(dtypes)])))
    return model


def tree(dtypes: list[Any]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {f"p{i}": values(rng, s, dtypes[i % len(dtypes)]) for i, s in enumerate(SHAPES)}


class Two:
    """An optimizer that repeats, and one that forgets what it has found before every update."""

    def __init__(self, target: Callable[[list[Any]], Any], dtypes: list[Any]) -> None:
        self.opts = [
            AdamW(alpha=0.05, beta1=0.8, beta2=0.95, eps=1e-3, weight_decay_rate=0.01).setup(
                target(dtypes)
            )
            for _ in range(2)
        ]
        self.repeated = 0
        # of the gradients, whatever they are divided by
        self.sizes: list[float] | None = None

    def each(self, change: Callable[[Any], Any]) -> None:
        for opt in self.opts:
            change(opt)

    def update(self, seed: int, scale: float | None, lent: bool, spoil: float | None) -> None:
        messages: list[list[str]] = []
        self.opts[1]._plan = None
        for i in range(2):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self.one(i, seed, scale, lent, spoil)
            messages.append([str(warning.message) for warning in caught])
        assert messages[0] == messages[1]
        assert self.seen(0) == self.seen(1)

    def one(self, i: int, seed: int, scale: float | None, lent: bool, spoil: float | None) -> None:
        opt = self.opts[i]
        rng = np.random.default_rng(seed)
        grads = {}
        for path, param in opt.parameters.items():
            grad = values(rng, param.array.shape, np.float64) * (scale or 1.0)
            if self.sizes is not None:
                grad = values(rng, grad.shape, np.float64) * rng.choice(self.sizes, grad.shape)
            with np.errstate(over="ignore"):
                grads[path] = np.asarray(grad.astype(param.array.dtype))
        if spoil is not None:
            grads["p1"][7] = spoil
        if not lent:
            for path, param in opt.parameters.items():
                param.grad = grads[path]
                param._loss_scale = scale
            kept = opt._plan
            opt.update()
            self.repeated += i == 0 and kept is not None and opt._plan is kept
            return
        for param in opt.parameters.values():
            param.cleargrad()
        before = {path: grad.tobytes() for path, grad in grads.items()}
        kept = opt._plan
        opt.apply_gradients(grads, loss_scale=scale)
        self.repeated += i == 0 and kept is not None and opt._plan is kept
        assert before == {path: grad.tobytes() for path, grad in grads.items()}

    def seen(self, i: int) -> dict[str, Any]:
        opt = self.opts[i]
        found: dict[str, Any] = {
            "t": opt.t,
            "report": repr(opt.last_update),
            "scale": opt.loss_scale,
            "safe": opt.is_safe_to_update(),
        }
        for path, param in opt.parameters.items():
            found[path] = param.array.tobytes()
            found[f"{path}:t"] = param.update_rule.t
            found[f"{path}:loss scale"] = param._loss_scale
            grad = param._grad
            found[f"{path}:grad"] = None if grad is None else (grad.dtype, grad.tobytes())
            state = param.update_rule.state or {}
            found |= {f"{path}:{key}": array.tobytes() for key, array in state.items()}
            master = param.update_rule._fp32_param
            found[f"{path}:master"] = None if master is None else master.array.tobytes()
        return found

    def write(self, seed: int) -> None:
        """Write to a parameter from outside."""
        for opt in self.opts:
            rng = np.random.default_rng(seed)
            for param in opt.parameters.values():
                if param.array.size > 3 and rng.integers(2):
                    at = rng.integers(param.array.size, size=3)
                    param.array.flat[at] = rng.choice([0.5, -0.0, np.inf, np.nan, 1e-7, 3.25], 3)


SETTINGS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda opt: None,
    "clipped": lambda opt: opt.add_hook(GradientClipping(0.7)),
    "clipped to nothing": lambda opt: opt.add_hook(GradientClipping(0.0)),
    "not clipped": lambda opt: opt.add_hook(GradientClipping(1e9)),
    "monitored": lambda opt: setattr(opt, "monitor", True),
    "skipping": lambda opt: setattr(opt, "on_nonfinite", "skip"),
    "dynamic": lambda opt: opt.loss_scaling(interval=3),
    "dynamic, clipped": lambda opt: (
        opt.loss_scaling(interval=3),
        opt.add_hook(GradientClipping(0.7)),
    ),
    "decayed and clipped": lambda opt: (
        opt.add_hook(WeightDecay(0.1)),
        opt.add_hook(GradientClipping(0.7)),
    ),
    "masters": lambda opt: opt.use_fp32_update(),
    "masters, dynamic, clipped": lambda opt: (
        opt.use_fp32_update(),
        opt.loss_scaling(interval=3),
        opt.add_hook(GradientClipping(0.7)),
    ),
    "clipped and seen": lambda opt: (
        opt.add_hook(GradientClipping(0.7)),
        opt.add_hook(lambda opt: None, name="post", timing="post"),
    ),
}


@pytest.mark.parametrize("dtypes", [*([d] for d in DTYPES), DTYPES], ids=str)
@pytest.mark.parametrize("target", [link, tree])
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_same_bits_as_when_everything_is_forgotten(
    setting: str, target: Callable[[list[Any]], Any], dtypes: list[Any]
) -> None:
    two = Two(target, dtypes)
    two.each(SETTINGS[setting])
    rng = np.random.default_rng(len(setting))
    for step in range(40):
        dynamic = two.opts[0]._loss_scaling_is_dynamic
        scale = two.opts[0].loss_scale if dynamic else rng.choice([None, 1.0, 128.0, 0.3])
        spoil = [None, None, None, np.nan, np.inf][rng.integers(5)]
        if two.opts[0].on_nonfinite == "propagate" and not dynamic:
            spoil = None
        lent = target is tree or bool(rng.integers(2))
        if step % 7 == 5:
            two.write(step)
        two.update(step, scale, lent, spoil)
    if setting not in ("decayed and clipped", "clipped and seen"):
        assert two.repeated >= 3


@pytest.mark.parametrize("scale", [None, 1.0, 1024.0, 0.3, 2.0**-130, 1e-40, 3e38])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_bits_with_numbers_of_all_sizes(
    dtype: Any, scale: float | None, case: Any
) -> None:
    for threshold in (None, 1e-3, 0.7, 1e30):
        for largest in (1e38, 1.0, 1e-30, 1e-40):
            with case(threshold=threshold, largest=largest):
                check_numbers_of_all_sizes(dtype, largest, threshold, scale)


def check_numbers_of_all_sizes(
    dtype: Any, largest: float, threshold: float | None, scale: float | None
) -> None:
    two = Two(tree, [dtype])
    if threshold is not None:
        two.each(lambda opt: opt.add_hook(GradientClipping(threshold)))
    # subnormal ones, and some whose product with the rate of clipping is subnormal, among them
    two.sizes = [size for size in (1e38, 1e20, 1.0, 1e-8, 1e-30, 1e-40) if size <= largest]
    for step in range(6):
        two.update(step, scale, bool(step % 3), None)


def clipped(target: Any, threshold: float = 0.5) -> Any:
    opt = Adam(alpha=0.1, eps=1e-2).setup(target)
    opt.add_hook(GradientClipping(threshold))
    return opt


def count_passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every pass over gradients that writes, looks or steps."""
    passes: list[str] = []
    squares, program = gradient_table.GradientTable.sums_of_squares, MultiTensorStep.program

    def noted_squares(table: Any, *most: Any) -> list[float]:
        passes.append("writes" if table.rows["out"].any() else "looks")
        return squares(table, *most)

    def noted_program(batch: Any, *args: Any, **kwds: Any) -> bool:
        done = program(batch, *args, **kwds)
        passes.append("prepared" if done else "refused")
        return done

    monkeypatch.setattr(gradient_table.GradientTable, "sums_of_squares", noted_squares)
    monkeypatch.setattr(MultiTensorStep, "program", noted_program)
    return passes


def test_one_look_and_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"w": np.zeros(2000, np.float32)}
    opt = clipped(params)
    opt.on_nonfinite = "skip"
    grads = {"w": np.ones(2000, np.float32)}
    opt.apply_gradients(grads, loss_scale=8.0)
    passes = count_passes(monkeypatch)
    for _ in range(3):
        opt.apply_gradients(grads, loss_scale=8.0)
    assert passes == ["looks", "prepared"] * 3
    assert opt.last_update.grad_norm == pytest.approx(math.sqrt(2000) / 8, rel=1e-12)


def test_without_anything_to_do_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    opt = Adam().setup({"w": np.zeros(5)})
    opt.apply_gradients({"w": np.ones(5)})
    passes = count_passes(monkeypatch)
    opt.apply_gradients({"w": np.ones(5)})
    assert passes == []
    assert opt.last_update.grad_norm is None


def test_a_clipped_gradient_of_a_parameter_is_written_where_it_is() -> None:
    model = link([np.float32])
    opt = clipped(model)
    for _ in range(3):
        grads = {path: np.ones_like(p.array) for path, p in opt.parameters.items()}
        for path, param in opt.parameters.items():
            param.grad = grads[path]
        opt.update()
    total = math.sqrt(sum(float(np.sum(grad**2)) for grad in grads.values()))
    assert total == pytest.approx(0.5, rel=1e-6)
    for path, param in opt.parameters.items():
        assert param.grad is grads[path]


def test_a_true_gradient_of_a_parameter_is_written_where_it_is() -> None:
    model = link([np.float32, np.float64])
    opt = Adam().setup(model)
    for _ in range(3):
        grads = {path: np.full_like(p.array, 6.0) for path, p in opt.parameters.items()}
        for path, param in opt.parameters.items():
            param.grad, param._loss_scale = grads[path], 4.0
        opt.update()
        for path, param in opt.parameters.items():
            assert param.grad is grads[path]
            assert param._loss_scale is None
            assert np.all(param.grad == 1.5)


def test_each_gradient_is_divided_by_a_scale_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = link([np.float32, np.float64])
    opt = Adam(beta1=0.0).setup(model)
    opt.monitor = True
    passes = count_passes(monkeypatch)
    for repeated in (False, True, True):
        passes.clear()
        for i, param in enumerate(opt.parameters.values()):
            param.grad, param._loss_scale = np.full_like(param.array, 6.0), [4.0, 2.0, None][i % 3]
        opt.update()
        assert ("prepared" in passes) is repeated
        norm = math.sqrt(
            sum(p.size * [1.5, 3.0, 6.0][i % 3] ** 2 for i, p in enumerate(opt.parameters.values()))
        )
        assert opt.last_update.grad_norm == pytest.approx(norm, rel=1e-12)
        for i, param in enumerate(opt.parameters.values()):
            true = [1.5, 3.0, 6.0][i % 3]
            assert np.all(param.grad == true)
            assert np.all(param.update_rule.state["m"] == true)


@pytest.mark.parametrize("scale", [None, 4.0])
def test_gradients_that_share_memory_are_multiplied_once(scale: float | None) -> None:
    model = link([np.float32])
    with model.init_scope():
        model.q1 = Parameter(np.zeros(1031, np.float32))
    opt = clipped(model)
    for step in range(4):
        for param in opt.parameters.values():
            param.grad = np.full_like(param.array, 0.1)
            param._loss_scale = scale
        model.q1.grad = model.p1.grad
        if step == 3:
            model.p1.grad, model.q1.grad = np.full((2, 1031), 0.1, np.float32)[[0, 1]]
            memory = np.full(1041, 0.1, np.float32)
            model.p1.grad, model.q1.grad = memory[:1031], memory[10:]
        opt.update()
        p_m, q_m = (each.update_rule.state["m"] for each in (model.p1, model.q1))
        assert p_m.tobytes() == q_m.tobytes()
        assert np.all(p_m == p_m[0])


@pytest.mark.parametrize("scale", [None, 4.0])
def test_read_only_gradients_are_not_written(scale: float | None) -> None:
    model = link([np.float32])
    opt = clipped(model)
    for _ in range(3):
        kept = {}
        for path, param in opt.parameters.items():
            grad = np.ones_like(param.array)
            grad.flags.writeable = False
            kept[path] = param.grad = grad
            param._loss_scale = scale
        opt.update()
        assert all(np.all(grad == 1) for grad in kept.values())


def test_a_hook_that_clips_in_another_way_is_called() -> None:
    class Louder(GradientClipping):
        def __call__(self, opt: Any) -> None:
            called.append(opt.t)
            super().__call__(opt)

    called: list[int] = []
    opt = Adam().setup({"w": np.zeros(3)})
    opt.add_hook(Louder(1.0))
    for _ in range(4):
        opt.apply_gradients({"w": np.ones(3)})
    assert called == [0, 1, 2, 3]


@pytest.mark.parametrize("others", ["none", "before", "behind"])
def test_hooks_beside_clipping_are_called_at_every_update(others: str) -> None:
    class Counted:
        name = "counted"
        timing = "pre"

        def __call__(self, opt: Any) -> None:
            called.append(opt.t)

    called: list[int] = []
    opt = Adam().setup({"w": np.zeros(3)})
    hooks = {"none": [], "before": [Counted()], "behind": [Counted()]}[others]
    clipping = GradientClipping(1.0)
    for hook in [clipping, *hooks] if others == "behind" else [*hooks, clipping]:
        opt.add_hook(hook)
    for _ in range(4):
        opt.apply_gradients({"w": np.ones(3)})
    assert called == ([] if others == "none" else [0, 1, 2, 3])


def test_hooks_after_the_step_see_what_has_become_of_the_gradients() -> None:
    seen: list[float] = []
    opt = Adam().setup({"w": np.zeros(3)})
    opt.add_hook(GradientClipping(1.0))
    opt.add_hook(lambda o: seen.append(np.linalg.norm(o.parameters["w"].grad)), "seen", "post")
    for _ in range(4):
        opt.apply_gradients({"w": np.array([0.0, 3.0, 4.0])})
    np.testing.assert_allclose(seen, [1.0] * 4, rtol=1e-12)


def test_clipping_after_the_step_clips_no_gradient_of_it() -> None:
    found = []
    for timing in (None, "post"):
        params = {"w": np.zeros(3)}
        opt = Adam(beta1=0.5).setup(params)
        if timing:
            opt.add_hook(GradientClipping(0.125), timing=timing)
        for i in range(4):
            opt.apply_gradients({"w": np.array([0.5, 1.0 + i, -2.0])})
        found.append((params["w"], *opt.parameters["w"].update_rule.state.values()))
    for clipped, plain in zip(*found, strict=True):
        np.testing.assert_array_equal(clipped, plain)


def test_every_parameter_has_the_first_alpha_that_is_not_zero() -> None:
    params = {"a": np.zeros(3), "c": np.zeros(1)}
    opt = fastadam.AdaBound(alpha=0.0).setup(params)
    rules = [param.update_rule for param in opt.parameters.values()]
    for alpha in (0.0, 0.0, 0.25, 0.5, 0.5):
        opt.alpha = alpha
        opt.apply_gradients({name: np.ones(p.shape) for name, p in params.items()})
        first = {0.0: {0.0, None}, 0.25: {0.25}, 0.5: {0.25}}[alpha]
        assert {getattr(rule, "initial_alpha", None) for rule in rules} <= first


@pytest.mark.parametrize(
    "name",
    [
        *("reallocate_cleared_grads", "call_hooks", "check_nan_in_grads", "is_safe_to_update"),
        "update_loss_scale",
    ],
)
def test_a_method_that_an_optimizer_gets_between_updates_is_called(name: str) -> None:
    opt = Adam().setup({"w": np.zeros(3)})
    opt.loss_scaling()
    for _ in range(3):
        opt.apply_gradients({"w": np.ones(3)})
    usual, called = getattr(opt, name), []
    setattr(opt, name, lambda *args: (called.append(opt.t), usual(*args))[1])
    opt.apply_gradients({"w": np.ones(3)})
    assert called


def test_gradients_that_somebody_has_left_are_gone_after_lent_ones() -> None:
    model = Link(w=(3,))
    model.w.array[...] = 0
    opt = Adam().setup(model)
    for _ in range(3):
        opt.apply_gradients({"w": np.ones(3, np.float32)})
    model.w.grad = np.full(3, -1.0, np.float32)
    opt.apply_gradients({"w": np.ones(3, np.float32)})
    assert model.w.grad is None


def test_a_gradient_that_was_missing_and_is_there() -> None:
    class Patient(Adam):
        def reallocate_cleared_grads(self) -> None:
            pass

    found = []
    for kind in (Patient, Adam):
        model = Link(a=(3,), b=(2,))
        model.a.array[...], model.b.array[...] = 1, -1
        opt = kind().setup(model)
        opt.missing_gradients = "zeros" if kind is Patient else "skip"
        for t in range(4):
            model.a.grad = np.full(3, 0.5 + t, np.float32)
            model.b.grad = None if t < 2 else np.full(2, -2.0, np.float32)
            opt.update()
            found.append(model.b.array.tolist())
        assert found[-1] != [-1, -1]
    # the first has counted the steps of b, and has made none
    assert found[1] == found[5] == [-1, -1]


@pytest.mark.parametrize("scale", [1024.0, 1000.0])
def test_true_gradients_that_are_subnormal_are_zeros(scale: float) -> None:
    quotients = np.array([0.25, -0.5, 0.75, -1.5, 2.0]) * float(np.finfo(np.float32).tiny)
    model = Link(w=(5,))
    model.w.array[...] = 0
    opt = Adam().setup(model)
    for _ in range(3):
        model.w.grad = (quotients * scale).astype(np.float32)
        model.w._loss_scale = scale
        opt.update()
        assert np.all(model.w.grad[:3] == 0)
        assert np.signbit(model.w.grad).tolist() == [False, True, False, True, False]
        np.testing.assert_allclose(model.w.grad[3:], quotients[3:], rtol=1e-6)


def test_the_threshold_may_change() -> None:
    params = {"w": np.zeros(3)}
    opt = fastadam.Adam(beta1=0.5, beta2=0.5).setup(params)
    hook = GradientClipping(1.0)
    opt.add_hook(hook)
    for threshold in (1.0, 1.0, 0.25):
        hook.threshold = threshold
        before = opt.parameters["w"].update_rule.state
        before = np.zeros(3) if before is None else before["m"].copy()
        opt.apply_gradients({"w": np.array([0.0, 3.0, 4.0])})
        m = opt.parameters["w"].update_rule.state["m"]
        clipped = 2 * m - before
        np.testing.assert_allclose(clipped, threshold * np.array([0, 0.6, 0.8]), rtol=1e-12)


def test_gradients_that_hooks_leave_below_the_threshold_are_not_clipped() -> None:
    opts = [Adam(beta1=0.8).setup({"w": np.linspace(1, 2, 7)}) for _ in range(2)]
    for opt in opts:
        opt.add_hook(WeightDecay(0.25))
    opts[1].add_hook(GradientClipping(1e9))
    for i in range(3):
        for opt in opts:
            opt.apply_gradients({"w": np.linspace(i, 3, 7)})
    states = [opt.parameters["w"].update_rule.state for opt in opts]
    for ours, plain in zip(states[0].values(), states[1].values(), strict=True):
        np.testing.assert_array_equal(ours, plain)
    np.testing.assert_array_equal(opts[0].target["w"], opts[1].target["w"])


def test_a_subclass_that_adapts_its_loss_scale_in_its_own_way_is_asked() -> None:
    class Mine(Adam):
        def update_loss_scale(self) -> None:
            asked.append(self.t)

    asked: list[int] = []
    opt = Mine().setup({"w": np.zeros(3)})
    for _ in range(4):
        opt.apply_gradients({"w": np.ones(3)})
    assert asked == [1, 2, 3, 4]


def test_a_lossfun_with_gradients_repeats() -> None:
    params = {"w": np.zeros(4)}
    opt = Adam().setup(params)
    kept = []
    for _ in range(4):
        assert opt.update(lambda w: (3.5, {"w": np.ones(4)}), params) == 3.5
        kept.append(opt._plan)
    assert kept[0] is not None
    assert all(each is kept[0] for each in kept)
    assert opt.t == 4


def test_prepared_gradients_on_every_instruction_set_and_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = set()
    for isa in engine.built_instruction_sets():
        try:
            monkeypatch.setattr(engine, "_kernels", engine._load(isa))
            engine._kernels.loop(True)
        except ImportError:
            continue
        if isa not in fastadam.kernels.cpu._cpu_features.supported():
            continue
        for n_threads in (1, 2, 3, 7):
            fastadam.set_num_threads(n_threads)
            rng = np.random.default_rng(5)
            params = {str(i): values(rng, (s,), np.float32) for i, s in enumerate((5, 70001, 33))}
            opt = clipped(params)
            for _ in range(3):
                grads = {key: values(rng, p.shape, np.float32) for key, p in params.items()}
                opt.apply_gradients(grads, loss_scale=16.0)
            results.add(b"".join(p.tobytes() for p in params.values()))
    fastadam.set_num_threads(None)
    assert len(results) == 1


def one_bit_more(rng: np.random.Generator, n: int) -> np.ndarray:
    """float64 with one bit more than float32 has, every piece of which is finite as a float16."""
    g = rng.integers(2**24, 2**25, 10 * n) / 2.0**24
    return g[np.isfinite(g.view(np.float16).reshape(-1, 4)).all(axis=1)][:n]


@pytest.mark.parametrize("few_bits", [False, True])
def test_gradients_of_a_wider_type_are_divided_in_it(few_bits: bool) -> None:
    """float64 gradients of float32 parameters are divided in float64, and rounded once."""
    found = []
    for forgets in (False, True):
        params = {"w": values(np.random.default_rng(1), (50,), np.float32)}
        opt = AdamW(alpha=0.05, eps=1e-3).setup(params)
        for step in range(4):
            if forgets:
                opt._plan = None
            rng = np.random.default_rng(step)
            grads = {"w": one_bit_more(rng, 50) if few_bits else values(rng, (50,), np.float64)}
            opt.apply_gradients(grads, loss_scale=1.7)
        found.append((params["w"].tobytes(), repr(opt.last_update)))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["float16", "float32"])
@pytest.mark.parametrize(
    "hooks", [[WeightDecay(0.25)], [Lasso(0.5), WeightDecay(0.25)]], ids=["decay", "both"]
)
def test_hooks_see_gradients_of_a_wider_type_rounded_once(name: str, hooks: list[Any]) -> None:
    """Also to numbers that a step counts as zero, and sums with the parameter do not."""
    rng = np.random.default_rng(6)
    for i in range(3):
        p = (rng.standard_normal(1031) * (1e-36 if name == "float32" else 1)).astype(name)
        g = rng.standard_normal(1031) * [1e-39, 1e-3, 1e39][i]
        opts = [Adam(alpha=0.5, beta1=0.8, eps=1e-30).setup(p.copy()) for _ in range(2)]
        with np.errstate(all="ignore"):
            given = [g, g.astype("f4")]
        for opt, own in zip(opts, given, strict=True):
            for hook in hooks:
                opt.add_hook(hook)
            for _ in range(3):
                opt.apply_gradients(own)
        assert not fastadam.compare(*opts)


@pytest.mark.parametrize("order", ["F", "C"])
def test_the_norm_of_gradients_in_another_order_is_theirs(order: Any) -> None:
    """The squares are added in the order in which a gradient lies, not its parameter."""
    found = []
    for forgets in (False, True):
        params = {"w": np.zeros((37, 129), order="FC"["CF".index(order)])}
        opt = clipped(params)
        for step in range(4):
            if forgets:
                opt._plan = None
            grad = values(np.random.default_rng(step), (37, 129), np.float64)
            opt.apply_gradients({"w": np.asarray(grad, order=order)})
        found.append((params["w"].tobytes(), repr(opt.last_update)))
    assert found[0] == found[1]


def test_the_norm_of_a_gradient_that_is_a_parameter_in_another_order() -> None:
    """A copy for hooks has its order, and so its norm the same bits."""
    for seed in range(40):
        norms = []
        for hooked in (False, True):
            rng = np.random.default_rng(seed)
            a = np.asfortranarray(rng.standard_normal((20, 30)) * 10.0 ** rng.integers(-5, 5))
            opt = Adam().setup({"a": a, "b": np.ones((20, 30))})
            opt.monitor = True
            if hooked:
                opt.add_hook(lambda opt: None, "nothing")
            opt.apply_gradients({"a": np.zeros((20, 30)), "b": a})
            norms.append(opt.last_update.grad_norm)
        assert norms[0] == norms[1]


class Busy:
    """A number that does something whenever it is looked at."""

    def __init__(self, what: Callable[[], object]) -> None:
        self.what = what

    def __float__(self) -> float:
        self.what()
        return 0.5

    def __lt__(self, other: float) -> bool:
        self.what()
        return True

    def __truediv__(self, other: float) -> float:
        return 0.5 / other


@pytest.mark.parametrize("kind", [WeightDecay, GradientClipping])
def test_numbers_with_code_of_their_own(kind: Any) -> None:
    """What they change counts for the step, as what a hook changes does."""
    for beside in (False, True):
        opt = Adam(alpha=0.25).setup({"w": np.ones(3)})
        opt.apply_gradients({"w": np.full(3, 2.0)})

        def stop(opt: Any = opt) -> None:
            opt.alpha = 0.0

        hook = kind(0.5)
        hook.__dict__["rate" if kind is WeightDecay else "threshold"] = Busy(stop)
        opt.add_hook(hook)
        if beside:
            opt.add_hook(lambda opt: None, "beside")
        before = opt.target["w"].copy()
        opt.apply_gradients({"w": np.full(3, 2.0)})
        assert (opt.alpha, opt.t) == (0.0, 2)
        np.testing.assert_array_equal(opt.target["w"], before)


def test_users_hooks_with_names_like_ours_are_called() -> None:
    """A class may have `rate` or `ops` of its own, which mean something else."""

    class Halving:
        rate = 0.5
        ops = ("halve",)

        def __call__(self, opt: Any) -> None:
            for param in opt.parameters.values():
                param.grad *= self.rate

    params = {"w": np.ones(3)}
    opt = Adam(alpha=0.1, eps=1.0).setup(params)
    opt.add_hook(Halving(), "halving")
    other = {"w": np.ones(3)}
    same = Adam(alpha=0.1, eps=1.0).setup(other)
    for _ in range(3):
        opt.apply_gradients({"w": np.ones(3)})
        same.apply_gradients({"w": np.full(3, 0.5)})
    np.testing.assert_array_equal(params["w"], other["w"])
