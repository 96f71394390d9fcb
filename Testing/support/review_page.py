"""The review page of a study, served beside the test, and requests to it."""

import http.client
import json
import threading
from contextlib import closing

from DiscStudyLib.folder import read_decisions
from DiscStudyLib.review import ReviewPage, Session


def served(study, reviewer="AB"):
    page = ReviewPage(Session(study, reviewer=reviewer), port=0)
    threading.Thread(target=page.serve, daemon=True).start()
    return page


def request(page, path, method="GET", body=None, **headers):
    with closing(http.client.HTTPConnection(page.host, timeout=20)) as connection:
        connection.request(method, path, None if body is None else json.dumps(body), {"X-Token": page.token, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())


def decisions(study):
    return read_decisions(study / "derivatives/disc-relaxometry/review.tsv")
