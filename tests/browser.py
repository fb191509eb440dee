"""A headless Chromium, controlled through a pipe by the DevTools protocol: without driver, network and port."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
# Chromium reads commands from descriptor 3 and writes answers to 4; the pipes are duplicated to these.
WITH_PIPES = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
SECONDS = 240


def find_chromium():
    """Find the path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Tab:
    """A page; `requests` holds the addresses it requested, `messages` the errors of its scripts.

    `session` names the tab that is controlled, the one opened last; `language` is that of tabs that are opened next.
    """

    def __init__(self, read, write):
        self._read, self._write, self._number, self._rest = read, write, 0, b""
        self.session, self.language, self.requests, self.messages = None, None, [], []

    def call(self, method, **parameters):
        """Send a command of the DevTools protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _next(self):
        while b"\0" not in self._rest:
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has gone"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        name, about = message.get("method"), message.get("params", {})
        if name == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif name == "Runtime.exceptionThrown":
            self.messages.append(about["exceptionDetails"]["exception"].get("description", "exception"))
        elif name == "Log.entryAdded":
            self.messages.append(about["entry"]["text"])
        return message

    def open(self, page):
        """Load a file, or an address, in a new tab."""
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.size(1280, 900)
        address = page if isinstance(page, str) else page.resolve().as_uri()
        if self.language:
            self.call("Emulation.setUserAgentOverride", userAgent="test", acceptLanguage=self.language)
        self.call("Page.navigate", url=address)
        self.wait(f"document.readyState === 'complete' && location.protocol === '{address.partition(':')[0]}:'")

    def size(self, width, height, *, dots=1, mobile=False):
        """Set the size of the window in CSS pixels, each of `dots` screen pixels a side."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=dots, mobile=mobile
        )

    def run(self, expression):
        """Evaluate an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition):
        """Wait until an expression is true."""
        end = time.monotonic() + SECONDS
        while not self.run(condition):
            assert time.monotonic() < end, f"not within {SECONDS} s: {condition}"
            time.sleep(0.05)

    def place(self, selector):
        """Scroll an element into view, and return its left, top, width and height in the window."""
        return self.run(
            f"(e => {{ e.scrollIntoView({{block: 'center', behavior: 'instant'}}); const r = e.getBoundingClientRect();"
            f" return [r.left, r.top, r.width, r.height] }})(document.querySelector({json.dumps(selector)}))"
        )

    def click(self, selector):
        """Click in the middle of an element."""
        left, top, width, height = self.place(selector)
        self.drag([(left + width / 2, top + height / 2)])

    def drag(self, points):
        """Drag the mouse from the first point over the others."""
        for kind, (x, y) in [("Pressed", points[0]), *(("Moved", p) for p in points[1:]), ("Released", points[-1])]:
            self.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, button="left", buttons=1, clickCount=1)

    def choose(self, selector, *paths):
        """Choose files in an input for files."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def press(self, key, code, number):
        """Press and release a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=number)

    def screenshot(self, path, *, whole=False):
        """Write a screenshot as a PNG file."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def chromium(program, profile):
    """Run a browser with an empty profile, and yield a tab."""
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()
    command = [program, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_PIPES, str(theirs_in), str(theirs_out), *command],
        pass_fds=(theirs_in, theirs_out),
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    tab = Tab(ours_in, ours_out)
    try:
        yield tab
        tab.session = None
        tab.call("Browser.close")
    finally:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(ours_in)
        os.close(ours_out)
