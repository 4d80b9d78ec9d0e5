"""`vitrine launch STAGE`: reads the stage's settings, then starts or submits it."""

from launch.submit.config import LaunchOptions


def launch(options: LaunchOptions, rest: list[str]) -> None:
    from launch.submit.kubernetes import submit_to_kubernetes
    from launch.submit.local import start_here
    from launch.submit.slurm import submit_to_slurm
    from launch.submit.stage import read_job

    submit = {"local": start_here, "slurm": submit_to_slurm, "kubernetes": submit_to_kubernetes}
    submit[options.on](read_job(options, rest), options)
