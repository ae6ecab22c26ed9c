"""The public calls of other packages, answered by rechka: a program changes one import line.

``rechka.compat.tone`` stands in for T-one's package ``tone``, ``rechka.compat.gigaam`` for ``gigaam``.
``docs/migrate.md`` tells what differs.
"""
