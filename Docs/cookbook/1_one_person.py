"""One person: segment a sagittal T2w volume, write labels, and print size and signal of each disc.

python 1_one_person.py sub-01_T2w.nii.gz labels.nii.gz
In Slicer's console: exec(open(".../1_one_person.py").read()); one_person("sub-01_T2w.nii.gz", "labels.nii.gz")
"""

import sys

from DiscRelaxometryLib.discs import segment
from DiscRelaxometryLib.image import read_image, write_image
from DiscRelaxometryLib.measure import measure_discs, normalized_t2w


def one_person(image_path, labels_path, engine="auto"):
    """Segment one volume, write its labels, and return the table of discs."""
    image = read_image(image_path)
    result = segment(image, engine=engine)
    if not result.found:
        raise SystemExit(result.reason)
    for flag in result.flags:
        print("Look at:", flag)
    write_image(result.labels, labels_path)
    table = measure_discs(result.labels, {"nT2w": normalized_t2w(image, result.labels)})
    print(table.to_tsv())
    return table


if __name__ == "__main__" and len(sys.argv) > 2:
    one_person(*sys.argv[1:])
