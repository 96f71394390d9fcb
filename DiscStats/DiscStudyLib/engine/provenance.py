"""What a step did: hashes of inputs, parameters and version decide whether it must be done again.

A step's record is removed before the step runs and written after its outputs, so that at any moment, power
cuts included, outputs without a record are to be redone and a record stands for complete outputs.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from DiscRelaxometryLib.atomic import _jsonable, write_json
from DiscRelaxometryLib.versions import versions_of

#: Libraries whose versions are recorded with each step.
LIBRARIES = ("numpy", "scipy", "SimpleITK", "onnxruntime", "torch", "itk-elastix", "statsmodels", "dask", "matplotlib")


@dataclass
class Record:
    """Provenance of one step of one person, or of the group."""

    #: `person` is empty for a group step.
    step: str
    person: str
    #: Hash over step, version, parameters and input contents.
    key: str
    #: ``done`` or ``failed``.
    status: str = "done"
    parameters: dict = field(default_factory=dict)
    #: Path relative to the study -> {"sha256", "size", "mtime_ns"}.
    inputs: dict = field(default_factory=dict)
    outputs: dict = field(default_factory=dict)
    #: What the step found (numbers for tables and the report).
    facts: dict = field(default_factory=dict)
    #: Warnings for the reader.
    notes: list = field(default_factory=list)
    #: Why a step failed.
    message: str = ""
    #: Whether the same inputs would fail again (bad data), as opposed to a full disk or lack of memory.
    permanent: bool = False
    versions: dict = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    finished: str = ""


def file_hash(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(path: Path, known: Mapping | None = None) -> dict:
    """Return content hash, size and modification time of a file.

    The hash of an earlier one (`known`) is trusted while size and time are unchanged: a large study runs again fast.
    """
    stat = path.stat()
    now = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    same = known and now == {name: known.get(name) for name in now}
    return {"sha256": known["sha256"] if known and same else file_hash(path), **now}


def step_key(step: str, version: str, parameters: Mapping, inputs: Mapping[str, Mapping]) -> str:
    """Return the hash that identifies a step's work: what it is, with which parameters, on which content."""
    contents = {name: entry["sha256"] for name, entry in inputs.items()}
    text = json.dumps(_jsonable([step, version, dict(parameters), contents]), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Return versions of this project, Python and the libraries that shape results."""
    return versions_of(LIBRARIES)


def read_record(path: Path) -> Record | None:
    """Read a record; None where it is absent or unreadable (then the step is redone)."""
    try:
        return Record(**json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_record(record: Record, path: Path) -> None:
    """Write a record atomically; the time is UTC, without host or user name."""
    record.finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record.versions = versions()
    write_json(path, asdict(record))


def outputs_intact(record: Record, resolve, verify: bool = False) -> bool:
    """Say whether all outputs of a record exist unchanged.

    Parameters
    ----------
    record : Record
    resolve : callable
        Maps a recorded name to a path.
    verify : bool
        Hash the content even where size and modification time are unchanged.
    """
    for name, entry in record.outputs.items():
        path = resolve(name)
        try:
            if fingerprint(path, None if verify else entry)["sha256"] != entry["sha256"]:
                return False
        except OSError:
            return False
    return True


def fingerprints(paths: Iterable[Path], relative, known: Mapping | None = None) -> dict[str, dict]:
    """Return {relative name: fingerprint} of files, in a fixed order."""
    known = known or {}
    named = sorted((relative(p), p) for p in paths)
    return {name: fingerprint(path, known.get(name)) for name, path in named}


def remove_partials(folder: Path, within: str = "**", age: float = 0.0) -> None:
    """Delete temporary files that killed runs left, `age` seconds old, in what a pattern names `within` a folder."""
    for path in list(folder.glob(f"{within}/.*.partial.*")):
        with suppress(FileNotFoundError):  # another's, and finished
            if path.stat().st_mtime <= time.time() - age:
                path.unlink()


def peak_memory_mb() -> float:
    """Return the process's highest resident memory so far in MB (NaN where the system does not tell)."""
    try:
        import resource
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024.0 if platform.system() == "Linux" else peak / 1024.0**2
