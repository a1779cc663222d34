from __future__ import annotations

import pickle
import pickletools

import numpy as np
import pytest

from fastadam.files.none import MAX_LENGTH, is_pickled_none

NONE = np.asarray(None)

# Written by NumPy 1.26 and by NumPy 2.
NUMPY_1 = (
    b"\x80\x03cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02C\x01bq"
    b"\x03\x87q\x04Rq\x05(K\x01)cnumpy\ndtype\nq\x06X\x02\x00\x00\x00O8q\x07\x89\x88\x87q\x08Rq\t("
    b"K\x03X\x01\x00\x00\x00|q\nNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tq\x0bb\x89]q\x0cNatq\rb."
)
# Written by Python 2, where bytes are strings.
PYTHON_2 = (
    b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87"
    b"Rq\x03(K\x01)cnumpy\ndtype\nq\x04U\x02O8K\x00K\x01\x87Rq\x05(K\x03U\x01|NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK?tb\x89]q\x06Natb."
)


def test_recorded_pickles():
    for recorded in (NUMPY_1, PYTHON_2):
        assert is_pickled_none(recorded)
        assert recorded.endswith(b".")
    assert pickle.loads(NUMPY_1)[()] is None


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(protocol):
    data = pickle.dumps(NONE, protocol=protocol)
    assert is_pickled_none(data)
    assert is_pickled_none(pickletools.optimize(data))


class Evil:
    ran = False

    def __reduce__(self):
        return (setattr, (Evil, "ran", True))


def test_everything_else_is_refused_and_not_run(case):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for value in [
            np.array(Evil(), dtype=object),
            np.array(1, dtype=object),
            np.array(True, dtype=object),
            np.array("x", dtype=object),
            np.array([None]),
            np.array([None, None]),
            np.array([], dtype=object),
            np.array(0.0),
            None,
            Evil(),
        ]:
            with case(protocol=protocol, value=value):
                assert not is_pickled_none(pickle.dumps(value, protocol=protocol))
                assert not Evil.ran


@pytest.mark.parametrize("original", [NUMPY_1, pickle.dumps(NONE, protocol=4)])
def test_every_truncation_and_extension_is_refused(original):
    for length in range(len(original)):
        assert not is_pickled_none(original[:length])
    assert not is_pickled_none(original + b"N.")
    assert not is_pickled_none(original + original)
    assert not is_pickled_none(b"0" + original)
    assert not is_pickled_none(b"N" + original)
    assert not is_pickled_none(original[:-1] + b"N.")


def test_changed_bytes_never_raise():
    # Some changes leave the meaning alone (a memo number, say); the rest must be a plain no.
    original = pickle.dumps(NONE, protocol=4)
    for position in range(len(original)):
        for byte in range(256):
            is_pickled_none(original[:position] + bytes([byte]) + original[position + 1 :])
    assert not Evil.ran


def test_malformed_pickles(case):
    for data in [
        b"",
        b".",
        b"N.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04]]\x93.",
        b"\x80\x04K\x01K\x02\x93.",
        b"}.",
        b"t.",
        b"]a.",
        b"KKa.",
        b"(a.",
        b"h\x05.",
        b"q\x00.",
        b"I" + b"9" * 4000 + b"\n.",
        b"(" * 3000 + b"t" * 3000 + b".",
        b"\x95" + b"\xff" * 8 + b".",
    ]:
        with case(data=data):
            assert is_pickled_none(data) is False


def test_long_pickle_is_refused_unread():
    assert is_pickled_none(b"\x80\x03" + NUMPY_1)
    assert not is_pickled_none(b"\x80\x03" * MAX_LENGTH + NUMPY_1)


def test_lists_inside_the_calls_are_refused():
    # A list where a name or a dtype's name belongs cannot be looked up in a set.
    assert not is_pickled_none(NUMPY_1.replace(b"X\x02\x00\x00\x00O8", b"]"))
    assert not is_pickled_none(NUMPY_1.replace(b"cnumpy.core.multiarray\n_reconstruct\n", b"]"))


def test_each_part_is_checked(case):
    for old, new in [
        (b"numpy.core.multiarray\n_reconstruct", b"builtins\neval"),
        (b"numpy\nndarray", b"numpy\nmatrix"),
        (b"numpy\ndtype", b"numpy\nndarray"),
        (b"numpy\nndarray", b"numpy\ndtype"),
        (b"\x89\x88\x87", b"cos\nsystem\n\x88\x87"),
        (b"O8", b"f8"),
        (b"]q\x0cNa", b"]q\x0cK\x00a"),
        (b"]q\x0cNa", b"]q\x0c"),
        (b"K\x00\x85", b"K\x01\x85"),
        (b"(K\x01)", b"(K\x01K\x00\x85"),
    ]:
        with case(old=old, new=new):
            assert old in NUMPY_1
            assert not is_pickled_none(NUMPY_1.replace(old, new))
