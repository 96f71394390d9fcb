"""Each feature of a disc, and each reason to refuse it, is of the place in the view that its name says."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from support.grade_phantom import HEIGHT, MARROW, spine

from DiscRelaxometryLib.errors import SegmentationError
from DiscRelaxometryLib.grades.features import disc_features
from DiscRelaxometryLib.grades.grade import _doubt, _require_fat
from DiscRelaxometryLib.grades.views import BACKGROUND, CANAL, SHAPE, SPACING, THIS_DISC, VERTEBRA, DiscView, disc_views
from DiscRelaxometryLib.image import Image


def drawn_view(value=13, scale=1.0, front=40.0, back=60.0):
    """A disc of 20 rows in front and 12 behind, 60 columns long; each part, and each neighbor, has its own signal."""
    signal, classes = np.full(SHAPE, 10.0, np.float32), np.zeros(SHAPE, np.int8)
    classes[24:54, 58:118], classes[74:114, 58:118], classes[:, 126:150] = VERTEBRA, VERTEBRA, CANAL
    classes[54:74, 124:126] = CANAL
    classes[54:74, 58:88], classes[58:70, 88:118] = THIS_DISC, THIS_DISC
    signal[24:54], signal[74:114], signal[50:54], signal[74:78] = 100, 200, 900, 900
    signal[54:74, 58:70], signal[54:74, 109:118], signal[60:68, 70:109] = front * scale, back * scale, 150 * scale
    return DiscView(value, signal, classes, 200.0, 150.0, 100.0, False)


def test_each_feature_is_of_the_place_that_its_name_says():
    views = [drawn_view(11 + n, scale, 40 + n, 60 - n) for n, scale in enumerate((1.0, 0.5, 0.25, 0.75, 0.6))]
    names, values = disc_features(views)
    own = dict(zip(names, values[0].tolist()))
    nucleus = (18 * (8 * 150 + 6 * 10) + 21 * 8 * 150) / (18 * 14 + 21 * 8) / 200
    assert own == pytest.approx(own | {
        "nucleus": nucleus, "anterior": 0.2, "posterior": 0.3, "contrast": nucleus - 0.25, "ap0": 0.2, "ap7": 0.3,
        "height_anterior": 10, "height_middle": 8, "height_posterior": 6, "length": 30, "area": 30 * 8,
        "slender": 8 / 30, "marrow_above": 1, "marrow_below": 2, "body_above": 15, "body_below": 20, "canal_gap": 3.5,
        "canal_narrowing": 26 / 24, "bulge_front": 0, "csf": 1, "marrow": 0.5}, nan_ok=True)
    assert own["endplate_below"] > own["endplate_above"] > own["marrow_above"]
    for name in ("nucleus", "contrast", "csf_q90"):
        each = values[:, names.index(name)]
        for n, row in enumerate(values):
            others, near = np.delete(each, n), each[[m for m in range(5) if abs(m - n) == 1]]
            assert [row[names.index(f"{name}_{kind}")] for kind in ("others", "highest", "near", "below_highest")] == \
                pytest.approx([np.median(others), others.max(), near.mean(), each[n] - others.max()])


@pytest.mark.parametrize("start, void", [(6, True), (13, False)])
def test_dark_bone_within_12_mm_of_a_disc_is_a_void(start, void):
    view, rows = drawn_view(), np.arange(SHAPE[0])[:, None]
    dark = (rows < 54 - start / SPACING) | (rows >= 74 + start / SPACING)
    assert bool(_doubt(replace(view, signal=np.where(dark, 0, view.signal)), 200.0)) == void


@pytest.mark.parametrize("share, fat", [(0.07, False), (0.12, True)])
def test_fat_is_a_tenth_of_the_tissue_beside_the_spine(share, fat):
    view, signal = drawn_view(), drawn_view().signal.copy()
    tissue = np.flatnonzero(view.classes == BACKGROUND)
    signal.ravel()[tissue] = np.where(np.arange(len(tissue)) < share * len(tissue), 150, 10)
    with nullcontext() if fat else pytest.raises(SegmentationError, match="Fat is suppressed"):
        _require_fat([replace(view, signal=signal)], 200.0, 100.0)


@pytest.mark.parametrize("thickness, averaged", [(4.0, 1), (0.9, 5)])
def test_slices_within_two_millimeters_of_a_discs_middle_are_averaged(thickness, averaged):
    image, labels = spine((150,), (HEIGHT,), slices=7)
    geometry = replace(image.geometry, spacing=(thickness, *image.geometry.spacing[1:]))
    gains = np.array([7, 5, 3, 1, 3, 5, 7], np.float32)
    views = disc_views(Image(image.array * gains, geometry), Image(labels.array, geometry))
    first = (7 - averaged) // 2
    assert views[0].marrow == pytest.approx(MARROW * gains[first:first + averaged].mean(), rel=0.02)
