#!/usr/bin/env bash
# The weights of silero-vad, which its package holds in several forms.
#
# One would expect: silero_vad_16k.safetensors to hold the network that load_silero_vad() opens, in a form that is easy
#   to load into a module of one's own.
# What happens: the ONNX files for 16 kHz hold one network (that of the TorchScript file, which load_silero_vad() opens),
#   the safetensors file another one. It has the same layers and shapes, but only the Fourier basis has the same
#   values, so it loads without a word and answers otherwise.
# Seen with silero-vad 6.2.3, onnx 1.23.2 and safetensors 0.8.0, 2026-11-28.
#
# Needs a network and half a minute; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-deps "silero-vad==${SILERO_VAD:-6.2.3}"
"$folder/venv/bin/pip" install --quiet "onnx==${ONNX:-1.23.2}" safetensors==0.8.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import files

import numpy as np
import onnx
from safetensors.numpy import load_file


def tensors(graph):
    """All constants of a graph and of the graphs within it."""
    for tensor in graph.initializer:
        yield onnx.numpy_helper.to_array(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield onnx.numpy_helper.to_array(attribute.t)
            if attribute.HasField("g"):
                yield from tensors(attribute.g)


data = {path.name: path.locate() for path in files("silero-vad") if "data" in path.parts}
weights = load_file(data["silero_vad_16k.safetensors"])
networks = {
    name: [tensor for tensor in tensors(onnx.load(data[name]).graph) if tensor.size > 1]
    for name in ("silero_vad.onnx", "silero_vad_16k_op15.onnx", "silero_vad_openvino_16k.onnx")
}


def held(tensor, others):
    return any(tensor.shape == other.shape and np.allclose(tensor, other, atol=1e-3) for other in others)


large = {name: tensor for name, tensor in weights.items() if tensor.size > 1}
same = {name: [key for key, tensor in large.items() if held(tensor, others)] for name, others in networks.items()}
for name, keys in same.items():
    print(f"{name} holds {len(keys)} of the {len(large)} tensors of silero_vad_16k.safetensors: {', '.join(keys)}")
recurrent = [tensor for tensor in networks["silero_vad_16k_op15.onnx"] if tensor.shape == (512, 128)]
agree = all(held(tensor, others) for tensor in recurrent for others in networks.values())
print(f"the ONNX files hold the same recurrent weights: {agree}")
sys.exit(not (agree and recurrent and all(keys == ["stft_conv.weight"] for keys in same.values())))
PYTHON
