"""The optimizer is PyTorch's Adam, without the import of its compiler."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from coldbench.training.adam import Adam

STEPS = """
import sys, torch
from coldbench.training.adam import Adam
weight = torch.nn.Parameter(torch.ones(3))
adam = Adam([weight], lr=0.1, fused=True)
for _ in range(2):
    adam.zero_grad()
    weight.square().sum().backward()
    adam.step()
    adam.load_state_dict(adam.state_dict())
print("torch._dynamo" in sys.modules)
"""


def test_it_makes_the_steps_of_pytorchs_adam() -> None:
    """Bit for bit, also after its state was loaded into another one."""
    states = []
    for kind in (torch.optim.Adam, Adam):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 1, 3))
        optimizer = kind(network.parameters(), lr=1e-2, fused=True)
        for step in range(6):
            if step == 3:
                state = optimizer.state_dict()
                optimizer = kind(network.parameters(), lr=5.0, fused=True)
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            network(torch.rand(2, 1, 8, 8)).abs().mean().backward()
            optimizer.step()
        states.append((network.state_dict(), optimizer.state_dict()))
    (ours, our_state), (theirs, their_state) = reversed(states)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert our_state["param_groups"] == their_state["param_groups"]
    for index, moments in our_state["state"].items():
        assert all(torch.equal(moments[name], their_state["state"][index][name]) for name in moments)


def test_a_step_makes_no_gradients_of_its_own() -> None:
    weight = nn.Parameter(torch.ones(2))
    adam = Adam([weight], lr=0.1)
    weight.sum().backward()
    adam.step()
    assert torch.is_grad_enabled()
    assert all(not moment.requires_grad for moment in adam.state[weight].values())


def test_it_does_not_import_the_compiler() -> None:
    answer = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
