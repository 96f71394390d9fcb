"""The methods section: what was done, in words that can go into a paper, with versions and citations."""

from dataclasses import fields

from DiscRelaxometryLib.echo import KINDS
from DiscRelaxometryLib.grades import ESTIMATED, EXPECTED, load_grader
from DiscRelaxometryLib.tables import Column, Table

from ..engine import GroupContext, versions
from ..folder import Settings
from .page import Paragraph, Section, TableBlock
from .review import review_text

CITATIONS = {
    "voxel-wise relaxometry of discs":
        "Iriondo C, Pedoia V, Majumdar S. Lumbar intervertebral disc characterization through quantitative MRI "
        "analysis: An automatic voxel-based relaxometry approach. Magn Reson Med 2020;84(3):1376-1390. "
        "doi:10.1002/mrm.28210",
    "permutation":
        "Winkler AM, Ridgway GR, Webster MA, Smith SM, Nichols TE. Permutation inference for the general linear model. "
        "NeuroImage 2014;92:381-397. doi:10.1016/j.neuroimage.2014.01.060",
    "TFCE":
        "Smith SM, Nichols TE. Threshold-free cluster enhancement: addressing problems of smoothing, threshold "
        "dependence and localisation in cluster inference. NeuroImage 2009;44:83-98. "
        "doi:10.1016/j.neuroimage.2008.03.061",
    "mixed models":
        "Laird NM, Ware JH. Random-effects models for longitudinal data. Biometrics 1982;38:963-974. Fitted by "
        "statsmodels: Seabold S, Perktold J. Proc 9th Python in Science Conf 2010.",
    "p values":
        "Phipson B, Smyth GK. Permutation P-values should never be zero. Stat Appl Genet Mol Biol 2010;9:39. "
        "doi:10.2202/1544-6115.1585",
    "agreement":
        "Shrout PE, Fleiss JL. Intraclass correlations: uses in assessing rater reliability. Psychol Bull "
        "1979;86(2):420-428. Bland JM, Altman DG. Statistical methods for assessing agreement between two methods of "
        "clinical measurement. Lancet 1986;327:307-310.",
    "grades":
        "Pfirrmann CWA, Metzdorf A, Zanetti M, Hodler J, Boos N. Magnetic resonance classification of lumbar "
        "intervertebral disc degeneration. Spine 2001;26(17):1873-1878.",
    "SPIDER":
        "van der Graaf JW, van Hooff ML, Buckens CFM, et al. Lumbar spine segmentation in MR images: a dataset and a "
        "public benchmark. Sci Data 2024;11:264. doi:10.1038/s41597-024-03090-w",
}


def reported() -> tuple[str, ...]:
    """Return the settings that the page lists: all that a result depends on."""
    return tuple(f.name for f in fields(Settings) if f.name not in ("threads", "on_error", "require_review"))


def methods(context: GroupContext, analysis: str) -> Section:
    """Return the methods section."""
    section = Section("Methods", "methods", lead="Written from the settings of this run; check it before you use it.")
    section.add(*(Paragraph(text) for text in _paragraphs(context, analysis)))
    rows = [{"topic": topic, "reference": text} for topic, text in _cited(context, analysis).items()]
    section.add(TableBlock(Table("citations", [Column("topic"), Column("reference")], rows), "References"))
    found = versions()
    section.add(TableBlock(Table("versions", [Column("software"), Column("version")],
                                 [{"software": k, "version": v} for k, v in found.items()]), "Versions"))
    settings = [{"setting": k, "value": ", ".join(v) if isinstance(v, tuple) else str(v)}
                for k, v in context.settings.to_dict().items() if v not in ("", ()) and k in reported()]
    section.add(TableBlock(Table("settings", [Column("setting"), Column("value")], settings), "Settings"))
    return section


def _paragraphs(context: GroupContext, analysis: str) -> list[str]:
    settings, people = context.settings, context.everyone
    sources = {r["segment"].facts.get("source") for r in people.values() if "segment" in r}
    texts = []
    if "cnn" in sources:
        texts.append("Discs, vertebrae and spinal canal were segmented by the shipped convolutional network; discs "
                     "were separated and named upward from L5-S1.")
    if "existing" in sources:
        texts.append("Existing segmentations of the study were used.")
    texts.append(review_text(context))
    texts += [_relaxation_text(context, kind) for kind in KINDS if any(f"maps-{kind}" in r for r in people.values())]
    if any("normalize" in r for r in people.values()):
        texts.append("T2-weighted signal was divided by the median signal of cerebrospinal fluid in the spinal canal "
                     "(nT2w). This is a relative signal, not a relaxation time.")
    if context.output_of("tables", "grades.tsv"):
        texts.append(_grades_text(settings))
    if any("atlas" in r for r in people.values()):
        how = {"coordinates": "smooth normalized coordinates inside each disc", "elastix": "Elastix (rigid, affine, "
               "B-spline) on signed distance maps", "brainsfit": "BRAINSFit on signed distance maps"}
        which = "a template built from these people" if settings.template == "build" else "the shipped atlas"
        texts.append(f"Each disc was brought to {which} by {how[settings.registration]}; the signal inside the disc "
                     "had no influence. Maps were interpolated once (linear); missing voxels stayed missing.")
    if analysis and f"analysis-{analysis}" in context.records:
        facts = context.records[f"analysis-{analysis}"].facts
        maps = ", ".join(f"{' and '.join(v['maps'])} ({people_text(v)})" for v in facts.values())
        term = settings.tested
        change = {"": "", "absolute": "the change from the first to the last visit in ",
                  "per-year": "the change per year between the first and the last visit in ",
                  "percent": "the change, in percent of the first visit, to the last one in "}[settings.change]
        texts.append(f"At each atlas voxel a general linear model ({settings.formula}) was fitted to {change}{maps}; "
                     f"the term tested was {term}, two-sided.{_left_out_text(facts)} "
                     f"{_errors_text(settings, facts)} Family-wise error was controlled by the maximum "
                     f"statistic (seed {settings.seed}); p = (b + 1) / (n + 1). "
                     "Clusters (uncorrected p < 0.001) have corrected p of extent and mass; threshold-free cluster "
                     "enhancement was computed too.")
        if settings.sensitivity:
            texts.append(f"The analysis was repeated on the people for whom {settings.sensitivity}.")
    if "models" in context.records:
        texts.append("Region means of the discs were analyzed by linear mixed models (restricted maximum likelihood) "
                     "with the same terms, the disc level as a factor, and a random intercept of the person.")
    return texts


def _grades_text(settings: Settings) -> str:
    """Say where estimated grades come from, and where they are used."""
    used = [v for v in settings.variables if v in (ESTIMATED, EXPECTED)]
    use = f"enter the model as {' and '.join(used)}, in place of a reader's" if used else "enter no model"
    return (f"Pfirrmann grades were estimated from the T2-weighted signal by a network ({load_grader().name}, trained "
            f"on one reader's grades of SPIDER); no person read them. These estimates {use}.")


def people_text(facts: dict) -> str:
    """Return how many people were fitted, by level where the numbers differ: ``n = 30``, ``n = 28 at L4-L5, ...``."""
    counts = facts["levels"]
    if facts.get("discs"):
        return f"n = {facts['n']} with {facts['discs']} discs"
    if len(set(counts.values())) == 1:
        return f"n = {facts['n']}"
    return "n = " + ", ".join(f"{n} at {level}" for level, n in counts.items())


def _left_out_text(facts: dict) -> str:
    found = {(where, tuple(ids)) for v in facts.values() for where, ids in v["provenance"]["left_out"].items()}
    without = {(where, tuple(ids)) for v in facts.values() for where, ids in v["provenance"]["without_map"].items()}
    return "".join([*(f" Left out{'' if where == 'all levels' else f' at {where}'} for a missing value of the model's "
                      f"variables: {', '.join(ids)}." for where, ids in sorted(found)),
                    *(f" Without a disc map at {where}: {', '.join(ids)}." for where, ids in sorted(without))])


def _errors_text(settings, facts: dict) -> str:
    """Say how the null distribution was made, for which maps, and why."""
    from DiscStatsLib.analysis import DEPENDS

    made = [(" and ".join(v["maps"]) + (f" ({c['name']})" if len(v["provenance"]["contrasts"]) > 1 else ""), c)
            for v in facts.values() for c in v["provenance"]["contrasts"]]
    flipped = [maps for maps, c in made if c.get("errors") == "symmetric"]
    how = {"exchangeable": "permuted (Freedman-Lane)", "symmetric": "given random signs (errors symmetric about 0)"}
    text = "; ".join(f"residuals of the reduced model for {maps} were {how[c.get('errors', 'exchangeable')]}, "
                     f"{c['permutation']}" for maps, c in made)
    text = text[:1].upper() + text[1:] + "."
    text += _blocks_text(settings, facts)
    if settings.variance_groups:
        text += (f" Each group of {settings.variance_groups} had a variance of its own (G statistic, compared by its "
                 "p); " + ("signs were flipped on residuals of a fit weighted by these variances." if flipped else
                           "people changed places within their group."))
    elif settings.errors == "auto":
        where = "so for " + ", ".join(flipped) if flipped else "nowhere here"
        text += (" By the rule set beforehand, signs are flipped where the residual spread depends on the tested "
                 f"variable (test at p <= {DEPENDS:g}): {where}.")
    if settings.standard_errors == "hc3":
        text += " Standard errors are heteroscedasticity-consistent (HC3)."
    return text


def _blocks_text(settings: Settings, facts: dict) -> str:
    """Say how the discs, or the visits, of one person were treated."""
    modes = {c["name"]: "signs" if c["errors"] == "symmetric" else c["exchange"]
             for v in facts.values() for c in v["provenance"]["contrasts"] if c["exchange"]}
    if not modes:
        return ""
    what, alike = ("discs", "levels") if settings.pooled else ("visits", "visits")
    said = {"within": f"was tested within persons (person means taken out; {what} of a person change places, which "
            "assumes that their errors are alike but for the person)",
            "whole": f"was tested between persons (all {what} of a person change places together with those of another "
            f"one who has the same {alike})",
            "signs": f"was tested by changing the signs of all {what} of a person together"}
    how = ("All levels were carried into one mean disc by disc coordinates, each disc" if settings.pooled else
           "Each visit was")
    return (f" {how} an observation and each person an exchangeability block: "
            + "; ".join(f"{name} {said[mode]}" for name, mode in modes.items()) + ".")


def _relaxation_text(context: GroupContext, kind: str) -> str:
    records = [r[f"maps-{kind}"] for r in context.everyone.values() if f"maps-{kind}" in r]
    times = sorted({tuple(r.facts.get("times_ms", ())) for r in records})
    listed = "; ".join("/".join(f"{t:g}" for t in some) for some in times[:3])
    listed += " and others" if len(times) > 3 else ""
    model = records[0].facts.get("model", "mono2")
    words = {"mono2": "a mono-exponential (two parameters)",
             "mono3": "a mono-exponential with offset (three parameters)",
             "epg": "an extended-phase-graph model with B1"}[model]
    what = "spin-lock times" if kind == "T1rho" else "echo times"
    return (f"{kind} maps: {words} was fitted voxel by voxel ({context.settings.estimator}; {what} {listed} ms) after "
            "rigid alignment of the echoes where motion was found. Failed fits are missing, not zero.")


def _cited(context: GroupContext, analysis: str) -> dict[str, str]:
    topics = ["voxel-wise relaxometry of discs"]
    if analysis:
        topics += ["permutation", "p values", "TFCE"]
    if "models" in context.records:
        topics.append("mixed models")
    if context.output_of("tables", "agreement.tsv"):
        topics.append("agreement")
    estimated = bool(context.output_of("tables", "grades.tsv"))
    if estimated or "pfirrmann" in context.settings.formula:
        topics.append("grades")
    if estimated or "SPIDER" in str(context.study.description).upper():
        topics.append("SPIDER")
    return {t: CITATIONS[t] for t in topics}
