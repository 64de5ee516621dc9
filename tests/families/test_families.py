"""Every family: inputs, masks, outputs, how much its local test model shows, metrics, refusals."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.trial.mutants import skip
from transformers import AutoTokenizer

from assay import checkpoints, families
from assay.checkpoints import Checkpoint
from assay.errors import UsageError
from assay.families.base import Family, Tensors, settings, text, texture, waveform
from assay.families.generation import GeneratingFamily
from assay.families.rates import rate
from assay.families.sentence_embeddings import Pooling, SentenceEmbeddings
from assay.schema import Metric, Workload

LATENCY = Metric(value=0.1, unit="s", low=0.05, high=0.2, samples=30)


@pytest.fixture(scope="session")
def module(family: Family, checkpoint: Checkpoint) -> torch.nn.Module:
    return family.load(checkpoint.path)


def run(module: torch.nn.Module, inputs: Tensors) -> dict[str, np.ndarray]:
    dtype = next(module.parameters()).dtype
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    with torch.no_grad():
        return {name: tensor.numpy() for name, tensor in module(**tensors).items()}


def drawn(family: Family, checkpoint: Checkpoint, workload: Workload, seed: int = 0) -> dict[str, np.ndarray]:
    return family.inputs(checkpoint.config(), workload, np.random.default_rng(seed))


def change(found: Tensors, before: Tensors) -> float:
    """The largest relative change of an output."""
    return max(float(np.linalg.norm(found[name] - before[name]) / np.linalg.norm(before[name])) for name in before)


def padded(family: Family) -> Workload | None:
    return next((workload for workload in family.challenges if workload.padded), None)


def test_there_are_ten() -> None:
    assert families.names()[:10] == families.ORDER


EXTENTS = {"length": "length", "decoder_length": "decoder_length", "samples": "seconds"}


def test_no_challenge_has_the_shape_of_the_export(family: Family) -> None:
    axes = {name for axes in family.dynamic.values() for name in axes.values()}
    extents = ["batch", *(extent for axis, extent in EXTENTS.items() if axis in axes)]
    assert family.sample.batch >= 2
    for workload in (family.measured, *family.challenges):
        assert all(getattr(workload, extent) != getattr(family.sample, extent) for extent in extents)
    masked = "attention_mask" in family.dynamic
    assert family.sample.padded == masked
    assert any(workload.padded for workload in family.challenges) == masked


def test_inputs_are_fresh_and_can_be_made_again(family: Family, checkpoint: Checkpoint) -> None:
    for workload in (family.sample, family.measured, *family.challenges):
        first, again, other = (drawn(family, checkpoint, workload, seed) for seed in (7, 7, 8))
        assert set(first) == set(family.dynamic)
        for name, array in first.items():
            np.testing.assert_array_equal(array, again[name])
            assert array.dtype in (np.int64, np.float32)
            assert array.shape[0] == workload.batch
        assert any((array != other[name]).any() for name, array in first.items() if name != "attention_mask")
        if workload.padded:
            assert 0 in first["attention_mask"]


def test_challenges_run_and_are_finite(family: Family, checkpoint: Checkpoint, module: torch.nn.Module) -> None:
    for workload in family.challenges:
        inputs = drawn(family, checkpoint, workload)
        outputs = run(module, inputs)
        assert tuple(outputs) == family.outputs
        masks = family.masks(inputs)
        assert set(masks) <= set(outputs)
        for name, array in outputs.items():
            assert np.isfinite(array).all()
            if name in masks:
                assert masks[name].shape == array.shape[:-1]
                assert masks[name].dtype == bool


def test_what_is_padded_does_not_matter(family: Family, checkpoint: Checkpoint, module: torch.nn.Module) -> None:
    workload = padded(family)
    if workload is None:
        assert family.masks({}) == {}
        return
    inputs = drawn(family, checkpoint, workload)
    before = run(module, inputs)
    other = inputs | {"input_ids": np.where(inputs["attention_mask"] == 1, inputs["input_ids"], 3)}
    assert (other["input_ids"] != inputs["input_ids"]).any()
    after, masks = run(module, other), family.masks(inputs)
    for name in before:
        keep = masks.get(name, ...)
        np.testing.assert_allclose(after[name][keep], before[name][keep], rtol=0, atol=1e-5)


def test_outputs_follow_every_input(family: Family, checkpoint: Checkpoint, module: torch.nn.Module) -> None:
    inputs, other = (drawn(family, checkpoint, family.challenges[-1], seed) for seed in (0, 1))
    before = run(module, inputs)
    for name in family.dynamic:
        assert change(run(module, inputs | {name: other[name]}), before) > 1e-2, name


def test_float64_agrees_with_float32(family: Family, checkpoint: Checkpoint, module: torch.nn.Module) -> None:
    inputs = drawn(family, checkpoint, family.challenges[1])
    exact = run(family.load(checkpoint.path, attention="eager").double(), inputs)
    assert all(array.dtype == np.float64 for array in exact.values())
    assert change(run(module, inputs), exact) < 1e-4


# Tensors of which a part has little effect by the architecture's own making: X-CLIP's message tokens are equal
# before the first layer has mixed them, and CLAP's position tables only tilt a softmax over 64 positions.
BLIND = ("message_attn", "relative_position_bias_table")


def test_a_zeroed_head_shows(family: Family, checkpoint: Checkpoint) -> None:
    module = family.load(checkpoint.path, attention="eager").double()
    inputs = drawn(family, checkpoint, family.challenges[1])
    before = run(module, inputs)
    for name, parameter in module.named_parameters():
        if parameter.ndim < 2 or any(part in name for part in BLIND):
            continue
        original = parameter.data.clone()
        parameter.data[: max(1, len(parameter) // 4)] = 0
        assert change(run(module, inputs), before) > 1e-2, name
        parameter.data.copy_(original)


LAYERS = {
    "bert": "encoder.layer",
    "clip": "vision_model.encoder.layers",
    "llama": "model.layers",
    "t5": "decoder.block",
    "wav2vec2": "wav2vec2.encoder.layers",
    "whisper": "model.encoder.layers",
    "xclip": "vision_model.encoder.layers",
    "clap": "text_model.encoder.layer",
    "sentence-embeddings": "encoder.layer",
    "language-model": "transformer.h",
}


def test_a_skipped_layer_shows(family: Family, checkpoint: Checkpoint, module: torch.nn.Module) -> None:
    inputs = drawn(family, checkpoint, family.challenges[1])
    before = run(module, inputs)
    layers = module.get_submodule(f"model.{LAYERS[family.id]}")
    for layer in layers:
        with skip(layer):
            assert change(run(module, inputs), before) > 0.1


def test_inputs_import_neither_torch_nor_transformers(tmp_path: Path) -> None:
    for name in families.ORDER:
        (tmp_path / f"{name}.json").write_text(json.dumps(checkpoints.local(name).config()))
    code = """
import json, sys, numpy
from pathlib import Path
from assay import checkpoints, families
from assay.challenge import Challenges
for name in families.names():
    file = Path(sys.argv[1]) / f"{name}.json"
    if file.is_file():
        dict(Challenges(families.load(name), json.loads(file.read_text()), "seed").shapes())
heavy = {"torch", "transformers", "PIL", "safetensors", "tokenizers"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "config", "shapes"),
    [
        ("bert", {}, {"input_ids": (1, 16)}),
        ("clip", {"text_config": {"eos_token_id": 2}, "vision_config": {}}, {"pixel_values": (1, 3, 224, 224)}),
        ("whisper", {"num_mel_bins": 128}, {"input_features": (1, 128, 3000)}),
        ("xclip", {"vision_config": {"num_frames": 16}}, {"pixel_values": (1, 16, 3, 224, 224)}),
        ("clap", {"audio_config": {}, "text_config": {}}, {"input_features": (1, 1, 1001, 64)}),
        ("wav2vec2", {}, {"input_values": (1, 16000)}),
    ],
)
def test_published_configurations_leave_out_defaults(
    name: str, config: dict[str, object], shapes: dict[str, tuple[int, ...]]
) -> None:
    family = families.load(name)
    inputs = family.inputs(config, family.measured, np.random.default_rng(0))
    for tensor, shape in shapes.items():
        assert inputs[tensor].shape == shape


def test_clip_ends_every_caption_once() -> None:
    for end, config in ((639, {"vocab_size": 640, "eos_token_id": 639}), (49407, {"eos_token_id": 2})):
        family = families.load("clip")
        inputs = family.inputs({"text_config": config}, family.challenges[2], np.random.default_rng(0))
        last = inputs["attention_mask"].sum(axis=1) - 1
        assert (inputs["input_ids"][np.arange(len(last)), last] == end).all()
        assert ((inputs["input_ids"] == end).sum(axis=1) == 1).all()


def test_settings_are_read_as_transformers_reads_them() -> None:
    config = {"a": 1, "part": {"b": 2, "c": 3}, "part_dict": {"c": 4}}
    assert settings(config, a=9, z=8)["a"] == 1
    assert settings(config, a=9, z=8)["z"] == 8
    assert settings(config, "part", b=7, d=5) == {"b": 2, "c": 4, "d": 5}
    assert settings(config, "absent", b=7) == {"b": 7}


def test_raw_material_has_unit_variance() -> None:
    rng = np.random.default_rng(0)
    assert texture(rng, 4, 3, 224, 224).std() == pytest.approx(1, abs=0.2)
    sound = waveform(rng, 2, 0.5, 16_000)
    assert sound.shape == (2, 8000)
    np.testing.assert_allclose(sound.std(axis=1), 1, rtol=1e-4)
    ids = text(rng, Workload(name="w", batch=5, length=20, padded=True), 10, padding=0, end=9)
    assert set(ids["input_ids"][ids["attention_mask"] == 0]) == {0}
    assert 0 not in ids["input_ids"][ids["attention_mask"] == 1]


@pytest.mark.parametrize(("height", "width", "blocks"), [(224, 224, (4, 4)), (1001, 64, (5, 4)), (3, 9, (3, 5))])
def test_textures_are_blocks_under_noise(height: int, width: int, blocks: tuple[int, int]) -> None:
    found, same = (np.random.default_rng(0) for _ in range(2))
    coarse = same.standard_normal((2, *blocks), dtype=np.float32)
    noise = same.standard_normal((2, height, width), dtype=np.float32)
    rows, columns = np.arange(height) // max(1, height // 4), np.arange(width) // max(1, width // 4)
    expected = 0.8 * coarse[:, rows][:, :, columns] + 0.6 * noise
    np.testing.assert_allclose(texture(found, 2, height, width), expected, rtol=0, atol=1e-6)


def test_rates_turn_the_interval_around() -> None:
    metric = rate(LATENCY, 16, "tokens/s")
    assert (metric.value, metric.low, metric.high) == pytest.approx((160, 80, 320))
    assert (metric.better, metric.samples, metric.unit) == ("higher", 30, "tokens/s")


@pytest.mark.parametrize("name", ["llama", "t5", "whisper", "language-model"])
def test_generated_tokens_read_as_the_tokenizer_says(name: str) -> None:
    folder = checkpoints.local(name).path
    tokens = AutoTokenizer.from_pretrained(folder)("song river", add_special_tokens=False)["input_ids"]
    found = families.load(name).transcript(folder, {"tokens": np.array([tokens, tokens[::-1]])})
    assert found is not None and found.split() == ["song", "river"]


def test_sound_reads_as_its_likeliest_characters_without_repetitions() -> None:
    folder = checkpoints.local("wav2vec2").path
    vocabulary = AutoTokenizer.from_pretrained(folder).get_vocab()
    frames = [vocabulary[each] for each in ("C", "C", "<pad>", "A", "<pad>", "A", "T", "|", "A")]
    logits = np.eye(len(vocabulary), dtype=np.float32)[frames][None]
    assert families.load("wav2vec2").transcript(folder, {"logits": logits}) == "CAAT A"


def test_what_is_no_text_has_no_transcript_and_one_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    assert families.load("bert").transcript(tmp_path, {"last_hidden_state": np.zeros((1, 2, 4))}) is None
    with pytest.raises(UsageError, match="no tokenizer"):
        families.load("llama").transcript(tmp_path, {"tokens": np.array([[1]])})


@pytest.mark.parametrize(
    ("name", "workload", "expected"),
    [
        ("bert", {"batch": 2, "length": 8}, {"tokens_per_second": 160, "sentences_per_second": 20}),
        ("clip", {"batch": 2}, {"images_per_second": 20}),
        ("wav2vec2", {"batch": 2, "seconds": 2.0}, {"real_time_factor": 0.025}),
        ("xclip", {"batch": 2}, {"clips_per_second": 20, "frames_per_second": 160}),
        ("clap", {"batch": 2}, {"real_time_factor": 0.005, "clips_per_second": 20}),
        ("sentence-embeddings", {"batch": 4}, {"vectors_per_second": 40, "dimension": 768, "memory_per_vector": 3072}),
    ],
)
def test_metrics_at_published_dimensions(name: str, workload: dict[str, float], expected: dict[str, float]) -> None:
    metrics = families.load(name).metrics({}, Workload(name="w", **workload), LATENCY)
    assert {key: metrics[key].value for key in expected} == pytest.approx(expected)
    for key, metric in metrics.items():
        if key == "real_time_factor":
            assert (metric.better, metric.unit) == ("lower", "s/s")
            assert metric.low is not None and metric.high is not None and metric.low < metric.value < metric.high
        elif key == "dimension":
            assert metric.better == "neither"
        elif key == "memory_per_vector":
            assert (metric.better, metric.unit) == ("lower", "B")
        else:
            assert metric.better == "higher"


@pytest.mark.parametrize("name", families.ORDER)
def test_the_documentation_defines_every_figure(name: str) -> None:
    family = families.load(name)
    found = family.metrics({}, Workload(name="w", batch=1, length=8, seconds=1.0), LATENCY)
    if isinstance(family, GeneratingFamily):
        found |= family.decoding_metrics({}, LATENCY, LATENCY, 2048)
    page = (Path(__file__).parents[2] / "docs" / "measurement.md").read_text(encoding="utf-8")
    table = page.partition("## What is measured")[2].partition("\n## ")[0]
    for key, metric in found.items():
        (row,) = [line for line in table.splitlines() if f"`{key}`" in line]
        assert metric.unit in row and (metric.better in row or metric.better == "neither")


def test_metrics_of_decoding() -> None:
    first, each = LATENCY, Metric(value=0.01, unit="s", low=0.005, high=0.02, samples=300)
    found = families.load("llama").decoding_metrics({}, first, each, 2048)
    assert found["time_to_first_token"] == first and found["time_per_output_token"] == each
    assert found["prefill_tokens_per_second"].value == pytest.approx(160)
    assert found["decode_tokens_per_second"].value == pytest.approx(100)
    assert (found["cache_bytes_per_token"].value, found["cache_bytes_per_token"].unit) == (2048, "B")
    whisper = families.load("whisper").decoding_metrics({}, first, each, 2048)
    # 30 seconds of sound: encoder and first token, then 31 more.
    assert whisper["real_time_factor"].value == pytest.approx((0.1 + 31 * 0.01) / 30)
    assert whisper["audio_seconds_per_second"].value == pytest.approx(30 / (0.1 + 31 * 0.01))
    assert whisper["audio_seconds_per_second"].better == "higher"


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("xclip", "VideoMAEModel"), ("llama", "OPTForCausalLM"), ("bert", "T5EncoderModel"), ("clip", "Siglip2Model")],
)
def test_other_architectures_are_refused(name: str, architecture: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"row takes .*; config.json says {architecture}"):
        families.load(name).accept({"architectures": [architecture]}, tmp_path)
    with pytest.raises(UsageError, match="no architecture"):
        families.load(name).accept({}, tmp_path)


def test_fused_clap_is_refused(tmp_path: Path) -> None:
    config = {"architectures": ["ClapModel"], "audio_config": {"enable_fusion": True}}
    with pytest.raises(UsageError, match="enable_fusion"):
        families.load("clap").accept(config, tmp_path)


def test_pooling_is_read_from_the_folder(tmp_path: Path) -> None:
    assert Pooling.of(tmp_path) == Pooling("mean", True)
    types = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in types.items()]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    pooling = tmp_path / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    assert Pooling.of(tmp_path) == Pooling("cls", False)
    pooling.write_text(json.dumps({"pooling_mode": "max"}))
    assert Pooling.of(tmp_path) == Pooling("max", False)
    pooling.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}))
    with pytest.raises(UsageError, match="knows mean, cls and max"):
        Pooling.of(tmp_path)
    (tmp_path / "modules.json").write_text(
        json.dumps([{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}])
    )
    with pytest.raises(UsageError, match="Dense is not supported"):
        Pooling.of(tmp_path)


@pytest.mark.parametrize(
    ("modules", "pooling", "message"),
    [
        ({"0": {}}, {}, "is no list of modules with type and path"),
        (["Transformer"], {}, "is no list of modules with type and path"),
        ([{"path": "1_Pooling"}], {}, "is no list of modules with type and path"),
        (
            [{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}],
            ["mean"],
            "no configuration of pooling",
        ),
    ],
)
def test_modules_that_are_malformed_are_refused_in_a_line(
    tmp_path: Path, modules: object, pooling: object, message: str
) -> None:
    (tmp_path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        Pooling.of(tmp_path)


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
def test_pooling_ignores_padding(mode: str) -> None:
    from assay.families.module import load_pretrained

    checkpoint = checkpoints.local("sentence-embeddings")
    family = SentenceEmbeddings(Pooling(mode, normalise=False))  # type: ignore[arg-type]
    model = load_pretrained(family, checkpoint.path, None)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    short = torch.ones(1, 4, dtype=torch.int64)
    with torch.no_grad():
        alone = family.forward(model, {"input_ids": ids[:, :4], "attention_mask": short})
        among = family.forward(model, {"input_ids": ids, "attention_mask": torch.nn.functional.pad(short, (0, 2))})
    torch.testing.assert_close(alone["sentence_embedding"], among["sentence_embedding"], rtol=1e-4, atol=1e-5)
