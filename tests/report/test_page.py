"""The page about restored pictures: what it tells, and that files it is made from cannot make it do anything else."""

import base64
import hashlib
import io
import math
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from pictures import smooth, write
from PIL import Image
from reports import record, write_pair, write_records

from swinir.cli.main import main
from swinir.image_io.picture import Picture
from swinir.report.page import write_report
from swinir.report.pair import inline, shown_size
from swinir.report.rows import find_files, read_results, score

VOID = {"meta", "link", "img", "input", "br", "wbr"}


class Page(HTMLParser):
    """The elements of a page, with their attributes and the text in them; tags must be closed in their order."""

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
        """(attributes, text) of all elements of a kind."""
        wanted = {name.rstrip("_"): value for name, value in wanted.items()}
        return [
            (attributes, "".join(text))
            for name, attributes, text in self.elements
            if name == tag and wanted.items() <= attributes.items()
        ]

    def texts(self, tag, **wanted):
        return [text for _, text in self.all(tag, **wanted)]

    def table(self):
        """A dict for each row."""
        heads = self.texts("th")
        cells = self.texts("td")
        return [dict(zip(heads, cells[i : i + len(heads)], strict=True)) for i in range(0, len(cells), len(heads) or 1)]

    def pictures(self):
        """The images in it."""
        return [
            Image.open(io.BytesIO(base64.b64decode(attributes["src"].partition(",")[2])))
            for attributes, _ in self.all("img")
        ]


def page_of(records, tmp_path, **options):
    write_report(tmp_path / "report.html", records, **options)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def pair(tmp_path):
    """The record of a picture of 24x20 that was doubled."""
    return write_pair(tmp_path, "a.png", smooth(20, 24), smooth(40, 48))


# Records


def test_the_last_finished_record_about_an_output_counts(tmp_path):
    path = write_records(
        tmp_path,
        record(output="out/a.png", seconds=1.0),
        record(output="out/b.png", status="failed", error="disk on fire"),
        record(output="out/a.png", seconds=2.0),
        record(output="out/b.png", status="restored"),
        record(output="out/b.png", status="begun"),
    )
    results, strange = read_results(path)
    assert [(r.output, r.status, r.seconds) for r in results] == [
        ("out/a.png", "restored", 2.0), ("out/b.png", "restored", 1.5),
    ]  # fmt: skip
    assert strange == 0


@pytest.mark.parametrize(
    "line",
    [
        record()[:-40],
        "[]",
        "3",
        '{"status": "restored"}',
        "[" * 100_000,
        record(status="done"),
        record(status=["restored"]),
        record(width="<b>"),
        record(width=-1),
        record(width=True),
        record(seconds=math.inf),
        record(seconds="1"),
        record(findings=[1]),
        record(findings=None),
        record(experts=[["a"]]),
        record(experts=7),
        record(tile=[1]),
        record(error=None),
        record(noise_level="25"),
        record(jpeg_quality=math.nan),
        record(jpeg_quality=-1),
        record().replace("24", "9" * 5000),
        b"\xff\xfe\0".decode("latin-1"),
    ],
)
def test_lines_that_are_no_records_are_counted_and_passed_over(tmp_path, line):
    results, strange = read_results(write_records(tmp_path, line, record(output="out/good.png")))
    assert [r.output for r in results] == ["out/good.png"]
    assert strange == 1


def test_records_of_later_versions_are_read(tmp_path):
    (result,) = read_results(write_records(tmp_path, record(sharpness=3)))[0]
    assert result.width == 24


def test_files_are_found_from_other_folders(tmp_path, pair, monkeypatch):
    records = write_records(tmp_path, pair)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (entry,) = find_files(read_results(records)[0], records.parent)
    assert entry.source.samefile(tmp_path / "in" / "a.png")
    assert entry.target.samefile(tmp_path / "out" / "a.png")


def test_results_are_found_in_a_folder_with_a_new_name_and_never_taken_for_inputs(tmp_path, pair):
    write_records(tmp_path, pair)
    (tmp_path / "in" / "a.png").unlink()
    moved = (tmp_path / "out").rename(tmp_path / "new")
    (entry,) = find_files(read_results(moved)[0], moved)
    assert entry.target.samefile(moved / "a.png")
    assert not entry.source.exists()


# The page


def test_a_page_tells_what_was_done(tmp_path, pair):
    records = write_records(
        tmp_path,
        pair.replace('"findings": []', '"findings": ["tiny: the noise"]').replace(
            '"noise_level": null, "jpeg_quality": null', '"noise_level": 25.3, "jpeg_quality": 40.0'
        ),
        record(input="in/b.png", output="out/b.png", status="failed", error="b.png: truncated", experts=[]),
        record(input="in/c.png", output="out/c.png", status="unchanged", experts=[], seconds=70),
    )
    page = page_of(records, tmp_path)
    facts = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert facts == {"Restored": "1", "Needed nothing": "1", "Failed": "1", "Computing time": "1 min 13 s"}
    assert page.table()[0] == {
        "Picture": "a.png", "Status": "restored", "Before": "24×20", "After": "48×40",
        "Experts": "lightweight_sr_x2_tiny", "Seconds": "1.50", "Noise": "25.3", "JPEG": "40",
    }  # fmt: skip
    assert [row["Status"] for row in page.table()] == ["restored", "failed", "unchanged"]
    assert f"SHA-256 {'f' * 64}" in page.text
    assert "b.png: truncated" in "".join(page.texts("section", class_="failed"))
    assert "tiny: the noise" in page.texts("li")


def test_cells_say_what_they_are_sorted_by(tmp_path, pair):
    page = page_of(write_records(tmp_path, pair), tmp_path)
    values = [attributes.get("data-value") for attributes, _ in page.all("td")]
    assert values == ["a.png", "restored", "480", "1920", "lightweight_sr_x2_tiny", "1.5"]
    assert {attributes["aria-sort"] for attributes, _ in page.all("th")} == {"none"}


def test_the_input_is_shown_at_the_size_of_the_result(tmp_path, pair):
    before, after = page_of(write_records(tmp_path, pair), tmp_path).pictures()
    assert before.size == after.size == (48, 40)
    assert np.abs(np.asarray(after).astype(int) - smooth(40, 48)).mean() < 2  # JPEG of quality 95
    bicubic = Image.fromarray(smooth(20, 24)).resize((48, 40), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(before).astype(int) - np.asarray(bicubic)).mean() < 2


def test_a_large_picture_is_shown_smaller_and_the_page_says_so(tmp_path, pair):
    page = page_of(write_records(tmp_path, pair), tmp_path, max_side=16)
    assert [picture.size for picture in page.pictures()] == [(16, 13)] * 2
    assert "Shown at 16×13 of 48×40 pixels." in page.texts("p")
    assert "Shown at" not in page_of(write_records(tmp_path, pair), tmp_path, max_side=48).text


def test_the_first_pictures_are_shown_and_all_are_in_the_table(tmp_path):
    names = [f"{i}.png" for i in range(4)]
    lines = [write_pair(tmp_path, name, smooth(8, 8), smooth(16, 16)) for name in names]
    page = page_of(write_records(tmp_path, *lines), tmp_path, limit=3)
    assert len(page.all("figure")) == 3
    assert [row["Picture"] for row in page.table()] == names
    assert "the first 3 of 4 pictures" in page.text
    assert {a["href"] for a, _ in page.all("a")} == {f"#{a['id']}" for a, _ in page.all("figure")}


def test_pictures_of_all_kinds_are_laid_out_for_a_browser():
    alpha = np.zeros((6, 8), np.uint16)
    shown = inline(Picture(smooth(6, 8, 1, np.uint16), alpha), (8, 6))
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.uri.partition(",")[2]))))
    assert pixels.shape == (6, 8, 3)
    assert (pixels == 255).all()
    assert shown_size(Picture(np.zeros((1, 5000, 3), np.uint8)), 1600) == (1600, 1)
    with pytest.raises(ValueError, match="finite"):
        inline(Picture(np.full((2, 2, 1), np.nan, np.float32)), (2, 2))


@pytest.mark.parametrize("gone", [["in"], ["out"], ["in", "out"]])
def test_what_is_not_there_leaves_a_note_in_its_place(tmp_path, pair, gone):
    for folder in gone:
        (tmp_path / folder / "a.png").unlink()
    records = write_records(tmp_path, pair)
    assert write_report(tmp_path / "report.html", records).missing == 1
    page = page_of(records, tmp_path)
    notes = page.texts("p", class_="missing")
    assert len(notes) == len(gone)
    assert all("a.png is not there" in note for note in notes)
    assert len(page.pictures()) == 2 - len(gone)


def test_a_result_that_is_no_picture_any_more_leaves_its_reason(tmp_path, pair):
    (tmp_path / "out" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (note,) = page_of(write_records(tmp_path, pair), tmp_path).texts("p", class_="missing")
    assert note.startswith("No picture after:")


def test_an_input_that_has_changed_since_is_told(tmp_path, pair):
    write(tmp_path / "in" / "a.png", smooth(20, 24, seed=1))
    page = page_of(write_records(tmp_path, pair), tmp_path)
    assert "The input has changed since it was restored." in page.texts("p")


# References


def test_results_are_measured_against_references_of_their_name_and_size(tmp_path, pair):
    gt = tmp_path / "gt"
    gt.mkdir()
    write(gt / "a.tif", np.clip(smooth(40, 48).astype(int), 10, 245).astype(np.uint8))
    write(tmp_path / "out" / "a.png", np.clip(smooth(40, 48).astype(int), 10, 245).astype(np.uint8) + np.uint8(10))
    page = page_of(write_records(tmp_path, pair), tmp_path, gt=gt)
    (row,) = page.table()
    assert row["PSNR"] == f"{20 * math.log10(255 / 10):.2f}" == "28.13"
    luma_step = 10 / 255 * (65.481 + 128.553 + 24.966)
    assert row["PSNR Y"] == f"{20 * math.log10(255 / luma_step):.2f}"
    facts = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert facts["PSNR, mean of 1"] == "28.13 dB"
    assert facts["SSIM, mean of 1"] == row["SSIM"]


def test_similarity_is_that_of_scikit_image(tmp_path, pair):
    from skimage.metrics import structural_similarity

    gt = tmp_path / "gt"
    gt.mkdir()
    rng = np.random.default_rng(0)
    noisy = np.clip(smooth(40, 48) + rng.normal(0, 20, (40, 48, 3)), 0, 255).astype(np.uint8)
    write(gt / "a.png", noisy)
    (entry,) = find_files(read_results(write_records(tmp_path, pair))[0], tmp_path / "out", gt)
    expected, whole = structural_similarity(
        smooth(40, 48), noisy, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        data_range=255, full=True,
    )  # fmt: skip
    assert score(entry).ssim == pytest.approx(whole[5:-5, 5:-5].mean(), abs=1e-6)
    assert expected == pytest.approx(whole[5:-5, 5:-5].mean(), abs=1e-6)


def test_equal_pictures_and_tiny_ones_have_the_scores_they_can_have(tmp_path):
    lines = [write_pair(tmp_path, f"{n}.png", smooth(n, n), smooth(n, n)) for n in (8, 12)]
    page = page_of(write_records(tmp_path, *lines), tmp_path, gt=tmp_path / "in")
    assert [(row["PSNR"], row["SSIM"]) for row in page.table()] == [("∞", ""), ("∞", "1.0000")]
    assert [a["data-value"] for a, text in page.all("td") if text == "∞"] == ["Infinity"] * 4


def test_a_reference_of_another_size_is_no_reference(tmp_path, pair):
    page = page_of(write_records(tmp_path, pair), tmp_path, gt=tmp_path / "in")
    assert "PSNR" not in page.texts("th")
    assert "a.png is 24x20, the result 48x40" in " ".join(page.texts("p"))


# Safety

HOSTILE = [
    "<script>alert(1)</script>.png",
    "</script><img src=x onerror=alert(1)>.png",
    '" onload="alert(1).png',
    "' autofocus onfocus='alert(1).png",
    "<!--.png",
    "&lt;b&gt;.png",
    "a\u202egnp.exe.png",
    "line\nbreak\0null.png",
    os.fsdecode(b"\xff\xfe.png"),
    "\ud800.png",
    "x" * 5000 + ".png",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_and_messages_are_text_and_nothing_else(tmp_path, name):
    lines = [
        record(input=f"in/{name}", output=f"out/{name}", experts=[[name, name]], settings=name, precision=name,
               findings=[name, f"Noise: standard deviation {name}", "JPEG: quality nan"], notes=[name], tile=name),
        record(input=f"in/{name}", output="out/b.png", status="failed", error=f"{name}: broken"),
    ]  # fmt: skip
    usual = page_of(write_records(tmp_path, record(), record(output="out/b.png", status="failed")), tmp_path)
    page = page_of(write_records(tmp_path, *lines), tmp_path)
    assert {tag for tag, _, _ in page.elements} <= {tag for tag, _, _ in usual.elements}
    assert len(page.all("script")) == 1
    assert page.texts("script") == usual.texts("script")
    allowed = {name for _, attributes, _ in usual.elements for name in attributes}
    assert {name for _, attributes, _ in page.elements for name in attributes} <= allowed
    assert "\u202e" not in page.text
    if "&" in name:
        assert any("&lt;b&gt;" in text for text in page.texts("h3"))


def test_a_name_with_bytes_that_are_no_text_is_shown_with_its_picture(tmp_path):
    name = os.fsdecode(b"caf\xe9 <1>.png")
    try:
        line = write_pair(tmp_path, name, smooth(8, 8), smooth(8, 8))
    except OSError:
        pytest.skip("this file system takes no such names")
    page = page_of(write_records(tmp_path, line), tmp_path)
    assert len(page.pictures()) == 2
    assert r"caf\udce9 <1>.png" in page.texts("h3")[0]


def test_the_page_asks_nobody_and_runs_only_its_own_script(tmp_path, pair):
    page = page_of(write_records(tmp_path, pair), tmp_path)
    assert not re.search(r"https?://|@import|url\(", page.text)
    for _, attributes, _ in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    (policy,) = [a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    for kind, text in (("script", page.texts("script")[0]), ("style", page.texts("style")[0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


# The command


def test_the_command_writes_a_page_about_a_folder(tmp_path, pair, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path, pair)
    assert main(["report", "out"]) == 0
    assert "report.html: 1 of 1 pictures shown; 0." in capsys.readouterr().out
    assert main(["report", "out/results.jsonl", "-o", "out/page.html", "--gt", "in", "--limit", "0"]) == 0
    assert (tmp_path / "out" / "page.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.jsonl"], "absent.jsonl is not there; `swinir restore` writes results.jsonl"),
        (["in"], "in/results.jsonl is not there"),
        (["in/a.png"], "no finished picture in in/a.png"),
        (["out", "--gt", "absent"], "folder not found: absent"),
        (["out", "--gt", "in/a.png"], "not a folder"),
        (["out", "-o", "out/results.jsonl"], "--output must end in .html"),
        (["out", "-o", "absent/a.html"], "folder not found"),
        (["out", "--max-side", "0"], "--max-side must be at least 1"),
        (["out", "--limit", "-1"], "--limit must be 0 or more"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, pair, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path, pair)
    assert main(["report", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "report.html").exists()
