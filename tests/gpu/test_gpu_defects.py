"""Defects seeded in the CUDA source, one at a time: the comparisons and the emulator find each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from cases import (
    AMSBOUND,
    OFFSETS,
    assert_batches_agree,
    assert_masters_agree,
    assert_prepared_steps_agree,
    assert_same_bits,
    assert_steps_agree,
    dtype_of,
    model,
    moved,
    on_gpu,
    special_values,
    values,
)
from cuda_on_cpu.cuda import precompile
from cuda_on_cpu.memory import repair_guards, state
from instantiations import PREPARES, adam_name
from stream_cases import check_scales_of_graphs

import fastadam
from fastadam.kernels.gpu import engine
from fastadam.kernels.gpu import sums as gpu_norm
from fastadam.kernels.gpu.source import SOURCE
from fastadam.kernels.plain_steps import adam_batch
from fastadam.kernels.reference import squares_reference, tree_sum
from fastadam.kernels.sums import gpu_sums, sum_of_squares, unscale
from fastadam.optimizer_hooks import GradientClipping, GradientHardClipping, Lasso, WeightDecay

FLOAT = ("float", "float", "float")
HALVES = ("float", "float16", "float16")
BRAINS = ("float", "bfloat16", "float")
PLAIN = ("false", "false")
ORDERS = ("forward", "reverse", "shuffled")


def check_steps(cupy: Any) -> None:
    for offsets in OFFSETS:
        for n in (1, 7, 17, 1030, 2049):
            assert_steps_agree(cupy, values(FLOAT, n), AMSBOUND, offsets, ts=(1, 2))
    for eps in (3e-6, 0.0):
        assert_steps_agree(cupy, special_values(FLOAT, 4000), AMSBOUND, eps=eps)


def check_large(cupy: Any) -> None:
    assert_steps_agree(cupy, values(FLOAT, 400_013), AMSBOUND, ts=(3,))


def check_halves(cupy: Any) -> None:
    assert_steps_agree(cupy, special_values(HALVES, 4000), AMSBOUND)
    assert_steps_agree(cupy, values(HALVES, 120_005), AMSBOUND, ts=(1, 2))


def check_brains(cupy: Any) -> None:
    pytest.importorskip("ml_dtypes")
    assert_steps_agree(cupy, special_values(BRAINS, 4000), AMSBOUND)


def check_many(cupy: Any) -> None:
    here = model(FLOAT, [(7 * i) % 31 for i in range(40)] + [2050, 0, 5], AMSBOUND, 3)
    there = [moved(cupy, step) for step in here]
    adam_batch(here)
    adam_batch(there)
    assert_batches_agree(there, here)


def check_prepared(cupy: Any) -> None:
    for write in (False, True):
        for scale, rate in ((None, 0.3), (3.0, 1.0), (3.0, 0.3)):
            assert_prepared_steps_agree(cupy, FLOAT, write, scale, rate)


def check_prepared_halves(cupy: Any) -> None:
    assert_prepared_steps_agree(cupy, HALVES, True, None, 0.3)


def check_masters(cupy: Any) -> None:
    assert_masters_agree(cupy, "float16", "float32")


def check_brain_masters(cupy: Any) -> None:
    pytest.importorskip("ml_dtypes")
    assert_masters_agree(cupy, "bfloat16", "float32")


def check_graph(cupy: Any) -> None:
    opts = [fastadam.Adam(alpha=0.1).setup(model_of(cupy)) for _ in range(2)]
    for opt in opts:
        opt.set_hyperparam("b", alpha=0.3)
        opt.apply_gradients(model_of(cupy), loss_scale=4.0)
    gradients, stream = model_of(cupy), cupy.cuda.Stream(non_blocking=True)
    opts[0].loss_scaling(scale=4.0)
    opts[0].apply_gradients(gradients, loss_scale=4.0)
    opts[1].apply_gradients(gradients, loss_scale=4.0)
    with stream:
        stream.begin_capture()
        opts[0].apply_gradients(gradients, loss_scale=4.0)
        graph = stream.end_capture()
        for _ in range(2):
            opts[0].prepare_replay()
            graph.launch()
            # which was not prepared
            graph.launch()
            opts[1].apply_gradients(gradients, loss_scale=4.0)
    for path, param in opts[1].parameters.items():
        assert_same_bits(opts[0].parameters[path].array, param.array.get())


def model_of(cupy: Any) -> dict[str, Any]:
    return {key: on_gpu(cupy, values(FLOAT, n)[0]) for key, n in (("a", 30), ("b", 2000))}


def check_norm(cupy: Any) -> None:
    assert_norms_agree(cupy, "float")
    # more chunks than a block has threads
    large = values(FLOAT, 300 * engine.CHUNK + 5)[0]
    assert list(sum_of_squares([on_gpu(cupy, large)])) == [squares_reference(large)]


def check_norm_of_halves(cupy: Any) -> None:
    assert_norms_agree(cupy, "float16")


def check_norm_of_doubles(cupy: Any) -> None:
    assert_norms_agree(cupy, "double")


def assert_norms_agree(cupy: Any, dtype: str) -> None:
    """Sums and quotients, from aligned addresses on and from others."""
    random = np.random.default_rng(5)
    # of many sizes, and the largest at the end or at both, so that the order of additions shows
    here = [
        random.standard_normal(n) * 10.0 ** random.uniform(-3, 2, n)
        for n in (0, 1, 3, 255, 257, *range(400, 440), 1023, 1025, 2050, 4097, 12_289)
    ]
    for i, array in enumerate(here):
        array[:: max(1, array.size - 1)][i % 2 :] = random.uniform(1e4, 3e4)
    here = [array.astype(dtype_of(dtype)) for array in here]
    here[-1][5:8] = 1e-40, -1e-40, -0.0
    expected = [squares_reference(array) for array in here]
    scales = [3.0] * len(here)
    true, sums = unscale(here, scales)
    for first in (0, 1, 3):
        there = [on_gpu(cupy, array, first) for array in here]
        assert list(sum_of_squares(there)) == expected
        ours, totals = unscale(there, scales)
        assert list(totals) == list(sums)
        for one, other in zip(ours, true, strict=True):
            assert_same_bits(one, other)


def check_tree(cupy: Any) -> None:
    """Trees of few leaves, of as many as the threads of a block make, and of several such trees."""
    random = np.random.default_rng(7)
    counts = (0, 1, 2, 15, 16, 17, 255, 4095, 4096, 4097, 3 * 4096 + 5, 5 * 4096)
    numbers = [random.uniform(0, 9, n) for n in counts]
    spans = np.zeros(len(counts), gpu_norm.SPAN)
    spans["n"] = np.multiply(counts, engine.CHUNK)
    spans["start"] = np.cumsum(counts) - counts
    spans["place"] = np.arange(len(counts))[::-1]
    on_device = on_gpu(cupy, spans.view(np.uint64))
    totals = on_gpu(cupy, np.zeros(len(counts)))
    sums = on_gpu(cupy, np.concatenate(numbers))
    engine.launch("add_chunks", (), 0, len(counts), (on_device, sums, totals))
    assert totals.get().tolist() == [tree_sum(each) for each in numbers][::-1]


def check_clip(cupy: Any) -> None:
    arrays = [np.full(1, i + 1, np.float32) for i in range(600)]
    norm = np.sqrt(float(sum((i + 1) ** 2 for i in range(600))))
    sums = gpu_sums([on_gpu(cupy, array) for array in arrays])
    assert sums is not None
    for threshold, rate in ((norm / 2, (norm / 2) / norm), (norm, 1.0), (2 * norm, 1.0)):
        assert sums.clip_rate(threshold).get().tolist() == [rate]
    infinite = gpu_sums([on_gpu(cupy, np.array([np.inf], np.float32))])
    assert infinite is not None
    assert infinite.clip_rate(1.0).get().tolist() == [1.0]


def check_bound(cupy: Any) -> None:
    sums = gpu_norm.GpuSums(2, 0)
    for norm, rate in ((0.5, 1.0), (2.0, 1.0 / (2.0 + 1e-6))):
        sums.totals.set(np.array([norm * norm, 0]))
        assert sums.bound_rate(1.0).get().tolist() == [rate]
    sums.totals.set(np.array([np.nan, 0]))
    assert np.isnan(sums.bound_rate(1.0).get()[0])


def check_hooks(cupy: Any) -> None:
    start = {"a": values(FLOAT, 5)[0], "b": values(FLOAT, 3000)[0]}
    start["b"][:50] = 0
    gradients = {"a": values(FLOAT, 5)[1], "b": values(FLOAT, 3000)[1]}
    for hook in (WeightDecay(0.03), Lasso(0.02), GradientHardClipping(-0.4, 0.6)):
        gradients["b"][60:70] = np.nan
        assert_hooks_agree(cupy, hook, start, gradients)
    gradients["b"][60:70] = 1
    assert_hooks_agree(cupy, GradientClipping(2.0), start, gradients)


def assert_hooks_agree(cupy: Any, hook: Any, start: Any, gradients: Any) -> None:
    opts = []
    for place in (lambda array: on_gpu(cupy, array), np.copy):
        opt = fastadam.Adam().setup({key: place(array) for key, array in start.items()})
        for path, param in opt.parameters.items():
            param.grad = place(gradients[path])
        opt.call_hook(hook)
        opts.append(opt)
    for path, param in opts[1].parameters.items():
        assert_same_bits(opts[0].parameters[path].grad, param.grad)


def check_lars(cupy: Any) -> None:
    n = 300
    p, g = np.random.default_rng(0).uniform(0, 9, (2, n))
    p[::5] = 0
    g[::7] = 0
    p[35] = 4.0
    sums = [gpu_norm.GpuSums(n, 0), gpu_norm.GpuSums(n, 0)]
    for one, numbers in zip(sums, (p, g), strict=True):
        one.totals.set(numbers)
    p, g = np.sqrt(p), np.sqrt(g)
    for threshold, decay, eps in ((0.5, 0.02, 1e-9), (0.0, 0.0, 0.0), (-1.0, 0.0, 0.0)):
        with np.errstate(all="ignore"):
            size = eps + g + decay * p
            rates = np.where((p > threshold) & (size != 0), p / size, 1.0)
        ours = gpu_norm.lars_rates(*sums, threshold, decay, eps).get()
        assert ours.tobytes() == rates.tobytes()


# What a check needs of the source.
ADAM = adam_name(FLOAT, AMSBOUND)
SUMS = ("squares<float, float, false, false>", "add_chunks")
NORMS = {
    dtype: tuple(f"squares<{types}, {divided}>" for divided in ("false, false", "true, true"))
    for dtype, types in (
        *(("float", "float, float"), ("float16", "float, float16")),
        ("double", "double, double"),
    )
}
CHECKS: dict[Callable[[Any], None], tuple[str, ...]] = {
    check_steps: (ADAM,),
    check_large: (ADAM,),
    check_halves: (adam_name(HALVES, AMSBOUND),),
    check_brains: (adam_name(BRAINS, AMSBOUND),),
    check_many: (ADAM,),
    check_prepared: tuple(adam_name(FLOAT, AMSBOUND, prepare) for prepare in PREPARES),
    check_prepared_halves: tuple(
        adam_name(HALVES, AMSBOUND, prepare) for prepare in ("AS_IT_IS", "WRITTEN")
    ),
    check_masters: (adam_name(FLOAT, PLAIN, masters=True),),
    check_brain_masters: (adam_name(FLOAT, PLAIN, masters=True),),
    check_graph: (*(adam_name(FLOAT, PLAIN, prepare) for prepare in PREPARES), *SUMS),
    check_scales_of_graphs: (
        *(adam_name(FLOAT, ("true", "false"), prepare) for prepare in PREPARES),
        *SUMS,
    ),
    check_norm: (*NORMS["float"], "add_chunks"),
    check_norm_of_halves: (*NORMS["float16"], "add_chunks"),
    check_norm_of_doubles: (*NORMS["double"], "add_chunks"),
    check_tree: ("add_chunks",),
    check_clip: (*SUMS, "clip_rate"),
    check_bound: ("bound_rate",),
    check_hooks: (*SUMS, "clip_rate", "change<float, float, float>"),
    check_lars: ("lars_rates",),
}


class Defect(NamedTuple):
    """What stands in the source, once, what is put in its place, and the check that tells."""

    text: str
    replacement: str
    check: Callable[[Any], None]


DEFECTS = {
    # the formula, line by line
    "m without g": Defect(
        "c.one_minus_beta1 * (g - m)", "c.one_minus_beta1 * (0 - m)", check_steps
    ),
    "m left": Defect("    m = m + c.one_minus_beta1 * (g - m);\n", "", check_steps),
    "m by beta2": Defect("m + c.one_minus_beta1", "m + c.one_minus_beta2", check_steps),
    "v left": Defect("    v = v + c.one_minus_beta2 * (g * g - v);\n", "", check_steps),
    "v of g": Defect("(g * g - v)", "(g - v)", check_steps),
    "vhat left": Defect("        vhat = vhat_i;\n", "", check_steps),
    "vhat the less": Defect("vhat_i >= v ? vhat_i : v", "vhat_i <= v ? vhat_i : v", check_steps),
    "vhat forgets NaN": Defect("vhat_i != vhat_i ? vhat_i : larger", "larger", check_steps),
    "vhat not flushed": Defect("vhat_i = vhat + (T)0", "vhat_i = vhat", check_steps),
    "eps under the root": Defect("root(vhat_i) + c.eps", "root(vhat_i + c.eps)", check_steps),
    "no root": Defect("root(vhat_i) + c.eps", "vhat_i + c.eps", check_steps),
    "no lower bound": Defect("step >= c.lower ? step : c.lower", "step", check_steps),
    "no upper bound": Defect("step <= c.upper ? step : c.upper", "step", check_steps),
    "bounds eat NaN": Defect("step != step ? step : larger", "larger", check_steps),
    "upper eats NaN": Defect("step != step ? step : smaller", "smaller", check_steps),
    "another order": Defect("c.eta * (step * m)", "c.eta * step * m", check_steps),
    "no eta": Defect("c.eta * (step * m)", "step * m", check_steps),
    "no decay": Defect("c.one_minus_decay * p -", "p -", check_steps),
    "swapped scalars": Defect(
        "alpha_t, one_minus_beta1,", "one_minus_beta1, alpha_t,", check_steps
    ),
    # the walk
    "no tail": Defect("i < n - packs * N; i", "i < head; i", check_steps),
    "off by one at the end": Defect("i < n - packs * N; i", "i <= n - packs * N; i", check_steps),
    "a pack too few": Defect("i < packs; i", "i + 1 < packs; i", check_steps),
    "threads skipped": Defect(
        "i < packs; i += U * THREADS", "i < packs; i += 2 * U * THREADS", check_large
    ),
    "head ignored": Defect("head + i * N, (packs", "i * N, (packs", check_steps),
    "tail at the head": Defect("i < head ? i : i + packs * N", "i", check_steps),
    "second packs left": Defect("u < U && u < left", "u < 1", check_halves),
    "second packs counted too few": Defect(
        "(packs - i + THREADS - 1) / THREADS", "(packs - i) / THREADS", check_halves
    ),
    "second packs beside the first": Defect(
        "u < left ? i + u * M * THREADS : i", "u < left ? i + u * M : i", check_halves
    ),
    "second packs beside the first, stored": Defect(
        "            const unsigned at = i + u * M * THREADS;\n            store",
        "            const unsigned at = i + u * M;\n            store",
        check_halves,
    ),
    "alignment unchecked": Defect("(size_t)x % alignof(Pack<X, N>) == 0", "true", check_steps),
    "m's alignment": Defect(" && aligned<N>(m + head)", "", check_steps),
    "v's alignment": Defect("aligned<N>(v + head) && ", "", check_steps),
    "vhat's alignment": Defect("(!AMSGRAD || aligned<N>(vhat + head))", "true", check_steps),
    # the tables
    "m is v": Defect("*m = at<T>(tensor.m, first)", "*m = at<T>(tensor.v, first)", check_steps),
    "blocks overlap": Defect(
        "(blockIdx.x - tensor.start) * chunk;\n    const unsigned n = tensor",
        "(blockIdx.x - tensor.start) * (chunk - 16);\n    const unsigned n = tensor",
        check_many,
    ),
    "everybody's scalars": Defect("scalars.rows[tensor.row]", "scalars.rows[0]", check_many),
    **{
        f"{name} not stored": Defect(f"store<M>({name} + at, {name}_i[u]);", ";", check_steps)
        for name in ("p", "m", "v", "vhat")
    },
    # half types
    "ties away": Defect("0xfffu + (finite >> 13 & 1u)", "0x1000u", check_masters),
    "truncated": Defect("0xfffu + (finite >> 13 & 1u)", "0", check_halves),
    "float16 infinity": Defect("magnitude < (143u << 23) ?", "true ?", check_halves),
    "float16 subnormal": Defect("if (magnitude < (113u << 23))", "if (false)", check_halves),
    "float16 NaN": Defect("        rounded = 0x7e00u;", "        ;", check_halves),
    "wide infinity": Defect("if (magnitude >= 0x7c00u)", "if (false)", check_halves),
    "wide subnormal": Defect("if (magnitude < 0x400u)", "if (false)", check_halves),
    "sign lost": Defect(
        "out.bits = sign | rounded;\n#endif", "out.bits = rounded;\n#endif", check_halves
    ),
    "bfloat16 ties": Defect("0x7fffu + ((magnitude >> 16) & 1u)", "0x8000u", check_brain_masters),
    "bfloat16 NaN": Defect("magnitude > 0x7f800000u ? 0x7fc00000u :", "", check_brains),
    # masters
    "masters do not follow": Defect("if (rounded.bits != written)", "if (false)", check_masters),
    "masters forget": Defect("if (rounded.bits != written)", "if (true)", check_masters),
    "halves not rounded": Defect("store<M>(half + at, half_i[u]);", ";", check_masters),
    "no masters": Defect("MASTERS && tensor.half", "false", check_masters),
    "nothing but masters": Defect("MASTERS && tensor.half", "MASTERS", check_masters),
    "types of halves": Defect(
        "half_type == FLOAT16 ? rounded", "half_type != FLOAT16 ? rounded", check_masters
    ),
    "follow another type": Defect(
        "half_type == FLOAT16 ? follow", "half_type != FLOAT16 ? follow", check_masters
    ),
    # gradients prepared on the way
    "not divided": Defect(
        "    if (scale != 0)\n        return widen(g)",
        "    if (false)\n        return widen(g)",
        check_prepared,
    ),
    "not multiplied": Defect("widen(g) / scale * rate", "widen(g) / scale", check_prepared),
    "multiplied first": Defect(
        "widen(g) / scale * rate", "widen(g) * rate / scale", check_prepared
    ),
    "prepared never": Defect("if (PREPARE != AS_IT_IS)", "if (false)", check_prepared),
    "not written": Defect("store<M>(g + at, g_i[u]);", ";", check_prepared),
    "clipped wide": Defect(
        "    return widen(clipped);", "    return widen(g) * rate;", check_prepared_halves
    ),
    # graphs
    "scalars of the capture": Defect("    if (replayed)\n", "    if (false)\n", check_graph),
    "steps that are not due": Defect(
        "    if (replayed && replayed->due == 0)\n        return;\n", "", check_graph
    ),
    "another scale than the capture's": Defect(
        "const T scale = scalars.scale;",
        "const T scale = replayed ? replayed->scale : scalars.scale;",
        check_scales_of_graphs,
    ),
    # sums
    "squares in float32": Defect(
        "__fma_rn((double)g, (double)g, lane)", "lane + (double)(g * g)", check_norm
    ),
    "squares contracted": Defect(
        "return lane + g * g;", "return __fma_rn(g, g, lane);", check_norm_of_doubles
    ),
    "times the inverse": Defect("g_j = g_j / divisor", "g_j = g_j * ((T)1 / divisor)", check_norm),
    "quotients of another sign": Defect(
        "T g_j = widen(g.x[j]);", "T g_j = widen(g.x[j]) + (T)0;", check_norm
    ),
    "quotients not written": Defect("store<N>(out, quotients);", ";", check_norm),
    "quotients at the start": Defect(
        "add_one(load<1>(g + i), divisor, out + i, lanes + j)",
        "add_one(load<1>(g + i), divisor, out, lanes + j)",
        check_norm,
    ),
    "elements before the packs": Defect("N - j <= head", "false", check_norm),
    "places before the packs": Defect("lanes + (HELD - N + j)", "lanes + j", check_norm),
    "elements after the packs": Defect("j % N < tail", "false", check_norm),
    "an element too many": Defect("j % N < tail", "j % N <= tail", check_norm),
    "places after the packs": Defect("j / N * N == next", "j / N * N == 0", check_norm_of_doubles),
    "threads after the packs": Defect("thread == packs % WARP &&", "thread == 0 &&", check_norm),
    "packs at the end": Defect(
        "    if (pack < packs)\n        some", "    if (false)\n        some", check_norm
    ),
    "packs that are not there": Defect(
        "        if (ALL || pack + u * WARP < packs)\n", "", check_norm
    ),
    "packs of other lanes": Defect("lanes + u * N % HELD", "lanes", check_norm),
    "lanes of a thread": Defect(
        "half = HELD / 2; half >= N", "half = HELD / 4; half >= N", check_norm
    ),
    "lanes that are neighbours": Defect(
        "half = N / 2; half", "half = N / 4; half", check_norm_of_halves
    ),
    "half of the threads": Defect("half = WARP / 2; half", "half = WARP / 4; half", check_norm),
    "folded by neighbours": Defect("lanes[j], half)", "lanes[j], WARP / 2 / half)", check_norm),
    "half of a warp shuffles": Defect("0xffffffffu, lanes", "0xffffu, lanes", check_norm),
    "chunks of other warps": Defect("blockIdx.x * (THREADS / WARP) +", "blockIdx.x +", check_norm),
    "chunks that are not there": Defect("if (chunk >= n_chunks)", "if (false)", check_norm),
    "a chunk too few": Defect("if (chunk >= n_chunks)", "if (chunk + 1 >= n_chunks)", check_norm),
    "alignment of quotients": Defect("(!WRITTEN || aligned<N>(out + head))", "true", check_norm),
    "never aligned together": Defect("if (WRITTEN && head == N)", "if (false)", check_norm),
    "chunks added before they are there": Defect(
        "            __syncthreads();\n            if (threadIdx.x % (2 * width) == 0)",
        "            if (threadIdx.x % (2 * width) == 0)",
        check_tree,
    ),
    "overwritten while read": Defect(
        "        ++subtrees;\n        __syncthreads();", "        ++subtrees;", check_tree
    ),
    "a subtree less": Defect(
        "first < n; first += THREADS", "first + 1 < n; first += THREADS", check_tree
    ),
    "chunks folded by halves": Defect(
        "if (threadIdx.x % (2 * width) == 0)", "if (threadIdx.x < THREADS / 2 / width)", check_tree
    ),
    "neighbours far away": Defect(
        "i += 2 * width)\n            nodes[i] = nodes[i] + nodes[i + width];",
        "i += 2 * width)\n            nodes[i] = nodes[i] + nodes[AT_ONCE - i - 1];",
        check_tree,
    ),
    "missing chunks": Defect(
        "first + i < n ? numbers[first + i] : 0", "numbers[first + i]", check_tree
    ),
    "subtrees one after the other": Defect(
        "for (; subtrees >> level & 1; ++level)",
        "for (; subtrees >> level & 0; ++level)",
        check_tree,
    ),
    "clipped always": Defect("threshold < norm && norm", "norm", check_clip),
    "nothing added to the norm": Defect(" + 1e-6);", ");", check_bound),
    "NaN bounded": Defect("factor >= 1 ? 1.0 : factor", "factor < 1 ? factor : 1.0", check_bound),
    "infinity clipped": Defect(" && norm < 1.0 / 0.0", "", check_clip),
    # hooks
    "decay not added": Defect("return (g + a * p) * b", "return g * b", check_hooks),
    "sign of 0": Defect("x == 0 ? (T)0 : x", "(T)1", check_hooks),
    "no sign": Defect("return g + a * sign(p)", "return g + a * p", check_hooks),
    "clipped below only": Defect("        larger = larger < b ? larger : b;\n", "", check_hooks),
    "clipped above only": Defect("T larger = g > a ? g : a", "T larger = g", check_hooks),
    "clipping eats NaN": Defect("return g != g ? g : larger", "return larger", check_hooks),
    "not multiplied at all": Defect(
        "    // g = g * b\n    return g * b;", "    return g;", check_hooks
    ),
    "rates ignored": Defect("(rates ? rates[row.place] : row.b)", "row.b", check_hooks),
    "lars for all": Defect("p_norm > threshold && size", "size", check_lars),
    "lars of nothing": Defect("threshold && size != 0", "threshold", check_lars),
    "lars without decay": Defect(" + weight_decay * p_norm;", ";", check_lars),
    "one block of rates": Defect(
        "(size_t)blockIdx.x * THREADS + threadIdx.x;\n    if", "threadIdx.x;\n    if", check_lars
    ),
}


@pytest.fixture
def restored(stand_in: Any) -> Iterator[None]:
    """Leave guards and kernels as other tests want them."""
    yield
    engine.forget()
    repair_guards()


def run(cupy: Any, check: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a check in every order of threads."""
    for order in ORDERS:
        monkeypatch.setattr(state, "order", order)
        check(cupy)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_source_passes(stand_in: Any, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run(stand_in, check, monkeypatch)


def defects() -> list[Any]:
    """List the defects. Each is compiled: all but the first of each check are slow."""
    first = {defect.check: name for name, defect in reversed(DEFECTS.items())}.values()
    return [pytest.param(name, marks=() if name in first else pytest.mark.slow) for name in DEFECTS]


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("name", defects())
def test_defects(stand_in: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    defect = DEFECTS[name]
    assert SOURCE.count(defect.text) == 1, "the defect is to be moved along with the source"
    broken = SOURCE.replace(defect.text, defect.replacement)
    precompile(broken, CHECKS[defect.check])
    monkeypatch.setattr(engine, "SOURCE", broken)
    engine.forget()
    with pytest.raises((AssertionError, RuntimeError, MemoryError)):
        run(stand_in, defect.check, monkeypatch)


@pytest.mark.parametrize("kernel", engine.KERNELS)
def test_declared_lists_of_another_width(
    stand_in: Any, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number declared too wide or too narrow, and two that have changed places, are refused."""
    check = {"adam": check_many, "squares": check_norm, "add_chunks": check_norm}.get(kernel)
    check = check or {
        "clip_rate": check_clip,
        "bound_rate": check_bound,
        "change": check_hooks,
    }.get(kernel, check_lars)
    declared = engine.KERNELS[kernel]
    wrong = {np.dtype(np.uint32): np.dtype(np.uint64), np.dtype(np.uint64): np.dtype(np.uint32)}
    for i, kind in enumerate(declared):
        if isinstance(kind, str):
            continue
        other = wrong.get(kind, np.dtype(np.float32))
        monkeypatch.setitem(engine.KERNELS, kernel, (*declared[:i], other, *declared[i + 1 :]))
        with pytest.raises(TypeError, match=f"argument {i} is"):
            check(stand_in)
    if len(set(declared)) > 1:
        monkeypatch.setitem(engine.KERNELS, kernel, (*declared[1:], declared[0]))
        with pytest.raises((TypeError, ValueError, AttributeError)):
            check(stand_in)
    monkeypatch.setitem(engine.KERNELS, kernel, declared[:-1])
    with pytest.raises(ValueError, match="longer"):
        check(stand_in)
