"""Contrasts of a design: by column or term name, as text, as a vector, or as a matrix."""

import re
from dataclasses import dataclass

import numpy as np

from DiscRelaxometryLib.errors import DesignError

from .design import Design
from .words import in_words


@dataclass(frozen=True)
class Contrast:
    """A linear hypothesis about the columns of a design."""

    #: Name used in map and file names.
    name: str
    #: Shape (r, p). One row: a t contrast; several rows: an F contrast.
    weights: np.ndarray
    #: One of ``t``, ``F``.
    kind: str


def build_contrasts(specification, design: Design, extra: tuple[str, ...] = ()) -> list[Contrast]:
    """Return the contrasts of a design.

    Parameters
    ----------
    specification : None, str, list, or dict of str to (str, vector, matrix, or ("F", any of these))
        None stands for every term but the intercept (the intercept where it is alone). A str is a column
        (``C(sex)[T.M]``), a term (``C(sex)``, or ``sex`` for short), words of :func:`.words.in_words` (``severe -
        minimal``), every term with a variable (``all of age``), or a combination (``a - 0.5 * b``). A
        vector is a t contrast, a matrix an F contrast.
    design : Design
    extra : tuple of str
        Names of voxel-wise covariates, whose columns follow those of the design.

    Raises
    ------
    DesignError
        If a name is unknown, a vector has another length than the design, or a contrast is all zero.
    """
    if specification is None:
        specification = [t for t in design.terms if t != "Intercept"] + list(extra) or ["Intercept"]
    if isinstance(specification, str):
        specification = [specification]
    if not isinstance(specification, dict):
        specification = {item if isinstance(item, str) else f"contrast{i + 1}": item
                         for i, item in enumerate(specification)}
    if not specification:
        raise DesignError("No contrast was given: name a term of the formula.")
    contrasts = [_contrast(name, value, design, extra) for name, value in specification.items()]
    names = [c.name for c in contrasts]
    if len(set(names)) < len(names):
        raise DesignError(f"Two contrasts have the same file name ({', '.join(names)}): name them apart.")
    return contrasts


def file_name(text: str) -> str:
    """Return text fit for a file name: ``C(sex)[T.M]`` becomes ``sexM``, ``C(grade)`` becomes ``grade``."""
    text = re.sub(r"\bC\(\s*(\w+)[^)]*\)", r"\1", text)
    text = re.sub(r"\[T\.(.*?)\]", r"\1", text).replace("-", " minus ")
    words = re.findall(r"\w+", text)
    return "".join([words[0]] + [w[:1].upper() + w[1:] for w in words[1:]]) if words else "contrast"


def _contrast(name: str, value, design: Design, extra: tuple[str, ...]) -> Contrast:
    kind = None
    if isinstance(value, (tuple, list)) and len(value) == 2 and value[0] in ("t", "F"):
        kind, value = value
    weights = _by_name(value, design, extra) if isinstance(value, str) else _numbers(name, value)
    columns = [*design.columns, *extra]
    require_weights(weights, f"Contrast '{name}'", len(columns), f" ({', '.join(columns)})")
    kind = kind or ("t" if len(weights) == 1 else "F")
    if kind == "t" and len(weights) > 1:
        raise DesignError(f"Contrast '{name}' has {len(weights)} rows and can only be tested by F.")
    return Contrast(file_name(name), weights, kind)


def require_weights(weights: np.ndarray, who: str, width: int, columns: str = "") -> np.ndarray:
    """Return weights, shape (r, p), that make a hypothesis about `width` columns; `who` begins each sentence.

    Raises
    ------
    DesignError
        For another shape, a row of zeros, a weight that is not a number, or rows that repeat each other.
    """
    if weights.ndim != 2 or weights.shape[1] != width:
        raise DesignError(f"{who} has {weights.shape[-1]} weights; the design has {width} columns{columns}.",
                          anchor="contrasts")
    if not np.isfinite(weights).all() or np.any(~weights.any(axis=1)):
        raise DesignError(f"{who} has a row of zeros or a weight that is not a number.", anchor="contrasts")
    if np.linalg.matrix_rank(weights) < len(weights):
        raise DesignError(f"{who} has rows that repeat each other: drop the redundant ones.", anchor="contrasts")
    return weights


def _numbers(name: str, value) -> np.ndarray:
    try:
        return np.atleast_2d(np.asarray(value, float))
    except (TypeError, ValueError):
        raise DesignError(f"Contrast '{name}' is neither a text, a vector, nor a matrix of numbers.",
                          anchor="contrasts") from None


def _by_name(text: str, design: Design, extra: tuple[str, ...]) -> np.ndarray:
    columns = [*design.columns, *extra]
    identity = np.eye(len(columns))
    if text in columns:
        return identity[[columns.index(text)]]
    for term, indices in design.terms.items():
        if text == term or re.sub(r"^C\(\s*(\w+).*\)$", r"\1", term) == text:
            return identity[indices]
    if text.startswith("all of "):
        variable = re.compile(rf"(?<!\w){re.escape(text[7:].strip())}(?!\w)")
        indices = [at for at, column in enumerate(columns) if variable.search(re.sub(r"\[.*?\]", "", column))]
        if indices:
            return identity[indices]
    words = in_words(text, design) if design.info is not None else None
    if words is not None and words.any():
        return np.pad(words, ((0, 0), (0, len(extra))))
    try:
        constraint = design.info.linear_constraint(text)
    except Exception:  # patsy raises many kinds for a text it cannot read
        raise DesignError(f"'{text}' is no contrast of this design: use its columns ({', '.join(columns)}), its terms "
                          f"({', '.join(design.terms)}), groups ('severe - minimal', 'age in F - age in M'), 'all of' "
                          "a variable, or a combination such as 'a - b'.",
                          anchor="contrasts") from None
    if np.any(constraint.constants):
        raise DesignError(f"Contrast '{text}' compares with a number: write a combination that is zero under the null.")
    return np.pad(constraint.coefs, ((0, 0), (0, len(extra))))
