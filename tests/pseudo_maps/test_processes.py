import subprocess
import sys

PROGRAM = """
import resource
import cv2
import numpy as np
from pseudo_maps.processes import prepare_worker_process

def faults():
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        np.ones(1 << 20, dtype=np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start

cv2.setNumThreads(2)
prepare_worker_process()
faults()
print(cv2.getNumThreads(), faults())
"""


def test_one_thread_and_memory_that_stays() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    threads, faults = map(int, done.stdout.split())
    assert threads == 1
    # Each of the 50 arrays of 4 MB has 1,024 pages, which are fetched anew when the memory was given back.
    assert faults < 1024
