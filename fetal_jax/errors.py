"""The exceptions that stand for a user's mistake."""


class InputError(Exception):
    """Bad input: the launcher prints one line a problem and ends with status 1, no traceback.

    Each message names the file, what was expected and what was found.
    """

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class Diverged(InputError):
    """A training whose loss or gradient is no longer finite."""
