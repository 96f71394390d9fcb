"""Draw the icons of the modules (128 x 128) and the thumbnails of the sample data.

Run it from the top of the checkout, with the three module folders on PYTHONPATH.
"""

import os
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
from PySide6 import QtCore, QtGui

from DiscRelaxometryLib.headless.colors import table
from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.labels import BY_VALUE

ROOT = Path(__file__).resolve().parent.parent.parent
BONE, EDGE, DISC = QtGui.QColor(212, 188, 102), QtGui.QColor(120, 100, 40), QtGui.QColor(33, 113, 181)


def canvas() -> tuple[QtGui.QImage, QtGui.QPainter]:
    image = QtGui.QImage(512, 512, QtGui.QImage.Format_ARGB32)
    image.fill(QtCore.Qt.transparent)
    painter = QtGui.QPainter(image)
    painter.setRenderHint(QtGui.QPainter.Antialiasing)
    return image, painter


def save(image: QtGui.QImage, *paths: Path) -> None:
    small = image.scaled(128, 128, QtCore.Qt.KeepAspectRatio, QtCore.Qt.SmoothTransformation)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        small.save(str(path))


def disc_path(x: float, y: float, width: float, height: float) -> QtGui.QPainterPath:
    """Return a disc seen from the side: higher in front (left) than behind."""
    path = QtGui.QPainterPath(QtCore.QPointF(x + 14, y))
    path.cubicTo(x + width * 0.35, y - height * 0.14, x + width * 0.7, y + height * 0.02,
                 x + width - 10, y + height * 0.16)
    path.cubicTo(x + width + 14, y + height * 0.4, x + width + 14, y + height * 0.6, x + width - 10, y + height * 0.84)
    path.cubicTo(x + width * 0.7, y + height * 0.98, x + width * 0.35, y + height * 1.14, x + 14, y + height)
    path.cubicTo(x - 18, y + height * 0.7, x - 18, y + height * 0.3, x + 14, y)
    return path


def gradient(x: float, y: float, width: float, height: float) -> QtGui.QRadialGradient:
    """Return the colors of a relaxation map: long times in the nucleus."""
    result = QtGui.QRadialGradient(x + width * 0.52, y + height / 2, width * 0.52)
    for position in np.linspace(0, 1, 9):
        result.setColorAt(position, QtGui.QColor.fromRgbF(*table("Viridis")[int((1 - position) * 235) + 10]))
    return result


def vertebra(painter: QtGui.QPainter, y: float) -> None:
    painter.setPen(QtGui.QPen(EDGE, 8))
    painter.setBrush(BONE)
    painter.drawRoundedRect(QtCore.QRectF(96, y, 320, 118), 26, 26)


def draw_relaxometry() -> QtGui.QImage:
    image, painter = canvas()
    for y in (10, 197, 384):
        vertebra(painter, y)
    for y in (136, 323):
        painter.setPen(QtGui.QPen(QtGui.QColor(30, 30, 60), 6))
        painter.setBrush(gradient(100, y, 312, 54))
        painter.drawPath(disc_path(100, y, 312, 54))
    painter.end()
    return image


def draw_atlas() -> QtGui.QImage:
    image, painter = canvas()
    painter.setPen(QtGui.QPen(QtGui.QColor(150, 150, 150), 5))
    for step in range(7):
        at = 40 + step * 72
        painter.drawLine(at, 40, at, 472)
        painter.drawLine(40, at, 472, at)
    for dx, dy, color in ((-26, -46, QtGui.QColor(158, 202, 225, 150)), (20, 40, QtGui.QColor(66, 146, 198, 150))):
        painter.setPen(QtGui.QPen(color.darker(140), 8))
        painter.setBrush(color)
        painter.drawPath(disc_path(96 + dx, 176 + dy, 320, 150))
    painter.setPen(QtGui.QPen(QtGui.QColor(8, 48, 107), 14))
    painter.setBrush(QtCore.Qt.NoBrush)
    painter.drawPath(disc_path(96, 176, 320, 150))
    painter.end()
    return image


def draw_stats() -> QtGui.QImage:
    image, painter = canvas()
    path = disc_path(70, 60, 372, 190)
    painter.setPen(QtGui.QPen(QtGui.QColor(8, 48, 107), 12))
    painter.setBrush(QtGui.QColor(235, 240, 245))
    painter.drawPath(path)
    painter.setClipPath(path)
    for x, y, radius, name in ((180, 150, 92, 0.93), (352, 160, 64, 0.07)):
        color = QtGui.QColor.fromRgbF(*table("DivergingBlueRed")[int(name * 255)])
        spot = QtGui.QRadialGradient(x, y, radius)
        spot.setColorAt(0, color)
        clear = QtGui.QColor(color)
        clear.setAlpha(0)
        spot.setColorAt(1, clear)
        painter.setPen(QtCore.Qt.NoPen)
        painter.setBrush(spot)
        painter.drawEllipse(QtCore.QPointF(x, y), radius, radius)
    painter.setClipping(False)
    painter.setPen(QtGui.QPen(QtGui.QColor(90, 90, 90), 10))
    painter.drawLine(70, 480, 442, 480)
    painter.drawLine(70, 290, 70, 480)
    painter.setPen(QtGui.QPen(QtGui.QColor(178, 24, 43), 12))
    painter.drawLine(90, 320, 430, 450)
    painter.setPen(QtCore.Qt.NoPen)
    painter.setBrush(DISC)
    for x, y in ((110, 345), (160, 325), (205, 385), (255, 370), (300, 425), (345, 398), (400, 455)):
        painter.drawEllipse(QtCore.QPointF(x, y), 15, 15)
    painter.end()
    return image


def midsagittal(folder: Path, stem: str, labels: Path) -> QtGui.QImage:
    """Return the slice through the discs' middle, 8 bits, with the discs colored."""
    image, mask = read_image(folder / f"{stem}.nii.gz"), read_image(labels)
    discs = np.isin(mask.array, [v for v, s in BY_VALUE.items() if s.kind == "disc"]) | np.isin(
        mask.array, range(201, 211))
    axis = int(np.argmax(np.abs(np.array(image.geometry.direction).reshape(3, 3)[0])))
    take = 2 - axis
    counts = discs.sum(axis=tuple(a for a in range(3) if a != take))
    index = int(round((counts * np.arange(len(counts))).sum() / counts.sum()))
    gray, where = (np.take(a, index, axis=take) for a in (image.array.astype(float), discs))
    gray = np.clip(gray / np.percentile(gray, 99.5), 0, 1) * 255
    rgb = np.stack([gray] * 3, -1)
    rgb[where] = 0.55 * rgb[where] + 0.45 * np.array([66, 146, 198])
    rows = [a for a in range(3) if a != axis]
    spacing = [image.geometry.spacing[a] for a in rows]
    directions = np.array(image.geometry.direction).reshape(3, 3)
    # Cranial up, anterior left, whatever the order of the axes.
    vertical = max(rows, key=lambda a: abs(directions[2, a]))
    if rows.index(vertical) == 0:
        rgb, spacing = rgb.swapaxes(0, 1), spacing[::-1]
    if directions[2, vertical] > 0:
        rgb = rgb[::-1]
    horizontal = next(a for a in rows if a != vertical)
    if directions[1, horizontal] < 0:
        rgb = rgb[:, ::-1]
    rgb = np.ascontiguousarray(rgb.astype(np.uint8))
    height, width = rgb.shape[:2]
    picture = QtGui.QImage(rgb.data, width, height, 3 * width, QtGui.QImage.Format_RGB888).copy()
    scale = 280 / (height * spacing[1])
    return picture.scaled(max(1, round(width * spacing[0] * scale)), 280, QtCore.Qt.IgnoreAspectRatio,
                          QtCore.Qt.SmoothTransformation)


def thumbnail(pictures: list[QtGui.QImage], path: Path) -> None:
    """Place pictures side by side on 260 x 280."""
    result = QtGui.QImage(260, 280, QtGui.QImage.Format_RGB32)
    result.fill(QtCore.Qt.black)
    painter, width = QtGui.QPainter(result), 260 // len(pictures)
    for n, picture in enumerate(pictures):
        left = max(0, (picture.width() - width) // 2)
        painter.drawImage(n * width + max(0, (width - picture.width()) // 2), 0, picture, left, 0, width, 280)
    painter.end()
    path.parent.mkdir(parents=True, exist_ok=True)
    result.save(str(path))


def main() -> None:
    """Write all pictures."""
    QtGui.QGuiApplication([])
    icons = {m: ROOT / m / "Resources" / "Icons" for m in ("DiscRelaxometry", "DiscAtlas", "DiscStats")}
    save(draw_relaxometry(), icons["DiscRelaxometry"] / "DiscRelaxometry.png", ROOT / "DiscRelaxometry.png")
    save(draw_atlas(), icons["DiscAtlas"] / "DiscAtlas.png")
    save(draw_stats(), icons["DiscStats"] / "DiscStats.png")
    sample = ROOT / "DiscRelaxometry" / "Resources" / "SampleData"
    thumbnail([midsagittal(sample, "spider-sub-078_T2w", sample / "spider-sub-078_dseg.nii.gz")],
              icons["DiscRelaxometry"] / "SampleSpine.png")
    cohort = ROOT / "DiscStats" / "Resources" / "SampleData" / "spider-cohort"
    pictures = []
    for person in ("sub-005", "sub-007", "sub-018"):
        masks = sorted((cohort / "derivatives").rglob(f"{person}*dseg.nii.gz"))
        pictures.append(midsagittal(cohort / person / "anat", f"{person}_T2w", masks[0]))
    thumbnail(pictures, icons["DiscStats"] / "SampleCohort.png")


if __name__ == "__main__":
    main()
