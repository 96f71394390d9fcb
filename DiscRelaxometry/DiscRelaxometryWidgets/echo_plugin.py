"""DICOM plugin: T1rho and T2 echo series are loaded as a sequence with their times."""

import re
from collections import defaultdict

import slicer
from DICOMLib import DICOMLoadable, DICOMPlugin
from slicer.i18n import tr as _

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscRelaxometryLib.jobs import Job

from .work import in_child

#: A scalar volume has 0.5, and a multi-volume by echo time up to 1.0. Two echoes are more often looked at than fitted.
CONFIDENCE, CONFIDENCE_OF_TWO = 1.05, 0.4
STUDY, MODALITY, SERIES, DESCRIPTION = "0020,000D", "0008,0060", "0020,000E", "0008,103E"


class EchoSeriesPlugin(DICOMPlugin):
    """Examines headers by the rules with which the module reads files; loads, and offers to open the panel."""

    def __init__(self):
        super().__init__()
        self.loadType = _("Echo series (T1rho, T2)")
        self.tags["studyInstanceUID"] = STUDY

    def examineForImport(self, fileList):
        """Return a loadable for each echo series among lists of files, one list per DICOM series."""
        loadables, single = [], defaultdict(list)
        for files in fileList:
            if not files or self._value(files, MODALITY) != "MR":
                continue
            own = self.getCachedLoadables(files)
            if own is None:
                own = self.examineFiles(files)
                self.cacheLoadables(files, own)
            loadables += own
            if not own:
                # Vendors may export one DICOM series per time; their descriptions then differ in numbers.
                words = re.sub(r"\d+", "", self._value(files, DESCRIPTION))
                single[self._value(files, STUDY), words, len(files)].append(files)
        for lists in single.values():
            if len(lists) > 1:
                loadables += self.examineFiles([file for files in lists for file in files])
        return loadables

    def examineFiles(self, files):
        """Return a loadable for files that are one echo series, or nothing."""
        from DiscRelaxometryLib.echo import find_echoes, list_files

        try:
            found = find_echoes(list_files(files))
        except DiscRelaxometryError:
            return []
        times = ", ".join(f"{t:g}" for t in found.times_ms)
        loadable = DICOMLoadable()
        loadable.files = list(files)
        loadable.name = self.defaultSeriesNodeName(self._value(files, SERIES)) + f" {found.kind}"
        loadable.tooltip = _("{kind} series of {n} echoes: {times} ms").format(
            kind=found.kind, n=len(found.times_ms), times=times)
        loadable.warning = " ".join(found.notes)
        loadable.confidence = CONFIDENCE if len(found.times_ms) > 2 or found.kind == "T1rho" else CONFIDENCE_OF_TWO
        loadable.selected = True
        return [loadable]

    @staticmethod
    def _value(files, tag):
        return slicer.dicomDatabase.fileValue(files[0], tag)

    def load(self, loadable):
        """Load an echo series and return its sequence; the offer to open the panel follows when loading has ended."""
        import qt

        series = in_child(Job("DiscRelaxometryLib.echo:read_echo_series", {"path": list(loadable.files)}))
        with mrml.all_or_nothing():
            node = mrml.sequence_from_series(series, loadable.name)
        volume = mrml.shown_volume(node)
        self.addSeriesInSubjectHierarchy(loadable, volume)
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        qt.QTimer.singleShot(0, lambda: offer(node))
        return node


def offer(node):
    """Ask whether a series is to be opened in Disc Relaxometry."""
    if slicer.mrmlScene.IsNodePresent(node) and slicer.util.confirmYesNoDisplay(
            _("'{name}' is an echo series with its times. Open it in Disc Relaxometry?").format(name=node.GetName()),
            _("Echo series"), dontShowAgainSettingsKey="DiscRelaxometry/OpenEchoSeries"):
        slicer.util.selectModule("DiscRelaxometry")
        slicer.util.getModuleWidget("DiscRelaxometry").useSeries(node)
