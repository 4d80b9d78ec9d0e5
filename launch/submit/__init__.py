"""Starts a stage on many devices: on this machine, on SLURM, or on Kubernetes.

What is started is always the same command as without: `vitrine STAGE …`, once for each device.
"""
