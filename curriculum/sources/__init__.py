"""Readers: one module per source schema, and the file and hub access they share."""
