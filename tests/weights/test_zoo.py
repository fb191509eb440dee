"""swinir.weights.zoo and `swinir zoo`, against a server on this machine; no test reaches beyond it."""

import contextlib
import errno
import hashlib
import itertools
import json
import logging
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from forks import in_another_process
from hypothesis import given
from hypothesis import strategies as st

from swinir.cli.main import main
from swinir.models.complexity import count_parameters
from swinir.tasks import TASKS
from swinir.weights import download, zoo
from swinir.weights.listing import model_row

REPOSITORY = Path(__file__).parents[2]
KNOWN = "002_lightweightSR_DIV2K_s64w8_SwinIR-S_x2"  # its hash is published
UNKNOWN = "004_grayDN_DFWB_s128w8_SwinIR-M_noise25"  # its hash is not


# The grammar of names


def test_every_released_name_survives_parsing_and_formatting() -> None:
    for entry in zoo.RELEASED:
        assert zoo.format_name(zoo.parse_name(entry.file)) == entry.name


@st.composite
def weights_names(draw: st.DrawFn) -> zoo.WeightsName:
    task = draw(st.sampled_from(list(zoo.TASK_IN_NAME)))
    positive = st.integers(1, 10**6)
    level, level_to = draw(positive), None
    if zoo.TASK_IN_NAME[task][1] != "x" and draw(st.booleans()):
        level, level_to = sorted(draw(st.lists(st.integers(0, 10**6), min_size=2, max_size=2, unique=True)))
    return zoo.WeightsName(
        id=f"{draw(st.integers(0, 999)):03d}",
        task=task,
        data=draw(st.from_regex(r"[A-Za-z0-9-]+", fullmatch=True)),
        patch=draw(positive),
        window=draw(positive),
        size=draw(st.sampled_from(list(zoo.SIZE_WORDS))),
        kind=zoo.TASK_IN_NAME[task][1],
        level=level,
        objective=draw(st.sampled_from(["", "GAN", "PSNR"])),
        level_to=level_to,
    )


@given(weights_names(), st.sampled_from(["", ".pth", ".safetensors"]), st.sampled_from(["", "folder/", "/a/b/"]))
def test_parsing_inverts_formatting(parts: zoo.WeightsName, suffix: str, folder: str) -> None:
    assert zoo.parse_name(folder + zoo.format_name(parts) + suffix) == parts


@given(st.text(max_size=80))
def test_any_text_parses_or_is_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert zoo.format_name(zoo.parse_name(text))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("", "id"),
        ("1_classicalSR_DF2K_s64w8_SwinIR-M_x2", "id"),
        ("001_classicSR_DF2K_s64w8_SwinIR-M_x2", "task"),
        ("001_classicalSR_DF 2K_s64w8_SwinIR-M_x2", "data"),
        ("001_classicalSR_DF2K_64w8_SwinIR-M_x2", "patch and window"),
        ("001_classicalSR_DF2K_s64w8_SwinIR-X_x2", "size"),
        ("001_classicalSR_DF2K_s64w8_SwinIR-M_y2", "level"),
        ("001_classicalSR_DF2K_s64w8_SwinIR-M_noise25", "level"),
        ("001_classicalSR_DF2K_s64w8_SwinIR-M_x0", "level"),
        ("001_classicalSR_DF2K_s64w8_SwinIR-M_x2_MSE", "objective"),
        ("001_classicalSR_DF2K_s064w8_SwinIR-M_x2", "should be written"),
        ("001_classicalSR_DF2K_s64w8_SwinIR-M_x2_", "should be written"),
        ("001_classicalSR_DF2K_s64w8_SwinIR-M_x2.pt", "level"),
        ("005_colorDN_TK410_s32w8_SwinIR-T_noise55-0", "a range of levels must rise, got 'noise55-0'"),
        ("005_colorDN_TK410_s32w8_SwinIR-T_noise25-25", "a range of levels must rise, got 'noise25-25'"),
        ("005_colorDN_TK410_s32w8_SwinIR-T_noise0", "level"),
        ("005_colorDN_TK410_s32w8_SwinIR-T_noise0-", "level"),
        ("005_colorDN_TK410_s32w8_SwinIR-T_noise00-55", "should be written"),
        ("001_classicalSR_DF2K_s64w8_SwinIR-M_x4-1", "a range of levels must rise, got 'x4-1'"),
    ],
)
def test_a_parse_error_names_the_part(name: str, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        zoo.parse_name(name)


def test_a_name_with_a_range_is_for_every_level_in_it() -> None:
    one = zoo.parse_name("005_colorDN_TK410_s32w8_SwinIR-T_noise25")
    assert [level for level in (0, 24.9, 25, 25.1) if one.covers(level)] == [25]
    many = zoo.parse_name("006_colorCAR_TK410_s35w7_SwinIR-T_jpeg5-95")
    assert (many.level, many.level_to, many.level_text) == (5, 95, "jpeg5-95")
    assert [level for level in (1, 4.9, 5, 40, 95, 96) if many.covers(level)] == [5, 40, 95]
    scales = zoo.parse_name("002_lightweightSR_TK410_s48w8_SwinIR-T_x1-4")
    assert [scale for scale in (0.9, 1, 2.5, 4, 4.1) if scales.covers(scale)] == [1, 2.5, 4]
    assert zoo.format_name(scales) == "002_lightweightSR_TK410_s48w8_SwinIR-T_x1-4"


def test_the_spelling_of_tasks_is_that_of_the_task_table() -> None:
    kinds = {"noise": "noise", "jpeg": "jpeg", None: "x"}
    assert {t.name: (t.in_file_name, kinds[t.degradation]) for t in TASKS.values()} == zoo.TASK_IN_NAME


def test_importing_the_zoo_leaves_torch_alone() -> None:
    code = "import sys, swinir.weights.zoo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


# The table


def test_the_table_has_31_released_files_and_14_hashes() -> None:
    assert len(zoo.RELEASED) == 31
    known = [e for e in zoo.RELEASED if e.sha256]
    assert len(known) == 14
    assert all(e.bytes and len(bytes.fromhex(e.sha256 or "")) == 32 for e in known)
    assert all(e.bytes is None for e in zoo.RELEASED if not e.sha256)
    assert sum(e.bytes or 0 for e in zoo.RELEASED) == 838_348_700
    assert len({e.sha256 for e in known}) == 14


def test_every_way_to_name_weights_is_unique() -> None:
    entries = (*zoo.RELEASED, *zoo.bundled())
    spellings = [spelling for e in entries for spelling in {e.name, e.file, e.alias}]
    assert len(spellings) == len(set(spellings))
    assert "classical_sr_x4_DF2K" in spellings
    assert "real_sr_x4_DFOWMFC_GAN" in spellings


def test_parameters_and_keys_are_those_of_the_task() -> None:
    counts: dict[Any, int] = {}
    for entry in zoo.RELEASED:
        task = TASKS[entry.parts.task]
        scale = entry.parts.level if entry.parts.kind == "x" else 1
        config = task.network_for(scale, large=entry.parts.size == "L")
        if config not in counts:
            with torch.device("meta"):
                counts[config] = count_parameters(config)
        assert entry.parameters == counts[config]
        assert entry.params_key == task.weights_key
        assert entry.parts.window == config.window_size


def test_published_results_stand_where_the_paper_has_them() -> None:
    assert "Set5 32.92/0.9044" in zoo.find("classical_sr_x4_DF2K").published
    assert "Manga109 32.03/0.9260" in zoo.find("classical_sr_x4_DF2K").published
    assert zoo.find("gray_dn_noise50_DFWB").published == "Set12 27.91, BSD68 26.58, Urban100 27.98"
    assert zoo.find("color_jpeg_car_jpeg10_DFWB").published == "LIVE1 28.06/0.8089/27.76"
    assert {e.parts.task for e in zoo.RELEASED if not e.published} == {"real_sr", "classical_sr"}


def test_the_readme_lists_every_released_file() -> None:
    text = (REPOSITORY / "model_zoo" / "README.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(" `"): line for line in text.splitlines() if line.startswith("| `00")}
    assert set(rows) == {e.name for e in zoo.RELEASED}
    for entry in zoo.RELEASED:
        assert f"| {entry.bytes / 1e6:.1f} |" in rows[entry.name] if entry.bytes else "| - |" in rows[entry.name]
        assert f"| {entry.published or '-'} |" in rows[entry.name]


# Finding and locating


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder as the current one, no proxies, no mirror, no pauses."""
    monkeypatch.chdir(tmp_path)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("SWINIR_ZOO", raising=False)
    monkeypatch.delenv("SWINIR_ZOO_MIRROR", raising=False)
    monkeypatch.setattr(download, "RETRY_PAUSES", (0.0, 0.0))


@pytest.mark.parametrize("spelling", [KNOWN, f"{KNOWN}.pth", "lightweight_sr_x2_DIV2K", f"some/folder/{KNOWN}.pth"])
def test_weights_are_found_by_name_file_alias_and_path(spelling: str) -> None:
    assert zoo.find(spelling).name == KNOWN
    assert zoo.find(Path(spelling)).name == KNOWN


def test_an_unknown_name_is_an_error_with_the_nearest_ones() -> None:
    with pytest.raises(ValueError, match="did you mean classical_sr_x4_DF2K"):
        zoo.find("classical_sr_x4_df2")
    with pytest.raises(ValueError, match="swinir zoo list"):
        zoo.find("")


def test_the_default_folder_is_the_released_one_or_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert zoo.default_folder() == Path("model_zoo/swinir")
    monkeypatch.setenv("SWINIR_ZOO", "elsewhere")
    assert zoo.default_folder() == Path("elsewhere")


def test_locating_absent_weights_tells_the_command() -> None:
    with pytest.raises(FileNotFoundError, match="swinir zoo download lightweight_sr_x2_DIV2K"):
        zoo.locate(KNOWN)


def test_locating_a_path_keeps_to_that_path(tmp_path: Path) -> None:
    present = zoo.default_folder() / f"{KNOWN}.pth"
    present.parent.mkdir(parents=True)
    present.touch()
    assert zoo.locate("lightweight_sr_x2_DIV2K") == present
    with pytest.raises(FileNotFoundError, match="other"):
        zoo.locate(f"other/{KNOWN}.pth")


# Bundled weights


@pytest.fixture
def bundle(tmp_path: Path, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundled folder with one tiny model."""
    folder = tmp_path / "bundled"
    folder.mkdir()
    file = folder / "002_lightweightSR_DIV2K_s64w8_SwinIR-T_x2.pth"
    file.write_bytes(checkpoint)
    (folder / "index.toml").write_text(
        f'[[weights]]\nfile = "{file.name}"\nbytes = {len(checkpoint)}\nsha256 = "{sha256(checkpoint)}"\n'
        'parameters = 40\npublished = "Set5 36.90/0.9580"\nconfig = "configs/tiny.toml"\ntrained_on = "formulas"\n'
    )
    monkeypatch.setattr(zoo, "bundled_folder", lambda: folder)
    return file


def test_bundled_weights_are_read_from_their_index(bundle: Path) -> None:
    (entry,) = zoo.bundled()
    assert (entry.alias, entry.bundled, entry.url) == ("lightweight_sr_x2_tiny", True, None)
    assert (entry.config, entry.trained_on) == ("configs/tiny.toml", "formulas")
    assert zoo.locate("lightweight_sr_x2_tiny") == bundle
    assert zoo.download(entry) == bundle
    assert zoo.verify(bundle).how == "sha256"
    bundle.unlink()
    with pytest.raises(FileNotFoundError, match="reinstall"):
        zoo.locate(entry.alias)


def test_an_index_row_with_a_wrong_key_is_an_error(bundle: Path) -> None:
    index = bundle.parent / "index.toml"
    index.write_text(index.read_text().replace("trained_on", "trained_with").replace("sha256", "sha1"))
    with pytest.raises(ValueError, match=r"unknown key 'sha1'.*unknown key 'trained_with'.*no 'sha256'"):
        zoo.bundled()


def test_the_bundled_folder_may_be_missing_or_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (None, tmp_path):
        monkeypatch.setattr(zoo, "bundled_folder", lambda folder=folder: folder)
        assert zoo.bundled() == ()


def test_what_is_really_bundled_is_whole() -> None:
    for entry in zoo.bundled():
        verdict = zoo.verify(zoo.locate(entry.name))
        assert verdict.ok, verdict.message


# Downloads


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def torch_file(path: Path, *, legacy: bool = False) -> bytes:
    state = {"params": {"conv.weight": torch.arange(40.0), "conv.bias": torch.zeros(0)}}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    return path.read_bytes()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return torch_file(tmp_path_factory.mktemp("checkpoint") / "small.pth")


@pytest.fixture(scope="session")
def legacy_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return torch_file(tmp_path_factory.mktemp("checkpoint") / "legacy.pth", legacy=True)


Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """Answers the n-th request with the n-th answer, the last one for good."""

    url: str
    answers: list[Answer] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(handler.path)
        self.ranges.append(handler.headers["Range"])
        self.answers[min(len(self.requests), len(self.answers)) - 1](handler)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        served = Server(f"http://127.0.0.1:{listener.server_port}/release")
        threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()
        yield served
        served.closing.set()
        listener.shutdown()


def body(
    data: bytes,
    *,
    status: int = 200,
    announce: int | None = None,
    kind: str = "application/octet",
    reason: str | None = None,
    start: int | None = None,
) -> Answer:
    """Sends `data`; `announce` is the Content-Length, -1 for none; `start` is that of a Content-Range."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status, reason)
        handler.send_header("Content-Type", kind)
        if start is not None:
            handler.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{start + len(data)}")
        if announce != -1:
            handler.send_header("Content-Length", str(len(data) if announce is None else announce))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def redirect(address: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", address)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(bytes(1 << 16))
    except OSError:  # the client has hung up, as it should
        handler.close_connection = True


PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


@pytest.fixture
def known(server: Server, checkpoint: bytes) -> zoo.ZooEntry:
    """An entry whose length and hash are those of `checkpoint`."""
    entry = zoo.find(KNOWN)
    return replace(entry, url=f"{server.url}/{entry.file}", bytes=len(checkpoint), sha256=sha256(checkpoint))


@pytest.fixture
def unknown(server: Server) -> zoo.ZooEntry:
    """An entry without length and hash, for 40 parameters."""
    entry = zoo.find(UNKNOWN)
    return replace(entry, url=f"{server.url}/{entry.file}", parameters=40)


def contents(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


def test_a_good_file_arrives_and_is_not_fetched_twice(server: Server, known: zoo.ZooEntry, checkpoint: bytes) -> None:
    server.answers = [body(checkpoint)]
    path = zoo.download(known)
    assert path == Path("model_zoo/swinir") / known.file
    assert path.read_bytes() == checkpoint
    assert zoo.download(known) == path
    assert len(server.requests) == 1
    assert contents(path.parent) == [known.file]


def test_a_downloaded_file_has_the_permissions_of_any_new_file(
    server: Server, known: zoo.ZooEntry, checkpoint: bytes, tmp_path: Path
) -> None:
    server.answers = [body(checkpoint)]
    (tmp_path / "plain").touch()
    assert zoo.download(known).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_target_is_a_file_or_an_existing_folder(
    server: Server, known: zoo.ZooEntry, checkpoint: bytes, tmp_path: Path
) -> None:
    server.answers = [body(checkpoint)]
    assert zoo.download(known, target=tmp_path) == tmp_path / known.file
    assert zoo.download(known, target=tmp_path / "new" / "name.pth") == tmp_path / "new" / "name.pth"


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_without_a_known_hash_a_whole_checkpoint_is_accepted(
    server: Server, unknown: zoo.ZooEntry, checkpoint: bytes, legacy_checkpoint: bytes, form: str
) -> None:
    server.answers = [body(checkpoint if form == "zip" else legacy_checkpoint)]
    path = zoo.download(unknown)
    assert contents(path.parent) == [unknown.file]
    assert zoo.download(unknown) == path
    assert len(server.requests) == 1


def damaged(data: bytes) -> bytes:
    at = data.index(struct.pack("<2f", 20, 21))  # inside a tensor
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


# What goes wrong, a part of the message (None where it depends), and the number of attempts (0: it depends).
FAILURES: dict[str, tuple[Callable[[bytes], Answer], str | None, int]] = {
    "404": (lambda data: body(b"Not Found", status=404), "404", 1),
    "403": (lambda data: body(b"", status=403), "403", 1),
    "always busy": (lambda data: body(b"", status=503), "503", 3),
    "web page": (lambda data: body(PAGE, kind="text/html; charset=utf-8"), None, 1),
    "web page as a file": (lambda data: body(PAGE), None, 1),
    "web page as long as the file": (lambda data: body(PAGE.ljust(len(data))), None, 1),
    "cut": (lambda data: body(data[:-100], announce=len(data)), None, 3),
    "cut without length": (lambda data: body(data[:-100], announce=-1), None, 0),
    "damaged": (lambda data: body(damaged(data)), None, 1),
    "empty": (lambda data: body(b""), None, 1),
    "redirect to a file": (lambda data: redirect("file:///etc/hostname"), None, 1),
    "endless": (lambda data: endless, "more than", 1),
    "control characters": (lambda data: body(b"", status=404, reason="Gone\x1b[31m\a"), r"404 'Gone\\x1b", 1),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("which", ["known", "unknown"])
def test_a_failed_download_leaves_nothing_and_does_not_harm_the_next(
    server: Server, checkpoint: bytes, failure: str, which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if failure == "endless" and which == "unknown":
        request.getfixturevalue("monkeypatch").setattr(download, "MAX_BYTES", 1 << 20)
    entry: zoo.ZooEntry = request.getfixturevalue(which)
    make, reason, attempts = FAILURES[failure]
    server.answers = [make(checkpoint)]
    with pytest.raises(zoo.DownloadError, match=reason) as caught:
        zoo.download(entry, target=tmp_path / "weights" / entry.file)
    message = str(caught.value)
    assert str(entry.url) in message
    assert str(tmp_path / "weights" / entry.file) in message
    assert (entry.sha256 or "none published") in message
    assert message.isprintable()
    assert ".part" not in message
    assert contents(tmp_path) == []
    assert attempts in (0, len(server.requests))

    server.answers = [body(checkpoint)]
    assert zoo.download(entry, target=tmp_path / "weights" / entry.file).read_bytes() == checkpoint
    assert contents(tmp_path / "weights") == [entry.file]


def test_a_checkpoint_too_small_for_its_network_is_refused(
    server: Server, unknown: zoo.ZooEntry, checkpoint: bytes, legacy_checkpoint: bytes
) -> None:
    for data in (checkpoint, legacy_checkpoint):
        server.answers = [body(data)]
        with pytest.raises(zoo.DownloadError, match="can't hold 11497681 parameters"):
            zoo.download(replace(unknown, parameters=11497681))


def test_a_wrong_hash_is_named(server: Server, known: zoo.ZooEntry, checkpoint: bytes) -> None:
    server.answers = [body(damaged(checkpoint))]
    with pytest.raises(zoo.DownloadError, match=sha256(damaged(checkpoint))):
        zoo.download(known)


def test_a_closed_port_is_one_message(known: zoo.ZooEntry, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(zoo.DownloadError, match=r"no connection to 127\.0\.0\.1"):
        zoo.download(replace(known, url=f"http://127.0.0.1:{port}/x.pth"), target=tmp_path)
    assert contents(tmp_path) == []


@pytest.mark.parametrize("after", [0, 100], ids=["before the header", "within the body"])
def test_a_silent_server_is_given_up(
    server: Server, known: zoo.ZooEntry, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    def silent(handler: BaseHTTPRequestHandler) -> None:
        if after:
            body(checkpoint[:after], announce=len(checkpoint))(handler)
        server.closing.wait(10)

    monkeypatch.setattr(download, "TIMEOUT", (0.2, 0.2))
    server.answers = [silent]
    with pytest.raises(zoo.DownloadError, match="no connection"):
        zoo.download(known)
    assert contents(zoo.default_folder()) == []


def test_a_server_that_drips_is_given_up(
    server: Server, known: zoo.ZooEntry, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count(0, 100)
    monkeypatch.setattr(download, "clock", lambda: next(seconds))
    server.answers = [body(checkpoint)]
    with pytest.raises(zoo.DownloadError, match="the server sends less than 10 kB a second"):
        zoo.download(known)
    assert len(server.requests) == 1


def test_what_a_killed_download_left_is_removed(
    server: Server, known: zoo.ZooEntry, checkpoint: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_and_die() -> int:
        monkeypatch.setattr(download, "_stream", lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
        zoo.download(known, target=tmp_path / known.file)
        return 0

    assert in_another_process(write_and_die) == -signal.SIGKILL
    assert [name[-5:] for name in contents(tmp_path)] == [".part"]
    server.answers = [body(checkpoint)]
    zoo.download(known, target=tmp_path / known.file)
    assert contents(tmp_path) == [known.file]


def test_a_redirect_is_followed(server: Server, known: zoo.ZooEntry, checkpoint: bytes) -> None:
    server.answers = [redirect(f"{server.url}/elsewhere"), body(checkpoint)]
    assert zoo.download(known).read_bytes() == checkpoint
    assert server.requests[1] == "/release/elsewhere"


def test_a_passing_failure_is_tried_again(server: Server, known: zoo.ZooEntry, checkpoint: bytes) -> None:
    server.answers = [body(b"", status=503), body(checkpoint[:200], announce=len(checkpoint)), body(checkpoint)]
    assert zoo.download(known).read_bytes() == checkpoint
    assert len(server.requests) == 3


def test_a_transfer_that_breaks_off_is_resumed(server: Server, known: zoo.ZooEntry, checkpoint: bytes) -> None:
    server.answers = [
        body(checkpoint[:200], announce=len(checkpoint)),
        body(checkpoint[200:300], announce=len(checkpoint) - 200, status=206, start=200),
        body(checkpoint[300:], status=206, start=300),
    ]
    assert zoo.download(known).read_bytes() == checkpoint
    assert server.ranges == [None, "bytes=200-", "bytes=300-"]


def test_attempts_are_counted_anew_as_long_as_bytes_arrive(
    server: Server, known: zoo.ZooEntry, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PROGRESS", 50)
    size, starts = len(checkpoint), range(50, 301, 50)
    server.answers = [body(checkpoint[:50], announce=size)]
    server.answers += [body(checkpoint[i : i + 50], announce=size - i, status=206, start=i) for i in starts[:-1]]
    server.answers += [body(checkpoint[300:], status=206, start=300)]
    assert zoo.download(known).read_bytes() == checkpoint
    assert len(server.requests) == 7


@pytest.mark.parametrize("start", [0, 201])
def test_a_part_from_another_place_is_refused(
    server: Server, known: zoo.ZooEntry, checkpoint: bytes, start: int
) -> None:
    server.answers = [body(checkpoint[:200], announce=len(checkpoint)), body(checkpoint, status=206, start=start)]
    with pytest.raises(zoo.DownloadError, match="the server answered 206"):
        zoo.download(known)
    assert contents(zoo.default_folder().parent) == []


def test_a_file_that_changed_between_two_parts_is_refused(
    server: Server, known: zoo.ZooEntry, checkpoint: bytes
) -> None:
    rest = damaged(checkpoint)[200:]
    server.answers = [body(checkpoint[:200], announce=len(checkpoint)), body(rest, status=206, start=200)]
    with pytest.raises(zoo.DownloadError, match="SHA-256 is"):
        zoo.download(known)


def no_room(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("when", ["before", "within"])
def test_a_full_disk_is_told_with_the_way_out(
    server: Server, known: zoo.ZooEntry, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch, when: str, tmp_path: Path
) -> None:
    server.answers = [body(checkpoint)]
    full = shutil.disk_usage(tmp_path)._replace(free=9)
    with monkeypatch.context() as patch:
        if when == "before":
            patch.setattr(shutil, "disk_usage", lambda _: full)
        else:
            patch.setattr(download, "_pieces", no_room)
        with pytest.raises(zoo.DownloadError) as caught:
            zoo.download(known)
    reason = f"no room for {len(checkpoint)} bytes, 9 free" if when == "before" else "No space left on device"
    assert str(caught.value) == (
        f"could not download {known.file}: {reason} in model_zoo/swinir; make room, or set SWINIR_ZOO to a folder on "
        "another disk"
    )
    assert contents(tmp_path) == []
    assert len(server.requests) == 1


def test_an_interrupted_download_leaves_nothing_and_can_be_repeated(
    server: Server, known: zoo.ZooEntry, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(response: requests.Response) -> Iterator[bytes]:
        yield checkpoint[:100]
        raise KeyboardInterrupt

    server.answers = [body(checkpoint)]
    with monkeypatch.context() as patch:
        patch.setattr(download, "_pieces", interrupted)
        with pytest.raises(KeyboardInterrupt):
            zoo.download(known)
    assert contents(zoo.default_folder()) == []
    assert zoo.download(known).read_bytes() == checkpoint
    assert contents(zoo.default_folder()) == [known.file]


@pytest.mark.parametrize("which", ["known", "unknown"])
def test_a_bad_file_is_reported_and_replaced_only_by_a_good_one(
    server: Server,
    checkpoint: bytes,
    which: str,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    entry: zoo.ZooEntry = request.getfixturevalue(which)
    path = zoo.default_folder() / entry.file
    path.parent.mkdir(parents=True)
    path.write_bytes(damaged(checkpoint))
    server.answers = [body(PAGE), body(checkpoint)]
    with caplog.at_level(logging.WARNING), pytest.raises(zoo.DownloadError, match="was left alone"):
        zoo.download(entry)
    assert "is damaged" in caplog.text
    assert path.read_bytes() == damaged(checkpoint)
    assert zoo.download(entry).read_bytes() == checkpoint
    assert contents(path.parent) == [entry.file]


def test_a_mirror_replaces_the_address_of_the_release(
    server: Server, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWINIR_ZOO_MIRROR", f"{server.url}/")
    entry = replace(zoo.find(UNKNOWN), parameters=40)
    server.answers = [body(checkpoint)]
    zoo.download(entry)
    assert server.requests == [f"/release/{entry.file}"]


@pytest.mark.parametrize("mirror", ["file:///srv/weights", "ftp://127.0.0.1/", "weights", "http:///x"])
def test_an_address_other_than_http_is_refused(mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWINIR_ZOO_MIRROR", mirror)
    with pytest.raises(ValueError, match="http or https"):
        zoo.download(zoo.find(KNOWN))


def test_a_folder_that_cannot_be_made_is_one_message(known: zoo.ZooEntry, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(zoo.DownloadError, match="by other means"):
        zoo.download(known, target=tmp_path / "file" / "x.pth")


def test_progress_is_shown_only_when_asked_for(
    server: Server, known: zoo.ZooEntry, checkpoint: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.answers = [body(checkpoint)]
    zoo.download(known, target=tmp_path / "a.pth")
    assert capfd.readouterr() == ("", "")
    zoo.download(known, target=tmp_path / "b.pth", progress=True)
    assert known.file in capfd.readouterr().err


# Verification


def test_any_flipped_bit_is_found_when_the_hash_is_known(bundle: Path, checkpoint: bytes) -> None:
    rng = random.Random(1)
    positions = [*range(40), *(rng.randrange(len(checkpoint)) for _ in range(50)), *range(-40, 0)]
    for position in positions:
        flipped = bytearray(checkpoint)
        flipped[position] ^= 1 << rng.randrange(8)
        bundle.write_bytes(flipped)
        verdict = zoo.verify(bundle)
        assert (verdict.ok, verdict.how) == (False, "sha256"), position


def test_without_a_hash_a_flipped_bit_in_any_entry_is_found(checkpoint: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(checkpoint)
    assert (zoo.verify(path).ok, zoo.verify(path).how) == (True, "crc")
    rng = random.Random(2)
    with zipfile.ZipFile(path) as archive:
        entries = [(member.header_offset, archive.read(member)) for member in archive.infolist()]
    for offset, data in entries:
        first = checkpoint.index(data, offset)
        for position in range(first, first + len(data), 3):
            flipped = bytearray(checkpoint)
            flipped[position] ^= 1 << rng.randrange(8)
            path.write_bytes(flipped)
            assert not zoo.verify(path).ok, position


def test_a_file_cut_anywhere_is_found(checkpoint: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for length in range(0, len(checkpoint), 17):
        path.write_bytes(checkpoint[:length])
        assert not zoo.verify(path).ok, length


def test_a_verdict_says_what_was_not_checked(legacy_checkpoint: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(legacy_checkpoint)
    verdict = zoo.verify(path)
    assert (verdict.ok, verdict.how, verdict.entry) == (True, "none", None)
    assert "no checksum known" in verdict.message


def test_a_safetensors_file_is_checked_for_its_length(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"task": "x"}, "a": {"dtype": "U8", "shape": [5], "data_offsets": [0, 5]}})
    whole = len(header).to_bytes(8, "little") + header.encode() + bytes(5)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(whole)
    assert zoo.verify(path).ok
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert not zoo.verify(path).ok, length


def test_a_web_page_under_the_name_of_weights_is_bad(tmp_path: Path) -> None:
    (tmp_path / f"{UNKNOWN}.pth").write_bytes(PAGE)
    verdict = zoo.verify(tmp_path / f"{UNKNOWN}.pth")
    assert not verdict.ok
    assert "not a checkpoint" in verdict.message


# The command line


def test_list_shows_all_weights_aligned(capsys: pytest.CaptureFixture[str], bundle: Path) -> None:
    assert main(["zoo", "list"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 32
    column = header.index("LEVEL")
    assert {row[column - 2 : column] for row in rows} == {"  "}
    assert rows[0].startswith("lightweight_sr_x2_tiny")
    assert rows[0].endswith("bundled")


def test_a_model_of_any_scale_is_listed_with_its_largest() -> None:
    parts = zoo.parse_name("002_lightweightSR_TK410_s48w8_SwinIR-T_x1-4")
    row = model_row(replace(zoo.find("lightweight_sr_x2_DIV2K"), parts=parts))
    assert (row.level, row.scale) == ("x1-4", 4)


def test_list_can_show_one_task_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "list", "--task", "jpeg_car", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["level"] for row in rows if not row["bundled"]] == ["jpeg10", "jpeg20", "jpeg30", "jpeg40"]
    assert main(["zoo", "list", "--task", "jpeg"]) == 2
    assert "jpeg_car" in capsys.readouterr().err


def test_info_shows_the_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "info", KNOWN]) == 0
    out = capsys.readouterr().out
    for fact in ("lightweight_sr_x2_DIV2K", "910152", "17147989", "193b2299", "S (small)", "Set5 38.14/0.9611"):
        assert fact in out
    assert main(["zoo", "info", "nothing"]) == 2


def test_download_of_several_goes_on_after_a_failure(
    server: Server,
    checkpoint: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SWINIR_ZOO_MIRROR", server.url)
    names = [f"jpeg_car_jpeg{quality}_DFWB" for quality in (10, 20)]
    monkeypatch.setattr(zoo, "RELEASED", tuple(replace(e, parameters=40) for e in zoo.RELEASED))
    server.answers = [body(b"", status=404), body(checkpoint)]
    assert main(["zoo", "download", *names, "--folder", "new"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(Path("new") / zoo.find(names[1]).file)]
    assert len(err.splitlines()) == 1
    assert "404" in err
    server.answers = [body(b"", status=404)]
    assert main(["zoo", "download", names[0]]) == 2
    server.answers = [body(checkpoint)]
    assert main(["zoo", "download", names[0]]) == 0
    assert main(["zoo", "path", names[0]]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(zoo.default_folder() / zoo.find(names[0]).file)


def test_a_misspelt_name_stops_before_any_transfer(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWINIR_ZOO_MIRROR", server.url)
    assert main(["zoo", "download", KNOWN, "lightweight_sr_x2"]) == 2
    assert "did you mean lightweight_sr_x2" in capsys.readouterr().err
    assert server.requests == []


def test_verify_exits_with_1_for_a_bad_file_and_2_for_none(
    checkpoint: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    assert main(["zoo", "verify", str(folder)]) == 2
    assert main(["zoo", "verify", str(tmp_path / "absent")]) == 2
    (folder / "mine.pth").write_bytes(checkpoint)
    assert main(["zoo", "verify", str(folder)]) == 0
    assert "ok" in capsys.readouterr().out
    (folder / f"{KNOWN}.pth").write_bytes(checkpoint)
    assert main(["zoo", "verify", str(folder)]) == 1
    assert main(["zoo", "verify", str(folder / "mine.pth")]) == 0
    assert f"bytes instead of {zoo.find(KNOWN).bytes}" in capsys.readouterr().out


def test_verify_without_a_path_checks_downloaded_and_bundled_weights(
    checkpoint: bytes, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", "verify"]) == 0
    folder = zoo.default_folder()
    folder.mkdir(parents=True)
    (folder / "mine.pth").write_bytes(checkpoint)
    assert main(["zoo", "verify"]) == 0
    out = capsys.readouterr().out
    assert str(bundle) in out
    assert "mine.pth" in out
    bundle.unlink()
    assert main(["zoo", "verify"]) == 1
    assert "missing" in capsys.readouterr().out


def test_path_of_absent_weights_tells_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "path", KNOWN]) == 2
    assert "swinir zoo download lightweight_sr_x2_DIV2K" in capsys.readouterr().err
