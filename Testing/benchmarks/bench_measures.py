"""Measures: published volumes, lengths of analytic discs on several grids, real people, and time.

Run: DISC_SHARED_DATA=<data> python Testing/benchmarks/bench_measures.py
"""

import csv
import time
from collections import Counter
from pathlib import Path

import numpy as np
from common import Aim, Results, shared_data
from support.disc_phantoms import GRIDS, cuboid, grid_around, tilted_axes

from DiscRelaxometryLib.discs.levels import label_instances
from DiscRelaxometryLib.image import Geometry, Image, read_image
from DiscRelaxometryLib.labels import LUMBAR_LEVELS
from DiscRelaxometryLib.measure import disc_frame, measure_discs, measure_regions, measure_spine
from DiscRelaxometryLib.measure.sections import Missing
from DiscRelaxometryLib.measure.spine import Spine
from DiscRelaxometryLib.resources import resource_path

SPINE = ("height_index", "height_index_vertebral", "angle", "segment_angle", "lordosis", "slip", "canal_diameter")
HEIGHTS = ("height_anterior", "height_middle", "height_posterior")


def volumes(results: Results, folder: Path) -> None:
    """Compare volumes with those published, and list the lengths of the same whole discs."""
    with open(folder / "reference_volumes_cm3.tsv", newline="") as stream:
        reference = {int(row["subject"]): row for row in csv.DictReader(stream, delimiter="\t")}
    names = ("L5S1", "L4L5", "L3L4", "L2L3", "L1L2")
    gaps, lengths, flags = [], {}, Counter()
    for path in sorted((folder / "native_labels").glob("*.nii.gz")):
        labels = read_image(path)
        values = np.pad(np.where(labels.array > 0, labels.array.astype(np.uint8) + 10, 0).astype(np.uint8), 1)
        # The files carry no orientation: columns run to posterior, rows to caudal, slices to one side.
        upright = Geometry(values.shape[::-1], labels.geometry.spacing, direction=(0, 0, 1, 1, 0, 0, 0, -1, 0))
        for row in measure_discs(Image(values, upright)).rows:
            gaps.append(abs(row["volume"] - float(reference[int(path.name[4:6])][names[row["label"] - 11]])))
            lengths.setdefault(row["level"], []).append([row[c] for c in (*HEIGHTS, "ap_diameter", "width")])
            flags[row["flags"] or "none"] += 1
    columns = ["mean (SD), mm", "anterior height", "middle", "posterior", "AP diameter", "width"]
    results.table("lengths", columns, [
        (level, *(f"{m:.1f} ({s:.1f})" for m, s in zip(np.mean(values, 0), np.std(values, 0, ddof=1))))
        for level, values in sorted(lengths.items())], discs=len(gaps), flags=dict(flags))
    results.aims(Aim(f"volumes of {len(gaps)} native discs, largest difference from the published", max(gaps),
                     at_most=1e-4, form=".0e", unit="cm3"))


def analytic(results: Results) -> None:
    """List errors of lengths and axes of a cuboid disc of 48 x 34 x 12 mm."""
    rows = []
    for name in GRIDS:
        geometry, errors = grid_around(name), []
        for tilt in ((0, 0, 0), (20, 5, -8), (-15, -5, 4)):
            axes = tilted_axes(*tilt)
            mask = cuboid(geometry, axes, (48.0, 34.0, 12.0))
            row = measure_discs(Image(np.where(mask, 12, 0).astype(np.uint8), geometry)).rows[0]
            frame = disc_frame(mask, geometry)
            angle = np.degrees(np.arccos(np.clip((frame.axes * axes).sum(axis=1), -1, 1))).max()
            errors.append((angle, max(abs(row[h] - 12) for h in HEIGHTS), abs(row["ap_diameter"] - 34),
                           abs(row["width"] - 48), 100 * abs(row["volume"] / (48 * 34 * 12 / 1000) - 1)))
        voxel = " x ".join(f"{s:g}" for s in geometry.spacing)
        rows.append((name, voxel, *np.max(errors, axis=0)))
    names = ("axes, degrees", "heights, mm", "AP diameter, mm", "width, mm", "volume, %")
    results.table("cuboid", ["grid", "voxel, mm", *((n, ".2f") for n in names)], rows)


def real(results: Results, folder: Path) -> None:
    """Count flags and time over the SPIDER people, whose discs are cut laterally."""
    flags, start, count = Counter(), time.process_time(), 0
    for path in sorted(folder.glob("*dseg.nii.gz")):
        labels = read_image(path)
        for row in measure_discs(labels).rows:
            flags[row["flags"] or "none"] += 1
        regions = measure_regions(labels, {"T2": labels.like(np.ones(labels.array.shape, np.float32))})
        assert len(regions) > 0
        count += 1
    results.table("cut", ["flags of a disc", "discs"], sorted(flags.items(), key=lambda f: -f[1]), people=count,
                  cpu_seconds_per_person=round((time.process_time() - start) / count, 1))


def neighbors(results: Results) -> None:
    """List what is measured beside the neighbors, on the reference masks of the embedded cohort, by level."""
    folder = resource_path("SampleData/spider-cohort", "DiscStatsLib") / "derivatives" / "reference"
    discs, bodies = {}, {}
    for path in sorted(folder.glob("sub-*/anat/*_dseg.nii.gz")):
        labels = read_image(path)
        classes = np.where((labels.array >= 11) & (labels.array < 30), 3, np.minimum(labels.array, 3))
        named = label_instances(classes.astype(np.uint8), labels.geometry, 0.9 * (labels.array == 11)).labels
        spine = Spine(named)
        for table, rows in zip(measure_spine(named), (discs, bodies)):
            for row in table.rows:
                values = [row.get(c, np.nan) for c in (SPINE if rows is discs else (*HEIGHTS, "ap_diameter", "wedge"))]
                rows.setdefault(row["level"], []).append(
                    [*values, corner_slip(spine, row["label"])] if rows is discs else values)
    first = "mean\N{PLUS-MINUS SIGN}SD"
    for key, rows, columns in (
            ("spine", discs, [first, "height index", "vertebral", "angle, deg", "segment angle", "lordosis", "slip, mm",
                              "canal, mm", "slip of outermost voxels, mm"]),
            ("bodies", bodies, [first, "anterior height, mm", "middle", "posterior", "AP diameter", "wedge, deg"])):
        results.table(key, columns, [(level, *map(cell, np.array(values).T)) for level, values in sorted(rows.items())
                                     if level in (*LUMBAR_LEVELS, "L1", "L2", "L3", "L4", "L5")])


def corner_slip(spine: Spine, value: int) -> float:
    """Return a slip by the outermost voxels of the rear corners, without lines through endplates and walls; or NaN."""
    try:
        upper, lower = spine.body(value + 20), spine.body(value + 19)
        plate, ends = lower.upper.course, []
    except Missing:
        return float("nan")
    for body, down in ((upper, 1), (lower, -1)):
        local = body.inside
        ap, cc = np.nonzero(local.inside.mean(axis=0) > 0.5)
        places = np.column_stack([np.zeros(len(ap)), body.section.ap[ap], local.start[2] + local.step * cc])
        ends.append(body.section.frame.to_world(places[[np.argmin(0.7 * places[:, 1] + down * places[:, 2])]])[0])
    return float((ends[0] - ends[1]) @ plate / np.linalg.norm(plate))


def cell(values: np.ndarray) -> str:
    """Return mean and SD of what was measured in three people or more."""
    kept = values[np.isfinite(values)]
    return f"{kept.mean():.3g}\N{PLUS-MINUS SIGN}{kept.std(ddof=1):.2g}" if len(kept) > 2 else ""


if __name__ == "__main__":
    kept = Results("bench_measures")
    volumes(kept, shared_data() / "ivd_t2w")
    analytic(kept)
    real(kept, shared_data() / "spider_t2space")
    neighbors(kept)
