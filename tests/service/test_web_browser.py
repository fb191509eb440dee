"""The web page in Chromium: upload, progress, slider, download, errors, two users, Chinese, a phone."""

import base64
import time

import pytest

pytest.importorskip("gradio", reason="gradio comes with the extra `web`")

from browser import chromium, find_chromium
from pictures import smooth, write, write_expert
from webpages import Paused, serving

from swinir.cli.main import main
from swinir.photos.manifest import RECORDS
from swinir.service.web import PageLimits

pytestmark = [pytest.mark.extras, pytest.mark.slow]

# The place of the line between the images, in percent.
LINE = "parseFloat(document.querySelector('#slider img.fixed')?.style.clipPath.split(' ').at(-1))"
# Name and content of the first download, through the browser.
DOWNLOAD = """(async () => {
    const link = document.querySelector('#downloads a'), file = await (await fetch(link.href)).arrayBuffer();
    return [link.download, btoa(String.fromCharCode(...new Uint8Array(file)))];
})()"""
FILES, STATUS, PLANS, DOWNLOADS = "#files input[type=file]", "#status", "#plans", "#downloads"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("web").resolve()


@pytest.fixture(scope="module")
def expert(folder):
    return write_expert(folder / "x2.pth")


@pytest.fixture(scope="module")
def restorer(expert):
    return Paused("cpu", experts=[expert])


@pytest.fixture(scope="module")
def address(restorer, folder):
    with serving(restorer, PageLimits(), folder / "page") as address:
        yield address


@pytest.fixture(scope="module")
def browser(folder):
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium is installed")
    with chromium(program, folder / "profile") as tab:
        yield tab


@pytest.fixture
def tab(browser, restorer, address):
    """A page just opened; whoever restores waits at half of the work."""
    restorer.reset()
    visit(browser, address)
    yield browser
    restorer.released.set()
    browser.call("Page.close")  # Chromium has six connections to a server, and each page keeps one
    assert [url for url in browser.requests if not url.startswith((address, "data:", "blob:"))] == []


@pytest.fixture
def image(tmp_path):
    return write(tmp_path / "photo.png", smooth(40, 48))


def visit(tab, address, language="en-US"):
    tab.language = language
    tab.open(address)
    tab.wait("document.querySelector('#restore') !== null")


def text(tab, selector):
    return tab.run(f"document.querySelector('{selector}').textContent")


def wait_for(tab, selector, words):
    tab.wait(f"document.querySelector('{selector}')?.textContent.includes('{words}')")


def press(tab, selector):
    """Press a button or a link wherever it is: the layout may still be moving."""
    tab.run(f"document.querySelector('{selector}').click()")


def upload(tab, *files):
    tab.choose(FILES, *files)
    wait_for(tab, PLANS, files[-1].name)


def choose_model(tab, name):
    """Choose a model in the options."""
    press(tab, "#options button")
    tab.wait("document.querySelector('#model input') !== null")
    tab.click("#model input")
    option = f"#model [role=option][data-index='{name}'], #model [role=option][aria-label='{name}']"
    tab.wait(f"document.querySelector(`{option}`) !== null")
    tab.click(option)
    wait_for(tab, PLANS, name)


def test_upload_progress_slider_and_download(tab, restorer, expert, image):
    upload(tab, image)
    choose_model(tab, "x2.pth")
    assert "photo.png: 48×40 → 96×80" in text(tab, PLANS)
    press(tab, "#restore")
    wait_for(tab, STATUS, "50%")
    assert "0:42 left" in text(tab, STATUS) or "0:41 left" in text(tab, STATUS)
    restorer.released.set()
    wait_for(tab, STATUS, "1 restored")
    tab.wait(f"Math.abs({LINE} - 50) < 1")
    for _ in range(20):  # the layout may still be moving
        left, top, width, height = tab.place("#slider .outer")
        x, y = left + width / 2, top + height / 2
        tab.drag([(x, y), (x - 60, y), (x - 120, y)])
        if tab.run(f"{LINE} < 45"):
            break
        time.sleep(0.5)
    assert tab.run(f"{LINE} < 45")
    assert main(["restore", str(image), "-o", str(image.parent / "out"), "-n", str(expert), "-q"]) == 0
    (made,) = (path for path in (image.parent / "out").iterdir() if path.name != RECORDS)
    name, content = tab.run(DOWNLOAD)
    assert name == made.name == "photo_x2.png"
    assert base64.b64decode(content) == made.read_bytes()


def test_cancelling_stops_the_restoration(tab, restorer, image):
    upload(tab, image)
    press(tab, "#restore")
    wait_for(tab, STATUS, "50%")
    press(tab, "#cancel")
    wait_for(tab, STATUS, "Cancelled")
    assert restorer.left.wait(30)


def test_closing_the_page_stops_the_restoration(tab, restorer, image):
    upload(tab, image)
    press(tab, "#restore")
    wait_for(tab, STATUS, "50%")
    tab.call("Page.navigate", url="about:blank")
    assert restorer.left.wait(60)


def test_a_broken_file_is_one_line(tab, restorer, image):
    broken = image.with_name("broken.png")
    broken.write_bytes(image.read_bytes()[:300])
    restorer.released.set()
    tab.choose(FILES, broken)
    line = "broken.png: the file is truncated or damaged; copy or download it again"
    wait_for(tab, PLANS, line)
    press(tab, "#restore")
    wait_for(tab, STATUS, line)


def test_two_users_at_once_each_get_their_own(tab, restorer, address, image):
    other = write(image.with_name("other.png"), smooth(24, 20))
    first = tab.session
    upload(tab, image)
    press(tab, "#restore")
    wait_for(tab, STATUS, "50%")
    visit(tab, address)
    second = tab.session
    upload(tab, other)
    press(tab, "#restore")
    restorer.released.set()
    for session, name, foreign in ((second, "other", "photo"), (first, "photo", "other")):
        tab.session = session
        wait_for(tab, DOWNLOADS, name)
        assert foreign not in text(tab, DOWNLOADS)


def test_an_example_is_restored(tab, restorer):
    restorer.released.set()
    press(tab, "#examples .gallery-item:nth-child(3) button")
    wait_for(tab, PLANS, "coffee_small.png: 300×200 → 600×400")


def test_a_chinese_browser_gets_a_chinese_page(tab, restorer, address, image):
    restorer.released.set()
    visit(tab, address, "zh-CN")
    wait_for(tab, "#restore", "开始复原")
    upload(tab, image)
    assert "噪声" in text(tab, PLANS)
    press(tab, "#restore")
    wait_for(tab, STATUS, "已复原 1 张")


def test_on_a_phone_nothing_is_wider_than_the_screen(tab, restorer, image):
    restorer.released.set()
    tab.size(390, 844, dots=2, mobile=True)
    upload(tab, image)
    press(tab, "#options button")
    press(tab, "#restore")
    wait_for(tab, DOWNLOADS, "photo")
    assert tab.run("document.documentElement.scrollWidth") <= 390
