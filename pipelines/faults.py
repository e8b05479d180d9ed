"""What can befall an edit on a machine, whoever runs it: too little memory, a GPU that is lost."""

import os


def out_of_memory(error: BaseException) -> bool:
    """Whether this is how torch, or Python, says that memory is short: on a GPU, or on a CPU."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def leave_if_broken(error: Exception) -> None:
    """After a fault on the GPU nothing works in this process any more: end it, and Ray starts another."""
    import torch

    if isinstance(error, getattr(torch, "AcceleratorError", ())):
        os._exit(1)
