"""Training images: found and paired by name, checked before the first step, decoded once."""

import errno
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training import NAMES, smooth_image

import swinir.train.images as module
from swinir.degradations.resize import imresize
from swinir.image_io.image import ImageError, read, to_gray, write
from swinir.train.images import Source, find_images, find_sources, first_images, index_hash, load_images, split_holdout


def pixels(image):
    """Ground truth and low-quality image."""
    return [np.array(image.gt()), None if image.lq is None else np.array(image.lq())]


def content(images):
    """Facts and pixels of a list of images."""
    return [
        (
            i.name,
            i.bytes,
            i.height,
            i.width,
            *(None if part is None else (part().shape, part().tobytes()) for part in (i.gt, i.lq)),
        )
        for i in images
    ]


# Finding and pairing.


def test_images_are_found_in_subfolders_and_hidden_ones_are_not(images):
    (images / "._a.png").write_bytes(b"left by another system")
    (images / ".thumbnails").mkdir()
    write(images / ".thumbnails" / "a.png", smooth_image(8, 8, 0))
    (images / "notes.txt").touch()
    assert [p.relative_to(images).as_posix() for p in find_images(images)] == list(NAMES)
    assert len(find_images(images.rename(images.with_name(".images")))) == 5  # a hidden folder may be named


def test_a_folder_without_images_or_none_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"no images in {tmp_path}; looked for .png"):
        find_images(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"training folder not found: .*nowhere; .* by --set data\.train="):
        find_images(tmp_path / "nowhere")


def test_several_folders_follow_one_another_and_their_images_are_told_apart(images, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write(other / "a.png", smooth_image(40, 40, 9))
    sources = find_sources([images, other])
    assert [source.name for source in sources] == [*(f"0/{name}" for name in NAMES), "1/a.png"]
    assert sources[-1].gt == other / "a.png"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_sources([images, tmp_path / "nowhere"])


@pytest.fixture
def partners(images, tmp_path):
    """A folder of low-quality partners at scale 2, some named with x2 and some without."""
    folder = tmp_path / "lq"
    (folder / "sub").mkdir(parents=True)
    for i, name in enumerate(NAMES):
        gt = read(images / name)
        suffix = "x2" if i % 2 else ""
        small = gt[: gt.shape[0] // 2 * 2 : 2, : gt.shape[1] // 2 * 2 : 2]
        write(folder / f"{name.removesuffix('.png')}{suffix}.png", np.ascontiguousarray(small))
    return folder


def test_partners_are_found_by_name_with_or_without_the_scale(images, partners):
    sources = find_sources([images], [partners], 2)
    found = [source.lq.relative_to(partners).as_posix() for source in sources]
    assert found == ["a.png", "bx2.png", "c.png", "dx2.png", "sub/e.png"]
    write(partners / "ax2.png", smooth_image(25, 32, 0))
    assert find_sources([images], [partners], 2)[0].lq == partners / "ax2.png"


def test_each_folder_has_partners_of_its_own(images, partners, tmp_path):
    for side, name in ((40, "gt2"), (20, "lq2")):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.png", smooth_image(side, side, 9))
    sources = find_sources([images, tmp_path / "gt2"], [partners, tmp_path / "lq2"], 2)
    assert (sources[0].lq, sources[-1].lq) == (partners / "a.png", tmp_path / "lq2" / "a.png")


def test_images_without_partners_are_all_named(images, partners):
    for name in ("a", "bx2"):
        (partners / f"{name}.png").unlink()
    with pytest.raises(ValueError, match="no low-quality partner") as caught:
        find_sources([images], [partners], 2)
    message = str(caught.value)
    assert f"{images / 'a.png'}: no low-quality partner {partners / 'a'}x2.png" in message
    assert str(images / "b.png") in message
    assert "\n" not in message
    for name in ("c", "dx2"):
        (partners / f"{name}.png").unlink()
    with pytest.raises(ValueError, match=r"\(and 1 more\)$"):
        find_sources([images], [partners], 2)


def test_so_many_images_are_whole_folders_and_then_evenly_spaced_ones():
    sources = [Source(f"{folder}/{i}", None, folder=folder) for folder, count in ((0, 3), (1, 8)) for i in range(count)]
    names = lambda count: [source.name for source in first_images(sources, count)]  # noqa: E731
    assert names(2) == ["0/0", "0/2"]
    assert names(3) == ["0/0", "0/1", "0/2"]
    assert names(7) == ["0/0", "0/1", "0/2", "1/1", "1/3", "1/5", "1/7"]
    assert first_images(sources, None) == first_images(sources, 11) == sources
    with pytest.raises(ValueError, match=r"data\.images asks for 12 images, there are 11; name more in data\.train"):
        first_images(sources, 12)


@given(st.integers(1, 60), st.integers(0, 59))
def test_held_out_images_are_evenly_spaced_and_no_others_are_missing(total, holdout):
    sources = [Source(f"{i:03d}", None) for i in range(total)]
    if holdout >= total:
        with pytest.raises(ValueError, match=f"must leave images to train on, got {holdout} of {total}"):
            split_holdout(sources, holdout)
        return
    train, held = split_holdout(sources, holdout)
    assert len(held) == holdout
    assert sorted(train + held, key=lambda s: s.name) == sources
    steps = np.diff([int(source.name) for source in held])
    assert len(steps) == 0 or steps.max() - steps.min() <= 1


# Decoding.


def test_low_quality_images_are_matlabs_bicubic_of_what_the_scale_divides(images):
    loaded = load_images(find_sources([images]), scale=3, bicubic=True)
    for name, image in zip(NAMES, loaded, strict=True):
        whole = read(images / name)
        expected = whole[: whole.shape[0] // 3 * 3, : whole.shape[1] // 3 * 3]
        gt, lq = pixels(image)
        assert np.array_equal(gt, expected)
        assert np.array_equal(lq, imresize(expected, 1 / 3))
        assert (image.height, image.width) == expected.shape[:2]
        assert image.bytes == (images / name).stat().st_size


def test_pairs_are_the_files_pixels(images, partners):
    for source, image in zip(
        find_sources([images], [partners], 2),
        load_images(find_sources([images], [partners], 2), scale=2),
        strict=True,
    ):
        gt, lq = pixels(image)
        assert np.array_equal(lq, read(source.lq))
        assert np.array_equal(gt, read(source.gt)[: 2 * lq.shape[0], : 2 * lq.shape[1]])


def test_grey_tasks_get_one_channel_and_colour_tasks_three(images):
    write(images / "a.png", to_gray(smooth_image(30, 30, 0)))
    assert {image.gt().shape[2] for image in load_images(find_sources([images]))} == {3}
    grey = load_images(find_sources([images]), gray=True)
    assert {image.gt().shape[2] for image in grey} == {1}
    assert np.array_equal(grey[1].gt(), to_gray(read(images / "b.png")))


def test_images_that_cannot_be_used_are_all_named_before_training(images):
    (images / "b.png").write_text("not an image")
    write(images / "c.png", smooth_image(40, 31, 0))
    with pytest.raises(ImageError) as caught:
        load_images(find_sources([images]), scale=2, smallest=32)
    message = str(caught.value)
    assert f"{images / 'b.png'}: not an image" in message
    assert f"{images / 'c.png'}: 30x40 is smaller than a patch of 32 pixels" in message or "31x40" in message
    assert "\n" not in message


def test_partners_of_the_wrong_size_are_named_with_the_right_one(images, partners):
    write(partners / "a.png", smooth_image(25, 30, 0))
    with pytest.raises(ImageError) as caught:
        load_images(find_sources([images], [partners], 2), scale=2)
    assert str(caught.value) == (
        f"{partners / 'a.png'}: 30x25 at scale 2 does not match {images / 'a.png'}: expected 32x25"
    )


def test_files_that_vanished_are_named_and_many_are_counted(images):
    sources = find_sources([images])
    (images / "b.png").unlink()
    with pytest.raises(ImageError, match=r"b\.png: No such file"):
        load_images(sources)
    with pytest.raises(ImageError, match=r"\(and 2 more\)$"):
        load_images(sources, smallest=200)


# The cache.


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that were decoded."""
    names = []

    def watched(path):
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(module, "read", watched)
    return names


def test_cached_images_are_decoded_once_and_mapped_into_memory(images, tmp_path, decoded):
    sources, seen = find_sources([images]), []
    for _ in range(2):
        (first, *_) = load_images(
            sources, cache=tmp_path / "deep" / "cache", progress=lambda items: (seen.append(i.name) or i for i in items)
        )
        assert isinstance(first.gt(), np.memmap)
        assert first.lq is None
    assert decoded == [path.rsplit("/", 1)[-1] for path in NAMES]
    assert seen == 2 * list(NAMES)


def test_what_is_made_of_files_is_told_apart_in_the_cache_and_equal_to_that_in_memory(images, partners, tmp_path):
    cache = tmp_path / "cache"
    alone, pairs = find_sources([images]), find_sources([images], [partners], 2)
    ways = [(alone, {}), (alone, {"gray": True}), (alone, {"scale": 3}), (pairs, {"scale": 2})]
    ways += [(alone, {"scale": scale, "bicubic": True}) for scale in (2, 3)]
    for sources, options in 2 * ways:
        assert content(load_images(sources, **options)) == content(load_images(sources, cache=cache, **options))


@pytest.mark.parametrize("change", ["size", "mtime"])
def test_a_file_that_changed_is_decoded_again(images, tmp_path, decoded, change):
    sources = find_sources([images])
    load_images(sources, cache=tmp_path / "cache")
    decoded.clear()
    path = images / "b.png"
    stat = path.stat()
    if change == "size":
        write(path, smooth_image(70, 70, 99))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert path.stat().st_size != stat.st_size
    else:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    found = load_images(sources, cache=tmp_path / "cache")
    assert decoded == ["b.png"]
    assert np.array_equal(found[1].gt(), read(path))


def test_cached_images_that_are_too_small_are_refused_too(images, tmp_path):
    sources = find_sources([images])
    load_images(sources, cache=tmp_path / "cache")
    messages = []
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(ImageError, match="smaller than a patch of 61 pixels") as caught:
            load_images(sources, smallest=61, cache=cache)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_an_interrupted_write_leaves_nothing_half_and_is_made_up_for(images, tmp_path, monkeypatch):
    sources = find_sources([images])
    options = {"scale": 2, "bicubic": True, "cache": tmp_path / "cache"}
    save, calls = np.save, iter(range(100))

    def full_disk(file, array, **kwargs):
        if next(calls) == 3:
            file.write(b"\x93NUMPY half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(file, array, **kwargs)

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        load_images(sources, **options)
    left = list((tmp_path / "cache").iterdir())
    assert len(left) == 3
    for path in left:
        np.load(path)
    monkeypatch.undo()
    assert content(load_images(sources, **options)) == content(load_images(sources, scale=2, bicubic=True))


# The data's hash.


def test_the_hash_tells_whether_the_files_are_the_same(images, tmp_path):
    def found(**options):
        return index_hash(load_images(find_sources([images]), **options))

    first = found()
    assert len(first) == 64
    assert found() == found(cache=tmp_path / "cache") == first
    images.rename(tmp_path / "elsewhere")
    assert index_hash(load_images(find_sources([tmp_path / "elsewhere"]))) == first
    (tmp_path / "elsewhere").rename(images)
    hashes = {first}
    write(images / "a.png", smooth_image(50, 63, 0))
    hashes.add(found())
    (images / "a.png").rename(images / "z.png")
    hashes.add(found())
    (images / "z.png").unlink()
    hashes.add(found())
    assert len(hashes) == 4


def test_a_damaged_cache_entry_is_named_with_the_way_out(images, tmp_path):
    cache = tmp_path / "cache"
    load_images(find_sources([images]), cache=cache)
    victim = sorted(cache.glob("*.gt.npy"))[0]
    victim.write_bytes(b"not an array")
    with pytest.raises(ImageError, match=rf"{victim.name}: damaged in the cache \([^\n]*\); delete it"):
        load_images(find_sources([images]), cache=cache)
