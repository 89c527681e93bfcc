"""Keys that are kept in Prefect Secret blocks: read here, handed on as environment variables.

The stages know variables only. A block's value is set for the rest of this process, which in a
served or scheduled run is the run's own; it appears in no log, state or artifact.
"""

import os

from pipeline import redaction
from pipeline.errors import ConfigError
from pipeline.settings.recipe import Recipe


def provide_secrets(recipe: Recipe) -> None:
    """Set the variables of ``secret_blocks`` that the environment does not have.

    Raises:
        ConfigError: There is no such block, or it holds no text.
    """
    from prefect.blocks.system import Secret

    for variable, block in recipe.settings.secret_blocks.items():
        if os.environ.get(variable):
            continue
        where = f"secret_blocks.{variable}: Prefect's Secret block {block!r}"
        try:
            value = Secret.load(block).get()  # type: ignore[union-attr]
        except ValueError as exc:
            raise ConfigError(
                f"{where} does not exist",
                hint=f"create it under Blocks in the Prefect UI, or set {variable} where runs are "
                "served",
            ) from exc
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{where} holds no text", hint="store the key alone in it, as text")
        os.environ[variable] = value
        redaction.register(value)
    redaction.declare(recipe.settings.key_variables)
