"""Live prices and open bars over the vendor's WebSocket: connections, conflation, storing, and what is told of it."""
