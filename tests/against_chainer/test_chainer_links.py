"""Parameters, links and npz files beside Chainer's own."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest

chainer = pytest.importorskip("chainer", reason="Chainer is not installed")

from fastadam import link as fast_link  # noqa: E402
from fastadam import serializers as fast_serializers  # noqa: E402
from fastadam.model import parameter as fast_parameter  # noqa: E402

LIBRARIES = ["chainer", "fastadam"]


class Library:
    """The names the two libraries share."""

    def __init__(self, name):
        self.name = name
        theirs = name == "chainer"
        self.Parameter = chainer.Parameter if theirs else fast_parameter.Parameter
        links = chainer if theirs else fast_link
        self.Link, self.Chain, self.ChainList = links.Link, links.Chain, links.ChainList
        files = chainer.serializers if theirs else fast_serializers
        self.save_npz, self.load_npz = files.save_npz, files.load_npz
        self.DictionarySerializer = files.DictionarySerializer
        self.NpzDeserializer = files.NpzDeserializer


@pytest.fixture
def ours():
    return Library("fastadam")


@pytest.fixture
def theirs():
    return Library("chainer")


@pytest.fixture(params=[("chainer", "fastadam"), ("fastadam", "chainer")], ids="->".join)
def source_and_target(request):
    return [Library(name) for name in request.param]


def tree(library, fill):
    """Build the same model of either library's links."""
    inner = library.ChainList(library.Link(W=((2, 3), "f2")), library.Link(lazy=None, W=1))
    model = library.Chain(l1=library.Link(W=(2, 3), b=((2,), "f8")), list=inner)
    with model.init_scope():
        model.scale = library.Parameter(0, ())
    model.l1.add_persistent("mean", np.zeros(2, np.float32))
    model.add_persistent("count", 0)
    model.add_persistent("text", "")
    for number, param in enumerate(model.params(include_uninit=False)):
        values = np.arange(param.array.size).reshape(param.array.shape) / 3 + number
        param.array[...] = values if fill else 0
    if fill:
        model.l1.mean[...] = [1.5, 2.5]
        model.count = 12
        model.text = "text"
    return model


def snapshot(model):
    params = {
        path: None if param.array is None else (param.array.dtype, param.array.tobytes())
        for path, param in model.namedparams()
    }
    return params, model.l1.mean.tobytes(), model.count, model.text


def keys(file):
    with np.load(file, allow_pickle=True) as npz:
        described = {key: (npz[key].dtype, npz[key].shape) for key in npz.files}
    file.seek(0)
    return described


def written(library, obj, **options):
    file = io.BytesIO()
    library.save_npz(file, obj, **options)
    file.seek(0)
    return file


# Files


@pytest.mark.parametrize("compression", [True, False])
def test_files_of_either_load_in_the_other(source_and_target, compression):
    source, target = source_and_target
    file = written(source, tree(source, True), compression=compression)
    model = tree(target, False)
    target.load_npz(file, model)
    assert snapshot(model) == snapshot(tree(source, True))


def test_both_write_the_same_keys_shapes_and_dtypes(ours, theirs):
    mine = keys(written(ours, tree(ours, True)))
    assert mine == keys(written(theirs, tree(theirs, True)))
    assert mine["list/1/lazy"] == (np.dtype(object), ())


def test_lazy_parameters_take_the_other_librarys_arrays(source_and_target):
    source, target = source_and_target
    model = tree(target, False)
    full = tree(source, True)
    full["list"][1].lazy.initialize((2, 2))
    full["list"][1].lazy.array[...] = 4
    target.load_npz(written(source, full), model)
    assert snapshot(model) == snapshot(full)


def test_none_over_an_initialised_parameter_changes_nothing(source_and_target):
    source, target = source_and_target
    model = target.Link(W=2)
    model.W.array[...] = 3
    target.load_npz(written(source, source.Link(W=None)), model)
    np.testing.assert_array_equal(model.W.array, [3, 3])


@pytest.mark.parametrize("options", [{"strict": False}, {"ignore_names": "b"}])
def test_loading_in_part(source_and_target, options):
    source, target = source_and_target
    model, saved = target.Link(W=2, b=2), source.Link(W=2)
    model.b.array[...] = 3
    saved.W.array[...] = 1
    target.load_npz(written(source, saved), model, **options)
    np.testing.assert_array_equal(model.W.array, [1, 1])
    np.testing.assert_array_equal(model.b.array, [3, 3])


def test_path(source_and_target):
    source, target = source_and_target
    saved = source.Chain(main=source.Link(W=2))
    saved.main.W.array[...] = 5
    model = target.Link(W=2)
    target.load_npz(written(source, saved), model, path="main/")
    np.testing.assert_array_equal(model.W.array, [5, 5])


# One library's objects with the other's serializers


def test_objects_with_the_others_serializer(source_and_target):
    files, objects = source_and_target
    file = written(files, tree(objects, True))
    assert keys(file) == keys(written(objects, tree(objects, True)))
    model = tree(objects, False)
    files.load_npz(file, model)
    assert snapshot(model) == snapshot(tree(objects, True))


def test_bad_file_changes_nothing_through_chainers_deserializer(ours, theirs):
    values = dict(np.load(written(ours, tree(ours, True)), allow_pickle=True))
    values["scale"] = np.ones(3)
    model = tree(ours, False)
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"'scale' has shape \(3,\)"):
        theirs.load_npz(written(theirs, values), model)
    assert snapshot(model) == before


def test_not_strict_through_chainers_deserializer(ours, theirs):
    model = tree(ours, True)
    theirs.load_npz(written(theirs, {"l1/W": np.ones((2, 3))}), model, strict=False)
    np.testing.assert_array_equal(model.l1.W.array, np.ones((2, 3)))
    model.l1.W.array[...] = tree(ours, True).l1.W.array
    assert snapshot(model) == snapshot(tree(ours, True))


# Serializer calls


@pytest.mark.parametrize("key", ["x", "/x", "//x"])
@pytest.mark.parametrize("child", ["l", "/l", "/l/", "l//"])
def test_dictionary_paths(ours, theirs, key, child):
    found = []
    for library in (ours, theirs):
        serializer = library.DictionarySerializer()
        serializer[child][child](key, 1)
        found.append((serializer[child].path, list(serializer.target)))
    assert found[0] == found[1]


@pytest.mark.parametrize("value", [1, 2.5, True, "abc", b"x", None, np.float16(2), np.ones(2)])
def test_dictionary_values(ours, theirs, value):
    stored = []
    for library in (ours, theirs):
        serializer = library.DictionarySerializer()
        assert serializer("x", value) is value
        stored.append(serializer.target["x"])
    np.testing.assert_array_equal(stored[0], stored[1])
    assert stored[0].dtype == stored[1].dtype


@pytest.mark.parametrize(
    ("stored", "value"),
    [
        (3, 0),
        (3, 0.0),
        (0.5, 0.0),
        (True, 0),
        (True, False),
        (np.float32(0.5), 0.0),
        (np.int8(3), np.int32(0)),
        ("abc", ""),
        (0.5, 0),
        (1j, 0.0),
        (3, False),
        (1.0, np.float32(0)),
        (3, None),
        (None, 3),
        (None, None),
        (np.ones(2), None),
        (np.ones(2), np.zeros(2, np.float32)),
        (np.ones(2), np.zeros(2, np.int32)),
        (np.ones(2), np.zeros(3)),
        (np.ones(2, int), np.zeros(2, np.float32)),
        (None, np.zeros(2)),
    ],
)
def test_deserializer_values(ours, theirs, stored, value):
    results = []
    for library in (ours, theirs):
        npz = np.load(written(ours, {"x": stored}), allow_pickle=True)
        template = value.copy() if isinstance(value, np.ndarray) else value
        try:
            result = library.NpzDeserializer(npz)("x", template)
        except (TypeError, ValueError) as error:
            results.append(type(error))
        else:
            is_array = isinstance(result, np.ndarray)
            content = (result.dtype, result.shape, result.tolist()) if is_array else result
            results.append((type(result), content, result is template))
    assert results[0] == results[1]


def test_missing_keys(ours, theirs):
    for library in (ours, theirs):
        with np.load(written(ours, {"x": 1})) as npz:
            with pytest.raises(KeyError, match="y"):
                library.NpzDeserializer(npz)("y", 1)
            assert library.NpzDeserializer(npz, strict=False)("y", 4) == 4
            assert library.NpzDeserializer(npz, ignore_names=["y"])("y", 4) == 4


# Links and parameters


def test_walks(ours, theirs):
    mine, other = tree(ours, False), tree(theirs, False)
    for include_uninit in (True, False):
        assert [path for path, _ in mine.namedparams(include_uninit)] == [
            path for path, _ in other.namedparams(include_uninit)
        ]
        assert [param.name for param in mine.params(include_uninit)] == [
            param.name for param in other.params(include_uninit)
        ]
    for skipself in (True, False):
        assert [path for path, _ in mine.namedlinks(skipself)] == [
            path for path, _ in other.namedlinks(skipself)
        ]
        assert [link.name for link in mine.links(skipself)] == [
            link.name for link in other.links(skipself)
        ]
    assert [link.name for link in mine.children()] == [link.name for link in other.children()]
    assert str(mine) == str(other)


@pytest.mark.parametrize("mode", ["share", "copy", "init"])
def test_copies(ours, theirs, mode):
    described = []
    for library in (ours, theirs):
        model = tree(library, True)
        for param in model.params():
            param.cleargrad()
            param.update_rule = object() if mode == "share" else None
        clone = model.copy(mode)
        described.append(
            [
                (
                    path,
                    param.name,
                    param.array is None or param.array is old.array,
                    param.grad is None,
                    param.update_rule is old.update_rule,
                    None if param.array is None else param.array.tolist(),
                )
                for old, (path, param) in zip(model.params(), clone.namedparams(), strict=True)
            ]
        )
    np.testing.assert_equal(described[0], described[1])


def act_construct(param):
    pass


def act_initialize(param):
    param.initialize((2, 2))


def act_clear(param):
    param.cleargrad()
    param.initialize((2, 2))


def act_zero(param):
    param.zerograd()
    param.initialize((2, 2))


def act_zero_after(param):
    param.initialize((2, 2))
    param.zerograd()


def act_clear_after(param):
    param.initialize((2, 2))
    param.cleargrad()


def act_initialize_twice(param):
    param.initialize((1, 2))
    param.initialize((2, 2))


class Ramp:
    dtype = np.float64

    def __call__(self, array):
        array[...] = np.arange(array.size).reshape(array.shape)


ACTIONS = [
    act_construct,
    act_initialize,
    act_clear,
    act_zero,
    act_zero_after,
    act_clear_after,
    act_initialize_twice,
]


STATES = [
    (action, initializer, shape)
    for action in ACTIONS
    for initializer in (None, 3, np.float64(0.5), np.ones(2), Ramp())
    for shape in (None, (2, 2), 2)
    # A parameter made from an array has no initializer in either library.
    if not (isinstance(initializer, np.ndarray) and shape is None and action is not act_construct)
]


@pytest.mark.parametrize(("action", "initializer", "shape"), STATES)
def test_parameter_states(ours, theirs, action, initializer, shape):
    def read(get, *arguments):
        try:
            value = get(*arguments)
        except (RuntimeError, AttributeError) as error:
            return type(error)
        return (value.dtype, value.tolist()) if isinstance(value, np.ndarray) else value

    found = []
    for library in (ours, theirs):
        param = library.Parameter(initializer, shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            action(param)
        attributes = ("array", "data", "grad", "dtype", "shape", "ndim", "size", "is_initialized")
        found.append({name: read(getattr, param, name) for name in attributes})
    np.testing.assert_equal(found[0], found[1])


@pytest.mark.parametrize(
    "grad", [1.0, [1.0, 2.0], np.ones(2, np.float32), np.ones(3), np.ones((2, 1)), np.ones(2), None]
)
def test_gradients_taken_and_refused(ours, theirs, grad):
    found = []
    for library in (ours, theirs):
        param = library.Parameter(np.zeros(2))
        try:
            param.grad = grad
        except (TypeError, ValueError) as error:
            found.append(type(error))
        else:
            found.append(param.grad is grad)
    assert found[0] == found[1]


@pytest.mark.parametrize("own", [None, 1.0])
@pytest.mark.parametrize("other", [None, 2.0])
@pytest.mark.parametrize("lazy", [True, False])
def test_addgrad(ours, theirs, own, other, lazy):
    found = []
    for library in (ours, theirs):
        a, b = library.Parameter(3, None if lazy else 2), library.Parameter(3, 2)
        a.cleargrad()
        if own is not None and not lazy:
            a.grad = np.full(2, own, np.float32)
        b.grad = None if other is None else np.full(2, other, np.float32)
        a.addgrad(b)
        grad = None if a.grad is None else a.grad.tolist()
        array = None if a.array is None else a.array.tolist()
        found.append((array, grad, a.grad is b.grad))
    assert found[0] == found[1]


@pytest.mark.parametrize("mine", [None, 2])
@pytest.mark.parametrize("other", [None, 2])
def test_copydata(ours, theirs, mine, other):
    found = []
    for library in (ours, theirs):
        a, b = library.Parameter(1, mine), library.Parameter(2, other)
        a.copydata(b)
        found.append([None if p.array is None else p.array.tolist() for p in (a, b)])
    assert found[0] == found[1]


def test_copyparams_and_addgrads_between_trees(ours, theirs):
    found = []
    for library in (ours, theirs):
        a, b = tree(library, False), tree(library, True)
        for model in (a, b):
            model.cleargrads()
            for param in model.params(include_uninit=False):
                param.grad = np.full_like(param.array, 4)
        a.addgrads(b)
        grads = [None if param.grad is None else param.grad.tolist() for param in a.params()]
        a.copyparams(b)
        found.append((snapshot(a), grads))
    assert found[0] == found[1]


def test_count_params(ours, theirs):
    counts = []
    for library in (ours, theirs):
        with pytest.warns(UserWarning, match="lazy"):
            counts.append(tree(library, False).count_params())
    assert counts[0] == counts[1] == 6 + 2 + 6 + 1 + 1


@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        (lambda lib: lib.Link(W=1).add_param("W"), AttributeError),
        (lambda lib: lib.Link(W=1).add_persistent("W", 1), AttributeError),
        (lambda lib: lib.Link().register_persistent("W"), AttributeError),
        (lambda lib: lib.Chain(a=lib.Link()).add_link("a", lib.Link()), AttributeError),
        (lambda lib: lib.Chain().add_link("a", 1), TypeError),
        (lambda lib: lib.Chain()["a"], AttributeError),
        (lambda lib: lib.ChainList()["a"], TypeError),
        (lambda lib: lib.ChainList()[0], IndexError),
        (lambda lib: lib.Link().copy("other"), ValueError),
        (lambda lib: lib.Link(a=1).copyparams(lib.Link(b=1)), KeyError),
        (lambda lib: lib.Link(a=1).addgrads(lib.Link(b=1)), KeyError),
        (lambda lib: lib.Link()(1), AttributeError),
        (lambda lib: lib.Parameter(np.ones(1)).initialize(1), TypeError),
        (lambda lib: lib.Parameter().grad, RuntimeError),
    ],
)
@pytest.mark.parametrize("name", LIBRARIES)
def test_errors_have_the_same_types(attempt, error, name):
    with pytest.raises(error):
        attempt(Library(name))
