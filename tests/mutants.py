"""The mutants: each breaks the library in one place, which a test must notice.

``run_mutants.py`` tries them. What is no mistake, because nobody could tell it, is no mutant.
"""

from __future__ import annotations

from typing import NamedTuple

LOOPS = "fastadam/kernels/cpu/_step.pyx"
SCALARS = "fastadam/algorithms/coefficients.py"
HYPERS = "fastadam/algorithms/algorithm.py"
NUMBER = "fastadam/algorithms/number.py"
ADAM = "fastadam/algorithms/adam.py"
GATE = "fastadam/optimizers/gate.py"
HYPERPARAMETER = "fastadam/update/hyperparameter.py"
PATHS = "fastadam/update/parameter_table.py"
BATCH = "fastadam/kernels/batch.py"
REFERENCE = "fastadam/kernels/reference.py"
ROWS = "fastadam/kernels/table.py"
ARRAYS = "fastadam/kernels/arrays.py"
HALF = "fastadam/kernels/cpu/_half.pxi"
NORM = "fastadam/kernels/cpu/_norm.pxi"
PREPARE = "fastadam/kernels/cpu/_prepare.pxi"
TABLE = "fastadam/kernels/cpu/_tensors.pyx"
DTYPES = "fastadam/kernels/dtypes.py"
PASS = "fastadam/kernels/sums.py"
RULE = "fastadam/optimizers/adam_rule.py"
GATHER = "fastadam/optimizers/adam_batch.py"
METHOD = "fastadam/update/gradient_method.py"
AGAIN = "fastadam/update/repetition.py"
DISPATCH = "fastadam/update/dispatch.py"
BASE = "fastadam/update/rule.py"
SCALING = "fastadam/update/loss_scale.py"
LOOK = "fastadam/update/gradients.py"
MASTER = "fastadam/update/master.py"
PARAMETER = "fastadam/model/parameter.py"
HOOKS = "fastadam/optimizer_hooks/"
CHANGES = "fastadam/kernels/cpu/_hooks.pxi"
CROWD = "fastadam/kernels/cpu/late_steps.py"
CPU = "fastadam/kernels/cpu/engine.py"
FILES = "fastadam/files"
COMMIT = "fastadam/kernels/_commit.pyx"
PREPARED = "fastadam/serializers/prepared.py"
STATES = "fastadam/update/state_loading.py"
LOADED = "fastadam/checkpoint/optimizer_loading.py"
LOADING = "fastadam/checkpoint/loading.py"


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
    Mutant("float32 not flushed", LOOPS, "saved | 0x8040u", "saved"),
    Mutant("results only flushed", LOOPS, "saved | 0x8040u", "saved | 0x8000u"),
    Mutant(
        "flushing left on",
        LOOPS,
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
    Mutant("bfloat16 as float16", TABLE, "return BFLOAT16 if", "return FLOAT16 if"),
    Mutant("gradient as the parameter", LOOPS, "widen(tensor.g_type,", "widen(tensor.p_type,"),
    Mutant(
        "mixed half types in one loop",
        TABLE,
        "tensor.g_type not in (COMPUTING, tensor.p_type)",
        "False",
    ),
    Mutant("half gradients of float64", TABLE, "if computing != cnp.NPY_FLOAT32:", "if False:"),
    Mutant("layout in bytes", TABLE, "* cnp.PyArray_ITEMSIZE(p)\n", "* 1\n"),
    Mutant("misaligned pointers", TABLE, "cnp.PyArray_ISBEHAVED_RO(a)", "True"),
    Mutant("extents of half types", ROWS, 'self.table[f"{key}_type"] != 0', "False"),
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
    Mutant("subnormal scaled gradients", NORM, "g_i = flushed(g_i)\n", "pass\n"),
    Mutant(
        "subnormal quotients",
        NORM,
        "flushed(g_i * scale if inverse else g_i / scale)",
        "(g_i * scale if inverse else g_i / scale)",
    ),
    Mutant("flushed without sign", PREPARE, "copysignf(0, x) if", "0 if"),
    Mutant("by the reciprocal", NORM, "g_i / scale", "g_i * (1 / scale)"),
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
    Mutant(
        "no correction of beta2", SCALARS, "math.sqrt(correction2) / correction1", "1 / correction1"
    ),
    Mutant(
        "no correction of beta1",
        SCALARS,
        "math.sqrt(correction2) / correction1",
        "math.sqrt(correction2)",
    ),
    Mutant("eps_mode ignored", SCALARS, 'found["eps_mode"] == "paper"', "False"),
    Mutant("decay_mode ignored", SCALARS, 'if found["decay_mode"] == "alpha":', "if False:"),
    Mutant("decay without eta", SCALARS, 'decay = found["eta"] * found', "decay = found"),
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
    Mutant("aliased gradients", ROWS, "table.copy_gradient(int(i))", "int(i)"),
    Mutant(
        "overlaps ignored",
        BATCH,
        "overlapping and parameters_overlap(self._tables)",
        "False",
    ),
    Mutant("eps unchecked", ARRAYS, "if eps != 0 and", "if False and"),
    Mutant("others left out", ROWS, " + [partial(self._run_strided, i) for i in self.others]", ""),
    Mutant("t is behind", GATHER, "coefficients(rule.t + 1)", "coefficients(max(rule.t, 1))"),
    Mutant("t not counted", GATHER, "ts = [rule.t + 1 for", "ts = [rule.t for"),
    Mutant("overrides ignored", GATHER, "key = (bags, rule.t, ", "key = (rule.t, "),
    Mutant("initial alpha follows", RULE, 'if not self.__dict__.get("initial_alpha"):', "if True:"),
    Mutant("rule hooks forgotten", RULE, "if self._hooks or not", "if not"),
    Mutant("disabled rules run", DISPATCH, 'not getattr(rule, "enabled", True)', "False"),
    Mutant("no zero gradients", METHOD, "param.grad = zeros_like(param.array)", "pass"),
    Mutant("no pre hooks", METHOD, 'self.call_hooks("pre")', "None"),
    Mutant("no post hooks", METHOD, 'self.call_hooks("post")', "None"),
    Mutant("epoch's t", METHOD, '{"t": t + 1}\n', '{"t": t + 2}\n'),
    Mutant("t stays after a refusal", METHOD, 'noted if work.applied else {"t": t}', "noted"),
    Mutant("rule t stays after a refusal", BASE, "            self.t = t\n", "            pass\n"),
    Mutant(
        "lent gradients kept",
        METHOD,
        "param.cleargrad()\n\n    def _before_first_update",
        "pass\n\n    def _before_first_update",
    ),
    # who is updated, and who is said to have been
    Mutant("a shared rule in the batch", DISPATCH, " or id(rule) in taken", ""),
    Mutant("batches unchecked", DISPATCH, "            batch.check()\n", "            pass\n"),
    Mutant(
        "singles unchecked",
        DISPATCH,
        "type(param.update_rule).check_batch([param.update_rule], [param])",
        "pass",
    ),
    Mutant("several checked as one", DISPATCH, "pieces == 1 and", "True and"),
    # arrays that share memory
    Mutant("states overlap", ARRAYS, 'if key == other_key == "array" or not', "if True or not"),
    Mutant("gradient in m", ROWS, '("p", *ADAM.state, "half")', '("p", *ADAM.state[1:], "half")'),
    Mutant("masked arrays", TABLE, "or masked(array)", ""),
    Mutant("gradients of others", DISPATCH, "copied = copy_shared_gradients(", "copied = list("),
    Mutant("frozen state", DISPATCH, "and len(self._paths) == len(self._parameters)", ""),
    Mutant(
        "bad parameter at setup", METHOD, "param.update_rule._check_parameter(path, param)", "pass"
    ),
    Mutant("all are said to be done", DISPATCH, " if done or old != new)", ")"),
    Mutant(
        "nobody is said to be done",
        DISPATCH,
        "if done or old != new)\n",
        "if done)\n",
    ),
    Mutant(
        "done in any order",
        DISPATCH,
        "for path in self._paths if",
        "for path in sorted(self._paths)[::-1] if",
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
    Mutant("left scale", METHOD, "            self._check_left_scales()\n", ""),
    Mutant(
        "negative scale in a file",
        SCALING,
        '        check_loss_scale(scale, "the loss scale in the file")\n',
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
    Mutant("monitor ignored", SCALING, "            self.monitor\n", "            False\n"),
    Mutant(
        "nobody asks for scaled ones",
        SCALING,
        "            or any(is_scaled(param) for param in params)\n",
        "",
    ),
    Mutant("disabled rules count", SCALING, '            and getattr(rule, "enabled", True)\n', ""),
    Mutant(
        "memory not saved",
        SCALING,
        'child("loss_scale_nonfinite_ever", bool(self._loss_scaling_isnan_ever))',
        "pass",
    ),
    Mutant(
        "growth not saved",
        SCALING,
        '_prepare_scale(prepared, scale, flags["dynamic"], multiplier,',
        '_prepare_scale(prepared, scale, flags["dynamic"], None,',
    ),
    Mutant(
        "kind not saved", SCALING, '"_loss_scaling_is_dynamic", dynamic)', '"_unused", dynamic)'
    ),
    Mutant("no look", METHOD, "            self._unscale_and_look()\n", ""),
    Mutant("scale never adapted", METHOD, 'noted["_loss_scale"] = self._next_loss_scale()', "pass"),
    Mutant(
        "own adapting left out",
        METHOD,
        "                if adapts:\n",
        "                if False:\n",
    ),
    Mutant("skipped all the same", METHOD, "self._present() if safe else {}", "self._present()"),
    Mutant("facts kept", METHOD, "            self._facts = None\n", ""),
    Mutant("norm noted by hand", METHOD, "= self._unscaled, None", "= self._unscaled, 0"),
    Mutant(
        "raised before the hooks",
        METHOD,
        '            self.call_hooks("pre")\n            self._refuse_nonfinite()\n',
        '            self._refuse_nonfinite()\n            self.call_hooks("pre")\n',
    ),
    Mutant(
        "no report of what raised",
        METHOD,
        'noted["_last"] = self._report(t + 1, not safe, work.applied)\n',
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
    Mutant("False switches it on", METHOD, "rule.use_fp32_update(flag)", "rule.use_fp32_update()"),
    Mutant(
        "no master for late parameters",
        METHOD,
        "                if self._use_fp32_update:\n",
        "                if False:\n",
    ),
    Mutant("masters kept", BASE, "        if not flag:\n            self._fp32_param = None\n", ""),
    Mutant(
        "masters not rounded", BASE, "            round_to(param, stepped)\n", "            pass\n"
    ),
    Mutant(
        "masters not saved",
        BASE,
        'serializer("fp32_param", self._fp32_param.array)',
        "pass",
    ),
    Mutant(
        "no masters in batches",
        GATHER,
        "rule._stepped(param) if rule._use_fp32_update and",
        "rule._stepped(param) if False and",
    ),
    Mutant(
        "batches not rounded",
        GATHER,
        "*[_rounding(param.array, master.array) for _, param, master in mastered],\n",
        "\n",
    ),
    # what is kept between updates
    Mutant("changes unnoticed", GATHER, "kept is None or not kept.same()", "kept is None"),
    Mutant("counts set by hand", TABLE, "or rules[i].t != ts[i]\n", "\n"),
    Mutant(
        "scalars kept",
        GATHER,
        "if self._noted is None or not self._noted.same():",
        "if self._noted is None:",
    ),
    Mutant("arrays as scalars", GATHER, "noted if lasting else None", "noted"),
    Mutant("counts kept", TABLE, "    ts[:] = following\n", ""),
    Mutant("one t for all", GATHER, "if len(kept.groups) == 1 else", "if True else"),
    Mutant("warm-up kept", GATHER, "all(group.rule._start_alpha() for group in groups)", "True"),
    Mutant(
        "missing ones kept",
        GATHER,
        "batch.steady and len(steps) == len(self.rules)",
        "batch.steady",
    ),
    Mutant("gradients kept alive", ROWS, "        self.steps = []\n", ""),
    Mutant("amsgrad kept", TABLE, "row.amsgrad == <bint> values[AMSGRAD]", "True"),
    Mutant("adabound kept", TABLE, "and row.adabound == <bint> values[ADABOUND]", ""),
    Mutant("coefficients kept", TABLE, "self.narrow[row, k] = <float> <double> values[k]", "pass"),
    Mutant("eps of later steps unchecked", TABLE, "(eps != 0 and fabs", "(False and fabs"),
    Mutant("gradient's type unnoticed", TABLE, "tensor.g_type = stored(type", "stored(type"),
    Mutant(
        "master replaced",
        TABLE,
        "array = array, getattr(rules[i]._fp32_param, attribute)",
        "x = array, 0",
    ),
    Mutant("half array unnoticed", TABLE, "(row.half and half_pointer", "(False and half_pointer"),
    Mutant(
        "loss scale stays",
        TABLE,
        '        PyObject_GenericSetAttr(param, "_loss_scale", None)\n',
        "        pass\n",
    ),
    Mutant("optimizer not counted", TABLE, "    owner.update(noted)\n", ""),
    Mutant("loops do not follow", LOOPS, "                follow(p, g_block, p_block, n)\n", ""),
    Mutant(
        "masters follow all", LOOPS, "choose(written == fastadam_bits(rounded[i]),", "choose(False,"
    ),
    Mutant(
        "loops do not round",
        LOOPS,
        "            if tensor.half:\n                narrow(p, tensor.half_type, tensor.half",
        "            if False:\n                narrow(p, tensor.half_type, tensor.half",
    ),
    Mutant("not divided on the way", PREPARE, "flushed(g[i]) / scale)", "flushed(g[i]))"),
    Mutant("prepared but not written", LOOPS, "if tensor.prepare == WRITTEN:", "if False:"),
    Mutant("prepared and always written", LOOPS, "if tensor.prepare == WRITTEN:", "if True:"),
    Mutant("blocks from the start", LOOPS, "g = <real*> tensor.g + first", "g = <real*> tensor.g"),
    Mutant(
        "half products not rounded",
        ROWS,
        "return not write and (divided or rate == 1)",
        "return not write",
    ),
    Mutant("half gradients written", ROWS, "return not write and (divided", "return (divided"),
    Mutant("shared gradients written", ROWS, "return not write or self._separate()", "return True"),
    Mutant(
        "read-only gradients written",
        BATCH,
        "not all(is_writeable(g) for g in gradients)",
        "False",
    ),
    Mutant(
        "scales of other tables",
        BATCH,
        "[scales[i] or 0.0 for i in table.places]",
        "[scales[0] or 0.0 for i in table.places]",
    ),
    Mutant("still prepared", BATCH, "plain and not self._prepared", "plain"),
    Mutant("gradients in place though shared", LOOK, "single[i] = single[last] = False", "pass"),
    Mutant("a caller's gradient in place", LOOK, "and not is_lent(param)", ""),
    Mutant("size unnoticed", TABLE, "cnp.PyArray_SIZE(p) != row.n", "False"),
    Mutant("address unnoticed", TABLE, "or pointer(p, p_number, p, True) != row.p", ""),
    Mutant(
        "m unnoticed",
        TABLE,
        "for k in range(N_STREAMS):\n            if at[k] and",
        "for k in range(1, N_STREAMS):\n            if at[k] and",
    ),
    Mutant(
        "v unnoticed",
        TABLE,
        "if at[k] and pointer(",
        "if k != 1 and at[k] and pointer(",
    ),
    Mutant("new gradients unread", TABLE, "            row.g = g_at\n", "            pass\n"),
    Mutant(
        "overlaps of later steps",
        TABLE,
        "return first > 0 and self.high[first - 1] > begin",
        "return False",
    ),
    Mutant("hooks unnoticed", AGAIN, "    if hooks:\n", "    if False:\n"),
    Mutant("more hooks unnoticed", AGAIN, "if others or timing", "if timing"),
    Mutant("post hooks unnoticed", AGAIN, 'timing != "pre" or', ""),
    Mutant(
        "other hooks taken for clipping", AGAIN, 'or not brought_by_class(clipping, "folds")', ""
    ),
    Mutant("not finite but repeated", AGAIN, "not math.isfinite(norm) or ", ""),
    Mutant("threshold of nothing", AGAIN, "1.0 if rate is None else rate", "rate or 1.0"),
    Mutant("norm not told", AGAIN, "return norm, 1.0", "return None, 1.0"),
    Mutant(
        "dynamic scale not adapted", AGAIN, "            if dynamic:\n", "            if False:\n"
    ),
    Mutant("own adapting forgotten", AGAIN, "if not self._adapts:", "if True:"),
    Mutant("squares that overflow repeated", AGAIN, "asked and self._batch.doubtful", "False and "),
    Mutant("other walks unnoticed", AGAIN, "self._targets.parameters is not", "False and"),
    Mutant("lent ones written where they are", AGAIN, "and any(p._grad_borrowed", "and any(False"),
    Mutant("lent gradients written", AGAIN, "rate, not lent)", "rate, True)"),
    Mutant("own gradients not written", AGAIN, "rate, not lent)", "rate, False)"),
    Mutant("own methods unnoticed", AGAIN, "or not own.keys().isdisjoint(_OWN_PARTS)", ""),
    Mutant("monitor unnoticed", AGAIN, " or optimizer.monitor", ""),
    Mutant("skipping unnoticed", AGAIN, 'optimizer._on_nonfinite != "propagate"', "False"),
    Mutant("target unnoticed", AGAIN, "or not self._targets.unchanged()", ""),
    Mutant("rules unnoticed", GATHER, "return self.rules.same() and", "return"),
    Mutant("order of keys", "fastadam/update/tree.py", "if tuple(grads) == self.keys:", "if True:"),
    Mutant("keys unnoticed", "fastadam/update/tree.py", "tuple(tree) != self.keys or ", ""),
    Mutant(
        "links unnoticed",
        "fastadam/update/target.py",
        "return self._noted.same()",
        "return True",
    ),
    # the hooks
    Mutant("rate unchecked", HOOKS + "weight_decay.py", "        number(self, rate=rate)\n", ""),
    Mutant("decay after the step", HOOKS + "weight_decay.py", 'timing = "pre"', 'timing = "post"'),
    Mutant(
        "decay for the optimizer",
        HOOKS + "weight_decay.py",
        "call_for_each_param = True",
        "call_for_each_param = False",
    ),
    Mutant("lasso by size", HOOKS + "lasso.py", "np.sign(p)", "p"),
    Mutant("lasso of the gradient", HOOKS + "lasso.py", "np.sign(p)", "np.sign(g)"),
    Mutant("lasso rate unchecked", HOOKS + "lasso.py", "        number(self, rate=rate)\n", ""),
    Mutant(
        "hard bounds unchecked",
        HOOKS + "gradient_hard_clipping.py",
        "if not lower_bound <= upper_bound:",
        "if False:",
    ),
    Mutant(
        "hard bounds of any type",
        HOOKS + "gradient_hard_clipping.py",
        "        number(self, lower_bound=lower_bound, upper_bound=upper_bound)\n",
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
    Mutant("rates below 0", HOOKS + "_gradient.py", "if value < 0:", "if False:"),
    Mutant("rates of NaN", HOOKS + "_gradient.py", "        if nan:", "        if False:"),
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
        "fastadam/update/gradient_method.py",
        '            and getattr(rule, "enabled", True)\n        ]',
        "        ]",
    ),
    Mutant(
        "cleared gradients stay",
        "fastadam/update/gradient_method.py",
        "        super().call_hook(hook)\n        self.reallocate_cleared_grads()",
        "        super().call_hook(hook)",
    ),
    Mutant(
        "loss scales unnoticed",
        AGAIN,
        "scales = left if left != self._unscaled else None",
        "scales = None",
    ),
    Mutant("decay of the gradient", CHANGES, "(g_i + a * p[i]) * b", "(g_i + a * g_i) * b"),
    Mutant("no decay of gradients", CHANGES, "(g_i + a * p[i]) * b", "g_i * b"),
    Mutant("no rate of lars", CHANGES, "(g_i + a * p[i]) * b", "(g_i + a * p[i])"),
    Mutant("decay after the rate", CHANGES, "(g_i + a * p[i]) * b", "g_i * b + a * p[i]"),
    Mutant("lasso without sign", CHANGES, "g_i + a * sign(p[i])", "g_i + a * p[i]"),
    Mutant("sign of NaN", CHANGES, "zero if x == 0 else x", "zero"),
    Mutant("sign of 0", CHANGES, "zero if x == 0 else x", "one"),
    Mutant("clipped below only", CHANGES, "larger if larger < b else b", "larger"),
    Mutant("clipped above only", CHANGES, "g_i if g_i > a else a", "g_i"),
    Mutant("hard clipping drops NaN", CHANGES, "g_i if g_i != g_i else larger", "larger"),
    Mutant("not multiplied", CHANGES, "            g[i] = g_i * b\n", "            pass\n"),
    Mutant(
        "half changes not stored",
        CHANGES,
        "narrow(g, tensor.g_type",
        "widen(tensor.g_type, 0, g, 0)  #",
    ),
    Mutant(
        "half parameters of hooks",
        CHANGES,
        "widen(tensor.p_type, tensor.p + 2 * first",
        "widen(tensor.p_type, tensor.p + first",
    ),
    Mutant("changes flush", LOOPS, "tensors[0].change == STEP", "True"),
    Mutant("steps do not flush", LOOPS, "tensors[0].change == STEP", "False"),
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
        "[numbers[i] for i in places]",
        "[numbers[0] for i in places]",
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
    Mutant("any scale inverted", PREPARE, "&exponent) == 0.5", "&exponent) >= 0.5"),
    Mutant("the least scales inverted", PREPARE, "-100 < exponent < 100", "True"),
    Mutant(
        "prepared by the inverse", PREPARE, "flushed(g[i]) * inverse)", "flushed(g[i]) / inverse)"
    ),
    Mutant("prepared without the rate", PREPARE, "out[i] = g[i] * rate", "out[i] = g[i]"),
    Mutant("unscaled without the rate", PREPARE, "inverse) * rate", "inverse)"),
    Mutant("divided without the rate", PREPARE, "scale) * rate", "scale)"),
    Mutant(
        "quotient not flushed", PREPARE, "flushed(flushed(g[i]) / scale)", "(flushed(g[i]) / scale)"
    ),
    Mutant(
        "product not flushed",
        PREPARE,
        "flushed(flushed(g[i]) * inverse)",
        "(flushed(g[i]) * inverse)",
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
    Mutant(
        "no scale is one",
        BATCH,
        "divisors = 0.0 if scales is None",
        "divisors = 1.0 if scales is None",
    ),
    Mutant("squares by division", NORM, "g_i * scale if inverse", "g_i / scale if inverse"),
    Mutant(
        "scale for its inverse",
        NORM,
        "out, inverse, n, True, True, True",
        "out, scale, n, True, True, True",
    ),
    Mutant("own gradients left", AGAIN, " or not batch.cleared()", ""),
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
    Mutant("set threads step aside", CPU, "threads.set_by_hand() is not None", "False"),
    Mutant("set threads are timed", CPU, " and threads.set_by_hand() is None", ""),
    Mutant("small steps are timed", CPU, "if total >= SERIAL_BELOW and", "if"),
    Mutant(
        "steps with copies are timed", BATCH, "    if batch.steady:\n        batch", "    batch"
    ),
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
        f"{FILES}/npz.py",
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
]
