"""Cases for the Triton kernels, run by test_kernels.py in a process of their own.

``python kernel_cases.py numbers`` runs them in Triton's interpreter, on CPU tensors (TRITON_INTERPRET=1 must be set);
``python kernel_cases.py compile`` translates them for GPUs, none of which need be there. Both print JSON.
"""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from vlkit.bench.exact import softmax_gradients
from vlkit.objectives.pairs.contrastive import kernels, tiles
from vlkit.objectives.pairs.contrastive.softmax import softmax_contrastive
from vlkit.types import Embeddings

SIZES = ((37, 150, 20), (130, 64, 96), (1, 1, 3))  # rows, columns, width: odd, one tile, several tiles, whole slices
SCALES = (1.0, 14.0, 100.0)
DTYPES = ("float32", "bfloat16", "float16")


def numbers() -> dict[str, dict[str, float]]:
    """Relative errors of each case against tiles.py in float64 on the same, rounded inputs."""
    torch.manual_seed(0)
    # Small blocks of weights, so that several of them meet.
    kernels._ROWS, kernels._COLS = 64, 96
    found = {
        f"{dtype} {M}x{N}x{D} scale {scale:g}{' ids' if with_ids else ''}": _errors(
            *_pairs(M, N, D, dtype), scale, with_ids
        )
        for dtype, (M, N, D), scale, with_ids in itertools.product(DTYPES, SIZES, SCALES, (False, True))
        if not (with_ids and M == 1)
    }
    image, _ = _pairs(40, 40, 20, "float32")
    one_direction = image[:1].expand(40, -1).contiguous()
    found["float32 opposite scale 100"] = _errors(one_direction, -one_direction, 100.0, False)
    found["float32 identical scale 100"] = _errors(one_direction, one_direction, 100.0, False)
    for dtype in DTYPES:
        found[f"{dtype} whole loss late in training"] = _late(dtype)
    return found


def _late(dtype: str) -> dict[str, float]:
    """Own pairs have probabilities near 1: what is left of 1 - p must not be lost when weights are rounded."""
    kernels.usable = lambda image_MD: True  # type: ignore[assignment]
    image, text = _pairs(70, 70, 24, dtype)
    text = F.normalize(0.1 * text.float() + image.float(), dim=1).to(text.dtype)
    leaves = (image.requires_grad_(), text.requires_grad_(), torch.tensor(20.0, requires_grad=True))
    softmax_contrastive(Embeddings(*leaves, None)).loss.backward()
    wanted = softmax_gradients(image.detach(), text.detach(), 20.0)
    off = [((x.grad.double() - y).norm() / y.norm()).item() for x, y in zip(leaves, wanted[:3], strict=True)]  # type: ignore[union-attr]
    return {"sums": 0.0, "pulls": max(off)}


def _pairs(M: int, N: int, D: int, dtype: str) -> tuple[Tensor, Tensor]:
    image = F.normalize(torch.randn(M, D), dim=1)
    text = F.normalize(0.3 * torch.randn(N, D) + image[torch.arange(N) % M], dim=1)
    return image.to(getattr(torch, dtype)), text.to(getattr(torch, dtype))


def _errors(image: Tensor, text: Tensor, scale: float, with_ids: bool) -> dict[str, float]:
    s = torch.tensor(scale)
    ids = (torch.arange(len(image)) % 30, torch.arange(len(text)) % 41) if with_ids else None
    fine = (image.double(), text.double(), s.double())
    wanted = tiles.log_sums(*fine, tile=64, ids=ids)
    got = kernels.log_sums(image, text, s, tile=64, ids=ids)
    pulls = tiles.gradients(*fine, wanted.row_lse_M, wanted.col_lse_N, tile=64, ids=ids)
    near = kernels.gradients(image, text, s, wanted.row_lse_M, wanted.col_lse_N, tile=64, ids=ids)
    return {
        "sums": max(((x - y).abs() / y.abs().clamp(min=1)).max().item() for x, y in zip(got, wanted, strict=True)),
        "pulls": max(((x - y).norm() / y.norm()).item() for x, y in zip(near, pulls, strict=True)),
    }


def compile_all() -> dict[str, dict[str, int]]:
    """Translates kernels for Hopper and Ampere; counts matrix instructions and shared memory."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from vlkit.objectives.pairs.contrastive.triton_kernels import tile_kernel

    found = {}
    cases = (
        ("sums", "bf16", 90),
        ("weights", "bf16", 90),
        ("weights", "bf16", 80),
        ("sums", "fp32", 90),
    )
    for (name, element, capability), ids in zip(cases, (True, True, False, False), strict=True):
        blocks = kernels._FOUR_BYTES if element == "fp32" else kernels._TWO_BYTES
        kernel: Any = tile_kernel
        pointer = f"*{element}"
        constants = {"BM": blocks.BM, "BN": blocks.BN, "BD": blocks.BD, "GROUP": 8, "IDS": ids, "EVEN": not ids}
        constants |= {"WIDEN": False, "SUMS": name == "sums"}
        types = {"image_MD": pointer, "text_ND": pointer, "scale": "fp32", "shift": "fp32"}
        types["out"] = "*fp32" if name == "sums" else pointer
        types |= dict.fromkeys(("row_id_M", "col_id_N"), "*i64" if ids else pointer)
        types |= dict.fromkeys(("row_M", "col_N"), "*fp32")
        types |= dict.fromkeys("MND", "i32") | dict.fromkeys(constants, "constexpr")
        aligned = {
            (place,): [["tt.divisibility", 16]] for place, key in enumerate(kernel.arg_names) if types[key][0] in "*i"
        }
        source = ASTSource(kernel, {key: types[key] for key in kernel.arg_names}, constants, aligned)
        options = {"num_warps": blocks.num_warps, "num_stages": blocks.num_stages}
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        ptx = made.asm["ptx"]
        found[f"{name} {element} sm_{capability}{' ids' if ids else ''}"] = {
            "matrix": ptx.count("wgmma.mma_async" if capability == 90 else "mma.sync"),
            "exponentials": ptx.count("ex2.approx"),
            "shared": made.metadata.shared,
        }
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"numbers": numbers, "compile": compile_all}[sys.argv[1]]()))
