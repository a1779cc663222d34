"""The mutants: each breaks the library in one place, which a test must notice.

``run_mutants.py`` tries them. What is no mistake, because nobody could tell it, is no mutant.
"""

from __future__ import annotations

from typing import NamedTuple

LOOPS = "fastadam/kernels/cpu/_step.pyx"
SCALARS = "fastadam/algorithms/_coefficients.pyx"
CONSTANTS = "fastadam/algorithms/coefficients.py"
HYPERS = "fastadam/algorithms/algorithm.py"
NUMBER = "fastadam/algorithms/number.py"
ADAM = "fastadam/algorithms/adam.py"
GATE = "fastadam/optimizers/gate.py"
HYPERPARAMETER = "fastadam/update/hyperparameter.py"
PATHS = "fastadam/update/parameter_table.py"
KERNEL_STEP = "fastadam/kernels/multi_tensor.py"
REFERENCE = "fastadam/kernels/reference.py"
ROWS = "fastadam/kernels/table.py"
ARRAYS = "fastadam/kernels/arrays.py"
MEMORY = "fastadam/kernels/memory.py"
SINGLE = "fastadam/kernels/cpu/_single.pyx"
HALF = "fastadam/kernels/cpu/_half.pxi"
NORM = "fastadam/kernels/cpu/_norm.pxi"
OPS = "fastadam/kernels/cpu/_ops.pxi"
MODE = "fastadam/kernels/cpu/_mode.pxi"
WALK = "fastadam/kernels/cpu/_walk.pxi"
AXES = "fastadam/kernels/cpu/_walks.pyx"
TABLE = "fastadam/kernels/cpu/_tensors.pyx"
DTYPES = "fastadam/kernels/dtypes.py"
PASS = "fastadam/kernels/sums.py"
RULE = "fastadam/optimizers/adam_rule.py"
METHOD = "fastadam/update/gradient_method.py"
MAKING = "fastadam/update/making.py"
LAYOUT = "fastadam/kernels/cpu/_layout.pyx"
READ = "fastadam/kernels/cpu/_rows.pyx"
RUN = "fastadam/kernels/cpu/_steps.pyx"
SOURCE = "fastadam/update/_rule_source.pyx"
STEPS = "fastadam/update/rule_steps.py"
NOTED = "fastadam/kernels/_noted.pyx"
GROUPS = "fastadam/update/_scalars.pyx"
PLAN = "fastadam/update/plan.py"
FOLDED = "fastadam/update/folded.py"
OF_ALL = "fastadam/model/_gradients.pyx"
BASE = "fastadam/update/rule.py"
SCALING = "fastadam/update/loss_scale.py"
LOOK = "fastadam/update/gradients.py"
MASTER = "fastadam/update/master.py"
TARGET = "fastadam/update/target.py"
TREE = "fastadam/update/_tree.pyx"
FROZEN = "fastadam/update/frozen.py"
PARAMETER = "fastadam/model/parameter.py"
HOOKS = "fastadam/optimizer_hooks/"
CROWD = "fastadam/kernels/cpu/_late_steps.pyx"
THREADS = "fastadam/kernels/cpu/_threads.pyx"
FILES = "fastadam/files"
COMMIT = "fastadam/kernels/_commit.pyx"
PREPARED = "fastadam/serializers/prepared.py"
STATES = "fastadam/update/state_loading.py"
LOADED = "fastadam/checkpoint/optimizer_loading.py"
RENAMING = "fastadam/checkpoint/renaming.py"
LOADING = "fastadam/checkpoint/loading.py"
FILE_SOURCE = "fastadam/checkpoint/source.py"
WRITTEN = "fastadam/kernels/cpu/_written.pyx"
DOOR = "fastadam/kernels/cpu/_door.pyx"
KEPT = "fastadam/update/rule_state.py"
IN_TREES = "fastadam/update/paths.py"
RULED = "fastadam/update/ruled.py"
SCALE_FILES = "fastadam/update/loss_scale_files.py"
OF_GROUPS = "fastadam/torch/groups.py"
BOUNDED = "fastadam/torch/bounded.py"
TENSOR_PLAN = "fastadam/torch/plan.py"
TENSOR_STATES = "fastadam/torch/states.py"
BOUNDS = "fastadam/torch/clipping.py"
STEPPING = "fastadam/torch/stepping.py"
IN_BACKWARD = "fastadam/torch/backward.py"
IN_MODULES = "fastadam/torch/module.py"
IN_TENSORS = "fastadam/torch/_tensors.pyx"
READING = "fastadam/torch/_reading.pyx"
UNCHANGED = "fastadam/torch/_unchanged.pxi"
ON_A_GPU = "fastadam/torch/_rows_on_gpu.pxi"
OF_TENSORS = "fastadam/torch/tensors.py"
TENSORS_ON_GPU = "fastadam/torch/gpu_plan.py"


class Mutant(NamedTuple):
    """A name, a file, the text that stands there and what replaces it (once)."""

    name: str
    file: str
    text: str
    replacement: str


MUTANTS = [
    # loads: effects, setters, states
    Mutant("sources overwritten", COMMIT, "        self.untangle()\n", ""),
    Mutant(
        "old values dropped", COMMIT, "Py_INCREF(<object> effect.old)\n                Py", "Py"
    ),
    Mutant("new keys stay", COMMIT, "                    self.take_out(i)\n", ""),
    Mutant("copies unchecked", COMMIT, "not same_shape(target, source) or ", ""),
    Mutant(
        "setters not taken back",
        PREPARED,
        "            if not self._effects.committed:\n                _take_back(undos, error)\n",
        "",
    ),
    Mutant(
        "counts of any kind", PREPARED, "0 <= operator.index(count) <=", "operator.index(count) <="
    ),
    Mutant(
        "states that overlap", STATES, "            if apart and key in", "            if key in"
    ),
    Mutant("first alpha kept", LOADED, 'prepared.remove_attribute(rule, "initial_alpha")', "pass"),
    Mutant("names of any kind", LOADED, "        elif name in known:\n", "        elif name:\n"),
    Mutant("two that become one", RENAMING, "        if name in found:", "        if False:"),
    Mutant(
        "names that fit are said to differ", RENAMING, "if old and not old <= new and", "if old and"
    ),
    Mutant(
        "names of a parameter's link",
        FILE_SOURCE,
        'key.removeprefix(section).rpartition("/")[0] for key',
        'key.removeprefix(section).partition("/")[0] for key',
    ),
    Mutant("hooks in silence", LOADING, "    _warn_of_hooks(source.where, report)\n", ""),
    # the formula
    Mutant("m grows", LOOPS, "(g[i] - m[i])", "(g[i] + m[i])"),
    Mutant("m by beta2", LOOPS, "one_minus_beta1 * (g[i]", "one_minus_beta2 * (g[i]"),
    Mutant("v by beta1", LOOPS, "one_minus_beta2 * (g[i]", "one_minus_beta1 * (g[i]"),
    Mutant("betas swapped", SCALARS, "1.0 - beta1,", "1.0 - beta2,"),
    Mutant("v of g*m", LOOPS, "(g[i] * g[i] - v[i])", "(g[i] * m_i - v[i])"),
    Mutant("v never decays", LOOPS, "(g[i] * g[i] - v[i])", "(g[i] * g[i])"),
    Mutant("m not stored", LOOPS, "        m[i] = m_i\n", ""),
    Mutant("v not stored", LOOPS, "        v[i] = v_i\n", ""),
    Mutant("vhat is the minimum", LOOPS, "vhat_i >= v_i", "vhat_i <= v_i"),
    Mutant("vhat drops NaN", LOOPS, "vhat_i if vhat_i != vhat_i else larger", "larger"),
    Mutant("vhat not flushed", LOOPS, "vhat[i] + zero", "vhat[i]"),
    Mutant("vhat not stored", LOOPS, "            vhat[i] = vhat_i\n", ""),
    Mutant("no eps", LOOPS, "sqrtf(vhat_i) + eps", "sqrtf(vhat_i)"),
    Mutant("no root", LOOPS, "(sqrt(vhat_i) + eps)", "(vhat_i + eps)"),
    Mutant("no lower bound", LOOPS, "step if step >= lower else lower", "step"),
    Mutant("no upper bound", LOOPS, "step if step <= upper else upper", "step"),
    Mutant("clip drops NaN", LOOPS, "step if step != step else smaller", "smaller"),
    Mutant("no decay", LOOPS, "one_minus_decay * p[i]", "p[i]"),
    Mutant("no eta", LOOPS, "eta * (step * m_i)", "(step * m_i)"),
    Mutant("another order", LOOPS, "eta * (step * m_i)", "(eta * step) * m_i"),
    Mutant("variants swapped", LOOPS, "c, n, True, False", "c, n, False, True"),
    # the ranges, the flushing
    Mutant("last element left out", LOOPS, "for i in range(n):", "for i in range(n - 1):"),
    Mutant(
        "ranges overlap",
        LOOPS,
        "max(begin - tensors[k].start, 0)",
        "max(begin - tensors[k].start - 1, 0)",
    ),
    Mutant("one row for all", LOOPS, "tensor.row * N_COEFFICIENTS", "0"),
    Mutant(
        "wrong first tensor",
        LOOPS,
        "tensors[middle].start <= begin",
        "tensors[middle].start <= begin + 20",
    ),
    Mutant("float32 not flushed", MODE, "saved | 0x8040u", "saved"),
    Mutant("results only flushed", MODE, "saved | 0x8040u", "saved | 0x8000u"),
    Mutant(
        "flushing left on",
        MODE,
        '"ldmxcsr %0" : : "m"(saved)',
        '"ldmxcsr %0" : : "m"((unsigned int){0x9fc0u})',
    ),
    Mutant("flushed before rounding", REFERENCE, "2.0**-126 - 2.0**-151", "2.0**-126"),
    Mutant("rounded to subnormal", REFERENCE, "- 2.0**-151", "- 2.0**-150"),
    Mutant("contraction", "setup.py", "-ffp-contract=off", "-ffp-contract=fast"),
    # half-precision numbers
    Mutant("float16 truncated", HALF, " + 0xfff + ((finite >> 13) & 1)", ""),
    Mutant("float16 ties go up", HALF, "0xfff + ((finite >> 13) & 1)", "0x1000"),
    Mutant("bfloat16 truncated", HALF, " + 0x7fff + ((magnitude >> 16) & 1)", ""),
    Mutant("bfloat16 ties go up", HALF, "0x7fff + ((magnitude >> 16) & 1)", "0x8000"),
    Mutant("float16 wraps around", HALF, "min(magnitude, <int> FLOAT16_INFINITE)", "magnitude"),
    Mutant(
        "float16 NaN becomes infinity",
        HALF,
        "choose(magnitude > INFINITE, 0x7c00 |",
        "choose(False, 0x7c00 |",
    ),
    Mutant(
        "float16 infinity becomes NaN",
        HALF,
        "choose(magnitude > INFINITE, 0x7c00 |",
        "choose(magnitude >= INFINITE, 0x7c00 |",
    ),
    Mutant(
        "bfloat16 NaN wraps around",
        HALF,
        "choose(magnitude > INFINITE, 0x7fc0, rounded)",
        "rounded",
    ),
    Mutant("narrow subnormals as normals", HALF, "magnitude < FLOAT16_NORMAL", "magnitude < 0"),
    Mutant("subnormals begin late", HALF, "113 << 23", "112 << 23"),
    Mutant("widen subnormals as normals", HALF, "magnitude < 0x400", "magnitude < 0"),
    Mutant("widen the greatest subnormal", HALF, "magnitude < 0x400", "magnitude <= 0x3fe"),
    Mutant("widen infinity as a number", HALF, "magnitude >= 0x7c00", "magnitude > 0x7fff"),
    Mutant("widen without sign", HALF, "fastadam_float(sign | bits)", "fastadam_float(bits)"),
    Mutant("narrow without sign", HALF, "<short> (sign | rounded)", "<short> rounded"),
    Mutant(
        "narrow bfloat16 without sign",
        HALF,
        "<unsigned short> (sign | rounded)",
        "<unsigned short> rounded",
    ),
    # which loop for which types
    Mutant("bfloat16 as float16", LAYOUT, "return BFLOAT16 if", "return FLOAT16 if"),
    Mutant("gradient as the parameter", LOOPS, "widen(tensor.g_type,", "widen(tensor.p_type,"),
    Mutant(
        "mixed half types in one loop",
        LAYOUT,
        "tensor.p_type == COMPUTING or tensor.g_type in (COMPUTING, WIDE, tensor.p_type)",
        "True",
    ),
    Mutant("float64 gradients from the start", LOOPS, "tensor.g + 8 * first", "tensor.g"),
    Mutant(
        "float64 rounded where it flushes",
        HALF,
        "fastadam_flush_off()\n    for i",
        "fastadam_flush_on()\n    for i",
    ),
    Mutant(
        "float64 gradients as their roundings",
        READ,
        "        self.converted |= row.g_type == WIDE\n",
        "",
    ),
    Mutant("half gradients of float64", LAYOUT, "if computing != cnp.NPY_FLOAT32:", "if False:"),
    Mutant("layout in bytes", LAYOUT, "* cnp.PyArray_ITEMSIZE(p)\n", "* 1\n"),
    Mutant("misaligned pointers", LAYOUT, "cnp.PyArray_ISBEHAVED_RO(a)", "True"),
    Mutant("extents of half types", WRITTEN, "high[0] += cnp.PyArray_ITEMSIZE(a)", "high[0] += 4"),
    Mutant(
        "state of the parameter's dtype",
        DTYPES,
        "return _FLOAT32 if is_half(native)",
        "return native if is_half(native)",
    ),
    Mutant("byte order matters", DTYPES, 'native = dtype.newbyteorder("=")', "native = dtype"),
    # the gradient pass
    Mutant("a lane too few", NORM, "LANES = 256", "LANES = 128"),
    Mutant("shorter chunks", NORM, "CHUNK = 4096", "CHUNK = 2048"),
    Mutant("squares in float32", NORM, "<double> g_i * <double> g_i", "g_i * g_i"),
    Mutant(
        "folded by neighbours",
        NORM,
        "lanes[i] + lanes[i + width]",
        "lanes[2 * i] + lanes[2 * i + 1]",
    ),
    Mutant(
        "subnormal squares", NORM, "saved = fastadam_flush_on()", "saved = fastadam_flush_off()"
    ),
    Mutant("mode of the norm left on", NORM, "  fastadam_flush_restore(saved)\n", "  pass\n"),
    Mutant(
        "subnormal scaled gradients", NORM, "flushed(flushed(g_i) / scale)", "flushed(g_i / scale)"
    ),
    Mutant(
        "subnormal quotients",
        NORM,
        "flushed(g_i * scale) if inverse else flushed(flushed(g_i) / scale)",
        "g_i * scale if inverse else flushed(g_i) / scale",
    ),
    Mutant("flushed without sign", OPS, "copysignf(0, x) if", "0 if"),
    Mutant("by the reciprocal", NORM, "flushed(g_i) / scale", "flushed(g_i) * (1 / scale)"),
    Mutant("quotient not written", NORM, "out[i] = g_i", "pass"),
    Mutant(
        "squares of the scaled gradient",
        NORM,
        "        if unscale:\n",
        "        if unscale and write:\n",
    ),
    Mutant(
        "wrong first gradient", NORM, "gradients[middle].start <= k", "gradients[middle].start < k"
    ),
    Mutant("norm of half types as float32", NORM, "if gradient.g_type != COMPUTING:", "if False:"),
    Mutant("one scale for all", PASS, "float(scales[i])", "float(scales[0])"),
    Mutant(
        "chunks of another tree",
        NORM,
        "node = tree.waiting[level] + node",
        "node = node if level else tree.waiting[level] + node",
    ),
    Mutant("the last row left out", NORM, "scale, n - begin, unscale", "scale, 0, unscale"),
    Mutant(
        "groups in no tree",
        NORM,
        "            grow(&tree, sums[k])\n",
        "            if not tree.n_leaves:\n                grow(&tree, 0)\n"
        "            tree.waiting[0] += sums[k]\n",
    ),
    Mutant(
        "the tree without its top",
        NORM,
        "while tree.n_leaves >> level:",
        "while tree.n_leaves >> level + 1:",
    ),
    Mutant("a group of another size", NORM, "GROUP = 4", "GROUP = 3"),
    Mutant("norms one after the other", PASS, "engine.tree_sum(squares)", "sum(squares)"),
    Mutant("strided in the order of memory", PASS, 'order="K" if whole else "C"', 'order="K"'),
    Mutant("infinite norm", PASS, "if total == math.inf and", "if False and"),
    # the scalars
    Mutant("no correction of beta2", SCALARS, "* sqrt(correction2) / correction1", "/ correction1"),
    Mutant(
        "no correction of beta1",
        SCALARS,
        "sqrt(correction2) / correction1",
        "sqrt(correction2)",
    ),
    Mutant("eps_mode ignored", CONSTANTS, 'found["eps_mode"] == "paper"', "False"),
    Mutant("decay_mode ignored", CONSTANTS, 'if found["decay_mode"] == "alpha":', "if False:"),
    Mutant("decay without eta", CONSTANTS, 'decay = found["eta"] * found', "decay = found"),
    # the gates of numbers and names
    Mutant("range unchecked", HYPERS, "if not self.low <= found <= self.high:", "if False:"),
    Mutant("decay of more than all", ADAM, "if rate > 1 or eta * rate > 1:", "if rate > 1:"),
    Mutant("masked numbers", NUMBER, "np.ma.is_masked(value)", "False"),
    Mutant("digits are a number", NUMBER, "or isinstance(value, str | bytes)", ""),
    Mutant("hyperparameters of any name", GATE, "elif not (self.free or", "elif not (True or"),
    Mutant("bag without its gate", HYPERPARAMETER, "self._gate(self, name, value)", "pass"),
    Mutant("path is a glob", PATHS, "elif which in self:", "elif False:"),
    Mutant("alpha of float32 unchecked", ADAM, '        ("alpha_t", "alpha"),\n', ""),
    Mutant("bounds swapped", SCALARS, "return lower, upper", "return upper, lower"),
    Mutant(
        "bounds ignore schedules",
        SCALARS,
        "    final = final_lr * alpha / initial_alpha",
        "    final = final_lr",
    ),
    # the batch and the order of an update
    Mutant(
        "aliased gradients",
        READ,
        "if grad is not None and written.has_part(grad):",
        "if False:",
    ),
    Mutant(
        "overlaps ignored",
        KERNEL_STEP,
        "self._serial = reach_into_another(params)",
        "self._serial = False",
    ),
    Mutant("eps unchecked", ARRAYS, "if eps != 0 and", "if False and"),
    Mutant(
        "others left out",
        READ,
        "        self.table[i].n = cnp.PyArray_SIZE(<cnp.ndarray> <object> found.p)\n",
        "",
    ),
    Mutant(
        "t is behind",
        GROUPS,
        "group.at(ts[group.place] + 1)",
        "group.at(max(ts[group.place], 1))",
    ),
    Mutant("t not counted", SOURCE, "following = last + 1", "following = last"),
    Mutant("overrides ignored", STEPS, "        for bag in own\n", "        for bag in own[:0]\n"),
    Mutant("initial alpha follows", RULE, 'if not self.__dict__.get("initial_alpha"):', "if True:"),
    Mutant("rule hooks forgotten", RULE, "if self._hooks or not", "if not"),
    Mutant("disabled rules run", PLAN, "not is_updated(param)", "False"),
    Mutant("frozen parameters run", FROZEN, 'not getattr(param, "frozen", False)', "True"),
    Mutant("frozen parameters are not noticed", STEPS, '"update", "frozen"', '"update"'),
    Mutant("thawed parameters are not noticed", PLAN, '"update", "frozen"', '"update"'),
    Mutant("states keep their dtype", KEPT, "{**state, **cast}", "state"),
    Mutant("no zero gradients", METHOD, "param.grad = zeros_like(param.array)", "pass"),
    Mutant("no pre hooks", MAKING, 'self._call_hooks("pre", pre)', "None"),
    Mutant("no post hooks", MAKING, 'self._call_hooks("post", self.post)', "None"),
    Mutant("epoch's t", MAKING, '"t": t + 1,\n', '"t": t + 2,\n'),
    Mutant("t stays after a refusal", MAKING, 'noted if applied else {"t": t}', "noted"),
    Mutant("rule t stays after a refusal", BASE, "            self.t = t\n", "            pass\n"),
    Mutant(
        "lent gradients kept",
        MAKING,
        "clear_all(params)\n\n    def _refuse",
        "pass\n\n    def _refuse",
    ),
    # who is updated, and who is said to have been
    Mutant("a shared rule in the batch", PLAN, " and id(rule) not in taken", ""),
    Mutant("batches unchecked", PLAN, "                group.check()\n", "                pass\n"),
    Mutant("singles unchecked", PLAN, "                single.check()\n", "                pass\n"),
    Mutant("several checked as one", PLAN, "self._pieces == 1 and", "True and"),
    # arrays that share memory
    Mutant("states overlap", ARRAYS, '[key == "array" for', "[True for"),
    Mutant("none may share", ARRAYS, '[key == "array" for', "[False for"),
    Mutant("rings too long", MEMORY, "math.gcd(", "max("),
    Mutant("the end of a ring", MEMORY, "while ring and len(found) > 1 and", "while False and"),
    Mutant(
        "runs without what is within",
        MEMORY,
        "self.run + sum(stride * (n - 1) for stride, n in self.steps[:inner])",
        "self.run",
    ),
    Mutant("all in one cluster", MEMORY, "parts = _split(cluster, kept)", "parts = [cluster]"),
    Mutant("pairs in any order", MEMORY, "return min(found, key=", "return max(found, key="),
    Mutant(
        "gradient in m",
        READ,
        "if k != GRADIENT and array is not None:",
        "if k != GRADIENT and k != STATE and array is not None:",
    ),
    Mutant("masked arrays", LAYOUT, "or masked(array)", ""),
    Mutant("gradients of others", PLAN, "copied = copy_shared_gradients(", "copied = list("),
    Mutant("frozen state", PLAN, "and len(self.paths) == len(self.params)", ""),
    Mutant(
        "bad parameter at setup", METHOD, "param.update_rule._check_parameter(path, param)", "pass"
    ),
    Mutant("all are said to be done", PLAN, " if path in self._applied or old != new)", ")"),
    Mutant("nobody is said to be done", PLAN, "self._applied or old != new)\n", "self._applied)\n"),
    Mutant(
        "done in any order",
        PLAN,
        "rows = zip(self.paths, before, self._counts(), strict=True)",
        "rows = sorted(zip(self.paths, before, self._counts(), strict=True), reverse=True)",
    ),
    # loss scaling
    Mutant(
        "static stays dynamic",
        SCALING,
        "self._loss_scale = scale\n            self._loss_scaling_is_dynamic = False\n",
        "self._loss_scale = scale\n",
    ),
    Mutant(
        "none stays dynamic",
        SCALING,
        "self._loss_scale = None\n        self._loss_scaling_is_dynamic = False\n",
        "self._loss_scale = None\n",
    ),
    Mutant("interval ignored", SCALING, "math.pow(2.0, 1.0 / updates)", "2.0"),
    Mutant("interval of NaN", SCALING, "if not updates >= 1:", "if updates < 1:"),
    Mutant("infinite scale", NUMBER, "if not 0 < found < math.inf:", "if not 0 < found:"),
    Mutant("scale of float32", NUMBER, "if not least <= found <= greatest:", "if False:"),
    Mutant(
        "left scale", MAKING, "            optimizer._check_left_scales()\n", "            pass\n"
    ),
    Mutant(
        "masters of wide parameters", FILE_SOURCE, "        if master is None:", "        if True:"
    ),
    Mutant("any truth value", NUMBER, "if found not in (0, 1):", "if False:"),
    Mutant(
        "negative scale in a file",
        SCALE_FILES,
        '    check_loss_scale(scale, "the loss scale in the file")\n',
        "",
    ),
    Mutant(
        "a new scale remembers",
        SCALING,
        "        self._loss_scaling_isnan_ever = False\n\n    def set_loss_scale",
        "\n    def set_loss_scale",
    ),
    Mutant(
        "no memory of bad gradients",
        SCALING,
        "self._loss_scaling_isnan = self._loss_scaling_isnan_ever = True",
        "self._loss_scaling_isnan = True",
    ),
    Mutant(
        "bad for ever",
        SCALING,
        "        self._loss_scaling_isnan = False\n        if not self._loss_scaling_is_dynamic:",
        "        if not self._loss_scaling_is_dynamic:",
    ),
    Mutant(
        "static scales skip",
        SCALING,
        "if not self._loss_scaling_is_dynamic:\n            return",
        "if self._loss_scale is None:\n            return",
    ),
    Mutant("skip does not", SCALING, 'if self._on_nonfinite == "skip" and', "if False and"),
    Mutant("raise does not", SCALING, 'self._on_nonfinite != "raise" or', "True or"),
    Mutant(
        "raise under a dynamic scale",
        SCALING,
        ' != "raise" or self._loss_scaling_is_dynamic:',
        ' != "raise":',
    ),
    Mutant("doubled for ever", SCALING, "elif self._loss_scaling_isnan_ever:", "elif False:"),
    Mutant("not halved", SCALING, "factor = 0.5", "factor = 1.0"),
    Mutant("no floor", SCALING, "max(1.0, min(", "max(0.0, min("),
    Mutant(
        "no ceiling",
        SCALING,
        "min(float(self._loss_scale_max), self._loss_scale * factor)",
        "self._loss_scale * factor",
    ),
    Mutant(
        "monitor ignored",
        MAKING,
        "if scaled or decides or optimizer.monitor:",
        "if scaled or decides:",
    ),
    Mutant(
        "nobody asks for scaled ones",
        MAKING,
        "if scaled or decides or optimizer.monitor:",
        "if decides or optimizer.monitor:",
    ),
    Mutant(
        "disabled rules count",
        SCALING,
        "array is not None and is_updated(param)",
        "array is not None",
    ),
    Mutant(
        "memory not saved",
        SCALE_FILES,
        'child("loss_scale_nonfinite_ever", bool(optimizer._loss_scaling_isnan_ever))',
        "pass",
    ),
    Mutant(
        "growth not saved",
        SCALE_FILES,
        "_prepare(optimizer, prepared, scale, bool(dynamic), multiplier,",
        "_prepare(optimizer, prepared, scale, bool(dynamic), None,",
    ),
    Mutant(
        "kind not saved", SCALE_FILES, '"_loss_scaling_is_dynamic", dynamic)', '"_unused", dynamic)'
    ),
    Mutant("no look", MAKING, "            optimizer._unscale_and_look()\n", ""),
    Mutant(
        "scale never adapted", MAKING, 'noted["_loss_scale"] = optimizer._next_loss_scale()', "pass"
    ),
    Mutant(
        "own adapting left out",
        MAKING,
        "                if adapts:\n",
        "                if False:\n",
    ),
    Mutant(
        "skipped all the same",
        MAKING,
        "        if not safe:\n            plan = None\n        elif plan is None:",
        "        if plan is None:",
    ),
    Mutant("facts kept", MAKING, '            own.pop("_facts", None)\n', ""),
    Mutant(
        "norm noted by hand",
        MAKING,
        'unscaled = own.pop("_unscaled", None)',
        'unscaled = own.get("_unscaled", None)',
    ),
    Mutant(
        "raised before the hooks",
        MAKING,
        "            optimizer.check_nan_in_grads()\n",
        "            optimizer.check_nan_in_grads()\n        optimizer._refuse_nonfinite()\n",
    ),
    Mutant(
        "no report of what raised",
        MAKING,
        'noted["_last"] = (*noted["_last"][:-1], applied)\n',
        'noted.pop("_last")\n',
    ),
    # gradients and their loss scales
    Mutant("divided at every update", LOOK, "        param._loss_scale = None\n", "        pass\n"),
    Mutant("summed again", LOOK, "if id(parameters[path]) not in squares]", "]"),
    Mutant(
        "what overflows is not finite",
        LOOK,
        "or finite_squares(array)",
        "or False",
    ),
    Mutant(
        "scale without a gradient stays",
        LOOK,
        "    for param in scaled:\n",
        "    for param in with_grad:\n",
    ),
    Mutant(
        "a rule does not divide",
        BASE,
        "            unscale_gradients([param])\n",
        "            pass\n",
    ),
    Mutant(
        "cleared with its scale",
        PARAMETER,
        "None\n        if self._array is None:\n            self._grad_fill = None",
        "self._loss_scale\n        if self._array is None:\n            self._grad_fill = None",
    ),
    Mutant(
        "zeros with their scale",
        PARAMETER,
        "None\n        if self._array is None:\n            self._grad_fill = 0.0",
        "self._loss_scale\n        if self._array is None:\n            self._grad_fill = 0.0",
    ),
    Mutant("any scales added", PARAMETER, "if self._loss_scale == var._loss_scale:", "if True:"),
    Mutant(
        "a sum keeps a scale",
        PARAMETER,
        "        self._loss_scale = None\n\n    def to_device",
        "\n    def to_device",
    ),
    Mutant("shared without its scale", PARAMETER, "self._loss_scale = var._loss_scale\n", "pass\n"),
    Mutant(
        "added in half precision",
        "fastadam/model/gradient_checks.py",
        "grad.astype(computing_dtype(grad.dtype) or grad.dtype, copy=False)",
        "grad",
    ),
    Mutant(
        "float32 not to be set", PARAMETER, "wider = is_half(array.dtype) and", "wider = False and"
    ),
    Mutant("native float32 for any", PARAMETER, "wider = is_half(array.dtype) and", "wider ="),
    Mutant(
        "lent gradients made half",
        PARAMETER,
        "computing_dtype(like.dtype) if wider else like.dtype",
        "like.dtype",
    ),
    # float32 masters
    Mutant(
        "masters do not follow",
        MASTER,
        "written = _bits(_rounded(array, half)) != _bits(half)",
        "written = np.zeros(half.shape, bool)",
    ),
    Mutant(
        "masters follow wholly",
        MASTER,
        "array[written] = half[written]",
        "array[...] = half",
    ),
    Mutant(
        "writes told by value",
        MASTER,
        "_bits(_rounded(array, half)) != _bits(half)",
        "np.asarray(_rounded(array, half) != half)",
    ),
    Mutant("another array", MASTER, "param.array[...] = _rounded", "param.array = _rounded"),
    Mutant("the master's gradient stays", MASTER, "    master.cleargrad()\n", ""),
    Mutant("read-only parameters", MASTER, "if not is_writeable(half):", "if False:"),
    Mutant("False switches it on", RULED, "rule.use_fp32_update(flag)", "rule.use_fp32_update()"),
    Mutant(
        "no master for late parameters",
        RULED,
        "                if self._use_fp32_update:\n",
        "                if False:\n",
    ),
    Mutant("masters kept", KEPT, "        if not flag:\n            self._fp32_param = None\n", ""),
    Mutant("masters not rounded", KEPT, "        round_to(param, stepped)\n", "        pass\n"),
    Mutant(
        "masters not saved",
        KEPT,
        'serializer("fp32_param", self._fp32_param.array)',
        "pass",
    ),
    Mutant(
        "no masters in batches",
        STEPS,
        "rule._stepped(param) if rule._use_fp32_update else",
        "rule._stepped(param) if False else",
    ),
    Mutant(
        "batches not rounded",
        KERNEL_STEP,
        "                    copy_into(half, master)\n",
        "                    pass\n",
    ),
    # what is kept between updates
    Mutant("changes unnoticed", STEPS, "return self._noted.same()", "return True"),
    Mutant("counts set by hand", SOURCE, "<object> t is self.ts[k] or (", "True or ("),
    Mutant(
        "scalars kept",
        GROUPS,
        "return self.noted is not None and self.noted.same()",
        "return self.noted is not None",
    ),
    Mutant(
        "arrays as scalars",
        GROUPS,
        "        if all_lasting(values):\n",
        "        if True:\n",
    ),
    Mutant("counts kept", SOURCE, "        self.ts = self.following\n", ""),
    Mutant("one t for all", STEPS, ", rule.t, rule._start_alpha()", ", rule._start_alpha()"),
    Mutant("warm-up kept", STEPS, "all(group.first_alpha() for group in self._groups)", "True"),
    Mutant(
        "missing ones kept",
        PLAN,
        "or (skip and [grad is None for grad in gradients] != self.absent)",
        "",
    ),
    Mutant(
        "gradients kept alive",
        READ,
        'gradients go."""\n        cdef Py_ssize_t i\n        for i in range(len(self.indices)):',
        'gradients go."""\n        cdef Py_ssize_t i\n        for i in range(0):',
    ),
    Mutant("amsgrad kept", RUN, "self.table[i].amsgrad != amsgrad", "False"),
    Mutant("adabound kept", RUN, "or self.table[i].adabound != adabound", ""),
    Mutant("coefficients kept", RUN, "self.narrow[row, k] = <float> <double> values[k]", "pass"),
    Mutant("eps of later steps unchecked", RUN, "(eps != 0 and fabs", "(False and fabs"),
    Mutant("gradient's type unnoticed", LAYOUT, "tensor.g_type = stored(type", "stored(type"),
    Mutant("master replaced", SOURCE, "or <object> master is not self.masters[k]", ""),
    Mutant(
        "half array unnoticed",
        READ,
        "        row.half = at\n",
        "        row.half = at if not self.begun else row.half\n",
    ),
    Mutant(
        "loss scale stays",
        DOOR,
        '        PyObject_GenericSetAttr(param, "_loss_scale", None)\n',
        "        pass\n",
    ),
    Mutant(
        "optimizer not counted",
        DOOR,
        "        PyDict_SetItem(owner, name, value)\n",
        "        pass\n",
    ),
    Mutant(
        "loops do not follow",
        LOOPS,
        "                if tensor.step:\n                    follow(p, g_block, p_block, n)\n",
        "",
    ),
    Mutant(
        "masters follow all", HALF, "choose(written == fastadam_bits(rounded[i]),", "choose(False,"
    ),
    Mutant(
        "loops do not round",
        LOOPS,
        "if tensor.half:\n                    narrow(p, tensor.half_type, tensor.half",
        "if False:\n                    narrow(p, tensor.half_type, tensor.half",
    ),
    Mutant("not divided on the way", OPS, "flushed(g_i) / a)", "flushed(g_i))"),
    Mutant(
        "prepared but not written",
        LOOPS,
        "if tensor.out and tensor.g_type == COMPUTING:",
        "if False:",
    ),
    Mutant(
        "prepared and always written",
        LOOPS,
        "        out = g_block\n",
        "        out = g if tensor.g_type == COMPUTING else g_block\n",
    ),
    Mutant("blocks from the start", LOOPS, "g = <real*> tensor.g + first", "g = <real*> tensor.g"),
    Mutant("shared gradients written", READ, "return gradients.sort()", "return True"),
    Mutant(
        "read-only gradients written",
        READ,
        "if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> grad):",
        "if False:",
    ),
    Mutant(
        "scales of other tables",
        KERNEL_STEP,
        "[scales[i] or 0 for i in table.indices]",
        "[scales[0] or 0 for i in table.indices]",
    ),
    Mutant(
        "still prepared",
        KERNEL_STEP,
        "            table.set_program([[]], 0)\n",
        "            pass\n",
    ),
    Mutant("gradients in place though shared", LOOK, "single[i] = single[last] = False", "pass"),
    Mutant("a caller's gradient in place", LOOK, "and not is_lent(param)", ""),
    Mutant("size unnoticed", READ, "cnp.PyArray_SIZE(p) != <Py_ssize_t> self.sizes[i]", "False"),
    Mutant("address unnoticed", READ, "        row.p = at\n", "        row.p = row.p or at\n"),
    Mutant(
        "m unnoticed",
        READ,
        "            state[k] = at\n",
        "            state[k] = at if k else state[k]\n",
    ),
    Mutant(
        "v unnoticed",
        READ,
        "            state[k] = at\n",
        "            state[k] = state[k] if k == 1 else at\n",
    ),
    Mutant(
        "new gradients unread",
        READ,
        "        row.g = gradient(row, <object>",
        "        row.g = row.g or gradient(row, <object>",
    ),
    # arrays that share no dense layout
    Mutant(
        "axes joined by p alone",
        AXES,
        "cdef int k\n    cdef cnp.ndarray array\n    for k in range(N_WALKED):",
        "cdef int k\n    cdef cnp.ndarray array\n    for k in range(1):",
    ),
    Mutant("gaps unnoticed", AXES, "if walk.strides[k][axis] != expected:", "if False:"),
    Mutant("every chunk the first", WALK, "index[axis] = first % shape[axis]", "index[axis] = 0"),
    Mutant("the rest of a row as a row", WALK, "across and not index[last] and", "across and"),
    Mutant("tiles in one place", WALK, "        room += some * n\n", ""),
    Mutant("rows of one tile", WALK, "        array += some * row_stride\n", ""),
    Mutant(
        "nothing is put back", WALK, "places[k], begin, n, True)", "places[k], begin, n, False)"
    ),
    Mutant("gradients are put back", WALK, "walk.apart[k] and k != WALKED_G:", "walk.apart[k]:"),
    Mutant("one room for two", WALK, "(n * walk.size[k] + LINE) // LINE * LINE", "n"),
    Mutant(
        "halves of the first chunk",
        WALK,
        "            dense.half += 2 * begin\n",
        "            pass\n",
    ),
    Mutant("all from the first element", WALK, "arrays[k] + begin * walk.size[k]", "arrays[k]"),
    Mutant(
        "a walk that stays", READ, "        row.walk = 0\n        if found.g", "        if found.g"
    ),
    Mutant(
        "walked in another byte order",
        READ,
        "            and cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray> grad)\n",
        "",
    ),
    Mutant(
        "float64 summed as halves",
        NORM,
        "            if gradient.g_type == WIDE:\n",
        "            if False:\n",
    ),
    Mutant("sums of what lies apart", ROWS, "        self.rows.gather(dense_gradient)\n", ""),
    Mutant("strided ones in turn", RUN, "is_strided(&self.table[i]) == last", "not last"),
    Mutant(
        "overlaps of later steps",
        WRITTEN,
        "return first > 0 and self.extents[first - 1].high > low",
        "return False",
    ),
    Mutant("hooks unnoticed", MAKING, "if self.pre or scales or asked or", "if scales or asked or"),
    Mutant(
        "post hooks unnoticed",
        MAKING,
        "            if self.post:\n                return False\n            folded",
        "            folded",
    ),
    Mutant("what cannot be kept is", PLAN, "            or not self._lasting\n", ""),
    Mutant("single rules unnoticed", PLAN, "            or not self._noted.same()\n", ""),
    Mutant(
        "pieces overlap others", PLAN, "            self._check_apart()\n", "            pass\n"
    ),
    Mutant(
        "own updates left out",
        PLAN,
        "            own = has_own_update(param, _UPDATE)\n",
        "            own = False\n",
    ),
    Mutant(
        "classes of single rules",
        PLAN,
        "            self._noted.class_attributes(kind, names)\n",
        "            pass\n",
    ),
    Mutant(
        "states of single rules",
        PLAN,
        "                self._noted.entries(rule.state)\n",
        "                pass\n",
    ),
    Mutant(
        "methods of classes unnoticed",
        STEPS,
        "            noted.class_attributes(kind, _PLAIN)\n",
        "            pass\n",
    ),
    Mutant(
        "other rules unnoticed", STEPS, "            noted.attribute(param, rule_attribute)\n", ""
    ),
    Mutant(
        "updates of parameters unnoticed",
        STEPS,
        '                noted.some(vars(param), ["update", "frozen"])\n',
        "                pass\n",
    ),
    Mutant(
        "fields of rules unnoticed", STEPS, "            noted.entries(vars(rule), _FREE)\n", ""
    ),
    Mutant(
        "hooks of rules unnoticed",
        STEPS,
        "            for hooks in rule._hooks.tables():\n                noted.entries(hooks)\n",
        "",
    ),
    Mutant(
        "own hyperparameters unnoticed", STEPS, "                    noted.entries(vars(bag))\n", ""
    ),
    Mutant("first alphas alike", STEPS, ", rule.t, rule._start_alpha()", ", rule.t"),
    Mutant(
        "later updates unchecked",
        PLAN,
        "                self.check()\n        steps",
        "                pass\n        steps",
    ),
    Mutant(
        "hooks that go are there still",
        "fastadam/update/making.py",
        "self.pre.copy()",
        "self.pre",
    ),
    Mutant(
        "programs after a count of nought",
        "fastadam/update/making.py",
        "        if plan is not None and plan.steps is not None and "
        "plan.steps.kernel_step.prepared:\n            plan.steps.kernel_step.leave_gradients()\n",
        "",
    ),
    Mutant(
        "what overlaps is shown as it is",
        "fastadam/update/making.py",
        "if self.post and plan.reaches(gradients):",
        "if False:",
    ),
    Mutant(
        "single rules looked at once",
        "fastadam/update/plan.py",
        "checked is None or not checked.is_good(gradients_of([self.param]))",
        "checked is None",
    ),
    Mutant(
        "other half types rounded",
        "fastadam/kernels/table.py",
        '((table["g_type"] != 0) & (table["g_type"] == stored))',
        '(table["g_type"] != 0)',
    ),
    Mutant(
        "own ways of a hook unnoticed",
        "fastadam/update/overrides.py",
        '("_folds", *_OF_HOOKS), ("call_for_all", "ops"))',
        '("_folds", *_OF_HOOKS), ())',
    ),
    Mutant("not finite but repeated", FOLDED, "not math.isfinite(norm) or ", ""),
    Mutant("threshold of nothing", FOLDED, "b=1.0 if rate is None else rate", "b=rate or 0.0"),
    Mutant(
        "norm not told",
        FOLDED,
        "            self._found = norm\n",
        "            self._found = None\n",
    ),
    Mutant(
        "dynamic scale not adapted",
        FOLDED,
        '            noted["_loss_scale"] = optimizer._next_loss_scale()\n',
        "            pass\n",
    ),
    Mutant(
        "own adapting forgotten",
        FOLDED,
        "        optimizer.update_loss_scale()\n",
        "        pass\n",
    ),
    Mutant(
        "squares that overflow repeated",
        FOLDED,
        "(asked and self._batch.doubtful(squares))",
        "False",
    ),
    Mutant("other walks unnoticed", PLAN, "parameters is not self.parameters\n            or ", ""),
    Mutant(
        "lent ones written where they are",
        FOLDED,
        "if not self._lent and any_lent(plan.params):",
        "if False:",
    ),
    Mutant("lent gradients written", FOLDED, "self._which, not self._lent)", "self._which, True)"),
    Mutant(
        "own gradients not written", FOLDED, "self._which, not self._lent)", "self._which, False)"
    ),
    Mutant("inverses that grow", OPS, " and exponent > 0", ""),
    Mutant(
        "settings reach into checks",
        PLAN,
        'with np.errstate(all="ignore"):\n                self.check()',
        "if True:\n                self.check()",
    ),
    Mutant(
        "integers wrap",
        "fastadam/serializers/protocol.py",
        "return not array.size or (",
        "return True or (",
    ),
    Mutant("own methods unnoticed", NOTED, "for name in self.of_objects:", "for name in ():"),
    Mutant(
        "changed classes asked once",
        NOTED,
        "known != NULL and fastadam_version_tag(kind) == <unsigned int> (<tuple> known)[0]",
        "known != NULL",
    ),
    Mutant(
        "descriptors asked once",
        NOTED,
        "if all([is_constant(kind, name) for name in self.names]):\n            # looking",
        "if True:\n            # looking",
    ),
    Mutant(
        "scalars of a step before",
        PLAN,
        "steps.refresh(own, scalars)",
        "steps.refresh(own, False)",
    ),
    Mutant(
        "monitor unnoticed",
        FOLDED,
        "asked = bool(decides or optimizer.monitor)",
        "asked = bool(decides)",
    ),
    Mutant(
        "skipping unnoticed",
        FOLDED,
        'optimizer._loss_scaling_is_dynamic or optimizer._on_nonfinite != "propagate"',
        "optimizer._loss_scaling_is_dynamic",
    ),
    Mutant(
        "target unnoticed",
        MAKING,
        "if not targets.is_settled() or targets.parameters",
        "if targets.parameters",
    ),
    # single steps in C
    Mutant("sets by their values only", SINGLE, "if start is known.start and same(", "if same("),
    Mutant("any set is the last", SINGLE, "one[i] is not other[i]", "False"),
    Mutant(
        "numbers that change remembered",
        SINGLE,
        "remember = remember and lasting(values[i])",
        "pass",
    ),
    Mutant("only the first set kept", SINGLE, "self.known.insert(0, known)", "self.known[:] = []"),
    Mutant(
        "scalars of another step",
        SINGLE,
        "known.t is not None and known.t == t:",
        "known.t is not None:",
    ),
    Mutant("shared memory stepped", SINGLE, "if not apart(", "if False and not apart("),
    Mutant("any eps rounded", SINGLE, "and fabs(row[EPS]) < FLT_MIN:", "and False:"),
    Mutant("infinite in float32", SINGLE, "        if isinf(row[k]):\n", "        if False:\n"),
    Mutant("large ones at once", SINGLE, "0 < row.n < self.limit", "0 < row.n"),
    Mutant("strided ones at once", SINGLE, "row.p_type < 0 or not dense(p)", "row.p_type < 0"),
    Mutant(
        "a step that is not noted",
        SINGLE,
        "            owner.update(noted)\n",
        "            pass\n",
    ),
    Mutant("true as a count", SINGLE, "type(t) is not int or not", "not isinstance(t, int) or not"),
    Mutant("own scalars not asked", RULE, " and _SCALARS(type(self)) == _OF_ADAM:", ":"),
    Mutant("own bags not asked", GROUPS, "if type(bag) is not Hyperparameter:", "if False:"),
    Mutant(
        "bags the wrong way round",
        GROUPS,
        "for own in reversed(found):",
        "for own in found:",
    ),
    Mutant("what touches is not seen", SINGLE, "(a) < end and begin <", "(a) < begin and begin <"),
    Mutant("masters forgotten", BASE, "if self._fp32_param is not None or getattr", "if getattr"),
    # trees in C
    Mutant(
        "order of keys", TREE, "&key, &value) and <object> key is node.keys[i]:", "&key, &value):"
    ),
    Mutant(
        "keys unnoticed",
        TREE,
        "            if <object> key is not node.keys[i]:\n                return CHANGED\n",
        "",
    ),
    Mutant("inner ones unnoticed", TREE, "if node.flat or worst == CHANGED:", "if True:"),
    Mutant("other dtypes taken over", TREE, "cnp.PyArray_EquivArrTypes(a, b)", "True"),
    Mutant(
        "other layouts taken over",
        TREE,
        "cnp.PyArray_DIM(a, axis) > 1 and cnp.PyArray_STRIDE(a, axis) !=",
        "False and cnp.PyArray_STRIDE(a, axis) !=",
    ),
    Mutant(
        "read-only ones taken over",
        TREE,
        "cnp.PyArray_ISBEHAVED(a) == cnp.PyArray_ISBEHAVED(b)",
        "True",
    ),
    Mutant("empty ones taken over", TREE, " or cnp.PyArray_SIZE(a) == 0:", ":"),
    Mutant("overlaps taken over", TARGET, "if reach_into_another(arrays):", "if False:"),
    Mutant("ties taken over", TARGET, "len(arrays) != len(self.parameters)", "False"),
    Mutant("held arrays forgotten", TREE, "PyDict_SetItem(held, paths[i], arrays[i])", "pass"),
    Mutant("others never written back", TREE, '"_array") is not array:', '"_array") is None:'),
    Mutant("None for a part is one", TREE, "[None] * (node.end - node.first)", "[None]"),
    Mutant(
        "superfluous gradients dropped",
        TREE,
        "    if PyDict_Size(grads) != n:\n        return None\n    values = [None] * n",
        "    values = [None] * n",
    ),
    Mutant(
        "missing paths unnoticed", TREE, "return values if left == 0 else None", "return values"
    ),
    Mutant("paths with slashes left", TREE, '(<str> name).strip("/")', "name"),
    Mutant("ties not added", TARGET, "len(found) == len(self.parameters):", "True:"),
    Mutant(
        "sums that warn", IN_TREES, 'with np.errstate(all="ignore"), beside(a):', "with beside(a):"
    ),
    Mutant(
        "links unnoticed",
        TARGET,
        "return self._noted.same()",
        "return True",
    ),
    # the hooks
    Mutant(
        "rate unchecked", HOOKS + "weight_decay.py", "        check_numbers(self, rate=rate)\n", ""
    ),
    Mutant("decay after the step", HOOKS + "_gradient.py", 'timing = "pre"', 'timing = "post"'),
    Mutant(
        "decay for the optimizer",
        HOOKS + "_gradient.py",
        "call_for_each_param = True",
        "call_for_each_param = False",
    ),
    Mutant("lasso by size", HOOKS + "_gradient.py", "np.sign(p)", "p"),
    Mutant("lasso of the gradient", HOOKS + "_gradient.py", "np.sign(p)", "np.sign(g)"),
    Mutant(
        "lasso rate unchecked", HOOKS + "lasso.py", "        check_numbers(self, rate=rate)\n", ""
    ),
    Mutant(
        "hard bounds unchecked",
        HOOKS + "gradient_hard_clipping.py",
        "if not lower_bound <= upper_bound:",
        "if False:",
    ),
    Mutant(
        "hard bounds of any type",
        HOOKS + "gradient_hard_clipping.py",
        "        check_numbers(self, lower_bound=lower_bound, upper_bound=upper_bound)\n",
        "",
    ),
    Mutant(
        "clipping is not finite",
        HOOKS + "gradient_clipping.py",
        "if self.threshold < norm < math.inf else",
        "if self.threshold < norm else",
    ),
    Mutant(
        "clipping makes larger",
        HOOKS + "gradient_clipping.py",
        "if self.threshold < norm < math.inf else",
        "if 0 < norm < math.inf else",
    ),
    Mutant(
        "clipping without threshold",
        HOOKS + "gradient_clipping.py",
        "return self.threshold / norm if",
        "return 1 / norm if",
    ),
    Mutant(
        "clipping by all parameters",
        HOOKS + "gradient_clipping.py",
        "return opt._hooked_parameters()",
        "return list(opt.parameters.values())",
    ),
    Mutant(
        "foreign parameters twice",
        HOOKS + "gradient_clipping.py",
        "list({id(param): param for param in opt.target.params()}.values())",
        "list(opt.target.params())",
    ),
    Mutant(
        "foreign disabled ones count",
        HOOKS + "gradient_clipping.py",
        '"enabled", True)]',
        '"t", True) != ""]',
    ),
    Mutant(
        "noise of any shape",
        HOOKS + "gradient_noise.py",
        "if noise.shape not in ((), g.shape):",
        "if False:",
    ),
    Mutant(
        "noise of any type",
        HOOKS + "gradient_noise.py",
        'if noise.dtype.kind not in "iuf" and not is_floating(noise.dtype):',
        "if False:",
    ),
    Mutant(
        "noise of another decay", HOOKS + "gradient_noise.py", "1 + rule.t, 0.55", "1 + rule.t, 0.5"
    ),
    Mutant("noise of the next count", HOOKS + "gradient_noise.py", "1 + rule.t", "2 + rule.t"),
    Mutant(
        "noise by its variance",
        HOOKS + "gradient_noise.py",
        "np.sqrt(hook.eta / np.power(1 + rule.t, 0.55))",
        "hook.eta / np.power(1 + rule.t, 0.55)",
    ),
    Mutant("noise not rounded", HOOKS + "gradient_noise.py", "shape)).astype(dtype)", "shape))"),
    Mutant("no threshold", HOOKS + "gradient_lars.py", "p_norm > self.threshold and", "True and"),
    Mutant(
        "threshold reached",
        HOOKS + "gradient_lars.py",
        "p_norm > self.threshold",
        "p_norm >= self.threshold",
    ),
    Mutant(
        "decay not in the rate", HOOKS + "gradient_lars.py", " + self.weight_decay * p_norm\n", "\n"
    ),
    Mutant("no eps in the rate", HOOKS + "gradient_lars.py", "self.eps + g_norm", "g_norm"),
    Mutant("zero size divides", HOOKS + "gradient_lars.py", " and size != 0", ""),
    Mutant(
        "infinite gradients warn", HOOKS + "gradient_lars.py", 'invalid="ignore"', 'invalid="warn"'
    ),
    Mutant(
        "hooks of integers", HOOKS + "_gradient.py", "if not is_floating(array.dtype):", "if False:"
    ),
    Mutant("rates below 0", HOOKS + "_gradient.py", "if found < least:", "if False:"),
    Mutant("rates of NaN", HOOKS + "_gradient.py", "if math.isnan(found):", "if False:"),
    Mutant("overflowing scalars warn", HOOKS + "_gradient.py", 'over="ignore"', 'over="warn"'),
    Mutant(
        "old names are silent",
        "fastadam/optimizer_hooks/deprecated.py",
        "            DeprecationWarning,\n",
        "            PendingDeprecationWarning,\n",
    ),
    Mutant(
        "old names point here",
        "fastadam/optimizer_hooks/deprecated.py",
        "stacklevel=2",
        "stacklevel=1",
    ),
    Mutant(
        "hooks for disabled rules",
        RULED,
        "self._present().values() if is_updated(param)]",
        "self._present().values()]",
    ),
    Mutant(
        "cleared gradients stay",
        "fastadam/update/gradient_method.py",
        "        super().call_hook(hook)\n        self.reallocate_cleared_grads()",
        "        super().call_hook(hook)",
    ),
    Mutant("loss scales unnoticed", MAKING, "scales = scales_of(params)\n", "scales = None\n"),
    Mutant("decay of the gradient", OPS, "(g_i + a * p[i]) * b", "(g_i + a * g_i) * b"),
    Mutant("no decay of gradients", OPS, "(g_i + a * p[i]) * b", "g_i * b"),
    Mutant("no rate of lars", OPS, "(g_i + a * p[i]) * b", "(g_i + a * p[i])"),
    Mutant("decay after the rate", OPS, "(g_i + a * p[i]) * b", "g_i * b + a * p[i]"),
    Mutant("lasso without sign", OPS, "g_i + a * sign(p[i])", "g_i + a * p[i]"),
    Mutant("sign of NaN", OPS, "zero if x == 0 else x", "zero"),
    Mutant("sign of 0", OPS, "zero if x == 0 else x", "one"),
    Mutant("clipped below only", OPS, "larger if larger < b else b", "larger"),
    Mutant("clipped above only", OPS, "g_i if g_i > a else a", "g_i"),
    Mutant("hard clipping drops NaN", OPS, "g_i if g_i != g_i else larger", "larger"),
    Mutant("not multiplied", OPS, "            out[i] = g_i * b\n", "            pass\n"),
    Mutant(
        "half changes not stored",
        LOOPS,
        "if tensor.out and tensor.g_type != COMPUTING:",
        "if False:",
    ),
    Mutant(
        "half parameters of hooks",
        LOOPS,
        "p = seen = p_block",
        "p = p_block",
    ),
    Mutant(
        "steps do not flush",
        LOOPS,
        "        saved = fastadam_flush_on()\n",
        "        saved = fastadam_flush_off()\n",
    ),
    Mutant("changes of strided gradients", TABLE, "if dense(g) else 0", ""),
    Mutant(
        "changes of other layouts",
        TABLE,
        "table[i].p = pointer(p, p_number, g, False)",
        "table[i].p = <size_t> cnp.PyArray_DATA(p)",
    ),
    Mutant(
        "changes of read-only gradients",
        TABLE,
        "pointer(g, g_number, g, True)",
        "pointer(g, g_number, g, False)",
    ),
    Mutant(
        "numbers of the first",
        "fastadam/kernels/changing.py",
        "[numbers[i] for i in indices]",
        "[numbers[0] for i in indices]",
    ),
    Mutant(
        "nothing is left",
        HOOKS + "_gradient.py",
        "for i in change_gradients(kind, gradients, numbers, rates):",
        "for i in change_gradients(kind, gradients, numbers, rates)[:0]:",
    ),
    Mutant(
        "noise in the computing type",
        HOOKS + "gradient_noise.py",
        "module, g.shape, g.dtype, self",
        "module, g.shape, found[0].computing, self",
    ),
    Mutant("noise taken away", HOOKS + "gradient_noise.py", "[(1.0, 1.0)]", "[(-1.0, 1.0)]"),
    Mutant(
        "rates of lars alike",
        HOOKS + "gradient_lars.py",
        "numbers[i] = self.weight_decay, rate",
        "numbers[i] = self.weight_decay, 0.5",
    ),
    Mutant(
        "hooks see scaled gradients",
        HOOKS + "_gradient.py",
        "    unscale_gradients([param for param in params if is_scaled(param)])\n",
        "",
    ),
    Mutant(
        "shared gradients changed twice",
        HOOKS + "_gradient.py",
        "if single and is_writeable",
        "if is_writeable",
    ),
    Mutant(
        "read-only gradients changed",
        HOOKS + "_gradient.py",
        "single and is_writeable(grad) and",
        "single and",
    ),
    Mutant(
        "gradients that are the parameter changed",
        HOOKS + "_gradient.py",
        "is_writeable(grad) and apart:",
        "is_writeable(grad):",
    ),
    Mutant(
        "longer floats as none",
        HOOKS + "_gradient.py",
        "or self.g.dtype",
        "or np.dtype(np.float64)",
    ),
    Mutant(
        "copies not kept", HOOKS + "_gradient.py", "        replace_grad(param, stored[i])\n", ""
    ),
    Mutant("no array", HOOKS + "_gradient.py", "if param.array is not None]", "]"),
    Mutant("no gradient", HOOKS + "_gradient.py", "if param.grad is not None]", "]"),
    Mutant(
        "other hooks called together",
        "fastadam/update/optimizer.py",
        'brought_by_class(hook, "call_for_all")',
        'hasattr(hook, "call_for_all")',
    ),
    Mutant("any scale inverted", OPS, "&exponent) == 0.5", "&exponent) >= 0.5"),
    Mutant("prepared by the inverse", OPS, "flushed(g_i * a)", "flushed(g_i / a)"),
    Mutant("prepared without the rate", OPS, "                b = <real> ops[k].b\n", ""),
    Mutant("unscaled without the rate", OPS, "* a) * b", "* a)"),
    Mutant("divided without the rate", OPS, "/ a) * b", "/ a)"),
    Mutant("quotient not flushed", OPS, "flushed(flushed(g_i) / a)", "(flushed(g_i) / a)"),
    Mutant(
        "product not flushed",
        OPS,
        "flushed(g_i * a)",
        "(g_i * a)",
    ),
    Mutant(
        "prepared with flushing",
        LOOPS,
        "flushing = fastadam_flush_off()",
        "flushing = fastadam_flush_on()",
    ),
    Mutant(
        "flushing stays off while stepping",
        LOOPS,
        "            fastadam_flush_restore(flushing)\n",
        "",
    ),
    Mutant("squares by division", NORM, "flushed(g_i * scale) if", "flushed(g_i / scale) if"),
    Mutant(
        "scale for its inverse",
        NORM,
        "out, inverse, n, True, True, True",
        "out, scale, n, True, True, True",
    ),
    Mutant(
        "own gradients left",
        OF_ALL,
        '                PyObject_GenericSetAttr(param, "_grad", None)\n',
        "                pass\n",
    ),
    # threads that wait
    Mutant("one late step is enough", CROWD, "LATE_STEPS = 2", "LATE_STEPS = 1"),
    Mutant("late by the step", CROWD, "LATE_NS_PER_ELEMENT * total", "0"),
    Mutant("late steps add up", CROWD, "self._late = 0\n            self._hold", "self._hold"),
    Mutant("one thread for ever", CROWD, "self._left -= 1", "pass"),
    Mutant("the while stays short", CROWD, "min(2 * self._hold, LONGEST_HOLD)", "self._hold"),
    Mutant(
        "the while grows for ever", CROWD, "min(2 * self._hold, LONGEST_HOLD)", "2 * self._hold"
    ),
    Mutant("the while stays long", CROWD, "            self._hold = FIRST_HOLD\n", ""),
    Mutant("no comparison", CROWD, "if 2 * rate < suspect", "if True"),
    Mutant("a little faster is enough", CROWD, "if 2 * rate <", "if rate <"),
    Mutant("slow machines are asked", CROWD, "self._trusted = TRUSTED", "self._trusted = 0"),
    Mutant("large steps step aside", CROWD, "alone and total < LARGE", "alone"),
    Mutant(
        "times of steps", CROWD, "self._compare(ns / total, suspect)", "self._compare(ns, suspect)"
    ),
    Mutant(
        "set threads step aside", THREADS, "    if by_hand is not None:\n        return n\n", ""
    ),
    Mutant("set threads are timed", THREADS, "    if by_hand is None:\n", "    if True:\n"),
    Mutant("small steps are timed", KERNEL_STEP, "total >= _threads.SERIAL_BELOW and", ""),
    Mutant(
        "classes keep their version", NOTED, "if self.version and fastadam", "if True or fastadam"
    ),
    Mutant(
        "metaclasses have no names",
        NOTED,
        "if type(self.kind) is type and all",
        "if all",
    ),
    Mutant(
        "first alphas without bounds",
        STEPS,
        "            and rule.hyperparam.adabound is True\n",
        "",
    ),
    Mutant(
        "first alphas that a class makes",
        STEPS,
        '            and not hasattr(type(rule), "initial_alpha")\n',
        "",
    ),
    Mutant(
        "descriptors are constant",
        NOTED,
        'return type(found) in CONSTANT or not hasattr(type(found), "__get__")',
        "return True",
    ),
    Mutant(
        "patched bags are read past",
        GROUPS,
        "if Hyperparameter.get_dict is not GET_DICT:",
        "if False:",
    ),
    Mutant("first alphas kept", STEPS, "bool(type(start) in NUMBERS and start)", "bool(start)"),
    Mutant("first alphas of zero kept", GROUPS, "if self.fixed is None else", "if False else"),
    # files
    Mutant("changes are saved", f"{FILES}/entries.py", "if found != expected.sha256:", "if False:"),
    Mutant(
        "pieces overlap",
        f"{FILES}/entries.py",
        "yield from pieces(value[at : at + step])",
        "yield from pieces(value[at : at + step + 1])",
    ),
    Mutant("names twice", f"{FILES}/zip_directory.py", "if key in self._records:", "if False:"),
    Mutant("no checksum", f"{FILES}/zip_member.py", " or zlib.crc32(found) != self.record.crc", ""),
    Mutant(
        "no checksum of large ones",
        f"{FILES}/zip_member.py",
        "if self._crc != self.record.crc:",
        "if False:",
    ),
    Mutant(
        "gaps between members",
        f"{FILES}/zip_member.py",
        "        elif stop == end:\n            return\n",
        "        else:\n            return\n",
    ),
    Mutant(
        "room for everything",
        f"{FILES}/limits.py",
        "if limit is not None and n_bytes > limit:",
        "if False:",
    ),
    Mutant(
        "devices are read",
        f"{FILES}/limits.py",
        "if not stat.S_ISREG(status.st_mode):",
        "if False:",
    ),
    Mutant("no end of groups", f"{FILES}/hdf5.py", 'name.count(b"/") >= DEPTH or ', ""),
    Mutant(
        "the list is not compared",
        f"{FILES}/verified.py",
        "if describe(value, listed.dtype) != listed:",
        "if False:",
    ),
    Mutant(
        "a guess is believed",
        f"{FILES}/verified.py",
        "if data is not None and hashlib.sha256(data).hexdigest() == listed.sha256:",
        "if data is not None:",
    ),
    Mutant(
        "no memory is asked for",
        f"{FILES}/hdf5_calls.py",
        "np.empty(_OWN + n_bytes, np.uint8)",
        "n_bytes",
    ),
    Mutant("temporary files stay", f"{FILES}/atomic.py", "        temporary.remove()\n", ""),
    # programs of operations
    Mutant("one program for all", LOOPS, "ops + tensor.first_op", "ops"),
    Mutant("programs of one operation", LOOPS, "tensor.n_ops, seen", "min(tensor.n_ops, 1), seen"),
    Mutant(
        "hooks see the master",
        LOOPS,
        "                seen = p_block\n                narrow",
        "                narrow",
    ),
    Mutant(
        "always a step", LOOPS, "if tensor.step:\n            adam", "if True:\n            adam"
    ),
    Mutant(
        "masters follow without a step",
        LOOPS,
        "if tensor.step:\n                    follow",
        "if True:\n                    follow",
    ),
    Mutant("decay without its factor", OPS, "(kind == ADD and b == 1)", "kind == ADD"),
    Mutant("a factor of a division", OPS, "b = 1 if kind == DIVIDE else <real>", "b = <real>"),
    Mutant("wide gradients rounded", OPS, "if g_type != COMPUTING and", "if"),
    Mutant("half gradients not rounded", OPS, "round_to(g_type, out, n)", "pass"),
    Mutant("rounded in the first block", OPS, "narrow(x + first, stored", "narrow(x, stored"),
    Mutant(
        "nothing left", OPS, "    if g != out:\n        memcpy", "    if False:\n        memcpy"
    ),
    Mutant("the last operation alone", OPS, "        g = out\n    if g", "        pass\n    if g"),
    Mutant("one program for all sums", NORM, "ops + gradient.first_op", "ops"),
    Mutant(
        "summed operations flush",
        NORM,
        "flushing = fastadam_flush_off()",
        "flushing = fastadam_flush_on()",
    ),
    Mutant("sums of subnormal numbers", NORM, "        fastadam_flush_restore(flushing)\n", ""),
    Mutant(
        "sums of the first block",
        NORM,
        "<real*> gradient.p + begin + first",
        "<real*> gradient.p + begin",
    ),
    Mutant("sums of wide parameters", NORM, "if gradient.p_type != COMPUTING:", "if False:"),
    Mutant("rows beyond the end", NORM, "min(n - begin, <Py_ssize_t> LANES)", "<Py_ssize_t> LANES"),
    Mutant("sums after all", TABLE, "min(<Py_ssize_t> counts[i], tensor.n_ops)", "tensor.n_ops"),
    Mutant(
        "any operation divides",
        TABLE,
        "row.n_ops == 1 and self.ops[row.first_op].kind == DIVIDE",
        "row.n_ops == 1",
    ),
    Mutant(
        "sums see the master",
        TABLE,
        "row.p = tensor.half if tensor.half else tensor.p",
        "row.p = tensor.p",
    ),
    Mutant("operations stay in sums", TABLE, "            self.gradients[i].n_ops = 0\n", ""),
    Mutant(
        "operations of the first program",
        ROWS,
        "            self.rows.take_ops(self.ops)\n            self.table",
        "            self.table",
    ),
    Mutant(
        "quotients written in half precision",
        ROWS,
        "divide[which] & half) and",
        "divide[which] & half & False) and",
    ),
    Mutant("programs write what is shared", ROWS, " and bool(self.rows.may_write())", ""),
    Mutant(
        "programs of other tables",
        KERNEL_STEP,
        "[which[i] for i in table.indices]",
        "[which[0] for i in table.indices]",
    ),
    Mutant(
        "programs of strided arrays",
        KERNEL_STEP,
        "if self.on_gpu or not self.whole:",
        "if self.on_gpu:",
    ),
    Mutant("programs go on", KERNEL_STEP, "        self.prepared = True\n", ""),
    Mutant(
        "counts of other tables",
        KERNEL_STEP,
        "[n[i] for i in table.indices]",
        "[n[0] for i in table.indices]",
    ),
    Mutant(
        "programs always write",
        KERNEL_STEP,
        'table.set_program(programs, each, table.table["g"] if write else None)',
        'table.set_program(programs, each, table.table["g"])',
    ),
    # what a plan was made of, compared
    # found by attack: what is half-noted, what is not the kernels', what runs code
    Mutant(
        "programs half noted",
        ROWS,
        "            self._shape = None\n",
        "            self._shape = shape\n",
    ),
    Mutant(
        "frozen parameters written",
        PLAN,
        "for param in others for array",
        "for param in () for array",
    ),
    Mutant(
        "steps that were not made are counted",
        BASE,
        "unknown = started and not self._is_known_to_write_state()",
        "unknown = started",
    ),
    Mutant("copies in another order", LOOK, 'grad.copy(order="K")', "grad.copy()"),
    Mutant(
        "numbers run code after all is read",
        FOLDED,
        "if type(hook.threshold) not in NUMBERS:",
        "if False:",
    ),
    Mutant(
        "refused gradients held",
        MAKING,
        "            steps.let_go()\n            raise\n        finally",
        "            raise\n        finally",
    ),
    # on PyTorch's tensors: groups, and the numbers in them
    Mutant("eps of another place", OF_GROUPS, "paper=not bounded", "paper=False"),
    Mutant("a decay without lr", OF_GROUPS, "lr * decay if decoupled", "decay if decoupled"),
    Mutant("a decay twice", OF_GROUPS, "if decay and not decoupled:", "if decay:"),
    Mutant(
        "a decay before the sign",
        OF_GROUPS,
        "self.ops.append(Op(ADD, decay))",
        "self.ops.insert(0, Op(ADD, decay))",
    ),
    Mutant(
        "older groups are Adam's",
        OF_GROUPS,
        'group.get("decoupled_weight_decay", self._decoupled)',
        'group.get("decoupled_weight_decay", False)',
    ),
    Mutant("a tensor lr is read once", OF_GROUPS, "is tuple and all(", "is tuple or all("),
    Mutant(
        "the second moment of a beta of 0",
        OF_GROUPS,
        '(("exp_avg", beta1), ("exp_avg_sq", beta2))',
        '(("exp_avg", beta1),)',
    ),
    Mutant("a beta of 1", OF_GROUPS, "0 <= beta1 < 1", "0 <= beta1 <= 1"),
    Mutant(
        "bounds of a warm-up from 0",
        OF_GROUPS,
        "if self._initial == 0:",
        "if False:",
    ),
    Mutant("a base for each load", BOUNDED, 'if "base_lr" in group:', "if False:"),
    # the plan of a step
    Mutant(
        "copies of parameters are not put back",
        TENSOR_PLAN,
        "                    local_of(param).copy_(copied)",
        "                    pass",
    ),
    Mutant(
        "copies of earlier parameters",
        TENSOR_PLAN,
        "                    copied.copy_(local_of(param))",
        "                    pass",
    ),
    Mutant(
        "moments of missing gradients are cleared",
        TENSOR_PLAN,
        "            if row.param.grad is not None\n            for key",
        "            for key",
    ),
    Mutant(
        "copies that undo each other",
        TENSOR_PLAN,
        "            self._refuse_shared()",
        "            pass",
    ),
    Mutant(
        "all threads",
        TENSOR_PLAN,
        "steps.most_threads = torch.get_num_threads()",
        "pass",
    ),
    Mutant(
        "a bound that stays",
        TENSOR_PLAN,
        "        elif steps.prepared:\n            steps.leave_gradients()\n",
        "",
    ),
    Mutant(
        "states of a refused step",
        TENSOR_PLAN,
        "            changes.take_back()\n            raise",
        "            raise",
    ),
    Mutant(
        "another list of groups",
        TENSOR_PLAN,
        "            or optimizer.param_groups is not self._groups\n",
        "",
    ),
    Mutant(
        "another dict of states",
        TENSOR_PLAN,
        "            or optimizer.state is not self._states\n",
        "",
    ),
    # states
    Mutant(
        "memory of a loaded dict",
        TENSOR_STATES,
        "            state[key] = fitting(value, param)",
        "            state[key] = value if fits(value, param) else fitting(value, param)",
    ),
    Mutant("endless steps", TENSOR_STATES, "0 <= step < math.inf", "0 <= step"),
    Mutant(
        "moments of another shape",
        TENSOR_STATES,
        "if tensor.shape != param.shape:",
        "if tensor.numel() != param.numel():",
    ),
    Mutant(
        "masters of wide tensors",
        TENSOR_STATES,
        "needs_master = self._masters and is_half(param)",
        "needs_master = self._masters",
    ),
    Mutant("wide counts become narrow", TENSOR_STATES, "value.dtype == torch.float64", "False"),
    Mutant(
        "moments of another layout",
        TENSOR_STATES,
        "    return tensor.stride() == torch.empty_like(param).stride()",
        "    return True",
    ),
    # clipping, and the step around it
    Mutant("a norm of unclipped values", BOUNDS, "measured(steps, first)", "measured(steps, [])"),
    Mutant("small gradients grow", BOUNDS, "1.0 if factor >= 1 else factor", "factor"),
    Mutant("a norm of 0", BOUNDS, "(norm.total + _TINY)", "norm.total"),
    Mutant(
        "infinities are stepped",
        STEPPING,
        "if found_inf is not None and float(found_inf):",
        "if False:",
    ),
    Mutant(
        "copies of gradients before they are divided",
        STEPPING,
        "            if not plan.lasts or not plan.refresh(self):",
        "            if not plan.lasts:",
    ),
    Mutant(
        "plans of a single step are read again",
        STEPPING,
        "            if not plan.lasts or not plan.refresh(self):",
        "            if not plan.refresh(self):",
    ),
    Mutant("scales stay", STEPPING, "            self._unscale(scale)\n", ""),
    Mutant(
        "hooks before a step alone",
        STEPPING,
        "            self._optimizer_step_pre_hooks\n            or self._optimizer_step_post",
        "            self._optimizer_step_post",
    ),
    Mutant(
        "masters that nobody steps",
        STEPPING,
        "                    self._refuse_master(name, left[key])\n",
        "",
    ),
    Mutant(
        "loaded groups that lack numbers",
        STEPPING,
        "refuse_incomplete(type(self).__name__, given",
        "(lambda *_: None)(type(self).__name__, given",
    ),
    Mutant(
        "closures without gradients",
        STEPPING,
        "            with torch.enable_grad():\n                loss = closure()",
        "            loss = closure()",
    ),
    # steps in backward passes
    Mutant(
        "second gradients after a bucket",
        IN_BACKWARD,
        "if id(param) in self._stepped or id(param) in self._arrived:",
        "if id(param) in self._arrived:",
    ),
    Mutant(
        "states of half a step",
        STEPPING,
        "        self.refuse_half_way()\n        found: dict[str, Any] = super().state_dict()",
        "        found: dict[str, Any] = super().state_dict()",
    ),
    Mutant(
        "copies of half a step",
        STEPPING,
        "        self.refuse_half_way()\n        return {**super().__getstate__()",
        "        return {**super().__getstate__()",
    ),
    Mutant(
        "states loaded into half a step",
        STEPPING,
        "        self.refuse_half_way()\n        states: dict",
        "        states: dict",
    ),
    Mutant("buckets are not freed", IN_BACKWARD, "        self._optimizer.zero_grad()\n", ""),
    # where tensors are read
    Mutant(
        "versions as they were", IN_TENSORS, "        self.reader.raise_versions(written)\n", ""
    ),
    Mutant(
        "counts of another parameter",
        IN_TENSORS,
        "if entry.group != group or t != last_t:",
        "if entry.group != group:",
    ),
    Mutant(
        "edited states unseen",
        UNCHANGED,
        "value or not same_items(self, &self.entries[i]):",
        "value:",
    ),
    Mutant(
        "gradients that come late",
        IN_TENSORS,
        "        if self.captured is None:\n            for i in range(len(self.others)):\n",
        "        if False:\n            for i in range(len(self.others)):\n",
    ),
    Mutant(
        "gradients of another order",
        IN_TENSORS,
        "same_shape(&view, p) and same_order(&view, p)",
        "same_shape(&view, p)",
    ),
    Mutant(
        "gaps on a GPU that moved",
        ON_A_GPU,
        "    if entry.copied and not lies(self, entry.p, &entry.on_gpu[PARAMETER]):\n"
        "        return False\n",
        "",
    ),
    Mutant(
        "tensors on a GPU that moved",
        ON_A_GPU,
        "        and view.data == before.data\n",
        "",
    ),
    Mutant("gaps on a GPU are none", READING, "        if is_dense(view):", "        if True:"),
    Mutant(
        "conjugates as they lie",
        READING,
        "self.is_neg(tensor) or (pairs and self.is_conj(tensor))",
        "self.is_neg(tensor)",
    ),
    Mutant(
        "memory beyond a storage",
        READING,
        "start != 0 and start <= view.data and view.data - start + extent <= held",
        "start != 0",
    ),
    Mutant(
        "numbers whose memory was freed",
        OF_GROUPS,
        '            refuse_freed(f"{key} of param_groups[{self._number}]", value)\n',
        "            pass\n",
    ),
    Mutant(
        "first rates whose memory was freed",
        BOUNDED,
        '    refuse_freed(f"lr of param_groups[{number}]", lr)\n',
        "",
    ),
    Mutant(
        "extra states are buffers",
        IN_MODULES,
        ' and name.rpartition(".")[2] != "_extra_state"',
        "",
    ),
    Mutant(
        "what is renamed is there still",
        FILE_SOURCE,
        "return self.in_file(key) in self.keys and self._renamed(key) is None",
        "return self.in_file(key) in self.keys",
    ),
    Mutant(
        "states of what is renamed are there still",
        FILE_SOURCE,
        "        if self._renamed(prefix) is not None:\n            return []\n",
        "",
    ),
    Mutant(
        "neighbours divided once for each",
        STEPPING,
        "                    p.grad = p.grad.clone(memory_format=torch.contiguous_format)\n",
        "                    pass\n",
    ),
    Mutant("inference tensors", OF_TENSORS, "if param.is_inference():", "if False:"),
    Mutant("elements in one place", OF_TENSORS, "if overlaps_itself(array):", "if False:"),
    Mutant(
        "gradients of a graph are the parameters'",
        IN_TENSORS,
        "                grad = self.captured[i]\n",
        "                grad = self.reader.gradient(entry.p)\n",
    ),
    Mutant(
        "graphs with other settings are replayed",
        TENSORS_ON_GPU,
        "or self._captured() != step.settings",
        "or False",
    ),
    Mutant(
        "changed gradients of a graph forgotten",
        TENSORS_ON_GPU,
        "step.gradients, dict(step.replaced)",
        "step.gradients, {}",
    ),
    Mutant(
        "captured steps are made again in Python",
        TENSORS_ON_GPU,
        "self.recording = recorded(self._devices) is not None",
        "self.recording = False",
    ),
    Mutant(
        "numbers on a GPU are read in a capture",
        TENSORS_ON_GPU,
        "                self._refuse_numbers_on_gpu()\n",
        "                pass\n",
    ),
    Mutant(
        "scaling in a capture",
        STEPPING,
        "            refuse_captured_scaling(found_inf, scale)\n",
        "            pass\n",
    ),
    Mutant(
        "replays prepared in a capture",
        "fastadam/kernels/gpu/steps.py",
        "        if self.capturing():\n            raise",
        "        if False:\n            raise",
    ),
    Mutant(
        "graphs of different parameters",
        "fastadam/torch/graphs.py",
        "        if any(\n",
        "        if False and any(\n",
    ),
    Mutant(
        "gradients of a capture stay",
        TENSORS_ON_GPU,
        "        finally:\n            self._source.let_go()\n        return CapturedStep",
        "        finally:\n            pass\n        return CapturedStep",
    ),
    Mutant(
        "plans of captures are not found again",
        STEPPING,
        "plan = self.captured_plan(plan) or plan_of(",
        "plan = plan_of(",
    ),
    Mutant(
        "no memory for the next graphs",
        "fastadam/kernels/gpu/steps.py",
        "if self._taken and not self.capturing():",
        "if False:",
    ),
    Mutant(
        "captured steps stay due",
        "fastadam/kernels/gpu/table.py",
        "        self.run(self._replayed[0])\n        self._end_step()\n",
        "        self.run(self._replayed[0])\n",
    ),
    Mutant(
        "PyTorch is who is warned",
        "fastadam/optimizers/decay_advice.py",
        '("fastadam.", "torch.")',
        '("fastadam.",)',
    ),
]
