"""CIFAR-10 and its copies, CelebA-HQ, AFHQ: tiny sources in the exact layouts, and what can be wrong with them."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from cases import SHARED
from PIL import Image

from coldbench import data
from coldbench.core.errors import ColdbenchError, NotThere
from coldbench.data import celeba_afhq, cifar10, cifar10_copies, image_files, mnist

COUNTS = {"train": 10, "test": 3}  # of the stand-ins
SIZES = (8, 28, 32, 35, 128, 143)


def encoded(picture: np.ndarray, kind: str = "PNG") -> bytes:
    """A picture (H, W, 3) as the content of an image file."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind)
    return stream.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def built(name: str, folder: Path, split: str, size: int = 32) -> np.ndarray:
    return np.stack(list(data.dataset(name).build(folder, size, split)))


def declare(monkeypatch: pytest.MonkeyPatch, name: str, counts: dict[str, int] = COUNTS) -> None:
    monkeypatch.setitem(data.DATASETS, name, replace(data.DATASETS[name], **counts))


class Python2(pickle._Pickler):  # type: ignore[name-defined]
    """Writes text and bytes as Python 2 wrote its strings, which is how CIFAR-10 was pickled."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, text: str | bytes) -> None:
        raw = text.encode("latin1") if isinstance(text, str) else text
        self.write(b"T" + struct.pack("<i", len(raw)) + raw)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_string


def pickled(value: object) -> bytes:
    stream = io.BytesIO()
    Python2(stream, protocol=2).dump(value)
    return stream.getvalue()


def batch_file(layout: str, pixels: np.ndarray) -> bytes:
    """Pictures (n, 3, 32, 32) as the content of a batch."""
    rows, labels = pixels.reshape(len(pixels), -1), [index % 10 for index in range(len(pixels))]
    if layout == cifar10.PICKLED:
        return pickled({"batch_label": "a batch", "labels": labels, "data": rows, "filenames": ["x.png"] * len(rows)})
    return np.hstack([np.array(labels, np.uint8)[:, None], rows]).tobytes()


def announce(monkeypatch: pytest.MonkeyPatch, layout: str, contents: dict[str, bytes]) -> None:
    """Make `contents` the files that the registry expects."""
    batches = {
        split: tuple(
            replace(batch, size=len(content), md5=hashlib.md5(content).hexdigest())
            for batch in listed
            for content in [contents[batch.name]]
        )
        for split, listed in cifar10.BATCHES[layout].items()
    }
    monkeypatch.setitem(cifar10.BATCHES, layout, batches)


@pytest.fixture
def tiny_cifar(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, bytes]]:
    """CIFAR-10 with two pictures a batch, three in the test batch: file contents by layout and name."""
    contents: dict[str, dict[str, bytes]] = {}
    for layout, splits in cifar10.BATCHES.items():
        contents[layout] = {
            batch.name: batch_file(layout, noise(3 if split == "test" else 2, 3, 32, 32, seed=seed))
            for split, batches in splits.items()
            for seed, batch in enumerate(batches)
        }
        announce(monkeypatch, layout, contents[layout])
    declare(monkeypatch, "cifar10")
    return contents


def write_all(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.mark.parametrize("layout", list(cifar10.BATCHES))
def test_cifar10_bytes_in_are_pixels_out(tiny_cifar: dict[str, dict[str, bytes]], tmp_path: Path, layout: str) -> None:
    write_all(tmp_path / layout, tiny_cifar[layout])
    data.prepare("cifar10", tmp_path, 32, tmp_path / "out")
    train = np.concatenate([noise(2, 3, 32, 32, seed=seed) for seed in range(5)])
    np.testing.assert_array_equal(data.load(tmp_path / "out", "train"), train)
    np.testing.assert_array_equal(data.load(tmp_path / "out", "test"), noise(3, 3, 32, 32))


def test_cifar10_pickles_are_read_only_where_there_is_no_binary_folder(
    tiny_cifar: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    with pytest.raises(NotThere, match=r"cifar-10-batches-bin/data_batch_1\.bin does not exist.*-binary\.tar\.gz"):
        data.check_source("cifar10", tmp_path)
    for layout, contents in tiny_cifar.items():
        write_all(tmp_path / layout, contents)
    (tmp_path / cifar10.PICKLED / "test_batch").write_bytes(b"junk")
    data.check_source("cifar10", tmp_path)
    assert len(built("cifar10", tmp_path, "test")) == 3


@pytest.mark.parametrize("layout", list(cifar10.BATCHES))
def test_cifar10_damage_is_named(tiny_cifar: dict[str, dict[str, bytes]], tmp_path: Path, layout: str) -> None:
    write_all(tmp_path / layout, tiny_cifar[layout])
    path = tmp_path / layout / cifar10.BATCHES[layout]["test"][0].name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    data.check_source("cifar10", tmp_path)
    with pytest.raises(ColdbenchError, match=r"test_batch\S* is not test_batch\S* of CIFAR-10: MD5"):
        built("cifar10", tmp_path, "test")
    path.write_bytes(content[:-1])
    with pytest.raises(ColdbenchError, match=f"test_batch.*truncated.*{len(content) - 1} bytes, .* {len(content)}"):
        data.check_source("cifar10", tmp_path)
    path.unlink()
    for call in (lambda: data.check_source("cifar10", tmp_path), lambda: built("cifar10", tmp_path, "test")):
        with pytest.raises(NotThere, match=r"test_batch\S* does not exist"):
            call()


class Malice:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"data": Malice()}, r"names posix\.mkdir"),
        (Malice(), r"names posix\.mkdir"),
        ({"data": noise(2, 3071)}, "lacks 'data'"),
        ([1], "lacks 'data'"),
        (None, "pickle data was truncated|Ran out of input"),
    ],
)
def test_a_strange_pickle_is_refused_and_nothing_in_it_runs(
    tiny_cifar: dict[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object, words: str
) -> None:
    contents = dict(tiny_cifar[cifar10.PICKLED])
    contents["test_batch"] = pickled(value) if value is not None else contents["test_batch"][:-20]
    announce(monkeypatch, cifar10.PICKLED, contents)
    write_all(tmp_path / cifar10.PICKLED, contents)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ColdbenchError, match=f"test_batch is not a pickled batch of CIFAR-10: .*({words})"):
        built("cifar10", tmp_path, "test")
    assert not Path("executed").exists()


def archive(members: dict[str, bytes]) -> bytes:
    """A tar.gz of regular files; empty content makes a link to /etc/passwd instead."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as made:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if not content:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            made.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def test_the_archive_is_verified_and_only_the_six_files_come_out_of_it(
    tiny_cifar: dict[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    good = {f"{cifar10.BINARY}/{name}": content for name, content in tiny_cifar[cifar10.BINARY].items()}
    strange = {"../x": b"x", f"{cifar10.BINARY}/../../x": b"x", str(tmp_path / "x"): b"x", "y": b""}
    last = f"{cifar10.BINARY}/test_batch.bin"
    answers = {
        "Name or service not known": None,
        "what came is not the archive": b"<html>",
        r"the archive lacks .*/test_batch\.bin": archive({**good, last: b""}),
        r"test_batch\.bin in the archive is not test_batch\.bin": archive({**good, last: b"other"}),
        "": archive({**strange, **good}),
    }

    def serve(url: str, timeout: float) -> io.BytesIO:
        if answer is None:
            raise OSError("Name or service not known")
        return io.BytesIO(answer)

    monkeypatch.setattr("urllib.request.urlopen", serve)
    for words, answer in answers.items():
        if answer is not None and answer != b"<html>":
            monkeypatch.setattr(cifar10, "ARCHIVE_MD5", hashlib.md5(answer).hexdigest())
        if words:
            with pytest.raises(
                ColdbenchError, match=f"cannot download CIFAR-10.*{words}.*; put data_batch_1"
            ) as caught:
                data.fetch("cifar10", folder)
            assert "\n" not in str(caught.value)
            assert not (folder / last).exists()
            assert folder.exists() == (answer is not None)
    data.fetch("cifar10", folder)
    data.check_source("cifar10", folder)
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()}
    assert there == {f"data/{name}" for name in good}


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Zips of 10 and 3 JPEG files, and the uncompressed pixels of 4 and 2 of the pictures in another order."""
    monkeypatch.setattr(cifar10_copies, "IMAGES", COUNTS)
    monkeypatch.setattr(cifar10_copies, "KEPT", {"train": 4, "test": 2})
    declare(monkeypatch, "cifar10_jpeg")
    declare(monkeypatch, "cifar10_part", {"train": 4, "test": 2})
    declare(monkeypatch, "cifar10_part_jpeg", {"train": 4, "test": 2})
    for split, kept in (("train", [7, 0, 9, 3]), ("test", [2, 0])):
        files = {
            f"{'cat' if index < 2 else 'dog'}/{index:04}.jpg": originals(split)[index] for index in range(COUNTS[split])
        }
        write_zips(tmp_path, split, {name: encoded(files[name], "JPEG") for name in reversed(files)})
        (tmp_path / "cifar10-raw-part").mkdir(exist_ok=True)
        images = originals(split)[kept]
        np.savez(tmp_path / f"cifar10-raw-part/{split}.npz", images=images, jpeg_index=np.array(kept, np.int32))
    return tmp_path


def originals(split: str) -> np.ndarray:
    """Smooth pictures (n, 32, 32, 3), so that compression changes them little."""
    small = noise(COUNTS[split], 3, 3, 3, seed=1)
    return np.stack([np.asarray(Image.fromarray(picture).resize((32, 32))) for picture in small])


def write_zips(folder: Path, split: str, entries: dict[str, bytes]) -> None:
    (folder / "cifar10-jpeg").mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"cifar10-jpeg/{split}.zip", "w") as made:
        for name, content in entries.items():
            made.writestr(name, content)


def test_the_copies_keep_order_and_correspondence(copies: Path) -> None:
    out = {name: copies / "out" / name for name in ("cifar10_jpeg", "cifar10_part", "cifar10_part_jpeg")}
    for name, folder in out.items():
        data.prepare(name, copies, 32, folder)
        assert ("perturbed" in data.info(folder)["source"]) == ("jpeg" in name)
    for split, kept in (("train", [7, 0, 9, 3]), ("test", [2, 0])):
        jpeg, part, part_jpeg = (data.load(folder, split) for folder in out.values())
        np.testing.assert_array_equal(part, originals(split)[kept].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(part_jpeg, jpeg[kept])
        assert 0 < np.abs(part_jpeg.astype(int) - part).mean() < 5


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def save_npz(**arrays: np.ndarray) -> Callable[[Path], None]:
    good = {"images": noise(2, 32, 32, 3), "jpeg_index": np.array([0, 1])}
    return lambda path: np.savez(path, **{key: value for key, value in (good | arrays).items() if value.size})


JPEGS, PARTS = ["cifar10_jpeg", "cifar10_part_jpeg"], ["cifar10_part", "cifar10_part_jpeg"]


@pytest.mark.parametrize(
    ("names", "file", "damage", "words", "fast"),
    [
        (JPEGS, "jpeg/test.zip", Path.unlink, "does not exist.*test.zip with 50000 and 10000 entries", True),
        (JPEGS, "jpeg/test.zip", cut, "is truncated or no zip", True),
        (JPEGS, "jpeg/test.zip", lambda path: write_zips(path.parents[1], "test", {"a/1.jpg": b""}), "1 .*be 3", True),
        (JPEGS, "jpeg/test.zip", change, r"\.jpg cannot be read: Bad CRC", False),
        (
            JPEGS,
            "jpeg/test.zip",
            lambda path: write_zips(path.parents[1], "test", {f"a/{n}.jpg": b"no image" for n in range(3)}),
            r"a/[02]\.jpg cannot be decoded",
            False,
        ),
        (PARTS, "raw-part/test.npz", Path.unlink, "does not exist: put train.npz and test.npz", True),
        (PARTS, "raw-part/test.npz", cut, "is truncated or no npz", True),
        (PARTS, "raw-part/test.npz", lambda path: np.save(path.open("wb"), noise(3)), "truncated or no npz", True),
        (PARTS, "raw-part/test.npz", save_npz(jpeg_index=np.array([])), "has no array jpeg_index", True),
        (PARTS, "raw-part/test.npz", save_npz(jpeg_index=np.array([0, 3])), "places from 0 to 2", True),
        (PARTS, "raw-part/test.npz", save_npz(jpeg_index=np.arange(3)), r"int64 \(3,\), should be .* \(2,\)", True),
        (
            PARTS[:1],
            "raw-part/test.npz",
            save_npz(images=noise(2, 9, 9, 3)),
            r"should be uint8 \(2, 32, 32, 3\)",
            False,
        ),
    ],
)
def test_damaged_copies_are_named(
    copies: Path, names: list[str], file: str, damage: Callable[[Path], None], words: str, fast: bool
) -> None:
    damage(copies / f"cifar10-{file}")
    for name in names:
        assert data.available(name, copies) != fast
        with pytest.raises(ColdbenchError, match=f"{Path(file).name}.*{words}") as caught:
            data.prepare(name, copies, 32, copies / "out")
        assert "\n" not in str(caught.value)


@pytest.fixture
def photographs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """CelebA-HQ of 13 pictures whose value is their number, AFHQ of 3 a class, CelebA of 2; named without padding."""
    monkeypatch.setattr(celeba_afhq, "CELEBA", COUNTS)
    monkeypatch.setattr(celeba_afhq, "AFHQ", {"train": 6, "test": 3})
    monkeypatch.setattr(celeba_afhq, "ALIGNED", {"train": 1, "test": 1})
    declare(monkeypatch, "celeba")
    declare(monkeypatch, "afhq", {"train": 6, "test": 3})
    files = {f"CelebA-HQ/images-128/{n}.{'png' if n % 2 else 'JPG'}": n for n in range(13)}
    files |= {f"AFHQ/afhq/train/{name}/{n}.png": 8 + n for n, name in enumerate(["cat"] * 8 + ["dog", "wild"])}
    files = {name: value for name, value in files.items() if "cat" not in name or value >= 12}
    files |= {f"AFHQ/afhq/val/{name}/p.png": 20 + n for n, name in enumerate(("cat", "dog", "wild"))}
    files |= {f"celeba/img_align_celeba/{n}.png": n for n in range(2)}
    write_all(tmp_path, {"celeba/list_eval_partition.txt": b"0.png 0\n1.png 2\n"})
    for name, value in files.items():
        write_all(
            tmp_path, {name: encoded(np.full((32, 32, 3), value, np.uint8), name[-3:].upper().replace("JPG", "JPEG"))}
        )
    return tmp_path


def test_folders_are_split_and_sorted_by_the_frozen_rule(photographs: Path) -> None:
    for name, train, test in (("celeba", range(10), (10, 11, 12)), ("afhq", range(12, 18), (20, 21, 22))):
        data.prepare(name, photographs, 32, photographs / name)
        for split, values in (("train", train), ("test", test)):
            images = data.load(photographs / name, split)
            np.testing.assert_array_equal(images, np.broadcast_to(np.reshape(values, (-1, 1, 1, 1)), images.shape))
    (photographs / "CelebA-HQ/images-128").rename(photographs / "CelebA-HQ/images")
    assert built("celeba", photographs, "test").mean() == 11


def test_incomplete_folders_say_what_to_put_where(photographs: Path) -> None:
    (photographs / "CelebA-HQ/images-128/5.png").unlink()
    (photographs / "AFHQ/afhq/val/dog/p.png").unlink()
    for name, words in (("celeba", "holds 12 images, should be 13"), ("afhq", "holds 2 images, should be 3")):
        for call in (data.check_source, data.fetch, lambda name, folder: built(name, folder, "test")):
            with pytest.raises(ColdbenchError, match=words):
                call(name, photographs)
        with pytest.raises(
            NotThere, match=f"does not exist: {data.dataset(name).title} needs .* inside the data folder"
        ):
            data.check_source(name, photographs / "elsewhere")
        with pytest.raises(ColdbenchError, match=f"inside the data folder.*; data set '{name}' cannot be downloaded"):
            data.fetch(name, photographs / "elsewhere")


@pytest.mark.parametrize(
    "content", [encoded(noise(32, 32, 3), "JPEG")[:-300], encoded(noise(32, 32, 3))[:-300], b"", b"%!PS"]
)
def test_an_image_that_cannot_be_decoded_is_named(photographs: Path, content: bytes) -> None:
    for name, file in (("celeba", "CelebA-HQ/images-128/11.png"), ("afhq", "AFHQ/afhq/val/dog/p.png")):
        (photographs / file).write_bytes(content)
        data.check_source(name, photographs)
        with pytest.raises(ColdbenchError, match=f"{file} cannot be decoded as an image: ") as caught:
            data.prepare(name, photographs, 32, photographs / "out")
        assert "0x" not in str(caught.value), "an address in a message differs from run to run"


def test_images_are_listed_in_natural_order_without_hidden_ones(tmp_path: Path) -> None:
    names = ["1.jpg", "2.PNG", "09.jpeg", "10.jpg", "b/1.jpg", "b2/1.jpg", "b10/1.jpg", "x9y.png", "x10y.png"]
    write_all(tmp_path, dict.fromkeys([*reversed(names), "._1.jpg", ".cache/1.jpg", "readme.txt"], b""))
    assert [str(path.relative_to(tmp_path)) for path in image_files.list_images(tmp_path)] == names
    with pytest.raises(ColdbenchError, match="nowhere cannot be read"):
        image_files.list_images(tmp_path / "nowhere")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(47, 31, 3), (32, 45, 3), (40, 40), (33, 50, 4)])
def test_any_picture_is_fitted_as_by_torchvision(size: int, shape: tuple[int, ...]) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    content = encoded(noise(*shape))
    expected = Compose([Resize(size), CenterCrop(size)])(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(image_files.decode(content, size, "x"), np.asarray(expected).transpose(2, 0, 1))


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    """Grey pictures of 16 bits have the nearest 8; Pillow alone would make nearly all of them white."""
    grey = noise(32, 32)
    for wide in (grey.astype(np.uint16) * 257, np.clip(grey.astype(np.int64) * 257 + 128, 0, 65535).astype(np.uint16)):
        decoded = image_files.decode(encoded(wide), 32, "x")
        np.testing.assert_array_equal(decoded, np.stack([grey] * 3))


@pytest.mark.parametrize("size", SIZES)
def test_every_data_set_builds_at_any_size(
    copies: Path,
    photographs: Path,
    tiny_cifar: dict[str, dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    digits = np.array([0x803, 2, 28, 28], ">u4").tobytes() + noise(2, 28, 28).tobytes()
    idx = replace(mnist.FILES["test"], size=len(digits), md5=hashlib.md5(digits).hexdigest())
    monkeypatch.setitem(mnist.FILES, "test", idx)
    write_all(copies, {idx.name: digits})
    write_all(copies / cifar10.BINARY, tiny_cifar[cifar10.BINARY])
    for entry in data.DATASETS.values():
        image = next(entry.build(copies, size, "test"))
        assert (image.shape, image.dtype) == ((entry.channels, size, size), np.uint8)
    if size == 28:
        np.testing.assert_array_equal(built("mnist", copies, "test", 28)[:, 0], noise(2, 28, 28))


needs_shared = pytest.mark.skipif(
    not data.available("cifar10_part_jpeg", SHARED / "data"), reason="no real CIFAR-10 at hand"
)


@needs_shared
def test_real_jpegs_correspond_to_the_real_part() -> None:
    part, jpeg = (
        built(name, SHARED / "data", "test").astype(np.float64) / 255 for name in ("cifar10_part", "cifar10_part_jpeg")
    )
    rmse = np.sqrt(((part - jpeg) ** 2).mean((1, 2, 3)))
    assert rmse.mean() == pytest.approx(0.031, abs=0.001)
    assert rmse.max() < 0.1  # one mismatched picture would give about 0.3
    assert len(np.unique(part, axis=0)) > 1000


@needs_shared
def test_the_real_jpeg_copy_decodes() -> None:
    images = built("cifar10_jpeg", SHARED / "data", "test")
    assert images.shape == (10000, 3, 32, 32)
    np.testing.assert_allclose(images.mean((0, 2, 3)) / 255, [0.494, 0.485, 0.450], atol=0.003)  # CIFAR-10's test means


@pytest.mark.skipif(not (SHARED / "golden/data_pipeline.npz").is_file(), reason="no golden vectors at hand")
def test_sizes_of_the_released_loaders_give_their_pixels() -> None:
    """The released evaluation loaders enlarge by 1.12 and crop the centre: build at 35 or 143, then crop."""
    with np.load(SHARED / "golden/data_pipeline.npz") as golden:
        for name, enlarged, size in (("cifar", 35, 32), ("celeba", 143, 128)):
            offset = round((enlarged - size) / 2)
            for picture, expected in zip(golden[f"{name}_uint8"], golden[f"{name}_eval"], strict=True):
                made = image_files.decode(encoded(picture), enlarged, name)
                cropped = made[:, offset : offset + size, offset : offset + size].astype(np.float32)
                np.testing.assert_allclose(cropped / 255 * 2 - 1, expected, atol=1e-6)


def test_any_image_folder(tmp_path: Path) -> None:
    """A folder with its own splits, or without: every tenth image, in natural order, is then for testing."""
    from PIL import Image

    def picture(path: Path, value: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 20), (value, 0, 0)).save(path)

    for index in range(25):
        picture(tmp_path / "cats" / f"{index}.png", index)
    for split, value in (("train", 7), ("test", 9)):
        picture(tmp_path / "dogs" / split / "sub" / "a.png", value)
    found = {}
    for name in ("cats", "dogs"):
        data.prepare(f"folder-{name}", tmp_path, 16, tmp_path / name / "out")
        found[name] = [data.load(tmp_path / name / "out", split)[:, 0, 0, 0].tolist() for split in data.SPLITS]
    assert found["cats"] == [[i for i in range(25) if i not in (9, 19)], [9, 19]]
    assert found["dogs"] == [[7], [9]]
    with pytest.raises(ColdbenchError, match=r"birds does not exist: folder-birds needs image files .* in birds/train"):
        data.check_source("folder-birds", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ColdbenchError, match="empty holds no train images"):
        data.prepare("folder-empty", tmp_path, 16, tmp_path / "out")
    with pytest.raises(ColdbenchError, match="unknown data set 'folder-'"):
        data.dataset("folder-")


def test_celeba_follows_the_official_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and test images by the file's own list, the middle square of each; the validation split is left out."""
    from PIL import Image

    monkeypatch.setattr(celeba_afhq, "ALIGNED", {"train": 2, "test": 1})
    folder = tmp_path / "celeba" / "img_align_celeba"
    with pytest.raises(ColdbenchError, match=r"list_eval_partition.txt does not exist: CelebA needs the aligned"):
        data.check_source("celeba_aligned", tmp_path)
    folder.mkdir(parents=True)
    for index in range(4):
        picture = Image.new("RGB", (18, 24), (50 * index, 0, 0))
        picture.paste((0, 255, 0), (0, 0, 18, 2))  # above the middle square
        picture.save(folder / f"{index:06d}.png")
    partition = tmp_path / "celeba" / "list_eval_partition.txt"
    partition.write_text("000003.png 0\n000001.png 0\n000000.png 1\n000002.png 2\n")
    data.check_source("celeba_aligned", tmp_path)
    entry = data.dataset("celeba_aligned")
    found = {split: [image[:, 9, 9].tolist() for image in entry.build(tmp_path, 18, split)] for split in data.SPLITS}
    assert found == {"train": [[150, 0, 0], [50, 0, 0]], "test": [[100, 0, 0]]}
    assert all(image[1].max() == 0 for image in entry.build(tmp_path, 18, "train"))
    for text, told in (
        ("000001.png 0\n", "holds 1 images, should be 2"),
        ("../x 0\n", "is not the official partition"),
    ):
        partition.write_text(text)
        with pytest.raises(ColdbenchError, match=told):
            data.check_source("celeba_aligned", tmp_path)
