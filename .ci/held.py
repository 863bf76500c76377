"""Add to an SBOM what the package holds itself: the scripts of the studio's page, and the model.

held.py ENVIRONMENT.cdx.json VERSION OUTPUT.cdx.json
"""

import hashlib
import json
import re
import sys
from pathlib import Path
from urllib.parse import quote

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).parents[1]
VENDOR = ROOT / "copgen_cli/studio/page/vendor"
MODEL = ROOT / "copgen_cli/assets/copgen-sim"
_BUNDLED = re.compile(r"^# (\S+) (\S+): (.+)$", re.MULTILINE)  # as studio-page/build.mjs heads a licence


def component(kind: str, name: str, version: str, licence: str, **more: object) -> dict:
    """In the words of CycloneDX 1.6; `licence` is an identifier or an expression of SPDX."""
    licences = [{"expression": licence} if " " in licence else {"license": {"id": licence}}]
    about = {"type": kind, "bom-ref": f"held-{name}@{version}", "name": name, "version": version}
    return about | {"licenses": licences} | more


def files_of(files: list[Path]) -> list[dict]:
    """Components, each a file with its SHA-256 and its path in the package."""
    named = {file.relative_to(ROOT).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return [
        {"type": "file", "bom-ref": f"held-{name}", "name": name, "hashes": [{"alg": "SHA-256", "content": digest}]}
        for name, digest in named.items()
    ]


def npm(name: str, version: str) -> str:
    return f"pkg:npm/{quote(name, safe='/')}@{version}"


def held(version: str) -> list[dict]:
    pinned = json.loads((ROOT / "studio-page/package.json").read_text())["devDependencies"]
    scripts, land = sorted(VENDOR.glob("maplibre-gl*.*s")), [VENDOR / "land.json"]
    weights = sorted(MODEL.rglob("*.safetensors"))
    maplibre, atlas = pinned["maplibre-gl"], pinned["world-atlas"]
    bundled = _BUNDLED.findall((VENDOR / "maplibre-gl.BUNDLED-LICENSES.txt").read_text())
    parts = [component("library", name, number, terms, purl=npm(name, number)) for name, number, terms in bundled]
    return [
        component(
            "library", "maplibre-gl", maplibre, "BSD-3-Clause",
            purl=npm("maplibre-gl", maplibre), components=files_of(scripts) + parts,
        ),
        component(
            "data", "natural-earth-land", atlas, "CC-PDDC",
            purl=npm("world-atlas", atlas), components=files_of(land),
        ),
        component("machine-learning-model", "copgen-sim", version, "Apache-2.0", components=files_of(weights)),
    ]  # fmt: skip


if __name__ == "__main__":
    source, version, target = sys.argv[1:]
    bom = json.loads(Path(source).read_text())
    bom["metadata"]["component"]["version"] = version  # the tag's, which pyproject.toml does not have
    bom["components"] += held(version)
    text = json.dumps(bom, indent=2) + "\n"
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SystemExit(f"{target} would be no CycloneDX 1.6: {wrong}")
    Path(target).write_text(text)
