"""Loops over characters and hashes, compiled: each module says what it computes.

Importing a module here imports numba (0.4 s), so callers do it inside functions. Only the modules
next door call kernels: :mod:`pipeline.word_hashes`, :mod:`pipeline.near_duplicates` and
:mod:`pipeline.token_counts`. All arithmetic is on integers, so results are the same everywhere.
"""
