"""FID through its library: with a stand-in network against our own distance, with Inception's layers, and what is
refused. The tests need the extra (it is part of `dev`): they fail where it is missing, they are not skipped.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import Tensor
from weakorder.verification.cifar10.model.data import to_unit
from weakorder.verification.cifar10.study import fid as module
from weakorder.verification.cifar10.study.fid import Fid, fid, find_weights, load_library, to_uint8
from weakorder.verification.cifar10.study.frechet import Moments, frechet_distance

STAND_IN = "weakorder-test-stand-in"


def some_images(count: int, seed: int) -> np.ndarray:
    """Random uint8 (count, 3, 32, 32), another mean and spread for each seed."""
    values = np.random.default_rng(seed).normal(100 + 20 * seed, 30 + 10 * seed, (count, 3, 32, 32))
    return np.clip(values, 0, 255).astype(np.uint8)


def _fits() -> bool:
    """Whether torchvision can be imported: a CUDA build, which PyPI has, cannot beside a torch without CUDA."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        return False
    return True


def _stand_in_torchvision() -> dict[str, ModuleType]:
    """What torch-fidelity imports of torchvision: data sets and transforms of files, which an FID of arrays skips."""
    names = ("", ".datasets", ".transforms", ".transforms.functional")
    found = {f"torchvision{name}": ModuleType(f"torchvision{name}") for name in names}
    found["torchvision"].__path__ = []
    found["torchvision"].transforms = found["torchvision.transforms"]
    found["torchvision.transforms"].functional = found["torchvision.transforms.functional"]
    for name in ("CIFAR10", "CIFAR100", "STL10"):
        setattr(found["torchvision.datasets"], name, type(name, (), {}))
    return found


@pytest.fixture(scope="module")
def library() -> Iterator[ModuleType]:
    """torch-fidelity, with a small fixed convolution registered as a feature extractor."""
    with pytest.MonkeyPatch.context() as patch:
        if not _fits():
            for name, stand_in in _stand_in_torchvision().items():
                patch.setitem(sys.modules, name, stand_in)
        found = importlib.import_module("torch_fidelity")

        class StandIn(found.FeatureExtractorBase):
            def __init__(self, name: str, features_list: list[str], **_: object) -> None:
                super().__init__(name, features_list)
                self.weight = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(1)) / 8

            @staticmethod
            def get_provided_features_list() -> tuple[str, ...]:
                return ("6",)

            @staticmethod
            def get_default_feature_layer_for_metric(metric: str) -> str:
                return "6"

            @staticmethod
            def can_be_compiled() -> bool:
                return False

            def forward(self, images: Tensor) -> tuple[Tensor]:
                assert images.dtype == torch.uint8
                weight = self.weight.to(images.device)
                return (torch.relu(torch.conv2d(images.float() / 128 - 1, weight)).mean((2, 3)),)

        if STAND_IN not in found.registry.FEATURE_EXTRACTORS_REGISTRY:
            found.register_feature_extractor(STAND_IN, StandIn)
        yield found


def own_distance(library: ModuleType, samples: np.ndarray, data: np.ndarray) -> float:
    """The distance of the stand-in's features by cifar10.study.frechet."""
    network = library.registry.FEATURE_EXTRACTORS_REGISTRY[STAND_IN](STAND_IN, ["6"])
    return frechet_distance(*(Moments.of_samples(network(torch.from_numpy(x))[0].numpy()) for x in (samples, data)))


def test_the_librarys_distance_is_ours(library: ModuleType) -> None:
    """Both take the same float32 features; the library sums their means in float32, in n steps, which no difference of
    the means below is spared: 2 |difference| sqrt(6) n 2^-24 |mean| at worst."""
    samples, data = some_images(150, 1), some_images(200, 2)
    found = fid(samples, data, extractor=STAND_IN)
    assert found.value == pytest.approx(own_distance(library, samples, data), rel=1e-6)
    assert found.value != pytest.approx(own_distance(library, samples + np.uint8(1), data), rel=1e-4)
    assert fid(data, data, extractor=STAND_IN).value == pytest.approx(0, abs=1e-6 * found.value)


def test_another_number_of_images_comes_with_a_warning(
    library: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = some_images(20, 2)
    assert "10 samples against 20 images" in str(fid(data[:10], data, extractor=STAND_IN).warning)
    assert "20 samples against 10 images" in str(fid(data, data[:10], extractor=STAND_IN).warning)
    monkeypatch.setattr(module, "PROTOCOL", 20)
    assert fid(data, data, extractor=STAND_IN).warning is None
    assert capsys.readouterr() == ("", "")


def test_the_datas_statistics_are_kept_for_the_same_data_alone(library: ModuleType, tmp_path: Path) -> None:
    samples, data, other = some_images(30, 1), some_images(30, 2), some_images(30, 3)
    first = fid(samples, data, extractor=STAND_IN, cache=tmp_path)
    kept = sorted(tmp_path.iterdir())
    assert [path.name.split("-stat-")[1] for path in kept] == ["fid-6.pt"]  # and not the features
    statistics = torch.load(kept[0], weights_only=False)
    assert fid(samples, data, extractor=STAND_IN, cache=tmp_path) == first
    torch.save(statistics | {"mu": statistics["mu"] + 1}, kept[0])  # it is read: another file, another answer
    assert fid(samples, data, extractor=STAND_IN, cache=tmp_path).value > first.value + 1
    assert fid(samples, other, extractor=STAND_IN, cache=tmp_path) == fid(samples, other, extractor=STAND_IN)


@pytest.mark.nightly
def test_inceptions_layers_run_with_the_weights_of_the_file(
    library: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With random weights in place of the published ones: what is tested is the path, not the number."""
    inception = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    extractor = inception.FeatureExtractorInceptionV3
    with monkeypatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(extractor, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        network = extractor("x", ["2048"])
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    with pytest.raises(ValueError, match=r"weights\.pth' has SHA-256 .* Inception's 6726825d"):
        find_weights(path)
    monkeypatch.setattr(module, "WEIGHTS_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    samples, data = some_images(3, 1), some_images(4, 3)
    found = fid(samples, data, path)
    moments = [Moments.of_samples(network(torch.from_numpy(x))[0].numpy()) for x in (samples, data)]
    own = frechet_distance(*moments)
    # The library takes square roots of all 2,048 eigenvalues, of which 2,046 are roundings of |C_1 C_2| 2^-53.
    traces = [float((m.factor**2).sum()) for m in moments]
    assert found.value == pytest.approx(own, rel=1e-5, abs=2 * 2048 * np.sqrt(traces[0] * traces[1] * 2.0**-52))


def test_bytes_are_truncated_not_rounded() -> None:
    x = np.array([[-2.0, -1.0, 0.0, 2 * 200.999 / 255 - 1, 1.0, 3.0]])
    assert to_uint8(x).tolist() == [[0, 0, 127, 200, 255, 255]]
    assert to_uint8(torch.tensor(x, dtype=torch.float32)).tolist() == [[0, 0, 127, 200, 255, 255]]
    every = np.arange(256, dtype=np.uint8).reshape(1, -1)
    lost = every - to_uint8(to_unit(every))
    assert set(lost.ravel().tolist()) <= {0, 1}  # one less where pixel / 127.5 - 1 was rounded down
    many = np.linspace(-1, 1, 3 * 2500).reshape(2500, 3)  # more than a block
    assert np.array_equal(to_uint8(many), np.floor(255 * (many / 2 + 0.5)))
    with pytest.raises(ValueError, match="not finite"):
        to_uint8(np.array([[np.nan]]))


@pytest.mark.parametrize(
    "images",
    [some_images(1, 1), some_images(3, 1).astype(np.float32), some_images(3, 1)[0], some_images(3, 1)[:, :1]],
    ids=["one", "float", "flat", "grey"],
)
def test_what_are_no_images_is_refused(images: np.ndarray) -> None:
    good = some_images(3, 1)
    for pair in ((images, good), (good, images)):
        with pytest.raises(ValueError, match="give uint8") as caught:
            fid(*pair)
        assert "\n" not in str(caught.value)


def test_the_network_runs_where_it_is_told(library: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = list[object]()

    @contextmanager
    def current(device: torch.device) -> Iterator[None]:
        chosen.append(device)
        yield
        chosen.append("back")

    def calculate(**options: object) -> dict[str, float]:
        chosen.append(options["cuda"])
        return {library.KEY_METRIC_FID: 0.0}

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", current)
    monkeypatch.setattr(library, "calculate_metrics", calculate)
    images, gpu = some_images(2, 1), torch.device("cuda", 1)
    for device in (None, torch.device("cpu"), gpu):
        fid(images, images, extractor=STAND_IN, device=device)
    assert chosen == [False, False, gpu, True, "back"]


def test_a_missing_extra_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match=r"pip install 'weakorder\[fid\]'") as caught:
        fid(some_images(2, 1), some_images(2, 1))
    assert "\n" not in str(caught.value)


def test_a_torchvision_for_another_torch_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(module.importlib, "import_module", broken)
    monkeypatch.setattr(module.metadata, "version", lambda name: "0.28.0+cu130")
    with pytest.raises(
        ValueError, match=r"does not fit torch .*pip install torchvision==0\.28\.0 --index-url"
    ) as caught:
        load_library()
    assert "\n" not in str(caught.value)


def test_missing_weights_without_a_network_are_said_in_one_line(
    library: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for path, message in ((None, "cannot be fetched .*Name or service"), (tmp_path / "none.pth", "there is no file")):
        with pytest.raises(ValueError, match=rf"{message}.*https://.*6726825d\.pth") as caught:
            fid(some_images(2, 1), some_images(2, 1), path)
        assert "\n" not in str(caught.value)


def test_fetched_weights_are_checked_and_kept(
    library: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched: list[str] = []

    def fetch(url: str, place: str, sha256: str, progress: bool) -> None:
        fetched.append(url)
        Path(place).write_bytes(b"weights")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match="has SHA-256"):
        find_weights()
    monkeypatch.setattr(module, "WEIGHTS_SHA256", hashlib.sha256(b"weights").hexdigest())
    assert find_weights().read_bytes() == b"weights"
    assert len(fetched) == 1
    assert isinstance(fid(some_images(2, 1), some_images(2, 2), extractor=STAND_IN), Fid)  # needs none of them
