"""How a process ends: statuses for a service manager or a shell (sysexits.h from 64 on)."""

import signal

EXIT_FATAL = 70  # EX_SOFTWARE: the storage can't be trusted, restart
EXIT_CONFIG = 78  # EX_CONFIG: a restart changes nothing; RestartPreventExitStatus= knows it
EXIT_USAGE = 2  # as argparse and most commands have it


def end_undisturbed() -> None:
    """Have no further signal change how this process ends, now that its loop's handlers are gone.

    A service manager, or somebody who is in a hurry, may send the same one twice.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
