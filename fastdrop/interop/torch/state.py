"""The state of a module's stream in its ``state_dict``."""

import json

import torch

from fastdrop.stream import MaskStream

__all__ = ["StreamInState"]

_STATE = "rng_state"


class StreamInState:
    """A module with an attribute `rng`: if it is a MaskStream, it is saved and loaded with it."""

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if isinstance(self.rng, MaskStream):
            destination[prefix + _STATE] = _packed(self.rng.state)

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, *rest):
        name = prefix + _STATE
        if isinstance(self.rng, MaskStream):
            if name in state_dict:
                # In place: modules that share a stream go on sharing it.
                self.rng.state = _unpacked(state_dict[name])
            elif strict:
                missing.append(name)
            state_dict = {key: value for key, value in state_dict.items() if key != name}
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *rest)


def _packed(state):
    """The state of a stream as bytes in a tensor, as all formats of checkpoints keep them."""
    entropy = state["entropy"]
    if entropy is not None and not isinstance(entropy, int):
        entropy = [int(part) for part in entropy]
    text = json.dumps({**state, "entropy": entropy})
    return torch.frombuffer(bytearray(text, "ascii"), dtype=torch.uint8)


def _unpacked(tensor):
    try:
        state = json.loads(bytes(tensor.cpu().numpy()))
        return {**state, "spawn_key": tuple(state["spawn_key"])}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{_STATE} in the state_dict is no state of a MaskStream: {error}"
        ) from None
