"""How tensors, groups and states are read: lost memory, signs, classes of somebody's own."""

from __future__ import annotations

import types
from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch_pairs import named

import fastadam.torch
from fastadam.torch import tensors

MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


class Elsewhere(torch.Tensor):  # type: ignore[misc]
    """A tensor whose storage says other things of itself than its memory does."""

    def untyped_storage(self) -> Any:
        """Return what has an address and a size."""
        return types.SimpleNamespace(
            data_ptr=lambda: 1, nbytes=lambda: 2, _cdata=super().untyped_storage()._cdata
        )


def unmeasured() -> types.SimpleNamespace:
    """Return a PyTorch whose storages are laid out as nobody knows."""
    names = ("Tensor", "nn", "zeros", "float32", "_C")
    return types.SimpleNamespace(
        frombuffer=lambda *_, **__: torch.zeros(5).as_subclass(Elsewhere),
        **{name: getattr(torch, name) for name in names},
    )


@pytest.fixture(params=["fast", "slow", "fast, unmeasured", "slow, unmeasured"])
def door(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ways in which tensors are read."""
    way: str = request.param
    library = unmeasured() if "unmeasured" in way else torch
    reader = tensors.new_reader("fast" in way, library)
    assert not (reader.measures and "unmeasured" in way)
    monkeypatch.setattr(tensors, "_reader", reader)


def stepped(
    module: Any = fastadam.torch, start: torch.Tensor | None = None, **options: Any
) -> tuple[torch.nn.Parameter, Any]:
    """Return a parameter that was stepped once, and its optimizer."""
    p = torch.nn.Parameter(torch.ones(3) if start is None else start)
    p.grad = torch.ones_like(p)
    opt = module.AdamW(named([("weight", p)]), lr=0.1, **options)
    opt.step()
    return p, opt


def both(change: Callable[[torch.nn.Parameter, Any], None], **options: Any) -> None:
    """Change an optimizer after a step, step it, and compare it with PyTorch's."""
    ends = []
    for module in (fastadam.torch, torch.optim):
        p, opt = stepped(module, **options)
        change(p, opt)
        for _ in range(2):
            opt.step()
        ends.append(torch.stack([p.detach(), *(opt.state[p][key] for key in MOMENTS[:2])]))
        assert float(opt.state[p]["step"]) == 3
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-6)


def numbers(opt: Any) -> list[torch.Tensor]:
    """Return copies of all numbers of an optimizer that have memory."""
    found = [p.detach() for group in opt.param_groups for p in group["params"]]
    found += [x for state in opt.state.values() for x in state.values()]
    return [x.clone() for x in found if x.data_ptr()]


def refused(opt: Any, error: type[Exception] | tuple[type[Exception], ...], words: str) -> None:
    """Check that a step is refused, and again, and that it has changed nothing."""
    before = numbers(opt)
    for _ in range(2):
        with pytest.raises(error, match=words):
            opt.step()
    after = numbers(opt)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def emptied(tensor: torch.Tensor, n_bytes: int = 0) -> None:
    """Take the memory of a tensor away."""
    tensor.untyped_storage().resize_(n_bytes)


@pytest.mark.usefixtures("door")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_a_gradient_of_zeros_without_memory(dtype: torch.dtype) -> None:
    for first in (True, False):
        ends = []
        for module in (fastadam.torch, torch.optim):
            p = torch.nn.Parameter(torch.ones(5000, dtype=dtype))
            opt = module.Adam([p], lr=0.1)
            if not first:
                p.grad = torch.ones_like(p)
                opt.step()
            for _ in range(2):
                p.grad = torch._efficientzerotensor((5000,), dtype=dtype)
                opt.step()
            ends.append(p.detach())
        torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-6)
        assert not first or bool((ends[0] == 1).all())


@pytest.mark.usefixtures("door")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_gradient_of_zeros_of_another_type(dtype: torch.dtype) -> None:
    p = torch.nn.Parameter(torch.ones(3, dtype=dtype))
    p.grad = torch._efficientzerotensor((3,), dtype=dtype)
    opt = fastadam.torch.Adam([p], lr=0.1, max_grad_norm=1.0)
    for number in range(1, 3):
        opt.step()
        assert bool((p == 1).all())
        assert float(opt.state[p]["step"]) == number
        assert opt.last_update is not None
        assert opt.last_update.grad_norm == 0


@pytest.mark.usefixtures("door")
def test_zeros_without_memory_are_not_written() -> None:
    zeros = torch._efficientzerotensor((3,))
    p = torch.nn.Parameter(zeros)
    p.grad = torch.ones(3)
    opt = fastadam.torch.AdamW(named([("weight", p)]))
    refused(opt, RuntimeError, "parameter 'weight' has no memory")
    assert not opt.state
    for key in MOMENTS:
        p, opt = stepped(amsgrad=True)
        opt.state[p][key] = zeros
        refused(opt, RuntimeError, f"{key} of parameter 'weight' has no memory")
    p, opt = stepped()
    p.data = zeros
    refused(opt, RuntimeError, "parameter 'weight' has no memory")


@pytest.mark.usefixtures("door")
@pytest.mark.parametrize("n_bytes", [0, 4, 8])
@pytest.mark.parametrize("offset", [0, 1])
def test_memory_that_was_taken_away(offset: int, n_bytes: int) -> None:
    p, opt = stepped()
    p.grad = torch.ones(4)[offset : 3 + offset]
    emptied(p.grad, n_bytes)
    refused(opt, (TypeError, RuntimeError), "parameter 'weight'")
    p.grad = None
    opt.step()

    p, opt = stepped(start=torch.ones(4)[offset : 3 + offset])
    emptied(p, n_bytes)
    with pytest.raises((TypeError, RuntimeError), match="parameter 'weight'"):
        opt.step()
    assert float(opt.state[p]["step"]) == 1

    for key in MOMENTS:
        p, opt = stepped(amsgrad=True)
        opt.state[p][key] = torch.ones(4)[offset : 3 + offset]
        opt.step()
        emptied(opt.state[p][key], n_bytes)
        before = p.detach().clone()
        with pytest.raises(RuntimeError, match=f"{key} of parameter 'weight' has no memory"):
            opt.step()
        assert torch.equal(p, before)
        assert float(opt.state[p]["step"]) == 2


@pytest.mark.usefixtures("door")
def test_memory_of_a_strided_parameter_that_was_taken_away() -> None:
    p, opt = stepped(start=torch.ones(6)[::2])
    # what is left holds all but the last element
    emptied(p, 16)
    with pytest.raises((TypeError, RuntimeError), match="parameter 'weight'"):
        opt.step()
    emptied(p)
    with pytest.raises((TypeError, RuntimeError), match="parameter 'weight'"):
        opt.step()


@pytest.mark.usefixtures("door")
def test_memory_that_is_enough() -> None:
    def changed(p: torch.nn.Parameter, opt: Any) -> None:
        """Put tensors in their place that end where their memory does."""
        p.data = torch.ones(2, 3)[1]
        emptied(p, 24)
        p.grad = torch.frombuffer(bytearray(b"\0\0\x80\x3f" * 5), dtype=torch.float32)[2:]
        opt.state[p]["exp_avg"] = torch.ones(9).as_strided((3,), (1,), 6)

    both(changed)
    p, opt = stepped(start=torch.ones(0, 3))
    emptied(p)
    emptied(opt.state[p]["exp_avg"])
    opt.step()
    assert float(opt.state[p]["step"]) == 2


def test_sizes_of_memory_are_found() -> None:
    reader = tensors.new_reader(False)
    assert reader.measures == reader.ahead


@pytest.mark.parametrize("wrong", [None, "x", 3])
def test_zero_grad_of_what_is_no_tensor(wrong: Any) -> None:
    p, opt = stepped()
    opt.param_groups[0]["params"].append(wrong)
    with pytest.raises(AttributeError, match="grad"):
        opt.zero_grad()
    assert p.grad is None


def test_what_only_looks_like_a_parameter() -> None:
    p, opt = stepped()
    # of a class that has hashes
    other = type("Other", (), {"grad": None})()
    opt.param_groups[0]["params"].append(other)
    opt.param_groups[0].pop("param_names")
    opt.step()
    opt.step()
    other.grad = torch.ones(3)
    opt.zero_grad()
    assert other.grad is None
    assert p.grad is None


@pytest.mark.parametrize("made", [tuple, torch.nn.ParameterList, lambda ps: iter(list(ps))])
def test_zero_grad_of_other_sequences(made: Callable[[list[torch.Tensor]], Any]) -> None:
    p, opt = stepped()
    opt.param_groups[0]["params"] = made([p])
    opt.zero_grad()
    assert p.grad is None


@pytest.mark.parametrize("made", [tuple, torch.nn.ParameterList])
def test_steps_of_other_sequences(made: Callable[[list[torch.Tensor]], Any]) -> None:
    def changed(p: torch.nn.Parameter, opt: Any) -> None:
        opt.param_groups[0]["params"] = made([p])

    both(changed)


NEGATED: list[Callable[[], torch.Tensor]] = [
    lambda: torch._neg_view(torch.ones(3)),
    lambda: torch.full((3,), 1j).conj().imag,
    lambda: torch.full((3,), 1j).conj().imag.as_strided((3,), (1,)),
]


@pytest.mark.usefixtures("door")
@pytest.mark.parametrize("negated", NEGATED)
def test_negated_gradients_after_others(negated: Callable[[], torch.Tensor]) -> None:
    def changed(p: torch.nn.Parameter, _: Any) -> None:
        p.grad = negated()

    both(changed)


@pytest.mark.usefixtures("door")
@pytest.mark.parametrize("negated", [True, False])
def test_turned_gradients_of_complex_parameters(negated: bool) -> None:
    ends = []
    for module in (fastadam.torch, torch.optim):
        p, opt = stepped(module, torch.ones(3, dtype=torch.complex64))
        grad = torch.full((3,), 1 + 2j)
        if negated:
            p.grad = grad = torch._neg_view(grad)
            opt.step()
        p.grad = grad.conj() if module is fastadam.torch else grad.conj().resolve_conj()
        opt.step()
        ends.append(p.detach())
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("door")
def test_parameters_and_states_that_become_negated() -> None:
    p, opt = stepped()
    p.data = torch._neg_view(torch.ones(3))
    with pytest.raises(TypeError, match="negative bit"):
        opt.step()

    def changed(p: torch.nn.Parameter, opt: Any) -> None:
        opt.state[p]["exp_avg"].data = torch._neg_view(torch.full((3,), -0.5))

    both(changed)


class Own(dict[str, Any]):
    """A dict of somebody's own."""

    def items(self) -> Any:
        """Return what is in it, in another order."""
        return list(super().items())[::-1]


def moved(found: dict[str, Any]) -> OrderedDict[str, Any]:
    """Return a dict whose own order is another one than that of its memory."""
    made = OrderedDict(found)
    made.move_to_end(next(iter(made)))
    return made


@pytest.mark.parametrize("made", [OrderedDict, moved, Own])
def test_states_and_groups_of_other_classes(made: Callable[[Any], Any]) -> None:
    def group(_: torch.nn.Parameter, opt: Any) -> None:
        opt.param_groups[0] = made(opt.param_groups[0])

    def state(p: torch.nn.Parameter, opt: Any) -> None:
        opt.state[p] = made(opt.state[p])

    def loaded(_: torch.nn.Parameter, opt: Any) -> None:
        saved = opt.state_dict()
        saved["param_groups"] = [made(group) for group in saved["param_groups"]]
        saved["state"] = {key: made(state) for key, state in saved["state"].items()}
        opt.load_state_dict(OrderedDict(saved))

    for change in (group, state, loaded):
        both(change)


def test_groups_of_no_dict() -> None:
    def changed(_: torch.nn.Parameter, opt: Any) -> None:
        opt.param_groups[0] = UserDict(opt.param_groups[0])

    both(changed)


def test_groups_in_a_tuple() -> None:
    def changed(_: torch.nn.Parameter, opt: Any) -> None:
        opt.param_groups = tuple(opt.param_groups)

    both(changed)


def test_all_states_in_another_mapping() -> None:
    def changed(_: torch.nn.Parameter, opt: Any) -> None:
        opt.state = UserDict(opt.state)

    both(changed)


def changes(state: Any, group: Any) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Yield what may be put into a state and a group, and under which key."""
    yield state, "exp_avg", torch.full((3,), 2.0)
    yield group, "lr", 0.5


@pytest.mark.parametrize("number", range(2))
def test_changes_in_states_and_groups_of_other_classes(number: int) -> None:
    def changed(p: torch.nn.Parameter, opt: Any) -> None:
        opt.state[p] = Own(opt.state[p])
        opt.param_groups[0] = Own(opt.param_groups[0])
        opt.step()
        opt.state[p]["step"].fill_(1)
        found, key, value = list(changes(opt.state[p], opt.param_groups[0]))[number]
        found[key] = value

    both(changed)


def test_versions_of_moments() -> None:
    p, opt = stepped(amsgrad=True)
    other = torch.nn.Parameter(torch.ones(2))
    other.grad = torch.ones(2)
    opt.add_param_group({"params": [other], "param_names": ["other"]})
    opt.step()
    other.grad = None
    written = [p, *(opt.state[p][key] for key in MOMENTS)]
    left = [other, opt.state[other]["exp_avg"]]
    before = [[x._version for x in each] for each in (written, left)]
    opt.step()
    assert [x._version for x in written] == [version + 1 for version in before[0]]
    assert [x._version for x in left] == before[1]
    product = torch.ones(3, requires_grad=True) * opt.state[p]["exp_avg"]
    opt.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


def test_versions_of_masters() -> None:
    p, opt = stepped(start=torch.ones(3, dtype=torch.float16), master_weights=True)
    master = opt.state[p]["master_param"]
    before = p._version, master._version
    opt.step()
    assert (p._version, master._version) == (before[0] + 1, before[1] + 1)


def test_states_made_in_inference_mode() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    opt = fastadam.torch.AdamW([p])
    with torch.inference_mode():
        opt.step()
    opt.step()
    assert float(opt.state[p]["step"]) == 2
