"""Segmentations of other tools: their label values become this project's, by readable tables.

Each convention is a file in ``Resources/LabelMaps`` that names its tool, version and source, and says for every value
what it is here, or that it is left out. A convention either names levels itself or has them counted by ``levels.py``.
"""

import json
import re
from dataclasses import dataclass, field, replace

import numpy as np
import scipy

from ..errors import SegmentationError
from ..image import Image
from ..labels import BY_NAME, BY_VALUE, CANAL, DISC, LUMBAR_LEVELS, SACRUM, VERTEBRA, Structure, whole_labels
from ..resources import resource_path
from .levels import label_instances

SACRUM_REACH = 12.0  # mm; the L5-S1 disc lies within this of a labelled sacrum, the next disc 25 mm or more away
_FOLDER = "LabelMaps"


@dataclass(frozen=True)
class Convention:
    """How one tool numbers structures."""

    key: str
    name: str
    version: str
    source: str
    #: ``tool``: the values name levels; ``counted``: levels are counted here from the lowest disc.
    levels: str
    #: Whether ``convention="auto"`` may choose it.
    auto: bool
    #: Value -> (the tool's name, structure here or None where it is left out, note).
    table: dict[int, tuple[str, Structure | None, str]]


@dataclass
class ImportReport:
    """What was imported, and why it was read that way."""

    convention: Convention
    #: One sentence: chosen by the user, or the evidence of the automatic choice.
    why: str
    #: Value of the input -> (the tool's name, name here, voxels).
    imported: dict[int, tuple[str, str, int]] = field(default_factory=dict)
    #: Value of the input -> (the tool's name, reason, voxels).
    left_out: dict[int, tuple[str, str, int]] = field(default_factory=dict)
    #: Sentences for the user.
    flags: list[str] = field(default_factory=list)
    #: False where level names rest on an assumption that a flag states.
    certain: bool = True


def conventions() -> dict[str, Convention]:
    """Return all shipped conventions by key."""
    files = sorted(resource_path(_FOLDER).glob("*.json"))
    return {c.key: c for c in map(_read_convention, files)}


def _read_convention(path) -> Convention:
    content = json.loads(path.read_text(encoding="utf-8"))
    table = {int(value): (theirs, BY_NAME[ours] if ours else None, note)
             for value, theirs, ours, note in content["structures"]}
    return Convention(content["key"], content["name"], content["version"], content["source"], content["levels"],
                      content["auto"], table)


def import_labels(image: Image, convention: str = "auto", leave_out_unknown: bool = False
                  ) -> tuple[Image, ImportReport]:
    """Translate a label image of another tool into this project's label values.

    Parameters
    ----------
    image : Image
        Labels; whole numbers of any type.
    convention : str
        Key of a convention (see :func:`conventions`), or ``auto``.
    leave_out_unknown : bool
        Leave out values that the convention does not know, instead of raising.

    Returns
    -------
    labels : Image of uint8
    report : ImportReport

    Raises
    ------
    SegmentationError
        If the values are no labels, fit no convention, fit more than one, or hold values unknown to the one named.
    """
    image = whole_labels(image)
    values = _label_values(image)
    known = conventions()
    if convention == "auto":
        chosen, why = _detect(image, values, known)
    elif convention in known:
        chosen, why = known[convention], "chosen by the user"
    else:
        raise SegmentationError(f"There is no label convention '{convention}'; choose one of {', '.join(known)}.",
                                anchor="label-conventions")
    report = ImportReport(chosen, why)
    unknown = [v for v in values if v not in chosen.table]
    if unknown and not leave_out_unknown:
        raise SegmentationError(
            f"The label value(s) {_listed(unknown)} are not known to {chosen.name}: choose another convention, or "
            "leave them out.", anchor="label-conventions")
    labels = _translate(image, values, chosen, report)
    if chosen.levels == "counted":
        labels = _count_levels(labels, report)
    _check_levels(labels, report)
    return labels, report


def project_labels(image: Image) -> tuple[Image, list[str]]:
    """Return a segmentation that should have the project's label values with them, and what the user should know.

    Values of another tool are translated where they say whose they are.

    Parameters
    ----------
    image : Image
        Labels; whole numbers of any type.

    Returns
    -------
    labels : Image of uint8
    notes : list of str

    Raises
    ------
    SegmentationError
        If the values are no labels, or neither the project's nor those of one known tool.
    """
    image = whole_labels(image)
    values, own = _label_values(image), conventions()["project"]
    kinds = {known.name for v in values if v in own.table and (known := own.table[v][1])}
    # Other tools number other things 16 to 27; the lumbar discs' values, in their order, are the project's alone.
    if set(values) <= set(own.table) and kinds & set(LUMBAR_LEVELS) and _in_order(image, values, own):
        return replace(image, array=image.array.astype(np.uint8)), []
    labels, report = import_labels(image)
    if report.convention.key == own.key:
        return labels, report.flags
    found = {name for _, name, _ in report.imported.values()}
    if report.convention.levels == "tool" and not found & set(LUMBAR_LEVELS):
        raise SegmentationError(
            f"The label values {_listed(values)} are not this project's (11 for L5-S1, 12 for L4-L5, ...), and as "
            f"those of {report.convention.name} they name no lumbar disc: import the segmentation with the "
            "convention of the tool that made it.", anchor="label-conventions")
    notes = [f"The segmentation was translated from the label values of {report.convention.name}: {report.why}."]
    if report.left_out:
        notes.append(f"Left out: {', '.join(sorted({name for name, _, _ in report.left_out.values()}))}.")
    return labels, [*notes, *report.flags]


def _label_values(labels: Image) -> list[int]:
    """Return the nonzero label values, or raise if there are none or too many."""
    values = [int(v) for v in np.unique(labels.array) if v != 0]
    if not values:
        raise SegmentationError("The segmentation is empty.", anchor="label-conventions")
    if len(values) > 300 or min(values) < 0:
        raise SegmentationError(f"This image has {len(values)} different values, {min(values)} to {max(values)}, so "
                                "it is not a label image: choose the segmentation, not the signal.",
                                anchor="label-conventions")
    return values


def _listed(values: list[int]) -> str:
    text = ", ".join(str(v) for v in values[:12])
    return text + (" ..." if len(values) > 12 else "")


def _translate(image: Image, values: list[int], convention: Convention, report: ImportReport) -> Image:
    """Return the image with this project's values, and fill the report."""
    labels = np.zeros(image.array.shape, np.uint8)
    for value in values:
        theirs, structure, note = convention.table.get(value, (f"value {value}", None, "unknown to the convention"))
        where = image.array == value
        count = int(np.count_nonzero(where))
        if structure is None:
            report.left_out[value] = (theirs, note, count)
        else:
            labels[where] = structure.value
            report.imported[value] = (theirs, structure.name, count)
            if note in ("transitional anatomy", "partially visible"):
                report.flags.append(f"{theirs} ({structure.name}): {note}.")
    if not labels.any():
        raise SegmentationError(f"Nothing that {convention.name} names is used here: no disc, vertebra or canal.",
                                anchor="label-conventions")
    return Image(labels, image.geometry, {**image.meta, "convention": convention.key})


def _count_levels(labels: Image, report: ImportReport) -> Image:
    """Return labels with levels counted from the lowest disc; a labelled sacrum is evidence."""
    array = labels.array
    classes = np.zeros(array.shape, np.uint8)
    for value in np.unique(array[array > 0]):
        kind = BY_VALUE[int(value)]
        classes[array == value] = 2 if kind == CANAL else 3 if kind == DISC or kind.kind == "disc" else 1
    sacrum = array == SACRUM.value
    classes[sacrum] = 0
    near = None
    if sacrum.any():
        reach = scipy.ndimage.distance_transform_edt(~sacrum, sampling=labels.geometry.spacing[::-1])
        # Within discs alone: elsewhere it would be a trace of a disc that was missed.
        near = np.where(classes == 3, reach < SACRUM_REACH, 0).astype(np.float32)
    result = label_instances(classes, labels.geometry, near)
    report.flags += result.flags
    report.certain = result.certain
    counted = result.labels.array.copy()
    counted[sacrum] = SACRUM.value
    return Image(counted, labels.geometry, labels.meta)


def _check_levels(labels: Image, report: ImportReport) -> None:
    """Flag level names that contradict the anatomy in the image."""
    values = {int(v) for v in np.unique(labels.array)}
    discs = sorted(v for v in values if BY_VALUE.get(v, DISC).kind == "disc")
    if not discs:
        report.flags.append("The segmentation holds no disc with a level.")
        return
    if SACRUM.value in values and discs[0] != BY_NAME["L5-S1"].value:
        report.flags.append(f"The sacrum is labelled, but the lowest disc is {BY_VALUE[discs[0]].name}: a disc is "
                            "missing, or the anatomy is transitional. Check the levels.")
    missing = [BY_VALUE[v].name for v in range(discs[0], discs[-1]) if v not in values]
    if missing and report.convention.levels == "tool":
        report.flags.append(f"No disc {', '.join(missing)} between {BY_VALUE[discs[0]].name} and "
                            f"{BY_VALUE[discs[-1]].name}.")
    centers = _heights(labels, discs)
    if np.any(np.diff(centers) <= 0):
        report.flags.append("The discs do not ascend from the lowest level to the highest: the convention or the "
                            "image's orientation is wrong.")
        report.certain = False


def _heights(labels: Image, values: list[int]) -> list[float]:
    """Return the mean superior position (mm) of each label value."""
    centers = np.array([np.argwhere(labels.array == value).mean(axis=0) for value in values]).reshape(-1, 3)
    return list(labels.geometry.index_to_world(centers[:, ::-1])[:, 2])


def _detect(image: Image, values: list[int], known: dict[str, Convention]) -> tuple[Convention, str]:
    """Return the one convention that fits values and anatomy, and why; raise if none or several do."""
    fits = [c for c in known.values() if c.auto and _knows(c, values)]
    ordered = [c for c in fits if _in_order(image, values, c)]
    ordered = _decide_spineps(ordered, values)
    if len(ordered) == 1:
        others = [c.name for c in fits if c is not ordered[0]]
        why = f"all {len(values)} label values are those of {ordered[0].name}"
        why += f"; {' and '.join(others)} would put the levels in the wrong order" if others else \
            "; no other known convention has them all"
        return ordered[0], why
    if not ordered:
        raise SegmentationError(f"The label values {_listed(values)} fit no known convention: say which tool made "
                                f"the segmentation ({', '.join(known)}).", anchor="label-conventions")
    raise SegmentationError(f"The label values {_listed(values)} fit {' and '.join(c.name for c in ordered)}: say "
                            f"which one it is ({', '.join(c.key for c in ordered)}).", anchor="label-conventions")


def _knows(convention: Convention, values: list[int]) -> bool:
    """Tell whether a convention has all values, and a disc (with a level, if the tool names levels) among them."""
    if any(v not in convention.table for v in values):
        return False
    found = [convention.table[v][1] for v in values]
    return any(s is not None and (s.kind == "disc" or (s == DISC and convention.levels == "counted")) for s in found)


def _in_order(image: Image, values: list[int], convention: Convention) -> bool:
    """Tell whether the levels that a convention gives ascend in the image."""
    ranks = {}
    for value in values:
        structure = convention.table[value][1]
        if structure is None or structure.kind not in ("disc", "vertebra"):
            continue
        level = structure.value - (11 if structure.kind == "disc" else 31)
        ranks[value] = 2 * level + (1 if structure.kind == "vertebra" else 0)
    if convention.key == "spineps-instances":
        # Numbers rise downward; disc 100 + v lies below vertebra v.
        ranks = {v: -2 * (v % 100) - (v > 100) for v in values if v < 26 or 100 < v < 200}
    if len(ranks) < 2:
        return True
    order = sorted(ranks, key=ranks.__getitem__)
    rising = np.diff(_heights(image, order)) > 0
    distinct = np.diff([ranks[v] for v in order]) > 0
    return bool(np.mean(rising[distinct]) >= 0.9) if distinct.any() else True


def _decide_spineps(fits: list[Convention], values: list[int]) -> list[Convention]:
    """Tell labelled from unlabelled SPINEPS masks: without labels the uppermost vertebra is number 1."""
    keys = {c.key for c in fits}
    if not {"spineps", "spineps-instances"} <= keys:
        return fits
    vertebrae = [v for v in values if v <= 25]
    if vertebrae and min(vertebrae) > 1:
        return [c for c in fits if c.key != "spineps-instances"]
    if vertebrae and max(vertebrae) < 20:
        return [c for c in fits if c.key != "spineps"]
    return fits


def structure_for_name(name: str) -> Structure | None:
    """Return the structure that a segment's name means, or None.

    Understands this project's names and the usual spellings: ``L4/5``, ``L4-L5 disc``, ``disc_L4_L5``, ``IVD L5/S1``,
    ``vertebrae_L3``, ``sacrum``, ``spinal canal``.
    """
    if name in BY_NAME:
        return BY_NAME[name]
    text = re.sub(r"[\s_]+", " ", name.strip().lower())
    pair = re.search(r"\b([tl])(?:h)?(\d{1,2}) ?[-/–]? ?([tls]?)h?(\d{0,2})\b", text)
    if pair and (pair.group(4) or pair.group(3)) and not text.startswith("vert"):
        upper = f"{pair.group(1).upper()}{int(pair.group(2))}"
        return next((s for s in BY_VALUE.values() if s.kind == "disc" and s.name.split("-")[0] == upper
                     and _same_level(s.name.split("-")[1], pair.group(3), pair.group(4))), None)
    single = re.fullmatch(r"(?:vertebrae? |vertebral body )?([tl])h?(\d{1,2})(?: vertebra)?", text)
    if single:
        return BY_NAME.get(f"{single.group(1).upper()}{int(single.group(2))}")
    words = {"sacrum": SACRUM, "s1": SACRUM, "spinal canal": CANAL, "canal": CANAL, "vertebra": VERTEBRA,
             "vertebrae": VERTEBRA, "disc": DISC, "discs": DISC, "intervertebral disc": DISC,
             "intervertebral discs": DISC}
    return words.get(text)


def _same_level(lower: str, letter: str, number: str) -> bool:
    """Tell whether ``S1`` or ``L5`` is what a second half such as ``s``, ``s1``, ``5`` means."""
    if number and lower[1:] != str(int(number)):
        return False
    return not letter or lower[0].lower() == letter
