"""What shells complete, as the shells themselves see it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_cli import run

# What readline does at a Tab: it sets these variables, and calls what `complete` was told.
ASK = """
source ./cypd.bash
read -r -a COMP_WORDS <<<"$1"
[[ $1 == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )) COMP_LINE=$1 COMP_POINT=${#1}
function=$(complete -p cypd | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function" cypd "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("cypd he", {"health"}),
        ("cypd project ", {"list", "quota"}),
        ("cypd user reset", {"reset-mfa"}),
        ("cypd user add --em", {"--email"}),
        ("cypd completion z", {"zsh"}),
        ("cypd health --j", {"--json"}),
        ("cypd serve --config cyp", {"cypd.bash", "cypd.toml"}),
    ],
)
def test_bash_completes(tmp_path: Path, typed: str, completed: set[str]) -> None:
    """Commands, options, choices, and files where a file is meant."""
    (tmp_path / "cypd.toml").touch()
    (tmp_path / "cypd.bash").write_text(run("completion", "bash", folder=tmp_path).stdout)
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run(
        [bash, "--norc", "-c", ASK, "bash", typed],
        cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip

    assert done.stderr == ""
    assert set(done.stdout.split()) == completed


@pytest.mark.parametrize(
    ("shell", "words"), [("zsh", ("#compdef cypd", "reset-mfa")), ("fish", ("complete", "--email"))]
)
def test_other_shells_have_a_script(tmp_path: Path, shell: str, words: tuple[str, str]) -> None:
    """zsh and fish get theirs, without a configuration, however bad that is."""
    bad = {"CYPD_SERVER_LISTN": "x"}
    done = run("completion", shell, folder=tmp_path, environment=bad)

    assert (done.returncode, done.stderr) == (0, "")
    assert all(word in done.stdout for word in words)
