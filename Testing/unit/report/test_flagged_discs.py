"""The report pictures each flagged disc that waits for a decision, and links it to the review page."""

import numpy as np
import pytest
from PIL import Image as Picture
from support.review_study import LEVELS, make_reviewable, outlines

from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib.engine import GroupContext, review_records
from DiscStudyLib.folder import Settings, Study
from DiscStudyLib.report.figures_maps import disc_tile
from DiscStudyLib.report.page import Gallery, Report, write_report
from DiscStudyLib.report.review import review, review_text
from DiscStudyLib.review import Session

FLAGS = {"sub-01": (["The network is unsure of L4-L5: look."], {"L2-L3": "5 folded voxels"}),
         "sub-03": (["Look at L1-L2."], {})}


@pytest.fixture
def context(tmp_path):
    study = Study(make_reviewable(tmp_path / "study", 3, FLAGS))
    everyone = {p.id: review_records(study, p.id) for p in study.people}
    return GroupContext(study, Settings(), {}, everyone)


def pictured(context):
    section = review(context, context.study.output / "figures")
    return section, [b for b in section.blocks if isinstance(b, Gallery)]


def test_each_flagged_disc_has_its_picture_and_link(context):
    section, (gallery,) = pictured(context)
    assert [(p, level, why) for p, level, _, why in gallery.items] == [
        ("sub-01", "L2-L3", "5 folded voxels"), ("sub-01", "L4-L5", "The network is unsure of L4-L5: look."),
        ("sub-03", "L1-L2", "Look at L1-L2.")]
    for _, _, path, _ in gallery.items:
        with Picture.open(path) as picture:
            assert path in context.written and picture.width == 180
    assert len({path.read_bytes() for _, _, path, _ in gallery.items}) == 3
    page = write_report(Report("Study", "", [section], False, ""), context.study.output / "report.html")
    text = page.read_text(encoding="utf-8")
    for person, level, _, why in gallery.items:
        assert f'href="review.html#{person}/{level}"' in text and why in text
    assert text.count("data:image/png") == 3


def test_decided_discs_are_counted_and_not_pictured(context, monkeypatch):
    session = Session(context.study.root)
    session.decide("sub-01", "L2-L3", "accepted")
    session.decide("sub-03", "all", "accepted")
    _, (gallery,) = pictured(context)
    assert [(p, level) for p, level, _, _ in gallery.items] == [("sub-01", "L4-L5")]
    rows = [{"reviewer": "AB", "decision": "accepted", "discs": "6", "stale": "False"},
            {"reviewer": "CD", "decision": "renamed", "discs": "2", "stale": "True"}]
    monkeypatch.setattr("DiscStudyLib.report.review.decision_rows_of", lambda context: rows)
    assert review_text(context) == ("Outlines were reviewed by AB, CD: 6 accepted, 2 renamed (discs). Of the 3 discs "
                                    "flagged by the software, 2 were decided on. Decisions on 2 discs are stale.")
    monkeypatch.undo()
    session.decide("sub-01", "L4-L5", "excluded", reason="motion")
    assert not pictured(context)[1]


@pytest.mark.parametrize("level", LEVELS)
def test_a_picture_shows_one_disc_in_its_place(level):
    """The disc is 16.5 mm wide and 8 mm high; with 12 mm around it nothing of its neighbors shows."""
    labels = outlines()
    picture = disc_tile(labels.like(labels.array.astype(np.float32)), labels, disc_value(level), margin=5)
    colored = np.ptp(picture.astype(int), axis=2) > 60
    rows, columns = np.nonzero(colored.any(axis=1))[0], np.nonzero(colored.any(axis=0))[0]
    middle = [(found[0] + found[-1] + 1) / 2 / size for found, size in zip((rows, columns), colored.shape)]
    if level not in (LEVELS[0], LEVELS[-1]):  # at the ends the image ends, too
        np.testing.assert_allclose(middle, 0.5, atol=0.06)
    assert colored.mean() == pytest.approx(16.5 * 8 / ((16.5 + 2 * 6) * (8 + 2 * 6)), rel=0.12)


def test_a_disc_is_pictured_in_its_own_widest_slice():
    labels = outlines()
    value = disc_value("L3-L4")
    place = np.argwhere(labels.array == value)[:, 0]  # k: left to right
    labels.array[labels.array == value] = 0
    labels.array[place.min(), 20:23, 8:10] = value
    labels.array[place.max(), 22:26, 5:16] = value
    picture = disc_tile(labels.like(np.zeros(labels.array.shape)), labels, value, margin=5)
    assert (np.ptp(picture.astype(int), axis=2) > 60).mean() > 0.15  # the small part alone would be 0.05


def test_a_disc_at_the_border_is_pictured():
    array = np.zeros((3, 4, 5), np.uint8)
    array[0, 0, 0] = array[2, 3, 4] = 11
    image = Image(array, Geometry((5, 4, 3), (4, 1, 1)))
    assert disc_tile(image.like(array.astype(float)), image, 11).shape[1] == 180
