import subprocess
import sys

import numpy as np
import pytest

from pseudo_maps.proposals.detectors import DETECTORS, detect_boundaries


@pytest.mark.parametrize("detector", [name for name, row in DETECTORS.items() if not row.needs_model])
def test_every_detector_without_a_model_gives_boundaries_of_an_image(detector: str) -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 15:] = 200
    boundaries = detect_boundaries(image, detector=detector)
    assert boundaries.step_x.shape == (20, 29) and boundaries.step_y.shape == (19, 30)
    assert boundaries.step_x[10].argmax() == 14 and not boundaries.step_y.any()


def test_names_and_configurations_load_neither_numba_nor_opencv() -> None:
    # Command lines build their options from them, and --help must be quick.
    program = (
        "import sys, pseudo_maps.config, pseudo_maps.proposals.methods\n"
        "print(sorted({'numba', 'cv2'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("detector", "model", "message"),
    [
        (
            "canny",
            None,
            r"boundaries: expected one of directed-sobel, spectral-contrast, structured-forest, found 'canny'",
        ),
        ("structured-forest", None, r"structured-forest needs a model file \(--boundary-model\)"),
        ("directed-sobel", "forest.yml", "directed-sobel takes no model file"),
        ("spectral-contrast", "forest.yml", "spectral-contrast takes no model file"),
    ],
)
def test_names_and_models_must_fit(detector: str, model: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detect_boundaries(np.zeros((9, 9, 3), np.uint8), detector=detector, model=model)
