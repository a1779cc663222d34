"""What an update asks of GPUs: launches, uploads and waits, counted by the stand-in."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.memory import counting, state
from python_calls import count_calls

import fastadam
from fastadam.kernels.gpu import engine, uploads
from fastadam.kernels.gpu.engine import blocks_of, launch, scalars_dtype
from fastadam.kernels.gpu.source import SOURCE
from fastadam.kernels.gpu.uploads import DeviceTable
from fastadam.optimizer_hooks import GradientClipping, Lasso, WeightDecay

N = 60


def model(cupy: Any, value: float = 1.0, dtype: Any = np.float32) -> dict[str, Any]:
    return {f"p{i}": cupy.full((i % 7, 50), value, dtype) for i in range(N)}


def optimizer(cupy: Any, **settings: Any) -> tuple[Any, dict[str, Any]]:
    opt = fastadam.AMSGrad().setup(model(cupy))
    gradients = model(cupy, 0.5)
    for name, value in settings.items():
        setattr(opt, name, value)
    return opt, gradients


def warm(opt: Any, gradients: Any, **kwargs: Any) -> None:
    for _ in range(3):
        opt.apply_gradients(gradients, **kwargs)


def test_one_launch_and_nothing_else(stand_in: Any) -> None:
    opt, gradients = optimizer(stand_in)
    warm(opt, gradients)
    with counting() as counts:
        for step in range(5):
            opt.hyperparam.alpha = 0.1 / (1 + step)
            opt.apply_gradients(gradients)
    assert counts.kernels == ["adam"] * 5
    assert (counts.uploads, counts.downloads, counts.synchronisations) == (0, 0, 0)


def test_fresh_gradients_cost_the_upload_of_their_addresses(stand_in: Any) -> None:
    opt, gradients = optimizer(stand_in)
    warm(opt, gradients)
    fresh = model(stand_in, 0.25)
    with counting() as counts:
        opt.apply_gradients(fresh)
    assert counts.kernels == ["adam"]
    assert (counts.uploads, counts.uploaded_bytes) == (1, 8 * N)
    assert counts.synchronisations == 0


def test_the_first_update_waits_for_nothing(stand_in: Any) -> None:
    opt, gradients = optimizer(stand_in)
    with counting() as counts:
        opt.apply_gradients(gradients)
    assert counts.kernels == ["adam"]
    assert counts.uploads == 3
    assert counts.synchronisations == 0


@pytest.mark.parametrize("where", ["upload", "launch"])
def test_an_update_that_is_interrupted_before_its_launch(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Nothing is counted, and the next update uploads what this one has not."""
    opt, gradients = optimizer(stand_in)
    other, _ = optimizer(stand_in)
    for each in (opt, other):
        warm(each, gradients)
    fresh = model(stand_in, 0.25)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "upload":
            patch.setattr(uploads, "upload", interrupted)
        else:
            table = opt._plan.steps.kernel_step.on_gpu[0]
            types, arguments, kept = table._launch._kept
            refused = types, arguments, kept._replace(function=interrupted)
            patch.setattr(table._launch, "_kept", refused)
            fresh = gradients
        with pytest.raises(KeyboardInterrupt):
            opt.apply_gradients(fresh)
    assert opt.t == 3
    assert {p.update_rule.t for p in opt.parameters.values()} == {3}
    for each in (opt, other):
        each.apply_gradients(fresh)
    assert fastadam.compare(opt, other).equal


def test_a_graph_sends_a_table_once(stand_in: Any) -> None:
    table, recording = DeviceTable(0), uploads.Recording(0)
    rows = np.arange(5)
    memory = table.put(rows, recording)
    assert table.put(rows, recording) is memory
    assert table.put(rows + 1, recording) is not memory
    assert DeviceTable(0).put(rows, recording) is not memory


@pytest.mark.parametrize("case", ["plain", "fresh", "clip", "monitor", "scaled", "halves"])
def test_calls_do_not_grow_with_the_number_of_parameters(stand_in: Any, case: str) -> None:
    few, many = (calls_of(stand_in, case, n) for n in (6, N))
    # each launch that is not kept casts its arguments, and new addresses are sent
    assert few == many <= {"clip": 180, "monitor": 140, "fresh": 90}.get(case, 70)


def calls_of(cupy: Any, case: str, n: int) -> int:
    """Return how many calls the fifth update of so many parameters makes."""
    kind = np.float16 if case == "halves" else np.float32
    params, *gradients = ({f"p{i}": cupy.ones(5, kind) for i in range(n)} for _ in range(3))
    opt = fastadam.Adam().setup(params)
    opt.monitor = case == "monitor"
    if case == "clip":
        opt.add_hook(GradientClipping(1.0))
    scale = 4.0 if case in ("scaled", "halves") else None
    for _ in range(4):
        opt.apply_gradients(gradients[0], scale)
    given = gradients[case == "fresh"]
    counted = count_calls(lambda: opt.apply_gradients(given, scale))
    assert opt.t == 5
    return counted


@pytest.mark.parametrize("monitor", [False, True])
def test_clipping_does_not_wait(stand_in: Any, monitor: bool) -> None:
    opt, gradients = optimizer(stand_in, monitor=monitor)
    opt.add_hook(GradientClipping(1.0))
    warm(opt, gradients)
    with counting() as counts:
        opt.apply_gradients(gradients)
    assert counts.kernels == ["squares", "add_chunks", "clip_rate", "adam"]
    assert (counts.uploads, counts.synchronisations) == (0, 0)
    with counting() as counts:
        report = opt.last_update
        report = opt.last_update
    # whoever looks waits for what clipping has summed
    assert counts.synchronisations == 1
    assert report.grad_norm > 0


@pytest.mark.parametrize("monitor", [False, True])
def test_a_fixed_loss_scale_does_not_wait(stand_in: Any, monitor: bool) -> None:
    opt, gradients = optimizer(stand_in, monitor=monitor)
    opt.loss_scaling(scale=8.0)
    warm(opt, gradients, loss_scale=8.0)
    with counting() as counts:
        opt.apply_gradients(gradients, loss_scale=8.0)
    assert counts.kernels == (["squares", "add_chunks"] if monitor else []) + ["adam"]
    assert (counts.uploads, counts.synchronisations) == (0, 0)


@pytest.mark.parametrize("masters", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_scaled_half_gradients_are_stepped_in_one_launch(
    stand_in: Any, dtype: str, masters: bool
) -> None:
    kind = pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else np.float16
    opt = fastadam.AMSGrad().setup(model(stand_in, dtype=kind))
    if masters:
        opt.use_fp32_update()
    gradients = model(stand_in, 0.5, kind)
    warm(opt, gradients, loss_scale=8.0)
    plan = opt._plan
    with counting() as counts:
        opt.apply_gradients(gradients, loss_scale=8.0)
    assert counts.kernels == ["adam"]
    assert (counts.uploads, counts.synchronisations) == (0, 0)
    # and without a scale, or in float32, by the same plan
    for others in (gradients, model(stand_in, 0.25)):
        opt.apply_gradients(others)
        assert opt._plan is plan
    with counting() as counts:
        opt.apply_gradients(model(stand_in, 0.25, kind), loss_scale=4.0)
    assert (counts.kernels, counts.synchronisations) == (["adam"], 0)
    assert opt._plan is plan


@pytest.mark.parametrize("how", ["dynamic", "skip", "raise"])
def test_where_the_host_decides_it_waits_once(stand_in: Any, how: str) -> None:
    opt, gradients = optimizer(stand_in)
    if how == "dynamic":
        opt.loss_scaling()
    else:
        opt.on_nonfinite = how
    warm(opt, gradients)
    with counting() as counts:
        opt.apply_gradients(gradients)
    assert counts.kernels == ["squares", "add_chunks", "adam"]
    assert (counts.uploads, counts.downloads, counts.synchronisations) == (0, 1, 1)
    with counting() as counts:
        assert opt.last_update.nonfinite == ()
    assert counts.synchronisations == 0


def test_hooks_change_all_gradients_in_one_launch_each(stand_in: Any) -> None:
    opt, gradients = optimizer(stand_in)
    opt.add_hook(WeightDecay(0.1))
    opt.add_hook(Lasso(0.1))
    warm(opt, gradients)
    with counting() as counts:
        opt.apply_gradients(gradients)
    assert counts.kernels == ["change", "change", "adam"]
    assert counts.synchronisations == 0


def test_a_launch_for_every_type_and_device(stand_in: Any) -> None:
    params = model(stand_in) | {"half": stand_in.ones(9, np.float16)}
    with stand_in.cuda.Device(1):
        params["there"] = stand_in.ones(9, np.float32)
    params["cpu"] = np.ones(9, np.float32)
    opt = fastadam.Adam().setup(params)
    gradients = {key: array.copy() for key, array in params.items()}
    warm(opt, gradients)
    with counting() as counts:
        opt.apply_gradients(gradients)
    types = sorted((name, device) for name, _, _, device in counts.launches)
    assert types == [
        ("adam<float, float, float, false, false, AS_IT_IS, false>", 0),
        ("adam<float, float, float, false, false, AS_IT_IS, false>", 1),
        ("adam<float, float16, float16, false, false, AS_IT_IS, false>", 0),
    ]
    assert (counts.uploads, counts.synchronisations) == (0, 0)
    assert stand_in.cuda.runtime.getDevice() == 0


def test_the_current_stream_is_used(stand_in: Any) -> None:
    opt, gradients = optimizer(stand_in)
    stream = stand_in.cuda.Stream(non_blocking=True)
    with counting() as counts, stream:
        opt.apply_gradients(gradients)
    assert {at for _, _, at, _ in counts.launches} == {stream.ptr}


def test_more_sets_of_scalars_than_a_launch_takes(stand_in: Any) -> None:
    opt, gradients = optimizer(stand_in)
    for i in range(engine.SETS + 3):
        opt.set_hyperparam(f"p{i}", alpha=0.01 * i)
    warm(opt, gradients)
    with counting() as counts:
        opt.apply_gradients(gradients)
    assert counts.kernels == ["adam", "adam"]


def test_only_what_is_used_is_compiled(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, ...]] = []
    module = stand_in.RawModule

    def noted(**kwargs: Any) -> Any:
        assert kwargs["code"] is SOURCE
        assert kwargs["options"] == engine.OPTIONS
        made.append(kwargs["name_expressions"])
        return module(**kwargs)

    monkeypatch.setattr(stand_in, "RawModule", noted)
    for _ in range(2):
        opt, gradients = optimizer(stand_in)
        warm(opt, gradients)
    assert made == [("adam<float, float, float, true, false, AS_IT_IS, false>",)]


def test_a_table_is_uploaded_when_it_differs(stand_in: Any) -> None:
    table = DeviceTable(0)
    rows = np.arange(5, dtype=np.uint64)
    with counting() as counts:
        first = table.put(rows)
        assert table.put(rows.copy()) is first
    assert counts.uploads == 1
    rows[3] = 9
    with counting() as counts:
        assert table.put(rows)[:40].get().tobytes() == rows.tobytes()
        more = np.arange(50, dtype=np.uint64)
        assert table.put(more).get().tobytes() == more.tobytes()
        # fewer rows fit into the same memory
        assert table.put(rows)[:40].get().tobytes() == rows.tobytes()
    assert counts.uploads == 3


def test_blocks(stand_in: Any) -> None:
    chunk, start, blocks = blocks_of([0, 1, 1024, 1025, 0, 5], 0)
    assert chunk == 1024
    assert start.tolist() == [0, 0, 1, 2, 4, 4]
    assert blocks.tolist() == [1, 2, 3, 3, 5]
    assert blocks_of([], 0)[2].tolist() == []
    # 48 blocks for 2 multiprocessors, at the least
    for chunk in (2048, 4096, 8192):
        assert blocks_of([48 * chunk - 1], 0)[0] == chunk // 2
        found, start, blocks = blocks_of([40 * chunk, 1, 8 * chunk], 1)
        assert (found, start.tolist()) == (chunk, [0, 40, 41])
        assert blocks.tolist() == [0] * 40 + [1] + [2] * 8
    assert blocks_of([1 << 40], 0)[0] == 8192


def test_blocks_for_the_gpu_that_is_there(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "multiprocessors", 132)
    engine.forget()
    assert blocks_of([1 << 22], 0)[0] == 1024
    assert blocks_of([1 << 26], 0)[0] == 8192

    def unknown(*_: Any) -> int:
        raise stand_in.cuda.runtime.CUDARuntimeError("no driver")

    monkeypatch.setattr(stand_in.cuda.runtime, "deviceGetAttribute", unknown)
    engine.forget()
    assert blocks_of([100 * 24 * 2048], 0)[0] == 2048
    engine.forget()


def scalars() -> np.ndarray:
    return np.zeros(1, scalars_dtype("float"))


def test_launches_are_checked_before_they_are_made(stand_in: Any) -> None:
    types = ("float", "float", "float", "false", "false", "AS_IT_IS", "false")
    x = stand_in.zeros(8, np.float32)
    good = [x, x, x, 1024, None, None, scalars()]
    with counting() as counts:
        with pytest.raises(ValueError, match="shorter"):
            launch("adam", types, 0, 1, tuple(good[:-1]))
        with pytest.raises(TypeError, match="scalars must be one"):
            launch("adam", types, 0, 1, (*good[:-1], np.zeros(1, scalars_dtype("double"))))
        with pytest.raises(TypeError, match="scalars must be one"):
            launch("adam", types, 0, 1, (*good[:-1], np.zeros(2, scalars_dtype("float"))))
        launch("adam", types, 0, 0, tuple(good))
    assert counts.launches == []
    assert state.device == 0


POISONED = """
import sys, types
class Poison(types.ModuleType):
    class ndarray: pass
    def __getattr__(self, name): raise AssertionError(f'cupy.{name} was looked at')
sys.modules['cupy'] = Poison('cupy')
import numpy as np, fastadam
from fastadam.optimizer_hooks import GradientClipping, WeightDecay
opt = fastadam.AMSBound().setup({'w': np.ones((3, 4), np.float32), 'b': np.ones(2)})
opt.add_hook(GradientClipping(1.0))
opt.loss_scaling()
for _ in range(3):
    opt.apply_gradients({'w': np.ones((3, 4), np.float32), 'b': np.ones(2)})
opt.add_hook(WeightDecay(0.1))
opt.apply_gradients({'w': np.ones((3, 4), np.float32), 'b': np.ones(2)})
assert opt.last_update.nonfinite == ()
"""


def test_work_on_the_cpu_asks_nothing_of_cupy() -> None:
    subprocess.run([sys.executable, "-c", POISONED], check=True)


def test_importing_fastadam_imports_no_cupy() -> None:
    code = "import sys, fastadam; assert not [m for m in sys.modules if m.startswith('cupy')]"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cupy_without_a_gpu(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "devices", 0)
    with pytest.raises(RuntimeError, match=r"finds no GPU: look at what nvidia-smi"):
        fastadam.Link(W=(2, 3)).to_device("@cupy:0")
    monkeypatch.setattr(state, "devices", 2)
    with pytest.raises(RuntimeError, match="there is no GPU 2; CuPy finds 2, counted from 0"):
        fastadam.Link(W=(2, 3)).to_device("@cupy:2")
