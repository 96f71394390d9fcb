"""What the report's pictures show: which way is up, which voxel, which number, of data whose picture is known."""

import numpy as np
import pytest

from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib.report.figures import GRADE_COLORS, plot_agreement, plot_cohort
from DiscStudyLib.report.figures_maps import level_views, person_tile


def test_views_of_an_atlas_disc_have_head_and_front_up_and_cut_its_middle():
    """Each voxel says where it lies: 100 k + 10 j + i, of a box of 5 x 4 x 3 voxels inside the image."""
    geometry = Geometry((7, 8, 9), (1, 1, 1), (0, 0, 0))
    k, j, i = np.indices(geometry.shape)
    labels = np.zeros(geometry.shape, np.uint8)
    labels[2:7, 3:7, 2:5] = disc_value("L4-L5")
    image = Image((100 * k + 10 * j + i).astype(np.float32), geometry)
    sagittal, transverse = level_views(image, image.like(labels), disc_value("L4-L5"))
    assert sagittal.tolist() == [[100 * k + 10 * j + 3 for j in range(3, 7)] for k in range(6, 1, -1)]
    assert transverse.tolist() == [[400 + 10 * j + i for i in range(2, 5)] for j in range(3, 7)]


def test_gray_levels_of_a_picture_follow_the_image():
    """A ramp from front to back: black to white over nearly all of it, each level once; a missing voxel is dark."""
    geometry = Geometry((3, 200, 4), (1, 1, 1), (0, 0, 0))
    array = np.broadcast_to(np.arange(200, dtype=np.float32)[None, :, None], geometry.shape).copy()
    array[3, 100] = np.nan  # head is up: the first row
    image = Image(array, geometry)
    rgb = person_tile(image, image.like(np.zeros(geometry.shape, np.uint8)), 200)
    assert (rgb == rgb[..., :1]).all()
    gray = rgb[-1, :, 0].astype(float)
    assert gray[0] == 0 and gray[-1] == 255 and gray[100] == pytest.approx(255 * 100 / 199, abs=2)
    assert len(np.unique(gray)) > 190 and rgb[0, 100, 0] == 0


def test_the_plot_of_agreement_shows_bias_and_limits_of_the_named_difference():
    first, second = np.array([50.0, 61, 70, 84]), np.array([48.0, 60, 72, 80])  # differences 2, 1, -2, 4
    figure = plot_agreement(first, second, ["L4-L5", "L5-S1"] * 2, ("ours", "theirs"), "ms")
    left, right = figure.axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("theirs [ms]", "ours [ms]")
    assert right.get_ylabel() == "ours \u2212 theirs [ms]"
    dots = {axis: np.concatenate([c.get_offsets() for c in axis.collections]).tolist() for axis in (left, right)}
    assert sorted(dots[left]) == [[48, 50], [60, 61], [72, 70], [80, 84]]
    assert sorted(dots[right]) == [[49, 2], [60.5, 1], [71, -2], [82, 4]]
    assert left.collections[0].get_offsets().tolist() == [[48, 50], [72, 70]]  # the first level's
    lines = [line.get_ydata()[0] for line in right.lines]
    assert lines == pytest.approx([1.25, 1.25 + 1.96 * 2.5, 1.25 - 1.96 * 2.5])  # 2.5 = sqrt(18.75 / 3)


def test_bars_of_grades_and_people_are_as_long_as_there_are_people():
    grades = {"L4-L5": [1, 2, 2, 5, float("nan")], "L5-S1": [4, 4, 4, 5, 5]}
    figure = plot_cohort({"sex": ["f", "m", "f", "f"], "age": ["20", "40", "60", "61", "nan"]}, grades)
    words, numbers, bars = figure.axes
    assert [t.get_text() for t in words.get_xticklabels()] == ["f", "m"]
    assert [p.get_height() for p in words.patches] == [3, 1]
    assert [p.get_height() for p in numbers.patches] == [1, 1, 0, 2]  # four bins of 20 to 61
    found = {c.get_label(): ([p.get_width() for p in c], [p.get_x() for p in c]) for c in bars.containers}
    assert found == {"I": ([1, 0], [0, 0]), "II": ([2, 0], [1, 0]), "III": ([0, 0], [3, 0]),
                     "IV": ([0, 3], [3, 0]), "V": ([1, 2], [3, 3])}
    assert len(GRADE_COLORS) == 5 and [t.get_text() for t in bars.get_yticklabels()] == list(grades)
