"""Lateral slices made from central ones, because the training data (SPIDER) are slabs around the mid-plane.

The outline of bodies and discs seen from above is taken as a superellipse: `u` mm from the mid-plane their AP length is
(1 - (u / W)^p)^(1/p) of the middle one, and nothing is left beyond W. Half width, roundness and a shift of the lateral
parts backward or forward are drawn anew for each sample, so that the network learns no particular spine. Where a body
or disc was, surrounding tissue moves in or a homogeneous, striped tissue as of the psoas muscle is put; the canal is
replaced by patchy tissue. Thick slices are means over their thickness, and so are their labels (partial volume).
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from DiscRelaxometryLib.discs import CANAL
from Training.dataset import Person

#: Half widths in mm and exponents of the outline. Discs are about 1.4 times as wide as long (34 mm): 24 mm.
HALF_WIDTHS, EXPONENTS = (19.0, 29.0), (2.0, 3.2)
#: At this many half lengths from the center of the column nothing moves.
STILL = 4.0


@dataclass(frozen=True)
class Outline:
    """Outline of a spine seen from above."""

    #: mm.
    half_width: float
    #: 2 is an ellipse, more is squarer.
    exponent: float
    #: Displacement of the most lateral part, in half lengths; positive is backward.
    shift: float

    def share(self, u: torch.Tensor) -> torch.Tensor:
        """Return the share of the AP length that is left `u` mm from the mid-plane."""
        return (1 - (u.abs() / self.half_width) ** self.exponent).clamp_min(0) ** (1 / self.exponent)


def draw_outline(dice) -> Outline:
    """Draw half width, roundness and shift."""
    return Outline(dice.uniform(*HALF_WIDTHS), dice.uniform(*EXPONENTS), dice.uniform(-0.15, 0.3))


def narrow(person: Person, grid: torch.Tensor, u: torch.Tensor, outline: Outline) -> tuple[torch.Tensor, torch.Tensor]:
    """Return source positions that narrow bodies and discs as `u` mm from the mid-plane, and what was emptied.

    The grid (1, rows, columns, 2) holds source column and row of each pixel, `u` (n,) each slice's distance. Positions
    are (n, rows, columns, 2), what was emptied (n, rows, columns): 1 where a body or disc of the central slice was and
    none is now, with a soft border.
    """
    factor = outline.share(u).clamp_min(0.02)[:, None, None]
    column = torch.from_numpy(person.column[person.column.shape[0] // 2])
    row = grid[..., 1].round().long().clamp(0, len(column) - 1)
    middle, half = column[row][..., 0], column[row][..., 1].clamp_min(10)
    t = ((grid[..., 0] - middle) / half).expand(len(u), -1, -1)
    shifted = t - outline.shift * (1 - factor) * (1 - t.abs() / STILL).clamp_min(0)
    distance = shifted.abs()
    outside = 1 + (distance - factor) * (STILL - 1) / (STILL - factor)
    source = torch.where(distance < factor, distance / factor, torch.where(distance < STILL, outside, distance))
    moved = grid.repeat(len(u), 1, 1, 1)
    moved[..., 0] = middle + shifted.sign() * source * half
    moved[..., 0] = torch.where(distance < STILL, moved[..., 0], grid[..., 0])
    emptied = ((distance - factor) / 0.15).clamp(0, 1) * ((1.05 - t.abs()) / 0.15).clamp(0, 1)
    return moved, emptied


def canal_kept(u: torch.Tensor) -> torch.Tensor:
    """Return the share of the canal that is left `u` mm from the mid-plane: all up to 5 mm, none from 11 mm on."""
    return (1 - (u.abs() - 5) / 6).clamp(0, 1)


def fill_muscle(image: torch.Tensor, emptied: torch.Tensor, dice) -> torch.Tensor:
    """Put homogeneous tissue with faint stripes along the spine where bodies and discs were."""
    low, high = torch.quantile(image[len(image) // 2], torch.tensor([0.1, 0.6])).tolist()
    size = tuple(image.shape[1:])
    tissue = dice.uniform(low, high) + (high - low) * (0.2 * dice.smooth(6, 24, size) + 0.1 * dice.smooth(20, 8, size))
    weight = dice.uniform(0.4, 1.0) * emptied
    return image * (1 - weight) + (tissue + 0.25 * (image - image.mean())) * weight


def clear_canal(image: torch.Tensor, soft: torch.Tensor, keep: torch.Tensor, dice) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace the canal by patchy tissue, of which fat in the foramina is the brightest."""
    low, high = torch.quantile(image[len(image) // 2], torch.tensor([0.15, 0.75])).tolist()
    patch = dice.uniform(low, high) + 0.5 * (high - low) * dice.smooth(24, 16, tuple(image.shape[1:]))
    canal = soft[:, CANAL - 1]
    weight = functional.avg_pool2d(canal[:, None], 5, 1, 2)[:, 0].clamp(0, 1) * (1 - keep[:, None, None])
    image = image * (1 - weight) + (patch + 0.3 * (image - image.mean())) * weight
    soft = soft.clone()
    soft[:, CANAL - 1] *= keep[:, None, None]
    return image, soft
