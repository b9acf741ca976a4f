"""Debian's Chromium without a window, driven by its DevTools protocol over a pipe.

https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import contextlib
import json
import os
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fcntl import F_DUPFD, fcntl
from typing import Any

from tests.support.postgresql import skip_without

Message = dict[str, Any]

_OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # which root cannot have, nor a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
    "--font-render-hinting=none",
    "--hide-scrollbars",
)
_BOUND = 20.0


class Browser:
    """One browser process, and the messages that it has sent."""

    def __init__(self, folder: str) -> None:
        program = shutil.which("chromium")
        if program is None:
            skip_without("chromium")
        their_in, self._out = os.pipe()
        self._in, their_out = os.pipe()
        # The protocol's file descriptors are 3 and 4, so neither of these may be one of them.
        theirs_in, theirs_out = (fcntl(one, F_DUPFD, 10) for one in (their_in, their_out))
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", script, "-", program, *_OPTIONS, f"--user-data-dir={folder}"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": folder},
        )
        for one in (their_in, their_out, theirs_in, theirs_out):
            os.close(one)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._in, selectors.EVENT_READ)
        self._rest = b""
        self._number = 0
        self.messages: list[Message] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Message:
        """Return the result of a method; raises AssertionError with its error."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _BOUND
        while time.monotonic() < deadline:
            for answer in self.receive(0.5):
                if answer.get("id") == self._number:
                    assert "error" not in answer, f"{method}: {answer['error']}"
                    result: Message = answer["result"]
                    return result
        raise AssertionError(f"no answer to {method} within {_BOUND} s")

    def receive(self, within: float) -> list[Message]:
        """Return the messages that arrive at once within some seconds, and keep them."""
        if not self._selector.select(within):
            return []
        data = os.read(self._in, 1 << 20)
        assert data, "the browser has ended"
        *whole, self._rest = (self._rest + data).split(b"\0")
        received = [json.loads(one) for one in whole]
        self.messages += received
        return received

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._out, b'{"id": 0, "method": "Browser.close"}\0')
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._selector.close()
        os.close(self._in)
        os.close(self._out)


class Tab:
    """A page of the browser, in a profile of its own."""

    def __init__(self, browser: Browser, *, width: int, height: int, dark: bool) -> None:
        self._browser = browser
        context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call("Target.createTarget", url="about:blank", browserContextId=context)
        self._target = target["targetId"]
        self._session = str(
            browser.call("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        )
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def call(self, method: str, **parameters: Any) -> Message:
        return self._browser.call(method, self._session, **parameters)

    def open(self, url: str) -> None:
        """Load a page and wait until it is complete."""
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def ask(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript."""
        given = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", **given)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str, within: float = 15) -> Any:
        """Return the first true value of an expression."""
        deadline = time.monotonic() + within
        while not (value := self.ask(expression)):
            text = self.ask("document.body.innerText")
            assert time.monotonic() < deadline, f"not within {within} s: {expression}\n{text}"
            self._browser.receive(0.1)
        return value

    @property
    def complaints(self) -> list[Message]:
        """What the browser logged of the page: errors, and violations of its policy."""
        methods = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [one["params"] for one in self._received() if one["method"] in methods]

    @property
    def requested(self) -> list[str]:
        """The URLs that the page has asked for."""
        sent = (one for one in self._received() if one["method"] == "Network.requestWillBeSent")
        return [one["params"]["request"]["url"] for one in sent]

    def screenshot(self) -> bytes:
        """Return the whole page as PNG."""
        given: Mapping[str, Any] = {"format": "png", "captureBeyondViewport": True}
        data: str = self.call("Page.captureScreenshot", **given)["data"]
        return base64.b64decode(data)

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)

    def _received(self) -> list[Message]:
        return [
            one
            for one in self._browser.messages
            if one.get("sessionId") == self._session and "method" in one
        ]


@contextmanager
def browser() -> Iterator[Browser]:
    """Run a browser for the body."""
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as folder:
        started = Browser(folder)
        try:
            yield started
        finally:
            started.close()
