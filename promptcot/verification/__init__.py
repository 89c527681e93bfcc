"""Checks of model-written answers: mathematics in worker processes, programs in a sandbox."""
