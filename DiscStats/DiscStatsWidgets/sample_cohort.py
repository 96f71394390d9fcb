"""The embedded real cohort in Slicer's Sample Data module; nothing is downloaded."""

from pathlib import Path

from DiscRelaxometryWidgets.sample_data import register_sample
from slicer.i18n import tr as _

from DiscRelaxometryLib.resources import resource_path

#: Attribute of the participants table that names the folder of its study.
STUDY_FOLDER = "DiscStats.StudyFolder"
FORMULA = "pfirrmann + age + C(sex)"


def cohort_folder():
    """Return where the cohort is copied to, in Slicer's cache folder."""
    import slicer

    return Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory()) / "spider-cohort"


def unpack(folder):
    """Copy what is missing of the cohort, if this is its folder: Slicer trims its cache when it starts."""
    if folder is not None and Path(folder) == cohort_folder():
        from DiscStudyLib.demo import copy_cohort

        copy_cohort(Path(folder))


def load_cohort(source=None):
    """Copy the cohort to where a study can write its results, and load its participants table.

    Files that are there already are kept, so that a study goes on where it was. Disc Statistics takes folder and table
    from the returned node.
    """
    import slicer

    folder = cohort_folder()
    unpack(folder)
    node = slicer.util.loadTable(str(folder / "participants.tsv"))
    node.SetName("spider-cohort participants")
    node.SetAttribute(STUDY_FOLDER, str(folder))
    return [node]


def register():
    """Offer the cohort."""
    register_sample(_("Cohort of 33 people (SPIDER)"), load_cohort,
                    resource_path("Icons/SampleCohort.png", "DiscStatsLib"))
