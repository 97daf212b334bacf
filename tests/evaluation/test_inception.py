"""FID's features against clean-fid's computation from image files, with random weights in place of the true ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from cases import METADATA, sampled, untrained
from PIL import Image

from coldbench.core import config
from coldbench.core.errors import ColdbenchError, MissingFile
from coldbench.core.experiment import Experiment
from coldbench.core.files import sha256
from coldbench.core.images import to_uint8
from coldbench.evaluation.evaluator import Evaluator
from coldbench.evaluation.metrics import inception, weights
from coldbench.evaluation.metrics.extractors import GABOR, extractors
from coldbench.evaluation.metrics.frechet import Statistics, frechet_distance

inception_pytorch = pytest.importorskip("cleanfid.inception_pytorch")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of random weights for the PyTorch port."""
    folder = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception_pytorch, "load_state_dict_from_url", lambda *_, **__: {})
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
    """The same folder, whose file counts as the true one."""
    known = dataclasses.replace(weights.PORT, sha256=sha256(port / weights.PORT.name))
    monkeypatch.setattr(weights, "PROTOCOLS", {"paper-float": known, "legacy_pytorch": known})
    values = torch.load(port / weights.PORT.name, weights_only=True)
    monkeypatch.setattr(inception_pytorch, "load_state_dict_from_url", lambda *_, **__: values)
    return port


def images(channels: int = 3) -> torch.Tensor:
    """Smooth images whose values leave [0, 1] at both ends."""
    coarse = torch.rand(3, channels, 6, 6, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=32, mode="bicubic") * 1.2 - 0.1


def test_paper_float_is_the_port_on_floats(trusted: Path) -> None:
    """Enlarged without antialiasing, values outside [0, 1] stay, and grey counts as three channels."""
    x, extract = images(), inception.extractor("paper-float", trusted, CPU)
    features = extract(x)
    network = inception_pytorch.InceptionV3(output_blocks=[3], resize_input=False).eval()
    with torch.inference_mode():
        large = torch.nn.functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
        expected = network(large)[0][:, :, 0, 0].numpy()
    assert features.shape == (3, 2048)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(extract(images(1)), extract(images(1).repeat(1, 3, 1, 1)))


def test_legacy_pytorch_is_clean_fid_on_files(trusted: Path, tmp_path: Path) -> None:
    from cleanfid import features as cleanfid_features
    from cleanfid import fid

    x = images()
    for index, image in enumerate(to_uint8(x).permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    model = cleanfid_features.build_feature_extractor("legacy_pytorch", CPU, use_dataparallel=False)
    files = sorted(map(str, tmp_path.glob("*.png")))
    options: dict[str, Any] = {"num_workers": 0, "batch_size": 3, "device": CPU, "verbose": False}
    expected = fid.get_files_features(files, model, mode="legacy_pytorch", **options)
    features = inception.extractor("legacy_pytorch", trusted, CPU)(x)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    floats = inception.extractor("paper-float", trusted, CPU)(x)
    assert np.abs(features - floats).max() > 1e-3 * np.abs(floats).max(), "8 bits and clipping make a difference"


def test_eight_bit_images_are_those_that_torchvision_writes(tmp_path: Path) -> None:
    from torchvision.utils import save_image

    x = images()[0]
    save_image(x, tmp_path / "a.png")
    written = torch.from_numpy(np.array(Image.open(tmp_path / "a.png"))).permute(2, 0, 1)
    difference = to_uint8(x).int() - written
    assert difference.abs().max() <= 1
    assert (difference != 0).float().mean() < 1e-3, "only halves may be rounded the other way"


REFUSALS: list[tuple[Callable[[Path, Path], object], type[ColdbenchError], str]] = [  # call, error, offending key
    (lambda port, folder: weights.check("clean", folder), MissingFile, r"inception-2015-12-05.pt does not exist"),
    (lambda port, folder: weights.check("paper-float", port), ColdbenchError, r"SHA-256 \w{12}…, not 6726825d0af5…"),
    (lambda port, folder: weights.check("cleen", folder), ColdbenchError, "'cleen': did you mean 'clean'"),
    (lambda port, folder: extractors(["clean"], None, CPU), ColdbenchError, r"FID \(clean\) needs the folder"),
]


@pytest.mark.parametrize(("call", "error", "names"), REFUSALS)
def test_wrong_weights_are_refused(
    port: Path, tmp_path: Path, call: Callable[[Path, Path], object], error: type[ColdbenchError], names: str
) -> None:
    with pytest.raises(error, match=names):
        call(port, tmp_path)


def test_download_is_complete_or_leaves_nothing(port: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A right file stays and is not downloaded again."""
    source = port / weights.PORT.name

    def offer(**changes: str) -> None:
        offered = dataclasses.replace(weights.PORT, **{"url": source.as_uri(), **changes})
        monkeypatch.setattr(weights, "PROTOCOLS", {"paper-float": offered})

    offer()
    with pytest.raises(ColdbenchError, match=r"cannot download .* put it into .* and set inception="):
        weights.fetch("paper-float", tmp_path)
    assert not list(tmp_path.iterdir())
    offer(sha256=sha256(source))
    path = weights.fetch("paper-float", tmp_path)
    assert path.read_bytes() == source.read_bytes()
    offer(sha256=sha256(source), url="file:///nowhere/at/all")
    assert weights.fetch("paper-float", tmp_path) == path
    path.write_bytes(b"damaged")
    with pytest.raises(ColdbenchError, match="cannot download"):
        weights.fetch("paper-float", tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_every_protocol_of_the_configuration_has_weights() -> None:
    assert set(weights.PROTOCOLS) == set(get_args(config.Fid))


def test_scores_carry_the_protocol_in_their_names(
    trusted: Path, few_digits: Path, experiment: Experiment, tmp_path: Path
) -> None:
    """FID and KID, marked as singular. The features in the cache are those of the originals."""
    features = extractors(["paper-float"], trusted, CPU)
    assert [(each.name, each.kernel) for each in features] == [(GABOR.name, ""), ("fid_paper-float", "kid_paper-float")]
    model = untrained(tmp_path / "model.safetensors", experiment)
    manifest = sampled(tmp_path, model, few_digits, images=4, methods=["direct"])
    scores = Evaluator(manifest, few_digits, tmp_path / "features", features[1:], CPU).evaluate(METADATA)
    rows = {(score.method, score.metric): score for score in scores}
    fid, kid = rows["direct", "fid_paper-float"], rows["direct", "kid_paper-float"]
    assert (fid.singular, fid.reference, kid.reference, fid.n, kid.n) == (True, "test", "test", 4, 4)
    assert fid.low < fid.value < fid.high
    (cached,) = (tmp_path / "features").glob("fid_paper-float-*.npz")
    with np.load(cached) as stored:
        originals, target = stored["features"], Statistics(stored["mean"], stored["covariance"], int(stored["n"]))
    assert frechet_distance(Statistics.of(originals), target) == pytest.approx(0, abs=1e-3)
