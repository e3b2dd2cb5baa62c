"""Loads a batch through a worker after this process used the threads of OpenCV: ``... FOLDER`` prints the batches."""

import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pseudo_maps.records import ImageRecord
from training.config import CropConfig
from training.data.loading import TrainingImages
from training.data.sampling import EpochSampler
from training.data.workers import WorkerLoader

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    Image.fromarray(np.zeros((80, 80, 3), dtype=np.uint8)).save(folder / "a.png")
    cv2.setNumThreads(4)
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), dtype=np.float32), (0, 0), 5)
    records = [ImageRecord(image_id="a", path="a.png", label=0)]
    images = TrainingImages(records, root=folder, crop=CropConfig(input_size=64, resize=73), seed=0)
    print(len(list(WorkerLoader(images, EpochSampler(1, 1, seed=0), workers=1, persistent=True))))
