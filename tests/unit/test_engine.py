"""Sessions of the engine: audio in, events out, limits, failures that stay with their session, the end."""

import asyncio
import gc
import threading
import time
import weakref

import numpy as np
import pytest

from rechka.engine import Engine, EngineOptions, Flushed, SessionOptions, transcribe
from rechka.engine.cores import cores
from rechka.engine.metrics import Registry
from rechka.errors import (
    AudioTooLong,
    BadSamples,
    Draining,
    EmptyAudio,
    Overloaded,
    StreamClosed,
    StreamFailed,
    UsageError,
)
from rechka.testing import say, silence, toy_asr
from rechka.testing.audio import wav_bytes
from rechka.testing.engines import running_engine
from rechka.testing.waiting import PATIENCE_S
from rechka.types import AudioChunk, Final, Partial, SpeechEnd, SpeechStart


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 120))


def pcm(samples):
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


async def collect(session):
    return [event async for event in session]


def texts(events, channel=0):
    return [e.segment.text for e in events if isinstance(e, Final) and e.segment.channel == channel]


SPEECH = np.concatenate([say("привет мир", before_s=0.5, after_s=1.5), say("как дела", after_s=1.5)])


def test_what_the_model_compiles_for_live_streams_is_compiled_before_it_is_ready():
    asr, asked = toy_asr(), []
    asr.recognizer.model.prepare = asked.append

    async def main():
        engine = Engine(asr, EngineOptions(max_batch=7))
        assert not engine.ready
        await engine.start()
        assert engine.ready
        assert asked == [7]
        await engine.close()

    run(main())


def test_bytes_become_the_same_events_as_a_file():
    alone = list(toy_asr().stream((SPEECH, 8000)))

    async def main():
        async with running_engine() as engine, await engine.open(SessionOptions()) as session:
            data = pcm(SPEECH)
            for start in range(0, len(data), 321):  # odd: half samples
                await session.feed(data[start : start + 321])
                await session.settle()
            session.finish()
            return await collect(session), session.fed_s, session.done_s

    events, fed, done = run(main())
    final = [e for e in events if not isinstance(e, Partial)]
    assert [type(e) for e in final] == [SpeechStart, Final, SpeechEnd] * 2
    assert texts(events) == texts(alone) == ["привет мир", "как дела"]
    assert [e.segment.start for e in events if isinstance(e, Final)] == [
        e.segment.start for e in alone if isinstance(e, Final)
    ]
    assert fed == pytest.approx(len(SPEECH) / 8000)
    assert done == pytest.approx(fed)


@pytest.mark.parametrize("encoding", ["s16le", "f32le", "mulaw", "alaw"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_encodings_and_rates(encoding, rate):
    from rechka.audio.pcm import ALAW, MULAW

    audio = say("добрый день", before_s=0.3, after_s=1, sample_rate=rate)
    if encoding == "s16le":
        data = pcm(audio)
    elif encoding == "f32le":
        data = audio.astype("<f4").tobytes()
    else:
        table = (MULAW if encoding == "mulaw" else ALAW).astype(np.int32)
        order = np.argsort(table)
        wanted = (audio * 32767).astype(np.int32)
        data = order[np.clip(np.searchsorted(table[order], wanted), 0, 255)].astype(np.uint8).tobytes()

    async def main():
        options = SessionOptions(sample_rate=rate, encoding=encoding, partials=False)
        async with running_engine() as engine, await engine.open(options) as session:
            for start in range(0, len(data), 1001):
                await session.feed(data[start : start + 1001])
            session.finish()
            return await collect(session)

    assert texts(run(main())) == ["добрый день"]


def test_channels_interleaved_apart_and_mixed():
    left = say("левый", before_s=0.5, after_s=2)
    right = np.concatenate([silence(len(left) / 8000), say("правый", after_s=1.5)])
    left = np.pad(left, (0, len(right) - len(left)))
    both = pcm(np.stack([left, right], axis=1).reshape(-1))

    async def interleaved(engine, **options):
        async with await engine.open(SessionOptions(channels=2, **options)) as session:
            for start in range(0, len(both), 999):
                await session.feed(both[start : start + 999])
            session.finish()
            return await collect(session)

    async def apart(engine):
        async with await engine.open(SessionOptions(channels=2, interleaved=False)) as session:
            for start in range(0, len(left), 160):
                await session.feed(pcm(left[start : start + 160]), channel=0)
                await session.feed(pcm(right[start : start + 160]), channel=1)
            session.finish()
            return await collect(session)

    async def main():
        async with running_engine() as engine:
            return await interleaved(engine), await apart(engine), await interleaved(engine, mix=True)

    one, two, mixed = run(main())
    for events in (one, two):
        assert texts(events, 0) == ["левый"]
        assert texts(events, 1) == ["правый"]
        assert {e.segment.speaker for e in events if isinstance(e, Final)} == {"1", "2"}
    assert texts(mixed) == ["левый", "правый"]


def test_one_track_may_stay_silent_while_the_other_speaks_for_longer_than_the_inbox():
    async def main():
        options = SessionOptions(channels=2, interleaved=False)
        async with running_engine(inbox_s=1.0) as engine, await engine.open(options) as session:
            audio = pcm(say("только один говорит", before_s=3, after_s=3))
            for start in range(0, len(audio), 800):
                await session.feed(audio[start : start + 800], channel=1)
            session.finish()
            return await collect(session)

    assert texts(run(main()), 1) == ["только один говорит"]


def test_flush_ends_the_phrase_and_times_go_on():
    async def main():
        async with running_engine() as engine, await engine.open() as session:
            await session.feed(say("раз", before_s=1.0))
            session.flush()
            await session.feed(say("два", before_s=1.0, after_s=0.1))
            session.finish()
            return await collect(session)

    events = run(main())
    finals = [e.segment for e in events if isinstance(e, Final)]
    assert [s.text for s in finals] == ["раз", "два"]
    flushed = next(e for e in events if isinstance(e, Flushed))
    assert flushed.time == pytest.approx(1.0 + 3 * 0.12)
    assert finals[1].start == pytest.approx(flushed.time + 1.0, abs=0.1)
    assert events.index(flushed) > events.index(Final(finals[0]))


def test_start_moves_all_times():
    async def main():
        async with running_engine() as engine:
            found = []
            for start in (0.0, 100.0):
                async with await engine.open(SessionOptions(start_s=start)) as session:
                    await session.feed(say("раз", before_s=1.0, after_s=1.0))
                    session.finish()
                    found.append(([e for e in await collect(session) if isinstance(e, Final)], session.done_s))
            return found

    ((plain,), _), ((moved,), done) = run(main())
    assert moved.segment.start == pytest.approx(plain.segment.start + 100)
    assert moved.segment.words[0].end == pytest.approx(plain.segment.words[0].end + 100)
    assert done == pytest.approx(102.36)


def test_untaken_partials_are_replaced_and_finals_kept():
    async def main():
        async with running_engine() as engine, await engine.open() as session:
            for start in range(0, len(SPEECH), 2400):
                await session.feed(SPEECH[start : start + 2400])
                await session.settle()
            return session.take()

    events = run(main())
    kinds = [type(e) for e in events]
    assert kinds.count(Final) == 2
    assert all(kinds[i : i + 2] != [Partial, Partial] for i in range(len(kinds)))


def test_a_full_inbox_stops_the_feeder_and_a_full_outbox_the_steps():
    async def main():
        async with running_engine(inbox_s=2.0, max_events=2) as engine, await engine.open() as session:
            feeding = asyncio.create_task(session.feed(np.concatenate([SPEECH] * 8)))
            await asyncio.sleep(0.3)
            stuck = not feeding.done()
            held = session.backlog_s
            reading = asyncio.create_task(collect(session))
            await feeding
            session.finish()
            return stuck, held, await reading

    stuck, held, events = run(main())
    assert stuck
    assert held <= 2.0 + 1.0
    assert texts(events) == ["привет мир", "как дела"] * 8


def slow_asr():
    """The toy, a chunk a step, so that much is left when a step is over."""
    asr = toy_asr()
    asr.recognizer.max_chunks = 1
    return asr


@pytest.mark.parametrize("finish", [True, False])
def test_steps_go_on_after_a_full_outbox_though_nothing_is_queued_any_more(finish):
    async def main():
        options = {"inbox_s": 60.0, "max_events": 2}
        async with running_engine(slow_asr(), **options) as engine, await engine.open() as session:
            intake = session._intake
            await session.feed(np.concatenate([SPEECH] * 8))
            if finish:
                session.finish()
            while not intake._held or intake._queue or engine.batcher.busy(session):
                await asyncio.sleep(0.01)
            events = []
            async for event in session:
                events.append(event)
                if len(texts(events)) == 16:
                    break
            return events

    assert texts(run(main())) == ["привет мир", "как дела"] * 8


class Loop:
    """An event loop of which workers get to see another side."""

    def __init__(self, loop, call_soon_threadsafe):
        self.loop, self.call_soon_threadsafe = loop, call_soon_threadsafe

    def __getattr__(self, name):
        return getattr(self.loop, name)


def test_events_come_in_order_though_a_worker_pauses_before_it_tells():
    """Meanwhile the other worker could step the session to its end."""
    pauses = []

    async def main():
        async with running_engine(slow_asr()) as engine, await engine.open() as session:
            loop = asyncio.get_running_loop()

            def slowly(deliver, reports):
                if any(isinstance(event, Final) for report in reports.values() for event in report.events):
                    pauses.append(True)
                    time.sleep(0.3)
                loop.call_soon_threadsafe(deliver, reports)

            engine._loop = Loop(loop, slowly)
            await session.feed(SPEECH)
            session.finish()
            return await collect(session)

    events = run(main())
    assert len(pauses) == 2
    assert texts(events) == ["привет мир", "как дела"]
    assert [type(e) for e in events if not isinstance(e, Partial)] == [SpeechStart, Final, SpeechEnd] * 2


def test_settling_waits_for_reports_that_are_under_way():
    """The loop hears of a step long after the last one is done."""

    async def main():
        async with running_engine(slow_asr()) as engine, await engine.open() as session:
            loop = asyncio.get_running_loop()
            engine._loop = Loop(loop, lambda *call: loop.call_soon_threadsafe(loop.call_later, 0.2, *call))
            await session.feed(SPEECH)
            await session.settle()
            settled = session.done_s
            await asyncio.sleep(0.5)
            return settled, session.done_s

    settled, later = run(main())
    assert settled == later > 5


def test_a_session_that_is_offered_while_a_worker_ends_it_does_not_fail(caplog):
    async def main():
        async with running_engine() as engine, await engine.open() as session:
            collected, over = session._intake.collect, []
            loop = asyncio.get_running_loop()

            def late():
                report = collected()
                over.append(report.over)
                if over.count(True) == 1:
                    engine.batcher.offer(session)
                return report

            session._intake.collect = late
            engine._loop = Loop(loop, lambda *call: loop.call_soon_threadsafe(loop.call_later, 0.3, *call))
            await session.feed(SPEECH)
            session.finish()
            return await collect(session), over

    events, over = run(main())
    assert texts(events) == ["привет мир", "как дела"]
    assert over[-2:] == [True, True]
    assert not caplog.records


def test_cancel_frees_the_state_at_once():
    async def main():
        async with running_engine() as engine:
            session = await engine.open()
            await session.feed(say("раз два", before_s=1))
            await session.settle()
            stream = weakref.ref(session._intake.streams[0])
            session.cancel()
            session.cancel()
            gc.collect()
            gone = stream() is None
            with pytest.raises(StreamClosed):
                await session.feed(b"\0\0")
            return gone, engine.active, await collect(session)

    assert run(main()) == (True, 0, [])


def test_limits_refuse_and_let_in_again():
    async def main():
        async with running_engine(max_streams=2) as engine:
            one, two = await engine.open(), await engine.open()
            with pytest.raises(Overloaded, match="2 streams"):
                await engine.open()
            one.cancel()
            three = await engine.open()
            for session in (two, three):
                session.cancel()
            engine.batcher.pressure = lambda: 5.0
            with pytest.raises(Overloaded, match=r"5\.0 s"):
                await engine.open()
            return engine.metrics.render()

    text = run(main())
    assert 'rechka_streams_refused_total{reason="streams"} 1' in text
    assert 'rechka_streams_total{end="cancelled"} 3' in text


def test_places_are_counted_before_streams_are_made():
    async def main():
        async with running_engine(max_streams=3) as engine:
            found = await asyncio.gather(*(engine.open() for _ in range(10)), return_exceptions=True)
            return sum(isinstance(item, Overloaded) for item in found)

    assert run(main()) == 7


@pytest.mark.parametrize(
    "options",
    [
        {"sample_rate": 10},
        {"encoding": "mp3"},
        {"channels": 0},
        {"channels": 99},
        {"mix": True, "interleaved": False},
        {"hotwords": {"x" * 500: 1.0}},
        {"min_silence_s": 0.0},
        {"min_silence_s": float("nan")},
        {"start_s": -1.0},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UsageError):
        SessionOptions(**options)


def test_a_session_too_long_is_told():
    async def main():
        async with running_engine(max_session_s=1.0) as engine, await engine.open() as session:
            await session.feed(silence(0.9))
            with pytest.raises(AudioTooLong):
                await session.feed(silence(0.2))

    run(main())


class Poisoned:
    """A recogniser that fails for batches with a stream whose inbox holds a very loud sample."""

    def __init__(self, inner, error):
        self.inner, self.error, self.calls = inner, error, []
        self.spec, self.max_chunks = inner.spec, inner.max_chunks
        self.open, self.ready, self.pending, self.run = inner.open, inner.ready, inner.pending, inner.run

    def step(self, streams):
        self.calls.append(len(streams))
        if any(np.abs(stream.inbox.peek(len(stream.inbox))).max() > 5 for stream in streams):
            raise self.error
        self.inner.step(streams)


def test_only_the_poisoned_stream_fails():
    asr = toy_asr()
    asr.recognizer = Poisoned(asr.recognizer, RuntimeError("boom"))

    async def one(engine, audio):
        async with await engine.open() as session:
            await session.feed(audio)
            session.finish()
            return await collect(session)

    async def main():
        async with running_engine(asr, workers=1, max_wait_ms=100) as engine:
            bad = np.concatenate([say("раз"), np.full(2400, 6.0, np.float32), say("два")])
            found = await asyncio.gather(
                *(one(engine, SPEECH) for _ in range(3)), one(engine, bad), return_exceptions=True
            )
            return found, engine.active

    found, active = run(main())
    assert [texts(events) for events in found[:3]] == [["привет мир", "как дела"]] * 3
    assert isinstance(found[3], StreamFailed)
    assert active == 0
    assert max(asr.recognizer.calls) > 1, "the failing batch had company"


def test_bad_samples_end_their_session_with_their_own_error():
    async def main():
        async with running_engine() as engine, await engine.open(SessionOptions(encoding="f32le")) as session:
            await session.feed(np.full(8000, np.nan, "<f4").tobytes())
            session.finish()
            with pytest.raises(BadSamples):
                await collect(session)

    run(main())


def test_drain_finishes_what_is_open_and_takes_nothing_new():
    async def main():
        async with running_engine() as engine:
            session = await engine.open()
            await session.feed(say("до конца", before_s=0.5))
            draining = asyncio.create_task(engine.drain(0.05))
            await asyncio.sleep(0)
            with pytest.raises(Draining):
                await engine.open()
            events = await collect(session)
            await draining
            return events, session.drained, engine.ready

    events, drained, ready = run(main())
    assert texts(events) == ["до конца"]
    assert drained
    assert not ready


@pytest.mark.parametrize("end", ["drain", "close"])
def test_a_session_that_is_being_opened_when_the_engine_ends_is_refused(end):
    """The drain would not know of it, and after the end nobody would step it."""
    asr, opening, let_go = toy_asr(), threading.Event(), threading.Event()
    opened = asr.recognizer.open

    def slowly(**options):
        opening.set()
        assert let_go.wait(PATIENCE_S)
        return opened(**options)

    async def main():
        async with running_engine(asr) as engine:
            asr.recognizer.open = slowly
            asked = asyncio.create_task(engine.open())
            await asyncio.to_thread(opening.wait, PATIENCE_S)
            await (engine.drain() if end == "drain" else engine.close())
            let_go.set()
            with pytest.raises(Draining):
                await asked
            return engine.active

    assert run(main()) == 0


def test_a_feeder_that_the_drain_finds_waiting_hears_no_error():
    """Its inbox is full, as those of all who send faster than speech are; the last words are for it too."""

    async def main():
        async with running_engine(slow_asr(), inbox_s=2.0, max_events=2) as engine:
            session = await engine.open()
            feeding = asyncio.create_task(session.feed(np.concatenate([SPEECH] * 8)))
            while not session._intake._held or engine.batcher.busy(session):
                await asyncio.sleep(0.01)
            until_empty, waits = engine._until_empty, iter([0.0, PATIENCE_S])
            engine._until_empty = lambda _: until_empty(next(waits))
            draining = asyncio.create_task(engine.drain())
            events = await collect(session)
            await feeding
            await session.feed(SPEECH)
            await draining
            return events, session

    events, session = run(main())
    assert session.drained
    assert texts(events)[0] == "привет мир"
    assert session.done_s == pytest.approx(session.fed_s)
    assert 2 < session.fed_s < 8 * len(SPEECH) / 8000


def test_closing_the_engine_ends_every_session():
    async def main():
        engine = Engine(toy_asr(), EngineOptions(workers=2))
        await engine.start()
        session = await engine.open()
        await session.feed(SPEECH)
        await engine.close()
        return await collect(session), [thread.is_alive() for thread in engine._threads]

    _, alive = run(main())
    assert alive == [False, False]


def test_files_go_through_the_engine():
    left, right = say("левый", before_s=0.5, after_s=3), say("правый", before_s=2, after_s=1.38)
    stereo = np.stack([left, right[: len(left)]], axis=1)

    async def main():
        async with running_engine() as engine:
            seen = []
            split = await transcribe(
                engine, wav_bytes(stereo, 8000), split=True, on_progress=lambda done, total: seen.append((done, total))
            )
            mono = await transcribe(engine, (say("файл", before_s=1, after_s=1, sample_rate=16000), 16000))
            with pytest.raises(AudioTooLong):
                await transcribe(engine, wav_bytes(stereo, 8000), max_seconds=1.0)
            with pytest.raises(EmptyAudio):
                await transcribe(engine, b"")
            return split, mono, seen, engine.active

    split, mono, seen, active = run(main())
    assert [(s.channel, s.speaker, s.text) for s in split.segments] == [(0, "1", "левый"), (1, "2", "правый")]
    assert split.to_dict() == toy_asr().transcribe((stereo, 8000), channels="split").to_dict() | {"model": "toy"}
    assert mono.text == "файл"
    assert seen[-1][1] == pytest.approx(len(stereo) / 8000)
    assert active == 0


def test_a_cancelled_file_leaves_nothing():
    async def main():
        async with running_engine() as engine:
            task = asyncio.create_task(transcribe(engine, (np.tile(SPEECH, 200), 8000)))
            while not engine.active:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return engine.active

    assert run(main()) == 0


class Halting:
    """A recording that stops before its second half until it is let go."""

    sample_rate, channels, duration, truncated = 8000, 1, None, False

    def __init__(self, samples):
        self.samples, self.halted, self.let_go = samples, threading.Event(), threading.Event()

    def __iter__(self):
        yield (AudioChunk(self.samples, 8000, 0),)
        self.halted.set()
        assert self.let_go.wait(PATIENCE_S)
        yield (AudioChunk(self.samples, 8000, len(self.samples)),)


def test_a_recording_is_no_text_if_the_engine_ends_it_before_it_is_read():
    """What was recognised until then looks like the text of a shorter recording."""
    recording = Halting(SPEECH)

    async def main():
        async with running_engine() as engine:
            hearing = asyncio.create_task(transcribe(engine, recording))
            await asyncio.to_thread(recording.halted.wait, PATIENCE_S)
            (session,) = engine.sessions
            session.finish()  # as drain does
            while not session.over:
                await asyncio.sleep(0.01)
            recording.let_go.set()
            with pytest.raises(Draining):
                await hearing

    run(main())


def test_a_recording_is_no_text_if_the_engine_cancels_it_before_its_end():
    asr, stepping, let_go = toy_asr(), threading.Event(), threading.Event()
    step = asr.recognizer.step

    def halting(streams):
        stepping.set()
        assert let_go.wait(PATIENCE_S)
        return step(streams)

    async def main():
        async with running_engine(asr) as engine:
            asr.recognizer.step = halting
            hearing = asyncio.create_task(transcribe(engine, (say("привет"), 8000)))
            await asyncio.to_thread(stepping.wait, PATIENCE_S)
            (session,) = engine.sessions
            while not session.finished:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0)  # whoever reads is through
            session.cancel()  # as drain does after its last patience
            let_go.set()
            with pytest.raises(Draining):
                await hearing

    run(main())


def test_cores_obey_the_quota(tmp_path):
    free = cores(tmp_path)
    assert free >= 1
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cores(tmp_path) == free
    (tmp_path / "cpu.max").write_text("20000 100000\n")
    assert cores(tmp_path) == 1
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cores(tmp_path) == free


def test_metrics_text():
    registry = Registry()
    counter = registry.counter("c_total", "C.", ("who",))
    counter.add(2, 'a"b\\c\n')
    registry.gauge("g", "G.", lambda: {("x",): 1.5}, ("k",))
    histogram = registry.histogram("h", "H.", (1, 2))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)
    assert registry.render().splitlines() == [
        "# HELP c_total C.",
        "# TYPE c_total counter",
        'c_total{who="a\\"b\\\\c\\n"} 2',
        "# HELP g G.",
        "# TYPE g gauge",
        'g{k="x"} 1.5',
        "# HELP h H.",
        "# TYPE h histogram",
        'h_bucket{le="1"} 2',
        'h_bucket{le="2"} 3',
        'h_bucket{le="+Inf"} 4',
        "h_sum 12",
        "h_count 4",
    ]
    for i in range(3000):
        counter.add(1, str(i))
    assert len(counter.lines()) <= 1001
    assert counter.value("other") > 0
