"""Teacher engines behind one protocol."""
