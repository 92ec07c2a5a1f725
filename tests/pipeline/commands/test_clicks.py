"""`make annotate` from end to end: the page in a real browser, its server killed, the disk full,
and a page of another origin.
"""

from __future__ import annotations

import functools
import http.server
import resource
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from datasets.annotation.maps import heat_map
from tests.datasets.test_click_server import FRAMES, Served, served
from tests.pipeline.commands.clicking import click, fresh, near, on_disk, saved


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "alice.json") as session:
        yield session


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    """The opened page, which logs no error and sends no request elsewhere.

    Chromium itself logs each answer 409, which the page handles.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    events: list[str] = []
    opened = context.new_page()
    opened.on("console", lambda message: events.append(message.text))
    opened.on("pageerror", lambda error: events.append(str(error)))
    opened.on("request", lambda sent: events.append(sent.url))
    opened.goto(server.url)
    expect(opened.locator("#saved")).to_have_text("Saved")
    yield opened
    context.close()
    expected = (
        server.url,
        "data:",
        "Failed to load resource: the server responded with a status of 409",
    )
    assert [words for words in events if not words.startswith(expected)] == []


def test_clicks_undo_redo_remove_and_clear(page: Page, server: Served) -> None:
    """Each is on the disk once the page says so; the frame is wider than high, the canvas is
    square.
    """
    a, b, c = click(page, 100, 50), click(page, 300, 350), click(page, 200, 200)
    saved(page)
    assert near(on_disk(server), [a, b, c])
    expect(page.locator("#dots i")).to_have_count(3)
    for key, left in (
        ("z", [a, b]),
        ("Control+z", [a]),
        ("y", [a, b]),
        ("Control+Shift+Z", [a, b, c]),
    ):
        page.keyboard.press(key)
        saved(page)
        assert near(on_disk(server), left), key
    click(page, 303, 348, button="right")
    saved(page)
    assert near(on_disk(server), [a, c])
    page.keyboard.down("Shift")
    click(page, 100, 50)
    click(page, 390, 390)  # near none
    page.keyboard.up("Shift")
    saved(page)
    assert near(on_disk(server), [c])
    page.get_by_role("button", name="Clear").click()
    saved(page)
    assert on_disk(server) == ()
    page.get_by_role("button", name="Undo").click()
    saved(page)
    assert near(on_disk(server), [c])
    expect(page.get_by_role("button", name="Redo")).to_be_enabled()
    d = click(page, 10, 390)
    expect(page.get_by_role("button", name="Redo")).to_be_disabled()
    saved(page)
    assert near(on_disk(server), [c, d])


def test_frames_by_key_button_and_thumbnail(page: Page, server: Served) -> None:
    where = page.locator("#where")
    expect(where).to_have_text(f"1 of {FRAMES} · 0 clicks")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    a = click(page, 20, 30)
    expect(where).to_have_text(f"2 of {FRAMES} · 1 click")
    expect(page.locator("#count")).to_have_text(f"1 of {FRAMES} annotated")
    page.get_by_role("button", name="Next").click()
    page.keyboard.press("End")
    expect(where).to_have_text(f"{FRAMES} of {FRAMES} · 0 clicks")
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    b = click(page, 40, 50)
    page.get_by_label("Frame 2, 1 clicks").last.click()
    expect(page.locator("#dots i")).to_have_count(1)
    page.keyboard.press("Home")
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Previous").click()
    expect(where).to_have_text(f"1 of {FRAMES} · 0 clicks")
    saved(page)
    assert near(on_disk(server, 1), [a]) and near(on_disk(server, FRAMES - 1), [b])
    image = page.locator("#frame")
    assert image.evaluate("i => [i.naturalWidth, i.naturalHeight]") == [48, 32]
    assert page.locator("#stage").evaluate("s => s.clientWidth / s.clientHeight") == pytest.approx(
        1.5, abs=0.01
    )
    assert image.evaluate("i => i.clientWidth") >= 400
    assert image.evaluate("i => getComputedStyle(i).imageRendering") == "pixelated"


ALPHA = """canvas => [...canvas.getContext('2d').getImageData(0, 0, 200, 200).data]
    .filter((_, n) => n % 4 === 3)"""


def test_the_map_is_rendered_as_by_the_stage(page: Page, server: Served) -> None:
    """Opacity is proportional to the map: its strongest and its empty pixels are at the right
    places.
    """
    for x, y in ((100, 50), (100, 50), (300, 350)):
        click(page, x, y)
    saved(page)
    rendered = np.array(page.locator("#heat").evaluate(ALPHA)).reshape(200, 200) / 255
    expected = heat_map(np.array(on_disk(server)), 200, 200) / 255
    assert expected[175, 150] == pytest.approx(0.5, abs=0.02)
    np.testing.assert_allclose(rendered, np.minimum(0.72, 2.4 * expected), atol=0.02)
    page.keyboard.press("h")
    expect(page.locator("#heat")).to_be_hidden()
    page.get_by_role("button", name="Map").click()
    expect(page.locator("#heat")).to_be_visible()


def test_reload_and_return(page: Page, browser: Browser, server: Served) -> None:
    """To the same frame with its undo history; in a browser without history, to the first frame
    without clicks.
    """
    a = click(page, 20, 30)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    b, _ = click(page, 60, 70), click(page, 80, 90)
    saved(page)
    page.reload()
    expect(page.locator("#where")).to_have_text(f"3 of {FRAMES} · 2 clicks")
    page.keyboard.press("z")
    saved(page)
    assert near(on_disk(server), [a]) and near(on_disk(server, 2), [b])
    with fresh(browser) as context:
        other = context.new_page()
        other.goto(server.url)
        expect(other.locator("#where")).to_have_text(f"2 of {FRAMES} · 0 clicks")


def test_two_tabs_lose_nothing_silently(page: Page, browser: Browser, server: Served) -> None:
    """Clicks of the other tab are kept, with a message; clicks that a tab removed are removed."""
    a = click(page, 50, 50)
    saved(page)
    with fresh(browser) as context:
        other = context.new_page()
        other.goto(f"{server.url}")
        other.get_by_label("Frame 1, 1 clicks").last.click()
        expect(other.locator("#dots i")).to_have_count(1)
        b = click(page, 150, 150)
        saved(page)
        c = click(other, 250, 250)
        expect(other.locator("#note")).to_contain_text("another tab")
        saved(other)
        assert near(on_disk(server), [a, b, c])
        click(other, 50, 50, button="right")
        saved(other)
        d = click(page, 350, 50)
        expect(page.locator("#note")).to_contain_text("another tab")
        saved(page)
        assert near(on_disk(server), [b, c, d])
        other.evaluate("dispatchEvent(new Event('focus'))")  # as when one comes back to the tab
        expect(other.locator("#dots i")).to_have_count(3)


def test_an_outdated_answer_removes_no_click(page: Page, server: Served) -> None:
    """The click that focuses the window is saved before the requested state arrives."""
    click(page, 50, 50)
    saved(page)
    delayed: list[Route] = []
    page.route("**/state", lambda route: delayed.append(route))
    page.evaluate("dispatchEvent(new Event('focus'))")
    while not delayed:
        page.wait_for_timeout(20)
    old = delayed[0].fetch()
    b = click(page, 150, 150)
    saved(page)
    delayed[0].fulfill(response=old)
    page.wait_for_timeout(300)
    expect(page.locator("#dots i")).to_have_count(2)
    page.get_by_role("button", name="Undo").click()  # its history is there, too
    expect(page.locator("#dots i")).to_have_count(1)
    saved(page)
    assert not near(on_disk(server), [b])


def test_a_lost_answer_and_another_tab_repeat_no_click(browser: Browser, server: Served) -> None:
    """A click that was written but not acknowledged is not written again."""
    lost: list[Route] = []

    def lose(route: Route) -> None:
        if lost or route.request.method != "PUT":
            route.continue_()
        else:
            lost.append(route)

    with fresh(browser) as context:
        page, other = context.new_page(), context.new_page()
        page.goto(server.url)
        page.route("**/frames/0", lose)
        a = click(page, 50, 50)
        while not lost:
            page.wait_for_timeout(20)
        lost[0].fetch()  # it arrives, and so does the other tab's; the answer does not
        other.goto(server.url)
        other.get_by_label("Frame 1, 1 clicks").last.click()
        b = click(other, 150, 150)
        saved(other)
        lost[0].abort()
        expect(page.locator("#note")).to_contain_text("another tab")
        saved(page)
        assert near(on_disk(server), [a, b])
        expect(page.locator("#dots i")).to_have_count(2)


def test_refused_clicks_can_be_removed(browser: Browser, server: Served) -> None:
    """And other frames are saved after that."""

    def refuse_two(route: Route) -> None:
        body = route.request.post_data_json
        if body and len(body["after"]) == 2:
            route.fulfill(status=400, json={"error": "too many clicks"})
        else:
            route.continue_()

    with fresh(browser) as context:
        page = context.new_page()
        page.goto(server.url)
        a = click(page, 50, 50)
        saved(page)
        page.route("**/frames/0", refuse_two)
        click(page, 150, 150)
        expect(page.locator("#note")).to_contain_text("Not saved: too many clicks")
        page.keyboard.press("z")
        saved(page)
        expect(page.locator("#note")).to_have_text("")
        page.keyboard.press("ArrowRight")
        b = click(page, 100, 100)
        saved(page)
    assert near(on_disk(server), [a]) and near(on_disk(server, 1), [b])


def test_touch_on_a_phone(browser: Browser, server: Served) -> None:
    with fresh(
        browser, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    ) as context:
        page = context.new_page()
        page.goto(server.url)
        saved(page)
        box = page.locator("#stage").bounding_box()
        assert box is not None and box["width"] >= 340
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        heights = page.locator(".bar button").evaluate_all("all => all.map(b => b.clientHeight)")
        assert min(heights) >= 44, "too small for a finger"
        for x, y in ((100, 50), (300, 350)):
            left, top = box["width"] * x / 400, box["height"] * y / 400
            page.touchscreen.tap(box["x"] + left, box["y"] + top)
        saved(page)
        assert near(on_disk(server), [(100, 50), (300, 350)])
        touch = context.new_cdp_session(page)
        finger = {"x": box["x"] + box["width"] * 0.25, "y": box["y"] + box["height"] * 0.125}
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [finger]})
        expect(page.locator("#dots i")).to_have_count(1)
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        saved(page)
        assert near(on_disk(server), [(300, 350)])
        assert page.evaluate("scrollY") == 0
        page.get_by_role("button", name="Undo").tap()
        saved(page)
        assert len(on_disk(server)) == 2


def test_the_page_is_accessible(page: Page) -> None:
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("h1").count() == 1
    names = page.locator("button").evaluate_all(
        "all => all.map(b => b.getAttribute('aria-label') || b.textContent)"
    )
    assert all(names) and len(names) == FRAMES + 6
    assert page.locator("#saved").get_attribute("role") == "status"
    click(page, 100, 100)
    expect(page.locator("#stage")).to_have_attribute("aria-label", "Frame 1, 1 clicks")


# Faults


def test_the_server_killed_at_work(browser: Browser, tmp_path: Path) -> None:
    """Acknowledged clicks are on the disk; the others are reported and not lost."""
    with fresh(browser) as context, served(tmp_path / "alice.json") as server:
        page = context.new_page()
        page.goto(server.url)
        points = [click(page, 40 + 30 * n, 100) for n in range(8)]
        saved(page)
        server.process.kill()
        server.process.wait()
        assert near(on_disk(server), points)
        click(page, 200, 300)
        expect(page.locator("#saved")).to_have_text("Not saved")
        expect(page.locator("#note")).to_contain_text("the server does not answer")
        with served(server.path, server.port) as again:
            expect(page.locator("#note")).to_contain_text("open the whole address")
            page.close()
            page = context.new_page()
            page.goto(again.url)
            expect(page.locator("#dots i")).to_have_count(8)
            click(page, 200, 300)
            saved(page)
            assert len(on_disk(again)) == 9


def test_a_click_file_damaged_while_the_page_is_open(browser: Browser, tmp_path: Path) -> None:
    """After a reload the page shows the error instead of Loading; after the repair it continues."""
    with fresh(browser) as context, served(tmp_path / "alice.json") as server:
        page = context.new_page()
        page.goto(server.url)
        click(page, 100, 100)
        saved(page)
        whole = server.path.read_bytes()
        server.path.write_bytes(whole[: len(whole) // 2])
        page.reload()
        expect(page.locator("#saved")).to_have_text("Not loaded")
        expect(page.locator("#note")).to_contain_text("alice.json: damaged or not a click file")
        click(page, 200, 200)
        assert server.path.read_bytes() == whole[: len(whole) // 2]
        server.path.write_bytes(whole)
        page.reload()
        saved(page)
        expect(page.locator("#dots i")).to_have_count(1)
        expect(page.locator("#note")).to_be_hidden()


def test_a_server_that_pauses_gets_every_click_later(page: Page, server: Served) -> None:
    server.process.send_signal(signal.SIGSTOP)
    points = [click(page, 40 + 30 * n, 100) for n in range(8)]
    expect(page.locator("#saved")).to_have_text("Saving")
    assert not server.path.exists()
    server.process.send_signal(signal.SIGCONT)
    saved(page)
    assert near(on_disk(server), points)


def test_a_full_disk(browser: Browser, tmp_path: Path) -> None:
    """Reported while the disk is full, saved when there is space; older clicks are not changed.

    Without permission to mount a disk, files are limited to a few hundred bytes instead.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "fovea-test", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        with fresh(browser) as context, served(disk / "alice.json") as server:
            page = context.new_page()
            page.goto(server.url)
            a = click(page, 100, 100)
            saved(page)
            before = server.path.read_bytes()
            if mounted:
                (disk / "filler").write_bytes(bytes(4096))
            else:
                resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (len(before),) * 2)
            b = click(page, 300, 300)
            expect(page.locator("#saved")).to_have_text("Not saved")
            expect(page.locator("#note")).to_contain_text(
                "disk is full" if mounted else "too large"
            )
            assert server.path.read_bytes() == before
            if mounted:
                (disk / "filler").unlink()
            else:
                resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1 << 30,) * 2)
            saved(page)
            assert near(on_disk(server), [a, b])
            expect(page.locator("#note")).to_be_hidden()
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


EVIL = """<!DOCTYPE html><body><script>
const target = "TARGET", body = JSON.stringify({ before: [], after: [[1, 1]] })
const ask = (name, place, options) => fetch(target + place, options)
  .then(answer => `${name}: ${answer.type}`, error => `${name}: refused`)
const json = { "Content-Type": "application/json" }
Promise.all([
  ask("read", "state", {}),
  ask("put", "frames/0", { method: "PUT", headers: json, body }),
  ask("put without preflight", "frames/0", { method: "PUT", mode: "no-cors", body }),
  ask("post", "frames/0", { method: "POST", mode: "no-cors", body }),
  new Promise(done => {
    const frame = document.createElement("iframe")
    frame.src = target
    frame.onload = () => done("frame: " + (frame.contentDocument ? "readable" : "opaque"))
    document.body.append(frame)
  }),
  new Promise(done => {
    const image = new Image()
    image.src = target + "frames/0"
    image.onload = () => done("image: shown")
    image.onerror = () => done("image: refused")
  }),
]).then(said => { document.title = said.join("; ") })
</script>"""


def test_a_page_of_another_origin_can_neither_read_nor_write(
    browser: Browser, server: Served, tmp_path: Path
) -> None:
    """Even if it knows the token."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "evil.html").write_text(EVIL.replace("TARGET", server.url))
    handler = functools.partial(Quiet, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as evil:
        threading.Thread(target=evil.serve_forever, daemon=True).start()
        with fresh(browser) as context:
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{evil.server_port}/evil.html")
            expect(page).to_have_title(
                "read: refused; put: refused; put without preflight: refused; post: refused; "
                "frame: opaque; image: refused"
            )
        evil.shutdown()
    assert not server.path.exists()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server without a log."""

    def log_message(self, format: str, *words: object) -> None:
        pass
