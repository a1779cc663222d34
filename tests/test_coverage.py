"""The table of coverage is complete: names, pages, tests and signatures."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import fastadam
from fastadam import optimizer, optimizer_hooks, serializers

pytestmark = pytest.mark.docs

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
TABLE = (DOCS / "coverage.rst").read_text(encoding="utf-8")
ROW = r"^   \* - ``([\w.]+)``\n     - :doc:`(\w+)`\n     - ``(\w+\.py)::(\w+)``$"
TABLES = TABLE.partition("\n.. _not-here:\n")[0]
ROWS = re.findall(ROW, TABLES, re.M)
NAMES = [row[0] for row in ROWS]

# What Chainer 7.8.1 documents: class, and its constructor as inspect.signature prints it.
CONSTRUCTORS: dict[Any, str] = {
    fastadam.Adam: "(alpha=0.001, beta1=0.9, beta2=0.999, eps=1e-08, eta=1.0, "
    "weight_decay_rate=0, amsgrad=False, adabound=False, final_lr=0.1, gamma=0.001)",
    fastadam.AdamW: "(alpha=0.001, beta1=0.9, beta2=0.999, eps=1e-08, eta=1.0, "
    "weight_decay_rate=0)",
    fastadam.AMSGrad: "(alpha=0.001, beta1=0.9, beta2=0.999, eps=1e-08, eta=1.0)",
    fastadam.AdaBound: "(alpha=0.001, beta1=0.9, beta2=0.999, final_lr=0.1, gamma=0.001, "
    "eps=1e-08, eta=1.0)",
    fastadam.AMSBound: "(alpha=0.001, beta1=0.9, beta2=0.999, final_lr=0.1, gamma=0.001, "
    "eps=1e-08, eta=1.0)",
    fastadam.AdamRule: "(parent_hyperparam=None, alpha=None, beta1=None, beta2=None, eps=None, "
    "eta=None, weight_decay_rate=None, amsgrad=None, adabound=None, final_lr=None, gamma=None)",
    fastadam.Hyperparameter: "(parent=None)",
    fastadam.HyperparameterProxy: "(attr_name)",
    fastadam.UpdateRule: "(parent_hyperparam=None)",
    fastadam.Parameter: "(initializer=None, shape=None, name=None)",
    fastadam.Link: "(**params)",
    fastadam.Chain: "(**links)",
    fastadam.ChainList: "(*links)",
    optimizer_hooks.WeightDecay: "(rate)",
    optimizer_hooks.Lasso: "(rate)",
    optimizer_hooks.GradientClipping: "(threshold)",
    optimizer_hooks.GradientHardClipping: "(lower_bound, upper_bound)",
    optimizer_hooks.GradientNoise: "(eta, noise_func=exponential_decay_noise)",
    optimizer_hooks.GradientLARS: "(threshold=0.01, weight_decay=0.0, eps=1e-09)",
    serializers.DictionarySerializer: "(target=None, path='')",
    serializers.NpzDeserializer: "(npz, path='', strict=True, ignore_names=None)",
    serializers.HDF5Serializer: "(group, compression=4)",
    serializers.HDF5Deserializer: "(group, strict=True)",
}

# Methods and functions, with what Chainer lets them be called with.
CALLS: dict[Any, str] = {
    fastadam.Adam.setup: "(self, link)",
    fastadam.Adam.update: "(self, lossfun=None, *args, **kwds)",
    fastadam.Adam.add_hook: "(self, hook, name=None, timing='auto')",
    fastadam.Adam.remove_hook: "(self, name)",
    fastadam.Adam.call_hooks: "(self, timing='pre')",
    fastadam.Adam.call_hook: "(self, hook)",
    fastadam.Adam.create_update_rule: "(self)",
    fastadam.Adam.new_epoch: "(self, auto=False)",
    fastadam.Adam.loss_scaling: "(self, interval=1000, scale=None)",
    fastadam.Adam.set_loss_scale: "(self, loss_scale)",
    fastadam.Adam.check_nan_in_grads: "(self)",
    fastadam.Adam.is_safe_to_update: "(self)",
    fastadam.Adam.update_loss_scale: "(self)",
    fastadam.Adam.reallocate_cleared_grads: "(self)",
    fastadam.Adam.use_cleargrads: "(self, use=True)",
    fastadam.Adam.use_fp32_update: "(self, flag=True)",
    fastadam.Adam.serialize: "(self, serializer)",
    fastadam.UpdateRule.add_hook: "(self, hook, name=None, timing='auto')",
    fastadam.UpdateRule.remove_hook: "(self, name)",
    fastadam.UpdateRule.update: "(self, param)",
    fastadam.UpdateRule.update_core: "(self, param)",
    fastadam.UpdateRule.update_core_cpu: "(self, param)",
    fastadam.UpdateRule.update_core_gpu: "(self, param)",
    fastadam.UpdateRule.init_state: "(self, param)",
    fastadam.UpdateRule.serialize: "(self, serializer)",
    fastadam.UpdateRule.use_fp32_update: "(self, flag=True)",
    fastadam.Link.add_param: "(self, name, shape=None, dtype=<class 'numpy.float32'>, "
    "initializer=None)",
    fastadam.Link.copyparams: "(self, link, copy_persistent=True)",
    fastadam.Link.params: "(self, include_uninit=True)",
    fastadam.Link.namedparams: "(self, include_uninit=True)",
    fastadam.Link.links: "(self, skipself=False)",
    fastadam.Link.namedlinks: "(self, skipself=False)",
    fastadam.Link.copy: "(self, mode='share')",
    serializers.save_npz: "(file, obj, compression=True)",
    serializers.load_npz: "(file, obj, path='', strict=True, ignore_names=None)",
    serializers.save_hdf5: "(filename, obj, compression=4)",
    serializers.load_hdf5: "(filename, obj)",
}

# Attributes, aliases and comparisons of an optimizer.
ATTRIBUTES = (
    *fastadam.Adam().hyperparam.get_dict(),
    *("target", "hyperparam", "alpha_t", "lr", "t", "epoch", "use_auto_new_epoch"),
    *("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"),
)

HOLDERS = (
    fastadam,
    optimizer,
    optimizer_hooks,
    serializers,
    fastadam.AdamRule(),
    fastadam.Adam,
    fastadam.Adam(),
    fastadam.Parameter,
    fastadam.Chain(),
    fastadam.ChainList(),
    fastadam.Hyperparameter(),
    optimizer_hooks.WeightDecay(0),
)
# a hook's arguments, by name
HOOKS: dict[str, dict[str, Any]] = {
    "WeightDecay": {"rate": 0.25},
    "Lasso": {"rate": 0.25},
    "GradientClipping": {"threshold": 0.25},
    "GradientHardClipping": {"lower_bound": -0.25, "upper_bound": 0.5},
    "GradientNoise": {"eta": 0.25, "noise_func": lambda xp, shape, dtype, hook, rule: 0.0},
    "GradientLARS": {"threshold": 0.25, "weight_decay": 0.5, "eps": 0.125},
}
# what the constructors of others need
MADE_WITH: dict[str, Any] = {
    "Parameter": (0.5, (2,)),
    "NpzDeserializer": ({},),
    "HDF5Serializer": (None,),
    "HDF5Deserializer": (None,),
}
# what is there only after a step, or under AdaBound
LATE = {"initial_alpha", "alpha_t", "lr", "bounds"}


def chainers_part(signature: inspect.Signature) -> str:
    """A signature as Chainer has it: without annotations and what is keyword-only here."""
    shown = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            continue
        default = parameter.default
        if inspect.isfunction(default):
            text = f"{parameter.name}={default.__name__}"
        else:
            text = str(parameter.replace(annotation=parameter.empty))
        shown.append(text)
    return f"({', '.join(shown)})"


@pytest.mark.parametrize("documented", CONSTRUCTORS, ids=lambda cls: cls.__name__)
def test_constructors(documented: Any) -> None:
    assert chainers_part(inspect.signature(documented)) == CONSTRUCTORS[documented]
    assert documented.__name__ in NAMES


@pytest.mark.parametrize("documented", CALLS, ids=lambda function: function.__qualname__)
def test_calls(documented: Any) -> None:
    assert chainers_part(inspect.signature(documented)) == CALLS[documented]
    if not documented.__qualname__.startswith("UpdateRule"):
        assert documented.__name__ in NAMES


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes(name: str) -> None:
    assert hasattr(fastadam.Adam, name) or hasattr(fastadam.Adam(), name)
    assert name in NAMES


@pytest.mark.parametrize(
    "module",
    [fastadam.optimizers, optimizer_hooks, serializers],
    ids=lambda module: module.__name__,
)
def test_public_names(module: Any) -> None:
    helpers = {"is_deserializer", "serialize"}
    assert set(module.__all__) - helpers <= set(NAMES)


def test_names_are_in_one_row() -> None:
    assert len(ROWS) == TABLES.count("   * - ``") > 160
    assert len(NAMES) == len(set(NAMES))


def there(name: str) -> bool:
    """Whether a name of a row exists; one with a dot is that class's or module's."""
    owner, _, last = name.rpartition(".")
    if not owner:
        return name in LATE or any(hasattr(holder, name) for holder in HOLDERS)
    if owner in HOOKS:
        return hasattr(getattr(optimizer_hooks, owner)(**HOOKS[owner]), last)
    (found,) = {vars(holder)[owner] for holder in (fastadam, serializers) if hasattr(holder, owner)}
    return hasattr(found(*MADE_WITH.get(owner, ())) if inspect.isclass(found) else found, last)


SECTION = r"^(?:Parameters|Attributes)\n-+\n(.*?)(?=^\S+\n-+\n|\Z)"


def reference() -> set[str]:
    """The names that the page of reference shows: entries, their members, described attributes."""
    text = (DOCS / "reference.rst").read_text(encoding="utf-8")
    directive = r"^\.\. auto(class|function|module):: ([\w.]+)\n((?:   :.*\n)*)"
    shown = set()
    for kind, full, options in re.findall(directive, text, re.M):
        module, _, name = full.rpartition(".")
        if kind == "module":
            shown |= set(importlib.import_module(full).__all__)
            continue
        obj = getattr(importlib.import_module(module), name)
        shown.add(name)
        text = inspect.getdoc(obj) or ""
        for section in re.findall(SECTION, text, re.M | re.S):
            shown |= set(re.findall(r"\w+", " ".join(re.findall(r"^\S.*", section, re.M))))
        shown |= set(re.findall(r"``(\w+)``", text))
        if kind == "class" and ":members:" in options:
            inherited = ":inherited-members:" in options
            shown |= {
                attribute
                for attribute in (dir(obj) if inherited else vars(obj))
                if inspect.getdoc(getattr(obj, attribute))
            }
    return shown


REFERENCE = reference()


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_keep_their_arguments(name: str) -> None:
    hook = getattr(optimizer_hooks, name)(**HOOKS[name])
    for argument, value in HOOKS[name].items():
        assert getattr(hook, argument) is value
        assert f"{name}.{argument}" in NAMES


@pytest.mark.parametrize(("name", "page", "file", "test"), ROWS, ids=NAMES)
def test_rows(name: str, page: str, file: str, test: str) -> None:
    assert there(name)
    last = name.rpartition(".")[2]
    if page == "reference":
        assert last in REFERENCE
    else:
        text = (DOCS / f"{page}.rst").read_text(encoding="utf-8")
        assert re.search(rf"\b{last}\b", text) or name.startswith("__")
    (path,) = TESTS.rglob(file)
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    assert test in {node.name for node in tree if isinstance(node, ast.FunctionDef)}
