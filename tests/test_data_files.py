import errno
import gzip
import hashlib
import io
import os
import re
import struct
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets

from beyond_adam.data import DATASETS, DatasetError, diabetes, digits, download, imagenet, load
from beyond_adam.data.files import Description, file_of, folder

GREY, COLOUR = "fashion-mnist", "cifar10"
CLASSES = ("a", "b", "c")


def small_set(shape):
    """Return arrays as a file holds them, two images of them alike and one in two classes."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 12), ("test", 5)):
        x = random.integers(256, size=(count, *shape), dtype=np.uint8)
        x[2] = x[1] = x[0]
        arrays[f"x_{part}"] = x
        arrays[f"y_{part}"] = np.resize(np.array([0, 0, 1, 2], np.uint8), count)
    return arrays


SMALL = {GREY: small_set((6, 5)), COLOUR: small_set((4, 6, 3))}


def fingerprint(arrays):
    parts = []
    for part in ("train", "test"):
        pairs = zip(arrays[f"x_{part}"], arrays[f"y_{part}"], strict=True)
        parts += sorted(hashlib.sha256(x.tobytes() + bytes([y])).digest() for x, y in pairs)
    return hashlib.sha256(b"".join(parts)).hexdigest()


def shuffled(arrays, seed):
    random, result = np.random.default_rng(seed), {}
    for part in ("train", "test"):
        order = random.permutation(len(arrays[f"y_{part}"]))
        result |= {f"{axis}_{part}": arrays[f"{axis}_{part}"][order] for axis in "xy"}
    return result


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Let the sets be small and lie in a folder that is not there yet."""
    for name, arrays in SMALL.items():
        shape = arrays["x_train"].shape[1:]
        monkeypatch.setitem(DATASETS, name, Description(12, 5, shape, CLASSES, fingerprint(arrays)))
    monkeypatch.setenv("BEYOND_ADAM_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


def by_hand(name, arrays, **more):
    """Put a file where `load` looks for it."""
    file = file_of(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **arrays, **more)
    return file


@pytest.fixture
def torchvision(monkeypatch):
    """Replace torchvision's sets by ours in another order, laid out in memory as its own are."""
    log = SimpleNamespace(fetched=[], arrays={n: shuffled(a, 1) for n, a in SMALL.items()})

    def fetcher(name):
        def fetch(root, train, download):
            assert download
            Path(root, "raw").mkdir(exist_ok=True)
            Path(root, "raw", "archive").write_bytes(b"left by torchvision")
            print("12%", file=sys.stderr)
            part = "train" if train else "test"
            log.fetched.append((name, part))
            x, y = log.arrays[name][f"x_{part}"], log.arrays[name][f"y_{part}"]
            if name == GREY:
                return SimpleNamespace(data=torch.from_numpy(x), targets=torch.tensor(y).long())
            planes = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
            return SimpleNamespace(data=planes.transpose(0, 2, 3, 1), targets=y.tolist())

        return fetch

    monkeypatch.setattr(datasets, "FashionMNIST", fetcher(GREY))
    monkeypatch.setattr(datasets, "CIFAR10", fetcher(COLOUR))
    return log


def contents(home):
    return {file.name: file.read_bytes() for file in home.iterdir()}


# Loading


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("name", SMALL)
def test_both_origins_give_the_same(name, home):
    by_hand(name, shuffled(SMALL[name], 2), classes=np.array(CLASSES))
    one = load(name)
    file_of(name).unlink()
    assert download(name) == file_of(name) == home / f"{name.replace('-', '_')}.npz"
    with np.load(file_of(name)) as archive:
        assert sorted(archive) == sorted(SMALL[name])
        assert not np.array_equal(archive["x_train"], shuffled(SMALL[name], 2)["x_train"])
    other = load(name)
    for field in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
        assert getattr(one, field).strides == getattr(other, field).strides
    assert one.fingerprint == other.fingerprint == fingerprint(SMALL[name])


@pytest.mark.parametrize("name", SMALL)
def test_the_order_in_the_memory_of_a_file_does_not_matter(name):
    by_hand(name, SMALL[name])
    rows = load(name)
    by_hand(name, {array: np.asfortranarray(x) for array, x in SMALL[name].items()})
    columns = load(name)
    np.testing.assert_array_equal(columns.x_train, rows.x_train)
    assert columns.x_train.strides == rows.x_train.strides
    assert columns.fingerprint == rows.fingerprint


@pytest.mark.parametrize("name", SMALL)
def test_the_order_is_that_of_the_digests(name):
    by_hand(name, SMALL[name])
    data = load(name)
    assert (data.name, data.classes, data.depth) == (name, CLASSES, 255)
    for part in ("train", "test"):
        x, y = SMALL[name][f"x_{part}"], SMALL[name][f"y_{part}"]
        pairs = sorted(
            zip(x, y, strict=True),
            key=lambda pair: hashlib.sha256(pair[0].tobytes() + bytes([pair[1]])).digest(),
        )
        images = np.stack([image for image, _ in pairs])
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(getattr(data, f"x_{part}"), images)
        np.testing.assert_array_equal(getattr(data, f"y_{part}"), [label for _, label in pairs])
        assert getattr(data, f"x_{part}").dtype == getattr(data, f"y_{part}").dtype == np.uint8


def test_the_diabetes_study_needs_no_file():
    data, study = load("diabetes"), diabetes()
    assert (data.name, data.classes, data.depth) == ("diabetes", (), 0)
    assert data.fingerprint == study.fingerprint
    shapes = [a.shape for a in (data.x_train, data.y_train, data.x_test, data.y_test)]
    assert shapes == [(353, 10), (353, 1), (89, 10), (89, 1)]
    assert {a.dtype for a in (data.x_train, data.y_train, data.x_test, data.y_test)} == {
        np.dtype(np.float32)
    }
    np.testing.assert_array_equal(data.x_test[3], study.features[study.test[3]].astype(np.float32))
    assert data.y_test[3] == np.float32(study.target[study.test[3]])


def test_the_digits_need_no_file():
    data, raw = load("digits"), digits()
    assert (data.x_train.shape, data.x_test.shape) == ((1437, 1, 8, 8), (360, 1, 8, 8))
    assert (data.depth, data.classes) == (16, tuple("0123456789"))
    arrays = {}
    for part, rows in (("train", raw.train), ("test", raw.test)):
        arrays[f"x_{part}"], arrays[f"y_{part}"] = raw.images[rows], raw.labels[rows]
    assert data.fingerprint == fingerprint(arrays)


@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_what_comes_with_scikit_learn_is_a_missing_set_without_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DatasetError, match=f"^{name} cannot be had: .*scikit-learn.*pip install"):
        load(name)


def test_the_descriptions_are_complete(monkeypatch):
    monkeypatch.undo()
    assert list(DATASETS) == ["mnist", "fashion-mnist", "cifar10", "cifar100"]
    for name, wanted in DATASETS.items():
        assert wanted.train + wanted.test == (70_000 if "mnist" in name else 60_000)
        assert wanted.shape == ((28, 28) if "mnist" in name else (32, 32, 3))
        assert re.fullmatch(r"" if name == "cifar100" else r"[0-9a-f]{64}", wanted.fingerprint)
        assert len(set(wanted.classes)) == (100 if name == "cifar100" else 10)
    for name in ("mnist", "cifar10", "cifar100"):
        assert list(DATASETS[name].classes) == sorted(DATASETS[name].classes)
    # torchvision knows the names of Fashion-MNIST without its files.
    assert DATASETS["fashion-mnist"].classes == tuple(datasets.FashionMNIST.classes)


def test_where_the_files_lie(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.setenv("BEYOND_ADAM_DATA", "/chosen")
    assert folder() == Path("/chosen")
    assert file_of("fashion-mnist") == Path("/chosen/fashion_mnist.npz")
    monkeypatch.setenv("BEYOND_ADAM_DATA", "")
    assert folder() == Path("/cache/beyond-adam")
    monkeypatch.delenv("BEYOND_ADAM_DATA")
    assert folder() == Path("/cache/beyond-adam")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/somebody")
    assert folder() == Path("/somebody/.cache/beyond-adam")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/caches")
    assert folder() == Path("/somebody/caches/beyond-adam")
    monkeypatch.setenv("BEYOND_ADAM_DATA", "~/images")
    assert folder() == Path("/somebody/images")


def test_an_unknown_name_is_refused():
    with pytest.raises(DatasetError, match=r"'mnist-c': choose one of digits, diabetes, mnist, fa"):
        load("mnist-c")
    for name in ("mnist-c", "digits"):
        with pytest.raises(DatasetError, match=rf"{name!r} to download: choose one of mnist, fa"):
            download(name)


def test_a_missing_file_is_named_with_what_to_do(home):
    wanted = f"cifar10 is not there: run `make data`, or put the set into {home}/cifar10.npz"
    with pytest.raises(DatasetError, match=f"^{re.escape(wanted)}$"):
        load("cifar10")


# Damage


def refused(name=GREY):
    """Return why `load` refuses a file, having checked that it names file and remedy."""
    with pytest.raises(DatasetError) as caught:
        load(name)
    message, file = str(caught.value), str(file_of(name))
    assert message.startswith(file)
    assert "\n" not in message
    remedy = "; remove it and run `make data`, or put the set there by hand"
    assert message.endswith(remedy)
    return message.removeprefix(file).removesuffix(remedy)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_truncated_file_is_refused_wherever_it_ends(write, monkeypatch):
    monkeypatch.setitem(DATASETS, GREY, DATASETS[GREY]._replace(fingerprint=""))
    file = by_hand(GREY, {})
    write(file, **SMALL[GREY])
    whole = file.read_bytes()
    load(GREY)
    for end in range(0, len(whole), 13):
        file.write_bytes(whole[:end])
        assert " is damaged (" in refused()


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_an_altered_byte_is_noticed_or_harmless(write, monkeypatch):
    monkeypatch.setitem(DATASETS, GREY, DATASETS[GREY]._replace(fingerprint=""))
    file = by_hand(GREY, {})
    write(file, **SMALL[GREY])
    whole, wanted, noticed = file.read_bytes(), load(GREY), 0
    for place in range(0, len(whole), 3):
        altered = bytearray(whole)
        altered[place] ^= 0xA5
        file.write_bytes(altered)
        found = None
        with suppress(DatasetError):
            found = load(GREY)
        noticed += found is None
        # Harmless are the times and attributes of the archive's members, say.
        assert found is None or found.fingerprint == wanted.fingerprint
    assert noticed > 0.6 * len(whole) / 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x_train": SMALL[GREY]["x_train"][:-1]}, ": x_train is uint8 of shape (11, 6, 5), not "),
        ({"x_test": SMALL[GREY]["x_test"][..., None]}, ": x_test is uint8 of shape (5, 6, 5, 1),"),
        ({"x_train": SMALL[GREY]["x_train"] / 255}, ": x_train is float64 of shape (12, 6, 5), "),
        ({"y_train": SMALL[GREY]["y_train"].astype(int)}, ": y_train is int64 of shape (12,), not"),
        ({"y_test": np.zeros((5, 3), np.uint8)}, ": y_test is uint8 of shape (5, 3), not uint8 of"),
        (
            {"y_test": np.array([0, 1, 2, 3, 0], np.uint8)},
            ": y_test has 4 classes from 0 to 3, not 3 from 0 to 2",
        ),
        # As CIFAR-100 with its coarse classes.
        (
            {"y_train": SMALL[GREY]["y_train"] // 2},
            ": y_train has 2 classes from 0 to 1, not 3 from 0 to 2",
        ),
        (
            {"y_train": SMALL[GREY]["y_train"][::-1]},
            " is not the published fashion-mnist: fingerprint ",
        ),
        ({"x_test": np.array([None] * 5)}, " is damaged (Object arrays cannot be loaded when"),
    ],
)
def test_what_is_not_the_set_is_refused(change, reason):
    by_hand(GREY, SMALL[GREY] | change)
    assert refused().startswith(reason)


def test_one_pixel_is_enough():
    altered = SMALL[COLOUR]["x_test"].copy()
    altered[3, 2, 1, 0] ^= 1
    by_hand(COLOUR, SMALL[COLOUR] | {"x_test": altered})
    assert DATASETS[COLOUR].fingerprint in refused(COLOUR)


def test_a_missing_array_is_named():
    by_hand(GREY, {name: x for name, x in SMALL[GREY].items() if name != "y_test"})
    assert "y_test.npy" in refused()


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x93NUMPY\x01\x00v\x00"])
def test_what_is_not_an_archive_is_refused(content):
    by_hand(GREY, {}).write_bytes(content)
    assert refused() == " is damaged (File is not a zip file)"


def test_a_folder_in_place_of_a_file_is_refused():
    file_of(GREY).mkdir(parents=True)
    assert refused() == " cannot be read (Is a directory)"


def test_a_file_in_place_of_the_folder_is_refused(home):
    home.write_text("")
    assert refused() == " cannot be read (Not a directory)"


# Downloading


def test_what_is_there_is_not_fetched_again(home, torchvision):
    by_hand(GREY, SMALL[GREY])
    before = contents(home)
    assert download(GREY) == file_of(GREY)
    assert torchvision.fetched == []
    assert contents(home) == before


def test_what_is_damaged_is_fetched_again(home, torchvision):
    file = by_hand(GREY, SMALL[GREY])
    file.write_bytes(file.read_bytes()[:-1])
    assert download(GREY) == file
    assert torchvision.fetched == [(GREY, "train"), (GREY, "test")]
    assert load(GREY).fingerprint == fingerprint(SMALL[GREY])
    assert list(contents(home)) == ["fashion_mnist.npz"]


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_if_wanted(progress, capsys):
    download(GREY, progress=progress)
    assert ("12%" in capsys.readouterr().err) == progress


def test_another_set_is_not_kept(home, torchvision):
    file = by_hand(GREY, {})
    before = contents(home)
    torchvision.arrays[GREY]["y_test"][0] ^= 1
    wanted = (
        "the fashion-mnist that was downloaded is not kept: .* is not the published fashion-mni"
    )
    with pytest.raises(DatasetError, match=wanted):
        download(GREY)
    assert contents(home) == before
    assert list(before) == [file.name]


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("step", ["numpy.savez", "os.fsync", "os.replace", "os.mkdir"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_write_that_fails_leaves_nothing(step, code, home, monkeypatch):
    home.mkdir()

    def fail(target, *_, **__):
        if step == "numpy.savez":
            target.write(b"half of it")
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(step, fail)
    with pytest.raises(DatasetError, match=f"could not be downloaded: .*{os.strerror(code)}; with"):
        download(GREY)
    assert contents(home) == {}


@pytest.mark.usefixtures("torchvision")
def test_a_full_disk_leaves_the_file_that_was_there(home, monkeypatch):
    by_hand(GREY, {})
    before = contents(home)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DatasetError, match="No space left on device"):
        download(GREY)
    assert contents(home) == before


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_nothing(interruption, home, monkeypatch):
    def interrupted(root, train, download):  # noqa: ARG001
        Path(root, "half").write_bytes(b"half of it")
        raise interruption

    monkeypatch.setattr(datasets, "FashionMNIST", interrupted)
    with pytest.raises(interruption):
        download(GREY)
    assert contents(home) == {}


def test_without_torchvision_the_error_says_what_to_install(home, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(DatasetError, match=r'pip install "beyond-adam\[book\]"'):
        download(GREY)
    assert not home.exists()
    for number in range(1000):
        (tmp_path / "val" / str(number)).mkdir(parents=True)
    with pytest.raises(DatasetError, match=r'pip install "beyond-adam\[book\]"'):
        imagenet(tmp_path, "val")


# Torchvision itself, with a network of our own


@pytest.fixture
def network(monkeypatch):
    """Replace the internet by a dictionary from the names of files to their contents."""
    served = {}

    def urlopen(request, *_, **__):
        name = request.full_url.rsplit("/", 1)[1]
        if name not in served:
            raise URLError("Name or service not known")
        answer = io.BytesIO(served[name])
        answer.url, answer.length = request.full_url, len(served[name])
        return answer

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    return served


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("name", list(DATASETS))
def test_without_a_network_the_error_tells_the_way_by_hand(name, home):
    with pytest.raises(DatasetError) as caught:
        download(name)
    message = str(caught.value)
    assert message.startswith(f"{name} could not be downloaded: ")
    assert "Name or service not known" in message
    assert f"without a network, put the set into {file_of(name)} by hand" in message
    assert "\n" not in message
    assert contents(home) == {}


def served_fashion(monkeypatch, network):
    """Serve our set in the format of Fashion-MNIST."""
    arrays, resources = shuffled(SMALL[GREY], 3), []
    for part, stem in (("train", "train"), ("test", "t10k")):
        for axis, kind in (("x", "images-idx3"), ("y", "labels-idx1")):
            array, name = arrays[f"{axis}_{part}"], f"{stem}-{kind}-ubyte.gz"
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            network[name] = gzip.compress(head + array.tobytes())
            resources.append((name, hashlib.md5(network[name]).hexdigest()))
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)


def test_torchvision_fetches_what_is_served(home, monkeypatch, network, capsys):
    served_fashion(monkeypatch, network)
    download(GREY)
    assert load(GREY).fingerprint == fingerprint(SMALL[GREY])
    assert list(contents(home)) == ["fashion_mnist.npz"]
    assert "100" in capsys.readouterr().err


def test_an_archive_with_another_checksum_is_refused(home, monkeypatch, network):
    served_fashion(monkeypatch, network)
    network["t10k-images-idx3-ubyte.gz"] += b"\0"
    with pytest.raises(DatasetError, match=r"could not be downloaded: .* File not found or corrup"):
        download(GREY)
    assert contents(home) == {}


# ImageNet


def image_folders(root, count):
    for number in range(count):
        (root / f"n{number:08}").mkdir(parents=True)
        (root / f"n{number:08}" / "0.JPEG").touch()


def test_imagenet_is_a_folder_per_class(tmp_path):
    image_folders(tmp_path / "val", 1000)
    data = imagenet(tmp_path, "val")
    assert isinstance(data, datasets.ImageFolder)
    assert (len(data), len(data.classes)) == (1000, 1000)
    assert data.samples[7] == (str(tmp_path / "val" / "n00000007" / "0.JPEG"), 7)


def test_an_incomplete_imagenet_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=f"there is no folder {tmp_path}/train: ImageNet's 'tra"):
        imagenet(tmp_path, "train")
    image_folders(tmp_path / "train", 999)
    (tmp_path / "train" / "README").touch()
    with pytest.raises(DatasetError, match="train holds 999 folders, not 1000"):
        imagenet(str(tmp_path), "train")
    (tmp_path / "train" / "n99999999").mkdir()
    with pytest.raises(DatasetError, match=r"train has classes without images: .*n99999999"):
        imagenet(tmp_path, "train")
