"""The web page without a browser: outputs and messages are the command's, and nothing outside its folder is served."""

import asyncio
import os
import time
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="gradio comes with the extra `web`")

import httpx
from pages import Page as Html
from pictures import smooth, write, write_expert
from webpages import Paused, answer, chosen, join, restored, serving, visitor

from swinir.cli.main import main
from swinir.image_io.picture import Metadata
from swinir.image_io.reader import read_picture
from swinir.photos.manifest import RECORDS
from swinir.service.restorer import Limits, Restorer
from swinir.service.web import MOST_PLANNED, Page, PageLimits
from swinir.service.web_app import POLICY, sweep

pytestmark = pytest.mark.extras


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    return write_expert(tmp_path_factory.mktemp("experts") / "x2.pth")


@pytest.fixture(scope="module")
def page(expert, tmp_path_factory):
    return Page(Restorer("cpu", experts=[expert]), PageLimits(max_files=8), tmp_path_factory.mktemp("page"))


@pytest.fixture
def image(tmp_path):
    return write(tmp_path / "photo.png", smooth(20, 24))


@pytest.fixture
def broken(tmp_path, image):
    path = tmp_path / "broken.png"
    path.write_bytes(image.read_bytes()[:200])
    return path


def test_the_download_is_the_output_of_the_command(page, expert, image, tmp_path):
    assert main(["restore", str(image), "-o", str(tmp_path / "command"), "-n", str(expert), "-s", "3", "-q"]) == 0
    (made,) = (path for path in (tmp_path / "command").iterdir() if path.name != RECORDS)
    status, (download,), _ = restored(page, [image], model="x2.pth", scale=3)
    assert Path(download).name == made.name == "photo_x3_x2.png"
    assert Path(download).read_bytes() == made.read_bytes()
    assert "1 restored" in status


def test_metadata_are_kept(page, tmp_path):
    image = write(tmp_path / "photo.png", smooth(20, 24), metadata=Metadata(dpi=(300.0, 300.0)))
    _, (download,), _ = restored(page, [image], model="x2.pth")
    assert read_picture(download).metadata.dpi == pytest.approx((300, 300), abs=0.1)


def test_a_broken_file_is_one_line_of_the_command_and_the_others_are_restored(page, expert, image, broken, capsys):
    assert main(["restore", str(broken), "-o", str(broken.parent / "command"), "-n", str(expert), "-q"]) == 1
    line = capsys.readouterr().err.splitlines()[0].removeprefix("failed: ").replace(str(broken), broken.name)
    status, downloads, _ = restored(page, [broken, image], model="x2.pth")
    assert Html(status).texts("p", class_="failed") == [line]
    assert [Path(path).name for path in downloads] == ["photo_x2.png"]


def test_several_outputs_come_as_an_archive_with_a_report(page, image, broken):
    other = write(image.with_name("other.png"), smooth(24, 20))
    _, downloads, _ = restored(page, [image, other, broken], model="x2.pth")
    archive, report, *outputs = map(Path, downloads)
    with zipfile.ZipFile(archive) as file:
        assert {name: file.read(name) for name in file.namelist()} == {p.name: p.read_bytes() for p in outputs}
    rows = {row["Image"]: row["Status"] for row in Html(report.read_text(encoding="utf-8")).table()}
    assert rows == {"photo.png": "restored", "other.png": "restored", "broken.png": "failed"}


def test_outputs_of_the_same_name_are_numbered(page, image, tmp_path):
    (tmp_path / "below").mkdir()
    other = write(tmp_path / "below" / "photo.png", smooth(24, 20))
    _, downloads, _ = restored(page, [image, other], model="x2.pth")
    assert [Path(path).name for path in downloads[2:]] == ["photo_x2.png", "photo-2_x2.png"]


def test_the_slider_shows_both_images_at_the_size_of_the_output(page, image):
    _, _, shown = restored(page, [image], model="x2.pth")
    assert [read_picture(path).pixels.shape for path in shown] == [(40, 48, 3)] * 2


def test_a_plan_has_estimates_models_and_sizes(page, image, broken):
    text = page.plan(chosen(page, [image, broken], scale=2), visitor())
    lines = Html(text).texts("p")
    assert lines[0] == "photo.png: 24×20 → 48×40"
    assert lines[1].startswith("Noise ")
    assert lines[2] == "Models: lightweight_sr_x1-4_tiny"
    assert lines[-1].startswith("broken.png: ")


def test_a_plan_of_many_images_counts_the_rest(page, image):
    files = [write(image.with_name(f"{number}.png"), smooth(20, 24)) for number in range(MOST_PLANNED + 2)]
    text = page.plan(chosen(page, files, model="x2.pth"), visitor())
    assert Html(text).texts("p")[-1] == "and 2 more"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"task": "classical_sr"}, "classical_sr enlarges; ask for a scale above 1 with it"),
        ({"model": "none.pth"}, "none.pth"),
        ({"task": "color_dn", "model": "x2.pth"}, "model"),
    ],
)
def test_impossible_choices_are_said_before_and_after(page, image, choices, message):
    for text in (page.plan(chosen(page, [image], **choices), visitor()), restored(page, [image], **choices)[0]):
        (line,) = Html(text).texts("p", class_="failed")
        assert message in line
        assert str(image.parent) not in line


def test_too_many_files_are_refused(page, image):
    status, downloads, _ = restored(page, [image.with_name(f"{number}.png") for number in range(9)])
    assert "9 images are more than the limit of 8" in status
    assert downloads == []


def test_a_file_that_was_deleted_is_asked_for_again(page, tmp_path):
    status, _, _ = restored(page, [tmp_path / "gone.png"])
    assert "gone.png was deleted after 60 minutes; upload it again" in status


def test_names_are_shown_and_do_nothing(page, image):
    evil = image.rename(image.with_name("<img src=x onerror=alert(1)>.png"))
    text = page.plan(chosen(page, [evil], model="x2.pth"), visitor())
    assert Html(text).all("img") == []


def test_the_language_is_the_browsers_first(page, image):
    assert "已复原 1 张" in restored(page, [image], "zh-CN,zh;q=0.9,en;q=0.8", model="x2.pth")[0]
    assert "1 restored" in restored(page, [image], "en-US,zh;q=0.9", model="x2.pth")[0]


def test_who_leaves_stops_the_restoration(expert, image, tmp_path):
    restorer = Paused("cpu", experts=[expert])
    page = Page(restorer, PageLimits(), tmp_path / "page")

    async def leave():
        shown = page.restore(chosen(page, [image]), visitor())
        async for changes in shown:
            if "50%" in str(changes.get(page.status)):
                assert "0:42 left" in str(changes[page.status])
                break
        await shown.aclose()

    asyncio.run(leave())
    assert restorer.left.wait(30)


def test_sweeping_deletes_what_is_old_but_no_examples(tmp_path):
    new, *old = (tmp_path / name for name in ("new/a.png", "old/b.png", "c.jpg"))
    example = tmp_path / "examples" / "d.png"
    for path in (new, *old, example):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"-")
    for _ in range(2):  # folders go once they are empty
        for path in filter(Path.exists, (*old, old[0].parent, example)):
            os.utime(path, (time.time() - 100,) * 2)
        sweep(tmp_path, 50)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {
        "new", "new/a.png", "examples", "examples/d.png",
    }  # fmt: skip


@pytest.fixture(scope="module")
def served(expert, tmp_path_factory):
    """A restorer that waits, the address of its page, and the folder of the page."""
    restorer = Paused("cpu", experts=[expert], limits=Limits(max_bytes=10_000))
    folder = tmp_path_factory.mktemp("served").resolve()
    with serving(restorer, PageLimits(max_waiting=2, max_stored=20_000_000), folder) as address:
        yield restorer, address, folder


def upload(address, name, content):
    return httpx.post(f"{address}/gradio_api/upload", files={"files": (name, content)})


def test_an_upload_lies_in_the_folder_whatever_its_name(served, image):
    _, address, folder = served
    (path,) = upload(address, "../../../photo.png", image.read_bytes()).json()
    assert folder in Path(path).resolve().parents
    assert httpx.get(f"{address}/gradio_api/file={path}").content == image.read_bytes()


@pytest.mark.parametrize(
    "path", ["{folder}/../secret.txt", "{folder}/x/../../secret.txt", "{secret}", "{secret_encoded}", "pyproject.toml"]
)
def test_files_outside_the_folder_are_not_served(served, path):
    _, address, folder = served
    secret = folder.parent / "secret.txt"
    secret.write_text("a secret")
    path = path.format(folder=folder, secret=secret, secret_encoded=str(secret).replace("/", "%2f"))
    response = httpx.get(f"{address}/gradio_api/file={path}")
    assert response.status_code == 403
    assert "a secret" not in response.text


def test_addresses_on_the_web_are_not_fetched(served):
    _, address, _ = served
    for path in ("file=http://example.org/a.png", "file=https://example.org/a.png", "proxy=https://example.org/a.png"):
        assert httpx.get(f"{address}/gradio_api/{path}").status_code == 403


def test_uploads_beyond_the_limits_are_refused(served):
    _, address, _ = served
    assert upload(address, "a.png", b"-" * 10_001).status_code == 413
    response = upload(address, "a.png", b"-" * 20_000_001)
    assert (response.status_code, response.text) == (507, "no room for more images; try again in 60 minutes")


def test_responses_let_browsers_load_nothing_from_elsewhere(served):
    _, address, _ = served
    assert httpx.get(address).headers["content-security-policy"] == POLICY


def test_only_files_that_were_sent_are_read(served, image):
    _, address, _ = served
    (sent,) = upload(address, "photo.png", image.read_bytes()).json()
    assert "photo.png: 24×20" in str(answer(address, "plan", sent, "sent")["output"])
    for path in (image, Path("pyproject.toml").resolve(), f"{sent}/../../../../{image}"):
        message = answer(address, "plan", path, "foreign")
        assert not message["success"]
        assert "24×20" not in str(message)


def test_an_address_in_place_of_a_file_is_refused(served):
    _, address, _ = served
    message = answer(address, "plan", "http://127.0.0.1:1/a.png", "elsewhere")
    assert not message["success"]
    assert "is a web address; download the image and upload it" in message["output"]["error"]


def test_requests_beyond_the_queue_are_refused(served, image):
    restorer, address, _ = served
    (sent,) = upload(address, "photo.png", image.read_bytes()).json()
    assert join(address, "restore", sent, "first").status_code == 200
    assert restorer.waiting.wait(60)
    waiting = [join(address, "restore", sent, f"next{number}").status_code for number in range(3)]
    restorer.released.set()
    assert waiting == [200, 200, 503]


def test_no_function_is_offered_to_other_programs(served):
    _, address, _ = served
    offered = httpx.get(f"{address}/gradio_api/info").json()
    assert (offered["named_endpoints"], offered["unnamed_endpoints"]) == ({}, {})
