"""The one exception for what a user can put right."""


class FoveaError(ValueError):
    """A mistake in the input; its message names the file or key, what is wrong and what to do.

    Stages print the message as it stands and exit with status 1, without a traceback.
    """


class UnstableError(FoveaError):
    """A simulation that cannot go on. What led there leads there again, so no one can put it right;
    in training it is the seed's failure. An evaluation's games stop at it.
    """
