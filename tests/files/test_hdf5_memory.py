"""HDF5 files where memory runs out, in processes of their own: libhdf5 may not survive that."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from fastadam.files.hdf5_filters import fletcher32, packed_chunks

h5py = pytest.importorskip("h5py")

# Forks once for each limit; what a fork has done is told by its status, and by the file.
SCRIPT = """
import os, resource, sys
import numpy as np
import fastadam
from fastadam.serializers import load_hdf5, save_hdf5

path, what = sys.argv[1:]
N = 300_000

def made(seed):
    rng = np.random.default_rng(seed)
    opt = fastadam.Adam().setup({"w": rng.standard_normal(N).astype("f4"), "b": np.ones(9)})
    opt.apply_gradients({"w": np.ones(N, "f4"), "b": np.ones(9)})
    return opt

save = {
    "save": lambda opt: fastadam.save(path, opt),
    "save packed": lambda opt: fastadam.save(path, opt, compression=True),
    "save_hdf5": lambda opt: save_hdf5(path, opt),
    "save_hdf5 plain": lambda opt: save_hdf5(path, opt, compression=None),
}[what]
load = load_hdf5 if "hdf5" in what else fastadam.load

def state(opt):
    rules = [param.update_rule for param in opt.parameters.values()]
    return [opt.t, *[(rule.t, *[a.tobytes() for a in rule.state.values()]) for rule in rules]]

def forked(kib, call):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + kib * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        call()
    except MemoryError:
        os._exit(1)
    except ValueError as error:
        # an array that is refused as such
        os._exit(1 if "more than there is memory" in str(error) else 2)
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(2)
    # with all that ends with a process
    sys.exit(0)

old, new, other = made(0), made(1), made(2)
save(old)
load(path, other)
assert state(other) == state(old)
with open(path, "rb") as file:
    before = file.read()
for kib in map(int, os.environ["LIMITS"].split()):
    status = forked(kib, lambda: save(new))
    with open(path, "rb") as file:
        same = file.read() == before
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
    if status == 0:
        load(path, other)
        assert state(other) == state(new)
        with open(path, "wb") as file:
            file.write(before)
    else:
        assert same
    # a fork would write again what is not written yet
    print("save", status, flush=True)
    print("load", forked(kib, lambda: load(path, other)), flush=True)
"""
LIMITS = [0, 100, 1000, *range(2000, 7001, 700), 40_000]


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("what", ["save", "save packed", "save_hdf5", "save_hdf5 plain"])
def test_memory_that_runs_out_is_a_memory_error(tmp_path: Path, what: str) -> None:
    """Of a save, with the old file as it was; of a load, with the optimizer as it was."""
    env = dict(
        os.environ,
        LIMITS=" ".join(map(str, LIMITS)),
        # what has been freed is given back, so that the limits are those
        MALLOC_MMAP_THRESHOLD_="65536",
        MALLOC_TRIM_THRESHOLD_="65536",
        OMP_NUM_THREADS="1",
    )
    argv = [sys.executable, "-c", SCRIPT, str(tmp_path / "run.h5"), what]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(LIMITS), done.stdout
    assert set(lines) == {"save 0", "save 1", "load 0", "load 1"}, done.stdout


def of_libhdf5(data: bytes) -> int:
    """The checksum that libhdf5 stores of bytes."""
    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        array = np.frombuffer(data, np.uint8)
        dataset = file.create_dataset("x", data=array, chunks=array.shape, fletcher32=True)
        file.flush()
        stored = dataset.id.read_direct_chunk((0,))[1]
    assert stored[:-4] == data
    return int.from_bytes(stored[-4:], "little")


def test_checksums_are_those_of_libhdf5() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 719, 720, 721, 722, 65535, 65536, 65537, 65538, 200_001):
        some = rng.bytes(n)
        last = bytes(n - 1) + b"\1"
        for data in (bytes(n), b"\xff" * n, some, last, (b"\xff\xfe\0\1" * n)[:n]):
            assert fletcher32(data) == of_libhdf5(data), (n, data[:4])
    for _ in range(300):
        data = rng.choice(np.array([0, 1, 254, 255], np.uint8), rng.integers(1, 50)).tobytes()
        assert fletcher32(data) == of_libhdf5(data), data


@pytest.mark.parametrize("level", [None, 0, 4, 9])
def test_chunks_are_what_libhdf5_unpacks(level: int | None) -> None:
    rng = np.random.default_rng(0)
    for shape, chunk in (((7,), (3,)), ((5, 4), (2, 4)), ((3, 5, 2), (1, 2, 2)), ((4,), (9,))):
        array = rng.standard_normal(shape)
        with h5py.File("x", "w", driver="core", backing_store=False) as file:
            dataset = file.create_dataset(
                "x",
                shape,
                "f8",
                chunks=chunk,
                compression=level,
                fletcher32=True,
                maxshape=(None,) * len(shape),
            )
            for start, data in packed_chunks(array, chunk, level):
                dataset.id.write_direct_chunk(start, data)
            np.testing.assert_array_equal(dataset[()], array)
            if level is not None:
                packed = dataset.id.read_direct_chunk((0,) * len(shape))[1]
                whole = np.zeros(chunk)
                part = array[tuple(map(slice, chunk))]
                whole[tuple(map(slice, part.shape))] = part
                assert zlib.decompress(packed[:-4]) == whole.tobytes()
