"""What tests share: a cluster, waiting, a wire between cores, programs of their own, models."""
