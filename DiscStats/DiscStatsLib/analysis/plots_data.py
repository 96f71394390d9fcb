"""Numbers for a scatter or box plot: the map at a voxel, cluster, region or level against a variable of the design."""

from dataclasses import dataclass, field

import numpy as np

from DiscRelaxometryLib.errors import DesignError

from ..permutation import level_name
from .analyze import AnalysisResult


@dataclass(frozen=True)
class PlotData:
    """One point per observation."""

    #: One of ``scatter``, ``box``. Box where the variable is a group.
    kind: str
    #: Shape (n,). Variable (group number for boxes) and mean of the map over the place; y is as measured.
    x: np.ndarray
    y: np.ndarray
    #: Shape (n,). y without the fitted effects of the other columns, at their means: what the contrast is tested on.
    adjusted: np.ndarray
    ids: list[str]
    #: Names of the groups, in the order of their numbers.
    groups: list[str] = field(default_factory=list)
    x_title: str = ""
    y_title: str = ""
    title: str = ""
    #: Shape (2, 2). Two points of the fitted line through the adjusted values.
    line: np.ndarray | None = None
    #: Effect with confidence limits, r and p of the place; post hoc where the place was chosen by the same data.
    text: str = ""

    def quartiles(self) -> np.ndarray:
        """Return minimum, quartiles and maximum of the adjusted values of each group, shape (groups, 5)."""
        return np.array([np.percentile(self.adjusted[self.x == g], [0, 25, 50, 75, 100])
                         for g in range(len(self.groups))])


def place_voxels(result: AnalysisResult, *, quantity: str | None = None, voxel=None, position=None,
                 cluster: int | None = None, contrast: str | None = None, region: int | None = None,
                 level: int | None = None):
    """Return (voxel indices in the mask, words) of a voxel (i, j, k), LPS position, cluster, region or level.

    DesignError if the place has no analyzed voxel.
    """
    data = result.data
    if position is not None:
        voxel = np.round(data.geometry.world_to_index(position)).astype(int)
    if voxel is not None:
        at = np.flatnonzero((data.ijk == np.asarray(voxel)).all(axis=1))
        words = f"voxel {tuple(int(v) for v in voxel)}"
    elif cluster is not None:
        name = f"{quantity or next(iter(data.values))}_{contrast or result.contrasts[0].name}_cluster"
        if name not in result.maps:
            raise DesignError("There is no cluster map: run the analysis with the correction 'cluster'.")
        at = np.flatnonzero(result.maps[name].array[data.inside] == cluster)
        words = f"cluster {cluster}"
    else:
        chosen = np.ones(data.n_voxels, bool)
        words = "all voxels"
        if region is not None:
            if data.regions is None:
                raise DesignError("The analysis was run without a region image.")
            chosen &= data.regions == region
            words = f"region {region}"
        if level is not None:
            chosen &= data.levels == level
            words = level_name(level) if region is None else f"{words}, {level_name(level)}"
        at = np.flatnonzero(chosen)
    if not len(at):
        raise DesignError(f"There is no analyzed voxel at {words}: choose a place inside the discs of the atlas.")
    return at, words


def plot_data(result: AnalysisResult, quantity: str | None = None, contrast: str | None = None, **place) -> PlotData:
    """Return the points of a plot of a place against the variable of a contrast.

    Parameters
    ----------
    result : AnalysisResult
    quantity : str, optional
        Default: the first.
    contrast : str, optional
        Name of a contrast (default: the first); its column, or the groups of its term, is the x axis.
    place
        ``voxel=(i, j, k)``, ``position=LPS mm``, ``cluster=N``, ``region=value``, ``level=value``; a cluster or region
        that spans levels is read at the level that holds most of it.
    """
    from ..permutation import estimates, fit, partition

    quantity = quantity or next(iter(result.data.values))
    if quantity not in result.data.values:
        raise DesignError(f"'{quantity}' was not analyzed; there are {', '.join(result.data.values)}.")
    named = {c.name: c for c in result.contrasts}
    if contrast is not None and contrast not in named:
        raise DesignError(f"There is no contrast '{contrast}'; there are {', '.join(named)}.")
    chosen = named[contrast] if contrast else result.contrasts[0]
    at, words = place_voxels(result, quantity=quantity, contrast=chosen.name, **place)
    levels, counts = np.unique(result.data.levels[at], return_counts=True)
    level = int(levels[np.argmax(counts)])
    at = at[result.data.levels[at] == level]
    design = result.designs[level]
    values = result.data.values[quantity].at(design.rows, at)
    present = np.isfinite(values).any(axis=1)
    y = np.array([np.nanmean(v) for v in values[present]])
    matrix = design.matrix[present]
    weights = chosen.weights[:, : matrix.shape[1]]
    if len(y) <= matrix.shape[1]:
        raise DesignError(f"Only {len(y)} people have a value at {words}: too few for the model.")
    b = estimates(matrix, y[:, None])[:, 0]
    tested = np.any(weights != 0, axis=0)
    others = matrix[:, ~tested]
    adjusted = y - (others - others.mean(axis=0)) @ b[~tested]
    x, groups, title, line = _axis(matrix, design, tested, adjusted, b)
    summary = fit(partition(matrix, weights), y[:, None], chosen.kind)
    ids = [result.data.ids[r] for r in design.rows[present]]
    return PlotData("box" if groups else "scatter", x, y, adjusted, ids, groups, title, quantity,
                    f"{quantity} at {words}, {level_name(level)}" if "level" not in place else f"{quantity} at {words}",
                    line, _summary(summary, chosen.kind, len(y)))


def _axis(matrix, design, tested, adjusted, b):
    """Return x, group names, axis title and fitted line of the tested columns."""
    columns = np.flatnonzero(tested)
    names = [design.columns[c] for c in columns]
    if all("[T." in n for n in names) and all(set(np.unique(matrix[:, c])) <= {0.0, 1.0} for c in columns):
        x = np.zeros(len(matrix))
        for number, column in enumerate(columns, start=1):
            x[matrix[:, column] == 1] = number
        return x, ["reference"] + [n.split("[T.")[1].rstrip("]") for n in names], names[0].split("[")[0], None
    if len(columns) == 1 and names[0] == "Intercept":
        return np.zeros(len(matrix)), ["all"], "", None
    # Several numeric columns: their fitted combination is the axis.
    x = matrix[:, columns[0]] if len(columns) == 1 else matrix[:, columns] @ b[columns]
    slope = b[columns[0]] if len(columns) == 1 else 1.0
    ends = np.array([x.min(), x.max()])
    line = np.column_stack([ends, adjusted.mean() + slope * (ends - x.mean())])
    return x, [], " + ".join(names), line


def _summary(fitted, kind: str, n: int) -> str:
    p = f"p = {fitted.p[0]:.3g} (uncorrected)"
    if kind == "F":
        return f"F = {fitted.stat[0]:.3g}, partial eta squared {fitted.size[0]:.2f}, {p}, n = {n}"
    return (f"effect {fitted.effect[0]:.3g} [{fitted.ci_low[0]:.3g}, {fitted.ci_high[0]:.3g}], "
            f"partial r = {fitted.r[0]:.2f}, {p}, n = {n}")
