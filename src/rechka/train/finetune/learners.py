"""What a family brings to fine-tuning: its module, its texts, how audio is laid out, its loss, its greedy text.

Shapes: B items, n samples, F features of 10 ms, M mel bands, T frames, U labels, V classes.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rechka.decoding.transducer import TransducerGreedy
from rechka.errors import BadModelFile, ModelNotFound
from rechka.export.source import Source
from rechka.features import gigaam as gigaam_features
from rechka.features import tone as tone_features
from rechka.nn.gigaam import GigaAm, RnntHead, load_gigaam
from rechka.nn.gigaam_config import GigaAmConfig, completed, unprefixed
from rechka.nn.tone import Tone
from rechka.nn.tone_config import VOCABULARY, ToneConfig
from rechka.nn.weights import check_names
from rechka.protocols import PredictorState
from rechka.train.finetune.config import Usual
from rechka.train.finetune.pieces import PieceEncoder
from rechka.train.finetune.targets import Targets, repeats
from rechka.train.rnnt_loss import transducer_loss
from rechka.types import F32, Encoded

Ids = Sequence[int]


class Learner(ABC):
    """A model that is being trained.

    Attributes:
        module: the network.
        source: what it was made from.
        targets: its vocabulary.
        sample_rate: of its audio.
        num_layers: of the encoder.
    """

    sample_rate: int
    family: str
    frame: int
    """Samples per output frame."""
    usual = Usual()
    """Settings of a run that leaves them open."""

    def __init__(self, module: nn.Module, source: Source, targets: Targets, num_layers: int) -> None:
        self.module, self.source, self.targets, self.num_layers = module, source, targets, num_layers

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    def with_module(self, module: nn.Module) -> Learner:
        """The same around other weights."""
        return type(self)(module, self.source, self.targets, self.num_layers)

    def depth(self, name: str) -> int:
        """How far up a parameter is: 0 before the encoder's layers, 1 ... n in them, n + 1 in the head."""
        if name.startswith("encoder.layers."):
            return 1 + int(name.split(".")[2])
        return 0 if name.startswith("encoder.pre_encode.") else self.num_layers + 1

    @abstractmethod
    def laid_out(self, samples: F32, rng: np.random.Generator | None) -> F32:
        """Samples with the silence around them that the model gets in use; a random amount where ``rng`` is given."""

    @abstractmethod
    def num_frames(self, samples: int) -> int:
        """Frames for so many laid-out samples."""

    def possible(self, frames: int, ids: Ids) -> bool:
        """Whether so many frames can say the labels: CTC needs one for each, and one between equal neighbours."""
        return frames >= len(ids) + repeats(ids)

    @abstractmethod
    def features(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n) samples and their numbers to (B, F, M) log-mel features and their numbers."""

    @abstractmethod
    def losses(self, features: Tensor, counts: Tensor, labels: Sequence[Ids]) -> Tensor:
        """(B,) losses, in natural log, from (B, F, M) features and how many of F count."""

    @abstractmethod
    def read(self, features: Tensor, counts: Tensor) -> list[str]:
        """The text of each item by greedy search."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The weights by their published names."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.module.state_dict().items()}

    def trained(self) -> Source:
        """What ``rechka.export.convert`` makes a model of."""
        return replace(self.source, arrays=self.arrays(), fine_tuned=True)


def ctc_losses(log_probs: Tensor, frames: Tensor, labels: Sequence[Ids], blank: int) -> Tensor:
    """(B,) CTC losses of (B, T, V) log-probabilities; one that is impossible counts nothing."""
    flat = torch.tensor([index for ids in labels for index in ids], dtype=torch.long, device=log_probs.device)
    lengths = torch.tensor([len(ids) for ids in labels], device=log_probs.device)
    return functional.ctc_loss(
        log_probs.transpose(0, 1), flat, frames, lengths, blank=blank, reduction="none", zero_infinity=True
    )


def best_path(log_probs: Tensor, frames: Tensor, targets: Targets) -> list[str]:
    """The text of each item: best class of every frame, repeats joined, blanks dropped."""
    texts = []
    for row, count in zip(log_probs.argmax(-1).cpu().numpy(), frames.tolist(), strict=True):
        path = row[:count]
        first = np.ones(count, bool)
        first[1:] = path[1:] != path[:-1]
        texts.append(targets.decode(path[first & (path != targets.blank)].tolist()))
    return texts


class ToneLearner(Learner):
    """T-one: attention sees the chunks and the left context that it sees in a stream, wherever the speech begins."""

    family = "tone"
    sample_rate = tone_features.SAMPLE_RATE
    frame = 3 * tone_features.HOP
    module: Tone

    def laid_out(self, samples: F32, rng: np.random.Generator | None) -> F32:
        """A chunk of silence on both sides, as T-one's own scripts and our recogniser have it, and whole chunks.

        In training speech begins anywhere within a chunk, as it does in a call.
        """
        chunk = self.module.config.chunk_samples
        before = chunk + (0 if rng is None else int(rng.integers(chunk)))
        whole = -(-(before + len(samples) + chunk) // chunk) * chunk
        return np.pad(samples, (before, whole - before - len(samples)))

    def num_frames(self, samples: int) -> int:
        """Frames of 30 ms, 240 samples each; laid-out samples are whole frames."""
        return samples // self.frame

    def features(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n) samples at 8 kHz to (B, n / 80, 64) log-mel features, without gradients; one for every 10 ms."""
        with torch.no_grad():
            return self.module.features(audio), lengths // tone_features.HOP

    def losses(self, features: Tensor, counts: Tensor, labels: Sequence[Ids]) -> Tensor:
        """(B,) CTC losses; an item that its frames cannot say counts 0."""
        log_probs, frames = self.module.hear(features, counts)
        return ctc_losses(log_probs, frames, labels, self.targets.blank)

    def read(self, features: Tensor, counts: Tensor) -> list[str]:
        """The text of each item, by its best path."""
        log_probs, frames = self.module.hear(features, counts)
        return best_path(log_probs, frames, self.targets)

    def depth(self, name: str) -> int:
        """As everywhere; what halves the number of frames counts to the layer at its place."""
        if name.startswith("encoder.temportal_reduction."):
            return 1 + self.module.config.reduction_position
        return super().depth(name)


class GigaAmLearner(Learner):
    """GigaAM with a CTC head: whole phrases at 16 kHz."""

    family = "gigaam"
    sample_rate = gigaam_features.SAMPLE_RATE
    frame = 4 * gigaam_features.HOP
    module: GigaAm

    def laid_out(self, samples: F32, rng: np.random.Generator | None) -> F32:
        """In training up to 0.2 s of silence on both sides: a phrase detector cuts now tightly, now loosely."""
        if rng is not None:
            before, after = (int(rng.integers(self.sample_rate // 5)) for _ in range(2))
            samples = np.pad(samples, (before, after))
        return np.pad(samples, (0, max(0, self.module.preprocessor.shortest - len(samples))))

    def num_frames(self, samples: int) -> int:
        """Frames of 40 ms: a quarter of the features, counted as the front end of the checkpoint counts them."""
        front = self.module.preprocessor
        features = samples // gigaam_features.HOP + 1
        if not front.center:
            features = max(0, samples - front.n_fft) // gigaam_features.HOP + 1
        return (features - 1) // 4 + 1

    def features(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n) samples at 16 kHz to (B, F, 64) log-mel features and the number of each item, without gradients."""
        with torch.no_grad():
            features, counts = self.module.preprocessor(audio, lengths)
            return features.transpose(1, 2), counts

    def losses(self, features: Tensor, counts: Tensor, labels: Sequence[Ids]) -> Tensor:
        """(B,) CTC losses; an item that its frames cannot say counts 0."""
        log_probs, frames = self.module.hear(features.transpose(1, 2), counts)
        return ctc_losses(log_probs, frames, labels, self.targets.blank)

    def read(self, features: Tensor, counts: Tensor) -> list[str]:
        """The text of each item, by its best path."""
        log_probs, frames = self.module.hear(features.transpose(1, 2), counts)
        return best_path(log_probs, frames, self.targets)


class GigaAmRnntLearner(GigaAmLearner):
    """GigaAM with an RNN-T head."""

    @property
    def head(self) -> RnntHead:
        """Predictor and joint network."""
        head = self.module.head
        assert isinstance(head, RnntHead)  # open_learner saw to it
        return head

    def possible(self, frames: int, ids: Ids) -> bool:
        """A frame may say several labels, but no more than the search takes."""
        return len(ids) <= frames * self.module.config.max_symbols

    def losses(self, features: Tensor, counts: Tensor, labels: Sequence[Ids]) -> Tensor:
        """(B,) RNN-T losses. The predictor runs in float32 whatever the rest does."""
        encoded, frames = self.module.hear(features.transpose(1, 2), counts)
        config, blank, most = self.module.config, self.targets.blank, max(map(len, labels))
        padded = [[blank, *ids, *[0] * (most - len(ids))] for ids in labels]
        tokens = torch.tensor(padded, device=encoded.device)
        with torch.autocast(encoded.device.type, enabled=False):
            predicted, _ = self.head.decoder(tokens)
        lengths = torch.tensor([len(ids) for ids in labels], device=encoded.device)
        return transducer_loss(
            self._join, encoded, predicted, tokens[:, 1:], frames, lengths,
            blank=blank, classes=max(config.num_classes, config.joint_hidden),
        )  # fmt: skip

    def _join(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        joint = self.head.joint
        return joint.joint_net(joint.enc(encoded)[:, :, None] + joint.pred(predicted)[:, None])

    def read(self, features: Tensor, counts: Tensor) -> list[str]:
        """The text of each item, by the greedy search of use."""
        encoded, frames = self.module.hear(features.transpose(1, 2), counts)
        search = TransducerGreedy(_Search(self), self.targets.tokens)
        rows = zip(encoded.float().cpu().numpy(), frames.tolist(), strict=True)
        pieces = [Encoded(row[:count], 0) for row, count in rows]
        paths = search.advance([search.begin() for _ in pieces], pieces)
        return [self.targets.decode(path.tokens) for path in paths]


class _Search:
    """Predictor and joint network of a module as a ``protocols.Transducer``, so that dev sets get the search of use."""

    def __init__(self, learner: GigaAmRnntLearner) -> None:
        self._learner = learner
        self.blank = learner.targets.blank
        self.skips = (self.blank,)
        self.max_symbols = learner.module.config.max_symbols

    def initial(self, n: int) -> tuple[F32, PredictorState]:
        """Predictor output and states of ``n`` hypotheses without tokens: a zero vector went in."""
        return self._predicted(np.full(n, self.blank), None)

    def predict(self, tokens: NDArray[np.int64], states: PredictorState) -> tuple[F32, PredictorState]:
        """Predictor output and states after one more token each."""
        return self._predicted(tokens, states)

    def _predicted(self, tokens: NDArray[np.int64], states: PredictorState | None) -> tuple[F32, PredictorState]:
        device = self._learner.device
        given = None
        if states is not None:
            hidden, cell = (torch.from_numpy(state).to(device).transpose(0, 1).contiguous() for state in states)
            given = (hidden, cell)
        out, after = self._learner.head.decoder(torch.from_numpy(tokens).to(device)[:, None], given)
        return out[:, 0].cpu().numpy(), tuple(state.transpose(0, 1).cpu().numpy() for state in after)

    def join(self, encoded: F32, predicted: F32) -> F32:
        """Log-probabilities for pairs of a frame and a predictor output."""
        device = self._learner.device
        pair = (torch.from_numpy(np.ascontiguousarray(part)).to(device)[:, None] for part in (encoded, predicted))
        return self._learner.head.joint(*pair)[:, 0, 0].cpu().numpy()


def open_learner(source: Source) -> Learner:
    """The model of a checkpoint, ready to be trained.

    Raises:
        BadModelFile: neither family, no CTC or RNN-T head, or weights and configuration that do not fit.
        ModelNotFound: the vocabulary lies in a SentencePiece model that is not there.
    """
    if "encoder.temportal_reduction.conv.weight" in source.arrays:
        return _tone(source)
    if "subsampling.one.weight" in source.arrays:
        from rechka.train.finetune.small import open_conformer

        return open_conformer(source)
    return _gigaam(source)


def _tone(source: Source) -> ToneLearner:
    config = ToneConfig() if source.config is None else ToneConfig.from_dict(source.config)
    if config.num_tokens != len(VOCABULARY) + 1:
        raise BadModelFile(f"T-one writes {len(VOCABULARY)} letters, this checkpoint has {config.num_tokens} outputs")
    module = Tone(config)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    check_names(source.arrays, shapes, what=str(source.path))
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in source.arrays.items()})
    return ToneLearner(module, source, Targets(VOCABULARY, len(VOCABULARY)), config.n_layers)


def _gigaam(source: Source) -> GigaAmLearner:
    named = unprefixed(source.arrays)
    if source.config is None:
        config = GigaAmConfig.from_weights({name: array.shape for name, array in named.items()}, name=source.name)
    else:
        config = GigaAmConfig.from_published(source.config)
    if config.task not in ("ctc", "rnnt"):
        raise BadModelFile(
            f"{source.path.name} is a GigaAM for {config.task!r}, which writes no text",
            remedy="start from a ctc or rnnt model",
        )
    arrays = {name: np.array(array) for name, array in completed(named, config).items()}
    module = load_gigaam(arrays, config, what=str(source.path))
    targets = _gigaam_targets(config, source)
    source = replace(source, config=_plain(config) if source.config is None else source.config)
    kind = GigaAmLearner if config.task == "ctc" else GigaAmRnntLearner
    return kind(module, source, targets, config.n_layers)


def _gigaam_targets(config: GigaAmConfig, source: Source) -> Targets:
    blank = config.num_classes - 1
    if config.vocabulary is not None:
        return Targets(config.vocabulary, blank)
    if source.tokenizer is None:
        raise ModelNotFound(
            f"{config.name or source.path.name} writes pieces of words, whose SentencePiece model is not there",
            remedy=f"put {config.name or 'NAME'}_tokenizer.model beside the checkpoint, or name it with --tokenizer",
        )
    encoder = PieceEncoder.read(source.tokenizer)
    if len(encoder.symbols) != blank:
        raise BadModelFile(
            f"the model has {blank} symbols, the tokenizer {len(encoder.symbols)}",
            remedy="the tokenizer belongs to another model",
        )
    return Targets(encoder.symbols, blank, encoder)


def _plain(config: GigaAmConfig) -> Mapping[str, Any]:
    values: Mapping[str, Any] = json.loads(json.dumps(config.to_dict()))
    return values
