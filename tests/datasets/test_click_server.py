"""Requests to the click server that a browser would never send, and their answers."""

from __future__ import annotations

import http.client
import json
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from datasets.annotation import server
from datasets.annotation.click_file import FrameClicks, read_clicks, write_clicks
from datasets.errors import FoveaError

CODE = Path(__file__).parents[2]
FRAMES = 6
DIGEST = "ab" * 32
KEYS = [f"000-{number:08d}" for number in range(FRAMES)]
SERVE = """
import sys
from pathlib import Path
import numpy as np
from datasets.annotation import server
path, port, server.IDLE = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
images = np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3), np.uint8)
keys = tuple(f"000-{number:08d}" for number in range(6))
task = server.Task("reach", path.stem, path, keys, ("ab" * 32,) * 6, images)
with server.listen(port or None) as sock:
    server.serve(task, sock, lambda url: print(url, flush=True))
"""


@dataclass
class Served:
    """A server in its own process, for one annotator."""

    process: subprocess.Popen[str]
    url: str
    path: Path

    @property
    def origin(self) -> str:
        return self.url.rsplit("/", 2)[0]

    @property
    def port(self) -> int:
        return int(self.origin.rsplit(":", 1)[1])

    def ask(
        self, method: str, place: str, body: object = None, **headers: str | None
    ) -> tuple[int, bytes, dict[str, str]]:
        """A request like the page's, with `headers` on top; a header of value None is left out."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent: dict[str, str | None] = {"Host": self.origin.removeprefix("http://")}
        if method != "GET":
            sent |= {"Origin": self.origin, "Content-Type": "application/json"}
            sent |= {"Content-Length": str(len(data))}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        line.putrequest(method, place, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            if value is not None:
                line.putheader(name, value)
        line.endheaders(data if method != "GET" else None)
        answer = line.getresponse()
        read = answer.status, answer.read(), dict(answer.getheaders())
        line.close()
        return read

    @property
    def output(self) -> list[str]:
        """The lines that it has printed."""
        return self.path.with_suffix(".errors").read_text().splitlines()

    def raw(self, data: bytes) -> bytes:
        """The answer to these bytes, read until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as line:
            line.sendall(data)
            return b"".join(iter(lambda: line.recv(1 << 16), b""))

    def below(self, place: str) -> str:
        """A path with the token."""
        return "/" + self.url.split("/", 3)[3] + place

    def save(
        self, frame: int, before: object, after: object, **headers: str | None
    ) -> tuple[int, bytes, dict[str, str]]:
        """The page's request after a click."""
        change = {"before": before, "after": after}
        return self.ask("PUT", self.below(f"frames/{frame}"), change, **headers)


@contextmanager
def served(path: Path, port: int = 0, idle: float = 60) -> Iterator[Served]:
    """A server for the click file `path`, which closes connections that are idle for `idle`
    seconds.
    """
    command = [sys.executable, "-c", SERVE, str(path), str(port), str(idle)]
    path.parent.mkdir(exist_ok=True)
    with (
        path.with_suffix(".errors").open("w") as errors,
        subprocess.Popen(
            command, cwd=CODE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None
        try:
            yield Served(process, process.stdout.readline().strip(), path)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("clicks") / "alice.json") as session:
        yield session


@pytest.fixture(autouse=True)
def empty(request: pytest.FixtureRequest) -> None:
    """No clicks in the file of the shared server."""
    if "page" in request.fixturenames:
        request.getfixturevalue("page").path.unlink(missing_ok=True)


def test_the_page_state_frames_and_clicks(page: Served) -> None:
    code, text, headers = page.ask("GET", page.below(""))
    assert code == 200 and b"<html" in text and headers["Content-Type"].startswith("text/html")
    code, text, _ = page.ask("GET", page.below("state"))
    state = json.loads(text)
    assert code == 200 and [frame["key"] for frame in state["frames"]] == KEYS
    assert state["aspect"] == 1.5 and not any(frame["clicks"] for frame in state["frames"])
    code, data, headers = page.ask("GET", page.below("frames/5"))
    assert code == 200 and data[:4] == b"\x89PNG" and headers["Content-Type"] == "image/png"
    code, text, _ = page.save(2, [], [[1, 2], [399.96, 0]])
    assert code == 200 and json.loads(text) == {"clicks": [[1, 2], [400, 0]]}
    assert read_clicks(page.path) == {KEYS[2]: FrameClicks(DIGEST, ((1, 2), (400, 0)))}
    state = json.loads(page.ask("GET", page.below("state"))[1])
    assert state["frames"][2]["clicks"] == [[1, 2], [400, 0]]


def test_a_change_of_outdated_clicks_is_refused(page: Served) -> None:
    assert page.save(0, [], [[1, 1]])[0] == 200
    code, text, _ = page.save(0, [], [[2, 2]])
    assert code == 409 and json.loads(text) == {"clicks": [[1, 1]]}
    assert page.save(0, [], [[1, 1]])[0] == 200, "asked twice, as after a lost answer"
    assert read_clicks(page.path)[KEYS[0]].points == ((1, 1),)


FOREIGN: dict[str, dict[str, str | None]] = {
    "another origin": {"Origin": "https://evil.example"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "another name": {"Origin": "http://localhost:{port}"},
    "no origin": {"Origin": None},
    "a sandboxed frame": {"Origin": "null"},
    "a name that was made to lead here": {"Host": "evil.example:{port}"},
    "localhost": {"Host": "localhost:{port}"},
    "no host": {"Host": None},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_requests_change_nothing(page: Served, name: str) -> None:
    headers = {key: value and value.format(port=page.port) for key, value in FOREIGN[name].items()}
    code, text, answered = page.save(0, [], [[1, 1]], **headers)
    assert code in (400, 403) and page.url.split("/")[3].encode() not in text
    assert not any(name.startswith("Access-Control") for name in answered)
    assert not page.path.exists()
    if "Host" in headers:
        assert page.ask("GET", page.below("state"), **headers)[0] in (400, 403)


@pytest.mark.parametrize(
    "token", ["", "x", "%00", "%C3%A9", "%FF", "{0}x", "{1}", "/{0}", "../{0}"]
)
def test_without_the_token_nothing_is_revealed(page: Served, token: str) -> None:
    mine, change = page.url.split("/")[3], {"before": [], "after": [[1, 1]]}
    request = token.format(mine, mine[:-1])
    for place in ("", "/", "/state", "/frames/0"):
        code, text, _ = page.ask("GET", f"/{request}{place}")
        assert code == 403 and b"html" not in text and mine.encode() not in text
        assert page.ask("PUT", f"/{request}{place}", change)[0] == 403
    assert not page.path.exists()


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(page: Served, method: str) -> None:
    code, _, headers = page.ask(method, page.below("frames/0"), {"before": [], "after": [[1, 1]]})
    assert code == 405 and "Access-Control-Allow-Origin" not in headers
    assert not page.path.exists()


def bodies() -> Iterator[tuple[bytes, int]]:
    strange: list[object] = [[[400.1, 1]], [[1, -0.1]], [["1", 2]], [[1]], [[True, 1]], {}, None]
    for after in strange:
        yield json.dumps({"before": [], "after": after}).encode(), 400
    for text in ("", "[", "[]", "null", "\udcff", '{"before": [], "after": [[NaN, 1]]}'):
        yield text.encode(errors="surrogateescape"), 400
    yield b'{"before": [], "after": [[1, 1]], "path": "/etc/passwd"}', 400
    yield b'{"before": [], "after": ' + b"[" * 60_000, 400
    yield json.dumps({"before": [], "after": [[1, 1]] * 1001}).encode(), 400
    yield b" " * 70_000, 413
    yield json.dumps({"before": [], "after": [[1, 1]], "x": "x" * 10_000_000}).encode(), 413


@pytest.mark.parametrize(("body", "expected"), list(bodies()), ids=range(len(list(bodies()))))
def test_malformed_changes_are_refused(page: Served, body: bytes, expected: int) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # it needn't be heard to the end
        code, text, _ = page.ask("PUT", page.below("frames/0"), body)
        assert code == expected and json.loads(text)["error"]
    assert not page.path.exists()
    assert page.ask("GET", page.below("state"))[0] == 200, "it is still there"


def test_other_kinds_and_frames_are_refused(page: Served) -> None:
    kinds = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None)
    for kind in kinds:
        assert page.save(0, [], [[1, 1]], Content_Type=kind)[0] == 415
    for frame in ("6", "999999", "9999999", "-1", "x", "0/..", "%2e%2e", "0x1"):
        assert page.ask("GET", page.below(f"frames/{frame}"))[0] in (403, 404)
        assert page.save(frame, [], [[1, 1]])[0] in (403, 404)  # type: ignore[arg-type]
    assert not page.path.exists()


def test_every_answer_has_security_headers(page: Served) -> None:
    for place in (
        page.below(""),
        page.below("state"),
        page.below("frames/0"),
        "/",
        page.below("x"),
    ):
        _, _, headers = page.ask("GET", place)
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Server"] == "Fovea"
        assert headers["Referrer-Policy"] == "no-referrer" and headers["X-Frame-Options"] == "DENY"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    policies = [page.ask("GET", page.below(""))[2]["Content-Security-Policy"] for _ in range(2)]
    assert policies[0] != policies[1], "a nonce used twice"
    assert "unsafe" not in policies[0] and "frame-ancestors 'none'" in policies[0]


# The process


def test_it_listens_on_the_loopback_interface_alone(page: Served) -> None:
    rows = [line.split() for file in Path("/proc/net").glob("tcp*") for line in file.open()]
    addresses = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{page.port:04X}")]
    assert addresses == [f"0100007F:{page.port:04X}"]


def test_a_port_in_use(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused if it was chosen; skipped if none was chosen."""
    with pytest.raises(FoveaError, match=f"port {page.port}: Address already in use; name a free"):
        server.listen(page.port)
    with pytest.raises(FoveaError, match=r"port 70000: .*; name a free"):
        server.listen(70000)
    monkeypatch.setattr(server, "PORT", page.port)
    with server.listen() as sock:
        assert page.port < sock.getsockname()[1] < page.port + server.PORTS
    monkeypatch.setattr(server, "PORTS", 1)
    with pytest.raises(FoveaError, match=f"ports {page.port} to {page.port}: Address already in"):
        server.listen()


def test_two_annotators_at_once(tmp_path: Path) -> None:
    with served(tmp_path / "alice.json") as alice, served(tmp_path / "bob.json") as bob:
        assert alice.port != bob.port
        assert bob.ask("GET", alice.below("state"))[0] == 403
        for number, who in enumerate((alice, bob)):
            assert who.save(0, [], [[number, number]])[0] == 200
        assert [read_clicks(who.path)[KEYS[0]].points for who in (alice, bob)] == [
            ((0, 0),), ((1, 1),)
        ]  # fmt: skip


def test_one_annotator_at_two_servers(tmp_path: Path) -> None:
    """Neither overwrites the other's clicks."""
    path = tmp_path / "alice.json"
    with served(path) as one, served(path) as other:
        assert one.save(0, [], [[1, 1]])[0] == 200
        assert other.save(0, [], [[2, 2]])[0] == 409
        assert other.save(0, [[1, 1]], [[1, 1], [2, 2]])[0] == 200
        assert other.save(1, [], [[3, 3]])[0] == 200
        assert {key: len(c.points) for key, c in read_clicks(path).items()} == {
            KEYS[0]: 2, KEYS[1]: 1
        }  # fmt: skip


@pytest.mark.parametrize("number", range(4))
def test_a_killed_server_loses_nothing_that_it_acknowledged(tmp_path: Path, number: int) -> None:
    path, acknowledged = tmp_path / "alice.json", 0
    with served(path) as session:
        kill = threading.Timer(0.003 * number, session.process.send_signal, [signal.SIGKILL])
        clicks = [[float(n), 1.0] for n in range(300)]
        with suppress(OSError, http.client.HTTPException):
            while acknowledged < len(clicks):
                if acknowledged == 10 * number:
                    kill.start()
                code, _, _ = session.save(3, clicks[:acknowledged], clicks[: acknowledged + 1])
                assert code == 200
                acknowledged += 1
        session.process.wait()
    assert 10 * number <= acknowledged < len(clicks), "killed before or after the work"
    stored = read_clicks(path)
    points = stored[KEYS[3]].points if stored else ()
    assert len(points) in (acknowledged, acknowledged + 1)  # the last may be there, unanswered
    assert list(map(list, points)) == clicks[: len(points)]
    with served(path) as again:
        state = json.loads(again.ask("GET", again.below("state"))[1])
        assert len(state["frames"][3]["clicks"]) == len(points)
        assert again.save(3, clicks[: len(points)], [])[0] == 200


def test_clicks_on_other_frames_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "alice.json"
    write_clicks(path, {KEYS[1]: FrameClicks("cd" * 32, ((1.0, 1.0),))})
    images = np.zeros((2, 8, 8, 3), np.uint8)
    task = server.Task("reach", "alice", path, tuple(KEYS[:2]), (DIGEST,) * 2, images)
    with pytest.raises(FoveaError, match=rf"alice\.json: the clicks on frame {KEYS[1]} are of"):
        server.check(task)
    path.write_text(path.read_text()[:-30])
    with pytest.raises(FoveaError, match=r"alice\.json: damaged or not a click file"):
        server.check(task)


def test_a_damaged_file_is_reported_and_not_changed(page: Served) -> None:
    page.path.write_text("{")
    code, text, _ = page.save(0, [], [[1, 1]])
    assert code == 500 and "alice.json: damaged" in json.loads(text)["error"]
    assert page.path.read_text() == "{"


def test_a_silent_client_does_not_block_others(page: Served) -> None:
    with socket.create_connection(("127.0.0.1", page.port)) as silent:
        silent.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\n")
        began = time.monotonic()
        assert page.save(0, [], [[1, 1]])[0] == 200
        assert time.monotonic() - began < 30


MALFORMED = {
    "a header line over the limit": b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000,
    "an address over the limit": b"GET /" + b"a" * 20_000 + b" HTTP/1.1",
    "too many headers": b"GET / HTTP/1.1" + b"\r\nX: y" * 500,
    "no length": b"PUT / HTTP/1.1\r\nContent-Length: x",
    "another version": b"GET / HTTP/9",
    "no request": b"\x16\x03\x01\x02",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_is_one_line_of_log(page: Served, name: str) -> None:
    before = len(page.output)
    answer = page.raw(MALFORMED[name] + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 400 ")
    assert b"Server: Fovea" in answer and b"aiohttp" not in answer and b"Python" not in answer
    lines = page.output[before:]
    assert len(lines) <= 1 and all(len(line) < 300 and "Traceback" not in line for line in lines)


def test_a_full_table_of_descriptors_is_one_line_a_second(tmp_path: Path) -> None:
    with served(tmp_path / "alice.json") as page:
        resource.prlimit(page.process.pid, resource.RLIMIT_NOFILE, (24, 24))
        began = time.monotonic()
        with ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(socket.create_connection(("127.0.0.1", page.port)))
            while not page.output:
                time.sleep(0.01)
        assert page.save(0, [], [[1, 1]])[0] == 200, "it goes on"
        lines = page.output
        assert len(lines) <= 2 + time.monotonic() - began
        assert all("Too many open files" in line for line in lines)


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost:", None])
def test_idle_connections_are_closed(tmp_path: Path, start: bytes | None) -> None:
    """Before a request, in its head, or in its body."""
    with served(tmp_path / "alice.json", idle=0.5) as page:
        headers = f"PUT {page.below('frames/0')} HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n"
        headers += f"Origin: {page.origin}\r\nContent-Type: application/json\r\n"
        body = f"{headers}Content-Length: 9\r\n\r\n{{".encode()
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", page.port), timeout=60) as line:
            line.sendall(body if start is None else start)
            answer = line.recv(1 << 16)
        assert time.monotonic() - began > 0.4
        assert answer[:12] == (b"HTTP/1.1 408" if start is None else b"")
        assert page.output == [] and not page.path.exists()


def test_a_file_that_cannot_grow_is_reported_and_nothing_is_lost(tmp_path: Path) -> None:
    with served(tmp_path / "alice.json") as page:
        assert page.save(0, [], [[1, 1]])[0] == 200
        before = page.path.read_bytes()
        resource.prlimit(page.process.pid, resource.RLIMIT_FSIZE, (len(before), -1))
        code, text, _ = page.save(1, [], [[2, 2]])
        assert code == 500 and "File too large" in json.loads(text)["error"]
        assert page.path.read_bytes() == before
        resource.prlimit(page.process.pid, resource.RLIMIT_FSIZE, (-1, -1))
        assert page.save(1, [], [[2, 2]])[0] == 200 and page.output == []


STRANGE: dict[str, tuple[Callable[[str], str], str]] = {
    "a frame twice": (
        lambda text: text.replace(KEYS[1], KEYS[0]),
        f"key '{KEYS[0]}' occurs 2 times",
    ),
    "a digest that is no string": (
        lambda text: text.replace(f'"{DIGEST}"', "7", 1),
        "7 is not a SHA",
    ),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_malformed_file_is_refused_by_name_and_not_changed(tmp_path: Path, name: str) -> None:
    path, (spoil, says) = tmp_path / "alice.json", STRANGE[name]
    write_clicks(path, {key: FrameClicks(DIGEST, ((1.0, 1.0),)) for key in KEYS[:2]})
    with served(path) as page:
        path.write_text(spoil(path.read_text()))
        before = path.read_bytes()
        for code, text, _ in (
            page.ask("GET", page.below("state")), page.save(2, [], [[1, 1]])
        ):  # fmt: skip
            assert code == 500
            assert str(path) in json.loads(text)["error"] and says in json.loads(text)["error"]
        assert path.read_bytes() == before
    images = np.zeros((2, 8, 8, 3), np.uint8)
    task = server.Task("reach", "alice", path, tuple(KEYS[:2]), (DIGEST,) * 2, images)
    with pytest.raises(FoveaError, match=says):
        server.check(task)
