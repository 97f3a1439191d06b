"""How a phantom patient stands in front of the detector, and where its lungs then lie on the pixel grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medcli.data.synthetic.anatomy import Anatomy, Floats

__all__ = ["FRONTAL", "Frame", "Pose", "draw_pose", "make_frame", "ramp"]

TABLE = 2048
TABLE_FROM, TABLE_TO = -1.6, 1.6


@dataclass(frozen=True)
class Pose:
    """What differs between two images of one patient before the exposure.

    Args:
        angle: rotation in the image plane, radians.
        shift: (x, y) of the patient's midline.
        zoom: magnification.
        turn: rotation about the long axis; moves heart and trachea against the spine.
        inspiration: how far the diaphragm is below its mean.
    """

    angle: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    turn: float = 0.0
    inspiration: float = 0.0


FRONTAL = Pose()


def draw_pose(rng: np.random.Generator, amount: float = 1.0) -> Pose:
    """A pose as positioning and breathing vary; `amount` scales every deviation."""
    wild = np.clip(rng.standard_normal(6), -2, 2) * amount
    return Pose(
        angle=float(wild[0] * 0.035),
        shift=(float(wild[1] * 0.045), float(wild[2] * 0.04)),
        zoom=float(1 + wild[3] * 0.045),
        turn=float(wild[4] * 0.022),
        inspiration=float(wild[5] * 0.05),
    )


@dataclass(frozen=True)
class Frame:
    """Pixel grid in the patient's coordinates, with what rendering and findings need again and again.

    Args:
        x: float32 [S, S], signed distance from the midline.
        y: float32 [S, S], downwards.
        away: |x|.
        left: bool [S, S], the patient's left (image right).
        lateral: |x| of the rib cage at each pixel's height.
        medial: |x| of the mediastinum's border at each pixel's height.
        across: |x| / lateral, 0 at the midline and 1 at the rib cage.
        diaphragm: y of the diaphragm at each pixel's |x|.
        lung: 0 to 1, whether a pixel lies over lung (heart not considered).
        depth: 0 to 1, how much lung the beam crosses there.
        pixel: side of a pixel in patient units.
        edge: width of a sharp edge.
    """

    x: Floats
    y: Floats
    away: Floats
    left: npt.NDArray[np.bool_]
    lateral: Floats
    medial: Floats
    across: Floats
    diaphragm: Floats
    lung: Floats
    depth: Floats
    pixel: float
    edge: float
    anatomy: Anatomy
    pose: Pose

    def lateral_at(self, y: Floats) -> Floats:
        """|x| of the rib cage at other heights than the pixels' own, on each pixel's side."""
        return _look_up(_lateral_table(self.anatomy), y) * _side_width(self.anatomy, self.left)

    def to_pixels(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Patient coordinates -> pixel column and row."""
        pose, size = self.pose, len(self.x)
        cosine, sine = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
        u = pose.zoom * (cosine * x - sine * y) + pose.shift[0]
        v = pose.zoom * (sine * x + cosine * y) + pose.shift[1]
        return (u + 1) * (size / 2) - 0.5, (v + 1) * (size / 2) - 0.5


def make_frame(anatomy: Anatomy, pose: Pose, size: int) -> Frame:
    """Lay the pixel grid over the patient.

    Args:
        anatomy: the patient.
        pose: how it stands.
        size: side of the image in pixels.
    """
    centres = ((np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - 1).astype(np.float32)
    u = (centres - pose.shift[0])[None, :] / pose.zoom
    v = (centres - pose.shift[1])[:, None] / pose.zoom
    cosine, sine = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
    x = (cosine * u + sine * v + _wobble(anatomy.wobble[0], u, v)).astype(np.float32)
    y = (cosine * v - sine * u + _wobble(anatomy.wobble[1], u, v)).astype(np.float32)
    away, left = np.abs(x), x > 0
    lateral = _look_up(_lateral_table(anatomy), y) * _side_width(anatomy, left)
    medial = _look_up(_medial_table(anatomy), y)
    across = away / np.maximum(lateral, np.float32(1e-3))
    pixel = 2 / size / pose.zoom
    edge = max(0.012, 0.8 * pixel)
    domes = np.where(left, np.float32(anatomy.domes[1]), np.float32(anatomy.domes[0])) + np.float32(pose.inspiration)
    fall = away - np.float32(0.40)
    # Flatter towards the heart, steep towards the side.
    diaphragm = (
        domes + np.where(fall > 0, anatomy.dome_curve, 0.55 * anatomy.dome_curve).astype(np.float32) * fall * fall
    )
    diaphragm += np.float32(1.0) * np.maximum(across - np.float32(0.88), 0)
    lung = ramp(lateral - away, edge) * ramp(away - medial, edge) * ramp(diaphragm - y, edge)
    lung = np.where(y > anatomy.apex, lung, np.float32(0))
    depth = np.sqrt(np.maximum(1 - across * across, 0)) * np.float32(0.55) + np.float32(0.45)
    # Less lung in front of and behind the apices and the domes.
    depth = depth * ramp(y - np.float32(anatomy.apex - 0.10), 0.5)
    return Frame(x, y, away, left, lateral, medial, across, diaphragm, lung, lung * depth, pixel, edge, anatomy, pose)


def ramp(distance: Floats, width: float) -> Floats:
    """0 below -width / 2, 1 above width / 2, smooth between."""
    share = np.clip(distance * np.float32(1 / width) + np.float32(0.5), 0, 1)
    return np.asarray(share * share * (3 - 2 * share), dtype=np.float32)


def _wobble(waves: Floats, u: Floats, v: Floats) -> Floats:
    """A sum of slow waves: each is a product of a row and a column, which costs one multiplication per pixel."""
    amplitude, phase_u, phase_v, rate = waves.T
    columns = np.sin(rate[:, None] * u[0][None, :] + phase_u[:, None])
    rows = np.sin(rate[:, None] * v[:, 0][None, :] + phase_v[:, None]) * amplitude[:, None]
    return np.asarray(rows.T @ columns, dtype=np.float32)


def _heights() -> Floats:
    return np.linspace(TABLE_FROM, TABLE_TO, TABLE, dtype=np.float32)


def _lateral_table(anatomy: Anatomy) -> Floats:
    along = np.clip((_heights() - anatomy.apex) / (anatomy.widest - anatomy.apex), 0, 1)
    curve = (1 - (1 - along) ** anatomy.shoulder) ** 0.55
    taper = 1 - 0.10 * np.clip(_heights() - anatomy.widest, 0, 1)
    return np.asarray((anatomy.apex_x + (anatomy.width - anatomy.apex_x) * curve) * taper, dtype=np.float32)


def _medial_table(anatomy: Anatomy) -> Floats:
    along = np.clip((_heights() - anatomy.apex) / (0.30 * (anatomy.widest - anatomy.apex)), 0, 1)
    curve = np.sqrt(1 - (1 - along) ** 2)
    return np.asarray(anatomy.apex_x - (anatomy.apex_x - anatomy.medial) * curve, dtype=np.float32)


def _look_up(table: Floats, y: Floats) -> Floats:
    at = ((y - np.float32(TABLE_FROM)) * np.float32((TABLE - 1) / (TABLE_TO - TABLE_FROM))).astype(np.int32)
    return table[np.clip(at, 0, TABLE - 1)]


def _side_width(anatomy: Anatomy, left: npt.NDArray[np.bool_]) -> Floats:
    return np.where(left, np.float32(1 - anatomy.asymmetry), np.float32(1 + anatomy.asymmetry))
