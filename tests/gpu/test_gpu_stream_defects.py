"""What keeps updates right on streams that run late, taken away piece by piece: each is missed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import stream_cases as cases
from place import SEEDS, cupy_is_the_stand_in

import fastadam.update.gradient_method
from fastadam.kernels import backend, multi_tensor
from fastadam.kernels.gpu import engine, uploads
from fastadam.kernels.gpu import steps as gpu_steps
from fastadam.kernels.gpu import sums as gpu_norm
from fastadam.kernels.gpu import table as gpu_table
from fastadam.update import graph

Patch = Callable[[pytest.MonkeyPatch], None]


def bytes_go(patch: pytest.MonkeyPatch) -> None:
    def upload(memory: Any, data: bytes) -> None:
        memory.set(np.frombuffer(data, np.uint8))

    patch.setattr(uploads, "upload", upload)
    patch.setattr(gpu_table, "upload", upload)


def scalars_from_where_they_change(patch: pytest.MonkeyPatch) -> None:
    def write_scalars(self: Any) -> None:
        self.scalars["due"] = 1
        self._replayed[0].set(self.scalars.view(np.uint8))

    patch.setattr(gpu_table.GpuTable, "write_scalars", write_scalars)


def tables_of_any_stream(patch: pytest.MonkeyPatch) -> None:
    true = uploads.DeviceTable.put

    def put(self: Any, table: Any, recording: Any = None, *more: Any) -> Any:
        if recording is None and table.tobytes() == self._there:
            return self._memory
        return true(self, table, recording, *more)

    patch.setattr(uploads.DeviceTable, "put", put)


def streams_go(patch: pytest.MonkeyPatch) -> None:
    true = uploads.DeviceTable.put

    def put(self: Any, table: Any, recording: Any = None, *more: Any) -> Any:
        memory = true(self, table, recording, *more)
        self._stream = self._stream and SimpleNamespace(ptr=self._stream.ptr)
        return memory

    patch.setattr(uploads.DeviceTable, "put", put)


def tables_are_written_over(patch: pytest.MonkeyPatch) -> None:
    true = uploads.DeviceTable.put

    def put(self: Any, table: Any, recording: Any = None, *more: Any) -> Any:
        before = self._memory
        size = len(table.tobytes())
        if recording is None and before is not None and before.size == size:
            if table.tobytes() != self._there:
                self._there = table.tobytes()
                uploads.upload(before, self._there)
            return before
        return true(self, table, recording, *more)

    patch.setattr(uploads.DeviceTable, "put", put)


def sums_on_the_current_stream(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gpu_norm.GpuSums, "values", lambda self: self.totals.get().tolist())


def sums_of_replays_without_a_wait(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gpu_norm, "wait_for", lambda device: None)


def sums_in_one_place(patch: pytest.MonkeyPatch) -> None:
    true = gpu_steps.GpuSums
    made: dict[Any, Any] = {}

    def sums(n: int, device: int, replayed: bool = False) -> Any:
        key = n, device, replayed
        if key not in made:
            made[key] = true(n, device, replayed)
        return made[key]

    patch.setattr(gpu_steps, "GpuSums", sums)


def graphs_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    forgotten = property(lambda self: (), lambda self, graphs: None)
    patch.setattr(fastadam.GradientMethod, "_graphs", forgotten)


def recordings_keep_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(uploads.Recording, "keep", lambda self, memory: memory)


def nothing_is_sent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(uploads.Recording, "send", lambda self: None)


def captures_are_not_followed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(uploads, "follow_stream", lambda stream: None)


def nothing_is_reserved(patch: pytest.MonkeyPatch) -> None:
    true = gpu_table.GpuTable.reserve

    def reserve(self: Any) -> None:
        if self.recording is not None:
            true(self)

    patch.setattr(gpu_table.GpuTable, "reserve", reserve)
    patch.setattr(uploads.DeviceTable, "reserve", lambda self, size: None)


def captures_by_the_current_device(patch: pytest.MonkeyPatch) -> None:
    def capturing(device: int) -> bool:
        stream = backend.loaded_cupy().cuda.get_current_stream()
        return bool(stream.ptr > 1 and stream.is_capturing())

    for module in (backend, gpu_steps, uploads):
        patch.setattr(module, "capturing", capturing)


def moves_do_not_wait(patch: pytest.MonkeyPatch) -> None:
    def move(array: Any, device: int) -> Any:
        if device in (backend.device_of(array), backend.CPU):
            return array if device == backend.device_of(array) else backend.on_cpu(array)
        with backend.on_device(device):
            return backend.loaded_cupy().array(array)

    for module in (backend, fastadam.update.rule_state, fastadam.model.device):
        patch.setattr(module, "move", move)


def reads_do_not_wait(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(backend, "wait_for", lambda device: None)


def copies_do_not_wait(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fastadam.update.gradient_method, "wait_for", lambda device: None)


def any_scale_that_is_left(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(graph.Replay, "_divides_by_what_is_left", lambda self: True)


def scales_stay(patch: pytest.MonkeyPatch) -> None:
    true = multi_tensor.MultiTensorStep.replay

    def replay(self: Any, *args: Any) -> None:
        true(self, *args[:-1], ())

    patch.setattr(multi_tensor.MultiTensorStep, "replay", replay)


def reports_of_any_graph(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(graph.Replay, "join", lambda self, earlier: None)


def tables_stay(patch: pytest.MonkeyPatch) -> None:
    true = uploads.DeviceTable.put

    def put(self: Any, table: Any, recording: Any = None, version: Any = None, *more: Any) -> Any:
        return true(self, table, recording, None if version is None else 0, *more)

    patch.setattr(uploads.DeviceTable, "put", put)


def launches_stay(patch: pytest.MonkeyPatch) -> None:
    true = engine.KeptLaunch.of
    patch.setattr(engine.KeptLaunch, "of", lambda self, *a: self._kept[2] or true(self, *a))


class Defect(NamedTuple):
    """What is taken away, and the check that misses it."""

    patch: Patch
    check: Callable[[Any], None]


DEFECTS = [
    Defect(bytes_go, cases.check_updates),
    Defect(scalars_from_where_they_change, cases.check_replays_without_a_wait),
    Defect(tables_of_any_stream, cases.check_streams_in_turns),
    Defect(streams_go, cases.check_hooks_on_streams_that_go),
    Defect(tables_are_written_over, cases.check_capture_in_flight),
    Defect(sums_on_the_current_stream, cases.check_report_elsewhere),
    Defect(sums_of_replays_without_a_wait, cases.check_graph_launched_elsewhere),
    Defect(sums_in_one_place, cases.check_report_that_stays),
    Defect(graphs_are_forgotten, cases.check_graph_that_outlives_its_setup),
    Defect(recordings_keep_nothing, cases.check_capture_in_flight),
    Defect(nothing_is_sent, cases.check_scales_of_graphs),
    Defect(captures_are_not_followed, cases.check_graph_launched_elsewhere),
    Defect(nothing_is_reserved, cases.check_capture_in_global_mode),
    Defect(captures_by_the_current_device, cases.check_capture_on_another_device),
    Defect(moves_do_not_wait, cases.check_moves),
    Defect(reads_do_not_wait, cases.check_files_elsewhere),
    Defect(copies_do_not_wait, cases.check_files_elsewhere),
    Defect(any_scale_that_is_left, cases.check_scales_that_parameters_hold),
    Defect(scales_stay, cases.check_scales_that_parameters_hold),
    Defect(reports_of_any_graph, cases.check_reports_of_two_graphs),
    Defect(tables_stay, cases.check_updates),
    Defect(launches_stay, cases.check_updates),
]


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.patch.__name__)
def test_what_is_taken_away_is_missed(defect: Defect, monkeypatch: pytest.MonkeyPatch) -> None:
    defect.patch(monkeypatch)
    missed = 0
    for seed in (*SEEDS, None):
        try:
            with cupy_is_the_stand_in(seed) as cupy:
                defect.check(cupy)
        except (AssertionError, RuntimeError, pytest.fail.Exception):
            missed += 1
            break
    assert missed
