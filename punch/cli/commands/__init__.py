"""The commands of `punch` that are no programs of their own: each takes arguments, gives a status.

`keys` and `simulate` are imported by name where they are run: the first brings the gateway with
it, the second a whole swarm.
"""

from ._alias import alias
from ._models import models
from ._peers import peers
from ._replay import replay
from ._settings import settings
from ._why import why

__all__ = ["alias", "models", "peers", "replay", "settings", "why"]
