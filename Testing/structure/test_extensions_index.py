"""Rules of the Slicer Extensions Index and what its reviewers ask, as far as a checkout can tell.

The regular expressions of the metadata are those of the index's own check (ExtensionsIndex,
scripts/check_description_files.py, read in August 2026); what needs the network (that addresses answer) is not tested.
"""

import ast
import json
import re
import subprocess

import pytest
from support import ROOT
from tools.update_cmake_lists import MODULES

from structure.test_extension import tracked

CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: v1.0.2 of the catalog entry's schema.
SCHEMA = "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.2.json#"
FIELDS = {"$schema": str, "category": str, "scm_url": str, "scm_revision": str, "build_dependencies": list,
          "build_subdirectory": str, "tier": int, "enabled": bool,
          "dicom_support_rule": str}
LIMIT_MB = 100


def project() -> str:
    return re.findall(r"project\s*\(\s*([^\s\)\n\r]+)", CMAKE)[0]


def entry() -> dict:
    return json.loads((ROOT / "Docs" / f"{project()}.json").read_text(encoding="utf-8"))


def module_files() -> list:
    return list(tracked("DiscRelaxometry/*.py", "DiscAtlas/*.py", "DiscStats/*.py"))


def test_the_catalog_entry_follows_the_schema():
    content = entry()
    assert content["$schema"] == SCHEMA
    for name, value in content.items():
        assert type(value) is FIELDS[name], f"{name} must be {FIELDS[name].__name__}"
    assert content["tier"] in range(1, 6) and content["scm_url"].startswith("https://")
    assert all(isinstance(d, str) for d in content["build_dependencies"])
    repository = content["scm_url"].rsplit("/", 1)[1].removesuffix(".git")
    assert "slicer" in repository.lower() and repository == f"Slicer{project()}"


def test_the_dicom_rule_compares_attributes_of_dicom_with_texts():
    """Slicer suggests the extension for data that the rule matches: not for every MR series."""
    from pydicom.datadict import tag_for_keyword
    rule = entry()["dicom_support_rule"]
    pairs = re.findall(r"(\w+) == '([^']+)'", rule)
    assert re.sub(r"\w+ == '[^']+'|and|or|[() ]", "", rule) == ""
    assert all(tag_for_keyword(name) for name, _ in pairs) and {name for name, _ in pairs} > {"Modality"}


def test_dependencies_agree_in_catalog_and_cmake():
    depends = re.search(r'set\(EXTENSION_DEPENDS "([^"]*)"\)', CMAKE).group(1)
    assert entry()["build_dependencies"] == ([] if depends == "NA" else depends.split())


def test_icon_and_screenshots_are_found_by_the_index():
    icon = re.findall(r'set\s*\(EXTENSION_ICONURL\s*"([^"]+)"[ ]*\)', CMAKE, re.I | re.M)
    shots = re.findall(r'set\s*\(EXTENSION_SCREENSHOTURLS\s*"([^"]+)"\)', CMAKE, re.I | re.M)
    assert len(icon) == len(shots) == 1 and "\n" not in icon[0] + shots[0]
    home = entry()["scm_url"].removesuffix(".git").removeprefix("https://github.com/")
    urls = [icon[0], *shots[0].split()]
    assert len(urls) > 1
    for url in urls:
        prefix = f"https://raw.githubusercontent.com/{home}/main/"
        assert url.startswith(prefix) and url.endswith(".png"), url
        assert (ROOT / url.removeprefix(prefix)).exists(), url


def test_one_repository_is_named_everywhere():
    address = entry()["scm_url"].removesuffix(".git")
    assert f'set(EXTENSION_HOMEPAGE "{address}")' in CMAKE
    assert address in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    panel = (ROOT / "DiscRelaxometry/DiscRelaxometryWidgets/work.py").read_text(encoding="utf-8")
    assert f"{address}/blob/main/Docs/troubleshooting.md" in panel


def test_cmake_version_range():
    assert re.search(r"cmake_minimum_required\(VERSION 3\.16\.3\.\.\.3\.\d+", CMAKE)


def test_checkout_and_history_stay_below_the_limit():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    # What a clone fetches; other branches and unreachable objects of this checkout are not the project's.
    usage = subprocess.run(["git", "rev-list", "--disk-usage", "--objects", "HEAD"], cwd=ROOT, capture_output=True,
                           text=True, check=True)
    packed = int(usage.stdout)
    checkout = sum(p.stat().st_size for p in tracked())
    total = (packed + checkout) / 1e6
    assert total < LIMIT_MB, f"checkout {checkout / 1e6:.0f} MB and history {packed / 1e6:.0f} MB"


def test_the_installed_size_is_said_and_true():
    said = float(re.search(r"extension itself takes about (\d+) MB", README).group(1))
    installed = 0
    for module in MODULES:
        listed = re.findall(r"^  (\S+\.\w+|\S+/\S+)$", (ROOT / module / "CMakeLists.txt").read_text(), re.M)
        installed += sum((ROOT / module / name).stat().st_size for name in listed if (ROOT / module / name).is_file())
    assert installed > 1e6 and said == pytest.approx(installed / 1e6, rel=0.15)


def test_readme_has_what_reviewers_look_for():
    for words in ("## Installation", "## Quick start", "## Safety and privacy", "## How to cite", "## Licences",
                  "Sample Data", "tutorial", "not a medical device", "LICENSE.txt"):
        assert words in README, words
    assert re.search(r"!\[[^\]]+\]\(Docs/screenshots/\w", README), "a picture near the top"
    for module in MODULES:
        assert re.search(rf"^\| \*\*{module}\*\* \| .+\. \|$", README, re.M), f"one sentence on {module}"
    for page in re.findall(r"\]\((Docs/[^)#]+)", README):
        assert (ROOT / page).exists(), page


#: Calls that make a constant, a type, a text to show or a registration; they do no work when a file is imported.
CONSTANTS = {"compile", "set", "tuple", "list", "range", "field", "len", "enumerate", "array", "float", "sqrt", "log",
             "diag", "items", "Argument", "Column", "Lock", "Option", "Step", "TypeVar", "WithinRange", "disc_value",
             "maketrans", "_"}


def file_scope_calls(tree):
    """Yield the calls that run when a file is imported; those inside functions and classes' methods do not."""
    stack = [n for n in tree.body if not (isinstance(n, ast.If) and "__name__" in ast.dump(n.test))]
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.ClassDef):
            stack += node.body
            continue
        if isinstance(node, ast.Call):
            yield node
        stack += list(ast.iter_child_nodes(node))


def test_nothing_is_executed_at_file_scope():
    for path in module_files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            loop = isinstance(node, (ast.For, ast.While, ast.With))
            assert not loop, f"{path.relative_to(ROOT)}:{node.lineno} runs at import"
        own = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        for call in file_scope_calls(tree):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "?")
            assert name in CONSTANTS | own, f"{path.relative_to(ROOT)}:{call.lineno} calls {name}() at import"


def test_nothing_is_downloaded_and_no_data_leave():
    network = {"urllib.request", "requests", "httpx", "http.client", "ftplib", "smtplib", "aiohttp", "socket"}
    for path in module_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = {a.name for a in node.names} if isinstance(node, ast.Import) else \
                {node.module} if isinstance(node, ast.ImportFrom) and node.module else set()
            assert not names & network, f"{path.relative_to(ROOT)}:{node.lineno} imports {names & network}"


def test_packages_come_by_the_users_click_alone():
    for path in module_files():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"pip_install\(|-m\W+pip\b", text), path
        if "pip_ensure(" in text and path.name != "scripted.py":
            assert path.name == "work.py", f"{path.name}: packages are installed in one place, after a question"


def test_texts_of_packages_say_size_and_purpose():
    for path in module_files():
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text if "ensurePackages" in text else "")):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "ensurePackages":
                words = " ".join(c.value for c in ast.walk(node.args[1])
                                 if isinstance(c, ast.Constant) and isinstance(c.value, str))
                assert re.search(r"\d+ (MB|GB)", words), f"{path.name}:{node.lineno} says no size"
