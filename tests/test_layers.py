"""Who imports whom: imports point downward only, read from the sources of the installed package."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastadam

pytestmark = pytest.mark.docs

PACKAGE = Path(fastadam.__file__).parent

# From the top to the bottom; a module imports modules of lower lines only.
LAYERS = """
__main__
bench
cli
__init__
configuration checkpoint chainer
optimizers
optimizer
optimizer_hooks gradient_method
loss_scaling dispatch lending repetition
_optimizer replay
comparison divergence
description difference
update_rule
state_loading
rule_batch fp32_update gradient_pass own_update
targets parameter_table hookable hyperparameter array_difference update_report
noted_links ties
link
chain
_link
_registry _restore
parameter
_lazy_array
device initializer tree_shape
serializers
update interrupt
files
exclusive
kernels
algorithms
_version
"""
BENCH = """
command
plans picture
chain memory subnormal sweep
ratios report
peers targets
device
own cuda_steps other_steps
torch_steps floor
contender headers
arrays
cases settings spread timing machine
"""
CLI = """
demo selftest info inspect
demo_training
selftest_checks demo_network demo_plot demo_timing
hard_run
fixed_run powers
plain_numpy extras output arguments program
"""
ALGORITHMS = """
__init__
table
"""
KERNELS = """
step
batch changing
norm gpu_table
gpu_arrays table
gpu_norm gradient_table arrays
gpu cpu strided
cuda_source
reference
coefficients
crowding threads dtypes
cgroup backend
_table _commit _noted _pages _device_rows _cpu _cpu_avx2 _cpu_avx512 _floor _openmp _cpu_features
"""
CHECKPOINT = """
__init__
loading listing
optimizer_loading
saving target_loading hook_loading
source_deserializer
source rehearsal
contents
report
"""
FILES = """
verified
formats
npz hdf5
npz_writer hdf5_writer manifest hdf5_group
entries names
hdf5_image hdf5_strings
limits hdf5_calls
hdf5_types none atomic errors hdf5_places hdf5_filters
"""
OPTIMIZERS = """
__init__
variants
adam
adam_rule
adam_batch gate
names decay_advice
"""
OPTIMIZER_HOOKS = """
__init__
weight_decay lasso gradient_clipping gradient_hard_clipping gradient_noise gradient_lars
_gradient
"""
SERIALIZERS = """
__init__
prepared
npz hdf5
_hdf5_writing
_hdf5_reading
_reading dictionary
_templates
protocol remembering
"""
UPDATE = """
__init__
overrides
"""
# What the kernels know of dtypes, arrays and their libraries is for everybody.
KNOWLEDGE = {
    *("kernels.dtypes", "kernels.arrays", "kernels.backend"),
    *("kernels._commit", "kernels._noted", "kernels._pages"),
}
PACKAGES = {
    "algorithms": ALGORITHMS,
    "bench": BENCH,
    "chainer": "__init__",
    "checkpoint": CHECKPOINT,
    "cli": CLI,
    "files": FILES,
    "kernels": KERNELS,
    "optimizer_hooks": OPTIMIZER_HOOKS,
    "optimizers": OPTIMIZERS,
    "serializers": SERIALIZERS,
    "update": UPDATE,
}

# A list of links is made of links, so a link's repeat() needs it when it is called.
UPWARD = {("_link", "chain")}


def ranks(layers: str) -> dict[str, int]:
    """Number the lines from the bottom."""
    lines = layers.strip().splitlines()[::-1]
    return {name: rank for rank, line in enumerate(lines) for name in line.split()}


def modules() -> list[str]:
    """Dotted names of the source modules, without the package's own."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        names.append(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    return names


def tree(module: str) -> ast.Module:
    """Parse a module; imports for type checkers only are left out."""
    parsed = ast.parse(PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text())
    for node in ast.walk(parsed):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    return parsed


def imports(module: str) -> Iterator[str]:
    """Yield the full dotted names that a module imports, those in functions too."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def own_imports(module: str) -> set[str]:
    """The modules of this package that a module imports, without the leading 'fastadam.'."""
    known = set(modules()) | {f"kernels.{name}" for name in ranks(KERNELS)}
    found = set()
    for name in imports(module):
        parts = name.split(".")
        if parts[0] != "fastadam":
            continue
        candidates = [".".join(parts[1:n]) for n in range(len(parts), 1, -1)]
        candidates += [f"{name}.__init__" for name in candidates]
        found.add(next((name for name in candidates if name in known), "__init__"))
    return found


def test_the_layers_name_every_module() -> None:
    named = set(ranks(LAYERS)) - set(PACKAGES)
    for package, layers in PACKAGES.items():
        named |= {f"{package}.{name}" for name in ranks(layers)} | {f"{package}.__init__"}
    compiled = {f"kernels.{name}" for name in KERNELS.strip().splitlines()[-1].split()}
    assert set(modules()) == named - compiled


@pytest.mark.parametrize("module", modules())
def test_imports_point_downward(module: str) -> None:
    top = ranks(LAYERS)
    own_package, _, own_name = module.rpartition(".")
    for imported in own_imports(module):
        package, _, name = imported.rpartition(".")
        if (module, imported) in UPWARD:
            continue
        if package and package == own_package:
            # a package's own __init__ stands above its modules
            inner = {"__init__": 99, **ranks(PACKAGES[package])}
            allowed = inner[own_name] > inner[name]
        else:
            allowed = top[own_package or module] > top[package or imported]
        assert allowed, f"{module} imports {imported}, which is not below it"


def test_the_exceptions_are_in_functions() -> None:
    for module, imported in UPWARD:
        at_import = [node for node in tree(module).body if isinstance(node, ast.ImportFrom)]
        assert f"fastadam.{imported}" not in {node.module for node in at_import}
        assert imported in own_imports(module)


def test_the_kernels_know_nothing_of_the_objects() -> None:
    for module in modules():
        if module.startswith("kernels."):
            below = ("kernels.", "algorithms.")
            assert all(name.startswith(below) for name in own_imports(module)), module


def test_the_loops_know_nothing_of_the_objects() -> None:
    sources = sorted(Path(__file__).parents[1].glob("fastadam/kernels/*.p[yx][xdi]"))
    assert sources, "the tests come with the sources of the extensions"
    for path in sources:
        for name in re.findall(r"^\s*(?:from|c?import)\s+(fastadam[\w.]*)", path.read_text(), re.M):
            assert name.startswith("fastadam.kernels."), f"{path.name} imports {name}"


def test_only_the_optimizers_call_kernels() -> None:
    allowed = re.compile(
        r"kernels\.|optimizers\.|optimizer_hooks\.|bench\.|cli\.|"
        r"(__init__|configuration|gradient_pass|repetition)$"
    )
    for module in modules():
        if not allowed.match(module):
            called = {name for name in own_imports(module) if name.startswith("kernels")}
            assert called <= KNOWLEDGE, module


def test_nothing_is_pickled() -> None:
    for module in modules():
        parts = {part for name in imports(module) for part in name.split(".")}
        assert parts.isdisjoint({"pickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve"})
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", f"{module}: allow_pickle"


def test_nobody_imports_an_array_library_but_numpy() -> None:
    foreign = {"cupy", "jax", "torch", "chainer", "autograd", "tensorflow"}
    for module in modules():
        assert foreign.isdisjoint(name.split(".")[0] for name in imports(module)), module


def test_importing_the_package_brings_in_numpy_alone() -> None:
    script = (
        "import sys; before = set(sys.modules); import numpy; before |= set(sys.modules)\n"
        "import fastadam, fastadam.__main__\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # numpy's submodules come as they are needed, and Cython's modules register its runtime
    others = {name for name in done.stdout.split() if "cython" not in name}
    assert others - {"numpy"} == {"fastadam"}
