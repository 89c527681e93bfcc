"""Supervised fine-tuning of the Mamba-2 student through the two phases of the curriculum."""
