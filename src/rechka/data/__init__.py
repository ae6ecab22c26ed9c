"""Recordings with texts from wherever they lie, as one stream that can be shuffled, split, stopped and resumed."""

from rechka.data.decode import Decoded, Example
from rechka.data.shards import Row, Shard, find_shards
from rechka.data.stream import RowStream

__all__ = ["Decoded", "Example", "Row", "RowStream", "Shard", "find_shards"]
