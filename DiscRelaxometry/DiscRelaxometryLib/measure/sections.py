"""Mid-sagittal sections of discs and vertebral bodies: heights, endplates, angles, slip, and the canal at a disc.

Definitions and their sources are in ``Docs/method/measures.md``. A measure that cannot be had raises
:class:`Missing`, whose text is the reason for the table.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..image import Geometry, Image, voxel_points
from ..labels import BY_VALUE, CANAL, SACRUM
from .axes import DiscFrame, LocalMask, column_surfaces, crop, local_mask, orthonormal
from .regions import DiscOutline, midsagittal

#: AP bands of the heights as shares of the AP diameter from the anterior border.
HEIGHT_BANDS = {"anterior": (1 / 12, 3 / 12), "middle": (5 / 12, 7 / 12), "posterior": (9 / 12, 11 / 12)}
#: Half the thickness (mm) of the strip in which bodies and canal are measured.
STRIP = 2.0
#: A body is looked for within this share of the discs' AP diameter; the spinous process lies farther back.
BODY_REACH = 0.75
#: Share of the middle height that a column of a body has to have; columns beyond the walls are shorter.
WALL_HEIGHT = 0.6
#: Most that a wall leans from the body's axis.
WALL_LEAN = 0.4
#: mm from an endplate between which the walls give its corners; nearer to it the rim is round or has osteophytes.
CORNER = (2.0, 8.0)
#: mm above and below the disc's plane in which the canal's diameter is taken, and in which its direction is.
CANAL_BAND, CANAL_COURSE = 2.0, 8.0
#: mm behind the disc in which the canal is looked for.
CANAL_REACH = 40.0


class Missing(Exception):
    """A measure cannot be had; the text says why."""


@dataclass(frozen=True)
class Endplate:
    """A straight line along an endplate in the mid-sagittal plane, by its ends."""

    #: Shape (3,). LPS mm.
    posterior: np.ndarray
    anterior: np.ndarray

    @property
    def course(self) -> np.ndarray:
        """Vector from the posterior to the anterior end, mm."""
        return self.anterior - self.posterior


@dataclass(frozen=True)
class Section:
    """Mid-sagittal section of a disc or body."""

    frame: DiscFrame
    #: Shape (n,). mm along AP.
    ap: np.ndarray
    #: Shape (strip, n). Caudal and cranial surface, mm along CC; NaN outside.
    bottom: np.ndarray
    top: np.ndarray
    #: Borders, mm along AP.
    posterior: float
    anterior: float
    #: mm along LR of the strip's middle.
    middle: float = 0.0

    @property
    def ap_diameter(self) -> float:
        """Distance of the borders, mm."""
        return self.anterior - self.posterior

    @property
    def heights(self) -> dict[str, float]:
        """Mean height in each of the bands, mm; NaN where a band is empty."""
        height, result = self.top - self.bottom, {}
        for name, band in HEIGHT_BANDS.items():
            part = height[:, self._between(*band)]
            result[name] = float(np.nanmean(part)) if np.isfinite(part).any() else float("nan")
        return result

    def _between(self, start: float, stop: float) -> np.ndarray:
        behind = (self.anterior - self.ap) / self.ap_diameter
        return (behind >= start) & (behind <= stop)

    def endplate(self, surface: np.ndarray, walls: Sequence[tuple[float, float]] = ()) -> Endplate:
        """Return the least-squares line along the middle two thirds of a surface.

        It ends at the borders, or where it meets two walls: lines AP = a + b CC, given as (b, a).
        """
        inner = self._between(1 / 6, 5 / 6)
        height = surface[:, inner]
        at = np.broadcast_to(self.ap[inner], height.shape)
        kept = np.isfinite(height)
        if not kept.any() or np.ptp(at[kept]) <= self.ap_diameter / 2:
            raise Missing("the section is too small")
        slope, offset = np.polyfit(at[kept], height[kept], 1)
        ends = [(a + b * offset) / (1 - b * slope) for b, a in walls] or [self.posterior, self.anterior]
        return Endplate(*(self.frame.to_world((self.middle, x, offset + slope * x)) for x in ends))


@dataclass(frozen=True)
class DiscShape:
    """A disc in its own axes."""

    frame: DiscFrame
    local: LocalMask
    outline: DiscOutline
    #: Whether the image's upper, lower, anterior or posterior border cuts it.
    cut: bool

    @functools.cached_property
    def section(self) -> Section:
        """Mid-sagittal section, in a strip of a tenth of the width."""
        outline, local = self.outline, self.local
        strip = midsagittal(local, outline.right, outline.left)
        bottom, top = (surface[strip] for surface in column_surfaces(local))
        ap = local.start[1] + local.step * np.arange(local.inside.shape[1])
        return Section(self.frame, ap, bottom, top, outline.posterior, outline.anterior,
                       (outline.left + outline.right) / 2)

    @property
    def center(self) -> np.ndarray:
        """Middle of the outline, LPS mm."""
        outline = self.outline
        return self.frame.to_world(((outline.left + outline.right) / 2, (outline.anterior + outline.posterior) / 2, 0))


@dataclass(frozen=True)
class Body:
    """A vertebral body in the mid-sagittal plane; what cannot be had raises Missing when it is asked for."""

    section: Section
    inside: LocalMask
    name: str
    #: Why the upper, and the lower, endplate is not known; empty where it is.
    above: str
    below: str

    @property
    def heights(self) -> dict[str, float]:
        """Mean heights, mm."""
        self._require(self.above or self.below)
        return self.section.heights

    @property
    def upper(self) -> Endplate:
        """Cranial endplate."""
        self._require(self.above)
        return self._endplate(self.section.top, -1)

    @property
    def lower(self) -> Endplate:
        """Caudal endplate."""
        self._require(self.below)
        return self._endplate(self.section.bottom, 1)

    @staticmethod
    def _require(reason: str) -> None:
        if reason:
            raise Missing(reason)

    def _endplate(self, surface: np.ndarray, inward: int) -> Endplate:
        """Return an endplate that ends at the walls beside it."""
        local, ap = self.inside, self.section.ap
        cc = local.start[2] + local.step * np.arange(local.inside.shape[2])
        depth = inward * (cc - np.nanmean(surface))
        rows = (depth >= CORNER[0]) & (depth <= CORNER[1])
        wall = local.inside[:, :, rows]
        seen = wall.any(axis=1)
        if not seen.any():
            raise Missing(f"{self.name} is too flat")
        height = np.broadcast_to(cc[rows], seen.shape)[seen]
        first, last = wall.argmax(axis=1)[seen], wall.shape[1] - 1 - wall[:, ::-1].argmax(axis=1)[seen]
        return self.section.endplate(surface, [_wall(height, ap[0] + local.step * (end + outward))
                                               for end, outward in ((first, -0.5), (last, 0.5))])


def _wall(height: np.ndarray, at: np.ndarray) -> tuple[float, float]:
    """Return slope and offset of AP positions along a wall; walls steeper than WALL_LEAN are taken as that steep."""
    slope = np.clip(np.polyfit(height, at, 1)[0] if np.ptp(height) else 0.0, -WALL_LEAN, WALL_LEAN)
    return float(slope), float(at.mean() - slope * height.mean())


def lateral_axis(geometry: Geometry) -> int:
    """Return the array axis (of k, j, i) that is nearest to left-right."""
    return 2 - int(np.abs(geometry.matrix3[0] / np.linalg.norm(geometry.matrix3, axis=0)).argmax())


def at_border(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return the voxels of a mask at the upper, lower, anterior or posterior border of the image."""
    border = np.zeros(mask.shape, bool)
    for axis in {0, 1, 2} - {lateral_axis(geometry)}:
        for end in (0, -1):
            border[(slice(None),) * axis + (end,)] = True
    return mask & border


def body_of(labels: Image, value: int, discs: Mapping[int, DiscShape]) -> Body:
    """Return a vertebra's body, found between (or beside) its discs; Missing if it or both of them are absent."""
    name = "S1" if value == SACRUM.value else BY_VALUE[value].name
    mask = labels.array == value
    if not mask.any():
        raise Missing(f"{name} is not segmented")
    # Vertebra values count like the discs': L5 (31) lies above L5-S1 (11).
    beside = {side: discs[v] for side, v in (("below", value - 20), ("above", value - 19)) if v in discs}
    if not beside:
        raise Missing(f"no disc beside {name} can be measured")
    frame, depth = _body_frame(mask, labels.geometry, beside)
    local = frame.to_local(voxel_points(mask, labels.geometry))
    reach = STRIP + np.abs(frame.axes[0] @ labels.geometry.matrix3).sum()
    near = (np.abs(local[:, 0]) <= reach) & (np.abs(local[:, 1]) <= BODY_REACH * depth)
    if not near.any():
        raise Missing(f"{name} is not seen in the mid-sagittal plane")
    part = np.zeros_like(mask)
    part[mask] = near
    section, inside = _body_section(part, labels.geometry, frame, name)
    if max(-section.posterior, section.anterior) > BODY_REACH * depth - 1:
        raise Missing(f"the body of {name} has no walls")
    cut = frame.to_local(voxel_points(at_border(part, labels.geometry), labels.geometry))
    cut = cut[(cut[:, 1] >= section.posterior - 2) & (cut[:, 1] <= section.anterior + 2)]
    reasons = []
    for side, surface, outward in (("above", section.top, 1), ("below", section.bottom, -1)):
        if np.any(outward * (cut[:, 2] - np.nanmean(surface)) > -CORNER[1] - 2):
            reasons.append(f"{name} is cut by the edge of the image")
        elif side not in beside and (np.any(labels.array == value - (19 if side == "above" else 20))
                                     or _goes_on(labels, section, surface, outward)):
            reasons.append(f"no disc bounds {name} {side}")
        else:
            reasons.append("")
    return Body(section, inside, name, *reasons)


def _body_frame(mask: np.ndarray, geometry: Geometry, beside: Mapping[str, DiscShape]) -> tuple[DiscFrame, float]:
    """Return a frame at the middle of a body, and the AP diameter of the discs beside it."""
    discs = list(beside.values())
    depth = float(np.mean([d.outline.ap_diameter for d in discs]))
    axes = orthonormal(*np.sum([d.frame.axes for d in discs], axis=0)[[2, 1]])
    center = np.mean([d.center for d in discs], axis=0)
    if len(discs) == 1:
        points = (voxel_points(mask, geometry) - center) @ axes.T
        # The sacrum goes on far below its first body.
        points = points[(np.abs(points[:, 1]) < depth / 2) & (np.abs(points[:, 2]) < depth)]
        center = center + (np.median(points[:, 2]) if len(points) else 0.0) * axes[2]
    return DiscFrame(center, axes, np.zeros(3)), depth


def _body_section(part: np.ndarray, geometry: Geometry, frame: DiscFrame, name: str) -> tuple[Section, LocalMask]:
    """Return the section of a body between its walls, and the strip of its mask there."""
    local = local_mask(*crop(part, geometry), frame)
    u = local.start[0] + local.step * np.arange(local.inside.shape[0])
    ap = local.start[1] + local.step * np.arange(local.inside.shape[1])
    inside = local.inside[np.abs(u) <= STRIP]
    strip = LocalMask(inside, local.start, local.step)
    bottom, top = column_surfaces(strip) if inside.any() else (np.full((1, len(ap)), np.nan),) * 2
    height = np.nan_to_num(np.nan_to_num(top - bottom).mean(axis=0))
    middle = height[(np.abs(ap) <= 5) & (height > 0)]
    tall = height >= WALL_HEIGHT * np.median(middle) if len(middle) else np.zeros(len(ap), bool)
    runs, _ = ndimage.label(tall)
    run = runs[np.abs(ap).argmin()]
    if not run:
        raise Missing(f"{name} is not seen in the mid-sagittal plane")
    inner = np.flatnonzero(runs == run)
    kept = slice(inner[0], inner[-1] + 1)
    ap = ap[kept]
    section = Section(frame, ap, bottom[:, kept], top[:, kept], ap[0] - local.step / 2, ap[-1] + local.step / 2)
    return section, LocalMask(inside[:, kept], local.start, local.step)


def _goes_on(labels: Image, section: Section, surface: np.ndarray, outward: int) -> bool:
    """Tell whether bone goes on beyond a surface that no disc bounds: then it is no endplate."""
    height = np.nanmean(surface, axis=0) + outward * 1.5
    points = section.frame.to_world(np.column_stack([np.zeros(len(height)), section.ap, height]))
    index = np.rint(labels.geometry.world_to_index(points)).astype(int)[:, ::-1]
    kept = np.all((index >= 0) & (index < labels.array.shape), axis=1)
    beyond = labels.array[tuple(index[kept].T)]
    kinds = [BY_VALUE[int(v)].kind if int(v) in BY_VALUE else "" for v in beyond]
    return bool(np.mean([k in ("vertebra", "unnamed") for k in kinds] or [True]) > 0.3)


def angle_between(upper: Endplate, lower: Endplate, left: np.ndarray) -> float:
    """Return the angle (degrees) of two endplates in the plane normal to `left`; positive is open to the front."""
    first, second = (e.course - (e.course @ left) * left for e in (lower, upper))
    return float(np.degrees(np.arctan2(-left @ np.cross(first, second), first @ second)))


def slip_of(upper: Body, lower: Body) -> tuple[float, float]:
    """Return how far a body stands in front of the one below it: mm, and % of that one's upper endplate.

    The distance of the posterior corners next to the disc, along the lower body's upper endplate (Meyerding 1932).
    """
    plate = lower.upper
    length = np.linalg.norm(plate.course)
    slip = float((upper.lower.posterior - plate.posterior) @ plate.course / length)
    return slip, 100 * slip / float(length)


def canal_diameter(labels: Image, disc: DiscShape) -> float:
    """Return the AP diameter of the canal at the height of a disc, at right angles to the canal, mm.

    Missing if there is no canal behind the disc's middle, or the image's border cuts it.
    """
    section = disc.section
    mask = labels.array == CANAL.value
    points = disc.frame.to_local(voxel_points(mask, labels.geometry))
    reach = STRIP + np.abs(disc.frame.axes[0] @ labels.geometry.matrix3).sum()
    behind = section.posterior + section.ap_diameter / 4 - points[:, 1]
    near = ((np.abs(points[:, 0] - section.middle) <= reach) & (np.abs(points[:, 2]) <= CANAL_COURSE + 2)
            & (behind > 0) & (behind < CANAL_REACH))
    if not near.any():
        raise Missing("no canal is segmented behind the disc")
    part = np.zeros_like(mask)
    part[mask] = near
    local = local_mask(*crop(part, labels.geometry), disc.frame)
    u, ap, cc = (local.start[a] + local.step * np.arange(local.inside.shape[a]) for a in range(3))
    inside = local.inside[np.abs(u - section.middle) <= STRIP]
    width = local.step * inside.sum(axis=1)
    rows = np.abs(cc) <= CANAL_BAND
    if not np.any(width[:, rows] > 0):
        raise Missing("no canal is segmented behind the disc")
    border = disc.frame.to_local(voxel_points(at_border(part, labels.geometry), labels.geometry))
    if np.any(np.abs(border[:, 2]) <= CANAL_BAND + 1):
        raise Missing("the canal is cut by the edge of the image")
    course = (np.abs(cc) <= CANAL_COURSE) & inside.any(axis=(0, 1))
    middles = (inside[..., course] * ap[:, None]).sum(axis=(0, 1)) / inside[..., course].sum(axis=(0, 1))
    slope = np.polyfit(cc[course], middles, 1)[0] if np.count_nonzero(course) > 2 else 0.0
    seen = width[:, rows]
    return float(seen[seen > 0].mean() / np.hypot(1, slope))

