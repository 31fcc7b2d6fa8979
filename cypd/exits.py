"""Exit statuses that a service manager acts on (sysexits.h)."""

EXIT_FATAL = 70  # EX_SOFTWARE: the storage can't be trusted, restart
EXIT_CONFIG = 78  # EX_CONFIG: a restart changes nothing; RestartPreventExitStatus= knows it
