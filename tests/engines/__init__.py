"""Clusters on the engines that place processes; `scripts/engines` runs them."""
