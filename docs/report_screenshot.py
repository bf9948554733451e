"""Takes a screenshot of a report with an installed Chromium or Chrome: `report_screenshot.py REPORT.html OUT.png`.

`make screenshot` writes the image of the README this way, from the report of the demo.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZE = (1200, 1480)  # pixels: the events and the sensor data of the demo
OPTIONS = ("--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--hide-scrollbars")


def take_screenshot(report: Path, image: Path) -> None:
    """Write the upper part of a report as a PNG. Raises `RuntimeError` if there is no browser or it fails."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise RuntimeError(f"no browser found; install one of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as profile:
        size = ",".join(map(str, SIZE))
        command = [browser, *OPTIONS, f"--user-data-dir={profile}", f"--window-size={size}", f"--screenshot={image}"]
        if os.geteuid() == 0:  # Chromium refuses to run as root with its sandbox
            command.append("--no-sandbox")
        done = subprocess.run([*command, report.resolve().as_uri()], capture_output=True, text=True, timeout=60)
    if done.returncode or not image.is_file():
        raise RuntimeError(f"{browser} failed ({done.returncode}): {done.stderr.strip()}")


if __name__ == "__main__":
    take_screenshot(Path(sys.argv[1]), Path(sys.argv[2]))
