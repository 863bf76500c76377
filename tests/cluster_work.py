"""Work for the workers of a cluster; a module of its own, so that they need not import a whole test."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from copgen_cli.cluster.request_budget import request_budget
from copgen_cli.errors import BrokenInputError
from copgen_cli.stages import OncePerProcess, Place, Result


def shout(word: str, place: Place) -> Result:
    """One file per word, in capitals."""
    if word.startswith("broken"):
        raise BrokenInputError(f"{word} can not be shouted", hint="Say something else.")
    if word.startswith("silent"):
        return Result(skipped="nothing to shout")
    return Result(files=(place.write(f"words/{word}.txt", word.upper().encode()),), facts={"length": len(word)})


def wait_backwards(number: int) -> str:
    time.sleep((40 - number) / 4000)
    return str(number)


def refuse(word: str) -> str:
    raise BrokenInputError(f"{word} can not be shouted", hint="Say something else.")


def note_opening(folder: str) -> str:
    Path(folder, f"{os.getpid()}-{time.monotonic_ns()}").touch()
    return folder


def use(number: int, opened: OncePerProcess[str]) -> str:
    return opened.get()


def die(word: str) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return word


def die_once(word: str, victims: Path, place: Place) -> Result:
    if word == "two" and not (victims / word).exists():
        (victims / word).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return shout(word, place)


def mark_slowly(number: int, folder: Path) -> int:
    time.sleep(0.1)
    (folder / str(number)).touch()
    return number


def shout_and_tell(word: str, place: Place, told: Path) -> Result:
    """`shout`, in 10 ms, and a file for each time that it is done."""
    time.sleep(0.01)
    result = shout(word, place)
    (told / f"{word}-{os.getpid()}-{time.monotonic_ns()}").touch()
    return result


def tell_quota(origin: str, left: int, seconds: float) -> None:
    request_budget().note_quota(origin, left, seconds)


def ask_for_turn(origin: str) -> float:
    return request_budget().take_turn(origin)
