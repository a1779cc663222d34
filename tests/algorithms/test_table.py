"""The table of algorithms: what is spelled elsewhere is the same, and little is."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import re
import tokenize
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastadam import Adam, AdamRule, adam_step
from fastadam.algorithms.adam import ADAM, BY_NAME, Coefficients
from fastadam.algorithms.algorithm import Algorithm, Stream
from fastadam.algorithms.table import ALGORITHMS, CONVERTED, FLAGS, STATE
from fastadam.kernels import table
from fastadam.kernels.cpu import _tensors
from fastadam.kernels.gpu import engine, source
from fastadam.kernels.gpu import table as gpu_table
from fastadam.kernels.reference import adam_reference

SOURCES = Path(__file__).resolve().parents[2] / "fastadam"

# Where the name of Adam's third stream may be written in code: where the algorithm is, in the three
# spellings of its formula, and as a public argument.
SPELLINGS = {
    "algorithms/adam.py",
    "kernels/reference.py",
    "kernels/cpu/_step.pyx",
    "kernels/gpu/source_adam.py",
    "kernels/step.py",
}
# Where else, and in how many lines: the struct in C, what tells the tests where its fields are, and
# the loops of the benchmark's floor. Each goes when the row has places for streams of any name;
# nothing is to be added.
REMAINING = {
    "kernels/cpu/_tensors.pxd": 1,
    "kernels/cpu/_tensors.pyx": 1,
    "kernels/cpu/_floor.pyx": 8,
}


def code_of(path: Path) -> list[str]:
    """The lines of a source without its comments and docstrings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".py", ".pyi"):
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                    lines[number] = ""
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column]
        return lines
    # Cython's docstrings begin a line, and the C in it is no docstring
    blank = re.sub(
        r'(?<=:\n)(\s+""")(?:(?!""").)*"""|\A""".*?"""',
        lambda found: "\n" * found[0].count("\n"),
        text,
        flags=re.S,
    )
    return [line.split("#")[0] for line in blank.splitlines()]


def test_no_stream_is_spelled_where_it_may_derive() -> None:
    paths = [
        path for suffix in ("py", "pyi", "p[yx][xdi]") for path in SOURCES.rglob(f"*.{suffix}")
    ]
    assert len(paths) > 190
    found = {}
    for path in paths:
        n = sum("vhat" in line for line in code_of(path))
        if n:
            found[path.relative_to(SOURCES).as_posix()] = n
    assert found.keys() >= SPELLINGS
    rest = {name: n for name, n in found.items() if name not in SPELLINGS}
    assert rest == REMAINING, "derive it from the table; REMAINING may only become smaller"


def test_what_is_no_code_is_not_counted(tmp_path: Path) -> None:
    python = tmp_path / "a.py"
    python.write_text(
        '"""vhat"""\n\nx = 1  # vhat\n\n\ndef f():\n    """vhat\n\n    vhat"""\n    return "vhat"\n'
    )
    assert [line for line in code_of(python) if "vhat" in line] == ['    return "vhat"']
    cython = tmp_path / "a.pyx"
    cython.write_text('"""vhat"""\n# vhat\ncdef f(size_t vhat):\n    """vhat"""\n    return vhat\n')
    assert [line for line in code_of(cython) if "vhat" in line] == [
        "cdef f(size_t vhat):",
        "    return vhat",
    ]


def test_the_row_in_c_is_the_tables() -> None:
    size, offsets, columns, numbers = _tensors.layout()
    assert size == table.TENSOR.itemsize
    fields: Any = table.TENSOR.fields
    assert offsets == {name: fields[name][1] for name in (*ADAM.state, *ADAM.flags)}
    first = table.TENSOR.names.index(ADAM.state[0])
    assert numbers == (first, len(ADAM.streams), len(ADAM.scalars))
    # streams are filled in by number, so that they stand one after the other
    assert [offsets[name] for name in ADAM.state] == [
        8 * (first + k) for k in range(len(ADAM.state))
    ]
    assert list(columns) == [*ADAM.scalars, *ADAM.flags]
    assert list(columns.values()) == list(range(len(columns)))


def test_the_scalars_are_the_tables() -> None:
    assert Coefficients._fields == (*ADAM.scalars, *ADAM.flags)
    assert dict(ADAM.finite).keys() <= set(ADAM.scalars)
    assert set(dict(ADAM.finite).values()) <= BY_NAME.keys()
    assert len(ADAM.scalars) == table.N_COEFFICIENTS
    for computing in ("float", "double"):
        rows = engine.scalars_dtype(computing)["rows"]
        assert rows.shape == (engine.SETS, len(ADAM.scalars))


def test_the_structs_in_cuda_are_the_tables() -> None:
    body = re.search(r"struct Tensor \{(.*?)\};", source.SOURCE, re.S)
    assert body is not None
    code = re.sub(r"//.*", "", body[1])
    assert re.findall(r"\w+(?=[,;])", code) == list(gpu_table.TENSOR.names or ())
    row = re.search(r"struct Row \{\s*T (.*?);\s*\};", source.SOURCE, re.S)
    assert row is not None
    assert tuple(row[1].split(", ")) == ADAM.scalars
    flags = re.search(
        r"template <typename T, bool (\w+), bool (\w+)>\n.*adam_element", source.SOURCE
    )
    assert flags is not None
    assert tuple(name.lower() for name in flags.groups()) == ADAM.flags


def test_the_formulas_take_the_streams_in_order() -> None:
    names = list(inspect.signature(adam_reference).parameters)
    assert names == ["p", "g", *ADAM.state, "coefficients"]
    names = list(inspect.signature(adam_step).parameters)
    assert tuple(names[2 : 2 + len(ADAM.state)]) == ADAM.state


@pytest.mark.parametrize("door", [Adam, AdamRule, adam_step])
def test_every_door_takes_the_hyperparameters_in_order(door: Any) -> None:
    takes = inspect.signature(door).parameters
    # to give a stream of a flag's is to set it
    implied = {stream.when for stream in ADAM.streams} if door is adam_step else set()
    expected = [hyper for hyper in ADAM.hypers if hyper.name not in implied]
    assert [name for name in takes if name in BY_NAME] == [hyper.name for hyper in expected]
    for hyper in expected:
        default = takes[hyper.name].default
        assert default == (None if door is AdamRule else hyper.default)


def test_hyperparameters_are_named_once() -> None:
    for algorithm in ALGORITHMS.values():
        names = [hyper.name for hyper in algorithm.hypers]
        assert len(set(names)) == len(names)
        assert set(algorithm.flags) <= set(names)
        assert {hyper.default for hyper in algorithm.hypers if hyper.modes} <= {
            hyper.modes[0] for hyper in algorithm.hypers if hyper.modes
        }
        assert {stream.when for stream in algorithm.streams} <= {None, *algorithm.flags}
        assert {stream.made_of for stream in algorithm.streams} <= {None, *algorithm.state}


@pytest.mark.parametrize("amsgrad", [False, True])
def test_a_state_has_the_streams_of_its_flags(amsgrad: bool) -> None:
    opt = Adam(amsgrad=amsgrad).setup({"w": np.ones(3)})
    opt.apply_gradients({"w": np.ones(3)})
    state = opt.parameters["w"].update_rule.state
    assert tuple(state) == ADAM.needed(opt.hyperparam)
    assert tuple(state) == (ADAM.state if amsgrad else ADAM.state[:2])


def test_what_is_needed_with_any_flags() -> None:
    streams = (Stream("a"), Stream("b", when="x"), Stream("c", when="y"), Stream("d", when="x"))
    made = dataclasses.replace(ADAM, streams=streams, flags=("x", "y"))
    assert made.state == ("a", "b", "c", "d")
    assert made.late == ("b", "c", "d")
    answers = {
        (x, y): made.needed(SimpleNamespace(x=x, y=y)) for x in (0, 1) for y in (False, np.True_)
    }
    assert list(answers.values()) == [("a",), ("a", "c"), ("a", "b", "d"), ("a", "b", "c", "d")]
    assert dataclasses.replace(ADAM, streams=(Stream("a"),)).needed(None) == ("a",)


def test_the_table_by_name() -> None:
    assert ALGORITHMS == {"adam": ADAM}
    assert ADAM.state == STATE
    assert ADAM.flags == FLAGS
    assert [stream.name for stream in CONVERTED] == ["vhat"]
    assert all(isinstance(each, Algorithm) for each in ALGORITHMS.values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        ADAM.name = "other"  # type: ignore[misc]
