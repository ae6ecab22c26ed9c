"""Measurements of T-one on this machine against what the machine could do at best."""
