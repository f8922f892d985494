"""What is shown in a notebook is escaped, complete, and needs no style sheet and no script."""

from __future__ import annotations

import io
import re
import sys
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from vlkit import progress
from vlkit.notebook import Gallery, Markup, bar, curve, picture, quiet, table
from vlkit.progress import bar as job

VOID = {"img", "polyline"}


class _Whole(HTMLParser):
    """Collects texts and attributes, and sees that each element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_cells_are_escaped_and_run_in_their_own_direction() -> None:
    page = table(
        ("<i>", "n", "x"), [("<script>alert(1)</script>", 3, 0.12345), ("سگ\x1b[2J", 4, float("nan"))], right=("n",)
    )
    seen = _Whole(page)
    assert "script" not in {tag for tag, _ in seen.found} and "<script>alert(1)</script>" in seen.texts
    assert r"سگ\x1b[2J" in seen.texts and "0.123" in seen.texts and "nan" not in page
    assert [cell.get("dir") for cell in seen.of("td")] == ["auto", None, None, "auto", None, None]
    assert "text-align:right" in str(seen.of("td")[1]["style"]) and "text-align:start" in str(seen.of("td")[0]["style"])


def test_nothing_needs_a_style_sheet_a_script_or_the_network() -> None:
    image = Image.new("RGB", (300, 200), "red")
    page = (
        table(("a",), [(bar(0.5, low=0.4, high=0.6),)])
        + Gallery([image], ["x"])._repr_html_()
        + curve([(0, 1), (1, 0)])
    )
    seen = _Whole(page)
    assert not {"style", "script", "link", "iframe"} & {tag for tag, _ in seen.found}
    assert not any(name.startswith("on") or name == "class" for _, attributes in seen.found for name in attributes)
    assert all(str(one["src"]).startswith("data:image/") for one in seen.of("img"))
    grounds = re.findall(r"(?<!-)color:\s*(#\w+|rgb)", page)
    assert grounds == []  # letters take the colour of the page, light or dark


def test_markup_stands_and_quiet_escapes() -> None:
    assert "<b>x</b>" in table(("a",), [(Markup("<b>x</b>"),)]) and "&lt;b&gt;" in quiet("<b>")


@pytest.mark.parametrize(
    ("value", "low", "high", "start", "ends"),
    [(0.25, 0.2, 0.5, 0.0, (0.0, 25.0)), (0.5, 0, 2, 0.0, (0.0, 50.0)), (-0.5, -0.75, -0.25, -1.0, (25.0, 50.0))],
)
def test_a_bar_reaches_from_zero_to_its_value_and_stays_on_its_track(
    value: float, low: float, high: float, start: float, ends: tuple[float, float]
) -> None:
    spans = [
        re.findall(r"(left|width):([\d.]+)%", str(one["style"]))
        for one in _Whole(bar(value, low=low, high=high, start=start)).of("span")[1:]
    ]
    places = [(float(left), float(left) + float(width)) for (_, left), (_, width) in spans]
    assert places[0] == ends and all(0 <= left <= right <= 100 for left, right in places)
    assert len(places) == (3 if start < 0 else 2)


def test_a_bar_of_what_is_not_known_is_an_empty_track() -> None:
    spans = _Whole(bar(float("nan"))).of("span")
    assert len(spans) == 2 and "width:0.0%" in str(spans[1]["style"])


def test_a_curve_goes_down_where_the_loss_does() -> None:
    points = [float(y) for y in re.findall(r"\d,([\d.]+)", curve([(1, 9.0), (2, 4.0), (3, 1.5)]))]
    assert points == sorted(points) and _Whole(curve([(1, 9.0), (2, 1.5)])).texts[0].strip() == "9"
    assert curve([(1, 2.0)]) == "" and curve([]) == ""
    _Whole(curve([(1, 2.0), (2, 2.0)]))  # a flat one as well


@pytest.mark.parametrize("shape", [(16, 16), (640, 320), (20, 90)])
def test_pictures_keep_their_shape_and_fit(shape: tuple[int, int]) -> None:
    (seen,) = _Whole(picture(Image.new("L", shape), size=64)).of("img")
    width, height = int(str(seen["width"])), int(str(seen["height"]))
    assert max(width, height) == 64 and width / height == pytest.approx(shape[0] / shape[1], rel=0.1)


def test_a_gallery_shows_every_image_with_its_texts() -> None:
    images = [Image.new("RGB", (32, 32), color) for color in ("red", "blue", "green")]
    gallery = Gallery(images, ["<one>", ["zwei", "دو"], {"zh": "三"}])
    seen = _Whole(gallery._repr_html_())
    assert len(seen.of("img")) == 3 and {"<one>", "zwei", "دو", "zh", "三"} <= set(seen.texts)
    assert len({str(one["src"]) for one in seen.of("img")}) == 3 and repr(gallery) == "Gallery(3 images)"
    with pytest.raises(ValueError, match="shorter"):
        Gallery(images, ["one"])._repr_html_()


def test_progress_in_a_notebook_is_one_display_that_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    bundles: list[dict[str, str]] = []

    class Handle:
        def update(self, bundle: dict[str, str], *, raw: bool) -> None:
            bundles.append(bundle)

    def display(bundle: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        assert raw and display_id and not bundles
        bundles.append(bundle)
        return Handle()

    python: Any = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", python)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))  # type: ignore[arg-type]
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    with job("<steps>", total=4, unit="steps") as shown:
        for _ in range(4):
            now[0] += 0.5
            shown.advance(loss="1.5")
    assert said.getvalue() == "" and len(bundles) == 1 + 4 + 1
    assert bundles[-1]["text/plain"] == "<steps>: 4/4 steps, 2.0 steps/s, took 2.0 s, loss 1.5"
    assert "width:50.0%" in bundles[2]["text/html"] and "&lt;steps&gt;" in bundles[-1]["text/html"]
    for bundle in bundles:
        _Whole(bundle["text/html"])


def test_a_shell_of_ipython_without_a_notebook_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: object()))  # type: ignore[arg-type]
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    with job("steps", total=1) as shown:
        shown.advance()
    assert said.getvalue().startswith("steps: 1/1 items")
