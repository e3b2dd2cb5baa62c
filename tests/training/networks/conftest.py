"""Networks that several tests read the state of."""

import pytest
import torch
from torch import nn


@pytest.fixture(scope="module")
def meta_resnet() -> nn.Module:
    import torchvision

    with torch.device("meta"):
        return torchvision.models.resnet50(weights=None)
