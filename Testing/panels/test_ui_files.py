"""Rules that hold for every .ui file: words for eyes and screen readers, scene connections, bindable parameters."""

import xml.etree.ElementTree as ElementTree

import pytest
from support import ROOT

UI_FILES = sorted(ROOT.glob("Disc*/Resources/UI/*.ui"))
INTERACTIVE = {"QPushButton", "QCheckBox", "QComboBox", "QSpinBox", "QDoubleSpinBox", "QLineEdit", "QTextEdit",
               "QTableWidget", "QListWidget", "QPlainTextEdit", "qMRMLNodeComboBox", "ctkPathLineEdit",
               "ctkSliderWidget", "qMRMLTableView"}


def properties(widget) -> dict:
    return {p.get("name"): (p[0].text or "").strip() if len(p) else "" for p in widget.findall("property")}


@pytest.mark.parametrize("path", UI_FILES, ids=lambda p: p.stem)
class TestUiFile:
    def test_every_widget_has_a_tooltip_and_a_name_for_screen_readers(self, path):
        for widget in ElementTree.parse(path).iter("widget"):
            if widget.get("class") in INTERACTIVE:
                words = properties(widget)
                assert words.get("toolTip"), f"{widget.get('name')} has no tooltip"
                assert words.get("accessibleName"), f"{widget.get('name')} has no accessible name"

    def test_sections_and_plots_have_a_tooltip_and_texts_a_name(self, path):
        for widget in ElementTree.parse(path).iter("widget"):
            words, kind = properties(widget), widget.get("class")
            if kind in ("ctkCollapsibleButton", "QWidget", "QProgressBar"):
                assert words.get("toolTip"), f"{widget.get('name')} has no tooltip"
            if kind == "QLabel" and not words.get("buddy"):
                assert words.get("accessibleName") or words.get("text"), f"{widget.get('name')} has no name"

    def test_no_two_widgets_have_one_name_for_screen_readers(self, path):
        names = [properties(w).get("accessibleName") for w in ElementTree.parse(path).iter("widget")
                 if w.get("class") in INTERACTIVE]
        assert len(names) == len(set(names)), [n for n in names if names.count(n) > 1]

    def test_every_node_selector_receives_the_scene(self, path):
        tree = ElementTree.parse(path)
        receivers = {c.findtext("receiver") for c in tree.iter("connection")
                     if c.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"}
        selectors = {w.get("name") for w in tree.iter("widget") if w.get("class", "").endswith("NodeComboBox")}
        assert selectors == receivers

    def test_inputs_can_not_make_nodes_and_outputs_can(self, path):
        for widget in ElementTree.parse(path).iter("widget"):
            if widget.get("class") == "qMRMLNodeComboBox":
                words = properties(widget)
                assert words["removeEnabled"] == "false"
                assert (words["addEnabled"] == "true") == bool(words.get("baseName"))

    def test_labels_of_fields_have_a_buddy_and_mnemonics_are_unique(self, path):
        seen = {}
        for widget in ElementTree.parse(path).iter("widget"):
            words = properties(widget)
            text = words.get("text", "")
            if widget.get("class") == "QLabel" and (words.get("buddy") or "&" in text):
                assert words.get("buddy"), f"{widget.get('name')} has a mnemonic and no buddy"
                assert "&" in text, f"{widget.get('name')} has no mnemonic"
                key = text[text.index("&") + 1].lower()
                assert key not in seen, f"{widget.get('name')} and {seen.get(key)} share Alt+{key}"
                seen[key] = widget.get("name")

    def test_no_custom_style(self, path):
        assert "styleSheet" not in path.read_text(encoding="utf-8")
