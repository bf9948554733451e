"""Microphone arrays: which channel of a sound is used."""

from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest

from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.samples import Sound
from sensebind.fusion.io.sensor_messages.channels import ChannelSelector
from sensebind.fusion.io.sensor_options import AudioFormat

RATE = 16_000


def block(levels: list[float], seed: int = 0) -> Sound:
    """0.1 s of independent noise in each channel, with these root mean squares."""
    noise = np.random.default_rng(seed).standard_normal((RATE // 10, len(levels)))
    return Sound((0.5 * noise * levels).astype(np.float32), RATE)


def opposite(level: float = 0.1) -> Sound:
    wave = block([level]).data
    return Sound(np.hstack([wave, -wave]), RATE)


def used(choice: str, *sounds: Sound) -> npt.NDArray[np.generic]:
    """What the selector returns for the last of these sounds."""
    selector = ChannelSelector(choice)
    return [selector.apply(sound) for sound in sounds][-1].data


@pytest.mark.parametrize("number", [0, 3])
def test_a_number_selects_that_channel(number: int) -> None:
    sound = block([0.1, 0.2, 0.3, 0.4])
    assert np.array_equal(used(str(number), sound)[:, 0], sound.data[:, number])


def test_a_channel_that_the_array_lacks_is_an_error_with_the_range() -> None:
    with pytest.raises(EncodingError, match=r"audio\.channel.*is 4.*4 channels.*0 to 3"):
        used("4", block([0.1] * 4))


def test_without_a_choice_one_and_two_channels_are_unchanged_and_more_give_the_first() -> None:
    for count in (1, 2):
        sound = block([0.1] * count)
        assert used("", sound) is sound.data
    sound = block([0.1, 0.2, 0.3])
    assert np.array_equal(used("", sound), sound.data[:, :1])


def test_the_mean_is_of_all_channels() -> None:
    sound = block([0.1, 0.2, 0.3])
    np.testing.assert_allclose(used("mean", sound)[:, 0], sound.data.mean(axis=1), atol=1e-6)


def test_the_loudest_channel_changes_only_if_another_is_clearly_louder() -> None:
    quiet, slightly, clearly = block([0.2, 0.1]), block([0.2, 0.22], 1), block([0.1, 0.8], 2)
    assert np.array_equal(used("loudest", quiet, *[slightly] * 30)[:, 0], slightly.data[:, 0])
    assert np.array_equal(used("loudest", quiet, *[clearly] * 30)[:, 0], clearly.data[:, 1])
    assert np.array_equal(used("loudest", *[clearly] * 3, *[slightly] * 30)[:, 0], slightly.data[:, 1])


@pytest.mark.parametrize("choice", ["", "mean"])
def test_channels_that_cancel_each_other_are_named(choice: str) -> None:
    selector = ChannelSelector(choice)
    selector.apply(opposite())
    assert "2 channels" in selector.warning and "audio.channel" in selector.warning


@pytest.mark.parametrize(("choice", "sound"), [("0", opposite()), ("", block([0.1, 0.1])), ("mean", opposite(0.0))])
def test_channels_that_are_not_averaged_or_do_not_cancel_give_no_warning(choice: str, sound: Sound) -> None:
    selector = ChannelSelector(choice)
    selector.apply(sound)
    assert selector.warning == ""


@pytest.mark.parametrize("wrong", ["left", "-1", "1.5"])
def test_another_word_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="a number from 0, mean or loudest"):
        AudioFormat(channel=wrong)


@pytest.mark.parametrize("odd", [np.zeros((0, 2), np.float32), np.full((160, 2), np.nan, np.float32)])
def test_a_sound_without_a_level_does_not_change_which_channel_is_the_loudest(odd: npt.NDArray[np.float32]) -> None:
    selected = used("loudest", Sound(odd, RATE), *[block([0.0, 0.5], seed) for seed in range(5)])
    assert np.array_equal(selected[:, 0], block([0.0, 0.5], 4).data[:, 1])


def test_the_levels_of_a_long_file_are_calculated_in_blocks() -> None:
    """As one array, 256 kB of FLAC took 2.5 GB."""
    data = np.zeros((2**22, 2), np.int16)
    tracemalloc.start()
    ChannelSelector("").apply(Sound(data, 48_000.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < data.nbytes
