"""The extension's embedded real people in Slicer's Sample Data module; nothing is downloaded."""

from pathlib import Path

from slicer.i18n import tr as _

from DiscRelaxometryLib.resources import resource_path

CATEGORY = "DiscRelaxometry"
PERSON = ("SampleData/spider-sub-078_T2w.nii.gz", "SampleData/spider-sub-078_dseg.nii.gz")


def load_person(source=None):
    """Load one person's T2-weighted volume and reference segmentation (SPIDER, CC BY 4.0) and return both nodes."""
    import slicer

    from DiscRelaxometry import DiscRelaxometryLogic

    volume = slicer.util.loadVolume(str(resource_path(PERSON[0])))
    result = DiscRelaxometryLogic().importSegmentation(resource_path(PERSON[1]), referenceNode=volume)
    return [volume, result.segmentation]


def load_cohort(source=None):
    """Copy the cohort into Slicer's cache folder, where a study can write its results, and load its participants table.

    Files that are there already are kept, so that a study goes on where it was. Disc Statistics takes folder and table
    from the returned node.
    """
    import slicer

    from DiscStudyLib.demo import copy_cohort

    folder = copy_cohort(Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory()) / "spider-cohort")
    node = slicer.util.loadTable(str(folder / "participants.tsv"))
    node.SetName("spider-cohort participants")
    node.SetAttribute("DiscStats.StudyFolder", str(folder))
    return [node]


def register():
    """Register both data sets."""
    import SampleData

    logic = SampleData.SampleDataLogic
    icons = Path(resource_path("Icons"))
    for name, loader, thumbnail in ((_("Lumbar spine (SPIDER)"), load_person, "SampleSpine.png"),
                                    (_("Cohort of 33 people (SPIDER)"), load_cohort, "SampleCohort.png")):
        logic.registerCustomSampleDataSource(
            category=CATEGORY, sampleName=name, uris=[], fileNames=[], nodeNames=[], customDownloader=loader,
            thumbnailFileName=str(icons / thumbnail))
