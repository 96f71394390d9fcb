"""Pictures of volumes for the report: people's segmentations and maps, and maps on the atlas."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.atomic import atomic_path
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import BY_VALUE, disc_value

from .figures import new_figure

_GREY_BACK = "#0d1218"
#: Colors of discs on a grey picture: alternating, told apart with every color vision.
_BRIGHT = ((0, 158, 255), (255, 176, 0))


@dataclass(frozen=True)
class Look:
    """How a map is shown: color table, range, and the legend's text."""

    colors: str
    low: float
    high: float
    legend: str


def sagittal_slice(image: Image, labels: Image) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the sagittal slice with most disc, its labels, and the aspect (height of a pixel over its width).

    Rows run from head to foot, columns from anterior to posterior.
    """
    image, labels = image.upright(), labels.upright()
    discs = (labels.array >= 11) & (labels.array <= 28)
    column = int(np.argmax(discs.sum(axis=(0, 1)))) if discs.any() else labels.array.shape[2] // 2
    _, sj, sk = image.geometry.spacing
    return image.array[::-1, :, column], labels.array[::-1, :, column], sk / sj


def person_tile(image: Image, labels: Image, width: int = 240) -> np.ndarray:
    """Return an RGB picture (uint8) of a person's mid-sagittal slice with the labels as colored overlay.

    Parameters
    ----------
    image, labels : Image
        On the same grid.
    width : int
        Pixels.
    """
    grey, values, aspect = sagittal_slice(image, labels)
    finite = grey[np.isfinite(grey)]
    low, high = np.percentile(finite, (1, 99.5)) if finite.size else (0, 1)
    scaled = np.clip((np.nan_to_num(grey) - low) / max(high - low, 1e-9), 0, 1)
    rgb = np.repeat((255 * scaled)[..., None], 3, axis=2)
    for value in np.unique(values):
        structure = BY_VALUE.get(int(value))
        if structure is None or structure.kind != "disc":
            continue
        inside = values == value
        rgb[inside] = 0.45 * rgb[inside] + 0.55 * np.array(_BRIGHT[structure.value % 2])
    height = max(1, round(width * aspect * rgb.shape[0] / rgb.shape[1]))
    rows = np.minimum((np.arange(height) + 0.5) * rgb.shape[0] / height, rgb.shape[0] - 1).astype(int)
    columns = np.minimum((np.arange(width) + 0.5) * rgb.shape[1] / width, rgb.shape[1] - 1).astype(int)
    return rgb[rows][:, columns].round().astype(np.uint8)


def disc_tile(image: Image, labels: Image, value: int, margin: float = 12.0, width: int = 180) -> np.ndarray:
    """Return an RGB picture (uint8) of a disc's widest sagittal slice, `margin` mm around it, with the labels."""
    image, labels = image.upright(), labels.upright()
    disc = labels.array == value
    place = np.argwhere(disc)
    column = int(np.argmax(disc.sum(axis=(0, 1))))
    more = np.ceil(margin / np.array(labels.geometry.spacing[::-1])).astype(int)
    low, high = np.maximum(place.min(axis=0) - more, 0), place.max(axis=0) + more + 1
    box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(column, column + 1))
    size = labels.array[box].shape[::-1]
    cut = Geometry(size, labels.geometry.spacing, labels.geometry.index_to_world((column, low[1], low[0])),
                   labels.geometry.direction)
    return person_tile(Image(image.array[box], cut), Image(labels.array[box], cut), width)


def write_picture(rgb: np.ndarray, path: Path) -> Path:
    """Write an RGB picture as PNG, atomically."""
    from PIL import Image as Picture

    with atomic_path(path) as temporary:
        Picture.fromarray(rgb).save(temporary, format="PNG", optimize=True)
    return Path(path)


def montage(tiles: Sequence[tuple[str, np.ndarray, bool]], columns: int = 8):
    """Return a figure of pictures (title, RGB array, flagged); flagged ones have an orange frame and title."""
    from matplotlib.patches import Rectangle

    columns, side, height, places = min(columns, max(len(tiles), 4)), 1.39, 0.0, []
    for start in range(0, len(tiles), columns):  # a row is as high as its highest picture
        row = tiles[start: start + columns]
        places += [(1.45 * n + 0.03, height + 0.2, side * rgb.shape[0] / rgb.shape[1])
                   for n, (_, rgb, _) in enumerate(row)]
        height = max(top + high for _, top, high in places[start:]) + 0.08
    figure, ((axis,),) = new_figure(1.45 * columns, height, margins=(0, 0, 0, 0))
    for (title, rgb, flagged), (left, top, high) in zip(tiles, places):
        axis.imshow(rgb, interpolation="nearest", extent=(left, left + side, top + high, top))
        axis.text(left + side / 2, top - 0.04, title + (" \u2691" if flagged else ""), fontsize=7.5, ha="center",
                  color="#b35806" if flagged else "#1b2733", weight="bold" if flagged else "normal")
        if flagged:
            axis.add_patch(Rectangle((left, top), side, high, fill=False, color="#d95f02", linewidth=2))
    axis.set(xlim=(0, 1.45 * columns), ylim=(height, 0), aspect="auto")
    axis.set_axis_off()
    return figure


def map_row(images: Mapping[str, tuple[Image, Image, Look]]):
    """Return a figure of one person's maps, cropped to the discs: title -> (map, labels, look)."""
    figure, axes = new_figure(2.7 * len(images), 3.8, 1, len(images), (0.1, 0.1, 0.7, 0.35), {"wspace": 0.35})
    for axis, (title, (image, labels, look)) in zip(axes[0], images.items()):
        values, names, aspect = sagittal_slice(image, labels)
        rows, columns = np.nonzero((names >= 11) & (names <= 28))
        window = (slice(max(rows.min() - 4, 0), rows.max() + 5), slice(max(columns.min() - 4, 0), columns.max() + 5)
                  ) if rows.size else (slice(None), slice(None))
        shown = axis.imshow(values[window], cmap=look.colors, vmin=look.low, vmax=look.high, aspect=aspect)
        axis.set(xticks=[], yticks=[], title=title, facecolor=_GREY_BACK)
        figure.colorbar(shown, ax=axis, label=look.legend, shrink=0.8)
    return figure


def level_views(image: Image, labels: Image, value: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mid-sagittal and mid-transverse slices of one disc of an atlas image, NaN outside the disc.

    The sagittal slice has head up and anterior left; the transverse one has anterior up, the patient's right left.
    """
    inside = labels.array == value
    k, j, i = np.nonzero(inside)
    box = tuple(slice(v.min(), v.max() + 1) for v in (k, j, i))
    values = np.where(inside, image.array, np.nan)[box]
    return values[::-1, :, values.shape[2] // 2], _transverse(values)


def _transverse(values: np.ndarray) -> np.ndarray:
    """Return the surface through the middle of the disc's height: discs are tilted, a plane would leave them."""
    count = np.isfinite(values).sum(axis=0)
    order = np.argsort(~np.isfinite(values), axis=0, kind="stable")
    middle = np.take_along_axis(order, np.maximum(count // 2, 0)[None], axis=0)
    return np.where(count > 0, np.take_along_axis(values, middle, axis=0)[0], np.nan)


def atlas_figure(columns: Mapping[str, tuple[Image, Look]], labels: Image, levels: Sequence[str],
                 outline: Mapping[str, Image] | None = None):
    """Return a figure of maps on the atlas: a row per level, and per map a mid-sagittal and a transverse view.

    Columns are (map, look) by title; nonzero voxels of an image in `outline`, by title, are outlined (significant
    ones).
    """
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    present = [v for v in levels if np.any(labels.array == disc_value(v))]
    count = len(columns)
    width, height = 3.9 * count + 0.5, 1.12 * len(present) + 0.8
    figure, axes = new_figure(width, height, len(present), 2 * count, (0.65, 0.75, 0.1, 0.25),
                              {"width_ratios": [1.0, 1.15] * count, "wspace": 0.06, "hspace": 0.08})
    for n, (title, (image, look)) in enumerate(columns.items()):
        cmap = matplotlib.colormaps[look.colors].with_extremes(bad=(0, 0, 0, 0))
        for row, level in enumerate(present):
            views = level_views(image, labels, disc_value(level))
            lines = level_views(outline[title], labels, disc_value(level)) if outline and title in outline else None
            shape = level_views(labels, labels, disc_value(level))
            for m in range(2):
                axis = axes[row, 2 * n + m]
                axis.imshow(np.isfinite(shape[m]), cmap="Greys", vmin=0, vmax=6, interpolation="nearest")
                axis.imshow(views[m], cmap=cmap, vmin=look.low, vmax=look.high, interpolation="nearest")
                if lines is not None and np.nansum(lines[m]) > 0:
                    # A white line on a black one is seen on every color.
                    for color, width in (("black", 2.2), ("white", 0.9)):
                        axis.contour(np.nan_to_num(lines[m]) > 0, levels=[0.5], colors=color, linewidths=width)
                axis.set(xticks=[], yticks=[])
                for spine in axis.spines.values():
                    spine.set_visible(False)
            if n == 0:
                axes[row, 0].set_ylabel(level, rotation=0, ha="right", va="center", weight="bold")
        for axis, title_of_view in ((axes[0, 2 * n], "A \N{LEFTWARDS ARROW} sagittal \N{RIGHTWARDS ARROW} P"),
                                    (axes[0, 2 * n + 1], "R \N{LEFTWARDS ARROW} transverse \N{RIGHTWARDS ARROW} L")):
            axis.set_title(title_of_view, fontsize=8, weight="normal", color="#5b6b7a")
        left, right = (axes[-1, 2 * n + m].get_position(original=True) for m in range(2))
        place = figure.add_axes((left.x0 + 0.12 * (right.x1 - left.x0), 0.54 / height, 0.76 * (right.x1 - left.x0),
                                 0.09 / height))
        bar = figure.colorbar(ScalarMappable(Normalize(look.low, look.high), cmap), place, orientation="horizontal")
        bar.set_label(f"{title}: {look.legend}" if look.legend else title)
    return figure
