"""What the benchmark steps: shapes, arrays, and how much memory they take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastadam.bench import arrays, cases
from fastadam.bench.settings import VARIANTS
from fastadam.cli.extras import MissingExtra


@pytest.mark.parametrize(
    ("name", "tensors", "elements"),
    [
        ("tiny", 2, 1230),
        ("mlp-small", 6, 17_610),
        ("mlp", 6, 17_694),
        ("many", 1000, 1_000_000),
        ("many-fresh", 1000, 1_000_000),
        ("lora", 3000, 1_488_000),
        ("20m", 1, 20_000_000),
        ("resnet50", 161, 25_557_032),
        ("resnet50-bfloat16", 161, 25_557_032),
        ("100m", 1, 100_000_000),
        ("gpt2", 148, 124_439_808),
    ],
)
def test_tensors_and_elements(name: str, tensors: int, elements: int) -> None:
    case = cases.CASES[name]()
    assert case.name == name
    assert len(case.tensors) == tensors
    assert case.elements == elements
    assert case.fresh == name.endswith("-fresh")
    assert len({tensor.name for tensor in case.tensors}) == tensors


def test_resnet50_is_torchvisions() -> None:
    shapes = [tensor.shape for tensor in cases.resnet50().tensors]
    assert shapes[:3] == [(64, 3, 7, 7), (64,), (64,)]
    # the first block: three convolutions and the shortcut
    assert [shape for shape in shapes[3:15] if len(shape) == 4] == [
        (64, 64, 1, 1),
        (64, 64, 3, 3),
        (256, 64, 1, 1),
        (256, 64, 1, 1),
    ]
    assert shapes[-2:] == [(1000, 2048), (1000,)]
    assert sum(len(shape) == 4 for shape in shapes) == 53


def test_gpt2_is_the_small_one() -> None:
    shapes = [tensor.shape for tensor in cases.gpt2().tensors]
    assert shapes[:2] == [(50257, 768), (1024, 768)]
    assert shapes.count((768, 3072)) == shapes.count((3072, 768)) == 12
    assert shapes[-2:] == [(768,), (768,)]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", None])
def test_arrays_are_those_of_the_case(dtype: str | None) -> None:
    case = cases.Case(
        "a case", (cases.Tensor("a", (300, 500), "float64"), cases.Tensor("b", (7,), "float16"))
    )
    made = arrays.gradients(case, dtype)
    assert [array.shape for array in made] == [(300, 500), (7,)]
    own = ["float64", "float16"]
    assert [array.dtype.name for array in made] == ([dtype] * 2 if dtype else own)
    for array in made:
        numbers = np.abs(array.astype(np.float64))
        assert numbers.min() > 0.1
        assert numbers.max() < 0.5
    # of both signs, and from the seed alone
    assert {-1, 1} == set(np.sign(made[0]).ravel())
    for one, other in zip(made, arrays.gradients(case, dtype), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.any(made[0] != arrays.gradients(case, dtype, seed=5)[0])


def test_bytes_of_the_state() -> None:
    case = cases.one(1000, "a thousand")
    assert arrays.state_bytes(case, "float32", VARIANTS["adam"]) == (4000, 8000)
    assert arrays.state_bytes(case, "float64", VARIANTS["amsgrad"]) == (8000, 24_000)
    # the state of the half types is float32
    assert arrays.state_bytes(case, "float16", VARIANTS["amsgrad"]) == (2000, 12_000)


def test_bfloat16_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(MissingExtra, match="pip install ml_dtypes"):
        arrays.dtypes(cases.one(1, "one"), "bfloat16")


def test_free_memory_is_read_or_unknown(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert arrays.free_bytes(meminfo) is None
    meminfo.write_text("MemTotal:  100 kB\nMemFree:  3 kB\n")
    assert arrays.free_bytes(meminfo) is None
    meminfo.write_text("MemTotal:  100 kB\nMemFree:  3 kB\nMemAvailable:      42 kB\n")
    assert arrays.free_bytes(meminfo) == 42 * 1024
