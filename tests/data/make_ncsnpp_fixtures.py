"""Write ncsnpp_*.npz beside this file: what tests compare the network with, cut from larger fixtures.

Source: numbers computed with the published PSLD classes (arXiv 2303.01748, mandt-lab/PSLD) on CPU, torch 2.13.0, from
random weights, in float32 and float64; nothing here was computed by this project.

    python make_ncsnpp_fixtures.py PATH/TO/ncsnpp        (which holds layout_*.json and fixtures/)

ncsnpp_layouts.npz: for each configuration its fields (JSON), the keys of its state_dict in order and their shapes,
filled up with zeros. ncsnpp_fourier.npz and ncsnpp_positional.npz: a network of 0.2 million parameters, states, times
and outputs; its parameters are one after the other in the order of the keys, as the four planes of the bytes of
float32, which compress better. ncsnpp_ops.npz: single operations.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
LAYOUTS = ("cifar10", "cifar10_ablation_out6", "cifar10_ablation_out3")
NETWORKS = {"fourier": "net_a_fourier_fir_biggan", "positional": "net_b3_positional_nofir_biggan"}
OPERATIONS = (
    *(f"{name}_1331" for name in ("upsample_2d", "downsample_2d", "conv_downsample_2d")),
    *("x", "conv_w", "naive_upsample", "naive_downsample", "ramp", "ramp_up", "ramp_down", "t", "fourier_W"),
    *(f"{name}_float{bits}" for name in ("fourier_embed_of_log_t", "positional_embed_dim16") for bits in (32, 64)),
    *("attn_x", "attn_out"),
)


def padded(shapes: list[list[int]]) -> np.ndarray:
    """(number, 4), zeros after each shape."""
    return np.array([shape + [0] * (4 - len(shape)) for shape in shapes], dtype=np.int16)


def main(source: Path) -> None:
    """Cut the fixtures below `source` down."""
    kept = {}
    for name in LAYOUTS:
        content = json.loads((source / f"layout_{name}.json").read_text())
        kept[f"{name}/config"] = np.array(json.dumps(content["config"] | {"image_size": content["image_size"]}))
        kept[f"{name}/keys"] = np.array([key for key, _ in content["layout"]])
        kept[f"{name}/shapes"] = padded([shape for _, shape in content["layout"]])
    np.savez_compressed(HERE / "ncsnpp_layouts.npz", **kept)

    for name, file in NETWORKS.items():
        with np.load(source / "fixtures" / f"{file}.npz") as large:
            keys = large["param_names"]
            parameters = np.concatenate([large[f"param/{key}"].ravel() for key in keys]).astype("<f4")
            kept = {key: large[key][:2] for key in ("x", "t", "out32", "out64")}
            kept |= {"config": large["config"], "keys": keys}
            kept["shapes"] = padded([list(large[f"param/{key}"].shape) for key in keys])
            kept["planes"] = np.ascontiguousarray(parameters.view(np.uint8).reshape(-1, 4).T)
        np.savez_compressed(HERE / f"ncsnpp_{name}.npz", **kept)

    with np.load(source / "fixtures" / "ops.npz") as large:
        names = [*OPERATIONS, *(name for name in large.files if name.startswith("attn/"))]
        np.savez_compressed(HERE / "ncsnpp_ops.npz", **{name: large[name] for name in names})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
