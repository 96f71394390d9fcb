"""What was read otherwise than it is written is said wherever a table or an image is used, and once."""

from dataclasses import replace

import numpy as np
import pytest
from support.analyses import analyze

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.tables import read_tsv
from DiscStatsLib.analysis.zscore import reference_group, z_score
from DiscStatsLib.design import build_design, build_level_designs, numeric_columns, read_participants
from DiscStatsLib.tables.mixed import fit_mixed
from DiscStudyLib.after import compare_tables
from DiscStudyLib.folder.study import long_frame

COMMAS = "'people.tsv': commas in 'age' are read as decimal points."
GRID = Geometry((4, 4, 3))
NOTE = "The header contradicts itself."


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(4)
    lines = ["participant_id\tage\tgrade_L5S1\tgrade_L4L5\tscore"]
    lines += [f"sub-{n:02d}\t{age:.1f}\t{n % 4}\t{n % 3}\t{n * n % 7}".replace(".", ",")
              for n, age in enumerate(rng.uniform(20, 80, 16))]
    path = tmp_path / "people.tsv"
    path.write_text("\n".join(lines))
    return path


def maps(count, notes=()):
    rng = np.random.default_rng(1)
    return [Image(rng.normal(80, 5, GRID.shape), GRID, {"notes": list(notes)}) for _ in range(count)]


def atlas(values=11, dtype=np.uint8):
    labels = np.zeros(GRID.shape, dtype)
    labels[1:] = values
    return Image(labels, GRID)


def test_a_design_says_what_its_table_says(table):
    frame = read_participants(table)
    assert build_design("age", frame).warnings.count(COMMAS) == 1
    assert build_level_designs("grade + age", frame, ["L4-L5", "L5-S1"]).remarks.count(COMMAS) == 1


def test_an_analysis_says_what_its_table_and_images_say_once(table):
    images = maps(14) + maps(2, [NOTE])
    found = analyze(images, replace(atlas(), meta={"notes": [NOTE]}), read_participants(table), "T2 ~ age", "age",
                    n_permutations=19, seed=1).warnings
    assert found.count(COMMAS) == 1
    assert [w for w in found if NOTE in w] == [f"atlas (1 image): {NOTE}", f"T2 (2 images): {NOTE}"]


def test_a_mixed_model_says_what_its_table_says(table):
    people = read_tsv(table)
    rows = [{"participant_id": r["participant_id"], "level": level, "mean": 50 + 3 * n + k}
            for n, r in enumerate(people.rows) for k, level in enumerate(("L4-L5", "L5-S1"))]
    rng = np.random.default_rng(0)
    for row in rows:
        row["mean"] += rng.normal()
    assert fit_mixed(long_frame(rows, people, ["age"]), "mean ~ age").notes.count(COMMAS) == 1


def test_agreement_says_what_both_tables_say(table):
    result, _ = compare_tables(table, table, "age", on=("participant_id",))
    assert result.notes == [COMMAS]


def test_a_z_score_says_what_its_image_says():
    assert NOTE in z_score(maps(1, [NOTE])[0], reference_group(maps(25))).warnings


@pytest.mark.parametrize("values", [10.998, np.float32(11.004)])
def test_atlas_labels_stored_as_rounded_floats_mean_what_they_say(table, values):
    settings = {"n_permutations": 19, "seed": 1}
    whole = analyze(maps(16), atlas(), read_participants(table), "T2 ~ age", "age", **settings)
    rounded = analyze(maps(16), atlas(values, np.float32), read_participants(table), "T2 ~ age", "age", **settings)
    np.testing.assert_array_equal(whole.maps["T2_age_t"].array, rounded.maps["T2_age_t"].array)


@pytest.mark.parametrize("value", [1e300, -1e200, 1e101])
def test_numbers_beyond_computing_are_said_with_their_column(table, value):
    frame = read_participants(table)
    frame["score"] = frame["score"].astype(float)
    frame.loc[3, "score"] = value
    words = f"has values up to {abs(value):.3g}, beyond what can be computed"
    with pytest.raises(DesignError, match=f"'score' {words}".replace("+", r"\+")):
        build_design("score", frame)
    with pytest.raises(DesignError, match="'score'"):
        numeric_columns(frame, "score")
    with pytest.raises(DesignError, match="'score'"):
        fit_mixed(frame.assign(participant_id=[f"p{n // 2}" for n in range(16)]), "score ~ age")
    images = maps(16)
    images[2].array[2, 2, 2] = value
    with pytest.raises(DesignError, match="'T2' map of 'sub-02'"):
        analyze(images, atlas(), frame, "T2 ~ age", "age", n_permutations=19)


def test_large_numbers_that_can_be_computed_are_used(table):
    frame = read_participants(table)
    frame["cells"] = frame["score"] * 1e9
    assert build_design("cells", frame).n == 16


def test_a_person_alone_in_a_group_does_not_count_in_the_spread():
    """Such a person has no residual: rounding there gave variances 10^20-fold apart."""
    from DiscStatsLib.analysis.spread import relative_squares
    from DiscStatsLib.permutation.glm import partition

    rng = np.random.default_rng(2)
    alone = np.zeros(12)
    alone[5] = 1
    design = np.column_stack([np.ones(12), rng.normal(size=12), alone])
    squares = relative_squares(partition(design, np.eye(3)[[2]]), rng.normal(80, 3, (12, 6)))
    assert np.isnan(squares[5]).all() and np.isfinite(np.delete(squares, 5, axis=0)).all()
