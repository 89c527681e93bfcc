"""Writes the bundled demo sources: own problems with worked reasoning, in the real schemas."""
