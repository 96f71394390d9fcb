"""The same study on a cluster: any Dask scheduler by its address; here also how SLURM starts one.

python 5_cluster.py STUDY "pfirrmann" tcp://10.0.0.1:8786
python 5_cluster.py STUDY "pfirrmann" slurm          (needs dask-jobqueue; edit queue, memory and time below)

The workers need the same Python packages and must see the study folder under the same path.
"""

import sys

from DiscStudyLib import Cluster, run_study


def on_scheduler(path, formula, address, **settings):
    """Run a study on the workers of a Dask scheduler."""
    run = run_study(path, formula, cluster=Cluster(address), on_error="skip", **settings)
    print(len(run.failed), "step(s) failed; report:", run.report)
    return run


def on_slurm(path, formula, jobs=20, **settings):
    """Start workers with SLURM and run a study on them."""
    from dask_jobqueue import SLURMCluster

    # One person needs one core and about 2 GB; one job here is one worker.
    with SLURMCluster(cores=1, processes=1, memory="3GB", walltime="02:00:00", queue="normal") as cluster:
        cluster.scale(jobs=jobs)
        return on_scheduler(path, formula, cluster.scheduler_address, **settings)


if __name__ == "__main__" and len(sys.argv) > 3:
    study, model, where = sys.argv[1:4]
    if where == "slurm":
        on_slurm(study, model)
    else:
        on_scheduler(study, model, where)
