"""The embedded real person in Slicer's Sample Data module; nothing is downloaded."""

from slicer.i18n import tr as _

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.resources import resource_path

CATEGORY = "DiscRelaxometry"
PERSON = ("SampleData/spider-sub-078_T2w.nii.gz", "SampleData/spider-sub-078_dseg.nii.gz")


def load_person(source=None):
    """Load one person's T2-weighted volume and reference segmentation (SPIDER, CC BY 4.0) and return both nodes."""
    import slicer

    from DiscRelaxometryLib.discs import import_labels
    from DiscRelaxometryLib.image import read_image

    volume = slicer.util.loadVolume(str(resource_path(PERSON[0])))
    labels, _report = import_labels(read_image(resource_path(PERSON[1])))
    with mrml.all_or_nothing():
        return [volume, mrml.segmentation_from_labels(labels, "spider-sub-078 reference discs", volume)]


def register_sample(name, loader, thumbnail):
    """Offer data in Slicer's Sample Data module; the loader loads a data source and returns its nodes."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY, sampleName=name, uris=[], fileNames=[], nodeNames=[], customDownloader=loader,
        thumbnailFileName=str(thumbnail))


def register():
    """Offer the person."""
    register_sample(_("Lumbar spine (SPIDER)"), load_person, resource_path("Icons/SampleSpine.png"))
