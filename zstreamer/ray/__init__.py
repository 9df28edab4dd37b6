"""Clusters on Ray: Ray places and restarts the processes, the items travel over ZeroMQ.

    cluster = zstreamer.ray.run("bert_model:ManagedBertModel", num_workers=8, num_gpus=1)
    cluster.client().predict(["Happy birthday to [MASK]."])

    zstreamer.ray.get("default").scale(4)    # from any other job

`service.py` is what a program holds, `controller.py` the actor that keeps the cluster as wanted,
`actors.py` the actors that own a broker or a worker, `plan.py` the rule of what to start and stop,
`wanted.py` how many workers the load wants, and `addresses.py` how each of them finds the brokers.
"""

from zstreamer.ray.service import Cluster, get, run, serve_app
from zstreamer.ray.wanted import Autoscaling

__all__ = ["Autoscaling", "Cluster", "get", "run", "serve_app"]
