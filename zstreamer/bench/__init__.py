"""Load on a running cluster or a URL, and how it answers.

targets, http   one call: to a cluster, or to a URL
starts          when calls begin, in an open loop
load            open and closed loops of calls
step            what became of the calls of one rate, or of so many callers
sweep           which rate is next, and where the knee is
run             steps one after another; a run as JSON
compare, plot   two runs side by side; a run as a picture
"""

from zstreamer.bench.run import Plan, Run, measure

__all__ = ["Plan", "Run", "measure"]
