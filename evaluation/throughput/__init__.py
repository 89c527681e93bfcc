"""Generated tokens a second under a memory budget: a Mamba-2 against a Transformer of its size."""
