"""The script for machines with a GPU says so where there is none, and counts what has run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import everything


def test_where_there_is_no_gpu(tmp_path: Path) -> None:
    output, png = tmp_path / "cuda.json", tmp_path / "cuda.png"
    code = (
        "import sys; sys.modules['cupy'] = None; sys.path.insert(0, sys.argv.pop(1));"
        "import everything; everything.run_tests = lambda *_: "
        "{'passed': 0, 'failed': 0, 'skipped': 3, 'exit_status': 0};"
        "sys.exit(everything.main(sys.argv[1:]))"
    )
    argv = [str(everything.FOLDER), "--output", str(output), "--png", str(png), "--quick"]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    # tests that are all skipped have shown nothing
    assert done.returncode == 1
    assert json.loads(output.read_text())["tests"]["tests"]["skipped"] == 3
    assert not png.exists()


def test_counts(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    assert everything.counts(junit) == {"passed": 0, "failed": 0, "skipped": 0}
    cases = "<testcase/><testcase><failure/></testcase><testcase><error/></testcase>"
    junit.write_text(
        f"<testsuites><testsuite>{cases}<testcase><skipped/></testcase></testsuite></testsuites>"
    )
    assert everything.counts(junit) == {"passed": 1, "failed": 2, "skipped": 1}


def test_the_files_for_sanitizers_are_there() -> None:
    assert all((everything.FOLDER / name).exists() for name in everything.SANITIZED)
