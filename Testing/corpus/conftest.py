import pytest

from corpus.made_studies import write_people


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """A study folder with images; each test writes a participants table of its own."""
    return write_people(tmp_path_factory.mktemp("corpus") / "study")
