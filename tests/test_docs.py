"""The documentation: links lead somewhere, the architecture is that of the code, every room has its page."""

import ast
import doctest
import importlib
import json
import re
from pathlib import Path

import pytest
from test_names import FLOORS, MODULES, imported_modules, path_of, tree_of

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")
PAGES = sorted(
    p for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "bundles/*/docs/*.md") for p in ROOT.glob(pattern)
)
GUIDES = ("architecture.md", "pruning/README.md", "pruning/STATISTICS.md", "pruning/REPORT.md")


def rows_of(heading):
    """Cells of the table under a heading of the page on architecture, without its head."""
    section = ARCHITECTURE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def words_in_code(text):
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"https?:|#", link)]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_row_is_cut_off_its_table(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    blocks = [block.splitlines() for block in re.split(r"\n\s*\n", text)]
    tables = [block for block in blocks if block and block[0].startswith("|")]
    assert [table[0] for table in tables if len(table) < 2 or not re.fullmatch(r"[|:\- ]+", table[1])] == []


def test_every_file_of_a_report_and_every_benchmark_has_its_row():
    page = (DOCS / "pruning" / "REPORT.md").read_text(encoding="utf-8")
    written = re.findall(
        r'"(\w+\.(?:csv|html|json|md))"', (ROOT / "monai_unetpp/pruning/report/report_files.py").read_text("utf-8")
    )
    assert len(written) > 5
    assert [name for name in written if f"| `{name}` |" not in page] == []
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    started = [path for path in ROOT.glob("benchmarks/**/*.py") if "ArgumentParser(" in path.read_text("utf-8")]
    modules = [path.parent if path.name == "__main__.py" else path.with_suffix("") for path in started]
    names = [path.relative_to(ROOT).as_posix().replace("/", ".") for path in modules if path.name != "benchmarks"]
    assert len(names) > 8
    assert [name for name in names if f"| `python -m {name}` |" not in page] == []


class TestArchitecture:
    @pytest.mark.parametrize("heading", ["An input file through `segment`", "A case through `prune`"])
    def test_every_step_names_a_module_and_what_is_in_it(self, heading):
        assert len(rows_of(heading)) > 10
        for _, room, text in rows_of(heading):
            module = f"monai_unetpp.{room.strip('`')}"
            assert module in MODULES
            called = re.match(r"`(\w+)(\(plan\))?`", text)
            if called:
                source = path_of(module).read_text(encoding="utf-8")
                assert re.search(rf"\b{called[1]}\b", source), f"{called[1]} is not in {module}"

    def test_every_module_that_it_names_exists(self):
        dotted = {word for word in words_in_code(ARCHITECTURE) if re.fullmatch(r"[a-z_]+\.[a-z_]+", word)}
        files = {word for word in dotted if word.endswith((".json", ".compile"))}
        assert len(dotted - files) > 20
        assert {f"monai_unetpp.{word}" for word in dotted - files} <= set(MODULES)

    def test_its_floors_are_those_that_imports_keep(self):
        floors = [set(words_in_code(rooms)) for _, rooms in rows_of("The floors")]
        assert floors == list(reversed(FLOORS))

    @pytest.mark.slow
    def test_its_drawing_shows_imports_that_there_are(self):
        drawing = (DOCS / "architecture.svg").read_text(encoding="utf-8")
        arrows = re.findall(r"<title>(\w+) imports (\w+)</title>", drawing)
        assert len(arrows) > 10
        assert [arrow for arrow in arrows if arrow[1] not in imported_rooms(arrow[0])] == []

    def test_a_room_that_is_reached_by_name_stands_in_a_configuration(self):
        drawing = (DOCS / "architecture.svg").read_text(encoding="utf-8")
        named = re.findall(r"<title>bundles names (\w+)</title>", drawing)
        config = json.dumps(json.loads((ROOT / "bundles/brain_tissue_mri_unetpp/configs/inference.json").read_text()))
        assert named
        assert all(f'"monai_unetpp.{room}.' in config for room in named)


def imported_rooms(room):
    modules = [module for module in MODULES if f"{module}.".startswith(f"monai_unetpp.{room}.")]
    found = {name for module in modules for name, _ in imported_modules(module, tree_of(module))}
    return {name.split(".")[1] for name in found if "." in name}


def test_every_room_that_hands_on_names_has_its_place_in_the_reference():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.rst"))
    documented = set(re.findall(r"automodule:: ([\w.]+)", pages))
    for module in documented:  # else the reference would show what it imports
        _all_of(module)
    packages = [module for module in MODULES if path_of(module).name == "__init__.py"]
    silent = [module for module in packages if not _all_of(module)]
    # each name of these is handed on by a room above them
    inner = {"monai_unetpp.networks", "monai_unetpp.pruning.decision"}
    assert set(packages) - set(silent) - inner <= documented
    assert documented <= set(MODULES)
    # the reference shows what they list
    assert [module for module in documented if not _all_of(module)] == []


def test_names_that_are_loaded_on_demand_are_listed():
    lazy = [module for module in MODULES if "__dir__ = lazy_names(" in path_of(module).read_text(encoding="utf-8")]
    assert len(lazy) > 5
    for module in map(importlib.import_module, lazy):
        assert set(module.__all__) <= set(dir(module)), module.__name__


@pytest.mark.parametrize(
    "module", [module for module in MODULES if ">>> " in path_of(module).read_text(encoding="utf-8")]
)
def test_examples_in_docstrings_hold(module, tmp_path, monkeypatch):
    # some write files, others read a bundle
    (tmp_path / "bundles").symlink_to(ROOT / "bundles")
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS).failed == 0


def _all_of(module):
    for node in tree_of(module).body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return ast.literal_eval(node.value)
    return []


class TestWheel:
    @pytest.fixture(scope="class")
    @classmethod
    def installed(cls):
        tomllib = pytest.importorskip("tomllib", reason="Python 3.11 or later reads pyproject.toml")
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        data = project["tool"]["setuptools"]["data-files"]
        found = [(folder, path) for folder, patterns in data.items() for p in patterns for path in ROOT.glob(p)]
        return {f"{folder}/{path.name}": path for folder, path in found}

    @pytest.mark.parametrize("page", GUIDES)
    def test_guides_are_installed(self, installed, page):
        assert installed[f"share/monai-unetpp/docs/{page}"] == DOCS / page

    def test_pictures_of_pages_are_installed_with_them(self, installed):
        for target, page in installed.items():
            if page.parent == DOCS and page.suffix == ".md":
                for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
                    assert f"{Path(target).parent.as_posix()}/{link}" in installed
