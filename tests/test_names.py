"""Rules that hold for every module of the package: names, docstrings, printing, and who may import whom."""

import ast
import graphlib
import importlib
import inspect
import pkgutil
import sys
from pathlib import Path

import pytest
from monai.bundle.config_item import ComponentLocator
from monai.utils import load_submodules

import monai_unetpp

PACKAGE = Path(monai_unetpp.__file__).parent
MODULES = sorted(
    ["monai_unetpp", *(found.name for found in pkgutil.walk_packages([str(PACKAGE)], prefix="monai_unetpp."))]
)

#: The floors of the house, the lowest first: a room imports from rooms on lower floors only, and from itself.
FLOORS = (
    {"version", "lazy", "choices", "installing", "torchrun"},
    {
        "options",
        "progress",
        "errors",
        "spreadsheet",
        "topology",
        "files",
        "devices",
        "distributed",
        "seeds",
        "plain_values",
        "template",
        "openvino_loading",
        "window_layout",
        "free_memory",
    },
    {"measuring", "reporting", "losses", "case_results"},
    {"data", "metrics", "networks"},
    {"runner", "bundles", "inferers", "engines", "results", "segmentation_options", "guard"},
    {"chaining"},
    {"pruning", "export", "segmentation", "training", "planning"},
    {"study", "failures", "demo", "benchmark", "handlers", "in_memory", "training_run"},
    {"cli"},
    {"__main__"},
)
RANKS = {room: rank for rank, rooms in enumerate(FLOORS) for room in rooms}


def path_of(module):
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def tree_of(module):
    return ast.parse(path_of(module).read_text(encoding="utf-8"))


def room_of(module):
    """The part of a module's name that has a rank; the package itself only hands names on and has none."""
    return module.split(".")[1] if "." in module else None


def imported_modules(module, tree):
    """The modules of the package that a module imports, at the top or anywhere in it."""
    package = module if path_of(module).name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "monai_unetpp":
                while name not in MODULES:
                    name = name.rpartition(".")[0]
                yield name, node.lineno


def wrong_imports(module, tree):
    room = room_of(module)
    for imported, line in imported_modules(module, tree):
        target = room_of(imported)
        if target is None:
            yield f"{module}:{line} imports from the package itself, which imports everything"
        elif target != room and RANKS[target] >= RANKS[room]:
            yield f"{module}:{line} imports {imported}: {room} (rank {RANKS[room]}), {target} (rank {RANKS[target]})"


def test_every_room_has_a_rank():
    rooms = {room_of(module) for module in MODULES} - {None}
    assert rooms <= set(RANKS), f"give a rank to {sorted(rooms - set(RANKS))}"


@pytest.mark.slow
@pytest.mark.parametrize("module", [module for module in MODULES if module != "monai_unetpp"])
def test_imports_point_one_way(module):
    assert list(wrong_imports(module, tree_of(module))) == []


@pytest.mark.slow
def test_no_module_comes_back_to_itself():
    """Neither between rooms nor inside one, by imports at the top, inside functions or for type checkers."""
    imports = {module: {name for name, _ in imported_modules(module, tree_of(module))} for module in MODULES}
    # the package itself hands on names that are loaded when they are first used
    del imports["monai_unetpp"]
    assert find_circle(imports) is None


@pytest.mark.parametrize("room", ["data", "pruning"])
def test_rooms_within_a_room_do_not_import_each_other_in_turn(room):
    inner = {module for module in MODULES if module.count(".") == 2 and path_of(module).name == "__init__.py"}
    inner = {module for module in inner if room_of(module) == room}
    assert len(inner) > 2
    imports = {module: set() for module in inner}
    for module in MODULES:
        owner = ".".join(module.split(".")[:3])
        if owner in inner:
            owners = {".".join(name.split(".")[:3]) for name, _ in imported_modules(module, tree_of(module))}
            imports[owner] |= (owners & inner) - {owner}
    assert find_circle(imports) is None


def find_circle(imports):
    """Modules of which each is imported by the next, or None."""
    try:
        list(graphlib.TopologicalSorter(imports).static_order())
    except graphlib.CycleError as e:
        return e.args[1]
    return None


def test_the_check_for_circles_sees_one():
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": set()}) is None
    assert set(find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def test_the_package_imports_nothing_but_its_version_on_its_own():
    """What it hands on is loaded when it is first used: imports for type checkers do not count."""
    top = [node for node in tree_of("monai_unetpp").body if isinstance(node, (ast.Import, ast.ImportFrom))]
    found = [name for name, _ in imported_modules("monai_unetpp", ast.Module(top, []))]
    assert found == ["monai_unetpp.version"]


@pytest.mark.parametrize(
    "source",
    [
        "import monai_unetpp.cli",
        "from monai_unetpp import cli",
        "from monai_unetpp.cli import main",
        "from .cli import main",
        "from . import cli",
        "def f():\n    from monai_unetpp.pruning.report.report_files import write_report",
        "from monai_unetpp import NestedUNet",
    ],
)
def test_the_import_check_sees_wrong_imports(source):
    assert len(list(wrong_imports("monai_unetpp.segmentation", ast.parse(source)))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_is_and_what_it_offers(module):
    tree = tree_of(module)
    assert ast.get_docstring(tree), f"{module} has no docstring"
    loaded = importlib.import_module(module)
    # a module that hands nothing on has none
    offered = getattr(loaded, "__all__", ())
    assert len(set(offered)) == len(offered)
    missing = [name for name in offered if not hasattr(loaded, name)]
    assert missing == []


@pytest.mark.parametrize("module", MODULES)
def test_only_the_command_line_prints(module):
    if room_of(module) == "cli":
        pytest.skip("the command line prints")
    lines = [
        node.lineno
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert lines == [], f"{module} prints in lines {lines}"


@pytest.fixture(scope="module")
def names_of_monai():
    """All classes and functions that a name in a MONAI config can mean, and the modules that define them."""
    import monai

    load_submodules(monai, True)
    locator = ComponentLocator()
    modules = [name for name in list(sys.modules) if name == "monai" or name.startswith("monai.")]
    return locator._find_classes_or_functions(modules)


def test_the_table_of_names_is_monais(names_of_monai):
    assert names_of_monai["UNet"] == ["monai.networks.nets.unet"]
    assert "NestedUNet" not in names_of_monai


@pytest.mark.parametrize("module", MODULES)
def test_no_public_name_is_one_of_monais(module, names_of_monai):
    """MONAI's locator finds a class by its bare name and cannot tell two of one name apart."""
    loaded = importlib.import_module(module)
    ours = [
        name
        for name, value in inspect.getmembers(loaded)
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ in (module, "monai_unetpp")
    ]
    taken = {name: names_of_monai[name] for name in ours if name in names_of_monai}
    assert taken == {}
