"""Who can demonstrate without training anything: controllers and the policies that are shipped."""

from __future__ import annotations

from typing import Any

from rlfd import envs
from rlfd.demos.controllers import default_demonstrator, policies
from rlfd.demos.shipped import find_shipped, read_policy_file, strengths
from rlfd.envs import EnvConfig

__all__ = ["demonstrator_return", "entries", "page"]


def demonstrator_return(env: str) -> float | None:
    """Return the mean return of an environment's default demonstrator, if it was measured."""
    if default_demonstrator(env) == "shipped":
        return read_policy_file(find_shipped(env)).score.return_mean
    return envs.spec(env).demonstrator_return


def entries() -> list[dict[str, Any]]:
    """Return what is known of every demonstrator but the random one, as JSON values."""
    found = []
    for name in envs.names():
        for policy in policies(EnvConfig(name)):
            if policy == "controller":
                found.append(_controller(name))
            elif policy != "random":
                found.append(_shipped(name, policy))
    return found


def _controller(env: str) -> dict[str, Any]:
    spec = envs.spec(env)
    reference = spec.references.get(spec.demo_start)
    return dict.fromkeys(_FIELDS) | {
        "env": env,
        "policy": "controller",
        "start": spec.demo_start,
        "return_mean": reference.demonstrator_return if reference else None,
        "success_rate": reference.demonstrator_success if reference else None,
    }


_FIELDS = (
    "env", "policy", "start", "return_mean", "return_std", "share_of_strong", "success_rate",
    "episodes", "algo", "checkpoint", "mode", "seed", "command", "export", "bytes", "date",
    "created_with",
)  # fmt: skip


def _shipped(env: str, policy: str) -> dict[str, Any]:
    file = read_policy_file(find_shipped(env, policy.partition(":")[2] or "strong"))
    score, run, share = file.score, file.config, None
    if policy == "shipped:weak" and "strong" in strengths(env):
        strong = read_policy_file(find_shipped(env)).score.return_mean
        if strong > 0 <= score.return_mean:  # there is no share of a loss
            share = score.return_mean / strong
    folder = f"{run['exp_name']}/{file.algo}/{file.env.label}/seed{run['seed']}"
    return dict.fromkeys(_FIELDS) | {
        "env": env,
        "policy": policy,
        "start": score.start,
        "return_mean": score.return_mean,
        "return_std": score.return_std,
        "share_of_strong": share,
        "success_rate": score.success_rate,
        "episodes": score.episodes,
        "algo": file.algo,
        "checkpoint": file.checkpoint,
        "mode": file.mode,
        "seed": run["seed"],
        "command": file.command,
        "export": f"rlfd export {folder} --checkpoint {file.checkpoint} --{file.mode} "
        f"--episodes {score.episodes} --out {file.path.name}",
        "bytes": file.path.stat().st_size,
        "date": file.date,
        "created_with": file.created_with,
    }


def page() -> str:
    """Return the documentation's page on shipped policies, from what their files say."""
    shipped = [entry for entry in entries() if entry["policy"] != "controller"]
    rows = [
        [
            entry["env"],
            f"`{entry['policy']}`",
            f"{entry['return_mean']:,.0f} ± {entry['return_std']:,.0f}",
            "" if entry["share_of_strong"] is None else f"{entry['share_of_strong']:.0%}",
            f"{entry['episodes']}",
            f"`{entry['algo']}`, {entry['mode']}",
            f"{entry['checkpoint']:,}",
            f"{entry['bytes'] / 1000:,.0f} kB",
        ]
        for entry in shipped
    ]
    header = ["environment", "`--policy`", "return", "of the strong one", "episodes", "policy",
              "env steps", "size"]  # fmt: skip
    table = [header, ["---"] * len(header), *rows]
    commands = [
        line
        for entry in shipped
        for line in (f"# {entry['env']}, {entry['policy']}", entry["command"], entry["export"], "")
    ]
    return "\n".join(
        [
            _INTRODUCTION,
            *(f"| {' | '.join(row)} |" for row in table),
            "",
            _COMMANDS,
            "```",
            *commands[:-1],
            "```",
        ]
    )


_INTRODUCTION = """\
# Shipped demonstrators

Policies that were trained with this tool and come with it, so that demonstrations need no training
first:

```console
$ rlfd collect-demos --env Hopper --policy shipped
$ rlfd collect-demos --env Hopper --policy shipped:weak --episodes 1
$ rlfd train bc --env Hopper
```

The last one collects its demonstrations by itself. `rlfd list demonstrators` prints this table;
this page is what `rlfd list demonstrators --markdown` prints. Returns are mean ± standard deviation
over episodes from fresh start states; all numbers are read from the files. A `shipped:ceiling`
learned with the reward from every start, also from those where nothing is demonstrated: it is
there to be compared with.
"""

_COMMANDS = """\
What made them (`rlfd export` evaluates the policy and writes it with its score and the
configuration of its run to one file; any run can be exported so, and the file given to
`--policy` and `rlfd evaluate`). Those of `trpo` are from when its `value_batch_size` was 500 and
its Fisher matrix was of every fifth state: today the same commands give other policies.
"""
