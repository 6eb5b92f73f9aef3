"""Headless Chromium over its pipe: load a page, choose files, press the mouse, evaluate, take a picture."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
)
SECONDS = 60


class Browser:
    """One tab; Chromium reads the DevTools protocol from file descriptor 3 and answers on 4."""

    def __init__(self, folder: Path) -> None:
        read_here, write_there = os.pipe()
        read_there, self._write = os.pipe()
        command = f'exec "$@" 3<&{read_there} 4>&{write_there}'
        arguments = [str(CHROMIUM), *OPTIONS, f"--user-data-dir={folder}", "--window-size=1100,1000", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", *arguments], pass_fds=(read_there, write_there), stderr=subprocess.DEVNULL
        )
        os.close(read_there)
        os.close(write_there)
        self._answers = os.fdopen(read_here, "rb")
        self._rest, self._number, self._session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)
        self._process.terminate()
        self._process.wait(SECONDS)
        self._answers.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                self._rest += self._answers.read1(1 << 16) or self._ended()
            line, self._rest = self._rest.split(b"\0", 1)
            answer = json.loads(line)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def value(self, expression: str) -> Any:
        """What JavaScript says."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Until JavaScript says something true."""
        end = time.monotonic() + SECONDS
        while not (found := self.value(expression)):
            assert time.monotonic() < end, f"never: {expression}; {self.value('document.body.innerText')}"
            time.sleep(0.05)
        return found

    def choose(self, selector: str, *files: Path) -> None:
        """Give files to an input."""
        node = self.call("Runtime.evaluate", expression=f"document.querySelector({selector!r})")["result"]
        self.call("DOM.setFileInputFiles", files=[str(file) for file in files], objectId=node["objectId"])

    def mouse(self, *path: tuple[float, float]) -> None:
        """Press at the first place, move, and let go at the last."""
        for kind, (x, y) in (
            ("mousePressed", path[0]),
            *(("mouseMoved", at) for at in path),
            ("mouseReleased", path[-1]),
        ):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def picture(self, path: Path) -> None:
        """What it shows, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _ended(self) -> bytes:
        raise AssertionError(f"Chromium ended with status {self._process.wait(SECONDS)}")
