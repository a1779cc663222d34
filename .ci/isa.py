"""Runs the tests once for every instruction set that the build and this CPU have.

Usage: python isa.py RESULTS_FOLDER COMMAND...; each run's results go to isa-NAME.xml there.
"""

from __future__ import annotations

import os
import subprocess
import sys

from fastadam.kernels.cpu import _cpu_features


def main(results: str, command: list[str]) -> int:
    """Run the command for each instruction set; return 1 if any run failed."""
    runnable = [name for name in _cpu_features.built() if name in _cpu_features.supported()]
    others = [name for name in _cpu_features.built() if name not in runnable]
    failed = []
    for name in runnable:
        print(f"=== FASTADAM_ISA={name}", flush=True)
        run = subprocess.run(
            [*command, "--junit-xml", os.path.join(results, f"isa-{name}.xml")],
            env=os.environ | {"FASTADAM_ISA": name},
        )
        if run.returncode:
            failed.append(name)
    print(f"=== instruction sets run: {', '.join(runnable)}")
    print(f"=== not run, for this CPU does not have them: {', '.join(others) or 'none'}")
    print(f"=== failed: {', '.join(failed) or 'none'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
