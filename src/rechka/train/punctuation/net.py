"""The network: hashed words in, marks and capitals out; convolutions over words that look few words ahead."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rechka.text.punctuation import CASES, MARKS, PAUSE_EDGES_S
from rechka.text.word_hashes import NUM_PIECES, NUM_WORDS


@dataclass(frozen=True, slots=True)
class NetOptions:
    """Sizes.

    Attributes:
        embedding: width of both tables.
        width: of the layers.
        layers: number of them.
        behind: words back that each layer sees; all together ``layers * behind``.
        look_ahead: layers that see one word ahead, which is as many words as all see together.
    """

    embedding: int = 64
    width: int = 192
    layers: int = 7
    behind: int = 5
    look_ahead: int = 4
    dropout: float = 0.1


class Layer(nn.Module):
    """Words mixed channel by channel over a window, then channels mixed word by word, gated, and added."""

    def __init__(self, options: NetOptions, ahead: int) -> None:
        super().__init__()
        width = options.width
        self.behind, self.ahead = options.behind, ahead
        self.norm = nn.LayerNorm(width)
        self.taps = nn.Parameter(torch.randn(options.behind + 1 + ahead, width) * 0.3)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(width, width)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """(B, T, D) and (B, T, 1), 1 where there is a word, to (B, T, D)."""
        size = x.shape[1]
        padded = F.pad(self.norm(x) * there, (0, 0, self.behind, self.ahead))
        mixed = sum(padded[:, tap : tap + size] * weight for tap, weight in enumerate(self.taps))
        return x + self.dropout(self.down(F.glu(self.up(mixed), dim=-1)))


class PunctuationNet(nn.Module):
    """See the module."""

    def __init__(self, options: NetOptions) -> None:
        super().__init__()
        self.options = options
        self.words = nn.Embedding(NUM_WORDS, options.embedding, padding_idx=0)
        self.pieces = nn.Embedding(NUM_PIECES, options.embedding, padding_idx=0)
        self.pauses = nn.Embedding(len(PAUSE_EDGES_S) + 2, options.width)
        for table in (self.words, self.pieces, self.pauses):
            nn.init.normal_(table.weight, std=0.1)
        with torch.no_grad():
            self.words.weight[0] = 0
            self.pieces.weight[0] = 0
        self.enter = nn.Linear(2 * options.embedding, options.width)
        self.layers = nn.ModuleList(Layer(options, int(i < options.look_ahead)) for i in range(options.layers))
        self.norm = nn.LayerNorm(options.width)
        self.leave = nn.Linear(options.width, len(MARKS) + len(CASES))

    def forward(self, words: Tensor, pieces: Tensor, pauses: Tensor, there: Tensor) -> Tensor:
        """Scores (B, T, 9) of marks and then cases.

        Args:
            words: (B, T) rows of the table of words.
            pieces: (B, T, 8) rows of the table of pieces.
            pauses: (B, T) classes of the pause behind each word.
            there: (B, T) 1.0 where there is a word.
        """
        found = torch.cat([self.words(words), self.pieces(pieces).sum(dim=2)], dim=-1)
        mask = there[..., None]
        x = self.enter(found) + self.pauses(pauses)
        for layer in self.layers:
            x = layer(x, mask)
        return self.leave(self.norm(x))
