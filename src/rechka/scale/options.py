"""What is done with every recording of an archive."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from rechka.errors import UsageError


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How recordings are recognised and in which form their texts are written.

    Attributes:
        model: name, folder or card; None for the default.
        refine: a second model that reads every phrase again, or None.
        device: ``"cpu"`` or ``"cuda"``.
        channels: ``"mix"`` for one text of all channels, ``"split"`` for one speaker per channel.
        hotwords: words to expect, with their boosts in natural-log units.
        digits, punctuate: how the text is finished.
        format: ``"jsonl"``, or ``"parquet"``, which needs pyarrow.
        part_size: recordings of one part, the unit of work; a part that was not finished is done again.
        threads: of one worker.
    """

    model: str | None = None
    refine: str | None = None
    device: str = "cpu"
    channels: Literal["mix", "split"] = "mix"
    hotwords: dict[str, float] = field(default_factory=dict)
    digits: bool = False
    punctuate: bool = False
    format: Literal["jsonl", "parquet"] = "jsonl"
    part_size: int = 64
    threads: int = 1

    def __post_init__(self) -> None:
        if self.part_size < 1 or self.threads < 1:
            raise UsageError(f"part_size and threads must be 1 or more, got {self.part_size} and {self.threads}")

    def to_dict(self) -> dict[str, Any]:
        """For the plan and for workers elsewhere."""
        return dataclasses.asdict(self)

    @property
    def digest(self) -> str:
        """Equal for options that give equal output."""
        same = {key: value for key, value in self.to_dict().items() if key not in ("device", "threads", "part_size")}
        return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16]
