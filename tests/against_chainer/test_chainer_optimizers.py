"""Optimizers, rules, hooks and snapshots beside Chainer's own."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

chainer = pytest.importorskip("chainer", reason="needs Chainer 7.8.1 on NumPy 1.26")

import chainer.functions as F  # noqa: E402, N812
import chainer.links as L  # noqa: E402, N812

import fastadam  # noqa: E402

ARGUMENTS: dict[str, Any] = {"alpha": 0.03, "beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "eta": 0.7}
BOUND = {"final_lr": 0.3, "gamma": 0.05}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "Adam": ("Adam", {**ARGUMENTS, "weight_decay_rate": 0.02}),
    "AdamW": ("AdamW", {**ARGUMENTS, "weight_decay_rate": 0.1}),
    "AMSGrad": ("AMSGrad", ARGUMENTS),
    "AdaBound": ("AdaBound", {**ARGUMENTS, **BOUND}),
    "AMSBound": ("AMSBound", {**ARGUMENTS, **BOUND}),
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)
LIBRARIES = {"chainer": chainer, "fastadam": fastadam}
every_pair = pytest.mark.parametrize(
    ("source", "target"), [("chainer", "fastadam"), ("fastadam", "chainer")]
)


class Model(chainer.Chain):
    """A real model with a layer that gets its size from the data."""

    def __init__(self, lazy: bool = True) -> None:
        super().__init__()
        random = np.random.RandomState(1)
        with self.init_scope():
            self.l1 = L.Linear(4, 5, initialW=random.standard_normal((5, 4)).astype("f4"))
            self.l2 = L.Linear(None if lazy else 5, 3)
            self.scale = chainer.Parameter(np.ones((1, 3), "f4"))

    def filled(self) -> Model:
        """Give the second layer weights that are the same in every model."""
        self.l2.W.array[...] = np.random.RandomState(2).standard_normal((3, 5))
        return self

    def __call__(self, x: Any) -> Any:
        return self.l2(F.tanh(self.l1(x))) * F.broadcast_to(self.scale, (x.shape[0], 3))


RANDOM = np.random.RandomState(0)
X = RANDOM.standard_normal((60, 4)).astype("f4")
Y = RANDOM.standard_normal((60, 3)).astype("f4")


def loss_of(model: Any, step: int) -> Any:
    rows = slice(6 * (step % 10), 6 * (step % 10) + 6)
    return F.mean_squared_error(model(X[rows]), Y[rows])


def make(library: str, variant: str, model: Any, override: bool = True) -> Any:
    name, arguments = VARIANTS[variant]
    # Chainer's way of decay is said, or there is a warning
    mode = {"decay_mode": "eta"} if (library, name) == ("fastadam", "AdamW") else {}
    opt = getattr(LIBRARIES[library].optimizers, name)(**arguments, **mode).setup(model)
    if override:
        own = model.l1.b.update_rule.hyperparam
        own.alpha, own.beta1, own.eps = 0.01, 0.6, 1e-4
    return opt


def train(opt: Any, first: int, last: int) -> list[bytes]:
    """Train by a loss function; return the losses' bits."""
    losses = []

    def lossfun(step: int) -> Any:
        loss = loss_of(opt.target, step)
        losses.append(loss.array.tobytes())
        return loss

    for step in range(first, last):
        opt.update(lossfun, step)
    return losses


def state_of(rule: Any) -> Any:
    return rule.state and {
        key: (a.dtype.str, a.shape, np.ascontiguousarray(a).tobytes())
        for key, a in rule.state.items()
    }


def snapshot(opt: Any) -> Any:
    rules = {
        path: None if p.update_rule is None else (p.update_rule.t, state_of(p.update_rule))
        for path, p in sorted(opt.target.namedparams())
    }
    arrays = {
        path: None if p.array is None else p.array.tobytes()
        for path, p in sorted(opt.target.namedparams())
    }
    return opt.t, opt.epoch, rules, arrays


class TestRealModel:
    @every_variant
    def test_same_losses(self, variant: str) -> None:
        theirs = make("chainer", variant, Model(lazy=False).filled())
        ours = make("fastadam", variant, Model(lazy=False).filled())
        assert train(ours, 0, 60) == train(theirs, 0, 60)
        assert snapshot(ours) == snapshot(theirs)
        assert ours.alpha_t == theirs.alpha_t

    def test_it_learns(self) -> None:
        opt = make("fastadam", "Adam", Model(lazy=False).filled())
        losses = [np.frombuffer(loss, "f4")[0] for loss in train(opt, 0, 100)]
        assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])

    @every_variant
    def test_gradients_and_update_called_apart(self, variant: str) -> None:
        opts = [make(name, variant, Model(lazy=False).filled()) for name in LIBRARIES]
        for opt in opts:
            for step in range(8):
                loss = loss_of(opt.target, step)
                opt.target.cleargrads()
                loss.backward()
                opt.update()
        assert snapshot(opts[0]) == snapshot(opts[1])

    def test_schedules(self) -> None:
        opts = [make(name, "AMSBound", Model(lazy=False).filled()) for name in LIBRARIES]
        losses = []
        for opt in opts:
            result = []
            for step in range(12):
                opt.alpha *= 0.9
                opt.eta = 1.0 / (1 + step)
                result += train(opt, step, step + 1)
            losses.append(result)
        assert losses[0] == losses[1]
        assert snapshot(opts[0]) == snapshot(opts[1])

    @every_variant
    def test_disabled_layers(self, variant: str) -> None:
        opts = [make(name, variant, Model(lazy=False).filled()) for name in LIBRARIES]
        losses = []
        for opt in opts:
            result = train(opt, 0, 3)
            opt.target.l1.disable_update()
            result += train(opt, 3, 6)
            opt.target.l1.enable_update()
            opt.target.l2.W.update_rule = None
            result += train(opt, 6, 9)
            losses.append(result)
        assert losses[0] == losses[1]
        assert snapshot(opts[0]) == snapshot(opts[1])
        assert opts[0].target.l1.W.update_rule.t == 6

    def test_lazy_layer(self) -> None:
        """The first loss makes the weights, before the first count."""
        losses = []
        for name in LIBRARIES:
            np.random.seed(3)  # for Chainer's initializer
            opt = make(name, "Adam", Model())
            losses.append(train(opt, 0, 10))
            assert opt.target.l2.W.update_rule.t == 10
        assert losses[0] == losses[1]

    @every_variant
    def test_gradients_given_from_outside(self, variant: str) -> None:
        opts = [make(name, variant, Model(lazy=False).filled()) for name in LIBRARIES]
        theirs, ours = opts
        random = np.random.RandomState(4)
        for _ in range(5):
            grads = {
                path.strip("/"): random.standard_normal(p.shape).astype("f4")
                for path, p in theirs.target.namedparams()
            }
            kept = {path: g.copy() for path, g in grads.items()}
            for path, param in theirs.target.namedparams():
                param.grad = grads[path.strip("/")].copy()
            theirs.update()
            ours.apply_gradients(grads)
            assert all(g.tobytes() == kept[path].tobytes() for path, g in grads.items())
        assert snapshot(ours) == snapshot(theirs)

    def test_chainers_own_hooks(self) -> None:
        hooks = chainer.optimizer_hooks
        opts = []
        losses = []
        for name in LIBRARIES:
            opt = make(name, "AMSGrad", Model(lazy=False).filled())
            opt.add_hook(hooks.WeightDecay(0.01))
            opt.add_hook(hooks.GradientHardClipping(-0.05, 0.04))
            opt.add_hook(hooks.Lasso(0.001))
            opt.add_hook(hooks.GradientClipping(0.1))
            opt.target.l2.b.update_rule.add_hook(hooks.WeightDecay(0.3))
            losses.append(train(opt, 0, 15))
            opts.append(opt)
        assert losses[0] == losses[1]
        assert snapshot(opts[0]) == snapshot(opts[1])
        plain = make("fastadam", "AMSGrad", Model(lazy=False).filled())
        assert train(plain, 0, 15) != losses[1]

    def test_trainer(self, tmp_path: Any) -> None:
        """StandardUpdater, a schedule and LogReport, all Chainer's, with either optimizer."""
        results = []
        for name in LIBRARIES:
            model = L.Classifier(Model(lazy=False).filled(), lossfun=F.mean_squared_error)
            model.compute_accuracy = False
            opt = LIBRARIES[name].optimizers.AMSBound(**ARGUMENTS, **BOUND).setup(model)
            data = chainer.datasets.TupleDataset(X, Y)
            iterator = chainer.iterators.SerialIterator(data, 10, shuffle=False)
            updater = chainer.training.StandardUpdater(iterator, opt)
            trainer = chainer.training.Trainer(updater, (4, "epoch"), out=str(tmp_path))
            trainer.extend(chainer.training.extensions.ExponentialShift("alpha", 0.5))
            trainer.run()
            assert opt.use_auto_new_epoch
            results.append((snapshot(opt), opt.alpha))
        assert results[0] == results[1]
        assert results[0][0][:2] == (24, 4)


class Recorder:
    """The events of an update, in order, with the arguments that hooks are given."""

    def __init__(self, library: str, optimizer_class: str = "Adam") -> None:
        self.events: list[Any] = []
        events = self.events
        module = LIBRARIES[library]
        base = getattr(module.optimizers, optimizer_class)

        class Watched(base):
            def reallocate_cleared_grads(self) -> None:
                events.append("reallocate")
                super().reallocate_cleared_grads()

        class Link(module.Link):
            def cleargrads(self) -> None:
                events.append("cleargrads")
                super().cleargrads()

        self.link = Link()
        with self.link.init_scope():
            for name in "abc":
                setattr(self.link, name, module.Parameter(np.ones(2, "f4")))
        self.link.cleargrads()
        events.clear()
        self.opt = Watched(**ARGUMENTS).setup(self.link)
        self.rules = {param.name: param.update_rule for param in self.link.params()}

    def describe(self, args: tuple[Any, ...]) -> list[Any]:
        """Tell what a hook was given, by identity."""
        names = {id(self.opt): "optimizer"}
        for param in self.link.params():
            names[id(param)] = f"param {param.name}"
        for name, rule in self.rules.items():
            names[id(rule)] = f"rule {name}"
        return [None if arg is None else names.get(id(arg), repr(arg)) for arg in args]

    def hook(self, label: str, clear: str = "", **attributes: Any) -> Callable[..., None]:
        def call(*args: Any) -> None:
            counts = [self.rules[name].t for name in "abc"]
            grads = [p.grad is not None for p in (self.link.a, self.link.b, self.link.c)]
            self.events.append((label, *self.describe(args), self.opt.t, counts, grads))
            if clear:
                getattr(self.link, clear).cleargrad()

        call.__dict__.update(attributes)
        call.__name__ = label
        return call

    def lossfun(self, *args: Any, **kwds: Any) -> Any:
        self.events.append(("loss", args, kwds, self.opt.t))
        return self

    def backward(self, **kwds: Any) -> None:
        self.events.append(("backward", kwds))
        self.link.a.grad = np.full(2, 0.5, "f4")
        self.link.b.grad = np.full(2, 0.25, "f4")


@pytest.fixture
def recorders() -> dict[str, Recorder]:
    return {name: Recorder(name) for name in LIBRARIES}


class TestEvents:
    """The same things happen in the same order, with the same arguments."""

    def compare(self, recorders: dict[str, Recorder], scenario: Callable[[Recorder], None]) -> Any:
        for recorder in recorders.values():
            recorder.events.clear()
            scenario(recorder)
        theirs, ours = recorders["chainer"], recorders["fastadam"]
        assert ours.events == theirs.events
        assert snapshot(ours.opt) == snapshot(theirs.opt)
        return ours.events

    def with_hooks(self, r: Recorder) -> None:
        r.opt.add_hook(r.hook("post 1", timing="post"))
        r.opt.add_hook(r.hook("pre 1", clear="b"))
        r.opt.add_hook(r.hook("each", call_for_each_param=True))
        r.opt.add_hook(r.hook("pre 2", timing="post"), timing="pre")
        r.opt.add_hook(r.hook("each post", call_for_each_param=True, clear="a"), timing="post")
        r.opt.add_hook(r.hook("named", clear="c"), name="other name")
        for name in "abc":
            r.rules[name].add_hook(r.hook(f"rule post {name}", timing="post"))
            r.rules[name].add_hook(r.hook(f"rule pre {name}"))

    def test_update_with_a_loss_function(self, recorders: dict[str, Recorder]) -> None:
        def scenario(r: Recorder) -> None:
            self.with_hooks(r)
            for step in range(3):
                r.opt.update(r.lossfun, step, key="word")

        events = self.compare(recorders, scenario)
        assert len(events) == 3 * 27
        assert events[:5] == [
            ("loss", (0,), {"key": "word"}, 0),
            "cleargrads",
            ("backward", {"loss_scale": None}),
            "reallocate",
            ("pre 1", "optimizer", 0, [0, 0, 0], [True, True, True]),
        ]

    def test_update_without_a_loss_function(self, recorders: dict[str, Recorder]) -> None:
        def scenario(r: Recorder) -> None:
            self.with_hooks(r)
            for step in range(3):
                r.link.cleargrads()
                r.link.c.grad = np.full(2, 0.5 + step, "f4")
                r.opt.update()

        self.compare(recorders, scenario)

    def test_disabled_rules_and_rules_of_none(self, recorders: dict[str, Recorder]) -> None:
        def scenario(r: Recorder) -> None:
            self.with_hooks(r)
            r.opt.update(r.lossfun)
            r.link.a.update_rule.enabled = False
            r.link.b.update_rule = None
            r.opt.update(r.lossfun)
            r.link.a.update_rule.enabled = True
            r.opt.update(r.lossfun)

        for recorder in recorders.values():
            recorder.events.clear()
            scenario(recorder)
        # hooks called for each parameter leave out those that no update touches
        left_out = [
            (label, rule, f"param {name}")
            for label in ("each", "each post")
            for rule, name in (("rule a", "a"), (None, "b"))
        ]
        second, third = (
            [i for i, event in enumerate(recorders["chainer"].events) if event[0] == "loss"][k]
            for k in (1, 2)
        )
        expected = [
            event[:3]
            for i, event in enumerate(recorders["chainer"].events)
            if event[:3] not in left_out or i < second or (i > third and event[2] == "param a")
        ]
        assert [event[:3] for event in recorders["fastadam"].events] == expected
        assert len(expected) == len(recorders["chainer"].events) - 6

    def test_calling_hooks_by_hand(self, recorders: dict[str, Recorder]) -> None:
        def scenario(r: Recorder) -> None:
            self.with_hooks(r)
            r.opt.call_hooks()
            r.opt.call_hooks("post")
            r.opt.remove_hook("other name")
            r.opt.remove_hook("post 1")
            r.opt.call_hooks("pre")
            r.opt.call_hooks(timing="post")
            r.opt.call_hook(r.hook("single", call_for_each_param=True))
            for bad in ("auto", "x"):
                with pytest.raises(ValueError):  # noqa: PT011 - each in its own words
                    r.opt.call_hooks(bad)

        self.compare(recorders, scenario)

    def test_setup_drops_hooks(self, recorders: dict[str, Recorder]) -> None:
        def scenario(r: Recorder) -> None:
            self.with_hooks(r)
            r.opt.update(r.lossfun)
            r.opt.new_epoch()
            r.opt.setup(r.link)
            r.rules = {param.name: param.update_rule for param in r.link.params()}
            r.opt.update(r.lossfun)

        self.compare(recorders, scenario)

    def test_rule_by_itself(self, recorders: dict[str, Recorder]) -> None:
        def scenario(r: Recorder) -> None:
            self.with_hooks(r)
            for param in r.link.params():
                param.grad = np.ones(2, "f4")
                for _ in range(3):
                    param.update()
            r.rules["a"].remove_hook("rule pre a")
            r.rules["a"].update(r.link.a)
            r.rules["a"].enabled = False
            r.rules["a"].update(r.link.a)

        self.compare(recorders, scenario)

    @pytest.mark.parametrize(
        "bad",
        [
            lambda o, h: o.add_hook("no function"),
            lambda o, h: o.add_hook(h, timing="x"),
            lambda o, h: o.add_hook(type("C", (), {"__call__": print})()),
            lambda o, h: o.add_hook(h, name="there"),
            lambda o, h: o.add_hook(h, name="there", timing="post"),
            lambda o, h: o.remove_hook("not there"),
        ],
    )
    @pytest.mark.parametrize("which", ["optimizer", "rule"])
    def test_errors_of_hooks(self, recorders: dict[str, Recorder], bad: Any, which: str) -> None:
        errors = []
        for r in recorders.values():
            owner = r.opt if which == "optimizer" else r.rules["a"]
            owner.add_hook(r.hook("there"))
            with pytest.raises((TypeError, ValueError, KeyError)) as caught:
                bad(owner, r.hook("h"))
            errors.append(caught.type)
        assert errors[0] is errors[1]


class TestCounters:
    def test_epochs(self) -> None:
        trails = []
        for name in LIBRARIES:
            opt = make(name, "Adam", Model(lazy=False))
            trail: list[Any] = [opt.t, opt.epoch, opt.use_auto_new_epoch]
            for auto, flag in ((False, False), (True, False), (False, True), (True, True)):
                opt.use_auto_new_epoch = flag
                try:
                    opt.new_epoch(auto=auto)
                except RuntimeError:
                    trail.append("RuntimeError")
                trail.append(opt.epoch)
            opt.setup(opt.target)
            trails.append([*trail, opt.epoch, opt.t])
        assert trails[0] == trails[1]
        assert trails[0].count("RuntimeError") == 2

    @pytest.mark.parametrize("call", ["alpha_t", "lr", "bounds"])
    def test_before_the_first_update(self, call: str) -> None:
        for name in LIBRARIES:
            model = Model(lazy=False)
            opt = make(name, "AMSBound", model)
            owners = [model.l1.W.update_rule] if call == "bounds" else [opt, model.l1.W.update_rule]
            for owner in owners:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)
                    with pytest.raises(RuntimeError):
                        getattr(owner, call)

    @every_variant
    def test_scalars_of_the_step(self, variant: str) -> None:
        opts = [make(name, variant, Model(lazy=False).filled()) for name in LIBRARIES]
        found = []
        for opt in opts:
            trail = []
            for step in range(5):
                opt.alpha *= 0.75
                train(opt, step, step + 1)
                rule = opt.target.l1.b.update_rule
                with pytest.warns(DeprecationWarning, match="lr|alpha_t"):
                    trail.append((opt.lr, rule.lr))
                trail.append((opt.alpha_t, rule.alpha_t))
                if opt.adabound:
                    trail.append(rule.bounds)
            found.append(trail)
        assert found[0] == found[1]


class ChainerSGDRule(chainer.UpdateRule):
    """A rule of a Chainer user."""

    def update_core_cpu(self, param: Any) -> None:
        param.array -= np.float32(self.hyperparam.lr) * param.grad


class TestRulesOfBothLibraries:
    """One target may hold rules of either library, and of Chainer's users."""

    @pytest.mark.parametrize("rule", ["SGDRule", "users", "MomentumSGDRule"])
    @pytest.mark.parametrize("driver", LIBRARIES)
    def test_beside_each_other(self, rule: str, driver: str) -> None:
        def other_rule() -> Any:
            if rule == "users":
                made = ChainerSGDRule()
                made.hyperparam.lr = 0.05
                return made
            module = (
                chainer.optimizers.sgd if rule == "SGDRule" else chainer.optimizers.momentum_sgd
            )
            return getattr(module, rule)(lr=0.05)

        theirs = make("chainer", "AMSBound", Model(lazy=False).filled())
        mixed = make(driver, "AMSBound", Model(lazy=False).filled())
        for opt in (theirs, mixed):
            opt.target.l2.W.update_rule = other_rule()
        if driver == "chainer":  # Chainer's optimizer, one of our rules
            mixed.target.l1.W.update_rule = fastadam.AdamRule(
                **VARIANTS["AMSBound"][1], amsgrad=True, adabound=True
            )
        assert train(mixed, 0, 12) == train(theirs, 0, 12)
        assert snapshot(mixed) == snapshot(theirs)
        assert mixed.target.l2.W.update_rule.t == 12

    def test_our_optimizers_rule_under_chainers_optimizer(self) -> None:
        theirs = make("chainer", "Adam", Model(lazy=False).filled(), override=False)
        other = make("chainer", "Adam", Model(lazy=False).filled(), override=False)
        ours = fastadam.Adam(**VARIANTS["Adam"][1])
        for param in other.target.params():
            param.update_rule = ours.create_update_rule()
        assert train(other, 0, 10) == train(theirs, 0, 10)
        assert snapshot(other) == snapshot(theirs)

    def test_snapshot_of_a_mixed_target(self) -> None:
        def mixed(library: str) -> Any:
            opt = make(library, "Adam", Model(lazy=False).filled())
            opt.target.l2.W.update_rule = chainer.optimizers.momentum_sgd.MomentumSGDRule(lr=0.05)
            return opt

        theirs, ours = mixed("chainer"), mixed("fastadam")
        train(theirs, 0, 5)
        train(ours, 0, 5)
        for module in LIBRARIES.values():
            assert saved_keys(module, ours) == saved_keys(module, theirs)
        again = mixed("fastadam")
        train(again, 7, 8)  # Chainer's rule takes its state from our file only if it has some
        for save, load in ((fastadam, fastadam), (chainer, chainer), (chainer, fastadam)):
            copy_over(save, ours, load, again)
            assert snapshot(again)[:3] == snapshot(ours)[:3]
            train(again, 7, 8)


def saved(module: Any, obj: Any) -> io.BytesIO:
    file = io.BytesIO()
    module.serializers.save_npz(file, obj)
    file.seek(0)
    return file


def saved_keys(module: Any, obj: Any) -> dict[str, Any]:
    """Keys with shapes and dtypes."""
    with np.load(saved(module, obj), allow_pickle=True) as npz:
        return {key: (npz[key].shape, npz[key].dtype.str) for key in npz.files}


def copy_over(save: Any, source: Any, load: Any, target: Any) -> None:
    """Copy one object into another through a file."""
    load.serializers.load_npz(saved(save, source), target)


class TestSnapshots:
    """Saved by one library, loaded by the other; training goes on with the same bits."""

    @every_variant
    @every_pair
    @pytest.mark.parametrize("fresh", [True, False])
    def test_goes_on(self, variant: str, source: str, target: str, fresh: bool) -> None:
        old = make(source, variant, Model(lazy=False).filled())
        train(old, 0, 7)
        old.new_epoch()
        new = make(target, variant, Model(lazy=False))
        if not fresh:
            train(new, 20, 22)
        copy_over(LIBRARIES[source], old, LIBRARIES[target], new)
        copy_over(LIBRARIES[source], old.target, LIBRARIES[target], new.target)
        assert snapshot(new) == snapshot(old)
        assert train(new, 7, 20) == train(old, 7, 20)
        assert snapshot(new) == snapshot(old)

    @every_variant
    @pytest.mark.parametrize("save", LIBRARIES)
    @pytest.mark.parametrize("load", LIBRARIES)
    def test_our_optimizer_through_either_librarys_files(
        self, variant: str, save: str, load: str
    ) -> None:
        old = make("fastadam", variant, Model(lazy=False).filled())
        train(old, 0, 5)
        new = make("fastadam", variant, Model(lazy=False))
        copy_over(LIBRARIES[save], old, LIBRARIES[load], new)
        copy_over(LIBRARIES[save], old.target, LIBRARIES[load], new.target)
        assert snapshot(new) == snapshot(old)
        assert train(new, 5, 9) == train(old, 5, 9)

    @every_variant
    @pytest.mark.parametrize("save", LIBRARIES)
    def test_chainers_optimizer_saved_by_either_library(self, variant: str, save: str) -> None:
        old = make("chainer", variant, Model(lazy=False).filled())
        train(old, 0, 5)
        for library in LIBRARIES:
            new = make(library, variant, Model(lazy=False))
            copy_over(LIBRARIES[save], old, LIBRARIES[library], new)
            copy_over(LIBRARIES[save], old.target, LIBRARIES[library], new.target)
            assert snapshot(new) == snapshot(old)

    @every_variant
    def test_chainers_optimizer_loaded_by_our_reader(self, variant: str) -> None:
        """Chainer's rule takes state from a foreign reader only into state that it has."""
        old = make("fastadam", variant, Model(lazy=False).filled())
        train(old, 0, 5)
        new = make("chainer", variant, Model(lazy=False).filled())
        train(new, 20, 22)
        copy_over(fastadam, old, fastadam, new)
        assert snapshot(new)[:3] == snapshot(old)[:3]

    @every_variant
    def test_same_keys(self, variant: str) -> None:
        def prepared(library: str, state: str) -> Any:
            opt = make(library, variant, Model(lazy=state == "lazy"))
            if state == "disabled":
                opt.target.l1.disable_update()
            if state == "rule of none":
                opt.target.scale.update_rule = None
            if state == "lazy":
                opt.target.cleargrads()
                opt.update()
            elif state != "new":
                train(opt, 0, 2)
            return opt

        for state in ("new", "trained", "disabled", "rule of none", "lazy"):
            for save in LIBRARIES.values():
                ours = saved_keys(save, prepared("fastadam", state))
                theirs = saved_keys(save, prepared("chainer", state))
                if "Bound" in variant:
                    # what Chainer forgets: one parameter's alpha is not its first
                    assert ours.pop("l1/b/initial_alpha") == ((), "<f8")
                assert ours == theirs
                assert len(ours) > 6

    def test_same_keys_of_a_shared_parameter(self) -> None:
        keys = []
        for library in LIBRARIES:
            model = Model(lazy=False).filled()
            with model.l2.init_scope():
                model.l2.shared = model.l1.W
            opt = make(library, "AMSGrad", model)
            train(opt, 0, 2)
            keys.append(saved_keys(chainer, opt))
        assert keys[0] == keys[1]
        assert "l2/shared/vhat" in keys[0]

    @every_pair
    def test_disabled_rules(self, source: str, target: str) -> None:
        old = make(source, "AMSBound", Model(lazy=False).filled())
        new = make(target, "AMSBound", Model(lazy=False))
        for opt in (old, new):
            opt.target.l1.disable_update()
        train(old, 0, 4)
        copy_over(LIBRARIES[source], old, LIBRARIES[target], new)
        copy_over(LIBRARIES[source], old.target, LIBRARIES[target], new.target)
        assert snapshot(new) == snapshot(old)
        for opt in (old, new):
            opt.target.l1.enable_update()
        assert train(new, 4, 9) == train(old, 4, 9)
        assert snapshot(new) == snapshot(old)
        assert old.target.l1.W.update_rule.t == 5

    @every_pair
    def test_uninitialised_when_loaded(self, source: str, target: str) -> None:
        old = make(source, "AMSBound", Model(lazy=False).filled())
        train(old, 0, 4)
        new = make(target, "AMSBound", Model(lazy=True))
        assert new.target.l2.W.array is None
        copy_over(LIBRARIES[source], old, LIBRARIES[target], new)
        assert snapshot(new)[:3] == snapshot(old)[:3]
        copy_over(LIBRARIES[source], old.target, LIBRARIES[target], new.target)
        assert train(new, 4, 9) == train(old, 4, 9)
        assert snapshot(new) == snapshot(old)

    def test_saved_by_chainer_before_the_first_update(self) -> None:
        old = make("chainer", "AMSBound", Model(lazy=True))
        new = make("fastadam", "AMSBound", Model(lazy=True))
        train(new, 20, 22)
        copy_over(chainer, old, fastadam, new)
        assert new.t == 0
        assert {p.update_rule.t for p in new.target.params()} == {0}
        assert {p.update_rule.state is None for p in new.target.params()} == {True}

    def test_saved_by_chainer_with_uninitialised_parameters_after_updates(self) -> None:
        """Chainer counts their updates, and has no state for them."""
        old = make("chainer", "AMSBound", Model(lazy=True))
        for _ in range(3):
            old.target.cleargrads()
            old.update()
        assert old.target.l2.W.update_rule.t == 3
        new = make("fastadam", "AMSBound", Model(lazy=True))
        copy_over(chainer, old, fastadam, new)
        assert new.t == 3
        assert new.target.l2.W.update_rule.state is None
        assert state_of(new.target.l1.W.update_rule) == state_of(old.target.l1.W.update_rule)
        train(new, 0, 2)
        assert np.all(np.isfinite(new.target.l2.W.array))

    @pytest.mark.parametrize("missing", ["l1/W/vhat", "l2/b/t", "epoch", "scale/m"])
    @pytest.mark.parametrize("load", LIBRARIES)
    def test_incomplete_file_changes_nothing(self, missing: str, load: str) -> None:
        old = make("chainer", "AMSBound", Model(lazy=False).filled())
        train(old, 0, 4)
        with np.load(saved(chainer, old)) as npz:
            parts = {key: npz[key] for key in npz.files if key != missing}
        file = io.BytesIO()
        np.savez(file, **parts)
        for used in (False, True):
            file.seek(0)
            new = make("fastadam", "AMSBound", Model(lazy=False).filled())
            if used:
                train(new, 20, 22)
            before = snapshot(new)
            with pytest.raises(KeyError, match=missing):
                LIBRARIES[load].serializers.load_npz(file, new)
            assert snapshot(new) == before

    def test_whole_trainer_snapshot(self) -> None:
        """The optimizer below 'updater/optimizer:main', as Chainer's snapshots have it."""
        old = make("chainer", "AMSBound", Model(lazy=False).filled())
        train(old, 0, 4)
        serializer = chainer.serializers.DictionarySerializer()
        old.serialize(serializer["updater"]["optimizer:main"])
        old.target.serialize(serializer["updater"]["model:main"])
        file = io.BytesIO()
        np.savez_compressed(file, **serializer.target)
        new = make("fastadam", "AMSBound", Model(lazy=False))
        for obj, path in ((new, "optimizer"), (new.target, "model")):
            file.seek(0)
            fastadam.serializers.load_npz(file, obj, path=f"updater/{path}:main/")
        assert snapshot(new) == snapshot(old)
        assert train(new, 4, 8) == train(old, 4, 8)
