import torch

from training.networks.model import LocalizationModel
from training.sample_panel import sample_panel


def test_images_saliency_and_activation_maps_stand_above_each_other() -> None:
    torch.manual_seed(0)
    model = LocalizationModel("alexnet-gap", 3).eval()
    images = torch.rand(2, 3, 64, 80)
    labels = torch.tensor([2, 0])
    panel = sample_panel(model, images, labels)
    assert panel.shape == (3, 3 * 64, 2 * 80) and panel.dtype == torch.float32
    assert 0 <= panel.min() and panel.max() <= 1
    assert torch.equal(panel[:, :64, 80:], images[1])
    saliency = model(images).saliency
    assert saliency is not None
    torch.testing.assert_close(panel[0, 64:128, :80], saliency[0].detach())
    maps = model(images, cam_classes=labels[:, None]).activation_maps
    strongest = maps[0, 0].detach().clamp(min=0)
    row, column = divmod(int(strongest.argmax()), strongest.shape[1])
    tile = panel[0, 128:, :80]
    found_row, found_column = divmod(int(tile.argmax()), 80)
    assert abs((found_row + 0.5) / 64 - (row + 0.5) / strongest.shape[0]) <= 1 / strongest.shape[0]
    assert abs((found_column + 0.5) / 80 - (column + 0.5) / strongest.shape[1]) <= 1 / strongest.shape[1]


def test_without_a_decoder_there_is_no_saliency() -> None:
    model = LocalizationModel("alexnet-gap", 3, decoder=False).eval()
    assert sample_panel(model, torch.zeros(1, 3, 64, 64), torch.tensor([1])).shape == (3, 128, 64)
