#!/usr/bin/env bash
# An operator with a formula for the backward (torch.library.register_autograd, custom_op's register_autograd), and
# its derivative in forward mode.
#
# One would expect: an error, as torch.autograd.Function without `jvp` raises it, or the derivative.
# What happens: torch.func.jvp says that the derivative is zero, and a dual number comes out without its tangent;
#   neither warns. If the input also requires a gradient, forward_ad does raise the error that one would expect in all cases.
# Seen with torch 2.13.0 (CPU) and 2.14.1, 2026-11-27.
#
# Needs a network and about three minutes; exits with status 1 if this is no longer the case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==${TORCH:-2.13.0}" numpy

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch.autograd import forward_ad


@torch.library.custom_op("finding::square", mutates_args=())
def square(x: torch.Tensor) -> torch.Tensor:
    return x * x


def setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def backward(ctx, grad):
    return 2 * ctx.saved_tensors[0] * grad


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * x


torch.library.register_autograd("finding::square", backward, setup_context=setup_context)
x, one = torch.tensor(3.0), torch.tensor(1.0)


def tangent(function, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(x, one))).tangent


def error(function, x):
    try:
        return f"no error, but {tangent(function, x)}"
    except NotImplementedError as error:
        return str(error)


x_with_grad = x.clone().requires_grad_()
square(x_with_grad).backward()
by_jvp = torch.func.jvp(square, (x,), (one,))[1]
print(f"torch {torch.__version__}; the square at 3, whose derivative is 6:")
print(f"  backward                                 {x_with_grad.grad}")
print(f"  torch.func.jvp of x * x                  {torch.func.jvp(lambda x: x * x, (x,), (one,))[1]}")
print(f"  torch.func.jvp of the operator           {by_jvp}")
print(f"  forward_ad of the operator               {tangent(square, x)}")
print(f"  the same where x requires a gradient     {error(square, x.clone().requires_grad_())}")
print(f"  forward_ad of an autograd.Function       {error(Square.apply, x)}")
as_described = x_with_grad.grad == 6 and by_jvp == 0 and tangent(square, x) is None
print("as described" if as_described else "no longer as described")
sys.exit(not as_described)
PYTHON
