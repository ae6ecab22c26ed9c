"""T-one on an arena of slots: whatever slots, company, order and runs, a stream gets what torch gives it alone."""

from __future__ import annotations

import gc
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs rechka[train]")

from rechka.backends.torch import TorchArena, find_device, open_arena  # noqa: E402
from rechka.errors import BadCard, BadModelFile, BadSamples, MissingExtra, UsageError  # noqa: E402
from rechka.export.onnx import read_config  # noqa: E402
from rechka.models.tone import CHUNK, load, on_slots  # noqa: E402
from rechka.models.tone_slots import SlotTone  # noqa: E402
from rechka.nn.tone import Tone  # noqa: E402
from rechka.nn.weights import read_weights  # noqa: E402
from rechka.protocols import AcousticModel  # noqa: E402

DATA = Path(__file__).parents[1] / "data" / "tone"
CONFIG, WEIGHTS = read_config(DATA / "mini_config.json"), read_weights(DATA / "mini.safetensors")
TOLERANCE, STATE_TOLERANCE = 1e-4, 1e-5
LENGTH, SLOTS = 14, 5
FILES = {"weights": DATA / "mini.safetensors", "config": DATA / "mini_config.json"}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@lru_cache
def samples(stream: int) -> Any:
    """Streams of very different loudness, LENGTH chunks of 16-bit samples."""
    noise = np.random.default_rng(stream).standard_normal(LENGTH * CHUNK)
    return np.clip(noise * (9000, 60, 1500, 30000)[stream % 4], -32767, 32767).astype(np.int16)


def pieces(stream: int, start: int, count: int) -> Any:
    return samples(stream)[start * CHUNK : (start + count) * CHUNK]


@lru_cache
def alone(stream: int) -> tuple[Any, Any]:
    """Log-probabilities (LENGTH, 10, V) and states after every chunk, from the torch module."""
    module = Tone(CONFIG)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in WEIGHTS.items()})
    module.eval()
    state, rows, states = module.initial_state(), [], []
    with torch.no_grad():
        for i in range(LENGTH):
            wave = torch.from_numpy(pieces(stream, i, 1))[None].float() / 32767
            logprobs, state = module.step(wave, state)
            rows.append(logprobs[0].numpy())
            states.append(state[0].numpy())
    return np.stack(rows), np.stack(states)


@lru_cache
def arena(**options: Any) -> TorchArena:
    return TorchArena(WEIGHTS, CONFIG, device="cpu", slots=SLOTS, runs={1: (1, 2, 5), 3: (1, 4)}, **options)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_slots_any_company_any_order(data: st.DataObject) -> None:
    """Streams come, go on, stop and leave their slots to others, in runs of one chunk or three."""
    tone = arena()
    owners: dict[int, tuple[int, int]] = {}  # slot -> stream, chunks heard
    for _ in range(data.draw(st.integers(1, 10))):
        chunks = data.draw(st.sampled_from([1, 1, 3]))
        chosen = data.draw(st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=tone.largest(chunks), unique=True))
        for slot in chosen:
            full = owners.get(slot, (0, LENGTH))[1] + chunks > LENGTH
            if full or data.draw(st.integers(0, 4)) == 0:
                owners[slot] = (data.draw(st.integers(0, 3)), 0)
        heard = [owners[slot] for slot in chosen]
        found = tone.run(chosen, [n for _, n in heard], np.stack([pieces(s, n, chunks) for s, n in heard]))
        for slot, (stream, n), rows in zip(chosen, heard, found, strict=True):
            np.testing.assert_allclose(rows, np.concatenate(alone(stream)[0][n : n + chunks]), atol=TOLERANCE)
            owners[slot] = (stream, n + chunks)
    for slot, (stream, n) in owners.items():
        np.testing.assert_allclose(tone.state(slot, n), alone(stream)[1][n - 1], atol=STATE_TOLERANCE)


def test_golden_vectors_of_the_original() -> None:
    golden = np.load(DATA / "mini_streaming.npz")
    for i, (audio, logprobs, after) in enumerate(
        zip(golden["audio"], golden["logprobs"], golden["state_next"], strict=True)
    ):
        found = arena().run([4, 2], [i, i], audio.astype(np.int16))
        np.testing.assert_allclose(found, logprobs, atol=TOLERANCE)
        for slot, state in zip((4, 2), after, strict=True):
            np.testing.assert_allclose(arena().state(slot, i + 1), state, atol=STATE_TOLERANCE)


def test_a_slot_that_takes_no_part_keeps_its_state_to_the_bit() -> None:
    tone = arena()
    tone.run([0, 1], [0, 0], np.stack([pieces(0, 0, 1), pieces(1, 0, 1)]))
    before = [tensor.clone() for tensor in tone.save(1)]
    tone.run([3, 0, 2], [0, 1, 0], np.stack([pieces(s, 0, 1) for s in (2, 0, 3)]))  # of five rows two are nobody's
    assert all(torch.equal(a, b) for a, b in zip(before, tone.save(1), strict=True))


@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.05), ("fp16", 0.01), ("fp8", 0.3)])
def test_half_and_8_bit_precision_drift_little(precision: str, limit: float) -> None:
    tone = arena(precision=precision)
    found = np.concatenate([tone.run([2], [i], pieces(0, i, 1)[None])[0] for i in range(LENGTH)])
    wanted = np.concatenate(alone(0)[0])
    assert np.abs(np.exp(found) - np.exp(wanted)).max() < limit
    assert np.abs(found - wanted).max() > 1e-4, "nothing was rounded at all"


def test_tokens_are_the_best_of_the_log_probabilities() -> None:
    found = arena(tokens=True).run([0, 1], [0, 0], np.stack([pieces(s, 0, 3) for s in (0, 1)]))
    assert found.dtype == np.uint8
    wanted = [np.concatenate(alone(s)[0][:3]).argmax(-1) for s in (0, 1)]
    np.testing.assert_array_equal(found, wanted)


def test_8_bits_that_change_too_much_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rechka.backends.torch.FP8_LIMIT", 1e-9)
    with pytest.raises(BadModelFile, match="8 bits"):
        TorchArena(WEIGHTS, CONFIG, device="cpu", slots=1, runs={1: (1,)}, precision="fp8")


def floats(stream: int, start: int, count: int) -> Any:
    return (pieces(stream, start, count) / 32767).astype(np.float32)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_more_streams_than_slots(data: st.DataObject) -> None:
    """Streams that wait lend their slots to others, and get the same as ever when they come back."""
    tone = SlotTone(TorchArena(WEIGHTS, CONFIG, device="cpu", slots=2, runs={1: (1, 2), 3: (2,)}))
    states = {stream: tone.initial_state() for stream in range(4)}
    for _ in range(6):
        going = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
        counts = [min(data.draw(st.integers(1, 4)), LENGTH - states[s].frame // 10) for s in going]
        going = [(s, n) for s, n in zip(going, counts, strict=True) if n]
        audio = [floats(s, states[s].frame // 10, n) for s, n in going]
        frames, after = tone.step(audio, [states[s] for s, _ in going])
        for (stream, count), part, state in zip(going, frames, after, strict=True):
            begin = states[stream].frame // 10
            assert part.start == 10 * begin
            np.testing.assert_allclose(
                part.values, np.concatenate(alone(stream)[0][begin : begin + count]), atol=TOLERANCE
            )
            states[stream] = state


def test_a_step_that_is_asked_for_again_happens_once() -> None:
    tone = SlotTone(arena())
    assert isinstance(tone, AcousticModel)
    state = tone.initial_state()
    (first,), (after,) = tone.step([floats(0, 0, 2)], [state])
    (again,), (same,) = tone.step([floats(0, 0, 2)], [state])
    np.testing.assert_array_equal(first.values, again.values)
    # It had more to say when it was asked again.
    (longer,), (later,) = tone.step([floats(0, 0, 3)], [state])
    np.testing.assert_allclose(longer.values, np.concatenate(alone(0)[0][:3]), atol=TOLERANCE)
    with pytest.raises(UsageError, match="cannot go back"):
        tone.step([floats(0, 0, 1)], [state])
    (_,), (last,) = tone.step([floats(0, 3, 1)], [later])
    for old in (state, after, same):
        with pytest.raises(UsageError, match="cannot go back"):
            tone.step([floats(0, 0, 1)], [old])
    with pytest.raises(UsageError, match="once at a time"):
        tone.step([floats(0, 4, 1)] * 2, [last, last])


def test_a_step_that_fails_halfway_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = TorchArena(WEIGHTS, CONFIG, device="cpu", slots=4, runs={1: (1, 2)})
    tone, run, calls = SlotTone(inner), inner.run, 0

    def fails_once(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("the device had enough")
        return run(*arguments)

    monkeypatch.setattr(inner, "run", fails_once)
    states = [tone.initial_state() for _ in range(3)]
    audio = [floats(stream, 0, 2) for stream in range(3)]
    with pytest.raises(RuntimeError, match="enough"):
        tone.step(audio, states)
    for stream in range(3):  # one by one, as the engine does
        (frames,), _ = tone.step([audio[stream]], [states[stream]])
        np.testing.assert_allclose(frames.values, np.concatenate(alone(stream)[0][:2]), atol=TOLERANCE)


def test_a_stream_that_is_gone_gives_its_slot_back() -> None:
    inner = TorchArena(WEIGHTS, CONFIG, device="cpu", slots=2, runs={1: (1,)})
    saved: list[int] = []
    save = inner.save
    inner.save = lambda slot: saved.append(slot) or save(slot)  # type: ignore[method-assign,func-returns-value]
    tone = SlotTone(inner)
    for stream in range(12):
        tone.step([floats(stream % 4, 0, 1)], [tone.initial_state()])
        gc.collect()
    assert not saved, "a slot was taken from a stream that nobody holds any more"


def test_the_recogniser_hears_the_same_events_as_on_the_onnx_graph(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs rechka[export]")
    from rechka.backends.ort import OrtBackend
    from rechka.export.tone import build
    from rechka.models.tone import ToneModel
    from rechka.recognizers import assemble

    graph = build(WEIGHTS, CONFIG, form="block").SerializeToString()
    heard = []
    for model in (on_slots(FILES, {"slots": 2}, device="cpu"), ToneModel(OrtBackend(graph, threads=1))):
        recognizer = assemble(model)
        streams = [recognizer.open() for _ in range(3)]
        for number, stream in enumerate(streams):
            stream.feed(np.concatenate([np.zeros(8000, np.float32), floats(number, 0, 5), np.zeros(9000, np.float32)]))
            stream.finish()
        recognizer.run(streams)
        heard.append([[type(event).__name__ for event in stream.outbox] for stream in streams])
    assert heard[0] == heard[1]
    assert any(heard[0])


def test_mistakes_have_names(tmp_path: Path) -> None:
    tone = SlotTone(arena())
    with pytest.raises(BadSamples, match="2400 samples"):
        tone.step([np.zeros(2399, np.float32)], [tone.initial_state()])
    for slots, count in (([0, 0], 2), ([SLOTS], 1), ([-1], 1)):
        with pytest.raises(UsageError, match="different slots"):
            arena().run(slots, [0] * count, np.zeros((count, CHUNK), np.int16))
    for shape in ((6, CHUNK), (1, 2 * CHUNK), (1, 100), (0, CHUNK)):
        with pytest.raises(UsageError, match="a run takes"):
            arena().run(list(range(shape[0])), [0] * shape[0], np.zeros(shape, np.int16))
    for wrong in ({"precision": "int4"}, {"kernels": "magic"}, {"slots": 0}, {"runs": {3: (1,)}}, {"runs": {1: ()}}):
        with pytest.raises(UsageError):
            TorchArena(WEIGHTS, CONFIG, **{"device": "cpu", "slots": 1, **wrong})
    with pytest.raises(BadModelFile, match="lacks"):
        TorchArena({}, CONFIG, device="cpu")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(BadModelFile, match="no configuration"):
        open_arena(FILES["weights"], tmp_path / "config.json", device="cpu")
    with pytest.raises(UsageError, match="device"):
        find_device("tpu")


def test_too_little_memory_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr("rechka.backends.torch.Slots.make", full)
    with pytest.raises(UsageError, match="fewer slots"):
        open_arena(FILES["weights"], FILES["config"], device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_errors_are_those_of_the_onnx_graph(tmp_path: Path) -> None:
    """A card with both files falls back to the graph, and what is said about CUDA is what it always was."""
    onnx = pytest.importorskip("onnxruntime")
    with pytest.raises(UsageError, match="device 'cuda'"):
        load(FILES, {}, device="cuda")
    if "CUDAExecutionProvider" not in onnx.get_available_providers():
        with pytest.raises(MissingExtra, match="CUDA build of ONNX Runtime"):
            load({**FILES, "model": tmp_path / "model.onnx"}, {"precision": "bf16"}, device="cuda")
    with pytest.raises(BadCard, match="device cpu"):
        load(FILES, {})
