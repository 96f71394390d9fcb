"""The tutorial's own words: what it tells to press exists under that name, and a stranger who presses it gets there."""

import enum
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from DiscRelaxometryLib.errors import DiscRelaxometryError
from panels.host import click, close_panel, open_panel, process, start_host

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Docs" / "tutorial.md").read_text(encoding="utf-8")
PANELS = {"1": "DiscRelaxometry", "2": "DiscRelaxometry", "3": "DiscAtlas", "4": "DiscStats", "5": "DiscStats"}
#: Section -> number of its steps and their words.
SECTIONS = {part[0]: re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^$|\Z)", part.partition("\n")[2], re.M | re.S)
            for part in re.split(r"^## (?=\d\.)", TEXT, flags=re.M)[1:]}


def words_of(module: str) -> set[str]:
    """Return the texts of a panel and its footer: buttons, boxes, sections, labels, without mnemonics and colons."""
    start_host()
    from DiscAtlasWidgets import atlas_choices
    from DiscRelaxometryWidgets import choices
    from DiscStatsWidgets import stats_choices

    files = [ROOT / module / "Resources" / "UI" / f"{module}.ui",
             ROOT / "DiscRelaxometry" / "Resources" / "UI" / "Footer.ui"]
    texts = {e.findtext("string") or "" for f in files for e in ElementTree.parse(f).getroot().iter("property")
             if e.get("name") in ("text", "title")}
    for holder in (choices, atlas_choices, stats_choices):
        for member in vars(holder).values():
            if isinstance(member, type) and issubclass(member, enum.Enum) and member is not enum.Enum:
                texts |= {value.label() for value in member}
    return {t.replace("&", "").rstrip(":").strip().lower() for t in texts if t}


def named_controls():
    """Yield (section, step, words in bold)."""
    for section, steps in SECTIONS.items():
        for number, words in steps:
            for bold in re.findall(r"\*\*(.+?)\*\*", words, re.S):
                yield section, number, " ".join(bold.split())


SAMPLES = {"Lumbar spine (SPIDER)", "Cohort of 33 people (SPIDER)"}


@pytest.mark.parametrize("section, step, control", list(named_controls()))
def test_what_the_tutorial_names_exists(section, step, control):
    if control in SAMPLES:
        sources = "".join((ROOT / f).read_text(encoding="utf-8") for f in (
            "DiscRelaxometry/DiscRelaxometryWidgets/sample_data.py", "DiscStats/DiscStatsWidgets/sample_cohort.py"))
        assert f'_("{control}")' in sources
        return
    known = words_of(PANELS[section])
    assert any(control.lower() in text for text in known), f"section {section}, step {step}: no '{control}' there"


def test_every_section_has_steps():
    assert sorted(SECTIONS) == list("12345") and all(len(steps) >= 3 for steps in SECTIONS.values())


def test_section_1_as_it_is_written(slicer, monkeypatch):
    """Sample data, the chosen volume, no discs, the buttons' state, and the reference in the table."""
    from DiscRelaxometryWidgets.sample_data import load_person

    from DiscRelaxometry import DiscRelaxometryWidget

    volume, reference = load_person()
    slicer.util.setSliceViewerLayers(background=volume)
    panel = open_panel(DiscRelaxometryWidget)
    try:
        assert "the volume of the slice views is chosen" in " ".join(SECTIONS["1"][1][1].split())
        assert panel.ui.inputVolumeSelector.currentNode() is volume and panel.ui.segmentButton.isEnabled()
        panel.ui.segmentationSelector.setCurrentNode(reference)
        process()
        table = panel.ui.discTable
        headings = [table.horizontalHeaderItem(c).text().split("\n")[0] for c in range(table.columnCount())]
        assert headings == ["Disc", "Volume", "Height", "Pfirrmann", "Confidence", "Flags"] and table.rowCount() >= 5
        jumps = []
        monkeypatch.setattr(slicer.modules.markups.logic(), "JumpSlicesToLocation", lambda *a: jumps.append(a),
                            raising=False)
        for signal in (table.cellClicked, table.cellActivated):
            signal.emit(0, 0)
        panel.ui.segmentationSelector.setCurrentNode(None)
        process()
        assert table.rowCount() == 0 and not panel.ui.shiftUpButton.isEnabled()
    finally:
        close_panel(panel)


def test_section_5_as_it_is_written(slicer, tmp_path, monkeypatch):
    """The cohort of the Sample Data module fills in study, table and formula."""
    pytest.importorskip("pandas")
    from DiscStatsWidgets import sample_cohort

    from DiscStats import DiscStatsWidget

    monkeypatch.setattr(sample_cohort, "cohort_folder", lambda: tmp_path / "spider-cohort")
    try:
        sample_cohort.load_cohort()
    except DiscRelaxometryError as error:
        pytest.fail(str(error))
    panel = open_panel(DiscStatsWidget)
    try:
        ui = panel.ui
        assert ui.studyFolder.currentPath() == str(tmp_path / "spider-cohort") and ui.studyButton.isEnabled()
        assert ui.participantsTable.rowCount() == 33 and ui.formulaEdit.text() == sample_cohort.FORMULA
        assert not ui.reportButton.isEnabled() and "Run the study first" in ui.reportButton.toolTip()
        started = []
        monkeypatch.setattr(panel.work, "ensurePackages", lambda *a: True)
        monkeypatch.setattr(panel.work, "run", lambda job, *a, **k: started.append(job))
        click(ui.studyButton)
        assert started[0].function == "DiscStudyLib:run_study" and started[0].arguments["formula"]
    finally:
        close_panel(panel)
