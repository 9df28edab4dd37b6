"""Says in words what is wrong with a running cluster, how it knows, and what to do.

watch     snapshots over some seconds ─> evidence: how the counts have grown
probe     what is at an address that does not answer
batches, models, machines, reach     evidence ─> findings, worst first
"""

from zstreamer.doctor.finding import Finding, Report
from zstreamer.doctor.watch import examine

__all__ = ["Finding", "Report", "examine"]
