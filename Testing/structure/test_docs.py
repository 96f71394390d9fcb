"""The documentation: links lead somewhere, pages are in the table of contents, Sphinx's settings load and build."""

import re
import subprocess
import sys

import pytest
from support import ROOT

from structure.test_extension import tracked

DOCS = ROOT / "Docs"
#: Words of Docs/*.md and README.md together, as `wc -w` counts.
MOST_WORDS = 20_000
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.S)


def pages():
    return [p for p in tracked("*.md") if "SampleData" not in p.parts]


def anchors(path) -> set[str]:
    """Return what a link to a page may name: GitHub's anchors of headings, and anchors given by hand."""
    text = path.read_text(encoding="utf-8")
    heads = re.findall(r"^#+ +(.+?) *$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}
    return slugs | set(re.findall(r'<a id="([\w-]+)"></a>', text))


def test_links_between_pages_and_to_files_lead_somewhere():
    broken = []
    for page in pages():
        text = CODE.sub("", page.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            if not path.exists():
                broken.append(f"{page.relative_to(ROOT)}: {target} does not exist")
            elif anchor and path.suffix == ".md" and anchor not in anchors(path):
                broken.append(f"{page.relative_to(ROOT)}: {target} has no such heading")
    assert not broken, "\n".join(broken)


def test_every_page_is_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^([\w/*-]+)$", index, re.M))
    for page in tracked("Docs/*.md"):
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        assert name in listed | {"index"} or f"{name.split('/')[0]}/*" in listed, f"{name} is not in Docs/index.md"


def test_every_picture_is_shown_and_every_shown_picture_is_there():
    shown = {(page.parent / target).resolve() for page in pages()
             for target in re.findall(r"\]\(([^)\s]+\.png)\)", page.read_text(encoding="utf-8"))
             if not target.startswith("http")}
    pictures = set(tracked("Docs/*.png"))
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    unused = {p for p in pictures - shown if p.relative_to(ROOT).as_posix() not in cmake}
    assert not unused, f"no page shows {sorted(p.name for p in unused)}"
    assert all(p.exists() for p in shown)


def test_every_error_anchor_has_its_name_a_reason_and_a_remedy():
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r'^\|<a id="([\w-]+)"></a>(.*)$', text, re.M)
    assert len(rows) == text.count("<a id=") == len({anchor for anchor, _ in rows})
    for anchor, row in rows:
        name, reason, remedy, end = (cell.strip() for cell in row.split("|"))
        assert (name, end) == (f"`{anchor}`", ""), f"{anchor}: the row does not give its name"
        assert len(reason.split()) > 2 and len(remedy.split()) > 1, f"{anchor}: no reason or no remedy"


def test_the_documents_stay_short():
    pages = [*tracked("Docs/*.md"), ROOT / "README.md"]
    words = {p.relative_to(ROOT).as_posix(): len(p.read_text(encoding="utf-8").split()) for p in pages}
    assert sum(words.values()) <= MOST_WORDS, sorted(words.items(), key=lambda item: -item[1])[:10]


def test_tables_of_figures_are_those_of_the_benchmarks():
    """No figure is pasted by hand: the pages equal what tables.py writes from the results."""
    for path, text in load_tables().pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run make tables"


def test_every_kept_table_says_which_run_made_it():
    for name, content in load_tables().results().items():
        for key, table in content["tables"].items():
            assert {"commit", "date", "load", "processor"} <= set(table["run"]), f"{name}/{key}"
            assert all(len(row) == len(table["columns"]) for row in table["rows"]), f"{name}/{key}"


def test_a_changed_figure_is_noticed():
    tables = load_tables()
    found = tables.results()
    found["bench_fitting"]["tables"]["crb"]["rows"][0][2] = "0.000"
    page = (DOCS / "validation/fitting.md").read_text(encoding="utf-8")
    assert tables.rendered(page, tables.results()) == page != tables.rendered(page, found)


def load_tables():
    """Return the module Testing/benchmarks/tables.py, which is a script beside its own common.py."""
    sys.path.insert(0, str(ROOT / "Testing" / "benchmarks"))
    try:
        import tables
    finally:
        sys.path.pop(0)
    return tables


def test_settings_of_sphinx_load_without_mocks():
    """Mocked imports once kept autodoc busy for ever: a mock has every attribute, the next one to follow, too."""
    code = ("import runpy, sys; s = runpy.run_path('Docs/conf.py')\n"
            "assert not s.get('autodoc_mock_imports'), 'mocks'\n"
            "import DiscRelaxometry, DiscAtlas, DiscStats\n"
            "print(s['html_theme'], *s['extensions'])")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("furo myst_parser")


@pytest.mark.slow
def test_the_documentation_builds_without_warnings(tmp_path):
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(package, reason="pip install .[docs]")
    done = subprocess.run([sys.executable, "-m", "sphinx", "-q", "-b", "html", "Docs", str(tmp_path)], cwd=ROOT,
                          capture_output=True, text=True, timeout=590)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "WARNING" in line], done.stderr
    logic = (tmp_path / "_api" / "DiscRelaxometry.html").read_text(encoding="utf-8")
    assert "segmentDiscs" in logic and "Sagittal T2- or T1-weighted volume" in logic
    assert (tmp_path / "_api" / "DiscStatsLib.permutation.tfce.html").exists()


@pytest.mark.slow
def test_the_readmes_first_script_runs_as_it_is(tmp_path):
    pytest.importorskip("onnxruntime")
    script = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S).group(1)
    path = [str(ROOT / m) for m in ("DiscRelaxometry", "DiscAtlas", "DiscStats")]
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {path}\n{script}"], cwd=tmp_path,
                          capture_output=True, text=True, timeout=590)
    assert done.returncode == 0, done.stderr
    table, = (tmp_path / "results").glob("*discs.tsv")
    assert "L4-L5" in table.read_text(encoding="utf-8")
