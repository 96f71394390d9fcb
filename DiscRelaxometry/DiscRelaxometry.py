"""Lumbar discs and their relaxation times: segmentation, T1rho and T2 maps, measures.

``DiscRelaxometryLogic`` is the batch interface, the same in Slicer's Python console and headless::

    from DiscRelaxometryLib.headless import start_headless
    slicer = start_headless()                    # not needed inside Slicer
    from DiscRelaxometry import DiscRelaxometryLogic
    logic = DiscRelaxometryLogic()
    volume = slicer.util.loadVolume("sub-01_T2w.nii.gz")
    discs = logic.segmentDiscs(volume)
    series = logic.loadEchoSeries("sub-01_MESE.nii.gz")
    maps = logic.computeMaps(series)
    labels = logic.carrySegmentation(discs.segmentation, volume, series)
    tables = logic.measure(labels, maps)
    logic.exportTables(tables, "results")
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import slicer
from DiscRelaxometryWidgets import registrations, sample_data
from DiscRelaxometryWidgets.choices import DiscRelaxometryParameterNode
from DiscRelaxometryWidgets.relaxometry_panel import RelaxometryPanel
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
)

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.errors import DiscRelaxometryError, SegmentationError
from DiscRelaxometryLib.jobs import Job
from DiscRelaxometryLib.progress import silent


class DiscRelaxometry(ScriptedLoadableModule):
    """Describe the module to Slicer."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Disc Relaxometry")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        parent.dependencies = []
        parent.contributors = ["DiscRelaxometry contributors"]
        parent.helpText = _("Segments and names the lumbar discs of a sagittal MRI, computes T1rho and T2 maps from "
                            "echo series, and measures each disc and its regions.")
        parent.acknowledgementText = _("For research; not a medical device. The documentation cites data and methods.")
        if hasattr(slicer.app, "connect"):
            for register in (sample_data.register, registrations.effect, registrations.dicom_plugin):
                slicer.app.connect("startupCompleted()", register)


class DiscRelaxometryWidget(RelaxometryPanel):
    """The panel; its parts are in ``DiscRelaxometryWidgets``."""

    def createLogic(self):
        """Return the module's Logic."""
        return DiscRelaxometryLogic()


@dataclass
class DiscResult:
    """What ``segmentDiscs`` made: nodes, and sentences for the user."""

    segmentation: object
    confidence: object = None
    discs: list = field(default_factory=list)
    flags: list = field(default_factory=list)


class DiscRelaxometryLogic(ScriptedLoadableModuleLogic):
    """Discs, relaxation maps and measures on MRML nodes; every method is synchronous and needs no window.

    Methods raise ``DiscRelaxometryError`` (a ``ValueError``) with a sentence that says what to do; they then leave the
    scene as it was. ``progressCallback(fraction, text)`` is called between units of work and may raise ``Cancelled``.
    A panel runs the job that ``measureJob`` returns in a child process, and shows its result by ``showMeasures``.
    """

    def getParameterNode(self):
        """Return the panel's settings."""
        return DiscRelaxometryParameterNode(super().getParameterNode())

    # ------------------------------------------------------------ segmentation

    def segmentJob(self, volumeNode, engine="auto", device=None):
        """Return the segmentation of `volumeNode` as a job that needs no scene."""
        arguments = {"image": mrml.image_from_volume(volumeNode), "engine": engine, "device": device}
        return Job("DiscRelaxometryLib.discs:segment", arguments, _("Segmenting discs"))

    def showSegmentation(self, result, volumeNode, outputNode=None):
        """Put a segmentation job's result into the scene and return a DiscResult."""
        if not result.discs:
            raise SegmentationError(result.reason or _("No disc was found."), anchor="no-spine-found")
        name = f"{volumeNode.GetName()} discs"
        with mrml.all_or_nothing():
            confidence = mrml.volume_from_image(result.confidence, f"{volumeNode.GetName()} confidence", "confidence")
            node = mrml.segmentation_from_labels(result.labels, name, volumeNode,
                                                 {q.value: q.confidence for q in result.quality}, outputNode)
            for quality in result.quality:
                if quality.review:
                    mrml.set_segment_tag(node, quality.value, "Review", _("review"))
            for disc in result.discs:
                mrml.set_segment_tag(node, disc.value, "Level", _("Counted from the lowest disc: {why}.").format(
                    why=result.evidence))
            node.SetDescription(" ".join(result.flags))
            mrml.mark_written(node)
            mrml.put_in_folder(mrml.create_folder(name), node, confidence)
        return DiscResult(node, confidence, result.discs, list(result.flags))

    def segmentDiscs(self, volumeNode, engine="auto", device=None, outputNode=None, progressCallback=None):
        """Segment and name the lumbar discs of an anatomical volume.

        Parameters
        ----------
        volumeNode : vtkMRMLScalarVolumeNode
            Sagittal T2- or T1-weighted volume of any spacing and orientation.
        engine : str, optional
            ``auto``, ``torch`` or ``onnx``.
        device : str, optional
            torch device such as ``cuda`` or ``cpu``; without enough GPU memory the CPU is used.
        outputNode : vtkMRMLSegmentationNode, optional
            Node to refill. One that was edited since is kept, and a new node is made.
        progressCallback : callable, optional

        Returns
        -------
        DiscResult
            ``segmentation`` (segments L1-L2 ... L5-S1, canal, vertebrae; terminology, status "in progress"),
            ``confidence`` (volume), ``discs`` (list, caudal first) and ``flags`` (sentences to read).
        """
        result = self.segmentJob(volumeNode, engine, device).run(progressCallback)
        return self.showSegmentation(result, volumeNode, outputNode)

    def gradeJob(self, volumeNode, segmentationNode, engine="auto"):
        """Return the estimation of grades as a job that needs no scene; see :meth:`gradeDiscs`."""
        arguments = {"image": mrml.image_from_volume(volumeNode), "engine": engine,
                     "labels": mrml.labels_from_segmentation(segmentationNode, volumeNode)}
        return Job("DiscRelaxometryLib.grades:grade_discs", arguments, _("Estimating grades"))

    def showGrades(self, result, volumeNode, segmentationNode):
        """Keep a grade job's result with the discs, and return it as a table node."""
        from DiscRelaxometryLib.grades import estimate_in_words

        with mrml.all_or_nothing():
            mrml.keep_grades(segmentationNode, {r["label"]: estimate_in_words(r) for r in result.rows})
            return mrml.table_node(result, f"{volumeNode.GetName()} estimated grades")

    def gradeDiscs(self, volumeNode, segmentationNode, engine="auto", progressCallback=None):
        """Estimate the Pfirrmann grade of each disc from a sagittal T2-weighted volume; an estimate is not a reading.

        Parameters
        ----------
        volumeNode : vtkMRMLScalarVolumeNode
        segmentationNode : vtkMRMLSegmentationNode
            Discs, canal and vertebrae; grade and probabilities are kept with the discs.

        Returns
        -------
        vtkMRMLTableNode
            See ``DiscRelaxometryLib.grades.COLUMNS``; a disc that is not graded has a statement.
        """
        result = self.gradeJob(volumeNode, segmentationNode, engine).run(progressCallback)
        return self.showGrades(result, volumeNode, segmentationNode)

    def shiftLevels(self, segmentationNode, n):
        """Rename discs and vertebrae `n` levels up (cranial, positive) or down, as a transitional vertebra may need."""
        mrml.shift_segment_levels(segmentationNode, n)

    def importJob(self, source, convention="auto"):
        """Return the import of labels as a job that needs no scene; see :meth:`importSegmentation`."""
        from DiscRelaxometryLib.image import read_image

        image = mrml.image_from_volume(source) if hasattr(source, "GetImageData") else read_image(source)
        return Job("DiscRelaxometryLib.discs:import_labels", {"image": image, "convention": convention},
                   _("Importing labels"))

    def showImported(self, result, source, referenceNode=None, notes=()):
        """Put an import job's result into the scene and return a DiscResult."""
        labels, report = result
        name = source.GetName() if hasattr(source, "GetName") else Path(source).name.split(".")[0]
        with mrml.all_or_nothing():
            return DiscResult(mrml.segmentation_from_labels(labels, f"{name} discs", referenceNode),
                              flags=[*notes, *report.flags])

    def importSegmentation(self, source, convention="auto", referenceNode=None):
        """Import discs of another tool (TotalSpineSeg, TotalSegmentator, SPINEPS, SPIDER, ...) as a DiscResult.

        Parameters
        ----------
        source : str, path or vtkMRMLVolumeNode
            Label image.
        convention : str, optional
            Key of the tool's table (``labelmaps.conventions()``), or ``auto`` where the values tell.
        referenceNode : vtkMRMLScalarVolumeNode, optional
            The volume that was segmented.
        """
        job = self.importJob(source, convention)
        return self.showImported(job.run(), source, referenceNode, job.arguments["image"].notes)

    def carryJob(self, segmentationNode, anatomicalNode, target):
        """Return the registration as a job that needs no scene; see :meth:`carrySegmentation`."""
        echo = mrml.echo_volume(target)
        arguments = {"labels": mrml.labels_from_segmentation(segmentationNode, anatomicalNode),
                     "anatomical": mrml.image_from_volume(anatomicalNode), "echo_image": mrml.image_from_volume(echo)}
        return Job("DiscRelaxometryLib.measure:carry_labels", arguments, _("Registering to the echo series"))

    def showCarried(self, result, segmentationNode, target):
        """Put a carry job's result into the scene and return the segmentation."""
        with mrml.all_or_nothing():
            node = mrml.segmentation_from_labels(result.labels, f"{segmentationNode.GetName()} on {target.GetName()}")
            node.SetDescription(" ".join([result.report.reason, *result.report.flags]))
        return node

    def carrySegmentation(self, segmentationNode, anatomicalNode, target, progressCallback=None):
        """Carry discs from the anatomical volume to an echo series by rigid registration; return the segmentation.

        It lies on the grid of the target, and its description says how well the registration went.

        Parameters
        ----------
        segmentationNode : vtkMRMLSegmentationNode
        anatomicalNode : vtkMRMLScalarVolumeNode
            The volume that was segmented.
        target : vtkMRMLSequenceNode or vtkMRMLScalarVolumeNode
            Echo series (its first echo is used), or one echo.
        """
        result = self.carryJob(segmentationNode, anatomicalNode, target).run(progressCallback)
        return self.showCarried(result, segmentationNode, target)

    # ------------------------------------------------------------ maps

    def loadJob(self, path, kind=None, timesMs=None):
        """Return the reading of an echo series as a job that needs no scene; see :meth:`loadEchoSeries`."""
        arguments = {"path": path, "kind": kind, "times_ms": timesMs}
        return Job("DiscRelaxometryLib.echo:read_echo_series", arguments, _("Reading the echo series"))

    def showSeries(self, series, path):
        """Put a series that was read into the scene and return its sequence."""
        first = path if isinstance(path, (str, os.PathLike)) else list(path)[0]
        with mrml.all_or_nothing():
            return mrml.sequence_from_series(series, Path(first).name.split(".")[0] or series.kind)

    def loadEchoSeries(self, path, kind=None, timesMs=None):
        """Load an echo series with its times and return its vtkMRMLSequenceNode.

        Parameters
        ----------
        path : str, path or list of paths
            DICOM folder, NIfTI with sidecars (a file per echo, or 4-D), or NRRD.
        kind : str, optional
            ``T1rho`` or ``T2``, where the files do not say.
        timesMs : sequence of float, optional
            Times in ms, where the files do not say; they are never guessed.
        """
        return self.showSeries(self.loadJob(path, kind, timesMs).run(), path)

    def mapsJob(self, series, timesMs=None, kind=None, align="auto", options=None, segmentationNode=None):
        """Return the computation of maps as a job that needs no scene; see :meth:`computeMaps`."""
        echoes = mrml.series_from_nodes(series, timesMs, kind)
        mask = mrml.labels_from_segmentation(segmentationNode, echoes.geometry) if segmentationNode else None
        arguments = {"series": echoes, "options": options, "align": align, "mask": mask}
        return Job("DiscRelaxometryLib.fit:map_series", arguments, _("Computing maps"))

    def showMaps(self, result, series):
        """Put a map job's result into the scene, in a folder of its own, and return the nodes by quantity."""
        name = (series[0] if isinstance(series, (list, tuple)) else series).GetName()
        with mrml.all_or_nothing():
            nodes = {key: mrml.volume_from_image(image, f"{name} {key}", key)
                     for key, image in result.fit.images().items()}
            tables = [mrml.table_node(t, f"{name} {t.name}") for t in (result.fit.status_table(), result.motion)
                      if t is not None]
            relaxation = next(iter(nodes.values()))
            relaxation.SetAttribute(mrml.ATTRIBUTE + "Notes", "\n".join(result.notes))
            if result.aligned:
                fitted = mrml.sequence_from_series(result.series, f"{name} aligned", browser=False)
                relaxation.SetNodeReferenceID(mrml.FITTED_SERIES, fitted.GetID())
            mrml.put_in_folder(mrml.create_folder(f"{name} maps"), *nodes.values(), *tables)
        return nodes

    def computeMaps(self, series, timesMs=None, kind=None, align="auto", options=None, segmentationNode=None,
                    progressCallback=None):
        """Compute a T1rho or T2 map with M0, standard error, R squared and status.

        Parameters
        ----------
        series : vtkMRMLSequenceNode, vtkMRMLScalarVolumeNode or list of vtkMRMLScalarVolumeNode
            Echo series, the volume that a sequence browser shows, or one volume per echo.
        timesMs : sequence of float, optional
            ms, one per echo; by default those recorded in the sequence.
        kind : str, optional
            ``T1rho`` or ``T2``; by default what the sequence says.
        align : str, optional
            ``auto``, ``on`` or ``off``.
        options : DiscRelaxometryLib.fit.FitOptions, optional
            Model, estimator, bounds and whatever else shapes the fit.
        segmentationNode : vtkMRMLSegmentationNode, optional
            Fit these voxels only.

        Returns
        -------
        dict of vtkMRMLScalarVolumeNode
            By quantity: ``T1rho`` or ``T2``, ``M0``, ``SE``, ``R2``, ``status``, ... A voxel without a good fit is NaN.
        """
        job = self.mapsJob(series, timesMs, kind, align, options, segmentationNode)
        return self.showMaps(job.run(progressCallback), series)

    def normalizeSignal(self, volumeNode, segmentationNode):
        """Return the T2-weighted signal divided by the median of the cerebrospinal fluid; this is not T2."""
        from DiscRelaxometryLib.measure import normalized_t2w

        labels = mrml.labels_from_segmentation(segmentationNode, volumeNode)
        image = normalized_t2w(mrml.image_from_volume(volumeNode), labels)
        with mrml.all_or_nothing():
            return mrml.volume_from_image(image, f"{volumeNode.GetName()} nT2w", "nT2w")

    # ------------------------------------------------------------ measures

    def measureJob(self, segmentationNode, maps=None, referenceNode=None):
        """Return the measurement as a job that needs no scene; see :meth:`measure`."""
        maps = mrml.volumes_by_quantity(maps)
        reference = referenceNode or next(iter(maps.values()), None)
        arguments = {"labels": mrml.labels_from_segmentation(segmentationNode, reference),
                     "maps": {key: mrml.image_from_volume(node) for key, node in maps.items()}}
        return Job("DiscRelaxometryLib.measure:measure_all", arguments, _("Measuring"))

    def showMeasures(self, tables, segmentationNode):
        """Put a measuring job's tables into the scene and return their nodes."""
        with mrml.all_or_nothing():
            nodes = {key: mrml.table_node(table, f"{segmentationNode.GetName()} {key}")
                     for key, table in tables.items()}
            mrml.put_in_folder(mrml.create_folder(f"{segmentationNode.GetName()} measures"), *nodes.values())
        return nodes

    def measure(self, segmentationNode, maps=None, referenceNode=None, progressCallback=None):
        """Measure discs and regions.

        Parameters
        ----------
        segmentationNode : vtkMRMLSegmentationNode
        maps : dict or list of vtkMRMLScalarVolumeNode, optional
            Maps on one grid; a list takes the quantity from each node.
        referenceNode : vtkMRMLVolumeNode, optional
            Grid to measure on; by default that of the maps, or the segmentation's own.

        Returns
        -------
        dict of vtkMRMLTableNode
            ``discs`` (size; each map over the whole disc), ``vertebrae`` where they are labelled, and,
            with maps, ``regions``.
        """
        job = self.measureJob(segmentationNode, maps, referenceNode)
        return self.showMeasures(job.run(progressCallback), segmentationNode)

    def exportTables(self, tables, folder):
        """Write tables as TSV with a JSON sidecar (units, descriptions) and return the paths."""
        if not str(folder):
            raise DiscRelaxometryError(_("Choose a folder for the tables."))
        return [mrml.table_from_node(node).write(Path(folder) / f"{node.GetName().replace(' ', '_')}.tsv")
                for node in (tables.values() if isinstance(tables, dict) else tables)]

    def exportDicom(self, folder, maps=None, segmentationNode=None, source=None, progressCallback=None, **settings):
        """Write DICOM Parametric Maps (maps as for :meth:`measure`) and a Segmentation; return the paths.

        `source`: DICOM folder whose study the files join; settings are those of ``dicom_export.export_study``.
        """
        from DiscRelaxometryLib.dicom_export import export_study

        images = {key: mrml.image_from_volume(node) for key, node in mrml.volumes_by_quantity(maps).items()}
        grid = next((image.geometry for image in images.values()), None)
        labels = mrml.labels_from_segmentation(segmentationNode, grid) if segmentationNode else None
        return export_study(folder, images, labels, source, progressCallback=progressCallback or silent, **settings)


class DiscRelaxometryTest(ScriptedLoadableModuleTest):
    """Self test on the embedded real person; runs in Slicer and headless."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def test_the_panel_opens(self):
        """Open the panel, where there is a window."""
        from DiscRelaxometryWidgets.self_test import check_panel

        check_panel(self, "DiscRelaxometry")

    def test_measures_of_the_sample_person(self):
        """Import the reference labels, measure, and find five lumbar discs of plausible size."""
        _volume, segmentation = sample_data.load_person()
        tables = DiscRelaxometryLogic().measure(segmentation)
        table = mrml.table_from_node(tables["discs"])
        self.assertTrue({"L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1"} <= set(table["level"]))
        for row in table.rows:
            self.assertTrue(1 < row["volume"] < 40, row)
