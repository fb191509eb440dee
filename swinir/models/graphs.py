"""A function recorded on a GPU as a CUDA graph, so that its hundreds of kernels start without the processor's help."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3  # calls before a recording: compilation, autotuning and workspaces are then behind us


class Recording:
    """`function` of one tensor of one shape; replayed, it reads and writes the very memory it was recorded with.

    Args:
        function: (any shape) to a tensor, on a CUDA device, without synchronising with it.
        example: a tensor of the shape to come.
        held: objects whose memory the function uses without owning it; they live as long as the recording.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], example: Tensor, held: Any = None) -> None:
        self.held = held
        self.input = example.clone()
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                function(self.input)
        current.wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = function(self.input)

    def __call__(self, x: Tensor) -> Tensor:
        self.input.copy_(x)
        self.graph.replay()
        return self.output.clone()
