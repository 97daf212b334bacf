"""FID's features against clean-fid's own way from image files, with random weights in the place of the true ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from coldbench.core import config
from coldbench.core.errors import ColdbenchError, MissingFile
from coldbench.core.experiment import Experiment
from coldbench.core.files import sha256
from coldbench.core.images import to_uint8
from coldbench.evaluation import evaluate
from coldbench.evaluation.metrics import inception, weights

inception_pytorch = pytest.importorskip("cleanfid.inception_pytorch")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of random weights for the PyTorch port."""
    folder = tmp_path_factory.mktemp("weights")
    held: dict[str, Any] = {}

    def none(*_: object, **__: object) -> dict[str, torch.Tensor]:
        return held

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception_pytorch, "load_state_dict_from_url", none)
        patch.setattr(torch.nn.Module, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        network = inception_pytorch.fid_inception_v3()
    for name, value in network.state_dict().items():
        if value.ndim == 4:
            torch.nn.init.kaiming_normal_(value)
        elif name.endswith("weight") or name.endswith("running_var"):
            torch.nn.init.uniform_(value, 0.5, 1.5)
    torch.save(network.state_dict(), folder / weights.PORT.name)
    return folder


@pytest.fixture
def trusted(port: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, whose file is taken for the true one."""
    known = dataclasses.replace(weights.PORT, sha256=sha256(port / weights.PORT.name))
    monkeypatch.setattr(weights, "PROTOCOLS", {"paper-float": known, "legacy_pytorch": known})
    return port


def images(channels: int = 3) -> torch.Tensor:
    """Smooth pictures that leave [0, 1] at both ends."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(3, channels, 6, 6, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=32, mode="bicubic") * 1.2 - 0.1


def reference(port: Path) -> torch.nn.Module:
    with pytest.MonkeyPatch.context() as patch:
        values = torch.load(port / weights.PORT.name, weights_only=True)
        patch.setattr(inception_pytorch, "load_state_dict_from_url", lambda *_, **__: values)
        return inception_pytorch.InceptionV3(output_blocks=[3], resize_input=False).eval()


def test_paper_float_is_the_port_on_floats(trusted: Path) -> None:
    """What the paper's evaluation does: enlarged without antialiasing, values outside [0, 1] kept."""
    x = images()
    got = inception.extractor("paper-float", trusted, CPU)(x)
    with torch.inference_mode():
        large = torch.nn.functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
        expected = reference(trusted)(large)[0][:, :, 0, 0].numpy()
    assert got.shape == (3, 2048)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    grey = images(1)
    np.testing.assert_allclose(
        inception.extractor("paper-float", trusted, CPU)(grey),
        inception.extractor("paper-float", trusted, CPU)(grey.repeat(1, 3, 1, 1)),
    )


def test_legacy_pytorch_is_clean_fid_on_files(trusted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The features that clean-fid computes from PNG files of the same pictures."""
    from cleanfid import features, fid

    x = images()
    for index, picture in enumerate(x):
        levels = to_uint8(picture).permute(1, 2, 0).numpy()
        Image.fromarray(levels).save(tmp_path / f"{index}.png")
    values = torch.load(trusted / weights.PORT.name, weights_only=True)
    monkeypatch.setattr(inception_pytorch, "load_state_dict_from_url", lambda *_, **__: values)
    model = features.build_feature_extractor("legacy_pytorch", CPU, use_dataparallel=False)
    files = sorted(str(path) for path in tmp_path.glob("*.png"))
    expected = fid.get_files_features(
        files, model, num_workers=0, batch_size=3, device=CPU, mode="legacy_pytorch", verbose=False
    )
    got = inception.extractor("legacy_pytorch", trusted, CPU)(x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    floats = inception.extractor("paper-float", trusted, CPU)(x)
    assert np.abs(got - floats).max() > 1e-3 * np.abs(floats).max(), "8 bits and clipping make a difference"


def test_eight_bit_is_what_torchvision_writes(tmp_path: Path) -> None:
    from torchvision.utils import save_image

    x = images()[0]
    save_image(x, tmp_path / "a.png")
    difference = to_uint8(x).int() - torch.from_numpy(np.array(Image.open(tmp_path / "a.png"))).permute(2, 0, 1)
    assert difference.abs().max() <= 1
    assert (difference != 0).float().mean() < 1e-3, "only halves may be rounded the other way"


def test_weights_are_known_by_their_hash(port: Path, tmp_path: Path) -> None:
    with pytest.raises(
        MissingFile, match=r"inception-2015-12-05.pt does not exist: FID \(clean\) needs the file https"
    ):
        weights.check("clean", tmp_path)
    with pytest.raises(ColdbenchError, match=r"has the SHA-256 \w{12}…, not 6726825d0af5…"):
        weights.check("paper-float", port)
    with pytest.raises(ColdbenchError, match="unknown FID protocol 'cleen': did you mean 'clean'"):
        weights.check("cleen", tmp_path)


def test_weights_are_downloaded_whole_or_not_at_all(
    port: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a server of our own: a wrong file leaves nothing, a right one is kept and not asked for again."""
    source = port / weights.PORT.name
    offered = dataclasses.replace(weights.PORT, url=source.as_uri())
    monkeypatch.setattr(weights, "PROTOCOLS", {"paper-float": offered})
    with pytest.raises(ColdbenchError, match=r"delivered another file .* put it into .* and set inception="):
        weights.fetch("paper-float", tmp_path)
    assert not list(tmp_path.iterdir())
    known = dataclasses.replace(offered, sha256=sha256(source))
    monkeypatch.setattr(weights, "PROTOCOLS", {"paper-float": known})
    path = weights.fetch("paper-float", tmp_path)
    assert path.read_bytes() == source.read_bytes()
    gone = dataclasses.replace(known, url="file:///nowhere/at/all")
    monkeypatch.setattr(weights, "PROTOCOLS", {"paper-float": gone})
    assert weights.fetch("paper-float", tmp_path) == path
    path.write_bytes(b"damaged")
    with pytest.raises(ColdbenchError, match="cannot download"):
        weights.fetch("paper-float", tmp_path)
    assert weights.PROTOCOLS.keys() == {"paper-float"}


def test_every_protocol_of_the_configuration_has_weights() -> None:
    assert set(weights.PROTOCOLS) == set(get_args(config.Fid))


def test_scores_carry_the_protocol_the_reference_and_a_warning(
    trusted: Path, digits: Path, experiment: Experiment, tmp_path: Path
) -> None:
    """FID and KID under their full names, flagged as from too few images; the reference's features are made once."""
    found = evaluate.extractors(["paper-float"], trusted, CPU)
    assert [(e.name, e.kernel) for e in found] == [("frechet_gabor", ""), ("fid_paper-float", "kid_paper-float")]
    scorer = evaluate.Scorer(experiment, digits, tmp_path, found[1:], CPU)
    originals = scorer.tests(6)
    features = {found[1].name: found[1].features(originals)}
    rows = {row["metric"]: row for row in scorer.distances("test", "direct", features, "test", 6)}
    assert rows["fid_paper-float"]["value"] == pytest.approx(0, abs=1e-3)
    assert rows["fid_paper-float"]["singular"]
    assert {row["reference"] for row in rows.values()} == {"test"}
    assert rows["kid_paper-float"]["n"] == 6
    (cached,) = tmp_path.glob("*.npz")
    before = cached.stat().st_mtime_ns
    scorer.distances("test", "tacos", features, "test", 6)
    assert [cached.stat().st_mtime_ns] == [path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")] == [before]
    diverged = {found[1].name: np.full((6, 2048), np.nan)}
    assert all(np.isnan(row["value"]) for row in scorer.distances("test", "naive", diverged, "test", 6))
    with pytest.raises(ColdbenchError, match=r"FID \(clean\) needs the folder of the Inception weights"):
        evaluate.extractors(["clean"], None, CPU)
