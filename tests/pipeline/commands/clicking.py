"""Clicks on the annotation page by a browser, and the clicks in its file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from playwright.sync_api import Browser, BrowserContext, Page, expect

from datasets.annotation.click_file import Points, read_clicks
from tests.datasets.test_click_server import KEYS, Served

expect.set_options(timeout=30_000)


def click(page: Page, x: float, y: float, **words: object) -> tuple[float, float]:
    """Click on the frame, at a point of the canvas of 400x400."""
    box = page.locator("#stage").bounding_box()
    assert box is not None
    place = box["x"] + box["width"] * x / 400, box["y"] + box["height"] * y / 400
    page.mouse.click(*place, **words)  # type: ignore[arg-type]
    return x, y


def saved(page: Page) -> None:
    expect(page.locator("#saved")).to_have_text("Saved")


def on_disk(server: Served, frame: int = 0) -> Points:
    clicked = read_clicks(server.path)
    return clicked[KEYS[frame]].points if KEYS[frame] in clicked else ()


def near(points: Points, expected: list[tuple[float, float]]) -> bool:
    """Whether the clicks are these, within a pixel of the screen."""
    return len(points) == len(expected) and bool(np.allclose(points, expected, atol=1.0))


@contextmanager
def fresh(browser: Browser, **words: object) -> Iterator[BrowserContext]:
    """A browser without history."""
    context = browser.new_context(**words)  # type: ignore[arg-type]
    yield context
    context.close()
