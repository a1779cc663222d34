"""The optimizers as subclasses of Chainer's: theirs by their classes, ours in all that they do."""

from __future__ import annotations

import copy
import importlib
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
import fastadam.chainer

KINDS = ("Adam", "AdamW", "AMSGrad", "AdaBound", "AMSBound")


@pytest.fixture
def chainer() -> Any:
    return pytest.importorskip("chainer", exc_type=(ImportError, AttributeError))


def child(script: str) -> str:
    """Run a script in a process of its own; return what it prints."""
    script = f"import sys; sys.path[:] = {sys.path!r}\n{script}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_chainer_is_imported_by_who_asks_for_a_class() -> None:
    out = child(
        "import fastadam, fastadam.chainer, fastadam.__main__\n"
        "from fastadam import chainer\n"
        "assert chainer is fastadam.chainer\n"
        "assert dir(chainer) and chainer.__all__\n"
        "assert not hasattr(chainer, 'SGD')\n"
        "print('chainer' in sys.modules)\n"
    )
    assert out == "False\n"


def test_without_chainer_it_says_what_to_install() -> None:
    for block in (
        "sys.modules['chainer'] = None",
        # as Chainer fails beside NumPy 2
        "import types; chainer = sys.modules['chainer'] = types.ModuleType('chainer')\n"
        "def fail(name): raise AttributeError('numpy has no bool')\n"
        "chainer.__getattr__ = fail",
    ):
        out = child(
            f"{block}\nimport fastadam\n"
            "by_import = lambda: exec('from fastadam.chainer import AdamW')\n"
            "for how in (lambda: fastadam.chainer.Adam, by_import):\n"
            "    try: how()\n"
            "    except ImportError as error: print(error)\n"
        )
        lines = out.splitlines()
        assert len(lines) == 2
        for line in lines:
            assert line.startswith("fastadam.chainer needs Chainer, which cannot be imported")
            assert '"setuptools<81" "chainer==7.8.1" "numpy==1.26.4"' in line
            assert "fastadam.optimizers" in line


@pytest.mark.parametrize("kind", KINDS)
def test_classes(chainer: Any, kind: str) -> None:
    made = getattr(fastadam.chainer, kind)
    assert made is getattr(fastadam.chainer, kind)
    opt = made()
    for base in (
        getattr(fastadam, kind),
        getattr(chainer.optimizers, kind),
        fastadam.Adam,
        fastadam.chainer.Adam,
        chainer.optimizers.Adam,
        fastadam.GradientMethod,
        fastadam.Optimizer,
        chainer.GradientMethod,
        chainer.Optimizer,
        chainer.optimizer.GradientMethod,
    ):
        assert isinstance(opt, base)
    for other in KINDS:
        if other != kind and "Adam" not in (other, kind):
            assert not isinstance(opt, getattr(chainer.optimizers, other))
    assert (made.__module__, made.__qualname__) == ("fastadam.chainer", kind)
    # nothing that anybody may call or read is Chainer's
    for name in dir(made):
        if not name.startswith("_"):
            owner = next(c for c in made.__mro__ if name in vars(c))
            assert owner.__module__.startswith("fastadam."), name
    assert repr(opt) == repr(getattr(fastadam, kind)())


def program(optimizer: Any, chainer: Any) -> tuple[Any, Any]:
    """Train one of Chainer's models by Chainer's trainer, and return it and the optimizer."""
    np.random.seed(0)
    x = np.random.randn(60, 3).astype(np.float32)
    t = (x[:, 0] > 0).astype(np.int32)
    model = chainer.links.Classifier(
        chainer.Sequential(chainer.links.Linear(3, 4), chainer.links.Linear(4, 2))
    )
    optimizer.setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-3))
    dataset = chainer.datasets.TupleDataset(x, t)
    iterator = chainer.iterators.SerialIterator(dataset, 20, shuffle=False)
    updater = chainer.training.updaters.StandardUpdater(iterator, optimizer)
    trainer = chainer.training.Trainer(updater, (3, "epoch"))
    trainer.extend(chainer.training.extensions.ExponentialShift("alpha", 0.5), trigger=(1, "epoch"))
    trainer.run()
    return model, optimizer


def arrays(model: Any) -> dict[str, bytes]:
    return {path: param.array.tobytes() for path, param in sorted(model.namedparams())}


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_of_chainers(
    chainer: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, opt = program(getattr(fastadam.chainer, kind)(alpha=0.01), chainer)
    theirs, chainers = program(getattr(chainer.optimizers, kind)(alpha=0.01), chainer)
    assert arrays(model) == arrays(theirs)
    assert (opt.t, opt.epoch, opt.alpha) == (chainers.t, chainers.epoch, chainers.alpha)
    assert opt.t == 9
    # files go both ways, by both libraries' functions
    for save, load in (
        (chainer.serializers, fastadam.serializers),
        (fastadam.serializers, chainer.serializers),
        (chainer.serializers, chainer.serializers),
    ):
        for source, target in ((opt, chainers), (chainers, opt)):
            if target is chainers and load is fastadam.serializers:
                continue  # its own rules read from its own deserializers alone
            file = io.BytesIO()
            save.save_npz(file, source)
            file.seek(0)
            twin = getattr(
                chainer.optimizers if target is chainers else fastadam.chainer, kind
            )().setup(copy.deepcopy(theirs))
            load.load_npz(file, twin)
            assert twin.t == 9
            for (_, one), (_, two) in zip(
                sorted(twin.target.namedparams()), sorted(source.target.namedparams()), strict=True
            ):
                assert one.update_rule.t == two.update_rule.t == 9
                for name, value in two.update_rule.state.items():
                    assert one.update_rule.state[name].tobytes() == value.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_everything_of_ours(chainer: Any, kind: str, tmp_path: Path) -> None:
    made = getattr(fastadam.chainer, kind)

    def trained(cls: Any, steps: int = 3) -> Any:
        opt = cls(alpha=0.1, missing_gradients="skip").setup({"w": np.ones(3), "b": np.ones(2)})
        for _ in range(steps):
            opt.apply_gradients({"w": np.ones(3), "b": None})
        return opt

    opt, plain = trained(made), trained(getattr(fastadam, kind))
    assert opt.target["w"].tobytes() == plain.target["w"].tobytes()
    assert opt.last_update == plain.last_update
    assert opt._plan is None or type(opt._plan) is type(plain._plan)
    for copied in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert type(copied) is made
        assert copied == opt
        assert copied.target["w"].tobytes() == opt.target["w"].tobytes()
    fastadam.save(tmp_path / "run.npz", opt)
    again = trained(made, 0)
    fastadam.load(tmp_path / "run.npz", again)
    assert again == opt
    fastadam.load(tmp_path / "run.npz", plain)
    with pytest.raises(AttributeError, match="'alpha' is meant"):
        opt.aplha = 1.0
    with pytest.raises(TypeError, match="alpha"):
        made(lr=0.1)

    class Mine(made):  # type: ignore[misc, valid-type]
        def create_update_rule(self) -> Any:
            rule = super().create_update_rule()
            rule.hyperparam.alpha = 0.5
            return rule

    assert isinstance(Mine(), chainer.optimizers.Adam)
    mine = trained(Mine)
    assert mine.parameters["w"].update_rule.hyperparam.alpha == 0.5
    assert importlib.import_module("fastadam.chainer").Adam is fastadam.chainer.Adam
