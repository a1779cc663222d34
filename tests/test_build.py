"""The build: what is built for whom, what its errors say, and what came out of it."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fastadam
from fastadam.kernels.cpu import _cpu_features, _openmp

SOURCE = Path(__file__).resolve().parents[1]
INSTALLED = Path(fastadam.__file__).resolve().parent
SETUP = SOURCE / "setup.py"


@pytest.fixture(scope="module")
def setup():
    """Return the names that setup.py defines; it builds nothing unless run as a program."""
    pytest.importorskip("Cython", reason="needs Cython, with which fastadam is built")
    pytest.importorskip("setuptools", reason="needs setuptools, with which fastadam is built")
    return runpy.run_path(str(SETUP), run_name="setup")


@pytest.fixture
def build(setup, tmp_path):
    """Return a function that begins a build in a copy of the source tree."""
    shutil.copy(SETUP, tmp_path)
    shutil.copytree(SOURCE / "fastadam", tmp_path / "fastadam", ignore=ignore_compiled)
    shutil.copy(SOURCE / "pyproject.toml", tmp_path)
    (tmp_path / "README.md").touch()

    def run(**environ: str) -> tuple[int, str]:
        command = [sys.executable, "setup.py", "build_ext"]
        names = ("CC", "CFLAGS", "LDFLAGS", "FASTADAM_OPENMP", "PYTHONWARNINGS")
        clean = {name: value for name, value in os.environ.items() if name not in names}
        done = subprocess.run(
            command, cwd=tmp_path, env=clean | environ, capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stdout + done.stderr

    return run


def ignore_compiled(folder: str, names: list[str]) -> list[str]:
    """List what a source tree does not hold."""
    return [name for name in names if name == "__pycache__" or name.endswith(".so")]


def compiler(folder: Path, script: str) -> str:
    """Write a C compiler of a few lines of shell and return its path."""
    path = folder / "cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    "platform", ["linux-x86_64", "macosx-11.0-x86_64", "freebsd-14.1-RELEASE-amd64"]
)
def test_every_instruction_set_is_built_for_x86_64(setup, platform):
    assert list(setup["instruction_sets"](platform)) == ["baseline", "avx2", "avx512"]


@pytest.mark.parametrize(
    "platform", ["linux-aarch64", "macosx-11.0-arm64", "macosx-11.0-universal2", "freebsd-14-arm64"]
)
def test_the_baseline_alone_is_built_for_others(setup, platform):
    assert list(setup["instruction_sets"](platform)) == ["baseline"]
    modules = [extension.name for extension in setup["extensions"](platform)]
    assert "fastadam.kernels.cpu._step" in modules
    assert not [name for name in modules if "avx" in name]


def test_a_change_of_an_included_source_compiles_what_includes_it(setup):
    def included(path: Path) -> set[Path]:
        text = path.read_text()
        names = re.findall(r'^include "(.*)"', text, re.M)
        modules = re.findall(r"^from (fastadam\S*) cimport", text, re.M)
        found = {path.parent / name for name in names}
        found |= {SOURCE / f"{name.replace('.', '/')}.pxd" for name in modules}
        if path.suffix == ".pyx" and path.with_suffix(".pxd").exists():
            # Cython reads it without being told
            found.add(path.with_suffix(".pxd"))
        return found.union(*map(included, found))

    for extension in setup["extensions"]("linux-x86_64"):
        source = SOURCE / extension.sources[0]
        named = {SOURCE / name for name in extension.depends}
        assert named - {source} == included(source), extension.name


def test_windows_is_refused(setup):
    with pytest.raises(setup["OptionError"], match="not on Windows"):
        setup["instruction_sets"]("win-amd64")


@pytest.mark.parametrize(
    "platform", ["linux-riscv64", "linux-i686", "linux-armv7l", "linux-ppc64le", "freebsd-14-i386"]
)
def test_machines_whose_subnormals_nobody_can_flush_are_refused(setup, platform):
    with pytest.raises(setup["OptionError"], match=f"64-bit Arm.*{platform}"):
        setup["extensions"](platform)


def test_the_source_refuses_them_with_one_error(tmp_path):
    """Where setup.py cannot know, as with -m32: no error that follows from the first."""
    text = (SOURCE / "fastadam/kernels/cpu/_mode.pxi").read_text()
    begin = text.index("#if defined(__x86_64__)")
    code = text[begin : text.index("#endif", begin)] + "#endif\n"
    code += "void use(void) { fastadam_mode saved = fastadam_flush_on(); "
    code += "saved = fastadam_flush_off(); fastadam_flush_restore(saved); }\n"
    path = tmp_path / "refused.c"
    path.write_text("#undef __x86_64__\n#undef __aarch64__\n" + code)
    done = run_compiler("cc", "-c", str(path), "-o", os.devnull)
    assert done.returncode != 0
    (error,) = [line for line in done.stderr.splitlines() if "error:" in line]
    assert "on x86-64 and on 64-bit Arm only" in error


def run_compiler(*command: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_target_counts_and_not_the_machine_that_builds(setup, tmp_path):
    code = "import runpy, sys; names = runpy.run_path(sys.argv[1], run_name='setup')\n"
    code += "made = names['extensions'](names['get_platform']())\n"
    code += "print([e.name.removeprefix('fastadam.').removeprefix('kernels.') for e in made])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(SETUP)],
        env=os.environ | {"_PYTHON_HOST_PLATFORM": "linux-aarch64"},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    names = (
        "'cpu._step', 'cpu._floor', 'algorithms._coefficients', 'cpu._tensors', 'cpu._layout', "
        "'cpu._written', 'cpu._steps', 'cpu._rows', 'cpu._door', 'cpu._single', 'cpu._walks', "
        "'_commit', 'model._gradients', 'update._tree', 'torch._reading', 'torch._tensors', "
        "'_noted', '_pages', '_source', "
        "'gpu._tensors', 'update._rule_source', 'update._scalars', 'torch._items', "
        "'cpu._cpu_features', 'cpu._openmp', 'cpu._threads', 'cpu._late_steps'"
    )
    assert done.stdout.strip() == f"[{names}]"


# What takes back whatever flags of the user's would change the numbers without a word.
TAKEN_BACK = [
    "-fno-fast-math",
    "-fno-unsafe-math-optimizations",
    "-fno-finite-math-only",
    "-fno-associative-math",
    "-fno-reciprocal-math",
    "-fsigned-zeros",
]


@pytest.mark.parametrize(
    ("platform", "more"),
    [
        ("linux-x86_64", ["-mfpmath=sse"]),
        ("freebsd-14.1-RELEASE-amd64", ["-mfpmath=sse"]),
        ("linux-aarch64", []),
        ("macosx-11.0-universal2", []),
    ],
)
def test_the_flags_that_keep_the_bits_come_last(setup, platform, more):
    last = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
    loops = 0
    for extension in setup["extensions"](platform):
        flags = extension.extra_compile_args
        name = extension.name.rpartition(".")[2]
        if name in ("_step", "_step_avx2", "_step_avx512", "_floor", "_coefficients"):
            loops += 1
            # contraction after all that could switch it on again
            assert flags[-4:] == last, name
            flags = flags[:-4]
        # every extension: _tensors rounds the coefficients
        assert flags[-6 - len(more) :] == TAKEN_BACK + more, name
        before = flags[: -6 - len(more)]
        assert not [f for f in before if not f.startswith(("-mavx", "-mfma", "-mf16c", "-mpref"))]
    assert loops == (5 if more else 3)


def test_extensions_of_the_last_build_that_are_gone_are_removed(setup, tmp_path):
    from setuptools import Distribution

    modules = setup["extensions"]("linux-x86_64")
    command = setup["BuildExtensions"](Distribution({"name": "x", "ext_modules": modules}))
    command.build_lib = command.build_temp = str(tmp_path)
    command.ensure_finalized()
    made, gone, moved = (
        Path(command.get_ext_fullpath(f"fastadam.kernels.{name}"))
        for name in ("cpu._step", "_gone", "_step")
    )
    source = made.with_name("engine.py")
    others = made.with_name("_gone.cpython-399-other.so")
    for path in (made, source, others, gone, moved):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    command.remove_old()
    assert all(path.exists() for path in (made, source, others))
    assert not any(path.exists() for path in (gone, moved))


COMPILERS = pytest.mark.parametrize("compiler", ["cc", "clang", "clang-14"])


@COMPILERS
def test_compilers_take_the_flags_without_a_word(setup, tmp_path, compiler):
    path = tmp_path / "probe.c"
    path.write_text(PROBE)
    for extension in setup["extensions"](setup["get_platform"]()):
        flags = extension.extra_compile_args
        if "clang" in run_compiler(compiler, "--version").stdout:
            flags = [flag for flag in flags if flag != setup["WARNED_OF_BY_CLANG"]]
        command = [compiler, "-Wall", "-Wextra", "-Werror", *flags, "-c", str(path)]
        done = run_compiler(*command, "-o", str(tmp_path / "probe.o"))
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), extension.name


@COMPILERS
def test_flags_from_the_environment_change_no_numbers(setup, tmp_path, compiler):
    path, program = tmp_path / "probe.c", tmp_path / "probe"
    path.write_text(PROBE)
    flags = setup["extensions"](setup["get_platform"]())[0].extra_compile_args
    changed = 0
    for hostile in HOSTILE:
        command = [compiler, "-O3", hostile, str(path), "-lm", "-o", str(program)]
        if run_compiler(*command).returncode:
            continue  # a flag of other compilers or machines
        changed += subprocess.run([program]).returncode != 0
        for given in (flags, [f for f in flags if f != setup["WARNED_OF_BY_CLANG"]]):
            assert run_compiler(*command[:3], *given, *command[3:]).returncode == 0
            assert subprocess.run([program]).returncode == 0, hostile
    assert changed >= 3  # so that it is seen where a flag changes numbers


# Single flags that change numbers and are not refused; tests/hostile_flags.py builds with each.
HOSTILE = runpy.run_path(str(SOURCE / "tests" / "hostile_flags.py"))["FLAGS"]

# It ends with 0 where the compiler keeps to IEEE 754.
PROBE = """#include <math.h>
#define called __attribute__((noinline))
called static int is_nan(float x) { return x != x; }
called static float remainder_(float a, float b) { return (a + b) - a; }
called static float plus_zero(float x) { return x + 0.0f; }
called static void divide(float *x, float by, int n) {
    for (int i = 0; i < n; i++)
        x[i] = x[i] / by;
}
int main(int count, char **arguments) {
    float quotients[64];
    (void) arguments;
    for (int i = 0; i < 64; i++)
        quotients[i] = (float) (i + count);
    divide(quotients, 41.0f * (float) count, 64);
    return !is_nan(nanf("") * (float) count)             /* finite-math-only */
        || remainder_(16777216.0f, (float) count) != 0   /* associative-math, -mfpmath=387 */
        || signbit(plus_zero(-0.0f * (float) count))     /* no-signed-zeros */
        || quotients[40] != 1.0f;                        /* reciprocal-math: 41 * (1/41) < 1 */
}
"""


def test_the_flags_need_no_more_than_what_is_asked_of_the_cpu(setup):
    # supported() in _cpu_features.pyx asks for these and no others
    flags = {name: set(flags) for name, (_, flags) in setup["X86_64"].items()}
    assert flags["baseline"] == set()
    assert flags["avx2"] == {"-mavx2", "-mfma", "-mf16c"}
    wide = {"-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"}
    assert flags["avx512"] == wide | {"-mfma", "-mf16c"}


@pytest.mark.parametrize("choice", ["auto", "on", "off"])
def test_the_three_choices_of_openmp(setup, choice):
    assert setup["openmp_choice"]({"FASTADAM_OPENMP": choice}) == choice
    assert setup["openmp_choice"]({}) == "auto"


def test_another_choice_of_openmp_is_an_error(build):
    status, output = build(FASTADAM_OPENMP="yes")
    assert status != 0
    assert "FASTADAM_OPENMP='yes': it must be auto, on or off" in output


@pytest.mark.parametrize("choice", ["auto", "off"])
def test_a_missing_compiler_is_an_error_that_says_what_to_install(build, choice):
    status, output = build(CC="no-such-compiler", FASTADAM_OPENMP=choice)
    assert status != 0
    assert "no C program could be compiled and linked with no-such-compiler" in output
    assert "apt-get install gcc python3-dev" in output


def test_a_compiler_without_openmp_is_an_error_that_says_what_to_do(build, tmp_path):
    script = 'case "$*" in *-fopenmp*) echo "no OpenMP here" >&2; exit 1;; esac; exec cc "$@"'
    status, output = build(CC=compiler(tmp_path, script))
    assert status != 0
    assert "no OpenMP program could be compiled and run" in output
    assert "FASTADAM_OPENMP=off builds kernels that run on one thread" in output


def test_a_program_that_compiles_and_does_not_run_is_no_openmp(build, tmp_path):
    # as where the runtime is missing: the program is linked, and ends with an error
    script = 'cc "$@" && case "$*" in *"-o "*probe" "*) printf "#!/bin/sh\\nexit 3\\n" > '
    script += '"$(echo "$*" | sed "s/.*-o \\([^ ]*\\).*/\\1/")";; esac'
    status, output = build(CC=compiler(tmp_path, script))
    assert status != 0
    assert "no OpenMP program could be compiled and run" in output
    assert "status 3" in output


@pytest.fixture
def emptied(build, tmp_path):
    """Leave nothing to translate in the copy of the source tree, which takes a while."""
    for path in (tmp_path / "fastadam").rglob("*.p[yx][xdi]"):
        path.write_text("")


def test_openmp_on_tries_nothing(build, emptied, tmp_path):
    log = tmp_path / "log"
    script = f'echo "$*" >> {log}; exit 1'
    status, output = build(CC=compiler(tmp_path, script), FASTADAM_OPENMP="on")
    assert status != 0
    assert "probe" not in log.read_text()
    assert "-fopenmp" in log.read_text()
    assert "could not be" not in output


def test_clang_is_spared_the_flag_that_it_warns_of(setup, build, emptied, tmp_path):
    log = tmp_path / "log"
    script = 'case "$*" in *--version*) echo "Debian clang version 14.0.6"; exit 0;; esac; '
    script += f'echo "$*" >> {log}; exit 1'
    status, output = build(CC=compiler(tmp_path, script), FASTADAM_OPENMP="on")
    assert status != 0
    assert "Traceback" not in output
    (command, *_) = log.read_text().splitlines()
    given = [flag for flag in TAKEN_BACK if flag in command]
    assert given == [flag for flag in TAKEN_BACK if flag != setup["WARNED_OF_BY_CLANG"]]
    # each extension has flags of its own
    flags = [extension.extra_compile_args for extension in setup["extensions"]("linux-x86_64")]
    assert len({id(own) for own in flags}) == len(flags)


@pytest.mark.parametrize("flag", ["-ffast-math", "-Ofast", "-mdaz-ftz"])
@pytest.mark.parametrize("variable", ["CFLAGS", "LDFLAGS"])
def test_fast_math_from_the_environment_is_refused(build, flag, variable):
    status, output = build(**{variable: f"-g {flag}"})
    assert status != 0
    assert f"{flag} would change the numbers" in output


def installed_extension(name: str) -> bytes:
    """Return the contents of an installed extension."""
    (path,) = (INSTALLED / "kernels" / "cpu").glob(f"{name}.*.so")
    return path.read_bytes()


@pytest.mark.skipif(
    os.environ.get("FASTADAM_TEST_INSTRUMENTED") == "1", reason="built with Cython's checks"
)
@pytest.mark.parametrize("name", ["_step", "_step_avx2", "_step_avx512"])
def test_the_directives_took_effect_in_included_loops_too(name):
    if name not in ("_step", *(f"_step_{isa}" for isa in _cpu_features.built())):
        pytest.skip(f"this build has no {name}")
    code = installed_extension(name)
    assert b"adam_float32" in code
    # what the code of the loops says where the directives are not set
    assert b"Out of bounds on buffer access (axis %d)" not in code  # boundscheck
    assert b"float division" not in code  # cdivision


def test_the_wheel_has_openmp_or_not_as_it_was_meant_to():
    expected = os.environ.get("FASTADAM_TEST_OPENMP")
    if expected is None:
        pytest.skip("FASTADAM_TEST_OPENMP does not say what the build was meant to be")
    assert (_openmp.version() > 0) == (expected == "on")
    for name in ("_step", "_openmp"):
        code = installed_extension(name)
        runtime = [
            call
            for call in (b"GOMP_parallel", b"omp_get_max_threads", b"__kmpc_fork_call")
            if call in code
        ]
        assert bool(runtime) == (expected == "on"), (name, runtime)


@pytest.mark.skipif(
    os.environ.get("FASTADAM_TEST_INSTALLED") != "1", reason="a source tree is tested in place"
)
def test_the_installed_package_holds_the_modules_of_the_source_tree_and_no_others():
    def modules(package: Path) -> set[str]:
        return {
            str(path.relative_to(package))
            for path in package.rglob("*")
            if path.suffix in (".py", ".pyi") or path.name == "py.typed"
        }

    assert modules(INSTALLED) == modules(SOURCE / "fastadam")
    assert not list(INSTALLED.rglob("*.pyx"))
    built = {
        str(path.relative_to(INSTALLED).with_name(path.name.partition(".")[0]))
        for path in INSTALLED.rglob("*.so")
    }
    package = SOURCE / "fastadam"
    sources = {str(path.relative_to(package).with_suffix("")) for path in package.rglob("*.pyx")}
    if _cpu_features.machine() == "x86_64":
        assert built == sources
    else:
        assert built == {name for name in sources if "avx" not in name}


@pytest.mark.parametrize("missing", ["numpy", "Cython"])
def test_what_building_without_isolation_lacks_is_named(missing: str, tmp_path: Path) -> None:
    (tmp_path / missing).mkdir()
    stand_in = f"raise ModuleNotFoundError('it is not there', name={missing!r})"
    (tmp_path / missing / "__init__.py").write_text(f"{stand_in}\n")
    # as pip's build does it
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from setuptools import build_meta\n"
        "build_meta.get_requires_for_build_wheel()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=SOURCE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"and {missing} is not installed here" in done.stderr
    assert 'pip install "setuptools>=77" "Cython>=3.1" "numpy>=2.0"' in done.stderr
    wanted = tomllib.loads((SOURCE / "pyproject.toml").read_text())["build-system"]["requires"]
    for one in wanted:
        assert f'"{one}"' in done.stderr
