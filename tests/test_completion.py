"""What shells complete, as the shells themselves see it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_cli import run

# What is typed before a Tab, and what may come of its last word.
LINES = {
    "cypd he": {"health"},
    "cypd project ": {"list", "quota"},
    "cypd user reset": {"reset-mfa"},
    "cypd user add bob --em": {"--email"},
    "cypd completion z": {"zsh"},
    "cypd health --j": {"--json"},
    "cypd vulndb import cypd.": {"cypd.d", "cypd.toml"},
    "cypd serve --config cypd.t": {"cypd.toml"},
    "cypd backup cypd.": {"cypd.d"},
}

# What readline does at a Tab: it sets these variables, and calls what `complete` was told.
BASH = r"""
source ./_cypd
function=$(complete -p cypd | sed 's/.*-F \([^ ]*\).*/\1/')
for line; do
    read -r -a COMP_WORDS <<<"$line"
    [[ $line == *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )) COMP_LINE=$line COMP_POINT=${#line}
    "$function" cypd "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "${COMPREPLY[@]}"
done
"""

FISH = r"""
source ./_cypd
for line in $argv
    echo (complete -C $line | string split --fields 1 \t)
end
"""

# Only the line editor completes: when it begins, it takes each line, and does what a Tab does.
ZSHRC = """
fpath=($PWD $fpath)
autoload -Uz compinit && compinit -D
zle-line-init() {
    for BUFFER in "${(@f)LINES_TYPED}"; do
        CURSOR=$#BUFFER
        zle complete-word
        print -r -- "$BUFFER" >>completed
    done
    exit
}
zle -N zle-line-init
"""


def ask(folder: Path, *command: str, **environment: str) -> str:
    """Run a shell in ``folder``, which has cypd's script; return what it printed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed (Debian package {command[0]})")
    (folder / "cypd.toml").touch()
    (folder / "cypd.d").mkdir()
    (folder / "_cypd").write_text(run("completion", command[0], folder=folder).stdout)
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    "command",
    [("bash", "--norc", "-c", BASH, "bash"), ("fish", "--no-config", "--command", FISH)],
    ids=["bash", "fish"],
)
def test_bash_and_fish_complete(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Commands, options, choices, and files or folders where one is meant."""
    told = ask(tmp_path, *command, *LINES)

    completed = [{word.rstrip("/") for word in line.split()} for line in told.splitlines()]
    assert dict(zip(LINES, completed, strict=True)) == LINES


def test_zsh_completes(tmp_path: Path) -> None:
    """A Tab in zsh completes the line where only one thing may come, and else leaves it."""
    (tmp_path / ".zshrc").write_text(ZSHRC)
    typed = "\n".join(LINES)
    # script(1) gives it the terminal that a line editor needs.
    shell = "exec script --quiet --return --command 'zsh -d' /dev/null"
    ask(tmp_path, "zsh", "-dfc", shell, LINES_TYPED=typed, TERM="dumb")

    completed = (tmp_path / "completed").read_text().splitlines()
    expected = [
        f"{line.rpartition(' ')[0]} {min(words)}" if len(words) == 1 else line.rstrip()
        for line, words in LINES.items()
    ]
    assert [line.rstrip(" /") for line in completed] == expected


def test_no_configuration_is_read(tmp_path: Path) -> None:
    """The script is printed however bad a configuration is."""
    bad = {"CYPD_SERVER_LISTN": "x"}
    done = run("completion", "zsh", folder=tmp_path, environment=bad)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("#compdef cypd")
