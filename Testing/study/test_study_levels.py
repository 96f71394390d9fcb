"""People whose maps show no disc of the levels that are analyzed."""

from types import SimpleNamespace

import numpy as np

from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib.engine import observed


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
