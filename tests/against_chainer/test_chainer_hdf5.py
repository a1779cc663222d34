"""HDF5 files beside Chainer's own: each library reads what the other has written."""

from __future__ import annotations

import io

import numpy as np
import pytest

chainer = pytest.importorskip("chainer", reason="Chainer is not installed")
h5py = pytest.importorskip("h5py", reason="h5py is not installed")

import fastadam  # noqa: E402
from fastadam import serializers as fast_serializers  # noqa: E402

ARGUMENTS = {
    "alpha": 0.03,
    "beta1": 0.8,
    "beta2": 0.95,
    "eps": 1e-6,
    "eta": 0.7,
    "weight_decay_rate": 0.02,
}
VARIANTS = {
    "Adam": ARGUMENTS,
    "AMSGrad": {k: v for k, v in ARGUMENTS.items() if k != "weight_decay_rate"},
    "AdamW": ARGUMENTS,
    "AdaBound": {"alpha": 0.03, "final_lr": 0.3, "gamma": 0.05},
    "AMSBound": {"alpha": 0.03, "final_lr": 0.3, "gamma": 0.05},
}


class Library:
    """The names the two libraries share."""

    def __init__(self, name):
        self.name = name
        theirs = name == "chainer"
        links = chainer if theirs else fastadam
        self.Link, self.Chain, self.ChainList = links.Link, links.Chain, links.ChainList
        self.Parameter = links.Parameter
        self.optimizers = chainer.optimizers if theirs else fastadam.optimizers
        files = chainer.serializers if theirs else fast_serializers
        self.save_hdf5, self.load_hdf5 = files.save_hdf5, files.load_hdf5
        self.HDF5Serializer = files.HDF5Serializer
        self.HDF5Deserializer = files.HDF5Deserializer


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
    # Groups without values, which Chainer's loader looks for.
    model.add_link("act", library.Chain(a=library.Link(), b=library.ChainList(library.Link())))
    with model.init_scope():
        model.scale = library.Parameter(0, ())
    model.l1.add_persistent("mean", np.zeros(2, np.float32))
    model.l1.add_persistent("none", None)
    model.add_persistent("count", 0)
    model.add_persistent("rate", 0.0)
    model.add_persistent("flag", False)
    for number, param in enumerate(model.params(include_uninit=False)):
        values = np.arange(param.array.size).reshape(param.array.shape) / 3 + number
        param.array[...] = values if fill else 0
    if fill:
        model.l1.mean[...] = [1.5, 2.5]
        model.count, model.rate, model.flag = 12, 0.125, True
    return model


def snapshot(model):
    params = {
        path: None if param.array is None else (param.array.dtype, param.array.tobytes())
        for path, param in model.namedparams()
    }
    persistent = model.l1.mean.tobytes(), model.l1.none, model.count, model.rate, model.flag
    return params, persistent


def described(file):
    """Everything Chainer's loader sees: names, types, shapes and values."""
    found = {}

    def describe(key, item):
        if isinstance(item, h5py.Group):
            found[key] = None
        else:
            value = None if item.shape is None else item[()].tobytes()
            filters = (item.compression, item.compression_opts)
            found[key] = (item.dtype, item.shape, value, filters)

    with h5py.File(file, "r") as opened:
        opened.visititems(describe)
    return found


# Links


@pytest.mark.parametrize("compression", [4, 9, 0])
def test_files_of_either_load_in_the_other(source_and_target, compression, tmp_path):
    source, target = source_and_target
    source.save_hdf5(tmp_path / "x", tree(source, True), compression)
    model = tree(target, False)
    target.load_hdf5(tmp_path / "x", model)
    assert snapshot(model) == snapshot(tree(source, True))


@pytest.mark.parametrize("fill", [False, True])
def test_both_write_the_same(ours, theirs, fill, tmp_path):
    found = []
    for library in (ours, theirs):
        library.save_hdf5(tmp_path / library.name, tree(library, fill), 7)
        found.append(described(tmp_path / library.name))
    assert found[0] == found[1]
    assert found[0]["list/1/lazy"] == (np.dtype("f4"), None, None, (None, None))
    assert found[0]["l1/W"][3] == ("gzip", 7)
    assert found[0]["scale"][3] == (None, None)


def test_dictionaries(source_and_target, tmp_path):
    source, target = source_and_target
    # Chainer compresses nothing after a single value.
    values = {"/a/x": np.ones((3, 4)), "y": np.arange(6, dtype="i2"), "n": 3}
    source.save_hdf5(tmp_path / "x", values)
    with h5py.File(tmp_path / "x", "r") as file:
        deserializer = target.HDF5Deserializer(file)
        np.testing.assert_array_equal(deserializer["a"]("x", None), np.ones((3, 4)))
        np.testing.assert_array_equal(deserializer("y", None), np.arange(6))
        assert deserializer("n", 0) == 3


def test_lazy_parameters_take_the_other_librarys_arrays(source_and_target, tmp_path):
    source, target = source_and_target
    model, full = tree(target, False), tree(source, True)
    full["list"][1].lazy.initialize((2, 2))
    full["list"][1].lazy.array[...] = 4
    source.save_hdf5(tmp_path / "x", full)
    target.load_hdf5(tmp_path / "x", model)
    assert snapshot(model) == snapshot(full)


def test_none_over_an_initialised_parameter_changes_nothing(source_and_target, tmp_path):
    source, target = source_and_target
    model = target.Link(W=2)
    model.W.array[...] = 3
    source.save_hdf5(tmp_path / "x", source.Link(W=None))
    target.load_hdf5(tmp_path / "x", model)
    np.testing.assert_array_equal(model.W.array, [3, 3])


def test_objects_with_the_others_serializer(source_and_target, tmp_path):
    files, objects = source_and_target
    files.save_hdf5(tmp_path / "x", tree(objects, True))
    objects.save_hdf5(tmp_path / "y", tree(objects, True))
    assert described(tmp_path / "x") == described(tmp_path / "y")
    model = tree(objects, False)
    files.load_hdf5(tmp_path / "x", model)
    assert snapshot(model) == snapshot(tree(objects, True))


def test_damaged_data_is_refused_by_chainer_too(ours, theirs, tmp_path):
    link = ours.Link(W=64)
    link.W.array[...] = 3
    ours.save_hdf5(tmp_path / "x", link, compression=None)
    data = bytearray((tmp_path / "x").read_bytes())
    data[data.index(link.W.array.tobytes()) + 9] ^= 1
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(OSError, match="read"):
        theirs.load_hdf5(str(tmp_path / "x"), theirs.Link(W=64))


def test_bfloat16_is_float32_to_chainer(ours, theirs, tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    values = np.array([1.5, -0.0, 3e38, 1e-40], ml_dtypes.bfloat16)
    ours.save_hdf5(tmp_path / "x", {"W": values})
    link = theirs.Link(W=4)
    theirs.load_hdf5(str(tmp_path / "x"), link)
    np.testing.assert_array_equal(link.W.array, values.astype(np.float32))


# Serializer calls


@pytest.mark.parametrize("key", ["x", "y/x"])
@pytest.mark.parametrize("child", ["l", "/l", "l/", "l/m"])
def test_names(ours, theirs, key, child):
    found = []
    for library in (ours, theirs):
        with h5py.File(io.BytesIO(), "w") as file:
            serializer = library.HDF5Serializer(file)
            assert serializer[child]["k"](key, 1) == 1
            names = []
            file.visit(names.append)
            found.append(names)
            assert library.HDF5Deserializer(file)[child]["k"](key, 0) == 1
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("stored", "value"),
    [
        (3, 0),
        (0.5, 0.0),
        (True, False),
        (np.float32(0.5), 0.0),
        (np.int8(3), np.int32(0)),
        (b"abc", b""),
        (3, None),
        (None, 3),
        (None, None),
        (np.ones(2), None),
        (np.ones(2), np.zeros(2, np.float32)),
        (np.arange(2), np.zeros(2, np.float32)),
        (None, np.zeros(2)),
        (np.ones((2, 0)), np.zeros((2, 0))),
        (np.float16([1, 2]), np.zeros(2, np.float16)),
        (np.array(["2020-01-01"], "M8[D]"), None),
    ],
)
def test_values(source_and_target, stored, value):
    source, target = source_and_target
    results = []
    for writer, reader in ((source, target), (target, source)):
        with h5py.File(io.BytesIO(), "w") as file:
            template = value.copy() if isinstance(value, np.ndarray) else value
            try:
                writer.HDF5Serializer(file)("x", stored)
            except TypeError:
                # Chainer cannot store dates.
                assert writer.name == "chainer"
                assert stored.dtype.kind == "M"
                continue
            result = reader.HDF5Deserializer(file)("x", template)
            is_array = isinstance(result, np.ndarray)
            content = (result.dtype, result.shape, result.tolist()) if is_array else result
            results.append((type(result), content, result is template))
    assert results[0] == results[-1]


def test_missing(ours, theirs):
    for library in (ours, theirs):
        with h5py.File(io.BytesIO(), "w") as file:
            library.HDF5Serializer(file)["a"]("x", 1)
        with h5py.File(io.BytesIO(), "w") as file:
            file["a/x"] = 1
            data = io.BytesIO()
            with h5py.File(data, "w") as copy:
                file.copy("a", copy)
        with h5py.File(data, "r") as file:
            deserializer = library.HDF5Deserializer(file)
            with pytest.raises(KeyError, match="y"):
                deserializer["a"]("y", 1)
            with pytest.raises(KeyError, match="y"):
                deserializer("y", 1)
            with pytest.raises(ValueError, match="group"):
                deserializer["b"]("x", 1)
            lenient = library.HDF5Deserializer(file, strict=False)
            assert lenient["a"]("y", 4) == 4
            assert lenient["b"]("x", 5) == 5
            assert lenient["a"]("x", 5) == 1


# Optimizers


def trained(library, variant, steps, **links):
    model = library.Chain(l1=library.Link(W=(3, 4), b=((2,), "f8")), **links)
    rng = np.random.default_rng(7)
    for param in model.params(include_uninit=False):
        param.array[...] = rng.standard_normal(param.array.shape)
    opt = getattr(library.optimizers, variant)(**VARIANTS[variant]).setup(model)
    step(opt, 0, steps)
    return model, opt


def step(opt, first, last):
    for number in range(first, last):
        opt.target.cleargrads()
        rng = np.random.default_rng(100 + number)
        for param in opt.target.params(include_uninit=False):
            param.grad = rng.standard_normal(param.array.shape).astype(param.array.dtype)
        opt.update()


def bits(model, opt):
    found = {"t": opt.t, "epoch": opt.epoch}
    for path, param in model.namedparams(include_uninit=False):
        state = {key: array.tobytes() for key, array in param.update_rule.state.items()}
        found[path] = (param.array.tobytes(), param.update_rule.t, state)
    return found


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_training_goes_on_in_the_other_library(source_and_target, variant, used, tmp_path):
    source, target = source_and_target
    model, opt = trained(source, variant, 5)
    opt.new_epoch()
    source.save_hdf5(tmp_path / "model", model)
    source.save_hdf5(tmp_path / "optimizer", opt)
    other_model, other = trained(target, variant, 2 if used else 0)
    target.load_hdf5(tmp_path / "model", other_model)
    target.load_hdf5(tmp_path / "optimizer", other)
    assert bits(other_model, other) == bits(model, opt)
    for one in (opt, other):
        step(one, 5, 9)
    assert bits(other_model, other) == bits(model, opt)


@pytest.mark.parametrize("variant", ["Adam", "AMSBound"])
@pytest.mark.parametrize("steps", [0, 3])
def test_optimizers_write_the_same_entries(ours, theirs, variant, steps, tmp_path):
    found = []
    for library in (ours, theirs):
        _, opt = trained(library, variant, steps, lazy=library.Link(W=None))
        library.save_hdf5(tmp_path / library.name, opt)
        found.append(described(tmp_path / library.name))
    if steps:
        # Chainer counts the steps of uninitialised parameters.
        assert [one.pop("lazy/W/t")[2] for one in found] == [bytes(8), np.int64(3).tobytes()]
    assert found[0] == found[1]


# Snapshots of trainers


def trainer(folder):
    """A Chainer trainer that runs a fastadam optimizer."""
    training, links = chainer.training, chainer.links
    model = links.Classifier(links.Linear(3, 2))
    rng = np.random.RandomState(3)
    for param in model.params():
        param.array[...] = rng.standard_normal(param.array.shape)
    optimizer = fastadam.optimizers.AMSGrad(0.05).setup(model)
    x, labels = rng.rand(20, 3).astype("f4"), rng.randint(0, 2, 20).astype("i")
    iterator = chainer.iterators.SerialIterator(
        chainer.datasets.TupleDataset(x, labels), 4, shuffle=False
    )
    updater = training.updaters.StandardUpdater(iterator, optimizer)
    result = training.Trainer(updater, (2, "epoch"), out=str(folder))
    shift = training.extensions.ExponentialShift("alpha", 0.5)
    result.extend(shift, trigger=(1, "epoch"))
    return result


@pytest.mark.parametrize("saver", ["chainer", "fastadam"])
@pytest.mark.parametrize("loader", ["chainer", "fastadam"])
def test_snapshot_of_a_trainer(saver, loader, tmp_path):
    first = trainer(tmp_path)
    first.run()
    path = str(tmp_path / "snapshot")
    Library(saver).save_hdf5(path, first)
    second = trainer(tmp_path)
    Library(loader).load_hdf5(path, second)
    one, two = first.updater.get_optimizer("main"), second.updater.get_optimizer("main")
    assert bits(two.target, two) == bits(one.target, one)
    assert second.updater.iteration == first.updater.iteration == 10
    # The optimizer alone, from the same file.
    third = trainer(tmp_path).updater.get_optimizer("main")
    fast_serializers.load_hdf5(path, third, path="updater/optimizer:main/")
    assert third.t == one.t
    for (_, mine), (_, other) in zip(
        third.target.namedparams(), one.target.namedparams(), strict=True
    ):
        for key in ("m", "v", "vhat"):
            np.testing.assert_array_equal(
                mine.update_rule.state[key], other.update_rule.state[key], strict=True
            )


def test_chainer_cannot_save_strings_and_reads_them_as_bytes(ours, theirs, tmp_path):
    """Departure: strings are strings."""
    link = ours.Link()
    link.add_persistent("text", "abc")
    with pytest.raises(TypeError, match="dtype"):
        theirs.save_hdf5(str(tmp_path / "x"), link)
    ours.save_hdf5(tmp_path / "x", link)
    for library, expected in ((ours, "abc"), (theirs, "b'abc'")):
        other = library.Link()
        other.add_persistent("text", "")
        library.load_hdf5(tmp_path / "x", other)
        assert other.text == expected


def test_chainer_loads_flipped_bits(ours, theirs, tmp_path):
    """Departure: a digest over everything."""
    link = ours.Link(W=())
    link.W.array[...] = 1.5
    for library, noticed in ((theirs, False), (ours, True)):
        path = str(tmp_path / library.name)
        library.save_hdf5(path, link)
        with open(path, "rb") as file:
            data = file.read()
        position = data.index(link.W.array.tobytes())
        with open(path, "wb") as file:
            file.write(data[:position] + np.float32(2.5).tobytes() + data[position + 4 :])
        other = library.Link(W=())
        other.W.array[...] = 7
        if noticed:
            with pytest.raises((OSError, ValueError), match="'W'"):
                library.load_hdf5(path, other)
            assert other.W.array == 7
        else:
            library.load_hdf5(path, other)
            assert other.W.array == 2.5


def test_file_of_the_wrong_model_changes_nothing(ours, theirs, tmp_path):
    """Departure: a load that fails has changed nothing."""
    source, path = theirs.ChainList(theirs.Link(W=2), theirs.Link(W=3)), str(tmp_path / "x")
    for param in source.params():
        param.array[...] = 1
    theirs.save_hdf5(path, source)
    for library, changed in ((ours, False), (theirs, True)):
        model = library.ChainList(library.Link(W=2), library.Link(W=4))
        for param in model.params():
            param.array[...] = 0
        with pytest.raises((TypeError, ValueError)):
            library.load_hdf5(path, model)
        assert model[0].W.array.tolist() == ([1, 1] if changed else [0, 0])
