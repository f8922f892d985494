"""The page in a real browser: labels of any script are typed, an image is uploaded, the answer is read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

import vlkit
from tests.helpers.vision_language import picture, tiny

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="needs a browser and its driver: apt-get install chromium chromium-driver",
)
PATIENCE = 180  # seconds, for machines that do much else


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("demo")
    (made / "photos").mkdir()
    for number in range(3):
        picture(number, 40).save(made / "photos" / f"{number}.png")
    (made / "notes.png").write_text("no image at all")
    Image.effect_noise((1200, 1200), 90).save(made / "heavy.png")
    vlkit.save(tiny("linear"), made / "writer")
    return made


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Where the command serves a model that embeds and one that writes."""
    environment = os.environ | {"PYTHONPATH": str(Path(vlkit.__file__).parents[1])}
    command = [
        sys.executable,
        "-m",
        "vlkit",
        "demo",
        "tiny",
        "writer",
        "--images",
        "photos",
        "--port",
        "0",
        "--max-mb",
        "1",
    ]
    settings: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "env": environment, "cwd": folder}
    with (folder / "said.txt").open("w") as said, subprocess.Popen(command, stderr=said, **settings) as process:
        yield process.stdout.readline().split()[0]
        process.terminate()
    assert "Traceback" not in (folder / "said.txt").read_text()


class Visitor:
    """Someone who uses the page: fields and buttons are found by what stands on them, on the tab that is open."""

    def __init__(self, address: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.driver.set_script_timeout(PATIENCE)
        self.driver.get(address)
        self.until(lambda: self.tabs())

    def until(self, seen: Callable[[], Any]) -> Any:
        return WebDriverWait(self.driver, PATIENCE, ignored_exceptions=[Exception]).until(lambda _: seen())

    def tabs(self) -> list[str]:
        found = self.driver.find_elements(By.CSS_SELECTOR, "button[role=tab]")
        return [one.text.strip() for one in found if one.is_displayed()]

    def open(self, tab: str) -> None:
        found = self.driver.find_elements(By.CSS_SELECTOR, "button[role=tab]")
        next(one for one in found if one.text.strip() == tab and one.is_displayed()).click()
        self.until(lambda: self.shown("button", tab if tab in ("Classify", "Search", "Ask") else None))

    def all(self, selector: str) -> list[Any]:
        panels = self.driver.find_elements(By.CSS_SELECTOR, "div[role=tabpanel]")
        panel = next(one for one in panels if one.is_displayed())
        return list(panel.find_elements(By.CSS_SELECTOR, selector))

    def shown(self, selector: str, text: str | None = None) -> Any:
        return next(one for one in self.all(selector) if one.is_displayed() and text in (None, one.text.strip()))

    def write(self, label: str, text: str) -> None:
        (field,) = (one for one in self.all("label") if one.text.strip().startswith(label))
        box = field.find_element(By.CSS_SELECTOR, "textarea, input")
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(Keys.BACKSPACE, text)

    def upload(self, path: Path) -> None:
        for cross in self.all("button[aria-label='Clear'], button[aria-label='Remove Image']"):
            if cross.is_displayed():
                cross.click()
        self.until(lambda: self.all("input[type=file]"))[0].send_keys(str(path))

    def uploaded(self, path: Path) -> None:
        self.upload(path)
        self.until(lambda: self.all("img"))

    def answer(self, button: str, place: str, *, holds: str) -> str:
        self.shown("button", button).click()
        return str(self.until(lambda: holds in (text := self.text(place)) and "processing" not in text and text))

    def text(self, place: str) -> str:
        return str(self.driver.find_element(By.ID, place).text).strip()

    def hosts(self) -> set[str]:
        events = [json.loads(one["message"])["message"] for one in self.driver.get_log("performance")]
        urls = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
        return {urlsplit(url).netloc for url in urls if urlsplit(url).scheme in ("http", "https", "ws", "wss")}


@pytest.fixture(scope="module")
def visitor(address: str) -> Iterator[Visitor]:
    made = Visitor(address)
    try:
        yield made
    finally:
        made.driver.quit()


def test_arabic_and_chinese_labels_are_typed_and_their_shares_read(visitor: Visitor, folder: Path) -> None:
    assert visitor.tabs() == ["Classify", "Compare languages", "Search", "Describe", "Ask"]
    visitor.uploaded(folder / "photos/1.png")
    visitor.write("Labels", "قطة\n猫\nmushroom")
    text = visitor.answer("Classify", "vlkit-classify", holds="mushroom")
    model = vlkit.load("tiny")
    best = vlkit.ZeroShotClassifier(model, ["قطة", "猫", "mushroom"], language="en").classify(folder / "photos/1.png")[
        0
    ]
    assert text.split("\n") == [
        "English",
        *(word for one in best for word in (one.label, f"{100 * one.probability:.1f} %")),
    ]
    direction = "return getComputedStyle(arguments[0]).direction"
    sides = {one.text.split("\n")[0]: visitor.driver.execute_script(direction, one)
             for one in visitor.all("#vlkit-classify li")}  # fmt: skip
    assert sides == {"قطة": "rtl", "猫": "ltr", "mushroom": "ltr"}


def test_languages_stand_side_by_side_and_images_are_found(visitor: Visitor, folder: Path) -> None:
    visitor.open("Compare languages")
    visitor.uploaded(folder / "photos/2.png")
    text = visitor.answer("Compare", "vlkit-compare", holds="of 6 languages say")
    assert all(word in text for word in ("العربية · Arabic", "سيارة", "中文 · Chinese", "蘑菇", "paka"))
    visitor.open("Search")
    visitor.write("Search for", "قارچ")
    visitor.shown("button", "Search").click()
    images = visitor.until(lambda: len(found := visitor.all(".vlkit-found img")) == 3 and found)
    assert visitor.until(
        lambda: all(visitor.driver.execute_script("return arguments[0].naturalWidth", one) == 40 for one in images)
    )


def test_nothing_is_loaded_from_or_sent_to_another_host(visitor: Visitor, address: str) -> None:
    visitor.driver.get(address)
    visitor.until(lambda: visitor.tabs())
    assert visitor.hosts() == {urlsplit(address).netloc}
    blocked = visitor.driver.execute_async_script(
        "const done = arguments[0]; fetch('https://example.org/').then(() => done(false), () => done(true))"
    )
    policy = visitor.driver.execute_async_script(
        "const done = arguments[0]; fetch('/').then(answer => done(answer.headers.get('content-security-policy')))"
    )
    assert blocked and policy.startswith("default-src 'self';")
