#!/usr/bin/env bash
# Exponents of float64 by `torch.frexp`, compiled for a CPU with AVX2.
#
# One would expect: `torch.compile` compiles what runs without it.
# What happens: an InductorError. The exponents, int32, become a vector of one register, what is computed with them a
#   vector of two, as those of float64 are, and the C++ that Inductor writes does not compile. For AVX-512 it does.
# Seen with torch 2.13.0 and 2.14.1, 2026-11-28.
#
# Needs an x86 processor, a C++ compiler, a network and three minutes; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==${TORCH:-2.13.0}" numpy setuptools

cd "$folder"
cat >exponents.py <<'PYTHON'
import torch
import torch._inductor.config as config

config.cpp.simdlen = 256  # AVX2, on newer processors too


def missing_bits(x):
    return 47 - torch.frexp(x).exponent


x = torch.rand(1000, dtype=torch.float64)
print("without compiling:", missing_bits(x)[:4].tolist())
try:
    torch.compile(missing_bits)(x)
except Exception as error:
    reason = next((line.partition("error: ")[2] for line in str(error).splitlines() if "error: " in line), "")
    print(f"{type(error).__name__}: {reason}")
else:
    raise SystemExit("it compiles")
PYTHON
TORCHINDUCTOR_CACHE_DIR=$folder/cache "$folder/venv/bin/python" exponents.py | tee out.txt
grep -q "no match for .*operator-" out.txt
