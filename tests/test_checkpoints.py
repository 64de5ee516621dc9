"""Local test models, twins and users' folders: the same bytes in every process, refusals in one line."""

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assay import checkpoints, families, tensor_files
from assay.cache import cache_dir, entries
from assay.errors import UsageError


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASSAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def in_a_process(code: str, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"ASSAY_CACHE": str(cache)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)


ALL = """
import json
from assay import checkpoints, families
made = [checkpoints.local(name) for name in families.ORDER]
print(json.dumps({each.family: [each.sha256, checkpoints.twin(each).sha256] for each in made}))
"""


def test_two_processes_make_the_same_bytes(tmp_path: Path) -> None:
    runs = [in_a_process(ALL, tmp_path / name) for name in ("first", "second")]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    first, second = (json.loads(run.stdout.splitlines()[-1]) for run in runs)
    assert first == second
    assert len({digest for digests in first.values() for digest in digests}) == 20
    left, right = ({file.relative_to(tmp_path / name): file.read_bytes() for file in (tmp_path / name).rglob("*")
                    if file.is_file()} for name in ("first", "second"))  # fmt: skip
    assert left == right


def test_what_is_made_already_needs_no_torch() -> None:
    cached = checkpoints.local("bert")
    twin = checkpoints.twin(cached)
    code = (
        "import sys; from assay import checkpoints; made = checkpoints.local('bert'); "
        "twin = checkpoints.twin(made); checkpoints.opened('bert', made.path); "
        "assert not {'torch', 'transformers', 'safetensors'} & set(sys.modules); print(made.sha256, twin.sha256)"
    )
    run = in_a_process(code, cache_dir())
    assert run.stdout.split() == [cached.sha256, twin.sha256], run.stderr


def test_what_is_made_is_kept_and_using_it_shows() -> None:
    made = checkpoints.local("bert")
    twin = checkpoints.twin(made)
    kept = {each.path: each.kind for each in entries()}
    assert (kept[made.path], kept[twin.path]) == ("checkpoints", "twins")
    for each in (made, twin):
        os.utime(each.path, (1, 1))
    assert checkpoints.local("bert") == made
    assert {each.path for each in entries() if each.used == 1} == {twin.path}


def test_a_checkpoint_says_what_it_is() -> None:
    made = checkpoints.local("bert")
    assert (made.source, made.size, made.family) == ("local", "tiny", "bert")
    assert made.ref().model_dump() == {
        "sha256": made.sha256, "source": "local", "name": made.name, "revision": None,
    }  # fmt: skip
    assert made.config()["architectures"] == ["BertModel"]
    assert made.sha256 == checkpoints.digest(made.path)
    assert checkpoints.local("bert", seed=1).sha256 != made.sha256


def test_a_twin_differs_in_its_weights_alone() -> None:
    from safetensors.numpy import load_file

    made = checkpoints.local("sentence-embeddings")
    twin = checkpoints.twin(made)
    assert twin.sha256 != made.sha256
    files = {file.relative_to(made.path) for file in made.path.rglob("*") if file.is_file()}
    assert files == {file.relative_to(twin.path) for file in twin.path.rglob("*") if file.is_file()}
    for file in files - {Path("model.safetensors"), Path("assay.json")}:
        assert (made.path / file).read_bytes() == (twin.path / file).read_bytes()
    own, others = (load_file(each.path / "model.safetensors") for each in (made, twin))
    assert {name: array.shape for name, array in own.items()} == {name: array.shape for name, array in others.items()}
    assert all((array != others[name]).any() for name, array in own.items())
    assert checkpoints.twin(twin).sha256 not in (made.sha256, twin.sha256)


def save_raw(file: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> None:
    """A safetensors file of any types: name to (type, the bytes as an array)."""
    header, offset = {}, 0
    for name, (kind, array) in tensors.items():
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for _, array in tensors.values()))


def raw(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Name to type and bytes of every tensor of a folder."""
    found = {}
    for file in tensor_files.weight_files(folder):
        start, header = tensor_files.read_header(file)
        for name, entry in header.items():
            begin, end = (start + offset for offset in entry["data_offsets"])
            found[name] = (entry["dtype"], file.read_bytes()[begin:end])
    return found


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder as hubs hold them: bf16, f16, old names, tied copies, indices, a constant and a scalar."""
    import torch

    torch.manual_seed(0)
    matrix = torch.randn(6, 4)
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_raw(folder / "model.safetensors", {
        "bert.word.weight": ("BF16", matrix.bfloat16().view(torch.int16).numpy()),
        "decoder.weight": ("BF16", matrix.bfloat16().view(torch.int16).numpy()),
        "norm.gamma": ("F32", np.ones(5, np.float32)),
        "norm.beta": ("F16", torch.randn(5).half().numpy()),
        "position_ids": ("I64", np.arange(7)),
        "scale": ("F32", np.array(2.5, np.float32)),
        "double": ("F64", np.array([1 / 3, 2.0, 5.0])),
    })  # fmt: skip
    return folder


def test_floats_are_read_as_torch_casts_them(mixed: Path) -> None:
    from safetensors.torch import load_file

    expected = load_file(mixed / "model.safetensors")
    found = dict(tensor_files.tensors(mixed))
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        wanted = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        assert found[name].dtype == wanted.dtype
        np.testing.assert_array_equal(found[name], wanted)
    content = bytearray((mixed / "model.safetensors").read_bytes())
    start, header = tensor_files.read_header(mixed / "model.safetensors")
    content[start + header["bert.word.weight"]["data_offsets"][0]] ^= 1  # the last bit of a bf16
    (mixed / "model.safetensors").write_bytes(content)
    assert (dict(tensor_files.tensors(mixed))["bert.word.weight"] != found["bert.word.weight"]).sum() == 1


def test_a_type_that_no_model_computes_in_is_named(mixed: Path) -> None:
    save_raw(mixed / "model.safetensors", {"odd": ("F4", np.zeros(2, np.uint8))})
    with pytest.raises(UsageError, match="odd is of type F4"):
        dict(tensor_files.tensors(mixed))


def test_a_twin_has_the_file_s_own_names_types_and_numbers(mixed: Path) -> None:
    made = checkpoints.Checkpoint("bert", mixed, checkpoints.digest(mixed), "path", "mixed", "own")
    own, others = raw(mixed), raw(checkpoints.twin(made).path)
    assert {name: kind for name, (kind, _) in own.items()} == {name: kind for name, (kind, _) in others.items()}
    stay = {name for name in own if own[name] == others[name]}
    assert stay == {"norm.gamma", "position_ids", "scale"}  # one value each, and indices
    assert others["bert.word.weight"] == others["decoder.weight"]  # copies stay copies
    before = dict(tensor_files.tensors(mixed))
    for name, array in tensor_files.tensors(checkpoints.twin(made).path):
        np.testing.assert_array_equal(np.sort(array, axis=None), np.sort(before[name], axis=None))
    assert raw(checkpoints.twin(checkpoints.twin(made)).path)["decoder.weight"] != own["decoder.weight"]


def test_one_tensor_is_perturbed_with_its_copies_as_the_seed_says(mixed: Path) -> None:
    made = checkpoints.Checkpoint("bert", mixed, checkpoints.digest(mixed), "path", "mixed", "own")
    own, one = raw(mixed), raw(checkpoints.perturbed(made, "decoder.weight", "5eed").path)
    assert {name for name in own if own[name] != one[name]} == {"bert.word.weight", "decoder.weight"}  # one is a copy
    assert one["bert.word.weight"] == one["decoder.weight"]
    assert sorted(one["decoder.weight"][1]) == sorted(own["decoder.weight"][1])
    assert raw(checkpoints.perturbed(made, "decoder.weight", "0a").path)["decoder.weight"] != one["decoder.weight"]


def test_any_matrix_that_an_order_can_change_may_be_chosen(tmp_path: Path) -> None:
    save_raw(tmp_path / "model.safetensors", {
        "constant": ("F32", np.ones((3, 4), np.float32)), "bias": ("F32", np.arange(9, dtype=np.float32)),
        "indices": ("I64", np.arange(6).reshape(2, 3)), "left": ("F32", np.arange(64, dtype=np.float32).reshape(8, 8)),
        "kernel": ("F16", np.arange(64, dtype=np.float16).reshape(4, 4, 4)),
    })  # fmt: skip
    chosen = [checkpoints.chosen_tensor(tmp_path, f"{number:032x}") for number in range(40)]
    assert set(chosen) == {"left", "kernel"}
    assert chosen == [checkpoints.chosen_tensor(tmp_path, f"{number:032x}") for number in range(40)]


def test_a_model_without_a_matrix_is_refused(tmp_path: Path) -> None:
    save_raw(tmp_path / "model.safetensors", {"bias": ("F32", np.arange(9, dtype=np.float32))})
    with pytest.raises(UsageError, match="no matrix whose numbers differ"):
        checkpoints.chosen_tensor(tmp_path, "5eed")


def test_a_damaged_cache_is_made_again() -> None:
    made = checkpoints.local("llama", seed=3)
    weights = made.path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert checkpoints.digest(made.path) != made.sha256
    assert checkpoints.local("llama", seed=3) == made
    assert checkpoints.digest(made.path) == made.sha256


def test_builders_may_meet() -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: checkpoints.local("language-model", seed=4), range(4)))
    assert len(set(made)) == 1
    assert not [file for file in made[0].path.parent.iterdir() if file.name.startswith(".")]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown family 'brt'; did you mean bert"):
        checkpoints.local("brt")
    with pytest.raises(UsageError, match="unknown size 'huge'"):
        checkpoints.local("bert", "huge")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder that is fine, to be spoilt."""
    return Path(shutil.copytree(checkpoints.local("bert").path, tmp_path / "mine"))


def refusal(family: str, path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        checkpoints.opened(family, path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_good_folder_is_opened(folder: Path) -> None:
    opened = checkpoints.opened("bert", folder)
    assert (opened.source, opened.name, opened.sha256) == ("path", "mine", checkpoints.local("bert").sha256)


def test_folders_that_are_refused(folder: Path, tmp_path: Path) -> None:
    assert "no such folder" in refusal("bert", tmp_path / "absent")
    assert "not a folder" in refusal("bert", folder / "config.json")
    assert "LLAMA row takes LlamaForCausalLM" in refusal("llama", folder)
    config = folder / "config.json"
    plain = config.read_text()
    config.write_text(json.dumps(json.loads(plain) | {"quantization_config": {"quant_method": "gptq"}}))
    assert "quantised (gptq)" in refusal("bert", folder)
    config.write_text(plain)
    (folder / "model.safetensors").unlink()
    assert "no model.safetensors" in refusal("bert", folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    message = refusal("bert", folder)
    assert "pytorch_model.bin is a pickle" in message
    assert "safetensors" in message
    config.write_text(json.dumps({"architectures": ["BertModel"], "auto_map": {"AutoModel": "mine.Model"}}))
    assert "auto_map" in refusal("bert", folder)
    config.write_text("{")
    assert "not JSON" in refusal("bert", folder)
    config.write_text("[]")
    assert "not a JSON object" in refusal("bert", folder)
    config.unlink()
    assert "no config.json" in refusal("bert", folder)


def test_broken_weights_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for broken in (b"", b"abc", b"\x10" + bytes(7) + b"no header at all", struct.pack("<Q", 2) + b"[]", whole[:-4]):
        weights.write_bytes(broken)
        assert str(weights) in refusal("bert", folder)


def shard(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {name: f"model-0000{number % 2 + 1}-of-00002.safetensors" for number, name in enumerate(tensors)}
    for file in set(index.values()):
        save_file({name: tensors[name] for name in tensors if index[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def test_shards_have_the_digest_of_the_whole(folder: Path) -> None:
    whole = checkpoints.digest(folder)
    shard(folder)
    assert checkpoints.opened("bert", folder).sha256 == whole
    assert (
        checkpoints.twin(checkpoints.opened("bert", folder)).sha256
        == checkpoints.twin(checkpoints.local("bert")).sha256
    )
    twin = checkpoints.twin(replace(checkpoints.opened("bert", folder), sha256="0" * 64))
    names = {file.name for file in folder.glob("model*")}
    assert {file.name for file in twin.path.glob("model*")} == names and len(names) == 3
    next(iter(folder.glob("model-*.safetensors"))).unlink()
    assert "is not in the folder" in refusal("bert", folder)


def test_the_digest_follows_content_and_not_records(folder: Path) -> None:
    before = checkpoints.digest(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(dict(reversed(config.items())) | {"transformers_version": "0", "_name_or_path": "elsewhere"})
    )
    assert checkpoints.digest(folder) == before
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-5}))
    assert checkpoints.digest(folder) != before


def test_the_digest_follows_names_types_shapes_and_bytes(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    def digest_of(tensors: dict[str, np.ndarray]) -> str:
        (tmp_path / "config.json").write_text("{}")
        save_file(tensors, tmp_path / "model.safetensors")
        return checkpoints.digest(tmp_path)

    one = np.arange(6, dtype=np.float32)
    variants = [
        {"a": one}, {"b": one}, {"a": one.reshape(2, 3)}, {"a": one.view(np.int32)}, {"a": one + 1},
        {"a": one, "b": one},
    ]  # fmt: skip
    assert len({digest_of(each) for each in variants}) == len(variants)


def test_pooling_belongs_to_the_digest(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoints.local("sentence-embeddings").path, tmp_path / "mine"))
    before = checkpoints.digest(folder)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert checkpoints.digest(folder) != before


def test_every_family_loads_its_own_local_model_and_refuses_that_of_another() -> None:
    for name in ("bert", "llama", "t5"):
        assert checkpoints.opened(name, checkpoints.local(name).path).sha256 == checkpoints.local(name).sha256
    assert "row takes" in refusal("t5", checkpoints.local("llama").path)
    assert families.load("bert").id == "bert"
