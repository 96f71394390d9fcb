"""What the tests of unusual input share: the marker of a known fault, and what a message of the command line is."""

import inspect
import re
import subprocess

import pytest
from hypothesis import HealthCheck, Phase, given, settings


def fault(number: str, *raised: type[Exception]):
    """Mark a test that fails while fault `number` is there; whoever corrects the fault removes the marker.

    The marker accepts failed assertions and the exceptions named in `raised`, nothing else: a test that cannot even
    import what it tests is an error. It is strict, so that a mended fault cannot keep its marker.
    """
    return pytest.mark.xfail(strict=True, reason=number, raises=(AssertionError, pytest.fail.Exception, *raised))


def assert_sentence(done: subprocess.CompletedProcess, *words: str) -> None:
    """Check that a command failed with a message for its user, which has all the `words` in it."""
    assert "Traceback" not in done.stderr, done.stderr.splitlines()[-1]
    assert done.returncode in (1, 2), f"exit status {done.returncode}"
    assert "Error" in done.stderr
    # Usage errors are drawn in a box, which breaks lines.
    text = re.sub(r"[\s│]+", " ", done.stderr)
    assert all(word in text for word in words), done.stderr


def generated(strategy, few: int, many: int):
    """Try a check with `few` generated inputs in `make test`, and with `many` in a slow test of its own.

    The check tells whether the input was read; a fifth has to be, or the check would say little. Its arguments after
    the input are fixtures.
    """
    def decorate(check):
        def run(count, **fixtures):
            outcomes = []
            settings(max_examples=count, deadline=None, database=None, phases=[Phase.generate],
                     suppress_health_check=list(HealthCheck))(
                given(strategy)(lambda case: outcomes.append(check(case, **fixtures))))()
            assert sum(outcomes) >= 0.2 * len(outcomes)

        names = ["count", *list(inspect.signature(check).parameters)[1:]]
        run.__signature__ = inspect.Signature([inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in names])
        run.__name__, run.__doc__, run.check = check.__name__, check.__doc__, check
        return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.slow)])(run)
    return decorate
