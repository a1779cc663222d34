"""Every piece of advice does what it says: it is followed here, in the words of the message."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import (
    AdaBound,
    Adam,
    AdamW,
    AMSBound,
    AMSGrad,
    Link,
    Parameter,
    optimizer_hooks,
    optimizers,
    serializers,
)
from fastadam.optimizers import decay_advice
from fastadam.optimizers.suggestions import ARGUMENTS, ELSEWHERE, METHODS, OTHER_OPTIMIZERS

KINDS = (Adam, AdamW, AMSGrad, AdaBound, AMSBound)
FLAGS = {
    Adam: {},
    AdamW: {},
    AMSGrad: {"amsgrad": True},
    AdaBound: {"adabound": True},
    AMSBound: {"amsgrad": True, "adabound": True},
}


def told(call: Callable[[], Any]) -> str:
    """The message of a refusal."""
    with pytest.raises((TypeError, AttributeError)) as caught:
        call()
    return str(caught.value)


def code(message: str) -> list[str]:
    """The calls and assignments that a message spells."""
    return re.findall(r"(?:opt\.|model\.)?\w+\([^()]*(?:\([^()]*\)[^()]*)*\)", message)


def stepped(opt: Any, gradient: float = 0.5) -> float:
    """Where one step leaves 1."""
    w = np.ones(1)
    opt.setup(w).apply_gradients(np.array([gradient]))
    return float(w[0])


# What is done with the advice on each argument; the message is given, with its class.
def _alpha(kind: Any, text: str) -> None:
    assert "called alpha" in text
    assert kind(alpha=0.5).alpha == 0.5


def _betas(kind: Any, text: str) -> None:
    assert "give beta1 and beta2" in text
    assert stepped(kind(beta1=0.5, beta2=0.75)) < 1


def _epsilon(kind: Any, text: str) -> None:
    assert "called eps" in text
    assert "eps_mode='paper'" in text
    # PyTorch: sqrt(v / correction) + eps
    w = np.ones(1)
    kind(alpha=0.5, eps=1.0, eps_mode="paper").setup(w).apply_gradients(np.ones(1))
    if kind in (Adam, AdamW, AMSGrad):
        np.testing.assert_allclose(w, 1 - 0.5 * (1 / (1 + 1.0)))


def _weight_decay(kind: Any, text: str) -> None:
    """PyTorch's weight_decay=0.01 at lr=0.001 takes 1e-5 of the parameter away."""
    assert "weight_decay=0.01 at lr=0.001 is weight_decay_rate=1e-5" in text
    assert "keep 0.01 and add decay_mode='alpha'" in text
    for more in ({"weight_decay_rate": 1e-5}, {"weight_decay_rate": 0.01, "decay_mode": "alpha"}):
        if kind in (Adam, AdamW):
            made = kind(alpha=0.001, **more)
        else:
            call = re.search(r"Adam\(.*?\)", text)[0]
            made = eval(call, {"Adam": Adam})
            assert (made.amsgrad, made.adabound) == (kind().amsgrad, kind().adabound)
            made = Adam(alpha=0.001, **FLAGS[kind], **more)
        np.testing.assert_allclose(stepped(made, 0.0), 1 - 1e-5, rtol=1e-12)


def _decay(kind: Any, text: str) -> None:
    """Keras: alpha / (1 + decay * iterations)."""
    schedule = re.search(r"opt\.alpha = (.*?);", text)[1]
    opt = kind().setup(np.ones(1))
    for t in range(3):
        opt.alpha = eval(schedule, {"opt": opt})
        assert opt.alpha == 0.001 / (1 + 1e-6 * t)
        opt.apply_gradients(np.ones(1))
    if kind not in (Adam, AdamW):
        made = eval(re.search(r"Adam\([^)]*\)", text)[0], {"Adam": Adam})
        made.weight_decay_rate = 1e-5
        assert (made.amsgrad, made.adabound) == (kind().amsgrad, kind().adabound)
    else:
        assert kind(weight_decay_rate=1e-5).weight_decay_rate == 1e-5


def _flag(kind: Any, text: str) -> None:
    made = eval(re.search(r"Adam\([^)]*\)", text)[0], {"Adam": Adam})
    for name in ("amsgrad", "adabound"):
        assert getattr(made, name) or not getattr(kind(), name)
    if "has it" in text:
        assert stepped(made) < 1


def _params(kind: Any, text: str) -> None:
    assert "setup(params)" in text
    params = {"w": np.ones(2)}
    kind().setup(params).apply_gradients({"w": np.ones(2)})
    assert (params["w"] < 1).all()


def _clip(expected: float) -> Callable[[Any, str], None]:
    def follow(kind: Any, text: str) -> None:
        seen: list[float] = []
        opt = kind().setup(np.ones(2))
        eval(re.search(r"opt\.add_hook\(.*\)", text)[0], vars(fastadam) | {"opt": opt})
        opt.add_hook(lambda o: seen.append(float(o.parameters["param"].grad[0])), "see")
        opt.apply_gradients(np.array([3.0, 4.0]))
        np.testing.assert_allclose(seen, expected)

    return follow


def _maximize(kind: Any, text: str) -> None:
    argument = re.search(r"alpha=(-[\d.]+)", text)[1]
    if "adabound" not in FLAGS[kind]:
        assert stepped(kind(alpha=float(argument))) > 1


def _leave_out(kind: Any, text: str) -> None:
    assert "leave it out" in text
    assert stepped(kind()) < 1


def _momentum(kind: Any, text: str) -> None:
    assert "beta1" in text
    assert kind(beta1=0.5).beta1 == 0.5


def _setting(kind: Any, text: str) -> None:
    line = re.search(r"opt\.(\w+) = (.*)$", text)
    opt = kind().setup(np.ones(2))
    before = getattr(opt, line[1])
    exec(line[0], {"opt": opt})
    assert getattr(opt, line[1]) == eval(line[2]) != before


FOLLOWED: dict[str, Callable[[Any, str], None]] = {
    "lr": _alpha,
    "learning_rate": _alpha,
    "betas": _betas,
    "beta_1": _betas,
    "beta_2": _betas,
    "b1": _betas,
    "b2": _betas,
    "weight_decay": _weight_decay,
    "weight_decay_rate": _weight_decay,
    "decay_mode": _weight_decay,
    "decay": _decay,
    "epsilon": _epsilon,
    "params": _params,
    "amsgrad": _flag,
    "adabound": _flag,
    "final_lr": _flag,
    "gamma": _flag,
    "clipnorm": _clip(0.6),
    "global_clipnorm": _clip(0.6),
    "max_grad_norm": _clip(0.6),
    "clipvalue": _clip(0.5),
    "maximize": _maximize,
    "foreach": _leave_out,
    "fused": _leave_out,
    "capturable": _leave_out,
    "decoupled_weight_decay": _leave_out,
    "momentum": _momentum,
    "on_nonfinite": _setting,
    "monitor": _setting,
    "loss_scale": _setting,
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(name: str) -> None:
    answered = 0
    for kind in KINDS:
        try:
            kind(**{name: "eta" if name == "decay_mode" else 0.0005})
        except TypeError as error:
            text = str(error)
        else:
            continue
        assert f"{kind.__name__} has no argument {name!r}: " in text
        FOLLOWED[name](kind, text)
        answered += 1
    assert answered


@pytest.mark.parametrize("name", [n for n in ARGUMENTS if n not in Adam().hyperparam.get_dict()])
def test_attributes_and_hyperparameters(name: str) -> None:
    """What is set as an attribute is answered with what may be set on that class."""
    for kind in KINDS:
        if hasattr(kind, name):
            continue
        for call in (
            lambda kind=kind: setattr(kind(), name, 0.25),
            lambda kind=kind: getattr(kind(), name),
            lambda kind=kind: setattr(kind().hyperparam, name, 0.25),
        ):
            text = told(call)
            assert repr(name) in text
            for attribute in ("alpha", "beta1", "beta2", "eps", "weight_decay_rate"):
                if f"called {attribute}" in text:
                    opt = kind()
                    setattr(opt, attribute, 0.25)
                    assert getattr(opt, attribute) == 0.25


def two() -> dict[str, np.ndarray]:
    return {"w": np.ones(2), "b": np.ones(1)}


def test_methods(tmp_path: Path) -> None:
    """Every name in METHODS, one after the other."""
    followed = set()

    def text(name: str, *words: str) -> str:
        followed.add(name)
        message = told(lambda: getattr(AdamW(), name))
        for word in words:
            assert word in message, (name, message)
        return message

    gradients = {"w": np.ones(2), "b": np.ones(1)}
    text("step", "update(lossfun, ...)", "apply_gradients(gradients)")
    params = two()
    opt = AdamW().setup(params)
    opt.apply_gradients(gradients)
    assert opt.update(lambda: (0.5, gradients)) == 0.5
    assert opt.t == 2

    text("zero_grad", "clears the gradients itself", "cleargrads()", "model.zero_grad()")
    link = Link()
    with link.init_scope():
        link.w = Parameter(np.ones(2))
    seen: list[Any] = []

    class Loss:
        def backward(self, loss_scale: Any = None) -> None:
            seen.append(link.w.grad)
            link.w.grad = np.ones(2)

    opt = AdamW().setup(link)
    for _ in range(2):
        opt.update(lambda: Loss())
    assert seen == [None, None]
    link.cleargrads()
    assert link.w.grad is None

    text("minimize", "setup(params)", "update(lossfun, ...)")
    text("param_groups", "set_hyperparam(glob, name=value)")
    opt = AdamW().setup(two())
    assert opt.set_hyperparam("b", weight_decay_rate=0) == ["b"]

    message = text("add_param_group", "params['new'] = array")
    params = two()
    opt = AdamW().setup(params)
    opt.apply_gradients(gradients)
    params["new"] = np.ones(3)
    eval("opt." + re.search(r"set_hyperparam\('new'.*\)", message)[0], {"opt": opt})
    opt.apply_gradients({**gradients, "new": np.ones(3)})
    np.testing.assert_allclose(params["new"], 1 - 0.01, rtol=1e-6)

    message = text("state", "opt.parameters[path].update_rule.state")
    state = eval(re.search(r"opt\.parameters.*", message)[0], {"opt": opt, "path": "w"})
    assert set(state) == {"m", "v"}
    for name in ("defaults", "get_config"):
        message = text(name, "opt.hyperparam.get_dict()")
        assert eval("opt.hyperparam.get_dict()", {"opt": opt})["alpha"] == 0.001
    text("iterations", "opt.t")
    assert opt.t == 2
    text("variables", "opt.parameters")
    assert list(opt.parameters) == ["w", "b", "new"]

    text("state_dict", "fastadam.save(path, optimizer)", "serializers.save_npz(path, optimizer)")
    text("load_state_dict", "fastadam.load(path, optimizer)", "serializers.load_npz(path, opt")
    text("save", "it is fastadam.save(path, optimizer)")
    text("load", "it is fastadam.load(path, optimizer)")
    fastadam.save(tmp_path / "a.npz", opt)
    other = AdamW().setup({**two(), "new": np.ones(3)})
    fastadam.load(tmp_path / "a.npz", other)
    assert other == opt
    file = io.BytesIO()
    serializers.save_npz(file, opt)
    file.seek(0)
    serializers.load_npz(file, other)
    assert other == opt
    assert followed == set(METHODS)


def test_what_is_elsewhere() -> None:
    followed = set()
    for module in (fastadam, optimizers):
        for name in ELSEWHERE:
            for spelt in (name, name.lower()):
                text = told(lambda module=module, spelt=spelt: getattr(module, spelt))
                assert repr(module.__name__) in text
                assert repr(spelt) in text
                place = re.search(r"it is fastadam\.(\w+)\.(\w+)$", text)
                if place:
                    assert place[2] == name
                    assert getattr(fastadam, place[1]).__all__.count(name) == 1
                    followed.add(name)
                else:
                    _clip(0.5 if "value" in name else 0.6)(Adam, text)
    functions = ("load_hdf5", "load_npz", "save_hdf5", "save_npz")
    assert followed == {*optimizer_hooks.__all__, *functions}


def test_settings_that_only_a_rule_is_given() -> None:
    for name in ("on_nonfinite", "monitor", "loss_scale"):
        for call in (
            lambda name=name: fastadam.AdamRule(**{name: 1}),
            lambda name=name: setattr(fastadam.AdamRule().hyperparam, name, 1),
            lambda name=name: setattr(Adam().hyperparam, name, 1),
        ):
            assert f"attribute of the optimizer, set afterwards: opt.{name} = " in told(call)


def test_other_optimizers() -> None:
    """The documentation of GradientMethod shows SGD in ten lines, and they run."""
    for name in OTHER_OPTIMIZERS:
        for module in (fastadam, optimizers):
            for spelt in (name, name.lower(), name.upper()):
                text = told(lambda module=module, spelt=spelt: getattr(module, spelt))
                for word in (name, "Adam, AdamW", "GradientMethod", "SGD in ten lines"):
                    assert word in text or word == "Adam, AdamW", text
                assert all(kind.__name__ in text for kind in KINDS)
    lines = [
        line.strip()[4:]
        for line in (fastadam.GradientMethod.__doc__ or "").splitlines()
        if line.strip().startswith((">>> ", "... "))
    ]
    source = "\n".join(lines)
    assert "class SGD(GradientMethod):" in source
    space: dict[str, Any] = {}
    exec(source.replace("\nw\n", "\n"), space)
    np.testing.assert_array_equal(space["w"], [0.5, 0.0])
    with pytest.raises(ImportError):
        exec("from fastadam import SGD", {})


@pytest.mark.parametrize(
    "module", [fastadam, fastadam.chainer, optimizers, optimizer_hooks, serializers]
)
def test_what_is_shown_is_what_is_there_for_users(module: Any) -> None:
    own = {name for name in dir(module) if not name.startswith("_")} - {"annotations"}
    own -= {
        name
        for name in own
        if name not in module.__all__ and isinstance(getattr(module, name), types.ModuleType)
    }
    assert own <= set(module.__all__)


# -- weight decay that is probably PyTorch's -----------------------------------------------------


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decay_advice, "_warned", False)


def warned(call: Callable[[], Any]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [each for each in caught if issubclass(each.category, UserWarning)]


def by_attributes() -> None:
    opt = AdamW().setup(np.ones(2))
    opt.weight_decay_rate = 0.01
    opt.apply_gradients(np.ones(2))


def by_alpha() -> None:
    opt = AdamW(alpha=0.5, weight_decay_rate=0.01).setup(np.ones(2))
    opt.hyperparam.alpha = 1e-3
    opt.update(lambda: (0.0, np.ones(2)))


WARNED: dict[str, Callable[[], Any]] = {
    "constructor": lambda: AdamW(alpha=1e-3, weight_decay_rate=0.01),
    "positional": lambda: AdamW(1e-3, 0.9, 0.999, 1e-8, 1.0, 1e-3),
    "default alpha": lambda: AdamW(weight_decay_rate=0.01),
    "attribute": by_attributes,
    "alpha": by_alpha,
    "subclass": lambda: type("Mine", (AdamW,), {})(weight_decay_rate=0.1),
}


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("door", WARNED)
def test_decay_like_pytorchs_is_warned_of_once(door: str) -> None:
    found = warned(WARNED[door])
    assert len(found) == 1
    assert found[0].filename == __file__
    for word in ("weight_decay_rate", "decay_mode='alpha'", "decay_mode='eta'"):
        assert word in str(found[0].message)
    for again in WARNED.values():
        assert not warned(again)


def test_following_the_warning() -> None:
    """decay_mode='alpha' is PyTorch's: 1e-3 * 0.01 of the parameter."""
    opt = AdamW(alpha=1e-3, weight_decay_rate=0.01, decay_mode="alpha")
    np.testing.assert_allclose(stepped(opt, 0.0), 1 - 1e-5, rtol=1e-12)


@pytest.mark.usefixtures("fresh")
def test_who_is_not_warned(tmp_path: Path) -> None:
    def chosen(mode: str) -> None:
        AdamW(weight_decay_rate=0.01, decay_mode=mode)
        opt = AdamW().setup(np.ones(2))
        opt.decay_mode = mode
        opt.weight_decay_rate = 0.01
        opt.apply_gradients(np.ones(2))
        opt = AdamW().setup(np.ones(2))
        opt.hyperparam.decay_mode = mode
        opt.weight_decay_rate = 0.01
        opt.apply_gradients(np.ones(2))

    def scheduled() -> None:
        opt = AdamW(alpha=0.1, weight_decay_rate=0.01).setup(np.ones(2))
        for alpha in (0.1, 0.01, 0.0):
            opt.alpha = alpha
            opt.apply_gradients(np.ones(2))

    def loaded() -> None:
        for updates in (0, 2):
            saved = AdamW(weight_decay_rate=0.01, decay_mode="eta").setup({"w": np.ones(2)})
            for _ in range(updates):
                saved.apply_gradients({"w": np.ones(2)})
            fastadam.save(tmp_path / "a.npz", saved)
            opt = AdamW().setup({"w": np.ones(2)})
            fastadam.load(tmp_path / "a.npz", opt)
            assert opt.weight_decay_rate == 0.01
            opt.apply_gradients({"w": np.ones(2)})

    for call in (
        lambda: chosen("eta"),
        lambda: chosen("alpha"),
        scheduled,
        loaded,
        lambda: AdamW(),
        lambda: AdamW(alpha=0.1, weight_decay_rate=0.01),
        lambda: AdamW(alpha=0, weight_decay_rate=0.01),  # a warm-up
        lambda: Adam(weight_decay_rate=0.01),  # Chainer's
        lambda: optimizer_hooks.WeightDecay(0.1),
    ):
        assert not warned(call)
    assert len(warned(WARNED["constructor"])) == 1


def test_once_a_process_whatever_the_filters_say() -> None:
    script = (
        "import warnings; warnings.simplefilter('always')\n"
        "import fastadam\n"
        "for _ in range(3): fastadam.AdamW(weight_decay_rate=0.01)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.count("UserWarning") == 1
    assert "<string>:3" in done.stderr
