"""What the grading network sees of a disc, and how its members are averaged."""

from dataclasses import replace

import numpy as np
import pytest
from support.grade_phantom import CSF, MARROW, spine

from DiscRelaxometryLib.discs import load_engine
from DiscRelaxometryLib.grades import (
    GRADES,
    PICTURE,
    GradeConfig,
    build_grader,
    describe_discs,
    disc_pictures,
    load_grader,
)
from DiscRelaxometryLib.grades.views import disc_views


def test_a_picture_is_what_was_drawn():
    nuclei = np.array([40, 60, 90, 120, 150, 380])
    views = disc_views(*spine(nuclei, blur=0))
    pictures = disc_pictures(views)
    assert pictures.shape == (6, *PICTURE) and pictures.dtype == np.float16
    rows, columns = PICTURE[1] // 2, PICTURE[2] // 2
    centers = pictures[:, :, rows, columns].astype(float)
    # The fluid of the drawing is one, and the marrow half of it.
    drawn = np.column_stack([nuclei / CSF] * 3 + [np.ones(6), np.zeros(6), np.zeros(6)])
    assert centers[:5] == pytest.approx(drawn[:5], abs=0.02)
    for n, channel in ((0, 4), (-1, 4), (rows, 3)):  # vertebrae above and below, the disc between
        assert pictures[2, channel, n, columns] == 1 and pictures[2, 3:, n, columns].sum() == 1
    wider = disc_pictures(views, (96, 128))
    assert wider[2, 5, :, -8:].all() and not wider[2, 5, :, :-32].any()  # the canal is 24 to 36 mm behind the middle
    assert np.array_equal(wider[:, :, 16:-16, 16:-16], pictures)
    bright = disc_pictures([replace(v, csf=np.nan) if n == 0 else replace(v, signal=v.signal * 5)
                            for n, v in enumerate(views)])
    assert bright.max() == 2 and np.isfinite(bright).all()  # clipped; a view without fluid has the person's


def test_pictures_tell_of_marrow_and_the_persons_fluid():
    views = disc_views(*spine(blur=0))
    views = [replace(v, csf=CSF * (1 + n), marrow=MARROW * 2) for n, v in enumerate(views)]
    at = (slice(0, 3), PICTURE[1] // 2, PICTURE[2] // 2)
    for n, picture in enumerate(disc_pictures(views)):
        assert picture[at] == pytest.approx(150 / np.array([CSF * (1 + n), MARROW * 4, CSF * 3.5]), abs=0.01)


def test_members_are_averaged_as_said():
    """Only intercepts: 1 by the regressions, 2 and 4 by perceptrons, 8 and 12 by convolutions."""
    torch = pytest.importorskip("torch")
    network = build_grader(GradeConfig(("a", "b"), members=2)).eval()
    for parameter in network.parameters():
        parameter.data.zero_()
    network.linear.bias.data += 1
    for member, bias in ((network.readers[0][-1], 2), (network.readers[1][-1], 4), (network.eyes[0].head[-1], 8),
                         (network.eyes[1].head[-1], 12)):
        member.bias.data += bias
    network.temperature.fill_(2.0)
    given = torch.zeros(1, 2), torch.zeros(1, *PICTURE)
    with torch.inference_mode():
        assert torch.allclose(network.odds(*given), torch.tensor(((1 + 3) / 2 + 10) / 2))
        higher = 1 / (1 + np.exp(-6 / 2))
        assert network(*given)[0, :GRADES].tolist() == pytest.approx([1 - higher, 0, 0, 0, higher], abs=1e-6)


def test_each_picture_is_seen_upside_down_as_well():
    torch = pytest.importorskip("torch")
    network, pictures = build_grader(GradeConfig(("a",), members=1)).eval(), torch.rand(2, *PICTURE)
    with torch.inference_mode():
        plain, down, mirrored = (network.odds(torch.zeros(2, 1), p)
                                 for p in (pictures, pictures.flip(2), pictures.flip(3)))
    assert torch.allclose(plain, down, atol=1e-6) and not torch.allclose(plain, mirrored, atol=1e-6)


def test_perceptrons_see_features_of_three_standard_deviations_at_most():
    torch = pytest.importorskip("torch")
    network = build_grader(GradeConfig(("a",), members=1)).eval()
    network.linear.weight.data.zero_()
    with torch.inference_mode():
        at = [network.odds(torch.full((1, 1), x), torch.zeros(1, *PICTURE)) for x in (2.9, 3.0, 50.0, -3.0, -50.0)]
    assert torch.equal(at[1], at[2]) and torch.equal(at[3], at[4]) and not torch.equal(at[0], at[1])


def test_a_picture_upside_down_has_the_same_grades():
    views, _, _, values = describe_discs(*spine((10, 25, 60, 110, 150, 190)))
    engine, pictures = load_engine(load_grader(), "onnx"), disc_pictures(views)
    given = engine.run(values, pictures)
    assert engine.run(values, pictures[:, :, ::-1]) == pytest.approx(given, abs=1e-5)
    assert np.abs(engine.run(values, 0 * pictures) - given)[:, :GRADES].max() > 0.05  # pictures do count


def test_distance_is_that_of_mahalanobis():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    network = build_grader(GradeConfig(("a", "b", "c"), members=0))
    whiten = rng.standard_normal((3, 3))
    network.load_state_dict({**network.state_dict(), "whiten": torch.tensor(whiten, dtype=torch.float32),
                             "mean": torch.tensor([1.0, 2.0, 3.0]), "scale": torch.tensor([2.0, 1.0, 4.0])})
    x = rng.standard_normal(3)
    z = (x - [1, 2, 3]) / [2, 1, 4]
    with torch.inference_mode():
        found = network(torch.tensor(x[None], dtype=torch.float32), None)[0, -1].item()
    assert found == pytest.approx(np.sqrt(z @ (whiten @ whiten.T) @ z / 3), rel=1e-5)
