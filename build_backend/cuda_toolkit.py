"""Whether, with which nvcc and for which architectures the CUDA kernels are built."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Machine code of 8.0 for A100, L4 and GeForce 30 and 40, of 9.0 for H100, of 12.0 for GeForce 50. PTX of 9.0 for the
# rest, B200 among them: a driver compiles PTX for its own architecture or a newer one, so that of 12.0 would not do.
DEFAULT_ARCHITECTURES = ("8.0", "9.0+PTX", "12.0")
OLDEST_NVCC = (12, 0)  # the first that compiles C++20


class BuildError(SystemExit):
    """Ends the build with one sentence."""

    def __init__(self, sentence: str) -> None:
        super().__init__(f"task_aware: {sentence}")


@dataclass(frozen=True)
class CudaPlan:
    """What to do about CUDA: with ``nvcc`` None, ``absent`` says why it is not built."""

    nvcc: Path | None
    version: str = ""
    architectures: str = ""
    absent: str = ""


def find_nvcc(environment: Mapping[str, str]) -> Path | None:
    """nvcc in CUDA_HOME, else on PATH."""
    home = environment.get("CUDA_HOME")
    if home:
        candidate = Path(home) / "bin" / "nvcc"
        if candidate.is_file():
            return candidate
    found = shutil.which("nvcc", path=environment.get("PATH", ""))
    return Path(found) if found else None


def parse_architectures(text: str) -> list[str]:
    """TORCH_CUDA_ARCH_LIST ("8.0;9.0+PTX", separated by ; , or spaces) as CMake writes architectures.

    "9.0" becomes "90-real"; "9.0+PTX" becomes "90", which is machine code and PTX.
    """
    result = []
    for item in re.split(r"[;,\s]+", text.strip()):
        match = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", item)
        if match is None:
            raise BuildError(f"TORCH_CUDA_ARCH_LIST holds {item!r}, expected numbers such as '8.0;9.0+PTX'.")
        result.append(f"{match[1]}{match[2]}{match[3]}{'' if match[4] else '-real'}")
    return result


def nvcc_version(nvcc: Path) -> str:
    """ "13.0" for CUDA 13.0; raises :class:`ValueError` with a clause that says what is wrong."""
    try:
        answer = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"{nvcc} does not run ({error})") from error
    found = re.search(r"release (\d+)\.(\d+)", answer.stdout)
    if answer.returncode != 0 or found is None:
        raise ValueError(f"{nvcc} --version fails")
    if (int(found[1]), int(found[2])) < OLDEST_NVCC:
        oldest = ".".join(map(str, OLDEST_NVCC))
        raise ValueError(f"{nvcc} is of CUDA {found[1]}.{found[2]} and {oldest} or newer is needed")
    return f"{found[1]}.{found[2]}"


def check_compiles(nvcc: Path) -> None:
    """Compile an empty C++20 kernel; raises :class:`ValueError` with nvcc's first complaint."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cu"
        source.write_text("#include <vector>\n__global__ void probe() {}\n")
        command: list[str | Path] = [nvcc, "-std=c++20", "-c", source, "-o", Path(folder) / "probe.o"]
        answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode != 0:
        complaint = (answer.stderr or answer.stdout).strip().splitlines() or ["no message"]
        first = next((line for line in complaint if "error" in line), complaint[0])
        raise ValueError(f"{nvcc} cannot compile an empty kernel ({first.strip()})")


def known_architectures(nvcc: Path) -> set[str]:
    """Those that this nvcc compiles for, such as "90"; empty where it does not say."""
    answer = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True)
    return set(re.findall(r"compute_(\d+)", answer.stdout))


def default_architectures(known: set[str]) -> str:
    """The defaults that this nvcc knows; GeForce 50 came with CUDA 12.8."""
    wanted = [item for item in DEFAULT_ARCHITECTURES if item != "12.0" or "120" in known]
    return ";".join(wanted)


def check_architectures(nvcc: Path, known: set[str], architectures: list[str]) -> None:
    """Every architecture must be one that this nvcc knows."""
    unknown = [a for a in architectures if known and re.match(r"\d+", a)[0] not in known]  # type: ignore[index]
    if unknown:
        wanted = ", ".join(f"{a[:-1]}.{a[-1]}" for a in sorted(known, key=int))
        raise BuildError(
            f"TORCH_CUDA_ARCH_LIST asks for sm_{unknown[0].removesuffix('-real')}, which {nvcc} lacks; "
            f"choose among {wanted}."
        )


def plan_cuda(environment: Mapping[str, str]) -> CudaPlan:
    """Read TASK_AWARE_CUDA (auto, 0, 1), TORCH_CUDA_ARCH_LIST, CUDA_HOME and PATH."""
    wish = environment.get("TASK_AWARE_CUDA", "auto").strip().lower() or "auto"
    if wish not in ("auto", "0", "1"):
        raise BuildError(f"TASK_AWARE_CUDA is {wish!r}, expected auto, 0 or 1.")
    if wish == "0":
        return CudaPlan(None, absent="TASK_AWARE_CUDA=0")
    nvcc = find_nvcc(environment)
    if nvcc is None:
        if wish == "1":
            raise BuildError(
                "TASK_AWARE_CUDA=1 asks for the CUDA kernels, but there is no nvcc in CUDA_HOME or on PATH; "
                "install the CUDA toolkit, or leave TASK_AWARE_CUDA unset to build without them."
            )
        return CudaPlan(None, absent="no nvcc in CUDA_HOME or on PATH")
    try:
        version = nvcc_version(nvcc)
        check_compiles(nvcc)
    except ValueError as error:
        if wish == "1":
            raise BuildError(f"TASK_AWARE_CUDA=1 asks for the CUDA kernels, but {error}.") from error
        return CudaPlan(None, absent=str(error))
    known = known_architectures(nvcc)
    text = environment.get("TORCH_CUDA_ARCH_LIST", "").strip() or default_architectures(known)
    check_architectures(nvcc, known, parse_architectures(text))
    return CudaPlan(nvcc, version, ";".join(re.split(r"[;,\s]+", text)))
