"""Archives are untrusted: what would harm is refused, and nothing but images comes out."""

import io
import stat
import tarfile
import zipfile

import pytest
from photographs import photographs

from swinir.image_io.picture import Picture
from swinir.image_io.writer import write_picture
from swinir.testsets import sources
from swinir.testsets.sources import entries


def png():
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(photographs(24, 24)["coffee"]).save(out, "PNG")
    return out.getvalue()


PNG = png()


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
    return {str(e.label): e.path.read_bytes() if e.path else e.reason for e in entries(source)}


WRITERS = pytest.mark.parametrize("write_archive", [write_zip, write_tar])


@WRITERS
def test_images_come_out_and_nothing_else(tmp_path, write_archive):
    files = {"a/b/x.png": PNG, "a/readme.txt": b"hello", "y.PNG": PNG, "__MACOSX/._x.png": b"fork", ".z.png": b"hidden"}
    assert found(write_archive(tmp_path / "archive", files)) == {"a/b/x.png": PNG, "y.PNG": PNG}


def test_a_folder_gives_the_same(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/x.png", "b.bmp", "notes.txt"):
        (tmp_path / name).write_bytes(PNG)
    assert list(found(tmp_path)) == ["b.bmp", "a/x.png"]


@WRITERS
@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/etc/x.png", "..\\x.png", "C:/x.png"])
def test_an_entry_that_points_outside_makes_the_archive_suspect(tmp_path, write_archive, name):
    inside = tmp_path / "deep" / "deeper"
    inside.mkdir(parents=True)
    path = write_archive(inside / "archive", {"good.png": PNG, name: PNG})
    with pytest.raises(ValueError, match="points out of the folder"):
        found(path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_passed_over(tmp_path, kind):
    path = write_tar(tmp_path / "x.tgz", {"x.png": b""}, type=kind, linkname="/etc/passwd")
    assert found(path) == {"x.png": "a link, or no regular file"}


def test_links_in_a_zip_are_passed_over(tmp_path):
    info = zipfile.ZipInfo("x.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert found(tmp_path / "x.zip") == {"x.png": "a link, or no regular file"}


@WRITERS
@pytest.mark.parametrize("name", ["x.png", "x.bin"])
def test_an_archive_that_unpacks_to_far_more_than_its_size_is_stopped(tmp_path, write_archive, name, monkeypatch):
    monkeypatch.setattr(sources, "_SMALL", 2**16)
    path = write_archive(tmp_path / "bomb", {name: bytes(2**22), "y.png": PNG})
    if write_archive is write_zip and name == "x.bin":  # never unpacked
        assert found(path) == {"y.png": PNG}
        return
    with pytest.raises(ValueError, match="unpacks to more than"):
        found(path)


@WRITERS
def test_an_image_above_the_limit_is_passed_over(tmp_path, write_archive, monkeypatch):
    monkeypatch.setattr(sources, "MAX_FILE", 100)
    assert found(write_archive(tmp_path / "a", {"x.png": PNG})) == {"x.png": "larger than 100 bytes"}


@WRITERS
def test_too_many_entries_are_refused(tmp_path, write_archive, monkeypatch):
    monkeypatch.setattr(sources, "MAX_ENTRIES", 3)
    with pytest.raises(ValueError, match="more than 3 entries"):
        found(write_archive(tmp_path / "a", {f"{n}.txt": b"" for n in range(4)}))


def test_a_long_name_of_a_tar_is_not_read_into_memory(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**21
        archive.addfile(info, io.BytesIO(b"a" * 2**21))
    with pytest.raises(ValueError, match="neither a folder nor a whole zip or tar"):
        found(path)
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("first.txt"))
        archive.addfile(info, io.BytesIO(b"a" * 2**21))
    with pytest.raises(ValueError, match="a header of 2,097,152 bytes"):
        found(path)


@WRITERS
def test_a_cut_archive_is_said_to_be_damaged(tmp_path, write_archive):
    path = write_archive(tmp_path / "a", {f"{n}.png": PNG for n in range(5)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ValueError, match=r"is corrupt|neither a folder nor"):
        found(path)


@pytest.mark.parametrize("start", [b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c"])
def test_other_archives_are_to_be_unpacked_first(tmp_path, start):
    (tmp_path / "a").write_bytes(start)
    with pytest.raises(ValueError, match="unpack it and give the folder"):
        found(tmp_path / "a")


def test_what_is_not_there_and_what_is_no_archive_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder or archive"):
        found(tmp_path / "none")
    write_picture(tmp_path / "x.png", Picture(photographs()["coffee"]))
    with pytest.raises(ValueError, match="neither a folder nor"):
        found(tmp_path / "x.png")
