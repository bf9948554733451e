"""Random cluttered rooms, rendered for a colour, a depth and a thermal camera. Depth and thermal spokes train on them.

Furniture is boxes, cylinders and balls, on the floor, on each other and on the walls, with random textures, light and
temperatures. The views of one room differ by small steps of the camera, so that a model must use the layout, not the
colours, to distinguish them. No real room is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Noise = np.random.Generator

CAMERA_POSE_CANDIDATES = 8  # random camera poses, of which the one with the most depth edges is used
TEXTURE_SIZE = 256  # texels: width and height of a texture
MIN_DEPTH, MAX_DEPTH = 0.4, 6.0  # m: range of a structured-light camera
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "brick.png", "grass.png", "gravel.png",
               "hubble_deep_field.jpg", "ihc.png", "color.png", "retina.jpg")  # fmt: skip


@dataclass(frozen=True, slots=True)
class SceneObject:
    """A box, cylinder or ball. `centre` and `half_size` (x, y, z) in m; the radius of a cylinder or ball is
    `half_size[0]`. `yaw`: rad about the vertical axis. `texture`: index of the room's textures, at `texels_per_metre`.
    `temperature_offset`: kelvin above the room."""

    shape: str
    centre: Floats
    half_size: Floats
    yaw: float
    texture: int
    texels_per_metre: float
    temperature_offset: float


@dataclass(frozen=True, slots=True)
class Room:
    """A room. `size` (x, y, z) in m; `textures` uint8 (K, TEXTURE_SIZE, TEXTURE_SIZE, 3); `light_directions` unit
    vectors (L, 3), with `light_intensities` (L,); `kelvin`: the room temperature."""

    size: Floats
    objects: tuple[SceneObject, ...]
    textures: npt.NDArray[np.uint8]
    light_directions: Floats
    light_intensities: Floats
    ambient_light: float
    kelvin: float


@dataclass(frozen=True, slots=True)
class RenderedView:
    """The images of three cameras at one pose: `colour` uint8 (H, W, 3); `depth` in m along the view axis, NaN
    without a reading, and `kelvin`, both float32 (H, W)."""

    colour: npt.NDArray[np.uint8]
    depth: Floats
    kelvin: Floats


def random_room(rng: Noise, max_furniture: int = 14) -> Room:
    """A random room: at most `max_furniture` pieces of furniture, smaller objects on them, and objects on the walls."""
    size = np.array([rng.uniform(3, 7), rng.uniform(3, 7), rng.uniform(2.3, 3.2)], np.float32)
    objects: list[SceneObject] = []

    def put(kind: str, centre: list[float], half: list[float], yaw: float) -> SceneObject:
        texels = float(TEXTURE_SIZE * np.exp(rng.uniform(np.log(0.3), np.log(4))))
        hot = rng.exponential(6.0) * (rng.random() < 0.5) - rng.exponential(2.0) * (rng.random() < 0.3)
        pattern = int(rng.integers(ROOM_TEXTURE_COUNT))
        made = SceneObject(
            kind, np.array(centre, np.float32), np.array(half, np.float32), yaw, pattern, texels, float(min(hot, 60))
        )
        objects.append(made)
        return made

    for _ in range(rng.integers(min(6, max_furniture), max_furniture + 1)):  # furniture, 60 % of it along the walls
        half = [rng.uniform(0.15, 0.8), rng.uniform(0.15, 0.5), rng.uniform(0.15, 0.95)]
        x, y = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        if rng.random() < 0.6:
            x, y = (x, rng.choice([half[1], size[1] - half[1]])) if rng.random() < 0.5 else (
                rng.choice([half[1], size[0] - half[1]]), y)  # fmt: skip
        kind = str(rng.choice(["box", "box", "box", "cylinder"]))
        base = put(kind, [x, y, half[2]], half, rng.choice([0, np.pi / 2]) + rng.normal(0, 0.1))
        for _ in range(rng.integers(1, 9)):  # smaller objects on it
            small = np.exp(rng.uniform(np.log(0.03), np.log(0.25), 3))
            sort = str(rng.choice(["box", "box", "cylinder", "ball"]))
            spread = rng.uniform(-0.9, 0.9, 2) * base.half_size[:2]
            cos, sin = np.cos(base.yaw), np.sin(base.yaw)
            dx, dy = cos * spread[0] - sin * spread[1], sin * spread[0] + cos * spread[1]
            height = small[0] if sort == "ball" else small[2]
            put(sort, [x + dx, y + dy, 2 * half[2] + height], list(small), rng.uniform(0, np.pi))
    for _ in range(rng.integers(2, 9)):  # posters, shelves, screens on the walls
        side = rng.integers(4)
        across = rng.uniform(0.2, 0.8) * size[side % 2]
        half = [rng.uniform(0.1, 0.7), rng.uniform(0.01, 0.15), rng.uniform(0.1, 0.5)]
        at = [across, (0.0, size[1])[side // 2]] if side % 2 == 0 else [(0.0, size[0])[side // 2], across]
        put("box", [*at, rng.uniform(0.8, 2.0)], half, 0.0 if side % 2 == 0 else np.pi / 2)
    lights = rng.normal(size=(3, 3)) + np.array([0, 0, 1.2])
    lights /= np.linalg.norm(lights, axis=1, keepdims=True)
    patterns = np.stack([_random_texture(rng) for _ in range(ROOM_TEXTURE_COUNT)])
    return Room(
        size, tuple(objects), patterns, lights.astype(np.float32), rng.uniform(0.1, 0.6, 3).astype(np.float32),
        float(rng.uniform(0.25, 0.6)), float(rng.normal(294, 4)),
    )  # fmt: skip


ROOM_TEXTURE_COUNT = 16
TEXTURE_KINDS = ("plain", "grain", "stripes", "checks", "clouds", "photograph")


def _random_texture(rng: Noise) -> npt.NDArray[np.uint8]:
    """uint8 (TEXTURE_SIZE, TEXTURE_SIZE, 3): plain, grain, stripes, checks, clouds or part of a photograph."""
    base, other = (_random_colour(rng) for _ in range(2))
    kind = rng.choice(TEXTURE_KINDS, p=[0.5, 0.1, 0.07, 0.05, 0.14, 0.14])
    y, x = np.mgrid[:TEXTURE_SIZE, :TEXTURE_SIZE] / TEXTURE_SIZE
    if kind == "stripes":
        blend = (np.sin(2 * np.pi * rng.integers(1, 16) * (x if rng.random() < 0.5 else y)) > 0) * 1.0
    elif kind == "checks":
        blend = (np.floor(x * 2 * rng.integers(1, 6)) + np.floor(y * 2 * rng.integers(1, 6))) % 2
    elif kind == "clouds":
        coarse = rng.random((rng.integers(2, 12), rng.integers(2, 12))).astype(np.float32)
        blend = cv2.resize(coarse, (TEXTURE_SIZE, TEXTURE_SIZE), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    elif kind == "photograph":
        return _random_crop(rng, _photograph(PHOTOGRAPHS[rng.integers(len(PHOTOGRAPHS))]))
    else:
        blend = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE))
    colours = (
        base
        + blend[..., None] * (other - base)
        + rng.normal(0, 12 if kind == "grain" else 2, (TEXTURE_SIZE, TEXTURE_SIZE, 1))
    )
    return np.asarray(colours.clip(0, 255), np.uint8)


def _random_colour(rng: Noise) -> Floats:
    hue, saturation = rng.uniform(0, 180), rng.beta(1.2, 2.5) * 255
    pixel = np.array([[[hue, saturation, rng.uniform(30, 250)]]], np.uint8)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0], np.float32)


@lru_cache(maxsize=16)
def _photograph(name: str) -> npt.NDArray[np.uint8]:
    image = cv2.imread(str(scikit_image_path(name)), cv2.IMREAD_COLOR_RGB)
    return np.full((TEXTURE_SIZE, TEXTURE_SIZE, 3), 128, np.uint8) if image is None else np.asarray(image, np.uint8)


def scikit_image_path(name: str) -> Path:
    """The path of an image that is installed with scikit-image. Raises `ImportError` without scikit-image."""
    import skimage.data

    return Path(skimage.data.__file__).parent / name


def _random_crop(rng: Noise, photograph: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    side = int(rng.uniform(0.3, 1) * min(photograph.shape[:2]))
    top, left = (int(rng.integers(0, n - side + 1)) for n in photograph.shape[:2])
    return np.asarray(
        cv2.resize(photograph[top : top + side, left : left + side], (TEXTURE_SIZE, TEXTURE_SIZE)), np.uint8
    )


def render_walk(room: Room, rng: Noise, views: int, width: int = 160, height: int = 120) -> list[RenderedView]:
    """`views` images of `width` × `height` pixels from a camera that moves through the room in small random steps."""
    eye, yaw, pitch = max(
        (_random_camera_pose(room, rng) for _ in range(CAMERA_POSE_CANDIDATES)),
        key=lambda p: _depth_edge_fraction(room, rng, *p),
    )
    step = np.exp(rng.uniform(np.log(0.02), np.log(0.25)))
    field = np.radians(rng.uniform(50, 68))
    result = []
    for _ in range(views):
        result.append(render(room, rng, eye, yaw, pitch, field, width, height))
        eye = np.clip(eye + rng.normal(0, step, 3) * [1, 1, 0.4], 0.25, room.size - 0.25).astype(np.float32)
        yaw, pitch = yaw + rng.normal(0, step), np.clip(pitch + rng.normal(0, 0.4 * step), -0.3, 0.9)
    return result


def _random_camera_pose(room: Room, rng: Noise) -> tuple[Floats, float, float]:
    """A pose that looks at a random object: (eye in m, yaw, pitch downwards in rad)."""
    target = room.objects[rng.integers(len(room.objects))].centre + rng.normal(0, 0.2, 3)
    bearing, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 3.0)
    eye = np.array([*(target[:2] + away * np.array([np.cos(bearing), np.sin(bearing)])), rng.uniform(0.7, 1.8)])
    eye = np.clip(eye, 0.25, room.size - 0.25).astype(np.float32)
    off = target - eye
    return eye, float(np.arctan2(off[1], off[0])), float(np.clip(np.arctan2(-off[2], np.hypot(*off[:2])), -0.3, 0.9))


def _depth_edge_fraction(room: Room, rng: Noise, eye: Floats, yaw: float, pitch: float) -> float:
    """The fraction of pixels with a depth edge in a small image: how much a view shows."""
    depth = render(room, rng, eye, yaw, pitch, np.radians(60), 48, 36).depth
    with np.errstate(invalid="ignore"):
        return float((np.abs(np.diff(np.nan_to_num(depth), axis=0)) > 0.08).mean())


def render(
    room: Room, rng: Noise, eye: Floats, yaw: float, pitch: float, field_of_view: float, width: int, height: int,
    frame_rng: Noise | None = None, noise_scale: float = 1.0,
) -> RenderedView:  # fmt: skip
    """Render the images at `eye` (m), `yaw` and `pitch` (rad, downwards), with a horizontal field of view in rad.

    `frame_rng` (default: `rng`) draws the depth noise and `rng` the rest. To keep exposure, tint and the patches
    without depth in all images of a room, pass an equal `rng` for each. `noise_scale`: factor of the depth noise.
    """
    focal = width / 2 / np.tan(field_of_view / 2)
    v, u = np.mgrid[:height, :width].astype(np.float32)
    right, down = (u - (width - 1) / 2) / focal, (v - (height - 1) / 2) / focal
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)])
    across = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    below = np.cross(forward, across)
    rays = (forward + right[..., None] * across + down[..., None] * below).reshape(-1, 3).astype(np.float32)
    depth, normal, texel, pattern, warmth = _intersect_walls(room, eye, rays)
    squares = np.einsum("ij,ij->i", rays, rays)
    for obj in room.objects:
        _intersect_object(obj, eye, rays, squares, depth, normal, texel, pattern, warmth)
    at = np.floor(texel).astype(np.int64) % TEXTURE_SIZE
    colour = room.textures[pattern, at[:, 1], at[:, 0]].astype(np.float32)
    light = room.ambient_light + (np.clip(normal @ room.light_directions.T, 0, None) @ room.light_intensities)
    warm = rng.uniform(0.85, 1.15, 3)
    image = (colour * light[:, None] * warm).reshape(height, width, 3) * rng.uniform(0.7, 1.3)
    image = np.clip(image + rng.normal(0, rng.uniform(1, 8), image.shape), 0, 255).astype(np.uint8)
    metres = depth.reshape(height, width)
    kelvin = (room.kelvin + warmth + 0.01 * (colour.mean(axis=1) - 128)).reshape(height, width)
    return RenderedView(image, structured_light(metres, rng, frame_rng, noise_scale), kelvin.astype(np.float32))


def _intersect_walls(
    room: Room, eye: Floats, rays: Floats
) -> tuple[Floats, Floats, Floats, npt.NDArray[np.int64], Floats]:
    """The points of walls, floor and ceiling that the rays (N, 3) meet: (depth (N,), normal (N, 3), texel (N, 2),
    texture (N,), temperature offset (N,))."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ahead = np.where(rays > 0, (room.size - eye) / rays, np.where(rays < 0, -eye / rays, np.inf))
    x, y, z = ahead.T  # comparing three columns is much faster than a reduction along an axis of length three
    axis = np.where((x <= y) & (x <= z), 0, np.where(y <= z, 1, 2))
    depth = np.minimum(np.minimum(x, y), z)
    hit = eye + depth[:, None] * rays
    normal = np.zeros_like(rays)
    rows = np.arange(len(rays))
    normal[rows, axis] = -np.sign(rays[rows, axis])
    texel = np.stack([np.where(axis == 0, hit[:, 1], hit[:, 0]), np.where(axis == 2, hit[:, 1], hit[:, 2])], axis=1)
    pattern = np.where(axis == 2, np.where(rays[:, 2] > 0, 0, 1), 2 + axis)
    return (
        depth.astype(np.float32),
        normal,
        (texel * TEXTURE_SIZE).astype(np.float32),
        pattern,
        np.where(axis == 2, -1.0, 0.0),
    )


def _intersect_object(
    obj: SceneObject, eye: Floats, rays: Floats, squares: Floats, depth: Floats, normal: Floats, texel: Floats,
    pattern: npt.NDArray[np.int64], warmth: Floats,
) -> None:  # fmt: skip
    """Update, in place, the rays (N, 3) that meet an object first. `squares` (N,): squared lengths of the rays."""
    bound = float(np.linalg.norm(obj.half_size)) + 1e-2
    to = obj.centre - eye
    along = rays @ to
    # Rays that meet its bounding sphere and point towards it.
    near = np.flatnonzero((along * along > (to @ to - bound * bound) * squares) & (along > -bound * squares))
    if not len(near):
        return
    cos, sin = np.float32(np.cos(obj.yaw)), np.float32(np.sin(obj.yaw))
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], np.float32)
    start, ray = turn @ (eye - obj.centre), rays[near] @ turn.T
    with np.errstate(divide="ignore", invalid="ignore"):
        if obj.shape == "box":
            a, b = (-obj.half_size - start) / ray, (obj.half_size - start) / ray
            x, y, z = np.minimum(a, b).T
            t = np.maximum(np.maximum(x, y), z)
            axis = np.where((x >= y) & (x >= z), 0, np.where(y >= z, 1, 2))
            far_x, far_y, far_z = np.maximum(a, b).T
            met = (t < np.minimum(np.minimum(far_x, far_y), far_z)) & (t > 0.05)
            own = np.zeros_like(ray)
            rows = np.arange(len(ray))
            own[rows, axis] = -np.sign(ray[rows, axis])
        else:
            radius = obj.half_size[0]
            flat = np.array([1, 1, 0 if obj.shape == "cylinder" else 1], np.float32)
            p, d = start * flat, ray * flat
            half_b, square = d @ p, (d * d).sum(axis=1)
            root = np.sqrt(half_b**2 - square * (p @ p - radius**2))
            t = (-half_b - root) / square
            own = (start + t[:, None] * ray) * flat / radius
            met = np.isfinite(t) & (t > 0.05)
            if obj.shape == "cylinder":
                height = start[2] + t * ray[:, 2]
                met &= np.abs(height) < obj.half_size[2]
                lid = (np.sign(start[2]) * obj.half_size[2] - start[2]) / ray[:, 2]
                place = start[:2] + lid[:, None] * ray[:, :2]
                on_lid = (np.linalg.norm(place, axis=1) < radius) & (lid > 0.05) & (~met | (lid < t))
                t = np.where(on_lid, lid, t)
                own[on_lid] = [0, 0, np.sign(start[2])]
                met |= on_lid
    met &= t < depth[near]
    rows = near[met]
    depth[rows] = t[met]
    normal[rows] = own[met] @ turn
    place = start + t[met, None] * ray[met]
    if obj.shape == "box":
        chosen = axis[met]
        u, v = np.where(chosen == 0, place[:, 1], place[:, 0]), np.where(chosen == 2, place[:, 1], place[:, 2])
    else:
        u, v = np.arctan2(place[:, 1], place[:, 0]) * obj.half_size[0], place[:, 2]
    texel[rows] = np.stack([u, v], axis=1) * obj.texels_per_metre
    pattern[rows] = obj.texture
    warmth[rows] = obj.temperature_offset


def structured_light(metres: Floats, rng: Noise, frame_rng: Noise | None = None, noise_scale: float = 1.0) -> Floats:
    """Depth float32 (H, W) in m as a structured-light camera measures it: steps and noise grow with the square of the
    distance; NaN beside edges (the projector's shadow), outside the range, and in random patches."""
    step = 0.0028 * metres**2  # m between two disparities of a first Kinect (Khoshelham & Elberink, 2012)
    grain = (frame_rng or rng).normal(0, noise_scale, metres.shape)
    measured = np.round((metres + grain * 0.0012 * metres**2) / step) * step
    jump = np.abs(np.diff(metres, axis=1, prepend=metres[:, :1])) > 0.1
    width = int(rng.integers(1, 5))
    shadow = cv2.dilate(jump.astype(np.uint8), np.ones((1, 2 * width + 1), np.uint8)) > 0
    patches = cv2.resize(rng.random((12, 16)).astype(np.float32), metres.shape[::-1], interpolation=cv2.INTER_CUBIC)
    lost = shadow | (metres < MIN_DEPTH) | (metres > MAX_DEPTH) | (patches > rng.uniform(0.85, 1.3))
    return np.where(lost, np.nan, measured).astype(np.float32)
