"""Run a program with the stand-in in the place of CuPy, to try it out where there is no GPU.

python tests/gpu/on_stand_in.py -m fastadam bench --cuda --quick
python tests/gpu/on_stand_in.py tests/gpu/bits.py --small
"""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def main(argv: list[str]) -> None:
    """Run what is named, with the arguments that follow."""
    # where the stand-in is; the package of this clone, unless another is installed
    sys.path.insert(0, str(FOLDER))
    sys.path.append(str(FOLDER.parents[1]))
    cuda = importlib.import_module("cuda_on_cpu.cuda")
    sys.modules["cupy"] = importlib.import_module("cuda_on_cpu.cupy_stand_in").make_cupy()
    names = importlib.import_module("instantiations").ALL_KERNELS
    cuda.precompile(importlib.import_module("fastadam.kernels.gpu.source").SOURCE, names)
    # what the stand-in gets through in seconds
    plans = importlib.import_module("fastadam.bench.cuda_plans")
    plans.QUICK = plans.Size(1 << 12, (1, 4))
    if argv[0] == "-m":
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv
        sys.path.insert(0, str(Path(argv[0]).parent))
        runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
