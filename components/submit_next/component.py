"""At the end of a run, also of one that failed: start the run that continues the study, and report."""

from kfp import dsl
from kfp.dsl import HTML, Markdown, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def submit_next(
    status: dsl.PipelineTaskFinalStatus,
    store: str,
    kfp_run: str,
    further_runs: int,
    report: Output[HTML],
    note: Output[Markdown],
) -> str:
    """At the end of a run, also of one that failed: start the run that continues the study, and report.

    At most one run follows, however often the step is repeated; none when the study is at its end, and none after three
    runs in a row without a new trial. For use as an exit task (dsl.ExitHandler).

    Args:
        status: How the run has ended, as KFP sees it. It decides nothing: KFP says RUNNING of runs that went well.
        store: Where the study's files are, study.yaml among them.
        kfp_run: This run's id in KFP.
        further_runs: How many runs may follow this one.
        report: The study on one page, with figures.
        note: A summary of the study.

    Returns:
        The next run's id in KFP; empty if none was started.
    """
    from pathlib import Path

    from rlhpo_core.kubeflow.steps import chain

    return chain.submit_next(store, kfp_run, further_runs, Path(report.path), Path(note.path))
