"""An error's help note stands once, at the end, however often its text was wrapped."""

import pytest

from DiscRelaxometryLib import errors

KINDS = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.DiscRelaxometryError)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrap", [str, lambda e: f"sub-01: {e} And more.", lambda e: f"{e} {e}"])
def test_a_wrapped_error_has_one_help_note(kind, wrap):
    inner = errors.GeometryError("No spacing.", anchor="unusable-geometry")
    for anchor, expected in ((None, "unusable-geometry"), ("truncated", "truncated")):
        outer = kind(wrap(kind(wrap(inner), anchor=anchor)))
        assert str(outer).count("[Help") == 1
        assert str(outer).endswith(f" [Help: troubleshooting, '{expected}']")
        assert "[Help" not in outer.message and outer.anchor == expected


def test_an_error_without_anchor_has_no_help_note():
    assert str(errors.StudyError("Nothing here.")) == "Nothing here."
