"""Every public name and signature of Chainer's own classes is here, or is left out on purpose."""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
import fastadam.model.device

chainer: Any = None
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports modules that are out of date
        chainer = importlib.import_module("chainer")
except (ImportError, AttributeError):
    pass  # not there, or not on this NumPy

needs_chainer = pytest.mark.skipif(chainer is None, reason="Chainer cannot be imported here")

PAGE = Path(__file__).parents[2] / "docs" / "coverage.rst"
TABLES, _, NOT_HERE = PAGE.read_text(encoding="utf-8").partition("\n.. _not-here:\n")
ROWS = set(re.findall(r"^   \* - ``([\w.]+)``$", TABLES, re.M))
LEFT_OUT = set(re.findall(r"``(\w+\.\w+)``,?$|``(\w+\.\w+)``, ", NOT_HERE, re.M))
LEFT_OUT = {name for pair in LEFT_OUT for name in pair if name}

HOOKS = {
    "WeightDecay": (0.25,),
    "Lasso": (0.25,),
    "GradientClipping": (0.25,),
    "GradientHardClipping": (-0.25, 0.5),
    "GradientNoise": (0.25,),
    "GradientLARS": (0.25, 0.5, 0.125),
}
VARIANTS = ("Adam", "AdamW", "AMSGrad", "AdaBound", "AMSBound")
CLASSES = {
    **{name: ("optimizers", name, ()) for name in VARIANTS},
    "AdamRule": ("optimizers.adam", "AdamRule", ()),
    "Optimizer": ("optimizer", "Optimizer", ()),
    "GradientMethod": ("optimizer", "GradientMethod", ()),
    "UpdateRule": ("optimizer", "UpdateRule", ()),
    "Hyperparameter": ("optimizer", "Hyperparameter", ()),
    "HyperparameterProxy": ("optimizer", "HyperparameterProxy", ("alpha",)),
    "Parameter": ("", "Parameter", (0.5, (2,))),
    "Link": ("", "Link", ()),
    "Chain": ("", "Chain", ()),
    "ChainList": ("", "ChainList", ()),
    **{name: ("optimizer_hooks", name, arguments) for name, arguments in HOOKS.items()},
    "DictionarySerializer": ("serializers", "DictionarySerializer", ()),
    "NpzDeserializer": ("serializers", "NpzDeserializer", ({},)),
    "HDF5Serializer": ("serializers", "HDF5Serializer", (None,)),
    "HDF5Deserializer": ("serializers", "HDF5Deserializer", (None,)),
}
FUNCTIONS = ("save_npz", "load_npz", "save_hdf5", "load_hdf5")


def class_of(library: Any, name: str) -> Any:
    """Find a class under the module that both libraries have it in."""
    module, attribute, _ = CLASSES[name]
    found = importlib.import_module(f"{library.__name__}.{module}".rstrip("."))
    return getattr(found, attribute)


def public(obj: Any) -> set[str]:
    """Public names of an object, of its class and of its own."""
    return {name for name in dir(obj) if not name.startswith("_")}


def kind_of(name: str) -> str:
    """The class whose rows speak of a class, too."""
    return "Link" if name in ("Chain", "ChainList") else name


def positional(function: Any) -> list[str]:
    """What a function may be called with as in Chainer: names, order, defaults, stars."""
    shown = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            continue  # ours alone
        default = parameter.default
        if inspect.isfunction(default):
            parameter = parameter.replace(default=default.__name__)
        shown.append(str(parameter.replace(annotation=parameter.empty)))
    return shown


@needs_chainer
@pytest.mark.parametrize("name", CLASSES)
def test_public_names(name: str) -> None:
    if name.startswith("HDF5"):
        pytest.importorskip("h5py")
    arguments = CLASSES[name][2]
    theirs = public(class_of(chainer, name)(*arguments))
    cls = class_of(fastadam, name)
    ours = public(cls(*arguments)) | public(cls)
    assert theirs or name == "HyperparameterProxy"
    left_out = {full.split(".")[1] for full in LEFT_OUT if full.startswith(f"{kind_of(name)}.")}
    # what is missing is said to be, and what is said to be missing is
    assert sorted(theirs - ours) == sorted(left_out)
    last = {row.rpartition(".")[2] for row in ROWS}
    assert not (theirs & ours) - last


@needs_chainer
@pytest.mark.parametrize("name", CLASSES)
def test_signatures(name: str) -> None:
    theirs, ours = class_of(chainer, name), class_of(fastadam, name)
    assert positional(ours) == positional(theirs)
    for attribute in public(theirs) & public(ours):
        method = getattr(theirs, attribute)
        if inspect.isfunction(method):
            assert positional(getattr(ours, attribute)) == positional(method), attribute


@needs_chainer
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    ours, theirs = getattr(fastadam.serializers, name), getattr(chainer.serializers, name)
    assert positional(ours) == positional(theirs)
    assert name in ROWS


@needs_chainer
@pytest.mark.parametrize("module", ["optimizer", "optimizers", "optimizer_hooks", "serializers"])
def test_modules(module: str) -> None:
    theirs, ours = (importlib.import_module(f"{lib}.{module}") for lib in ("chainer", "fastadam"))
    made_there = {
        name
        for name in public(theirs)
        if getattr(getattr(theirs, name), "__module__", "").startswith("chainer.")
    }
    if module == "optimizers":
        made_there &= set(VARIANTS)  # the others are no Adam
        assert made_there == set(VARIANTS)
    made_there.discard("make_deprecation_message")
    assert made_there <= public(ours)
    assert made_there <= {row.rpartition(".")[2] for row in ROWS}


@pytest.mark.parametrize("library", ["fastadam", pytest.param("chainer", marks=needs_chainer)])
@pytest.mark.parametrize("name", HOOKS)
def test_names_of_hooks(library: str, name: str) -> None:
    hook = getattr(importlib.import_module(f"{library}.optimizer_hooks"), name)(*HOOKS[name])
    assert (hook.name, hook.timing) == (name, "pre")
    assert getattr(hook, "call_for_each_param", False) == (name != "GradientClipping")


@needs_chainer
@pytest.mark.parametrize("name", ["CpuDevice", "GpuDevice"])
def test_devices_have_what_chainers_have(name: str) -> None:
    theirs, ours = getattr(chainer.backend, name), getattr(fastadam.model.device, name)
    assert public(theirs) <= public(ours) | set(fastadam.model.device.Device.__annotations__)
    for attribute in public(theirs):
        method = getattr(theirs, attribute)
        if inspect.isfunction(method):
            assert len(positional(getattr(ours, attribute))) == len(positional(method)), attribute


@needs_chainer
def test_devices_answer_as_chainers_do() -> None:
    theirs, ours = chainer.backend.CpuDevice(), fastadam.model.device.CpuDevice()
    for value in (np.ones(2), 1.5, None, [1.0], np.float32(1)):
        assert ours.is_array_supported(value) == theirs.is_array_supported(value)
        assert (ours.from_array(value) is None) == (theirs.from_array(value) is None)
    assert (ours.name, str(ours), ours.xp) == (theirs.name, str(theirs), theirs.xp)
    assert ours.supported_array_types == theirs.supported_array_types
    array = np.ones(2)
    assert [each is array for each in ours.send([array, array])] == [True, True]
