"""A run while it is alive: the loop, its logs, evaluations and checkpoints.

Exact resume: a run that was killed at any moment and resumed writes the same CSV files (columns of
time aside) and ends with the same weights, bit for bit, as one that was never interrupted. All
state that the next iteration depends on is in a checkpoint, together with the sizes that the CSV
files had; resuming cuts them back to those.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from rlfd import algorithms
from rlfd.algorithms.base import Algorithm, Metrics
from rlfd.algorithms.core.timing import seconds_by_kind
from rlfd.demos import Demonstrations
from rlfd.envs import Findings, PlayedEpisode, World
from rlfd.errors import GuestFailed, Interrupted, RlfdError, RunFailed
from rlfd.experiments import checkpoint
from rlfd.experiments.config import RunConfig, is_strange
from rlfd.experiments.demonstrators import AskedDemonstrator
from rlfd.experiments.evaluate import best_step, evaluation_row, play_policy, summarise
from rlfd.experiments.labels import keep_labels
from rlfd.experiments.preparation import describe_demos
from rlfd.experiments.provenance import provenance
from rlfd.experiments.report import Reporter
from rlfd.experiments.run_dir import CsvLog, RunDir, episode_row
from rlfd.interrupts import StopSignal
from rlfd.jsons import Form

__all__ = ["Runner", "TrainResult", "result_of"]

logger = logging.getLogger("rlfd.train")

REPORT_SECONDS = 0.25
MORE = 1.1
"""Share of the budget from which on too many env steps are worth a warning."""
PRETRAIN_LOG_UPDATES = 1_000
"""Updates of pretraining between rows of train.csv and between checkpoints, at least."""
STATE: dict[str, Form] = {
    "progress": int,
    "algorithm": {},
    "world": ({}, type(None)),
    "pending": {"*": [float]},
    "log_sizes": {"*": int},
    "wall_seconds": float,
}
"""What a checkpoint holds at least."""


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """How a run ended; the means are of the final weights' headline policy."""

    run_dir: RunDir
    env_steps: int
    updates: int
    wall_seconds: float
    return_mean: float | None
    success_rate: float | None


def result_of(run: RunDir) -> TrainResult:
    """Return how a finished run ended, as its run.json says."""
    status = run.status()
    final = (status.get("final") or {}).get("final", {})
    headline = final.get(algorithms.get(status["algo"]).policies[0], {})
    return TrainResult(
        run_dir=run,
        env_steps=status["env_steps"],
        updates=status["updates"],
        wall_seconds=status["wall_seconds"],
        return_mean=headline.get("return_mean"),
        success_rate=headline.get("success_rate"),
    )


class Runner:
    """Everything that is alive while a run is."""

    def __init__(
        self,
        run: RunDir,
        config: RunConfig,
        algorithm: Algorithm,
        world: World | None,
        demonstrations: Demonstrations | None,
        reporter: Reporter,
        writer: Any,
        resume_command: str,
        init: dict[str, Any] | None = None,
        reward_from: dict[str, Any] | None = None,
        demonstrator: AskedDemonstrator | None = None,
        data_dir: Path = Path("data"),
        found: Findings | None = None,
    ) -> None:
        self.run, self.config, self.demos = run, config, demonstrations
        self.algorithm, self.world = algorithm, world
        self.reporter, self.writer = reporter, writer
        self.resume_command = resume_command
        self.init = init  # the policy that the run started from, for run.json
        self.reward_from = reward_from  # the reward that it is trained on, likewise
        self.demonstrator, self.data_dir = demonstrator, data_dir
        self.labels: dict[str, Any] | None = None  # the dataset of its answers, likewise
        found = found or Findings()
        self.warnings = list(found.warnings)  # about its environment and its end, likewise
        self.repeatable = found.repeatable
        self.made_by: list[dict[str, Any]] = []
        self.train_log = run.open_train_log([*self._epochs(), *self.algorithm.metric_definitions])
        self.episode_log = run.open_episode_log()
        self.eval_log = run.open_eval_log()
        self.pending: dict[str, list[float]] = {}
        self.recent: list[tuple[int, int, Metrics]] = []  # with env steps and updates
        self.wall_before = 0.0
        self.began = time.perf_counter()
        self.timed_before = self._timings()
        self.last_report = 0.0
        self.stop = StopSignal("stopping with a checkpoint; once more stops at once, without one")
        self.evaluation_due = False  # the run was stopped in a periodic evaluation
        # a curve of an environment that nothing is known of begins where learning does
        self._starts = init is not None or (world is not None and is_strange(config.env))
        self.newest: dict[str, float] = {}

    # -- where the run is -------------------------------------------------------------------------

    @property
    def env_steps(self) -> int:
        """Agent decisions so far; 0 for methods that do not interact."""
        return self.world.env_steps if self.world is not None else 0

    @property
    def progress(self) -> int:
        """Units of the budget used: env steps, or updates for methods that do not interact."""
        return self.env_steps if self.world is not None else self.algorithm.updates

    def _position(self) -> str:
        """Say where the run is."""
        pretrains = self.algorithm.updates < self.algorithm.pretrain_updates
        return f"update {self.algorithm.updates:,}" if pretrains else f"{self.progress:,}"

    def _epochs(self) -> dict[str, int]:
        """Passes over the demonstrations, as a column; nothing where they are not counted."""
        epochs = self.algorithm.epochs
        return {} if epochs is None else {"epochs": epochs}

    @property
    def wall_seconds(self) -> float:
        """Time spent on the run, over all its processes."""
        return self.wall_before + time.perf_counter() - self.began

    def _makers(self) -> list[dict[str, Any]]:
        """Return which code, versions and machines made the run, each from where on."""
        names, now = ("git", "versions", "host"), provenance()
        before = self.run.status()
        first = [{"from": 0, **{name: before[name] for name in names}}] if "git" in before else []
        makers: list[dict[str, Any]] = before.get("made_by") or first
        new = {name: now[name] for name in names}
        if not makers or any(makers[-1][name] != value for name, value in new.items()):
            makers = [*makers, {"from": self.progress, **new}]
        return makers

    def _done(self) -> bool:
        budget = self.config.steps
        return self.algorithm.finished or (budget > 0 and self.progress >= budget)

    # -- the loop ---------------------------------------------------------------------------------

    def run_to_end(self) -> TrainResult:
        """Train until the budget is used, evaluate, and close the run."""
        try:
            self.made_by = self._makers()
            self._say(self.warnings)
            self._write_status("running")
            self._loop()
            return self._finish()
        except Interrupted:
            self._write_status("interrupted")
            raise
        except (KeyboardInterrupt, SystemExit):
            self._write_status("interrupted")
            raise
        except GuestFailed as error:
            raise self._guest_problem(error) from error
        except RlfdError as error:
            self._write_status("failed", str(error))
            raise
        except OSError as error:
            self._write_status("failed", str(error))
            raise self._disk_problem(error) from error
        except Exception as error:
            self._write_status("failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            self.reporter.finish()

    def close(self) -> None:
        """Close the files."""
        for log in self.logs.values():
            log.close()

    def _loop(self) -> None:
        config = self.config
        title = f"{config.algo} {config.env.label} seed {config.seed}"
        begins = self.progress == self.algorithm.updates == 0  # pretraining makes no env steps
        pretrained = self._pretrain(title)
        if self.evaluation_due or (config.eval_every and (pretrained or (begins and self._starts))):
            self._evaluate_periodically()  # what it starts from
        if pretrained:
            self._checkpoint()
        self.reporter.start(title, config.steps, self.progress, config.unit)
        while not self._done():
            before = self.progress
            self._pass()
            if self.world is not None:
                self._log_episodes(self.world)
            if self._crossed(before, config.log_every):
                self._log_metrics()
            if config.eval_every and self._crossed(before, config.eval_every):
                self._evaluate_periodically()
            if self._crossed(before, config.checkpoint_every):
                self._checkpoint()
            self._report(self.progress, at_once=self.stop.received or self._done())
            if self.stop.received:
                self._interrupt()
        self._log_metrics()

    def _pass(self) -> None:
        # methods that do not interact get no world and do not ask for one
        metrics = self.algorithm.iteration(self.world)  # type: ignore[arg-type]
        if metrics:
            self.recent.append((self.env_steps, self.algorithm.updates, metrics))

    def _pretrain(self, title: str) -> bool:
        """Make what is left of the updates before the first env step; return whether any was.

        Rows and checkpoints are a tenth of them apart, as no env step says when they are due.
        """
        algorithm, total = self.algorithm, self.algorithm.pretrain_updates
        if algorithm.updates >= total:
            return False
        every = max(PRETRAIN_LOG_UPDATES, total // 10)
        self.reporter.start(f"{title}: pretraining", total, algorithm.updates, "updates")
        while algorithm.updates < total:
            before = algorithm.updates
            self._pass()
            if algorithm.updates // every > before // every:
                self._log_metrics()
                self._checkpoint()
            self._report(algorithm.updates, at_once=self.stop.received)
            if self.stop.received:
                self._interrupt()
        self._log_metrics()
        self.reporter.finish()
        return True

    def _crossed(self, before: int, every: int) -> bool:
        return self.progress // every > before // every

    def _log_episodes(self, world: World) -> None:
        records = world.drain_episodes()
        if not records:
            return
        self.episode_log.write(episode_row(record) for record in records)
        self.newest["train return"] = float(np.mean([r.episode_return for r in records]))
        if self.writer is not None:
            for record in records:
                at = record.env_steps
                self.writer.add_scalar("rollout/return", record.episode_return, at)
                self.writer.add_scalar("rollout/dense_return", record.dense_return, at)

    def _settle_recent(self) -> None:
        """Turn the tensors gathered since the last time into numbers; refuse what is not finite."""
        for env_steps, updates, metrics in self.recent:
            for name, value in metrics.items():
                number = float(value)
                if not math.isfinite(number):
                    raise RunFailed(
                        f"{name} became {number} at update {updates} (env step {env_steps}) "
                        f"of {self.run.path}",
                        "the last checkpoint is kept; try a smaller learning_rate or larger "
                        "adam_epsilon",
                    )
                self.pending.setdefault(name, []).append(number)
        self.recent.clear()

    def _log_metrics(self) -> None:
        self._settle_recent()
        if not self.pending:
            return
        # fsum is exact, so a mean does not depend on where an interruption fell
        means = {name: math.fsum(v) / len(v) for name, v in self.pending.items()}
        self.pending.clear()
        row = {name: means.get(name) for name in self.algorithm.metric_definitions}
        position = {"env_steps": self.env_steps, "updates": self.algorithm.updates}
        position |= self._epochs()
        self.train_log.write(
            [{**position, "wall_seconds": round(self.wall_seconds, 3), **self._shares(), **row}]
        )
        if self.writer is not None:
            for name, value in means.items():
                self.writer.add_scalar(name, value, self.progress)

    def _timings(self) -> dict[str, float]:
        env = self.world.seconds if self.world is not None else 0.0
        return {"env": env, **seconds_by_kind(), "all": time.perf_counter()}

    def _shares(self) -> dict[str, float]:
        """Share of the time since the last row that each kind of work took."""
        now = self._timings()
        passed = now["all"] - self.timed_before["all"]
        shares = {
            f"time/{kind}": round((now[kind] - self.timed_before[kind]) / passed, 4)
            for kind in ("env", "act", "sample", "update")
        }
        self.timed_before = now
        return shares

    def _report(self, done: int, *, at_once: bool) -> None:
        now = time.perf_counter()
        if now - self.last_report < REPORT_SECONDS and not at_once:
            return
        self.last_report = now
        self.reporter.advance(done, {**self._epochs(), **self.newest})

    # -- evaluation -------------------------------------------------------------------------------

    def _evaluate_periodically(self) -> None:
        self._settle_recent()
        self._save_learned()
        rows: list[dict[str, Any]] = []
        self.evaluation_due = True
        try:
            for policy in self.algorithm.policies:
                played = self._play(policy, self.config.eval_episodes, f"periodic {policy}")
                rows += self._rows(played, "periodic", policy)
                self._note_evaluation(played, policy)
        except KeyboardInterrupt:
            self._interrupt()
        self.eval_log.write(rows)
        self.evaluation_due = False
        self._write_status("running")  # whoever lists runs sees how far this one is

    def _play(self, policy: Any, episodes: int, stream: str) -> list[PlayedEpisode]:
        alone = self.world is not None and self.world.num_envs == 1
        return list(
            play_policy(
                self.algorithm,
                self.config.env,
                policy=policy,
                episodes=episodes,
                seed=self.config.seed,
                stream=stream,
                lend=self.world.lend if alone and self.world is not None else None,
                stop=self.stop,
            )
        )

    def _rows(
        self, played: list[PlayedEpisode], phase: str, policy: str, step: int | None = None
    ) -> list[dict[str, Any]]:
        at = self.progress if step is None else step
        return [evaluation_row(p, env_steps=at, phase=phase, policy=policy) for p in played]

    def _note_evaluation(self, played: list[PlayedEpisode], policy: str) -> None:
        if policy != self.algorithm.policies[0]:
            return
        summary = summarise(played)
        self.newest["eval return"] = summary["return_mean"]
        if summary["success_rate"] is not None:
            self.newest["eval success"] = summary["success_rate"]
        if self.writer is not None:
            self.writer.add_scalar("eval/return", summary["return_mean"], self.progress)
            dense = summary["dense_return_mean"]
            self.writer.add_scalar("eval/dense_return", dense, self.progress)

    def _finish(self) -> TrainResult:
        """Evaluate final weights and best checkpoint on fresh start states, and close the run."""
        self.algorithm.conclude()
        self._save_learned()
        self._checkpoint()
        summary = self._evaluate_finally() if self.config.final_episodes else None
        record = None if self.demonstrator is None else self.demonstrator.record
        self.labels = keep_labels(self.algorithm, self.config, record, self.data_dir)
        for log in self.logs.values():
            log.sync()
        self._warn_of_the_end()
        self._write_status("finished", final=summary)
        return result_of(self.run)

    def _warn_of_the_end(self) -> None:
        """Say what only the end shows: that nothing was learned, or more steps were made."""
        made, budget = f"{self.env_steps:,} env steps", self.config.steps
        before = len(self.warnings)
        if self.algorithm.updates == 0:
            why = "no episode was over" if self.run.episodes().empty else "none was due"
            self.warnings.append(
                f"no update was made in {made} ({why}): what was evaluated is what the run began "
                "with; give more --steps"
            )
        if self.env_steps > max(budget * MORE, budget + self.config.num_envs):
            self.warnings.append(
                f"{made} were made, more than the {budget:,} of --steps: an iteration is not cut "
                "short"
            )
        self._say(self.warnings[before:])

    def _say(self, warnings: Iterable[str]) -> None:
        for warning in warnings:
            logger.warning(warning)
            self.reporter.warning(warning)

    def _evaluate_finally(self) -> dict[str, dict[str, Any]]:
        """Play final weights and best checkpoint; return what run.json says about it."""
        final_step = self.progress
        step = best_step(self.run)
        best = final_step if step is None else step
        evaluations = len(self.algorithm.policies) * (1 if best == final_step else 2)
        self.reporter.start("final evaluation", evaluations, 0, "evaluations")
        final = self._play_finally(done=0)
        rows = [row for p, played in final.items() for row in self._rows(played, "final", p)]
        at_best = final
        if best != final_step:
            path = checkpoint.list_policies(self.run.checkpoints)[best]
            self.algorithm.load_policy_state(checkpoint.load_policy(path))
            at_best = self._play_finally(done=len(final))
        for policy, played in at_best.items():
            rows += self._rows(played, "best", policy, best)
        self.eval_log.write(rows)
        self.reporter.finish()
        summary: dict[str, dict[str, Any]] = {
            phase: {policy: summarise(played) for policy, played in evaluation.items()}
            for phase, evaluation in (("final", final), ("best", at_best))
        }
        summary["best"]["step"] = best
        return summary

    def _play_finally(self, done: int) -> dict[str, list[PlayedEpisode]]:
        """Play every policy from the same fresh start states, after `done` such evaluations."""
        played: dict[str, list[PlayedEpisode]] = {}
        for policy in self.algorithm.policies:
            try:
                played[policy] = self._play(policy, self.config.final_episodes, "final")
                self.stop.check()
            except KeyboardInterrupt:
                self._interrupt(save=False)
            self.reporter.advance(done + len(played), {})
        return played

    # -- checkpoints ------------------------------------------------------------------------------

    def _save_learned(self) -> None:
        """Save the policy, and before it the reward that belongs to it."""
        if self.algorithm.recovers_reward:
            reward = self.algorithm.reward_state()
            checkpoint.save_reward(self.run.checkpoints, self.progress, reward)
        checkpoint.save_policy(self.run.checkpoints, self.progress, self.algorithm.policy_state())

    def _checkpoint(self, *, beside_policy: bool = False) -> None:
        self._settle_recent()
        for log in self.logs.values():
            log.sync()
        state = {
            "progress": self.progress,
            "algorithm": self.algorithm.state_dict(),
            "world": self.world.state_dict() if self.world is not None else None,
            "pending": self.pending,
            "log_sizes": {name: log.size() for name, log in self.logs.items()},
            "log_digests": {name: log.digest() for name, log in self.logs.items()},
            "beside_policy": beside_policy,  # of the interruption: no part of the run
            "evaluation_due": self.evaluation_due,
            "wall_seconds": self.wall_seconds,
        }
        checkpoint.save_resume(self.run.checkpoints, self.progress, state)
        self._write_status("running")

    def restore(self, *, fresh_resets: bool = False) -> bool:
        """Go to where the newest whole checkpoint was written; return whether there was one.

        Args:
            fresh_resets: Begin new episodes instead of replaying those that were running.

        Raises:
            RlfdError: If what it belongs to was changed since.
        """
        state, problems = checkpoint.load_newest(self.run.checkpoints, STATE)
        self._say(problems)
        if state is None:
            found = "no checkpoint is left" if problems else "no checkpoint was written yet"
            self.reporter.message(f"{found}: starting from the beginning")
            self._truncate_logs({}, {})
            checkpoint.forget_after(self.run.checkpoints, -1)
            return False
        try:
            self.algorithm.load_state_dict(state["algorithm"])
            if self.world is not None:
                self.world.load_state_dict(state["world"], fresh=fresh_resets)
        except (RlfdError, OSError, MemoryError):
            raise
        except Exception as error:  # whatever methods and simulators raise at what does not fit
            raise RlfdError(
                f"the checkpoint of {self.run.path} does not fit this version of "
                f"'{self.config.algo}': {type(error).__name__} {error}",
                "go on with the code that it was written by (made_by in its run.json), or start "
                "it anew with --overwrite",
            ) from error
        if self.world is not None and fresh_resets:
            self.warnings.append(
                f"from {state['progress']:,} on it was continued from fresh resets, and so not "
                "as if it had never been stopped"
            )
        self.pending = state["pending"]
        self.evaluation_due = state.get("evaluation_due", False)  # an older state has none
        self.wall_before = state["wall_seconds"]
        # an older state has no digests
        self._truncate_logs(state["log_sizes"], state.get("log_digests", {}))
        only_there = state.get("beside_policy", False)  # an older state has none
        checkpoint.forget_after(self.run.checkpoints, state["progress"], policy_too=only_there)
        self.reporter.message(f"resuming at {self._position()}")
        return True

    @property
    def logs(self) -> dict[str, CsvLog]:
        """The CSV files, by the names that checkpoints have for them."""
        return {"train": self.train_log, "episodes": self.episode_log, "eval": self.eval_log}

    def _truncate_logs(self, sizes: dict[str, int], digests: dict[str, str]) -> None:
        """Cut the CSV files back to what they were; before any is cut, all are looked at."""
        for name, log in self.logs.items():
            log.check(sizes.get(name, 0), digests.get(name))
        for name, log in self.logs.items():
            log.truncate(sizes.get(name, 0))

    def _interrupt(self, *, save: bool = True) -> NoReturn:
        if self.stop.insisted:
            raise KeyboardInterrupt
        if save:
            # whoever stops a run may want to see what it can do, evaluated before or not
            fresh = self.progress not in checkpoint.list_policies(self.run.checkpoints)
            if fresh:
                self._save_learned()
            self._checkpoint(beside_policy=fresh)
        raise Interrupted(
            f"interrupted at {self._position()}, checkpoint written to {self.run.checkpoints}",
            f"continue with: {self.resume_command}",
        )

    def _guest_problem(self, error: GuestFailed) -> RlfdError:
        """Keep what was learned when an environment breaks off, and say how to go on."""
        if self.progress not in checkpoint.list_policies(self.run.checkpoints):
            self._save_learned()
        newest = checkpoint.newest_step(self.run.checkpoints)
        left = "no checkpoint was written yet, it would begin anew"
        if newest is not None:
            left = f"the newest checkpoint is that of {newest:,}"
        hint = f"{error.hint}\n{left}; continue with: {self.resume_command}"
        message = f"{error.message}; the policy of {self.progress:,} was saved"
        # Ctrl-C reaches simulators in processes of their own, too
        self._write_status("interrupted" if self.stop.received else "failed", str(error))
        return Interrupted(message, hint) if self.stop.received else RunFailed(message, hint)

    def _disk_problem(self, error: OSError) -> RunFailed:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return RunFailed(
                f"the disk is full; run {self.run.path} stopped, what was written before is intact",
                f"make room, then continue with: {self.resume_command}",
            )
        return RunFailed(
            f"run {self.run.path} cannot be written: {error}",
            f"continue with: {self.resume_command}",
        )

    def _write_status(
        self, state: str, error: str | None = None, final: dict[str, Any] | None = None
    ) -> None:
        config = self.config
        status = {
            "state": state,
            "algo": config.algo,
            "env": config.env.name,
            "start": config.env.start,
            "reward": config.env.reward,
            "seed": config.seed,
            "exp_name": config.exp_name,
            "env_steps": self.env_steps,
            "updates": self.algorithm.updates,
            **self._epochs(),
            "steps": config.steps,
            "wall_seconds": round(self.wall_seconds, 3),
            "error": error,
            "final": final,
            "files": self.run.digests() if state == "finished" else None,
            "demos": describe_demos(self.demos),
            "init": self.init,
            "demonstrator": None
            if self.demonstrator is None
            else {**self.demonstrator.record, "queries": self.demonstrator.queries},
            "labels": self.labels,
            "reward_from": self.reward_from,
            **provenance(),
            "made_by": self.made_by,
            "warnings": self.warnings,
            "repeatable": self.repeatable,
        }
        try:
            self.run.write_status(status)
        except OSError as problem:
            if state == "running":
                raise
            logger.error("cannot write the state of %s: %s", self.run.path, problem)
