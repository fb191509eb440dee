"""HTML pages as data."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

from PIL import Image

VOID = {"meta", "link", "img", "input", "br", "wbr"}


class Page(HTMLParser):
    """The elements of a page with their attributes and text; the tags must be closed in their order."""

    def __init__(self, text):
        super().__init__()
        self.text, self.elements, self._open = text, [], []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        element = (tag, dict(attributes), [])
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for _, _, text in self._open:
            text.append(data)

    def all(self, tag, **wanted):
        """(attributes, text) of all elements with that tag and those attributes."""
        wanted = {name.rstrip("_"): value for name, value in wanted.items()}
        return [
            (attributes, "".join(text))
            for name, attributes, text in self.elements
            if name == tag and wanted.items() <= attributes.items()
        ]

    def texts(self, tag, **wanted):
        """The texts of all elements with that tag and those attributes."""
        return [text for _, text in self.all(tag, **wanted)]

    def words(self):
        """The text of the whole page, with single spaces."""
        return " ".join(" ".join(next(text for tag, _, text in self.elements if tag == "main")).split())

    def table(self):
        """A dict for each row of the only table."""
        heads, cells = self.texts("th"), self.texts("td")
        return [dict(zip(heads, cells[i : i + len(heads)], strict=True)) for i in range(0, len(cells), len(heads))]

    def images(self):
        """The decoded images."""
        return [Image.open(io.BytesIO(base64.b64decode(a["src"].partition(",")[2]))) for a, _ in self.all("img")]

    def check_self_contained(self):
        """Assert that the page names no other file and that its policy allows its own script and styles only."""
        assert not re.search(r"https?://|@import|url\(", self.text)
        for _, attributes, _ in self.elements:
            assert all(attributes.get(name, "#").startswith(("#", "data:")) for name in ("src", "href"))
            assert not [name for name in attributes if name.startswith("on") or name == "style"]
        (policy,) = [a["content"] for a, _ in self.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; img-src data:; ")
        for kind in ("script", "style"):
            hashes = [hashlib.sha256(text.encode()).digest() for text in self.texts(kind)]
            assert f"{kind}-src " + " ".join(f"'sha256-{base64.b64encode(h).decode()}'" for h in hashes) in policy
