"""Discriminating weights: the same bytes everywhere, of the size that keeps activations in range."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay import families
from assay.weights import local_weights, uniform


def test_numbers_are_fixed_for_ever() -> None:
    """Bits of Philox and two float32 operations: nothing here may depend on a library's version."""
    found = uniform(0, "encoder.weight", (5,), 0.0, 1.0)
    assert found.dtype == np.float32
    assert found.tobytes().hex() == FIXED


FIXED = "2d562b3f98f0debd4c567a3e509d503de5cc253f"


@given(st.integers(0, 2**64), st.text(max_size=20), st.lists(st.integers(0, 7), max_size=3))
def test_numbers_are_within_their_range(seed: int, name: str, shape: list[int]) -> None:
    found = uniform(seed, name, tuple(shape), 1.0, 0.1)
    assert found.shape == tuple(shape)
    assert (np.abs(found - 1) <= np.float32(0.1) + 1e-6).all()


def test_seed_and_name_both_count() -> None:
    draws = [uniform(seed, name, (1000,), 0.0, 1.0) for seed in (0, 1) for name in ("a", "b")]
    for index, left in enumerate(draws):
        assert left.mean() == pytest.approx(0, abs=0.06)
        assert left.std() == pytest.approx(3**-0.5, abs=0.03)
        for right in draws[:index]:
            assert abs(np.corrcoef(left, right)[0, 1]) < 0.12


def weights_of(name: str, seed: int = 0) -> dict[str, np.ndarray]:
    import transformers

    family = families.load(name)
    with torch.device("meta"):
        model = getattr(transformers, family.auto_class).from_config(family.config("tiny"))
    return local_weights(model, seed)


@pytest.mark.parametrize("name", families.ORDER)
def test_every_tensor_varies(name: str) -> None:
    weights, others = weights_of(name), weights_of(name, seed=1)
    assert set(weights) == set(others)
    for key, array in weights.items():
        assert np.isfinite(array).all()
        if array.dtype.kind == "f":
            assert array.dtype == np.float32
            assert (array != others[key]).any(), key
            assert array.ndim < 2 or array.std() > 0


def test_tied_weights_are_stored_once() -> None:
    assert "lm_head.weight" not in weights_of("language-model")
    assert {"shared.weight"} == {name for name in weights_of("t5") if "shared" in name or "embed_tokens" in name}
    assert "lm_head.weight" in weights_of("llama")


def test_kinds_of_tensors() -> None:
    clap, wav2vec2, t5 = weights_of("clap"), weights_of("wav2vec2"), weights_of("t5")
    assert (clap["audio_model.audio_encoder.batch_norm.running_var"] > 0.8).all()
    assert clap["audio_model.audio_encoder.batch_norm.num_batches_tracked"] == 0
    index = clap["audio_model.audio_encoder.layers.0.blocks.0.attention.self.relative_position_index"]
    assert (index.dtype, index.min(), index.max()) == (np.int64, 0, 224)
    np.testing.assert_array_equal(clap["text_model.embeddings.position_ids"], np.arange(66)[None])
    assert clap["logit_scale_a"].shape == ()
    prefix = "wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight."
    length, direction = wav2vec2[f"{prefix}original0"], wav2vec2[f"{prefix}original1"]
    np.testing.assert_allclose(length, np.linalg.norm(direction, axis=(0, 1), keepdims=True), rtol=0.15)
    query, key = (t5[f"encoder.block.0.layer.0.SelfAttention.{which}.weight"].std() for which in "qk")
    assert key / query == pytest.approx(4, rel=0.1)


def test_integer_buffers_do_not_depend_on_memory() -> None:
    first, second = weights_of("clap"), weights_of("clap", seed=5)
    for name, array in first.items():
        if array.dtype.kind != "f":
            np.testing.assert_array_equal(array, second[name])


def test_drawing_needs_no_torch() -> None:
    code = "import sys, assay.weights as w; w.uniform(0, 'a', (3,), 0.0, 1.0); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
