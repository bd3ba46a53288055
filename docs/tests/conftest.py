"""Tests of the built pages and of the notebook: `python -m pytest docs/tests --html FOLDER`.

They need the extra docs, Chromium and its driver. The documentation job of .ci/run runs them.
"""

import shutil
from pathlib import Path

import pytest

PHONE = (390, 844)
DESKTOP = (1280, 900)


def pytest_addoption(parser):
    parser.addoption("--html", type=Path, help="the folder that Sphinx has written")
    parser.addoption("--screenshots", type=Path, help="a folder for pictures of all pages")


@pytest.fixture(scope="session")
def html(request):
    """The folder of the built pages."""
    folder = request.config.getoption("--html")
    if folder is None or not (folder / "index.html").exists():
        pytest.fail("give the built pages: python -m pytest docs/tests --html FOLDER")
    return folder.resolve()


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.fail("Chromium and its driver are missing: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chromium = webdriver.Chrome(options=options, service=Service(driver))
    yield chromium
    chromium.quit()
