"""Triton kernels of the Mamba-2 block, differentiable and exact for packed documents.

The modules need Triton (which CUDA builds of PyTorch bring along), so nothing is imported here:
call ``trainer.kernels.availability.require(backend)`` first, then import what you use.

* ``convolution``: causal convolution + SiLU that restarts at each document.
* ``norms``: gated grouped RMSNorm; residual addition + RMSNorm.
* ``mamba_scan``: the chunked state-space scan of mamba-ssm.
* ``mixer``: convolution, scan and gated norm as one operation that saves the least memory.
* ``precompile``: compiles what a run needs before its first step.

Under ``TRITON_INTERPRET=1``, set before the first import, ``convolution`` and ``norms`` run on the
CPU, slowly and exactly as on a GPU: the tests use it.
"""
