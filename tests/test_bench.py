"""The benchmarks: what a ratio and its interval say, who is compared, and one real comparison from the outside."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pytest

from assay import backends, checkpoints, families
from assay.schema import Precision
from tests.bench import genai, plan
from tests.bench.__main__ import main
from tests.bench.contestant import drawn, engine
from tests.bench.interleaved import Contestant, ContestantEnded, Disagreement, Timed, timed, timed_alone
from tests.bench.peers import told
from tests.bench.plan import Comparison
from tests.bench.ratio import Round, over_starts, ratio
from tests.bench.setting import ASSAY, Setting
from tests.bench.summary import Found, as_json, table

ROOT = Path(__file__).parents[1]


def series(seed: int, factor: float, *, rounds: int = 16, calls: int = 8, shared: float = 0.05) -> list[Round]:
    """Rounds of two sides: the machine is `shared` faster or slower in each block, and every call 1 % off at random."""
    rng = np.random.default_rng(seed)

    def block(typical: float) -> list[float]:
        return list(typical * np.exp(shared * rng.standard_normal() + 0.01 * rng.standard_normal(calls)))

    return [(block(1e-3 * factor), block(1e-3)) for _ in range(rounds)]


def test_a_slowdown_is_found_and_so_is_its_direction() -> None:
    slower, faster = ratio(series(1, 1.2)), ratio(series(1, 1 / 1.2))
    assert slower.verdict == "slower" and slower.low < 1.2 < slower.high and slower.low > 1.1
    assert faster.verdict == "faster" and faster.low < 1 / 1.2 < faster.high and faster.high < 0.9


def test_noise_is_a_tie() -> None:
    found = ratio(series(2, 1.0))
    assert found.verdict == "tie" and found.low < 1 < found.high


def test_calls_of_a_block_are_not_taken_for_independent() -> None:
    """Of series without a difference few are called one; were calls drawn, most would be."""

    def wrong(found: list[Round]) -> bool:
        return ratio(found, 400).verdict != "tie"

    def called(found: list[Round]) -> list[Round]:
        return [([one], [other]) for first, second in found for one, other in zip(first, second, strict=True)]

    ties = [series(seed, 1.0) for seed in range(100)]
    # 5 of 100 are due, and a binomial of that rate stays below 14 in all but 2 of 10,000.
    assert sum(wrong(each) for each in ties) < 14
    assert sum(wrong(called(each)) for each in ties) > 30


def test_an_interval_gets_narrow_enough_to_stop() -> None:
    assert not ratio(series(3, 1.0, rounds=4)).known
    assert ratio(series(3, 1.0, rounds=16, shared=0.005)).known


def found(factor: float) -> Found:
    comparison = next(plan.comparisons(["bert"], ["openvino"], "tiny", full=False))
    return Found(comparison, [Timed(series(seed, factor), 2e-7) for seed in range(5)])


def test_the_report_says_what_the_series_say() -> None:
    (content,) = json.loads(as_json([found(1.2)]))
    assert content.keys() >= {"name", "peer", "ratio", "low", "high"}
    assert (content["name"], content["peer"], content["verdict"]) == ("bert/openvino/tiny", "openvino loop", "slower")
    assert content["seconds"] / content["peer_seconds"] == pytest.approx(content["ratio"], rel=0.02)
    assert content["samples"] == content["peer_samples"] == 5 * 128 and len(content["starts"]) == 5
    assert "| tie |" in table([found(1.0)])


def test_starts_that_differ_are_not_told_away_by_calls() -> None:
    """Ten thousand calls of a start that was 5 % slower say nothing of the next start."""
    rng = np.random.default_rng(4)
    lucky = [float(np.exp(0.03 * rng.standard_normal())) for _ in range(400)]
    # Pairs of five starts without a difference: 5 of 100 are called one, if the interval is what it says.
    wrong = sum(over_starts(lucky[at : at + 5]).verdict != "tie" for at in range(0, 400, 5))
    assert wrong < 12  # a binomial of 80 and 0.05 stays below in all but 1 of 1,000
    found = over_starts([1.2, 1.21, 1.19, 1.2])
    assert found.verdict == "slower" and found.low < 1.2 < found.high and found.low > 1.18


@pytest.mark.parametrize(("factor", "slow"), [(1.0, False), (1.2, True)])
def test_an_engine_that_is_slower_than_allowed_is_told(factor: float, slow: bool) -> None:
    assert found(factor).slow is slow


def peers(family: str, backend: str, size: str = "tiny", *, full: bool = False) -> list[str]:
    return [each.peer for each in plan.comparisons([family], [backend], size, full=full)]


def test_each_kind_of_model_has_its_peers() -> None:
    assert peers("bert", "openvino") == ["openvino loop", "benchmark_app"]
    assert peers("bert", "cpu") == ["torch loop"]
    assert peers("language-model", "onnxruntime") == ["openvino-genai", "transformers generate"]
    assert peers("language-model", "cpu") == ["transformers generate"]
    assert peers("whisper", "openvino") == ["transformers generate"]


def test_large_models_wait_to_be_asked_for() -> None:
    assert peers("llama", "cpu", "base") == []
    assert peers("llama", "cpu", "base", full=True) == peers("llama", "cpu") != []


def test_peers_can_be_chosen() -> None:
    chosen = plan.comparisons(["bert", "t5"], ["openvino"], "base", ["benchmark_app", "openvino loop"], full=False)
    assert [(each.family, each.peer) for each in chosen] == [("bert", "openvino loop"), ("bert", "benchmark_app")]
    with pytest.raises(SystemExit):
        main(["--peer", "nobody"])


def test_a_call_of_benchmark_app_takes_what_its_caller_waits() -> None:
    """40 calls in 110 ms are 2.75 each, of which its latencies, 2.7 on average, leave out 0.05."""
    printed = """
[ INFO ] Count:            40 iterations
[ INFO ] Duration:         110.00 ms
[ INFO ] Latency:
[ INFO ]    Median:        2.50 ms
[ INFO ]    Average:       2.70 ms
[ INFO ]    Min:           2300 us
"""
    assert told(printed) == pytest.approx(2.55e-3)
    assert told(printed.replace("2.50 ms", "2500 us")) == pytest.approx(2.55e-3)
    assert told(printed.replace("Duration", "Dauer")) is None


@pytest.mark.parametrize("family", ["language-model", "t5", "whisper"])
def test_sixty_four_tokens_follow_at_published_size(family: str) -> None:
    comparison: Comparison = next(plan.comparisons([family], ["cpu"], "base", full=False))
    assert comparison.workload.new_tokens == 64
    assert comparison.workload.length == (0 if family == "whisper" else 64)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """What a contestant is told of the local test model of a decoder on OpenVINO."""
    (comparison, _) = plan.comparisons(["language-model"], ["openvino"], "tiny", full=False)
    prepared = plan.prepare("language-model", "openvino", "tiny", tmp_path_factory.mktemp("bench"))
    return Setting(
        contestant=ASSAY, family="language-model", backend="openvino", workload=comparison.workload, seed="00",
        **prepared,
    )  # fmt: skip


def test_the_graph_for_openvino_genai_goes_on_as_the_engine_does(decoder: Setting, tmp_path: Path) -> None:
    """Run as openvino-genai runs it, from a state that nobody filled; the pipeline itself is compared in the bench."""
    openvino = pytest.importorskip("openvino")
    family = families.load("language-model")
    config = json.loads(Path(decoder.config).read_text(encoding="utf-8"))
    prompt = drawn(family, config, decoder.workload, "00", 0)
    expected = engine(decoder, family)(prompt)["tokens"]

    genai.write(Path(decoder.artifact["path"]), tmp_path)
    compiled = openvino.Core().compile_model(
        tmp_path / "openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    assert {name for port in compiled.inputs for name in port.get_names()} == {
        "input_ids",
        "attention_mask",
        "beam_idx",
    }
    request, beams = compiled.create_infer_request(), np.zeros(1, np.int32)
    ids, mask, chosen = prompt["input_ids"], prompt["attention_mask"], []
    for _ in range(decoder.workload.new_tokens):
        logits = request.infer({"input_ids": ids, "attention_mask": mask, "beam_idx": beams})["logits"]
        ids = logits[:, -1].argmax(axis=-1)[:, None]
        mask = np.concatenate((mask, np.ones_like(ids)), axis=1)
        chosen.append(ids)
    np.testing.assert_array_equal(np.concatenate(chosen, axis=1), expected)


def test_two_that_do_not_compute_the_same_are_not_compared(decoder: Setting) -> None:
    checkpoint = checkpoints.local("bert")
    backend = backends.load("onnxruntime")
    own = backend.build(checkpoint, precision=Precision.F32)
    twin = backend.build_twin(checkpoint, checkpoints.twin(checkpoint), precision=Precision.F32)
    config = Path(decoder.config).with_name("bert.json")
    config.write_text(json.dumps(checkpoint.config()), encoding="utf-8")
    workload = families.load("bert").measured
    setting = replace(
        decoder, family="bert", backend="onnxruntime", config=str(config), workload=workload, artifact=own.to_json()
    )
    other = replace(setting, contestant="onnxruntime loop", artifact=twin.to_json())
    with (
        Contestant(setting) as one,
        Contestant(other) as two,
        pytest.raises(Disagreement, match="outputs differ by"),
    ):
        timed(one, two, 0.0)


class Process:
    """Stands for a contestant that takes a millisecond a call, and knows who else is there."""

    alive: ClassVar[list[str]] = []
    blocks: ClassVar[list[tuple[str, int, list[str]]]] = []

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Self:
        self.alive.append(self.name)
        return self

    def __exit__(self, *_: object) -> None:
        self.alive.remove(self.name)

    def block(self, calls: int) -> list[float]:
        self.blocks.append((self.name, calls, list(self.alive)))
        return [1e-3] * calls


def test_where_each_block_has_its_process_no_other_holds_a_model() -> None:
    done = timed_alone(partial(Process, "engine"), partial(Process, "peer"), 0.0)  # type: ignore[arg-type]
    assert all(alive == [name] for name, _, alive in Process.blocks)
    wanted = {"engine": 500, "peer": 1}  # each block of the peer is a run of its tool
    found = [name for name, calls, _ in Process.blocks if calls == wanted[name]]
    assert found == ["peer", "engine", "engine", "peer", "peer", "engine"]
    assert {calls for name, calls, _ in Process.blocks if name == "peer"} == {1}
    assert [len(each) for each in done.rounds[0]] == [500, 1] and len(done.rounds) == 3 and not Process.alive


def test_a_contestant_that_cannot_start_says_why(decoder: Setting) -> None:
    with pytest.raises(ContestantEnded, match=r"(?s)openvino loop .*nowhere"):
        Contestant(replace(decoder, contestant="openvino loop", artifact={"path": "/nowhere"}))


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_real_comparison_leaves_a_report(tmp_path: Path) -> None:
    options = ("--size", "tiny", "--family", "bert", "--backend", "onnxruntime", "--seconds", "0", "--starts", "2")
    done = bench(*options, "--output", str(tmp_path / "reports"))
    assert done.returncode == 0, done.stderr
    (content,) = json.loads((tmp_path / "reports" / "bench.json").read_text(encoding="utf-8"))
    assert (content["name"], content["peer"]) == ("bert/onnxruntime/tiny", "onnxruntime loop")
    assert 0 < content["low"] <= content["ratio"] <= content["high"]
    assert content["rounds"] >= 2 * 8 and content["samples"] >= content["rounds"]
    assert content["difference"] < 1e-5  # the same graph in the same runtime
    assert f"| {content['ratio']:.3f} |" in done.stdout and "1 of 1" in done.stderr


def test_a_peer_that_is_not_installed_costs_its_own_figure_alone(tmp_path: Path) -> None:
    """openvino-genai is in the environment of the benchmarks alone."""
    options = (
        "--size", "tiny", "--family", "language-model", "--backend", "openvino", "--seconds", "0", "--starts", "2",
    )  # fmt: skip
    done = bench(*options, "--output", str(tmp_path))
    assert done.returncode == 1
    assert "language-model/openvino/tiny against openvino-genai: no figure: " in done.stderr
    assert "No module named 'openvino_genai'" in done.stderr
    (content,) = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert content["peer"] != "openvino-genai" and content["peer"] in done.stdout


@pytest.mark.parametrize("wrong", [("--family", "gpt"), ("--backend", "tpu"), ("--size", "huge"), ("--starts", "1")])
def test_what_is_not_there_is_a_mistake(wrong: tuple[str, str]) -> None:
    done = bench(*wrong)
    assert done.returncode == 2 and wrong[1] in done.stderr.splitlines()[-1]
