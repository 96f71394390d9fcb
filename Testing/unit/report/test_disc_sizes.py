"""Sizes of discs in the report: mean and SD by level, with n - 1."""

import statistics

import numpy as np
from support.review_study import make_reviewable

from DiscRelaxometryLib.tables import Column, Table
from DiscStudyLib.engine import GroupContext
from DiscStudyLib.folder import Settings, Study
from DiscStudyLib.report.people import SIZES, disc_sizes

HEIGHTS = [9.0, 10.0, 14.0]


def sizes_of(tmp_path, monkeypatch, rows):
    """Return the report's cells by level, of rows of the table of discs."""
    path = Table("discs", [Column(n) for n in ("level", *SIZES)], rows).write(tmp_path / "discs.tsv")
    monkeypatch.setattr(GroupContext, "output_of", lambda self, step, ending, person="": path)
    context = GroupContext(Study(make_reviewable(tmp_path / "study", 1, {})), Settings(), {}, {})
    (block,) = [b for b in disc_sizes(context).blocks if hasattr(b, "table")]
    return {row["level"]: row for row in block.table.rows}


def test_mean_and_sd_are_those_of_the_textbook(tmp_path, monkeypatch):
    rows = [{"level": "L4-L5", "height_middle": v, "height_index": v / 50} for v in HEIGHTS]
    cells = sizes_of(tmp_path, monkeypatch, rows)["L4-L5"]
    expected = f"{statistics.mean(HEIGHTS):.1f} ({statistics.stdev(HEIGHTS):.2f})"
    assert cells["height middle"] == expected == "11.0 (2.65)"
    assert cells["height index"] == "0.22 (0.05)" and cells["slip"] == ""
    assert cells["discs"] == 3 and cells["not measured"] == 3 * (len(SIZES) - 2)


def test_one_disc_has_no_sd(tmp_path, monkeypatch):
    rows = [{"level": "L4-L5", "height_middle": 9.0}, {"level": "L4-L5", "height_middle": np.nan}]
    cells = sizes_of(tmp_path, monkeypatch, rows)["L4-L5"]
    assert cells["height middle"] == "9.0" and cells["discs"] == 2
