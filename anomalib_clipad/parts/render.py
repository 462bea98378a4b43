"""Photographing a scene: light, shadow, reflections, blur, exposure and sensor noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .noise import Field, Rng, uniform
from .scene import Scene

Image = NDArray[np.uint8]
VISIBLE = 8 / 255
"""Smallest change of a channel, before sensor noise, that counts as part of a defect."""


@dataclass(frozen=True)
class Camera:
    """How a picture is taken; the same for a part with and without its defect.

    Attributes:
        light: Direction the light comes from (x, y, z), a unit vector.
        ambient: Share of the light that comes from everywhere.
        gradient: Change of brightness across the picture (x, y).
        exposure: Factor of all values.
        balance: Factor of each channel.
        shadow: Darkness of the part's shadow on the background.
        blur: Standard deviation of the blur, in pixels at 240.
        noise: Standard deviation of the sensor noise, values in [0, 1].
        highlight: Position (x, y) and radius of a reflection of the lamp, as shares of the picture, and strength.
    """

    light: tuple[float, float, float]
    ambient: float
    gradient: tuple[float, float]
    exposure: float
    balance: tuple[float, float, float]
    shadow: float
    blur: float
    noise: float
    highlight: tuple[float, float, float, float]


def random_camera(style: Rng, rng: Rng) -> Camera:
    """A camera of this product line's set-up, as it stood for this picture."""
    angle = uniform(style, 0, 2 * np.pi) + uniform(rng, -0.3, 0.3)
    tilt = uniform(style, 0.3, 1.0)
    tint = uniform(style, -0.06, 0.06)
    return Camera(
        light=(float(np.cos(angle) * np.sin(tilt)), float(np.sin(angle) * np.sin(tilt)), float(np.cos(tilt))),
        ambient=uniform(style, 0.3, 0.7),
        gradient=(uniform(rng, -0.15, 0.15), uniform(rng, -0.15, 0.15)),
        exposure=uniform(style, 0.85, 1.15) * uniform(rng, 0.92, 1.08),
        balance=(1 + tint, 1.0, 1 - tint),
        shadow=uniform(style, 0, 0.5),
        blur=uniform(style, 0.2, 0.8) + uniform(rng, 0, 0.5),
        noise=uniform(style, 0.003, 0.02),
        highlight=(rng.random(), rng.random(), uniform(style, 0.05, 0.3), uniform(style, 0, 1) * uniform(rng, 0, 1)),
    )


def expose(scene: Scene, camera: Camera) -> Field:
    """The picture (size, size, 3) that reaches the sensor, without its noise."""
    size = scene.size
    unit = size / 240
    diffuse, mirrored = _reflect(scene.height, camera, unit)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    lamp = 1 + camera.gradient[0] * axis[None] + camera.gradient[1] * axis[:, None]
    x, y, radius, strength = camera.highlight
    away = np.square(axis[None] - (2 * x - 1)) + np.square(axis[:, None] - (2 * y - 1))
    glare = np.exp(-away / np.float32(2 * radius**2)) * np.float32(strength)
    part = scene.albedo * (diffuse * lamp)[..., None] + np.float32(scene.gloss) * (mirrored + 0.5 * glare)[..., None]
    background = scene.background * lamp[..., None]
    if not scene.is_texture and camera.shadow > 0:
        offset = np.array([[1, 0, -camera.light[0] * 10 * unit], [0, 1, -camera.light[1] * 10 * unit]], np.float32)
        shade = cv2.warpAffine(scene.cover, offset, (size, size))
        shade = cv2.GaussianBlur(shade, (0, 0), 4 * unit)
        background = background * (1 - np.float32(camera.shadow) * shade)[..., None]
    cover = scene.cover[..., None]
    picture = (part * cover + background * (1 - cover)) * np.float32(camera.exposure)
    picture = picture * np.array(camera.balance, np.float32)
    return cv2.GaussianBlur(picture.astype(np.float32), (0, 0), max(camera.blur * unit, 0.2))


def _reflect(height: Field, camera: Camera, unit: float) -> tuple[Field, Field]:
    """Diffuse and mirrored light of a relief."""
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125 / unit)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125 / unit)
    length = np.sqrt(1 + slope_x**2 + slope_y**2)
    facing = np.clip((camera.light[2] - camera.light[0] * slope_x - camera.light[1] * slope_y) / length, 0, None)
    level = camera.ambient + (1 - camera.ambient) * camera.light[2]
    diffuse = (camera.ambient + (1 - camera.ambient) * facing) / level
    half = np.array(camera.light) + np.array([0, 0, 1])
    half /= np.linalg.norm(half)
    mirrored = np.clip((half[2] - half[0] * slope_x - half[1] * slope_y) / length, 0, 1) ** 40
    return diffuse.astype(np.float32), (0.3 * mirrored).astype(np.float32)


def develop(picture: Field, camera: Camera, rng: Rng) -> Image:
    """The picture as the sensor stores it: (size, size, 3) of uint8."""
    grain = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(camera.noise)
    return np.round(np.clip(picture + grain, 0, 1) * 255).astype(np.uint8)


def changed(flawless: Field, damaged: Field) -> NDArray[np.bool_]:
    """Mask (size, size) of what a defect visibly changed, gaps of up to two pixels closed."""
    difference = np.abs(np.clip(damaged, 0, 1) - np.clip(flawless, 0, 1)).max(axis=2) > VISIBLE
    closed = cv2.morphologyEx(difference.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    return closed.astype(bool)
