"""What every page has: a head whose policy lets nothing run or load but what is written in the page, and a foot."""

import base64
import hashlib
from importlib import resources

from swinir.report.table import escaped
from swinir.version import __version__


def _asset(package: str, name: str) -> tuple[str, str]:
    """The text of a file in a package, and its hash for the policy."""
    folder = resources.files(package)
    text = folder.joinpath("templates" if package == "swinir.report" else "", name).read_text(encoding="utf-8")
    return text, "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def head(title: str, *, styles: tuple[str, ...] = ()) -> str:
    """Everything up to the heading and the start of `main`.

    Args:
        styles: packages with a `page.css` that comes after the one of all pages.
    """
    sheets = [_asset(package, "page.css") for package in ("swinir.report", *styles)]
    _, script_hash = _asset("swinir.report", "page.js")
    allowed = " ".join(f"'{style_hash}'" for _, style_hash in sheets)
    policy = f"default-src 'none'; img-src data:; style-src {allowed}; script-src '{script_hash}'"
    sheet_tags = "\n".join(f"<style>{style}</style>" for style, _ in sheets)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(title)}</title>
<link rel="icon" href="data:,">
{sheet_tags}
</head>
<body>
<h1>{escaped(title)}</h1>
<main>
"""


def foot() -> str:
    """The end of `main`, and the script of all pages: sorted tables, pictures under a slider."""
    script, _ = _asset("swinir.report", "page.js")
    return f"""</main>
<footer class="soft"><p>Made by SwinIR Toolkit {escaped(__version__)}.</p></footer>
<script>{script}</script>
</body>
</html>
"""
