"""T1rho maps of every series in a folder, and one table of all regions, without the network.

Each series NAME_T1rho.nii.gz needs its sidecar NAME_T1rho.json (SpinLockTime in s) and labels on the same grid,
NAME_dseg.nii.gz. A series that fails is reported, and the others go on.

python 2_maps_of_a_folder.py series/ maps/
"""

import sys
from pathlib import Path

from DiscRelaxometryLib.echo import align_echoes, read_echo_series
from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscRelaxometryLib.fit import FitOptions, fit_relaxation
from DiscRelaxometryLib.image import read_image, write_image
from DiscRelaxometryLib.measure import measure_regions
from DiscRelaxometryLib.tables import Column, Table


def maps_of_a_folder(source, target, kind="T1rho", estimator="nlls"):
    """Fit all series of a folder and return one table of all regions."""
    rows, columns = [], []
    for path in sorted(Path(source).glob(f"*_{kind}.nii.gz")):
        name = path.name.removesuffix(f"_{kind}.nii.gz")
        try:
            series = align_echoes(read_echo_series(path, kind=kind)).series
            fit = fit_relaxation(series, FitOptions(estimator=estimator))
            for key, image in fit.images().items():
                write_image(image, Path(target) / f"{name}_{key}.nii.gz")
            labels = read_image(path.with_name(f"{name}_dseg.nii.gz"))
            table = measure_regions(labels, {kind: fit.images()[kind]})
        except DiscRelaxometryError as error:
            print(f"{name}: {error}")
            continue
        rows += [{"name": name, **row} for row in table.rows]
        columns = table.columns
    result = Table("regions", [Column("name"), *columns], rows)
    result.write(Path(target) / "regions.tsv")
    return result


if __name__ == "__main__" and len(sys.argv) > 2:
    print(len(maps_of_a_folder(*sys.argv[1:])), "rows")
