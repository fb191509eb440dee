"""Folders and archives: only images come out, harmful archives are refused, paths tell the role of a file."""

import io
import stat
import tarfile
import zipfile
from pathlib import PurePosixPath

import cv2
import pytest
from photographs import photographs

from swinir.testsets import BENCHMARK_SETS, sources
from swinir.testsets.sources import role_of, set_of, source_images

PNG = cv2.imencode(".png", photographs(24, 24)["coffee"])[1].tobytes()


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path, files, **header):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in header.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return path


def found(source):
    """Labels with their bytes, or with the reason why there are none."""
    return {str(e.label): e.path.read_bytes() if e.path else e.reason for e in source_images(source)}


WRITERS = pytest.mark.parametrize("write_archive", [write_zip, write_tar])


@WRITERS
def test_images_come_out_and_nothing_else(tmp_path, write_archive):
    files = {"a/b/x.png": PNG, "a/readme.txt": b"hello", "y.PNG": PNG, "__MACOSX/._x.png": b"fork", ".z.png": b"hidden"}
    assert found(write_archive(tmp_path / "archive", files)) == {"a/b/x.png": PNG, "y.PNG": PNG}
    for name, content in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    assert list(found(tmp_path / "folder")) == ["y.PNG", "a/b/x.png"]


@WRITERS
@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/etc/x.png", "..\\x.png", "C:/x.png"])
def test_an_entry_that_points_outside_makes_the_archive_suspect(tmp_path, write_archive, name):
    inside = tmp_path / "deep" / "deeper"
    inside.mkdir(parents=True)
    path = write_archive(inside / "archive", {"good.png": PNG, name: PNG})
    with pytest.raises(ValueError, match="points out of the folder"):
        found(path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_links_and_devices_are_skipped(tmp_path):
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        path = write_tar(tmp_path / "x.tgz", {"x.png": b""}, type=kind, linkname="/etc/passwd")
        assert found(path) == {"x.png": "a link, or no regular file"}
    info = zipfile.ZipInfo("x.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert found(write_zip(tmp_path / "x.zip", {info: "/etc/passwd"})) == {"x.png": "a link, or no regular file"}


@WRITERS
@pytest.mark.parametrize("name", ["x.png", "x.bin"])
def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path, write_archive, name, monkeypatch):
    monkeypatch.setattr(sources, "_SMALL", 2**16)
    path = write_archive(tmp_path / "bomb", {name: bytes(2**22), "y.png": PNG})
    if write_archive is write_zip and name == "x.bin":  # never unpacked
        assert found(path) == {"y.png": PNG}
        return
    with pytest.raises(ValueError, match="unpacks to more than"):
        found(path)


@WRITERS
def test_large_images_are_skipped_and_too_many_entries_refused(tmp_path, write_archive, monkeypatch):
    monkeypatch.setattr(sources, "MAX_FILE", 100)
    assert found(write_archive(tmp_path / "a", {"x.png": PNG})) == {"x.png": "larger than 100 bytes"}
    monkeypatch.setattr(sources, "MAX_ENTRIES", 3)
    with pytest.raises(ValueError, match="more than 3 entries"):
        found(write_archive(tmp_path / "a", {f"{n}.txt": b"" for n in range(4)}))


def test_a_long_name_of_a_tar_is_not_read_into_memory(tmp_path):
    path = tmp_path / "x.tar"
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**21
    for first, message in ((), "neither a folder nor a whole zip or tar"), (("a.txt",), "a header of 2,097,152 bytes"):
        with tarfile.open(path, "w") as archive:
            for name in first:
                archive.addfile(tarfile.TarInfo(name))
            archive.addfile(info, io.BytesIO(b"a" * 2**21))
        with pytest.raises(ValueError, match=message):
            found(path)


@WRITERS
def test_a_truncated_archive_is_corrupt(tmp_path, write_archive):
    path = write_archive(tmp_path / "a", {f"{n}.png": PNG for n in range(5)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ValueError, match=r"is corrupt|neither a folder nor"):
        found(path)


def test_any_other_source_is_refused_with_its_reason(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder or archive"):
        found(tmp_path / "none")
    others = {b"Rar!\x1a\x07": "unpack it", b"7z\xbc\xaf\x27\x1c": "unpack it", PNG: "neither a folder nor"}
    for content, message in others.items():
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            found(tmp_path / "a")


@pytest.mark.parametrize(
    ("path", "kind", "name", "scale"),
    [
        ("HR/baby.png", "gt", "baby", 1),
        ("baby_GT.bmp", "gt", "baby", 1),
        ("Set5/GTmod12/baby.png", "gt", "baby", 1),
        ("image_SRF_4/img_001_SRF_4_HR.png", "gt", "img_001", 1),
        ("image_SRF_4/img_001_SRF_4_LR.png", "lq", "img_001", 4),
        ("image_SRF_4/img_001_SRF_4_SelfExSR_SR.png", "other", "img_001_SRF_4_SelfExSR_SR", 1),
        ("LR_bicubic/X2/babyx2.png", "lq", "baby", 2),
        ("babyx2.png", "lq", "baby", 2),
        ("LRbicx4/baby.png", "lq", "baby", 4),
        ("DIV2K_valid_LR_bicubic_X3/0801x3.png", "lq", "0801", 3),
        ("DIV2K_valid_LR_mild/0801x4m.png", "other", "0801x4m", 1),
        ("DIV2K_valid_HR/0801.png", "gt", "0801", 1),
        ("BSDS300/images/test/101085.jpg", "gt", "101085", 1),
        ("CBSD68/noisy25/101085.png", "other", "101085", 1),
        ("CBSD68/original_png/101085.png", "gt", "101085", 1),
        ("LR/baby.png", "other", "baby", 1),
    ],
)
def test_a_path_tells_the_role_of_a_file(path, kind, name, scale):
    role = role_of(PurePosixPath(path))
    assert (role.kind, role.name, role.scale) == (kind, name, scale)
    assert bool(role.reason) == (kind == "other")


def test_the_nearest_folder_of_a_set_tells_the_set_of_a_file():
    assert set_of(PurePosixPath("benchmark/B100/HR/3096.png")) is BENCHMARK_SETS["BSD100"]
    assert set_of(PurePosixPath("Set14/Set5/baby.png")) is BENCHMARK_SETS["Set5"]
    assert set_of(PurePosixPath("images/test/3096.png")) is None
