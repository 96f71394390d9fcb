"""Lumbar discs of a group in one space: template, registration by shape, maps in atlas space.

``DiscAtlasLogic`` is the batch interface, the same in Slicer's Python console and headless::

    logic = DiscAtlasLogic()
    cohort = logic.register({"sub-01": segmentation1, "sub-02": segmentation2})
    inAtlas = logic.warpToAtlas(map1, cohort, "sub-01")
"""

from pathlib import Path

import slicer
from DiscAtlasWidgets.atlas_choices import Backend, Template
from DiscAtlasWidgets.atlas_panel import AtlasPanel
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
)

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.jobs import Job


class DiscAtlas(ScriptedLoadableModule):
    """Describe the module to Slicer."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Disc Atlas")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        parent.dependencies = ["DiscRelaxometry"]
        parent.contributors = ["DiscRelaxometry contributors"]
        parent.helpText = _("Registers the lumbar discs of many people to a template by their shape, and brings their "
                            "maps into atlas space.")
        parent.acknowledgementText = _("For research; not a medical device. Data and methods are cited in the "
                                       "extension's documentation.")


@parameterNodeWrapper
class DiscAtlasParameterNode:
    """Settings of the panel, saved with the scene."""

    people: list[vtkMRMLSegmentationNode]
    peopleFolder: Path
    convention: str = "project"
    template: Template = Template.shipped
    atlasFolder: Path
    backend: Backend = Backend.coordinates
    outputFolder: Path
    quality: vtkMRMLTableNode
    mapVolume: vtkMRMLScalarVolumeNode


class DiscAtlasWidget(AtlasPanel):
    """The panel; its parts are in ``DiscAtlasWidgets``."""

    def createLogic(self):
        """Return the module's Logic."""
        return DiscAtlasLogic()


class DiscAtlasLogic(ScriptedLoadableModuleLogic):
    """Atlas and registration on MRML nodes; every method is synchronous and needs no window.

    Methods raise ``DiscRelaxometryError`` (a ``ValueError``) with a sentence that says what to do; they then leave the
    scene as it was. ``progressCallback(fraction, text)`` is called between units of work and may raise ``Cancelled``.
    """

    def getParameterNode(self):
        """Return the panel's settings."""
        return DiscAtlasParameterNode(super().getParameterNode())

    def loadPeopleJob(self, folder, convention="project"):
        """Return the reading of segmentations as a job that needs no scene; see :meth:`loadPeople`."""
        return Job("DiscAtlasLib.cohort:read_people", {"folder": folder, "convention": convention},
                   _("Loading segmentations"))

    def showPeople(self, people):
        """Put the segmentations that were read into the scene and return their nodes."""
        nodes = []
        with mrml.all_or_nothing():
            for path, labels in people:
                node = slicer.util.loadSegmentation(str(path)) if labels is None else mrml.segmentation_from_labels(
                    labels, path.name)
                node.SetName(slicer.mrmlScene.GenerateUniqueName(path.name.split("_")[0].split(".")[0]))
                nodes.append(node)
        return nodes

    def loadPeople(self, folder, convention="project"):
        """Load every disc segmentation of a folder (``*_dseg.nii.gz``, ``*.seg.nrrd``), named after its person.

        Parameters
        ----------
        folder : str or path
        convention : str, optional
            Table of the tool that made the label images (``labelmaps.conventions()``), or ``auto``.

        Returns
        -------
        list of vtkMRMLSegmentationNode
        """
        return self.showPeople(self.loadPeopleJob(folder, convention).run())

    def registerJob(self, people, template="shipped", atlasFolder=None, backend="coordinates", outputFolder=None,
                    levels=None):
        """Return the registration as a job that needs no scene; see :meth:`register`."""
        if backend == "brainsfit":
            from DiscAtlasLib.mrml import brainsfit_folder
            from DiscAtlasLib.registration import brainsfit_backend

            # The child process does not know where Slicer keeps its programs.
            backend = brainsfit_backend(brainsfit_folder())
        if not isinstance(people, dict):
            people = {node.GetName(): node for node in people}
        arguments = {"people": {name: mrml.labels_from_segmentation(node) for name, node in people.items()},
                     "template": template, "atlas_folder": atlasFolder, "backend": backend, "output": outputFolder,
                     "levels": levels}
        return Job("DiscAtlasLib.cohort:register_cohort", arguments, _("Registering {n} people").format(n=len(people)))

    def register(self, people, template="shipped", atlasFolder=None, backend="coordinates", outputFolder=None,
                 levels=None, progressCallback=None):
        """Register the discs of people to an atlas by shape.

        Parameters
        ----------
        people : dict or list of vtkMRMLSegmentationNode
            By name of the person; a list takes the nodes' names.
        template : str, optional
            ``shipped``, ``build`` (from these people) or ``folder``.
        atlasFolder : path, optional
            Atlas written before, for ``folder``.
        backend : str, optional
            ``coordinates``, ``elastix`` or ``brainsfit``.
        outputFolder : path, optional
            Receives atlas, transforms and quality table.
        levels : list of str, optional
            Levels such as ``L4-L5``; all of the atlas by default.

        Returns
        -------
        DiscAtlasLib.cohort.CohortRegistration
            ``registrations`` by person, ``quality`` (table), ``atlas``.
        """
        return self.registerJob(people, template, atlasFolder, backend, outputFolder, levels).run(progressCallback)

    def loadJob(self, folder):
        """Return the reading of registrations as a job that needs no scene; see :meth:`loadRegistrations`."""
        return Job("DiscAtlasLib:load_cohort", {"folder": folder}, _("Loading registrations"))

    def loadRegistrations(self, folder):
        """Return what :meth:`register` wrote into a folder."""
        return self.loadJob(folder).run()

    def showQuality(self, result, node=None):
        """Put the quality table of a registration into the scene, overlap and flags first, and return its node."""
        from dataclasses import replace

        first = ("participant_id", "level", "dice", "flags")
        columns = sorted(result.quality.columns, key=lambda c: first.index(c.name) if c.name in first else len(first))
        return mrml.table_node(replace(result.quality, columns=columns), _("Registration quality"), node)

    def showRegistration(self, result, person):
        """Put a person's transforms and quality table into the scene, in a folder of their own.

        Returns
        -------
        dict of nodes
            ``"quality"`` and, for each level, ``"L4-L5 to person"`` (resamples the person's images onto the atlas) and
            ``"L4-L5 to atlas"`` (the other way).
        """
        from DiscAtlasLib.mrml import registration_nodes

        with mrml.all_or_nothing():
            return registration_nodes(self._registration(result, person))

    def showAtlas(self, atlas=None, name="Disc atlas"):
        """Put an atlas's discs into the scene as a segmentation (the shipped atlas by default)."""
        if atlas is None:
            from DiscAtlasLib import load_atlas

            atlas = load_atlas()
        with mrml.all_or_nothing():
            return mrml.segmentation_from_labels(atlas.labels, name)

    def warpToAtlas(self, volumeNode, result, person, interpolation="linear"):
        """Bring a person's map into atlas space.

        Parameters
        ----------
        volumeNode : vtkMRMLScalarVolumeNode
            Map on any grid in the person's space; NaN is missing.
        result : CohortRegistration
            From :meth:`register` or :meth:`loadRegistrations`.
        person : str

        Returns
        -------
        vtkMRMLScalarVolumeNode
            On the atlas's grid; NaN outside the discs and where the person's image does not reach.
        """
        from DiscAtlasLib import warp_to_atlas

        image = warp_to_atlas(mrml.image_from_volume(volumeNode), self._registration(result, person), interpolation)
        return self._likeSource(volumeNode, image, f"{volumeNode.GetName()} in atlas")

    def saveInAtlas(self, volumeNode, person, folder):
        """Write a map in atlas space where DiscStats looks for it: ``sub-01/sub-01_space-DiscAtlas_T2.nii.gz``.

        Parameters
        ----------
        volumeNode : vtkMRMLScalarVolumeNode
            From :meth:`warpToAtlas`.
        person : str
            Becomes the participant id: ``sub-`` and the letters and digits of the name.
        folder : str or path

        Returns
        -------
        Path
        """
        from DiscRelaxometryLib.image import write_image

        label = "".join(c for c in person.removeprefix("sub-") if c.isascii() and c.isalnum())
        quantity = volumeNode.GetAttribute(mrml.ATTRIBUTE + "Quantity") or ""
        if not label or not quantity.isalnum():
            raise RegistrationError(_("'{name}' cannot be named for statistics: the person needs a name of letters or "
                                      "digits, and the volume must be a map that this extension made.")
                                    .format(name=volumeNode.GetName()), anchor="maps-in-atlas-space")
        path = Path(folder) / person / f"sub-{label}_space-DiscAtlas_{quantity}.nii.gz"
        write_image(mrml.image_from_volume(volumeNode), path)
        return path

    def warpFromAtlas(self, volumeNode, result, person, referenceNode):
        """Bring an image of the atlas (a statistical map, regions) onto a person's grid, with its units and window."""
        from DiscAtlasLib import warp_from_atlas

        image = warp_from_atlas(mrml.image_from_volume(volumeNode), self._registration(result, person),
                                mrml.volume_geometry(referenceNode))
        return self._likeSource(volumeNode, image, f"{volumeNode.GetName()} on {person}")

    def overlayJob(self, result, person, segmentationNode, checkerboard=False):
        """Return the warping of an overlay as a job that needs no scene; see :meth:`overlay`."""
        arguments = {"registration": self._registration(result, person), "in_turn": checkerboard,
                     "own": mrml.labels_from_segmentation(segmentationNode)}
        return Job("DiscAtlasLib.cohort:atlas_on_person", arguments, _("Bringing the atlas to the person"))

    def showOverlay(self, image, person, checkerboard=False):
        """Put an overlay job's result into the scene and return the segmentation."""
        with mrml.all_or_nothing():
            name = _("checkerboard") if checkerboard else _("atlas")
            return mrml.segmentation_from_labels(image, f"{person} {name}")

    def overlay(self, result, person, segmentationNode, checkerboard=False):
        """Show the atlas's discs on a person, beside or in turn with the person's own.

        Returns
        -------
        vtkMRMLSegmentationNode
            The atlas's discs on the person's grid; with `checkerboard`, blocks of both in turn.
        """
        image = self.overlayJob(result, person, segmentationNode, checkerboard).run()
        return self.showOverlay(image, person, checkerboard)

    def _likeSource(self, source, image, name):
        """Return a volume node of the image with the source's quantity, units, window and colors."""
        from DiscAtlasLib.mrml import keep_look
        from DiscRelaxometryLib.quantities import QUANTITIES

        key = source.GetAttribute(mrml.ATTRIBUTE + "Quantity")
        with mrml.all_or_nothing():
            return keep_look(source, mrml.volume_from_image(image, name, QUANTITIES.get(key)))

    def _registration(self, result, person):
        if person not in result.registrations:
            raise RegistrationError(_("{person} is not registered: see the flags in the quality table.")
                                    .format(person=person), anchor="no-level-registered")
        return result.registrations[person]


class DiscAtlasTest(ScriptedLoadableModuleTest):
    """Self test on the embedded real person; runs in Slicer and headless."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def test_the_panel_opens(self):
        """Open the panel, where there is a window."""
        from DiscRelaxometryWidgets.self_test import check_panel

        check_panel(self, "DiscAtlas")

    def test_the_sample_person_registers_to_the_shipped_atlas(self):
        """Register five lumbar discs and bring the T2-weighted signal into atlas space."""
        from DiscRelaxometryWidgets.sample_data import load_person

        volume, segmentation = load_person()
        logic = DiscAtlasLogic()
        result = logic.register({"sample": segmentation})
        self.assertEqual(len(result.registrations["sample"].levels), 5)
        warped = logic.warpToAtlas(volume, result, "sample")
        self.assertTrue(mrml.image_from_volume(warped).geometry == result.atlas.geometry)
