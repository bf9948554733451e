"""Readings of an IMU in falls and in other motions, from mechanics. The motions are in the x-z plane, z is up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

RATE = 200.0  # Hz
GRAVITY = 9.80665  # m/s²
Series = npt.NDArray[np.float64]
AFTER = 2.5  # s of rest after a fall


def readings(world_acceleration: Series, tilt: Series, seed: int = 0) -> Series:
    """Acceleration (N, 3) in the world (m/s², without gravity) and tilt around y (N,) in rad → readings (N, 6).

    A tilt of θ turns the z axis of the IMU towards x. The noise is that of a cheap IMU.
    """
    force = world_acceleration + [0.0, 0.0, GRAVITY]
    cos, sin = np.cos(tilt), np.sin(tilt)
    body = np.stack([cos * force[:, 0] - sin * force[:, 2], force[:, 1], sin * force[:, 0] + cos * force[:, 2]], axis=1)
    turning = np.zeros_like(body)
    turning[:, 1] = np.gradient(tilt, 1 / RATE)
    noise = np.random.default_rng(seed).normal(0, [0.1] * 3 + [0.01] * 3, (len(tilt), 6))
    return np.concatenate([body, turning], axis=1) + noise


def still(seconds: float) -> Series:
    return np.zeros((round(seconds * RATE), 3))


def blow(speed: float, seconds: float, direction: tuple[float, float]) -> Series:
    """The acceleration of an impact that takes `speed` (m/s) away in `seconds`: half a sine along x, z."""
    steps = max(2, round(seconds * RATE))
    shape = np.sin(np.pi * (np.arange(steps) + 0.5) / steps)
    size = speed * shape / shape.sum() * RATE
    return np.stack([size * direction[0], 0 * size, size * direction[1]], axis=1)


def topple(height: float, imu_height: float, impact: float = 0.03) -> Series:
    """A rigid body (a rod of `height`, m) tips over a lower edge and lies on its side. The IMU is `imu_height` above
    the edge. θ'' = 1.5·g / height · sin θ, until the body is stopped within `impact` (s)."""
    angles, speeds = [0.05], [0.0]
    while angles[-1] < np.pi / 2:
        speeds.append(speeds[-1] + 1.5 * GRAVITY / height * np.sin(angles[-1]) / RATE)
        angles.append(angles[-1] + speeds[-1] / RATE)
    tilt, speed = np.array(angles), np.array(speeds)
    gain = 1.5 * GRAVITY / height * np.sin(tilt)
    along, across = np.stack([np.cos(tilt), -np.sin(tilt)]), np.stack([np.sin(tilt), np.cos(tilt)])
    moving = imu_height * (gain * along - speed**2 * across)
    fall = np.stack([moving[0], 0 * tilt, moving[1]], axis=1)
    hit = blow(imu_height * speeds[-1], impact, (0.0, 1.0))
    path = np.concatenate([still(AFTER), fall, hit, still(AFTER)])
    turn = np.concatenate([np.zeros(len(still(AFTER))), tilt, np.full(len(hit) + len(still(AFTER)), np.pi / 2)])
    return readings(path, turn)


def drop(height: float, impact: float = 0.03) -> Series:
    """A robot that is held still falls `height` (m) on its wheels."""
    duration = np.sqrt(2 * height / GRAVITY)
    fall = still(duration) - [0.0, 0.0, GRAVITY]
    hit = blow(GRAVITY * len(fall) / RATE, impact, (0.0, 1.0))
    path = np.concatenate([still(AFTER), fall, hit, still(AFTER)])
    return readings(path, np.zeros(len(path)))


def jump(height: float = 0.3) -> Series:
    """A jump in place from a crouch, `height` (m), and rest afterwards."""
    speed = np.sqrt(2 * GRAVITY * height)
    flight = still(2 * speed / GRAVITY) - [0.0, 0.0, GRAVITY]
    crouch = np.concatenate([blow(1.0, 0.3, (0.0, -1.0)), blow(1.0, 0.2, (0.0, 1.0))])
    parts = [still(AFTER), crouch, blow(speed, 0.25, (0.0, 1.0)), flight, blow(speed, 0.06, (0.0, 1.0)), still(AFTER)]
    path = np.concatenate(parts)
    return readings(path, 0.1 * np.sin(np.arange(len(path)) / RATE))


def walk(seconds: float = 6.0) -> Series:
    """Steps of a person or a legged robot: twice a second a heel strike of 2.5 g, while the body rocks by 15°."""
    times = np.arange(0, seconds, 1 / RATE)
    path = np.zeros((len(times), 3))
    path[:, 2] = 0.35 * GRAVITY * np.sin(2 * np.pi * 2 * times)
    for start in np.arange(0.2, seconds - 0.2, 0.5):
        strike = blow(0.35, 0.05, (0.3, 1.0))
        path[round(start * RATE) :][: len(strike)] += strike
    return readings(path, np.deg2rad(15) * np.sin(2 * np.pi * times))


def bump(seconds: float = 6.0) -> Series:
    """A wheeled robot vibrates and drives over a sill: each axle is thrown up and drops, with blows of 4 g."""
    path = np.random.default_rng(3).normal(0, 1.5, (round(seconds * RATE), 3))
    for start in (2.9, 3.2):
        parts = [blow(0.7, 0.03, (-0.5, 1.0)), blow(1.0, 0.1, (0.0, -1.0)), blow(0.6, 0.03, (0.2, 1.0))]
        hit = np.concatenate(parts)
        path[round(start * RATE) :][: len(hit)] += hit
    times = np.arange(len(path)) / RATE
    return readings(path, np.deg2rad(10) * np.exp(-(((times - 3.1) / 0.2) ** 2)))


def collision(seconds: float = 6.0) -> Series:
    """A robot at 1.5 m/s drives into a wall, which stops it with up to 12 g."""
    path = np.random.default_rng(4).normal(0, 0.5, (round(seconds * RATE), 3))
    hit = blow(1.5, 0.02, (-1.0, 0.2))
    path[round(3 * RATE) :][: len(hit)] += hit
    return readings(path, np.zeros(len(path)))


def sharp_turn(seconds: float = 6.0) -> Series:
    """A fast car turns: 0.8 g to the side for 2 s, with a bank of 6°."""
    times = np.arange(0, seconds, 1 / RATE)
    on = 1 / (1 + np.exp(-(times - 2) * 12)) - 1 / (1 + np.exp(-(times - 4) * 12))
    path = np.random.default_rng(5).normal(0, 0.5, (len(times), 3))
    path[:, 0] += 0.8 * GRAVITY * on
    return readings(path, np.deg2rad(6) * on)


def lifted_and_laid_down(seconds: float = 6.0) -> Series:
    """Somebody lifts a robot, turns it by 90° within a second and puts it on its side with a knock of 1.3 g."""
    times = np.arange(0, seconds, 1 / RATE)
    path = np.zeros((len(times), 3))
    path[:, 2] = 2.5 * np.sin(2 * np.pi * 0.8 * times) * ((times > 1.5) & (times < 4.0))
    knock = blow(0.06, 0.02, (0.0, 1.0))
    path[round(4.0 * RATE) :][: len(knock)] += knock
    return readings(path, np.pi / 2 / (1 + np.exp(-(times - 3) * 8)))


def drone_manoeuvre(seconds: float = 6.0) -> Series:
    """A drone cuts its thrust to 0.2 g, turns by 70° and brakes with 2.5 g. The thrust follows within 50 ms. The only
    other force is a little drag."""
    times = np.arange(0, seconds, 1 / RATE)
    tilt = np.deg2rad(70) * np.sin(2 * np.pi * 0.7 * times) * (times > 1.0)
    wanted = np.where((times > 2.5) & (times < 3.0), 0.2, np.where((times >= 3.0) & (times < 3.6), 2.5, 1.0)) * GRAVITY
    thrust = wanted.copy()
    for step in range(1, len(times)):
        thrust[step] = thrust[step - 1] + (wanted[step] - thrust[step - 1]) / (0.05 * RATE)
    path = np.stack([thrust * np.sin(tilt), 0 * tilt, thrust * np.cos(tilt) - GRAVITY], axis=1)
    drag = np.random.default_rng(6).normal(0, 1.0, path.shape)
    return readings(path + drag, tilt)


FALLS: dict[str, Callable[[], Series]] = {
    "a robot 0.5 m high tips over": lambda: topple(0.5, 0.35),
    "a robot 1.2 m high tips over": lambda: topple(1.2, 1.0),
    "a person falls over, IMU at the hip": lambda: topple(1.7, 0.9, impact=0.06),
    "dropped from 0.3 m": lambda: drop(0.3),
    "dropped from 1 m": lambda: drop(1.0, impact=0.05),
}
OTHER_MOTIONS: dict[str, Callable[[], Series]] = {
    "at rest": lambda: readings(still(6.0), np.zeros(1200)),
    "a jump in place": jump,
    "walking": walk,
    "driving over a sill": bump,
    "a collision with a wall": collision,
    "a sharp turn": sharp_turn,
    "lifted and laid down": lifted_and_laid_down,
    "a drone's manoeuvre": drone_manoeuvre,
}
