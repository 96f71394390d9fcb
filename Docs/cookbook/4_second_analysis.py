"""Another question to a study that was run: segmentations corrected by hand, another model, results side by side.

Put corrected label images (for example from Segment Editor) as sub-XX/anat/sub-XX_dseg.nii.gz: they are used instead of
the network's, and only these people are done again. Each analysis has a name and a folder of its own.

python 4_second_analysis.py STUDY "age + C(sex)" age
"""

import sys

from DiscRelaxometryLib.image import read_image
from DiscStudyLib import run_study


def second_analysis(path, formula, name, **settings):
    """Run another analysis of the study; return the run and its maps by name."""
    run = run_study(path, formula, analysis=name, segmentation="auto", **settings)
    redone = sorted({o.person for o in run.outcomes if o.person and o.state == "done"})
    print("Done again:", ", ".join(redone) or "nobody")
    folder = run.report.parent / "group" / f"analysis-{name}"
    maps = {p.name.split("stat-")[1].removesuffix(".nii.gz"): read_image(p) for p in folder.glob("*.nii.gz")}
    print("Maps:", ", ".join(sorted(maps)))
    return run, maps


if __name__ == "__main__" and len(sys.argv) > 3:
    second_analysis(*sys.argv[1:])
