"""The table of coverage is complete: names, pages, tests and signatures."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import fastadam
from fastadam import optimizer, optimizer_hooks, serializers

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
TABLE = (DOCS / "coverage.rst").read_text(encoding="utf-8")
ROW = r"^   \* - ``(\w+)``\n     - :doc:`(\w+)`\n     - ``(\w+\.py)::(\w+)``$"
ROWS = re.findall(ROW, TABLE, re.M)
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
    assert len(ROWS) == TABLE.count("   * - ``") > 120
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize(("name", "page", "file", "test"), ROWS, ids=NAMES)
def test_rows(name: str, page: str, file: str, test: str) -> None:
    assert name in LATE or any(hasattr(holder, name) for holder in HOLDERS)
    text = (DOCS / f"{page}.rst").read_text(encoding="utf-8")
    # the reference is filled from docstrings
    assert page == "reference" or re.search(rf"\b{name}\b", text) or name.startswith("__")
    (path,) = TESTS.rglob(file)
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    assert test in {node.name for node in tree if isinstance(node, ast.FunctionDef)}
