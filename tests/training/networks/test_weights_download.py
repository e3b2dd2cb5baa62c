"""Weights that are downloaded, through torch.hub's own code and file:// addresses."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import Tensor, nn

from tests.training.networks.test_weights import of_one_number, refused
from training.networks.registry import ARCHITECTURES, build_encoder, encoder_class
from training.networks.weights import WeightsError, initialise_from_imagenet, load_perceptual_network


def publish(monkeypatch: pytest.MonkeyPatch, *, url: str, hub: Path) -> None:
    def get_state_dict(**options: object) -> dict[str, Tensor]:
        return torch.hub.load_state_dict_from_url(url, **options)

    def get_weight(name: str) -> SimpleNamespace:
        assert name == "ResNet50_Weights.IMAGENET1K_V2"
        return SimpleNamespace(url=url, meta={"_file_size": 97.79}, get_state_dict=get_state_dict)

    monkeypatch.setattr(torchvision.models, "get_weight", get_weight)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(hub))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_torchvision_knows_every_name_we_ask_for(arch: str) -> None:
    entry = torchvision.models.get_weight(encoder_class(arch).published_weights)
    assert entry.url.startswith("https://") and entry.meta["_file_size"] > 10


def test_imagenet_is_downloaded_once(meta_resnet: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = of_one_number(meta_resnet)
    state["bn1.bias"] = torch.arange(64.0)
    served = tmp_path / "served.pth"
    torch.save(state, served)
    named = served.rename(tmp_path / f"resnet50-{hashlib.sha256(served.read_bytes()).hexdigest()[:8]}.pth")
    publish(monkeypatch, url=named.as_uri(), hub=tmp_path / "hub")
    for _ in range(2):
        network = load_perceptual_network("imagenet")
        assert torch.equal(network.trunk.conv1.conv.bias, torch.arange(64.0))
        named.unlink(missing_ok=True)
    cached = tmp_path / "hub" / "checkpoints" / named.name
    cached.write_bytes(cached.read_bytes()[:-1])
    message = refused("imagenet")
    assert message.startswith(f"{cached}: damaged or another file") and "delete it and try again" in message


def test_without_network_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = (tmp_path / "nowhere" / "resnet50-11ad3fa6.pth").as_uri()
    publish(monkeypatch, url=url, hub=tmp_path / "hub")
    message = refused("imagenet")
    assert f"fetch {url} (98 MB) elsewhere" in message
    assert f"put it into {tmp_path / 'hub' / 'checkpoints'} as resnet50-11ad3fa6.pth" in message
    assert message.endswith("or pass its path: --perceptual-weights PATH")
    with pytest.raises(WeightsError, match=r"or pass its path: --init PATH$"):
        initialise_from_imagenet(build_encoder("resnet50-gap"))


def test_a_download_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "resnet50-00000000.pth"
    torch.save({}, served)
    publish(monkeypatch, url=served.as_uri(), hub=tmp_path / "hub")
    assert "invalid hash value" in refused("imagenet")
    assert not list((tmp_path / "hub" / "checkpoints").iterdir())
