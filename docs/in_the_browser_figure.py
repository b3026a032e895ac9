"""Draws docs/images/in_the_browser.jpg: digits on the page of `nin_mnist_valid`, drawn with the mouse of Chromium.

python docs/in_the_browser_figure.py PAGE      # the folder that docs/in_the_browser.md exports
"""

import argparse
import functools
import http.server
import io
import shutil
import threading
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

FILE = Path(__file__).parent / "images" / "in_the_browser.jpg"
# The page's blank canvas, width and height, and a place on the digit whose cell is chosen.
CANVAS, CHOSEN = (168, 112), (30, 84)
Stroke = list[tuple[float, float]]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A plain local server, without a log."""

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def arc(x: float, y: float, across: float, down: float, begin: float, end: float) -> Stroke:
    """A part of an ellipse, from one angle to another, clockwise from the right."""
    angles = np.radians(np.linspace(begin, end, 15))
    return list(zip(x + across * np.cos(angles), y + down * np.sin(angles), strict=True))


# Places on the canvas, x and y.
STROKES: list[Stroke] = [
    [(12, 14), (28, 14), (18, 34)],
    arc(58, 22, 7, 10, 0, 360),
    *([(92, 12), (86, 26), (100, 26)], [(98, 12), (97, 36)]),
    [*arc(135, 17, 7, 6, -160, 60), (128, 32), (143, 32)],
    [*arc(30, 78, 6, 6, -150, 80), *arc(30, 90, 8, 7, -70, 150)],
    [(76, 72), (74, 94)],
    [(124, 72), (114, 72), (113, 82), *arc(117, 88, 8, 7, -90, 140)],
]


def draw(page: Page) -> None:
    """Draw the strokes, and choose a cell."""
    box = page.locator("#map").bounding_box()
    assert box is not None
    zoom = min(box["width"] / CANVAS[0], box["height"] / CANVAS[1])
    left, top = (box[at] + (box[side] - length * zoom) / 2 for at, side, length in
                 (("x", "width", CANVAS[0]), ("y", "height", CANVAS[1])))  # fmt: skip
    for first, *rest in STROKES:
        page.mouse.move(left + first[0] * zoom, top + first[1] * zoom)
        page.mouse.down()
        for x, y in rest:
            page.mouse.move(left + x * zoom, top + y * zoom, steps=4)
        page.mouse.up()
    page.wait_for_timeout(2000)  # until the last stroke is scanned
    page.uncheck("#draw")
    page.mouse.click(left + CHOSEN[0] * zoom, top + CHOSEN[1] * zoom)
    page.wait_for_timeout(500)


def main() -> None:
    """Serve the page, draw on it, and keep what is seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    folder = parser.parse_args().page
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-zygote"])
        page = chromium.new_page(viewport={"width": 1040, "height": 640})
        page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
        page.get_by_text("scanned in").wait_for()
        draw(page)
        seen = page.screenshot()
        chromium.close()
    server.shutdown()
    Image.open(io.BytesIO(seen)).convert("RGB").save(FILE, quality=88, optimize=True)


if __name__ == "__main__":
    main()
