"""A real browser without a driver: Chromium, spoken to over the pipe of its DevTools protocol.

Source: https://chromedevtools.github.io/devtools-protocol/ (`--remote-debugging-pipe`: messages as
JSON, each ended by a zero byte, on file descriptors 3 and 4).
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 60


def find() -> str:
    """The browser's program; a missing one is a failure, never a silent skip."""
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    raise AssertionError(f"none of {', '.join(NAMES)} is installed; .ci/run installs chromium")


class Browser:
    """One page in a browser of its own; a context manager."""

    def __init__(self, profile: Path, width: int = 1200, height: int = 900) -> None:
        command, theirs = os.pipe()
        ours, answer = os.pipe()

        def place() -> None:
            # Through numbers that neither 3 nor 4 can be, for one may be the other's target.
            first, second = os.dup(command), os.dup(answer)
            while first < 5 or second < 5:
                first, second = os.dup(first), os.dup(second)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self._process = subprocess.Popen(
            [
                find(), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={profile}",
                f"--window-size={width},{height}", "--remote-debugging-pipe", "about:blank",
            ],
            preexec_fn=place,  # noqa: PLW1509 (it only duplicates descriptors)
            close_fds=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(command)
        os.close(answer)
        self._in, self._out, self._rest, self._number = theirs, ours, b"", 0
        self.events: list[dict[str, Any]] = []
        self._session = ""
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(one["targetId"] for one in targets if one["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command; fails where the browser says that it failed."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._in, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._out], [], [], max(0, end - time.monotonic()))
            assert ready, f"the browser has not answered for {SECONDS} s"
            data = os.read(self._out, 1 << 16)
            assert data, f"the browser ended, with status {self._process.poll()}"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, path: Path) -> None:
        """Open a file and wait until it has been loaded."""
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while self.run("document.readyState") != "complete" or self.run("location.href") in (
            "about:blank",
        ):
            time.sleep(0.02)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def problems(self) -> list[str]:
        """Errors, refusals of the content security policy, and requests to anywhere else."""
        found = []
        for event in self.events:
            method, details = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(str(details["exceptionDetails"]))
            elif method == "Log.entryAdded" and details["entry"]["level"] == "error":
                found.append(str(details["entry"]["text"]))
            elif method == "Network.requestWillBeSent":
                url = details["request"]["url"]
                if not url.startswith(("file:", "about:")):
                    found.append(url)
            elif method == "Page.javascriptDialogOpening":
                found.append("a dialogue")
        return found

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Another window, and the colours that the reader prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = "dark" if dark else "light"
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
