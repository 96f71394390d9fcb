"""The wording of documents, docstrings, comments, messages and panels: phrases to avoid, and what examples import."""

import ast
import io
import re
import tokenize
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from support import ROOT

from structure.test_extension import tracked

WINGS = ("DiscRelaxometryLib", "DiscAtlasLib", "DiscStatsLib", "DiscStudyLib")
MODULES = ("DiscRelaxometry", "DiscAtlas", "DiscStats")
LIST = ROOT / "Testing" / "structure" / "phrases.txt"


def phrases() -> list[tuple[re.Pattern, str]]:
    """Return patterns and what to write instead."""
    lines = [line for line in LIST.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return [(re.compile(pattern.replace(" ", r"\s+"), re.I), better)
            for pattern, better in (line.split("\t") for line in lines)]


def words_of(path: Path) -> str:
    """Return what a person reads in a file: text, strings and comments of Python, texts of a .ui file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1)}
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        # Neighboring strings are one sentence; a wrapped comment goes on behind its next hash.
        spoken = "\n".join(t.string for t in tokens if t.type in kinds)
        spoken = re.sub(r'(?<=[^\\\w])"\n[rf]*"', "", spoken.replace('" \n', '"\n'))
        return re.sub(r"\n#:? ", " ", spoken)
    if path.suffix == ".ui":
        return "\n".join(s.text or "" for s in ElementTree.parse(path).getroot().iter("string"))
    return text


def read_files() -> list[Path]:
    skip = {LIST, Path(__file__), ROOT / "Testing" / "structure" / "__init__.py"}
    return [p for p in tracked("*.md", "*.ui", "*.py") if p not in skip and "SampleData" not in p.parts]


def test_nothing_is_worded_as_the_list_forbids():
    found = []
    for path in read_files():
        text = words_of(path)
        for pattern, better in phrases():
            found += [f"{path.relative_to(ROOT)}: {m.group()!r} -> {better}" for m in pattern.finditer(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("wrong", ["it can not run", "gives one row a disc", "12 s a person", "'x' is no column",
                                   "lets go of the lock", "goes on on the CPU", "one time\nan echo"])
def test_the_list_finds_what_it_forbids(wrong):
    assert any(pattern.search(wrong) for pattern, _ in phrases())


def test_strings_and_comments_of_code_are_read(tmp_path):
    path = tmp_path / "code.py"
    path.write_text('x = ("it can "\n     "not run")\n# it can\n# not\nname_can, not_x = 1, 2\n', encoding="utf-8")
    assert words_of(path).count("can not") == 2


def examples() -> list[tuple[str, str]]:
    """Return the Python examples of the documents, and the scripts of the cookbook."""
    blocks = [(page.name, code) for page in [ROOT / "README.md", *tracked("Docs/*.md")]
              for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)]
    return blocks + [(p.name, p.read_text(encoding="utf-8")) for p in tracked("Docs/cookbook/*.py")]


def face_of(module: str) -> set[str] | None:
    """Return what a face names; nothing for a module, or a file of the ground, which is its own face."""
    lib, *rest = module.split(".")
    if lib in MODULES and not rest:
        return None
    home = next((m for m in MODULES if (ROOT / m / lib).is_dir() and lib in WINGS), None)
    assert home, f"{module} is no Lib and no module"
    place = ROOT.joinpath(home, lib, *rest)
    if len(rest) == 1 and place.with_suffix(".py").exists():
        return None
    assert (place / "__init__.py").exists(), f"{module} is no face"
    tree = ast.parse((place / "__init__.py").read_text(encoding="utf-8"))
    names = next(n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "__all__")
    if isinstance(names, ast.List):
        return {c.value for c in names.elts}
    # Looked up when used: the names stand in the table of their homes.
    return {c.value for c in ast.walk(tree) if isinstance(c, ast.Constant) and isinstance(c.value, str)}


def test_examples_import_from_faces_alone():
    """A face is a Lib, a wing, or a module's Logic; what is behind it may move."""
    for name, code in examples():
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("Disc"):
                public = face_of(node.module)
                assert public is None or {a.name for a in node.names} <= public, f"{name}: {node.module}"


def test_what_lies_behind_a_face_is_noticed():
    for module in ("DiscStudyLib.folder.settings", "DiscRelaxometryWidgets.sample_data"):
        with pytest.raises(AssertionError):
            face_of(module)
    assert "fit_relaxation" in face_of("DiscRelaxometryLib.fit")
