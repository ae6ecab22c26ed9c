"""The telephone: protocols that bring the audio of calls, and a board where the words of calls are told.

None of these protocols has a place for text, so what is said goes to ``Calls``: others listen there while the call
lasts, and a webhook is told at its end. Each adapter is a parser and a thin loop over one ``Line``.
"""
