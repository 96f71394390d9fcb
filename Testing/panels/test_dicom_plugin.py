"""Echo series in the DICOM browser: offered, loaded with their times, and opened in the panel."""

import hashlib
import importlib.machinery
import sys
import types

import numpy as np
import pydicom
import pytest
from support import dicom_samples as samples

from DiscRelaxometryLib import mrml
from panels.host import close_panel, open_panel, process


class DICOMLoadable:
    """As in DICOMLib/DICOMPlugin.py of Slicer."""

    def __init__(self):
        self.files, self.name, self.tooltip, self.warning = [], "Unknown", "", ""
        self.selected, self.confidence = False, 0.5


class DICOMPlugin:
    """As in DICOMLib/DICOMPlugin.py of Slicer 5.12 and 5.13."""

    def __init__(self):
        self.loadType, self.loadableCache, self.tags = "Generic DICOM", {}, {"seriesDescription": "0008,103E"}
        self.placed = []

    @staticmethod
    def _key(files):
        return hashlib.md5("".join(files).encode()).digest()

    def getCachedLoadables(self, files):
        return self.loadableCache.get(self._key(files))

    def cacheLoadables(self, files, loadables):
        self.loadableCache[self._key(files)] = loadables

    def defaultSeriesNodeName(self, series):
        return f"7: {series}"

    def addSeriesInSubjectHierarchy(self, loadable, node):
        assert node.IsA("vtkMRMLNode") and loadable.files
        self.placed.append(node)


@pytest.fixture
def plugin(slicer, monkeypatch):
    """The plugin that Slicer's DICOM module would make, with a database that reads the files' headers."""
    from DiscRelaxometryWidgets import registrations

    library = types.ModuleType("DICOMLib")
    library.__spec__ = importlib.machinery.ModuleSpec("DICOMLib", None)
    library.DICOMLoadable, library.DICOMPlugin = DICOMLoadable, DICOMPlugin
    monkeypatch.setitem(sys.modules, "DICOMLib", library)
    monkeypatch.delitem(sys.modules, "DiscRelaxometryWidgets.echo_plugin", raising=False)

    def value(file, tag):
        dataset = pydicom.dcmread(file, stop_before_pixels=True)
        element = dataset.get(tuple(int(part, 16) for part in tag.split(",")))
        return "" if element is None else str(element.value)

    monkeypatch.setattr(slicer, "dicomDatabase", types.SimpleNamespace(fileValue=value), raising=False)
    monkeypatch.setattr(slicer.modules, "dicomPlugins", {}, raising=False)
    registrations.dicom_plugin()
    return slicer.modules.dicomPlugins["DICOMEchoSeriesPlugin"]()


def echo_time(dataset, t):
    dataset.EchoTime = t


def spin_lock(dataset, t):
    dataset.SeriesDescription, dataset.EchoTime = f"T1rho TSL {t:g}", 5.0


def written(folder, times, mark, **values):
    values = {"StudyInstanceUID": "1.2", "SeriesDescription": "spine", "ScanningSequence": "SE", **values}
    return [str(f) for f in samples.write_classic(folder, times, mark, **values)]


def test_a_multi_echo_series_is_offered_above_a_plain_volume(plugin, tmp_path):
    files = written(tmp_path, (10, 20, 40, 80), echo_time)
    (found,) = plugin.examineForImport([files])
    assert found.files == files and found.selected and found.confidence > 1.0
    assert "T2 series of 4 echoes: 10, 20, 40, 80 ms" in found.tooltip
    assert plugin.examineForImport([files]) == [found], "kept for the next look"


def test_two_echoes_are_offered_below_a_plain_volume(plugin, tmp_path):
    (found,) = plugin.examineForImport([written(tmp_path, (20, 90), echo_time)])
    assert 0 < found.confidence < 0.5
    (found,) = plugin.examineForImport([written(tmp_path / "three", (20, 55, 90), echo_time)])
    assert found.confidence > 1.0


def test_one_series_for_each_spin_lock_time_is_joined(plugin, tmp_path):
    times = (0, 10, 40, 80)
    lists = [written(tmp_path / str(t), (t,), spin_lock, series=f"1.2.3.{t}") for t in times]
    other = written(tmp_path / "t2w", (90,), echo_time, series="1.2.9")
    (found,) = plugin.examineForImport([*lists, other])
    assert sorted(found.files) == sorted(f for files in lists for f in files)
    assert "T1rho series of 4 echoes: 0, 10, 40, 80 ms" in found.tooltip and found.confidence > 1.0


def test_what_is_no_echo_series_is_left_to_other_plugins(plugin, tmp_path):
    plain = written(tmp_path / "t2w", (90,), echo_time)
    ct = written(tmp_path / "ct", (1, 2, 3), echo_time, Modality="CT")
    other_study = written(tmp_path / "other", (30,), echo_time, series="1.2.4", StudyInstanceUID="1.3")
    assert plugin.examineForImport([plain, ct, other_study, []]) == []


@pytest.mark.parametrize("agreed", [True, False])
def test_it_is_loaded_as_a_sequence_and_opened_if_wanted(plugin, slicer, tmp_path, monkeypatch, agreed):
    from DiscRelaxometry import DiscRelaxometryWidget

    times = (10, 20, 40)
    (found,) = plugin.examineForImport([written(tmp_path, times, echo_time)])
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "another")
    asked, selected, select = [], [], slicer.util.selectModule
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, *a, **k: asked.append((text, k)) or agreed)
    monkeypatch.setattr(slicer.util, "selectModule", lambda name: (selected.append(name), select(name)))
    panel = open_panel(DiscRelaxometryWidget)
    try:
        select("DICOM")
        node = plugin.load(found)
        assert not asked, "nothing is asked while the browser still loads"
        process(50)
        assert len(asked) == 1 and node.GetName() in asked[0][0] and asked[0][1]["dontShowAgainSettingsKey"]
        assert selected == (["DiscRelaxometry"] if agreed else [])
        select("DiscRelaxometry")
        assert (panel._parameterNode.series is node) == agreed, "of two series none is chosen unasked"
        assert panel.ui.timesTable.rowCount() == (3 if agreed else 0)
    finally:
        close_panel(panel)
    assert mrml.sequence_times(node) == list(times) and node.GetAttribute("DiscRelaxometry.Kind") == "T2"
    (shown,) = plugin.placed
    backgrounds = {n.GetBackgroundVolumeID() for n in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")}
    assert backgrounds == {shown.GetID()}
    assert shown.IsA("vtkMRMLScalarVolumeNode") and mrml.sequence_of(shown) is node
    np.testing.assert_allclose(mrml.series_from_nodes(node).echoes, samples.expected(times), atol=0.5)


def test_an_offer_for_a_series_that_is_gone_is_not_made(plugin, slicer, tmp_path, monkeypatch):
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda *a, **k: pytest.fail("a question"))
    (found,) = plugin.examineForImport([written(tmp_path, (10, 20, 40), echo_time)])
    plugin.load(found)
    slicer.mrmlScene.Clear(0)
    process(50)


def test_a_slicer_without_dicom_starts_without_an_error(slicer, monkeypatch):
    from DiscRelaxometryWidgets import registrations

    monkeypatch.delitem(sys.modules, "DICOMLib", raising=False)
    monkeypatch.setattr(slicer.modules, "dicomPlugins", {}, raising=False)
    registrations.dicom_plugin()
    assert slicer.modules.dicomPlugins == {}
