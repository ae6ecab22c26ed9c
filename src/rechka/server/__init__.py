"""The server: protocols as thin adapters over the engine\x27s sessions."""
