"""Exit statuses that a service manager or a shell acts on (sysexits.h for those from 64 on)."""

EXIT_FATAL = 70  # EX_SOFTWARE: the storage can't be trusted, restart
EXIT_CONFIG = 78  # EX_CONFIG: a restart changes nothing; RestartPreventExitStatus= knows it
EXIT_USAGE = 2  # as argparse and most commands have it
