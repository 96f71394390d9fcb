"""The review page's server apart from its requests."""

import pytest

from DiscStudyLib.review.page import _Server


@pytest.mark.parametrize("error, said", [(ConnectionResetError(), ""), (BrokenPipeError(), ""),
                                         (KeyError("a"), "KeyError")])
def test_a_closed_browser_is_no_error_and_a_fault_is_shown(capsys, error, said):
    server = _Server.__new__(_Server)
    try:
        raise error
    except Exception:
        server.handle_error(None, ("127.0.0.1", 1))
    shown = capsys.readouterr().err
    assert said in shown and bool(shown) == bool(said)
