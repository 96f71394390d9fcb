"""Panel of DiscAtlas: people, template, registration with progress, quality, maps in atlas space."""

import slicer
from DiscRelaxometryWidgets import requirements
from DiscRelaxometryWidgets.panel import DiscPanel
from DiscRelaxometryWidgets.qt_helpers import (
    choose_data,
    chosen_path,
    fill_from_node,
    fill_table,
    fit_columns,
    silent,
    value,
)
from slicer.i18n import tr as _

from DiscRelaxometryLib import mrml


class AtlasPanel(DiscPanel):
    """Widgets to Logic calls; holds no computation."""

    def connectWidgets(self):
        """Connect buttons and tables, and follow the segmentations of the scene."""
        ui = self.ui
        self._cohort, self._ids, self._overlays = None, [], []
        for button, slot in ((ui.loadPeopleButton, self.onLoadPeople), (ui.allButton, lambda: self._check(True)),
                             (ui.noneButton, lambda: self._check(False)), (ui.registerButton, self.onRegister),
                             (ui.loadResultsButton, self.onLoadResults), (ui.showAtlasButton, self.onShowAtlas),
                             (ui.overlayButton, lambda: self.onOverlay(False)),
                             (ui.checkerboardButton, lambda: self.onOverlay(True)), (ui.warpButton, self.onWarp),
                             (ui.transformsButton, self.onTransforms)):
            button.clicked.connect(slot)
        ui.peopleTable.itemChanged.connect(self.onPeopleChecked)
        self.offerConventions("project")
        ui.personCombo.currentIndexChanged.connect(lambda index: self._checkCanApply())
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.NodeAddedEvent, self._onSceneChanged)
        self.addObserver(scene, scene.NodeRemovedEvent, self._onSceneChanged)

    def onSceneStartClose(self, caller, event):
        """Forget the registrations: their people are gone."""
        self._cohort, self._overlays = None, []
        fill_from_node(self.ui.qualityTable, None)
        self.ui.personCombo.clear()
        super().onSceneStartClose(caller, event)

    def _onSceneChanged(self, caller, event):
        if self._parameterNode is not None:
            self._showPeople()
            self._checkCanApply()

    # ------------------------------------------------------------ state

    def onParametersChanged(self):
        """Show people and quality of the settings."""
        self._showPeople()
        choose_data(self.ui.conventionCombo, self._parameterNode.convention)
        fill_from_node(self.ui.qualityTable, self._parameterNode.quality)

    def _checkCanApply(self, caller=None, event=None):
        p, ui = self._parameterNode, self.ui
        if p is None:
            return
        people = [n for n in p.people if n is not None]
        missing = [] if people else [_("Check at least one person.")]
        if p.template.value == "build" and len(people) < 2:
            missing = [_("A template needs at least two people.")]
        if p.template.value == "folder" and chosen_path(p.atlasFolder) is None:
            missing.append(_("Choose the folder of the atlas."))
        names = [n.GetName() for n in people]
        if len(set(names)) < len(names):
            missing.append(_("Two people have the same name: rename a segmentation."))
        self.work.allow(ui.registerButton, missing, _("Register the discs of the checked people"))
        folder = [] if chosen_path(p.peopleFolder) else [_("Choose a folder of segmentations.")]
        self.work.allow(ui.loadPeopleButton, folder, _("Load the segmentations of this folder"))
        output = [] if chosen_path(p.outputFolder) else [_("Choose the folder of results.")]
        self.work.allow(ui.loadResultsButton, output, _("Load the registrations that were written to this folder"))
        self.work.allow(ui.showAtlasButton, [], _("Show the discs of the atlas"))
        done = [] if self._cohort else [_("Register people first, or load results of a folder.")]
        own = done or ([] if self._segmentation() else [_("This person's segmentation is not in the scene.")])
        self.work.allow(ui.overlayButton, own, _("Show the atlas's discs on this person"))
        self.work.allow(ui.checkerboardButton, own, _("Show the person's discs and the atlas's in turn"))
        self.work.allow(ui.transformsButton, done, _("Add this person's transforms to the scene"))
        volume = [] if p.mapVolume else [_("Choose a map of this person.")]
        self.work.allow(ui.warpButton, done + volume, _("Bring the map into atlas space; where a folder of results is "
                                                   "chosen, write it there for Disc Statistics"))

    # ------------------------------------------------------------ people

    def _showPeople(self):
        """List the segmentations of the scene; those chosen are checked."""
        import qt

        nodes = [n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
                 if not n.GetHideFromEditors() and n not in self._overlays]
        checked = {n.GetID() for n in self._parameterNode.people if n is not None}
        self._ids = [n.GetID() for n in nodes]
        table = self.ui.peopleTable
        fill_table(table, [_("Person"), _("Discs")], [[n.GetName(), str(len(mrml.discs_of(n)))] for n in nodes])
        with silent(table):
            for row, identifier in enumerate(self._ids):
                item = table.item(row, 0)
                item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable | qt.Qt.ItemIsUserCheckable)
                item.setCheckState(qt.Qt.Checked if identifier in checked else qt.Qt.Unchecked)
            fit_columns(table)

    def onPeopleChecked(self, item):
        """Keep the checked people in the settings."""
        import qt

        table = self.ui.peopleTable
        self._parameterNode.people = [slicer.mrmlScene.GetNodeByID(identifier)
                                      for row, identifier in enumerate(self._ids)
                                      if value(table.item(row, 0), "checkState") == qt.Qt.Checked]

    def _check(self, all_):
        self._parameterNode.people = [slicer.mrmlScene.GetNodeByID(i) for i in self._ids] if all_ else []

    def onLoadPeople(self):
        """Load the segmentations of a folder and check them."""
        p = self._parameterNode

        def show(images):
            p.people = [n for n in p.people if n is not None] + self.logic.showPeople(images)

        self.work.start(_("The segmentations could not be loaded."),
                        lambda: self.logic.loadPeopleJob(p.peopleFolder, p.convention), show)

    # ------------------------------------------------------------ registration

    def onRegister(self):
        """Register the checked people in a child process."""
        p = self._parameterNode
        if p.backend.value == "elastix" and not self.work.ensurePackages(
                requirements.ELASTIX, _("Registration with Elastix needs the package itk-elastix (about 150 MB with "
                                        "ITK). Install it into Slicer's Python?")):
            return
        self.work.start(_("The people could not be registered."), lambda: self.logic.registerJob(
            [n for n in p.people if n is not None], p.template.value, chosen_path(p.atlasFolder), p.backend.value,
            chosen_path(p.outputFolder)), lambda result: self._show(result, p))

    def onLoadResults(self):
        """Load registrations from the folder of results."""
        p = self._parameterNode
        self.work.start(_("The registrations could not be loaded."), lambda: self.logic.loadJob(p.outputFolder),
                        lambda result: self._show(result, p))

    def _show(self, result, p):
        """Show the quality of registrations, and the atlas on one person: the first of those to look at."""
        self._cohort = result
        p.quality = self.logic.showQuality(result, p.quality)
        yield
        flagged = sorted({row["participant_id"] for row in result.quality.rows if row.get("flags")})
        combo = self.ui.personCombo
        combo.clear()
        for person in sorted(result.registrations, key=lambda person: person not in flagged):
            combo.addItem(person)
        words = [_("{n} people registered.").format(n=len(result.registrations))]
        if flagged:
            words.append(_("Look at: {people}.").format(people=", ".join(flagged)))
        self.work.say(" ".join(words))
        if self._segmentation() is not None:
            self.onOverlay(False, " ".join(words))
        self._checkCanApply()

    def onShowAtlas(self):
        """Show the atlas's discs."""
        shown = self.work.attempt(_("The atlas could not be shown."), lambda: self.logic.showAtlas(
            self._cohort.atlas if self._cohort else None), undo=True)
        if shown is not None:
            mrml.show_alone(shown)

    def _segmentation(self):
        """Return the chosen person's segmentation, or None where it is not in the scene."""
        name = value(self.ui.personCombo, "currentText")
        nodes = [slicer.mrmlScene.GetNodeByID(identifier) for identifier in self._ids]
        return next((n for n in nodes if n is not None and n.GetName() == name), None)

    def onOverlay(self, checkerboard, words=""):
        """Show the atlas on the chosen person, and nobody else; say `words` then."""
        person, node = value(self.ui.personCombo, "currentText"), self._segmentation()

        def show(image):
            shown = self.logic.showOverlay(image, person, checkerboard)
            # What only lies over a person is nobody to register.
            self._overlays.append(shown)
            if self._parameterNode is not None:
                self._showPeople()
            self.work.say(words or _("Done."))
            if checkerboard:
                mrml.show_alone(shown, fill=0.5)
                return
            mrml.show_alone(node, shown)
            # Outlines over the person's lightly filled discs show where the borders part.
            shown.GetDisplayNode().SetVisibility2DFill(False)

        self.work.start(_("The atlas could not be shown on this person."),
                        lambda: self.logic.overlayJob(self._cohort, person, node, checkerboard), show)

    def onTransforms(self):
        """Add the chosen person's transforms to the scene."""
        person = value(self.ui.personCombo, "currentText")
        self.work.attempt(_("The transforms could not be shown."),
                          lambda: self.logic.showRegistration(self._cohort, person), undo=True)

    def onWarp(self):
        """Bring a map of the chosen person into atlas space."""
        person, folder = value(self.ui.personCombo, "currentText"), chosen_path(self._parameterNode.outputFolder)
        node = self.work.attempt(_("The map could not be brought into atlas space."), lambda: self.logic.warpToAtlas(
            self._parameterNode.mapVolume, self._cohort, person), undo=True)
        if node is None:
            return
        self.work.say(_("Made '{name}'.").format(name=node.GetName()))
        slicer.util.setSliceViewerLayers(background=node, foreground=None, label=None)
        mrml.show_legend(node)
        path = folder and self.work.attempt(_("The map could not be written."),
                                            lambda: self.logic.saveInAtlas(node, person, folder))
        if path:
            self.work.say(_("Made '{name}' and wrote '{path}'.").format(name=node.GetName(), path=path))
