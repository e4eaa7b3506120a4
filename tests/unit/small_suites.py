"""Small suites for tests, and engines that make or fake their runs."""

from typer.testing import CliRunner

from rlfd.cli.main import app

GRID = """
title = "A grid"
paper = "No numbers"
seeds = [0, 1]
steps = 240
protocol = []
[run]
eval_every = 120
eval_episodes = 2
final_episodes = 3
num_envs = 2
[[tasks]]
name = "pole"
env = "CartPole"
[[tasks]]
name = "car"
env = "MountainCar"
reward = "sparse"
steps = 180
demos = { good = { policy = "random", episodes = 2 }, weak = { policy = "random", noise = 0.0 } }
[[demos]]
name = "good"
title = "1 good demonstration"
policy = "controller"
episodes = 3
num = 1
[[demos]]
name = "weak"
policy = "controller"
noise = 0.5
episodes = 2
[[groups]]
name = "good"
title = "Good"
demos = ["good"]
[[groups]]
name = "weak"
title = "Weak"
demos = ["weak"]
[[groups]]
name = "pole"
title = "On the pole"
tasks = ["pole"]
[[figures]]
name = "curves"
group = "good"
rows = ["DQN", "DQN from DQN"]
[[rows]]
label = "Demonstrations"
policy = "demonstrations"
groups = ["good", "weak", "pole"]
[[rows]]
label = "Random"
policy = "random"
groups = ["good"]
[[rows]]
label = "DQN"
algo = "dqn"
settings = { hidden = [5, 9], learning_starts = 50 }
groups = ["good", "weak"]
[[rows]]
label = "DQN from DQN"
algo = "dqn"
variant = "again"
init = "DQN"
settings = { hidden = [5, 9], learning_starts = 50 }
groups = ["good", "pole"]
[[rows]]
label = "BC"
algo = "bc"
settings = { max_epochs = 1, hidden = [5] }
groups = ["weak"]
[[rows]]
label = "BC again"
algo = "bc"
variant = "again"
init = "BC"
settings = { max_epochs = 1, hidden = [5] }
num_demos = 2
groups = ["pole"]
demos = ["good"]
[[rows]]
label = "On one task"
algo = "bc"
variant = "one"
tasks = ["car"]
groups = ["good"]
"""

# Demonstrations by steps, of policies that come with rlfd.
SHIPPED = """
title = "By steps"
paper = "No numbers"
seeds = [0]
steps = 400
protocol = ["One line."]
scaled = ["eval_every", "learning_starts", "pretrain_env_steps"]
run = { eval_every = 100, num_envs = 2 }
[[tasks]]
name = "pole"
env = "CartPole"
[[tasks]]
name = "car"
env = "MountainCar"
steps = 1000
[[demos]]
name = "shipped"
policy = "shipped"
steps = 40
num = 1
[[groups]]
name = "main"
title = "Main"
[[rows]]
label = "Demonstrations"
policy = "demonstrations"
[[rows]]
label = "BC"
algo = "bc"
[[rows]]
label = "PSQ"
algo = "psq"
settings = { pretrain_env_steps = 70 }
[[rows]]
label = "DQN"
algo = "dqn"
steps = 800
"""

MIXED = (
    GRID.replace('policy = "random", noise = 0.0', "noop = 0.25, noise = 0.0")
    .replace("episodes = 3\nnum = 1", "episodes = 3")
    .replace(
        '[[groups]]\nname = "good"',
        """[[demos]]
name = "half"
mix = { good = 0.5, weak = 0.5 }
episodes = 4
[[groups]]
name = "half"
title = "Half"
demos = ["half"]
[[groups]]
name = "good\"""",
    )
    .replace('groups = ["weak"]', 'groups = ["weak", "half"]')
)

# Rows on two forms of one task, and a return to reach.
RACE = """
title = "A race"
paper = "No numbers"
seeds = [0, 1, 2]
steps = 300
protocol = []
metric = "return"
reach = 50
[[tasks]]
name = "land"
env = "LunarLander"
[[groups]]
name = "race"
title = "Race"
[[figures]]
name = "race"
group = "race"
rows = ["Few", "Many"]
[[rows]]
label = "Random"
policy = "random"
[[rows]]
label = "Few"
algo = "a2c"
[[rows]]
label = "Many"
algo = "a2c"
env = "LunarLander6"
variant = "six"
"""


def names(jobs):
    return [job.name for job in jobs]


class Done:
    def __init__(self, exit_code=0):
        self.exit_code = exit_code

    def poll(self):
        return self.exit_code


class Inside:
    """Makes real runs, in this process."""

    slots = 1

    def __init__(self, *options):
        self.options = options

    def submit(self, job, log):
        return Done(CliRunner().invoke(app, [*job.argv[3:], *self.options]).exit_code)
