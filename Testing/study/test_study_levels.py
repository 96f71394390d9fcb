"""People whose maps show no disc of the levels that are analyzed."""

from types import SimpleNamespace

import numpy as np

from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import disc_value
from DiscRelaxometryLib.tables import Table
from DiscStudyLib.engine import observed
from DiscStudyLib.folder import Settings


def test_a_person_whose_map_misses_the_disc_is_left_out_and_named(monkeypatch):
    grid = Geometry((4, 1, 1), (1.0,) * 3)
    labels = Image(np.array([[[0, 0, disc_value("L4-L5"), disc_value("L3-L4")]]], np.uint8), grid)
    monkeypatch.setattr(observed, "context_atlas", lambda context: SimpleNamespace(labels=labels))
    nan, images = np.nan, {"T1rho": {}, "T2": {}}
    for person, first, second in (("sub-01", (9, nan, 50, nan), (9, nan, 40, 41)),
                                  ("sub-02", (9, 9, nan, 51), (9,) * 4),
                                  ("sub-03", (9, 9, 52, 53), (9, 9, 42, nan))):
        for key, values in (("T1rho", first), ("T2", second)):
            images[key][person] = Image(np.array([[values]], np.float32), grid)
    context, people = SimpleNamespace(notes=[]), ["sub-01", "sub-02", "sub-03"]
    assert observed._who_has_a_disc(context, images, people, ["L4-L5"]) == ["sub-01", "sub-03"]
    assert context.notes == ["sub-02: no disc of L4-L5 in the maps; left out."]
    assert observed._who_has_a_disc(context, images, people, ["L3-L4"]) == ["sub-02"]
    assert observed._who_has_a_disc(context, images, people, ["L4-L5", "L3-L4"]) == people


def test_each_disc_of_a_pooled_analysis_has_its_own_map_and_grade(monkeypatch):
    """Half of the people lack L5-S1: their discs are no observations, and all are named."""
    grid, levels, people = Geometry((2, 1, 1), (1.0,) * 3), ("L4-L5", "L5-S1"), [f"sub-{n}" for n in range(1, 7)]
    offset = {"L4-L5": 0, "L5-S1": 100}

    def pool(image, level):  # the map of a level holds its grade
        return image.like(image.array + offset[level] if np.isfinite(image.array).all() or level == "L4-L5" else
                          np.full(image.array.shape, np.nan))

    images = {p: Image(np.array([[[n, n if n % 2 else np.nan]]], np.float32), grid) for n, p in enumerate(people, 1)}
    monkeypatch.setattr(observed, "read_image", lambda path: images[path])
    table = Table("participants", [(c,) for c in ("participant_id", "grade_L4L5", "grade_L5S1", "age")], [
        {"participant_id": p, "grade_L4L5": str(n), "grade_L5S1": str(100 + n), "age": "50"}
        for n, p in reversed(list(enumerate(people, 1)))])
    monkeypatch.setattr(observed, "participants_of", lambda context: table)
    disc = SimpleNamespace(levels=dict.fromkeys(levels), pool=pool, atlas=SimpleNamespace(labels=Image(
        np.ones((1, 1, 2), np.uint8), grid)))
    context = SimpleNamespace(notes=[], settings=Settings(formula="grade + age", levels=levels, pooled=True),
                              study=SimpleNamespace(visits=False))
    maps, rows = observed._pooled_observations(context, ("T2",), {"T2": {p: p for p in people}}, people, disc)
    np.testing.assert_array_equal(maps["T2"][:, 0], rows["grade"])
    assert rows["level"].tolist().count("L5-S1") == 3 and len(rows) == 9
    assert context.notes == ["L5-S1 of sub-2, sub-4, sub-6 has no value in the maps and is no observation."]
