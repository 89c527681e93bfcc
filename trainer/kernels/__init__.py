"""Triton kernels of the Mamba-2 block, differentiable and exact for packed documents.

The modules need Triton (which CUDA builds of PyTorch bring along), so nothing is imported here:
call ``trainer.kernels.availability.require(backend)`` first, then import what you use.

* ``mixer``: what a block does between its two projections as one operation, made of
* ``convolution``: causal convolution + SiLU that restarts at each document,
* ``mamba_scan``: the chunked state-space scan, mamba-ssm's kernels called step by step, with
  ``score_gradients`` and ``state_gradients`` for the parts of backward that are ours,
* ``norms``: gated grouped RMSNorm; residual addition + RMSNorm.
* ``token_loss``: loss of a tile of logits and its gradient.
* ``precompile`` and ``tiles``: compile what a run needs before its first step; fix the tiles.

Under ``TRITON_INTERPRET=1``, set before the first import, our kernels run on the CPU, slowly and
as on a GPU, and the scan is PyTorch's: the tests use it.
"""
