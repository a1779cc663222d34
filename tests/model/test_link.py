from __future__ import annotations

import numpy as np
import pytest

from fastadam.link import Chain, ChainList, Link
from fastadam.model.parameter import Parameter


class Rule:
    """What a link needs of an update rule."""

    def __init__(self):
        self.enabled = True


def linear(n_in, n_out, fill=0.0):
    link = Link()
    with link.init_scope():
        link.W = Parameter(fill, (n_out, n_in))
        link.b = Parameter(fill, n_out)
    return link


def filled(link, value):
    for number, param in enumerate(link.params(include_uninit=False)):
        param.array[...] = value + number
    return link


# Registration


def test_init_scope_registers_parameters():
    link = Link()
    assert not link.within_init_scope
    with link.init_scope():
        assert link.within_init_scope
        link.W = Parameter(0, 2)
        link.number = 3
        with link.init_scope():
            link.b = Parameter(0, 1)
        assert link.within_init_scope
    link.unregistered = Parameter(0, 2)
    assert not link.within_init_scope
    assert [path for path, _ in link.namedparams()] == ["/W", "/b"]
    assert link.W.name == "W"
    assert link.unregistered.name is None


def test_init_scope_ends_when_the_block_raises():
    link = Link()
    with pytest.raises(ZeroDivisionError), link.init_scope():
        raise ZeroDivisionError
    assert not link.within_init_scope


@pytest.mark.parametrize(
    ("spec", "shape", "dtype"),
    [
        (3, (3,), np.float32),
        ((), (), np.float32),
        ((0, 3), (0, 3), np.float32),
        ([2, 3], (2, 3), np.float32),
        (np.int64(2), (2,), np.float32),
        (((2, 3), np.float64), (2, 3), np.float64),
        ((3, "f8"), (3,), np.float64),
        ((3, np.float16), (3,), np.float16),
        ([(3,), "f8"], (3,), np.float64),
    ],
)
def test_link_keyword_makes_a_parameter(spec, shape, dtype):
    link = Link(W=spec)
    assert link.W.shape == shape
    assert link.W.dtype == dtype
    assert np.isnan(link.W.array).all()
    assert np.isnan(link.W.grad).all()
    assert link.W.name == "W"


@pytest.mark.parametrize(
    ("spec", "dtype"), [(None, np.float32), ((None, "f8"), np.float64), ((None, "f2"), np.float16)]
)
def test_link_keyword_makes_an_uninitialised_parameter(spec, dtype):
    link = Link(W=spec)
    assert link.W.array is None
    link.W.initialize(2)
    assert link.W.array.dtype == dtype


def test_add_param():
    link = Link()
    array = np.ones(2)
    link.add_param("a", (2,))
    link.add_param("b", (2,), np.float64)
    link.add_param("c", initializer=array)
    link.add_param("d", 2, initializer=5)
    assert np.isnan(link.a.array).all()
    assert link.b.dtype == np.float64
    assert link.c.array is array
    np.testing.assert_array_equal(link.d.array, np.full(2, 5, np.float32))
    with pytest.raises(AttributeError, match="'a'"):
        link.add_param("a", 2)


def test_persistent_values():
    link = Link(W=1)
    link.add_persistent("count", 3)
    with pytest.raises(AttributeError, match="'count'"):
        link.add_persistent("count", 4)
    with pytest.raises(AttributeError, match="'missing'"):
        link.register_persistent("missing")
    link.mean = np.zeros(2)
    link.register_persistent("mean")
    assert link._persistent == {"count", "mean"}
    link.register_persistent("W")
    assert list(link.params()) == []
    with link.init_scope():
        link.count = Parameter(0, 1)
    assert [path for path, _ in link.namedparams()] == ["/count"]
    assert link._persistent == {"W", "mean"}


def test_deleting_an_attribute_ends_its_registration():
    link = Link(W=1)
    link.add_persistent("count", 3)
    del link.W, link.count
    assert list(link.params()) == []
    assert link._persistent == set()
    chain = Chain(l1=Link())
    del chain.l1
    assert list(chain.children()) == []


def test_forgotten_super_init_is_named():
    class Forgetful(Link):
        def __init__(self):
            pass

    link = Forgetful()
    with pytest.raises(RuntimeError, match=r"Forgetful.*super"), link.init_scope():
        pass
    with pytest.raises(RuntimeError, match=r"Forgetful.*super"):
        link(1)
    with pytest.raises(RuntimeError, match=r"Forgetful.*super"):
        list(link.params())


def test_calling_a_link_calls_forward():
    class Double(Link):
        def forward(self, x, *, plus=0):
            return 2 * x + plus

    assert Double()(3, plus=1) == 7
    with pytest.raises(AttributeError, match=r"Link.*forward"):
        Link()(3)


def test_xp_is_numpy():
    assert Link().xp is np


# Chains


def test_chain_children():
    chain = Chain(l2=linear(2, 1), l1=linear(3, 2))
    with chain.init_scope():
        chain.l0 = Link()
        chain.s = Parameter(0, ())
    assert [link.name for link in chain.children()] == ["l0", "l1", "l2"]
    assert [path for path, _ in chain.namedparams()] == ["/s", "/l1/W", "/l1/b", "/l2/W", "/l2/b"]
    assert chain["l1"] is chain.l1
    with pytest.raises(AttributeError):
        chain["l9"]


def test_chain_refuses_doubles_and_strangers():
    chain = Chain(l1=Link())
    with pytest.raises(AttributeError, match="'l1'"):
        chain.add_link("l1", Link())
    with pytest.raises(AttributeError, match="'l1'"), chain.init_scope():
        chain.l1 = Link()
    with pytest.raises(AttributeError, match="'copy'"):
        chain.add_link("copy", Link())
    with pytest.raises(TypeError, match="not int"):
        chain.add_link("l2", 3)
    assert [path for path, _ in chain.namedlinks()] == ["/", "/l1"]


def test_parameter_in_a_childs_place_replaces_it():
    chain = Chain(x=Link(W=1))
    with chain.init_scope():
        chain.x = Parameter(0, 1)
    assert [path for path, _ in chain.namedparams()] == ["/x"]


def test_walks_over_a_tree():
    inner = Chain(a=linear(1, 1), z=Link())
    model = Chain(list=ChainList(Link(W=1), inner), last=Link(W=None))
    with model.init_scope():
        model.scale = Parameter(1, ())
    assert [path for path, _ in model.namedparams()] == [
        "/scale",
        "/last/W",
        "/list/0/W",
        "/list/1/a/W",
        "/list/1/a/b",
    ]
    assert [path for path, _ in model.namedparams(include_uninit=False)] == [
        "/scale",
        "/list/0/W",
        "/list/1/a/W",
        "/list/1/a/b",
    ]
    assert list(model.params()) == [param for _, param in model.namedparams()]
    assert list(model.params(False)) == [param for _, param in model.namedparams(False)]
    paths = ["/", "/last", "/list", "/list/0", "/list/1", "/list/1/a", "/list/1/z"]
    assert [path for path, _ in model.namedlinks()] == paths
    assert [path for path, _ in model.namedlinks(skipself=True)] == paths[1:]
    assert list(model.links()) == [link for _, link in model.namedlinks()]
    assert list(model.links(skipself=True)) == [link for _, link in model.namedlinks(True)]
    assert [child.name for child in model.children()] == ["last", "list"]
    assert list(Link().children()) == []


def test_chain_list_is_a_list():
    links = [Link(W=1) for _ in range(6)]
    chain = ChainList(*links[:2])

    def check(*expected):
        assert list(chain) == [links[index] for index in expected]
        assert [link.name for link in chain] == [str(index) for index in range(len(expected))]
        assert len(chain) == len(expected)

    check(0, 1)
    chain.append(links[2])
    check(0, 1, 2)
    chain.add_link(links[3])
    check(0, 1, 2, 3)
    chain.insert(0, links[4])
    check(4, 0, 1, 2, 3)
    chain.insert(-1, links[5])
    check(4, 0, 1, 2, 5, 3)
    assert chain.pop() is links[3]
    check(4, 0, 1, 2, 5)
    del chain[0]
    check(0, 1, 2, 5)
    chain[-1] = links[4]
    check(0, 1, 2, 4)
    chain[1:3] = [links[5]]
    check(0, 5, 4)
    del chain[1:]
    check(0)
    chain.extend(links[1:3])
    check(0, 1, 2)
    chain += [links[3]]
    check(0, 1, 2, 3)
    chain.reverse()
    check(3, 2, 1, 0)
    chain.remove(links[2])
    check(3, 1, 0)
    assert chain[-1] is links[0]
    assert chain[:2] == [links[3], links[1]]
    assert chain.index(links[1]) == 1
    assert chain.count(links[1]) == 1
    assert links[1] in chain
    assert links[2] not in chain
    chain.clear()
    check()
    assert not chain


def test_chain_list_holds_links_only():
    chain = ChainList(Link())
    for attempt in (
        lambda: chain.append(3),
        lambda: chain.insert(0, 3),
        lambda: chain.__setitem__(0, 3),
        lambda: chain.__setitem__(slice(0, 1), [Link(), 3]),
        lambda: ChainList(3),
    ):
        with pytest.raises(TypeError, match="not int"):
            attempt()
    with pytest.raises(TypeError):
        chain["a"] = Link()
    with pytest.raises(TypeError):
        chain["a"]
    with pytest.raises(IndexError):
        chain[1]
    with pytest.raises(TypeError, match="append"), chain.init_scope():
        chain.a = Link()
    assert len(chain) == 1


def test_chain_list_may_have_parameters_of_its_own():
    chain = ChainList(Link(W=1))
    with chain.init_scope():
        chain.scale = Parameter(0, ())
    assert [path for path, _ in chain.namedparams()] == ["/scale", "/0/W"]


def test_str_shows_the_tree():
    class Named(Link):
        @property
        def printable_specs(self):
            yield "n", 3

    model = ChainList(Named(), Chain(a=Link()), Chain())
    assert str(model) == (
        "ChainList(\n  (0): Named(n=3),\n  (1): Chain(\n    (a): Link(),\n  ),\n  (2): Chain(),\n)"
    )


# All parameters at once


def test_cleargrads_and_zerograds():
    model = Chain(l1=Link(W=2), l2=Link(W=None))
    with pytest.warns(DeprecationWarning, match="cleargrads") as record:
        model.zerograds()
    assert len(record) == 1
    np.testing.assert_array_equal(model.l1.W.grad, [0, 0])
    model.l2.W.initialize(1)
    np.testing.assert_array_equal(model.l2.W.grad, [0])
    model.cleargrads()
    assert all(param.grad is None for param in model.params())


def test_zerograds_calls_what_a_parameters_class_overrides():
    class Counting(Parameter):
        calls = 0

        def zerograd(self):
            self.calls += 1
            super().zerograd()

    link = Link()
    with link.init_scope():
        link.W = Counting(np.ones(2))
    with pytest.warns(DeprecationWarning, match="cleargrads"):
        link.zerograds()
    assert link.W.calls == 1
    np.testing.assert_array_equal(link.W.grad, [0, 0])


def test_addgrads():
    def model():
        return Chain(l1=linear(2, 1), l2=ChainList(linear(1, 1)))

    a, b = model(), model()
    for number, (mine, theirs) in enumerate(zip(a.params(), b.params(), strict=True)):
        mine.grad = np.full_like(mine.array, 10)
        theirs.grad = np.full_like(theirs.array, number)
    a.addgrads(b)
    for number, (mine, theirs) in enumerate(zip(a.params(), b.params(), strict=True)):
        np.testing.assert_array_equal(mine.grad, np.full_like(mine.array, 10 + number))
        np.testing.assert_array_equal(theirs.grad, np.full_like(theirs.array, number))


def test_copyparams_copies_values_and_persistents_in_place():
    a = Chain(l1=linear(2, 1), l2=ChainList(linear(1, 1)))
    b = filled(Chain(l1=linear(2, 1), l2=ChainList(linear(1, 1))), 5)
    for link, array, text in ((a, np.zeros(2), "a"), (b, np.ones(2), "b")):
        link.l1.add_persistent("mean", array)
        link.add_persistent("text", text)
    arrays = [param.array for param in a.params()]
    mean = a.l1.mean
    a.copyparams(b, copy_persistent=False)
    assert a.text == "a"
    np.testing.assert_array_equal(mean, [0, 0])
    for number, (param, array) in enumerate(zip(a.params(), arrays, strict=True)):
        assert param.array is array
        np.testing.assert_array_equal(array, np.full_like(array, 5 + number))
    a.copyparams(b)
    assert a.text == "b"
    assert a.l1.mean is mean
    np.testing.assert_array_equal(mean, [1, 1])


def test_copyparams_deep_copies_other_persistents():
    a, b = Link(), Link()
    a.add_persistent("items", [])
    b.add_persistent("items", [1])
    a.copyparams(b)
    b.items.append(2)
    assert a.items == [1]


def test_copyparams_and_addgrads_name_what_is_missing():
    for call in (Link.copyparams, Link.addgrads):
        with pytest.raises(KeyError, match="parameter 'a'"):
            call(Link(a=2), Link(b=2))
        with pytest.raises(KeyError, match="child link '0'"):
            call(ChainList(Link(a=2)), ChainList())
        with pytest.raises(KeyError, match="child link 'x'"):
            call(Chain(x=Link()), Chain())
    a, b = Link(), Link()
    a.add_persistent("mean", np.zeros((2, 3)))
    b.add_persistent("mean", np.zeros(3))
    with pytest.raises(ValueError, match=r"'mean' of shape \(3,\).*\(2, 3\)"):
        a.copyparams(b)


def test_enabling_and_disabling_updates():
    model = Chain(l1=linear(2, 1), l2=linear(1, 1))
    assert not model.update_enabled
    for param in model.l1.params():
        param.update_rule = Rule()
    assert model.update_enabled
    model.l1.W.update_rule.enabled = False
    assert model.update_enabled
    model.disable_update()
    assert not model.update_enabled
    assert not model.l1.b.update_rule.enabled
    model.enable_update()
    assert model.l1.W.update_rule.enabled
    assert model.l1.b.update_rule.enabled


def test_count_params():
    model = Chain(l1=linear(3, 2), l2=Link(s=()))
    assert model.count_params() == 9
    model.l2.add_param("lazy")
    with pytest.warns(UserWarning, match="/l2/lazy"):
        assert model.count_params() == 9


# Copies


def models():
    chain = Chain(l1=linear(2, 1, 3), l2=Link(W=2))
    with chain.init_scope():
        chain.own = Parameter(1, 2)
    chain_list = ChainList(linear(2, 1, 3), Link(W=2))
    with chain_list.init_scope():
        chain_list.own = Parameter(1, 2)
    return [linear(2, 1, 3), chain, chain_list]


@pytest.mark.parametrize("model", models(), ids=["Link", "Chain", "ChainList"])
def test_share_shares_arrays_and_rules(model):
    model.name = "old"
    model.add_persistent("mean", np.zeros(1))
    for param in model.params():
        param.update_rule = Rule()
        param.grad = np.zeros_like(param.array)
    clone = model.copy()
    assert type(clone) is type(model)
    assert clone.name is None
    assert [path for path, _ in clone.namedlinks()] == [path for path, _ in model.namedlinks()]
    assert [link.name for link in clone.children()] == [link.name for link in model.children()]
    pairs = list(zip(model.params(), clone.params(), strict=True))
    for old, new in pairs:
        assert new is not old
        assert new.array is old.array
        assert new.update_rule is old.update_rule
        assert new.grad is None
        assert old.grad is not None
    assert clone.mean is model.mean
    with clone.init_scope():
        clone.extra = Parameter(0, 1)
    assert len(list(clone.params())) == len(list(model.params())) + 1


@pytest.mark.parametrize("model", models(), ids=["Link", "Chain", "ChainList"])
@pytest.mark.parametrize("mode", ["copy", "init"])
def test_copy_and_init_share_nothing(model, mode):
    for param in model.params():
        param.update_rule = Rule()
        param.array[...] = 9
    model.name = "old"
    clone = model.copy(mode)
    assert clone.name == "old"
    assert [link.name for link in clone.children()] == [link.name for link in model.children()]
    for (path, old), (new_path, new) in zip(model.namedparams(), clone.namedparams(), strict=True):
        assert path == new_path
        assert not np.shares_memory(old.array, new.array)
        assert new.update_rule is not old.update_rule
        if mode == "copy":
            np.testing.assert_array_equal(new.array, old.array)
        else:
            fresh = Parameter(new.initializer, old.shape)
            np.testing.assert_array_equal(new.array, fresh.array)
            assert (new.array != 9).all()
            assert np.isnan(new.grad).all()


def test_copies_keep_tied_parameters_tied():
    shared = Link(W=2)
    model = Chain(a=shared, b=shared)
    for mode in ("copy", "init"):
        clone = model.copy(mode)
        assert clone.a.W is clone.b.W


def test_share_before_initialisation_shares_afterwards():
    model = Chain(l1=Link(W=None))
    clone = model.copy("share")
    model.l1.W.initialize(3)
    assert clone.l1.W.array is model.l1.W.array
    assert clone.l1.W.grad is None


def test_unknown_mode():
    for model in models():
        with pytest.raises(ValueError, match="'other'"):
            model.copy("other")


def test_children_that_override_copy_are_asked():
    class Special(Link):
        def copy(self, mode="share"):
            clone = super().copy(mode)
            clone.copied = mode
            return clone

    assert Chain(a=Special()).copy().a.copied == "share"
    assert ChainList(Special()).copy()[0].copied == "share"


def test_repeat():
    link = linear(2, 1, 3)
    link.W.array[...] = 9
    again = link.repeat(3)
    assert isinstance(again, ChainList)
    assert [path for path, _ in again.namedparams()] == [
        f"/{index}/{name}" for index in range(3) for name in "Wb"
    ]
    assert all((copy.W.array == 3).all() for copy in again)
    assert all((copy.W.array == 9).all() for copy in link.repeat(2, "copy"))
    assert all(copy.W.array is link.W.array for copy in link.repeat(2, "share"))
    assert len(link.repeat(0)) == 0
    with pytest.raises(ValueError, match="'other'"):
        link.repeat(1, "other")
