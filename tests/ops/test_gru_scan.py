"""gru_scan against its definition in float64 and torch.nn.GRU, its gradients, and what it must refuse."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from task_aware import ops
from task_aware.ops import _extension

from .accuracy import check_gradients, error

if not _extension.extension.cpu:
    pytest.skip(f"no CPU kernels: {_extension.extension.cpu_absent}", allow_module_level=True)

# (B, T, D, H): one of everything, groups of every size, several groups, columns that fill no vector, one direction.
SHAPES = [
    *((1, 1, 1, 1), (2, 3, 2, 5), (3, 7, 2, 16), (5, 4, 1, 33), (7, 5, 2, 32), (8, 4, 2, 17), (9, 3, 1, 64)),
    *((21, 6, 2, 40), (1, 157, 2, 128), (5, 3, 1, 150)),
]
EMPTY = [(0, 3, 2, 4), (2, 0, 1, 4)]
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 2**-7}

Shape = tuple[int, int, int, int]


def sample_inputs(device: str, dtype: torch.dtype = torch.float32, shape: Shape = SHAPES[2]) -> list[Tensor]:
    B, T, D, H = shape
    generator = torch.Generator().manual_seed(B + T + H)
    gates = torch.randn((B, T, D, 3 * H), generator=generator) * 2
    weight = torch.randn((D, 3 * H, H), generator=generator) / H**0.5
    bias = torch.randn((D, 3 * H), generator=generator) / 2
    return [tensor.to(device, dtype) for tensor in (gates, weight, bias)]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [*SHAPES, *EMPTY], ids=str)
def test_values_and_gradients(device: str, dtype: torch.dtype, shape: Shape) -> None:
    leaves = [x.requires_grad_() for x in sample_inputs(device, dtype, shape)]
    doubles = [x.detach().cpu().double().requires_grad_() for x in leaves]
    out = ops.gru_scan(*leaves, backend="native")
    wanted = ops.gru_scan_reference(*doubles)
    assert out.dtype == dtype and out.shape == wanted.shape == (*shape[:3], shape[3])
    assert error(out, wanted.detach()) < TOLERANCE[dtype]
    check_gradients(out, leaves, wanted, doubles, 8 * TOLERANCE[dtype])


def test_gradcheck(device: str, kernels: str) -> None:
    """In random directions where each call takes long."""
    for shape in [(2, 3, 2, 5), (9, 2, 1, 3)]:
        inputs = [x.requires_grad_() for x in sample_inputs(device, torch.float64, shape)]
        function = partial(ops.gru_scan, backend="native")
        assert torch.autograd.gradcheck(function, inputs, fast_mode=kernels == "emulated")


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, True)])
def test_it_is_the_gru_of_torch(device: str, backend: ops.Backend, layers: int, bidirectional: bool) -> None:
    torch.manual_seed(0)
    module = nn.GRU(6, 5, layers, batch_first=True, bidirectional=bidirectional).double().to(device)
    x = torch.randn(3, 9, 6, dtype=torch.float64).to(device).requires_grad_()
    results = [module(x)[0], ops.gru(x, module, backend=backend)]
    torch.testing.assert_close(*results, rtol=0, atol=1e-13)
    leaves = (x, *module.parameters())
    grads = [torch.autograd.grad(result.square().sum(), leaves) for result in results]
    torch.testing.assert_close(*grads, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 9, 6), {"bias": False}),
        ((9, 3, 6), {"batch_first": False}),
        ((9, 6), {}),
        ((9, 6), {"batch_first": False, "bias": False, "bidirectional": True, "num_layers": 2}),
        ((9, 1, 6), {"batch_first": False, "num_layers": 2}),
        ((1, 9, 6), {"num_layers": 2, "dropout": 0.5}),
    ],
    ids=str,
)
def test_every_gru_is_read_as_torch_reads_it(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = nn.GRU(6, 5, **{"batch_first": True, **options}).double().eval()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    results = [module(x)[0], ops.gru(x, module)]
    torch.testing.assert_close(*results, rtol=0, atol=1e-13)
    leaves = (x, *module.parameters())
    torch.testing.assert_close(
        *(torch.autograd.grad(y.square().sum(), leaves) for y in results), rtol=1e-11, atol=1e-12
    )


def test_a_gru_compiles_as_one_graph() -> None:
    """Where Dynamo is told to accept a GRU at all."""
    module, x = nn.GRU(6, 5, 2, batch_first=True, bidirectional=True), torch.randn(3, 9, 6)
    leaves = list(module.parameters())
    with torch._dynamo.config.patch(allow_rnn=True):
        results = [
            function(x, module) for function in (torch.compile(ops.gru, fullgraph=True, backend="aot_eager"), ops.gru)
        ]
    grads = [torch.autograd.grad(result.square().sum(), leaves) for result in results]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*grads)


def test_float32_weights_with_bfloat16_gates(device: str) -> None:
    """As autocast has it."""
    gates, weight, bias = sample_inputs(device)
    out = ops.gru_scan(gates.bfloat16(), weight, bias, backend="native")
    wanted = ops.gru_scan_reference(*(x.cpu().double() for x in (gates.bfloat16(), weight, bias)))
    assert out.dtype == torch.bfloat16 and error(out, wanted) < TOLERANCE[torch.bfloat16]


def test_extreme_gates(device: str, kernels: str) -> None:
    """Gates that are shut keep the state or forget it, without overflow."""
    H = 16
    gates = torch.zeros(2, 4, 1, 3 * H)
    gates[0, :, :, H : 2 * H] = 1e4  # z = 1: the state stays 0
    gates[1, :, :, H : 2 * H] = -1e4  # z = 0: the state is n
    gates[1, :, :, 2 * H :] = torch.tensor([-1e4, -20.0, 20.0, 1e4])[:, None, None]
    gates = gates.to(device).requires_grad_()
    out = ops.gru_scan(gates, *(torch.zeros(size, device=device) for size in ((1, 3 * H, H), (1, 3 * H))))
    (grad,) = torch.autograd.grad(out.sum(), gates)
    tolerance = 0 if kernels == "cpu" else 2**-20  # of the special function unit
    assert out[0].abs().max() <= tolerance
    wanted = torch.tensor([-1.0, -1.0, 1.0, 1.0], device=device)
    torch.testing.assert_close(out[1, :, 0, 0], wanted, rtol=0, atol=tolerance)
    assert grad.isfinite().all()


def test_nan_spoils_its_item_from_its_frame_on(device: str) -> None:
    gates, weight, bias = sample_inputs(device)
    gates[1, 3, 0, 4] = torch.nan
    out = ops.gru_scan(gates, weight, bias, backend="native")
    assert out[1, 4:, 0].isnan().all() and out[1, 3, 0, 4].isnan()
    assert out[[0, 2]].isfinite().all() and out[1, :3].isfinite().all() and out[1, :, 1].isfinite().all()


def test_strided_views(device: str) -> None:
    gates, weight, bias = sample_inputs(device)
    view = gates.transpose(0, 1).contiguous().transpose(0, 1)
    strided = ops.gru_scan(view, weight.mT.contiguous().mT, bias.t().contiguous().t(), backend="native")
    assert torch.equal(strided, ops.gru_scan(gates, weight, bias, backend="native"))


@pytest.mark.parametrize("shape", [(21, 6, 2, 40), (6, 2, 2, 132)])
def test_a_batch_is_its_items(device: str, shape: Shape) -> None:
    """However many are carried together, and by however many threads."""
    gates, weight, bias = sample_inputs(device, shape=shape)
    together = ops.gru_scan(gates, weight, bias, backend="native")
    alone = torch.cat([ops.gru_scan(item[None], weight, bias, backend="native") for item in gates])
    assert torch.equal(together, alone)


def test_opcheck(device: str) -> None:
    inputs = [x.requires_grad_() for x in sample_inputs(device)]
    torch.library.opcheck(torch.ops.task_aware.gru_scan.default, inputs)


def test_compiles_as_one_graph(device: str) -> None:
    inputs = [x.requires_grad_() for x in sample_inputs(device)]
    compiled = torch.compile(ops.gru_scan, fullgraph=True, backend="aot_eager")
    results = [function(*inputs) for function in (compiled, ops.gru_scan)]
    grads = [torch.autograd.grad(result.square().sum(), inputs) for result in results]
    assert torch.equal(*results)
    torch.testing.assert_close(*grads)


@pytest.mark.gpu
def test_cuda_graph_repeats_the_same_bits() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU here")
    inputs = sample_inputs("cuda", shape=(10, 157, 2, 128))
    eager = ops.gru_scan(*inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.gru_scan(*inputs)
    for _ in range(3):
        graph.replay()
        assert torch.equal(captured, eager)


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"gates": torch.zeros(3, 7, 48)}, ValueError, r"gates is \[3,7,48\], expected \[B,T,D,3H\]"),
    ({"gates": torch.zeros(3, 7, 3, 48)}, ValueError, "with D 1 or 2"),
    ({"gates": torch.zeros(3, 7, 2, 47)}, ValueError, r"expected \[B,T,D,3H\]"),
    ({"weight": torch.zeros(2, 48, 15)}, ValueError, r"weight is \[2,48,15\], expected \[D,3H,H\] = \[2,48,16\]"),
    ({"bias": torch.zeros(48)}, ValueError, r"bias is \[48\], expected \[D,3H\] = \[2,48\]"),
    ({"gates": torch.zeros(3, 7, 2, 48, dtype=torch.int64)}, TypeError, "gates is torch.int64, expected float32"),
    ({"bias": torch.zeros(2, 48, device="meta")}, ValueError, "bias is on meta and gates is on cpu"),
    ({"backend": "fast"}, ValueError, "backend is 'fast'"),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED)
def test_refusals(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    arguments = dict(zip(("gates", "weight", "bias"), sample_inputs("cpu"), strict=True))
    with pytest.raises(kind, match=message):
        ops.gru_scan(**{**arguments, **change})


REFUSED_GRUS: list[tuple[tuple[int, ...], nn.Module, type[Exception], str]] = [
    (
        (3, 9, 4),
        nn.GRU(6, 5, batch_first=True),
        ValueError,
        r"x is \[3,9,4\], expected \[B,T,I\] or \[T,I\] with I = 6",
    ),
    ((2, 3, 9, 6), nn.GRU(6, 5), ValueError, r"x is \[2,3,9,6\], expected \[T,B,I\] or \[T,I\]"),
    ((6,), nn.GRU(6, 5), ValueError, r"x is \[6\], expected"),
    ((3, 9, 6), nn.LSTM(6, 5), TypeError, "layers is LSTM, expected a torch.nn.GRU"),
    ((3, 9, 6), nn.GRU(6, 5, 2, dropout=0.5), ValueError, "in training mode with a dropout of 0.5"),
]


@pytest.mark.parametrize(("shape", "layers", "kind", "message"), REFUSED_GRUS)
def test_a_gru_that_cannot_be_read_is_refused(
    shape: tuple[int, ...], layers: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        ops.gru(torch.zeros(shape), layers)


def test_packed_sequences_are_refused() -> None:
    packed: Any = nn.utils.rnn.pack_sequence([torch.zeros(9, 6)])
    with pytest.raises(TypeError, match="gru: x is PackedSequence, expected a torch.Tensor"):
        ops.gru(packed, nn.GRU(6, 5))
