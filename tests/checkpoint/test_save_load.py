"""`fastadam.save` and `fastadam.load`: all that it takes to go on, and what the report says."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Chain, CheckpointError, Link, Parameter, serializers
from fastadam.optimizer_hooks import GradientClipping, GradientNoise, WeightDecay
from fastadam.serializers import save_hdf5, save_npz

MAKERS: dict[str, Callable[..., Any]] = {
    "Adam": lambda **k: fastadam.Adam(alpha=0.02, **k),
    "AdamW": lambda **k: fastadam.AdamW(
        alpha=0.02, weight_decay_rate=0.1, **{"decay_mode": "eta", **k}
    ),
    "AMSGrad": lambda **k: fastadam.AMSGrad(alpha=0.02, **k),
    "AdaBound": lambda **k: fastadam.AdaBound(alpha=0.02, final_lr=0.3, **k),
    "AMSBound": lambda **k: fastadam.AMSBound(alpha=0.02, gamma=0.01, **k),
}
SHAPES = {"W": (4, 5), "b": (5,), "s": ()}


def tree(seed: int, dtype: Any = np.float32) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    made = {k: np.asarray(random.normal(size=s)).astype(dtype) for k, s in SHAPES.items()}
    return {"l1": {"W": made["W"], "b": made["b"]}, "s": made["s"]}


def make(maker: str = "AMSBound", dtype: Any = np.float32, seed: int = 0) -> Any:
    """An optimizer with everything that has a state."""
    opt = MAKERS[maker]().setup(tree(seed, dtype))
    opt.use_fp32_update()
    opt.loss_scaling(interval=4)
    opt.add_hook(GradientNoise(0.1))
    opt.add_hook(GradientClipping(3.0))
    return opt


def step(opt: Any, n: int = 1, dtype: Any = np.float32) -> None:
    for _ in range(n):
        scale = opt.loss_scale or 1.0
        grads = tree(1000 + opt.t, np.float32)
        grads = {
            "l1": {k: (g * scale).astype(dtype) for k, g in grads["l1"].items()},
            "s": (grads["s"] * scale).astype(dtype),
        }
        opt.hyperparam.alpha = 0.02 / (1 + opt.t)
        opt.apply_gradients(grads, loss_scale=opt.loss_scale)


def bits(opt: Any) -> dict[str, Any]:
    """Everything, in bits."""
    found: dict[str, Any] = {
        **{"t": opt.t, "epoch": opt.epoch, "scale": opt.loss_scale},
        **{f"hyperparam {k}": v for k, v in opt.hyperparam.get_dict().items()},
        "on_nonfinite": opt.on_nonfinite,
    }
    for name, param in opt.parameters.items():
        rule = param.update_rule
        found[name] = None if param.array is None else param.array.tobytes()
        found[f"{name} rule"] = rule.t, rule.enabled, rule.hyperparam.get_dict()
        for key, value in (rule.state or {}).items():
            found[f"{name} {key}"] = value.tobytes()
        master = rule._fp32_param
        found[f"{name} master"] = None if master is None else master.array.tobytes()
        found[f"{name} first"] = rule.__dict__.get("initial_alpha")
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float16, "bfloat16"])
@pytest.mark.parametrize("maker", MAKERS)
def test_a_resumed_run_is_the_uninterrupted_one(path: Path, maker: str, dtype: Any) -> None:
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    np.random.seed(3)
    whole = make(maker, dtype)
    whole.epoch = 3
    whole.set_hyperparam("l1/b", alpha=0.5)
    whole.on_nonfinite = "skip"
    step(whole, 5, dtype)
    whole.parameters["s"].update_rule.enabled = False
    fastadam.save(path, whole)
    step(whole, 5, dtype)
    # another process: other parameters, other defaults, another generator
    np.random.seed(4)
    resumed = MAKERS[maker]().setup(tree(9, dtype))
    resumed.alpha = 7.0
    resumed.add_hook(GradientNoise(0.1))
    resumed.add_hook(GradientClipping(3.0))
    report = fastadam.load(path, resumed)
    assert report.verified
    assert (report.missing, report.ignored, report.left, report.converted) == ((), (), (), ())
    assert report.versions["fastadam"] == fastadam.__version__
    step(resumed, 5, dtype)
    assert bits(resumed) == bits(whole)


def link() -> Any:
    model = Chain(l1=Link(W=(3, 4), b=(4,)), l2=Link(W=(4, 2)))
    for i, param in enumerate(model.params()):
        param.array[...] = np.random.default_rng(i).normal(size=param.shape)
    model.l1.add_persistent("mean", np.arange(4.0))
    model.l1.add_persistent("n", 7)
    return model


def step_link(opt: Any) -> None:
    for param in opt.target.params():
        param.grad = np.full(param.shape, 0.5, param.dtype)
    opt.update()


def test_links_with_what_they_keep(path: Path) -> None:
    opt = fastadam.AMSGrad().setup(link())
    step_link(opt)
    opt.target.l1.mean[...] = 9
    opt.target.l1.n = 11
    fastadam.save(path, opt)
    other = fastadam.AMSGrad().setup(link())
    array = other.target.l1.W.array
    fastadam.load(path, other)
    assert other.target.l1.W.array is array
    assert other.target.l1.mean.tolist() == [9] * 4
    assert other.target.l1.n == 11
    assert bits(other) == bits(opt)
    # the sections are Chainer's layout
    load = serializers.load_npz if path.suffix == ".npz" else serializers.load_hdf5
    plain, model = fastadam.AMSGrad().setup(link()), link()
    load(path, plain, path="optimizer/")
    load(path, model, path="target/")
    assert plain.t == 1
    assert np.array_equal(model.l1.W.array, opt.target.l1.W.array)


def test_uninitialised_parameters(path: Path) -> None:
    def lazy() -> Any:
        made = Link()
        with made.init_scope():
            made.W = Parameter()
            made.b = Parameter(np.ones(2, np.float32))
        return made

    opt = fastadam.Adam().setup(lazy())
    # saved as uninitialised as it is (B16)
    fastadam.save(path, opt)
    other = fastadam.Adam().setup(lazy())
    fastadam.load(path, other)
    assert other.target.W.array is None
    opt.target.W.initialize((3, 2))
    opt.target.W.array[...] = 5
    step_link(opt)
    fastadam.save(path, opt)
    for fresh in (other, fastadam.Adam().setup(lazy())):
        fastadam.load(path, fresh)
        assert fresh.target.W.array.tolist() == opt.target.W.array.tolist()
        step_link(fresh)
    step_link(opt)
    assert bits(other) == bits(opt) == bits(fresh)


def test_before_the_first_update(path: Path) -> None:
    """B12: what has no state yet is loaded as such."""
    opt = make()
    fastadam.save(path, opt)
    other = make(seed=5)
    step(other, 2)
    fastadam.load(path, other)
    assert other.t == 0
    assert other.parameters["l1/W"].update_rule.t == 0
    step(opt)
    np.random.seed(0)
    assert np.array_equal(other.parameters["s"].array, tree(0)["s"])


def test_an_optimizer_that_is_not_set_up(path: Path) -> None:
    fastadam.save(path, make())
    for use in (
        lambda: fastadam.load(path, fastadam.Adam()),
        lambda: fastadam.save(path, fastadam.Adam()),
    ):
        with pytest.raises(RuntimeError, match=r"call setup\(target\) first"):
            use()


def test_without_parameters_or_hyperparameters(path: Path) -> None:
    opt = make()
    step(opt, 2)
    fastadam.save(path, opt, parameters=False)
    other = make(seed=5)
    start = copy.deepcopy(other.parameters["s"].array)
    with pytest.raises(CheckpointError, match="parameters=False"):
        fastadam.load(path, other)
    assert other.t == 0
    other.hyperparam.beta1 = 0.5
    fastadam.load(path, other, parameters=False, hyperparam=False)
    assert (other.t, other.beta1) == (2, 0.5)
    assert np.array_equal(other.parameters["s"].array, start)
    fastadam.load(path, other, parameters=False)
    assert other.beta1 == opt.beta1


def refused(opt: Any, path: Path, *words: str, **how: Any) -> None:
    before, random = bits(opt), np.random.get_state()[1].tobytes()
    with pytest.raises(CheckpointError) as raised:
        fastadam.load(path, opt, **how)
    for word in words:
        assert word in str(raised.value)
    assert bits(opt) == before
    assert np.random.get_state()[1].tobytes() == random


def test_adam_and_amsgrad(path: Path) -> None:
    adam = MAKERS["Adam"]().setup(tree(0))
    step(adam, 3)
    fastadam.save(path, adam)
    ams = fastadam.AMSGrad().setup(tree(1))
    refused(ams, path, "amsgrad=False", "convert_amsgrad=True", "vhat begins with v")
    refused(ams, path, "saved without amsgrad", hyperparam=False)
    report = fastadam.load(path, ams, convert_amsgrad=True)
    assert set(report.converted) == {f"optimizer/{p}/vhat" for p in ("l1/W", "l1/b", "s")}
    for name, param in ams.parameters.items():
        state = param.update_rule.state
        assert np.array_equal(state["vhat"], adam.parameters[name].update_rule.state["v"])
        assert state["vhat"] is not state["v"]
    assert ams.hyperparam.amsgrad is True
    step(ams, 2)
    fastadam.save(path, ams)
    back = MAKERS["Adam"]().setup(tree(2))
    refused(back, path, "amsgrad=True", "vhat is dropped")
    refused(back, path, "saved with AMSGrad", hyperparam=False)
    report = fastadam.load(path, back, convert_amsgrad=True)
    assert {key for key in report.left if key.endswith("/vhat")}
    assert back.hyperparam.amsgrad is False
    assert "vhat" not in back.parameters["s"].update_rule.state
    bound = MAKERS["AMSBound"]().setup(tree(0))
    refused(bound, path, "adabound=False", convert_amsgrad=True)


def test_what_is_missing_or_too_much(path: Path) -> None:
    opt = fastadam.Adam().setup({"a": np.ones(3), "old": {"W": np.ones(2)}})
    opt.apply_gradients({"a": np.ones(3), "old": {"W": np.ones(2)}})
    fastadam.save(path, opt)
    target = {"a": np.zeros(3), "new": {"W": np.zeros(2)}}
    other = fastadam.Adam().setup(target)
    refused(other, path, "no 'target/new/W'")
    fewer = fastadam.Adam().setup({"a": np.zeros(3)})
    refused(fewer, path, "no place for", "'optimizer/old/W/m'", "strict=False")
    report = fastadam.load(path, fewer, strict=False)
    assert "target/old/W" in report.left
    assert "left: " in str(report)
    report = fastadam.load(path, other, strict=False)
    assert "target/new/W" in report.missing
    assert target["a"].tolist() == opt.parameters["a"].array.tolist()
    assert target["new"]["W"].tolist() == [0, 0]
    report = fastadam.load(path, other, rename={"old": "new"})
    assert report.missing == report.left == ()
    assert target["new"]["W"].tolist() == opt.parameters["old/W"].array.tolist()
    assert other.parameters["new/W"].update_rule.t == 1


def test_another_shape(path: Path, case: Callable[..., Any]) -> None:
    for shape in [(4,), (3, 1), (1,), ()]:
        with case(shape=shape):
            opt = fastadam.Adam().setup({"a": np.ones(3)})
            opt.apply_gradients({"a": np.ones(3)})
            fastadam.save(path, opt)
            other = fastadam.Adam().setup({"a": np.zeros(shape)})
            refused(other, path, "'target/a'", "(3,)", str(shape))
            refused(other, path, "'optimizer/a/m'", "(3,)", str(shape), parameters=False)


def test_another_dtype(path: Path) -> None:
    opt = fastadam.Adam().setup({"a": np.ones(3, np.float64)})
    fastadam.save(path, opt)
    narrower = fastadam.Adam().setup({"a": np.zeros(3, np.float32)})
    fastadam.load(path, narrower)
    assert narrower.parameters["a"].array.dtype == np.float32


def test_read_only_parameters(path: Path) -> None:
    opt = make()
    fastadam.save(path, opt)
    other = make(seed=1)
    other.parameters["s"].array.flags.writeable = False
    refused(other, path, "'target/s'", "read-only")


def test_ignored_names(path: Path) -> None:
    opt = make()
    step(opt, 2)
    fastadam.save(path, opt)
    other = make(seed=1)
    alpha = other.alpha = 0.25
    start = other.parameters["s"].array.copy()
    report = fastadam.load(
        path, other, ignore_names=["fastadam/hyperparam/alpha", lambda key: key == "target/s"]
    )
    assert other.alpha == alpha
    assert np.array_equal(other.parameters["s"].array, start)
    assert set(report.ignored) == {"fastadam/hyperparam/alpha", "target/s"}


def test_shared_parameters(path: Path) -> None:
    array = np.ones(3)
    opt = fastadam.Adam().setup({"a": array, "b": array})
    opt.apply_gradients({"a": np.ones(3), "b": np.ones(3)})
    fastadam.save(path, opt)
    same = np.zeros(3)
    other = fastadam.Adam().setup({"a": same, "b": same})
    assert fastadam.load(path, other).missing == ()
    assert same.tolist() == array.tolist()


def test_files_of_an_optimizer_alone(path: Path) -> None:
    opt = make()
    step(opt, 2)
    save = serializers.save_npz if path.suffix == ".npz" else serializers.save_hdf5
    save(path, opt)
    other = make(seed=1)
    refused(other, path, "without parameters", "parameters=False")
    start = other.parameters["s"].array.copy()
    report = fastadam.load(path, other, parameters=False)
    assert not report.verified
    assert report.versions == {}
    assert other.t == 2
    assert np.array_equal(other.parameters["s"].array, start)
    master = other.parameters["s"].update_rule.state["m"]
    assert np.array_equal(master, opt.parameters["s"].update_rule.state["m"])


def test_hooks_of_rules_have_states_too(path: Path) -> None:
    class Counting:
        name = "counting"

        def __init__(self) -> None:
            self.n = 0

        def __call__(self, rule: Any, param: Any) -> None:
            self.n += 1

        def serialize(self, serializer: Any) -> None:
            self.n = serializer("n", self.n)

    def counted() -> Any:
        opt = fastadam.Adam().setup({"a": np.ones(3)})
        opt.parameters["a"].update_rule.add_hook(Counting())
        opt.add_hook(WeightDecay(0.1))
        return opt

    opt = counted()
    for _ in range(3):
        opt.apply_gradients({"a": np.ones(3)})
    fastadam.save(path, opt)
    other = counted()
    fastadam.load(path, other)
    ((_, _, hook),) = other.parameters["a"].update_rule._hooks
    assert hook.n == 3
    # where there is no such hook, its state is left
    with pytest.warns(UserWarning, match="not here: WeightDecay, a: counting"):
        report = fastadam.load(path, fastadam.Adam().setup({"a": np.ones(3)}))
    assert "fastadam/rule/a/hook/counting/n" in report.left


def test_names_say_what_kind_of_file_it_is(tmp_path: Path) -> None:
    for use in (fastadam.save, fastadam.load):
        with pytest.raises(ValueError, match=r"'.*run\.pkl'.*\.npz, \.h5, \.hdf5"):
            use(tmp_path / "run.pkl", make())
    with pytest.raises(FileNotFoundError):
        fastadam.load(tmp_path / "none.npz", make())


def test_progress_and_compression(path: Path) -> None:
    opt = fastadam.Adam().setup({"a": np.zeros(100_000), "b": np.zeros(1000)})
    told: list[tuple[int, int]] = []
    fastadam.save(path, opt, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    # each array by itself
    assert 800_000 in {after[0] - before[0] for before, after in pairwise(told)}
    assert told[-1][0] == told[-1][1] > 808_000
    large = path.stat().st_size
    fastadam.save(path, opt, compression=True)
    assert path.stat().st_size < large / 10
    fastadam.load(path, opt)


def test_saving_while_a_program_ends(path: Path) -> None:
    # h5py crashes a program that imports it as late as that
    program = f"""
import atexit, numpy, fastadam
{"" if path.suffix == ".npz" else "import h5py"}
opt = fastadam.Adam().setup({{'a': numpy.ones(3_000_000)}})
atexit.register(fastadam.save, {str(path)!r}, opt)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    opt = fastadam.Adam().setup({"a": np.zeros(3_000_000)})
    fastadam.load(path, opt)
    assert (opt.target["a"] == 1).all()


def test_what_can_only_be_pickled_is_refused(path: Path) -> None:
    opt = make()
    fastadam.save(path, opt)
    old = path.read_bytes()
    vars(opt.hyperparam)["own"] = object()
    with pytest.raises(TypeError, match="fastadam/hyperparam/own"):
        fastadam.save(path, opt)
    assert path.read_bytes() == old


def test_moments_follow_a_parameter_that_is_renamed_in_memory(tmp_path: Path) -> None:
    """What docs/quickstart.rst advises."""
    layer = {"W": np.ones(2), "b": np.ones(2)}
    twin = {key: array.copy() for key, array in layer.items()}
    opt, other = fastadam.Adam().setup(layer), fastadam.Adam().setup(twin)
    for one in (opt, other):
        one.apply_gradients({"W": np.ones(2), "b": np.array([1.0, -2.0])})
    fastadam.save(tmp_path / "a.npz", opt)
    layer["bias"] = layer.pop("b")
    fastadam.load(tmp_path / "a.npz", opt, rename={"b": "bias"})
    assert opt.parameters["bias"].update_rule.t == 1
    opt.apply_gradients({"W": np.ones(2), "bias": np.ones(2)})
    other.apply_gradients({"W": np.ones(2), "b": np.ones(2)})
    np.testing.assert_array_equal(layer["bias"], twin["b"])
    np.testing.assert_array_equal(layer["W"], twin["W"])


def test_a_report_is_one_line() -> None:
    keys = tuple(f"target/l{i}/W" for i in range(1000))
    assert repr(fastadam.LoadReport(keys)) == "<LoadReport: 1000 entries read, not verified>"
    report = fastadam.LoadReport(
        keys,
        missing=("target/a",),
        ignored=("target/b", "target/c"),
        left=keys[:3],
        converted=keys[:4],
        verified=True,
        versions={"fastadam": "0.1.0"},
        hooks_missing=("GradientClipping",),
        hooks_added=("mine", "l1/W: other"),
    )
    assert repr(report) == (
        "<LoadReport: 1000 entries read, verified; 1 missing, 2 ignored, 3 left, 4 converted, "
        "1 hooks missing, 2 hooks added>"
    )


def break_count(opt: Any, name: str, value: Any) -> None:
    if name == "w/t":
        opt.parameters["w"].update_rule.t = value
    else:
        setattr(opt, name, value)


def test_counts_that_no_load_takes_are_not_saved(path: Path, case: Callable[..., Any]) -> None:
    """The good file stays, from every door, and the count is named."""
    for name in ["t", "epoch", "w/t"]:
        for value in [-1, 2.5, "a", None, 10**30, 2**53 + 1, np.float64(3), 2.0]:
            with case(name=name, value=value):
                opt = fastadam.Adam().setup({"w": np.ones(3)})
                opt.apply_gradients({"w": np.ones(3)})
                save = save_npz if path.suffix == ".npz" else save_hdf5
                for door, key in ((fastadam.save, f"optimizer/{name}"), (save, name)):
                    door(path, opt)
                    good = path.read_bytes()
                    broken = fastadam.Adam().setup({"w": np.ones(3)})
                    break_count(broken, name, value)
                    with pytest.raises(
                        ValueError, match=f"cannot save '{key}': it is .*no load would take"
                    ):
                        door(path, broken)
                    assert path.read_bytes() == good
                    assert os.listdir(path.parent) == [path.name]
                fastadam.save(path, opt)
                assert fastadam.load(path, broken).verified, "a load sets it right"
                assert (broken.t, broken.epoch, broken.parameters["w"].update_rule.t) == (1, 0, 1)


def test_counts_that_are_saved_are_loaded(path: Path, case: Callable[..., Any]) -> None:
    for name in ["t", "epoch", "w/t"]:
        for value in [0, 7, np.int64(7), np.uint8(7), True, 2**53]:
            with case(name=name, value=value):
                opt, other = (fastadam.Adam().setup({"w": np.ones(3)}) for _ in range(2))
                for each in (opt, other):
                    each.apply_gradients({"w": np.ones(3)})
                break_count(opt, name, value)
                fastadam.save(path, opt)
                assert fastadam.load(path, other).verified
                found = (
                    other.parameters["w"].update_rule.t if name == "w/t" else getattr(other, name)
                )
                assert found == value
                assert type(found) is int


def test_the_path_comes_first(path: Path) -> None:
    opt = fastadam.Adam().setup({"w": np.ones(3)})
    for call in (fastadam.save, fastadam.load):
        with pytest.raises(TypeError, match=r"the path comes first.*save\(path, optimizer\)"):
            call(opt, path)  # type: ignore[arg-type]
    for name in ("save_npz", "load_npz", "save_hdf5", "load_hdf5"):
        if name.endswith("npz") == (path.suffix == ".npz"):
            with pytest.raises(TypeError, match=rf"the file comes first: {name}\(file, obj\)"):
                getattr(serializers, name)(opt, str(path))
    assert not list(path.parent.iterdir())


def test_arrays_alone(path: Path) -> None:
    """What the message of `save` leads to ends where it says."""
    arrays = {"w": np.arange(3.0)}
    for call in (fastadam.save, fastadam.load):
        with pytest.raises(TypeError, match="a dict of arrays is saved by save_npz, and read by"):
            call(path, arrays)
    npz = path.suffix == ".npz"
    (save_npz if npz else save_hdf5)(path, arrays)
    load = serializers.load_npz if npz else serializers.load_hdf5
    with pytest.raises(TypeError, match=r"not dict: read arrays alone with (numpy.load|h5py.File)"):
        load(path, arrays)
    with pytest.raises(TypeError, match="not list: links, optimizers and rules have one"):
        load(path, [1])
    if npz:
        with np.load(path) as file:
            assert file["w"].tolist() == [0, 1, 2]


def test_a_parameter_more(path: Path) -> None:
    """`rename` is no advice where the only name that is close has its place already."""
    fastadam.save(path, fastadam.Adam().setup({"w": np.ones(3)}))
    more = fastadam.Adam().setup({"w": np.zeros(3), "c": np.zeros(3)})
    with pytest.raises(CheckpointError, match="has no 'target/c'; strict=False leaves") as raised:
        fastadam.load(path, more)
    assert "rename" not in str(raised.value)
    assert fastadam.load(path, more, strict=False).missing
    assert more.parameters["w"].array.tolist() == [1, 1, 1]
    other = fastadam.Adam().setup({"weight": np.zeros(3)})
    fastadam.save(path, fastadam.Adam().setup({"weights": np.ones(3)}))
    with pytest.raises(CheckpointError, match="there is 'target/weights', see `rename`"):
        fastadam.load(path, other)


@pytest.mark.parametrize("timing", ["pre", "post"])
def test_saving_in_a_hook(path: Path, timing: str) -> None:
    """Before the first parameter, or after the last: what is saved is whole."""

    class Saving:
        name = "saving"

        def __init__(self) -> None:
            self.timing = timing

        def __call__(self, opt: Any) -> None:
            fastadam.save(path, opt)

    opt = fastadam.Adam(alpha=0.1).setup({"w": np.ones(3)})
    opt.add_hook(Saving())
    twin = fastadam.Adam(alpha=0.1).setup({"w": np.ones(3)})
    for _ in range(3):
        before = twin.parameters["w"].array.copy()
        for each in (opt, twin):
            each.apply_gradients({"w": np.full(3, 0.5)})
        other = fastadam.Adam().setup({"w": np.zeros(3)})
        with pytest.warns(
            UserWarning, match=r"hooks that are not here: .*add them before you load"
        ):
            assert fastadam.load(path, other).verified
        wanted = before if timing == "pre" else twin.parameters["w"].array
        assert other.parameters["w"].array.tolist() == wanted.tolist()


def a_target(kind: str, dtype: Any) -> Any:
    if kind == "link":
        link = fastadam.Link()
        with link.init_scope():
            link.w = fastadam.Parameter(np.ones(3, dtype))
        return link
    return {"w": np.ones(3, dtype)}


@pytest.mark.parametrize("wide", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["link", "dict"])
def test_a_wide_parameter_becomes_the_master_of_a_half_one(
    path: Path, kind: str, wide: Any
) -> None:
    opt = fastadam.Adam(alpha=1e-4).setup(a_target(kind, np.float16))
    opt.use_fp32_update()
    for _ in range(5):
        opt.apply_gradients({"w": np.ones(3, np.float32)})
    saved = opt.parameters["w"]
    master = saved.update_rule._fp32_param.array
    assert (master != saved.array.astype(np.float32)).all()
    # written after the last step: the master does not know it yet
    saved.array[1] = 7
    expected = [master[0], 7, master[2]]
    fastadam.save(path, opt)

    other = fastadam.Adam().setup(a_target(kind, wide))
    report = fastadam.load(path, other)
    loaded = other.parameters["w"]
    assert loaded.array.tolist() == expected
    assert report.converted == ("target/w",)
    # there is nothing that would be out of date after the next step
    assert loaded.update_rule._fp32_param is None
    other.apply_gradients({"w": np.ones(3, wide)})
    fastadam.save(path, other)
    third = fastadam.Adam().setup(a_target(kind, wide))
    assert fastadam.load(path, third).converted == ()
    assert third.parameters["w"].array.tolist() == loaded.array.tolist()

    again = fastadam.Adam().setup(a_target(kind, np.float16))
    assert fastadam.load(path, again).converted == ()


def test_a_master_that_is_ignored_stays_in_the_file(path: Path) -> None:
    opt = fastadam.Adam(alpha=1e-4).setup(a_target("dict", np.float16))
    opt.use_fp32_update()
    opt.apply_gradients({"w": np.ones(3, np.float32)})
    fastadam.save(path, opt)
    other = fastadam.Adam().setup(a_target("dict", np.float32))
    report = fastadam.load(path, other, ignore_names="optimizer/w/fp32_param")
    assert other.parameters["w"].array.tolist() == opt.target["w"].tolist()
    assert (report.converted, report.ignored) == ((), ("optimizer/w/fp32_param",))
