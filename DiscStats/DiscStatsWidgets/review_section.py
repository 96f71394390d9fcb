"""The section Review: person after person with outlines, map and registration in one layout, and decisions."""

import slicer
from DiscRelaxometryWidgets.qt_helpers import chosen_path, fill_table, on_row, open_in_editor, value
from slicer.i18n import tr as _

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.labels import DISCS


class ReviewSection:
    """Widgets of the review; what is decided is written at once by the study's Session."""

    def __init__(self, ui, work):
        self.ui, self.work, self.settings = ui, work, None
        self.session = self.look = None
        self.nodes, self.everyone, self.level = {}, {}, ""
        for button, slot in ((ui.reviewButton, self.onStart), (ui.acceptButton, self.onAccept),
                             (ui.excludeButton, self.onExclude), (ui.renameButton, self.onRename),
                             (ui.editButton, self.onEdit), (ui.saveEditButton, self.onSave),
                             (ui.takeBackButton, self.onTakeBack), (ui.nextButton, lambda: self.step(1)),
                             (ui.previousButton, lambda: self.step(-1))):
            button.clicked.connect(slot)
        ui.compareCheck.toggled.connect(lambda on: self._showLook())
        on_row(ui.reviewTable, self.onRow)
        for disc in reversed(DISCS):
            ui.levelCombo.addItem(disc.name)

    # ------------------------------------------------------------ state

    def checkCanApply(self):
        """Enable what can be done now."""
        if self.settings is None:  # another module is shown, such as the Segment Editor
            return
        ui, folder = self.ui, chosen_path(self.settings.studyFolder)
        if self.session and folder != str(self.session.study.root):
            self.close()
        self.work.allow(ui.reviewButton, [] if folder else [_("Choose the folder of the study.")],
                        _("Show the first participant that is not decided on"))
        waiting = [] if self.look else [_("Press Review first.")]
        disc = waiting or ([] if self.level else [_("Choose a disc in the table.")])
        seen = self.look and (self.look.person, self.level or "all") in self.look.seen
        for button, missing, ready in (
                (ui.acceptButton, waiting, _("Accept the chosen disc, or all (A)")),
                (ui.excludeButton, waiting, _("Exclude the chosen disc, or the participant; say why (X)")),
                (ui.renameButton, disc, _("Give the disc the chosen name; neighbors follow (R)")),
                (ui.editButton, waiting, _("Open the outlines in the Segment Editor (E)")),
                (ui.saveEditButton, waiting or ([] if self.edited() else [_("Edit the outlines first.")]),
                 _("Keep the edited outlines as a correction")),
                (ui.takeBackButton, waiting or ([] if seen else [_("Nothing was decided.")]),
                 _("Take the decision back (U)")),
                (ui.nextButton, waiting, _("Next participant (N)")),
                (ui.previousButton, waiting, _("Previous participant (P)"))):
            self.work.allow(button, missing, ready)

    def edited(self):
        """Return whether the outlines in the scene differ from what was shown."""
        node = self.nodes.get("outlines")
        return node is not None and slicer.mrmlScene.IsNodePresent(node) and mrml.was_edited(node)

    def close(self):
        """Forget the session; the scene's nodes go, but for edited outlines."""
        self._removeNodes()
        self.session = self.look = None
        self.level = ""
        fill_table(self.ui.reviewTable, [], [])
        self.ui.reviewLabel.setText("")

    # ------------------------------------------------------------ showing

    def onStart(self):
        """Begin, or go on, with the first participant that is not done."""
        from DiscStudyLib.review import Session

        folder = chosen_path(self.settings.studyFolder)
        self.session = self.work.attempt(_("The study cannot be reviewed."), lambda: Session(
            folder, reviewer=str(value(self.ui.reviewerEdit, "text"))))
        if self.session is not None:
            self.everyone = {k.person: k for k in self.session.overview()}
            people = self._people()
            first = next((k.person for k in people if not k.done), people[0].person if people else "")
            self.show(first) if first else self.work.say(_("No participant was flagged."))

    def _people(self):
        flagged = value(self.ui.flaggedCheck, "isChecked")
        return [k for k in self.everyone.values() if k.flagged or not flagged]

    def show(self, person):
        """Show a participant's image with outlines, map, and registration."""
        if self.edited() and person != self.look.person:
            self.work.say(_("The outlines of {person} were edited: save them, or press Review to drop them.").format(
                person=self.look.person))
            return
        made = self.work.attempt(_("The participant cannot be shown."), lambda: self._load(person))
        if made is None:
            return
        self.level = ""
        self._showLook()

    def _load(self, person):
        from DiscStudyLib.review import person_images

        look, images = self.session.look(person), person_images(self.session, person)
        self._removeNodes()
        with mrml.all_or_nothing():
            for key, (image, _labels) in images.items():
                if key != "automatic":
                    name = f"{person} {key}"
                    self.nodes[key] = mrml.volume_from_image(image, name, None if key in ("image", "atlas") else key)
            self.nodes["outlines"] = mrml.segmentation_from_labels(images["image"][1], f"{person} outlines",
                                                                   self.nodes["image"])
            if "atlas" in images:
                self.nodes["atlasDiscs"] = mrml.segmentation_from_labels(images["atlas"][1], "Atlas discs",
                                                                         self.nodes["atlas"])
            if "automatic" in images:
                self.nodes["before"] = mrml.segmentation_from_labels(
                    images["automatic"][1], f"{person} before the review", self.nodes["image"])
        self.look = look
        self._arrange()
        return look

    def _arrange(self):
        """Red: image; yellow: map; green: map on the atlas; all sagittal, each with its own outlines."""
        nodes = self.nodes
        quantity = next((k for k in ("T1rho", "T2", "nT2w") if k in nodes), "image")
        shown = {"Red": nodes["image"], "Yellow": nodes[quantity], "Green": nodes.get("atlas", nodes["image"])}
        manager = slicer.app.layoutManager()
        if manager is not None:
            manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        own = nodes["outlines"]
        mrml.show_in_views(shown, {"Red": own, "Yellow": own, "Green": nodes.get("atlasDiscs", own)})
        if "before" in nodes:
            mrml.show_in_views({}, {"Red": nodes["before"]})
        mrml.show_legend(nodes[quantity] if quantity != "image" else None)

    def _removeNodes(self):
        kept = self.nodes.get("outlines") if self.edited() else None
        mrml.remove_nodes(*(node for node in self.nodes.values() if node is not kept))
        self.nodes = {}

    def _showLook(self):
        """Fill the table and the line above it from what is on disk."""
        if self.look is None:
            return
        compare = value(self.ui.compareCheck, "isChecked")
        self.everyone[self.look.person] = self.look
        done = sum(k.done for k in self.everyone.values())
        self.ui.reviewLabel.setText(_("{person}: {done} of {n} reviewed").format(
            person=self.look.person, done=done, n=len(self.everyone)))
        rows = [[d.level, self._words(d.decision, d.stale, compare), "; ".join(d.flags)] for d in self.look.discs]
        whole = self.look.seen.get((self.look.person, "all"))
        fill_table(self.ui.reviewTable, [_("Disc"), _("Decision"), _("Why flagged")],
                   [[_("all"), self._words(whole, False, compare), ""], *rows])
        if "before" in self.nodes:
            self.nodes["before"].GetDisplayNode().SetVisibility(compare)
        self.checkCanApply()

    @staticmethod
    def _words(decision, stale, whole):
        if decision is None:
            return ""
        words = [decision.decision, decision.renamed_to, _("(stale)") if stale else ""]
        if whole:
            words += [decision.reviewer, decision.date.replace("T", " "), decision.reason]
        return " ".join(w for w in words if w)

    def onRow(self, row, column):
        """Choose a disc, or all, and bring it into the middle of the views."""
        if self.look is None:
            return
        self.level = self.look.discs[row - 1].level if row else ""
        if row:
            self.ui.levelCombo.setCurrentText(self.look.discs[row - 1].name)
        center = mrml.segment_centers(self.nodes["outlines"]).get(self.level.replace("-", ""))
        if center is not None:
            slicer.modules.markups.logic().JumpSlicesToLocation(*center, True)
        self.checkCanApply()

    def step(self, by):
        """Show the next or the previous participant."""
        people = [k.person for k in self._people()]
        at = people.index(self.look.person) + by if self.look.person in people else 0
        if 0 <= at < len(people):
            self.show(people[at])
        else:
            self.work.say(_("This is the last participant.") if by > 0 else _("This is the first participant."))

    # ------------------------------------------------------------ decisions

    def _decide(self, action):
        """Write a decision and show what is on disk then, also where another reviewer was faster."""
        person = self.look.person
        written = self.work.attempt(_("The decision was not written."), lambda: action() or True)
        self.look = self.session.look(person)
        self._showLook()
        return written

    def onAccept(self):
        """Accept the chosen disc, or all, and go on where the participant is done."""
        look, level = self.look, self.level or "all"
        if self._decide(lambda: self.session.decide(look.person, level, "accepted", seen=look.seen)) and self.look.done:
            self.step(1)

    def onExclude(self):
        """Exclude the chosen disc, or the participant, for the chosen reason."""
        look, level, reason = self.look, self.level or "all", str(value(self.ui.reasonCombo, "currentText"))
        self._decide(lambda: self.session.decide(look.person, level, "excluded", reason=reason, seen=look.seen))

    def onRename(self):
        """Give the chosen disc the chosen name."""
        look, level, name = self.look, self.level, str(value(self.ui.levelCombo, "currentText"))
        self._decide(lambda: self.session.decide(look.person, level, "renamed", renamed_to=name, seen=look.seen))

    def onTakeBack(self):
        """Take a decision back."""
        look, level = self.look, self.level or "all"
        self._decide(lambda: self.session.take_back(look.person, level, look.seen))

    def onEdit(self):
        """Open the outlines in the Segment Editor."""
        open_in_editor(self.nodes["outlines"], self.nodes["image"])

    def onSave(self):
        """Keep the edited outlines as ``desc-reviewed_dseg``, and a decision for each disc that differs."""
        look = self.look

        def save():
            drawn = mrml.labels_from_segmentation(self.nodes["outlines"], self.nodes["image"])
            return self.session.correct(look.person, drawn, look.seen)

        levels = self.work.attempt(_("The correction was not saved."), save)
        self.look = self.session.look(look.person)
        if levels is not None:
            slicer.mrmlScene.RemoveNode(self.nodes.pop("outlines"))
            self.show(look.person)
            self.work.say(_("Corrected: {levels}.").format(levels=", ".join(levels) or _("nothing differs")))
