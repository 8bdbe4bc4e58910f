"""Block scores, by the criteria that arms and figures ask for."""

from entpruner.layout import MODEL, Layout, folder
from entpruner.params.arms import Criterion
from entpruner.params.base import Frozen
from entpruner.params.criteria import CRITERIA, cost_of
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.rules.rule import Given, Job, Rule, Seeded
from entpruner.sizes import memory
from entpruner.sizes.memory import Memory
from entpruner.sizes.work import Work
from entpruner.study.resolved import ResolvedStudy


class Ranking(Frozen):
    """How blocks are scored."""

    criterion: Criterion
    scoring: Scoring
    sampling: Sampling | None = None
    """For a criterion that samples images, which alone reads it."""

    @classmethod
    def of(cls, criterion: Criterion, scoring: Scoring, sampling: Sampling) -> "Ranking":
        samples = cost_of(criterion, scoring) == "samples"
        return cls(criterion=criterion, scoring=scoring, sampling=sampling if samples else None)


class ScoreSettings(Seeded, Ranking):
    remove: int | None = None
    """The number of blocks to remove, for the criteria that choose a set of that size."""


class Score(Rule):
    """Score every block of a network by one criterion."""

    name, on_gpu, copies = "score", True, 3
    lower = "scoring.batch_size"
    made = Layout.scores

    def ranking(self, study: ResolvedStudy, job: Job) -> tuple[Ranking, int]:
        """How a job scores, and how many blocks an arm removes that reads the scores: none if a figure alone does."""
        wanted = (job.backbone, job.data, job.seed, job.scores)
        for arm in study.arms.values():
            if arm.ranked_by is not None and (arm.backbone, arm.data, arm.seed, arm.scores) == wanted:
                return Ranking.of(arm.ranked_by, arm.scoring, study.params.sampling), arm.at_stake
        return Ranking.of(job.scores, study.params.scoring, study.params.sampling), 0

    def criteria(self, study: ResolvedStudy, job: Job) -> tuple[str, ...]:
        return (self.ranking(study, job)[0].criterion,)

    def settings(self, study: ResolvedStudy, job: Job) -> ScoreSettings:
        """All criteria share their draws, as the name of their random numbers is the same."""
        ranking, removed = self.ranking(study, job)
        return ScoreSettings(
            artefact=f"scores/{job.backbone}-{job.data}",
            seed=job.seed,
            remove=removed if CRITERIA[ranking.criterion].sized else None,
            compute=study.compute,
            **dict(ranking),
        )

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        start = study.start(job.backbone, job.data, job.seed).path
        return {"store": study.store(job.data), "init": folder(start, MODEL)}

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        network, (ranking, removed) = self.network(study, job), self.ranking(study, job)
        return network.scores(ranking.criterion, ranking.scoring, study.params.sampling, network.depth, removed)

    def memory(self, study: ResolvedStudy, job: Job) -> Memory:
        network, (ranking, _) = self.network(study, job), self.ranking(study, job)
        return memory.scoring(network.architecture, ranking.criterion, ranking.scoring, study.params.sampling)


RULES = (Score(),)
