"""The training loop, its checkpoints, several processes, and jobs on a Slurm cluster."""
