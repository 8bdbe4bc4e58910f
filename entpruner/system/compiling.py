"""What a command loads before its first compiled step. The import of this module loads it.

The warm process imports it where a study says ``compile: true``. Its children inherit the compiler, and the checksums
of the files of PyTorch and Triton, which are part of each key of the cache of compiled code. Nothing here initializes a
GPU, because a child could not use it then: ``torch.utils.cpp_extension`` does, so only what it imports is imported.
"""

import setuptools.command.build_ext  # noqa: F401
import torch._inductor.compile_fx  # noqa: F401
from torch._inductor.codecache import torch_key
from torch._inductor.runtime.triton_compat import HAS_TRITON, triton_key

torch_key()  # it and the next remember their answers
if HAS_TRITON:
    triton_key()
