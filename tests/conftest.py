"""Makes sure that the tests test what they are meant to test."""

from __future__ import annotations

import os
from pathlib import Path

import fastadam

if os.environ.get("FASTADAM_TEST_INSTALLED") == "1":
    _checkout = Path(__file__).resolve().parents[1] / "fastadam"
    _tested = Path(fastadam.__file__).resolve().parent
    if _tested == _checkout:
        raise AssertionError(f"the installed fastadam is to be tested, not that of {_checkout}")
