"""What may be a target, how its gradients are matched, and how it may change between updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastadam
from fastadam import Parameter

ARGUMENTS: dict[str, Any] = {
    "alpha": 0.03,
    "beta1": 0.8,
    "beta2": 0.95,
    "eps": 1e-6,
    "eta": 0.7,
    "weight_decay_rate": 0.02,
    "amsgrad": True,
}


def adam(target: Any) -> fastadam.Adam:
    return fastadam.Adam(**ARGUMENTS).setup(target)


def values(n: int, seed: int = 0, dtype: Any = "f8") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n).astype(dtype)


def stepped(p: np.ndarray, *grads: Any) -> np.ndarray:
    """Step a copy of one array alone, as the outside measure of what a target must give."""
    p = p.copy()
    m, v, vhat = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    arguments = {key: value for key, value in ARGUMENTS.items() if key != "amsgrad"}
    for t, g in enumerate(grads, 1):
        fastadam.adam_step(p, np.asarray(g), m, v, vhat, t=t, **arguments)
    return p


def snapshot(opt: Any) -> Any:
    """Everything an update may change, as bytes; a state of zeros is as good as none."""
    found = {}
    for path, param in opt.parameters.items():
        rule = param.update_rule
        state = {key: array.tobytes() for key, array in (rule.state or {}).items() if array.any()}
        found[path] = (param.array.tobytes(), rule.t, state)
    return opt.t, opt.epoch, found


A, B, C = values(4, 1), values(3, 2), values(2, 3)
GA, GB, GC = values(4, 11), values(3, 12), values(2, 13)

STRUCTURES: dict[str, tuple[Any, Any, list[str]]] = {
    "dict": (lambda a, b, c: {"b": b, "a": a, "c": c}, None, ["b", "a", "c"]),
    "list": (lambda a, b, c: [b, a, c], None, ["0", "1", "2"]),
    "tuple": (lambda a, b, c: (b, a, c), None, ["0", "1", "2"]),
    "nested": (
        lambda a, b, c: {"l1": {"W": b, "b": a}, "rest": [c]},
        None,
        ["l1/W", "l1/b", "rest/0"],
    ),
    "list of tuples": (lambda a, b, c: [(b, a), (c,)], None, ["0/0", "0/1", "1/0"]),
    "list of dicts": (lambda a, b, c: [{"x": b}, {"x": a, "y": c}], None, ["0/x", "1/x", "1/y"]),
}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("call", ["apply_gradients", "update"])
def test_structures(structure: str, call: str) -> None:
    make, _, paths = STRUCTURES[structure]
    arrays = A.copy(), B.copy(), C.copy()
    tree = make(*arrays)
    opt = adam(tree)
    assert opt.target is tree
    assert list(opt.parameters) == paths
    for step in (1.0, -0.5):
        grads = make(step * GA, step * GB, step * GC)
        if call == "update":
            assert opt.update(lambda g=grads: ("loss", g)) == "loss"
        else:
            assert opt.apply_gradients(grads) is None
    for array, start, g in zip(arrays, (A, B, C), (GA, GB, GC), strict=True):
        np.testing.assert_array_equal(array, stepped(start, g, -0.5 * g))
    order = [arrays[1], arrays[0], arrays[2]]
    assert all(p.array is a for p, a in zip(opt.parameters.values(), order, strict=True))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 4)])
def test_one_array(shape: tuple[int, ...]) -> None:
    w = np.full(shape, 0.75)
    start = w.copy()
    opt = adam(w)
    assert list(opt.parameters) == ["param"]
    assert opt.parameters["param"].array is w
    g = np.full(shape, -2.0)
    opt.apply_gradients(g)
    opt.update(lambda: (0.0, 2 * g))
    np.testing.assert_array_equal(w, stepped(start, g, 2 * g))
    assert w.shape == shape


def test_lists_and_tuples_stand_for_each_other_in_gradients() -> None:
    tree = [A.copy(), (B.copy(),)]
    adam(tree).apply_gradients((GA, [GB]))
    np.testing.assert_array_equal(tree[0], stepped(A, GA))
    np.testing.assert_array_equal(tree[1][0], stepped(B, GB))


def test_any_mapping_may_hold_gradients() -> None:
    from types import MappingProxyType

    tree = {"a": A.copy()}
    adam(tree).apply_gradients(MappingProxyType({"a": GA}))
    np.testing.assert_array_equal(tree["a"], stepped(A, GA))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("layout", ["C", "F", "strided", "reversed", "transposed"])
def test_layouts_and_dtypes(dtype: str, layout: str) -> None:
    base = values(48, dtype=dtype).reshape(6, 8)
    w = {
        "C": base,
        "F": np.asfortranarray(base),
        "strided": base[::2, 1::3],
        "reversed": base[::-1, ::-1],
        "transposed": base.reshape(2, 3, 8).transpose(2, 0, 1),
    }[layout]
    start = np.array(w, order="C")
    untouched = base.copy()
    grads = [values(w.size, seed, dtype).reshape(w.shape) for seed in (4, 5)]
    opt = adam({"w": w})
    for g in grads:
        opt.apply_gradients({"w": g})
    expected = stepped(start, *grads)
    np.testing.assert_array_equal(w, expected)
    assert w.dtype == dtype
    if layout == "strided":  # the rest of the memory is as it was
        w[...] = untouched[::2, 1::3]
        np.testing.assert_array_equal(base, untouched)


def test_several_dtypes_in_one_target() -> None:
    tree = {"a": A.astype("f4"), "b": B.copy(), "c": C.astype("f4")}
    opt = adam(tree)
    opt.apply_gradients({"a": GA, "b": GB.astype("f4"), "c": GC.astype("f2")})
    np.testing.assert_array_equal(tree["a"], stepped(A.astype("f4"), GA.astype("f4")))
    np.testing.assert_array_equal(tree["b"], stepped(B, GB.astype("f4").astype("f8")))
    np.testing.assert_array_equal(tree["c"], stepped(C.astype("f4"), GC.astype("f2").astype("f4")))
    for path, param in opt.parameters.items():
        assert {a.dtype for a in param.update_rule.state.values()} == {tree[path].dtype}


class TestWhatIsNoTarget:
    @pytest.mark.parametrize(
        ("target", "words"),
        [
            ("a string", "str"),
            (None, "NoneType"),
            (object(), "object"),
            ({1.5, 2.5}, "set"),
            (3.5, r"number 3\.5.*numpy\.array"),
            (3, r"number 3.*numpy\.array"),
            (np.float32(2), r"number.*numpy\.array"),
            (iter([]), "iterator"),
        ],
    )
    def test_type(self, target: Any, words: str) -> None:
        opt = fastadam.Adam()
        with pytest.raises(TypeError, match=words):
            opt.setup(target)
        assert opt.target is None
        with pytest.raises(RuntimeError, match="setup"):
            opt.update()

    @pytest.mark.parametrize("bad", [1.0, np.float64(1), "text", None, {1, 2}])
    def test_leaf(self, bad: Any) -> None:
        with pytest.raises(TypeError, match="'l1/w'"):
            adam({"a": A.copy(), "l1": {"w": bad}})

    def test_parameter_itself(self) -> None:
        with pytest.raises(TypeError, match="link"):
            adam(Parameter(A.copy()))

    @pytest.mark.parametrize("target", [{}, [], (), {"a": {}}, [[], {}]])
    def test_empty(self, target: Any) -> None:
        with pytest.raises(ValueError, match="no array"):
            adam(target)

    def test_jax_array(self) -> None:
        fake = type("Array", (), {"__jax_array__": lambda self: self, "__module__": "jaxlib.xla"})
        with pytest.raises(TypeError, match=r"JAX.*numpy\.array"):
            adam(fake())
        with pytest.raises(TypeError, match=r"'w'.*JAX"):
            adam({"w": fake()})

    def test_torch_tensor(self) -> None:
        fake = type("Tensor", (), {"__module__": "torch"})
        with pytest.raises(TypeError, match=r"torch\.Tensor.*numpy\(\)"):
            adam([fake()])

    def test_refused_setup_keeps_the_old_target(self) -> None:
        tree = {"a": A.copy()}
        opt = adam(tree)
        opt.apply_gradients({"a": GA})
        before = snapshot(opt)
        with pytest.raises(ValueError, match="'t'"):
            opt.setup({"t": B.copy()})
        assert opt.target is tree
        assert snapshot(opt) == before


class TestKeys:
    @pytest.mark.parametrize("key", ["", "a/b", "/", "a/"])
    @pytest.mark.parametrize("depth", [0, 1])
    def test_refused(self, key: str, depth: int) -> None:
        tree: Any = {"fine": A.copy(), key: B.copy()}
        with pytest.raises(ValueError, match=repr(key)):
            adam({"deeper": tree} if depth else tree)

    @pytest.mark.parametrize("key", ["t", "epoch"])
    def test_taken_by_the_counters_at_the_top(self, key: str) -> None:
        with pytest.raises(ValueError, match=f"{key!r}.*taken"):
            adam({key: A.copy()})

    @pytest.mark.parametrize("key", ["t", "epoch"])
    def test_free_below_the_top(self, key: str) -> None:
        tree = {"l1": {key: A.copy()}}
        adam(tree).apply_gradients({"l1": {key: GA}})
        np.testing.assert_array_equal(tree["l1"][key], stepped(A, GA))

    @pytest.mark.parametrize("key", [1, None, ("a",), b"a"])
    def test_not_a_string(self, key: Any) -> None:
        with pytest.raises(TypeError, match="str"):
            adam({key: A.copy()})

    def test_key_that_appears_late_is_checked_too(self) -> None:
        tree = {"a": A.copy()}
        opt = adam(tree)
        tree["t"] = B.copy()
        with pytest.raises(ValueError, match="'t'"):
            opt.apply_gradients({"a": GA, "t": GB})
        np.testing.assert_array_equal(tree["a"], A)
        np.testing.assert_array_equal(tree["t"], B)
        assert opt.t == 0


class TestGradientsThatDoNotFit:
    """Every one is refused with its name, and nothing is changed."""

    def refused(self, tree: Any, grads: Any, error: type[Exception], *words: str) -> None:
        opt = adam(tree)
        before = snapshot(opt)
        for call in (
            lambda: opt.apply_gradients(grads),
            lambda: opt.update(lambda: (1.0, grads)),
        ):
            with pytest.raises(error) as caught:
                call()
            for word in words:
                assert word in str(caught.value)
            assert snapshot(opt) == before

    def test_missing_and_unknown_keys_are_all_named(self) -> None:
        tree = {"a": A.copy(), "b": B.copy(), "c": C.copy()}
        self.refused(
            tree, {"a": GA, "x": GB, "y": GC}, ValueError, "'b'", "'c'", "'x'", "'y'", "None"
        )

    def test_nested_place_is_named(self) -> None:
        tree = {"l1": {"W": A.copy(), "b": B.copy()}}
        self.refused(tree, {"l1": {"W": GA}}, ValueError, "'l1'", "'b'")

    @pytest.mark.parametrize("grads", [[GA], [GA, GB, GC], []])
    def test_wrong_length(self, grads: Any) -> None:
        self.refused([A.copy(), B.copy()], grads, ValueError, "2", str(len(grads)))

    def test_wrong_structure(self) -> None:
        self.refused({"a": A.copy()}, [GA], ValueError, "dict", "list")
        self.refused([A.copy()], {"0": GA}, ValueError, "list", "dict")
        self.refused([A.copy()], GA, ValueError, "list", "ndarray")
        self.refused({"l1": {"a": A.copy()}}, {"l1": GA}, ValueError, "'l1'", "dict")

    def test_wrong_shape(self) -> None:
        tree = {"a": A.copy(), "l1": {"w": np.ones((2, 3))}}
        self.refused(
            tree, {"a": GA, "l1": {"w": np.ones((3, 2))}}, ValueError, "'l1/w'", "(2, 3)", "(3, 2)"
        )
        self.refused(tree, {"a": GA, "l1": {"w": np.ones(3)}}, ValueError, "'l1/w'", "(3,)")
        self.refused(tree, {"a": GA, "l1": {"w": 1.0}}, ValueError, "'l1/w'", "()")

    @pytest.mark.parametrize("dtype", ["i4", "u1", "?", "c8", "c16", "O", "U3", "M8[s]"])
    def test_wrong_dtype(self, dtype: str) -> None:
        grads = {"a": GA, "b": np.zeros(3, dtype)}
        self.refused({"a": A.copy(), "b": B.copy()}, grads, TypeError, "'b'")

    def test_no_array_at_all(self) -> None:
        self.refused({"b": B.copy()}, {"b": object()}, TypeError, "'b'")
        self.refused({"b": B.copy()}, {"b": {"c": 1}}, TypeError, "'b'")
        self.refused({"b": B.copy()}, {"b": [[1.0], [2.0, 3.0]]}, TypeError, "'b'")

    def test_links_want_a_mapping_by_path(self) -> None:
        link = fastadam.Chain(l1=fastadam.Link(W=3))
        link.l1.W.array[...] = 1
        opt = adam(link)
        with pytest.raises(TypeError, match=r"'l1/W'.*list"):
            opt.apply_gradients([np.ones(3)])
        with pytest.raises(ValueError, match=r"missing 'l1/W'.*unknown 'W'"):
            opt.apply_gradients({"W": np.ones(3)})
        np.testing.assert_array_equal(link.l1.W.array, np.ones(3))
        opt.apply_gradients({"/l1/W": np.ones(3)})
        assert opt.t == 1


class TestGradientsThatAreTaken:
    @pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "longdouble", ">f4", ">f8"])
    @pytest.mark.parametrize("p_dtype", ["f4", "f8"])
    def test_every_real_floating_dtype(self, dtype: str, p_dtype: str) -> None:
        tree = {"a": A.astype(p_dtype)}
        g = GA.astype(dtype)
        kept = g.copy()
        adam(tree).apply_gradients({"a": g})
        np.testing.assert_array_equal(tree["a"], stepped(A.astype(p_dtype), g.astype(p_dtype)))
        assert g.tobytes() == kept.tobytes()
        assert g.dtype == np.dtype(dtype)

    def test_read_only_and_broadcast(self) -> None:
        tree = {"a": A.copy(), "w": np.ones((3, 4))}
        g = GA.copy()
        g.flags.writeable = False
        adam(tree).apply_gradients({"a": g, "w": np.broadcast_to(g, (3, 4))})
        np.testing.assert_array_equal(tree["a"], stepped(A, GA))
        np.testing.assert_array_equal(
            tree["w"], stepped(np.ones((3, 4)), np.broadcast_to(GA, (3, 4)).copy())
        )

    @pytest.mark.parametrize("g", [0.5, np.float32(0.5), np.float64(0.5), np.array(0.5, "f2")])
    @pytest.mark.parametrize("dtype", ["f4", "f8"])
    def test_scalars_for_parameters_without_axes(self, g: Any, dtype: str) -> None:
        w = np.array(2.0, dtype)
        adam({"w": w}).apply_gradients({"w": g})
        np.testing.assert_array_equal(w, stepped(np.array(2.0, dtype), np.array(0.5, dtype)))
        assert w.dtype == dtype

    def test_objects_with_an_array_interface(self) -> None:
        class Foreign:
            def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
                return GA

        tree = {"a": A.copy()}
        adam(tree).apply_gradients({"a": Foreign()})
        np.testing.assert_array_equal(tree["a"], stepped(A, GA))

    def test_none_counts_as_zeros(self) -> None:
        tree = {"a": A.copy(), "l1": [B.copy(), C.copy()]}
        opt = adam(tree)
        opt.apply_gradients({"a": GA, "l1": [GB, GC]})
        opt.apply_gradients({"a": None, "l1": None})
        opt.apply_gradients({"a": GA, "l1": [None, GC]})
        np.testing.assert_array_equal(tree["a"], stepped(A, GA, 0 * GA, GA))
        np.testing.assert_array_equal(tree["l1"][0], stepped(B, GB, 0 * GB, 0 * GB))
        np.testing.assert_array_equal(tree["l1"][1], stepped(C, GC, 0 * GC, GC))

    def test_none_for_each_of_all(self) -> None:
        tree = {"a": A.copy()}
        adam(tree).apply_gradients({"a": None})
        np.testing.assert_array_equal(tree["a"], stepped(A, 0 * GA))

    def test_the_parameter_itself_as_its_gradient(self) -> None:
        tree = {"a": A.copy(), "b": np.ones(4)}
        adam(tree).apply_gradients({"a": tree["b"], "b": tree["a"]})
        np.testing.assert_array_equal(tree["a"], stepped(A, np.ones(4)))
        np.testing.assert_array_equal(tree["b"], stepped(np.ones(4), A))


class TestCallersGradientIsNeverWritten:
    @pytest.mark.parametrize("dtype", ["f4", "f8"])
    @pytest.mark.parametrize("where", ["optimizer pre", "optimizer post", "per param", "rule"])
    def test_by_hooks_that_write_in_place(self, dtype: str, where: str) -> None:
        tree = {"a": A.copy(), "b": B.copy()}
        grads = {"a": GA.astype(dtype), "b": GB.astype(dtype)}
        kept = {key: g.copy() for key, g in grads.items()}
        opt = adam(tree)

        def scale_all(opt: Any) -> None:
            for param in opt.parameters.values():
                param.grad *= 0.5

        def scale(rule: Any, param: Any) -> None:
            param.grad *= 0.5

        if where == "rule":
            for param in opt.parameters.values():
                param.update_rule.add_hook(scale)
        elif where == "per param":
            scale.call_for_each_param = True  # type: ignore[attr-defined]
            opt.add_hook(scale)
        else:
            opt.add_hook(scale_all, timing=where.split()[1])
        for _ in range(2):
            opt.apply_gradients(grads)
            opt.update(lambda: (0.0, grads))
        factor = 1.0 if where == "optimizer post" else 0.5
        for key, start in (("a", A), ("b", B)):
            assert grads[key].tobytes() == kept[key].tobytes()
            g = factor * kept[key].astype("f8")
            np.testing.assert_array_equal(tree[key], stepped(start, g, g, g, g))

    def test_by_a_rule_of_the_users(self) -> None:
        class Greedy(fastadam.UpdateRule):
            def update_core(self, param: Any) -> None:
                param.grad *= -1
                param.array += param.grad

        tree, g = {"a": A.copy()}, GA.copy()
        opt = adam(tree)
        opt.parameters["a"].update_rule = Greedy()
        opt.apply_gradients({"a": g})
        np.testing.assert_array_equal(tree["a"], A - GA)
        np.testing.assert_array_equal(g, GA)

    def test_and_not_kept_either(self) -> None:
        tree, g = {"a": A.copy()}, GA.copy()
        opt = adam(tree)
        opt.apply_gradients({"a": g})
        assert opt.parameters["a"].grad is None
        with pytest.raises(ValueError, match=r"no gradients.*apply_gradients"):
            opt.update()
        np.testing.assert_array_equal(tree["a"], stepped(A, GA))
        assert opt.t == 1

    def test_gradients_of_a_refused_call_are_not_used_later(self) -> None:
        tree = {"a": A.copy(), "b": B.copy()}
        opt = adam(tree)
        with pytest.raises(ValueError, match="'b'"):
            opt.apply_gradients({"a": GA, "b": np.ones(7)})
        with pytest.raises(ValueError, match="no gradients"):
            opt.update()
        np.testing.assert_array_equal(tree["a"], A)

    def test_of_a_link(self) -> None:
        link = fastadam.Link()
        with link.init_scope():
            link.w = Parameter(A.copy())
        opt, g = adam(link), GA.copy()
        opt.add_hook(lambda opt: opt.target.w.grad.fill(3.0), name="fill")
        opt.apply_gradients({"w": g})
        np.testing.assert_array_equal(g, GA)
        np.testing.assert_array_equal(link.w.array, stepped(A, np.full(4, 3.0)))


class TestSameArrayTwice:
    def test_lists_as_gradients_are_added_not_joined(self) -> None:
        w = np.zeros(2)
        opt = fastadam.Adam(alpha=0.5).setup({"a": w, "b": w})
        hooked: list[Any] = []
        opt.add_hook(lambda opt: hooked.append(opt.parameters["a"].grad.tolist()), "look")
        opt.apply_gradients({"a": [1.0, 2.0], "b": [3.0, 4.0]})
        assert hooked == [[4.0, 6.0]]
        with pytest.raises(ValueError, match=r"'b'.*twice.*\(2,\).*\(1,\)"):
            opt.apply_gradients({"a": [1.0, 2.0], "b": [3.0]})

    def test_half_gradients_are_added_in_float32(self) -> None:
        w = np.zeros(1, np.float16)
        opt = fastadam.Adam(alpha=0.5).setup([w, w])
        opt.monitor = True
        opt.apply_gradients([np.full(1, 60000, np.float16)] * 2)
        assert opt.last_update is not None
        assert opt.last_update.grad_norm == 120000

    def test_gradients_are_added(self) -> None:
        a = A.copy()
        tree = {"enc": a, "l1": {"dec": a}, "other": B.copy()}
        opt = adam(tree)
        assert list(opt.parameters) == ["enc", "other"]
        g1, g2 = GA.copy(), values(4, 21)
        kept = g2.copy()
        opt.apply_gradients({"enc": g1, "l1": {"dec": g2}, "other": GB})
        opt.apply_gradients({"enc": None, "l1": {"dec": g2}, "other": GB})
        opt.apply_gradients({"enc": g1, "l1": {"dec": None}, "other": GB})
        opt.apply_gradients({"enc": None, "l1": {"dec": None}, "other": GB})
        np.testing.assert_array_equal(a, stepped(A, GA + kept, kept, GA, 0 * GA))
        np.testing.assert_array_equal(g1, GA)
        np.testing.assert_array_equal(g2, kept)
        assert opt.parameters["enc"].update_rule.t == 4

    def test_three_times(self) -> None:
        a = A.copy()
        adam([a, a, a]).apply_gradients([GA, 2 * GA, 4 * GA])
        np.testing.assert_array_equal(a, stepped(A, GA + 2 * GA + 4 * GA))

    def test_two_views_of_the_same_elements(self) -> None:
        a = A.copy()
        opt = adam({"x": a[:], "y": a.view()})
        opt.apply_gradients({"x": GA, "y": GA})
        assert list(opt.parameters) == ["x"]
        np.testing.assert_array_equal(a, stepped(A, GA + GA))

    def test_both_keys_rebound_to_another_array(self) -> None:
        a, new = A.copy(), values(4, 31)
        start = new.copy()
        tree = {"x": a, "y": a}
        opt = adam(tree)
        opt.apply_gradients({"x": GA, "y": GA})
        tree["x"] = tree["y"] = new
        opt.apply_gradients({"x": GA, "y": GA})
        assert list(opt.parameters) == ["x"]
        assert opt.parameters["x"].update_rule.t == 2
        # the state went on: the new array moved as the old one would have
        moved = stepped(A, 2 * GA, 2 * GA) - stepped(A, 2 * GA) * (1 - 0.7 * 0.02)
        np.testing.assert_allclose(new - start * (1 - 0.7 * 0.02), moved, rtol=1e-12)

    def test_separated_later(self) -> None:
        a, new = A.copy(), values(4, 31)
        start = new.copy()
        tree = {"x": a, "y": a}
        opt = adam(tree)
        opt.apply_gradients({"x": GA, "y": GA})
        tree["y"] = new
        opt.apply_gradients({"x": GA, "y": GA})
        assert list(opt.parameters) == ["x", "y"]
        np.testing.assert_array_equal(a, stepped(A, 2 * GA, GA))
        np.testing.assert_array_equal(new, stepped(start, GA))

    def test_tied_later(self) -> None:
        tree = {"x": A.copy(), "y": values(4, 31)}
        opt = adam(tree)
        opt.apply_gradients({"x": GA, "y": GA})
        tree["y"] = tree["x"]
        opt.apply_gradients({"x": GA, "y": GA})
        np.testing.assert_array_equal(tree["x"], stepped(A, GA, 2 * GA))
        assert list(opt.parameters) == ["x"]

    def test_empty_arrays_are_not_the_same(self) -> None:
        opt = adam({"x": np.zeros(0), "y": np.zeros(0)})
        assert list(opt.parameters) == ["x", "y"]


class TestOverlaps:
    @pytest.mark.parametrize(
        "views",
        [
            lambda a: (a[:3], a[2:]),
            lambda a: (a, a[1:2]),
            lambda a: (a[2:3], a),
            lambda a: (a[::2], a[::-1]),
            lambda a: (a.reshape(2, 3), a),
            lambda a: (a, a[::-1]),
            lambda a: (a.view("f4"), a),
        ],
    )
    @pytest.mark.parametrize("first", [0, 1])
    def test_refused(self, views: Any, first: int) -> None:
        pair = views(np.arange(6.0))
        with pytest.raises(ValueError, match=r"'one'.*'two'|'two'.*'one'"):
            adam({"one": pair[first], "mid": np.zeros(3), "two": pair[1 - first]})

    def test_parts_that_do_not_overlap_are_fine(self) -> None:
        flat = np.arange(12.0)
        start = flat.copy()
        tree = [flat[0:4:2], flat[1:4:2], flat[4:8], flat[8:].reshape(2, 2), flat[:0]]
        opt = adam(tree)
        g = values(12, 5)
        opt.apply_gradients([g[0:4:2], g[1:4:2], g[4:8], g[8:].reshape(2, 2), g[:0]])
        np.testing.assert_array_equal(flat, stepped(start, g))
        assert len(opt.parameters) == 5

    def test_array_that_appears_late_is_checked_too(self) -> None:
        tree = {"a": A.copy()}
        opt = adam(tree)
        tree["part"] = tree["a"][:2]
        with pytest.raises(ValueError, match="'part'"):
            opt.apply_gradients({"a": GA, "part": GC})
        np.testing.assert_array_equal(tree["a"], A)
        assert opt.t == 0


class TestChangesBetweenUpdates:
    @pytest.mark.parametrize("nested", [False, True])
    def test_rebinding_goes_on_with_the_state(self, nested: bool) -> None:
        inner = {"w": A.copy()}
        tree: Any = {"l1": [inner]} if nested else inner
        grads: Any = {"l1": [{"w": GA}]} if nested else {"w": GA}
        opt = adam(tree)
        opt.apply_gradients(grads)
        old, new = inner["w"], np.ones(4)
        frozen = old.copy()
        inner["w"] = new
        opt.apply_gradients(grads)
        np.testing.assert_array_equal(old, frozen)
        (param,) = opt.parameters.values()
        assert param.array is new
        assert param.update_rule.t == 2
        decay = 1 - 0.7 * 0.02
        moved = stepped(A, GA, GA) - stepped(A, GA) * decay
        np.testing.assert_allclose(new - decay, moved, rtol=1e-12)

    def test_rebinding_before_the_first_update(self) -> None:
        tree = {"w": A.copy()}
        opt = adam(tree)
        tree["w"] = B.astype("f4")  # another shape and dtype: there is no state yet
        opt.apply_gradients({"w": GB})
        np.testing.assert_array_equal(tree["w"], stepped(B.astype("f4"), GB.astype("f4")))

    def test_rebinding_inside_the_loss_function(self) -> None:
        tree = {"w": A.copy()}
        opt = adam(tree)

        def loss() -> tuple[float, Any]:
            tree["w"] = B.copy()
            return 0.0, {"w": GB}

        opt.update(loss)
        np.testing.assert_array_equal(tree["w"], stepped(B, GB))

    @pytest.mark.parametrize("new", [np.ones(5), np.ones((4, 1)), np.ones(4, "f4")])
    def test_rebinding_to_what_the_state_does_not_fit_is_refused(self, new: np.ndarray) -> None:
        tree = {"other": B.copy(), "w": A.copy()}
        opt = adam(tree)
        opt.apply_gradients({"w": GA, "other": GB})
        tree["w"] = new
        before = snapshot(opt)
        with pytest.raises((ValueError, TypeError), match="'w'"):
            opt.apply_gradients({"w": np.ones_like(new), "other": GB})
        assert snapshot(opt) == before
        tree["w"] = A.copy()
        opt.apply_gradients({"w": GA, "other": GB})
        assert opt.t == 2

    @pytest.mark.parametrize("bad", [np.arange(4), np.ones(4, "c16"), np.ones(4, ">f8")])
    def test_correcting_what_was_refused_before_the_first_update(self, bad: np.ndarray) -> None:
        tree = {"other": B.copy(), "w": bad}
        with pytest.raises(TypeError, match="'w'"):
            adam(tree)
        del tree["w"]
        opt = adam(tree)
        tree["w"] = bad
        with pytest.raises(TypeError, match="'w'"):
            opt.apply_gradients({"w": GA, "other": GB})
        np.testing.assert_array_equal(tree["other"], B)
        tree["w"] = A.copy()
        opt.apply_gradients({"w": GA, "other": GB})
        np.testing.assert_array_equal(tree["w"], stepped(A, GA))
        np.testing.assert_array_equal(tree["other"], stepped(B, GB))

    def test_new_keys_get_a_rule(self) -> None:
        tree = {"a": A.copy()}
        opt = adam(tree)
        opt.apply_gradients({"a": GA})
        tree["b"] = B.copy()
        assert list(opt.parameters) == ["a", "b"]
        for _ in range(2):
            opt.apply_gradients({"a": GA, "b": GB})
        np.testing.assert_array_equal(tree["a"], stepped(A, GA, GA, GA))
        np.testing.assert_array_equal(tree["b"], stepped(B, GB, GB))
        assert [p.update_rule.t for p in opt.parameters.values()] == [3, 2]
        assert opt.parameters["b"].update_rule.hyperparam.parent is opt.hyperparam

    def test_deleted_keys_are_forgotten(self) -> None:
        tree = {"a": A.copy(), "b": B.copy()}
        opt = adam(tree)
        opt.apply_gradients({"a": GA, "b": GB})
        gone = tree.pop("b")
        frozen = gone.copy()
        opt.apply_gradients({"a": GA})
        assert list(opt.parameters) == ["a"]
        np.testing.assert_array_equal(gone, frozen)
        with pytest.raises(ValueError, match="'b'"):
            opt.apply_gradients({"a": GA, "b": GB})

    def test_a_list_that_grows(self) -> None:
        tree = [A.copy()]
        opt = adam(tree)
        opt.apply_gradients([GA])
        tree.append(B.copy())
        opt.apply_gradients([GA, GB])
        np.testing.assert_array_equal(tree[1], stepped(B, GB))

    def test_array_replaced_by_what_is_none(self) -> None:
        tree: dict[str, Any] = {"a": A.copy()}
        opt = adam(tree)
        tree["a"] = 1.5
        with pytest.raises(TypeError, match=r"'a'.*numpy.array"):
            opt.apply_gradients({"a": 1.0})
        assert opt.t == 0


def tiny_link(**arrays: Any) -> fastadam.Link:
    link = fastadam.Link()
    with link.init_scope():
        for name, array in arrays.items():
            setattr(link, name, Parameter(0 if array is None else array))
    return link


class TestLinks:
    def test_paths(self) -> None:
        chain = fastadam.Chain(
            l2=fastadam.Link(W=2),
            l1=fastadam.ChainList(fastadam.Link(b=1, W=1), fastadam.Link(W=3)),
        )
        opt = adam(chain)
        assert list(opt.parameters) == ["l1/0/W", "l1/0/b", "l1/1/W", "l2/W"]
        assert opt.parameters["l2/W"] is chain.l2.W

    def test_shared_parameter_is_updated_once(self) -> None:
        one, two = tiny_link(W=A.copy()), tiny_link(b=B.copy())
        with two.init_scope():
            two.W = one.W
        chain = fastadam.Chain(one=one, two=two)
        opt = adam(chain)
        assert list(opt.parameters) == ["one/W", "two/b"]
        seen = []
        hook = lambda rule, param: seen.append(param)  # noqa: E731
        hook.call_for_each_param = True  # type: ignore[attr-defined]
        opt.add_hook(hook, name="seen")
        one.W.grad, two.b.grad = GA.copy(), GB.copy()
        opt.update()
        assert [p is q for p, q in zip(seen, (one.W, two.b), strict=True)] == [True, True]
        assert one.W.update_rule.t == 1
        np.testing.assert_array_equal(one.W.array, stepped(A, GA))
        np.testing.assert_array_equal(two.b.array, stepped(B, GB))

    def test_anything_with_params(self) -> None:
        class Bag:
            def __init__(self) -> None:
                self.all = [Parameter(A.copy()), Parameter(B.copy())]

            def params(self) -> Any:
                return iter(self.all)

        bag = Bag()
        opt = adam(bag)
        assert list(opt.parameters) == ["0", "1"]
        opt.apply_gradients({"0": GA, "1": None})
        np.testing.assert_array_equal(bag.all[0].array, stepped(A, GA))

        class Loss:
            def backward(self, loss_scale: Any) -> None:
                assert loss_scale is None
                assert bag.all[1].grad is None
                bag.all[0].grad = GA.copy()

        opt.update(Loss)
        np.testing.assert_array_equal(bag.all[0].array, stepped(A, GA, GA))
        np.testing.assert_array_equal(bag.all[1].array, stepped(B, 0 * GB, 0 * GB))

    @pytest.mark.parametrize("call", ["update", "apply_gradients", "parameters"])
    def test_late_parameters_get_a_rule(self, call: str) -> None:
        link = tiny_link(a=A.copy())
        opt = adam(link)
        with link.init_scope():
            link.b = Parameter(B.copy())
        if call == "update":
            link.a.grad, link.b.grad = GA.copy(), GB.copy()
            opt.update()
        elif call == "apply_gradients":
            opt.apply_gradients({"a": GA, "b": GB})
        else:
            assert list(opt.parameters) == ["a", "b"]
            opt.apply_gradients({"a": GA, "b": GB})
        np.testing.assert_array_equal(link.b.array, stepped(B, GB))

    def test_rule_of_none_set_by_hand_stays(self) -> None:
        link = tiny_link(a=A.copy(), b=B.copy())
        opt = adam(link)
        link.b.update_rule = None
        with link.init_scope():
            link.c = Parameter(C.copy())
        for _ in range(2):
            opt.apply_gradients({"a": GA, "b": GB, "c": GC})
        assert link.b.update_rule is None
        np.testing.assert_array_equal(link.b.array, B)
        np.testing.assert_array_equal(link.a.array, stepped(A, GA, GA))
        np.testing.assert_array_equal(link.c.array, stepped(C, GC, GC))
        opt.setup(link)
        assert link.b.update_rule is not None

    def test_late_parameter_with_a_rule_keeps_it(self) -> None:
        link = tiny_link(a=A.copy())
        opt = adam(link)
        mine = fastadam.AdamRule(alpha=0.5)
        with link.init_scope():
            link.b = Parameter(B.copy())
        link.b.update_rule = mine
        opt.apply_gradients({"a": GA, "b": GB})
        assert link.b.update_rule is mine
        assert mine.t == 1

    def test_lazy_parameter_begins_when_it_is_initialised(self) -> None:
        link = tiny_link(a=A.copy(), lazy=None)
        opt = adam(link)
        opt.apply_gradients({"a": GA, "lazy": None})
        link.a.grad = GA.copy()
        opt.update()
        assert (link.lazy.update_rule.t, link.lazy.update_rule.state) == (0, None)
        link.lazy.initialize(3)
        link.lazy.array[...] = B
        opt.apply_gradients({"a": GA, "lazy": GB})
        np.testing.assert_array_equal(link.a.array, stepped(A, GA, GA, GA))
        np.testing.assert_array_equal(link.lazy.array, stepped(B.astype("f4"), GB.astype("f4")))

    def test_gradient_for_a_lazy_parameter_is_refused(self) -> None:
        opt = adam(tiny_link(lazy=None))
        with pytest.raises(RuntimeError, match="'lazy'"):
            opt.apply_gradients({"lazy": np.ones(3)})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=0, max_size=6),
    st.sampled_from(["f4", "f8"]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_splitting_an_array_changes_nothing(
    cuts: list[int], dtype: str, bound: bool, seed: int
) -> None:
    n = 64
    arguments = {**ARGUMENTS, "adabound": bound, "final_lr": 0.2, "gamma": 0.1}
    whole = values(n, seed, dtype)
    parts = np.split(whole.copy(), sorted(cuts))
    one = fastadam.Adam(**arguments).setup(whole)
    many = fastadam.Adam(**arguments).setup(parts)
    for step in range(3):
        g = values(n, seed + step + 1, dtype)
        one.apply_gradients(g)
        many.apply_gradients(np.split(g, sorted(cuts)))
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert not np.array_equal(whole, values(n, seed, dtype))
    for key in ("m", "v", "vhat"):
        np.testing.assert_array_equal(
            np.concatenate([p.update_rule.state[key] for p in many.parameters.values()]),
            one.parameters["param"].update_rule.state[key],
        )


def nested(depth: int, kind: type) -> Any:
    tree: Any = np.ones(2)
    for _ in range(depth):
        tree = {"a": tree} if kind is dict else kind([tree])
    return tree


@pytest.mark.parametrize("kind", [dict, list, tuple])
def test_targets_that_are_nested_too_deep(kind: type) -> None:
    opt = fastadam.Adam().setup(nested(200, kind))
    assert [path.count("/") for path in opt.parameters] == [199]
    for depth in (201, 900, 5000):
        with pytest.raises(ValueError, match="nested deeper than 200"):
            opt.setup(nested(depth, kind))


def test_targets_that_contain_themselves() -> None:
    opt = fastadam.Adam()
    tree: dict[str, Any] = {"w": np.ones(2)}
    tree["again"] = [tree]
    with pytest.raises(ValueError, match="'again/0' in the target is a dict that contains itself"):
        opt.setup(tree)
    items: list[Any] = [np.ones(2)]
    items.append({"x": items})
    with pytest.raises(ValueError, match="'1/x' in the target is a list that contains itself"):
        opt.setup(items)
    # what is there twice does not contain itself
    part = {"w": np.ones(2)}
    opt.setup({"a": part, "b": part})
    # it is found later, too
    tree = {"w": np.ones(2)}
    opt.setup(tree)
    tree["again"] = tree
    with pytest.raises(ValueError, match="contains itself"):
        opt.apply_gradients({"w": np.ones(2)})
    chain = fastadam.Chain(a=fastadam.Link(w=2))
    chain.a.w.array[...] = 1
    chain.add_link("b", chain)
    with pytest.raises(ValueError, match="contains itself"):
        opt.setup(chain)
