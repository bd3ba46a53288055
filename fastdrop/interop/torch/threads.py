"""How many threads the kernels use beside torch's."""

import torch

import fastdrop.config

__all__ = ["follow_torch"]

_DEFAULT = fastdrop.config.default_num_threads()


def follow_torch():
    """Use no more threads than torch does, unless the user has said how many.

    ``torch.set_num_threads``, and what calls it, such as a DataLoader's worker, holds for the
    kernels as well, until `fastdrop.set_num_threads` or FASTDROP_NUM_THREADS says otherwise.
    """
    config = fastdrop.config
    if not config.threads_chosen():
        number = min(_DEFAULT, torch.get_num_threads())
        if number != config.get_num_threads():
            config.follow_num_threads(number)
