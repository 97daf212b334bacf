"""The paper's optimizer (appendix A; protocol 1.5)."""

from __future__ import annotations

import inspect

import torch


class Adam(torch.optim.Adam):
    """PyTorch's Adam without what it does for torch.compile, which imports torch._dynamo: a second of each process.

    PyTorch wraps these methods so that compiled code leaves them out. Here only the network is compiled, and no
    compiled code calls them.
    """

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
