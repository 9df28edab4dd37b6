"""A host of a model repository: it starts and stops workers of the models in a folder, as told.

    broker ── load bert@2 ──> host: core ── Start ──> supervisor ──> workers of bert@2
    broker <── what is there, and what runs ── core <── folder

`folder` says which models there are, `core` what is to run, and `host` has the processes.
"""
