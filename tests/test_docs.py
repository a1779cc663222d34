"""The documentation covers every public name, and all of its examples run."""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import importlib.util
import inspect
import io
import pkgutil
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam

pytestmark = pytest.mark.docs

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.rst"))

PUBLIC = [
    (module.__name__, name)
    for module in (
        fastadam,
        fastadam.optimizers,
        fastadam.optimizer_hooks,
        fastadam.serializers,
    )
    for name in module.__all__
]
CALLABLES: list[Any] = sorted(
    {obj for m, n in PUBLIC if callable(obj := getattr(importlib.import_module(m), n))}, key=repr
)

# Bases without a purpose of their own, and what another's example shows.
WITHOUT_EXAMPLE = {
    "AbstractSerializer",
    "Deserializer",
    "NpzDeserializer",
    "Optimizer",
    "Serializer",
    "get_num_threads",
    "load_npz",
}

numpy2 = pytest.mark.skipif(
    int(np.__version__.split(".")[0]) < 2, reason="NumPy 1 prints scalars in another way"
)


@functools.cache
def source_modules() -> list[str]:
    """Names of the modules that are written in Python."""
    names = ["fastadam"]
    for info in pkgutil.walk_packages(fastadam.__path__, "fastadam."):
        if info.name.split(".")[1] == "torch" and importlib.util.find_spec("torch") is None:
            continue
        spec = importlib.util.find_spec(info.name)
        # the loops of an instruction set that the CPU lacks cannot even be imported
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
            names.append(info.name)
    return names


@functools.cache
def documented() -> list[Any]:
    """The objects that have an entry of their own in the pages."""
    found = []
    for page in PAGES:
        text = (DOCS / page).read_text(encoding="utf-8")
        directive = r"^\.\. (?:auto(?:class|function|module)|data):: ([\w.]+)$"
        for name in re.findall(directive, text, re.M):
            module, _, attribute = name.rpartition(".")
            if name in source_modules():
                found.append(importlib.import_module(name))
            else:
                found.append(getattr(importlib.import_module(module), attribute))
    return found


def test_every_public_name_is_documented() -> None:
    ids = {id(obj) for obj in documented()}
    objects = {(m, n): getattr(importlib.import_module(m), n) for m, n in PUBLIC}
    assert [name for name, obj in objects.items() if id(obj) not in ids] == []


def test_an_undocumented_name_is_noticed() -> None:
    assert not any(other is doctest for other in documented())
    assert len(documented()) > 30


def test_docstring(case: Callable[..., Any]) -> None:
    for obj in CALLABLES:
        with case(obj=obj):
            check_docstring(obj)


def check_docstring(obj: Any) -> None:
    text = inspect.getdoc(obj)
    assert text is not None
    assert "__doc__" in vars(obj) or inspect.isfunction(obj), "the docstring is inherited"
    summary, _, rest = text.partition("\n")
    assert summary.endswith("."), "the first line is one sentence"
    assert not rest or rest.startswith("\n"), "an empty line follows it"
    signature = inspect.signature(obj)
    parameters = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if not (inspect.isclass(obj) and obj.__init__ is object.__init__)
    }
    if parameters:
        match = re.search(r"^Parameters\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", text, re.M | re.S)
        assert match is not None, "there is no section Parameters"
        names = re.findall(r"[\w*]+", " ".join(re.findall(r"^\S[^:\n]*", match[1], re.M)))
        stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
        expected = [stars.get(p.kind, "") + name for name, p in parameters.items()]
        assert sorted(names) == sorted(expected)


def test_examples() -> None:
    without = {obj.__name__ for obj in CALLABLES if ">>> " not in (inspect.getdoc(obj) or "")}
    assert without == WITHOUT_EXAMPLE


def test_every_public_method_has_a_docstring() -> None:
    kinds = (types.FunctionType, property, classmethod, staticmethod)
    for base in {base for cls in CALLABLES if inspect.isclass(cls) for base in cls.__mro__}:
        for name, member in vars(base).items():
            ours = base.__module__.startswith("fastadam") and isinstance(member, kinds)
            if ours and not name.startswith("_"):
                summary = (inspect.getdoc(getattr(base, name)) or "").partition("\n")[0]
                assert summary.endswith("."), f"{base.__name__}.{name}: {summary!r}"


@numpy2
@pytest.mark.parametrize("name", source_modules())
def test_examples_of_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    run(doctest.DocTestFinder(exclude_empty=True).find(module, globs=dict(vars(module))))


@numpy2
@pytest.mark.parametrize("page", PAGES)
def test_examples_of_pages(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for name in re.findall(r"^ *>>> import (h5py|ml_dtypes|torch)$", text, re.M):
        pytest.importorskip(name, reason=f"this page's examples need {name}")
    run([doctest.DocTestParser().get_doctest(text, {}, page, str(DOCS / page), 0)])


def run(examples: list[doctest.DocTest]) -> None:
    """Run examples; what fails is told as doctest tells it."""
    runner = doctest.DocTestRunner(verbose=False)
    report = io.StringIO()
    for example in examples:
        runner.run(example, out=report.write)
    assert runner.failures == 0, report.getvalue()


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules: list[types.ModuleType] = [importlib.import_module(name) for name in source_modules()]
    in_modules = sum(len(test.examples) for m in modules for test in finder.find(m))
    pages = "".join((DOCS / page).read_text(encoding="utf-8") for page in PAGES)
    assert in_modules > 100
    assert pages.count(">>> ") > 90


def test_departures_name_tests_that_exist() -> None:
    text = (DOCS / "departures.rst").read_text(encoding="utf-8")
    named = re.findall(r"``(test_\w+\.py)::(test_\w+)``", text)
    existing = {
        (path.name, node.name)
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert set(named) <= existing
    ours = {(file, name) for file, name in existing if file == "test_departures.py"}
    ours = {(file, name) for file, name in ours if name.startswith("test_")}
    faults = re.findall(r"``(test_\w+\.py)::(test_\w+)``", (DOCS / "faults.rst").read_text("utf-8"))
    assert ours <= {*named, *faults}, "a departure that is on no page"
    assert not {*named} & {*faults}, "a departure that is on both pages"
    # a row without a test would have fewer
    assert len(named) == text.count("\n   * - ") - text.count("\n   * - Chainer\n")


def test_the_architecture_names_every_module() -> None:
    text = (DOCS / "architecture.rst").read_text(encoding="utf-8")
    for name in source_modules():
        part = name.removeprefix("fastadam").lstrip(".")
        package, _, last = part.rpartition(".")
        if package in ("cli", "optimizers", "optimizer_hooks", "serializers") or not part:
            continue
        assert f"``{last}``" in text or f"``{last}/``" in text, name
