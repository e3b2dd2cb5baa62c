import pytest
import torch

from tests.command_calls import start_python
from training.networks.model import LocalizationModel
from training.networks.registry import ARCHITECTURES
from training.networks.without_values import without_values


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_nothing_has_values_and_no_number_is_drawn(arch: str) -> None:
    before = torch.get_rng_state()
    with without_values():
        network = LocalizationModel(arch, 3)
    assert {value.device.type for value in network.state_dict().values()} == {"meta"}
    assert torch.equal(torch.get_rng_state(), before)
    assert LocalizationModel("alexnet-gap", 3).classifier.linear.weight.std() > 0, "as before, afterwards"


def test_a_network_is_built_without_the_compiler_of_torch() -> None:
    program = (
        "import sys\n"
        "from training.networks.registry import ARCHITECTURES\n"
        "from training.networks.model import LocalizationModel\n"
        "from training.networks.without_values import without_values\n"
        "with without_values():\n"
        "    networks = [LocalizationModel(arch, 3) for arch in ARCHITECTURES]\n"
        "print([name for name in ('torch', 'torch._dynamo') if name in sys.modules])\n"
    )
    process = start_python("-c", program)
    output, _ = process.communicate()
    assert (process.returncode, output) == (0, "['torch']\n")
