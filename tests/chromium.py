"""Headless Chromium, driven over a pipe: a page at a size, in a colour scheme, and what it did and looks like."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The browser reads from 3 and writes to 4, which the pipe's own ends may be already.
_LAUNCH = """
import fcntl, os, sys
for number, end in enumerate([fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]], 3):
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""

FOUND = next((path for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (path := shutil.which(name))), None)


class Page:
    """A page. events: everything that the browser has told of it."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._numbers = to, back, itertools.count(1)
        self._buffer, self._session = b"", None
        self.events: list[dict[str, Any]] = []
        pages = [one["targetId"] for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        target = pages[0] if pages else self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **options: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": options, **({"sessionId": self._session} if self._session else {})}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while b"\0" not in self._buffer:
            assert select.select([self._back], [], [], deadline - time.monotonic())[0], "Chromium does not answer"
            block = os.read(self._back, 1 << 20)
            assert block, "Chromium has gone"
            self._buffer += block
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def open(self, path: Path | str, width: int, height: int = 800, dark: bool = False, media: str = "", touch: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.events.clear()
        self.call("Page.navigate", url=path if isinstance(path, str) else path.absolute().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

    def value(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def requests(self) -> list[str]:
        """Addresses asked for, but for those that carry their content."""
        urls = [event["params"]["request"]["url"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self) -> list[str]:
        """What stands in the console, and exceptions."""
        return [
            json.dumps(event["params"])
            for event in self.events
            if event.get("method") in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        ]

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file in the page's input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file.absolute())])

    def until(self, expression: str, seconds: float = 20) -> Any:
        """The value of an expression, once it is true."""
        deadline = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < deadline, f"still not true after {seconds} s: {expression}"
            time.sleep(0.05)
        return found

    def tap(self, x: float, y: float) -> None:
        """With a finger."""
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def screenshot(self, path: Path) -> None:
        """Of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"]))


@contextmanager
def chromium(*options: str) -> Iterator[Page]:
    """A browser with one page. options: further options of its command line."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for attempt in range(3):
            process, to, back = _started(f"{profile}/{attempt}", options)
            try:
                page = Page(to, back)
                break
            except (AssertionError, OSError):  # on a busy machine one in twenty hangs when it starts
                _end(process, to, back)
        else:
            raise AssertionError("Chromium does not start")
        try:
            yield page
        finally:
            _end(process, to, back)


def _started(profile: str, more: tuple[str, ...]) -> tuple[subprocess.Popen[bytes], int, int]:
    """The browser, and the ends of its pipe to write to and to read from."""
    assert FOUND is not None
    theirs_in, to = os.pipe()
    back, theirs_out = os.pipe()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        [sys.executable, "-c", _LAUNCH, str(theirs_in), str(theirs_out), FOUND, *options, *more, "--remote-debugging-pipe", "about:blank"],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    return process, to, back


def _end(process: subprocess.Popen[bytes], to: int, back: int) -> None:
    os.close(to)  # the browser ends when its pipe does
    os.close(back)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
