"""Opens pages in headless Chromium: JavaScript to values, the window to pixels.

Speaks the DevTools protocol through two pipes (``--remote-debugging-pipe``), so that neither a driver program nor a
websocket library is needed.
"""

import base64
import fcntl
import io
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--hide-scrollbars",
    "--no-first-run",
    # WebGL without a GPU.
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
ON_3_AND_4 = "import os, sys; [os.dup2(int(sys.argv[i]), i + 2) for i in (1, 2)]; os.execv(sys.argv[3], sys.argv[3:])"
"""A program that becomes the browser with the two pipes on the descriptors on which the protocol is spoken."""
ANSWER_LIMIT_S = 60.0
READ_BYTES = 1 << 20


def find_chromium() -> str | None:
    """Path of an installed Chromium, None where there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """A window of ``width`` x ``height`` pixels with one page, in a profile of its own in ``folder``."""

    def __init__(self, program: str, *, folder: Path, width: int, height: int) -> None:
        (to_browser, self._out), (self._in, from_browser) = os.pipe(), os.pipe()
        # Without a user's sandbox rights, as in containers, root has to do without the sandbox.
        flags = [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        flags += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}", "about:blank"]
        # Copies above 4, so that neither is overwritten when the other gets its number.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (to_browser, from_browser)]
        with (folder / "chromium.log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", ON_3_AND_4, *map(str, ends), program, *flags],
                pass_fds=ends,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        for end in (to_browser, from_browser, *ends):
            os.close(end)
        self._pending = b""
        self._calls = 0
        self._session: str | None = None
        self.errors: list[str] = []
        """Exceptions that nobody caught in the page."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Runtime.enable")
        self._call("Page.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._session = None
            self._call("Browser.close")
            self._process.wait(timeout=ANSWER_LIMIT_S)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._out)
            os.close(self._in)

    def use_colours(self, scheme: str) -> None:
        """Show pages in ``light`` or ``dark`` colours, as the reader's system would ask for."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url: str) -> None:
        """Go to ``url`` and wait until its scripts have been loaded."""
        self.errors.clear()
        self._call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression, which has to be one that JSON can hold."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, expression: str, *, limit_s: float = ANSWER_LIMIT_S) -> Any:
        """Value of a JavaScript expression as soon as it is a true one; AssertionError with the page's text."""
        end = time.monotonic() + limit_s
        while not (value := self.evaluate(expression)):
            assert not self.errors, self.errors
            assert time.monotonic() < end, f"{expression} stays {value!r}; page: {self.text()}"
            time.sleep(0.2)
        return value

    def click(self, selector: str) -> None:
        """Press the element that a CSS selector finds, as soon as it is there."""
        self.wait_for(
            f"(found => found !== null && (found.click(), true))(document.querySelector({json.dumps(selector)}))"
        )

    def text(self) -> str:
        """Text of the page as it is shown."""
        return str(self.evaluate("document.body.innerText"))

    def screenshot_png(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def screenshot_rgb(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 pixels of the window."""
        with Image.open(io.BytesIO(self.screenshot_png())) as picture:
            return np.asarray(picture.convert("RGB"))

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._calls += 1
        message: dict[str, Any] = {"id": self._calls, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + ANSWER_LIMIT_S
        while True:
            answer = self._next_message(end)
            if answer.get("id") == self._calls:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            if answer.get("method") == "Runtime.exceptionThrown":
                details = answer["params"]["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))

    def _next_message(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"Chromium has not answered in {ANSWER_LIMIT_S:g} s"
            received = os.read(self._in, READ_BYTES)
            assert received, f"Chromium has ended with {self._process.poll()}"
            self._pending += received
        message, _, self._pending = self._pending.partition(b"\0")
        return dict(json.loads(message))
