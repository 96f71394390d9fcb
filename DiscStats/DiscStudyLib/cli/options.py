"""Arguments and options that several verbs share, and settings of a study as options."""

import inspect
import re
import typing
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from DiscRelaxometryLib.atomic import check_folder
from DiscRelaxometryLib.echo import sidecar_of
from DiscRelaxometryLib.errors import DiscRelaxometryError

from ..folder import CHOICES, Settings

_RESULTS = "Results folder (default: derivatives/disc-relaxometry in the study)."
StudyFolder = Annotated[Path, Argument(help="Study folder: sub-XX/anat/..., participants.tsv (BIDS-like).")]
ResultsFolder = Annotated[Path | None, Argument(help=_RESULTS)]
Output = Annotated[Path | None, Option(help=_RESULTS)]
Labels = Annotated[list[str], Option(help="Only these participants, such as 01 02.")]
Session = Annotated[str, Option(help="BIDS session, such as ses-01.")]
Region = Annotated[str, Option(help="Region, such as whole, nucleus or anterior_annulus.")]
Quantity = Annotated[str, Option(help="Quantity, such as T1rho.")]
Engine = Annotated[str, Option(help="auto, onnx or torch.")]
#: Settings that are no option of their own: threads follow from --n-procs.
_HIDDEN = ("threads",)


def with_settings(verb: Callable) -> Callable:
    """Give a verb, in place of ``**settings``, an option for each setting of a study, with its help and default."""
    signature, hints = inspect.signature(verb), typing.get_type_hints(verb, include_extras=True)
    own = [p.replace(annotation=hints[p.name]) for p in signature.parameters.values()
           if p.kind is not inspect.Parameter.VAR_KEYWORD]
    taken = {p.name for p in own}
    words = field_help(Settings)
    more = []
    for field in fields(Settings):
        if field.name in taken or field.name in _HIDDEN:
            continue
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        choices = f" ({', '.join(filter(None, CHOICES[field.name]))})" if field.name in CHOICES else ""
        kind = Annotated[type(default), Option(help=words[field.name] + choices)]
        more.append(inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind))

    @wraps(verb)
    def wrapped(**values):
        return verb(**values)

    del wrapped.__wrapped__
    wrapped.__signature__ = signature.replace(parameters=[*own, *more])
    wrapped.__annotations__ = {p.name: p.annotation for p in [*own, *more]}
    return wrapped


def field_help(record: type) -> dict[str, str]:
    """Return what the ``#:`` comment above each field of a dataclass says."""
    found = re.findall(r"((?: +#: .*\n)+) +(\w+):", inspect.getsource(record))
    return {name: " ".join(text.replace("#:", "").replace("``", "").split()) for text, name in found}


def numbers(text: str, option: str) -> list[float]:
    """Return the numbers of an option's value, separated by commas, semicolons or spaces."""
    try:
        return [float(t) for t in re.split(r"[,;\s]+", text.strip(" ,;")) if t]
    except ValueError:
        raise DiscRelaxometryError(f"{option} '{text}': write numbers separated by commas, such as "
                                   "0,10,40,80.") from None


def require_place(path: Path, ending: str = "", read: Iterable[Path | None] = ()) -> None:
    """Raise an error, before anything is computed, if no file with this ending can be written at `path`.

    Nor may it, or a table's sidecar, take the place of a file that is read, or of that one's sidecar.
    """
    table = path.with_suffix(".json") if ending == ".tsv" else path
    for file in filter(None, read):
        if path.resolve() == file.resolve() or table.resolve() == sidecar_of(file).resolve():
            raise DiscRelaxometryError(f"'{path}' would take the place of '{file.name}', which is read, or of its "
                                       "sidecar: name another file.", anchor="output")
    if ending and path.suffix != ending:
        raise DiscRelaxometryError(f"'{path.name}' does not end with {ending}.")
    if path.is_dir():
        raise DiscRelaxometryError(f"'{path}' is a folder: name a file.")
    check_folder(path.parent)
