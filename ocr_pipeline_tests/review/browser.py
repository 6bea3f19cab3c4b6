"""Chromium without a screen, driven by selenium: for what only a browser can show."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --lang=en""".split()  # noqa: SIM905


@contextmanager
def chromium(profile: Path, size: tuple[int, int] = (1440, 900), *, dark: bool = False) -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own. It resolves no name: whatever leaves 127.0.0.1 fails at once."""
    options = Options()
    options.binary_location = os.environ.get("OCR_TEST_CHROMIUM") or shutil.which("chromium") or "chromium"
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.add_argument(f"--window-size={size[0]},{size[1]}")
    if dark:
        options.add_argument("--blink-settings=preferredColorScheme=0")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(os.environ.get("OCR_TEST_CHROMEDRIVER") or shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(60)
        yield driver
    finally:
        driver.quit()
