"""Tests of everything that speaks HTTP: what requests mean, the apps, the gateway."""
