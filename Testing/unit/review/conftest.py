import pytest
from support.review_page import served
from support.review_study import make_reviewable

FLAGS = {"sub-02": (["The network is unsure of L4-L5: look."], {})}


@pytest.fixture
def study(tmp_path):
    return make_reviewable(tmp_path / "study", 3, FLAGS)


@pytest.fixture
def page(study):
    with served(study) as page:
        yield page
        page.stop()
