"""Files of many users: the command's output and messages, within limits, with progress and cancellation."""

import json
from dataclasses import replace
from http import HTTPStatus
from threading import Event, Thread

import numpy as np
import pytest
import torch
from pictures import smooth, write, write_expert, write_folder

from swinir.cli.main import main
from swinir.image_io.reader import read_picture
from swinir.photos.jobs import Output
from swinir.photos.manifest import RECORDS
from swinir.photos.options import RestoreOptions
from swinir.service.restorer import CancelledError, Limits, RefusedError, Request, Restorer, name_on_disk, safe_name

SMALL_TILES = RestoreOptions(model="x2.pth", tile=16, tile_overlap=4)


@pytest.fixture
def images(tmp_path):
    return write_folder(tmp_path / "in")


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    return write_expert(tmp_path_factory.mktemp("experts") / "x2.pth")


@pytest.fixture
def restorer(expert):
    return Restorer("cpu", experts=[expert])


def request(source, options=SMALL_TILES, name=None, **output):
    return Request(source, name or source.name, options, Output(**output))


def refusal(act, *given, **options):
    """Status and message of a refused request."""
    with pytest.raises(RefusedError) as caught:
        act(*given, **options)
    return caught.value.status, str(caught.value)


@pytest.mark.parametrize(("name", "quality"), [("a.png", None), ("b.tif", None), ("below/c.jpg", 70)])
def test_the_output_is_that_of_the_command(images, tmp_path, restorer, expert, name, quality):
    words = ["restore", str(images / name), "-o", str(tmp_path / "command"), "-n", str(expert), "-t", "16"]
    words += ["--tile-overlap", "4", "-q", *(["--quality", str(quality)] if quality else [])]
    assert main(words) == 0
    wanted = request(images / name, quality=quality)
    restorer.restore(wanted, tmp_path / "service" / wanted.output_name)
    (made,) = (path for path in (tmp_path / "command").iterdir() if path.name != RECORDS)
    assert wanted.output_name == made.name
    assert (tmp_path / "service" / wanted.output_name).read_bytes() == made.read_bytes()


def test_the_output_is_recorded_beside_it(images, tmp_path, restorer):
    result = restorer.restore(request(images / "a.png"), tmp_path / "out" / "a.png")
    row = json.loads((tmp_path / "out" / RECORDS).read_text().splitlines()[-1])
    assert (row["status"], row["output_sha256"]) == ("restored", result.output_sha256)


def test_a_plan_names_the_models_and_the_size(images, restorer):
    decision = restorer.plan(request(images / "a.png"))
    assert (len(decision.models), decision.size) == (1, (40, 48))


def test_progress_grows_to_the_whole_with_the_time_left(images, tmp_path, restorer):
    seen = []
    restorer.restore(request(images / "a.png"), tmp_path / "a.png", progress=lambda *step: seen.append(step))
    shares, left = zip(*seen, strict=True)
    assert shares[0] == 0
    assert shares[-1] == 1
    assert len(shares) > 3
    assert list(shares) == sorted(shares)
    assert all(seconds >= 0 for seconds in left)
    assert left[-1] == 0


def test_a_cancelled_restoration_leaves_no_output(images, tmp_path, restorer):
    seen = []
    with pytest.raises(CancelledError):
        restorer.restore(
            request(images / "a.png"), tmp_path / "out" / "a.png",
            progress=lambda share, left: seen.append(share), stopped=lambda: len(seen) > 1,
        )  # fmt: skip
    assert max(seen) < 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == []
    assert restorer.restore(request(images / "a.png"), tmp_path / "out" / "a.png").status == "restored"


def test_a_restoration_that_waits_for_another_can_be_cancelled(images, tmp_path, restorer):
    begun, end, cancelled = Event(), Event(), Event()

    def wait(share, left):
        begun.set()
        end.wait()

    def second():
        with pytest.raises(CancelledError):
            restorer.restore(request(images / "a.png"), tmp_path / "2.png", stopped=lambda: True)
        cancelled.set()

    first = Thread(
        target=restorer.restore, args=(request(images / "a.png"), tmp_path / "1.png"), kwargs={"progress": wait}
    )
    first.start()
    begun.wait()
    Thread(target=second).start()
    assert cancelled.wait(60)
    end.set()
    first.join()
    assert (tmp_path / "1.png").exists()
    assert not (tmp_path / "2.png").exists()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_bytes": 10}, "a.png: more than the limit of 10 bytes; save it smaller, or in another format"),
        ({"max_pixels": 400}, "a.png: 24x20 is more than the limit of 0.0004 megapixels"),
        (
            {"max_output_pixels": 1900},
            "a.png: 24x20 would become 48x40, more than the limit of 0.0019 megapixels; ask for a smaller scale",
        ),
        ({"max_seconds": 1e-9}, "a.png: not done after 1e-09 s, the limit; a smaller image or scale takes less"),
    ],
)
def test_what_is_too_large_is_refused(images, tmp_path, expert, limits, message):
    restorer = Restorer("cpu", experts=[expert], limits=Limits(**limits))
    refused = refusal(restorer.restore, request(images / "a.png"), tmp_path / "out" / "a.png")
    assert refused == (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
    assert not (tmp_path / "out" / "a.png").exists()


def test_images_between_passes_count_as_outputs(images, tmp_path, expert):
    restorer = Restorer("cpu", experts=[expert], limits=Limits(max_output_pixels=7000))
    options = replace(SMALL_TILES, scale=2.5)  # 60x50, by way of 96x80
    status, message = refusal(restorer.restore, request(images / "a.png", options), tmp_path / "a.png")
    assert (status, "would become 96x80" in message) == (413, True)


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"no image", 415, "holiday.jpg: not an image of a known format"),
        (b"", 422, "holiday.jpg: the file is empty"),
        (b"\x89PNG\r\n\x1a\n not really", 422, "holiday.jpg: "),
    ],
)
def test_messages_are_those_of_the_command_with_the_users_name(tmp_path, restorer, content, status, message):
    (tmp_path / "input").write_bytes(content)
    found = refusal(restorer.check, request(tmp_path / "input", name="holiday.jpg"))
    assert found[0] == status
    assert found[1].startswith(message)
    assert str(tmp_path) not in found[1]


def test_damage_behind_the_header_is_reported_with_the_users_name(tmp_path, restorer):
    whole = write(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    damaged = bytearray(whole.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / "input.png").write_bytes(damaged)
    status, message = refusal(restorer.restore, request(tmp_path / "input.png", name="b.png"), tmp_path / "o" / "b.png")
    assert (status, message.startswith("b.png: "), str(tmp_path) in message) == (422, True, False)


@pytest.mark.parametrize("model", ["../x2.pth", "/etc/passwd", "nonsense", "x3.pth", "a\0b", "classical_sr_x2_DF2K_64"])
def test_a_model_is_a_known_name_and_never_a_path(images, tmp_path, restorer, model, monkeypatch):
    write_expert(tmp_path / "x3.pth")  # a file in the current folder
    monkeypatch.chdir(tmp_path)
    status, message = refusal(restorer.check, request(images / "a.png", RestoreOptions(model=model)))
    assert status == 422
    assert model.replace("\0", r"\x00") in message


def test_a_model_of_the_zoo_serves(tmp_path, restorer):
    write(tmp_path / "a.png", smooth(16, 16))
    options = RestoreOptions(model="lightweight_sr_x1-4_tiny")
    restorer.restore(request(tmp_path / "a.png", options), tmp_path / "out.png")
    assert read_picture(tmp_path / "out.png").pixels.shape == (64, 64, 3)


def test_the_least_recently_used_model_leaves_when_the_budget_is_spent(images, tmp_path, expert):
    other = write_expert(tmp_path / "other.pth", upscale=3)
    restorer = Restorer("cpu", experts=[expert, other], budget=1)
    first = restorer.models.get(str(expert))
    restorer.restore(request(images / "a.png", replace(SMALL_TILES, model="other.pth")), tmp_path / "a.png")
    assert restorer.models.get(str(expert)) is not first
    roomy = Restorer("cpu", experts=[expert, other], budget=1e9)
    first = roomy.models.get(str(expert))
    roomy.restore(request(images / "a.png", replace(SMALL_TILES, model="other.pth")), tmp_path / "a.png")
    assert roomy.models.get(str(expert)) is first


def test_precision_is_that_of_the_process(images, tmp_path, expert):
    restorer = Restorer("cpu", experts=[expert], precision="bf16")
    result = restorer.restore(request(images / "a.png", replace(SMALL_TILES, precision="fp32")), tmp_path / "a.png")
    assert (result.precision, result.engine) == ("bf16", f"torch {torch.__version__}")


def test_a_folder_that_cannot_be_written_is_the_services_fault(images, tmp_path, restorer):
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        found = refusal(restorer.restore, request(images / "a.png"), folder / "a.png")
        assert found[0] == HTTPStatus.SERVICE_UNAVAILABLE
        assert found[1].startswith("a.png: the output cannot be written: ")
        assert str(tmp_path) not in found[1]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("holiday 2024 (1).jpg", "holiday 2024 (1).jpg"),
        ("假期.jpg", "假期.jpg"),
        ("../../etc/passwd", "passwd"),
        (r"C:\photos\a.png", "a.png"),
        (".hidden", "hidden"),
        ("..", "image"),
        ("", "image"),
        ("a\r\nb\x1b[31m.png", "a__b__31m.png"),
        ("<script>.png", "_script_.png"),
        ("x" * 300 + ".png", "x" * 96 + ".png"),
    ],
)
def test_a_name_from_outside_is_one_safe_line(name, shown):
    assert safe_name(name) == shown


@pytest.mark.parametrize(
    ("name", "stored"),
    [("a.JPG", "input.jpg"), ("a.tif", "input.tif"), ("a.exe", "input"), ("../..", "input"), ("a.png/../b", "input")],
)
def test_only_a_known_suffix_of_a_name_reaches_the_disk(name, stored):
    assert name_on_disk(name) == stored


@pytest.mark.parametrize("wrong", [{"max_bytes": 0}, {"max_seconds": -1}, {"max_pixels": 10**9}])
def test_a_limit_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits(**wrong)
