"""A load for servers: many clients that speak at the pace of speech, whatever the server does, and what they saw.

The load is open: when each call begins and when each packet is due stands in a plan that is made beforehand, and all
latencies are counted from the plan. A server that stops makes the calls late, and that lateness is in the figures; with
times counted from when a packet could be sent, it would hide exactly what it did worst ("coordinated omission").
"""

from rechka.server.load.level import Level, Load, run_level
from rechka.server.load.plan import Plan, make_plan
from rechka.server.load.search import find_most
from rechka.server.load.speech import Script, make_scripts, read_clips

__all__ = ["Level", "Load", "Plan", "Script", "find_most", "make_plan", "make_scripts", "read_clips", "run_level"]
