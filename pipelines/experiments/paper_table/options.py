"""Options of ``wsol-train`` and ``wsol-eval`` that ``wsol-pipeline table`` passes on."""

from collections.abc import Mapping

from pipelines.cli.eval_options import RUN_OPTIONS
from pipelines.cli.options import Option, options_by_key
from pipelines.cli.train_options import TRAIN_OPTIONS

_OWN = (
    *("data", "layout", "maps", "out", "arch", "method", "no-map-loss", "no-triplet-loss", "pooling", "seed"),
    *("device", "resume"),
)
_OF_EVERY_EVALUATION = ("boxes", "blacklist", "limit", "bootstrap-samples", "jobs")
NETWORK_KEYS = ("precision", "workers")
"""Keys of ``EVALUATION_OPTIONS`` that mean something for networks alone."""
TRAINING_OPTIONS: Mapping[str, Option] = options_by_key(TRAIN_OPTIONS, but=_OWN)
"""Options of ``wsol-train``, by key; the others the table sets itself."""
EVALUATION_OPTIONS: Mapping[str, Option] = {
    key: option for key, option in options_by_key(RUN_OPTIONS).items() if key in (*_OF_EVERY_EVALUATION, *NETWORK_KEYS)
}
"""Options of ``wsol-eval run``, by key; where ``wsol-train`` has one too, it means the same."""
