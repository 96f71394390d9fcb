"""The group template: the mean of its people, whatever their order; the shipped atlas; the montage."""

import tempfile
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from unit.atlas.test_bad_input import crop_left_right
from unit.atlas.test_registration import L45, disc_image

from DiscAtlasLib import template
from DiscAtlasLib.atlas import load_atlas
from DiscAtlasLib.montage import montage
from DiscAtlasLib.parametric import DiscSize
from DiscAtlasLib.registration import register_person
from DiscAtlasLib.shape import disc_shape
from DiscAtlasLib.template import CONVERGED, _affine_terms, build_template
from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.measure.regions import PARTITION

SIZES = (DiscSize(16, 12, 9, 30), DiscSize(19, 14, 11, 36))


def person(size: DiscSize, shift) -> Image:
    labels = disc_image(spacing=(1.2, 0.8, 0.8), size=size, width=64.0)
    g = labels.geometry
    return Image(labels.array, Geometry(g.size, g.spacing, np.add(g.origin, shift), g.direction))


@pytest.fixture(scope="module")
def people():
    return [("sub-01", person(SIZES[0], (0, 0, 0))), ("sub-02", person(SIZES[1], (30, -10, 55)))]


@pytest.fixture(scope="module")
def atlas(people):
    return build_template(people, ["L4-L5"], iterations=2, provenance={"license": "none: made up"})


def test_the_template_is_the_mean_of_two_known_discs(atlas, people):
    middle = build_reference()
    volume = (atlas.labels.array == L45).sum() * atlas.geometry.voxel_volume
    expected = (middle.array == L45).sum() * middle.geometry.voxel_volume
    assert abs(volume / expected - 1) < 0.04
    np.testing.assert_allclose(atlas.shape(L45).half, disc_shape(middle, L45).half, atol=0.6)
    moves = atlas.provenance["convergence_mm"]["L4-L5"]
    assert moves[-1] < 0.5 and moves[-1] <= moves[0]
    assert atlas.provenance["people"]["L4-L5"] == ["sub-01", "sub-02"] and atlas.provenance["license"]


def build_reference() -> Image:
    """Return the disc whose every measure is the mean of the two."""
    mean = DiscSize(*[(getattr(SIZES[0], k) + getattr(SIZES[1], k)) / 2 for k in
                      ("anterior", "middle", "posterior", "depth")])
    return disc_image(spacing=(1.0, 1.0, 1.0), size=mean, width=64.0)


def test_regions_lie_in_the_discs(atlas):
    disc = atlas.labels.array > 0
    for image in (atlas.regions, atlas.thirds):
        assert ((image.array > 0) == disc).all()
    assert set(np.unique(atlas.regions.array)) == {0, *PARTITION.values()}
    # The posterior third lies behind (larger LPS y) the anterior one.
    y = [atlas.geometry.index_to_world(np.argwhere(atlas.thirds.array == v)[:, ::-1])[:, 1].mean() for v in (1, 3)]
    assert y[1] > y[0] + 10


def test_a_template_of_cut_discs_keeps_its_width_and_settles(people):
    """Nobody shows the lateral parts: they follow what is seen, and do not wander."""
    from DiscAtlasLib.template import build_level

    cut = [disc_shape(crop_left_right(labels, labels.geometry.origin[0] + 21, labels.geometry.origin[0] + 41), L45)
           for _, labels in people]
    assert all(all(s.cut) for s in cut)
    level = build_level(L45, cut, 3, symmetric=True)
    assert level.moves[-1] < 0.3 and level.moves[-1] < level.moves[0]
    shape = level.shape()
    assert 1.25 < shape.half[0] / shape.half[1] < 1.6


def test_a_template_of_people_who_come_one_by_one_on_three_threads(atlas, people, tmp_path, monkeypatch):
    """It is the same; meanwhile no shape stays in memory, and nothing of them on disk afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    again = build_template(iter(people), ["L4-L5"], iterations=2, workers=3)
    np.testing.assert_array_equal(again.labels.array, atlas.labels.array)
    assert again.provenance["convergence_mm"] == atlas.provenance["convergence_mm"]
    assert again.provenance["people"] == atlas.provenance["people"] and not any(tmp_path.iterdir())
    made = []

    def tracked(*arguments):
        shape = disc_shape(*arguments)
        made.append(weakref.ref(shape))
        return shape

    monkeypatch.setattr(template, "disc_shape", tracked)
    shapes, _ = template.collect_shapes(people, ["L4-L5"], tmp_path)
    assert len(made) == 2 and not any(one() for one in made)
    assert [s.person for s in shapes[L45]] == ["sub-01", "sub-02"] and len(shapes[L45]) == 2


def test_too_few_people_is_said(people):
    with pytest.raises(RegistrationError, match="L4-L5: only 1 people.*needs two"):
        build_template(people[:1], ["L4-L5"])


def test_montage_is_a_picture(atlas, people, tmp_path):
    pytest.importorskip("matplotlib")
    result = register_person(people[0][1], atlas, person="sub-01")
    path = montage(result, tmp_path / "sub-01.png")
    assert path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size > 10_000


def test_the_shipped_atlas_has_five_levels_and_says_where_it_is_from():
    atlas = load_atlas()
    assert atlas.levels == ("L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1")
    assert atlas.provenance["license"] and atlas.provenance["source"]
    direction = np.array(atlas.geometry.direction).reshape(3, 3)
    np.testing.assert_array_equal(direction, np.eye(3))
    for value in atlas.values:
        shape = atlas.shape(value)
        assert 1.2 < shape.half[0] / shape.half[1] < 1.65 and shape.cut == (False, False)
    moves = atlas.provenance["convergence_mm"]
    assert set(moves) == set(atlas.levels) and max(m[-1] for m in moves.values()) < CONVERGED


def test_the_affine_part_follows_depth_and_height_and_never_width():
    points = np.random.default_rng(0).normal(0, 10, (60, 3))
    moved = np.array([2.0, 0.0, -1.0]) + points[:, 1:] @ np.array([[0.0, 1.1, 0.1], [0.0, -0.2, 0.9]])
    found = np.linalg.lstsq(_affine_terms(points), moved, rcond=None)[0]
    np.testing.assert_allclose(_affine_terms(points) @ found, moved, atol=1e-9)
    np.testing.assert_array_equal(_affine_terms(points * [3, 1, 1]), _affine_terms(points))


def test_discs_stand_as_they_do_in_people_on_average():
    """Tilted discs two levels apart: mean centers about the person's middle, and the rotation between the people's."""
    class Level(list):
        people = ("sub-01", "sub-02")

    def tilt(degrees):
        return np.array(Rotation.from_euler("zyx", [degrees, degrees / 2, 3], degrees=True).as_matrix())

    shapes = {value: Level(SimpleNamespace(center=np.array([x, 2.0 * x, z + x]), axes=tilt(turn + x))
                           for x in (0.0, 4.0)) for value, z, turn in ((11, 0.0, 30.0), (12, 40.0, -20.0))}
    poses = template._mean_poses(shapes)
    for value, z, turn in ((11, -20.0, 30.0), (12, 20.0, -20.0)):
        np.testing.assert_allclose(poses[value][0], [0, 0, z], atol=1e-12)
        np.testing.assert_allclose(poses[value][1], tilt(turn + 2), atol=2e-3)
