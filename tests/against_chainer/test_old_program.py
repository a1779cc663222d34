"""An old Chainer program runs with only its optimizer import changed, and logs the same lines."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

chainer = pytest.importorskip("chainer", reason="needs Chainer 7.8.1 on NumPy 1.26")

import chainer.functions as F  # noqa: E402, N812
import chainer.links as L  # noqa: E402, N812
from chainer import training  # noqa: E402
from chainer.training import extensions  # noqa: E402

import fastadam  # noqa: E402

LIBRARIES = {"chainer": chainer, "fastadam": fastadam}
EPOCHS = 4
STEPS = 16

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Adam": {"alpha": 0.02, "beta1": 0.8, "eps": 1e-6, "weight_decay_rate": 0.01},
    "AdamW": {"alpha": 0.03, "eta": 0.7, "weight_decay_rate": 0.02},
    "AMSGrad": {"alpha": 0.03, "beta2": 0.9, "eta": 0.8},
    "AdaBound": {"alpha": 0.02, "final_lr": 0.05, "gamma": 0.02, "eta": 0.9},
    "AMSBound": {"alpha": 0.02, "beta2": 0.95, "final_lr": 0.06, "gamma": 0.03},
}
# The first has weight decay and another eta; the second has everything else: vhat and the bounds.
TWO = ("AdamW", "AMSBound")
two_optimizers = pytest.mark.parametrize("name", TWO)
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)

# The last parts of keys that only fastadam writes: what Chainer forgets.
LOSS_SCALING = {
    "loss_scale",
    "loss_scale_dynamic",
    "loss_scale_multiplier",
    "loss_scale_nonfinite_ever",
}
OURS_ALONE = LOSS_SCALING | {"fp32_param", "initial_alpha"}


class Net(chainer.Chain):
    """A convolution and dense layers, two of which learn their sizes from the data.

    In Chainer's mixed precision all parameters are float16 but those of the normalization.
    """

    def __init__(self, shared: str = "") -> None:
        super().__init__()
        self.shared = shared
        with self.init_scope():
            self.conv = L.Convolution2D(1, 3, 3)
            self.bn = L.BatchNormalization(3)
            self.l1 = L.Linear(None, 8)
            self.l2 = L.Linear(8, 8)
            self.l3 = L.Linear(None, 4)
            if shared == "under two names":
                self.again = self.l2

    def forward(self, x: Any) -> Any:
        h = F.relu(self.bn(self.conv(x)))
        h = F.tanh(self.l2(F.tanh(self.l1(h))))
        if self.shared:
            h = F.tanh(self.l2(h))
        y = self.l3(h)
        return self.extra(y) if hasattr(self, "extra") else y


def pictures(seed: int, n: int, dtype: Any) -> Any:
    """Noise of 5 x 5 with one of four edges lit, and the edge's number."""
    random = np.random.RandomState(seed)
    labels = random.randint(4, size=n).astype(np.int32)
    x = random.standard_normal((n, 1, 5, 5))
    for picture, label in zip(x[:, 0], labels, strict=True):
        np.rot90(picture, label)[0] += 2
    return chainer.datasets.TupleDataset(x.astype(dtype), labels)


@dataclasses.dataclass
class Run:
    """What a program has made."""

    model: Any
    optimizer: Any
    trainer: Any
    out: Path

    @property
    def log(self) -> list[str]:
        """The lines of the log, but for the time that has passed."""
        lines = (self.out / "log").read_text().splitlines()
        kept = [line for line in lines if "elapsed_time" not in line]
        assert len(kept) > 6 * self.optimizer.t
        return kept

    def values(self, entry: str) -> list[float]:
        """One column of the log."""
        lines = [line for line in self.log if f'"{entry}"' in line]
        return [float(line.strip(" ,").split(": ")[1]) for line in lines]

    def bits(self, below: str = "/") -> dict[str, tuple[str, bytes]]:
        """The parameters' dtypes and bytes, by path."""
        return {
            path: (param.dtype.str, param.array.tobytes())
            for path, param in sorted(self.model.namedparams())
            if below in path
        }

    def snapshot(self, epoch: int = EPOCHS) -> Path:
        """The snapshot that the trainer has written after an epoch."""
        return self.out / f"snapshot_{epoch}"

    def saved(self, epoch: int = EPOCHS) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
        """What such a snapshot says of the model and the optimizer."""
        with np.load(self.snapshot(epoch)) as file:
            return {
                key: (file[key].dtype.str, file[key].shape, file[key].tobytes())
                for key in file.files
                if key.startswith(("updater/model:main/", "updater/optimizer:main/"))
            }


def observe(trainer: Any, optimizer: Any, entry: str) -> None:
    """Log an attribute of the optimizer at every step."""
    extension = extensions.observe_value(entry, lambda _: getattr(optimizer, entry))
    trainer.extend(extension, name=f"observe {entry}", trigger=(1, "iteration"))


def program(
    optimizers: Any,
    optimizer_hooks: Any,
    out: Path,
    name: str = "Adam",
    *,
    add_hooks: Callable[[Any, Any], None] | None = None,
    change: Callable[[Run], None] | None = None,
    dtype: Any = np.float32,
    shared: str = "",
    lossfun: Any = F.softmax_cross_entropy,
    updater: Any = training.updaters.StandardUpdater,
    updater_options: Any = None,
    shuffle: bool = True,
    save: Any = None,
    resume: Path | None = None,
    load: Any = None,
    epochs: int = EPOCHS,
) -> Run:
    """An ordinary Chainer program of 2019; all but the two modules handed over is Chainer's."""
    np.random.seed(0)
    with chainer.using_config("dtype", dtype):
        model = L.Classifier(Net(shared), lossfun=lossfun)
        optimizer = getattr(optimizers, name)(**OPTIMIZERS[name])
        optimizer.setup(model)
        if add_hooks is not None:
            add_hooks(optimizer, optimizer_hooks)

        real = np.float16 if dtype is chainer.mixed16 else dtype
        train = chainer.iterators.SerialIterator(pictures(1, 32, real), 8, shuffle=shuffle)
        test = chainer.iterators.SerialIterator(
            pictures(2, 8, real), 8, repeat=False, shuffle=False
        )
        trainer = training.Trainer(
            updater(train, optimizer, **(updater_options or {})), (epochs, "epoch"), out=str(out)
        )
        trainer.extend(extensions.Evaluator(test, model))
        trainer.extend(extensions.ExponentialShift("alpha", 0.9), trigger=(3, "iteration"))
        for entry in ("alpha", "alpha_t"):
            observe(trainer, optimizer, entry)
        trainer.extend(extensions.LogReport(trigger=(1, "iteration")))
        trainer.extend(
            extensions.snapshot(
                save or chainer.serializers.save_npz, filename="snapshot_{.updater.epoch}"
            ),
            trigger=(2, "epoch"),
        )
        run = Run(model, optimizer, trainer, out)
        if change is not None:
            change(run)
        if resume is not None:
            (load or chainer.serializers.load_npz)(str(resume), trainer)
        trainer.run()
    return run


def run_with(library: str, out: Path, *args: Any, **options: Any) -> Run:
    """Run the program with a library's optimizers and hooks."""
    modules = LIBRARIES[library]
    return program(modules.optimizers, modules.optimizer_hooks, out, *args, **options)


@pytest.fixture
def both(tmp_path: Path) -> Callable[..., tuple[Run, Run]]:
    """Runs the program with our optimizers, and with Chainer's."""

    def run(*args: Any, **options: Any) -> tuple[Run, Run]:
        return (
            run_with("fastadam", tmp_path / "ours", *args, **options),
            run_with("chainer", tmp_path / "theirs", *args, **options),
        )

    return run


def assert_same(ours: Run, theirs: Run, ours_alone: set[str] | None = None) -> None:
    """Compare the logs line by line; parameters, states and counts bit by bit."""
    assert ours.log == theirs.log
    assert ours.bits() == theirs.bits()
    saved, expected = ours.saved(), theirs.saved()
    extra = {key for key in saved if key.rsplit("/", 1)[-1] in OURS_ALONE}
    assert {key.rsplit("/", 1)[-1] for key in extra} == (ours_alone or set())
    assert {key: saved[key] for key in saved if key not in extra} == expected
    assert "updater/optimizer:main/predictor/l1/W/v" in expected


def add_all_hooks(optimizer: Any, hooks: Any) -> None:
    """Regularise as people did; the noise is drawn from NumPy's global generator."""
    optimizer.add_hook(hooks.WeightDecay(0.003))
    optimizer.add_hook(hooks.Lasso(0.0007))
    optimizer.add_hook(hooks.GradientHardClipping(-0.05, 0.06))
    optimizer.add_hook(hooks.GradientNoise(0.0001))


ALL_HOOKS: dict[str, Any] = {"add_hooks": add_all_hooks}


def noise_of_the_count(_: Any, shape: Any, dtype: Any, hook: Any, rule: Any) -> Any:
    """A user's noise, which depends on nothing but the rule's count."""
    random = np.random.RandomState(1000 * rule.t + len(shape))
    return (hook.eta * random.standard_normal(shape)).astype(dtype)


def add_hooks_that_restart(optimizer: Any, hooks: Any) -> None:
    """Add hooks that go on after a restart as if there had been none."""
    optimizer.add_hook(hooks.WeightDecay(0.003))
    optimizer.add_hook(hooks.Lasso(0.0007))
    optimizer.add_hook(hooks.GradientNoise(0.01, noise_func=noise_of_the_count))
    optimizer.add_hook(hooks.GradientHardClipping(-0.05, 0.06))


def add_weight_decay(optimizer: Any, hooks: Any) -> None:
    """Add the one hook that Chainer adapts to a loss scale."""
    optimizer.add_hook(hooks.WeightDecay(0.003))


def bounds(name: str) -> set[str]:
    """What our files have more for the variants with bounds, once alpha has changed."""
    return {"initial_alpha"} if "Bound" in name else set()


class TestSameLog:
    @every_optimizer
    def test_without_hooks(self, both: Any, name: str) -> None:
        ours, theirs = both(name)
        assert_same(ours, theirs, bounds(name))
        assert (ours.optimizer.t, ours.optimizer.epoch) == (STEPS, EPOCHS)
        alphas = ours.values("alpha")
        assert alphas[-1] < 0.8 * alphas[0]

    @every_optimizer
    def test_with_hooks(self, both: Any, tmp_path: Path, name: str) -> None:
        ours, theirs = both(name, add_hooks=add_all_hooks)
        assert_same(ours, theirs, bounds(name))
        assert run_with("fastadam", tmp_path / "plain", name).log != ours.log

    def test_it_learns(self, tmp_path: Path) -> None:
        loss = run_with("fastadam", tmp_path, "Adam").values("main/loss")
        assert np.mean(loss[-4:]) < 0.7 * np.mean(loss[:4])

    @two_optimizers
    def test_float64(self, both: Any, name: str) -> None:
        ours, theirs = both(name, dtype=np.float64, add_hooks=add_all_hooks)
        assert_same(ours, theirs, bounds(name))
        assert {dtype for dtype, _ in ours.bits().values()} == {"<f8"}

    @two_optimizers
    def test_hooks_of_the_other_library(self, tmp_path: Path, name: str) -> None:
        """Only the optimizers' import is changed, or only the hooks'."""
        runs = [
            program(one.optimizers, other.optimizer_hooks, tmp_path / str(i), name, **ALL_HOOKS)
            for i, (one, other) in enumerate(
                [(chainer, chainer), (fastadam, chainer), (chainer, fastadam)]
            )
        ]
        assert_same(runs[1], runs[0], bounds(name))
        assert_same(runs[2], runs[0])

    @two_optimizers
    def test_clipping(self, both: Any, name: str) -> None:
        """The hooks' import may stay as it is; Chainer's norm is summed in BLAS's own order."""

        def add_hooks(optimizer: Any, _: Any) -> None:
            optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(0.05))
            optimizer.add_hook(chainer.optimizer_hooks.GradientLARS(weight_decay=0.01))

        ours, theirs = both(name, add_hooks=add_hooks)
        assert_same(ours, theirs, bounds(name))

    @two_optimizers
    def test_clipping_by_norms_in_the_defined_order(self, both: Any, name: str) -> None:
        """Our own hooks sum in float64: the same numbers up to Chainer's rounding of norms."""

        def add_hooks(optimizer: Any, hooks: Any) -> None:
            optimizer.add_hook(hooks.GradientClipping(0.05))
            optimizer.add_hook(hooks.GradientLARS(weight_decay=0.01))

        ours, theirs = both(name, add_hooks=add_hooks)
        for entry in ("main/loss", "validation/main/loss"):
            np.testing.assert_allclose(ours.values(entry), theirs.values(entry), rtol=1e-4)


class TestParts:
    """Layers that are frozen, set free, shared, or added later."""

    @two_optimizers
    def test_frozen(self, both: Any, name: str) -> None:
        def freeze(run: Run) -> None:
            run.model.predictor.conv.disable_update()
            run.model.predictor.l3.b.update_rule.enabled = False
            run.model.predictor.l2.b.update_rule = None

        ours, theirs = both(name, change=freeze, add_hooks=add_weight_decay)
        assert_same(ours, theirs, bounds(name))
        np.random.seed(0)
        fresh = L.Classifier(Net()).predictor.conv.W.array
        assert ours.bits()["/predictor/conv/W"] == ("<f4", fresh.tobytes())

    @two_optimizers
    def test_frozen_at_first(self, both: Any, name: str) -> None:
        """The rules of a layer that is set free later begin to count there."""

        def thaw_later(run: Run) -> None:
            run.model.predictor.conv.disable_update()
            run.trainer.extend(
                lambda _: run.model.predictor.conv.enable_update(),
                name="thaw",
                trigger=training.triggers.ManualScheduleTrigger(3, "epoch"),
            )

        ours, theirs = both(name, change=thaw_later)
        assert_same(ours, theirs, bounds(name))
        assert ours.model.predictor.conv.W.update_rule.t == STEPS // EPOCHS

    def test_own_hyperparameters(self, both: Any) -> None:
        """No weight decay and a faster alpha for the biases, as fine-tuning programs had it."""

        def change(run: Run) -> None:
            for path, param in run.model.namedparams():
                if path.endswith("/b"):
                    param.update_rule.hyperparam.weight_decay_rate = 0
                    param.update_rule.hyperparam.alpha = 0.05

        assert_same(*both("AdamW", change=change, add_hooks=add_all_hooks))

    def test_shared_layer(self, tmp_path: Path) -> None:
        """A layer under two names: Chainer steps it twice, we once.

        So ours is compared with Chainer's run of a network that has it under one name.
        """
        ours = run_with("fastadam", tmp_path / "ours", shared="under two names")
        once = run_with("chainer", tmp_path / "once", shared="under one name")
        twice = run_with("chainer", tmp_path / "twice", shared="under two names")
        assert ours.log == once.log
        assert ours.bits("/l2/") == once.bits("/l2/")
        assert twice.log != once.log
        assert ours.saved().keys() == twice.saved().keys()

    @pytest.mark.parametrize("rules_by_hand", [True, False])
    def test_late_layer(self, tmp_path: Path, rules_by_hand: bool) -> None:
        """A layer added while training; with Chainer one had to give it update rules oneself."""

        def add_later(by_hand: bool) -> Any:
            def change(run: Run) -> None:
                def add(_: Any) -> None:
                    net = run.model.predictor
                    with net.init_scope():
                        net.extra = L.Linear(4, 4, initialW=np.eye(4, dtype="f4"))
                    net.extra.cleargrads()
                    if by_hand:
                        for param in net.extra.params():
                            param.update_rule = run.optimizer.create_update_rule()

                trigger = training.triggers.ManualScheduleTrigger(2, "epoch")
                run.trainer.extend(add, name="add", trigger=trigger, priority=1000)

            return change

        ours = run_with("fastadam", tmp_path / "ours", change=add_later(rules_by_hand))
        theirs = run_with("chainer", tmp_path / "theirs", change=add_later(True))
        assert_same(ours, theirs)
        assert ours.model.predictor.extra.W.update_rule.t == STEPS // 2


class TestLossScaling:
    """Scales that are powers of two change nothing, if the gradients are divided exactly."""

    @two_optimizers
    def test_static(self, both: Any, tmp_path: Path, name: str) -> None:
        options = {"updater_options": {"loss_scale": 128.0}}
        ours, theirs = both(name, add_hooks=add_weight_decay, **options)
        assert_same(ours, theirs, bounds(name) | LOSS_SCALING)
        plain = run_with("chainer", tmp_path / "plain", name, add_hooks=add_weight_decay)
        assert ours.log == plain.log

    @two_optimizers
    def test_scale_that_rounds(self, both: Any, name: str) -> None:
        """The division has the bits of Chainer's."""
        ours, theirs = both(name, updater_options={"loss_scale": 300.0})
        assert_same(ours, theirs, bounds(name) | LOSS_SCALING)

    def test_hooks_see_true_gradients(self, both: Any, tmp_path: Path) -> None:
        """Chainer's hooks see scaled gradients, which changes what they do; ours do not."""
        options = {"updater_options": {"loss_scale": 128.0}}
        ours, theirs = both("AMSGrad", add_hooks=add_all_hooks, **options)
        plain = run_with("chainer", tmp_path / "plain", "AMSGrad", add_hooks=add_all_hooks)
        assert ours.log == plain.log
        assert ours.bits() == plain.bits()
        assert theirs.log != plain.log

    @two_optimizers
    def test_dynamic(self, tmp_path: Path, name: str) -> None:
        """The scale grows; one update overflows, is skipped, and the scale grows more slowly."""
        runs, warned = [], []
        for library in LIBRARIES:
            calls = 0

            def lossfun(y: Any, t: Any) -> Any:
                nonlocal calls
                calls += chainer.config.train
                loss = F.softmax_cross_entropy(y, t)
                overflows = chainer.config.train and calls == 13
                return loss * np.float32(1e36) if overflows else loss

            def scale(run: Run) -> None:
                run.optimizer.loss_scaling(interval=7)
                observe(run.trainer, run.optimizer, "_loss_scale")

            with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
                warnings.simplefilter("always")
                run = run_with(library, tmp_path / library, name, change=scale, lossfun=lossfun)
            assert {w.category for w in caught} == {UserWarning}
            warned.append(len(caught))
            runs.append(run)
        theirs, ours = runs
        assert_same(ours, theirs, bounds(name) | LOSS_SCALING)
        scales = [4096.0, 2048.0, 2048 * 2 ** (1 / 7), 2048 * 2 ** (2 / 7)]
        assert ours.values("_loss_scale")[11:15] == pytest.approx(scales, rel=1e-14)
        assert warned[0] == warned[1] > 5
        assert ours.optimizer.t == STEPS
        assert ours.model.predictor.conv.W.update_rule.t == STEPS - 1


def use_masters(run: Run) -> None:
    """Keep float32 masters of the float16 parameters."""
    run.optimizer.use_fp32_update()


def use_masters_and_rules_hooks(run: Run) -> None:
    """The same; hooks of rules are given the masters and true float32 gradients."""
    use_masters(run)
    hooks = LIBRARIES[type(run.optimizer).__module__.split(".")[0]].optimizer_hooks
    for param in run.model.predictor.l2.params():
        param.update_rule.add_hook(hooks.Lasso(0.001))
        param.update_rule.add_hook(hooks.GradientHardClipping(-0.02, 0.03))


class TestHalfPrecision:
    """Float16 models: where Chainer keeps float32 masters, the bits are Chainer's."""

    @two_optimizers
    @pytest.mark.parametrize(
        ("mixed", "loss_scale"), [(False, None), (False, 300.0), (True, 128.0)]
    )
    def test_masters(self, both: Any, name: str, mixed: bool, loss_scale: float | None) -> None:
        options = {} if loss_scale is None else {"updater_options": {"loss_scale": loss_scale}}
        dtype = chainer.mixed16 if mixed else np.float16
        ours, theirs = both(name, dtype=dtype, change=use_masters_and_rules_hooks, **options)
        assert_same(
            ours, theirs, {"fp32_param"} | bounds(name) | (LOSS_SCALING if loss_scale else set())
        )
        assert len({dtype for dtype, _ in ours.bits().values()}) == 1 + mixed
        losses = ours.values("main/loss")
        assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])

    def test_masters_and_hooks(self, both: Any) -> None:
        """Chainer's hooks compute in float16; ours, in float32, would round less."""

        def add_hooks(optimizer: Any, _: Any) -> None:
            add_all_hooks(optimizer, chainer.optimizer_hooks)

        ours, theirs = both("AMSGrad", dtype=np.float16, change=use_masters, add_hooks=add_hooks)
        assert_same(ours, theirs, {"fp32_param"})

    def test_without_masters(self, tmp_path: Path) -> None:
        """Chainer's float16 states make steps of about alpha / eps where v underflows.

        Ours are float32: the loss falls.
        """
        options: dict[str, Any] = {"dtype": np.float16, "add_hooks": add_weight_decay}
        ours = run_with("fastadam", tmp_path / "ours", "AdamW", **options)
        with np.errstate(all="ignore"):
            theirs = run_with("chainer", tmp_path / "theirs", "AdamW", **options)
        losses = ours.values("main/loss")
        assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
        assert np.mean(theirs.values("main/loss")[-4:]) > 100
        kinds = {
            dtype
            for key, (dtype, _, _) in ours.saved().items()
            if key.rsplit("/", 1)[-1] in ("m", "v", "vhat")
        }
        assert kinds == {"<f4"}


RESTARTABLE: dict[str, Any] = {"add_hooks": add_hooks_that_restart, "shuffle": False}


class TestResume:
    """A trainer's snapshot written with either library goes on with either."""

    @two_optimizers
    @pytest.mark.parametrize(("first", "then"), [("chainer", "fastadam"), ("fastadam", "chainer")])
    def test_same_as_uninterrupted(self, tmp_path: Path, name: str, first: str, then: str) -> None:
        whole = run_with("chainer", tmp_path / "whole", name, **RESTARTABLE)
        half = run_with(first, tmp_path / "half", name, epochs=2, **RESTARTABLE)
        rest = run_with(then, tmp_path / "rest", name, resume=half.snapshot(2), **RESTARTABLE)
        assert rest.log == whole.log
        assert rest.bits() == whole.bits()
        if then == "fastadam":
            assert_same(rest, whole, bounds(name))
        assert rest.optimizer.t == STEPS

    @pytest.mark.parametrize("first", LIBRARIES)
    def test_our_serializers(self, tmp_path: Path, first: str) -> None:
        """A whole trainer through our own npz functions, which never unpickle."""
        whole = run_with("chainer", tmp_path / "whole", "AMSBound", **RESTARTABLE)
        save = LIBRARIES[first].serializers.save_npz
        half = run_with(
            "fastadam", tmp_path / "half", "AMSBound", epochs=2, save=save, **RESTARTABLE
        )
        rest = run_with(
            "fastadam",
            tmp_path / "rest",
            "AMSBound",
            resume=half.snapshot(2),
            load=fastadam.serializers.load_npz,
            **RESTARTABLE,
        )
        assert_same(rest, whole, bounds("AMSBound"))

    def test_masters(self, tmp_path: Path) -> None:
        """Chainer's files lack the masters: it goes on from rounded weights, and so do we.

        Our files have them, and resumed equals uninterrupted.
        """
        options = {"dtype": np.float16, "change": use_masters, "shuffle": False}
        halves = {
            library: run_with(library, tmp_path / f"half {library}", epochs=2, **options)
            for library in LIBRARIES
        }
        rests = {
            (first, then): run_with(
                then,
                tmp_path / f"{first} {then}",
                resume=halves[first].snapshot(2),
                **options,
            )
            for first in LIBRARIES
            for then in LIBRARIES
        }
        whole = run_with("chainer", tmp_path / "whole", **options)
        from_rounded = rests["chainer", "chainer"]
        assert rests["fastadam", "fastadam"].log == whole.log
        assert rests["fastadam", "fastadam"].bits() == whole.bits()
        assert rests["chainer", "fastadam"].bits() == from_rounded.bits()
        assert rests["fastadam", "chainer"].bits() == from_rounded.bits()
        assert from_rounded.bits() != whole.bits()

    def test_dynamic_loss_scale(self, tmp_path: Path) -> None:
        """Our files know the scale."""

        def scale(run: Run) -> None:
            run.optimizer.loss_scaling(interval=7)
            run.optimizer._loss_scaling_isnan_ever = True  # from here on it rounds
            observe(run.trainer, run.optimizer, "_loss_scale")

        options = {"change": scale, "shuffle": False}
        whole = run_with("chainer", tmp_path / "whole", **options)
        half = run_with("fastadam", tmp_path / "half", epochs=2, **options)
        rest = run_with("fastadam", tmp_path / "rest", resume=half.snapshot(2), **options)
        assert rest.log == whole.log
        assert rest.optimizer.loss_scale == pytest.approx(2 ** (STEPS / 7))


class TestSeveralModels:
    """A copy of the model for every part of a batch, whose gradients are added."""

    @pytest.mark.parametrize("loss_scale", [None, 128.0])
    @two_optimizers
    def test_parallel_updater(self, both: Any, name: str, loss_scale: float | None) -> None:
        options: dict[str, Any] = {"devices": {"main": "@numpy", "second": "@numpy"}}
        options["loss_scale"] = loss_scale
        ours, theirs = both(
            name,
            updater=training.updaters.ParallelUpdater,
            updater_options=options,
            add_hooks=add_weight_decay,
        )
        assert_same(ours, theirs, bounds(name) | (LOSS_SCALING if loss_scale else set()))

    @two_optimizers
    def test_two_optimizers(self, both: Any, name: str) -> None:
        """An updater of one's own with a second optimizer, as for adversarial networks."""

        class Updater(training.updaters.StandardUpdater):
            def __init__(self, iterator: Any, main: Any, second: Any) -> None:
                super().__init__(iterator, {"main": main, "second": second})

            def update_core(self) -> None:
                x, t = self.converter(self.get_iterator("main").next(), self.device)
                model = self.get_optimizer("main").target
                self.get_optimizer("main").update(model, x, t)
                self.get_optimizer("second").update(
                    lambda: F.mean_squared_error(model.predictor(x), np.full((8, 4), 0.5, "f4"))
                )

        def change(run: Run) -> None:
            part = run.model.predictor.l2
            second = type(run.optimizer)(**OPTIMIZERS[name]).setup(part)
            run.trainer.updater._optimizers["second"] = second

        ours, theirs = both(
            name,
            updater=lambda iterator, optimizer: Updater(iterator, optimizer, optimizer),
            change=change,
        )
        assert_same(ours, theirs, bounds(name))
        assert ours.trainer.updater.get_optimizer("second").t == STEPS
