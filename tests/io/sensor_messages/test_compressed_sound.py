"""Sound as microphone drivers send it: MP3, Opus, 24 bits, wrong rates, and its format after its data."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.field_recordings import STAMPED_SOUND, START, pieces, sound_message, tone
from helpers.sensor_messages import AUDIO_DATA, BAG, audio_info
from sensebind.fusion.core.encodings import EncodingError, decode_pcm, pcm_to_float
from sensebind.fusion.core.samples import SECOND, Sample, Sound
from sensebind.fusion.io.sensor_messages.audio import MAX_WAITING_MESSAGES
from sensebind.fusion.io.sensor_messages.codecs import mp3, opus
from sensebind.fusion.io.sensor_messages.codecs.opus import OpusStream
from sensebind.fusion.io.sensor_messages.sample_decoder import SampleDecoder
from sensebind.fusion.io.sensor_options import AudioFormat, SensorOptions

soundfile = pytest.importorskip("soundfile")
STEP = SECOND // 10
NOISE = np.random.default_rng(0)


def encoded(samples: npt.NDArray[np.float64], rate: int, container: str, subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


def microphone(**form: object) -> SampleDecoder:
    decoder = SampleDecoder(SensorOptions("audio", audio_format=AudioFormat(**form)), STAMPED_SOUND, "/mic/audio")
    decoder.side_topics("/mic/audio")
    return decoder


def decoded(decoder: SampleDecoder, data: Sequence[bytes]) -> list[Sample]:
    """The samples of messages every 0.1 s."""
    found = []
    for number, piece in enumerate(data):
        found += decoder.decode(sound_message(START + number * STEP, piece), START + (number + 1) * STEP)
    return found


def waveform(samples: Sequence[Sample]) -> npt.NDArray[np.float32]:
    sounds = [sample.data for sample in samples]
    return np.concatenate([pcm_to_float(sound.data) for sound in sounds if isinstance(sound, Sound)])[:, 0]


def likeness(found: npt.NDArray[np.float32], true: npt.NDArray[np.float64], most: int) -> float:
    """The correlation of two waveforms at the best delay below `most` samples."""
    size = min(len(found), len(true)) - most
    return max(float(np.corrcoef(found[delay : delay + size], true[:size])[0, 1]) for delay in range(0, most, 1))


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_mp3_in_pieces_is_the_sound_of_the_whole_stream(rate: int) -> None:
    true = tone(rate, 3.0)
    samples = decoded(microphone(coding_format="mp3"), pieces(encoded(true, rate, "MP3", "MPEG_LAYER_III"), 30))
    assert {sample.data.sample_rate for sample in samples if isinstance(sample.data, Sound)} == {rate}
    found = waveform(samples)
    assert abs(len(found) - len(true)) < 4000
    assert likeness(found, true, 2500) > 0.97
    joined = [after.stamp == before.end for before, after in zip(samples, samples[1:], strict=False)]
    assert sum(joined) > 0.8 * len(joined), "a sound begins at the end of the one before"


def test_mp3_from_the_middle_of_a_stream_is_that_of_the_whole_stream_after_its_first_frames() -> None:
    data = encoded(tone(16000), 16000, "MP3", "MPEG_LAYER_III")
    whole = waveform(decoded(microphone(coding_format="mp3"), pieces(data, 50)))
    middle = waveform(decoded(microphone(coding_format="mp3"), pieces(data[len(data) // 3 :], 30)))
    assert np.abs(middle[6000:] - whole[-len(middle) :][6000:]).max() < 1e-4


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 700), min_size=20, max_size=40))
def test_mp3_does_not_depend_on_where_it_is_cut(sizes: list[int]) -> None:
    data = encoded(tone(16000, 1.0), 16000, "MP3", "MPEG_LAYER_III")
    cuts = [0, *np.cumsum(sizes).tolist()]
    parts = [data[first:last] for first, last in zip(cuts, [*cuts[1:], len(data)], strict=True)]
    found, whole = (waveform(decoded(microphone(coding_format="mp3"), p)) for p in (parts, [data]))
    assert len(found) == len(whole) and np.abs(found - whole).max() < 1e-4


def test_mp3_is_known_by_audio_info_or_by_its_content() -> None:
    data = pieces(encoded(tone(16000, 2.0), 16000, "MP3", "MPEG_LAYER_III"), 20)
    informed = microphone()
    informed.apply_side_message(audio_info(16000, coding="mp3"))
    assert np.array_equal(waveform(decoded(informed, data)), waveform(decoded(microphone(), data)))


def test_opus_in_ogg_is_decoded_in_pieces() -> None:
    true = tone(48000, 3.0)
    samples = decoded(microphone(coding_format="opus"), pieces(encoded(true, 48000, "OGG", "OPUS"), 30))
    found = waveform(samples)
    assert abs(len(found) - len(true)) < 48000 // 5
    assert max(np.corrcoef(found[d : d + 120_000], true[:120_000])[0, 1] for d in range(1500)) > 0.9


def test_packets_of_opus_one_a_message_are_the_sound_of_the_stream() -> None:
    data = encoded(tone(48000, 2.0), 48000, "OGG", "OPUS")
    packets = [p for p in OpusStream()._ogg_packets(data) if not p.startswith((b"OpusHead", b"OpusTags"))]
    stream = waveform(decoded(microphone(coding_format="opus"), [data]))
    found = waveform(decoded(microphone(coding_format="opus"), packets))
    assert len(found) == len(stream) and np.abs(found - stream)[20_000:].max() < 0.01


def test_damaged_data_are_refused_with_the_parameter() -> None:
    noise = np.random.default_rng(0).integers(0, 250, 100_000, dtype=np.uint8).tobytes()
    with pytest.raises(EncodingError, match=r"audio\.coding_format"):
        decoded(microphone(coding_format="mp3"), [noise])
    other = microphone()
    with pytest.raises(EncodingError, match=r"flac.*'wave', 'mp3' or 'opus'"):
        other.apply_side_message(audio_info(16000, coding="flac"))


def as_bytes(sound: npt.NDArray[np.int64], name: str) -> bytes:
    """24-bit samples as bytes of a format, written out by hand."""
    shift = 2**23 if name.startswith("U") else 0
    order = "big" if name.endswith("BE") else "little"
    width = 3 if name in ("S24LE", "S24BE", "S24_3LE", "U24LE", "U24_3BE") else 4
    signed = not name.startswith("U")
    return b"".join(int(value + shift).to_bytes(width, order, signed=signed) for value in sound)


@pytest.mark.parametrize("name", ["S24LE", "S24BE", "S24_3LE", "S24_32LE", "S24_LE", "U24LE", "U24_3BE", "U24_32LE"])
def test_24_bits_have_the_same_values_in_3_and_4_bytes_signed_or_not(name: str) -> None:
    true = np.array([0, 1, -1, 2**23 - 1, -(2**23), 1234567, -7654321], np.int64)
    found = pcm_to_float(decode_pcm(as_bytes(true, name), name, 1))[:, 0]
    assert np.allclose(found, true / 2**23, atol=1e-6)


@pytest.mark.parametrize(("name", "dtype"), [("U16LE", "<u2"), ("U16BE", ">u2"), ("U32LE", "<u4")])
def test_unsigned_sound_has_its_zero_in_the_middle(name: str, dtype: str) -> None:
    middle = 2 ** (8 * np.dtype(dtype).itemsize - 1)
    values = np.array([middle, 0, 2 * middle - 1], dtype)
    assert np.allclose(pcm_to_float(decode_pcm(values.tobytes(), name, 1))[:, 0], [0, -1, 1], atol=1e-4)


@pytest.mark.parametrize("rate", [1, 0.001, 10_000_000])
def test_a_rate_that_no_microphone_has_is_refused(rate: float) -> None:
    decoder = microphone()
    decoder.apply_side_message(audio_info(rate=rate))  # type: ignore[arg-type]
    with pytest.raises(EncodingError, match=rf"{rate:.12g} Hz.*audio\.sample_rate"):
        decoder.decode(sound_message(START, bytes(3200)), START)


@pytest.mark.parametrize(("said", "true"), [(16000, 48000), (48000, 16000), (16000, 32000)])
def test_a_rate_that_stamps_deny_is_named_with_both_and_with_the_parameter(said: int, true: int) -> None:
    decoder = microphone(sample_format="S16LE", channels=1, sample_rate=said)
    decoded(decoder, [bytes(true // 10 * 2)] * 40)
    (warning,) = decoder.warnings
    assert f"{said} Hz" in warning and f"audio.sample_rate: {true}" in warning
    assert ("audio.channels: 2" in warning) == (true == 2 * said)
    right = microphone(sample_format="S16LE", channels=1, sample_rate=true)
    decoded(right, [bytes(true // 10 * 2)] * 40)
    assert not right.warnings


def test_sound_before_its_format_waits_and_is_used() -> None:
    decoder, blocks = microphone(), [bytes(3200)] * 5
    assert decoded(decoder, blocks[:4]) == []
    decoder.apply_side_message(audio_info(16000))
    samples = decoder.decode(sound_message(START + 4 * STEP, blocks[4]), START + 5 * STEP)
    assert [sample.stamp for sample in samples] == [START + number * STEP for number in range(5)]


def test_a_format_that_never_comes_is_an_error_after_seconds_and_names_where_it_is_expected() -> None:
    decoder, silent = microphone(), 0
    for number in range(60):
        try:
            assert decoder.decode(sound_message(START + number * STEP, bytes(3200)), START + number * STEP) == []
            silent += 1
        except EncodingError as error:
            assert all(part in str(error) for part in ("AudioInfo", "/mic/info", "audio.sample_rate"))
    assert silent == 30
    assert decoder.finish() == [] and sum(decoder.unused.values()) == 30, "those that still wait are counted"


def test_however_long_a_clock_stands_still_a_bounded_number_of_sounds_waits_for_a_format() -> None:
    decoder, errors = microphone(), 0
    for _ in range(MAX_WAITING_MESSAGES + 200):
        try:
            decoder.decode(sound_message(START, b""), START)
        except EncodingError:
            errors += 1
    counts = decoder.message_counts()
    assert (errors, counts["messages_waiting"]) == (200, MAX_WAITING_MESSAGES)
    assert counts["arrived"] == counts["undecodable"] + counts["messages_waiting"]


def test_a_wav_file_of_many_channels_in_pieces_keeps_its_channels_and_needs_no_audio_info() -> None:
    """Its header of 44 bytes is no whole number of samples of 6 channels, so no message begins with a sample."""
    true = tone(16000, 2.0)
    channels = np.stack([true, *np.random.default_rng(0).normal(0, 0.1, (5, len(true)))], 1)
    file = encoded(channels, 16000, "WAV", "PCM_16")
    decoder = microphone()
    samples = decoded(decoder, [file[at : at + 19200] for at in range(0, len(file), 19200)])
    assert np.allclose(waveform(samples), true[: len(waveform(samples))], atol=1e-4) and not decoder.warnings
    assert len(waveform(samples)) == len(true)


def test_a_wav_header_takes_precedence_over_a_wrong_audio_info() -> None:
    decoder = microphone()
    decoder.apply_side_message(audio_info(16000))
    (sample,) = decoded(decoder, [encoded(tone(48000, 0.1), 48000, "WAV", "PCM_16")])
    assert isinstance(sample.data, Sound) and sample.data.sample_rate == 48000
    assert "48000 Hz" in decoder.warnings[0] and "audio.sample_rate" in decoder.warnings[0]


def test_compressed_sound_that_audio_info_calls_pcm_is_decoded_by_its_content() -> None:
    true = tone(16000, 3.0)
    for container, subtype, coding in (("MP3", "MPEG_LAYER_III", "mp3"), ("OGG", "OPUS", "opus")):
        decoder = microphone()
        decoder.apply_side_message(audio_info(16000))
        samples = decoded(decoder, pieces(encoded(true, 16000, container, subtype), 30))
        assert sum(sample.end - sample.stamp for sample in samples) > 2.5 * SECOND
        assert f"the data are {coding}" in decoder.warnings[0] and "audio.coding_format: wave" in decoder.warnings[0]
        obeyed = microphone(coding_format="wave", sample_format="S16LE", sample_rate=16000, channels=1)
        with pytest.raises(EncodingError, match=r"audio\.coding_format"):
            decoded(obeyed, [encoded(true, 16000, container, subtype)[:1001]])


def test_every_message_of_another_ogg_stream_is_counted_with_its_coding() -> None:
    data, refused = pieces(encoded(tone(16000, 2.0), 16000, "OGG", "VORBIS"), 20), 0
    decoder = microphone(coding_format="opus")
    for piece in data:
        with pytest.raises(EncodingError, match="Vorbis, not Opus"):
            decoder.decode(sound_message(START, piece), START)
        refused += 1
    assert refused == 20


@pytest.mark.parametrize(("said", "true"), [("S32LE", "S16LE"), ("S32LE", "S24LE"), ("S16LE", "S32LE or F32LE")])
def test_a_wrong_size_of_samples_is_named_with_the_format(said: str, true: str) -> None:
    size = int(true[1:3]) // 8
    decoder = microphone(sample_format=said, channels=1, sample_rate=12000)
    decoded(decoder, [bytes(1200 * size)] * 40)
    assert f"audio.sample_format: {true}" in decoder.warnings[0]


def test_messages_that_arrive_twice_are_no_other_sampling_rate() -> None:
    decoder = microphone(sample_rate=8000, channels=1, sample_format="S16LE")
    for number in range(60):
        data = NOISE.integers(-9000, 9000, 800).astype("<i2").tobytes()
        for _ in range(2):
            decoder.decode(sound_message(START + number * STEP, data), START + (number + 1) * STEP)
    assert not decoder.warnings


def test_the_rate_of_sound_without_stamps_is_compared_with_the_times_of_arrival() -> None:
    for rate, is_right in ((16000, True), (48000, False)):
        form = AudioFormat(sample_format="S16LE", channels=1, sample_rate=16000)
        decoder = SampleDecoder(SensorOptions("audio", audio_format=form), AUDIO_DATA, "/mic/audio")
        jitter = np.random.default_rng(0).integers(0, STEP // 4, 40)
        for number in range(40):
            message = BAG.make(AUDIO_DATA, data=np.zeros(rate // 10 * 2, np.uint8))
            decoder.decode(message, START + number * STEP + int(jitter[number]))
        assert bool(decoder.warnings) != is_right
        assert is_right or "audio.sample_rate: 48000" in decoder.warnings[0]


def test_audio_info_that_lacks_a_field_or_changes_is_named() -> None:
    decoder = microphone()
    decoder.apply_side_message(audio_info(0))
    decoder.decode(sound_message(START, bytes(3200)), START)
    with pytest.raises(EncodingError, match=r"AudioInfo has no sample_rate.*audio\.sample_rate"):
        decoder.decode(sound_message(START, bytes(3200)), START + 4 * SECOND)
    changed = microphone()
    changed.apply_side_message(audio_info(16000))
    changed.apply_side_message(audio_info(16000))
    assert not changed.warnings
    changed.apply_side_message(audio_info(48000, 2))
    decoded(changed, [bytes(3200)])
    assert "48000 Hz, 2 channels, which is not used" in changed.warnings[0]


@pytest.mark.parametrize("name", ["pcm_s16le", "paInt16", "s16"])
def test_names_of_formats_of_ffmpeg_and_portaudio_are_known(name: str) -> None:
    (sample,) = decoded(microphone(sample_format=name, channels=1, sample_rate=16000), [bytes(3200)])
    assert isinstance(sample.data, Sound) and sample.data.data.shape == (1600, 1)


def ogg_page(packets: int, number: int) -> bytes:
    """An Ogg page of Opus packets of one byte, each of which claims 60 ms (RFC 6716, table 2: configuration 3)."""
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, 0, 0, 1, number, 0, packets)
    return head + bytes([1] * packets) + bytes([3 << 3] * packets)


def test_a_packet_of_opus_that_never_ends_is_refused_before_it_takes_memory() -> None:
    """Each page continues the packet: each message would make the buffer longer, and copy all of it 255 times."""
    stream, page = OpusStream(), b"OggS\0\1" + bytes(20) + bytes([255] * 256) + bytes(255 * 255)
    for _ in range(3):
        with pytest.raises(EncodingError, match="over 65,536 bytes"):
            stream.decode(page * 10, 1)
        assert len(stream._partial) + len(stream._buffer) < 300_000


@pytest.mark.parametrize("stream", [OpusStream, mp3.Mp3Stream])
def test_a_huge_message_of_compressed_sound_is_refused_before_it_is_searched(stream: type) -> None:
    with pytest.raises(EncodingError, match=r"20,000,000 bytes.*audio.coding_format"):
        stream().decode(bytes(20_000_000), *([1] if stream is OpusStream else []))


def test_compressed_sound_that_claims_hours_in_one_message_is_not_decoded(monkeypatch) -> None:
    """100 kB of Opus claim 50 minutes, which would be more than 1 GB; 300 kB of MP3 claim three minutes."""
    read = []
    for module in (mp3, opus):
        monkeypatch.setattr(module, "read_sound", lambda data, name: read.append(len(data)))
    decoder = microphone(coding_format="opus")
    with pytest.raises(EncodingError, match="more than 60 s"):
        decoder.decode(sound_message(START, b"".join(ogg_page(250, i) for i in range(200))), START)
    quiet = encoded(np.zeros(200 * 8000), 8000, "MP3", "MPEG_LAYER_III")
    with pytest.raises(EncodingError, match="more than 60 s"):
        microphone(coding_format="mp3").decode(sound_message(START, quiet), START)
    assert not read


@pytest.mark.parametrize(
    ("form", "named"),
    [
        ({"rate": 1, "channels": 1}, "audio.sample_rate"),
        ({"rate": 1000, "channels": 1}, "audio.sample_rate"),  # 200 s in one message
        ({"rate": 16000, "channels": 10_000}, "audio.channels"),
    ],
)
def test_a_sound_with_claims_that_no_microphone_makes_is_refused_by_the_name_of_the_parameter(form, named) -> None:
    decoder = microphone(sample_format="S16LE")
    info = audio_info(**form)
    decoder.apply_side_message(info)
    with pytest.raises(EncodingError, match=named):
        decoder.decode(sound_message(START, bytes(400_000)), START)
