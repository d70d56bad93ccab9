"""Golden files: inputs of a model's networks and what torch answered, for machines that have no torch to ask."""

from __future__ import annotations

import zipfile

import numpy as np

from sgrocc.inference.engine import Engine
from sgrocc.inference.manifest import ModelManifest

#: Of outputs with many rows, one for each Gaussian or of the lattice, every n-th is kept.
_EVERY = 8


def difference_of(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a share of the largest value that was expected; NaN where something is no number."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-6))


def golden_arrays(network: str, inputs: dict[str, np.ndarray], answers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of one example for the file; network: `expert` or `fusion`."""
    kept = {f"{network}/input/{name}": array for name, array in inputs.items()}
    return kept | {f"{network}/output/{name}": _rows(array) for name, array in answers.items()}


def golden_differences(manifest: ModelManifest, network: str, engine: Engine) -> dict[str, float]:
    """How far an engine's answer is from torch's, by output: see `difference_of`.

    Raises ValueError where the model brings no example of that network, or none that can be read.
    """
    if manifest.golden_path is None:
        raise ValueError(f"the model {manifest.name} has no golden file: export it again")
    try:
        with np.load(manifest.golden_path, allow_pickle=False) as file:
            inputs = {name: file[f"{network}/input/{name}"] for name in manifest.networks()[network].inputs}
            expected = {name: file[f"{network}/output/{name}"] for name in manifest.networks()[network].outputs}
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{manifest.golden_path} has no example of the {network}: export the model again") from error
    answer = engine.infer(inputs)
    return {name: difference_of(_rows(answer[name]), array) for name, array in expected.items()}


def _rows(array: np.ndarray) -> np.ndarray:
    return array[:, ::_EVERY] if array.shape[1] > 1 else array
