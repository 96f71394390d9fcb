"""Panel of DiscStats: participants, formula with live preview, analysis, results, whole study."""

from pathlib import Path

from DiscRelaxometryWidgets import requirements
from DiscRelaxometryWidgets.panel import DiscPanel
from DiscRelaxometryWidgets.qt_helpers import choose_data, chosen_path, current_data, fill_table, silent
from slicer.i18n import tr as _

from .design_preview import DesignPreview
from .file_drop import FileDrop, local_path
from .results_view import ResultsView
from .review_section import ReviewSection
from .study_runner import StudyRunner


class StatsPanel(DiscPanel):
    """Widgets to Logic calls; holds no computation."""

    def connectWidgets(self):
        """Connect buttons and tables."""
        ui = self.ui
        self._table, self._tablePath, self._maps, self._mapsPath, self._installed = None, None, {}, None, False
        self._preview = DesignPreview(ui)
        self._results = ResultsView(ui, self.logic, self.work)
        self._study = StudyRunner(ui, self.work)
        self._review = ReviewSection(ui, self.work)
        ui.runButton.clicked.connect(self.onRun)
        ui.installButton.clicked.connect(self.onInstall)
        ui.saveButton.clicked.connect(self.onSave)
        ui.quantityCombo.currentIndexChanged.connect(self.onQuantityChosen)
        # The whole table is a target, not the narrow field alone.
        self._drop = FileDrop((ui.participantsTable, ui.participantsFile), self.onParticipantsDropped)
        ui.participantsTable.setToolTip(_("First 200 rows of the table. Drop a TSV or CSV file here"))

    def cleanup(self):
        """Release the plot's nodes and of the drop target."""
        if self.logic is not None:
            self._results.close()
            self._review.close()
            self._drop.close()
        super().cleanup()

    def onSceneStartClose(self, caller, event):
        """Forget results whose nodes go."""
        self._results.close()
        self._review.close()
        super().onSceneStartClose(caller, event)

    # ------------------------------------------------------------ state

    def setParameterNode(self, parameterNode):
        """Bind the widgets to a parameter node, or to none."""
        if self.logic is not None:
            self._results.settings = self._study.settings = self._review.settings = parameterNode
        super().setParameterNode(parameterNode)

    def chooseInputs(self):
        """Take the sample cohort of the Sample Data module, where nothing is chosen."""
        self._study.offerSampleCohort()

    def onParametersChanged(self):
        """Read table and maps when other files were chosen, and renew the preview."""
        p = self._parameterNode
        self._readParticipants()
        self._findMaps()
        choose_data(self.ui.quantityCombo, p.quantity)
        waiting = _("Choose a participants table.")
        if self._packagesMissing():
            waiting = _("Install the packages for statistics first: the button is under Model.")
        self._preview.update(p, self._table, self._people(), waiting)
        self._results.onParametersChanged()

    def _packagesMissing(self):
        import slicer.packaging

        # They stay once they are there, and to look for them takes longer than all else that a change asks for.
        self._installed = self._installed or all(slicer.packaging.pip_check(r) for r in requirements.STATISTICS)
        return not self._installed

    def _checkCanApply(self, caller=None, event=None):
        p, ui = self._parameterNode, self.ui
        if p is None:
            return
        missing = []
        if self._table is None:
            missing.append(_("Choose the participants table."))
        if not self._maps:
            missing.append(_("Choose the folder of maps in atlas space."))
        if self._table is not None and not self._preview.valid:
            missing.append(_("Correct the formula: see the preview."))
        if self._maps and self._table is not None and not self._people():
            missing.append(_("No participant of the table has a map."))
        packages = self._packagesMissing()
        ui.installButton.setVisible(packages)
        self.work.allow(ui.runButton, [_("Install the packages for statistics first.")] if packages else missing,
                   _("Analyze the maps voxel by voxel"))
        self.work.allow(ui.installButton, [], _("Install pandas, statsmodels and numba into Slicer's Python"))
        self._results.checkCanApply()
        self._study.checkCanApply()
        self._review.checkCanApply()

    def onInstall(self):
        """Install what the statistics need."""
        self.work.ensurePackages(requirements.STATISTICS, _(
            "Statistics need the packages pandas, statsmodels and numba (about 150 MB), for tables, formulas and fast "
            "permutations. Install them into Slicer's Python?"))
        self._tablePath = None
        self._onModified()

    # ------------------------------------------------------------ input

    def _readParticipants(self):
        """Read and show the participants table when another file was chosen."""
        path = self._parameterNode.participantsFile
        if path == self._tablePath or self._packagesMissing():
            return
        self._tablePath, self._table = path, None
        text = chosen_path(path)
        # A file dropped on the field arrives as a URL.
        if text and "file:" in text:
            self._parameterNode.participantsFile = Path(local_path(text))
            return
        if text is not None:
            self._table = self.work.attempt(_("The participants table cannot be used."),
                                       lambda: self._checked(self.logic.participants(text)))
        frame = self._table
        rows = [] if frame is None else [[self._cell(v) for v in r] for r in frame.head(200).itertuples(index=False)]
        fill_table(self.ui.participantsTable, [] if frame is None else list(frame.columns), rows)

    @staticmethod
    def _checked(frame):
        from DiscStatsLib.design import check_participants

        check_participants(frame)
        return frame

    @staticmethod
    def _cell(content):
        if content is None or content != content:
            return ""
        return f"{content:.6g}" if isinstance(content, float) else str(content)

    def _findMaps(self):
        """Find the maps when another folder was chosen."""
        folder = self._parameterNode.mapsFolder
        if folder == self._mapsPath:
            return
        from DiscStudyLib.after import find_maps

        self._mapsPath, self._maps = folder, {}
        if chosen_path(folder) is not None:
            self._maps = self.work.attempt(_("The maps cannot be used."), lambda: find_maps(folder)) or {}
        combo = self.ui.quantityCombo
        with silent(combo):
            combo.clear()
            for quantity, files in self._maps.items():
                combo.addItem(_("{quantity} ({n} people)").format(quantity=quantity, n=len(files)), quantity)
            choose_data(combo, self._parameterNode.quantity)

    def onQuantityChosen(self, index):
        """Keep the map to explain in the settings."""
        if self._parameterNode is not None:
            self._parameterNode.quantity = self.quantity() or ""

    def quantity(self):
        """Return the chosen quantity, or None."""
        return current_data(self.ui.quantityCombo)

    def onParticipantsDropped(self, path):
        """Take the table that was dropped."""
        if self._parameterNode is not None:
            self._parameterNode.participantsFile = Path(path)

    def _people(self):
        """Return the participants who have a map, in the order of the table; all while no maps are chosen."""
        if self._table is None:
            return []
        files = self._maps.get(self.quantity(), {})
        return [i for i in self._table["participant_id"].astype(str) if i in files or not self._maps]

    # ------------------------------------------------------------ analysis

    def onRun(self):
        """Analyze in a child process."""
        quantity, p = self.quantity(), self._parameterNode
        self.work.start(_("The maps could not be analyzed."), lambda: self._job(quantity),
                        lambda result: self._results.show(result, p))

    def _job(self, quantity):
        from DiscAtlasLib import load_atlas
        from DiscRelaxometryLib.measure import PARTITION
        from DiscStudyLib.after import atlas_of

        p = self._parameterNode
        atlas = load_atlas(chosen_path(p.atlasFolder) or atlas_of(p.mapsFolder))
        people = self._people()
        table = self._table[self._table["participant_id"].astype(str).isin(people)].reset_index(drop=True)
        corrections = [name for name, wanted in (("fwe", p.fwe), ("tfce", p.tfce), ("fdr", p.fdr),
                                                 ("cluster", p.cluster)) if wanted]
        files = self._maps[quantity]
        return self.logic.analysisJob(
            {quantity: {person: files[person] for person in people}}, atlas.labels, table, p.formula,
            p.contrast or None, atlas.regions, region_names={code: name for name, code in PARTITION.items()},
            correction=tuple(corrections), n_permutations=p.permutations, seed=p.seed,
            missing="available" if p.availableCase else "complete",
            missing_covariates="drop" if p.dropRows else "error", workers=p.workers, levels=self._preview.levels,
            errors=p.errors.value, standard_errors=p.standardErrors.value, variance_groups=p.varianceGroups.strip(),
            blocks=p.blocks.strip() or None, alternative=p.alternative.value, ranks=p.ranks,
            tail="pareto" if p.pareto else "counted")

    def onSave(self):
        """Write maps, tables and provenance."""
        folder = chosen_path(self._parameterNode.resultsFolder)
        written = self.work.attempt(_("The results could not be written."),
                               lambda: self.logic.saveResult(self._results.result, folder or ""))
        if written:
            self.work.say(_("Wrote {n} files to {folder}.").format(n=len(written), folder=folder))
