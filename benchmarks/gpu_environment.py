"""`python -m benchmarks.gpu_environment`: prints the environment of a check on a GPU, and what is missing in it."""

from __future__ import annotations

import argparse
import importlib.util
import platform
import shutil
import sys
from collections.abc import Sequence

#: Required modules, and the names to install them by where these differ.
NEEDED = {
    **dict.fromkeys(("torch", "torchaudio", "numpy", "soundfile", "filelock", "sed_eval", "lightning"), ""),
    **dict.fromkeys(("safetensors", "matplotlib", "tensorboard", "tqdm", "scipy", "librosa", "pybind11"), ""),
    **dict.fromkeys(("pytest", "hypothesis"), ""),
    "jsonargparse": "jsonargparse[signatures]",
    "yaml": "pyyaml",
    "pkg_resources": "setuptools<82",
    "pytest_benchmark": "pytest-benchmark",
}

#: Programs that the build requires.
PROGRAMS = ("cmake", "ninja")

#: Optional modules.
OPTIONAL = {"xdist": "pytest-xdist", "torchmetrics": "", "asteroid": "", "torch_audiomentations": "", "triton": ""}


def missing(modules: dict[str, str]) -> list[str]:
    """Names of the missing modules, as they are installed."""
    return [name or module for module, name in modules.items() if importlib.util.find_spec(module) is None]


def torch_lines() -> list[str]:
    """Describes versions, the GPU, the use of TF32, and the dtype of a recurrent layer under autocast."""
    import torch

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    lines = [
        f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn.version()}",
        f"TF32 by default: cuDNN {cudnn.allow_tf32}, matrix products {matmul.allow_tf32}",
    ]
    if not torch.cuda.is_available():
        return [*lines, "torch finds no GPU"]
    properties = torch.cuda.get_device_properties(0)
    layer = torch.nn.GRU(8, 8).cuda()
    with torch.autocast("cuda", torch.bfloat16):
        dtype = layer(torch.zeros(2, 1, 8, device="cuda"))[0].dtype
    return [
        *lines,
        f"{properties.name}, sm_{properties.major}{properties.minor}, {properties.total_memory / 2**30:.0f} GiB, "
        f"{properties.multi_processor_count} SMs, L2 cache {properties.L2_cache_size / 2**20:.0f} MiB",
        f"torch.nn.GRU under autocast to bfloat16 returns {dtype}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_environment", description=__doc__)
    parser.add_argument("--gpu", action="store_true", help="fail if torch finds no GPU or something is missing")
    options = parser.parse_args(arguments)
    lacking = missing(NEEDED) + [program for program in PROGRAMS if shutil.which(program) is None]
    print(f"Python {platform.python_version()} in {sys.prefix}")
    print(f"missing, required: {', '.join(lacking) or 'nothing'}")
    print(f"missing, optional: {', '.join(missing(OPTIONAL)) or 'nothing'}")
    lines = [] if "torch" in lacking else torch_lines()
    print("\n".join(lines))
    return 1 if options.gpu and (lacking or "torch finds no GPU" in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
