"""Headless Chromium, driven through its DevTools protocol on a pair of pipes."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path

PATIENCE = 60.0
"""Seconds for one answer: a busy machine starts a browser slowly."""

CATEGORIES = ("devtools.timeline", "disabled-by-default-devtools.timeline")
"""What is traced: tasks of threads, and what they are for."""


def installed():
    """Whether there is a Chromium."""
    return shutil.which("chromium") is not None


class Chromium:
    """A browser with one tab, which lives as long as the block.

    Args:
        width, height: of the window, in CSS pixels.
        dark: whether it prefers dark pages.
    """

    def __init__(self, width=1280, height=1000, *, dark=False):
        self._folder = tempfile.mkdtemp(prefix="zst-chromium-")
        read, theirs_out = os.pipe()
        theirs_in, self._write = os.pipe()
        self._read = read
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
        flags += (f"--user-data-dir={self._folder}", "--hide-scrollbars", "about:blank")
        # It reads orders from descriptor 3 and writes to 4.
        words = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", words, "bash", "chromium", *flags],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._ids = count(1)
        self._data = b""
        self._poll = select.poll()
        self._poll.register(read, select.POLLIN)
        self.events = []
        self._session = None
        [tab] = [t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self.ask("Target.attachToTarget", targetId=tab["targetId"], flatten=True)
        self._session = attached["sessionId"]
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **params):
        """Send an order; return its answer. What happens meanwhile is in `events`."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        while True:
            answer = self._receive(PATIENCE)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, name, seconds=PATIENCE):
        """Return the first event of this name, with all that came before it in `events`."""
        while True:
            for event in self.events:
                if event.get("method") == name:
                    return event
            self.events.append(self._receive(seconds))

    def _receive(self, seconds):
        end = time.monotonic() + seconds
        while b"\0" not in self._data:
            left = end - time.monotonic()
            if left <= 0 or not self._poll.poll(left * 1000):
                raise TimeoutError(f"Chromium said nothing within {seconds:g} s")
            if not (piece := os.read(self._read, 1 << 20)):
                raise RuntimeError(f"Chromium ended with {self._process.wait()}")
            self._data += piece
        message, _, self._data = self._data.partition(b"\0")
        return json.loads(message)

    def open(self, url):
        """Go to a page."""
        self.ask("Page.navigate", url=url)

    def run(self, script):
        """Run JavaScript on the page; return its value."""
        asked = {"expression": script, "returnByValue": True, "awaitPromise": True}
        answer = self.ask("Runtime.evaluate", **asked)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def errors(self):
        """Return the exceptions and errors that the page's scripts and policy have met so far."""
        thrown = [e["params"] for e in self.events if e.get("method") == "Runtime.exceptionThrown"]
        entries = [e["params"]["entry"] for e in self.events if e.get("method") == "Log.entryAdded"]
        return thrown + [entry for entry in entries if entry["level"] == "error"]

    def screenshot(self, path, *, whole=False):
        """Write what is seen, or the whole page, as PNG."""
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def trace(self, seconds):
        """Return what all threads do for so many seconds, as events of Chromium's trace format."""
        config = {"includedCategories": list(CATEGORIES)}
        self.ask("Tracing.start", traceConfig=config, transferMode="ReportEvents")
        time.sleep(seconds)
        self.ask("Tracing.end")
        self.wait_for("Tracing.tracingComplete")
        parts = [e["params"] for e in self.events if e.get("method") == "Tracing.dataCollected"]
        return [event for part in parts for event in part["value"]]

    def close(self):
        """End it."""
        os.close(self._write)  # it ends with its pipe
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
