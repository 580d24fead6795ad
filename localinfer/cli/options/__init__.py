"""Every flag, described once. The help pages, the environment, the settings file and the completions read this table.

Commands take the aliases below as annotations; `command.Command` fills them with values that are already merged and
checked, so a command sees an `int` and never the word it was typed as. One file for each thing that flags belong to.
"""

# ruff: noqa: F403, I001 - all that the files hold; completions list the flags in this order
from localinfer.cli.flags import SETTINGS as SETTINGS
from localinfer.cli.options.forms import *
from localinfer.cli.options.sampling import *
from localinfer.cli.options.serving import *
from localinfer.cli.options.thinking import *
from localinfer.cli.options.asking import *
from localinfer.cli.options.running import *
from localinfer.cli.options.making import *
from localinfer.cli.options.printing import *
from localinfer.cli.options.costing import *
from localinfer.cli.options.chatting import *
from localinfer.cli.options.measuring import *
