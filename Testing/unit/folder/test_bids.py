"""What lies beside results says what they are: units of each map, and names, codes and colors of the labels."""

import pytest

from DiscRelaxometryLib.labels import STRUCTURES
from DiscStudyLib.folder.bids import _label_table, _sidecars


def test_the_label_table_is_that_of_the_structures():
    rows = {row["index"]: row for row in _label_table().rows}
    for structure in STRUCTURES:
        row = rows.pop(structure.value)
        red, green, blue = (int(row["color"][n:n + 2], 16) for n in (1, 3, 5))
        assert (red, green, blue) == structure.color and row["color"][0] == "#"
        assert (row["name"], row["abbreviation"], row["snomed"]) == (structure.name, structure.key, structure.snomed[0])
    assert not rows


@pytest.mark.parametrize("name, unit", [
    ("T1rhomap", "ms"), ("space-DiscAtlas_T2", "ms"), ("acq-T2_desc-M0_T2fit", "[arb'U]"),
    ("acq-T1rho_desc-SE_T1rhofit", "ms"), ("acq-T2_desc-B1_T2fit", "%"), ("acq-T2_desc-R2_T2fit", "1"),
    ("desc-confidence_percent", "%"), ("desc-csfnorm_nT2w", "1"), ("acq-T2_desc-first_echo", "[arb'U]")])
def test_each_kind_of_image_has_its_unit(name, unit):
    assert _sidecars(("T1rho", "T2"))[name]["Units"] == unit
    assert not [n for n in _sidecars(("T2",)) if "T1rho" in n]
