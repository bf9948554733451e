"""Recordings that are cut off, damaged, or of a recorder that was killed: what can be read is read, and what cannot is
named with its count."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from helpers.numbered_messages import (
    losses_after_reading,
    mcap_file,
    numbers,
    ros1_bag,
    rosbag2,
    text,
)
from sensebind.fusion.io.recordings import (
    DAMAGED,
    FILES,
    MISSING,
)

# Files without an end, and damaged files


def test_an_mcap_file_without_an_index_is_read_and_named(tmp_path: Path) -> None:
    found, losses, notes = losses_after_reading(mcap_file(tmp_path / "a.mcap", 50))
    assert found == list(range(50)) and not losses
    assert any("a.mcap' has no index" in note for note in notes)


@pytest.mark.parametrize("options", [{}, {"chunk_messages": 3000}, {"chunk_messages": 99, "compression": "lz4"}])
@pytest.mark.parametrize("fraction", [0.4, 0.75, 0.97])
def test_an_mcap_file_that_is_cut_off_is_read_up_to_there(
    tmp_path: Path, options: dict[str, Any], fraction: float
) -> None:
    file = mcap_file(tmp_path / "a.mcap", 2000, **options)
    size = int(fraction * file.stat().st_size)
    file.write_bytes(file.read_bytes()[:size])
    found, losses, _ = losses_after_reading(file)
    assert found == list(range(len(found))) and len(found) > (fraction - 0.1) * 2000
    [loss] = losses
    assert loss.cause == DAMAGED and "a.mcap' is cut off" in loss.text and f"of {size}" in loss.text
    assert f"{len(found)} messages" in loss.text and f"{(len(found) - 1) / 50:.2f} s" in loss.text


@pytest.mark.parametrize("mode", ["", "storage"])
def test_a_folder_with_a_cut_file_names_how_many_messages_are_missing(tmp_path: Path, mode: str) -> None:
    folder = rosbag2(tmp_path / "bag", range(3000), "mcap", mode)
    [file] = folder.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: 2 * file.stat().st_size // 3])
    found, losses, _ = losses_after_reading(folder)
    assert found == list(range(len(found))) and len(found) > 1000
    missing = next(loss for loss in losses if loss.cause == MISSING)
    assert missing.topic == "/text" and missing.messages == 3000 - len(found)
    assert f"'/text': {len(found)} of the 3000 messages" in missing.text


def test_the_zeros_after_a_power_failure_are_named(tmp_path: Path) -> None:
    file = mcap_file(tmp_path / "a.mcap", 100, has_end=False)
    size = file.stat().st_size
    file.write_bytes(file.read_bytes() + bytes(5000))
    found, losses, _ = losses_after_reading(file)
    assert found == list(range(100))
    assert len(losses) == 1 and f"is damaged: at byte {size}" in losses[0].text and "5000 bytes" in losses[0].text


@pytest.mark.parametrize("has_end", [True, False])
def test_a_chunk_with_a_wrong_checksum_is_skipped_and_named_with_its_place_and_count(
    tmp_path: Path, has_end: bool
) -> None:
    file = mcap_file(tmp_path / "a.mcap", 500, chunk_messages=50, has_end=has_end)
    content = bytearray(file.read_bytes())
    at = content.index(text(120).encode()[70:90])
    content[at : at + 20] = bytes(20)
    file.write_bytes(content)
    found, losses, _ = losses_after_reading(file)
    assert found == [number for number in range(500) if number // 50 != 2]
    assert losses[0].cause == DAMAGED and "damaged at byte" in losses[0].text and "checksum" in losses[0].text
    if has_end:
        assert losses[1].cause == MISSING and losses[1].messages == 50 and "2.00 s" in losses[0].text
        assert "450 of the 500 messages that the index counts" in losses[1].text


@pytest.mark.parametrize("kind", ["mcap", "bag"])
def test_a_compressed_chunk_is_read_up_to_its_damage(tmp_path: Path, kind: str) -> None:
    if kind == "mcap":
        file = mcap_file(tmp_path / "a.mcap", 3000, chunk_messages=3000, compression="lz4")
    else:
        file = ros1_bag(tmp_path / "a.bag", 3000, "lz4")
    content = bytearray(file.read_bytes())
    frame = content.index(b"\x04\x22\x4d\x18")
    block = frame + (15 if content[frame + 4] & 8 else 7)  # the first block of the chunk: its length, then its data
    for _ in range(3):
        block += 4 + int.from_bytes(content[block : block + 4], "little")
    content[block : block + 4] = b"\xff\xff\xff\x0f"
    file.write_bytes(content)
    found, losses, _ = losses_after_reading(file)
    assert found == list(range(len(found))) and 200 < len(found) < 2900
    assert [loss.cause for loss in losses] == [DAMAGED, MISSING] and "damaged at byte" in losses[0].text
    assert f"{len(found)} of the 3000 messages that the index counts" in losses[1].text


@pytest.mark.parametrize("compression", ["", "lz4", "bz2"])
@pytest.mark.parametrize("name", ["a.bag", "a.bag.active"])
def test_a_ros_1_bag_that_is_cut_off_is_read_up_to_there(tmp_path: Path, compression: str, name: str) -> None:
    bag = ros1_bag(tmp_path / "whole.bag", 20_000, compression)
    assert numbers(bag) == list(range(20_000))
    file = tmp_path / name
    file.write_bytes(bag.read_bytes()[: 6 * bag.stat().st_size // 10])
    found, losses, _ = losses_after_reading(file)
    assert found == list(range(len(found))) and 8000 < len(found) < 14_000
    assert len(losses) == 1 and name in losses[0].text and f"{len(found)} messages" in losses[0].text


def test_a_ros_1_bag_whose_last_chunk_is_still_open_is_read(tmp_path: Path) -> None:
    content = bytearray(ros1_bag(tmp_path / "whole.bag", 500).read_bytes())
    chunk = content.index(b"op=\x05") - 8  # the recorder writes the sizes of a chunk when it ends the chunk
    head = chunk + 4 + int.from_bytes(content[chunk : chunk + 4], "little")
    size = content.index(b"size=", chunk, head) + 5
    content[size : size + 4] = content[head : head + 4] = bytes(4)
    (tmp_path / "a.bag.active").write_bytes(content[: head + 60_000])
    found, losses, _ = losses_after_reading(tmp_path / "a.bag.active")
    assert found == list(range(len(found))) and len(found) > 200
    assert len(losses) == 1 and f"{len(found)} messages" in losses[0].text


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.95])
def test_a_database_that_is_cut_off_is_read_up_to_there(tmp_path: Path, fraction: float) -> None:
    folder = rosbag2(tmp_path / "bag", range(3000), "sqlite3")
    [file] = folder.glob("*.db3")
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[: int(fraction * size)])
    found, losses, _ = losses_after_reading(folder)
    assert found == list(range(len(found))) and 0.5 * fraction < len(found) / 3000 <= 1
    assert losses[0].cause == DAMAGED and f"{int(fraction * size)} of {size} bytes" in losses[0].text
    if len(found) < 3000:
        assert f"{len(found)} of the 3000 messages that metadata.yaml counts" in losses[1].text


def test_a_database_with_a_damaged_page_is_read_up_to_there(tmp_path: Path) -> None:
    folder = rosbag2(tmp_path / "bag", range(3000), "sqlite3")
    [file] = folder.glob("*.db3")
    content = bytearray(file.read_bytes())
    middle = len(content) // 8192 * 4096
    content[middle : middle + 4096] = b"\xff" * 4096
    file.write_bytes(content)
    found, losses, _ = losses_after_reading(folder)
    assert 500 < len(found) < 3000 and found == list(range(len(found)))
    assert {loss.cause for loss in losses} == {DAMAGED, MISSING}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_compressed_file_that_is_cut_off_is_read_up_to_there(tmp_path: Path, storage: str) -> None:
    folder = rosbag2(tmp_path / "bag", range(20_000), storage, "file")
    [file] = folder.glob("*.zstd")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    found, losses, _ = losses_after_reading(folder)
    assert 1000 < len(found) < 20_000 and found == list(range(len(found)))
    assert {loss.cause for loss in losses} == {DAMAGED, MISSING}


# SQLite beside its log


def killed_recorder(folder: Path) -> Path:
    """A database of which the second half of 1000 messages lies in the write-ahead log beside it."""
    whole = rosbag2(folder / "whole", range(1000), "sqlite3")
    [source] = whole.glob("*.db3")
    live = folder / "live.db3"
    shutil.copy(source, live)
    database = sqlite3.connect(live)
    database.execute("PRAGMA journal_mode = WAL")
    rows = database.execute("SELECT * FROM messages WHERE id > 500").fetchall()
    database.execute("DELETE FROM messages WHERE id > 500")
    database.commit()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows)
    database.commit()
    (folder / "killed").mkdir()
    for end in ("", "-wal"):  # as they lie on the disk at this moment
        shutil.copy(f"{live}{end}", folder / "killed" / f"robot.db3{end}")
    database.close()
    return folder / "killed"


def test_messages_in_a_write_ahead_log_are_read(tmp_path: Path) -> None:
    folder = killed_recorder(tmp_path)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    found, losses, notes = losses_after_reading(folder)
    assert found == list(range(1000)) and not losses
    assert any("robot.db3-wal" in note for note in notes)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before  # nothing is left beside them
    (folder / "robot.db3-wal").unlink()
    assert numbers(folder / "robot.db3") == list(range(500))


def test_a_write_ahead_log_is_read_where_no_file_can_be_written(tmp_path: Path) -> None:
    folder = killed_recorder(tmp_path)
    (folder / "robot.db3-shm").mkdir()  # SQLite cannot write its file of this name
    assert numbers(folder) == list(range(1000))


def test_a_write_ahead_log_that_is_damaged_is_named(tmp_path: Path) -> None:
    folder = killed_recorder(tmp_path)
    log = folder / "robot.db3-wal"
    log.write_bytes(bytes(64) + log.read_bytes()[64:])
    found, losses, _ = losses_after_reading(folder)
    assert found == list(range(500))
    assert [loss.cause for loss in losses] == [DAMAGED] and "'robot.db3-wal'" in losses[0].text


def test_a_write_ahead_log_without_its_database_is_named(tmp_path: Path) -> None:
    folder = killed_recorder(tmp_path)
    (folder / "robot.db3-wal").rename(folder / "other.db3-wal")
    found, losses, _ = losses_after_reading(folder)
    assert found == list(range(500))
    assert [loss.cause for loss in losses] == [FILES] and "'other.db3-wal'" in losses[0].text
