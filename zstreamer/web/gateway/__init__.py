"""The gateway: processes that serve one port.

    parent ── a listening socket, configuration, SIGTERM ──> child: connections ─> client ─> broker

The parent binds, starts the children and starts again those that die. It carries no request.
"""
