"""Who imports whom: imports point downward only, read from the sources of the installed package.

And what else is read from the sources: which operations the loops know, who asks what, pickles.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastadam
from fastadam.kernels import changing, ops

pytestmark = pytest.mark.docs

PACKAGE = Path(fastadam.__file__).parent

# From the top to the bottom, floors 6 to 0 with the public faces between; within a line, imports go
# to what stands before.
FLOORS = """
__main__
cli bench
configuration link optimizer __init__
optimizer_hooks optimizers comparison checkpoint chainer torch
update
model
files serializers
kernels
algorithms _version
"""

# They import nothing of the package and stand below all floors, though their place is where what
# they are for is done.
GROUND = {"update.exclusive", "update.interrupt", "update.overrides", "update.text_table"}
# and this under it: what compares objects, in C
BELOW_GROUND = {"kernels._noted"}

# In each folder, imports go to lower lines; a folder's own __init__ stands above its modules.
FOLDERS = {
    "algorithms": """
        table coefficients
        _coefficients
        adam
        algorithm suggestions
        number
    """,
    "bench": """
        command
        cuda_plans cuda_picture tensor_plans
        cuda_host cuda_norm picture
        cuda_ceilings training plans
        ratios report
        cuda tensors
        peers cuda_steps
        cuda_arrays
        libraries
        own floor
        contender headers
        arrays
        cases settings timing machine targets
    """,
    "chainer": "",
    "checkpoint": """
        loading listing saving
        arguments ruled
        optimizer_loading kinds
        hook_loading
        source_deserializer
        source
        contents renaming
        report
    """,
    "cli": """
        demo selftest info inspect
        demo_training
        selftest_checks demo_network
        hard_run
        fixed_run powers
        plain_numpy extras output arguments program
    """,
    "comparison": """
        compare
        differences
    """,
    "files": """
        verified
        formats
        npz hdf5
        npz_writer hdf5_writer manifest hdf5_group zip_directory
        zip_member
        entries names
        hdf5_image
        limits hdf5_calls
        hdf5_types none atomic errors hdf5_filters
    """,
    "kernels": """
        step
        plain_steps
        multi_tensor changing
        sums
        grouping
        gpu
        table
        arrays reference
        memory
        cpu
        dtypes
        backend bits ops _commit _noted _pages _source
    """,
    "kernels.cpu": """
        gradient_table
        engine threads
        _threads
        cgroup converting _late_steps
        _door
        _rows
        _steps
        _single _tensors _walks _written
        _layout _step _step_avx2 _step_avx512 _floor _openmp _cpu_features
    """,
    "kernels.gpu": """
        steps
        arrays table
        sums
        engine
        source uploads _tensors
        source_adam source_ops source_sums source_walk
    """,
    "model": """
        chain
        link
        registry loading _gradients
        parameter
        lazy_array gradient_checks
        device initializer
    """,
    "optimizer_hooks": """
        deprecated
        weight_decay lasso gradient_clipping gradient_hard_clipping gradient_noise gradient_lars
        _gradient
    """,
    "optimizers": """
        variants
        adam
        adam_rule
        gate adam_state
        suggestions decay_advice
    """,
    "serializers": """
        prepared
        npz hdf5
        _hdf5_writing
        _hdf5_reading
        _reading dictionary
        _templates
        protocol remembering
    """,
    "torch": """
        bounded backward checkpoint description module
        optimizers group_loading shared_memory state_loading
        stepping stored
        gpu_plan
        graphs plan report
        clipping groups states _tensors
        tensors
        _reading gpu _items
    """,
    "update": """
        gradient_method
        making
        folded
        ruled
        loss_scale graph
        optimizer plan
        order rule_steps
        snapshot
        rule
        rule_state
        state_loading master gradients lending _scalars
        target parameter_table hooks hyperparameter report
        noted_links paths
        ties _tree _rule_source flags
        bridges
        exclusive interrupt overrides text_table lossfun loss_scale_files frozen lender
    """,
}

# What the kernels know of dtypes, arrays and their libraries is for everybody.
KNOWLEDGE = {
    *("kernels.dtypes", "kernels.arrays", "kernels.backend", "kernels.bits"),
    "kernels.memory",
    *("kernels._commit", "kernels._noted", "kernels._pages"),
}

# A list of links is made of links, so a link's repeat() needs it when it is called.
UPWARD = {("model.link", "model.chain")}

# Names of Chainer's that its users read.
CHAINERS = {
    *("_loss_scale", "_loss_scaling_is_dynamic", "_loss_scaling_isnan", "_loss_scale_max"),
    # and what its parameters have
    "_set_grad_without_check",
}


def ranks(layers: str) -> dict[str, int]:
    """Number the lines from the bottom."""
    lines = layers.strip().splitlines()[::-1]
    return {name: rank for rank, line in enumerate(lines) for name in line.split()}


def floors() -> dict[str, tuple[int, int]]:
    """Number the lines of FLOORS from the bottom, and within a line from the left."""
    lines = FLOORS.strip().splitlines()[::-1]
    return {name: (n, k) for n, line in enumerate(lines) for k, name in enumerate(line.split())}


def modules() -> list[str]:
    """Dotted names of the source modules, without the package's own."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        names.append(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    return names


def extensions() -> list[str]:
    """Dotted names of the compiled modules, which all have stubs."""
    paths = sorted(PACKAGE.rglob("*.pyi"))
    return [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in paths]


@functools.cache
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
    known = {*modules(), *extensions()}
    found = set()
    for name in imports(module):
        parts = name.split(".")
        if parts[0] != "fastadam":
            continue
        candidates = [".".join(parts[1:n]) for n in range(len(parts), 1, -1)]
        candidates += [f"{name}.__init__" for name in candidates]
        found.add(next((name for name in candidates if name in known), "__init__"))
    return found


def is_below(module: str, imported: str) -> bool:
    """Tell whether a module may import another one."""
    ours, theirs = module.split("."), imported.split(".")
    shared = 0
    while shared < min(len(ours), len(theirs)) - 1 and ours[shared] == theirs[shared]:
        shared += 1
    mine, its = ours[shared], theirs[shared]
    if shared == 0:
        return floors()[mine] > floors()[its]
    order = {"__init__": 99, **ranks(FOLDERS[".".join(ours[:shared])])}
    return order[mine] > order[its]


def test_the_floors_name_every_module() -> None:
    folders = {name for name in floors() if "." not in name} & set(FOLDERS)
    assert folders == {name for name in FOLDERS if "." not in name}
    named = set(floors()) - folders
    for folder, layers in FOLDERS.items():
        named |= {f"{folder}.{name}" for name in ranks(layers)} | {f"{folder}.__init__"}
    assert {*modules(), *extensions()} == named - set(FOLDERS)


def test_imports_point_downward() -> None:
    pairs = {(module, name) for module in modules() for name in own_imports(module) - GROUND}
    assert {pair for pair in pairs - UPWARD if not is_below(*pair)} == set()


def test_the_ground_stands_on_nothing() -> None:
    assert {name for module in GROUND for name in own_imports(module)} <= BELOW_GROUND
    # it imports nothing at all of the package, and is no part of an import circle therefore
    for module in BELOW_GROUND:
        source = Path(__file__).parents[1] / "fastadam" / f"{module.replace('.', '/')}.pyx"
        assert "fastadam." not in re.sub(r'""".*?"""', "", source.read_text(), flags=re.S)


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
    sources = sorted(Path(__file__).parents[1].glob("fastadam/kernels/**/*.p[yx][xdi]"))
    assert sources, "the tests come with the sources of the extensions"
    for path in sources:
        for name in re.findall(r"^\s*(?:from|c?import)\s+(fastadam[\w.]*)", path.read_text(), re.M):
            below = ("fastadam.kernels.", "fastadam.algorithms.")
            assert name.startswith(below), f"{path.name} imports {name}"


def test_only_the_optimizers_call_kernels() -> None:
    allowed = re.compile(
        r"kernels\.|optimizers\.|optimizer_hooks\.|torch\.|bench\.|cli\.|"
        r"(__init__|configuration|update\.gradients|update\.folded|update\.rule_steps)$"
    )
    for module in modules():
        if not allowed.match(module):
            called = {name for name in own_imports(module) if name.startswith("kernels")}
            assert called <= KNOWLEDGE, module


def is_private(name: str) -> bool:
    """Tell whether a name is private; those of named tuples are not."""
    return bool(re.fullmatch(r"_[A-Za-z]\w*", name)) and name not in ("_replace", "_fields")


def private_names(folder: str) -> set[str]:
    """The private names that the classes and modules of a folder define."""
    found: set[str] = set()
    for module in modules():
        if module.split(".")[0] != folder:
            continue
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if ast.unparse(node.value) in ("self", "cls"):
                    found.add(node.attr)
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__":
                values = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
                found |= {value for value in values if isinstance(value, str)}
    return {name for name in found if is_private(name)}


def private_uses() -> Iterator[tuple[str, str]]:
    """Yield (module, name) for private attributes of anything but ``self`` and ``cls``."""
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
                yield module, node.attr
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr"):
                yield module, ast.unparse(node.args[1]).strip("'")
    for path in sorted(Path(__file__).parents[1].glob("fastadam/**/*.pyx")):
        module = ".".join(path.with_suffix("").parts[-path.parts[::-1].index("fastadam") :])
        text = re.sub(r"^\s*(from|c?import) .*$", "", path.read_text(), flags=re.M)
        for owner, name in re.findall(r"([\w\])]+)\.(_\w+)", text):
            if owner not in ("self", "cls"):
                yield module, name


def test_private_attributes_stay_in_their_folder() -> None:
    defined = {folder: private_names(folder) for folder in floors()}
    found = set()
    for module, name in private_uses():
        own = CHAINERS | defined[module.split(".")[0]]
        if is_private(name) and name not in own and any(name in each for each in defined.values()):
            found.add((module, name))
    assert found == set()


def branches(path: str, function: str, end: str) -> set[str]:
    """The operations that a function of the loops, up to its end, compares `kind` with."""
    text = (Path(__file__).parents[1] / "fastadam/kernels" / path).read_text()
    begin = text.index(function)
    return set(re.findall(r"\bkind == ([A-Z_]+)", text[begin : text.index(end, begin)]))


def test_every_operation_has_a_branch() -> None:
    """The last branch multiplies, so that an operation without one would do that silently."""
    kinds = {name for name in ops.__all__ if isinstance(getattr(ops, name), int)}
    rounded, last = {"ROUND"}, {"MULTIPLY"}
    spelled = branches("cpu/_ops.pxi", " op_span(", "\ncdef ") - {"BY_INVERSE"}
    assert spelled == branches("cpu/_ops.pxi", " op_typed(", "\ncdef ") == kinds - rounded - last
    assert rounded <= branches("cpu/_ops.pxi", " apply(", "memcpy")
    on_gpu = {name for name in changing.__all__ if name in kinds}
    assert branches("gpu/source_ops.py", " changed(", "template") == on_gpu - last


def test_operations_have_the_same_numbers_everywhere() -> None:
    kinds = sorted(
        (getattr(ops, name), name) for name in ops.__all__ if isinstance(getattr(ops, name), int)
    )
    kernels = Path(__file__).parents[1] / "fastadam/kernels"
    listed = (kernels / "cpu/_tensors.pxd").read_text().partition("enum OpKind:\n")[2]
    in_c = re.findall(r"^    ([A-Z_]+)", listed.partition("\n\n")[0], re.M)
    assert list(enumerate(in_c)) == kinds
    in_cuda = re.search(r"enum Kind { STEP, (.*) };", (kernels / "gpu/source.py").read_text())
    assert in_cuda is not None
    assert set(enumerate(in_cuda[1].split(", "), start=1)) <= set(kinds)


def asks_what_is_overridden(node: ast.AST) -> bool:
    """Tell whether an expression compares a class's method with another, or looks for its class."""
    text = ast.unparse(node) if isinstance(node, ast.expr) else ""
    if isinstance(node, ast.Attribute):
        return node.attr in ("__func__", "__mro__")
    if isinstance(node, ast.Call):
        return bool(re.match(r"vars\(type\(|.*\.__module__\.(startswith|partition)\(", text))
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot):
        return bool(re.search(r"type\([\w.]+\)\.\w|getattr\(type\(", text))
    return False


def test_one_place_asks_what_is_overridden() -> None:
    asking = {
        module
        for module in modules()
        if any(asks_what_is_overridden(node) for node in ast.walk(tree(module)))
    }
    assert asking == {"update.overrides"}


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
        # a bridge's own folder apart
        others = foreign - {module.split(".")[0]}
        assert others.isdisjoint(name.split(".")[0] for name in imports(module)), module


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
