"""Settings of a study run: one plain, picklable record, checked when made."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from DiscRelaxometryLib.echo import KINDS
from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.grades import ESTIMATED, EXPECTED
from DiscRelaxometryLib.labels import LUMBAR_LEVELS
from DiscStatsLib.settings import CHOICES as ANALYSIS_CHOICES
from DiscStatsLib.settings import AnalysisSettings

from .rules import parse_rule
from .study import level_columns
from .visits import EVERY

#: Maps that can be analyzed, and what they need.
MAPS = (*KINDS, "nT2w")
#: Values of the settings that are a choice.
CHOICES = {
    "segmentation": ("auto", "cnn", "existing"),
    "engine": ("auto", "onnx", "torch"),
    "align": ("auto", "on", "off"),
    "t1rho_model": ("mono2", "mono3"),
    "t2_model": ("mono2", "mono3", "epg"),
    "estimator": ("nlls", "loglinear", "rician"),
    "registration": ("coordinates", "elastix", "brainsfit"),
    **{name: ANALYSIS_CHOICES[name] for name in ("missing", "errors", "standard_errors")},
    "change": ("", "absolute", "per-year", "percent"),
    "on_error": ("skip", "stop"),
    "require_review": ("none", "flagged", "all"),
}


@dataclass(frozen=True)
class Settings:
    """Parameters of a run."""

    #: Model of the group analysis, such as ``pfirrmann + age + C(sex)``; with a left side, only that map is analyzed.
    #: Empty means no group statistics. A variable given per level (columns ``pfirrmann_L4L5``) is used level by level.
    formula: str = ""
    #: Term or contrast of interest; empty means the formula's first term.
    contrast: str = ""
    #: Maps to analyze, such as ``T1rho,T2``; empty means all that people have.
    maps: tuple[str, ...] = ()
    #: Name of the analysis, used as folder name.
    analysis: str = "main"
    #: ``existing`` uses the ``_dseg`` images in ``anat``, ``cnn`` the network, ``auto`` an image where there is one.
    segmentation: str = "auto"
    #: What runs the network.
    engine: str = "auto"
    #: Whether echoes are aligned to the first; auto aligns those that moved.
    align: str = "auto"
    #: Relaxation model.
    t1rho_model: str = "mono2"
    #: Relaxation model.
    t2_model: str = "mono2"
    #: How the model is fitted; all but nlls need mono2.
    estimator: str = "nlls"
    #: How discs are matched with the atlas.
    registration: str = "coordinates"
    #: Use the ``shipped`` atlas, or ``build`` one from the people of the study.
    template: str = "shipped"
    #: Disc levels to analyze; the word ``pooled`` among them (or alone, for all levels) is short for ``--pooled``.
    levels: tuple[str, ...] = LUMBAR_LEVELS
    #: Analyze all levels as one disc: each disc is an observation, each person an exchangeability block.
    pooled: bool = False
    #: Permutations of the group analysis.
    permutations: int = AnalysisSettings.n_permutations
    #: Seed of the permutations, recorded.
    seed: int = AnalysisSettings.seed
    #: Rule on a column of the participants table, such as ``field_T == 1.5``: the analysis is repeated on the people it
    #: holds for, and shown beside the analysis of everyone. Empty means none.
    sensitivity: str = ""
    #: Column, or rule such as ``odi <= 40``, whose groups' average maps stand side by side in the report; empty means
    #: the factor that is tested, if one is.
    groups: str = ""
    #: Analyze voxels that at least half of the people have (``available``), or everyone (``complete``).
    missing: str = AnalysisSettings.missing
    #: What permutation assumes: people can change places (``exchangeable``), each error is symmetric about 0 and its
    #: sign is flipped (``symmetric``), or the latter where the spread depends on the tested variable (``auto``).
    errors: str = AnalysisSettings.errors
    #: ``classical``, or ``hc3``, which hold even where the residual spread differs between people.
    standard_errors: str = AnalysisSettings.standard_errors
    #: Column of the participants table, such as the scanner, whose groups have variances of their own; empty means one
    #: variance.
    variance_groups: str = AnalysisSettings.variance_groups
    #: Family-wise error level of the tables.
    alpha: float = 0.05
    #: BIDS session, such as ``ses-01``; ``all`` makes every visit an observation of its participant (variables
    #: ``session`` and ``years``).
    session: str = ""
    #: With ``session`` all: analyze each participant's change from the first to the last visit, in the map's unit
    #: (``absolute``), per year (``per-year``), or in percent of the first (``percent``); empty analyzes every visit.
    change: str = ""
    #: What to do when a participant fails: ``skip`` and go on with the others, or ``stop``.
    on_error: str = "skip"
    #: Discs that must be reviewed before group steps are run.
    require_review: str = "none"
    #: Threads of the network, and levels registered at a time; no result depends on it.
    threads: int = 1

    def __post_init__(self):
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise StudyError(f"Setting '{name}' is '{value}'; choose one of {', '.join(c for c in choices if c)}.")
        for name in ("maps", "levels"):
            value = getattr(self, name)
            object.__setattr__(self, name,
                               tuple(v.strip() for v in value.split(",") if v.strip()) if isinstance(value, str)
                               else tuple(value))
        if "pooled" in self.levels:
            object.__setattr__(self, "pooled", True)
            object.__setattr__(self, "levels", tuple(v for v in self.levels if v != "pooled") or LUMBAR_LEVELS)
        unknown = [m for m in self.maps if m not in MAPS] + [v for v in self.levels if v not in LUMBAR_LEVELS]
        if unknown:
            raise StudyError(f"'{unknown[0]}' is not known: maps are {', '.join(MAPS)}, levels "
                             f"{', '.join(LUMBAR_LEVELS)}.")
        if not self.levels:
            raise StudyError(f"Settings: no level was given; levels are {', '.join(LUMBAR_LEVELS)}.")
        if self.permutations < 100 or not 0 < self.alpha < 1:
            raise StudyError("Settings: permutations must be at least 100, and alpha between 0 and 1.")
        if self.variance_groups and self.standard_errors == "hc3":
            raise StudyError("Settings: variance groups and standard errors 'hc3' both allow for unequal spread: "
                             "choose one.")
        if self.change and (self.session != EVERY or self.pooled):
            raise StudyError("Settings: 'change' is between visits, at each level by itself: use it with --session all "
                             "and without pooled levels.")
        if self.sensitivity:
            parse_rule(self.sensitivity)
        if self.threads < 1:
            raise StudyError("Settings: at least one thread is needed.")
        if not self.analysis.replace("-", "").replace("_", "").isalnum():
            raise StudyError(f"Analysis name '{self.analysis}': use letters, digits, - and _ only.")

    @property
    def model(self):
        """The formula, parsed (:class:`DiscStatsLib.design.Formula`); None where there is none."""
        from DiscStatsLib.design import parse_formula

        return parse_formula(self.formula) if self.formula else None

    @property
    def pooled_model(self):
        """The formula of the pooled analysis: levels differ whatever the person, so that the level is in it."""
        from DiscStatsLib.design import parse_formula

        own = "level" in self.variables or len(self.levels) == 1
        return parse_formula(f"map ~ {self.model.terms}{'' if own else ' + C(level)'}")

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables of the formula."""
        return self.model.names if self.formula else ()

    @property
    def compared(self) -> str:
        """Column or rule of the groups whose average maps are made: those asked for, else the factor that is tested."""
        if self.groups or not self.formula:
            return self.groups
        term, variables = self.model.first_term, self.model.variables_of(self.model.first_term)
        return variables[0] if len(variables) == 1 and term.startswith("C(") else ""

    @property
    def estimated(self) -> bool:
        """Whether the formula names grades that the program estimates."""
        return bool({ESTIMATED, EXPECTED} & set(self.variables))

    def measured_besides(self, columns: Sequence[str] = ()) -> list[str]:
        """Return the formula's variables that are measures of discs, without those that `columns` have themselves."""
        from DiscRelaxometryLib.measure import DISC_COLUMNS

        known, levels = {c.name for c in DISC_COLUMNS}, level_columns(columns)
        return [n for n in self.variables if n in known and n not in columns and n not in levels]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the participants table that the analysis reads; a pooled one has levels of its own."""
        names = (*self.variables, *([self.variance_groups] if self.variance_groups else []))
        return tuple(dict.fromkeys(n for n in names if not (self.pooled and n == "level")))

    @property
    def tested(self) -> str:
        """The contrast, by default the formula's first term."""
        return self.contrast or (self.model.first_term if self.formula else "")

    def pick(self, *names: str) -> dict:
        """Return some settings as a dict: the parameters of a step."""
        return {n: getattr(self, n) for n in names}

    def to_dict(self) -> dict:
        """Return all settings as plain values."""
        return asdict(self)

    def statistics(self) -> AnalysisSettings:
        """Return how the maps are analyzed; what a study cannot set has the default of every analysis."""
        return AnalysisSettings(n_permutations=self.permutations, workers=self.threads, **self.pick(
            "seed", "missing", "errors", "standard_errors", "variance_groups"))


def make_settings(**values) -> Settings:
    """Return Settings; a name that is no setting gives a sentence that lists them."""
    known = [f.name for f in fields(Settings)]
    unknown = [n for n in values if n not in known]
    if unknown:
        raise StudyError(f"Unknown setting {', '.join(unknown)}; settings are {', '.join(known)}.")
    return Settings(**{n: v for n, v in values.items() if v is not None})
