"""The floor plan: wings are entered through their faces, arrows go one way, files and functions stay small."""

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from runpy import run_path

import pytest
from support import ROOT

#: Packages and where they lie, the highest first; each may use what stands below it.
PACKAGES = {"DiscStatsWidgets": "DiscStats", "DiscAtlasWidgets": "DiscAtlas",
            "DiscRelaxometryWidgets": "DiscRelaxometry", "DiscStudyLib": "DiscStats", "DiscStatsLib": "DiscStats",
            "DiscAtlasLib": "DiscAtlas", "DiscRelaxometryLib": "DiscRelaxometry"}
MODULES = ("DiscStats", "DiscAtlas", "DiscRelaxometry")
FEW_FILES, FEW_PARAMETERS, SHORT_FILE = 18, 12, 400


@cache
def sources() -> dict[str, Path]:
    """Return {dotted name: file} of the product."""
    found = {module: ROOT / module / f"{module}.py" for module in MODULES}
    for package, folder in PACKAGES.items():
        for file in (ROOT / folder / package).rglob("*.py"):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = file
    return found


@cache
def imports() -> list[tuple[str, str, str]]:
    """Return (importing module, imported module, name) of every import of the product, also inside functions."""
    files, found = sources(), []
    for module, file in files.items():
        inside = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                start = inside[: len(inside) - node.level + 1] if node.level else []
                base = ".".join([*start, *filter(None, [node.module])])
                for alias in node.names:
                    part = f"{base}.{alias.name}"
                    # A face may name a function as its file is named.
                    is_file = part in files and alias.name not in face_of(base)
                    found.append((module, part, "") if is_file else (module, base, alias.name))
            elif isinstance(node, ast.Import):
                found += [(module, alias.name, "") for alias in node.names]
    return [entry for entry in found if entry[1] in files]


def wing(module: str) -> str:
    """Return the folder that a module belongs to; a package belongs to itself."""
    return module if sources()[module].name == "__init__.py" else module.rpartition(".")[0] or module


@cache
def has_face(folder: str) -> bool:
    """Say whether a folder names its public face; the ground of a Lib does not, its files are named themselves."""
    file = sources().get(folder)
    return bool(file) and folder.count(".") == 1 and "__all__" in file.read_text(encoding="utf-8")


def test_wings_are_entered_through_their_faces():
    passed_by = {f"{module}: {imported} {name}" for module, imported, name in imports()
                 if wing(imported) != imported and has_face(wing(imported)) and wing(module) != wing(imported)}
    assert not passed_by, "\n".join(sorted(passed_by))


@cache
def face_of(folder: str) -> set[str]:
    """Return the names that a package's ``__init__`` imports."""
    if folder not in sources() or sources()[folder].name != "__init__.py":
        return set()
    tree = ast.parse(sources()[folder].read_text(encoding="utf-8"))
    return {alias.asname or alias.name
            for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def outside() -> dict[str, str]:
    """Return name and code of what uses the product from outside: scripts, and examples of the documents."""
    scripts = [f for place in ("Docs", "Training", "Testing/benchmarks", "Testing/tools")
               for f in ROOT.glob(f"{place}/**/*.py")]
    found = {f.relative_to(ROOT).as_posix(): f.read_text(encoding="utf-8") for f in scripts}
    for page in (ROOT / "README.md", *ROOT.glob("Docs/**/*.md")):
        examples = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
        found |= {f"{page.name}, example {n}": code for n, code in enumerate(examples, 1)}
    return found


def test_scripts_and_documents_use_the_faces():
    """Benchmarks and tools may time or draw what no face offers."""
    passed_by = []
    for name, code in outside().items():
        free = name.startswith("Testing/")
        for node in ast.walk(ast.parse(code)):
            named = [(node.module, a.name) for a in node.names] if isinstance(node, ast.ImportFrom) else \
                [(a.name, "") for a in node.names] if isinstance(node, ast.Import) else []
            for module, what in named:
                part = f"{module}.{what}"
                module = part if part in sources() and what not in face_of(module) else module
                if module in sources() and wing(module) != module and has_face(wing(module)) and not (
                        free and what not in face_of(wing(module))):
                    passed_by.append(f"{name}: {module} {what}")
    assert not passed_by, "\n".join(passed_by)


def test_no_circles():
    arrows = defaultdict(set)
    for module, imported, _ in imports():
        a, b = wing(module), wing(imported)
        if a != b and not a.startswith(b + ".") and not b.startswith(a + "."):
            arrows[a].add(b)
    assert not (circle := find_circle(arrows)), " -> ".join(circle)


def find_circle(arrows) -> list[str]:
    """Return the first circle of a graph, as the names on it."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return [*path[path.index(name):], name]
        if name in done:
            return []
        path.append(name)
        for follower in sorted(arrows.get(name, ())):
            if circle := visit(follower):
                return circle
        done.add(path.pop())
        return []

    return next((circle for name in sorted(arrows) if (circle := visit(name))), [])


@pytest.mark.parametrize("family", [("DiscStudyLib", "DiscStatsLib", "DiscAtlasLib", "DiscRelaxometryLib"),
                                    ("DiscStatsWidgets", "DiscAtlasWidgets", "DiscRelaxometryWidgets")])
def test_arrows_go_down(family):
    rank = {name: n for n, name in enumerate(family)}
    up = {(module, imported) for module, imported, _ in imports()
          if module.split(".")[0] in rank and imported.split(".")[0] in rank
          and rank[imported.split(".")[0]] < rank[module.split(".")[0]]}
    assert not up
    widgets = {(module, imported) for module, imported, _ in imports() if "Widgets" in imported and "Lib" in module}
    assert not widgets


def test_folders_files_and_functions_stay_small():
    folders = defaultdict(int)
    complaints = []
    for module, file in sources().items():
        folders[file.parent.relative_to(ROOT)] += file.name != "__init__.py"
        text = file.read_text(encoding="utf-8")
        if text.count("\n") > SHORT_FILE:
            complaints.append(f"{module}: more than {SHORT_FILE} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
                if len([n for n in names if n not in ("self", "cls")]) > FEW_PARAMETERS:
                    complaints.append(f"{module}.{node.name}: {len(names)} parameters")
    complaints += [f"{folder}: {count} files" for folder, count in folders.items() if count > FEW_FILES]
    assert not complaints, "\n".join(complaints)


def test_every_deliberate_mistake_still_fits_its_file():
    mistakes = run_path(str(ROOT / "Testing" / "tools" / "mutants.py"))["read_mutants"]()
    assert len(mistakes) >= 40
