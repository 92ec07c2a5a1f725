"""The server of the annotation page, for browsers on this machine only.

It listens on the loopback interface alone. Any page that is open in a browser can send requests
there. So a request must have the random token of the page's address, and name this server as its
Host (else a foreign domain that resolves to 127.0.0.1 could read). A request that changes clicks
must come from the page's own Origin. Its body is bounded and checked before any file is touched,
and it is answered once the change is on disk. An idle connection is closed. An error prints one
line in the terminal.
"""

from __future__ import annotations

import asyncio
import hmac
import io
import logging
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from aiohttp import web, web_response
from aiohttp.typedefs import Handler, Middleware
from numpy.typing import NDArray
from PIL import Image

from datasets.annotation.click_file import (
    MOST,
    ConflictError,
    change,
    check_picture,
    read_clicks,
    read_points,
)
from datasets.annotation.maps import CANVAS, SIGMA
from datasets.errors import FoveaError, brief
from datasets.files import parse_json

HOST, PORT, PORTS = "127.0.0.1", 8080, 20  # the first port, and how many are tried
MAX_BODY = 1 << 16  # bytes; a thousand clicks before and after are 24,000
IDLE = 30.0  # seconds that a connection may be idle, and that a request may take to arrive
PAGE = Path(__file__).with_name("page.html")
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "Server": "Fovea",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Task:
    """The frames to annotate, who annotates them, and the click file."""

    title: str  # the entry's name
    annotator: str
    path: Path  # the click file
    keys: tuple[str, ...]  # of the frames, in the order shown
    digests: tuple[str, ...]
    images: NDArray[np.uint8]  # (N, H, W, 3)


def listen(port: int | None = None) -> socket.socket:
    """A socket on the loopback interface, at `port` or the first free one from PORT on.

    Raises FoveaError where `port` is taken.
    """
    for candidate in [port] if port else range(PORT, PORT + PORTS):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, candidate))
            sock.listen()
            return sock
        except (OSError, OverflowError) as error:
            sock.close()
            reason = getattr(error, "strerror", None) or str(error)
    ports = f"port {port}" if port else f"ports {PORT} to {PORT + PORTS - 1}"
    raise FoveaError(f"{ports}: {reason}; name a free one, PORT=… or --port")


def serve(task: Task, sock: socket.socket, ready: Callable[[str], None]) -> None:
    """Serve the page until interrupted; `ready` is called with its address.

    Raises FoveaError at once where the click file is damaged or of other frames.
    """
    check(task)
    origin, token = f"http://{HOST}:{sock.getsockname()[1]}", secrets.token_urlsafe(32)
    app = application(task, origin, token)
    for name in ("aiohttp.server", "asyncio"):
        logging.getLogger(name).addFilter(OneLine())
    # For answers to malformed requests, which never reach the application.
    vars(web_response)["SERVER_SOFTWARE"] = HEADERS["Server"]
    ready(f"{origin}/{token}/")
    web.run_app(app, sock=sock, print=None, access_log=None, shutdown_timeout=1)


def check(task: Task) -> None:
    """Raise FoveaError where clicks are of another image than the frame's."""
    clicked = read_clicks(task.path)
    for key, here in zip(task.keys, task.digests, strict=True):
        if key in clicked:
            check_picture(task.path, key, clicked[key], here)


def application(task: Task, origin: str, token: str) -> web.Application:
    """Page, frames and clicks, all below /<token>/."""
    app = web.Application(
        middlewares=[_guard(origin, token)],
        client_max_size=MAX_BODY,
        handler_args={"keepalive_timeout": IDLE, "auto_decompress": False},
    )
    handlers = _Handlers(task)
    app.router.add_get(f"/{token}/", handlers.page)
    app.router.add_get(f"/{token}/state", handlers.state)
    app.router.add_get(f"/{token}/frames/{{frame:\\d{{1,6}}}}", handlers.image)
    app.router.add_put(f"/{token}/frames/{{frame:\\d{{1,6}}}}", handlers.save)
    app.on_response_prepare.append(_harden)
    return app


class OneLine(logging.Filter):
    """Log records without their tracebacks; repeats are dropped for a second."""

    def __init__(self) -> None:
        super().__init__()
        self._last, self._time = "", 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to print a record, which becomes one line."""
        line, now = record.getMessage().partition("\n")[0], time.monotonic()
        error = record.exc_info[1] if record.exc_info else None
        record.msg = f"{line}: {brief(error)}" if error else line
        record.args, record.exc_info, record.stack_info = (), None, None
        again = record.msg == self._last and now < self._time + 1
        self._last, self._time = record.msg, self._time if again else now
        return not again


def _guard(origin: str, token: str) -> Middleware:
    """Refuse a request that does not come from the page, before any other check."""
    host = origin.removeprefix("http://")

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        token_sent = request.path.removeprefix("/").partition("/")[0].encode(errors="replace")
        if request.headers.getall("Host", []) != [host]:
            return _refusal(403, f"this server is {host}; a tunnel needs the same port")
        if not hmac.compare_digest(token_sent, token.encode()):
            return _refusal(403, "open the whole address that `make annotate` printed")
        if request.method not in ("GET", "HEAD") and request.headers.get("Origin") != origin:
            return _refusal(403, "only the page itself may change clicks")
        try:
            async with asyncio.timeout(IDLE):
                return await handler(request)
        except TimeoutError:
            return _refusal(408, f"the request took more than {IDLE:g} seconds to arrive")
        except web.HTTPException as error:
            return _refusal(error.status, error.reason)
        except (FoveaError, OSError) as error:  # a full disk, a damaged file
            return _refusal(500, str(error))

    return guard


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    response.headers.setdefault("Content-Security-Policy", "default-src 'none'")


def _refusal(status: int, reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=status)


class _Handlers:
    """Answers for one task. The event loop runs one at a time; they share no state."""

    def __init__(self, task: Task) -> None:
        self._task = task

    async def page(self, request: web.Request) -> web.Response:
        """The page; only its own script and style may run."""
        nonce = secrets.token_urlsafe(16)
        text = PAGE.read_text("utf-8").replace("NONCE", nonce)
        headers = {"Content-Security-Policy": POLICY.format(nonce)}
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def state(self, request: web.Request) -> web.Response:
        """All clicks as they are on disk."""
        task, clicked = self._task, read_clicks(self._task.path)
        height, width = task.images.shape[1:3]
        return web.json_response(
            {
                "title": task.title,
                "annotator": task.annotator,
                "canvas": CANVAS,
                "sigma": SIGMA,
                "most": MOST,
                "aspect": width / height,
                "frames": [
                    {"key": key, "clicks": clicked[key].points if key in clicked else ()}
                    for key in task.keys
                ],
            }
        )

    async def image(self, request: web.Request) -> web.Response:
        """One frame as it is."""
        data = io.BytesIO()
        Image.fromarray(self._task.images[self._frame(request)]).save(data, "png")
        return web.Response(body=data.getvalue(), content_type="image/png")

    async def save(self, request: web.Request) -> web.Response:
        """{"before": clicks, "after": clicks}: on disk when this answers 200.

        Answers 409 with the clicks on disk where they are not `before`, so that no click is lost.
        """
        task, frame = self._task, self._frame(request)
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(reason="not application/json")
        try:
            body = parse_json(await request.read())
            if not isinstance(body, dict) or set(body) != {"before", "after"}:
                raise ValueError("must be the clicks before and after")
            before, after = read_points(body["before"]), read_points(body["after"])
        except ValueError as error:
            return _refusal(400, brief(error))
        try:
            change(task.path, task.keys[frame], task.digests[frame], before=before, after=after)
        except ConflictError as error:
            return web.json_response({"clicks": error.points}, status=409)
        return web.json_response({"clicks": after})

    def _frame(self, request: web.Request) -> int:
        number = int(request.match_info["frame"])
        if number >= len(self._task.keys):
            raise web.HTTPNotFound(reason="no such frame")
        return number
