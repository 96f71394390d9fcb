"""People whose maps show no disc of the levels that are analyzed."""

from types import SimpleNamespace

import numpy as np

from DiscRelaxometryLib.image import Geometry, Image, write_image
from DiscRelaxometryLib.labels import disc_value
from DiscRelaxometryLib.tables import Table
from DiscStudyLib.engine import observed, voxels
from DiscStudyLib.folder import Settings


def test_a_person_whose_map_misses_the_disc_is_left_out_and_named(monkeypatch, tmp_path):
    grid = Geometry((3, 3, 1), (1.0,) * 3)

    def placed(background, *values):  # in array order; from right to left it is the second, third, first
        array = np.full((1, 3, 3), background, np.float32)
        array[0, [0, 1, 2], [2, 0, 1]] = values
        return Image(array, grid)

    labels = placed(0, *map(disc_value, ("L3-L4", "L4-L5", "L3-L4")))
    monkeypatch.setattr(voxels, "context_atlas", lambda context: SimpleNamespace(labels=labels))
    nan, files, records = np.nan, {"T1rho": {}, "T2": {}}, {}
    for person, first, second in (("sub-01", (9, nan, 50, nan), (9, nan, 40, 41)),
                                  ("sub-02", (9, 9, nan, 51), (9, 8, 7, nan)),
                                  ("sub-03", (9, nan, 52, 53), (9, 9, 42, nan))):
        records[person] = {"atlas": SimpleNamespace(outputs={})}
        for key, values in (("T1rho", first), ("T2", second)):
            files[key][person] = write_image(placed(*values),
                                             tmp_path / f"{person}_{key}.nii.gz")
            records[person]["atlas"].outputs[files[key][person].name] = {"sha256": f"{person}{key}"}
    context = SimpleNamespace(notes=[], folder=tmp_path, everyone=records, settings=SimpleNamespace(threads=1),
                              study=SimpleNamespace(relative=lambda path: path.name))

    def found(levels, people=("sub-01", "sub-02", "sub-03")):
        maps = {key: voxels.map_values(context, key, own, people, levels) for key, own in files.items()}
        return observed._who_has_a_disc(context, maps, list(people), levels)

    maps, people = found(["L4-L5"])
    assert people == ["sub-01", "sub-03"]
    assert np.asarray(maps["T1rho"]).tolist() == [[50], [52]] and np.asarray(maps["T2"]).tolist() == [[40], [42]]
    assert context.notes == ["sub-02: no disc of L4-L5 in the maps; left out."]
    maps, people = found(["L3-L4"], ("sub-03", "sub-02", "sub-01"))
    assert people == ["sub-03", "sub-02"]
    np.testing.assert_array_equal(maps["T1rho"], [[nan, 53], [9, 51]])
    np.testing.assert_array_equal(maps["T2"], [[9, nan], [8, nan]])
    assert found(["L4-L5", "L3-L4"])[1] == ["sub-01", "sub-02", "sub-03"]


def test_each_disc_of_a_pooled_analysis_has_its_own_map_and_grade(monkeypatch, tmp_path):
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
                              study=SimpleNamespace(visits=False, relative=str), folder=tmp_path,
                              records={"pooled-disc": SimpleNamespace(key="disc")}, everyone={p: {
                                  "atlas": SimpleNamespace(outputs={p: {"sha256": p}})} for p in people})
    maps, rows = observed._pooled_observations(context, ("T2",), {"T2": {p: p for p in people}}, people, disc)
    np.testing.assert_array_equal(np.asarray(maps["T2"])[:, 0], rows["grade"])
    assert rows["level"].tolist().count("L5-S1") == 3 and len(rows) == 9
    assert context.notes == ["L5-S1 of sub-2, sub-4, sub-6 has no value in the maps and is no observation."]
