"""`coldbench` in a process that says which steps it saves, and that environment variables disturb.

`STOP_AT` and `STOP_BY` send it a signal after a step; `SPOIL_AT` makes the images of a micro-batch NaN.
"""

import os
import signal

from processes import coldbench

from coldbench.training import checkpoints, loop

optimizer_step, training_batch, save_state = loop.optimizer_step, loop.training_batch, checkpoints.save_state
batches = []


def step(state, *args):
    result = optimizer_step(state, *args)
    if str(state.step) == os.environ.get("STOP_AT"):
        signal.raise_signal(int(os.environ["STOP_BY"]))
    return result


def batch(*args):
    batches.append(1)
    x0, xt, t = training_batch(*args)
    return (x0 * float("nan") if str(len(batches)) == os.environ.get("SPOIL_AT") else x0), xt, t


def save(folder, step, state):
    print("saved", step, flush=True)
    save_state(folder, step, state)


def main() -> None:
    loop.optimizer_step, loop.training_batch, checkpoints.save_state = step, batch, save
    coldbench()


if __name__ == "__main__":
    main()
