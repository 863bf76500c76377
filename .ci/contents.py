"""What ships is what git knows: a file that was left lying about is in neither wheel nor sdist, and none is missing.

contents.py WHEEL SDIST, in a checkout. Exits with 1 and the names where they differ.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "copgen_cli/"
MADE = {"copgen_cli/_version.py", "PKG-INFO", "setup.cfg"}  # by the build, besides the folders of metadata


def differences(known: set[str], shipped: set[str], kind: str) -> list[str]:
    lines = [f"{kind} lacks {name}" for name in sorted(known - shipped)]
    return lines + [f"{kind} holds {name}, which git does not know" for name in sorted(shipped - known - MADE)]


if __name__ == "__main__":
    wheel, sdist = sys.argv[1:]
    said = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    known = set(said.split("\0")) - {""}
    with zipfile.ZipFile(wheel) as opened:
        in_wheel = {name for name in opened.namelist() if ".dist-info/" not in name}
    with tarfile.open(sdist) as opened:
        in_sdist = {member.name.partition("/")[2] for member in opened.getmembers() if member.isfile()}
    in_sdist = {name for name in in_sdist if not name.startswith("copgen.egg-info/")}
    of_package = {name for name in known if name.startswith(PACKAGE)}
    wrong = differences(of_package, in_wheel, "The wheel") + differences(known, in_sdist, "The sdist")
    if wrong:
        sys.exit("\n".join(wrong))
    sys.stdout.write(f"{len(in_wheel)} files in the wheel, {len(in_sdist)} in the sdist: those that git knows\n")
