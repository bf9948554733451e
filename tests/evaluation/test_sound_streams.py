"""Streams of clips in noise: the true intervals, the level of the sounds, and joints without steps of level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sensebind.evaluation.real import office_sounds
from sensebind.evaluation.real.robot_noise import NOISE_LEVEL, robot_noise
from sensebind.evaluation.real.sound_streams import (
    Clip,
    audible_intervals,
    class_name,
    clip_of,
    join_in_robot_noise,
    random_order,
    read_clips,
)
from sensebind.evaluation.spaces.sounds import SoundDataError
from sensebind.evaluation.spans import Spans
from sensebind.evaluation.tables import TableError
from sensebind.fusion.core.samples import SECOND, Sound

RATE = 16_000


def tone(*parts: tuple[float, float]) -> np.ndarray:
    """A tone of parts (seconds, amplitude)."""
    wave = np.concatenate([np.full(round(seconds * RATE), amplitude) for seconds, amplitude in parts])
    return (wave * np.sin(2 * np.pi * 500 * np.arange(len(wave)) / RATE)).astype(np.float32)


def test_padding_is_not_part_of_an_event() -> None:
    ((onset, offset),) = audible_intervals(tone((0.7, 0), (1.5, 0.3), (2.8, 0)))
    assert (onset, offset) == pytest.approx((0.7, 2.2), abs=0.02)


def test_a_short_pause_belongs_to_the_event_and_a_long_one_separates_two() -> None:
    barks = tone((0.3, 0.2), (0.8, 0), (0.3, 0.3), (1.4, 0), (0.3, 0.2), (0.5, 0))
    assert np.array(audible_intervals(barks)) == pytest.approx(np.array([(0.0, 1.4), (2.8, 3.1)]), abs=0.02)


def test_a_faint_part_after_a_long_pause_is_no_event() -> None:
    faint = 0.3 * 10 ** (-25 / 20)
    assert len(audible_intervals(tone((0.5, 0.3), (1.5, 0), (0.5, faint)))) == 1
    ((_, offset),) = audible_intervals(tone((0.5, 0.3), (0.5, faint)))  # it belongs to the event that it follows
    assert offset == pytest.approx(1.0)


def test_silence_is_no_clip_and_the_level_of_a_clip_is_that_of_its_audible_part() -> None:
    assert clip_of(np.zeros(RATE, np.float32), "nothing") is None
    clip = clip_of(tone((0.5, 0), (1.0, 0.2), (0.6, 0), (1.0, 0.2), (1.0, 0)), "tone")
    assert clip is not None
    assert clip.seconds == pytest.approx(2.6, abs=0.03)
    assert clip.level == pytest.approx(0.2 / np.sqrt(2), rel=0.02)


@pytest.mark.parametrize(
    ("folder", "words"),
    [("001 - Dog bark", "dog bark"), ("glass_breaking", "glass breaking"), ("left - right", "left - right")],
)
def test_the_name_of_a_class_has_no_number(folder: str, words: str) -> None:
    assert class_name(folder) == words


def test_clips_are_read_by_fold_and_a_folder_without_clips_is_named(tmp_path: Path) -> None:
    for name in ("001 - Dog bark/1-7-A", "001 - Dog bark/2-7-A", "002 - Rain/1-8-A"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / f"{name}.wav", tone((0.5, 0.2)), RATE)
    assert [clip.name for clip in read_clips(tmp_path, "1")] == ["dog bark", "rain"]
    assert len(read_clips(tmp_path)) == 3
    with pytest.raises(SoundDataError, match="begin with one of '3'"):
        read_clips(tmp_path, "3")


def test_robot_noise_has_its_level_and_no_long_silence() -> None:
    noise = robot_noise(np.random.default_rng(1), 30.0)
    assert 20 * np.log10(np.sqrt(np.mean(noise**2))) == pytest.approx(NOISE_LEVEL, abs=0.01)
    levels = 10 * np.log10((noise[: 30 * RATE].reshape(30, RATE) ** 2).mean(axis=1))
    assert levels.max() - levels.min() < 12


def test_a_stream_holds_each_clip_at_its_true_interval_and_level() -> None:
    clips = [c for name in "ab" if (c := clip_of(tone((0.2, 0), (1.0, 0.05), (1.2, 0), (1.0, 0.05)), name))]
    stream = join_in_robot_noise(clips, 60.0, 20.0, seed=3)
    assert stream.seconds == 60 and len(stream.truth) >= 12 and set(stream.truth.labels) == {"a", "b"}
    spectrum = np.abs(np.fft.rfft((stream.samples / 32768.0).reshape(-1, RATE // 20), axis=1))
    at_tone = spectrum[:, 25] / spectrum.shape[1] / np.sqrt(2)  # RMS at 500 Hz in steps of 0.05 s
    times = (np.arange(len(at_tone)) + 0.5) / 20
    level = 10 ** ((NOISE_LEVEL + 20) / 20)
    inside = np.zeros(len(times), bool)
    for onset, offset, _ in stream.truth.rows():
        inside |= (times > onset + 0.05) & (times < offset - 0.05)
        assert offset - onset == pytest.approx(1.0, abs=0.05)
    near = np.zeros(len(times), bool)
    for onset, offset, _ in stream.truth.rows():
        near |= (times > onset - 0.1) & (times < offset + 0.1)
    np.testing.assert_allclose(at_tone[inside], level, rtol=0.2)
    assert at_tone[~near].max() < 0.3 * level


def test_the_same_seed_gives_the_same_stream_and_another_seed_another() -> None:
    clips = [Clip(tone((0.5, 0.1)), "a", ((0.0, 0.5),))]
    first, same, other = (join_in_robot_noise(clips, 20.0, 10.0, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.samples, same.samples) and first.truth.rows() == same.truth.rows()
    assert first.truth.rows() != other.truth.rows()
    with pytest.raises(SoundDataError, match="no clip fits"):
        join_in_robot_noise(clips, 4.0, 10.0, 1)


def test_each_class_occurs_once_in_a_round_and_no_clip_twice_before_the_others() -> None:
    clips = [Clip(tone((0.1, 0.1)), name, ((0.0, 0.1 + i / 100),)) for name in "abc" for i in range(2)]
    order = random_order(clips, np.random.default_rng(0))
    drawn = [next(order) for _ in range(6)]
    assert {c.name for c in drawn[:3]} == {c.name for c in drawn[3:]} == {"a", "b", "c"}
    assert len({(c.name, c.intervals) for c in drawn}) == 6


def test_the_messages_of_a_stream_follow_each_other_without_gaps() -> None:
    stream = join_in_robot_noise([Clip(tone((0.5, 0.1)), "a", ((0.0, 0.5),))], 10.05, 10.0, 1)
    messages = list(stream.messages(5 * SECOND))
    assert messages[0].stamp == 5 * SECOND
    assert all(a.end == b.stamp for a, b in zip(messages, messages[1:], strict=False))
    sounds = [m.data.data for m in messages if isinstance(m.data, Sound)]
    assert np.array_equal(np.concatenate(sounds)[:, 0], stream.samples)


@pytest.fixture
def noisy_folder(tmp_path: Path) -> Path:
    """Clips of three mixtures at two levels: a tone in white noise."""
    random, rows = np.random.default_rng(5), ["file,class,event_to_background_db"]
    for number, name in enumerate(("knock", "doorslam", "phone")):
        (tmp_path / "noisy" / name).mkdir(parents=True)
        noise = 0.01 * random.standard_normal(round((1.5 + 0.5 * number) * RATE))
        sound = np.sin(2 * np.pi * 1000 * np.arange(len(noise)) / RATE) * (np.arange(len(noise)) < RATE)
        for level in (-6, 6):
            file = f"noisy/{name}/dev_ebr_{level}_{number}.wav"
            soundfile.write(tmp_path / file, noise + 0.01 * 10 ** (level / 20) * sound, RATE, subtype="FLOAT")
            rows.append(f"{file},{name},{level}")
    (tmp_path / "noisy.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_two_levels_of_a_mixture_give_its_noise() -> None:
    noise, sound = np.random.default_rng(1).standard_normal((2, 1000))
    found = office_sounds.noise_of_mixture(noise + sound, noise + 10 ** (12 / 20) * sound, 12.0)
    np.testing.assert_allclose(found, noise, atol=1e-9)


def test_office_streams_have_the_noise_of_their_clips_between_them(noisy_folder: Path) -> None:
    clips = office_sounds.read_noisy_clips(noisy_folder)
    assert {clip.name for clip in clips} == {"knock", "door slam", "phone"}
    streams = office_sounds.level_streams(clips, seed=4)
    assert [stream.name for stream in streams.values()] == ["-6 dB", "6 dB"]
    quiet, loud = streams.values()
    assert quiet.truth.rows() == loud.truth.rows() and len(quiet.truth) == 3
    levels = np.sqrt(np.square(quiet.samples[: len(quiet.samples) // 800 * 800] / 32768).reshape(-1, 800).mean(axis=1))
    assert levels.min() > 0.008 and levels.max() < 0.014  # noise of 0.01 everywhere; the sound adds 0.8 dB at most
    truth: Spans = loud.truth
    for onset, offset, _ in truth.rows():
        part = loud.samples[round(onset * RATE) : round(offset * RATE)] / 32768
        spectrum = np.abs(np.fft.rfft(part[800:12_800]))  # the tone lasts 1 s
        assert spectrum.argmax() == 1000 * 12_000 // RATE


def test_clips_at_one_level_alone_have_no_known_noise(noisy_folder: Path) -> None:
    clips = [clip for clip in office_sounds.read_noisy_clips(noisy_folder) if clip.level == 6]
    with pytest.raises(SoundDataError, match="two levels"):
        office_sounds.level_streams(clips, 1)
    with pytest.raises(TableError, match=r"noisy\.csv"):
        office_sounds.read_noisy_clips(noisy_folder / "noisy")
