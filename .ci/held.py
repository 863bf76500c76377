"""Add to an SBOM what the package holds itself: the scripts of the studio's page, and the model.

held.py ENVIRONMENT.cdx.json OUTPUT.cdx.json
"""

import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
VENDOR = ROOT / "copgen_cli/studio/page/vendor"
MODEL = ROOT / "copgen_cli/assets/copgen-sim"


def component(kind: str, name: str, version: str, licence: str, files: list[Path], **more: str) -> dict:
    """In the words of CycloneDX 1.6, with the SHA-256 of its files one after the other."""
    whole = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    about = {"type": kind, "bom-ref": f"held-{name}", "name": name, "version": version}
    return about | {"licenses": [{"license": {"id": licence}}], "hashes": [{"alg": "SHA-256", "content": whole}]} | more


def held(version: str) -> list[dict]:
    pinned = json.loads((ROOT / "studio-page/package.json").read_text())["devDependencies"]
    scripts, land = sorted(VENDOR.glob("maplibre-gl*.*s")), [VENDOR / "land.json"]
    weights = sorted(MODEL.rglob("*.safetensors"))
    maplibre = component(
        "library", "maplibre-gl", pinned["maplibre-gl"], "BSD-3-Clause", scripts,
        purl=f"pkg:npm/maplibre-gl@{pinned['maplibre-gl']}",
    )  # fmt: skip
    atlas = pinned["world-atlas"]
    return [
        maplibre,
        component("data", "natural-earth-land", atlas, "CC-PDDC", land, purl=f"pkg:npm/world-atlas@{atlas}"),
        component("machine-learning-model", "copgen-sim", version, "Apache-2.0", weights),
    ]


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    bom = json.loads(source.read_text())
    bom["components"] += held(target.name.removeprefix("copgen-").removesuffix(".cdx.json"))
    target.write_text(json.dumps(bom, indent=2) + "\n")
