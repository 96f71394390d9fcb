"""One design for each disc level, with the contrasts that all of them share."""

from collections.abc import Sequence
from dataclasses import dataclass

from DiscRelaxometryLib.errors import DesignError

from .contrasts import Contrast, build_contrasts
from .design import Design, NotEstimable, build_design, is_level_wise
from .formula import Formula, parse_formula


@dataclass(frozen=True)
class LevelDesigns:
    """Designs and contrasts of an analysis."""

    #: By level; one and the same where no term is level-wise.
    designs: dict[str, Design]
    contrasts: list[Contrast]
    #: Level -> why it cannot be estimated.
    left_out: dict[str, str]

    @property
    def remarks(self) -> list[str]:
        """What to say before computing, each once."""
        said = [f"{level} was left out of the analysis: {why}" for level, why in self.left_out.items()]
        return list(dict.fromkeys([*said, *(w for d in self.designs.values() for w in d.warnings)]))


def build_level_designs(formula: str | Formula, participants, levels: Sequence[str], contrasts=None, *,
                        covariates: Sequence[str] = (), ranks: bool = False,
                        missing: str = "error") -> LevelDesigns:
    """Return the designs of the levels, and the contrasts; a level that cannot be estimated is left out, and named.

    Parameters
    ----------
    formula : str or Formula
    participants : pandas.DataFrame
    levels : sequence of str
        Such as ``("L4-L5", "L5-S1")``.
    contrasts : optional
        See :func:`build_contrasts`.
    covariates : sequence of str
        Variables that are maps; they must be terms of their own, and stand behind the columns of the designs.
    ranks, missing
        See :func:`build_design`.

    Raises
    ------
    DesignError
        If no level can be estimated, levels have other columns, or the contrasts are not of this design.
    """
    formula = parse_formula(formula) if isinstance(formula, str) else formula
    formula, extra = formula.without(covariates), len(covariates)
    designs, left_out = {}, {}
    wise = any(is_level_wise(n, participants.columns) for n in formula.names)
    for level in levels if wise else [""]:
        try:
            designs[level] = build_design(formula, participants, level=level, ranks=ranks, missing=missing,
                                          extra_columns=extra)
        except NotEstimable as error:
            if not wise:
                raise
            left_out[level] = error.message
    if not designs:
        raise NotEstimable(f"No level can be estimated: {' '.join(left_out.values())}", anchor="design")
    first = next(iter(designs.values()))
    for design in designs.values():
        if design.columns != first.columns:
            raise DesignError(f"The design has other columns at {design.level} ({', '.join(design.columns)}) than at "
                              f"{first.level} ({', '.join(first.columns)}): a group has nobody at one of the levels. "
                              "Analyze these levels apart (--levels), or use the number instead of C().",
                              anchor="design")
    listed = build_contrasts(contrasts, first, tuple(covariates))
    return LevelDesigns(designs if wise else dict.fromkeys(levels, first), listed, left_out)
