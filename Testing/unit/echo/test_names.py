"""What file names say: one grouping for panel and study."""

from itertools import permutations
from pathlib import Path

import pytest

from DiscRelaxometryLib.echo import component, group_series, series_name
from DiscRelaxometryLib.echo.names import left_out
from DiscRelaxometryLib.errors import EchoSeriesError
from DiscStudyLib.folder.study import _series

SERIES = {
    "BIDS": [f"sub-01_echo-{n}_MESE" for n in (1, 2, 10)],
    "spin-lock times": [f"sub-01_tsl{n}_T1rho" for n in (0, 10, 40, 80)],
    "entity": [f"sub-01_tsl-{n}ms_T1rho" for n in (0, 10, 40)],
    "inversions": [f"sub-01_inv-{n}_T1rho" for n in (1, 2)],
    "acquisitions": [f"sub-01_acq-tsl{n}_T1rho" for n in (10, 40)],
    "converter": [f"SAG_T2MAP_e{n}" for n in (1, 2, 11)],
    "first without number": ["SAG_MESE", "SAG_MESE_e2", "SAG_MESE_e3"],
    "one number": ["scan1", "scan2", "scan10"],
    "magnitude": [f"sub-01_echo-{n}_part-mag_MESE" for n in (1, 2)],
}


@pytest.mark.parametrize("stems", SERIES.values(), ids=SERIES)
def test_echoes_of_a_series_are_one_group_in_their_order(stems):
    files = [Path(f"{s}.nii.gz") for s in stems]
    for shuffled in list(permutations(files))[:24]:
        assert group_series(shuffled) == [files]


@pytest.mark.parametrize("stems", [s for s in SERIES.values() if s[0].startswith("sub-")], ids=str)
def test_the_study_groups_as_the_reader_does(stems):
    files = [Path(f"{s}.nii.gz") for s in reversed(stems)]
    (series,) = _series(files)
    assert list(series.files) == group_series(files)[0]


@pytest.mark.parametrize("stems", [
    ["sub-01_T1rho", "sub-02_T1rho"], ["sub-01_run-1_MESE", "sub-01_run-2_MESE"], ["a1_x1", "a2_x2"],
    ["sub-01_echo-1_MESE", "sub-01_echo-1_T1rho"], ["first", "second"]])
def test_different_series_stay_apart(stems):
    assert len(group_series([Path(f"{s}.nii") for s in stems])) == 2


@pytest.mark.parametrize("names", [["a_e1.nii", "a_e1.nii.gz"], ["a.nii", "a_e1.nii"], ["a.nii", "a.nrrd"],
                                   ["a_e2.nii", "a_e02.nii"]])
def test_an_echo_that_stands_twice_is_named(names):
    with pytest.raises(EchoSeriesError, match="same echo by their names"):
        group_series(map(Path, names))


def test_files_of_one_name_in_two_folders_are_two_series():
    assert len(group_series([Path("a/x_e1.nii"), Path("b/x_e2.nii")])) == 2


@pytest.mark.parametrize(("name", "expected"), [
    ("sub-01_part-phase_MESE", "phase"), ("sub-01_echo-1_part-real_MESE", "real"), ("X_e1_ph", "phase"),
    ("X_ph", "phase"), ("X_imaginary", "imaginary"), ("X_e2_real", "real"), ("sub-01_part-imag_MESE", "imaginary"),
    ("sub-01_part-mag_MESE", ""), ("sub-01_acq-phase_MESE", ""), ("phantom", ""), ("X_e1", "")])
def test_components(name, expected):
    assert component(Path(name + ".nii.gz")) == expected


@pytest.mark.parametrize(("name", "out"), [
    ("sub-01_T2map", True), ("sub-01_dseg", True), ("sub-01_label-disc_mask", True), ("sub-01_probseg", True),
    ("sub-01_acq-T2map_MESE", False), ("sub-01_desc-preproc_MESE", False), ("SAG_T2MAP", False),
    ("SAG_t2map_e1", False), ("sub-01_acq-unmask_MESE", False), ("roadmap_MESE", False)])
def test_only_the_suffix_makes_a_derivative(name, out):
    assert bool(left_out(Path(name + ".nii"))) == out


def test_series_name_is_without_echo():
    assert series_name(Path("sub-01_echo-2_part-mag_MESE.nii.gz")) == "sub-01_MESE"
