"""The folder of a training run: checkpoints, lock and metrics log."""
