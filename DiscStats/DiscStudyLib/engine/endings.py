"""Endings of the files that one step writes and another reads."""

DISCS = "desc-discs_dseg.nii.gz"
#: The discs as decided in review.
DECIDED = "desc-final_dseg.nii.gz"
NORMALIZED = "desc-csfnorm_nT2w.nii.gz"
FIRST_ECHO = "desc-first_echo.nii.gz"
TRANSFORM = "xfm.tfm"
MEASURES = "desc-discs_measures.tsv"
VERTEBRAE = "desc-vertebrae_measures.tsv"
REGIONS = "desc-regions_measures.tsv"
REGISTRATION = "desc-registration_quality.tsv"
AGREEMENT = "desc-agreement_measures.tsv"
AUTOMATIC = "desc-automatic_measures.tsv"
GRADES = "desc-grades_measures.tsv"
SEGMENTATION_TILE = "desc-segmentation.png"
MAPS_TILE = "desc-maps.png"


def carried(kind: str) -> str:
    """Return the ending of the discs on the grid of an echo series."""
    return f"space-{kind}_{DISCS}"


def relaxation_map(kind: str) -> str:
    """Return the ending of a T1rho or T2 map."""
    return f"{kind}map.nii.gz"


def in_atlas(key: str) -> str:
    """Return the ending of a map, or of a statistic of maps, in atlas space."""
    return f"space-DiscAtlas_{key}.nii.gz"
