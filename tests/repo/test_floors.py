"""The shape of the house: who may import whom, what is optional, how long a file may be."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fastdrop"

# Bottom to top. A module may import from its own floor and from every floor below, never from
# above. A new module gets its line here; a name ending in a dot stands for a subpackage.
FLOORS = [
    {
        "fastdrop._version",
        "fastdrop.aligned",
        "fastdrop.attributes",
        "fastdrop.callers",
        "fastdrop.display",
        "fastdrop.files",
        "fastdrop.progress",
        "fastdrop.types",
    },
    {"fastdrop._kernels", "fastdrop.reference", "fastdrop.reference."},
    {"fastdrop._backend"},
    {"fastdrop.config"},
    {"fastdrop.arguments", "fastdrop.refusal", "fastdrop.schedules"},
    {"fastdrop.stream", "fastdrop.mask", "fastdrop.noise", "fastdrop.pair", "fastdrop.seeds"},
    {"fastdrop.functional", "fastdrop.operands"},
    {"fastdrop.matmul", "fastdrop.dropouts", "fastdrop.dropouts."},
    {"fastdrop.parameters"},
    {"fastdrop.optim", "fastdrop.optim.", "fastdrop.nn", "fastdrop.nn."},
    {"fastdrop.checkpoint"},
    {"fastdrop.interop", "fastdrop.interop.threadpoolctl"},
    {"fastdrop.estimators", "fastdrop.estimators."},
    {
        "fastdrop.interop.dask",
        "fastdrop.interop.dask.",
        "fastdrop.interop.mpi",
        "fastdrop.interop.mpi.",
        "fastdrop.interop.torch",
        "fastdrop.interop.torch.",
    },
    {"fastdrop.dask", "fastdrop.mpi", "fastdrop.torch"},  # the public doors to fastdrop.interop
    {"fastdrop"},  # __init__ gathers the names of the floors below
    {"fastdrop.__main__"},
]

# What may be imported at the top of a module; everything else is optional and has to wait until
# it is needed, so that `import fastdrop` needs NumPy only.
REQUIRED_PACKAGES = {"numpy"}
# Subpackages that stand on an optional package, and are imported as a whole when they are needed.
LAZY_SUBPACKAGES = {
    "fastdrop.estimators": {"sklearn", "scipy"},
    "fastdrop.interop": {"dask", "mpi4py", "threadpoolctl", "torch"},
}
# Modules that only give the names of such a subpackage, imported as late as that.
DOORS = ("fastdrop.dask", "fastdrop.mpi", "fastdrop.torch")

MAX_LINES = 400


def modules():
    """Every Python and Cython module of the package, by dotted name."""
    found = {}
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


def floor_of(module):
    """The number of the floor a module is on, or None."""
    for number, floor in enumerate(FLOORS):
        if any(
            module == name or (name.endswith(".") and module.startswith(name)) for name in floor
        ):
            return number
    return None


def imported_names(node, module):
    """Absolute names of the modules that one import statement asks for."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        package = (
            module.split(".") if MODULES[module].stem == "__init__" else module.split(".")[:-1]
        )
        base = ".".join(package[: len(package) - node.level + 1] + ([base] if base else []))
    # `from fastdrop import mask` imports the module fastdrop.mask, not (only) fastdrop.
    names = [f"{base}.{alias.name}" for alias in node.names]
    return [name if name in MODULES else base for name in names]


def imports(module):
    """Pairs of imported module and whether the import runs when the module is imported."""
    path = MODULES[module]
    if path.suffix == ".pyx":
        return [(name, True) for name in imports_of_pyx(path.read_text())]
    tree = ast.parse(path.read_text())
    lazy = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(outer)
    }
    lazy |= {
        inner for outer in ast.walk(tree) if is_type_checking(outer) for inner in ast.walk(outer)
    }
    return [
        (name, node not in lazy)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in imported_names(node, module)
    ]


def is_type_checking(node):
    """Whether a node is `if TYPE_CHECKING:`, which never runs."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports_of_pyx(text):
    """Modules that Cython code imports; ast cannot read it, its import lines are simple."""
    pattern = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w.]+))", re.MULTILINE)
    return [a or b for a, b in pattern.findall(text)]


def test_every_module_has_a_floor():
    homeless = [module for module in MODULES if floor_of(module) is None]
    assert homeless == [], "add these modules to FLOORS"


def test_floors_name_existing_modules():
    named = {name for floor in FLOORS for name in floor}
    gone = [
        name
        for name in named
        if not any(module == name.rstrip(".") or module.startswith(name) for module in MODULES)
    ]
    assert gone == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_imports_upwards(module):
    own = floor_of(module)
    upwards = [
        name
        for name, _ in imports(module)
        if name.split(".")[0] == "fastdrop" and (floor_of(name) is None or floor_of(name) > own)
    ]
    assert upwards == []


def test_the_reference_is_independent():
    """It would be no reference if it called the compiled kernels, and stands on NumPy alone."""
    own = [module for module in MODULES if module.startswith("fastdrop.reference")]
    names = {name for module in own for name, _ in imports(module)}
    foreign = {name.split(".")[0] for name in names if not name.startswith("fastdrop.reference")}
    assert len(own) > 1
    assert foreign <= {"numpy", *sys.stdlib_module_names}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_optional_packages_are_imported_when_needed(module):
    allowed = REQUIRED_PACKAGES | {"fastdrop"} | set(sys.stdlib_module_names)
    if MODULES[module].suffix == ".pyx":
        allowed |= {"cython", "cpython", "libc"}
    allowed |= LAZY_SUBPACKAGES.get(".".join(module.split(".")[:2]), set())
    eager = [name for name, at_import in imports(module) if at_import]
    assert [name for name in eager if name.split(".")[0] not in allowed] == []


@pytest.mark.parametrize("package", LAZY_SUBPACKAGES)
def test_lazy_subpackages_are_imported_by_nobody_else(package):
    eager = [
        module
        for module in MODULES
        if not module.startswith((*LAZY_SUBPACKAGES, *DOORS))
        and any(name.startswith(package) for name, at_import in imports(module) if at_import)
    ]
    assert eager == []


def test_import_loads_numpy_only():
    code = (
        "import sys, numpy; before = set(sys.modules); import fastdrop; "
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    optional = {
        "sklearn",
        "scipy",
        "tqdm",
        "matplotlib",
        "torch",
        "threadpoolctl",
        "pytest",
        "dask",
        "mpi4py",
    }
    assert loaded & optional == set()


def test_import_waits_for_no_random_numbers_of_numpy():
    """`numpy.random` takes longer to import than fastdrop, and many programs do without."""
    code = "import sys, fastdrop; print('numpy.random' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_floors_see_an_upward_import():
    """The tests above can fail: a made-up module that breaks both rules is caught."""
    tree = ast.parse(
        "from fastdrop import functional\nfrom .matmul import train\nimport scipy.linalg\n"
    )
    names = [name for node in tree.body for name in imported_names(node, "fastdrop.stream")]
    assert names == ["fastdrop.functional", "fastdrop.matmul", "scipy.linalg"]
    assert floor_of("fastdrop.functional") > floor_of("fastdrop.stream")


def arguments_of(path, pattern):
    """Names of the functions of a file, each with the names of its arguments."""
    found = {}
    for name, arguments in re.findall(pattern, path.read_text(), re.MULTILINE | re.DOTALL):
        pieces = [re.split("[:=]", piece)[0] for piece in arguments.split(",")]
        pieces = [piece.removesuffix(" not None") for piece in pieces]
        found[name] = [piece.split()[-1] for piece in pieces if piece.strip()]
    return found


def test_stub_agrees_with_the_compiled_module():
    compiled = arguments_of(PACKAGE / "_kernels.pyx", r"^def (\w+)\((.*?)\):$")
    declared = arguments_of(PACKAGE / "_kernels.pyi", r"^def (\w+)\((.*?)\) -> ")
    assert "apply_mask" in compiled
    assert declared == compiled


def source_files():
    """Every file of our own that the limit on length holds for."""
    patterns = ["*.py", "src/**/*.[ch]", "fastdrop/**/*.py", "fastdrop/**/*.py[xi]"]
    patterns += [
        "setup.py",
        "tests/**/*.py",
        "bench/**/*.py",
        "docs/**/*.py",
        "examples/**/*.py",
        "tools/*.py",
    ]
    found = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return sorted(found - {PACKAGE / "_kernels.pyx"})  # the one binding, not cut in pieces


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short(path):
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.[ch]")), ids=lambda path: path.name)
def test_c_sources_know_nothing_of_python(path):
    included = re.findall(r'#\s*include\s*[<"]([^">]+)[">]', path.read_text())
    assert [name for name in included if "Python" in name or "numpy" in name] == []
