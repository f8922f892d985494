"""Weights in files: sharding, shared tensors, types, and everything that can be wrong with them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from vlkit.errors import VlkitError
from vlkit.models.weights import INDEX, WEIGHTS, assign_weights, read_weights, write_weights


class Odd(nn.Module):
    """Tied weights, a view, a persistent and a computed buffer, a scalar, integers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight
        self.scale = nn.Parameter(torch.tensor(1.2345678))
        self.register_buffer("window", torch.arange(12.0).view(4, 3)[1:3])
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("positions", torch.arange(5.0), persistent=False)


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[n], other[n]) and one[n].dtype == other[n].dtype for n in one
    )


@pytest.mark.parametrize("shard_bytes", [1 << 30, 300, 1])
def test_written_is_read(tmp_path, shard_bytes) -> None:
    model = Odd()
    write_weights(model, tmp_path, shard_bytes=shard_bytes)
    assert same(read_weights(tmp_path), state_of(model))
    assert (tmp_path / WEIGHTS).exists() == (shard_bytes == 1 << 30) != (tmp_path / INDEX).exists()


def test_shards_hold_to_their_size_and_the_index_is_that_of_transformers(tmp_path) -> None:
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    write_weights(model, tmp_path, shard_bytes=600)
    index = json.loads((tmp_path / INDEX).read_text())
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == sorted(set(index["weight_map"].values())) == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert index["metadata"]["total_size"] == 4 * (64 + 8) * 4
    for file in files:
        held = load_file(tmp_path / file)
        assert sum(tensor.nbytes for tensor in held.values()) <= 600
        assert all(index["weight_map"][name] == file for name in held)


def test_shared_tensors_are_written_once_and_stay_shared(tmp_path) -> None:
    write_weights(Odd(), tmp_path)
    with safe_open(tmp_path / WEIGHTS, framework="pt") as file:
        assert "second.weight" not in file.keys()  # noqa: SIM118
    other = Odd()
    assign_weights(other, read_weights(tmp_path))
    assert other.second.weight is other.first.weight
    assert len(list(other.parameters())) == 3


def test_a_view_does_not_drag_its_storage_along(tmp_path) -> None:
    model = nn.Linear(4, 4, bias=False)
    model.weight = nn.Parameter(torch.randn(1000, 4)[:4])
    write_weights(model, tmp_path)
    assert (tmp_path / WEIGHTS).stat().st_size < 1000
    assert torch.equal(read_weights(tmp_path)["weight"], model.weight)


def test_computed_buffers_are_not_written_and_keep_value_and_type(tmp_path) -> None:
    model = Odd()
    write_weights(model, tmp_path, dtype=torch.float16)
    other = Odd()
    assign_weights(other, read_weights(tmp_path), dtype=torch.bfloat16)
    assert other.first.weight.dtype == torch.bfloat16
    assert other.positions.dtype == torch.float32 and torch.equal(other.positions, torch.arange(5.0))


def test_stored_type_is_for_floating_tensors_and_not_for_scalars(tmp_path) -> None:
    model = Odd()
    write_weights(model, tmp_path, dtype=torch.bfloat16)
    read = read_weights(tmp_path)
    assert read["first.weight"].dtype == read["window"].dtype == torch.bfloat16
    assert torch.equal(read["scale"], model.scale) and read["count"].dtype == torch.int64


def test_assigning_keeps_what_is_frozen_and_the_mode(tmp_path) -> None:
    write_weights(Odd(), tmp_path)
    other = Odd().eval()
    other.first.requires_grad_(False)
    assign_weights(other, read_weights(tmp_path))
    assert not other.first.weight.requires_grad and other.scale.requires_grad and not other.training


def test_loaded_weights_can_be_trained_without_touching_the_file(tmp_path) -> None:
    write_weights(Odd(), tmp_path)
    before = (tmp_path / WEIGHTS).read_bytes()
    model = Odd()
    assign_weights(model, read_weights(tmp_path))
    with torch.no_grad():
        model.first.weight.add_(1)
    assert (tmp_path / WEIGHTS).read_bytes() == before


def test_what_is_no_tensor_or_has_no_values_is_refused(tmp_path) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"steps": 3}

        def set_extra_state(self, state: dict[str, int]) -> None:
            pass

    with pytest.raises(
        VlkitError, match="cannot save '_extra_state': it is a dict, and a model folder holds tensors only"
    ):
        write_weights(Extra(2, 2), tmp_path)
    with pytest.raises(VlkitError, match="cannot save 'weight': it is on the meta device and has no values"):
        write_weights(nn.Linear(2, 2, device="meta"), tmp_path)


def test_names_and_shapes_must_be_the_models() -> None:
    model = nn.Linear(3, 2)
    state = {"weight": torch.zeros(2, 4), "wieght": torch.zeros(2, 3)}
    with pytest.raises(VlkitError) as error:
        assign_weights(model, state, where="runs/a/model")
    assert str(error.value) == (
        "runs/a/model does not fit the model its spec describes: 1 tensors are missing (bias); 1 are not of this model "
        "(wieght); weight is [2, 4] and should be [2, 3]. Its files do not belong together; copy or save it again"
    )


def test_missing_weights(tmp_path) -> None:
    with pytest.raises(
        VlkitError, match=r"no weights in .*: neither model.safetensors nor model.safetensors.index.json"
    ):
        read_weights(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_truncated_weights(tmp_path, keep) -> None:
    write_weights(Odd(), tmp_path)
    path = tmp_path / WEIGHTS
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(VlkitError, match=r"cannot read .*model.safetensors: .*; the file is damaged: copy it again"):
        read_weights(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": ["b"]}}', "\x00"])
def test_damaged_index(tmp_path, text) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(VlkitError, match=r"cannot read .*index.json: .*; the file is damaged"):
        read_weights(tmp_path)


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/passwd", "weights.bin"])
def test_an_index_cannot_point_elsewhere(tmp_path, file) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(VlkitError, match="which is no safetensors file beside it; do not trust this folder"):
        read_weights(tmp_path)


def test_a_missing_shard_is_named(tmp_path) -> None:
    write_weights(Odd(), tmp_path, shard_bytes=100)
    (gone := sorted(tmp_path.glob("model-00002*"))[0]).unlink()
    with pytest.raises(VlkitError, match=f"names {gone.name}, which is not there; copy the model folder again"):
        read_weights(tmp_path)


@pytest.mark.parametrize("shared", ["{", "[1]", '{"a": ["w"]}'])
def test_a_damaged_note_on_shared_tensors(tmp_path, shared) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / WEIGHTS, metadata={"shared": shared})
    with pytest.raises(VlkitError, match="the note on shared tensors is damaged"):
        read_weights(tmp_path)


def test_a_full_disk_is_one_clear_error(tmp_path) -> None:
    code = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from vlkit.errors import VlkitError\n"
        "from vlkit.files import atomic_folder\n"
        "from vlkit.models.weights import write_weights\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    with atomic_folder(Path(sys.argv[1]) / 'm') as folder:\n"
        "        write_weights(torch.nn.Linear(64, 64), folder)\n"
        "except VlkitError as error:\n"
        "    print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert out.startswith(f"cannot write {tmp_path / 'm'}: File too large; free some space or choose a place ")


def test_numbers_of_another_kind_are_no_weights() -> None:
    model = torch.nn.Linear(2, 2)
    state = {"weight": torch.ones(2, 2, dtype=torch.int8), "bias": torch.zeros(2)}
    with pytest.raises(VlkitError, match=r"weight is of torch\.int8 and should be of torch\.float32"):
        assign_weights(model, state)
