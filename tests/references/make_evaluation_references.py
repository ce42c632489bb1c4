"""Writes ``tests/data/evaluation.json``: figures of torch-fidelity on features made of a seed.

Run it where torch-fidelity is installed, which galatea itself does not need:

    python tests/references/make_evaluation_references.py
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from evaluation_features import CASES, logits, pair  # noqa: E402 - it lies beside this folder


def main() -> None:
    """Computes and writes everything."""
    found: dict[str, Any] = {"torch-fidelity": version("torch-fidelity")}
    for name in CASES:
        real, synthetic = map(torch.from_numpy, pair(name))
        statistics = [fid_features_to_statistics(x) for x in (real, synthetic)]
        n = min(len(real), len(synthetic))
        kernel = kid_features_to_metric(
            real[:n], synthetic[:n], kid_subsets=1, kid_subset_size=n, rng_seed=0, verbose=False,
            kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None,
            kid_kernel_poly_coef0=1,
        )  # fmt: skip
        manifold = prc_features_to_metric(
            synthetic, real, prc_neighborhood=5, prc_batch_size=1000, verbose=False,
            save_cpu_ram=False,
        )  # fmt: skip
        found[name] = {
            "fd": fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"],
            "kid": kernel["kernel_inception_distance_mean"],
            "precision": manifold["precision"],
            "recall": manifold["recall"],
        }
    score = isc_features_to_metric(torch.from_numpy(logits()), splits=10, shuffle=False)
    found["is"] = [score["inception_score_mean"], score["inception_score_std"]]
    found["inception_layout"] = layout()
    text = json.dumps(found, indent=1, default=float) + "\n"
    (TESTS / "data" / "evaluation.json").write_text(text)
    np.testing.assert_equal(json.loads(text)["torch-fidelity"], version("torch-fidelity"))


def layout() -> str:
    """sha256 of the names and shapes of torch-fidelity's Inception, sorted."""
    make, FeatureExtractorInceptionV3.load_state_dict = (
        FeatureExtractorInceptionV3.load_state_dict, lambda *_: None,
    )  # fmt: skip
    load, torch.load = torch.load, lambda *_, **__: {}
    try:
        network = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path="x")
    finally:
        FeatureExtractorInceptionV3.load_state_dict, torch.load = make, load
    lines = sorted(f"{key} {list(value.shape)}" for key, value in network.state_dict().items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


if __name__ == "__main__":
    main()
