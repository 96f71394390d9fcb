"""The review page: an HTTP server on this machine alone, for the browser that holds its token."""

from __future__ import annotations

import errno
import functools
import gzip
import hmac
import json
import os
import secrets
import shlex
import sys
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from DiscRelaxometryLib.atomic import write_json, write_text
from DiscRelaxometryLib.errors import DiscRelaxometryError, StudyError
from DiscRelaxometryLib.labels import BY_VALUE, DISCS
from DiscRelaxometryLib.resources import resource_path
from DiscRelaxometryLib.tables import read_tsv

from ..folder import Decision, Study
from .session import Look, Session
from .viewer import SlicerViews
from .volumes import Volume, as_stored, group_volume, group_volumes, person_volumes

#: Where unsaved drawings lie in the results folder.
DRAFTS = "review.drafts"
#: The page that the report links to, in the results folder.
LINK = "review.html"
_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
          ".css": "text/css; charset=utf-8"}
_POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
           "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
#: Longest request body: a mask of 512 x 512 x 256 voxels.
_MAX_BODY = 1 << 26


class ReviewPage:
    """Serves a session on ``127.0.0.1``; a context manager that ends the server.

    Parameters
    ----------
    session : Session
    port : int
        0 takes any free one.
    views : SlicerViews, optional
        Slicer's views, which the page then offers.

    Raises
    ------
    StudyError
        If the port is in use.
    """

    def __init__(self, session: Session, port: int = 8765, views: SlicerViews | None = None):
        self.session, self.token, self.views = session, secrets.token_urlsafe(24), views
        self.lock, self.loading = threading.Lock(), threading.Lock()  # a decision does not wait for images
        # Who is on screen, and who comes next: the page asks for them in advance.
        self.volumes: Callable[[str, int], dict[str, Volume]] = functools.lru_cache(maxsize=4)(
            lambda person, time: person_volumes(session, person))
        #: What the page asks for, and what it sends, by path.
        self.reads: dict[str, Callable[[dict], dict | bytes]] = {
            "/api/state": lambda query: self.state(), "/api/person": lambda query: self.heads(query["id"]),
            "/api/map": lambda query: self.clusters(query["name"]), "/api/lock": lambda query: self.locked(),
            "/api/volume": lambda query: gzip.compress(self._volume(query).content(), 1)}
        self.writes: dict[str, Callable[[dict], dict]] = {
            "/api/decide": self.decide, "/api/correct": self.correct, "/api/draft": self.keep_draft}
        if views:
            self.writes["/api/views"] = lambda given: views.ask(session.look(given["person"]).person)
        try:
            self.server = _Server(("127.0.0.1", port), _Handler)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise StudyError(f"Port {port} is in use, perhaps by another review page: end that one, or choose another "
                             "with --port.", anchor="review-page") from None
        self.server.page = self
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.address = f"http://{self.host}/?token={self.token}"

    def __enter__(self) -> ReviewPage:
        write_link(self.session.study, self.address)
        return self

    def __exit__(self, *error) -> None:
        self.server.server_close()
        write_link(self.session.study)

    def serve(self, browser: bool = False) -> None:
        """Answer requests until :meth:`stop` or Ctrl+C."""
        if browser:
            threading.Thread(target=webbrowser.open, args=(self.address,), daemon=True).start()
        with suppress(KeyboardInterrupt):
            self.server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """End :meth:`serve`, from another thread."""
        self.server.shutdown()

    # ------------------------------------------------------------ what the page asks for

    def state(self) -> dict:
        """Return who is flagged and who is done, and what the page offers."""
        people = [{"id": k.person, "flagged": k.flagged, "done": k.done} for k in self.session.overview()]
        return {"title": str(self.session.study.description.get("Name") or self.session.study.root.name),
                "reviewer": self.session.reviewer, **self.locked(),
                "levels": [d.name for d in reversed(DISCS)], "people": people,
                "labels": {d.value: d.name for d in DISCS},
                "simulated": self.session.study.simulated, "group": list(group_volumes(self.session)),
                "views": self.views is not None}

    def locked(self) -> dict:
        """Say whether a run is in progress; a decision that this page writes holds the study's lock, too."""
        with self.lock:
            return {"readOnly": self.session.read_only}

    def _person(self, look: Look) -> dict:
        discs = [{"level": d.level, "name": d.name, "flags": list(d.flags), "stale": d.stale, "settled": d.settled,
                  "decision": vars(d.decision) if d.decision else None} for d in look.discs]
        return {"id": look.person, "flagged": look.flagged, "done": look.done, "discs": discs,
                "seen": [vars(d) for d in look.seen.values()], "draft": self._draft(look.person).exists()}

    def heads(self, person: str) -> dict:
        """Return a person's entry, the volumes that can be asked for, and an unsaved drawing."""
        draft = self._draft(person)
        return {"person": self._person(self.session.look(person)),
                "volumes": {k: v.head() for k, v in self._volumes(person).items()},
                "draft": json.loads(draft.read_text(encoding="utf-8")) if draft.exists() else None}

    def _volumes(self, person: str) -> dict[str, Volume]:
        look = self.session.look(person)  # also refuses what is no participant
        with self.loading:
            return self.volumes(person, hash(json.dumps([vars(d) for d in look.seen.values()])))

    def _volume(self, query: dict) -> Volume:
        if "map" in query:
            return group_volume(self.session, self._map(query["map"]))
        return self._volumes(query["id"])[query["name"]]

    def clusters(self, name: str) -> dict:
        """Return a statistical map's head, and the clusters of its analysis."""
        path = self._map(name)
        rows = [r for file in sorted(path.parent.glob("*_clusters.tsv")) for r in read_tsv(file).rows
                if f"{r['quantity']}_{r['contrast']}" in path.name]
        volume = group_volume(self.session, path)
        origin, spacing = np.array(volume.image.geometry.origin), np.array(volume.image.geometry.spacing)
        for row in rows:  # table: R, A, S in mm; volume: L, P, S
            place = np.array([-float(row["peak_r"]), -float(row["peak_a"]), float(row["peak_s"])])
            row["voxel"] = np.rint((place - origin) / spacing).astype(int).tolist()[::-1]
        return {**volume.head(), "clusters": rows}

    def _map(self, name: str) -> Path:
        path = group_volumes(self.session).get(name)
        if path is None:
            raise StudyError(f"There is no statistical map '{name}'.", anchor="review-page")
        return path

    # ------------------------------------------------------------ what the page writes

    def decide(self, given: dict) -> dict:
        """Write what was decided; return the person as it is now."""
        seen = {d.disc: d for d in (Decision(**row) for row in given["seen"])}
        person, level, kind = given["person"], given["level"], given["decision"]
        with self.lock:
            if kind == "undo":
                self.session.take_back(person, level, seen)
            else:
                self.session.decide(person, level, kind, reason=given.get("reason", ""),
                                    renamed_to=given.get("renamed_to", ""), seen=seen)
        return self._person(self.session.look(person))

    def correct(self, given: dict) -> dict:
        """Keep a drawing as the person's corrected mask; ``voxels`` are [index, value, ...] of the upright volume."""
        person = given["person"]
        seen = {d.disc: d for d in (Decision(**row) for row in given["seen"])}
        labels = self.session.outlines(person)
        upright = self._volumes(person)["image"].labels.array.copy()
        pairs = np.asarray(given["voxels"], np.int64).reshape(-1, 2)
        if pairs.size and (pairs[:, 0].min() < 0 or pairs[:, 0].max() >= upright.size
                           or not set(pairs[:, 1].tolist()) <= {0, *BY_VALUE}):
            raise StudyError("The drawing does not fit the image: load the page again.", anchor="review-page")
        upright.reshape(-1)[pairs[:, 0]] = pairs[:, 1]
        with self.lock:
            levels = self.session.correct(person, as_stored(upright, labels.geometry), seen)
            self._draft(person).unlink(missing_ok=True)
        return {**self._person(self.session.look(person)), "corrected": levels}

    def keep_draft(self, given: dict) -> dict:
        """Keep an unsaved drawing, so that it outlives the browser; without voxels it is dropped."""
        path = self._draft(self.session.look(given["person"]).person)
        if given["voxels"]:
            write_json(path, {"voxels": given["voxels"]})
        else:
            path.unlink(missing_ok=True)
        return {}

    def _draft(self, person: str) -> Path:
        return self.session.study.output / DRAFTS / f"{person}.json"


def write_link(study: Study, address: str = "") -> Path:
    """Write the page that the report links to: it goes on to the review page, or says how to start it."""
    path = study.output / LINK
    command = f"disc-relaxometry review {shlex.quote(study.root.name)}"
    text = (resource_path("Review/link.html", "DiscStatsLib").read_text(encoding="utf-8")
            .replace("{{address}}", address).replace("{{command}}", command.replace("&", "&amp;").replace("<", "&lt;")))
    write_text(path, text)
    os.chmod(path, 0o600 if address else 0o644)  # the address holds the token
    return path


class _Server(ThreadingHTTPServer):
    page: ReviewPage
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Keep quiet of a browser that was closed in the middle of a request; show anything else."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of the browser for the server's page."""

    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self):
        """Answer with what the page asks for, or with one of its files."""
        url, reads = urlsplit(self.path), self.server.page.reads
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        if not self._allowed(query, secret=url.path in ("/", *reads)):
            return
        if url.path in reads:
            self._answer(lambda: reads[url.path](query))
        else:
            self._file("page.html" if url.path == "/" else unquote(url.path[1:]))

    def do_POST(self):
        """Write what the page sends."""
        url, writes = urlsplit(self.path), self.server.page.writes
        if not self._allowed({}, secret=True):
            return
        length = int(self.headers.get("Content-Length") or 0)
        if url.path not in writes or not 0 < length <= _MAX_BODY:
            self._not_found()
            return
        body = self.rfile.read(length)
        self._answer(lambda: writes[url.path](json.loads(body)))

    def _allowed(self, query: dict, secret: bool) -> bool:
        """Refuse other hosts' names (DNS rebinding), other origins, and whoever does not have the token."""
        page, origin = self.server.page, self.headers.get("Origin")
        given = query.get("token") or self.headers.get("X-Token") or ""
        known = self.headers.get("Host") == page.host and origin in (None, f"http://{page.host}")
        if known and (not secret or hmac.compare_digest(given.encode(), page.token.encode())):
            return True
        self.close_connection = True
        self._send(HTTPStatus.FORBIDDEN, b"This address is not valid: open the one that the command shows.",
                   "text/plain")
        return False

    def _answer(self, make: Callable) -> None:
        try:
            found = make()
        except (DiscRelaxometryError, OSError) as error:
            text = error.message if isinstance(error, DiscRelaxometryError) else str(error.strerror or error)
            self._send(HTTPStatus.CONFLICT, json.dumps({"error": text}).encode(), "application/json")
        except (KeyError, TypeError, ValueError) as error:
            text = f"The request is not understood ({type(error).__name__}): load the page again."
            self._send(HTTPStatus.BAD_REQUEST, json.dumps({"error": text}).encode(), "application/json")
        else:
            if isinstance(found, bytes):
                self._send(HTTPStatus.OK, found, "application/octet-stream", {"Content-Encoding": "gzip"})
            else:
                self._send(HTTPStatus.OK, json.dumps(found).encode(), "application/json")

    def _file(self, name: str) -> None:
        folder = resource_path("Review", "DiscStatsLib")
        path = folder / name
        if name not in [f.name for f in folder.iterdir()] or name == "link.html":
            self._not_found()
        else:
            self._send(HTTPStatus.OK, path.read_bytes(), _TYPES[path.suffix])

    def _not_found(self) -> None:
        self._send(HTTPStatus.NOT_FOUND, b"Not found.", "text/plain")

    def _send(self, status: HTTPStatus, body: bytes, kind: str, more: dict | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store",
                            "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
                            "Content-Security-Policy": _POLICY, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:  # the browser was closed
            self.close_connection = True

    def log_message(self, *args):
        """Write nothing: the address holds the token."""
