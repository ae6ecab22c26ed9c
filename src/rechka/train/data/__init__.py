"""What training reads: ``rechka.data`` under the name by which fine-tuning knows it."""

from rechka.data import Decoded, Example, Row, RowStream, Shard, find_shards

__all__ = ["Decoded", "Example", "Row", "RowStream", "Shard", "find_shards"]
