"""Voxel-wise statistics of disc maps in atlas space.

``DiscStatsLogic`` is the batch interface, the same in Slicer's Python console and headless::

    logic = DiscStatsLogic()
    result = logic.analyze(mapNodes, atlasLabelsNode, "participants.tsv", "T2 ~ pfirrmann + age + C(sex)")
    nodes = logic.showResult(result)
    chart = logic.plotAt(result, ras=(0.0, -12.0, 40.0))
    logic.saveResult(result, "results")
"""

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import slicer
from DiscStatsWidgets import sample_cohort
from DiscStatsWidgets.stats_choices import Alternative, Change, Errors, StandardErrors
from DiscStatsWidgets.stats_panel import StatsPanel
from slicer import vtkMRMLTableNode, vtkMRMLVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
)

from DiscRelaxometryLib import mrml as base
from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.jobs import Job
from DiscStatsLib.settings import AnalysisSettings


class DiscStats(ScriptedLoadableModule):
    """Describe the module to Slicer."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Disc Statistics")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        parent.dependencies = ["DiscRelaxometry", "DiscAtlas"]
        parent.contributors = ["DiscRelaxometry contributors"]
        parent.helpText = _("Explains maps in atlas space by a model of the participants, voxel by voxel, with "
                            "permutation inference, and shows the result as volumes, tables and plots.")
        parent.acknowledgementText = _("For research; not a medical device. Methods are cited in the documentation.")
        if hasattr(slicer.app, "connect"):
            slicer.app.connect("startupCompleted()", sample_cohort.register)


@parameterNodeWrapper
class DiscStatsParameterNode:
    """Settings of the panel, saved with the scene."""

    participantsFile: Path
    mapsFolder: Path
    quantity: str
    atlasFolder: Path
    formula: str
    contrast: str
    fwe: bool = True
    tfce: bool = True
    fdr: bool = True
    cluster: bool = True
    permutations: Annotated[int, WithinRange(100, 100000)] = AnalysisSettings.n_permutations
    seed: Annotated[int, WithinRange(0, 2147483647)] = AnalysisSettings.seed
    workers: Annotated[int, WithinRange(1, 64)] = 1
    availableCase: bool = AnalysisSettings.missing == "available"
    dropRows: bool = AnalysisSettings.missing_covariates == "drop"
    errors: Errors = Errors[AnalysisSettings.errors]
    standardErrors: StandardErrors = StandardErrors[AnalysisSettings.standard_errors]
    varianceGroups: str
    blocks: str
    alternative: Alternative = Alternative.both
    ranks: bool = AnalysisSettings.ranks
    pareto: bool = AnalysisSettings.tail == "pareto"
    resultMaps: list[vtkMRMLVolumeNode]
    shownMap: vtkMRMLVolumeNode
    clusters: vtkMRMLTableNode
    resultsFolder: Path
    studyFolder: Path
    studyFormula: bool = True
    pooled: bool = False
    session: str
    change: Change = Change.none
    processes: Annotated[int, WithinRange(1, 64)] = 1


class DiscStatsWidget(StatsPanel):
    """The panel; its parts are in ``DiscStatsWidgets``."""

    def createLogic(self):
        """Return the module's Logic."""
        return DiscStatsLogic()


class DiscStatsLogic(ScriptedLoadableModuleLogic):
    """Voxel-wise analysis on MRML nodes or files; every method is synchronous and needs no window.

    Methods raise ``DiscRelaxometryError`` (a ``ValueError``) with a sentence that says what to do; they then leave the
    scene as it was. ``progressCallback(fraction, text)`` is called between units of work and may raise ``Cancelled``.
    """

    def getParameterNode(self):
        """Return the panel's settings."""
        return DiscStatsParameterNode(super().getParameterNode())

    # ------------------------------------------------------------ input

    def participants(self, source):
        """Return a participants table as pandas.DataFrame.

        Parameters
        ----------
        source : str, path, vtkMRMLTableNode or pandas.DataFrame
            TSV (``n/a`` and empty cells are missing), or a table node.
        """
        from DiscStatsLib.design import read_participants

        return read_participants(base.table_from_node(source) if hasattr(source, "GetTable") else source)

    def checkDesign(self, participants, formula, level=""):
        """Return the design of a formula, with its columns and remarks, before anything is computed."""
        from DiscStatsLib.design import build_design, check_participants

        table = self.participants(participants)
        check_participants(table)
        return build_design(formula, table, level=level)

    # ------------------------------------------------------------ analysis

    def analysisJob(self, maps, atlasLabels, participants, formula, contrasts=None, regions=None, **settings):
        """Return the analysis as a job that needs no scene; see :meth:`analyze`."""
        from DiscStatsLib.mrml import for_child
        from DiscStatsLib.sources import converted

        own = {f.name: settings.pop(f.name) for f in fields(AnalysisSettings) if f.name in settings}
        images = {"maps": maps, "atlas_labels": atlasLabels, "regions": regions,
                  "voxel_covariates": settings.pop("voxel_covariates", None)}
        arguments = {**converted(images, for_child), "participants": self.participants(participants),
                     "formula": formula, "contrasts": contrasts, "settings": AnalysisSettings(**own), **settings}
        return Job("DiscStatsLib.sources:analyze_sources", arguments, _("Statistics"))

    def analyze(self, maps, atlasLabels, participants, formula, contrasts=None, regions=None, progressCallback=None,
                **settings):
        """Analyze maps in atlas space, voxel by voxel.

        Parameters
        ----------
        maps : list, or dict of list
            Volume nodes, Images or file names, one per row of the table and in its order; by quantity to test several
            together; or by participant id.
        atlasLabels : vtkMRMLVolumeNode, Image or path
            Disc levels of the atlas.
        participants : vtkMRMLTableNode, path or pandas.DataFrame
        formula : str
            Such as ``T2 ~ pfirrmann + age + C(sex)``; ``pfirrmann`` may be one column per level (``pfirrmann_L5S1``).
        contrasts : optional
            Default: every term.
        regions : vtkMRMLVolumeNode, Image or path, optional
            Atlas regions, for the cluster table.
        progressCallback : callable, optional
        settings
            Of ``DiscStatsLib.settings.AnalysisSettings`` (``correction``, ``n_permutations``, ``seed``, ``missing``,
            ``errors``, ...), and of ``DiscStatsLib.analysis.analyze``: ``blocks``, ``levels``, ``region_names``,
            ``voxel_covariates``.

        Returns
        -------
        DiscStatsLib.analysis.analyze.AnalysisResult
        """
        job = self.analysisJob(maps, atlasLabels, participants, formula, contrasts, regions, **settings)
        return job.run(progressCallback)

    def showResult(self, result, name="Disc statistics", maps="main"):
        """Add maps, cluster table and provenance to the scene, in a folder of their own.

        `maps` are ``main``, the kinds of map to add (such as ``t`` and ``pfwe``), or None for all; returns
        ``DiscStatsLib.mrml.ResultNodes``.
        """
        from DiscStatsLib import mrml

        return mrml.add_result(result, name, mrml.MAIN_MAPS if maps == "main" else maps)

    def plotAt(self, result, ras=None, cluster=None, region=None, level=None, quantity=None, contrast=None,
               adjusted=True, chartNode=None):
        """Plot the map against the variable of a contrast, at a place.

        Parameters
        ----------
        result : AnalysisResult
        ras : sequence of float, optional
            Position in RAS mm, such as the crosshair's.
        cluster, region, level : int, optional
            Cluster number, region value, or label value of a disc, instead of a position.
        quantity, contrast : str, optional
            Default: the first.
        adjusted : bool
            Show values adjusted for the other columns of the model.
        chartNode : vtkMRMLPlotChartNode, optional
            Chart to refill.

        Returns
        -------
        vtkMRMLPlotChartNode
            Its description holds effect, limits, r, p and n.
        """
        from DiscStatsLib import mrml
        from DiscStatsLib.analysis import plot_data

        position = None if ras is None else base.position_from_ras(ras)
        data = plot_data(result, quantity, contrast, position=position, cluster=cluster, region=region,
                         **({} if level is None else {"level": level}))
        return mrml.plot_nodes(data, adjusted, chartNode)

    def saveResult(self, result, folder, scene=False, extension=".nii.gz"):
        """Write maps, tables (TSV) and provenance (JSON); with `scene`, the scene as ``analysis.mrb`` too.

        Parameters
        ----------
        result : AnalysisResult
        folder : str or path
        scene : bool
        extension : {".nii.gz", ".nrrd"}
            NIfTI or NRRD maps.

        Returns
        -------
        list of Path
        """
        from DiscStatsLib.analysis import save_analysis

        if not str(folder):
            raise DesignError(_("Choose a folder for the results."))
        written = save_analysis(result, folder, extension)
        if scene:
            path = Path(folder) / "analysis.mrb"
            if not slicer.util.saveScene(str(path)):
                raise DesignError(_("The scene could not be written to '{path}'.").format(path=path))
            written.append(path)
        return written

    # ------------------------------------------------------------ groups and single persons

    def zScore(self, volumeNode, referenceMaps):
        """Return nodes of the z-score map and its p (Crawford & Howell) of one person against a reference group.

        Parameters
        ----------
        volumeNode : vtkMRMLVolumeNode, Image or path
        referenceMaps : list of these

        Returns
        -------
        tuple of vtkMRMLScalarVolumeNode
        """
        from DiscRelaxometryLib.quantities import Quantity
        from DiscStatsLib.analysis import reference_group, z_score
        from DiscStatsLib.mrml import image_of

        reference = reference_group([image_of(m) for m in referenceMaps])
        deviation = z_score(image_of(volumeNode), reference)
        code = ("STAT_Z", "99DISCRELAX", "z score")
        count = len(referenceMaps)
        z = Quantity("z", "z score", "1", code, (-4, 4), "DivergingBlueRed",
                     f"Deviation from the mean of {count} reference maps, in their SD")
        p = Quantity("p", "p (uncorrected)", "1", ("STAT_P", "99DISCRELAX", "p"), (0, 0.05), "Viridis",
                     f"Two-sided p of the deviation (Crawford & Howell 1998, {count} reference maps), uncorrected")
        name = volumeNode.GetName() if hasattr(volumeNode, "GetName") else "Person"
        with base.all_or_nothing():
            nodes = (base.volume_from_image(deviation.z, f"{name} z score", z),
                     base.volume_from_image(deviation.p, f"{name} z score p", p))
            nodes[1].GetDisplayNode().SetThreshold(0.0, 0.05)
            nodes[0].SetDescription(" ".join([z.description + ".", *deviation.warnings]))
        return nodes

    def groupMaps(self, maps, groups, quantity=None):
        """Return a dict of (mean, SD) volume nodes by group.

        Parameters
        ----------
        maps : list of vtkMRMLVolumeNode, Image or path
        groups : sequence of str
            Group of each map.
        quantity : str, optional
            Key of the quantity, for unit, window and colors.
        """
        from DiscStatsLib.analysis import group_maps
        from DiscStatsLib.mrml import image_of

        found = group_maps([image_of(m) for m in maps], groups)
        with base.all_or_nothing():
            return {group: (base.volume_from_image(r.mean, f"{group} mean", quantity),
                            base.volume_from_image(r.sd, f"{group} SD")) for group, r in found.items()}

    # ------------------------------------------------------------ tables

    def regionTable(self, maps, atlasLabels, participants, regions=None, name="Region means", **settings):
        """Return a table node of the maps' means in each disc or region, beside the participants' columns.

        Parameters are those of :meth:`analyze`; see ``DiscStatsLib.tables.region_means.region_means``.
        """
        from DiscStatsLib.mrml import image_of
        from DiscStatsLib.sources import converted
        from DiscStatsLib.tables import region_means

        table = region_means(converted(maps, image_of), image_of(atlasLabels), self.participants(participants),
                             regions=None if regions is None else image_of(regions), **settings)
        return base.table_node(table, name)

    def mixedModel(self, table, formula, name="Mixed model", **settings):
        """Fit a mixed model with a random person to a per-disc or per-region table.

        Parameters
        ----------
        table : vtkMRMLTableNode, path or pandas.DataFrame
            Such as that of :meth:`regionTable`.
        formula : str
            Such as ``T2 ~ pfirrmann + C(level) + age + C(sex)``.
        name : str
        settings
            Of ``DiscStatsLib.tables.mixed.fit_mixed``: ``group``, ``slope``, ``reml``, ``missing``, ``confidence``.

        Returns
        -------
        tuple of vtkMRMLTableNode
            Fixed effects, and standard deviations; the description of the first holds n, ICC and remarks.
        """
        from DiscStatsLib import mrml
        from DiscStatsLib.tables import fit_mixed

        return mrml.mixed_nodes(fit_mixed(self.participants(table), formula, **settings), formula, name)

    def agreement(self, table, first, second, unit="", name="Agreement"):
        """Return a table node: Bland-Altman, Lin's concordance and all ICC, with intervals, of two columns.

        Rows are taken as independent: give one disc per person, or one table per level.
        """
        from DiscStatsLib.design import numeric_columns
        from DiscStatsLib.tables import agreement_table

        frame = self.participants(table)
        node = base.table_node(agreement_table(*numeric_columns(frame, first, second), unit), name)
        node.SetDescription(" ".join(frame.attrs.get("notes", ())))
        return node

    def rocCurve(self, table, score, positive, name="ROC", **settings):
        """Return a chart node of the ROC curve of a column of scores for a column of 0 and 1.

        Its description holds the area with its interval; `settings` are those of ``DiscStatsLib.tables.roc.roc``.
        """
        from DiscStatsLib import mrml
        from DiscStatsLib.design import numeric_columns
        from DiscStatsLib.tables import roc

        return mrml.roc_nodes(roc(*numeric_columns(self.participants(table), score, positive), **settings), score, name)


class DiscStatsTest(ScriptedLoadableModuleTest):
    """Self test on a small simulated cohort; runs in Slicer and headless."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def test_the_panel_opens(self):
        """Open the panel, where there is a window."""
        from DiscRelaxometryWidgets.self_test import check_panel

        check_panel(self, "DiscStats")

    def test_effect_is_found_where_it_was_put(self):
        """Plant an effect of a grade in one corner of one disc and find it in the cluster table."""
        import numpy as np
        import pandas

        from DiscRelaxometryLib.image import Geometry, Image

        rng = np.random.default_rng(0)
        labels = np.zeros((3, 8, 10), np.uint8)
        labels[:, :3, 1:9], labels[:, 5:, 1:9], geometry = 11, 12, Geometry((10, 8, 3), (1, 1, 2))
        people = [f"simulated-{n}" for n in range(20)]
        table, maps = pandas.DataFrame({"participant_id": people, "grade": rng.integers(1, 6, 20)}), []
        for grade in table.grade:
            values = np.where(labels > 0, rng.normal(80, 2, labels.shape), np.nan)
            values[:2, :2, 1:5] -= 2.0 * grade
            maps.append(Image(values, geometry))
        logic = DiscStatsLogic()
        result = logic.analyze(maps, Image(labels, geometry), table, "T2 ~ grade", n_permutations=199, seed=1)
        self.assertEqual(result.clusters.rows[0]["level"], "L5-S1")
        self.assertLess(result.clusters.rows[0]["p_extent"], 0.05)
        nodes = logic.showResult(result)
        self.assertIn("T2_grade_pfwe", nodes.maps)
