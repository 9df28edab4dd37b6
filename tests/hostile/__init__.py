"""What nobody should send: over HTTP, over ZMTP to both ports of a broker, and to its core."""
